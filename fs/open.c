/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/open.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "dev/dev_overlay.h"
#include "fs/commit/commit.h"
#include "fs/core/reservation.h"
#include "fs/data/pages.h"
#include "fs/replay.h"
#include "fs/worker.h"
#include "fs/world/inode_number.h"
#include "fs/world/orphan.h"

#define DEFAULT_CACHE_BYTES (256ull << 20)
#define DEFAULT_DIRTY_BYTES (256ull << 20)
/* 128 MiB keep the disk busy. To buffer more only takes memory, which costs as much to touch at first as to write. */
#define COMMIT_PAGES (32u << 10)
#define DEFAULT_COMMIT_SECONDS 5
#define NOTED_BLOCKS 8192u   /* of the ring, when it is larger: a quarter of so much may be noted, 8 MiB */

static void free_volume(struct cow_volume *volume)
{
	cow_notes_forget(volume);
	while (volume->all != NULL) {
		cow_pages_drop(volume->all, 0, UINT64_MAX);
		cow_inode_destroy(volume->all);
	}
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

	if (!cow_is_damage(error))
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
	volume->store->reserve = cow_reservation_left(volume, COW_FOR_CHANGE);
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
			       &cow_commit_ops, volume, &volume->store);
	if (error != 0)
		goto fail;
	set_limits(volume);
	cow_counters_decode(volume->store->super.user, &volume->counters);
	error = kinds_are_right(volume->store) && cow_counters_valid(&volume->counters)
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
	error = cow_worker_start(volume);
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

	cow_worker_stop(volume);
	error = cow_sync(volume);
	while (cow_store_trim(volume->store, COW_TRIM_LAST))
		;
	free_volume(volume);
	return error;
}

void cow_volume_abandon(struct cow_volume *volume)
{
	cow_worker_stop(volume);
	free_volume(volume);
}
