/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/exercise.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/check.h"
#include "audit/repair.h"
#include "base/mem.h"
#include "cow.h"
#include "fs/core/volume.h"
#include "fs/open.h"

#define POOL 64
#define DEPTH 8

struct run {
	struct cow_volume *volume;
	struct cow_inode *root;
	uint64_t state;
	unsigned left;  /* entries to look at */
	unsigned depth; /* of the walk */
	unsigned seen, count;
	struct known { /* inodes that were found, and where; some of them */
		struct cow_inode *inode, *dir;
		char name[256];
	} pool[POOL];
};

static char buffer[70000];

static unsigned draw(struct run *r, unsigned below)
{
	r->state = r->state * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(r->state >> 33) % below;
}

static void ignore_log(void *context, enum cow_log_level level, const char *text)
{
	(void)context, (void)level;
	(void)!strlen(text);
}

/* ------------------------------------------------------------------ looking */

static void read_all(struct cow_inode *inode, const struct cow_attr *attr)
{
	static const char *const names[] = {"user.long", "user.short", "user.more"};
	char list[2000];
	int length;

	(void)!cow_read(inode, buffer, sizeof(buffer), 0);
	(void)!cow_read(inode, buffer, sizeof(buffer), attr->size > 100 ? attr->size - 100 : 0);
	(void)!cow_seek(inode, 0, SEEK_DATA);
	(void)!cow_seek(inode, 0, SEEK_HOLE);
	(void)!cow_seek(inode, attr->size / 2, SEEK_DATA);
	length = cow_readlink(inode, list, sizeof(list));
	length = cow_listxattr(inode, list, sizeof(list));
	for (int at = 0; length <= (int)sizeof(list) && at < length; at += (int)strlen(list + at) + 1)
		(void)!cow_getxattr(inode, list + at, buffer, sizeof(buffer));
	for (unsigned i = 0; i < 3; i++)
		(void)!cow_getxattr(inode, names[i], buffer, sizeof(buffer));
}

/* Every inode has the same chance to be kept. */
static void keep(struct run *r, struct cow_inode *inode, struct cow_inode *dir, const char *name)
{
	unsigned i = r->count < POOL ? r->count++ : draw(r, ++r->seen + POOL);
	struct known *k = &r->pool[i < POOL ? i : 0];

	if (i >= POOL)
		return;
	cow_forget(k->inode, 1);
	cow_forget(k->dir, 1);
	cow_ref(inode);
	cow_ref(dir);
	*k = (struct known){.inode = inode, .dir = dir};
	strcpy(k->name, name);
}

struct visit {
	struct run *run;
	struct cow_inode *dir;
};

static int look(void *context, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	struct visit *v = context, below = {v->run, inode};
	struct cow_inode *again;
	struct cow_attr other;

	if (v->run->left == 0)
		return 1; /* the reference goes back */
	v->run->left--;
	if (inode == NULL)
		return 0;
	if (cow_lookup(v->dir, entry->name, &again, &other) == 0)
		cow_forget(again, 1);
	keep(v->run, inode, v->dir, entry->name);
	if (S_ISDIR(entry->mode) && v->run->depth < DEPTH) {
		v->run->depth++;
		(void)!cow_list(inode, 0, true, look, &below);
		v->run->depth--;
		if (cow_parent(inode, &again) == 0)
			cow_forget(again, 1);
	} else {
		read_all(inode, attr);
	}
	cow_forget(inode, 1);
	return 0;
}

static int ignore_change(void *context, const struct cow_change *change)
{
	(void)!strlen(change->path);
	return --*(unsigned *)context == 0 ? 1 : 0;
}

static void compare(struct cow_inode *a, struct cow_inode *b)
{
	unsigned left = 2000;

	(void)!cow_diff(a, b, true, ignore_change, &left);
	left = 2000;
	(void)!cow_diff(a, b, false, ignore_change, &left);
	(void)!cow_same(a, b);
}

static void compare_names(struct run *r, const char *a, const char *b)
{
	struct cow_inode *x = NULL, *y = NULL;

	if (cow_lookup_path(r->volume, a, &x) == 0 && cow_lookup_path(r->volume, b, &y) == 0)
		compare(x, y);
	cow_forget(x, 1);
	cow_forget(y, 1);
}

static struct known *any(struct run *r)
{
	return &r->pool[draw(r, r->count)];
}

