/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/walk.h"

static void enter(struct cow_store *store)
{
	pthread_rwlock_rdlock(&store->gate);
	pthread_mutex_lock(&store->lock);
}

static void leave(struct cow_store *store)
{
	cow_node_evict(store);
	pthread_mutex_unlock(&store->lock);
	pthread_rwlock_unlock(&store->gate);
}

int cow_walk_get(struct cow_store *store, struct cow_ptr ptr, uint8_t kind, int level, struct cow_node **node)
{
	int error;

	enter(store);
	error = cow_node_get(store, ptr, kind, level, node);
	if (error == COW_MISS)
		error = cow_store_fill(store, node);
	else if (error == 0)
		cow_node_pin(*node);
	leave(store);
	return error;
}

void cow_walk_put(struct cow_store *store, struct cow_node *node)
{
	pthread_mutex_lock(&store->lock);
	cow_node_unpin(node);
	pthread_mutex_unlock(&store->lock);
}

int cow_walk_count(struct cow_store *store, uint64_t block, uint32_t *count)
{
	int error;

	enter(store);
	while ((error = cow_counts_get(store->counts, block, count, &store->miss.counts)) == COW_MISS) {
		store->miss.what = COW_MISS_COUNTS;
		if ((error = cow_store_fill(store, NULL)) != 0)
			break;
	}
	leave(store);
	return error;
}

int cow_walk_next(struct cow_store *store, const struct cow_tree *tree, uint64_t key, uint64_t *found, uint8_t *value,
		  uint32_t *length)
{
	struct cow_item item;
	int error;

	enter(store);
	while ((error = cow_tree_next(store, tree, key, &item)) == COW_MISS)
		if ((error = cow_store_fill(store, NULL)) != 0)
			break;
	if (error == 0) {
		*found = item.key;
		*length = item.length;
		memcpy(value, item.value, item.length);
	}
	leave(store);
	return error;
}
