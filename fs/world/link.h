/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hard links (doc/DESIGN.md, "Hard links"): the links tree of a world, with link rows (a record and the places of its
 * names) and spine rows (directory n -> parent n and key, for exactly the directories below the top that have link
 * references below them). A name counts only if climbing the spine from its directory reaches the world's top: that is
 * what makes a clone of a directory exact without looking at it.
 *
 * All locked. Functions that return int may miss, then nothing visible has changed. Others need what cow_link_prepare()
 * reserved.
 */
#ifndef COW_FS_WORLD_LINK_H
#define COW_FS_WORLD_LINK_H

#include "fs/core/inode.h"

/* Where directory n is, by its spine row. -ENOENT: there is none, COW_MISS */
int cow_link_spine(struct cow_inode *world, uint64_t dir, struct cow_back *up);
/* Does the spine lead from directory n to the top of `world`? 1, 0, COW_MISS, COW_ERR_DAMAGED (a ring). */
int cow_link_climb(struct cow_inode *world, uint64_t dir);
/* The live ones among them, copied; the caller frees. */
int cow_link_live(struct cow_inode *inode, struct cow_back **live, uint32_t *count);
/* The same of a list: *live is as long as that, and the caller frees it. COW_MISS */
int cow_link_live_of(struct cow_inode *world, const struct cow_back *backs, uint32_t count, struct cow_back **live,
		     uint32_t *live_count);
/* st_nlink, cached while the world's spine stays as it is. */
int cow_link_count(struct cow_inode *inode, uint32_t *nlink);

/* Reserves the world, its row `key` (0: none) and the spine rows of `dir` and all directories above it in the world. */
int cow_link_prepare(struct cow_inode *world, uint64_t key, struct cow_inode *dir);
/* Makes the spine exact again from `dir` to the top, after totals.refs changed. */
void cow_link_fix_spine(struct cow_inode *dir);
/* The directory n has moved to `up`, or (NULL) is gone from this world. */
void cow_link_set_spine(struct cow_inode *world, uint64_t dir, const struct cow_back *up);
/* Takes an inode's record out of links: it lives elsewhere from now on, or nowhere. Its claims stay the inode's. */
void cow_link_take_out(struct cow_inode *inode);
/* An embedded inode becomes the linked one `key` of `world`, with `back` as its first name. Reserved. */
void cow_link_put_in(struct cow_inode *inode, struct cow_inode *world, uint64_t key, struct cow_back back);
/* True if links holds rows that no name reaches. */
static inline bool cow_link_has_garbage(const struct cow_inode *world) { return world->back_sum > world->totals.refs; }
/* The world's references fell to 0 although links is not empty: its open inodes become orphans, links becomes empty. */
int cow_link_prepare_empty(struct cow_inode *world);
void cow_link_empty(struct cow_inode *world);
/* After references went away from a world in one step: empties links, or has the garbage purged in the background. */
void cow_link_settle(struct cow_inode *world);

#endif
