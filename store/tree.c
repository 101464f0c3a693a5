/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/tree.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "cow.h"
#include "store/node.h"

/* The way from the root (steps[0]) to a leaf; index: the item taken, in the leaf the last one with key <= wanted, or
 * -1. */
struct path {
	struct {
		struct cow_node *node;
		int index;
	} steps[COW_LEVEL_MAX];
	int depth; /* of the leaf */
};

/* ------------------------------------------------------------------ items in a node */

static void set_items(struct cow_node *n, unsigned items)
{
	put16(n->bytes + 6, (uint16_t)items);
}

static uint32_t leaf_low(struct cow_node *n) /* where the values begin */
{
	return cow_leaf_end(n, cow_node_items(n));
}

static uint32_t leaf_room(struct cow_node *n)
{
	return leaf_low(n) - (COW_NODE_HEADER + cow_node_items(n) * COW_LEAF_SLOT);
}

/* Value i gets `length` bytes; all below it move. */
static void leaf_resize(struct cow_node *n, unsigned i, uint32_t length)
{
	unsigned items = cow_node_items(n);
	uint32_t low = leaf_low(n), start = get16(cow_leaf_slot(n, i) + 8), old = cow_leaf_end(n, i) - start;
	uint32_t new_low = low + old - length;

	if (old == length)
		return;
	memmove(n->bytes + new_low, n->bytes + low, start - low);
	for (unsigned k = i; k < items; k++) {
		uint8_t *at = cow_leaf_slot(n, k) + 8;
		put16(at, (uint16_t)(get16(at) + old - length));
	}
	if (new_low > low)
		memset(n->bytes + low, 0, new_low - low);
}

static uint8_t *leaf_insert(struct cow_node *n, unsigned i, uint64_t key, uint32_t length)
{
	unsigned items = cow_node_items(n);
	uint32_t end = cow_leaf_end(n, i);
	uint8_t *slot = cow_leaf_slot(n, i);

	memmove(slot + COW_LEAF_SLOT, slot, (items - i) * COW_LEAF_SLOT);
	put64(slot, key);
	put16(slot + 8, (uint16_t)end);
	set_items(n, items + 1);
	leaf_resize(n, i, length);
	return n->bytes + end - length;
}

static void leaf_remove(struct cow_node *n, unsigned i)
{
	unsigned items = cow_node_items(n);
	uint8_t *slot = cow_leaf_slot(n, i);

	leaf_resize(n, i, 0);
	memmove(slot, slot + COW_LEAF_SLOT, (items - 1 - i) * COW_LEAF_SLOT);
	memset(cow_leaf_slot(n, items - 1), 0, COW_LEAF_SLOT);
	set_items(n, items - 1);
}

static void inner_insert(struct cow_node *n, unsigned i, uint64_t key, struct cow_ptr child)
{
	unsigned items = cow_node_items(n);
	uint8_t *item = cow_inner_item(n, i);

	memmove(item + COW_INNER_ITEM, item, (items - i) * COW_INNER_ITEM);
	put64(item, key);
	cow_ptr_put(item + 8, child);
	set_items(n, items + 1);
}

static void inner_remove(struct cow_node *n, unsigned i)
{
	unsigned items = cow_node_items(n);
	uint8_t *item = cow_inner_item(n, i);

	memmove(item, item + COW_INNER_ITEM, (items - 1 - i) * COW_INNER_ITEM);
	memset(cow_inner_item(n, items - 1), 0, COW_INNER_ITEM);
	set_items(n, items - 1);
}

/* Moves the items from `first` on to the end of `to`; what they claim moves with them. */
static void move_items(struct cow_node *from, unsigned first, struct cow_node *to)
{
	unsigned items = cow_node_items(from);

	for (unsigned i = first; i < items; i++) {
		if (cow_node_level(from) > 0) {
			inner_insert(to, cow_node_items(to), cow_node_key(from, i), cow_inner_ptr(from, i));
		} else {
			uint32_t length;
			uint8_t *value = cow_leaf_value(from, i, &length);
			memcpy(leaf_insert(to, cow_node_items(to), cow_node_key(from, i), length), value, length);
		}
	}
	while (cow_node_items(from) > first) {
		if (cow_node_level(from) > 0)
			inner_remove(from, cow_node_items(from) - 1);
		else
			leaf_remove(from, cow_node_items(from) - 1);
	}
}

