/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Replay: what the intent log says is done again, on top of the durable generation, before anybody else has the volume.
 * Each intent becomes the same public call that it was noted from, with the counter and the clock set to what they
 * were.
 * All of it becomes one commit, whose superblock voids the log; so replaying twice, after a cut in the middle, is
 * replaying once.
 */
#ifndef COW_FS_REPLAY_H
#define COW_FS_REPLAY_H

#include "fs/core/volume.h"

/*
 * Reads the log of a volume just opened, and replays it. *count: intents done; *end: the position behind the last
 * record. Does not commit. -- COW_ERR_DAMAGED: the log does not fit the volume; errors of the device
 */
int cow_replay(struct cow_volume *volume, uint64_t *count, uint64_t *end);
/* Are there records? Reads all of them. -- errors of the device */
int cow_replay_needed(struct cow_dev *dev, const struct cow_super *super, bool *needed);

#endif
