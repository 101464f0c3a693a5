/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counts against a model that is nothing but arrays: random changes, allocations, commits and crashes on a simulated
 * device. The allocation rule is judged by the model alone, never by what the code says of itself.
 *
 * COW_SEED=n reruns one seed; without it some fixed seeds and a fresh one, which is printed, are run.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "store/counts.h"

struct model {
	uint64_t total;
	int64_t *durable, *sealed, *open; /* counts; the latter two are changes */
	uint8_t *in_sealed, *in_open; /* allocated in that generation */
	uint32_t *freed; /* by group: the commit that last freed much of it, if it was not trimmed since */
	uint32_t commits; /* since counts were opened, from 1 */
	bool has_sealed;
};

struct world {
	struct model model;
	struct cow_dev *dev;
	pthread_mutex_t lock;
	struct cow_counts *counts;
	struct cow_counts_root root; /* durable */
	uint64_t random;
};

static uint64_t any(struct world *w, uint64_t below)
{
	uint64_t z = w->random += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return (z ^ z >> 31) % below;
}

/* ------------------------------------------------------------------ the model */

static void model_new(struct model *m, uint64_t total)
{
	m->total = total;
	m->durable = cow_mem_new(total * 8);
	m->sealed = cow_mem_new(total * 8);
	m->open = cow_mem_new(total * 8);
	m->in_sealed = cow_mem_new(total);
	m->in_open = cow_mem_new(total);
	m->freed = cow_mem_new((total / COW_PIECE_BLOCKS + 1) * sizeof(*m->freed));
	m->commits = 1;
	for (uint64_t b = 0; b < total; b++)
		m->durable[b] = cow_layout_is_system(b);
}

static void model_free(struct model *m)
{
	free(m->durable);
	free(m->sealed);
	free(m->open);
	free(m->in_sealed);
	free(m->in_open);
	free(m->freed);
}

static int64_t model_count(const struct model *m, uint64_t b)
{
	return m->durable[b] + m->sealed[b] + m->open[b];
}

static bool model_allocatable(const struct model *m, uint64_t b)
{
	return m->durable[b] == 0 && !m->in_sealed[b] && !m->in_open[b];
}

static uint64_t model_available(const struct model *m)
{
	uint64_t n = 0;

	for (uint64_t b = 0; b < m->total; b++)
		n += model_allocatable(m, b);
	return n;
}

static void model_seal(struct model *m)
{
	memcpy(m->sealed, m->open, m->total * 8);
	memcpy(m->in_sealed, m->in_open, m->total);
	memset(m->open, 0, m->total * 8);
	memset(m->in_open, 0, m->total);
}

static void model_durable(struct model *m)
{
	for (uint64_t b = 0; b < m->total; b++)
		m->durable[b] += m->sealed[b];
	memset(m->sealed, 0, m->total * 8);
	memset(m->in_sealed, 0, m->total);
}

static void model_crash(struct model *m)
{
	memset(m->sealed, 0, m->total * 8);
	memset(m->in_sealed, 0, m->total);
	memset(m->open, 0, m->total * 8);
	memset(m->in_open, 0, m->total);
	memset(m->freed, 0, (m->total / COW_PIECE_BLOCKS + 1) * sizeof(*m->freed)); /* not known after a crash */
	m->commits = 1;
}

/* ------------------------------------------------------------------ driving the code */

static void open_counts(struct world *w)
{
	assert_int_equal(cow_counts_open(w->dev, &w->lock, w->model.total, &w->root, 0, &w->counts), 0);
}

static void world_new(struct world *w, uint64_t total, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	model_new(&w->model, total);
	w->dev = cow_sim_new(total * COW_BLOCK);
	w->random = seed;
	pthread_mutex_init(&w->lock, NULL);
	open_counts(w);
}

static void world_free(struct world *w)
{
	cow_counts_close(w->counts);
	cow_dev_close(w->dev);
	model_free(&w->model);
	pthread_mutex_destroy(&w->lock);
}

static uint32_t get(struct world *w, uint64_t block)
{
	uint32_t count = 0;
	uint64_t miss;
	int result;

	for (;;) {
		pthread_mutex_lock(&w->lock);
		result = cow_counts_get(w->counts, block, &count, &miss);
		pthread_mutex_unlock(&w->lock);
		if (result != COW_MISS)
			break;
		assert_int_equal(cow_counts_load(w->counts, miss), 0);
	}
	assert_int_equal(result, 0);
	return count;
}

