/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A write through one name of a hard-linked file changes only its row in the world's links. The rows that differ are
 * found by comparing the two links trees; the names below the compared directory by climbing the spine up to it.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "fs/view/compare_found.h"
#include "fs/view/compare_links.h"
#include "fs/view/content.h"
#include "store/cursor.h"

/* No path in an image is longer; more is a ring. */
#define CLIMB_MAX (1u << 20)

/* ------------------------------------------------------------------ rows */

/* The back-references of a row; the caller frees. */
static int load_backs(struct cow_compare *c, const struct cow_link_row *row, uint8_t **bytes)
{
	if (row->backs > COW_BACKS_INLINE_MAX)
		return cow_content_blob(c->volume->store, row->back_tree, row->backs * 16, bytes);
	*bytes = cow_mem_copy(row->back_bytes, row->backs * 16u);
	return 0;
}

/* ------------------------------------------------------------------ paths */

struct keys {
	uint64_t *keys; /* from the entry upwards */
	size_t count, size;
};

static void keys_add(struct keys *k, uint64_t key)
{
	if (k->count == k->size) {
		k->size = k->size != 0 ? 2 * k->size : 16;
		k->keys = cow_mem_resize(k->keys, k->size * sizeof(*k->keys));
	}
	k->keys[k->count++] = key;
}

/* The entry keys from `back` up to the directory `top`. 1: reached, 0: no such way, or an error. */
static int climb(struct cow_compare *c, const struct cow_tree *links, struct cow_back back, uint64_t top,
		 struct keys *keys)
{
	uint8_t value[COW_VALUE_MAX];
	uint32_t length;

	keys->count = 0;
	keys_add(keys, back.key);
	for (uint64_t dir = back.dir; dir != top; dir = back.dir) {
		int error = cow_compare_get(c, links, dir, value, &length);
		if (error == -ENOENT)
			return 0;
		if (error == 0 && (cow_spine_row_decode(value, length, &back) != 0 || keys->count > CLIMB_MAX))
			error = COW_ERR_DAMAGED;
		if (error != 0)
			return error;
		keys_add(keys, back.key);
	}
	return 1;
}

/* Of a plain directory's entry: its tree. False if it is something else. */
static bool go_down(const struct cow_dirent *entry, struct cow_tree *tree)
{
	struct cow_record record;

	if (entry->is_link || cow_record_decode(entry->record.bytes, entry->record.length, 0, &record) != 0)
		return false;
	*tree = (struct cow_tree){record.tree, COW_KIND_DIR};
	return S_ISDIR(record.mode) && !record.is_world;
}

/* The path that keys lead to from `dir`. NULL if they lead nowhere (*error 0), or on an error. */
static char *path_of(struct cow_compare *c, const struct cow_side_dir *dir, const struct keys *keys, int *error)
{
	struct cow_tree tree = {dir->tree, COW_KIND_DIR};
	char *path = cow_path_join("", NULL, 0), *longer;
	uint8_t value[COW_VALUE_MAX];
	struct cow_dirent entry;
	uint32_t length;

	for (size_t i = keys->count; i-- > 0;) {
		*error = cow_compare_get(c, &tree, keys->keys[i], value, &length);
		if (*error == 0)
			*error = cow_dirent_decode(value, length, &entry);
		if (*error != 0 || (i > 0 && !go_down(&entry, &tree))) {
			*error = *error == -ENOENT ? 0 : *error;
			free(path);
			return NULL;
		}
		longer = cow_path_join(path, entry.name.bytes, entry.name.length);
		free(path);
		path = longer;
	}
	return path;
}

/* The entry of this name; `hash` is the key of one of the same name elsewhere, so all but the ordinal agrees. */
static int find(struct cow_compare *c, const struct cow_tree *tree, uint64_t hash, const char *name, size_t name_length,
		uint8_t *value, struct cow_dirent *entry)
{
	uint64_t key = hash & ~(uint64_t)(COW_KEY_ORDINALS - 1), end = key + COW_KEY_ORDINALS;
	uint32_t length;

	for (; key < end; key++) {
		int error = cow_walk_next(c->volume->store, tree, key, &key, value, &length);
		if (error != 0)
			return error;
		if (key >= end)
			break;
		error = cow_dirent_decode(value, length, entry);
		if (error != 0)
			return error;
		if (entry->name.length == name_length && memcmp(entry->name.bytes, name, name_length) == 0)
			return 0;
	}
	return -ENOENT;
}

