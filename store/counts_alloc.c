/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which block is given out next, whether the host has space for it, and what goes back to the host. See counts.h for
 * the rule that every allocation holds to.
 */
#include "store/counts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "store/counts_disk.h"
#include "store/counts_memory.h"

#define ROOMY (COW_PIECE_BLOCKS / 8) /* free blocks that make a group worth going to while there are such groups */
#define ASK_GROUPS 16u /* for which the host is asked for space at once, 64 MiB */
#define TRIM_GROUPS 256u /* in one call of cow_counts_trim() */
#define REFUSALS_MAX 64u /* groups that the host is asked for in vain before it counts as full */

/* ------------------------------------------------------------------ what is available */

static uint32_t taken_in(const struct cow_counts_deltas *deltas, uint64_t group)
{
	const struct cow_counts_delta *delta = cow_map_get(&deltas->map, group);

	return delta != NULL ? delta->taken : 0;
}

static uint32_t taken(const struct cow_counts *c, uint64_t group)
{
	return taken_in(&c->open, group) + taken_in(&c->sealed, group);
}

uint64_t cow_counts_available(const struct cow_counts *c)
{
	return c->host_full ? c->ready : c->available;
}

uint64_t cow_counts_ready(const struct cow_counts *c)
{
	return c->ready;
}

/* ------------------------------------------------------------------ space on the host */

static bool get_bit(const uint64_t *bits, uint64_t i)
{
	return (bits[i / 64] >> i % 64 & 1) != 0;
}

static void set_bit(uint64_t *bits, uint64_t i)
{
	bits[i / 64] |= 1ull << i % 64;
}

bool cow_counts_is_ensured(const struct cow_counts *c, uint64_t group)
{
	const struct cow_counts_region *region = cow_map_get(&c->regions, group / COW_SELECTORS);

	return region != NULL && get_bit(region->ensured, group % COW_SELECTORS);
}

static bool is_refused(const struct cow_counts *c, uint64_t group)
{
	const struct cow_counts_region *region = cow_map_get(&c->regions, group / COW_SELECTORS);

	return region != NULL && get_bit(region->refused, group % COW_SELECTORS);
}

static struct cow_counts_region *region_of(struct cow_counts *c, uint64_t group)
{
	struct cow_counts_region *region = cow_map_get(&c->regions, group / COW_SELECTORS);

	if (region == NULL) {
		region = cow_mem_new(sizeof(*region));
		cow_map_put(&c->regions, group / COW_SELECTORS, region);
	}
	return region;
}

/* Blocks of a group that may be allocated now. Only for groups whose selector was looked at before. */
static uint64_t untaken(struct cow_counts *c, uint64_t group)
{
	struct cow_counts_root selector;
	uint64_t miss;
	int result = cow_counts_find_selector(c, 0, group, &selector, &miss);

	assert(result == 0);
	return selector.free_blocks - taken(c, group);
}

void cow_counts_forgive_host(struct cow_counts *c)
{
	struct cow_map_slot *slot;

	if (!c->host_full)
		return;
	c->host_full = false;
	c->refusals = 0;
	for (size_t i = 0; (slot = cow_map_each(&c->regions, &i)) != NULL;) {
		struct cow_counts_region *region = slot->value;

		memset(region->refused, 0, sizeof(region->refused));
	}
}

/* [not locked] */
static int ensure_blocks(struct cow_counts *c, uint64_t group, uint64_t groups)
{
	uint64_t first = group * COW_PIECE_BLOCKS, length = groups * COW_PIECE_BLOCKS;

	if (length > c->total_blocks - first)
		length = c->total_blocks - first;
	return cow_dev_ensure(c->dev, first << COW_BLOCK_SHIFT, length << COW_BLOCK_SHIFT);
}

/* [not locked] The selector blocks on the way to a region's pieces, which a commit will write. */
static int ensure_selectors(struct cow_counts *c, uint64_t group)
{
	int result = 0;

	for (int level = 1; result == 0 && level < COW_COUNT_LEVELS; level++) {
		uint64_t block = cow_layout_slot(level, group >> (9 * level), 0);

		result = cow_dev_ensure(c->dev, block << COW_BLOCK_SHIFT, 2 * COW_BLOCK);
	}
	return result;
}

/*
 * [locked] How many groups to ask for at once, from `group` on: as many as were asked for since the last commit, so
 * that who writes much asks seldom. The host stops all writing to the image for each time.
 */
