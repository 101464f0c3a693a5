/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File data against arrays of bytes: random writes, truncates, punches, copies and clones on a simulated device, with
 * commits and power cuts after a commit in between. At the end everything is removed, and all space must be back.
 *
 * COW_SEED=n reruns one seed, COW_STEPS=n sets the number of operations.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/mkfs.h"
#include "fs/open.h"

#define FILES 6
#define FILE_MAX (3u << 20)
#define VOLUME_BYTES (192ull << 20)

struct file {
	uint8_t *bytes; /* FILE_MAX, zeros beyond size */
	uint64_t size;
	struct cow_inode *inode;
};

struct world {
	struct cow_dev *dev;
	struct cow_volume *volume;
	struct cow_inode *root;
	struct file files[FILES];
	uint8_t *scratch;
	uint64_t random, seed, step;
};

static uint64_t any(struct world *w, uint64_t below)
{
	uint64_t z = w->random += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return (z ^ z >> 31) % below;
}

static void ok(struct world *w, int64_t result, const char *what)
{
	if (result >= 0)
		return;
	fail_msg("%s: %s (COW_SEED=%llu, step %llu)", what, cow_error_text((int)result), (unsigned long long)w->seed,
		 (unsigned long long)w->step);
}

static const struct cow_new plain = {.mode = S_IFREG | 0644};
static const struct cow_open_options options = {.no_threads = true, .dirty_bytes = 4u << 20, .cache_bytes = 1u << 20};

/* ------------------------------------------------------------------ set-up */

static void name_of(unsigned i, char *name)
{
	sprintf(name, "file%u", i);
}

static void open_volume(struct world *w)
{
	char name[16];

	ok(w, cow_volume_open(w->dev, &options, &w->volume), "open");
	ok(w, cow_root(w->volume, &w->root), "root");
	for (unsigned i = 0; i < FILES; i++) {
		name_of(i, name);
		int error = cow_lookup(w->root, name, &w->files[i].inode, NULL);
		if (error == -ENOENT)
			error = cow_create(w->root, name, &plain, &w->files[i].inode, NULL);
		ok(w, error, "open file");
	}
}

static void start(struct world *w, uint64_t seed)
{
	*w = (struct world){.random = seed, .seed = seed};
	w->dev = cow_sim_new(VOLUME_BYTES);
	w->scratch = malloc(FILE_MAX);
	for (unsigned i = 0; i < FILES; i++)
		w->files[i].bytes = calloc(1, FILE_MAX);
	ok(w, cow_volume_format(w->dev, &(struct cow_format_options){.size_bytes = VOLUME_BYTES}), "format");
	/* formatting closed nothing: the device is still ours */
	open_volume(w);
}

/* All that is not durable is lost; so everything is made durable before. */
static void reopen(struct world *w)
{
	ok(w, cow_sync(w->volume), "sync");
	struct cow_dev *copy = cow_sim_cut(w->dev, cow_sim_events(w->dev), COW_SIM_DROP, 1);
	cow_volume_abandon(w->volume);
	w->dev = copy;
	open_volume(w);
}

static void stop(struct world *w)
{
	cow_volume_abandon(w->volume);
	for (unsigned i = 0; i < FILES; i++)
		free(w->files[i].bytes);
	free(w->scratch);
}

/* ------------------------------------------------------------------ checks */

static void compare_range(struct world *w, unsigned i, uint64_t offset, size_t size)
{
	struct file *f = &w->files[i];
	uint64_t want = offset < f->size ? f->size - offset < size ? f->size - offset : size : 0;
	int64_t got = cow_read(f->inode, w->scratch, size, offset);

	ok(w, got, "read");
	if ((uint64_t)got != want)
		fail_msg("read %lld of %llu bytes (COW_SEED=%llu, step %llu)", (long long)got, (unsigned long long)want,
			 (unsigned long long)w->seed, (unsigned long long)w->step);
	for (uint64_t k = 0; k < want; k++)
		if (w->scratch[k] != f->bytes[offset + k])
			fail_msg("file %u differs at %llu (COW_SEED=%llu, step %llu)", i,
				 (unsigned long long)(offset + k), (unsigned long long)w->seed,
				 (unsigned long long)w->step);
}

