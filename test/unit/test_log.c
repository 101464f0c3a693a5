/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The intent log: the ring of records by itself, intents as bytes, and fsync on a volume whose device is cut off. What
 * the crash test shows at random is shown here case by case.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit/check.h"
#include "base/mem.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "test/lib/scratch.h"
#include "test/lib/simdisk.h"

#define SIZE (24u << 20)

/* ------------------------------------------------------------------ a volume that crashes */

struct scene {
	struct cow_dev *disk;
	struct cow_volume *volume;
	struct cow_inode *root;
	struct cow_sim_stats stats;
};

static void open_volume(struct scene *s)
{
	struct cow_open_options options = {.no_threads = true};

	assert_int_equal(cow_volume_open(simdisk_attach(s->disk), &options, &s->volume), 0);
	assert_int_equal(cow_root(s->volume, &s->root), 0);
}

static void begin(struct scene *s)
{
	s->disk = simdisk_format(SIZE);
	open_volume(s);
}

static void end(struct scene *s)
{
	cow_forget(s->root, 1);
	assert_int_equal(cow_close(s->volume), 0);
	cow_dev_close(s->disk);
}

static void count_finding(void *context, const struct cow_finding *finding)
{
	fprintf(stderr, "finding %d: %s\n", finding->number, finding->text);
	++*(int *)context;
}

int cow_check_device(struct cow_dev *dev, const struct cow_check_options *options, struct cow_check_result *result);

static void check(struct cow_dev *disk)
{
	int findings = 0;
	struct cow_check_options options = {.finding = count_finding, .context = &findings, .data = true};
	struct cow_check_result result;

	assert_int_equal(cow_check_device(disk, &options, &result), 0);
	assert_int_equal(findings, 0);
}

/* The power goes: what is not durable is lost. */
static void crash(struct scene *s)
{
	struct cow_dev *left = cow_sim_cut(s->disk, cow_sim_events(s->disk), COW_SIM_DROP, 0);

	cow_volume_abandon(s->volume);
	cow_dev_close(s->disk);
	s->disk = left;
	check(s->disk);
	open_volume(s);
	check(s->disk);
}

static struct cow_inode *make(struct scene *s, struct cow_inode *dir, const char *name, mode_t mode)
{
	struct cow_new new = {.mode = mode, .uid = 1, .gid = 2, .target = S_ISLNK(mode) ? "there" : NULL};
	struct cow_inode *inode;

	(void)s;
	assert_int_equal(cow_create(dir, name, &new, &inode, NULL), 0);
	return inode;
}

static void put(struct cow_inode *file, const char *text, uint64_t offset)
{
	assert_int_equal(cow_write(file, text, strlen(text), offset, false), strlen(text));
}

static void sync_all(struct scene *s)
{
	struct cow_inode *file = make(s, s->root, ".first", S_IFREG | 0600);

	assert_int_equal(cow_fsync(file), 0);
	cow_forget(file, 1);
	assert_int_equal(cow_unlink(s->root, ".first"), 0);
	assert_int_equal(cow_sync(s->volume), 0);
}

/* One write and no flush: that the log was used, and not a commit. */
static void fsync_by_log(struct scene *s, struct cow_inode *file)
{
	struct cow_info before, after;
	struct cow_sim_stats a, b;

	assert_int_equal(cow_info(s->volume, &before), 0);
	cow_sim_stats(s->disk, &a);
	assert_int_equal(cow_fsync(file), 0);
	cow_sim_stats(s->disk, &b);
	assert_int_equal(cow_info(s->volume, &after), 0);
	assert_int_equal(before.generation, after.generation);
	assert_int_equal(a.calls[COW_SIM_FLUSH], b.calls[COW_SIM_FLUSH]);
	assert_true(b.calls[COW_SIM_WRITE] - a.calls[COW_SIM_WRITE] <= 2); /* the second: the ring is paved */
}

static void expect(struct scene *s, const char *path, const char *text)
{
	struct cow_inode *file;
	struct cow_attr attr;
	char bytes[256] = {0};
	int error = cow_lookup_path(s->volume, path, &file);

	if (text == NULL) {
		assert_int_equal(error, -ENOENT);
		return;
	}
	assert_int_equal(error, 0);
	assert_int_equal(cow_getattr(file, &attr), 0);
	assert_int_equal(cow_read(file, bytes, sizeof(bytes) - 1, 0), strlen(text));
	assert_string_equal(bytes, text);
	assert_int_equal(attr.size, strlen(text));
	cow_forget(file, 1);
}

