/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/mem.h"
#include "audit/repair.h"
#include "store/node.h"

/* ------------------------------------------------------------------ one node */

void cow_build_clear(uint8_t bytes[COW_BLOCK], uint8_t kind, unsigned level)
{
	memset(bytes, 0, COW_BLOCK);
	put32(bytes, COW_NODE_MAGIC);
	bytes[4] = kind;
	bytes[5] = (uint8_t)level;
}

bool cow_build_leaf_add(uint8_t bytes[COW_BLOCK], uint64_t key, const void *value, uint32_t length)
{
	unsigned items = get16(bytes + 6);
	uint8_t *slot = bytes + COW_NODE_HEADER + (size_t)items * COW_LEAF_SLOT;
	uint32_t end = items == 0 ? COW_BLOCK : get16(slot - 2);

	assert(length <= COW_VALUE_MAX);
	if (COW_NODE_HEADER + (items + 1) * COW_LEAF_SLOT + length > end)
		return false;
	put64(slot, key);
	put16(slot + 8, (uint16_t)(end - length));
	memcpy(bytes + end - length, value, length);
	put16(bytes + 6, (uint16_t)(items + 1));
	return true;
}

void cow_build_inner_add(uint8_t bytes[COW_BLOCK], uint64_t key, struct cow_ptr child)
{
	unsigned items = get16(bytes + 6);
	uint8_t *item = bytes + COW_NODE_HEADER + (size_t)items * COW_INNER_ITEM;

	assert(items < COW_INNER_ITEMS_MAX);
	put64(item, key);
	cow_ptr_put(item + 8, child);
	put16(bytes + 6, (uint16_t)(items + 1));
}

struct cow_ptr cow_build_write(struct cow_repair *r, uint8_t bytes[COW_BLOCK])
{
	uint32_t got;
	uint64_t block = cow_repair_alloc(r, 1, &got);

	if (block == 0)
		return (struct cow_ptr){0};
	put64(bytes + 8, block);
	put64(bytes + 16, r->generation);
	if (cow_dev_write(r->overlay, bytes, COW_BLOCK, block << COW_BLOCK_SHIFT) != 0 && r->error == 0)
		r->error = -EIO;
	return (struct cow_ptr){block, XXH3_64bits(bytes, COW_BLOCK), r->generation};
}

/* ------------------------------------------------------------------ a tree */

void cow_build_begin(struct cow_build *b, struct cow_repair *r, uint8_t kind)
{
	*b = (struct cow_build){.repair = r, .kind = kind};
	cow_build_clear(b->leaf, kind, 0);
}

static void push(struct cow_build *b, uint64_t key, struct cow_ptr ptr)
{
	if (b->count == b->size) {
		b->size = b->size != 0 ? 2 * b->size : 16;
		b->keys = cow_mem_resize(b->keys, b->size * sizeof(*b->keys));
		b->ptrs = cow_mem_resize(b->ptrs, b->size * sizeof(*b->ptrs));
	}
	b->keys[b->count] = key;
	b->ptrs[b->count++] = ptr;
}

static void flush_leaf(struct cow_build *b)
{
	if (get16(b->leaf + 6) == 0)
		return;
	push(b, get64(b->leaf + COW_NODE_HEADER), cow_build_write(b->repair, b->leaf));
	cow_build_clear(b->leaf, b->kind, 0);
}

void cow_build_add(struct cow_build *b, uint64_t key, const void *value, uint32_t length)
{
	if (cow_build_leaf_add(b->leaf, key, value, length))
		return;
	flush_leaf(b);
	cow_build_leaf_add(b->leaf, key, value, length);
}

/* The nodes of one level become those of the level above. */
static void build_level(struct cow_build *b, unsigned level)
{
	uint8_t node[COW_BLOCK];
	size_t done = 0;

	for (size_t i = 0; i < b->count;) {
		uint64_t key = b->keys[i];

		cow_build_clear(node, b->kind, level);
		for (unsigned k = 0; k < COW_INNER_ITEMS_MAX && i < b->count; k++, i++)
			cow_build_inner_add(node, b->keys[i], b->ptrs[i]);
		b->keys[done] = key;
		b->ptrs[done++] = cow_build_write(b->repair, node);
	}
	b->count = done;
}

struct cow_ptr cow_build_end(struct cow_build *b)
{
	struct cow_ptr root = {0};

	flush_leaf(b);
	for (unsigned level = 1; b->count > 1; level++)
		build_level(b, level);
	if (b->count == 1)
		root = b->ptrs[0];
	free(b->keys);
	free(b->ptrs);
	*b = (struct cow_build){0};
	return root;
}

struct cow_ptr cow_build_blob(struct cow_repair *r, const uint8_t *bytes, uint32_t length)
{
	struct cow_build b;

	cow_build_begin(&b, r, COW_KIND_BLOB);
	for (uint32_t at = 0; at < length; at += COW_BLOB_CHUNK)
		cow_build_add(&b, at, bytes + at, length - at < COW_BLOB_CHUNK ? length - at : COW_BLOB_CHUNK);
	return cow_build_end(&b);
}
