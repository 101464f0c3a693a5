/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/rich.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/mem.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "test/lib/content.h"
#include "test/lib/simdisk.h"

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "rich volume: %s\n", what);
	abort();
}
#define MUST(call) must((call) == 0, #call)

static struct cow_inode *make(struct cow_inode *dir, const char *name, uint32_t mode)
{
	struct cow_inode *inode;

	MUST(cow_create(dir, name, &(struct cow_new){.mode = mode, .uid = 7, .gid = 8}, &inode, NULL));
	return inode;
}

static void fill(struct cow_inode *file, uint64_t seed, size_t length, uint64_t offset)
{
	char *bytes = cow_mem_new(length + 1);

	content_pattern(seed, offset, bytes, length);
	must(cow_write(file, bytes, length, offset, false) == (int64_t)length, "write");
	free(bytes);
}

static void file(struct cow_inode *dir, const char *name, uint64_t seed, size_t length)
{
	struct cow_inode *f = make(dir, name, S_IFREG | 0644);

	fill(f, seed, length, 0);
	cow_forget(f, 1);
}

static void symlink_of(struct cow_inode *dir, const char *name, size_t length)
{
	char target[COW_SYMLINK_MAX + 1];

	memset(target, 'a' + (int)(length % 26), length);
	target[length] = 0;
	MUST(cow_create(dir, name, &(struct cow_new){.mode = S_IFLNK | 0777, .target = target}, NULL, NULL));
}

static void xattr(struct cow_inode *dir, const char *name, const char *key, size_t length)
{
	char *bytes = cow_mem_new(length + 1);
	struct cow_inode *inode;

	content_pattern(length, 0, bytes, length);
	MUST(cow_lookup(dir, name, &inode, NULL));
	MUST(cow_setxattr(inode, key, bytes, length, 0));
	cow_forget(inode, 1);
	free(bytes);
}

static void make_files(struct cow_inode *d)
{
	static const size_t lengths[] = {0, 1, 100, 511, 512, 513, 4095, 4096, 4097, 20000, 65536, 300001};
	struct cow_inode *f;
	char name[32];

	for (unsigned i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		snprintf(name, sizeof(name), "of-%zu", lengths[i]);
		file(d, name, i + 1, lengths[i]);
	}
	f = make(d, "many-extents", S_IFREG | 0600);
	for (unsigned k = 0; k < 200; k++)
		fill(f, 50 + k, 2000 + k * 7, (uint64_t)k * 9000);
	cow_forget(f, 1);
	f = make(d, "sparse", S_IFREG | 0600);
	fill(f, 40, 5000, 200000);
	fill(f, 41, 5000, 500000);
	cow_forget(f, 1);
	f = make(d, "unwritten", S_IFREG | 0600);
	MUST(cow_fallocate(f, 0, 0, 100000));
	fill(f, 42, 9000, 40000);
	cow_forget(f, 1);
	f = make(d, "hole", S_IFREG | 0600);
	MUST(cow_setattr(f, &(struct cow_attr){.size = 200000}, COW_SET_SIZE, NULL));
	cow_forget(f, 1);
	symlink_of(d, "short-link", 11);
	symlink_of(d, "long-link", 3999);
	MUST(cow_create(d, "device", &(struct cow_new){.mode = S_IFCHR | 0600, .rdev = makedev(5, 1)}, NULL, NULL));
	cow_forget(make(d, "fifo", S_IFIFO | 0640), 1);
	cow_forget(make(d, "socket", S_IFSOCK | 0640), 1);
	xattr(d, "of-100", "user.short", 20);
	xattr(d, "of-20000", "user.long", 9000);
	xattr(d, "of-20000", "user.more", 300);
	xattr(d, "long-link", "user.long", 500);
}

static void make_many(struct cow_inode *root)
{
	struct cow_inode *d = make(root, "many", S_IFDIR | 0755), *below;
	char name[120];

	for (unsigned i = 0; i < 250; i++) {
		snprintf(name, sizeof(name),
			 "a name that is long, so that there are many leaves, with number %u at the end",
			 i);
		file(d, name, 500 + i, i % 5 * 200);
	}
	xattr(root, "many", "user.dir", 200);
	below = make(d, "deep", S_IFDIR | 0700);
	cow_forget(d, 1);
	for (unsigned i = 0; i < 6; i++) {
		d = make(below, "deeper", S_IFDIR | 0700);
		file(below, "file", 800 + i, 6000);
		cow_forget(below, 1);
		below = d;
	}
	cow_forget(below, 1);
}

static void make_links(struct cow_inode *root)
{
	struct cow_inode *a = make(root, "links", S_IFDIR | 0755), *b = make(a, "inside", S_IFDIR | 0755), *f;
	char name[32];

	for (unsigned i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "linked-%u", i);
		f = make(b, name, S_IFREG | 0644);
		fill(f, 900 + i, i * 1700, 0);
		MUST(cow_link(f, i % 2 == 0 ? a : root, name, NULL));
		cow_forget(f, 1);
	}
	f = make(b, "often", S_IFREG | 0644);
	fill(f, 950, 300, 0);
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "name-%u", i);
		MUST(cow_link(f, b, name, NULL));
	}
	cow_forget(f, 1);
	xattr(b, "linked-4", "user.long", 2000);
	cow_forget(b, 1);
	cow_forget(a, 1);
}

