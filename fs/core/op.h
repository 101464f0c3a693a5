/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An operation: the gate shared for its whole length, the lock while it looks at or changes memory, and the loop that
 * loads what was missing and starts again.
 *
 *     cow_op_begin_change(&op, volume, data_bytes)      // or cow_op_begin_read()
 *     while ((result = body(&op, args)) == COW_MISS && (result = cow_op_fill(&op)) == 0) ;
 *     cow_op_end(&op);
 *
 * A body checks and reserves first (each step may miss, and is neutral), then changes; after its first change it must
 * not miss any more.
 */
#ifndef COW_FS_CORE_OP_H
#define COW_FS_CORE_OP_H

#include "cow.h"
#include "store/store.h"

struct cow_op_data {
	uint64_t block;
	uint8_t bytes[COW_BLOCK];
	struct cow_op_data *next;
};

struct cow_op {
	struct cow_volume *volume;
	struct cow_store *store;
	bool locked;
	bool changes;
	struct cow_reservation reservation; /* of a change: fs/core/reservation.h */
	struct cow_node **pins; /* nodes loaded for this operation: kept until its end, so that it gets ahead */
	size_t pin_count, pin_size;
	struct cow_op_data *data; /* blocks of file data loaded for it */
	struct timespec now;
};

/* Takes gate (shared) and lock. Reading works on a failed or read-only volume too. */
void cow_op_begin_read(struct cow_op *op, struct cow_volume *volume);
/* After COW_MISS: loads, with the lock given up meanwhile and held again. 0: start again. */
int cow_op_fill(struct cow_op *op);
/* A block of file data for read-modify-write: from memory, or COW_MISS. Verified. *bytes is valid until cow_op_end. */
int cow_op_data(struct cow_op *op, uint64_t block, uint32_t sum, const uint8_t **bytes);
/* Gives up the lock but keeps the gate: blocks looked up stay what they are until cow_op_end(). */
void cow_op_unlock(struct cow_op *op);
void cow_op_end(struct cow_op *op);

/* The usual loops around one body. */
typedef int (*cow_op_fn)(struct cow_op *op, void *args);
int cow_op_read(struct cow_volume *volume, cow_op_fn body, void *args);
/* Calls the body of an operation that has begun until it misses no more, and ends it. */
int cow_op_run(struct cow_op *op, cow_op_fn body, void *args);

#endif
