/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Handles of the public interface: references, holding open, attributes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/blob.h"
#include "fs/dir.h"
#include "fs/file.h"
#include "fs/link.h"
#include "fs/orphan.h"
#include "fs/volume.h"

static void lock(struct cow_inode *inode)
{
	pthread_mutex_lock(&inode->volume->store->lock);
}

static void unlock(struct cow_volume *volume)
{
	pthread_mutex_unlock(&volume->store->lock);
}

struct cow_volume *cow_inode_volume(const struct cow_inode *inode)
{
	return inode->volume;
}

int cow_root(struct cow_volume *volume, struct cow_inode **root)
{
	lock(volume->root);
	cow_inode_get(volume->root);
	unlock(volume);
	*root = volume->root;
	return 0;
}

void cow_ref(struct cow_inode *inode)
{
	lock(inode);
	cow_inode_get(inode);
	unlock(inode->volume);
}

void cow_forget(struct cow_inode *inode, uint64_t count)
{
	struct cow_volume *volume;

	if (inode == NULL)
		return;
	volume = inode->volume;
	lock(inode);
	cow_inode_put(inode, count);
	unlock(volume);
}

/* ------------------------------------------------------------------ holding open */

static int hold(struct cow_op *op, void *v)
{
	struct cow_inode *i = v;
	struct cow_volume *volume = op->volume;
	int error = cow_inode_check_live(i);

	if (error != 0)
		return error;
	if (i->opens++ == 0) {
		i->open_prev = NULL;
		i->open_next = volume->open;
		if (volume->open != NULL)
			volume->open->open_prev = i;
		volume->open = i;
	}
	return 0;
}

int cow_hold(struct cow_inode *inode)
{
	return cow_op_read(inode->volume, hold, inode);
}

static int check_writable(struct cow_op *op, void *inode)
{
	return op->store->read_only ? -EROFS : cow_inode_check_writable(inode);
}

int cow_writable(struct cow_inode *inode)
{
	return cow_op_read(inode->volume, check_writable, inode);
}

static int drop_orphan(struct cow_op *op, void *v)
{
	struct cow_inode *i = v;

	(void)op;
	/* Someone may have given it a name, or held it again, since. */
	return i->place == COW_ORPHAN && i->opens == 0 ? cow_orphan_drop(i) : 0;
}

void cow_release(struct cow_inode *inode)
{
	struct cow_volume *volume = inode->volume;
	bool orphan;

	lock(inode);
	if (--inode->opens == 0) {
		if (inode->open_prev != NULL)
			inode->open_prev->open_next = inode->open_next;
		else
			volume->open = inode->open_next;
		if (inode->open_next != NULL)
			inode->open_next->open_prev = inode->open_prev;
	}
	orphan = inode->place == COW_ORPHAN && inode->opens == 0;
	unlock(volume);
	/* If it fails (a read-only volume), the orphan is dropped by the next mount. */
	if (orphan)
		(void)!cow_op_change(volume, 0, true, drop_orphan, inode);
}

/* ------------------------------------------------------------------ attributes */

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

struct readlink_args {
	struct cow_inode *inode;
	char *buffer;
	size_t size;
};

static int readlink_body(struct cow_op *op, void *v)
{
	struct readlink_args *a = v;
	int error = cow_inode_check_live(a->inode);

	if (error == 0 && !S_ISLNK(a->inode->mode))
		error = -EINVAL;
	if (error == 0)
		error = cow_blob_load(op->store, &a->inode->target);
	if (error != 0)
		return error;
	memcpy(a->buffer, a->inode->target.bytes,
	       a->size < a->inode->target.length ? a->size : a->inode->target.length);
	return (int)a->inode->target.length;
}

int cow_readlink(struct cow_inode *inode, char *buffer, size_t size)
{
	struct readlink_args args = {inode, buffer, size};

	return cow_op_read(inode->volume, readlink_body, &args);
}

struct parent_args {
	struct cow_inode *dir, **parent;
};

static int parent_body(struct cow_op *op, void *v)
{
	struct parent_args *a = v;
	int error = cow_inode_check_live(a->dir);

	(void)op;
	if (error == 0 && !cow_inode_is_dir(a->dir))
		error = -ENOTDIR;
	if (error == 0) {
		*a->parent = a->dir->parent != NULL ? a->dir->parent : a->dir;
		cow_inode_get(*a->parent);
	}
	return error;
}

int cow_parent(struct cow_inode *dir, struct cow_inode **parent)
{
	struct parent_args args = {dir, parent};

	return cow_op_read(dir->volume, parent_body, &args);
}

int cow_lookup_path(struct cow_volume *volume, const char *path, struct cow_inode **inode)
{
	struct cow_inode *at, *next;
	char name[COW_NAME_BYTES_MAX + 1];
	int error = cow_root(volume, &at);

	while (error == 0) {
		path += strspn(path, "/");
		size_t length = strcspn(path, "/");
		if (length == 0)
			break;
		if (length > COW_NAME_BYTES_MAX) {
			error = -ENAMETOOLONG;
			break;
		}
		memcpy(name, path, length);
		name[length] = 0;
		path += length;
		if (strcmp(name, ".") == 0)
			continue;
		error = strcmp(name, "..") == 0 ? cow_parent(at, &next) : cow_lookup(at, name, &next, NULL);
		if (error == 0) {
			cow_forget(at, 1);
			at = next;
		}
	}
	if (error != 0)
		cow_forget(at, 1);
	else
		*inode = at;
	return error;
}
