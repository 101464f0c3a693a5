/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The superblock ring: what every cut, and every decayed copy, leaves; and that no byte of it is trusted. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "store/super.h"

static struct cow_super sample(uint64_t generation)
{
	struct cow_super super = {
		.version = COW_FORMAT_VERSION,
		.generation = generation,
		.total_blocks = 8192,
		.counts = {.sum = 0x12345678, .slot = 1, .initialised = 1, .free_blocks = 77},
		.incompat = COW_INCOMPAT_LOG,
		.log = {.start = 1056, .blocks = 32, .position = 7, .nonce = 8, .chain = 9},
	};

	memset(super.uuid, 0xab, sizeof(super.uuid));
	super.roots[1] = (struct cow_ptr){100, 0x1122334455667788, generation};
	super.root_kinds[1] = 2;
	memset(super.user, (int)generation, sizeof(super.user));
	return super;
}

static void seal_block(uint8_t *block)
{
	put64(block + 8, XXH3_64bits(block + 16, COW_SUPER_BYTES - 16));
}

static void test_round_trip(void **state)
{
	struct cow_super super = sample(5), back;
	uint8_t block[COW_BLOCK], again[COW_BLOCK];

	(void)state;
	cow_super_encode(&super, block);
	assert_int_equal(cow_super_decode(block, &back), 0);
	cow_super_encode(&back, again);
	assert_memory_equal(block, again, COW_BLOCK);
	assert_int_equal(back.roots[1].addr, 100);
	assert_int_equal(back.counts.free_blocks, 77);
	assert_memory_equal(back.user, super.user, sizeof(super.user));
}

/* doc/FORMAT.md, both ways. */
static void test_golden(void **state)
{
	static const uint8_t head[] = {
		'c', 'o', 'w', 'l', 'i', 'n', 'k', 's', 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, /* 0..23 */
	};
	struct cow_super super = sample(5);
	uint8_t block[COW_BLOCK];

	(void)state;
	cow_super_encode(&super, block);
	assert_memory_equal(block, head, 8);
	assert_memory_equal(block + 16, head + 16, 8);
	assert_int_equal(get64(block + 64), 5);
	assert_int_equal(get64(block + 72), 8192);
	assert_int_equal(get32(block + 80), 0x12345678);
	assert_int_equal(block[84], 1);
	assert_int_equal(block[85], 1);
	assert_int_equal(get64(block + 88), 77);
	assert_int_equal(block[105], 2);
	assert_int_equal(get64(block + 112 + 24), 100);
	assert_int_equal(block[320], 5);
	assert_int_equal(get64(block + 448), 1056);
	assert_int_equal(get32(block + 456), 32);
	assert_int_equal(get64(block + 464), 7);
	assert_int_equal(get64(block + 472), 8);
	assert_int_equal(get64(block + 480), 9);
	assert_int_equal(get64(block + 8), XXH3_64bits(block + 16, COW_SUPER_BYTES - 16));
}

