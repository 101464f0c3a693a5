/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/data/extents.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fs/core/totals.h"
#include "fs/core/volume.h"

/* Shortest item of a list: file block and an unwritten extent. A list may for a moment have two more than fit. */
#define LIST_MAX (COW_EXTENTS_MAX / 20u + 2u)

/* An extent of one block, in a list or in a leaf, and what a leaf holds that was split. */
#define PIECE_BYTES 26u
#define HALF_LEAF (COW_BLOCK / 2)

struct list {
	unsigned count;
	struct cow_extent items[LIST_MAX];
};

static struct cow_store *store_of(const struct cow_inode *file)
{
	return file->volume->store;
}

static uint64_t end_of(const struct cow_extent *e)
{
	return e->at + e->blocks;
}

/* The part of an extent between two file blocks. */
static struct cow_extent part(const struct cow_extent *e, uint64_t from, uint64_t end)
{
	struct cow_extent p = *e;

	assert(from >= e->at && from < end && end <= end_of(e));
	p.at = from;
	p.blocks = (uint16_t)(end - from);
	p.block = e->block + (from - e->at);
	p.sums = e->kind == COW_EXTENT_PLAIN ? e->sums + 4 * (from - e->at) : e->sums;
	return p;
}

static void account(struct cow_inode *file, int64_t blocks)
{
	file->blocks += (uint64_t)blocks;
	cow_inode_resized(file, 0, blocks);
}

/* ------------------------------------------------------------------ items of trees */

static void decode_item(const struct cow_item *item, struct cow_extent *extent)
{
	uint32_t used;
	int error = cow_extent_decode(item->value, item->length, item->key, 0, extent, &used);

	assert(error == 0 && used == item->length);
}

static int put_item(struct cow_store *store, struct cow_tree *tree, const struct cow_extent *extent)
{
	uint8_t bytes[COW_EXTENT_BYTES_MAX];

	return cow_tree_put(store, tree, extent->at, bytes, cow_extent_encode(extent, bytes));
}

static void put_reserved(struct cow_store *store, struct cow_tree *tree, const struct cow_extent *extent)
{
	int error = put_item(store, tree, extent);

	assert(error == 0);
}

static int find_in_tree(struct cow_store *store, const struct cow_tree *tree, uint64_t at, struct cow_extent *extent)
{
	struct cow_item item;
	int error = cow_tree_previous(store, tree, at, &item);

	if (error == 0) {
		decode_item(&item, extent);
		if (end_of(extent) > at)
			return 0;
	} else if (error != -ENOENT) {
		return error;
	}
	error = cow_tree_next(store, tree, at, &item);
	if (error == 0)
		decode_item(&item, extent);
	return error;
}

/* ------------------------------------------------------------------ lists */

static void load_list(const struct cow_inode *file, struct list *list)
{
	uint32_t used;

	list->count = 0;
	if (file->body != COW_BODY_EXTENTS)
		return;
	for (uint32_t p = 0; p < file->data_length; p += 8 + used) {
		assert(list->count < LIST_MAX);
		int error = cow_extent_decode(file->data + p + 8, file->data_length - p - 8, get64(file->data + p), 0,
					      &list->items[list->count++], &used);
		assert(error == 0);
	}
}

static void list_to_tree(struct cow_inode *file, const struct list *list)
{
	struct cow_tree tree = {.kind = COW_KIND_FILE};

	for (unsigned i = 0; i < list->count; i++)
		put_reserved(store_of(file), &tree, &list->items[i]); /* a tree just made is in memory */
	free(file->data);
	file->data = NULL;
	file->data_length = 0;
	file->tree = tree;
	file->body = COW_BODY_TREE;
}

/* The list's sums may point into file->data: it goes only after they were copied. */
static void store_list(struct cow_inode *file, const struct list *list)
{
	uint8_t bytes[LIST_MAX * (8 + COW_EXTENT_BYTES_MAX)];
	uint32_t length = 0;

	for (unsigned i = 0; i < list->count; i++) {
		put64(bytes + length, list->items[i].at);
		length += 8 + cow_extent_encode(&list->items[i], bytes + length + 8);
	}
	if (length > COW_EXTENTS_MAX) {
		list_to_tree(file, list);
		return;
	}
	free(file->data);
	file->data = length != 0 ? cow_mem_copy(bytes, length) : NULL;
	file->data_length = length;
	file->body = length != 0 ? COW_BODY_EXTENTS : COW_BODY_NONE;
}

