/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The buffered pages of a file: what was written and has no place on the device yet. All locked. */
#ifndef COW_FS_PAGES_H
#define COW_FS_PAGES_H

#include "fs/inode.h"

struct cow_page *cow_pages_get(const struct cow_inode *file, uint64_t at); /* NULL: not buffered */
/* Takes the page over; one that was there is freed. */
void cow_pages_put(struct cow_inode *file, struct cow_page *page);
/* Removes a page that is there and hands it to the caller. */
struct cow_page *cow_pages_take(struct cow_inode *file, uint64_t at);
/* Frees the pages at `from` and up to, but without, `end`. */
void cow_pages_drop(struct cow_inode *file, uint64_t from, uint64_t end);
/* The file blocks that have pages, ascending; the caller frees the array. NULL if there are none. */
uint64_t *cow_pages_sorted(const struct cow_inode *file, size_t *count);

#endif
