/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The walk of a scrub: depth first over nodes, with a stack of its own, because directories may be nested without
 * limit. A node that was read before is not entered again, so what clones share is read once.
 *
 * GOING ON. The tree may be exchanged for its newer state between two items. The way back is the keys of the leaves on
 * the stack: what lies before them was done. What has been added there since is new, and was not asked for.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fs/view/scrub.h"

#define PARTS 3u /* trees that one value claims at most: body, links, xattrs; or body, xattrs, names */

struct parts {
	struct cow_claims visitor;
	unsigned count;
	struct {
		struct cow_ptr ptr;
		uint8_t kind;
	} list[PARTS];
};

static void add_part(struct cow_claims *self, uint8_t *ptr, uint8_t kind)
{
	struct parts *p = (struct parts *)self;

	assert(p->count < PARTS);
	p->list[p->count].ptr = cow_ptr_get(ptr);
	p->list[p->count++].kind = kind;
}

static void no_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	(void)self, (void)block, (void)length;
}

/* ------------------------------------------------------------------ where it is */

static struct cow_scrub_frame *top(struct cow_scrub *s)
{
	return &s->frames[s->depth - 1];
}

static void push(struct cow_scrub *s, struct cow_node *node)
{
	if (s->depth == s->size) {
		s->size = s->size != 0 ? 2 * s->size : 32;
		s->frames = cow_mem_resize(s->frames, s->size * sizeof(*s->frames));
	}
	s->frames[s->depth++] = (struct cow_scrub_frame){.node = node, .path_length = s->path_length};
}

static void pop(struct cow_scrub *s)
{
	free(s->frames[--s->depth].node);
}

static void set_path(struct cow_scrub *s, size_t length, struct cow_slice name)
{
	size_t need = length + name.length + 2;

	if (need > s->path_size)
		s->path = cow_mem_resize(s->path, s->path_size = 2 * need);
	if (name.length > 0) {
		s->path[length] = '/';
		memcpy(s->path + length + 1, name.bytes, name.length);
		length += 1 + name.length;
	}
	s->path[length] = 0;
	s->path_length = length;
}

/* The path of the item that the frame is at. */
static void enter_item(struct cow_scrub *s, const struct cow_scrub_frame *f, const uint8_t *value, uint32_t length)
{
	struct cow_dirent entry = {0};
	int error = 0;

	if (cow_node_kind(f->node) == COW_KIND_DIR)
		error = cow_dirent_decode(value, length, &entry);
	assert(error == 0); /* validated when it was read */
	set_path(s, f->path_length, entry.name);
}

/* ------------------------------------------------------------------ what it finds */

/* The row of the hard-linked file that is being looked at, and the record of its world's top. */
static bool find_row(struct cow_scrub *s, struct cow_record *world, size_t *path_length, uint8_t **row,
		     uint32_t *length)
{
	struct cow_dirent entry;

	for (size_t i = s->depth; i-- > 1;) {
		struct cow_scrub_frame *f = &s->frames[i];
		if (cow_node_kind(f->node) != COW_KIND_LINKS || cow_node_level(f->node) > 0 ||
		    f->index >= cow_node_items(f->node))
			continue;
		*row = cow_leaf_value(f->node, f->index, length);
		while (i > 0 && cow_node_kind(s->frames[i].node) == COW_KIND_LINKS)
			i--;
		f = &s->frames[i];
		if (cow_node_kind(f->node) != COW_KIND_DIR || cow_node_level(f->node) > 0)
			return false;
		uint32_t size;
		const uint8_t *value = cow_leaf_value(f->node, f->index, &size);
		*path_length = s->frames[i + 1].path_length;
		return cow_dirent_decode(value, size, &entry) == 0 && !entry.is_link &&
		       cow_record_decode(entry.record.bytes, entry.record.length, 0, world) == 0;
	}
	return false;
}

/* With the path of a name, if it is in a hard-linked file. */
static void tell(struct cow_scrub *s, uint64_t block, int64_t offset, const char *what, const char *wrong)
{
	struct cow_record world;
	size_t path_length;
	uint32_t length;
	uint8_t *row;
	char *name = NULL, *path = s->path, *world_path;

	if (!s->nameless && find_row(s, &world, &path_length, &row, &length)) {
		world_path = cow_mem_copy(s->path, path_length + 1);
		world_path[path_length] = 0;
		name = cow_scrub_name(s->store, &world, world_path, row, length);
		free(world_path);
	}
	if (name != NULL)
		s->path = name;
	cow_scrub_tell(s, block, offset, what, wrong);
	s->path = path;
	free(name);
}

static const char *node_text(uint8_t kind)
{
	switch (kind) {
	case COW_KIND_DIR: return "names in a directory";
	case COW_KIND_LINKS: return "hard-linked files of a clone";
	case COW_KIND_FILE: return "the map of a file";
	case COW_KIND_BLOB: return "a long symbolic link, extended attributes, or names of a hard-linked file";
	case COW_KIND_NUMBERS: return "inode numbers";
	default: return "the queue of removed trees";
	}
}

