/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A pointer to a node: nothing behind it is trusted before its checksum fits. */
#ifndef COW_STORE_PTR_H
#define COW_STORE_PTR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

#define COW_PTR_BYTES 24u
#define COW_PTR_DIRTY (1ull << 63) /* in memory only: the rest is the number of a dirty node */

struct cow_ptr {
	uint64_t addr;       /* block; 0: an empty tree (block 0 is a superblock) */
	uint64_t sum;        /* XXH3_64bits of the node's block */
	uint64_t generation; /* in which it was born */
};

static inline bool cow_ptr_is_null(struct cow_ptr p) { return p.addr == 0; }
static inline bool cow_ptr_is_dirty(struct cow_ptr p) { return (p.addr & COW_PTR_DIRTY) != 0; }
static inline bool cow_ptr_equal(struct cow_ptr a, struct cow_ptr b)
{
	return a.addr == b.addr && a.generation == b.generation;
}
static inline struct cow_ptr cow_ptr_get(const uint8_t *p)
{
	return (struct cow_ptr){get64(p), get64(p + 8), get64(p + 16)};
}
static inline void cow_ptr_put(uint8_t *p, struct cow_ptr v)
{
	put64(p, v.addr);
	put64(p + 8, v.sum);
	put64(p + 16, v.generation);
}

#endif
