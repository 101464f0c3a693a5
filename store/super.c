/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The superblock ring. What makes it safe: the copy that is being written is never the only one that says where the
 * last durable generation is, and copy B of a slot is touched only after copy A of the same generation is durable. So
 * a cut can leave at most one copy of one slot invalid; whatever is more broken than that has decayed.
 */
#include "store/super.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "cow.h"

static const char magic[8] = "cowlinks";

enum { /* byte positions */
	AT_MAGIC = 0,
	AT_SUM = 8, /* XXH3_64bits of everything behind it, to AT_END */
	AT_VERSION = 16,
	AT_ZERO_1 = 20,
	AT_UUID = 24,
	AT_COMPAT = 40,
	AT_RO_COMPAT = 48,
	AT_INCOMPAT = 56,
	AT_GENERATION = 64,
	AT_TOTAL_BLOCKS = 72,
	AT_COUNTS_SUM = 80,
	AT_COUNTS_SLOT = 84,
	AT_COUNTS_INITIALISED = 85,
	AT_ZERO_2 = 86,
	AT_COUNTS_FREE = 88,
	AT_ZERO_LOG = 96, /* u64 */
	AT_KINDS = 104,
	AT_ROOTS = 112,
	AT_ZERO_3 = AT_ROOTS + COW_ROOTS * COW_PTR_BYTES,
	AT_USER = 320,
	AT_LOG_START = AT_USER + COW_SUPER_USER,
	AT_LOG_BLOCKS = AT_LOG_START + 8,
	AT_ZERO_4 = AT_LOG_BLOCKS + 4,
	AT_LOG_POSITION = AT_ZERO_4 + 4,
	AT_LOG_NONCE = AT_LOG_POSITION + 8,
	AT_LOG_CHAIN = AT_LOG_NONCE + 8,
	AT_ZERO_5 = AT_LOG_CHAIN + 8,
	AT_END = 512,
};

static_assert(AT_ZERO_3 <= AT_USER, "roots run into the user bytes");
static_assert(AT_END == COW_SUPER_BYTES && AT_ZERO_5 <= AT_END, "a superblock is one sector");
static_assert(AT_KINDS + COW_ROOTS == AT_ROOTS, "kinds");

