/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/core/notes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/mem.h"
#include "fs/core/volume.h"

/* ------------------------------------------------------------------ lists */

static void clear(struct cow_note_list *list)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(&list->changes, &i)) != NULL;)
		for (struct cow_written *c = slot->value, *next; c != NULL; c = next) {
			next = c->next;
			free(c->ranges);
			free(c);
		}
	cow_map_free(&list->changes);
	for (size_t i = 0; i < list->carried_count; i++)
		cow_inode_put(list->carried[i], 1);
	free(list->carried);
	free(list->bytes.bytes);
	*list = (struct cow_note_list){0};
}

void cow_notes_start(struct cow_volume *volume, size_t limit)
{
	volume->notes.limit = limit;
	volume->notes.open.generation = volume->store->generation;
}

void cow_notes_seal(struct cow_volume *volume)
{
	struct cow_notes *notes = &volume->notes;

	assert(notes->sealed.bytes.length == 0 && notes->sealed.changes.count == 0);
	clear(&notes->sealed);
	notes->sealed = notes->open;
	notes->open = (struct cow_note_list){.generation = volume->store->generation};
}

void cow_notes_durable(struct cow_volume *volume)
{
	clear(&volume->notes.sealed);
}

void cow_notes_forget(struct cow_volume *volume)
{
	clear(&volume->notes.open);
	clear(&volume->notes.sealed);
}

/* From now on nothing that is noted would be used. */
void cow_note_commit(struct cow_volume *volume)
{
	struct cow_note_list *open = &volume->notes.open;
	uint64_t generation = open->generation;

	if (open->commit)
		return;
	clear(open);
	open->generation = generation;
	open->commit = true;
}

static bool is_noting(const struct cow_volume *volume)
{
	return volume->notes.limit != 0 && !volume->notes.open.commit;
}

/* placed: the spots that the intent needs are in it. If there are none, or this is too much, only a commit will do. */
static void note(struct cow_volume *volume, const struct cow_intent *intent, bool placed)
{
	struct cow_note_list *open = &volume->notes.open;

	if (placed)
		cow_intent_encode(intent, &open->bytes);
	if (!placed || open->bytes.length - open->logged > volume->notes.limit)
		cow_note_commit(volume);
}

/* ------------------------------------------------------------------ places */

bool cow_spot_of(const struct cow_inode *inode, struct cow_spot *spot)
{
	uint64_t keys[COW_SPOT_DEPTH];
	unsigned depth = 0;

	spot->number = inode->number;
	spot->linked = inode->place == COW_LINKED;
	for (const struct cow_inode *i = inode; i != inode->volume->root; i = i->parent) {
		if (depth == COW_SPOT_DEPTH || i->parent == NULL)
			return false;
		keys[depth++] = i->key;
	}
	spot->depth = (uint8_t)depth;
	for (unsigned k = 0; k < depth; k++)
		spot->keys[k] = keys[depth - 1 - k];
	return true;
}

static struct cow_slice name_of(const char *name)
{
	return (struct cow_slice){(const uint8_t *)name, (uint32_t)strlen(name)};
}

static struct cow_intent begin(const struct cow_op *op, enum cow_intent_type type, uint64_t number)
{
	return (struct cow_intent){
		.type = type, .generation = op->volume->notes.open.generation, .number = number,
		.now = {op->now.tv_sec, (uint32_t)op->now.tv_nsec},
	};
}

/* ------------------------------------------------------------------ operations */

void cow_note_create(struct cow_op *op, struct cow_inode *dir, const char *name, const struct cow_new *new_inode,
		     uint64_t number)
{
	struct cow_intent intent;

	if (!is_noting(op->volume))
		return;
	intent = begin(op, COW_INTENT_CREATE, number);
	intent.name = name_of(name);
	intent.mode = new_inode->mode & (S_IFMT | 07777);
	intent.uid = new_inode->uid;
	intent.gid = new_inode->gid;
	intent.rdev = new_inode->rdev;
	if (S_ISLNK(new_inode->mode))
		intent.bytes = name_of(new_inode->target);
	note(op->volume, &intent, cow_spot_of(dir, &intent.spot));
}

