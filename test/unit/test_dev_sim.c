/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The simulated device, on which all crash tests rest: is a cut really what its policy says? And devices in files. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "dev/dev_sim.h"

#define BLOCK 4096u
#define SECTOR 512u

static void put(struct cow_dev *dev, uint64_t block, uint8_t value)
{
	uint8_t bytes[BLOCK];

	memset(bytes, value, BLOCK);
	assert_int_equal(cow_dev_write(dev, bytes, BLOCK, block * BLOCK), 0);
}

/* The byte that fills the block; -1 if it is not all the same. */
static int get(struct cow_dev *dev, uint64_t block)
{
	uint8_t bytes[BLOCK];

	assert_int_equal(cow_dev_read(dev, bytes, BLOCK, block * BLOCK), 0);
	for (unsigned i = 1; i < BLOCK; i++)
		if (bytes[i] != bytes[0])
			return -1;
	return bytes[0];
}

static int get_cut(struct cow_dev *dev, uint64_t at, enum cow_sim_policy policy, uint64_t seed, uint64_t block)
{
	struct cow_dev *cut = cow_sim_cut(dev, at, policy, seed);
	int value = get(cut, block);

	cow_dev_close(cut);
	return value;
}

static void test_cut(void **state)
{
	struct cow_dev *dev = cow_sim_new(64 * BLOCK);

	(void)state;
	put(dev, 3, 1);
	put(dev, 4, 2);
	assert_int_equal(cow_dev_flush(dev), 0);
	put(dev, 3, 5);
	put(dev, 3, 6);
	assert_int_equal(cow_sim_events(dev), 5);
	assert_int_equal(cow_sim_flushed(dev, 2), 0);
	assert_int_equal(cow_sim_flushed(dev, 5), 3);
	assert_int_equal(get_cut(dev, 5, COW_SIM_KEEP, 0, 3), 6);
	assert_int_equal(get_cut(dev, 5, COW_SIM_DROP, 0, 3), 1);
	assert_int_equal(get_cut(dev, 4, COW_SIM_KEEP, 0, 3), 5);
	assert_int_equal(get_cut(dev, 3, COW_SIM_GARBLED, 0, 4), 2);
	assert_int_equal(get_cut(dev, 2, COW_SIM_DROP, 0, 3), 0);
	assert_int_equal(get_cut(dev, 2, COW_SIM_KEEP, 0, 4), 2);
	assert_int_equal(get(dev, 3), 6);
	cow_dev_close(dev);
}

/* Over many seeds each outcome that a policy allows happens, and no other. */
static void test_policies(void **state)
{
	struct cow_dev *dev = cow_sim_new(64 * BLOCK);

	(void)state;
	put(dev, 7, 1);
	assert_int_equal(cow_dev_flush(dev), 0);
	put(dev, 7, 2);
	put(dev, 8, 9);
	for (int policy = 0; policy < COW_SIM_POLICIES; policy++) {
		bool old = false, new = false, torn = false, garbled = false;

		for (uint64_t seed = 0; seed < 300; seed++) {
			struct cow_dev *cut = cow_sim_cut(dev, 4, policy, seed);
			uint8_t bytes[BLOCK];
			bool has_old = false, has_new = false, other = false;

			assert_int_equal(cow_dev_read(cut, bytes, BLOCK, 7 * BLOCK), 0);
			for (unsigned i = 0; i < BLOCK; i += SECTOR) {
				bool same = memcmp(bytes + i, bytes + i + 1, SECTOR - 1) == 0;

				has_old |= same && bytes[i] == 1;
				has_new |= same && bytes[i] == 2;
				other |= !same;
			}
			old |= has_old && !has_new && !other;
			new |= has_new && !has_old && !other;
			torn |= has_old && has_new;
			garbled |= other;
			cow_dev_close(cut);
		}
		assert_int_equal(old, policy != COW_SIM_KEEP && policy != COW_SIM_LAST);
		assert_int_equal(new, policy != COW_SIM_DROP);
		assert_int_equal(torn, policy == COW_SIM_TORN || policy == COW_SIM_GARBLED);
		assert_int_equal(garbled, policy == COW_SIM_GARBLED);
	}
	cow_dev_close(dev);
}

