/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Power cuts. A workload runs on a simulated device that remembers every write and flush. Then the power is cut at
 * every event in many ways; what is left is checked, opened, compared with what the chronicle allows, checked again,
 * used further, and cut again, also while it is being opened.
 *
 * A case is SEED:EVENT:POLICY:CHOICE, and once more EVENT:POLICY:CHOICE for the second cut. An event behind the last
 * stands for a block of the intent log that decays, the first, second, ...
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "store/layout.h"
#include "store/super.h"
#include "test/crash/crash.h"
#include "test/lib/exercise.h"

/* One mount that ended in a cut, or in many. */
struct mount {
	struct scene *scene;
	struct cow_dev *sim;   /* with all events since the one before */
	struct chronicle past;
	unsigned depth;        /* mounts before it */
	const char *name;      /* of the cuts before it */
};

#define DECAYED_BLOCKS 12u
#define LIES 64u

static bool cut_all(const struct mount *m);

static bool decays(const struct mount *m, const struct cut *cut)
{
	return cut->event > cow_sim_events(m->sim);
}

static struct cow_dev *make_left(const struct mount *m, const struct cut *cut)
{
	struct cow_dev *left;
	struct cow_super super;
	uint64_t index;
	bool decayed;

	if (!decays(m, cut))
		return cow_sim_cut(m->sim, cut->event, (enum cow_sim_policy)cut->policy, cut->choice);
	left = cow_sim_copy(m->sim);
	if (cow_super_read(left, &super, &decayed) == 0 && super.log.blocks != 0) {
		index = super.log.position + (cut->event - cow_sim_events(m->sim) - 1);
		cow_sim_garble(left, cow_layout_ring(super.log.start, index % super.log.blocks), cut->policy % 2 != 0,
			       cut->choice);
		cow_sim_forget(left); /* later cuts begin with it */
	}
	return left;
}

/* ------------------------------------------------------------------ one state */

static bool check_left(struct scene *s, struct cow_dev *left, const char *name)
{
	char bug[DRIVE_BUG_BYTES] = "";
	struct drive checker = {.bug = bug, .attach = simdisk_attach, .disk = left};

	return drive_check_disk(&checker) || scene_fail(s, name, bug);
}

/* Opens what a cut left. On success the drive is at the state that was found, and its chronicle begins there. */
static bool recover(const struct mount *m, struct drive *d, struct cow_dev *left, const struct cut *cut, bool read_only)
{
	uint64_t generation = drive_disk_generation(simdisk_attach, left);
	struct chronicle past = m->past; /* shares everything */
	struct scene s = *m->scene;
	int error;

	s.options.read_only = read_only;
	past.forgives = decays(m, cut);
	error = scene_open(&s, d, left);
	if (error < 0)
		return drive_bug(d, "OPEN answered %d", error);
	if (!drive_recovered(d, &past, generation, cut->event))
		return false;
	chronicle_start(&d->past, &d->ora, d->generation);
	m->scene->report->replays += generation < d->generation;
	/* a cut before the opening was over must lead to the same state */
	if (generation < d->generation)
		chronicle_commit(&d->past, generation, d->generation - 1, 0, 0);
	return true;
}

/* Whoever opens it for reading only sees the same, and writes nothing. */
static bool look_only(const struct mount *m, struct cow_dev *left, const struct cut *cut, const char *name)
{
	struct drive d;
	bool ok = recover(m, &d, left, cut, true) || scene_fail(m->scene, name, d.bug);

	drive_stop(&d);
	return ok && (cow_sim_events(left) == 0 || scene_fail(m->scene, name, "READONLY but something was written"));
}

/* Works on after a cut, and cuts again. */
static bool go_on(struct scene *s, struct drive *d, struct cow_dev *left, const struct cut *cut, unsigned depth,
		  const char *name)
{
	struct rng rng = {s->seed * 31 + cut->event * 8 + cut->policy};
	struct mount next = {.scene = s, .sim = left, .depth = depth, .name = name};
	bool ok = scene_work(s, d, &rng, 12, depth);

	if (!ok)
		return scene_fail(s, name, d->bug);
	next.past = d->past;
	memset(&d->past, 0, sizeof(d->past));
	ok = cut_all(&next);
	chronicle_free(&next.past);
	return ok;
}

