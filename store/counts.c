/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counts in memory: see counts.h for what they promise.
 *
 * Three things say what is known of a group of blocks: its piece (durable counts; may be evicted), its deltas (open
 * and sealed; kept until they are durable), and its region (which groups have their space on the host; for ever).
 * Selector blocks are few (4 KiB for 2 GiB of volume) and stay once they were loaded, so what was known once of how
 * many blocks of a group are free is always known.
 *
 * `available` and `ready` are running numbers: blocks that may be allocated at all, and those of them whose group is
 * known to have its space on the host.
 */
#include "store/counts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/map.h"
#include "base/mem.h"
#include "cow.h"
#include "store/counts_disk.h"

#define WORDS (COW_PIECE_BLOCKS / 64)
#define TOP (COW_COUNT_LEVELS - 1)
#define PIECES_MIN 32u /* in memory whatever the limit: more than threads that may want one each at a time */
#define ROOMY (COW_PIECE_BLOCKS / 8) /* free blocks that make a group worth going to while there are such groups */
#define ASK_GROUPS 16u /* for which the host is asked for space at once, 64 MiB */
#define TRIM_GROUPS 256u /* in one call of cow_counts_trim() */
#define REFUSALS_MAX 64u /* groups that the host is asked for in vain before it counts as full */

struct piece { /* durable */
	uint64_t index;
	uint8_t bytes[COW_BLOCK];
	uint64_t busy[WORDS]; /* bit: count is not 0 */
	bool referenced; /* since the clock's hand passed */
	struct piece *next, *previous;
};

struct delta {
	uint64_t index;
	uint32_t taken; /* bits set in allocated */
	bool stale; /* in the list of its generation: counts were changed since `pending` was found */
	int32_t pending; /* see struct deltas */
	struct delta *next_stale;
	int32_t change[COW_PIECE_BLOCKS];
	uint64_t allocated[WORDS];
};

/*
 * Those of one generation. `pending`: so many more blocks can be allocated when it is durable than before. To know it
 * takes the counts from before, so it is found when somebody asks. It is said of one generation on top of what lies
 * below it, and so stays true when that is sealed and when it becomes durable.
 */
struct deltas {
	struct cow_map map; /* by piece index */
	struct delta *stale; /* list */
	int64_t pending; /* of all */
};

struct selectors { /* durable */
	uint8_t bytes[COW_BLOCK];
};

struct region { /* of 512 groups */
	uint64_t ensured[COW_SELECTORS / 64];
	uint64_t refused[COW_SELECTORS / 64]; /* the host had no space for it; tried again after the next commit */
	uint32_t freed[COW_SELECTORS]; /* the commit that last freed much of a group, which still has its space; or 0 */
	uint32_t discards; /* how many there were in the region */
	bool selectors_ensured; /* what lies above the region's pieces has its space on the host */
};

struct image { /* what a commit writes */
	uint64_t index;
	struct cow_counts_root old, new;
	uint32_t freed; /* level 0: blocks whose count becomes 0 */
	uint8_t bytes[COW_BLOCK];
};

struct images {
	struct image **list; /* ascending */
	size_t count, size;
};

struct cursor {
	bool set;
	uint64_t group;
	uint32_t position; /* next fit within the group */
};

struct cow_counts {
	struct cow_dev *dev;
	pthread_mutex_t *lock;
	uint64_t total_blocks, groups;

	/* all below: lock */
	struct cow_counts_root root;
	uint64_t available, ready;
	uint8_t first_pass[COW_ALLOC_CLASSES]; /* of next_group(): those below found nothing since the last commit */
	bool host_full; /* the host refused space since the last commit */
	unsigned refusals; /* for how many groups */
	uint64_t asked_groups; /* of which the host was asked for space since the last commit */
	struct cow_map pieces; /* by index */
	struct piece *hand; /* of the clock: circular list of all pieces */
	size_t pieces_limit;
	struct cow_map selectors[COW_COUNT_LEVELS]; /* levels 1 to 3, by index */
	struct cow_map regions;
	uint32_t commits; /* since the volume was opened, from 1, and cow_counts_age() */
	uint64_t freed_groups; /* with a `freed` in their region */
	struct deltas open, sealed; /* sealed.map changes only in seal and durable */
	struct cursor cursors[COW_ALLOC_CLASSES];

	struct images next[COW_COUNT_LEVELS]; /* the committer's, between write and durable */
};

/* ------------------------------------------------------------------ misses */

#define MISS_ENSURE (1ull << 59)