/* The link key of what a path leads to on the other side; 0 if it is no link, or nothing. */
static int other_key(struct cow_compare *c, const struct cow_side_dir *dir, const char *path, const struct keys *keys,
		     uint64_t *key)
{
	struct cow_tree tree = {dir->tree, COW_KIND_DIR};
	uint8_t value[COW_VALUE_MAX];
	struct cow_dirent entry = {0};

	*key = 0;
	for (size_t i = keys->count; i-- > 0;) {
		size_t length = strcspn(path, "/");
		int error = find(c, &tree, keys->keys[i], path, length, value, &entry);
		if (error != 0)
			return error == -ENOENT ? 0 : error;
		if (i > 0 && !go_down(&entry, &tree))
			return 0;
		path += length + 1;
	}
	*key = entry.is_link ? entry.link_key : 0;
	return 0;
}

/* ------------------------------------------------------------------ rows that differ */

struct link_walk {
	struct cow_compare *c;
	const struct cow_dir_pair *pair;
};

static int compare_name(struct cow_compare *c, const struct cow_dir_pair *pair, uint64_t key, struct cow_back back,
			const struct cow_record *a, const struct cow_record *b)
{
	struct keys keys = {0};
	uint64_t other;
	char *path = NULL, *full;
	int error = climb(c, &pair->old.world->links, back, pair->old.number, &keys);

	if (error == 1) {
		error = 0;
		path = path_of(c, &pair->old, &keys, &error);
	}
	if (path != NULL) {
		error = other_key(c, &pair->new, path, &keys, &other);
		if (error == 0 && other == key) {
			full = cow_path_join(pair->path, (const uint8_t *)path, (uint32_t)strlen(path));
			error = cow_compare_records(c, a, b, full);
			free(full);
		}
	}
	free(path);
	free(keys.keys);
	return error;
}

static int compare_rows(struct cow_compare *c, const struct cow_dir_pair *pair, uint64_t key,
			const struct cow_link_row *a, const struct cow_link_row *b)
{
	struct cow_record old, new;
	uint8_t *backs;
	int error;

	if (cow_slice_compare(a->record, b->record) == 0)
		return 0;
	error = cow_record_decode(a->record.bytes, a->record.length, 0, &old);
	if (error == 0)
		error = cow_record_decode(b->record.bytes, b->record.length, 0, &new);
	if (error == 0)
		error = load_backs(c, a, &backs);
	if (error != 0)
		return error;
	for (uint32_t i = 0; i < a->backs && error == 0; i++) {
		struct cow_back back = {get64(backs + 16 * i), get64(backs + 16 * i + 8)};
		error = compare_name(c, pair, key, back, &old, &new);
	}
	free(backs);
	return error;
}

/* Rows are compared by copies: what is done for them walks other trees. */
static int compare_values(struct link_walk *w, uint64_t key, const uint8_t *a, uint32_t a_length, const uint8_t *b,
			  uint32_t b_length)
{
	uint8_t old[COW_VALUE_MAX], new[COW_VALUE_MAX];
	struct cow_link_row x, y;

	memcpy(old, a, a_length);
	memcpy(new, b, b_length);
	int error = cow_link_row_decode(old, a_length, &x);
	if (error == 0)
		error = cow_link_row_decode(new, b_length, &y);
	if (error == -ENOENT) /* spine */
		return 0;
	return error != 0 ? error : compare_rows(w->c, w->pair, key, &x, &y);
}

static int visit(void *context, const struct cow_cursor *a, const struct cow_cursor *b)
{
	if (a == NULL || b == NULL)
		return 0;
	return compare_values(context, a->key, a->value, a->length, b->value, b->length);
}

