/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/reclaim/reclaim.h"

#include <errno.h>

#include "cow.h"
#include "fs/commit/commit.h"
#include "fs/reclaim/purge.h"
#include "fs/world/inode_number.h"

#define RECLAIM_BATCH 64     /* steps under one hold of the lock */

static int reclaim_batch(struct cow_op *op, uint64_t *left)
{
	for (unsigned i = 0; i < RECLAIM_BATCH && *left > 0; i++) {
		int done = cow_reclaim_step(op->store);
		if (done <= 0)
			return done;
		--*left;
	}
	return 1;
}

static int sweep_rows(struct cow_op *op, void *v)
{
	return cow_number_may_sweep(op->volume) ? cow_number_sweep(op->volume, v) : 0;
}

/* What is damaged stays; it must not keep the rest from being given back, nor the volume from being written. */
int cow_volume_reclaim_some(struct cow_volume *volume, uint64_t *steps)
{
	struct cow_op op;
	uint64_t trying;
	int more;

	cow_op_begin_read(&op, volume);
	do {
		more = op.store->read_only ? 0 : reclaim_batch(&op, steps);
		trying = op.store->reclaim_trying; /* others reclaim, too, when the lock is given up */
	} while (more == COW_MISS && (more = cow_op_fill(&op)) == 0);
	if (more < 0 && cow_reclaim_give_up(op.store, trying, more))
		more = 1;
	cow_op_end(&op);
	return more;
}

int cow_volume_reclaim(struct cow_volume *volume, uint64_t steps)
{
	uint64_t at = 0;
	bool rows = false;
	int more;

	if (volume->store->read_only)
		return 0;
	more = cow_purge_queued(volume, NULL);
	if (more == 0) {
		more = cow_op_read(volume, sweep_rows, &at);
		rows = more > 0;
		if (cow_is_damage(more)) { /* reported; rows that nobody needs take little */
			volume->rows_dropped = 0;
			more = 0;
		}
	}
	if (more < 0)
		return more;
	do
		more = cow_volume_reclaim_some(volume, &steps);
	while (more > 0 && steps > 0);
	return more == 0 ? rows : more;
}

static int reclaim_all(struct cow_volume *volume)
{
	int more, error;

	do {
		more = cow_volume_reclaim(volume, volume->node_limit);
		error = more < 0 ? more : cow_sync(volume);
	} while (error == 0 && more > 0);
	return error;
}

int cow_drain(struct cow_volume *volume)
{
	int more, error;

	do { /* the room that a purge needs may have to be reclaimed first */
		error = reclaim_all(volume);
		if (error != 0)
			return error;
		more = volume->store->read_only ? 0 : cow_purge_all(volume);
	} while (more > 0);
	error = more < 0 ? more : reclaim_all(volume);
	while (cow_store_trim(volume->store, COW_TRIM_ALL))
		;
	return error;
}
