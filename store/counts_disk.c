/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/counts_disk.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "cow.h"

#define INITIALISED (1u << 31)
#define SLOT (1u << 30)
#define FREE_MASK (SLOT - 1)

static uint64_t multiples(uint64_t from, uint64_t to, uint64_t of)
{
	return (to + of - 1) / of - (from + of - 1) / of;
}

uint64_t cow_counts_fresh_free(uint64_t total_blocks, int level, uint64_t index)
{
	uint64_t from = index << (9 * level), to = (index + 1) << (9 * level);
	uint64_t groups = cow_layout_entries(total_blocks, 0);
	uint64_t system = from == 0 ? COW_SLOT_FIRST : 0, end;

	if (to > groups)
		to = groups;
	assert(from < to);
	for (int l = 0; l < COW_COUNT_LEVELS; l++)
		system += 2 * multiples(from, to, 1ull << (9 * l));
	end = to * COW_PIECE_BLOCKS;
	if (end > total_blocks)
		end = total_blocks;
	return end - from * COW_PIECE_BLOCKS - system;
}

/* Is the block's count 1 for ever? */
static bool is_fixed(uint64_t total_blocks, uint64_t block)
{
	return block >= total_blocks || cow_layout_is_system(block);
}

void cow_counts_fresh_block(uint64_t total_blocks, int level, uint64_t index, uint8_t bytes[COW_BLOCK])
{
	memset(bytes, 0, COW_BLOCK);
	if (level > 0)
		return;
	for (uint64_t i = 0; i < COW_PIECE_BLOCKS; i++)
		if (is_fixed(total_blocks, index * COW_PIECE_BLOCKS + i))
			put32(bytes + 4 * i, 1);
}

struct cow_counts_root cow_counts_selector(uint64_t total_blocks, int level, const uint8_t *bytes, uint64_t child)
{
	const uint8_t *at = bytes + child % COW_SELECTORS * 8;
	uint32_t info = get32(at + 4);

	if ((info & INITIALISED) == 0)
		return (struct cow_counts_root){
			.free_blocks = cow_counts_fresh_free(total_blocks, level - 1, child),
		};
	return (struct cow_counts_root){
		.sum = get32(at),
		.slot = (info & SLOT) != 0,
		.initialised = 1,
		.free_blocks = info & FREE_MASK,
	};
}

void cow_counts_selector_put(uint8_t *bytes, uint64_t child, const struct cow_counts_root *selector)
{
	uint8_t *at = bytes + child % COW_SELECTORS * 8;

	assert(selector->initialised && selector->free_blocks <= FREE_MASK);
	put32(at, selector->sum);
	put32(at + 4, INITIALISED | (selector->slot ? SLOT : 0) | (uint32_t)selector->free_blocks);
}

uint32_t cow_counts_sum(const uint8_t bytes[COW_BLOCK])
{
	return (uint32_t)XXH3_64bits(bytes, COW_BLOCK);
}

static const char *judge_piece(uint64_t total_blocks, uint64_t index, const uint8_t *bytes, uint64_t free_blocks)
{
	uint64_t found = 0;

	for (uint64_t i = 0; i < COW_PIECE_BLOCKS; i++) {
		uint32_t count = get32(bytes + 4 * i);

		if (count > COW_COUNT_MAX)
			return "a count is out of range";
		if (count != 1 && is_fixed(total_blocks, index * COW_PIECE_BLOCKS + i))
			return "the count of a system block is not 1";
		found += count == 0;
	}
	return found == free_blocks ? NULL : "the number of free blocks does not fit its selector";
}

static const char *judge_selectors(uint64_t total_blocks, int level, uint64_t index, const uint8_t *bytes,
				   uint64_t free_blocks)
{
	uint64_t entries = cow_layout_entries(total_blocks, level - 1), found = 0;

	for (uint64_t i = 0; i < COW_SELECTORS; i++) {
		uint64_t child = index * COW_SELECTORS + i;
		uint64_t raw = get64(bytes + 8 * i);
		struct cow_counts_root selector;

		if (child >= entries) {
			if (raw != 0)
				return "a selector lies beyond the end of the volume";
			continue;
		}
		selector = cow_counts_selector(total_blocks, level, bytes, child);
		if (!selector.initialised && raw != 0)
			return "a selector that is not initialised is not zero";
		if (selector.free_blocks > cow_counts_fresh_free(total_blocks, level - 1, child))
			return "a selector has more free blocks than blocks";
		found += selector.free_blocks;
	}
	return found == free_blocks ? NULL : "the number of free blocks does not fit its selector";
}

const char *cow_counts_judge(uint64_t total_blocks, int level, uint64_t index, const uint8_t *bytes,
			     uint64_t free_blocks)
{
	return level == 0 ? judge_piece(total_blocks, index, bytes, free_blocks)
			  : judge_selectors(total_blocks, level, index, bytes, free_blocks);
}

int cow_counts_read(struct cow_dev *dev, uint64_t total_blocks, int level, uint64_t index,
		    const struct cow_counts_root *selector, uint8_t bytes[COW_BLOCK], const char **wrong)
{
	uint64_t block = cow_layout_slot(level, index, selector->slot);
	int result;

	*wrong = NULL;
	result = cow_dev_read(dev, bytes, COW_BLOCK, block << COW_BLOCK_SHIFT);
	if (result != 0) {
		*wrong = "cannot be read";
		return result;
	}
	if (cow_counts_sum(bytes) != selector->sum)
		*wrong = "the checksum does not fit its selector";
	else
		*wrong = cow_counts_judge(total_blocks, level, index, bytes, selector->free_blocks);
	return *wrong == NULL ? 0 : COW_ERR_DAMAGED;
}

/* ------------------------------------------------------------------ scan */

struct scan {
	struct cow_dev *dev;
	uint64_t total_blocks;
	cow_counts_piece_fn piece;
	cow_counts_bad_fn bad;
	void *context;
};

static int scan_piece(struct scan *scan, uint64_t index, const uint8_t *bytes)
{
	uint32_t counts[COW_PIECE_BLOCKS];

	for (unsigned i = 0; i < COW_PIECE_BLOCKS; i++)
		counts[i] = get32(bytes + (size_t)4 * i);
	return scan->piece(scan->context, index, counts);
}

static int scan_entry(struct scan *scan, int level, uint64_t index, const struct cow_counts_root *selector)
{
	uint64_t child = index * COW_SELECTORS, end = child + COW_SELECTORS, entries;
	uint8_t bytes[COW_BLOCK];
	const char *wrong;
	int result = 0;

	if (!selector->initialised)
		return 0;
	if (cow_counts_read(scan->dev, scan->total_blocks, level, index, selector, bytes, &wrong) != 0) {
		scan->bad(scan->context, level, index, wrong);
		return 0;
	}
	if (level == 0)
		return scan_piece(scan, index, bytes);
	entries = cow_layout_entries(scan->total_blocks, level - 1);
	for (; result == 0 && child < end && child < entries; child++) {
		struct cow_counts_root below = cow_counts_selector(scan->total_blocks, level, bytes, child);

		result = scan_entry(scan, level - 1, child, &below);
	}
	return result;
}

int cow_counts_scan(struct cow_dev *dev, uint64_t total_blocks, const struct cow_counts_root *root,
		    cow_counts_piece_fn piece, cow_counts_bad_fn bad, void *context)
{
	struct scan scan = {dev, total_blocks, piece, bad, context};

	return scan_entry(&scan, COW_COUNT_LEVELS - 1, 0, root);
}