/* One side was purged, or is the clone of a small part: each row of the smaller is looked up in the larger. */
static int seek_rows(struct link_walk *w, struct cow_tree small, const struct cow_tree *large, bool small_is_old)
{
	struct cow_cursor cursor;
	uint8_t other[COW_VALUE_MAX];
	uint32_t length;
	int error;

	cow_cursor_open(&cursor, w->c->volume->store, small.root, COW_KIND_LINKS);
	while ((error = cow_cursor_item(&cursor)) == 0 && cursor.at == COW_AT_ITEM) {
		error = cow_compare_get(w->c, large, cursor.key, other, &length);
		if (error == 0 && small_is_old)
			error = compare_values(w, cursor.key, cursor.value, cursor.length, other, length);
		else if (error == 0)
			error = compare_values(w, cursor.key, other, length, cursor.value, cursor.length);
		if (error != 0 && error != -ENOENT)
			break;
		cow_cursor_skip(&cursor);
	}
	cow_cursor_close(&cursor);
	return error;
}

int cow_compare_links(struct cow_compare *c, const struct cow_dir_pair *pair)
{
	const struct cow_side_world *old = pair->old.world, *new = pair->new.world;
	struct link_walk walk = {c, pair};

	if (old == NULL || new == NULL || cow_ptr_is_null(old->links.root) || cow_ptr_is_null(new->links.root) ||
	    cow_ptr_equal(old->links.root, new->links.root))
		return 0;
	if (old->backs < new->backs / 8)
		return seek_rows(&walk, old->links, &new->links, true);
	if (new->backs < old->backs / 8)
		return seek_rows(&walk, new->links, &old->links, false);
	return cow_cursor_compare(c->volume->store, old->links.root, new->links.root, COW_KIND_LINKS, visit, &walk);
}

/* ------------------------------------------------------------------ groups */

struct names {
	char **paths;
	size_t count;
};

static int by_path(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_add(struct names *names, char *path)
{
	names->paths = cow_mem_resize(names->paths, (names->count + 1) * sizeof(*names->paths));
	names->paths[names->count++] = path;
}

static void names_free(struct names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->paths[i]);
	free(names->paths);
}

/* The names below `scope` of one linked file. */
static int linked_names(struct cow_compare *c, const struct cow_side_dir *scope, uint64_t key, struct names *names)
{
	uint8_t value[COW_VALUE_MAX], *backs = NULL;
	struct cow_link_row row = {0};
	struct keys keys = {0};
	uint32_t length;
	int error = cow_compare_get(c, &scope->world->links, key, value, &length);

	if (error == 0)
		error = cow_link_row_decode(value, length, &row);
	if (error == 0)
		error = load_backs(c, &row, &backs);
	for (uint32_t i = 0; error == 0 && i < row.backs; i++) {
		struct cow_back back = {get64(backs + 16 * i), get64(backs + 16 * i + 8)};
		int reached = climb(c, &scope->world->links, back, scope->number, &keys);
		char *path = reached == 1 ? path_of(c, scope, &keys, &error) : NULL;
		if (reached < 0)
			error = reached;
		if (path != NULL)
			names_add(names, path);
	}
	free(backs);
	free(keys.keys);
	if (names->count > 1)
		qsort(names->paths, names->count, sizeof(*names->paths), by_path);
	return error == -ENOENT ? COW_ERR_DAMAGED : error;
}

static int names_of(struct cow_compare *c, const struct cow_side_dir *scope, const char *scope_path,
		    const struct cow_side_entry *entry, struct names *names)
{
	size_t skip = strlen(scope_path);
	struct cow_dirent dirent;
	int error = cow_dirent_decode(entry->value, entry->length, &dirent);

	assert(error == 0);
	if (dirent.is_link)
		return linked_names(c, scope, dirent.link_key, names);
	const char *path = entry->path + skip + (skip != 0 ? 1 : 0);
	names_add(names, cow_path_join("", (const uint8_t *)path, (uint32_t)strlen(path)));
	return 0;
}

int cow_compare_groups(struct cow_compare *c, const struct cow_dir_pair *pair, const struct cow_side_entry *a,
		       const struct cow_side_entry *b)
{
	const struct cow_dir_pair *scope = pair->scope;
	struct names x = {0}, y = {0};
	int result = names_of(c, &scope->old, scope->old_path, a, &x);

	if (result == 0)
		result = names_of(c, &scope->new, scope->path, b, &y);
	if (result == 0) {
		result = x.count == y.count;
		for (size_t i = 0; i < x.count && result == 1; i++)
			result = strcmp(x.paths[i], y.paths[i]) == 0;
	}
	names_free(&x);
	names_free(&y);
	return result;
}