/* ------------------------------------------------------------------ fsync */

static void test_overwrite(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	struct cow_inode *file = make(&s, s.root, "f", S_IFREG | 0644);
	put(file, "old content", 0);
	sync_all(&s);
	put(file, "new", 0);
	fsync_by_log(&s, file);
	put(file, "lost", 0);
	cow_forget(file, 1);
	cow_forget(s.root, 1);
	crash(&s);
	expect(&s, "f", "new content");
	end(&s);
}

static void test_names(void **state)
{
	struct scene s;
	struct cow_attr attr, again;

	(void)state;
	begin(&s);
	sync_all(&s);
	struct cow_inode *dir = make(&s, s.root, "d", S_IFDIR | 0750);
	struct cow_inode *below = make(&s, dir, "below", S_IFDIR | 0755);
	struct cow_inode *file = make(&s, below, "f", S_IFREG | 0644), *other = make(&s, s.root, "o", S_IFREG | 0600);
	cow_forget(make(&s, below, "l", S_IFLNK | 0777), 1);
	put(file, "text", 0);
	put(other, "not synced", 0);
	assert_int_equal(cow_link(file, dir, "hard", NULL), 0);
	assert_int_equal(cow_rename(dir, "below", s.root, "moved", 0), 0);
	assert_int_equal(cow_setxattr(file, "user.a", "value", 5, 0), 0);
	attr.mode = 0400;
	assert_int_equal(cow_setattr(file, &attr, COW_SET_MODE, NULL), 0);
	fsync_by_log(&s, file);
	assert_int_equal(cow_unlink(dir, "hard"), 0);
	fsync_by_log(&s, other); /* nothing of it but that it is there, and the name that went */
	assert_int_equal(cow_getattr(file, &attr), 0);
	cow_forget(file, 1);
	cow_forget(other, 1);
	cow_forget(below, 1);
	cow_forget(dir, 1);
	cow_forget(s.root, 1);
	crash(&s);
	expect(&s, "moved/f", "text");
	expect(&s, "d/hard", NULL);
	expect(&s, "d/below", NULL);
	expect(&s, "o", "not synced");
	assert_int_equal(cow_lookup_path(s.volume, "moved/f", &file), 0);
	assert_int_equal(cow_getattr(file, &again), 0);
	assert_int_equal(attr.ino, again.ino);
	assert_int_equal(attr.mode, again.mode);
	assert_int_equal(attr.nlink, again.nlink);
	assert_memory_equal(&attr.mtime, &again.mtime, sizeof(attr.mtime));
	assert_memory_equal(&attr.ctime, &again.ctime, sizeof(attr.ctime));
	char value[8];
	assert_int_equal(cow_getxattr(file, "user.a", value, sizeof(value)), 5);
	cow_forget(file, 1);
	end(&s);
}

/* write, truncate, write, fsync */
static void test_truncate(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	struct cow_inode *file = make(&s, s.root, "f", S_IFREG | 0644);
	put(file, "0123456789", 0);
	sync_all(&s);
	struct cow_attr attr = {.size = 4};
	put(file, "ABCDEFGHIJKL", 0);
	assert_int_equal(cow_setattr(file, &attr, COW_SET_SIZE, NULL), 0);
	put(file, "xy", 6);
	fsync_by_log(&s, file);
	cow_forget(file, 1);
	cow_forget(s.root, 1);
	crash(&s);
	char bytes[16];
	assert_int_equal(cow_lookup_path(s.volume, "f", &file), 0);
	assert_int_equal(cow_read(file, bytes, sizeof(bytes), 0), 8);
	assert_memory_equal(bytes, "ABCD\0\0xy", 8);
	cow_forget(file, 1);
	end(&s);
}

/* open, unlink, create the same name, fsync the old descriptor */
static void test_orphan(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	struct cow_inode *old = make(&s, s.root, "f", S_IFREG | 0644);
	put(old, "old", 0);
	sync_all(&s);
	assert_int_equal(cow_hold(old), 0);
	assert_int_equal(cow_unlink(s.root, "f"), 0);
	struct cow_inode *new = make(&s, s.root, "f", S_IFREG | 0644);
	put(new, "new", 0);
	put(old, "OLD", 0);
	assert_int_equal(cow_fsync(old), 0);
	fsync_by_log(&s, new);
	put(old, "again", 0);
	assert_int_equal(cow_fsync(old), 0);
	cow_release(old);
	cow_forget(old, 1);
	cow_forget(new, 1);
	cow_forget(s.root, 1);
	crash(&s);
	expect(&s, "f", "new");
	end(&s);
}

