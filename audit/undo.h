/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Undo files: what a repair is about to overwrite.
 *
 * A head of 64 bytes: "cowundo1", u64 number of blocks, the volume's uuid (16), u64 generation before, u64 generation
 * that the repair makes, 8 bytes of zero, u64 XXH3_64bits of the 56 bytes before. Then for each block: u64 its
 * number, u64 XXH3_64bits of its content, its 4,096 bytes.
 */
#ifndef COW_AUDIT_UNDO_H
#define COW_AUDIT_UNDO_H

#include "dev/dev.h"
#include "store/super.h"

struct cow_undo {
	uint8_t uuid[16];
	uint64_t before, after; /* generations */
};

/* Writes the present content of the blocks to a new file, durably. -- -EEXIST, errors of open(2) and write(2) */
int cow_undo_save(const char *path, const struct cow_undo *undo, struct cow_dev *dev, const uint64_t *blocks,
		  size_t count);
/* Brings it back. -- -EINVAL, COW_ERR_DAMAGED, -ESTALE, see cow_repair_undo() */
int cow_undo_restore(const char *path, struct cow_dev *dev);

#endif
