/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Many threads on one volume: some work in directories of their own, where the outcome is known, others fight over
 * shared names, clone what is being changed, and commit. Afterwards each private directory is as its thread left it,
 * every clone taken of one is a state that it once had, and the volume is sound. Meant for SAN=thread above all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "audit/check.h"
#include "cow.h"
#include "fs/core/volume.h"
#include "fs/mkfs.h"
#include "fs/open.h"
#include "test/lib/memdev.h"
#include "test/lib/op.h"

#define THREADS 4u
#define FILES 12u
#define PAGE 4096u

struct shared {
	struct cow_volume *volume;
	struct cow_inode *root, *common, *home[THREADS];
	atomic_uint bad;
	unsigned rounds;
	uint64_t seed;
};

struct worker {
	struct shared *shared;
	unsigned number;
	struct rng rng;
	struct cow_inode *home;
	int64_t version[FILES]; /* what each private file holds; -1: not there */
};

static void complain(struct shared *s, const char *what, int64_t result)
{
	fprintf(stderr, "races (seed %llu): %s: %lld\n", (unsigned long long)s->seed, what, (long long)result);
	atomic_fetch_add(&s->bad, 1);
}

/* In a race any of these is a fair answer. */
static bool fair(int64_t result)
{
	int e = result < 0 ? cow_error_errno((int)result) : 0;

	return e == 0 || e == ENOENT || e == EEXIST || e == ESTALE || e == ENOTEMPTY || e == EXDEV || e == EINVAL ||
	       e == EISDIR || e == ENOTDIR || e == EPERM || e == EROFS || e == EMLINK;
}

/* What a version of a private file is, whole: it says which one it is at its beginning. */
static void fill(uint8_t *bytes, unsigned thread, unsigned file, int64_t version)
{
	content_pattern((uint64_t)version * 1000 + thread * 50 + file, 0, bytes, PAGE);
	memcpy(bytes, &version, sizeof(version));
}

/* ------------------------------------------------------------------ private work: the outcome is certain */

/* A file is written whole, by one call, so that a clone holds one version of it or the other. */
static void write_private(struct worker *w, unsigned file)
{
	struct cow_new how = {.mode = S_IFREG | 0644};
	struct cow_inode *inode = NULL;
	uint8_t bytes[PAGE];
	char name[16];
	int64_t r;

	snprintf(name, sizeof(name), "f%u", file);
	r = w->version[file] < 0 ? cow_create(w->home, name, &how, &inode, NULL)
				 : cow_lookup(w->home, name, &inode, NULL);
	if (r < 0) {
		complain(w->shared, "private file", r);
		return;
	}
	w->version[file] = w->version[file] < 0 ? 1 : w->version[file] + 1;
	fill(bytes, w->number, file, w->version[file]);
	r = cow_write(inode, bytes, PAGE, 0, false);
	if (r != PAGE)
		complain(w->shared, "private write", r);
	cow_forget(inode, 1);
}

static void remove_private(struct worker *w, unsigned file)
{
	char name[16];
	int r;

	snprintf(name, sizeof(name), "f%u", file);
	r = cow_unlink(w->home, name);
	if ((w->version[file] < 0) != (r < 0))
		complain(w->shared, "private unlink", r);
	w->version[file] = -1;
}

static int count_entry(void *context, const struct cow_entry *entry, struct cow_inode *inode,
		       const struct cow_attr *attr)
{
	(void)entry;
	(void)inode;
	(void)attr;
	++*(unsigned *)context;
	return 0;
}

/* One file in `dir`, which is the home of `thread` or a clone of it. version 0: any that is whole, or none. */
static bool check_file(struct shared *s, struct cow_inode *dir, unsigned thread, unsigned file, int64_t version)
{
	uint8_t got[PAGE] = {0}, want[PAGE];
	struct cow_inode *inode;
	char name[16];
	int64_t r;

	snprintf(name, sizeof(name), "f%u", file);
	r = cow_lookup(dir, name, &inode, NULL);
	if (r < 0) {
		if (version > 0 || r != -ENOENT)
			complain(s, "private file is gone", r);
		return false;
	}
	r = cow_read(inode, got, PAGE, 0);
	cow_forget(inode, 1);
	if (r == 0 && version == 0)
		return true; /* made, not written yet */
	if (version == 0)
		memcpy(&version, got, sizeof(version));
	fill(want, thread, file, version);
	if (r != PAGE || version <= 0 || memcmp(got, want, PAGE) != 0)
		complain(s, "private content", r);
	return true;
}

