/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/remove.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/mem.h"
#include "fs/change.h"
#include "fs/commit/commit.h"
#include "fs/core/backref.h"
#include "fs/core/fold.h"
#include "fs/core/totals.h"
#include "fs/core/volume.h"
#include "fs/data/file.h"
#include "fs/data/pages.h"
#include "fs/world/inode_number.h"
#include "fs/world/link.h"
#include "fs/world/orphan.h"

/* ------------------------------------------------------------------ names of files */

/* The directory n of this world, in memory, found by the keys that the spine gives. */
static int dir_by_number(struct cow_inode *world, uint64_t n, struct cow_inode **dir)
{
	struct cow_inode *at = world, *next;
	uint64_t *keys = NULL;
	size_t count = 0;
	int error = 0;

	while (error == 0 && n != world->number) {
		struct cow_back up;
		error = cow_link_spine(world, n, &up);
		if (error == 0) {
			keys = cow_mem_resize(keys, (count + 1) * sizeof(*keys));
			keys[count++] = up.key;
			n = up.dir;
		}
	}
	cow_inode_get(at);
	while (error == 0 && count > 0) {
		struct cow_found found = {.key = keys[--count]};
		struct cow_item item;
		error = cow_tree_get(world->volume->store, &at->tree, found.key, &item);
		if (error == 0)
			error = cow_dirent_decode(item.value, item.length, &found.entry);
		if (error == 0)
			error = cow_dir_child(at, &found, &next);
		if (error == 0) {
			cow_inode_put(at, 1);
			at = next;
			error = cow_inode_is_dir(at) ? 0 : COW_ERR_DAMAGED;
		}
	}
	free(keys);
	if (error != 0)
		cow_inode_put(at, 1);
	else
		*dir = at;
	return error;
}

void cow_remove_done(struct cow_removal *r)
{
	if (r->back_dir != NULL)
		cow_inode_put(r->back_dir, 1);
	r->back_dir = NULL;
}

/* 0 if the entry of the last name is there, is another than the one that goes, and leads to the child. */
static int check_back(const struct cow_removal *r)
{
	struct cow_dirent entry;
	struct cow_item item;
	int error = cow_tree_get(r->dir->volume->store, &r->back_dir->tree, r->back_key, &item);

	if (error == 0)
		error = cow_dirent_decode(item.value, item.length, &entry);
	if (error != 0)
		return error;
	if (!entry.is_link || entry.link_key != r->child->key || (r->back_dir == r->dir && r->back_key == r->key))
		return COW_ERR_DAMAGED;
	return 0;
}

/* One live name is left: its entry takes the record back, so that link + unlink leaves nothing behind for ever. That
 * is a favour, not a duty: what is in its way (a damaged path) just leaves the record where it is. */
static int prepare_back(struct cow_removal *r, struct cow_back last)
{
	struct cow_inode *world = r->child->parent;
	int error;

	if (cow_store_check_floor(world->volume->store, 4) != 0) /* the entry grows, and its leaf may split */
		return 0;
	error = dir_by_number(world, last.dir, &r->back_dir);

	if (error != 0) {
		r->back_dir = NULL;
		return error == COW_MISS ? COW_MISS : 0;
	}
	r->back_key = last.key;
	error = check_back(r);
	if (error != 0 && error != COW_MISS) { /* links that say what is not so */
		cow_remove_done(r);
		return 0;
	}
	if (error == 0)
		error = cow_dir_reserve(r->back_dir, r->back_key);
	if (error == 0)
		error = cow_link_prepare(world, r->child->key, r->back_dir);
	return error;
}

static int prepare_linked(struct cow_removal *r)
{
	struct cow_inode *child = r->child, *world = child->parent;
	struct cow_back *live, last = {0, 0};
	uint32_t count;
	int error = cow_link_prepare(world, child->key, r->dir);

	if (error == 0 && world->totals.refs <= 2) /* with this name, and one that goes back, the last may go */
		error = cow_link_prepare_empty(world);
	if (error == 0)
		error = cow_link_live(child, &live, &count);
	if (error != 0)
		return error;
	for (uint32_t i = 0; i < count; i++)
		if (live[i].dir != r->dir->number || live[i].key != r->key) {
			r->left++;
			last = live[i];
		}
	free(live);
	if (r->left == 0)
		return cow_number_reserve(child->volume, world->colour, child->tag);
	return r->left == 1 ? prepare_back(r, last) : 0;
}

