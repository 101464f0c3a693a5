/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ioctls that work on whole trees, each a job of the service threads.  They answer the request themselves. */
#ifndef COWFS_TREES_H
#define COWFS_TREES_H

#include "cow_ioctl.h"
#include "cowfs/mount.h"

void cowfs_tree_clone(fuse_req_t req, struct cow_inode *dir, const struct cow_ioc_clone *ask);
void cowfs_tree_remove(fuse_req_t req, struct cow_inode *dir, const struct cow_ioc_remove *ask);
void cowfs_tree_usage(fuse_req_t req, struct cow_inode *inode, const struct cow_ioc_usage *ask);
void cowfs_tree_diff(fuse_req_t req, struct cow_inode *inode, const struct cow_ioc_diff *ask);
void cowfs_tree_same(fuse_req_t req, struct cow_inode *inode, const struct cow_ioc_same *ask);
void cowfs_tree_drain(fuse_req_t req, struct cow_inode *inode);

#endif