/* Between data and hole, and holes must be zeros. */
static void check_seek(struct world *w, unsigned i)
{
	struct file *f = &w->files[i];
	uint64_t at = 0;

	while (at < f->size) {
		int64_t data = cow_seek(f->inode, at, SEEK_DATA);
		uint64_t end = data == -ENXIO ? f->size : (uint64_t)data;
		assert_true(data == -ENXIO || data >= (int64_t)at);
		for (uint64_t k = at; k < end; k++)
			assert_int_equal(f->bytes[k], 0);
		if (data == -ENXIO)
			break;
		int64_t hole = cow_seek(f->inode, end, SEEK_HOLE);
		assert_true(hole > data && hole <= (int64_t)f->size);
		at = (uint64_t)hole;
	}
	assert_true(cow_seek(f->inode, f->size, SEEK_DATA) == -ENXIO);
}

static void compare_all(struct world *w)
{
	struct cow_attr attr;

	for (unsigned i = 0; i < FILES; i++) {
		ok(w, cow_getattr(w->files[i].inode, &attr), "getattr");
		assert_int_equal(attr.size, w->files[i].size);
		compare_range(w, i, 0, FILE_MAX);
		check_seek(w, i);
	}
}

/* ------------------------------------------------------------------ the whole volume */

static void show_finding(void *context, const struct cow_finding *finding)
{
	(void)context;
	fprintf(stderr, "finding %d: block %llu: %s\n", finding->number, (unsigned long long)finding->block,
		finding->text);
}

static void check_volume(struct world *w)
{
	const struct cow_check_options all = {.finding = show_finding, .data = true};
	struct cow_check_result result;
	char path[] = "/tmp/cowtest-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	ok(w, cow_sync(w->volume), "sync");
	ok(w, cow_sim_save(w->dev, path), "save");
	ok(w, cow_check(path, &all, &result), "check");
	unlink(path);
	if (result.findings != 0)
		ok(w, COW_ERR_DAMAGED, "check has findings");
}

/* ------------------------------------------------------------------ operations */

static uint64_t any_offset(struct world *w, const struct file *f)
{
	switch (any(w, 5)) {
	case 0:
		return any(w, FILE_MAX / 4096) * 4096;
	case 1:
		return f->size < FILE_MAX ? f->size : 0;
	case 2:
		return any(w, 9000);
	case 3:
		return f->size != 0 ? any(w, f->size) & ~4095ull : 0;
	default:
		return any(w, FILE_MAX);
	}
}

static uint64_t any_length(struct world *w, uint64_t offset)
{
	static const uint64_t most[] = {10, 600, 5000, 100000, 2u << 20};
	uint64_t length = 1 + any(w, most[any(w, any(w, 3) == 0 ? 5 : 4)]);

	if (any(w, 3) == 0)
		length = (length + 4095) & ~4095ull;
	return length < FILE_MAX - offset ? length : FILE_MAX - offset;
}

static void do_write(struct world *w, struct file *f)
{
	uint64_t offset = any_offset(w, f), length = any_length(w, offset);
	uint8_t fill = (uint8_t)any(w, 256);

	for (uint64_t k = 0; k < length; k++)
		w->scratch[k] = (uint8_t)(fill + k / 512 + k % 7);
	ok(w, cow_write(f->inode, w->scratch, length, offset, false), "write");
	memcpy(f->bytes + offset, w->scratch, length);
	if (offset + length > f->size)
		f->size = offset + length;
}

static void set_model_size(struct file *f, uint64_t size)
{
	if (size < f->size)
		memset(f->bytes + size, 0, f->size - size);
	f->size = size;
}

static void do_truncate(struct world *w, struct file *f)
{
	uint64_t size = any(w, 8) == 0 ? 0 : any_offset(w, f);
	struct cow_attr attr = {.size = size};

	ok(w, cow_setattr(f->inode, &attr, COW_SET_SIZE, NULL), "truncate");
	set_model_size(f, size);
}

