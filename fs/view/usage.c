/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cow_usage(): what is in a tree, and what removing it would free.
 *
 * Totals are kept in directory records. Only hard-linked files are summed elsewhere: all those of a world in its
 * record, which is of use if all or no references are inside and links holds no garbage. Else the directories that
 * have references are visited.
 *
 * Exclusive space is a dry run of reclaim: a block is freed if the claims that would go are all it has. Removing an
 * entry copies what is shared on the way down to it, which claims everything below once more: then nothing is
 * exclusive.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "fs/commit/commit.h"
#include "fs/reclaim/reclaim.h"
#include "fs/view/content.h"
#include "store/cursor.h"
#include "fs/reclaim/dryrun.h"
#include "fs/commit/snapshot.h"
#include "fs/world/link.h"

#define CLIMB_MAX (1u << 20)
#define RECLAIM_STEPS 4096u

/* ------------------------------------------------------------------ sums over hard-linked files */

struct sums { /* of hard-linked files */
	uint64_t bytes, blocks, files;
};

static void add_sums(struct sums *sums, uint64_t bytes, uint64_t blocks, uint64_t files)
{
	sums->bytes += bytes;
	sums->blocks += blocks;
	sums->files += files;
}

/* The directory of an entry that is one; or it is a link reference, or something else that is of no interest. */
static bool dir_of(const struct cow_cursor *cursor, struct cow_dirent *entry, struct cow_record *r)
{
	int error = cow_dirent_decode(cursor->value, cursor->length, entry);

	assert(error == 0);
	if (entry->is_link)
		return false;
	error = cow_record_decode(entry->record.bytes, entry->record.length, 0, r);
	assert(error == 0);
	return S_ISDIR(r->mode);
}

struct todo {
	struct cow_ptr tree;
	struct below *leave; /* what is below it has been summed up */
};

struct list {
	struct todo *items;
	size_t count, size;
};

static void list_add(struct list *list, struct todo todo)
{
	if (list->count == list->size) {
		list->size = list->size != 0 ? 2 * list->size : 64;
		list->items = cow_mem_resize(list->items, list->size * sizeof(*list->items));
	}
	list->items[list->count++] = todo;
}

/* How many references there are to each link key below a directory of one world, in which no directory is twice. */
static int count_refs(struct cow_store *store, struct cow_ptr root, struct cow_map *counts)
{
	struct cow_map entered = {0};
	struct list list = {0};
	struct cow_cursor cursor;
	struct cow_dirent entry;
	struct cow_record r;
	int error = 0;

	list_add(&list, (struct todo){.tree = root});
	while (list.count > 0 && error == 0) {
		struct cow_ptr tree = list.items[--list.count].tree;
		if (cow_map_get(&entered, tree.addr) != NULL) {
			error = COW_ERR_DAMAGED;
			break;
		}
		cow_map_put(&entered, tree.addr, counts);
		cow_cursor_open(&cursor, store, tree, COW_KIND_DIR);
		while ((error = cow_cursor_item(&cursor)) == 0 && cursor.at == COW_AT_ITEM) {
			bool is_dir = dir_of(&cursor, &entry, &r);
			if (is_dir && !r.is_world && r.totals.refs != 0 && !cow_ptr_is_null(r.tree))
				list_add(&list, (struct todo){.tree = r.tree});
			else if (entry.is_link)
				cow_map_put(counts, entry.link_key,
					    (void *)((uintptr_t)cow_map_get(counts, entry.link_key) + 1));
			cow_cursor_skip(&cursor);
		}
		cow_cursor_close(&cursor);
	}
	cow_map_free(&entered);
	free(list.items);
	return error;
}

/* The row of a link key, copied. */
static int get_row(struct cow_store *store, const struct cow_tree *links, uint64_t key, uint8_t *value,
		   struct cow_link_row *row)
{
	uint64_t found;
	uint32_t length;
	int error = cow_walk_next(store, links, key, &found, value, &length);

