/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The map of a file against an array of block numbers: three files, of which one can become a clone of another, with
 * hardly anything in memory, so that each call misses; reads that fail in the midst of a cut; commits and power cuts.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fs/change.h"
#include "fs/core/fold.h"
#include "fs/data/extents.h"
#include "fs/data/file.h"
#include "test/lib/cases.h"
#include "test/lib/scene.h"
#include "test/lib/trial.h"

#define FILES 3u
#define BLOCKS 3000u /* of each file; all of them mapped, one by one, are a tree of two levels */

struct map {
	uint64_t block[BLOCKS]; /* of the device; 0: a hole */
	bool unwritten[BLOCKS];
};

struct world {
	struct scene scene;
	struct cow_inode *files[FILES];
	struct map now[FILES], durable[FILES];
	uint8_t *used; /* of each block of the device: it was in some map */
	unsigned misses;
};

static const char *const names[FILES] = {"a", "b", "c"};

/* What stands for the checksums of the data, which nobody reads. */
static uint32_t sum_of(uint64_t block)
{
	return (uint32_t)(block * 2654435761u);
}

static uint64_t any(struct world *w, uint64_t below)
{
	return rng_below(&w->scene.rng, below);
}

/* ------------------------------------------------------------------ one call within an operation */

struct call {
	struct world *w;
	struct cow_inode *file;
	int (*body)(struct call *call);
	uint64_t from, end, blocks;
	uint64_t block; /* insert: the run */
	uint32_t length;
	bool unwritten;
	uint64_t nodes; /* dirty ones when the file had been reserved */
	struct cow_extent extent;
	uint32_t sums[COW_EXTENT_BLOCKS_MAX];
};

static int run_body(struct cow_op *op, void *args)
{
	struct call *call = args;
	int error = 0;

	if (op->changes) {
		error = cow_inode_reserve(call->file);
		if (error == 0)
			call->nodes = call->w->scene.volume->store->dirty_nodes;
	}
	if (error == 0)
		error = call->body(call);
	call->w->misses += error == COW_MISS;
	return error;
}

static int change(struct call *call)
{
	return cow_op_change(call->w->scene.volume, 0, false, run_body, call);
}

static int look(struct call *call)
{
	return cow_op_read(call->w->scene.volume, run_body, call);
}

static int do_find(struct call *call)
{
	int error = cow_extents_find(call->file, call->from, &call->extent);

	if (error == 0 && call->extent.kind == COW_EXTENT_PLAIN)
		memcpy(call->sums, call->extent.sums, sizeof(*call->sums) * call->extent.blocks);
	return error;
}

static int do_count(struct call *call)
{
	return cow_extents_count(call->file, call->from, &call->blocks);
}

static int do_cut(struct call *call)
{
	cow_file_changed(call->file);
	return cow_extents_cut(call->file, call->from, call->end);
}

static int do_truncate(struct call *call)
{
	int error = cow_reclaim_reserve(call->w->scene.volume->store);

	cow_file_changed(call->file);
	return error != 0 ? error : cow_extents_truncate(call->file, call->from);
}

/* Maps a run where something else may be mapped, as a write does it: a new one, or one that another file has too. */
static int do_insert(struct call *call)
{
	struct cow_store *store = call->w->scene.volume->store;
	int error = cow_extents_cut(call->file, call->from, call->from + call->length);
	uint32_t length = call->length;

	if (error == 0)
		error = cow_extents_reserve(call->file, call->from);
	if (error == 0 && call->block == 0) {
		error = cow_counts_alloc(store->counts, COW_ALLOC_DATA, length, &call->block, &length,
					 &store->miss.counts);
		if (error == COW_MISS)
			store->miss.what = COW_MISS_COUNTS;
		else
			call->length = length;
	} else if (error == 0) {
		cow_counts_add(store->counts, call->block, call->length, +1);
	}
	if (error != 0)
		return error;
	for (uint32_t i = 0; i < call->length; i++)
		call->sums[i] = sum_of(call->block + i);
	call->extent = (struct cow_extent){
		.at = call->from, .kind = call->unwritten ? COW_EXTENT_UNWRITTEN : COW_EXTENT_PLAIN,
		.blocks = (uint16_t)call->length, .block = call->block, .sums = (const uint8_t *)call->sums,
	};
	cow_extents_insert(call->file, &call->extent);
	return 0;
}

