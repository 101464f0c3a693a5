/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Blocks: which are free for sure, and counts made anew from the pointers that were found.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"
#include "audit/repair.h"
#include "store/counts_disk.h"

#define WORDS (COW_PIECE_BLOCKS / 64)

/* ------------------------------------------------------------------ what was stored */

static int keep_piece(void *context, uint64_t piece, const uint32_t *counts)
{
	struct cow_repair *r = context;

	cow_map_put(&r->stored, piece, cow_mem_copy(counts, COW_PIECE_BLOCKS * sizeof(*counts)));
	return 0;
}

static void bad_block(void *context, int level, uint64_t index, const char *what)
{
	struct cow_repair *r = context;

	(void)what;
	r->unknown = cow_mem_resize(r->unknown, (r->unknown_count + 1) * sizeof(*r->unknown));
	r->unknown[r->unknown_count++] = (struct cow_unknown){index << (9 * level), (index + 1) << (9 * level)};
}

void cow_repair_read_counts(struct cow_repair *r)
{
	int error = cow_counts_scan(r->dev, r->super.total_blocks, &r->super.counts, keep_piece, bad_block, r);

	if (error != 0 && r->error == 0)
		r->error = error;
}

/* They ascend, and do not overlap: what is below a damaged block was not read. */
static bool is_unknown(const struct cow_repair *r, uint64_t group)
{
	size_t low = 0, high = r->unknown_count; /* the first that begins behind it is in [low, high] */

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (r->unknown[middle].from <= group)
			low = middle + 1;
		else
			high = middle;
	}
	return low > 0 && group < r->unknown[low - 1].to;
}

int64_t cow_repair_stored(const struct cow_repair *r, uint64_t block)
{
	uint64_t group = block / COW_PIECE_BLOCKS;
	const uint32_t *counts = cow_map_get(&r->stored, group);

	if (cow_layout_is_system(block))
		return 1;
	if (counts != NULL)
		return counts[block % COW_PIECE_BLOCKS];
	return is_unknown(r, group) ? -1 : 0; /* 0: never written */
}

/* ------------------------------------------------------------------ what is reached */

void cow_repair_reach(struct cow_repair *r, uint64_t block)
{
	uint64_t *bits = cow_map_get(&r->reached, block / COW_PIECE_BLOCKS);

	if (bits == NULL) {
		bits = cow_mem_new(WORDS * sizeof(*bits));
		cow_map_put(&r->reached, block / COW_PIECE_BLOCKS, bits);
	}
	bits[block % COW_PIECE_BLOCKS / 64] |= 1ull << block % 64;
}

bool cow_repair_reached(const struct cow_repair *r, uint64_t block)
{
	const uint64_t *bits = cow_map_get(&r->reached, block / COW_PIECE_BLOCKS);

	return bits != NULL && (bits[block % COW_PIECE_BLOCKS / 64] >> block % 64 & 1) != 0;
}

/* ------------------------------------------------------------------ allocation */

/* Pass 0: the count is known to be 0. Pass 1: nothing is known, but nothing leads there either (the undo file has what
 * it held). */
static bool is_free(const struct cow_repair *r, uint64_t block, int pass)
{
	int64_t stored = cow_repair_stored(r, block);

	if (cow_layout_is_system(block) || cow_repair_reached(r, block))
		return false;
	return stored == 0 || (pass == 1 && stored < 0);
}

uint64_t cow_repair_alloc(struct cow_repair *r, uint32_t want, uint32_t *got)
{
	uint64_t total = r->super.total_blocks, shift = 1ull << 62;

	*got = 0;
	/* next_block has the pass in a high bit: passes are never gone back to */
	for (; r->next_block < shift + total; r->next_block++) {
		int pass = r->next_block >= shift;
		uint64_t start = r->next_block - (pass ? shift : 0);

		if (start >= total) {
			if (pass)
				break;
			r->next_block = shift - 1;
			continue;
		}
		if (!is_free(r, start, pass))
			continue;
		while (*got < want && start + *got < total && is_free(r, start + *got, pass))
			cow_repair_reach(r, start + (*got)++);
		r->next_block += *got;
		return start;
	}
	if (r->error == 0)
		r->error = -ENOSPC;
	return 0;
}

/* ------------------------------------------------------------------ writing */

struct rebuild {
	struct cow_repair *repair;
	struct cow_check *found;
	uint64_t *groups; /* with pointers, ascending */
	size_t group_count;
};

