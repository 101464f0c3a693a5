/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/mkfs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "base/bytes.h"
#include "fs/core/volume.h"
#include "fs/format/record.h"
#include "fs/world/dir.h"

#define DEFAULT_CACHE_BYTES (256ull << 20)
#define DEFAULT_IMAGE_BYTES (100ull << 30)

static int fill_root(struct cow_store *store, const struct cow_format_options *options)
{
	struct cow_record r = {.mode = S_IFDIR | 0755, .uid = options->root_uid, .gid = options->root_gid,
			       .number = COW_ROOT_NUMBER, .body = COW_BODY_DIR, .is_world = true};
	uint8_t bytes[COW_VALUE_MAX];
	struct timespec now;
	int error;

	clock_gettime(CLOCK_REALTIME, &now);
	r.atime = r.mtime = r.ctime = r.btime = cow_when_of(&now);
	pthread_mutex_lock(&store->lock);
	error = cow_tree_put(store, &store->roots[COW_ROOT_TOP], COW_KEY_FIRST, bytes,
			     cow_dirent_encode_record((struct cow_slice){NULL, 0}, &r, bytes));
	store->changes++;
	pthread_mutex_unlock(&store->lock);
	return error;
}

/* Each block of the ring has a count, as if a pointer led to it. */
static void claim_log(struct cow_store *store)
{
	const struct cow_log_root *log = &store->super.log;

	pthread_mutex_lock(&store->lock);
	for (uint32_t i = 0; i < log->blocks; i++)
		cow_counts_add(store->counts, cow_layout_ring(log->start, i), 1, 1);
	store->changes++;
	pthread_mutex_unlock(&store->lock);
}

static int nothing(void *context)
{
	(void)context;
	return 0;
}

static void no_translate(void *context)
{
	(void)context;
}

static void keep_user(void *context, uint8_t user[COW_SUPER_USER])
{
	memcpy(user, ((struct cow_super *)context)->user, COW_SUPER_USER);
}

static void no_log(void *context, int level, const char *text)
{
	(void)context, (void)level, (void)text;
}

int cow_volume_format(struct cow_dev *dev, const struct cow_format_options *options)
{
	static const uint8_t no_uuid[16];
	struct cow_store_ops ops = {.validate = cow_value_validate, .claims = cow_value_claims, .fold = nothing,
				    .translate = no_translate, .user = keep_user, .sealed = no_translate,
				    .write_data = nothing,
				    .durable = no_translate, .log = no_log};
	struct cow_counters counters = {.number = COW_ROOT_NUMBER + 1, .colour = 1};
	struct cow_super super = {.total_blocks = cow_layout_round(dev->size_bytes >> COW_BLOCK_SHIFT)};
	struct cow_store *store;
	int error;

	if (super.total_blocks < COW_VOLUME_BLOCKS_MIN || super.total_blocks > COW_VOLUME_BLOCKS_MAX)
		return COW_ERR_SIZE;
	/* Who names a uuid wants an image that can be made again; else nobody is to know how names are hashed. */
	memcpy(super.uuid, options->uuid, sizeof(super.uuid));
	memcpy(counters.hash_key, options->uuid, sizeof(counters.hash_key));
	if (memcmp(super.uuid, no_uuid, sizeof(no_uuid)) == 0 &&
	    (getrandom(counters.hash_key, sizeof(counters.hash_key), 0) != (ssize_t)sizeof(counters.hash_key) ||
	     getrandom(super.uuid, sizeof(super.uuid), 0) != (ssize_t)sizeof(super.uuid)))
		return -EIO;
	cow_counters_encode(&counters, super.user);
	super.root_kinds[COW_ROOT_RECLAIM] = COW_KIND_RECLAIM;
	super.root_kinds[COW_ROOT_TOP] = super.root_kinds[COW_ROOT_ORPHANS] = COW_KIND_DIR;
	super.root_kinds[COW_ROOT_NUMBERS] = COW_KIND_NUMBERS;
	cow_log_plan(super.total_blocks, &super.log);
	super.incompat = COW_INCOMPAT_LOG;
	error = cow_store_format(dev, &super);
	if (error == 0)
		error = cow_store_open(dev, false, DEFAULT_CACHE_BYTES, &ops, &super, &store);
	if (error != 0)
		return error;
	claim_log(store);
	error = cow_store_commit(store, NULL, NULL);
	if (error == 0)
		error = fill_root(store, options);
	if (error == 0)
		error = cow_store_commit(store, NULL, NULL);
	cow_store_close(store);
	return error == 0 ? cow_dev_flush(dev) : error;
}

/* Anything in the first 64 KiB? A file system's superblock is there, or the head of some other file. */
static int has_data(struct cow_dev *dev)
{
	static const size_t length = 65536;
	uint8_t *bytes = malloc(length);
	int error;

	if (bytes == NULL)
		return -ENOMEM;
	error = cow_dev_read(dev, bytes, length, 0);
	for (size_t i = 0; i < length && error == 0; i++)
		if (bytes[i] != 0)
			error = COW_ERR_EXISTS;
	free(bytes);
	return error;
}

int cow_format(const char *path, const struct cow_format_options *options)
{
	uint64_t size = options->size_bytes / COW_BLOCK * COW_BLOCK;
	struct cow_dev *dev;
	int error = cow_dev_file_open(path, COW_DEV_CREATE, &dev);

	if (error != 0)
		return error == -EBUSY ? COW_ERR_BUSY : error;
	if (size == 0)
		size = cow_dev_file_is_block(dev) ? dev->size_bytes / COW_BLOCK * COW_BLOCK : DEFAULT_IMAGE_BYTES;
	if (size < COW_VOLUME_BLOCKS_MIN * COW_BLOCK || size > COW_VOLUME_BLOCKS_MAX * COW_BLOCK)
		error = COW_ERR_SIZE;
	if (error == 0 && !options->force)
		error = has_data(dev);
	if (error == 0)
		error = cow_dev_file_resize(dev, size);
	if (error == 0)
		error = cow_volume_format(dev, options);
	cow_dev_close(dev);
	return error;
}
