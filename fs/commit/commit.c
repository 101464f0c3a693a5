/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/commit/commit.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/mem.h"
#include "fs/core/fold.h"
#include "fs/core/notes.h"
#include "fs/core/reservation.h"
#include "fs/data/flight.h"
#include "fs/data/pages.h"

#define PLACE_PAGES 512      /* pages placed under one hold of the lock */
#define PLACE_FILE 8         /* as many pages' worth of work is a file by itself */
#define PLACE_REST 256       /* pages that a seal may place */

/* ------------------------------------------------------------------ what the store asks for */

static int op_fold(void *context)
{
	return cow_volume_fold(context);
}

static void op_user(void *context, uint8_t user[COW_SUPER_USER])
{
	cow_counters_encode(&((struct cow_volume *)context)->counters, user);
}

/* After the fold all inodes are clean: each is brought up to date, leaves the list, and memory if nobody wants it. */
static void op_translate(void *context)
{
	struct cow_volume *volume = context;

	while (volume->tracked != NULL) {
		struct cow_inode *i = volume->tracked;
		struct cow_ptr *ptrs[] = {&i->tree.root, &i->links.root, &i->xattr.tree.root, &i->target.tree.root,
					  &i->back_tree.root};
		bool live = cow_inode_check_live(i) == 0;
		for (size_t k = 0; k < sizeof(ptrs) / sizeof(*ptrs); k++)
			if (live)
				cow_store_translate(volume->store, ptrs[k]);
			else /* only a handle is left: what it pointed to is reclaim's, and may be gone */
				*ptrs[k] = (struct cow_ptr){0};
		cow_inode_untrack(i);
		if (i->refs == 0) {
			cow_inode_get(i);
			cow_inode_put(i, 1);
		}
	}
}

static int op_write_data(void *context)
{
	return cow_flight_write_out(context);
}

static void op_sealed(void *context)
{
	cow_notes_seal(context);
}

static void op_durable(void *context)
{
	cow_notes_durable(context);
}

static void op_log(void *context, int level, const char *text)
{
	cow_volume_log(context, (enum cow_log_level)level, "%s", text);
}

const struct cow_store_ops cow_commit_ops = {
	.validate = cow_value_validate, .claims = cow_value_claims, .fold = op_fold, .translate = op_translate,
	.user = op_user, .sealed = op_sealed, .write_data = op_write_data, .durable = op_durable, .log = op_log,
};

/* ------------------------------------------------------------------ fold */

/* Records go into trees whose roots lie in other records: children first. `pending` counts, for each dirty inode, the
 * dirty ones that it waits for. */
static void fold_records(struct cow_volume *volume)
{
	struct cow_inode **ready = cow_mem_new((volume->store->dirty_records + 1) * sizeof(*ready));
	size_t count = 0;

	for (struct cow_inode *i = volume->tracked; i != NULL; i = i->track_next)
		i->pending = 0;
	for (struct cow_inode *i = volume->tracked; i != NULL; i = i->track_next)
		if (i->dirty && i->parent != NULL)
			i->parent->pending++;
	for (struct cow_inode *i = volume->tracked; i != NULL; i = i->track_next)
		if (i->dirty && i->pending == 0)
			ready[count++] = i;
	while (count > 0) {
		struct cow_inode *i = ready[--count];
		cow_inode_fold(i);
		if (i->parent != NULL && --i->parent->pending == 0)
			ready[count++] = i->parent;
	}
	free(ready);
	assert(volume->store->dirty_records == 0);
}

int cow_volume_fold(struct cow_volume *volume)
{
	struct cow_reservation *at_work = volume->store->at_work;
	int error = cow_reclaim_reserve(volume->store);

	if (error != 0 || volume->store->dirty_records == 0)
		return error;
	volume->store->at_work = NULL; /* what is folded was promised to those who changed it */
	while (volume->buffered.first != NULL && error == 0)
		error = cow_flight_place(volume->buffered.first);
	if (error == 0)
		fold_records(volume);
	volume->store->at_work = at_work;
	return error;
}

