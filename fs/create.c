/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* New inodes, and new names for old ones. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/change.h"
#include "fs/core/backref.h"
#include "fs/core/blob.h"
#include "fs/core/fold.h"
#include "fs/core/totals.h"
#include "fs/core/volume.h"
#include "fs/world/dir.h"
#include "fs/world/inode_number.h"
#include "fs/world/link.h"
#include "fs/world/orphan.h"
#include "fs/world/stat.h"

struct create_args {
	struct cow_inode *dir;
	const char *name;
	const struct cow_new *new;
	struct cow_inode **inode;
	struct cow_attr *attr;
};

static void fill_record(const struct cow_op *op, const struct cow_new *new, uint64_t number, struct cow_record *r)
{
	struct cow_when now = cow_when_of(&op->now);

	*r = (struct cow_record){
		.mode = new->mode & (S_IFMT | 07777), .uid = new->uid, .gid = new->gid, .number = number,
		.rdev = S_ISCHR(new->mode) || S_ISBLK(new->mode) ? new->rdev : 0,
		.size = S_ISLNK(new->mode) ? strlen(new->target) : 0,
		.atime = now, .mtime = now, .ctime = now, .btime = now,
		.body = S_ISDIR(new->mode) ? COW_BODY_DIR : COW_BODY_NONE,
	};
}

/* Everything that can miss, before anything changes. */
static int prepare(struct create_args *a, struct cow_found *found, uint64_t *ino)
{
	struct cow_volume *volume = a->dir->volume;
	int error = cow_dir_check_writable(a->dir);

	if (error == 0 && a->name != NULL) {
		error = cow_dir_find(a->dir, a->name, found);
		if (error == 0)
			return -EEXIST;
		if (error == -ENOENT)
			error = cow_dir_reserve(a->dir, found->key);
	}
	if (error == 0)
		error = cow_orphan_reserve(volume);
	if (error == 0) /* of the number that it will get */
		error = cow_number_ino(volume, a->dir->colour, volume->counters.number, ino);
	return error;
}

static int create(struct cow_op *op, void *v)
{
	struct create_args *a = v;
	struct cow_inode *i;
	struct cow_record record;
	struct cow_found found;
	uint64_t ino;
	int error = prepare(a, &found, &ino);

	if (error != 0)
		return error;
	fill_record(op, a->new, cow_number_next(op->volume), &record);
	record.body = COW_BODY_NONE;
	i = cow_inode_new(op->volume, a->name != NULL ? COW_EMBEDDED : COW_ORPHAN, a->name != NULL ? a->dir : NULL,
			  a->name != NULL ? found.key : 0, &record);
	i->colour = a->dir->colour;
	i->coloured = true;
	i->ino = ino;
	cow_inode_get(i);
	if (S_ISDIR(record.mode))
		i->body = COW_BODY_DIR;
	if (S_ISLNK(record.mode)) {
		cow_blob_set(op->store, &i->target, a->new->target, (uint32_t)record.size, COW_TARGET_INLINE_MAX);
		cow_inode_track(i);
	}
	if (a->name != NULL) {
		cow_dir_put_inode(a->dir, found.key, a->name, i, NULL);
		cow_dir_touch(a->dir, &op->now);
		cow_note_create(op, a->dir, a->name, a->new, record.number);
	} else {
		i->linkable = true;
		cow_inode_set_dirty(i);
		cow_orphan_make(i);
	}
	if (a->attr != NULL)
		error = cow_inode_attr(i, a->attr);
	if (a->inode != NULL)
		*a->inode = i;
	else
		cow_inode_put(i, 1);
	return error;
}

int cow_create(struct cow_inode *dir, const char *name, const struct cow_new *new_inode, struct cow_inode **inode,
	       struct cow_attr *attr)
{
	struct create_args args = {dir, name, new_inode, inode, attr};
	int error = name != NULL ? cow_name_check(name) : 0;
	mode_t type = new_inode->mode & S_IFMT;

	if (error == 0 && type != S_IFREG && type != S_IFDIR && type != S_IFCHR && type != S_IFBLK && type != S_IFIFO &&
	    type != S_IFSOCK && type != S_IFLNK)
		error = -EINVAL;
	if (error == 0 && name == NULL && (type != S_IFREG || inode == NULL))
		error = -EINVAL;
	if (error == 0 && type == S_IFLNK && (new_inode->target == NULL || new_inode->target[0] == 0))
		error = -ENOENT;
	if (error == 0 && type == S_IFLNK && strlen(new_inode->target) > COW_SYMLINK_MAX)
		error = -ENAMETOOLONG;
	if (error == 0)
		error = cow_op_change(dir->volume, 0, false, create, &args);
	if (error == 0 && name == NULL)
		error = cow_hold(*inode);
	return error;
}

/* ------------------------------------------------------------------ link */

struct link_args {
	struct cow_inode *inode, *dir;
	const char *name;
	struct cow_attr *attr;
};

