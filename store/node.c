/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/node.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/mem.h"
#include "cow.h"

/* ------------------------------------------------------------------ bytes */

struct cow_keys cow_keys_below(const struct cow_keys *keys, struct cow_node *node, unsigned index)
{
	bool is_last = index + 1 == cow_node_items(node);

	return (struct cow_keys){cow_node_key(node, index), is_last ? keys->last : cow_node_key(node, index + 1) - 1};
}

bool cow_node_within(struct cow_node *node, const struct cow_keys *keys)
{
	unsigned items = cow_node_items(node);

	return items == 0 || (cow_node_key(node, 0) >= keys->first && cow_node_key(node, items - 1) <= keys->last);
}

int cow_node_find(struct cow_node *node, uint64_t key)
{
	int low = 0, high = (int)cow_node_items(node);

	while (low < high) { /* the first item with a larger key */
		int middle = (low + high) / 2;
		if (cow_node_key(node, (unsigned)middle) <= key)
			low = middle + 1;
		else
			high = middle;
	}
	return low - 1;
}

/* An entry of the reclaim queue. Keys only grow, and must never come to an end. */
static bool queued_valid(uint64_t key, const uint8_t *value, uint32_t length, uint64_t total_blocks)
{
	return length == COW_PTR_BYTES + 1 && key >> 63 == 0 && value[COW_PTR_BYTES] != 0 &&
	       cow_ptr_get(value).generation != 0 && cow_layout_run_valid(get64(value), 1, total_blocks);
}

static int validate_leaf(struct cow_node *node, const struct cow_store_ops *ops, uint64_t total_blocks)
{
	unsigned items = cow_node_items(node);

	if (COW_NODE_HEADER + items * COW_LEAF_SLOT > COW_BLOCK)
		return COW_ERR_DAMAGED;
	for (unsigned i = 0; i < items; i++) {
		uint32_t start = get16(cow_leaf_slot(node, i) + 8), end = cow_leaf_end(node, i);

		if (start > end || end - start > COW_VALUE_MAX || start < COW_NODE_HEADER + items * COW_LEAF_SLOT)
			return COW_ERR_DAMAGED;
		if (i > 0 && cow_node_key(node, i) <= cow_node_key(node, i - 1))
			return COW_ERR_DAMAGED;
		if (cow_node_kind(node) == COW_KIND_RECLAIM) {
			if (!queued_valid(cow_node_key(node, i), node->bytes + start, end - start, total_blocks))
				return COW_ERR_DAMAGED;
		} else if (ops != NULL && ops->validate(cow_node_kind(node), cow_node_key(node, i), node->bytes + start,
							end - start, total_blocks) != 0) {
			return COW_ERR_DAMAGED;
		}
	}
	return 0;
}

static int validate_inner(struct cow_node *node, uint64_t total_blocks)
{
	unsigned items = cow_node_items(node);

	if (items == 0 || items > COW_INNER_ITEMS_MAX)
		return COW_ERR_DAMAGED;
	for (unsigned i = 0; i < items; i++) {
		struct cow_ptr child = cow_inner_ptr(node, i);

		if (i > 0 && cow_node_key(node, i) <= cow_node_key(node, i - 1))
			return COW_ERR_DAMAGED;
		if (child.addr == 0 || child.addr >= total_blocks || cow_layout_is_system(child.addr) ||
		    child.generation > cow_node_birth(node))
			return COW_ERR_DAMAGED;
	}
	return 0;
}

int cow_node_validate(struct cow_node *node, const struct cow_store_ops *ops, uint64_t total_blocks)
{
	if (get32(node->bytes) != COW_NODE_MAGIC || cow_node_level(node) > COW_LEVEL_DISK ||
	    get64(node->bytes + 24) != 0)
		return COW_ERR_DAMAGED;
	return cow_node_level(node) == 0 ? validate_leaf(node, ops, total_blocks) : validate_inner(node, total_blocks);
}

void cow_store_value_claims(struct cow_store *store, uint8_t kind, uint8_t *value, uint32_t length,
			    struct cow_claims *visitor)
{
	if (kind == COW_KIND_RECLAIM)
		visitor->tree(visitor, value, value[COW_PTR_BYTES]);
	else
		store->ops->claims(kind, value, length, visitor);
}

void cow_node_claims(struct cow_store *store, struct cow_node *node, struct cow_claims *visitor)
{
	unsigned items = cow_node_items(node);

	for (unsigned i = 0; i < items; i++) {
		if (cow_node_level(node) > 0) {
			visitor->tree(visitor, cow_inner_item(node, i) + 8, cow_node_kind(node));
		} else {
			uint32_t length;
			uint8_t *value = cow_leaf_value(node, i, &length);
			cow_store_value_claims(store, cow_node_kind(node), value, length, visitor);
		}
	}
}

