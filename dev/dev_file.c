/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A device in an image file (sparse, grows as blocks are used) or a block device, through the page cache. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "dev/dev.h"

#include <stdlib.h>

/* So much of what is written may lie in the page cache before it is sent to the disk. */
#define WINDOW_BYTES (1u << 20)

struct window {
	uint64_t from, end; /* all of it lies in between */
	uint64_t bytes;
};

struct file_dev {
	struct cow_dev dev;
	int fd;
	int through; /* the file opened once more, or -1: the kernel tells each opening once of a failed write-back */
	bool direct; /* which goes past the page cache */
	bool dsync;  /* the host is known to make a write with RWF_DSYNC durable */
	atomic_int failed; /* of an fdatasync on `through`: nobody knows whose bytes were lost */
	bool paced;  /* the host knows sync_file_range: any error of that is one of the disk */
	bool block;
	pthread_mutex_t lock;
	struct window filling, sent; /* lock */
};

static struct file_dev *file_of(struct cow_dev *dev)
{
	return (struct file_dev *)dev;
}

/* What lies beyond the end of the file is zero: an image that was never written to its end, or is cut short. */
static int file_read(struct cow_dev *dev, void *buffer, size_t length, uint64_t offset)
{
	uint8_t *to = buffer;

	while (length > 0) {
		ssize_t got = pread(file_of(dev)->fd, to, length, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0) {
			memset(to, 0, length);
			return 0;
		}
		to += got;
		offset += (uint64_t)got;
		length -= (size_t)got;
	}
	return 0;
}

/* Changes `parts`. */
static int put_parts(int fd, struct iovec *parts, size_t count, uint64_t offset, int flags)
{
	while (count > 0) {
		ssize_t put = pwritev2(fd, parts, (int)count, (off_t)offset, flags);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		if (put == 0)
			return -EIO;
		offset += (uint64_t)put;
		for (; count > 0 && (size_t)put >= parts->iov_len; parts++, count--)
			put -= (ssize_t)parts->iov_len;
		if (count > 0) {
			parts->iov_base = (uint8_t *)parts->iov_base + put;
			parts->iov_len -= (size_t)put;
		}
	}
	return 0;
}

static int put_bytes(int fd, const void *from, size_t length, uint64_t offset, int flags)
{
	struct iovec bytes = {(void *)from, length};

	return length > 0 ? put_parts(fd, &bytes, 1, offset, flags) : 0;
}

/* Adds a write to the window that is being filled. True: it is full, and the next one begins; then *full is to be sent,
 * and *waited, the one before, to be waited for. */
static bool fill_window(struct file_dev *file, size_t length, uint64_t offset, struct window *full,
			struct window *waited)
{
	struct window *w = &file->filling;
	bool is_full;

	pthread_mutex_lock(&file->lock);
	if (w->bytes == 0 || offset < w->from)
		w->from = offset;
	if (offset + length > w->end)
		w->end = offset + length;
	w->bytes += length;
	is_full = w->bytes >= WINDOW_BYTES;
	if (is_full) {
		*full = *w;
		*waited = file->sent;
		file->sent = *w;
		*w = (struct window){0};
	}
	pthread_mutex_unlock(&file->lock);
	return is_full;
}

/* A failed write-back is told once: here, or by the next fdatasync. Its errno is the disk's, or the host's. */
static int sync_window(const struct file_dev *file, const struct window *w, unsigned flags)
{
	if (w->bytes == 0 || sync_file_range(file->fd, (off_t)w->from, (off_t)(w->end - w->from), flags) == 0)
		return 0;
	return -errno;
}

/*
 * What is written goes to the disk soon, and only two windows of it at a time: if a flush found it all, whoever syncs a
 * little meanwhile (write_through) would wait behind it, for as long as the disk takes.
 */
static int file_write(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset)
{
	struct file_dev *file = file_of(dev);
	struct window full, waited;
	int error = put_bytes(file->fd, buffer, length, offset, 0);

	if (error != 0 || !file->paced || !fill_window(file, length, offset, &full, &waited))
		return error;
	error = sync_window(file, &full, SYNC_FILE_RANGE_WRITE);
	if (error == 0)
		error = sync_window(file, &waited, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
						   SYNC_FILE_RANGE_WAIT_AFTER);
	return error;
}

/*
 * Writers through the page cache keep all others out of the image while they copy; these do not, and copy nothing. The
 * kernel drops what the page cache has of the range.
 */
static int file_write_direct(struct cow_dev *dev, const struct iovec *parts, size_t count, uint64_t offset)
{
	struct file_dev *file = file_of(dev);
	struct iovec left[COW_DEV_PARTS_MAX];
	int error = -EINVAL;

	memcpy(left, parts, count * sizeof(*parts));
	if (file->direct)
		error = put_parts(file->through, left, count, offset, 0);
	if (error == -EINVAL || error == -EOPNOTSUPP) /* a host that wants it otherwise */
		error = cow_dev_write_parts(dev, parts, count, offset);
	return error;
}

