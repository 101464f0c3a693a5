/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef COW_FS_RECLAIM_PURGE_LINKS_H
#define COW_FS_RECLAIM_PURGE_LINKS_H

#include "fs/core/inode.h"
#include "fs/reclaim/garbage.h"

/* Drops the next row from *cursor on if no name reaches it, and, unless NULL, it is in `only`. 1: there may be more, 0:
 * done, or an error. */
int cow_link_purge(struct cow_inode *world, const struct cow_garbage *only, uint64_t *cursor);

#endif