static void cut_list(struct cow_inode *file, uint64_t from, uint64_t end)
{
	struct list old, new = {0};
	int64_t removed = 0;

	load_list(file, &old);
	for (unsigned i = 0; i < old.count; i++) {
		const struct cow_extent *e = &old.items[i];
		uint64_t low = e->at > from ? e->at : from, high = end_of(e) < end ? end_of(e) : end;
		if (low >= high) {
			new.items[new.count++] = *e;
			continue;
		}
		if (e->at < low)
			new.items[new.count++] = part(e, e->at, low);
		if (high < end_of(e))
			new.items[new.count++] = part(e, high, end_of(e));
		cow_counts_add(store_of(file)->counts, e->block + (low - e->at), (uint32_t)(high - low), -1);
		removed += (int64_t)(high - low);
	}
	if (removed == 0)
		return;
	store_list(file, &new);
	account(file, -removed);
}

static void insert_in_list(struct cow_inode *file, const struct cow_extent *extent)
{
	struct list list;
	unsigned i;

	load_list(file, &list);
	assert(list.count < LIST_MAX);
	for (i = list.count; i > 0 && list.items[i - 1].at > extent->at; i--)
		list.items[i] = list.items[i - 1];
	list.items[i] = *extent;
	list.count++;
	store_list(file, &list);
}

/* ------------------------------------------------------------------ all forms */

int cow_extents_find(struct cow_inode *file, uint64_t at, struct cow_extent *extent)
{
	struct list list;

	if (file->body == COW_BODY_TREE)
		return find_in_tree(store_of(file), &file->tree, at, extent);
	load_list(file, &list);
	for (unsigned i = 0; i < list.count; i++)
		if (end_of(&list.items[i]) > at) {
			*extent = list.items[i];
			return 0;
		}
	return -ENOENT;
}

int cow_extents_reserve(struct cow_inode *file, uint64_t at)
{
	return file->body == COW_BODY_TREE ? cow_tree_reserve(store_of(file), &file->tree, at) : 0;
}

/* Of a tree, each run may copy the leaves at its two ends, and split one; what lies between them goes. Blocks may be
 * placed one by one where free space is in pieces. */
uint64_t cow_extents_due(const struct cow_inode *file, uint64_t blocks, uint64_t runs)
{
	uint64_t bytes = blocks * PIECE_BYTES, leaves;

	if (file->body == COW_BODY_TREE) {
		leaves = 3 * runs + bytes / HALF_LEAF;
	} else {
		bytes += runs * PIECE_BYTES + (file->body == COW_BODY_EXTENTS ? file->data_length : 0);
		if (bytes <= COW_EXTENTS_MAX)
			return 0;
		leaves = 1 + bytes / HALF_LEAF;
	}
	return leaves + leaves / 8 + 1;
}

void cow_extents_insert(struct cow_inode *file, const struct cow_extent *extent)
{
	assert(file->body == COW_BODY_NONE || file->body == COW_BODY_EXTENTS || file->body == COW_BODY_TREE);
	if (file->body == COW_BODY_TREE)
		put_reserved(store_of(file), &file->tree, extent);
	else
		insert_in_list(file, extent);
	account(file, extent->blocks);
}

/* A tree that lost its last extent is no body. */
static void settle(struct cow_inode *file)
{
	if (file->body == COW_BODY_TREE && cow_ptr_is_null(file->tree.root))
		file->body = COW_BODY_NONE;
}

/*
 * Takes [from, end) out of one extent of a tree. Both keys that are written are reserved before the first change: a
 * separator left behind by extents that are gone may lie between them. The reservation may have copied a shared leaf
 * (which claims its extents once more), so the extent is read again, and only then its blocks lose a count.
 */
static int cut_item(struct cow_inode *file, uint64_t at, uint64_t from, uint64_t end)
{
	struct cow_store *store = store_of(file);
	uint8_t sums[4 * COW_EXTENT_BLOCKS_MAX];
	struct cow_item item;
	struct cow_extent e;
	int error = cow_tree_reserve(store, &file->tree, at);

	if (error == 0)
		error = cow_tree_reserve(store, &file->tree, end);
	if (error == 0)
		error = cow_tree_get(store, &file->tree, at, &item);
	if (error != 0) /* not where it was found: the order of keys is broken */
		return error == -ENOENT ? COW_ERR_DAMAGED : error;
	decode_item(&item, &e);
	if (e.kind == COW_EXTENT_PLAIN) {
		memcpy(sums, e.sums, 4u * e.blocks);
		e.sums = sums;
	}
	uint64_t low = e.at > from ? e.at : from, high = end_of(&e) < end ? end_of(&e) : end;
	if (high < end_of(&e)) {
		struct cow_extent tail = part(&e, high, end_of(&e));
		put_reserved(store, &file->tree, &tail);
	}
	if (e.at < low) {
		struct cow_extent head = part(&e, e.at, low);
		put_reserved(store, &file->tree, &head);
	} else {
		error = cow_tree_del(store, &file->tree, e.at);
		assert(error == 0);
	}
	cow_counts_add(store->counts, e.block + (low - e.at), (uint32_t)(high - low), -1);
	account(file, -(int64_t)(high - low));
	return 0;
}

