/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Counts: how many stored pointers lead to each block, and the allocation of blocks whose count is 0.
 *
 * ON DISK (doc/FORMAT.md, "Counts"). One 32-bit count a block; 1,024 counts are a piece of one block, with two slots at
 * fixed places (layout.h). Which slot is live is said by a selector, 8 bytes, in the parent:
 *     u32 checksum of the live slot (low half of XXH3_64bits), u32: bits 0-29 free blocks below, bit 30 slot,
 *     bit 31 initialised.
 * 512 selectors are a selector block, again with two slots and a selector one level up; the level-3 block's
 * selector is the struct cow_counts_root in the superblock (its free count does not fit 30 bits). A piece or
 * selector block that is not initialised reads as "nothing allocated": counts 0, but 1 for system blocks and
 * for blocks at or beyond total_blocks. Formatting therefore writes nothing but the superblock. When a slot is
 * written for the first time, both slots are (the image does not grow later).
 *
 * IN MEMORY (doc/DESIGN.md, "Counts in memory"). The durable pieces that were needed, evicted by a clock above a byte
 * limit, and two delta maps: *open* (the generation being built) and *sealed* (the one being committed). A delta map
 * has, for each piece touched, 1,024 signed changes and 1,024 bits "allocated in this generation". Changing a count
 * reads nothing.
 *
 * ALLOCATION RULE. A block is handed out only if its durable count is 0 and it was not allocated since the last
 * durable commit (its bit is set in neither map). A block freed in a generation can so be used again only after
 * that generation is durable. Readers hold the volume's gate across their I/O and a seal waits for the gate, so no
 * reader can still be reading a block when it is handed out again.
 *
 * LOCKS. `lock` (the store's) is held by the caller of everything marked [locked]; these never do I/O. Where they
 * need a piece that is not in memory they return COW_MISS and say which in *miss; the caller unlocks, calls
 * cow_counts_load() and tries again.
 */
#ifndef COW_STORE_COUNTS_H
#define COW_STORE_COUNTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "dev/dev.h"
#include "store/layout.h"

#define COW_MISS (-4000) /* internal: something must be read first; never leaves the library */

struct cow_counts;

/* The selector of the level-3 block, in the superblock. All zero: a volume just formatted. */
struct cow_counts_root {
	uint32_t sum;
	uint8_t slot; /* 0 or 1 */
	uint8_t initialised; /* 0 or 1 */
	uint64_t free_blocks; /* blocks with count 0 in the whole volume; meaningless unless initialised */
};

/* Two streams of allocation, kept apart so that nodes lie together. */
enum cow_alloc_class { COW_ALLOC_NODE, COW_ALLOC_DATA, COW_ALLOC_CLASSES };

/*
 * Loads the path to the root block; `cache_bytes` limits the durable pieces in memory. -- -EIO (a checksum does
 * not fit: COW_ERR_DAMAGED), -ENOMEM
 */
int cow_counts_open(struct cow_dev *dev, pthread_mutex_t *lock, uint64_t total_blocks,
		    const struct cow_counts_root *root, uint64_t cache_bytes, struct cow_counts **counts);
/* The same without loading anything: for a volume whose root block is damaged, and which is to be read. */
int cow_counts_open_unread(struct cow_dev *dev, pthread_mutex_t *lock, uint64_t total_blocks,
			   const struct cow_counts_root *root, uint64_t cache_bytes, struct cow_counts **counts);
void cow_counts_close(struct cow_counts *counts);
/* [not locked] For tests: so few pieces in memory from now on. With one, whoever needs two would wait for ever. */
void cow_counts_limit(struct cow_counts *counts, size_t pieces);

/* [locked] The count of `block` as of now: durable + sealed + open. 0 or COW_MISS with *miss set. */
int cow_counts_get(struct cow_counts *counts, uint64_t block, uint32_t *count, uint64_t *miss);
/* [locked] Adds `change` to the counts of `length` blocks, in the open generation. Asserts on system blocks. */
void cow_counts_add(struct cow_counts *counts, uint64_t block, uint32_t length, int change);
/*
 * [locked] Hands out a run of 1 to `want` blocks (as long as is found at the class's cursor, next fit, then the
 * group with most free blocks by descending the selectors); their counts become 1 in the open generation.
 * 0, COW_MISS with *miss set, or -ENOSPC: no block may be allocated before a commit.
 */
int cow_counts_alloc(struct cow_counts *counts, enum cow_alloc_class class, uint32_t want, uint64_t *start,
		     uint32_t *length, uint64_t *miss);
/* [locked] Blocks that alloc could hand out now, as far as is known of the host: see cow_counts_prepare(). */
uint64_t cow_counts_available(const struct cow_counts *counts);
/* [locked] Those of them in groups that are known to have their space on the host: alloc of these cannot fail. */
uint64_t cow_counts_ready(const struct cow_counts *counts);
/*
 * [locked] Blocks that alloc could hand out if the open generation were durable: what is available, and what was given
 * up and waits for that. A block counts when its last count is gone, wherever the commits under way are. What was given
 * up since the last cow_counts_settle() may be missing.
 */
uint64_t cow_counts_free(const struct cow_counts *counts);
/* [locked] Nothing is missing there. */
bool cow_counts_is_settled(const struct cow_counts *counts);
/* [locked] Looks at the groups in which counts were changed since the last time, so many at the most. 0, 1: there are
 * more, or COW_MISS with *miss set. */
int cow_counts_settle(struct cow_counts *counts, unsigned groups, uint64_t *miss);
/* System blocks of the volume. */
uint64_t cow_counts_system(const struct cow_counts *counts);

/*
 * [not locked] Brings what *miss named into memory: reads it, verifies it against its selector, and asks the device
 * to make sure of the group's space where alloc wants it. Takes the lock itself for the insertion. May find it
 * already there. A host that refuses the space is no error: alloc then keeps to groups that have it, and says -ENOSPC
 * when they are used up, until the next commit or cow_counts_prepare(). -- COW_ERR_DAMAGED, errors of the device
 */
int cow_counts_load(struct cow_counts *counts, uint64_t miss);
/*
 * [not locked] Asks the host for space until `blocks` blocks are ready (or all that are free), before they are
 * promised to somebody: so a full host shows as -ENOSPC there, and not in the middle of a commit. Cheap if they are.
 */
int cow_counts_prepare(struct cow_counts *counts, uint64_t blocks);
/*
 * [not locked] Reads the live slot of a piece (level 0) or selector block from the device, also if it is in memory,
 * and verifies it. *used: it is initialised, so there is something below it. *block: where it is. *wrong: what is
 * wrong, with COW_ERR_DAMAGED or an error of the device; NULL: it lies above.
 */
int cow_counts_verify(struct cow_counts *counts, int level, uint64_t index, bool *used, uint64_t *block,
		      const char **wrong);

/* ---- one commit at a time, in this order */

/* [locked] Open becomes sealed, a fresh open begins. No sealed generation may exist. */
void cow_counts_seal(struct cow_counts *counts);
/*
 * [not locked] Applies the sealed deltas: computes every changed piece and selector block, writes it to the slot
 * that is not selected, bottom-up, and returns the new root. A count that would go below 0 or above
 * COW_COUNT_MAX is COW_ERR_DAMAGED: the stored count, or a pointer that was followed, is wrong.
 * Does not flush. Nothing in memory changes for others yet.
 */
int cow_counts_write(struct cow_counts *counts, struct cow_counts_root *root);
/* [locked] The superblock with that root is durable: the written pieces become the durable ones, sealed is gone. */
void cow_counts_durable(struct cow_counts *counts);

/* ---- between commits */

#define COW_DISCARD_BLOCKS 256u /* runs of free blocks, 1 MiB, that are given back to the host */
struct cow_trim {
	uint32_t age; /* commits */
	bool unsure;  /* only groups that are not known to have their space on the host: none that are ready */
	/* [locked] So many blocks must stay ready, and be available meanwhile. NULL: none, nobody writes. */
	uint64_t (*promised)(void *context);
	void *context;
};

/*
 * [not locked, never beside a commit] Gives space back to the host: runs of free blocks in groups of which a commit
 * freed as much, if that was at least `age` commits ago; until then they are left to be used again, which costs the
 * host nothing. A few hundred groups at a time; true: call it again. What was freed before the volume was opened is not
 * known here.
 */
bool cow_counts_trim(struct cow_counts *counts, const struct cow_trim *trim);
/* [not locked] As a commit, for the age of what was freed. */
void cow_counts_age(struct cow_counts *counts);

/* ---- for check, dump and tests: reads what is on disk, without a struct cow_counts */

typedef int (*cow_counts_piece_fn)(void *context, uint64_t piece, const uint32_t *counts /* 1,024 */);
typedef void (*cow_counts_bad_fn)(void *context, int level, uint64_t index, const char *what);
/* Calls `piece` for every initialised piece in order, `bad` for every block that does not fit its selector, and
 * checks the free counts on the way. */
int cow_counts_scan(struct cow_dev *dev, uint64_t total_blocks, const struct cow_counts_root *root,
		    cow_counts_piece_fn piece, cow_counts_bad_fn bad, void *context);

#endif