static int alloc(struct world *w, enum cow_alloc_class class, uint32_t want, uint64_t *start, uint32_t *length)
{
	uint64_t miss;
	int result;

	for (;;) {
		pthread_mutex_lock(&w->lock);
		result = cow_counts_alloc(w->counts, class, want, start, length, &miss);
		pthread_mutex_unlock(&w->lock);
		if (result != COW_MISS)
			return result;
		assert_int_equal(cow_counts_load(w->counts, miss), 0);
	}
}

static void add(struct world *w, uint64_t block, uint32_t length, int change)
{
	pthread_mutex_lock(&w->lock);
	cow_counts_add(w->counts, block, length, change);
	pthread_mutex_unlock(&w->lock);
	for (uint32_t i = 0; i < length; i++)
		w->model.open[block + i] += change;
}

static int try_alloc(struct world *w, enum cow_alloc_class class, uint32_t want)
{
	struct model *m = &w->model;
	uint64_t start = 0;
	uint32_t length = 0;
	int result = alloc(w, class, want, &start, &length);

	if (result != 0)
		return result;
	assert_in_range(length, 1, want);
	for (uint64_t b = start; b < start + length; b++) {
		assert_true(b < m->total);
		assert_true(model_allocatable(m, b));
		m->in_open[b] = 1;
		m->open[b]++;
	}
	return 0;
}

/* Whatever is under way: a block without a count is free. */
static void check_free(struct world *w)
{
	uint64_t unused = 0, miss;
	int result;

	for (uint64_t b = 0; b < w->model.total; b++)
		unused += model_count(&w->model, b) == 0;
	pthread_mutex_lock(&w->lock);
	while ((result = cow_counts_settle(w->counts, 3, &miss)) != 0) {
		pthread_mutex_unlock(&w->lock);
		if (result == COW_MISS)
			assert_int_equal(cow_counts_load(w->counts, miss), 0);
		pthread_mutex_lock(&w->lock);
	}
	assert_true(cow_counts_is_settled(w->counts));
	assert_int_equal(cow_counts_free(w->counts), unused);
	pthread_mutex_unlock(&w->lock);
}

static void check_counts(struct world *w)
{
	check_free(w);
	for (uint64_t b = 0; b < w->model.total; b++)
		assert_int_equal(get(w, b), model_count(&w->model, b));
	pthread_mutex_lock(&w->lock);
	assert_int_equal(cow_counts_available(w->counts), model_available(&w->model));
	pthread_mutex_unlock(&w->lock);
}

/* ------------------------------------------------------------------ what is on disk */

struct scanned {
	struct model *model;
	uint64_t next;
};

static void check_fresh(struct scanned *s, uint64_t end)
{
	for (; s->next < end && s->next < s->model->total; s->next++)
		assert_int_equal(s->model->durable[s->next], cow_layout_is_system(s->next));
}

static int scanned_piece(void *context, uint64_t piece, const uint32_t *counts)
{
	struct scanned *s = context;

	check_fresh(s, piece * COW_PIECE_BLOCKS);
	for (unsigned i = 0; i < COW_PIECE_BLOCKS; i++, s->next++)
		assert_int_equal(counts[i], s->next < s->model->total ? (uint64_t)s->model->durable[s->next] : 1);
	return 0;
}

static void scanned_bad(void *context, int level, uint64_t index, const char *what)
{
	(void)context;
	fail_msg("level %d index %llu: %s", level, (unsigned long long)index, what);
}

static void check_disk(struct world *w, struct cow_dev *dev)
{
	struct scanned s = {&w->model, 0};

	assert_int_equal(cow_counts_scan(dev, w->model.total, &w->root, scanned_piece, scanned_bad, &s), 0);
	check_fresh(&s, w->model.total);
}

/* ------------------------------------------------------------------ commits */

static void seal(struct world *w)
{
	pthread_mutex_lock(&w->lock);
	cow_counts_seal(w->counts);
	pthread_mutex_unlock(&w->lock);
	model_seal(&w->model);
	w->model.has_sealed = true;
}

