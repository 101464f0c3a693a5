/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Orphans: inodes that have lost their last name while they are held open. Their records live in a tree of their own,
 * so that a crash does not leak them: mounting drops them all. All locked.
 */
#ifndef COW_FS_WORLD_ORPHAN_H
#define COW_FS_WORLD_ORPHAN_H

#include "fs/core/volume.h"

/* Before cow_orphan_make() and cow_inode_discard(): COW_MISS. */
int cow_orphan_reserve(struct cow_volume *volume);
/* One that is held open may become an orphan, perhaps with many others in one operation: is there room for the records
 * of all? `bytes` counts them, from 0. Before the inode is reserved. COW_MISS. */
int cow_orphan_check_room(struct cow_inode *inode, uint64_t *bytes);
/* The inode, dirty and out of its place already (no record of it is left in a tree), becomes an orphan. */
void cow_orphan_make(struct cow_inode *inode);
/* Gives up everything that a dirty inode owns: data, xattrs, trees. The fields stay for handles. */
void cow_inode_discard(struct cow_inode *inode);
/* The inode, dirty and out of its place: an orphan if it is held open, else discarded and gone. */
void cow_orphan_or_discard(struct cow_inode *inode);
/* The last holder of an orphan let go. COW_MISS. */
int cow_orphan_drop(struct cow_inode *inode);
/* At mount: everything in the tree goes to reclaim. COW_MISS between two of them. */
int cow_orphan_drop_all(struct cow_volume *volume);

#endif
