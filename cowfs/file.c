/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Data.  Every descriptor holds its inode open, so that it outlives its last name, and is counted among the handles;
 * fi->fh says as what.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>

#include "cowfs/handles.h"
#include "cowfs/loop.h"
#include "cowfs/ops.h"
#include "cowfs/setid.h"

/* A request that takes longer than waking another worker does. */
#define LONG_BYTES (128u << 10)

/* A copy that shares takes no time, but if it cannot share, this many bytes take some. */
#define LONG_COPY_BYTES (1 << 20)

static int prepare(fuse_req_t req, struct cow_inode *inode, int flags)
{
	int result;

	if (flags & O_TRUNC) {
		result = cowfs_setid_prepare(req, inode);
		return result ? result : cowfs_truncate(inode, 0);
	}
	/* Below a read-only clone it has to fail now: a store to a mapping cannot. */
	if ((flags & O_ACCMODE) != O_RDONLY)
		return cow_writable(inode);
	return 0;
}

/* What fi->fh says of a descriptor. */
enum { OPENED = 1, MAPPABLE = 2 };

int cowfs_open(fuse_req_t req, struct cow_inode *inode, struct fuse_file_info *fi)
{
	int result = cow_hold(inode);

	if (result)
		return result;
	result = prepare(req, inode, fi->flags);
	if (result) {
		cow_release(inode);
		return result;
	}
	fi->fh = OPENED | ((fi->flags & O_ACCMODE) == O_RDWR ? MAPPABLE : 0);
	cowfs_handles_add(cowfs_of(req)->handles, inode, fi->fh & MAPPABLE);
	fi->keep_cache = 1;
	fi->noflush = 1;
	return 0;
}

void cowfs_close(struct cowfs *fs, struct cow_inode *inode, struct fuse_file_info *fi)
{
	cowfs_handles_remove(fs->handles, inode, fi->fh & MAPPABLE);
	cow_release(inode);
}

void cowfs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_inode *inode = cowfs_inode(fs, ino);
	int result = cowfs_open(req, inode, fi);

	if (result)
		cowfs_reply(req, result);
	else if (fuse_reply_open(req, fi))
		cowfs_close(fs, inode, fi);
}

void cowfs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cowfs *fs = cowfs_of(req);

	cowfs_close(fs, cowfs_inode(fs, ino), fi);
	fuse_reply_err(req, 0);
}

void cowfs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct cowfs *fs = cowfs_of(req);
	void *buffer = cowfs_buffer(fs, size);
	int64_t got = -ENOMEM;

	(void)fi;
	if (buffer)
		got = cow_read(cowfs_inode(fs, ino), buffer, size, (uint64_t)offset);
	if (got < 0)
		cowfs_reply(req, (int)got);
	else
		fuse_reply_buf(req, buffer, (size_t)got);
}

/* The kernel asks for set-id bits to go only with a write(2), not when it writes back a page of a mapping. */
void cowfs_op_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_inode *inode = cowfs_inode(fs, ino);
	int64_t done = cowfs_setid_prepare(req, inode);

	(void)fi;
	if (size >= LONG_BYTES)
		cowfs_loop_may_wait(fs->loop); /* whoever wants little does not wait behind who wants much */
	if (!done)
		done = cow_write(inode, bytes, size, (uint64_t)offset, false);
	if (done < 0)
		cowfs_reply(req, (int)done);
	else
		fuse_reply_write(req, (size_t)done);
}

/* The kernel takes this as: never ask again. */
void cowfs_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, ENOSYS);
}

void cowfs_op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	struct cowfs *fs = cowfs_of(req);

	(void)data_only;
	(void)fi;
	cowfs_loop_may_wait(fs->loop);
	cowfs_reply(req, cow_fsync(cowfs_inode(fs, ino)));
}

void cowfs_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	struct cow_inode *inode = cowfs_inode(cowfs_of(req), ino);
	int result = cowfs_setid_prepare_unsaid(req, inode);

	(void)fi;
	if (!result)
		result = cow_fallocate(inode, mode, (uint64_t)offset, (uint64_t)length);
	cowfs_reply(req, result);
}

void cowfs_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	int64_t found = -ENXIO;

	(void)fi;
	if (offset >= 0)
		found = cow_seek(cowfs_inode(cowfs_of(req), ino), (uint64_t)offset, whence);
	if (found < 0)
		cowfs_reply(req, (int)found);
	else
		fuse_reply_lseek(req, (off_t)found);
}

void cowfs_op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, struct fuse_file_info *from_fi,
			      fuse_ino_t to, off_t to_offset, struct fuse_file_info *to_fi, size_t length, int flags)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_inode *source = cowfs_inode(fs, from), *target = cowfs_inode(fs, to);
	int64_t copied = 0;

	if (length > LONG_COPY_BYTES)
		cowfs_loop_may_wait(fs->loop);
	(void)from_fi;
	(void)to_fi;
	(void)flags; /* the kernel lets none through */
	if (!copied)
		copied = cowfs_setid_prepare_unsaid(req, target);
	if (!copied)
		copied = cow_copy_range(source, (uint64_t)from_offset, target, (uint64_t)to_offset, length);
	if (copied < 0)
		cowfs_reply(req, (int)copied);
	else
		fuse_reply_write(req, (size_t)copied);
}
