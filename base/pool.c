/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/mem.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1 /* as gcc says it */
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

#define SLAB_BYTES (2u << 20)
#define SLAB_BLOCKS (SLAB_BYTES / COW_POOL_BLOCK)
#define WORDS (SLAB_BLOCKS / 64)
#define FEW 16u     /* who takes no more may take the last */
#define RESERVE 64u /* blocks that the others leave */

struct cow_slab {
	uint8_t *bytes;
	uint64_t free[WORDS]; /* a bit for each block */
	unsigned free_count;
	struct cow_slab *next, *previous; /* in pool->partial, if there is a free block */
};

static void link_slab(struct cow_pool *pool, struct cow_slab *slab)
{
	slab->previous = NULL;
	slab->next = pool->partial;
	if (slab->next != NULL)
		slab->next->previous = slab;
	pool->partial = slab;
}

static void unlink_slab(struct cow_pool *pool, struct cow_slab *slab)
{
	*(slab->previous != NULL ? &slab->previous->next : &pool->partial) = slab->next;
	if (slab->next != NULL)
		slab->next->previous = slab->previous;
}

/* Aligned to its size: twice as much, and what is too much goes back. */
static uint8_t *map_slab(void)
{
	uint8_t *bytes = mmap(NULL, (size_t)2 * SLAB_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t before;

	if (bytes == MAP_FAILED)
		return NULL;
	before = -(uintptr_t)bytes % SLAB_BYTES;
	if (before != 0)
		munmap(bytes, before);
	munmap(bytes + before + SLAB_BYTES, SLAB_BYTES - before);
	(void)!madvise(bytes + before, SLAB_BYTES, MADV_HUGEPAGE); /* or small ones: slower */
	return bytes + before;
}

/* Touched, so that nobody waits later for the kernel to clear it. */
static struct cow_slab *new_slab(void)
{
	uint8_t *bytes = map_slab();
	struct cow_slab *slab;

	if (bytes == NULL)
		return NULL;
	for (size_t i = 0; i < SLAB_BYTES; i += COW_POOL_BLOCK)
		((volatile uint8_t *)bytes)[i] = 0;
	ASAN_POISON_MEMORY_REGION(bytes, SLAB_BYTES);
	slab = cow_mem_new(sizeof(*slab));
	slab->bytes = bytes;
	slab->free_count = SLAB_BLOCKS;
	for (unsigned i = 0; i < WORDS; i++)
		slab->free[i] = UINT64_MAX;
	return slab;
}

static void attach_slab(struct cow_pool *pool, struct cow_slab *slab)
{
	cow_radix_put(&pool->slabs, (uintptr_t)slab->bytes / SLAB_BYTES, slab);
	link_slab(pool, slab);
	pool->unused += SLAB_BLOCKS;
}

static void detach_slab(struct cow_pool *pool, struct cow_slab *slab)
{
	assert(slab->free_count == SLAB_BLOCKS);
	unlink_slab(pool, slab);
	cow_radix_remove(&pool->slabs, (uintptr_t)slab->bytes / SLAB_BYTES);
	pool->unused -= SLAB_BLOCKS;
}

static void free_slab(struct cow_slab *slab)
{
	ASAN_UNPOISON_MEMORY_REGION(slab->bytes, SLAB_BYTES);
	munmap(slab->bytes, SLAB_BYTES);
	free(slab);
}

static void *take(struct cow_pool *pool)
{
	struct cow_slab *slab = pool->partial;
	unsigned word = 0, bit;
	uint8_t *block;

	while (slab->free[word] == 0)
		word++;
	bit = (unsigned)__builtin_ctzll(slab->free[word]);
	slab->free[word] &= slab->free[word] - 1;
	if (--slab->free_count == 0)
		unlink_slab(pool, slab);
	pool->used++;
	pool->unused--;
	block = slab->bytes + (size_t)(64 * word + bit) * COW_POOL_BLOCK;
	ASAN_UNPOISON_MEMORY_REGION(block, COW_POOL_BLOCK);
	return block;
}

static void give(struct cow_pool *pool, uint8_t *block)
{
	struct cow_slab *slab = cow_radix_get(&pool->slabs, (uintptr_t)block / SLAB_BYTES);
	size_t i = (uintptr_t)block % SLAB_BYTES / COW_POOL_BLOCK;

	assert(slab != NULL && (slab->free[i / 64] >> i % 64 & 1) == 0);
	ASAN_POISON_MEMORY_REGION(block, COW_POOL_BLOCK);
	slab->free[i / 64] |= 1ull << i % 64;
	if (slab->free_count++ == 0)
		link_slab(pool, slab);
	pool->used--;
	pool->unused++;
}

void cow_pool_init(struct cow_pool *pool)
{
	*pool = (struct cow_pool){0};
	pthread_mutex_init(&pool->lock, NULL);
}

void cow_pool_destroy(struct cow_pool *pool)
{
	assert(pool->used == 0);
	for (struct cow_slab *slab; (slab = pool->partial) != NULL;) {
		detach_slab(pool, slab);
		free_slab(slab);
	}
	assert(pool->slabs.count == 0);
	pthread_mutex_destroy(&pool->lock);
}

int cow_pool_take(struct cow_pool *pool, void **blocks, size_t count)
{
	size_t leave = count > FEW ? RESERVE : 0;
	struct cow_slab *slab;
	int error = 0;

	pthread_mutex_lock(&pool->lock);
	while (pool->unused < count + leave) {
		pthread_mutex_unlock(&pool->lock);
		slab = new_slab();
		pthread_mutex_lock(&pool->lock);
		if (slab == NULL)
			break;
		attach_slab(pool, slab);
	}
	if (pool->unused < count)
		error = -ENOMEM;
	for (size_t i = 0; i < count && error == 0; i++)
		blocks[i] = take(pool);
	if (pool->used > pool->peak)
		pool->peak = pool->used;
	pthread_mutex_unlock(&pool->lock);
	return error;
}

void cow_pool_give(struct cow_pool *pool, void *const *blocks, size_t count)
{
	pthread_mutex_lock(&pool->lock);
	for (size_t i = 0; i < count; i++)
		if (blocks[i] != NULL)
			give(pool, blocks[i]);
	pthread_mutex_unlock(&pool->lock);
}

void cow_pool_trim(struct cow_pool *pool)
{
	struct cow_slab *unused = NULL, *next;
	size_t keep, most;

	pthread_mutex_lock(&pool->lock);
	keep = (pool->peak + SLAB_BLOCKS - 1) / SLAB_BLOCKS;
	most = pool->slabs.count - (pool->slabs.count + 3) / 4;
	keep = keep > most ? keep : most;
	pool->peak = pool->used;
	for (struct cow_slab *slab = pool->partial; slab != NULL && pool->slabs.count > keep; slab = next) {
		next = slab->next;
		if (slab->free_count == SLAB_BLOCKS) {
			detach_slab(pool, slab);
			slab->next = unused;
			unused = slab;
		}
	}
	pthread_mutex_unlock(&pool->lock);
	for (; unused != NULL; unused = next) { /* munmap takes long */
		next = unused->next;
		free_slab(unused);
	}
}
