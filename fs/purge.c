/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/purge.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "fs/dir.h"
#include "fs/link.h"

#define BATCH 64          /* link rows under one hold of the lock */
#define NO_ROOM 2         /* a commit may help */
#define ROOM_FOR_ROW 64u  /* blocks that dropping one row may need: copies of the path to a deep directory */
/* A directory to which more ways lead keeps its garbage: to drop it, each of them would need nodes of its own. */
#define WAYS_MAX 4096u

/* ------------------------------------------------------------------ one world */

struct world_args {
	struct cow_inode *world;
	uint64_t cursor;
	uint64_t dropped; /* back-references */
};

/* What frees space may use what others leave for it; but a removal, which asks for half of the limit, comes first. */
static bool has_room(const struct cow_volume *volume)
{
	return volume->store->dirty_nodes < volume->node_limit &&
	       cow_store_unpromised(volume->store) >= ROOM_FOR_ROW + 3 * volume->node_limit / 4;
}

static int purge_some(struct cow_op *op, void *v)
{
	struct world_args *a = v;
	int more = 1;

	for (unsigned i = 0; i < BATCH && more > 0; i++) {
		uint64_t before = a->world->back_sum;

		if (cow_inode_check_live(a->world) != 0 || !a->world->is_world || !cow_link_has_garbage(a->world))
			return 0;
		if (!has_room(op->volume))
			return NO_ROOM;
		more = cow_link_purge(a->world, &a->cursor);
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
static int purge_world(struct cow_inode *world, bool *dropped)
{
	struct world_args args = {world, 0, 0};
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
			error = purge_world(world, &dropped); /* without room the rest waits for a purge of all */
			cow_forget(world, 1);
		}
	} while (error >= 0 && world != NULL);
	return error < 0 ? error : 0;
}

/* ------------------------------------------------------------------ ways */

/*
 * Directories that several clones hold are one tree, to which several ways lead. Each way must be gone to purge the
 * worlds in it, for each needs links of its own; but clones of clones, and images that lie, may have more ways than can
 * be gone. So all trees are looked at once before, and the ways counted.
 */
struct tree {
	struct edge *below;
	uint64_t ways;     /* saturates; 0 in a tree that contains itself */
	uint64_t parents;  /* edges to it that have not been counted */
	struct tree *next; /* of those whose ways are known */
	bool clean;        /* nothing in it and below can be dropped */
};

struct edge {
	struct tree *to;
	struct edge *next;
};

static struct tree *add_tree(struct cow_map *trees, uint64_t block)
{
	struct tree *tree = cow_mem_new(sizeof(*tree));

	cow_map_put(trees, block, tree);
	return tree;
}

static void add_edge(struct tree *from, struct tree *to)
{
	struct edge *edge = cow_mem_new(sizeof(*edge));

	*edge = (struct edge){to, from->below};
	from->below = edge;
	to->parents++;
}

static void free_trees(struct cow_map *trees)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(trees, &i)) != NULL;) {
		struct tree *tree = slot->value;
		for (struct edge *edge = tree->below, *next; edge != NULL; edge = next) {
			next = edge->next;
			free(edge);
		}
		free(tree);
	}
	cow_map_free(trees);
}

/* In topological order: Kahn, Communications of the ACM 5(11), 1962. */
static void count_ways(struct tree *top)
{
	top->ways = 1;
	for (struct tree *ready = top; ready != NULL;) {
		struct tree *tree = ready;

		ready = tree->next;
		for (struct edge *edge = tree->below; edge != NULL; edge = edge->next) {
			struct tree *to = edge->to;
			to->ways = to->ways + tree->ways > WAYS_MAX ? WAYS_MAX + 1 : to->ways + tree->ways;
			if (--to->parents == 0) {
				to->next = ready;
				ready = to;
			}
		}
	}
}

/* ------------------------------------------------------------------ the walk */

struct step {
	struct cow_inode *dir, *child; /* child: referenced, or NULL at the end */
	uint64_t cursor;
	uint64_t block;    /* root of the child's tree */
	struct tree *tree; /* that of dir */
	bool dropped;      /* something, in it or below */
};

struct walk {
	struct cow_map trees; /* by their roots; that of the volume's root directory: 0 */
	bool purge;           /* or else only look what is there */
	bool dropped;         /* anything */
};

/* The next directory in `dir` that has references below it. */
static int next_dir(struct cow_op *op, void *v)
{
	struct step *a = v;
	struct cow_item item;
	int error = cow_inode_check_live(a->dir);

	a->child = NULL;
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

/* To go into the child when only looking: *below, or NULL when that has been done. */
static void note_child(struct walk *w, struct step *step, struct tree **below)
{
	struct tree *tree = cow_map_get(&w->trees, step->block);

	*below = NULL;
	if (tree == NULL)
		*below = tree = add_tree(&w->trees, step->block);
	add_edge(step->tree, tree);
}

static int purge_child(struct walk *w, struct step *step, struct tree **below)
{
	struct tree *tree = cow_map_get(&w->trees, step->block);
	bool dropped;
	int error = purge_world(step->child, &dropped);

	step->dropped |= dropped;
	if (tree == NULL) { /* it was changed meanwhile: what clones share is not new, so once is enough */
		tree = *below = add_tree(&w->trees, step->block);
		tree->clean = true;
	} else {
		*below = tree->clean || tree->ways == 0 || tree->ways > WAYS_MAX ? NULL : tree;
	}
	return error;
}

static void leave(struct walk *w, struct step *step, struct step *above)
{
	cow_forget(step->dir, 1);
	w->dropped |= step->dropped;
	if (!step->dropped)
		step->tree->clean = w->purge;
	else if (above != NULL)
		above->dropped = true;
}

static int walk(struct walk *w, struct step first)
{
	struct cow_volume *volume = first.dir->volume;
	struct step *stack = cow_mem_new(sizeof(*stack));
	size_t depth = 1, size = 1;
	int error = 0;

	stack[0] = first;
	while (depth > 0) {
		struct step *step = &stack[depth - 1];
		struct tree *below = NULL;

		if (error == 0)
			error = cow_op_read(volume, next_dir, step);
		if (is_damage(error)) /* what lies below a damaged directory keeps its garbage, too */
			error = 0;
		if (error != 0 || step->child == NULL) {
			leave(w, step, depth > 1 ? step - 1 : NULL);
			depth--;
			continue;
		}
		if (w->purge)
			error = purge_child(w, step, &below);
		else
			note_child(w, step, &below);
		if (error != 0 || below == NULL) {
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

static int pass(struct walk *w, struct cow_volume *volume, struct tree *top)
{
	struct step first = {.tree = top};
	int error = cow_root(volume, &first.dir);

	if (error == 0 && w->purge)
		error = purge_world(first.dir, &first.dropped);
	if (error == 0)
		return walk(w, first);
	leave(w, &first, NULL);
	return error;
}

int cow_purge_all(struct cow_volume *volume)
{
	struct walk w = {0};
	struct tree *top = add_tree(&w.trees, 0);
	int error = cow_volume_commit(volume, NULL, NULL); /* so that trees have addresses */

	if (error == 0)
		error = pass(&w, volume, top);
	if (error == 0) {
		count_ways(top);
		w.purge = true;
		error = pass(&w, volume, top);
	}
	free_trees(&w.trees);
	return error == NO_ROOM ? w.dropped : error;
}
