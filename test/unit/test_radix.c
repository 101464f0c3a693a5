/* SPDX-License-Identifier: GPL-2.0-or-later */
/* base/radix: against a sorted array, with keys of all heights, through growth, removal and walks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/radix.h"

#define KEYS 512

struct model {
	uint64_t keys[KEYS]; /* ascending */
	void *items[KEYS];
};

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 11;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void expect_next(const struct cow_radix *tree, const struct model *model, uint64_t from)
{
	uint64_t key = from;
	void *item = cow_radix_next(tree, &key);

	for (size_t i = 0; i < KEYS; i++)
		if (model->keys[i] >= from && model->items[i] != NULL) {
			assert_ptr_equal(item, model->items[i]);
			assert_true(key == model->keys[i]);
			return;
		}
	assert_null(item);
}

static void compare(const struct cow_radix *tree, const struct model *model)
{
	size_t count = 0, seen = 0;
	uint64_t key = 0;

	for (size_t i = 0; i < KEYS; i++) {
		assert_ptr_equal(cow_radix_get(tree, model->keys[i]), model->items[i]);
		expect_next(tree, model, model->keys[i]);
		expect_next(tree, model, model->keys[i] + 1);
		count += model->items[i] != NULL;
	}
	assert_int_equal(tree->count, count);
	for (; cow_radix_next(tree, &key) != NULL; key++)
		seen++;
	assert_int_equal(seen, count);
	if (count == 0) { /* nothing is kept for what is gone */
		assert_null(tree->root);
		assert_int_equal(tree->height, 0);
	}
}

/* Inserts and removals in waves, so that the tree grows and shrinks by levels. */
static void random_changes(struct model *model, uint64_t seed)
{
	static char values[16];
	struct cow_radix tree = {0};

	qsort(model->keys, KEYS, sizeof(uint64_t), by_value);
	for (unsigned n = 0; n < 20000; n++) {
		size_t i = next_random(&seed) % KEYS;
		bool fill = n / 2000 % 2 == 0;

		if (next_random(&seed) % 64 < (fill ? 48 : 1)) {
			void *item = &values[next_random(&seed) % 16];
			assert_ptr_equal(cow_radix_put(&tree, model->keys[i], item), model->items[i]);
			model->items[i] = item;
		} else {
			assert_ptr_equal(cow_radix_remove(&tree, model->keys[i]), model->items[i]);
			model->items[i] = NULL;
		}
		if (n % 500 == 0)
			compare(&tree, model);
	}
	for (size_t i = 0; i < KEYS; i++) {
		assert_ptr_equal(cow_radix_remove(&tree, model->keys[i]), model->items[i]);
		model->items[i] = NULL;
	}
	compare(&tree, model);
	for (size_t i = 0; i < KEYS; i++)
		cow_radix_put(&tree, model->keys[i], values);
	cow_radix_free(&tree); /* the sanitizers see what it leaves */
	assert_null(cow_radix_get(&tree, model->keys[0]));
}

static void test_dense(void **state)
{
	struct model model = {0};

	(void)state;
	for (size_t i = 0; i < KEYS; i++)
		model.keys[i] = i;
	random_changes(&model, 1);
}

static void test_strides(void **state)
{
	(void)state;
	for (unsigned shift = 5; shift <= 54; shift += 7) {
		struct model model = {0};

		for (size_t i = 0; i < KEYS; i++)
			model.keys[i] = (uint64_t)i << shift;
		random_changes(&model, shift);
	}
}

/* Each key of another length, up to 64 bits. */
static void test_scattered(void **state)
{
	struct model model = {0};
	uint64_t seed = 3;

	(void)state;
	for (size_t i = 0; i < KEYS; i++) /* no two alike: the lowest nine bits */
		model.keys[i] = ((next_random(&seed) << 20 ^ next_random(&seed)) >> (i % 55)) / KEYS * KEYS + i;
	model.keys[KEYS - 1] = UINT64_MAX - 1;
	random_changes(&model, 4);
}

/* A walk that removes what it meets, as placing does. */
static void test_walk_removes(void **state)
{
	static char value;
	struct cow_radix tree = {0};
	uint64_t key, last = 0;
	size_t seen = 0;

	(void)state;
	for (uint64_t i = 0; i < 5000; i++)
		cow_radix_put(&tree, i * i * i, &value);
	for (key = 0; cow_radix_next(&tree, &key) != NULL; key++, seen++) {
		assert_true(seen == 0 || key > last);
		last = key;
		assert_ptr_equal(cow_radix_remove(&tree, key), &value);
	}
	assert_int_equal(seen, 5000);
	assert_int_equal(tree.count, 0);
	assert_null(tree.root);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dense),
		cmocka_unit_test(test_strides),
		cmocka_unit_test(test_scattered),
		cmocka_unit_test(test_walk_removes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
