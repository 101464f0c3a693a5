/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/world/orphan.h"

#include <assert.h>
#include <errno.h>

#include "fs/core/blob.h"
#include "fs/core/fold.h"
#include "fs/core/reservation.h"
#include "fs/data/file.h"
#include "fs/world/inode_number.h"

#define USUAL_RECORD 256u /* bytes of a record without file data: hardly one has more */

static struct cow_tree *orphans(struct cow_volume *volume)
{
	return &volume->store->roots[COW_ROOT_ORPHANS];
}

int cow_orphan_reserve(struct cow_volume *volume)
{
	int error = cow_reclaim_reserve(volume->store);

	/* Keys are fresh numbers: always the largest. */
	return error != 0 ? error : cow_tree_reserve(volume->store, orphans(volume), UINT64_MAX);
}

int cow_orphan_check_room(struct cow_inode *inode, uint64_t *bytes)
{
	/* What it holds comes back only when it is closed. */
	int error = cow_store_check_floor(inode->volume->store, 1);

	*bytes += USUAL_RECORD + inode->data_length;
	return error != 0 ? error : cow_reservation_more(inode->volume, *bytes / (COW_BLOCK / 2));
}

void cow_orphan_make(struct cow_inode *inode)
{
	uint64_t key = cow_number_next(inode->volume);

	assert(inode->dirty && inode->parent == NULL);
	cow_inode_hook(inode, COW_ORPHAN, NULL, key); /* a fold writes the record */
}

void cow_inode_discard(struct cow_inode *i)
{
	struct cow_store *store = i->volume->store;

	assert(i->dirty);
	cow_blob_drop(store, &i->xattr);
	if (cow_inode_is_dir(i)) {
		cow_tree_drop(store, &i->tree);
		cow_tree_drop(store, &i->links);
	} else if (i->target.length != 0) {
		cow_blob_drop(store, &i->target);
	} else {
		cow_file_drop(i);
	}
}

void cow_orphan_or_discard(struct cow_inode *inode)
{
	if (inode->opens > 0) {
		cow_orphan_make(inode);
		return;
	}
	cow_inode_discard(inode);
	cow_inode_set_clean(inode);
	inode->place = COW_GONE;
}

int cow_orphan_drop(struct cow_inode *inode)
{
	int error = cow_inode_reserve(inode);

	if (error == 0)
		error = cow_orphan_reserve(inode->volume);
	if (error == 0)
		error = cow_tree_reserve(inode->volume->store, orphans(inode->volume), inode->key);
	if (error == 0)
		error = cow_tree_del(inode->volume->store, orphans(inode->volume), inode->key);
	if (error != 0 && error != -ENOENT) /* not there: made an orphan since the last fold */
		return error;
	cow_inode_discard(inode);
	cow_inode_set_clean(inode);
	inode->place = COW_GONE;
	return 0;
}

int cow_orphan_drop_all(struct cow_volume *volume)
{
	struct cow_item item;
	int error;

	for (;;) {
		error = cow_orphan_reserve(volume);
		if (error == 0)
			error = cow_tree_next(volume->store, orphans(volume), 0, &item);
		if (error == 0)
			error = cow_tree_reserve(volume->store, orphans(volume), item.key);
		if (error == 0)
			error = cow_tree_next(volume->store, orphans(volume), 0, &item);
		if (error != 0)
			return error == -ENOENT ? 0 : error;
		if (volume->store->dirty_nodes >= volume->node_limit / 4) { /* the queue takes room for each */
			cow_tree_drop(volume->store, orphans(volume));
			volume->store->changes++;
			return 0;
		}
		cow_reclaim_value(volume->store, COW_KIND_DIR, item.value, item.length);
		error = cow_tree_del(volume->store, orphans(volume), item.key);
		assert(error == 0);
		volume->store->changes++;
	}
}
