// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Trees on the host, also on mounted volumes: plain calls, relative to open directories, links never followed.
 *
 * What is made is not opened or changed by a name that somebody else could have given to something else meanwhile: all
 * of it happens in a directory that only we get into (cli/fresh.h), and attributes are set by descriptor.
 */
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
#include "cli/acl.h"

/*
 * What is neither file nor directory has no descriptor that one could use for more than to say who it is (O_PATH). For
 * such a one the calls get this path, which leads to the very thing, also if it is a symbolic link.
 */
#define PROC_PATH 32

static void proc_path(int fd, char *path)
{
	snprintf(path, PROC_PATH, "/proc/self/fd/%d", fd);
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

/* By descriptor or, for the rest, by proc_path(). */
static ssize_t list_xattr(int fd, const char *path, char *buffer, size_t size)
{
	return path == NULL ? flistxattr(fd, buffer, size) : listxattr(path, buffer, size);
}

static ssize_t get_xattr(int fd, const char *path, const char *name, void *buffer, size_t size)
{
	return path == NULL ? fgetxattr(fd, name, buffer, size) : getxattr(path, name, buffer, size);
}

static int read_xattrs(int fd, const char *path, struct cow_tree_item *item)
{
	char small[1024], *names = small, *value;
	ssize_t length = list_xattr(fd, path, small, sizeof(small));
	int error = 0;

	if (length < 0 && errno == ERANGE) {
		names = cow_mem_new(XATTR_LIST_MAX);
		length = list_xattr(fd, path, names, XATTR_LIST_MAX);
	}
	if (length <= 0) {
		error = length < 0 && errno != ENOTSUP && errno != ENOSYS ? -errno : 0;
		if (names != small)
			free(names);
		return error;
	}
	value = cow_mem_new(XATTR_SIZE_MAX);
	for (char *name = names; name < names + length && error == 0; name += strlen(name) + 1) {
		ssize_t size = get_xattr(fd, path, name, value, XATTR_SIZE_MAX);

		if (size >= 0) /* what may not be read or went away is left out, as cp -a does */
			cow_tree_item_xattr(item, name, value, (size_t)size);
		else if (errno != ENODATA && strcmp(name, COW_ACL_ACCESS) == 0)
			error = -errno; /* the mode says too much without it */
	}
	free(value);
	if (names != small)
		free(names);
	return error;
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

static int read_target(int fd, struct cow_tree_item *item)
{
	ssize_t length;

	item->target = cow_mem_new(PATH_MAX + 1);
	length = readlinkat(fd, "", item->target, PATH_MAX);
	return length < 0 ? -errno : 0;
}

/* Nothing but files and directories is opened to be read: opening could do something. */
static int open_child(int dir, const char *name, struct cow_tree_node *node, struct cow_tree_item *item)
{
	struct stat st;

	node->fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (node->fd < 0 || fstat(node->fd, &st) != 0)
		return -errno;
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return -EAGAIN; /* it was one a moment ago */
	describe(&st, item);
	return read_xattrs(node->fd, NULL, item);
}

/* The rest, which is not kept open. */
static int look_at(int dir, const char *name, struct cow_tree_item *item)
{
	int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), error = 0;
	char path[PROC_PATH];
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) != 0)
		error = -errno;
	else if (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode))
		error = -EAGAIN; /* it was none a moment ago */
	if (error == 0) {
		describe(&st, item);
		proc_path(fd, path);
		error = S_ISLNK(st.st_mode) ? read_target(fd, item) : 0;
	}
	if (error == 0)
		error = read_xattrs(fd, path, item);
	close(fd);
	return error;
}

static int open_once(int dir, const char *name, struct cow_tree_node *node, struct cow_tree_item *item)
{
	struct stat st;
	int error;

	node->fd = -1;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return -errno;
	if (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode))
		error = open_child(dir, name, node, item);
	else
		error = look_at(dir, name, item);
	if (error != 0) {
		cow_tree_item_free(item);
		if (node->fd >= 0)
			close(node->fd);
		node->fd = -1;
	}
	return error;
}

int cow_host_open(int dir, const char *name, struct cow_tree_node *node, struct cow_tree_item *item)
{
	int error = -EAGAIN;

	/* a name may be given to something else between looking and opening, but not for ever */
	for (int tries = 0; tries < 10 && error == -EAGAIN; tries++)
		error = open_once(dir, name, node, item);
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

static bool is_acl(const char *name)
{
	return strcmp(name, COW_ACL_ACCESS) == 0 || strcmp(name, COW_ACL_DEFAULT) == 0;
}

/* By descriptor or, for what has none, by proc_path(). */
static void set_xattrs(struct cow_tree_sink *sink, int fd, const char *path, const struct cow_tree_item *item)
{
	bool kept = false, lost = false;

	for (size_t i = 0; i < item->xattr_count; i++) {
		const struct cow_tree_xattr *x = &item->xattrs[i];
		int result = path == NULL ? fsetxattr(fd, x->name, x->value, x->size, 0)
					  : setxattr(path, x->name, x->value, x->size, 0);

		if (is_acl(x->name)) {
			kept |= result == 0;
			lost |= result != 0;
		} else if (result != 0) {
			cow_tree_sink_lost_xattr(sink, item, x->name, -errno);
		}
	}
	if (item->acl && (lost || !kept))
		cow_tree_sink_lost_acl(sink, item);
}

/* Opens what was just made, and makes sure that it still is that. */
static int open_made(int dir, const char *name, const struct cow_tree_item *item)
{
	int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	bool good;

	if (fd < 0)
		return -errno;
	good = fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == (item->mode & S_IFMT) && st.st_uid == geteuid() &&
	       st.st_nlink == 1;
	if (S_ISCHR(item->mode) || S_ISBLK(item->mode))
		good = good && (uint32_t)st.st_rdev == item->rdev;
	if (good)
		return fd;
	close(fd);
	return -ESTALE;
}

/* Owner, then mode, then xattrs, then times: each may change the ones after it. Who may not give files away keeps
 * them, without set-id bits, as with cp. */
static int set_special(struct cow_tree_sink *sink, int fd, const struct cow_tree_item *item)
{
	const struct timespec times[2] = {item->atime, item->mtime};
	mode_t mode = item->mode & 07777;
	char path[PROC_PATH];

	proc_path(fd, path);
	if (fchownat(fd, "", item->uid, item->gid, AT_EMPTY_PATH) != 0)
		mode &= 01777;
	if (!S_ISLNK(item->mode) && chmod(path, mode) != 0)
		return -errno;
	set_xattrs(sink, -1, path, item);
	return utimensat(AT_FDCWD, path, times, 0) == 0 ? 0 : -errno;
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

int cow_host_set(const struct cow_cli *cli, int fd, const struct cow_tree_item *item)
{
	struct cow_tree_sink sink = {.sink.cli = cli};

	return done(&sink, (struct cow_tree_node){.fd = fd}, item, item->size);
}

static int make(struct cow_tree_sink *sink, struct cow_tree_node dir, const char *name,
		const struct cow_tree_item *item, struct cow_tree_node *node)
{
	int fd, error;

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
	fd = open_made(dir.fd, name, item);
	if (fd < 0)
		return fd;
	error = set_special(sink, fd, item);
	close(fd);
	return error;
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
