/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trees against sorted arrays: seven of them in a store of their own, copied from each other, with values that claim
 * nothing, runs of blocks, or other trees. Again and again all clean nodes leave memory, so that every call misses; a
 * node's block gets a bit wrong, a read fails, a commit finds no space, the power fails. In between, each block's count
 * is compared with the number of pointers that a walk over everything finds.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/array.h"
#include "base/mem.h"
#include "cow.h"
#include "test/lib/bare.h"
#include "test/lib/cases.h"
#include "test/lib/op.h"
#include "test/lib/trial.h"

#define VOLUME_BYTES (64u << 20)
#define ITEMS_MAX 700u

/* ------------------------------------------------------------------ the model */

struct pair {
	uint64_t key, seed; /* of its bytes */
	uint32_t length;
	uint64_t block;     /* BARE_RUN: the run */
	uint32_t run;
	unsigned inner;     /* BARE_TREE: which of the frozen arrays its tree holds */
};

struct array {
	struct pair *pairs; /* ascending */
	size_t count, size;
};

struct world {
	struct bare bare;
	struct cow_store *store;
	struct rng rng;
	struct array now[BARE_ROOTS], durable[BARE_ROOTS];
	struct array *frozen; /* what trees inside values hold */
	size_t frozen_count, frozen_size;
	uint32_t usual_bytes; /* of a value */
	uint64_t key_mask;
	unsigned misses;
	bool faulty;          /* a read may fail, or show damage */
	int fault;            /* it did */
};

static uint8_t kind_of(unsigned tree)
{
	return tree < 4 ? BARE_PLAIN : tree < 6 ? BARE_RUN : BARE_TREE;
}

/* How many pairs have smaller keys. */
static size_t below(const struct array *array, uint64_t key)
{
	size_t i = 0;

	while (i < array->count && array->pairs[i].key < key)
		i++;
	return i;
}

static struct pair *pair_at(const struct array *array, uint64_t key)
{
	size_t i = below(array, key);

	return i < array->count && array->pairs[i].key == key ? &array->pairs[i] : NULL;
}

static void array_put(struct array *array, const struct pair *pair)
{
	size_t i = below(array, pair->key);

	if (i == array->count || array->pairs[i].key != pair->key) {
		COW_ARRAY_GROW(array->pairs, array->count, array->size);
		memmove(&array->pairs[i + 1], &array->pairs[i], (array->count - i) * sizeof(*array->pairs));
		array->count++;
	}
	array->pairs[i] = *pair;
}

static void array_remove(struct array *array, uint64_t key)
{
	size_t i = below(array, key);

	array->count--;
	memmove(&array->pairs[i], &array->pairs[i + 1], (array->count - i) * sizeof(*array->pairs));
}

static void array_copy(struct array *to, const struct array *from)
{
	free(to->pairs);
	*to = (struct array){cow_mem_new(from->count * sizeof(*from->pairs) + 1), from->count, from->count};
	if (from->count > 0)
		memcpy(to->pairs, from->pairs, from->count * sizeof(*from->pairs));
}

static void value_of(const struct pair *pair, uint8_t kind, uint8_t *value)
{
	for (uint32_t i = 0; i < pair->length; i++)
		value[i] = (uint8_t)(pair->seed >> i % 8 * 8) ^ (uint8_t)i;
	if (kind == BARE_RUN) {
		put64(value, pair->block);
		put32(value + 8, pair->run);
	}
}

/* ------------------------------------------------------------------ calls that miss */

static bool fill(struct world *w)
{
	int error;

	if (w->store->miss.what == COW_MISS_COUNTS) /* without them the store does not go on, as it has to be */
		cow_sim_fail(w->bare.disk, COW_SIM_READ, 0, 0, 0);
	error = cow_store_fill(w->store, NULL);
	w->misses++;
	if (error == 0)
		return true;
	assert_true(w->faulty && (error == COW_ERR_DAMAGED || error == -EIO));
	w->fault = error;
	return false;
}

