/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Records, entries, rows and extents: random values there and back, golden bytes, and every decoder fed with damaged
 * bytes in buffers of exactly their length (so that the address sanitizer sees a read too many).
 *
 * COW_SEED=n runs another seed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "cow.h"
#include "fs/format/record.h"
#include "store/layout.h"

#define TOTAL_BLOCKS (1ull << 21)
#define ROUNDS 20000

static uint64_t seed(void)
{
	const char *given = getenv("COW_SEED");

	return given != NULL ? strtoull(given, NULL, 0) : 1;
}

static uint64_t any(uint64_t *state, uint64_t below)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return (z ^ z >> 31) % below;
}

/* ------------------------------------------------------------------ random values */

struct sample {
	struct cow_record record;
	uint8_t data[COW_INLINE_MAX], xattr[COW_XATTR_INLINE_MAX];
};

static struct cow_ptr any_ptr(uint64_t *r)
{
	/* Blocks 32 to 1,023 of a group are never system blocks. */
	uint64_t block = any(r, TOTAL_BLOCKS / 1024) * 1024 + 32 + any(r, 992);

	return (struct cow_ptr){block, any(r, UINT64_MAX), 1 + any(r, 1000)};
}

static struct cow_when any_when(uint64_t *r)
{
	return (struct cow_when){(int64_t)any(r, UINT64_MAX), (uint32_t)any(r, 1000000000)};
}

static void any_bytes(uint64_t *r, uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(1 + any(r, 255));
}

static struct cow_extent any_extent(uint64_t *r, uint64_t at, uint8_t *sums, unsigned blocks_max)
{
	struct cow_extent e = {.at = at, .blocks = (uint16_t)(1 + any(r, blocks_max)), .sums = sums};

	e.kind = any(r, 4) != 0 ? COW_EXTENT_PLAIN : COW_EXTENT_UNWRITTEN;
	e.block = any(r, TOTAL_BLOCKS / 1024) * 1024 + 32 + any(r, 992 - COW_EXTENT_BLOCKS_MAX);
	any_bytes(r, sums, 4u * e.blocks);
	return e;
}

static void any_extents(uint64_t *r, struct sample *s)
{
	uint8_t sums[4 * COW_EXTENT_BLOCKS_MAX], bytes[COW_EXTENT_BYTES_MAX];
	uint64_t at = any(r, 100);
	uint32_t length = 0;

	do {
		struct cow_extent e = any_extent(r, at, sums, COW_EXTENT_BLOCKS_MAX);
		uint32_t used = cow_extent_encode(&e, bytes);
		if (length + 8 + used > COW_EXTENTS_MAX)
			break;
		put64(s->data + length, at);
		memcpy(s->data + length + 8, bytes, used);
		length += 8 + used;
		at += e.blocks + any(r, 3);
		s->record.blocks += e.blocks;
	} while (any(r, 3) != 0);
	s->record.data = (struct cow_slice){s->data, length};
}

static void any_xattr(uint64_t *r, struct sample *s)
{
	struct cow_record *rec = &s->record;
	uint32_t length = 0;

	if (any(r, 3) == 0) {
		rec->xattr_length = COW_XATTR_INLINE_MAX + 1 + (uint32_t)any(r, 1000);
		rec->xattr_tree = any_ptr(r);
		return;
	}
	for (uint8_t name = 'a'; name < 'a' + 3; name++) {
		uint8_t value = (uint8_t)any(r, 20);
		s->xattr[length] = 2;
		put32(s->xattr + length + 1, value);
		s->xattr[length + 5] = name;
		any_bytes(r, s->xattr + length + 6, 1u + value);
		length += 7u + value;
	}
	rec->xattr = (struct cow_slice){s->xattr, length};
	rec->xattr_length = length;
}

static void any_file(uint64_t *r, struct sample *s)
{
	struct cow_record *rec = &s->record;

	rec->body = (enum cow_body)any(r, COW_BODY_DIR);
	rec->size = any(r, COW_FILE_SIZE_MAX);
	if (rec->body == COW_BODY_INLINE) {
		rec->size = 1 + any(r, COW_INLINE_MAX);
		any_bytes(r, s->data, rec->size);
		rec->data = (struct cow_slice){s->data, (uint32_t)rec->size};
	} else if (rec->body == COW_BODY_EXTENTS) {
		any_extents(r, s);
	} else if (rec->body == COW_BODY_TREE) {
		rec->tree = any_ptr(r);
		rec->blocks = 1 + any(r, 1000);
	}
}