/* [sealed, not durable] The groups of which this commit frees much. */
static void note_freed(struct model *m)
{
	for (uint64_t group = 0; group * COW_PIECE_BLOCKS < m->total; group++) {
		unsigned freed = 0;

		for (uint64_t b = group * COW_PIECE_BLOCKS; b < (group + 1) * COW_PIECE_BLOCKS && b < m->total; b++)
			freed += m->durable[b] > 0 && m->durable[b] + m->sealed[b] == 0;
		if (freed >= COW_DISCARD_BLOCKS)
			m->freed[group] = m->commits;
	}
}

static bool is_garbage(struct world *w, uint64_t block)
{
	uint8_t bytes[COW_BLOCK];

	assert_int_equal(cow_dev_read(w->dev, bytes, COW_BLOCK, block * COW_BLOCK), 0);
	return bytes[0] == 0xdb;
}

/* The free runs of a group that was noted; how many blocks they have. */
static uint64_t trimmed(struct world *w, uint64_t group)
{
	const struct model *m = &w->model;
	uint64_t from = group * COW_PIECE_BLOCKS, to = from + COW_PIECE_BLOCKS, blocks = 0;

	if (to > m->total)
		to = m->total;
	for (uint64_t b = from, end; b < to; b = end + 1) {
		for (end = b; end < to && model_allocatable(m, end); end++)
			;
		if (end - b < COW_DISCARD_BLOCKS)
			continue;
		blocks += end - b;
		for (; b < end; b++)
			assert_true(is_garbage(w, b));
	}
	return blocks;
}

/* Exactly the long free runs of groups that were freed so long ago are discarded. */
static uint64_t trim(struct world *w, uint32_t age)
{
	struct cow_sim_stats before, after;
	struct model *m = &w->model;
	uint64_t expected = 0;

	cow_sim_stats(w->dev, &before);
	assert_false(cow_counts_trim(w->counts, &(struct cow_trim){.age = age}));
	cow_sim_stats(w->dev, &after);
	for (uint64_t group = 0; group * COW_PIECE_BLOCKS < m->total; group++)
		if (m->freed[group] != 0 && m->commits - m->freed[group] >= age) {
			expected += trimmed(w, group);
			m->freed[group] = 0;
		}
	assert_int_equal(after.blocks_discarded - before.blocks_discarded, expected);
	return expected;
}

static void make_durable(struct world *w)
{
	struct cow_counts_root root;

	assert_int_equal(cow_counts_write(w->counts, &root), 0);
	check_disk(w, w->dev); /* the live slots are untouched */
	assert_int_equal(cow_dev_flush(w->dev), 0);
	w->root = root;
	note_freed(&w->model);
	pthread_mutex_lock(&w->lock);
	cow_counts_durable(w->counts);
	pthread_mutex_unlock(&w->lock);
	model_durable(&w->model);
	w->model.commits++;
	w->model.has_sealed = false;
	check_disk(w, w->dev);
}

static void finish(struct world *w)
{
	make_durable(w);
	if (any(w, 2) == 0)
		trim(w, (uint32_t)any(w, 4));
}

static void commit(struct world *w)
{
	seal(w);
	make_durable(w);
}

static void crash(struct world *w, enum cow_sim_policy policy)
{
	struct cow_dev *after;

	cow_counts_close(w->counts);
	after = cow_sim_cut(w->dev, cow_sim_events(w->dev), policy, any(w, UINT64_MAX));
	cow_dev_close(w->dev);
	w->dev = after;
	model_crash(&w->model);
	w->model.has_sealed = false;
	check_disk(w, w->dev);
	open_counts(w);
}

/* ------------------------------------------------------------------ random operations */

static void change_some(struct world *w)
{
	uint64_t b = any(w, w->model.total);
	uint32_t length = 0, want = 1 + (uint32_t)any(w, any(w, 4) == 0 ? 1500 : 20);
	int change = any(w, 3) == 0 ? 1 : -1;

	for (unsigned i = 0; i < 2000 && model_count(&w->model, b) == 0; i++)
		b = (b + 1) % w->model.total;
	while (length < want && b + length < w->model.total && model_count(&w->model, b + length) > 0 &&
	       !cow_layout_is_system(b + length))
		length++;
	if (length > 0)
		add(w, b, length, change);
}

