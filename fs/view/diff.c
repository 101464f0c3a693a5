/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cow_diff() and cow_same(). What differs is collected first and reported sorted by path, under no lock and with
 * nothing held but memory. A name that is gone and one that is new, of the same inode number, are a rename: numbers
 * are shared by a directory and its clones, and by nothing else.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/view/compare.h"
#include "fs/view/compare_found.h"
#include "fs/view/content.h"

#define DIRS_MAX (1u << 21) /* that differ: clones of clones may hold more than there is memory for */

/* ------------------------------------------------------------------ changes */

static int by_path(const void *a, const void *b)
{
	const struct cow_change *x = a, *y = b;
	int order = strcmp(x->path, y->path);

	return order != 0 ? order : (y->type == 'D') - (x->type == 'D');
}

/* ------------------------------------------------------------------ gone and new names */

/* Matched, or opened: what is in it is on the list already. It will never be of use again. */
static bool is_spent(const struct cow_side_entry *entry)
{
	return entry->matched || entry->opened;
}

/* An entry of this number and type. Clones of clones may have very many of one number: spent ones leave the chain. */
static struct cow_side_entry *find_number(struct cow_list *list, const struct cow_side_entry *like)
{
	struct cow_side_entry *first = cow_map_get(&list->by_number, like->number), *head = first, **link = &head;

	while (*link != NULL && (is_spent(*link) || ((*link)->mode & S_IFMT) != (like->mode & S_IFMT))) {
		if (is_spent(*link))
			*link = (*link)->same_number;
		else
			link = &(*link)->same_number;
	}
	if (head == NULL && first != NULL)
		cow_map_remove(&list->by_number, like->number);
	else if (head != first)
		cow_map_put(&list->by_number, like->number, head);
	return *link;
}

static int report_rename(struct cow_compare *c, struct cow_side_entry *old, struct cow_side_entry *new)
{
	uint8_t old_bytes[COW_VALUE_MAX], new_bytes[COW_VALUE_MAX];
	struct cow_record a, b;
	int same = 1, error = cow_compare_load(c, old, old_bytes, &a);

	if (error == 0)
		error = cow_compare_load(c, new, new_bytes, &b);
	if (error != 0)
		return error;
	old->matched = new->matched = true;
	if (S_ISDIR(a.mode))
		cow_compare_push(c, &a, &b, old->world, new->world, old->path, new->path, new->up, true, NULL);
	else
		same = cow_content_same(c->volume, &a, &b);
	if (same < 0)
		return same;
	return cow_compare_report(c, &(struct cow_change){
		.type = 'R', .path = new->path, .old_path = old->path, .old_mode = a.mode, .new_mode = b.mode,
		.content = same == 0,
	});
}

static int match_renames(struct cow_compare *c)
{
	int error = 0;

	for (; c->come.seen < c->come.count && error == 0; c->come.seen++) {
		struct cow_side_entry *new = c->come.entries[c->come.seen], *old = find_number(&c->gone, new);
		if (old != NULL)
			error = report_rename(c, old, new);
	}
	for (; c->gone.seen < c->gone.count && error == 0; c->gone.seen++) {
		struct cow_side_entry *old = c->gone.entries[c->gone.seen];
		struct cow_side_entry *new = old->matched ? NULL : find_number(&c->come, old);
		if (new != NULL)
			error = report_rename(c, old, new);
	}
	return error;
}

/* Lists what is in the next directory that is only on one side. 1: did so, 0: there is none. */
static int open_next(struct cow_compare *c, struct cow_list *list, bool gone)
{
	while (list->opened < list->count) {
		struct cow_side_entry *entry = list->entries[list->opened++];
		if (entry->matched || !S_ISDIR(entry->mode))
			continue;
		entry->opened = true;
		int error = cow_compare_children(c, entry, gone);
		return error != 0 ? error : 1;
	}
	return 0;
}

/* Directories of one side are opened only when all that is known has been matched: a renamed one is compared as a
 * pair. */
static int settle(struct cow_compare *c)
{
	int more;

	do {
		more = 0;
		while (c->pairs != NULL || c->come.seen < c->come.count || c->gone.seen < c->gone.count) {
			int error = cow_compare_run(c);
			if (error == 0)
				error = match_renames(c);
			if (error != 0)
				return error;
		}
		if (c->expand)
			more = open_next(c, &c->gone, true);
		if (c->expand && more == 0)
			more = open_next(c, &c->come, false);
	} while (more == 1);
	return more;
}

