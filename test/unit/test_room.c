/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What one call can make dirty, on a volume that is full: the next commit must find room for it, whatever the call was.
 * Each scene is made with room, then the volume is filled to the last block, then comes the call, then a commit.
 */
#include <errno.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "cow.h"
#include "fs/reclaim/reclaim.h"
#include "test/lib/cases.h"
#include "test/lib/scene.h"

#define CLONES 40000u
#define NAMES 40000u
#define PAIRS 8000u
#define SMALL 12000u
#define KEPT 400u
#define PUNCHED 5000u
#define ORPHANS 12000u
#define DIRS 1000u
#define COPIES 1200u
#define OPENED 30000u
#define TARGET "a target that is so long that it takes a lot of space in the record of its link "
#define EXTENTS 6000u /* of one block each, and so far from each other: */
#define PITCH (2 * (uint64_t)COW_BLOCK_BYTES)

struct tight {
	struct scene on;
	struct cow_inode *a, *b; /* directories */
	uint8_t *bytes;
};

static void begin_on(struct tight *s, uint64_t bytes)
{
	*s = (struct tight){.on = scene_begin(bytes), .bytes = calloc(1, MIB)};
	s->a = scene_make(s->on.root, "a", S_IFDIR | 0755);
	s->b = scene_make(s->on.root, "b", S_IFDIR | 0755);
}

static void begin(struct tight *s)
{
	begin_on(s, 64 * MIB);
}

static void fill(struct tight *s)
{
	struct cow_inode *file = scene_make(s->on.root, "filling", S_IFREG | 0644);
	uint64_t size = 0;
	int64_t n;

	assert_int_equal(cow_drain(s->on.volume), 0);
	for (size_t length = MIB; length >= COW_BLOCK_BYTES; length /= 2) {
		while ((n = cow_write(file, s->bytes, length, size, false)) > 0)
			size += (uint64_t)n;
		assert_int_equal(n, -ENOSPC);
	}
	cow_forget(file, 1);
	assert_int_equal(cow_sync(s->on.volume), 0);
}

static void fill_but(struct tight *s, uint64_t blocks)
{
	struct cow_inode *file = scene_make(s->on.root, "room", S_IFREG | 0644);

	for (uint64_t at = 0; at < blocks; at += 50)
		assert_true(cow_write(file, s->bytes, (size_t)50 * COW_BLOCK_BYTES, at * COW_BLOCK_BYTES, false) > 0);
	cow_forget(file, 1);
	fill(s);
	assert_int_equal(cow_unlink(s->on.root, "room"), 0);
	assert_int_equal(cow_drain(s->on.volume), 0);
}

static void make_dirs(struct tight *s, struct cow_inode *in, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct cow_inode *dir = scene_make(in, scene_name("dir-", i), S_IFDIR | 0755);

		cow_forget(scene_make(dir, "file", S_IFREG | 0644), 1);
		cow_forget(scene_make(dir, "other", S_IFREG | 0644), 1);
		cow_forget(dir, 1);
	}
	assert_int_equal(cow_sync(s->on.volume), 0);
}

/* It was done, or there was no room for it. What follows finds no room less: a commit is always possible. */
static void fair(struct tight *s, int64_t error)
{
	assert_true(error >= 0 || error == -ENOSPC);
	assert_int_equal(cow_sync(s->on.volume), 0);
}

static void end(struct tight *s)
{
	assert_int_equal(cow_unlink(s->on.root, "filling"), 0);
	assert_int_equal(cow_drain(s->on.volume), 0);
	cow_forget(s->a, 1);
	cow_forget(s->b, 1);
	scene_end(&s->on);
	free(s->bytes);
}

