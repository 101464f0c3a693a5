/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The workload: random operations with many syncs and fsyncs, or those of a script; some run while a sync writes. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "test/crash/crash.h"

#define SIZE_BYTES (24ull << 20)
#define SMALL_BYTES (16ull << 20)
#define PIECE 300u /* blocks */
#define PATIENCE_MS 10 /* how long a write waits for the operations beside it: they may be waiting for it */

/* ------------------------------------------------------------------ scenes */

bool scene_fail(struct scene *s, const char *name, const char *bug)
{
	snprintf(s->report->name, sizeof(s->report->name), "%s", name);
	snprintf(s->report->bug, sizeof(s->report->bug), "%s", bug[0] != 0 ? bug : "OPEN");
	return false;
}

static void set_mood(struct scene *s)
{
	struct rng rng = {s->seed};
	struct mood *mood = &s->mood;

	mood_draw(&rng, mood);
	for (unsigned k = OP_READ; k < OP_COUNT; k++)
		mood->weight[k] = 0;
	mood->weight[OP_RECLAIM] = mood->crowded ? 20 : 0;
	mood->weight[OP_SYNC] = rng_chance(&rng, 30) ? 2 : 8;
	mood->weight[OP_FSYNC] = rng_chance(&rng, 70) ? 12 : 0;
	mood->weight[OP_FSYNC_AT] = mood->weight[OP_FSYNC] / 3;
	mood->weight[OP_DRAIN] = 2;
	mood->weight[OP_FORGET] = 1;
	if (s->small || s->host_blocks != UINT64_MAX) {
		mood->weight[OP_REMOVE] += 6;
		mood->weight[OP_WRITE] += 15;
		mood->weight[OP_CLONE] += 4;
	}
	mood->total = 0;
	for (unsigned k = 0; k < OP_COUNT; k++)
		mood->total += mood->weight[k];
	if (mood->file_bytes > 60000)
		mood->file_bytes = 60000;
}

void scene_set_up(struct scene *s, const struct settings *settings, uint64_t seed, struct report *report)
{
	memset(s, 0, sizeof(*s));
	s->seed = seed;
	s->settings = settings;
	s->report = report;
	s->script = settings->script;
	s->host_blocks = UINT64_MAX;
	s->options.no_threads = true;
	s->options.cache_bytes = seed % 2 != 0 ? 4096 : 4 << 20;
	s->options.dirty_bytes = seed % 3 != 0 ? 64 << 10 : 4 << 20;
	if (s->script == NULL) {
		s->small = seed % 8 == 5;
		s->host_blocks = seed % 8 == 6 ? 0 : UINT64_MAX; /* see scene_disk() */
	}
	set_mood(s);
	if (s->script == NULL && s->mood.crowded)
		s->options.cache_bytes = 4096;
}

static uint64_t clock_of(void *sim)
{
	return cow_sim_events(sim);
}

int scene_open(const struct scene *s, struct drive *d, struct cow_dev *sim)
{
	int r;

	cow_sim_host(sim, s->host_blocks);
	r = drive_start(d, simdisk_attach, sim, &s->options);
	d->small = s->small || s->host_blocks != UINT64_MAX;
	if (s->script == NULL && s->mood.crowded)
		drive_limit_counts(d);
	d->clock = clock_of;
	d->keep_past = true;
	d->in_child = true; /* what a look changes does no harm here, and forks would take long */
	return r;
}

static bool say(struct drive *d, const char *format, unsigned number, unsigned blocks)
{
	char line[100];
	struct op op;

	snprintf(line, sizeof(line), format, number, blocks * COW_BLOCK_BYTES);
	if (!op_parse(line, &op))
		abort();
	return drive_step(d, &op);
}

/*
 * Writes until there is nothing left, and gives some of it back. A read-only clone has most of it too, so that it does
 * not come back soon.
 */
static bool fill(struct scene *s, struct drive *d)
{
	static const unsigned pieces[] = {PIECE, 80, 20, 4}; /* blocks */
	struct rng rng = {s->seed};
	unsigned number = 0;
	bool ok = say(d, "mkdir / z 493", 0, 0);

	for (unsigned i = 0; ok && i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		uint64_t before = d->no_space;

		while (ok && d->no_space == before)
			ok = say(d, "create /z n%u 420", ++number, 0) && say(d, "write /z/n%u 0 %u 1", number,
									     pieces[i]) &&
			     say(d, "sync", 0, 0);
		if (i == 0)
			ok = ok && say(d, "clone /z / y 1", 0, 0);
	}
	for (uint64_t back = rng_below(&rng, 6); ok && back > 0; back--)
		ok = say(d, "remove /z/n%u", --number, 0);
	return ok && say(d, "sync", 0, 0);
}

struct cow_dev *scene_disk(struct scene *s)
{
	struct cow_dev *sim = simdisk_format(s->small ? SMALL_BYTES : SIZE_BYTES);

	if (s->host_blocks != UINT64_MAX)
		s->host_blocks = cow_sim_host_used(sim) + 600 + s->seed / 8 % 2 * 1024;
	return sim;
}

/* ------------------------------------------------------------------ beside a sync */