int cow_extents_cut(struct cow_inode *file, uint64_t from, uint64_t end)
{
	struct cow_extent extent;
	int error;

	if (from >= end)
		return 0;
	if (file->body != COW_BODY_TREE) {
		cut_list(file, from, end);
		return 0;
	}
	while ((error = find_in_tree(store_of(file), &file->tree, from, &extent)) == 0 && extent.at < end) {
		error = cut_item(file, extent.at, from, end);
		if (error != 0)
			return error;
	}
	settle(file);
	return error == -ENOENT ? 0 : error;
}

int cow_extents_trim(struct cow_store *store, struct cow_tree *tree, uint64_t keep)
{
	uint8_t sums[4 * COW_EXTENT_BLOCKS_MAX];
	struct cow_extent e = {0};
	bool straddles = false;
	struct cow_item item;
	int error = keep != 0 ? cow_tree_previous(store, tree, keep - 1, &item) : -ENOENT;

	if (error == 0) {
		decode_item(&item, &e);
		straddles = end_of(&e) > keep;
	} else if (error != -ENOENT) {
		return error;
	}
	if (straddles) {
		if (e.kind == COW_EXTENT_PLAIN) {
			memcpy(sums, e.sums, 4u * e.blocks);
			e.sums = sums;
		}
		error = cow_tree_reserve(store, tree, e.at);
		if (error != 0)
			return error;
	}
	error = cow_tree_cut(store, tree, keep);
	if (error != 0 || !straddles)
		return error;
	struct cow_extent head = part(&e, e.at, keep);
	put_reserved(store, tree, &head);
	cow_counts_add(store->counts, e.block + head.blocks, e.blocks - head.blocks, -1);
	return 0;
}

/* Counts the mapped blocks in [from, end) extent by extent. */
static int count_range(struct cow_inode *file, uint64_t from, uint64_t end, uint64_t *blocks)
{
	struct cow_extent e;
	int error = 0;

	*blocks = 0;
	while (from < end && (error = cow_extents_find(file, from, &e)) == 0 && e.at < end) {
		uint64_t low = e.at > from ? e.at : from, high = end_of(&e) < end ? end_of(&e) : end;
		*blocks += high - low;
		from = high;
	}
	return error == -ENOENT ? 0 : error;
}

/* A file without holes, which most are, is counted by looking at its last extent. Otherwise the shorter side is
 * walked. */
int cow_extents_count(struct cow_inode *file, uint64_t keep, uint64_t *blocks)
{
	struct cow_item item;
	struct cow_extent last;

	*blocks = 0;
	if (keep == 0 || file->blocks == 0)
		return 0;
	if (file->body != COW_BODY_TREE)
		return count_range(file, 0, keep, blocks);
	int error = cow_tree_previous(store_of(file), &file->tree, UINT64_MAX, &item);
	if (error != 0)
		return error == -ENOENT ? 0 : error;
	decode_item(&item, &last);
	uint64_t end = end_of(&last);
	if (keep >= end || file->blocks == end) {
		*blocks = keep >= end ? file->blocks : keep;
		return 0;
	}
	if (keep <= end / 2)
		return count_range(file, 0, keep, blocks);
	error = count_range(file, keep, end, blocks);
	*blocks = file->blocks - *blocks;
	return error;
}

int cow_extents_truncate(struct cow_inode *file, uint64_t keep)
{
	uint64_t blocks;
	int error;

	if (file->body != COW_BODY_TREE) {
		cut_list(file, keep, UINT64_MAX);
		return 0;
	}
	error = cow_extents_count(file, keep, &blocks);
	if (error == 0)
		error = cow_extents_trim(store_of(file), &file->tree, keep);
	if (error != 0)
		return error;
	account(file, (int64_t)(blocks - file->blocks));
	settle(file);
	return 0;
}

void cow_extents_claim(struct cow_inode *file, int change)
{
	struct list list;

	load_list(file, &list);
	for (unsigned i = 0; i < list.count; i++)
		cow_counts_add(store_of(file)->counts, list.items[i].block, list.items[i].blocks, change);
}
