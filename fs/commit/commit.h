/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commits: everything in memory gets its place and goes into the trees, and the store makes it durable. */
#ifndef COW_FS_COMMIT_COMMIT_H
#define COW_FS_COMMIT_COMMIT_H

#include "fs/core/volume.h"

/* Commits: places buffered data, then cow_store_commit(). */
int cow_volume_commit(struct cow_volume *volume, int (*hook)(void *context), void *hook_context);
/* cow_counts_prepare(); on a host that is full, what was freed is given back first. No locks are held. */
int cow_volume_prepare(struct cow_volume *volume, uint64_t blocks);
/* Gives buffered data its place, in small steps under the lock, so that the fold that follows is short; all but about
 * `rest` pages of what is there when it begins. */
int cow_volume_place(struct cow_volume *volume, uint64_t rest);
/* [locked] Everything in memory goes into the trees: afterwards no inode is dirty. COW_MISS. */
int cow_volume_fold(struct cow_volume *volume);
/* What the store asks of the layer above it, for cow_store_open(); the context is the volume. */
extern const struct cow_store_ops cow_commit_ops;

#endif