static void any_symlink(uint64_t *r, struct sample *s)
{
	struct cow_record *rec = &s->record;

	rec->body = any(r, 2) ? COW_BODY_INLINE : COW_BODY_TREE;
	if (rec->body == COW_BODY_TREE) {
		rec->size = COW_TARGET_INLINE_MAX + 1 + any(r, COW_SYMLINK_MAX - COW_TARGET_INLINE_MAX);
		rec->tree = any_ptr(r);
		return;
	}
	rec->size = 1 + any(r, COW_TARGET_INLINE_MAX);
	any_bytes(r, s->data, rec->size);
	rec->data = (struct cow_slice){s->data, (uint32_t)rec->size};
}

static void any_dir(uint64_t *r, struct cow_record *rec)
{
	rec->body = COW_BODY_DIR;
	if (any(r, 3) != 0)
		rec->tree = any_ptr(r);
	rec->totals = (struct cow_totals){any(r, 99), any(r, UINT64_MAX), any(r, 9), any(r, 9), any(r, 9),
					   any(r, 9), 7};
	rec->is_world = any(r, 2);
	if (!rec->is_world)
		return;
	rec->read_only = any(r, 2);
	rec->tag = any(r, 5);
	if (any(r, 2))
		rec->links = any_ptr(r);
	rec->backs = any(r, 100);
	rec->link_bytes = any(r, 1000);
	rec->link_blocks = any(r, 100);
	rec->link_files = any(r, 10);
}

static void any_record(uint64_t *r, struct sample *s)
{
	static const uint32_t types[] = {S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK,
					 S_IFIFO, S_IFSOCK};
	struct cow_record *rec = &s->record;

	memset(s, 0, sizeof(*s));
	rec->mode = types[any(r, 9)] | (uint32_t)any(r, 07777 + 1);
	rec->uid = (uint32_t)any(r, 70000);
	rec->gid = (uint32_t)any(r, 70000);
	rec->number = 1 + any(r, 1u << 30);
	rec->mtime = any_when(r);
	rec->atime = any(r, 2) ? rec->mtime : any_when(r);
	rec->ctime = any(r, 2) ? rec->mtime : any_when(r);
	rec->btime = any(r, 2) ? rec->mtime : any_when(r);
	if (S_ISREG(rec->mode))
		any_file(r, s);
	else if (S_ISLNK(rec->mode))
		any_symlink(r, s);
	else if (S_ISDIR(rec->mode))
		any_dir(r, rec);
	else if (S_ISCHR(rec->mode) || S_ISBLK(rec->mode))
		rec->rdev = (uint32_t)any(r, 3000);
	if (!S_ISDIR(rec->mode) && any(r, 4) == 0)
		rec->tag = any(r, 1000);
	if (any(r, 3) == 0)
		any_xattr(r, s);
}

/* ------------------------------------------------------------------ there and back */

static void same_slice(struct cow_slice a, struct cow_slice b)
{
	assert_int_equal(a.length, b.length);
	if (a.length != 0)
		assert_memory_equal(a.bytes, b.bytes, a.length);
}

static void same_when(struct cow_when a, struct cow_when b)
{
	assert_true(a.seconds == b.seconds && a.nanoseconds == b.nanoseconds);
}

static void same_ptr(struct cow_ptr a, struct cow_ptr b)
{
	assert_true(a.addr == b.addr && a.sum == b.sum && a.generation == b.generation);
}

static void same_record(const struct cow_record *a, const struct cow_record *b)
{
	assert_int_equal(a->mode, b->mode);
	assert_true(a->uid == b->uid && a->gid == b->gid && a->rdev == b->rdev);
	assert_true(a->number == b->number && a->size == b->size && a->tag == b->tag);
	same_when(a->atime, b->atime);
	same_when(a->mtime, b->mtime);
	same_when(a->ctime, b->ctime);
	same_when(a->btime, b->btime);
	assert_int_equal(a->body, b->body);
	same_slice(a->data, b->data);
	same_ptr(a->tree, b->tree);
	assert_true(a->blocks == b->blocks);
	assert_memory_equal(&a->totals, &b->totals, sizeof(a->totals));
	assert_true(a->is_world == b->is_world && a->read_only == b->read_only);
	same_ptr(a->links, b->links);
	assert_true(a->backs == b->backs && a->link_bytes == b->link_bytes);
	assert_true(a->link_blocks == b->link_blocks && a->link_files == b->link_files);
	assert_int_equal(a->xattr_length, b->xattr_length);
	same_slice(a->xattr, b->xattr);
	same_ptr(a->xattr_tree, b->xattr_tree);
}

