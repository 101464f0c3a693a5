/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Count pieces and selector blocks as bytes: pure functions, and reading them from a device. A selector in memory is
 * a struct cow_counts_root whatever its level; of something not initialised its free_blocks is what a fresh one has.
 */
#ifndef COW_STORE_COUNTS_DISK_H
#define COW_STORE_COUNTS_DISK_H

#include "store/counts.h"

/* Free blocks below entry `index` of `level` as long as nothing was ever allocated there. */
uint64_t cow_counts_fresh_free(uint64_t total_blocks, int level, uint64_t index);
/* The content of a piece, or selector block, that is not initialised. */
void cow_counts_fresh_block(uint64_t total_blocks, int level, uint64_t index, uint8_t bytes[COW_BLOCK]);

/* Selector of the child with index `child` (a whole index, not one within the block) in a block of `level`. */
struct cow_counts_root cow_counts_selector(uint64_t total_blocks, int level, const uint8_t *bytes, uint64_t child);
void cow_counts_selector_put(uint8_t *bytes, uint64_t child, const struct cow_counts_root *selector);

uint32_t cow_counts_sum(const uint8_t bytes[COW_BLOCK]);
/* NULL if the block is well formed and has so many free blocks below, else what is wrong with it. */
const char *cow_counts_judge(uint64_t total_blocks, int level, uint64_t index, const uint8_t *bytes,
			     uint64_t free_blocks);
/* Reads the slot that an initialised selector says. *wrong: NULL or what is wrong (then COW_ERR_DAMAGED). */
int cow_counts_read(struct cow_dev *dev, uint64_t total_blocks, int level, uint64_t index,
		    const struct cow_counts_root *selector, uint8_t bytes[COW_BLOCK], const char **wrong);

#endif