struct place_args {
	struct cow_inode *file; /* identity only, never followed: which one was begun */
	uint64_t at;            /* up to here */
	uint64_t rest, left;    /* it ends when so many pages are there, or have been placed */
};

/* 1: there is more. */
static int place_step(struct cow_op *op, void *v)
{
	struct place_args *a = v;
	struct cow_volume *volume = op->volume;
	size_t room = PLACE_PAGES;

	while (op->store->dirty_pages > a->rest && a->left > 0 && volume->buffered.first != NULL) {
		struct cow_inode *file = volume->buffered.first;
		uint64_t before = op->store->dirty_pages, placed;
		int error;

		if (room <= PLACE_FILE)
			return 1;
		if (a->file != file)
			a->at = 0;
		a->file = file;
		error = cow_flight_place_some(file, &a->at, room - PLACE_FILE);
		if (error != 0)
			return error;
		placed = before - op->store->dirty_pages;
		a->left -= placed < a->left ? placed : a->left;
		room -= placed + PLACE_FILE < room ? placed + PLACE_FILE : room;
		if (room > 0) { /* it was placed to its end; what came before that meanwhile waits for its turn */
			a->file = NULL;
			if (file->pages.count != 0)
				cow_pages_last(file);
		}
	}
	return 0;
}

/* Files may be written while they are placed: it ends with twice what was there. */
int cow_volume_place(struct cow_volume *volume, uint64_t rest)
{
	const struct timespec pause = {.tv_nsec = 1000}; /* a mutex is not fair: let others have the lock */
	struct place_args args = {.rest = rest};
	int more;

	pthread_mutex_lock(&volume->store->lock);
	args.left = 2 * volume->store->dirty_pages;
	pthread_mutex_unlock(&volume->store->lock);
	while (!volume->store->read_only && (more = cow_op_read(volume, place_step, &args)) != 0) {
		if (more < 0)
			return more;
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* ------------------------------------------------------------------ commit */

static int commit_once(struct cow_volume *volume, int (*hook)(void *context), void *hook_context)
{
	int error = cow_volume_place(volume, PLACE_REST);

	if (cow_is_damage(error)) /* where the writer saw none: what he wrote has no place */
		return cow_store_fail(volume->store, error, "commit");
	return error == 0 ? cow_store_commit(volume->store, hook, hook_context) : error;
}

int cow_volume_prepare(struct cow_volume *volume, uint64_t blocks)
{
	struct cow_store *store = volume->store;
	int error = cow_counts_prepare(store->counts, blocks);

	if (error != -ENOSPC)
		return error;
	while (cow_store_trim(store, COW_TRIM_UNSURE))
		;
	return cow_counts_prepare(store->counts, blocks);
}

/* A host that was full may have space again: it is asked before anybody is told that it has none. */
static int ask_host(struct cow_volume *volume)
{
	struct cow_store *store = volume->store;
	uint64_t blocks;

	pthread_mutex_lock(&store->lock);
	blocks = cow_reservation_for_commit(volume);
	pthread_mutex_unlock(&store->lock);
	return cow_volume_prepare(volume, blocks);
}

int cow_volume_commit(struct cow_volume *volume, int (*hook)(void *context), void *hook_context)
{
	int error = commit_once(volume, hook, hook_context);

	if (error == -ENOSPC && volume->store->failed == 0 && ask_host(volume) == 0)
		error = commit_once(volume, hook, hook_context);
	pthread_mutex_lock(&volume->store->lock);
	volume->commit_error = error;
	pthread_cond_broadcast(&volume->done);
	pthread_mutex_unlock(&volume->store->lock);
	return error;
}

int cow_sync(struct cow_volume *volume)
{
	return volume->store->read_only && volume->store->failed == 0 ? 0 : cow_volume_commit(volume, NULL, NULL);
}
