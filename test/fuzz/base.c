/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes the base images: build/fuzz/base test/fuzz/base.blind test/fuzz/base.true. They are in the tree because the
 * corpus speaks of their nodes; whoever makes new ones makes a new corpus too (classics).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <linux/falloc.h>

#include "base/mem.h"
#include "cow.h"
#include "fs/commit/commit.h"
#include "fs/core/volume.h"
#include "fs/mkfs.h"
#include "fs/open.h"
#include "store/counts_disk.h"
#include "store/super.h"
#include "test/fuzz/fuzz.h"
#include "test/lib/memdev.h"

#define BYTES (16ull << 20)
#define BLOCKS (BYTES / COW_BLOCK)

static void must(bool ok)
{
	if (!ok)
		abort();
}

static struct cow_inode *make(struct cow_inode *dir, const char *name, uint32_t mode, const char *target)
{
	struct cow_new new_inode = {.mode = mode, .target = target, .rdev = S_ISCHR(mode) ? 0x501 : 0};
	struct cow_inode *inode;

	must(cow_create(dir, name, &new_inode, &inode, NULL) == 0);
	return inode;
}

static void put(struct cow_inode *dir, const char *name, uint32_t mode, const char *target)
{
	cow_forget(make(dir, name, mode, target), 1);
}

static struct cow_inode *get(struct cow_inode *dir, const char *name)
{
	struct cow_inode *inode;
	struct cow_attr attr;

	must(cow_lookup(dir, name, &inode, &attr) == 0);
	return inode;
}

static void fill(struct cow_inode *file, size_t length, uint64_t offset)
{
	static char bytes[65536];

	bytes[0] = 'x';
	must(cow_write(file, bytes, length, offset, false) == (int64_t)length);
}

static void fill_kind(struct cow_inode *f, int kind)
{
	static const char value[2500] = "value";

	switch (kind) {
	case 0: /* one hole */
		must(cow_setattr(f, &(struct cow_attr){.size = 100000}, COW_SET_SIZE, NULL) == 0);
		break;
	case 1:
		fill(f, 50, 0);
		must(cow_setxattr(f, "user.short", value, 20, 0) == 0);
		break;
	case 2:
		fill(f, 9000, 0);
		must(cow_setxattr(f, "user.long", value, sizeof(value), 0) == 0);
		must(cow_setxattr(f, "user.more", value, 10, 0) == 0);
		break;
	case 3:
		fill(f, 4096, 0);
		fill(f, 4096, 40960);
		break;
	case 4: /* a tree with an inner node */
		for (uint64_t i = 0; i < 180; i++)
			fill(f, 4096, i * 16384);
		must(cow_fallocate(f, 0, 200 * 16384, 40960) == 0);
		break;
	case 5:
		must(cow_setattr(f, &(struct cow_attr){.uid = 7, .mode = S_IFREG | 04755},
				 COW_SET_UID | COW_SET_MODE, NULL) == 0);
		break;
	}
}

static void make_files(struct cow_inode *root)
{
	struct cow_inode *dir = make(root, "files", S_IFDIR | 0755, NULL), *f;
	char name[256], target[1500];

	for (int i = 0; i < 48; i++) {
		snprintf(name, sizeof(name), "file-%d", i);
		if (i >= 12) { /* long names: a tree of several leaves */
			memset(name + strlen(name), '-', 180);
			name[180] = 0;
		}
		f = make(dir, name, S_IFREG | 0644, NULL);
		fill_kind(f, i < 12 ? i % 6 : 5);
		cow_forget(f, 1);
	}
	memset(target, 't', sizeof(target) - 1);
	target[sizeof(target) - 1] = 0;
	put(dir, "symlink", S_IFLNK | 0777, "target");
	put(dir, "long-symlink", S_IFLNK | 0777, target);
	put(dir, "fifo", S_IFIFO | 0600, NULL);
	put(dir, "null", S_IFCHR | 0600, NULL);
	put(dir, "socket", S_IFSOCK | 0600, NULL);
	cow_forget(dir, 1);
}

static void make_links(struct cow_inode *root)
{
	struct cow_inode *a = make(root, "links", S_IFDIR | 0755, NULL), *b = make(a, "deep", S_IFDIR | 0755, NULL), *f;
	char name[32];

	f = make(b, "linked", S_IFREG | 0644, NULL);
	fill(f, 10000, 0);
	must(cow_link(f, a, "other", NULL) == 0);
	cow_forget(f, 1);
	f = make(b, "many", S_IFREG | 0644, NULL);
	for (int i = 0; i < 80; i++) {
		snprintf(name, sizeof(name), "name-%d", i);
		must(cow_link(f, b, name, NULL) == 0);
	}
	cow_forget(f, 1);
	f = make(a, "holes", S_IFREG | 0644, NULL);
	fill_kind(f, 4);
	must(cow_link(f, b, "holes-too", NULL) == 0);
	cow_forget(f, 1);
	cow_forget(b, 1);
	cow_forget(a, 1);
}