/* The answer of a call that is made until it misses no more; or what the device answered. */
#define CALL(w, call) \
	({ \
		int answer_; \
		(w)->fault = 0; \
		while ((answer_ = (call)) == COW_MISS && fill(w)) \
			; \
		(w)->fault != 0 ? (w)->fault : answer_; \
	})

/* A fault ends a call, and nothing else does but what the model says. */
static bool failed(struct world *w, int answer)
{
	if (answer != COW_ERR_DAMAGED && answer != -EIO)
		return false;
	assert_true(w->faulty);
	return true;
}

static void compare_item(struct world *w, uint8_t kind, const struct pair *want, const struct cow_item *item)
{
	uint8_t bytes[COW_VALUE_MAX];
	uint32_t from = kind == BARE_TREE ? COW_PTR_BYTES : 0;

	(void)w;
	if (item->key != want->key || item->length != want->length)
		fail_msg("key %" PRIx64 " of %u bytes instead of %" PRIx64 " of %u", item->key, item->length,
			 want->key, want->length);
	value_of(want, kind, bytes);
	assert_memory_equal(item->value + from, bytes + from, want->length - from);
}

static void compare_array(struct world *w, const struct cow_tree *tree, const struct array *array)
{
	struct cow_item item;
	uint64_t key = 0;

	for (size_t i = 0; i < array->count; i++) {
		assert_int_equal(CALL(w, cow_tree_next(w->store, tree, key, &item)), 0);
		compare_item(w, tree->kind, &array->pairs[i], &item);
		if (tree->kind == BARE_TREE) {
			struct cow_tree inner = {cow_ptr_get(item.value), BARE_PLAIN};
			compare_array(w, &inner, &w->frozen[array->pairs[i].inner]);
		}
		key = array->pairs[i].key + 1;
	}
	if (array->count == 0 || key != 0)
		assert_int_equal(CALL(w, cow_tree_next(w->store, tree, key, &item)), -ENOENT);
}

static void compare_all(struct world *w)
{
	const char *what;

	assert_false(w->faulty);
	for (unsigned i = 0; i < BARE_ROOTS; i++)
		compare_array(w, bare_root(&w->bare, i), &w->now[i]);
	pthread_mutex_unlock(&w->store->lock);
	what = bare_wrong(&w->bare);
	pthread_mutex_lock(&w->store->lock);
	if (what != NULL)
		fail_msg("%s", what);
}

/* ------------------------------------------------------------------ set-up */

static void set_kinds(struct world *w)
{
	w->store = w->bare.store;
	for (unsigned i = 0; i < BARE_ROOTS; i++)
		bare_root(&w->bare, i)->kind = kind_of(i);
	pthread_mutex_lock(&w->store->lock);
}

static void begin(struct world *w, uint64_t seed)
{
	static const uint32_t bytes[] = {12, 100, 400, COW_VALUE_MAX};
	static const uint64_t masks[] = {0xfff, 0xffff, UINT64_MAX};

	*w = (struct world){.rng = {seed}};
	bare_begin(&w->bare, VOLUME_BYTES);
	w->usual_bytes = bytes[rng_below(&w->rng, 4)];
	w->key_mask = masks[rng_below(&w->rng, 3)];
	set_kinds(w);
}

static void commit(struct world *w)
{
	pthread_mutex_unlock(&w->store->lock);
	w->store->changes++;
	assert_int_equal(cow_store_commit(w->store, NULL, NULL), 0);
	pthread_mutex_lock(&w->store->lock);
	for (unsigned i = 0; i < BARE_ROOTS; i++)
		array_copy(&w->durable[i], &w->now[i]);
}

static void drain(struct world *w)
{
	pthread_mutex_unlock(&w->store->lock);
	w->store->changes++;
	bare_drain(&w->bare);
	pthread_mutex_lock(&w->store->lock);
	for (unsigned i = 0; i < BARE_ROOTS; i++)
		array_copy(&w->durable[i], &w->now[i]);
}

