/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What clones hold of hard-linked files that are gone everywhere else: a world inside a directory of which there are
 * many clones. One drain, or one write on a full volume, must get all of it back, and never take more than there is.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "cow.h"
#include "test/lib/cases.h"
#include "test/lib/scene.h"

#define CLONES 50u

static uint64_t free_bytes(struct scene *s)
{
	struct cow_info info;

	assert_int_equal(cow_sync(s->volume), 0);
	assert_int_equal(cow_info(s->volume, &info), 0);
	return info.free_blocks * COW_BLOCK_BYTES;
}

static void clone_into(struct cow_inode *source, struct cow_inode *dir, const char *format, unsigned i)
{
	char name[32];

	snprintf(name, sizeof(name), format, i);
	assert_int_equal(cow_clone(source, dir, name, 0, NULL, NULL), 0);
}

/* A file of `bytes`, with two names. */
static void make_linked(struct cow_inode *dir, unsigned i, uint64_t bytes)
{
	uint8_t *content = calloc(1, bytes + 1);
	struct cow_inode *file;
	char name[32];

	snprintf(name, sizeof(name), "one-%u", i);
	file = scene_make(dir, name, S_IFREG | 0644);
	assert_int_equal(cow_write(file, content, bytes, 0, false), bytes);
	snprintf(name, sizeof(name), "two-%u", i);
	assert_int_equal(cow_link(file, dir, name, NULL), 0);
	cow_forget(file, 1);
	free(content);
}

static void remove_linked(struct cow_inode *dir, unsigned i)
{
	char name[32];

	snprintf(name, sizeof(name), "one-%u", i);
	assert_int_equal(cow_unlink(dir, name), 0);
	snprintf(name, sizeof(name), "two-%u", i);
	assert_int_equal(cow_unlink(dir, name), 0);
}

/* "top", with a clone of `dir` somewhere in it, and `clones` of it in "all". */
static void make_clones(struct scene *s, struct cow_inode *dir, unsigned clones)
{
	struct cow_inode *top = scene_make(s->root, "top", S_IFDIR | 0755), *in = scene_make(top, "in", S_IFDIR | 0755);
	struct cow_inode *all = scene_make(s->root, "all", S_IFDIR | 0755);

	clone_into(dir, in, "world", 0);
	for (unsigned i = 0; i < clones; i++)
		clone_into(top, all, "clone-%u", i);
	cow_forget(top, 1);
	cow_forget(in, 1);
	cow_forget(all, 1);
}

/* A file of 8 MiB that only clones hold soon: they are of a directory with hard links of its own, so they have the
 * links of the world around it. */
static void make_scene(struct scene *s, unsigned clones)
{
	struct cow_inode *dir;

	*s = scene_begin(64 * MIB);
	dir = scene_make(s->root, "dir", S_IFDIR | 0755);
	make_linked(dir, 1, 1);
	make_linked(s->root, 0, 8 * MIB);
	make_clones(s, dir, clones);
	cow_forget(dir, 1);
}

static void test_drain(void **state)
{
	struct scene s;
	uint64_t before;

	(void)state;
	make_scene(&s, CLONES);
	assert_int_equal(cow_drain(s.volume), 0);
	before = free_bytes(&s);
	remove_linked(s.root, 0);
	assert_in_range(free_bytes(&s), before - MIB, before + MIB); /* the clones hold it */
	assert_int_equal(cow_drain(s.volume), 0);
	assert_in_range(free_bytes(&s), before + 7 * MIB, before + 9 * MIB);
	scene_end(&s);
}

/* Clones of what holds clones. */
static void test_twice(void **state)
{
	struct scene s;
	struct cow_inode *all;
	uint64_t before;

	(void)state;
	make_scene(&s, 10);
	assert_int_equal(cow_lookup(s.root, "all", &all, NULL), 0);
	for (unsigned i = 0; i < 10; i++)
		clone_into(all, s.root, "twice-%u", i);
	cow_forget(all, 1);
	remove_linked(s.root, 0);
	before = free_bytes(&s);
	assert_int_equal(cow_drain(s.volume), 0);
	assert_in_range(free_bytes(&s), before + 5 * MIB, before + 9 * MIB);
	scene_end(&s);
}

