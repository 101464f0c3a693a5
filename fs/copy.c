/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copies that share. In the order in which they are tried:
 *   - all of a file, or the first part of it, into an empty file: the root of its map, cut to length;
 *   - the next part of such a copy, as long as neither file was changed: the root again, cut to the new length, so that
 *     a `cp` that comes in several requests costs O(log n) each;
 *   - ranges with the same position within a block: extent by extent;
 *   - the rest through a buffer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/change.h"
#include "fs/core/fold.h"
#include "fs/core/totals.h"
#include "fs/data/extents.h"
#include "fs/data/file.h"
#include "fs/data/flight.h"
#include "fs/data/pages.h"

#define COPY_BYTES (1u << 20) /* through a buffer, at a time */

static bool is_empty(const struct cow_inode *file)
{
	return file->size == 0 && file->body == COW_BODY_NONE && file->pages.count == 0;
}

/* ------------------------------------------------------------------ one request */

struct copy_args {
	struct cow_inode *from, *to;
	uint64_t from_offset, to_offset;
	uint64_t length; /* wanted; after the look-up: what there is */
	uint64_t done;   /* by this operation */
	/* A root that is shared already, and is being cut: kept over misses. The gate is held, so it stays what it
	 * is. */
	struct cow_tree tree;
	uint64_t tree_version; /* of `from`, when it was shared */
	uint64_t tree_size, tree_blocks;
};

static int prepare(struct copy_args *a)
{
	int error = cow_file_check(a->from);

	if (error == 0)
		error = cow_file_check(a->to);
	if (error == 0)
		error = cow_inode_check_live(a->from);
	if (error == 0)
		error = cow_inode_check_writable(a->to);
	if (error == 0)
		error = cow_inode_reserve(a->to);
	if (error == 0)
		error = cow_flight_place(a->from);
	if (error != 0)
		return error;
	uint64_t left = a->from_offset < a->from->size ? a->from->size - a->from_offset : 0;
	uint64_t apart = a->from_offset > a->to_offset ? a->from_offset - a->to_offset : a->to_offset - a->from_offset;
	if (a->length > left)
		a->length = left;
	if (a->from == a->to && apart < a->length)
		return -EINVAL;
	return a->length > COW_FILE_SIZE_MAX - a->to_offset ? -EFBIG : 0;
}

/* Does this request go on where a copy of the same file ended, with nothing changed since? */
static bool continues(const struct copy_args *a)
{
	const struct cow_inode *from = a->from, *to = a->to;

	return to->size != 0 && to->copied.from == from && to->copied.length == a->from_offset &&
	       a->from_offset == a->to_offset && to->size == a->to_offset && to->pages.count == 0 &&
	       from->data_version > COW_VERSION_LOADED && to->copied.from_version == from->data_version &&
	       to->copied.own_version == to->data_version;
}

static bool can_share_root(const struct copy_args *a)
{
	bool whole = a->from_offset + a->length == a->from->size;
	bool start = a->from_offset == 0 && a->to_offset == 0 && is_empty(a->to);

	if (a->from == a->to || a->length == 0)
		return false;
	if (start && whole)
		return true;
	return (start || continues(a)) && a->from->body == COW_BODY_TREE && (whole || a->length % COW_BLOCK == 0);
}

/* The target's old map, if it has one, is a part of the new. */
static int share_whole(struct cow_op *op, struct copy_args *a)
{
	struct cow_inode *from = a->from, *to = a->to;
	uint64_t old_size = to->size, old_blocks = to->blocks;
	int error = cow_reclaim_reserve(op->store);

	if (error != 0)
		return error;
	struct cow_inode new = {.volume = to->volume, .mode = to->mode, .tree = {.kind = COW_KIND_FILE}};
	error = cow_file_share(from, &new);
	if (error != 0)
		return error;
	cow_file_drop(to);
	to->body = new.body;
	to->data = new.data;
	to->data_length = new.data_length;
	to->tree = new.tree;
	to->size = new.size;
	to->blocks = new.blocks;
	cow_inode_resized(to, (int64_t)(to->size - old_size), (int64_t)(to->blocks - old_blocks));
	cow_file_touch(op, to);
	cow_file_changed(to);
	cow_note_write(to, 0, to->size);
	return 0;
}