/* Goes into a node, unless it has been there. */
static int enter(struct cow_scrub *s, struct cow_ptr ptr, uint8_t kind, int level, bool anyway)
{
	struct cow_node *node;
	const char *wrong;
	bool was_seen;
	int error;

	if (cow_ptr_is_null(ptr))
		return 0;
	/* What is younger than the scrub may lie where something else was read. */
	was_seen = ptr.generation <= s->generation
			   ? cow_scrub_see(s, ptr.addr)
			   : (uintptr_t)cow_map_get(&s->young, ptr.addr) == (uintptr_t)ptr.generation;
	if (ptr.generation > s->generation)
		cow_map_put(&s->young, ptr.addr, (void *)(uintptr_t)ptr.generation);
	if (was_seen && !anyway)
		return 0;
	error = cow_node_try(s->store, ptr, kind, level, &node, &wrong);
	if (error == -ENOMEM)
		return error;
	if (!was_seen) {
		s->result->nodes++;
		if (wrong != NULL)
			tell(s, ptr.addr, -1, node_text(kind), wrong);
		cow_scrub_pace(s, 1);
	}
	if (wrong == NULL)
		push(s, node);
	return 0;
}

/* ------------------------------------------------------------------ file data */

static void check_block(struct cow_scrub *s, const struct cow_extent *e, unsigned i, const uint8_t *bytes)
{
	uint8_t again[COW_BLOCK];
	const char *wrong = NULL;

	if (bytes == NULL) { /* some block of the run cannot be read */
		bytes = again;
		if (cow_dev_read(s->store->dev, again, COW_BLOCK, (e->block + i) << COW_BLOCK_SHIFT) != 0)
			wrong = "cannot be read";
	}
	if (wrong == NULL && cow_extent_sum(bytes) != get32(e->sums + (size_t)4 * i))
		wrong = "checksum does not fit";
	if (wrong != NULL)
		tell(s, e->block + i, (int64_t)((e->at + i) << COW_BLOCK_SHIFT), "file data", wrong);
}

/* Reads the blocks that were not read before, in as few runs as can be. */
static int check_extent(struct cow_scrub *s, const struct cow_extent *e)
{
	uint8_t *buffer;
	unsigned n;

	if (e->kind != COW_EXTENT_PLAIN)
		return 0;
	buffer = malloc((size_t)e->blocks * COW_BLOCK);
	if (buffer == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < e->blocks; i += n) {
		for (n = 0; i + n < e->blocks && !cow_scrub_see(s, e->block + i + n);)
			n++;
		if (n == 0) {
			n = 1;
			continue;
		}
		bool read = cow_dev_read(s->store->dev, buffer, (size_t)n * COW_BLOCK,
					 (e->block + i) << COW_BLOCK_SHIFT) == 0;
		for (unsigned k = 0; k < n; k++)
			check_block(s, e, i + k, read ? buffer + (size_t)k * COW_BLOCK : NULL);
		s->result->data_blocks += n;
		cow_scrub_pace(s, n);
	}
	free(buffer);
	return s->stop;
}

static int check_list(struct cow_scrub *s, struct cow_slice list)
{
	struct cow_extent extent;
	uint32_t used;
	int error = 0;

	while (list.length > 0 && error == 0) {
		error = cow_extent_decode(list.bytes + 8, list.length - 8, get64(list.bytes), 0, &extent, &used);
		assert(error == 0);
		error = check_extent(s, &extent);
		list.bytes += 8 + used;
		list.length -= 8 + used;
	}
	return error;
}

static int check_record(struct cow_scrub *s, struct cow_slice bytes)
{
	struct cow_record r;
	int error = cow_record_decode(bytes.bytes, bytes.length, 0, &r);

	assert(error == 0);
	return r.body == COW_BODY_EXTENTS ? check_list(s, r.data) : 0;
}

/* The data that an item names itself; trees come after it. */
static int check_item(struct cow_scrub *s, uint8_t kind, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct cow_dirent entry;
	struct cow_link_row row;
	struct cow_extent extent;
	uint32_t used;

	switch (kind) {
	case COW_KIND_DIR:
		if (cow_dirent_decode(value, length, &entry) == 0 && !entry.is_link)
			return check_record(s, entry.record);
		return 0;
	case COW_KIND_LINKS:
		return cow_link_row_decode(value, length, &row) == 0 ? check_record(s, row.record) : 0;
	case COW_KIND_FILE:
		if (cow_extent_decode(value, length, key, 0, &extent, &used) == 0)
			return check_extent(s, &extent);
		return 0;
	default:
		return 0;
	}
}

/* ------------------------------------------------------------------ going over it */

static struct parts parts_of(uint8_t kind, uint8_t *value, uint32_t length)
{
	struct parts parts = {.visitor = {add_part, no_run}};