/* The rows of their inode numbers lie all over a table that has more nodes than the volume has free blocks. */
static void test_numbers(void **state)
{
	struct cow_inode *clone;
	struct tight s;

	(void)state;
	begin(&s);
	cow_forget(scene_make(s.a, "file", S_IFREG | 0644), 1);
	for (unsigned i = 0; i < CLONES; i++) {
		assert_int_equal(cow_clone(s.a, s.b, scene_name("clone-", i), 0, &clone, NULL), 0);
		cow_forget(scene_find(clone, "file"), 1);
		cow_forget(clone, 1);
	}
	fill(&s);
	for (unsigned i = 0; i < CLONES / 8; i++) {
		assert_int_equal(cow_remove_tree(s.b, scene_name("clone-", i)), 0);
		if (i % 100 == 0)
			assert_true(cow_volume_reclaim(s.on.volume, 1000) >= 0);
		if (i % 100 == 0)
			assert_int_equal(cow_sync(s.on.volume), 0);
	}
	end(&s);
}

/* A file of many names: the list of them is written anew with each change, and with each world that has its own. */
static void test_names(void **state)
{
	struct cow_attr attr = {.mode = 0600};

	(void)state;
	for (uint64_t size = 64 * MIB; size >= 16 * MIB; size /= 2) {
		struct cow_inode *file, *clone;
		struct tight s;

		begin_on(&s, size);
		file = scene_make(s.a, "file", S_IFREG | 0644);
		for (unsigned i = 0; i < NAMES; i++)
			assert_int_equal(cow_link(file, s.b, scene_name("name-", i), NULL), 0);
		fill(&s);
		fair(&s, cow_setattr(file, &attr, COW_SET_MODE, NULL));
		for (unsigned i = 0; i < 4; i++) {
			fair(&s, cow_unlink(s.b, scene_name("name-", i)));
			fair(&s, cow_link(file, s.a, scene_name("more-", i), NULL));
			fair(&s, cow_rename(s.b, scene_name("name-", 5000 + i), s.a, "moved", 0));
			fair(&s, cow_write(file, s.bytes, COW_BLOCK_BYTES, i * MIB, false));
		}
		fair(&s, cow_clone(s.b, s.a, "clone", 0, NULL, NULL));
		if (cow_lookup(s.a, "clone", &clone, NULL) == 0) {
			fair(&s, cow_unlink(clone, scene_name("name-", 700)));
			fair(&s, cow_unlink(s.b, scene_name("name-", 701)));
			cow_forget(clone, 1);
		}
		assert_int_equal(cow_remove_tree(s.on.root, "b"), 0);
		assert_int_equal(cow_drain(s.on.volume), 0);
		cow_forget(file, 1);
		end(&s);
	}
}

/* Many groups of hard links, moved to another world: their records move, too. */
static void test_groups(void **state)
{
	struct cow_inode *dir, *clone, *file;
	struct tight s;

	(void)state;
	begin(&s);
	cow_forget(scene_make(s.a, "x", S_IFDIR | 0755), 1);
	assert_int_equal(cow_clone(s.a, s.on.root, "world", 0, &clone, NULL), 0);
	dir = scene_make(s.a, "many", S_IFDIR | 0755);
	for (unsigned i = 0; i < PAIRS; i++) {
		file = scene_make(dir, scene_name("one-", i), S_IFREG | 0644);
		assert_int_equal(cow_link(file, dir, scene_name("two-", i), NULL), 0);
		cow_forget(file, 1);
	}
	fill(&s);
	assert_int_equal(cow_rename(s.a, "many", clone, "many", 0), 0);
	assert_int_equal(cow_sync(s.on.volume), 0);
	fair(&s, cow_clone(dir, s.b, "copy", 0, NULL, NULL));
	cow_forget(dir, 1);
	fair(&s, cow_remove_tree(s.b, "copy"));
	fair(&s, cow_drain(s.on.volume));
	assert_int_equal(cow_remove_tree(clone, "many"), 0);
	fair(&s, cow_drain(s.on.volume));
	cow_forget(clone, 1);
	end(&s);
}

