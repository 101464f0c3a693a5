/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Data.  Every descriptor holds its inode open, so that it outlives its last name, and has its place in the list of
 * handles in fi->fh.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>

#include "cowfs/handles.h"
#include "cowfs/loop.h"
#include "cowfs/ops.h"

/* A request that takes longer than waking another worker does. */
#define LONG_BYTES (128u << 10)

/* A copy that shares takes no time, but if it cannot share, this many bytes take some. */
#define LONG_COPY_BYTES (1 << 20)

static bool has_set_id(struct cow_inode *inode)
{
	struct cow_attr attr;

	return cow_getattr(inode, &attr) == 0 && attr.mode & (S_ISUID | S_ISGID);
}

/*
 * After set-id bits went: of a write or truncation the kernel takes only size and times for changed, and would run the
 * file with its old mode.  Offset -1 makes it ask for the attributes, without touching pages: safe on a worker.
 */
static void expire_mode(struct cowfs *fs, const struct cow_inode *inode)
{
	fuse_lowlevel_notify_inval_inode(fs->session, cowfs_ino(fs, inode), -1, 0);
}

static int prepare(struct cowfs *fs, struct cow_inode *inode, bool kill, int flags)
{
	int result;

	if (flags & O_TRUNC) {
		kill = kill && has_set_id(inode);
		result = cowfs_truncate(inode, 0, kill, NULL);
		if (!result && kill)
			expire_mode(fs, inode);
		return result;
	}
	/* Below a read-only clone it has to fail now: a store to a mapping cannot. */
	if ((flags & O_ACCMODE) != O_RDONLY)
		return cow_writable(inode);
	return 0;
}

int cowfs_open(struct cowfs *fs, struct cow_inode *inode, bool kill, struct fuse_file_info *fi)
{
	struct cowfs_handle *handle = NULL;
	int result = cow_hold(inode);

	if (result)
		return result;
	result = prepare(fs, inode, kill, fi->flags);
	if (!result) {
		handle = cowfs_handle_add(fs->handles, inode, (fi->flags & O_ACCMODE) == O_RDWR);
		if (!handle)
			result = -ENOMEM;
	}
	if (result) {
		cow_release(inode);
		return result;
	}
	fi->fh = (uintptr_t)handle;
	fi->keep_cache = 1;
	fi->noflush = 1;
	return 0;
}

void cowfs_close(struct cowfs *fs, struct cow_inode *inode, struct fuse_file_info *fi)
{
	cowfs_handle_remove(fs->handles, (struct cowfs_handle *)(uintptr_t)fi->fh);
	cow_release(inode);
}

void cowfs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_inode *inode = cowfs_inode(fs, ino);
	int result = cowfs_open(fs, inode, fuse_req_ctx(req)->uid != 0, fi);

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

/*
 * A write by the user takes away set-id bits unless he is privileged; one by the kernel, of a page stored to through
 * a mapping, does not.
 */
void cowfs_op_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
		    struct fuse_file_info *fi)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_inode *inode = cowfs_inode(fs, ino);
	bool kill = !fi->writepage && fuse_req_ctx(req)->uid != 0 && has_set_id(inode);
	int64_t done;

	if (size >= LONG_BYTES)
		cowfs_loop_may_wait(fs->loop); /* whoever wants little does not wait behind who wants much */
	done = cow_write(inode, bytes, size, (uint64_t)offset, kill);

	if (done >= 0 && kill)
		expire_mode(fs, inode);
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
	(void)fi;
	cowfs_reply(req, cow_fallocate(cowfs_inode(cowfs_of(req), ino), mode, (uint64_t)offset, (uint64_t)length));
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
	int64_t copied;

	if (length > LONG_COPY_BYTES)
		cowfs_loop_may_wait(fs->loop);
	(void)from_fi;
	(void)to_fi;
	(void)flags; /* the kernel lets none through */
	copied = cow_copy_range(cowfs_inode(fs, from), (uint64_t)from_offset, cowfs_inode(fs, to),
				(uint64_t)to_offset, length);
	if (copied < 0)
		cowfs_reply(req, (int)copied);
	else
		fuse_reply_write(req, (size_t)copied);
}
