/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/core/fold.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "fs/core/backref.h"
#include "fs/core/reservation.h"
#include "fs/core/volume.h"
#include "store/node.h"

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

static uint64_t count_shared(struct cow_inode *const *way, size_t count)
{
	uint64_t shared = 0;

	for (size_t i = 0; i < count; i++)
		shared += !cow_tree_is_private(way[i]->volume->store, home(way[i]), way[i]->key);
	return shared;
}

/*
 * Directories may be nested without limit, and what an operation reserves when it begins covers only a short way. For
 * what is still to be made private: a node for each inode at the least, so it is asked again at each.
 */
static int check_way(struct cow_inode *inode, uint64_t *shared)
{
	int error = 0;

	if (*shared != 0 && !cow_tree_is_private(inode->volume->store, home(inode), inode->key))
		error = cow_reservation_more(inode->volume, (*shared)--);
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
		error = cow_backref_load(inode); /* a fold writes them back */
	if (error != 0)
		return error;
	for (struct cow_inode *i = inode; i != NULL && !i->dirty; i = i->parent) {
		COW_ARRAY_GROW(way, count, size);
		way[count++] = i;
	}
	if (cow_reservation_more(inode->volume, count * COW_LEVEL_MAX) != 0)
		shared = count_shared(way, count);
	while (count > 0 && error == 0) {
		struct cow_inode *i = way[--count];
		error = check_way(i, &shared);
		if (error == 0)
			error = cow_tree_reserve(i->volume->store, home(i), i->key);
		if (error == 0)
			cow_inode_set_dirty(i);
	}
	free(way);
	return error;
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
		cow_backref_store(i);
		length = cow_link_row_encode(&record, i->backs, i->back_count, i->back_tree.root, bytes);
	} else {
		length = encode_entry(i, &record, bytes);
	}
	error = cow_tree_put(i->volume->store, home(i), i->key, bytes, length);
	assert(error == 0); /* reserved */
	cow_inode_set_clean(i);
}
