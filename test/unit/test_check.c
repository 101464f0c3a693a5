/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The check: a volume with a bit of everything is clean, and each kind of damage is found and called by its number,
 * also when all checksums fit. Then random damage: neither check nor dump may do anything but report.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>
#include <xxhash.h>

#include "audit/check.h"
#include "base/mem.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/mkfs.h"
#include "fs/open.h"
#include "store/node.h"
#include "test/lib/poke.h"
#include "test/lib/sample.h"

/* ------------------------------------------------------------------ what is found */

struct found {
	unsigned count[COW_FIND_COUNT];
	char first[300];
	bool print;
};

static void on_finding(void *context, const struct cow_finding *finding)
{
	struct found *f = context;

	assert_in_range(finding->number, 1, COW_FIND_COUNT - 1);
	assert_null(strchr(finding->text, '\n'));
	f->count[finding->number]++;
	if (f->first[0] == 0)
		snprintf(f->first, sizeof(f->first), "%d: %s", finding->number, finding->text);
}

static struct found check(struct cow_dev *dev, struct cow_check_result *result)
{
	struct found f = {0};
	struct cow_check_options options = {.finding = on_finding, .context = &f, .data = true};

	assert_int_equal(cow_check_device(dev, &options, result), 0);
	return f;
}

static void expect(struct cow_dev *dev, enum cow_find number)
{
	struct cow_check_result result;
	struct found f = check(dev, &result);

	if (f.count[number] == 0)
		fail_msg("finding %d did not come up; first was %s", number, f.first[0] != 0 ? f.first : "none at all");
	cow_dev_close(dev);
}

static void test_clean(void **state)
{
	struct cow_check_result result;
	struct cow_dev *dev = sample_volume();
	struct found f = check(dev, &result);

	(void)state;
	if (result.findings != 0)
		fail_msg("%s", f.first);
	assert_true(result.worlds >= 2); /* records that are stored: the snapshot holds an older one of the clone */
	assert_true(result.links >= 2);
	assert_int_equal(result.files, 2 * (42 + 1) + 2); /* root and snapshot, and the hard links of the first world */
	assert_true(result.nodes > 10 && result.data_blocks > 100 && result.peak_bytes > 1000);
	cow_dev_close(dev);
}

/* ------------------------------------------------------------------ damage, checksums fitting */

struct change {
	bool (*record)(struct cow_record *r); /* changes a record; true: this is the one */
};

static void encode_entry(struct cow_slice name, const struct cow_record *r, uint8_t *value, uint32_t length)
{
	uint8_t copy[COW_VALUE_MAX];

	assert_int_equal(cow_dirent_encode_record(name, r, copy), length);
	memcpy(value, copy, length);
}

static bool change_record(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	const struct change *change = context;
	uint8_t copy[COW_VALUE_MAX];
	struct cow_dirent entry;
	struct cow_record r;

	(void)node, (void)slot;
	memcpy(copy, value, length);
	assert_int_equal(cow_dirent_decode(copy, length, &entry), 0);
	if (entry.is_link || cow_record_decode(entry.record.bytes, entry.record.length, 0, &r) != 0 ||
	    !change->record(&r))
		return false;
	encode_entry(entry.name, &r, value, length);
	return true;
}

static struct cow_dev *with_record(bool (*record)(struct cow_record *r))
{
	struct change change = {record};
	struct cow_dev *dev = sample_volume();

	assert_true(poke_item(dev, COW_KIND_DIR, change_record, &change));
	return dev;
}

static struct cow_dev *with_item(uint8_t kind, poke_item_fn fn)
{
	struct cow_dev *dev = sample_volume();

	assert_true(poke_item(dev, kind, fn, NULL));
	return dev;
}

