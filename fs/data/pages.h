/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The buffered pages of a file: what was written and has no place on the device yet. The volume has a list of the files
 * that have any, those first whose turn to be placed comes first. All locked.
 */
#ifndef COW_FS_DATA_PAGES_H
#define COW_FS_DATA_PAGES_H

#include "fs/core/inode.h"

struct cow_page *cow_pages_get(const struct cow_inode *file, uint64_t at); /* NULL: not buffered */
/* The one with the lowest file block at or above *at, which becomes its block; NULL: there is none. */
struct cow_page *cow_pages_next(const struct cow_inode *file, uint64_t *at);
/* Takes the page over; one that was there is freed. */
void cow_pages_put(struct cow_inode *file, uint64_t at, struct cow_page *page);
/* Removes a page that is there and hands it to the caller. */
struct cow_page *cow_pages_take(struct cow_inode *file, uint64_t at);
/* Frees the pages at `from` and up to, but without, `end`. */
void cow_pages_drop(struct cow_inode *file, uint64_t from, uint64_t end);
/* So many of the pages that there are will take no block in the end. */
void cow_pages_set_covered(struct cow_inode *file, uint64_t covered);
/* The file is placed after all others that have pages now. */
void cow_pages_last(struct cow_inode *file);
/* All of a file's pages, which then has none; they are nobody's, until they are put back or freed. */
struct cow_radix cow_pages_detach(struct cow_inode *file);
void cow_pages_attach(struct cow_inode *file, struct cow_radix pages);
void cow_pages_free(struct cow_volume *volume, struct cow_radix *pages);

/* One page, all zeros, as cow_mem_new() would give it; many are better taken from volume->pool in one go. */
struct cow_page *cow_page_new(struct cow_volume *volume);
void cow_page_free(struct cow_volume *volume, struct cow_page *page);

#endif
