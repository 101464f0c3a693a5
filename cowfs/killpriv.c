/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FUSE_HANDLE_KILLPRIV_V2, which libfuse 3.14 does not know.  With it we promise the kernel to clear set-id bits on
 * writes, truncation and change of owner (setid.h), and it says in each of these requests whether the caller's rights
 * let the bits stay.  Without it the kernel asks for the extended attribute security.capability before every single
 * write(2).
 *
 * libfuse lets the program do its reads and writes of /dev/fuse; ours are the plain system calls, except that the
 * answer to INIT gets one more flag if the kernel offered it, and that of each request the flag is kept, which libfuse
 * does not hand on.  A request is served by the thread that has read it, so the flag is kept for each thread.
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

/* The 32-bit word of the request's body at `offset`, or 0. */
static uint32_t word(const char *bytes, size_t size, size_t offset)
{
	uint32_t value;

	if (size < sizeof(struct fuse_in_header) + offset + sizeof(value))
		return 0;
	memcpy(&value, bytes + sizeof(struct fuse_in_header) + offset, sizeof(value));
	return value;
}

/* Does the kernel ask to clear set-id bits with this request? */
static bool asks(const void *bytes, size_t size)
{
	switch (((const struct fuse_in_header *)bytes)->opcode) {
	case FUSE_WRITE:
		return word(bytes, size, offsetof(struct fuse_write_in, write_flags)) & FUSE_WRITE_KILL_SUIDGID;
	case FUSE_SETATTR:
		return word(bytes, size, offsetof(struct fuse_setattr_in, valid)) & FATTR_KILL_SUIDGID;
	case FUSE_OPEN:
		return word(bytes, size, offsetof(struct fuse_open_in, open_flags)) & FUSE_OPEN_KILL_SUIDGID;
	case FUSE_CREATE:
		return word(bytes, size, offsetof(struct fuse_create_in, open_flags)) & FUSE_OPEN_KILL_SUIDGID;
	default:
		return false;
	}
}

static ssize_t read_request(int fd, void *buffer, size_t size, void *context)
{
	struct cowfs *fs = context;
	ssize_t got = read(fd, buffer, size);

	if (got < (ssize_t)sizeof(struct fuse_in_header))
		return got;
	if (((const struct fuse_in_header *)buffer)->opcode == FUSE_INIT)
		look_for_init(fs, buffer, (size_t)got);
	pthread_setspecific(fs->kill_set_id, asks(buffer, (size_t)got) ? fs : NULL);
	return got;
}

bool cowfs_killpriv_asked(fuse_req_t req)
{
	return pthread_getspecific(cowfs_of(req)->kill_set_id) != NULL;
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
