/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The superblock ring (doc/FORMAT.md, "Superblock"): generation g lives in slot g mod COW_SUPER_SLOTS, as copy A
 * (block slot) and copy B (block 8 + slot). Copy B is written only after copy A was flushed; the newest valid copy
 * wins.
 *
 * A superblock is one sector of 512 bytes; the rest of its block is zero and never looked at. It has to be: if it
 * spanned several, one that a power cut left torn could become whole again by another torn write over it, and speak of
 * a generation whose blocks have been given to others since.
 */
#ifndef COW_STORE_SUPER_H
#define COW_STORE_SUPER_H

#include <stdbool.h>
#include <stdint.h>

#include "dev/dev.h"
#include "store/counts.h"
#include "store/ptr.h"

#define COW_FORMAT_VERSION 1u
#define COW_ROOTS 8u /* trees that hang off the superblock, see fs/core/volume.h for who is who */
#define COW_SUPER_USER 128u /* bytes for the layer above: counters, hash key */
#define COW_SUPER_BYTES 512u /* of the block that mean something */

/* Generations are below END. No volume gets to LAST by commits; one that says so is not written any more, so that there
 * is always a next generation. */
#define COW_GENERATION_LAST (1ull << 62)
#define COW_GENERATION_END (1ull << 63)

#define COW_COMPAT_KNOWN 0ull
#define COW_RO_COMPAT_KNOWN 0ull
#define COW_INCOMPAT_LOG 1ull /* there is an intent log, which whoever opens the volume has to look at */
#define COW_INCOMPAT_KNOWN COW_INCOMPAT_LOG

/* Where the intent log is and begins (log.h). All zero: there is none. */
struct cow_log_root {
	uint64_t start;    /* first block of the ring, see cow_layout_ring() */
	uint32_t blocks;   /* its length */
	uint64_t position; /* of the first record that is not void: block number, counted on round after round */
	uint64_t nonce;    /* of the mount that writes records */
	uint64_t chain;    /* what the record at `position` must be chained to */
};

struct cow_super {
	uint8_t uuid[16];
	uint32_t version;
	uint64_t compat, ro_compat, incompat;
	uint64_t generation;
	uint64_t total_blocks;
	struct cow_counts_root counts;
	struct cow_ptr roots[COW_ROOTS];
	uint8_t root_kinds[COW_ROOTS];
	struct cow_log_root log;
	uint8_t user[COW_SUPER_USER];
};

/* Encodes into one block, with the checksum of its first COW_SUPER_BYTES. */
void cow_super_encode(const struct cow_super *super, uint8_t block[COW_BLOCK]);
/* Validates everything. -- COW_ERR_NOT_VOLUME (no magic), COW_ERR_DAMAGED, COW_ERR_NEWER */
int cow_super_decode(const uint8_t block[COW_BLOCK], struct cow_super *super);

/*
 * Finds the newest valid copy. *decayed is set if a slot newer than it, or that ought to hold it, can be seen to have
 * gone bad other than by being torn in its making (both copies invalid where an older generation's would be valid, or
 * zero): then the volume must be opened read-only. -- COW_ERR_NOT_VOLUME, COW_ERR_DAMAGED, COW_ERR_NEWER, -EIO
 */
int cow_super_read(struct cow_dev *dev, struct cow_super *super, bool *decayed);
/*
 * What was read becomes whole in both copies, before anything else is written: a cut may have torn one of them, and
 * only so is the next cut in the same slot, a round later, still seen to be a cut and not decay.
 */
int cow_super_mend(struct cow_dev *dev, const struct cow_super *super);
/* Writes copy A, flushes, writes copy B: then the generation is durable (B becomes so with the next flush). */
int cow_super_write(struct cow_dev *dev, const struct cow_super *super);
/* Format: writes generation 1, and zeros in the other slots. */
int cow_super_format(struct cow_dev *dev, const struct cow_super *super);

#endif