/* O_TMPFILE, linkat, fsync, crash */
static void test_tmpfile(void **state)
{
	struct cow_new new = {.mode = S_IFREG | 0644};
	struct cow_inode *file;
	struct scene s;

	(void)state;
	begin(&s);
	sync_all(&s);
	assert_int_equal(cow_create(s.root, NULL, &new, &file, NULL), 0);
	put(file, "made without a name", 0);
	assert_int_equal(cow_fsync(file), 0);
	assert_int_equal(cow_link(file, s.root, "f", NULL), 0);
	assert_int_equal(cow_fsync(file), 0);
	cow_release(file);
	cow_forget(file, 1);
	cow_forget(s.root, 1);
	crash(&s);
	expect(&s, "f", "made without a name");
	end(&s);
}

/* The operation before could not be said: fsync of whatever file is a commit. */
static void fsync_by_commit(struct scene *s, struct cow_inode *file)
{
	struct cow_info before, after;

	assert_int_equal(cow_info(s->volume, &before), 0);
	assert_int_equal(cow_fsync(file), 0);
	assert_int_equal(cow_info(s->volume, &after), 0);
	assert_true(after.generation > before.generation);
}

/* A directory as deep as an intent can say has one below; what happens in that one must not be missing. */
static void test_deep(void **state)
{
	struct scene s;
	char path[3 * COW_SPOT_DEPTH + 16] = "";

	(void)state;
	begin(&s);
	struct cow_inode *near = make(&s, s.root, "near", S_IFREG | 0644), *dir = NULL, *deep = s.root;
	for (unsigned i = 0; i <= COW_SPOT_DEPTH; i++) {
		if (dir != NULL)
			cow_forget(dir, 1);
		dir = deep != s.root ? deep : NULL;
		deep = make(&s, deep, "d", S_IFDIR | 0755);
		strcat(path, "d/");
	}
	sync_all(&s);

	cow_forget(make(&s, dir, "f", S_IFREG | 0644), 1);
	fsync_by_log(&s, near);
	struct cow_inode *file = make(&s, deep, "a", S_IFREG | 0644);
	fsync_by_commit(&s, near);
	assert_int_equal(cow_setattr(file, &(struct cow_attr){.mode = 0600}, COW_SET_MODE, NULL), 0);
	fsync_by_commit(&s, near);
	assert_int_equal(cow_setxattr(file, "user.x", "y", 1, 0), 0);
	fsync_by_commit(&s, near);
	assert_int_equal(cow_rename(deep, "a", dir, "a", 0), 0);
	fsync_by_commit(&s, near);
	assert_int_equal(cow_rename(dir, "a", deep, "b", 0), 0);
	fsync_by_commit(&s, near);
	assert_int_equal(cow_link(near, deep, "c", NULL), 0);
	fsync_by_commit(&s, near);
	assert_int_equal(cow_link(file, s.root, "e", NULL), 0);
	fsync_by_commit(&s, near);
	assert_int_equal(cow_unlink(deep, "b"), 0);
	fsync_by_commit(&s, near);

	cow_forget(near, 1);
	cow_forget(file, 1);
	cow_forget(dir, 1);
	cow_forget(deep, 1);
	cow_forget(s.root, 1);
	crash(&s);
	strcat(path, "c");
	expect(&s, path, "");
	path[strlen(path) - 1] = 'b';
	expect(&s, path, NULL);
	expect(&s, "e", "");
	end(&s);
}

/* A file renamed over another brings its content along, although nobody synced it. */
static void test_rename_over(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	struct cow_inode *file = make(&s, s.root, "f", S_IFREG | 0644);
	put(file, "old", 0);
	cow_forget(file, 1);
	sync_all(&s);
	file = make(&s, s.root, "tmp", S_IFREG | 0644);
	put(file, "the new content", 0);
	assert_int_equal(cow_rename(s.root, "tmp", s.root, "f", 0), 0);
	cow_forget(file, 1);
	file = make(&s, s.root, "else", S_IFREG | 0644);
	fsync_by_log(&s, file);
	cow_forget(file, 1);
	cow_forget(s.root, 1);
	crash(&s);
	expect(&s, "f", "the new content");
	expect(&s, "tmp", NULL);
	expect(&s, "else", "");
	end(&s);
}