/* No retry: after a failed fdatasync the kernel may have dropped the pages that it could not write. */
static int sync_data(int fd)
{
	return fdatasync(fd) == 0 ? 0 : -errno;
}

/* For a host that is not known to tell each opening of a failure: it may have told this one alone. */
static int sync_through(struct file_dev *file)
{
	int error = sync_data(file->through);

	if (error != 0)
		atomic_store(&file->failed, error);
	return error;
}

/*
 * Past the page cache where the host can do that: then it neither waits for what else is dirty in the file, nor makes
 * anybody wait. The bytes are durable when the call returns: by the write itself where the host is known to keep that
 * promise; elsewhere by fdatasync, which does wait for what else is dirty.
 */
static int file_write_through(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset)
{
	struct file_dev *file = file_of(dev);
	int error;

	if (file->through < 0)
		return -EOPNOTSUPP;
	error = put_bytes(file->through, buffer, length, offset, file->dsync ? RWF_DSYNC : 0);
	return error == 0 && !file->dsync ? sync_through(file) : error;
}

/*
 * To the kernel's own file systems fdatasync is for the whole file, whichever opening is named. Others may keep the
 * writes of each opening apart, or their errors, and have to hear of both.
 */
static int file_flush(struct cow_dev *dev)
{
	struct file_dev *file = file_of(dev);
	int error;

	if (!file->dsync && file->through >= 0)
		sync_through(file);
	error = atomic_load(&file->failed);
	return error == 0 ? sync_data(file->fd) : error;
}

static int allocate(int fd, uint64_t offset, uint64_t length)
{
	int result;

	do
		result = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length);
	while (result != 0 && errno == EINTR);
	if (result == 0 || errno == EOPNOTSUPP || errno == ENOSYS)
		return 0; /* a host that cannot promise: its ENOSPC comes with the write */
	return errno == EDQUOT || errno == EFBIG ? -ENOSPC : -errno;
}

/* The same, but for what has its space already: XFS wants to have the whole range free, whatever is allocated of it. */
static int allocate_gaps(int fd, uint64_t offset, uint64_t end)
{
	enum { EXTENTS = 128 };
	struct fiemap *map = cow_mem_new(sizeof(*map) + EXTENTS * sizeof(struct fiemap_extent));
	uint64_t at = offset; /* up to here it has its space */
	bool more = true;
	int result = 0;

	while (result == 0 && more) {
		*map = (struct fiemap){.fm_start = offset, .fm_length = end - offset, .fm_extent_count = EXTENTS};
		if (ioctl(fd, FS_IOC_FIEMAP, map) != 0)
			map->fm_mapped_extents = 0;
		more = map->fm_mapped_extents == EXTENTS;
		for (unsigned i = 0; result == 0 && i < map->fm_mapped_extents; i++) {
			const struct fiemap_extent *e = &map->fm_extents[i];

			offset = e->fe_logical + e->fe_length;
			if (e->fe_flags & (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_SHARED))
				continue; /* a write needs space */
			if (e->fe_logical > at)
				result = allocate(fd, at, e->fe_logical - at);
			at = offset;
		}
		more = more && offset < end;
	}
	free(map);
	return result == 0 && at < end ? allocate(fd, at, end - at) : result;
}

static int file_ensure(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	struct file_dev *file = file_of(dev);
	int result;

	if (file->block || offset >= dev->size_bytes)
		return 0;
	if (length > dev->size_bytes - offset)
		length = dev->size_bytes - offset;
	result = allocate(file->fd, offset, length);
	return result == -ENOSPC ? allocate_gaps(file->fd, offset, offset + length) : result;
}

static void file_discard(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	struct file_dev *file = file_of(dev);
	uint64_t range[2] = {offset, length};

	/* a hint: where it is not supported, the space just stays allocated */
	if (file->block)
		(void)!ioctl(file->fd, BLKDISCARD, range);
	else
		(void)!fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length);
}

static void file_close(struct cow_dev *dev)
{
	if (file_of(dev)->through >= 0)
		close(file_of(dev)->through);
	close(file_of(dev)->fd); /* gives up the lock too */
	pthread_mutex_destroy(&file_of(dev)->lock);
	free(dev);
}

static const struct cow_dev_ops file_ops = {
	.read = file_read,
	.write = file_write,
	.write_direct = file_write_direct,
	.write_through = file_write_through,
	.flush = file_flush,
	.ensure = file_ensure,
	.discard = file_discard,
	.close = file_close,
};