static void scrub(struct run *r)
{
	struct cow_scrub_options options = {0};
	struct cow_scrub_result result;

	(void)!cow_scrub(r->volume, &options, &result);
}

static void look_all(struct run *r)
{
	struct visit visit = {r, r->root};
	struct cow_info info;
	struct cow_usage usage;

	(void)!cow_list(r->root, 0, false, look, &visit);
	(void)!cow_list(r->root, 0, true, look, &visit);
	(void)!cow_info(r->volume, &info);
	(void)!cow_usage(r->root, true, &usage);
	scrub(r);
	compare_names(r, "/files", "/links");
	compare_names(r, "/links", "/clone");
	compare_names(r, "/clone", "/snapshot/clone");
	compare_names(r, "/snapshot", "/");
	for (unsigned i = 0; i < 5 && r->count > 0; i++) {
		(void)!cow_usage(any(r)->inode, true, &usage);
		compare(any(r)->inode, any(r)->inode);
	}
}

/* ------------------------------------------------------------------ changing */

static void change_file(struct run *r, struct cow_inode *f)
{
	uint64_t at = draw(r, 2) == 0 ? draw(r, 20000) : (uint64_t)draw(r, 1u << 30) << draw(r, 30);
	struct cow_attr attr = {.size = draw(r, 40000)};

	switch (draw(r, 8)) {
	case 0: (void)!cow_write(f, buffer, 1 + draw(r, sizeof(buffer)), at, true); break;
	case 1: (void)!cow_write(f, buffer, 1 + draw(r, 5000), draw(r, 20000), false); break;
	case 2: (void)!cow_setattr(f, &attr, COW_SET_SIZE, NULL); break;
	case 3: (void)!cow_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, 1 + draw(r, 100000)); break;
	case 4: (void)!cow_fallocate(f, FALLOC_FL_ZERO_RANGE, at, 1 + draw(r, 100000)); break;
	case 5: (void)!cow_fallocate(f, 0, at, 1 + draw(r, 100000)); break;
	case 6: (void)!cow_copy_range(f, 0, any(r)->inode, 0, UINT64_MAX >> 2); break;
	case 7: (void)!cow_copy_range(f, at & ~4095ull, any(r)->inode, draw(r, 20) * 4096, 1 + draw(r, 100000)); break;
	}
}

static void change_attr(struct run *r, struct cow_inode *inode)
{
	struct cow_attr attr = {.uid = draw(r, 3), .mode = draw(r, 01000), .mtime = {.tv_sec = draw(r, 1000)}}, out;

	switch (draw(r, 4)) {
	case 0: (void)!cow_setattr(inode, &attr, COW_SET_UID | COW_SET_MODE | COW_SET_MTIME, &out); break;
	case 1: (void)!cow_setxattr(inode, "user.new", buffer, draw(r, 3000), 0); break;
	case 2: (void)!cow_removexattr(inode, draw(r, 2) == 0 ? "user.long" : "user.short"); break;
	case 3: (void)!cow_fsync(inode); break;
	}
}

/* A directory: one that was found, or the root. */
static struct cow_inode *some_dir(struct run *r)
{
	struct known *k = any(r);
	struct cow_attr attr;

	if (cow_getattr(k->inode, &attr) == 0 && S_ISDIR(attr.mode))
		return k->inode;
	return draw(r, 2) == 0 ? k->dir : r->root;
}

static void make(struct run *r, struct cow_inode *dir, const char *name)
{
	static const uint32_t modes[] = {S_IFREG | 0644, S_IFREG | 0600, S_IFDIR | 0755, S_IFLNK | 0777,
					 S_IFIFO | 0600};
	struct cow_new new_inode = {.mode = modes[draw(r, 5)], .target = "target", .uid = draw(r, 2)};
	struct cow_inode *inode = NULL;
	struct cow_attr attr;

	if (cow_create(dir, name, &new_inode, &inode, &attr) != 0)
		return;
	if (S_ISREG(new_inode.mode))
		(void)!cow_write(inode, buffer, 1 + draw(r, 9000), 0, false);
	cow_forget(inode, 1);
}

