/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clones of clones: a directory that holds two clones of one that holds two clones ..., 40 times. A tree with 2^40
 * files, made with 80 calls and in as few blocks: nothing may go all the ways there are.
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

#include "audit/check.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "test/lib/simdisk.h"

#define TIMES 40u
#define DIFF_TIMES 17u
#define MIB ((size_t)1 << 20)

struct scene {
	struct cow_dev *disk;
	struct cow_volume *volume;
	struct cow_inode *root, *tops[2];
};

static struct cow_inode *make(struct cow_inode *dir, const char *name, mode_t mode)
{
	struct cow_inode *inode;

	assert_int_equal(cow_create(dir, name, &(struct cow_new){.mode = mode}, &inode, NULL), 0);
	return inode;
}

static struct scene begin_empty(void)
{
	struct scene s = {.disk = simdisk_format(64 * MIB)};
	struct cow_open_options options = {.no_threads = true};

	assert_int_equal(cow_volume_open(simdisk_attach(s.disk), &options, &s.volume), 0);
	assert_int_equal(cow_root(s.volume, &s.root), 0);
	return s;
}

/* Two trees that are equal, and share nothing; at the bottom of each way down is a file with two names. */
static struct scene begin(void)
{
	struct scene s = begin_empty();
	char name[24];

	for (unsigned side = 0; side < 2; side++) {
		struct cow_inode *dir, *file, *next;

		snprintf(name, sizeof(name), "bottom-%u", side);
		dir = make(s.root, name, S_IFDIR | 0755);
		file = make(dir, "file", S_IFREG | 0644);
		assert_int_equal(cow_link(file, dir, "link", NULL), 0);
		cow_forget(file, 1);
		for (unsigned i = 0; i < TIMES; i++) {
			snprintf(name, sizeof(name), "%u-%u", side, i);
			next = make(s.root, name, S_IFDIR | 0755);
			assert_int_equal(cow_clone(dir, next, "a", 0, NULL, NULL), 0);
			assert_int_equal(cow_clone(dir, next, "b", 0, NULL, NULL), 0);
			cow_forget(dir, 1);
			dir = next;
		}
		s.tops[side] = dir;
	}
	return s;
}

static void end(struct scene *s)
{
	struct cow_check_result result;

	cow_forget(s->tops[0], 1);
	cow_forget(s->tops[1], 1);
	cow_forget(s->root, 1);
	assert_int_equal(cow_close(s->volume), 0);
	assert_int_equal(cow_check_device(s->disk, NULL, &result), 0);
	assert_int_equal(result.findings, 0);
	cow_dev_close(s->disk);
}

static void test_usage(void **state)
{
	struct scene s = begin();
	struct cow_usage usage;

	(void)state;
	assert_int_equal(cow_usage(s.tops[0], true, &usage), 0);
	assert_int_equal(usage.files, 1ull << TIMES);
	assert_int_equal(usage.directories, (2ull << TIMES) - 2);
	end(&s);
}

static void test_same(void **state)
{
	struct scene s = begin();

	(void)state;
	assert_int_equal(cow_same(s.tops[0], s.tops[1]), 1);
	assert_int_equal(cow_same(s.tops[0], s.root), 0);
	end(&s);
}