struct beside {
	struct scene *scene;
	struct drive *drive;
	struct rng rng;
	const struct op *ops; /* those of a script, or NULL */
	unsigned count, countdown;
	pthread_t thread;
	bool running, ok;
	atomic_bool done;
};

static void *work_beside(void *beside)
{
	struct beside *b = beside;
	struct drive *d = b->drive;
	struct mood mood = b->scene->mood;

	mood.weight[OP_FSYNC] = mood.total / 4 + 1;
	mood.weight[OP_SYNC] = mood.weight[OP_DRAIN] = mood.weight[OP_FSYNC_AT] = 0;
	mood.weight[OP_MANY] = mood.weight[OP_CLEAR] = 0; /* too much for the time that it has */
	mood.total = 0;
	for (unsigned k = 0; k < OP_COUNT; k++)
		mood.total += mood.weight[k];
	for (unsigned i = 0; b->ok && i < b->count; i++) {
		struct op op;

		if (b->ops != NULL)
			op = b->ops[i];
		else
			op_generate(&b->rng, &mood, &d->ora, &op);
		b->ok = drive_step(d, &op);
	}
	atomic_store(&b->done, true);
	return NULL;
}

/* A thread of its own, since an fsync may wait for the very commit that called. */
static void on_write(void *beside, enum cow_sim_call call, uint64_t block, uint64_t blocks)
{
	struct beside *b = beside;
	struct timespec tick = {0, 100000};

	(void)block, (void)blocks;
	if ((call != COW_SIM_WRITE && call != COW_SIM_FLUSH) || b->running || b->countdown == 0 || --b->countdown > 0)
		return;
	b->running = true;
	b->drive->beside = true;
	if (pthread_create(&b->thread, NULL, work_beside, b) != 0)
		abort();
	for (unsigned i = 0; i < PATIENCE_MS * 10 && !atomic_load(&b->done); i++)
		nanosleep(&tick, NULL);
}

static void on_synced(void *beside)
{
	struct beside *b = beside;

	b->countdown = 0;
	if (b->running)
		pthread_join(b->thread, NULL);
	b->drive->beside = false;
}

/* A sync, and these operations, or `count` random ones, while it writes. */
static bool sync_with(struct scene *s, struct drive *d, struct rng *rng, const struct op *ops, unsigned count,
		      unsigned countdown)
{
	struct beside b = {.scene = s, .drive = d, .rng = {rng_next(rng)}, .ops = ops, .count = count,
			   .countdown = countdown, .ok = true};
	struct op op = {.kind = OP_SYNC};
	bool ok;

	cow_sim_hook(d->disk, on_write, &b);
	d->synced = on_synced;
	d->synced_context = &b;
	ok = drive_step(d, &op);
	d->synced = NULL;
	cow_sim_hook(d->disk, NULL, NULL);
	return ok && b.ok;
}

/* ------------------------------------------------------------------ the work */

static bool do_script(struct scene *s, struct drive *d, struct rng *rng, const char *const *lines)
{
	struct op beside[16], op;
	unsigned count = 0;
	bool ok = true;

	for (; ok && *lines != NULL; lines++) {
		bool plus = **lines == '+';

		if (!op_parse(*lines + plus, &op)) {
			fprintf(stderr, "crash: script: %s\n", *lines);
			exit(2);
		}
		if (plus) {
			beside[count++] = op;
		} else if (op.kind == OP_SYNC && count > 0) {
			ok = sync_with(s, d, rng, beside, count, 1 + (unsigned)(s->seed % 6));
			count = 0;
		} else {
			ok = drive_step(d, &op);
		}
	}
	return ok;
}

static bool do_random(struct scene *s, struct drive *d, struct rng *rng, unsigned count)
{
	bool ok = true;

	for (unsigned i = 0; ok && i <= count; i++) {
		struct op op = {.kind = OP_SYNC};

		if (i < count)
			op_generate(rng, &s->mood, &d->ora, &op);
		if (op.kind == OP_SYNC && i < count && rng_chance(rng, 25))
			ok = sync_with(s, d, rng, NULL, 1 + (unsigned)rng_below(rng, 4), 1 + (unsigned)rng_below(rng,
														 6));
		else
			ok = drive_step(d, &op);
	}
	return ok;
}

bool scene_work(struct scene *s, struct drive *d, struct rng *rng, unsigned count, unsigned mount)
{
	uint64_t generation = d->generation;
	unsigned promises = d->past.promise_count;
	bool ok = true;

	if (d->small && mount == 0) {
		ok = fill(s, d);
		cow_sim_forget(d->disk);
		chronicle_start(&d->past, &d->ora, d->generation);
		generation = d->generation;
		promises = 0;
	}
	if (ok && s->script != NULL)
		ok = s->script->lines[mount] == NULL || do_script(s, d, rng, s->script->lines[mount]);
	else if (ok)
		ok = do_random(s, d, rng, count);
	s->report->operations += d->done;
	s->report->no_space += d->no_space;
	s->report->commits += d->generation - generation;
	for (unsigned i = promises; i < d->past.promise_count; i++)
		s->report->fsyncs += d->past.promises[i].kind == PROMISE_FSYNC;
	return ok;
}
