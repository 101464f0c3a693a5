/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/view/compare_entry.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "store/walk.h"

int cow_compare_get(struct cow_compare *c, const struct cow_tree *tree, uint64_t key, uint8_t *value, uint32_t *length)
{
	uint64_t found;
	int error = cow_walk_next(c->volume->store, tree, key, &found, value, length);

	return error == 0 && found != key ? -ENOENT : error;
}

int cow_compare_link_record(struct cow_compare *c, const struct cow_side_world *world, uint64_t key, uint8_t *bytes,
			    struct cow_slice *record)
{
	struct cow_link_row row;
	uint32_t length;
	int error = cow_compare_get(c, &world->links, key, bytes, &length);

	if (error == 0)
		error = cow_link_row_decode(bytes, length, &row);
	if (error != 0)
		return error == -ENOENT ? COW_ERR_DAMAGED : error;
	*record = row.record;
	return 0;
}

char *cow_path_join(const char *dir, const uint8_t *name, uint32_t length)
{
	size_t head = strlen(dir), slash = head != 0 ? 1 : 0;
	char *path = cow_mem_new(head + slash + length + 1);

	memcpy(path, dir, head);
	if (slash != 0)
		path[head] = '/';
	if (length != 0)
		memcpy(path + head + slash, name, length);
	return path;
}

struct cow_side_entry *cow_compare_entry(const uint8_t *value, uint32_t length, const char *dir_path,
					 struct cow_side_world *world, const struct cow_way *up)
{
	struct cow_side_entry *entry = cow_mem_new(sizeof(*entry) + length);
	struct cow_dirent dirent;
	int error = cow_dirent_decode(value, length, &dirent);

	assert(error == 0);
	entry->path = cow_path_join(dir_path, dirent.name.bytes, dirent.name.length);
	entry->name = entry->path + strlen(entry->path) - dirent.name.length;
	entry->up = up;
	entry->world = world;
	entry->length = length;
	memcpy(entry->value, value, length);
	return entry;
}

void cow_compare_entry_free(struct cow_side_entry *entry)
{
	if (entry != NULL)
		free(entry->path);
	free(entry);
}

int cow_compare_load(struct cow_compare *c, const struct cow_side_entry *entry, uint8_t *bytes,
		     struct cow_record *record)
{
	struct cow_slice slice;
	struct cow_dirent dirent;
	int error = cow_dirent_decode(entry->value, entry->length, &dirent);

	assert(error == 0);
	if (dirent.is_link) {
		error = cow_compare_link_record(c, entry->world, dirent.link_key, bytes, &slice);
		return error != 0 ? error : cow_record_decode(slice.bytes, slice.length, 0, record);
	}
	memcpy(bytes, dirent.record.bytes, dirent.record.length);
	return cow_record_decode(bytes, dirent.record.length, 0, record);
}

struct cow_side_world *cow_compare_world(struct cow_compare *c, struct cow_ptr links, uint64_t backs)
{
	struct cow_side_world *world = cow_mem_new(sizeof(*world));

	world->links = (struct cow_tree){links, COW_KIND_LINKS};
	world->backs = backs;
	world->next = c->worlds;
	c->worlds = world;
	return world;
}
