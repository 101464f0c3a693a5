/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counts in memory: see counts.h for what they promise, and counts_memory.h for what is kept. Here are the durable
 * counts, the changes of the generations on top of them, and what a commit writes.
 */
#include "store/counts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "cow.h"
#include "store/counts_disk.h"
#include "store/counts_memory.h"

#define PIECES_MIN 32u /* in memory whatever the limit: more than threads that may want one each at a time */

struct cow_counts_image { /* what a commit writes */
	uint64_t index;
	struct cow_counts_root old, new;
	uint32_t freed; /* level 0: blocks whose count becomes 0 */
	uint8_t bytes[COW_BLOCK];
};

/* ------------------------------------------------------------------ selectors */

int cow_counts_find_selector(struct cow_counts *c, int level, uint64_t index, struct cow_counts_root *selector,
			     uint64_t *miss)
{
	const struct cow_counts_selectors *up;
	struct cow_counts_root parent;
	int result;

	if (level == COW_COUNT_TOP) {
		*selector = c->root;
		return 0;
	}
	up = cow_map_get(&c->selectors[level + 1], index / COW_SELECTORS);
	if (up != NULL) {
		*selector = cow_counts_selector(c->total_blocks, level + 1, up->bytes, index);
		return 0;
	}
	result = cow_counts_find_selector(c, level + 1, index / COW_SELECTORS, &parent, miss);
	if (result != 0)
		return result;
	if (parent.initialised) {
		*miss = cow_counts_miss(level + 1, index / COW_SELECTORS);
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

struct cow_counts_piece *cow_counts_find_piece(struct cow_counts *c, uint64_t index)
{
	struct cow_counts_piece *piece = cow_map_get(&c->pieces, index);

	if (piece != NULL)
		piece->referenced = true;
	return piece;
}

static void fill_piece(struct cow_counts_piece *piece, const uint8_t *bytes)
{
	memcpy(piece->bytes, bytes, COW_BLOCK);
	memset(piece->busy, 0, sizeof(piece->busy));
	for (unsigned i = 0; i < COW_PIECE_BLOCKS; i++)
		if (get32(bytes + (size_t)4 * i) != 0)
			piece->busy[i / 64] |= 1ull << i % 64;
}

static void unlink_piece(struct cow_counts *c, struct cow_counts_piece *piece)
{
	if (c->hand == piece)
		c->hand = piece->next == piece ? NULL : piece->next;
	piece->next->previous = piece->previous;
	piece->previous->next = piece->next;
}

static void evict_piece(struct cow_counts *c)
{
	struct cow_counts_piece *victim;

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
static void insert_piece(struct cow_counts *c, struct cow_counts_piece *piece)
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

struct cow_counts_delta *cow_counts_open_delta(struct cow_counts *c, uint64_t group)
{
	struct cow_counts_delta *delta = cow_map_get(&c->open.map, group);

	if (delta == NULL) {
		delta = cow_mem_new(sizeof(*delta));
		delta->index = group;
		cow_map_put(&c->open.map, group, delta);
	}
	return delta;
}

static void make_stale(struct cow_counts *c, struct cow_counts_delta *delta)
{
	if (delta->stale)
		return;
	delta->stale = true;
	delta->next_stale = c->open.stale;
	c->open.stale = delta;
}

static void free_deltas(struct cow_counts_deltas *deltas)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(&deltas->map, &i)) != NULL;)
		free(slot->value);
	cow_map_free(&deltas->map);
	*deltas = (struct cow_counts_deltas){0};
}

bool cow_counts_has_changes(const struct cow_counts_delta *delta)
{
	for (unsigned i = 0; i < COW_PIECE_BLOCKS; i++)
		if (delta->change[i] != 0)
			return true;
	return false;
}

/* ------------------------------------------------------------------ loading */

