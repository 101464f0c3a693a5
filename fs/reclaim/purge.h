/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Garbage in links (doc/DESIGN.md, "Garbage in links"): a clone has all link records of the world it was made in, also
 * those of files that have no name in it. That does no harm until the file's last name elsewhere goes: from then on
 * the record holds its space for nobody. A purge walks the directories that have link references below them (totals
 * say which) to the worlds whose links hold more back-references than there are references, and drops what holds space
 * for nobody (fs/reclaim/garbage.h).
 */
#ifndef COW_FS_RECLAIM_PURGE_H
#define COW_FS_RECLAIM_PURGE_H

#include "fs/core/volume.h"

/* Worlds that operations have left garbage in. 0 or an error; with `until` it does not commit, and 1: there was no
 * room, or no time, for all of them. */
int cow_purge_queued(struct cow_volume *volume, const struct timespec *until);
/*
 * All worlds of the volume, by every way to them, if that gives more than it takes. 1: for lack of room it must be
 * called again when what it dropped has been reclaimed. 0 or an error. O(directories with references below them, nodes
 * of their links, ways to what is dropped).
 *
 * Both take the lock in bounded steps, and commit when there is much to write.
 */
int cow_purge_all(struct cow_volume *volume);

#endif
