/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes of an image that know where things are, so that few bytes of input say something. A node is named by its
 * place in the list of all nodes of the base image, in the order of their blocks.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "store/counts_disk.h"
#include "store/node.h"
#include "store/super.h"
#include "test/fuzz/fuzz.h"

#define NODES_MAX 512

struct fuzz_mutate {
	struct fuzz_disk *disk;
	struct cow_super super;
	unsigned nodes;
	uint64_t node[NODES_MAX]; /* blocks */
};

uint64_t fuzz_take(struct fuzz_input *in, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes && in->left > 0; i++, in->left--)
		v |= (uint64_t)*in->at++ << (8 * i);
	return v;
}

struct fuzz_mutate *fuzz_mutate_new(struct fuzz_disk *disk)
{
	struct fuzz_mutate *m = cow_mem_new(sizeof(*m));
	uint8_t bytes[COW_BLOCK];
	bool decayed;

	m->disk = disk;
	if (cow_super_read(fuzz_disk_dev(disk), &m->super, &decayed) != 0)
		abort();
	for (uint64_t block = 0; block < m->super.total_blocks; block++) {
		if (cow_dev_read(fuzz_disk_dev(disk), bytes, COW_BLOCK, block * COW_BLOCK) != 0)
			abort();
		if (get32(bytes) == COW_NODE_MAGIC && get64(bytes + 8) == block && m->nodes < NODES_MAX)
			m->node[m->nodes++] = block;
	}
	return m;
}

static uint8_t *take_node(struct fuzz_mutate *m, struct fuzz_input *in)
{
	return fuzz_disk_block(m->disk, m->node[fuzz_take(in, 1) % m->nodes]);
}

static struct cow_ptr take_ptr(struct fuzz_mutate *m, struct fuzz_input *in)
{
	uint64_t block = m->node[fuzz_take(in, 1) % m->nodes];
	const uint8_t *bytes = fuzz_disk_block(m->disk, block);

	return (struct cow_ptr){block, XXH3_64bits(bytes, COW_BLOCK), get64(bytes + 16)};
}

/* An offset that leaves room for so many bytes. */
static unsigned take_offset(struct fuzz_input *in, unsigned room)
{
	return (unsigned)fuzz_take(in, 2) % (COW_BLOCK - room + 1);
}

static void take_bytes(struct fuzz_input *in, uint8_t *to, size_t length)
{
	for (size_t i = 0; i < length; i++)
		to[i] = (uint8_t)fuzz_take(in, 1);
}

/* ------------------------------------------------------------------ items of nodes */

struct items {
	unsigned count;
	struct {
		uint64_t key;
		uint32_t length;
		uint8_t value[COW_BLOCK];
	} item[COW_BLOCK / COW_LEAF_SLOT];
};

static struct items items; /* large, and this is a program with one thread */

static uint32_t leaf_start(const uint8_t *node, unsigned i)
{
	return get16(node + COW_NODE_HEADER + (size_t)i * COW_LEAF_SLOT + 8);
}

/* What can be understood of a leaf that may have been changed already. */
static void unpack(const uint8_t *node)
{
	unsigned count = get16(node + 6);
	uint32_t end = COW_BLOCK;

	items.count = 0;
	for (unsigned i = 0; i < count && COW_NODE_HEADER + (i + 1) * COW_LEAF_SLOT <= COW_BLOCK; i++) {
		uint32_t start = leaf_start(node, i);

		if (start > end)
			break;
		items.item[i].key = get64(node + COW_NODE_HEADER + (size_t)i * COW_LEAF_SLOT);
		items.item[i].length = end - start;
		memcpy(items.item[i].value, node + start, end - start);
		end = start;
		items.count++;
	}
}