static void drop(struct world *w, unsigned i)
{
	assert_int_equal(CALL(w, cow_reclaim_reserve(w->store)), 0);
	cow_tree_drop(w->store, bare_root(&w->bare, i));
	assert_true(cow_ptr_is_null(bare_root(&w->bare, i)->root));
	w->now[i].count = 0;
}

/* What was taken is given back: as many blocks are free as in an empty store. */
static void end(struct world *w)
{
	compare_all(w);
	for (unsigned i = 0; i < BARE_ROOTS; i++)
		drop(w, i);
	drain(w);
	compare_all(w);
	assert_int_equal(cow_counts_available(w->store->counts),
			 w->store->total_blocks - cow_counts_system(w->store->counts));
	pthread_mutex_unlock(&w->store->lock);
	bare_end(&w->bare);
	for (unsigned i = 0; i < BARE_ROOTS; i++) {
		free(w->now[i].pairs);
		free(w->durable[i].pairs);
	}
	for (size_t i = 0; i < w->frozen_count; i++)
		free(w->frozen[i].pairs);
	free(w->frozen);
}

/* ------------------------------------------------------------------ single calls against the array */

/* Often one that is there, or next to it. */
static uint64_t any_key(struct world *w, unsigned tree)
{
	const struct array *array = &w->now[tree];
	uint64_t near = rng_below(&w->rng, 3);

	if (array->count > 0 && rng_chance(&w->rng, 60))
		return array->pairs[rng_below(&w->rng, array->count)].key + near - 1;
	if (rng_chance(&w->rng, 3))
		return near == 0 ? 0 : UINT64_MAX;
	return rng_next(&w->rng) & w->key_mask;
}

static void do_get(struct world *w, unsigned tree, uint64_t key)
{
	const struct pair *pair = pair_at(&w->now[tree], key);
	struct cow_item item;
	int answer = CALL(w, cow_tree_get(w->store, bare_root(&w->bare, tree), key, &item));

	if (failed(w, answer))
		return;
	assert_int_equal(answer, pair != NULL ? 0 : -ENOENT);
	if (pair != NULL)
		compare_item(w, kind_of(tree), pair, &item);
}

static void do_next(struct world *w, unsigned tree, uint64_t key)
{
	const struct array *array = &w->now[tree];
	size_t i = below(array, key);
	struct cow_item item;
	int answer = CALL(w, cow_tree_next(w->store, bare_root(&w->bare, tree), key, &item));

	if (failed(w, answer))
		return;
	assert_int_equal(answer, i < array->count ? 0 : -ENOENT);
	if (answer == 0)
		compare_item(w, kind_of(tree), &array->pairs[i], &item);
}

static void do_previous(struct world *w, unsigned tree, uint64_t key)
{
	const struct array *array = &w->now[tree];
	size_t i = below(array, key) + (pair_at(array, key) != NULL);
	struct cow_item item;
	int answer = CALL(w, cow_tree_previous(w->store, bare_root(&w->bare, tree), key, &item));

	if (failed(w, answer))
		return;
	assert_int_equal(answer, i > 0 ? 0 : -ENOENT);
	if (answer == 0)
		compare_item(w, kind_of(tree), &array->pairs[i - 1], &item);
}

/* As the engine does it: all that may miss comes first. */
static int reserve(struct world *w, unsigned tree, uint64_t key)
{
	struct cow_tree *t = bare_root(&w->bare, tree);
	int answer = CALL(w, cow_reclaim_reserve(w->store));

	if (answer == 0)
		answer = CALL(w, cow_tree_reserve(w->store, t, key));
	if (!failed(w, answer))
		assert_int_equal(answer, 0);
	return answer;
}

