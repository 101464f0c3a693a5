/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Blobs: xattr lists, targets of symbolic links, back-references. They are small and change as a whole, so a change
 * builds a new tree and gives the old one to reclaim; nothing is ever edited in place.
 */
#include "fs/core/blob.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cow.h"

static uint32_t chunk_length(uint32_t length, uint32_t offset)
{
	return length - offset < COW_BLOB_CHUNK ? length - offset : COW_BLOB_CHUNK;
}

/* The tree must hold exactly the bytes that the record promised: only its items were validated when it was read. */
static int read_chunks(struct cow_store *store, const struct cow_tree *tree, uint8_t *bytes, uint32_t length)
{
	struct cow_item item;

	for (uint32_t offset = 0; offset < length; offset += COW_BLOB_CHUNK) {
		uint32_t want = chunk_length(length, offset);
		int error = cow_tree_get(store, tree, offset, &item);
		if (error == -ENOENT || (error == 0 && item.length != want))
			return COW_ERR_DAMAGED;
		if (error != 0)
			return error;
		memcpy(bytes + offset, item.value, want);
	}
	return 0;
}

int cow_blob_load(struct cow_store *store, struct cow_blob *blob)
{
	if (blob->length == 0 || blob->bytes != NULL)
		return 0;
	assert(!cow_ptr_is_null(blob->tree.root));
	/* The length is the record's word alone: no memory for it before the tree is seen to reach so far. */
	struct cow_item last;
	int error = cow_tree_get(store, &blob->tree, (blob->length - 1) / COW_BLOB_CHUNK * COW_BLOB_CHUNK, &last);
	if (error != 0)
		return error == -ENOENT ? COW_ERR_DAMAGED : error;
	uint8_t *bytes = malloc(blob->length);
	if (bytes == NULL)
		return -ENOMEM;
	error = read_chunks(store, &blob->tree, bytes, blob->length);
	if (error != 0) {
		free(bytes);
		return error;
	}
	blob->bytes = bytes;
	return 0;
}

static struct cow_tree build(struct cow_store *store, const uint8_t *bytes, uint32_t length)
{
	struct cow_tree tree = {.kind = COW_KIND_BLOB};

	for (uint32_t offset = 0; offset < length; offset += COW_BLOB_CHUNK) {
		int error = cow_tree_put(store, &tree, offset, bytes + offset, chunk_length(length, offset));
		assert(error == 0); /* every node of a tree just made is in memory */
	}
	return tree;
}

void cow_blob_set(struct cow_store *store, struct cow_blob *blob, const void *bytes, uint32_t length,
		  uint32_t inline_max)
{
	struct cow_blob new = {.length = length, .tree = {.kind = COW_KIND_BLOB}};

	if (length != 0)
		new.bytes = cow_mem_copy(bytes, length);
	if (length > inline_max)
		new.tree = build(store, new.bytes, length);
	cow_blob_drop(store, blob);
	*blob = new;
}

int cow_blob_share(struct cow_store *store, const struct cow_blob *blob, struct cow_blob *copy)
{
	if (!cow_ptr_is_null(blob->tree.root)) {
		int error = cow_tree_share(store, &blob->tree);
		if (error != 0)
			return error;
	}
	*copy = *blob;
	copy->bytes = blob->bytes != NULL ? cow_mem_copy(blob->bytes, blob->length) : NULL;
	return 0;
}

void cow_blob_drop(struct cow_store *store, struct cow_blob *blob)
{
	if (!cow_ptr_is_null(blob->tree.root))
		cow_tree_drop(store, &blob->tree);
	cow_blob_forget(blob);
}

void cow_blob_forget(struct cow_blob *blob)
{
	free(blob->bytes);
	*blob = (struct cow_blob){.tree = {.kind = COW_KIND_BLOB}};
}
