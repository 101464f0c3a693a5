/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host of the image runs full (doc/DESIGN.md, "Cases of commit and allocation"): writers are told ENOSPC, what was
 * acknowledged is there, removing works, and when there is space again everything goes on. Removed data gives its space
 * back.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "audit/check.h"
#include "base/mem.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/mkfs.h"
#include "fs/open.h"
#include "test/lib/simdisk.h"

#define SIZE (1ull << 30)
#define FILE_BYTES (256u << 10)

static void on_log(void *context, enum cow_log_level level, const char *text)
{
	if (level == COW_LOG_ERROR)
		print_message("log: %s\n", text);
	*(unsigned *)context += level == COW_LOG_ERROR;
}

static int add_file(struct cow_inode *dir, unsigned i)
{
	static char bytes[FILE_BYTES];
	struct cow_inode *file;
	char name[32];
	int64_t result;

	snprintf(name, sizeof(name), "%u", i);
	memset(bytes, (int)i + 1, sizeof(bytes));
	result = cow_create(dir, name, &(struct cow_new){.mode = S_IFREG | 0644}, &file, NULL);
	if (result < 0)
		return (int)result;
	result = cow_write(file, bytes, sizeof(bytes), 0, false);
	cow_forget(file, 1);
	return result < 0 ? (int)result : 0;
}

static void check_files(struct cow_inode *dir, unsigned count)
{
	char *bytes = cow_mem_new(FILE_BYTES), name[32];

	for (unsigned i = 0; i < count; i++) {
		struct cow_inode *file;

		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(cow_lookup(dir, name, &file, NULL), 0);
		assert_int_equal(cow_read(file, bytes, FILE_BYTES, 0), FILE_BYTES);
		assert_int_equal((uint8_t)bytes[0], (uint8_t)(i + 1));
		assert_int_equal((uint8_t)bytes[FILE_BYTES - 1], (uint8_t)(i + 1));
		cow_forget(file, 1);
	}
	free(bytes);
}

static void check_clean(struct cow_dev *dev)
{
	struct cow_dev *copy = cow_sim_copy(dev);
	struct cow_check_result result;

	assert_int_equal(cow_check_device(copy, &(struct cow_check_options){.data = true}, &result), 0);
	assert_int_equal(result.findings, 0);
	cow_dev_close(copy);
}

static void run(bool threads)
{
	unsigned errors = 0, count = 0;
	struct cow_open_options options = {.no_threads = !threads,
					   .log = on_log,
					   .log_context = &errors,
					   .dirty_bytes = 8 << 20,
					   .commit_seconds = 1};
	struct cow_dev *dev = cow_sim_new(SIZE);
	struct cow_volume *volume;
	struct cow_inode *root, *dir;
	uint64_t used;
	int error;

	assert_int_equal(cow_volume_format(dev, &(struct cow_format_options){0}), 0);
	assert_int_equal(cow_volume_open(dev, &options, &volume), 0);
	assert_int_equal(cow_root(volume, &root), 0);
	assert_int_equal(cow_create(root, "dir", &(struct cow_new){.mode = S_IFDIR | 0755}, &dir, NULL), 0);
	cow_sim_host(dev, 40000); /* 160 MiB of 1 GiB */
	while ((error = add_file(dir, count)) == 0)
		count++;
	assert_int_equal(error, -ENOSPC);
	assert_in_range(count, 100, 160000 / 256);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(cow_sync(volume), 0);
		error = add_file(dir, count + 1 + i);
		assert_true(error == 0 || error == -ENOSPC || error == -EEXIST);
	}
	check_files(dir, count);
	for (unsigned i = 0; i < 2000; i++) { /* in small steps to the very end */
		struct cow_inode *file;
		char name[32];

		snprintf(name, sizeof(name), "small-%u", i);
		error = cow_create(dir, name, &(struct cow_new){.mode = S_IFREG | 0644}, &file, NULL);
		if (error != 0)
			continue;
		error = (int)cow_write(file, name, sizeof(name), 5000, false);
		cow_forget(file, 1);
		if (i % 100 == 0)
			assert_int_equal(cow_sync(volume), 0);
	}
	assert_int_equal(error, -ENOSPC);
	assert_int_equal(cow_unlink(dir, "0"), 0);
	assert_int_equal(cow_sync(volume), 0);
	assert_int_equal(cow_unlink(dir, "1"), 0);
	assert_int_equal(cow_clone(dir, root, "clone", 0, NULL, NULL) <= 0, 1);
	assert_int_equal(cow_unlink(dir, "2"), 0);
	assert_int_equal(cow_sync(volume), 0);
	check_clean(dev);
	error = cow_remove_tree(root, "clone");
	assert_true(error == 0 || error == -ENOENT);
	used = cow_sim_host_used(dev);
	cow_forget(dir, 1);
	assert_int_equal(cow_remove_tree(root, "dir"), 0);
	assert_int_equal(cow_drain(volume), 0);
	assert_int_equal(cow_sync(volume), 0);
	assert_true(cow_sim_host_used(dev) < used / 2); /* given back */
	assert_int_equal(cow_create(root, "dir", &(struct cow_new){.mode = S_IFDIR | 0755}, &dir, NULL), 0);
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(add_file(dir, i), 0);
	cow_sim_host(dev, UINT64_MAX);
	for (unsigned i = 50; i < 1000; i++)
		assert_int_equal(add_file(dir, i), 0);
	assert_int_equal(cow_sync(volume), 0);
	check_files(dir, 1000);
	check_clean(dev);
	assert_int_equal(errors, 0);
	cow_forget(dir, 1);
	cow_forget(root, 1);
	assert_int_equal(cow_close(volume), 0);
}