	if (error == -ENOENT || (error == 0 && found != key))
		return COW_ERR_DAMAGED;
	if (error == 0)
		error = cow_link_row_decode(value, length, row);
	return error == -ENOENT ? COW_ERR_DAMAGED : error;
}

/* The files with names below a directory, each once. */
static int sum_refs(struct cow_store *store, struct cow_ptr root, struct cow_ptr links, struct sums *sums)
{
	const struct cow_tree tree = {links, COW_KIND_LINKS};
	uint8_t value[COW_VALUE_MAX];
	struct cow_map counts = {0};
	struct cow_map_slot *slot;
	struct cow_link_row row;
	struct cow_record r;
	int error = count_refs(store, root, &counts);

	for (size_t i = 0; error == 0 && (slot = cow_map_each(&counts, &i)) != NULL;) {
		error = get_row(store, &tree, slot->key, value, &row);
		if (error == 0)
			error = cow_record_decode(row.record.bytes, row.record.length, 0, &r);
		if (error == 0)
			add_sums(sums, r.size, r.blocks, 1);
	}
	cow_map_free(&counts);
	return error;
}

/* A tree of entries, and the worlds nested in it and below. Clones of clones may lead to one tree in very many ways: it
 * is looked at once. */
struct below {
	struct sums sums;
	bool done; /* else: being looked at; what leads to it now is a ring */
};

/* The files with names in a world, found by its two trees. */
struct world {
	uint64_t tree, links; /* blocks of their roots */
	struct sums sums;
};

struct nested {
	struct cow_store *store;
	struct cow_map trees;  /* block of the root -> struct below */
	struct cow_map worlds; /* hash -> struct world */
	struct list list;
};

/* Clones of one directory that nobody has changed have the same trees: these are walked once. */
static int sum_world(struct nested *n, const struct cow_record *r, struct sums *sums)
{
	uint64_t hash = r->tree.addr * 0x9e3779b97f4a7c15 + r->links.addr;
	struct world *world = cow_map_get(&n->worlds, hash);

	if (world == NULL) {
		world = cow_mem_new(sizeof(*world));
		cow_map_put(&n->worlds, hash, world);
	}
	if (world->tree != r->tree.addr || world->links != r->links.addr) {
		*world = (struct world){0};
		int error = sum_refs(n->store, r->tree, r->links, &world->sums);
		if (error != 0)
			return error;
		world->tree = r->tree.addr;
		world->links = r->links.addr;
	}
	add_sums(sums, world->sums.bytes, world->sums.blocks, world->sums.files);
	return 0;
}

static int take_dir(struct nested *n, const struct cow_record *r, struct below *to)
{
	struct sums *sums = &to->sums;
	int error = 0;

	if (r->is_world && r->totals.refs != 0 && r->backs == r->totals.refs)
		add_sums(sums, r->link_bytes, r->link_blocks, r->link_files);
	else if (r->is_world && r->totals.refs != 0)
		error = sum_world(n, r, sums);
	const struct below *below = r->totals.nested_refs != 0 ? cow_map_get(&n->trees, r->tree.addr) : NULL;
	if (below != NULL)
		add_sums(sums, below->sums.bytes, below->sums.blocks, below->sums.files);
	return error;
}

/* `to`: all trees below have been looked at; NULL: they have to be first. */
static int look(struct nested *n, struct cow_ptr tree, struct below *to)
{
	struct cow_cursor cursor;
	struct cow_dirent entry;
	struct cow_record r;
	int error;

	cow_cursor_open(&cursor, n->store, tree, COW_KIND_DIR);
	while ((error = cow_cursor_item(&cursor)) == 0 && cursor.at == COW_AT_ITEM) {
		bool is_dir = dir_of(&cursor, &entry, &r);
		if (is_dir && to != NULL)
			error = take_dir(n, &r, to);
		else if (is_dir && r.totals.nested_refs != 0 && !cow_ptr_is_null(r.tree))
			list_add(&n->list, (struct todo){.tree = r.tree});
		if (error != 0)
			break;
		cow_cursor_skip(&cursor);
	}
	cow_cursor_close(&cursor);
	return error;
}

