/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rename(2), within a world and across worlds (doc/DESIGN.md, "Rename across worlds").
 *
 * What moves within its world keeps its record and its links. What leaves its world keeps its number: a directory
 * becomes a world of its own that keeps its colour, with the links tree of the world it came from; a file stores a
 * tag that leads to its colour. Only a hard-link group that would be torn in two is refused (EXDEV), and that is
 * decided before anything changes.
 */
#include <assert.h>
#include <errno.h>
#include <sys/stat.h>

#include "fs/change.h"
#include "fs/commit/commit.h"
#include "fs/core/backref.h"
#include "fs/core/fold.h"
#include "fs/core/totals.h"
#include "fs/core/volume.h"
#include "fs/reclaim/census.h"
#include "fs/remove.h"
#include "fs/world/dir.h"
#include "fs/world/inode_number.h"
#include "fs/world/link.h"
#include "fs/world/orphan.h"

#define COMMIT_FIRST 1 /* without locks, and then once more */

struct rename_args {
	struct cow_inode *from_dir, *to_dir;
	const char *from, *to;
	unsigned flags;
	struct cow_census inside; /* of a directory that leaves its world */
	size_t loaded;            /* of its groups: so many are probably in memory */
	unsigned commits;         /* made so that it need not begin anew */
};

/* One rename under way. */
struct move {
	struct cow_inode *from_dir, *to_dir;
	const char *to;
	uint64_t from_key, to_key;
	struct cow_inode *inode, *target; /* referenced */
	struct cow_inode *from_world, *to_world;
	struct cow_removal removal;
	uint64_t tag; /* fresh, for what changes worlds */
	bool linked;  /* the name that moves is a link reference */
};

/* ------------------------------------------------------------------ would a group be torn? */

/* Live names of the group `key`, whether its inode is in memory or not. */
static int live_names(struct cow_inode *world, uint64_t key, uint32_t *count)
{
	struct cow_found found = {.entry = {.is_link = true, .link_key = key}};
	struct cow_inode *inode;
	int error = cow_dir_child(world, &found, &inode);

	if (error == 0) {
		error = cow_link_count(inode, count);
		cow_inode_put(inode, 1);
	}
	return error;
}

/* From group *at on: -EXDEV if one has names on both sides. */
static int compare_groups(struct cow_inode *world, const struct cow_map *inside, size_t *at)
{
	struct cow_map_slot *slot;
	int error = 0;

	for (size_t i = *at; (slot = cow_map_each(inside, &i)) != NULL; *at = i) {
		uint32_t names = 0;
		error = live_names(world, slot->key, &names);
		if (error == 0 && names != (uintptr_t)slot->value)
			error = -EXDEV;
		if (error != 0)
			break;
	}
	return error;
}

/* -EXDEV if a group has names on both sides. */
static int count_groups(struct rename_args *a, struct move *m)
{
	size_t at = 0;
	int error = cow_volume_fold(m->inode->volume);

	if (error == 0)
		error = cow_census_take(&a->inside, m->inode);
	if (error != 0 || m->inode->totals.refs == m->from_world->totals.refs)
		return error; /* all the groups of the world are inside */
	error = compare_groups(m->from_world, &a->inside.counts, &a->loaded);
	/* what was compared before a miss may have changed since: once more, all of it under one hold of the lock */
	return error != 0 ? error : compare_groups(m->from_world, &a->inside.counts, &at);
}

/* O(references below), cold or not: it goes on where it missed. Of what was changed since the last commit a census goes
 * on from nowhere, so that is committed. */
static int check_groups(struct rename_args *a, struct move *m)
{
	int error = count_groups(a, m);

	if (error == COW_MISS && cow_ptr_is_dirty(m->inode->tree.root) && a->commits < COW_CENSUS_COMMITS)
		error = COMMIT_FIRST;
	return error;
}

static bool leaves_world_with_refs(const struct move *m)
{
	return m->from_world != m->to_world && cow_inode_is_dir(m->inode) && !m->inode->is_world &&
	       m->inode->totals.refs > 0;
}

/* ------------------------------------------------------------------ prepare */

static int check_target(const struct move *m)
{
	bool dir = cow_inode_is_dir(m->inode), target_dir = cow_inode_is_dir(m->target);

	if (dir && !target_dir)
		return -ENOTDIR;
	if (!dir && target_dir)
		return -EISDIR;
	return target_dir && !cow_dir_is_empty(m->target) ? -ENOTEMPTY : 0;
}

static int check_worlds(struct rename_args *a, struct move *m)
{
	uint32_t names;
	int error = 0;

	if (m->from_world == m->to_world)
		return 0;
	if (m->linked) {
		error = cow_link_count(m->inode, &names);
		if (error == 0 && names > 1)
			error = -EXDEV;
	} else if (leaves_world_with_refs(m)) {
		error = check_groups(a, m);
	}
	return error;
}