int cow_remove_prepare(struct cow_inode *dir, uint64_t key, struct cow_inode *child, struct cow_removal *r)
{
	uint64_t bytes = 0;
	int error;

	*r = (struct cow_removal){.dir = dir, .child = child, .key = key};
	error = cow_dir_reserve(dir, key);
	if (error == 0 && child->opens > 0)
		error = cow_orphan_check_room(child, &bytes);
	if (error == 0)
		error = cow_inode_reserve(child);
	if (error == 0)
		error = cow_orphan_reserve(dir->volume);
	if (error == 0 && child->place == COW_LINKED)
		error = prepare_linked(r);
	else if (error == 0)
		error = cow_number_reserve(dir->volume, dir->colour, child->tag);
	return error;
}

static void remove_embedded(struct cow_removal *r)
{
	struct cow_totals old;

	cow_totals_of(r->child, &old);
	cow_dir_delete(r->dir, r->key, &old);
	cow_inode_unhook(r->child);
	cow_orphan_or_discard(r->child);
	cow_number_drop(r->dir->volume, r->dir->colour, r->child->tag);
}

static void give_record_back(struct cow_removal *r)
{
	struct cow_inode *child = r->child;

	cow_link_take_out(child);
	cow_inode_hook(child, COW_EMBEDDED, r->back_dir, r->back_key);
	cow_dir_put_inode(r->back_dir, r->back_key, NULL, child, &cow_totals_of_link);
	cow_link_fix_spine(r->back_dir);
}

static void remove_linked(struct cow_removal *r)
{
	struct cow_inode *child = r->child, *world = child->parent;

	if (r->left > 0)
		cow_backref_remove(child, (struct cow_back){r->dir->number, r->key});
	cow_dir_delete(r->dir, r->key, &cow_totals_of_link);
	cow_link_fix_spine(r->dir);
	cow_inode_get(world);
	if (r->left == 0) {
		cow_link_take_out(child);
		cow_orphan_or_discard(child);
		cow_number_drop(world->volume, world->colour, child->tag);
	} else if (r->back_dir != NULL) {
		give_record_back(r);
	}
	if (world->totals.refs == 0) /* what no name reached any more */
		cow_link_empty(world);
	cow_inode_put(world, 1);
}

void cow_remove_name(struct cow_removal *r, const struct timespec *now)
{
	r->child->ctime = cow_when_of(now);
	if (r->child->place == COW_LINKED)
		remove_linked(r);
	else
		remove_embedded(r);
}

/* ------------------------------------------------------------------ empty directories */

int cow_remove_prepare_dir(struct cow_inode *dir, uint64_t key, struct cow_inode *child, struct cow_removal *r)
{
	uint64_t bytes = 0;
	int error;

	*r = (struct cow_removal){.dir = dir, .child = child, .key = key};
	error = cow_dir_reserve(dir, key);
	if (error == 0 && child->opens > 0)
		error = cow_orphan_check_room(child, &bytes);
	if (error == 0)
		error = cow_inode_reserve(child);
	if (error == 0)
		error = cow_orphan_reserve(dir->volume);
	if (error == 0 && child->is_world)
		error = cow_link_prepare_empty(child);
	if (error == 0)
		error = cow_number_reserve(dir->volume, dir->colour, child->tag);
	return error;
}

void cow_remove_dir(struct cow_removal *r)
{
	struct cow_totals old;

	if (r->child->is_world)
		cow_link_empty(r->child);
	cow_totals_of(r->child, &old);
	cow_dir_delete(r->dir, r->key, &old);
	cow_inode_unhook(r->child);
	cow_orphan_or_discard(r->child);
	cow_number_drop(r->dir->volume, r->dir->colour, r->child->tag);
	r->dir->volume->removals++;
}

/* ------------------------------------------------------------------ whole trees */

/* The buffered pages of one file. */
struct aside {
	struct cow_inode *file;
	struct cow_radix pages;
};

struct tree_args {
	struct cow_inode *dir;
	const char *name;
	struct aside *aside;
	size_t asides;
};

/* What is buffered for files that nobody can read any more need not be written: it is put aside while the tree is
 * folded. */
