/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cowfs/setid.h"

#include "cowfs/caller.h"

#define SET_IDS ((uint32_t)(S_ISUID | S_ISGID))

uint32_t cowfs_setid_clear(fuse_req_t req, const struct cow_attr *attr)
{
	uint32_t mode = attr->mode;

	if (!S_ISREG(mode))
		return mode;
	if (mode & S_ISGID && (mode & S_IXGRP || !cowfs_caller_is_in_group(req, attr->gid)))
		mode &= ~(uint32_t)S_ISGID;
	return mode & ~(uint32_t)S_ISUID;
}

uint32_t cowfs_setid_clear_chown(fuse_req_t req, const struct cow_attr *attr)
{
	uint32_t mode = attr->mode;

	if (S_ISDIR(mode))
		return mode;
	if (mode & S_ISGID && (mode & S_IXGRP || (!cowfs_caller_is_in_group(req, attr->gid) &&
						  !cowfs_caller_has_fsetid(req))))
		mode &= ~(uint32_t)S_ISGID;
	return mode & ~(uint32_t)S_ISUID;
}

/*
 * Of a write or truncation the kernel takes only size and times for changed, and would run the file with its old mode.
 * Offset -1 makes it ask for the attributes, without touching pages: safe on a worker.
 */
static int clear(fuse_req_t req, struct cow_inode *inode, const struct cow_attr *before)
{
	struct cow_attr attr = {.mode = cowfs_setid_clear(req, before) & 07777};
	struct cowfs *fs = cowfs_of(req);
	int result;

	if (attr.mode == (before->mode & 07777))
		return 0;
	result = cow_setattr(inode, &attr, COW_SET_MODE, NULL);
	if (!result)
		fuse_lowlevel_notify_inval_inode(fs->session, cowfs_ino(fs, inode), -1, 0);
	return result;
}

static bool has_set_id(struct cow_inode *inode, struct cow_attr *attr)
{
	return cow_getattr(inode, attr) == 0 && S_ISREG(attr->mode) && attr->mode & SET_IDS;
}

int cowfs_setid_prepare(fuse_req_t req, struct cow_inode *inode)
{
	struct cow_attr attr;

	return cowfs_killpriv_asked(req) && has_set_id(inode, &attr) ? clear(req, inode, &attr) : 0;
}

int cowfs_setid_prepare_unsaid(fuse_req_t req, struct cow_inode *inode)
{
	struct cow_attr attr;

	return has_set_id(inode, &attr) && !cowfs_caller_has_fsetid(req) ? clear(req, inode, &attr) : 0;
}