	if (kind != COW_KIND_RECLAIM) /* what is removed is not looked at */
		cow_value_claims(kind, value, length, &parts.visitor);
	return parts;
}

/* One step: into a child, or on to the next item. */
static int step(struct cow_scrub *s)
{
	struct cow_scrub_frame *f = top(s);
	uint8_t kind = cow_node_kind(f->node), *value;
	uint32_t length;
	int error = 0;

	if (f->index >= cow_node_items(f->node)) {
		pop(s);
		return 0;
	}
	if (cow_node_level(f->node) > 0) {
		set_path(s, f->path_length, (struct cow_slice){0});
		return enter(s, cow_inner_ptr(f->node, f->index++), kind, cow_node_level(f->node) - 1, false);
	}
	value = cow_leaf_value(f->node, f->index, &length);
	enter_item(s, f, value, length);
	if (f->part == 0)
		error = check_item(s, kind, cow_node_key(f->node, f->index), value, length);
	if (error != 0)
		return error;
	struct parts parts = parts_of(kind, value, length);
	if (f->part < parts.count) {
		unsigned part = f->part++;
		return enter(s, parts.list[part].ptr, parts.list[part].kind, -1, false);
	}
	f->index++;
	f->part = 0;
	return 0;
}

/* ------------------------------------------------------------------ going on in a newer state */

struct mark {
	uint64_t key;
	unsigned part;
};

/* One for each tree on the stack: the leaf's item, or, before there is a leaf, the child that comes. */
static struct mark *marks_of(const struct cow_scrub *s, size_t *count)
{
	struct mark *marks = cow_mem_new((s->depth + 1) * sizeof(*marks));

	*count = 0;
	for (size_t i = 0; i < s->depth; i++) {
		const struct cow_scrub_frame *f = &s->frames[i];
		if (cow_node_level(f->node) == 0 || i + 1 == s->depth)
			marks[(*count)++] = (struct mark){cow_node_key(f->node, f->index), f->part};
	}
	return marks;
}

/* Down to the leaf of the tree where the key is, or would be. 1: there. */
static int descend(struct cow_scrub *s, struct cow_ptr ptr, uint8_t kind, uint64_t key)
{
	int level = -1;

	for (;;) {
		size_t depth = s->depth;
		int error = enter(s, ptr, kind, level, true);
		if (error != 0 || s->depth == depth)
			return error;
		struct cow_scrub_frame *f = top(s);
		if (cow_node_level(f->node) == 0)
			return 1;
		int i = cow_node_find(f->node, key);
		f->index = i < 0 ? 0 : (unsigned)i;
		ptr = cow_inner_ptr(f->node, f->index++);
		level = cow_node_level(f->node) - 1;
	}
}

/* Puts the stack where the marks say, as far as that is still there. */
static int restore(struct cow_scrub *s, const struct cow_scrub_tree *tree, const struct mark *marks, size_t count)
{
	struct cow_ptr ptr = tree->root;
	uint8_t kind = tree->kind;
	int result = 0;

	for (size_t m = 0; m < count && (result = descend(s, ptr, kind, marks[m].key)) == 1; m++) {
		struct cow_scrub_frame *f = top(s);
		uint8_t *value;
		uint32_t length;
		int i = cow_node_find(f->node, marks[m].key);

		f->index = i < 0 ? 0 : (unsigned)i;
		if (i < 0 || cow_node_key(f->node, f->index) != marks[m].key) {
			f->index += i >= 0;
			return 0;
		}
		f->part = marks[m].part;
		value = cow_leaf_value(f->node, f->index, &length);
		enter_item(s, f, value, length);
		struct parts parts = parts_of(kind, value, length);
		if (m + 1 == count || f->part == 0 || f->part > parts.count)
			return 0;
		ptr = parts.list[f->part - 1].ptr;
		kind = parts.list[f->part - 1].kind;
	}
	return result < 0 ? result : 0;
}

static int go_on(struct cow_scrub *s, const struct cow_scrub_tree *tree)
{
	struct mark *marks;
	size_t count;
	int error;

	while (s->depth > 0 && top(s)->index >= cow_node_items(top(s)->node))
		pop(s); /* done: only what is not has a key to come back by */
	marks = marks_of(s, &count);
	while (s->depth > 0)
		pop(s);
	set_path(s, 0, (struct cow_slice){0});
	error = restore(s, tree, marks, count);
	free(marks);
	return error;
}

int cow_scrub_walk(struct cow_scrub *s, struct cow_scrub_tree *tree)
{
	int error;

	set_path(s, 0, (struct cow_slice){0});
	error = enter(s, tree->root, tree->kind, -1, false);
	while (s->depth > 0 && error == 0 && s->stop == 0) {
		error = step(s);
		if (error != 0 || s->depth == 0)
			break;
		error = tree->again(s, tree);
		if (error == 1)
			error = go_on(s, tree);
	}
	while (s->depth > 0)
		pop(s);
	return error != 0 ? error : s->stop;
}
