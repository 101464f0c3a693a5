/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cow_scrub(): reads everything in use, and compares it with its checksum.
 *
 * The trees of names and orphans are held as they are at one moment (fs/commit/snapshot.h), and read without any lock.
 * As long as that is so, nothing that others free comes back; so the hold is given back and taken again every few
 * seconds. The
 * table of numbers and the reclaim queue cannot be held: they are read as the last commit left them, a little at a
 * time, while no commit can come in between. So are the superblocks. Counts have two slots, and are read until they
 * hold still.
 */
#include "fs/view/scrub.h"

#include <errno.h>
#include <stdlib.h>

#include "store/counts.h"
#include "store/node.h"

#define HOLD_MILLISECONDS 10000u  /* how long the volume is held at a time, if nothing else was said */
#define STILL_NODES 64u           /* nodes read while no commit can come */

/* ------------------------------------------------------------------ the trees that are held */

struct held_walk {
	struct cow_holding holding;
	unsigned root;
	bool taken;
	struct timespec since;
};

/* A volume that is not written any more stays at its last commit by itself. */
static int hold(struct cow_scrub *s, struct held_walk *h, struct cow_ptr *root)
{
	struct cow_store *store = s->store;
	bool still;
	int error;

	clock_gettime(CLOCK_MONOTONIC, &h->since);
	pthread_mutex_lock(&store->lock);
	still = store->read_only;
	*root = store->super.roots[h->root];
	pthread_mutex_unlock(&store->lock);
	if (still)
		return 0;
	error = cow_holding_take_all(&h->holding, s->volume);
	h->taken = error == 0;
	*root = h->root == COW_ROOT_TOP ? h->holding.top : h->holding.orphans;
	return error;
}

static void give(struct held_walk *h)
{
	if (h->taken)
		cow_holding_give(&h->holding);
	h->taken = false;
}

static int hold_again(struct cow_scrub *s, struct cow_scrub_tree *tree)
{
	uint32_t milliseconds = s->options->hold_milliseconds != 0 ? s->options->hold_milliseconds : HOLD_MILLISECONDS;
	struct held_walk *h = tree->context;
	struct timespec now;
	int error;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!h->taken || cow_scrub_nanoseconds(&h->since, &now) < (int64_t)milliseconds * 1000000)
		return 0;
	give(h);
	error = hold(s, h, &tree->root);
	return error != 0 ? error : 1;
}

static int scrub_held(struct cow_scrub *s, unsigned root)
{
	struct held_walk h = {.root = root};
	struct cow_scrub_tree tree = {.kind = COW_KIND_DIR, .again = hold_again, .context = &h};
	int error = hold(s, &h, &tree.root);

	if (s->generation == 0) {
		pthread_mutex_lock(&s->store->lock);
		s->generation = s->store->super.generation;
		pthread_mutex_unlock(&s->store->lock);
	}
	s->nameless = root == COW_ROOT_ORPHANS;
	if (error == 0)
		error = cow_scrub_walk(s, &tree);
	give(&h);
	return error;
}

/* ------------------------------------------------------------------ the trees that are read while they hold still */

struct still_walk {
	unsigned root;
	uint64_t nodes; /* when it last let go */
};

/* [commit] */
static struct cow_ptr still_root(struct cow_scrub *s, unsigned root)
{
	struct cow_ptr ptr;

	pthread_mutex_lock(&s->store->lock);
	ptr = s->store->super.roots[root];
	pthread_mutex_unlock(&s->store->lock);
	return ptr;
}

static int still_again(struct cow_scrub *s, struct cow_scrub_tree *tree)
{
	struct still_walk *w = tree->context;

	if (s->result->nodes - w->nodes < STILL_NODES)
		return 0;
	w->nodes = s->result->nodes;
	pthread_mutex_unlock(&s->store->commit);
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); /* whoever waits gets it first */
	pthread_mutex_lock(&s->store->commit);
	tree->root = still_root(s, w->root);
	return 1;
}

static int scrub_still(struct cow_scrub *s, unsigned root, uint8_t kind)
{
	struct still_walk w = {root, s->result->nodes};
	struct cow_scrub_tree tree = {.kind = kind, .again = still_again, .context = &w};
	int error;

	s->nameless = true;
	pthread_mutex_lock(&s->store->commit);
	tree.root = still_root(s, root);
	error = cow_scrub_walk(s, &tree);
	pthread_mutex_unlock(&s->store->commit);
	return error;
}

/* ------------------------------------------------------------------ superblocks */

static bool is_zero(const uint8_t *bytes)
{
	for (unsigned i = 0; i < COW_BLOCK; i++)
		if (bytes[i] != 0)
			return false;
	return true;
}

