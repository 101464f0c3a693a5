/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nodes. Input: u8 kind, u8 level, u16 items, then what is behind the header (an inner node), or for each item of a
 * leaf u64 key, u16 length, value; or, with bit 15 of the length, u16 where it starts.
 */
#include <assert.h>
#include <string.h>

#include "fs/format/record.h"
#include "store/node.h"
#include "test/fuzz/fuzz.h"

#define TOTAL_BLOCKS (1ull << 21)
#define BIRTH 1000

static void make_leaf(struct cow_node *node, struct fuzz_input *in, unsigned items)
{
	uint32_t end = COW_BLOCK;

	for (unsigned i = 0; i < items && COW_NODE_HEADER + (i + 1) * COW_LEAF_SLOT <= COW_BLOCK && in->left > 0; i++) {
		uint8_t *slot = cow_leaf_slot(node, i);
		uint32_t length;

		put64(slot, fuzz_take(in, 8));
		length = (uint32_t)fuzz_take(in, 2);
		if (length & 0x8000) {
			put16(slot + 8, (uint16_t)fuzz_take(in, 2));
			continue;
		}
		length = length > end ? end : length;
		end -= length;
		put16(slot + 8, (uint16_t)end);
		for (uint32_t k = 0; k < length; k++)
			node->bytes[end + k] = (uint8_t)fuzz_take(in, 1);
	}
}

static void check_tree(struct cow_claims *self, uint8_t *ptr, uint8_t kind)
{
	uint64_t addr = get64(ptr);

	(void)self, (void)kind;
	assert(addr < TOTAL_BLOCKS && (addr == 0 || !cow_layout_is_system(addr)));
}

static void check_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	(void)self;
	assert(cow_layout_run_valid(block, length, TOTAL_BLOCKS));
}

/* Everything that the engine reads of an accepted node. */
static void use(struct cow_node *node)
{
	static const struct cow_store_ops ops = {.validate = cow_value_validate, .claims = cow_value_claims};
	struct cow_store store = {.ops = &ops};
	struct cow_claims claims = {check_tree, check_run};
	unsigned items = cow_node_items(node);

	for (unsigned i = 0; i < items; i++) {
		uint64_t key = cow_node_key(node, i);

		assert(cow_node_find(node, key) == (int)i);
		assert(i == 0 || key > cow_node_key(node, i - 1));
		if (cow_node_level(node) == 0) {
			uint32_t length;
			uint8_t *value = cow_leaf_value(node, i, &length);

			assert(length <= COW_VALUE_MAX && value >= node->bytes &&
			       value + length <= node->bytes + COW_BLOCK);
		} else {
			assert(cow_inner_ptr(node, i).addr < TOTAL_BLOCKS && cow_inner_ptr(node, i).addr != 0);
			assert(cow_inner_ptr(node, i).generation <= BIRTH);
		}
	}
	cow_node_claims(&store, node, &claims);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct cow_store_ops ops = {.validate = cow_value_validate, .claims = cow_value_claims};
	struct fuzz_input in = {data, size};
	struct cow_node node = {0};

	put32(node.bytes, COW_NODE_MAGIC);
	node.bytes[4] = (uint8_t)fuzz_take(&in, 1);
	node.bytes[5] = (uint8_t)fuzz_take(&in, 1);
	put16(node.bytes + 6, (uint16_t)fuzz_take(&in, 2));
	put64(node.bytes + 16, BIRTH);
	if (node.bytes[5] == 0)
		make_leaf(&node, &in, get16(node.bytes + 6));
	else
		memcpy(node.bytes + COW_NODE_HEADER, in.at,
		       in.left < COW_BLOCK - COW_NODE_HEADER ? in.left : COW_BLOCK - COW_NODE_HEADER);
	if (cow_node_validate(&node, &ops, TOTAL_BLOCKS) == 0)
		use(&node);
	return 0;
}
