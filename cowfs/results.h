/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers too long for one ioctl: they wait under a random number and are read page by page. */
#ifndef COWFS_RESULTS_H
#define COWFS_RESULTS_H

#include "cowfs/mount.h"

/* Bytes that grow at the end. */
struct cowfs_text {
	uint8_t *bytes;
	size_t length, size;
};

/* Room for `count` more bytes, to be filled by the caller; NULL without memory or beyond the limit of one answer. */
uint8_t *cowfs_text_grow(struct cowfs_text *text, size_t count);

struct cowfs_results *cowfs_results_new(void);
void cowfs_results_free(struct cowfs_results *results);
/* Takes over the bytes. -- -ENOMEM, -EAGAIN (too many unread ones) */
int cowfs_result_add(struct cowfs_results *results, struct cowfs_text *text, uint64_t *id);
/* Copies what is at `offset`; 0 at the end. -- -ENOENT */
int cowfs_result_read(struct cowfs_results *results, uint64_t id, uint64_t offset, void *buffer, size_t size);

#endif
