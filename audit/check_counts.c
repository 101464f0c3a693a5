/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many pointers lead to each block: counted while the walk meets them, and compared with what is stored.
 */
#include "audit/check_walk.h"

#include <inttypes.h>

#include "base/mem.h"

/* One byte a block: what it is, and how many pointers lead to it; from MANY on their number is in a map. */
#define MANY 0x3fu
#define POINTERS_MAX ((1ull << 32) - 1)

/* ------------------------------------------------------------------ counting */

static uint8_t *counter_of(struct cow_check *c, uint64_t block)
{
	uint64_t group = block / COW_PIECE_BLOCKS;
	uint8_t *page = cow_map_get(&c->pages, group);

	if (page == NULL) {
		page = cow_check_new(c, COW_PIECE_BLOCKS * sizeof(*page));
		cow_map_put(&c->pages, group, page);
	}
	return &page[block % COW_PIECE_BLOCKS];
}

bool cow_check_claim(struct cow_check *c, uint64_t block, enum cow_check_role role)
{
	uint8_t *count;
	bool first;

	if (c->again)
		return false;
	count = counter_of(c, block);
	first = *count == 0;
	if (first && ++c->done_blocks % 4096 == 0 && c->options->progress != NULL)
		c->options->progress(c->options->context, c->done_blocks, c->used_blocks);
	if (!first && (*count & role) == 0)
		cow_check_say(c, COW_FIND_BLOCK_ROLES, block, "block is both a node and file data");
	*count |= (uint8_t)role;
	if ((*count & MANY) == MANY) {
		uintptr_t many = (uintptr_t)cow_map_get(&c->many, block);

		cow_map_put(&c->many, block, (void *)(many < POINTERS_MAX ? many + 1 : many));
	} else if ((++*count & MANY) == MANY) {
		cow_map_put(&c->many, block, (void *)(uintptr_t)MANY);
	}
	return first;
}

static uint32_t pointers_of(const struct cow_check *c, const uint8_t *page, uint64_t block)
{
	uint8_t count = page != NULL ? page[block % COW_PIECE_BLOCKS] & MANY : 0;

	return count == MANY ? (uint32_t)(uintptr_t)cow_map_get(&c->many, block) : count;
}

uint32_t cow_check_pointers(const struct cow_check *c, uint64_t block)
{
	return pointers_of(c, cow_map_get(&c->pages, block / COW_PIECE_BLOCKS), block);
}

uint64_t *cow_check_groups(const struct cow_check *c, size_t *count)
{
	uint64_t *groups = cow_mem_new((c->pages.count + 1) * sizeof(*groups));
	struct cow_map_slot *slot;

	*count = 0;
	for (size_t i = 0; (slot = cow_map_each(&c->pages, &i)) != NULL;)
		groups[(*count)++] = slot->key;
	return groups;
}

/* ------------------------------------------------------------------ comparing */

struct compare {
	struct cow_check *check;
	struct cow_map pieces; /* that are initialised */
	bool bad; /* some are not readable: nothing is known of theirs */
};

static void compare_count(struct cow_check *c, uint64_t block, uint32_t stored, uint32_t found)
{
	if (stored < found)
		cow_check_say(c, COW_FIND_COUNT_LOW, block, "count is %u, pointers are %u", stored, found);
	else if (stored > found && c->unreadable == 0)
		cow_check_say(c, COW_FIND_COUNT_HIGH, block, "count is %u, pointers are %u", stored, found);
}

static int compare_piece(void *context, uint64_t piece, const uint32_t *counts)
{
	struct compare *compare = context;
	struct cow_check *c = compare->check;
	const uint8_t *page = cow_map_get(&c->pages, piece);

	for (uint32_t i = 0; i < COW_PIECE_BLOCKS; i++) {
		uint64_t block = piece * COW_PIECE_BLOCKS + i;

		if (block < c->super.total_blocks && !cow_layout_is_system(block))
			compare_count(c, block, counts[i], pointers_of(c, page, block));
	}
	cow_map_put(&compare->pieces, piece, compare);
	return 0;
}

static void bad_piece(void *context, int level, uint64_t index, const char *what)
{
	struct compare *compare = context;

	compare->bad = true;
	cow_check_say(compare->check, COW_FIND_COUNTS_BLOCK, 0, "counts of level %d, index %" PRIu64 ": %s", level,
		      index, what);
}

int cow_check_counts(struct cow_check *c)
{
	struct compare compare = {.check = c};
	struct cow_map_slot *slot;
	int result =
		cow_counts_scan(c->dev, c->super.total_blocks, &c->super.counts, compare_piece, bad_piece, &compare);

	/* pointers into pieces that were never written */
	for (size_t i = 0; !compare.bad && (slot = cow_map_each(&c->pages, &i)) != NULL;) {
		const uint8_t *page = slot->value;

		if (cow_map_get(&compare.pieces, slot->key) != NULL)
			continue;
		for (uint32_t k = 0; k < COW_PIECE_BLOCKS; k++) {
			uint64_t block = slot->key * COW_PIECE_BLOCKS + k;

			compare_count(c, block, 0, pointers_of(c, page, block));
		}
	}
	cow_map_free(&compare.pieces);
	return result;
}
