/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The queue of removed trees, as a crash may leave it, and as somebody who means harm may make it up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "audit/check.h"
#include "audit/repair.h"
#include "cow.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "test/lib/plant.h"
#include "test/lib/sample.h"
#include "test/lib/simdisk.h"

#define ENTRY (COW_PTR_BYTES + 1)

static unsigned told;

static void count_log(void *context, enum cow_log_level level, const char *text)
{
	(void)context, (void)level, (void)text;
	told++;
}

static struct plant new_plant(void)
{
	return (struct plant){.dev = sample_volume(), .block = 8000, .generation = 1, .counted = true};
}

static struct cow_volume *open_volume(struct cow_dev *disk)
{
	struct cow_open_options options = {.no_threads = true, .log = count_log};
	struct cow_volume *volume;

	assert_int_equal(cow_volume_open(simdisk_attach(disk), &options, &volume), 0);
	return volume;
}

static uint64_t findings(struct cow_dev *disk)
{
	struct cow_check_result result;

	assert_int_equal(cow_check_device(disk, NULL, &result), 0);
	return result.findings;
}

static struct cow_ptr queue_leaf(struct plant *p, uint64_t key, struct cow_ptr entry)
{
	uint8_t value[ENTRY];

	cow_ptr_put(value, entry);
	value[COW_PTR_BYTES] = COW_KIND_RECLAIM;
	return plant_leaf(p, COW_KIND_RECLAIM, 1, &key, value, ENTRY);
}

static struct cow_ptr empty_leaf(struct plant *p)
{
	return plant_leaf(p, COW_KIND_RECLAIM, 0, NULL, NULL, 0);
}

/*
 * The last leaf has one entry, a tree with children; the leaf before it, left from long ago, is not in memory, nor is
 * the piece with its count. Taking that entry must not make the queue end in a leaf that cannot be written at once.
 */
static void test_last_entry(void **state)
{
	struct plant p = new_plant(), far = p;
	uint64_t keys[2] = {1, 2};
	struct cow_ptr leaves[2];
	struct cow_volume *volume;

	(void)state;
	far.block = 11 * COW_PIECE_BLOCKS + 100;
	leaves[0] = queue_leaf(&far, 1, empty_leaf(&p));
	leaves[1] = queue_leaf(&p, 2, queue_leaf(&p, 1, empty_leaf(&p)));
	plant_queue(&p, plant_inner(&p, COW_KIND_RECLAIM, 1, 2, keys, leaves));
	assert_int_equal(findings(p.dev), 0);
	volume = open_volume(p.dev);
	assert_int_equal(cow_drain(volume), 0);
	assert_int_equal(cow_close(volume), 0);
	assert_int_equal(findings(p.dev), 0);
	cow_dev_close(p.dev);
}

/* What is pushed has a lower key than the empty leaf's separator says. */
static void test_empty_leaf(void **state)
{
	struct plant p = new_plant();
	uint64_t keys[2] = {5, 1ull << 40};
	struct cow_ptr leaves[2];
	struct cow_repair_result repaired;
	struct cow_volume *volume;
	struct cow_inode *root;

	(void)state;
	leaves[0] = queue_leaf(&p, 5, empty_leaf(&p));
	leaves[1] = empty_leaf(&p);
	plant_queue(&p, plant_inner(&p, COW_KIND_RECLAIM, 1, 2, keys, leaves));
	assert_true(findings(p.dev) > 0);
	volume = open_volume(p.dev);
	assert_int_equal(cow_root(volume, &root), 0);
	assert_int_equal(cow_remove_tree(root, "files"), 0); /* into a queue that was begun anew */
	cow_forget(root, 1);
	assert_int_equal(cow_close(volume), 0);
	assert_int_equal(cow_repair_device(p.dev, NULL, &repaired), 0);
	assert_int_equal(findings(p.dev), 0);
	cow_dev_close(p.dev);
}

/* Entries that have to be given up are passed over, and what comes after them is done. */
static void test_given_up(void **state)
{
	enum { LEAVES = 100, ENTRIES = 100, FILE_BYTES = 1 << 20 };
	struct plant p = new_plant();
	uint64_t firsts[LEAVES], key = 1;
	struct cow_ptr leaves[LEAVES];
	struct cow_volume *volume;
	uint8_t *bytes = calloc(1, FILE_BYTES);
	struct cow_inode *root, *file;
	struct cow_info before, after;

	(void)state;
	for (unsigned i = 0; i < LEAVES; i++) {
		uint8_t values[ENTRIES * ENTRY] = {0};
		uint64_t keys[ENTRIES];

		for (unsigned k = 0; k < ENTRIES; k++) {
			keys[k] = key++;
			cow_ptr_put(values + k * ENTRY, (struct cow_ptr){12000 + k, 1, 1}); /* free blocks */
			values[k * ENTRY + COW_PTR_BYTES] = COW_KIND_DIR;
		}
		firsts[i] = keys[0];
		leaves[i] = plant_leaf(&p, COW_KIND_RECLAIM, ENTRIES, keys, values, ENTRY);
	}
	plant_queue(&p, plant_inner(&p, COW_KIND_RECLAIM, 1, LEAVES, firsts, leaves));
	volume = open_volume(p.dev);
	assert_int_equal(cow_root(volume, &root), 0);
	told = 0;
	assert_int_equal(cow_drain(volume), 0);
	assert_true(told > 0 && told < 1000);
	assert_int_equal(cow_create(root, "new", &(struct cow_new){.mode = S_IFREG | 0644}, &file, NULL), 0);
	assert_int_equal(cow_write(file, bytes, FILE_BYTES, 0, false), FILE_BYTES);
	cow_forget(file, 1);
	free(bytes);
	assert_int_equal(cow_sync(volume), 0);
	assert_int_equal(cow_info(volume, &before), 0);
	assert_int_equal(cow_remove_tree(root, "new"), 0);
	assert_int_equal(cow_drain(volume), 0);
	assert_int_equal(cow_sync(volume), 0);
	assert_int_equal(cow_info(volume, &after), 0);
	assert_true(after.free_blocks > before.free_blocks + FILE_BYTES / COW_BLOCK_BYTES / 10 * 9);
	cow_forget(root, 1);
	assert_int_equal(cow_close(volume), 0);
	cow_dev_close(p.dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_last_entry),
		cmocka_unit_test(test_empty_leaf),
		cmocka_unit_test(test_given_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
