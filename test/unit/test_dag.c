/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trees in which all slots of all nodes of a level lead to one node, checksums fitting: 127^7 ways down, and 8 nodes. A
 * walk that goes them all does not come back.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "audit/check.h"
#include "audit/check_walk.h"
#include "audit/repair.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "store/cursor.h"
#include "test/lib/plant.h"
#include "test/lib/poke.h"
#include "test/lib/sample.h"
#include "test/lib/simdisk.h"

static const uint64_t key = 5;

static struct plant new_plant(void)
{
	return (struct plant){.dev = sample_volume(), .block = 8000, .generation = 1};
}

static void ignore_log(void *context, enum cow_log_level level, const char *text)
{
	(void)context, (void)level, (void)text;
}

static struct cow_volume *open_volume(struct cow_dev *disk)
{
	struct cow_open_options options = {.no_threads = true, .log = ignore_log};
	struct cow_volume *volume;

	assert_int_equal(cow_volume_open(simdisk_attach(disk), &options, &volume), 0);
	return volume;
}

static void ignore_line(void *context, const char *text)
{
	(void)text;
	++*(unsigned *)context;
}

/* Found, shown, and mended so that nothing is found any more. */
static void check_and_repair(struct cow_dev *disk)
{
	struct cow_check_result checked;
	struct cow_repair_result repaired;
	unsigned lines = 0;

	assert_int_equal(cow_check_device(disk, &(struct cow_check_options){.data = true}, &checked), 0);
	assert_true(checked.findings > 0);
	assert_int_equal(cow_dump_device(disk, "tree", ignore_line, &lines), 0);
	assert_true(lines < 100000);
	assert_int_equal(cow_repair_device(disk, NULL, &repaired), 0);
	assert_int_equal(repaired.left, 0);
	assert_int_equal(cow_check_device(disk, NULL, &checked), 0);
	assert_int_equal(checked.findings, 0);
}

static struct cow_ptr extent_leaf(struct plant *p)
{
	uint8_t extent[16] = {COW_EXTENT_PLAIN, 0, 1, 0};

	put64(extent + 4, 9000);
	return plant_leaf(p, COW_KIND_FILE, 1, &key, extent, sizeof(extent));
}

static void test_links(void **state)
{
	struct plant p = new_plant();
	uint8_t row[17];

	(void)state;
	cow_spine_row_encode((struct cow_back){5, 1000}, row);
	plant_tree(&p, COW_KIND_LINKS, plant_dag(&p, COW_KIND_LINKS, plant_leaf(&p, COW_KIND_LINKS, 1, &key, row, 17)));
	check_and_repair(p.dev);
	cow_dev_close(p.dev);
}

static void test_extents(void **state)
{
	struct plant p = new_plant();
	struct cow_ptr leaf = extent_leaf(&p);

	(void)state;
	leaf.sum++; /* lost */
	plant_tree(&p, COW_KIND_FILE, plant_dag(&p, COW_KIND_FILE, leaf));
	check_and_repair(p.dev);
	cow_dev_close(p.dev);
}

/* An empty leaf has no keys that might not belong where it is. */
static void test_empty_leaf(void **state)
{
	struct plant p = new_plant();

	(void)state;
	plant_tree(&p, COW_KIND_DIR, plant_dag(&p, COW_KIND_DIR, plant_leaf(&p, COW_KIND_DIR, 0, NULL, NULL, 0)));
	check_and_repair(p.dev);
	cow_dev_close(p.dev);
}

/* Nodes that are younger than the scrub are not taken for what was read where they are. */
static void test_scrub(void **state)
{
	struct plant p = new_plant();
	struct cow_scrub_result result;
	struct cow_volume *volume;

	(void)state;
	p.generation = 1ull << 40;
	plant_tree(&p, COW_KIND_FILE, plant_dag(&p, COW_KIND_FILE, extent_leaf(&p)));
	volume = open_volume(p.dev);
	assert_int_equal(cow_scrub(volume, NULL, &result), 0);
	assert_true(result.nodes < 1000);
	cow_volume_abandon(volume);
	cow_dev_close(p.dev);
}