/* ------------------------------------------------------------------ descending */

static int descend(struct cow_store *store, const struct cow_tree *tree, uint64_t key, struct path *path)
{
	struct cow_ptr ptr = tree->root;
	struct cow_keys keys = COW_KEYS_ALL;
	struct cow_node *node;
	int level = -1;

	for (path->depth = 0;; path->depth++) {
		int error = cow_node_get(store, ptr, tree->kind, level, &node);
		if (error == 0)
			error = cow_node_expect(store, node, &keys);
		if (error != 0)
			return error;
		path->steps[path->depth].node = node;
		path->steps[path->depth].index = cow_node_find(node, key);
		level = cow_node_level(node) - 1;
		if (level < 0)
			return 0;
		if (path->steps[path->depth].index < 0)
			path->steps[path->depth].index = 0;
		ptr = cow_inner_ptr(node, (unsigned)path->steps[path->depth].index);
		keys = cow_keys_below(&keys, node, (unsigned)path->steps[path->depth].index);
	}
}

/* The same, but every node on the way becomes private and dirty, from the top: a copy of a shared node claims its
 * children before they are looked at. */
static int descend_private(struct cow_store *store, struct cow_tree *tree, uint64_t key, struct path *path)
{
	struct cow_node *node, *parent = NULL;
	struct cow_ptr ptr = tree->root;
	struct cow_keys keys = COW_KEYS_ALL;
	int level = -1, index = 0;

	for (path->depth = 0;; path->depth++) {
		int error = cow_node_private(store, &ptr, tree->kind, level, &node);
		if (error != 0)
			return error;
		if (parent == NULL)
			tree->root = ptr;
		else
			cow_ptr_put(cow_inner_item(parent, (unsigned)index) + 8, ptr);
		error = cow_node_expect(store, node, &keys);
		if (error != 0)
			return error;
		index = cow_node_find(node, key);
		path->steps[path->depth].node = node;
		path->steps[path->depth].index = index;
		level = cow_node_level(node) - 1;
		if (level < 0)
			return 0;
		if (index < 0)
			path->steps[path->depth].index = index = 0;
		ptr = cow_inner_ptr(node, (unsigned)index);
		keys = cow_keys_below(&keys, node, (unsigned)index);
		parent = node;
	}
}

bool cow_tree_is_private(struct cow_store *store, const struct cow_tree *tree, uint64_t key)
{
	struct cow_ptr ptr = tree->root;

	while (cow_ptr_is_dirty(ptr)) {
		struct cow_node *node = cow_map_get(&store->nodes, ptr.addr);
		int index;

		if (node->holders > 1)
			return false;
		if (cow_node_level(node) == 0)
			return true;
		index = cow_node_find(node, key);
		ptr = cow_inner_ptr(node, index < 0 ? 0 : (unsigned)index);
	}
	return false;
}

/* ------------------------------------------------------------------ reading */

static void item_at(struct cow_node *leaf, unsigned i, struct cow_item *item)
{
	item->key = cow_node_key(leaf, i);
	item->value = cow_leaf_value(leaf, i, &item->length);
}

int cow_tree_get(struct cow_store *store, const struct cow_tree *tree, uint64_t key, struct cow_item *item)
{
	struct path path;
	int i, error;

	if (cow_ptr_is_null(tree->root))
		return -ENOENT;
	error = descend(store, tree, key, &path);
	if (error != 0)
		return error;
	/* Only in the leaf where it belongs: a neighbour need not be in memory, although the key was reserved. */
	i = path.steps[path.depth].index;
	if (i < 0 || cow_node_key(path.steps[path.depth].node, (unsigned)i) != key)
		return -ENOENT;
	item_at(path.steps[path.depth].node, (unsigned)i, item);
	return 0;
}