static uint64_t groups_to_ask(struct cow_counts *c, uint64_t group)
{
	uint64_t most = c->asked_groups < ASK_GROUPS ? c->asked_groups : ASK_GROUPS, count = 1, miss;
	struct cow_counts_root selector;

	while (count < most && group + count < c->groups && (group + count) % COW_SELECTORS != 0 &&
	       !cow_counts_is_ensured(c, group + count) && !is_refused(c, group + count) &&
	       cow_counts_find_selector(c, 0, group + count, &selector, &miss) == 0 && selector.free_blocks >= ROOMY)
		count++;
	return count;
}

/*
 * [locked] Gives up the lock meanwhile. *groups: for how many it holds. Again, if space was discarded that may have
 * been given just before.
 */
static int ask_host(struct cow_counts *c, uint64_t group, uint64_t *groups)
{
	struct cow_counts_region *region = region_of(c, group);
	uint32_t discards;
	int result;

	*groups = groups_to_ask(c, group);
	do {
		bool selectors = region->selectors_ensured;

		discards = region->discards;
		pthread_mutex_unlock(c->lock);
		result = ensure_blocks(c, group, *groups);
		if (result == -ENOSPC && *groups > 1) {
			*groups = 1;
			result = ensure_blocks(c, group, 1);
		}
		if (result == 0 && !selectors)
			result = ensure_selectors(c, group);
		pthread_mutex_lock(c->lock);
		region->selectors_ensured |= result == 0;
	} while (result == 0 && region->discards != discards);
	c->asked_groups += *groups;
	return result;
}

int cow_counts_ensure_group(struct cow_counts *c, uint64_t group)
{
	struct cow_counts_region *region;
	uint64_t groups = 0;
	int result = 0;

	pthread_mutex_lock(c->lock);
	region = region_of(c, group);
	if (!cow_counts_is_ensured(c, group))
		result = ask_host(c, group, &groups);
	for (uint64_t g = group; result == 0 && g < group + groups; g++) {
		if (cow_counts_is_ensured(c, g)) /* somebody else asked, too */
			continue;
		set_bit(region->ensured, g % COW_SELECTORS);
		region->refused[g % COW_SELECTORS / 64] &= ~(1ull << g % 64);
		c->ready += untaken(c, g);
	}
	if (result == -ENOSPC) {
		set_bit(region->refused, group % COW_SELECTORS);
		c->host_full = true;
		c->refusals++;
		result = 0; /* alloc goes elsewhere, and says -ENOSPC when there is nothing else */
	}
	pthread_mutex_unlock(c->lock);
	return result;
}

/* Some of the group was discarded: the host is asked for all of it again before it is used. */
static void set_unsure(struct cow_counts *c, uint64_t group)
{
	struct cow_counts_region *region = region_of(c, group);

	region->discards++;
	if (!cow_counts_is_ensured(c, group))
		return;
	region->ensured[group % COW_SELECTORS / 64] &= ~(1ull << group % 64);
	c->ready -= untaken(c, group);
}

/* ------------------------------------------------------------------ finding a group */

struct search {
	struct cow_counts *counts;
	uint64_t from, end; /* groups */
	uint64_t least; /* free blocks wanted */
	const struct cow_counts_cursor *avoid; /* cursors whose groups are not wanted, one for each class; or NULL */
	enum cow_alloc_class class;
	bool unsure; /* only groups that the host was not asked for yet */
	bool ensured; /* only groups that are known to have their space on the host */
	uint64_t found;
	uint64_t *miss;
};

static bool suits(const struct search *s, uint64_t group, const struct cow_counts_root *selector)
{
	struct cow_counts *c = s->counts;

	if (selector->free_blocks < s->least + taken(c, group) || is_refused(c, group))
		return false;
	if ((s->unsure || s->ensured) && cow_counts_is_ensured(c, group) != s->ensured)
		return false;
	/* a group that was in use before probably has its space */
	if (c->host_full && !selector->initialised && !cow_counts_is_ensured(c, group))
		return false;
	for (int class = 0; s->avoid != NULL && class < COW_ALLOC_CLASSES; class ++)
		if (class != (int)s->class && s->avoid[class].set && s->avoid[class].group == group)
			return false;
	return true;
}

