/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the library says, in the words of FUSE. */
#include <stdlib.h>
#include <string.h>

#include "cowfs/handles.h"

struct buffer {
	size_t size;
	max_align_t bytes[];
};

void *cowfs_buffer(struct cowfs *fs, size_t size)
{
	struct buffer *buffer = pthread_getspecific(fs->buffers);
	size_t wanted = 65536;

	if (buffer && buffer->size >= size)
		return buffer->bytes;
	while (wanted < size)
		wanted *= 2;
	free(buffer);
	buffer = malloc(sizeof(*buffer) + wanted);
	if (pthread_setspecific(fs->buffers, buffer)) {
		free(buffer);
		return NULL;
	}
	if (!buffer)
		return NULL;
	buffer->size = wanted;
	return buffer->bytes;
}

void cowfs_buffer_free(void *buffer)
{
	free(buffer);
}

void cowfs_reply(fuse_req_t req, int result)
{
	fuse_reply_err(req, result < 0 ? cow_error_errno(result) : 0);
}

/*
 * A file without blocks is taken for one hole from its beginning to its end by tar and others, which do not ask any
 * further.  One with a mapping may have bytes in the kernel.
 */
static uint64_t sectors(struct cowfs *fs, struct cow_inode *inode, const struct cow_attr *attr)
{
	if (attr->blocks == 0 && attr->size > 0 && cowfs_handles_are(fs->handles, inode, COWFS_MAPPABLE))
		return COW_BLOCK_BYTES / 512;
	return attr->blocks;
}

void cowfs_fill_stat(struct cowfs *fs, struct cow_inode *inode, const struct cow_attr *attr, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = attr->ino;
	st->st_mode = attr->mode;
	st->st_nlink = attr->nlink;
	st->st_uid = attr->uid;
	st->st_gid = attr->gid;
	st->st_rdev = attr->rdev;
	st->st_size = (off_t)attr->size;
	st->st_blocks = (blkcnt_t)sectors(fs, inode, attr);
	st->st_blksize = COW_BLOCK_BYTES;
	st->st_atim = attr->atime;
	st->st_mtim = attr->mtime;
	st->st_ctim = attr->ctime;
}

double cowfs_attr_seconds(const struct cow_attr *attr)
{
	return attr->nlink > 1 && !S_ISDIR(attr->mode) ? 0.0 : COWFS_KEEP_SECONDS;
}

void cowfs_fill_entry(struct cowfs *fs, struct cow_inode *inode, const struct cow_attr *attr,
		      struct fuse_entry_param *entry)
{
	memset(entry, 0, sizeof(*entry));
	entry->ino = (fuse_ino_t)(uintptr_t)inode;
	entry->attr_timeout = cowfs_attr_seconds(attr);
	entry->entry_timeout = COWFS_KEEP_SECONDS;
	cowfs_fill_stat(fs, inode, attr, &entry->attr);
}

void cowfs_reply_entry(fuse_req_t req, struct cow_inode *inode, const struct cow_attr *attr)
{
	struct fuse_entry_param entry;

	cowfs_fill_entry(cowfs_of(req), inode, attr, &entry);
	if (fuse_reply_entry(req, &entry)) /* interrupted: the kernel did not take the reference */
		cow_forget(inode, 1);
}
