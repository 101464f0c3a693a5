/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Nodes of trees: their bytes, and the cache that keeps them.
 *
 * BYTES. A node is one block:
 *     u32 magic  u8 kind  u8 level (0: leaf)  u16 items  u64 own address  u64 generation of birth  8 bytes of zero
 * then, in a leaf, a slot of 10 bytes per item (u64 key, u16 where its value starts); values lie in the order of the
 * slots from the end of the block downwards, without gaps: value i ends where value i-1 starts. In an inner node, 32
 * bytes per item (u64 lowest key below, pointer). Keys ascend strictly. Unused bytes are zero in a node just written.
 *
 * STATES. A *dirty* node has a number instead of an address, lives in memory only and counts its holders (pointers to
 * it in dirty nodes, in inodes, in the store's roots). A *sealed* one has its address and is being written; it is as
 * immutable as a *clean* one, which may leave memory unless it is pinned.
 */
#ifndef COW_STORE_NODE_H
#define COW_STORE_NODE_H

#include "store/tree.h"

#define COW_NODE_MAGIC 0x6e776f63u /* "cown" */
#define COW_NODE_HEADER 32u
#define COW_LEAF_SLOT 10u
#define COW_INNER_ITEM 32u
#define COW_INNER_ITEMS_MAX ((COW_BLOCK - COW_NODE_HEADER) / COW_INNER_ITEM)
#define COW_LEVEL_MAX 12  /* levels that a tree in memory can have */
#define COW_LEVEL_DISK 7  /* the highest on disk: 60 million million leaves */

enum cow_node_state { COW_NODE_CLEAN, COW_NODE_DIRTY, COW_NODE_SEALED };

struct cow_node {
	uint64_t id;      /* address, or COW_PTR_DIRTY | number */
	struct cow_ptr at; /* sealed: its address, checksum and birth */
	enum cow_node_state state;
	uint32_t holders; /* dirty */
	uint32_t pins;
	bool referenced;  /* since the clock's hand last passed */
	bool queued;      /* seal: on the way to be given an address */
	struct cow_node *next, *previous; /* clean: the clock */
	uint8_t bytes[COW_BLOCK];
};

/* ---- bytes */
static inline uint8_t cow_node_kind(const struct cow_node *n) { return n->bytes[4]; }
static inline int cow_node_level(const struct cow_node *n) { return n->bytes[5]; }
static inline unsigned cow_node_items(const struct cow_node *n) { return get16(n->bytes + 6); }
static inline uint64_t cow_node_birth(const struct cow_node *n) { return get64(n->bytes + 16); }

static inline uint8_t *cow_leaf_slot(struct cow_node *n, unsigned i)
{
	return n->bytes + COW_NODE_HEADER + i * COW_LEAF_SLOT;
}
static inline uint8_t *cow_inner_item(struct cow_node *n, unsigned i)
{
	return n->bytes + COW_NODE_HEADER + i * COW_INNER_ITEM;
}
static inline uint64_t cow_node_key(struct cow_node *n, unsigned i)
{
	return get64(cow_node_level(n) == 0 ? cow_leaf_slot(n, i) : cow_inner_item(n, i));
}
static inline struct cow_ptr cow_inner_ptr(struct cow_node *n, unsigned i)
{
	return cow_ptr_get(cow_inner_item(n, i) + 8);
}
static inline uint32_t cow_leaf_end(struct cow_node *n, unsigned i) /* one past value i */
{
	return i == 0 ? COW_BLOCK : get16(cow_leaf_slot(n, i - 1) + 8);
}
static inline uint8_t *cow_leaf_value(struct cow_node *n, unsigned i, uint32_t *length)
{
	uint32_t start = get16(cow_leaf_slot(n, i) + 8);

	*length = cow_leaf_end(n, i) - start;
	return n->bytes + start;
}

/*
 * What the separators above a node promise of its keys. Separators and keys are in different nodes, so this is looked
 * at on the way down. A tree in which a key lies in two ways, or in none, would not hold what was put into it; and
 * because of it a node has one place in a tree, however many pointers lead there, so that walks come to an end.
 */
struct cow_keys {
	uint64_t first, last;
};
#define COW_KEYS_ALL ((struct cow_keys){0, UINT64_MAX})
/* Of child `index` of a node that is itself within `keys`. */
struct cow_keys cow_keys_below(const struct cow_keys *keys, struct cow_node *node, unsigned index);
bool cow_node_within(struct cow_node *node, const struct cow_keys *keys);

/* Index of the last item with key <= `key`, or -1. */
int cow_node_find(struct cow_node *node, uint64_t key);
/* Everything about the bytes that can be known from them alone; validate may be NULL. 0 or COW_ERR_DAMAGED. */
int cow_node_validate(struct cow_node *node, const struct cow_store_ops *ops, uint64_t total_blocks);
/* Visits all that the node points to: children, or the claims of its values. */
void cow_node_claims(struct cow_store *store, struct cow_node *node, struct cow_claims *visitor);
/* The same for one value of a leaf of that kind. */
void cow_store_value_claims(struct cow_store *store, uint8_t kind, uint8_t *value, uint32_t length,
			    struct cow_claims *visitor);

/* ---- cache, all locked */
/* The node behind a pointer: COW_MISS if it is not in memory; COW_ERR_DAMAGED if it is not of that kind and level
 * (-1: any). */
int cow_node_get(struct cow_store *store, struct cow_ptr ptr, uint8_t kind, int level, struct cow_node **node);
/* COW_ERR_DAMAGED, and a message, if it is not within. Any lock state. */
int cow_node_expect(struct cow_store *store, struct cow_node *node, const struct cow_keys *keys);
/* A new dirty node with one holder; `from` (may be NULL) gives its bytes. */
struct cow_node *cow_node_new(struct cow_store *store, uint8_t kind, int level, const struct cow_node *from);
static inline struct cow_ptr cow_node_ptr(const struct cow_node *n) { return (struct cow_ptr){.addr = n->id}; }
/* The node behind *ptr, private to this holder and dirty; *ptr is changed to it if it had to be copied. COW_MISS. */
int cow_node_private(struct cow_store *store, struct cow_ptr *ptr, uint8_t kind, int level, struct cow_node **node);
/* One more holder, or count, of what a pointer leads to. Null pointers are fine. */
void cow_node_claim(struct cow_store *store, struct cow_ptr ptr);
/* A dirty node whose last holder is gone, its claims already given away. */
void cow_node_free_dirty(struct cow_store *store, struct cow_node *node);
void cow_node_insert_clean(struct cow_store *store, struct cow_node *node);
void cow_node_forget_clean(struct cow_store *store, struct cow_node *node);
/* Brings the clean nodes below their limit. Called where an operation ends, never within one. */
void cow_node_evict(struct cow_store *store);
static inline void cow_node_pin(struct cow_node *n) { n->pins++; }
static inline void cow_node_unpin(struct cow_node *n) { n->pins--; }
/* [not locked] Reads and validates a node from the device. *wrong: NULL or what is wrong with it. */
int cow_node_try(struct cow_store *store, struct cow_ptr ptr, uint8_t kind, int level, struct cow_node **node,
		 const char **wrong);
/* The same, and tells the log what is wrong. */
int cow_node_read(struct cow_store *store, struct cow_ptr ptr, uint8_t kind, int level, struct cow_node **node);

#endif