/* A file of many extents, which a clone shares: its tree must not be copied for one call. */
static void test_extents(void **state)
{
	struct cow_inode *file, *clone, *other;
	struct cow_attr attr = {.size = 17};
	struct tight s;

	(void)state;
	begin(&s);
	file = scene_make(s.a, "file", S_IFREG | 0644);
	for (unsigned i = 0; i < EXTENTS; i++) {
		s.bytes[0] = (uint8_t)i;
		s.bytes[1] = (uint8_t)(i >> 8);
		assert_int_equal(cow_write(file, s.bytes, COW_BLOCK_BYTES, i * PITCH, false), COW_BLOCK_BYTES);
	}
	assert_int_equal(cow_clone(file, s.a, "clone", 0, &clone, NULL), 0);
	other = scene_make(s.a, "other", S_IFREG | 0644);
	assert_int_equal(cow_write(other, s.bytes, COW_BLOCK_BYTES, 0, false), COW_BLOCK_BYTES);
	fill(&s);
	fair(&s, cow_fallocate(clone, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100 * PITCH + 5, 3000 * PITCH));
	fair(&s, cow_fallocate(clone, FALLOC_FL_ZERO_RANGE, 3200 * PITCH + 5, 1000 * PITCH));
	fair(&s, cow_fallocate(file, 0, 0, EXTENTS * PITCH));
	fair(&s, cow_copy_range(file, 0, other, PITCH, EXTENTS * PITCH));
	fair(&s, cow_copy_range(file, PITCH, other, 0, EXTENTS * PITCH));
	fair(&s, cow_copy_range(file, 0, file, EXTENTS * PITCH + COW_BLOCK_BYTES, EXTENTS * PITCH));
	fair(&s, cow_setattr(file, &attr, COW_SET_SIZE, NULL));
	fair(&s, cow_setattr(clone, &attr, COW_SET_SIZE, NULL));
	cow_forget(file, 1);
	cow_forget(clone, 1);
	cow_forget(other, 1);
	end(&s);
}

static int64_t set_attribute(struct tight *s, unsigned i)
{
	struct cow_inode *file = scene_find(s->a, scene_name("file-", i));
	int error = cow_setxattr(file, "user.x", s->bytes, 85, 0);

	cow_forget(file, 1);
	return error;
}

static int64_t write_little(struct tight *s, unsigned i)
{
	struct cow_inode *file = scene_find(s->a, scene_name("file-", i));
	int64_t n = cow_write(file, s->bytes, 400, 0, false);

	cow_forget(file, 1);
	return n;
}

static int64_t create(struct tight *s, unsigned i)
{
	struct cow_new file = {.mode = S_IFREG | 0644};

	return cow_create(s->a, scene_name("another-file-", i), &file, NULL, NULL);
}

static int64_t create_link(struct tight *s, unsigned i)
{
	struct cow_new link = {.mode = S_IFLNK | 0777, .target = TARGET TARGET TARGET TARGET TARGET TARGET};

	return cow_create(s->a, scene_name("link-", i), &link, NULL, NULL);
}

/* The records of many files grow: their leaves are made dirty by the first of each, and split when all are folded. */
static void test_growth(void **state)
{
	static int64_t (*const grow[])(struct tight *, unsigned) = {set_attribute, write_little, create, create_link};

	(void)state;
	for (unsigned way = 0; way < sizeof(grow) / sizeof(*grow); way++) {
		for (unsigned room = 100; room <= 300; room += 100) {
			struct cow_inode *clone, *dir;
			struct tight s;
			int64_t result;

			begin(&s);
			for (unsigned i = 0; i < SMALL; i++)
				cow_forget(scene_make(s.a, scene_name("file-", i), S_IFREG | 0644), 1);
			make_dirs(&s, s.b, 300);
			assert_int_equal(cow_clone(s.b, s.on.root, "clone", 0, &clone, NULL), 0);
			fill_but(&s, room);
			for (unsigned i = 0; i < SMALL; i++) {
				result = grow[way](&s, i);
				assert_true(result >= 0 || result == -ENOSPC);
			}
			for (unsigned i = 0; i < 300; i++) { /* removals may take what is left to them */
				dir = scene_find(clone, scene_name("dir-", i));
				result = cow_unlink(dir, "file");
				assert_true(result == 0 || result == -ENOSPC);
				cow_forget(dir, 1);
			}
			cow_forget(clone, 1);
			fair(&s, 0);
			end(&s);
		}
	}
}

