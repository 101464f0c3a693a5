/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store/cursor.h"

#include <assert.h>
#include <string.h>

#include "cow.h"

/* Leaves nodes that are exhausted, and says what comes next. */
static void look(struct cow_cursor *c)
{
	while (c->depth > 0 && c->frames[c->depth - 1].index >= cow_node_items(c->frames[c->depth - 1].node))
		cow_walk_put(c->store, c->frames[--c->depth].node);
	if (c->depth == 0) {
		c->at = c->at_root ? COW_AT_CHILD : COW_AT_END;
		c->key = 0;
		c->child = c->root;
		c->level = COW_LEVEL_MAX;
		return;
	}
	struct cow_node *node = c->frames[c->depth - 1].node;
	unsigned index = c->frames[c->depth - 1].index;
	c->key = cow_node_key(node, index);
	if (cow_node_level(node) == 0) {
		c->at = COW_AT_ITEM;
		c->value = cow_leaf_value(node, index, &c->length);
		return;
	}
	c->at = COW_AT_CHILD;
	c->child = cow_inner_ptr(node, index);
	c->level = cow_node_level(node) - 1;
}

void cow_cursor_open(struct cow_cursor *c, struct cow_store *store, struct cow_ptr root, uint8_t kind)
{
	*c = (struct cow_cursor){.store = store, .kind = kind, .root = root, .at_root = !cow_ptr_is_null(root)};
	look(c);
}

void cow_cursor_close(struct cow_cursor *c)
{
	while (c->depth > 0)
		cow_walk_put(c->store, c->frames[--c->depth].node);
	c->at_root = false;
	c->at = COW_AT_END;
}

int cow_cursor_enter(struct cow_cursor *c)
{
	struct cow_keys keys = COW_KEYS_ALL;
	struct cow_node *node;
	int error;

	assert(c->at == COW_AT_CHILD);
	if (c->depth > 0)
		keys = cow_keys_below(&c->frames[c->depth - 1].keys, c->frames[c->depth - 1].node,
				      c->frames[c->depth - 1].index);
	error = cow_walk_get(c->store, c->child, c->kind, c->level == COW_LEVEL_MAX ? -1 : c->level, &node);
	if (error != 0)
		return error;
	error = cow_node_expect(c->store, node, &keys);
	if (error != 0) {
		cow_walk_put(c->store, node);
		return error;
	}
	if (c->depth > 0)
		c->frames[c->depth - 1].index++;
	c->at_root = false;
	assert(c->depth < COW_LEVEL_MAX);
	c->frames[c->depth].node = node;
	c->frames[c->depth].keys = keys;
	c->frames[c->depth++].index = 0;
	look(c);
	return 0;
}

void cow_cursor_skip(struct cow_cursor *c)
{
	assert(c->at != COW_AT_END);
	if (c->depth > 0)
		c->frames[c->depth - 1].index++;
	c->at_root = false;
	look(c);
}

int cow_cursor_item(struct cow_cursor *c)
{
	int error = 0;

	while (c->at == COW_AT_CHILD && error == 0)
		error = cow_cursor_enter(c);
	return error;
}

/* Of two children that are not the same, the one to go into: the higher, or of one height the one that begins
 * lower. Both trees are so brought to the same place, where equal nodes meet again. */
static struct cow_cursor *choose(struct cow_cursor *a, struct cow_cursor *b)
{
	if (a->level != b->level)
		return a->level > b->level ? a : b;
	return a->key <= b->key ? a : b;
}

int cow_cursor_align(struct cow_cursor *a, struct cow_cursor *b, bool skip)
{
	int error = 0;

	while (error == 0) {
		if (a->at == COW_AT_CHILD && b->at == COW_AT_CHILD) {
			if (skip && cow_ptr_equal(a->child, b->child)) {
				cow_cursor_skip(a);
				cow_cursor_skip(b);
			} else {
				error = cow_cursor_enter(choose(a, b));
			}
		} else if (a->at == COW_AT_CHILD && (b->at == COW_AT_END || a->key <= b->key)) {
			error = cow_cursor_enter(a);
		} else if (b->at == COW_AT_CHILD && (a->at == COW_AT_END || b->key <= a->key)) {
			error = cow_cursor_enter(b);
		} else {
			return a->at != COW_AT_END || b->at != COW_AT_END;
		}
	}
	return error;
}

static int step(struct cow_cursor *a, struct cow_cursor *b, cow_cursor_fn fn, void *context)
{
	bool has_a = a->at == COW_AT_ITEM && (b->at == COW_AT_END || a->key <= b->key);
	bool has_b = b->at == COW_AT_ITEM && (a->at == COW_AT_END || b->key <= a->key);
	int result = 0;

	if (!(has_a && has_b && a->length == b->length && memcmp(a->value, b->value, a->length) == 0))
		result = fn(context, has_a ? a : NULL, has_b ? b : NULL);
	if (has_a)
		cow_cursor_skip(a);
	if (has_b)
		cow_cursor_skip(b);
	return result;
}

int cow_cursor_compare(struct cow_store *store, struct cow_ptr a_root, struct cow_ptr b_root, uint8_t kind,
		       cow_cursor_fn fn, void *context)
{
	struct cow_cursor a, b;
	int result;

	cow_cursor_open(&a, store, a_root, kind);
	cow_cursor_open(&b, store, b_root, kind);
	while ((result = cow_cursor_align(&a, &b, true)) == 1)
		if ((result = step(&a, &b, fn, context)) != 0)
			break;
	cow_cursor_close(&a);
	cow_cursor_close(&b);
	return result;
}
