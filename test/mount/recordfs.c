/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A host for images that forgets at a power cut what POSIX lets it forget. One directory of files, served by FUSE from
 * BACKING:
 *
 *   BACKING/cache  what callers see
 *   BACKING/disk   what a power cut leaves. FSYNC brings the changed blocks of a file and its length here, as .NAME,
 *                  and FSYNC of the directory gives all of them their names.
 *   BACKING/counts how many WRITE, FSYNC and FSYNCDIR requests were answered, u64 each
 *
 *     recordfs BACKING MOUNTPOINT direct|cached|writeback
 *
 * direct: FOPEN_DIRECT_IO, so that every call is a request; cached: through the kernel's page cache; writeback: and
 * written back from there when it suits the kernel. The power cut is kill -9. Serves in the foreground, on one thread.
 */
#define FUSE_USE_VERSION 31

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCK 65536u

enum count { WRITES, FSYNCS, DIRECTORY_FSYNCS, COUNTS };

struct file {
	struct file *next;
	char *name;
	int cache, disk;
	bool named; /* on the disk */
	uint8_t *dirty; /* a byte for each block up to `blocks` */
	size_t blocks;
};

struct host {
	int cache, disk; /* directories */
	bool direct, writeback;
	uint64_t *counts;
	struct file *files;
};

static struct host *host(void)
{
	return fuse_get_context()->private_data;
}

static struct file *file_of(const struct fuse_file_info *fi)
{
	return (struct file *)(uintptr_t)fi->fh;
}

/* ------------------------------------------------------------------ the two copies */

static void hidden_name(const struct file *file, char name[256])
{
	snprintf(name, 256, ".%.250s", file->name);
}

/* Files stay open until the end. NULL: errno. */
static struct file *find_file(struct host *h, const char *name, int flags, mode_t mode)
{
	struct file *file = h->files;
	char hidden[256];

	while (file != NULL && strcmp(file->name, name) != 0)
		file = file->next;
	if (file != NULL)
		return file;
	file = calloc(1, sizeof(*file));
	if (file == NULL || (file->name = strdup(name)) == NULL)
		abort();
	hidden_name(file, hidden);
	file->cache = openat(h->cache, name, O_RDWR | flags, mode);
	file->named = faccessat(h->disk, name, F_OK, 0) == 0;
	file->disk = file->cache < 0 ? -1 : openat(h->disk, file->named ? name : hidden, O_RDWR | flags, 0600);
	if (file->disk < 0) {
		free(file->name);
		free(file);
		return NULL;
	}
	file->next = h->files;
	h->files = file;
	return file;
}

static void mark(struct file *file, off_t offset, off_t length)
{
	size_t first = (size_t)offset / BLOCK, end = ((size_t)(offset + length) + BLOCK - 1) / BLOCK;

	if (end > file->blocks) {
		file->dirty = realloc(file->dirty, end);
		if (file->dirty == NULL)
			abort();
		memset(file->dirty + file->blocks, 0, end - file->blocks);
		file->blocks = end;
	}
	memset(file->dirty + first, 1, end - first);
}

static int make_durable(struct file *file)
{
	uint8_t bytes[BLOCK];
	struct stat st;

	if (fstat(file->cache, &st) != 0 || ftruncate(file->disk, st.st_size) != 0)
		return -errno;
	for (size_t i = 0; i < file->blocks; i++) {
		ssize_t got = file->dirty[i] ? pread(file->cache, bytes, BLOCK, (off_t)(i * BLOCK)) : 0;

		if (got < 0 || pwrite(file->disk, bytes, (size_t)got, (off_t)(i * BLOCK)) != got)
			return -EIO;
		file->dirty[i] = 0;
	}
	return 0;
}

/* ------------------------------------------------------------------ requests */

static int do_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	(void)fi;
	return fstatat(host()->cache, path[1] != '\0' ? path + 1 : ".", st, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : -errno;
}

static int do_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset, struct fuse_file_info *fi,
		      enum fuse_readdir_flags flags)
{
	int fd = openat(host()->cache, ".", O_RDONLY | O_DIRECTORY);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

	(void)path, (void)offset, (void)fi, (void)flags;
	if (dir == NULL)
		return -errno;
	for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
		fill(buffer, entry->d_name, NULL, 0, 0);
	closedir(dir);
	return 0;
}

static int do_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	struct file *file = find_file(host(), path + 1, O_CREAT, mode);

	if (file == NULL)
		return -errno;
	fi->fh = (uint64_t)(uintptr_t)file;
	fi->direct_io = host()->direct;
	return 0;
}

