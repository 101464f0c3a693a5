/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/map.h"

#include <stdlib.h>

#include "base/mem.h"

/* The finaliser of MurmurHash3 (Appleby): spreads sequential keys over the table. */
static size_t spread(uint64_t key)
{
	key ^= key >> 33;
	key *= 0xff51afd7ed558ccdULL;
	key ^= key >> 33;
	key *= 0xc4ceb9fe1a85ec53ULL;
	return (size_t)(key ^ key >> 33);
}

static size_t probe(const struct cow_map *map, uint64_t key)
{
	size_t i = spread(key) & (map->size - 1);

	while (map->slots[i].value != NULL && map->slots[i].key != key)
		i = (i + 1) & (map->size - 1);
	return i;
}

static void grow(struct cow_map *map)
{
	struct cow_map old = *map;
	struct cow_map_slot *slot;

	map->size = old.size != 0 ? old.size * 2 : 8;
	map->slots = cow_mem_new(map->size * sizeof(*map->slots));
	for (size_t i = 0; (slot = cow_map_each(&old, &i)) != NULL;)
		map->slots[probe(map, slot->key)] = *slot;
	free(old.slots);
}

void *cow_map_get(const struct cow_map *map, uint64_t key)
{
	return map->size != 0 ? map->slots[probe(map, key)].value : NULL;
}

void cow_map_put(struct cow_map *map, uint64_t key, void *value)
{
	if (map->count * 4 >= map->size * 3)
		grow(map);
	struct cow_map_slot *slot = &map->slots[probe(map, key)];
	if (slot->value == NULL)
		map->count++;
	slot->key = key;
	slot->value = value;
}

/* Knuth, TAOCP 6.4 algorithm R: closes the gap so that no probe sequence is cut. */
void *cow_map_remove(struct cow_map *map, uint64_t key)
{
	if (map->size == 0)
		return NULL;
	size_t mask = map->size - 1, gap = probe(map, key);
	void *value = map->slots[gap].value;

	if (value == NULL)
		return NULL;
	map->count--;
	for (size_t i = (gap + 1) & mask; map->slots[i].value != NULL; i = (i + 1) & mask) {
		size_t home = spread(map->slots[i].key) & mask;
		if (((i - home) & mask) >= ((i - gap) & mask)) {
			map->slots[gap] = map->slots[i];
			gap = i;
		}
	}
	map->slots[gap].value = NULL;
	return value;
}

void cow_map_free(struct cow_map *map)
{
	free(map->slots);
	*map = (struct cow_map){0};
}

struct cow_map_slot *cow_map_each(const struct cow_map *map, size_t *i)
{
	while (*i < map->size) {
		struct cow_map_slot *slot = &map->slots[(*i)++];
		if (slot->value != NULL)
			return slot;
	}
	return NULL;
}