/* Exactly what the owner knows is there. */
static void check_home(struct worker *w, struct cow_inode *dir)
{
	unsigned there = 0, entries = 0;

	for (unsigned file = 0; file < FILES; file++)
		there += check_file(w->shared, dir, w->number, file, w->version[file]);
	if (cow_list(dir, 0, false, count_entry, &entries) < 0 || entries != there)
		complain(w->shared, "private listing", entries);
}

/* A clone of one's own home is exactly what it is now, whatever the others do. */
static void clone_private(struct worker *w)
{
	struct cow_inode *clone = NULL;
	char name[16];
	int r;

	snprintf(name, sizeof(name), "clone%u", w->number);
	r = cow_clone(w->home, w->shared->root, name, 0, &clone, NULL);
	if (r < 0) {
		complain(w->shared, "clone", r);
		return;
	}
	check_home(w, clone);
	if (cow_same(w->home, clone) != 1)
		complain(w->shared, "a fresh clone differs", 0);
	cow_forget(clone, 1);
	r = cow_remove_tree(w->shared->root, name);
	if (r < 0)
		complain(w->shared, "remove of a clone", r);
}

/* ------------------------------------------------------------------ common work: anything may happen, but no harm */

static void expect_fair(struct worker *w, const char *what, int64_t r)
{
	if (!fair(r))
		complain(w->shared, what, r);
}

static void use_file(struct worker *w, struct cow_inode *inode)
{
	static const uint8_t bytes[3 * PAGE];
	uint8_t buffer[2 * PAGE];
	struct cow_attr attr = {.size = rng_below(&w->rng, 50000), .mode = 0600};

	expect_fair(w, "hold", cow_hold(inode) < 0 ? 0 : (cow_release(inode), 0));
	expect_fair(w, "write", cow_write(inode, bytes, 1 + rng_below(&w->rng, sizeof(bytes) - 1),
					  rng_below(&w->rng, 40000), false));
	expect_fair(w, "read", cow_read(inode, buffer, sizeof(buffer), rng_below(&w->rng, 40000)));
	if (rng_chance(&w->rng, 30))
		expect_fair(w, "truncate", cow_setattr(inode, &attr, COW_SET_SIZE, NULL));
	if (rng_chance(&w->rng, 30))
		expect_fair(w, "punch", cow_fallocate(inode, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4000, 9000));
	if (rng_chance(&w->rng, 30))
		expect_fair(w, "setxattr", cow_setxattr(inode, "user.a", bytes, rng_below(&w->rng, 300), 0));
}

static void common_name(struct worker *w, char name[16])
{
	snprintf(name, 16, "%c", 'a' + (int)rng_below(&w->rng, 6));
}

static int visit(void *context, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	struct worker *w = context;
	struct cow_attr again;

	(void)entry;
	(void)attr;
	expect_fair(w, "getattr of an entry", cow_getattr(inode, &again));
	cow_forget(inode, 1);
	return 0;
}

static int no_change(void *context, const struct cow_change *change)
{
	(void)context;
	(void)change;
	return 0;
}

static void look_common(struct worker *w, struct cow_inode *dir, struct cow_inode *inode)
{
	struct cow_usage usage;
	struct cow_attr attr;

	expect_fair(w, "getattr", cow_getattr(inode, &attr));
	expect_fair(w, "list", cow_list(dir, 0, true, visit, w));
	expect_fair(w, "usage", cow_usage(dir, rng_chance(&w->rng, 30), &usage));
	expect_fair(w, "diff", cow_diff(dir, inode, true, no_change, NULL));
	expect_fair(w, "same", cow_same(dir, inode));
}

