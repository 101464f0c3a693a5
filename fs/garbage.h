/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which link records hold space for nobody, and whether dropping them gives more than it takes. A clone has all records
 * of the world it was made in, so nearly every record that no name in it reaches is in use elsewhere: to drop it frees
 * nothing, and the clone needs nodes of its own for it. Dead is what no other world has either. Not locked: the
 * caller's, who puts in all worlds; what changes meanwhile makes it an estimate, never wrong to act upon.
 */
#ifndef COW_FS_GARBAGE_H
#define COW_FS_GARBAGE_H

#include "fs/record.h"
#include "fs/ways.h"

/* The links tree of one world, or of several that share it. */
struct cow_garbage_links {
	uint64_t ways;  /* to all these worlds */
	uint64_t depth; /* directories on the longest of them */
	uint64_t rows, dead;
	uint64_t gain;  /* bytes that dead records hold */
	bool weighed, worth;
};

/* Starts as zeroes. */
struct cow_garbage {
	struct cow_map links; /* by their roots' addresses: struct cow_garbage_links of worlds with garbage */
	struct cow_map named; /* link keys with names in such worlds */
	struct cow_map alive; /* records of worlds without garbage, by key and content */
	struct cow_map dead;  /* dead records that were counted */
	struct cow_garbage_row {
		uint64_t id, bytes;
	} *rows;              /* dead ones of the links that are being weighed */
	size_t row_count, row_size;
	uint64_t worlds;      /* with dead records, by all ways */
	uint64_t gain, cost;  /* bytes */
	struct cow_garbage_links *only;
};

/* Links of a world with garbage; the same for the same root. */
struct cow_garbage_links *cow_garbage_links(struct cow_garbage *garbage, uint64_t root);
void cow_garbage_named(struct cow_garbage *garbage, uint64_t key);
void cow_garbage_alive(struct cow_garbage *garbage, uint64_t key, const struct cow_link_row *row);
/* A record of these links, when all names and all that is alive is known; and the end of them. */
void cow_garbage_weigh(struct cow_garbage *garbage, struct cow_garbage_links *links, uint64_t key,
		       const struct cow_link_row *row, uint32_t length);
void cow_garbage_weighed(struct cow_garbage *garbage, struct cow_garbage_links *links);
/* When all are weighed: should those links that are `worth` it be purged? `room`: bytes there are for it. */
bool cow_garbage_is_worth(struct cow_garbage *garbage, uint64_t room);
/* May this record of such links be dropped, if no name in its world reaches it? */
bool cow_garbage_is_dead(const struct cow_garbage *garbage, uint64_t key, const struct cow_link_row *row);
void cow_garbage_free(struct cow_garbage *garbage);

#endif
