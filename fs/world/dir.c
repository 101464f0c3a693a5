/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/world/dir.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "fs/core/fold.h"
#include "fs/core/totals.h"
#include "fs/core/volume.h"
#include "fs/world/inode_number.h"

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
