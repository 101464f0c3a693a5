/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Blocks of 4,096 bytes, aligned to as much, for buffered file data: taken and given back by the hundred, by any
 * thread.
 *
 * They lie in slabs of 2 MiB (Bonwick, The Slab Allocator, USENIX Summer 1994, without caches for each CPU), which
 * ask the kernel for huge pages. malloc serves this badly: one lock for each block, a page fault for each block that is
 * new, and memory that was freed by other threads than those that need it.
 *
 * The first touch of a huge page may take milliseconds. Who takes many blocks does that, before they are in the pool,
 * and leaves some for those who take few.
 */
#ifndef COW_BASE_POOL_H
#define COW_BASE_POOL_H

#include <pthread.h>

#include "base/radix.h"

#define COW_POOL_BLOCK 4096u

struct cow_slab;

struct cow_pool {
	pthread_mutex_t lock;
	struct cow_radix slabs;   /* address / slab size -> slab */
	struct cow_slab *partial; /* list: slabs with a free block */
	size_t used, peak;        /* blocks: now, and the most since the last trim */
	size_t unused;            /* blocks that are free */
};

void cow_pool_init(struct cow_pool *pool);
void cow_pool_destroy(struct cow_pool *pool); /* everything has been given back */
/* Fills blocks[0] to blocks[count - 1]; their content is anything. -ENOMEM: none was taken. */
int cow_pool_take(struct cow_pool *pool, void **blocks, size_t count);
/* NULL among them is nothing. */
void cow_pool_give(struct cow_pool *pool, void *const *blocks, size_t count);
/* Now and then: the kernel gets back what was not needed since the last time, but at most a quarter of all. */
void cow_pool_trim(struct cow_pool *pool);

#endif
