/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How buffered pages get their place on the device, and get there.
 *
 * A page is in exactly one of two maps: the file's `pages` (mutable, above the map of extents) or the volume's `flight`
 * (immutable, the content of the block it is keyed by). It moves from one to the other in the moment in which the map
 * starts to point at the block, so a reader, who holds the lock while he looks, finds it once.
 */
#include "fs/data/flight.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fs/core/fold.h"
#include "fs/core/volume.h"
#include "fs/data/extents.h"
#include "fs/data/pages.h"

/* Blocks in one write to the device. */
#define WRITE_BLOCKS 256u
/*
 * Data of files from this size on goes past the host's cache, in runs of so many blocks at least: whoever wrote them
 * has them in the kernel's cache above us, and a disk reads them fast. Small files, as of a tree that was unpacked and
 * will be read in each of its clones, stay in the host's cache, which all clones share.
 */
#define LARGE_BYTES (4u << 20)
#define DIRECT_BLOCKS 64u
static_assert(WRITE_BLOCKS <= COW_DEV_PARTS_MAX, "a run is one write");

/* ------------------------------------------------------------------ placing */

/* A file that fits goes into its record. Its only page can be page 0: there are none beyond the end of a file. */
static int place_inline(struct cow_inode *file)
{
	int error = cow_extents_truncate(file, 0);

	if (error != 0)
		return error;
	struct cow_page *page = cow_pages_take(file, 0);
	assert(file->body == COW_BODY_NONE && file->pages.count == 0);
	file->data = cow_mem_copy(page->bytes, file->size);
	file->data_length = (uint32_t)file->size;
	file->body = COW_BODY_INLINE;
	cow_page_free(file->volume, page);
	return 0;
}

struct cow_page *cow_flight_get(const struct cow_volume *volume, uint64_t block)
{
	struct cow_page *page = cow_radix_get(&volume->flight.small, block);

	return page != NULL ? page : cow_radix_get(&volume->flight.large, block);
}

static void launch(struct cow_inode *file, uint64_t at, uint64_t block, uint32_t length)
{
	struct cow_flight *flight = &file->volume->flight;
	struct cow_radix *pages = file->size < LARGE_BYTES ? &flight->small : &flight->large;
	uint8_t sums[4 * COW_EXTENT_BLOCKS_MAX];

	for (uint32_t i = 0; i < length; i++) {
		struct cow_page *page = cow_pages_take(file, at + i);
		put32(sums + 4 * i, cow_extent_sum(page->bytes));
		/* A block is handed out again only after a commit, which wrote whatever was in flight to it. */
		assert(cow_flight_get(file->volume, block + i) == NULL);
		cow_radix_put(pages, block + i, page);
	}
	struct cow_extent extent = {
		.at = at, .kind = COW_EXTENT_PLAIN, .blocks = (uint16_t)length, .block = block, .sums = sums,
	};
	cow_extents_insert(file, &extent);
}

/*
 * Places up to `want` pages from `at` on; *length of them were. What was mapped there is cut first: the pages lie above
 * it, so nobody can see whether it is gone, and a miss in between does no harm.
 */
static int place_run(struct cow_inode *file, uint64_t at, uint32_t want, uint32_t *length)
{
	struct cow_store *store = file->volume->store;
	uint64_t block;
	int error = cow_extents_cut(file, at, at + want);

	if (error == 0)
		error = cow_extents_reserve(file, at);
	if (error != 0)
		return error;
	error = cow_counts_alloc(store->counts, COW_ALLOC_DATA, want, &block, length, &store->miss.counts);
	if (error == COW_MISS)
		store->miss.what = COW_MISS_COUNTS;
	if (error != 0)
		return error;
	assert(*length >= 1 && *length <= want);
	launch(file, at, block, *length);
	return 0;
}

static uint32_t run_length(const struct cow_inode *file, uint64_t at)
{
	uint32_t n = 1;

	while (n < COW_EXTENT_BLOCKS_MAX && cow_pages_get(file, at + n) != NULL)
		n++;
	return n;
}

