/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stores to shared mappings stay in the kernel's page cache until something writes them back.  A clone has to contain
 * them, so before it all pages of these inodes are written back and dropped: notify_inval_inode(ino, 0, 0) does both
 * and waits, while offset -1 would only drop attributes.
 *
 * All mappable inodes are flushed, not only those below the source: a hard link makes an inode outside concern a clone
 * too, and an inode without cached pages costs only a system call.
 */
#include <errno.h>
#include <stdlib.h>

#include "cowfs/handles.h"

struct cowfs_handle {
	struct cow_inode *inode;
	bool mappable;
	struct cowfs_handle *next, *prev;
};

struct cowfs_handles {
	pthread_mutex_t lock;
	struct cowfs_handle head; /* of a ring; lock */
	size_t count;             /* lock */
};

struct cowfs_handles *cowfs_handles_new(void)
{
	struct cowfs_handles *handles = calloc(1, sizeof(*handles));

	if (!handles)
		return NULL;
	pthread_mutex_init(&handles->lock, NULL);
	handles->head.next = handles->head.prev = &handles->head;
	return handles;
}

void cowfs_handles_free(struct cowfs_handles *handles)
{
	struct cowfs_handle *next;

	if (!handles)
		return;
	for (struct cowfs_handle *h = handles->head.next; h != &handles->head; h = next) {
		next = h->next;
		free(h);
	}
	pthread_mutex_destroy(&handles->lock);
	free(handles);
}

struct cowfs_handle *cowfs_handle_add(struct cowfs_handles *handles, struct cow_inode *inode, bool mappable)
{
	struct cowfs_handle *handle = malloc(sizeof(*handle));

	if (!handle)
		return NULL;
	handle->inode = inode;
	handle->mappable = mappable;
	pthread_mutex_lock(&handles->lock);
	handle->prev = &handles->head;
	handle->next = handles->head.next;
	handle->next->prev = handle;
	handles->head.next = handle;
	handles->count++;
	pthread_mutex_unlock(&handles->lock);
	return handle;
}

void cowfs_handle_remove(struct cowfs_handles *handles, struct cowfs_handle *handle)
{
	pthread_mutex_lock(&handles->lock);
	handle->prev->next = handle->next;
	handle->next->prev = handle->prev;
	handles->count--;
	pthread_mutex_unlock(&handles->lock);
	free(handle);
}

static int compare_inode(const void *a, const void *b)
{
	uintptr_t x = (uintptr_t)*(struct cow_inode *const *)a, y = (uintptr_t)*(struct cow_inode *const *)b;

	return x < y ? -1 : x > y;
}

/* The inodes as they are now, each once, with a reference that keeps its node id from meaning another one. */
static int snapshot(struct cowfs_handles *handles, bool mappable_only, struct cow_inode ***list, size_t *count)
{
	size_t room, got = 0, kept = 0;

	*count = 0;
	pthread_mutex_lock(&handles->lock);
	room = handles->count;
	*list = room ? malloc(room * sizeof(**list)) : NULL;
	for (struct cowfs_handle *h = handles->head.next; *list && h != &handles->head; h = h->next) {
		if (h->mappable || !mappable_only)
			(*list)[got++] = h->inode;
	}
	if (got)
		qsort(*list, got, sizeof(**list), compare_inode);
	for (size_t i = 0; i < got; i++) {
		if (i == 0 || (*list)[i] != (*list)[kept - 1]) {
			(*list)[kept++] = (*list)[i];
			cow_ref((*list)[i]);
		}
	}
	pthread_mutex_unlock(&handles->lock);
	*count = kept;
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
