/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who may use the last blocks. Whatever takes space asks here first, and says for which purpose; the table in
 * reservation.c says how many blocks each purpose has to leave for those below it, so that a commit always finds the
 * blocks for what is dirty, and something can always be removed. See doc/DESIGN.md, "Full volumes".
 *
 * An operation that changes something holds a reservation from its begin to its end (struct cow_reservation in
 * store/store.h). All are [locked] unless they say otherwise.
 */
#ifndef COW_FS_CORE_RESERVATION_H
#define COW_FS_CORE_RESERVATION_H

#include "fs/core/op.h"
#include "fs/core/volume.h"

enum cow_purpose {
	COW_FOR_CHANGE,     /* what adds something; what df calls free ends here */
	COW_FOR_REMOVAL,    /* what gives space back in the end */
	COW_FOR_MORE,       /* what an operation under way needs beyond what it began with */
	COW_FOR_BACKGROUND, /* a step that nobody waits for: purging garbage, sweeping numbers */
	COW_FOR_NUMBERS,    /* inode numbers, which are written by those who only look */
};

/* Blocks that an operation takes at the most besides file data, as long as paths and lists of names are short. */
#define COW_WORST_PATH 64u

/* Blocks of the volume that have to be left for others. */
uint64_t cow_reservation_left(const struct cow_volume *volume, enum cow_purpose purpose);
/* Are there so many besides? */
bool cow_reservation_has(const struct cow_volume *volume, enum cow_purpose purpose, uint64_t blocks);
/* How many there are. */
uint64_t cow_reservation_room(const struct cow_volume *volume, enum cow_purpose purpose);
/* Of the blocks that an operation needs, and of those that it leaves, so many need their space on the host before it
 * begins, or a commit would fail for what was let through. */
uint64_t cow_reservation_on_host(const struct cow_volume *volume, enum cow_purpose purpose, uint64_t blocks);
/* Blocks that need their space on the host for a commit to succeed. */
uint64_t cow_reservation_for_commit(const struct cow_volume *volume);

/* An operation takes `blocks`, which it was found to have room for, and holds them until it gives them back. */
void cow_reservation_take(struct cow_op *op, enum cow_purpose purpose, uint64_t blocks);
void cow_reservation_give(struct cow_op *op);
/* [in an operation] Are there so many blocks beyond what it began with, of which that covers a few? 0, or COW_MISS: it
 * ends, and begins again when there are, or gets -ENOSPC. */
int cow_reservation_more(struct cow_volume *volume, uint64_t blocks);

#endif
