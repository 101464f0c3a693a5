/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many ways lead to each directory tree. What several clones hold is one tree, so directories are not a tree but a
 * graph: clones of clones may have more ways than can be gone, and on an image that lies a directory may contain
 * itself.
 */
#ifndef COW_FS_RECLAIM_WAYS_H
#define COW_FS_RECLAIM_WAYS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/map.h"

#define COW_WAYS_MANY (1ull << 20) /* so many or more */

struct cow_ways_edge;

struct cow_ways_tree {
	uint64_t ways;
	bool known;    /* ways is right; false for what a tree that contains itself leads to */
	bool wanted;   /* the caller's; cow_ways_lead() makes it so for all that lead to such a tree */
	unsigned mark; /* the caller's */
	/* within ways.c */
	struct cow_ways_edge *below;
	struct cow_ways_tree *next;   /* of those whose ways are known, the last first */
	uint64_t parents;
};

/* Trees by a number of the caller's, each to be added once. */
struct cow_ways_tree *cow_ways_add(struct cow_map *trees, uint64_t id);
/* One more way from the one to the other. */
void cow_ways_join(struct cow_ways_tree *from, struct cow_ways_tree *to);
/* The ways from `top` to everything below it. O(trees + joins). Once. Returns all that are known, the last first. */
struct cow_ways_tree *cow_ways_count(struct cow_ways_tree *top);
/* Wants all of the list from which a wanted tree can be reached; the sum of their ways, each of which needs a node of
 * its own when what is wanted changes. *freed: nodes that nobody needs then. */
uint64_t cow_ways_lead(struct cow_ways_tree *known, uint64_t *freed);
void cow_ways_free(struct cow_map *trees);

/* Saturates. */
static inline uint64_t cow_ways_sum(uint64_t a, uint64_t b)
{
	return a + b < COW_WAYS_MANY ? a + b : COW_WAYS_MANY;
}

#endif
