/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the crash test and the fault test have in common: a workload whose commits are written down. */
#ifndef COW_TEST_CRASH_H
#define COW_TEST_CRASH_H

#include "test/lib/drive.h"
#include "test/lib/simdisk.h"

#define CASE_BYTES 200

/* A generation, and the states of which it is one: two if it was committed inside an operation. */
struct commit {
	uint64_t generation;
	uint64_t asked; /* events in the log when somebody was told that it is durable; UINT64_MAX: nobody was */
	struct ora_node *state[2];
	unsigned states;
};

struct record {
	struct commit *commits; /* ascending */
	unsigned count, room;
};

/* Shared with the parent, so that it can say what failed even after an abort. */
struct report {
	char name[CASE_BYTES]; /* arguments that reproduce it */
	char bug[DRIVE_BUG_BYTES];
	uint64_t states, commits, operations;
};

void crash_options(uint64_t seed, struct cow_open_options *options);
/* The operations that make sense here; the mood is drawn from the seed. */
void crash_mood(struct rng *rng, struct mood *mood);
void record_commit(struct record *record, struct drive *drive, uint64_t before, uint64_t asked);
void record_free(struct record *record);
/* Does `count` operations and writes the commits down. */
bool crash_work(struct drive *drive, struct rng *rng, const struct mood *mood, unsigned count, struct cow_dev *sim,
		struct record *record);

/* Fails each I/O in turn. False: a bug, in the report. */
bool fault_run(uint64_t seed, unsigned ops, unsigned only_call, uint64_t only_nth, struct report *report);

#endif
