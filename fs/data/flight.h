/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How buffered pages get their place on the device, and get there: see flight.c. */
#ifndef COW_FS_DATA_FLIGHT_H
#define COW_FS_DATA_FLIGHT_H

#include "fs/core/inode.h"
#include "fs/core/volume.h"

/* [locked, change] Gives every buffered page its place and brings body, data, tree and blocks up to date:
 * afterwards the fields say all that a record has to say. Small files become INLINE. Reserves the inode itself.
 * COW_MISS, -ENOSPC. */
int cow_flight_place(struct cow_inode *file);
/* [locked, change] The same for a part: the pages from file block *at on, in ascending order, until none is left there
 * or about `limit` have been placed. *at moves on behind them. */
int cow_flight_place_some(struct cow_inode *file, uint64_t *at, size_t limit);
/* [not locked, one at a time: the commit mutex is held] Writes everything in flight, in ascending order, as long runs;
 * frees it. */
int cow_flight_write_out(struct cow_volume *volume);
/* [locked] The content of a block that has been placed and not yet written, or NULL. */
struct cow_page *cow_flight_get(const struct cow_volume *volume, uint64_t block);

#endif
