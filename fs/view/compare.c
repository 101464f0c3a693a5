/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/view/compare.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/mem.h"
#include "fs/view/compare_found.h"
#include "fs/view/compare_links.h"
#include "store/cursor.h"

/* ------------------------------------------------------------------ pairs */

static struct cow_side_dir side_dir(struct cow_compare *c, const struct cow_record *r, struct cow_side_world *world)
{
	return (struct cow_side_dir){
		.tree = r->tree, .number = r->number, .is_world = r->is_world,
		.world = r->is_world ? cow_compare_world(c, r->links, r->backs) : world,
	};
}

static const struct cow_way *way_new(struct cow_compare *c, const struct cow_way *up, struct cow_ptr old,
				     struct cow_ptr new)
{
	struct cow_way *way = cow_mem_new(sizeof(*way));

	*way = (struct cow_way){up, old.addr, new.addr, c->ways};
	c->ways = way;
	c->ways_left -= c->ways_left != 0;
	return way;
}

/* Nothing that is stored holds itself, unless somebody has made checksums that fit: then there is no end to it. */
static bool is_ring(const struct cow_way *way)
{
	if (way->old_tree == 0 && way->new_tree == 0)
		return false;
	for (const struct cow_way *w = way->up; w != NULL; w = w->up)
		if (w->old_tree == way->old_tree && w->new_tree == way->new_tree)
			return true;
	return false;
}

void cow_compare_push(struct cow_compare *c, const struct cow_record *old_record, const struct cow_record *new_record,
		      struct cow_side_world *old_world, struct cow_side_world *new_world, const char *old_path,
		      const char *path, const struct cow_way *up, bool first, const struct cow_dir_pair *scope)
{
	struct cow_dir_pair *pair = cow_mem_new(sizeof(*pair));

	pair->old = side_dir(c, old_record, old_world);
	pair->new = side_dir(c, new_record, new_world);
	pair->old_path = cow_path_join("", (const uint8_t *)old_path, (uint32_t)strlen(old_path));
	pair->path = cow_path_join("", (const uint8_t *)path, (uint32_t)strlen(path));
	pair->way = way_new(c, up, pair->old.tree, pair->new.tree);
	pair->first = first || pair->old.is_world || pair->new.is_world;
	pair->scope = pair->first ? pair : scope;
	pair->next = c->pairs;
	c->pairs = pair;
}

/* ------------------------------------------------------------------ one pair */

struct bag {
	struct cow_side_entry **entries;
	size_t count, size;
};

struct gather {
	const struct cow_dir_pair *pair;
	struct bag old, new;
};

static void bag_add(struct bag *bag, struct cow_side_entry *entry)
{
	if (bag->count == bag->size) {
		bag->size = bag->size != 0 ? 2 * bag->size : 16;
		bag->entries = cow_mem_resize(bag->entries, bag->size * sizeof(*bag->entries));
	}
	bag->entries[bag->count++] = entry;
}

/* Only what differs comes here; names of one hash may have changed places, so all of it is matched by name
 * afterwards. */
static int gather(void *context, const struct cow_cursor *a, const struct cow_cursor *b)
{
	struct gather *g = context;
	const struct cow_dir_pair *pair = g->pair;

	if (a != NULL)
		bag_add(&g->old, cow_compare_entry(a->value, a->length, pair->old_path, pair->old.world, pair->way));
	if (b != NULL)
		bag_add(&g->new, cow_compare_entry(b->value, b->length, pair->path, pair->new.world, pair->way));
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(struct cow_side_entry *const *)a)->name, (*(struct cow_side_entry *const *)b)->name);
}

static void bag_sort(struct bag *bag)
{
	if (bag->count > 1)
		qsort(bag->entries, bag->count, sizeof(*bag->entries), by_name);
}

static int compare_types(struct cow_compare *c, const struct cow_side_entry *a, const struct cow_side_entry *b,
			 const struct cow_record *old, const struct cow_record *new)
{
	int error = cow_compare_tell(c, 'T', b->path, old->mode, new->mode);

	if (error == 0 && c->expand && S_ISDIR(old->mode))
		error = cow_compare_children(c, a, true);
	if (error == 0 && c->expand && S_ISDIR(new->mode))
		error = cow_compare_children(c, b, false);
	return error;
}

/* Two entries of one name. */
static int compare_entries(struct cow_compare *c, const struct cow_dir_pair *pair, const struct cow_side_entry *a,
			   const struct cow_side_entry *b)
{
	uint8_t old_bytes[COW_VALUE_MAX], new_bytes[COW_VALUE_MAX];
	struct cow_record old, new;

	if (a->length == b->length && memcmp(a->value, b->value, a->length) == 0)
		return 0;
	int error = cow_compare_load(c, a, old_bytes, &old);
	if (error == 0)
		error = cow_compare_load(c, b, new_bytes, &new);
	if (error != 0)
		return error;
	if (S_ISDIR(old.mode) != S_ISDIR(new.mode))
		return compare_types(c, a, b, &old, &new);
	if (S_ISDIR(old.mode)) {
		error = cow_compare_attributes(c, &old, &new, b->path);
		if (error == 0)
			cow_compare_push(c, &old, &new, pair->old.world, pair->new.world, a->path, b->path, pair->way,
					 false, pair->scope);
		return error;
	}
	error = cow_compare_records(c, &old, &new, b->path);
	if (error != 0 || !c->same)
		return error;
	int same = cow_compare_groups(c, pair, a, b);
	return same < 0 ? same : same == 0 ? COW_DIFFERENT : 0;
}

