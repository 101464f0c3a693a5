/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The descriptors that may carry stores to shared mappings: those open for reading and writing (mmap(2) asks for
 * both).  A mapping keeps its descriptor's file, so RELEASE comes only when the mappings are gone too.
 */
#ifndef COWFS_WRITERS_H
#define COWFS_WRITERS_H

#include "cowfs/mount.h"

struct cowfs_writer;

struct cowfs_writers *cowfs_writers_new(void);
void cowfs_writers_free(struct cowfs_writers *writers);
/* NULL: no memory. */
struct cowfs_writer *cowfs_writer_add(struct cowfs_writers *writers, fuse_ino_t ino);
void cowfs_writer_remove(struct cowfs_writers *writers, struct cowfs_writer *writer);
/*
 * Makes the kernel write back what it holds for each of them, and waits.  The write-backs are WRITE requests, so this
 * must not run on a worker thread, nor under any lock.  -- -ENOMEM
 */
int cowfs_writers_flush(struct cowfs *fs);
/* Makes the kernel ask for their attributes anew: removing a tree took names from them (st_nlink).  -- -ENOMEM */
int cowfs_writers_expire_attributes(struct cowfs *fs);

#endif
