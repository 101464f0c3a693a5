// SPDX-License-Identifier: GPL-2.0-or-later
/* Trees in an image that is not mounted, straight through the library. */
#include "cli/walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/acl.h"

/* ------------------------------------------------------------------ source */

static int add_name(void *context, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	(void)inode;
	(void)attr;
	cow_names_add(context, entry->name);
	return 0;
}

static int list(struct cow_walk *walk, struct cow_tree_node dir, struct cow_names *names)
{
	(void)walk;
	return cow_list(dir.inode, 0, false, add_name, names);
}

static int read_xattrs(struct cow_inode *inode, struct cow_tree_item *item)
{
	int length = cow_listxattr(inode, NULL, 0), got;
	char *names, *value;

	if (length <= 0)
		return length;
	names = cow_mem_new((size_t)length);
	value = cow_mem_new(COW_XATTR_VALUE_MAX);
	length = cow_listxattr(inode, names, (size_t)length);
	for (char *name = names; length > 0 && name < names + length; name += strlen(name) + 1) {
		got = cow_getxattr(inode, name, value, COW_XATTR_VALUE_MAX);
		if (got < 0) {
			length = got;
			break;
		}
		cow_tree_item_xattr(item, name, value, (size_t)got);
	}
	free(value);
	free(names);
	return length < 0 ? length : 0;
}

static int describe(struct cow_inode *inode, const struct cow_attr *attr, struct cow_tree_item *item)
{
	int length = 0;

	*item = (struct cow_tree_item){
		.mode = attr->mode,
		.uid = attr->uid,
		.gid = attr->gid,
		.rdev = attr->rdev,
		.nlink = attr->nlink,
		.ino = attr->ino,
		.size = attr->size,
		.mapped = attr->blocks * 512,
		.atime = attr->atime,
		.mtime = attr->mtime,
	};
	if (S_ISLNK(attr->mode)) {
		item->target = cow_mem_new(COW_SYMLINK_MAX + 1);
		length = cow_readlink(inode, item->target, COW_SYMLINK_MAX);
	}
	return length < 0 ? length : read_xattrs(inode, item);
}

static int child(struct cow_walk *walk, struct cow_tree_node dir, const char *name, struct cow_tree_node *node,
		 struct cow_tree_item *item)
{
	struct cow_attr attr;
	int error = cow_lookup(dir.inode, name, &node->inode, &attr);

	(void)walk;
	if (error != 0)
		return error;
	error = describe(node->inode, &attr, item);
	if (error != 0) {
		cow_tree_item_free(item);
		cow_forget(node->inode, 1);
	}
	return error;
}

static int copy_range(struct cow_walk *walk, struct cow_inode *inode, uint64_t *at, uint64_t end)
{
	while (*at < end) {
		size_t want = end - *at < COW_WALK_BUFFER ? (size_t)(end - *at) : COW_WALK_BUFFER;
		int64_t got = cow_read(inode, walk->buffer, want, *at);
		int error;

		if (got < 0)
			return (int)got;
		if (got == 0)
			return 0;
		error = cow_walk_write(walk, walk->buffer, (size_t)got, *at);
		if (error != 0)
			return error;
		*at += (uint64_t)got;
	}
	return 0;
}

static int data(struct cow_walk *walk, struct cow_tree_node node, const struct cow_tree_item *item)
{
	uint64_t at = 0;
	int error = 0;

	if (item->mapped >= item->size)
		return copy_range(walk, node.inode, &at, item->size);
	while (error == 0 && at < item->size) {
		int64_t from = cow_seek(node.inode, at, SEEK_DATA), to;

		if (from == -ENXIO)
			return 0;
		if (from < 0)
			return (int)from;
		to = cow_seek(node.inode, (uint64_t)from, SEEK_HOLE);
		if (to < 0)
			return (int)to;
		at = (uint64_t)from;
		error = copy_range(walk, node.inode, &at, (uint64_t)to);
	}
	return error;
}

static void close_node(struct cow_walk *walk, struct cow_tree_node node)
{
	(void)walk;
	cow_forget(node.inode, 1);
}

int cow_source_image(struct cow_inode *inode, const char *name, struct cow_sink *sink)
{
	static const struct cow_walk_ops ops = {list, child, data, close_node};
	struct cow_walk walk = {.ops = &ops, .name = name, .sink = sink};
	struct cow_tree_item item = {0};
	struct cow_attr attr;
	int error = cow_getattr(inode, &attr);

	if (error == 0)
		error = describe(inode, &attr, &item);
	if (error != 0)
		return cow_say_error(sink->cli, name, error);
	item.nlink = 1; /* the other names of a top are not in the tree */
	return cow_walk_run(&walk, (struct cow_tree_node){.fd = -1, .inode = inode}, &item);
}

/* ------------------------------------------------------------------ sink */

