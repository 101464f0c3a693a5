/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Extended attributes: one list per inode, sorted by name (record.h), that changes as a whole. The list is read
 * from its tree only when somebody asks for it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/mem.h"
#include "fs/change.h"
#include "fs/core/blob.h"
#include "fs/core/fold.h"
#include "fs/core/volume.h"

#define ITEM_FIXED 5u

struct item {
	struct cow_slice name, value;
	uint32_t start, end; /* in the list */
};

struct args {
	struct cow_inode *inode;
	struct cow_slice name;
	const void *value; /* set */
	void *buffer;      /* get, list */
	size_t size;       /* of value or buffer */
	int flags;
	int result;
};

/* Brings the list into memory; what comes from a tree is checked here, for its items alone say nothing. */
static int load(struct cow_inode *inode)
{
	struct cow_blob *list = &inode->xattr;
	bool fresh = list->length != 0 && list->bytes == NULL;
	int error = cow_blob_load(inode->volume->store, list);

	if (error != 0 || !fresh || cow_xattr_list_validate(list->bytes, list->length) == 0)
		return error;
	free(list->bytes);
	list->bytes = NULL;
	return COW_ERR_DAMAGED;
}

static bool next_item(const struct cow_blob *list, struct item *item)
{
	if (item->end == list->length)
		return false;
	item->start = item->end;
	const uint8_t *p = list->bytes + item->start;
	item->name = (struct cow_slice){p + ITEM_FIXED, p[0]};
	item->value = (struct cow_slice){p + ITEM_FIXED + p[0], get32(p + 1)};
	item->end = item->start + ITEM_FIXED + item->name.length + item->value.length;
	return true;
}

/* True if it is there; else the item is empty, at the place where it would be. */
static bool find(const struct cow_blob *list, struct cow_slice name, struct item *item)
{
	*item = (struct item){0};
	while (next_item(list, item)) {
		int order = cow_slice_compare(item->name, name);
		if (order == 0)
			return true;
		if (order > 0) {
			item->end = item->start;
			return false;
		}
	}
	item->start = item->end;
	return false;
}

static int check_name(const char *name, struct cow_slice *slice)
{
	size_t length = strlen(name);

	if (length == 0 || length > COW_XATTR_NAME_MAX)
		return -ERANGE;
	*slice = (struct cow_slice){(const uint8_t *)name, (uint32_t)length};
	return 0;
}

/* ------------------------------------------------------------------ reading */

static int get_body(struct cow_op *op, void *p)
{
	struct args *a = p;
	struct item item;
	int error = cow_inode_check_live(a->inode);

	(void)op;
	if (error == 0)
		error = load(a->inode);
	if (error != 0)
		return error;
	if (!find(&a->inode->xattr, a->name, &item))
		return -ENODATA;
	a->result = (int)item.value.length;
	if (a->size == 0)
		return 0;
	if (item.value.length > a->size)
		return -ERANGE;
	memcpy(a->buffer, item.value.bytes, item.value.length);
	return 0;
}

int cow_getxattr(struct cow_inode *inode, const char *name, void *value, size_t size)
{
	struct args a = {.inode = inode, .buffer = value, .size = size};

	if (check_name(name, &a.name) != 0)
		return -ENODATA;
	int error = cow_op_read(inode->volume, get_body, &a);
	return error != 0 ? error : a.result;
}

static int list_body(struct cow_op *op, void *p)
{
	struct args *a = p;
	struct item item = {0};
	char *to = a->buffer;
	size_t total = 0;
	int error = cow_inode_check_live(a->inode);

	(void)op;
	if (error == 0)
		error = load(a->inode);
	if (error != 0)
		return error;
	while (next_item(&a->inode->xattr, &item))
		total += item.name.length + 1;
	a->result = (int)total;
	if (a->size == 0)
		return 0;
	if (total > a->size)
		return -ERANGE;
	item = (struct item){0};
	while (next_item(&a->inode->xattr, &item)) {
		memcpy(to, item.name.bytes, item.name.length);
		to[item.name.length] = '\0';
		to += item.name.length + 1;
	}
	return 0;
}