/* The claims of a value that goes, or is written over. */
static void give_claims(struct world *w, unsigned tree, uint64_t key)
{
	struct cow_item item;

	if (pair_at(&w->now[tree], key) == NULL)
		return;
	assert_int_equal(cow_tree_get(w->store, bare_root(&w->bare, tree), key, &item), 0);
	cow_reclaim_value(w->store, kind_of(tree), item.value, item.length);
}

/* A run for a new value: one that another value of this tree has too, or a new one. */
static void take_run(struct world *w, unsigned tree, struct pair *pair)
{
	const struct array *array = &w->now[tree];
	uint64_t miss;
	int error;

	if (array->count > 0 && rng_chance(&w->rng, 30)) {
		const struct pair *other = &array->pairs[rng_below(&w->rng, array->count)];
		pair->block = other->block;
		pair->run = other->run;
		cow_counts_add(w->store->counts, pair->block, pair->run, +1);
		return;
	}
	while ((error = cow_counts_alloc(w->store->counts, COW_ALLOC_DATA, 1 + (uint32_t)rng_below(&w->rng, 4),
					 &pair->block, &pair->run, &miss)) == COW_MISS) {
		pthread_mutex_unlock(&w->store->lock);
		assert_int_equal(cow_counts_load(w->store->counts, miss), 0);
		pthread_mutex_lock(&w->store->lock);
	}
	assert_int_equal(error, 0);
}

/* A tree for a new value: what one of the others holds now. */
static bool take_tree(struct world *w, struct pair *pair, uint8_t *value)
{
	unsigned from = (unsigned)rng_below(&w->rng, 4);
	struct cow_tree *tree = bare_root(&w->bare, from);

	if (w->frozen_count >= 60)
		return false;
	assert_int_equal(CALL(w, cow_tree_share(w->store, tree)), 0);
	cow_ptr_put(value, tree->root);
	COW_ARRAY_GROW(w->frozen, w->frozen_count, w->frozen_size);
	w->frozen[w->frozen_count] = (struct array){0};
	array_copy(&w->frozen[w->frozen_count], &w->now[from]);
	pair->inner = (unsigned)w->frozen_count++;
	return true;
}

static void do_put(struct world *w, unsigned tree, uint64_t key)
{
	struct pair pair = {.key = key, .seed = rng_next(&w->rng)};
	struct cow_tree *t = bare_root(&w->bare, tree);
	uint8_t kind = kind_of(tree), value[COW_VALUE_MAX];
	uint32_t least = kind == BARE_RUN ? BARE_RUN_BYTES : kind == BARE_TREE ? COW_PTR_BYTES : 0;

	if (w->now[tree].count >= ITEMS_MAX)
		return;
	pair.length = (uint32_t)rng_below(&w->rng, (rng_chance(&w->rng, 5) ? COW_VALUE_MAX : w->usual_bytes) + 1);
	if (pair.length < least)
		pair.length = least;
	if (!w->faulty && rng_chance(&w->rng, 30) && kind == BARE_PLAIN) { /* without a reserve */
		value_of(&pair, kind, value);
		assert_int_equal(CALL(w, cow_tree_put(w->store, t, key, value, pair.length)), 0);
		array_put(&w->now[tree], &pair);
		return;
	}
	if (kind == BARE_RUN && !w->faulty)
		take_run(w, tree, &pair);
	if (w->faulty && kind != BARE_PLAIN)
		return;
	value_of(&pair, kind, value);
	if (kind == BARE_TREE && !take_tree(w, &pair, value))
		return;
	if (reserve(w, tree, key) != 0)
		return;
	give_claims(w, tree, key);
	assert_int_equal(cow_tree_put(w->store, t, key, value, pair.length), 0);
	array_put(&w->now[tree], &pair);
	assert_true(cow_tree_is_private(w->store, t, key));
}