static int order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static bool any_pointers(const struct rebuild *b, int level, uint64_t index)
{
	uint64_t from = index << (9 * level), to = (index + 1) << (9 * level);
	size_t low = 0, high = b->group_count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (b->groups[middle] < from)
			low = middle + 1;
		else
			high = middle;
	}
	return low < b->group_count && b->groups[low] < to;
}

static void fill_piece(const struct rebuild *b, uint64_t index, uint8_t bytes[COW_BLOCK], uint64_t *free_blocks)
{
	uint64_t total = b->repair->super.total_blocks;

	*free_blocks = 0;
	cow_counts_fresh_block(total, 0, index, bytes);
	for (uint32_t i = 0; i < COW_PIECE_BLOCKS; i++) {
		uint64_t block = index * COW_PIECE_BLOCKS + i;

		if (block < total && !cow_layout_is_system(block))
			put32(bytes + (size_t)4 * i, cow_check_pointers(b->found, block));
		*free_blocks += get32(bytes + (size_t)4 * i) == 0;
	}
}

static int rebuild(struct rebuild *b, int level, uint64_t index, const struct cow_counts_root *old, bool known,
		   struct cow_counts_root *now);

/* The selectors of what is below; *free_blocks: their sum. */
static int fill_selectors(struct rebuild *b, int level, uint64_t index, const uint8_t *before, bool known,
			  uint8_t bytes[COW_BLOCK], uint64_t *free_blocks)
{
	uint64_t total = b->repair->super.total_blocks, entries = cow_layout_entries(total, level - 1);

	memset(bytes, 0, COW_BLOCK);
	*free_blocks = 0;
	for (uint64_t child = index * COW_SELECTORS; child < (index + 1) * COW_SELECTORS && child < entries; child++) {
		struct cow_counts_root old = {0}, now;
		int error;

		if (known)
			old = cow_counts_selector(total, level, before, child);
		error = rebuild(b, level - 1, child, &old, known, &now);
		if (error != 0)
			return error;
		if (now.initialised)
			cow_counts_selector_put(bytes, child, &now);
		*free_blocks += now.free_blocks;
	}
	return 0;
}

/*
 * One piece or selector block. `known`: `old` is what was stored. What is as it should be stays where it is. With
 * nothing known either slot may be written: whoever could tell which is live is gone.
 */
static int rebuild(struct rebuild *b, int level, uint64_t index, const struct cow_counts_root *old, bool known,
		   struct cow_counts_root *now)
{
	struct cow_repair *r = b->repair;
	uint64_t total = r->super.total_blocks, free_blocks;
	uint8_t before[COW_BLOCK], bytes[COW_BLOCK];
	const char *wrong;
	bool readable = false;
	int error = 0;

	if ((!known || !old->initialised) && !any_pointers(b, level, index)) {
		*now = (struct cow_counts_root){.free_blocks = cow_counts_fresh_free(total, level, index)};
		return 0;
	}
	if (known && old->initialised)
		readable = cow_counts_read(r->dev, total, level, index, old, before, &wrong) == 0;
	if (known && !old->initialised) {
		readable = true;
		memset(before, 0, COW_BLOCK);
	}
	if (level == 0)
		fill_piece(b, index, bytes, &free_blocks);
	else
		error = fill_selectors(b, level, index, before, readable, bytes, &free_blocks);
	if (error != 0)
		return error;
	*now = (struct cow_counts_root){.sum = cow_counts_sum(bytes), .initialised = 1, .free_blocks = free_blocks};
	if (known && old->initialised) {
		now->slot = old->slot;
		if (readable && memcmp(before, bytes, COW_BLOCK) == 0)
			return 0;
		now->slot = !old->slot;
	}
	return cow_dev_write(r->overlay, bytes, COW_BLOCK, cow_layout_slot(level, index, now->slot) << COW_BLOCK_SHIFT);
}

int cow_repair_write_counts(struct cow_repair *r, struct cow_check *found)
{
	struct rebuild b = {.repair = r, .found = found};
	struct cow_counts_root now;
	int error;

	b.groups = cow_check_groups(found, &b.group_count);
	if (b.group_count > 1)
		qsort(b.groups, b.group_count, sizeof(*b.groups), order);
	error = rebuild(&b, COW_COUNT_LEVELS - 1, 0, &r->super.counts, true, &now);
	if (error == 0)
		r->super.counts = now;
	free(b.groups);
	return error;
}