/* The first group that suits, by descending only where enough is free. 0, -ENOENT or COW_MISS. */
static int search_below(struct search *s, int level, uint64_t index)
{
	int shift = 9 * (level - 1);
	uint64_t child = index * COW_SELECTORS, end = child + COW_SELECTORS;
	uint64_t entries = cow_layout_entries(s->counts->total_blocks, level - 1);

	if (s->ensured && level == 1 && cow_map_get(&s->counts->regions, index) == NULL)
		return -ENOENT;
	if (child < s->from >> shift)
		child = s->from >> shift;
	for (; child < end && child < entries && child << shift < s->end; child++) {
		struct cow_counts_root selector;
		int result = cow_counts_find_selector(s->counts, level - 1, child, &selector, s->miss);

		if (result != 0)
			return result;
		if (selector.free_blocks < s->least)
			continue;
		if (level > 1) {
			result = search_below(s, level - 1, child);
			if (result != -ENOENT)
				return result;
		} else if (suits(s, child, &selector)) {
			s->found = child;
			return 0;
		}
	}
	return -ENOENT;
}

/* From `start` to the end, then from the beginning up to and with `start`. */
static int search_round(struct search *s, uint64_t start)
{
	int result;

	s->from = start;
	s->end = s->counts->groups;
	result = search_below(s, COW_COUNT_TOP, 0);
	if (result != -ENOENT)
		return result;
	s->from = 0;
	s->end = start;
	return search_below(s, COW_COUNT_TOP, 0);
}

/*
 * Where the class goes on when its group is used up, in this order. A group that has its space on the host, and was
 * used before, is written without work for the host's allocator and its journal: what is overwritten again and again
 * goes round in the same groups. Roomy groups of its own, so that runs are long and nodes lie together. When there is
 * none, any group but another class's; then any.
 */
static const struct pass {
	uint64_t least;
	bool ensured, avoid;
	bool once; /* only a commit frees blocks: if it finds nothing, not again before that */
} passes[] = {
	{COW_PIECE_BLOCKS / 2, true, true, true},
	{ROOMY, false, true, true},
	{1, false, true, false},
	{1, false, false, false},
};
#define PASSES (sizeof(passes) / sizeof(passes[0]))

static int next_group(struct cow_counts *c, enum cow_alloc_class class, uint64_t *miss)
{
	struct cow_counts_cursor *cursor = &c->cursors[class];
	uint64_t start = cursor->set ? cursor->group + 1 : 0;
	struct search search = {.counts = c, .class = class, .miss = miss};
	int result = -ENOENT;

	for (unsigned i = c->first_pass[class]; result == -ENOENT && i < PASSES; i++) {
		search.least = passes[i].least;
		search.ensured = passes[i].ensured;
		search.avoid = passes[i].avoid ? c->cursors : NULL;
		result = search_round(&search, start);
		if (result == -ENOENT && passes[i].once)
			c->first_pass[class] = (uint8_t)(i + 1);
	}
	if (result == 0)
		*cursor = (struct cow_counts_cursor){.set = true, .group = search.found};
	return result == -ENOENT ? -ENOSPC : result;
}

/* ------------------------------------------------------------------ allocation */

static uint32_t next_bit(const uint64_t *bits, uint32_t from, bool value)
{
	uint32_t word = from / 64;
	uint64_t bits_left;

	if (from >= COW_PIECE_BLOCKS)
		return COW_PIECE_BLOCKS;
	bits_left = (value ? bits[word] : ~bits[word]) & ~0ull << from % 64;
	while (bits_left == 0) {
		if (++word == COW_PIECE_WORDS)
			return COW_PIECE_BLOCKS;
		bits_left = value ? bits[word] : ~bits[word];
	}
	return word * 64 + (uint32_t)__builtin_ctzll(bits_left);
}

/* The first run of `want` free blocks from `position`, or the longest there is. Length 0: none. */
static uint32_t find_run(const uint64_t *busy, uint32_t position, uint32_t want, uint32_t *length)
{
	uint32_t best = 0, at = next_bit(busy, position, false);

	*length = 0;
	while (at < COW_PIECE_BLOCKS && *length < want) {
		uint32_t end = next_bit(busy, at, true);

		if (end - at > *length) {
			best = at;
			*length = end - at;
		}
		at = next_bit(busy, end, false);
	}
	if (*length > want)
		*length = want;
	return best;
}

/* The allocation rule: durable count 0, and not allocated since, in neither generation. */
static void unallocatable(const struct cow_counts *c, const struct cow_counts_piece *piece,
			  uint64_t busy[COW_PIECE_WORDS])
{
	const struct cow_map *maps[] = {&c->open.map, &c->sealed.map};

	memcpy(busy, piece->busy, sizeof(piece->busy));
	for (unsigned m = 0; m < 2; m++) {
		const struct cow_counts_delta *delta = cow_map_get(maps[m], piece->index);

		for (unsigned i = 0; delta != NULL && i < COW_PIECE_WORDS; i++)
			busy[i] |= delta->allocated[i];
	}
}

