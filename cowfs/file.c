/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Data.  Every descriptor holds its inode open, so that it outlives its last name, and is counted among the handles;
 * fi->fh says as what.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>

#include "cowfs/direct.h"
#include "cowfs/handles.h"
#include "cowfs/loop.h"
#include "cowfs/ops.h"
#include "cowfs/service.h"
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

static unsigned kind_of(int flags)
{
	return COWFS_OPENED | ((flags & O_ACCMODE) == O_RDWR ? COWFS_MAPPABLE : 0) |
	       (flags & O_DIRECT ? 0 : COWFS_BUFFERED) | (flags & O_DSYNC ? COWFS_SYNCED : 0);
}

/* The kernel may remember that there are no blocks, which is told otherwise from now on (reply.c). */
static void expire_no_blocks(struct cowfs *fs, struct cow_inode *inode)
{
	struct cow_attr attr;

	if (!cow_getattr(inode, &attr) && attr.blocks == 0 && attr.size > 0)
		fuse_lowlevel_notify_inval_inode(fs->session, cowfs_ino(fs, inode), -1, 0);
}

int cowfs_open(fuse_req_t req, struct cow_inode *inode, struct fuse_file_info *fi)
{
	struct cowfs *fs = cowfs_of(req);
	int result = cow_hold(inode);

	if (result)
		return result;
	result = prepare(req, inode, fi->flags);
	if (result) {
		cow_release(inode);
		return result;
	}
	fi->fh = kind_of(fi->flags);
	cowfs_handles_add(fs->handles, inode, (unsigned)fi->fh);
	if (fi->fh & COWFS_MAPPABLE)
		expire_no_blocks(fs, inode);
	fi->keep_cache = 1;
	fi->noflush = 1;
	return 0;
}

void cowfs_close(struct cowfs *fs, struct cow_inode *inode, struct fuse_file_info *fi)
{
	cowfs_handles_remove(fs->handles, inode, (unsigned)fi->fh);
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

	if (size >= LONG_BYTES)
		cowfs_loop_may_wait(fs->loop); /* whoever wants little does not wait behind who wants much */
	if (!done)
		done = cow_write(inode, bytes, size, (uint64_t)offset, false);
	if (done < 0)
		cowfs_reply(req, (int)done);
	else if (fi->flags & O_DIRECT)
		cowfs_direct_written(req, inode, (uint64_t)offset, (size_t)done);
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

/* After a write the kernel sends FSYNC for such a descriptor, after these two requests it does not. */
static int sync_change(struct cowfs *fs, struct cow_inode *inode, const struct fuse_file_info *fi)
{
	if (!(fi->fh & COWFS_SYNCED))
		return 0;
	cowfs_loop_may_wait(fs->loop);
	return cow_fsync(inode);
}

void cowfs_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_inode *inode = cowfs_inode(fs, ino);
	int result = cowfs_setid_prepare_unsaid(req, inode);

	if (!cow_info_is_quick(fs->volume)) /* it may have to look for space */
		cowfs_loop_may_wait(fs->loop);
	if (!result)
		result = cow_fallocate(inode, mode, (uint64_t)offset, (uint64_t)length);
	if (!result)
		result = sync_change(fs, inode, fi);
	cowfs_reply(req, result);
}

static void reply_found(fuse_req_t req, int64_t found)
{
	if (found < 0)
		cowfs_reply(req, (int)found);
	else
		fuse_reply_lseek(req, (off_t)found);
}

struct seek {
	struct cowfs_job job;
	fuse_req_t req;
	struct cow_inode *inode; /* holds a reference */
	uint64_t offset;
	int whence;
};

static void run_seek(struct cowfs *fs, struct cowfs_job *job)
{
	struct seek *seek = (struct seek *)job;

	reply_found(seek->req, cowfs_handles_seek(fs, seek->inode, seek->offset, seek->whence));
	cow_forget(seek->inode, 1);
	free(seek);
}

/* What is mapped for writing may have to be written back first, which a worker must not wait for. */
static void seek_mapped(fuse_req_t req, struct cow_inode *inode, uint64_t offset, int whence)
{
	struct seek *seek = malloc(sizeof(*seek));
	int result = -ENOMEM;

	if (seek) {
		*seek = (struct seek){{.run = run_seek}, req, inode, offset, whence};
		cow_ref(inode);
		result = cowfs_service_add(cowfs_of(req)->brief, &seek->job);
	}
	if (!result)
		return;
	if (seek)
		cow_forget(inode, 1);
	free(seek);
	if (result == -ESHUTDOWN) /* the mount ends, and nothing is waited for any more */
		reply_found(req, cow_seek(inode, offset, whence));
	else
		cowfs_reply(req, result);
}

void cowfs_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_inode *inode = cowfs_inode(fs, ino);

	(void)fi;
	if (offset < 0)
		reply_found(req, -ENXIO);
	else if (cowfs_handles_are(fs->handles, inode, COWFS_MAPPABLE))
		seek_mapped(req, inode, (uint64_t)offset, whence);
	else
		reply_found(req, cow_seek(inode, (uint64_t)offset, whence));
}

/*
 * After the answer the kernel drops every page that the copy has touched, and with it what is stored meanwhile through
 * a mapping into the part of the first or last page that the copy does not cover.
 */
static bool may_tear_page(struct cowfs *fs, struct cow_inode *from, uint64_t from_offset, struct cow_inode *to,
			  uint64_t offset, uint64_t length)
{
	struct cow_attr source, target;
	uint64_t end;

	if (!cowfs_handles_are(fs->handles, to, COWFS_MAPPABLE))
		return false;
	if (cow_getattr(from, &source) || cow_getattr(to, &target))
		return false;
	if (from_offset >= source.size)
		return false;
	if (length > source.size - from_offset)
		length = source.size - from_offset;
	end = offset + length;
	return (offset % COW_BLOCK_BYTES && offset < target.size) || (end % COW_BLOCK_BYTES && end < target.size);
}

/*
 * The kernel has written back the mappings of both files.  On -EOPNOTSUPP it copies this range by itself, through its
 * page cache.
 */
void cowfs_op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, struct fuse_file_info *from_fi,
			      fuse_ino_t to, off_t to_offset, struct fuse_file_info *to_fi, size_t length, int flags)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_inode *source = cowfs_inode(fs, from), *target = cowfs_inode(fs, to);
	int64_t copied = 0;
	int result;

	if (length > LONG_COPY_BYTES)
		cowfs_loop_may_wait(fs->loop);
	(void)from_fi;
	(void)flags; /* the kernel lets none through */
	if (may_tear_page(fs, source, (uint64_t)from_offset, target, (uint64_t)to_offset, length))
		copied = -EOPNOTSUPP;
	if (!copied)
		copied = cowfs_setid_prepare_unsaid(req, target);
	if (!copied)
		copied = cow_copy_range(source, (uint64_t)from_offset, target, (uint64_t)to_offset, length);
	if (copied > 0 && (result = sync_change(fs, target, to_fi)))
		copied = result;
	if (copied < 0)
		cowfs_reply(req, (int)copied);
	else
		fuse_reply_write(req, (size_t)copied);
}