static int place_some(struct cow_inode *file, uint64_t *at, size_t limit)
{
	int error = 0;

	if (file->size <= COW_INLINE_MAX)
		return place_inline(file);
	for (size_t placed = 0; placed < limit && error == 0 && cow_pages_next(file, at) != NULL;) {
		uint32_t length = 0;

		error = place_run(file, *at, run_length(file, *at), &length);
		*at += length;
		placed += length;
	}
	return error;
}

int cow_flight_place_some(struct cow_inode *file, uint64_t *at, size_t limit)
{
	struct cow_store *store = file->volume->store;
	struct cow_reservation *at_work = store->at_work;
	int error;

	if (cow_pages_next(file, at) == NULL)
		return 0;
	error = cow_inode_reserve(file);
	if (error != 0)
		return error;
	store->at_work = NULL; /* what the map takes was promised when the pages came */
	error = place_some(file, at, limit);
	store->at_work = at_work;
	return error;
}

int cow_flight_place(struct cow_inode *file)
{
	uint64_t at = 0;

	return cow_flight_place_some(file, &at, SIZE_MAX);
}

/* ------------------------------------------------------------------ writing out */

/* Pages that lie one after the other on the device. */
struct run {
	uint64_t block;
	size_t count;
	void *pages[WRITE_BLOCKS]; /* struct cow_page */
};

/* [locked] The first ones at or behind `from`. Pages in flight do not change, and only the one writer removes them. */
static void find_run(const struct cow_radix *pages, uint64_t from, struct run *run)
{
	struct cow_page *page = cow_radix_next(pages, &from);

	run->block = from;
	for (run->count = 0; page != NULL && run->count < WRITE_BLOCKS; run->count++) {
		run->pages[run->count] = page;
		page = cow_radix_get(pages, from + run->count + 1);
	}
}

/* [locked] */
static void land(struct cow_radix *pages, const struct run *run)
{
	for (size_t i = 0; i < run->count; i++) {
		struct cow_page *page = cow_radix_remove(pages, run->block + i);
		assert(page == run->pages[i]);
	}
}

static int write_run(struct cow_volume *volume, const struct run *run, bool large, uint8_t *buffer)
{
	size_t length = run->count * COW_BLOCK;
	uint64_t offset = run->block << COW_BLOCK_SHIFT;

	if (length == 0)
		return 0;
	if (large && run->count >= DIRECT_BLOCKS) { /* nothing is copied: the pages do not change */
		struct iovec parts[WRITE_BLOCKS];

		for (size_t i = 0; i < run->count; i++)
			parts[i] = (struct iovec){run->pages[i], COW_BLOCK};
		return cow_dev_write_direct(volume->dev, parts, run->count, offset);
	}
	for (size_t i = 0; i < run->count; i++)
		memcpy(buffer + i * COW_BLOCK, run->pages[i], COW_BLOCK);
	return cow_dev_write(volume->dev, buffer, length, offset);
}

/* What is placed meanwhile, for the next generation, may go along: nobody looks at its blocks before. */
static int write_all(struct cow_volume *volume, struct cow_radix *pages, bool large, uint8_t *buffer)
{
	pthread_mutex_t *lock = &volume->store->lock;
	struct run run = {.count = 0};
	int error;

	do {
		struct run landed = run;

		pthread_mutex_lock(lock);
		land(pages, &landed);
		find_run(pages, landed.block + landed.count, &run);
		pthread_mutex_unlock(lock);
		cow_pool_give(&volume->pool, landed.pages, landed.count);
		error = write_run(volume, &run, large, buffer);
	} while (run.count != 0 && error == 0);
	return error;
}

int cow_flight_write_out(struct cow_volume *volume)
{
	struct cow_flight *flight = &volume->flight;
	uint8_t *buffer;
	bool any;
	int error;

	pthread_mutex_lock(&volume->store->lock);
	any = flight->small.count + flight->large.count != 0;
	pthread_mutex_unlock(&volume->store->lock);
	if (!any)
		return 0;
	buffer = aligned_alloc(COW_BLOCK, (size_t)WRITE_BLOCKS * COW_BLOCK);
	if (buffer == NULL)
		return -ENOMEM;
	error = write_all(volume, &flight->small, false, buffer);
	if (error == 0)
		error = write_all(volume, &flight->large, true, buffer);
	free(buffer);
	return error;
}
