/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/view/content.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "store/cursor.h"
#include "fs/core/volume.h"

/* ------------------------------------------------------------------ byte strings */

int cow_content_blob(struct cow_store *store, struct cow_ptr root, uint32_t length, uint8_t **bytes)
{
	struct cow_tree tree = {root, COW_KIND_BLOB};
	uint8_t chunk[COW_VALUE_MAX], *all = malloc(length != 0 ? length : 1);
	uint32_t got;
	uint64_t key;

	if (all == NULL)
		return -ENOMEM;
	for (uint32_t offset = 0; offset < length; offset += got) {
		uint32_t want = length - offset < COW_BLOB_CHUNK ? length - offset : COW_BLOB_CHUNK;
		int error = cow_walk_next(store, &tree, offset, &key, chunk, &got);
		if (error == -ENOENT || (error == 0 && (key != offset || got != want)))
			error = COW_ERR_DAMAGED;
		if (error != 0) {
			free(all);
			return error;
		}
		memcpy(all + offset, chunk, got);
	}
	*bytes = all;
	return 0;
}

static int same_blob(struct cow_store *store, struct cow_ptr a, struct cow_ptr b, uint32_t length)
{
	uint8_t *x = NULL, *y = NULL;
	int result;

	if (cow_ptr_equal(a, b))
		return 1;
	result = cow_content_blob(store, a, length, &x);
	if (result == 0)
		result = cow_content_blob(store, b, length, &y);
	if (result == 0)
		result = memcmp(x, y, length) == 0;
	free(x);
	free(y);
	return result;
}

static int same_slice(struct cow_slice a, struct cow_slice b)
{
	return a.length == b.length && (a.length == 0 || memcmp(a.bytes, b.bytes, a.length) == 0);
}

int cow_content_same_attributes(struct cow_volume *volume, const struct cow_record *a, const struct cow_record *b)
{
	if (a->mode != b->mode || a->uid != b->uid || a->gid != b->gid || a->xattr_length != b->xattr_length)
		return 0;
	if (a->xattr_length > COW_XATTR_INLINE_MAX)
		return same_blob(volume->store, a->xattr_tree, b->xattr_tree, a->xattr_length);
	return same_slice(a->xattr, b->xattr);
}

/* ------------------------------------------------------------------ extents of a record, one after the other */

struct stream {
	struct cow_volume *volume;
	const struct cow_record *record;
	struct cow_cursor cursor; /* TREE */
	uint32_t offset;          /* EXTENTS: in the list */
	bool has;                 /* an extent, or what is left of one */
	struct cow_extent extent;
	uint8_t sums[4 * COW_EXTENT_BLOCKS_MAX];
};

static void stream_open(struct stream *s, struct cow_volume *volume, const struct cow_record *record)
{
	s->volume = volume;
	s->record = record;
	s->offset = 0;
	s->has = false;
	cow_cursor_open(&s->cursor, volume->store, record->body == COW_BODY_TREE ? record->tree : (struct cow_ptr){0},
			COW_KIND_FILE);
}

static void take(struct stream *s, const uint8_t *bytes, uint32_t length, uint64_t at, uint32_t *used)
{
	int error = cow_extent_decode(bytes, length, at, 0, &s->extent, used);

	assert(error == 0);
	if (s->extent.kind == COW_EXTENT_PLAIN)
		memcpy(s->sums, s->extent.sums, 4u * s->extent.blocks);
	s->extent.sums = s->sums;
	/* What was never written reads as a hole. */
	s->has = s->extent.kind == COW_EXTENT_PLAIN;
}

/* Fetches the next extent, unless the stream is at a sub-tree: whether to go in is for the caller to say. */
static void refill(struct stream *s)
{
	uint32_t used;

	while (!s->has && s->record->body == COW_BODY_EXTENTS && s->offset < s->record->data.length) {
		const uint8_t *p = s->record->data.bytes + s->offset;
		take(s, p + 8, s->record->data.length - s->offset - 8, get64(p), &used);
		s->offset += 8 + used;
	}
	while (!s->has && s->cursor.at == COW_AT_ITEM) {
		take(s, s->cursor.value, s->cursor.length, s->cursor.key, &used);
		cow_cursor_skip(&s->cursor);
	}
}

