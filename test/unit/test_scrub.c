/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cow_scrub() against an independent map of the image: it reads each block that is in use once, and whichever of them
 * is damaged is found, with a path that has it. It goes past the caches, and over a volume that is being changed.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cow.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "test/lib/known.h"
#include "test/lib/owners.h"
#include "test/lib/rich.h"
#include "test/lib/scratch.h"

#define BLOCKS (RICH_BYTES / 4096)

static struct scratch *image;
static struct owners *owners;

/* A clock by which each look at it takes a millisecond. */
int clock_gettime(clockid_t clock, struct timespec *now)
{
	static atomic_ulong ticks;
	unsigned long t = atomic_fetch_add(&ticks, 1);

	(void)clock;
	*now = (struct timespec){.tv_sec = 1700000000 + (time_t)(t / 1000), .tv_nsec = (long)(t % 1000) * 1000000};
	return 0;
}

static void ignore_log(void *context, enum cow_log_level level, const char *text)
{
	(void)context, (void)level, (void)text;
}

static struct cow_volume *open_volume(bool write)
{
	struct cow_open_options options = {.read_only = !write, .no_threads = true, .log = ignore_log};
	struct cow_volume *volume;

	assert_int_equal(cow_volume_open(scratch_attach(image), &options, &volume), 0);
	return volume;
}

struct found {
	uint64_t count[BLOCKS];
	uint64_t all;
	bool nameless;
};

static void on_finding(void *context, const struct cow_scrub_finding *f)
{
	struct found *found = context;
	enum role role = owners_role(owners, f->block);
	bool named = role >= ROLE_TOP && role <= ROLE_DATA;

	found->all++;
	found->count[f->block]++;
	found->nameless |= f->path == NULL;
	assert_non_null(f->text);
	assert_null(strchr(f->text, '\n'));
	assert_int_equal(f->offset >= 0, role == ROLE_DATA || role == ROLE_DEAD_DATA);
	if (role == ROLE_DATA && !owners_allow(owners, f->block, KNOWN_READ, f->path, (uint64_t)f->offset / 4096))
		fail_msg("block %llu: data of %s at %lld: it has nothing of that", (unsigned long long)f->block,
			 f->path,
			 (long long)f->offset);
	/* what hard links share has no path of its own: then it is the clone's */
	if (named && f->path != NULL && !owners_below(owners, f->block, f->path))
		fail_msg("block %llu (%s): %s does not have it", (unsigned long long)f->block, role_name(role),
			 f->path);
	if (named == (f->path == NULL))
		fail_msg("block %llu (%s): path %s", (unsigned long long)f->block, role_name(role), f->path);
}

static struct found *scrub(struct cow_volume *volume, struct cow_scrub_result *result)
{
	struct found *found = cow_mem_new(sizeof(*found));
	struct cow_scrub_options options = {.finding = on_finding, .context = found};

	assert_int_equal(cow_scrub(volume, &options, result), 0);
	assert_int_equal(found->all, result->findings);
	return found;
}

static bool is_live(enum role role)
{
	return role != ROLE_UNUSED && role != ROLE_DEAD_NODE && role != ROLE_DEAD_DATA;
}

/* Opened for writing there are no orphans any more, so what is live was read, each block once. */
static void test_clean(void **state)
{
	struct cow_scrub_result result;
	uint64_t live = 0, orphans = owners_count(owners, ROLE_ORPHANS);
	struct cow_volume *volume = open_volume(false);

	(void)state;
	for (uint64_t i = 0; i < BLOCKS; i++)
		live += is_live(owners_role(owners, i));
	free(scrub(volume, &result));
	assert_int_equal(result.findings, 0);
	assert_int_equal(result.superblocks, 8);
	assert_int_equal(result.count_blocks, owners_count(owners, ROLE_COUNTS));
	assert_int_equal(result.nodes + result.data_blocks + result.count_blocks + result.superblocks, result.blocks);
	assert_true(orphans > 0 && result.blocks > live); /* and what the orphans have */
	assert_in_range(result.blocks, live, live + owners_count(owners, ROLE_DEAD_NODE) +
						     owners_count(owners, ROLE_DEAD_DATA));
	assert_true(result.used_blocks >= result.blocks - 8 - result.count_blocks);
	assert_int_equal(cow_close(volume), 0);
}