static int prepare_links(struct move *m)
{
	uint64_t key = m->linked ? m->inode->key : m->inode->number;
	bool touches = m->linked || cow_inode_is_dir(m->inode);
	int error = 0;

	if (touches)
		error = cow_link_prepare(m->from_world, key, m->from_dir);
	if (error == 0 && touches && m->from_world == m->to_world)
		error = cow_link_prepare(m->to_world, key, m->to_dir);
	if (error == 0 && leaves_world_with_refs(m)) {
		error = cow_tree_can_share(m->inode->volume->store, &m->from_world->links);
		if (error == 0 && m->inode->totals.refs == m->from_world->totals.refs)
			error = cow_link_prepare_empty(m->from_world);
	}
	if (error == 0 && m->from_world != m->to_world && m->linked && m->from_world->totals.refs == 1)
		error = cow_link_prepare_empty(m->from_world);
	if (error == 0 && m->from_world != m->to_world && m->inode->is_world)
		error = cow_link_prepare_empty(m->inode); /* it may become a plain directory again */
	return error;
}

static int prepare_numbers(struct move *m)
{
	struct cow_volume *volume = m->inode->volume;
	int error;

	if (m->from_world == m->to_world)
		return 0;
	error = cow_number_reserve(volume, m->from_dir->colour, m->inode->tag);
	/* The tag that carry_out() takes first of all: no other number, because its row is reserved. */
	return error != 0 ? error : cow_number_reserve(volume, m->to_dir->colour, volume->counters.number);
}

static int prepare(struct rename_args *a, struct move *m)
{
	int error = check_worlds(a, m);

	if (error == 0)
		error = cow_dir_reserve(m->from_dir, m->from_key);
	if (error == 0)
		error = cow_dir_reserve(m->to_dir, m->to_key);
	if (error == 0)
		error = cow_inode_reserve(m->inode);
	if (error == 0)
		error = cow_orphan_reserve(m->inode->volume);
	if (error == 0 && m->target != NULL)
		error = cow_inode_is_dir(m->target)
				? cow_remove_prepare_dir(m->to_dir, m->to_key, m->target, &m->removal)
				: cow_remove_prepare(m->to_dir, m->to_key, m->target, &m->removal);
	if (error == 0)
		error = prepare_links(m);
	return error != 0 ? error : prepare_numbers(m);
}

/* ------------------------------------------------------------------ move */

static void take_name(struct cow_inode *dir, uint64_t key, struct cow_inode *inode, bool linked)
{
	struct cow_totals old = cow_totals_of_link;

	if (!linked)
		cow_totals_of(inode, &old);
	cow_dir_delete(dir, key, &old);
	if (linked)
		cow_backref_remove(inode, (struct cow_back){dir->number, key});
	else
		cow_inode_unhook(inode);
}

static void give_name(struct cow_inode *dir, uint64_t key, const char *name, struct cow_inode *inode, bool linked)
{
	if (linked) {
		cow_backref_add(inode, (struct cow_back){dir->number, key});
		cow_dir_put_link(dir, key, name, inode->mode & S_IFMT, inode->key, NULL);
		return;
	}
	cow_inode_hook(inode, COW_EMBEDDED, dir, key);
	cow_dir_put_inode(dir, key, name, inode, NULL);
	if (cow_inode_is_dir(inode) && !inode->is_world && inode->totals.refs > 0) {
		struct cow_back up = {dir->number, key};
		cow_link_set_spine(cow_inode_world(dir), inode->number, &up);
	}
}

static void move_within(struct move *m)
{
	take_name(m->from_dir, m->from_key, m->inode, m->linked);
	give_name(m->to_dir, m->to_key, m->to, m->inode, m->linked);
	if (m->linked || cow_inode_is_dir(m->inode)) {
		cow_link_fix_spine(m->from_dir);
		cow_link_fix_spine(m->to_dir);
	}
}

/* The links of the old world become those of the new one too, and linked inodes in memory with names below go with the
 * directory. Everything is folded, so the shared rows are exact. */
static void become_world(struct move *m, const struct cow_map *inside)
{
	struct cow_inode *top = m->inode, *world = m->from_world;
	struct cow_map_slot *slot;
	int error;

	top->is_world = true;
	top->read_only = false;
	top->links.root = (struct cow_ptr){0};
	if (top->totals.refs == 0)
		return;
	error = cow_tree_share(top->volume->store, &world->links);
	assert(error == 0);
	top->links.root = world->links.root;
	top->back_sum = world->back_sum;
	top->link_bytes = world->link_bytes;
	top->link_blocks = world->link_blocks;
	top->link_files = world->link_files;
	for (size_t i = 0; (slot = cow_map_each(inside, &i)) != NULL;) {
		struct cow_inode *linked = cow_map_get(&world->linked, slot->key);
		if (linked == NULL)
			continue;
		cow_inode_get(linked);
		cow_inode_unhook(linked);
		cow_inode_hook(linked, COW_LINKED, top, slot->key);
		linked->nlink_version = 0;
		cow_inode_put(linked, 1);
	}
}