static int enter(struct cow_tree_sink *sink, struct cow_tree_node dir, const char *name, struct cow_tree_node *node)
{
	struct cow_attr attr;
	int error;

	(void)sink;
	*node = (struct cow_tree_node){.fd = -1};
	if (strcmp(name, ".") == 0) {
		cow_ref(dir.inode);
		node->inode = dir.inode;
		return 0;
	}
	error = cow_lookup(dir.inode, name, &node->inode, &attr);
	if (error != 0 || S_ISDIR(attr.mode))
		return error;
	cow_forget(node->inode, 1);
	return -ENOTDIR;
}

/* A volume has no access control lists, nor anything else that a kernel keeps under "system.". */
static int set_xattrs(struct cow_tree_sink *sink, struct cow_inode *inode, const struct cow_tree_item *item)
{
	int error = 0;

	for (size_t i = 0; i < item->xattr_count && error == 0; i++) {
		const struct cow_tree_xattr *x = &item->xattrs[i];

		if (strcmp(x->name, COW_ACL_ACCESS) == 0 || strcmp(x->name, COW_ACL_DEFAULT) == 0)
			continue;
		error = strncmp(x->name, "system.", 7) != 0 ? cow_setxattr(inode, x->name, x->value, x->size, 0)
							    : -EOPNOTSUPP;
		if (error == -EOPNOTSUPP) {
			cow_tree_sink_lost_xattr(sink, item, x->name, error);
			error = 0;
		}
	}
	if (item->acl)
		cow_tree_sink_lost_acl(sink, item);
	return error;
}

/* An existing top was not made from the item, so all is set; it costs nothing more. */
static int done(struct cow_tree_sink *sink, struct cow_tree_node node, const struct cow_tree_item *item, uint64_t end)
{
	struct cow_attr attr = {
		.mode = item->mode,
		.uid = item->uid,
		.gid = item->gid,
		.size = item->size,
		.atime = item->atime,
		.mtime = item->mtime,
	};
	unsigned mask = COW_SET_MODE | COW_SET_UID | COW_SET_GID | COW_SET_ATIME | COW_SET_MTIME;
	bool existing = S_ISDIR(item->mode) && sink->exists && item->path[0] == '\0';
	int error = existing ? set_xattrs(sink, node.inode, item) : 0;

	if (S_ISREG(item->mode) && end < item->size)
		mask |= COW_SET_SIZE;
	return error != 0 ? error : cow_setattr(node.inode, &attr, mask, NULL);
}

static int make(struct cow_tree_sink *sink, struct cow_tree_node dir, const char *name,
		const struct cow_tree_item *item, struct cow_tree_node *node)
{
	struct cow_new fresh = {item->mode, item->uid, item->gid, item->rdev, item->target};
	int error;

	*node = (struct cow_tree_node){.fd = -1};
	error = cow_create(dir.inode, name, &fresh, &node->inode, NULL);
	if (error != 0)
		return error;
	error = set_xattrs(sink, node->inode, item);
	if (!S_ISREG(item->mode) && !S_ISDIR(item->mode)) {
		if (error == 0)
			error = done(sink, *node, item, 0);
		cow_forget(node->inode, 1);
		node->inode = NULL;
	} else if (error != 0) {
		cow_forget(node->inode, 1);
		node->inode = NULL;
	}
	return error;
}

static int make_link(struct cow_tree_sink *sink, struct cow_tree_node old_dir, const char *old_name,
		     struct cow_tree_node dir, const char *name)
{
	struct cow_inode *inode;
	int error = cow_lookup(old_dir.inode, old_name, &inode, NULL);

	(void)sink;
	if (error != 0)
		return error;
	error = cow_link(inode, dir.inode, name, NULL);
	cow_forget(inode, 1);
	return error;
}

static int remove_name(struct cow_tree_sink *sink, struct cow_tree_node dir, const char *name)
{
	int error = cow_unlink(dir.inode, name);

	(void)sink;
	return error == -ENOENT ? 0 : error == -EISDIR ? -EEXIST : error;
}

static int write_data(struct cow_tree_sink *sink, struct cow_tree_node node, const void *bytes, size_t size,
		      uint64_t offset)
{
	int64_t put = cow_write(node.inode, bytes, size, offset, false);

	(void)sink;
	return put < 0 ? (int)put : 0;
}

static void leave(struct cow_tree_sink *sink, struct cow_tree_node node)
{
	(void)sink;
	cow_forget(node.inode, 1);
}

struct cow_sink *cow_sink_image(const struct cow_cli *cli, struct cow_inode *dir, const char *name, bool exists)
{
	static const struct cow_tree_sink_ops ops = {enter, make, make_link, remove_name, write_data, done, leave};

	return cow_tree_sink_new(cli, &ops, (struct cow_tree_node){.fd = -1, .inode = dir}, name, exists);
}
