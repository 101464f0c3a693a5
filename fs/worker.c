/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/worker.h"

#include <errno.h>
#include <time.h>

#include "fs/commit/commit.h"
#include "fs/reclaim/reclaim.h"

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

int cow_worker_start(struct cow_volume *volume)
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

void cow_worker_stop(struct cow_volume *volume)
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
