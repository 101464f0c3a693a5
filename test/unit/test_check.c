/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The check: a volume with a bit of everything is clean, and each kind of damage is found and called by its number, also
 * when all checksums fit. Then random damage: neither check nor dump may do anything but report.
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

#include "base/mem.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/check.h"
#include "fs/volume.h"
#include "store/node.h"
#include "test/lib/poke.h"

#define SIZE (64ull << 20)

/* ------------------------------------------------------------------ a volume with a bit of everything */

static struct cow_inode *make(struct cow_inode *dir, const char *name, uint32_t mode)
{
	struct cow_inode *inode;

	assert_int_equal(cow_create(dir, name, &(struct cow_new){.mode = mode, .target = "target"}, &inode, NULL), 0);
	return inode;
}

static void fill(struct cow_inode *file, size_t length, uint64_t offset, int value)
{
	char *bytes = cow_mem_new(length + 1);

	memset(bytes, value, length);
	assert_int_equal(cow_write(file, bytes, length, offset, false), length);
	free(bytes);
}

static void make_files(struct cow_inode *dir)
{
	static const char xattr[700] = "value";
	char name[32];

	for (int i = 0; i < 40; i++) {
		struct cow_inode *f;

		snprintf(name, sizeof(name), "file-%d", i);
		f = make(dir, name, S_IFREG | 0644);
		fill(f, (size_t)i * i * 13, 0, i);
		if (i % 10 == 3)
			assert_int_equal(cow_setxattr(f, "user.long", xattr, sizeof(xattr), 0), 0);
		if (i % 10 == 4) /* many extents: an extent tree */
			for (int k = 0; k < 60; k++)
				fill(f, 5000, (uint64_t)k * 100000, k + 1);
		cow_forget(f, 1);
	}
	cow_forget(make(dir, "symlink", S_IFLNK | 0777), 1);
	cow_forget(make(dir, "fifo", S_IFIFO | 0600), 1);
}

static void make_links(struct cow_inode *root)
{
	struct cow_inode *a, *b, *f;
	char name[32];

	a = make(root, "links", S_IFDIR | 0755);
	b = make(a, "deep", S_IFDIR | 0755);
	f = make(b, "linked", S_IFREG | 0644);
	fill(f, 10000, 0, 'l');
	assert_int_equal(cow_link(f, a, "other", NULL), 0);
	cow_forget(f, 1);
	f = make(b, "many", S_IFREG | 0644);
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "name-%d", i);
		assert_int_equal(cow_link(f, b, name, NULL), 0);
	}
	cow_forget(f, 1);
	cow_forget(b, 1);
	cow_forget(a, 1);
}

static void enter(struct cow_inode *dir, const char *name)
{
	struct cow_inode *inode;
	struct cow_attr attr;

	assert_int_equal(cow_lookup(dir, name, &inode, &attr), 0);
	cow_forget(inode, 1);
}

static void make_clones(struct cow_inode *root)
{
	struct cow_inode *d, *c;

	assert_int_equal(cow_lookup(root, "links", &d, NULL), 0);
	assert_int_equal(cow_clone(d, root, "clone", 0, &c, NULL), 0);
	enter(c, "other");
	enter(c, "deep");
	cow_forget(make(c, "new", S_IFREG | 0600), 1);
	cow_forget(c, 1);
	assert_int_equal(cow_clone(root, root, "snapshot", COW_CLONE_READ_ONLY, &c, NULL), 0);
	enter(c, "links");
	cow_forget(c, 1);
	cow_forget(d, 1);
}

static struct cow_dev *sample(void)
{
	struct cow_open_options options = {.no_threads = true};
	struct cow_format_options format = {.uuid = {1}};
	struct cow_dev *dev = cow_sim_new(SIZE), *image;
	struct cow_volume *volume;
	struct cow_inode *root, *d;

