/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/purge.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "fs/dir.h"
#include "fs/link.h"

#define BATCH 64 /* link rows under one hold of the lock */

/* ------------------------------------------------------------------ one world */

struct world_args {
	struct cow_inode *world;
	uint64_t cursor;
};

static int purge_some(struct cow_op *op, void *v)
{
	struct world_args *a = v;

	(void)op;
	if (cow_inode_check_live(a->world) != 0 || !a->world->is_world || !cow_link_has_garbage(a->world))
		return 0;
	return cow_link_purge(a->world, &a->cursor, BATCH);
}

static bool is_damage(int error)
{
	return error == COW_ERR_DAMAGED || error == -EIO;
}

/* A world that is damaged, which was reported when it was read, keeps its garbage. */
static int purge_world(struct cow_inode *world)
{
	struct world_args args = {world, 0};
	int more;

	do
		more = cow_op_read(world->volume, purge_some, &args);
	while (more > 0);
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
	int error;

	do {
		error = cow_op_read(volume, take_queued, &world);
		if (error == 0 && world != NULL) {
			error = purge_world(world);
			cow_forget(world, 1);
		}
	} while (error == 0 && world != NULL);
	return error;
}

/* ------------------------------------------------------------------ the walk */

struct walk_args {
	struct cow_inode *dir, *child; /* child: referenced, or NULL at the end */
	uint64_t cursor;
	uint64_t block; /* root of the child's tree */
};

/* The next directory in `dir` that has references below it. */
static int next_dir(struct cow_op *op, void *v)
{
	struct walk_args *a = v;
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
		if (cow_inode_is_dir(child) && (child->totals.refs != 0 || child->totals.nested_refs != 0)) {
			a->cursor = item.key + 1;
			a->child = child;
			a->block = child->tree.root.addr;
			return 0;
		}
		cow_inode_put(child, 1);
	}
	return error == -ENOENT || error == -ESTALE ? 0 : error;
}

/*
 * Is it worth while to go in? A tree that several clones hold is entered once: the worlds in it are the same through
 * each of them, and there may be more ways to them than can be gone (clones of clones; or an image that lies).
 */
static bool is_new(struct cow_map *entered, uint64_t block)
{
	if (block == 0 || cow_map_get(entered, block) != NULL)
		return false;
	cow_map_put(entered, block, entered);
	return true;
}

int cow_purge_all(struct cow_volume *volume)
{
	struct cow_map entered = {0}; /* roots of trees */
	struct walk_args *stack = cow_mem_new(sizeof(*stack));
	size_t depth = 1, size = 1;
	int error = cow_root(volume, &stack[0].dir);

	if (error == 0)
		error = purge_world(stack[0].dir);
	while (depth > 0) {
		struct walk_args *top = &stack[depth - 1];

		if (error == 0)
			error = cow_op_read(volume, next_dir, top);
		if (is_damage(error)) /* and so does what lies below a damaged directory */
			error = 0;
		if (error != 0 || top->child == NULL) {
			cow_forget(top->dir, 1);
			depth--;
			continue;
		}
		if (depth == size) {
			stack = cow_mem_resize(stack, (size *= 2) * sizeof(*stack));
			top = &stack[depth - 1];
		}
		error = purge_world(top->child);
		if (error == 0 && is_new(&entered, top->block))
			stack[depth++] = (struct walk_args){.dir = top->child};
		else
			cow_forget(top->child, 1);
	}
	cow_map_free(&entered);
	free(stack);
	return error;
}
