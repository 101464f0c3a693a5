/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/reclaim/garbage.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "store/cursor.h"
#include "fs/commit/snapshot.h"

#define ROUNDS 8u

struct cow_garbage_links { /* of one or several worlds with garbage */
	struct cow_ptr root;
	struct cow_ways_tree **in; /* trees with the entries of these worlds */
	size_t in_count, in_size;
	uint64_t ways;
	bool kept;
};

struct cow_garbage_todo { /* a directory tree that is to be looked at */
	struct cow_ptr root;
	struct cow_ways_tree *tree;
	bool names; /* it is in a world with garbage */
};

/* Of a directory tree: looked at outside of worlds with garbage, and inside. */
enum { LOOKED = 1, LOOKED_FOR_NAMES = 2 };

struct node { /* of links */
	bool kept, collected;
	unsigned dropped, judged; /* in this round */
	/* with what is below it: */
	bool changes, stays;
	uint64_t copies; /* nodes that change and stay: one each for every way */
	uint64_t gain;   /* blocks of content in records that go */
};

/* ------------------------------------------------------------------ nodes of links */

static struct node *node_at(struct cow_garbage *g, uint64_t block)
{
	struct node *n = cow_map_get(&g->nodes, block);

	if (n == NULL) {
		n = cow_mem_new(sizeof(*n));
		cow_map_put(&g->nodes, block, n);
	}
	return n;
}

/* No deeper than a tree is high. */
typedef int (*node_fn)(struct cow_garbage *g, struct cow_ptr ptr, int level);

static int each_child(struct cow_garbage *g, struct cow_node *node, node_fn fn)
{
	int error = 0;

	for (unsigned i = 0; i < cow_node_items(node) && error == 0; i++)
		error = fn(g, cow_inner_ptr(node, i), cow_node_level(node) - 1);
	return error;
}

/* This node and all below it stay as they are: somebody needs them. Level -1: not known. */
static int keep(struct cow_garbage *g, struct cow_ptr ptr, int level)
{
	struct node *n = node_at(g, ptr.addr);
	struct cow_node *node;
	int error;

	if (n->kept)
		return 0;
	n->kept = true;
	error = level == 0 ? 0 : cow_walk_get(g->store, ptr, COW_KIND_LINKS, level, &node);
	if (error == 0 && level != 0) {
		if (cow_node_level(node) > 0)
			error = each_child(g, node, keep);
		cow_walk_put(g->store, node);
	}
	return cow_is_damage(error) ? 0 : error;
}

static bool may_go(const struct cow_garbage *g, uint64_t key)
{
	return cow_map_get(&g->named, key) == NULL;
}

/* The dry run: all records that may go, from each node once. */
static int drop(struct cow_garbage *g, struct cow_ptr ptr, int level)
{
	struct node *n = node_at(g, ptr.addr);
	struct cow_link_row row;
	struct cow_node *node;
	int error;

	if (n->kept || n->dropped == g->round)
		return 0;
	n->dropped = g->round;
	error = cow_walk_get(g->store, ptr, COW_KIND_LINKS, level, &node);
	if (error != 0)
		return cow_is_damage(error) ? 0 : error;
	if (cow_node_level(node) > 0)
		error = each_child(g, node, drop);
	for (unsigned i = 0; cow_node_level(node) == 0 && i < cow_node_items(node) && error == 0; i++) {
		uint32_t length;
		uint8_t *value = cow_leaf_value(node, i, &length);

		if (!may_go(g, cow_node_key(node, i)) || cow_link_row_decode(value, length, &row) != 0)
			continue;
		g->dry.slack = 0;
		cow_value_claims(COW_KIND_LINKS, value, length, &g->dry.visitor);
		error = cow_dryrun_go(&g->dry);
		if (cow_is_damage(error)) { /* reported when it was read; what is below it does not count */
			g->dry.error = error = 0;
			g->dry.count = 0;
		}
	}
	cow_walk_put(g->store, node);
	return error;
}

/* ------------------------------------------------------------------ what it gives */

struct content { /* of a record */
	struct cow_claims visitor;
	struct cow_dryrun *dry;
	bool any, all_free;
};

static void content_tree(struct cow_claims *self, uint8_t *bytes, uint8_t kind)
{
	struct content *c = (struct content *)self;
	struct cow_ptr ptr = cow_ptr_get(bytes);

	(void)kind;
	if (cow_ptr_is_null(ptr))
		return;
	c->any = true;
	c->all_free &= cow_map_get(&c->dry->entered, ptr.addr) != NULL;
}

static void content_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	struct content *c = (struct content *)self;

	(void)length;
	c->any = true;
	c->all_free &= cow_dryrun_is_free(c->dry, block);
}

