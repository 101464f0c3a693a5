/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Hash map from a 64-bit key to a pointer (never NULL): open addressing, linear probing, no tombstones. */
#ifndef COW_BASE_MAP_H
#define COW_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>

struct cow_map_slot {
	uint64_t key;
	void *value; /* NULL: free */
};

struct cow_map { /* all zero is an empty map */
	struct cow_map_slot *slots;
	size_t size; /* 0 or a power of two */
	size_t count;
};

void *cow_map_get(const struct cow_map *map, uint64_t key); /* NULL if absent */
void cow_map_put(struct cow_map *map, uint64_t key, void *value); /* inserts or replaces */
void *cow_map_remove(struct cow_map *map, uint64_t key); /* returns what was there, or NULL */
void cow_map_free(struct cow_map *map); /* the values are the caller's */

/* for (size_t i = 0; (slot = cow_map_each(map, &i)) != NULL;): no change of the map meanwhile */
struct cow_map_slot *cow_map_each(const struct cow_map *map, size_t *i);

#endif
