/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which inodes have open descriptors, and which of these can be stored to through shared mappings: mmap(2) asks for a
 * descriptor that reads and writes.  A mapping keeps its descriptor's file, so RELEASE comes only when the mappings are
 * gone, and the kernel has written back what was stored by then.
 *
 * STORES to a mapping stay in the kernel's page cache until something writes them back, and the library knows nothing
 * of them.  Whoever is going to tell about content (a clone, a diff, usage, SEEK_DATA) has them written back first, by
 * one of the functions below.  The write-backs are WRITE requests, which the workers serve: so these functions run on
 * service threads only, and under no lock.
 */
#ifndef COWFS_HANDLES_H
#define COWFS_HANDLES_H

#include "cowfs/mount.h"

struct cowfs_handles;

struct cowfs_handles *cowfs_handles_new(void);
void cowfs_handles_free(struct cowfs_handles *handles);
/* What a descriptor is. */
enum {
	COWFS_OPENED = 1,
	COWFS_MAPPABLE = 2, /* stores to a mapping may come */
	COWFS_BUFFERED = 4, /* reads through the kernel's page cache */
	COWFS_SYNCED = 8,   /* what it changes is durable when the call returns: O_SYNC, O_DSYNC */
};
/* One descriptor more or less, of this kind. */
void cowfs_handles_add(struct cowfs_handles *handles, struct cow_inode *inode, unsigned kind);
void cowfs_handles_remove(struct cowfs_handles *handles, struct cow_inode *inode, unsigned kind);
/* Is any descriptor of this kind? */
bool cowfs_handles_are(struct cowfs_handles *handles, struct cow_inode *inode, unsigned kind);
/* Makes the kernel write back what it holds for the mappable inodes, and waits.  -- -ENOMEM */
int cowfs_handles_flush(struct cowfs *fs);
/*
 * As cow_seek(), with all that was stored through mappings before the call.  Only holes can turn out to be data, so
 * only the hole that decides the answer is written back, and the kernel keeps what it caches of the rest.
 */
int64_t cowfs_handles_seek(struct cowfs *fs, struct cow_inode *inode, uint64_t offset, int whence);
/* After a tree was removed: the kernel shall ask for the attributes of those that lost their last name.  -- -ENOMEM */
int cowfs_handles_expire_dead(struct cowfs *fs);

#endif
