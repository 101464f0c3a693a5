/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where everything is on the device, in numbers; doc/FORMAT.md says it in words.
 *
 * The device is an array of blocks of 4 KiB, in groups of 1,024 (4 MiB). Blocks 16 to 31 of a group are kept
 * for counts, so every slot has a fixed place that grows with the device:
 *
 *   block of a group   0..15       superblock ring (group 0 only; elsewhere ordinary blocks)
 *                      16, 17      the group's count piece, slots 0 and 1
 *                      18, 19      selectors of level 1, slots 0, 1: first group of every 512 (2 GiB)
 *                      20, 21      selectors of level 2: first group of every 512^2 (1 TiB)
 *                      22, 23      selectors of level 3: group 0 (512 TiB)
 *
 * A block at one of these places is a system block; its count is 1 for ever. The last group is whole or has at least
 * 32 blocks, so that its slots exist (cow_layout_round()).
 */
#ifndef COW_STORE_LAYOUT_H
#define COW_STORE_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

#define COW_BLOCK 4096u
#define COW_BLOCK_SHIFT 12
#define COW_PIECE_BLOCKS 1024u   /* counts in a piece, blocks in a group */
#define COW_SELECTORS 512u       /* selectors in a selector block */
#define COW_COUNT_LEVELS 4       /* level 0: pieces; 1 to 3: selector blocks */
#define COW_SLOT_FIRST 16u       /* first count slot in a group */
#define COW_COUNT_MAX 0x7fffffffu

#define COW_SUPER_SLOTS 4u       /* ring; copy A of slot i in block i, copy B in block 8 + i */
#define COW_SUPER_B 8u

#define COW_LOG_BLOCKS_MIN 16u
#define COW_LOG_BLOCKS_MAX 65536u /* 256 MiB */

#define COW_VOLUME_BLOCKS_MIN 4096u                 /* 16 MiB */
#define COW_VOLUME_BLOCKS_MAX (1ull << 37)          /* 512 TiB */

/* Groups (level 0), or selector blocks (level 1 to 3), needed for a volume. */
static inline uint64_t cow_layout_entries(uint64_t total_blocks, int level)
{
	uint64_t n = (total_blocks + COW_PIECE_BLOCKS - 1) / COW_PIECE_BLOCKS;

	for (; level > 0; level--)
		n = (n + COW_SELECTORS - 1) / COW_SELECTORS;
	return n;
}

/* The device block of slot `slot` (0, 1) of entry `index` at `level`. */
static inline uint64_t cow_layout_slot(int level, uint64_t index, unsigned slot)
{
	return (index << (9 * level)) * COW_PIECE_BLOCKS + COW_SLOT_FIRST + 2u * (unsigned)level + slot;
}

static inline bool cow_layout_is_system(uint64_t block)
{
	uint64_t group = block / COW_PIECE_BLOCKS, in = block % COW_PIECE_BLOCKS;

	if (in >= COW_SLOT_FIRST + 2 * COW_COUNT_LEVELS)
		return false;
	if (in < COW_SLOT_FIRST)
		return group == 0;
	for (int level = 0; level < COW_COUNT_LEVELS; level++)
		if (group % (1ull << (9 * level)) == 0 && in / 2 == COW_SLOT_FIRST / 2 + (unsigned)level)
			return true;
	return false;
}

/* Can a pointer or an extent lead to these blocks? They exist, and none is a system block. For decoders. */
static inline bool cow_layout_run_valid(uint64_t block, uint64_t length, uint64_t total_blocks)
{
	if (length == 0 || length > COW_PIECE_BLOCKS || block >= total_blocks || length > total_blocks - block)
		return false;
	for (uint64_t end = block + length; block < end; block++)
		if (cow_layout_is_system(block))
			return false;
	return true;
}

/*
 * The ring of the intent log: blocks from `start` on, without those that are kept for system blocks at the begin of
 * each group. Block `index` of it.
 */
static inline uint64_t cow_layout_ring(uint64_t start, uint64_t index)
{
	const uint64_t skip = 2u * COW_SLOT_FIRST, room = COW_PIECE_BLOCKS - skip;
	uint64_t at = start % COW_PIECE_BLOCKS - skip + index;

	return (start / COW_PIECE_BLOCKS + at / room) * COW_PIECE_BLOCKS + skip + at % room;
}

static inline bool cow_layout_ring_valid(uint64_t start, uint32_t blocks, uint64_t total_blocks)
{
	return start < total_blocks && start % COW_PIECE_BLOCKS >= 2u * COW_SLOT_FIRST &&
	       blocks >= COW_LOG_BLOCKS_MIN && blocks <= COW_LOG_BLOCKS_MAX &&
	       cow_layout_ring(start, blocks - 1) < total_blocks;
}

/* The largest volume that fits into so many blocks. */
static inline uint64_t cow_layout_round(uint64_t blocks)
{
	return blocks % COW_PIECE_BLOCKS < 2 * COW_SLOT_FIRST ? blocks - blocks % COW_PIECE_BLOCKS : blocks;
}

#endif