/* All records that clones have are in use elsewhere, or hold nearly nothing: to purge them takes space. */
static void test_not_worth(void **state)
{
	struct scene s;
	struct cow_inode *dir;
	uint64_t before;

	(void)state;
	make_scene(&s, 20);
	assert_int_equal(cow_lookup(s.root, "dir", &dir, NULL), 0);
	for (unsigned i = 0; i < 20; i++)
		clone_into(dir, s.root, "clone-%u", i);
	for (unsigned i = 10; i < 14; i++)
		make_linked(s.root, i, 100);
	clone_into(dir, s.root, "last-%u", 0);
	cow_forget(dir, 1);
	before = free_bytes(&s);
	assert_int_equal(cow_drain(s.volume), 0);
	assert_true(free_bytes(&s) + MIB / 16 > before);
	remove_linked(s.root, 10);
	assert_int_equal(cow_drain(s.volume), 0);
	assert_true(free_bytes(&s) + MIB / 16 > before);
	scene_end(&s);
}

static void overwrite(struct cow_inode *dir, const char *name, uint64_t bytes)
{
	uint8_t *content = malloc(bytes);
	struct cow_inode *file;

	memset(content, 1, bytes);
	assert_int_equal(cow_lookup(dir, name, &file, NULL), 0);
	assert_int_equal(cow_write(file, content, bytes, 0, false), bytes);
	cow_forget(file, 1);
	free(content);
}

/* What was overwritten is nobody's, although the file is there. */
static void test_overwritten(void **state)
{
	struct scene s;
	uint64_t before;

	(void)state;
	make_scene(&s, CLONES);
	overwrite(s.root, "one-0", 8 * MIB);
	before = free_bytes(&s);
	assert_int_equal(cow_drain(s.volume), 0);
	assert_in_range(free_bytes(&s), before + 6 * MIB, before + 9 * MIB);
	scene_end(&s);
}

/* A clone has written to a file, and clones of a part of it have that record, too: in use. Whatever is met first. */
static void test_clone_of_clone(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 6; n++) {
		struct scene s = scene_begin(64 * MIB);
		struct cow_inode *dir = scene_make(s.root, "dir", S_IFDIR | 0755);
		struct cow_inode *part = scene_make(dir, "part", S_IFDIR | 0755);
		struct cow_inode *clone;
		uint64_t before;
		char name[32];

		make_linked(part, 1, 1);
		make_linked(dir, 2, 1);
		make_linked(s.root, 3, 1);
		snprintf(name, sizeof(name), "clone-%u", n);
		assert_int_equal(cow_clone(dir, s.root, name, 0, &clone, NULL), 0);
		overwrite(clone, "one-2", 8 * MIB);
		cow_forget(part, 1);
		assert_int_equal(cow_lookup(clone, "part", &part, NULL), 0);
		for (unsigned i = 0; i < 20; i++)
			clone_into(part, s.root, "part-%u", i);
		cow_forget(part, 1);
		cow_forget(clone, 1);
		cow_forget(dir, 1);
		before = free_bytes(&s);
		assert_int_equal(cow_drain(s.volume), 0);
		assert_true(free_bytes(&s) + MIB / 16 > before);
		scene_end(&s);
	}
}

/* Of a file only one block is another now: the rest of the old content is in use. */
static void test_one_block(void **state)
{
	struct scene s;
	uint64_t before;

	(void)state;
	make_scene(&s, 70);
	overwrite(s.root, "one-0", 4096);
	before = free_bytes(&s);
	assert_int_equal(cow_drain(s.volume), 0);
	assert_true(free_bytes(&s) + MIB / 16 > before);
	scene_end(&s);
}

/* A store, of which a project has one file: when the store is gone, what its clones have left is one leaf. */
static void test_store(void **state)
{
	enum { FILES = 4000, SIZE = 4096 };
	struct scene s = scene_begin(64 * MIB);
	struct cow_inode *dir = scene_make(s.root, "dir", S_IFDIR | 0755);
	uint64_t before;

	(void)state;
	make_linked(dir, FILES, 1);
	for (unsigned i = 0; i < FILES; i++)
		make_linked(s.root, i, SIZE);
	make_clones(&s, dir, 60);
	cow_forget(dir, 1);
	for (unsigned i = 0; i < FILES; i++)
		remove_linked(s.root, i);
	before = free_bytes(&s);
	assert_int_equal(cow_drain(s.volume), 0);
	assert_true(free_bytes(&s) > before + FILES / 10 * 9 * SIZE);
	scene_end(&s);
}