/* Every block that is in use, one after the other: one finding for each, or none in what nobody needs. */
static void test_each_block(void **state)
{
	uint64_t dead = 0, supers = 0;

	(void)state;
	for (uint64_t i = 0; i < BLOCKS; i++) {
		enum role role = owners_role(owners, i);
		struct cow_scrub_result result;
		struct cow_volume *volume;
		struct found *found;

		if (role == ROLE_UNUSED || role == ROLE_TOP)
			continue; /* without the root it does not open */
		volume = open_volume(false);
		scratch_flip(image, i, (unsigned)(i * 977 % (role == ROLE_SUPER ? 4096 : 32768)));
		found = scrub(volume, &result);
		supers += role == ROLE_SUPER && found->count[i] == 1;
		if (is_live(role) && role != ROLE_SUPER && (found->all != 1 || found->count[i] != 1))
			fail_msg("block %llu (%s): %llu findings", (unsigned long long)i, role_name(role),
				 (unsigned long long)found->all);
		if (found->all != found->count[i])
			fail_msg("block %llu (%s): found elsewhere", (unsigned long long)i, role_name(role));
		dead += !is_live(role) && found->all != 0;
		assert_int_equal(cow_close(volume), 0);
		free(found);
		scratch_reset(image);
	}
	assert_true(dead > 0); /* of orphans */
	assert_int_equal(supers, 6); /* not the slot that a cut commit leaves torn */
}

/* What is in memory, and good, does not hide what is on the disk. */
static void test_past_the_cache(void **state)
{
	struct cow_volume *volume = open_volume(true);
	struct known *known = known_read(volume); /* everything is in the caches now */
	uint64_t node = owners_block_of(owners, ROLE_DIR, "/many"), data = owners_block_of(owners, ROLE_DATA,
											   "/files/of-65536");
	struct cow_scrub_result result;
	struct found *found;

	(void)state;
	assert_true(node != 0 && data != 0);
	scratch_flip(image, node, 20000);
	scratch_flip(image, data, 20000);
	found = scrub(volume, &result);
	assert_int_equal(found->count[node], 1);
	assert_int_equal(found->count[data], 1);
	assert_int_equal(found->all, 2);
	assert_false(found->nameless);
	free(found);
	known_free(known);
	cow_volume_abandon(volume);
	scratch_reset(image);
}

static void test_unreadable(void **state)
{
	uint64_t data = owners_block_of(owners, ROLE_DATA, "/files/of-300001");
	struct cow_volume *volume = open_volume(false);
	struct cow_scrub_result result;
	struct found *found;

	(void)state;
	scratch_unreadable(image, data);
	found = scrub(volume, &result);
	assert_int_equal(found->count[data], 1);
	assert_int_equal(found->all, 1);
	free(found);
	assert_int_equal(cow_close(volume), 0);
	scratch_reset(image);
}

static int stop(void *context, const struct cow_scrub_result *so_far)
{
	*(uint64_t *)context = so_far->blocks;
	return 77;
}

static void test_stop(void **state)
{
	uint64_t blocks = 0;
	struct cow_scrub_options options = {.bytes_per_second = 1 << 20, .progress = stop, .context = &blocks};
	struct cow_volume *volume = open_volume(true);
	struct cow_scrub_result result;
	struct cow_info info;

	(void)state;
	assert_int_equal(cow_scrub(volume, &options, &result), 77);
	assert_true(blocks > 0 && blocks <= result.blocks && result.blocks < result.used_blocks);
	assert_int_equal(cow_drain(volume), 0);
	assert_int_equal(cow_info(volume, &info), 0);
	assert_int_equal(info.reclaim_entries, 0); /* nothing is held any more */
	cow_volume_abandon(volume);
	scratch_reset(image);
}

/* ------------------------------------------------------------------ while it is being changed */

struct busy {
	struct cow_volume *volume;
	atomic_bool end;
	unsigned rounds;
};

