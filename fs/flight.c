/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How buffered pages get their place on the device, and get there.
 *
 * A page is in exactly one of two maps: the file's `pages` (mutable, above the map of extents) or the volume's `flight`
 * (immutable, the content of the block it is keyed by). It moves from one to the other in the moment in which the map
 * starts to point at the block, so a reader, who holds the lock while he looks, finds it once.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "fs/extents.h"
#include "fs/file.h"
#include "fs/pages.h"
#include "fs/volume.h"

/* Blocks in one write to the device. */
#define WRITE_BLOCKS 256u

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
	free(page);
	return 0;
}

static void launch(struct cow_inode *file, uint64_t at, uint64_t block, uint32_t length)
{
	uint8_t sums[4 * COW_EXTENT_BLOCKS_MAX];

	for (uint32_t i = 0; i < length; i++) {
		struct cow_page *page = cow_pages_take(file, at + i);
		put32(sums + 4 * i, cow_extent_sum(page->bytes));
		/* A block is handed out again only after a commit, which wrote whatever was in flight to it. */
		assert(cow_map_get(&file->volume->flight.pages, block + i) == NULL);
		cow_map_put(&file->volume->flight.pages, block + i, page);
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

static uint32_t run_length(const uint64_t *keys, size_t count)
{
	uint32_t n = 1;

	while (n < count && n < COW_EXTENT_BLOCKS_MAX && keys[n] == keys[0] + n)
		n++;
	return n;
}

int cow_file_place(struct cow_inode *file)
{
	int error;

	if (file->pages.count == 0)
		return 0;
	error = cow_inode_reserve(file);
	if (error != 0)
		return error;
	if (file->size <= COW_INLINE_MAX)
		return place_inline(file);
	size_t count;
	uint64_t *keys = cow_pages_sorted(file, &count);
	for (size_t i = 0; i < count && error == 0;) {
		uint32_t length = 0;
		error = place_run(file, keys[i], run_length(keys + i, count - i), &length);
		i += length;
	}
	free(keys);
	if (file->pages.count == 0)
		cow_map_free(&file->pages);
	return error;
}

/* ------------------------------------------------------------------ writing out */

struct flyer {
	uint64_t block;
	struct cow_page *page;
};

static int by_block(const void *a, const void *b)
{
	uint64_t x = ((const struct flyer *)a)->block, y = ((const struct flyer *)b)->block;

	return (x > y) - (x < y);
}

/* Copies the pointers out: pages in flight do not change, and only the one writer removes them. */
static struct flyer *collect(struct cow_volume *volume, size_t *count)
{
	struct cow_map *map = &volume->flight.pages;
	struct cow_map_slot *slot;
	struct flyer *flyers = NULL;
	size_t n = 0;

	pthread_mutex_lock(&volume->store->lock);
	if (map->count != 0)
		flyers = cow_mem_new(map->count * sizeof(*flyers));
	for (size_t i = 0; (slot = cow_map_each(map, &i)) != NULL;)
		flyers[n++] = (struct flyer){slot->key, slot->value};
	pthread_mutex_unlock(&volume->store->lock);
	*count = n;
	if (n > 1)
		qsort(flyers, n, sizeof(*flyers), by_block);
	return flyers;
}

static void land(struct cow_volume *volume, const struct flyer *flyers, size_t count)
{
	pthread_mutex_lock(&volume->store->lock);
	for (size_t i = 0; i < count; i++) {
		struct cow_page *page = cow_map_remove(&volume->flight.pages, flyers[i].block);
		assert(page == flyers[i].page);
		free(page);
	}
	if (volume->flight.pages.count == 0)
		cow_map_free(&volume->flight.pages);
	pthread_mutex_unlock(&volume->store->lock);
}

int cow_file_write_out(struct cow_volume *volume)
{
	size_t count;
	struct flyer *flyers = collect(volume, &count);
	uint8_t *buffer = count != 0 ? malloc((size_t)WRITE_BLOCKS * COW_BLOCK) : NULL;
	int error = count != 0 && buffer == NULL ? -ENOMEM : 0;

	for (size_t i = 0, n; i < count && error == 0; i += n) {
		for (n = 0; n < WRITE_BLOCKS && i + n < count && flyers[i + n].block == flyers[i].block + n; n++)
			memcpy(buffer + n * COW_BLOCK, flyers[i + n].page->bytes, COW_BLOCK);
		error = cow_dev_write(volume->dev, buffer, n * COW_BLOCK, flyers[i].block << COW_BLOCK_SHIFT);
		if (error == 0)
			land(volume, flyers + i, n);
	}
	free(buffer);
	free(flyers);
	return error;
}
