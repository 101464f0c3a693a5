/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The errors that include/cow.h names at each call, provoked through that header alone: a program of anyone's must be
 * able to meet them. Each line is one error, and the call that answers with it. test/cli/manual.bats compares the lines
 * with the lists in the header, both ways; what is in a list but cannot be had at a reasonable price is in NOT PROVOKED
 * at the end.
 *
 * After the calls that fail, the tree is compared with a clone that was made before: they have changed nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#include "cow.h"

#define IMAGE_BYTES (64ull << 20)
#define SMALL_BYTES (16ull << 20)
#define BLOCK COW_BLOCK_BYTES
#define BEYOND ((1ull << 62) + 1) /* no file can be so large */

static const struct cow_new plain = {.mode = S_IFREG | 0644}, directory = {.mode = S_IFDIR | 0755};

/* A tree with one of each kind, and handles of what a call may be given. */
struct scene {
	char folder[64], path[80], other_path[80];
	struct cow_volume *volume, *other_volume;
	struct cow_inode *root, *other; /* `other`: the root of another volume */
	struct cow_inode *top;          /* what is compared: it has the rest in it, but for the clones */
	struct cow_inode *file, *empty, *dir, *link, *fifo, *twin;
	struct cow_inode *clone, *frozen; /* clones of `top`, the second one read-only */
	struct cow_inode *frozen_file;
	struct cow_inode *gone, *gone_dir; /* removed */
	struct cow_inode *orphan_dir;      /* removed while it was held open */
	struct cow_inode *nameless;        /* made without a name */
	char long_name[COW_NAME_MAX + 2];
	char bytes[4 * BLOCK];
};

static void expect(int line, const char *call, int64_t result, int error)
{
	if (result != error)
		fail_msg("line %d: %s: %lld (%s), not %d (%s)", line, call, (long long)result,
			 result < 0 ? cow_error_text((int)result) : "no error", error, cow_error_text(error));
}

#define EXPECT(error, call) expect(__LINE__, #call, (call), (error))

static void good(int line, const char *call, int64_t result)
{
	if (result < 0)
		fail_msg("line %d: %s: %s", line, call, cow_error_text((int)result));
}

#define GOOD(call) good(__LINE__, #call, (call))

static void ignore_log(void *context, enum cow_log_level level, const char *text)
{
	(void)context, (void)level, (void)text;
}

static struct cow_inode *made(struct cow_inode *dir, const char *name, uint32_t mode)
{
	struct cow_new new = {.mode = mode, .target = "a/target"};
	struct cow_inode *inode;

	GOOD(cow_create(dir, name, &new, &inode, NULL));
	return inode;
}

static struct cow_inode *found(struct cow_inode *dir, const char *name)
{
	struct cow_inode *inode;

	GOOD(cow_lookup(dir, name, &inode, NULL));
	return inode;
}

static void format(const char *path, uint64_t bytes)
{
	struct cow_format_options options = {.size_bytes = bytes};

	GOOD(cow_format(path, &options));
}

static void open_image(const char *path, bool read_only, struct cow_volume **volume, struct cow_inode **root)
{
	struct cow_open_options options = {.no_threads = true, .read_only = read_only, .log = ignore_log};

	GOOD(cow_open(path, &options, volume));
	GOOD(cow_root(*volume, root));
}

static void populate(struct scene *s)
{
	s->top = made(s->root, "top", S_IFDIR | 0755);
	s->file = made(s->top, "file", S_IFREG | 0644);
	s->empty = made(s->top, "empty", S_IFREG | 0644);
	s->dir = made(s->top, "dir", S_IFDIR | 0755);
	s->link = made(s->top, "link", S_IFLNK | 0777);
	s->fifo = made(s->top, "fifo", S_IFIFO | 0644);
	s->twin = made(s->top, "twin", S_IFREG | 0644);
	cow_forget(made(s->top, "void", S_IFDIR | 0755), 1);
	cow_forget(made(s->dir, "inner", S_IFREG | 0644), 1);
	memset(s->bytes, 'x', sizeof(s->bytes));
	GOOD(cow_write(s->file, s->bytes, sizeof(s->bytes), 0, false));
	GOOD(cow_setxattr(s->file, "user.a", "value", 5, 0));
	GOOD(cow_link(s->twin, s->top, "twin2", NULL));
	GOOD(cow_clone(s->top, s->root, "clone", 0, &s->clone, NULL));
	GOOD(cow_clone(s->top, s->root, "frozen", COW_CLONE_READ_ONLY, &s->frozen, NULL));
	s->frozen_file = found(s->frozen, "file");
}

static void remove_some(struct scene *s)
{
	s->gone = made(s->root, "gone", S_IFREG | 0644);
	s->gone_dir = made(s->root, "gone_dir", S_IFDIR | 0755);
	s->orphan_dir = made(s->root, "orphan_dir", S_IFDIR | 0755);
	GOOD(cow_unlink(s->root, "gone"));
	GOOD(cow_rmdir(s->root, "gone_dir"));
	GOOD(cow_hold(s->orphan_dir));
	GOOD(cow_rmdir(s->root, "orphan_dir"));
	GOOD(cow_create(s->root, NULL, &plain, &s->nameless, NULL));
}