/* Shares the root of `from` and cuts it to the end of the request. */
static int share_cut(struct cow_op *op, struct copy_args *a)
{
	struct cow_inode *from = a->from, *to = a->to;
	uint64_t end = a->from_offset + a->length, old_size = to->size, old_blocks = to->blocks;
	int error;

	if (!cow_ptr_is_null(a->tree.root) && a->tree_size != end) { /* the source was cut meanwhile */
		error = cow_reclaim_reserve(op->store);
		if (error != 0)
			return error;
		cow_tree_drop(op->store, &a->tree);
	}
	if (cow_ptr_is_null(a->tree.root)) {
		error = cow_extents_count(from, end >> COW_BLOCK_SHIFT, &a->tree_blocks);
		if (error == 0)
			error = cow_tree_share(op->store, &from->tree);
		if (error != 0)
			return error;
		if (from->data_version <= COW_VERSION_LOADED)
			cow_file_changed(from);
		a->tree = from->tree;
		a->tree_version = from->data_version;
		a->tree_size = end;
	}
	error = cow_extents_trim(op->store, &a->tree, end >> COW_BLOCK_SHIFT);
	if (error == 0)
		error = cow_reclaim_reserve(op->store);
	if (error != 0)
		return error;
	cow_file_drop(to);
	to->body = cow_ptr_is_null(a->tree.root) ? COW_BODY_NONE : COW_BODY_TREE;
	to->tree = a->tree;
	a->tree.root = (struct cow_ptr){0};
	to->size = end;
	to->blocks = a->tree_blocks;
	cow_inode_resized(to, (int64_t)(to->size - old_size), (int64_t)(to->blocks - old_blocks));
	cow_file_touch(op, to);
	cow_file_changed(to);
	cow_note_write(to, 0, end);
	to->copied.from = from;
	to->copied.from_version = a->tree_version;
	to->copied.own_version = to->data_version;
	to->copied.length = end;
	return 0;
}

static int root_body(struct cow_op *op, void *args)
{
	struct copy_args *a = args;
	int error = prepare(a);

	if (error != 0)
		return error;
	if (!can_share_root(a)) /* the caller tries the other ways */
		return 0;
	error = a->from_offset + a->length == a->from->size ? share_whole(op, a) : share_cut(op, a);
	if (error == 0)
		a->done = a->length;
	return error;
}

/* A root that was shared but found no holder, because a later step failed or the files changed meanwhile. */
static int discard_tree(struct cow_op *op, struct copy_args *a)
{
	int error;

	if (cow_ptr_is_null(a->tree.root))
		return 0;
	while ((error = cow_reclaim_reserve(op->store)) == COW_MISS)
		if ((error = cow_op_fill(op)) != 0)
			return error;
	if (error == 0)
		cow_tree_drop(op->store, &a->tree);
	return error;
}

static int share_root(struct copy_args *a)
{
	struct cow_op op;
	int error = cow_op_begin_change(&op, a->to->volume, 0, false);

	if (error != 0)
		return error;
	while ((error = root_body(&op, a)) == COW_MISS)
		if ((error = cow_op_fill(&op)) != 0)
			break;
	int lost = discard_tree(&op, a);
	cow_op_end(&op);
	return error != 0 ? error : lost;
}

/* ------------------------------------------------------------------ extent by extent */

/* How many whole blocks of the target the request covers from its start, the last one of the source counted as whole if
 * nothing of the target's lies behind it. */
static uint64_t whole_blocks(const struct copy_args *a)
{
	uint64_t blocks = a->length >> COW_BLOCK_SHIFT;
	bool at_end = a->from_offset + a->length == a->from->size && a->to_offset + a->length >= a->to->size;

	return blocks + (at_end && a->length % COW_BLOCK != 0 ? 1 : 0);
}

/* Takes the place of what the target had in `count` blocks by a part of an extent of the source, or by a hole. */
static int replace(struct copy_args *a, struct cow_extent *e, uint64_t to_at, uint64_t count)
{
	uint64_t from_at = a->from_offset >> COW_BLOCK_SHIFT;
	uint8_t sums[4 * COW_EXTENT_BLOCKS_MAX];
	bool hole = e->at > from_at || e->kind == COW_EXTENT_UNWRITTEN;
	int error;

	if (!hole) {
		uint64_t skip = from_at - e->at;
		memcpy(sums, e->sums + 4 * skip, 4 * count);
		*e = (struct cow_extent){.at = to_at, .kind = e->kind, .blocks = (uint16_t)count,
					 .block = e->block + skip, .sums = sums};
	}
	cow_file_to_page(a->to);
	error = cow_extents_cut(a->to, to_at, to_at + count);
	if (error == 0 && !hole)
		error = cow_extents_reserve(a->to, to_at);
	if (error != 0)
		return error;
	if (!hole) {
		cow_counts_add(a->to->volume->store->counts, e->block, e->blocks, 1);
		cow_extents_insert(a->to, e);
	}
	cow_pages_drop(a->to, to_at, to_at + count);
	return 0;
}