static void step(struct world *w)
{
	struct cow_counts_root root;

	switch (any(w, 16)) {
	case 0 ... 5:
		if (try_alloc(w, any(w, 2), 1 + (uint32_t)any(w, 64)) == -ENOSPC)
			assert_int_equal(model_available(&w->model), 0);
		break;
	case 6 ... 10: change_some(w); break;
	case 11 ... 12: {
		uint64_t b = any(w, w->model.total);

		assert_int_equal(get(w, b), model_count(&w->model, b));
		if (any(w, 4) == 0)
			check_free(w);
		break;
	}
	case 13:
		if (!w->model.has_sealed && any(w, 4) == 0)
			seal(w);
		break;
	case 14:
		if (w->model.has_sealed && any(w, 2) == 0)
			finish(w);
		break;
	default:
		if (any(w, 40) != 0)
			break;
		if (w->model.has_sealed && any(w, 2) == 0)
			assert_int_equal(cow_counts_write(w->counts, &root), 0); /* and no superblock */
		crash(w, any(w, COW_SIM_POLICIES));
		break;
	}
}

static void run_seed(uint64_t seed, uint64_t total, unsigned steps)
{
	struct world w;

	print_message("seed %llu, %llu blocks\n", (unsigned long long)seed, (unsigned long long)total);
	world_new(&w, total, seed);
	for (unsigned i = 0; i < steps; i++) {
		step(&w);
		if (i % 500 == 0)
			check_counts(&w);
	}
	check_counts(&w);
	world_free(&w);
}

static void test_random(void **state)
{
	const char *fixed = getenv("COW_SEED");

	(void)state;
	if (fixed != NULL) {
		run_seed(strtoull(fixed, NULL, 0), 40 * 1024 + 100, 6000);
		return;
	}
	for (uint64_t seed = 1; seed <= 4; seed++)
		run_seed(seed, 4096 + 32, 4000);
	run_seed(5, 40 * 1024 + 100, 6000); /* more pieces than stay in memory */
	run_seed(6, 520 * 1024, 1500); /* more than one selector block of level 1 */
	run_seed((uint64_t)time(NULL) << 20 ^ (uint64_t)clock(), 40 * 1024 + 100, 4000);
}

/* Every block can be had, each once, whatever the order; then none before a commit, and all freed ones after it. */
static void test_fill(void **state)
{
	struct world w;
	uint64_t n;

	(void)state;
	world_new(&w, 36 * 1024 + 32, 7);
	n = model_available(&w.model);
	assert_int_equal(n, w.model.total - cow_counts_system(w.counts));
	while (try_alloc(&w, any(&w, 2), 1 + (uint32_t)any(&w, 64)) == 0)
		;
	assert_int_equal(model_available(&w.model), 0);
	for (uint64_t b = 0; b < w.model.total; b++)
		if (!cow_layout_is_system(b) && b % 3 == 0)
			add(&w, b, 1, -1);
	assert_int_equal(try_alloc(&w, COW_ALLOC_NODE, 1), -ENOSPC);
	seal(&w);
	assert_int_equal(try_alloc(&w, COW_ALLOC_NODE, 1), -ENOSPC);
	finish(&w);
	for (n = 0; try_alloc(&w, COW_ALLOC_DATA, 8) == 0;)
		n++;
	assert_in_range(n, w.model.total / 3 - 100, w.model.total / 3);
	check_counts(&w);
	world_free(&w);
}

/* Long runs go back to the host, not before their time, and are asked for again. */
static void test_trim(void **state)
{
	struct world w;

	(void)state;
	world_new(&w, 8192, 21);
	for (unsigned i = 0; i < 60; i++)
		assert_int_equal(try_alloc(&w, COW_ALLOC_DATA, 64), 0);
	commit(&w);
	add(&w, 100, 300, -1);
	add(&w, 1024 + 500, 524, -1);
	add(&w, 2048 + 500, 200, -1);
	commit(&w);
	assert_int_equal(trim(&w, 2), 0);
	add(&w, 2048 + 700, 56, -1);
	commit(&w); /* the third group: 256 in a row are free, but not by one commit */
	assert_int_equal(trim(&w, 2), 824);
	assert_int_equal(trim(&w, 0), 0);
	check_counts(&w);
	while (try_alloc(&w, COW_ALLOC_DATA, 64) == 0)
		;
	assert_int_equal(model_available(&w.model), 0);
	assert_int_equal(cow_counts_ready(w.counts), 0);
	world_free(&w);
}