static int set_up(void **state)
{
	struct scene *s = calloc(1, sizeof(*s));

	*state = s;
	snprintf(s->folder, sizeof(s->folder), "%.40s/cow-errors-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(s->folder));
	snprintf(s->path, sizeof(s->path), "%s/img", s->folder);
	snprintf(s->other_path, sizeof(s->other_path), "%s/other", s->folder);
	memset(s->long_name, 'n', sizeof(s->long_name) - 1);
	format(s->path, IMAGE_BYTES);
	format(s->other_path, SMALL_BYTES);
	open_image(s->path, false, &s->volume, &s->root);
	open_image(s->other_path, false, &s->other_volume, &s->other);
	populate(s);
	remove_some(s);
	return 0;
}

static int tear_down(void **state)
{
	struct scene *s = *state;
	int same = cow_same(s->top, s->frozen);

	cow_release(s->orphan_dir);
	cow_release(s->nameless);
	GOOD(cow_close(s->volume));
	GOOD(cow_close(s->other_volume));
	unlink(s->path);
	unlink(s->other_path);
	rmdir(s->folder);
	free(s);
	assert_int_equal(same, 1); /* what failed has changed nothing */
	return 0;
}

/* ------------------------------------------------------------------ attributes, handles, names */

static void test_attributes(void **state)
{
	struct scene *s = *state;
	struct cow_inode *unseen = found(s->clone, "file");
	struct cow_attr attr = {.size = 1}, late = {.mtime = {.tv_nsec = 1000000000}}, huge = {.size = BEYOND};

	GOOD(cow_getattr(s->gone, &attr)); /* as they were last */
	assert_int_equal(attr.nlink, 0);
	GOOD(cow_unlink(s->clone, "file"));
	EXPECT(-ESTALE, cow_getattr(unseen, &attr)); /* nobody has asked for its attributes before */
	EXPECT(-EISDIR, cow_setattr(s->dir, &attr, COW_SET_SIZE, NULL));
	EXPECT(-EINVAL, cow_setattr(s->fifo, &attr, COW_SET_SIZE, NULL));
	EXPECT(-EINVAL, cow_setattr(s->file, &late, COW_SET_MTIME, NULL));
	EXPECT(-EFBIG, cow_setattr(s->file, &huge, COW_SET_SIZE, NULL));
	EXPECT(-ENOENT, cow_setattr(s->orphan_dir, &attr, COW_SET_MODE, NULL));
	EXPECT(-EROFS, cow_setattr(s->frozen_file, &attr, COW_SET_MODE, NULL));
	EXPECT(-ESTALE, cow_setattr(s->gone, &attr, COW_SET_MODE, NULL));
}

static void test_handles(void **state)
{
	struct scene *s = *state;
	struct cow_inode *inode;

	EXPECT(-ESTALE, cow_hold(s->gone));
	EXPECT(-ESTALE, cow_writable(s->gone));
	EXPECT(-EROFS, cow_writable(s->frozen_file));
	EXPECT(-ENOTDIR, cow_parent(s->file, &inode));
	EXPECT(-ESTALE, cow_parent(s->gone_dir, &inode));
}

static int no_entry(void *context, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	(void)context, (void)entry, (void)inode, (void)attr;
	return 0;
}

static void test_lookup(void **state)
{
	struct scene *s = *state;
	struct cow_inode *inode;

	EXPECT(-ENOENT, cow_lookup(s->top, "none", &inode, NULL));
	EXPECT(-ENOTDIR, cow_lookup(s->file, "none", &inode, NULL));
	EXPECT(-ENAMETOOLONG, cow_lookup(s->top, s->long_name, &inode, NULL));
	EXPECT(-EINVAL, cow_lookup(s->top, "", &inode, NULL));
	EXPECT(-EINVAL, cow_lookup(s->top, ".", &inode, NULL));
	EXPECT(-EINVAL, cow_lookup(s->top, "..", &inode, NULL));
	EXPECT(-EINVAL, cow_lookup(s->top, "dir/inner", &inode, NULL));
	EXPECT(-ESTALE, cow_lookup(s->gone_dir, "none", &inode, NULL));
	EXPECT(-ENOENT, cow_lookup_path(s->volume, "/top/none/inner", &inode));
	EXPECT(-ENOTDIR, cow_lookup_path(s->volume, "/top/file/inner", &inode));
	EXPECT(-ENOTDIR, cow_lookup_path(s->volume, "/top/link/inner", &inode));
	EXPECT(-ENAMETOOLONG, cow_lookup_path(s->volume, s->long_name, &inode));
	EXPECT(-ENOTDIR, cow_list(s->file, 0, false, no_entry, NULL));
	EXPECT(-ESTALE, cow_list(s->gone_dir, 0, false, no_entry, NULL));
}

static void test_create(void **state)
{
	struct scene *s = *state;
	struct cow_new odd = {.mode = 0644}, nowhere = {.mode = S_IFLNK}, far = {.mode = S_IFLNK};
	char target[COW_SYMLINK_MAX + 2] = {0};

	memset(target, 't', COW_SYMLINK_MAX + 1);
	far.target = target;
	EXPECT(-EEXIST, cow_create(s->top, "file", &plain, NULL, NULL));
	EXPECT(-ENOTDIR, cow_create(s->file, "new", &plain, NULL, NULL));
	EXPECT(-ENOENT, cow_create(s->gone_dir, "new", &plain, NULL, NULL));
	EXPECT(-ENOENT, cow_create(s->orphan_dir, "new", &plain, NULL, NULL));
	EXPECT(-ENOENT, cow_create(s->top, "new", &nowhere, NULL, NULL));
	EXPECT(-EINVAL, cow_create(s->top, "new", &odd, NULL, NULL));
	EXPECT(-EINVAL, cow_create(s->top, "..", &plain, NULL, NULL));
	EXPECT(-EINVAL, cow_create(s->top, NULL, &plain, NULL, NULL)); /* nobody would have it */
	EXPECT(-EINVAL, cow_create(s->top, NULL, &directory, &s->dir, NULL));
	EXPECT(-ENAMETOOLONG, cow_create(s->top, s->long_name, &plain, NULL, NULL));
	EXPECT(-ENAMETOOLONG, cow_create(s->top, "new", &far, NULL, NULL));
	EXPECT(-EROFS, cow_create(s->frozen, "new", &plain, NULL, NULL));
}

static void test_link(void **state)
{
	struct scene *s = *state;

	EXPECT(-EEXIST, cow_link(s->file, s->top, "dir", NULL));
	EXPECT(-EPERM, cow_link(s->dir, s->top, "new", NULL));
	EXPECT(-EXDEV, cow_link(s->file, s->clone, "new", NULL));
	EXPECT(-EXDEV, cow_link(s->twin, s->clone, "new", NULL));
	EXPECT(-EXDEV, cow_link(s->file, s->other, "new", NULL));
	EXPECT(-EXDEV, cow_link(s->nameless, s->other, "new", NULL));
	EXPECT(-ENOTDIR, cow_link(s->file, s->twin, "new", NULL));
	EXPECT(-ENOENT, cow_link(s->file, s->gone_dir, "new", NULL));
	EXPECT(-EINVAL, cow_link(s->file, s->top, "a/b", NULL));
	EXPECT(-ENAMETOOLONG, cow_link(s->file, s->top, s->long_name, NULL));
	EXPECT(-EROFS, cow_link(s->frozen_file, s->frozen, "new", NULL));
	EXPECT(-ESTALE, cow_link(s->gone, s->top, "new", NULL));
}

static void test_link_of_an_orphan(void **state)
{
	struct scene *s = *state;
	struct cow_inode *file = made(s->root, "orphan", S_IFREG | 0644);

	GOOD(cow_hold(file));
	GOOD(cow_unlink(s->root, "orphan"));
	EXPECT(-ENOENT, cow_link(file, s->root, "new", NULL));
	cow_release(file);
}

static void test_too_many_links(void **state)
{
	struct scene *s = *state;
	struct cow_inode *dir = made(s->root, "many", S_IFDIR | 0755), *file = made(dir, "file", S_IFREG | 0644);
	char name[16];

	for (unsigned i = 1; i < COW_LINK_MAX; i++) {
		snprintf(name, sizeof(name), "%u", i);
		GOOD(cow_link(file, dir, name, NULL));
	}
	EXPECT(-EMLINK, cow_link(file, dir, "one more", NULL));
}

static void test_remove(void **state)
{
	struct scene *s = *state;

	EXPECT(-ENOENT, cow_unlink(s->top, "none"));
	EXPECT(-EISDIR, cow_unlink(s->top, "dir"));
	EXPECT(-ENOTDIR, cow_unlink(s->file, "none"));
	EXPECT(-EINVAL, cow_unlink(s->top, "."));
	EXPECT(-ENAMETOOLONG, cow_unlink(s->top, s->long_name));
	EXPECT(-EROFS, cow_unlink(s->frozen, "file"));
	EXPECT(-ENOENT, cow_rmdir(s->top, "none"));
	EXPECT(-ENOENT, cow_rmdir(s->gone_dir, "none"));
	EXPECT(-ENOTDIR, cow_rmdir(s->top, "file"));
	EXPECT(-ENOTEMPTY, cow_rmdir(s->top, "dir"));
	EXPECT(-EINVAL, cow_rmdir(s->top, ".."));
	EXPECT(-ENAMETOOLONG, cow_rmdir(s->top, s->long_name));
	EXPECT(-ENOENT, cow_remove_tree(s->top, "none"));
	EXPECT(-ENOTDIR, cow_remove_tree(s->file, "none"));
	EXPECT(-EINVAL, cow_remove_tree(s->top, "dir/inner"));
	EXPECT(-ENAMETOOLONG, cow_remove_tree(s->top, s->long_name));
	EXPECT(-EROFS, cow_remove_tree(s->frozen, "dir"));
}

static void test_rename(void **state)
{
	struct scene *s = *state;
	struct cow_inode *top = s->top;

	EXPECT(-ENOENT, cow_rename(top, "none", top, "new", 0));
	EXPECT(-ENOENT, cow_rename(top, "file", top, "none", COW_RENAME_EXCHANGE));
	EXPECT(-ENOENT, cow_rename(top, "file", s->gone_dir, "new", 0));
	EXPECT(-EEXIST, cow_rename(top, "file", top, "empty", COW_RENAME_NOREPLACE));
	EXPECT(-ENOTDIR, cow_rename(top, "dir", top, "file", 0));
	EXPECT(-ENOTDIR, cow_rename(top, "file", s->empty, "new", 0));
	EXPECT(-EISDIR, cow_rename(top, "file", top, "void", 0));
	EXPECT(-ENOTEMPTY, cow_rename(top, "void", top, "dir", 0));
	EXPECT(-EINVAL, cow_rename(top, "dir", s->dir, "new", 0));
	EXPECT(-EINVAL, cow_rename(s->dir, "inner", s->root, "top", COW_RENAME_EXCHANGE));
	EXPECT(-EINVAL, cow_rename(top, "file", top, ".", 0));
	EXPECT(-EINVAL, cow_rename(top, "file", top, "new", 4));
	EXPECT(-EINVAL, cow_rename(top, "file", top, "empty", COW_RENAME_NOREPLACE | COW_RENAME_EXCHANGE));
	EXPECT(-ENAMETOOLONG, cow_rename(top, "file", top, s->long_name, 0));
	EXPECT(-EXDEV, cow_rename(top, "twin", s->clone, "new", 0));
	EXPECT(-EXDEV, cow_rename(top, "file", s->clone, "file", COW_RENAME_EXCHANGE));
	EXPECT(-EXDEV, cow_rename(top, "file", s->other, "new", 0));
	EXPECT(-EROFS, cow_rename(s->frozen, "file", s->frozen, "new", 0));
}

static void test_readlink(void **state)
{
	struct scene *s = *state;
	char text[16];

	EXPECT(-EINVAL, cow_readlink(s->file, text, sizeof(text)));
	EXPECT(-ESTALE, cow_readlink(s->gone, text, sizeof(text)));
}

/* ------------------------------------------------------------------ data */

static void test_read_and_write(void **state)
{
	struct scene *s = *state;

	EXPECT(-EISDIR, cow_read(s->dir, s->bytes, 1, 0));
	EXPECT(-EINVAL, cow_read(s->fifo, s->bytes, 1, 0));
	EXPECT(-ESTALE, cow_read(s->gone, s->bytes, 1, 0));
	EXPECT(-EISDIR, cow_write(s->dir, s->bytes, 1, 0, false));
	EXPECT(-EINVAL, cow_write(s->fifo, s->bytes, 1, 0, false));
	EXPECT(-EFBIG, cow_write(s->file, s->bytes, 1, BEYOND, false));
	EXPECT(-EFBIG, cow_write(s->file, s->bytes, 2, BEYOND - 2, false));
	EXPECT(-EROFS, cow_write(s->frozen_file, s->bytes, 1, 0, false));
	EXPECT(-ESTALE, cow_write(s->gone, s->bytes, 1, 0, false));
}

static void test_allocate_and_seek(void **state)
{
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	struct scene *s = *state;

	EXPECT(-EOPNOTSUPP, cow_fallocate(s->file, FALLOC_FL_COLLAPSE_RANGE, 0, BLOCK));
	EXPECT(-EOPNOTSUPP, cow_fallocate(s->file, FALLOC_FL_PUNCH_HOLE, 0, BLOCK));
	EXPECT(-EINVAL, cow_fallocate(s->file, punch, 0, 0));
	EXPECT(-EINVAL, cow_fallocate(s->fifo, punch, 0, 1));
	EXPECT(-EISDIR, cow_fallocate(s->dir, punch, 0, 1));
	EXPECT(-EFBIG, cow_fallocate(s->file, punch, BEYOND, 1));
	EXPECT(-EFBIG, cow_fallocate(s->file, punch, 1, BEYOND - 1));
	EXPECT(-ENOSPC, cow_fallocate(s->file, FALLOC_FL_KEEP_SIZE, 0, IMAGE_BYTES));
	EXPECT(-EROFS, cow_fallocate(s->frozen_file, punch, 0, 1));
	EXPECT(-ENXIO, cow_seek(s->file, sizeof(s->bytes), SEEK_DATA));
	EXPECT(-ENXIO, cow_seek(s->file, sizeof(s->bytes), SEEK_HOLE));
	EXPECT(-EINVAL, cow_seek(s->file, 0, SEEK_END));
	EXPECT(-EINVAL, cow_seek(s->fifo, 0, SEEK_DATA));
	EXPECT(-EISDIR, cow_seek(s->dir, 0, SEEK_DATA));
}

static void test_copy_range(void **state)
{
	struct scene *s = *state;

	EXPECT(-EXDEV, cow_copy_range(s->file, 0, s->other, 0, 1));
	EXPECT(-EFBIG, cow_copy_range(s->file, BEYOND, s->empty, 0, 1));
	EXPECT(-EFBIG, cow_copy_range(s->file, 0, s->empty, BEYOND, 1));
	EXPECT(-EFBIG, cow_copy_range(s->file, 0, s->empty, BEYOND - 2, 2));
	EXPECT(-EISDIR, cow_copy_range(s->dir, 0, s->empty, 0, 1));
	EXPECT(-EISDIR, cow_copy_range(s->file, 0, s->dir, 0, 1));
	EXPECT(-EINVAL, cow_copy_range(s->file, 0, s->fifo, 0, 1));
	EXPECT(-EINVAL, cow_copy_range(s->file, 0, s->file, BLOCK, 2 * BLOCK));
	EXPECT(-EROFS, cow_copy_range(s->file, 0, s->frozen_file, 0, 1));
	EXPECT(-ESTALE, cow_copy_range(s->gone, 0, s->empty, 0, 1));
}

static void test_xattr(void **state)
{
	struct scene *s = *state;
	char *large = calloc(1, COW_XATTR_VALUE_MAX + 1), text[4];

	EXPECT(-ENODATA, cow_getxattr(s->file, "user.b", NULL, 0));
	EXPECT(-ENODATA, cow_getxattr(s->file, s->long_name, NULL, 0));
	EXPECT(-ERANGE, cow_getxattr(s->file, "user.a", text, sizeof(text)));
	EXPECT(-EEXIST, cow_setxattr(s->file, "user.a", "v", 1, XATTR_CREATE));
	EXPECT(-ENODATA, cow_setxattr(s->file, "user.b", "v", 1, XATTR_REPLACE));
	EXPECT(-EINVAL, cow_setxattr(s->file, "user.b", "v", 1, 4));
	EXPECT(-ERANGE, cow_setxattr(s->file, "", "v", 1, 0));
	EXPECT(-ERANGE, cow_setxattr(s->file, s->long_name, "v", 1, 0));
	EXPECT(-E2BIG, cow_setxattr(s->file, "user.b", large, COW_XATTR_VALUE_MAX + 1, 0));
	EXPECT(-EROFS, cow_setxattr(s->frozen_file, "user.b", "v", 1, 0));
	EXPECT(-ERANGE, cow_listxattr(s->file, text, sizeof(text)));
	EXPECT(-ENODATA, cow_removexattr(s->file, "user.b"));
	EXPECT(-ENODATA, cow_removexattr(s->file, ""));
	EXPECT(-EROFS, cow_removexattr(s->frozen_file, "user.a"));
	free(large);
}

static void test_too_many_xattrs(void **state)
{
	struct scene *s = *state;
	struct cow_inode *file = made(s->root, "attributed", S_IFREG | 0644);
	char *value = calloc(1, COW_XATTR_VALUE_MAX);

	GOOD(cow_setxattr(file, "user.1", value, COW_XATTR_VALUE_MAX, 0));
	GOOD(cow_setxattr(file, "user.2", value, COW_XATTR_VALUE_MAX, 0));
	GOOD(cow_setxattr(file, "user.3", value, COW_XATTR_VALUE_MAX, 0));
	EXPECT(-ENOSPC, cow_setxattr(file, "user.4", value, COW_XATTR_VALUE_MAX, 0));
	free(value);
}

/* ------------------------------------------------------------------ clones, diff */

static void test_clone(void **state)
{
	struct scene *s = *state;

	EXPECT(-EEXIST, cow_clone(s->dir, s->top, "void", 0, NULL, NULL));
	EXPECT(-ENOTDIR, cow_clone(s->dir, s->file, "new", 0, NULL, NULL));
	EXPECT(-ENOENT, cow_clone(s->dir, s->gone_dir, "new", 0, NULL, NULL));
	EXPECT(-ENOENT, cow_clone(s->orphan_dir, s->top, "new", 0, NULL, NULL));
	EXPECT(-EINVAL, cow_clone(s->file, s->top, "new", COW_CLONE_READ_ONLY, NULL, NULL));
	EXPECT(-EINVAL, cow_clone(s->file, s->top, "", 0, NULL, NULL));
	EXPECT(-ENAMETOOLONG, cow_clone(s->file, s->top, s->long_name, 0, NULL, NULL));
	EXPECT(-EXDEV, cow_clone(s->dir, s->other, "new", 0, NULL, NULL));
	EXPECT(-EROFS, cow_clone(s->dir, s->frozen, "new", 0, NULL, NULL));
	EXPECT(-ESTALE, cow_clone(s->gone, s->top, "new", 0, NULL, NULL));
}

static void test_clone_over(void **state)
{
	struct scene *s = *state;
	struct cow_inode *hollow = found(s->top, "void");

	EXPECT(-ENOENT, cow_clone_over(s->dir, s->top, "none", 0));
	EXPECT(-ENOENT, cow_clone_over(s->orphan_dir, s->top, "void", 0));
	EXPECT(-ENOTEMPTY, cow_clone_over(s->clone, s->top, "dir", 0));
	EXPECT(-ENOTEMPTY, cow_clone_over(s->empty, s->top, "file", 0));
	EXPECT(-ENOTDIR, cow_clone_over(s->dir, s->top, "empty", 0));
	EXPECT(-ENOTDIR, cow_clone_over(s->dir, s->file, "void", 0));
	EXPECT(-EISDIR, cow_clone_over(s->file, s->top, "void", 0));
	EXPECT(-EINVAL, cow_clone_over(hollow, s->top, "void", 0));
	EXPECT(-EINVAL, cow_clone_over(s->file, s->top, "empty", COW_CLONE_READ_ONLY));
	EXPECT(-ENAMETOOLONG, cow_clone_over(s->file, s->top, s->long_name, 0));
	EXPECT(-EXDEV, cow_clone_over(s->dir, s->other, "void", 0));
	EXPECT(-EROFS, cow_clone_over(s->dir, s->frozen, "void", 0));
}

static int stop_at_change(void *context, const struct cow_change *change)
{
	(void)context, (void)change;
	return -ECANCELED;
}

static int stop_scrub(void *context, const struct cow_scrub_result *so_far)
{
	(void)context, (void)so_far;
	return -ECANCELED;
}

static void test_compare(void **state)
{
	struct cow_scrub_options stop = {.bytes_per_second = 1, .progress = stop_scrub};
	struct scene *s = *state;
	struct cow_scrub_result scrubbed;
	struct cow_usage usage;

	EXPECT(-EXDEV, cow_diff(s->dir, s->other, false, stop_at_change, NULL));
	EXPECT(-ESTALE, cow_diff(s->dir, s->gone_dir, false, stop_at_change, NULL));
	EXPECT(-ECANCELED, cow_diff(s->top, s->dir, false, stop_at_change, NULL));
	EXPECT(-EXDEV, cow_same(s->dir, s->other));
	EXPECT(-ESTALE, cow_same(s->gone, s->file));
	EXPECT(-ESTALE, cow_usage(s->gone, true, &usage));
	EXPECT(-ECANCELED, cow_scrub(s->volume, &stop, &scrubbed));
}

/* ------------------------------------------------------------------ the volume: format, open, check, repair */

static void no_line(void *context, const char *text)
{
	(void)context, (void)text;
}

static void test_format(void **state)
{
	struct cow_format_options good_size = {.size_bytes = SMALL_BYTES}, tiny = {.size_bytes = SMALL_BYTES - 1},
				  huge = {.size_bytes = (512ull << 40) + BLOCK}, again = good_size;
	struct scene *s = *state;
	char path[128];

	snprintf(path, sizeof(path), "%s/new", s->folder);
	EXPECT(COW_ERR_SIZE, cow_format(path, &tiny));
	EXPECT(COW_ERR_SIZE, cow_format(path, &huge));
	GOOD(cow_format(path, &good_size));
	EXPECT(COW_ERR_EXISTS, cow_format(path, &again));
	again.force = true;
	GOOD(cow_format(path, &again));
	EXPECT(COW_ERR_BUSY, cow_format(s->path, &again));
	EXPECT(-EISDIR, cow_format(s->folder, &good_size));
	EXPECT(-EINVAL, cow_format("/dev/null", &good_size));
	unlink(path);
}

static void test_open(void **state)
{
	struct cow_open_options only_look = {.read_only = true, .log = ignore_log};
	struct rlimit before, limit;
	struct scene *s = *state;
	struct cow_check_result checked;
	struct cow_repair_result repaired;
	struct cow_volume *volume;

	EXPECT(-ENOENT, cow_open("/nowhere/img", NULL, &volume));
	EXPECT(-EISDIR, cow_open(s->folder, &only_look, &volume));
	EXPECT(-EINVAL, cow_open("/dev/null", NULL, &volume));
	/* opened twice, in one process too */
	EXPECT(COW_ERR_BUSY, cow_open(s->path, NULL, &volume));
	EXPECT(COW_ERR_BUSY, cow_open(s->path, &only_look, &volume));
	EXPECT(COW_ERR_BUSY, cow_check(s->path, NULL, &checked));
	EXPECT(COW_ERR_BUSY, cow_dump(s->path, NULL, no_line, NULL));
	EXPECT(COW_ERR_BUSY, cow_repair(s->path, NULL, &repaired));
	EXPECT(COW_ERR_BUSY, cow_repair_undo(s->path, "/nowhere/undo"));
	GOOD(cow_close(s->other_volume));
	GOOD(getrlimit(RLIMIT_FSIZE, &before));
	limit = (struct rlimit){SMALL_BYTES - 1, before.rlim_max};
	GOOD(setrlimit(RLIMIT_FSIZE, &limit));
	EXPECT(-EFBIG, cow_open(s->other_path, NULL, &volume));
	EXPECT(-EFBIG, cow_repair(s->other_path, NULL, &repaired));
	EXPECT(-EFBIG, cow_repair_undo(s->other_path, "/nowhere/undo"));
	GOOD(cow_open(s->other_path, &only_look, &volume));
	GOOD(setrlimit(RLIMIT_FSIZE, &before));
	/* those who only read may be several */
	GOOD(cow_check(s->other_path, NULL, &checked));
	EXPECT(COW_ERR_BUSY, cow_repair(s->other_path, NULL, &repaired));
	GOOD(cow_close(volume));
	open_image(s->other_path, false, &s->other_volume, &s->other);
}

/* What is there to all that read an image. */
static void expect_all(const char *path, int error)
{
	struct cow_check_result checked;
	struct cow_repair_result repaired;
	struct cow_volume *volume;

	EXPECT(error, cow_open(path, &(struct cow_open_options){.log = ignore_log}, &volume));
	EXPECT(error, cow_check(path, NULL, &checked));
	EXPECT(error, cow_repair(path, NULL, &repaired));
	if (error != COW_ERR_SHORT) /* it prints what is there */
		EXPECT(error, cow_dump(path, "tree", no_line, NULL));
}

static void flip_byte(int fd, off_t at)
{
	unsigned char byte;

	GOOD(pread(fd, &byte, 1, at));
	byte ^= 1;
	GOOD(pwrite(fd, &byte, 1, at));
}

/* Every block that begins so: in the middle, so that it begins so still. */
static unsigned damage_blocks(const char *path, const char *begin)
{
	char bytes[8];
	int fd = open(path, O_RDWR);
	unsigned count = 0;

	for (off_t at = 0; pread(fd, bytes, sizeof(bytes), at) == sizeof(bytes); at += BLOCK)
		if (memcmp(bytes, begin, sizeof(bytes)) == 0) {
			flip_byte(fd, at + 200);
			count++;
		}
	close(fd);
	return count;
}

/* As a later version would write them: format 2, in every copy of the superblock (doc/FORMAT.md, "Superblock"). */
static void make_newer(const char *path)
{
	unsigned char sector[512];
	int fd = open(path, O_RDWR);

	for (off_t at = 0; pread(fd, sector, sizeof(sector), at) == sizeof(sector); at += BLOCK) {
		if (memcmp(sector, "cowlinks", 8) != 0)
			continue;
		sector[16] = (unsigned char)(cow_format_version() + 1);
		XXH64_hash_t sum = XXH3_64bits(sector + 16, sizeof(sector) - 16);
		for (unsigned i = 0; i < 8; i++)
			sector[8 + i] = (unsigned char)(sum >> 8 * i);
		GOOD(pwrite(fd, sector, sizeof(sector), at));
	}
	close(fd);
}

static void test_images(void **state)
{
	struct scene *s = *state;
	char path[128];

	snprintf(path, sizeof(path), "%s/bad", s->folder);
	format(path, SMALL_BYTES);
	make_newer(path);
	expect_all(path, COW_ERR_NEWER);
	GOOD(truncate(path, 0));
	format(path, SMALL_BYTES);
	GOOD(truncate(path, SMALL_BYTES / 2));
	expect_all(path, COW_ERR_SHORT);
	GOOD(truncate(path, SMALL_BYTES));
	assert_int_not_equal(damage_blocks(path, "cowlinks"), 0);
	expect_all(path, COW_ERR_DAMAGED);
	GOOD(truncate(path, 0));
	GOOD(truncate(path, SMALL_BYTES));
	expect_all(path, COW_ERR_NOT_VOLUME);
	unlink(path);
	expect_all(path, -ENOENT);
}

static void test_dump(void **state)
{
	struct scene *s = *state;
	char path[128];

	snprintf(path, sizeof(path), "%s/dumped", s->folder);
	format(path, SMALL_BYTES);
	EXPECT(-EINVAL, cow_dump(path, "everything", no_line, NULL));
	EXPECT(-EINVAL, cow_dump(path, "block 4096", no_line, NULL));
	EXPECT(-ENOENT, cow_dump(path, "tree /none", no_line, NULL));
	unlink(path);
}

static void test_dump_of_a_file(void **state)
{
	struct scene *s = *state;
	struct cow_volume *volume;
	struct cow_inode *root;
	char path[128], what[COW_NAME_MAX + 10];

	snprintf(path, sizeof(path), "%s/dumped", s->folder);
	format(path, SMALL_BYTES);
	open_image(path, false, &volume, &root);
	cow_forget(made(root, "file", S_IFREG | 0644), 1);
	GOOD(cow_close(volume));
	snprintf(what, sizeof(what), "tree /%s", s->long_name);
	EXPECT(-ENOTDIR, cow_dump(path, "tree /file/inner", no_line, NULL));
	EXPECT(-ENAMETOOLONG, cow_dump(path, what, no_line, NULL));
	unlink(path);
}

static void test_bad_data(void **state)
{
	static char bytes[2 * BLOCK] = "0123456789abcdef", back[2 * BLOCK];
	struct scene *s = *state;
	struct cow_volume *volume;
	struct cow_inode *root, *file;
	char path[128];

	snprintf(path, sizeof(path), "%s/bad", s->folder);
	format(path, SMALL_BYTES);
	open_image(path, false, &volume, &root);
	file = made(root, "file", S_IFREG | 0644);
	GOOD(cow_write(file, bytes, sizeof(bytes), 0, false));
	GOOD(cow_close(volume));
	assert_int_equal(damage_blocks(path, "01234567"), 1);
	open_image(path, false, &volume, &root);
	file = found(root, "file");
	EXPECT(-EIO, cow_read(file, back, sizeof(back), 0));
	EXPECT(-EIO, cow_write(file, bytes, 1, 1, false)); /* the rest of the block would have to be kept */
	EXPECT(BLOCK, cow_read(file, back, BLOCK, BLOCK));
	GOOD(cow_close(volume));
	unlink(path);
}

/* ------------------------------------------------------------------ a call that has changed something and failed */

static uint64_t block_after(const char *text, const char *word)
{
	const char *at = strstr(text, word);

	return at != NULL ? strtoull(at + strlen(word), NULL, 10) : 0;
}

/* "tree block N" of a file's line: the top node of its map. */
static void note_top(void *block, const char *text)
{
	if (*(uint64_t *)block == 0)
		*(uint64_t *)block = block_after(text, "tree block ");
}

struct leaves {
	uint64_t blocks[16];
	unsigned count;
};

static void note_leaf(void *context, const char *text)
{
	struct leaves *l = context;

	if (strstr(text, "from key ") != NULL && l->count < 16)
		l->blocks[l->count++] = block_after(text, ": block ");
}

/* A file of single blocks and holes in turn, so that its map is a tree of several leaves; the middle one is damaged. */
static void make_damaged_map(const char *path, unsigned blocks)
{
	struct leaves leaves = {.count = 0};
	struct cow_volume *volume;
	struct cow_inode *root, *file;
	char bytes[BLOCK] = "data", what[32];
	uint64_t top = 0;
	int fd;

	format(path, SMALL_BYTES);
	open_image(path, false, &volume, &root);
	file = made(root, "file", S_IFREG | 0644);
	for (unsigned i = 0; i < blocks; i++)
		GOOD(cow_write(file, bytes, sizeof(bytes), 2ull * BLOCK * i, false));
	GOOD(cow_close(volume));
	GOOD(cow_dump(path, "tree /file", note_top, &top));
	snprintf(what, sizeof(what), "block %llu", (unsigned long long)top);
	GOOD(cow_dump(path, what, note_leaf, &leaves));
	assert_true(leaves.count >= 3);
	fd = open(path, O_RDWR);
	flip_byte(fd, (off_t)leaves.blocks[leaves.count / 2] * BLOCK + 200);
	close(fd);
}

static bool same_times(const struct cow_attr *a, const struct cow_attr *b)
{
	return a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec == b->mtime.tv_nsec &&
	       a->ctime.tv_sec == b->ctime.tv_sec && a->ctime.tv_nsec == b->ctime.tv_nsec;
}

/*
 * The one call of which cow.h says that it may have done a part: the hole is there up to the damage, and no further.
 * The size stays, and so do the times.
 */
static void test_half_a_hole(void **state)
{
	enum { BLOCKS = 1000 };
	const uint64_t last = 2ull * BLOCK * (BLOCKS - 1);
	struct scene *s = *state;
	struct cow_attr before, after;
	struct cow_volume *volume;
	struct cow_inode *root, *file;
	char path[128], bytes[4];

	snprintf(path, sizeof(path), "%s/holes", s->folder);
	make_damaged_map(path, BLOCKS);
	open_image(path, false, &volume, &root);
	GOOD(cow_lookup(root, "file", &file, &before));
	after.size = last / 2;
	EXPECT(COW_ERR_DAMAGED, cow_setattr(file, &after, COW_SET_SIZE, NULL)); /* all or nothing */
	GOOD(cow_getattr(file, &after));
	assert_true(after.size == before.size && after.blocks == before.blocks && same_times(&after, &before));
	EXPECT(COW_ERR_DAMAGED, cow_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, last));
	EXPECT(COW_ERR_DAMAGED, cow_read(file, bytes, sizeof(bytes), 0)); /* a hole, and next in the map the damage */
	GOOD(cow_read(file, bytes, sizeof(bytes), last - 2 * BLOCK));
	assert_memory_equal(bytes, "data", 4);
	GOOD(cow_getattr(file, &after));
	assert_true(after.blocks < before.blocks && after.blocks > before.blocks / 4);
	assert_true(after.size == before.size && same_times(&after, &before));
	GOOD(cow_close(volume));
	unlink(path);
}