/* Blocks that the record holds alone. */
static uint64_t gain_of(struct cow_garbage *g, uint8_t *value, uint32_t length, const struct cow_link_row *row)
{
	struct content content = {{content_tree, content_run}, &g->dry, false, true};
	struct cow_record r;
	int error;

	cow_value_claims(COW_KIND_LINKS, value, length, &content.visitor);
	if (!content.any || !content.all_free)
		return 0;
	error = cow_record_decode(row->record.bytes, row->record.length, 0, &r);
	assert(error == 0);
	return r.blocks + 1;
}

static void judge_leaf(struct cow_garbage *g, struct node *n, struct cow_node *leaf)
{
	unsigned go = 0;

	for (unsigned i = 0; i < cow_node_items(leaf); i++) {
		struct cow_link_row row;
		uint32_t length;
		uint8_t *value = cow_leaf_value(leaf, i, &length);

		if (!may_go(g, cow_node_key(leaf, i)))
			continue;
		go++;
		if (cow_link_row_decode(value, length, &row) == 0)
			n->gain += gain_of(g, value, length, &row);
	}
	n->changes = n->gain != 0 || go == cow_node_items(leaf);
	n->stays = !n->changes || go < cow_node_items(leaf);
}

static int judge(struct cow_garbage *g, struct cow_ptr ptr, int level)
{
	struct node *n = node_at(g, ptr.addr);
	struct cow_node *node;
	int error;

	if (n->judged == g->round)
		return 0;
	*n = (struct node){.kept = n->kept, .dropped = n->dropped, .judged = g->round, .stays = true};
	if (n->kept)
		return 0;
	error = cow_walk_get(g->store, ptr, COW_KIND_LINKS, level, &node);
	if (error != 0)
		return cow_is_damage(error) ? 0 : error;
	if (cow_node_level(node) == 0) {
		judge_leaf(g, n, node);
	} else {
		error = each_child(g, node, judge);
		n->stays = false;
		for (unsigned i = 0; i < cow_node_items(node); i++) {
			const struct node *child = node_at(g, cow_inner_ptr(node, i).addr);
			n->changes |= child->changes;
			n->stays |= child->stays;
			n->copies += child->copies;
			n->gain += child->gain;
		}
	}
	cow_walk_put(g->store, node);
	if (n->changes) { /* this node is freed, and where it stays, copied */
		n->gain++;
		n->copies += n->stays;
		g->freed++;
	}
	return error != 0 ? error : g->dry.error;
}

static void add_key(struct cow_garbage *g, uint64_t key)
{
	if (g->key_count == g->key_size) {
		g->key_size = g->key_size != 0 ? 2 * g->key_size : 256;
		g->keys = cow_mem_resize(g->keys, g->key_size * sizeof(*g->keys));
	}
	g->keys[g->key_count++] = key;
}

