/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Listing a directory, in batches under the lock. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cow.h"
#include "fs/world/dir.h"
#include "fs/world/stat.h"

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