/* write, clone, fsync the clone's file, crash */
static void test_clone(void **state)
{
	struct cow_inode *dir, *file, *clone;
	struct scene s;

	(void)state;
	begin(&s);
	sync_all(&s);
	dir = make(&s, s.root, "d", S_IFDIR | 0755);
	file = make(&s, dir, "f", S_IFREG | 0644);
	put(file, "both", 0);
	assert_int_equal(cow_clone(dir, s.root, "c", 0, &clone, NULL), 0);
	cow_forget(file, 1);
	assert_int_equal(cow_lookup(clone, "f", &file, NULL), 0);
	put(file, "mine", 0);
	assert_int_equal(cow_fsync(file), 0);
	put(file, "once more", 0);
	fsync_by_log(&s, file);
	cow_forget(file, 1);
	cow_forget(clone, 1);
	cow_forget(dir, 1);
	cow_forget(s.root, 1);
	crash(&s);
	expect(&s, "d/f", "both");
	expect(&s, "c/f", "once more");
	end(&s);
}

/* A crash, records beyond the tear, new records before them: of the first opening nothing comes back. */
static void test_tear(void **state)
{
	struct scene s;
	char text[32];

	(void)state;
	begin(&s);
	struct cow_inode *file = make(&s, s.root, "f", S_IFREG | 0644);
	sync_all(&s);
	struct cow_dev *before = NULL;
	uint64_t at = 0;
	for (int i = 0; i < 6; i++) {
		snprintf(text, sizeof(text), "first %d", i);
		put(file, text, 0);
		if (i == 3)
			at = s.volume->store->log.head;
		fsync_by_log(&s, file);
	}
	/* the fourth record never arrived, the fifth and sixth did */
	before = cow_sim_copy(s.disk);
	cow_sim_garble(before, cow_layout_ring(s.volume->store->log.start, at), false, 1);
	cow_forget(file, 1);
	cow_forget(s.root, 1);
	cow_volume_abandon(s.volume);
	cow_dev_close(s.disk);
	s.disk = before;
	open_volume(&s);
	expect(&s, "f", "first 2");
	assert_int_equal(cow_lookup_path(s.volume, "f", &file), 0);
	put(file, "second", 0);
	assert_int_equal(cow_fsync(file), 0);
	put(file, "third!!", 0);
	fsync_by_log(&s, file);
	cow_forget(file, 1);
	cow_forget(s.root, 1);
	crash(&s);
	expect(&s, "f", "third!!");
	end(&s);
}

/* Round after round of the ring; the commits that make room come by themselves. */
static void test_rounds(void **state)
{
	struct scene s;
	char text[32];
	uint64_t commits = 0;
	struct cow_info info;

	(void)state;
	begin(&s);
	struct cow_inode *file = make(&s, s.root, "f", S_IFREG | 0644);
	for (int i = 0; i < 500; i++) {
		snprintf(text, sizeof(text), "number %04d", i);
		put(file, text, 0);
		assert_int_equal(cow_fsync(file), 0);
		if (i % 50 != 49)
			continue;
		assert_int_equal(cow_info(s.volume, &info), 0);
		commits = info.generation;
		cow_forget(file, 1);
		cow_forget(s.root, 1);
		crash(&s);
		expect(&s, "f", text);
		assert_int_equal(cow_lookup_path(s.volume, "f", &file), 0);
	}
	assert_in_range(commits, 15, 100);
	cow_forget(file, 1);
	end(&s);
}

/* Who must not write sees the same. */
static void test_read_only(void **state)
{
	struct cow_open_options options = {.read_only = true};
	struct cow_sim_stats a, b;
	struct scene s;

	(void)state;
	begin(&s);
	struct cow_inode *file = make(&s, s.root, "f", S_IFREG | 0644);
	sync_all(&s);
	put(file, "in the log", 0);
	fsync_by_log(&s, file);
	cow_forget(file, 1);
	cow_forget(s.root, 1);
	cow_volume_abandon(s.volume);
	cow_sim_stats(s.disk, &a);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(cow_volume_open(simdisk_attach(s.disk), &options, &s.volume), 0);
		expect(&s, "f", "in the log");
		assert_int_equal(cow_root(s.volume, &s.root), 0);
		assert_int_equal(cow_unlink(s.root, "f"), -EROFS);
		cow_forget(s.root, 1);
		assert_int_equal(cow_close(s.volume), 0);
	}
	cow_sim_stats(s.disk, &b);
	assert_int_equal(a.calls[COW_SIM_WRITE], b.calls[COW_SIM_WRITE]);
	open_volume(&s);
	expect(&s, "f", "in the log");
	end(&s);
}