static uint64_t miss_of(int level, uint64_t index)
{
	return (uint64_t)level << 60 | index;
}

/* ------------------------------------------------------------------ selectors */

/* [locked] 0, or COW_MISS. */
static int find_selector(struct cow_counts *c, int level, uint64_t index, struct cow_counts_root *selector,
			 uint64_t *miss)
{
	const struct selectors *up;
	struct cow_counts_root parent;
	int result;

	if (level == TOP) {
		*selector = c->root;
		return 0;
	}
	up = cow_map_get(&c->selectors[level + 1], index / COW_SELECTORS);
	if (up != NULL) {
		*selector = cow_counts_selector(c->total_blocks, level + 1, up->bytes, index);
		return 0;
	}
	result = find_selector(c, level + 1, index / COW_SELECTORS, &parent, miss);
	if (result != 0)
		return result;
	if (parent.initialised) {
		*miss = miss_of(level + 1, index / COW_SELECTORS);
		return COW_MISS;
	}
	*selector = (struct cow_counts_root){.free_blocks = cow_counts_fresh_free(c->total_blocks, level, index)};
	return 0;
}

static bool same_selector(const struct cow_counts_root *a, const struct cow_counts_root *b)
{
	return a->sum == b->sum && a->slot == b->slot && a->initialised == b->initialised &&
	       a->free_blocks == b->free_blocks;
}

/* ------------------------------------------------------------------ pieces */

static struct piece *find_piece(struct cow_counts *c, uint64_t index)
{
	struct piece *piece = cow_map_get(&c->pieces, index);

	if (piece != NULL)
		piece->referenced = true;
	return piece;
}

static void fill_piece(struct piece *piece, const uint8_t *bytes)
{
	memcpy(piece->bytes, bytes, COW_BLOCK);
	memset(piece->busy, 0, sizeof(piece->busy));
	for (unsigned i = 0; i < COW_PIECE_BLOCKS; i++)
		if (get32(bytes + (size_t)4 * i) != 0)
			piece->busy[i / 64] |= 1ull << i % 64;
}

static void unlink_piece(struct cow_counts *c, struct piece *piece)
{
	if (c->hand == piece)
		c->hand = piece->next == piece ? NULL : piece->next;
	piece->next->previous = piece->previous;
	piece->previous->next = piece->next;
}

static void evict_piece(struct cow_counts *c)
{
	struct piece *victim;

	while (c->hand->referenced) {
		c->hand->referenced = false;
		c->hand = c->hand->next;
	}
	victim = c->hand;
	unlink_piece(c, victim);
	cow_map_remove(&c->pieces, victim->index);
	free(victim);
}

/* Behind the hand, so that the clock comes to it last. */
static void insert_piece(struct cow_counts *c, struct piece *piece)
{
	while (c->pieces.count >= c->pieces_limit)
		evict_piece(c);
	if (c->hand == NULL) {
		piece->next = piece->previous = piece;
		c->hand = piece;
	} else {
		piece->next = c->hand;
		piece->previous = c->hand->previous;
		piece->previous->next = piece;
		c->hand->previous = piece;
	}
	piece->referenced = true;
	cow_map_put(&c->pieces, piece->index, piece);
}

/* ------------------------------------------------------------------ deltas */

static uint32_t taken_in(const struct deltas *deltas, uint64_t group)
{
	const struct delta *delta = cow_map_get(&deltas->map, group);

	return delta != NULL ? delta->taken : 0;
}

static uint32_t taken(const struct cow_counts *c, uint64_t group)
{
	return taken_in(&c->open, group) + taken_in(&c->sealed, group);
}

static struct delta *open_delta(struct cow_counts *c, uint64_t group)
{
	struct delta *delta = cow_map_get(&c->open.map, group);

	if (delta == NULL) {
		delta = cow_mem_new(sizeof(*delta));
		delta->index = group;
		cow_map_put(&c->open.map, group, delta);
	}
	return delta;
}

static void make_stale(struct cow_counts *c, struct delta *delta)
{
	if (delta->stale)
		return;
	delta->stale = true;
	delta->next_stale = c->open.stale;
	c->open.stale = delta;
}

static void free_deltas(struct deltas *deltas)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(&deltas->map, &i)) != NULL;)
		free(slot->value);
	cow_map_free(&deltas->map);
	*deltas = (struct deltas){0};
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

static bool is_ensured(const struct cow_counts *c, uint64_t group)
{
	const struct region *region = cow_map_get(&c->regions, group / COW_SELECTORS);

	return region != NULL && get_bit(region->ensured, group % COW_SELECTORS);
}

