/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading and writing files. The content of a block is, from the top: its buffered page, its mapped extent (the
 * bytes of which may still be in flight), zeros; or the whole content is INLINE, and then there are no pages.
 *
 * Every change works in the same way: what it needs of old blocks becomes buffered pages of equal content (neutral,
 * may miss), and then pages are edited, which cannot fail.
 */
#include "fs/file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "fs/blob.h"
#include "fs/extents.h"
#include "fs/pages.h"
#include "fs/space.h"
#include "fs/volume.h"

#define READ_BLOCKS 256u /* blocks read at once by one operation */

static uint64_t block_of(uint64_t offset)
{
	return offset >> COW_BLOCK_SHIFT;
}

static uint64_t blocks_for(uint64_t bytes)
{
	return (bytes + COW_BLOCK - 1) >> COW_BLOCK_SHIFT;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

int cow_file_check(const struct cow_inode *inode)
{
	return cow_inode_is_dir(inode) ? -EISDIR : cow_inode_is_file(inode) ? 0 : -EINVAL;
}

void cow_file_changed(struct cow_inode *file)
{
	/* 0 and 1 are what inodes have that were only loaded: not unique. */
	file->data_version = COW_VERSION_LOADED + ++file->volume->flight.version;
}

static void touch(struct cow_op *op, struct cow_inode *file)
{
	file->mtime = (struct cow_when){op->now.tv_sec, (uint32_t)op->now.tv_nsec};
	file->ctime = file->mtime;
}

/* Checks what every change of content needs, and reserves. */
static int prepare(struct cow_inode *file)
{
	int error = cow_file_check(file);

	if (error == 0)
		error = cow_inode_check_live(file);
	if (error == 0)
		error = cow_inode_check_writable(file);
	if (error == 0)
		error = cow_inode_reserve(file);
	return error;
}

static void resize(struct cow_inode *file, uint64_t size)
{
	int64_t change = (int64_t)(size - file->size);

	file->size = size;
	if (change != 0)
		cow_inode_resized(file, change, 0);
}

/* ------------------------------------------------------------------ old content as pages */

/* Inline content moves to a page; the next cow_file_place() may bring it back. */
void cow_file_to_page(struct cow_inode *file)
{
	if (file->body != COW_BODY_INLINE)
		return;
	struct cow_page *page = cow_page_new(file->volume);
	memcpy(page->bytes, file->data, file->data_length);
	free(file->data);
	file->data = NULL;
	file->data_length = 0;
	file->body = COW_BODY_NONE;
	cow_pages_put(file, 0, page);
}

/* The content of a mapped block; NULL: zeros, because nothing is mapped (*hole) or it was never written. */
static int old_bytes(struct cow_op *op, struct cow_inode *file, uint64_t at, const uint8_t **bytes, bool *hole)
{
	struct cow_extent e;
	int error = cow_extents_find(file, at, &e);

	*bytes = NULL;
	*hole = error == -ENOENT || (error == 0 && e.at > at);
	if (error != 0 && error != -ENOENT)
		return error;
	if (*hole || e.kind == COW_EXTENT_UNWRITTEN)
		return 0;
	uint64_t block = e.block + (at - e.at);
	struct cow_page *flying = cow_flight_get(op->volume, block);
	if (flying != NULL) {
		*bytes = flying->bytes;
		return 0;
	}
	return cow_op_data(op, block, get32(e.sums + 4 * (at - e.at)), bytes);
}

int cow_file_peek(struct cow_op *op, struct cow_inode *file, uint64_t offset, size_t length, uint8_t *to)
{
	const uint8_t *bytes;
	bool hole;

	if (file->body == COW_BODY_INLINE) {
		memcpy(to, file->data + offset, length);
		return 0;
	}
	for (size_t done = 0, n; done < length; done += n) {
		uint64_t at = block_of(offset + done), in = (offset + done) % COW_BLOCK;
		struct cow_page *page = cow_pages_get(file, at);
		int error = 0;
		if (page == NULL)
			error = old_bytes(op, file, at, &bytes, &hole);
		if (error != 0)
			return error;
		n = min64(COW_BLOCK - in, length - done);
		if (page != NULL)
			bytes = page->bytes;
		if (bytes != NULL)
			memcpy(to + done, bytes + in, n);
		else
			memset(to + done, 0, n);
	}
	return 0;
}

/* Makes block `at` a buffered page of the same content; a hole stays one unless `fill`. Neutral. COW_MISS, -EIO */
static int buffer_block(struct cow_op *op, struct cow_inode *file, uint64_t at, bool fill)
{
	const uint8_t *bytes;
	bool hole;

	if (cow_pages_get(file, at) != NULL)
		return 0;
	int error = old_bytes(op, file, at, &bytes, &hole);
	if (error != 0 || (hole && !fill))
		return error;
	struct cow_page *page = cow_page_new(file->volume);
	if (bytes != NULL)
		memcpy(page->bytes, bytes, COW_BLOCK);
	cow_pages_put(file, at, page);
	return 0;
}

/* ------------------------------------------------------------------ read */

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
	uint64_t start = at << COW_BLOCK_SHIFT, end = min64(start + COW_BLOCK, a->offset + a->size);
	uint64_t from = start > a->offset ? start : a->offset;

	if (bytes != NULL)
		memcpy(a->buffer + (from - a->offset), bytes + (from - start), end - from);
	else
		memset(a->buffer + (from - a->offset), 0, end - from);
}