static void note_number(void *context, const struct cow_finding *finding)
{
	*(int *)context = finding->number;
}

/* A record whose checksum fits, but what it says is nonsense, or not about this volume: found, and never done. */
static void nonsense(bool malformed, int number)
{
	struct cow_intent intent = {
		.type = COW_INTENT_UNLINK, .generation = UINT64_MAX, .number = 1000, .spot = {.number = 1},
		.name = {(const uint8_t *)"nobody", 6},
	};
	struct cow_intent_head head = {1000, 1000, 1000};
	struct cow_open_options options = {.no_threads = true};
	struct cow_check_options say = {.finding = note_number};
	struct cow_check_result result;
	struct cow_bytes bytes = {0};
	struct scene s;
	int found = 0;

	begin(&s);
	sync_all(&s);
	cow_intent_head_encode(&head, &bytes);
	cow_intent_encode(&intent, &bytes);
	if (malformed)
		bytes.bytes[COW_INTENT_HEAD + 4] = 99;
	uint8_t *record = aligned_alloc(COW_BLOCK, COW_BLOCK);
	memcpy(record + COW_LOG_HEADER, bytes.bytes, bytes.length);
	uint64_t position = cow_log_append(&s.volume->store->log, record, bytes.length);
	assert_int_equal(cow_log_write(&s.volume->store->log, record, bytes.length, position), 0);
	free(record);
	free(bytes.bytes);
	cow_forget(s.root, 1);
	cow_volume_abandon(s.volume);
	say.context = &found;
	assert_int_equal(cow_check_device(s.disk, &say, &result), 0);
	assert_int_equal(found, number);
	uint64_t events = cow_sim_events(s.disk);
	assert_int_equal(cow_volume_open(simdisk_attach(s.disk), &options, &s.volume), COW_ERR_DAMAGED);
	assert_int_equal(cow_sim_events(s.disk), events);
	cow_dev_close(s.disk);
}

static void test_nonsense(void **state)
{
	(void)state;
	nonsense(true, 70);
	nonsense(false, 71);
}

/* A place in the ring that cannot be read: nobody may write, but what the last commit has can be looked at. */
static void test_unreadable(void **state)
{
	struct cow_open_options options = {.no_threads = true}, read_only = {.read_only = true};
	struct scene s;

	(void)state;
	begin(&s);
	struct cow_inode *file = make(&s, s.root, "f", S_IFREG | 0644);
	put(file, "committed", 0);
	sync_all(&s);
	put(file, "in a log.", 0);
	fsync_by_log(&s, file);
	put(file, "and again", 0);
	fsync_by_log(&s, file);
	cow_forget(file, 1);
	cow_forget(s.root, 1);
	const struct cow_super super = s.volume->store->super;
	cow_volume_abandon(s.volume);
	for (unsigned record = 0; record < 3; record++) { /* the third is where another might be */
		struct scratch *scratch = scratch_new(s.disk);
		scratch_unreadable(scratch, cow_layout_ring(super.log.start, super.log.position + record));
		assert_int_equal(cow_volume_open(scratch_attach(scratch), &options, &s.volume), -EIO);
		assert_int_equal(cow_volume_open(scratch_attach(scratch), &read_only, &s.volume), 0);
		expect(&s, "f", "committed");
		assert_int_equal(cow_close(s.volume), 0);
		scratch_unreadable(scratch, 0);
		assert_int_equal(cow_volume_open(scratch_attach(scratch), &options, &s.volume), 0);
		expect(&s, "f", "and again");
		cow_volume_abandon(s.volume);
		scratch_free(scratch);
	}
	cow_dev_close(s.disk);
}

/* ------------------------------------------------------------------ what replay must not depend on */

/* A number that nobody had asked for: replay must not give it one that the next record contradicts. */
static void test_unseen_numbers(void **state)
{
	struct cow_inode *dir, *file, *clone, *other;
	struct cow_attr attr, again;
	struct scene s;

	(void)state;
	begin(&s);
	sync_all(&s);
	dir = make(&s, s.root, "d", S_IFDIR | 0755);
	other = make(&s, dir, "g", S_IFREG | 0644);
	cow_forget(make(&s, dir, "f", S_IFREG | 0644), 1);
	assert_int_equal(cow_clone(dir, s.root, "c", 0, NULL, NULL), 0);
	assert_int_equal(cow_sync(s.volume), 0);
	assert_int_equal(cow_lookup_path(s.volume, "c", &clone), 0);
	assert_int_equal(cow_lookup(clone, "f", &file, NULL), 0);
	for (int i = 0; i < 3; i++) {
		put(file, i == 0 ? "one" : i == 1 ? "two" : "six", 0);
		fsync_by_log(&s, file);
		if (i == 1)
			assert_int_equal(cow_getattr(file, &attr), 0);
	}
	cow_forget(file, 1);
	cow_forget(other, 1);
	cow_forget(clone, 1);
	cow_forget(dir, 1);
	cow_forget(s.root, 1);
	crash(&s);
	expect(&s, "c/f", "six");
	assert_int_equal(cow_lookup_path(s.volume, "c/f", &file), 0);
	assert_int_equal(cow_getattr(file, &again), 0);
	assert_int_equal(attr.ino, again.ino);
	cow_forget(file, 1);
	end(&s);
}

