/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/volume.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <xxhash.h>

#include "base/mem.h"
#include "dev/dev_overlay.h"
#include "fs/dir.h"
#include "fs/link.h"
#include "fs/number.h"
#include "fs/orphan.h"
#include "fs/pages.h"
#include "fs/purge.h"
#include "fs/replay.h"
#include "fs/space.h"

#define DEFAULT_CACHE_BYTES (256ull << 20)
#define DEFAULT_DIRTY_BYTES (256ull << 20)
/* 128 MiB keep the disk busy. To buffer more only takes memory, which costs as much to touch at first as to write. */
#define COMMIT_PAGES (32u << 10)
#define DEFAULT_COMMIT_SECONDS 5
#define DEFAULT_IMAGE_BYTES (100ull << 30)
#define ROOT_NUMBER 1
#define NOTED_BLOCKS 8192u   /* of the ring, when it is larger: a quarter of so much may be noted, 8 MiB */
#define RECLAIM_BATCH 64     /* steps under one hold of the lock */
#define PLACE_PAGES 512      /* pages placed under one hold of the lock */
#define PLACE_FILE 8         /* as many pages' worth of work is a file by itself */
#define PLACE_REST 256       /* pages that a seal may place */
#define LEAST_RESERVE 80     /* more blocks, since a small volume has few dirty nodes, but no shorter paths */
#define ROOM_FOR_STEP 64     /* blocks that one step of a purge or a sweep may need */
#define REPEAT_SECONDS 60    /* in which a line is logged once */

/* Has the same been said in the last minute? Who reads a damaged file in a loop must not fill the log. */
static bool is_repeated(struct cow_volume *volume, const char *text)
{
	uint64_t hash = XXH3_64bits(text, strlen(text));
	struct cow_told *told = &volume->told[hash % COW_TOLD];
	struct timespec now;
	bool repeated;

	clock_gettime(CLOCK_MONOTONIC, &now);
	pthread_mutex_lock(&volume->told_lock);
	repeated = told->hash == hash && now.tv_sec - told->seconds < REPEAT_SECONDS;
	if (!repeated)
		*told = (struct cow_told){hash, now.tv_sec};
	pthread_mutex_unlock(&volume->told_lock);
	return repeated;
}

void cow_volume_log(struct cow_volume *volume, enum cow_log_level level, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (is_repeated(volume, text))
		return;
	if (volume->options.log != NULL)
		volume->options.log(volume->options.log_context, level, text);
	else
		fprintf(stderr, "cowlinks: %s\n", text);
}

/* ------------------------------------------------------------------ what the store asks for */

static void counters_encode(const struct cow_counters *c, uint8_t user[COW_SUPER_USER])
{
	memset(user, 0, COW_SUPER_USER);
	put64(user, c->number);
	put64(user + 8, c->colour);
	put64(user + 16, c->chunk);
	memcpy(user + 24, c->hash_key, sizeof(c->hash_key));
}

static void counters_decode(const uint8_t user[COW_SUPER_USER], struct cow_counters *c)
{
	c->number = get64(user);
	c->colour = get64(user + 8);
	c->chunk = get64(user + 16);
	memcpy(c->hash_key, user + 24, sizeof(c->hash_key));
}

static bool counters_valid(const struct cow_counters *c)
{
	return c->number > ROOT_NUMBER && c->number <= COW_NUMBER_MAX && c->colour != 0 &&
	       c->colour <= COW_NUMBER_MAX && c->chunk <= COW_CHUNK_MAX;
}

static int op_fold(void *context)
{
	return cow_volume_fold(context);
}

static void op_user(void *context, uint8_t user[COW_SUPER_USER])
{
	counters_encode(&((struct cow_volume *)context)->counters, user);
}

/* After the fold all inodes are clean: each is brought up to date, leaves the list, and memory if nobody wants it. */
static void op_translate(void *context)
{
	struct cow_volume *volume = context;

	while (volume->tracked != NULL) {
		struct cow_inode *i = volume->tracked;
		struct cow_ptr *ptrs[] = {&i->tree.root, &i->links.root, &i->xattr.tree.root, &i->target.tree.root,
					  &i->back_tree.root};
		bool live = cow_inode_check_live(i) == 0;
		for (size_t k = 0; k < sizeof(ptrs) / sizeof(*ptrs); k++)
			if (live)
				cow_store_translate(volume->store, ptrs[k]);
			else /* only a handle is left: what it pointed to is reclaim's, and may be gone */
				*ptrs[k] = (struct cow_ptr){0};
		cow_inode_untrack(i);
		if (i->refs == 0) {
			cow_inode_get(i);
			cow_inode_put(i, 1);
		}
	}
}

