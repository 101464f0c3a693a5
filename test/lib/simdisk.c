/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/simdisk.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "cow.h"
#include "fs/core/volume.h"
#include "fs/mkfs.h"

struct handle {
	struct cow_dev dev;
	struct cow_dev *sim;
};

static struct cow_dev *sim_of(struct cow_dev *dev)
{
	return ((struct handle *)dev)->sim;
}

static int pass_read(struct cow_dev *dev, void *buffer, size_t length, uint64_t offset)
{
	return cow_dev_read(sim_of(dev), buffer, length, offset);
}

static int pass_write(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset)
{
	return cow_dev_write(sim_of(dev), buffer, length, offset);
}

static int pass_flush(struct cow_dev *dev)
{
	return cow_dev_flush(sim_of(dev));
}

static int pass_write_through(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset)
{
	return cow_dev_write_through(sim_of(dev), buffer, length, offset);
}

static int pass_ensure(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	return cow_dev_ensure(sim_of(dev), offset, length);
}

static void pass_discard(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	cow_dev_discard(sim_of(dev), offset, length);
}

static void pass_close(struct cow_dev *dev)
{
	free(dev);
}

static const struct cow_dev_ops pass_ops = {
	.read = pass_read,
	.write = pass_write,
	.write_through = pass_write_through,
	.flush = pass_flush,
	.ensure = pass_ensure,
	.discard = pass_discard,
	.close = pass_close,
};

struct cow_dev *simdisk_attach(void *sim)
{
	struct handle *h = cow_mem_new(sizeof(*h));

	h->sim = sim;
	h->dev.ops = &pass_ops;
	h->dev.size_bytes = h->sim->size_bytes;
	return &h->dev;
}

struct cow_dev *simdisk_format(uint64_t size_bytes)
{
	struct cow_dev *sim = cow_sim_new(size_bytes);
	struct cow_format_options options = {.uuid = {2}};
	struct cow_dev *dev = simdisk_attach(sim);
	int r = cow_volume_format(dev, &options);

	cow_dev_close(dev);
	if (r < 0) {
		fprintf(stderr, "format: %s\n", cow_error_text(r));
		exit(2);
	}
	cow_dev_flush(sim);
	cow_sim_forget(sim);
	return sim;
}
