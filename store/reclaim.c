/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The reclaim queue (doc/DESIGN.md, "Removed trees"): a tree of pointers that have been taken out of the volume, each
 * owning one count of its node. A step takes the newest: if others point to the node too, its count drops by one and
 * that was all; else its children are put in its place and the node is freed. All of a step is in one generation, so a
 * crash repeats or forgets it as a whole. Newest first keeps the queue at (height x fan-out) entries.
 *
 * Keys only grow, and a dirty path to the largest key stays dirty until the seal: a push after a reserve cannot miss.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "cow.h"
#include "store/node.h"

#define KEY_LAST UINT64_MAX
#define TOLD_MAX 100u

static struct cow_tree *queue(struct cow_store *store)
{
	return &store->roots[COW_ROOT_RECLAIM];
}

int cow_reclaim_reserve(struct cow_store *store)
{
	return cow_tree_reserve(store, queue(store), KEY_LAST);
}

static uint64_t push(struct cow_store *store, struct cow_ptr root, uint8_t kind)
{
	uint8_t value[COW_PTR_BYTES + 1];
	uint64_t key = store->reclaim_key++;
	int error;

	cow_ptr_put(value, root);
	value[COW_PTR_BYTES] = kind;
	error = cow_tree_put(store, queue(store), key, value, sizeof(value));
	assert(error == 0); /* reserved */
	store->reclaim_count++;
	store->changes++;
	return key;
}

void cow_reclaim_push(struct cow_store *store, struct cow_ptr root, uint8_t kind)
{
	if (!cow_ptr_is_null(root))
		push(store, root, kind);
}

static void hold(struct cow_store *store, uint64_t key)
{
	cow_map_put(&store->held, key, store);
}

uint64_t cow_reclaim_hold(struct cow_store *store, struct cow_ptr root, uint8_t kind)
{
	uint64_t key = push(store, root, kind);

	hold(store, key);
	return key;
}

void cow_reclaim_release(struct cow_store *store, uint64_t key)
{
	cow_map_remove(&store->held, key);
	store->held_known = false;
}

struct freer {
	struct cow_claims visitor;
	struct cow_store *store;
};

static void free_tree(struct cow_claims *self, uint8_t *ptr, uint8_t kind)
{
	cow_reclaim_push(((struct freer *)self)->store, cow_ptr_get(ptr), kind);
}

static void free_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	cow_counts_add(((struct freer *)self)->store->counts, block, length, -1);
}

void cow_reclaim_value(struct cow_store *store, uint8_t kind, uint8_t *value, uint32_t length)
{
	struct freer freer = {{free_tree, free_run}, store};
	uint8_t copy[COW_VALUE_MAX]; /* the queue may move the node that holds the value */

	memcpy(copy, value, length);
	cow_store_value_claims(store, kind, copy, length, &freer.visitor);
}

/* The newest that is not held. What is known to be held is passed over at once: an image may have very many entries
 * that must be given up. */
static int newest(struct cow_store *store, struct cow_item *item)
{
	bool any = false, joined = false;
	uint64_t key = KEY_LAST, high = 0, low = 0;
	int error;

	for (;;) {
		error = cow_tree_previous(store, queue(store), key, item);
		if (error != 0 || cow_map_get(&store->held, item->key) == NULL)
			break;
		high = any ? high : item->key;
		low = item->key;
		any = true;
		if (store->held_known && low <= store->held_high && low >= store->held_low) {
			low = store->held_low;
			joined = true;
		}
		if (low == 0) {
			error = -ENOENT;
			break;
		}
		key = low - 1;
	}
	if (any && error != COW_MISS && (joined || !store->held_known)) {
		store->held_known = true;
		store->held_low = low;
		store->held_high = high;
	}
	return error;
}

static void take(struct cow_store *store, uint64_t key)
{
	int error = cow_tree_del(store, queue(store), key);

	assert(error == 0);
	store->reclaim_count--;
	store->changes++;
}

/* The node is ours alone: its children take its place. */
static void dissolve(struct cow_store *store, struct cow_node *node)
{
	struct freer freer = {{free_tree, free_run}, store};

	cow_node_claims(store, node, &freer.visitor);
	if (node->state == COW_NODE_DIRTY)
		cow_node_free_dirty(store, node);
	else
		cow_counts_add(store->counts, node->id, 1, -1);
}

int cow_reclaim_step(struct cow_store *store)
{
	struct cow_item item;
	struct cow_node *node;
	uint32_t count = 0;
	int error;

	store->reclaim_trying = 0;
	error = newest(store, &item);
	if (error != 0)
		return error == -ENOENT ? 0 : error;
	error = cow_tree_reserve(store, queue(store), item.key);
	if (error == 0)
		error = cow_reclaim_reserve(store);
	if (error == 0)
		error = newest(store, &item); /* the leaf may have been copied */
	if (error != 0)
		return error;

	struct cow_ptr ptr = cow_ptr_get(item.value);
	uint8_t kind = item.value[COW_PTR_BYTES];
	store->reclaim_trying = item.key; /* what misses from here on is needed for this entry only */
	if (!cow_ptr_is_dirty(ptr)) {
		error = cow_counts_get(store->counts, ptr.addr, &count, &store->miss.counts);
		if (error != 0) {
			store->miss.what = COW_MISS_COUNTS;
			return error;
		}
		if (count == 0) /* whose count is this pointer, then? Without this a ring of nodes would never end */
			return COW_ERR_DAMAGED;
		if (count > 1) {
			take(store, item.key);
			cow_counts_add(store->counts, ptr.addr, 1, -1);
			return 1;
		}
	}
	error = cow_node_get(store, ptr, kind, -1, &node);
	if (error != 0)
		return error;
	/* Children first: without the last entry of its leaf the queue would end in one that was not reserved. */
	if (node->state == COW_NODE_DIRTY && node->holders > 1)
		node->holders--;
	else
		dissolve(store, node);
	take(store, item.key);
	return 1;
}

bool cow_reclaim_give_up(struct cow_store *store, uint64_t trying, int error)
{
	char text[160];

	if ((error != COW_ERR_DAMAGED && error != -EIO) || trying == 0)
		return false;
	if (cow_map_get(&store->held, trying) != NULL) /* somebody else tried it, too */
		return true;
	snprintf(text, sizeof(text),
		 "a removed tree is damaged: its space is not given back (entry %" PRIu64 " of the reclaim queue); "
		 "run cow check", trying);
	if (store->given_up++ < TOLD_MAX) /* there may be as many as the volume has room for */
		store->ops->log(store->context, COW_LOG_WARNING, text);
	hold(store, trying);
	return true;
}

void cow_reclaim_begin_anew(struct cow_store *store)
{
	struct cow_ptr old = queue(store)->root;
	int error;

	store->ops->log(store->context, COW_LOG_WARNING,
			"the queue of removed trees is damaged: their space is given back as far as it can be read; "
			"run cow check");
	queue(store)->root = (struct cow_ptr){0};
	store->reclaim_count = 0;
	error = cow_reclaim_reserve(store);
	assert(error == 0); /* of an empty tree */
	push(store, old, COW_KIND_RECLAIM);
}
