/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Clones (doc/DESIGN.md, "Worlds"): a directory's clone is an entry with a new world: the source's tree, the
 * surrounding world's links, and a fresh tag. Two counts, one entry.
 *
 * The order matters where the target lies inside the source. First everything on the way to the target becomes
 * private and dirty; then a fold makes the source's record exact; then the record is taken and its trees are shared;
 * then the entry is put, which copies the way once more, now that it is shared: all of it is in memory, so nothing
 * can miss, and the copy that the clone keeps does not have the target in it.
 */
#include <assert.h>
#include <errno.h>
#include <sys/stat.h>

#include "fs/change.h"
#include "fs/commit/commit.h"
#include "fs/core/fold.h"
#include "fs/core/volume.h"
#include "fs/data/file.h"
#include "fs/data/flight.h"
#include "fs/remove.h"
#include "fs/world/dir.h"
#include "fs/world/inode_number.h"
#include "fs/world/orphan.h"
#include "fs/world/stat.h"

struct clone_args {
	struct cow_inode *source, *dir;
	const char *name;
	unsigned flags;
	bool over; /* in the place of an empty one */
	struct cow_inode **inode; /* may be NULL */
	struct cow_attr *attr;
	uint64_t colour, ino; /* that the clone will get, if one of these is wanted */
};

static int can_share(struct cow_inode *source, const struct cow_tree *links)
{
	struct cow_store *store = source->volume->store;
	int error = cow_tree_can_share(store, &source->tree);

	if (error == 0)
		error = cow_tree_can_share(store, links);
	if (error == 0)
		error = cow_tree_can_share(store, &source->xattr.tree);
	if (error == 0)
		error = cow_tree_can_share(store, &source->target.tree);
	return error;
}

static void share(struct cow_inode *source, const struct cow_tree *tree)
{
	int error = cow_tree_share(source->volume->store, tree);

	assert(error == 0);
}

/* The inode of an entry that is about to be put: made from `record`, whose claims have been taken for it. */
static struct cow_inode *insert(struct cow_inode *dir, uint64_t key, const struct cow_record *record)
{
	struct cow_inode *clone;
	int error = cow_dir_reserve(dir, key);

	assert(error == 0); /* every node on the way is in memory and dirty */
	clone = cow_inode_new(dir->volume, COW_EMBEDDED, dir, key, record);
	cow_inode_get(clone);
	return clone;
}

static struct cow_inode *clone_dir(struct cow_op *op, struct clone_args *a, struct cow_inode *world, uint64_t key)
{
	struct cow_inode *source = a->source, *clone;
	struct cow_record r;

	cow_inode_record(source, &r);
	r.is_world = true;
	r.tag = cow_number_next(op->volume);
	r.read_only = (a->flags & COW_CLONE_READ_ONLY) != 0;
	r.ctime = cow_when_of(&op->now);
	if (r.totals.refs != 0) {
		r.links = world->links.root;
		r.backs = world->back_sum;
		r.link_bytes = world->link_bytes;
		r.link_blocks = world->link_blocks;
		r.link_files = world->link_files;
		share(source, &world->links);
	} else {
		r.links = (struct cow_ptr){0};
		r.backs = r.link_bytes = r.link_blocks = r.link_files = 0;
	}
	share(source, &source->tree);
	share(source, &source->xattr.tree);
	clone = insert(a->dir, key, &r);
	cow_dir_put_inode(a->dir, key, a->name, clone, NULL);
	return clone; /* its colour is given when somebody enters it */
}

static struct cow_inode *clone_file(struct cow_op *op, struct clone_args *a, uint64_t key)
{
	struct cow_inode *source = a->source, *clone;
	struct cow_record r;
	bool link = S_ISLNK(source->mode);
	int error;

	cow_inode_record(source, &r);
	r.number = cow_number_next(op->volume);
	r.tag = 0;
	r.ctime = r.btime = cow_when_of(&op->now);
	share(source, &source->xattr.tree);
	if (link) {
		share(source, &source->target.tree);
	} else {
		r.body = COW_BODY_NONE;
		r.data = (struct cow_slice){NULL, 0};
		r.tree = (struct cow_ptr){0};
		r.blocks = 0;
	}
	clone = insert(a->dir, key, &r);
	if (!link) {
		error = cow_file_share(source, clone);
		assert(error == 0);
		cow_inode_track(clone);
	}
	cow_dir_put_inode(a->dir, key, a->name, clone, NULL);
	return clone;
}

static int check_target(struct clone_args *a, struct cow_found *found, struct cow_inode **target)
{
	int error = cow_dir_lookup(a->dir, a->name, found, target);

	if (!a->over)
		return error == 0 ? -EEXIST : error == -ENOENT ? 0 : error;
	if (error != 0)
		return error;
	if (cow_inode_is_dir(a->source) != cow_inode_is_dir(*target))
		return cow_inode_is_dir(*target) ? -EISDIR : -ENOTDIR;
	if (cow_inode_is_dir(*target) ? !cow_dir_is_empty(*target) : (*target)->size != 0)
		return -ENOTEMPTY;
	return *target == a->source ? -EINVAL : 0;
}