static bool is_refused(const struct cow_counts *c, uint64_t group)
{
	const struct region *region = cow_map_get(&c->regions, group / COW_SELECTORS);

	return region != NULL && get_bit(region->refused, group % COW_SELECTORS);
}

static struct region *region_of(struct cow_counts *c, uint64_t group)
{
	struct region *region = cow_map_get(&c->regions, group / COW_SELECTORS);

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
	int result = find_selector(c, 0, group, &selector, &miss);

	assert(result == 0);
	return selector.free_blocks - taken(c, group);
}

static void forgive_host(struct cow_counts *c)
{
	struct cow_map_slot *slot;

	if (!c->host_full)
		return;
	c->host_full = false;
	c->refusals = 0;
	for (size_t i = 0; (slot = cow_map_each(&c->regions, &i)) != NULL;)
		memset(((struct region *)slot->value)->refused, 0, sizeof(((struct region *)slot->value)->refused));
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
	       !is_ensured(c, group + count) && !is_refused(c, group + count) &&
	       find_selector(c, 0, group + count, &selector, &miss) == 0 && selector.free_blocks >= ROOMY)
		count++;
	return count;
}

/*
 * [locked] Gives up the lock meanwhile. *groups: for how many it holds. Again, if space was discarded that may have
 * been given just before.
 */
