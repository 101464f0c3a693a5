/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/reclaim/dryrun.h"

#include <assert.h>
#include <stdlib.h>

#include "base/mem.h"
#include "fs/format/record.h"
#include "store/walk.h"

struct cow_dryrun_node {
	struct cow_ptr ptr;
	uint8_t kind, slack;
};

uint64_t cow_dryrun_met(const struct cow_dryrun *d, uint64_t block)
{
	return (uint64_t)(uintptr_t)cow_map_get(&d->seen, block);
}

/* One more claim of the block goes: is it the last? */
static bool gives_back(struct cow_dryrun *d, uint64_t block, uint32_t count, uint8_t slack)
{
	uint32_t others = slack != 0 && count > 1 ? count - 1 : count;

	if (others <= 1)
		return true;
	uint64_t met = cow_dryrun_met(d, block) + 1;
	cow_map_put(&d->seen, block, (void *)(uintptr_t)met);
	return met == others;
}

static void drop_tree(struct cow_claims *self, uint8_t *bytes, uint8_t kind)
{
	struct cow_dryrun *d = (struct cow_dryrun *)self;
	struct cow_ptr ptr = cow_ptr_get(bytes);
	uint32_t count;

	if (cow_ptr_is_null(ptr) || d->error != 0)
		return;
	d->error = cow_walk_count(d->store, ptr.addr, &count);
	if (d->error != 0 || !gives_back(d, ptr.addr, count, d->slack))
		return;
	/* Once is enough: counts move while others work, and pointers in a ring lead here again and again. */
	if (cow_map_get(&d->entered, ptr.addr) != NULL)
		return;
	cow_map_put(&d->entered, ptr.addr, d);
	if (d->count == d->size) {
		d->size = d->size != 0 ? 2 * d->size : 64;
		d->pending = cow_mem_resize(d->pending, d->size * sizeof(*d->pending));
	}
	d->pending[d->count++] = (struct cow_dryrun_node){ptr, kind, d->slack != 0 && count == 1};
}

static int get_counts(struct cow_store *store, uint64_t block, uint32_t length, uint32_t *counts)
{
	int error = 0;

	pthread_rwlock_rdlock(&store->gate);
	pthread_mutex_lock(&store->lock);
	for (uint32_t i = 0; i < length && error == 0;) {
		error = cow_counts_get(store->counts, block + i, &counts[i], &store->miss.counts);
		if (error == COW_MISS) {
			store->miss.what = COW_MISS_COUNTS;
			error = cow_store_fill(store, NULL);
		} else {
			i++;
		}
	}
	pthread_mutex_unlock(&store->lock);
	pthread_rwlock_unlock(&store->gate);
	return error;
}

static void drop_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	struct cow_dryrun *d = (struct cow_dryrun *)self;
	uint32_t counts[COW_EXTENT_BLOCKS_MAX];

	assert(length <= COW_EXTENT_BLOCKS_MAX);
	if (d->error == 0)
		d->error = get_counts(d->store, block, length, counts);
	for (uint32_t i = 0; i < length && d->error == 0; i++)
		if (gives_back(d, block + i, counts[i], d->slack))
			d->blocks++;
}

void cow_dryrun_begin(struct cow_dryrun *d, struct cow_store *store)
{
	*d = (struct cow_dryrun){.visitor = {drop_tree, drop_run}, .store = store};
}

void cow_dryrun_end(struct cow_dryrun *d)
{
	cow_map_free(&d->seen);
	cow_map_free(&d->entered);
	free(d->pending);
	d->pending = NULL;
}

int cow_dryrun_go(struct cow_dryrun *d)
{
	while (d->count > 0 && d->error == 0) {
		struct cow_dryrun_node n = d->pending[--d->count];
		struct cow_node *node;
		d->error = cow_walk_get(d->store, n.ptr, n.kind, -1, &node);
		if (d->error != 0)
			break;
		d->blocks++;
		d->slack = n.slack;
		cow_node_claims(d->store, node, &d->visitor);
		cow_walk_put(d->store, node);
	}
	return d->error;
}

bool cow_dryrun_is_free(struct cow_dryrun *d, uint64_t block)
{
	uint32_t count = 0;

	if (d->error == 0)
		d->error = get_counts(d->store, block, 1, &count);
	return d->error == 0 && (count <= 1 || cow_dryrun_met(d, block) == count);
}
