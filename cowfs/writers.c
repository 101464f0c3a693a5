/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stores to shared mappings stay in the kernel's page cache until something writes them back.  A clone has to contain
 * them, so before it all pages of these inodes are written back and dropped: notify_inval_inode(ino, 0, 0) does both
 * and waits, while offset -1 would only drop attributes.
 *
 * All writable inodes are flushed, not only those below the source: a hard link makes an inode outside concern a clone
 * too, and an inode without cached pages costs only a system call.
 */
#include <errno.h>
#include <stdlib.h>

#include "cowfs/writers.h"

struct cowfs_writer {
	fuse_ino_t ino;
	struct cowfs_writer *next, *prev;
};

struct cowfs_writers {
	pthread_mutex_t lock;
	struct cowfs_writer head; /* of a ring; lock */
	size_t count;             /* lock */
};

struct cowfs_writers *cowfs_writers_new(void)
{
	struct cowfs_writers *writers = calloc(1, sizeof(*writers));

	if (!writers)
		return NULL;
	pthread_mutex_init(&writers->lock, NULL);
	writers->head.next = writers->head.prev = &writers->head;
	return writers;
}

void cowfs_writers_free(struct cowfs_writers *writers)
{
	struct cowfs_writer *next;

	if (!writers)
		return;
	for (struct cowfs_writer *w = writers->head.next; w != &writers->head; w = next) {
		next = w->next;
		free(w);
	}
	pthread_mutex_destroy(&writers->lock);
	free(writers);
}

struct cowfs_writer *cowfs_writer_add(struct cowfs_writers *writers, fuse_ino_t ino)
{
	struct cowfs_writer *writer = malloc(sizeof(*writer));

	if (!writer)
		return NULL;
	writer->ino = ino;
	pthread_mutex_lock(&writers->lock);
	writer->prev = &writers->head;
	writer->next = writers->head.next;
	writer->next->prev = writer;
	writers->head.next = writer;
	writers->count++;
	pthread_mutex_unlock(&writers->lock);
	return writer;
}

void cowfs_writer_remove(struct cowfs_writers *writers, struct cowfs_writer *writer)
{
	pthread_mutex_lock(&writers->lock);
	writer->prev->next = writer->next;
	writer->next->prev = writer->prev;
	writers->count--;
	pthread_mutex_unlock(&writers->lock);
	free(writer);
}

static int compare_ino(const void *a, const void *b)
{
	fuse_ino_t x = *(const fuse_ino_t *)a, y = *(const fuse_ino_t *)b;

	return x < y ? -1 : x > y;
}

/* The ids as they are now. No reference is needed: they are only told to the kernel, which ignores those it forgot. */
static int snapshot(struct cowfs_writers *writers, fuse_ino_t **list, size_t *count)
{
	int result = 0;

	*list = NULL;
	pthread_mutex_lock(&writers->lock);
	*count = writers->count;
	if (*count)
		*list = malloc(*count * sizeof(**list));
	if (*count && !*list)
		result = -ENOMEM;
	if (*list) {
		size_t i = 0;

		for (struct cowfs_writer *w = writers->head.next; w != &writers->head; w = w->next)
			(*list)[i++] = w->ino;
	}
	pthread_mutex_unlock(&writers->lock);
	return result;
}

/* Tells the kernel about each of them: offset 0 writes back and drops the pages, -1 drops attributes only. */
static int notify_each(struct cowfs *fs, off_t offset)
{
	fuse_ino_t *list;
	size_t count;
	int result = snapshot(fs->writers, &list, &count);

	if (result)
		return result;
	if (list)
		qsort(list, count, sizeof(*list), compare_ino);
	for (size_t i = 0; i < count; i++) {
		if (i == 0 || list[i] != list[i - 1])
			fuse_lowlevel_notify_inval_inode(fs->session, list[i], offset, 0);
	}
	free(list);
	return 0;
}

int cowfs_writers_flush(struct cowfs *fs)
{
	return notify_each(fs, 0);
}

int cowfs_writers_expire_attributes(struct cowfs *fs)
{
	return notify_each(fs, -1);
}
