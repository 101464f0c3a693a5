/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device over another one: what is written stays in memory, everything else is read from below. A change of a whole
 * volume is made and looked at on it, before the first byte of the volume itself is touched.
 */
#ifndef COW_DEV_DEV_OVERLAY_H
#define COW_DEV_DEV_OVERLAY_H

#include "dev/dev.h"

/* The device below stays the caller's. */
struct cow_dev *cow_overlay_new(struct cow_dev *below);
/* The content of a block of 4,096 bytes that was written, or NULL; valid until it is written again. */
const uint8_t *cow_overlay_block(const struct cow_dev *overlay, uint64_t block);
/* The blocks written, ascending; the caller frees. */
uint64_t *cow_overlay_list(const struct cow_dev *overlay, size_t *count);

#endif
