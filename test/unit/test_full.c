/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random calls on volumes that are full, or whose host is. Whatever came before:
 *
 * - a commit finds room for all that calls have made dirty;
 * - what is larger than all that may be dirty at once can be removed, and then there is room to write;
 * - the volume opens again, after a close and after a power cut;
 * - in the end everything can be removed, the space of it comes back, and the check finds nothing.
 *
 * test_room has the scenes that broke this; here they are looked for. A run is drawn from one number: how large the
 * volume is, whether its host is full, who calls (one, or three at once), whether the volume commits by itself, whether
 * power is cut. FULL_SEED=n repeats the run of that number, FULL_RUNS=n does so many from it on; FULL_SAVE=file
 * keeps the image of one that fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "audit/check.h"
#include "cow.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "test/lib/caller.h"
#include "test/lib/simdisk.h"

#define MIB ((uint64_t)1 << 20)
#define BLOCK COW_BLOCK_BYTES
#define CALLERS 3u
#define ROUNDS 60u
#define FIXED_RUNS 16u
#define FRESH_RUNS 6u
#define GROUP_BLOCKS 1024u /* for which a host is asked at a time */
#define PROBE "probe0"
#define LOG_EVENTS 200000u /* of the simulated disk, before its past is forgotten */
#define OWN_BLOCKS 100u    /* of an empty volume: nodes of its trees, and what it may keep of the space */

struct run {
	uint64_t seed;
	struct rng rng;
	unsigned callers;
	bool threads, on_host, cuts;
	struct cow_dev *disk;
	struct cow_volume *volume;
	struct cow_inode *root;
	struct caller caller[CALLERS];
	unsigned first_weight, weights; /* "weight<n>", files: first_weight <= n < weights */
	unsigned trees;                 /* "tree<n>": n < trees */
	uint64_t weight_blocks;         /* more than may be dirty at once */
	uint8_t *bytes;
};

/* Also for threads, where cmocka's own do not work. */
static void insist(struct run *r, bool good, const char *what, int64_t error)
{
	if (good)
		return;
	fprintf(stderr, "FULL_SEED=%" PRIu64 ": %s: %s (%" PRId64 ")\n", r->seed, what,
		error < 0 ? cow_error_text((int)error) : "", error);
	for (unsigned i = 0; i < r->callers; i++)
		fprintf(stderr, "  last call: %s, up to %u times\n", r->caller[i].call, r->caller[i].times);
	if (getenv("FULL_SAVE") != NULL)
		(void)!cow_sim_save(r->disk, getenv("FULL_SAVE"));
	exit(1);
}

static void done(struct run *r, int error, const char *what)
{
	insist(r, error == 0, what, error);
}

static bool one_in(struct run *r, unsigned n)
{
	return rng_below(&r->rng, n) == 0;
}

static struct cow_inode *make(struct run *r, struct cow_inode *dir, const char *name, mode_t mode)
{
	struct cow_inode *inode;
	int error = cow_create(dir, name, &(struct cow_new){.mode = mode}, &inode, NULL);

	insist(r, error == 0 || error == -ENOSPC, "create", error);
	return error == 0 ? inode : NULL;
}

static bool is_there(struct run *r, const char *stem, unsigned number)
{
	struct cow_inode *inode;
	struct cow_attr attr;
	char name[48];

	if (cow_lookup(r->root, caller_name(name, stem, number), &inode, &attr) != 0)
		return false;
	cow_forget(inode, 1);
	return true;
}

static void sync_all(struct run *r, const char *when)
{
	done(r, cow_sync(r->volume), when);
	done(r, r->volume->store->failed, "the volume has failed");
}

/* ---- what fills */

