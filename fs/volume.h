/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An open volume: the store, what is in memory above it, the counters, and the commit thread. */
#ifndef COW_FS_VOLUME_H
#define COW_FS_VOLUME_H

#include <pthread.h>

#include "fs/file.h"
#include "fs/inode.h"
#include "store/store.h"

/* Roots in the superblock. */
enum {
	COW_ROOT_TOP = 1,     /* one entry (key COW_KEY_FIRST, no name): the root directory */
	COW_ROOT_ORPHANS = 2, /* key: fresh number; entry without name */
	COW_ROOT_NUMBERS = 3,
};

/* In the superblock's user bytes. */
struct cow_counters {
	uint64_t number;  /* next n, tag or link key: one counter */
	uint64_t colour;  /* next never used */
	uint64_t chunk;
	uint8_t hash_key[16];
};

struct cow_volume {
	struct cow_store *store;
	struct cow_dev *dev;
	struct cow_open_options options;
	uint64_t dirty_limit; /* buffered pages before writers are throttled */

	/* store lock */
	struct cow_counters counters;
	struct cow_inode *root;
	struct cow_inode *dirty;   /* list */
	uint64_t dirty_count;
	struct cow_inode *open;    /* list */
	struct cow_flight flight;
	struct cow_map rows;       /* number.c: what look-ups resolved, and rows that live in memory only */

	/* commit thread */
	pthread_t thread;
	pthread_cond_t wake, done;
	bool running, stop, urgent;
};

/* For tests: on any device, which the volume then owns. */
int cow_volume_format(struct cow_dev *dev, const struct cow_format_options *options);
int cow_volume_open(struct cow_dev *dev, const struct cow_open_options *options, struct cow_volume **volume);
/* For tests: throws everything away that is not durable, as a crash does. Closes the device too. */
void cow_volume_abandon(struct cow_volume *volume);

#endif
