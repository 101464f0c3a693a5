/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attributes: looking at them, and setting them. */
#include <errno.h>
#include <sys/stat.h>

#include "cow.h"
#include "fs/change.h"
#include "fs/core/fold.h"
#include "fs/core/notes.h"
#include "fs/core/totals.h"
#include "fs/core/volume.h"
#include "fs/data/file.h"
#include "fs/world/dir.h"
#include "fs/world/stat.h"

struct attr_args {
	struct cow_inode *inode;
	const struct cow_attr *attr;
	unsigned mask;
	struct cow_attr *out;
};

static int getattr(struct cow_op *op, void *v)
{
	struct attr_args *a = v;
	struct cow_inode *i = a->inode;
	int error = cow_inode_check_live(i);

	(void)op;
	if (error == 0)
		return cow_inode_attr(i, a->out);
	/* Somebody's removed working directory, for example, is still looked at: as it was last, without a name. */
	if (error == -ESTALE && i->ino != 0 && i->place != COW_LINKED)
		error = cow_inode_attr(i, a->out);
	if (error == 0)
		a->out->nlink = 0;
	return error;
}

int cow_getattr(struct cow_inode *inode, struct cow_attr *attr)
{
	struct attr_args args = {.inode = inode, .out = attr};

	return cow_op_read(inode->volume, getattr, &args);
}

/* What a directory counts as exceptions may grow with an owner or mode; when a directory changes hands, everything in
 * it may have become one, and the total says "more than can be said". */
static void count_exceptions(struct cow_inode *i, uint64_t before, uint32_t old_uid)
{
	struct cow_totals from = {0}, to = {0};

	if (cow_inode_is_dir(i) && i->uid != old_uid) {
		to.exceptions = UINT64_MAX;
		cow_totals_change(i, &from, &to);
	} else if (i->place == COW_EMBEDDED && i->parent != NULL) {
		from.exceptions = before;
		to.exceptions = cow_inode_exceptional(i, i->parent->uid);
		cow_totals_change(i->parent, &from, &to);
	}
}

static void set_fields(struct cow_op *op, struct cow_inode *i, const struct cow_attr *attr, unsigned mask)
{
	uint64_t before = i->place == COW_EMBEDDED && i->parent != NULL ? cow_inode_exceptional(i, i->parent->uid) : 0;
	uint32_t old_uid = i->uid;

	if (mask & COW_SET_MODE)
		i->mode = (i->mode & S_IFMT) | (attr->mode & 07777);
	if (mask & COW_SET_UID)
		i->uid = attr->uid;
	if (mask & COW_SET_GID)
		i->gid = attr->gid;
	if (mask & COW_SET_ATIME)
		i->atime = cow_when_of(&attr->atime);
	if (mask & COW_SET_MTIME)
		i->mtime = cow_when_of(&attr->mtime);
	else if (mask & COW_SET_SIZE)
		i->mtime = cow_when_of(&op->now);
	if (mask & COW_SET_BTIME)
		i->btime = cow_when_of(&attr->btime);
	i->ctime = mask & COW_SET_CTIME ? cow_when_of(&attr->ctime) : cow_when_of(&op->now);
	if (mask & (COW_SET_MODE | COW_SET_UID))
		count_exceptions(i, before, old_uid);
}

static int setattr(struct cow_op *op, void *v)
{
	struct attr_args *a = v;
	struct cow_inode *i = a->inode;
	struct cow_attr ignored;
	int error = cow_inode_check_writable(i);

	if (error == 0 && (a->mask & COW_SET_SIZE) != 0 && !cow_inode_is_file(i))
		error = cow_inode_is_dir(i) ? -EISDIR : -EINVAL;
	if (error == 0 && i->place == COW_ORPHAN && cow_inode_is_dir(i))
		error = -ENOENT;
	if (error == 0)
		error = cow_inode_reserve(i);
	if (error == 0) /* what may miss in the attributes, before anything changes */
		error = cow_inode_attr(i, &ignored);
	if (error == 0 && (a->mask & COW_SET_SIZE) != 0 && a->attr->size % COW_BLOCK != 0) /* a block is copied */
		error = cow_store_check_floor(op->store, 2);
	if (error == 0 && (a->mask & COW_SET_SIZE) != 0)
		error = cow_file_truncate(op, i, a->attr->size);
	if (error != 0)
		return error;
	set_fields(op, i, a->attr, a->mask);
	cow_note_attr(op, i, a->mask);
	return a->out != NULL ? cow_inode_attr(i, a->out) : 0;
}

/* Cutting a file short gives space back, on a full volume too. The size may change until it is done: it decides only
 * who may use the reserve. */
static bool cuts_short(struct cow_inode *i, const struct cow_attr *attr, unsigned mask)
{
	struct cow_store *store = i->volume->store;
	bool result;

	if ((mask & COW_SET_SIZE) == 0)
		return false;
	pthread_mutex_lock(&store->lock);
	result = attr->size < i->size;
	pthread_mutex_unlock(&store->lock);
	return result;
}

int cow_setattr(struct cow_inode *inode, const struct cow_attr *attr, unsigned mask, struct cow_attr *out)
{
	struct attr_args args = {inode, attr, mask, out};

	if (((mask & COW_SET_ATIME) && (uint64_t)attr->atime.tv_nsec >= 1000000000) ||
	    ((mask & COW_SET_MTIME) && (uint64_t)attr->mtime.tv_nsec >= 1000000000) ||
	    ((mask & COW_SET_CTIME) && (uint64_t)attr->ctime.tv_nsec >= 1000000000) ||
	    ((mask & COW_SET_BTIME) && (uint64_t)attr->btime.tv_nsec >= 1000000000))
		return -EINVAL;
	return cow_op_change(inode->volume, mask & COW_SET_SIZE ? COW_BLOCK : 0, cuts_short(inode, attr, mask), setattr,
			     &args);
}
