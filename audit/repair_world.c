/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hard links of one world after something in its tree or in its link records went: a walk over the names, and then
 *     - names without a record are taken out of the tree;
 *     - records whose names are all lost, but which were alive by the spine as stored, go to /lost+found;
 *     - link records and spine are written anew, exactly as the names say. Records that no name reaches (what a
 *       clone brings along: doc/DESIGN.md, "Garbage in links") are not written again: they are garbage.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/mem.h"
#include "audit/repair.h"
#include "store/node.h"

struct name {
	uint64_t link_key;
	uint32_t type;
	struct cow_back at;
};

struct row { /* a link record or spine row of the new tree */
	uint64_t key;
	uint32_t length;
	uint8_t value[];
};

struct up {
	struct cow_back back;
};

struct todo {
	uint64_t number;
	struct cow_ptr tree;
};

struct world {
	struct cow_repair *repair;
	const struct cow_mended *leaf;
	const struct cow_slice *name;
	const struct cow_record *record;
	bool links_lost;

	struct name *names;
	size_t name_count, name_size;
	uint64_t items; /* met so far */
	struct cow_map dirs; /* n -> struct up, by the tree */
	struct cow_map spine; /* n -> struct up, as stored */
	struct todo *todo;
	size_t todo_count, todo_size;
	uint64_t dir;

	struct cow_map records; /* link keys that have a record -> its type */
	struct row **rows;
	size_t row_count, row_size;
	uint64_t backs, bytes, blocks, files;
};

struct mended_world {
	struct cow_ptr old_tree, old_links;
	uint64_t top;
	struct cow_record now; /* tree, totals, links, sums */
};

static void *grow(void *list, size_t count, size_t *size, size_t each)
{
	if (count < *size)
		return list;
	*size = *size != 0 ? 2 * *size : 64;
	return cow_mem_resize(list, *size * each);
}

/* ------------------------------------------------------------------ names */

static int name_item(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct world *w = context;
	struct cow_dirent entry;
	struct cow_record r;
	struct up *up;

	/* In one world nothing stored is met twice: it is a lie that cannot be mended. */
	if (w->items++ == w->repair->mended.count * (COW_BLOCK / COW_LEAF_SLOT)) {
		w->todo_count = 0;
		return 1;
	}
	if (cow_dirent_decode(value, length, &entry) != 0)
		return 0;
	if (entry.is_link) {
		w->names = grow(w->names, w->name_count, &w->name_size, sizeof(*w->names));
		w->names[w->name_count++] = (struct name){entry.link_key, entry.link_type, {w->dir, key}};
		return 0;
	}
	if (cow_record_decode(entry.record.bytes, entry.record.length, 0, &r) != 0 || r.body != COW_BODY_DIR ||
	    r.is_world || r.totals.refs == 0 || r.number == w->record->number ||
	    cow_map_get(&w->dirs, r.number) != NULL)
		return 0;
	up = cow_mem_new(sizeof(*up));
	up->back = (struct cow_back){w->dir, key};
	cow_map_put(&w->dirs, r.number, up);
	w->todo = grow(w->todo, w->todo_count, &w->todo_size, sizeof(*w->todo));
	w->todo[w->todo_count++] = (struct todo){r.number, r.tree};
	return 0;
}

static int name_order(const void *a, const void *b)
{
	const struct name *x = a, *y = b;

	if (x->link_key != y->link_key)
		return x->link_key < y->link_key ? -1 : 1;
	if (x->at.dir != y->at.dir)
		return x->at.dir < y->at.dir ? -1 : 1;
	return (x->at.key > y->at.key) - (x->at.key < y->at.key);
}

static void free_ups(struct cow_map *map)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(map, &i)) != NULL;)
		free(slot->value);
	cow_map_free(map);
}

static void walk_names(struct world *w, const struct cow_record *world)
{
	w->name_count = w->items = 0;
	free_ups(&w->dirs);
	w->todo = grow(w->todo, w->todo_count, &w->todo_size, sizeof(*w->todo));
	if (world->totals.refs != 0)
		w->todo[w->todo_count++] = (struct todo){world->number, world->tree};
	while (w->todo_count > 0) {
		struct todo todo = w->todo[--w->todo_count];

		w->dir = todo.number;
		cow_repair_each(w->repair, todo.tree, COW_KIND_DIR, name_item, w);
	}
	if (w->name_count > 1)
		qsort(w->names, w->name_count, sizeof(*w->names), name_order);
}

/* The names of a key: their number, *first the first of them. */
static size_t names_of(const struct world *w, uint64_t key, size_t *first)
{
	size_t low = 0, high = w->name_count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (w->names[middle].link_key < key)
			low = middle + 1;
		else
			high = middle;
	}
	*first = low;
	while (low < w->name_count && w->names[low].link_key == key)
		low++;
	return low - *first;
}

/* ------------------------------------------------------------------ what was stored */