/* ------------------------------------------------------------------ writes that fail */

struct waiter {
	struct scene *s;
	struct cow_inode *file;
	pthread_t thread;
	bool started;
	int result;
};

static void *wait_for_fsync(void *v)
{
	struct waiter *w = v;

	w->result = cow_fsync(w->file);
	return NULL;
}

/* While the record is being written, somebody else comes to fsync. */
static void come_too(void *context, enum cow_sim_call call, uint64_t block, uint64_t blocks)
{
	struct waiter *w = context;
	struct cow_store *store = w->s->volume->store;
	bool there = false;

	(void)block, (void)blocks;
	if (call != COW_SIM_WRITE || w->started)
		return;
	w->started = true;
	assert_int_equal(pthread_create(&w->thread, NULL, wait_for_fsync, w), 0);
	while (!there) {
		pthread_mutex_lock(&store->lock);
		there = w->s->volume->waiting != NULL;
		pthread_mutex_unlock(&store->lock);
	}
}

/* A record that could not be written: nobody is told that it was, not those either who had nothing to add to it. */
static void fail_together(bool more)
{
	struct scene s;
	struct waiter w = {.s = &s};

	begin(&s);
	sync_all(&s);
	struct cow_inode *file = make(&s, s.root, "f", S_IFREG | 0644), *other = make(&s, s.root, "o", S_IFREG | 0644);
	put(file, "text", 0);
	if (more)
		put(other, "other", 0);
	w.file = more ? other : file;
	cow_sim_hook(s.disk, come_too, &w);
	cow_sim_fail(s.disk, COW_SIM_WRITE, 1, UINT64_MAX, -EIO);
	assert_int_equal(cow_fsync(file), -EIO);
	cow_sim_hook(s.disk, NULL, NULL);
	assert_true(w.started);
	pthread_join(w.thread, NULL);
	assert_int_equal(w.result, -EIO);
	cow_sim_fail(s.disk, COW_SIM_WRITE, 0, 0, 0);
	assert_int_equal(cow_fsync(w.file), -EIO);
	cow_forget(file, 1);
	cow_forget(other, 1);
	cow_forget(s.root, 1);
	cow_volume_abandon(s.volume);
	open_volume(&s);
	end(&s);
}

static void test_failed_write(void **state)
{
	(void)state;
	fail_together(false);
	fail_together(true);
}

/* A record that could not be written is no end of the volume: a commit says the same, and voids the hole in the log. */
static void test_bad_ring(void **state)
{
	struct scene s;
	struct cow_info info;

	(void)state;
	begin(&s);
	sync_all(&s);
	struct cow_inode *file = make(&s, s.root, "f", S_IFREG | 0644);
	for (int i = 0; i < 3; i++) {
		put(file, "first", 0);
		cow_sim_fail(s.disk, COW_SIM_WRITE, 1, 0, i == 0 ? -ENOSPC : -EIO);
		assert_int_equal(cow_fsync(file), 0);
		assert_int_equal(cow_info(s.volume, &info), 0);
		assert_false(info.read_only);
		put(file, "again", 0);
		fsync_by_log(&s, file);
		cow_forget(file, 1);
		cow_forget(s.root, 1);
		crash(&s);
		expect(&s, "f", "again");
		assert_int_equal(cow_lookup_path(s.volume, "f", &file), 0);
		put(file, "more!", 0);
		assert_int_equal(cow_fsync(file), 0);
	}
	cow_forget(file, 1);
	end(&s);
}