/* True: all of it. */
static bool make_weight(struct run *r)
{
	struct cow_inode *file;
	uint64_t size = 0;
	int64_t n = 0;
	char name[48];

	if ((file = make(r, r->root, caller_name(name, "weight", r->weights), S_IFREG | 0644)) == NULL)
		return false;
	r->weights++;
	for (size_t length = 64 * BLOCK; length >= BLOCK; length /= 2) {
		while (size < r->weight_blocks * BLOCK && (n = cow_write(file, r->bytes, length, size, false)) > 0)
			size += (uint64_t)n;
		insist(r, n >= 0 || n == -ENOSPC, "write", n);
	}
	cow_forget(file, 1);
	return size >= r->weight_blocks * BLOCK;
}

/* Small files; true: so many. */
static bool make_tree(struct run *r, unsigned files)
{
	struct cow_inode *dir, *file;
	unsigned made = 0;
	char name[48];

	if ((dir = make(r, r->root, caller_name(name, "tree", r->trees), S_IFDIR | 0755)) == NULL)
		return false;
	r->trees++;
	while (made < files && (file = make(r, dir, caller_name(name, "file-with-a-name-", made), S_IFREG | 0644))) {
		if (made++ % 8 == 0)
			(void)!cow_write(file, r->bytes, 300, 0, false);
		cow_forget(file, 1);
	}
	cow_forget(dir, 1);
	return made == files;
}

static void fill(struct run *r)
{
	if (r->on_host)
		cow_sim_host(r->disk, cow_sim_host_used(r->disk) + rng_below(&r->rng, 300));
	else if (one_in(r, 3))
		while (make_tree(r, 3000))
			;
	else
		while (make_weight(r))
			;
}

/* ---- what must always be possible */

static void remove_weight(struct run *r)
{
	struct cow_inode *file;
	struct cow_attr attr;
	char name[48];

	if (r->first_weight == r->weights) {
		make_weight(r);
		return;
	}
	caller_name(name, "weight", r->first_weight);
	done(r, cow_lookup(r->root, name, &file, &attr), "look up a weight");
	done(r, cow_getattr(file, &attr), "stat of a weight");
	cow_forget(file, 1);
	done(r, cow_unlink(r->root, name), "remove a weight");
	r->first_weight++;
	done(r, cow_drain(r->volume), "drain");
	if (attr.blocks / (BLOCK / 512) < r->weight_blocks)
		return;
	file = make(r, r->root, PROBE, S_IFREG | 0644);
	insist(r, file != NULL, "create after a weight was removed", -ENOSPC);
	insist(r, cow_write(file, r->bytes, 3 * BLOCK, 0, false) > 0, "write after a weight was removed", -ENOSPC);
	cow_forget(file, 1);
	done(r, cow_unlink(r->root, PROBE), "remove the probe");
}

static void remove_trees(struct run *r, unsigned left)
{
	char name[48];

	while (r->trees > left) {
		r->trees--;
		done(r, cow_remove_tree(r->root, caller_name(name, "tree", r->trees)), "remove a tree");
	}
}

static void remove_all(struct run *r)
{
	struct cow_info info;
	char name[48];

	while (r->first_weight < r->weights) {
		done(r, cow_unlink(r->root, caller_name(name, "weight", r->first_weight)), "remove all weights");
		r->first_weight++;
	}
	remove_trees(r, 0);
	for (unsigned i = 0; i < CALLER_PLACES; i++)
		done(r, cow_remove_tree(r->root, caller_name(name, "place", i)), "remove a place");
	done(r, cow_drain(r->volume), "last drain");
	done(r, cow_info(r->volume, &info), "info");
	insist(r, info.free_blocks + info.reserved_blocks + info.system_blocks + OWN_BLOCKS >= info.total_blocks,
	       "blocks that did not come back", (int64_t)(info.total_blocks - info.free_blocks));
}

/* ---- opening and closing */

