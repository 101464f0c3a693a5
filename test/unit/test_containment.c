/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Damage stays where it is: an error on exactly what lies in the block, and all else goes on, reading and writing. A
 * failed write makes the volume read-only with one message; what was read before can be read after, and the next
 * opening has the last generation.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "audit/check.h"
#include "audit/repair.h"
#include "cow.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "test/lib/known.h"
#include "test/lib/owners.h"
#include "test/lib/rich.h"
#include "test/lib/scratch.h"

static struct scratch *image;
static struct owners *owners;
static struct known *known;

struct said {
	unsigned errors, warnings, read_only, lies;
	char last[512];
};

static void on_log(void *context, enum cow_log_level level, const char *text)
{
	struct said *said = context;

	said->errors += level == COW_LOG_ERROR;
	said->warnings += level == COW_LOG_WARNING;
	said->lies += strstr(text, "confirmed") != NULL;
	if (strstr(text, "read-only") != NULL) {
		said->read_only++;
		snprintf(said->last, sizeof(said->last), "%s", text);
	}
}

static struct cow_volume *open_volume(bool write, struct said *said)
{
	struct cow_open_options options = {.read_only = !write, .no_threads = true, .log = on_log, .log_context = said};
	struct cow_volume *volume;

	*said = (struct said){0};
	assert_int_equal(cow_volume_open(scratch_attach(image), &options, &volume), 0);
	return volume;
}

static struct cow_inode *look(struct cow_volume *volume, const char *path)
{
	struct cow_inode *inode;
	int error = cow_lookup_path(volume, path, &inode);

	if (error != 0)
		fail_msg("%s: %s", path, cow_error_text(error));
	return inode;
}

static bool is_read_only(struct cow_volume *volume, uint64_t *reclaim)
{
	struct cow_info info;

	assert_int_equal(cow_info(volume, &info), 0);
	if (reclaim != NULL)
		*reclaim = info.reclaim_entries;
	return info.read_only;
}

/* ------------------------------------------------------------------ file data */

static uint64_t damage(enum role role, const char *path)
{
	uint64_t block = owners_block_of(owners, role, path);

	assert_true(block != 0);
	scratch_flip(image, block, 4567);
	return block;
}

static unsigned bad_blocks(struct cow_inode *file, const struct known *k, uint64_t *which)
{
	uint8_t bytes[4096];
	unsigned bad = 0;

	for (uint64_t i = 0; i < (k->length + 4095) / 4096; i++) {
		size_t length = k->length - i * 4096 < 4096 ? k->length - i * 4096 : 4096;
		int64_t got = cow_read(file, bytes, length, i * 4096);

		if (got == -EIO) {
			*which = i;
			bad++;
		} else {
			assert_int_equal(got, length);
			assert_memory_equal(bytes, k->bytes + i * 4096, length);
		}
	}
	return bad;
}

static void test_file_data(void **state)
{
	const char *path = "/files/of-65536";
	const struct known *k = known_find(known, path);
	struct cow_inode *dir, *file, *clone;
	struct cow_volume *volume;
	struct said said;
	uint64_t which, other;

	(void)state;
	damage(ROLE_DATA, path);
	volume = open_volume(true, &said);
	file = look(volume, path);
	dir = look(volume, "/files");
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(bad_blocks(file, k, &which), 1);
	assert_int_equal(said.errors, 1); /* the same line, once */
	/* it can be cloned, renamed, and asked for everything but that */
	assert_int_equal(cow_clone(file, dir, "its-clone", 0, &clone, NULL), 0);
	assert_int_equal(cow_rename(dir, "of-65536", dir, "renamed", 0), 0);
	assert_int_equal(cow_setxattr(file, "user.a", "b", 1, 0), 0);
	assert_int_equal(cow_sync(volume), 0);
	/* a part of the block cannot be written, for the rest of it is lost; and is not written elsewhere */
	assert_int_equal(cow_write(file, "x", 1, which * 4096 + 5, false), -EIO);
	assert_int_equal(bad_blocks(file, k, &which), 1);
	/* all of it can, and then it is good again, but not in the clone */
	assert_int_equal(cow_write(file, k->bytes + which * 4096, 4096, which * 4096, false), 4096);
	assert_int_equal(cow_sync(volume), 0);
	assert_int_equal(bad_blocks(file, k, &other), 0);
	assert_int_equal(bad_blocks(clone, k, &other), 1);
	assert_int_equal(other, which);
	/* or cut off */
	assert_int_equal(cow_setattr(clone, &(struct cow_attr){.size = which * 4096}, COW_SET_SIZE, NULL), 0);
	assert_int_equal(cow_setattr(clone, &(struct cow_attr){.size = k->length}, COW_SET_SIZE, NULL), 0);
	cow_forget(clone, 1);
	assert_int_equal(cow_lookup(dir, "its-clone", &clone, NULL), 0);
	assert_int_equal(cow_unlink(dir, "its-clone"), 0);
	assert_int_equal(cow_remove_tree(dir, "renamed"), 0);
	cow_forget(clone, 1);
	cow_forget(file, 1);
	cow_forget(dir, 1);
	assert_int_equal(cow_drain(volume), 0);
	assert_false(is_read_only(volume, NULL));
	assert_int_equal(cow_close(volume), 0);
	scratch_reset(image);
}

