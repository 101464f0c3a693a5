// SPDX-License-Identifier: GPL-2.0-or-later
/* Trees on the host, also on mounted volumes: plain calls, relative to open directories, links never followed. */
#include "cli/walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/mem.h"

/* What xattr calls need for what has no descriptor of its own; at least this long. */
#define PROC_PATH (32 + COW_NAME_MAX)

static void proc_path(int dir, const char *name, char *path)
{
	snprintf(path, PROC_PATH, "/proc/self/fd/%d/%s", dir, name);
}

/* ------------------------------------------------------------------ source */

int cow_host_list(int dir, struct cow_names *names)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), error;
	DIR *stream = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *entry;

	if (stream == NULL) {
		error = -errno;
		if (fd >= 0)
			close(fd);
		return error;
	}
	while ((errno = 0, entry = readdir(stream)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			cow_names_add(names, entry->d_name);
	error = -errno;
	closedir(stream);
	return error;
}

static int list(struct cow_walk *walk, struct cow_tree_node dir, struct cow_names *names)
{
	(void)walk;
	return cow_host_list(dir.fd, names);
}

/* By descriptor (fd >= 0) or, for the rest, by path. */
static ssize_t list_xattr(int fd, const char *path, char *buffer, size_t size)
{
	return fd >= 0 ? flistxattr(fd, buffer, size) : llistxattr(path, buffer, size);
}

static ssize_t get_xattr(int fd, const char *path, const char *name, void *buffer, size_t size)
{
	return fd >= 0 ? fgetxattr(fd, name, buffer, size) : lgetxattr(path, name, buffer, size);
}

static int read_xattrs(int fd, const char *path, struct cow_tree_item *item)
{
	char small[1024], *names = small, *value;
	ssize_t length = list_xattr(fd, path, small, sizeof(small));

	if (length < 0 && errno == ERANGE) {
		names = cow_mem_new(XATTR_LIST_MAX);
		length = list_xattr(fd, path, names, XATTR_LIST_MAX);
	}
	if (length <= 0) {
		int error = length < 0 && errno != ENOTSUP && errno != ENOSYS ? -errno : 0;

		if (names != small)
			free(names);
		return error;
	}
	value = cow_mem_new(XATTR_SIZE_MAX);
	for (char *name = names; name < names + length; name += strlen(name) + 1) {
		ssize_t size = get_xattr(fd, path, name, value, XATTR_SIZE_MAX);

		if (size >= 0) /* what may not be read or went away is left out, as cp -a does */
			cow_tree_item_xattr(item, name, value, (size_t)size);
	}
	free(value);
	if (names != small)
		free(names);
	return 0;
}

static void describe(const struct stat *st, struct cow_tree_item *item)
{
	item->mode = st->st_mode;
	item->uid = st->st_uid;
	item->gid = st->st_gid;
	item->rdev = (uint32_t)st->st_rdev;
	item->nlink = (uint32_t)st->st_nlink;
	item->dev = st->st_dev;
	item->ino = st->st_ino;
	item->size = (uint64_t)st->st_size;
	item->mapped = (uint64_t)st->st_blocks * 512;
	item->atime = st->st_atim;
	item->mtime = st->st_mtim;
}

static int read_target(int dir, const char *name, struct cow_tree_item *item)
{
	ssize_t length;

	item->target = cow_mem_new(PATH_MAX + 1);
	length = readlinkat(dir, name, item->target, PATH_MAX);
	return length < 0 ? -errno : 0;
}

static int open_child(int dir, const char *name, struct stat *st, struct cow_tree_node *node)
{
	/* nothing but files and directories is opened: it could do something */
	node->fd = openat(dir, name,
			  O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC |
				  (S_ISDIR(st->st_mode) ? O_DIRECTORY : 0));
	if (node->fd < 0)
		return -errno;
	return fstat(node->fd, st) == 0 ? 0 : -errno;
}

int cow_host_open(int dir, const char *name, struct cow_tree_node *node, struct cow_tree_item *item)
{
	char path[PROC_PATH];
	struct stat st;
	int error = 0;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return -errno;
	if (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode)) {
		error = open_child(dir, name, &st, node);
		describe(&st, item);
		if (error == 0)
			error = read_xattrs(node->fd, NULL, item);
	} else {
		describe(&st, item);
		if (S_ISLNK(st.st_mode))
			error = read_target(dir, name, item);
		proc_path(dir, name, path);
		if (error == 0)
			error = read_xattrs(-1, path, item);
	}
	if (error != 0) {
		cow_tree_item_free(item);
		if (node->fd >= 0)
			close(node->fd);
	}
	return error;
}