static void test_independent(void **state)
{
	struct cow_dev *dev = cow_sim_new(64 * BLOCK), *cut;

	(void)state;
	put(dev, 1, 1);
	cut = cow_sim_cut(dev, 1, COW_SIM_KEEP, 0);
	put(dev, 1, 2);
	put(cut, 1, 3);
	assert_int_equal(get(dev, 1), 2);
	assert_int_equal(get(cut, 1), 3);
	/* of a cut, what it started with is durable */
	assert_int_equal(get_cut(cut, 1, COW_SIM_DROP, 0, 1), 1);
	assert_int_equal(get_cut(dev, 1, COW_SIM_DROP, 0, 1), 0);
	cow_sim_forget(dev);
	assert_int_equal(cow_sim_events(dev), 0);
	put(dev, 1, 4);
	assert_int_equal(get_cut(dev, 1, COW_SIM_DROP, 0, 1), 2);
	cow_dev_close(dev);
	assert_int_equal(get(cut, 1), 3);
	cow_dev_close(cut);
}

static void test_failures(void **state)
{
	struct cow_dev *dev = cow_sim_new(64 * BLOCK);
	struct cow_sim_stats stats;
	uint8_t bytes[BLOCK] = {0};

	(void)state;
	cow_sim_fail(dev, COW_SIM_WRITE, 2, 0, -EIO);
	assert_int_equal(cow_dev_write(dev, bytes, BLOCK, 0), 0);
	assert_int_equal(cow_dev_write(dev, bytes, BLOCK, 0), -EIO);
	assert_int_equal(cow_dev_write(dev, bytes, BLOCK, 0), 0);
	cow_sim_fail(dev, COW_SIM_READ, 1, 1, -ENOMEM);
	assert_int_equal(cow_dev_read(dev, bytes, BLOCK, 0), -ENOMEM);
	assert_int_equal(cow_dev_read(dev, bytes, BLOCK, 0), -ENOMEM);
	assert_int_equal(cow_dev_read(dev, bytes, BLOCK, 0), 0);
	cow_sim_fail(dev, COW_SIM_FLUSH, 1, UINT64_MAX, -EIO);
	assert_int_equal(cow_dev_flush(dev), -EIO);
	assert_int_equal(cow_dev_flush(dev), -EIO);
	cow_sim_fail(dev, COW_SIM_FLUSH, 0, 0, 0);
	assert_int_equal(cow_dev_flush(dev), 0);
	cow_sim_stats(dev, &stats);
	assert_int_equal(stats.calls[COW_SIM_FLUSH], 3);
	assert_int_equal(stats.calls[COW_SIM_READ], 3);
	assert_int_equal(stats.blocks_read, 1);
	/* a flush that lies */
	cow_sim_forget(dev);
	cow_sim_lie(dev, true);
	put(dev, 5, 5);
	assert_int_equal(cow_dev_flush(dev), 0);
	assert_int_equal(get_cut(dev, cow_sim_events(dev), COW_SIM_DROP, 0, 5), 0);
	cow_dev_close(dev);
}

static void test_host(void **state)
{
	struct cow_dev *dev = cow_sim_new(64 * BLOCK);
	uint8_t bytes[BLOCK] = {0};

	(void)state;
	cow_sim_host(dev, 10);
	assert_int_equal(cow_dev_ensure(dev, 0, 8 * BLOCK), 0);
	put(dev, 0, 1);
	assert_int_equal(cow_sim_host_used(dev), 8);
	put(dev, 20, 1);
	assert_int_equal(cow_dev_ensure(dev, 30 * BLOCK, 8 * BLOCK), -ENOSPC);
	assert_int_equal(cow_sim_host_used(dev), 10);
	assert_int_equal(cow_dev_write(dev, bytes, BLOCK, 40 * BLOCK), -ENOSPC);
	cow_dev_discard(dev, 0, 2 * BLOCK);
	assert_int_equal(get(dev, 0), 0xdb);
	put(dev, 40, 1);
	cow_dev_close(dev);
}