/* What is written over again and again stays where the host has its space. */
static void test_recycle(void **state)
{
	struct cow_sim_stats before, after;
	struct world w;
	uint64_t last = 0, start;
	uint32_t length;

	(void)state;
	world_new(&w, 64 * COW_PIECE_BLOCKS, 22);
	for (unsigned round = 0; round < 40; round++) {
		if (round == 5)
			cow_sim_stats(w.dev, &before);
		for (uint64_t left = COW_PIECE_BLOCKS; left > 0; left -= length) {
			uint32_t want = left > 512 ? 512 : (uint32_t)left;

			assert_int_equal(alloc(&w, COW_ALLOC_DATA, want, &start, &length), 0);
			memset(w.model.in_open + start, 1, length);
			for (uint32_t i = 0; i < length; i++)
				w.model.open[start + i]++;
			if (start + length > last)
				last = start + length;
		}
		for (uint64_t b = 0; b < w.model.total; b++)
			if (!cow_layout_is_system(b) && w.model.durable[b] != 0)
				add(&w, b, 1, -1);
		commit(&w);
	}
	cow_sim_stats(w.dev, &after);
	assert_int_equal(after.calls[COW_SIM_ENSURE], before.calls[COW_SIM_ENSURE]);
	assert_in_range(last, 2 * COW_PIECE_BLOCKS, 6 * COW_PIECE_BLOCKS);
	world_free(&w);
}

/* A block freed and allocated around a commit that is in flight. */
static void test_rule(void **state)
{
	struct world w;
	uint64_t b = 0;
	uint32_t length;

	(void)state;
	world_new(&w, 4096, 8);
	while (alloc(&w, COW_ALLOC_DATA, 64, &b, &length) == 0)
		;
	pthread_mutex_lock(&w.lock);
	cow_counts_seal(w.counts);
	cow_counts_add(w.counts, b, 1, -1);
	pthread_mutex_unlock(&w.lock);
	assert_int_equal(alloc(&w, COW_ALLOC_NODE, 1, &b, &length), -ENOSPC);
	assert_int_equal(cow_counts_write(w.counts, &w.root), 0);
	assert_int_equal(alloc(&w, COW_ALLOC_NODE, 1, &b, &length), -ENOSPC);
	pthread_mutex_lock(&w.lock);
	cow_counts_durable(w.counts);
	pthread_mutex_unlock(&w.lock);
	/* freed, but the durable generation still has it */
	assert_int_equal(alloc(&w, COW_ALLOC_NODE, 1, &b, &length), -ENOSPC);
	pthread_mutex_lock(&w.lock);
	cow_counts_seal(w.counts);
	pthread_mutex_unlock(&w.lock);
	assert_int_equal(cow_counts_write(w.counts, &w.root), 0);
	pthread_mutex_lock(&w.lock);
	cow_counts_durable(w.counts);
	pthread_mutex_unlock(&w.lock);
	assert_int_equal(alloc(&w, COW_ALLOC_NODE, 1, &b, &length), 0);
	world_free(&w);
}

/* doc/DESIGN.md, "Cases of commit and allocation": a crash between count slots and superblock, remount,
 * another commit, remount. */
static void test_stale_slots(void **state)
{
	struct world w;
	struct cow_counts_root lost;

	(void)state;
	world_new(&w, 40 * 1024, 9);
	for (unsigned round = 0; round < 30; round++) {
		for (unsigned i = 0; i < 40; i++) {
			assert_int_equal(try_alloc(&w, i % 2, 1 + (uint32_t)any(&w, 64)), 0);
			change_some(&w);
		}
		seal(&w);
		if (round % 2 != 0) {
			assert_int_equal(cow_counts_write(w.counts, &lost), 0);
			crash(&w, COW_SIM_KEEP);
		} else {
			finish(&w);
			crash(&w, COW_SIM_KEEP);
		}
		check_counts(&w);
	}
	world_free(&w);
}

