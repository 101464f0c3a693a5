/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/dir.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/mem.h"
#include "fs/link.h"
#include "fs/number.h"
#include "fs/volume.h"

int cow_name_check(const char *name)
{
	size_t length = strlen(name);

	if (length > COW_NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	if (length == 0 || strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EINVAL;
	return 0;
}

/* ------------------------------------------------------------------ finding */

/* Keyed, so that nobody can make names that collide. */
static uint64_t first_key(const struct cow_inode *dir, const char *name, size_t length)
{
	const uint8_t *hash_key = dir->volume->counters.hash_key;
	uint64_t hash = XXH3_64bits_withSeed(name, length, get64(hash_key) ^ get64(hash_key + 8)) >> 8;

	return (hash != 0 ? hash : 1) * COW_KEY_ORDINALS;
}

int cow_dir_find(struct cow_inode *dir, const char *name, struct cow_found *found)
{
	size_t length = strlen(name);
	struct cow_item item;
	uint64_t first, end;

	if (!cow_inode_is_dir(dir))
		return -ENOTDIR;
	first = first_key(dir, name, length);
	end = first + COW_KEY_ORDINALS;
	found->key = first;
	for (uint64_t at = first; at < end; at = item.key + 1) {
		int error = cow_tree_next(dir->volume->store, &dir->tree, at, &item);
		if (error != 0)
			return error;
		if (item.key >= end)
			return -ENOENT;
		error = cow_dirent_decode(item.value, item.length, &found->entry);
		assert(error == 0); /* validated when it was read */
		if (found->entry.name.length == length && memcmp(found->entry.name.bytes, name, length) == 0) {
			found->key = item.key;
			return 0;
		}
		if (item.key == found->key)
			found->key++; /* the first ordinal that is free */
	}
	return found->key < end ? -ENOENT : -ENOSPC;
}

static void load_embedded(struct cow_inode *dir, const struct cow_found *found, struct cow_inode **child)
{
	struct cow_record record;
	int error = cow_record_decode(found->entry.record.bytes, found->entry.record.length, 0, &record);

	assert(error == 0);
	*child = cow_inode_new(dir->volume, COW_EMBEDDED, dir, found->key, &record);
}

static int load_linked(struct cow_inode *world, uint64_t key, struct cow_inode **child)
{
	struct cow_link_row row;
	struct cow_record record;
	struct cow_item item;
	int error = cow_tree_get(world->volume->store, &world->links, key, &item);

	if (error == 0)
		error = cow_link_row_decode(item.value, item.length, &row);
	if (error == -ENOENT) {
		cow_volume_log(world->volume, COW_LOG_ERROR,
			       "a name refers to link %llu, which is not there; run cow check",
			       (unsigned long long)key);
		return COW_ERR_DAMAGED;
	}
	if (error != 0)
		return error;
	error = cow_record_decode(row.record.bytes, row.record.length, 0, &record);
	assert(error == 0);
	*child = cow_inode_new(world->volume, COW_LINKED, world, key, &record);
	return 0;
}

/* Its parent's colour, or the one that its tag leads to. */
static int give_colour(struct cow_inode *child)
{
	int error;

	if (child->coloured)
		return 0;
	assert(child->parent->coloured);
	error = cow_number_colour(child->volume, child->parent->colour, child->tag, &child->colour);
	child->coloured = error == 0;
	return error;
}

int cow_dir_child_plain(struct cow_inode *dir, const struct cow_found *found, struct cow_inode **child)
{
	struct cow_inode *world = found->entry.is_link ? cow_inode_world(dir) : NULL;
	int error = 0;

	*child = world != NULL ? cow_map_get(&world->linked, found->entry.link_key)
			       : cow_map_get(&dir->kids, found->key);
	if (*child == NULL && world != NULL)
		error = load_linked(world, found->entry.link_key, child);
	else if (*child == NULL)
		load_embedded(dir, found, child);
	if (error == 0)
		cow_inode_get(*child);
	return error;
}

int cow_dir_child(struct cow_inode *dir, const struct cow_found *found, struct cow_inode **child)
{
	int error = cow_dir_child_plain(dir, found, child);

	if (error != 0)
		return error;
	error = give_colour(*child);
	if (error != 0) {
		cow_inode_put(*child, 1);
		*child = NULL;
	}
	return error;
}

int cow_dir_lookup(struct cow_inode *dir, const char *name, struct cow_found *found, struct cow_inode **child)
{
	int error = cow_dir_find(dir, name, found);

	*child = NULL;
	return error != 0 ? error : cow_dir_child(dir, found, child);
}

/* ------------------------------------------------------------------ changing */

int cow_dir_check_writable(struct cow_inode *dir)
{
	int error = cow_inode_check_writable(dir);

	if (!cow_inode_is_dir(dir))
		return -ENOTDIR;
	return error == -ESTALE || dir->place == COW_ORPHAN ? -ENOENT : error;
}

int cow_dir_reserve(struct cow_inode *dir, uint64_t key)
{
	int error = cow_inode_reserve(dir);

	return error != 0 ? error : cow_tree_reserve(dir->volume->store, &dir->tree, key);
}

static struct cow_slice name_of(struct cow_inode *dir, uint64_t key, const char *name, uint8_t *copy)
{
	struct cow_dirent entry;
	struct cow_item item;

	if (name != NULL)
		return (struct cow_slice){(const uint8_t *)name, (uint32_t)strlen(name)};
	int error = cow_tree_get(dir->volume->store, &dir->tree, key, &item);
	assert(error == 0);
	error = cow_dirent_decode(item.value, item.length, &entry);
	assert(error == 0);
	memcpy(copy, entry.name.bytes, entry.name.length);
	return (struct cow_slice){copy, entry.name.length};
}

static void put(struct cow_inode *dir, uint64_t key, const uint8_t *bytes, uint32_t length,
		const struct cow_totals *old, const struct cow_totals *new)
{
	static const struct cow_totals none = {0};
	int error = cow_tree_put(dir->volume->store, &dir->tree, key, bytes, length);

	assert(error == 0); /* reserved */
	cow_totals_change(dir, old != NULL ? old : &none, new);
}

void cow_dir_put_inode(struct cow_inode *dir, uint64_t key, const char *name, struct cow_inode *child,
		       const struct cow_totals *old)
{
	uint8_t bytes[COW_VALUE_MAX], copy[COW_NAME_BYTES_MAX];
	struct cow_record record;
	struct cow_totals new;

	cow_inode_record(child, &record);
	cow_totals_of(child, &new);
	put(dir, key, bytes, cow_dirent_encode_record(name_of(dir, key, name, copy), &record, bytes), old, &new);
}

void cow_dir_put_link(struct cow_inode *dir, uint64_t key, const char *name, uint32_t type, uint64_t link_key,
		      const struct cow_totals *old)
{
	uint8_t bytes[COW_VALUE_MAX], copy[COW_NAME_BYTES_MAX];

	put(dir, key, bytes, cow_dirent_encode_link(name_of(dir, key, name, copy), type, link_key, bytes), old,
	    &cow_totals_of_link);
}

void cow_dir_delete(struct cow_inode *dir, uint64_t key, const struct cow_totals *old)
{
	static const struct cow_totals none = {0};
	int error = cow_tree_del(dir->volume->store, &dir->tree, key);

	assert(error == 0);
	cow_totals_change(dir, old, &none);
}

void cow_dir_touch(struct cow_inode *dir, const struct timespec *now)
{
	dir->mtime = dir->ctime = cow_when_of(now);
}

/* ------------------------------------------------------------------ public: look up, list */

struct lookup_args {
	struct cow_inode *dir;
	const char *name;
	struct cow_inode **inode;
	struct cow_attr *attr;
};

static int lookup(struct cow_op *op, void *v)
{
	struct lookup_args *a = v;
	struct cow_found found;
	struct cow_inode *child;
	int error = cow_inode_check_live(a->dir);

	(void)op;
	if (error == 0)
		error = cow_dir_lookup(a->dir, a->name, &found, &child);
	if (error != 0)
		return error;
	if (a->attr != NULL)
		error = cow_inode_attr(child, a->attr);
	if (error == 0)
		*a->inode = child;
	else
		cow_inode_put(child, 1);
	return error;
}

int cow_lookup(struct cow_inode *dir, const char *name, struct cow_inode **inode, struct cow_attr *attr)
{
	struct lookup_args args = {dir, name, inode, attr};
	int error = cow_name_check(name);

	return error != 0 ? error : cow_op_read(dir->volume, lookup, &args);
}

#define LIST_BATCH 64

struct list_entry {
	struct cow_entry entry;
	struct cow_inode *inode;
	struct cow_attr attr;
	char name[COW_NAME_BYTES_MAX + 1];
};

struct list_args {
	struct cow_inode *dir;
	uint64_t next; /* key to go on with */
	bool with_attr, at_end;
	struct list_entry *entries;
	unsigned count;
};

static int list_one(struct list_args *a, const struct cow_item *item)
{
	struct list_entry *e = &a->entries[a->count];
	struct cow_found found = {.key = item->key};
	struct cow_record record;
	int error = cow_dirent_decode(item->value, item->length, &found.entry);

	assert(error == 0);
	memset(&e->entry, 0, sizeof(e->entry));
	memcpy(e->name, found.entry.name.bytes, found.entry.name.length);
	e->name[found.entry.name.length] = 0;
	e->entry.name = e->name;
	e->entry.cookie = item->key;
	e->inode = NULL;
	if (!a->with_attr) {
		e->entry.mode = found.entry.link_type;
		if (!found.entry.is_link) {
			error = cow_record_decode(found.entry.record.bytes, found.entry.record.length, 0, &record);
			assert(error == 0);
			e->entry.mode = record.mode & S_IFMT;
		}
		return 0;
	}
	error = cow_dir_child(a->dir, &found, &e->inode);
	if (error != 0)
		return error;
	error = cow_inode_attr(e->inode, &e->attr);
	if (error != 0)
		cow_inode_put(e->inode, 1);
	e->entry.mode = e->attr.mode;
	e->entry.ino = e->attr.ino;
	return error;
}

static int list_batch(struct cow_op *op, void *v)
{
	struct list_args *a = v;
	struct cow_item item;
	int error = cow_inode_check_live(a->dir);

	if (error == 0 && !cow_inode_is_dir(a->dir))
		error = -ENOTDIR;
	while (error == 0 && a->count < LIST_BATCH) {
		error = cow_tree_next(op->store, &a->dir->tree, a->next, &item);
		if (error == -ENOENT) {
			a->at_end = true;
			return 0;
		}
		if (error == 0)
			error = list_one(a, &item);
		if (error == 0) {
			a->next = a->entries[a->count++].entry.cookie + 1;
		}
	}
	return error;
}

struct give_back_args {
	struct list_args *list;
	unsigned from;
};

static int give_back(struct cow_op *op, void *v)
{
	struct give_back_args *a = v;

	(void)op;
	for (unsigned i = a->from; i < a->list->count; i++)
		if (a->list->entries[i].inode != NULL)
			cow_inode_put(a->list->entries[i].inode, 1);
	return 0;
}

int cow_list(struct cow_inode *dir, uint64_t cookie, bool with_attr, cow_list_fn fn, void *context)
{
	struct list_args a = {
		.dir = dir, .next = cookie < COW_KEY_FIRST ? COW_KEY_FIRST : cookie + 1, .with_attr = with_attr};
	int error = 0, stop = 0;

	a.entries = malloc(LIST_BATCH * sizeof(*a.entries));
	if (a.entries == NULL)
		return -ENOMEM;
	while (error == 0 && !a.at_end && !stop) {
		unsigned i = 0;

		a.count = 0;
		error = cow_op_read(dir->volume, list_batch, &a);
		for (; i < a.count; i++) { /* also those before an error */
			struct list_entry *e = &a.entries[i];
			stop = fn(context, &e->entry, e->inode, e->inode != NULL ? &e->attr : NULL);
			if (stop)
				break; /* not taken: its reference comes back too */
		}
		struct give_back_args back = {&a, i};
		if (i < a.count)
			(void)!cow_op_read(dir->volume, give_back, &back);
	}
	free(a.entries);
	return stop ? 0 : error;
}
