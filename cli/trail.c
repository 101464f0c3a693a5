// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A sink that is a tree: finds the directory of each item. The directories down to the last one used stay open, so
 * items in the usual order cost one step each. No component of a path is ever followed through a symbolic link, so an
 * archive cannot write outside.
 */
#include "cli/walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"

static int tell(const struct cow_tree_sink *sink, const char *path, int error)
{
	return cow_say_error(sink->sink.cli, path[0] != '\0' ? path : sink->name, error);
}

/* ------------------------------------------------------------------ the trail */

static void pop_to(struct cow_tree_sink *sink, size_t depth)
{
	while (sink->depth > depth)
		sink->tree->leave(sink, sink->trail[--sink->depth].node);
}

static void push(struct cow_tree_sink *sink, struct cow_tree_node node, const char *path, size_t length)
{
	if (sink->depth == sink->trail_size) {
		sink->trail_size = sink->trail_size != 0 ? sink->trail_size * 2 : 16;
		sink->trail = cow_mem_resize(sink->trail, sink->trail_size * sizeof(*sink->trail));
	}
	if (length + 1 > sink->path_size) {
		sink->path_size = (length + 1) * 2;
		sink->path = cow_mem_resize(sink->path, sink->path_size);
	}
	memmove(sink->path, path, length);
	sink->path[length] = '\0';
	sink->trail[sink->depth++] = (struct cow_trail_level){length, node};
}

/* How much of the trail leads to the directory `path` (of `length` bytes), or above it. */
static size_t common(const struct cow_tree_sink *sink, const char *path, size_t length)
{
	size_t depth = sink->depth;

	for (; depth > 1; depth--) {
		size_t have = sink->trail[depth - 1].length;

		if (have <= length && memcmp(sink->path, path, have) == 0 && (have == length || path[have] == '/'))
			break;
	}
	return depth;
}

/* A directory that an archive has things in but does not name. */
static int make_missing(struct cow_tree_sink *sink, struct cow_tree_node dir, const char *name,
			struct cow_tree_node *node)
{
	struct cow_tree_item item = {.path = name, .mode = S_IFDIR | 0755, .nlink = 1};
	int error;

	clock_gettime(CLOCK_REALTIME, &item.mtime);
	item.atime = item.mtime;
	error = sink->tree->make(sink, dir, name, &item, node);
	return error != 0 ? error : sink->tree->done(sink, *node, &item, 0);
}

/* Opens the trail to the directory `path`; its node is the last level's. */
static int go(struct cow_tree_sink *sink, const char *path, size_t length)
{
	struct cow_tree_node node;
	char name[COW_NAME_MAX + 1];
	int error = 0;

	if (sink->depth == 0) {
		error = sink->tree->enter(sink, sink->base, sink->name, &node);
		if (error != 0)
			return error;
		push(sink, node, "", 0);
	}
	pop_to(sink, common(sink, path, length));
	while (sink->trail[sink->depth - 1].length < length) {
		size_t from = sink->trail[sink->depth - 1].length, to;

		from += from > 0; /* the slash */
		to = from + strcspn(path + from, "/");
		to = to > length ? length : to;
		if (to - from > COW_NAME_MAX)
			return -ENAMETOOLONG;
		memcpy(name, path + from, to - from);
		name[to - from] = '\0';
		error = sink->tree->enter(sink, sink->trail[sink->depth - 1].node, name, &node);
		if (error == -ENOENT)
			error = make_missing(sink, sink->trail[sink->depth - 1].node, name, &node);
		if (error != 0)
			return error;
		push(sink, node, path, to);
	}
	return 0;
}

/* The directory that `path` is in, and its name there. */
static int find(struct cow_tree_sink *sink, const char *path, struct cow_tree_node *dir, const char **name)
{
	const char *slash = strrchr(path, '/');
	int error;

	if (path[0] == '\0') {
		*dir = sink->base;
		*name = sink->name;
		return 0;
	}
	*name = slash != NULL ? slash + 1 : path;
	error = go(sink, path, slash != NULL ? (size_t)(slash - path) : 0);
	if (error == 0)
		*dir = sink->trail[sink->depth - 1].node;
	return error;
}

/* ------------------------------------------------------------------ items */

/* The old name's directory is found on a walk of its own: the trail stays where it is. */
static int add_link(struct cow_tree_sink *sink, struct cow_tree_node dir, const char *name, const char *old)
{
	const char *slash = strrchr(old, '/'), *at = old;
	struct cow_tree_node node = sink->trail[0].node, next;
	char part[COW_NAME_MAX + 1];
	int error = 0;

	while (slash != NULL && at < slash && error == 0) {
		size_t length = strcspn(at, "/");

		if (length > COW_NAME_MAX) {
			error = -ENAMETOOLONG;
			break;
		}
		memcpy(part, at, length);
		part[length] = '\0';
		error = sink->tree->enter(sink, node, part, &next);
		if (error != 0)
			break;
		if (at != old)
			sink->tree->leave(sink, node);
		node = next;
		at += length + 1;
	}
	if (error == 0)
		error = sink->tree->link(sink, node, slash != NULL ? slash + 1 : old, dir, name);
	if (at != old)
		sink->tree->leave(sink, node);
	return error;
}

