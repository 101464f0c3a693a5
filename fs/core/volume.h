/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An open volume: the store, what is in memory above it, the counters, and the commit thread. */
#ifndef COW_FS_CORE_VOLUME_H
#define COW_FS_CORE_VOLUME_H

#include <pthread.h>

#include "base/pool.h"
#include "fs/core/inode.h"
#include "fs/core/notes.h"
#include "fs/format/counters.h"
#include "store/store.h"

/* Roots in the superblock. */
enum {
	COW_ROOT_TOP = 1,     /* one entry (key COW_KEY_FIRST, no name): the root directory */
	COW_ROOT_ORPHANS = 2, /* key: fresh number; entry without name */
	COW_ROOT_NUMBERS = 3,
};

/* Pages placed but not yet written; one in the volume (volume->flight). All zero at the start. */
struct cow_flight {
	struct cow_radix small, large; /* device block -> struct cow_page, of small and of large files */
	uint64_t version;              /* last data_version given to any file of the volume: none is given twice */
};

#define COW_TOLD 64u /* lines of log that are remembered */

struct cow_volume {
	struct cow_store *store;
	struct cow_dev *dev;
	struct cow_dev *below; /* if dev is an overlay of it, made by cow_volume_open() */
	struct cow_open_options options;
	uint64_t dirty_limit; /* buffered pages before writers are throttled */
	uint64_t commit_pages; /* buffered pages that make a commit begin */
	uint64_t node_limit;  /* dirty nodes that call for a commit; at twice as many everybody waits */

	/* store lock */
	struct cow_counters counters;
	struct cow_inode *root;
	struct cow_inode *tracked; /* list: dirty, or pointing to dirty nodes */
	uint64_t reserved_blocks;  /* by operations under way: the sum of their reservations */
	struct cow_inode **purge;  /* worlds in memory whose links may hold garbage; each holds a reference */
	size_t purge_count, purge_size;
	unsigned purging;          /* threads that purge one which was among them */
	struct cow_inode *open;    /* list */
	struct cow_inode *all;     /* list */
	struct cow_buffered {
		struct cow_inode *first, *last;
	} buffered;                /* list: files with buffered pages (pages.c) */
	struct cow_flight flight;
	struct cow_pool pool;      /* of pages; has its own lock, below all others */
	struct cow_map rows;       /* inode_number.c: rows that live in memory only */
	uint64_t rows_for_now;     /* given out during replay */
	uint64_t rows_dropped;     /* since the last sweep */
	struct cow_rows {          /* inode_number.c: that a sweep has still to remove */
		struct cow_row *list;
		uint64_t *keys;
		size_t count, size;
	} dead;
	uint64_t changes;          /* operations that could change something */
	struct cow_purged {        /* what was when a purge for lack of space began that came to its end */
		uint64_t changes, room;
	} purged;
	uint64_t censuses;         /* of references, begun (census.c): for tests */
	uint64_t removals;         /* of directories: what was live before has to be looked at again; starts at 1 */

	/* lines of log, by their hash: so that each is said once for some time */
	struct cow_told {
		uint64_t hash;
		time_t seconds;
	} told[COW_TOLD]; /* told_lock, which is taken last */
	pthread_mutex_t told_lock;

	/* intent log */
	struct cow_notes notes;
	struct cow_waiter *waiting; /* for fsync: list */
	bool replaying;             /* one thread, before anybody else has the volume: no notes, no commits, and: */
	struct cow_when replayed;   /* the time that it is */
	pthread_mutex_t log;        /* one record at a time; taken before the gate */
	struct cow_log_buffer {
		uint8_t *bytes;     /* aligned */
		size_t size;
	} log_buffer;               /* log */

	/* commit thread */
	pthread_t thread;
	pthread_cond_t wake, done; /* done: a commit, or a purge */
	bool running, stop, urgent; /* store lock */
	int commit_error;           /* store lock: of the last commit, which left everything as it was; or 0 */
	bool has_thread;            /* the opener's */
};

/* [locked] Wakes the commit thread: now, or when it likes. */
void cow_volume_wake(struct cow_volume *volume, bool urgent);
/* [locked] There is something to purge or to reclaim. */
bool cow_volume_has_garbage(const struct cow_volume *volume);
/* Is it later than that, by the clock of the wall? NULL: never. */
bool cow_volume_is_late(const struct timespec *until);
/* The same line is said once a minute. */
void cow_volume_log(struct cow_volume *volume, enum cow_log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

int cow_volume_open(struct cow_dev *dev, const struct cow_open_options *options, struct cow_volume **volume);

#endif
