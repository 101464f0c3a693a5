/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/core/reservation.h"

#include <assert.h>

#define COVERED 16u /* of the worst path: for more than it seemed to need, as two inodes above each other */

/*
 * What each purpose leaves: quarters of the volume's node_limit, which is what a commit may have to write in nodes;
 * some blocks more, since a small volume has few dirty nodes but no shorter paths; and, where `held` is set, what
 * operations under way have reserved. An operation that begins leaves twice the limit instead, which covers those under
 * way. The last column is what must have its space on the host in any case.
 */
static const struct {
	unsigned quarters, blocks;
	bool held;
	unsigned host_quarters;
} table[] = {
	[COW_FOR_CHANGE] = {8, 80, false, 4},
	[COW_FOR_REMOVAL] = {2, 0, false, 0},
	[COW_FOR_MORE] = {2, 0, true, 0},
	[COW_FOR_BACKGROUND] = {3, 64, true, 0},
	[COW_FOR_NUMBERS] = {4, 64, true, 0},
};

uint64_t cow_reservation_left(const struct cow_volume *volume, enum cow_purpose purpose)
{
	return table[purpose].quarters * volume->node_limit / 4 + table[purpose].blocks +
	       (table[purpose].held ? volume->reserved_blocks : 0);
}

uint64_t cow_reservation_room(const struct cow_volume *volume, enum cow_purpose purpose)
{
	uint64_t blocks = cow_store_unpromised(volume->store), left = cow_reservation_left(volume, purpose);

	return blocks > left ? blocks - left : 0;
}

bool cow_reservation_has(const struct cow_volume *volume, enum cow_purpose purpose, uint64_t blocks)
{
	return cow_store_unpromised(volume->store) >= cow_reservation_left(volume, purpose) + blocks;
}

uint64_t cow_reservation_on_host(const struct cow_volume *volume, enum cow_purpose purpose, uint64_t blocks)
{
	return blocks + table[purpose].host_quarters * volume->node_limit / 4;
}

uint64_t cow_reservation_for_commit(const struct cow_volume *volume)
{
	return cow_store_due(volume->store) + volume->node_limit / 2;
}

void cow_reservation_take(struct cow_op *op, enum cow_purpose purpose, uint64_t blocks)
{
	struct cow_volume *volume = op->volume;

	op->reservation = (struct cow_reservation){.blocks = blocks};
	/* What is removed from a clone takes copies of what the other holds, and gives nothing back. Enough of that,
	 * and nothing else could be removed, ever. */
	if (purpose == COW_FOR_REMOVAL && !volume->replaying)
		op->reservation.floor = COW_WORST_PATH + volume->node_limit;
	volume->reserved_blocks += blocks;
}

void cow_reservation_give(struct cow_op *op)
{
	assert(op->volume->reserved_blocks >= op->reservation.blocks);
	op->volume->reserved_blocks -= op->reservation.blocks;
	op->reservation.blocks = 0;
}

int cow_reservation_more(struct cow_volume *volume, uint64_t blocks)
{
	struct cow_reservation *at_work = volume->store->at_work;

	if (blocks <= COVERED || volume->replaying)
		return 0;
	if (cow_reservation_has(volume, COW_FOR_MORE, blocks)) {
		if (at_work != NULL)
			at_work->more += blocks;
		return 0;
	}
	volume->store->miss = (struct cow_miss){.what = COW_MISS_ROOM, .blocks = blocks};
	return COW_MISS;
}
