/* SPDX-License-Identifier: GPL-2.0-or-later */
/* base/map: against an array, with keys that collide, through growth and removal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/map.h"

#define KEYS 512

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 33;
}

static void compare(struct cow_map *map, void *const model[KEYS], uint64_t step)
{
	struct cow_map_slot *slot;
	size_t count = 0, seen = 0;

	for (size_t i = 0; i < KEYS; i++) {
		assert_ptr_equal(cow_map_get(map, i * step), model[i]);
		count += model[i] != NULL;
	}
	assert_int_equal(map->count, count);
	for (size_t i = 0; (slot = cow_map_each(map, &i)) != NULL; seen++)
		assert_ptr_equal(slot->value, model[slot->key / step]);
	assert_int_equal(seen, count);
}

/* Inserts and removals in waves, so that the table fills, empties, and closes gaps around its end. */
static void random_changes(uint64_t step)
{
	static char values[16];
	struct cow_map map = {0};
	void *model[KEYS] = {0};
	uint64_t seed = step;

	for (unsigned n = 0; n < 20000; n++) {
		size_t i = next_random(&seed) % KEYS;
		bool fill = n / 2000 % 2 == 0;

		if (next_random(&seed) % 8 < (fill ? 6 : 2)) {
			model[i] = &values[next_random(&seed) % 16];
			cow_map_put(&map, i * step, model[i]);
		} else {
			assert_ptr_equal(cow_map_remove(&map, i * step), model[i]);
			model[i] = NULL;
		}
		if (n % 500 == 0)
			compare(&map, model, step);
	}
	compare(&map, model, step);
	cow_map_free(&map);
	assert_null(cow_map_get(&map, 0));
}

static void test_small_keys(void **state)
{
	(void)state;
	random_changes(1);
}

static void test_addresses(void **state)
{
	(void)state;
	random_changes(4096);
}

static void test_high_bits(void **state)
{
	(void)state;
	random_changes(1ULL << 54);
}

static void test_empty(void **state)
{
	struct cow_map map = {0};
	size_t i = 0;

	(void)state;
	assert_null(cow_map_get(&map, 7));
	assert_null(cow_map_remove(&map, 7));
	assert_null(cow_map_each(&map, &i));
	cow_map_free(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_small_keys),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_high_bits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