/* As many as there is room for. */
static void pack(uint8_t *node)
{
	uint32_t end = COW_BLOCK;
	unsigned i;

	memset(node + COW_NODE_HEADER, 0, COW_BLOCK - COW_NODE_HEADER);
	for (i = 0; i < items.count; i++) {
		uint8_t *slot = node + COW_NODE_HEADER + (size_t)i * COW_LEAF_SLOT;

		if (items.item[i].length > end ||
		    end - items.item[i].length < COW_NODE_HEADER + (i + 1) * COW_LEAF_SLOT)
			break;
		end -= items.item[i].length;
		put64(slot, items.item[i].key);
		put16(slot + 8, (uint16_t)end);
		memcpy(node + end, items.item[i].value, items.item[i].length);
	}
	put16(node + 6, (uint16_t)i);
}

/* Where the input's item's value is; of an inner node its pointer. */
static uint8_t *take_value(uint8_t *node, struct fuzz_input *in, uint32_t *length)
{
	unsigned count = get16(node + 6), i = (unsigned)fuzz_take(in, 1);
	uint32_t start, end;

	if (count == 0 || COW_NODE_HEADER + count * (node[5] == 0 ? COW_LEAF_SLOT : COW_INNER_ITEM) > COW_BLOCK)
		return NULL;
	i %= count;
	if (node[5] != 0) {
		*length = COW_PTR_BYTES;
		return node + COW_NODE_HEADER + (size_t)i * COW_INNER_ITEM + 8;
	}
	start = leaf_start(node, i);
	end = i == 0 ? COW_BLOCK : leaf_start(node, i - 1);
	if (start > end || end > COW_BLOCK)
		return NULL;
	*length = end - start;
	return node + start;
}

static void change_value(struct fuzz_mutate *m, struct fuzz_input *in, bool pointer)
{
	uint32_t length = 0;
	uint8_t *value = take_value(take_node(m, in), in, &length), bytes[COW_PTR_BYTES];
	uint32_t at = (uint32_t)fuzz_take(in, 2), count = 1 + fuzz_take(in, 1) % 8;

	if (pointer) {
		cow_ptr_put(bytes, take_ptr(m, in));
		count = COW_PTR_BYTES;
	} else {
		take_bytes(in, bytes, count);
	}
	if (value != NULL && length >= count)
		memcpy(value + at % (length - count + 1), bytes, count);
}

/* Another value of any length; the bytes that the input does not have come from the old one. */
static void replace_value(struct fuzz_mutate *m, struct fuzz_input *in)
{
	uint8_t *node = take_node(m, in);
	unsigned i = (unsigned)fuzz_take(in, 1);
	uint32_t length = (uint32_t)fuzz_take(in, 2) % (COW_VALUE_MAX + 2), given = (uint32_t)fuzz_take(in, 2);

	if (node[5] != 0)
		return;
	unpack(node);
	if (items.count == 0)
		return;
	i %= items.count;
	items.item[i].length = length;
	take_bytes(in, items.item[i].value, given < length ? given : length);
	pack(node);
}

static void change_key(struct fuzz_mutate *m, struct fuzz_input *in)
{
	uint8_t *node = take_node(m, in);
	unsigned count = get16(node + 6), i = (unsigned)fuzz_take(in, 1), size;
	uint64_t key = fuzz_take(in, 8);

	size = node[5] == 0 ? COW_LEAF_SLOT : COW_INNER_ITEM;
	if (count != 0 && COW_NODE_HEADER + (i % count + 1) * size <= COW_BLOCK)
		put64(node + COW_NODE_HEADER + (size_t)(i % count) * size, key);
}

static void drop_item(struct fuzz_mutate *m, struct fuzz_input *in)
{
	uint8_t *node = take_node(m, in);
	unsigned i = (unsigned)fuzz_take(in, 1);

	if (node[5] != 0) {
		put16(node + 6, (uint16_t)i);
		return;
	}
	unpack(node);
	if (items.count == 0)
		return;
	i %= items.count;
	items.count--;
	memmove(&items.item[i], &items.item[i + 1], (items.count - i) * sizeof(items.item[0]));
	pack(node);
}

