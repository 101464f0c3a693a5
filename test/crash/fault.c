/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fault test: the same workload again and again, each time with another read, write or flush that fails. A failed
 * operation must have changed nothing; a failed commit turns the volume read-only with one message; what is opened
 * afterwards is a commit, not older than the last sync that returned.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "test/crash/crash.h"

struct scene {
	struct cow_dev *sim;
	struct ora_node *base; /* what is on it */
	struct cow_open_options options;
	struct mood mood;
	uint64_t seed;
	unsigned ops, call;
	uint64_t nth;
	bool show; /* print the operations: a single case is wanted */
	struct report *report;
};

static unsigned is_read_only(struct drive *d)
{
	struct cow_info info;

	return cow_info(d->volume, &info) == 0 && info.read_only;
}

/* After a failure nothing may be changed any more, and looking around must not do harm. */
static bool look_around(struct drive *d)
{
	struct cow_inode *root;
	struct cow_new how = {.mode = S_IFDIR | 0755};
	int r = cow_root(d->volume, &root);

	if (r < 0)
		return drive_bug(d, "ROOT answered %d on a failed volume", r);
	r = cow_create(root, "never", &how, NULL, NULL);
	cow_forget(root, 1);
	if (cow_error_errno(r) != EROFS)
		return drive_bug(d, "FAILED volume took a change (%d)", r);
	if (d->failures_logged != 1)
		return drive_bug(d, "FAILED volume said so %u times", d->failures_logged);
	return drive_compare(d, d->ora.root);
}

/* Opens again without faults: some commit that may be there. */
static bool look_again(struct drive *d)
{
	struct ora_node *states[DRIVE_HISTORY + 1];
	unsigned count = d->history_count;
	char first[DRIVE_BUG_BYTES] = "";
	int r;

	for (unsigned i = 0; i < count; i++)
		states[i] = ora_node_hold(d->history[i]);
	states[count++] = ora_tree_copy(d->ora.root, true);
	drive_reopen_after_crash(d, &r);
	if (r < 0)
		drive_bug(d, "OPEN after a fault answered %d", r);
	for (unsigned i = count; r == 0 && i-- > 0;) {
		d->bug[0] = 0;
		ora_restore(&d->ora, ora_tree_copy(states[i], true));
		if (drive_compare(d, d->ora.root)) {
			first[0] = 0;
			break;
		}
		if (first[0] == 0)
			memcpy(first, d->bug, sizeof(first));
	}
	if (first[0] != 0)
		memcpy(d->bug, first, sizeof(first));
	for (unsigned i = 0; i < count; i++)
		ora_node_put(states[i]);
	return d->bug[0] == 0;
}

static void show(const struct op *op, struct cow_dev *sim, unsigned call)
{
	struct cow_sim_stats stats;
	char text[1024];

	cow_sim_stats(sim, &stats);
	op_format(op, text, sizeof(text));
	printf("%" PRIu64 " %s\n", stats.calls[call], text);
}

/* One fault. *reached: it happened at all. */
static bool one_fault(struct scene *s, bool forever, bool *reached)
{
	struct cow_dev *sim = cow_sim_copy(s->sim);
	struct rng rng = {s->seed};
	struct cow_sim_stats stats;
	struct drive d;
	bool ok = drive_start(&d, simdisk_attach, sim, &s->options) == 0;
	uint64_t start;

	snprintf(s->report->name, CASE_BYTES, "%" PRIu64 ":%u:%" PRIu64, s->seed, s->call, s->nth);
	cow_sim_stats(sim, &stats);
	start = stats.calls[s->call];
	if (s->show)
		printf("call %" PRIu64 " is to fail\n", start + s->nth);
	d.faults = true;
	drive_adopt(&d, s->base);
	if (ok)
		cow_sim_fail(sim, (enum cow_sim_call)s->call, s->nth, forever ? UINT64_MAX : 0, -EIO);
	for (unsigned i = 0; ok && i < s->ops && !is_read_only(&d) && !d.unsure; i++) {
		struct op op;

		op_generate(&rng, &s->mood, &d.ora, &op);
		if (s->show)
			show(&op, sim, s->call);
		ok = drive_step(&d, &op);
		if (s->show)
			printf("    %" PRId64 "\n", d.answer);
		s->report->operations++;
	}
	cow_sim_stats(sim, &stats);
	*reached = stats.calls[s->call] - start >= s->nth;
	cow_sim_fail(sim, (enum cow_sim_call)s->call, 0, 0, 0);
	if (ok && is_read_only(&d))
		ok = look_around(&d);
	else if (ok && !d.unsure)
		ok = drive_compare(&d, d.ora.root);
	d.faults = false;
	ok = ok && look_again(&d);
	s->report->states++;
	if (!ok)
		memcpy(s->report->bug, d.bug[0] != 0 ? d.bug : "OPEN", DRIVE_BUG_BYTES);
	drive_stop(&d);
	cow_dev_close(sim);
	return ok;
}

/* A volume with something in it, so that there is something to read. */
static bool prepare(struct scene *s)
{
	struct rng rng = {s->seed + 1};
	struct drive d;
	bool ok;

	s->sim = simdisk_format(24ull << 20);
	ok = drive_start(&d, simdisk_attach, s->sim, &s->options) == 0;
	for (unsigned i = 0; ok && i <= s->ops; i++) {
		struct op op = {.kind = OP_SYNC};

		if (i < s->ops)
			op_generate(&rng, &s->mood, &d.ora, &op);
		ok = drive_step(&d, &op);
	}
	if (!ok)
		memcpy(s->report->bug, d.bug, DRIVE_BUG_BYTES);
	s->base = ora_tree_copy(d.ora.root, true);
	drive_stop(&d);
	cow_sim_forget(s->sim);
	return ok;
}

bool fault_run(uint64_t seed, unsigned ops, unsigned only_call, uint64_t only_nth, struct report *report)
{
	struct scene s = {.seed = seed, .ops = ops, .report = report};
	struct rng rng = {seed};
	bool ok;

	crash_mood(&rng, &s.mood);
	crash_options(seed, &s.options);
	s.options.cache_bytes = 4096;
	s.show = only_call != 0;
	ok = prepare(&s);
	for (s.call = COW_SIM_READ; ok && s.call <= COW_SIM_FLUSH; s.call++) {
		bool reached = true;

		if (only_call != 0 && s.call != only_call - 1)
			continue;
		for (s.nth = 1; ok && reached; s.nth += 1 + s.nth / 10) {
			if (only_call != 0)
				s.nth = only_nth;
			ok = one_fault(&s, s.nth % 2 == 0, &reached);
			if (only_call != 0)
				break;
		}
	}
	cow_dev_close(s.sim);
	ora_node_put(s.base);
	return ok;
}