static int run_list(struct nested *n)
{
	int error = 0;

	while (n->list.count > 0 && error == 0) {
		struct todo todo = n->list.items[--n->list.count];
		struct below *below = cow_map_get(&n->trees, todo.tree.addr);
		if (todo.leave != NULL) {
			error = look(n, todo.tree, todo.leave);
			todo.leave->done = true;
		} else if (below == NULL) {
			below = cow_mem_new(sizeof(*below));
			cow_map_put(&n->trees, todo.tree.addr, below);
			list_add(&n->list, (struct todo){todo.tree, below});
			error = look(n, todo.tree, NULL);
		} else if (!below->done) {
			error = COW_ERR_DAMAGED;
		}
	}
	return error;
}

static int sum_nested(struct cow_store *store, struct cow_ptr root, struct sums *sums)
{
	struct nested n = {.store = store};
	struct cow_map_slot *slot;
	int error;

	if (cow_ptr_is_null(root))
		return 0;
	list_add(&n.list, (struct todo){.tree = root});
	error = run_list(&n);
	if (error == 0) {
		const struct below *top = cow_map_get(&n.trees, root.addr);
		add_sums(sums, top->sums.bytes, top->sums.blocks, top->sums.files);
	}
	for (size_t i = 0; (slot = cow_map_each(&n.trees, &i)) != NULL;)
		free(slot->value);
	for (size_t i = 0; (slot = cow_map_each(&n.worlds, &i)) != NULL;)
		free(slot->value);
	cow_map_free(&n.trees);
	cow_map_free(&n.worlds);
	free(n.list.items);
	return error;
}

static void add_links(struct cow_usage *usage, uint64_t bytes, uint64_t blocks, uint64_t files)
{
	usage->apparent_bytes += bytes;
	usage->total_bytes += blocks * COW_BLOCK;
	usage->files += files;
}

static void add_totals(struct cow_usage *usage, const struct cow_totals *totals)
{
	usage->apparent_bytes += totals->bytes;
	usage->total_bytes += totals->blocks * COW_BLOCK;
	usage->files += totals->files;
	usage->directories += totals->dirs;
}

static void file_usage(struct cow_usage *usage, uint64_t size, uint64_t blocks)
{
	usage->files = 1;
	usage->apparent_bytes = size;
	usage->total_bytes = blocks * COW_BLOCK;
}

static int held_totals(const struct cow_holding *holding, struct cow_usage *usage)
{
	const struct cow_held *held = &holding->held[0];
	const struct cow_totals *totals = &held->record.totals;
	struct cow_store *store = holding->volume->store;
	struct sums sums = {0};
	int error = 0;

	if (!S_ISDIR(held->record.mode)) {
		file_usage(usage, held->record.size, held->record.blocks);
		return 0;
	}
	add_totals(usage, totals);
	if (totals->refs != 0 && totals->refs == held->refs && held->backs == held->refs)
		add_sums(&sums, held->link_bytes, held->link_blocks, held->link_files);
	else if (totals->refs != 0)
		error = sum_refs(store, held->record.tree, held->links.root, &sums);
	if (error == 0 && totals->nested_refs != 0)
		error = sum_nested(store, held->record.tree, &sums);
	add_links(usage, sums.bytes, sums.blocks, sums.files);
	return error;
}

/* ------------------------------------------------------------------ exclusive space */

/* State on the way down. */
struct way {
	bool shared;
	uint8_t slack;
};

/* Descends a tree to an item, whose value is copied; notes on the way whether a node is held by others too. Claims that
 * the dry run has met do not count. */