/* NULL: nothing is wrong with it. */
static const char *judge_super(struct cow_scrub *s, unsigned slot, uint64_t block, uint64_t newest)
{
	uint8_t bytes[COW_BLOCK];
	struct cow_super super;

	if (cow_dev_read(s->store->dev, bytes, COW_BLOCK, block << COW_BLOCK_SHIFT) != 0)
		return "cannot be read";
	if (cow_super_decode(bytes, &super) == 0 && super.generation % COW_SUPER_SLOTS == slot) {
		if (slot != newest % COW_SUPER_SLOTS || super.generation == newest)
			return NULL;
		/* Copy B of a volume that was cut may be older; its writer's is not. */
		return s->store->read_only ? NULL : "an older one than the device has confirmed";
	}
	/* The slot of the next commit may have been left torn by a cut, where nobody writes it again. */
	if (is_zero(bytes) || (s->store->read_only && slot == (newest + 1) % COW_SUPER_SLOTS))
		return NULL;
	return "not valid";
}

static void scrub_supers(struct cow_scrub *s)
{
	s->nameless = true;
	pthread_mutex_lock(&s->store->commit);
	for (unsigned i = 0; i < 2 * COW_SUPER_SLOTS; i++) {
		unsigned slot = i % COW_SUPER_SLOTS;
		uint64_t block = slot + (i / COW_SUPER_SLOTS) * COW_SUPER_B;
		const char *wrong = judge_super(s, slot, block, s->store->super.generation);

		if (wrong != NULL)
			cow_scrub_tell(s, block, -1, "a copy of the superblock", wrong);
		s->result->superblocks++;
	}
	pthread_mutex_unlock(&s->store->commit);
	cow_scrub_pace(s, 2 * COW_SUPER_SLOTS);
}

/* ------------------------------------------------------------------ counts */

static int scrub_counts(struct cow_scrub *s, int level, uint64_t index)
{
	uint64_t child = index * COW_SELECTORS, end = child + COW_SELECTORS, entries, block = 0;
	const char *wrong;
	bool used;
	int error = cow_counts_verify(s->store->counts, level, index, &used, &block, &wrong);

	if (used) {
		s->result->count_blocks++;
		if (wrong != NULL)
			cow_scrub_tell(s, block, -1, level == 0 ? "counts of 1,024 blocks" : "selectors of counts",
				       wrong);
		cow_scrub_pace(s, 1);
	}
	if (error == -ENOMEM || s->stop != 0)
		return error == -ENOMEM ? error : s->stop;
	if (error != 0 || !used || level == 0)
		return 0;
	entries = cow_layout_entries(s->store->total_blocks, level - 1);
	for (error = 0; error == 0 && child < end && child < entries; child++)
		error = scrub_counts(s, level - 1, child);
	return error;
}

/* ------------------------------------------------------------------ all of it */

static uint64_t used_blocks(struct cow_store *store)
{
	const struct cow_super *super = &store->super;
	uint64_t used;

	pthread_mutex_lock(&store->lock);
	used = super->counts.initialised ? super->total_blocks - super->counts.free_blocks : 0;
	used -= used < super->log.blocks ? used : super->log.blocks;
	used -= used < cow_counts_system(store->counts) ? used : cow_counts_system(store->counts);
	pthread_mutex_unlock(&store->lock);
	return used;
}

static int run(struct cow_scrub *s)
{
	int error = scrub_held(s, COW_ROOT_TOP);

	if (error == 0)
		error = scrub_held(s, COW_ROOT_ORPHANS);
	if (error == 0)
		error = scrub_still(s, COW_ROOT_NUMBERS, COW_KIND_NUMBERS);
	if (error == 0)
		error = scrub_still(s, COW_ROOT_RECLAIM, COW_KIND_RECLAIM);
	s->nameless = true;
	if (error == 0)
		error = scrub_counts(s, COW_COUNT_LEVELS - 1, 0);
	if (error == 0)
		scrub_supers(s);
	return error != 0 ? error : s->stop;
}

int cow_scrub(struct cow_volume *volume, const struct cow_scrub_options *options, struct cow_scrub_result *result)
{
	static const struct cow_scrub_options quick;
	struct cow_scrub s = {.volume = volume, .store = volume->store, .options = options != NULL ? options : &quick,
			      .result = result};
	struct cow_map_slot *slot;
	int error;

	*result = (struct cow_scrub_result){.used_blocks = used_blocks(volume->store)};
	clock_gettime(CLOCK_MONOTONIC, &s.due);
	error = run(&s);
	for (size_t i = 0; (slot = cow_map_each(&s.seen, &i)) != NULL;)
		free(slot->value);
	cow_map_free(&s.seen);
	cow_map_free(&s.young);
	free(s.frames);
	free(s.path);
	return error;
}
