/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fault test: the same workload again and again, each time with another read, write, flush or reservation of space
 * that fails. A failed operation must have changed nothing; a failed commit turns the volume read-only with one
 * message; no space on the host does not. What is opened afterwards, with what was in flight or without it, is what the
 * chronicle allows.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fs/core/volume.h"
#include "fs/open.h"
#include "test/crash/crash.h"

struct fault {
	struct scene *scene;
	struct cow_dev *sim;
	struct ora_node *base; /* what is on it */
	unsigned call;
	uint64_t nth;
	int error;
	bool show; /* print the operations: a single case is wanted */
};

static bool is_read_only(struct drive *d)
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

/* Opens what is left without faults. */
static bool look_again(struct fault *f, struct drive *before, enum cow_sim_policy policy)
{
	uint64_t events = cow_sim_events(f->sim), generation;
	struct cow_dev *left = cow_sim_cut(f->sim, events, policy, f->nth);
	unsigned now = chronicle_now(&before->past);
	struct drive d;
	bool ok;
	int r;

	f->scene->report->faults++;
	f->scene->report->states += distinct_add(cow_sim_hash(left));
	generation = drive_disk_generation(simdisk_attach, left);
	/* a commit that failed may be there nevertheless */
	if (generation > before->generation)
		chronicle_commit(&before->past, before->generation + 1, generation, now > 0 ? now - 1 : 0, now);
	r = scene_open(f->scene, &d, left);
	d.small = before->small;
	ok = (r == 0 || drive_bug(&d, "OPEN after a fault answered %d", r)) &&
	     (chronicle_is_partial(&before->past, generation) ||
	      drive_recovered(&d, &before->past, generation, events));
	if (ok) {
		cow_volume_abandon(d.volume);
		d.volume = NULL;
		ok = drive_check_disk(&d);
	}
	if (!ok && before->bug[0] == 0)
		drive_bug(before, "%s (cut with policy %d)", d.bug, policy);
	drive_stop(&d);
	cow_dev_close(left);
	return ok;
}

static void show(const struct fault *f, const struct op *op)
{
	struct cow_sim_stats stats;
	char text[1024];

	cow_sim_stats(f->sim, &stats);
	op_format(op, text, sizeof(text));
	printf("%" PRIu64 " %s\n", stats.calls[f->call], text);
}

static uint64_t calls(const struct fault *f)
{
	struct cow_sim_stats stats;

	cow_sim_stats(f->sim, &stats);
	return stats.calls[f->call];
}

/* The workload until something has turned the volume read-only. */
static bool work(struct fault *f, struct drive *d)
{
	struct rng rng = {f->scene->seed};
	bool ok = true;

	for (unsigned i = 0; ok && i < f->scene->settings->ops && !is_read_only(d) && !d->unsure; i++) {
		struct op op;

		op_generate(&rng, &f->scene->mood, &d->ora, &op);
		if (f->show)
			show(f, &op);
		ok = drive_step(d, &op);
		if (f->show)
			printf("    %" PRId64 "\n", d->answer);
		f->scene->report->operations++;
	}
	return ok;
}

/* One fault. *reached: it happened at all. */
static bool one_fault(struct fault *f, struct cow_dev *from, bool forever, bool *reached)
{
	struct report *report = f->scene->report;
	struct drive d;
	uint64_t start;
	bool ok;

	snprintf(report->name, CASE_BYTES, "%" PRIu64 ":%u:%" PRIu64, f->scene->seed, f->call, f->nth);
	f->sim = cow_sim_copy(from);
	ok = scene_open(f->scene, &d, f->sim) == 0;
	start = calls(f);
	if (f->show)
		printf("call %" PRIu64 " is to fail with %d\n", start + f->nth, f->error);
	d.faults = true;
	d.small = d.small || f->error == -ENOSPC;
	drive_adopt(&d, f->base);
	if (ok)
		cow_sim_fail(f->sim, (enum cow_sim_call)f->call, f->nth, forever ? UINT64_MAX : 0, f->error);
	ok = ok && work(f, &d);
	*reached = calls(f) - start >= f->nth;
	cow_sim_fail(f->sim, (enum cow_sim_call)f->call, 0, 0, 0);
	if (ok && is_read_only(&d) && f->error == -ENOSPC)
		ok = drive_bug(&d, "READONLY the volume turned read-only for lack of space on the host");
	else if (ok && is_read_only(&d))
		ok = look_around(&d);
	else if (ok && !d.unsure)
		ok = drive_compare(&d, d.ora.root);
	cow_volume_abandon(d.volume);
	d.volume = NULL;
	ok = ok && look_again(f, &d, COW_SIM_KEEP) && look_again(f, &d, COW_SIM_DROP) &&
	     look_again(f, &d, COW_SIM_RANDOM);
	if (!ok)
		memcpy(report->bug, d.bug[0] != 0 ? d.bug : "OPEN", DRIVE_BUG_BYTES);
	drive_stop(&d);
	cow_dev_close(f->sim);
	return ok;
}

/* A volume with something in it, so that there is something to read. */
static struct cow_dev *prepare(struct fault *f)
{
	struct scene *s = f->scene;
	struct cow_dev *sim = scene_disk(s);
	struct rng rng = {s->seed + 1};
	struct drive d;

	if (scene_open(s, &d, sim) < 0 || !scene_work(s, &d, &rng, s->settings->ops, 0)) {
		scene_fail(s, s->report->name, d.bug);
		drive_stop(&d);
		cow_dev_close(sim);
		return NULL;
	}
	f->base = ora_tree_copy(d.ora.root, true);
	if (d.small) /* numbers for which there was no space are made anew */
		drive_forget_numbers(f->base);
	drive_stop(&d);
	cow_sim_forget(sim);
	s->mood.total -= s->mood.weight[OP_MANY]; /* each fault is a run: crowds are made once, and then removed */
	s->mood.weight[OP_MANY] = 0;
	return sim;
}

bool fault_run(struct scene *s)
{
	struct fault f = {.scene = s, .show = s->settings->fault_call != 0};
	const struct settings *settings = s->settings;
	struct cow_dev *sim;
	bool ok = true;

	s->options.cache_bytes = 4096;
	sim = prepare(&f);
	if (sim == NULL)
		return false;
	for (f.call = COW_SIM_READ; ok && f.call < COW_SIM_CALLS; f.call++) {
		bool reached = true;

		if (settings->fault_call != 0 && f.call != settings->fault_call - 1)
			continue;
		for (f.nth = 1; ok && reached; f.nth += 1 + f.nth / 10) {
			if (settings->fault_call != 0)
				f.nth = settings->fault_nth;
			f.error = f.call == COW_SIM_ENSURE && f.nth % 3 != 0 ? -ENOSPC : -EIO;
			ok = one_fault(&f, sim, f.nth % 2 == 0, &reached);
			if (settings->fault_call != 0)
				break;
		}
	}
	cow_dev_close(sim);
	ora_node_put(f.base);
	return ok;
}