void cow_note_link(struct cow_op *op, const struct cow_spot *spot, struct cow_inode *dir, const char *name,
		   uint64_t number)
{
	struct cow_intent intent;

	if (!is_noting(op->volume))
		return;
	intent = begin(op, COW_INTENT_LINK, number);
	intent.name = name_of(name);
	if (spot != NULL)
		intent.spot = *spot;
	note(op->volume, &intent, spot != NULL && cow_spot_of(dir, &intent.to));
}

void cow_note_remove(struct cow_op *op, struct cow_inode *dir, const char *name, bool directory)
{
	struct cow_intent intent;

	if (!is_noting(op->volume))
		return;
	intent = begin(op, directory ? COW_INTENT_RMDIR : COW_INTENT_UNLINK, op->volume->counters.number);
	intent.name = name_of(name);
	note(op->volume, &intent, cow_spot_of(dir, &intent.spot));
}

/* Nothing, if a commit makes it durable anyway. */
static void carry(struct cow_volume *volume, struct cow_inode *file)
{
	struct cow_note_list *open = &volume->notes.open;

	if (file == NULL || !cow_inode_is_file(file) || open->commit)
		return;
	open->carried = cow_mem_resize(open->carried, (open->carried_count + 1) * sizeof(struct cow_inode *));
	open->carried[open->carried_count++] = file;
	cow_inode_get(file);
}

void cow_note_rename(struct cow_op *op, struct cow_inode *from_dir, const char *from, struct cow_inode *to_dir,
		     const char *to, unsigned flags, struct cow_inode *over, struct cow_inode *swapped)
{
	struct cow_intent intent;

	if (!is_noting(op->volume))
		return;
	intent = begin(op, COW_INTENT_RENAME, op->volume->counters.number);
	intent.name = name_of(from);
	intent.to_name = name_of(to);
	intent.flags = flags;
	note(op->volume, &intent, cow_spot_of(from_dir, &intent.spot) && cow_spot_of(to_dir, &intent.to));
	carry(op->volume, over);
	carry(op->volume, swapped);
}

void cow_note_attr(struct cow_op *op, struct cow_inode *i, unsigned mask)
{
	struct cow_intent intent;

	if (!is_noting(op->volume) || i->place == COW_ORPHAN)
		return;
	if (!cow_inode_is_dir(i) && (mask & (COW_SET_MODE | COW_SET_UID | COW_SET_GID)) == 0) {
		cow_note_write(i, 0, 0); /* times: they matter to an fsync of the file itself */
		return;
	}
	intent = begin(op, COW_INTENT_ATTR, op->volume->counters.number);
	intent.flags = mask & ~(unsigned)(COW_SET_SIZE | COW_SET_CTIME);
	intent.mode = i->mode;
	intent.uid = i->uid;
	intent.gid = i->gid;
	intent.atime = i->atime;
	intent.mtime = i->mtime;
	intent.ctime = i->ctime;
	intent.btime = i->btime;
	note(op->volume, &intent, cow_spot_of(i, &intent.spot));
}

void cow_note_xattr(struct cow_op *op, struct cow_inode *inode, struct cow_slice name, const void *value, size_t size)
{
	struct cow_intent intent;

	if (!is_noting(op->volume) || inode->place == COW_ORPHAN)
		return;
	intent = begin(op, value != NULL ? COW_INTENT_SET_XATTR : COW_INTENT_DROP_XATTR, op->volume->counters.number);
	intent.name = name;
	intent.bytes = (struct cow_slice){value, (uint32_t)size};
	note(op->volume, &intent, cow_spot_of(inode, &intent.spot));
}

void cow_note_row(struct cow_volume *volume, const struct cow_row *row)
{
	struct cow_intent intent = {
		.type = COW_INTENT_ROW, .generation = volume->notes.open.generation,
		.number = volume->counters.number, .row = *row,
	};

	if (is_noting(volume))
		note(volume, &intent, true);
}

/* ------------------------------------------------------------------ content of files */

static uint64_t key_of(const struct cow_inode *file)
{
	uint64_t identity[2] = {file->colour, file->number};

	return XXH3_64bits(identity, sizeof(identity));
}

