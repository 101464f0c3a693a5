/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/world/inode_number.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/mem.h"
#include "cow.h"
#include "fs/core/reservation.h"

#define KEY_TYPE_SHIFT 56
#define KEY_ORDINALS 128u
#define ROOM_FOR_ROWS 16u      /* blocks that must be to spare before a look-up writes */
/* During replay, what nobody had asked for, or what had found no space, when the operations were done first: replay
 * must not give it a number that a later record, or somebody later on, gives to another. Forgotten after replay. */
#define ONLY_FOR_NOW (1ull << 62)
#define SWEEP_AFTER 1024u /* dropped rows that make a look at the whole table worth while */
#define DONE_SOME UINT64_MAX /* as a sweep's place: beyond the table, and rows have gone */

static struct cow_tree *table(struct cow_volume *volume)
{
	return &volume->store->roots[COW_ROOT_NUMBERS];
}

uint64_t cow_number_next(struct cow_volume *volume)
{
	return volume->counters.number++;
}

/* ------------------------------------------------------------------ rows */

static uint64_t first_key(const struct cow_volume *volume, uint8_t type, uint64_t a, uint64_t b)
{
	uint8_t bytes[16];
	uint64_t hash;

	put64(bytes, a);
	put64(bytes + 8, b);
	hash = XXH3_64bits_withSeed(bytes, sizeof(bytes), get64(volume->counters.hash_key));
	return (uint64_t)type << KEY_TYPE_SHIFT | (hash & 0x00ffffffffffff80ull);
}

/* Finds the row; -ENOENT: *key is where it would go. */
static int find(struct cow_volume *volume, uint8_t type, uint64_t a, uint64_t b, uint64_t *key, struct cow_row *row)
{
	uint64_t first = first_key(volume, type, a, b), end = first + KEY_ORDINALS;
	struct cow_item item;

	*key = first;
	for (uint64_t at = first; at < end; at = item.key + 1) {
		int error = cow_tree_next(volume->store, table(volume), at, &item);
		if (error != 0)
			return error;
		if (item.key >= end)
			break;
		error = cow_row_decode(item.value, item.length, row);
		if (error != 0)
			return error;
		if (row->type == type && row->a == a && row->b == b) {
			*key = item.key;
			return 0;
		}
		if (item.key == *key)
			++*key;
	}
	return -ENOENT;
}

static void put(struct cow_volume *volume, uint64_t key, const struct cow_row *row)
{
	uint8_t bytes[COW_ROW_BYTES];
	int error;

	cow_row_encode(row, bytes);
	error = cow_tree_put(volume->store, table(volume), key, bytes, sizeof(bytes));
	assert(error == 0); /* reserved */
	volume->store->changes++;
}

/* Rows that found no space: few or none, so a chain by hash key is enough. */
struct memory_row {
	struct cow_row row;
	struct memory_row *next;
};

static struct cow_row *find_in_memory(struct cow_volume *volume, uint8_t type, uint64_t a, uint64_t b)
{
	struct memory_row *m = cow_map_get(&volume->rows, first_key(volume, type, a, b));

	while (m != NULL && !(m->row.type == type && m->row.a == a && m->row.b == b))
		m = m->next;
	return m != NULL ? &m->row : NULL;
}

static void put_in_memory(struct cow_volume *volume, const struct cow_row *row)
{
	uint64_t key = first_key(volume, row->type, row->a, row->b);
	struct memory_row *m = cow_mem_new(sizeof(*m));

	m->row = *row;
	m->next = cow_map_get(&volume->rows, key);
	cow_map_put(&volume->rows, key, m);
}

static void drop_in_memory(struct cow_volume *volume, uint8_t type, uint64_t a, uint64_t b)
{
	uint64_t key = first_key(volume, type, a, b);
	struct memory_row *head = cow_map_get(&volume->rows, key), **at = &head;

	while (*at != NULL && !((*at)->row.type == type && (*at)->row.a == a && (*at)->row.b == b))
		at = &(*at)->next;
	if (*at == NULL)
		return;
	struct memory_row *gone = *at;
	*at = gone->next;
	free(gone);
	if (head != NULL)
		cow_map_put(&volume->rows, key, head);
	else
		cow_map_remove(&volume->rows, key);
}

/* ------------------------------------------------------------------ numbers that became free */