/* O_TMPFILE: the first name of an inode is a plain entry. */
static int name_orphan(struct cow_op *op, struct link_args *a, uint64_t key)
{
	struct cow_inode *i = a->inode;
	int error;

	if (!i->linkable)
		return -ENOENT;
	if (i->colour != a->dir->colour)
		return -EXDEV;
	error = cow_inode_reserve(i);
	if (error == 0)
		error = cow_tree_reserve(op->store, &op->store->roots[COW_ROOT_ORPHANS], i->key);
	if (error == 0)
		error = cow_tree_del(op->store, &op->store->roots[COW_ROOT_ORPHANS], i->key);
	if (error != 0 && error != -ENOENT)
		return error;
	cow_note_commit(op->volume); /* what it holds was never noted */
	cow_inode_hook(i, COW_EMBEDDED, a->dir, key);
	i->linkable = false;
	cow_dir_put_inode(a->dir, key, a->name, i, NULL);
	return 0;
}

/* The record leaves its entry for the links tree, under a fresh key, and the entry becomes a reference to it. */
static void move_to_links(struct cow_inode *i)
{
	struct cow_inode *dir = i->parent, *world = cow_inode_world(dir);
	uint64_t key = i->key, link_key = cow_number_next(i->volume);
	struct cow_totals old;

	cow_inode_get(dir);
	cow_totals_of(i, &old);
	cow_link_put_in(i, world, link_key, (struct cow_back){dir->number, key});
	cow_dir_put_link(dir, key, NULL, i->mode & S_IFMT, link_key, &old);
	cow_link_fix_spine(dir);
	cow_inode_put(dir, 1);
}

static int add_name(struct link_args *a, uint64_t key)
{
	struct cow_inode *i = a->inode;
	struct cow_inode *world = i->place == COW_LINKED ? i->parent : cow_inode_world(i->parent);
	uint64_t link_key = i->place == COW_LINKED ? i->key : i->volume->counters.number;
	uint32_t nlink = 1;
	int error;

	error = i->place == COW_LINKED ? cow_link_count(i, &nlink) : 0;
	if (error == 0 && nlink == 0)
		error = -ENOENT; /* its names went with a removed tree */
	if (error == 0 && cow_inode_world(a->dir) != world)
		error = -EXDEV;
	if (error == 0)
		error = cow_inode_reserve(i);
	if (error == 0 && nlink >= COW_LINK_MAX)
		error = -EMLINK;
	if (error == 0)
		error = cow_link_prepare(world, link_key, a->dir);
	if (error == 0 && i->place == COW_EMBEDDED)
		error = cow_link_prepare(world, 0, i->parent);
	if (error != 0)
		return error;
	if (i->place == COW_EMBEDDED)
		move_to_links(i);
	cow_backref_add(i, (struct cow_back){a->dir->number, key});
	cow_dir_put_link(a->dir, key, a->name, i->mode & S_IFMT, i->key, NULL);
	cow_link_fix_spine(a->dir);
	/* The new name is live, no other one has become so: counting anew could miss, and it is too late for that. */
	i->nlink = nlink + 1;
	i->nlink_version = world->spine_version;
	return 0;
}

static int link_body(struct cow_op *op, void *v)
{
	struct link_args *a = v;
	struct cow_inode *i = a->inode;
	uint64_t number = op->volume->counters.number;
	struct cow_found found;
	struct cow_attr ignored;
	struct cow_spot spot;
	bool has_spot = false, named = false;
	int error = cow_inode_is_dir(i) ? -EPERM : cow_inode_check_live(i);

	if (error == 0)
		error = cow_dir_check_writable(a->dir);
	if (error == 0) {
		error = cow_dir_find(a->dir, a->name, &found);
		if (error == 0)
			return -EEXIST;
		if (error == -ENOENT)
			error = cow_dir_reserve(a->dir, found.key);
	}
	if (error == 0)
		error = cow_inode_attr(i, &ignored);
	if (error == 0) {
		named = i->place != COW_ORPHAN;
		has_spot = cow_spot_of(i, &spot);
		error = named ? add_name(a, found.key) : name_orphan(op, a, found.key);
	}
	if (error != 0)
		return error;
	if (named)
		cow_note_link(op, has_spot ? &spot : NULL, a->dir, a->name, number);
	i->ctime = cow_when_of(&op->now);
	cow_dir_touch(a->dir, &op->now);
	return a->attr != NULL ? cow_inode_attr(i, a->attr) : 0;
}

int cow_link(struct cow_inode *inode, struct cow_inode *dir, const char *name, struct cow_attr *attr)
{
	struct link_args args = {inode, dir, name, attr};
	int error = cow_name_check(name);

	if (error == 0 && inode->volume != dir->volume)
		error = -EXDEV;
	return error != 0 ? error : cow_op_change(dir->volume, 0, false, link_body, &args);
}