static void do_del(struct world *w, unsigned tree, uint64_t key)
{
	struct pair *pair = pair_at(&w->now[tree], key);
	struct cow_tree *t = bare_root(&w->bare, tree);
	int answer;

	if (kind_of(tree) == BARE_PLAIN && rng_chance(&w->rng, 30)) { /* without a reserve */
		answer = CALL(w, cow_tree_del(w->store, t, key));
		if (failed(w, answer))
			return;
	} else {
		if (reserve(w, tree, key) != 0)
			return;
		give_claims(w, tree, key);
		answer = cow_tree_del(w->store, t, key);
	}
	assert_int_equal(answer, pair != NULL ? 0 : -ENOENT);
	if (pair != NULL)
		array_remove(&w->now[tree], key);
}

static void do_cut(struct world *w, unsigned tree, uint64_t key)
{
	int answer = CALL(w, cow_tree_cut(w->store, bare_root(&w->bare, tree), key));

	if (failed(w, answer))
		return;
	assert_int_equal(answer, 0);
	w->now[tree].count = below(&w->now[tree], key);
}

/* Some keys of both trees are then held by somebody else too, until one of them is written to. */
static void do_copy(struct world *w, unsigned tree)
{
	unsigned to = (unsigned)rng_below(&w->rng, BARE_ROOTS);
	struct cow_tree *from = bare_root(&w->bare, tree);
	bool sole;

	if (to == tree || kind_of(to) != kind_of(tree))
		return;
	drop(w, to);
	assert_int_equal(CALL(w, cow_tree_share(w->store, from)), 0);
	*bare_root(&w->bare, to) = *from;
	array_copy(&w->now[to], &w->now[tree]);
	if (w->now[tree].count == 0)
		return;
	assert_int_equal(CALL(w, cow_tree_is_sole(w->store, from, any_key(w, tree), &sole)), 0);
	assert_false(sole);
	assert_false(cow_tree_is_private(w->store, from, any_key(w, tree)));
}

/* ------------------------------------------------------------------ faults */

/* The address of some node of the tree; 0 if it is not in a block yet, or there is none. */
static uint64_t some_node(struct world *w, const struct cow_tree *tree)
{
	struct cow_ptr ptr = tree->root;
	struct cow_node *node;

	if (cow_ptr_is_null(ptr))
		return 0;
	for (int level = -1; level != 0;) {
		assert_int_equal(CALL(w, cow_node_get(w->store, ptr, tree->kind, level, &node)), 0);
		level = cow_node_level(node);
		if (level == 0 || rng_chance(&w->rng, 30))
			break;
		level--;
		ptr = cow_inner_ptr(node, (unsigned)rng_below(&w->rng, cow_node_items(node)));
		if (level == 0)
			break;
	}
	return cow_ptr_is_dirty(ptr) ? 0 : ptr.addr;
}

static void do_any(struct world *w, unsigned tree)
{
	uint64_t key = any_key(w, tree), dice = rng_below(&w->rng, 100);

	if (dice < 15)
		do_get(w, tree, key);
	else if (dice < 30)
		do_next(w, tree, key);
	else if (dice < 45)
		do_previous(w, tree, key);
	else if (dice < 70)
		do_put(w, tree, key);
	else if (dice < 92)
		do_del(w, tree, key);
	else
		do_cut(w, tree, key);
}

/* A node with a wrong bit is found out by who comes there, and by nobody else; with the bit put right, nothing is
 * missing. */
static void with_damage(struct world *w, unsigned tree)
{
	uint64_t block = some_node(w, bare_root(&w->bare, tree)), seed = rng_next(&w->rng);

	if (block == 0)
		return;
	bare_forget(&w->bare);
	cow_sim_garble(w->bare.disk, block, true, seed);
	w->faulty = true;
	for (unsigned i = 0; i < 4; i++)
		do_any(w, tree);
	cow_sim_garble(w->bare.disk, block, true, seed);
	w->faulty = false;
}

