/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dev/dev_overlay.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"

#define BLOCK 4096u
#define SHIFT 12

struct overlay {
	struct cow_dev dev;
	struct cow_dev *below;
	pthread_mutex_t lock;
	struct cow_map blocks; /* lock: block -> bytes */
};

static struct overlay *overlay_of(struct cow_dev *dev)
{
	return (struct overlay *)dev;
}

static int overlay_read(struct cow_dev *dev, void *buffer, size_t length, uint64_t offset)
{
	struct overlay *o = overlay_of(dev);
	uint8_t *to = buffer;
	int error = cow_dev_read(o->below, buffer, length, offset);

	if (error != 0 && length > BLOCK) { /* what is written here need not be readable below */
		for (error = 0; error == 0 && length > 0; to += BLOCK, offset += BLOCK, length -= BLOCK)
			error = overlay_read(dev, to, BLOCK, offset);
		return error;
	}
	pthread_mutex_lock(&o->lock);
	for (uint64_t block = offset >> SHIFT; length > 0; block++, to += BLOCK, length -= BLOCK) {
		const uint8_t *bytes = cow_map_get(&o->blocks, block);
		if (bytes == NULL)
			continue;
		memcpy(to, bytes, BLOCK);
		error = 0;
	}
	pthread_mutex_unlock(&o->lock);
	return error;
}

static int overlay_write(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset)
{
	struct overlay *o = overlay_of(dev);
	const uint8_t *from = buffer;

	pthread_mutex_lock(&o->lock);
	for (uint64_t block = offset >> SHIFT; length > 0; block++, from += BLOCK, length -= BLOCK) {
		uint8_t *bytes = cow_map_get(&o->blocks, block);
		if (bytes != NULL)
			memcpy(bytes, from, BLOCK);
		else
			cow_map_put(&o->blocks, block, cow_mem_copy(from, BLOCK));
	}
	pthread_mutex_unlock(&o->lock);
	return 0;
}

static int overlay_flush(struct cow_dev *dev)
{
	(void)dev;
	return 0;
}

static int overlay_ensure(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	(void)dev, (void)offset, (void)length;
	return 0;
}

static void overlay_discard(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	(void)dev, (void)offset, (void)length;
}

static void overlay_close(struct cow_dev *dev)
{
	struct overlay *o = overlay_of(dev);
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(&o->blocks, &i)) != NULL;)
		free(slot->value);
	cow_map_free(&o->blocks);
	pthread_mutex_destroy(&o->lock);
	free(o);
}

static const struct cow_dev_ops overlay_ops = {
	.read = overlay_read,
	.write = overlay_write,
	.write_through = overlay_write,
	.flush = overlay_flush,
	.ensure = overlay_ensure,
	.discard = overlay_discard,
	.close = overlay_close,
};

struct cow_dev *cow_overlay_new(struct cow_dev *below)
{
	struct overlay *o = cow_mem_new(sizeof(*o));

	o->dev.ops = &overlay_ops;
	o->dev.size_bytes = below->size_bytes;
	o->below = below;
	pthread_mutex_init(&o->lock, NULL);
	return &o->dev;
}

const uint8_t *cow_overlay_block(const struct cow_dev *overlay, uint64_t block)
{
	struct overlay *o = overlay_of((struct cow_dev *)overlay);
	const uint8_t *bytes;

	pthread_mutex_lock(&o->lock);
	bytes = cow_map_get(&o->blocks, block);
	pthread_mutex_unlock(&o->lock);
	return bytes;
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

uint64_t *cow_overlay_list(const struct cow_dev *overlay, size_t *count)
{
	struct overlay *o = overlay_of((struct cow_dev *)overlay);
	struct cow_map_slot *slot;
	uint64_t *list;

	pthread_mutex_lock(&o->lock);
	list = cow_mem_new((o->blocks.count + 1) * sizeof(*list));
	*count = 0;
	for (size_t i = 0; (slot = cow_map_each(&o->blocks, &i)) != NULL;)
		list[(*count)++] = slot->key;
	pthread_mutex_unlock(&o->lock);
	qsort(list, *count, sizeof(*list), ascending);
	return list;
}