static void records_there_and_back(void **state)
{
	uint64_t r = seed();
	uint8_t bytes[COW_RECORD_MAX];

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct sample s;
		struct cow_record back;
		any_record(&r, &s);
		uint32_t length = cow_record_encode(&s.record, bytes);
		assert_int_equal(cow_record_decode(bytes, length, TOTAL_BLOCKS, &back), 0);
		same_record(&s.record, &back);
		assert_int_equal(cow_record_decode(bytes, length, 0, &back), 0);
		same_record(&s.record, &back);
		assert_int_equal(cow_record_decode(bytes, length - 1, 0, &back), COW_ERR_DAMAGED);
	}
}

static void dirty_pointers_are_for_memory_only(void **state)
{
	struct cow_record record = {
		.mode = S_IFDIR | 0755, .number = 5, .body = COW_BODY_DIR, .tree = {.addr = COW_PTR_DIRTY | 77},
	}, back;
	uint8_t bytes[COW_RECORD_MAX];
	uint32_t length = cow_record_encode(&record, bytes);

	(void)state;
	assert_int_equal(cow_record_decode(bytes, length, 0, &back), 0);
	assert_true(back.tree.addr == (COW_PTR_DIRTY | 77));
	assert_int_equal(cow_record_decode(bytes, length, TOTAL_BLOCKS, &back), COW_ERR_DAMAGED);
}

static void system_blocks_are_nobodys(void **state)
{
	uint8_t bytes[COW_EXTENT_BYTES_MAX], sums[4 * COW_EXTENT_BLOCKS_MAX] = {0};
	struct cow_extent e = {.at = 1, .kind = COW_EXTENT_PLAIN, .sums = sums}, back;
	uint32_t used;

	(void)state;
	for (uint64_t block = 0; block < 3 * 1024; block++)
		for (unsigned blocks = 1; blocks <= 64; blocks += 21) {
			bool system = block == 0;
			for (unsigned i = 0; i < blocks; i++)
				system |= cow_layout_is_system(block + i);
			e.block = block;
			e.blocks = (uint16_t)blocks;
			uint32_t length = cow_extent_encode(&e, bytes);
			assert_int_equal(cow_extent_decode(bytes, length, 1, TOTAL_BLOCKS, &back, &used),
					 system ? COW_ERR_DAMAGED : 0);
		}
	e.block = TOTAL_BLOCKS - 3;
	e.blocks = 4;
	assert_int_equal(cow_extent_decode(bytes, cow_extent_encode(&e, bytes), 1, TOTAL_BLOCKS, &back, &used),
			 COW_ERR_DAMAGED);
}

/* ------------------------------------------------------------------ entries and rows */

static uint32_t any_dirent(uint64_t *r, uint8_t *bytes)
{
	uint8_t name[COW_NAME_BYTES_MAX];
	struct cow_slice slice = {name, 1 + (uint32_t)any(r, COW_NAME_BYTES_MAX)};
	struct sample s;

	for (uint32_t i = 0; i < slice.length; i++)
		name[i] = (uint8_t)('a' + any(r, 26));
	if (any(r, 4) == 0)
		return cow_dirent_encode_link(slice, any(r, 2) ? S_IFREG : S_IFLNK, 1 + any(r, 1000), bytes);
	any_record(r, &s);
	return cow_dirent_encode_record(slice, &s.record, bytes);
}

