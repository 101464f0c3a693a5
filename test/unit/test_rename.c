/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A directory with many hard-linked files leaves its world. All references in it are counted before; with nothing in
 * memory that misses many times, and goes on where it was.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "audit/check.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "fs/reclaim/census.h"
#include "test/lib/simdisk.h"

#define DIRS 40u
#define FILES 100u /* in each */

static struct cow_inode *make(struct cow_inode *dir, const char *name, mode_t mode)
{
	struct cow_inode *inode;

	assert_int_equal(cow_create(dir, name, &(struct cow_new){.mode = mode}, &inode, NULL), 0);
	return inode;
}

static struct cow_inode *find(struct cow_inode *dir, const char *name)
{
	struct cow_inode *inode;

	assert_int_equal(cow_lookup(dir, name, &inode, NULL), 0);
	return inode;
}

/* Files with one name here and one there. */
static void fill(struct cow_inode *here, struct cow_inode *there)
{
	char name[80];

	for (unsigned i = 0; i < FILES; i++) {
		struct cow_inode *file;

		snprintf(name, sizeof(name), "a-name-long-enough-for-some-leaves-in-each-directory-%u", i);
		file = make(here, name, S_IFREG | 0644);
		assert_int_equal(cow_link(file, there, name, NULL), 0);
		cow_forget(file, 1);
	}
}

static struct cow_volume *open_cold(struct cow_dev *disk)
{
	struct cow_open_options options = {.no_threads = true, .cache_bytes = 1 << 16};
	struct cow_volume *volume;

	assert_int_equal(cow_volume_open(simdisk_attach(disk), &options, &volume), 0);
	return volume;
}

/* "tree" with pairs of directories that share files, and one pair that "outside" shares with it; a world "clone". */
static struct cow_dev *make_disk(void)
{
	struct cow_dev *disk = simdisk_format(64 << 20);
	struct cow_volume *volume = open_cold(disk);
	struct cow_inode *root, *tree, *other, *in, *file, *pair[2];
	char name[2][16];

	assert_int_equal(cow_root(volume, &root), 0);
	tree = make(root, "tree", S_IFDIR | 0755);
	other = make(root, "outside", S_IFDIR | 0755);
	in = make(other, "in", S_IFDIR | 0755);
	fill(other, in);
	cow_forget(in, 1);
	for (unsigned i = 0; i < DIRS; i++) {
		for (unsigned k = 0; k < 2; k++) {
			snprintf(name[k], sizeof(name[k]), "%u-%u", i, k);
			pair[k] = make(tree, name[k], S_IFDIR | 0755);
		}
		fill(pair[0], pair[1]);
		cow_forget(pair[0], 1);
		cow_forget(pair[1], 1);
	}
	assert_int_equal(cow_clone(other, root, "clone", 0, NULL, NULL), 0);
	in = make(tree, "some", S_IFDIR | 0755);
	cow_forget(make(in, "plain", S_IFREG | 0644), 1);
	file = make(in, "linked", S_IFREG | 0644);
	assert_int_equal(cow_link(file, tree, "linked", NULL), 0);
	cow_forget(file, 1);
	cow_forget(in, 1);
	cow_forget(tree, 1);
	cow_forget(other, 1);
	assert_int_equal(cow_close(volume), 0);
	return disk;
}

static void check(struct cow_dev *disk)
{
	struct cow_check_result result;

	assert_int_equal(cow_check_device(disk, NULL, &result), 0);
	assert_int_equal(result.findings, 0);
}

static void test_leave(void **state)
{
	struct cow_dev *disk = make_disk();
	struct cow_volume *volume = open_cold(disk);
	struct cow_inode *root, *clone, *tree, *file;
	struct cow_attr attr;

	(void)state;
	assert_int_equal(cow_root(volume, &root), 0);
	clone = find(root, "clone");
	assert_int_equal(cow_rename(root, "tree", clone, "tree", 0), 0);
	tree = find(clone, "tree");
	for (unsigned i = 0; i < DIRS; i++) {
		char name[80];

		snprintf(name, sizeof(name), "%u-1", i);
		struct cow_inode *dir = find(tree, name);
		snprintf(name, sizeof(name), "a-name-long-enough-for-some-leaves-in-each-directory-%u", i);
		file = find(dir, name);
		assert_int_equal(cow_getattr(file, &attr), 0);
		assert_int_equal(attr.nlink, 2);
	}
	assert_int_equal(cow_close(volume), 0);
	check(disk);
	cow_dev_close(disk);
}

