/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/reclaim/ways.h"

#include <stdlib.h>

#include "base/mem.h"

struct cow_ways_edge {
	struct cow_ways_tree *to;
	struct cow_ways_edge *next;
};

struct cow_ways_tree *cow_ways_add(struct cow_map *trees, uint64_t id)
{
	struct cow_ways_tree *tree = cow_mem_new(sizeof(*tree));

	cow_map_put(trees, id, tree);
	return tree;
}

void cow_ways_join(struct cow_ways_tree *from, struct cow_ways_tree *to)
{
	struct cow_ways_edge *edge = cow_mem_new(sizeof(*edge));

	*edge = (struct cow_ways_edge){to, from->below};
	from->below = edge;
	to->parents++;
}

/* In topological order (Kahn, Communications of the ACM 5(11), 1962): what is in a ring, or below one, is never due. */
struct cow_ways_tree *cow_ways_count(struct cow_ways_tree *top)
{
	struct cow_ways_tree *due = top, *known = NULL;

	top->ways = 1;
	while (due != NULL) {
		struct cow_ways_tree *tree = due;

		due = tree->next;
		tree->next = known;
		known = tree;
		tree->known = true;
		for (struct cow_ways_edge *edge = tree->below; edge != NULL; edge = edge->next) {
			struct cow_ways_tree *to = edge->to;

			to->ways = cow_ways_sum(to->ways, tree->ways);
			if (--to->parents == 0) {
				to->next = due;
				due = to;
			}
		}
	}
	return known;
}

uint64_t cow_ways_lead(struct cow_ways_tree *known, uint64_t *freed)
{
	uint64_t ways = 0;

	*freed = 0;
	for (struct cow_ways_tree *tree = known; tree != NULL; tree = tree->next) {
		for (struct cow_ways_edge *edge = tree->below; edge != NULL; edge = edge->next)
			tree->wanted |= edge->to->wanted;
		if (tree->wanted) {
			ways += tree->ways;
			++*freed;
		}
	}
	return ways;
}

void cow_ways_free(struct cow_map *trees)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(trees, &i)) != NULL;) {
		struct cow_ways_tree *tree = slot->value;
		for (struct cow_ways_edge *edge = tree->below, *next; edge != NULL; edge = next) {
			next = edge->next;
			free(edge);
		}
		free(tree);
	}
	cow_map_free(trees);
}