/* A chunk freed in a generation that is durable, taken out of the table; else -ENOENT. Neutral until it returns 0. */
static int reuse_chunk(struct cow_volume *volume, uint64_t *number)
{
	struct cow_store *store = volume->store;
	uint64_t first = (uint64_t)COW_ROW_FREE_CHUNK << KEY_TYPE_SHIFT;
	struct cow_item item;
	struct cow_row row;
	int error = cow_tree_next(store, table(volume), first, &item);

	if (error != 0)
		return error;
	if (item.key >> KEY_TYPE_SHIFT != COW_ROW_FREE_CHUNK)
		return -ENOENT;
	error = cow_row_decode(item.value, item.length, &row);
	if (error != 0 || row.type != COW_ROW_FREE_CHUNK)
		return COW_ERR_DAMAGED;
	if (row.value > store->super.generation)
		return -ENOENT;
	uint64_t key = item.key;
	error = cow_tree_reserve(store, table(volume), key);
	if (error == 0)
		error = cow_tree_del(store, table(volume), key);
	*number = row.a;
	return error;
}

/* Rows stay: they leave all that removals may want. */
static bool has_room(const struct cow_volume *volume)
{
	return cow_reservation_has(volume, COW_FOR_NUMBERS, ROOM_FOR_ROWS);
}

static bool can_write(const struct cow_volume *volume)
{
	return !volume->store->read_only && has_room(volume);
}

static int look_up(struct cow_volume *volume, uint8_t type, uint64_t a, uint64_t b, uint64_t *counter, uint64_t *value)
{
	struct cow_row row, *there = volume->rows.count != 0 ? find_in_memory(volume, type, a, b) : NULL;
	bool write = can_write(volume) && !volume->replaying;
	uint64_t key;
	int error;

	if (there != NULL) {
		*value = there->value;
		return 0;
	}
	error = find(volume, type, a, b, &key, &row);
	if (error == 0)
		*value = row.value;
	if (error != -ENOENT)
		return error;
	error = -ENOENT;
	if (write)
		error = cow_tree_reserve(volume->store, table(volume), key);
	if (write && error == 0)
		error = type == COW_ROW_CHUNK ? reuse_chunk(volume, value) : -ENOENT;
	if (error == -ENOENT && volume->replaying) {
		*value = ONLY_FOR_NOW + volume->rows_for_now++;
		error = 0;
	} else if (error == -ENOENT) {
		if (type == COW_ROW_CHUNK && *counter >= COW_CHUNK_MAX)
			return -EOVERFLOW;
		*value = (*counter)++;
		error = 0;
	}
	row = (struct cow_row){type, a, b, *value};
	if (error == 0 && write) {
		put(volume, key, &row);
		cow_note_row(volume, &row);
	} else if (error == 0)
		put_in_memory(volume, &row);
	return error;
}

int cow_number_colour(struct cow_volume *volume, uint64_t parent, uint64_t tag, uint64_t *colour)
{
	*colour = parent;
	return tag == 0 ? 0 : look_up(volume, COW_ROW_COLOUR, parent, tag, &volume->counters.colour, colour);
}

int cow_number_ino(struct cow_volume *volume, uint64_t colour, uint64_t n, uint64_t *ino)
{
	uint64_t chunk;
	int error = look_up(volume, COW_ROW_CHUNK, colour, n >> COW_CHUNK_SHIFT, &volume->counters.chunk, &chunk);

	if (error == 0)
		*ino = chunk << COW_CHUNK_SHIFT | (n & ((1u << COW_CHUNK_SHIFT) - 1));
	return error;
}

/* ------------------------------------------------------------------ rename and removal */

int cow_number_reserve(struct cow_volume *volume, uint64_t parent, uint64_t tag)
{
	struct cow_row row;
	uint64_t key;
	int error;

	if (tag == 0)
		return 0;
	error = find(volume, COW_ROW_COLOUR, parent, tag, &key, &row);
	return error != 0 && error != -ENOENT ? error : cow_tree_reserve(volume->store, table(volume), key);
}

void cow_number_set(struct cow_volume *volume, uint64_t parent, uint64_t tag, uint64_t colour)
{
	struct cow_row row;
	uint64_t key;
	int error = find(volume, COW_ROW_COLOUR, parent, tag, &key, &row);

	assert(error == 0 || error == -ENOENT);
	row = (struct cow_row){COW_ROW_COLOUR, parent, tag, colour};
	put(volume, key, &row);
}

