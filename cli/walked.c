// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/walked.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/map.h"
#include "base/mem.h"
#include "cli/walk.h"

#define TOLD 1 /* a result: the error was told already */
#define BUFFER (1u << 17)

struct entry {
	struct cow_tree_node node;
	struct cow_tree_item item;
};

struct change {
	char type;
	char *path;
	uint32_t old_mode, new_mode;
};

struct walked {
	const struct cow_cli *cli;
	const char *old_name, *new_name;
	bool expand;
	bool only_same; /* the first change is enough */
	struct change *changes;
	size_t count, size;
	uint8_t *buffers[2];
};

static void entry_close(struct entry *entry)
{
	if (entry->node.fd >= 0)
		close(entry->node.fd);
	cow_tree_item_free(&entry->item);
}

static int entry_open(int dir, const char *name, struct entry *entry)
{
	int error;

	*entry = (struct entry){.node = {.fd = -1}};
	error = cow_host_open(dir, name, &entry->node, &entry->item);
	if (error != 0)
		*entry = (struct entry){.node = {.fd = -1}};
	return error;
}

static int tell(const struct walked *w, const char *top, const char *path, int error)
{
	char *full;

	if (error == TOLD || asprintf(&full, "%s%s%s", top, path[0] != '\0' ? "/" : "", path) < 0)
		return TOLD;
	cow_say_error(w->cli, full, error);
	free(full);
	return TOLD;
}

/* ------------------------------------------------------------------ comparing */

static int report(struct walked *w, char type, const char *path, uint32_t old_mode, uint32_t new_mode)
{
	if (w->count == w->size) {
		w->size = w->size != 0 ? w->size * 2 : 64;
		w->changes = cow_mem_resize(w->changes, w->size * sizeof(*w->changes));
	}
	w->changes[w->count++] = (struct change){type, cow_mem_copy(path, strlen(path) + 1), old_mode, new_mode};
	return 0;
}

