/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/reclaim/space.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

#include "base/min.h"
#include "fs/commit/commit.h"
#include "fs/core/op.h"
#include "fs/core/reservation.h"
#include "fs/data/extents.h"
#include "fs/data/pages.h"
#include "fs/reclaim/purge.h"
#include "fs/reclaim/reclaim.h"
#include "store/tree.h"

#define SETTLE_STEPS 32768u /* of reclaim: what they change stays in memory until the next commit */
#define SETTLE_PAGES 4096u  /* looked at under one hold of the lock, but for the rest of a file */
#define SETTLE_GROUPS 64u   /* of counts, the same */
#define MISSES_MAX 1024u    /* before something is left out */

uint64_t cow_space_free(const struct cow_volume *volume)
{
	uint64_t blocks = cow_store_free_blocks(volume->store), left = cow_reservation_left(volume, COW_FOR_CHANGE);

	return blocks > left ? blocks - left : 0;
}

/* ------------------------------------------------------------------ buffered pages */

static bool is_known(const struct cow_inode *file)
{
	return file->covered_version == file->data_version && file->covered_of == file->pages.count;
}

/* [locked] The first file with pages of which it is not known how many are covered. */
static struct cow_inode *unknown(const struct cow_volume *volume)
{
	struct cow_inode *file = volume->buffered.first;

	while (file != NULL && is_known(file))
		file = file->buffered_next;
	return file;
}

/* Pages from *at on that lie over this extent, where a block has no other count. *at moves on behind them. COW_MISS */
static int count_covered(struct cow_inode *file, const struct cow_extent *e, uint64_t *at, uint64_t *covered)
{
	struct cow_store *store = file->volume->store;
	bool sole = true;
	int error = 0;

	if (file->body == COW_BODY_TREE)
		error = cow_tree_is_sole(store, &file->tree, e->at, &sole);
	while (error == 0 && cow_pages_next(file, at) != NULL && *at < e->at + e->blocks) {
		uint32_t count;

		error = cow_counts_get(store->counts, e->block + (*at - e->at), &count, &store->miss.counts);
		if (error == COW_MISS)
			store->miss.what = COW_MISS_COUNTS;
		if (error != 0)
			break;
		*covered += sole && count == 1;
		++*at;
	}
	return error;
}

/* Content that fits into the record takes no block at all. */
static void begin_covering(struct cow_inode *file)
{
	if (file->covering.version == file->data_version && file->covering.of == file->pages.count)
		return;
	file->covering.at = 0;
	file->covering.covered = file->size <= COW_INLINE_MAX ? file->pages.count : 0;
	file->covering.of = file->pages.count;
	file->covering.version = file->data_version;
}

/* After a miss it goes on where it was: the counts of all pages may not fit into memory at once. */
static int find_covered(struct cow_inode *file)
{
	uint64_t *at = &file->covering.at;
	struct cow_extent e;
	int error = 0;

	begin_covering(file);
	while (error == 0 && cow_pages_next(file, at) != NULL && (error = cow_extents_find(file, *at, &e)) == 0) {
		if (e.at > *at)
			*at = e.at;
		else
			error = count_covered(file, &e, at, &file->covering.covered);
	}
	if (error == COW_MISS)
		return error;
	/* of a damaged map nothing is known */
	cow_pages_set_covered(file, error == 0 || error == -ENOENT ? file->covering.covered : 0);
	file->covering.version = 0;
	return 0;
}

/* 1: there is more. */
static int cover_some(struct cow_volume *volume, uint64_t *left)
{
	uint64_t batch = SETTLE_PAGES;
	struct cow_inode *file;

	while ((file = unknown(volume)) != NULL && batch > 0 && *left > 0) {
		int error = find_covered(file);

		if (error != 0)
			return error;
		*left -= cow_min64(*left, file->pages.count);
		batch -= cow_min64(batch, file->pages.count);
	}
	return file != NULL && *left > 0;
}

/* ------------------------------------------------------------------ all of it */

bool cow_space_is_settled(const struct cow_volume *volume)
{
	const struct cow_store *store = volume->store;

	return store->read_only || (!cow_volume_has_garbage(volume) && volume->purging == 0 &&
				    cow_counts_is_settled(store->counts) && unknown(volume) == NULL);
}

/* What others purge now would otherwise be missed. */
static void wait_for_purge(struct cow_volume *volume, const struct timespec *until)
{
	pthread_mutex_lock(&volume->store->lock);
	while (volume->purging != 0 && pthread_cond_timedwait(&volume->done, &volume->store->lock, until) == 0)
		;
	pthread_mutex_unlock(&volume->store->lock);
}

static int settle_counts(struct cow_store *store, unsigned groups)
{
	int more = cow_counts_settle(store->counts, groups, &store->miss.counts);

	if (more == COW_MISS)
		store->miss.what = COW_MISS_COUNTS;
	return more;
}

/* Neither who writes meanwhile keeps it going, nor a cache in which what is needed at once has no room. */
struct settle_args {
	uint64_t pages; /* to be looked at */
	unsigned misses;
};

static int settle_some(struct cow_op *op, void *args)
{
	struct settle_args *a = args;
	int more = cover_some(op->volume, &a->pages);

	if (more == 0)
		more = settle_counts(op->store, SETTLE_GROUPS);
	return more == COW_MISS && a->misses-- == 0 ? 0 : more;
}

static int settle_rest(struct cow_op *op)
{
	uint64_t left = UINT64_MAX;
	int more;

	while ((more = cover_some(op->volume, &left)) == 1)
		;
	return more != 0 ? more : settle_counts(op->store, UINT_MAX);
}

/* What must be read may not stay in memory long enough: then something is missing. */
void cow_space_finish(struct cow_op *op)
{
	for (unsigned i = 0; i < MISSES_MAX && !op->store->read_only; i++)
		if (settle_rest(op) != COW_MISS || cow_op_fill(op) != 0)
			return;
}

bool cow_space_settle(struct cow_volume *volume)
{
	struct settle_args args = {.misses = MISSES_MAX};
	uint64_t steps = SETTLE_STEPS;
	struct timespec until;
	bool settled;
	int more;

	pthread_mutex_lock(&volume->store->lock);
	settled = cow_space_is_settled(volume);
	args.pages = volume->store->dirty_pages;
	pthread_mutex_unlock(&volume->store->lock);
	if (settled)
		return false;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++;
	(void)!cow_purge_queued(volume, &until);
	wait_for_purge(volume, &until);
	do
		more = cow_volume_reclaim_some(volume, &steps);
	while (more > 0 && steps > 0 && !cow_volume_is_late(&until));
	while (!cow_volume_is_late(&until) && cow_op_read(volume, settle_some, &args) > 0)
		;
	return more > 0;
}

static int compare_free(struct cow_op *op, void *blocks)
{
	cow_space_finish(op);
	return cow_space_free(op->volume) >= *(uint64_t *)blocks;
}

static bool found(struct cow_volume *volume, uint64_t blocks)
{
	(void)cow_space_settle(volume);
	return cow_op_read(volume, compare_free, &blocks) > 0;
}

bool cow_space_has(struct cow_volume *volume, uint64_t blocks)
{
	int more = 1;

	while (!found(volume, blocks)) {
		if (more <= 0)
			return false;
		more = cow_volume_reclaim(volume, SETTLE_STEPS);
		if (cow_volume_commit(volume, NULL, NULL) != 0)
			return false;
	}
	return true;
}