static int ask_host(struct cow_counts *c, uint64_t group, uint64_t *groups)
{
	struct region *region = region_of(c, group);
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

static int ensure_group(struct cow_counts *c, uint64_t group)
{
	struct region *region;
	uint64_t groups = 0;
	int result = 0;

	pthread_mutex_lock(c->lock);
	region = region_of(c, group);
	if (!is_ensured(c, group))
		result = ask_host(c, group, &groups);
	for (uint64_t g = group; result == 0 && g < group + groups; g++) {
		if (is_ensured(c, g)) /* somebody else asked, too */
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
	struct region *region = region_of(c, group);

	region->discards++;
	if (!is_ensured(c, group))
		return;
	region->ensured[group % COW_SELECTORS / 64] &= ~(1ull << group % 64);
	c->ready -= untaken(c, group);
}

/* ------------------------------------------------------------------ loading */

/* [locked] The durable content of a piece or selector block if it is in memory, or NULL. */
static const uint8_t *find_bytes(struct cow_counts *c, int level, uint64_t index)
{
	if (level == 0) {
		struct piece *piece = cow_map_get(&c->pieces, index);

		return piece != NULL ? piece->bytes : NULL;
	}
	return cow_map_get(&c->selectors[level], index);
}

/*
 * [not locked] The durable content of a piece or selector block, and the selector it was read by, from memory or from
 * the device. What lies above it is loaded on the way.
 */
static int read_entry(struct cow_counts *c, int level, uint64_t index, struct cow_counts_root *selector,
		      uint8_t bytes[COW_BLOCK])
{
	const uint8_t *found;
	const char *wrong;
	uint64_t miss;
	int result;

	do {
		pthread_mutex_lock(c->lock);
		result = find_selector(c, level, index, selector, &miss);
		found = find_bytes(c, level, index);
		if (result == 0 && found != NULL)
			memcpy(bytes, found, COW_BLOCK);
		pthread_mutex_unlock(c->lock);
		if (result == COW_MISS) {
			result = cow_counts_load(c, miss);
			if (result == 0)
				result = COW_MISS;
		}
	} while (result == COW_MISS);
	if (result != 0 || found != NULL)
		return result;
	if (!selector->initialised) {
		cow_counts_fresh_block(c->total_blocks, level, index, bytes);
		return 0;
	}
	return cow_counts_read(c->dev, c->total_blocks, level, index, selector, bytes, &wrong);
}

static void insert_entry(struct cow_counts *c, int level, uint64_t index, const uint8_t *bytes)
{
	if (level == 0) {
		struct piece *piece = cow_mem_new(sizeof(*piece));

		piece->index = index;
		fill_piece(piece, bytes);
		insert_piece(c, piece);
	} else {
		cow_map_put(&c->selectors[level], index, cow_mem_copy(bytes, sizeof(struct selectors)));
	}
}

/*
 * A commit may move the selector to the other slot while this reads, and the next one may overwrite what is being
 * read: then neither a good nor a bad result says anything, and it reads again.
 */
static int load_entry(struct cow_counts *c, int level, uint64_t index)
{
	struct cow_counts_root before = {0}, after;
	uint8_t bytes[COW_BLOCK];
	uint64_t miss;
	int result;
	bool done;

	do {
		pthread_mutex_lock(c->lock);
		done = find_bytes(c, level, index) != NULL;
		pthread_mutex_unlock(c->lock);
		if (done)
			return 0;
		result = read_entry(c, level, index, &before, bytes);
		pthread_mutex_lock(c->lock);
		done = result != 0 && result != COW_ERR_DAMAGED;
		if (!done && find_selector(c, level, index, &after, &miss) == 0 && same_selector(&before, &after)) {
			done = true;
			if (result == 0 && find_bytes(c, level, index) == NULL)
				insert_entry(c, level, index, bytes);
		} else if (!done && result == COW_ERR_DAMAGED) {
			/* unless what lies above cannot be read at all, the selector has moved on */
			done = find_selector(c, level, index, &after, &miss) != 0;
		}
		pthread_mutex_unlock(c->lock);
	} while (!done);
	return result;
}

int cow_counts_load(struct cow_counts *c, uint64_t miss)
{
	int level = (int)(miss >> 60);
	uint64_t index = miss & (MISS_ENSURE - 1);
	int result = load_entry(c, level, index);

	if (result == 0 && (miss & MISS_ENSURE) != 0)
		result = ensure_group(c, index);
	return result;
}

/* As in load_entry(): only what has not moved on meanwhile says something. */
int cow_counts_verify(struct cow_counts *c, int level, uint64_t index, bool *used, uint64_t *block, const char **wrong)
{
	struct cow_counts_root selector = {0}, after;
	uint8_t bytes[COW_BLOCK];
	uint64_t miss;
	int result;

	*used = false;
	for (;;) {
		*wrong = NULL;
		pthread_mutex_lock(c->lock);
		while ((result = find_selector(c, level, index, &selector, &miss)) == COW_MISS) {
			pthread_mutex_unlock(c->lock);
			result = cow_counts_load(c, miss);
			pthread_mutex_lock(c->lock);
			if (result != 0)
				break;
		}
		pthread_mutex_unlock(c->lock);
		if (result != 0 || !selector.initialised)
			return result;
		*used = true;
		*block = cow_layout_slot(level, index, selector.slot);
		result = cow_counts_read(c->dev, c->total_blocks, level, index, &selector, bytes, wrong);
		if (result == 0)
			return 0;
		pthread_mutex_lock(c->lock);
		bool same = find_selector(c, level, index, &after, &miss) != 0 || same_selector(&selector, &after);
		pthread_mutex_unlock(c->lock);
		if (same)
			return result;
	}
}

/* ------------------------------------------------------------------ counting */

static int32_t change_of(const struct deltas *deltas, uint64_t block)
{
	const struct delta *delta = cow_map_get(&deltas->map, block / COW_PIECE_BLOCKS);

	return delta != NULL ? delta->change[block % COW_PIECE_BLOCKS] : 0;
}

int cow_counts_get(struct cow_counts *c, uint64_t block, uint32_t *count, uint64_t *miss)
{
	uint64_t group = block / COW_PIECE_BLOCKS;
	const struct piece *piece = find_piece(c, group);
	struct cow_counts_root selector;
	int64_t sum;
	int result;

	assert(block < c->total_blocks);
	if (piece != NULL) {
		sum = get32(piece->bytes + block % COW_PIECE_BLOCKS * 4);
	} else {
		result = find_selector(c, 0, group, &selector, miss);
		if (result != 0)
			return result;
		if (selector.initialised) {
			*miss = miss_of(0, group);
			return COW_MISS;
		}
		sum = cow_layout_is_system(block);
	}
	sum += (int64_t)change_of(&c->sealed, block) + change_of(&c->open, block);
	*count = sum > 0 ? (uint32_t)sum : 0; /* below 0 only on a damaged volume: cow_counts_write() will say so */
	return 0;
}

static void assert_ordinary(uint64_t group, uint64_t from, uint64_t to)
{
	for (uint64_t i = from; i < to && i < 2 * COW_SLOT_FIRST; i++)
		assert(!cow_layout_is_system(group * COW_PIECE_BLOCKS + i));
}

void cow_counts_add(struct cow_counts *c, uint64_t block, uint32_t length, int change)
{
	assert(length <= c->total_blocks && block <= c->total_blocks - length);
	while (length > 0) {
		uint64_t group = block / COW_PIECE_BLOCKS;
		uint32_t from = block % COW_PIECE_BLOCKS, to = COW_PIECE_BLOCKS;
		struct delta *delta = open_delta(c, group);

		if (to - from > length)
			to = from + length;
		assert_ordinary(group, from, to);
		make_stale(c, delta);
		for (uint32_t i = from; i < to; i++)
			delta->change[i] += change;
		block += to - from;
		length -= to - from;
	}
}

uint64_t cow_counts_available(const struct cow_counts *c)
{
	return c->host_full ? c->ready : c->available;
}

uint64_t cow_counts_ready(const struct cow_counts *c)
{
	return c->ready;
}

/* ------------------------------------------------------------------ what will be free */

/* A block that was taken is not available, and is again when the generation is durable, unless it has a count then. */
static int32_t pending_in(const struct delta *delta, const struct delta *below, const uint8_t *bytes)
{
	int32_t pending = (int32_t)delta->taken;

	for (unsigned i = 0; i < COW_PIECE_BLOCKS; i++) {
		int64_t before;

		if (delta->change[i] == 0)
			continue;
		before = (int64_t)get32(bytes + (size_t)4 * i) + (below != NULL ? below->change[i] : 0);
		pending += (before + delta->change[i] <= 0) - (before <= 0);
	}
	return pending;
}

/* One delta is stale no longer. COW_MISS */
static int settle_one(struct cow_counts *c, struct deltas *deltas, const struct deltas *below, uint64_t *miss)
{
	struct delta *delta = deltas->stale;
	const uint8_t *bytes;
	uint8_t fresh[COW_BLOCK];
	struct cow_counts_root selector;
	int32_t pending;

	bytes = find_bytes(c, 0, delta->index);
	if (bytes == NULL) {
		int result = find_selector(c, 0, delta->index, &selector, miss);

		if (result != 0)
			return result;
		if (selector.initialised) {
			*miss = miss_of(0, delta->index);
			return COW_MISS;
		}
		cow_counts_fresh_block(c->total_blocks, 0, delta->index, fresh);
		bytes = fresh;
	}
	pending = pending_in(delta, below != NULL ? cow_map_get(&below->map, delta->index) : NULL, bytes);
	deltas->pending += pending - delta->pending;
	delta->pending = pending;
	delta->stale = false;
	deltas->stale = delta->next_stale;
	return 0;
}

bool cow_counts_is_settled(const struct cow_counts *c)
{
	return c->open.stale == NULL && c->sealed.stale == NULL;
}

int cow_counts_settle(struct cow_counts *c, unsigned groups, uint64_t *miss)
{
	int result = 0;

	for (; groups > 0 && result == 0 && !cow_counts_is_settled(c); groups--)
		result = c->sealed.stale != NULL ? settle_one(c, &c->sealed, NULL, miss)
						 : settle_one(c, &c->open, &c->sealed, miss);
	return result != 0 ? result : !cow_counts_is_settled(c);
}

uint64_t cow_counts_free(const struct cow_counts *c)
{
	int64_t blocks = (int64_t)cow_counts_available(c) + c->sealed.pending + c->open.pending;

	return blocks > 0 ? (uint64_t)blocks : 0;
}

uint64_t cow_counts_system(const struct cow_counts *c)
{
	return c->total_blocks - cow_counts_fresh_free(c->total_blocks, TOP, 0);
}

/* ------------------------------------------------------------------ finding a group */

struct search {
	struct cow_counts *counts;
	uint64_t from, end; /* groups */
	uint64_t least; /* free blocks wanted */
	const struct cursor
		*avoid; /* cursors whose groups are not wanted, one for each class; or NULL */
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
	if ((s->unsure || s->ensured) && is_ensured(c, group) != s->ensured)
		return false;
	/* a group that was in use before probably has its space */
	if (c->host_full && !selector->initialised && !is_ensured(c, group))
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
		int result = find_selector(s->counts, level - 1, child, &selector, s->miss);

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
	result = search_below(s, TOP, 0);
	if (result != -ENOENT)
		return result;
	s->from = 0;
	s->end = start;
	return search_below(s, TOP, 0);
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
	struct cursor *cursor = &c->cursors[class];
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
		*cursor = (struct cursor){.set = true, .group = search.found};
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
		if (++word == WORDS)
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
static void unallocatable(const struct cow_counts *c, const struct piece *piece, uint64_t busy[WORDS])
{
	const struct cow_map *maps[] = {&c->open.map, &c->sealed.map};

	memcpy(busy, piece->busy, sizeof(piece->busy));
	for (unsigned m = 0; m < 2; m++) {
		const struct delta *delta = cow_map_get(maps[m], piece->index);

		for (unsigned i = 0; delta != NULL && i < WORDS; i++)
			busy[i] |= delta->allocated[i];
	}
}

/* Until release(), or for the rest of this generation and the next. */
static void take(struct cow_counts *c, struct delta *delta, uint32_t at, uint32_t length)
{
	assert(c->available >= length);
	for (uint32_t i = at; i < at + length; i++)
		set_bit(delta->allocated, i);
	delta->taken += length;
	c->available -= length;
	if (is_ensured(c, delta->index)) {
		assert(c->ready >= length);
		c->ready -= length;
	}
}

static void release(struct cow_counts *c, struct delta *delta, uint32_t at, uint32_t length)
{
	for (uint32_t i = at; i < at + length; i++)
		delta->allocated[i / 64] &= ~(1ull << i % 64);
	delta->taken -= length;
	c->available += length;
	if (is_ensured(c, delta->index))
		c->ready += length;
}

static void allocate(struct cow_counts *c, uint64_t group, uint32_t at, uint32_t length)
{
	struct delta *delta = open_delta(c, group);

	take(c, delta, at, length);
	for (uint32_t i = at; i < at + length; i++)
		delta->change[i]++;
}

/* 0, -ENOENT: nothing at or behind the cursor in its group, or COW_MISS. */
static int alloc_at(struct cow_counts *c, struct cursor *cursor, uint32_t want, uint64_t *start, uint32_t *length,
		    uint64_t *miss)
{
	uint64_t busy[WORDS];
	struct piece *piece;
	uint32_t at;

	if (!cursor->set || cursor->position >= COW_PIECE_BLOCKS || is_refused(c, cursor->group))
		return -ENOENT;
	piece = find_piece(c, cursor->group);
	if (piece == NULL || !is_ensured(c, cursor->group)) {
		*miss = miss_of(0, cursor->group) | MISS_ENSURE;
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
	const struct cursor *cursor = &c->cursors[COW_ALLOC_DATA];
	struct search search = {.counts = c, .class = COW_ALLOC_DATA, .least = 1, .unsure = true, .miss = miss};
	int result;

	if (c->ready >= blocks || c->ready == c->available)
		return 1;
	/* Refused for one group: others that were in use may have theirs still, as after a remount. */
	if (c->refusals >= REFUSALS_MAX)
		return -ENOSPC;
	result = search_round(&search, cursor->set ? cursor->group : 0);
	if (result == 0)
		*miss = miss_of(0, search.found) | MISS_ENSURE;
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
		forgive_host(c); /* it may have space again */
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

/* ------------------------------------------------------------------ commit */

void cow_counts_seal(struct cow_counts *c)
{
	assert(c->sealed.map.count == 0);
	free_deltas(&c->sealed);
	c->sealed = c->open;
	c->open = (struct deltas){0};
}

static struct image *add_image(struct cow_counts *c, int level, uint64_t index, int *result)
{
	struct images *images = &c->next[level];
	struct image *image = cow_mem_new(sizeof(*image));

	image->index = index;
	*result = read_entry(c, level, index, &image->old, image->bytes);
	image->new = image->old;
	if (images->count == images->size) {
		images->size = images->size != 0 ? images->size * 2 : 16;
		images->list = cow_mem_resize(images->list, images->size * sizeof(struct image *));
	}
	images->list[images->count++] = image;
	return image;
}

static bool has_changes(const struct delta *delta)
{
	for (unsigned i = 0; i < COW_PIECE_BLOCKS; i++)
		if (delta->change[i] != 0)
			return true;
	return false;
}

static int apply_delta(struct cow_counts *c, const struct delta *delta)
{
	int result;
	struct image *image = add_image(c, 0, delta->index, &result);

	for (unsigned i = 0; result == 0 && i < COW_PIECE_BLOCKS; i++) {
		int64_t old = get32(image->bytes + (size_t)4 * i), new = old + delta->change[i];

		/* a changed count is never a system block's (cow_counts_add) */
		if (new < 0 || new > COW_COUNT_MAX)
			return COW_ERR_DAMAGED;
		image->new.free_blocks += (uint64_t)(new == 0) - (uint64_t)(old == 0);
		image->freed += new == 0 && old != 0;
		put32(image->bytes + (size_t)4 * i, (uint32_t) new);
	}
	return result;
}

/* Writes to the slot that the durable selector does not say; both, if there is none yet, so that no slot is random. */
static int write_image(struct cow_counts *c, int level, struct image *image)
{
	uint64_t index = image->index;
	int result = 0;

	image->new.sum = cow_counts_sum(image->bytes);
	image->new.slot = image->old.initialised ? !image->old.slot : 0;
	image->new.initialised = 1;
	assert(!image->old.initialised || image->new.slot != image->old.slot);
	for (unsigned slot = 0; result == 0 && slot < 2; slot++)
		if (slot == image->new.slot || !image->old.initialised)
			result = cow_dev_write(c->dev, image->bytes, COW_BLOCK,
					       cow_layout_slot(level, index, slot) << COW_BLOCK_SHIFT);
	return result;
}

/* Writes the images of one level and enters them into those of the next; both are in ascending order. */
static int write_level(struct cow_counts *c, int level)
{
	struct images *images = &c->next[level], *above = level < TOP ? &c->next[level + 1] : NULL;
	struct image *up = NULL;
	int result = 0;

	for (size_t i = 0; result == 0 && i < images->count; i++) {
		struct image *image = images->list[i];

		result = write_image(c, level, image);
		if (result != 0 || above == NULL)
			continue;
		if (up == NULL || up->index != image->index / COW_SELECTORS)
			up = add_image(c, level + 1, image->index / COW_SELECTORS, &result);
		if (result != 0)
			continue;
		cow_counts_selector_put(up->bytes, image->index, &image->new);
		up->new.free_blocks += image->new.free_blocks - image->old.free_blocks;
	}
	return result;
}

static void free_images(struct cow_counts *c)
{
	for (int level = 0; level < COW_COUNT_LEVELS; level++) {
		for (size_t i = 0; i < c->next[level].count; i++)
			free(c->next[level].list[i]);
		free(c->next[level].list);
		c->next[level] = (struct images){0};
	}
}

static int by_index(const void *a, const void *b)
{
	const struct delta *x = *(const struct delta *const *)a, *y = *(const struct delta *const *)b;

	return (x->index > y->index) - (x->index < y->index);
}

/* The sealed deltas in ascending order; the caller frees the list. */
static struct delta **sort_sealed(const struct cow_counts *c)
{
	struct delta **list = cow_mem_new(c->sealed.map.count * sizeof(*list));
	struct cow_map_slot *slot;
	size_t n = 0;

	for (size_t i = 0; (slot = cow_map_each(&c->sealed.map, &i)) != NULL;)
		list[n++] = slot->value;
	qsort(list, n, sizeof(*list), by_index);
	return list;
}

/* The sealed map is read without the lock: only cow_counts_durable(), of the same thread, changes it. */
int cow_counts_write(struct cow_counts *c, struct cow_counts_root *root)
{
	struct delta **list = sort_sealed(c);
	int result = 0;

	free_images(c);
	for (size_t i = 0; result == 0 && i < c->sealed.map.count; i++)
		if (has_changes(list[i]))
			result = apply_delta(c, list[i]);
	free(list);
	for (int level = 0; result == 0 && level < COW_COUNT_LEVELS; level++)
		result = write_level(c, level);
	*root = c->next[TOP].count != 0 ? c->next[TOP].list[0]->new : c->root;
	if (!root->initialised)
		*root = (struct cow_counts_root){0};
	return result;
}

/* What was allocated is counted by the durable counts now, or free again. */
static void settle_sealed(struct cow_counts *c)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(&c->sealed.map, &i)) != NULL;) {
		const struct delta *delta = slot->value;

		c->available += delta->taken;
		if (is_ensured(c, delta->index))
			c->ready += delta->taken;
	}
	free_deltas(&c->sealed);
}

static void note_freed(struct cow_counts *c, uint64_t group, uint32_t commit)
{
	uint32_t *freed = &region_of(c, group)->freed[group % COW_SELECTORS];

	c->freed_groups += *freed == 0;
	*freed = commit;
}

static void settle_image(struct cow_counts *c, int level, const struct image *image)
{
	uint64_t freed = image->new.free_blocks - image->old.free_blocks; /* modulo 2^64 */
	struct selectors *block;
	struct piece *piece;

	if (level == 0) {
		if (is_ensured(c, image->index))
			c->ready += freed;
		if (image->freed >= COW_DISCARD_BLOCKS)
			note_freed(c, image->index, c->commits);
		piece = cow_map_get(&c->pieces, image->index);
		if (piece != NULL)
			fill_piece(piece, image->bytes);
		return;
	}
	block = cow_map_get(&c->selectors[level], image->index);
	if (block != NULL)
		memcpy(block->bytes, image->bytes, COW_BLOCK);
	else
		insert_entry(c, level, image->index, image->bytes);
	if (level == TOP) {
		c->available += freed;
		c->root = image->new;
	}
}

void cow_counts_durable(struct cow_counts *c)
{
	settle_sealed(c);
	for (int level = 0; level < COW_COUNT_LEVELS; level++)
		for (size_t i = 0; i < c->next[level].count; i++)
			settle_image(c, level, c->next[level].list[i]);
	free_images(c);
	memset(c->first_pass, 0, sizeof(c->first_pass));
	c->asked_groups = 0;
	c->commits++;
	forgive_host(c);
}

/* ------------------------------------------------------------------ trim */

/* [locked] Gives up the lock meanwhile; the blocks are kept from allocation. */
static void discard_run(struct cow_counts *c, uint64_t group, uint32_t at, uint32_t length)
{
	uint64_t block = group * COW_PIECE_BLOCKS + at;
	struct delta *delta = open_delta(c, group);

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
	if (delta->taken == 0 && !delta->stale && !has_changes(delta))
		free(cow_map_remove(&c->open.map, group));
}

/* [locked] Gives up the lock meanwhile: then others may have allocated, and the piece may have gone. */
static void trim_group(struct cow_counts *c, uint64_t group)
{
	for (uint32_t at = 0, end = 0; at < COW_PIECE_BLOCKS; at = end) {
		const struct piece *piece = find_piece(c, group);
		uint64_t busy[WORDS];

		if (piece == NULL) {
			pthread_mutex_unlock(c->lock);
			int result = cow_counts_load(c, miss_of(0, group));
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
		struct region *region = slot->value;

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
	       (!is_ensured(c, group) || c->ready >= promised + untaken(c, group));
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
			note_freed(c, groups[i].group, groups[i].commit);
		}
	}
	pthread_mutex_unlock(c->lock);
	return trimmed == TRIM_GROUPS;
}

/* ------------------------------------------------------------------ open and close */

int cow_counts_open_unread(struct cow_dev *dev, pthread_mutex_t *lock, uint64_t total_blocks,
			   const struct cow_counts_root *root, uint64_t cache_bytes, struct cow_counts **counts)
{
	struct cow_counts *c;

	if (total_blocks < COW_VOLUME_BLOCKS_MIN || total_blocks > COW_VOLUME_BLOCKS_MAX ||
	    cow_layout_round(total_blocks) != total_blocks || root->slot > 1)
		return COW_ERR_DAMAGED;
	c = cow_mem_new(sizeof(*c));
	c->dev = dev;
	c->lock = lock;
	c->total_blocks = total_blocks;
	c->groups = cow_layout_entries(total_blocks, 0);
	c->root = *root;
	c->commits = 1;
	if (!root->initialised)
		c->root = (struct cow_counts_root){.free_blocks = cow_counts_fresh_free(total_blocks, TOP, 0)};
	c->available = c->root.free_blocks;
	c->pieces_limit = cache_bytes / sizeof(struct piece);
	if (c->pieces_limit < PIECES_MIN)
		c->pieces_limit = PIECES_MIN;
	*counts = c;
	return 0;
}

int cow_counts_open(struct cow_dev *dev, pthread_mutex_t *lock, uint64_t total_blocks,
		    const struct cow_counts_root *root, uint64_t cache_bytes, struct cow_counts **counts)
{
	int result = cow_counts_open_unread(dev, lock, total_blocks, root, cache_bytes, counts);

	if (result != 0 || !root->initialised)
		return result;
	result = cow_counts_load(*counts, miss_of(TOP, 0));
	if (result != 0)
		cow_counts_close(*counts);
	return result;
}

void cow_counts_limit(struct cow_counts *c, size_t pieces)
{
	pthread_mutex_lock(c->lock);
	c->pieces_limit = pieces;
	while (c->pieces.count > c->pieces_limit)
		evict_piece(c);
	pthread_mutex_unlock(c->lock);
}

void cow_counts_close(struct cow_counts *c)
{
	struct cow_map_slot *slot;

	while (c->hand != NULL) {
		struct piece *piece = c->hand;

		unlink_piece(c, piece);
		free(piece);
	}
	cow_map_free(&c->pieces);
	for (int level = 0; level < COW_COUNT_LEVELS; level++) {
		for (size_t i = 0; (slot = cow_map_each(&c->selectors[level], &i)) != NULL;)
			free(slot->value);
		cow_map_free(&c->selectors[level]);
	}
	for (size_t i = 0; (slot = cow_map_each(&c->regions, &i)) != NULL;)
		free(slot->value);
	cow_map_free(&c->regions);
	free_deltas(&c->open);
	free_deltas(&c->sealed);
	free_images(c);
	free(c);
}
