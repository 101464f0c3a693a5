/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How many references to each hard-linked file there are in a directory and below it, in its world. All [locked]. */
#ifndef COW_FS_RECLAIM_CENSUS_H
#define COW_FS_RECLAIM_CENSUS_H

#include "fs/core/volume.h"

struct cow_census_dir { /* a directory's tree, and how many references it says there are in it and below */
	struct cow_ptr root;
	uint64_t refs;
};

/* Commits that a caller makes at most, so that a census can be relied on; others may change the directory each time. */
#define COW_CENSUS_COMMITS 3u

/* Starts as zeroes. */
struct cow_census {
	struct cow_map counts; /* link key -> number, as a pointer; complete when a call has returned 0 */
	/* where the last call missed, and whether that can still be relied on */
	struct cow_census_dir *stack, now;
	size_t depth, size;
	uint64_t at;
	struct cow_map entered; /* roots: in one world no directory is there twice */
	struct cow_ptr top;
};

/*
 * Takes it of `dir`; all must have been folded, so that trees are exact. After COW_MISS the next call goes on where
 * this one missed: O(entries of directories with references). But if the directory was changed since the last commit
 * the next call begins anew, and each miss costs all of it once more; who expects many should commit first.
 * COW_ERR_DAMAGED: there are more references than a directory says; an image that lies could lead to one in more ways
 * than can be counted.
 */
int cow_census_take(struct cow_census *census, const struct cow_inode *dir);
void cow_census_free(struct cow_census *census);

#endif
