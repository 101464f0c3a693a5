/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The requests of cow_ioctl.h: quick ones are answered here, those that wait or take long go to trees.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cow_ioctl.h"
#include "cowfs/caller.h"
#include "cowfs/loop.h"
#include "cowfs/ops.h"
#include "cowfs/results.h"
#include "cowfs/scrub.h"
#include "cowfs/tokens.h"
#include "cowfs/trees.h"

static void ioctl_token(fuse_req_t req, struct cow_inode *inode)
{
	struct cow_ioc_token out;
	int result = -EPERM; /* to those who could do nothing with it */

	if (cowfs_caller_is_trusted(req))
		result = cowfs_token_issue(cowfs_of(req)->tokens, inode, fuse_req_ctx(req), &out.token);
	if (result)
		cowfs_reply(req, result);
	else
		fuse_reply_ioctl(req, 0, &out, sizeof(out));
}

static void ioctl_result(fuse_req_t req, const struct cow_ioc_result *in)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_ioc_result *out = cowfs_buffer(fs, sizeof(*out));
	int got = -ENOMEM;

	if (out) {
		memset(out, 0, sizeof(*out));
		out->result = in->result;
		out->offset = in->offset;
		got = cowfs_result_read(fs->results, in->result, in->offset, out->data, sizeof(out->data));
	}
	if (got < 0) {
		cowfs_reply(req, got);
		return;
	}
	out->length = (uint32_t)got;
	fuse_reply_ioctl(req, 0, out, sizeof(*out));
}

static void ioctl_sync(fuse_req_t req, struct cow_inode *inode, const struct cow_ioc_sync *in)
{
	int result;

	if (in->drain) {
		cowfs_tree_drain(req, inode);
		return;
	}
	cowfs_loop_may_wait(cowfs_of(req)->loop);
	result = cow_sync(cowfs_of(req)->volume);
	if (result)
		cowfs_reply(req, result);
	else
		fuse_reply_ioctl(req, 0, NULL, 0);
}

static void ioctl_info(fuse_req_t req)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_ioc_info out;
	struct cow_info info;
	int result;

	if (!cow_info_is_quick(fs->volume))
		cowfs_loop_may_wait(fs->loop);
	result = cow_info(fs->volume, &info);
	if (result) {
		cowfs_reply(req, result);
		return;
	}
	memset(&out, 0, sizeof(out));
	memcpy(out.uuid, info.uuid, sizeof(out.uuid));
	out.format_version = info.format_version;
	out.read_only = info.read_only;
	out.generation = info.generation;
	out.total_blocks = info.total_blocks;
	out.free_blocks = info.free_blocks;
	out.reserved_blocks = info.reserved_blocks;
	out.system_blocks = info.system_blocks;
	out.reclaim_entries = info.reclaim_entries;
	out.files = info.files;
	out.directories = info.directories;
	out.cache_bytes = info.cache_bytes;
	out.dirty_bytes = info.dirty_bytes;
	strncpy(out.image, fs->image, sizeof(out.image) - 1);
	fuse_reply_ioctl(req, 0, &out, sizeof(out));
}

static void fill_totals(const struct cow_usage *usage, struct cow_ioc_stat *out)
{
	out->files = usage->files;
	out->directories = usage->directories;
	out->apparent_bytes = usage->apparent_bytes;
	out->total_bytes = usage->total_bytes;
}

/* Totals tell of what the caller may have no right to see: who is not trusted gets zeros. */
static void ioctl_stat(fuse_req_t req, struct cow_inode *inode)
{
	struct cow_ioc_stat out;
	struct cow_usage usage;
	struct cow_attr attr;
	int result = cow_getattr(inode, &attr);

	memset(&out, 0, sizeof(out));
	if (!result && cowfs_caller_is_trusted(req)) {
		result = cow_usage(inode, false, &usage);
		if (!result)
			fill_totals(&usage, &out);
	}
	if (result) {
		cowfs_reply(req, result);
		return;
	}
	out.ino = attr.ino;
	out.size = attr.size;
	out.blocks = attr.blocks;
	out.mode = attr.mode;
	out.nlink = attr.nlink;
	out.uid = attr.uid;
	out.gid = attr.gid;
	out.rdev = attr.rdev;
	out.is_clone = attr.is_clone;
	out.read_only = attr.read_only;
	out.btime_s = (uint64_t)attr.btime.tv_sec;
	out.btime_ns = (uint32_t)attr.btime.tv_nsec;
	fuse_reply_ioctl(req, 0, &out, sizeof(out));
}

/* The kernel took the sizes from the command itself; a mismatch can only come from a hand-made request. */
void cowfs_op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, void *arg, struct fuse_file_info *fi,
		    unsigned flags, const void *in, size_t in_size, size_t out_size)
{
	struct cow_inode *inode = cowfs_inode(cowfs_of(req), ino);

	(void)arg;
	(void)fi;
	if (flags & FUSE_IOCTL_UNRESTRICTED || _IOC_TYPE(command) != 'w') {
		cowfs_reply(req, -ENOTTY);
		return;
	}
	if (_IOC_NR(command) == COW_IOC_OLD_CLONE_NUMBER || _IOC_NR(command) == COW_IOC_OLD_REMOVE_NUMBER) {
		cowfs_reply(req, -EPERM);
		return;
	}
	if ((_IOC_DIR(command) & _IOC_WRITE && in_size != _IOC_SIZE(command)) ||
	    (_IOC_DIR(command) & _IOC_READ && out_size != _IOC_SIZE(command))) {
		cowfs_reply(req, -EINVAL);
		return;
	}
	switch (command) {
	case COW_IOC_TOKEN: ioctl_token(req, inode); break;
	case COW_IOC_CLONE: cowfs_tree_clone(req, inode, in); break;
	case COW_IOC_REMOVE: cowfs_tree_remove(req, inode, in); break;
	case COW_IOC_USAGE: cowfs_tree_usage(req, inode, in); break;
	case COW_IOC_DIFF: cowfs_tree_diff(req, inode, in); break;
	case COW_IOC_RESULT: ioctl_result(req, in); break;
	case COW_IOC_SAME: cowfs_tree_same(req, inode, in); break;
	case COW_IOC_SYNC: ioctl_sync(req, inode, in); break;
	case COW_IOC_INFO: ioctl_info(req); break;
	case COW_IOC_STAT: ioctl_stat(req, inode); break;
	case COW_IOC_SCRUB: cowfs_scrub_ioctl(req, in); break;
	default: cowfs_reply(req, -ENOTTY); break;
	}
}
