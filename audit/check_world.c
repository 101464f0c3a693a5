/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hard links (doc/DESIGN.md, "Hard links"), world by world: a full walk of the names, which the file system itself
 * never does, against what `links` says. Only directories with references are entered.
 */
#include "audit/check_walk.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/mem.h"

struct names { /* of one link key, found in the tree */
	uint64_t count;
	uint64_t hash; /* of the set of (directory, entry key): the order does not matter */
	uint32_t type;
	bool found; /* there is a record */
};

struct up { /* a spine record, as it is or as it should be */
	struct cow_back back;
	enum { UNKNOWN, CLIMBING, REACHES, DEAD } state;
};

struct todo {
	uint64_t number;
	struct cow_ptr tree;
};

struct walk {
	struct cow_check *check;
	const struct cow_checked_world *world;
	struct todo *todo;
	size_t count, size;
	uint64_t dir; /* where we are */
	uint64_t items; /* met so far */
	struct cow_map names; /* link key -> struct names */
	struct cow_map should; /* directory n -> struct up: the spine by the tree */
	struct cow_map spine; /* directory n -> struct up: as stored */
	bool garbage;
};

static uint64_t hash_back(uint64_t dir, uint64_t key)
{
	uint8_t bytes[16];

	put64(bytes, dir);
	put64(bytes + 8, key);
	return XXH3_64bits(bytes, sizeof(bytes));
}

static void free_values(struct cow_check *c, struct cow_map *map, size_t size)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(map, &i)) != NULL;)
		cow_check_free(c, slot->value, size);
	cow_map_free(map);
}

/* ------------------------------------------------------------------ names in the tree */

static void add_name(struct walk *w, uint64_t key, const struct cow_dirent *entry)
{
	struct names *names = cow_map_get(&w->names, entry->link_key);

	if (names == NULL) {
		names = cow_check_new(w->check, sizeof(*names));
		names->type = entry->link_type;
		cow_map_put(&w->names, entry->link_key, names);
	}
	names->count++;
	names->hash += hash_back(w->dir, key);
	if (names->type != entry->link_type)
		cow_check_say(w->check, COW_FIND_LINK_TYPE, 0, "names of link %" PRIu64 " say different types",
			      entry->link_key);
}

static void add_dir(struct walk *w, uint64_t key, const struct cow_record *r)
{
	struct up *up;

	if (r->number == w->world->top || cow_map_get(&w->should, r->number) != NULL) {
		cow_check_say(w->check, COW_FIND_NUMBER_TWICE, 0,
			      "directory %" PRIu64 " is twice in the world of %" PRIu64, r->number, w->world->top);
		return; /* perhaps a ring */
	}
	up = cow_check_new(w->check, sizeof(*up));
	up->back = (struct cow_back){w->dir, key};
	cow_map_put(&w->should, r->number, up);
	w->todo = cow_check_grow(w->check, w->todo, w->count, &w->size, sizeof(*w->todo));
	w->todo[w->count++] = (struct todo){r->number, r->tree};
}

static int name_item(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct walk *w = context;
	struct cow_dirent entry;
	struct cow_record r;

	/* In one world nothing stored is met twice, unless directories share what none of them can have alone. */
	if (w->items++ == w->check->entries) {
		cow_check_say(w->check, COW_FIND_LINK_NAMES, 0,
			      "world of directory %" PRIu64 ": more entries than the volume has", w->world->top);
		w->count = 0;
		return 1;
	}
	if (cow_dirent_decode(value, length, &entry) != 0)
		return 0;
	if (entry.is_link)
		add_name(w, key, &entry);
	else if (cow_record_decode(entry.record.bytes, entry.record.length, 0, &r) == 0 && r.body == COW_BODY_DIR &&
		 !r.is_world && r.totals.refs != 0)
		add_dir(w, key, &r);
	return 0;
}

static bool has_refs(const struct cow_check_node *node)
{
	return node->refs;
}

static void walk_names(struct walk *w)
{
	const struct cow_check_each each = {.item = name_item, .enter = has_refs, .context = w};

	w->todo = cow_check_grow(w->check, w->todo, w->count, &w->size, sizeof(*w->todo));
	w->todo[w->count++] = (struct todo){w->world->top, w->world->tree};
	while (w->count > 0) {
		struct todo todo = w->todo[--w->count];

		w->dir = todo.number;
		cow_check_each(w->check, todo.tree, &each);
	}
}

