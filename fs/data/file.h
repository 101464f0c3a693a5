/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File data: inline, a few extents in the record, or a tree of extents; and the pages that are buffered above them.
 *
 * A write(2) copies into pages, under the lock, all of it at once, so that a clone sees all or nothing of it. Pages get
 * their place late (cow_flight_place): in ascending order, in long runs, with their checksums; from then on they are
 * *in flight*: immutable, found by device block until they are written (by cow_flight_write_out, outside all locks).
 * Data always goes to free blocks. Blocks wholly beyond the end of the file are never mapped, except by
 * FALLOC_FL_KEEP_SIZE; bytes between the end of the file and the end of its last block are zero on disk.
 */
#ifndef COW_FS_DATA_FILE_H
#define COW_FS_DATA_FILE_H

#include "fs/core/inode.h"

#define COW_VERSION_LOADED 1u /* an inode's data_version up to this one says nothing */

/* [locked, change] Sets the size: cuts the map, zeroes the tail of the last block. COW_MISS before any change,
 * -EFBIG. */
int cow_file_truncate(struct cow_op *op, struct cow_inode *file, uint64_t size);
/* [locked, change, both reserved, `from` placed, `to` empty] `to` gets the content of `from` (a file or symlink) by
 * sharing, its size and blocks too; totals are the caller's business. COW_MISS. */
int cow_file_share(struct cow_inode *from, struct cow_inode *to);
/* [locked, change, reclaim reserved] Gives up all content: claims, pages, size stays. Does not touch totals. */
void cow_file_drop(struct cow_inode *file);

/* [locked] Copies bytes that the file has, from wherever they are. COW_MISS, -EIO */
int cow_file_peek(struct cow_op *op, struct cow_inode *file, uint64_t offset, size_t length, uint8_t *to);

/* [locked] 0 for a regular file, -EISDIR, -EINVAL. */
int cow_file_check(const struct cow_inode *inode);
/* [locked] Content or map are others now: gives the file a new data_version. */
void cow_file_changed(struct cow_inode *file);
/* [locked, reserved] Inline content becomes page 0; neutral. */
void cow_file_to_page(struct cow_inode *file);
/* [locked, reserved] Its times, for a change of content. */
void cow_file_touch(struct cow_op *op, struct cow_inode *file);
/* [locked, change] Checks what every change of content needs, and reserves. COW_MISS */
int cow_file_prepare(struct cow_inode *file);
/* [locked, reserved] Its size, and the totals above it. */
void cow_file_resize(struct cow_inode *file, uint64_t size);
/* [locked] Makes block `at` a buffered page of the same content; a hole stays one unless `fill`. Neutral. COW_MISS,
 * -EIO */
int cow_file_buffer_block(struct cow_op *op, struct cow_inode *file, uint64_t at, bool fill);

static inline uint64_t cow_block_of(uint64_t offset)
{
	return offset >> COW_BLOCK_SHIFT;
}
static inline uint64_t cow_blocks_for(uint64_t bytes)
{
	return (bytes + COW_BLOCK - 1) >> COW_BLOCK_SHIFT;
}

#endif