static int stored_item(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct world *w = context;
	struct cow_link_row row;
	struct cow_record r;
	struct cow_back back;
	struct up *up;

	if (cow_spine_row_decode(value, length, &back) == 0) {
		up = cow_mem_new(sizeof(*up));
		up->back = back;
		free(cow_map_remove(&w->spine, key));
		cow_map_put(&w->spine, key, up);
	} else if (cow_link_row_decode(value, length, &row) == 0 &&
		   cow_record_decode(row.record.bytes, row.record.length, 0, &r) == 0) {
		cow_map_put(&w->records, key, (void *)(uintptr_t)(r.mode & S_IFMT));
	}
	return 0;
}

/* Did the spine as stored lead from a directory to the top? */
static bool climbed(struct world *w, uint64_t dir)
{
	/* at most as many steps as there are rows: rings end */
	for (size_t steps = 0; steps <= w->spine.count; steps++) {
		const struct up *up;

		if (dir == w->record->number)
			return true;
		up = cow_map_get(&w->spine, dir);
		if (up == NULL)
			return false;
		dir = up->back.dir;
	}
	return false;
}

/* ------------------------------------------------------------------ names without a record */

/* Takes them out of the tree. */
static void drop_names(struct world *w, struct cow_record *world)
{
	struct cow_map memo = {0}, keep = {0};
	struct cow_mender mender = {.repair = w->repair, .what = COW_MEND_NAMES, .memo = &memo, .names = &keep};
	struct cow_mended *tree;
	struct cow_map_slot *slot;
	size_t dropped = 0;

	for (size_t i = 0; (slot = cow_map_each(&w->records, &i)) != NULL;) {
		size_t first, count = names_of(w, slot->key, &first), fit = 0;

		for (size_t k = first; k < first + count; k++)
			fit += w->names[k].type == (uint32_t)(uintptr_t)slot->value;
		if (count > 0 && fit == count)
			cow_map_put(&keep, slot->key, w);
	}
	for (size_t i = 0; i < w->name_count; i++)
		dropped += cow_map_get(&keep, w->names[i].link_key) == NULL;
	if (dropped > 0) {
		tree = cow_mend_tree(&mender, world->tree, COW_KIND_DIR, NULL, 0);
		cow_repair_lost(w->repair, w->leaf, w->name, 0,
				"%zu names of hard-linked files whose record is lost are removed in this world",
				dropped);
		world->tree = tree != NULL ? tree->now : (struct cow_ptr){0};
		cow_mend_totals(world, tree);
		cow_mend_free(&memo);
		walk_names(w, world);
	}
	cow_map_free(&keep);
}

/* ------------------------------------------------------------------ the new rows */

static void add_row(struct world *w, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct row *row = cow_mem_new(sizeof(*row) + length);

	row->key = key;
	row->length = length;
	memcpy(row->value, value, length);
	w->rows = grow(w->rows, w->row_count, &w->row_size, sizeof(struct row *));
	w->rows[w->row_count++] = row;
}

static void build_backs(struct world *w, size_t first, size_t count, struct cow_back *backs, struct cow_ptr *tree)
{
	uint8_t *bytes;

	for (size_t i = 0; i < count && i < COW_BACKS_INLINE_MAX; i++)
		backs[i] = w->names[first + i].at;
	if (count <= COW_BACKS_INLINE_MAX)
		return;
	bytes = cow_mem_new(count * 16);
	for (size_t i = 0; i < count; i++) {
		put64(bytes + 16 * i, w->names[first + i].at.dir);
		put64(bytes + 16 * i + 8, w->names[first + i].at.key);
	}
	*tree = cow_build_blob(w->repair, bytes, (uint32_t)(count * 16));
	free(bytes);
}

/* The names of a row in the order of the names: are its inline back-references these already? */
static bool same_backs(const struct world *w, const struct cow_link_row *row, size_t first, size_t count)
{
	size_t fit = 0;

	if (row->backs != count || count > COW_BACKS_INLINE_MAX)
		return false;
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < count; k++)
			fit += get64(row->back_bytes + 16 * k) == w->names[first + i].at.dir &&
			       get64(row->back_bytes + 16 * k + 8) == w->names[first + i].at.key;
	return fit == count;
}

static void keep_record(struct world *w, const struct cow_link_row *row, struct cow_record *r)
{
	bool live = w->links_lost;
	char name[40];

	for (uint32_t i = 0; i < row->backs && row->backs <= COW_BACKS_INLINE_MAX && !live; i++)
		live = climbed(w, get64(row->back_bytes + (size_t)16 * i));
	if (!live && row->backs <= COW_BACKS_INLINE_MAX)
		return; /* garbage before, too */
	snprintf(name, sizeof(name), "#%" PRIu64, r->number);
	cow_repair_keep(w->repair, name, r);
}