static void do_punch(struct world *w, struct file *f)
{
	static const int modes[] = {
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, FALLOC_FL_KEEP_SIZE,
	};
	uint64_t offset = any_offset(w, f), length = any_length(w, offset), end = offset + length;
	int mode = modes[any(w, 5)];

	ok(w, cow_fallocate(f->inode, mode, offset, length), "fallocate");
	if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && offset < f->size)
		memset(f->bytes + offset, 0, (end < f->size ? end : f->size) - offset);
	if (!(mode & FALLOC_FL_KEEP_SIZE) && end > f->size)
		f->size = end;
}

static void do_copy(struct world *w, struct file *from, struct file *to)
{
	uint64_t in = any_offset(w, from), out = any(w, 3) ? in : any_offset(w, to), length = any_length(w, in);

	if (any(w, 3) == 0)
		out = in % 4096 + (any(w, FILE_MAX / 4096) << 12);
	if (out >= FILE_MAX)
		out = 0;
	if (length > FILE_MAX - out)
		length = FILE_MAX - out;
	uint64_t want = in < from->size ? from->size - in < length ? from->size - in : length : 0;
	int64_t got = cow_copy_range(from->inode, in, to->inode, out, length);
	if (from == to && (in > out ? in - out : out - in) < want) {
		assert_int_equal(got, -EINVAL);
		return;
	}
	ok(w, got, "copy_range");
	assert_int_equal(got, want);
	memmove(to->bytes + out, from->bytes + in, want);
	if (want != 0 && out + want > to->size)
		to->size = out + want;
}

/* As cp does it: an empty target, then pieces one after the other; sometimes somebody writes in between. */
static void do_cp(struct world *w, struct file *from, struct file *to)
{
	uint64_t piece = (1 + any(w, 100)) * (any(w, 4) ? 4096 : 1000), at = 0;
	struct cow_attr attr = {.size = 0};

	if (from == to)
		return;
	ok(w, cow_setattr(to->inode, &attr, COW_SET_SIZE, NULL), "truncate");
	set_model_size(to, 0);
	while (at < from->size) {
		uint64_t want = from->size - at < piece ? from->size - at : piece;
		int64_t got = cow_copy_range(from->inode, at, to->inode, at, piece);
		ok(w, got, "copy_range");
		assert_int_equal(got, want);
		memcpy(to->bytes + at, from->bytes + at, want);
		at += want;
		if (at > to->size)
			to->size = at;
		if (any(w, 12) == 0)
			do_write(w, any(w, 2) ? from : to);
		if (any(w, 20) == 0)
			ok(w, cow_sync(w->volume), "sync");
	}
}

static void do_clone(struct world *w, unsigned from, unsigned to)
{
	char name[16];

	if (from == to)
		return;
	name_of(to, name);
	ok(w, cow_unlink(w->root, name), "unlink");
	cow_forget(w->files[to].inode, 1);
	ok(w, cow_clone(w->files[from].inode, w->root, name, 0, &w->files[to].inode, NULL), "clone");
	memcpy(w->files[to].bytes, w->files[from].bytes, FILE_MAX);
	w->files[to].size = w->files[from].size;
}

static void one_step(struct world *w)
{
	unsigned i = (unsigned)any(w, FILES), k = (unsigned)any(w, FILES);

	switch (any(w, 20)) {
	case 0: case 1:
		do_truncate(w, &w->files[i]);
		break;
	case 2: case 3:
		do_punch(w, &w->files[i]);
		break;
	case 4: case 5: case 6:
		do_copy(w, &w->files[i], &w->files[k]);
		break;
	case 7:
		do_cp(w, &w->files[i], &w->files[k]);
		break;
	case 8:
		do_clone(w, i, k);
		break;
	case 9:
		ok(w, cow_sync(w->volume), "sync");
		break;
	case 10:
		if (any(w, 4) == 0)
			reopen(w);
		break;
	default:
		do_write(w, &w->files[i]);
	}
	uint64_t offset = any_offset(w, &w->files[k]);
	compare_range(w, k, offset, any_length(w, offset));
}

