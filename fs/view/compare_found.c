/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/view/compare_found.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/array.h"
#include "fs/view/content.h"

/* Clones of clones may hold more than there is memory for. */
#define CHANGES_MAX (1u << 23)

static char *copy_string(const char *s)
{
	return s != NULL ? cow_mem_copy(s, strlen(s) + 1) : NULL;
}

int cow_compare_report(struct cow_compare *c, const struct cow_change *change)
{
	if (c->same)
		return COW_DIFFERENT;
	if (c->change_count == CHANGES_MAX)
		return -E2BIG;
	if (c->change_count == c->change_size) {
		c->change_size = c->change_size != 0 ? 2 * c->change_size : 64;
		c->changes = cow_mem_resize(c->changes, c->change_size * sizeof(*c->changes));
	}
	struct cow_change *copy = &c->changes[c->change_count++];
	*copy = *change;
	copy->path = copy_string(change->path);
	copy->old_path = copy_string(change->old_path);
	return 0;
}

static void list_add(struct cow_list *list, struct cow_side_entry *entry)
{
	if (list->count == list->size) {
		list->size = list->size != 0 ? 2 * list->size : 64;
		list->entries = cow_mem_resize(list->entries, list->size * sizeof(*list->entries));
	}
	list->entries[list->count++] = entry;
}

int cow_compare_only(struct cow_compare *c, struct cow_side_entry *entry, bool gone)
{
	uint8_t bytes[COW_VALUE_MAX];
	struct cow_list *list = gone ? &c->gone : &c->come;
	struct cow_record record;

	list_add(list, entry); /* it owns the entry, whatever comes */
	if (c->same)
		return COW_DIFFERENT;
	if (list->count > CHANGES_MAX)
		return -E2BIG;
	int error = cow_compare_load(c, entry, bytes, &record);
	if (error != 0)
		return error;
	entry->number = record.number;
	entry->mode = record.mode;
	entry->same_number = cow_map_get(&list->by_number, entry->number);
	cow_map_put(&list->by_number, entry->number, entry);
	return 0;
}

int cow_compare_tell(struct cow_compare *c, char type, const char *path, uint32_t old_mode, uint32_t new_mode)
{
	return cow_compare_report(c, &(struct cow_change){.type = type, .path = path, .old_mode = old_mode,
							  .new_mode = new_mode, .content = type == 'M'});
}

int cow_compare_attributes(struct cow_compare *c, const struct cow_record *a, const struct cow_record *b,
			      const char *path)
{
	int same = cow_content_same_attributes(c->volume, a, b);

	return same == 0 ? cow_compare_tell(c, 'm', path, a->mode, b->mode) : same < 0 ? same : 0;
}

int cow_compare_records(struct cow_compare *c, const struct cow_record *a, const struct cow_record *b, const char *path)
{
	int same;

	if ((a->mode & S_IFMT) != (b->mode & S_IFMT))
		return cow_compare_tell(c, 'T', path, a->mode, b->mode);
	same = cow_content_same(c->volume, a, b);
	if (same < 0)
		return same;
	return same == 0 ? cow_compare_tell(c, 'M', path, a->mode, b->mode) : cow_compare_attributes(c, a, b, path);
}