/* Of what is dead something else is left that is not worth it: then nothing is. */
static void test_held_elsewhere(void **state)
{
	struct scene s = scene_begin(256 * MIB);
	struct cow_inode *dir = scene_make(s.root, "dir", S_IFDIR | 0755), *top;
	struct cow_inode *more = scene_make(s.root, "more", S_IFDIR | 0755);
	uint64_t before;

	(void)state;
	make_linked(dir, 1, 1);
	make_linked(s.root, 0, 8 * MIB);
	make_clones(&s, dir, 200);
	make_linked(s.root, 5, 1); /* other links from now on */
	top = scene_make(s.root, "other-top", S_IFDIR | 0755);
	clone_into(dir, top, "world", 0);
	for (unsigned i = 0; i < 3000; i++)
		clone_into(top, more, "more-%u", i);
	cow_forget(top, 1);
	cow_forget(more, 1);
	cow_forget(dir, 1);
	remove_linked(s.root, 0);
	before = free_bytes(&s);
	assert_int_equal(cow_drain(s.volume), 0);
	assert_true(free_bytes(&s) + MIB / 16 > before);
	scene_end(&s);
}

/* One dead record among thousands that are in use: no more is copied than that takes. */
static void test_one_of_many(void **state)
{
	enum { FILES = 4000 };
	struct scene s = scene_begin(64 * MIB);
	struct cow_inode *dir = scene_make(s.root, "dir", S_IFDIR | 0755);
	uint64_t before;

	(void)state;
	make_linked(s.root, FILES, 8 * MIB);
	for (unsigned i = 0; i < FILES; i++)
		make_linked(i % 2 == 0 ? s.root : dir, i, 1);
	make_clones(&s, dir, 12);
	cow_forget(dir, 1);
	before = free_bytes(&s);
	remove_linked(s.root, FILES);
	assert_int_equal(cow_drain(s.volume), 0);
	assert_in_range(free_bytes(&s), before + 7 * MIB, before + 9 * MIB);
	scene_end(&s);
}

/* Nor does a volume that is full become fuller by it: to remove one file is enough to go on. */
static void test_full_of_clones(void **state)
{
	struct scene s = scene_begin(256 * MIB);
	struct cow_inode *dir = scene_make(s.root, "dir", S_IFDIR | 0755), *file;
	uint8_t *bytes = calloc(1, MIB);
	uint64_t size = 0;
	int64_t n;

	(void)state;
	make_linked(dir, 1, 1);
	make_linked(s.root, 0, MIB);
	make_clones(&s, dir, 4000);
	cow_forget(dir, 1);
	file = scene_make(s.root, "ballast", S_IFREG | 0644);
	assert_int_equal(cow_write(file, bytes, MIB, 0, false), MIB);
	cow_forget(file, 1);
	file = scene_make(s.root, "file", S_IFREG | 0644);
	for (size_t length = MIB; length >= COW_BLOCK_BYTES; length /= 2) {
		while ((n = cow_write(file, bytes, length, size, false)) > 0)
			size += (uint64_t)n;
		assert_int_equal(n, -ENOSPC);
	}
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(cow_write(file, bytes, COW_BLOCK_BYTES, size, false), -ENOSPC);
	assert_int_equal(cow_unlink(s.root, "ballast"), 0);
	assert_int_equal(cow_write(file, bytes, COW_BLOCK_BYTES, size, false), COW_BLOCK_BYTES);
	cow_forget(file, 1);
	free(bytes);
	scene_end(&s);
}

/* More ways to a world than can be gone: nothing is given back, so nothing may be taken either; but of what else is in
 * the same directories. */
static void test_too_many(void **state)
{
	struct scene s;
	struct cow_inode *dir, *next;
	uint64_t before;

	(void)state;
	make_scene(&s, 2);
	assert_int_equal(cow_lookup(s.root, "all", &dir, NULL), 0);
	for (unsigned i = 0; i < 40; i++) {
		char name[32];

		snprintf(name, sizeof(name), "level-%u", i);
		next = scene_make(s.root, name, S_IFDIR | 0755);
		clone_into(dir, next, "a", 0);
		clone_into(dir, next, "b", 0);
		cow_forget(dir, 1);
		dir = next;
	}
	remove_linked(s.root, 0);
	before = free_bytes(&s);
	assert_int_equal(cow_drain(s.volume), 0);
	assert_true(free_bytes(&s) + MIB / 16 > before);
	make_linked(s.root, 9, 8 * MIB);
	assert_int_equal(cow_lookup(s.root, "dir", &next, NULL), 0);
	clone_into(next, dir, "world", 0);
	cow_forget(next, 1);
	clone_into(dir, s.root, "last", 0);
	cow_forget(dir, 1);
	remove_linked(s.root, 9);
	before = free_bytes(&s);
	assert_int_equal(cow_drain(s.volume), 0);
	assert_in_range(free_bytes(&s), before + 7 * MIB, before + 9 * MIB);
	scene_end(&s);
}

