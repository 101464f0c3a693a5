/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/pages.h"

#include <assert.h>
#include <stdlib.h>

#include "base/mem.h"
#include "fs/volume.h"

struct cow_page *cow_pages_get(const struct cow_inode *file, uint64_t at)
{
	return cow_map_get(&file->pages, at);
}

/* store->dirty_pages is what commits and the promise of space go by: it counts pages, not writes. */
void cow_pages_put(struct cow_inode *file, struct cow_page *page)
{
	struct cow_page *old = cow_map_get(&file->pages, page->at);

	assert(old != page);
	cow_map_put(&file->pages, page->at, page);
	if (old != NULL)
		free(old);
	else
		file->volume->store->dirty_pages++;
}

struct cow_page *cow_pages_take(struct cow_inode *file, uint64_t at)
{
	struct cow_page *page = cow_map_remove(&file->pages, at);

	assert(page != NULL && file->volume->store->dirty_pages > 0);
	file->volume->store->dirty_pages--;
	return page;
}

void cow_pages_drop(struct cow_inode *file, uint64_t from, uint64_t end)
{
	size_t count;
	uint64_t *keys;

	if (file->pages.count == 0 || from >= end)
		return;
	if (end - from <= file->pages.count) { /* a short range in a large map */
		for (uint64_t at = from; at < end; at++)
			if (cow_pages_get(file, at) != NULL)
				free(cow_pages_take(file, at));
		return;
	}
	keys = cow_pages_sorted(file, &count);
	for (size_t i = 0; i < count; i++)
		if (keys[i] >= from && keys[i] < end)
			free(cow_pages_take(file, keys[i]));
	free(keys);
	if (file->pages.count == 0)
		cow_map_free(&file->pages);
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

uint64_t *cow_pages_sorted(const struct cow_inode *file, size_t *count)
{
	struct cow_map_slot *slot;
	size_t n = 0;

	*count = file->pages.count;
	if (*count == 0)
		return NULL;
	uint64_t *keys = cow_mem_new(*count * sizeof(*keys));
	for (size_t i = 0; (slot = cow_map_each(&file->pages, &i)) != NULL;)
		keys[n++] = slot->key;
	assert(n == *count);
	qsort(keys, n, sizeof(*keys), by_number);
	return keys;
}