/* Each field out of range, with a checksum that fits. */
static void test_hostile_fields(void **state)
{
	static const struct {
		unsigned at, bytes;
		uint64_t value;
		int result;
	} bad[] = {
		{0, 8, 0, COW_ERR_NOT_VOLUME},
		{16, 4, 0, COW_ERR_DAMAGED},
		{16, 4, 2, COW_ERR_NEWER},
		{20, 4, 1, COW_ERR_DAMAGED},
		{40, 8, 1, 0},
		{48, 8, 1, 0},
		{56, 8, 0, COW_ERR_DAMAGED},
		{56, 8, 3, COW_ERR_NEWER},
		{64, 8, 0, COW_ERR_DAMAGED},
		{72, 8, 4095, COW_ERR_DAMAGED},
		{72, 8, 8192 + 31, COW_ERR_DAMAGED},
		{72, 8, (1ull << 37) + 1, COW_ERR_DAMAGED},
		{72, 8, UINT64_MAX, COW_ERR_DAMAGED},
		{84, 1, 2, COW_ERR_DAMAGED},
		{85, 1, 2, COW_ERR_DAMAGED},
		{85, 1, 0, COW_ERR_DAMAGED},
		{86, 1, 1, COW_ERR_DAMAGED},
		{88, 8, 8193, COW_ERR_DAMAGED},
		{136, 8, 8192, COW_ERR_DAMAGED},
		{136, 8, 16, COW_ERR_DAMAGED},
		{136, 8, 0, COW_ERR_DAMAGED},
		{136, 8, UINT64_MAX, COW_ERR_DAMAGED},
		{152, 8, 6, COW_ERR_DAMAGED},
		{152, 8, 0, COW_ERR_DAMAGED},
		{105, 1, 0, COW_ERR_DAMAGED},
		{96, 8, 1, COW_ERR_DAMAGED},
		{304, 1, 1, COW_ERR_DAMAGED},
		{448, 8, 0, COW_ERR_DAMAGED},
		{448, 8, 1024, COW_ERR_DAMAGED},
		{448, 8, 8192, COW_ERR_DAMAGED},
		{448, 8, UINT64_MAX, COW_ERR_DAMAGED},
		{456, 4, 0, COW_ERR_DAMAGED},
		{456, 4, 15, COW_ERR_DAMAGED},
		{456, 4, 8192 - 1056, COW_ERR_DAMAGED},
		{456, 4, UINT32_MAX, COW_ERR_DAMAGED},
		{460, 4, 1, COW_ERR_DAMAGED},
		{488, 8, 1, COW_ERR_DAMAGED},
	};
	struct cow_super super = sample(5), back;
	uint8_t block[COW_BLOCK];

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cow_super_encode(&super, block);
		memcpy(block + bad[i].at, &bad[i].value, bad[i].bytes);
		seal_block(block);
		if (cow_super_decode(block, &back) != bad[i].result)
			fail_msg("field at %u", bad[i].at);
	}
}

