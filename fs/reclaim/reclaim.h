/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Giving back what nobody needs any more, in the background or when space is short. */
#ifndef COW_FS_RECLAIM_RECLAIM_H
#define COW_FS_RECLAIM_RECLAIM_H

#include "fs/core/volume.h"

/* Reclaims in bounded steps until the queue is empty or `steps` were done; purges garbage first, which may commit.
 * 1: there is more; 0: done; or an error. */
int cow_volume_reclaim(struct cow_volume *volume, uint64_t steps);
/* The reclaim alone, a few steps of it; *steps is what is left of those that may be done. */
int cow_volume_reclaim_some(struct cow_volume *volume, uint64_t *steps);

#endif