static int descend(struct cow_dryrun *d, struct cow_tree tree, uint64_t key, struct way *way, uint8_t *value,
		   uint32_t *length)
{
	struct cow_ptr ptr = tree.root;
	struct cow_node *node;
	uint32_t count;
	int level = -1;

	do {
		if (cow_ptr_is_null(ptr))
			return COW_ERR_DAMAGED;
		int error = cow_walk_count(d->store, ptr.addr, &count);
		if (error == 0)
			error = cow_walk_get(d->store, ptr, tree.kind, level, &node);
		if (error != 0)
			return error;
		count -= (uint32_t)cow_dryrun_met(d, ptr.addr);
		way->shared |= count > 1u + way->slack;
		way->slack = way->slack != 0 && count <= 1;
		int i = cow_node_find(node, key);
		level = cow_node_level(node) - 1;
		if (i < 0 || (level < 0 && cow_node_key(node, (unsigned)i) != key)) {
			cow_walk_put(d->store, node);
			return COW_ERR_DAMAGED;
		}
		if (level >= 0) {
			ptr = cow_inner_ptr(node, (unsigned)i);
		} else {
			uint8_t *bytes = cow_leaf_value(node, (unsigned)i, length);
			memcpy(value, bytes, *length);
		}
		cow_walk_put(d->store, node);
	} while (level >= 0);
	return 0;
}

/* Do all live names of a link row lie among `inside` that were met? */
static int all_inside(struct cow_store *store, const struct cow_held *held, const struct cow_link_row *row,
		      uint64_t inside)
{
	uint8_t *backs = NULL, value[COW_VALUE_MAX];
	uint64_t live = 0;
	int error = 0;

	if (row->backs > COW_BACKS_INLINE_MAX)
		error = cow_content_blob(store, row->back_tree, row->backs * 16, &backs);
	for (uint32_t i = 0; i < row->backs && error == 0; i++) {
		struct cow_back back = {get64((backs != NULL ? backs : row->back_bytes) + 16 * i), 0};
		unsigned steps = 0;
		while (back.dir != held->top && error == 0) {
			uint64_t found;
			uint32_t length;
			error = cow_walk_next(store, &held->links, back.dir, &found, value, &length);
			if (error == 0 && found != back.dir)
				error = -ENOENT;
			if (error == 0 && (cow_spine_row_decode(value, length, &back) != 0 || ++steps > CLIMB_MAX))
				error = COW_ERR_DAMAGED;
		}
		live += error == 0;
		error = error == -ENOENT ? 0 : error;
	}
	free(backs);
	return error != 0 ? error : live == inside;
}

/* From the volume's root to the entry; `world`: the state at the record of the innermost world above it. */
static int go_down(struct cow_dryrun *d, const struct cow_holding *h, struct way *way, struct way *world)
{
	const struct cow_held *held = &h->held[0];
	struct cow_tree tree = {h->top, COW_KIND_DIR};
	uint8_t value[COW_VALUE_MAX];
	struct cow_link_row row;
	struct cow_dirent entry;
	struct cow_record r;
	uint32_t length;

	*way = (struct way){.slack = h->claim_count != 0};
	*world = *way;
	for (size_t i = 0; i < held->way_count; i++) {
		int error = descend(d, tree, held->way[i], way, value, &length);
		if (error == 0)
			error = cow_dirent_decode(value, length, &entry);
		if (error == 0 && entry.is_link)
			error = COW_ERR_DAMAGED;
		if (error == 0)
			error = cow_record_decode(entry.record.bytes, entry.record.length, 0, &r);
		if (error != 0)
			return error;
		if (r.is_world)
			*world = *way;
		tree.root = r.tree;
	}
	if (held->link_key == 0)
		return 0;
	*way = *world;
	int error = descend(d, held->links, held->link_key, way, value, &length);
	if (error == 0)
		error = cow_link_row_decode(value, length, &row);
	if (error == 0) /* a name that goes frees nothing while there are others */
		error = all_inside(d->store, held, &row, 1);
	way->shared |= error == 0;
	return error > 0 ? 0 : error;
}