static int op_write_data(void *context)
{
	return cow_file_write_out(context);
}

static void op_sealed(void *context)
{
	cow_notes_seal(context);
}

static void op_durable(void *context)
{
	cow_notes_durable(context);
}

static void op_log(void *context, int level, const char *text)
{
	cow_volume_log(context, (enum cow_log_level)level, "%s", text);
}

static const struct cow_store_ops store_ops = {
	.validate = cow_value_validate, .claims = cow_value_claims, .fold = op_fold, .translate = op_translate,
	.user = op_user, .sealed = op_sealed, .write_data = op_write_data, .durable = op_durable, .log = op_log,
};

/* ------------------------------------------------------------------ fold */

/* Records go into trees whose roots lie in other records: children first. `pending` counts, for each dirty inode, the
 * dirty ones that it waits for. */
static void fold_records(struct cow_volume *volume)
{
	struct cow_inode **ready = cow_mem_new((volume->store->dirty_records + 1) * sizeof(*ready));
	size_t count = 0;

	for (struct cow_inode *i = volume->tracked; i != NULL; i = i->track_next)
		i->pending = 0;
	for (struct cow_inode *i = volume->tracked; i != NULL; i = i->track_next)
		if (i->dirty && i->parent != NULL)
			i->parent->pending++;
	for (struct cow_inode *i = volume->tracked; i != NULL; i = i->track_next)
		if (i->dirty && i->pending == 0)
			ready[count++] = i;
	while (count > 0) {
		struct cow_inode *i = ready[--count];
		cow_inode_fold(i);
		if (i->parent != NULL && --i->parent->pending == 0)
			ready[count++] = i->parent;
	}
	free(ready);
	assert(volume->store->dirty_records == 0);
}

int cow_volume_fold(struct cow_volume *volume)
{
	int error = cow_reclaim_reserve(volume->store);

	if (error != 0 || volume->store->dirty_records == 0)
		return error;
	while (volume->buffered.first != NULL && error == 0)
		error = cow_file_place(volume->buffered.first);
	if (error == 0)
		fold_records(volume);
	return error;
}

struct place_args {
	struct cow_inode *file; /* identity only, never followed: which one was begun */
	uint64_t at;            /* up to here */
	uint64_t rest, left;    /* it ends when so many pages are there, or have been placed */
};

/* 1: there is more. */
static int place_step(struct cow_op *op, void *v)
{
	struct place_args *a = v;
	struct cow_volume *volume = op->volume;
	size_t room = PLACE_PAGES;

	while (op->store->dirty_pages > a->rest && a->left > 0 && volume->buffered.first != NULL) {
		struct cow_inode *file = volume->buffered.first;
		uint64_t before = op->store->dirty_pages, placed;
		int error;

		if (room <= PLACE_FILE)
			return 1;
		if (a->file != file)
			a->at = 0;
		a->file = file;
		error = cow_file_place_some(file, &a->at, room - PLACE_FILE);
		if (error != 0)
			return error;
		placed = before - op->store->dirty_pages;
		a->left -= placed < a->left ? placed : a->left;
		room -= placed + PLACE_FILE < room ? placed + PLACE_FILE : room;
		if (room > 0) { /* it was placed to its end; what came before that meanwhile waits for its turn */
			a->file = NULL;
			if (file->pages.count != 0)
				cow_pages_last(file);
		}
	}
	return 0;
}

