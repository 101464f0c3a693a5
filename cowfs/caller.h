/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who asks, and what he may.  The kernel checks all ordinary requests (default_permissions); what comes by ioctl we
 * check ourselves.
 */
#ifndef COWFS_CALLER_H
#define COWFS_CALLER_H

#include "cowfs/mount.h"

/*
 * May the caller use the constant-time verbs?  They work on whole trees without looking at the rights inside.  In a
 * mount that only its owner can enter they show him nothing new; where others can enter, only root and the owner may,
 * everybody else walks the tree with his own rights, in the command.
 */
bool cowfs_caller_is_trusted(fuse_req_t req);
/* May the caller take an entry with these attributes out of `dir`, as unlink(2) would let him?  -- -EACCES, -EPERM */
int cowfs_caller_may_remove(fuse_req_t req, const struct cow_attr *dir, const struct cow_attr *entry);

#endif
