/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/core/volume.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

/* 128 MiB keep the disk busy. To buffer more only takes memory, which costs as much to touch at first as to write. */
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

/* ------------------------------------------------------------------ commit */

void cow_volume_wake(struct cow_volume *volume, bool urgent)
{
	if (urgent)
		volume->urgent = true;
	if (volume->running)
		pthread_cond_signal(&volume->wake);
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

/* ------------------------------------------------------------------ thread */

bool cow_volume_has_garbage(const struct cow_volume *volume)
{
	const struct cow_store *store = volume->store;

	return store->reclaim_count > store->held.count || volume->purge_count > 0;
}