static void free_walk(struct walk *w)
{
	free_values(w->check, &w->names, sizeof(struct names));
	free_values(w->check, &w->should, sizeof(struct up));
	free_values(w->check, &w->spine, sizeof(struct up));
	cow_check_free(w->check, w->todo, w->size * sizeof(*w->todo));
}

struct cow_map cow_check_names(struct cow_check *check, struct cow_ptr tree)
{
	struct cow_checked_world world = {.tree = tree};
	struct walk w = {.check = check, .world = &world};
	struct cow_map keys = {0};
	struct cow_map_slot *slot;

	walk_names(&w);
	for (size_t i = 0; (slot = cow_map_each(&w.names, &i)) != NULL;)
		cow_check_set_add(&keys, slot->key);
	free_walk(&w);
	return keys;
}

/* ------------------------------------------------------------------ the spine */

static int spine_item(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct walk *w = context;
	struct cow_back back;
	struct up *up;

	if (cow_spine_row_decode(value, length, &back) != 0 || cow_map_get(&w->spine, key) != NULL)
		return 0; /* a key that is there twice was said before */
	up = cow_check_new(w->check, sizeof(*up));
	up->back = back;
	cow_map_put(&w->spine, key, up);
	return 0;
}

/* Does the spine lead from a directory to the top? What was climbed over is remembered. */
static bool climbs(struct walk *w, uint64_t from)
{
	int end = DEAD;
	struct up *up;

	for (uint64_t dir = from;; dir = up->back.dir) {
		if (dir == w->world->top) {
			end = REACHES;
			break;
		}
		up = cow_map_get(&w->spine, dir);
		if (up == NULL)
			break;
		if (up->state == CLIMBING)
			cow_check_say(w->check, COW_FIND_SPINE_RING, 0,
				      "world of directory %" PRIu64 ": the spine is a ring at %" PRIu64, w->world->top,
				      dir);
		if (up->state != UNKNOWN) {
			end = up->state == REACHES ? REACHES : DEAD;
			break;
		}
		up->state = CLIMBING;
	}
	for (uint64_t dir = from; dir != w->world->top; dir = up->back.dir) {
		up = cow_map_get(&w->spine, dir);
		if (up == NULL || up->state != CLIMBING)
			break;
		up->state = (unsigned)end;
	}
	return end == REACHES;
}

static void check_spine(struct walk *w)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(&w->should, &i)) != NULL;) {
		const struct up *should = slot->value, *is = cow_map_get(&w->spine, slot->key);

		if (is == NULL || is->back.dir != should->back.dir || is->back.key != should->back.key)
			cow_check_say(w->check, COW_FIND_SPINE, 0,
				      "world of directory %" PRIu64 ": spine record of directory %" PRIu64 " is %s",
				      w->world->top, slot->key, is == NULL ? "missing" : "wrong");
	}
	for (size_t i = 0; (slot = cow_map_each(&w->spine, &i)) != NULL;)
		if (slot->key != w->world->top && cow_map_get(&w->should, slot->key) == NULL && climbs(w, slot->key))
			cow_check_say(w->check, COW_FIND_SPINE, 0,
				      "world of directory %" PRIu64 ": spine record of directory %" PRIu64
				      " should not be there",
				      w->world->top, slot->key);
}

/* ------------------------------------------------------------------ link records */

static int add_length(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	(void)key, (void)value;
	*(uint64_t *)context += length;
	return 0;
}

/* The back-references of a row that reach the top, as a count and a hash. False: they cannot be read (said before). */
static bool sum_live(struct walk *w, const struct cow_link_row *row, struct names *live)
{
	uint8_t *loaded = NULL;
	const uint8_t *bytes = row->back_bytes;

	if (row->backs > COW_BACKS_INLINE_MAX) {
		const struct cow_check_node *node = cow_check_seen(w->check, row->back_tree);
		uint64_t length_bytes = 0;

		if (node == NULL || node->partial)
			return false;
		cow_check_each(w->check, row->back_tree,
			       &(struct cow_check_each){.item = add_length, .context = &length_bytes});
		if (length_bytes != (uint64_t)row->backs * 16)
			return false;
		bytes = loaded = cow_mem_new((size_t)row->backs * 16);
		if (cow_check_blob(w->check, row->back_tree, loaded, row->backs * 16) != 0) {
			free(loaded);
			return false;
		}
	}
	for (uint32_t i = 0; i < row->backs; i++) {
		uint64_t dir = get64(bytes + (size_t)16 * i), key = get64(bytes + (size_t)16 * i + 8);

		if (!climbs(w, dir))
			continue;
		live->count++;
		live->hash += hash_back(dir, key);
	}
	free(loaded);
	return true;
}