/* ------------------------------------------------------------------ against the array */

static void compare_extent(const struct map *map, const struct call *call)
{
	const struct cow_extent *e = &call->extent;

	assert_true(e->blocks > 0 && e->at + e->blocks <= BLOCKS);
	for (uint64_t i = 0; i < e->blocks; i++) {
		if (map->block[e->at + i] != e->block + i)
			fail_msg("file block %" PRIu64 " is mapped to %" PRIu64 " instead of %" PRIu64, e->at + i,
				 e->block + i, map->block[e->at + i]);
		assert_int_equal(map->unwritten[e->at + i], e->kind == COW_EXTENT_UNWRITTEN);
		if (e->kind == COW_EXTENT_PLAIN)
			assert_int_equal(call->sums[i], sum_of(e->block + i));
	}
}

/* The extent at the block, or the next one, and nothing mapped before it. */
static uint64_t check_find(struct world *w, unsigned f, uint64_t at)
{
	struct call call = {.w = w, .file = w->files[f], .body = do_find, .from = at};
	int error = look(&call);
	uint64_t next = at;

	while (next < BLOCKS && w->now[f].block[next] == 0)
		next++;
	assert_int_equal(error, next < BLOCKS ? 0 : -ENOENT);
	if (error != 0)
		return BLOCKS;
	assert_true(call.extent.at <= next && next < call.extent.at + call.extent.blocks);
	compare_extent(&w->now[f], &call);
	return call.extent.at + call.extent.blocks;
}

static uint64_t mapped_below(const struct map *map, uint64_t end)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < end && i < BLOCKS; i++)
		n += map->block[i] != 0;
	return n;
}

static void check_count(struct world *w, unsigned f, uint64_t keep)
{
	struct call call = {.w = w, .file = w->files[f], .body = do_count, .from = keep};

	assert_int_equal(look(&call), 0);
	assert_int_equal(call.blocks, mapped_below(&w->now[f], keep));
}

/* Each form holds as much as it may, and the last extent takes the form with it. */
static void check_form(struct world *w, unsigned f)
{
	const struct cow_inode *file = w->files[f];
	uint64_t mapped = mapped_below(&w->now[f], BLOCKS);

	assert_int_equal(file->blocks, mapped);
	if (file->body == COW_BODY_EXTENTS)
		assert_in_range(file->data_length, 1, COW_EXTENTS_MAX);
	else if (file->body == COW_BODY_TREE)
		assert_false(cow_ptr_is_null(file->tree.root));
	assert_int_equal(file->body == COW_BODY_NONE, mapped == 0);
}

static bool is_mapped(const struct world *w, uint64_t block)
{
	for (unsigned f = 0; f < FILES; f++)
		for (unsigned i = 0; i < BLOCKS; i++)
			if (w->now[f].block[i] == block)
				return true;
	return false;
}

/* A block has a count if some file has it. How many a count must be depends on which leaves files share: scene_end()
 * finds that out by a walk. */
static void check_counts(struct world *w)
{
	struct cow_store *store = w->scene.volume->store;

	assert_int_equal(cow_drain(w->scene.volume), 0);
	memcpy(w->durable, w->now, sizeof(w->now));
	for (uint64_t block = 0; block < store->total_blocks; block++) {
		uint32_t count;
		uint64_t miss;
		int error;

		if (!w->used[block])
			continue;
		pthread_mutex_lock(&store->lock);
		error = cow_counts_get(store->counts, block, &count, &miss);
		pthread_mutex_unlock(&store->lock);
		if (error == COW_MISS) {
			assert_int_equal(cow_counts_load(store->counts, miss), 0);
			block--;
			continue;
		}
		if (is_mapped(w, block) && count == 0)
			fail_msg("block %" PRIu64 " is mapped, and free", block);
		/* It may be a node now. */
		w->used[block] = count != 0 && is_mapped(w, block);
	}
}

