/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/world/stat.h"

#include "fs/world/inode_number.h"
#include "fs/world/link.h"

static struct timespec timespec_of(struct cow_when w)
{
	return (struct timespec){.tv_sec = w.seconds, .tv_nsec = w.nanoseconds};
}

/* Buffered pages in holes will be mapped: st_blocks says so at once, or cp would take the file for a sparse one. */
static uint64_t sectors(struct cow_inode *i)
{
	uint64_t blocks = i->blocks, whole = (i->size + COW_BLOCK - 1) / COW_BLOCK;

	if (!cow_inode_is_file(i))
		return 0;
	if (i->body == COW_BODY_INLINE)
		return (i->size + 511) / 512;
	blocks += i->pages.count;
	if (blocks >= whole && i->pages.count != 0)
		blocks = i->blocks > whole ? i->blocks : whole;
	return blocks * (COW_BLOCK / 512);
}

int cow_inode_attr(struct cow_inode *i, struct cow_attr *attr)
{
	uint32_t nlink = 1;
	int error = i->ino != 0 ? 0 : cow_number_ino(i->volume, i->colour, i->number, &i->ino);

	if (error != 0)
		return error;
	if (i->place == COW_LINKED)
		error = cow_link_count(i, &nlink);
	else if (i->place != COW_EMBEDDED)
		nlink = 0;
	*attr = (struct cow_attr){
		.ino = i->ino, .mode = i->mode, .nlink = nlink, .uid = i->uid, .gid = i->gid, .rdev = i->rdev,
		.size = i->size, .blocks = sectors(i), .atime = timespec_of(i->atime), .mtime = timespec_of(i->mtime),
		.ctime = timespec_of(i->ctime), .btime = timespec_of(i->btime),
		.is_clone = i->is_world && i->parent != NULL, .read_only = i->read_only,
	};
	return error;
}
