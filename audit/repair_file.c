/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files of which a part of the map is lost. What it mapped is not known, not even whether it mapped anything, so the
 * whole range must answer EIO: zeros would be wrong data that nobody notices. That is said with what the format has:
 * the range is mapped to a run of blocks kept for the purpose, with checksums that do not fit. So every reader
 * answers EIO, a write mends the block it covers, and clones, copies and removal need to know nothing of it.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/mem.h"
#include "audit/repair.h"

/* Blocks of one file (16 GiB), and, with four times the volume, of all: beyond, files are cut where the loss begins. */
#define POISON_MAX (1ull << 22)
#define POISON_TRIES 16u

struct range {
	uint64_t from, to; /* file blocks */
};

struct map {
	struct cow_repair *repair;
	const struct cow_mender *mender;
	struct range *lost; /* ascending, apart */
	size_t lost_count, lost_size;
	size_t lost_next; /* the first that may be in a gap yet to come */
	struct range *poison; /* what of it is not mapped by an extent that is left, within the file */
	size_t poison_count, poison_size;
	uint64_t end; /* of the last extent seen */
	uint64_t limit; /* blocks of the file by its size */
	/* writing */
	struct cow_build build;
	size_t next; /* poison */
	uint64_t blocks;
};

struct mended_file { /* clones share trees: the result is kept by (tree, size) */
	struct cow_ptr tree, old;
	uint64_t size, new_size, blocks;
	bool saved;
};

static void add_range(struct range **list, size_t *count, size_t *size, uint64_t from, uint64_t to)
{
	if (from >= to)
		return;
	if (*count > 0 && (*list)[*count - 1].to >= from) {
		(*list)[*count - 1].to = to;
		return;
	}
	if (*count == *size) {
		*size = *size != 0 ? 2 * *size : 16;
		*list = cow_mem_resize(*list, *size * sizeof(**list));
	}
	(*list)[(*count)++] = (struct range){from, to};
}

/* ------------------------------------------------------------------ what is lost */

static void find_lost(struct map *map, struct cow_ptr ptr, int level, uint64_t from, uint64_t to)
{
	const struct cow_mended *m = cow_mend_find(map->mender, ptr, COW_KIND_FILE, level);
	struct cow_check_item item, next;
	uint8_t *bytes;

	if (m != NULL && !m->lost)
		return;
	bytes = cow_mem_new(COW_BLOCK);
	if (m == NULL || !cow_repair_load(map->repair, ptr, COW_KIND_FILE, level, bytes) || bytes[5] == 0) {
		add_range(&map->lost, &map->lost_count, &map->lost_size, from, to);
	} else {
		for (unsigned i = 0; i < get16(bytes + 6); i++) {
			uint64_t end = to;

			cow_check_item_at(bytes, i, &item);
			if (i + 1u < get16(bytes + 6) && cow_check_item_at(bytes, i + 1, &next))
				end = next.key;
			if (end <= from || end > to) /* keys that do not belong here: else one node had many places */
				end = to;
			find_lost(map, cow_ptr_get(item.value), bytes[5] - 1, from, end);
			from = end;
			if (end == to)
				break;
		}
	}
	free(bytes);
}

/* The gap between two extents that are left: what of it was lost. An extent of a lost leaf may have reached beyond its
 * leaf's range. */
static void add_gap(struct map *map, uint64_t from, uint64_t to)
{
	if (to > map->limit)
		to = map->limit;
	while (map->lost_next < map->lost_count && map->lost[map->lost_next].to < from)
		map->lost_next++;
	for (size_t i = map->lost_next; i < map->lost_count && map->lost[i].from < to; i++) {
		const struct range *lost = &map->lost[i];
		uint64_t end = lost->to, a = lost->from > from ? lost->from : from, b;

		if (end < UINT64_MAX - COW_EXTENT_BLOCKS_MAX)
			end += COW_EXTENT_BLOCKS_MAX - 1;
		b = end < to ? end : to;

		add_range(&map->poison, &map->poison_count, &map->poison_size, a, b);
	}
}

static int gap_item(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct map *map = context;

	(void)length;
	if (key > map->end)
		add_gap(map, map->end, key);
	map->end = key + get16(value + 2);
	return 0;
}

/* ------------------------------------------------------------------ the new map */

/* The longer the run, the fewer extents: a gap between blocks in use is not taken if there is better soon. */
static bool get_poison(struct cow_repair *r)
{
	static const uint8_t zeros[COW_BLOCK];

	if (r->poison != 0)
		return true;
	for (unsigned i = 0; i < POISON_TRIES && r->error == 0 && r->poison_blocks < COW_EXTENT_BLOCKS_MAX; i++) {
		uint32_t blocks;
		uint64_t start = cow_repair_alloc(r, COW_EXTENT_BLOCKS_MAX, &blocks);

		if (blocks > r->poison_blocks) {
			r->poison = start;
			r->poison_blocks = blocks;
		}
	}
	for (uint32_t i = 0; i < r->poison_blocks; i++)
		if (cow_dev_write(r->overlay, zeros, COW_BLOCK, (r->poison + i) << COW_BLOCK_SHIFT) != 0)
			return false;
	return r->poison != 0;
}

