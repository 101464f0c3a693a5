/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Does with a volume everything that can be done, whatever it holds, and ignores all answers: for images that somebody
 * has damaged. What must not happen is a crash, a failed assertion, or no end.
 */
#ifndef COW_TEST_LIB_EXERCISE_H
#define COW_TEST_LIB_EXERCISE_H

#include "dev/dev.h"

struct exercise {
	bool writable;
	uint64_t seed;        /* of what is done with which inode */
	unsigned looks;       /* entries to look at: a damaged tree may be endless; 0: 3,000 */
	unsigned changes;     /* 0: 80 */
	uint64_t cache_bytes; /* 0: as cow_open() */
};

/* Opens, walks, changes, closes. The device is closed. */
void exercise_volume(struct cow_dev *dev, const struct exercise *exercise);
/* Checks and dumps, which have to come to an end by themselves. The device stays the caller's. */
void exercise_offline(struct cow_dev *dev);
/* Repairs it, without an undo file. */
void exercise_repair(struct cow_dev *dev);

#endif
