/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dev/dev_file on a host that fails, or cannot do everything: its system calls are defined here, and do what the test
 * says or what the kernel does. The kernel tells each opening of a file once of a write-back that failed; who is told
 * must pass it on.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "cow.h"
#include "dev/dev.h"

#define MIB (1u << 20)

static struct host {
	bool no_direct, no_ranges; /* what it cannot do */
	bool direct_fails;         /* it opens so, but does not write */
	bool short_writes;         /* it writes less than it is told to */
	int range_error;           /* of the next write-back that is waited for; 0 when told */
	long type;                 /* of its file system; 0: ext4, -1: it does not say */
	int sync_error[2];         /* of the next fdatasync of each opening; 0 when told */
	int name_error;            /* of every fsync of a directory */
	unsigned ranges, dsyncs, syncs[2], name_syncs;
	int fds[2]; /* the openings */
	int write_fd, through_fd;
} host;

int sync_file_range(int fd, off_t offset, off_t length, unsigned flags)
{
	if (host.no_ranges) {
		errno = ENOSYS;
		return -1;
	}
	host.ranges += flags != 0;
	if ((flags & SYNC_FILE_RANGE_WAIT_AFTER) != 0 && host.range_error != 0) {
		errno = host.range_error;
		host.range_error = 0;
		return -1;
	}
	return (int)syscall(SYS_sync_file_range, fd, offset, length, flags);
}

static bool is_direct(int fd)
{
	return (fcntl(fd, F_GETFL) & O_DIRECT) != 0;
}

/* Up to 40 KiB, which may end in the midst of a part. */
static ssize_t write_less(int fd, const struct iovec *bytes, int count, off_t offset, int flags)
{
	static unsigned seed;
	size_t left = (1 + seed++ * 7 % 80) * 512;
	struct iovec less[16];
	int n = 0;

	for (; n < count && n < 16 && left > 0; n++) {
		less[n] = bytes[n];
		if (less[n].iov_len > left)
			less[n].iov_len = left;
		left -= less[n].iov_len;
	}
	return syscall(SYS_pwritev2, fd, less, (long)n, (long)offset, 0l, flags);
}

int fstatfs(int fd, struct statfs *st)
{
	int result = (int)syscall(SYS_fstatfs, fd, st);

	if (host.type == -1) {
		errno = ENOSYS;
		return -1;
	}
	st->f_type = (typeof(st->f_type))(host.type != 0 ? host.type : EXT4_SUPER_MAGIC);
	return result;
}

int fdatasync(int fd)
{
	unsigned which = fd == host.fds[1];

	assert_int_equal(fd, host.fds[which]);
	host.syncs[which]++;
	errno = host.sync_error[which];
	host.sync_error[which] = 0;
	return errno == 0 ? (int)syscall(SYS_fdatasync, fd) : -1;
}

/* For directories alone. */
int fsync(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	host.name_syncs++;
	errno = host.name_error;
	return errno == 0 ? 0 : -1;
}

ssize_t pwritev2(int fd, const struct iovec *bytes, int count, off_t offset, int flags)
{
	host.dsyncs += (flags & RWF_DSYNC) != 0;
	*((flags & RWF_DSYNC) != 0 ? &host.through_fd : &host.write_fd) = fd;
	if (host.direct_fails && is_direct(fd) && (flags & RWF_DSYNC) == 0) {
		errno = EINVAL;
		return -1;
	}
	if (host.short_writes)
		return write_less(fd, bytes, count, offset, flags);
	return syscall(SYS_pwritev2, fd, bytes, (long)count, (long)offset, 0l, flags);
}

int open(const char *path, int flags, ...)
{
	va_list args;
	int mode, fd;

	va_start(args, flags);
	mode = (flags & O_CREAT) != 0 ? va_arg(args, int) : 0;
	va_end(args);
	if (host.no_direct && (flags & O_DIRECT) != 0) {
		errno = EINVAL;
		return -1;
	}
	fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	if ((flags & O_ACCMODE) == O_RDWR)
		host.fds[(flags & O_CREAT) == 0] = fd;
	return fd;
}

static char path[256];
static uint8_t *buffer;

static struct cow_dev *start(struct host with)
{
	const char *dir = getenv("TMPDIR");
	struct cow_dev *dev;

	snprintf(path, sizeof(path), "%s/test_dev_file.%d", dir != NULL ? dir : "/tmp", (int)getpid());
	buffer = aligned_alloc(4096, MIB);
	assert_non_null(buffer);
	host = with;
	assert_int_equal(cow_dev_file_open(path, COW_DEV_CREATE, &dev), 0);
	assert_int_equal(cow_dev_file_resize(dev, 64 * MIB), 0);
	return dev;
}

static void end(struct cow_dev *dev)
{
	cow_dev_close(dev);
	unlink(path);
	free(buffer);
}

static void fill(uint64_t seed)
{
	for (size_t i = 0; i < MIB; i += 8)
		memcpy(buffer + i, &(uint64_t){seed * 0x9e3779b97f4a7c15u + i}, 8);
}

static void expect(struct cow_dev *dev, uint64_t seed, uint64_t offset)
{
	uint8_t *found = malloc(MIB);

	assert_non_null(found);
	assert_int_equal(cow_dev_read(dev, found, MIB, offset), 0);
	fill(seed);
	assert_memory_equal(found, buffer, MIB);
	free(found);
}

