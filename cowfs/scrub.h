/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One scrub at a time, on a thread of its own: it may take hours. Who began it looks from time to time. */
#ifndef COWFS_SCRUB_H
#define COWFS_SCRUB_H

#include "cow_ioctl.h"
#include "cowfs/mount.h"

struct cowfs_scrub *cowfs_scrub_new(struct cowfs *fs);
/* Ends the one that runs. */
void cowfs_scrub_free(struct cowfs_scrub *scrub);
/* Answers the request. */
void cowfs_scrub_ioctl(fuse_req_t req, const struct cow_ioc_scrub *ask);

#endif