int cow_listxattr(struct cow_inode *inode, char *list, size_t size)
{
	struct args a = {.inode = inode, .buffer = list, .size = size};
	int error = cow_op_read(inode->volume, list_body, &a);

	return error != 0 ? error : a.result;
}

/* ------------------------------------------------------------------ changing */

static int prepare(struct args *a)
{
	int error = cow_inode_check_live(a->inode);

	if (error == 0)
		error = cow_inode_check_writable(a->inode);
	if (error == 0)
		error = cow_inode_reserve(a->inode);
	if (error == 0)
		error = cow_reclaim_reserve(a->inode->volume->store);
	if (error == 0)
		error = load(a->inode);
	return error;
}

/* Replaces what is between the item's start and end by `length` bytes. */
static int splice(struct cow_op *op, struct cow_inode *inode, const struct item *item, const uint8_t *bytes,
		  uint32_t length)
{
	struct cow_blob *list = &inode->xattr;
	uint32_t total = list->length - (item->end - item->start) + length;

	if (total > COW_XATTR_LIST_MAX)
		return -ENOSPC;
	if (total > COW_XATTR_INLINE_MAX && /* the old list may be shared */
	    cow_store_check_floor(op->store, total / (4 * COW_BLOB_CHUNK) + 3) != 0)
		return COW_MISS;
	uint8_t *new = cow_mem_new(total);
	if (item->start != 0)
		memcpy(new, list->bytes, item->start);
	if (length != 0)
		memcpy(new + item->start, bytes, length);
	if (item->end != list->length)
		memcpy(new + item->start + length, list->bytes + item->end, list->length - item->end);
	cow_blob_set(op->store, list, new, total, COW_XATTR_INLINE_MAX);
	free(new);
	inode->ctime = (struct cow_when){op->now.tv_sec, (uint32_t)op->now.tv_nsec};
	return 0;
}

static int set_body(struct cow_op *op, void *p)
{
	struct args *a = p;
	struct item item;
	int error = prepare(a);

	if (error != 0)
		return error;
	bool found = find(&a->inode->xattr, a->name, &item);
	if (found && (a->flags & XATTR_CREATE))
		return -EEXIST;
	if (!found && (a->flags & XATTR_REPLACE))
		return -ENODATA;
	uint32_t length = ITEM_FIXED + a->name.length + (uint32_t)a->size;
	uint8_t *bytes = cow_mem_new(length);
	bytes[0] = (uint8_t)a->name.length;
	put32(bytes + 1, (uint32_t)a->size);
	memcpy(bytes + ITEM_FIXED, a->name.bytes, a->name.length);
	if (a->size != 0)
		memcpy(bytes + ITEM_FIXED + a->name.length, a->value, a->size);
	error = splice(op, a->inode, &item, bytes, length);
	free(bytes);
	if (error == 0)
		cow_note_xattr(op, a->inode, a->name, a->value != NULL ? a->value : "", a->size);
	return error;
}

int cow_setxattr(struct cow_inode *inode, const char *name, const void *value, size_t size, int flags)
{
	struct args a = {.inode = inode, .value = value, .size = size, .flags = flags};

	if ((flags & ~(XATTR_CREATE | XATTR_REPLACE)) != 0)
		return -EINVAL;
	if (size > COW_XATTR_VALUE_MAX)
		return -E2BIG;
	int error = check_name(name, &a.name);
	return error != 0 ? error : cow_op_change(inode->volume, COW_XATTR_LIST_MAX, false, set_body, &a);
}

static int remove_body(struct cow_op *op, void *p)
{
	struct args *a = p;
	struct item item;
	int error = prepare(a);

	if (error != 0)
		return error;
	if (!find(&a->inode->xattr, a->name, &item))
		return -ENODATA;
	error = splice(op, a->inode, &item, NULL, 0);
	if (error == 0)
		cow_note_xattr(op, a->inode, a->name, NULL, 0);
	return error;
}

int cow_removexattr(struct cow_inode *inode, const char *name)
{
	struct args a = {.inode = inode};

	if (check_name(name, &a.name) != 0)
		return -ENODATA;
	return cow_op_change(inode->volume, 0, true, remove_body, &a);
}