/* What is held open outlives its name, and the tree that it was in: an orphan for each. */
static void test_open(void **state)
{
	enum { TREE, TREE_WITH_LINKS, ONE_BY_ONE, WAYS };

	(void)state;
	for (int way = 0; way < WAYS; way++) {
		struct cow_inode *dir, **files = calloc(OPENED, sizeof(*files));
		struct tight s;
		int error = 0;

		begin(&s);
		dir = scene_make(s.a, "tree", S_IFDIR | 0755);
		for (unsigned i = 0; i < OPENED; i++) {
			files[i] = scene_make(dir, scene_name("file-", i), S_IFREG | 0644);
			if (way == TREE_WITH_LINKS)
				assert_int_equal(cow_link(files[i], dir, scene_name("link-", i), NULL), 0);
			assert_int_equal(cow_hold(files[i]), 0);
		}
		fill(&s);
		if (way != ONE_BY_ONE)
			error = cow_remove_tree(s.a, "tree");
		for (unsigned i = 0; way == ONE_BY_ONE && i < OPENED && error == 0; i++)
			error = cow_unlink(dir, scene_name("file-", i));
		assert_int_equal(error, -ENOSPC);
		assert_int_equal(cow_sync(s.on.volume), 0);
		for (unsigned i = 0; i < OPENED; i++) {
			cow_release(files[i]);
			cow_forget(files[i], 1);
		}
		cow_forget(dir, 1);
		free(files);
		assert_int_equal(cow_remove_tree(s.a, "tree"), 0);
		end(&s);
	}
}

/* Clones of a file whose map is a tree of some nodes: each page that is written takes nodes of its own as well. */
static void test_maps(void **state)
{
	(void)state;
	for (unsigned extents = 20; extents <= 1600; extents *= 3) {
		for (unsigned room = 200; room <= 1600; room += 200) {
			struct cow_inode *file;
			struct tight s;
			int64_t n;

			begin(&s);
			file = scene_make(s.a, "file", S_IFREG | 0644);
			for (unsigned i = 0; i < extents; i++) {
				n = cow_write(file, s.bytes, COW_BLOCK_BYTES, i * PITCH, false);
				assert_int_equal(n, COW_BLOCK_BYTES);
			}
			for (unsigned i = 0; i < COPIES; i++)
				assert_int_equal(cow_clone(file, s.b, scene_name("clone-", i), 0, NULL, NULL), 0);
			cow_forget(file, 1);
			fill_but(&s, room);
			for (unsigned i = 0; i < COPIES; i++) {
				file = scene_find(s.b, scene_name("clone-", i));
				n = cow_write(file, s.bytes, COW_BLOCK_BYTES, i % extents * PITCH, false);
				assert_true(n == COW_BLOCK_BYTES || n == -ENOSPC);
				cow_forget(file, 1);
			}
			fair(&s, 0);
			end(&s);
		}
	}
}

/* Who looks at clones gives them inode numbers. What is removed then still finds its room. */
static void test_look(void **state)
{
	struct cow_inode *clone;
	struct tight s;

	(void)state;
	begin_on(&s, 16 * MIB);
	cow_forget(scene_make(s.a, "file", S_IFREG | 0644), 1);
	for (unsigned i = 0; i < CLONES / 3; i++)
		assert_int_equal(cow_clone(s.a, s.b, scene_name("clone-", i), 0, NULL, NULL), 0);
	fill(&s);
	for (unsigned i = 0; i < CLONES / 3; i++) {
		clone = scene_find(s.b, scene_name("clone-", i));
		cow_forget(scene_find(clone, "file"), 1);
		cow_forget(clone, 1);
		if (i % 50 == 0)
			assert_int_equal(cow_sync(s.on.volume), 0);
	}
	fair(&s, 0);
	end(&s);
}

/* What is removed from a clone frees nothing, and takes a copy of each directory: not the last room of others. That
 * may be the volume's, or its host's. */