static void add_segment(struct read_args *a, uint64_t at, uint64_t block, uint32_t sum)
{
	uint32_t index = (uint32_t)(at - block_of(a->offset));
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
	uint64_t at = block_of(a->offset), end = blocks_for(a->offset + a->size);
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
	a->size = a->offset < file->size ? min64(a->size, file->size - a->offset) : 0;
	if (a->size == 0)
		return 0;
	if (file->body != COW_BODY_INLINE)
		return look_up(a);
	memcpy(a->buffer, file->data + a->offset, a->size);
	return 0;
}

static int verify(const struct read_args *a, const uint8_t *bytes, uint32_t index, uint64_t block)
{
	uint64_t at = block_of(a->offset) + index;

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
	uint64_t start = (block_of(a->offset) + index) << COW_BLOCK_SHIFT;

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
			to = a->buffer + (((block_of(a->offset) + s->index + i) << COW_BLOCK_SHIFT) - a->offset);
		uint32_t count = n != 0 ? n : 1;
		error = cow_dev_read(dev, to, (size_t)count * COW_BLOCK, (s->block + i) << COW_BLOCK_SHIFT);
		for (uint32_t k = 0; k < count && error == 0; k++)
			error = verify(a, to + (size_t)k * COW_BLOCK, s->index + i + k, s->block + i + k);
		if (error == 0 && n == 0)
			deliver((struct read_args *)a, block_of(a->offset) + s->index + i, bounce);
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

/* ------------------------------------------------------------------ write */

struct write_args {
	struct cow_inode *file;
	const uint8_t *buffer;
	uint64_t offset, end;
	bool kill_suid;
	void **pages; /* struct cow_page, ready made for the blocks that begin inside; NULL once handed over */
};

/* The block that the request begins inside of, if it does: the only one without a page of its own. */
static bool begins_inside(const struct write_args *a, uint64_t at)
{
	return at << COW_BLOCK_SHIFT < a->offset;
}

/* Pages are filled before the lock is taken. Each ends in zeros, if the request does not fill it. */
static int make_pages(struct write_args *a)
{
	uint64_t first = block_of(a->offset), count = blocks_for(a->end) - first;
	uint64_t skip = begins_inside(a, first) ? 1 : 0;

	a->pages = calloc(count, sizeof(*a->pages));
	if (a->pages == NULL || cow_pool_take(&a->file->volume->pool, a->pages + skip, count - skip) != 0)
		return -ENOMEM;
	for (uint64_t i = skip; i < count; i++) {
		uint64_t start = (first + i) << COW_BLOCK_SHIFT;
		size_t length = min64(COW_BLOCK, a->end - start);
		struct cow_page *page = a->pages[i];
		memcpy(page->bytes, a->buffer + (start - a->offset), length);
		memset(page->bytes + length, 0, COW_BLOCK - length);
	}
	return 0;
}

static void free_pages(struct write_args *a)
{
	uint64_t count = blocks_for(a->end) - block_of(a->offset);

	if (a->pages != NULL)
		cow_pool_give(&a->file->volume->pool, a->pages, count);
	free(a->pages);
}

/* Does the block keep old bytes behind the end of the request? */
static bool ends_inside(const struct write_args *a, uint64_t at)
{
	uint64_t block_end = (at + 1) << COW_BLOCK_SHIFT;

	return block_end > a->end && a->file->size > a->end;
}

/* The kernel's rule: a write by somebody without the right to keep them clears set-uid, and set-gid with group
 * execution. */
static void kill_set_id(struct cow_inode *file)
{
	uint32_t mode = file->mode & ~(uint32_t)S_ISUID;

	if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
		mode &= ~(uint32_t)S_ISGID;
	file->mode = mode;
}

static void copy_in(struct write_args *a, uint64_t at)
{
	void **ready = &a->pages[at - block_of(a->offset)];

	if (!begins_inside(a, at) && !ends_inside(a, at)) {
		cow_pages_put(a->file, at, *ready);
		*ready = NULL;
		return;
	}
	uint64_t start = at << COW_BLOCK_SHIFT, from = start > a->offset ? start : a->offset;
	uint64_t end = min64(start + COW_BLOCK, a->end);
	struct cow_page *page = cow_pages_get(a->file, at);
	memcpy(page->bytes + (from - start), a->buffer + (from - a->offset), end - from);
}

/*
 * What is written covers the old map, and nobody would look at that before a commit places the data, when it is too
 * late to tell the writer that it is damaged. COW_MISS, -EIO
 */
static int read_map(struct cow_inode *file, uint64_t first, uint64_t last)
{
	struct cow_extent e;
	int error;

	for (uint64_t at = first; at <= last; at = e.at + e.blocks)
		if ((error = cow_extents_find(file, at, &e)) != 0)
			return error == -ENOENT ? 0 : error;
	return 0;
}

static int write_body(struct cow_op *op, void *args)
{
	struct write_args *a = args;
	uint64_t first = block_of(a->offset), last = block_of(a->end - 1);
	int error = prepare(a->file);

	if (error != 0)
		return error;
	cow_file_to_page(a->file);
	error = read_map(a->file, first, last);
	if (error == 0 && (begins_inside(a, first) || ends_inside(a, first)))
		error = buffer_block(op, a->file, first, true);
	if (error == 0 && last != first && ends_inside(a, last))
		error = buffer_block(op, a->file, last, true);
	if (error != 0)
		return error;
	for (uint64_t at = first; at <= last; at++)
		copy_in(a, at);
	if (a->end > a->file->size)
		resize(a->file, a->end);
	if (a->kill_suid)
		kill_set_id(a->file);
	touch(op, a->file);
	cow_file_changed(a->file);
	cow_note_write(a->file, a->offset, a->end);
	return 0;
}

int64_t cow_write(struct cow_inode *inode, const void *buffer, size_t size, uint64_t offset, bool kill_suid)
{
	struct write_args a = {
		.file = inode, .buffer = buffer, .offset = offset, .end = offset + size, .kill_suid = kill_suid,
	};
	int error = 0;

	if (offset > COW_FILE_SIZE_MAX || size > COW_FILE_SIZE_MAX - offset)
		return -EFBIG;
	if (size == 0)
		return 0;
	error = make_pages(&a);
	if (error == 0)
		error = cow_op_change(inode->volume, size, false, write_body, &a);
	free_pages(&a);
	return error != 0 ? error : (int64_t)size;
}

/* ------------------------------------------------------------------ truncate */

int cow_file_truncate(struct cow_op *op, struct cow_inode *file, uint64_t size)
{
	uint64_t keep = blocks_for(size), tail = size % COW_BLOCK;
	int error;

	if (size > COW_FILE_SIZE_MAX)
		return -EFBIG;
	error = cow_inode_reserve(file);
	if (error != 0)
		return error;
	cow_file_to_page(file);
	if (size < file->size) {
		if (tail != 0)
			error = buffer_block(op, file, keep - 1, false);
		if (error == 0)
			error = cow_extents_truncate(file, keep);
		if (error != 0)
			return error;
		cow_pages_drop(file, keep, UINT64_MAX);
		struct cow_page *page = tail != 0 ? cow_pages_get(file, keep - 1) : NULL;
		if (page != NULL)
			memset(page->bytes + tail, 0, COW_BLOCK - tail);
	}
	if (size < file->size)
		cow_note_cut(file, size);
	else
		cow_note_write(file, 0, 0); /* its size */
	resize(file, size);
	cow_file_changed(file);
	return 0;
}

/* ------------------------------------------------------------------ fallocate */

struct range_args {
	struct cow_inode *file;
	uint64_t offset, end;
	int mode;
	bool has_room; /* to write all of it */
};

/* Zeroes [from, end) inside one block, which has been buffered if there is anything in it. */
static void zero_part(struct cow_inode *file, uint64_t from, uint64_t end)
{
	struct cow_page *page = from < end ? cow_pages_get(file, block_of(from)) : NULL;

	if (page != NULL)
		memset(page->bytes + from % COW_BLOCK, 0, end - from);
}

/*
 * Whole blocks become holes, the rest zeros. Beyond the end there is nothing. The cut may miss between two extents: the
 * gate is held until the call is through, so no clone and no commit sees it half done.
 */
static int zero_range(struct cow_op *op, struct cow_inode *file, uint64_t from, uint64_t end)
{
	uint64_t first = blocks_for(from), last = block_of(end);
	int error = 0;

	if (end >= file->size) {
		end = file->size;
		last = blocks_for(end);
	}
	if (from >= end)
		return 0;
	if (from % COW_BLOCK != 0)
		error = buffer_block(op, file, block_of(from), false);
	if (error == 0 && last < blocks_for(end))
		error = buffer_block(op, file, last, false);
	if (error == 0 && first < last) /* once it has begun it goes through: what lies between the ends comes back */
		error = cow_store_check_floor(op->store, 2);
	if (error == 0 && first < last)
		op->floor = op->store->floor = 0;
	if (error == 0 && first < last) {
		cow_file_changed(file);
		error = last == blocks_for(file->size) ? cow_extents_truncate(file, first)
						       : cow_extents_cut(file, first, last);
	}
	if (error != 0)
		return error;
	cow_pages_drop(file, first, last);
	if (first > last) { /* inside one block */
		zero_part(file, from, end);
		return 0;
	}
	zero_part(file, from, min64(first << COW_BLOCK_SHIFT, end));
	zero_part(file, last << COW_BLOCK_SHIFT, end);
	return 0;
}

static int fallocate_body(struct cow_op *op, void *args)
{
	struct range_args *a = args;
	int error = prepare(a->file);

	if (error != 0)
		return error;
	if (a->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		cow_file_to_page(a->file);
		error = zero_range(op, a->file, a->offset, a->end);
	} else if (!a->has_room) {
		error = -ENOSPC;
	}
	if (error == 0 && !(a->mode & FALLOC_FL_KEEP_SIZE) && a->end > a->file->size)
		error = cow_file_truncate(op, a->file, a->end);
	if (error != 0)
		return error;
	if (a->mode != FALLOC_FL_KEEP_SIZE) {
		touch(op, a->file);
		cow_file_changed(a->file);
		cow_note_write(a->file, a->offset, a->end);
	}
	return 0;
}

/*
 * Space is not promised: data goes to free blocks each time it is written, so blocks kept for a range would not be the
 * ones that its next write needs. A range that could not be written at all is refused.
 */
int cow_fallocate(struct cow_inode *inode, int mode, uint64_t offset, uint64_t length)
{
	const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	struct range_args a = {.file = inode, .offset = offset, .end = offset + length, .mode = mode};

	if (mode != 0 && mode != FALLOC_FL_KEEP_SIZE && mode != punch && mode != FALLOC_FL_ZERO_RANGE &&
	    mode != (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	if (length == 0)
		return -EINVAL;
	if (offset > COW_FILE_SIZE_MAX || length > COW_FILE_SIZE_MAX - offset)
		return -EFBIG;
	if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) == 0 &&
	    blocks_for(length) < inode->volume->store->super.total_blocks)
		a.has_room = cow_space_has(inode->volume, blocks_for(length));
	return cow_op_change(inode->volume, 0, mode == punch, fallocate_body, &a);
}

/* ------------------------------------------------------------------ seek */

struct seek_args {
	struct cow_inode *file;
	uint64_t offset;
	int whence;
	uint64_t result;
};

/* The extent with data that covers `at` or comes next. */
static int next_data(struct cow_inode *file, uint64_t at, struct cow_extent *e)
{
	int error;

	while ((error = cow_extents_find(file, at, e)) == 0 && e->kind != COW_EXTENT_PLAIN)
		at = e->at + e->blocks;
	return error;
}

static int seek_data(struct seek_args *a, uint64_t at, uint64_t *found)
{
	struct cow_extent e;
	int error = next_data(a->file, at, &e);

	if (error != 0 && error != -ENOENT)
		return error;
	*found = at;
	if (cow_pages_next(a->file, found) == NULL)
		*found = UINT64_MAX;
	if (error == 0)
		*found = min64(*found, e.at > at ? e.at : at);
	return *found >= blocks_for(a->file->size) ? -ENXIO : 0;
}

static int seek_hole(struct seek_args *a, uint64_t at, uint64_t *found)
{
	uint64_t end = blocks_for(a->file->size);

	for (*found = at; *found < end;) {
		struct cow_extent e;
		if (cow_pages_get(a->file, *found) != NULL) {
			++*found;
			continue;
		}
		int error = next_data(a->file, *found, &e);
		if (error == -ENOENT || (error == 0 && e.at > *found))
			return 0;
		if (error != 0)
			return error;
		*found = e.at + e.blocks;
	}
	return 0;
}

static int seek_body(struct cow_op *op, void *args)
{
	struct seek_args *a = args;
	uint64_t found = 0;
	int error = cow_file_check(a->file);

	(void)op;
	if (error == 0)
		error = cow_inode_check_live(a->file);
	if (error != 0)
		return error;
	if (a->offset >= a->file->size)
		return -ENXIO;
	if (a->file->body == COW_BODY_INLINE) {
		a->result = a->whence == SEEK_DATA ? a->offset : a->file->size;
		return 0;
	}
	error = a->whence == SEEK_DATA ? seek_data(a, block_of(a->offset), &found)
				       : seek_hole(a, block_of(a->offset), &found);
	if (error != 0)
		return error;
	a->result = min64(found << COW_BLOCK_SHIFT, a->file->size);
	if (a->result < a->offset)
		a->result = a->offset;
	return 0;
}

int64_t cow_seek(struct cow_inode *inode, uint64_t offset, int whence)
{
	struct seek_args a = {.file = inode, .offset = offset, .whence = whence};

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	int error = cow_op_read(inode->volume, seek_body, &a);
	return error != 0 ? error : (int64_t)a.result;
}

/* ------------------------------------------------------------------ giving up */

static void free_content(struct cow_inode *file)
{
	free(file->data);
	file->data = NULL;
	file->data_length = 0;
	file->blocks = 0;
	file->tree = (struct cow_tree){.kind = file->tree.kind};
	if (cow_inode_is_file(file))
		file->body = COW_BODY_NONE;
}

void cow_file_drop(struct cow_inode *file)
{
	struct cow_store *store = file->volume->store;

	assert(!cow_inode_is_dir(file));
	cow_pages_drop(file, 0, UINT64_MAX);
	if (S_ISLNK(file->mode)) {
		cow_blob_drop(store, &file->target);
		return;
	}
	cow_extents_claim(file, -1);
	if (file->body == COW_BODY_TREE)
		cow_tree_drop(store, &file->tree);
	free_content(file);
	cow_file_changed(file);
}

void cow_file_forget(struct cow_inode *file)
{
	assert(file->pages.count == 0);
	free(file->data);
	file->data = NULL;
	cow_blob_forget(&file->target);
}
