/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading files and symlinks. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "base/min.h"
#include "cow.h"
#include "fs/core/blob.h"
#include "fs/core/volume.h"
#include "fs/data/extents.h"
#include "fs/data/file.h"
#include "fs/data/flight.h"
#include "fs/data/pages.h"

#define READ_BLOCKS 256u /* blocks read at once by one operation */

struct segment {
	uint64_t block;
	uint32_t index, count; /* of the request's blocks */
};

struct read_args {
	struct cow_inode *file;
	uint8_t *buffer;
	size_t size;     /* wanted; after the look-up: what there is */
	uint64_t offset;
	uint32_t segment_count;
	struct segment segments[READ_BLOCKS];
	uint32_t sums[READ_BLOCKS];
};

/* Copies the part of file block `at` that was asked for; NULL: zeros. */
static void deliver(struct read_args *a, uint64_t at, const uint8_t *bytes)
{
	uint64_t start = at << COW_BLOCK_SHIFT, end = cow_min64(start + COW_BLOCK, a->offset + a->size);
	uint64_t from = start > a->offset ? start : a->offset;

	if (bytes != NULL)
		memcpy(a->buffer + (from - a->offset), bytes + (from - start), end - from);
	else
		memset(a->buffer + (from - a->offset), 0, end - from);
}

static void add_segment(struct read_args *a, uint64_t at, uint64_t block, uint32_t sum)
{
	uint32_t index = (uint32_t)(at - cow_block_of(a->offset));
	struct segment *last = a->segment_count != 0 ? &a->segments[a->segment_count - 1] : NULL;

	a->sums[index] = sum;
	if (last != NULL && last->index + last->count == index && last->block + last->count == block)
		last->count++;
	else
		a->segments[a->segment_count++] = (struct segment){block, index, 1};
}

/* Delivers what is in memory, and collects what has to be read. */
static int look_up(struct read_args *a)
{
	struct cow_inode *file = a->file;
	uint64_t at = cow_block_of(a->offset), end = cow_blocks_for(a->offset + a->size);
	struct cow_extent e = {0};

	a->segment_count = 0;
	for (; at < end; at++) {
		struct cow_page *page = cow_pages_get(file, at);
		if (page == NULL && at >= e.at + e.blocks) {
			int error = cow_extents_find(file, at, &e);
			if (error == -ENOENT)
				e = (struct cow_extent){.at = end};
			else if (error != 0)
				return error;
		}
		if (page == NULL && at >= e.at && e.kind == COW_EXTENT_PLAIN) {
			uint64_t block = e.block + (at - e.at);
			page = cow_flight_get(file->volume, block);
			if (page == NULL) {
				add_segment(a, at, block, get32(e.sums + 4 * (at - e.at)));
				continue;
			}
		}
		deliver(a, at, page != NULL ? page->bytes : NULL);
	}
	return 0;
}

static int read_body(struct cow_op *op, void *args)
{
	struct read_args *a = args;
	struct cow_inode *file = a->file;
	int error = cow_file_check(file);

	(void)op;
	if (error == 0)
		error = cow_inode_check_live(file);
	if (error != 0)
		return error;
	a->segment_count = 0;
	a->size = a->offset < file->size ? cow_min64(a->size, file->size - a->offset) : 0;
	if (a->size == 0)
		return 0;
	if (file->body != COW_BODY_INLINE)
		return look_up(a);
	memcpy(a->buffer, file->data + a->offset, a->size);
	return 0;
}

static int verify(const struct read_args *a, const uint8_t *bytes, uint32_t index, uint64_t block)
{
	uint64_t at = cow_block_of(a->offset) + index;

	if (cow_extent_sum(bytes) == a->sums[index])
		return 0;
	cow_volume_log(a->file->volume, COW_LOG_ERROR,
		       "file %" PRIu64 " (colour %" PRIu64 ") at offset %" PRIu64 ": block %" PRIu64
		       " does not fit its checksum",
		       a->file->number, a->file->colour, at << COW_BLOCK_SHIFT, block);
	return -EIO;
}

static bool is_whole(const struct read_args *a, uint32_t index)
{
	uint64_t start = (cow_block_of(a->offset) + index) << COW_BLOCK_SHIFT;

	return start >= a->offset && start + COW_BLOCK <= a->offset + a->size;
}

/* Whole blocks go straight to the caller's buffer, the others by way of a block of our own. */
static int fetch(const struct read_args *a, const struct segment *s)
{
	struct cow_dev *dev = a->file->volume->dev;
	uint8_t bounce[COW_BLOCK];
	int error = 0;

	for (uint32_t i = 0, n; i < s->count && error == 0; i += n) {
		uint8_t *to = bounce;
		for (n = 0; i + n < s->count && is_whole(a, s->index + i + n); n++)
			;
		if (n != 0)
			to = a->buffer + (((cow_block_of(a->offset) + s->index + i) << COW_BLOCK_SHIFT) - a->offset);
		uint32_t count = n != 0 ? n : 1;
		error = cow_dev_read(dev, to, (size_t)count * COW_BLOCK, (s->block + i) << COW_BLOCK_SHIFT);
		for (uint32_t k = 0; k < count && error == 0; k++)
			error = verify(a, to + (size_t)k * COW_BLOCK, s->index + i + k, s->block + i + k);
		if (error == 0 && n == 0)
			deliver((struct read_args *)a, cow_block_of(a->offset) + s->index + i, bounce);
		n = count;
	}
	return error;
}

/* One operation: at most READ_BLOCKS blocks. The gate stays shut for seals until the blocks were read. */
static int read_some(struct read_args *a)
{
	struct cow_op op;
	int error;

	cow_op_begin_read(&op, a->file->volume);
	while ((error = read_body(&op, a)) == COW_MISS)
		if ((error = cow_op_fill(&op)) != 0)
			break;
	cow_op_unlock(&op);
	for (uint32_t i = 0; i < a->segment_count && error == 0; i++)
		error = fetch(a, &a->segments[i]);
	cow_op_end(&op);
	return error;
}

int64_t cow_read(struct cow_inode *inode, void *buffer, size_t size, uint64_t offset)
{
	struct read_args a;
	size_t done = 0;

	a.file = inode;
	a.segment_count = 0;
	if (offset > COW_FILE_SIZE_MAX)
		size = 0;
	do {
		size_t want = (size_t)READ_BLOCKS * COW_BLOCK - (offset + done) % COW_BLOCK;
		a.buffer = (uint8_t *)buffer + done;
		a.offset = offset + done;
		a.size = want < size - done ? want : size - done;
		want = a.size;
		int error = read_some(&a);
		if (error != 0)
			return error;
		done += a.size;
		if (a.size < want)
			break;
	} while (done < size);
	return (int64_t)done;
}

/* ------------------------------------------------------------------ symlinks */

struct readlink_args {
	struct cow_inode *inode;
	char *buffer;
	size_t size;
};

static int readlink_body(struct cow_op *op, void *v)
{
	struct readlink_args *a = v;
	int error = cow_inode_check_live(a->inode);

	if (error == 0 && !S_ISLNK(a->inode->mode))
		error = -EINVAL;
	if (error == 0)
		error = cow_blob_load(op->store, &a->inode->target);
	if (error != 0)
		return error;
	memcpy(a->buffer, a->inode->target.bytes,
	       a->size < a->inode->target.length ? a->size : a->inode->target.length);
	return (int)a->inode->target.length;
}

int cow_readlink(struct cow_inode *inode, char *buffer, size_t size)
{
	struct readlink_args args = {inode, buffer, size};

	return cow_op_read(inode->volume, readlink_body, &args);
}