/* ------------------------------------------------------------------ a directory */

struct sorted {
	unsigned good, bad;
};

static void on_difference(void *context, enum known_call call, const struct known *at, uint64_t block, int error)
{
	struct sorted *s = context;

	(void)block;
	if (error == 0)
		fail_msg("%s: wrong", at->path);
	s->bad += call == KNOWN_LOOKUP;
}

static void test_directory(void **state)
{
	uint64_t block = damage(ROLE_DIR,
				"/many/a name that is long, so that there are many leaves, with number 3 at the end");
	const struct known *many = known_find(known, "/many");
	struct cow_volume *volume;
	struct sorted lost = {0};
	struct cow_inode *dir, *root, *file;
	unsigned removed = 0, refused = 0, made = 0;
	uint64_t stuck, before;
	struct said said;
	char name[40];

	(void)state;
	volume = open_volume(true, &said);
	assert_int_equal(known_compare(volume, known, on_difference, &lost), 0);
	assert_in_range(lost.bad, 1, 50); /* one leaf, in two places */
	dir = look(volume, "/many");
	for (unsigned i = 0; i < 60; i++) { /* names go wherever their hash says */
		snprintf(name, sizeof(name), "new-%u", i);
		int error = cow_create(dir, name, &(struct cow_new){.mode = S_IFREG | 0600}, NULL, NULL);
		made += error == 0;
		assert_true(error == 0 || cow_error_errno(error) == EIO);
	}
	assert_in_range(made, 30, 60);
	for (const struct known *k = many->children; k != NULL; k = k->next) {
		if (S_ISDIR(k->attr.mode))
			continue;
		int error = cow_unlink(dir, k->name);
		removed += error == 0;
		refused += error != 0;
		if (error != 0 && (cow_error_errno(error) != EIO ||
				   !owners_allow(owners, block, KNOWN_LOOKUP, k->path, 0)))
			fail_msg("unlink of %s: %s", k->path, cow_error_text(error));
	}
	assert_true(removed > 200);
	assert_in_range(refused, 1, 25);
	assert_int_equal(cow_sync(volume), 0);
	cow_forget(dir, 1);
	assert_int_equal(cow_close(volume), 0);

	/* all of it goes at once; what cannot be read of it stays in the queue and stops nobody */
	volume = open_volume(true, &said);
	assert_int_equal(cow_root(volume, &root), 0);
	assert_int_equal(cow_remove_tree(root, "many"), 0);
	assert_int_equal(cow_remove_tree(root, "snapshot"), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(cow_drain(volume), 0);
	assert_int_equal(said.warnings, 1);
	assert_false(is_read_only(volume, &stuck));
	assert_int_equal(stuck, 1);
	cow_forget(root, 1);
	assert_int_equal(cow_close(volume), 0);
	for (unsigned i = 0; i < 2; i++) { /* and at each mount it is told once, and left alone */
		volume = open_volume(true, &said);
		assert_int_equal(cow_root(volume, &root), 0);
		snprintf(name, sizeof(name), "after-%u", i);
		assert_int_equal(cow_create(root, name, &(struct cow_new){.mode = S_IFREG}, &file, NULL), 0);
		assert_int_equal(cow_write(file, name, 10, 0, false), 10);
		before = stuck;
		assert_int_equal(cow_drain(volume), 0);
		assert_int_equal(said.warnings, 1);
		assert_false(is_read_only(volume, &stuck));
		assert_int_equal(stuck, before);
		cow_forget(file, 1);
		cow_forget(root, 1);
		assert_int_equal(cow_close(volume), 0);
	}
	scratch_reset(image);
}

/* ------------------------------------------------------------------ the device fails */

static int count_change(void *context, const struct cow_change *change)
{
	(void)change;
	++*(unsigned *)context;
	return 0;
}

static void make_changes(struct cow_volume *volume)
{
	struct cow_inode *root, *file;
	static char bytes[100000];

	assert_int_equal(cow_root(volume, &root), 0);
	(void)!cow_unlink(root, "fresh");
	assert_int_equal(cow_create(root, "fresh", &(struct cow_new){.mode = S_IFREG | 0600}, &file, NULL), 0);
	assert_int_equal(cow_write(file, bytes, sizeof(bytes), 0, false), sizeof(bytes));
	cow_forget(file, 1);
	cow_forget(root, 1);
}

/* Whatever only looks goes on when the volume has failed, with changes in memory that never come to disk. */
static void look_around(struct cow_volume *volume)
{
	struct cow_inode *a = look(volume, "/snapshot"), *b = look(volume, "/clone"), *root = look(volume, "/");
	struct cow_scrub_result result;
	struct cow_usage usage;
	unsigned changes = 0;
	int same;

	(void)!cow_diff(a, root, true, count_change, &changes);
	same = cow_same(a, b);
	assert_true(same == 0 || same == -EIO || same == -EROFS);
	(void)!cow_usage(b, true, &usage);
	(void)!cow_usage(root, true, &usage);
	assert_int_equal(cow_scrub(volume, NULL, &result), 0);
	assert_int_equal(result.findings, 0);
	cow_forget(a, 1);
	cow_forget(b, 1);
	cow_forget(root, 1);
}

/* The nth write (or flush) of a commit fails. False: there are not so many. */
static bool fail_at(bool flush, unsigned nth)
{
	struct cow_inode *root;
	struct cow_volume *volume;
	struct sorted lost = {0};
	struct said said, again;
	int error;

	volume = open_volume(true, &said);
	make_changes(volume);
	assert_int_equal(cow_sync(volume), 0);
	make_changes(volume);
	scratch_fail(image, flush, nth, UINT64_MAX);
	error = cow_sync(volume);
	if (error == 0) {
		scratch_fail(image, flush, 0, 0);
		assert_int_equal(cow_close(volume), 0);
		scratch_reset(image);
		return false;
	}
	assert_int_equal(cow_error_errno(error), EIO);
	assert_true(is_read_only(volume, NULL));
	assert_int_equal(cow_root(volume, &root), 0);
	assert_int_equal(cow_create(root, "no", &(struct cow_new){.mode = S_IFREG}, NULL, NULL), -EROFS);
	assert_int_equal(cow_error_errno(cow_sync(volume)), EIO);
	cow_forget(root, 1);
	known->loose = true;
	assert_int_equal(known_compare(volume, known, on_difference, &lost), 0);
	assert_int_equal(lost.bad, 0);
	scratch_fail(image, flush, 0, 0);
	look_around(volume);
	if (said.read_only != 1 || strstr(said.last, "cow check") == NULL)
		fail_msg("%u messages, the last: %s", said.read_only, said.last);
	assert_int_not_equal(cow_close(volume), 0);
	/* the last generation is there, and can be written */
	volume = open_volume(true, &again);
	assert_int_equal(known_compare(volume, known, on_difference, &lost), 0);
	known->loose = false;
	assert_int_equal(lost.bad, 0);
	cow_forget(look(volume, "/fresh"), 1);
	make_changes(volume);
	assert_int_equal(cow_close(volume), 0);
	scratch_reset(image);
	return true;
}

static void test_failed_write(void **state)
{
	unsigned n = 0;

	(void)state;
	while (fail_at(false, n))
		n++;
	assert_true(n > 3);
}

static void test_failed_flush(void **state)
{
	unsigned n = 0;

	(void)state;
	while (fail_at(true, n))
		n++;
	assert_true(n >= 2);
}

/* Changes that were made while the commit that fails was on its way stay in memory, dirty, for ever. */
static void test_dirty_for_ever(void **state)
{
	struct cow_volume *volume;
	struct cow_inode *root, *file;
	struct said said;

	(void)state;
	volume = open_volume(true, &said);
	make_changes(volume);
	cow_store_fail(volume->store, -EIO, "test");
	assert_int_equal(cow_root(volume, &root), 0);
	assert_int_equal(cow_lookup(root, "fresh", &file, NULL), 0);
	look_around(volume);
	cow_forget(file, 1);
	cow_forget(root, 1);
	assert_int_not_equal(cow_close(volume), 0);
	scratch_reset(image);
}

struct stuck {
	uint64_t block;
	unsigned findings, elsewhere;
};

static void on_finding(void *context, const struct cow_finding *finding)
{
	struct stuck *s = context;

	s->findings++;
	s->elsewhere += finding->block != s->block;
}

/* The queue, or the orphans, cannot be read: they wait in a new queue, and nothing else is wrong with the volume. */
static void stuck_for_ever(enum role role)
{
	struct stuck stuck = {.block = owners_nth(owners, role, 0)};
	struct cow_check_options options = {.finding = on_finding, .context = &stuck, .data = true};
	struct cow_check_result result;
	struct cow_repair_result repaired;
	struct cow_volume *volume;
	struct cow_dev *dev;
	struct said said;
	uint64_t waiting;

	assert_true(stuck.block != 0);
	scratch_flip(image, stuck.block, 4567);
	for (unsigned i = 0; i < 3; i++) {
		volume = open_volume(true, &said);
		make_changes(volume);
		assert_int_equal(cow_drain(volume), 0);
		assert_false(is_read_only(volume, &waiting));
		assert_int_equal(waiting, 1);
		assert_int_equal(said.warnings, i == 0 ? 2 : 1);
		assert_int_equal(cow_close(volume), 0);
	}
	dev = scratch_attach(image);
	assert_int_equal(cow_check_device(dev, &options, &result), 0);
	assert_true(stuck.findings > 0);
	assert_int_equal(stuck.elsewhere, 0);
	assert_int_equal(cow_repair_device(dev, NULL, &repaired), 0);
	assert_int_equal(repaired.left, 0);
	cow_dev_close(dev);
	scratch_reset(image);
}

static void test_queue(void **state)
{
	(void)state;
	stuck_for_ever(ROLE_RECLAIM);
	stuck_for_ever(ROLE_ORPHANS);
}

/* The map of a file is damaged: whoever writes over that range is told, and what others do goes on. */
static void test_map(void **state)
{
	static const uint8_t page[COW_BLOCK];
	struct cow_volume *volume;
	struct cow_inode *file, *dir;
	unsigned refused = 0;
	struct said said;

	(void)state;
	damage(ROLE_FILE, "/files/many-extents");
	volume = open_volume(true, &said);
	file = look(volume, "/files/many-extents");
	dir = look(volume, "/files");
	for (uint64_t at = 0; at < 400; at++)
		refused += cow_write(file, page, sizeof(page), at * COW_BLOCK, false) < 0;
	assert_true(refused > 0);
	assert_int_equal(cow_create(dir, "innocent", &(struct cow_new){.mode = S_IFREG | 0600}, NULL, NULL), 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(cow_sync(volume), 0);
	assert_false(is_read_only(volume, NULL));
	cow_forget(file, 1);
	cow_forget(dir, 1);
	assert_int_equal(cow_close(volume), 0);
	volume = open_volume(true, &said);
	cow_forget(look(volume, "/files/innocent"), 1);
	assert_int_equal(cow_close(volume), 0);
	scratch_reset(image);
}

/* Nodes of the newest generation that are not there: the device has not kept what it said it would. */
static void test_lying_device(void **state)
{
	struct cow_volume *volume;
	struct sorted lost = {0};
	struct said said;
	uint64_t old = owners_block_of(owners, ROLE_FILE, "/files/many-extents"), queue = owners_nth(owners,
												     ROLE_RECLAIM, 0);

	(void)state;
	scratch_flip(image, old, 4567);
	volume = open_volume(true, &said);
	assert_int_equal(known_compare(volume, known, on_difference, &lost), 0);
	assert_true(said.errors > 0 && said.lies == 0);
	cow_volume_abandon(volume);
	scratch_reset(image);
	scratch_flip(image, queue, 4567);
	volume = open_volume(true, &said);
	assert_int_equal(said.lies, 1);
	cow_volume_abandon(volume);
	scratch_reset(image);
}

static int setup(void **state)
{
	struct cow_dev *dev = rich_volume();
	struct cow_volume *volume;
	struct said said;

	(void)state;
	image = scratch_new(dev);
	owners = owners_read(dev);
	cow_dev_close(dev);
	volume = open_volume(false, &said);
	known = known_read(volume);
	return cow_close(volume);
}

static int teardown(void **state)
{
	(void)state;
	known_free(known);
	owners_free(owners);
	scratch_free(image);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_file_data),    cmocka_unit_test(test_directory),
		cmocka_unit_test(test_failed_write), cmocka_unit_test(test_failed_flush),
		cmocka_unit_test(test_dirty_for_ever), cmocka_unit_test(test_lying_device),
		cmocka_unit_test(test_queue),	     cmocka_unit_test(test_map),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
