/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The pace of a scrub, and what it says. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "base/mem.h"
#include "cow.h"
#include "fs/core/volume.h"
#include "fs/view/scrub.h"

#define SEEN_BLOCKS 32768u /* bits in one chunk of the map */
#define PROGRESS_NANOSECONDS 100000000l
#define LOGGED_MAX 100u

bool cow_scrub_see(struct cow_scrub *s, uint64_t block)
{
	uint8_t *bits = cow_map_get(&s->seen, block / SEEN_BLOCKS), bit = (uint8_t)(1u << block % 8);
	uint64_t at = block % SEEN_BLOCKS / 8;

	if (bits == NULL) {
		bits = cow_mem_new(SEEN_BLOCKS / 8);
		cow_map_put(&s->seen, block / SEEN_BLOCKS, bits);
	}
	if ((bits[at] & bit) != 0)
		return true;
	bits[at] |= bit;
	return false;
}

int64_t cow_scrub_nanoseconds(const struct timespec *a, const struct timespec *b)
{
	return (int64_t)(b->tv_sec - a->tv_sec) * 1000000000 + (b->tv_nsec - a->tv_nsec);
}

static void add_nanoseconds(struct timespec *t, uint64_t n)
{
	n += (uint64_t)t->tv_nsec;
	t->tv_sec += (time_t)(n / 1000000000);
	t->tv_nsec = (long)(n % 1000000000);
}

static void tell_progress(struct cow_scrub *s, const struct timespec *now)
{
	if (s->options->progress == NULL || s->stop != 0 || cow_scrub_nanoseconds(&s->told, now) < PROGRESS_NANOSECONDS)
		return;
	s->told = *now;
	s->stop = s->options->progress(s->options->context, s->result);
}

void cow_scrub_pace(struct cow_scrub *s, uint64_t blocks)
{
	uint64_t rate = s->options->bytes_per_second;
	struct timespec now;
	int64_t wait;

	s->result->blocks += blocks;
	clock_gettime(CLOCK_MONOTONIC, &now);
	tell_progress(s, &now);
	if (rate == 0)
		return;
	if (cow_scrub_nanoseconds(&s->due, &now) > PROGRESS_NANOSECONDS)
		s->due = now; /* what was not used is not saved up */
	add_nanoseconds(&s->due, (uint64_t)((double)(blocks * COW_BLOCK) * 1e9 / (double)rate));
	while (s->stop == 0 && (wait = cow_scrub_nanoseconds(&now, &s->due)) > 0) {
		struct timespec pause = {.tv_nsec = wait < PROGRESS_NANOSECONDS ? (long)wait : PROGRESS_NANOSECONDS};
		nanosleep(&pause, NULL);
		clock_gettime(CLOCK_MONOTONIC, &now);
		tell_progress(s, &now);
	}
}

void cow_scrub_tell(struct cow_scrub *s, uint64_t block, int64_t offset, const char *what, const char *wrong)
{
	char text[200];
	const char *path = s->nameless ? NULL : s->path[0] != 0 ? s->path : "/";
	struct cow_scrub_finding finding = {.block = block, .path = path, .offset = offset, .text = text};

	s->result->findings++;
	snprintf(text, sizeof(text), "%s: %s", what, wrong);
	if (s->result->findings <= LOGGED_MAX)
		cow_volume_log(s->volume, COW_LOG_ERROR, "scrub: block %" PRIu64 ": %s%s%.300s", block, text,
			       path != NULL ? ": " : "", path != NULL ? path : "");
	if (s->options->finding != NULL)
		s->options->finding(s->options->context, &finding);
}