/* [locked] The durable content of a piece or selector block if it is in memory, or NULL. */
static const uint8_t *find_bytes(struct cow_counts *c, int level, uint64_t index)
{
	if (level == 0) {
		struct cow_counts_piece *piece = cow_map_get(&c->pieces, index);

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
		result = cow_counts_find_selector(c, level, index, selector, &miss);
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
		struct cow_counts_piece *piece = cow_mem_new(sizeof(*piece));

		piece->index = index;
		fill_piece(piece, bytes);
		insert_piece(c, piece);
	} else {
		cow_map_put(&c->selectors[level], index, cow_mem_copy(bytes, sizeof(struct cow_counts_selectors)));
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
		if (!done && cow_counts_find_selector(c, level, index, &after, &miss) == 0 &&
		    same_selector(&before, &after)) {
			done = true;
			if (result == 0 && find_bytes(c, level, index) == NULL)
				insert_entry(c, level, index, bytes);
		} else if (!done && result == COW_ERR_DAMAGED) {
			/* unless what lies above cannot be read at all, the selector has moved on */
			done = cow_counts_find_selector(c, level, index, &after, &miss) != 0;
		}
		pthread_mutex_unlock(c->lock);
	} while (!done);
	return result;
}

int cow_counts_load(struct cow_counts *c, uint64_t miss)
{
	int level = (int)(miss >> 60);
	uint64_t index = miss & (COW_MISS_ENSURE - 1);
	int result = load_entry(c, level, index);

	if (result == 0 && (miss & COW_MISS_ENSURE) != 0)
		result = cow_counts_ensure_group(c, index);
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
		while ((result = cow_counts_find_selector(c, level, index, &selector, &miss)) == COW_MISS) {
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
		bool same = cow_counts_find_selector(c, level, index, &after, &miss) != 0 ||
			    same_selector(&selector, &after);
		pthread_mutex_unlock(c->lock);
		if (same)
			return result;
	}
}

/* ------------------------------------------------------------------ counting */

static int32_t change_of(const struct cow_counts_deltas *deltas, uint64_t block)
{
	const struct cow_counts_delta *delta = cow_map_get(&deltas->map, block / COW_PIECE_BLOCKS);

	return delta != NULL ? delta->change[block % COW_PIECE_BLOCKS] : 0;
}

