/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/link.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/array.h"
#include "base/mem.h"
#include "cow.h"
#include "fs/blob.h"
#include "fs/orphan.h"
#include "fs/volume.h"

#define BACK_BYTES 16u

static struct cow_store *store_of(const struct cow_inode *i)
{
	return i->volume->store;
}

/* Of the tree that a list of so many names takes; it is written as a whole. Four chunks fill a leaf. */
static uint64_t list_blocks(uint32_t backs)
{
	uint64_t leaves = (uint64_t)backs * BACK_BYTES / (4 * COW_BLOB_CHUNK) + 1;

	return backs > COW_BACKS_INLINE_MAX ? leaves + leaves / 32 + 1 : 0;
}

static int check_list(struct cow_volume *volume, uint32_t backs)
{
	uint64_t blocks = list_blocks(backs);
	int error;

	if (blocks == 0)
		return 0;
	blocks += volume->store->asked_blocks; /* an operation may change two lists */
	error = cow_store_check_floor(volume->store, blocks); /* the old ones may be shared */
	if (error == 0)
		error = cow_inode_check_room(volume, blocks);
	if (error == 0)
		volume->store->asked_blocks = blocks;
	return error;
}

/* ------------------------------------------------------------------ names */

static int spine_get(struct cow_inode *world, uint64_t dir, struct cow_back *up)
{
	struct cow_item item;
	int error = cow_tree_get(store_of(world), &world->links, dir, &item);

	return error != 0 ? error : cow_spine_row_decode(item.value, item.length, up);
}

int cow_link_climb(struct cow_inode *world, uint64_t dir)
{
	uint64_t mark = 0, next_mark = 1; /* a spine that is a ring comes from a broken image: it returns to the mark */
	struct cow_back up;

	for (uint64_t steps = 0; dir != world->number; steps++) {
		int error = spine_get(world, dir, &up);
		if (error == -ENOENT)
			return 0;
		if (error != 0)
			return error;
		dir = up.dir;
		if (dir == mark)
			return COW_ERR_DAMAGED;
		if (steps == next_mark) {
			mark = dir;
			next_mark *= 2;
		}
	}
	return 1;
}

/* The back-references of a row; *tree is what the row claims for them. The caller frees. */
static int read_backs(struct cow_store *store, const struct cow_link_row *row, struct cow_back **backs)
{
	struct cow_blob blob = {.length = row->backs * BACK_BYTES, .tree = {row->back_tree, COW_KIND_BLOB}};
	const uint8_t *bytes = row->back_bytes;
	int error = 0;

	if (!cow_ptr_is_null(row->back_tree)) {
		error = cow_blob_load(store, &blob);
		bytes = blob.bytes;
	}
	if (error == 0) {
		*backs = cow_mem_new(row->backs * sizeof(**backs));
		for (uint32_t i = 0; i < row->backs; i++)
			(*backs)[i] =
				(struct cow_back){get64(bytes + i * BACK_BYTES), get64(bytes + i * BACK_BYTES + 8)};
	}
	cow_blob_forget(&blob);
	return error;
}

int cow_link_load(struct cow_inode *inode)
{
	struct cow_link_row row;
	struct cow_item item;
	int error;

	if (inode->backs_loaded)
		return 0;
	error = cow_tree_get(store_of(inode), &inode->parent->links, inode->key, &item);
	if (error == 0)
		error = cow_link_row_decode(item.value, item.length, &row);
	if (error == 0)
		error = read_backs(store_of(inode), &row, &inode->backs);
	if (error != 0)
		return error == -ENOENT ? COW_ERR_DAMAGED : error;
	inode->back_count = inode->back_size = row.backs;
	inode->back_tree.root = row.back_tree;
	inode->backs_loaded = true;
	if (cow_ptr_is_dirty(row.back_tree))
		cow_inode_track(inode);
	return 0;
}

static int live_of(struct cow_inode *world, const struct cow_back *backs, uint32_t count, struct cow_back **live,
		   uint32_t *live_count)
{
	*live = cow_mem_new(count * sizeof(**live));
	*live_count = 0;
	for (uint32_t i = 0; i < count; i++) {
		int climbed = cow_link_climb(world, backs[i].dir);
		if (climbed < 0) {
			free(*live);
			*live = NULL;
			return climbed;
		}
		if (climbed == 1)
			(*live)[(*live_count)++] = backs[i];
	}
	return 0;
}

int cow_link_live(struct cow_inode *inode, struct cow_back **live, uint32_t *count)
{
	int error = cow_link_load(inode);

	*live = NULL;
	return error != 0 ? error : live_of(inode->parent, inode->backs, inode->back_count, live, count);
}

