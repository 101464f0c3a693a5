/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Directories nested thousands deep, on a volume that is full. A change at the bottom copies all that lies above: it
 * must be refused rather than take what commits and removals need.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "audit/check.h"
#include "cow.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "test/lib/simdisk.h"

#define MIB ((uint64_t)1 << 20)
#define LEVELS 800u
#define STEP 80u  /* levels between two directories that are changed */
#define CHAINS 3u /* the third is a clone of the second */
#define WORKERS 4u
#define ROUNDS 240u
#define PLACES (CHAINS * (LEVELS / STEP))

struct scene {
	struct cow_dev *disk;
	struct cow_volume *volume;
	struct cow_inode *root, *at[PLACES];
	unsigned places;
	uint8_t *bytes;
};

static struct cow_inode *make(struct cow_inode *dir, const char *name, mode_t mode)
{
	struct cow_inode *inode;

	assert_int_equal(cow_create(dir, name, &(struct cow_new){.mode = mode}, &inode, NULL), 0);
	return inode;
}

static struct cow_inode *below(struct cow_inode *dir)
{
	struct cow_inode *inode;
	int error = cow_lookup(dir, "d", &inode, NULL);

	if (error == -ENOENT)
		return make(dir, "d", S_IFDIR | 0755);
	assert_int_equal(error, 0);
	return inode;
}

static void go_down(struct scene *s, struct cow_inode *dir)
{
	for (unsigned i = 1; i <= LEVELS; i++) {
		struct cow_inode *in = below(dir);

		cow_forget(dir, 1);
		dir = in;
		if (i % STEP == 0) {
			s->at[s->places++] = dir;
			cow_ref(dir);
		}
	}
	cow_forget(dir, 1);
}

static void fill(struct scene *s, struct cow_inode *file)
{
	uint64_t size = 0;
	int64_t n;

	for (size_t length = MIB; length >= COW_BLOCK_BYTES; length /= 2) {
		while ((n = cow_write(file, s->bytes, length, size, false)) > 0)
			size += (uint64_t)n;
		assert_int_equal(n, -ENOSPC);
	}
}

static void begin(struct scene *s)
{
	struct cow_open_options options = {.no_threads = true};
	struct cow_inode *top, *file;

	*s = (struct scene){.disk = simdisk_format(64 * MIB), .bytes = calloc(1, MIB)};
	assert_int_equal(cow_volume_open(simdisk_attach(s->disk), &options, &s->volume), 0);
	assert_int_equal(cow_root(s->volume, &s->root), 0);
	go_down(s, make(s->root, "one", S_IFDIR | 0755));
	top = make(s->root, "two", S_IFDIR | 0755);
	cow_ref(top);
	go_down(s, top);
	assert_int_equal(cow_clone(top, s->root, "three", 0, NULL, NULL), 0);
	cow_forget(top, 1);
	assert_int_equal(cow_lookup(s->root, "three", &top, NULL), 0);
	go_down(s, top);
	cow_forget(make(s->root, "small", S_IFREG | 0644), 1);
	file = make(s->root, "file", S_IFREG | 0644);
	fill(s, file);
	cow_forget(file, 1);
}

/* Everybody is gone, all of it is sound. */
static void end(struct scene *s)
{
	struct cow_check_result result;

	assert_int_equal(s->volume->store->failed, 0);
	for (unsigned i = 0; i < s->places; i++)
		cow_forget(s->at[i], 1);
	cow_forget(s->root, 1);
	assert_int_equal(cow_close(s->volume), 0);
	assert_int_equal(cow_check_device(s->disk, NULL, &result), 0);
	assert_int_equal(result.findings, 0);
	cow_dev_close(s->disk);
	free(s->bytes);
}

static int change_mode(struct scene *s, struct cow_inode *dir, unsigned i)
{
	struct cow_attr attr = {.mode = 0700 + i % 64};

	(void)s;
	return cow_setattr(dir, &attr, COW_SET_MODE, NULL);
}

static int create(struct scene *s, struct cow_inode *dir, unsigned i)
{
	char name[16];

	int error;

	(void)s;
	snprintf(name, sizeof(name), "file-%u", i);
	error = cow_create(dir, name, &(struct cow_new){.mode = S_IFREG | 0644}, NULL, NULL);
	return error == -EEXIST ? 0 : error;
}