static void test_host_full(void **state)
{
	(void)state;
	run(false);
}

static void test_host_full_threads(void **state)
{
	(void)state;
	run(true);
}

/* A volume with something to do at once, on a host that gives nothing: told, not dead, and well when there is space. */
static void full_at_mount(bool threads)
{
	struct cow_open_options options = {.no_threads = !threads, .commit_seconds = 1};
	struct cow_dev *disk = simdisk_format(64 << 20);
	struct cow_volume *volume;
	struct cow_inode *root, *file;
	struct cow_info info;

	assert_int_equal(cow_volume_open(simdisk_attach(disk), &options, &volume), 0);
	assert_int_equal(cow_root(volume, &root), 0);
	assert_int_equal(add_file(root, 1), 0);
	assert_int_equal(cow_lookup(root, "1", &file, NULL), 0);
	assert_int_equal(cow_hold(file), 0);
	for (uint64_t at = 1; at < 40; at++) /* a map that is a tree: reclaim will need a node */
		assert_int_equal(cow_write(file, "x", 1, at << 20, false), 1);
	assert_int_equal(cow_sync(volume), 0);
	assert_int_equal(cow_unlink(root, "1"), 0);
	assert_int_equal(cow_sync(volume), 0);
	cow_volume_abandon(volume);
	cow_sim_fail(disk, COW_SIM_ENSURE, 1, UINT64_MAX, -ENOSPC);
	assert_int_equal(cow_volume_open(simdisk_attach(disk), &options, &volume), 0);
	/* The orphan is being dropped; a thread may have come to the end of that, and needs no node. */
	int error = cow_sync(volume);
	assert_true(error == -ENOSPC || (threads && error == 0));
	assert_int_equal(cow_root(volume, &root), 0);
	assert_int_equal(add_file(root, 2), -ENOSPC);
	assert_int_equal(cow_info(volume, &info), 0);
	assert_false(info.read_only);
	cow_sim_fail(disk, COW_SIM_ENSURE, 0, 0, 0);
	error = -ENOSPC; /* the thread may just have asked the host, before it had space again */
	for (unsigned i = 3; i < (threads ? 500 : 4) && error == -ENOSPC; i++) {
		if (i > 3)
			nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
		error = add_file(root, i);
	}
	assert_int_equal(error, 0);
	assert_int_equal(cow_sync(volume), 0);
	cow_forget(root, 1);
	assert_int_equal(cow_close(volume), 0);
	check_clean(disk);
	cow_dev_close(disk);
}

/* With nothing to commit, only asking again shows that the host has space. */
static void test_full_and_idle(void **state)
{
	struct cow_open_options options = {.no_threads = true};
	struct cow_dev *disk = simdisk_format(64 << 20);
	struct cow_volume *volume;
	struct cow_inode *root;

	(void)state;
	assert_int_equal(cow_volume_open(simdisk_attach(disk), &options, &volume), 0);
	assert_int_equal(cow_root(volume, &root), 0);
	cow_sim_fail(disk, COW_SIM_ENSURE, 1, UINT64_MAX, -ENOSPC);
	assert_int_equal(add_file(root, 1), -ENOSPC);
	assert_int_equal(add_file(root, 1), -ENOSPC);
	cow_sim_fail(disk, COW_SIM_ENSURE, 0, 0, 0);
	assert_int_equal(add_file(root, 1), 0);
	cow_forget(root, 1);
	assert_int_equal(cow_close(volume), 0);
	cow_dev_close(disk);
}

static void test_full_at_mount(void **state)
{
	(void)state;
	full_at_mount(false);
}

static void test_full_at_mount_threads(void **state)
{
	(void)state;
	full_at_mount(true);
}

/*
 * Reopened on a host that is full: what is allocated for the image is not known any more, and where the search for it
 * begins the host has taken space back. There is space in other places: enough to remove.
 */
static void test_full_reopened(void **state)
{
	struct cow_open_options options = {.no_threads = true};
	struct cow_dev *disk = simdisk_format(256 << 20);
	struct cow_volume *volume;
	struct cow_inode *root;
	char name[32];

	(void)state;
	assert_int_equal(cow_volume_open(simdisk_attach(disk), &options, &volume), 0);
	assert_int_equal(cow_root(volume, &root), 0);
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(add_file(root, i), 0);
	assert_int_equal(cow_sync(volume), 0);
	for (unsigned i = 0; i < 150; i++) {
		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(cow_unlink(root, name), 0);
	}
	assert_int_equal(cow_drain(volume), 0);
	cow_forget(root, 1);
	assert_int_equal(cow_close(volume), 0);
	cow_sim_host(disk, cow_sim_host_used(disk)); /* somebody else has the rest */
	assert_int_equal(cow_volume_open(simdisk_attach(disk), &options, &volume), 0);
	assert_int_equal(cow_root(volume, &root), 0);
	for (unsigned i = 150; i < 200; i++) {
		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(cow_unlink(root, name), 0);
	}
	assert_int_equal(cow_sync(volume), 0);
	cow_forget(root, 1);
	assert_int_equal(cow_close(volume), 0);
	check_clean(disk);
	cow_dev_close(disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_host_full),
		cmocka_unit_test(test_host_full_threads),
		cmocka_unit_test(test_full_and_idle),
		cmocka_unit_test(test_full_at_mount),
		cmocka_unit_test(test_full_at_mount_threads),
		cmocka_unit_test(test_full_reopened),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
