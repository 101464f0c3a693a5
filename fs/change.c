/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/change.h"

#include <errno.h>

#include "fs/commit/commit.h"
#include "fs/core/reservation.h"
#include "fs/reclaim/purge.h"
#include "fs/reclaim/reclaim.h"

/* Steps of reclaim between two looks at the space, when it is short. */
#define SHORT_STEPS 4096u
/* A change of a little data: 64 KiB. */
#define SMALL_BLOCKS (COW_WORST_PATH + 18u)

/* What one change needs, in blocks. */
struct need {
	uint64_t blocks;
	bool data; /* it will buffer file data */
	enum cow_purpose purpose;
};

/* [locked] */
static bool is_over_caps(const struct cow_volume *volume, const struct need *need)
{
	const struct cow_store *store = volume->store;
	uint64_t limit = volume->dirty_limit, in_flight = volume->flight.small.count + volume->flight.large.count;

	/* Who writes much, faster than the buffers are written out, does not hold up who writes a little. */
	if (need->blocks <= SMALL_BLOCKS)
		limit += limit / 4;
	if (need->data && (store->dirty_pages >= limit || store->dirty_pages + in_flight >= 2 * limit))
		return true;
	return store->dirty_nodes >= 2 * volume->node_limit;
}

/* [locked] */
static bool has_host_room(const struct cow_volume *volume, uint64_t blocks)
{
	const struct cow_store *store = volume->store;

	return cow_counts_ready(store->counts) >= blocks + cow_store_due(store);
}

/* Waits until the buffers have room: with a thread for its commit, without one by committing here. */
static int throttle(struct cow_volume *volume, const struct need *need)
{
	struct cow_store *store = volume->store;
	int error = 0;

	pthread_mutex_lock(&store->lock);
	while (is_over_caps(volume, need) && store->failed == 0 && error == 0) {
		if (volume->running) {
			cow_volume_wake(volume, true);
			pthread_cond_wait(&volume->done, &store->lock);
			error = volume->commit_error;
		} else {
			pthread_mutex_unlock(&store->lock);
			error = cow_volume_commit(volume, NULL, NULL);
			pthread_mutex_lock(&store->lock);
		}
	}
	pthread_mutex_unlock(&store->lock);
	return error;
}

static bool found_room(struct cow_volume *volume, const struct need *need)
{
	bool room;

	pthread_mutex_lock(&volume->store->lock);
	room = cow_reservation_has(volume, need->purpose, need->blocks);
	pthread_mutex_unlock(&volume->store->lock);
	return room;
}

static int ask_host(struct cow_volume *volume, uint64_t blocks)
{
	struct cow_store *store = volume->store;

	pthread_mutex_lock(&store->lock);
	if (has_host_room(volume, blocks))
		blocks = 0;
	else
		blocks += cow_store_due(store);
	pthread_mutex_unlock(&store->lock);
	return blocks == 0 ? 0 : cow_volume_prepare(volume, blocks);
}

/* So many blocks beside those that what is dirty will take, which is known only when it has been written. */
static int ensure_on_host(struct cow_volume *volume, uint64_t blocks)
{
	int error = ask_host(volume, blocks);

	if (error == -ENOSPC && cow_volume_commit(volume, NULL, NULL) == 0)
		error = ask_host(volume, blocks);
	return error;
}

/* Once for each state of the volume, unless there is more room than then: who tries again and again on a full one
 * should not wait for it each time. */
static int purge(struct cow_volume *volume)
{
	struct cow_store *store = volume->store;
	struct cow_purged now;
	int more;

	pthread_mutex_lock(&store->lock);
	now = (struct cow_purged){volume->changes, cow_store_unpromised(store)};
	more = now.changes != volume->purged.changes || now.room > volume->purged.room;
	pthread_mutex_unlock(&store->lock);
	if (more == 0)
		return 0;
	more = cow_purge_all(volume);
	pthread_mutex_lock(&store->lock);
	if (more == 0)
		volume->purged = now;
	pthread_mutex_unlock(&store->lock);
	return more;
}