static void test_full(void **state)
{
	struct scene *s = *state;
	struct cow_inode *file = made(s->other, "file", S_IFREG | 0644);
	char *bytes = calloc(1, 1 << 20), name[32];
	int64_t result = 0;

	for (uint64_t at = 0; result >= 0; at += 1 << 20) {
		assert_true(at < SMALL_BYTES);
		result = cow_write(file, bytes, 1 << 20, at, false);
	}
	EXPECT(-ENOSPC, result);
	result = 0;
	for (unsigned i = 0; result == 0; i++) {
		assert_true(i < SMALL_BYTES / 128);
		snprintf(name, sizeof(name), "%u", i);
		result = cow_create(s->other, name, &plain, NULL, NULL);
	}
	EXPECT(-ENOSPC, result);
	EXPECT(-ENOSPC, cow_link(file, s->other, "new", NULL));
	EXPECT(-ENOSPC, cow_clone(s->other, s->other, "new", 0, NULL, NULL));
	GOOD(cow_unlink(s->other, "file")); /* what gives space back is possible */
	GOOD(cow_drain(s->other_volume));
	GOOD(cow_create(s->other, "new", &plain, NULL, NULL));
	free(bytes);
}

/* ------------------------------------------------------------------ repair, fork */

static void test_repair(void **state)
{
	struct scene *s = *state;
	struct cow_repair_result repaired;
	struct cow_repair_options options = {0};
	char path[128], undo[128];
	int fd;

	snprintf(path, sizeof(path), "%s/repaired", s->folder);
	snprintf(undo, sizeof(undo), "%s/undo", s->folder);
	make_damaged_map(path, 1000);
	options.undo_path = s->other_path;
	EXPECT(-EEXIST, cow_repair(path, &options, &repaired));
	EXPECT(-EINVAL, cow_repair_undo(path, s->path)); /* a file, but no undo file */
	options.undo_path = undo;
	GOOD(cow_repair(path, &options, &repaired));
	assert_true(repaired.written && repaired.left == 0);
	GOOD(cow_repair_undo(path, undo));
	fd = open(undo, O_RDWR);
	flip_byte(fd, 20); /* in its head, which has a checksum */
	EXPECT(COW_ERR_DAMAGED, cow_repair_undo(path, undo));
	flip_byte(fd, 20);
	close(fd);
	GOOD(truncate(path, 0));
	GOOD(truncate(path, SMALL_BYTES));
	EXPECT(COW_ERR_NOT_VOLUME, cow_repair_undo(path, undo));
	format(path, SMALL_BYTES);
	EXPECT(-ESTALE, cow_repair_undo(path, undo)); /* another volume */
	make_newer(path);
	EXPECT(COW_ERR_NEWER, cow_repair_undo(path, undo));
	unlink(path);
	unlink(undo);
}