static bool more_bytes(struct cow_record *r)
{
	return r->body == COW_BODY_DIR && r->totals.files != 0 && ++r->totals.bytes;
}
static bool more_files(struct cow_record *r)
{
	return r->body == COW_BODY_DIR && !r->is_world && ++r->totals.files;
}
static bool more_refs(struct cow_record *r)
{
	return r->body == COW_BODY_DIR && !r->is_world && r->totals.refs != 0 && ++r->totals.refs;
}
static bool no_exceptions(struct cow_record *r)
{
	bool some = r->body == COW_BODY_DIR && r->totals.exceptions != 0;

	r->totals.exceptions = 0;
	return some;
}
static bool more_sums(struct cow_record *r)
{
	return r->is_world && r->link_files != 0 && ++r->link_bytes;
}
static bool more_backs(struct cow_record *r)
{
	return r->is_world && r->link_files != 0 && ++r->backs;
}
static bool far_number(struct cow_record *r)
{
	r->number = 1ull << 40;
	return S_ISREG(r->mode);
}
static bool next_number(struct cow_record *r) /* of its neighbour */
{
	bool some = S_ISREG(r->mode) && r->size > 100 && r->size < 5000;

	r->number += some;
	return some;
}
static bool more_mapped(struct cow_record *r)
{
	return r->body == COW_BODY_TREE && S_ISREG(r->mode) && ++r->blocks;
}
static bool longer_xattrs(struct cow_record *r)
{
	return r->xattr_length > COW_XATTR_INLINE_MAX && ++r->xattr_length;
}
static bool shorter_file(struct cow_record *r)
{
	return r->body == COW_BODY_EXTENTS && --r->size;
}

static bool change_name(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	(void)context, (void)node, (void)slot, (void)length;
	if (value[0] < 3)
		return false;
	value[1] ^= 1;
	return true;
}

static bool change_order(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	uint64_t key = get64(slot);

	(void)context, (void)value, (void)length;
	if (get16(node + 6) < 2)
		return false;
	put64(slot, get64(slot + COW_LEAF_SLOT));
	put64(slot + COW_LEAF_SLOT, key);
	return true;
}

static bool break_item(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	(void)context, (void)node, (void)slot, (void)length;
	value[1 + value[0]] ^= 0xf0;
	return true;
}

static bool change_link_key(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	struct cow_dirent entry;

	(void)context, (void)node, (void)slot;
	if (cow_dirent_decode(value, length, &entry) != 0 || !entry.is_link)
		return false;
	put64(value + length - 8, 3);
	return true;
}

static bool change_link_type(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	struct cow_dirent entry;

	(void)context, (void)node, (void)slot;
	if (cow_dirent_decode(value, length, &entry) != 0 || !entry.is_link)
		return false;
	value[length - 9] = S_IFIFO >> 12;
	return true;
}

static bool change_back(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	struct cow_link_row row;

	(void)context, (void)node, (void)slot;
	if (cow_link_row_decode(value, length, &row) != 0 || row.backs > COW_BACKS_INLINE_MAX)
		return false;
	value[length - 1] ^= 1; /* of an entry key */
	return true;
}

static bool change_spine(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	struct cow_back up;

	(void)context, (void)node, (void)slot;
	if (cow_spine_row_decode(value, length, &up) != 0)
		return false;
	value[12] ^= 1;
	return true;
}

/* A directory that lies in itself. */
static bool ring_spine(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	struct cow_back up;

	(void)context, (void)node;
	if (cow_spine_row_decode(value, length, &up) != 0)
		return false;
	put64(value + 1, get64(slot));
	return true;
}

static bool overlap(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	(void)context, (void)length;
	if (get16(node + 6) < 2 || get16(value + 2) < 2)
		return false;
	put64(slot + COW_LEAF_SLOT, get64(slot) + 1);
	return true;
}

/* An extent that leads to a node. */
static bool to_node(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	(void)context, (void)slot, (void)length;
	if (get16(value + 2) > 1 && get64(node + 8) % 1024 > 1000)
		return false;
	put64(value + 4, get64(node + 8));
	return true;
}

static bool break_chunk(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	(void)context, (void)node, (void)slot;
	if (length < 700 || memcmp(value + 5, "user.long", 9) != 0)
		return false;
	value[0] = 0; /* length of the name */
	return true;
}

static bool same_chunk(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	(void)context, (void)node, (void)slot, (void)length;
	if (value[0] != 2 || get64(value + 17) == 0)
		return false;
	put64(value + 17, 0);
	return true;
}

static bool same_row(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	(void)context, (void)node, (void)slot, (void)length;
	put64(value + 1, 0);
	put64(value + 9, 77);
	return true;
}

static bool wrong_place(void *context, uint8_t *node)
{
	(void)context;
	put64(node + 8, get64(node + 8) + 1);
	return true;
}

static bool young_child(void *context, uint8_t *node)
{
	(void)context;
	put64(node + 16, 1u << 20);
	return true;
}