/* To files that were there. */
static int write_some(struct scene *s, struct cow_inode *dir, unsigned i)
{
	struct cow_inode *file;
	int64_t n;
	int error = cow_lookup(dir, "data", &file, NULL);

	if (error == -ENOENT)
		error = cow_create(dir, "data", &(struct cow_new){.mode = S_IFREG | 0644}, &file, NULL);
	if (error != 0)
		return error;
	n = cow_write(file, s->bytes, (size_t)(1 + i % 64) * COW_BLOCK_BYTES, 0, false);
	cow_forget(file, 1);
	return n < 0 ? (int)n : 0;
}

static int remove_one(struct scene *s, struct cow_inode *dir, unsigned i)
{
	int error = cow_unlink(dir, "data");

	(void)s, (void)i;
	return error == -ENOENT ? 0 : error;
}

/* Hard links between directories far from each other: their records hang from the world, at the top. */
static int link_one(struct scene *s, struct cow_inode *dir, unsigned i)
{
	struct cow_inode *to = s->at[(i + 3) % s->places], *file;
	int error = cow_lookup(dir, "data", &file, NULL);

	if (error != 0)
		return error == -ENOENT ? 0 : error;
	error = cow_link(file, to, "linked", NULL);
	cow_forget(file, 1);
	return error == -EEXIST || error == -EXDEV ? 0 : error;
}

static int rename_one(struct scene *s, struct cow_inode *dir, unsigned i)
{
	int error = cow_rename(dir, "linked", s->at[(i + 5) % s->places], "moved", 0);

	return error == -ENOENT || error == -EXDEV ? 0 : error;
}

typedef int (*change_fn)(struct scene *s, struct cow_inode *dir, unsigned i);
static const change_fn changes[] = {change_mode, create, write_some, link_one, rename_one, remove_one};
#define CHANGES (sizeof(changes) / sizeof(*changes))

/* -- how many were refused. What is wanted: others can commit, and remove something at the top. */
static unsigned change_all(struct scene *s, bool sync)
{
	unsigned refused = 0;

	for (unsigned i = 0; i < 4 * PLACES; i++) {
		struct cow_inode *dir = s->at[i * 7 % s->places];

		for (unsigned k = 0; k < CHANGES; k++) {
			int error = changes[(i + k) % CHANGES](s, dir, i);

			assert_true(error == 0 || error == -ENOSPC);
			refused += error != 0;
			if (sync)
				assert_int_equal(cow_sync(s->volume), 0);
		}
	}
	return refused;
}

static void test_full(void **state)
{
	for (int sync = 0; sync < 2; sync++) {
		struct scene s;

		(void)state;
		begin(&s);
		assert_true(change_all(&s, sync != 0) > 0);
		assert_int_equal(cow_sync(s.volume), 0);
		assert_int_equal(cow_unlink(s.root, "small"), 0);
		assert_int_equal(cow_drain(s.volume), 0);
		assert_int_equal(cow_unlink(s.root, "file"), 0);
		assert_int_equal(change_all(&s, sync != 0), 0); /* there is room again, and it is found */
		end(&s);
	}
}

struct worker {
	struct scene *scene;
	unsigned number;
	atomic_uint *bad;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct scene *s = w->scene;

	for (unsigned i = w->number; i < ROUNDS; i += WORKERS) {
		struct cow_inode *dir = s->at[i * 7 % s->places];

		for (unsigned k = 0; k < CHANGES; k++) {
			int error = changes[(i + k) % CHANGES](s, dir, i);

			if (error == -EEXIST || error == -ENOENT) /* another was faster */
				error = 0;
			if (error != 0 && error != -ENOSPC)
				atomic_fetch_add(w->bad, 1);
		}
		if (i % 16 == 0 && cow_sync(s->volume) != 0)
			atomic_fetch_add(w->bad, 1);
	}
	return NULL;
}

/* Several at the same time, each of which sees room that only one of them can have. */
static void test_many(void **state)
{
	struct worker workers[WORKERS];
	pthread_t threads[WORKERS];
	atomic_uint bad = 0;
	struct scene s;

	(void)state;
	begin(&s);
	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){&s, i, &bad};
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(bad, 0);
	assert_int_equal(cow_sync(s.volume), 0);
	assert_int_equal(cow_unlink(s.root, "small"), 0);
	assert_int_equal(cow_drain(s.volume), 0);
	assert_int_equal(cow_unlink(s.root, "file"), 0);
	assert_int_equal(change_all(&s, false), 0);
	end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_full), cmocka_unit_test(test_many)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