/* The classes keep apart while there is room, and runs are long. */
static void test_streams(void **state)
{
	struct world w;
	uint64_t start, node_group = UINT64_MAX, next = 0;
	uint32_t length;

	(void)state;
	world_new(&w, 64 * 1024, 10);
	for (unsigned i = 0; i < 500; i++) {
		assert_int_equal(alloc(&w, COW_ALLOC_NODE, 1, &start, &length), 0);
		node_group = start / COW_PIECE_BLOCKS;
		assert_int_equal(alloc(&w, COW_ALLOC_DATA, 64, &start, &length), 0);
		assert_true(start / COW_PIECE_BLOCKS != node_group);
		if (next != 0 && start % COW_PIECE_BLOCKS > 24)
			assert_int_equal(start, next);
		next = start + length;
	}
	world_free(&w);
}

/* ------------------------------------------------------------------ the host */

static void test_host_full(void **state)
{
	struct world w;
	uint64_t ready;

	(void)state;
	world_new(&w, 64 * 1024, 11);
	cow_sim_host(w.dev, 5 * 1024);
	assert_int_equal(cow_counts_prepare(w.counts, 2000), 0);
	assert_true(cow_counts_ready(w.counts) >= 2000);
	assert_int_equal(cow_counts_prepare(w.counts, 20000), -ENOSPC);
	ready = cow_counts_ready(w.counts);
	assert_int_equal(cow_counts_available(w.counts), ready);
	for (uint64_t left = ready; left > 0; left--)
		assert_int_equal(try_alloc(&w, left % 2, 1), 0);
	assert_int_equal(try_alloc(&w, COW_ALLOC_DATA, 1), -ENOSPC);
	seal(&w);
	finish(&w); /* counts have their space too */
	assert_int_equal(try_alloc(&w, COW_ALLOC_DATA, 1), -ENOSPC);
	cow_sim_host(w.dev, UINT64_MAX);
	assert_int_equal(cow_counts_prepare(w.counts, 1000), 0);
	assert_int_equal(try_alloc(&w, COW_ALLOC_DATA, 1), 0);
	check_counts(&w);
	world_free(&w);
}

/* What is done in the middle of a discard, or of an answer about space. */
struct meddler {
	struct world *world;
	bool allocates, trims;
	uint64_t allocated;
	uint64_t asked; /* block: what was asked for when it trimmed */
	bool asked_again;
};

static void allocate_all(struct meddler *m, uint64_t from, uint64_t to)
{
	struct model *model = &m->world->model;
	uint64_t start;
	uint32_t got;

	while (alloc(m->world, COW_ALLOC_DATA, 64, &start, &got) == 0) {
		assert_false(start < to && start + got > from);
		memset(model->in_open + start, 1, got);
		for (uint32_t i = 0; i < got; i++)
			model->open[start + i]++;
		m->allocated += got;
	}
}

static void meddle(void *meddler, enum cow_sim_call call, uint64_t block, uint64_t blocks)
{
	struct meddler *m = meddler;

	if (call == COW_SIM_DISCARD && m->allocates) {
		m->allocates = false;
		allocate_all(m, block, block + blocks);
	} else if (call == COW_SIM_ENSURE) {
		m->asked_again |= block == m->asked;
		if (!m->trims)
			return;
		m->trims = false;
		m->asked = block;
		assert_false(cow_counts_trim(m->world->counts, &(struct cow_trim){0}));
	}
}

/* A volume with one group of data, of which 400 blocks were freed. */
static void begin_meddling(struct world *w, struct meddler *m, uint64_t seed)
{
	world_new(w, 8 * COW_PIECE_BLOCKS, seed);
	*m = (struct meddler){.world = w, .asked = UINT64_MAX};
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(try_alloc(w, COW_ALLOC_DATA, 64), 0);
	commit(w);
	add(w, 100, 400, -1);
	commit(w);
	cow_sim_hook(w->dev, meddle, m);
}

