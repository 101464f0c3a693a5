/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fs/data/flight.c: what is read and written while a commit writes data out, of a large file (past the host's cache)
 * and of small ones. A device calls the test in the middle of each write.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "cow.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "test/lib/simdisk.h"

#define LARGE (9u << 20) /* bytes: more than fs/data/flight.c calls large */
#define SMALL (100u << 10)
#define SMALLS 20u
#define PIECE 4096u

struct file {
	uint8_t *bytes;
	size_t size;
	struct cow_inode *inode;
};

struct scene {
	struct cow_dev *disk;
	struct cow_volume *volume;
	struct cow_inode *root;
	struct file files[1 + SMALLS]; /* the large one first */
	uint64_t random;
	uint64_t direct_bytes, looks;
	bool busy; /* a commit is under way, and the device may call back */
};

static struct scene scene;
static struct cow_dev_ops device_ops;
static int (*sim_write)(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset);

static uint64_t any(uint64_t below)
{
	scene.random = scene.random * 6364136223846793005ULL + 1442695040888963407ULL;
	return (scene.random >> 33) % below;
}

static void compare(const struct file *f, size_t from, size_t length)
{
	static uint8_t bytes[1u << 20];

	assert_true(length <= sizeof(bytes));
	assert_int_equal(cow_read(f->inode, bytes, length, from), length);
	assert_memory_equal(bytes, f->bytes + from, length);
}

static void compare_all(void)
{
	for (size_t i = 0; i <= SMALLS; i++) {
		const struct file *f = &scene.files[i];

		for (size_t from = 0; from < f->size; from += 1u << 20)
			compare(f, from, f->size - from < 1u << 20 ? f->size - from : 1u << 20);
	}
}

static void write_some(struct file *f)
{
	size_t from = any(f->size - PIECE);

	memset(f->bytes + from, (int)any(256), PIECE);
	assert_int_equal(cow_write(f->inode, f->bytes + from, PIECE, from, false), PIECE);
}

/* In the middle of a commit: everything reads as it was written last, wherever it is, and more is written. */
static void look(void)
{
	if (!scene.busy)
		return;
	scene.busy = false;
	scene.looks++;
	for (unsigned i = 0; i < 6; i++) {
		struct file *f = &scene.files[i % 2 == 0 ? 0 : 1 + any(SMALLS)];
		size_t length = 1 + any(f->size < 200000 ? f->size : 200000);

		compare(f, any(f->size - length + 1), length);
		write_some(f);
	}
	scene.busy = true;
}

static int write_and_look(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset)
{
	int error;

	look(); /* not one byte of it is there yet */
	error = sim_write(dev, buffer, length, offset);
	look();
	return error;
}

static int write_direct(struct cow_dev *dev, const struct iovec *parts, size_t count, uint64_t offset)
{
	assert_true(count > 0 && count <= COW_DEV_PARTS_MAX);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal((uintptr_t)parts[i].iov_base % COW_BLOCK, 0);
		scene.direct_bytes += parts[i].iov_len;
	}
	return cow_dev_write_parts(dev, parts, count, offset);
}

static void open_volume(void)
{
	struct cow_open_options options = {.no_threads = true};
	struct cow_dev *dev = simdisk_attach(scene.disk);

	device_ops = *dev->ops;
	sim_write = device_ops.write;
	device_ops.write = write_and_look;
	device_ops.write_direct = write_direct;
	dev->ops = &device_ops;
	assert_int_equal(cow_volume_open(dev, &options, &scene.volume), 0);
	assert_int_equal(cow_root(scene.volume, &scene.root), 0);
}

static void close_volume(void)
{
	for (size_t i = 0; i <= SMALLS; i++)
		cow_forget(scene.files[i].inode, 1);
	cow_forget(scene.root, 1);
	assert_int_equal(cow_close(scene.volume), 0);
}

static void make_files(void)
{
	for (size_t i = 0; i <= SMALLS; i++) {
		struct file *f = &scene.files[i];
		char name[16];

		f->size = i == 0 ? LARGE : SMALL;
		f->bytes = malloc(f->size);
		assert_non_null(f->bytes);
		for (size_t k = 0; k < f->size; k++)
			f->bytes[k] = (uint8_t)any(256);
		snprintf(name, sizeof(name), "%zu", i);
		assert_int_equal(cow_create(scene.root, name, &(struct cow_new){.mode = S_IFREG | 0644}, &f->inode,
					    NULL), 0);
		assert_int_equal(cow_write(f->inode, f->bytes, f->size, 0, false), f->size);
	}
}

static void commit(void)
{
	scene.busy = true;
	assert_int_equal(cow_sync(scene.volume), 0);
	scene.busy = false;
}

static void test_meanwhile(void **state)
{
	(void)state;
	scene = (struct scene){.disk = simdisk_format(256 << 20), .random = 7};
	open_volume();
	make_files();
	commit();
	assert_true(scene.looks >= 2 * LARGE / (1u << 20));
	/* short runs, as before a slot of counts, go with the others; nothing of the small files is in */
	assert_in_range(scene.direct_bytes, LARGE / 8 * 7, LARGE);
	compare_all();
	for (unsigned round = 0; round < 10; round++) { /* pages all over the files */
		for (unsigned i = 0; i < 300; i++)
			write_some(&scene.files[any(1 + SMALLS)]);
		commit();
		compare_all();
	}
	close_volume();
	open_volume();
	for (size_t i = 0; i <= SMALLS; i++) {
		char name[16];

		snprintf(name, sizeof(name), "%zu", i);
		assert_int_equal(cow_lookup(scene.root, name, &scene.files[i].inode, NULL), 0);
	}
	compare_all();
	close_volume();
	for (size_t i = 0; i <= SMALLS; i++)
		free(scene.files[i].bytes);
	cow_dev_close(scene.disk);
}

/* A clone places what is buffered, and writes nothing: memory is bounded all the same, for commits come in between. */
static void test_bounded(void **state)
{
	struct cow_open_options options = {.no_threads = true, .dirty_bytes = 16 << 20};
	uint64_t limit = options.dirty_bytes / COW_BLOCK, most = 0;
	struct cow_dev *disk = simdisk_format(1 << 30);
	uint8_t *bytes = calloc(1, 4 << 20);
	struct cow_volume *volume;
	struct cow_inode *root, *dir, *file, *clone;
	char name[16];

	(void)state;
	assert_non_null(bytes);
	assert_int_equal(cow_volume_open(simdisk_attach(disk), &options, &volume), 0);
	assert_int_equal(cow_root(volume, &root), 0);
	assert_int_equal(cow_create(root, "d", &(struct cow_new){.mode = S_IFDIR | 0755}, &dir, NULL), 0);
	assert_int_equal(cow_create(dir, "f", &(struct cow_new){.mode = S_IFREG | 0644}, &file, NULL), 0);
	for (unsigned i = 0; i < 40; i++) {
		const struct cow_flight *flight = &volume->flight;

		assert_int_equal(cow_write(file, bytes, 4 << 20, (uint64_t)i << 22, false), 4 << 20);
		snprintf(name, sizeof(name), "c%u", i);
		assert_int_equal(cow_clone(dir, root, name, 0, &clone, NULL), 0);
		cow_forget(clone, 1);
		if (flight->small.count + flight->large.count > most)
			most = flight->small.count + flight->large.count;
	}
	assert_in_range(most, 1, 2 * limit + 1024);
	cow_forget(file, 1);
	cow_forget(dir, 1);
	cow_forget(root, 1);
	assert_int_equal(cow_close(volume), 0);
	cow_dev_close(disk);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