/* Poison up to file block `to`. */
static void put_poison(struct map *map, uint64_t to)
{
	static const uint8_t zeros[COW_BLOCK];
	struct cow_repair *r = map->repair;
	uint8_t sums[4 * COW_EXTENT_BLOCKS_MAX], value[COW_EXTENT_BYTES_MAX];

	for (unsigned i = 0; i < COW_EXTENT_BLOCKS_MAX; i++)
		put32(sums + (size_t)4 * i, ~cow_extent_sum(zeros));
	for (; map->next < map->poison_count && map->poison[map->next].from < to; map->next++) {
		const struct range *range = &map->poison[map->next];

		for (uint64_t at = range->from; at < range->to;) {
			uint64_t length = range->to - at < r->poison_blocks ? range->to - at : r->poison_blocks;
			struct cow_extent e = {.at = at,
					       .kind = COW_EXTENT_PLAIN,
					       .blocks = (uint16_t)length,
					       .block = r->poison,
					       .sums = sums};

			cow_build_add(&map->build, at, value, cow_extent_encode(&e, value));
			map->blocks += length;
			at += length;
		}
	}
}

static int put_item(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct map *map = context;

	put_poison(map, key);
	if (map->limit != 0 && key >= map->limit) /* cut */
		return 1;
	cow_build_add(&map->build, key, value, length);
	map->blocks += get16(value + 2);
	return 0;
}

static uint64_t poisoned(const struct map *map)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < map->poison_count; i++)
		sum += map->poison[i].to - map->poison[i].from;
	return sum;
}

static bool is_too_much(const struct map *map, uint64_t blocks)
{
	uint64_t all = POISON_MAX + 4 * map->repair->super.total_blocks;

	return blocks > POISON_MAX || blocks > all - map->repair->poisoned;
}

static void build(struct map *map, struct cow_ptr now, struct mended_file *file)
{
	uint64_t blocks = poisoned(map);

	file->new_size = file->size;
	if (is_too_much(map, blocks)) {
		/* extents end at the loss, or behind it only what is mapped: a file of whole blocks */
		map->limit = map->poison[0].from;
		file->new_size = map->limit << COW_BLOCK_SHIFT;
		map->poison_count = 0;
	} else {
		map->limit = 0;
		map->repair->poisoned += blocks;
	}
	if (map->poison_count > 0 && !get_poison(map->repair))
		return;
	cow_build_begin(&map->build, map->repair, COW_KIND_FILE);
	if (map->limit != 0 || file->new_size != 0)
		cow_repair_each(map->repair, now, COW_KIND_FILE, put_item, map);
	put_poison(map, UINT64_MAX);
	file->tree = cow_build_end(&map->build);
	file->blocks = map->blocks;
	file->saved = true;
}

static struct mended_file *mend(struct cow_repair *r, const struct cow_record *record, const struct cow_mended *leaf,
				const struct cow_slice *name)
{
	struct cow_mender mender = {.repair = r, .what = COW_MEND_ALL, .memo = &r->mended};
	const struct cow_mended *m = cow_mend_find(&mender, record->tree, COW_KIND_FILE, -1);
	struct map map = {.repair = r, .mender = &mender};
	struct mended_file *file = cow_mem_new(sizeof(*file));

	file->old = record->tree;
	file->size = record->size;
	map.limit = (record->size + COW_BLOCK - 1) >> COW_BLOCK_SHIFT;
	find_lost(&map, record->tree, -1, 0, UINT64_MAX);
	if (m != NULL)
		cow_repair_each(r, m->now, COW_KIND_FILE, gap_item, &map);
	add_gap(&map, map.end, UINT64_MAX);
	bool marked = !is_too_much(&map, poisoned(&map));
	for (size_t i = 0; i < map.poison_count && marked; i++) {
		uint64_t end = map.poison[i].to << COW_BLOCK_SHIFT, from = map.poison[i].from << COW_BLOCK_SHIFT;

		cow_repair_lost_range(r, leaf, name, record->tree.addr, from,
				      (end < record->size ? end : record->size) - from);
	}
	build(&map, m != NULL ? m->now : (struct cow_ptr){0}, file);
	if (file->new_size != file->size)
		cow_repair_lost(r, leaf, name, record->tree.addr,
				"the map is lost from byte %" PRIu64 " on, too far to mark it: the file is cut there",
				file->new_size);
	free(map.lost);
	free(map.poison);
	return file;
}

bool cow_mend_file(struct cow_repair *r, const struct cow_mended *leaf, const struct cow_slice *name,
		   struct cow_record *record)
{
	uint64_t key[2] = {record->tree.addr, record->size}, hash = XXH3_64bits(key, sizeof(key));
	struct mended_file *file = cow_map_get(&r->files, hash);

	if (file == NULL || file->old.addr != record->tree.addr || file->size != record->size) {
		free(cow_map_remove(&r->files, hash));
		file = mend(r, record, leaf, name);
		cow_map_put(&r->files, hash, file);
	}
	if (!file->saved)
		return false;
	record->size = file->new_size;
	record->blocks = file->blocks;
	record->tree = file->tree;
	record->body = cow_ptr_is_null(file->tree) ? COW_BODY_NONE : COW_BODY_TREE;
	return true;
}