static int link_item(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct walk *w = context;
	struct names live = {0}, *names = cow_map_get(&w->names, key);
	struct cow_link_row row;
	struct cow_record r;

	if (cow_link_row_decode(value, length, &row) != 0 ||
	    cow_record_decode(row.record.bytes, row.record.length, 0, &r) != 0)
		return 0;
	if (names != NULL)
		names->found = true;
	if (!sum_live(w, &row, &live))
		return 0;
	w->garbage |= live.count == 0 || row.backs > live.count;
	if (live.count != (names != NULL ? names->count : 0) || live.hash != (names != NULL ? names->hash : 0))
		cow_check_say(w->check, COW_FIND_LINK_NAMES, 0,
			      "world of directory %" PRIu64 ": link %" PRIu64 " (inode %" PRIu64 ") has %" PRIu64
			      " live back-references, and %" PRIu64 " names",
			      w->world->top, key, r.number, live.count, names != NULL ? names->count : 0);
	if (names != NULL && names->type != (r.mode & S_IFMT))
		cow_check_say(w->check, COW_FIND_LINK_TYPE, 0,
			      "link %" PRIu64 " (inode %" PRIu64 "): names say type %#o, record %#o", key, r.number,
			      names->type, r.mode & S_IFMT);
	return 0;
}

static void check_world(struct cow_check *c, const struct cow_checked_world *world)
{
	const struct cow_check_node *tree = cow_check_seen(c, world->tree), *links = cow_check_seen(c, world->links);
	struct walk w = {.check = c, .world = world};
	struct cow_map_slot *slot;

	if ((tree != NULL && tree->partial) || (links != NULL && links->partial) ||
	    (world->refs == 0 && cow_ptr_is_null(world->links)))
		return;
	walk_names(&w);
	cow_check_each(c, world->links, &(struct cow_check_each){.item = spine_item, .context = &w});
	cow_check_each(c, world->links, &(struct cow_check_each){.item = link_item, .context = &w});
	for (size_t i = 0; (slot = cow_map_each(&w.names, &i)) != NULL;)
		if (!((struct names *)slot->value)->found)
			cow_check_say(c, COW_FIND_LINK_LOST, 0,
				      "world of directory %" PRIu64 ": link %" PRIu64 " has names but no record",
				      world->top, slot->key);
	check_spine(&w);
	if (w.garbage != (world->backs > world->refs))
		cow_check_say(
			c, COW_FIND_LINK_GARBAGE, 0,
			"world of directory %" PRIu64 ": %" PRIu64 " back-references, %" PRIu64 " references, and %s",
			world->top, world->backs, world->refs, w.garbage ? "there are dead ones" : "all are live");
	free_walk(&w);
}

static int world_order(const void *a, const void *b)
{
	const struct cow_checked_world *x = a, *y = b;

	if (x->top != y->top)
		return x->top < y->top ? -1 : 1;
	if (x->tree.addr != y->tree.addr)
		return x->tree.addr < y->tree.addr ? -1 : 1;
	if (x->links.addr != y->links.addr)
		return x->links.addr < y->links.addr ? -1 : 1;
	if (x->refs != y->refs)
		return x->refs < y->refs ? -1 : 1;
	return (x->backs > y->backs) - (x->backs < y->backs);
}

void cow_check_worlds(struct cow_check *c)
{
	size_t kept = 0;

	if (c->world_count == 0)
		return;
	qsort(c->worlds, c->world_count, sizeof(*c->worlds), world_order);
	for (size_t i = 0; i < c->world_count; i++)
		if (i == 0 || world_order(&c->worlds[i], &c->worlds[kept - 1]) != 0)
			c->worlds[kept++] = c->worlds[i];
	c->world_count = kept;
	for (size_t i = 0; i < c->world_count; i++)
		check_world(c, &c->worlds[i]);
}