/* ------------------------------------------------------------------ files */

static char *temporary(void)
{
	static char path[] = "/tmp/cow-test-dev-XXXXXX";
	int fd;

	memcpy(path + sizeof(path) - 7, "XXXXXX", 6);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	return path;
}

static void test_file(void **state)
{
	char *path = temporary();
	struct cow_dev *dev, *second;
	struct stat st;

	(void)state;
	unlink(path);
	assert_int_equal(cow_dev_file_open(path, COW_DEV_WRITE, &dev), -ENOENT);
	assert_int_equal(cow_dev_file_open(path, COW_DEV_READ, &dev), -ENOENT);
	assert_int_equal(cow_dev_file_open(path, COW_DEV_CREATE, &dev), 0);
	assert_int_equal(dev->size_bytes, 0);
	assert_false(cow_dev_file_is_block(dev));
	assert_int_equal(cow_dev_file_resize(dev, 1024 * BLOCK), 0);
	assert_int_equal(get(dev, 1000), 0);
	put(dev, 1000, 7);
	assert_int_equal(cow_dev_flush(dev), 0);
	assert_int_equal(get(dev, 1000), 7);
	assert_int_equal(cow_dev_file_open(path, COW_DEV_WRITE, &second), -EBUSY);
	assert_int_equal(cow_dev_file_open(path, COW_DEV_READ, &second), -EBUSY);
	assert_int_equal(cow_dev_ensure(dev, 0, 100 * BLOCK), 0);
	assert_int_equal(cow_dev_ensure(dev, 1023 * BLOCK, 100 * BLOCK), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 1024 * BLOCK);
	cow_dev_discard(dev, 1000 * BLOCK, BLOCK);
	assert_int_equal(get(dev, 1000), 0);
	cow_dev_close(dev);
	assert_int_equal(cow_dev_file_open(path, COW_DEV_READ, &dev), 0);
	assert_int_equal(cow_dev_file_open(path, COW_DEV_READ, &second), 0);
	assert_int_equal(dev->size_bytes, 1024 * BLOCK);
	assert_int_equal(get(dev, 5000), 0); /* beyond the end */
	cow_dev_close(second);
	cow_dev_close(dev);
	unlink(path);
}

static void test_not_a_file(void **state)
{
	struct cow_dev *dev;

	(void)state;
	assert_int_equal(cow_dev_file_open("/tmp", COW_DEV_READ, &dev), -EISDIR);
	assert_int_equal(cow_dev_file_open("/tmp", COW_DEV_CREATE, &dev), -EISDIR);
	assert_int_equal(cow_dev_file_open("/dev/null", COW_DEV_READ, &dev), -EINVAL);
	assert_int_equal(cow_dev_file_open("/dev/null", COW_DEV_CREATE, &dev), -EINVAL);
}

static void test_save(void **state)
{
	struct cow_dev *dev = cow_sim_new(64 * BLOCK), *back = cow_sim_new(64 * BLOCK);
	char *path = temporary();

	(void)state;
	put(dev, 0, 1);
	put(dev, 9, 2);
	put(dev, 63, 3);
	assert_int_equal(cow_sim_save(dev, path), 0);
	assert_int_equal(cow_sim_load(back, path), 0);
	for (uint64_t block = 0; block < 64; block++)
		assert_int_equal(get(dev, block), get(back, block));
	unlink(path);
	cow_dev_close(dev);
	cow_dev_close(back);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cut),        cmocka_unit_test(test_policies), cmocka_unit_test(test_independent),
		cmocka_unit_test(test_failures),   cmocka_unit_test(test_host),     cmocka_unit_test(test_file),
		cmocka_unit_test(test_not_a_file), cmocka_unit_test(test_save),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
