/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The map of a file: which block of the device holds which block of the file. Three forms, of which the inode's body
 * says which: NONE (nothing mapped; INLINE files too), EXTENTS (a short list in the record), TREE. The functions here
 * go from form to form as the map grows and shrinks, and keep file->blocks, the totals above the file and the counts of
 * the blocks exact with each single change. They do not look at buffered pages, which lie above the map.
 *
 * All [locked]; those that change also need the inode reserved. A function that changes several extents may return
 * COW_MISS between two of them: it is called again, and goes on where it was.
 */
#ifndef COW_FS_DATA_EXTENTS_H
#define COW_FS_DATA_EXTENTS_H

#include "fs/core/inode.h"

/* The extent that covers file block `at`, or the first one behind it; its sums are valid until the map changes or the
 * lock is given up. -ENOENT, COW_MISS */
int cow_extents_find(struct cow_inode *file, uint64_t at, struct cow_extent *extent);
/* After this an insert at `at` cannot miss. */
int cow_extents_reserve(struct cow_inode *file, uint64_t at);
/* Nodes that mapping so many blocks more may take, in so many runs that lie apart. */
uint64_t cow_extents_due(const struct cow_inode *file, uint64_t blocks, uint64_t runs);
/* Puts an extent where nothing is mapped; the caller has reserved it, and has made the counts. */
void cow_extents_insert(struct cow_inode *file, const struct cow_extent *extent);
/* Unmaps the file blocks from `from` up to, but without, `end`. COW_MISS in between. */
int cow_extents_cut(struct cow_inode *file, uint64_t from, uint64_t end);
/* Unmaps everything from file block `keep` on, in O(log n) unless the file is sparse; all or nothing. COW_MISS */
int cow_extents_truncate(struct cow_inode *file, uint64_t keep);
/* The same for a tree that no inode has yet. Counts are given back, no totals touched. */
int cow_extents_trim(struct cow_store *store, struct cow_tree *tree, uint64_t keep);
/* Blocks mapped below file block `keep`. COW_MISS */
int cow_extents_count(struct cow_inode *file, uint64_t keep, uint64_t *blocks);
/* Adds `change` to the counts of every block in a list of EXTENTS form. */
void cow_extents_claim(struct cow_inode *file, int change);

#endif