int cow_tree_next(struct cow_store *store, const struct cow_tree *tree, uint64_t key, struct cow_item *item)
{
	struct path path;

	if (cow_ptr_is_null(tree->root))
		return -ENOENT;
	for (;;) {
		int d, error = descend(store, tree, key, &path);
		if (error != 0)
			return error;
		struct cow_node *leaf = path.steps[path.depth].node;
		int i = path.steps[path.depth].index;
		if (i < 0 || cow_node_key(leaf, (unsigned)i) != key)
			i++;
		if (i < (int)cow_node_items(leaf)) {
			item_at(leaf, (unsigned)i, item);
			return 0;
		}
		/* Nothing in this leaf: go on at the lowest key of the next sub-tree. */
		for (d = path.depth - 1; d >= 0; d--)
			if (path.steps[d].index + 1 < (int)cow_node_items(path.steps[d].node))
				break;
		if (d < 0)
			return -ENOENT;
		key = cow_node_key(path.steps[d].node, (unsigned)path.steps[d].index + 1);
	}
}

int cow_tree_previous(struct cow_store *store, const struct cow_tree *tree, uint64_t key, struct cow_item *item)
{
	struct path path;

	if (cow_ptr_is_null(tree->root))
		return -ENOENT;
	for (;;) {
		int d, error = descend(store, tree, key, &path);
		if (error != 0)
			return error;
		if (path.steps[path.depth].index >= 0) {
			item_at(path.steps[path.depth].node, (unsigned)path.steps[path.depth].index, item);
			return 0;
		}
		/* The leaf begins above its separator: go on just below that. */
		for (d = path.depth - 1; d >= 0; d--)
			if (path.steps[d].index > 0)
				break;
		if (d < 0)
			return -ENOENT;
		key = cow_node_key(path.steps[d].node, (unsigned)path.steps[d].index) - 1;
	}
}

/* ------------------------------------------------------------------ inserting */

/* Puts `child` after the item taken at step d - 1; splits upwards where it does not fit. */
static void insert_child(struct cow_store *store, struct cow_tree *tree, struct path *path, int d, uint64_t key,
			 struct cow_ptr child)
{
	if (d == 0) { /* the root was split: one level more */
		struct cow_node *old = path->steps[0].node;
		struct cow_node *root = cow_node_new(store, tree->kind, cow_node_level(old) + 1, NULL);

		assert(cow_node_level(root) < COW_LEVEL_MAX);
		inner_insert(root, 0, cow_node_key(old, 0), tree->root);
		inner_insert(root, 1, key, child);
		tree->root = cow_node_ptr(root);
		return;
	}
	struct cow_node *node = path->steps[d - 1].node, *right;
	unsigned at = (unsigned)path->steps[d - 1].index + 1, items = cow_node_items(node);

	if (items < COW_INNER_ITEMS_MAX) {
		inner_insert(node, at, key, child);
		return;
	}
	/* At the right edge the left node stays full: keys that only grow fill nodes whole. */
	unsigned keep = at == items ? items - 1 : items / 2;
	right = cow_node_new(store, tree->kind, cow_node_level(node), NULL);
	move_items(node, keep, right);
	if (at > keep)
		inner_insert(right, at - keep, key, child);
	else
		inner_insert(node, at, key, child);
	insert_child(store, tree, path, d - 1, cow_node_key(right, 0), cow_node_ptr(right));
}

/* Makes room around item `at` of the leaf by moving its upper part to a new leaf. */
static void split_leaf(struct cow_store *store, struct cow_tree *tree, struct path *path)
{
	struct cow_node *leaf = path->steps[path->depth].node;
	struct cow_node *right = cow_node_new(store, tree->kind, 0, NULL);
	unsigned items = cow_node_items(leaf), keep = 0;
	uint32_t half = (COW_BLOCK - leaf_low(leaf)) / 2;

	while (keep < items - 1 && COW_BLOCK - get16(cow_leaf_slot(leaf, keep) + 8) <= half)
		keep++;
	move_items(leaf, keep != 0 ? keep : 1, right);
	insert_child(store, tree, path, path->depth, cow_node_key(right, 0), cow_node_ptr(right));
}

/* A new leaf for a key beyond all of this one, so that ascending keys leave full leaves behind. */
static void append_leaf(struct cow_store *store, struct cow_tree *tree, struct path *path, uint64_t key,
			const void *value, uint32_t length)
{
	struct cow_node *right = cow_node_new(store, tree->kind, 0, NULL);

	memcpy(leaf_insert(right, 0, key, length), value, length);
	insert_child(store, tree, path, path->depth, key, cow_node_ptr(right));
}

