/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/inode.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "fs/blob.h"
#include "fs/extents.h"
#include "fs/file.h"
#include "fs/link.h"
#include "fs/number.h"
#include "fs/pages.h"
#include "fs/volume.h"
#include "store/node.h"

const struct cow_totals cow_totals_of_link = {.refs = 1, .exceptions = 1};

#define SHORT_WAY 16u /* inodes above each other that every change may make dirty: op.c, WORST_PATH */

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

void cow_inode_promise(struct cow_inode *inode)
{
	uint64_t blocks = cow_link_due(inode);

	if (inode->pages.count != 0)
		blocks += cow_extents_due(inode, inode->pages.count, inode->runs);
	inode->volume->store->fold_blocks += blocks - inode->fold_blocks;
	inode->fold_blocks = blocks;
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
	cow_pages_drop(i, 0, UINT64_MAX);
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

struct cow_inode *cow_inode_world(struct cow_inode *inode)
{
	while (!inode->is_world)
		inode = inode->parent;
	return inode;
}

static struct cow_tree *home(struct cow_inode *i)
{
	switch (i->place) {
	case COW_LINKED:
		return &i->parent->links;
	case COW_ORPHAN:
		return &i->volume->store->roots[COW_ROOT_ORPHANS];
	default:
		return i->parent != NULL ? &i->parent->tree : &i->volume->store->roots[COW_ROOT_TOP];
	}
}

/*
 * Directories may be nested without limit, and what an operation asks for when it begins covers only a short way. A
 * long one must leave what operations under way have asked for, and what a removal asks for: else a commit would not
 * find the blocks for what is dirty, and nothing would ever be possible any more.
 */
static bool has_room(const struct cow_volume *volume, uint64_t blocks)
{
	return blocks <= SHORT_WAY || volume->replaying ||
	       cow_store_unpromised(volume->store) >= volume->begun_blocks + volume->node_limit / 2 + blocks;
}

static uint64_t count_shared(struct cow_inode *const *way, size_t count)
{
	uint64_t shared = 0;

	for (size_t i = 0; i < count; i++)
		shared += !cow_tree_is_private(way[i]->volume->store, home(way[i]), way[i]->key);
	return shared;
}

int cow_inode_check_room(struct cow_volume *volume, uint64_t blocks)
{
	if (has_room(volume, blocks))
		return 0;
	volume->store->miss = (struct cow_miss){.what = COW_MISS_ROOM, .blocks = blocks};
	return COW_MISS;
}

/* For what is still to be made private: a node for each inode at the least, so it is asked again at each. */
static int check_way(struct cow_inode *inode, uint64_t *shared)
{
	int error = 0;

	if (*shared != 0 && !cow_tree_is_private(inode->volume->store, home(inode), inode->key))
		error = cow_inode_check_room(inode->volume, (*shared)--);
	return error;
}

/* The way must become private from the top, so the inodes that are still clean are taken from the top down. Each round
 * makes at least one dirty, and a miss loses nothing. */
int cow_inode_reserve(struct cow_inode *inode)
{
	int error = cow_inode_check_live(inode);
	struct cow_inode **way = NULL;
	size_t count = 0, size = 0;
	uint64_t shared = 0;

	if (error == 0 && inode->place == COW_LINKED)
		error = cow_link_load(inode); /* a fold writes them back */
	if (error != 0)
		return error;
	for (struct cow_inode *i = inode; i != NULL && !i->dirty; i = i->parent) {
		if (count == size) {
			size = size != 0 ? 2 * size : 16;
			way = cow_mem_resize(way, size * sizeof(*way));
		}
		way[count++] = i;
	}
	if (!has_room(inode->volume, count * COW_LEVEL_MAX))
		shared = count_shared(way, count);
	while (count > 0 && error == 0) {
		struct cow_inode *i = way[--count];
		error = check_way(i, &shared);
		if (error == 0)
			error = cow_tree_reserve(i->volume->store, home(i), i->key);
		if (error == 0) {
			cow_inode_set_dirty(i);
		}
	}
	free(way);
	return error;
}

/* ------------------------------------------------------------------ totals */

uint64_t cow_inode_exceptional(const struct cow_inode *i, uint32_t dir_uid)
{
	uint32_t need = S_ISDIR(i->mode) ? S_IRUSR | S_IXUSR : S_IRUSR;

	return i->uid != dir_uid || (i->mode & (S_ISUID | S_ISGID)) != 0 || S_ISCHR(i->mode) || S_ISBLK(i->mode) ||
	       (!S_ISLNK(i->mode) && (i->mode & need) != need);
}

void cow_totals_of(const struct cow_inode *i, struct cow_totals *t)
{
	*t = (struct cow_totals){0};
	if (cow_inode_is_dir(i)) {
		*t = i->totals;
		t->dirs++;
		if (i->is_world) {
			t->nested_refs += t->refs;
			t->refs = 0;
		}
	} else {
		t->bytes = i->size;
		t->blocks = i->blocks;
		t->files = 1;
	}
	if (i->parent != NULL && t->exceptions != UINT64_MAX)
		t->exceptions += cow_inode_exceptional(i, i->parent->uid);
}

void cow_totals_change(struct cow_inode *dir, const struct cow_totals *from, const struct cow_totals *to)
{
	uint64_t refs = to->refs - from->refs, nested = to->nested_refs - from->nested_refs;
	/* An upper bound that sticks: what leaves may have been counted differently when it came. */
	uint64_t exceptions = to->exceptions > from->exceptions ? to->exceptions - from->exceptions : 0;

	for (; dir != NULL; dir = dir->parent) {
		struct cow_totals *t = &dir->totals;

		assert(dir->dirty);
		t->bytes += to->bytes - from->bytes;
		t->blocks += to->blocks - from->blocks;
		t->files += to->files - from->files;
		t->dirs += to->dirs - from->dirs;
		t->refs += refs;
		t->nested_refs += nested;
		t->exceptions = t->exceptions + exceptions >= t->exceptions ? t->exceptions + exceptions : UINT64_MAX;
		if (dir->is_world) {
			nested += refs;
			refs = 0;
		}
	}
}

void cow_inode_resized(struct cow_inode *i, int64_t bytes, int64_t blocks)
{
	struct cow_totals from = {0}, to = {.bytes = (uint64_t)bytes, .blocks = (uint64_t)blocks};

	if (i->place == COW_LINKED) {
		i->parent->link_bytes += (uint64_t)bytes;
		i->parent->link_blocks += (uint64_t)blocks;
	} else if (i->place == COW_EMBEDDED && (bytes != 0 || blocks != 0)) {
		cow_totals_change(i->parent, &from, &to);
	}
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

/* What an entry keeps beside the record: its name, which only the tree knows. */
static uint32_t encode_entry(struct cow_inode *i, const struct cow_record *record, uint8_t *bytes)
{
	struct cow_slice name = {NULL, 0};
	struct cow_dirent old;
	struct cow_item item;
	uint8_t copy[COW_NAME_BYTES_MAX];

	if (i->place == COW_EMBEDDED) {
		int error = cow_tree_get(i->volume->store, home(i), i->key, &item);
		assert(error == 0);
		error = cow_dirent_decode(item.value, item.length, &old);
		assert(error == 0);
		memcpy(copy, old.name.bytes, old.name.length);
		name = (struct cow_slice){copy, old.name.length};
	}
	return cow_dirent_encode_record(name, record, bytes);
}

void cow_inode_fold(struct cow_inode *i)
{
	uint8_t bytes[COW_VALUE_MAX];
	struct cow_record record;
	uint32_t length;
	int error;

	assert(i->dirty && i->place != COW_GONE);
	cow_inode_record(i, &record);
	if (i->place == COW_LINKED) {
		cow_link_store_backs(i);
		length = cow_link_row_encode(&record, i->backs, i->back_count, i->back_tree.root, bytes);
	} else {
		length = encode_entry(i, &record, bytes);
	}
	error = cow_tree_put(i->volume->store, home(i), i->key, bytes, length);
	assert(error == 0); /* reserved */
	cow_inode_set_clean(i);
}

/* ------------------------------------------------------------------ attributes */

static struct timespec timespec_of(struct cow_when w)
{
	return (struct timespec){.tv_sec = w.seconds, .tv_nsec = w.nanoseconds};
}

/* Buffered pages in holes will be mapped: st_blocks says so at once, or cp would take the file for a sparse one. */
static uint64_t sectors(struct cow_inode *i)
{
	uint64_t blocks = i->blocks, whole = (i->size + COW_BLOCK - 1) / COW_BLOCK;

	if (!cow_inode_is_file(i))
		return 0;
	if (i->body == COW_BODY_INLINE)
		return (i->size + 511) / 512;
	blocks += i->pages.count;
	if (blocks >= whole && i->pages.count != 0)
		blocks = i->blocks > whole ? i->blocks : whole;
	return blocks * (COW_BLOCK / 512);
}

int cow_inode_attr(struct cow_inode *i, struct cow_attr *attr)
{
	uint32_t nlink = 1;
	int error = i->ino != 0 ? 0 : cow_number_ino(i->volume, i->colour, i->number, &i->ino);

	if (error != 0)
		return error;
	if (i->place == COW_LINKED)
		error = cow_link_count(i, &nlink);
	else if (i->place != COW_EMBEDDED)
		nlink = 0;
	*attr = (struct cow_attr){
		.ino = i->ino, .mode = i->mode, .nlink = nlink, .uid = i->uid, .gid = i->gid, .rdev = i->rdev,
		.size = i->size, .blocks = sectors(i), .atime = timespec_of(i->atime), .mtime = timespec_of(i->mtime),
		.ctime = timespec_of(i->ctime), .btime = timespec_of(i->btime),
		.is_clone = i->is_world && i->parent != NULL, .read_only = i->read_only,
	};
	return error;
}
