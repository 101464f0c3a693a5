/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bytes of an answer go when its last page has been read; its number stays for the rest of its time, so that
 * whoever reads on until he gets nothing gets nothing, not an error.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "cowfs/results.h"

#define LIFE_SECONDS 60
#define MAX_RESULTS 256
#define MAX_BYTES ((size_t)1 << 30)

struct result {
	uint64_t id;
	struct cowfs_text text;
	time_t touched;
	struct result *next;
};

struct cowfs_results {
	pthread_mutex_t lock;
	struct result *first; /* lock, the fields below too */
	unsigned count;
};

uint8_t *cowfs_text_grow(struct cowfs_text *text, size_t count)
{
	size_t size = text->size ? text->size : 4096;
	uint8_t *bytes;

	if (count > MAX_BYTES - text->length)
		return NULL;
	while (size < text->length + count)
		size *= 2;
	if (size != text->size) {
		bytes = realloc(text->bytes, size);
		if (!bytes)
			return NULL;
		text->bytes = bytes;
		text->size = size;
	}
	bytes = text->bytes + text->length;
	text->length += count;
	return bytes;
}

static time_t seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

struct cowfs_results *cowfs_results_new(void)
{
	struct cowfs_results *results = calloc(1, sizeof(*results));

	if (results)
		pthread_mutex_init(&results->lock, NULL);
	return results;
}

static void free_list(struct result *list)
{
	struct result *next;

	for (; list; list = next) {
		next = list->next;
		free(list->text.bytes);
		free(list);
	}
}

void cowfs_results_free(struct cowfs_results *results)
{
	if (!results)
		return;
	free_list(results->first);
	pthread_mutex_destroy(&results->lock);
	free(results);
}

static struct result *expire_locked(struct cowfs_results *results)
{
	struct result *old = NULL, *result;
	time_t now = seconds_now();

	for (struct result **at = &results->first; (result = *at);) {
		if (now - result->touched <= LIFE_SECONDS) {
			at = &result->next;
			continue;
		}
		*at = result->next;
		result->next = old;
		old = result;
		results->count--;
	}
	return old;
}

int cowfs_result_add(struct cowfs_results *results, struct cowfs_text *text, uint64_t *id)
{
	struct result *result = malloc(sizeof(*result)), *old;
	int error = 0;

	if (!result)
		return -ENOMEM;
	if (getrandom(&result->id, sizeof(result->id), 0) != sizeof(result->id)) {
		free(result);
		return -EAGAIN;
	}
	result->touched = seconds_now();
	*id = result->id;
	pthread_mutex_lock(&results->lock);
	old = expire_locked(results);
	if (results->count >= MAX_RESULTS) {
		error = -EAGAIN;
	} else {
		result->text = *text;
		memset(text, 0, sizeof(*text));
		result->next = results->first;
		results->first = result;
		results->count++;
	}
	pthread_mutex_unlock(&results->lock);
	if (error)
		free(result);
	free_list(old);
	return error;
}

static size_t copy_page(struct result *result, uint64_t offset, void *buffer, size_t size)
{
	size_t left = offset < result->text.length ? result->text.length - (size_t)offset : 0;

	if (left < size)
		size = left;
	if (size)
		memcpy(buffer, result->text.bytes + offset, size);
	result->touched = seconds_now();
	if (left == size) {
		free(result->text.bytes);
		memset(&result->text, 0, sizeof(result->text));
	}
	return size;
}

int cowfs_result_read(struct cowfs_results *results, uint64_t id, uint64_t offset, void *buffer, size_t size)
{
	struct result *result, *old;
	int got = -ENOENT;

	pthread_mutex_lock(&results->lock);
	old = expire_locked(results);
	for (result = results->first; result && result->id != id; result = result->next)
		;
	if (result)
		got = (int)copy_page(result, offset, buffer, size);
	pthread_mutex_unlock(&results->lock);
	free_list(old);
	return got;
}
