/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is alive is only read: a links tree may be long, and shared with the world that it comes from.
 */
#include "fs/reclaim/purge_links.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"
#include "fs/core/backref.h"
#include "fs/core/fold.h"
#include "fs/world/link.h"
#include "fs/world/orphan.h"

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
			cow_backref_remove(inode, dead[i]);
		for (uint32_t i = 0; i < count; i++)
			cow_backref_add(inode, live[i]);
		free(dead);
	}
	free(live);
	return 1;
}

static int get_row(struct cow_inode *world, uint64_t key, struct cow_item *item, struct cow_link_row *row)
{
	int error = cow_tree_get(world->volume->store, &world->links, key, item);

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
	cow_reclaim_value(world->volume->store, COW_KIND_LINKS, item->value, item->length);
	error = cow_tree_del(world->volume->store, &world->links, key);
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
		error = cow_backref_read(world->volume->store, &row, &backs);
	if (error == 0)
		error = cow_link_live_of(world, backs, row.backs, &live, &count);
	drop = error == 0 && count < (whole ? 1 : row.backs);
	if (drop)
		error = cow_link_prepare(world, key, NULL);
	if (drop && error == 0)
		error = cow_backref_check_room(world->volume, count);
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
	error = cow_tree_next(world->volume->store, &world->links, at, &item);
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
		world->volume->store->changes++; /* or a commit would take it for nothing */
	*cursor = only != NULL && key != at ? key : key + 1; /* it may be the next that is to go */
	return 1;
}
