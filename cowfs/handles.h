/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The open descriptors, one handle each.  Those open for reading and writing may carry stores to shared mappings
 * (mmap(2) asks for both); a mapping keeps its descriptor's file, so RELEASE comes only when the mappings are gone.
 */
#ifndef COWFS_HANDLES_H
#define COWFS_HANDLES_H

#include "cowfs/mount.h"

struct cowfs_handle;

struct cowfs_handles *cowfs_handles_new(void);
void cowfs_handles_free(struct cowfs_handles *handles);
/* NULL: no memory. `mappable`: stores to a mapping may come. */
struct cowfs_handle *cowfs_handle_add(struct cowfs_handles *handles, struct cow_inode *inode, bool mappable);
void cowfs_handle_remove(struct cowfs_handles *handles, struct cowfs_handle *handle);
/*
 * Makes the kernel write back what it holds for the mappable ones, and waits.  The write-backs are WRITE requests, so
 * this must not run on a worker thread, nor under any lock.  -- -ENOMEM
 */
int cowfs_handles_flush(struct cowfs *fs);
/* After a tree was removed: the kernel shall ask for the attributes of those that lost their last name.  -- -ENOMEM */
int cowfs_handles_expire_dead(struct cowfs *fs);

#endif
