/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Values of all kinds of trees. Input: u8 kind, u64 key, value; kind 0: a list of xattrs. What is accepted has exactly
 * one encoding, so it is decoded, encoded, and has to be the same bytes.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "cow.h"
#include "fs/world/inode_number.h"
#include "fs/format/record.h"
#include "test/fuzz/fuzz.h"

#define TOTAL_BLOCKS (1ull << 21)

struct claimed {
	struct cow_claims claims;
	uint64_t trees, blocks;
};

static void claim_tree(struct cow_claims *self, uint8_t *ptr, uint8_t kind)
{
	struct cow_ptr at = cow_ptr_get(ptr);

	assert(kind >= COW_KIND_DIR && kind <= COW_KIND_NUMBERS);
	assert(cow_ptr_is_null(at) || cow_layout_run_valid(at.addr, 1, TOTAL_BLOCKS));
	((struct claimed *)self)->trees++;
}

static void claim_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	assert(cow_layout_run_valid(block, length, TOTAL_BLOCKS));
	((struct claimed *)self)->blocks += length;
}

static struct cow_record decode(struct cow_slice bytes)
{
	struct cow_record record;
	int error = cow_record_decode(bytes.bytes, bytes.length, 0, &record);

	assert(error == 0);
	assert(record.body != COW_BODY_INLINE || record.size == record.data.length);
	return record;
}

static uint32_t encode_dirent(const uint8_t *value, uint32_t length, uint8_t *again)
{
	struct cow_dirent entry;
	struct cow_record record;
	int error = cow_dirent_decode(value, length, &entry);

	assert(error == 0);
	if (entry.is_link)
		return cow_dirent_encode_link(entry.name, entry.link_type, entry.link_key, again);
	record = decode(entry.record);
	return cow_dirent_encode_record(entry.name, &record, again);
}

static uint32_t encode_links(const uint8_t *value, uint32_t length, uint8_t *again)
{
	struct cow_back backs[COW_BACKS_INLINE_MAX], up;
	struct cow_link_row row;
	struct cow_record record;
	int error = cow_link_row_decode(value, length, &row);

	if (error == -ENOENT) {
		error = cow_spine_row_decode(value, length, &up);
		assert(error == 0);
		return cow_spine_row_encode(up, again);
	}
	assert(error == 0);
	record = decode(row.record);
	for (uint32_t i = 0; i < row.backs && row.backs <= COW_BACKS_INLINE_MAX; i++)
		backs[i] = (struct cow_back){get64(row.back_bytes + 16 * i), get64(row.back_bytes + 16 * i + 8)};
	return cow_link_row_encode(&record, backs, row.backs, row.back_tree, again);
}

static uint32_t encode_extent(uint64_t key, const uint8_t *value, uint32_t length, uint8_t *again)
{
	struct cow_extent extent;
	uint32_t used;
	int error = cow_extent_decode(value, length, key, 0, &extent, &used);

	assert(error == 0 && used == length && extent.at + extent.blocks > extent.at);
	return cow_extent_encode(&extent, again);
}

static void check_list(const uint8_t *list, uint32_t length)
{
	struct cow_slice last = {NULL, 0};

	if (cow_xattr_list_validate(list, length) != 0)
		return;
	for (uint32_t at = 0; at < length;) {
		struct cow_slice name = {list + at + 5, list[at]};
		uint32_t value = get32(list + at + 1);

		assert(name.length > 0 && strnlen((const char *)name.bytes, name.length) == name.length);
		assert(value <= COW_XATTR_VALUE_MAX && cow_slice_compare(last, name) < 0);
		at += 5 + name.length + value;
		assert(at <= length);
		last = name;
	}
}

static void check_value(uint8_t kind, uint64_t key, uint8_t *value, uint32_t length)
{
	struct claimed claimed = {{claim_tree, claim_run}, 0, 0};
	uint8_t again[2 * COW_VALUE_MAX];
	struct cow_row row;
	uint32_t made;

	if (cow_value_validate(kind, key, value, length, TOTAL_BLOCKS) != 0)
		return;
	switch (kind) {
	case COW_KIND_DIR: made = encode_dirent(value, length, again); break;
	case COW_KIND_LINKS: made = encode_links(value, length, again); break;
	case COW_KIND_FILE: made = encode_extent(key, value, length, again); break;
	case COW_KIND_NUMBERS:
		made = (uint32_t)cow_row_decode(value, length, &row);
		assert(made == 0);
		return;
	default: return;
	}
	assert(made == length && memcmp(value, again, length) == 0);
	cow_value_claims(kind, value, length, &claimed.claims);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	uint8_t kind = (uint8_t)fuzz_take(&in, 1), *value;
	uint64_t key = fuzz_take(&in, 8);
	uint32_t length = (uint32_t)in.left;

	if (kind != 0 && length > COW_VALUE_MAX)
		return 0;
	value = cow_mem_copy(in.at, length); /* of its own: a sanitizer sees its end */
	if (kind == 0)
		check_list(value, length);
	else
		check_value(kind, key, value, length);
	free(value);
	return 0;
}