static void make_plain(struct cow_inode *top)
{
	cow_link_empty(top);
	top->is_world = false;
	top->tag = 0;
}

/*
 * A writable world without references that comes into a world of its own colour may be a plain directory again, if
 * nothing is written there about it or what lies below it: spine rows and back-references from the time before it
 * left, or that a clone brought along, are dead only as long as no chain leads through its number. No references, no
 * rows: that is known at once.
 */
static bool may_be_plain(const struct move *m)
{
	return m->inode->colour == m->to_dir->colour && m->inode->totals.refs == 0 && !m->inode->read_only &&
	       cow_ptr_is_null(m->to_world->links.root);
}

static void move_dir_across(struct move *m, const struct cow_map *inside)
{
	struct cow_inode *top = m->inode;
	struct cow_volume *volume = top->volume;
	bool was_world = top->is_world, had_refs = !was_world && top->totals.refs > 0;
	int error;

	take_name(m->from_dir, m->from_key, top, false);
	cow_number_drop(volume, m->from_dir->colour, top->tag);
	if (!was_world)
		become_world(m, inside);
	if (may_be_plain(m)) {
		make_plain(top);
	} else {
		top->tag = m->tag;
		cow_number_set(volume, m->to_dir->colour, top->tag, top->colour);
	}
	cow_inode_hook(top, COW_EMBEDDED, m->to_dir, m->to_key);
	cow_dir_put_inode(m->to_dir, m->to_key, m->to, top, NULL);
	if (had_refs) {
		error = cow_inode_reserve(m->from_world);
		assert(error == 0);
		cow_link_set_spine(m->from_world, top->number, NULL);
		cow_link_fix_spine(m->from_dir);
		cow_link_settle(m->from_world);
	}
}

static void move_file_across(struct move *m)
{
	struct cow_inode *i = m->inode;
	struct cow_volume *volume = i->volume;

	if (m->linked) {
		cow_dir_delete(m->from_dir, m->from_key, &cow_totals_of_link);
		cow_link_take_out(i);
		cow_link_fix_spine(m->from_dir);
		if (m->from_world->totals.refs == 0)
			cow_link_empty(m->from_world);
	} else {
		take_name(m->from_dir, m->from_key, i, false);
	}
	cow_number_drop(volume, m->from_dir->colour, i->tag);
	i->tag = 0;
	if (i->colour != m->to_dir->colour) {
		i->tag = m->tag;
		cow_number_set(volume, m->to_dir->colour, i->tag, i->colour);
	}
	cow_inode_hook(i, COW_EMBEDDED, m->to_dir, m->to_key);
	cow_dir_put_inode(m->to_dir, m->to_key, m->to, i, NULL);
}

/* A fold made everything clean: the same paths again, all of them private and in memory. */
static void reserve_again(struct move *m)
{
	int error = cow_inode_reserve(m->inode);

	if (error == 0)
		error = cow_inode_reserve(m->to_dir);
	if (error == 0)
		error = cow_inode_reserve(m->from_world);
	assert(error == 0);
}

static void carry_out(struct cow_op *op, struct move *m, const struct cow_map *inside)
{
	int error;

	if (m->from_world != m->to_world)
		m->tag = cow_number_next(op->volume); /* before an orphan takes it */
	if (m->target != NULL && cow_inode_is_dir(m->target))
		cow_remove_dir(&m->removal);
	else if (m->target != NULL)
		cow_remove_name(&m->removal, &op->now);
	m->inode->ctime = cow_when_of(&op->now);
	cow_dir_touch(m->from_dir, &op->now);
	cow_dir_touch(m->to_dir, &op->now);
	if (m->from_world == m->to_world) {
		move_within(m);
	} else if (cow_inode_is_dir(m->inode)) {
		if (leaves_world_with_refs(m)) {
			error = cow_volume_fold(op->volume);
			assert(error == 0);
			reserve_again(m);
		}
		move_dir_across(m, inside);
	} else {
		move_file_across(m);
	}
}

/* ------------------------------------------------------------------ exchange */