static void lower_counter(void *context, struct cow_super *super)
{
	(void)context;
	put64(super->user, 10);
}

static void lower_chunks(void *context, struct cow_super *super)
{
	(void)context;
	put64(super->user + 16, 1);
}

static void no_root(void *context, struct cow_super *super)
{
	(void)context;
	super->roots[COW_ROOT_TOP] = (struct cow_ptr){0};
}

static void wrong_kind(void *context, struct cow_super *super)
{
	(void)context;
	super->root_kinds[COW_ROOT_NUMBERS] = COW_KIND_FILE;
}

static void test_records(void **state)
{
	(void)state;
	expect(with_record(more_bytes), COW_FIND_TOTALS);
	expect(with_record(more_files), COW_FIND_TOTALS);
	expect(with_record(more_refs), COW_FIND_TOTALS);
	expect(with_record(no_exceptions), COW_FIND_EXCEPTIONS);
	expect(with_record(more_sums), COW_FIND_LINK_SUMS);
	expect(with_record(more_backs), COW_FIND_LINK_SUMS);
	expect(with_record(more_backs), COW_FIND_LINK_GARBAGE);
	expect(with_record(far_number), COW_FIND_NUMBER_RANGE);
	expect(with_record(next_number), COW_FIND_NUMBER_TWICE);
	expect(with_record(more_mapped), COW_FIND_FILE_BLOCKS);
	expect(with_record(longer_xattrs), COW_FIND_BLOB);
	expect(with_record(shorter_file), COW_FIND_FILE_TAIL);
}

static void test_items(void **state)
{
	(void)state;
	expect(with_item(COW_KIND_DIR, change_name), COW_FIND_ENTRY_KEY);
	expect(with_item(COW_KIND_DIR, change_order), COW_FIND_NODE_ORDER);
	expect(with_item(COW_KIND_DIR, break_item), COW_FIND_NODE_ITEM);
	expect(with_item(COW_KIND_DIR, change_link_key), COW_FIND_LINK_LOST);
	expect(with_item(COW_KIND_DIR, change_link_key), COW_FIND_LINK_NAMES);
	expect(with_item(COW_KIND_DIR, change_link_type), COW_FIND_LINK_TYPE);
	expect(with_item(COW_KIND_LINKS, change_back), COW_FIND_LINK_NAMES);
	expect(with_item(COW_KIND_LINKS, change_spine), COW_FIND_SPINE);
	expect(with_item(COW_KIND_LINKS, ring_spine), COW_FIND_SPINE_RING);
	expect(with_item(COW_KIND_FILE, overlap), COW_FIND_FILE_MAP);
	expect(with_item(COW_KIND_FILE, to_node), COW_FIND_BLOCK_ROLES);
	expect(with_item(COW_KIND_BLOB, break_chunk), COW_FIND_XATTR);
	expect(with_item(COW_KIND_NUMBERS, same_chunk), COW_FIND_CHUNK_TWICE);
	expect(with_item(COW_KIND_NUMBERS, same_row), COW_FIND_ROW);
}

static void test_nodes(void **state)
{
	struct cow_dev *dev = sample_volume();
	struct cow_super super;
	bool decayed;

	(void)state;
	poke_node(dev, wrong_place, NULL);
	expect(dev, COW_FIND_NODE_HEADER);
	dev = sample_volume();
	assert_true(poke_node(dev, young_child, NULL));
	expect(dev, COW_FIND_NODE_BIRTH);
	dev = sample_volume();
	assert_int_equal(cow_super_read(dev, &super, &decayed), 0);
	cow_sim_garble(dev, super.roots[COW_ROOT_TOP].addr, true, 1);
	expect(dev, COW_FIND_NODE_SUM);
	dev = sample_volume();
	cow_sim_fail(dev, COW_SIM_READ, 12, UINT64_MAX, -EIO);
	expect(dev, COW_FIND_NODE_READ);
}

