/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#include "base/bytes.h"

static const char magic[8] = "cow log";

enum { /* byte positions in a record's header */
	AT_MAGIC = 0,
	AT_SUM = 8,   /* XXH3_64bits of everything behind it, to the end of the payload */
	AT_NONCE = 16,
	AT_POSITION = 24,
	AT_CHAIN = 32, /* AT_SUM of the record before it */
	AT_LENGTH = 40, /* u32: of the payload */
	AT_ZERO = 44,
	AT_SUMMED = 16,
};

/* Blocks that get their place on the host at once, when the ring is written for the first time: a write over blocks
 * that the host has written before is durable much sooner. */
#define PAVED_BLOCKS 256u

static uint64_t first_group(void)
{
	return COW_PIECE_BLOCKS + 2u * COW_SLOT_FIRST; /* behind the first group, where the first nodes are */
}

void cow_log_plan(uint64_t total_blocks, struct cow_log_root *root)
{
	uint64_t blocks = total_blocks / 128;

	if (blocks < 2 * COW_LOG_BLOCKS_MIN)
		blocks = 2 * COW_LOG_BLOCKS_MIN;
	else if (blocks > COW_LOG_BLOCKS_MAX)
		blocks = COW_LOG_BLOCKS_MAX;
	*root = (struct cow_log_root){.start = first_group(), .blocks = (uint32_t)blocks};
}

/* ------------------------------------------------------------------ the ring */

/* How many of `count` blocks from `position` on lie in one piece. */
static uint32_t run_at(const struct cow_log_root *root, uint64_t position, uint32_t count)
{
	uint64_t index = position % root->blocks, first = cow_layout_ring(root->start, index);
	uint32_t n = 1;

	while (n < count && index + n < root->blocks && cow_layout_ring(root->start, index + n) == first + n)
		n++;
	return n;
}

static struct cow_log_root ring_of(const struct cow_log *log)
{
	return (struct cow_log_root){.start = log->start, .blocks = log->blocks};
}

static int read_blocks(struct cow_dev *dev, const struct cow_log_root *ring, uint8_t *bytes, uint32_t count,
		       uint64_t position)
{
	int error = 0;

	for (uint32_t n; count > 0 && error == 0; count -= n, position += n, bytes += (size_t)n * COW_BLOCK) {
		n = run_at(ring, position, count);
		error = cow_dev_read(dev, bytes, (size_t)n * COW_BLOCK,
				     cow_layout_ring(ring->start, position % ring->blocks) << COW_BLOCK_SHIFT);
	}
	return error;
}

static int write_blocks(struct cow_dev *dev, const struct cow_log_root *ring, const uint8_t *bytes, uint32_t count,
			uint64_t position)
{
	int error = 0;

	for (uint32_t n; count > 0 && error == 0; count -= n, position += n, bytes += (size_t)n * COW_BLOCK) {
		n = run_at(ring, position, count);
		error = cow_dev_write_through(dev, bytes, (size_t)n * COW_BLOCK,
					      cow_layout_ring(ring->start, position % ring->blocks) << COW_BLOCK_SHIFT);
	}
	return error;
}

/* ------------------------------------------------------------------ reading */

static bool header_valid(const struct cow_log_root *root, const uint8_t *header, uint64_t position, uint64_t chain)
{
	return memcmp(header + AT_MAGIC, magic, sizeof(magic)) == 0 && get64(header + AT_NONCE) == root->nonce &&
	       get64(header + AT_POSITION) == position && get64(header + AT_CHAIN) == chain &&
	       get32(header + AT_LENGTH) != 0 &&
	       get32(header + AT_LENGTH) <= (uint64_t)root->blocks * COW_BLOCK - COW_LOG_HEADER;
}

/* Reads the record at `position` into *bytes, which grows. *length 0: there is none. */
static int read_record(struct cow_dev *dev, const struct cow_log_root *root, uint64_t position, uint64_t chain,
		       uint8_t **bytes, size_t *length)
{
	uint8_t header[COW_BLOCK];
	uint32_t blocks;
	size_t payload;
	int error = read_blocks(dev, root, header, 1, position);

	*length = 0;
	if (error != 0 || !header_valid(root, header, position, chain))
		return error;
	payload = get32(header + AT_LENGTH);
	blocks = cow_log_blocks(payload);
	if (position - root->position + blocks > root->blocks)
		return 0;
	free(*bytes);
	*bytes = malloc((size_t)blocks * COW_BLOCK);
	if (*bytes == NULL)
		return -ENOMEM;
	error = read_blocks(dev, root, *bytes, blocks, position);
	if (error == 0 && header_valid(root, *bytes, position, chain) && get32(*bytes + AT_LENGTH) == payload &&
	    get64(*bytes + AT_SUM) == XXH3_64bits(*bytes + AT_SUMMED, COW_LOG_HEADER - AT_SUMMED + payload))
		*length = payload;
	return error;
}

