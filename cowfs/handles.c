/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A map from inode to the number of its descriptors.  The inode is held open as long as it is there (file.c).
 *
 * notify_inval_inode(ino, offset, length) writes back the pages of the range and drops them, and waits for both; offset
 * -1 would only drop attributes.  (Kernels before 6.16 may not wait for what they have begun to write back already.)
 *
 * A clone has all mappable inodes flushed, not only those below its source: a hard link makes an inode outside concern
 * a clone too.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/map.h"
#include "base/mem.h"
#include "cowfs/handles.h"

struct opened {
	size_t descriptors, mappable, buffered;
};

struct cowfs_handles {
	pthread_mutex_t lock;
	struct cow_map opened; /* lock: address of the struct cow_inode -> struct opened */
};

static uint64_t key_of(const struct cow_inode *inode)
{
	return (uint64_t)(uintptr_t)inode;
}

struct cowfs_handles *cowfs_handles_new(void)
{
	struct cowfs_handles *handles = calloc(1, sizeof(*handles));

	if (handles)
		pthread_mutex_init(&handles->lock, NULL);
	return handles;
}

void cowfs_handles_free(struct cowfs_handles *handles)
{
	struct cow_map_slot *slot;

	if (!handles)
		return;
	for (size_t i = 0; (slot = cow_map_each(&handles->opened, &i));)
		free(slot->value);
	cow_map_free(&handles->opened);
	pthread_mutex_destroy(&handles->lock);
	free(handles);
}

static void count(struct opened *opened, unsigned kind, size_t change)
{
	opened->descriptors += change;
	if (kind & COWFS_MAPPABLE)
		opened->mappable += change;
	if (kind & COWFS_BUFFERED)
		opened->buffered += change;
}

void cowfs_handles_add(struct cowfs_handles *handles, struct cow_inode *inode, unsigned kind)
{
	struct opened *opened;

	pthread_mutex_lock(&handles->lock);
	opened = cow_map_get(&handles->opened, key_of(inode));
	if (!opened) {
		opened = cow_mem_new(sizeof(*opened));
		cow_map_put(&handles->opened, key_of(inode), opened);
	}
	count(opened, kind, 1);
	pthread_mutex_unlock(&handles->lock);
}

void cowfs_handles_remove(struct cowfs_handles *handles, struct cow_inode *inode, unsigned kind)
{
	struct opened *opened;

	pthread_mutex_lock(&handles->lock);
	opened = cow_map_get(&handles->opened, key_of(inode));
	count(opened, kind, (size_t)-1);
	if (opened->descriptors == 0)
		free(cow_map_remove(&handles->opened, key_of(inode)));
	pthread_mutex_unlock(&handles->lock);
}

bool cowfs_handles_are(struct cowfs_handles *handles, struct cow_inode *inode, unsigned kind)
{
	const struct opened *opened;
	bool are;

	pthread_mutex_lock(&handles->lock);
	opened = cow_map_get(&handles->opened, key_of(inode));
	are = opened && ((kind & COWFS_OPENED) || (kind & COWFS_MAPPABLE && opened->mappable) ||
			 (kind & COWFS_BUFFERED && opened->buffered));
	pthread_mutex_unlock(&handles->lock);
	return are;
}

/* The inodes as they are now, with a reference that keeps each node id from meaning another one. */
static int snapshot(struct cowfs_handles *handles, bool mappable_only, struct cow_inode ***list, size_t *count)
{
	struct cow_map_slot *slot;
	size_t room;

	*count = 0;
	pthread_mutex_lock(&handles->lock);
	room = handles->opened.count;
	*list = room ? malloc(room * sizeof(**list)) : NULL;
	for (size_t i = 0; *list && (slot = cow_map_each(&handles->opened, &i));) {
		if (mappable_only && !((const struct opened *)slot->value)->mappable)
			continue;
		(*list)[*count] = (struct cow_inode *)(uintptr_t)slot->key;
		cow_ref((*list)[(*count)++]);
	}
	pthread_mutex_unlock(&handles->lock);
	return room && !*list ? -ENOMEM : 0;
}

int cowfs_handles_flush(struct cowfs *fs)
{
	struct cow_inode **list;
	size_t count;
	int result = snapshot(fs->handles, true, &list, &count);

	for (size_t i = 0; i < count; i++) {
		fuse_lowlevel_notify_inval_inode(fs->session, cowfs_ino(fs, list[i]), 0, 0);
		cow_forget(list[i], 1);
	}
	free(list);
	return result;
}

/* From `from` up to `end`; 0: the end of the file. */
static void write_back(struct cowfs *fs, const struct cow_inode *inode, uint64_t from, uint64_t end)
{
	uint64_t length = end ? end - from : 0;

	fuse_lowlevel_notify_inval_inode(fs->session, cowfs_ino(fs, inode), (off_t)from, (off_t)length);
}

/* Where the data after `from` begins; 0: there is none up to the end of the file. */
static uint64_t next_data(struct cow_inode *inode, uint64_t from)
{
	int64_t data = cow_seek(inode, from, SEEK_DATA);

	return data > 0 ? (uint64_t)data : 0;
}

static int64_t seek_data(struct cowfs *fs, struct cow_inode *inode, uint64_t offset)
{
	int64_t found = cow_seek(inode, offset, SEEK_DATA);

	if (found == (int64_t)offset || (found < 0 && found != -ENXIO))
		return found;
	write_back(fs, inode, offset, found > 0 ? (uint64_t)found : 0);
	return cow_seek(inode, offset, SEEK_DATA);
}

/* The first time only the hole that was found is looked at; if that was none, all that is left of the file. */
static int64_t seek_hole(struct cowfs *fs, struct cow_inode *inode, uint64_t offset)
{
	int64_t found = cow_seek(inode, offset, SEEK_HOLE), again;

	if (found < 0)
		return found;
	write_back(fs, inode, (uint64_t)found, next_data(inode, (uint64_t)found));
	again = cow_seek(inode, offset, SEEK_HOLE);
	if (again <= found)
		return again;
	write_back(fs, inode, (uint64_t)again, 0);
	return cow_seek(inode, offset, SEEK_HOLE);
}

int64_t cowfs_handles_seek(struct cowfs *fs, struct cow_inode *inode, uint64_t offset, int whence)
{
	return whence == SEEK_DATA ? seek_data(fs, inode, offset) : seek_hole(fs, inode, offset);
}

static bool is_dead(struct cow_inode *inode)
{
	struct cow_attr attr;
	int result = cow_getattr(inode, &attr);

	return result == -ESTALE || (!result && attr.nlink == 0);
}

int cowfs_handles_expire_dead(struct cowfs *fs)
{
	struct cow_inode **list;
	size_t count;
	int result = snapshot(fs->handles, false, &list, &count);

	for (size_t i = 0; i < count; i++) {
		if (is_dead(list[i]))
			fuse_lowlevel_notify_inval_inode(fs->session, cowfs_ino(fs, list[i]), -1, 0);
		cow_forget(list[i], 1);
	}
	free(list);
	return result;
}