	assert_int_equal(cow_volume_format(dev, &format), 0);
	assert_int_equal(cow_volume_open(dev, &options, &volume), 0);
	assert_int_equal(cow_root(volume, &root), 0);
	d = make(root, "files", S_IFDIR | 0755);
	make_files(d);
	cow_forget(d, 1);
	make_links(root);
	make_clones(root);
	assert_int_equal(cow_sync(volume), 0);
	image = cow_sim_copy(dev);
	cow_forget(root, 1);
	assert_int_equal(cow_close(volume), 0);
	return image;
}

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
	struct cow_dev *dev = sample();
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
	if (entry.is_link || cow_record_decode(entry.record.bytes, entry.record.length, 0, &r) != 0 || !change->record(&r))
		return false;
	encode_entry(entry.name, &r, value, length);
	return true;
}

static struct cow_dev *with_record(bool (*record)(struct cow_record *r))
{
	struct change change = {record};
	struct cow_dev *dev = sample();

	assert_true(poke_item(dev, COW_KIND_DIR, change_record, &change));
	return dev;
}

static struct cow_dev *with_item(uint8_t kind, poke_item_fn fn)
{
	struct cow_dev *dev = sample();

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
	struct cow_dev *dev = sample();
	struct cow_super super;
	bool decayed;

	(void)state;
	poke_node(dev, wrong_place, NULL);
	expect(dev, COW_FIND_NODE_HEADER);
	dev = sample();
	assert_true(poke_node(dev, young_child, NULL));
	expect(dev, COW_FIND_NODE_BIRTH);
	dev = sample();
	assert_int_equal(cow_super_read(dev, &super, &decayed), 0);
	cow_sim_garble(dev, super.roots[COW_ROOT_TOP].addr, true, 1);
	expect(dev, COW_FIND_NODE_SUM);
	dev = sample();
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
	dev = sample();
	poke_super(dev, lower_counter, NULL);
	expect(dev, COW_FIND_NUMBER_RANGE);
	dev = sample();
	poke_super(dev, lower_chunks, NULL);
	expect(dev, COW_FIND_NUMBER_RANGE);
	dev = sample();
	poke_super(dev, no_root, NULL);
	expect(dev, COW_FIND_ROOT);
	dev = sample();
	poke_super(dev, wrong_kind, NULL);
	expect(dev, COW_FIND_SUPER_ROOTS);
	dev = sample();
	assert_int_equal(cow_super_read(dev, &super, &decayed), 0);
	cow_sim_garble(dev, (super.generation + 1) % COW_SUPER_SLOTS, false, 1);
	cow_sim_garble(dev, (super.generation + 1) % COW_SUPER_SLOTS + COW_SUPER_B, false, 2);
	expect(dev, COW_FIND_SUPER_DECAYED);
	dev = cow_sim_new(SIZE);
	assert_int_equal(cow_check_device(dev, NULL, &result), COW_ERR_NOT_VOLUME);
	cow_dev_close(dev);
}

static void test_counts(void **state)
{
	struct cow_super super;
	struct cow_dev *dev;
	bool decayed;

	(void)state;
	dev = sample();
	assert_int_equal(cow_super_read(dev, &super, &decayed), 0);
	poke_count(dev, super.roots[COW_ROOT_TOP].addr, -1);
	expect(dev, COW_FIND_COUNT_LOW);
	dev = sample();
	poke_count(dev, super.roots[COW_ROOT_TOP].addr, 1);
	expect(dev, COW_FIND_COUNT_HIGH);
	dev = sample();
	poke_count(dev, SIZE / COW_BLOCK - 1, 1);
	expect(dev, COW_FIND_COUNT_HIGH);
	dev = sample();
	cow_sim_garble(dev, cow_layout_slot(1, 0, 0), true, 1);
	cow_sim_garble(dev, cow_layout_slot(1, 0, 1), true, 1);
	expect(dev, COW_FIND_COUNTS_BLOCK);
}

static void ignore_finding(void *context, const struct cow_finding *finding)
{
	(void)context, (void)finding;
}

/* Each block in use, with one bit changed, is noticed by something. */
static void test_every_block(void **state)
{
	struct cow_dev *good = sample();
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
	struct cow_dev *good = sample();

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean),  cmocka_unit_test(test_records), cmocka_unit_test(test_items),
		cmocka_unit_test(test_nodes),  cmocka_unit_test(test_super),   cmocka_unit_test(test_counts),
		cmocka_unit_test(test_every_block), cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
