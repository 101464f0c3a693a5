/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fallocate(2): holes, zeros and sizes. */
#include <errno.h>
#include <linux/falloc.h>
#include <string.h>

#include "base/min.h"
#include "cow.h"
#include "fs/change.h"
#include "fs/core/notes.h"
#include "fs/data/extents.h"
#include "fs/data/file.h"
#include "fs/data/pages.h"
#include "fs/reclaim/space.h"

struct range_args {
	struct cow_inode *file;
	uint64_t offset, end;
	int mode;
	bool has_room; /* to write all of it */
};

/* Zeroes [from, end) inside one block, which has been buffered if there is anything in it. */
static void zero_part(struct cow_inode *file, uint64_t from, uint64_t end)
{
	struct cow_page *page = from < end ? cow_pages_get(file, cow_block_of(from)) : NULL;

	if (page != NULL)
		memset(page->bytes + from % COW_BLOCK, 0, end - from);
}

/*
 * Whole blocks become holes, the rest zeros. Beyond the end there is nothing. The cut may miss between two extents: the
 * gate is held until the call is through, so no clone and no commit sees it half done.
 */
static int zero_range(struct cow_op *op, struct cow_inode *file, uint64_t from, uint64_t end)
{
	uint64_t first = cow_blocks_for(from), last = cow_block_of(end);
	int error = 0;

	if (end >= file->size) {
		end = file->size;
		last = cow_blocks_for(end);
	}
	if (from >= end)
		return 0;
	if (from % COW_BLOCK != 0)
		error = cow_file_buffer_block(op, file, cow_block_of(from), false);
	if (error == 0 && last < cow_blocks_for(end))
		error = cow_file_buffer_block(op, file, last, false);
	if (error == 0 && first < last) /* once it has begun it goes through: what lies between the ends comes back */
		error = cow_store_check_floor(op->store, 2);
	if (error == 0 && first < last)
		op->reservation.floor = 0;
	if (error == 0 && first < last) {
		cow_file_changed(file);
		error = last == cow_blocks_for(file->size) ? cow_extents_truncate(file, first)
						       : cow_extents_cut(file, first, last);
	}
	if (error != 0)
		return error;
	cow_pages_drop(file, first, last);
	if (first > last) { /* inside one block */
		zero_part(file, from, end);
		return 0;
	}
	zero_part(file, from, cow_min64(first << COW_BLOCK_SHIFT, end));
	zero_part(file, last << COW_BLOCK_SHIFT, end);
	return 0;
}

static int fallocate_body(struct cow_op *op, void *args)
{
	struct range_args *a = args;
	int error = cow_file_prepare(a->file);

	if (error != 0)
		return error;
	if (a->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		cow_file_to_page(a->file);
		error = zero_range(op, a->file, a->offset, a->end);
	} else if (!a->has_room) {
		error = -ENOSPC;
	}
	if (error == 0 && !(a->mode & FALLOC_FL_KEEP_SIZE) && a->end > a->file->size)
		error = cow_file_truncate(op, a->file, a->end);
	if (error != 0)
		return error;
	if (a->mode != FALLOC_FL_KEEP_SIZE) {
		cow_file_touch(op, a->file);
		cow_file_changed(a->file);
		cow_note_write(a->file, a->offset, a->end);
	}
	return 0;
}

/*
 * Space is not promised: data goes to free blocks each time it is written, so blocks kept for a range would not be the
 * ones that its next write needs. A range that could not be written at all is refused.
 */
int cow_fallocate(struct cow_inode *inode, int mode, uint64_t offset, uint64_t length)
{
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	struct range_args a = {.file = inode, .offset = offset, .end = offset + length, .mode = mode};

	if (mode != 0 && mode != FALLOC_FL_KEEP_SIZE && mode != punch && mode != FALLOC_FL_ZERO_RANGE &&
	    mode != (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	if (length == 0)
		return -EINVAL;
	if (offset > COW_FILE_SIZE_MAX || length > COW_FILE_SIZE_MAX - offset)
		return -EFBIG;
	if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) == 0 &&
	    cow_blocks_for(length) < inode->volume->store->super.total_blocks)
		a.has_room = cow_space_has(inode->volume, cow_blocks_for(length));
	return cow_op_change(inode->volume, 0, mode == punch, fallocate_body, &a);
}
