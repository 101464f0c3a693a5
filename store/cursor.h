/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A cursor over a sealed tree that can step over a whole sub-tree without looking into it: what lets two related trees
 * be compared in O(what differs). Not locked; the tree must be held, as a snapshot of the layer above does.
 * Nodes on the way are pinned.
 */
#ifndef COW_STORE_CURSOR_H
#define COW_STORE_CURSOR_H

#include "store/walk.h"

enum cow_at { COW_AT_END, COW_AT_CHILD, COW_AT_ITEM };

struct cow_cursor {
	struct cow_store *store;
	uint8_t kind;
	struct cow_ptr root;
	bool at_root; /* the root has not been looked into */
	int depth;    /* frames */
	struct {
		struct cow_node *node;
		unsigned index;
		struct cow_keys keys;
	} frames[COW_LEVEL_MAX];
	/* what it is at */
	enum cow_at at;
	uint64_t key;         /* CHILD: no key in the sub-tree is lower; ITEM: its key */
	struct cow_ptr child; /* CHILD */
	int level;            /* CHILD: of its node; the root's is not known: COW_LEVEL_MAX */
	uint8_t *value;       /* ITEM: valid until the cursor moves */
	uint32_t length;
};

void cow_cursor_open(struct cow_cursor *cursor, struct cow_store *store, struct cow_ptr root, uint8_t kind);
void cow_cursor_close(struct cow_cursor *cursor);
/* CHILD: goes in, to its first item or child. -- -EIO, COW_ERR_DAMAGED */
int cow_cursor_enter(struct cow_cursor *cursor);
/* Steps over the child or item. */
void cow_cursor_skip(struct cow_cursor *cursor);
/* Enters until it is at an item, or at the end. */
int cow_cursor_item(struct cow_cursor *cursor);

/*
 * Of two trees, everything that is not in both with equal bytes, by ascending key: a or b is NULL (COW_AT_ITEM of the
 * other), or both are at items of the same key. fn may return non-zero to stop; it is then returned.
 */
typedef int (*cow_cursor_fn)(void *context, const struct cow_cursor *a, const struct cow_cursor *b);
int cow_cursor_compare(struct cow_store *store, struct cow_ptr a, struct cow_ptr b, uint8_t kind, cow_cursor_fn fn,
		       void *context);
/* Puts two cursors where something may differ: both at items, or one at the end, or one at an item below whatever
 * the other is at. Equal sub-trees are skipped if `skip`. 1: so; 0: both at the end; or an error. */
int cow_cursor_align(struct cow_cursor *a, struct cow_cursor *b, bool skip);

#endif
