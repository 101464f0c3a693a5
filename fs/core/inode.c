/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/core/inode.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "fs/core/blob.h"
#include "fs/core/volume.h"
#include "store/node.h"

/* ------------------------------------------------------------------ life */

static bool points_to_dirty(const struct cow_inode *i)
{
	return cow_ptr_is_dirty(i->tree.root) || cow_ptr_is_dirty(i->links.root) ||
	       cow_ptr_is_dirty(i->xattr.tree.root) || cow_ptr_is_dirty(i->target.tree.root) ||
	       cow_ptr_is_dirty(i->back_tree.root);
}

void cow_inode_track(struct cow_inode *inode)
{
	struct cow_volume *volume = inode->volume;

	if (inode->tracked)
		return;
	inode->tracked = true;
	inode->track_prev = NULL;
	inode->track_next = volume->tracked;
	if (volume->tracked != NULL)
		volume->tracked->track_prev = inode;
	volume->tracked = inode;
}

void cow_inode_untrack(struct cow_inode *inode)
{
	if (!inode->tracked)
		return;
	assert(!inode->dirty);
	inode->tracked = false;
	if (inode->track_prev != NULL)
		inode->track_prev->track_next = inode->track_next;
	else
		inode->volume->tracked = inode->track_next;
	if (inode->track_next != NULL)
		inode->track_next->track_prev = inode->track_prev;
}

void cow_inode_set_dirty(struct cow_inode *inode)
{
	inode->dirty = true;
	inode->volume->store->dirty_records++;
	cow_inode_track(inode);
}

void cow_inode_set_clean(struct cow_inode *inode)
{
	inode->dirty = false;
	inode->volume->store->dirty_records--;
}

void cow_inode_promise(struct cow_inode *inode, uint64_t *due, uint64_t blocks)
{
	inode->volume->store->fold_blocks += blocks - *due;
	*due = blocks;
}

void cow_inode_hook(struct cow_inode *inode, enum cow_place place, struct cow_inode *parent, uint64_t key)
{
	inode->place = place;
	inode->parent = parent;
	inode->key = key;
	if (parent != NULL) {
		cow_map_put(place == COW_LINKED ? &parent->linked : &parent->kids, key, inode);
		parent->refs++;
	}
}

void cow_inode_unhook(struct cow_inode *inode)
{
	struct cow_inode *parent = inode->parent;

	if (parent == NULL)
		return;
	cow_map_remove(inode->place == COW_LINKED ? &parent->linked : &parent->kids, inode->key);
	inode->parent = NULL;
	cow_inode_put(parent, 1);
}

static void load_blob(struct cow_blob *blob, uint32_t length, struct cow_slice bytes, struct cow_ptr tree)
{
	*blob = (struct cow_blob){.length = length, .tree = {tree, COW_KIND_BLOB}};
	if (cow_ptr_is_null(tree) && length != 0)
		blob->bytes = cow_mem_copy(bytes.bytes, length);
}

static void load_body(struct cow_inode *i, const struct cow_record *r)
{
	i->body = r->body;
	if (S_ISLNK(r->mode) && r->body == COW_BODY_NONE) /* being made: its target comes next */
		return;
	if (S_ISLNK(r->mode)) {
		load_blob(&i->target, (uint32_t)r->size, r->data,
			  r->body == COW_BODY_TREE ? r->tree : (struct cow_ptr){0});
		return;
	}
	if (r->data.length != 0)
		i->data = cow_mem_copy(r->data.bytes, r->data.length);
	i->data_length = r->data.length;
	i->tree = (struct cow_tree){r->tree, S_ISDIR(r->mode) ? COW_KIND_DIR : COW_KIND_FILE};
	i->blocks = r->blocks;
}

struct cow_inode *cow_inode_new(struct cow_volume *volume, enum cow_place place, struct cow_inode *parent, uint64_t key,
				const struct cow_record *r)
{
	struct cow_inode *i = cow_mem_new(sizeof(*i));

	i->volume = volume;
	i->number = r->number;
	i->mode = r->mode;
	i->uid = r->uid;
	i->gid = r->gid;
	i->rdev = r->rdev;
	i->size = r->size;
	i->atime = r->atime;
	i->mtime = r->mtime;
	i->ctime = r->ctime;
	i->btime = r->btime;
	i->tag = r->tag;
	load_blob(&i->xattr, r->xattr_length, r->xattr, r->xattr_tree);
	load_body(i, r);
	i->totals = r->totals;
	i->is_world = r->is_world;
	i->read_only = r->read_only;
	i->links = (struct cow_tree){r->links, COW_KIND_LINKS};
	i->back_sum = r->backs;
	i->link_bytes = r->link_bytes;
	i->link_blocks = r->link_blocks;
	i->link_files = r->link_files;
	i->spine_version = 1;
	i->back_tree.kind = COW_KIND_BLOB;
	i->data_version = 1;
	i->all_next = volume->all;
	if (volume->all != NULL)
		volume->all->all_prev = i;
	volume->all = i;
	cow_inode_hook(i, place, parent, key);
	if (points_to_dirty(i))
		cow_inode_track(i);
	return i;
}

