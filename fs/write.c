/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writing files. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/min.h"
#include "base/pool.h"
#include "cow.h"
#include "fs/change.h"
#include "fs/core/notes.h"
#include "fs/core/volume.h"
#include "fs/data/extents.h"
#include "fs/data/file.h"
#include "fs/data/pages.h"

struct write_args {
	struct cow_inode *file;
	const uint8_t *buffer;
	uint64_t offset, end;
	bool kill_suid;
	void **pages; /* struct cow_page, ready made for the blocks that begin inside; NULL once handed over */
};

/* The block that the request begins inside of, if it does: the only one without a page of its own. */
static bool begins_inside(const struct write_args *a, uint64_t at)
{
	return at << COW_BLOCK_SHIFT < a->offset;
}

/* Pages are filled before the lock is taken. Each ends in zeros, if the request does not fill it. */
static int make_pages(struct write_args *a)
{
	uint64_t first = cow_block_of(a->offset), count = cow_blocks_for(a->end) - first;
	uint64_t skip = begins_inside(a, first) ? 1 : 0;

	a->pages = calloc(count, sizeof(*a->pages));
	if (a->pages == NULL || cow_pool_take(&a->file->volume->pool, a->pages + skip, count - skip) != 0)
		return -ENOMEM;
	for (uint64_t i = skip; i < count; i++) {
		uint64_t start = (first + i) << COW_BLOCK_SHIFT;
		size_t length = cow_min64(COW_BLOCK, a->end - start);
		struct cow_page *page = a->pages[i];
		memcpy(page->bytes, a->buffer + (start - a->offset), length);
		memset(page->bytes + length, 0, COW_BLOCK - length);
	}
	return 0;
}

static void free_pages(struct write_args *a)
{
	uint64_t count = cow_blocks_for(a->end) - cow_block_of(a->offset);

	if (a->pages != NULL)
		cow_pool_give(&a->file->volume->pool, a->pages, count);
	free(a->pages);
}

/* Does the block keep old bytes behind the end of the request? */
static bool ends_inside(const struct write_args *a, uint64_t at)
{
	uint64_t block_end = (at + 1) << COW_BLOCK_SHIFT;

	return block_end > a->end && a->file->size > a->end;
}

/* The kernel's rule: a write by somebody without the right to keep them clears set-uid, and set-gid with group
 * execution. */
static void kill_set_id(struct cow_inode *file)
{
	uint32_t mode = file->mode & ~(uint32_t)S_ISUID;

	if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
		mode &= ~(uint32_t)S_ISGID;
	file->mode = mode;
}

static void copy_in(struct write_args *a, uint64_t at)
{
	void **ready = &a->pages[at - cow_block_of(a->offset)];

	if (!begins_inside(a, at) && !ends_inside(a, at)) {
		cow_pages_put(a->file, at, *ready);
		*ready = NULL;
		return;
	}
	uint64_t start = at << COW_BLOCK_SHIFT, from = start > a->offset ? start : a->offset;
	uint64_t end = cow_min64(start + COW_BLOCK, a->end);
	struct cow_page *page = cow_pages_get(a->file, at);
	memcpy(page->bytes + (from - start), a->buffer + (from - a->offset), end - from);
}

/*
 * What is written covers the old map, and nobody would look at that before a commit places the data, when it is too
 * late to tell the writer that it is damaged. COW_MISS, -EIO
 */
static int read_map(struct cow_inode *file, uint64_t first, uint64_t last)
{
	struct cow_extent e;
	int error;

	for (uint64_t at = first; at <= last; at = e.at + e.blocks)
		if ((error = cow_extents_find(file, at, &e)) != 0)
			return error == -ENOENT ? 0 : error;
	return 0;
}

static int write_body(struct cow_op *op, void *args)
{
	struct write_args *a = args;
	uint64_t first = cow_block_of(a->offset), last = cow_block_of(a->end - 1);
	int error = cow_file_prepare(a->file);

	if (error != 0)
		return error;
	cow_file_to_page(a->file);
	error = read_map(a->file, first, last);
	if (error == 0 && (begins_inside(a, first) || ends_inside(a, first)))
		error = cow_file_buffer_block(op, a->file, first, true);
	if (error == 0 && last != first && ends_inside(a, last))
		error = cow_file_buffer_block(op, a->file, last, true);
	if (error != 0)
		return error;
	for (uint64_t at = first; at <= last; at++)
		copy_in(a, at);
	if (a->end > a->file->size)
		cow_file_resize(a->file, a->end);
	if (a->kill_suid)
		kill_set_id(a->file);
	cow_file_touch(op, a->file);
	cow_file_changed(a->file);
	cow_note_write(a->file, a->offset, a->end);
	return 0;
}

int64_t cow_write(struct cow_inode *inode, const void *buffer, size_t size, uint64_t offset, bool kill_suid)
{
	struct write_args a = {
		.file = inode, .buffer = buffer, .offset = offset, .end = offset + size, .kill_suid = kill_suid,
	};
	int error = 0;

	if (offset > COW_FILE_SIZE_MAX || size > COW_FILE_SIZE_MAX - offset)
		return -EFBIG;
	if (size == 0)
		return 0;
	error = make_pages(&a);
	if (error == 0)
		error = cow_op_change(inode->volume, size, false, write_body, &a);
	free_pages(&a);
	return error != 0 ? error : (int64_t)size;
}
