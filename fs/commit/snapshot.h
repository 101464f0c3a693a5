/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A holding: the volume as it was at one moment, for long walks that take no lock (diff, same, exclusive space). It is
 * taken at a seal, when nothing is dirty, and owns one more count of the volume's root, so nothing that could be
 * reached then changes or goes away before it is given back. Other operations do not wait for it: they copy what they
 * change, as below a clone.
 */
#ifndef COW_FS_COMMIT_SNAPSHOT_H
#define COW_FS_COMMIT_SNAPSHOT_H

#include "fs/core/volume.h"

/* One inode, as it was. */
struct cow_held {
	struct cow_record record; /* points into `bytes` */
	uint8_t bytes[COW_RECORD_MAX];
	/* its world: a directory's own, if it is a world's top */
	uint64_t top;         /* n of the world's top */
	struct cow_tree links;
	uint64_t backs, refs; /* back-references in links; references in the world */
	uint64_t link_bytes, link_blocks, link_files;
	/* Where it is: entry keys from the volume's root down; the first is the root's in the tree TOP. For a
	 * linked inode they lead to the top of its world, and link_key is its row there. An orphan has no way:
	 * count 0. */
	uint64_t *way;
	size_t way_count;
	uint64_t link_key;    /* 0: embedded */
};

struct cow_holding {
	struct cow_volume *volume;
	struct cow_ptr top, orphans; /* roots of the trees TOP and ORPHANS */
	struct cow_held held[2];
	unsigned count;
	uint64_t claims[2];   /* in the reclaim queue: the trees TOP and ORPHANS */
	unsigned claim_count;
};

/* Takes one or two inodes of one volume, at the same moment; commits. -- -ESTALE, -ENOSPC, -EIO */
int cow_holding_take(struct cow_holding *holding, struct cow_inode *const *inodes, unsigned count);
/* Takes the whole volume, orphans too. The same errors. */
int cow_holding_take_all(struct cow_holding *holding, struct cow_volume *volume);
void cow_holding_give(struct cow_holding *holding);

#endif