/* Clones of a directory that has some of the names only: their files are counted by walking, once for equal ones. */
static void test_usage_of_changed(void **state)
{
	uint8_t *bytes = calloc(1, MIB);
	struct scene s = begin_empty();
	struct cow_inode *file, *clone;
	struct cow_usage usage;
	char name[24];

	(void)state;
	s.tops[0] = make(s.root, "from", S_IFDIR | 0755);
	s.tops[1] = make(s.root, "to", S_IFDIR | 0755);
	file = make(s.tops[0], "file", S_IFREG | 0644);
	assert_int_equal(cow_write(file, bytes, 100, 0, false), 100);
	assert_int_equal(cow_link(file, s.root, "other name", NULL), 0);
	cow_forget(file, 1);
	for (unsigned i = 0; i < 9; i++) {
		snprintf(name, sizeof(name), "clone-%u", i);
		assert_int_equal(cow_clone(s.tops[0], s.tops[1], name, 0, &clone, NULL), 0);
		if (i % 3 == 0) { /* the list of names stays, the file is another */
			assert_int_equal(cow_lookup(clone, "file", &file, NULL), 0);
			assert_int_equal(cow_write(file, bytes, 1000 * (i + 1), 0, false), 1000 * (i + 1));
			cow_forget(file, 1);
		}
		cow_forget(clone, 1);
	}
	assert_int_equal(cow_usage(s.tops[1], false, &usage), 0);
	assert_int_equal(usage.files, 9);
	assert_int_equal(usage.apparent_bytes, 6 * 100 + 1000 + 4000 + 7000);
	free(bytes);
	end(&s);
}

/* Looking for what can be given back: names of hard-linked files that are gone, in the innermost clones. */
static void test_drain(void **state)
{
	struct scene s = begin();
	struct cow_inode *in = s.root, *next;
	char name[24];

	(void)state;
	snprintf(name, sizeof(name), "0-%u", TIMES - 1);
	assert_int_equal(cow_lookup(in, name, &next, NULL), 0);
	for (unsigned i = 0; i < TIMES; i++) {
		in = next;
		assert_int_equal(cow_lookup(in, "a", &next, NULL), 0);
		cow_forget(in, 1);
	}
	assert_int_equal(cow_unlink(next, "link"), 0);
	cow_forget(next, 1);
	assert_int_equal(cow_drain(s.volume), 0);
	end(&s);
}

static void test_full(void **state)
{
	struct scene s = begin();
	struct cow_inode *file = make(s.root, "file", S_IFREG | 0644);
	uint8_t *bytes = calloc(1, MIB);
	uint64_t size = 0;
	int64_t n;

	(void)state;
	while ((n = cow_write(file, bytes, MIB, size, false)) > 0)
		size += (uint64_t)n;
	assert_int_equal(n, -ENOSPC);
	free(bytes);
	cow_forget(file, 1);
	assert_int_equal(cow_remove_tree(s.root, "file"), 0);
	end(&s);
}

static int count_renames(void *context, const struct cow_change *change)
{
	unsigned *count = context;

	*count += change->type == 'R';
	return 0;
}

/* Two ways to double one directory, under other names: all that is at the bottom has one number, and has moved. To look
 * at all that was matched before, for each of them, would take minutes. */
static void test_diff(void **state)
{
	struct scene s = begin_empty();
	struct cow_inode *bottom, *next;
	unsigned renames = 0;
	char name[24];

	(void)state;
	bottom = make(s.root, "bottom", S_IFDIR | 0755);
	cow_forget(make(bottom, "file", S_IFREG | 0644), 1);
	for (unsigned side = 0; side < 2; side++) {
		cow_ref(s.tops[side] = bottom);
		for (unsigned i = 0; i < DIFF_TIMES; i++) {
			snprintf(name, sizeof(name), "%u-%u", side, i);
			next = make(s.root, name, S_IFDIR | 0755);
			assert_int_equal(cow_clone(s.tops[side], next, side == 0 ? "a" : "c", 0, NULL, NULL), 0);
			assert_int_equal(cow_clone(s.tops[side], next, side == 0 ? "b" : "d", 0, NULL, NULL), 0);
			cow_forget(s.tops[side], 1);
			s.tops[side] = next;
		}
	}
	assert_int_equal(cow_diff(s.tops[0], s.tops[1], true, count_renames, &renames), 0);
	assert_int_equal(renames, 1u << DIFF_TIMES);
	cow_forget(bottom, 1);
	end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_usage),
		cmocka_unit_test(test_usage_of_changed),
		cmocka_unit_test(test_same),
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_diff),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
