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

#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/check.h"
#include "fs/volume.h"
#include "test/lib/simdisk.h"

#define TIMES 40u
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

/* Two trees that are equal, and share nothing; at the bottom of each way down is a file with two names. */
static struct scene begin(void)
{
	struct scene s = {.disk = simdisk_format(64 * MIB)};
	struct cow_open_options options = {.no_threads = true};
	char name[24];

	assert_int_equal(cow_volume_open(simdisk_attach(s.disk), &options, &s.volume), 0);
	assert_int_equal(cow_root(s.volume, &s.root), 0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_usage),
		cmocka_unit_test(test_same),
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
