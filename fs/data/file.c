/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The content of files. The content of a block is, from the top: its buffered page, its mapped extent (the
 * bytes of which may still be in flight), zeros; or the whole content is INLINE, and then there are no pages.
 *
 * Every change works in the same way: what it needs of old blocks becomes buffered pages of equal content (neutral,
 * may miss), and then pages are edited, which cannot fail.
 */
#include "fs/data/file.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "base/min.h"
#include "fs/core/blob.h"
#include "fs/core/fold.h"
#include "fs/core/totals.h"
#include "fs/data/extents.h"
#include "fs/data/flight.h"
#include "fs/data/pages.h"

int cow_file_check(const struct cow_inode *inode)
{
	return cow_inode_is_dir(inode) ? -EISDIR : cow_inode_is_file(inode) ? 0 : -EINVAL;
}

void cow_file_changed(struct cow_inode *file)
{
	/* 0 and 1 are what inodes have that were only loaded: not unique. */
	file->data_version = COW_VERSION_LOADED + ++file->volume->flight.version;
}

void cow_file_touch(struct cow_op *op, struct cow_inode *file)
{
	file->mtime = (struct cow_when){op->now.tv_sec, (uint32_t)op->now.tv_nsec};
	file->ctime = file->mtime;
}

/* Checks what every change of content needs, and reserves. */
int cow_file_prepare(struct cow_inode *file)
{
	int error = cow_file_check(file);

	if (error == 0)
		error = cow_inode_check_live(file);
	if (error == 0)
		error = cow_inode_check_writable(file);
	if (error == 0)
		error = cow_inode_reserve(file);
	return error;
}

void cow_file_resize(struct cow_inode *file, uint64_t size)
{
	int64_t change = (int64_t)(size - file->size);

	file->size = size;
	if (change != 0)
		cow_inode_resized(file, change, 0);
}

/* ------------------------------------------------------------------ old content as pages */

/* Inline content moves to a page; the next cow_flight_place() may bring it back. */
void cow_file_to_page(struct cow_inode *file)
{
	if (file->body != COW_BODY_INLINE)
		return;
	struct cow_page *page = cow_page_new(file->volume);
	memcpy(page->bytes, file->data, file->data_length);
	free(file->data);
	file->data = NULL;
	file->data_length = 0;
	file->body = COW_BODY_NONE;
	cow_pages_put(file, 0, page);
}

/* The content of a mapped block; NULL: zeros, because nothing is mapped (*hole) or it was never written. */
static int old_bytes(struct cow_op *op, struct cow_inode *file, uint64_t at, const uint8_t **bytes, bool *hole)
{
	struct cow_extent e;
	int error = cow_extents_find(file, at, &e);

	*bytes = NULL;
	*hole = error == -ENOENT || (error == 0 && e.at > at);
	if (error != 0 && error != -ENOENT)
		return error;
	if (*hole || e.kind == COW_EXTENT_UNWRITTEN)
		return 0;
	uint64_t block = e.block + (at - e.at);
	struct cow_page *flying = cow_flight_get(op->volume, block);
	if (flying != NULL) {
		*bytes = flying->bytes;
		return 0;
	}
	return cow_op_data(op, block, get32(e.sums + 4 * (at - e.at)), bytes);
}

int cow_file_peek(struct cow_op *op, struct cow_inode *file, uint64_t offset, size_t length, uint8_t *to)
{
	const uint8_t *bytes;
	bool hole;

	if (file->body == COW_BODY_INLINE) {
		memcpy(to, file->data + offset, length);
		return 0;
	}
	for (size_t done = 0, n; done < length; done += n) {
		uint64_t at = cow_block_of(offset + done), in = (offset + done) % COW_BLOCK;
		struct cow_page *page = cow_pages_get(file, at);
		int error = 0;
		if (page == NULL)
			error = old_bytes(op, file, at, &bytes, &hole);
		if (error != 0)
			return error;
		n = cow_min64(COW_BLOCK - in, length - done);
		if (page != NULL)
			bytes = page->bytes;
		if (bytes != NULL)
			memcpy(to + done, bytes + in, n);
		else
			memset(to + done, 0, n);
	}
	return 0;
}

