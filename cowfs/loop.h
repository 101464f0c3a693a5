/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The worker threads, which read requests from the kernel and answer them. */
#ifndef COWFS_LOOP_H
#define COWFS_LOOP_H

#include "cowfs/mount.h"

struct cowfs_loop;

/* At most `threads_max` workers. NULL: no memory. */
struct cowfs_loop *cowfs_loop_new(struct cowfs *fs, unsigned threads_max);
void cowfs_loop_free(struct cowfs_loop *loop);
/* Serves, and returns when the session has ended and all workers too. -- -EAGAIN (no thread) */
int cowfs_loop_run(struct cowfs_loop *loop);
/* From a thread that is not a worker: ends the session, and with it cowfs_loop_run(). */
void cowfs_loop_stop(struct cowfs_loop *loop);
/* From a handler that is going to wait for the device: somebody else shall take the next request meanwhile. */
void cowfs_loop_may_wait(struct cowfs_loop *loop);

#endif
