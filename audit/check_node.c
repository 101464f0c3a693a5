/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The nodes that the check has visited. One takes 16 bytes, and 6 to 11 in the hash of addresses.
 *
 * SUMS. What a node comes to is needed once for each pointer to it, so nearly always only once, by the parent that is
 * waiting for it. It is kept, in some hundred bytes, where the stored count says that more pointers will come. The
 * count may be wrong, and nothing rests on it: sums that were not kept are made again from the node, and then kept, so
 * that a node is read twice at most.
 */
#include "audit/check_walk.h"

#include <assert.h>
#include <string.h>

#include "store/counts_disk.h"

static size_t slot_of(const struct cow_check *c, uint64_t addr)
{
	size_t i = (size_t)(addr * 0x9e3779b97f4a7c15ull >> 24) & (c->index_size - 1); /* Knuth, TAOCP 6.4 */

	while (c->index[i] != 0 && c->nodes[c->index[i]].addr != addr)
		i = (i + 1) & (c->index_size - 1);
	return i;
}

uint32_t cow_check_node_find(const struct cow_check *c, uint64_t addr)
{
	return c->index_size != 0 ? c->index[slot_of(c, addr)] : 0;
}

/* The old index goes before there is a new one: it is made from the nodes. */
static void grow_index(struct cow_check *c)
{
	size_t size = c->index_size != 0 ? 2 * c->index_size : 1024;

	cow_check_free(c, c->index, c->index_size * sizeof(*c->index));
	c->index = cow_check_new(c, size * sizeof(*c->index));
	c->index_size = size;
	for (size_t i = 1; i < c->node_count; i++)
		c->index[slot_of(c, c->nodes[i].addr)] = (uint32_t)i;
}

uint32_t cow_check_node_add(struct cow_check *c, struct cow_ptr ptr, uint8_t kind)
{
	size_t node;

	if (c->node_count * 4 >= c->index_size * 3)
		grow_index(c);
	c->nodes = cow_check_grow(c, c->nodes, c->node_count + 1, &c->node_size, sizeof(*c->nodes));
	if (c->node_count == 0)
		c->nodes[c->node_count++] = (struct cow_check_node){0}; /* nobody */
	node = c->node_count;
	assert(node < UINT32_MAX); /* 16 TiB of them */
	c->nodes[node] = (struct cow_check_node){
		.print = cow_check_print(ptr.sum, ptr.generation),
		.addr = ptr.addr,
		.kind = kind,
		.bad = true,
		.partial = true,
	};
	c->node_count++;
	c->index[slot_of(c, ptr.addr)] = (uint32_t)node;
	return (uint32_t)node;
}

void cow_check_node_keep(struct cow_check *c, uint32_t node, const struct cow_check_sums *sums)
{
	struct cow_check_sums *kept = cow_check_new(c, sizeof(*kept));

	*kept = *sums;
	cow_map_put(&c->kept, node, kept);
}

/* ------------------------------------------------------------------ what the stored counts say */

/* The counts of a group; false if there are none that can be read, which is said when all of them are compared. */
static bool read_piece(struct cow_check *c, uint64_t group, uint8_t bytes[COW_BLOCK])
{
	struct cow_counts_root at = c->super.counts;
	const char *wrong;

	for (int level = COW_COUNT_LEVELS - 1;; level--) {
		if (!at.initialised || cow_counts_read(c->dev, c->super.total_blocks, level, group >> (9 * level), &at,
						       bytes, &wrong) != 0)
			return false;
		if (level == 0)
			return true;
		at = cow_counts_selector(c->super.total_blocks, level, bytes, group >> (9 * (level - 1)));
	}
}

bool cow_check_node_shared(struct cow_check *c, uint64_t addr)
{
	uint64_t group = addr / COW_PIECE_BLOCKS, i = addr % COW_PIECE_BLOCKS;
	uint8_t bytes[COW_BLOCK], *hints = cow_map_get(&c->hints, group);

	if (hints == NULL) {
		hints = cow_check_new(c, COW_PIECE_BLOCKS / 8);
		if (!read_piece(c, group, bytes))
			memset(hints, 0xff, COW_PIECE_BLOCKS / 8);
		else
			for (unsigned k = 0; k < COW_PIECE_BLOCKS; k++)
				if (get32(bytes + (size_t)4 * k) > 1)
					hints[k / 8] |= (uint8_t)(1u << k % 8);
		cow_map_put(&c->hints, group, hints);
	}
	return (hints[i / 8] >> i % 8 & 1) != 0;
}
