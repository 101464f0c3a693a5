/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/garbage.h"

#include <assert.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/mem.h"
#include "store/layout.h"

#define ROWS_A_NODE 16u /* about */
#define HEIGHT 4u       /* nodes of a links tree above a leaf, and of its directory */

struct cow_garbage_links *cow_garbage_links(struct cow_garbage *g, uint64_t root)
{
	struct cow_garbage_links *links = cow_map_get(&g->links, root);

	if (links == NULL) {
		links = cow_mem_new(sizeof(*links));
		cow_map_put(&g->links, root, links);
	}
	return links;
}

void cow_garbage_named(struct cow_garbage *g, uint64_t key)
{
	cow_map_put(&g->named, key, g);
}

static void decode(const struct cow_link_row *row, struct cow_record *r)
{
	int error = cow_record_decode(row->record.bytes, row->record.length, 0, r);

	assert(error == 0);
}

/* One file's content: whoever wrote to it has another. */
static uint64_t id_of(uint64_t key, const struct cow_link_row *row)
{
	struct cow_record r;
	uint64_t id[3] = {key};

	decode(row, &r);
	id[1] = r.tree.addr;
	id[2] = r.data.length != 0 ? XXH3_64bits(r.data.bytes, r.data.length) : 0;
	return XXH3_64bits(id, sizeof(id));
}

void cow_garbage_alive(struct cow_garbage *g, uint64_t key, const struct cow_link_row *row)
{
	cow_map_put(&g->alive, id_of(key, row), g);
}

bool cow_garbage_is_dead(const struct cow_garbage *g, uint64_t key, const struct cow_link_row *row)
{
	return cow_map_get(&g->named, key) == NULL && cow_map_get(&g->alive, id_of(key, row)) == NULL;
}

void cow_garbage_weigh(struct cow_garbage *g, struct cow_garbage_links *links, uint64_t key,
		       const struct cow_link_row *row, uint32_t length)
{
	struct cow_record r;

	links->rows++;
	if (!cow_garbage_is_dead(g, key, row))
		return;
	decode(row, &r);
	if (g->row_count == g->row_size) {
		g->row_size = g->row_size != 0 ? 2 * g->row_size : 64;
		g->rows = cow_mem_resize(g->rows, g->row_size * sizeof(*g->rows));
	}
	g->rows[g->row_count] = (struct cow_garbage_row){id_of(key, row), r.blocks * COW_BLOCK + length};
	links->gain += g->rows[g->row_count++].bytes;
	links->dead++;
}

/* Bytes of nodes that all these worlds need when they drop their dead records, each for itself. */
static uint64_t cost_of(const struct cow_garbage_links *links)
{
	uint64_t leaves = links->rows / ROWS_A_NODE + 1;

	return links->ways * ((links->dead < leaves ? links->dead : leaves) + HEIGHT + links->depth) * COW_BLOCK;
}

void cow_garbage_weighed(struct cow_garbage *g, struct cow_garbage_links *links)
{
	links->weighed = true;
	if (links->dead != 0) {
		g->worlds += links->ways;
		g->only = links;
		links->worth = links->ways < COW_WAYS_MANY && links->gain > cost_of(links);
	}
	for (size_t i = 0; i < g->row_count && links->worth; i++)
		if (cow_map_get(&g->dead, g->rows[i].id) == NULL) {
			cow_map_put(&g->dead, g->rows[i].id, g);
			g->gain += g->rows[i].bytes;
		}
	if (links->worth)
		g->cost += cost_of(links);
	g->row_count = 0;
}

bool cow_garbage_is_worth(struct cow_garbage *g, uint64_t room)
{
	if (g->worlds == 1) { /* what it drops is its own */
		g->only->worth = true;
		return true;
	}
	return g->gain > g->cost && g->cost <= room;
}

void cow_garbage_free(struct cow_garbage *g)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(&g->links, &i)) != NULL;)
		free(slot->value);
	cow_map_free(&g->links);
	cow_map_free(&g->named);
	cow_map_free(&g->alive);
	cow_map_free(&g->dead);
	free(g->rows);
	*g = (struct cow_garbage){0};
}