static int do_open(const char *path, struct fuse_file_info *fi)
{
	if (faccessat(host()->cache, path + 1, F_OK, 0) != 0)
		return -errno;
	return do_create(path, 0600, fi); /* which makes its copy on the disk, if that has none */
}

static int do_read(const char *path, char *buffer, size_t length, off_t offset, struct fuse_file_info *fi)
{
	ssize_t got = pread(file_of(fi)->cache, buffer, length, offset);

	(void)path;
	return got < 0 ? -errno : (int)got;
}

static int do_write(const char *path, const char *bytes, size_t length, off_t offset, struct fuse_file_info *fi)
{
	ssize_t put = pwrite(file_of(fi)->cache, bytes, length, offset);

	(void)path;
	if (put < 0)
		return -errno;
	mark(file_of(fi), offset, put);
	host()->counts[WRITES]++;
	return (int)put;
}

static int do_fsync(const char *path, int data_only, struct fuse_file_info *fi)
{
	(void)path, (void)data_only;
	host()->counts[FSYNCS]++;
	return make_durable(file_of(fi));
}

static int do_fsyncdir(const char *path, int data_only, struct fuse_file_info *fi)
{
	struct host *h = host();
	char hidden[256];

	(void)path, (void)data_only, (void)fi;
	h->counts[DIRECTORY_FSYNCS]++;
	for (struct file *file = h->files; file != NULL; file = file->next) {
		hidden_name(file, hidden);
		if (!file->named && renameat(h->disk, hidden, h->disk, file->name) != 0)
			return -errno;
		file->named = true;
	}
	return 0;
}

static int do_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	struct file *file = fi != NULL ? file_of(fi) : find_file(host(), path + 1, O_CREAT, 0600);
	struct stat st;

	if (file == NULL || fstat(file->cache, &st) != 0 || ftruncate(file->cache, size) != 0)
		return -errno;
	if (size < st.st_size)
		mark(file, size, st.st_size - size);
	return 0;
}

static int do_fallocate(const char *path, int mode, off_t offset, off_t length, struct fuse_file_info *fi)
{
	(void)path;
	if (fallocate(file_of(fi)->cache, mode, offset, length) != 0)
		return -errno;
	if ((mode & FALLOC_FL_PUNCH_HOLE) != 0)
		mark(file_of(fi), offset, length);
	return 0;
}

static int do_chmod(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	(void)fi;
	return fchmodat(host()->cache, path + 1, mode, 0) == 0 ? 0 : -errno;
}

/* The kernel sends them before what it has written back. */
static int do_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *fi)
{
	(void)fi;
	return utimensat(host()->cache, path + 1, times, 0) == 0 ? 0 : -errno;
}

static void *do_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
	config->nullpath_ok = 0;
	if (host()->writeback)
		connection->want |= FUSE_CAP_WRITEBACK_CACHE;
	return host();
}

static const struct fuse_operations operations = {
	.init = do_init,
	.getattr = do_getattr,
	.readdir = do_readdir,
	.create = do_create,
	.open = do_open,
	.read = do_read,
	.write = do_write,
	.fsync = do_fsync,
	.fsyncdir = do_fsyncdir,
	.truncate = do_truncate,
	.fallocate = do_fallocate,
	.chmod = do_chmod,
	.utimens = do_utimens,
};

static int open_backing(struct host *h, const char *path)
{
	int fd, top = open(path, O_RDONLY | O_DIRECTORY);

	if (top < 0)
		return -1;
	h->cache = openat(top, "cache", O_RDONLY | O_DIRECTORY);
	h->disk = openat(top, "disk", O_RDONLY | O_DIRECTORY);
	fd = openat(top, "counts", O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (h->cache < 0 || h->disk < 0 || fd < 0 || ftruncate(fd, COUNTS * sizeof(uint64_t)) != 0)
		return -1;
	h->counts = mmap(NULL, COUNTS * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return h->counts != MAP_FAILED ? 0 : -1;
}

int main(int argc, char **argv)
{
	char *fuse_argv[] = {argv[0], "-f", "-s", "-o", "fsname=recordfs", argc == 4 ? argv[2] : NULL, NULL};
	struct host h = {0};

	if (argc != 4) {
		fprintf(stderr, "usage: recordfs BACKING MOUNTPOINT direct|cached|writeback\n");
		return 2;
	}
	h.direct = strcmp(argv[3], "direct") == 0;
	h.writeback = strcmp(argv[3], "writeback") == 0;
	umask(0);
	if (open_backing(&h, argv[1]) != 0) {
		perror(argv[1]);
		return 1;
	}
	return fuse_main(6, fuse_argv, &operations, &h);
}