static void open_volume(struct run *r)
{
	struct cow_open_options options = {.no_threads = !r->threads, .commit_seconds = 1, .dirty_bytes = 8 * MIB};

	done(r, cow_volume_open(simdisk_attach(r->disk), &options, &r->volume), "open");
	insist(r, !r->volume->store->read_only, "opened read-only", 0);
	done(r, cow_root(r->volume, &r->root), "root");
	r->weight_blocks = 4 * r->volume->node_limit;
	if (r->on_host && r->weight_blocks < 2 * GROUP_BLOCKS) /* it may take back at once what is removed */
		r->weight_blocks = 2 * GROUP_BLOCKS;
	for (unsigned i = 0; i < r->callers; i++)
		r->caller[i].root = r->root;
}

static void close_volume(struct run *r)
{
	for (unsigned i = 0; i < r->callers; i++)
		caller_let_go(&r->caller[i]);
	cow_forget(r->root, 1);
	done(r, cow_close(r->volume), "close");
}

static void burst(struct run *r, struct caller *caller)
{
	bool fair = caller_burst(caller);

	insist(r, fair, caller->call, caller->answer);
}

/* What fills may be there again after a cut, or not yet. */
static void find_fillings(struct run *r)
{
	unsigned end = r->weights;

	r->first_weight = 0;
	while (r->first_weight < end && !is_there(r, "weight", r->first_weight))
		r->first_weight++;
	for (r->weights = r->first_weight; is_there(r, "weight", r->weights);)
		r->weights++;
	for (r->trees = 0; is_there(r, "tree", r->trees);)
		r->trees++;
	if (is_there(r, "probe", 0))
		done(r, cow_unlink(r->root, PROBE), "remove the probe");
}

/* Some work, of which part was synced, and the power fails in it. */
static void cut_power(struct run *r)
{
	uint64_t events, back;
	struct cow_dev *disk;

	for (unsigned i = 0; i < 20; i++)
		burst(r, &r->caller[0]);
	events = cow_sim_events(r->disk);
	back = one_in(r, 2) ? 0 : rng_below(&r->rng, events < 3000 ? events + 1 : 3000);
	disk = cow_sim_cut(r->disk, events - back, (enum cow_sim_policy)rng_below(&r->rng, COW_SIM_POLICIES),
			   rng_next(&r->rng));
	for (unsigned i = 0; i < r->callers; i++)
		r->caller[i].held_count = 0;
	cow_volume_abandon(r->volume);
	cow_dev_close(r->disk);
	r->disk = disk;
	open_volume(r);
	find_fillings(r);
}

static void open_again(struct run *r)
{
	if (r->cuts && one_in(r, 2)) {
		cut_power(r);
	} else {
		close_volume(r);
		open_volume(r);
	}
	sync_all(r, "sync after open");
	remove_weight(r);
}

static void change_host(struct run *r)
{
	if (one_in(r, 2))
		cow_sim_host(r->disk, cow_sim_host_used(r->disk) + rng_below(&r->rng, 400));
	else
		cow_sim_host(r->disk, UINT64_MAX);
}

/* ---- */

struct turn {
	struct run *run;
	struct caller *caller;
};

static void *take_turn(void *context)
{
	struct turn *turn = context;

	for (uint64_t i = rng_below(&turn->caller->rng, 6) + 1; i > 0; i--) {
		burst(turn->run, turn->caller);
		if (rng_chance(&turn->caller->rng, 33))
			sync_all(turn->run, "sync beside others");
	}
	return NULL;
}

static void take_turns(struct run *r)
{
	struct turn turn[CALLERS];
	pthread_t thread[CALLERS];

	for (unsigned i = 1; i < r->callers; i++) {
		turn[i] = (struct turn){r, &r->caller[i]};
		insist(r, pthread_create(&thread[i], NULL, take_turn, &turn[i]) == 0, "thread", 0);
	}
	turn[0] = (struct turn){r, &r->caller[0]};
	take_turn(&turn[0]);
	for (unsigned i = 1; i < r->callers; i++)
		pthread_join(thread[i], NULL);
}