/* Until release(), or for the rest of this generation and the next. */
static void take(struct cow_counts *c, struct cow_counts_delta *delta, uint32_t at, uint32_t length)
{
	assert(c->available >= length);
	for (uint32_t i = at; i < at + length; i++)
		set_bit(delta->allocated, i);
	delta->taken += length;
	c->available -= length;
	if (cow_counts_is_ensured(c, delta->index)) {
		assert(c->ready >= length);
		c->ready -= length;
	}
}

static void release(struct cow_counts *c, struct cow_counts_delta *delta, uint32_t at, uint32_t length)
{
	for (uint32_t i = at; i < at + length; i++)
		delta->allocated[i / 64] &= ~(1ull << i % 64);
	delta->taken -= length;
	c->available += length;
	if (cow_counts_is_ensured(c, delta->index))
		c->ready += length;
}

static void allocate(struct cow_counts *c, uint64_t group, uint32_t at, uint32_t length)
{
	struct cow_counts_delta *delta = cow_counts_open_delta(c, group);

	take(c, delta, at, length);
	for (uint32_t i = at; i < at + length; i++)
		delta->change[i]++;
}

/* 0, -ENOENT: nothing at or behind the cursor in its group, or COW_MISS. */
static int alloc_at(struct cow_counts *c, struct cow_counts_cursor *cursor, uint32_t want, uint64_t *start,
		    uint32_t *length, uint64_t *miss)
{
	uint64_t busy[COW_PIECE_WORDS];
	struct cow_counts_piece *piece;
	uint32_t at;

	if (!cursor->set || cursor->position >= COW_PIECE_BLOCKS || is_refused(c, cursor->group))
		return -ENOENT;
	piece = cow_counts_find_piece(c, cursor->group);
	if (piece == NULL || !cow_counts_is_ensured(c, cursor->group)) {
		*miss = cow_counts_miss(0, cursor->group) | COW_MISS_ENSURE;
		return COW_MISS;
	}
	unallocatable(c, piece, busy);
	at = find_run(busy, cursor->position, want, length);
	cursor->position = *length > 0 ? at + *length : COW_PIECE_BLOCKS;
	if (*length == 0)
		return -ENOENT;
	allocate(c, cursor->group, at, *length);
	*start = cursor->group * COW_PIECE_BLOCKS + at;
	return 0;
}

int cow_counts_alloc(struct cow_counts *c, enum cow_alloc_class class, uint32_t want, uint64_t *start, uint32_t *length,
		     uint64_t *miss)
{
	int result;

	assert(want > 0);
	if (c->available == 0)
		return -ENOSPC;
	/* next_group() finds only groups with a free block, so this ends */
	while ((result = alloc_at(c, &c->cursors[class], want, start, length, miss)) == -ENOENT) {
		result = next_group(c, class, miss);
		if (result != 0)
			return result;
	}
	return result;
}

/* One step of cow_counts_prepare(): 1: done, 0: *miss says what to load. */
static int prepare_step(struct cow_counts *c, uint64_t blocks, uint64_t *miss)
{
	const struct cow_counts_cursor *cursor = &c->cursors[COW_ALLOC_DATA];
	struct search search = {.counts = c, .class = COW_ALLOC_DATA, .least = 1, .unsure = true, .miss = miss};
	int result;

	if (c->ready >= blocks || c->ready == c->available)
		return 1;
	/* Refused for one group: others that were in use may have theirs still, as after a remount. */
	if (c->refusals >= REFUSALS_MAX)
		return -ENOSPC;
	result = search_round(&search, cursor->set ? cursor->group : 0);
	if (result == 0)
		*miss = cow_counts_miss(0, search.found) | COW_MISS_ENSURE;
	if (result == -ENOENT)
		return c->host_full ? -ENOSPC : 1;
	return 0;
}

int cow_counts_prepare(struct cow_counts *c, uint64_t blocks)
{
	uint64_t miss;
	int result;

	pthread_mutex_lock(c->lock);
	if (c->ready < blocks)
		cow_counts_forgive_host(c); /* it may have space again */
	while ((result = prepare_step(c, blocks, &miss)) == 0) {
		pthread_mutex_unlock(c->lock);
		result = cow_counts_load(c, miss);
		pthread_mutex_lock(c->lock);
		if (result != 0)
			break;
	}
	pthread_mutex_unlock(c->lock);
	return result == 1 ? 0 : result;
}

/* ------------------------------------------------------------------ trim */

