/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes.  Who may touch which name space is decided by the kernel; of "system." there is nothing here:
 * POSIX access control lists are not supported, and said so.
 */
#include <errno.h>
#include <string.h>

#include "cowfs/ops.h"

static bool is_system(const char *name)
{
	return !strncmp(name, "system.", 7);
}

/* Answers a question with `size` 0 by the length, else by the bytes. */
static void reply_value(fuse_req_t req, int length, size_t size, const char *bytes)
{
	if (length < 0)
		cowfs_reply(req, length);
	else if (size == 0)
		fuse_reply_xattr(req, (size_t)length);
	else
		fuse_reply_buf(req, bytes, (size_t)length);
}

void cowfs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct cowfs *fs = cowfs_of(req);
	char *buffer = NULL;

	if (is_system(name)) {
		cowfs_reply(req, -EOPNOTSUPP);
		return;
	}
	if (size > COW_XATTR_VALUE_MAX)
		size = COW_XATTR_VALUE_MAX;
	if (size)
		buffer = cowfs_buffer(fs, size);
	if (size && !buffer)
		cowfs_reply(req, -ENOMEM);
	else
		reply_value(req, cow_getxattr(cowfs_inode(fs, ino), name, buffer, size), size, buffer);
}

void cowfs_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	if (is_system(name))
		cowfs_reply(req, -EOPNOTSUPP);
	else
		cowfs_reply(req, cow_setxattr(cowfs_inode(cowfs_of(req), ino), name, value, size, flags));
}

void cowfs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct cowfs *fs = cowfs_of(req);
	char *buffer = NULL;

	if (size > COW_XATTR_VALUE_MAX)
		size = COW_XATTR_VALUE_MAX;
	if (size)
		buffer = cowfs_buffer(fs, size);
	if (size && !buffer)
		cowfs_reply(req, -ENOMEM);
	else
		reply_value(req, cow_listxattr(cowfs_inode(fs, ino), buffer, size), size, buffer);
}

void cowfs_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	if (is_system(name))
		cowfs_reply(req, -EOPNOTSUPP);
	else
		cowfs_reply(req, cow_removexattr(cowfs_inode(cowfs_of(req), ino), name));
}