static void round_of(struct run *r)
{
	take_turns(r);
	if (one_in(r, 4))
		remove_weight(r);
	if (one_in(r, 2)) {
		if (one_in(r, 3))
			make_tree(r, 1000);
		else
			for (unsigned i = 0; i < 4 && make_weight(r); i++)
				;
	}
	if (r->trees > 0 && one_in(r, 10))
		remove_trees(r, r->trees - 1);
	if (r->on_host && one_in(r, 10))
		change_host(r);
	if (one_in(r, 15))
		open_again(r);
	if (cow_sim_events(r->disk) > LOG_EVENTS) {
		sync_all(r, "sync");
		cow_sim_forget(r->disk);
	}
}

static void begin(struct run *r, uint64_t seed)
{
	static const unsigned names[] = {40, 300, 2000};
	char name[48];

	*r = (struct run){.seed = seed, .rng = {seed}, .bytes = calloc(64, BLOCK)};
	r->threads = one_in(r, 3);
	r->callers = one_in(r, 4) ? CALLERS : 1;
	r->on_host = one_in(r, 3);
	r->cuts = one_in(r, 2);
	r->disk = simdisk_format((r->on_host ? 64 : one_in(r, 2) ? 16 : 32) * MIB);
	for (unsigned i = 0; i < r->callers; i++)
		caller_start(&r->caller[i], rng_next(&r->rng), names[rng_below(&r->rng, 3)]);
	open_volume(r);
	for (unsigned i = 0; i < CALLER_PLACES; i++)
		cow_forget(make(r, r->root, caller_name(name, "place", i), S_IFDIR | 0755), 1);
	sync_all(r, "first sync");
	for (unsigned i = 0; i < 3; i++)
		make_weight(r);
	if (one_in(r, 2))
		make_tree(r, 500);
	caller_settle(&r->caller[0]);
}

static void end(struct run *r)
{
	struct cow_check_result result;

	cow_sim_host(r->disk, UINT64_MAX);
	for (unsigned i = 0; i < r->callers; i++)
		caller_let_go(&r->caller[i]);
	sync_all(r, "last sync");
	remove_all(r);
	close_volume(r);
	done(r, cow_check_device(r->disk, NULL, &result), "check");
	insist(r, result.findings == 0, "findings", (int64_t)result.findings);
	for (unsigned i = 0; i < r->callers; i++)
		caller_stop(&r->caller[i]);
	cow_dev_close(r->disk);
	free(r->bytes);
}

static void do_runs(uint64_t seed, uint64_t runs)
{
	struct run *r = malloc(sizeof(*r));

	assert_non_null(r);
	for (; runs > 0; runs--, seed++) {
		begin(r, seed);
		fill(r);
		for (unsigned i = 0; i < ROUNDS; i++)
			round_of(r);
		end(r);
	}
	free(r);
}

static uint64_t asked(const char *variable, uint64_t otherwise)
{
	const char *text = getenv(variable);

	return text != NULL ? strtoull(text, NULL, 0) : otherwise;
}

static void test_fixed(void **state)
{
	(void)state;
	do_runs(1, FIXED_RUNS);
}

static void test_fresh(void **state)
{
	struct timespec now;
	uint64_t seed;

	(void)state;
	clock_gettime(CLOCK_REALTIME, &now);
	seed = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	print_message("# fresh runs from FULL_SEED=%" PRIu64 " on\n", seed);
	do_runs(seed, FRESH_RUNS);
}

static void test_asked(void **state)
{
	(void)state;
	do_runs(asked("FULL_SEED", 1), asked("FULL_RUNS", 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_fixed), cmocka_unit_test(test_fresh)};
	const struct CMUnitTest one[] = {cmocka_unit_test(test_asked)};

	if (getenv("FULL_SEED") != NULL || getenv("FULL_RUNS") != NULL)
		return cmocka_run_group_tests(one, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
