/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/data/pages.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "fs/core/volume.h"
#include "fs/data/extents.h"

/* store->dirty_pages is what commits and the promise of space go by: it counts pages, not writes. */
static void account(struct cow_inode *file, size_t before)
{
	struct cow_store *store = file->volume->store;

	assert(store->dirty_pages + file->pages.count >= before);
	store->dirty_pages += file->pages.count - before;
	cow_inode_promise(file, &file->data_due,
			  file->pages.count != 0 ? cow_extents_due(file, file->pages.count, file->runs) : 0);
}

static void set_covered(struct cow_inode *file, uint64_t covered, uint64_t version)
{
	file->volume->store->covered_pages += covered - file->covered;
	file->covered = covered;
	file->covered_of = file->pages.count;
	file->covered_version = version;
}

void cow_pages_set_covered(struct cow_inode *file, uint64_t covered)
{
	set_covered(file, covered, file->data_version);
}

/* Some that were there are not: who knows whether they were covered? */
static void forget_covered(struct cow_inode *file)
{
	set_covered(file, 0, 0);
}

static uint64_t neighbours(const struct cow_inode *file, uint64_t at)
{
	return (uint64_t)(at > 0 && cow_pages_get(file, at - 1) != NULL) + (cow_pages_get(file, at + 1) != NULL);
}

static void enlist(struct cow_inode *file)
{
	struct cow_buffered *list = &file->volume->buffered;

	file->buffered_prev = list->last;
	file->buffered_next = NULL;
	if (list->last != NULL)
		list->last->buffered_next = file;
	else
		list->first = file;
	list->last = file;
}

static void delist(struct cow_inode *file)
{
	struct cow_buffered *list = &file->volume->buffered;

	*(file->buffered_prev != NULL ? &file->buffered_prev->buffered_next : &list->first) = file->buffered_next;
	*(file->buffered_next != NULL ? &file->buffered_next->buffered_prev : &list->last) = file->buffered_prev;
}

struct cow_page *cow_pages_get(const struct cow_inode *file, uint64_t at)
{
	return cow_radix_get(&file->pages, at);
}

struct cow_page *cow_pages_next(const struct cow_inode *file, uint64_t *at)
{
	return cow_radix_next(&file->pages, at);
}

void cow_pages_put(struct cow_inode *file, uint64_t at, struct cow_page *page)
{
	size_t before = file->pages.count;
	struct cow_page *old = cow_radix_put(&file->pages, at, page);

	assert(old != page);
	if (old == NULL)
		file->runs += 1 - neighbours(file, at);
	cow_page_free(file->volume, old);
	account(file, before);
	if (before == 0)
		enlist(file);
}

struct cow_page *cow_pages_take(struct cow_inode *file, uint64_t at)
{
	size_t before = file->pages.count;
	struct cow_page *page = cow_radix_remove(&file->pages, at);

	assert(page != NULL);
	file->runs -= 1 - neighbours(file, at);
	account(file, before);
	forget_covered(file);
	assert(file->pages.count != 0 || file->runs == 0);
	if (file->pages.count == 0)
		delist(file);
	return page;
}

void cow_pages_drop(struct cow_inode *file, uint64_t from, uint64_t end)
{
	for (; cow_pages_next(file, &from) != NULL && from < end; from++)
		cow_page_free(file->volume, cow_pages_take(file, from));
}

void cow_pages_last(struct cow_inode *file)
{
	assert(file->pages.count != 0);
	delist(file);
	enlist(file);
}

struct cow_radix cow_pages_detach(struct cow_inode *file)
{
	struct cow_radix pages = file->pages;

	if (pages.count != 0)
		delist(file);
	file->pages = (struct cow_radix){0};
	file->runs = 0;
	account(file, pages.count);
	forget_covered(file);
	return pages;
}

void cow_pages_attach(struct cow_inode *file, struct cow_radix pages)
{
	assert(file->pages.count == 0);
	file->pages = pages;
	for (uint64_t at = 0; cow_pages_next(file, &at) != NULL; at++)
		file->runs += at == 0 || cow_pages_get(file, at - 1) == NULL;
	account(file, 0);
	if (pages.count != 0)
		enlist(file);
}

void cow_pages_free(struct cow_volume *volume, struct cow_radix *pages)
{
	struct cow_page *page;

	for (uint64_t at = 0; (page = cow_radix_next(pages, &at)) != NULL; at++)
		cow_page_free(volume, page);
	cow_radix_free(pages);
}

struct cow_page *cow_page_new(struct cow_volume *volume)
{
	void *page = NULL;
	int error = cow_pool_take(&volume->pool, &page, 1);

	cow_mem_insist(error == 0 ? page : NULL);
	return memset(page, 0, sizeof(struct cow_page));
}

void cow_page_free(struct cow_volume *volume, struct cow_page *page)
{
	void *block = page;

	cow_pool_give(&volume->pool, &block, 1);
}