/* Nobody gets a block while it is being discarded; all of them come back. */
static void test_trim_beside_alloc(void **state)
{
	struct meddler m;
	struct world w;

	(void)state;
	begin_meddling(&w, &m, 23);
	m.allocates = true;
	assert_false(cow_counts_trim(w.counts, &(struct cow_trim){0}));
	assert_true(m.allocated > 2 * COW_PIECE_BLOCKS);
	assert_int_equal(model_available(&w.model), 400);
	check_counts(&w);
	for (uint64_t b = 100; b < 500; b++)
		assert_true(is_garbage(&w, b));
	assert_int_equal(cow_counts_ready(w.counts), 0);
	commit(&w);
	check_counts(&w);
	world_free(&w);
}

/* Space that is discarded while the host promises it is not taken for promised. */
static void test_trim_beside_ensure(void **state)
{
	struct meddler m;
	struct world w;

	(void)state;
	begin_meddling(&w, &m, 24);
	m.trims = true;
	assert_int_equal(cow_counts_prepare(w.counts, cow_counts_ready(w.counts) + 1), 0);
	assert_false(m.trims);
	assert_true(m.asked_again);
	check_counts(&w);
	world_free(&w);
}

static void test_ensure_fails(void **state)
{
	struct world w;
	uint64_t start, miss;
	uint32_t length;

	(void)state;
	world_new(&w, 4096, 13);
	cow_sim_fail(w.dev, COW_SIM_ENSURE, 1, UINT64_MAX, -EIO);
	assert_int_equal(cow_counts_alloc(w.counts, COW_ALLOC_DATA, 1, &start, &length, &miss), COW_MISS);
	assert_int_equal(cow_counts_load(w.counts, miss), -EIO);
	world_free(&w);
}

/* ------------------------------------------------------------------ decay and faults */

static void count_bad(void *context, int level, uint64_t index, const char *what)
{
	(void)level, (void)index, (void)what;
	++*(unsigned *)context;
}

static int ignore_piece(void *context, uint64_t piece, const uint32_t *counts)
{
	(void)context, (void)piece, (void)counts;
	return 0;
}

/* Every live count block, garbled, is found by scan and refused by load. */
static void test_damage(void **state)
{
	struct world w;

	(void)state;
	world_new(&w, 4096, 14);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(try_alloc(&w, i % 2, 64), 0);
	seal(&w);
	finish(&w);
	cow_counts_close(w.counts);
	for (int level = 0; level < COW_COUNT_LEVELS; level++) {
		struct cow_dev *good = w.dev;
		unsigned bad = 0;
		uint64_t miss;
		uint32_t count;
		int result;

		w.dev = cow_sim_copy(good);
		/* written once: slot 0 is live at all levels */
		cow_sim_garble(w.dev, cow_layout_slot(level, 0, 0), true, 15);
		assert_int_equal(cow_counts_scan(w.dev, w.model.total, &w.root, ignore_piece, count_bad, &bad), 0);
		assert_int_equal(bad, 1);
		result = cow_counts_open(w.dev, &w.lock, w.model.total, &w.root, 0, &w.counts);
		if (result == 0) {
			while ((result = cow_counts_get(w.counts, 100, &count, &miss)) == COW_MISS)
				if ((result = cow_counts_load(w.counts, miss)) != 0)
					break;
			cow_counts_close(w.counts);
		}
		assert_int_equal(result, COW_ERR_DAMAGED);
		cow_dev_close(w.dev);
		w.dev = good;
	}
	open_counts(&w);
	world_free(&w);
}

/* A count that goes below 0 is damage, not a crash; nothing becomes durable. */
static void test_negative(void **state)
{
	struct cow_counts_root root;
	struct world w;

	(void)state;
	world_new(&w, 4096, 16);
	cow_counts_add(w.counts, 100, 1, -1);
	assert_int_equal(get(&w, 100), 0);
	cow_counts_seal(w.counts);
	assert_int_equal(cow_counts_write(w.counts, &root), COW_ERR_DAMAGED);
	world_free(&w);
}