/* Makes block `at` a buffered page of the same content; a hole stays one unless `fill`. Neutral. COW_MISS, -EIO */
int cow_file_buffer_block(struct cow_op *op, struct cow_inode *file, uint64_t at, bool fill)
{
	const uint8_t *bytes;
	bool hole;

	if (cow_pages_get(file, at) != NULL)
		return 0;
	int error = old_bytes(op, file, at, &bytes, &hole);
	if (error != 0 || (hole && !fill))
		return error;
	struct cow_page *page = cow_page_new(file->volume);
	if (bytes != NULL)
		memcpy(page->bytes, bytes, COW_BLOCK);
	cow_pages_put(file, at, page);
	return 0;
}

/* ------------------------------------------------------------------ truncate */

int cow_file_truncate(struct cow_op *op, struct cow_inode *file, uint64_t size)
{
	uint64_t keep = cow_blocks_for(size), tail = size % COW_BLOCK;
	int error;

	if (size > COW_FILE_SIZE_MAX)
		return -EFBIG;
	error = cow_inode_reserve(file);
	if (error != 0)
		return error;
	cow_file_to_page(file);
	if (size < file->size) {
		if (tail != 0)
			error = cow_file_buffer_block(op, file, keep - 1, false);
		if (error == 0)
			error = cow_extents_truncate(file, keep);
		if (error != 0)
			return error;
		cow_pages_drop(file, keep, UINT64_MAX);
		struct cow_page *page = tail != 0 ? cow_pages_get(file, keep - 1) : NULL;
		if (page != NULL)
			memset(page->bytes + tail, 0, COW_BLOCK - tail);
	}
	if (size < file->size)
		cow_note_cut(file, size);
	else
		cow_note_write(file, 0, 0); /* its size */
	cow_file_resize(file, size);
	cow_file_changed(file);
	return 0;
}

/* ------------------------------------------------------------------ giving up */

static void free_content(struct cow_inode *file)
{
	free(file->data);
	file->data = NULL;
	file->data_length = 0;
	file->blocks = 0;
	file->tree = (struct cow_tree){.kind = file->tree.kind};
	if (cow_inode_is_file(file))
		file->body = COW_BODY_NONE;
}

void cow_file_drop(struct cow_inode *file)
{
	struct cow_store *store = file->volume->store;

	assert(!cow_inode_is_dir(file));
	cow_pages_drop(file, 0, UINT64_MAX);
	if (S_ISLNK(file->mode)) {
		cow_blob_drop(store, &file->target);
		return;
	}
	cow_extents_claim(file, -1);
	if (file->body == COW_BODY_TREE)
		cow_tree_drop(store, &file->tree);
	free_content(file);
	cow_file_changed(file);
}

/* ------------------------------------------------------------------ sharing */

int cow_file_share(struct cow_inode *from, struct cow_inode *to)
{
	struct cow_store *store = from->volume->store;
	int error = 0;

	assert(from->pages.count == 0 && to->pages.count == 0);
	if (S_ISLNK(from->mode))
		error = cow_blob_share(store, &from->target, &to->target);
	else if (from->body == COW_BODY_TREE)
		error = cow_tree_share(store, &from->tree);
	if (error != 0)
		return error;
	if (!S_ISLNK(from->mode)) {
		assert(to->body == COW_BODY_NONE && to->blocks == 0);
		to->data = from->data_length != 0 ? cow_mem_copy(from->data, from->data_length) : NULL;
		to->data_length = from->data_length;
		to->tree = from->tree;
		cow_extents_claim(from, 1);
	}
	to->body = from->body;
	to->size = from->size;
	to->blocks = from->blocks;
	cow_file_changed(to);
	return 0;
}
