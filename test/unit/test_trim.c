/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Space that was freed stays for a while, to be used again: it must not be missed by who needs it, nor by the host. */
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
#include <time.h>

#include <cmocka.h>

#include "audit/check.h"
#include "base/mem.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "fs/reclaim/reclaim.h"
#include "test/lib/simdisk.h"

#define MIB ((size_t)1 << 20)

/* What is done once in the middle of a flush or a discard. */
struct meddler {
	enum cow_sim_call in;
	void (*call)(struct meddler *m); /* NULL: it was */
	unsigned mib;                    /* written by the call */
	int64_t result;                  /* of the call */
};

static struct cow_volume *volume;
static struct cow_inode *root;
static uint8_t content[MIB];

static void meddle(void *meddler, enum cow_sim_call call, uint64_t block, uint64_t blocks)
{
	struct meddler *m = meddler;
	void (*now)(struct meddler *m) = m->call;

	(void)block, (void)blocks;
	if (call != m->in || now == NULL)
		return;
	m->call = NULL;
	now(m);
}

static void open_on(struct cow_dev *dev, uint64_t dirty_bytes)
{
	struct cow_open_options options = {.no_threads = true, .dirty_bytes = dirty_bytes};

	assert_int_equal(cow_volume_open(dev, &options, &volume), 0);
	assert_int_equal(cow_root(volume, &root), 0);
}

static void close_it(struct cow_dev *disk)
{
	struct cow_dev *copy;
	struct cow_check_result result;

	cow_forget(root, 1);
	assert_int_equal(cow_close(volume), 0);
	copy = cow_sim_copy(disk);
	assert_int_equal(cow_check_device(copy, &(struct cow_check_options){.data = true}, &result), 0);
	assert_int_equal(result.findings, 0);
	cow_dev_close(copy);
	cow_dev_close(disk);
}

static struct cow_inode *make(const char *name)
{
	struct cow_inode *file;

	assert_int_equal(cow_create(root, name, &(struct cow_new){.mode = S_IFREG | 0644}, &file, NULL), 0);
	return file;
}

/* So much that all was accepted, or the error. */
static int64_t fill(struct cow_inode *file, unsigned mib)
{
	int64_t done = 0;

	for (unsigned i = 0; i < mib && done >= 0; i++)
		done = cow_write(file, content, MIB, i * MIB, false);
	return done < 0 ? done : mib;
}

static void sync_and_reclaim(void)
{
	assert_int_equal(cow_sync(volume), 0);
	while (cow_volume_reclaim(volume, 100000) > 0)
		;
	assert_int_equal(cow_sync(volume), 0);
}

static struct cow_inode *victim;

static pthread_t writer;
static atomic_uint written; /* MiB */

static void *write_much(void *v)
{
	struct meddler *m = v;
	int64_t done = 0;

	for (unsigned i = 0; i < 24 && done >= 0; i++) {
		done = cow_write(victim, content, MIB, i * MIB, false);
		written += done >= 0;
	}
	m->result = done < 0 ? done : 24;
	return NULL;
}

/* Begins, and goes on when the writer is done, or waits for this commit. */
static void start_writer(struct meddler *m)
{
	const struct timespec pause = {.tv_nsec = 20000000};
	unsigned seen;

	written = 0;
	assert_int_equal(pthread_create(&writer, NULL, write_much, m), 0);
	do {
		seen = written;
		nanosleep(&pause, NULL);
	} while (written != seen);
}

/*
 * A full host, and 48 MiB were freed. Beside commit `when` a writer is promised half of them, or told that there is no
 * space; what is discarded is taken by others. True: he was promised it.
 */