/* The host is full when the log has to be replayed: what was let through, when it was done first, has its space. */
static void test_full_host(void **state)
{
	struct scene s;
	char text[200];

	(void)state;
	begin(&s);
	struct cow_inode *file = make(&s, s.root, "f", S_IFREG | 0644);
	sync_all(&s);
	for (unsigned i = 0; i < 40; i++) {
		snprintf(text, sizeof(text), "%u", i);
		struct cow_inode *dir = make(&s, s.root, text, S_IFDIR | 0755);
		cow_forget(make(&s, dir, text, S_IFREG | 0644), 1);
		cow_forget(dir, 1);
		memset(text, 'a' + (int)i % 26, sizeof(text) - 1);
		text[sizeof(text) - 1] = 0;
		put(file, text, i * 20000);
		fsync_by_log(&s, file);
	}
	cow_forget(file, 1);
	cow_forget(s.root, 1);
	cow_volume_abandon(s.volume);
	cow_sim_host(s.disk, cow_sim_host_used(s.disk));
	open_volume(&s);
	assert_int_equal(cow_lookup_path(s.volume, "f", &file), 0);
	assert_int_equal(cow_read(file, text, sizeof(text), 39 * 20000), sizeof(text) - 1);
	assert_int_equal(text[0], 'a' + 39 % 26);
	cow_forget(file, 1);
	expect(&s, "39/39", "");
	cow_sim_host(s.disk, UINT64_MAX);
	end(&s);
}

/* An image on a real file system, with direct I/O or without; the process just ends. */
static void on_host(const char *folder)
{
	struct cow_format_options format = {.size_bytes = SIZE};
	struct cow_open_options options = {.no_threads = true};
	struct cow_info before, after;
	struct cow_inode *file;
	struct scene s;
	char path[200];

	snprintf(path, sizeof(path), "%s/cow-test-log-XXXXXX", folder);
	int fd = mkstemp(path);
	if (fd < 0) {
		print_message("# no image in %s: %s\n", folder, strerror(errno));
		return;
	}
	close(fd);
	assert_int_equal(cow_format(path, &format), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(cow_open(path, &options, &s.volume), 0);
		assert_int_equal(cow_root(s.volume, &s.root), 0);
		if (i == 0)
			cow_forget(make(&s, s.root, "f", S_IFREG | 0644), 1);
		else
			expect(&s, "f", "through the log");
		assert_int_equal(cow_lookup_path(s.volume, "f", &file), 0);
		put(file, "by way of a commit", 0);
		assert_int_equal(cow_fsync(file), 0);
		assert_int_equal(cow_info(s.volume, &before), 0);
		assert_int_equal(cow_setattr(file, &(struct cow_attr){.size = 0}, COW_SET_SIZE, NULL), 0);
		put(file, "through the log", 0);
		assert_int_equal(cow_fsync(file), 0);
		assert_int_equal(cow_info(s.volume, &after), 0);
		assert_int_equal(before.generation, after.generation);
		cow_volume_abandon(s.volume);
	}
	unlink(path);
}

static void test_hosts(void **state)
{
	(void)state;
	on_host("/dev/shm"); /* tmpfs, where direct I/O may be refused */
	on_host(getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
}

/* ------------------------------------------------------------------ operations that fail half-way */

#define HOLEY (8u << 20)

static uint8_t *content(struct cow_inode *file)
{
	uint8_t *bytes = cow_mem_new(HOLEY);

	assert_int_equal(cow_read(file, bytes, HOLEY, 0), HOLEY);
	return bytes;
}

/* A part of the file's map cannot be read just now: what the operation did until then is what fsync makes durable. */
static bool fail_half_way(struct scene *s, bool cut, unsigned nth)
{
	struct cow_inode *file;
	struct cow_attr attr = {.size = 20000};
	uint8_t *was, *is;
	int error;

	assert_int_equal(cow_lookup_path(s->volume, "f", &file), 0);
	put(file, "x", 0);
	cow_sim_fail(s->disk, COW_SIM_READ, nth, 0, -EIO);
	if (cut)
		error = cow_setattr(file, &attr, COW_SET_SIZE, NULL);
	else
		error = cow_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 20000, HOLEY - 30000);
	cow_sim_fail(s->disk, COW_SIM_READ, 0, 0, 0);
	if (error == 0) {
		cow_forget(file, 1);
		return false;
	}
	was = content(file);
	assert_int_equal(cow_fsync(file), 0);
	cow_forget(file, 1);
	cow_forget(s->root, 1);
	crash(s);
	assert_int_equal(cow_lookup_path(s->volume, "f", &file), 0);
	is = content(file);
	assert_memory_equal(was, is, HOLEY);
	free(was);
	free(is);
	cow_forget(file, 1);
	return true;
}

