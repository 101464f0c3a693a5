/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Radix tree from a 64-bit key to a pointer (never NULL), in the order of the keys: like the page cache of Linux, which
 * keeps the pages of a file in one (XArray, once called a radix tree). Nodes of 64 slots; its height grows with the
 * highest key, and a tree of key 0 alone has no node. A change touches one path: nothing is ever rehashed.
 */
#ifndef COW_BASE_RADIX_H
#define COW_BASE_RADIX_H

#include <stddef.h>
#include <stdint.h>

struct cow_radix { /* all zero is an empty tree */
	void *root;      /* at height 0 the item of key 0 */
	unsigned height; /* levels of nodes */
	size_t count;
};

void *cow_radix_get(const struct cow_radix *tree, uint64_t key); /* NULL if absent */
void *cow_radix_put(struct cow_radix *tree, uint64_t key, void *item); /* returns what was there, or NULL */
void *cow_radix_remove(struct cow_radix *tree, uint64_t key); /* returns what was there, or NULL */
/* The item with the lowest key at or above *key, which becomes its key; NULL: there is none. Keys below UINT64_MAX:
 * for (uint64_t key = 0; (item = cow_radix_next(&tree, &key)) != NULL; key++), and it may be removed meanwhile */
void *cow_radix_next(const struct cow_radix *tree, uint64_t *key);
/* Frees the nodes; the items are the caller's. */
void cow_radix_free(struct cow_radix *tree);

#endif