/* An image that was open during a fork stays locked as long as the child lives. */
static void test_fork(void **state)
{
	struct scene *s = *state;
	struct cow_volume *volume;
	int hold[2], status;
	char byte;
	pid_t child;

	GOOD(pipe(hold));
	child = fork();
	GOOD(child);
	if (child == 0) {
		close(hold[1]);
		_exit(read(hold[0], &byte, 1) == 0 ? 0 : 1);
	}
	close(hold[0]);
	GOOD(cow_close(s->other_volume));
	EXPECT(COW_ERR_BUSY, cow_open(s->other_path, NULL, &volume));
	close(hold[1]);
	GOOD(waitpid(child, &status, 0));
	assert_int_equal(status, 0);
	open_image(s->other_path, false, &s->other_volume, &s->other);
}

/*
 * NOT PROVOKED: 2^31 clones; 8 million changes; a block device, or an image made to fit.
 *
 *     cow_clone: EMLINK
 *     cow_clone_over: EMLINK
 *     cow_copy_range: EMLINK
 *     cow_diff: E2BIG
 *     cow_format: ENOSPC
 *     cow_open: ENOSPC
 *     cow_remove_tree: EMLINK
 *     cow_rename: EMLINK
 *     cow_repair: ENOSPC
 *     cow_same: E2BIG
 */
int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_attributes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_handles, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_lookup, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_create, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_link, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_link_of_an_orphan, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_many_links, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_remove, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_rename, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_readlink, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_read_and_write, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_allocate_and_seek, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_copy_range, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_xattr, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_many_xattrs, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_clone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_clone_over, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_compare, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_format, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_open, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_images, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_dump, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_dump_of_a_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bad_data, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_repair, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_fork, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_half_a_hole, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_full, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
