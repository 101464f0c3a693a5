/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/reclaim/purge.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"
#include "fs/commit/commit.h"
#include "fs/core/reservation.h"
#include "fs/reclaim/garbage.h"
#include "fs/reclaim/purge_links.h"
#include "fs/world/dir.h"
#include "fs/world/link.h"

#define BATCH 64         /* link rows under one hold of the lock */
#define NO_ROOM 2        /* a commit may help */
#define NODES_A_DIR 3u   /* from the root of a directory to an entry: enough for 100,000 */

/* ------------------------------------------------------------------ one world */

struct world_args {
	struct cow_inode *world;
	struct cow_garbage *garbage; /* NULL: all that no name reaches goes */
	uint64_t cursor;
	uint64_t dropped; /* back-references */
};

/* Nodes that must become private before the world may change; directories may be nested without limit. */
static uint64_t way_blocks(const struct cow_inode *world)
{
	uint64_t blocks = 0;

	for (const struct cow_inode *i = world; i != NULL && !i->dirty; i = i->parent)
		blocks += NODES_A_DIR;
	return blocks;
}

static int purge_some(struct cow_op *op, void *v)
{
	struct world_args *a = v;
	int more = 1;

	for (unsigned i = 0; i < BATCH && more > 0; i++) {
		uint64_t before = a->world->back_sum;

		if (cow_inode_check_live(a->world) != 0 || !a->world->is_world || !cow_link_has_garbage(a->world))
			return 0;
		if (a->cursor == 0 && a->garbage != NULL &&
		    !cow_garbage_purges(a->garbage, a->world->links.root.addr))
			return 0;
		if (op->store->dirty_nodes >= op->volume->node_limit ||
		    cow_reservation_room(op->volume, COW_FOR_BACKGROUND) <= way_blocks(a->world))
			return NO_ROOM;
		more = cow_link_purge(a->world, a->garbage, &a->cursor);
		a->dropped += before - a->world->back_sum;
	}
	return more;
}

/* NO_ROOM: what was dropped must be reclaimed first; with `until`, which does without commits, also: it is late. A
 * world that is damaged, which was reported when it was read, keeps its garbage. */
static int purge_world(struct cow_inode *world, struct cow_garbage *garbage, const struct timespec *until,
		       bool *dropped)
{
	struct world_args args = {.world = world, .garbage = garbage};
	uint64_t committed = UINT64_MAX; /* dropped before the last commit */
	int more;

	while ((more = cow_op_read(world->volume, purge_some, &args)) > 0 || more == -ENOSPC) {
		if (more == 1 && !cow_volume_is_late(until))
			continue;
		more = NO_ROOM;
		if (until != NULL || committed == args.dropped)
			break;
		committed = args.dropped;
		more = cow_volume_commit(world->volume, NULL, NULL);
		if (more != 0)
			break;
	}
	*dropped |= args.dropped != 0;
	return cow_is_damage(more) ? 0 : more;
}

/* ------------------------------------------------------------------ the queue */

static int take_queued(struct cow_op *op, void *v)
{
	struct cow_inode **world = v;
	struct cow_volume *volume = op->volume;

	*world = NULL;
	if (volume->purge_count > 0) {
		*world = volume->purge[--volume->purge_count];
		(*world)->purge_queued = false;
		volume->purging++;
	}
	return 0;
}

struct queued_args {
	struct cow_inode *world;
	bool again;
};

static int end_queued(struct cow_op *op, void *v)
{
	struct queued_args *a = v;

	if (a->again && cow_inode_check_live(a->world) == 0 && a->world->is_world && a->world->totals.refs != 0)
		cow_link_settle(a->world);
	op->volume->purging--;
	pthread_cond_broadcast(&op->volume->done);
	return 0;
}

int cow_purge_queued(struct cow_volume *volume, const struct timespec *until)
{
	struct queued_args args;
	bool dropped = false;
	int error;

	do {
		error = cow_op_read(volume, take_queued, &args.world);
		if (error != 0 || args.world == NULL)
			return error;
		error = purge_world(args.world, NULL, until, &dropped);
		/* one who may commit leaves what he has no room for to a purge of all */
		args.again = error == NO_ROOM && until != NULL;
		(void)!cow_op_read(volume, end_queued, &args);
		cow_forget(args.world, 1);
	} while (error >= 0 && !args.again);
	return error < 0 ? error : 1;
}

/* ------------------------------------------------------------------ all worlds */