void cow_number_drop(struct cow_volume *volume, uint64_t parent, uint64_t tag)
{
	struct cow_row row;
	uint64_t key;
	int error;

	if (tag == 0)
		return;
	drop_in_memory(volume, COW_ROW_COLOUR, parent, tag);
	error = find(volume, COW_ROW_COLOUR, parent, tag, &key, &row);
	if (error == 0)
		error = cow_tree_del(volume->store, table(volume), key);
	assert(error == 0 || error == -ENOENT);
	volume->rows_dropped++;
	volume->store->changes++;
}

int cow_number_restore(struct cow_volume *volume, const struct cow_row *row)
{
	struct cow_row there;
	uint64_t key, free_key = 0;
	bool was_free = false;
	int error = find(volume, row->type, row->a, row->b, &key, &there);

	if (error == 0)
		return COW_ERR_DAMAGED;
	if (error == -ENOENT)
		error = cow_tree_reserve(volume->store, table(volume), key);
	if (error == 0 && row->type == COW_ROW_CHUNK) {
		error = find(volume, COW_ROW_FREE_CHUNK, row->value, 0, &free_key, &there);
		was_free = error == 0;
		if (was_free)
			error = cow_tree_reserve(volume->store, table(volume), free_key);
		if (was_free && error == 0)
			error = cow_tree_del(volume->store, table(volume), free_key);
		if (error == -ENOENT)
			error = 0;
	}
	if (error == 0) {
		drop_in_memory(volume, row->type, row->a, row->b);
		put(volume, key, row);
	}
	return error;
}

/* ------------------------------------------------------------------ sweep */

static void forget_rows(struct cow_rows *rows)
{
	free(rows->list);
	free(rows->keys);
	*rows = (struct cow_rows){0};
}

static int read_all(struct cow_volume *volume, struct cow_rows *rows)
{
	struct cow_item item;
	int error;

	for (uint64_t at = 0;; at = item.key + 1) {
		struct cow_row row;
		error = cow_tree_next(volume->store, table(volume), at, &item);
		if (error == 0)
			error = cow_row_decode(item.value, item.length, &row);
		if (error != 0)
			return error == -ENOENT ? 0 : error;
		if (rows->count == rows->size) {
			rows->size = rows->size != 0 ? 2 * rows->size : 256;
			rows->list = cow_mem_resize(rows->list, rows->size * sizeof(*rows->list));
			rows->keys = cow_mem_resize(rows->keys, rows->size * sizeof(*rows->keys));
		}
		rows->list[rows->count] = row;
		rows->keys[rows->count++] = item.key;
	}
}

static void *const MARK = (void *)1;

/* Colours in memory: a set, from the root down through all inodes that are there. */
static void pin_colours(struct cow_inode *dir, struct cow_map *live)
{
	/* Children hold their parents: walking up from every tracked or open inode would miss idle ones, so down. */
	struct cow_inode **stack = NULL;
	size_t depth = 0, size = 0;
	struct cow_map_slot *slot;

	do {
		struct cow_map *maps[2] = {&dir->kids, &dir->linked};
		cow_map_put(live, dir->colour, MARK);
		for (int m = 0; m < 2; m++)
			for (size_t i = 0; (slot = cow_map_each(maps[m], &i)) != NULL;) {
				if (depth == size) {
					size = size != 0 ? 2 * size : 64;
					stack = cow_mem_resize(stack, size * sizeof(*stack));
				}
				stack[depth++] = slot->value;
			}
		dir = depth > 0 ? stack[--depth] : NULL;
	} while (dir != NULL);
	free(stack);
}

/* Rows that found no space lead to others that did: what they name may be looked up again at any time. */
static void pin_memory(struct cow_volume *volume, struct cow_map *live)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(&volume->rows, &i)) != NULL;)
		for (struct memory_row *m = slot->value; m != NULL; m = m->next)
			cow_map_put(live, m->row.type == COW_ROW_COLOUR ? m->row.value : m->row.a, MARK);
}

/* A row of a dead colour goes; a chunk may be used again after the next commit. Colours are never used again: there are
 * 2^64 of them. */
static int free_row(struct cow_volume *volume, uint64_t key, const struct cow_row *row)
{
	struct cow_row there, gone = {COW_ROW_FREE_CHUNK, row->value, 0, volume->store->generation};
	uint64_t free_key = 0;
	int error = cow_tree_reserve(volume->store, table(volume), key);

	if (error == 0 && row->type == COW_ROW_CHUNK) {
		error = find(volume, COW_ROW_FREE_CHUNK, row->value, 0, &free_key, &there);
		if (error == -ENOENT)
			error = cow_tree_reserve(volume->store, table(volume), free_key);
	}
	if (error == 0)
		error = cow_tree_del(volume->store, table(volume), key);
	if (error == 0 && row->type == COW_ROW_CHUNK)
		put(volume, free_key, &gone);
	if (error == 0)
		cow_note_commit(volume);
	volume->store->changes++;
	return error;
}

