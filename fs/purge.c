/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/purge.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "fs/dir.h"
#include "fs/garbage.h"
#include "fs/link.h"

#define BATCH 64         /* link rows under one hold of the lock */
#define NO_ROOM 2        /* a commit may help */
#define ROOM_FOR_ROW 64u /* blocks that dropping one row may need: copies of the path to a deep directory */

/* ------------------------------------------------------------------ one world */

struct world_args {
	struct cow_inode *world;
	struct cow_garbage *garbage; /* NULL: all that no name reaches goes */
	struct cow_garbage_links *links;
	uint64_t cursor;
	uint64_t dropped; /* back-references */
};

/* Blocks that may be used, and still leave to a removal, which asks for half of the limit, what it needs. */
static uint64_t room(const struct cow_volume *volume)
{
	uint64_t all = cow_store_unpromised(volume->store), rest = ROOM_FOR_ROW + 3 * volume->node_limit / 4;

	return all > rest ? all - rest : 0;
}

static int purge_some(struct cow_op *op, void *v)
{
	struct world_args *a = v;
	int more = 1;

	for (unsigned i = 0; i < BATCH && more > 0; i++) {
		uint64_t before = a->world->back_sum;

		if (cow_inode_check_live(a->world) != 0 || !a->world->is_world || !cow_link_has_garbage(a->world))
			return 0;
		if (op->store->dirty_nodes >= op->volume->node_limit || room(op->volume) == 0)
			return NO_ROOM;
		more = cow_link_purge(a->world, a->garbage, &a->cursor);
		a->dropped += before - a->world->back_sum;
	}
	return more;
}

static bool is_damage(int error)
{
	return error == COW_ERR_DAMAGED || error == -EIO;
}

/* NO_ROOM: what was dropped must be reclaimed first. A world that is damaged, which was reported when it was read,
 * keeps its garbage. */
static int purge_world(struct cow_inode *world, struct cow_garbage *garbage, bool *dropped)
{
	struct world_args args = {.world = world, .garbage = garbage};
	uint64_t committed = UINT64_MAX; /* dropped before the last commit */
	int more;

	while ((more = cow_op_read(world->volume, purge_some, &args)) > 0) {
		if (more != NO_ROOM)
			continue;
		if (committed == args.dropped)
			break;
		committed = args.dropped;
		more = cow_volume_commit(world->volume, NULL, NULL);
		if (more != 0)
			break;
	}
	*dropped = args.dropped != 0;
	return is_damage(more) ? 0 : more;
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
	}
	return 0;
}

int cow_purge_queued(struct cow_volume *volume)
{
	struct cow_inode *world;
	bool dropped;
	int error;

	do {
		error = cow_op_read(volume, take_queued, &world);
		if (error == 0 && world != NULL) {
			error = purge_world(world, NULL, &dropped); /* without room the rest waits for a purge of all */
			cow_forget(world, 1);
		}
	} while (error >= 0 && world != NULL);
	return error < 0 ? error : 0;
}

/* ------------------------------------------------------------------ the walk */

/*
 * Four times over the directories that have references below them: what there is, what is alive, what dropping would
 * give, and, by every way, dropping. Trees that several clones hold are entered once each, but for the last.
 */
enum pass { PASS_LOOK = 1, PASS_ALIVE, PASS_WEIGH, PASS_DROP };

/* A world with garbage, before the ways to it have been counted. */
struct holder {
	struct cow_garbage_links *links;
	const struct cow_ways_tree *tree; /* in which it has its entry */
};

struct step {
	struct walk *walk;
	struct cow_inode *dir, *child; /* child: referenced, or NULL at the end */
	uint64_t cursor;
	uint64_t block; /* root of the child's tree */
	struct cow_ways_tree *tree; /* that of dir */
	bool dropped;   /* something, in it or below; or it is gone by now */
};

struct walk {
	struct cow_volume *volume;
	enum pass pass;
	struct cow_map trees; /* by their roots; that of the volume's root directory: 0 */
	struct cow_map seen;  /* roots of links whose rows are alive */
	struct cow_garbage garbage;
	struct holder *holders;
	size_t holder_count, holder_size;
	bool dropped; /* anything */
};