static uint32_t any_link_row(uint64_t *r, uint8_t *bytes)
{
	struct cow_back backs[COW_BACKS_INLINE_MAX];
	uint32_t count = (uint32_t)any(r, 12);
	struct cow_ptr tree = count > COW_BACKS_INLINE_MAX ? any_ptr(r) : (struct cow_ptr){0};
	struct sample s;

	if (any(r, 4) == 0)
		return cow_spine_row_encode((struct cow_back){1 + any(r, 100), 128 + any(r, 1u << 30)}, bytes);
	for (uint32_t i = 0; i < COW_BACKS_INLINE_MAX; i++)
		backs[i] = (struct cow_back){1 + any(r, 100), 128 + any(r, 1u << 30)};
	do
		any_record(r, &s);
	while (s.record.body == COW_BODY_DIR);
	return cow_link_row_encode(&s.record, backs, count, tree, bytes);
}

static uint32_t any_value(uint64_t *r, uint8_t kind, uint8_t *bytes)
{
	uint8_t sums[4 * COW_EXTENT_BLOCKS_MAX];
	struct cow_extent e;

	switch (kind) {
	case COW_KIND_DIR:
		return any_dirent(r, bytes);
	case COW_KIND_LINKS:
		return any_link_row(r, bytes);
	case COW_KIND_FILE:
		e = any_extent(r, 128, sums, COW_EXTENT_BLOCKS_MAX);
		return cow_extent_encode(&e, bytes);
	default:
		any_bytes(r, bytes, COW_BLOB_CHUNK);
		return COW_BLOB_CHUNK;
	}
}

static uint64_t any_key(uint8_t kind)
{
	return kind == COW_KIND_BLOB ? 3 * COW_BLOB_CHUNK : 128;
}

static void entries_there_and_back(void **state)
{
	uint8_t bytes[COW_VALUE_MAX], again[COW_VALUE_MAX];
	struct cow_record record;
	struct cow_dirent entry;
	uint64_t r = seed();

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t length = any_dirent(&r, bytes), length_again;
		assert_true(length <= COW_VALUE_MAX);
		assert_int_equal(cow_dirent_decode(bytes, length, &entry), 0);
		if (entry.is_link) {
			length_again = cow_dirent_encode_link(entry.name, entry.link_type, entry.link_key, again);
		} else {
			assert_int_equal(cow_record_decode(entry.record.bytes, entry.record.length, 0, &record), 0);
			length_again = cow_dirent_encode_record(entry.name, &record, again);
		}
		assert_int_equal(length, length_again);
		assert_memory_equal(bytes, again, length);
	}
}

static uint32_t encode_again(const struct cow_link_row *row, uint8_t *bytes)
{
	struct cow_back backs[COW_BACKS_INLINE_MAX];
	struct cow_record record;

	assert_int_equal(cow_record_decode(row->record.bytes, row->record.length, 0, &record), 0);
	for (uint32_t i = 0; i < row->backs && row->backs <= COW_BACKS_INLINE_MAX; i++)
		backs[i] = (struct cow_back){get64(row->back_bytes + 16 * i), get64(row->back_bytes + 16 * i + 8)};
	return cow_link_row_encode(&record, backs, row->backs, row->back_tree, bytes);
}

static void rows_there_and_back(void **state)
{
	uint8_t bytes[COW_VALUE_MAX], again[COW_VALUE_MAX];
	struct cow_link_row row;
	uint64_t r = seed();

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct cow_back up;
		uint32_t length = any_link_row(&r, bytes);
		int result = cow_link_row_decode(bytes, length, &row);
		assert_true(length <= COW_VALUE_MAX);
		if (bytes[0] == 2) {
			assert_int_equal(result, -ENOENT);
			assert_int_equal(cow_spine_row_decode(bytes, length, &up), 0);
			assert_int_equal(cow_spine_row_encode(up, again), length);
		} else {
			assert_int_equal(result, 0);
			assert_int_equal(encode_again(&row, again), length);
		}
		assert_memory_equal(bytes, again, length);
	}
}

/* ------------------------------------------------------------------ damage */

struct counter {
	struct cow_claims visitor;
	unsigned trees, blocks;
};

static void count_tree(struct cow_claims *self, uint8_t *ptr, uint8_t kind)
{
	assert_true(kind == COW_KIND_DIR || kind == COW_KIND_LINKS || kind == COW_KIND_FILE || kind == COW_KIND_BLOB);
	((struct counter *)self)->trees += !cow_ptr_is_null(cow_ptr_get(ptr));
}

static void count_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	assert_true(block != 0 && block + length <= TOTAL_BLOCKS);
	((struct counter *)self)->blocks += length;
}