/* A directory of the common tree, one or two levels down. */
static struct cow_inode *common_dir(struct worker *w)
{
	struct cow_inode *dir = w->shared->common, *next;
	char name[16];

	cow_ref(dir);
	for (unsigned i = 0; i < 2 && rng_chance(&w->rng, 60); i++) {
		struct cow_attr attr;

		common_name(w, name);
		if (cow_lookup(dir, name, &next, &attr) < 0)
			break;
		if (!S_ISDIR(attr.mode)) {
			cow_forget(next, 1);
			break;
		}
		cow_forget(dir, 1);
		dir = next;
	}
	return dir;
}

/* A clone of a home that its owner works in holds whole versions only, and does not change any more. */
static void clone_of_other(struct worker *w, struct cow_inode *dir, const char *name)
{
	unsigned thread = (unsigned)rng_below(&w->rng, THREADS);
	struct cow_inode *clone = NULL;
	char mine[16];
	int r;

	snprintf(mine, sizeof(mine), "copy%u", w->number);
	r = cow_clone(w->shared->home[thread], w->shared->root, mine, 0, &clone, NULL);
	if (r < 0) {
		complain(w->shared, "clone of a home", r);
		return;
	}
	for (unsigned file = 0; file < FILES; file++)
		check_file(w->shared, clone, thread, file, 0);
	cow_forget(clone, 1);
	/* now everybody may have it */
	if (cow_rename(w->shared->root, mine, dir, name, 0) < 0 && (r = cow_remove_tree(w->shared->root, mine)) < 0)
		complain(w->shared, "remove of a copy", r);
}

static void do_common(struct worker *w)
{
	struct cow_inode *dir = common_dir(w), *other = common_dir(w), *inode = NULL;
	struct cow_new file = {.mode = S_IFREG | 0644}, sub = {.mode = S_IFDIR | 0755};
	char name[16], to[16];

	common_name(w, name);
	common_name(w, to);
	switch (rng_below(&w->rng, 9)) {
	case 0:
		expect_fair(w, "mkdir", cow_create(dir, name, &sub, NULL, NULL));
		break;
	case 1:
	case 2:
		if (cow_create(dir, name, &file, &inode, NULL) == 0 || cow_lookup(dir, name, &inode, NULL) == 0)
			use_file(w, inode);
		break;
	case 3:
		expect_fair(w, "rename", cow_rename(dir, name, other, to, 0));
		break;
	case 4:
		if (cow_lookup(dir, name, &inode, NULL) == 0)
			expect_fair(w, "link", cow_link(inode, other, to, NULL));
		break;
	case 5:
		expect_fair(w, "unlink", cow_unlink(dir, name));
		break;
	case 6:
		expect_fair(w, "remove", rng_chance(&w->rng, 40) ? cow_remove_tree(dir, name) : cow_rmdir(dir, name));
		break;
	case 7:
		clone_of_other(w, dir, to);
		break;
	default:
		if (cow_lookup(dir, name, &inode, NULL) == 0)
			look_common(w, dir, inode);
		break;
	}
	cow_forget(inode, 1);
	cow_forget(dir, 1);
	cow_forget(other, 1);
}

static void *work(void *argument)
{
	struct worker *w = argument;
	struct cow_info info;

	for (unsigned i = 0; i < w->shared->rounds && atomic_load(&w->shared->bad) == 0; i++) {
		unsigned what = (unsigned)rng_below(&w->rng, 100), file = (unsigned)rng_below(&w->rng, FILES);

		if (what < 35)
			write_private(w, file);
		else if (what < 42)
			remove_private(w, file);
		else if (what < 50)
			clone_private(w);
		else if (what < 93)
			do_common(w);
		else if (what < 96)
			expect_fair(w, "sync", cow_sync(w->shared->volume));
		else if (what < 97)
			expect_fair(w, "drain", cow_drain(w->shared->volume));
		else
			expect_fair(w, "info", cow_info(w->shared->volume, &info));
	}
	return NULL;
}

/* ------------------------------------------------------------------ the test */