static int count_item(void *context, const struct cow_cursor *a, const struct cow_cursor *b)
{
	(void)a, (void)b;
	return ++*(unsigned *)context > 1000;
}

static void test_cursor(void **state)
{
	struct plant p = new_plant();
	struct cow_ptr tree = plant_dag(&p, COW_KIND_FILE, extent_leaf(&p)), none = {0};
	struct cow_volume *volume = open_volume(p.dev);
	unsigned items = 0;

	(void)state;
	assert_int_equal(cow_cursor_compare(volume->store, tree, none, COW_KIND_FILE, count_item, &items),
			 COW_ERR_DAMAGED);
	cow_volume_abandon(volume);
	cow_dev_close(p.dev);
}

/* Behind the last item there is none: not in the block, and not behind it, if the node is full. */
static void test_last_below(void **state)
{
	uint8_t bytes[COW_BLOCK + COW_INNER_ITEM] = {0};

	(void)state;
	cow_build_clear(bytes, COW_KIND_DIR, 1);
	for (unsigned i = 0; i < COW_INNER_ITEMS_MAX; i++)
		cow_build_inner_add(bytes, 10 * (i + 1), (struct cow_ptr){1, 1, 1});
	put64(bytes + COW_BLOCK, 10 * (COW_INNER_ITEMS_MAX + 1));
	for (unsigned items = 1; items <= COW_INNER_ITEMS_MAX; items++) {
		put16(bytes + 6, (uint16_t)items);
		for (unsigned i = 0; i < items; i++)
			assert_int_equal(cow_check_last_below(bytes, i, 5000), i + 1 < items ? 10 * (i + 2) - 1 : 5000);
	}
}

/* ------------------------------------------------------------------ the same one level higher: directories */

#define NAMES 2000u
#define VALUE_MAX 200u

typedef uint32_t make_fn(void *context, uint64_t number, uint8_t *value);

static struct cow_ptr many(struct plant *p, make_fn *make, void *context)
{
	struct cow_ptr leaves[COW_INNER_ITEMS_MAX];
	uint64_t firsts[COW_INNER_ITEMS_MAX], at = 1000, end = at + NAMES;
	unsigned count = 0;

	for (; at < end && count < COW_INNER_ITEMS_MAX; count++) {
		uint64_t keys[24];
		uint8_t values[24 * VALUE_MAX];
		uint32_t length = 0;
		unsigned n = 0;

		for (firsts[count] = at; n < 24 && at < end; n++, at++) {
			keys[n] = at;
			length = make(context, at, values + n * length);
		}
		leaves[count] = plant_leaf(p, COW_KIND_DIR, n, keys, values, length);
	}
	return plant_inner(p, COW_KIND_DIR, 1, count, firsts, leaves);
}

static uint32_t make_link(void *context, uint64_t number, uint8_t *value)
{
	char name[24];

	(void)context;
	snprintf(name, sizeof(name), "%010u", (unsigned)number);
	return cow_dirent_encode_link((struct cow_slice){(const uint8_t *)name, 10}, S_IFREG, 7, value);
}

static uint32_t make_dir(void *context, uint64_t number, uint8_t *value)
{
	struct cow_record r = {.mode = S_IFDIR | 0700, .number = 100000 + number, .body = COW_BODY_DIR,
			       .tree = *(struct cow_ptr *)context, .totals = {.refs = NAMES}};
	char name[24];

	snprintf(name, sizeof(name), "%010u", (unsigned)number);
	return cow_dirent_encode_record((struct cow_slice){(const uint8_t *)name, 10}, &r, value);
}

static void look_for_stop(void *stopped, const struct cow_finding *finding)
{
	*(bool *)stopped |= finding->number == COW_FIND_LINK_NAMES && strstr(finding->text, "more entries") != NULL;
}

