/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "cowfs/caller.h"
#include "cowfs/results.h"
#include "cowfs/scrub.h"

/* Nobody has looked for so long: whoever began it was killed. */
#define LOOK_SECONDS 60
/* Findings are kept as text up to here; all are counted. */
#define TEXT_MAX ((size_t)64 << 20)

struct cowfs_scrub {
	struct cowfs *fs;
	pthread_mutex_t lock;
	/* all below: lock */
	pthread_t thread;
	bool has_thread, running, stop;
	uint64_t run; /* number of the last one */
	uint64_t bytes_per_second;
	time_t looked;
	struct cow_scrub_result so_far;
	int error;
	struct cowfs_text text; /* findings as in cow_ioctl.h */
};

static time_t seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static void note(void *context, const struct cow_scrub_finding *finding)
{
	struct cowfs_scrub *scrub = context;
	size_t path = finding->path ? strlen(finding->path) : 0, text = strlen(finding->text);
	uint8_t *at = NULL;

	if (path > UINT16_MAX)
		path = UINT16_MAX;
	pthread_mutex_lock(&scrub->lock);
	if (scrub->text.length < TEXT_MAX)
		at = cowfs_text_grow(&scrub->text, COW_SCRUB_HEAD + path + text);
	if (at) {
		put64(at, finding->block);
		put64(at + 8, (uint64_t)finding->offset);
		put16(at + 16, (uint16_t)path);
		put16(at + 18, (uint16_t)text);
		put32(at + 20, 0);
		memcpy(at + COW_SCRUB_HEAD, finding->path ? finding->path : "", path);
		memcpy(at + COW_SCRUB_HEAD + path, finding->text, text);
	}
	pthread_mutex_unlock(&scrub->lock);
}

static int progress(void *context, const struct cow_scrub_result *so_far)
{
	struct cowfs_scrub *scrub = context;
	int result = 0;

	pthread_mutex_lock(&scrub->lock);
	scrub->so_far = *so_far;
	if (scrub->stop || atomic_load(&scrub->fs->ending) || seconds_now() - scrub->looked > LOOK_SECONDS)
		result = -EINTR;
	pthread_mutex_unlock(&scrub->lock);
	return result;
}

static void *run(void *context)
{
	struct cowfs_scrub *scrub = context;
	struct cow_scrub_options options = {
		.bytes_per_second = scrub->bytes_per_second, .finding = note, .progress = progress, .context = scrub,
	};
	struct cow_scrub_result result;
	int error = cow_scrub(scrub->fs->volume, &options, &result);

	pthread_mutex_lock(&scrub->lock);
	scrub->so_far = result;
	scrub->error = error;
	scrub->running = false;
	pthread_mutex_unlock(&scrub->lock);
	return NULL;
}

struct cowfs_scrub *cowfs_scrub_new(struct cowfs *fs)
{
	struct cowfs_scrub *scrub = calloc(1, sizeof(*scrub));

	if (!scrub)
		return NULL;
	scrub->fs = fs;
	pthread_mutex_init(&scrub->lock, NULL);
	return scrub;
}

void cowfs_scrub_free(struct cowfs_scrub *scrub)
{
	if (!scrub)
		return;
	pthread_mutex_lock(&scrub->lock);
	scrub->stop = true;
	pthread_mutex_unlock(&scrub->lock);
	if (scrub->has_thread)
		pthread_join(scrub->thread, NULL);
	free(scrub->text.bytes);
	pthread_mutex_destroy(&scrub->lock);
	free(scrub);
}

/* Signals are for the main thread only. */
static int start_locked(struct cowfs_scrub *scrub, const struct cow_ioc_scrub *ask)
{
	sigset_t all, before;
	int error;

	if (scrub->running)
		return -EBUSY;
	if (scrub->has_thread)
		pthread_join(scrub->thread, NULL); /* it has nothing to do any more but to end */
	free(scrub->text.bytes);
	scrub->text = (struct cowfs_text){0};
	scrub->so_far = (struct cow_scrub_result){0};
	scrub->bytes_per_second = ask->bytes_per_second;
	scrub->error = 0;
	scrub->stop = false;
	scrub->looked = seconds_now();
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&scrub->thread, NULL, run, scrub);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	scrub->has_thread = scrub->running = error == 0;
	scrub->run++;
	return -error;
}

static void look_locked(struct cowfs_scrub *scrub, struct cow_ioc_scrub *out)
{
	const struct cow_scrub_result *r = &scrub->so_far;
	size_t left = out->offset < scrub->text.length ? scrub->text.length - (size_t)out->offset : 0;

	scrub->looked = seconds_now();
	out->length = (uint32_t)(left < sizeof(out->data) ? left : sizeof(out->data));
	if (out->length)
		memcpy(out->data, scrub->text.bytes + out->offset, out->length);
	out->run = scrub->run;
	out->running = scrub->running;
	out->error = scrub->error ? -cow_error_errno(scrub->error) : 0;
	out->findings = r->findings;
	out->blocks = r->blocks;
	out->used_blocks = r->used_blocks;
	out->nodes = r->nodes;
	out->data_blocks = r->data_blocks;
	out->count_blocks = r->count_blocks;
	out->superblocks = r->superblocks;
}

static int act_locked(struct cowfs_scrub *scrub, const struct cow_ioc_scrub *ask)
{
	switch (ask->action) {
	case COW_SCRUB_START:
		return start_locked(scrub, ask);
	case COW_SCRUB_LOOK:
		return ask->run == scrub->run ? 0 : -ENOENT;
	case COW_SCRUB_STOP:
		scrub->stop = ask->run == scrub->run;
		return scrub->stop ? 0 : -ENOENT;
	default:
		return -EINVAL;
	}
}

void cowfs_scrub_ioctl(fuse_req_t req, const struct cow_ioc_scrub *ask)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_ioc_scrub *out = cowfs_buffer(fs, sizeof(*out));
	int result;

	if (!cowfs_caller_is_trusted(req)) {
		cowfs_reply(req, -EPERM);
		return;
	}
	if (!out) {
		cowfs_reply(req, -ENOMEM);
		return;
	}
	memset(out, 0, sizeof(*out));
	out->offset = ask->offset;
	pthread_mutex_lock(&fs->scrub->lock);
	result = act_locked(fs->scrub, ask);
	if (!result)
		look_locked(fs->scrub, out);
	pthread_mutex_unlock(&fs->scrub->lock);
	if (result)
		cowfs_reply(req, result);
	else
		fuse_reply_ioctl(req, 0, out, sizeof(*out));
}