static uint32_t mutate(uint64_t *r, uint8_t *bytes, uint32_t length)
{
	for (uint64_t n = 1 + any(r, 3); n > 0; n--) {
		static const uint8_t telling[] = {0, 1, 2, 0x7f, 0x80, 0xff};
		uint64_t at = any(r, any(r, 2) ? length : length < 48 ? length : 48);
		if (any(r, 3) == 0)
			bytes[at] ^= (uint8_t)(1u << any(r, 8));
		else
			bytes[at] = any(r, 2) ? telling[any(r, 6)] : (uint8_t)any(r, 256);
	}
	if (any(r, 5) == 0)
		length = (uint32_t)any(r, length + 1);
	return length;
}

/* What is accepted must be usable by those who trust it, and say so in one way only. */
static void try_value(uint8_t kind, const uint8_t *bytes, uint32_t length, unsigned *accepted)
{
	struct counter counter = {{count_tree, count_run}, 0, 0};
	uint8_t *copy = malloc(length != 0 ? length : 1), again[COW_VALUE_MAX];
	struct cow_dirent entry;
	struct cow_record record;
	int result;

	assert_non_null(copy);
	memcpy(copy, bytes, length);
	result = cow_value_validate(kind, any_key(kind), copy, length, TOTAL_BLOCKS);
	assert_true(result == 0 || result == COW_ERR_DAMAGED);
	if (result == 0) {
		++*accepted;
		cow_value_claims(kind, copy, length, &counter.visitor);
		assert_memory_equal(copy, bytes, length);
	}
	if (result == 0 && kind == COW_KIND_DIR && cow_dirent_decode(copy, length, &entry) == 0 && !entry.is_link) {
		assert_int_equal(cow_record_decode(entry.record.bytes, entry.record.length, 0, &record), 0);
		assert_int_equal(cow_dirent_encode_record(entry.name, &record, again), length);
		assert_memory_equal(again, bytes, length);
	}
	free(copy);
}

static void damaged_values(void **state)
{
	static const uint8_t kinds[] = {COW_KIND_DIR, COW_KIND_LINKS, COW_KIND_FILE, COW_KIND_BLOB, COW_KIND_NUMBERS};
	unsigned good = 0, accepted = 0;
	uint64_t r = seed();

	(void)state;
	for (unsigned i = 0; i < ROUNDS * 5; i++) {
		uint8_t kind = kinds[any(&r, 5)], bytes[COW_VALUE_MAX] = {0};
		uint32_t length = any_value(&r, kind, bytes);
		if (kind != COW_KIND_NUMBERS) {
			unsigned before = good;
			try_value(kind, bytes, length, &good);
			assert_int_equal(good, before + 1);
		}
		try_value(kind, bytes, mutate(&r, bytes, length), &accepted);
	}
	assert_true(accepted > 0 && accepted < ROUNDS * 5);
}

static void noise(void **state)
{
	uint8_t bytes[300];
	unsigned accepted = 0;
	uint64_t r = seed();

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint32_t length = (uint32_t)any(&r, sizeof(bytes));
		for (uint32_t k = 0; k < length; k++)
			bytes[k] = (uint8_t)any(&r, any(&r, 2) ? 3 : 256);
		for (uint8_t kind = 0; kind < 9; kind++)
			if (kind != COW_KIND_BLOB)
				try_value(kind, bytes, length, &accepted);
	}
}

static void claims_are_complete(void **state)
{
	struct cow_back backs[9] = {{1, 200}};
	struct cow_record dir = {
		.mode = S_IFDIR, .number = 1, .body = COW_BODY_DIR, .tree = {100, 1, 1}, .is_world = true,
		.links = {101, 1, 1}, .xattr_length = 1000, .xattr_tree = {102, 1, 1},
	};
	struct cow_record file = {
		.mode = S_IFREG, .number = 2, .body = COW_BODY_TREE, .tree = {103, 1, 1}, .blocks = 1,
	};
	struct counter counter = {{count_tree, count_run}, 0, 0};
	uint8_t bytes[COW_VALUE_MAX];

	(void)state;
	cow_value_claims(COW_KIND_DIR, bytes, cow_dirent_encode_record((struct cow_slice){0}, &dir, bytes),
			 &counter.visitor);
	assert_int_equal(counter.trees, 3);
	uint32_t length = cow_link_row_encode(&file, backs, 9, (struct cow_ptr){104, 1, 1}, bytes);
	cow_value_claims(COW_KIND_LINKS, bytes, length, &counter.visitor);
	assert_int_equal(counter.trees, 5);
	assert_int_equal(counter.blocks, 0);
}