static void put_aside(struct tree_args *a, struct cow_inode *top)
{
	for (struct cow_inode *i = top->volume->buffered.first, *next; i != NULL; i = next) {
		next = i->buffered_next;
		if (i->opens > 0 || i->place != COW_EMBEDDED || !cow_inode_is_below(i, top))
			continue;
		a->aside = cow_mem_resize(a->aside, (a->asides + 1) * sizeof(*a->aside));
		a->aside[a->asides++] = (struct aside){i, cow_pages_detach(i)};
	}
}

/* The tree stays, or has to wait: its files get back what they had. A fold since then has left their paths private. */
static void put_back(struct tree_args *a)
{
	while (a->asides > 0) {
		struct aside *aside = &a->aside[--a->asides];
		int error = cow_inode_reserve(aside->file);

		assert(error == 0);
		cow_pages_attach(aside->file, aside->pages);
	}
	free(a->aside);
	a->aside = NULL;
}

static void throw_away(struct tree_args *a)
{
	while (a->asides > 0)
		cow_pages_free(a->dir->volume, &a->aside[--a->asides].pages);
	free(a->aside);
	a->aside = NULL;
}

static int prepare_open(struct cow_inode *top)
{
	uint64_t bytes = 0;
	int error = 0;

	for (struct cow_inode *i = top->volume->open; i != NULL && error == 0; i = i->open_next) {
		if (!cow_inode_is_below(i, top))
			continue;
		error = cow_orphan_check_room(i, &bytes);
		if (error == 0)
			error = cow_inode_is_dir(i) ? cow_tree_can_share(i->volume->store, &i->xattr.tree)
						    : cow_inode_reserve(i);
	}
	return error;
}

/* A directory below a removed tree that is held open: an empty orphan. What was in it goes with the tree, whose
 * leaves hold the claims (everything has been folded): the inode just forgets them. It keeps its attributes. */
static void orphan_dir(struct cow_inode *i)
{
	int error = cow_tree_share(i->volume->store, &i->xattr.tree);

	assert(!i->dirty && error == 0);
	i->tree.root = i->links.root = (struct cow_ptr){0};
	i->totals = (struct cow_totals){0};
	i->back_sum = i->link_bytes = i->link_blocks = i->link_files = 0;
	i->is_world = i->read_only = false;
	i->tag = 0;
	cow_inode_unhook(i);
	cow_inode_set_dirty(i);
	cow_orphan_make(i);
}

/* Every inode below `top` that is held open becomes an orphan of its own. First the files, whose records leave the
 * tree; then, after a fold has brought the directories up to date without them, the directories. */
static void orphan_open(struct cow_inode *top)
{
	struct cow_volume *volume = top->volume;
	struct cow_totals old;
	int error;

	for (struct cow_inode *i = volume->open; i != NULL; i = i->open_next) {
		if (!cow_inode_is_below(i, top) || cow_inode_is_dir(i))
			continue;
		if (i->place == COW_LINKED) {
			cow_link_take_out(i);
		} else {
			cow_totals_of(i, &old);
			cow_dir_delete(i->parent, i->key, &old);
			cow_inode_unhook(i);
		}
		cow_orphan_make(i);
	}
	error = cow_volume_fold(volume);
	assert(error == 0); /* nothing is buffered and every path is private */
	for (struct cow_inode *i = volume->open; i != NULL; i = i->open_next)
		if (i != top && cow_inode_is_below(i, top))
			orphan_dir(i);
}

static int prepare_tree(struct tree_args *a, uint64_t key, struct cow_inode *top)
{
	struct cow_inode *dir = a->dir;
	struct cow_volume *volume = dir->volume;
	struct cow_inode *world = cow_inode_world(dir);
	int error;

	put_aside(a, top);
	error = cow_volume_fold(volume);
	if (error == 0)
		error = prepare_open(top);
	if (error == 0)
		error = cow_dir_reserve(dir, key);
	if (error == 0)
		error = cow_inode_reserve(top);
	if (error == 0)
		error = cow_orphan_reserve(volume);
	if (error == 0)
		error = cow_number_reserve(volume, dir->colour, top->tag);
	if (error == 0 && !top->is_world && top->totals.refs > 0) {
		error = cow_link_prepare(world, top->number, dir);
		if (error == 0 && world->totals.refs == top->totals.refs)
			error = cow_link_prepare_empty(world);
	}
	return error;
}

