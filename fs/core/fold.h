/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between an inode in memory and its record: the way to it is made private and dirty, and later the record written. */
#ifndef COW_FS_CORE_FOLD_H
#define COW_FS_CORE_FOLD_H

#include "fs/core/inode.h"

/* [locked, in a change] Makes the way to the inode's record, and to its entry's leaf, private and dirty, and the inode
 * dirty. Neutral. COW_MISS, also where a long way would take what is kept for others; -ESTALE (gone or below something
 * removed), -EROFS is *not* checked here. */
int cow_inode_reserve(struct cow_inode *inode);
/* [locked, reserved] Writes a dirty inode's record into its tree, which then owns its claims. */
void cow_inode_fold(struct cow_inode *inode);

#endif
