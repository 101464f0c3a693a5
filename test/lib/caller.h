/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Somebody who makes random calls all over a volume, many of a kind in a row, as programs do: with many names in one
 * directory, files of many extents, long attributes, clones of clones, files that are open and have no name. What the
 * calls do is not looked at (test/model does that), only whether they answer what they may.
 */
#ifndef COW_TEST_LIB_CALLER_H
#define COW_TEST_LIB_CALLER_H

#include <stdint.h>

#include "cow.h"
#include "test/lib/op.h"

#define CALLER_PLACES 3u    /* directories of the root, "place0" and on; all that is made is below them */
#define CALLER_HELD 3000u
#define CALLER_BYTES (1u << 20)

struct caller {
	struct cow_inode *root;
	struct rng rng;
	unsigned names; /* of each kind, in each directory */
	uint8_t *bytes; /* CALLER_BYTES of what is written */
	struct cow_inode *held[CALLER_HELD];
	unsigned held_count;
	/* the last of them */
	const char *call;
	unsigned times;
	int64_t answer;
};

/* The places are there. Callers with one seed do the same. */
void caller_start(struct caller *caller, uint64_t seed, unsigned names);
/* Lets nothing go: caller_let_go(). */
void caller_stop(struct caller *caller);
/* What somebody else has made already, before it becomes tight: a lot of some kinds. */
void caller_settle(struct caller *caller);
/* Some calls. False: one of them gave an answer that it must not give, whatever else there is: caller->answer. */
bool caller_burst(struct caller *caller);
/* Closes all that is open. */
void caller_let_go(struct caller *caller);
/* The name of a number, in a buffer of the caller's own choice. */
const char *caller_name(char name[static 48], const char *stem, unsigned number);

#endif