/* ------------------------------------------------------------------ cache */

static void clock_add(struct cow_store *store, struct cow_node *node)
{
	if (store->clock == NULL) {
		node->next = node->previous = node;
		store->clock = node;
	} else { /* just behind the hand: looked at last */
		node->next = store->clock;
		node->previous = store->clock->previous;
		node->previous->next = node;
		node->next->previous = node;
	}
	store->clean_nodes++;
}

static void clock_remove(struct cow_store *store, struct cow_node *node)
{
	if (node->next == node) {
		store->clock = NULL;
	} else {
		node->next->previous = node->previous;
		node->previous->next = node->next;
		if (store->clock == node)
			store->clock = node->next;
	}
	store->clean_nodes--;
}

void cow_node_insert_clean(struct cow_store *store, struct cow_node *node)
{
	node->state = COW_NODE_CLEAN;
	node->referenced = true;
	cow_map_put(&store->nodes, node->id, node);
	clock_add(store, node);
}

void cow_node_forget_clean(struct cow_store *store, struct cow_node *node)
{
	assert(node->state == COW_NODE_CLEAN && node->pins == 0);
	clock_remove(store, node);
	cow_map_remove(&store->nodes, node->id);
	free(node);
}

void cow_node_evict(struct cow_store *store)
{
	/* Twice around at most: all may be pinned. */
	for (uint64_t tries = 2 * store->clean_nodes; store->clean_nodes > store->clean_limit && tries > 0; tries--) {
		struct cow_node *node = store->clock;

		store->clock = node->next;
		if (node->referenced)
			node->referenced = false;
		else if (node->pins == 0)
			cow_node_forget_clean(store, node);
	}
}

/* A node in memory that is not what the pointer to it promises: the parent lies, although its checksum fits. Or the
 * block was not counted for this pointer, and has been given to another node since. */
static int not_as_promised(struct cow_store *store, struct cow_ptr ptr, struct cow_node *node, uint8_t kind, int level)
{
	char text[200];

	if (cow_node_kind(node) == kind && (level < 0 || cow_node_level(node) == level) &&
	    (cow_ptr_is_dirty(ptr) || cow_node_birth(node) == ptr.generation) &&
	    !(level == 0 && node->state == COW_NODE_CLEAN && cow_node_items(node) == 0))
		return 0;
	snprintf(text, sizeof(text),
		 "block %" PRIu64 ": node of kind %u, level %d, born %" PRIu64 " where kind %u, level %d, born %" PRIu64
		 " was expected",
		 ptr.addr, cow_node_kind(node), cow_node_level(node), cow_node_birth(node), kind, level,
		 ptr.generation);
	store->ops->log(store->context, COW_LOG_ERROR, text);
	return COW_ERR_DAMAGED;
}

int cow_node_expect(struct cow_store *store, struct cow_node *node, const struct cow_keys *keys)
{
	char text[120];

	if (cow_node_within(node, keys))
		return 0;
	snprintf(text, sizeof(text), "node at block %" PRIu64 ": keys that do not belong there", node->id);
	store->ops->log(store->context, COW_LOG_ERROR, text);
	return COW_ERR_DAMAGED;
}

int cow_node_get(struct cow_store *store, struct cow_ptr ptr, uint8_t kind, int level, struct cow_node **node)
{
	*node = cow_map_get(&store->nodes, ptr.addr);
	if (*node == NULL) {
		assert(!cow_ptr_is_dirty(ptr));
		store->miss = (struct cow_miss){.what = COW_MISS_NODE, .node = ptr, .kind = kind, .level = level};
		return COW_MISS;
	}
	(*node)->referenced = true;
	return not_as_promised(store, ptr, *node, kind, level);
}

struct cow_node *cow_node_new(struct cow_store *store, uint8_t kind, int level, const struct cow_node *from)
{
	struct cow_node *node = cow_mem_new(sizeof(*node));

	if (from != NULL) {
		memcpy(node->bytes, from->bytes, COW_BLOCK);
	} else {
		put32(node->bytes, COW_NODE_MAGIC);
		node->bytes[4] = kind;
		node->bytes[5] = (uint8_t)level;
	}
	put64(node->bytes + 8, 0);
	put64(node->bytes + 16, store->generation);
	node->id = COW_PTR_DIRTY | store->node_number++;
	node->state = COW_NODE_DIRTY;
	node->holders = 1;
	cow_map_put(&store->nodes, node->id, node);
	store->dirty_nodes++;
	if (store->at_work != NULL) { /* whatever it puts goes into nodes that it made dirty, or that others have */
		store->at_work->nodes++;
		assert(store->at_work->nodes <= store->at_work->blocks + store->at_work->more);
	}
	return node;
}