static ssize_t read_full(int fd, uint8_t *buffer, uint64_t offset)
{
	size_t done = 0;

	while (done < BUFFER) {
		ssize_t got = pread(fd, buffer + done, BUFFER - done, (off_t)(offset + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		done += (size_t)got;
	}
	return (ssize_t)done;
}

/* 1, 0 or -errno. */
static int same_bytes(struct walked *w, const struct entry *a, const struct entry *b)
{
	ssize_t x, y;

	if (a->item.size != b->item.size)
		return 0;
	for (uint64_t offset = 0;; offset += BUFFER) {
		x = read_full(a->node.fd, w->buffers[0], offset);
		y = read_full(b->node.fd, w->buffers[1], offset);
		if (x < 0 || y < 0)
			return (int)(x < 0 ? x : y);
		if (x != y || memcmp(w->buffers[0], w->buffers[1], (size_t)x) != 0)
			return 0;
		if (x < (ssize_t)BUFFER)
			return 1;
	}
}

static int same_content(struct walked *w, const struct entry *a, const struct entry *b)
{
	switch (a->item.mode & S_IFMT) {
	case S_IFREG: return same_bytes(w, a, b);
	case S_IFLNK: return strcmp(a->item.target, b->item.target) == 0;
	case S_IFCHR:
	case S_IFBLK: return a->item.rdev == b->item.rdev;
	default: return 1;
	}
}

static bool has_xattr(const struct cow_tree_item *item, const struct cow_tree_xattr *like)
{
	for (size_t i = 0; i < item->xattr_count; i++)
		if (strcmp(item->xattrs[i].name, like->name) == 0)
			return item->xattrs[i].size == like->size &&
			       memcmp(item->xattrs[i].value, like->value, like->size) == 0;
	return false;
}

static bool same_attributes(const struct cow_tree_item *a, const struct cow_tree_item *b)
{
	if (a->mode != b->mode || a->uid != b->uid || a->gid != b->gid || a->xattr_count != b->xattr_count)
		return false;
	for (size_t i = 0; i < a->xattr_count; i++)
		if (!has_xattr(b, &a->xattrs[i]))
			return false;
	return true;
}

static char *join(const char *path, const char *name)
{
	char *out = cow_mem_new(strlen(path) + strlen(name) + 2);

	sprintf(out, "%s%s%s", path, path[0] != '\0' ? "/" : "", name);
	return out;
}

static int compare_directories(struct walked *w, const struct entry *a, const struct entry *b, const char *path);

/* Below a directory that only one side has. */
static int report_below(struct walked *w, const struct entry *dir, const char *path, bool gone)
{
	struct cow_names names = {0};
	int error = cow_host_list(dir->node.fd, &names);

	if (error != 0)
		error = tell(w, gone ? w->old_name : w->new_name, path, error);
	for (size_t i = 0; i < names.count && error == 0; i++) {
		char *inner = join(path, names.names[i]);
		struct entry entry;

		error = entry_open(dir->node.fd, names.names[i], &entry);
		if (error != 0)
			error = tell(w, gone ? w->old_name : w->new_name, inner, error);
		if (error == 0)
			error = report(w, gone ? 'D' : 'A', inner, gone ? entry.item.mode : 0,
				       gone ? 0 : entry.item.mode);
		if (error == 0 && S_ISDIR(entry.item.mode))
			error = report_below(w, &entry, inner, gone);
		entry_close(&entry);
		free(inner);
	}
	cow_names_free(&names);
	return error;
}

static int only(struct walked *w, const struct entry *entry, const char *path, bool gone)
{
	uint32_t mode = entry->item.mode;
	int error = report(w, gone ? 'D' : 'A', path, gone ? mode : 0, gone ? 0 : mode);

	if (error == 0 && w->expand && S_ISDIR(mode))
		error = report_below(w, entry, path, gone);
	return error;
}

static int compare_entries(struct walked *w, const struct entry *a, const struct entry *b, const char *path)
{
	uint32_t x = a->item.mode, y = b->item.mode;
	int error, same;

	if ((x & S_IFMT) != (y & S_IFMT)) {
		error = report(w, 'T', path, x, y);
		if (error == 0 && w->expand && S_ISDIR(x))
			error = report_below(w, a, path, true);
		if (error == 0 && w->expand && S_ISDIR(y))
			error = report_below(w, b, path, false);
		return error;
	}
	same = same_content(w, a, b);
	if (same < 0)
		return tell(w, w->new_name, path, same);
	if (same == 0)
		error = report(w, 'M', path, x, y);
	else
		error = same_attributes(&a->item, &b->item) ? 0 : report(w, 'm', path, x, y);
	if (error == 0 && S_ISDIR(x))
		error = compare_directories(w, a, b, path);
	return error;
}

/* One name, in one or both. */
static int compare_name(struct walked *w, const struct entry *a, const struct entry *b, const char *path,
			const char *name)
{
	char *inner = join(path, name);
	struct entry x, y;
	int no_x = entry_open(a->node.fd, name, &x), no_y = entry_open(b->node.fd, name, &y), error = 0;

	if (no_x != 0 && no_x != -ENOENT)
		error = tell(w, w->old_name, inner, no_x);
	else if (no_y != 0 && no_y != -ENOENT)
		error = tell(w, w->new_name, inner, no_y);
	else if (no_x == 0 && no_y == 0)
		error = compare_entries(w, &x, &y, inner);
	else if (no_x == 0)
		error = only(w, &x, inner, true);
	else if (no_y == 0)
		error = only(w, &y, inner, false);
	entry_close(&x);
	entry_close(&y);
	free(inner);
	return error;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int compare_directories(struct walked *w, const struct entry *a, const struct entry *b, const char *path)
{
	struct cow_names names = {0};
	int error = cow_host_list(a->node.fd, &names);

	if (error != 0) {
		error = tell(w, w->old_name, path, error);
	} else {
		error = cow_host_list(b->node.fd, &names);
		if (error != 0)
			error = tell(w, w->new_name, path, error);
	}
	if (names.count > 0)
		qsort(names.names, names.count, sizeof(char *), by_name);
	for (size_t i = 0; i < names.count && error == 0 && !(w->only_same && w->count > 0); i++)
		if (i == 0 || strcmp(names.names[i], names.names[i - 1]) != 0)
			error = compare_name(w, a, b, path, names.names[i]);
	cow_names_free(&names);
	return error;
}

static int by_path(const void *a, const void *b)
{
	const struct change *x = a, *y = b;
	int order = strcmp(x->path, y->path);

	return order != 0 ? order : (y->type == 'D') - (x->type == 'D');
}

/* The tops are opened again, by name, so that they are described as all else is. */
static int compare_tops(struct walked *w, const struct cow_place *old_place, const struct cow_place *new_place)
{
	struct entry a, b;
	int error;

	w->old_name = old_place->text;
	w->new_name = new_place->text;
	w->buffers[0] = cow_mem_new(BUFFER);
	w->buffers[1] = cow_mem_new(BUFFER);
	error = entry_open(AT_FDCWD, old_place->path, &a);
	if (error != 0)
		return tell(w, w->old_name, "", error);
	error = entry_open(AT_FDCWD, new_place->path, &b);
	if (error != 0)
		error = tell(w, w->new_name, "", error);
	else if (S_ISDIR(a.item.mode) != S_ISDIR(b.item.mode))
		error = cow_say(w->cli, "%s and %s: one is a directory, the other a file", w->old_name, w->new_name);
	else
		error = compare_entries(w, &a, &b, "");
	entry_close(&a);
	entry_close(&b);
	return error;
}

static void free_all(struct walked *w)
{
	for (size_t i = 0; i < w->count; i++)
		free(w->changes[i].path);
	free(w->changes);
	free(w->buffers[0]);
	free(w->buffers[1]);
}

int cow_walked_changes(const struct cow_cli *cli, const struct cow_place *old_place, const struct cow_place *new_place,
		       bool expand, cow_diff_fn fn, void *context)
{
	struct walked w = {.cli = cli, .expand = expand};
	int error = compare_tops(&w, old_place, new_place);

	if (error == 0 && w.count > 0)
		qsort(w.changes, w.count, sizeof(*w.changes), by_path);
	for (size_t i = 0; i < w.count && error == 0; i++) {
		struct cow_change change = {
			.type = w.changes[i].type,
			.path = w.changes[i].path,
			.old_mode = w.changes[i].old_mode,
			.new_mode = w.changes[i].new_mode,
		};

		error = fn(context, &change);
	}
	free_all(&w);
	return error;
}

int cow_walked_same(const struct cow_cli *cli, const struct cow_place *a, const struct cow_place *b)
{
	struct walked w = {.cli = cli, .only_same = true};
	int result = compare_tops(&w, a, b) != 0 ? -1 : w.count == 0;

	free_all(&w);
	return result;
}

/* ------------------------------------------------------------------ space */

struct counted {
	uint64_t dev, ino;
	struct counted *next;
};

struct sum {
	struct walked w; /* names, for messages */
	struct cow_map seen; /* hard-linked files count once */
	struct cow_usage *usage;
};

static bool is_first(struct sum *sum, const struct cow_tree_item *item)
{
	uint64_t key = item->ino * 0x9e3779b97f4a7c15ull ^ item->dev;
	struct counted *head = cow_map_get(&sum->seen, key), *fresh;

	for (struct counted *c = head; c != NULL; c = c->next)
		if (c->dev == item->dev && c->ino == item->ino)
			return false;
	fresh = cow_mem_new(sizeof(*fresh));
	*fresh = (struct counted){item->dev, item->ino, head};
	cow_map_put(&sum->seen, key, fresh);
	return true;
}

static void add_file(struct sum *sum, const struct cow_tree_item *item)
{
	if (item->nlink > 1 && !is_first(sum, item))
		return;
	sum->usage->files++;
	if (S_ISREG(item->mode) || S_ISLNK(item->mode))
		sum->usage->apparent_bytes += item->size;
	sum->usage->total_bytes += item->mapped;
}

static int add_directory(struct sum *sum, const struct entry *dir, const char *path)
{
	struct cow_names names = {0};
	int error = cow_host_list(dir->node.fd, &names);

	if (error != 0)
		error = tell(&sum->w, sum->w.new_name, path, error);
	for (size_t i = 0; i < names.count && error == 0; i++) {
		char *inner = join(path, names.names[i]);
		struct entry entry;

		error = entry_open(dir->node.fd, names.names[i], &entry);
		if (error == -ENOENT) {
			error = 0;
		} else if (error != 0) {
			error = tell(&sum->w, sum->w.new_name, inner, error);
		} else if (S_ISDIR(entry.item.mode)) {
			sum->usage->directories++;
			error = add_directory(sum, &entry, inner);
		} else {
			add_file(sum, &entry.item);
		}
		entry_close(&entry);
		free(inner);
	}
	cow_names_free(&names);
	return error;
}

static void free_seen(struct cow_map *map)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(map, &i)) != NULL;) {
		struct counted *next;

		for (struct counted *c = slot->value; c != NULL; c = next) {
			next = c->next;
			free(c);
		}
	}
	cow_map_free(map);
}

int cow_walked_usage(const struct cow_cli *cli, const struct cow_place *place, struct cow_usage *usage)
{
	struct sum sum = {.w = {.cli = cli, .new_name = place->text}, .usage = usage};
	struct entry top;
	int error = entry_open(AT_FDCWD, place->path, &top);

	*usage = (struct cow_usage){0};
	if (error != 0)
		return cow_say_error(cli, place->text, error);
	if (S_ISDIR(top.item.mode))
		error = add_directory(&sum, &top, "");
	else
		add_file(&sum, &top.item);
	entry_close(&top);
	free_seen(&sum.seen);
	return error != 0 ? COW_EXIT_TROUBLE : 0;
}
