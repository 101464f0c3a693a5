/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/sample.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/mkfs.h"
#include "fs/open.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

static struct cow_inode *make(struct cow_inode *dir, const char *name, uint32_t mode)
{
	struct cow_inode *inode;

	must(cow_create(dir, name, &(struct cow_new){.mode = mode, .target = "target"}, &inode, NULL) == 0);
	return inode;
}

static void fill(struct cow_inode *file, size_t length, uint64_t offset, int value)
{
	char *bytes = cow_mem_new(length + 1);

	memset(bytes, value, length);
	must(cow_write(file, bytes, length, offset, false) == (int64_t)length);
	free(bytes);
}

static void make_files(struct cow_inode *dir)
{
	static const char xattr[700] = "value";
	char name[32];

	for (int i = 0; i < 40; i++) {
		struct cow_inode *f;

		snprintf(name, sizeof(name), "file-%d", i);
		f = make(dir, name, S_IFREG | 0644);
		fill(f, (size_t)i * i * 13, 0, i);
		if (i % 10 == 3)
			must(cow_setxattr(f, "user.long", xattr, sizeof(xattr), 0) == 0);
		if (i % 10 == 4) /* many extents: an extent tree */
			for (int k = 0; k < 60; k++)
				fill(f, 5000, (uint64_t)k * 100000, k + 1);
		cow_forget(f, 1);
	}
	cow_forget(make(dir, "symlink", S_IFLNK | 0777), 1);
	cow_forget(make(dir, "fifo", S_IFIFO | 0600), 1);
}

static void make_links(struct cow_inode *root)
{
	struct cow_inode *a, *b, *f;
	char name[32];

	a = make(root, "links", S_IFDIR | 0755);
	b = make(a, "deep", S_IFDIR | 0755);
	f = make(b, "linked", S_IFREG | 0644);
	fill(f, 10000, 0, 'l');
	must(cow_link(f, a, "other", NULL) == 0);
	cow_forget(f, 1);
	f = make(b, "many", S_IFREG | 0644);
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "name-%d", i);
		must(cow_link(f, b, name, NULL) == 0);
	}
	cow_forget(f, 1);
	cow_forget(b, 1);
	cow_forget(a, 1);
}

static void enter(struct cow_inode *dir, const char *name)
{
	struct cow_inode *inode;
	struct cow_attr attr;

	must(cow_lookup(dir, name, &inode, &attr) == 0);
	cow_forget(inode, 1);
}

static void make_clones(struct cow_inode *root)
{
	struct cow_inode *d, *c;

	must(cow_lookup(root, "links", &d, NULL) == 0);
	must(cow_clone(d, root, "clone", 0, &c, NULL) == 0);
	enter(c, "other");
	enter(c, "deep");
	cow_forget(make(c, "new", S_IFREG | 0600), 1);
	cow_forget(c, 1);
	must(cow_clone(root, root, "snapshot", COW_CLONE_READ_ONLY, &c, NULL) == 0);
	enter(c, "links");
	cow_forget(c, 1);
	cow_forget(d, 1);
}

struct cow_dev *sample_volume(void)
{
	struct cow_open_options options = {.no_threads = true};
	struct cow_format_options format = {.uuid = {1}};
	struct cow_dev *dev = cow_sim_new(SAMPLE_BYTES), *image;
	struct cow_volume *volume;
	struct cow_inode *root, *d;

	must(cow_volume_format(dev, &format) == 0);
	must(cow_volume_open(dev, &options, &volume) == 0);
	must(cow_root(volume, &root) == 0);
	d = make(root, "files", S_IFDIR | 0755);
	make_files(d);
	cow_forget(d, 1);
	make_links(root);
	make_clones(root);
	must(cow_sync(volume) == 0);
	image = cow_sim_copy(dev);
	cow_forget(root, 1);
	must(cow_close(volume) == 0);
	return image;
}