static void with_failing_reads(struct world *w, unsigned tree)
{
	bare_forget(&w->bare);
	for (unsigned i = 0; i < 4; i++) {
		cow_sim_fail(w->bare.disk, COW_SIM_READ, 1 + rng_below(&w->rng, 3), 0, -EIO);
		w->faulty = true;
		do_any(w, tree);
		cow_sim_fail(w->bare.disk, COW_SIM_READ, 0, 0, 0);
		w->faulty = false;
	}
}

/* The host has no space for what a commit writes: it fails, changes nothing, and succeeds when there is space again. */
static void without_space(struct world *w)
{
	int error;

	pthread_mutex_unlock(&w->store->lock);
	cow_sim_host(w->bare.disk, cow_sim_host_used(w->bare.disk));
	w->store->changes++;
	error = cow_store_commit(w->store, NULL, NULL);
	cow_sim_host(w->bare.disk, UINT64_MAX);
	assert_true(error == 0 || error == -ENOSPC);
	assert_int_equal(w->store->failed, 0);
	assert_int_equal(cow_counts_prepare(w->store->counts, 1024), 0); /* asks the host again */
	pthread_mutex_lock(&w->store->lock);
	compare_all(w);
	commit(w);
}

static void crash(struct world *w)
{
	pthread_mutex_unlock(&w->store->lock);
	bare_reopen(&w->bare);
	set_kinds(w);
	for (unsigned i = 0; i < BARE_ROOTS; i++)
		array_copy(&w->now[i], &w->durable[i]);
}

/* ------------------------------------------------------------------ random runs */

static void step(struct world *w, bool grows)
{
	unsigned tree = (unsigned)rng_below(&w->rng, BARE_ROOTS);
	uint64_t dice = rng_below(&w->rng, 1000);

	if (dice < 6)
		do_copy(w, tree);
	else if (dice < 8)
		drop(w, tree);
	else if (dice < 14)
		with_damage(w, tree);
	else if (dice < 18)
		with_failing_reads(w, tree);
	else if (dice < 21)
		without_space(w);
	else if (dice < 29)
		commit(w);
	else if (dice < 31)
		drain(w);
	else if (dice < 32)
		crash(w);
	else if (dice < 100)
		bare_forget(&w->bare);
	else if (dice < 110)
		do_cut(w, tree, any_key(w, tree));
	else if (dice < 350)
		do_any(w, tree);
	else if (grows)
		do_put(w, tree, any_key(w, tree));
	else
		do_del(w, tree, any_key(w, tree));
}

static void test_random(void **state)
{
	(void)state;
	for (struct trial t = {0}; trial_next(&t, 40, 20);) {
		uint64_t steps = trial_length(6000);
		struct world w;

		begin(&w, t.seed);
		for (uint64_t i = 0; i < steps; i++) {
			step(&w, i / 1500 % 2 == 0);
			if (i % 500 == 0)
				compare_all(&w);
		}
		trial_say("%u misses, %u errors told", w.misses, w.bare.logged);
		assert_true(w.misses > 0);
		end(&w);
	}
}

/* ------------------------------------------------------------------ single cases */

