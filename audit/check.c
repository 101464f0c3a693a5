/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "audit/check_walk.h"

#define SAID_MAX 100u /* findings of one number that are reported in words; all are counted */

void cow_check_say(struct cow_check *c, enum cow_find number, uint64_t block, const char *format, ...)
{
	char text[512];
	struct cow_finding finding = {.number = (int)number, .block = block, .text = text};
	int used;
	va_list args;

	if (c->again)
		return;
	c->result->findings++;
	if (++c->said[number] > SAID_MAX || c->options->finding == NULL)
		return;
	va_start(args, format);
	used = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (c->said[number] == SAID_MAX && used >= 0 && (size_t)used < sizeof(text))
		snprintf(text + used, sizeof(text) - (size_t)used, " (and more like this)");
	for (char *p = text; *p != 0; p++) /* names from the disk: one line, and nothing that a terminal would obey */
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	c->options->finding(c->options->context, &finding);
}

void *cow_check_new(struct cow_check *c, size_t size)
{
	c->bytes += size;
	if (c->bytes > c->result->peak_bytes)
		c->result->peak_bytes = c->bytes;
	return cow_mem_new(size);
}

void cow_check_free(struct cow_check *c, void *p, size_t size)
{
	if (p != NULL)
		c->bytes -= size;
	free(p);
}

void *cow_check_grow(struct cow_check *c, void *list, size_t count, size_t *size, size_t each)
{
	size_t old = *size;

	if (count < old)
		return list;
	*size = old != 0 ? old + old / 2 : 64;
	c->bytes += (*size - old) * each;
	if (c->bytes > c->result->peak_bytes)
		c->result->peak_bytes = c->bytes;
	return cow_mem_resize(list, *size * each);
}

static void free_map(struct cow_map *map)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(map, &i)) != NULL;)
		free(slot->value);
	cow_map_free(map);
}

static void read_counters(struct cow_check *c)
{
	const uint8_t *user = c->super.user;

	c->counters =
		(struct cow_counters){.number = get64(user), .colour = get64(user + 8), .chunk = get64(user + 16)};
	memcpy(c->counters.hash_key, user + 24, sizeof(c->counters.hash_key));
	if (c->counters.number < 2 || c->counters.number > COW_NUMBER_MAX || c->counters.colour == 0 ||
	    c->counters.colour > COW_NUMBER_MAX || c->counters.chunk > COW_CHUNK_MAX)
		cow_check_say(c, COW_FIND_SUPER_COUNTERS, 0,
			      "counters: number %" PRIu64 ", colour %" PRIu64 ", chunk %" PRIu64, c->counters.number,
			      c->counters.colour, c->counters.chunk);
}

/* Blocks in use by the superblock, for the progress only. */
static uint64_t used_blocks(const struct cow_super *super)
{
	return super->counts.initialised ? super->total_blocks - super->counts.free_blocks : 1;
}

/* The maps' own memory, in round numbers. */
static void count_maps(struct cow_check *c)
{
	uint64_t slots = c->pages.size + c->many.size + c->kept.size + c->hints.size + c->sizes.size;

	c->result->peak_bytes += slots * sizeof(struct cow_map_slot);
}

static int run(struct cow_check *c)
{
	int result;

	read_counters(c);
	cow_check_walk(c);
	result = cow_check_counts(c);
	cow_check_worlds(c);
	cow_check_numbers(c);
	if (result == 0)
		result = cow_check_log(c);
	count_maps(c);
	if (c->options->progress != NULL)
		c->options->progress(c->options->context, c->used_blocks, c->used_blocks);
	if (c->has_root) {
		c->result->files = c->root.totals.files + c->root.link_files;
		c->result->directories = c->root.totals.dirs;
	}
	if (c->result->worlds > 0)
		c->result->worlds--; /* clones: all but the first one */
	return result;
}

static void free_check(struct cow_check *c)
{
	free(c->nodes);
	free(c->index);
	free_map(&c->kept);
	free_map(&c->hints);
	free_map(&c->pages);
	cow_map_free(&c->many);
	cow_map_free(&c->sizes);
	free(c->jobs);
	free(c->open);
	free(c->dirs);
	free(c->worlds);
	free(c->rows);
}

int cow_check_count(struct cow_dev *dev, const struct cow_super *super,
		    int (*use)(void *context, struct cow_check *check), void *context)
{
	static const struct cow_check_options silent;
	struct cow_check_result result = {0};
	struct cow_check c = {.dev = dev, .options = &silent, .result = &result, .super = *super};
	int error;

	read_counters(&c);
	cow_check_walk(&c);
	error = use(context, &c);
	free_check(&c);
	return error;
}

int cow_check_device(struct cow_dev *dev, const struct cow_check_options *options, struct cow_check_result *result)
{
	static const struct cow_check_options silent;
	struct cow_check c = {.dev = dev, .options = options != NULL ? options : &silent, .result = result};
	bool decayed = false;
	int error;

	*result = (struct cow_check_result){0};
	error = cow_super_read(dev, &c.super, &decayed);
	if (error != 0)
		return error;
	if (c.super.total_blocks > dev->size_bytes >> COW_BLOCK_SHIFT)
		return COW_ERR_SHORT;
	if (decayed)
		cow_check_say(&c, COW_FIND_SUPER_DECAYED, 0,
			      "the superblock after generation %" PRIu64 " is damaged: a newer generation may be lost",
			      c.super.generation);
	c.used_blocks = used_blocks(&c.super);
	error = run(&c);
	free_check(&c);
	return error;
}

int cow_check(const char *path, const struct cow_check_options *options, struct cow_check_result *result)
{
	struct cow_dev *dev;
	int error = cow_dev_file_open(path, COW_DEV_READ, &dev);

	if (error != 0)
		return error == -EBUSY ? COW_ERR_BUSY : error;
	error = cow_check_device(dev, options, result);
	cow_dev_close(dev);
	return error;
}