static bool promise(unsigned when)
{
	struct cow_dev *disk = simdisk_format(512 * MIB);
	struct meddler m = {.in = COW_SIM_FLUSH};
	struct cow_inode *big, *small;

	open_on(simdisk_attach(disk), 64 * MIB);
	cow_sim_hook(disk, meddle, &m);
	big = make("big");
	victim = make("victim");
	small = make("small");
	assert_int_equal(fill(big, 48), 48);
	assert_int_equal(cow_sync(volume), 0);
	cow_forget(big, 1);
	cow_sim_host(disk, cow_sim_host_used(disk));
	assert_int_equal(cow_unlink(root, "big"), 0);
	sync_and_reclaim();
	for (unsigned i = 0; i < 12; i++) {
		(void)!cow_write(small, &i, 1, 0, false);
		if (i == when)
			m.call = start_writer;
		assert_int_equal(cow_sync(volume), 0);
		if (i == when && m.call == NULL)
			assert_int_equal(pthread_join(writer, NULL), 0);
		m.call = NULL;
		cow_sim_host(disk, cow_sim_host_used(disk));
		assert_int_equal(cow_sync(volume), 0);
	}
	cow_forget(victim, 1);
	cow_forget(small, 1);
	close_it(disk);
	return m.result == 24;
}

static void test_promise(void **state)
{
	unsigned promised = 0;

	(void)state;
	for (unsigned when = 0; when < 12; when++)
		promised += promise(when);
	assert_true(promised > 0);
}

static void write_some(struct meddler *m)
{
	m->result = fill(victim, m->mib);
}

/* A volume with little free, some of it freed just now. In the middle of giving that back, if any of it is, somebody
 * writes. */
static void nearly_full(unsigned freed_mib, unsigned dirty_mib)
{
	struct cow_dev *disk = simdisk_format(64 * MIB);
	struct meddler m = {.in = COW_SIM_DISCARD, .call = write_some, .mib = freed_mib / 4};
	struct cow_inode *full, *freed;

	open_on(simdisk_attach(disk), 8 * MIB);
	full = make("full");
	freed = make("freed");
	victim = make("victim");
	assert_int_equal(fill(freed, freed_mib), freed_mib);
	assert_int_equal(cow_sync(volume), 0);
	assert_true(fill(full, 64) < 0);
	assert_int_equal(cow_sync(volume), 0);
	cow_forget(freed, 1);
	assert_int_equal(cow_unlink(root, "freed"), 0);
	sync_and_reclaim();
	assert_int_equal(fill(victim, dirty_mib), dirty_mib);
	cow_sim_hook(disk, meddle, &m);
	cow_store_trim(volume->store, COW_TRIM_ALL);
	cow_sim_hook(disk, NULL, NULL);
	assert_true(m.call == NULL || freed_mib < 12);
	assert_true(m.result >= 0);
	assert_int_equal(cow_write(victim, content, MIB, 0, false), MIB);
	assert_int_equal(cow_sync(volume), 0);
	cow_forget(full, 1);
	cow_forget(victim, 1);
	close_it(disk);
}

static void test_nearly_full(void **state)
{
	(void)state;
	nearly_full(4, 0);
	nearly_full(4, 3);
	nearly_full(12, 0);
	nearly_full(16, 3);
}

/* Opened on a full host, nothing is known to have its space: what is removed goes to the host, and comes back. */
static void test_reopened(void **state)
{
	struct cow_dev *disk = simdisk_format(1024 * MIB);
	struct cow_inode *file;
	char name[16];

	(void)state;
	open_on(simdisk_attach(disk), 32 * MIB);
	for (unsigned i = 0; i < 80; i++) {
		snprintf(name, sizeof(name), "%u", i);
		file = make(name);
		assert_int_equal(fill(file, 8), 8);
		cow_forget(file, 1);
	}
	assert_int_equal(cow_sync(volume), 0);
	for (unsigned i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(cow_unlink(root, name), 0);
	}
	assert_int_equal(cow_drain(volume), 0);
	cow_forget(root, 1);
	assert_int_equal(cow_close(volume), 0);
	cow_sim_host(disk, cow_sim_host_used(disk) + 2600); /* somebody else has the rest */
	open_on(simdisk_attach(disk), 32 * MIB);
	for (unsigned i = 50; i < 70; i++) {
		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(cow_unlink(root, name), 0);
	}
	sync_and_reclaim();
	file = make("new");
	assert_int_equal(fill(file, 8), 8);
	assert_int_equal(cow_sync(volume), 0);
	cow_forget(file, 1);
	close_it(disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_promise),
		cmocka_unit_test(test_nearly_full),
		cmocka_unit_test(test_reopened),
	};

	memset(content, 7, sizeof(content));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