void cow_inode_destroy(struct cow_inode *i)
{
	if (i->all_prev != NULL)
		i->all_prev->all_next = i->all_next;
	else
		i->volume->all = i->all_next;
	if (i->all_next != NULL)
		i->all_next->all_prev = i->all_prev;
	assert(i->pages.count == 0);
	cow_map_free(&i->kids);
	cow_map_free(&i->linked);
	cow_blob_forget(&i->xattr);
	cow_blob_forget(&i->target);
	free(i->backs);
	free(i->data);
	free(i);
}

void cow_inode_get(struct cow_inode *inode)
{
	inode->refs++;
}

/* Frees what nobody needs any more, up the tree: a loop, because directories may be nested without limit. */
void cow_inode_put(struct cow_inode *inode, uint64_t count)
{
	while (inode != NULL) {
		struct cow_inode *parent = inode->parent;

		assert(inode->refs >= count);
		inode->refs -= count;
		if (inode->refs > 0 || inode->dirty || inode->opens > 0 || inode == inode->volume->root)
			return;
		if (parent != NULL)
			cow_map_remove(inode->place == COW_LINKED ? &parent->linked : &parent->kids, inode->key);
		cow_inode_untrack(inode);
		cow_inode_destroy(inode);
		inode = parent;
		count = 1;
	}
}

/* ------------------------------------------------------------------ state */

/* Climbs until something known: the root, something removed, or an inode that was found live since the last removal. */
int cow_inode_check_live(struct cow_inode *inode)
{
	uint64_t now = inode->volume->removals;
	struct cow_inode *i = inode;

	if (i->place == COW_ORPHAN)
		return 0;
	while (i->parent != NULL && i->live_version != now && i->place != COW_GONE && i->place != COW_ORPHAN)
		i = i->parent;
	if (i != i->volume->root && (i->live_version != now || i->place == COW_GONE || i->place == COW_ORPHAN))
		return -ESTALE;
	for (i = inode; i != NULL && i->live_version != now; i = i->parent)
		i->live_version = now;
	return 0;
}

int cow_inode_check_writable(struct cow_inode *inode)
{
	int error = cow_inode_check_live(inode);

	for (struct cow_inode *i = inode; i != NULL && error == 0; i = i->parent)
		if (i->is_world && i->read_only)
			error = -EROFS;
	return error;
}

bool cow_inode_is_below(const struct cow_inode *inode, const struct cow_inode *top)
{
	while (inode != NULL && inode != top)
		inode = inode->parent;
	return inode == top;
}

struct cow_inode *cow_inode_world(struct cow_inode *inode)
{
	while (!inode->is_world)
		inode = inode->parent;
	return inode;
}

/* ------------------------------------------------------------------ records */

void cow_inode_record(const struct cow_inode *i, struct cow_record *r)
{
	bool link = S_ISLNK(i->mode);

	*r = (struct cow_record){
		.mode = i->mode, .uid = i->uid, .gid = i->gid, .rdev = i->rdev, .number = i->number, .size = i->size,
		.atime = i->atime, .mtime = i->mtime, .ctime = i->ctime, .btime = i->btime, .tag = i->tag,
		.body = i->body, .data = {i->data, i->data_length}, .tree = i->tree.root, .blocks = i->blocks,
		.totals = i->totals, .is_world = i->is_world, .read_only = i->read_only, .links = i->links.root,
		.backs = i->back_sum, .link_bytes = i->link_bytes, .link_blocks = i->link_blocks,
		.link_files = i->link_files, .xattr_length = i->xattr.length, .xattr_tree = i->xattr.tree.root,
	};
	if (cow_ptr_is_null(i->xattr.tree.root))
		r->xattr = (struct cow_slice){i->xattr.bytes, i->xattr.length};
	if (link && cow_ptr_is_null(i->target.tree.root)) {
		r->body = COW_BODY_INLINE;
		r->data = (struct cow_slice){i->target.bytes, i->target.length};
	} else if (link) {
		r->body = COW_BODY_TREE;
		r->tree = i->target.tree.root;
	}
}