int cow_tree_put(struct cow_store *store, struct cow_tree *tree, uint64_t key, const void *value, uint32_t length)
{
	struct path path;

	assert(length <= COW_VALUE_MAX);
	if (cow_ptr_is_null(tree->root))
		tree->root = cow_node_ptr(cow_node_new(store, tree->kind, 0, NULL));
	for (;;) {
		int error = descend_private(store, tree, key, &path);
		if (error != 0)
			return error;
		struct cow_node *leaf = path.steps[path.depth].node;
		int i = path.steps[path.depth].index;
		if (i >= 0 && cow_node_key(leaf, (unsigned)i) == key) {
			uint32_t old;
			cow_leaf_value(leaf, (unsigned)i, &old);
			if (length <= old + leaf_room(leaf)) {
				leaf_resize(leaf, (unsigned)i, length);
				memcpy(cow_leaf_value(leaf, (unsigned)i, &old), value, length);
				return 0;
			}
		} else if (length + COW_LEAF_SLOT <= leaf_room(leaf)) {
			for (int d = 0; d < path.depth; d++) /* separators are lower bounds */
				if (key < cow_node_key(path.steps[d].node, 0))
					put64(cow_inner_item(path.steps[d].node, 0), key);
			memcpy(leaf_insert(leaf, (unsigned)(i + 1), key, length), value, length);
			return 0;
		} else if (i + 1 == (int)cow_node_items(leaf)) {
			append_leaf(store, tree, &path, key, value, length);
			return 0;
		}
		split_leaf(store, tree, &path);
	}
}

int cow_tree_reserve(struct cow_store *store, struct cow_tree *tree, uint64_t key)
{
	struct path path;

	return cow_ptr_is_null(tree->root) ? 0 : descend_private(store, tree, key, &path);
}

/* ------------------------------------------------------------------ deleting */

static uint32_t used_bytes(struct cow_node *n)
{
	return cow_node_level(n) > 0 ? cow_node_items(n) * COW_INNER_ITEM
				     : COW_BLOCK - COW_NODE_HEADER - leaf_room(n);
}

/* Joins items `left` and `left + 1` of the parent if both are at hand and fit into one node with some room to spare. A
 * sibling that would have to be read is left alone: the tree stays correct, and deleting never waits for it. */
static bool join(struct cow_store *store, struct cow_tree *tree, const struct path *path, int d, unsigned left)
{
	struct cow_node *pair[2], *parent = path->steps[d].node;
	int level = cow_node_level(parent) - 1;
	struct cow_keys keys = COW_KEYS_ALL;

	for (int i = 0; i < d; i++)
		keys = cow_keys_below(&keys, path->steps[i].node, (unsigned)path->steps[i].index);
	for (unsigned i = 0; i < 2; i++) {
		struct cow_keys below = cow_keys_below(&keys, parent, left + i);

		if (cow_node_get(store, cow_inner_ptr(parent, left + i), tree->kind, level, &pair[i]) != 0 ||
		    !cow_node_within(pair[i], &below))
			return false;
	}
	if (used_bytes(pair[0]) + used_bytes(pair[1]) > (COW_BLOCK - COW_NODE_HEADER) * 3 / 4)
		return false;
	for (unsigned i = 0; i < 2; i++) {
		struct cow_ptr ptr = cow_inner_ptr(parent, left + i);
		if (cow_node_private(store, &ptr, tree->kind, level, &pair[i]) != 0)
			return false;
		cow_ptr_put(cow_inner_item(parent, left + i) + 8, ptr);
	}
	move_items(pair[1], 0, pair[0]);
	inner_remove(parent, left + 1);
	cow_node_free_dirty(store, pair[1]);
	return true;
}

