/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One step of a random run, as a value that can be printed, read back and left out. Paths are made of name tokens
 * ("/a/b/L1"); a token that begins with L stands for a name of 255 bytes.
 */
#ifndef COW_TEST_LIB_OP_H
#define COW_TEST_LIB_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "test/lib/oracle.h"

enum op_kind {
	OP_MKDIR, OP_CREATE, OP_NODE, OP_CREATE_AT, OP_TMPFILE, OP_LINK_AT,
	OP_WRITE, OP_WRITE_AT, OP_APPEND, OP_TRUNCATE, OP_TRUNCATE_AT, OP_PUNCH, OP_ZERO, OP_ALLOCATE, OP_COPY,
	OP_CHMOD, OP_CHMOD_AT, OP_CHOWN, OP_UTIME, OP_SETXATTR, OP_RMXATTR,
	OP_LINK, OP_UNLINK, OP_RMDIR, OP_REMOVE, OP_RENAME, OP_CLONE, OP_CLONE_AT, OP_CLONE_OVER,
	OP_MANY, OP_CLEAR,
	OP_OPEN, OP_CLOSE, OP_READ, OP_STAT, OP_STATALL, OP_TOTALS, OP_EXCLUSIVE, OP_DIFF, OP_SAME,
	OP_DRAIN, OP_RECLAIM, OP_SYNC, OP_FSYNC, OP_FSYNC_AT, OP_CRASH, OP_REMOUNT, OP_FORGET, OP_PROBE,
	OP_COUNT
};

struct op {
	uint8_t kind;
	uint8_t handle;
	uint8_t flag;
	char name[ORA_NAME];
	char a[ORA_PATH], b[ORA_PATH];
	uint64_t x, y, z;
};

/* One line: the verb, then the fields it uses. */
void op_format(const struct op *op, char *text, size_t size);
/* False: not understood. */
bool op_parse(const char *text, struct op *op);
const char *op_verb(enum op_kind kind);

/* ---- random generation */

struct rng {
	uint64_t state;
};
uint64_t rng_next(struct rng *rng);
uint64_t rng_below(struct rng *rng, uint64_t n); /* 0 .. n-1 */
bool rng_chance(struct rng *rng, unsigned percent);

/* What kind of run this is: drawn from the seed. */
struct mood {
	unsigned weight[OP_COUNT];
	unsigned total;
	unsigned names;       /* how many different names */
	unsigned limit;       /* entries after which nothing is added */
	bool small;           /* a volume on which space runs out */
	bool tiny_cache;
	bool threads;         /* the volume commits by itself */
	bool long_names;
	bool crowded;         /* much is made and removed at once, with hardly anything in memory */
	uint32_t file_bytes;  /* usual size of writes */
	unsigned probe;       /* operations between whole checks */
};

void mood_draw(struct rng *rng, struct mood *mood);
/* The next operation in this state. `next_handle`: which handle slots are free is seen from the oracle. */
void op_generate(struct rng *rng, const struct mood *mood, const struct ora *ora, struct op *op);

#endif