static void test_shared(void **state)
{
	(void)state;
	for (int host = 0; host < 2; host++) {
		struct cow_inode *clone, *dir;
		struct tight s;
		unsigned refused = 0;
		int error;

		begin(&s);
		for (unsigned i = 0; i < DIRS; i++) {
			dir = scene_make(s.a, scene_name("dir-", i), S_IFDIR | 0755);
			for (unsigned k = 0; k < 4; k++)
				cow_forget(scene_make(dir, scene_name("file-", k), S_IFREG | 0644), 1);
			cow_forget(dir, 1);
		}
		assert_int_equal(cow_clone(s.a, s.b, "clone", 0, NULL, NULL), 0);
		if (host != 0) {
			cow_forget(scene_make(s.on.root, "filling", S_IFREG | 0644), 1);
			assert_int_equal(cow_drain(s.on.volume), 0);
			cow_sim_host(s.on.disk, cow_sim_host_used(s.on.disk));
		} else {
			fill(&s);
		}
		clone = scene_find(s.b, "clone");
		for (unsigned i = 0; i < DIRS; i++) {
			dir = scene_find(clone, scene_name("dir-", i));
			error = i % 2 != 0 ? cow_unlink(dir, "file-1") : cow_remove_tree(dir, "file-1");
			assert_true(error == 0 || error == -ENOSPC);
			refused += error != 0;
			cow_forget(dir, 1);
			if (i % 50 == 0)
				assert_int_equal(cow_sync(s.on.volume), 0);
		}
		cow_forget(clone, 1);
		assert_true(refused > 0 && refused < DIRS);
		assert_int_equal(cow_sync(s.on.volume), 0);
		assert_int_equal(cow_remove_tree(s.b, "clone"), 0); /* nobody holds what is above it */
		end(&s);
	}
}

/* A punch is done, or refused before it begins; a copy that goes on after it does not take it for what it was. */
static void test_punch(void **state)
{
	const uint64_t half = PUNCHED / 2 * PITCH;
	struct cow_inode *clone, *dir, *file, *copy;
	struct tight s;
	uint8_t byte;
	int error;

	(void)state;
	begin(&s);
	make_dirs(&s, s.a, DIRS);
	assert_int_equal(cow_clone(s.a, s.b, "clone", 0, &clone, NULL), 0);
	file = scene_make(s.on.root, "punched", S_IFREG | 0644);
	copy = scene_make(s.on.root, "copy", S_IFREG | 0644);
	for (unsigned i = 0; i < PUNCHED; i++) {
		s.bytes[0] = (uint8_t)(1 + i % 255);
		assert_int_equal(cow_write(file, s.bytes, COW_BLOCK_BYTES, i * PITCH, false), COW_BLOCK_BYTES);
	}
	assert_int_equal(cow_sync(s.on.volume), 0);
	assert_int_equal(cow_copy_range(file, 0, copy, 0, half), half);
	fill(&s);
	for (unsigned i = 0; i < DIRS; i++) { /* until there is no room for what gives nothing back */
		dir = scene_find(clone, scene_name("dir-", i));
		fair(&s, cow_unlink(dir, "file"));
		cow_forget(dir, 1);
	}
	error = cow_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100 * PITCH, half - 100 * PITCH);
	assert_true(error == 0 || error == -ENOSPC);
	for (unsigned i = 100; i < PUNCHED / 2; i++) {
		assert_int_equal(cow_read(file, &byte, 1, i * PITCH), 1);
		assert_int_equal(byte, error == 0 ? 0 : 1 + i % 255);
	}
	assert_int_equal(cow_unlink(s.on.root, "filling"), 0);
	assert_int_equal(cow_drain(s.on.volume), 0);
	assert_true(cow_copy_range(file, half, copy, half, half) > 0);
	for (unsigned i = 0; i < PUNCHED / 2; i++) {
		assert_int_equal(cow_read(copy, &byte, 1, i * PITCH), 1);
		assert_int_equal(byte, 1 + i % 255);
	}
	cow_forget(scene_make(s.on.root, "filling", S_IFREG | 0644), 1);
	cow_forget(clone, 1);
	cow_forget(file, 1);
	cow_forget(copy, 1);
	end(&s);
}