/* Whatever errno the host has for it: the disk's for a bad sector is ENODATA. */
static void test_write_back_fails(void **state)
{
	static const int errors[] = {EIO, ENOSPC, ENODATA, ETIMEDOUT, ENOLINK, EREMOTEIO, EILSEQ, EOPNOTSUPP, EINVAL};

	(void)state;
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
		struct cow_dev *dev = start((struct host){0});
		int error = 0;

		host.range_error = errors[i];
		for (unsigned k = 0; k < 8 && error == 0; k++)
			error = cow_dev_write(dev, buffer, MIB, k * MIB);
		assert_int_equal(host.range_error, 0); /* it was told */
		assert_int_equal(error, -errors[i]);
		end(dev);
	}
}

/* A synced write must not be told of what failed for the commit. */
static void test_openings(void **state)
{
	(void)state;
	for (int no_direct = 0; no_direct < 2; no_direct++) {
		struct cow_dev *dev = start((struct host){.no_direct = no_direct != 0});

		assert_int_equal(cow_dev_write(dev, buffer, MIB, 0), 0);
		assert_int_equal(cow_dev_write_through(dev, buffer, 4096, MIB), 0);
		assert_true(host.write_fd != host.through_fd);
		end(dev);
	}
}

/* What a host cannot do is done in another way. */
static void test_poor_hosts(void **state)
{
	static const struct host hosts[] = {
		{0}, {.no_direct = true}, {.direct_fails = true}, {.no_ranges = true},
		{.no_direct = true, .no_ranges = true}, {.short_writes = true},
	};
	struct iovec parts[256];

	(void)state;
	for (size_t i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
		struct cow_dev *dev = start(hosts[i]);

		for (unsigned k = 0; k < 8; k++) {
			fill(k);
			for (unsigned p = 0; p < 256; p++)
				parts[p] = (struct iovec){buffer + p * 4096, 4096};
			assert_int_equal(k % 2 == 0 ? cow_dev_write(dev, buffer, MIB, k * MIB)
						    : cow_dev_write_direct(dev, parts, 256, k * MIB), 0);
		}
		fill(8);
		assert_int_equal(cow_dev_write_through(dev, buffer, MIB, 8 * MIB), 0);
		assert_int_equal(cow_dev_flush(dev), 0);
		assert_true((host.ranges > 0) == !host.no_ranges);
		for (unsigned k = 0; k < 9; k++)
			expect(dev, k, k * MIB);
		end(dev);
	}
}

static const long trusted[] = {0, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC};
static const long others[] = {-1, FUSE_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, NFS_SUPER_MAGIC, SMB2_SUPER_MAGIC,
			      V9FS_MAGIC, TMPFS_MAGIC, MSDOS_SUPER_MAGIC, 0x2fc12fc1 /* ZFS */};

/* A write that is durable by itself is taken only from those who are known to keep that promise. */
static void test_write_through(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2 * sizeof(trusted) / sizeof(*trusted); i++) {
		struct cow_dev *dev = start((struct host){.type = trusted[i / 2], .no_direct = i % 2 != 0});

		assert_int_equal(cow_dev_write_through(dev, buffer, 4096, 0), 0);
		assert_int_equal(host.dsyncs, 1);
		assert_int_equal(host.syncs[0] + host.syncs[1], 0);
		assert_int_equal(cow_dev_flush(dev), 0);
		assert_int_equal(host.syncs[0], 1);
		assert_int_equal(host.syncs[1], 0);
		end(dev);
	}
	for (size_t i = 0; i < 2 * sizeof(others) / sizeof(*others); i++) {
		struct cow_dev *dev = start((struct host){.type = others[i / 2], .no_direct = i % 2 != 0});

		for (unsigned k = 1; k < 4; k++) {
			assert_int_equal(cow_dev_write_through(dev, buffer, 4096, 0), 0);
			assert_int_equal(host.syncs[0], 0);
			assert_int_equal(host.syncs[1], k); /* of the opening that wrote */
		}
		end(dev);
	}
}

/* Whichever opening such a host tells, and tells alone: the flush of the commit fails, and so does each later one. */
static void test_flush_hears(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3 * sizeof(others) / sizeof(*others); i++) {
		struct cow_dev *dev = start((struct host){.type = others[i / 3]});
		struct iovec part = {buffer, 4096};

		assert_int_equal(cow_dev_write(dev, buffer, MIB, 0), 0);
		assert_int_equal(cow_dev_write_direct(dev, &part, 1, MIB), 0);
		assert_int_equal(cow_dev_flush(dev), 0);
		host.sync_error[i % 3 != 0] = EDQUOT;
		if (i % 3 == 2)
			assert_int_equal(cow_dev_write_through(dev, buffer, 4096, 0), -EDQUOT);
		assert_int_equal(cow_dev_flush(dev), -EDQUOT);
		if (i % 3 != 0)
			assert_int_equal(cow_dev_flush(dev), -EDQUOT);
		end(dev);
	}
}

/* A new image has a name that stays, if the host can do that. */
static void test_name(void **state)
{
	static const struct { int error, result; } cases[] = {{0, 0}, {EINVAL, 0}, {EIO, -EIO}};
	struct cow_dev *dev = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		end(start((struct host){0})); /* leaves its name in `path` */
		host = (struct host){.name_error = cases[i].error};
		assert_int_equal(cow_dev_file_open(path, COW_DEV_CREATE, &dev), cases[i].result);
		assert_int_equal(host.name_syncs, 1);
		if (cases[i].result == 0)
			cow_dev_close(dev);
		unlink(path);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_write_back_fails),
		cmocka_unit_test(test_openings),
		cmocka_unit_test(test_poor_hosts),
		cmocka_unit_test(test_write_through),
		cmocka_unit_test(test_flush_hears),
		cmocka_unit_test(test_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
