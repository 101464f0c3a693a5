/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Set-id bits and what takes them away.  A file that runs with its owner's rights must not be changed by somebody else
 * and keep them, so they are cleared before the content changes: a crash in between leaves a file that lost its bits,
 * never one that kept them.  The rules are the kernel's (setattr_should_drop_suidgid and notify_change in Linux);
 * file capabilities it removes itself, by REMOVEXATTR.
 *
 * For WRITE, SETATTR, OPEN and CREATE the kernel says whether the caller's rights let the bits stay (killpriv.c).
 * FALLOCATE and COPY_FILE_RANGE have no room for that, so there the caller is asked about (caller.h).
 */
#ifndef COWFS_SETID_H
#define COWFS_SETID_H

#include "cowfs/mount.h"

/* The mode that is left when somebody without CAP_FSETID changes the content: no set-user-id, and set-group-id only
 * where it does not mean execution and the caller is in the file's group. */
uint32_t cowfs_setid_clear(fuse_req_t req, const struct cow_attr *attr);
/* The same when the owner or group changes, which takes set-user-id away from everybody. */
uint32_t cowfs_setid_clear_chown(fuse_req_t req, const struct cow_attr *attr);
/* Before a change of content of which the kernel has said that the bits go: clears them. -- as cow_setattr() */
int cowfs_setid_prepare(fuse_req_t req, struct cow_inode *inode);
/* The same for requests that say nothing of it. */
int cowfs_setid_prepare_unsaid(fuse_req_t req, struct cow_inode *inode);

#endif