static int key_order(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* The keys of all that may go from leaves that change. */
static int collect(struct cow_garbage *g, struct cow_ptr ptr, int level)
{
	struct node *n = node_at(g, ptr.addr);
	struct cow_node *node;
	int error;

	if (n->kept || !n->changes || n->collected)
		return 0;
	n->collected = true;
	error = cow_walk_get(g->store, ptr, COW_KIND_LINKS, level, &node);
	if (error != 0)
		return cow_is_damage(error) ? 0 : error;
	if (cow_node_level(node) > 0)
		error = each_child(g, node, collect);
	for (unsigned i = 0; cow_node_level(node) == 0 && i < cow_node_items(node); i++)
		if (may_go(g, cow_node_key(node, i)))
			add_key(g, cow_node_key(node, i));
	cow_walk_put(g->store, node);
	return error;
}

/* ------------------------------------------------------------------ directories */

static struct cow_garbage_links *links_of(struct cow_garbage *g, struct cow_ptr root)
{
	size_t i = (uintptr_t)cow_map_get(&g->links, root.addr);

	if (i == 0) {
		if (g->count == g->size) {
			g->size = g->size != 0 ? 2 * g->size : 64;
			g->list = cow_mem_resize(g->list, g->size * sizeof(*g->list));
		}
		g->list[g->count++] = (struct cow_garbage_links){.root = root};
		i = g->count;
		cow_map_put(&g->links, root.addr, (void *)(uintptr_t)i);
	}
	return &g->list[i - 1];
}

static void add_world(struct cow_garbage *g, struct cow_ptr root, struct cow_ways_tree *in)
{
	struct cow_garbage_links *links = links_of(g, root);

	if (links->in_count == links->in_size) {
		links->in_size = links->in_size != 0 ? 2 * links->in_size : 4;
		links->in = cow_mem_resize(links->in, links->in_size * sizeof(*links->in));
	}
	links->in[links->in_count++] = in;
}

static void push(struct cow_garbage *g, struct cow_garbage_todo todo)
{
	if (g->todo_count == g->todo_size) {
		g->todo_size = g->todo_size != 0 ? 2 * g->todo_size : 64;
		g->todo = cow_mem_resize(g->todo, g->todo_size * sizeof(*g->todo));
	}
	g->todo[g->todo_count++] = todo;
}

/* Links are kept unless their world has garbage. */
static int add_links(struct cow_garbage *g, struct cow_ptr links, bool garbage, struct cow_ways_tree *in)
{
	if (cow_ptr_is_null(links))
		return 0;
	if (!garbage)
		return keep(g, links, -1);
	add_world(g, links, in);
	return 0;
}

/* A directory in the tree that is being looked at, which has or leads to references. */
static int look_at_dir(struct cow_garbage *g, const struct cow_garbage_todo *in, bool is_first,
		       const struct cow_record *r)
{
	struct cow_ways_tree *tree = cow_map_get(&g->trees, r->tree.addr);
	bool names = r->is_world ? r->backs > r->totals.refs : in->names;
	int error = is_first && r->is_world ? add_links(g, r->links, names, in->tree) : 0;

	if (tree == NULL)
		tree = cow_ways_add(&g->trees, r->tree.addr);
	if (is_first)
		cow_ways_join(in->tree, tree);
	if (names && r->totals.refs != 0)
		cow_map_put(&g->named, r->number, g);
	if ((tree->mark & (names ? LOOKED_FOR_NAMES : LOOKED)) == 0)
		push(g, (struct cow_garbage_todo){r->tree, tree, names});
	return error;
}

static int look_at(struct cow_garbage *g, const struct cow_garbage_todo *todo)
{
	unsigned mark = todo->names ? LOOKED_FOR_NAMES : LOOKED;
	bool is_first = todo->tree->mark == 0;
	struct cow_cursor cursor;
	struct cow_dirent entry;
	struct cow_record r;
	int error;

	if ((todo->tree->mark & mark) != 0)
		return 0;
	todo->tree->mark |= mark;
	cow_cursor_open(&cursor, g->store, todo->root, COW_KIND_DIR);
	while ((error = cow_cursor_item(&cursor)) == 0 && cursor.at == COW_AT_ITEM) {
		error = cow_dirent_decode(cursor.value, cursor.length, &entry);
		assert(error == 0);
		if (entry.is_link) {
			if (todo->names)
				cow_map_put(&g->named, entry.link_key, g);
		} else {
			error = cow_record_decode(entry.record.bytes, entry.record.length, 0, &r);
			assert(error == 0);
			if (S_ISDIR(r.mode) && !cow_ptr_is_null(r.tree) && (r.totals.refs | r.totals.nested_refs) != 0)
				error = look_at_dir(g, todo, is_first, &r);
		}
		if (error != 0)
			break;
		cow_cursor_skip(&cursor);
	}
	cow_cursor_close(&cursor);
	return cow_is_damage(error) ? 0 : error; /* what is below a damaged directory keeps its garbage */
}

static int look_at_all(struct cow_garbage *g, const struct cow_holding *h)
{
	const struct cow_held *root = &h->held[0];
	struct cow_ways_tree *top = cow_ways_add(&g->trees, 0);
	bool garbage = root->backs > root->refs;
	int error = add_links(g, root->links.root, garbage, top);

	push(g, (struct cow_garbage_todo){root->record.tree, top, garbage});
	while (g->todo_count > 0 && error == 0) {
		struct cow_garbage_todo todo = g->todo[--g->todo_count];
		error = look_at(g, &todo);
	}
	return error;
}

/* ------------------------------------------------------------------ the decision */

static int for_all(struct cow_garbage *g, node_fn fn)
{
	int error = 0;

	for (size_t i = 0; i < g->count && error == 0; i++)
		if (!g->list[i].kept)
			error = fn(g, g->list[i].root, -1);
	return error;
}

static int keep_links(struct cow_garbage *g, struct cow_garbage_links *links)
{
	links->kept = true;
	return keep(g, links->root, -1);
}

static uint64_t cost_of(struct cow_garbage *g, const struct cow_garbage_links *links)
{
	uint64_t copies = node_at(g, links->root.addr)->copies;

	return copies > UINT64_MAX / COW_WAYS_MANY / 2 ? UINT64_MAX / 2 : links->ways * copies;
}

/* Keeps links for which it takes more than it can give. 1: there were some; 0; or an error. */
static int keep_unworthy(struct cow_garbage *g)
{
	bool any = false;
	int error = 0;

	for (size_t i = 0; i < g->count && error == 0; i++) {
		struct cow_garbage_links *links = &g->list[i];
		const struct node *n = node_at(g, links->root.addr);

		if (links->kept || (n->changes && links->ways < COW_WAYS_MANY && cost_of(g, links) < n->gain))
			continue;
		any = true;
		error = keep_links(g, links);
	}
	return error != 0 ? error : any;
}

/* Nodes that all ways together need: of links, and of directories on the way to them. Adds to what is freed, too. */
static uint64_t cost_of_all(struct cow_garbage *g, struct cow_ways_tree *known)
{
	uint64_t cost = 0, freed;

	for (struct cow_ways_tree *tree = known; tree != NULL; tree = tree->next)
		tree->wanted = false;
	for (size_t i = 0; i < g->count; i++) {
		const struct cow_garbage_links *links = &g->list[i];

		if (links->kept)
			continue;
		cost += cost_of(g, links);
		for (size_t k = 0; k < links->in_count; k++)
			links->in[k]->wanted = true;
	}
	cost += cow_ways_lead(known, &freed);
	g->freed += freed;
	return cost;
}

static int keep_dearest(struct cow_garbage *g)
{
	struct cow_garbage_links *dearest = NULL;

	for (size_t i = 0; i < g->count; i++)
		if (!g->list[i].kept && (dearest == NULL || cost_of(g, &g->list[i]) > cost_of(g, dearest)))
			dearest = &g->list[i];
	return dearest != NULL ? keep_links(g, dearest) : 0;
}

/* One round: 1 when it is clear that it is worth it, 0 if not yet. */
static int weigh(struct cow_garbage *g, struct cow_ways_tree *known, uint64_t room)
{
	uint64_t cost;
	int more = for_all(g, drop);

	g->freed = 0;
	if (more == 0)
		more = for_all(g, judge);
	if (more == 0)
		more = keep_unworthy(g);
	if (more != 0)
		return more < 0 ? more : 0;
	cost = cost_of_all(g, known);
	if (cost < g->dry.blocks + g->freed && cost <= room)
		return 1;
	return keep_dearest(g);
}

static bool any_left(const struct cow_garbage *g)
{
	for (size_t i = 0; i < g->count; i++)
		if (!g->list[i].kept)
			return true;
	return false;
}

static int decide(struct cow_garbage *g, uint64_t room)
{
	struct cow_ways_tree *known = cow_ways_count(cow_map_get(&g->trees, 0));
	int worth = 0;

	for (size_t i = 0; i < g->count; i++)
		for (size_t k = 0; k < g->list[i].in_count; k++) {
			const struct cow_ways_tree *in = g->list[i].in[k];
			g->list[i].ways = cow_ways_sum(g->list[i].ways, in->known ? in->ways : COW_WAYS_MANY);
		}
	for (g->round = 1; g->round <= ROUNDS && worth == 0 && any_left(g); g->round++) {
		cow_dryrun_begin(&g->dry, g->store);
		worth = weigh(g, known, room);
		cow_dryrun_end(&g->dry);
	}
	if (worth == 1) {
		int error = for_all(g, collect);
		if (error != 0)
			return error;
		if (g->key_count == 0) /* totals that say what is not so */
			return 0;
		qsort(g->keys, g->key_count, sizeof(*g->keys), key_order);
	}
	return worth;
}

/* ------------------------------------------------------------------ the calls */

int cow_garbage_find(struct cow_garbage *g, struct cow_volume *volume, uint64_t room)
{
	struct cow_holding holding;
	struct cow_inode *root;
	int result = cow_root(volume, &root);

	g->store = volume->store;
	if (result == 0)
		result = cow_holding_take(&holding, &root, 1);
	cow_forget(root, 1);
	if (result == 0) {
		result = look_at_all(g, &holding);
		if (result == 0 && g->count != 0)
			result = decide(g, room);
		cow_holding_give(&holding);
	}
	return cow_is_damage(result) ? 0 : result; /* reported when it was read */
}

bool cow_garbage_purges(const struct cow_garbage *g, uint64_t root)
{
	size_t i = (uintptr_t)cow_map_get(&g->links, root);

	return i != 0 && !g->list[i - 1].kept;
}

bool cow_garbage_next(const struct cow_garbage *g, uint64_t *key)
{
	size_t low = 0, high = g->key_count; /* the first that is not lower is in [low, high] */

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (g->keys[middle] < *key)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == g->key_count)
		return false;
	*key = g->keys[low];
	return true;
}

void cow_garbage_free(struct cow_garbage *g)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(&g->nodes, &i)) != NULL;)
		free(slot->value);
	for (size_t i = 0; i < g->count; i++)
		free(g->list[i].in);
	cow_ways_free(&g->trees);
	cow_map_free(&g->links);
	cow_map_free(&g->named);
	cow_map_free(&g->nodes);
	free(g->list);
	free(g->todo);
	free(g->keys);
	*g = (struct cow_garbage){0};
}
