/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The store: one value, made of trees, that moves from one durable generation to the next.
 *
 * LOCKS, in the order in which they are taken:
 *   log      (mutex)   one record of the intent log at a time (fs/fsync.c)
 *   commit   (mutex)   one commit at a time
 *   gate     (rwlock)  shared by every operation for its whole length, its I/O included; exclusive for a seal
 *   lock     (mutex)   everything in memory: nodes, trees, counts, inodes. No I/O under it: what misses returns
 *                      COW_MISS with `miss` filled; the operation unlocks, loads, locks and starts again, so a
 *                      function may return COW_MISS only while what it has done is neutral (see tree.h).
 */
#ifndef COW_STORE_STORE_H
#define COW_STORE_STORE_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/map.h"
#include "cow.h"
#include "dev/dev.h"
#include "store/counts.h"
#include "store/log.h"
#include "store/ptr.h"
#include "store/super.h"

struct cow_node;
struct cow_tree;

/* What a value in a leaf claims: visited in place, so that a seal can put the addresses of written nodes in. */
struct cow_claims {
	void (*tree)(struct cow_claims *self, uint8_t *ptr /* COW_PTR_BYTES, may be null */, uint8_t kind);
	void (*run)(struct cow_claims *self, uint64_t block, uint32_t length);
};

/* What the layer above gives the store. `context` is handed back. */
struct cow_store_ops {
	/* Is this value well formed? Called once for each item of a leaf when it is read. 0 or COW_ERR_DAMAGED. */
	int (*validate)(uint8_t kind, uint64_t key, const uint8_t *value, uint32_t length, uint64_t total_blocks);
	/* Visits every claim of a value. */
	void (*claims)(uint8_t kind, uint8_t *value, uint32_t length, struct cow_claims *visitor);
	/* [locked, gate exclusive] Bring everything held elsewhere in memory into the trees. COW_MISS allowed. */
	int (*fold)(void *context);
	/* [locked, gate exclusive] All dirty nodes have addresses now: put them (cow_store_translate) into every
	 * pointer held elsewhere in memory. */
	void (*translate)(void *context);
	/* [locked, gate exclusive] The bytes for the superblock. */
	void (*user)(void *context, uint8_t user[COW_SUPER_USER]);
	/* [locked, gate exclusive] The seal is done: what comes now belongs to the next generation. */
	void (*sealed)(void *context);
	/* [not locked] Write file data placed before the seal. */
	int (*write_data)(void *context);
	/* [locked] The sealed generation is durable. */
	void (*durable)(void *context);
	void (*log)(void *context, int level, const char *text);
};

struct cow_miss {
	enum { COW_MISS_NODE, COW_MISS_COUNTS, COW_MISS_DATA, COW_MISS_ROOM } what;
	struct cow_ptr node;
	uint8_t kind; /* of the node */
	int level;    /* of the node; -1: any */
	uint64_t counts;
	uint64_t block; /* DATA: a block of file data and its checksum */
	uint32_t sum;
	uint64_t blocks; /* ROOM: free ones, that would have to be there beside what is kept for others */
};

/* What an operation may take: it is reserved when the operation begins, and given back when it ends. */
struct cow_reservation {
	uint64_t blocks;  /* kept for it meanwhile */
	uint64_t lists;   /* blocks for lists of names, for which it was found to have room since its body began */
	uint64_t floor;   /* of a removal: blocks that must stay when something is taken for good; 0: it may take all */
	uint64_t missing; /* it was refused for lack of so many more */
	uint64_t more;    /* that it was found to have room for beyond these */
	uint64_t nodes;   /* that it has made dirty: no more than these two */
};

struct cow_store {
	struct cow_dev *dev;
	const struct cow_store_ops *ops;
	void *context;
	uint64_t total_blocks; /* as in `super`, but never written again: for readers without the lock */
	uint64_t opened;       /* the generation that was found when it was opened */

	pthread_mutex_t commit;
	pthread_rwlock_t gate;
	pthread_mutex_t lock;

	/* all below: lock */
	struct cow_super super;      /* of the last durable generation */
	struct cow_counts *counts;
	struct cow_log log;
	uint64_t generation;         /* being built: births carry it */
	struct cow_tree *roots;      /* COW_ROOTS, the newest state */
	uint64_t reclaim_key;        /* next key of the reclaim queue */
	struct cow_map held;         /* keys of the reclaim queue that readers hold, or that were given up */
	bool held_known;             /* all that is there from low to high is held */
	uint64_t held_low, held_high;
	unsigned given_up;
	uint64_t reclaim_trying;     /* key of the entry whose node, or count, the last step asked for; 0: none */
	uint64_t reclaim_count;
	uint64_t changes;            /* counts mutations; a commit that finds none new has nothing to do */
	uint64_t sealed_changes, durable_changes;
	atomic_bool read_only;       /* for good: opened so, or failed; read without the lock too */
	atomic_int failed;           /* the error that did it, or 0; the same */
	struct cow_miss miss;

