/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which blocks are kept back, and for whom. */
#ifndef COW_FS_CORE_RESERVATION_H
#define COW_FS_CORE_RESERVATION_H

#include "fs/core/volume.h"

/* Blocks kept back for commits and for operations that free space. */
uint64_t cow_volume_reserve_blocks(const struct cow_volume *volume);
/* [locked] Blocks that work which nobody asked for may take: changes under way, and a removal, still find theirs. */
uint64_t cow_volume_spare_blocks(const struct cow_volume *volume);
/* Are there blocks for more than what an operation asks for when it begins? 0, or COW_MISS: it ends, and begins again
 * when there are, or gets -ENOSPC. */
int cow_inode_check_room(struct cow_volume *volume, uint64_t blocks);
bool cow_inode_has_room(const struct cow_volume *volume, uint64_t blocks);

#endif