/* Random bytes behind a good checksum never do harm; a flipped bit anywhere is seen. */
static void test_fuzz(void **state)
{
	unsigned seed = (unsigned)time(NULL);
	struct cow_super super = sample(5), back;
	uint8_t block[COW_BLOCK];

	(void)state;
	print_message("seed %u\n", seed);
	for (unsigned i = 0; i < 20000; i++) {
		cow_super_encode(&super, block);
		for (unsigned n = 1 + (unsigned)rand_r(&seed) % 4; n > 0; n--)
			block[16 + (unsigned)rand_r(&seed) % 300] = (uint8_t)rand_r(&seed);
		seal_block(block);
		if (cow_super_decode(block, &back) == 0) {
			assert_true(back.total_blocks >= COW_VOLUME_BLOCKS_MIN);
			assert_true(back.total_blocks <= COW_VOLUME_BLOCKS_MAX);
		}
	}
	for (unsigned bit = 0; bit < COW_SUPER_BYTES * 8; bit += 7) {
		cow_super_encode(&super, block);
		block[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_not_equal(cow_super_decode(block, &back), 0);
	}
}

/* A superblock is one sector. Were the others looked at, a copy torn there would be invalid now and could be made valid
 * by a later torn write of the same slot, which brings only them: an old generation come to life. */
static void test_one_sector(void **state)
{
	struct cow_super super = sample(5), back;
	uint8_t block[COW_BLOCK];

	(void)state;
	cow_super_encode(&super, block);
	memset(block + COW_SUPER_BYTES, 0xa5, COW_BLOCK - COW_SUPER_BYTES);
	assert_int_equal(cow_super_decode(block, &back), 0);
	assert_int_equal(back.generation, 5);
}

/* ------------------------------------------------------------------ the ring */

static struct cow_dev *formatted(void)
{
	struct cow_dev *dev = cow_sim_new(8192 * COW_BLOCK);
	struct cow_super super = sample(1);

	assert_int_equal(cow_super_format(dev, &super), 0);
	return dev;
}

static void commit(struct cow_dev *dev, uint64_t generation)
{
	struct cow_super super = sample(generation);

	assert_int_equal(cow_dev_flush(dev), 0); /* everything that it points to */
	assert_int_equal(cow_super_write(dev, &super), 0);
}

/* Cut between any two writes, in every way: the newest acknowledged generation is there, whole, and nothing decayed. */
static void test_cuts(void **state)
{
	struct cow_dev *dev = formatted();
	uint64_t start = cow_sim_events(dev), ends[12] = {0};

	(void)state;
	ends[1] = start;
	for (uint64_t g = 2; g < 12; g++) {
		commit(dev, g);
		ends[g] = cow_sim_events(dev);
	}
	for (uint64_t at = start; at <= ends[11]; at++) {
		uint64_t done = 1, seed;

		while (done < 11 && ends[done + 1] <= at)
			done++;
		for (seed = 0; seed < 60; seed++) {
			struct cow_dev *cut = cow_sim_cut(dev, at, seed % COW_SIM_POLICIES, at * 1000 + seed);
			struct cow_super super;
			bool decayed = true;

			assert_int_equal(cow_super_read(cut, &super, &decayed), 0);
			assert_in_range(super.generation, done, done + 1);
			assert_false(decayed);
			/* the next mount goes on, and is cut again */
			commit(cut, super.generation + 1);
			struct cow_dev *second = cow_sim_cut(cut, cow_sim_events(cut), COW_SIM_GARBLED, seed);
			struct cow_super after;

			assert_int_equal(cow_super_read(second, &after, &decayed), 0);
			assert_int_equal(after.generation, super.generation + 1);
			assert_false(decayed);
			cow_dev_close(second);
			cow_dev_close(cut);
		}
	}
	cow_dev_close(dev);
}

static void flip_bit(struct cow_dev *dev, uint64_t number)
{
	uint8_t block[COW_BLOCK];

	assert_int_equal(cow_dev_read(dev, block, COW_BLOCK, number << COW_BLOCK_SHIFT), 0);
	block[200] ^= 1;
	assert_int_equal(cow_dev_write(dev, block, COW_BLOCK, number << COW_BLOCK_SHIFT), 0);
}

/* doc/DESIGN.md, "Cases of commit and allocation": a durable newest superblock gone bad is noticed, an older
 * generation is not taken for the newest. */
static void test_decay(void **state)
{
	for (uint64_t newest = 1; newest < 12; newest++) {
		struct cow_dev *dev = formatted();
		unsigned slot = newest % COW_SUPER_SLOTS;
		struct cow_super super;
		bool decayed;

		(void)state;
		for (uint64_t g = 2; g <= newest; g++)
			commit(dev, g);
		flip_bit(dev, slot);
		assert_int_equal(cow_super_read(dev, &super, &decayed), 0);
		assert_int_equal(super.generation, newest); /* copy B */
		assert_false(decayed);
		flip_bit(dev, slot + COW_SUPER_B);
		if (newest == 1) {
			assert_int_equal(cow_super_read(dev, &super, &decayed), COW_ERR_DAMAGED);
		} else {
			assert_int_equal(cow_super_read(dev, &super, &decayed), 0);
			assert_int_equal(super.generation, newest - 1);
			assert_true(decayed);
		}
		cow_dev_close(dev);
	}
}

static void test_no_volume(void **state)
{
	struct cow_dev *dev = cow_sim_new(8192 * COW_BLOCK);
	struct cow_super super;
	uint8_t block[COW_BLOCK];
	bool decayed;

	(void)state;
	assert_int_equal(cow_super_read(dev, &super, &decayed), COW_ERR_NOT_VOLUME);
	for (unsigned i = 0; i < 16; i++)
		cow_sim_garble(dev, i, false, i);
	assert_int_equal(cow_super_read(dev, &super, &decayed), COW_ERR_NOT_VOLUME);
	super = sample(4);
	cow_super_encode(&super, block);
	put64(block + 56, 2);
	seal_block(block);
	assert_int_equal(cow_dev_write(dev, block, COW_BLOCK, 0), 0);
	assert_int_equal(cow_super_read(dev, &super, &decayed), COW_ERR_NEWER);
	cow_dev_close(dev);
	dev = formatted();
	cow_sim_fail(dev, COW_SIM_READ, 1, UINT64_MAX, -EIO);
	assert_int_equal(cow_super_read(dev, &super, &decayed), -EIO);
	cow_sim_fail(dev, COW_SIM_READ, 0, 0, 0);
	cow_sim_fail(dev, COW_SIM_READ, 2, 0, -EIO); /* copy B says it too */
	assert_int_equal(cow_super_read(dev, &super, &decayed), 0);
	cow_dev_close(dev);
}

/* Two cuts that tear one copy each, a round apart, are no decay if the first is mended. */
static void test_mend(void **state)
{
	for (unsigned which = 0; which < 2; which++) {
		struct cow_dev *dev = formatted();
		struct cow_super super, found;
		struct cow_sim_stats before, after;
		bool decayed;

		(void)state;
		for (uint64_t g = 2; g <= 5; g++) {
			super = sample(g);
			assert_int_equal(cow_super_write(dev, &super), 0);
		}
		cow_sim_garble(dev, 5 % COW_SUPER_SLOTS + which * COW_SUPER_B, false, 1);
		assert_int_equal(cow_super_read(dev, &found, &decayed), 0);
		assert_false(decayed);
		assert_int_equal(found.generation, 5);
		assert_int_equal(cow_super_mend(dev, &found), 0);
		cow_sim_stats(dev, &before);
		assert_int_equal(cow_super_mend(dev, &found), 0);
		cow_sim_stats(dev, &after);
		assert_int_equal(before.calls[COW_SIM_WRITE], after.calls[COW_SIM_WRITE]);
		for (uint64_t g = 6; g <= 8; g++) {
			super = sample(g);
			assert_int_equal(cow_super_write(dev, &super), 0);
		}
		cow_sim_garble(dev, 9 % COW_SUPER_SLOTS, false, 2); /* copy A of generation 9 is torn */
		assert_int_equal(cow_super_read(dev, &found, &decayed), 0);
		assert_int_equal(found.generation, 8);
		assert_false(decayed);
		cow_dev_close(dev);
	}
}

/* A copy in another slot's place, and a copy of another volume. */
static void test_misplaced(void **state)
{
	struct cow_dev *dev = formatted();
	struct cow_super super = sample(7), found;
	uint8_t block[COW_BLOCK];
	bool decayed;

	(void)state;
	cow_super_encode(&super, block);
	assert_int_equal(cow_dev_write(dev, block, COW_BLOCK, 2 * COW_BLOCK), 0);
	assert_int_equal(cow_super_read(dev, &found, &decayed), 0);
	assert_int_equal(found.generation, 1);
	super.uuid[0] = 1;
	cow_super_encode(&super, block);
	assert_int_equal(cow_dev_write(dev, block, COW_BLOCK, 3 * COW_BLOCK), 0);
	assert_int_equal(cow_super_read(dev, &found, &decayed), COW_ERR_DAMAGED);
	cow_dev_close(dev);
}

static void test_layout(void **state)
{
	(void)state;
	for (int level = 0; level < COW_COUNT_LEVELS; level++)
		for (uint64_t i = 0; i < 3; i++)
			for (unsigned slot = 0; slot < 2; slot++)
				assert_true(cow_layout_is_system(cow_layout_slot(level, i, slot)));
	assert_false(cow_layout_is_system(24));
	assert_false(cow_layout_is_system(1024));
	assert_false(cow_layout_is_system(1024 + 18));
	assert_true(cow_layout_is_system(512 * 1024 + 18));
	assert_true(cow_layout_run_valid(24, 1, 8192));
	assert_false(cow_layout_run_valid(23, 2, 8192));
	assert_false(cow_layout_run_valid(1000, 64, 8192));
	assert_true(cow_layout_run_valid(1000, 40, 8192));
	assert_false(cow_layout_run_valid(8191, 2, 8192));
	assert_false(cow_layout_run_valid(UINT64_MAX, 2, 8192));
	assert_false(cow_layout_run_valid(100, 0, 8192));
	assert_int_equal(cow_layout_round(8192 + 31), 8192);
	assert_int_equal(cow_layout_round(8192 + 32), 8192 + 32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),    cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_golden),    cmocka_unit_test(test_hostile_fields),
		cmocka_unit_test(test_fuzz),
		cmocka_unit_test(test_one_sector),
		cmocka_unit_test(test_cuts),
		cmocka_unit_test(test_decay),     cmocka_unit_test(test_no_volume),
		cmocka_unit_test(test_mend), cmocka_unit_test(test_misplaced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
