/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who is held up when the buffers are full. Without a thread a writer that is held up commits, so the generation tells.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/mkfs.h"
#include "fs/open.h"

#define LIMIT (4u << 20)
#define MUCH (1u << 20)

static struct cow_volume *volume;
static struct cow_inode *root;
static uint8_t bytes[MUCH];

static struct cow_inode *make(const char *name)
{
	struct cow_inode *file;

	assert_int_equal(cow_create(root, name, &(struct cow_new){.mode = S_IFREG | 0644}, &file, NULL), 0);
	return file;
}

static uint64_t generation(void)
{
	struct cow_info info;

	assert_int_equal(cow_info(volume, &info), 0);
	return info.generation;
}

static void open_volume(void)
{
	struct cow_dev *dev = cow_sim_new(256 << 20);

	assert_int_equal(cow_volume_format(dev, &(struct cow_format_options){0}), 0);
	assert_int_equal(
		cow_volume_open(dev, &(struct cow_open_options){.no_threads = true, .dirty_bytes = LIMIT}, &volume), 0);
	assert_int_equal(cow_root(volume, &root), 0);
}

static void close_volume(void)
{
	cow_forget(root, 1);
	assert_int_equal(cow_close(volume), 0);
}

static void test_little_beside_much(void **state)
{
	struct cow_inode *much, *little;
	uint64_t before;
	unsigned pages = 0;

	(void)state;
	open_volume();
	much = make("much");
	little = make("little");
	assert_int_equal(cow_sync(volume), 0);
	before = generation();
	for (uint64_t at = 0; at < LIMIT; at += MUCH)
		assert_int_equal(cow_write(much, bytes, MUCH, at, false), MUCH);
	assert_int_equal(generation(), before); /* full to the brim */
	while (generation() == before) { /* a quarter more is for small writes */
		assert_int_equal(cow_write(little, bytes, 4096, 4096ull * pages, false), 4096);
		pages++;
	}
	assert_in_range(pages, LIMIT / 4096 / 4, LIMIT / 4096 / 4 + 2);
	cow_forget(much, 1);
	cow_forget(little, 1);
	close_volume();
}

static void test_much_waits(void **state)
{
	struct cow_inode *much;
	uint64_t before;

	(void)state;
	open_volume();
	much = make("much");
	assert_int_equal(cow_sync(volume), 0);
	before = generation();
	for (uint64_t at = 0; at < LIMIT; at += MUCH)
		assert_int_equal(cow_write(much, bytes, MUCH, at, false), MUCH);
	assert_int_equal(generation(), before);
	assert_int_equal(cow_write(much, bytes, MUCH, LIMIT, false), MUCH);
	assert_int_equal(generation(), before + 1);
	cow_forget(much, 1);
	close_volume();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_little_beside_much),
		cmocka_unit_test(test_much_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