int cow_link_count(struct cow_inode *inode, uint32_t *nlink)
{
	struct cow_back *live;
	int error;

	if (inode->nlink_version != inode->parent->spine_version) {
		error = cow_link_live(inode, &live, &inode->nlink);
		if (error != 0)
			return error;
		free(live);
		inode->nlink_version = inode->parent->spine_version;
	}
	*nlink = inode->nlink;
	return 0;
}

/* ------------------------------------------------------------------ changing */

int cow_link_prepare(struct cow_inode *world, uint64_t key, struct cow_inode *dir)
{
	struct cow_inode *inode = cow_map_get(&world->linked, key);
	struct cow_back up;
	int error = cow_inode_reserve(world);

	if (error == 0)
		error = cow_reclaim_reserve(store_of(world));
	if (error == 0 && key != 0)
		error = cow_tree_reserve(store_of(world), &world->links, key);
	if (error == 0 && inode != NULL && !inode->backs_changed)
		error = check_list(world->volume, inode->back_count);
	for (; error == 0 && dir != NULL && dir != world; dir = dir->parent) {
		error = cow_tree_reserve(store_of(world), &world->links, dir->number);
		if (error == 0)
			error = spine_get(world, dir->number, &up);
		error = error == -ENOENT ? 0 : error; /* a link row where a spine row belongs: the image is broken */
	}
	return error;
}

void cow_link_set_spine(struct cow_inode *world, uint64_t dir, const struct cow_back *up)
{
	uint8_t bytes[32];
	int error;

	if (up != NULL)
		error = cow_tree_put(store_of(world), &world->links, dir, bytes, cow_spine_row_encode(*up, bytes));
	else
		error = cow_tree_del(store_of(world), &world->links, dir);
	assert(error == 0 || error == -ENOENT);
	world->spine_version++;
}

void cow_link_fix_spine(struct cow_inode *dir)
{
	struct cow_inode *world = cow_inode_world(dir);
	struct cow_back up;

	for (; dir != world; dir = dir->parent) {
		int error = spine_get(world, dir->number, &up);
		assert(error == 0 || error == -ENOENT); /* reserved */
		if (dir->totals.refs > 0 && error == -ENOENT) {
			up = (struct cow_back){dir->parent->number, dir->key};
			cow_link_set_spine(world, dir->number, &up);
		} else if (dir->totals.refs == 0 && error == 0) {
			cow_link_set_spine(world, dir->number, NULL);
		}
	}
}

void cow_link_add_back(struct cow_inode *inode, struct cow_back back)
{
	assert(inode->dirty && inode->backs_loaded);
	COW_ARRAY_GROW(inode->backs, inode->back_count, inode->back_size);
	inode->backs[inode->back_count++] = back;
	inode->backs_changed = true;
	inode->nlink_version = 0;
	inode->parent->back_sum++;
	cow_inode_promise(inode);
}

void cow_link_remove_back(struct cow_inode *inode, struct cow_back back)
{
	assert(inode->dirty && inode->backs_loaded);
	for (uint32_t i = 0; i < inode->back_count; i++)
		if (inode->backs[i].dir == back.dir && inode->backs[i].key == back.key) {
			inode->backs[i] = inode->backs[--inode->back_count];
			inode->backs_changed = true;
			inode->nlink_version = 0;
			inode->parent->back_sum--;
			cow_inode_promise(inode);
			return;
		}
}

static void add_sums(struct cow_inode *world, const struct cow_inode *inode, int sign)
{
	world->link_bytes += (uint64_t)sign * inode->size;
	world->link_blocks += (uint64_t)sign * inode->blocks;
	world->link_files += (uint64_t)sign;
}

void cow_link_take_out(struct cow_inode *inode)
{
	struct cow_inode *world = inode->parent;
	int error = cow_tree_del(store_of(inode), &world->links, inode->key);

	assert(error == 0 || error == -ENOENT); /* put in since the last fold */
	assert(inode->dirty && inode->backs_loaded);
	world->back_sum -= inode->back_count;
	add_sums(world, inode, -1);
	cow_tree_drop(store_of(inode), &inode->back_tree);
	free(inode->backs);
	inode->backs = NULL;
	inode->back_count = inode->back_size = 0;
	inode->backs_loaded = inode->backs_changed = false;
	cow_inode_promise(inode);
	cow_inode_unhook(inode);
}

