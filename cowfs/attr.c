/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Attributes of inodes and of the volume. */
#include <limits.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

#include "cowfs/loop.h"
#include "cowfs/ops.h"
#include "cowfs/setid.h"

static void reply_attr(fuse_req_t req, struct cow_inode *inode, const struct cow_attr *attr)
{
	struct stat st;

	cowfs_fill_stat(cowfs_of(req), inode, attr, &st);
	fuse_reply_attr(req, &st, cowfs_attr_seconds(attr));
}

void cowfs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cow_inode *inode = cowfs_inode(cowfs_of(req), ino);
	struct cow_attr attr;
	int result = cow_getattr(inode, &attr);

	(void)fi;
	if (result)
		cowfs_reply(req, result);
	else
		reply_attr(req, inode, &attr);
}

static unsigned fill_times(const struct stat *st, int to_set, struct cow_attr *attr)
{
	unsigned mask = 0;
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (to_set & FUSE_SET_ATTR_ATIME) {
		attr->atime = to_set & FUSE_SET_ATTR_ATIME_NOW ? now : st->st_atim;
		mask |= COW_SET_ATIME;
	}
	if (to_set & FUSE_SET_ATTR_MTIME) {
		attr->mtime = to_set & FUSE_SET_ATTR_MTIME_NOW ? now : st->st_mtim;
		mask |= COW_SET_MTIME;
	}
	if (to_set & FUSE_SET_ATTR_CTIME) {
		attr->ctime = st->st_ctim;
		mask |= COW_SET_CTIME;
	}
	if (to_set & FUSE_SET_ATTR_SIZE && !(mask & COW_SET_MTIME)) {
		attr->mtime = now;
		mask |= COW_SET_MTIME;
	}
	return mask;
}

static unsigned fill_change(const struct stat *st, int to_set, struct cow_attr *attr)
{
	unsigned mask = fill_times(st, to_set, attr);

	if (to_set & FUSE_SET_ATTR_MODE) {
		attr->mode = st->st_mode & 07777;
		mask |= COW_SET_MODE;
	}
	if (to_set & FUSE_SET_ATTR_UID) {
		attr->uid = st->st_uid;
		mask |= COW_SET_UID;
	}
	if (to_set & FUSE_SET_ATTR_GID) {
		attr->gid = st->st_gid;
		mask |= COW_SET_GID;
	}
	if (to_set & FUSE_SET_ATTR_SIZE) {
		attr->size = (uint64_t)st->st_size;
		mask |= COW_SET_SIZE;
	}
	return mask;
}

/* A change of owner: the mode that is left goes with it. The kernel always says that bits go then, which is not all. */
static int add_mode(fuse_req_t req, struct cow_inode *inode, struct cow_attr *attr, unsigned *mask)
{
	struct cow_attr before;
	int result = cow_getattr(inode, &before);

	if (result)
		return result;
	attr->mode = cowfs_setid_clear_chown(req, &before) & 07777;
	if (attr->mode != (before.mode & 07777))
		*mask |= COW_SET_MODE;
	return 0;
}

int cowfs_truncate(struct cow_inode *inode, uint64_t size)
{
	struct cow_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.size = size;
	clock_gettime(CLOCK_REALTIME, &attr.mtime);
	return cow_setattr(inode, &attr, COW_SET_SIZE | COW_SET_MTIME, NULL);
}

void cowfs_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
	struct cow_inode *inode = cowfs_inode(cowfs_of(req), ino);
	struct cow_attr attr, after;
	unsigned mask;
	int result = 0;

	(void)fi;
	if (to_set & FUSE_SET_ATTR_SIZE)
		result = cowfs_setid_prepare(req, inode);
	memset(&attr, 0, sizeof(attr));
	mask = fill_change(st, to_set, &attr);
	if (!result && mask & (COW_SET_UID | COW_SET_GID) && !(mask & COW_SET_MODE))
		result = add_mode(req, inode, &attr, &mask);
	if (!result)
		result = mask ? cow_setattr(inode, &attr, mask, &after) : cow_getattr(inode, &after);
	if (result)
		cowfs_reply(req, result);
	else
		reply_attr(req, inode, &after);
}

void cowfs_op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	char target[PATH_MAX];
	int length = cow_readlink(cowfs_inode(cowfs_of(req), ino), target, sizeof(target) - 1);

	if (length < 0) {
		cowfs_reply(req, length);
		return;
	}
	target[length < (int)sizeof(target) ? length : (int)sizeof(target) - 1] = '\0';
	fuse_reply_readlink(req, target);
}

void cowfs_op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_info info;
	struct statvfs st;
	int result;

	(void)ino;
	if (!cow_info_is_quick(fs->volume))
		cowfs_loop_may_wait(fs->loop);
	result = cow_info(fs->volume, &info);
	if (result) {
		cowfs_reply(req, result);
		return;
	}
	memset(&st, 0, sizeof(st));
	st.f_bsize = st.f_frsize = COW_BLOCK_BYTES;
	st.f_blocks = info.total_blocks;
	st.f_bfree = info.free_blocks + info.reserved_blocks;
	st.f_bavail = info.free_blocks;
	/* Inodes take what space they need: as many more as there are free blocks is a fair promise. */
	st.f_files = info.files + info.directories + info.free_blocks;
	st.f_ffree = st.f_favail = info.free_blocks;
	st.f_namemax = COW_NAME_MAX;
	fuse_reply_statfs(req, &st);
}