/* Rows (a, tag) -> colour live while `a` is reached. */
static void mark(const struct cow_rows *rows, struct cow_map *live)
{
	struct cow_map first = {0}; /* a -> its first row + 1 */
	size_t *next = cow_mem_new((rows->count + 1) * sizeof(*next)), count = 0;
	uint64_t *todo = cow_mem_new((live->count + rows->count + 1) * sizeof(*todo));
	struct cow_map_slot *slot;

	for (size_t i = 0; i < rows->count; i++)
		if (rows->list[i].type == COW_ROW_COLOUR) {
			next[i] = (uintptr_t)cow_map_get(&first, rows->list[i].a);
			cow_map_put(&first, rows->list[i].a, (void *)(uintptr_t)(i + 1));
		}
	for (size_t i = 0; (slot = cow_map_each(live, &i)) != NULL;)
		todo[count++] = slot->key;
	while (count > 0)
		for (size_t i = (uintptr_t)cow_map_get(&first, todo[--count]), n; i != 0; i = n) {
			n = next[i - 1];
			if (cow_map_get(live, rows->list[i - 1].value) == NULL) {
				cow_map_put(live, rows->list[i - 1].value, MARK);
				todo[count++] = rows->list[i - 1].value;
			}
		}
	cow_map_free(&first);
	free(next);
	free(todo);
}

/* What comes next begins anew at each miss: so all is made to be in memory first, where this goes on after a miss. */
static int load_all(struct cow_volume *volume, uint64_t *at)
{
	struct cow_item item;
	int error;

	while ((error = cow_tree_next(volume->store, table(volume), *at, &item)) == 0)
		*at = item.key + 1;
	return error == -ENOENT ? 0 : error;
}

/* A colour that is dead stays so: nothing leads to it, and it is never given again. */
static int find_dead(struct cow_volume *volume, uint64_t *at)
{
	struct cow_map live = {0};
	struct cow_rows rows = {0};
	int error = load_all(volume, at);

	if (error == 0)
		error = read_all(volume, &rows);
	if (error != 0) {
		forget_rows(&rows);
		return error;
	}
	cow_map_put(&live, 0, MARK);
	pin_colours(volume->root, &live);
	for (struct cow_inode *i = volume->open; i != NULL; i = i->open_next)
		cow_map_put(&live, i->colour, MARK); /* orphans are in nobody's map */
	pin_memory(volume, &live);
	mark(&rows, &live);
	for (size_t i = 0; i < rows.count; i++)
		if (rows.list[i].type != COW_ROW_FREE_CHUNK && cow_map_get(&live, rows.list[i].a) == NULL) {
			rows.list[volume->dead.count] = rows.list[i];
			rows.keys[volume->dead.count++] = rows.keys[i];
		}
	volume->dead.list = rows.list;
	volume->dead.keys = rows.keys;
	volume->rows_dropped = 0;
	cow_map_free(&live);
	return 0;
}

bool cow_number_may_sweep(const struct cow_volume *volume)
{
	return volume->dead.count > 0 || volume->rows_dropped >= SWEEP_AFTER;
}

int cow_number_sweep(struct cow_volume *volume, uint64_t *at)
{
	struct cow_rows *dead = &volume->dead;
	int error = dead->count > 0 ? 0 : find_dead(volume, at);

	/* The table may have more nodes than there are free blocks, and the rows lie anywhere in it. */
	while (error == 0 && dead->count > 0) {
		if (volume->store->dirty_nodes >= volume->node_limit || !has_room(volume))
			return *at == DONE_SOME;
		error = free_row(volume, dead->keys[dead->count - 1], &dead->list[dead->count - 1]);
		error = error == -ENOENT ? 0 : error;
		if (error == 0) {
			dead->count--;
			*at = DONE_SOME;
		}
	}
	if (error != COW_MISS)
		forget_rows(dead);
	return error;
}

void cow_number_forget(struct cow_volume *volume)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(&volume->rows, &i)) != NULL;)
		for (struct memory_row *m = slot->value, *next; m != NULL; m = next) {
			next = m->next;
			free(m);
		}
	cow_map_free(&volume->rows);
	forget_rows(&volume->dead);
}