/* Directories of one world that all have the same tree: each of its names would be one in each of them. */
static void test_names(void **state)
{
	struct plant p = new_plant();
	struct cow_ptr names = many(&p, make_link, NULL);
	struct cow_check_result checked;
	struct cow_repair_result repaired;
	bool stopped = false;
	struct cow_check_options options = {.finding = look_for_stop, .context = &stopped};

	(void)state;
	plant_tree(&p, COW_KIND_DIR, many(&p, make_dir, &names));
	assert_int_equal(cow_check_device(p.dev, &options, &checked), 0);
	assert_true(stopped);
	assert_int_equal(cow_repair_device(p.dev, NULL, &repaired), 0);
	cow_dev_close(p.dev);
}

/* ------------------------------------------------------------------ rings */

/* /links, which has references below it, becomes a directory with one entry: itself. */
static bool make_ring(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	const struct cow_ptr *ring = context;
	struct cow_dirent entry;
	struct cow_record r;

	(void)node, (void)slot;
	if (cow_dirent_decode(value, length, &entry) != 0 || entry.is_link || entry.name.length != 5 ||
	    memcmp(entry.name.bytes, "links", 5) != 0)
		return false;
	assert_int_equal(cow_record_decode(entry.record.bytes, entry.record.length, 0, &r), 0);
	assert_true(r.totals.refs > 0);
	r.tree = *ring;
	assert_int_equal(cow_record_encode(&r, value + (entry.record.bytes - value)), entry.record.length);
	return true;
}

static void link_pair(struct cow_inode *dir)
{
	const struct cow_new new = {.mode = S_IFREG | 0644};
	uint8_t *bytes = calloc(1, 1 << 20);
	struct cow_inode *file;

	assert_int_equal(cow_create(dir, "one", &new, &file, NULL), 0);
	assert_int_equal(cow_write(file, bytes, 1 << 20, 0, false), 1 << 20);
	free(bytes);
	assert_int_equal(cow_link(file, dir, "two", NULL), 0);
	cow_forget(file, 1);
}

/* A clone with a record that nobody has but it: something to purge. */
static void make_garbage(struct cow_volume *volume)
{
	const struct cow_new new = {.mode = S_IFDIR | 0755};
	struct cow_inode *root, *dir;

	assert_int_equal(cow_root(volume, &root), 0);
	assert_int_equal(cow_create(root, "of-clone", &new, &dir, NULL), 0);
	link_pair(dir);
	link_pair(root);
	assert_int_equal(cow_clone(dir, root, "its-clone", 0, NULL, NULL), 0);
	assert_int_equal(cow_unlink(root, "one"), 0);
	assert_int_equal(cow_unlink(root, "two"), 0);
	cow_forget(dir, 1);
	cow_forget(root, 1);
}

static void test_ring(void **state)
{
	struct plant p = new_plant();
	struct cow_record r = {.mode = S_IFDIR | 0700, .number = 100000, .body = COW_BODY_DIR, .totals = {.refs = 1}};
	struct cow_volume *volume;
	struct cow_ptr ring;
	uint8_t value[COW_VALUE_MAX];
	uint32_t length;

	(void)state;
	while (cow_layout_is_system(p.block))
		p.block++;
	r.tree = (struct cow_ptr){p.block, 0, 1}; /* its sum is nobody's to know; once it is in memory nobody asks */
	length = cow_dirent_encode_record((struct cow_slice){(const uint8_t *)"self", 4}, &r, value);
	ring = plant_leaf(&p, COW_KIND_DIR, 1, &(uint64_t){1000}, value, length);
	assert_true(poke_item(p.dev, COW_KIND_DIR, make_ring, &ring));
	volume = open_volume(p.dev);
	make_garbage(volume);
	assert_int_equal(cow_drain(volume), 0);
	cow_volume_abandon(volume);
	cow_dev_close(p.dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_extents),
		cmocka_unit_test(test_empty_leaf),
		cmocka_unit_test(test_scrub),
		cmocka_unit_test(test_cursor),
		cmocka_unit_test(test_last_below),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_ring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