/* The next directory in `dir` that has references below it. */
static int next_dir(struct cow_op *op, void *v)
{
	struct step *a = v;
	struct walk *w = a->walk;
	struct cow_item item;
	int error = cow_inode_check_live(a->dir);
	bool names = error == 0 && w->pass == PASS_LOOK && cow_link_has_garbage(cow_inode_world(a->dir));

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
		if (found.entry.is_link && names)
			cow_garbage_named(&w->garbage, found.entry.link_key);
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

struct rows_args {
	struct walk *walk;
	struct cow_inode *world;
	struct cow_garbage_links *links; /* to weigh, or NULL: they are alive */
	uint64_t cursor;
};

/* 1: there are more. */
static int some_rows(struct cow_op *op, void *v)
{
	struct rows_args *a = v;
	struct cow_item item;
	struct cow_link_row row;

	for (unsigned i = 0; i < BATCH; i++) {
		int error = cow_inode_check_live(a->world);
		if (error == 0)
			error = cow_tree_next(op->store, &a->world->links, a->cursor, &item);
		if (error != 0)
			return error == -ENOENT || error == -ESTALE ? 0 : error;
		a->cursor = item.key + 1;
		if (cow_link_row_decode(item.value, item.length, &row) != 0) /* a spine row */
			continue;
		if (a->links == NULL)
			cow_garbage_alive(&a->walk->garbage, item.key, &row);
		else
			cow_garbage_weigh(&a->walk->garbage, a->links, item.key, &row, item.length);
	}
	return 1;
}

static int all_rows(struct walk *w, struct cow_inode *world, struct cow_garbage_links *links)
{
	struct rows_args args = {.walk = w, .world = world, .links = links};
	int more;

	do
		more = cow_op_read(w->volume, some_rows, &args);
	while (more > 0);
	if (links != NULL)
		cow_garbage_weighed(&w->garbage, links);
	return more;
}

/* What a world is, as of now; its links may be others later. */
struct look_args {
	struct cow_inode *world;
	bool has_links, has_garbage;
	uint64_t root; /* of its links */
};

static int look(struct cow_op *op, void *v)
{
	struct look_args *a = v;

	(void)op;
	a->has_links = cow_inode_check_live(a->world) == 0 && a->world->is_world && a->world->totals.refs != 0 &&
		       !cow_ptr_is_null(a->world->links.root);
	a->has_garbage = a->has_links && cow_link_has_garbage(a->world);
	a->root = a->world->links.root.addr;
	return 0;
}

static void add_holder(struct walk *w, struct cow_garbage_links *links, const struct cow_ways_tree *tree)
{
	if (w->holder_count == w->holder_size) {
		w->holder_size = w->holder_size != 0 ? 2 * w->holder_size : 64;
		w->holders = cow_mem_resize(w->holders, w->holder_size * sizeof(*w->holders));
	}
	w->holders[w->holder_count++] = (struct holder){links, tree};
}

/* A directory with references below it, of which `tree` has the entry. */
static int meet(struct walk *w, struct cow_inode *dir, const struct cow_ways_tree *tree, size_t depth, bool *dropped)
{
	struct look_args is = {.world = dir};
	struct cow_garbage_links *links;
	int error = cow_op_read(w->volume, look, &is);

	if (error != 0 || !is.has_links)
		return error;
	links = cow_map_get(&w->garbage.links, is.root);
	if (w->pass == PASS_LOOK && is.has_garbage) {
		links = cow_garbage_links(&w->garbage, is.root);
		links->depth = depth > links->depth ? depth : links->depth;
		add_holder(w, links, tree);
	} else if (w->pass == PASS_ALIVE && !is.has_garbage && cow_map_get(&w->seen, is.root) == NULL) {
		cow_map_put(&w->seen, is.root, w);
		error = all_rows(w, dir, NULL);
	} else if (w->pass == PASS_WEIGH && links != NULL && !links->weighed) {
		error = all_rows(w, dir, links);
	} else if (w->pass == PASS_DROP && links != NULL && links->worth) {
		error = purge_world(dir, &w->garbage, dropped);
	}
	return is_damage(error) ? 0 : error; /* and is not alive, nor dead */
}

/* The tree of the child, if it is to be entered. */
static struct cow_ways_tree *enter(struct walk *w, const struct step *step)
{
	struct cow_ways_tree *tree = cow_map_get(&w->trees, step->block);
	bool is_new = tree == NULL;

	if (is_new) /* when not looking: it was changed meanwhile; what clones share is not new, so once is enough */
		tree = cow_ways_add(&w->trees, step->block);
	if (w->pass == PASS_LOOK)
		cow_ways_join(step->tree, tree);
	if (!is_new && (tree->mark == w->pass || (w->pass == PASS_DROP && !tree->known)))
		return NULL;
	if (w->pass != PASS_DROP || is_new)
		tree->mark = w->pass;
	return tree;
}

static void leave(struct walk *w, struct step *step, struct step *above)
{
	cow_forget(step->dir, 1);
	w->dropped |= step->dropped;
	if (!step->dropped)
		step->tree->mark = w->pass; /* nothing more to be had by other ways */
	else if (above != NULL)
		above->dropped = true;
}

static int walk(struct walk *w, enum pass pass)
{
	struct step *stack = cow_mem_new(sizeof(*stack));
	size_t depth = 1, size = 1;
	int error;

	w->pass = pass;
	stack[0] = (struct step){.walk = w, .tree = cow_map_get(&w->trees, 0)};
	error = cow_root(w->volume, &stack[0].dir);
	if (error == 0)
		error = meet(w, stack[0].dir, stack[0].tree, depth, &stack[0].dropped);
	while (depth > 0) {
		struct step *step = &stack[depth - 1];
		struct cow_ways_tree *below = NULL;

		if (error == 0)
			error = cow_op_read(w->volume, next_dir, step);
		if (is_damage(error)) /* what lies below a damaged directory keeps its garbage */
			error = 0;
		if (error != 0 || step->child == NULL) {
			leave(w, step, depth > 1 ? step - 1 : NULL);
			depth--;
			continue;
		}
		error = meet(w, step->child, step->tree, depth + 1, &step->dropped);
		if (error == 0)
			below = enter(w, step);
		if (below == NULL) {
			cow_forget(step->child, 1);
			continue;
		}
		if (depth == size)
			stack = cow_mem_resize(stack, (size *= 2) * sizeof(*stack));
		stack[depth] = (struct step){.walk = w, .dir = stack[depth - 1].child, .tree = below};
		depth++;
	}
	free(stack);
	return error;
}

/* ------------------------------------------------------------------ all of them */

static void count_ways(struct walk *w)
{
	cow_ways_count(cow_map_get(&w->trees, 0));
	for (size_t i = 0; i < w->holder_count; i++) {
		const struct holder *h = &w->holders[i];

		h->links->ways = cow_ways_sum(h->links->ways, h->tree->known ? h->tree->ways : COW_WAYS_MANY);
	}
}

static uint64_t locked_room(struct cow_volume *volume)
{
	uint64_t blocks;

	pthread_mutex_lock(&volume->store->lock);
	blocks = room(volume);
	pthread_mutex_unlock(&volume->store->lock);
	return blocks * COW_BLOCK;
}

int cow_purge_all(struct cow_volume *volume)
{
	struct walk w = {.volume = volume};
	int error = cow_volume_commit(volume, NULL, NULL); /* so that trees have addresses */

	cow_ways_add(&w.trees, 0);
	if (error == 0)
		error = walk(&w, PASS_LOOK);
	count_ways(&w);
	if (error == 0 && w.holder_count != 0)
		error = walk(&w, PASS_ALIVE);
	if (error == 0 && w.holder_count != 0)
		error = walk(&w, PASS_WEIGH);
	if (error == 0 && cow_garbage_is_worth(&w.garbage, locked_room(volume)))
		error = walk(&w, PASS_DROP);
	cow_ways_free(&w.trees);
	cow_map_free(&w.seen);
	cow_garbage_free(&w.garbage);
	free(w.holders);
	return error == NO_ROOM ? w.dropped : error;
}
