/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who asks.  The kernel checks the rights to all ordinary requests (default_permissions) before it sends them; what is
 * left to ask about the caller is here.  It is read from /proc, where it stands as long as the caller waits for his
 * answer.  Of a caller who cannot be seen there the least is assumed, and so it is of all of them if what is mounted on
 * /proc belongs to another process id name space than ours, in which the kernel numbers the callers.
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
bool cowfs_caller_is_in_group(fuse_req_t req, gid_t group);
/* Since when his thread runs, in nanoseconds of CLOCK_BOOTTIME, rounded down to a hundredth of a second; UINT64_MAX if
 * that cannot be told. */
uint64_t cowfs_caller_started(fuse_req_t req);
/* As capable(CAP_FSETID) in the kernel: may he keep the set-id bits of what he changes? */
bool cowfs_caller_has_fsetid(fuse_req_t req);

#endif
