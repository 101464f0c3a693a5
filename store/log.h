/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The intent log: a ring of blocks with records of what was promised since the last commit (doc/DESIGN.md, "The intent
 * log"). What a record means is known above the store; here it is a string of bytes that becomes durable with one
 * write.
 *
 * POSITIONS count the blocks written since the volume was made, round after round; block `position` lies at index
 * position % blocks of the ring. A record takes whole blocks, the header first. The superblock names the first position
 * that is not void: everything before it is in the generation that the superblock speaks of.
 *
 * A RECORD IS VALID if its checksum fits, and its nonce (one for each opening of the volume), its position and the
 * checksum of the record before it are as expected. So what a torn record left behind, what lies beyond it and what an
 * earlier round or an earlier opening wrote can never be taken for a record: reading ends there.
 *
 * Records are appended only after a commit of this opening is durable, because only then the superblock holds its
 * nonce; and by one thread at a time (the caller's business). all that changes: store lock.
 */
#ifndef COW_STORE_LOG_H
#define COW_STORE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "dev/dev.h"
#include "store/super.h"

#define COW_LOG_HEADER 64u /* bytes of a record before its payload */

struct cow_log {
	struct cow_dev *dev;
	uint64_t start;
	uint32_t blocks;      /* 0: there is no log */
	uint64_t head, chain; /* where the next record goes, and what it is chained to */
	uint64_t tail;        /* first position that is not void by the durable superblock */
	uint64_t nonce;
	uint64_t broken;      /* records before this position did not all arrive: no more until they are void */
	bool usable;
};

/* A ring for a new volume of that size. */
void cow_log_plan(uint64_t total_blocks, struct cow_log_root *root);
/* From the superblock; `end` and `chain` are where cow_log_read() stopped. */
void cow_log_open(struct cow_log *log, struct cow_dev *dev, const struct cow_super *super, uint64_t end);
/*
 * Hands out the payloads of all valid records in order. *end: the position behind the last one. A result of `fn`
 * other than 0 ends it and is returned. -- errors of the device
 */
typedef int (*cow_log_fn)(void *context, const uint8_t *payload, size_t length);
int cow_log_read(struct cow_dev *dev, const struct cow_super *super, cow_log_fn fn, void *context, uint64_t *end);

/* Blocks that a payload of that length takes. */
static inline uint32_t cow_log_blocks(size_t length)
{
	return (uint32_t)((length + COW_LOG_HEADER + COW_BLOCK - 1) / COW_BLOCK);
}
/* [locked] Is there room for it now? */
bool cow_log_fits(const struct cow_log *log, size_t length);
/* [locked] So full that a commit should make room. */
bool cow_log_is_filling(const struct cow_log *log);
/*
 * [locked, it fits] Makes the bytes, a header's room and a payload, the next record. `bytes` is aligned to a block and
 * has room for whole blocks. Returns its position.
 */
uint64_t cow_log_append(struct cow_log *log, uint8_t *bytes, size_t length);
/* [not locked, in the order of appending] Writes it; durable when it returns. */
int cow_log_write(const struct cow_log *log, const uint8_t *bytes, size_t length, uint64_t position);
/* [locked] A record could not be written. What comes behind it could not be read: a commit must make it void first. */
void cow_log_break(struct cow_log *log);

/* [locked, gate exclusive] What the superblock of the generation being sealed says. */
void cow_log_seal(const struct cow_log *log, struct cow_log_root *root);
/* [locked] That superblock is durable. */
void cow_log_durable(struct cow_log *log, const struct cow_log_root *root);

#endif