static int prepare_source(struct clone_args *a, struct cow_inode *world)
{
	static const struct cow_tree none;
	struct cow_volume *volume = a->dir->volume;
	bool is_dir = cow_inode_is_dir(a->source);
	int error;

	if (is_dir)
		error = cow_volume_fold(volume);
	else
		error = cow_inode_reserve(a->source);
	if (error == 0 && !is_dir && cow_inode_is_file(a->source))
		error = cow_flight_place(a->source);
	return error != 0 ? error : can_share(a->source, is_dir && a->source->totals.refs != 0 ? &world->links : &none);
}

/* The numbers of a clone that the caller wants to have at once: they may miss, so they are given before it is made. */
static int prepare_numbers(struct clone_args *a)
{
	struct cow_volume *volume = a->dir->volume;
	bool is_dir = cow_inode_is_dir(a->source);
	uint64_t fresh = volume->counters.number; /* the clone's tag, or a file's n */
	int error;

	if (a->inode == NULL && a->attr == NULL)
		return 0;
	error = cow_number_colour(volume, a->dir->colour, is_dir ? fresh : 0, &a->colour);
	return error != 0 ? error : cow_number_ino(volume, a->colour, is_dir ? a->source->number : fresh, &a->ino);
}

/* Takes over the reference. */
static int hand_out(struct clone_args *a, struct cow_inode *clone)
{
	int error = 0;

	if (a->inode != NULL || a->attr != NULL) {
		clone->colour = a->colour;
		clone->coloured = true;
		clone->ino = a->ino;
	}
	if (a->attr != NULL)
		error = cow_inode_attr(clone, a->attr);
	assert(error == 0); /* its number is known, and it has one name */
	if (a->inode != NULL)
		*a->inode = clone;
	else
		cow_inode_put(clone, 1);
	return 0;
}

static int clone_body(struct cow_op *op, void *v)
{
	struct clone_args *a = v;
	struct cow_removal removal = {0};
	struct cow_inode *target = NULL, *world, *clone;
	struct cow_found found;
	int error = cow_inode_check_live(a->source);

	if (error == 0 && a->source->place == COW_ORPHAN && cow_inode_is_dir(a->source))
		error = -ENOENT;
	if (error == 0)
		error = cow_dir_check_writable(a->dir);
	if (error == 0)
		error = check_target(a, &found, &target);
	if (error != 0)
		goto out;
	world = cow_inode_is_dir(a->source) ? cow_inode_world(a->source) : NULL;
	error = prepare_source(a, world);
	if (error == 0)
		error = cow_dir_reserve(a->dir, found.key);
	if (error == 0)
		error = cow_orphan_reserve(op->volume);
	if (error == 0)
		error = prepare_numbers(a);
	if (error == 0 && target != NULL)
		error = cow_inode_is_dir(target) ? cow_remove_prepare_dir(a->dir, found.key, target, &removal)
						 : cow_remove_prepare(a->dir, found.key, target, &removal);
	if (error != 0)
		goto out;
	if (target != NULL && cow_inode_is_dir(target))
		cow_remove_dir(&removal);
	else if (target != NULL)
		cow_remove_name(&removal, &op->now);
	if (cow_inode_is_dir(a->source)) {
		error = cow_volume_fold(op->volume);
		assert(error == 0); /* nothing has been buffered since the last one */
		clone = clone_dir(op, a, world, found.key);
	} else {
		clone = clone_file(op, a, found.key);
	}
	cow_dir_touch(a->dir, &op->now); /* not earlier: it may be the source, whose times the clone keeps */
	cow_note_commit(op->volume);
	error = hand_out(a, clone);
out:
	cow_remove_done(&removal);
	if (target != NULL)
		cow_inode_put(target, 1);
	return error;
}

static int clone_checked(struct clone_args *a)
{
	int error = cow_name_check(a->name);

	if (error == 0 && a->source->volume != a->dir->volume)
		error = -EXDEV;
	if (error == 0 && (a->flags & COW_CLONE_READ_ONLY) != 0 && !cow_inode_is_dir(a->source))
		error = -EINVAL;
	if (error == 0 && cow_inode_is_dir(a->source))
		error = cow_volume_place(a->dir->volume, 0);
	return error != 0 ? error : cow_op_change(a->dir->volume, 0, false, clone_body, a);
}

int cow_clone(struct cow_inode *source, struct cow_inode *dir, const char *name, unsigned flags,
	      struct cow_inode **inode, struct cow_attr *attr)
{
	struct clone_args args = {
		.source = source, .dir = dir, .name = name, .flags = flags, .inode = inode, .attr = attr};

	return clone_checked(&args);
}

int cow_clone_over(struct cow_inode *source, struct cow_inode *dir, const char *name, unsigned flags)
{
	struct clone_args args = {.source = source, .dir = dir, .name = name, .flags = flags, .over = true};

	return clone_checked(&args);
}