/* What was open at a crash is given back at the next opening. */
static void test_orphans(void **state)
{
	struct cow_inode *file, **held = calloc(ORPHANS, sizeof(*held));
	struct tight s;

	(void)state;
	begin_on(&s, 16 * MIB);
	file = scene_make(s.a, "file", S_IFREG | 0644);
	assert_int_equal(cow_setxattr(file, "user.x", s.bytes, 5000, 0), 0);
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(cow_write(file, s.bytes, COW_BLOCK_BYTES, i * PITCH, false), COW_BLOCK_BYTES);
	for (unsigned i = 0; i < ORPHANS; i++) {
		assert_int_equal(cow_clone(file, s.b, "clone", 0, &held[i], NULL), 0);
		assert_int_equal(cow_hold(held[i]), 0);
		assert_int_equal(cow_unlink(s.b, "clone"), 0);
	}
	fill(&s);
	free(held);
	scene_crash(&s.on);
	s.a = scene_find(s.on.root, "a");
	s.b = scene_find(s.on.root, "b");
	assert_int_equal(cow_sync(s.on.volume), 0);
	end(&s);
}

/* Two files with long lists of names in one call. */
static void exchange_on(uint64_t bytes, unsigned flags)
{
	struct cow_inode *one, *two;
	struct tight s;

	begin_on(&s, bytes);
	one = scene_make(s.a, "one", S_IFREG | 0644);
	two = scene_make(s.a, "two", S_IFREG | 0644);
	for (unsigned i = 0; i < 45000; i++) {
		assert_int_equal(cow_link(one, s.b, scene_name("one-", i), NULL), 0);
		assert_int_equal(cow_link(two, s.b, scene_name("two-", i), NULL), 0);
	}
	cow_forget(one, 1);
	cow_forget(two, 1);
	fill_but(&s, 100);
	fair(&s, cow_rename(s.b, "one-7", s.b, "two-9", flags));
	end(&s);
}

/* On the small volume each list is a large part of all that there is; on the large one, one commit writes both. */
static void test_exchange(void **state)
{
	(void)state;
	exchange_on(16 * MIB, 0);
	exchange_on(256 * MIB, COW_RENAME_EXCHANGE);
}

static int note_name(void *order, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	(void)inode, (void)attr;
	*(*(unsigned **)order)++ = (unsigned)atoi(entry->name + sizeof("one-") - 1);
	return 0;
}

/* The record of a file with one name left goes back to that name, whose leaf grows. */
static void test_last_names(void **state)
{
	unsigned *order = calloc(SMALL, sizeof(*order)), *at = order;
	struct cow_inode *file;
	struct tight s;

	(void)state;
	begin(&s);
	for (unsigned i = 0; i < SMALL; i++) {
		file = scene_make(s.a, scene_name("one-", i), S_IFREG | 0644);
		assert_int_equal(cow_write(file, s.bytes, 400, 0, false), 400);
		assert_int_equal(cow_link(file, s.b, scene_name("two-", i), NULL), 0);
		cow_forget(file, 1);
	}
	fill(&s);
	assert_int_equal(cow_list(s.a, 0, false, note_name, &at), 0);
	for (unsigned i = 0; i < SMALL / 4; i++) {
		int error = cow_unlink(s.b, scene_name("two-", order[i]));

		assert_true(error == 0 || error == -ENOSPC);
		if (i % 300 == 0)
			assert_int_equal(cow_sync(s.on.volume), 0);
	}
	fair(&s, 0);
	free(order);
	end(&s);
}

/* The list of a file's attributes is written anew where a clone holds the old one. */
static void test_attributes(void **state)
{
	struct cow_inode *clone, *file;
	struct tight s;

	(void)state;
	begin_on(&s, 16 * MIB);
	for (unsigned i = 0; i < 8; i++) {
		file = scene_make(s.a, scene_name("file-", i), S_IFREG | 0644);
		for (unsigned k = 0; k < 4; k++)
			assert_int_equal(cow_setxattr(file, scene_name("user.large-", k), s.bytes, 60000, 0), 0);
		assert_int_equal(cow_setxattr(file, "user.small", s.bytes, 10, 0), 0);
		cow_forget(file, 1);
	}
	assert_int_equal(cow_clone(s.a, s.on.root, "clone", 0, &clone, NULL), 0);
	fill(&s);
	for (unsigned i = 0; i < 8; i++) {
		file = scene_find(clone, scene_name("file-", i));
		fair(&s, cow_removexattr(file, "user.small"));
		cow_forget(file, 1);
	}
	cow_forget(clone, 1);
	end(&s);
}