/* An item of one leaf also in another one, where its key belongs. */
static void copy_item(struct fuzz_mutate *m, struct fuzz_input *in)
{
	uint8_t *from = take_node(m, in), *to;
	uint32_t length = 0;
	const uint8_t *value = take_value(from, in, &length);
	uint64_t key;
	unsigned i;

	to = take_node(m, in);
	key = fuzz_take(in, 8);
	if (value == NULL || from[5] != 0 || to[5] != 0)
		return;
	unpack(to);
	for (i = 0; i < items.count && items.item[i].key < key; i++)
		;
	if (items.count >= COW_BLOCK / COW_LEAF_SLOT - 1)
		return;
	memmove(&items.item[i + 1], &items.item[i], (items.count - i) * sizeof(items.item[0]));
	items.count++;
	items.item[i].key = key;
	items.item[i].length = length;
	memcpy(items.item[i].value, value, length);
	pack(to);
}

/* ------------------------------------------------------------------ superblock and counts */

static uint8_t *super_bytes(struct fuzz_mutate *m, unsigned copy)
{
	return fuzz_disk_block(m->disk, m->super.generation % COW_SUPER_SLOTS + copy * COW_SUPER_B);
}

static void change_super(struct fuzz_mutate *m, unsigned at, const uint8_t *bytes, unsigned length)
{
	for (unsigned copy = 0; copy < 2; copy++) {
		uint8_t *super = super_bytes(m, copy);

		memcpy(super + at, bytes, length);
		put64(super + 8, XXH3_64bits(super + 16, COW_SUPER_BYTES - 16));
	}
}

/* The count of a node's block, or of one near it, and all sums of free blocks above it. */
static void change_count(struct fuzz_mutate *m, struct fuzz_input *in)
{
	uint64_t block = m->node[fuzz_take(in, 1) % m->nodes] + (uint64_t)(int8_t)fuzz_take(in, 1), index;
	uint32_t value = (uint32_t)fuzz_take(in, 4), old;
	struct cow_counts_root root = m->super.counts;
	uint8_t *bytes = NULL, *selector[COW_COUNT_LEVELS] = {0}, super[8];
	int64_t free_more;

	if (block >= m->super.total_blocks)
		return;
	for (int level = COW_COUNT_LEVELS - 1; level >= 0; level--) {
		if (!root.initialised)
			return;
		index = block / COW_PIECE_BLOCKS >> (9 * level);
		bytes = fuzz_disk_block(m->disk, cow_layout_slot(level, index, root.slot));
		if (level == 0)
			break;
		selector[level] = bytes + (block / COW_PIECE_BLOCKS >> (9 * (level - 1))) % COW_SELECTORS * 8;
		root = cow_counts_selector(m->super.total_blocks, level, bytes,
					   block / COW_PIECE_BLOCKS >> (9 * (level - 1)));
	}
	old = get32(bytes + block % COW_PIECE_BLOCKS * 4);
	put32(bytes + block % COW_PIECE_BLOCKS * 4, value);
	free_more = (value == 0) - (old == 0);
	for (int level = 1; level < COW_COUNT_LEVELS; level++)
		put32(selector[level] + 4, (uint32_t)(get32(selector[level] + 4) + free_more));
	put64(super, get64(super_bytes(m, 0) + 88) + (uint64_t)free_more);
	change_super(m, 88, super, 8);
}

/* ------------------------------------------------------------------ one change */

static void change_bytes(struct fuzz_mutate *m, struct fuzz_input *in, unsigned width)
{
	uint8_t *node = take_node(m, in), bytes[8];
	unsigned at = take_offset(in, width);

	take_bytes(in, bytes, width);
	memcpy(node + at, bytes, width);
}

static void add(struct fuzz_mutate *m, struct fuzz_input *in)
{
	uint8_t *node = take_node(m, in);
	unsigned at = take_offset(in, 8);

	put64(node + at, get64(node + at) + (uint64_t)(int8_t)fuzz_take(in, 1));
}