/* Both bags sorted by name; entries that are handed on are taken out. */
static int match_names(struct cow_compare *c, struct gather *g)
{
	size_t i = 0, k = 0;
	int error = 0;

	while (error == 0 && (i < g->old.count || k < g->new.count)) {
		int order = i == g->old.count ? 1 : k == g->new.count ? -1
			  : strcmp(g->old.entries[i]->name, g->new.entries[k]->name);
		if (order == 0) {
			error = compare_entries(c, g->pair, g->old.entries[i++], g->new.entries[k++]);
		} else if (order < 0) {
			error = cow_compare_only(c, g->old.entries[i], true);
			g->old.entries[i++] = NULL;
		} else {
			error = cow_compare_only(c, g->new.entries[k], false);
			g->new.entries[k++] = NULL;
		}
	}
	return error;
}

static void bag_free(struct bag *bag)
{
	for (size_t i = 0; i < bag->count; i++)
		cow_compare_entry_free(bag->entries[i]);
	free(bag->entries);
}

static uint64_t links_of(const struct cow_side_dir *dir)
{
	return dir->world != NULL ? dir->world->links.root.addr : 0;
}

/* Clones of clones may lead to one pair of trees in more ways than can be gone. They differ in all of them or in none,
 * and who only asks whether anything differs need not look twice. */
static bool is_done(struct cow_compare *c, const struct cow_dir_pair *pair)
{
	uint64_t key[5] = {pair->old.tree.addr, pair->new.tree.addr, links_of(&pair->old), links_of(&pair->new),
			   pair->first};
	uint64_t hash = XXH3_64bits(key, sizeof(key));

	if (!c->same)
		return false;
	if (cow_map_get(&c->compared, hash) != NULL)
		return true;
	cow_map_put(&c->compared, hash, c);
	return false;
}

static int compare_pair(struct cow_compare *c, const struct cow_dir_pair *pair)
{
	struct gather g = {.pair = pair};
	int error;

	if (is_ring(pair->way))
		return COW_ERR_DAMAGED;
	if (c->ways_left == 0)
		return c->ways_error;
	if (is_done(c, pair))
		return 0;
	error = pair->first ? cow_compare_links(c, pair) : 0;

	if (error != 0 || cow_ptr_equal(pair->old.tree, pair->new.tree))
		return error;
	error = cow_cursor_compare(c->volume->store, pair->old.tree, pair->new.tree, COW_KIND_DIR, gather, &g);
	if (error == 0) {
		bag_sort(&g.old);
		bag_sort(&g.new);
		error = match_names(c, &g);
	}
	bag_free(&g.old);
	bag_free(&g.new);
	return error;
}

/* A list of our own instead of recursion: directories may be nested without limit. Pairs that are scopes of others are
 * freed at the end. */
int cow_compare_run(struct cow_compare *c)
{
	int error = 0;

	while (c->pairs != NULL && error == 0) {
		struct cow_dir_pair *pair = c->pairs;
		c->pairs = pair->next;
		error = compare_pair(c, pair);
		if (pair->first) {
			pair->next = c->done_pairs;
			c->done_pairs = pair;
		} else {
			free(pair->old_path);
			free(pair->path);
			free(pair);
		}
	}
	return error;
}

int cow_compare_children(struct cow_compare *c, const struct cow_side_entry *dir, bool gone)
{
	uint8_t bytes[COW_VALUE_MAX];
	const struct cow_ptr no_tree = {0};
	struct cow_cursor cursor;
	struct cow_record record;
	int error = cow_compare_load(c, dir, bytes, &record);

	if (error != 0)
		return error;
	struct cow_side_world *world = side_dir(c, &record, dir->world).world;
	const struct cow_way *way = way_new(c, dir->up, gone ? record.tree : no_tree, gone ? no_tree : record.tree);
	if (is_ring(way))
		return COW_ERR_DAMAGED;
	if (c->ways_left == 0)
		return c->ways_error;
	cow_cursor_open(&cursor, c->volume->store, record.tree, COW_KIND_DIR);
	while ((error = cow_cursor_item(&cursor)) == 0 && cursor.at == COW_AT_ITEM) {
		error = cow_compare_only(c, cow_compare_entry(cursor.value, cursor.length, dir->path, world, way),
					 gone);
		if (error != 0)
			break;
		cow_cursor_skip(&cursor);
	}
	cow_cursor_close(&cursor);
	return error;
}