static void half_way(bool cut)
{
	unsigned nth = 1;
	struct scene s;
	bool failed;

	do {
		begin(&s);
		struct cow_inode *file = make(&s, s.root, "f", S_IFREG | 0644);
		for (uint64_t at = 0; at < HOLEY; at += 2 * COW_BLOCK)
			put(file, "an extent of its own", at);
		assert_int_equal(cow_setattr(file, &(struct cow_attr){.size = HOLEY}, COW_SET_SIZE, NULL), 0);
		sync_all(&s);
		put(file, "some", 1);
		assert_int_equal(cow_fsync(file), 0);
		cow_forget(file, 1);
		cow_forget(s.root, 1);
		crash(&s); /* nothing is in the caches */
		assert_int_equal(cow_lookup_path(s.volume, "f", &file), 0);
		put(file, "some", 1);
		assert_int_equal(cow_fsync(file), 0);
		cow_forget(file, 1);
		failed = fail_half_way(&s, cut, nth++);
		end(&s);
	} while (failed);
	assert_true(nth > (cut ? 1 : 4));
}

static void test_half_way(void **state)
{
	(void)state;
	half_way(false);
	half_way(true);
}

/* ------------------------------------------------------------------ many at once */

#define CROWD 3
#define ROUNDS 120

struct member {
	struct scene *s;
	char name[8], other[8];
	unsigned promised; /* the last round whose fsync has returned */
	pthread_t thread;
};

/* Writes, renames over the old one now and then, fsyncs; somebody syncs in between. */
static void *work(void *v)
{
	struct member *m = v;
	struct cow_new new = {.mode = S_IFREG | 0644};
	struct cow_inode *root, *file;
	char text[32];

	assert_int_equal(cow_root(m->s->volume, &root), 0);
	for (unsigned i = 1; i <= ROUNDS; i++) {
		snprintf(text, sizeof(text), "%08u", i);
		if (i % 5 == 0) {
			assert_int_equal(cow_create(root, m->other, &new, &file, NULL), 0);
			put(file, text, 0);
			assert_int_equal(cow_rename(root, m->other, root, m->name, 0), 0);
		} else {
			assert_int_equal(cow_lookup(root, m->name, &file, NULL), 0);
			put(file, text, 0);
		}
		if (i % 31 == 0)
			assert_int_equal(cow_sync(m->s->volume), 0);
		assert_int_equal(cow_fsync(file), 0);
		m->promised = i;
		cow_forget(file, 1);
	}
	cow_forget(root, 1);
	return NULL;
}

static void test_crowd(void **state)
{
	struct cow_open_options options = {.commit_seconds = 1};
	struct member members[CROWD];
	char text[32];
	struct scene s;

	(void)state;
	s.disk = simdisk_format(SIZE);
	assert_int_equal(cow_volume_open(simdisk_attach(s.disk), &options, &s.volume), 0);
	assert_int_equal(cow_root(s.volume, &s.root), 0);
	for (unsigned i = 0; i < CROWD; i++) {
		members[i] = (struct member){.s = &s};
		snprintf(members[i].name, sizeof(members[i].name), "f%u", i);
		snprintf(members[i].other, sizeof(members[i].other), "o%u", i);
		cow_forget(make(&s, s.root, members[i].name, S_IFREG | 0644), 1);
	}
	for (unsigned i = 0; i < CROWD; i++)
		assert_int_equal(pthread_create(&members[i].thread, NULL, work, &members[i]), 0);
	for (unsigned i = 0; i < CROWD; i++)
		pthread_join(members[i].thread, NULL);
	cow_forget(s.root, 1);
	crash(&s);
	for (unsigned i = 0; i < CROWD; i++) {
		snprintf(text, sizeof(text), "%08u", members[i].promised);
		expect(&s, members[i].name, text);
	}
	end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_overwrite), cmocka_unit_test(test_names), cmocka_unit_test(test_truncate),
		cmocka_unit_test(test_orphan), cmocka_unit_test(test_tmpfile), cmocka_unit_test(test_rename_over),
		cmocka_unit_test(test_clone), cmocka_unit_test(test_tear), cmocka_unit_test(test_rounds),
		cmocka_unit_test(test_read_only), cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_unseen_numbers),
		cmocka_unit_test(test_failed_write), cmocka_unit_test(test_bad_ring), cmocka_unit_test(test_full_host),
		cmocka_unit_test(test_hosts), cmocka_unit_test(test_crowd), cmocka_unit_test(test_half_way),
		cmocka_unit_test(test_unreadable), cmocka_unit_test(test_deep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
