/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end of direct writes.  When an asynchronous one is answered the kernel tells the program of it at once, and
 * leaves in its page cache what buffered readers have brought there meanwhile, though it is old.  So the daemon has
 * these pages dropped before it answers: a read that began earlier keeps its page locked until it ends, and is waited
 * for; one that begins later finds the new bytes.
 */
#ifndef COWFS_DIRECT_H
#define COWFS_DIRECT_H

#include "cowfs/mount.h"

/* On a worker, after the library has taken the bytes: answers the request, later perhaps. */
void cowfs_direct_written(fuse_req_t req, struct cow_inode *inode, uint64_t offset, size_t size);

#endif
