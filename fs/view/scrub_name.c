/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From a hard-linked file to one of its names: up the spine from a directory that has one, and down by the keys. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fs/view/content.h"
#include "fs/view/scrub.h"

#define DEPTH_MAX 4096u

/* The keys from the world's top down to the directory, deepest first. Their number, or -1: it is not below the top. */
static int climb(struct cow_store *store, const struct cow_record *world, uint64_t dir, uint64_t keys[DEPTH_MAX])
{
	const struct cow_tree links = {world->links, COW_KIND_LINKS};
	uint8_t value[COW_VALUE_MAX];
	struct cow_back up;
	uint32_t length;
	uint64_t found;
	int count = 0;

	for (; dir != world->number; dir = up.dir) {
		if (count == DEPTH_MAX || cow_walk_next(store, &links, dir, &found, value, &length) != 0 ||
		    found != dir || cow_spine_row_decode(value, length, &up) != 0)
			return -1;
		keys[count++] = up.key;
	}
	return count;
}

static char *append(char *path, struct cow_slice name)
{
	size_t length = strlen(path);

	path = cow_mem_resize(path, length + name.length + 2);
	path[length] = '/';
	memcpy(path + length + 1, name.bytes, name.length);
	path[length + 1 + name.length] = 0;
	return path;
}

/* Adds the name of the entry; *tree becomes the directory's that it is. */
static int descend(struct cow_store *store, struct cow_tree *tree, uint64_t key, char **path)
{
	uint8_t value[COW_VALUE_MAX];
	struct cow_dirent entry;
	struct cow_record r;
	uint32_t length;
	uint64_t found;

	if (cow_walk_next(store, tree, key, &found, value, &length) != 0 || found != key ||
	    cow_dirent_decode(value, length, &entry) != 0)
		return -ENOENT;
	*path = append(*path, entry.name);
	if (entry.is_link)
		tree->root = (struct cow_ptr){0};
	else if (cow_record_decode(entry.record.bytes, entry.record.length, 0, &r) != 0 || r.body != COW_BODY_DIR)
		return -ENOENT;
	else
		tree->root = r.tree;
	return 0;
}

static char *name_of(struct cow_store *store, const struct cow_record *world, const char *top, struct cow_back back,
		     uint64_t keys[DEPTH_MAX])
{
	struct cow_tree tree = {world->tree, COW_KIND_DIR};
	int count = climb(store, world, back.dir, keys);
	char *path;

	if (count < 0)
		return NULL;
	path = cow_mem_copy(top, strlen(top) + 1);
	while (count > 0)
		if (descend(store, &tree, keys[--count], &path) != 0)
			break;
	if (count == 0 && descend(store, &tree, back.key, &path) == 0)
		return path;
	free(path);
	return NULL;
}

char *cow_scrub_name(struct cow_store *store, const struct cow_record *world, const char *path, const uint8_t *value,
		     uint32_t length)
{
	struct cow_link_row row;
	uint8_t *list = NULL;
	uint64_t *keys;
	char *name = NULL;

	if (cow_link_row_decode(value, length, &row) != 0)
		return NULL;
	if (row.backs > COW_BACKS_INLINE_MAX && cow_content_blob(store, row.back_tree, row.backs * 16, &list) != 0)
		return NULL;
	keys = cow_mem_new(DEPTH_MAX * sizeof(*keys));
	for (uint32_t i = 0; i < row.backs && name == NULL; i++) {
		const uint8_t *at = (list != NULL ? list : row.back_bytes) + (size_t)16 * i;
		name = name_of(store, world, path, (struct cow_back){get64(at), get64(at + 8)}, keys);
	}
	free(keys);
	free(list);
	return name;
}