int cow_log_read(struct cow_dev *dev, const struct cow_super *super, cow_log_fn fn, void *context, uint64_t *end)
{
	const struct cow_log_root *root = &super->log;
	uint64_t position = root->position, chain = root->chain;
	uint8_t *bytes = NULL;
	size_t length = 1;
	int error = 0;

	while (root->blocks != 0 && error == 0) {
		error = read_record(dev, root, position, chain, &bytes, &length);
		if (error != 0 || length == 0)
			break;
		error = fn != NULL ? fn(context, bytes + COW_LOG_HEADER, length) : 0;
		chain = get64(bytes + AT_SUM);
		position += cow_log_blocks(length);
	}
	free(bytes);
	*end = position;
	return error;
}

/* ------------------------------------------------------------------ writing */

void cow_log_open(struct cow_log *log, struct cow_dev *dev, const struct cow_super *super, uint64_t end)
{
	/* Random, so that not even a device that lost a commit which it had confirmed can make old records valid
	 * again; and another one than any opening before, as each has a generation of its own before it appends. */
	uint64_t seed[5] = {super->generation, super->log.nonce, super->log.position, super->log.chain};

	if (getrandom(&seed[4], sizeof(seed[4]), 0) != (ssize_t)sizeof(seed[4]))
		seed[4] = 0;
	*log = (struct cow_log){
		.dev = dev, .start = super->log.start, .blocks = super->log.blocks, .head = end,
		.tail = super->log.position,
		.nonce = XXH3_64bits_withSeed(seed, sizeof(seed), get64(super->uuid)),
	};
}

bool cow_log_fits(const struct cow_log *log, size_t length)
{
	return log->usable && log->head - log->tail + cow_log_blocks(length) <= log->blocks;
}

bool cow_log_is_filling(const struct cow_log *log)
{
	return log->head - log->tail >= log->blocks / 2;
}

uint64_t cow_log_append(struct cow_log *log, uint8_t *bytes, size_t length)
{
	uint32_t blocks = cow_log_blocks(length);
	uint64_t position = log->head;

	assert(cow_log_fits(log, length));
	memset(bytes, 0, COW_LOG_HEADER);
	memset(bytes + COW_LOG_HEADER + length, 0, (size_t)blocks * COW_BLOCK - COW_LOG_HEADER - length);
	memcpy(bytes + AT_MAGIC, magic, sizeof(magic));
	put64(bytes + AT_NONCE, log->nonce);
	put64(bytes + AT_POSITION, position);
	put64(bytes + AT_CHAIN, log->chain);
	put32(bytes + AT_LENGTH, (uint32_t)length);
	log->chain = XXH3_64bits(bytes + AT_SUMMED, COW_LOG_HEADER - AT_SUMMED + length);
	put64(bytes + AT_SUM, log->chain);
	log->head += blocks;
	return position;
}

/* In the first round, the part of the ring that a record is the first to reach gets its place on the host. */
static int pave(const struct cow_log *log, uint32_t blocks, uint64_t position)
{
	uint32_t step = log->blocks / 4 < PAVED_BLOCKS ? log->blocks / 4 : PAVED_BLOCKS;
	uint64_t at = (position + step - 1) / step * step;
	struct cow_log_root ring = ring_of(log);
	uint8_t *zeros;
	int error = 0;

	if (at >= position + blocks || at >= log->blocks)
		return 0;
	zeros = aligned_alloc(COW_BLOCK, (size_t)step * COW_BLOCK);
	if (zeros == NULL)
		return 0; /* it only makes things quicker */
	memset(zeros, 0, (size_t)step * COW_BLOCK);
	for (; at < position + blocks && at < log->blocks && error == 0; at += step)
		error = write_blocks(log->dev, &ring, zeros,
				     at + step <= log->blocks ? step : (uint32_t)(log->blocks - at),
				     at);
	free(zeros);
	return error;
}

int cow_log_write(const struct cow_log *log, const uint8_t *bytes, size_t length, uint64_t position)
{
	struct cow_log_root ring = ring_of(log);
	uint32_t blocks = cow_log_blocks(length);
	int error = pave(log, blocks, position);

	return error != 0 ? error : write_blocks(log->dev, &ring, bytes, blocks, position);
}

void cow_log_break(struct cow_log *log)
{
	log->broken = log->head;
	log->usable = false;
}

/* ------------------------------------------------------------------ commits */

void cow_log_seal(const struct cow_log *log, struct cow_log_root *root)
{
	if (log->blocks != 0)
		*root = (struct cow_log_root){log->start, log->blocks, log->head, log->nonce, log->chain};
}

void cow_log_durable(struct cow_log *log, const struct cow_log_root *root)
{
	if (log->blocks == 0)
		return;
	log->tail = root->position;
	log->usable = root->nonce == log->nonce && root->position >= log->broken;
}
