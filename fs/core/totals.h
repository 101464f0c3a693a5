/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What directories sum up of all that is below them. */
#ifndef COW_FS_CORE_TOTALS_H
#define COW_FS_CORE_TOTALS_H

#include <string.h>
#include "fs/core/inode.h"

/* [locked, reserved] What a directory sums up changes by `to` - `from`: for it and all above it in its world and
 * beyond. */
void cow_totals_change(struct cow_inode *dir, const struct cow_totals *from, const struct cow_totals *to);
/* What one entry contributes to its directory's totals. */
void cow_totals_of(const struct cow_inode *child, struct cow_totals *totals);
/* 1 if the inode is one of the entries that totals count as exceptions in a directory of that owner. */
uint64_t cow_inode_exceptional(const struct cow_inode *inode, uint32_t dir_uid);
/* [locked, reserved] Size or mapped blocks of a file changed: brings the totals above it up to date. */
void cow_inode_resized(struct cow_inode *inode, int64_t bytes, int64_t blocks);
/* What one link reference contributes. */
extern const struct cow_totals cow_totals_of_link;
static inline bool cow_totals_equal(const struct cow_totals *a, const struct cow_totals *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

#endif