void cow_node_free_dirty(struct cow_store *store, struct cow_node *node)
{
	assert(node->state == COW_NODE_DIRTY && node->pins == 0);
	cow_map_remove(&store->nodes, node->id);
	store->dirty_nodes--;
	free(node);
}

void cow_node_claim(struct cow_store *store, struct cow_ptr ptr)
{
	if (cow_ptr_is_null(ptr))
		return;
	if (cow_ptr_is_dirty(ptr)) {
		struct cow_node *node = cow_map_get(&store->nodes, ptr.addr);
		assert(node != NULL && node->state == COW_NODE_DIRTY);
		node->holders++;
	} else {
		cow_counts_add(store->counts, ptr.addr, 1, +1);
	}
}

struct claimer {
	struct cow_claims visitor;
	struct cow_store *store;
};

static void claim_tree(struct cow_claims *self, uint8_t *ptr, uint8_t kind)
{
	(void)kind;
	cow_node_claim(((struct claimer *)self)->store, cow_ptr_get(ptr));
}

static void claim_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	cow_counts_add(((struct claimer *)self)->store->counts, block, length, +1);
}

int cow_node_private(struct cow_store *store, struct cow_ptr *ptr, uint8_t kind, int level, struct cow_node **node)
{
	struct cow_node *old, *copy;
	uint32_t count;
	int error = cow_node_get(store, *ptr, kind, level, &old);

	if (error != 0)
		return error;
	if (old->state == COW_NODE_DIRTY) {
		count = old->holders;
	} else {
		error = cow_counts_get(store->counts, old->id, &count, &store->miss.counts);
		if (error != 0) {
			store->miss.what = COW_MISS_COUNTS;
			return error;
		}
	}
	if (count == 0) { /* pointed to, yet free: the counts on disk are wrong */
		store->ops->log(store->context, COW_LOG_ERROR, "a node in use has a count of 0; run cow check");
		return COW_ERR_DAMAGED;
	}
	if (old->state == COW_NODE_DIRTY && count == 1) {
		*node = old;
		return 0;
	}
	/* The copy of a node that nobody else holds gives a block back at the next commit; this one does not. */
	if (count > 1 && cow_store_check_floor(store, 1) != 0)
		return COW_MISS;
	copy = cow_node_new(store, kind, cow_node_level(old), old);
	if (count > 1) {
		struct claimer claimer = {{claim_tree, claim_run}, store};
		cow_node_claims(store, copy, &claimer.visitor);
	}
	if (old->state == COW_NODE_DIRTY)
		old->holders--;
	else
		cow_counts_add(store->counts, old->id, 1, -1);
	*ptr = cow_node_ptr(copy);
	*node = copy;
	return 0;
}

int cow_node_try(struct cow_store *store, struct cow_ptr ptr, uint8_t kind, int level, struct cow_node **node,
		 const char **wrong)
{
	struct cow_node *n = calloc(1, sizeof(*n));
	int error;

	*wrong = NULL;
	if (n == NULL)
		return -ENOMEM;
	n->id = ptr.addr;
	error = ptr.addr < store->total_blocks
			? cow_dev_read(store->dev, n->bytes, COW_BLOCK, ptr.addr << COW_BLOCK_SHIFT) : COW_ERR_DAMAGED;
	if (error != 0)
		*wrong = "cannot be read";
	else if (XXH3_64bits(n->bytes, COW_BLOCK) != ptr.sum)
		*wrong = "checksum does not fit";
	else if (get64(n->bytes + 8) != ptr.addr || cow_node_birth(n) != ptr.generation)
		*wrong = "another node than expected";
	else if (cow_node_validate(n, store->ops, store->total_blocks) != 0)
		*wrong = "malformed";
	else if (cow_node_kind(n) != kind || (level >= 0 && cow_node_level(n) != level))
		*wrong = "of another kind or level than expected";
	else if (level == 0 && cow_node_items(n) == 0)
		*wrong = "an empty leaf below another node"; /* it would fit everywhere */
	if (*wrong != NULL) {
		free(n);
		return error != 0 ? error : COW_ERR_DAMAGED;
	}
	*node = n;
	return 0;
}

int cow_node_read(struct cow_store *store, struct cow_ptr ptr, uint8_t kind, int level, struct cow_node **node)
{
	const char *wrong;
	char text[200];
	int error = cow_node_try(store, ptr, kind, level, node, &wrong);

	if (wrong != NULL) {
		/* What was flushed last before the opening is what a device that lies about flushes has lost. */
		snprintf(text, sizeof(text), "node at block %" PRIu64 ": %s%s", ptr.addr, wrong,
			 ptr.generation == store->opened
				 ? "; the last commit wrote it: the device may not have kept what it confirmed" : "");
		store->ops->log(store->context, COW_LOG_ERROR, text);
	}
	return error;
}