/* No data of the stream lies below this file block. */
static uint64_t low(const struct stream *s)
{
	return s->has ? s->extent.at : s->cursor.at == COW_AT_CHILD ? s->cursor.key : UINT64_MAX;
}

static void consume(struct stream *s, uint32_t blocks)
{
	assert(s->has && blocks <= s->extent.blocks);
	s->extent.at += blocks;
	s->extent.block += blocks;
	s->extent.sums += 4u * blocks;
	s->extent.blocks = (uint16_t)(s->extent.blocks - blocks);
	s->has = s->extent.blocks != 0;
}

/* ------------------------------------------------------------------ blocks */

static int read_blocks(const struct stream *s, uint32_t count, uint8_t *bytes)
{
	int error = cow_dev_read(s->volume->dev, bytes, (size_t)count * COW_BLOCK, s->extent.block << COW_BLOCK_SHIFT);

	for (uint32_t i = 0; i < count && error == 0; i++) {
		if (cow_extent_sum(bytes + (size_t)i * COW_BLOCK) == get32(s->extent.sums + 4 * i))
			continue;
		cow_volume_log(s->volume, COW_LOG_ERROR,
			       "file %" PRIu64 " at offset %" PRIu64 ": block %" PRIu64 " does not fit its checksum",
			       s->record->number, (s->extent.at + i) << COW_BLOCK_SHIFT, s->extent.block + i);
		error = -EIO;
	}
	return error;
}

/* Data against a hole. */
static int all_zero(const struct stream *s, uint32_t count)
{
	uint8_t *bytes = cow_mem_new((size_t)(count + 1) * COW_BLOCK), *zero = bytes + (size_t)count * COW_BLOCK;
	uint32_t sum = cow_extent_sum(zero);
	int result = 0;

	for (uint32_t i = 0; i < count; i++)
		if (get32(s->extent.sums + 4 * i) != sum)
			goto out;
	result = read_blocks(s, count, bytes);
	for (uint32_t i = 0; i < count && result == 0; i++)
		if (memcmp(bytes + (size_t)i * COW_BLOCK, zero, COW_BLOCK) != 0)
			goto out;
	if (result == 0)
		result = 1;
out:
	free(bytes);
	return result;
}

static int same_blocks(const struct stream *a, const struct stream *b, uint32_t count)
{
	size_t size = (size_t)count * COW_BLOCK;
	int result;

	if (memcmp(a->extent.sums, b->extent.sums, 4u * count) != 0)
		return 0;
	if (a->extent.block == b->extent.block)
		return 1;
	uint8_t *bytes = malloc(2 * size);
	if (bytes == NULL)
		return -ENOMEM;
	result = read_blocks(a, count, bytes);
	if (result == 0)
		result = read_blocks(b, count, bytes + size);
	if (result == 0)
		result = memcmp(bytes, bytes + size, size) == 0;
	free(bytes);
	return result;
}

/* ------------------------------------------------------------------ files */

/* Goes into one of two sub-trees that are not the same, as cow_cursor_align() does; or into the only one. */
static int enter(struct stream *a, struct stream *b)
{
	bool in_a = !a->has && a->cursor.at == COW_AT_CHILD, in_b = !b->has && b->cursor.at == COW_AT_CHILD;

	if (in_a && in_b && cow_ptr_equal(a->cursor.child, b->cursor.child)) {
		cow_cursor_skip(&a->cursor);
		cow_cursor_skip(&b->cursor);
		return 0;
	}
	if (in_a && in_b && a->cursor.level != b->cursor.level)
		in_a = a->cursor.level > b->cursor.level;
	else if (in_a && in_b)
		in_a = a->cursor.key <= b->cursor.key;
	return cow_cursor_enter(in_a ? &a->cursor : &b->cursor);
}