static bool goes_on(const struct mount *m, const struct cut *cut, bool replayed)
{
	const struct settings *settings = m->scene->settings;

	if (m->depth + 1 == MOUNTS)
		return false;
	if (settings->replay)
		return settings->replay_depth > 1;
	return decays(m, cut) || cut->choice % (m->scene->script != NULL ? 3 : replayed ? 8 : 16) == 0;
}

static bool look_at(const struct mount *m, struct cow_dev *left, const struct cut *cut, const char *name)
{
	uint64_t written, generation = drive_disk_generation(simdisk_attach, left);
	struct scene *s = m->scene;
	struct drive d;
	bool ok;

	if (!check_left(s, left, name))
		return false;
	if (chronicle_is_partial(&m->past, generation)) /* nothing to compare it with */
		return true;
	if (cut->choice % 4 == 1 && !look_only(m, left, cut, name))
		return false;
	ok = recover(m, &d, left, cut, false) || scene_fail(s, name, d.bug);
	written = cow_sim_events(left);
	if (ok && goes_on(m, cut, written > 0))
		ok = go_on(s, &d, left, cut, m->depth + 1, name);
	drive_stop(&d);
	return ok && (written == 0 || check_left(s, left, name));
}

/* Cuts once, and looks at what is left, unless the same has been looked at. */
static bool cut_once(const struct mount *m, const struct cut *cut)
{
	struct scene *s = m->scene;
	struct cow_dev *left = make_left(m, cut);
	uint64_t image = cow_sim_hash(left), demands = chronicle_demands(&m->past, cut->event);
	char name[CASE_BYTES];
	bool ok = true;

	snprintf(name, sizeof(name), "%s:%" PRIu64 ":%u:%" PRIu64, m->name, cut->event, cut->policy, cut->choice);
	snprintf(s->report->name, sizeof(s->report->name), "%s", name);
	s->report->states += distinct_add(image);
	if (distinct_add(image ^ XXH3_64bits_withSeed(m->name, strlen(m->name), demands + 1)) || s->settings->replay) {
		s->report->cuts++;
		ok = look_at(m, left, cut, name);
	}
	cow_dev_close(left);
	return ok;
}

/* ------------------------------------------------------------------ all states */

/* Ways to cut that may leave something else than another way or another event. */
static bool worth_it(struct cow_dev *sim, const struct cut *cut)
{
	uint64_t in_flight = cut->event - cow_sim_flushed(sim, cut->event);

	switch (cut->policy) {
	case COW_SIM_KEEP:
		return true;
	case COW_SIM_ONE:
	case COW_SIM_BUT_ONE:
		return in_flight > 1;
	default:
		return in_flight > 0;
	}
}

/* Ends of epochs, where the most is in flight; and what an fsync writes. */
static bool is_boundary(const struct mount *m, uint64_t event)
{
	if (event == cow_sim_events(m->sim) || cow_sim_flushed(m->sim, event + 1) == event + 1)
		return true;
	for (unsigned i = 0; i < m->past.promise_count; i++) {
		const struct promise *p = &m->past.promises[i];

		if (p->kind == PROMISE_FSYNC && p->begun < event && event <= p->kept && p->kept - p->begun < 16)
			return true;
	}
	return false;
}