void cow_link_put_in(struct cow_inode *inode, struct cow_inode *world, uint64_t key, struct cow_back back)
{
	assert(inode->dirty);
	cow_inode_get(inode); /* the last reference must not go between the two places */
	cow_inode_unhook(inode);
	cow_inode_hook(inode, COW_LINKED, world, key);
	inode->backs_loaded = true;
	cow_link_add_back(inode, back);
	add_sums(world, inode, +1);
	cow_inode_put(inode, 1);
}

uint64_t cow_link_due(const struct cow_inode *inode)
{
	return inode->backs_changed ? list_blocks(inode->back_count) : 0;
}

void cow_link_store_backs(struct cow_inode *inode)
{
	struct cow_blob blob = {.tree = inode->back_tree};
	uint8_t *bytes;

	if (!inode->backs_changed)
		return;
	bytes = cow_mem_new(inode->back_count * BACK_BYTES);
	for (uint32_t i = 0; i < inode->back_count; i++) {
		put64(bytes + i * BACK_BYTES, inode->backs[i].dir);
		put64(bytes + i * BACK_BYTES + 8, inode->backs[i].key);
	}
	cow_blob_set(store_of(inode), &blob, bytes, inode->back_count * BACK_BYTES, COW_BACKS_INLINE_MAX * BACK_BYTES);
	inode->back_tree = blob.tree;
	inode->back_tree.kind = COW_KIND_BLOB;
	cow_blob_forget(&blob);
	free(bytes);
	inode->backs_changed = false;
	cow_inode_promise(inode);
}

/* ------------------------------------------------------------------ garbage */

/* What is alive is only read: a links tree may be long, and shared with the world that it comes from. */

/* A row whose inode is in memory: through it. `whole`: or not at all. */
static int purge_inode(struct cow_inode *inode, bool whole)
{
	struct cow_inode *world = inode->parent;
	struct cow_back *live = NULL, *dead;
	uint32_t count = 0, dead_count;
	int error = cow_link_live(inode, &live, &count);
	bool drop = error == 0 && count < (whole ? 1 : inode->back_count);

	if (drop)
		error = cow_inode_reserve(inode);
	if (drop && error == 0)
		error = cow_link_prepare(world, inode->key, NULL);
	if (drop && error == 0)
		error = cow_orphan_reserve(inode->volume);
	if (!drop || error != 0) {
		free(live);
		return error;
	}
	if (count == 0) {
		cow_inode_get(inode);
		cow_link_take_out(inode);
		cow_orphan_or_discard(inode);
		cow_inode_put(inode, 1);
	} else {
		dead_count = inode->back_count;
		dead = cow_mem_copy(inode->backs, dead_count * sizeof(*dead));
		for (uint32_t i = 0; i < dead_count; i++)
			cow_link_remove_back(inode, dead[i]);
		for (uint32_t i = 0; i < count; i++)
			cow_link_add_back(inode, live[i]);
		free(dead);
	}
	free(live);
	return 1;
}

static int get_row(struct cow_inode *world, uint64_t key, struct cow_item *item, struct cow_link_row *row)
{
	int error = cow_tree_get(store_of(world), &world->links, key, item);

	return error != 0 ? error : cow_link_row_decode(item->value, item->length, row);
}

static void drop_row(struct cow_inode *world, uint64_t key, const struct cow_item *item, const struct cow_link_row *row)
{
	struct cow_record record;
	int error = cow_record_decode(row->record.bytes, row->record.length, 0, &record);

	assert(error == 0);
	world->back_sum -= row->backs;
	world->link_bytes -= record.size;
	world->link_blocks -= record.blocks;
	world->link_files--;
	cow_reclaim_value(store_of(world), COW_KIND_LINKS, item->value, item->length);
	error = cow_tree_del(store_of(world), &world->links, key);
	assert(error == 0);
}

/* With the back-references `live` alone; through a temporary inode, which owns the claims for that long. */
static void rewrite_row(struct cow_inode *world, uint64_t key, const struct cow_link_row *row, struct cow_back *live,
			uint32_t count)
{
	struct cow_inode *inode;
	struct cow_record record;
	int error = cow_record_decode(row->record.bytes, row->record.length, 0, &record);

	assert(error == 0);
	inode = cow_inode_new(world->volume, COW_LINKED, world, key, &record);
	inode->refs = 1;
	inode->backs = live;
	inode->back_count = inode->back_size = count;
	inode->back_tree.root = row->back_tree;
	inode->backs_loaded = inode->backs_changed = true;
	cow_inode_set_dirty(inode);
	world->back_sum -= row->backs - count;
	cow_inode_fold(inode);
	cow_inode_put(inode, 1);
}

