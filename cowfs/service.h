/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Threads for what waits for the kernel or takes long: clones, removals, diffs.  They are not FUSE workers, so they
 * may wait for requests that the workers serve.
 */
#ifndef COWFS_SERVICE_H
#define COWFS_SERVICE_H

#include "cowfs/mount.h"

/* The first member of what a job needs; `run` owns the job from then on. */
struct cowfs_job {
	void (*run)(struct cowfs *fs, struct cowfs_job *job);
	struct cowfs_job *next;
};

struct cowfs_service *cowfs_service_new(struct cowfs *fs);
/* -- -ENOMEM, -EAGAIN (no thread), -ESHUTDOWN: then the job still belongs to the caller. */
int cowfs_service_add(struct cowfs_service *service, struct cowfs_job *job);
/* Takes no more jobs, finishes those it has and waits for them. */
void cowfs_service_drain(struct cowfs_service *service);
void cowfs_service_free(struct cowfs_service *service);

#endif
