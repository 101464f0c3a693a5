/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/radix.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/mem.h"

#define BITS 6u
#define HEIGHT_MAX 11u /* 64 bits */

struct node {
	uint64_t present; /* a bit for each slot */
	void *slots[1u << BITS];
};

/* Of nodes with `height` levels below their own top: the slot that a key goes through. */
static unsigned slot_of(uint64_t key, unsigned height)
{
	return key >> (BITS * (height - 1)) & ((1u << BITS) - 1);
}

static bool reaches(const struct cow_radix *tree, uint64_t key)
{
	return tree->height == HEIGHT_MAX || key >> (BITS * tree->height) == 0;
}

static uint64_t bit(unsigned slot)
{
	return 1ull << slot;
}

void *cow_radix_get(const struct cow_radix *tree, uint64_t key)
{
	void *at = reaches(tree, key) ? tree->root : NULL;

	for (unsigned height = tree->height; height > 0 && at != NULL; height--)
		at = ((struct node *)at)->slots[slot_of(key, height)];
	return at;
}

static void grow(struct cow_radix *tree)
{
	if (tree->root != NULL) {
		struct node *node = cow_mem_new(sizeof(*node));

		node->present = bit(0);
		node->slots[0] = tree->root;
		tree->root = node;
	}
	tree->height++;
}

void *cow_radix_put(struct cow_radix *tree, uint64_t key, void *item)
{
	void **at = &tree->root, *old;

	while (!reaches(tree, key))
		grow(tree);
	for (unsigned height = tree->height; height > 0; height--) {
		struct node *node = *at != NULL ? *at : cow_mem_new(sizeof(*node));
		unsigned slot = slot_of(key, height);

		*at = node;
		node->present |= bit(slot);
		at = &node->slots[slot];
	}
	old = *at;
	*at = item;
	tree->count += old == NULL;
	return old;
}

/* As low as the keys that are left allow. */
static void shrink(struct cow_radix *tree)
{
	while (tree->height > 0 && tree->root != NULL) {
		struct node *node = tree->root;

		if (node->present != bit(0))
			return;
		tree->root = node->slots[0];
		tree->height--;
		free(node);
	}
	if (tree->root == NULL)
		tree->height = 0;
}

void *cow_radix_remove(struct cow_radix *tree, uint64_t key)
{
	void **path[HEIGHT_MAX + 1], *item; /* path[h]: where what has h levels hangs */
	unsigned height = tree->height;

	if (cow_radix_get(tree, key) == NULL)
		return NULL;
	path[height] = &tree->root;
	for (; height > 0; height--)
		path[height - 1] = &((struct node *)*path[height])->slots[slot_of(key, height)];
	item = *path[0];
	*path[0] = NULL;
	for (height = 1; height <= tree->height; height++) {
		struct node *node = *path[height];

		node->present &= ~bit(slot_of(key, height));
		if (node->present != 0)
			break;
		free(node);
		*path[height] = NULL;
	}
	tree->count--;
	shrink(tree);
	return item;
}

void *cow_radix_next(const struct cow_radix *tree, uint64_t *key)
{
	void *at = tree->root;
	unsigned height = tree->height;

	if (!reaches(tree, *key))
		return NULL;
	while (height > 0 && at != NULL) {
		struct node *node = at;
		unsigned slot = slot_of(*key, height);
		uint64_t behind = node->present & ~(bit(slot) - 1);
		unsigned found = behind != 0 ? (unsigned)__builtin_ctzll(behind) : slot;

		if (behind == 0) { /* on behind all that is below this node, from the top */
			if (height == tree->height)
				return NULL;
			*key = ((*key >> (BITS * height)) + 1) << (BITS * height);
			if (!reaches(tree, *key) || *key == 0)
				return NULL;
			height = tree->height;
			at = tree->root;
			continue;
		}
		if (found != slot) /* its lowest key */
			*key = ((*key >> (BITS * (height - 1))) + found - slot) << (BITS * (height - 1));
		at = node->slots[found];
		height--;
	}
	return at;
}

static void free_node(void *at, unsigned height)
{
	struct node *node = at;

	if (height == 0)
		return;
	for (uint64_t left = node->present; left != 0; left &= left - 1)
		free_node(node->slots[__builtin_ctzll(left)], height - 1);
	free(node);
}

void cow_radix_free(struct cow_radix *tree)
{
	if (tree->root != NULL)
		free_node(tree->root, tree->height);
	*tree = (struct cow_radix){0};
}