/* Files may be written while they are placed: it ends with twice what was there. */
int cow_volume_place(struct cow_volume *volume, uint64_t rest)
{
	const struct timespec pause = {.tv_nsec = 1000}; /* a mutex is not fair: let others have the lock */
	struct place_args args = {.rest = rest};
	int more;

	pthread_mutex_lock(&volume->store->lock);
	args.left = 2 * volume->store->dirty_pages;
	pthread_mutex_unlock(&volume->store->lock);
	while (!volume->store->read_only && (more = cow_op_read(volume, place_step, &args)) != 0) {
		if (more < 0)
			return more;
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* ------------------------------------------------------------------ commit */

static int commit_once(struct cow_volume *volume, int (*hook)(void *context), void *hook_context)
{
	int error = cow_volume_place(volume, PLACE_REST);

	if (error == COW_ERR_DAMAGED || error == -EIO) /* where the writer saw none: what he wrote has no place */
		return cow_store_fail(volume->store, error, "commit");
	return error == 0 ? cow_store_commit(volume->store, hook, hook_context) : error;
}

int cow_volume_prepare(struct cow_volume *volume, uint64_t blocks)
{
	struct cow_store *store = volume->store;
	int error = cow_counts_prepare(store->counts, blocks);

	if (error != -ENOSPC)
		return error;
	while (cow_store_trim(store, COW_TRIM_UNSURE))
		;
	return cow_counts_prepare(store->counts, blocks);
}

/* A host that was full may have space again: it is asked before anybody is told that it has none. */
static int ask_host(struct cow_volume *volume)
{
	struct cow_store *store = volume->store;
	uint64_t blocks;

	pthread_mutex_lock(&store->lock);
	blocks = cow_store_due(store) + volume->node_limit / 2;
	pthread_mutex_unlock(&store->lock);
	return cow_volume_prepare(volume, blocks);
}

int cow_volume_commit(struct cow_volume *volume, int (*hook)(void *context), void *hook_context)
{
	int error = commit_once(volume, hook, hook_context);

	if (error == -ENOSPC && volume->store->failed == 0 && ask_host(volume) == 0)
		error = commit_once(volume, hook, hook_context);
	pthread_mutex_lock(&volume->store->lock);
	volume->commit_error = error;
	pthread_cond_broadcast(&volume->done);
	pthread_mutex_unlock(&volume->store->lock);
	return error;
}

void cow_volume_wake(struct cow_volume *volume, bool urgent)
{
	if (urgent)
		volume->urgent = true;
	if (volume->running)
		pthread_cond_signal(&volume->wake);
}

uint64_t cow_volume_reserve_blocks(const struct cow_volume *volume)
{
	return 2 * volume->node_limit + LEAST_RESERVE;
}

uint64_t cow_volume_spare_blocks(const struct cow_volume *volume)
{
	uint64_t all = cow_store_unpromised(volume->store),
		 rest = volume->begun_blocks + ROOM_FOR_STEP + 3 * volume->node_limit / 4;

	return all > rest ? all - rest : 0;
}

int cow_sync(struct cow_volume *volume)
{
	return volume->store->read_only && volume->store->failed == 0 ? 0 : cow_volume_commit(volume, NULL, NULL);
}

/* ------------------------------------------------------------------ reclaim */

bool cow_volume_is_late(const struct timespec *until)
{
	struct timespec now;

	if (until == NULL)
		return false;
	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec != until->tv_sec ? now.tv_sec > until->tv_sec : now.tv_nsec > until->tv_nsec;
}

static int reclaim_batch(struct cow_op *op, uint64_t *left)
{
	for (unsigned i = 0; i < RECLAIM_BATCH && *left > 0; i++) {
		int done = cow_reclaim_step(op->store);
		if (done <= 0)
			return done;
		--*left;
	}
	return 1;
}

static int sweep_rows(struct cow_op *op, void *v)
{
	return cow_number_may_sweep(op->volume) ? cow_number_sweep(op->volume, v) : 0;
}

/* What is damaged stays; it must not keep the rest from being given back, nor the volume from being written. */
int cow_volume_reclaim_some(struct cow_volume *volume, uint64_t *steps)
{
	struct cow_op op;
	uint64_t trying;
	int more;

	cow_op_begin_read(&op, volume);
	do {
		more = op.store->read_only ? 0 : reclaim_batch(&op, steps);
		trying = op.store->reclaim_trying; /* others reclaim, too, when the lock is given up */
	} while (more == COW_MISS && (more = cow_op_fill(&op)) == 0);
	if (more < 0 && cow_reclaim_give_up(op.store, trying, more))
		more = 1;
	cow_op_end(&op);
	return more;
}

int cow_volume_reclaim(struct cow_volume *volume, uint64_t steps)
{
	uint64_t at = 0;
	bool rows = false;
	int more;

	if (volume->store->read_only)
		return 0;
	more = cow_purge_queued(volume, NULL);
	if (more == 0) {
		more = cow_op_read(volume, sweep_rows, &at);
		rows = more > 0;
		if (more == COW_ERR_DAMAGED || more == -EIO) { /* reported; rows that nobody needs take little */
			volume->rows_dropped = 0;
			more = 0;
		}
	}
	if (more < 0)
		return more;
	do
		more = cow_volume_reclaim_some(volume, &steps);
	while (more > 0 && steps > 0);
	return more == 0 ? rows : more;
}

static void trim_all(struct cow_volume *volume, enum cow_trim_which which)
{
	while (cow_store_trim(volume->store, which))
		;
}

static int reclaim_all(struct cow_volume *volume)
{
	int more, error;

	do {
		more = cow_volume_reclaim(volume, volume->node_limit);
		error = more < 0 ? more : cow_sync(volume);
	} while (error == 0 && more > 0);
	return error;
}

int cow_drain(struct cow_volume *volume)
{
	int more, error;

	do { /* the room that a purge needs may have to be reclaimed first */
		error = reclaim_all(volume);
		if (error != 0)
			return error;
		more = volume->store->read_only ? 0 : cow_purge_all(volume);
	} while (more > 0);
	error = more < 0 ? more : reclaim_all(volume);
	trim_all(volume, COW_TRIM_ALL);
	return error;
}

/* ------------------------------------------------------------------ thread */

bool cow_volume_has_garbage(const struct cow_volume *volume)
{
	const struct cow_store *store = volume->store;

	return store->reclaim_count > store->held.count || volume->purge_count > 0;
}

/* [locked] Until it is time to commit, or somebody asks, or there is something to reclaim; if the last commit had no
 * space, for a while in any case. */
static void wait_for_work(struct cow_volume *volume)
{
	bool stuck = volume->commit_error != 0;

	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += stuck ? 1 : volume->options.commit_seconds;
	while (!volume->stop && (stuck || (!volume->urgent && !cow_volume_has_garbage(volume))))
		if (pthread_cond_timedwait(&volume->wake, &volume->store->lock, &until) == ETIMEDOUT)
			break;
}

static void *commit_thread(void *v)
{
	struct cow_volume *volume = v;
	struct cow_store *store = volume->store;
	uint64_t changes;
	bool waited;
	int more = 0;

	pthread_mutex_lock(&store->lock);
	while (!volume->stop && store->failed == 0) {
		waited = more == 0 || volume->commit_error != 0;
		if (waited)
			wait_for_work(volume);
		volume->urgent = false;
		changes = store->durable_changes;
		pthread_mutex_unlock(&store->lock);
		more = cow_volume_reclaim(volume, volume->node_limit / 2);
		if (more < 0 && more != -ENOSPC)
			cow_store_fail(store, more, "reclaim");
		else /* a failure has been reported, and ends the loop; without space it tries again later */
			(void)!cow_volume_commit(volume, NULL, NULL);
		cow_pool_trim(&volume->pool);
		pthread_mutex_lock(&store->lock);
		if (more == 0 && volume->commit_error == 0 && changes == store->durable_changes) { /* nothing to do */
			pthread_mutex_unlock(&store->lock);
			if (waited)
				cow_store_age(store);
			more = cow_store_trim(store, COW_TRIM_OLD);
			pthread_mutex_lock(&store->lock);
		}
	}
	volume->running = false;
	pthread_cond_broadcast(&volume->done);
	pthread_mutex_unlock(&store->lock);
	return NULL;
}

static int start_thread(struct cow_volume *volume)
{
	int error;

	if (volume->options.no_threads || volume->store->read_only)
		return 0;
	volume->running = true;
	error = pthread_create(&volume->thread, NULL, commit_thread, volume);
	if (error != 0)
		volume->running = false;
	else
		volume->has_thread = true;
	return -error;
}

static void stop_thread(struct cow_volume *volume)
{
	if (!volume->has_thread)
		return;
	pthread_mutex_lock(&volume->store->lock);
	volume->stop = true;
	pthread_cond_signal(&volume->wake);
	pthread_mutex_unlock(&volume->store->lock);
	pthread_join(volume->thread, NULL);
	volume->has_thread = false;
}

/* ------------------------------------------------------------------ open and close */

static void free_volume(struct cow_volume *volume)
{
	cow_notes_forget(volume);
	while (volume->all != NULL)
		cow_inode_destroy(volume->all);
	cow_pages_free(volume, &volume->flight.small);
	cow_pages_free(volume, &volume->flight.large);
	cow_pool_destroy(&volume->pool);
	cow_number_forget(volume);
	free(volume->log_buffer.bytes);
	free(volume->purge);
	if (volume->store != NULL)
		cow_store_close(volume->store);
	pthread_cond_destroy(&volume->wake);
	pthread_cond_destroy(&volume->done);
	pthread_mutex_destroy(&volume->log);
	pthread_mutex_destroy(&volume->told_lock);
	cow_dev_close(volume->dev);
	if (volume->below != NULL)
		cow_dev_close(volume->below);
	free(volume);
}

static int load_root(struct cow_op *op, void *v)
{
	struct cow_volume *volume = v;
	struct cow_dirent entry;
	struct cow_record record;
	struct cow_item item;
	int error = cow_tree_get(op->store, &op->store->roots[COW_ROOT_TOP], COW_KEY_FIRST, &item);

	if (error == -ENOENT)
		return COW_ERR_DAMAGED;
	if (error == 0)
		error = cow_dirent_decode(item.value, item.length, &entry);
	if (error == 0)
		error = entry.is_link ? COW_ERR_DAMAGED
				      : cow_record_decode(entry.record.bytes, entry.record.length, 0, &record);
	if (error != 0)
		return error;
	if (!S_ISDIR(record.mode) || !record.is_world)
		return COW_ERR_DAMAGED;
	volume->root = cow_inode_new(volume, COW_EMBEDDED, NULL, COW_KEY_FIRST, &record);
	volume->root->coloured = true;
	cow_inode_get(volume->root);
	return 0;
}

static int drop_orphans(struct cow_op *op, void *v)
{
	(void)v;
	return cow_orphan_drop_all(op->volume);
}

/* The whole tree of orphans goes to reclaim, which gives back what of it can be read; a new one begins. */
static int give_orphans_up(struct cow_op *op, void *v)
{
	int error = cow_reclaim_reserve(op->store);

	(void)v;
	if (error == 0)
		cow_tree_drop(op->store, &op->store->roots[COW_ROOT_ORPHANS]);
	return error;
}

static int read_orphans(struct cow_op *op, void *v)
{
	struct cow_item item;
	uint64_t key = 0;
	int error;

	(void)v;
	while ((error = cow_tree_next(op->store, &op->store->roots[COW_ROOT_ORPHANS], key, &item)) == 0)
		key = item.key + 1;
	return error == -ENOENT ? 0 : error;
}

/* Reads or drops all of them; if they cannot be read, they are set aside: every name that is made needs the tree. */
static int with_orphans(struct cow_volume *volume, cow_op_fn fn)
{
	int error = cow_op_read(volume, fn, NULL);

	if (error != COW_ERR_DAMAGED && error != -EIO)
		return error;
	if (volume->store->read_only) /* the counts: that has been said */
		return 0;
	cow_volume_log(volume, COW_LOG_WARNING,
		       "removed files that were open at a crash are damaged: their space is given back as far as "
		       "it can be read; run cow check");
	error = cow_op_read(volume, give_orphans_up, NULL);
	return volume->store->read_only ? 0 : error;
}

static bool kinds_are_right(const struct cow_store *store)
{
	return store->roots[COW_ROOT_TOP].kind == COW_KIND_DIR && store->roots[COW_ROOT_ORPHANS].kind == COW_KIND_DIR &&
	       store->roots[COW_ROOT_NUMBERS].kind == COW_KIND_NUMBERS;
}

static void set_limits(struct cow_volume *volume)
{
	uint64_t blocks = volume->store->super.total_blocks / 128;

	volume->node_limit = blocks < 256 ? blocks < 32 ? 32 : blocks : blocks > 8192 ? 8192 : blocks;
	volume->dirty_limit =
		(volume->options.dirty_bytes != 0 ? volume->options.dirty_bytes : DEFAULT_DIRTY_BYTES) / COW_BLOCK;
	if (volume->dirty_limit < 16)
		volume->dirty_limit = 16;
	volume->store->reserve = cow_volume_reserve_blocks(volume);
	volume->commit_pages = volume->dirty_limit / 2 < COMMIT_PAGES ? volume->dirty_limit / 2 : COMMIT_PAGES;
	if (volume->options.commit_seconds == 0)
		volume->options.commit_seconds = DEFAULT_COMMIT_SECONDS;
}

/* Brings what the log holds into the volume, and makes it a commit. */
static int replay_log(struct cow_volume *volume)
{
	struct cow_store *store = volume->store;
	uint64_t count = 0, end = store->super.log.position;
	int error = cow_replay(volume, &count, &end);

	if (error == COW_ERR_DAMAGED)
		cow_volume_log(volume, COW_LOG_ERROR, "the intent log does not fit the volume: nothing was changed; "
			       "run cow check --repair, which drops it");
	if (error != 0 || end == store->super.log.position)
		return error;
	pthread_mutex_lock(&store->lock);
	store->log.head = end; /* the old records stay until a superblock says that they are void */
	store->changes++;
	pthread_mutex_unlock(&store->lock);
	error = cow_volume_commit(volume, NULL, NULL);
	if (error == 0)
		cow_volume_log(volume, COW_LOG_INFO, "the intent log was replayed: %llu operations",
			       (unsigned long long)count);
	return error;
}

/* What cannot be written, for it is damaged, cannot be replayed either. */
static void tell_unreplayed(struct cow_volume *volume)
{
	bool needed = false;

	if (cow_replay_needed(volume->dev, &volume->store->super, &needed) == 0 && needed)
		cow_volume_log(volume, COW_LOG_ERROR,
			       "the intent log cannot be replayed: what fsync has promised since the last commit is "
			       "not shown; run cow check --repair");
}

/* Whoever must not change the volume replays its log in memory. */
static int prepare_dev(struct cow_volume *volume, bool *overlaid)
{
	struct cow_super super;
	bool decayed, needed = false;
	int error;

	*overlaid = false;
	if (!volume->options.read_only || cow_super_read(volume->dev, &super, &decayed) != 0 || decayed)
		return 0; /* what is wrong will be said by the opening */
	error = cow_replay_needed(volume->dev, &super, &needed);
	if (error == -EIO) {
		cow_volume_log(volume, COW_LOG_ERROR, "the intent log cannot be read: this is generation %llu, without "
			       "what was synced after it", (unsigned long long)super.generation);
		return 0;
	}
	if (error == 0 && needed) {
		volume->below = volume->dev;
		volume->dev = cow_overlay_new(volume->below);
		*overlaid = true;
	}
	return error;
}

static void start_notes(struct cow_volume *volume)
{
	const struct cow_log *log = &volume->store->log;

	if (log->blocks != 0 && !volume->store->read_only)
		cow_notes_start(volume,
				(size_t)(log->blocks < NOTED_BLOCKS ? log->blocks : NOTED_BLOCKS) * COW_BLOCK / 4);
}

int cow_volume_open(struct cow_dev *dev, const struct cow_open_options *options, struct cow_volume **out)
{
	struct cow_volume *volume = cow_mem_new(sizeof(*volume));
	bool overlaid = false;
	int error;

	if (options != NULL)
		volume->options = *options;
	volume->dev = dev;
	volume->removals = 1;
	volume->purged.changes = UINT64_MAX;
	pthread_cond_init(&volume->wake, NULL);
	pthread_cond_init(&volume->done, NULL);
	pthread_mutex_init(&volume->log, NULL);
	pthread_mutex_init(&volume->told_lock, NULL);
	cow_pool_init(&volume->pool);
	error = prepare_dev(volume, &overlaid);
	if (error != 0)
		goto fail;
	error = cow_store_open(volume->dev, volume->options.read_only && !overlaid,
			       volume->options.cache_bytes != 0 ? volume->options.cache_bytes : DEFAULT_CACHE_BYTES,
			       &store_ops, volume, &volume->store);
	if (error != 0)
		goto fail;
	set_limits(volume);
	counters_decode(volume->store->super.user, &volume->counters);
	error = kinds_are_right(volume->store) && counters_valid(&volume->counters)
			? cow_op_read(volume, load_root, volume) : COW_ERR_DAMAGED;
	if (error == 0 && !volume->store->read_only)
		error = with_orphans(volume, read_orphans);
	if (error == 0 && !volume->store->read_only)
		error = replay_log(volume);
	else if (error == 0)
		tell_unreplayed(volume);
	if (overlaid)
		volume->store->read_only = true;
	if (error == 0 && !volume->store->read_only)
		error = with_orphans(volume, drop_orphans);
	if (error != 0)
		goto fail;
	start_notes(volume);
	error = start_thread(volume);
	if (error != 0)
		goto fail;
	*out = volume;
	return 0;
fail:
	free_volume(volume);
	return error;
}

int cow_open(const char *path, const struct cow_open_options *options, struct cow_volume **volume)
{
	bool read_only = options != NULL && options->read_only;
	struct cow_dev *dev;
	int error = cow_dev_file_open(path, read_only ? COW_DEV_READ : COW_DEV_WRITE, &dev);

	if (error != 0)
		return error == -EBUSY ? COW_ERR_BUSY : error;
	return cow_volume_open(dev, options, volume);
}

int cow_close(struct cow_volume *volume)
{
	int error;

	stop_thread(volume);
	error = cow_sync(volume);
	trim_all(volume, COW_TRIM_LAST);
	free_volume(volume);
	return error;
}

void cow_volume_abandon(struct cow_volume *volume)
{
	stop_thread(volume);
	free_volume(volume);
}

/* ------------------------------------------------------------------ format */

static int fill_root(struct cow_store *store, const struct cow_format_options *options)
{
	struct cow_record r = {.mode = S_IFDIR | 0755, .uid = options->root_uid, .gid = options->root_gid,
			       .number = ROOT_NUMBER, .body = COW_BODY_DIR, .is_world = true};
	uint8_t bytes[COW_VALUE_MAX];
	struct timespec now;
	int error;

	clock_gettime(CLOCK_REALTIME, &now);
	r.atime = r.mtime = r.ctime = r.btime = cow_when_of(&now);
	pthread_mutex_lock(&store->lock);
	error = cow_tree_put(store, &store->roots[COW_ROOT_TOP], COW_KEY_FIRST, bytes,
			     cow_dirent_encode_record((struct cow_slice){NULL, 0}, &r, bytes));
	store->changes++;
	pthread_mutex_unlock(&store->lock);
	return error;
}

/* Each block of the ring has a count, as if a pointer led to it. */
static void claim_log(struct cow_store *store)
{
	const struct cow_log_root *log = &store->super.log;

	pthread_mutex_lock(&store->lock);
	for (uint32_t i = 0; i < log->blocks; i++)
		cow_counts_add(store->counts, cow_layout_ring(log->start, i), 1, 1);
	store->changes++;
	pthread_mutex_unlock(&store->lock);
}

static int nothing(void *context)
{
	(void)context;
	return 0;
}

static void no_translate(void *context)
{
	(void)context;
}

static void keep_user(void *context, uint8_t user[COW_SUPER_USER])
{
	memcpy(user, ((struct cow_super *)context)->user, COW_SUPER_USER);
}

static void no_log(void *context, int level, const char *text)
{
	(void)context, (void)level, (void)text;
}

int cow_volume_format(struct cow_dev *dev, const struct cow_format_options *options)
{
	static const uint8_t no_uuid[16];
	struct cow_store_ops ops = {.validate = cow_value_validate, .claims = cow_value_claims, .fold = nothing,
				    .translate = no_translate, .user = keep_user, .sealed = no_translate,
				    .write_data = nothing,
				    .durable = no_translate, .log = no_log};
	struct cow_counters counters = {.number = ROOT_NUMBER + 1, .colour = 1};
	struct cow_super super = {.total_blocks = cow_layout_round(dev->size_bytes >> COW_BLOCK_SHIFT)};
	struct cow_store *store;
	int error;

	if (super.total_blocks < COW_VOLUME_BLOCKS_MIN || super.total_blocks > COW_VOLUME_BLOCKS_MAX)
		return COW_ERR_SIZE;
	/* Who names a uuid wants an image that can be made again; else nobody is to know how names are hashed. */
	memcpy(super.uuid, options->uuid, sizeof(super.uuid));
	memcpy(counters.hash_key, options->uuid, sizeof(counters.hash_key));
	if (memcmp(super.uuid, no_uuid, sizeof(no_uuid)) == 0 &&
	    (getrandom(counters.hash_key, sizeof(counters.hash_key), 0) != (ssize_t)sizeof(counters.hash_key) ||
	     getrandom(super.uuid, sizeof(super.uuid), 0) != (ssize_t)sizeof(super.uuid)))
		return -EIO;
	counters_encode(&counters, super.user);
	super.root_kinds[COW_ROOT_RECLAIM] = COW_KIND_RECLAIM;
	super.root_kinds[COW_ROOT_TOP] = super.root_kinds[COW_ROOT_ORPHANS] = COW_KIND_DIR;
	super.root_kinds[COW_ROOT_NUMBERS] = COW_KIND_NUMBERS;
	cow_log_plan(super.total_blocks, &super.log);
	super.incompat = COW_INCOMPAT_LOG;
	error = cow_store_format(dev, &super);
	if (error == 0)
		error = cow_store_open(dev, false, DEFAULT_CACHE_BYTES, &ops, &super, &store);
	if (error != 0)
		return error;
	claim_log(store);
	error = cow_store_commit(store, NULL, NULL);
	if (error == 0)
		error = fill_root(store, options);
	if (error == 0)
		error = cow_store_commit(store, NULL, NULL);
	cow_store_close(store);
	return error == 0 ? cow_dev_flush(dev) : error;
}

/* Anything in the first 64 KiB? A file system's superblock is there, or the head of some other file. */
static int has_data(struct cow_dev *dev)
{
	static const size_t length = 65536;
	uint8_t *bytes = malloc(length);
	int error;

	if (bytes == NULL)
		return -ENOMEM;
	error = cow_dev_read(dev, bytes, length, 0);
	for (size_t i = 0; i < length && error == 0; i++)
		if (bytes[i] != 0)
			error = COW_ERR_EXISTS;
	free(bytes);
	return error;
}

int cow_format(const char *path, const struct cow_format_options *options)
{
	uint64_t size = options->size_bytes / COW_BLOCK * COW_BLOCK;
	struct cow_dev *dev;
	int error = cow_dev_file_open(path, COW_DEV_CREATE, &dev);

	if (error != 0)
		return error == -EBUSY ? COW_ERR_BUSY : error;
	if (size == 0)
		size = cow_dev_file_is_block(dev) ? dev->size_bytes / COW_BLOCK * COW_BLOCK : DEFAULT_IMAGE_BYTES;
	if (size < COW_VOLUME_BLOCKS_MIN * COW_BLOCK || size > COW_VOLUME_BLOCKS_MAX * COW_BLOCK)
		error = COW_ERR_SIZE;
	if (error == 0 && !options->force)
		error = has_data(dev);
	if (error == 0)
		error = cow_dev_file_resize(dev, size);
	if (error == 0)
		error = cow_volume_format(dev, options);
	cow_dev_close(dev);
	return error;
}

/* ------------------------------------------------------------------ facts */

/* [locked] */
static void tell(const struct cow_volume *volume, struct cow_info *info)
{
	const struct cow_store *store = volume->store;

	*info = (struct cow_info){
		.format_version = store->super.version,
		.read_only = store->read_only,
		.generation = store->super.generation,
		.total_blocks = store->super.total_blocks,
		.free_blocks = cow_space_free(volume),
		.reserved_blocks = cow_volume_reserve_blocks(volume),
		.system_blocks = cow_counts_system(store->counts) + store->log.blocks,
		.reclaim_entries = store->reclaim_count,
		.files = volume->root->totals.files + volume->root->link_files,
		.directories = volume->root->totals.dirs,
		.cache_bytes = store->clean_nodes * COW_BLOCK,
		.dirty_bytes = store->dirty_pages * COW_BLOCK,
	};
	memcpy(info->uuid, store->super.uuid, sizeof(info->uuid));
}

static bool tell_quickly(struct cow_volume *volume, struct cow_info *info)
{
	bool quick;

	pthread_mutex_lock(&volume->store->lock);
	quick = cow_space_is_settled(volume);
	if (quick && info != NULL)
		tell(volume, info);
	pthread_mutex_unlock(&volume->store->lock);
	return quick;
}

int cow_info(struct cow_volume *volume, struct cow_info *info)
{
	struct cow_op op;

	if (tell_quickly(volume, info))
		return 0;
	(void)cow_space_settle(volume);
	cow_op_begin_read(&op, volume);
	cow_space_finish(&op);
	tell(volume, info);
	cow_op_end(&op);
	return 0;
}

bool cow_info_is_quick(struct cow_volume *volume)
{
	return tell_quickly(volume, NULL);
}
