/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers (doc/DESIGN.md, "Inode numbers"): n, tags and link keys from one counter; colours of worlds; st_ino.
 *
 * A persistent table, the tree COW_ROOT_NUMBERS, holds rows of 25 bytes (u8 type, u64 a, u64 b, u64 value):
 *     COLOUR (1)  a: colour of the surrounding world, b: tag    -> colour
 *     CHUNK (2)   a: colour, b: n >> 24                         -> chunk; st_ino = chunk << 24 | (n & 0xffffff)
 *     FREE_CHUNK (3)   a: the chunk, b: 0                    -> generation in which it became free
 * Key: type << 56 | bits 7 to 55 of a keyed hash of (a, b) | ordinal.
 *
 * Rows made by look-ups are never refused: without space, or on a read-only volume, they live in memory until the
 * volume is closed. Rows made by rename belong to the operation.
 *
 * All functions are locked; COW_MISS is possible wherever an int is returned, and then nothing has changed.
 */
#ifndef COW_FS_WORLD_INODE_NUMBER_H
#define COW_FS_WORLD_INODE_NUMBER_H

#include "fs/core/volume.h"

#define COW_CHUNK_SHIFT 24

/* The next n, tag or link key. */
uint64_t cow_number_next(struct cow_volume *volume);
/* The colour of what carries `tag` in a world of colour `parent`; tag 0: that same colour. Makes the row if need be. */
int cow_number_colour(struct cow_volume *volume, uint64_t parent, uint64_t tag, uint64_t *colour);
/* st_ino of (colour, n). Makes the row if need be. */
int cow_number_ino(struct cow_volume *volume, uint64_t colour, uint64_t n, uint64_t *ino);
/* Before set or drop: makes sure that they cannot miss. */
int cow_number_reserve(struct cow_volume *volume, uint64_t parent, uint64_t tag);
/* Rename: the row (parent, tag) -> colour, in the table. Reserved. */
void cow_number_set(struct cow_volume *volume, uint64_t parent, uint64_t tag, uint64_t colour);
/* Replay of the intent log: a row that a look-up made. COW_ERR_DAMAGED: it is there. */
int cow_number_restore(struct cow_volume *volume, const struct cow_row *row);
/* The row's entry is gone. Tag 0: nothing. Reserved. */
void cow_number_drop(struct cow_volume *volume, uint64_t parent, uint64_t tag);
/* So many rows have been dropped that a sweep is worth while, or one has not come to its end. */
bool cow_number_may_sweep(const struct cow_volume *volume);
/* Removes the rows of colours that cannot be reached from 0, or from an inode in memory, over rows, for
 * use again after the next commit: as many as there is room for. *at is 0, and kept over misses. 1: some are left, and
 * a commit makes room; 0: done, or there was no room for any. An error ends the sweep. */
int cow_number_sweep(struct cow_volume *volume, uint64_t *at);
/* Frees the rows that live in memory, at close. */
void cow_number_forget(struct cow_volume *volume);
#endif