static struct cow_inode *look(struct cow_inode *dir, const char *name)
{
	struct cow_inode *inode;
	struct cow_attr attr;

	MUST(cow_lookup(dir, name, &inode, &attr)); /* with attributes: a number is made in each world */
	return inode;
}

static void make_clones(struct cow_inode *root)
{
	struct cow_inode *links = look(root, "links"), *files = look(root, "files"), *c, *d, *f;

	MUST(cow_clone(links, root, "clone", 0, &c, NULL));
	d = look(c, "inside");
	cow_forget(look(d, "linked-3"), 1);
	file(d, "new", 960, 5000);
	f = look(d, "linked-2");
	fill(f, 961, 3000, 1000);
	cow_forget(f, 1);
	MUST(cow_unlink(d, "linked-4"));
	MUST(cow_clone(files, d, "nested", 0, NULL, NULL));
	cow_forget(look(d, "nested"), 1);
	cow_forget(d, 1);
	f = look(files, "many-extents");
	MUST(cow_clone(f, c, "file-clone", 0, NULL, NULL));
	cow_forget(f, 1);
	MUST(cow_clone(c, root, "clone-of-clone", 0, NULL, NULL));
	d = look(root, "clone-of-clone");
	file(d, "added", 962, 100);
	cow_forget(d, 1);
	cow_forget(c, 1);
	MUST(cow_clone(root, root, "snapshot", COW_CLONE_READ_ONLY, NULL, NULL));
	f = look(files, "many-extents"); /* no longer as in the snapshot */
	fill(f, 970, 30000, 77777);
	cow_forget(f, 1);
	MUST(cow_unlink(files, "of-4096"));
	cow_forget(links, 1);
	cow_forget(files, 1);
}

/* Inode numbers are given when a world is first entered: all are to be on disk. */
static int enter(void *context, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	(void)context, (void)attr;
	if (S_ISDIR(entry->mode))
		MUST(cow_list(inode, 0, true, enter, NULL));
	cow_forget(inode, 1);
	return 0;
}

/* What is only for the moment in which the power goes: inodes without a name, and a tree in the reclaim queue. */
static void make_litter(struct cow_inode *root, struct cow_inode *open[2])
{
	struct cow_inode *d = make(root, "removed", S_IFDIR | 0755);
	char name[32];

	for (unsigned i = 0; i < 150; i++) {
		snprintf(name, sizeof(name), "gone-%u", i);
		file(d, name, 1000 + i, i * 100);
	}
	cow_forget(d, 1);
	MUST(cow_create(root, NULL, &(struct cow_new){.mode = S_IFREG | 0600}, &open[0], NULL));
	fill(open[0], 980, 30000, 0);
	open[1] = make(root, "unlinked", S_IFREG | 0600);
	MUST(cow_hold(open[1]));
	for (unsigned k = 0; k < 100; k++)
		fill(open[1], 981, 1000, k * 10000);
}

/* One record: of a new file, and of a file that was there. */
static void make_log(struct cow_inode *root)
{
	struct cow_inode *f = make(root, "logged", S_IFREG | 0600), *d;

	fill(f, 995, 9000, 0);
	cow_forget(f, 1);
	d = look(root, "files");
	f = look(d, "of-20000");
	fill(f, 996, 700, 5000);
	MUST(cow_rename(root, "logged", root, "logged-2", 0));
	MUST(cow_rename(root, "logged-2", root, "logged", 0));
	MUST(cow_fsync(f));
	cow_forget(f, 1);
	cow_forget(d, 1);
}

static struct cow_dev *build(bool logged)
{
	struct cow_open_options options = {.no_threads = true};
	struct cow_dev *sim = simdisk_format(RICH_BYTES), *image;
	struct cow_inode *root, *d, *open[2];
	struct cow_volume *volume;

	MUST(cow_volume_open(simdisk_attach(sim), &options, &volume));
	MUST(cow_root(volume, &root));
	d = make(root, "files", S_IFDIR | 0755);
	make_files(d);
	cow_forget(d, 1);
	make_many(root);
	make_links(root);
	MUST(cow_sync(volume));
	make_clones(root);
	make_litter(root, open);
	MUST(cow_sync(volume));
	MUST(cow_drain(volume));
	MUST(cow_remove_tree(root, "removed"));
	MUST(cow_unlink(root, "unlinked"));
	file(root, "last", 990, 10000);
	MUST(cow_list(root, 0, true, enter, NULL));
	MUST(cow_sync(volume));
	if (logged)
		make_log(root);
	image = cow_sim_copy(sim);
	for (unsigned i = 0; i < 2; i++) {
		cow_release(open[i]);
		cow_forget(open[i], 1);
	}
	cow_forget(root, 1);
	MUST(cow_close(volume));
	cow_dev_close(sim);
	return image;
}

struct cow_dev *rich_volume(void)
{
	return build(false);
}

struct cow_dev *rich_volume_logged(bool logged)
{
	return build(logged);
}
