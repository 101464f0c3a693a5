/* SPDX-License-Identifier: GPL-2.0-or-later */
/* base/pool: no block is given out twice, what is in one stays, memory goes back. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/pool.h"

#define MOST 3000u /* blocks: some slabs */
#define BATCH 100u
#define THREADS 4

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 33;
}

struct holder {
	struct cow_pool *pool;
	uint64_t seed;
	void *blocks[MOST];
	size_t count;
	bool good;
};

/* Each block has its address and its holder in its first and last bytes. */
static void mark(struct holder *h, uint64_t *block)
{
	block[0] = block[COW_POOL_BLOCK / 8 - 1] = (uintptr_t)block ^ h->seed;
}

static bool is_marked(const uint64_t *block, uint64_t seed)
{
	return block[0] == ((uintptr_t)block ^ seed) && block[COW_POOL_BLOCK / 8 - 1] == block[0];
}

static void *hold_and_give(void *v)
{
	struct holder *h = v;
	uint64_t state = h->seed;

	h->good = true;
	for (unsigned round = 0; round < 2000 && h->good; round++) {
		size_t n = 1 + next_random(&state) % BATCH;

		if (h->count + n <= MOST && next_random(&state) % 8 < (round / 200 % 2 == 0 ? 6 : 2)) {
			h->good = cow_pool_take(h->pool, h->blocks + h->count, n) == 0;
			for (size_t i = 0; h->good && i < n; i++) {
				h->good = (uintptr_t)h->blocks[h->count + i] % COW_POOL_BLOCK == 0;
				mark(h, h->blocks[h->count + i]);
			}
			h->count += n;
		} else if (h->count > 0) {
			size_t at;
			void *none = NULL;

			n = n < h->count ? n : h->count;
			at = next_random(&state) % (h->count - n + 1);
			for (size_t i = 0; i < n; i++)
				h->good = h->good && is_marked(h->blocks[at + i], h->seed);
			cow_pool_give(h->pool, h->blocks + at, n);
			cow_pool_give(h->pool, &none, 1);
			memmove(h->blocks + at, h->blocks + at + n, (h->count - at - n) * sizeof(void *));
			h->count -= n;
		}
		if (round % 500 == 0)
			cow_pool_trim(h->pool);
	}
	for (size_t i = 0; i < h->count; i++)
		h->good = h->good && is_marked(h->blocks[i], h->seed);
	return NULL;
}

static void test_threads(void **state)
{
	struct holder *holders = calloc(THREADS, sizeof(*holders));
	pthread_t threads[THREADS];
	struct cow_pool pool;
	size_t held = 0;

	(void)state;
	cow_pool_init(&pool);
	for (unsigned i = 0; i < THREADS; i++) {
		holders[i].pool = &pool;
		holders[i].seed = 0x9e3779b97f4a7c15 * (i + 1);
		assert_int_equal(pthread_create(&threads[i], NULL, hold_and_give, &holders[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_true(holders[i].good);
		held += holders[i].count;
	}
	assert_int_equal(pool.used, held);
	for (unsigned i = 0; i < THREADS; i++)
		cow_pool_give(&pool, holders[i].blocks, holders[i].count);
	cow_pool_destroy(&pool);
	free(holders);
}

/* What an interval needed is kept for the next one; in some without use all is given back. */
static void test_trim(void **state)
{
	static void *blocks[2048]; /* four slabs, and some blocks are to be left */
	struct cow_pool pool;

	(void)state;
	cow_pool_init(&pool);
	assert_int_equal(cow_pool_take(&pool, blocks, 2048), 0);
	assert_int_equal(pool.slabs.count, 5);
	cow_pool_give(&pool, blocks, 2048);
	cow_pool_trim(&pool);
	assert_int_equal(pool.slabs.count, 4);
	assert_int_equal(cow_pool_take(&pool, blocks, 600), 0);
	cow_pool_give(&pool, blocks + 1, 599);
	for (unsigned left = 3; left > 0; left--) {
		cow_pool_trim(&pool);
		assert_int_equal(pool.slabs.count, left);
	}
	cow_pool_trim(&pool);
	assert_int_equal(pool.slabs.count, 1);
	cow_pool_give(&pool, blocks, 1);
	cow_pool_trim(&pool);
	cow_pool_trim(&pool);
	assert_int_equal(pool.slabs.count, 0);
	cow_pool_destroy(&pool);
}

/* Who takes many leaves some, which cost nobody who takes few a slab. */
static void test_reserve(void **state)
{
	static void *blocks[448], *few[16], *more[17];
	struct cow_pool pool;

	(void)state;
	cow_pool_init(&pool);
	assert_int_equal(cow_pool_take(&pool, blocks, 448), 0);
	assert_int_equal(pool.slabs.count, 1);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(cow_pool_take(&pool, few, 16), 0);
		assert_int_equal(pool.slabs.count, 1);
		cow_pool_give(&pool, few, 16);
	}
	assert_int_equal(cow_pool_take(&pool, more, 17), 0);
	assert_int_equal(pool.slabs.count, 2);
	cow_pool_give(&pool, more, 17);
	cow_pool_give(&pool, blocks, 448);
	cow_pool_destroy(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_trim),
		cmocka_unit_test(test_reserve),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