static void check_totals(struct world *w)
{
	struct cow_attr attr;
	uint64_t bytes = 0, blocks = 0;

	ok(w, cow_sync(w->volume), "sync");
	for (unsigned i = 0; i < FILES; i++) {
		ok(w, cow_getattr(w->files[i].inode, &attr), "getattr");
		bytes += attr.size;
		blocks += w->files[i].inode->blocks;
	}
	assert_int_equal(w->root->totals.bytes, bytes);
	assert_int_equal(w->root->totals.blocks, blocks);
}

static uint64_t free_blocks(struct world *w)
{
	struct cow_info info;

	ok(w, cow_drain(w->volume), "drain");
	ok(w, cow_sync(w->volume), "sync");
	ok(w, cow_drain(w->volume), "drain");
	ok(w, cow_info(w->volume, &info), "info");
	return info.free_blocks;
}

static void random_run(uint64_t seed, uint64_t steps)
{
	struct world w;
	char name[16];

	start(&w, seed);
	uint64_t before = free_blocks(&w);
	for (w.step = 0; w.step < steps; w.step++) {
		one_step(&w);
		if (w.step % 50 == 0)
			compare_all(&w);
	}
	compare_all(&w);
	check_totals(&w);
	check_volume(&w);
	reopen(&w);
	compare_all(&w);
	check_totals(&w);
	for (unsigned i = 0; i < FILES; i++) {
		struct cow_attr attr = {.size = 0};
		name_of(i, name);
		if (i % 2) {
			ok(&w, cow_setattr(w.files[i].inode, &attr, COW_SET_SIZE, NULL), "truncate");
			continue;
		}
		ok(&w, cow_unlink(w.root, name), "unlink");
		cow_forget(w.files[i].inode, 1);
		ok(&w, cow_create(w.root, name, &plain, &w.files[i].inode, NULL), "new");
	}
	assert_int_equal(w.root->totals.blocks, 0);
	assert_int_equal(free_blocks(&w), before);
	stop(&w);
}

static void against_arrays(void **state)
{
	const char *one = getenv("COW_SEED"), *many = getenv("COW_STEPS");
	uint64_t steps = many != NULL ? strtoull(many, NULL, 0) : 400;

	(void)state;
	if (one != NULL) {
		random_run(strtoull(one, NULL, 0), steps);
		return;
	}
	for (uint64_t seed = 1; seed <= 6; seed++)
		random_run(seed, steps);
	uint64_t fresh = (uint64_t)time(NULL) ^ (uint64_t)getpid() << 32;
	print_message("COW_SEED=%llu\n", (unsigned long long)fresh);
	random_run(fresh, steps);
}

/* ------------------------------------------------------------------ single cases */

/* A large file, copied in pieces as the kernel sends them, shares its root each time. */
static void long_copy_shares(void **state)
{
	struct world w;
	const uint64_t size = 40ull << 20, piece = (16ull << 20) - 4096;
	uint64_t at = 0;

	(void)state;
	start(&w, 1);
	memset(w.scratch, 7, FILE_MAX);
	for (uint64_t k = 0; k < size; k += 1 << 20)
		ok(&w, cow_write(w.files[0].inode, w.scratch, 1 << 20, k, false), "write");
	uint64_t before = free_blocks(&w);
	while (at < size) {
		int64_t got = cow_copy_range(w.files[0].inode, at, w.files[1].inode, at, piece);
		ok(&w, got, "copy");
		assert_int_equal(got, size - at < piece ? size - at : piece);
		at += (uint64_t)got;
		assert_int_equal(w.files[1].inode->body, COW_BODY_TREE);
	}
	assert_true(cow_ptr_equal(w.files[0].inode->tree.root, w.files[1].inode->tree.root));
	assert_true(before - free_blocks(&w) <= 4);
	ok(&w, cow_read(w.files[1].inode, w.scratch, FILE_MAX, size - FILE_MAX), "read");
	for (unsigned k = 0; k < FILE_MAX; k++)
		assert_int_equal(w.scratch[k], 7);
	stop(&w);
}