static void change_names(struct run *r)
{
	struct known *k = any(r), *other = any(r);
	struct cow_inode *dir = some_dir(r);
	char name[16];

	snprintf(name, sizeof(name), "new-%u", draw(r, 8));
	switch (draw(r, 14)) {
	case 0:
	case 1: make(r, dir, name); break;
	case 2:
	case 3: (void)!cow_link(k->inode, dir, name, NULL); break;
	case 4: (void)!cow_unlink(k->dir, k->name); break;
	case 5: (void)!cow_rmdir(k->dir, k->name); break;
	case 6:
	case 7: (void)!cow_rename(k->dir, k->name, dir, name, 0); break;
	case 8: (void)!cow_rename(k->dir, k->name, other->dir, other->name, 0); break;
	case 9: (void)!cow_rename(k->dir, k->name, other->dir, other->name, COW_RENAME_EXCHANGE); break;
	case 10: (void)!cow_clone(k->inode, dir, name, draw(r, 4) == 0 ? COW_CLONE_READ_ONLY : 0, NULL, NULL); break;
	case 11: (void)!cow_clone_over(k->inode, other->dir, other->name, 0); break;
	case 12: (void)!cow_remove_tree(k->dir, k->name); break;
	case 13:
		if (cow_hold(k->inode) == 0) {
			(void)!cow_unlink(k->dir, k->name);
			change_file(r, k->inode);
			cow_release(k->inode);
		}
		break;
	}
}

static void change(struct run *r, unsigned changes)
{
	struct cow_usage usage;

	for (unsigned i = 0; i < changes && r->count > 0; i++) {
		switch (draw(r, 16)) {
		default: change_names(r); break;
		case 8:
		case 9:
		case 10:
		case 11: change_file(r, any(r)->inode); break;
		case 12: change_attr(r, any(r)->inode); break;
		case 13: compare(any(r)->inode, any(r)->inode); break;
		case 14: (void)!(draw(r, 4) == 0 ? cow_drain(r->volume) : cow_sync(r->volume)); break;
		case 15: (void)!cow_usage(any(r)->inode, true, &usage); break;
		}
	}
}

/* What every volume goes through, in this order, whatever was drawn. */
static void change_known(struct run *r)
{
	(void)!cow_rename(r->root, "links", r->root, "moved", 0);
	(void)!cow_clone(r->root, r->root, "again", 0, NULL, NULL);
	(void)!cow_sync(r->volume);
	(void)!cow_remove_tree(r->root, "files");
	(void)!cow_remove_tree(r->root, "snapshot");
	(void)!cow_remove_tree(r->root, "moved");
	(void)!cow_drain(r->volume);
}

/* ------------------------------------------------------------------ all of it */

void exercise_volume(struct cow_dev *dev, const struct exercise *e)
{
	struct cow_open_options options = {.read_only = !e->writable, .no_threads = true, .log = ignore_log,
					   .cache_bytes = e->cache_bytes, .dirty_bytes = 4u << 20};
	struct run *r;
	struct cow_volume *volume;

	if (cow_volume_open(dev, &options, &volume) != 0)
		return;
	r = cow_mem_new(sizeof(*r));
	r->volume = volume;
	r->state = e->seed * 2 + 1;
	r->left = e->looks != 0 ? e->looks : 3000;
	memset(buffer, 'b', sizeof(buffer));
	if (cow_root(volume, &r->root) == 0) {
		look_all(r);
		if (e->writable) {
			change(r, e->changes != 0 ? e->changes : 80);
			change_known(r);
		}
		for (unsigned i = 0; i < r->count; i++) {
			cow_forget(r->pool[i].inode, 1);
			cow_forget(r->pool[i].dir, 1);
		}
		cow_forget(r->root, 1);
	}
	(void)!cow_close(volume);
	free(r);
}

static void finding(void *context, const struct cow_finding *found)
{
	(void)context;
	(void)!strlen(found->text);
}

static void line(void *context, const char *text)
{
	(void)context;
	(void)!strlen(text);
}

void exercise_offline(struct cow_dev *dev)
{
	struct cow_check_options options = {.finding = finding, .data = true};
	struct cow_check_result result;

	(void)!cow_check_device(dev, &options, &result);
	(void)!cow_dump_device(dev, NULL, line, NULL);
}

static void lost(void *context, const struct cow_loss *loss)
{
	(void)context;
	(void)!strlen(loss->path);
}

void exercise_repair(struct cow_dev *dev)
{
	struct cow_repair_options options = {.finding = finding, .lost = lost};
	struct cow_repair_result result;

	(void)!cow_repair_device(dev, &options, &result);
}