/* One name of the last file lies outside. */
static void test_torn(void **state)
{
	struct cow_dev *disk = make_disk();
	struct cow_volume *volume = open_cold(disk);
	struct cow_inode *root, *clone, *tree, *dir, *file;
	char name[16];

	(void)state;
	assert_int_equal(cow_root(volume, &root), 0);
	tree = find(root, "tree");
	snprintf(name, sizeof(name), "%u-0", DIRS - 1);
	dir = find(tree, name);
	file = make(dir, "zz", S_IFREG | 0644);
	assert_int_equal(cow_link(file, root, "zz", NULL), 0);
	assert_int_equal(cow_close(volume), 0);
	volume = open_cold(disk);
	assert_int_equal(cow_root(volume, &root), 0);
	clone = find(root, "clone");
	assert_int_equal(cow_rename(root, "tree", clone, "tree", 0), -EXDEV);
	assert_int_equal(cow_unlink(root, "zz"), 0);
	assert_int_equal(cow_rename(root, "tree", clone, "tree", 0), 0);
	assert_int_equal(cow_close(volume), 0);
	check(disk);
	cow_dev_close(disk);
}

/* Changed since the last commit: the census is not begun anew with every miss. */
static void test_changed(void **state)
{
	struct cow_dev *disk = make_disk();
	struct cow_volume *volume = open_cold(disk);
	struct cow_inode *root, *clone, *tree, *in;

	(void)state;
	assert_int_equal(cow_root(volume, &root), 0);
	clone = find(root, "clone");
	tree = find(root, "tree");
	in = find(tree, "some");
	assert_int_equal(cow_unlink(in, "plain"), 0);
	assert_int_equal(cow_rename(root, "tree", clone, "tree", 0), 0);
	assert_in_range(volume->censuses, 1, 3);
	assert_int_equal(cow_close(volume), 0);
	check(disk);
	cow_dev_close(disk);
}

/* ------------------------------------------------------------------ with somebody else beside it */

/*
 * An operation that has begun waits in its first read; it goes on, to its end, inside the nth read of the rename. A
 * commit would wait for it: where the rename makes some, it begins in the last of them. The directory is changed after
 * each seal, so that they do not help.
 */
struct race {
	int (*other)(struct race *race);
	bool changed;             /* the directory, since the last commit */
	struct cow_dev *disk;     /* to be copied */
	struct cow_volume *volume;
	pthread_t thread;
	uint64_t generation;      /* of the last commit in which the directory was changed */
	unsigned commits;
	struct cow_inode *root, *dir, *file;
	unsigned pair;            /* of directories in which `file` has its names */
	unsigned reads, stop_at;
	bool started, waited;
	sem_t begun, go, done;
};

static _Thread_local bool is_rename, is_other;

static void begin_other(struct race *race);

/* The rename commits, and everything is sealed. */
static void in_commit(struct race *race)
{
	if (race->volume->store->generation == race->generation)
		return;
	is_rename = false;
	race->generation = race->volume->store->generation;
	cow_forget(make(race->dir, "plain", S_IFREG | 0644), 1);
	assert_int_equal(cow_unlink(race->dir, "plain"), 0);
	if (++race->commits == COW_CENSUS_COMMITS)
		begin_other(race);
	is_rename = true;
}

static void on_read(void *context, enum cow_sim_call call, uint64_t block, uint64_t blocks)
{
	struct race *race = context;

	(void)block, (void)blocks;
	if (call == COW_SIM_FLUSH && is_rename && race->changed)
		in_commit(race);
	if (call != COW_SIM_READ)
		return;
	if (is_other && !race->waited) {
		race->waited = true;
		sem_post(&race->begun);
		sem_wait(&race->go);
	}
	if (is_rename && race->started && ++race->reads == race->stop_at) {
		sem_post(&race->go);
		sem_wait(&race->done);
	}
}