static void on_finding(void *context, const struct cow_finding *finding)
{
	fprintf(stderr, "check %d: %s\n", finding->number, finding->text);
	++*(unsigned *)context;
}

static void check_disk(struct memdev *disk)
{
	unsigned findings = 0;
	struct cow_check_options options = {.finding = on_finding, .context = &findings, .data = true};
	struct cow_check_result result;
	struct cow_dev *dev = memdev_attach(disk);

	assert_int_equal(cow_check_device(dev, &options, &result), 0);
	cow_dev_close(dev);
	assert_int_equal(findings, 0);
}

static struct cow_inode *make_dir(struct cow_inode *root, const char *name)
{
	struct cow_new how = {.mode = S_IFDIR | 0755};
	struct cow_inode *dir;

	assert_int_equal(cow_create(root, name, &how, &dir, NULL), 0);
	return dir;
}

static void start_workers(struct shared *s, struct worker *workers)
{
	pthread_t threads[THREADS];

	for (unsigned i = 0; i < THREADS; i++) {
		char name[16];

		snprintf(name, sizeof(name), "home%u", i);
		workers[i] = (struct worker){.shared = s, .number = i, .rng = {s->seed * 100 + i}};
		workers[i].home = s->home[i] = make_dir(s->root, name);
		for (unsigned f = 0; f < FILES; f++)
			workers[i].version[f] = -1;
	}
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
}

static void check_after(struct shared *s, struct worker *workers, struct memdev *disk,
			const struct cow_open_options *options)
{
	for (unsigned i = 0; i < THREADS; i++) {
		check_home(&workers[i], workers[i].home);
		cow_forget(workers[i].home, 1);
	}
	cow_forget(s->common, 1);
	cow_forget(s->root, 1);
	assert_int_equal(cow_close(s->volume), 0);
	check_disk(disk);
	assert_int_equal(cow_volume_open(memdev_attach(disk), options, &s->volume), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		char path[16];

		snprintf(path, sizeof(path), "/home%u", i);
		assert_int_equal(cow_lookup_path(s->volume, path, &workers[i].home), 0);
		check_home(&workers[i], workers[i].home);
		cow_forget(workers[i].home, 1);
	}
	assert_int_equal(atomic_load(&s->bad), 0);
}

static void run_threads(uint64_t seed, unsigned rounds, uint64_t cache_bytes)
{
	struct cow_open_options options = {.cache_bytes = cache_bytes, .dirty_bytes = 1 << 20, .commit_seconds = 1};
	struct shared s = {.rounds = rounds, .seed = seed};
	struct memdev *disk = memdev_new(256ull << 20);
	struct cow_dev *dev;
	struct worker workers[THREADS];

	print_message("seed %llu\n", (unsigned long long)seed);
	dev = memdev_attach(disk);
	assert_int_equal(cow_volume_format(dev, &(struct cow_format_options){.uuid = {3}}), 0);
	cow_dev_close(dev);
	assert_int_equal(cow_volume_open(memdev_attach(disk), &options, &s.volume), 0);
	assert_int_equal(cow_root(s.volume, &s.root), 0);
	s.common = make_dir(s.root, "common");
	start_workers(&s, workers);
	check_after(&s, workers, disk, &options);
	cow_volume_abandon(s.volume);
	check_disk(disk);
	memdev_free(disk);
}

static unsigned rounds_wanted(void)
{
	const char *rounds = getenv("RACES_ROUNDS");

	return rounds != NULL ? (unsigned)strtoul(rounds, NULL, 0) : 1500;
}

static void test_large_cache(void **state)
{
	(void)state;
	run_threads(1, rounds_wanted(), 16 << 20);
}

static void test_tiny_cache(void **state)
{
	(void)state;
	run_threads(2, rounds_wanted(), 4096);
}

static void test_fresh_seed(void **state)
{
	(void)state;
	run_threads((uint64_t)time(NULL), rounds_wanted(), 64 << 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_large_cache),
		cmocka_unit_test(test_tiny_cache),
		cmocka_unit_test(test_fresh_seed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