/* [locked] Gives up the lock meanwhile; the blocks are kept from allocation. */
static void discard_run(struct cow_counts *c, uint64_t group, uint32_t at, uint32_t length)
{
	uint64_t block = group * COW_PIECE_BLOCKS + at;
	struct cow_counts_delta *delta = cow_counts_open_delta(c, group);

	take(c, delta, at, length);
	delta->pending += (int32_t)length;
	c->open.pending += length;
	pthread_mutex_unlock(c->lock);
	cow_dev_discard(c->dev, block << COW_BLOCK_SHIFT, (uint64_t)length << COW_BLOCK_SHIFT);
	pthread_mutex_lock(c->lock);
	release(c, delta, at, length);
	delta->pending -= (int32_t)length;
	c->open.pending -= length;
	set_unsure(c, group);
	if (delta->taken == 0 && !delta->stale && !cow_counts_has_changes(delta))
		free(cow_map_remove(&c->open.map, group));
}

/* [locked] Gives up the lock meanwhile: then others may have allocated, and the piece may have gone. */
static void trim_group(struct cow_counts *c, uint64_t group)
{
	for (uint32_t at = 0, end = 0; at < COW_PIECE_BLOCKS; at = end) {
		const struct cow_counts_piece *piece = cow_counts_find_piece(c, group);
		uint64_t busy[COW_PIECE_WORDS];

		if (piece == NULL) {
			pthread_mutex_unlock(c->lock);
			int result = cow_counts_load(c, cow_counts_miss(0, group));
			pthread_mutex_lock(c->lock);
			if (result != 0)
				return;
			continue;
		}
		unallocatable(c, piece, busy);
		at = next_bit(busy, at, false);
		end = next_bit(busy, at, true);
		if (end - at >= COW_DISCARD_BLOCKS)
			discard_run(c, group, at, end - at);
	}
}

void cow_counts_note_freed(struct cow_counts *c, uint64_t group, uint32_t commit)
{
	uint32_t *freed = &region_of(c, group)->freed[group % COW_SELECTORS];

	c->freed_groups += *freed == 0;
	*freed = commit;
}

struct freed { /* a group, and when it was freed */
	uint64_t group;
	uint32_t commit;
};

/* Up to TRIM_GROUPS groups that were last noted so long ago, and are not noted any more. */
static size_t freed_groups(struct cow_counts *c, const struct cow_trim *trim, struct freed groups[TRIM_GROUPS])
{
	const struct cow_map_slot *slot;
	size_t count = 0;

	if (c->freed_groups == 0)
		return 0;
	for (size_t i = 0; (slot = cow_map_each(&c->regions, &i)) != NULL;) {
		struct cow_counts_region *region = slot->value;

		for (unsigned k = 0; k < COW_SELECTORS && count < TRIM_GROUPS; k++) {
			if (region->freed[k] == 0 || c->commits - region->freed[k] < trim->age)
				continue;
			if (trim->unsure && get_bit(region->ensured, k))
				continue;
			groups[count++] = (struct freed){slot->key * COW_SELECTORS + k, region->freed[k]};
			region->freed[k] = 0;
		}
	}
	c->freed_groups -= count;
	return count;
}

/* What was promised to somebody keeps its space. A group more is free, so that who looks meanwhile finds enough. */
static bool may_trim(struct cow_counts *c, const struct cow_trim *trim, uint64_t group)
{
	uint64_t promised;

	if (trim->promised == NULL)
		return true;
	promised = trim->promised(trim->context);
	return c->available >= promised + 2 * (uint64_t)COW_PIECE_BLOCKS &&
	       (!cow_counts_is_ensured(c, group) || c->ready >= promised + untaken(c, group));
}

void cow_counts_age(struct cow_counts *c)
{
	pthread_mutex_lock(c->lock);
	c->commits++;
	pthread_mutex_unlock(c->lock);
}

bool cow_counts_trim(struct cow_counts *c, const struct cow_trim *trim)
{
	struct freed groups[TRIM_GROUPS];
	size_t count, trimmed = 0;

	pthread_mutex_lock(c->lock);
	assert(c->sealed.map.count == 0);
	count = freed_groups(c, trim, groups);
	for (size_t i = 0; i < count; i++) {
		if (may_trim(c, trim, groups[i].group)) {
			trim_group(c, groups[i].group);
			trimmed++;
		} else {
			cow_counts_note_freed(c, groups[i].group, groups[i].commit);
		}
	}
	pthread_mutex_unlock(c->lock);
	return trimmed == TRIM_GROUPS;
}
