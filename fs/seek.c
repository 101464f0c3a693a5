/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* SEEK_DATA and SEEK_HOLE. */
#include <errno.h>
#include <unistd.h>

#include "base/min.h"
#include "cow.h"
#include "fs/data/extents.h"
#include "fs/data/file.h"
#include "fs/data/pages.h"

struct seek_args {
	struct cow_inode *file;
	uint64_t offset;
	int whence;
	uint64_t result;
};

/* The extent with data that covers `at` or comes next. */
static int next_data(struct cow_inode *file, uint64_t at, struct cow_extent *e)
{
	int error;

	while ((error = cow_extents_find(file, at, e)) == 0 && e->kind != COW_EXTENT_PLAIN)
		at = e->at + e->blocks;
	return error;
}

static int seek_data(struct seek_args *a, uint64_t at, uint64_t *found)
{
	struct cow_extent e;
	int error = next_data(a->file, at, &e);

	if (error != 0 && error != -ENOENT)
		return error;
	*found = at;
	if (cow_pages_next(a->file, found) == NULL)
		*found = UINT64_MAX;
	if (error == 0)
		*found = cow_min64(*found, e.at > at ? e.at : at);
	return *found >= cow_blocks_for(a->file->size) ? -ENXIO : 0;
}

static int seek_hole(struct seek_args *a, uint64_t at, uint64_t *found)
{
	uint64_t end = cow_blocks_for(a->file->size);

	for (*found = at; *found < end;) {
		struct cow_extent e;
		if (cow_pages_get(a->file, *found) != NULL) {
			++*found;
			continue;
		}
		int error = next_data(a->file, *found, &e);
		if (error == -ENOENT || (error == 0 && e.at > *found))
			return 0;
		if (error != 0)
			return error;
		*found = e.at + e.blocks;
	}
	return 0;
}

static int seek_body(struct cow_op *op, void *args)
{
	struct seek_args *a = args;
	uint64_t found = 0;
	int error = cow_file_check(a->file);

	(void)op;
	if (error == 0)
		error = cow_inode_check_live(a->file);
	if (error != 0)
		return error;
	if (a->offset >= a->file->size)
		return -ENXIO;
	if (a->file->body == COW_BODY_INLINE) {
		a->result = a->whence == SEEK_DATA ? a->offset : a->file->size;
		return 0;
	}
	error = a->whence == SEEK_DATA ? seek_data(a, cow_block_of(a->offset), &found)
				       : seek_hole(a, cow_block_of(a->offset), &found);
	if (error != 0)
		return error;
	a->result = cow_min64(found << COW_BLOCK_SHIFT, a->file->size);
	if (a->result < a->offset)
		a->result = a->offset;
	return 0;
}

int64_t cow_seek(struct cow_inode *inode, uint64_t offset, int whence)
{
	struct seek_args a = {.file = inode, .offset = offset, .whence = whence};

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	int error = cow_op_read(inode->volume, seek_body, &a);
	return error != 0 ? error : (int64_t)a.result;
}