static bool must_enter(const struct stream *a, const struct stream *b)
{
	bool in_a = !a->has && a->cursor.at == COW_AT_CHILD, in_b = !b->has && b->cursor.at == COW_AT_CHILD;

	if (in_a && in_b)
		return true;
	/* A hole that reaches up to the sub-tree can be told without going in. */
	return (in_a && low(a) <= low(b)) || (in_b && low(b) <= low(a));
}

/* One step with both streams at the next extent, or at a hole that is known to some length. 1 go on, 0 they differ. */
static int compare_step(struct stream *a, struct stream *b)
{
	struct stream *first = low(a) <= low(b) ? a : b, *other = first == a ? b : a;
	uint64_t start = low(first), next = low(other);
	uint32_t count = first->extent.blocks;
	int result;

	if (start == next) {
		count = count < other->extent.blocks ? count : other->extent.blocks;
		result = same_blocks(a, b, count);
		consume(other, count);
	} else {
		count = next - start < count ? (uint32_t)(next - start) : count;
		result = all_zero(first, count);
	}
	consume(first, count);
	return result;
}

static int same_extents(struct cow_volume *volume, const struct cow_record *a, const struct cow_record *b)
{
	struct stream x, y;
	int result = 1;

	stream_open(&x, volume, a);
	stream_open(&y, volume, b);
	for (;;) {
		refill(&x);
		refill(&y);
		if (low(&x) == UINT64_MAX && low(&y) == UINT64_MAX)
			break;
		if (must_enter(&x, &y)) {
			result = enter(&x, &y);
			if (result != 0)
				break;
			result = 1;
			continue;
		}
		result = compare_step(&x, &y);
		if (result != 1)
			break;
	}
	cow_cursor_close(&x.cursor);
	cow_cursor_close(&y.cursor);
	return result;
}

/* Up to COW_INLINE_MAX bytes of a small file, whatever its form. */
static int small_bytes(struct cow_volume *volume, const struct cow_record *r, uint8_t *bytes)
{
	uint8_t block[COW_BLOCK];
	struct stream s;
	int error = 0;

	memset(bytes, 0, COW_INLINE_MAX);
	if (r->body == COW_BODY_INLINE) {
		memcpy(bytes, r->data.bytes, r->data.length);
		return 0;
	}
	stream_open(&s, volume, r);
	error = cow_cursor_item(&s.cursor);
	if (error == 0)
		refill(&s);
	if (error == 0 && s.has && s.extent.at == 0) {
		error = read_blocks(&s, 1, block);
		memcpy(bytes, block, COW_INLINE_MAX);
	}
	cow_cursor_close(&s.cursor);
	return error;
}

static int same_small(struct cow_volume *volume, const struct cow_record *a, const struct cow_record *b)
{
	uint8_t x[COW_INLINE_MAX], y[COW_INLINE_MAX];
	int error = small_bytes(volume, a, x);

	if (error == 0)
		error = small_bytes(volume, b, y);
	return error != 0 ? error : memcmp(x, y, a->size) == 0;
}

static int same_file(struct cow_volume *volume, const struct cow_record *a, const struct cow_record *b)
{
	if (a->size != b->size)
		return 0;
	if (a->body == COW_BODY_INLINE || b->body == COW_BODY_INLINE)
		return same_small(volume, a, b);
	if (a->body == b->body && a->body == COW_BODY_TREE && cow_ptr_equal(a->tree, b->tree))
		return 1;
	return same_extents(volume, a, b);
}

static int same_symlink(struct cow_volume *volume, const struct cow_record *a, const struct cow_record *b)
{
	if (a->size != b->size || a->body != b->body)
		return 0;
	if (a->body == COW_BODY_TREE)
		return same_blob(volume->store, a->tree, b->tree, (uint32_t)a->size);
	return same_slice(a->data, b->data);
}

int cow_content_same(struct cow_volume *volume, const struct cow_record *a, const struct cow_record *b)
{
	assert((a->mode & S_IFMT) == (b->mode & S_IFMT) && !S_ISDIR(a->mode));
	if (S_ISREG(a->mode))
		return same_file(volume, a, b);
	if (S_ISLNK(a->mode))
		return same_symlink(volume, a, b);
	return a->rdev == b->rdev;
}