static void compare_all(struct world *w)
{
	for (unsigned f = 0; f < FILES; f++) {
		for (uint64_t at = 0; at < BLOCKS;)
			at = check_find(w, f, at);
		check_form(w, f);
		check_count(w, f, any(w, BLOCKS + 10));
	}
}

/* ------------------------------------------------------------------ set-up */

static void open_files(struct world *w)
{
	struct cow_attr attr = {.size = (uint64_t)BLOCKS * COW_BLOCK_BYTES};

	for (unsigned f = 0; f < FILES; f++) {
		if (cow_lookup(w->scene.root, names[f], &w->files[f], NULL) == 0)
			continue;
		w->files[f] = scene_make(w->scene.root, names[f], S_IFREG | 0644);
		assert_int_equal(cow_setattr(w->files[f], &attr, COW_SET_SIZE, NULL), 0);
	}
}

static void begin(struct world *w, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	w->scene = scene_begin_with(64 * MIB, (struct cow_open_options){.cache_bytes = 1});
	w->scene.rng.state = seed;
	w->used = calloc(w->scene.volume->store->total_blocks, 1);
	open_files(w);
	assert_int_equal(cow_sync(w->scene.volume), 0);
}

static void forget_files(struct world *w)
{
	for (unsigned f = 0; f < FILES; f++)
		cow_forget(w->files[f], 1);
}

static void end(struct world *w)
{
	compare_all(w);
	check_counts(w);
	forget_files(w);
	scene_end(&w->scene);
	free(w->used);
}

/* ------------------------------------------------------------------ changes */

static void map_forget(struct map *map, uint64_t from, uint64_t end)
{
	for (uint64_t i = from; i < end && i < BLOCKS; i++)
		map->block[i] = 0;
}

static void insert(struct world *w, unsigned f, uint64_t at, uint32_t length, uint64_t block, bool unwritten)
{
	struct call call = {
		.w = w, .file = w->files[f], .body = do_insert, .from = at, .length = length, .block = block,
		.unwritten = unwritten,
	};
	uint64_t due = cow_extents_due(w->files[f], length, 1);
	bool was_tree = w->files[f]->body == COW_BODY_TREE;

	assert_int_equal(change(&call), 0);
	/* What would be needed was said before. A list that becomes a tree is no node yet. */
	assert_true(w->scene.volume->store->dirty_nodes <= call.nodes + due + !was_tree);
	map_forget(&w->now[f], at, at + length);
	for (uint32_t i = 0; i < call.length; i++) {
		w->now[f].block[at + i] = call.block + i;
		w->now[f].unwritten[at + i] = unwritten;
		w->used[call.block + i] = 1;
	}
}

static void insert_any(struct world *w, unsigned f, uint64_t at, uint32_t length)
{
	unsigned other = (unsigned)any(w, FILES);
	uint64_t from = any(w, BLOCKS);
	const struct map *map = &w->now[other];

	if (map->block[from] == 0 || any(w, 3) != 0) {
		insert(w, f, at, length, 0, any(w, 8) == 0);
		return;
	}
	if (other == f && from < at + length && at < from + length) /* it would lose what it takes */
		return;
	for (uint32_t i = 1; i < length; i++)
		if (from + i == BLOCKS || map->block[from + i] != map->block[from] + i ||
		    map->unwritten[from + i] != map->unwritten[from])
			length = i;
	insert(w, f, at, length, map->block[from], map->unwritten[from]);
}

