/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which runs a random test does, and the line that repeats the one that failed. All test programs obey the same
 * environment variables:
 *
 *   COW_TEST_SEED=N      of each random test, do the run with this seed and no other
 *   COW_TEST_CASE=NAME   do the tests of this name only; * and ? as in a shell
 *   COW_TEST_RUNS=X      do X times as many random runs as usual: 0.2, or 10
 *   COW_TEST_LENGTH=X    make each random run X times as long
 *   COW_TEST_VERBOSE=1   say what is being done
 *
 * While a case runs, the library knows how to repeat it, and prints that when the case fails or the program is killed
 * by an assertion, a sanitizer or a time limit.
 */
#ifndef COW_TEST_TRIAL_H
#define COW_TEST_TRIAL_H

#include <stdbool.h>
#include <stdint.h>

struct trial { /* all zero before the first trial_next() */
	uint64_t seed;   /* of this run */
	unsigned number; /* of this run, from 1 */
	uint64_t fresh;
};

/*
 * for (struct trial t = {0}; trial_next(&t, 24, 12);) run(t.seed);
 *
 * does 24 runs: twelve with the seeds 1 to 12, so that what was found once stays found, and then fresh ones. More runs
 * than usual are fresh ones too.
 */
bool trial_next(struct trial *trial, unsigned usual, unsigned fixed);
/* How many steps a run has: at least one. */
uint64_t trial_length(uint64_t usual);
/* The same for a number of runs, for who draws seeds otherwise. */
uint64_t trial_runs(uint64_t usual);
/* Is one seed asked for? */
bool trial_asks(uint64_t *seed);
bool trial_verbose(void);
/* A line of comment on stderr, if that is wanted. */
void trial_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- for those who run cases */

/* Should a case of this name be run? */
bool trial_wants(const char *name);
/* Begins a case; NULL: it has ended well. */
void trial_case(const char *name);
bool trial_is_open(void);
/* The case has failed: prints the line that repeats it, once a case. */
void trial_failed(void);
/* The same with a command of its own: what else has to be said to repeat it. */
void trial_failed_at(const char *arguments);

#endif