/* Two names of one world change places. */
static int exchange(struct cow_op *op, struct move *m, const char *from)
{
	struct cow_inode *a = m->inode, *b = m->target;
	bool b_linked = b->place == COW_LINKED;
	int error = m->from_world != m->to_world ? -EXDEV : cow_inode_is_below(m->from_dir, b) ? -EINVAL : 0;

	if (error == 0)
		error = cow_dir_reserve(m->from_dir, m->from_key);
	if (error == 0)
		error = cow_dir_reserve(m->to_dir, m->to_key);
	if (error == 0)
		error = cow_inode_reserve(a);
	if (error == 0)
		error = cow_inode_reserve(b);
	if (error == 0)
		error = cow_link_prepare(m->from_world, m->linked ? a->key : a->number, m->from_dir);
	if (error == 0)
		error = cow_link_prepare(m->from_world, b_linked ? b->key : b->number, m->to_dir);
	if (error != 0)
		return error;
	take_name(m->from_dir, m->from_key, a, m->linked);
	take_name(m->to_dir, m->to_key, b, b_linked);
	give_name(m->to_dir, m->to_key, m->to, a, m->linked);
	give_name(m->from_dir, m->from_key, from, b, b_linked);
	cow_link_fix_spine(m->from_dir);
	cow_link_fix_spine(m->to_dir);
	a->ctime = b->ctime = cow_when_of(&op->now);
	cow_dir_touch(m->from_dir, &op->now);
	cow_dir_touch(m->to_dir, &op->now);
	cow_note_rename(op, m->from_dir, from, m->to_dir, m->to, COW_RENAME_EXCHANGE, a, b);
	return 0;
}

/* ------------------------------------------------------------------ the call */

static int find_both(struct rename_args *a, struct move *m)
{
	struct cow_found found;
	int error = cow_dir_check_writable(a->from_dir);

	if (error == 0)
		error = cow_dir_check_writable(a->to_dir);
	if (error == 0)
		error = cow_dir_lookup(a->from_dir, a->from, &found, &m->inode);
	if (error != 0)
		return error;
	m->from_key = found.key;
	m->linked = m->inode->place == COW_LINKED;
	error = cow_dir_lookup(a->to_dir, a->to, &found, &m->target);
	m->to_key = found.key;
	return error == -ENOENT ? 0 : error;
}

/* COMMIT_FIRST: nothing was done. */
static int rename_body(struct cow_op *op, void *v)
{
	struct rename_args *a = v;
	struct move m = {.from_dir = a->from_dir, .to_dir = a->to_dir, .to = a->to};
	bool swap = (a->flags & COW_RENAME_EXCHANGE) != 0;
	int error = find_both(a, &m);

	if (error == 0 && m.target != NULL && (a->flags & COW_RENAME_NOREPLACE) != 0)
		error = -EEXIST;
	if (error == 0 && m.target == NULL && swap)
		error = -ENOENT;
	if (error == 0 && cow_inode_is_below(a->to_dir, m.inode))
		error = -EINVAL;
	if (error != 0 || m.target == m.inode) /* two names of one file: nothing to do, says POSIX */
		goto out;
	m.from_world = cow_inode_world(a->from_dir);
	m.to_world = cow_inode_world(a->to_dir);
	if (swap) {
		error = exchange(op, &m, a->from);
		goto out;
	}
	if (op->volume->replaying && m.from_world != m.to_world)
		error = COW_ERR_DAMAGED; /* the intent log has no such renames */
	if (error == 0 && m.target != NULL)
		error = check_target(&m);
	if (error == 0)
		error = prepare(a, &m);
	if (error == 0) {
		carry_out(op, &m, &a->inside.counts);
		if (m.from_world == m.to_world)
			cow_note_rename(op, a->from_dir, a->from, a->to_dir, a->to, 0,
					m.target != NULL ? m.inode : NULL, NULL);
		else
			cow_note_commit(op->volume);
	}
out:
	cow_remove_done(&m.removal);
	if (m.target != NULL)
		cow_inode_put(m.target, 1);
	if (m.inode != NULL)
		cow_inode_put(m.inode, 1);
	return error;
}

static int change(struct rename_args *a)
{
	struct cow_volume *volume = a->from_dir->volume;
	int error;

	while ((error = cow_op_change(volume, 0, false, rename_body, a)) == COMMIT_FIRST) {
		a->commits++;
		(void)!cow_volume_commit(volume, NULL, NULL); /* without it it only takes longer */
	}
	return error;
}

int cow_rename(struct cow_inode *from_dir, const char *from, struct cow_inode *to_dir, const char *to, unsigned flags)
{
	struct rename_args args = {.from_dir = from_dir, .to_dir = to_dir, .from = from, .to = to, .flags = flags};
	int error = cow_name_check(from);

	if (error == 0)
		error = cow_name_check(to);
	if (error == 0 && ((flags & ~(unsigned)(COW_RENAME_NOREPLACE | COW_RENAME_EXCHANGE)) != 0 ||
			   flags == (COW_RENAME_NOREPLACE | COW_RENAME_EXCHANGE)))
		error = -EINVAL;
	if (error == 0 && from_dir->volume != to_dir->volume)
		error = -EXDEV;
	if (error == 0)
		error = change(&args);
	cow_census_free(&args.inside);
	return error;
}