static void test_bounds(void **state)
{
	uint8_t value[COW_VALUE_MAX] = {1};
	struct cow_tree *t;
	struct cow_item item;
	struct world w;

	(void)state;
	begin(&w, 1);
	t = bare_root(&w.bare, 0);
	assert_int_equal(cow_tree_get(w.store, t, 0, &item), -ENOENT);
	assert_int_equal(cow_tree_next(w.store, t, 0, &item), -ENOENT);
	assert_int_equal(cow_tree_previous(w.store, t, UINT64_MAX, &item), -ENOENT);
	assert_int_equal(cow_tree_del(w.store, t, 0), -ENOENT);
	assert_int_equal(cow_tree_cut(w.store, t, 0), 0);
	assert_int_equal(cow_tree_reserve(w.store, t, 5), 0);
	assert_int_equal(cow_tree_share(w.store, t), 0);
	assert_int_equal(cow_tree_put(w.store, t, UINT64_MAX, value, COW_VALUE_MAX), 0);
	assert_int_equal(cow_tree_put(w.store, t, 0, value, 0), 0);
	assert_int_equal(cow_tree_get(w.store, t, 0, &item), 0);
	assert_int_equal(item.length, 0);
	assert_int_equal(cow_tree_next(w.store, t, 1, &item), 0);
	assert_true(item.key == UINT64_MAX && item.length == COW_VALUE_MAX);
	assert_int_equal(cow_tree_previous(w.store, t, UINT64_MAX - 1, &item), 0);
	assert_true(item.key == 0);
	assert_int_equal(cow_tree_del(w.store, t, 0), 0);
	assert_int_equal(cow_tree_del(w.store, t, UINT64_MAX), 0);
	assert_true(cow_ptr_is_null(t->root));
	assert_int_equal(w.store->dirty_nodes, 0);
	end(&w);
}

static void fill_plain(struct world *w, unsigned count, uint32_t length)
{
	for (uint64_t key = 1; key <= count; key++) {
		struct pair pair = {.key = key * 10, .seed = key, .length = length};
		uint8_t value[COW_VALUE_MAX];

		value_of(&pair, BARE_PLAIN, value);
		assert_int_equal(cow_tree_put(w->store, bare_root(&w->bare, 0), pair.key, value, length), 0);
		array_put(&w->now[0], &pair);
	}
}

/* Keys that ascend, as those of a file's extents and of the queue do, fill nodes to the brim. */
static void test_ascending_keys_fill_leaves(void **state)
{
	const unsigned in_a_leaf = (COW_BLOCK - COW_NODE_HEADER) / (100 + COW_LEAF_SLOT);
	struct world w;

	(void)state;
	begin(&w, 1);
	fill_plain(&w, 30 * in_a_leaf, 100);
	assert_int_equal(w.store->dirty_nodes, 31);
	end(&w);
}

/* Inner nodes split in their middle, level by level, and go again: there are 1,500 values, three to a leaf. */
static void test_inner_nodes_split(void **state)
{
	uint8_t value[COW_VALUE_MAX];
	struct world w;

	(void)state;
	begin(&w, 1);
	for (uint32_t i = 0; i < 1500; i++) {
		struct pair pair = {.key = i * 2654435761u, .seed = i, .length = 1000};

		value_of(&pair, BARE_PLAIN, value);
		assert_int_equal(CALL(&w, cow_tree_put(w.store, bare_root(&w.bare, 0), pair.key, value, 1000)), 0);
		array_put(&w.now[0], &pair);
		if (i % 250 == 0)
			compare_all(&w);
	}
	compare_all(&w);
	commit(&w);
	for (uint32_t i = 0; i < 1500; i++) {
		do_del(&w, 0, (i * 7 % 1500) * 2654435761u);
		if (i % 250 == 0) {
			compare_all(&w);
			bare_forget(&w.bare);
		}
	}
	assert_true(cow_ptr_is_null(bare_root(&w.bare, 0)->root));
	end(&w);
}

/* Nodes that have become small are joined: what is left is no tree of nearly empty leaves. */
static void test_deleting_joins_nodes(void **state)
{
	struct world w;
	uint64_t before;

	(void)state;
	begin(&w, 1);
	fill_plain(&w, 8000, 40);
	before = w.store->dirty_nodes;
	for (uint64_t key = 10; key <= 80000; key += 10)
		if (key % 400 != 0) {
			assert_int_equal(cow_tree_del(w.store, bare_root(&w.bare, 0), key), 0);
			array_remove(&w.now[0], key);
		}
	assert_in_range(w.store->dirty_nodes, 1, before / 8);
	end(&w);
}