static bool is_zero(const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

void cow_super_encode(const struct cow_super *super, uint8_t block[COW_BLOCK])
{
	memset(block, 0, COW_BLOCK);
	memcpy(block + AT_MAGIC, magic, sizeof(magic));
	put32(block + AT_VERSION, super->version);
	memcpy(block + AT_UUID, super->uuid, sizeof(super->uuid));
	put64(block + AT_COMPAT, super->compat);
	put64(block + AT_RO_COMPAT, super->ro_compat);
	put64(block + AT_INCOMPAT, super->incompat);
	put64(block + AT_GENERATION, super->generation);
	put64(block + AT_TOTAL_BLOCKS, super->total_blocks);
	if (super->counts.initialised) {
		put32(block + AT_COUNTS_SUM, super->counts.sum);
		block[AT_COUNTS_SLOT] = super->counts.slot;
		block[AT_COUNTS_INITIALISED] = 1;
		put64(block + AT_COUNTS_FREE, super->counts.free_blocks);
	}
	put64(block + AT_LOG_START, super->log.start);
	put32(block + AT_LOG_BLOCKS, super->log.blocks);
	put64(block + AT_LOG_POSITION, super->log.position);
	put64(block + AT_LOG_NONCE, super->log.nonce);
	put64(block + AT_LOG_CHAIN, super->log.chain);
	memcpy(block + AT_KINDS, super->root_kinds, COW_ROOTS);
	for (unsigned i = 0; i < COW_ROOTS; i++)
		cow_ptr_put(block + AT_ROOTS + i * COW_PTR_BYTES, super->roots[i]);
	memcpy(block + AT_USER, super->user, COW_SUPER_USER);
	put64(block + AT_SUM, XXH3_64bits(block + AT_VERSION, AT_END - AT_VERSION));
}

static bool counts_valid(const struct cow_super *super, const uint8_t *block)
{
	const struct cow_counts_root *counts = &super->counts;

	if (block[AT_COUNTS_INITIALISED] > 1 || counts->slot > 1)
		return false;
	if (!counts->initialised)
		return counts->sum == 0 && counts->slot == 0 && counts->free_blocks == 0;
	return counts->free_blocks <= super->total_blocks;
}

static bool root_valid(const struct cow_super *super, unsigned i)
{
	struct cow_ptr root = super->roots[i];

	if (cow_ptr_is_null(root))
		return root.sum == 0 && root.generation == 0;
	return super->root_kinds[i] != 0 && root.generation != 0 && root.generation <= super->generation &&
	       cow_layout_run_valid(root.addr, 1, super->total_blocks);
}

/* Either there is a whole log, or nothing of it. */
static bool log_valid(const struct cow_super *super)
{
	const struct cow_log_root *log = &super->log;

	if ((super->incompat & COW_INCOMPAT_LOG) == 0)
		return log->start == 0 && log->blocks == 0 && log->position == 0 && log->nonce == 0 && log->chain == 0;
	return cow_layout_ring_valid(log->start, log->blocks, super->total_blocks);
}

/* Bytes that no feature known to this version uses. A compatible feature of a later version may use them. */
static bool reserved_valid(const struct cow_super *super, const uint8_t *block)
{
	if ((super->compat & ~COW_COMPAT_KNOWN) != 0 || (super->ro_compat & ~COW_RO_COMPAT_KNOWN) != 0)
		return true;
	return is_zero(block + AT_ZERO_1, AT_UUID - AT_ZERO_1) &&
	       is_zero(block + AT_ZERO_2, AT_COUNTS_FREE - AT_ZERO_2) && get64(block + AT_ZERO_LOG) == 0 &&
	       get32(block + AT_ZERO_4) == 0 && is_zero(block + AT_ZERO_5, AT_END - AT_ZERO_5) &&
	       is_zero(block + AT_ZERO_3, AT_USER - AT_ZERO_3);
}

static bool fields_valid(const struct cow_super *super, const uint8_t *block)
{
	if (super->version == 0 || super->generation == 0 || super->generation >= COW_GENERATION_END)
		return false;
	if (super->total_blocks < COW_VOLUME_BLOCKS_MIN || super->total_blocks > COW_VOLUME_BLOCKS_MAX ||
	    cow_layout_round(super->total_blocks) != super->total_blocks)
		return false;
	if (!counts_valid(super, block) || !log_valid(super) || !reserved_valid(super, block))
		return false;
	for (unsigned i = 0; i < COW_ROOTS; i++)
		if (!root_valid(super, i))
			return false;
	return true;
}

int cow_super_decode(const uint8_t block[COW_BLOCK], struct cow_super *super)
{
	if (memcmp(block + AT_MAGIC, magic, sizeof(magic)) != 0)
		return COW_ERR_NOT_VOLUME;
	if (get64(block + AT_SUM) != XXH3_64bits(block + AT_VERSION, AT_END - AT_VERSION))
		return COW_ERR_DAMAGED;
	*super = (struct cow_super){
		.version = get32(block + AT_VERSION),
		.compat = get64(block + AT_COMPAT),
		.ro_compat = get64(block + AT_RO_COMPAT),
		.incompat = get64(block + AT_INCOMPAT),
		.generation = get64(block + AT_GENERATION),
		.total_blocks = get64(block + AT_TOTAL_BLOCKS),
		.counts = {.sum = get32(block + AT_COUNTS_SUM),
			   .slot = block[AT_COUNTS_SLOT],
			   .initialised = block[AT_COUNTS_INITIALISED] != 0,
			   .free_blocks = get64(block + AT_COUNTS_FREE)},
		.log = {.start = get64(block + AT_LOG_START),
			.blocks = get32(block + AT_LOG_BLOCKS),
			.position = get64(block + AT_LOG_POSITION),
			.nonce = get64(block + AT_LOG_NONCE),
			.chain = get64(block + AT_LOG_CHAIN)},
	};
	/* a later format may give the other fields another meaning: judge them only if it is ours */
	if (super->version > COW_FORMAT_VERSION || (super->incompat & ~COW_INCOMPAT_KNOWN) != 0)
		return COW_ERR_NEWER;
	memcpy(super->uuid, block + AT_UUID, sizeof(super->uuid));
	memcpy(super->root_kinds, block + AT_KINDS, COW_ROOTS);
	for (unsigned i = 0; i < COW_ROOTS; i++)
		super->roots[i] = cow_ptr_get(block + AT_ROOTS + i * COW_PTR_BYTES);
	memcpy(super->user, block + AT_USER, COW_SUPER_USER);
	return fields_valid(super, block) ? 0 : COW_ERR_DAMAGED;
}

/* ------------------------------------------------------------------ the ring */

struct copy {
	int result; /* of reading and decoding */
	bool zero;
	struct cow_super super;
};

static void read_copy(struct cow_dev *dev, unsigned slot, unsigned which, struct copy *copy)
{
	uint8_t block[COW_BLOCK];

	copy->zero = false;
	copy->result = cow_dev_read(dev, block, COW_BLOCK, (uint64_t)(slot + which * COW_SUPER_B) << COW_BLOCK_SHIFT);
	if (copy->result != 0)
		return;
	copy->zero = is_zero(block, COW_BLOCK);
	copy->result = cow_super_decode(block, &copy->super);
	if (copy->result == 0 && copy->super.generation % COW_SUPER_SLOTS != slot)
		copy->result = COW_ERR_DAMAGED;
}

/*
 * The slot after the newest generation's is the one that a cut commit may have torn: then one of its copies still is
 * what it was before, an older generation, or zeros in a young volume (copy B also when it was lost in an earlier cut).
 */
static bool slot_is_whole(const struct copy copies[2], uint64_t newest)
{
	for (unsigned which = 0; which < 2; which++)
		if (copies[which].result == 0 && copies[which].super.generation <= newest)
			return true;
	if (copies[1].zero && !copies[0].zero)
		return true;
	return newest < COW_SUPER_SLOTS && (copies[0].zero || copies[1].zero);
}

/* With no valid copy: the most telling of the reasons. */
static int worst_result(struct copy copies[COW_SUPER_SLOTS][2])
{
	int worst = COW_ERR_NOT_VOLUME;

	for (unsigned i = 0; i < COW_SUPER_SLOTS * 2; i++) {
		int result = copies[i / 2][i % 2].result;

		if (result == COW_ERR_NOT_VOLUME || worst == COW_ERR_DAMAGED)
			continue;
		worst = result;
	}
	return worst;
}

int cow_super_read(struct cow_dev *dev, struct cow_super *super, bool *decayed)
{
	struct copy copies[COW_SUPER_SLOTS][2];
	const struct cow_super *newest = NULL;

	for (unsigned i = 0; i < COW_SUPER_SLOTS * 2; i++) {
		struct copy *copy = &copies[i / 2][i % 2];

		read_copy(dev, i / 2, i % 2, copy);
		if (copy->result == COW_ERR_NEWER)
			return COW_ERR_NEWER;
		if (copy->result == 0 && (newest == NULL || copy->super.generation > newest->generation))
			newest = &copy->super;
	}
	if (newest == NULL)
		return worst_result(copies);
	*super = *newest;
	*decayed = !slot_is_whole(copies[(newest->generation + 1) % COW_SUPER_SLOTS], newest->generation);
	/* copies of two volumes: the device was formatted over another one and that was cut short */
	for (unsigned i = 0; i < COW_SUPER_SLOTS * 2; i++) {
		const struct copy *copy = &copies[i / 2][i % 2];

		if (copy->result == 0 && memcmp(copy->super.uuid, super->uuid, sizeof(super->uuid)) != 0)
			return COW_ERR_DAMAGED;
	}
	return 0;
}

int cow_super_write(struct cow_dev *dev, const struct cow_super *super)
{
	unsigned slot = super->generation % COW_SUPER_SLOTS;
	uint8_t block[COW_BLOCK];
	struct cow_super check;
	int result;

	cow_super_encode(super, block);
	result = cow_super_decode(block, &check);
	assert(result == 0);
	result = cow_dev_write(dev, block, COW_BLOCK, (uint64_t)slot << COW_BLOCK_SHIFT);
	if (result == 0)
		result = cow_dev_flush(dev);
	if (result == 0)
		result = cow_dev_write(dev, block, COW_BLOCK, (uint64_t)(slot + COW_SUPER_B) << COW_BLOCK_SHIFT);
	return result;
}

int cow_super_mend(struct cow_dev *dev, const struct cow_super *super)
{
	uint8_t block[COW_BLOCK], there[COW_BLOCK];
	bool mended = false;
	int result = 0;

	cow_super_encode(super, block);
	for (unsigned which = 0; which < 2 && result == 0; which++) {
		uint64_t at = super->generation % COW_SUPER_SLOTS + which * COW_SUPER_B;

		if (cow_dev_read(dev, there, COW_BLOCK, at << COW_BLOCK_SHIFT) == 0 &&
		    memcmp(there, block, COW_SUPER_BYTES) == 0)
			continue;
		result = cow_dev_write(dev, block, COW_BLOCK, at << COW_BLOCK_SHIFT);
		mended = true;
	}
	return mended && result == 0 ? cow_dev_flush(dev) : result;
}

int cow_super_format(struct cow_dev *dev, const struct cow_super *super)
{
	static const uint8_t zeros[COW_SLOT_FIRST * COW_BLOCK];
	int result;

	assert(super->generation == 1);
	/* an older volume's copies must be gone before a new one is there, or the ring would mix the two */
	result = cow_dev_write(dev, zeros, sizeof(zeros), 0);
	if (result == 0)
		result = cow_dev_flush(dev);
	if (result == 0)
		result = cow_super_write(dev, super);
	if (result == 0)
		result = cow_dev_flush(dev);
	return result;
}
