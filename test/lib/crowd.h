/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operations that are done many times at once: directories of some hundred entries, and their end. So the queue of
 * removed trees, and the trees in it, get several leaves. Each part is a step of its own.
 */
#ifndef COW_TEST_LIB_CROWD_H
#define COW_TEST_LIB_CROWD_H

#include "test/lib/drive.h"

/* What OP_MANY makes, in op.flag. */
enum crowd {
	CROWD_FILES,
	CROWD_TREES,  /* two directories with a file in the inner one: each pointer leads to another */
	CROWD_LINKS,  /* files of two names */
	CROWD_CLONES, /* such trees, and a clone of each */
	CROWD_KINDS,
	CROWD_LONG = 4, /* with names of 255 bytes */
};

/* A directory op.name in op.a, and op.x entries in it. False: a bug was found. */
bool crowd_make(struct drive *drive, const struct op *op);
/* Removes every entry of op.a, trees whole. */
bool crowd_clear(struct drive *drive, const struct op *op);

#endif