static uint64_t number_of(struct cow_inode *dir, const char *name, struct cow_inode **inode)
{
	struct cow_attr attr;

	assert_int_equal(cow_lookup(dir, name, inode, &attr), 0);
	return attr.ino;
}

/* Numbers that found no space are remembered, and those below them may find some later: they stay whose they are, while
 * what is gone is swept. */
static void test_remembered(void **state)
{
	struct cow_inode *base, *clone, *kept[KEPT], *other;
	uint64_t numbers[KEPT];
	struct tight s;
	unsigned first;

	(void)state;
	begin(&s);
	base = scene_make(s.on.root, "base", S_IFDIR | 0755);
	cow_forget(scene_make(base, "file", S_IFREG | 0644), 1);
	assert_int_equal(cow_clone(base, s.a, "inner", 0, NULL, NULL), 0);
	for (unsigned i = 0; i < CLONES; i++)
		assert_int_equal(cow_clone(s.a, s.b, scene_name("clone-", i), 0, NULL, NULL), 0);
	for (unsigned i = 0; i < CLONES / 2; i++)
		cow_forget(scene_find(s.b, scene_name("clone-", i)), 1);
	fill(&s);
	for (first = CLONES / 2; first < CLONES - 10 * KEPT && s.on.volume->rows.count < 50; first++) {
		cow_forget(scene_find(s.b, scene_name("clone-", first)), 1);
		if (first % 200 == 0)
			assert_int_equal(cow_sync(s.on.volume), 0);
	}
	assert_true(s.on.volume->rows.count >= 50);
	for (unsigned i = 0; i < KEPT; i++)
		cow_forget(scene_find(s.b, scene_name("clone-", first + i)), 1);
	assert_int_equal(cow_unlink(s.on.root, "filling"), 0);
	assert_int_equal(cow_drain(s.on.volume), 0);
	for (unsigned i = 0; i < KEPT; i++) {
		clone = scene_find(s.b, scene_name("clone-", first + i));
		cow_forget(scene_find(clone, "inner"), 1);
		cow_forget(clone, 1);
	}
	assert_int_equal(cow_sync(s.on.volume), 0);
	for (unsigned i = 0; i < 1100; i++)
		assert_int_equal(cow_remove_tree(s.b, scene_name("clone-", i)), 0);
	assert_int_equal(cow_sync(s.on.volume), 0);
	assert_true(cow_volume_reclaim(s.on.volume, 1) > 0);
	for (unsigned i = 0; i < KEPT; i++) {
		clone = scene_find(s.b, scene_name("clone-", first + i));
		numbers[i] = number_of(clone, "inner", &kept[i]);
		cow_forget(clone, 1);
	}
	do
		assert_int_equal(cow_sync(s.on.volume), 0);
	while (cow_volume_reclaim(s.on.volume, 1000000) > 0);
	assert_int_equal(cow_sync(s.on.volume), 0);
	assert_int_equal(cow_sync(s.on.volume), 0);
	for (unsigned k = first + KEPT; k < first + 10 * KEPT; k++) {
		uint64_t number;

		clone = scene_find(s.b, scene_name("clone-", k));
		number = number_of(clone, "inner", &other);
		for (unsigned i = 0; i < KEPT; i++)
			assert_int_not_equal(number, numbers[i]);
		cow_forget(other, 1);
		cow_forget(clone, 1);
	}
	for (unsigned i = 0; i < KEPT; i++)
		cow_forget(kept[i], 1);
	cow_forget(base, 1);
	cow_forget(scene_make(s.on.root, "filling", S_IFREG | 0644), 1);
	end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers), cmocka_unit_test(test_names), cmocka_unit_test(test_groups),
		cmocka_unit_test(test_extents), cmocka_unit_test(test_growth), cmocka_unit_test(test_open),
		cmocka_unit_test(test_maps), cmocka_unit_test(test_look), cmocka_unit_test(test_shared),
		cmocka_unit_test(test_punch), cmocka_unit_test(test_orphans), cmocka_unit_test(test_exchange),
		cmocka_unit_test(test_last_names), cmocka_unit_test(test_attributes),
		cmocka_unit_test(test_remembered),
	};

	return cases_run(tests);
}