struct step {
	struct cow_inode *dir, *child; /* child: referenced, or NULL at the end */
	uint64_t cursor;
	uint64_t block;             /* root of the child's tree */
	struct cow_ways_tree *tree; /* that of dir */
	bool dropped;               /* something, in it or below; or it is gone by now */
};

#define DONE 4 /* mark of a tree: by no way to it is there anything to drop */

/* The next directory in `dir` that has references below it. */
static int next_dir(struct cow_op *op, void *v)
{
	struct step *a = v;
	struct cow_item item;
	int error = cow_inode_check_live(a->dir);

	a->child = NULL;
	a->dropped |= error == -ESTALE;
	for (; error == 0; a->cursor = item.key + 1) {
		struct cow_found found;
		struct cow_inode *child;

		error = cow_tree_next(op->store, &a->dir->tree, a->cursor, &item);
		if (error != 0)
			break;
		found.key = item.key;
		error = cow_dirent_decode(item.value, item.length, &found.entry);
		assert(error == 0);
		if (found.entry.is_link)
			continue;
		error = cow_dir_child_plain(a->dir, &found, &child);
		if (error != 0)
			break;
		if (cow_inode_is_dir(child) && !cow_ptr_is_null(child->tree.root) &&
		    (child->totals.refs != 0 || child->totals.nested_refs != 0)) {
			a->cursor = item.key + 1;
			a->child = child;
			a->block = child->tree.root.addr;
			return 0;
		}
		cow_inode_put(child, 1);
	}
	return error == -ENOENT || error == -ESTALE ? 0 : error;
}

/* The tree of the child, if it is to be entered: that of several clones by each way to it, as long as there is
 * something to drop. One that nobody has looked at was changed meanwhile; what clones share is not new, so once is
 * enough. */
static struct cow_ways_tree *enter(struct cow_garbage *garbage, uint64_t block)
{
	struct cow_ways_tree *tree = cow_map_get(&garbage->trees, block);

	if (tree == NULL) {
		tree = cow_ways_add(&garbage->trees, block);
		tree->mark = DONE;
		return tree;
	}
	return tree->known && tree->wanted && (tree->mark & DONE) == 0 ? tree : NULL;
}

static void leave(struct step *step, bool *dropped)
{
	cow_forget(step->dir, 1);
	*dropped |= step->dropped;
	if (!step->dropped)
		step->tree->mark |= DONE;
}

static int purge_ways(struct cow_volume *volume, struct cow_garbage *garbage, bool *dropped)
{
	struct step *stack = cow_mem_new(sizeof(*stack));
	size_t depth = 1, size = 1;
	int error;

	stack[0] = (struct step){.tree = cow_map_get(&garbage->trees, 0)};
	error = cow_root(volume, &stack[0].dir);
	if (error == 0)
		error = purge_world(stack[0].dir, garbage, NULL, &stack[0].dropped);
	while (depth > 0) {
		struct step *step = &stack[depth - 1];
		struct cow_ways_tree *below = NULL;

		if (error == 0)
			error = cow_op_read(volume, next_dir, step);
		if (cow_is_damage(error)) /* what lies below a damaged directory keeps its garbage */
			error = 0;
		if (error != 0 || step->child == NULL) {
			leave(step, depth > 1 ? &step[-1].dropped : dropped);
			depth--;
			continue;
		}
		error = purge_world(step->child, garbage, NULL, &step->dropped);
		if (error == 0)
			below = enter(garbage, step->block);
		if (below == NULL) {
			cow_forget(step->child, 1);
			continue;
		}
		if (depth == size)
			stack = cow_mem_resize(stack, (size *= 2) * sizeof(*stack));
		stack[depth] = (struct step){.dir = stack[depth - 1].child, .tree = below};
		depth++;
	}
	free(stack);
	return error;
}

static uint64_t locked_room(struct cow_volume *volume)
{
	uint64_t blocks;

	pthread_mutex_lock(&volume->store->lock);
	blocks = cow_reservation_room(volume, COW_FOR_BACKGROUND);
	pthread_mutex_unlock(&volume->store->lock);
	return blocks;
}

int cow_purge_all(struct cow_volume *volume)
{
	struct cow_garbage garbage = {0};
	bool dropped = false;
	int result = cow_garbage_find(&garbage, volume, locked_room(volume));

	if (result > 0)
		result = purge_ways(volume, &garbage, &dropped);
	cow_garbage_free(&garbage);
	return result == NO_ROOM ? dropped : result;
}