static int child(struct cow_walk *walk, struct cow_tree_node dir, const char *name, struct cow_tree_node *node,
		 struct cow_tree_item *item)
{
	(void)walk;
	return cow_host_open(dir.fd, name, node, item);
}

/* Up to `end`, or the end of the file. *at is where it came to. */
static int copy_range(struct cow_walk *walk, int fd, uint64_t *at, uint64_t end)
{
	while (*at < end) {
		size_t want = end - *at < COW_WALK_BUFFER ? (size_t)(end - *at) : COW_WALK_BUFFER;
		ssize_t got = pread(fd, walk->buffer, want, (off_t)*at);
		int error;

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return 0;
		error = cow_walk_write(walk, walk->buffer, (size_t)got, *at);
		if (error != 0)
			return error;
		*at += (uint64_t)got;
	}
	return 0;
}

static int data(struct cow_walk *walk, struct cow_tree_node node, const struct cow_tree_item *item)
{
	uint64_t at = 0, end;
	off_t found;
	int error = 0;

	if (item->mapped >= item->size) /* no holes: do not ask */
		return copy_range(walk, node.fd, &at, item->size);
	while (error == 0 && at < item->size) {
		found = lseek(node.fd, (off_t)at, SEEK_DATA);
		if (found < 0 && errno == ENXIO)
			return 0;
		if (found < 0)
			return copy_range(walk, node.fd, &at, item->size);
		at = (uint64_t)found;
		found = lseek(node.fd, found, SEEK_HOLE);
		end = found < 0 ? item->size : (uint64_t)found;
		error = copy_range(walk, node.fd, &at, end);
		if (at < end)
			break; /* it became shorter */
	}
	return error;
}

static void close_node(struct cow_walk *walk, struct cow_tree_node node)
{
	(void)walk;
	if (node.fd >= 0)
		close(node.fd);
}

int cow_source_host(int fd, const char *name, bool one, struct cow_sink *sink)
{
	static const struct cow_walk_ops ops = {list, child, data, close_node};
	struct cow_walk walk = {.ops = &ops, .name = name, .sink = sink, .one = one};
	struct cow_tree_item item = {0};
	struct stat st;
	int error;

	if (fstat(fd, &st) != 0)
		return cow_say_error(sink->cli, name, -errno);
	describe(&st, &item);
	item.nlink = 1; /* the other names of a top are not in the tree */
	error = read_xattrs(fd, NULL, &item);
	if (error != 0)
		return cow_say_error(sink->cli, name, error);
	return cow_walk_run(&walk, (struct cow_tree_node){.fd = fd}, &item);
}

/* ------------------------------------------------------------------ sink */

static int enter(struct cow_tree_sink *sink, struct cow_tree_node dir, const char *name, struct cow_tree_node *node)
{
	(void)sink;
	*node = (struct cow_tree_node){.fd = openat(dir.fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)};
	return node->fd < 0 ? -errno : 0;
}

static void set_xattrs(struct cow_tree_sink *sink, int fd, const char *path, const struct cow_tree_item *item)
{
	for (size_t i = 0; i < item->xattr_count; i++) {
		const struct cow_tree_xattr *x = &item->xattrs[i];
		int result = fd >= 0 ? fsetxattr(fd, x->name, x->value, x->size, 0)
				     : lsetxattr(path, x->name, x->value, x->size, 0);

		if (result == 0 || sink->warned)
			continue;
		sink->warned = true;
		cow_say(sink->sink.cli, "%s: extended attribute %s: %s; it and others like it are left out", item->path,
			x->name, strerror(errno));
	}
}

