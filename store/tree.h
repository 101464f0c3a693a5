/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The copy-on-write B+tree: an immutable, shared, ordered map from u64 keys to values of up to COW_VALUE_MAX bytes
 * (Rodeh, "B-trees, Shadowing, and Clones", 2008: shadowing with lazy reference counts, without his leaf links).
 *
 * OWNERSHIP. A struct cow_tree owns one count of its root (a dirty node: one of its holders). Copying the struct is
 * not sharing: cow_tree_share() takes another count, cow_tree_drop() gives it to the reclaim queue.
 * What the *values* claim (trees, runs of blocks) is the caller's business when it puts, changes or deletes a value:
 * the tree never touches it then. Only when the tree copies a leaf that others hold too does it claim everything in
 * the copy once more.
 *
 * MISSES. All functions are [locked] and may return COW_MISS, then nothing has changed that anyone could see: nodes
 * may have been made private and dirty, which changes no value. After cow_tree_reserve(t, key) returned 0, put, del
 * and get of that key (and of the next higher keys in the same leaf) cannot miss until the lock is given up.
 */
#ifndef COW_STORE_TREE_H
#define COW_STORE_TREE_H

#include "store/store.h"

#define COW_VALUE_MAX 1024u

struct cow_tree {
	struct cow_ptr root;
	uint8_t kind;
};

struct cow_item {
	uint64_t key;
	uint8_t *value;  /* in the node: valid until the lock is given up or the tree changes; do not write */
	uint32_t length;
};

/* -ENOENT, COW_MISS, -EIO */
int cow_tree_get(struct cow_store *store, const struct cow_tree *tree, uint64_t key, struct cow_item *item);
/* The item with the smallest key >= key. */
int cow_tree_next(struct cow_store *store, const struct cow_tree *tree, uint64_t key, struct cow_item *item);
/* The item with the largest key <= key. */
int cow_tree_previous(struct cow_store *store, const struct cow_tree *tree, uint64_t key, struct cow_item *item);

/* Makes the path to `key` private, dirty and resident. */
int cow_tree_reserve(struct cow_store *store, struct cow_tree *tree, uint64_t key);
/* Inserts or replaces. */
int cow_tree_put(struct cow_store *store, struct cow_tree *tree, uint64_t key, const void *value, uint32_t length);
/* -ENOENT */
int cow_tree_del(struct cow_store *store, struct cow_tree *tree, uint64_t key);
/* Gives everything at or above `key` to reclaim, values' claims included, in O(height). */
int cow_tree_cut(struct cow_store *store, struct cow_tree *tree, uint64_t key);

/* Would a reserve of the key find all nodes on the way private already? */
bool cow_tree_is_private(struct cow_store *store, const struct cow_tree *tree, uint64_t key);
/* *sole: nobody else holds what lies at the key, but for what values say. COW_MISS, COW_ERR_DAMAGED */
int cow_tree_is_sole(struct cow_store *store, const struct cow_tree *tree, uint64_t key, bool *sole);
/* Can the root take one more count? COW_MISS, -EMLINK at saturation. */
int cow_tree_can_share(struct cow_store *store, const struct cow_tree *tree);
/* Takes one more count of the root for another holder: afterwards the struct may be copied once. Errors as above; none
 * right after cow_tree_can_share() returned 0. */
int cow_tree_share(struct cow_store *store, const struct cow_tree *tree);
/* Gives this holder's count to the reclaim queue (which must be reserved) and empties the struct. */
void cow_tree_drop(struct cow_store *store, struct cow_tree *tree);

/* ---- walking sealed trees without the lock (diff, usage, check): see walk.h */

#endif
