/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/memdev.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/mem.h"

struct memdev {
	uint64_t size_bytes;
	uint8_t *bytes;
};

struct memdev_handle {
	struct cow_dev dev;
	struct memdev *memdev;
};

static uint8_t *range(struct cow_dev *dev, size_t length, uint64_t offset)
{
	struct memdev *m = ((struct memdev_handle *)dev)->memdev;

	assert(length % 4096 == 0 && offset % 4096 == 0);
	assert(offset <= m->size_bytes && length <= m->size_bytes - offset);
	return m->bytes + offset;
}

static int mem_read(struct cow_dev *dev, void *buffer, size_t length, uint64_t offset)
{
	memcpy(buffer, range(dev, length, offset), length);
	return 0;
}

static int mem_write(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset)
{
	memcpy(range(dev, length, offset), buffer, length);
	return 0;
}

static int mem_flush(struct cow_dev *dev)
{
	(void)dev;
	return 0;
}

static int mem_ensure(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	(void)dev;
	(void)offset;
	(void)length;
	return 0;
}

/* Garbage, not zeros: what is discarded must never be read again. */
static void mem_discard(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	memset(range(dev, length, offset), 0xdb, length);
}

static void mem_close(struct cow_dev *dev)
{
	free(dev);
}

static const struct cow_dev_ops mem_ops = {
	.read = mem_read,
	.write = mem_write,
	.write_through = mem_write,
	.flush = mem_flush,
	.ensure = mem_ensure,
	.discard = mem_discard,
	.close = mem_close,
};

struct memdev *memdev_new(uint64_t size_bytes)
{
	struct memdev *m = cow_mem_new(sizeof(*m));

	m->size_bytes = size_bytes;
	m->bytes = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert(m->bytes != MAP_FAILED);
	return m;
}

void memdev_free(struct memdev *m)
{
	if (m == NULL)
		return;
	munmap(m->bytes, m->size_bytes);
	free(m);
}

struct cow_dev *memdev_attach(void *memdev)
{
	struct memdev_handle *h = cow_mem_new(sizeof(*h));

	h->memdev = memdev;
	h->dev.ops = &mem_ops;
	h->dev.size_bytes = h->memdev->size_bytes;
	return &h->dev;
}