/* A copy costs nothing, and a change in it the nodes on one way down. */
static void test_a_copy_costs_its_changes(void **state)
{
	struct cow_tree *a, *b;
	uint8_t value = 1;
	struct world w;

	(void)state;
	begin(&w, 1);
	fill_plain(&w, 8000, 40);
	a = bare_root(&w.bare, 0);
	b = bare_root(&w.bare, 1);
	commit(&w);
	assert_int_equal(CALL(&w, cow_tree_share(w.store, a)), 0);
	*b = *a;
	array_copy(&w.now[1], &w.now[0]);
	assert_int_equal(w.store->dirty_nodes, 0);
	assert_int_equal(CALL(&w, cow_tree_put(w.store, b, 40000, &value, 1)), 0);
	assert_int_equal(w.store->dirty_nodes, 2);
	array_put(&w.now[1], &(struct pair){.key = 40000, .seed = 1, .length = 1});
	end(&w);
}

/* What was reserved needs the device no more. */
static void test_reserved_keys_do_not_miss(void **state)
{
	struct cow_tree *t;
	struct cow_item item;
	uint8_t value[COW_VALUE_MAX] = {0};
	struct world w;

	(void)state;
	begin(&w, 1);
	fill_plain(&w, 8000, 40);
	commit(&w);
	t = bare_root(&w.bare, 0);
	for (uint64_t key = 4000; key < 8000; key += 500) {
		bare_forget(&w.bare);
		assert_int_equal(reserve(&w, 0, key), 0);
		assert_int_equal(cow_tree_get(w.store, t, key, &item), 0);
		assert_int_equal(cow_tree_get(w.store, t, key + 1, &item), -ENOENT);
		assert_int_equal(cow_tree_put(w.store, t, key + 1, value, COW_VALUE_MAX), 0);
		assert_int_equal(cow_tree_del(w.store, t, key + 1), 0);
		assert_int_equal(cow_tree_del(w.store, t, key), 0);
		array_remove(&w.now[0], key);
	}
	end(&w);
}

/* A cut reads the nodes on one way down, however much lies above the key. */
static void test_a_cut_reads_one_way_down(void **state)
{
	struct cow_sim_stats before, after;
	struct world w;

	(void)state;
	begin(&w, 1);
	fill_plain(&w, 8000, 40);
	commit(&w);
	bare_forget(&w.bare);
	cow_sim_stats(w.bare.disk, &before);
	do_cut(&w, 0, 4000);
	cow_sim_stats(w.bare.disk, &after);
	assert_in_range(after.calls[COW_SIM_READ] - before.calls[COW_SIM_READ], 2, 3);
	end(&w);
}

static void test_a_count_has_an_end(void **state)
{
	struct cow_tree *t;
	struct world w;

	(void)state;
	begin(&w, 1);
	fill_plain(&w, 10, 40);
	commit(&w);
	t = bare_root(&w.bare, 0);
	cow_counts_add(w.store->counts, t->root.addr, 1, (int)(COW_COUNT_MAX - 2));
	assert_int_equal(CALL(&w, cow_tree_can_share(w.store, t)), 0);
	assert_int_equal(CALL(&w, cow_tree_share(w.store, t)), 0);
	assert_int_equal(CALL(&w, cow_tree_can_share(w.store, t)), -EMLINK);
	assert_int_equal(CALL(&w, cow_tree_share(w.store, t)), -EMLINK);
	cow_counts_add(w.store->counts, t->root.addr, 1, -(int)(COW_COUNT_MAX - 1));
	end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_ascending_keys_fill_leaves),
		cmocka_unit_test(test_inner_nodes_split),
		cmocka_unit_test(test_deleting_joins_nodes),
		cmocka_unit_test(test_a_copy_costs_its_changes),
		cmocka_unit_test(test_reserved_keys_do_not_miss),
		cmocka_unit_test(test_a_cut_reads_one_way_down),
		cmocka_unit_test(test_a_count_has_an_end),
		cmocka_unit_test(test_random),
	};

	return cases_run(tests);
}
