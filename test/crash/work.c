/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The workload: random operations with many commits, each generation written down with the states it may hold. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "test/crash/crash.h"

void crash_options(uint64_t seed, struct cow_open_options *options)
{
	memset(options, 0, sizeof(*options));
	options->no_threads = true;
	options->cache_bytes = seed % 2 != 0 ? 4096 : 4 << 20;
	options->dirty_bytes = seed % 3 != 0 ? 64 << 10 : 4 << 20;
}

void crash_mood(struct rng *rng, struct mood *mood)
{
	mood_draw(rng, mood);
	for (unsigned k = OP_READ; k < OP_COUNT; k++)
		mood->weight[k] = 0;
	mood->weight[OP_SYNC] = 8;
	mood->weight[OP_DRAIN] = 2;
	mood->weight[OP_FORGET] = 1;
	mood->total = 0;
	for (unsigned k = 0; k < OP_COUNT; k++)
		mood->total += mood->weight[k];
	if (mood->file_bytes > 60000)
		mood->file_bytes = 60000;
}

/* The drive's history is the set of states that its durable generation may hold. */
void record_commit(struct record *r, struct drive *d, uint64_t before, uint64_t asked)
{
	for (uint64_t g = before + 1; g <= d->generation; g++) {
		struct commit *c;

		if (r->count == r->room) {
			r->room = r->room * 2 + 16;
			r->commits = cow_mem_resize(r->commits, r->room * sizeof(*r->commits));
		}
		c = &r->commits[r->count++];
		memset(c, 0, sizeof(*c));
		c->generation = g;
		c->asked = UINT64_MAX;
		/* a commit in the midst of an operation may hold the state before it too */
		for (unsigned i = d->history_count > 2 ? d->history_count - 2 : 0; i < d->history_count; i++)
			c->state[c->states++] = ora_node_hold(d->history[i]);
	}
	if (asked != UINT64_MAX && r->count > 0 && r->commits[r->count - 1].asked == UINT64_MAX)
		r->commits[r->count - 1].asked = asked;
}

void record_free(struct record *r)
{
	for (unsigned i = 0; i < r->count; i++)
		for (unsigned k = 0; k < r->commits[i].states; k++)
			ora_node_put(r->commits[i].state[k]);
	free(r->commits);
	memset(r, 0, sizeof(*r));
}

bool crash_work(struct drive *d, struct rng *rng, const struct mood *mood, unsigned count, struct cow_dev *sim,
		struct record *record)
{
	for (unsigned i = 0; i <= count; i++) {
		uint64_t before = d->generation;
		struct op op = {.kind = OP_SYNC};

		if (i < count)
			op_generate(rng, mood, &d->ora, &op);
		if (!drive_step(d, &op))
			return false;
		record_commit(record, d, before, op.kind == OP_SYNC ? cow_sim_events(sim) : UINT64_MAX);
	}
	return true;
}
