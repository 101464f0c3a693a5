/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What was done to a volume and what was promised about it, so that what a power cut leaves can be judged.
 *
 * Every operation that changes something makes a *moment*: the whole tree as it was then. Beside the moments lie all
 * *versions* of every file's content and mtime, those of files without a name too; the *promises* (a sync or fsync that
 * returned); and for each generation the moments that it may hold: one, or two if it was committed inside an operation.
 *
 * THE RULE. After a cut at event e, with generation g on the disk:
 * - names, types, links, owners, modes, xattrs, numbers are those of one moment m: one that g holds or, if an fsync
 *   began after it, a later one, not later than the last fsync that had begun; and not before what any promise kept
 * says;
 * - every file has one of its versions, whole: not later than m, and not older than g, than the last sync, than its own
 *   last fsync, and than the rename at or before m that put it over another name. Without any fsync after g that is one
 *   version: what it was at m.
 * What is promised counts from the event at which the call returned.
 */
#ifndef COW_TEST_LIB_CHRONICLE_H
#define COW_TEST_LIB_CHRONICLE_H

#include "base/map.h"
#include "test/lib/oracle.h"

struct moment {
	struct ora_node *root; /* a copy */
	uint64_t begun;        /* events when the operation that made it began */
};

struct version {
	unsigned moment; /* from when on */
	unsigned older;  /* number of the file's version before + 1, 0: none */
	struct content *content;
	int64_t mtime;   /* goes with the content; 0: not known */
};

enum promise_kind {
	PROMISE_SYNC,
	PROMISE_FSYNC, /* of `file` */
	PROMISE_OVER,  /* `file` was renamed over a name */
};

struct promise {
	enum promise_kind kind;
	uint64_t file; /* ora_node.id */
	unsigned moment;
	uint64_t begun, kept; /* events when the call began and when it returned */
};

struct era {
	uint64_t generation;
	unsigned oldest, newest; /* moments */
	bool partial; /* committed in the midst of an operation that is done in pieces: between moments */
};

struct chronicle {
	struct moment *moments;
	struct version *versions;
	struct promise *promises;
	struct era *eras;
	unsigned count, room; /* of moments */
	unsigned version_count, version_room, promise_count, promise_room, era_count, era_room;
	struct cow_map newest; /* ora_node.id -> (void *) number of its newest version + 1 */
	bool forgives;         /* the disk has decayed: promises are not held against it */
	unsigned seen;         /* a moment not newer than what the newest generation holds */
};

/* What may be there after a cut. */
struct chronicle_range {
	unsigned first, last; /* moments */
	bool exact;           /* files are as they were at the moment */
	unsigned base;        /* oldest moment that the generation may hold */
	uint64_t event;
};

/* Begins anew (or for the first time, when all zero): all is durable in this generation. */
void chronicle_start(struct chronicle *c, const struct ora *ora, uint64_t generation);
void chronicle_free(struct chronicle *c);
/* The state after an operation. */
void chronicle_add(struct chronicle *c, const struct ora *ora, uint64_t begun);
static inline unsigned chronicle_now(const struct chronicle *c) { return c->count - 1; }
/* Generations `first` to `last` were committed, and hold one of these moments. */
void chronicle_commit(struct chronicle *c, uint64_t first, uint64_t last, unsigned oldest, unsigned newest);
void chronicle_promise(struct chronicle *c, const struct promise *promise);

bool chronicle_is_partial(const struct chronicle *c, uint64_t generation);

/* False: nothing is known of this generation. */
bool chronicle_range(const struct chronicle *c, uint64_t generation, uint64_t event, struct chronicle_range *range);
/* The versions that a file may have in a tree of moment `moment`, newest first: start with *next 0; NULL: no more. */
const struct version *chronicle_version(const struct chronicle *c, const struct chronicle_range *range, uint64_t file,
					unsigned moment, unsigned *next);
/* Differs when something else is promised, or may be there, at this event. */
uint64_t chronicle_demands(const struct chronicle *c, uint64_t event);

#endif
