/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/scratch.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "store/layout.h"

struct scratch {
	uint64_t blocks;
	uint8_t *before, *now;
	pthread_mutex_t lock;
	bool *changed;     /* lock, the fields below too */
	uint64_t *changes; /* the blocks for which it is set */
	size_t count;
	bool fail_flush;
	uint64_t fail_skip, fail_count, unreadable;
};

struct handle {
	struct cow_dev dev;
	struct scratch *scratch;
};

static uint8_t *map(uint64_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert(at != MAP_FAILED);
	return at;
}

static uint8_t *range(struct cow_dev *dev, size_t length, uint64_t offset)
{
	struct scratch *s = ((struct handle *)dev)->scratch;

	assert(length % COW_BLOCK == 0 && offset % COW_BLOCK == 0);
	assert(offset / COW_BLOCK <= s->blocks && length / COW_BLOCK <= s->blocks - offset / COW_BLOCK);
	return s->now + offset;
}

static void touch_locked(struct scratch *s, uint64_t block, uint64_t count)
{
	for (; count > 0; block++, count--)
		if (!s->changed[block]) {
			s->changed[block] = true;
			s->changes[s->count++] = block;
		}
}

static int scratch_read(struct cow_dev *dev, void *buffer, size_t length, uint64_t offset)
{
	struct scratch *s = ((struct handle *)dev)->scratch;
	uint64_t first = offset / COW_BLOCK;

	pthread_mutex_lock(&s->lock);
	bool bad = s->unreadable != 0 && s->unreadable >= first && s->unreadable < first + length / COW_BLOCK;
	memcpy(buffer, range(dev, length, offset), length);
	pthread_mutex_unlock(&s->lock);
	return bad ? -EIO : 0;
}

static bool fails_locked(struct scratch *s)
{
	if (s->fail_count == 0)
		return false;
	if (s->fail_skip > 0) {
		s->fail_skip--;
		return false;
	}
	s->fail_count--;
	return true;
}

static int scratch_write(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset)
{
	struct scratch *s = ((struct handle *)dev)->scratch;

	pthread_mutex_lock(&s->lock);
	bool failed = !s->fail_flush && fails_locked(s);
	if (!failed) {
		touch_locked(s, offset / COW_BLOCK, length / COW_BLOCK);
		memcpy(range(dev, length, offset), buffer, length);
	}
	pthread_mutex_unlock(&s->lock);
	return failed ? -EIO : 0;
}

static int scratch_flush(struct cow_dev *dev)
{
	struct scratch *s = ((struct handle *)dev)->scratch;

	pthread_mutex_lock(&s->lock);
	bool failed = s->fail_flush && fails_locked(s);
	pthread_mutex_unlock(&s->lock);
	return failed ? -EIO : 0;
}

static int scratch_ensure(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	(void)dev, (void)offset, (void)length;
	return 0;
}

/* Garbage: what is discarded must never be read again. */
static void scratch_discard(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	struct scratch *s = ((struct handle *)dev)->scratch;

	pthread_mutex_lock(&s->lock);
	touch_locked(s, offset / COW_BLOCK, length / COW_BLOCK);
	memset(range(dev, length, offset), 0xdb, length);
	pthread_mutex_unlock(&s->lock);
}

static void scratch_close(struct cow_dev *dev)
{
	free(dev);
}

static const struct cow_dev_ops scratch_ops = {
	.read = scratch_read,
	.write = scratch_write,
	.write_through = scratch_write,
	.flush = scratch_flush,
	.ensure = scratch_ensure,
	.discard = scratch_discard,
	.close = scratch_close,
};

struct scratch *scratch_new(struct cow_dev *dev)
{
	struct scratch *s = cow_mem_new(sizeof(*s));
	static const uint8_t zeros[COW_BLOCK];
	uint8_t block[COW_BLOCK];

	s->blocks = dev->size_bytes / COW_BLOCK;
	s->before = map(dev->size_bytes);
	s->now = map(dev->size_bytes);
	s->changed = cow_mem_new(s->blocks * sizeof(*s->changed));
	s->changes = cow_mem_new(s->blocks * sizeof(*s->changes));
	pthread_mutex_init(&s->lock, NULL);
	for (uint64_t i = 0; i < s->blocks; i++) {
		int error = cow_dev_read(dev, block, COW_BLOCK, i * COW_BLOCK);
		assert(error == 0);
		if (memcmp(block, zeros, COW_BLOCK) == 0)
			continue; /* stays unmapped */
		memcpy(s->before + i * COW_BLOCK, block, COW_BLOCK);
		memcpy(s->now + i * COW_BLOCK, block, COW_BLOCK);
	}
	return s;
}

void scratch_free(struct scratch *s)
{
	munmap(s->before, s->blocks * COW_BLOCK);
	munmap(s->now, s->blocks * COW_BLOCK);
	pthread_mutex_destroy(&s->lock);
	free(s->changed);
	free(s->changes);
	free(s);
}

struct cow_dev *scratch_attach(struct scratch *s)
{
	struct handle *h = cow_mem_new(sizeof(*h));

	h->scratch = s;
	h->dev.ops = &scratch_ops;
	h->dev.size_bytes = s->blocks * COW_BLOCK;
	return &h->dev;
}

void scratch_reset(struct scratch *s)
{
	pthread_mutex_lock(&s->lock);
	while (s->count > 0) {
		uint64_t block = s->changes[--s->count];
		memcpy(s->now + block * COW_BLOCK, s->before + block * COW_BLOCK, COW_BLOCK);
		s->changed[block] = false;
	}
	s->fail_count = s->unreadable = 0;
	pthread_mutex_unlock(&s->lock);
}

void scratch_flip(struct scratch *s, uint64_t block, unsigned bit)
{
	pthread_mutex_lock(&s->lock);
	touch_locked(s, block, 1);
	s->now[block * COW_BLOCK + bit / 8] ^= (uint8_t)(1u << bit % 8);
	pthread_mutex_unlock(&s->lock);
}

const uint8_t *scratch_before(const struct scratch *s, uint64_t block)
{
	return s->before + block * COW_BLOCK;
}

const uint8_t *scratch_now(const struct scratch *s, uint64_t block)
{
	return s->now + block * COW_BLOCK;
}

void scratch_fail(struct scratch *s, bool flush, uint64_t skip, uint64_t count)
{
	pthread_mutex_lock(&s->lock);
	s->fail_flush = flush;
	s->fail_skip = skip;
	s->fail_count = count;
	pthread_mutex_unlock(&s->lock);
}

void scratch_unreadable(struct scratch *s, uint64_t block)
{
	pthread_mutex_lock(&s->lock);
	s->unreadable = block;
	pthread_mutex_unlock(&s->lock);
}

int scratch_save(const struct scratch *s, const char *path)
{
	static const uint8_t zeros[COW_BLOCK];
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), error = 0;

	if (fd < 0 || ftruncate(fd, (off_t)(s->blocks * COW_BLOCK)) != 0)
		error = -errno;
	for (uint64_t i = 0; i < s->blocks && error == 0; i++)
		if (memcmp(scratch_before(s, i), zeros, COW_BLOCK) != 0 &&
		    pwrite(fd, scratch_before(s, i), COW_BLOCK, (off_t)(i * COW_BLOCK)) != COW_BLOCK)
			error = -EIO;
	if (fd >= 0)
		close(fd);
	return error;
}
