/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How much is free, for those who ask. A block is free when the last pointer to it is gone, although it can be given
 * out only when that is durable: an operation that is short of room commits and reclaims before it is refused
 * (change.c). So three things have to be known that are not counted as they happen, and cow_space_settle() finds them:
 *
 *   - what waits in the reclaim queue. Nobody knows how much that is before it is walked, so it is reclaimed;
 *   - what the generations under way have given up (counts.h);
 *   - which buffered pages will take no block in the end, because they lie over one that only their file has. (Where
 *     several files write over blocks that they share, this shows when one of them gets its place.)
 */
#ifndef COW_FS_RECLAIM_SPACE_H
#define COW_FS_RECLAIM_SPACE_H

#include "fs/core/op.h"
#include "fs/core/volume.h"

/* [locked] Blocks that users have, without the reserve. What was not settled is missing. */
uint64_t cow_space_free(const struct cow_volume *volume);
/* [locked] Nothing is missing there, but what is held or damaged. */
bool cow_space_is_settled(const struct cow_volume *volume);
/* [no locks] For about a second at the most. True: there is more to reclaim. Of what fails somebody else will tell. */
bool cow_space_settle(struct cow_volume *volume);
/* [in an operation, locked] After that: what others have changed since, so that what is free is of this moment. */
void cow_space_finish(struct cow_op *op);
/* [no locks] Are there so many? Takes as long as it must to be sure that there are not. */
bool cow_space_has(struct cow_volume *volume, uint64_t blocks);

#endif