/* All boundaries in many ways, other events in some, as the budget allows. */
static bool cut_all(const struct mount *m)
{
	struct scene *s = m->scene;
	const struct settings *settings = s->settings;
	uint64_t events = cow_sim_events(m->sim), budget = m->depth == 0 ? settings->cuts : settings->cuts / 16 + 4;
	struct rng rng = {s->seed + events};

	if (settings->replay)
		return cut_once(m, &settings->replay_cut[m->depth]);
	if (s->script != NULL && m->depth == 0)
		budget = events + 1;
	for (uint64_t event = 0; event <= events; event++) {
		bool boundary = is_boundary(m, event);
		unsigned tries = boundary ? COW_SIM_POLICIES * 2 : s->script != NULL ? COW_SIM_POLICIES : 2;

		if (!boundary && rng_below(&rng, events + 1) >= budget)
			continue;
		for (unsigned i = 0; i < tries; i++) {
			bool each = tries > 2;
			struct cut cut = {event, rng_below(&rng, 1000),
					  each ? i % COW_SIM_POLICIES : (unsigned)rng_below(&rng, COW_SIM_POLICIES)};

			if (worth_it(m->sim, &cut) && (m->depth == 0 || rng_below(&rng, events + 1) < budget) &&
			    !cut_once(m, &cut))
				return false;
		}
	}
	for (uint64_t i = 1; s->script != NULL && s->script->decays && m->depth == 0 && i <= DECAYED_BLOCKS; i++)
		for (unsigned policy = 0; policy < 2; policy++)
			if (!cut_once(m, &(struct cut){events + i, i, policy}))
				return false;
	return true;
}

/* ------------------------------------------------------------------ a device that lies */

/* Flushes that did nothing: no promise can be kept, but nothing may crash or go on for ever. */
static void cut_liar(struct scene *s, struct cow_dev *sim)
{
	struct rng rng = {s->seed};
	struct exercise how = {.writable = true, .looks = 300, .changes = 20};

	for (unsigned i = 0; i < LIES; i++) {
		uint64_t event = rng_below(&rng, cow_sim_events(sim) + 1);
		struct cow_dev *left = cow_sim_cut(sim, event, (enum cow_sim_policy)(i % COW_SIM_POLICIES), i);

		s->report->cuts++;
		s->report->states += distinct_add(cow_sim_hash(left));
		how.seed = i;
		exercise_volume(simdisk_attach(left), &how);
		cow_dev_close(left);
	}
}

/* When it has told the truth again, a sync is a sync. */
static bool lie(struct scene *s, const char *name)
{
	struct mount m = {.scene = s, .sim = scene_disk(s), .name = name};
	struct rng rng = {s->seed + 7};
	struct op op = {.kind = OP_CHMOD, .a = "/", .x = 0711}, sync = {.kind = OP_SYNC};
	struct drive d;
	bool ok = scene_open(s, &d, m.sim) == 0 && scene_work(s, &d, &rng, 10, 0);

	cow_sim_lie(m.sim, true);
	ok = ok && scene_work(s, &d, &rng, 30, 0);
	if (ok)
		cut_liar(s, m.sim);
	cow_sim_lie(m.sim, false);
	ok = ok && drive_step(&d, &op) && drive_step(&d, &sync);
	if (!ok)
		scene_fail(s, name, d.bug);
	m.past = d.past;
	memset(&d.past, 0, sizeof(d.past));
	drive_stop(&d);
	for (unsigned policy = 0; ok && policy < COW_SIM_POLICIES; policy++)
		ok = cut_once(&m, &(struct cut){cow_sim_events(m.sim), 1, policy});
	chronicle_free(&m.past);
	cow_dev_close(m.sim);
	return ok;
}

bool cut_run(struct scene *s)
{
	struct mount m = {.scene = s};
	struct rng rng = {s->seed};
	struct drive d;
	char name[CASE_BYTES];
	bool ok;

	snprintf(name, sizeof(name), "%s%s%" PRIu64, s->script != NULL ? s->script->name : "",
		 s->script != NULL ? ":" : "", s->seed);
	snprintf(s->report->name, sizeof(s->report->name), "%s", name);
	m.name = name;
	m.sim = scene_disk(s);
	ok = scene_open(s, &d, m.sim) == 0 && scene_work(s, &d, &rng, s->settings->ops, 0);
	if (!ok)
		scene_fail(s, name, d.bug);
	m.past = d.past;
	memset(&d.past, 0, sizeof(d.past));
	drive_stop(&d);
	ok = ok && cut_all(&m);
	chronicle_free(&m.past);
	cow_dev_close(m.sim);
	if (ok && s->script == NULL && s->seed % 8 == 7 && !s->settings->replay)
		ok = lie(s, name);
	return ok;
}
