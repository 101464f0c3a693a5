/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Count pieces and selector blocks. Input: u8 level, u8 size of the volume, u16 index, then changes of a fresh block:
 * u16 place, u64 value each. The sum of free blocks is made to fit, as far as it can.
 */
#include <assert.h>
#include <string.h>

#include "base/bytes.h"
#include "store/counts_disk.h"
#include "test/fuzz/fuzz.h"

static const uint64_t sizes[] = {COW_VOLUME_BLOCKS_MIN, 4096 + 32, 1 << 20, (1 << 20) + 1000, 1ull << 30,
				 (1ull << 33) + 32, COW_VOLUME_BLOCKS_MAX};

static uint64_t sum_free(uint64_t total, int level, uint64_t index, const uint8_t *bytes)
{
	uint64_t entries = level == 0 ? 0 : cow_layout_entries(total, level - 1), sum = 0;

	if (level == 0)
		for (unsigned i = 0; i < COW_PIECE_BLOCKS; i++)
			sum += get32(bytes + 4 * i) == 0;
	else
		for (uint64_t i = index * COW_SELECTORS; i < (index + 1) * COW_SELECTORS && i < entries; i++)
			sum += cow_counts_selector(total, level, bytes, i).free_blocks;
	return sum;
}

/* Each selector accepted says the same when it is encoded again, and cannot promise more than there is. */
static void use(uint64_t total, int level, uint64_t index, const uint8_t *bytes)
{
	uint64_t entries = cow_layout_entries(total, level - 1);
	uint8_t again[COW_BLOCK] = {0};

	for (uint64_t i = index * COW_SELECTORS; i < (index + 1) * COW_SELECTORS && i < entries; i++) {
		struct cow_counts_root selector = cow_counts_selector(total, level, bytes, i);

		assert(selector.free_blocks <= cow_counts_fresh_free(total, level - 1, i));
		assert(cow_layout_slot(level - 1, i, selector.slot) < total);
		if (selector.initialised)
			cow_counts_selector_put(again, i, &selector);
	}
	assert(memcmp(bytes, again, COW_BLOCK) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	int level = (int)(fuzz_take(&in, 1) % COW_COUNT_LEVELS);
	uint64_t total = sizes[fuzz_take(&in, 1) % (sizeof(sizes) / sizeof(sizes[0]))];
	uint64_t index = fuzz_take(&in, 2) % cow_layout_entries(total, level);
	uint8_t bytes[COW_BLOCK];

	cow_counts_fresh_block(total, level, index, bytes);
	while (in.left > 0) {
		unsigned at = (unsigned)fuzz_take(&in, 2) % (COW_BLOCK / 4);

		if (level == 0)
			put32(bytes + at * 4, (uint32_t)fuzz_take(&in, 4));
		else
			put64(bytes + at / 2 * 8, fuzz_take(&in, 8));
	}
	if (cow_counts_judge(total, level, index, bytes, sum_free(total, level, index, bytes)) == NULL && level > 0)
		use(total, level, index, bytes);
	assert(cow_counts_judge(total, level, index, bytes, sum_free(total, level, index, bytes) + 1) != NULL);
	return 0;
}