static struct cow_written *find(const struct cow_note_list *list, const struct cow_inode *file)
{
	struct cow_written *c = list->changes.count != 0 ? cow_map_get(&list->changes, key_of(file)) : NULL;

	while (c != NULL && (c->number != file->number || c->colour != file->colour))
		c = c->next;
	return c;
}

static struct cow_written *change_of(struct cow_inode *file)
{
	struct cow_note_list *open = &file->volume->notes.open;
	struct cow_written *c = find(open, file);

	if (c == NULL) {
		uint64_t key = key_of(file);
		c = cow_mem_new(sizeof(*c));
		*c = (struct cow_written){.colour = file->colour, .number = file->number, .low = UINT64_MAX,
					 .next = cow_map_get(&open->changes, key)};
		cow_map_put(&open->changes, key, c);
	}
	return c;
}

/* Merges with what it touches; when there is no room, everything becomes one range. */
static void add_range(struct cow_written *c, uint64_t from, uint64_t end)
{
	unsigned first = 0, last;

	while (first < c->count && c->ranges[first].end < from)
		first++;
	for (last = first; last < c->count && c->ranges[last].from <= end; last++) {
		from = c->ranges[last].from < from ? c->ranges[last].from : from;
		end = c->ranges[last].end > end ? c->ranges[last].end : end;
	}
	if (last == first && c->count == COW_CHANGE_RANGES) {
		from = c->ranges[0].from < from ? c->ranges[0].from : from;
		end = c->ranges[c->count - 1].end > end ? c->ranges[c->count - 1].end : end;
		first = 0;
		last = c->count;
	}
	if (last == first)
		c->ranges = cow_mem_resize(c->ranges, (c->count + 1) * sizeof(c->ranges[0]));
	memmove(&c->ranges[first + 1], &c->ranges[last], (c->count - last) * sizeof(c->ranges[0]));
	c->ranges[first] = (struct cow_range){from, end};
	c->count = c->count - (last - first) + 1;
}

static bool is_noted(const struct cow_inode *file)
{
	return is_noting(file->volume) && (file->place == COW_EMBEDDED || file->place == COW_LINKED);
}

void cow_note_write(struct cow_inode *file, uint64_t from, uint64_t end)
{
	if (!is_noted(file))
		return;
	struct cow_written *c = change_of(file);
	if (from < end)
		add_range(c, from, end);
}

void cow_note_cut(struct cow_inode *file, uint64_t size)
{
	if (!is_noted(file))
		return;
	struct cow_written *c = change_of(file);
	c->low = size < c->low ? size : c->low;
}

bool cow_notes_change_of(const struct cow_volume *volume, const struct cow_inode *file, struct cow_written *change)
{
	const struct cow_written *parts[2] = {find(&volume->notes.sealed, file), find(&volume->notes.open, file)};

	*change = (struct cow_written){.low = UINT64_MAX};
	for (unsigned p = 0; p < 2; p++) {
		if (parts[p] == NULL)
			continue;
		change->low = parts[p]->low < change->low ? parts[p]->low : change->low;
		for (unsigned i = 0; i < parts[p]->count; i++)
			add_range(change, parts[p]->ranges[i].from, parts[p]->ranges[i].end);
	}
	return parts[0] != NULL || parts[1] != NULL;
}

static void drop(struct cow_note_list *list, const struct cow_inode *file)
{
	struct cow_written *gone = find(list, file);
	struct cow_written *head = gone != NULL ? cow_map_get(&list->changes, key_of(file)) : NULL, **at = &head;

	if (gone == NULL)
		return;
	while (*at != gone)
		at = &(*at)->next;
	*at = gone->next;
	free(gone->ranges);
	free(gone);
	if (head != NULL)
		cow_map_put(&list->changes, key_of(file), head);
	else
		cow_map_remove(&list->changes, key_of(file));
}

void cow_notes_change_logged(struct cow_volume *volume, const struct cow_inode *file)
{
	drop(&volume->notes.sealed, file);
	drop(&volume->notes.open, file);
}