/*
 * Shares one extent, or skips one hole, at the start of the request. The target loses its old blocks before the
 * source's get another claim: if both are the same block (a file copied onto its own clone), that count does not
 * fall to 0, because the source's mapping of it still stands.
 */
static int share_body(struct cow_op *op, void *args)
{
	struct copy_args *a = args;
	struct cow_extent e;
	int error = prepare(a);

	a->done = 0;
	if (error != 0 || a->length == 0)
		return error;
	uint64_t from_at = a->from_offset >> COW_BLOCK_SHIFT, count = whole_blocks(a);
	if (a->from->body == COW_BODY_INLINE || count == 0)
		return 0;
	error = cow_extents_find(a->from, from_at, &e);
	if (error == -ENOENT)
		e = (struct cow_extent){.at = UINT64_MAX};
	else if (error != 0)
		return error;
	uint64_t there = e.at > from_at ? e.at - from_at : e.at + e.blocks - from_at;
	count = there < count ? there : count;
	error = replace(a, &e, a->to_offset >> COW_BLOCK_SHIFT, count);
	if (error != 0)
		return error;
	a->done = count << COW_BLOCK_SHIFT < a->length ? count << COW_BLOCK_SHIFT : a->length;
	uint64_t end = a->to_offset + a->done, size = a->to->size;
	if (end > size) {
		a->to->size = end;
		cow_inode_resized(a->to, (int64_t)(end - size), 0);
	}
	cow_file_touch(op, a->to);
	cow_file_changed(a->to);
	cow_note_write(a->to, a->to_offset, end);
	return 0;
}

/* ------------------------------------------------------------------ through a buffer */

static int64_t copy_bytes(struct copy_args *a, uint64_t length)
{
	size_t size = length < COPY_BYTES ? length : COPY_BYTES;
	uint8_t *buffer = malloc(size);

	if (buffer == NULL)
		return -ENOMEM;
	int64_t got = cow_read(a->from, buffer, size, a->from_offset);
	if (got > 0)
		got = cow_write(a->to, buffer, (size_t)got, a->to_offset, false);
	free(buffer);
	return got;
}

/* The next piece of the request. Bytes copied, 0 at the end of the source. */
static int64_t copy_some(struct copy_args *a)
{
	uint64_t in = a->from_offset % COW_BLOCK;
	int error;

	if (in != a->to_offset % COW_BLOCK)
		return copy_bytes(a, a->length);
	if (in != 0)
		return copy_bytes(a, a->length < COW_BLOCK - in ? a->length : COW_BLOCK - in);
	error = cow_op_change(a->to->volume, 0, false, share_body, a);
	if (error != 0 || a->length == 0)
		return error;
	if (a->done != 0)
		return (int64_t)a->done;
	return copy_bytes(a, a->length < COW_BLOCK ? a->length : COW_BLOCK);
}

int64_t cow_copy_range(struct cow_inode *from, uint64_t from_offset, struct cow_inode *to, uint64_t to_offset,
		       uint64_t length)
{
	struct copy_args a = {
		.from = from, .to = to, .from_offset = from_offset, .to_offset = to_offset, .length = length,
		.tree = {.kind = COW_KIND_FILE},
	};
	uint64_t done = 0;

	if (from->volume != to->volume)
		return -EXDEV;
	if (from_offset > COW_FILE_SIZE_MAX || to_offset > COW_FILE_SIZE_MAX)
		return -EFBIG;
	int error = share_root(&a);
	if (error != 0)
		return error;
	if (a.done != 0)
		return (int64_t)a.done;
	length = a.length;
	while (done < length) {
		a.from_offset = from_offset + done;
		a.to_offset = to_offset + done;
		a.length = length - done;
		int64_t got = copy_some(&a);
		if (got < 0 && done == 0)
			return got;
		if (got <= 0)
			break;
		done += (uint64_t)got;
	}
	return (int64_t)done;
}
