/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Many threads on one volume, with the commit thread: writers, readers who must never see half a write, cloners, and
 * long walks (diff, same, usage) meanwhile. What it is for is the thread sanitizer, and assertions.
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
#include <time.h>

#include <cmocka.h>

#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/mkfs.h"
#include "fs/open.h"

#define VOLUME_BYTES (512ull << 20)
#define PIECE 50000u /* written at once; not a whole number of blocks */
#define PIECES 8u
#define SECONDS 3

struct shared {
	struct cow_volume *volume;
	struct cow_inode *root;
	struct cow_inode *files[2];
	atomic_bool stop;
	atomic_int failed; /* line of the first failure */
	atomic_uint clones;
};

#define MUST(s, condition)                                                                                             \
	do {                                                                                                           \
		int none = 0;                                                                                          \
		if (!(condition))                                                                                      \
			atomic_compare_exchange_strong(&(s)->failed, &none, __LINE__);                                 \
	} while (0)

static void *write_pieces(void *v)
{
	struct shared *s = v;
	uint8_t *bytes = malloc(PIECE);

	for (unsigned i = 0; !s->stop; i++) {
		memset(bytes, (int)i, PIECE);
		MUST(s, cow_write(s->files[i % 2], bytes, PIECE, (uint64_t)(i * 7 % PIECES) * PIECE, false) == PIECE);
	}
	free(bytes);
	return NULL;
}

static void check_piece(struct shared *s, struct cow_inode *file, unsigned piece, uint8_t *bytes)
{
	int64_t got = cow_read(file, bytes, PIECE, (uint64_t)piece * PIECE);

	MUST(s, got >= 0);
	for (int64_t k = 1; k < got; k++)
		MUST(s, bytes[k] == bytes[0]);
}

static void *read_pieces(void *v)
{
	struct shared *s = v;
	uint8_t *bytes = malloc(PIECE);

	for (unsigned i = 0; !s->stop; i++)
		check_piece(s, s->files[i % 2], i * 5 % PIECES, bytes);
	free(bytes);
	return NULL;
}

/* Clones a directory under changing names, reads the clone, and removes an older one. */
static void *clone_trees(void *v)
{
	struct shared *s = v;
	uint8_t *bytes = malloc(PIECE);
	struct cow_inode *source, *clone, *file;
	char name[32];

	MUST(s, cow_lookup(s->root, "source", &source, NULL) == 0);
	for (unsigned i = 0; !s->stop; i++) {
		sprintf(name, "clone%u", i);
		MUST(s, cow_clone(source, s->root, name, 0, &clone, NULL) == 0);
		s->clones++;
		MUST(s, cow_lookup(clone, "f0", &file, NULL) == 0);
		for (unsigned k = 0; k < PIECES; k++)
			check_piece(s, file, k, bytes);
		MUST(s, cow_write(file, "x", 1, 0, false) == 1);
		cow_forget(file, 1);
		cow_forget(clone, 1);
		sprintf(name, "clone%u", i - 3);
		if (i >= 3)
			MUST(s, cow_remove_tree(s->root, name) == 0);
	}
	cow_forget(source, 1);
	free(bytes);
	return NULL;
}

static int count_change(void *context, const struct cow_change *change)
{
	(void)change;
	++*(unsigned *)context;
	return 0;
}

static void *walk_trees(void *v)
{
	struct shared *s = v;
	struct cow_inode *source, *clone;
	struct cow_usage usage;
	char name[32];

	MUST(s, cow_lookup(s->root, "source", &source, NULL) == 0);
	while (!s->stop) {
		unsigned changes = 0, last = s->clones;
		sprintf(name, "clone%u", last - 1);
		if (last == 0 || cow_lookup(s->root, name, &clone, NULL) != 0)
			continue;
		int error = cow_diff(source, clone, true, count_change, &changes);
		MUST(s, error == 0 || error == -ESTALE);
		error = cow_same(source, clone);
		MUST(s, error >= 0 || error == -ESTALE);
		error = cow_usage(clone, true, &usage);
		MUST(s, error == 0 || error == -ESTALE);
		cow_forget(clone, 1);
	}
	cow_forget(source, 1);
	return NULL;
}

/* Names that come and go, xattrs, copies. */
static void *churn(void *v)
{
	struct shared *s = v;
	struct cow_inode *dir, *file;
	char name[32];

	MUST(s, cow_create(s->root, "churn", &(struct cow_new){.mode = S_IFDIR | 0755}, &dir, NULL) == 0);
	for (unsigned i = 0; !s->stop; i++) {
		sprintf(name, "n%u", i % 20);
		int error = cow_create(dir, name, &(struct cow_new){.mode = S_IFREG | 0644}, &file, NULL);
		if (error == -EEXIST) {
			MUST(s, cow_unlink(dir, name) == 0);
			continue;
		}
		MUST(s, error == 0);
		MUST(s, cow_setxattr(file, "user.x", name, strlen(name), 0) == 0);
		MUST(s, cow_copy_range(s->files[i % 2], 0, file, 0, 1 << 20) >= 0);
		if (i % 3 == 0)
			MUST(s, cow_sync(s->volume) == 0);
		cow_forget(file, 1);
	}
	cow_forget(dir, 1);
	return NULL;
}

static void together(void **state)
{
	static void *(*const jobs[])(void *) = {write_pieces, read_pieces, clone_trees, walk_trees, churn, read_pieces};
	const struct cow_open_options options = {.commit_seconds = 1, .dirty_bytes = 8u << 20, .cache_bytes = 1u << 20};
	struct cow_dev *dev = cow_sim_new(VOLUME_BYTES);
	const unsigned count = sizeof(jobs) / sizeof(*jobs);
	struct shared s = {0};
	struct cow_inode *source;
	pthread_t threads[sizeof(jobs) / sizeof(*jobs)];

	(void)state;
	assert_int_equal(cow_volume_format(dev, &(struct cow_format_options){.size_bytes = VOLUME_BYTES}), 0);
	assert_int_equal(cow_volume_open(dev, &options, &s.volume), 0);
	assert_int_equal(cow_root(s.volume, &s.root), 0);
	assert_int_equal(cow_create(s.root, "source", &(struct cow_new){.mode = S_IFDIR | 0755}, &source, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		struct cow_new new = {.mode = S_IFREG | 0644};
		assert_int_equal(cow_create(source, i == 0 ? "f0" : "f1", &new, &s.files[i], NULL), 0);
	}
	cow_forget(source, 1);
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, jobs[i], &s), 0);
	nanosleep(&(struct timespec){.tv_sec = SECONDS}, NULL);
	s.stop = true;
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	print_message("%u clones\n", s.clones);
	if (s.failed != 0)
		fail_msg("line %d", s.failed);
	assert_int_equal(cow_drain(s.volume), 0);
	assert_int_equal(cow_close(s.volume), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