static void copy_bytes(struct fuzz_mutate *m, struct fuzz_input *in)
{
	uint8_t *to = take_node(m, in);
	unsigned at = take_offset(in, 256);
	const uint8_t *from = take_node(m, in);
	unsigned from_at = take_offset(in, 256);

	memmove(to + at, from + from_at, fuzz_take(in, 1));
}

/* One node becomes the same as another, but for its address and birth. */
static void twin(struct fuzz_mutate *m, struct fuzz_input *in)
{
	uint8_t *to = take_node(m, in), head[16];
	const uint8_t *from = take_node(m, in);

	memcpy(head, to + 8, 16);
	memmove(to, from, COW_BLOCK);
	memcpy(to + 8, head, 16);
}

static void change_pointer(struct fuzz_mutate *m, struct fuzz_input *in)
{
	uint8_t *node = take_node(m, in);
	unsigned at = take_offset(in, COW_PTR_BYTES);

	cow_ptr_put(node + at, take_ptr(m, in));
}

static void change_root(struct fuzz_mutate *m, struct fuzz_input *in)
{
	unsigned root = (unsigned)fuzz_take(in, 1) % COW_ROOTS;
	uint8_t bytes[COW_PTR_BYTES];

	cow_ptr_put(bytes, take_ptr(m, in));
	change_super(m, 112 + root * COW_PTR_BYTES, bytes, COW_PTR_BYTES);
}

static void change_any(struct fuzz_mutate *m, struct fuzz_input *in)
{
	uint64_t block = fuzz_take(in, 2) % m->super.total_blocks;
	unsigned at = take_offset(in, 8);

	take_bytes(in, fuzz_disk_block(m->disk, block) + at, 8);
}

static void change_field(struct fuzz_mutate *m, struct fuzz_input *in)
{
	unsigned at = (unsigned)fuzz_take(in, 2) % (COW_SUPER_BYTES - 8), count = 1 + fuzz_take(in, 1) % 8;
	uint8_t bytes[8];

	take_bytes(in, bytes, count);
	change_super(m, at, bytes, count);
}

/* Bytes of the intent log, from its first record on. */
static void change_record(struct fuzz_mutate *m, struct fuzz_input *in)
{
	const struct cow_log_root *log = &m->super.log;
	uint64_t index = fuzz_take(in, 1), at = fuzz_take(in, 2) % COW_BLOCK, count = 1 + fuzz_take(in, 1) % 8;
	uint8_t bytes[8];

	take_bytes(in, bytes, count);
	if (log->blocks == 0)
		return;
	index = (log->position + index % 8) % log->blocks;
	if (at > COW_BLOCK - count)
		at = COW_BLOCK - count;
	memcpy(fuzz_disk_block(m->disk, cow_layout_ring(log->start, index)) + at, bytes, count);
}

bool fuzz_mutate_one(struct fuzz_mutate *m, struct fuzz_input *in)
{
	if (in->left == 0)
		return false;
	switch (fuzz_take(in, 1) % 19) {
	case 0: change_bytes(m, in, 1); break;
	case 1: change_bytes(m, in, 2); break;
	case 2: change_bytes(m, in, 4); break;
	case 3: change_bytes(m, in, 8); break;
	case 4: add(m, in); break;
	case 5: copy_bytes(m, in); break;
	case 6: change_pointer(m, in); break;
	case 7: twin(m, in); break;
	case 8: change_value(m, in, false); break;
	case 9: change_value(m, in, true); break;
	case 10: replace_value(m, in); break;
	case 11: change_key(m, in); break;
	case 12: drop_item(m, in); break;
	case 13: copy_item(m, in); break;
	case 14: change_count(m, in); break;
	case 15: change_field(m, in); break;
	case 16: change_root(m, in); break;
	case 17: change_any(m, in); break;
	case 18: change_record(m, in); break;
	}
	return true;
}
