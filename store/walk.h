/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nodes for long walks that do not hold the lock (diff, usage): only of trees that cannot change or go away meanwhile,
 * which is what a snapshot of the layer above ensures. Each call takes gate and lock itself, for as long as one node
 * needs; the caller must hold neither.
 */
#ifndef COW_STORE_WALK_H
#define COW_STORE_WALK_H

#include "store/node.h"

/* The node, read if need be, pinned: its bytes stay until cow_walk_put(). -- -EIO, COW_ERR_DAMAGED */
int cow_walk_get(struct cow_store *store, struct cow_ptr ptr, uint8_t kind, int level, struct cow_node **node);
void cow_walk_put(struct cow_store *store, struct cow_node *node);
/* The count of a block now. */
int cow_walk_count(struct cow_store *store, uint64_t block, uint32_t *count);
/* A tree's item at `key` or the next one after it, copied to `value` (COW_VALUE_MAX). -- -ENOENT */
int cow_walk_next(struct cow_store *store, const struct cow_tree *tree, uint64_t key, uint64_t *found, uint8_t *value,
		  uint32_t *length);

#endif