/* udev looks into a block device whenever a writer closes it, and holds a lock meanwhile: wait for that. */
static int lock_file(int fd, bool exclusive, bool block)
{
	const struct timespec pause = {.tv_nsec = 50000000};

	for (int tries = block ? 20 : 1;; nanosleep(&pause, NULL)) {
		if (flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0)
			return 0;
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK || --tries <= 0)
			return errno == EWOULDBLOCK ? -EBUSY : -errno;
	}
}

static int find_size(struct file_dev *file)
{
	struct stat st;

	if (fstat(file->fd, &st) != 0)
		return -errno;
	file->block = S_ISBLK(st.st_mode);
	if (file->block)
		return ioctl(file->fd, BLKGETSIZE64, &file->dev.size_bytes) == 0 ? 0 : -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	file->dev.size_bytes = (uint64_t)st.st_size;
	return 0;
}

/* Under a limit of file sizes (`ulimit -f`) a write beyond it would fail in the middle of a commit. */
static int check_limit(const struct file_dev *file)
{
	struct rlimit limit;

	if (file->block || getrlimit(RLIMIT_FSIZE, &limit) != 0)
		return 0;
	return limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < file->dev.size_bytes ? -EFBIG : 0;
}

static int open_flags(const char *path, enum cow_dev_mode mode)
{
	struct stat st;
	int flags = O_CLOEXEC | O_NONBLOCK; /* opening a fifo by mistake must not hang */

	if (mode == COW_DEV_READ)
		return flags | O_RDONLY;
	if (stat(path, &st) == 0 && S_ISBLK(st.st_mode))
		return flags | O_RDWR | O_EXCL; /* refused while it is mounted or in use by the kernel */
	return flags | O_RDWR | (mode == COW_DEV_CREATE ? O_CREAT : 0);
}

/*
 * The file systems that are known to make a write with RWF_DSYNC durable, and block devices do. Of others nothing is
 * taken for granted: FUSE with direct I/O ignores the flag, and no error says so; what lies below an overlay or on a
 * server cannot be seen.
 */
static bool keeps_dsync(const struct file_dev *file)
{
	struct statfs host;

	if (file->block)
		return true;
	if (fstatfs(file->fd, &host) != 0)
		return false;
	switch ((uint32_t)host.f_type) {
	case EXT4_SUPER_MAGIC: /* ext2 and ext3 as well */
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC: return true;
	default: return false;
	}
}

/*
 * By way of /proc: the name may have gone to another file since. Never the first opening itself: a synced write there
 * would be told of the failed write-back that the flush of a commit has to hear of.
 */
static void open_again(struct file_dev *file)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
	file->dsync = keeps_dsync(file);
	file->through = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
	file->direct = file->through >= 0;
	if (!file->direct)
		file->through = open(path, O_RDWR | O_CLOEXEC);
}

/* An image is private when it is made: the permissions inside it hold only for who cannot read it whole. */
#define IMAGE_MODE 0600

int cow_dev_file_open(const char *path, enum cow_dev_mode mode, struct cow_dev **dev)
{
	struct file_dev *file = cow_mem_new(sizeof(*file));
	int result;

	file->dev.ops = &file_ops;
	file->through = -1;
	pthread_mutex_init(&file->lock, NULL);
	file->fd = open(path, open_flags(path, mode), IMAGE_MODE);
	if (file->fd < 0) {
		result = -errno;
		free(file);
		return result;
	}
	result = find_size(file);
	if (result == 0 && mode == COW_DEV_WRITE)
		result = check_limit(file);
	if (result == 0)
		result = lock_file(file->fd, mode != COW_DEV_READ, file->block);
	if (result == 0 && mode == COW_DEV_CREATE && !file->block)
		result = cow_dev_file_sync_name(path);
	if (result != 0) {
		file_close(&file->dev);
		return result;
	}
	if (mode != COW_DEV_READ)
		open_again(file);
	file->paced = sync_file_range(file->fd, 0, 1, 0) == 0;
	*dev = &file->dev;
	return 0;
}

int cow_dev_file_sync_name(const char *path)
{
	char *real = realpath(path, NULL);
	int fd, result = 0;

	if (real == NULL)
		return -errno;
	fd = open(dirname(real), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		result = errno == EACCES ? 0 : -errno; /* who may not read a directory cannot sync it */
	else if (fsync(fd) != 0 && errno != EINVAL) /* the host cannot sync directories */
		result = -errno;
	if (fd >= 0)
		close(fd);
	free(real);
	return result;
}

int cow_dev_file_resize(struct cow_dev *dev, uint64_t size_bytes)
{
	struct file_dev *file = file_of(dev);

	if (file->block)
		return size_bytes <= dev->size_bytes ? 0 : -ENOSPC;
	if (ftruncate(file->fd, (off_t)size_bytes) != 0)
		return -errno;
	dev->size_bytes = size_bytes;
	return 0;
}

bool cow_dev_file_is_block(const struct cow_dev *dev)
{
	return ((const struct file_dev *)dev)->block;
}