/* A row whose inode is not in memory. */
static int purge_row(struct cow_inode *world, uint64_t key, bool whole)
{
	struct cow_back *backs = NULL, *live = NULL;
	struct cow_link_row row;
	struct cow_item item;
	uint32_t count = 0;
	bool drop;
	int error = get_row(world, key, &item, &row);

	if (error == 0)
		error = read_backs(store_of(world), &row, &backs);
	if (error == 0)
		error = live_of(world, backs, row.backs, &live, &count);
	drop = error == 0 && count < (whole ? 1 : row.backs);
	if (drop)
		error = cow_link_prepare(world, key, NULL);
	if (drop && error == 0)
		error = check_list(world->volume, count);
	if (drop && error == 0)
		error = get_row(world, key, &item, &row); /* it may lie elsewhere now */
	if (drop && error == 0 && count == 0) {
		drop_row(world, key, &item, &row);
	} else if (drop && error == 0) {
		rewrite_row(world, key, &row, live, count);
		live = NULL;
	}
	free(backs);
	free(live);
	return error != 0 ? error : drop;
}

static int purge_spine(struct cow_inode *world, uint64_t dir)
{
	int climbed = dir == world->number ? 0 : cow_link_climb(world, dir), error;

	if (climbed != 0)
		return climbed < 0 ? climbed : 0;
	error = cow_link_prepare(world, dir, NULL);
	if (error == 0)
		cow_link_set_spine(world, dir, NULL);
	return error != 0 ? error : 1;
}

int cow_link_purge(struct cow_inode *world, const struct cow_garbage *only, uint64_t *cursor)
{
	uint64_t at = *cursor;
	struct cow_item item;
	struct cow_link_row row;
	struct cow_inode *inode;
	int dropped, error;
	uint64_t key;

	if (only != NULL && !cow_garbage_next(only, &at))
		return 0;
	error = cow_tree_next(store_of(world), &world->links, at, &item);
	if (error != 0)
		return error == -ENOENT ? 0 : error;
	key = item.key;
	inode = cow_map_get(&world->linked, key);
	if (only != NULL && key != at)
		dropped = 0;
	else if (cow_link_row_decode(item.value, item.length, &row) != 0)
		dropped = purge_spine(world, key);
	else if (inode != NULL)
		dropped = purge_inode(inode, only != NULL);
	else
		dropped = purge_row(world, key, only != NULL);
	if (dropped < 0)
		return dropped;
	if (dropped > 0)
		store_of(world)->changes++; /* or a commit would take it for nothing */
	*cursor = only != NULL && key != at ? key : key + 1; /* it may be the next that is to go */
	return 1;
}

int cow_link_prepare_empty(struct cow_inode *world)
{
	struct cow_map_slot *slot;
	uint64_t bytes = 0;
	int error = cow_link_prepare(world, 0, NULL);

	if (error == 0)
		error = cow_orphan_reserve(world->volume);
	for (size_t i = 0; error == 0 && (slot = cow_map_each(&world->linked, &i)) != NULL;) {
		struct cow_inode *inode = slot->value;
		if (inode->opens > 0)
			error = cow_orphan_check_room(inode, &bytes);
		if (error == 0 && inode->opens > 0)
			error = cow_inode_reserve(inode);
		if (error == 0 && (inode->opens > 0 || inode->dirty))
			error = cow_tree_reserve(store_of(world), &world->links, inode->key);
	}
	return error;
}

void cow_link_empty(struct cow_inode *world)
{
	cow_inode_get(world);
	while (world->linked.count > 0) {
		size_t i = 0;
		struct cow_inode *inode = cow_map_each(&world->linked, &i)->value;
		cow_inode_get(inode);
		if (inode->opens > 0) { /* a fold since the preparation may have made it clean */
			int error = cow_inode_reserve(inode);
			assert(error == 0);
		}
		if (inode->dirty) {
			cow_link_take_out(inode);
			cow_orphan_or_discard(inode);
		} else { /* its record goes with the tree */
			cow_inode_unhook(inode);
			inode->place = COW_GONE;
		}
		cow_inode_put(inode, 1);
	}
	cow_tree_drop(store_of(world), &world->links);
	world->back_sum = world->link_bytes = world->link_blocks = world->link_files = 0;
	world->spine_version++;
	cow_inode_put(world, 1);
}

void cow_link_settle(struct cow_inode *world)
{
	struct cow_volume *volume = world->volume;

	if (world->totals.refs == 0) {
		cow_link_empty(world);
	} else if (cow_link_has_garbage(world) && !world->purge_queued) {
		world->purge_queued = true;
		cow_inode_get(world);
		volume->purge = cow_mem_resize(volume->purge, (volume->purge_count + 1) * sizeof(*volume->purge));
		volume->purge[volume->purge_count++] = world;
	}
}