/* A block that does not fit its checksum is an error, never bad data. */
static void decay_is_an_error(void **state)
{
	struct world w;
	struct cow_extent e = {0};
	uint32_t used;

	(void)state;
	start(&w, 1);
	memset(w.scratch, 9, 20000);
	ok(&w, cow_write(w.files[0].inode, w.scratch, 20000, 0, false), "write");
	ok(&w, cow_sync(w.volume), "sync");
	assert_int_equal(w.files[0].inode->body, COW_BODY_EXTENTS);
	const struct cow_inode *f = w.files[0].inode;
	assert_int_equal(cow_extent_decode(f->data + 8, f->data_length - 8, 0, 0, &e, &used), 0);
	cow_sim_garble(w.dev, e.block + 2, true, 5);
	assert_int_equal(cow_read(w.files[0].inode, w.scratch, 8192, 0), 8192);
	assert_int_equal(cow_read(w.files[0].inode, w.scratch, 20000, 0), -EIO);
	assert_int_equal(cow_read(w.files[0].inode, w.scratch, 10, 8192 + 100), -EIO);
	assert_int_equal(cow_write(w.files[0].inode, "x", 1, 8192 + 7, false), -EIO);
	/* a block that is replaced whole need not be read */
	assert_int_equal(cow_write(w.files[0].inode, w.scratch, 4096, 8192, false), 4096);
	assert_int_equal(cow_read(w.files[0].inode, w.scratch, 20000, 0), 20000);
	stop(&w);
}

static void xattr_lists(void **state)
{
	struct world w;
	struct cow_inode *f;
	char name[300], list[4000];
	uint8_t *big = malloc(COW_XATTR_VALUE_MAX);

	(void)state;
	start(&w, 1);
	f = w.files[0].inode;
	memset(big, 3, COW_XATTR_VALUE_MAX);
	assert_int_equal(cow_setxattr(f, "user.b", "two", 3, 0), 0);
	assert_int_equal(cow_setxattr(f, "user.a", "", 0, XATTR_CREATE), 0);
	assert_int_equal(cow_setxattr(f, "user.a", "", 0, XATTR_CREATE), -EEXIST);
	assert_int_equal(cow_setxattr(f, "user.c", "", 0, XATTR_REPLACE), -ENODATA);
	assert_int_equal(cow_listxattr(f, NULL, 0), 14);
	assert_int_equal(cow_listxattr(f, list, 13), -ERANGE);
	assert_int_equal(cow_listxattr(f, list, sizeof(list)), 14);
	assert_memory_equal(list, "user.a\0user.b", 14);
	assert_int_equal(cow_getxattr(f, "user.b", list, 2), -ERANGE);
	assert_int_equal(cow_getxattr(f, "user.b", list, 3), 3);
	for (unsigned i = 0; i < 3; i++) {
		sprintf(name, "user.big%u", i);
		assert_int_equal(cow_setxattr(f, name, big, COW_XATTR_VALUE_MAX, 0), 0);
	}
	assert_int_equal(cow_setxattr(f, "user.more", big, COW_XATTR_VALUE_MAX, 0), -ENOSPC);
	assert_int_equal(cow_setxattr(f, "user.more", big, COW_XATTR_VALUE_MAX + 1, 0), -E2BIG);
	memset(name, 'n', 256);
	name[256] = '\0';
	assert_int_equal(cow_setxattr(f, name, big, 1, 0), -ERANGE);
	reopen(&w);
	f = w.files[0].inode;
	assert_int_equal(cow_getxattr(f, "user.big1", big, COW_XATTR_VALUE_MAX), COW_XATTR_VALUE_MAX);
	for (unsigned i = 0; i < COW_XATTR_VALUE_MAX; i++)
		assert_int_equal(big[i], 3);
	for (unsigned i = 0; i < 3; i++) {
		sprintf(name, "user.big%u", i);
		assert_int_equal(cow_removexattr(f, name), 0);
		assert_int_equal(cow_removexattr(f, name), -ENODATA);
	}
	assert_int_equal(cow_getxattr(f, "user.b", list, 3), 3);
	assert_memory_equal(list, "two", 3);
	free(big);
	stop(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(xattr_lists),
		cmocka_unit_test(decay_is_an_error),
		cmocka_unit_test(long_copy_shares),
		cmocka_unit_test(against_arrays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
