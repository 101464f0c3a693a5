/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FUSE_HANDLE_KILLPRIV_V2, which libfuse 3.14 does not know.  With it we promise the kernel to clear set-id bits on
 * writes, truncation and change of owner (file.c, attr.c).  Without it the kernel asks for the extended attribute
 * security.capability before every single write(2).
 *
 * libfuse lets the program do its reads and writes of /dev/fuse; ours are the plain system calls, except that the
 * answer to INIT gets one more flag if the kernel offered it.
 */
#include <linux/fuse.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cowfs/mount.h"

static void look_for_init(struct cowfs *fs, const void *bytes, size_t size)
{
	struct fuse_in_header header;
	struct fuse_init_in init;

	if (size < sizeof(header) + offsetof(struct fuse_init_in, flags2))
		return;
	memcpy(&header, bytes, sizeof(header));
	if (header.opcode != FUSE_INIT)
		return;
	memcpy(&init, (const char *)bytes + sizeof(header), offsetof(struct fuse_init_in, flags2));
	fs->init_unique = header.unique;
	fs->init_killpriv = init.flags & FUSE_HANDLE_KILLPRIV_V2;
}

static ssize_t read_request(int fd, void *buffer, size_t size, void *context)
{
	struct cowfs *fs = context;
	ssize_t got = read(fd, buffer, size);

	if (got > 0 && ((const struct fuse_in_header *)buffer)->opcode == FUSE_INIT)
		look_for_init(fs, buffer, (size_t)got);
	return got;
}

/* INIT is the first request and nothing else is sent before its answer, so the two fields need no lock. */
static void extend_init(struct cowfs *fs, struct iovec *iov, int count)
{
	const struct fuse_out_header *header = iov[0].iov_base;
	struct fuse_init_out *init;

	if (count != 2 || iov[0].iov_len < sizeof(*header) || header->unique != fs->init_unique || header->error)
		return;
	if (iov[1].iov_len < offsetof(struct fuse_init_out, max_background))
		return;
	init = iov[1].iov_base;
	init->flags |= FUSE_HANDLE_KILLPRIV_V2;
	fs->init_killpriv = false;
}

static ssize_t write_answer(int fd, struct iovec *iov, int count, void *context)
{
	struct cowfs *fs = context;

	if (fs->init_killpriv)
		extend_init(fs, iov, count);
	return writev(fd, iov, count);
}

int cowfs_killpriv_install(struct cowfs *fs)
{
	static const struct fuse_custom_io io = {.read = read_request, .writev = write_answer};

	return fuse_session_custom_io(fs->session, &io, fuse_session_fd(fs->session));
}
