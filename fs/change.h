/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations that change something: they begin when there is room for what they may take. */
#ifndef COW_FS_CHANGE_H
#define COW_FS_CHANGE_H

#include "fs/core/op.h"

/*
 * cow_op_begin_read() for a change. Waits while writers are throttled (only if data_bytes is not 0), refuses with
 * -EROFS on a read-only volume, and with -ENOSPC when the worst path plus data_bytes cannot be promised even after a
 * commit and reclaim. `frees`: the operation frees space, so it may use the reserve; the last of it only where it takes
 * nothing for good, as a copy of what others hold would. On error nothing is held.
 *
 * Where directories are nested deeper than the worst path, only the body finds out: cow_inode_reserve() misses room,
 * and cow_op_fill() says -ENOSPC. cow_op_change() looks for that room and begins again.
 */
int cow_op_begin_change(struct cow_op *op, struct cow_volume *volume, uint64_t data_bytes, bool frees);
/* The usual loop around one body. */
int cow_op_change(struct cow_volume *volume, uint64_t data_bytes, bool frees, cow_op_fn body, void *args);

#endif