static int add_name(struct race *race)
{
	return cow_link(race->file, race->root, "outside-of-tree", NULL);
}

/* Where the directory has been changed, but not in this. */
static int remove_name(struct race *race)
{
	return cow_unlink(race->dir, "linked");
}

static void *run_other(void *context)
{
	struct race *race = context;
	int error;

	is_other = true;
	error = race->other(race);
	if (error != 0 && error != -EXDEV) /* it comes after the rename, and the file is in another world */
		abort();
	if (!race->waited)
		sem_post(&race->begun);
	sem_post(&race->done);
	return NULL;
}

static void begin_other(struct race *race)
{
	assert_int_equal(pthread_create(&race->thread, NULL, run_other, race), 0);
	sem_wait(&race->begun);
	race->started = true;
}

/* The reads of the rename, since the other began. */
static unsigned run_race(struct race *race)
{
	struct cow_dev *disk = cow_sim_copy(race->disk);
	struct cow_volume *volume = open_cold(disk);
	struct cow_inode *clone, *tree, *in, *there;
	char name[80];
	int error;

	assert_int_equal(cow_root(volume, &race->root), 0);
	clone = find(race->root, "clone");
	tree = find(race->root, "tree");
	race->dir = find(tree, "some");
	snprintf(name, sizeof(name), "%u-0", race->pair);
	in = find(tree, name);
	race->file = find(in, "a-name-long-enough-for-some-leaves-in-each-directory-7");
	race->volume = volume;
	if (race->changed) /* so that in memory it is not what it is on disk */
		assert_int_equal(cow_unlink(race->dir, "plain"), 0);
	there = find(clone, "in");
	for (unsigned i = 0; i < FILES; i++) { /* until nothing of the tree is in memory */
		snprintf(name, sizeof(name), "a-name-long-enough-for-some-leaves-in-each-directory-%u", i);
		cow_forget(find(there, name), 1);
	}
	race->reads = race->commits = 0;
	race->generation = 0;
	race->started = race->waited = false;
	sem_init(&race->begun, 0, 0);
	sem_init(&race->go, 0, 0);
	sem_init(&race->done, 0, 0);
	cow_sim_hook(disk, on_read, race);
	if (!race->changed)
		begin_other(race);
	is_rename = true;
	error = cow_rename(race->root, "tree", clone, "tree", 0);
	is_rename = false;
	assert_true(error == 0 || error == -EXDEV);
	assert_int_equal(race->commits, race->changed ? COW_CENSUS_COMMITS : 0);
	assert_true(race->waited);
	if (race->reads < race->stop_at)
		sem_post(&race->go);
	assert_int_equal(pthread_join(race->thread, NULL), 0);
	cow_sim_hook(disk, NULL, NULL);
	assert_int_equal(cow_close(volume), 0);
	check(disk);
	cow_dev_close(disk);
	return race->reads;
}

static void test_name_added(void **state)
{
	struct race race = {.other = add_name, .disk = make_disk(), .stop_at = UINT_MAX};
	unsigned reads = run_race(&race);

	(void)state;
	assert_true(reads > 100);
	for (race.pair = 0; race.pair < DIRS; race.pair += 3)
		for (race.stop_at = reads - 5; race.stop_at <= reads; race.stop_at++)
			run_race(&race);
	cow_dev_close(race.disk);
}

static void test_name_removed(void **state)
{
	struct race race = {.other = remove_name, .changed = true, .disk = make_disk(), .stop_at = UINT_MAX};
	unsigned reads = run_race(&race);

	(void)state;
	for (race.stop_at = 1; race.stop_at <= reads; race.stop_at += 60)
		run_race(&race);
	cow_dev_close(race.disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leave),
		cmocka_unit_test(test_torn),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_name_added),
		cmocka_unit_test(test_name_removed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
