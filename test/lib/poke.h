/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes bytes of a stored volume and makes all checksums above them fit again, up to the superblock: what a bug, or
 * somebody who wants harm, would leave behind.
 */
#ifndef COW_TEST_LIB_POKE_H
#define COW_TEST_LIB_POKE_H

#include "fs/format/record.h"
#include "store/super.h"

struct poke;

/* Called for each item of each leaf of the kind, in order, until it returns true: it has changed the value (or the key,
 * in its slot), or the whole node, in place. */
typedef bool (*poke_item_fn)(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length);
/* The same for each node, before its items; level 0: a leaf. */
typedef bool (*poke_node_fn)(void *context, uint8_t *node);

/* Changes the first item that `fn` likes. False: there was none. */
bool poke_item(struct cow_dev *dev, uint8_t kind, poke_item_fn fn, void *context);
bool poke_node(struct cow_dev *dev, poke_node_fn fn, void *context);
/* Changes the superblock. */
void poke_super(struct cow_dev *dev, void (*fn)(void *context, struct cow_super *super), void *context);
/* Adds to the stored count of a block. */
void poke_count(struct cow_dev *dev, uint64_t block, int change);
/* Flips bytes of a random node, checksums fitting. */
void poke_random(struct cow_dev *dev, uint64_t seed, unsigned bytes);

#endif