/* Owner, then mode, then xattrs, then times: each may change the ones after it. Who may not give files away keeps
 * them, without set-id bits, as with cp. */
static int set_by_name(struct cow_tree_sink *sink, int dir, const char *name, const struct cow_tree_item *item)
{
	const struct timespec times[2] = {item->atime, item->mtime};
	mode_t mode = item->mode & 07777;
	char path[PROC_PATH];

	if (fchownat(dir, name, item->uid, item->gid, AT_SYMLINK_NOFOLLOW) != 0)
		mode &= 01777;
	if (!S_ISLNK(item->mode) && fchmodat(dir, name, mode, 0) != 0)
		return -errno;
	proc_path(dir, name, path);
	set_xattrs(sink, -1, path, item);
	return utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : -errno;
}

static int done(struct cow_tree_sink *sink, struct cow_tree_node node, const struct cow_tree_item *item, uint64_t end)
{
	const struct timespec times[2] = {item->atime, item->mtime};
	mode_t mode = item->mode & 07777;

	if (S_ISREG(item->mode) && end < item->size && ftruncate(node.fd, (off_t)item->size) != 0)
		return -errno;
	if (fchown(node.fd, item->uid, item->gid) != 0)
		mode &= 01777;
	if (fchmod(node.fd, mode) != 0)
		return -errno;
	set_xattrs(sink, node.fd, NULL, item);
	return futimens(node.fd, times) == 0 ? 0 : -errno;
}

static int make(struct cow_tree_sink *sink, struct cow_tree_node dir, const char *name,
		const struct cow_tree_item *item, struct cow_tree_node *node)
{
	*node = (struct cow_tree_node){.fd = -1};
	switch (item->mode & S_IFMT) {
	case S_IFDIR:
		if (mkdirat(dir.fd, name, 0700) != 0)
			return -errno;
		return enter(sink, dir, name, node);
	case S_IFREG:
		node->fd = openat(dir.fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		return node->fd < 0 ? -errno : 0;
	case S_IFLNK:
		if (symlinkat(item->target, dir.fd, name) != 0)
			return -errno;
		break;
	default:
		if (mknodat(dir.fd, name, (item->mode & S_IFMT) | 0600, item->rdev) != 0)
			return -errno;
		break;
	}
	return set_by_name(sink, dir.fd, name, item);
}

static int make_link(struct cow_tree_sink *sink, struct cow_tree_node old_dir, const char *old_name,
		     struct cow_tree_node dir, const char *name)
{
	(void)sink;
	return linkat(old_dir.fd, old_name, dir.fd, name, 0) == 0 ? 0 : -errno;
}

static int remove_name(struct cow_tree_sink *sink, struct cow_tree_node dir, const char *name)
{
	(void)sink;
	if (unlinkat(dir.fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	return errno == EISDIR ? -EEXIST : -errno;
}

static int write_data(struct cow_tree_sink *sink, struct cow_tree_node node, const void *bytes, size_t size,
		      uint64_t offset)
{
	(void)sink;
	while (size > 0) {
		ssize_t put = pwrite(node.fd, bytes, size, (off_t)offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		bytes = (const char *)bytes + put;
		size -= (size_t)put;
		offset += (uint64_t)put;
	}
	return 0;
}

static void leave(struct cow_tree_sink *sink, struct cow_tree_node node)
{
	(void)sink;
	if (node.fd >= 0)
		close(node.fd);
}

struct cow_sink *cow_sink_host(const struct cow_cli *cli, int base_fd, const char *name, bool exists)
{
	static const struct cow_tree_sink_ops ops = {enter, make, make_link, remove_name, write_data, done, leave};

	return cow_tree_sink_new(cli, &ops, (struct cow_tree_node){.fd = base_fd}, name, exists);
}