/* The nodes that hold the files change, and move, but not their data. */
static void touch(struct cow_volume *volume, unsigned round)
{
	static const char *const paths[] = {
		"/files/of-300001", "/files/of-20000", "/snapshot", "/clone/inside/new", "/links/inside/linked-7",
			"/last",
		"/many/deep/file",
			"/many/a name that is long, so that there are many leaves, with number 99 at the end",
		"/clone-of-clone/inside/nested/of-65536", "/files/many-extents",
	};
	struct cow_inode *inode;

	assert_int_equal(cow_lookup_path(volume, paths[round % 10], &inode), 0);
	(void)!cow_setattr(inode, &(struct cow_attr){.uid = round}, COW_SET_UID, NULL); /* of a snapshot: no */
	cow_forget(inode, 1);
}

static void *be_busy(void *context)
{
	struct busy *b = context;
	struct cow_inode *root, *dir, *file;
	char name[32], bytes[9000] = "busy";

	assert_int_equal(cow_root(b->volume, &root), 0);
	assert_int_equal(cow_create(root, "busy", &(struct cow_new){.mode = S_IFDIR | 0755}, &dir, NULL), 0);
	for (b->rounds = 0; !atomic_load(&b->end); b->rounds++) {
		snprintf(name, sizeof(name), "file-%u", b->rounds % 50);
		if (cow_create(dir, name, &(struct cow_new){.mode = S_IFREG | 0644}, &file, NULL) == 0) {
			assert_int_equal(cow_write(file, bytes, sizeof(bytes), b->rounds % 7 * 5000, false),
					 sizeof(bytes));
			cow_forget(file, 1);
		} else {
			assert_int_equal(cow_unlink(dir, name), 0);
		}
		if (b->rounds % 20 == 5 && cow_clone(dir, root, "busy-clone", 0, NULL, NULL) == -EEXIST)
			assert_int_equal(cow_remove_tree(root, "busy-clone"), 0);
		touch(b->volume, b->rounds);
		if (b->rounds % 3 == 0)
			assert_int_equal(cow_sync(b->volume), 0);
	}
	cow_forget(dir, 1);
	cow_forget(root, 1);
	return NULL;
}

/* Data only: below a node that is damaged nothing can be found. */
static void damage(uint64_t *blocks, unsigned count)
{
	uint64_t n = owners_count(owners, ROLE_DATA);

	assert_true(n >= count);
	for (unsigned i = 0; i < count; i++) {
		blocks[i] = owners_nth(owners, ROLE_DATA, n * i / count);
		scratch_flip(image, blocks[i], 12345);
	}
}

static void test_busy(void **state)
{
	struct cow_volume *volume = open_volume(true);
	struct found *found = cow_mem_new(sizeof(*found));
	/* by our clock the volume is held for one step at a time */
	struct cow_scrub_options options = {.hold_milliseconds = 1, .finding = on_finding, .context = found};
	struct busy busy = {.volume = volume};
	struct cow_scrub_result result;
	uint64_t blocks[30];
	pthread_t thread;

	(void)state;
	damage(blocks, 30);
	assert_int_equal(pthread_create(&thread, NULL, be_busy, &busy), 0);
	assert_int_equal(cow_scrub(volume, &options, &result), 0);
	atomic_store(&busy.end, true);
	pthread_join(thread, NULL);
	print_message("%u changes and %llu blocks\n", busy.rounds, (unsigned long long)result.blocks);
	for (unsigned i = 0; i < 30; i++)
		if (found->count[blocks[i]] != 1)
			fail_msg("block %llu was found %llu times", (unsigned long long)blocks[i],
				 (unsigned long long)found->count[blocks[i]]);
	assert_int_equal(found->all, 30);
	free(found);
	cow_volume_abandon(volume);
	scratch_reset(image);
}

static int setup(void **state)
{
	struct cow_dev *dev = rich_volume();

	(void)state;
	image = scratch_new(dev);
	owners = owners_read(dev);
	cow_dev_close(dev);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	owners_free(owners);
	scratch_free(image);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean),	   cmocka_unit_test(test_each_block),
			cmocka_unit_test(test_past_the_cache),
		cmocka_unit_test(test_unreadable), cmocka_unit_test(test_stop),	      cmocka_unit_test(test_busy),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
