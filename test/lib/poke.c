/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/poke.h"

#include <pthread.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/map.h"
#include "base/mem.h"
#include "store/counts.h"
#include "store/node.h"

struct poke {
	struct cow_dev *dev;
	uint8_t kind;
	poke_item_fn item;
	poke_node_fn node;
	void *context;
	bool done;
	struct cow_map seen; /* address -> struct cow_ptr: nodes visited, as they are now */
	uint64_t total_blocks;
};

static void walk(struct poke *p, uint8_t ptr[COW_PTR_BYTES], uint8_t kind);

struct visitor {
	struct cow_claims claims;
	struct poke *poke;
};

static void visit_tree(struct cow_claims *self, uint8_t *ptr, uint8_t kind)
{
	walk(((struct visitor *)self)->poke, ptr, kind);
}

static void visit_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	(void)self, (void)block, (void)length;
}

static void walk_leaf(struct poke *p, uint8_t *bytes)
{
	struct visitor v = {{visit_tree, visit_run}, p};
	unsigned items = get16(bytes + 6);

	for (unsigned i = 0; i < items; i++) {
		uint8_t *slot = bytes + COW_NODE_HEADER + (size_t)i * COW_LEAF_SLOT;
		uint32_t start = get16(slot + 8), end = i == 0 ? COW_BLOCK : get16(slot - 2);

		if (bytes[4] == COW_KIND_RECLAIM)
			walk(p, bytes + start, bytes[start + COW_PTR_BYTES]);
		else
			cow_value_claims(bytes[4], bytes + start, end - start, &v.claims);
	}
	/* after the pointers were followed: what is changed may not be followed any more */
	for (unsigned i = 0; i < items && !p->done && p->item != NULL && bytes[4] == p->kind; i++) {
		uint8_t *slot = bytes + COW_NODE_HEADER + (size_t)i * COW_LEAF_SLOT;
		uint32_t start = get16(slot + 8), end = i == 0 ? COW_BLOCK : get16(slot - 2);

		p->done = p->item(p->context, bytes, slot, bytes + start, end - start);
	}
}

/* The pointer is made to fit what lies below it now. */
static void walk(struct poke *p, uint8_t ptr[COW_PTR_BYTES], uint8_t kind)
{
	uint8_t bytes[COW_BLOCK];
	struct cow_ptr at = cow_ptr_get(ptr);
	struct cow_ptr *now;

	(void)kind;
	if (cow_ptr_is_null(at))
		return;
	now = cow_map_get(&p->seen, at.addr);
	if (now == NULL) {
		if (cow_dev_read(p->dev, bytes, COW_BLOCK, at.addr * COW_BLOCK) != 0)
			abort();
		for (unsigned i = 0; bytes[5] != 0 && i < get16(bytes + 6); i++)
			walk(p, bytes + COW_NODE_HEADER + (size_t)i * COW_INNER_ITEM + 8, kind);
		if (bytes[5] == 0)
			walk_leaf(p, bytes);
		if (p->node != NULL && !p->done)
			p->done = p->node(p->context, bytes);
		if (cow_dev_write(p->dev, bytes, COW_BLOCK, at.addr * COW_BLOCK) != 0)
			abort();
		now = cow_mem_new(sizeof(*now));
		*now = (struct cow_ptr){at.addr, XXH3_64bits(bytes, COW_BLOCK), get64(bytes + 16)};
		cow_map_put(&p->seen, at.addr, now);
	}
	cow_ptr_put(ptr, *now);
}

static struct cow_super read_super(struct cow_dev *dev)
{
	struct cow_super super;
	bool decayed;

	if (cow_super_read(dev, &super, &decayed) != 0)
		abort();
	return super;
}

static void write_super(struct cow_dev *dev, const struct cow_super *super)
{
	uint8_t block[COW_BLOCK];
	uint64_t slot = super->generation % COW_SUPER_SLOTS;

	cow_super_encode(super, block); /* not by cow_super_write(), which would not write nonsense */
	if (cow_dev_write(dev, block, COW_BLOCK, slot * COW_BLOCK) != 0 ||
	    cow_dev_write(dev, block, COW_BLOCK, (slot + COW_SUPER_B) * COW_BLOCK) != 0)
		abort();
}

static bool run(struct poke *p)
{
	struct cow_super super = read_super(p->dev);
	struct cow_map_slot *slot;
	uint8_t ptr[COW_PTR_BYTES];

	p->total_blocks = super.total_blocks;
	for (unsigned i = 0; i < COW_ROOTS; i++) {
		cow_ptr_put(ptr, super.roots[i]);
		walk(p, ptr, super.root_kinds[i]);
		super.roots[i] = cow_ptr_get(ptr);
	}
	write_super(p->dev, &super);
	for (size_t i = 0; (slot = cow_map_each(&p->seen, &i)) != NULL;)
		free(slot->value);
	cow_map_free(&p->seen);
	return p->done;
}

bool poke_item(struct cow_dev *dev, uint8_t kind, poke_item_fn fn, void *context)
{
	return run(&(struct poke){.dev = dev, .kind = kind, .item = fn, .context = context});
}

bool poke_node(struct cow_dev *dev, poke_node_fn fn, void *context)
{
	return run(&(struct poke){.dev = dev, .node = fn, .context = context});
}

void poke_super(struct cow_dev *dev, void (*fn)(void *context, struct cow_super *super), void *context)
{
	struct cow_super super = read_super(dev);

	fn(context, &super);
	write_super(dev, &super);
}

void poke_count(struct cow_dev *dev, uint64_t block, int change)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct cow_super super = read_super(dev);
	struct cow_counts *counts;

	if (cow_counts_open(dev, &lock, super.total_blocks, &super.counts, 0, &counts) != 0)
		abort();
	cow_counts_add(counts, block, 1, change);
	cow_counts_seal(counts);
	if (cow_counts_write(counts, &super.counts) != 0)
		abort();
	cow_counts_close(counts);
	write_super(dev, &super);
}

struct random {
	uint64_t state;
	unsigned bytes;
	unsigned skip;
};

static uint64_t next(struct random *r)
{
	r->state = r->state * 6364136223846793005ULL + 1442695040888963407ULL;
	return r->state >> 33;
}

static bool flip_node(void *context, uint8_t *node)
{
	struct random *r = context;

	if (r->skip-- != 0)
		return false;
	for (unsigned i = 0; i < r->bytes; i++) {
		/* the head, the slots, or the values: where something is */
		unsigned at = next(r) % 3 == 0   ? next(r) % 64
			      : next(r) % 2 == 0 ? next(r) % 1024
						 : 4095 - next(r) % 2048;

		node[at] = next(r) % 4 == 0 ? (uint8_t)next(r) : (uint8_t)(node[at] + next(r) % 3 - 1);
	}
	return true;
}

static bool count_node(void *context, uint8_t *node)
{
	(void)node;
	++*(unsigned *)context;
	return false;
}

void poke_random(struct cow_dev *dev, uint64_t seed, unsigned bytes)
{
	struct random r = {.state = seed * 2 + 1, .bytes = bytes};
	unsigned nodes = 0;

	poke_node(dev, count_node, &nodes);
	next(&r);
	r.skip = (unsigned)(next(&r) % nodes);
	poke_node(dev, flip_node, &r);
}
