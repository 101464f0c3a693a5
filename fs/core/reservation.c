/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/core/reservation.h"

#define SHORT_WAY 16u     /* inodes above each other that every change may make dirty: change.c, WORST_PATH */
#define LEAST_RESERVE 80  /* more blocks, since a small volume has few dirty nodes, but no shorter paths */
#define ROOM_FOR_STEP 64  /* blocks that one step of a purge or a sweep may need */

uint64_t cow_volume_reserve_blocks(const struct cow_volume *volume)
{
	return 2 * volume->node_limit + LEAST_RESERVE;
}

uint64_t cow_volume_spare_blocks(const struct cow_volume *volume)
{
	uint64_t all = cow_store_unpromised(volume->store),
		 rest = volume->begun_blocks + ROOM_FOR_STEP + 3 * volume->node_limit / 4;

	return all > rest ? all - rest : 0;
}

/*
 * Directories may be nested without limit, and what an operation asks for when it begins covers only a short way. A
 * long one must leave what operations under way have asked for, and what a removal asks for: else a commit would not
 * find the blocks for what is dirty, and nothing would ever be possible any more.
 */
bool cow_inode_has_room(const struct cow_volume *volume, uint64_t blocks)
{
	return blocks <= SHORT_WAY || volume->replaying ||
	       cow_store_unpromised(volume->store) >= volume->begun_blocks + volume->node_limit / 2 + blocks;
}

int cow_inode_check_room(struct cow_volume *volume, uint64_t blocks)
{
	if (cow_inode_has_room(volume, blocks))
		return 0;
	volume->store->miss = (struct cow_miss){.what = COW_MISS_ROOM, .blocks = blocks};
	return COW_MISS;
}
