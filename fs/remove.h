/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Removing names. Each removal has two halves: prepare (may miss, changes nothing that can be seen) and remove (cannot
 * miss), so that rename and clone can put them into theirs. All locked.
 */
#ifndef COW_FS_REMOVE_H
#define COW_FS_REMOVE_H

#include "fs/world/dir.h"

/* A name about to be removed. The child is referenced by the caller. */
struct cow_removal {
	struct cow_inode *dir, *child;
	uint64_t key;
	/* a linked child: its names without this one, and where its record goes back to if one is left */
	uint32_t left;
	struct cow_inode *back_dir; /* referenced; NULL: the record stays in links */
	uint64_t back_key;
};

/* For everything that is no directory. */
int cow_remove_prepare(struct cow_inode *dir, uint64_t key, struct cow_inode *child, struct cow_removal *removal);
void cow_remove_name(struct cow_removal *removal, const struct timespec *now);
/* For an empty directory. */
int cow_remove_prepare_dir(struct cow_inode *dir, uint64_t key, struct cow_inode *child, struct cow_removal *removal);
void cow_remove_dir(struct cow_removal *removal);
/* Gives back what prepare referenced; also after a failed one. */
void cow_remove_done(struct cow_removal *removal);

#endif