/* Space that was freed but not yet committed, or not yet reclaimed, comes back before anybody is told ENOSPC. */
static int find_room(struct cow_volume *volume, const struct need *need)
{
	bool purged = false;
	int error, more = 1;

	/* on a host that is full only what it has given counts: it may have space again, or more in other places */
	if (!found_room(volume, need))
		(void)!ensure_on_host(volume, need->blocks + cow_reservation_left(volume, need->purpose));
	if (!found_room(volume, need)) /* blocks that are being given back to the host are not available */
		cow_store_wait(volume->store);
	while (!found_room(volume, need)) {
		if (more == 0)
			return -ENOSPC;
		error = cow_volume_commit(volume, NULL, NULL);
		if (error != 0)
			return error;
		if (found_room(volume, need))
			return 0;
		more = cow_volume_reclaim(volume, SHORT_STEPS);
		if (more == 0 && !purged) { /* the last that can be found, and the dearest */
			more = purge(volume);
			purged = more == 0;
			more = more < 0 ? more : 1;
		}
		if (more < 0)
			return more;
		error = cow_volume_commit(volume, NULL, NULL);
		if (error != 0)
			return error;
	}
	return 0;
}

/* [locked] Nearly always true at once. */
static bool may_begin(struct cow_volume *volume, const struct need *need)
{
	const struct cow_store *store = volume->store;

	if (volume->replaying) /* all of it becomes one commit, and had its room when it was done first */
		return true;
	if (!volume->urgent &&
	    (store->dirty_pages >= volume->commit_pages || store->dirty_nodes >= volume->node_limit))
		cow_volume_wake(volume, true);
	return !is_over_caps(volume, need) && cow_reservation_has(volume, need->purpose, need->blocks) &&
	       has_host_room(volume, cow_reservation_on_host(volume, need->purpose, need->blocks));
}

/* `way`: blocks more, for a long one. */
static int begin_change(struct cow_op *op, struct cow_volume *volume, uint64_t data_bytes, bool frees, uint64_t way)
{
	uint64_t blocks = data_bytes / COW_BLOCK + (data_bytes != 0 ? 2 : 0);
	struct need need = {blocks + blocks / 32 + COW_WORST_PATH + way, data_bytes != 0,
			    frees ? COW_FOR_REMOVAL : COW_FOR_CHANGE};
	int error;

	for (;;) {
		cow_op_begin_read(op, volume);
		if (op->store->read_only || may_begin(volume, &need))
			break;
		cow_op_end(op);
		error = throttle(volume, &need);
		if (error == 0)
			error = find_room(volume, &need);
		if (error == 0)
			error = ensure_on_host(volume, cow_reservation_on_host(volume, need.purpose, need.blocks));
		if (error != 0)
			return error;
	}
	if (op->store->read_only) {
		cow_op_end(op);
		return -EROFS;
	}
	op->store->changes++;
	volume->changes++;
	op->changes = true;
	cow_reservation_take(op, need.purpose, need.blocks - way);
	return 0;
}

int cow_op_begin_change(struct cow_op *op, struct cow_volume *volume, uint64_t data_bytes, bool frees)
{
	return begin_change(op, volume, data_bytes, frees, 0);
}

int cow_op_change(struct cow_volume *volume, uint64_t data_bytes, bool frees, cow_op_fn body, void *args)
{
	struct cow_op op;
	uint64_t way = 0;
	int error;

	for (;;) {
		error = begin_change(&op, volume, data_bytes, frees, way);
		if (error == 0)
			error = cow_op_run(&op, body, args);
		else
			op.reservation.missing = 0;
		if (error != -ENOSPC || op.reservation.missing == 0)
			return error;
		/* at the least; how many it will be is known when they have been taken */
		way = op.reservation.missing > 2 * way ? op.reservation.missing : 2 * way;
	}
}
