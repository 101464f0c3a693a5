/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/reclaim/census.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "fs/format/record.h"
#include "store/tree.h"

#define REFS_A_BLOCK (COW_BLOCK / 16) /* more than fit */

/* An explicit stack, because nesting has no limit. */
static void push(struct cow_census *c, struct cow_census_dir dir)
{
	if (c->depth == c->size) {
		c->size = c->size != 0 ? 2 * c->size : 16;
		c->stack = cow_mem_resize(c->stack, c->size * sizeof(*c->stack));
	}
	c->stack[c->depth++] = dir;
}

/* The next directory. 0 or COW_ERR_DAMAGED. */
static int pop(struct cow_census *c)
{
	c->now = c->stack[--c->depth];
	c->at = 0;
	if (cow_map_get(&c->entered, c->now.root.addr) != NULL)
		return COW_ERR_DAMAGED;
	cow_map_put(&c->entered, c->now.root.addr, c);
	return 0;
}

static int begin(struct cow_census *c, const struct cow_store *store, struct cow_census_dir top)
{
	cow_census_free(c);
	c->top = top.root;
	if (top.refs / REFS_A_BLOCK > store->total_blocks)
		return COW_ERR_DAMAGED;
	push(c, top);
	return pop(c);
}

/* Is it as it was when it was begun? What hangs from a root that is not dirty never changes; of others nobody knows. */
static bool is_valid(const struct cow_census *c, struct cow_ptr top)
{
	return c->stack != NULL && !cow_ptr_is_dirty(top) && cow_ptr_equal(c->top, top);
}

static bool spend(struct cow_census *c, uint64_t refs)
{
	if (c->now.refs < refs)
		return false;
	c->now.refs -= refs;
	return true;
}

/* Counts one entry of the directory. 0 or COW_ERR_DAMAGED: it says too little. */
static int count(struct cow_census *c, const struct cow_item *item)
{
	struct cow_dirent entry;
	struct cow_record r;
	int error = cow_dirent_decode(item->value, item->length, &entry);

	assert(error == 0);
	if (entry.is_link) {
		uintptr_t n = (uintptr_t)cow_map_get(&c->counts, entry.link_key);
		cow_map_put(&c->counts, entry.link_key, (void *)(n + 1));
		return spend(c, 1) ? 0 : COW_ERR_DAMAGED;
	}
	error = cow_record_decode(entry.record.bytes, entry.record.length, 0, &r);
	assert(error == 0);
	if (!S_ISDIR(r.mode) || r.is_world || r.totals.refs == 0)
		return 0;
	if (!spend(c, r.totals.refs))
		return COW_ERR_DAMAGED;
	push(c, (struct cow_census_dir){r.tree, r.totals.refs});
	return 0;
}

int cow_census_take(struct cow_census *c, const struct cow_inode *dir)
{
	struct cow_store *store = dir->volume->store;
	struct cow_tree tree = {.kind = COW_KIND_DIR};
	struct cow_item item;
	int error = 0;

	if (!is_valid(c, dir->tree.root)) {
		dir->volume->censuses++;
		error = begin(c, store, (struct cow_census_dir){dir->tree.root, dir->totals.refs});
	}
	while (error == 0) {
		tree.root = c->now.root;
		error = cow_tree_next(store, &tree, c->at, &item);
		if (error == 0) {
			error = count(c, &item);
			c->at = item.key + 1;
		} else if (error == -ENOENT) {
			if (c->depth == 0)
				return 0;
			error = pop(c);
		}
	}
	return error;
}

void cow_census_free(struct cow_census *c)
{
	cow_map_free(&c->counts);
	cow_map_free(&c->entered);
	free(c->stack);
	*c = (struct cow_census){0};
}