static int report_list(struct cow_compare *c, const struct cow_list *list, bool gone)
{
	int error = 0;

	for (size_t i = 0; i < list->count && error == 0; i++) {
		const struct cow_side_entry *e = list->entries[i];
		struct cow_change change = {.type = gone ? 'D' : 'A', .path = e->path};
		if (e->matched)
			continue;
		*(gone ? &change.old_mode : &change.new_mode) = e->mode;
		error = cow_compare_report(c, &change);
	}
	return error;
}

/* ------------------------------------------------------------------ the whole */

static void list_free(struct cow_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->entries[i]->path);
		free(list->entries[i]);
	}
	free(list->entries);
	cow_map_free(&list->by_number);
}

static void free_pairs(struct cow_dir_pair *pair)
{
	while (pair != NULL) {
		struct cow_dir_pair *next = pair->next;
		free(pair->old_path);
		free(pair->path);
		free(pair);
		pair = next;
	}
}

static void free_walk(struct cow_compare *c)
{
	free_pairs(c->pairs);
	free_pairs(c->done_pairs);
	list_free(&c->gone);
	list_free(&c->come);
	while (c->worlds != NULL) {
		struct cow_side_world *next = c->worlds->next;
		free(c->worlds);
		c->worlds = next;
	}
	while (c->ways != NULL) {
		struct cow_way *next = c->ways->next;
		free(c->ways);
		c->ways = next;
	}
	cow_map_free(&c->compared);
	cow_holding_give(&c->holding);
}

/* Each directory is met a few times at most, when it is gone, or new, or under another name; an image that lies may
 * lead to one in any number of ways. */
static void limit_ways(struct cow_compare *c, uint64_t old_dirs, uint64_t new_dirs)
{
	if (old_dirs < DIRS_MAX / 32 && new_dirs < DIRS_MAX / 32) {
		c->ways_left = 8 * (old_dirs + new_dirs) + 64;
		c->ways_error = COW_ERR_DAMAGED;
	} else {
		c->ways_left = DIRS_MAX;
		c->ways_error = -E2BIG;
	}
}

static int compare_top(struct cow_compare *c)
{
	const struct cow_held *a = &c->holding.held[0], *b = &c->holding.held[1];
	bool dirs = S_ISDIR(a->record.mode) && S_ISDIR(b->record.mode);
	int same;

	if (!dirs)
		return cow_compare_records(c, &a->record, &b->record, "");
	same = cow_content_same_attributes(c->volume, &a->record, &b->record);
	if (same < 0)
		return same;
	if (same == 0) {
		int error = cow_compare_report(c, &(struct cow_change){
			.type = 'm', .path = "", .old_mode = a->record.mode, .new_mode = b->record.mode,
		});
		if (error != 0)
			return error;
	}
	limit_ways(c, a->record.totals.dirs, b->record.totals.dirs);
	cow_compare_push(c, &a->record, &b->record, cow_compare_world(c, a->links.root, a->backs),
			 cow_compare_world(c, b->links.root, b->backs), "", "", NULL, true, NULL);
	return settle(c);
}

static int compare(struct cow_compare *c, struct cow_inode *old, struct cow_inode *new)
{
	struct cow_inode *inodes[2] = {old, new};
	int error;

	if (old->volume != new->volume)
		return -EXDEV;
	c->volume = old->volume;
	error = cow_holding_take(&c->holding, inodes, 2);
	if (error != 0)
		return error;
	error = compare_top(c);
	if (error == 0) {
		error = report_list(c, &c->gone, true);
		if (error == 0)
			error = report_list(c, &c->come, false);
	}
	free_walk(c);
	return error;
}

int cow_diff(struct cow_inode *old_inode, struct cow_inode *new_inode, bool expand, cow_diff_fn fn, void *context)
{
	struct cow_compare c = {.expand = expand};
	int result = compare(&c, old_inode, new_inode);

	if (result == 0 && c.change_count > 1)
		qsort(c.changes, c.change_count, sizeof(*c.changes), by_path);
	for (size_t i = 0; i < c.change_count && result == 0; i++)
		result = fn(context, &c.changes[i]);
	for (size_t i = 0; i < c.change_count; i++) {
		free((char *)c.changes[i].path);
		free((char *)c.changes[i].old_path);
	}
	free(c.changes);
	return result;
}

int cow_same(struct cow_inode *a, struct cow_inode *b)
{
	struct cow_compare c = {.same = true};
	int result = compare(&c, a, b);

	return result < 0 ? result : result != COW_DIFFERENT;
}
