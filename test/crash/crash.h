/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of the crash test have in common. */
#ifndef COW_TEST_CRASH_CRASH_H
#define COW_TEST_CRASH_CRASH_H

#include "test/lib/drive.h"
#include "test/lib/simdisk.h"

#define CASE_BYTES 200
#define MOUNTS 2 /* the power is cut so often, each time after another mount */

struct cut {
	uint64_t event, choice;
	unsigned policy;
};

/* A named case: what is done in each mount, lines for op_parse(); one that begins with '+' is done while the next sync
 * writes. */
struct script {
	const char *name;
	const char *const *lines[MOUNTS];
	bool decays; /* also: a block of the log is garbled between the mounts */
};

struct settings {
	unsigned seeds, cuts, ops, soak_seconds, jobs;
	uint64_t seed;
	const struct script *script; /* only this one */
	bool no_scripts, faults_only, cuts_only;
	unsigned most_bad; /* failures after which it ends */
	bool replay;
	unsigned replay_depth;
	struct cut replay_cut[MOUNTS];
	unsigned fault_call; /* replay of a fault: enum cow_sim_call + 1 */
	uint64_t fault_nth;
};

/* Shared with the parent, so that it can say what failed even after an abort. */
struct report {
	char name[CASE_BYTES]; /* arguments that reproduce it */
	char bug[DRIVE_BUG_BYTES];
	uint64_t cuts, states, replays, commits, fsyncs, operations, no_space, faults;
};

/* What is wanted of the present run. */
struct scene {
	uint64_t seed;
	const struct script *script; /* or NULL: random operations */
	const struct settings *settings;
	struct report *report;
	struct cow_open_options options;
	struct mood mood;
	bool small;          /* space runs out */
	uint64_t host_blocks; /* on the host; UINT64_MAX: enough */
};

bool scene_fail(struct scene *scene, const char *name, const char *bug);

/* ---- work.c */
void scene_set_up(struct scene *scene, const struct settings *settings, uint64_t seed, struct report *report);
/* A formatted disk, and, if space is to run out, hardly any of it left. NULL: a bug, in the report. */
struct cow_dev *scene_disk(struct scene *scene);
int scene_open(const struct scene *scene, struct drive *drive, struct cow_dev *sim);
/* Does `count` operations and a sync, or what the script says for this mount. */
bool scene_work(struct scene *scene, struct drive *drive, struct rng *rng, unsigned count, unsigned mount);

/* ---- script.c: ends with one without name */
extern const struct script crash_scripts[];

/* ---- cut.c: does the work, and cuts the power in all ways. False: a bug, in the report. */
bool cut_run(struct scene *scene);

/* ---- fault.c: fails each I/O in turn */
bool fault_run(struct scene *scene);

/* ---- distinct.c: sets of hashes, shared with children; what does not find room is not counted */
void distinct_begin(unsigned bits);
/* True: not seen before. */
bool distinct_add(uint64_t hash);

#endif