/*
 * Rows by the thousand, every second dead, in nodes that the clones share. To drop them takes more nodes than a volume
 * that is full has: that must not be what makes removing fail. When something was removed it comes to its end.
 */
static void test_full(void **state)
{
	enum { FILES = 4000, SIZE = 8000 };
	struct scene s = scene_begin(64 * MIB);
	struct cow_inode *dir = scene_make(s.root, "dir", S_IFDIR | 0755), *file;
	uint8_t *bytes = calloc(1, MIB);
	uint64_t size = 0, before;
	int64_t n;

	(void)state;
	for (unsigned i = 0; i < FILES; i++)
		make_linked(i % 2 == 0 ? s.root : dir, i, i % 2 == 0 ? SIZE : 1);
	make_clones(&s, dir, 12);
	for (unsigned i = 0; i < FILES; i += 2)
		remove_linked(s.root, i);
	cow_forget(dir, 1);
	file = scene_make(s.root, "file", S_IFREG | 0644);
	before = free_bytes(&s);
	for (unsigned i = 0; i < 3; i++) {
		while ((n = cow_write(file, bytes, MIB, size, false)) > 0)
			size += (uint64_t)n;
		assert_int_equal(n, -ENOSPC);
		assert_int_equal(cow_sync(s.volume), 0);
	}
	assert_int_equal(cow_unlink(s.root, "file"), 0);
	cow_forget(file, 1);
	assert_int_equal(cow_drain(s.volume), 0);
	assert_true(free_bytes(&s) > before + FILES / 2 * SIZE / 2);
	free(bytes);
	scene_end(&s);
}

/* A world below so many directories that changing it takes more than a full volume has left: it keeps its garbage, and
 * everybody else goes on. */
static void test_deep(void **state)
{
	struct scene s = scene_begin(64 * MIB);
	struct cow_inode *dir = scene_make(s.root, "dir", S_IFDIR | 0755), *file;
	struct cow_inode *at = scene_make(s.root, "deep", S_IFDIR | 0755);
	uint8_t *bytes = calloc(1, MIB);
	uint64_t size = 0, before;
	int64_t n;

	(void)state;
	make_linked(dir, 1, 1);
	make_linked(s.root, 0, MIB);
	for (unsigned i = 0; i < 1000; i++) {
		struct cow_inode *in = scene_make(at, "deeper", S_IFDIR | 0755);

		cow_forget(at, 1);
		at = in;
	}
	clone_into(dir, at, "world", 0);
	cow_forget(at, 1);
	cow_forget(dir, 1);
	remove_linked(s.root, 0);
	file = scene_make(s.root, "file", S_IFREG | 0644);
	before = free_bytes(&s);
	for (size_t length = MIB; length >= COW_BLOCK_BYTES; length /= 2) {
		while ((n = cow_write(file, bytes, length, size, false)) > 0)
			size += (uint64_t)n;
		assert_int_equal(n, -ENOSPC);
		assert_int_equal(cow_sync(s.volume), 0);
	}
	assert_int_equal(cow_drain(s.volume), 0);
	assert_int_equal(cow_unlink(s.root, "file"), 0);
	cow_forget(file, 1);
	assert_int_equal(cow_drain(s.volume), 0);
	assert_true(free_bytes(&s) > before + MIB / 2);
	free(bytes);
	scene_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_twice),
		cmocka_unit_test(test_overwritten),
		cmocka_unit_test(test_not_worth),
		cmocka_unit_test(test_clone_of_clone),
		cmocka_unit_test(test_one_block),
		cmocka_unit_test(test_store),
		cmocka_unit_test(test_held_elsewhere),
		cmocka_unit_test(test_one_of_many),
		cmocka_unit_test(test_full_of_clones),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_deep),
	};

	return cases_run(tests);
}
