/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/world/link.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/array.h"
#include "base/mem.h"
#include "cow.h"
#include "fs/core/backref.h"
#include "fs/core/fold.h"
#include "fs/core/reservation.h"
#include "fs/core/volume.h"
#include "fs/world/orphan.h"

static struct cow_store *store_of(const struct cow_inode *i)
{
	return i->volume->store;
}

/* ------------------------------------------------------------------ names */

int cow_link_spine(struct cow_inode *world, uint64_t dir, struct cow_back *up)
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
		int error = cow_link_spine(world, dir, &up);
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

int cow_link_live_of(struct cow_inode *world, const struct cow_back *backs, uint32_t count, struct cow_back **live,
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
	int error = cow_backref_load(inode);

	*live = NULL;
	return error != 0 ? error : cow_link_live_of(inode->parent, inode->backs, inode->back_count, live, count);
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
		error = cow_backref_check_room(world->volume, inode->back_count);
	for (; error == 0 && dir != NULL && dir != world; dir = dir->parent) {
		error = cow_tree_reserve(store_of(world), &world->links, dir->number);
		if (error == 0)
			error = cow_link_spine(world, dir->number, &up);
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
		int error = cow_link_spine(world, dir->number, &up);
		assert(error == 0 || error == -ENOENT); /* reserved */
		if (dir->totals.refs > 0 && error == -ENOENT) {
			up = (struct cow_back){dir->parent->number, dir->key};
			cow_link_set_spine(world, dir->number, &up);
		} else if (dir->totals.refs == 0 && error == 0) {
			cow_link_set_spine(world, dir->number, NULL);
		}
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
	cow_backref_clear(inode);
	cow_inode_unhook(inode);
}

void cow_link_put_in(struct cow_inode *inode, struct cow_inode *world, uint64_t key, struct cow_back back)
{
	assert(inode->dirty);
	cow_inode_get(inode); /* the last reference must not go between the two places */
	cow_inode_unhook(inode);
	cow_inode_hook(inode, COW_LINKED, world, key);
	inode->backs_loaded = true;
	cow_backref_add(inode, back);
	add_sums(world, inode, +1);
	cow_inode_put(inode, 1);
}

/* ------------------------------------------------------------------ garbage */

/* What is alive is only read: a links tree may be long, and shared with the world that it comes from. */

int cow_link_prepare_empty(struct cow_inode *world)
{
	struct cow_map_slot *slot;
	uint64_t bytes = 0, leaves = 0;
	int error = cow_link_prepare(world, 0, NULL);

	if (error == 0)
		error = cow_orphan_reserve(world->volume);
	for (size_t i = 0; error == 0 && (slot = cow_map_each(&world->linked, &i)) != NULL;) {
		struct cow_inode *inode = slot->value;
		if (inode->opens > 0)
			error = cow_orphan_check_room(inode, &bytes);
		if (inode->opens > 0 && !cow_tree_is_private(store_of(world), &world->links, inode->key))
			leaves++; /* of links, which go, but not before the next commit */
		if (error == 0)
			error = cow_reservation_more(world->volume, leaves);
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
		COW_ARRAY_GROW(volume->purge, volume->purge_count, volume->purge_size);
		volume->purge[volume->purge_count++] = world;
	}
}