/* ------------------------------------------------------------------ golden bytes */

static void same_hex(const uint8_t *bytes, uint32_t length, const char *hex)
{
	char text[2 * COW_VALUE_MAX + 1] = "";

	for (uint32_t i = 0; i < length; i++)
		sprintf(text + 2 * i, "%02x", bytes[i]);
	assert_string_equal(text, hex);
}

static void golden(void **state)
{
	const struct cow_when time = {0x0102030405, 999999999};
	uint8_t bytes[COW_VALUE_MAX], sums[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	struct cow_slice name = {(const uint8_t *)"ab", 2};
	struct cow_record file = {
		.mode = S_IFREG | 0644, .uid = 0x1111, .gid = 0x2222, .number = 0x0a0b, .size = 3, .mtime = time,
		.atime = time, .ctime = {9, 8}, .btime = time, .tag = 0x77, .body = COW_BODY_INLINE,
		.data = {(const uint8_t *)"xyz", 3}, .xattr_length = 8, .xattr = {(const uint8_t *)"\2\1\0\0\0u.v", 8},
	};
	struct cow_record dir = {
		.mode = S_IFDIR | 0755, .number = 1, .mtime = time, .atime = time, .ctime = time, .btime = time,
		.body = COW_BODY_DIR, .tree = {0x30, 0x31, 0x32}, .totals = {1, 2, 3, 4, 5, 6, 7}, .is_world = true,
		.read_only = true, .links = {0x40, 0x41, 0x42}, .backs = 8, .link_bytes = 9, .link_blocks = 10,
		.link_files = 11,
	};
	struct cow_extent extent = {.at = 5, .kind = COW_EXTENT_PLAIN, .blocks = 2, .block = 0x1234, .sums = sums};
	struct cow_back back = {0x55, 0x666};

	(void)state;
	same_hex(bytes, cow_dirent_encode_record(name, &file, bytes),
		 "026162" "5101" "a481" "11110000" "22220000" "0b0a000000000000" "0504030201000000ffc99a3b"
		 "090000000000000008000000" "7700000000000000" "030078797a" "080201000000752e76");
	same_hex(bytes, cow_dirent_encode_link(name, S_IFREG, 0x99, bytes), "026162" "ff08" "9900000000000000");
	same_hex(bytes, cow_record_encode(&dir, bytes),
		 "040c" "ed41" "00000000" "00000000" "0100000000000000" "0504030201000000ffc99a3b"
		 "300000000000000031000000000000003200000000000000"
		 "01000000000000000200000000000000030000000000000004000000000000000500000000000000"
		 "06000000000000000700000000000000"
		 "400000000000000041000000000000004200000000000000"
		 "080000000000000009000000000000000a000000000000000b00000000000000");
	same_hex(bytes, cow_extent_encode(&extent, bytes), "01000200" "3412000000000000" "0102030405060708");
	same_hex(bytes, cow_spine_row_encode(back, bytes), "02" "5500000000000000" "6606000000000000");
	file.tag = file.xattr_length = 0;
	file.ctime = time;
	same_hex(bytes, cow_link_row_encode(&file, &back, 1, (struct cow_ptr){0}, bytes),
		 "012500" "0100" "a481" "11110000" "22220000" "0b0a000000000000" "0504030201000000ffc99a3b" "030078797a"
		 "01000000" "5500000000000000" "6606000000000000");
	uint8_t block[COW_BLOCK] = {0};
	assert_int_equal(cow_extent_sum(block), 0x48c689ba);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden),
		cmocka_unit_test(records_there_and_back),
		cmocka_unit_test(dirty_pointers_are_for_memory_only),
		cmocka_unit_test(system_blocks_are_nobodys),
		cmocka_unit_test(entries_there_and_back),
		cmocka_unit_test(rows_there_and_back),
		cmocka_unit_test(damaged_values),
		cmocka_unit_test(noise),
		cmocka_unit_test(claims_are_complete),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