	/* node cache, node.c */
	struct cow_map nodes;        /* by address or dirty number */
	struct cow_node *clock;      /* clean nodes, circular */
	uint64_t node_number;        /* of the next dirty node */
	uint64_t clean_nodes, clean_limit;
	uint64_t dirty_nodes;        /* not sealed */
	uint64_t dirty_records;      /* values that the next fold puts into leaves that are dirty already */
	uint64_t fold_blocks;        /* that it takes beside them */
	uint64_t dirty_pages;        /* blocks that buffered file data will need; kept by the layer above */
	uint64_t covered_pages;      /* those of them that need none in the end, as far as somebody has looked */
	uint64_t reserve;            /* blocks that are promised beside what is dirty; set by the layer above */
	struct cow_reservation *at_work; /* of the operation that has the lock; NULL: none, or it changes nothing */
	struct cow_node **sealed;    /* the nodes of the generation being committed, children first */
	size_t sealed_count, sealed_size;
};

#define COW_ROOT_RECLAIM 0 /* the only root that the store itself knows */
#define COW_KIND_RECLAIM 1 /* the only kind of tree that the store itself knows; others: fs/format/record.h */

/* Does the error say that what was read is not what was written? A disk that refuses to read is no better. */
static inline bool cow_is_damage(int error)
{
	return error == COW_ERR_DAMAGED || error == -EIO;
}

/* Makes an empty store with the given kinds of roots on a device; `super` holds uuid, total_blocks, user. */
int cow_store_format(struct cow_dev *dev, struct cow_super *super);
/* `cache_bytes` limits clean nodes. The device stays the caller's. */
int cow_store_open(struct cow_dev *dev, bool read_only, uint64_t cache_bytes, const struct cow_store_ops *ops,
		   void *context, struct cow_store **store);
void cow_store_close(struct cow_store *store);

/* [locked] After COW_MISS: unlocks, loads what `miss` names, locks. *pin: the node loaded (pinned), if it is one. */
int cow_store_fill(struct cow_store *store, struct cow_node **pin);
/* Turns the volume read-only with one message. Any lock state; returns `error`. */
int cow_store_fail(struct cow_store *store, int error, const char *what);
/* [locked, in ops.translate] Replaces the number of a dirty node by its address. */
void cow_store_translate(struct cow_store *store, struct cow_ptr *ptr);
/* [locked] Blocks that a commit takes at the most, if nothing else changes before it. */
uint64_t cow_store_due(const struct cow_store *store);
/* [locked] Blocks that may still be promised: allocatable, less what is due. */
uint64_t cow_store_unpromised(const struct cow_store *store);
/* [locked] Before so many blocks are taken for good: COW_MISS if a removal is at work, and what is left is kept for
 * those that really give space back. */
int cow_store_check_floor(struct cow_store *store, uint64_t blocks);
/* [locked] Blocks that are free when all that is done now is durable, but for what the commit itself takes: nothing may
 * rely on it. What waits for reclaim is not among them. See cow_counts_free(). */
uint64_t cow_store_free_blocks(const struct cow_store *store);

/* ---- commit.c */

/*
 * Makes everything durable that was changed before the call; takes commit and gate itself. `hook` (may be NULL) runs
 * once, locked and with the gate exclusive, right after the fold, when no node is dirty any more: what it shares is
 * immutable. Without changes and hook nothing is written. -- -ENOSPC: the host is full, nothing has happened; every
 * other error turns the volume read-only.
 */
int cow_store_commit(struct cow_store *store, int (*hook)(void *context), void *hook_context);
/*
 * Space that commits freed goes back to the host some commits later, a part at a time; true: there is more. What is
 * promised to somebody stays.
 */
enum cow_trim_which {
	COW_TRIM_OLD,    /* what was freed some commits ago: commits do this themselves */
	COW_TRIM_ALL,
	COW_TRIM_UNSURE, /* only what does not count as ready; the host may give it back in another place */
	COW_TRIM_LAST,   /* all, and nothing is promised: before the volume is closed */
};
bool cow_store_trim(struct cow_store *store, enum cow_trim_which which);
/* A commit was due, but there was nothing to commit: for the age of what was freed it was one. */
void cow_store_age(struct cow_store *store);
/* Until a commit or a trim that is under way has ended. */
void cow_store_wait(struct cow_store *store);

/* ---- reclaim.c: a tree of (pointer, kind), each owning one count of its node */

/* [locked] Hands a tree over; null pointers are fine. Cannot fail or miss once the queue is reserved (see below). */
void cow_reclaim_push(struct cow_store *store, struct cow_ptr root, uint8_t kind);
/* [locked] Reserves the queue's path, so that a push right after cannot miss. Neutral. COW_MISS. */
int cow_reclaim_reserve(struct cow_store *store);
/* [locked, reserved] The same, but the entry is kept until cow_reclaim_release(): a reader holds the tree. */
uint64_t cow_reclaim_hold(struct cow_store *store, struct cow_ptr root, uint8_t kind);
/* [locked] */
void cow_reclaim_release(struct cow_store *store, uint64_t key);
/* [locked, reserved] A value is dropped: its runs lose a count, its trees go to the queue. */
void cow_reclaim_value(struct cow_store *store, uint8_t kind, uint8_t *value, uint32_t length);
/* [locked] Takes one pointer: 1 = did something, 0 = the queue is empty (but for held entries), or COW_MISS. */
int cow_reclaim_step(struct cow_store *store);
/* [locked] A step could not read what it asked for, which reclaim_trying says. True: that was one entry's alone, which
 * stays in the queue and is left alone from now on, with a message; others can go on. */
bool cow_reclaim_give_up(struct cow_store *store, uint64_t trying, int error);
/* [locked] The queue itself cannot be read as a whole: it becomes the only entry of a new one. */
void cow_reclaim_begin_anew(struct cow_store *store);

#endif
