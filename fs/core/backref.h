/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The list of a linked inode's names: where each is, live or not. All [locked]. */
#ifndef COW_FS_CORE_BACKREF_H
#define COW_FS_CORE_BACKREF_H

#include "fs/core/inode.h"

/* Loads the back-references of a linked inode. */
int cow_backref_load(struct cow_inode *inode);
/* One name more, or less. The inode is linked and reserved, its back-references loaded. */
void cow_backref_add(struct cow_inode *inode, struct cow_back back);
void cow_backref_remove(struct cow_inode *inode, struct cow_back back);
/* Brings inode->back_tree up to date for a fold; reclaim is reserved. */
void cow_backref_store(struct cow_inode *inode);
/* The list goes, and the claim on its tree with it. Reserved. */
void cow_backref_clear(struct cow_inode *inode);
/* The back-references of a row; the caller frees. COW_MISS */
int cow_backref_read(struct cow_store *store, const struct cow_link_row *row, struct cow_back **backs);
/* Is there room for a list of so many names, which is written as a whole? COW_MISS */
int cow_backref_check_room(struct cow_volume *volume, uint32_t count);

#endif
