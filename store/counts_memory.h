/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the two files of counts in memory share: counts.c has the counts of blocks, and what a commit writes of them;
 * counts_alloc.c gives blocks out, asks the host for their space, and gives space back. All [locked] if not said
 * otherwise.
 *
 * Three things say what is known of a group of blocks: its piece (durable counts; may be evicted), its deltas (open
 * and sealed; kept until they are durable), and its region (which groups have their space on the host; for ever).
 * Selector blocks are few (4 KiB for 2 GiB of volume) and stay once they were loaded, so what was known once of how
 * many blocks of a group are free is always known.
 *
 * `available` and `ready` are running numbers: blocks that may be allocated at all, and those of them whose group is
 * known to have its space on the host.
 */
#ifndef COW_STORE_COUNTS_MEMORY_H
#define COW_STORE_COUNTS_MEMORY_H

#include "base/map.h"
#include "store/counts.h"

#define COW_PIECE_WORDS (COW_PIECE_BLOCKS / 64)
#define COW_COUNT_TOP (COW_COUNT_LEVELS - 1)

struct cow_counts_piece { /* durable */
	uint64_t index;
	uint8_t bytes[COW_BLOCK];
	uint64_t busy[COW_PIECE_WORDS]; /* bit: count is not 0 */
	bool referenced; /* since the clock's hand passed */
	struct cow_counts_piece *next, *previous;
};

struct cow_counts_delta {
	uint64_t index;
	uint32_t taken; /* bits set in allocated */
	bool stale; /* in the list of its generation: counts were changed since `pending` was found */
	int32_t pending; /* see struct cow_counts_deltas */
	struct cow_counts_delta *next_stale;
	int32_t change[COW_PIECE_BLOCKS];
	uint64_t allocated[COW_PIECE_WORDS];
};

/*
 * Those of one generation. `pending`: so many more blocks can be allocated when it is durable than before. To know it
 * takes the counts from before, so it is found when somebody asks. It is said of one generation on top of what lies
 * below it, and so stays true when that is sealed and when it becomes durable.
 */
struct cow_counts_deltas {
	struct cow_map map; /* by piece index */
	struct cow_counts_delta *stale; /* list */
	int64_t pending; /* of all */
};

struct cow_counts_selectors { /* durable */
	uint8_t bytes[COW_BLOCK];
};

struct cow_counts_region { /* of 512 groups */
	uint64_t ensured[COW_SELECTORS / 64];
	uint64_t refused[COW_SELECTORS / 64]; /* the host had no space for it; tried again after the next commit */
	uint32_t freed[COW_SELECTORS]; /* the commit that last freed much of a group, which still has its space; or 0 */
	uint32_t discards; /* how many there were in the region */
	bool selectors_ensured; /* what lies above the region's pieces has its space on the host */
};

struct cow_counts_images {
	struct cow_counts_image **list; /* ascending */
	size_t count, size;
};

struct cow_counts_cursor {
	bool set;
	uint64_t group;
	uint32_t position; /* next fit within the group */
};

struct cow_counts {
	struct cow_dev *dev;
	pthread_mutex_t *lock;
	uint64_t total_blocks, groups;

	/* all below: lock */
	struct cow_counts_root root;
	uint64_t available, ready;
	uint8_t first_pass[COW_ALLOC_CLASSES]; /* of next_group(): those below found nothing since the last commit */
	bool host_full; /* the host refused space since the last commit */
	unsigned refusals; /* for how many groups */
	uint64_t asked_groups; /* of which the host was asked for space since the last commit */
	struct cow_map pieces; /* by index */
	struct cow_counts_piece *hand; /* of the clock: circular list of all pieces */
	size_t pieces_limit;
	struct cow_map selectors[COW_COUNT_LEVELS]; /* levels 1 to 3, by index */
	struct cow_map regions;
	uint32_t commits; /* since the volume was opened, from 1, and cow_counts_age() */
	uint64_t freed_groups; /* with a `freed` in their region */
	struct cow_counts_deltas open, sealed; /* sealed.map changes only in seal and durable */
	struct cow_counts_cursor cursors[COW_ALLOC_CLASSES];

	struct cow_counts_images next[COW_COUNT_LEVELS]; /* the committer's, between write and durable */
};

/* What cow_counts_load() gets: a piece or selector block, and whether its group is to have its space on the host. */
#define COW_MISS_ENSURE (1ull << 59)

static inline uint64_t cow_counts_miss(int level, uint64_t index)
{
	return (uint64_t)level << 60 | index;
}

/* ---- counts.c */

/* 0, or COW_MISS. */
int cow_counts_find_selector(struct cow_counts *counts, int level, uint64_t index, struct cow_counts_root *selector,
			     uint64_t *miss);
/* NULL: not in memory. */
struct cow_counts_piece *cow_counts_find_piece(struct cow_counts *counts, uint64_t index);
/* That of the open generation, made if need be. */
struct cow_counts_delta *cow_counts_open_delta(struct cow_counts *counts, uint64_t group);
bool cow_counts_has_changes(const struct cow_counts_delta *delta);

/* ---- counts_alloc.c */

/* Is the group known to have its space on the host? */
bool cow_counts_is_ensured(const struct cow_counts *counts, uint64_t group);
/* [not locked] Asks the host for its space. A host without space is no error: the group is refused then. */
int cow_counts_ensure_group(struct cow_counts *counts, uint64_t group);
/* The host may have space again: no group is refused any more. */
void cow_counts_forgive_host(struct cow_counts *counts);
/* The commit freed much of the group, which still has its space on the host. */
void cow_counts_note_freed(struct cow_counts *counts, uint64_t group, uint32_t commit);

#endif
