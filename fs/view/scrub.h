/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of a scrub share. scrub.c knows the order of things; scrub_pace.c keeps the pace that was asked for;
 * scrub_walk.c goes over the trees; scrub_name.c finds a name for a hard-linked file that is damaged.
 */
#ifndef COW_FS_VIEW_SCRUB_H
#define COW_FS_VIEW_SCRUB_H

#include <time.h>

#include "fs/commit/snapshot.h"
#include "store/walk.h"

struct cow_scrub_frame { /* a node that is being gone over */
	struct cow_node *node;
	unsigned index;     /* item that it is at */
	unsigned part;      /* leaf: how many of the trees that the item claims were begun */
	size_t path_length; /* of the path that the items' names are added to */
};

struct cow_scrub {
	struct cow_volume *volume;
	struct cow_store *store;
	const struct cow_scrub_options *options;
	struct cow_scrub_result *result;
	struct cow_map seen;     /* block / SEEN_BLOCKS -> a bit for each block that was read */
	struct cow_map young;    /* address -> generation of the node that was read there, if born since it began */
	uint64_t generation;     /* when it began: nodes born later may lie in blocks that were read before */
	struct timespec due;     /* when the next block may be read */
	struct timespec told;    /* when progress was */
	int stop;                /* what progress returned */

	/* the walk */
	struct cow_scrub_frame *frames;
	size_t depth, size;
	char *path;              /* of the item that it is at */
	size_t path_length, path_size;
	bool nameless;           /* orphans, numbers, reclaim: `path` means nothing */
};

/* Sets the bit. True: it was set. */
bool cow_scrub_see(struct cow_scrub *scrub, uint64_t block);
int64_t cow_scrub_nanoseconds(const struct timespec *from, const struct timespec *to);
/* Has read so many blocks: waits until that is no more than was allowed. */
void cow_scrub_pace(struct cow_scrub *scrub, uint64_t blocks);
/* -1 for no offset; the path is the walk's. */
void cow_scrub_tell(struct cow_scrub *scrub, uint64_t block, int64_t offset, const char *what, const char *wrong);

/*
 * Goes over all below a tree. `again` is asked from time to time, and gives the tree as it is then: it goes on where it
 * was.
 */
struct cow_scrub_tree {
	uint8_t kind;
	struct cow_ptr root;
	int (*again)(struct cow_scrub *scrub, struct cow_scrub_tree *tree); /* 0: as it was, 1: there is another root */
	void *context;
};
int cow_scrub_walk(struct cow_scrub *scrub, struct cow_scrub_tree *tree);

/* A path of the hard-linked file with that row, in the world whose top has the record and the path; to be freed, or
 * NULL: no name of it is in this world. */
char *cow_scrub_name(struct cow_store *store, const struct cow_record *world, const char *path, const uint8_t *row,
		     uint32_t length);

#endif