/* A cut that cannot read what it needs may be half done, but for each block it is done or not; again, it ends. */
static void cut(struct world *w, unsigned f, uint64_t from, uint64_t to, bool fail)
{
	struct call call = {.w = w, .file = w->files[f], .body = do_cut, .from = from, .end = to};
	int error;

	if (fail) {
		assert_int_equal(cow_sync(w->scene.volume), 0);
		memcpy(w->durable, w->now, sizeof(w->now));
		scene_empty_cache(&w->scene);
		cow_sim_fail(w->scene.disk, COW_SIM_READ, 1 + any(w, 4), 0, -EIO);
	}
	error = change(&call);
	cow_sim_fail(w->scene.disk, COW_SIM_READ, 0, 0, 0);
	assert_true(error == 0 || (fail && error == -EIO));
	for (uint64_t at = 0; error != 0 && at < BLOCKS; at++) {
		struct call at_block = {.w = w, .file = w->files[f], .body = do_find, .from = at};
		int found = look(&at_block);

		assert_true(found == 0 || found == -ENOENT);
		if (found != 0 || at_block.extent.at > at) {
			assert_true(w->now[f].block[at] == 0 || (at >= from && at < to));
			w->now[f].block[at] = 0;
		} else {
			compare_extent(&w->now[f], &at_block);
		}
	}
	if (error != 0) {
		check_form(w, f);
		assert_int_equal(change(&call), 0);
	}
	map_forget(&w->now[f], from, to);
}

/* All or nothing. */
static void truncate_map(struct world *w, unsigned f, uint64_t keep, bool fail)
{
	struct call call = {.w = w, .file = w->files[f], .body = do_truncate, .from = keep};
	int error;

	if (fail) {
		assert_int_equal(cow_sync(w->scene.volume), 0);
		memcpy(w->durable, w->now, sizeof(w->now));
		scene_empty_cache(&w->scene);
		cow_sim_fail(w->scene.disk, COW_SIM_READ, 1 + any(w, 4), 0, -EIO);
	}
	error = change(&call);
	cow_sim_fail(w->scene.disk, COW_SIM_READ, 0, 0, 0);
	assert_true(error == 0 || (fail && error == -EIO));
	if (error == 0)
		map_forget(&w->now[f], keep, BLOCKS);
	for (uint64_t at = 0; error != 0 && at < BLOCKS;)
		at = check_find(w, f, at);
	check_form(w, f);
}

/* The last file becomes a clone of another one: their maps are one tree, until somebody writes. */
static void clone_file(struct world *w)
{
	unsigned from = (unsigned)any(w, FILES - 1);

	cow_forget(w->files[FILES - 1], 1);
	assert_int_equal(cow_unlink(w->scene.root, names[FILES - 1]), 0);
	w->files[FILES - 1] = scene_clone(w->files[from], w->scene.root, names[FILES - 1]);
	w->now[FILES - 1] = w->now[from];
}

static void sync_all(struct world *w)
{
	assert_int_equal(cow_sync(w->scene.volume), 0);
	memcpy(w->durable, w->now, sizeof(w->now));
}

static void crash(struct world *w)
{
	scene_crash(&w->scene);
	memcpy(w->now, w->durable, sizeof(w->now));
	open_files(w);
}

static void step(struct world *w, unsigned shortest)
{
	unsigned f = (unsigned)any(w, FILES);
	uint64_t at = any(w, BLOCKS), dice = any(w, 1000);
	uint32_t length = 1 + (uint32_t)any(w, any(w, 4) == 0 ? 60 : shortest);

	if (length > BLOCKS - at)
		length = (uint32_t)(BLOCKS - at);
	if (dice < 600)
		insert_any(w, f, at, length);
	else if (dice < 800)
		cut(w, f, at, at + length, dice < 620);
	else if (dice < 830)
		cut(w, f, at, at + any(w, BLOCKS), dice < 810);
	else if (dice < 850)
		truncate_map(w, f, any(w, BLOCKS), dice < 840);
	else if (dice < 853)
		truncate_map(w, f, 0, false);
	else if (dice < 860)
		clone_file(w);
	else if (dice < 880)
		sync_all(w);
	else if (dice < 883)
		crash(w);
	else if (dice < 950)
		check_find(w, f, at);
	else
		check_count(w, f, any(w, BLOCKS + 10));
}