static int link_item(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct world *w = context;
	struct cow_back backs[COW_BACKS_INLINE_MAX];
	struct cow_ptr tree = {0};
	struct cow_link_row row;
	struct cow_record r;
	uint8_t bytes[COW_VALUE_MAX];
	size_t first, count;

	if (cow_link_row_decode(value, length, &row) != 0 ||
	    cow_record_decode(row.record.bytes, row.record.length, 0, &r) != 0)
		return 0;
	count = names_of(w, key, &first);
	if (count == 0) {
		keep_record(w, &row, &r);
		return 0;
	}
	w->backs += count;
	w->bytes += r.size;
	w->blocks += r.blocks;
	w->files++;
	if (same_backs(w, &row, first, count)) {
		add_row(w, key, value, length);
		return 0;
	}
	build_backs(w, first, count, backs, &tree);
	length = cow_link_row_encode(&r, backs, (uint32_t)count, tree, bytes);
	add_row(w, key, bytes, length);
	return 0;
}

static int row_order(const void *a, const void *b)
{
	const struct row *x = *(struct row *const *)a, *y = *(struct row *const *)b;

	return (x->key > y->key) - (x->key < y->key);
}

static int compare_item(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct world *w = context;
	const struct row *row = w->row_size < w->row_count ? w->rows[w->row_size] : NULL;

	w->row_size++; /* the list is complete: its size is of no use any more */
	return row == NULL || row->key != key || row->length != length || memcmp(row->value, value, length) != 0;
}

static void build_links(struct world *w, struct cow_record *world)
{
	struct cow_map_slot *slot;
	struct cow_build build;

	for (size_t i = 0; (slot = cow_map_each(&w->dirs, &i)) != NULL;) {
		uint8_t bytes[COW_VALUE_MAX];
		uint32_t length = cow_spine_row_encode(((struct up *)slot->value)->back, bytes);

		add_row(w, slot->key, bytes, length);
	}
	if (w->row_count > 1)
		qsort(w->rows, w->row_count, sizeof(struct row *), row_order);
	world->backs = w->backs;
	world->link_bytes = w->bytes;
	world->link_blocks = w->blocks;
	world->link_files = w->files;
	w->row_size = 0;
	if (cow_repair_each(w->repair, world->links, COW_KIND_LINKS, compare_item, w) == 0 &&
	    w->row_size == w->row_count)
		return; /* they are as they should be: shared as before */
	cow_build_begin(&build, w->repair, COW_KIND_LINKS);
	for (size_t i = 0; i < w->row_count; i++)
		cow_build_add(&build, w->rows[i]->key, w->rows[i]->value, w->rows[i]->length);
	world->links = cow_build_end(&build);
}

/* ------------------------------------------------------------------ a world */

static void mend(struct cow_repair *r, const struct cow_mended *leaf, const struct cow_slice *name,
		 struct cow_record *world, bool links_lost)
{
	struct world w = {.repair = r, .leaf = leaf, .name = name, .record = world, .links_lost = links_lost};

	walk_names(&w, world);
	cow_repair_each(r, world->links, COW_KIND_LINKS, stored_item, &w);
	drop_names(&w, world);
	cow_repair_each(r, world->links, COW_KIND_LINKS, link_item, &w);
	build_links(&w, world);
	free_ups(&w.dirs);
	free_ups(&w.spine);
	cow_map_free(&w.records);
	for (size_t i = 0; i < w.row_count; i++)
		free(w.rows[i]);
	free(w.rows);
	free(w.names);
	free(w.todo);
}

void cow_mend_world(struct cow_repair *r, const struct cow_mended *leaf, const struct cow_slice *name,
		    struct cow_record *world, bool links_lost)
{
	uint64_t key[3] = {world->number, world->tree.addr, world->links.addr}, hash = XXH3_64bits(key, sizeof(key));
	struct mended_world *m = cow_map_get(&r->worlds, hash);

	if (world->totals.refs == 0 && cow_ptr_is_null(world->links))
		return;
	if (m == NULL || m->top != world->number || !cow_ptr_equal(m->old_tree, world->tree) ||
	    !cow_ptr_equal(m->old_links, world->links)) {
		struct cow_record now = *world;

		free(cow_map_remove(&r->worlds, hash));
		m = cow_mem_new(sizeof(*m));
		*m = (struct mended_world){.old_tree = world->tree, .old_links = world->links, .top = world->number};
		mend(r, leaf, name, &now, links_lost);
		m->now = now;
		cow_map_put(&r->worlds, hash, m);
	}
	world->tree = m->now.tree;
	if (world->totals.exceptions > m->now.totals.exceptions)
		m->now.totals.exceptions = world->totals.exceptions;
	world->totals = m->now.totals;
	world->links = m->now.links;
	world->backs = m->now.backs;
	world->link_bytes = m->now.link_bytes;
	world->link_blocks = m->now.link_blocks;
	world->link_files = m->now.link_files;
}
