/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/plant.h"

#include <stdlib.h>
#include <xxhash.h>

#include "fs/format/record.h"
#include "audit/repair.h"
#include "store/layout.h"
#include "test/lib/poke.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

static struct cow_ptr put(struct plant *p, uint8_t bytes[COW_BLOCK])
{
	uint64_t block;

	while (cow_layout_is_system(p->block))
		p->block++;
	block = p->block++;
	put64(bytes + 8, block);
	put64(bytes + 16, p->generation);
	must(cow_dev_write(p->dev, bytes, COW_BLOCK, block << COW_BLOCK_SHIFT) == 0);
	if (p->counted)
		poke_count(p->dev, block, 1);
	return (struct cow_ptr){block, XXH3_64bits(bytes, COW_BLOCK), p->generation};
}

struct cow_ptr plant_leaf(struct plant *p, uint8_t kind, unsigned count, const uint64_t *keys, const void *values,
			  uint32_t length)
{
	uint8_t bytes[COW_BLOCK];

	cow_build_clear(bytes, kind, 0);
	for (unsigned i = 0; i < count; i++)
		must(cow_build_leaf_add(bytes, keys[i], (const uint8_t *)values + (size_t)i * length, length));
	return put(p, bytes);
}

struct cow_ptr plant_inner(struct plant *p, uint8_t kind, unsigned level, unsigned count, const uint64_t *keys,
			   const struct cow_ptr *children)
{
	uint8_t bytes[COW_BLOCK];

	cow_build_clear(bytes, kind, level);
	for (unsigned i = 0; i < count; i++)
		cow_build_inner_add(bytes, keys[i], children[i]);
	return put(p, bytes);
}

struct cow_ptr plant_dag(struct plant *p, uint8_t kind, struct cow_ptr leaf)
{
	uint64_t keys[COW_INNER_ITEMS_MAX];
	struct cow_ptr children[COW_INNER_ITEMS_MAX], top = leaf;

	for (unsigned level = 1; level <= COW_LEVEL_DISK; level++) {
		for (unsigned i = 0; i < COW_INNER_ITEMS_MAX; i++) {
			keys[i] = i + 1;
			children[i] = top;
		}
		top = plant_inner(p, kind, level, COW_INNER_ITEMS_MAX, keys, children);
	}
	return top;
}

struct swap {
	struct cow_claims visitor; /* first */
	uint8_t kind;
	struct cow_ptr to;
	bool done;
};

static void swap_tree(struct cow_claims *self, uint8_t *ptr, uint8_t kind)
{
	struct swap *swap = (struct swap *)self;

	if (kind != swap->kind || swap->done)
		return;
	cow_ptr_put(ptr, swap->to);
	swap->done = true;
}

static void swap_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	(void)self, (void)block, (void)length;
}

static bool swap_item(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	struct swap *swap = context;
	struct cow_dirent entry;

	(void)node, (void)slot;
	if (cow_dirent_decode(value, length, &entry) != 0 || entry.is_link ||
	    (entry.name.length == 0) != (swap->kind == COW_KIND_LINKS))
		return false;
	cow_value_claims(COW_KIND_DIR, value, length, &swap->visitor);
	return swap->done;
}

void plant_tree(struct plant *p, uint8_t kind, struct cow_ptr tree)
{
	struct swap swap = {.visitor = {swap_tree, swap_run}, .kind = kind, .to = tree};

	must(poke_item(p->dev, COW_KIND_DIR, swap_item, &swap));
}

static void set_queue(void *context, struct cow_super *super)
{
	super->roots[COW_ROOT_RECLAIM] = *(struct cow_ptr *)context;
}

void plant_queue(struct plant *p, struct cow_ptr root)
{
	poke_super(p->dev, set_queue, &root);
}