/* Each I/O of a commit fails once: an error, and the durable generation is as it was. */
static void test_write_faults(void **state)
{
	struct cow_counts_root root;
	int result = -EIO;
	struct world w;

	(void)state;
	world_new(&w, 40 * 1024, 17);
	for (unsigned i = 0; i < 60; i++)
		assert_int_equal(try_alloc(&w, i % 2, 64), 0);
	seal(&w);
	finish(&w);
	for (uint64_t nth = 1; result != 0; nth++) {
		change_some(&w);
		for (unsigned i = 0; i < 60; i++)
			assert_int_equal(try_alloc(&w, i % 2, 64), 0);
		seal(&w);
		cow_sim_fail(w.dev, nth % 2 != 0 ? COW_SIM_WRITE : COW_SIM_READ, nth / 2 + 1, 0, -EIO);
		result = cow_counts_write(w.counts, &root);
		cow_sim_fail(w.dev, COW_SIM_WRITE, 0, 0, 0);
		cow_sim_fail(w.dev, COW_SIM_READ, 0, 0, 0);
		if (nth % 2 == 0 && result == 0)
			result = -EIO; /* all was in memory */
		crash(&w, any(&w, COW_SIM_POLICIES));
	}
	check_counts(&w);
	world_free(&w);
}

/* ------------------------------------------------------------------ threads */

struct shared {
	struct world *w;
	uint64_t seed;
	uint64_t allocated;
};

/* Allocates, looks up and frees while another thread commits. */
static void *allocator(void *context)
{
	struct shared *s = context;
	uint64_t random = s->seed;

	for (unsigned i = 0; i < 3000; i++) {
		uint64_t start, miss = 0;
		uint32_t length, count;
		int result;

		random = random * 6364136223846793005ULL + 1442695040888963407ULL;
		while ((pthread_mutex_lock(&s->w->lock),
			result = cow_counts_alloc(s->w->counts, random >> 60 & 1, 1 + (random >> 40) % 16, &start,
						  &length, &miss)) == COW_MISS) {
			pthread_mutex_unlock(&s->w->lock);
			if (cow_counts_load(s->w->counts, miss) != 0)
				abort();
		}
		if (result == 0 && (random >> 50 & 1) != 0)
			cow_counts_add(s->w->counts, start, length, -1);
		else if (result == 0)
			s->allocated += length;
		result = cow_counts_get(s->w->counts, random >> 33 & 0x7fff, &count, &miss);
		pthread_mutex_unlock(&s->w->lock);
		if (result == COW_MISS && cow_counts_load(s->w->counts, miss) != 0)
			abort();
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct shared shared[3];
	pthread_t threads[3];
	struct world w;
	uint64_t free_blocks;

	(void)state;
	world_new(&w, 140 * 1024, 18);
	free_blocks = w.model.total - cow_counts_system(w.counts);
	for (unsigned i = 0; i < 3; i++) {
		shared[i] = (struct shared){&w, i + 1, 0};
		pthread_create(&threads[i], NULL, allocator, &shared[i]);
	}
	for (unsigned i = 0; i < 40; i++) {
		struct cow_counts_root root;

		pthread_mutex_lock(&w.lock);
		cow_counts_seal(w.counts);
		pthread_mutex_unlock(&w.lock);
		assert_int_equal(cow_counts_write(w.counts, &root), 0);
		pthread_mutex_lock(&w.lock);
		cow_counts_durable(w.counts);
		pthread_mutex_unlock(&w.lock);
		w.root = root;
	}
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(threads[i], NULL);
		free_blocks -= shared[i].allocated;
	}
	for (unsigned i = 0; i < 2; i++) {
		cow_counts_seal(w.counts);
		assert_int_equal(cow_counts_write(w.counts, &w.root), 0);
		cow_counts_durable(w.counts);
	}
	assert_int_equal(cow_counts_available(w.counts), free_blocks);
	assert_int_equal(w.root.free_blocks, free_blocks);
	world_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fill),         cmocka_unit_test(test_rule),
		cmocka_unit_test(test_trim),         cmocka_unit_test(test_stale_slots),
		cmocka_unit_test(test_streams),      cmocka_unit_test(test_host_full),
		cmocka_unit_test(test_recycle),
		cmocka_unit_test(test_trim_beside_alloc),
		cmocka_unit_test(test_trim_beside_ensure),
		 cmocka_unit_test(test_ensure_fails),
		cmocka_unit_test(test_damage),       cmocka_unit_test(test_negative),
		cmocka_unit_test(test_write_faults), cmocka_unit_test(test_threads),
		cmocka_unit_test(test_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