static void test_random(void **state)
{
	struct world *w = malloc(sizeof(*w));

	(void)state;
	for (struct trial t = {0}; trial_next(&t, 12, 6);) {
		uint64_t steps = trial_length(2500);
		unsigned shortest;

		begin(w, t.seed);
		shortest = any(w, 2) == 0 ? 3 : 40;
		for (uint64_t i = 0; i < steps; i++) {
			step(w, shortest);
			if (i % 250 == 0) {
				compare_all(w);
				check_counts(w);
			}
		}
		trial_say("%u misses", w->misses);
		assert_true(w->misses > 0);
		end(w);
	}
	free(w);
}

/* ------------------------------------------------------------------ single cases */

/* From nothing to a list to a tree, and back to nothing. */
static void test_forms(void **state)
{
	struct world *w = malloc(sizeof(*w));
	bool list = false, tree = false;

	(void)state;
	begin(w, 1);
	assert_int_equal(w->files[0]->body, COW_BODY_NONE);
	for (unsigned i = 0; i < 100; i++) {
		insert(w, 0, (uint64_t)i * 2, 1, 0, false);
		list |= w->files[0]->body == COW_BODY_EXTENTS;
		tree |= w->files[0]->body == COW_BODY_TREE;
		assert_true(!tree || w->files[0]->body == COW_BODY_TREE);
		check_form(w, 0);
	}
	assert_true(list && tree);
	compare_all(w);
	for (unsigned i = 0; i < 100; i++) {
		cut(w, 0, (uint64_t)i * 2, (uint64_t)i * 2 + 1, false);
		check_form(w, 0);
	}
	assert_int_equal(w->files[0]->body, COW_BODY_NONE);
	end(w);
	free(w);
}

/* A hole in the middle of one extent leaves two, in a list and in a tree. */
static void test_a_hole_in_an_extent(void **state)
{
	struct world *w = malloc(sizeof(*w));

	(void)state;
	begin(w, 1);
	for (unsigned f = 0; f < 2; f++) {
		for (unsigned i = 0; f == 1 && i < 60; i++)
			insert(w, f, 1000 + (uint64_t)i * 2, 1, 0, false);
		assert_int_equal(w->files[f]->body, f == 1 ? COW_BODY_TREE : COW_BODY_NONE);
		insert(w, f, 10, 20, 0, false);
		cut(w, f, 15, 17, false);
		assert_int_equal(check_find(w, f, 10), 15);
		assert_int_equal(check_find(w, f, 15), 30);
		cut(w, f, 5, 11, false);
		cut(w, f, 29, 35, false);
		assert_int_equal(check_find(w, f, 0), 15);
		assert_int_equal(check_find(w, f, 17), 29);
		truncate_map(w, f, 20, false);
		assert_int_equal(check_find(w, f, 17), 20);
	}
	end(w);
	free(w);
}

/* Of a map without holes the last extent tells how many blocks there are, and a truncate is one way down. */
static void test_truncate_reads_little(void **state)
{
	struct world *w = malloc(sizeof(*w));
	struct cow_sim_stats before, after;

	(void)state;
	begin(w, 1);
	for (unsigned i = 0; i < BLOCKS; i++)
		insert(w, 0, i, 1, 0, false);
	sync_all(w);
	scene_empty_cache(&w->scene);
	cow_sim_stats(w->scene.disk, &before);
	truncate_map(w, 0, 700, false);
	cow_sim_stats(w->scene.disk, &after);
	assert_in_range(after.calls[COW_SIM_READ] - before.calls[COW_SIM_READ], 2, 12);
	end(w);
	free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_a_hole_in_an_extent),
		cmocka_unit_test(test_truncate_reads_little),
		cmocka_unit_test(test_random),
	};

	return cases_run(tests);
}
