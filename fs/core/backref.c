/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/core/backref.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/array.h"
#include "fs/core/blob.h"
#include "fs/core/reservation.h"
#include "fs/core/volume.h"

#define BACK_BYTES 16u

/* Of the tree that a list of so many names takes; it is written as a whole. Four chunks fill a leaf. */
static uint64_t list_blocks(uint32_t backs)
{
	uint64_t leaves = (uint64_t)backs * BACK_BYTES / (4 * COW_BLOB_CHUNK) + 1;

	return backs > COW_BACKS_INLINE_MAX ? leaves + leaves / 32 + 1 : 0;
}

int cow_backref_check_room(struct cow_volume *volume, uint32_t backs)
{
	struct cow_reservation *reservation = volume->store->at_work;
	uint64_t blocks = list_blocks(backs);
	int error;

	if (blocks == 0)
		return 0;
	if (reservation != NULL)
		blocks += reservation->lists; /* an operation may change two lists */
	error = cow_store_check_floor(volume->store, blocks); /* the old ones may be shared */
	if (error == 0)
		error = cow_reservation_more(volume, blocks);
	if (error == 0 && reservation != NULL)
		reservation->lists = blocks;
	return error;
}

/* The back-references of a row; *tree is what the row claims for them. The caller frees. */
int cow_backref_read(struct cow_store *store, const struct cow_link_row *row, struct cow_back **backs)
{
	struct cow_blob blob = {.length = row->backs * BACK_BYTES, .tree = {row->back_tree, COW_KIND_BLOB}};
	const uint8_t *bytes = row->back_bytes;
	int error = 0;

	if (!cow_ptr_is_null(row->back_tree)) {
		error = cow_blob_load(store, &blob);
		bytes = blob.bytes;
	}
	if (error == 0) {
		*backs = cow_mem_new(row->backs * sizeof(**backs));
		for (uint32_t i = 0; i < row->backs; i++)
			(*backs)[i] =
				(struct cow_back){get64(bytes + i * BACK_BYTES), get64(bytes + i * BACK_BYTES + 8)};
	}
	cow_blob_forget(&blob);
	return error;
}

static void promise(struct cow_inode *inode)
{
	cow_inode_promise(inode, &inode->names_due, inode->backs_changed ? list_blocks(inode->back_count) : 0);
}

int cow_backref_load(struct cow_inode *inode)
{
	struct cow_link_row row;
	struct cow_item item;
	int error;

	if (inode->backs_loaded)
		return 0;
	error = cow_tree_get(inode->volume->store, &inode->parent->links, inode->key, &item);
	if (error == 0)
		error = cow_link_row_decode(item.value, item.length, &row);
	if (error == 0)
		error = cow_backref_read(inode->volume->store, &row, &inode->backs);
	if (error != 0)
		return error == -ENOENT ? COW_ERR_DAMAGED : error;
	inode->back_count = inode->back_size = row.backs;
	inode->back_tree.root = row.back_tree;
	inode->backs_loaded = true;
	if (cow_ptr_is_dirty(row.back_tree))
		cow_inode_track(inode);
	return 0;
}

void cow_backref_add(struct cow_inode *inode, struct cow_back back)
{
	assert(inode->dirty && inode->backs_loaded);
	COW_ARRAY_GROW(inode->backs, inode->back_count, inode->back_size);
	inode->backs[inode->back_count++] = back;
	inode->backs_changed = true;
	inode->nlink_version = 0;
	inode->parent->back_sum++;
	promise(inode);
}

void cow_backref_remove(struct cow_inode *inode, struct cow_back back)
{
	assert(inode->dirty && inode->backs_loaded);
	for (uint32_t i = 0; i < inode->back_count; i++)
		if (inode->backs[i].dir == back.dir && inode->backs[i].key == back.key) {
			inode->backs[i] = inode->backs[--inode->back_count];
			inode->backs_changed = true;
			inode->nlink_version = 0;
			inode->parent->back_sum--;
			promise(inode);
			return;
		}
}

void cow_backref_store(struct cow_inode *inode)
{
	struct cow_blob blob = {.tree = inode->back_tree};
	uint8_t *bytes;

	if (!inode->backs_changed)
		return;
	bytes = cow_mem_new(inode->back_count * BACK_BYTES);
	for (uint32_t i = 0; i < inode->back_count; i++) {
		put64(bytes + i * BACK_BYTES, inode->backs[i].dir);
		put64(bytes + i * BACK_BYTES + 8, inode->backs[i].key);
	}
	cow_blob_set(inode->volume->store, &blob, bytes, inode->back_count * BACK_BYTES,
		     COW_BACKS_INLINE_MAX * BACK_BYTES);
	inode->back_tree = blob.tree;
	inode->back_tree.kind = COW_KIND_BLOB;
	cow_blob_forget(&blob);
	free(bytes);
	inode->backs_changed = false;
	promise(inode);
}

void cow_backref_clear(struct cow_inode *inode)
{
	cow_tree_drop(inode->volume->store, &inode->back_tree);
	free(inode->backs);
	inode->backs = NULL;
	inode->back_count = inode->back_size = 0;
	inode->backs_loaded = inode->backs_changed = false;
	promise(inode);
}
