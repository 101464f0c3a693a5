/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The thread that commits and reclaims in the background. */
#ifndef COW_FS_WORKER_H
#define COW_FS_WORKER_H

#include "fs/core/volume.h"

/* Starts it, unless the volume is read-only or was opened without threads. */
int cow_worker_start(struct cow_volume *volume);
/* Stops it and waits for its end. */
void cow_worker_stop(struct cow_volume *volume);

#endif
