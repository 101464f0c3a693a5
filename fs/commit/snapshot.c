/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/commit/snapshot.h"

#include <assert.h>
#include <stdlib.h>

#include "base/mem.h"
#include "fs/commit/commit.h"

#define SETTLE_STEPS 512u

struct take_args {
	struct cow_holding *holding;
	struct cow_inode *const *inodes;
	unsigned count;
	bool all;
};

static void note_way(struct cow_inode *inode, struct cow_held *held)
{
	size_t count = 0;

	held->link_key = inode->place == COW_LINKED ? inode->key : 0;
	if (inode->place == COW_LINKED)
		inode = inode->parent;
	if (inode->place != COW_EMBEDDED)
		return;
	for (struct cow_inode *i = inode; i != NULL; i = i->parent)
		count++;
	held->way = cow_mem_new(count * sizeof(*held->way));
	held->way_count = count;
	for (struct cow_inode *i = inode; i != NULL; i = i->parent)
		held->way[--count] = i->key;
}

static void note_world(struct cow_inode *inode, struct cow_held *held)
{
	if (inode->place == COW_ORPHAN && !inode->is_world)
		return;
	const struct cow_inode *world = cow_inode_world(inode);
	held->top = world->number;
	held->links = world->links;
	held->backs = world->back_sum;
	held->refs = world->totals.refs;
	held->link_bytes = world->link_bytes;
	held->link_blocks = world->link_blocks;
	held->link_files = world->link_files;
}

static void note(struct cow_inode *inode, struct cow_held *held)
{
	struct cow_record record;
	int error;

	assert(!inode->dirty);
	cow_inode_record(inode, &record);
	error = cow_record_decode(held->bytes, cow_record_encode(&record, held->bytes), 0, &held->record);
	assert(error == 0);
	held->links.kind = COW_KIND_LINKS;
	note_world(inode, held);
	note_way(inode, held);
}

/* One more count of a root, owned by an entry of the reclaim queue: a crash gives it back by itself. */
static int claim(struct cow_holding *holding, unsigned root)
{
	struct cow_store *store = holding->volume->store;
	int error;

	if (cow_ptr_is_null(store->roots[root].root))
		return 0;
	for (;;) {
		error = cow_reclaim_reserve(store);
		if (error == 0)
			error = cow_tree_share(store, &store->roots[root]);
		if (error != COW_MISS)
			break;
		error = cow_store_fill(store, NULL);
		if (error != 0)
			break;
	}
	if (error == 0)
		holding->claims[holding->claim_count++] =
			cow_reclaim_hold(store, store->roots[root].root, COW_KIND_DIR);
	return error;
}

/* [locked, gate exclusive, everything sealed] */
static int take(void *context)
{
	struct take_args *a = context;
	struct cow_holding *h = a->holding;
	const struct cow_store *store = h->volume->store;
	bool orphans = a->all;
	int error = 0;

	/* Changes that no commit will take any more: there is no moment at which the volume was like this. */
	if (store->failed != 0 && (store->dirty_records != 0 || store->dirty_nodes != 0))
		return store->failed;
	for (unsigned i = 0; i < a->count; i++) {
		error = cow_inode_check_live(a->inodes[i]);
		if (error != 0)
			return error;
		orphans |= a->inodes[i]->place == COW_ORPHAN;
	}
	h->top = h->volume->store->roots[COW_ROOT_TOP].root;
	h->orphans = h->volume->store->roots[COW_ROOT_ORPHANS].root;
	/* What cannot change need not be held. */
	if (!h->volume->store->read_only) {
		error = claim(h, COW_ROOT_TOP);
		if (error == 0 && orphans)
			error = claim(h, COW_ROOT_ORPHANS);
	}
	for (unsigned i = 0; i < a->count && error == 0; i++)
		note(a->inodes[i], &h->held[h->count++]);
	return error;
}

int cow_holding_take(struct cow_holding *holding, struct cow_inode *const *inodes, unsigned count)
{
	struct take_args args = {holding, inodes, count, false};

	assert(count <= 2);
	*holding = (struct cow_holding){.volume = inodes[0]->volume};
	int error = cow_volume_commit(holding->volume, take, &args);
	if (error != 0)
		cow_holding_give(holding);
	return error;
}

int cow_holding_take_all(struct cow_holding *holding, struct cow_volume *volume)
{
	struct take_args args = {holding, NULL, 0, true};

	*holding = (struct cow_holding){.volume = volume};
	int error = cow_volume_commit(volume, take, &args);
	if (error != 0)
		cow_holding_give(holding);
	return error;
}

/* Gives the counts back at once, as far as that is a matter of few steps: who asks next what is exclusive ought not to
 * meet them. The newest entries are taken first, and ours are among them. */
static int settle(struct cow_op *op, void *args)
{
	unsigned *left = args;
	int done = 1;

	while (*left > 0 && (done = cow_reclaim_step(op->store)) > 0)
		--*left;
	return done < 0 ? done : 0;
}

void cow_holding_give(struct cow_holding *holding)
{
	unsigned steps = SETTLE_STEPS;
	struct cow_store *store = holding->volume->store;

	for (unsigned i = 0; i < holding->count; i++)
		free(holding->held[i].way);
	holding->count = 0;
	if (holding->claim_count == 0)
		return;
	pthread_mutex_lock(&store->lock);
	while (holding->claim_count > 0)
		cow_reclaim_release(store, holding->claims[--holding->claim_count]);
	pthread_mutex_unlock(&store->lock);
	if (!store->read_only)
		(void)!cow_op_read(holding->volume, settle, &steps); /* what is left is for the background */
	pthread_mutex_lock(&store->lock);
	cow_volume_wake(holding->volume, false);
	pthread_mutex_unlock(&store->lock);
}
