/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Puts nodes that somebody made up into free blocks of a stored volume. Nothing leads to them: see test/lib/poke.h. */
#ifndef COW_TEST_LIB_PLANT_H
#define COW_TEST_LIB_PLANT_H

#include "dev/dev.h"
#include "store/node.h"

struct plant {
	struct cow_dev *dev;
	uint64_t block;      /* the next one: where to begin */
	uint64_t generation; /* of their birth */
	bool counted;        /* each gets a count of 1 */
};

/* `values` lie one after the other, `length` bytes each. */
struct cow_ptr plant_leaf(struct plant *plant, uint8_t kind, unsigned count, const uint64_t *keys, const void *values,
			  uint32_t length);
struct cow_ptr plant_inner(struct plant *plant, uint8_t kind, unsigned level, unsigned count, const uint64_t *keys,
			   const struct cow_ptr *children);
/* Nodes of all levels up to the highest above a leaf; each slot of each of them leads to the same node below. */
struct cow_ptr plant_dag(struct plant *plant, uint8_t kind, struct cow_ptr leaf);

/* The first entry that has a tree of the kind (LINKS: the root directory) leads to this one. */
void plant_tree(struct plant *plant, uint8_t kind, struct cow_ptr tree);
/* The queue of removed trees. */
void plant_queue(struct plant *plant, struct cow_ptr root);

#endif
