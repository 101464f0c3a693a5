/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef COW_FS_WORLD_STAT_H
#define COW_FS_WORLD_STAT_H

#include "fs/core/inode.h"

/* [locked] COW_MISS: the link count climbs the spine, the number may need a row. */
int cow_inode_attr(struct cow_inode *inode, struct cow_attr *attr);

#endif
