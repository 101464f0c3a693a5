/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which link records hold space for nobody, and whether dropping them gives more than it takes. A clone has all records
 * of the world it was made in, so nearly every record that no name in it reaches is in use elsewhere: dropping it frees
 * nothing, and each clone needs nodes of its own for it. So the whole volume is looked at, as it is at one moment
 * (fs/commit/snapshot.h), without the lock:
 *
 *  1. Directories with references, each tree once: the ways to each, the worlds with garbage, what is named in these.
 *  2. Links of all other worlds are kept, and so is each node of theirs, whoever shares it.
 *  3. All other nodes are of worlds with garbage alone. A dry run drops the records in them that no name in such a
 *     world reaches; leaves with records whose content would be free by that are worth changing.
 *  4. Links that need more nodes for that than they give blocks are kept, too, and then 3 again.
 *
 * A name in a world with garbage protects its record in all of them, though another may have other content. What
 * changes afterwards makes the answer an estimate: who acts on it looks whether a name reaches the record.
 */
#ifndef COW_FS_RECLAIM_GARBAGE_H
#define COW_FS_RECLAIM_GARBAGE_H

#include "fs/reclaim/dryrun.h"
#include "fs/reclaim/ways.h"

struct cow_volume;

/* Starts as zeroes. */
struct cow_garbage {
	struct cow_map trees; /* of directories, by their roots: struct cow_ways_tree; the volume's root: 0 */
	/* within garbage.c */
	struct cow_store *store;
	struct cow_map named; /* link keys and directories in worlds with garbage */
	struct cow_map links; /* their links, by their roots: place in `list` + 1 */
	struct cow_garbage_links *list;
	size_t count, size;
	struct cow_garbage_todo *todo;
	size_t todo_count, todo_size;
	struct cow_map nodes; /* of links: struct node */
	struct cow_dryrun dry;
	unsigned round;
	uint64_t freed;       /* nodes, in this round */
	uint64_t *keys;       /* ascending, at the end */
	size_t key_count, key_size;
};

/*
 * Is it worth while? 1: yes, and cow_garbage_purges() and cow_garbage_next() say what is to go, and the `wanted` of
 * `trees` what leads there; 0; or an error. `room`: blocks there are for it. No locks are held; commits. O(directories
 * with references, nodes of links, dead content).
 */
int cow_garbage_find(struct cow_garbage *garbage, struct cow_volume *volume, uint64_t room);
/* Are the links with this root to be purged? */
bool cow_garbage_purges(const struct cow_garbage *garbage, uint64_t root);
/* The first key from *key on of a record or spine row that is to go from them. False: there is none. */
bool cow_garbage_next(const struct cow_garbage *garbage, uint64_t *key);
void cow_garbage_free(struct cow_garbage *garbage);

#endif