/* From the leaf upwards: removes what became empty, joins what became small, drops levels that became useless. */
static void shrink(struct cow_store *store, struct cow_tree *tree, struct path *path)
{
	for (int d = path->depth; d > 0; d--) {
		struct cow_node *node = path->steps[d].node, *parent = path->steps[d - 1].node;
		unsigned i = (unsigned)path->steps[d - 1].index;

		if (cow_node_items(node) == 0) {
			cow_node_free_dirty(store, node);
			inner_remove(parent, i);
		} else if (used_bytes(node) < (COW_BLOCK - COW_NODE_HEADER) / 4) {
			if (!(i + 1 < cow_node_items(parent) && join(store, tree, path, d - 1, i)) && i > 0)
				join(store, tree, path, d - 1, i - 1);
		}
	}
	struct cow_node *root = path->steps[0].node;
	while (cow_node_items(root) <= 1) {
		if (cow_node_items(root) == 0)
			tree->root = (struct cow_ptr){0};
		else if (cow_node_level(root) > 0)
			tree->root = cow_inner_ptr(root, 0);
		else
			return;
		cow_node_free_dirty(store, root); /* its one child, if any, has passed to the tree */
		if (!cow_ptr_is_dirty(tree->root))
			return;
		root = cow_map_get(&store->nodes, tree->root.addr);
		if (root->holders != 1)
			return;
	}
}

int cow_tree_del(struct cow_store *store, struct cow_tree *tree, uint64_t key)
{
	struct path path;
	int error;

	if (cow_ptr_is_null(tree->root))
		return -ENOENT;
	error = descend_private(store, tree, key, &path);
	if (error != 0)
		return error;
	struct cow_node *leaf = path.steps[path.depth].node;
	int i = path.steps[path.depth].index;
	if (i < 0 || cow_node_key(leaf, (unsigned)i) != key)
		return -ENOENT;
	leaf_remove(leaf, (unsigned)i);
	shrink(store, tree, &path);
	return 0;
}

int cow_tree_cut(struct cow_store *store, struct cow_tree *tree, uint64_t key)
{
	struct path path;
	int error;

	if (cow_ptr_is_null(tree->root))
		return 0;
	error = cow_reclaim_reserve(store);
	if (error == 0)
		error = descend_private(store, tree, key, &path);
	if (error != 0)
		return error;
	struct cow_node *node = path.steps[path.depth].node;
	while (cow_node_items(node) > 0 && cow_node_key(node, cow_node_items(node) - 1) >= key) {
		uint32_t length;
		uint8_t *value = cow_leaf_value(node, cow_node_items(node) - 1, &length);
		cow_reclaim_value(store, tree->kind, value, length);
		leaf_remove(node, cow_node_items(node) - 1);
	}
	for (int d = path.depth - 1; d >= 0; d--) {
		node = path.steps[d].node;
		for (unsigned i = cow_node_items(node) - 1; i > (unsigned)path.steps[d].index; i--) {
			cow_reclaim_push(store, cow_inner_ptr(node, i), tree->kind);
			inner_remove(node, i);
		}
	}
	shrink(store, tree, &path);
	return 0;
}

/* ------------------------------------------------------------------ holders */

static int is_sole(struct cow_store *store, const struct cow_node *node, bool *sole)
{
	uint32_t count = node->holders;
	int error = 0;

	if (node->state != COW_NODE_DIRTY)
		error = cow_counts_get(store->counts, node->id, &count, &store->miss.counts);
	if (error == COW_MISS)
		store->miss.what = COW_MISS_COUNTS;
	*sole = count == 1;
	return error;
}

int cow_tree_is_sole(struct cow_store *store, const struct cow_tree *tree, uint64_t key, bool *sole)
{
	struct path path;
	int error = descend(store, tree, key, &path);

	*sole = true;
	for (int d = 0; error == 0 && *sole && d <= path.depth; d++)
		error = is_sole(store, path.steps[d].node, sole);
	return error;
}

int cow_tree_can_share(struct cow_store *store, const struct cow_tree *tree)
{
	uint32_t count;

	if (!cow_ptr_is_null(tree->root) && !cow_ptr_is_dirty(tree->root)) {
		int error = cow_counts_get(store->counts, tree->root.addr, &count, &store->miss.counts);
		if (error != 0) {
			store->miss.what = COW_MISS_COUNTS;
			return error;
		}
		if (count >= COW_COUNT_MAX)
			return -EMLINK;
	}
	return 0;
}

int cow_tree_share(struct cow_store *store, const struct cow_tree *tree)
{
	int error = cow_tree_can_share(store, tree);

	if (error == 0)
		cow_node_claim(store, tree->root);
	return error;
}

void cow_tree_drop(struct cow_store *store, struct cow_tree *tree)
{
	cow_reclaim_push(store, tree->root, tree->kind);
	tree->root = (struct cow_ptr){0};
}