static void remove_tree(struct cow_inode *dir, uint64_t key, struct cow_inode *top)
{
	struct cow_volume *volume = dir->volume;
	struct cow_inode *world = cow_inode_world(dir);
	bool had_refs = !top->is_world && top->totals.refs > 0;
	uint64_t tag = top->tag, number = top->number;
	struct cow_totals old;
	struct cow_item item;
	int error;

	orphan_open(top);
	cow_totals_of(top, &old);
	error = cow_inode_reserve(dir); /* folded: dirty again, without a miss */
	if (error == 0)
		error = cow_tree_get(volume->store, &dir->tree, key, &item);
	assert(error == 0);
	cow_reclaim_value(volume->store, COW_KIND_DIR, item.value, item.length);
	cow_dir_delete(dir, key, &old);
	if (top->opens > 0) {
		orphan_dir(top);
	} else {
		cow_inode_unhook(top);
		top->place = COW_GONE;
	}
	cow_number_drop(volume, dir->colour, tag);
	if (had_refs) {
		error = cow_inode_reserve(world);
		assert(error == 0);
		cow_link_set_spine(world, number, NULL);
		cow_link_fix_spine(dir);
		cow_link_settle(world);
	}
	volume->rows_dropped++;
	volume->removals++;
	cow_volume_wake(volume, false); /* there is something to reclaim */
}

static int remove_tree_body(struct cow_op *op, void *v)
{
	struct tree_args *a = v;
	struct cow_removal removal = {0};
	struct cow_inode *child = NULL;
	struct cow_found found;
	int error = cow_dir_check_writable(a->dir);

	if (error == 0)
		error = cow_dir_lookup(a->dir, a->name, &found, &child);
	if (error != 0)
		return error;
	if (cow_inode_is_dir(child)) {
		error = prepare_tree(a, found.key, child);
		if (error != 0) {
			put_back(a);
		} else {
			throw_away(a);
			remove_tree(a->dir, found.key, child);
		}
	} else {
		error = cow_remove_prepare(a->dir, found.key, child, &removal);
		if (error == 0)
			cow_remove_name(&removal, &op->now);
		cow_remove_done(&removal);
	}
	if (error == 0) {
		cow_dir_touch(a->dir, &op->now);
		cow_note_commit(op->volume);
	}
	cow_inode_put(child, 1);
	return error;
}

/* ------------------------------------------------------------------ public */

struct remove_args {
	struct cow_inode *dir;
	const char *name;
	bool directory;
};

static int remove_body(struct cow_op *op, void *v)
{
	struct remove_args *a = v;
	struct cow_removal removal = {0};
	struct cow_inode *child = NULL;
	struct cow_found found;
	int error = cow_dir_check_writable(a->dir);

	if (error == 0)
		error = cow_dir_lookup(a->dir, a->name, &found, &child);
	if (error != 0)
		return error;
	if (a->directory && !cow_inode_is_dir(child))
		error = -ENOTDIR;
	else if (!a->directory && cow_inode_is_dir(child))
		error = -EISDIR;
	else if (a->directory && !cow_dir_is_empty(child))
		error = -ENOTEMPTY;
	if (error == 0)
		error = a->directory ? cow_remove_prepare_dir(a->dir, found.key, child, &removal)
				     : cow_remove_prepare(a->dir, found.key, child, &removal);
	if (error == 0) {
		if (a->directory)
			cow_remove_dir(&removal);
		else
			cow_remove_name(&removal, &op->now);
		cow_dir_touch(a->dir, &op->now);
		cow_note_remove(op, a->dir, a->name, a->directory);
	}
	cow_remove_done(&removal);
	cow_inode_put(child, 1);
	return error;
}

static int remove_name(struct cow_inode *dir, const char *name, bool directory)
{
	struct remove_args args = {dir, name, directory};
	int error = cow_name_check(name);

	return error != 0 ? error : cow_op_change(dir->volume, 0, true, remove_body, &args);
}

int cow_unlink(struct cow_inode *dir, const char *name)
{
	return remove_name(dir, name, false);
}

int cow_rmdir(struct cow_inode *dir, const char *name)
{
	return remove_name(dir, name, true);
}

int cow_remove_tree(struct cow_inode *dir, const char *name)
{
	struct tree_args args = {.dir = dir, .name = name};
	int error = cow_name_check(name);

	return error != 0 ? error : cow_op_change(dir->volume, 0, true, remove_tree_body, &args);
}
