/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device in memory that can be put back to what it was, at the cost of what was written to it: for tests that do the
 * same volume some harm, thousands of times over.
 */
#ifndef COW_TEST_LIB_SCRATCH_H
#define COW_TEST_LIB_SCRATCH_H

#include "dev/dev.h"

struct scratch;

/* Starts as a copy of what is on `dev` now. */
struct scratch *scratch_new(struct cow_dev *dev);
void scratch_free(struct scratch *scratch);
/* For cow_volume_open(), which closes it; nothing is lost then. */
struct cow_dev *scratch_attach(struct scratch *scratch);
/* What it was in the beginning. */
void scratch_reset(struct scratch *scratch);
void scratch_flip(struct scratch *scratch, uint64_t block, unsigned bit);
/* The block as it was, and as it is. */
const uint8_t *scratch_before(const struct scratch *scratch, uint64_t block);
const uint8_t *scratch_now(const struct scratch *scratch, uint64_t block);
/* The next `count` writes (flushes, too, if `flush`) fail with -EIO after `skip` that do not. */
void scratch_fail(struct scratch *scratch, bool flush, uint64_t skip, uint64_t count);
/* Reads of this block fail with -EIO; 0: none. */
void scratch_unreadable(struct scratch *scratch, uint64_t block);
/* Writes the image as it was to a sparse file. */
int scratch_save(const struct scratch *scratch, const char *path);

#endif
