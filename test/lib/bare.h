/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A store with nothing above it, on a simulated device: for tests of nodes and trees by themselves. There are three
 * kinds of trees, which differ in what a value claims. Its trees are in the store's own roots.
 */
#ifndef COW_TEST_BARE_H
#define COW_TEST_BARE_H

#include "dev/dev_sim.h"
#include "store/node.h"
#include "store/store.h"

enum {
	BARE_PLAIN = 2, /* any bytes, which claim nothing */
	BARE_RUN,       /* u64 block, u32 length, then any bytes: claims that run */
	BARE_TREE,      /* a pointer to a tree of BARE_PLAIN, then any bytes: claims it */
};
#define BARE_RUN_BYTES 12u
#define BARE_ROOTS (COW_ROOTS - 1)

struct bare {
	struct cow_dev *disk;
	struct cow_store *store; /* its lock is not held between calls of the test */
	unsigned logged;         /* errors that the store has told */
};

extern const struct cow_store_ops bare_ops;

void bare_begin(struct bare *bare, uint64_t bytes);
void bare_end(struct bare *bare);
/* What was not committed is lost, as in a power cut. */
void bare_reopen(struct bare *bare);
/* The tree in a root; they are counted from 0. Its kind is given when it is first used. */
struct cow_tree *bare_root(struct bare *bare, unsigned i);
/* [locked] All clean nodes leave memory, but those that are pinned. */
void bare_forget(struct bare *bare);
/* Reclaims until nothing is left to do, and commits. */
void bare_drain(struct bare *bare);
/*
 * Is every block's count the number of pointers that lead to it, of all trees and the queue; does each tree have its
 * form (leaves at one level, keys within the separators above, no empty node)? Reads all nodes. The answer is NULL, or
 * what is wrong, in a buffer that the next call writes over.
 */
const char *bare_wrong(struct bare *bare);

#endif
