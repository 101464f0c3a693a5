/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/scene.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "audit/check.h"
#include "fs/open.h"
#include "store/node.h"
#include "test/lib/simdisk.h"
#include "test/lib/trial.h"

/* A test that makes reads fail is told so for each of them. */
static void log_line(void *context, enum cow_log_level level, const char *text)
{
	(void)context, (void)level;
	trial_say("%s", text);
}

static void open_volume(struct scene *s)
{
	assert_int_equal(cow_volume_open(simdisk_attach(s->disk), &s->options, &s->volume), 0);
	assert_int_equal(cow_root(s->volume, &s->root), 0);
}

struct scene scene_begin_with(uint64_t bytes, struct cow_open_options options)
{
	struct scene s = {.disk = simdisk_format(bytes), .options = options};

	s.options.no_threads = true;
	if (s.options.log == NULL)
		s.options.log = log_line;
	open_volume(&s);
	return s;
}

static void close_volume(struct scene *s)
{
	assert_int_equal(s->volume->store->failed, 0);
	cow_forget(s->root, 1);
	assert_int_equal(cow_close(s->volume), 0);
}

void scene_reopen(struct scene *s)
{
	close_volume(s);
	open_volume(s);
}

void scene_crash(struct scene *s)
{
	struct cow_dev *left = cow_sim_cut(s->disk, cow_sim_events(s->disk), COW_SIM_DROP, 1);

	cow_volume_abandon(s->volume);
	cow_dev_close(s->disk);
	s->disk = left;
	open_volume(s);
}

static void show(void *context, const struct cow_finding *finding)
{
	(void)context;
	print_error("finding %d: block %llu: %s\n", finding->number, (unsigned long long)finding->block, finding->text);
}

void scene_end(struct scene *s)
{
	const struct cow_check_options options = {.finding = show};
	struct cow_check_result result;

	close_volume(s);
	assert_int_equal(cow_check_device(s->disk, &options, &result), 0);
	assert_int_equal(result.findings, 0);
	cow_dev_close(s->disk);
}

struct cow_inode *scene_make(struct cow_inode *dir, const char *name, mode_t mode)
{
	struct cow_inode *inode;

	assert_int_equal(cow_create(dir, name, &(struct cow_new){.mode = mode}, &inode, NULL), 0);
	return inode;
}

struct cow_inode *scene_find(struct cow_inode *dir, const char *name)
{
	struct cow_inode *inode;
	struct cow_attr attr;

	assert_int_equal(cow_lookup(dir, name, &inode, &attr), 0);
	return inode;
}

struct cow_inode *scene_clone(struct cow_inode *from, struct cow_inode *dir, const char *name)
{
	struct cow_inode *clone;

	assert_int_equal(cow_clone(from, dir, name, 0, &clone, NULL), 0);
	return clone;
}

const char *scene_name(const char *stem, unsigned number)
{
	static char name[64];

	snprintf(name, sizeof(name), "%s%u", stem, number);
	return name;
}

void scene_empty_cache(struct scene *s)
{
	struct cow_store *store = s->volume->store;
	uint64_t limit;

	pthread_mutex_lock(&store->lock);
	limit = store->clean_limit;
	store->clean_limit = 0;
	cow_node_evict(store);
	store->clean_limit = limit;
	pthread_mutex_unlock(&store->lock);
}