static void make_clones(struct cow_inode *root)
{
	struct cow_inode *links = get(root, "links"), *clone, *snapshot, *inner, *deep, *dir;

	must(cow_clone(links, root, "clone", 0, &clone, NULL) == 0);
	cow_forget(get(clone, "other"), 1);
	deep = get(clone, "deep");
	cow_forget(get(deep, "linked"), 1);
	must(cow_clone(deep, clone, "inner", 0, &inner, NULL) == 0);
	put(inner, "new", S_IFREG | 0600, NULL);
	put(clone, "new", S_IFREG | 0600, NULL);
	must(cow_rename(clone, "new", root, "came", 0) == 0); /* with a tag */
	put(clone, "dir", S_IFDIR | 0700, NULL);
	dir = get(clone, "dir");
	put(dir, "below", S_IFDIR | 0700, NULL);
	put(dir, "file", S_IFREG | 0600, NULL);
	cow_forget(dir, 1);
	must(cow_rename(clone, "dir", root, "came-too", 0) == 0);
	must(cow_clone(root, root, "snapshot", COW_CLONE_READ_ONLY, &snapshot, NULL) == 0);
	cow_forget(get(snapshot, "links"), 1);
	cow_forget(get(snapshot, "clone"), 1);
	cow_forget(snapshot, 1);
	cow_forget(inner, 1);
	cow_forget(deep, 1);
	cow_forget(clone, 1);
	cow_forget(links, 1);
}

static struct cow_inode *make_orphan(struct cow_inode *root)
{
	struct cow_inode *f = make(root, "orphan", S_IFREG | 0600, NULL);

	fill(f, 5000, 0);
	must(cow_hold(f) == 0);
	must(cow_unlink(root, "orphan") == 0);
	return f;
}

/* What only the intent log knows. */
static struct cow_inode *make_late(struct cow_inode *root)
{
	struct cow_inode *late = make(root, "late", S_IFREG | 0600, NULL), *other = get(root, "came");

	fill(late, 6000, 100);
	must(cow_setxattr(late, "user.late", "late", 4, 0) == 0);
	must(cow_link(late, root, "late-too", NULL) == 0);
	must(cow_fsync(late) == 0);
	must(cow_rename(root, "came", root, "went", 0) == 0);
	put(root, "late-dir", S_IFDIR | 0700, NULL);
	put(root, "late-link", S_IFLNK | 0777, "target");
	must(cow_rmdir(root, "late-dir") == 0);
	must(cow_unlink(root, "late-too") == 0);
	fill(other, 100, 0);
	must(cow_fsync(other) == 0);
	cow_forget(other, 1);
	return late;
}

static int mark(void *context, uint64_t index, const uint32_t counts[COW_PIECE_BLOCKS])
{
	uint8_t *used = context;

	for (unsigned i = 0; i < COW_PIECE_BLOCKS; i++)
		used[index * COW_PIECE_BLOCKS + i] = counts[i] != 0;
	return 0;
}

static void bad(void *context, int level, uint64_t index, const char *wrong)
{
	(void)context, (void)level, (void)index, (void)wrong;
	abort();
}

static void save(struct cow_dev *dev, const char *path)
{
	static uint8_t used[BLOCKS];
	struct cow_super super;
	bool decayed;

	must(cow_super_read(dev, &super, &decayed) == 0);
	must(cow_counts_scan(dev, super.total_blocks, &super.counts, mark, bad, used) == 0);
	must(fuzz_disk_save(dev, used, BLOCKS, path) == 0);
}

static void make_base(const char *path)
{
	struct cow_open_options options = {.no_threads = true};
	struct cow_format_options format = {.uuid = {1}};
	struct memdev *memory = memdev_new(BYTES);
	struct cow_volume *volume;
	struct cow_inode *root, *orphan, *gone, *late;
	struct cow_dev *dev;

	must(cow_volume_format(memdev_attach(memory), &format) == 0);
	must(cow_volume_open(memdev_attach(memory), &options, &volume) == 0);
	must(cow_root(volume, &root) == 0);
	make_files(root);
	make_links(root);
	must(cow_sync(volume) == 0);
	make_clones(root);
	orphan = make_orphan(root);
	gone = make(root, "gone", S_IFDIR | 0700, NULL);
	for (int i = 0; i < 30; i++) {
		char name[32];

		snprintf(name, sizeof(name), "dead-%d", i);
		put(gone, name, S_IFREG | 0600, NULL);
	}
	cow_forget(gone, 1);
	must(cow_sync(volume) == 0);
	must(cow_remove_tree(root, "gone") == 0);
	must(cow_volume_commit(volume, NULL, NULL) == 0); /* and no reclaim: it waits in the queue */
	late = make_late(root);
	dev = memdev_attach(memory);
	save(dev, path);
	cow_forget(late, 1);
	cow_dev_close(dev);
	cow_release(orphan);
	cow_forget(orphan, 1);
	cow_forget(root, 1);
	must(cow_close(volume) == 0);
	memdev_free(memory);
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		fprintf(stderr, "usage: base BLIND TRUE\n");
		return 2;
	}
	fuzz_blind = true;
	make_base(argv[1]);
	fuzz_blind = false;
	make_base(argv[2]);
	return 0;
}