int cow_counts_get(struct cow_counts *c, uint64_t block, uint32_t *count, uint64_t *miss)
{
	uint64_t group = block / COW_PIECE_BLOCKS;
	const struct cow_counts_piece *piece = cow_counts_find_piece(c, group);
	struct cow_counts_root selector;
	int64_t sum;
	int result;

	assert(block < c->total_blocks);
	if (piece != NULL) {
		sum = get32(piece->bytes + block % COW_PIECE_BLOCKS * 4);
	} else {
		result = cow_counts_find_selector(c, 0, group, &selector, miss);
		if (result != 0)
			return result;
		if (selector.initialised) {
			*miss = cow_counts_miss(0, group);
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
		struct cow_counts_delta *delta = cow_counts_open_delta(c, group);

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

/* ------------------------------------------------------------------ what will be free */

/* A block that was taken is not available, and is again when the generation is durable, unless it has a count then. */
static int32_t pending_in(const struct cow_counts_delta *delta, const struct cow_counts_delta *below,
			  const uint8_t *bytes)
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
static int settle_one(struct cow_counts *c, struct cow_counts_deltas *deltas, const struct cow_counts_deltas *below,
		      uint64_t *miss)
{
	struct cow_counts_delta *delta = deltas->stale;
	const uint8_t *bytes;
	uint8_t fresh[COW_BLOCK];
	struct cow_counts_root selector;
	int32_t pending;

	bytes = find_bytes(c, 0, delta->index);
	if (bytes == NULL) {
		int result = cow_counts_find_selector(c, 0, delta->index, &selector, miss);

		if (result != 0)
			return result;
		if (selector.initialised) {
			*miss = cow_counts_miss(0, delta->index);
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
	return c->total_blocks - cow_counts_fresh_free(c->total_blocks, COW_COUNT_TOP, 0);
}

/* ------------------------------------------------------------------ commit */

void cow_counts_seal(struct cow_counts *c)
{
	assert(c->sealed.map.count == 0);
	free_deltas(&c->sealed);
	c->sealed = c->open;
	c->open = (struct cow_counts_deltas){0};
}

static struct cow_counts_image *add_image(struct cow_counts *c, int level, uint64_t index, int *result)
{
	struct cow_counts_images *images = &c->next[level];
	struct cow_counts_image *image = cow_mem_new(sizeof(*image));

	image->index = index;
	*result = read_entry(c, level, index, &image->old, image->bytes);
	image->new = image->old;
	if (images->count == images->size) {
		images->size = images->size != 0 ? images->size * 2 : 16;
		images->list = cow_mem_resize(images->list, images->size * sizeof(struct cow_counts_image *));
	}
	images->list[images->count++] = image;
	return image;
}

static int apply_delta(struct cow_counts *c, const struct cow_counts_delta *delta)
{
	int result;
	struct cow_counts_image *image = add_image(c, 0, delta->index, &result);

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
static int write_image(struct cow_counts *c, int level, struct cow_counts_image *image)
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
	struct cow_counts_images *images = &c->next[level], *above = level < COW_COUNT_TOP ? &c->next[level + 1] : NULL;
	struct cow_counts_image *up = NULL;
	int result = 0;

	for (size_t i = 0; result == 0 && i < images->count; i++) {
		struct cow_counts_image *image = images->list[i];

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
		c->next[level] = (struct cow_counts_images){0};
	}
}

static int by_index(const void *a, const void *b)
{
	const struct cow_counts_delta *x = *(const struct cow_counts_delta *const *)a,
				      *y = *(const struct cow_counts_delta *const *)b;

	return (x->index > y->index) - (x->index < y->index);
}

/* The sealed deltas in ascending order; the caller frees the list. */
static struct cow_counts_delta **sort_sealed(const struct cow_counts *c)
{
	struct cow_counts_delta **list = cow_mem_new(c->sealed.map.count * sizeof(*list));
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
	struct cow_counts_delta **list = sort_sealed(c);
	int result = 0;

	free_images(c);
	for (size_t i = 0; result == 0 && i < c->sealed.map.count; i++)
		if (cow_counts_has_changes(list[i]))
			result = apply_delta(c, list[i]);
	free(list);
	for (int level = 0; result == 0 && level < COW_COUNT_LEVELS; level++)
		result = write_level(c, level);
	*root = c->next[COW_COUNT_TOP].count != 0 ? c->next[COW_COUNT_TOP].list[0]->new : c->root;
	if (!root->initialised)
		*root = (struct cow_counts_root){0};
	return result;
}

/* What was allocated is counted by the durable counts now, or free again. */
static void settle_sealed(struct cow_counts *c)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(&c->sealed.map, &i)) != NULL;) {
		const struct cow_counts_delta *delta = slot->value;

		c->available += delta->taken;
		if (cow_counts_is_ensured(c, delta->index))
			c->ready += delta->taken;
	}
	free_deltas(&c->sealed);
}

static void settle_image(struct cow_counts *c, int level, const struct cow_counts_image *image)
{
	uint64_t freed = image->new.free_blocks - image->old.free_blocks; /* modulo 2^64 */
	struct cow_counts_selectors *block;
	struct cow_counts_piece *piece;

	if (level == 0) {
		if (cow_counts_is_ensured(c, image->index))
			c->ready += freed;
		if (image->freed >= COW_DISCARD_BLOCKS)
			cow_counts_note_freed(c, image->index, c->commits);
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
	if (level == COW_COUNT_TOP) {
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
	cow_counts_forgive_host(c);
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
		c->root =
			(struct cow_counts_root){.free_blocks = cow_counts_fresh_free(total_blocks, COW_COUNT_TOP, 0)};
	c->available = c->root.free_blocks;
	c->pieces_limit = cache_bytes / sizeof(struct cow_counts_piece);
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
	result = cow_counts_load(*counts, cow_counts_miss(COW_COUNT_TOP, 0));
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
		struct cow_counts_piece *piece = c->hand;

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
