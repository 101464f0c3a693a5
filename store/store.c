/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "cow.h"
#include "store/node.h"

#define COUNTS_CACHE_BYTES (64u << 20)

int cow_store_format(struct cow_dev *dev, struct cow_super *super)
{
	super->version = COW_FORMAT_VERSION;
	super->generation = 1;
	super->counts = (struct cow_counts_root){0};
	return cow_super_format(dev, super);
}

static void init_locks(struct cow_store *store)
{
	pthread_rwlockattr_t attr;

	pthread_mutex_init(&store->commit, NULL);
	pthread_mutex_init(&store->lock, NULL);
	/* A stream of readers must not keep a seal waiting; no operation takes the gate twice. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&store->gate, &attr);
	pthread_rwlockattr_destroy(&attr);
}

/* Where the queue goes on, and how long it is. The queue is short (reclaim.c), or belongs to a crash. */
static int count_queue(struct cow_store *store)
{
	struct cow_tree *queue = &store->roots[COW_ROOT_RECLAIM];
	struct cow_item item;
	int error = 0;

	pthread_mutex_lock(&store->lock);
	store->reclaim_key = 1;
	for (uint64_t key = 0; error == 0;) {
		error = cow_tree_next(store, queue, key, &item);
		if (error == COW_MISS) {
			error = cow_store_fill(store, NULL);
		} else if (error == 0) {
			store->reclaim_count++;
			store->reclaim_key = item.key + 1;
			key = item.key + 1;
		}
	}
	pthread_mutex_unlock(&store->lock);
	return error == -ENOENT ? 0 : error;
}

/* Only writers need them: readers go on. */
static int open_counts(struct cow_store *store)
{
	const struct cow_super *super = &store->super;
	int error = cow_counts_open(store->dev, &store->lock, super->total_blocks, &super->counts, COUNTS_CACHE_BYTES,
				    &store->counts);

	if (!cow_is_damage(error))
		return error;
	if (!store->read_only)
		store->ops->log(store->context, COW_LOG_ERROR,
				"the counts are damaged: opened read-only; copy what you need and run cow check");
	store->read_only = true;
	return cow_counts_open_unread(store->dev, &store->lock, super->total_blocks, &super->counts, COUNTS_CACHE_BYTES,
				      &store->counts);
}

/* What waits for reclaim has no names: if it cannot all be read, that is no reason to refuse. */
static int open_queue(struct cow_store *store)
{
	int error = count_queue(store);

	if (!cow_is_damage(error))
		return error;
	if (!store->read_only) {
		pthread_mutex_lock(&store->lock);
		cow_reclaim_begin_anew(store);
		pthread_mutex_unlock(&store->lock);
	}
	return 0;
}

int cow_store_open(struct cow_dev *dev, bool read_only, uint64_t cache_bytes, const struct cow_store_ops *ops,
		   void *context, struct cow_store **out)
{
	struct cow_store *store = calloc(1, sizeof(*store));
	bool decayed = false;
	int error;

	if (store == NULL)
		return -ENOMEM;
	store->dev = dev;
	store->ops = ops;
	store->context = context;
	init_locks(store);
	store->roots = cow_mem_new(COW_ROOTS * sizeof(*store->roots));
	store->clean_limit = cache_bytes / sizeof(struct cow_node) + 1;
	store->node_number = 1;
	error = cow_super_read(dev, &store->super, &decayed);
	if (error != 0)
		goto fail;
	if (decayed && !read_only)
		ops->log(context, COW_LOG_ERROR,
			 "the newest superblock is damaged: opened read-only at an older generation; "
			 "copy what you need and run cow check");
	store->read_only = read_only || decayed || (store->super.ro_compat & ~(uint64_t)COW_RO_COMPAT_KNOWN) != 0;
	store->read_only |= store->super.generation >= COW_GENERATION_LAST;
	store->total_blocks = store->super.total_blocks;
	store->opened = store->super.generation;
	if (store->total_blocks > dev->size_bytes >> COW_BLOCK_SHIFT) {
		error = COW_ERR_SHORT;
		goto fail;
	}
	error = store->read_only ? 0 : cow_super_mend(dev, &store->super);
	if (error != 0)
		goto fail;
	store->generation = store->super.generation + 1;
	cow_log_open(&store->log, dev, &store->super, store->super.log.position);
	for (unsigned i = 0; i < COW_ROOTS; i++)
		store->roots[i] = (struct cow_tree){store->super.roots[i], store->super.root_kinds[i]};
	if (store->roots[COW_ROOT_RECLAIM].kind != COW_KIND_RECLAIM) {
		error = COW_ERR_DAMAGED;
		goto fail;
	}
	error = open_counts(store);
	if (error == 0)
		error = open_queue(store);
	if (error != 0)
		goto fail;
	*out = store;
	return 0;
fail:
	cow_store_close(store);
	return error;
}

void cow_store_close(struct cow_store *store)
{
	struct cow_map_slot *slot;

	if (store->counts != NULL)
		cow_counts_close(store->counts);
	for (size_t i = 0; (slot = cow_map_each(&store->nodes, &i)) != NULL;)
		free(slot->value);
	cow_map_free(&store->nodes);
	free(store->sealed);
	cow_map_free(&store->held);
	free(store->roots);
	pthread_rwlock_destroy(&store->gate);
	pthread_mutex_destroy(&store->lock);
	pthread_mutex_destroy(&store->commit);
	free(store);
}

static int fill_node(struct cow_store *store, const struct cow_miss *miss, struct cow_node **pin)
{
	struct cow_node *node, *there;
	int error = cow_node_read(store, miss->node, miss->kind, miss->level, &node);

	pthread_mutex_lock(&store->lock);
	if (error != 0)
		return error;
	there = cow_map_get(&store->nodes, node->id);
	if (there != NULL) { /* somebody else was quicker */
		free(node);
		node = there;
	} else {
		cow_node_insert_clean(store, node);
	}
	if (pin != NULL) {
		cow_node_pin(node);
		*pin = node;
	}
	return 0; /* nothing leaves memory before the operation's end: it gets ahead with each miss */
}

int cow_store_fill(struct cow_store *store, struct cow_node **pin)
{
	struct cow_miss miss = store->miss;
	int error;

	if (pin != NULL)
		*pin = NULL;
	if (miss.what == COW_MISS_ROOM) /* not while an operation is under way */
		return -ENOSPC;
	pthread_mutex_unlock(&store->lock);
	if (miss.what == COW_MISS_NODE)
		return fill_node(store, &miss, pin);
	error = cow_counts_load(store->counts, miss.counts);
	pthread_mutex_lock(&store->lock);
	/* No commit that needs them can succeed any more. */
	return cow_is_damage(error) && !store->read_only ? cow_store_fail(store, error, "counts of blocks") : error;
}

int cow_store_fail(struct cow_store *store, int error, const char *what)
{
	char text[200];

	if (store->failed == 0) {
		store->failed = error;
		store->read_only = true;
		snprintf(text, sizeof(text),
			 "%s: %s: the volume is read-only now; the last commit (generation %llu) is safe; "
			 "unmount it and run cow check",
			 what, cow_error_text(error), (unsigned long long)store->super.generation);
		store->ops->log(store->context, COW_LOG_ERROR, text);
	}
	return error;
}

/*
 * A value that has grown splits its leaf, once at the most, and so once for each value. Nor are there more leaves in
 * the end than one more for each that is dirty, and the bytes of what was put: a value is a quarter of a leaf at the
 * most, and leaves that were split are half full. Above thirty leaves there is less than one more node.
 */
uint64_t cow_store_due(const struct cow_store *store)
{
	uint64_t splits = store->dirty_nodes + store->dirty_records / 2;

	if (splits > store->dirty_records)
		splits = store->dirty_records;
	return store->dirty_nodes + store->dirty_pages + store->fold_blocks + splits + splits / 32;
}

static uint64_t less(uint64_t from, uint64_t blocks)
{
	return from > blocks ? from - blocks : 0;
}

uint64_t cow_store_unpromised(const struct cow_store *store)
{
	return less(cow_counts_available(store->counts), cow_store_due(store));
}

int cow_store_check_floor(struct cow_store *store, uint64_t blocks)
{
	uint64_t floor = store->at_work != NULL ? store->at_work->floor : 0;
	uint64_t kept = cow_store_due(store) + floor + blocks;

	/* The host may be full without our knowing: then no more than what it has given already can be relied on. */
	if (floor == 0 ||
	    (cow_counts_available(store->counts) >= kept && cow_counts_ready(store->counts) >= kept))
		return 0;
	store->miss = (struct cow_miss){.what = COW_MISS_ROOM, .blocks = blocks + 1};
	return COW_MISS;
}

uint64_t cow_store_free_blocks(const struct cow_store *store)
{
	return less(cow_counts_free(store->counts), store->dirty_nodes + store->dirty_pages - store->covered_pages);
}
