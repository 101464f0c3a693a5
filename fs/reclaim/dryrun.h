/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A dry run of reclaim: which blocks would be freed if some claims went. A block is, if the claims that went are all it
 * has; then what it points to loses a claim, too. Not locked; what it looks at must be held (fs/commit/snapshot.h).
 *
 * SLACK. The holding itself has one count of the volume's root. Where the volume has moved on meanwhile, it has
 * copied nodes on its way, and each copy claims what the held node points to once more. So from the root down, as
 * long as a held node is left with the holding's count alone, one count of each of its children may be the newer
 * state's: it is the same tree, and does not make anything shared.
 */
#ifndef COW_FS_RECLAIM_DRYRUN_H
#define COW_FS_RECLAIM_DRYRUN_H

#include "base/map.h"
#include "store/store.h"

struct cow_dryrun {
	struct cow_claims visitor; /* takes claims away */
	struct cow_store *store;
	struct cow_map seen;       /* shared block -> claims met */
	struct cow_map entered;    /* nodes */
	struct cow_dryrun_node *pending;
	size_t count, size;
	uint8_t slack;             /* of what the visited claims are in */
	uint64_t blocks;           /* that would be freed */
	int error;
};

void cow_dryrun_begin(struct cow_dryrun *d, struct cow_store *store);
void cow_dryrun_end(struct cow_dryrun *d);
/* After claims went: frees what has none left, and what that alone points to. */
int cow_dryrun_go(struct cow_dryrun *d);
/* Claims of a block that were met; only of blocks that have several. */
uint64_t cow_dryrun_met(const struct cow_dryrun *d, uint64_t block);
/* Would it be freed? */
bool cow_dryrun_is_free(struct cow_dryrun *d, uint64_t block);

#endif
