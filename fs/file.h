/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File data: inline, a few extents in the record, or a tree of extents; and the pages that are buffered above them.
 *
 * A write(2) copies into pages, under the lock, all of it at once, so that a clone sees all or nothing of it. Pages get
 * their place late (cow_file_place): in ascending order, in long runs, with their checksums; from then on they are
 * *in flight*: immutable, found by device block until they are written (by cow_file_write_out, outside all locks).
 * Data always goes to free blocks. Blocks wholly beyond the end of the file are never mapped, except by
 * FALLOC_FL_KEEP_SIZE; bytes between the end of the file and the end of its last block are zero on disk.
 */
#ifndef COW_FS_FILE_H
#define COW_FS_FILE_H

#include "fs/inode.h"

/* Pages placed but not yet written; one in the volume (volume->flight). All zero at the start. */
struct cow_flight {
	struct cow_radix small, large; /* device block -> struct cow_page, of small and of large files */
	uint64_t version;              /* last data_version given to any file of the volume: none is given twice */
};

#define COW_VERSION_LOADED 1u /* an inode's data_version up to this one says nothing */

/* Public calls implemented here: cow_read, cow_write, cow_fallocate, cow_seek, cow_copy_range. */

/* [locked, change] Gives every buffered page its place and brings body, data, tree and blocks up to date:
 * afterwards the fields say all that a record has to say. Small files become INLINE. Reserves the inode itself.
 * COW_MISS, -ENOSPC. */
int cow_file_place(struct cow_inode *file);
/* [locked, change] The same for a part: the pages from file block *at on, in ascending order, until none is left there
 * or about `limit` have been placed. *at moves on behind them. */
int cow_file_place_some(struct cow_inode *file, uint64_t *at, size_t limit);
/* [locked, change] Sets the size: cuts the map, zeroes the tail of the last block. COW_MISS before any change,
 * -EFBIG. */
int cow_file_truncate(struct cow_op *op, struct cow_inode *file, uint64_t size);
/* [locked, change, both reserved, `from` placed, `to` empty] `to` gets the content of `from` (a file or symlink) by
 * sharing, its size and blocks too; totals are the caller's business. COW_MISS. */
int cow_file_share(struct cow_inode *from, struct cow_inode *to);
/* [locked, change, reclaim reserved] Gives up all content: claims, pages, size stays. Does not touch totals. */
void cow_file_drop(struct cow_inode *file);
/* [locked] Frees buffers of a clean inode that leaves memory; asserts that no page is buffered. */
void cow_file_forget(struct cow_inode *file);
/* [not locked, one at a time: the commit mutex is held] Writes everything in flight, in ascending order, as long runs;
 * frees it. */
int cow_file_write_out(struct cow_volume *volume);

/* [locked] The content of a block that has been placed and not yet written, or NULL. */
struct cow_page *cow_flight_get(const struct cow_volume *volume, uint64_t block);

/* [locked] Copies bytes that the file has, from wherever they are. COW_MISS, -EIO */
int cow_file_peek(struct cow_op *op, struct cow_inode *file, uint64_t offset, size_t length, uint8_t *to);

/* ---- between the files that implement this */
/* [locked] 0 for a regular file, -EISDIR, -EINVAL. */
int cow_file_check(const struct cow_inode *inode);
/* [locked] Content or map are others now: gives the file a new data_version. */
void cow_file_changed(struct cow_inode *file);
/* [locked, reserved] Inline content becomes page 0; neutral. */
void cow_file_to_page(struct cow_inode *file);

#endif