static int add_once(struct cow_tree_sink *sink, struct cow_tree_node dir, const char *name,
		    const struct cow_tree_item *item)
{
	struct cow_tree_node node;
	int error;

	if (item->link != NULL)
		return add_link(sink, dir, name, item->link);
	if (item->path[0] == '\0' && sink->exists && !S_ISDIR(item->mode))
		return -EEXIST;
	if (item->path[0] == '\0' && strcmp(sink->name, ".") == 0)
		return 0;
	error = sink->tree->make(sink, dir, name, item, &node);
	if (error != 0)
		return error;
	if (S_ISREG(item->mode)) {
		sink->current = node;
		sink->current_path = item->path;
		sink->end = 0;
	} else if (S_ISDIR(item->mode)) {
		push(sink, node, item->path, strlen(item->path));
	}
	return 0;
}

static int add(struct cow_sink *base, const struct cow_tree_item *item)
{
	struct cow_tree_sink *sink = (struct cow_tree_sink *)base;
	struct cow_tree_node dir, node;
	const char *name;
	int error = find(sink, item->path, &dir, &name);

	if (error == 0)
		error = add_once(sink, dir, name, item);
	if (error == -EEXIST && S_ISDIR(item->mode) && sink->tree->enter(sink, dir, name, &node) == 0) {
		sink->tree->leave(sink, node);
		return 0;
	}
	/* an archive that has a name twice: the later one counts; GNU tar calls it a link to itself */
	if (error == -EEXIST && item->link != NULL && strcmp(item->link, item->path) == 0)
		return 0;
	if (error == -EEXIST && item->path[0] != '\0') {
		error = sink->tree->remove(sink, dir, name);
		if (error == 0)
			error = add_once(sink, dir, name, item);
	}
	return error != 0 ? tell(sink, item->path, error) : 0;
}

static int write_data(struct cow_sink *base, const void *data, size_t size, uint64_t offset)
{
	struct cow_tree_sink *sink = (struct cow_tree_sink *)base;
	int error = sink->tree->write(sink, sink->current, data, size, offset);

	sink->end = offset + size;
	return error != 0 ? tell(sink, sink->current_path, error) : 0;
}

static int done(struct cow_sink *base, const struct cow_tree_item *item)
{
	struct cow_tree_sink *sink = (struct cow_tree_sink *)base;
	int error;

	if (S_ISDIR(item->mode)) {
		error = go(sink, item->path, strlen(item->path));
		if (error == 0)
			error = sink->tree->done(sink, sink->trail[sink->depth - 1].node, item, 0);
	} else {
		error = sink->tree->done(sink, sink->current, item, sink->end);
		sink->tree->leave(sink, sink->current);
		sink->current = (struct cow_tree_node){.fd = -1};
	}
	return error != 0 ? tell(sink, item->path, error) : 0;
}

static int close_sink(struct cow_sink *base)
{
	struct cow_tree_sink *sink = (struct cow_tree_sink *)base;

	if (sink->current.fd >= 0 || sink->current.inode != NULL)
		sink->tree->leave(sink, sink->current);
	pop_to(sink, 0);
	free(sink->trail);
	free(sink->path);
	free(sink->name);
	free(sink);
	return 0;
}

struct cow_sink *cow_tree_sink_new(const struct cow_cli *cli, const struct cow_tree_sink_ops *ops,
				   struct cow_tree_node base, const char *name, bool exists)
{
	static const struct cow_sink_ops sink_ops = {add, write_data, done, close_sink};
	struct cow_tree_sink *sink = cow_mem_new(sizeof(*sink));

	sink->sink.ops = &sink_ops;
	sink->sink.cli = cli;
	sink->tree = ops;
	sink->base = base;
	sink->name = cow_mem_copy(name, strlen(name) + 1);
	sink->exists = exists;
	sink->current.fd = -1;
	return &sink->sink;
}

void cow_tree_sink_lost_xattr(struct cow_tree_sink *sink, const struct cow_tree_item *item, const char *name,
			      int error)
{
	if (!sink->xattr_lost)
		cow_say(sink->sink.cli, "%s: extended attribute %s: %s; it and others like it are left out",
			item->path[0] != '\0' ? item->path : sink->name, name, strerror(-error));
	sink->xattr_lost = true;
}

void cow_tree_sink_lost_acl(struct cow_tree_sink *sink, const struct cow_tree_item *item)
{
	if (!sink->acl_lost)
		cow_say(sink->sink.cli, "%s: access control lists cannot be kept there; they are left out, and modes "
			"narrowed so that nobody may do more than before",
			item->path[0] != '\0' ? item->path : sink->name);
	sink->acl_lost = true;
}