static void test_super(void **state)
{
	struct cow_check_result result;
	struct cow_super super;
	struct cow_dev *dev;
	bool decayed;

	(void)state;
	dev = sample_volume();
	poke_super(dev, lower_counter, NULL);
	expect(dev, COW_FIND_NUMBER_RANGE);
	dev = sample_volume();
	poke_super(dev, lower_chunks, NULL);
	expect(dev, COW_FIND_NUMBER_RANGE);
	dev = sample_volume();
	poke_super(dev, no_root, NULL);
	expect(dev, COW_FIND_ROOT);
	dev = sample_volume();
	poke_super(dev, wrong_kind, NULL);
	expect(dev, COW_FIND_SUPER_ROOTS);
	dev = sample_volume();
	assert_int_equal(cow_super_read(dev, &super, &decayed), 0);
	cow_sim_garble(dev, (super.generation + 1) % COW_SUPER_SLOTS, false, 1);
	cow_sim_garble(dev, (super.generation + 1) % COW_SUPER_SLOTS + COW_SUPER_B, false, 2);
	expect(dev, COW_FIND_SUPER_DECAYED);
	dev = cow_sim_new(SAMPLE_BYTES);
	assert_int_equal(cow_check_device(dev, NULL, &result), COW_ERR_NOT_VOLUME);
	cow_dev_close(dev);
}

static void test_counts(void **state)
{
	struct cow_super super;
	struct cow_dev *dev;
	bool decayed;

	(void)state;
	dev = sample_volume();
	assert_int_equal(cow_super_read(dev, &super, &decayed), 0);
	poke_count(dev, super.roots[COW_ROOT_TOP].addr, -1);
	expect(dev, COW_FIND_COUNT_LOW);
	dev = sample_volume();
	poke_count(dev, super.roots[COW_ROOT_TOP].addr, 1);
	expect(dev, COW_FIND_COUNT_HIGH);
	dev = sample_volume();
	poke_count(dev, SAMPLE_BYTES / COW_BLOCK - 1, 1);
	expect(dev, COW_FIND_COUNT_HIGH);
	dev = sample_volume();
	cow_sim_garble(dev, cow_layout_slot(1, 0, 0), true, 1);
	cow_sim_garble(dev, cow_layout_slot(1, 0, 1), true, 1);
	expect(dev, COW_FIND_COUNTS_BLOCK);
}

/* Nothing rests on stored counts: that more pointers lead to a node than its count says is all that is found. */
static void test_counts_of_one(void **state)
{
	struct cow_dev *good = sample_volume(), *dev = cow_sim_copy(good);
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct cow_check_result result;
	struct cow_counts *counts;
	struct cow_super super;
	struct found found;
	unsigned lowered = 0;
	bool decayed;

	(void)state;
	assert_int_equal(cow_super_read(good, &super, &decayed), 0);
	assert_int_equal(cow_counts_open(good, &lock, super.total_blocks, &super.counts, 0, &counts), 0);
	for (uint64_t block = 0, miss; block < super.total_blocks; block++) {
		uint32_t count;

		while (cow_counts_get(counts, block, &count, &miss) == COW_MISS)
			assert_int_equal(cow_counts_load(counts, miss), 0);
		if (count <= 1)
			continue;
		poke_count(dev, block, 1 - (int)count);
		lowered++;
	}
	cow_counts_close(counts);
	cow_dev_close(good);
	found = check(dev, &result);
	assert_true(lowered > 3);
	assert_int_equal(result.findings, lowered);
	for (int number = 1; number < COW_FIND_COUNT; number++)
		if (number != COW_FIND_COUNT_LOW && found.count[number] != 0)
			fail_msg("%d came up; first was %s", number, found.first);
	cow_dev_close(dev);
}

static void ignore_finding(void *context, const struct cow_finding *finding)
{
	(void)context, (void)finding;
}

/* Each block in use, with one bit changed, is noticed by something. */
static void test_every_block(void **state)
{
	struct cow_dev *good = sample_volume();
	struct cow_check_options options = {.finding = ignore_finding, .data = true};
	struct cow_check_result result;
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct cow_counts *counts;
	struct cow_super super;
	bool decayed;

	(void)state;
	assert_int_equal(cow_super_read(good, &super, &decayed), 0);
	assert_int_equal(cow_counts_open(good, &lock, super.total_blocks, &super.counts, 0, &counts), 0);
	for (uint64_t block = 24, seen = 0; block < super.total_blocks && seen < 400; block++) {
		uint64_t miss;
		uint32_t count;
		struct cow_dev *dev;

		while (cow_counts_get(counts, block, &count, &miss) == COW_MISS)
			assert_int_equal(cow_counts_load(counts, miss), 0);
		if (count == 0 || cow_layout_is_system(block))
			continue;
		seen++;
		dev = cow_sim_copy(good);
		cow_sim_garble(dev, block, true, block);
		assert_int_equal(cow_check_device(dev, &options, &result), 0);
		if (result.findings == 0)
			fail_msg("block %llu", (unsigned long long)block);
		cow_dev_close(dev);
	}
	cow_counts_close(counts);
	cow_dev_close(good);
}