/* The hard-linked files below a directory that have no name elsewhere in its world. */
static int drop_links(struct cow_dryrun *d, const struct cow_held *held, struct way world)
{
	struct cow_map counts = {0};
	uint8_t value[COW_VALUE_MAX];
	struct cow_map_slot *slot;
	struct cow_link_row row;
	uint32_t length;
	int error = count_refs(d->store, held->record.tree, &counts);

	for (size_t i = 0; error == 0 && (slot = cow_map_each(&counts, &i)) != NULL;) {
		struct way way = world;
		error = descend(d, held->links, slot->key, &way, value, &length);
		if (error == 0)
			error = cow_link_row_decode(value, length, &row);
		if (error != 0 || way.shared)
			continue;
		error = all_inside(d->store, held, &row, (uint64_t)(uintptr_t)slot->value);
		if (error != 1)
			continue;
		d->slack = way.slack;
		cow_value_claims(COW_KIND_LINKS, value, length, &d->visitor);
		error = cow_dryrun_go(d);
	}
	cow_map_free(&counts);
	return error == -ENOENT ? COW_ERR_DAMAGED : error;
}

static int drop_record(struct cow_dryrun *d, const struct cow_holding *h)
{
	const struct cow_held *held = &h->held[0];
	const struct cow_record *r = &held->record;
	uint8_t bytes[COW_RECORD_MAX];
	struct way way, world;
	int error = go_down(d, h, &way, &world);

	if (error != 0)
		return error;
	if (!way.shared) {
		d->slack = way.slack;
		cow_record_claims(bytes, cow_record_encode(r, bytes), &d->visitor);
		error = cow_dryrun_go(d);
	}
	if (error != 0 || r->is_world || r->totals.refs == 0 || world.shared)
		return error;
	if (r->totals.refs != held->refs)
		return drop_links(d, held, world);
	/* The last references of its world: links goes as a whole. */
	cow_ptr_put(bytes, held->links.root);
	d->slack = world.slack;
	d->visitor.tree(&d->visitor, bytes, COW_KIND_LINKS);
	return cow_dryrun_go(d);
}

static int held_exclusive(const struct cow_holding *h, struct cow_usage *usage)
{
	struct cow_dryrun d;
	int error;

	cow_dryrun_begin(&d, h->volume->store);
	error = drop_record(&d, h);
	usage->exclusive_bytes = d.blocks * COW_BLOCK;
	if (error == 0)
		error = d.error;
	cow_dryrun_end(&d);
	return error;
}

/* ------------------------------------------------------------------ the call */

struct live_args {
	struct cow_inode *inode;
	struct cow_usage *usage;
	bool known;
};

/* What records in memory say, if they say all: no look at the disk, no commit. */
static int live_body(struct cow_op *op, void *args)
{
	struct live_args *a = args;
	struct cow_inode *i = a->inode;
	int error = cow_inode_check_live(i);

	(void)op;
	if (error != 0)
		return error;
	*a->usage = (struct cow_usage){0};
	a->known = true;
	if (!cow_inode_is_dir(i)) {
		file_usage(a->usage, i->size, i->blocks);
		return 0;
	}
	add_totals(a->usage, &i->totals);
	a->known = i->totals.nested_refs == 0;
	if (i->totals.refs == 0 || !a->known)
		return 0;
	const struct cow_inode *world = cow_inode_world(i);
	if (i->totals.refs == world->totals.refs && !cow_link_has_garbage(world))
		add_links(a->usage, world->link_bytes, world->link_blocks, world->link_files);
	else
		a->known = false;
	return 0;
}

int cow_usage(struct cow_inode *inode, bool with_exclusive, struct cow_usage *usage)
{
	struct live_args args = {inode, usage, false};
	struct cow_holding holding;
	int error = cow_volume_place(inode->volume, 0); /* so that what is still buffered has its blocks counted */

	if (error == 0 || error == -ENOSPC)
		error = cow_op_read(inode->volume, live_body, &args);
	if (error != 0 || (args.known && !with_exclusive))
		return error;
	if (with_exclusive) { /* what was removed before ought not to make anything look shared */
		error = cow_volume_reclaim(inode->volume, RECLAIM_STEPS);
		if (error < 0)
			return error;
	}
	error = cow_holding_take(&holding, &inode, 1);
	if (error != 0)
		return error;
	*usage = (struct cow_usage){0};
	error = held_totals(&holding, usage);
	if (error == 0 && with_exclusive)
		error = held_exclusive(&holding, usage);
	cow_holding_give(&holding);
	return error;
}