/* ------------------------------------------------------------------ random damage */

static void ignore_line(void *context, const char *text)
{
	*(uint64_t *)context += strlen(text);
}

/* What is found is checked, dumped, and opened: whatever they say, they come back. */
static void try_damaged(struct cow_dev *dev)
{
	struct cow_check_options options = {.data = true};
	struct cow_check_result result;
	uint64_t length = 0;
	int error = cow_check_device(dev, &options, &result);
	assert_true(error == 0 || error == COW_ERR_DAMAGED);
	error = cow_dump_device(dev, NULL, ignore_line, &length);
	assert_true(error == 0 || error == COW_ERR_DAMAGED);
	assert_true(length > 0);
}

static void test_random(void **state)
{
	const char *fixed = getenv("COW_SEED");
	uint64_t seed = fixed != NULL ? strtoull(fixed, NULL, 0) : (uint64_t)time(NULL) * 1000;
	struct cow_dev *good = sample_volume();

	(void)state;
	print_message("seed %llu\n", (unsigned long long)seed);
	for (unsigned i = 0; i < 400; i++) {
		struct cow_dev *dev = cow_sim_copy(good);

		poke_random(dev, i < 200 ? i : seed + i, 1 + i % 5);
		try_damaged(dev);
		cow_dev_close(dev);
	}
	cow_dev_close(good);
}

/* Nodes and blocks with few and with many pointers, around the number at which the check counts in another way. */
static void test_many_pointers(void **state)
{
	static const struct cow_open_options options = {.no_threads = true};
	static const struct cow_format_options format = {.uuid = {1}};
	struct cow_dev *dev = cow_sim_new(SAMPLE_BYTES), *image;
	struct cow_check_result result;
	struct cow_volume *volume;
	struct cow_inode *root, *d, *f;
	char name[20];
	struct found found;

	(void)state;
	assert_int_equal(cow_volume_format(dev, &format), 0);
	assert_int_equal(cow_volume_open(dev, &options, &volume), 0);
	assert_int_equal(cow_root(volume, &root), 0);
	assert_int_equal(cow_create(root, "d", &(struct cow_new){.mode = S_IFDIR | 0755}, &d, NULL), 0);
	assert_int_equal(cow_create(d, "f", &(struct cow_new){.mode = S_IFREG | 0644}, &f, NULL), 0);
	assert_int_equal(cow_write(f, dev, 100, 5000, false), 100);
	for (int i = 1; i < 140; i++) {
		snprintf(name, sizeof(name), "%s-%d", i % 2 ? "dir" : "file", i);
		assert_int_equal(cow_clone(i % 2 ? d : f, root, name, 0, NULL, NULL), 0);
		if (i < 120 || i > 130)
			continue;
		assert_int_equal(cow_sync(volume), 0);
		image = cow_sim_copy(dev);
		found = check(image, &result);
		if (result.findings != 0)
			fail_msg("%d clones: %s", i, found.first);
		cow_dev_close(image);
	}
	cow_forget(f, 1);
	cow_forget(d, 1);
	cow_forget(root, 1);
	assert_int_equal(cow_sync(volume), 0);
	image = cow_sim_copy(dev);
	assert_int_equal(cow_close(volume), 0);
	for (uint64_t block = 64, wrong = 0; wrong < 3; block++) { /* the first blocks in use are the shared ones */
		struct cow_dev *poked = cow_sim_copy(image);

		assert_true(block < 200);
		poke_count(poked, block, 1);
		found = check(poked, &result);
		assert_int_equal(result.findings, 1);
		wrong += found.count[COW_FIND_COUNT_HIGH];
		cow_dev_close(poked);
	}
	cow_dev_close(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean),         cmocka_unit_test(test_records),     cmocka_unit_test(test_items),
		cmocka_unit_test(test_nodes),         cmocka_unit_test(test_super),       cmocka_unit_test(test_counts),
		cmocka_unit_test(test_counts_of_one), cmocka_unit_test(test_every_block), cmocka_unit_test(test_random),
		cmocka_unit_test(test_many_pointers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
