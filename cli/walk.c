// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The walk of a source: depth first, names sorted, so that the same tree gives the same image or archive.
 *
 * The stack is on the heap: trees may be nested deeper than the machine's stack is long.
 */
#include "cli/walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/map.h"
#include "base/mem.h"
#include "cli/acl.h"

/* ------------------------------------------------------------------ names */

void cow_names_add(struct cow_names *names, const char *name)
{
	if (names->count == names->size) {
		names->size = names->size != 0 ? names->size * 2 : 16;
		names->names = cow_mem_resize(names->names, names->size * sizeof(*names->names));
	}
	names->names[names->count++] = cow_mem_copy(name, strlen(name) + 1);
}

void cow_names_free(struct cow_names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->names[i]);
	free(names->names);
	*names = (struct cow_names){0};
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* ------------------------------------------------------------------ hard links: who was seen under which name */

struct seen {
	uint64_t dev, ino;
	struct seen *next; /* same hash */
	char path[];
};

static uint64_t seen_key(const struct cow_tree_item *item)
{
	return item->ino * 0x9e3779b97f4a7c15ull ^ item->dev;
}

/* The first path of the same inode, or NULL: then this one is remembered. */
static const char *first_path(struct cow_map *map, const struct cow_tree_item *item)
{
	struct seen *head = cow_map_get(map, seen_key(item)), *fresh;

	for (struct seen *s = head; s != NULL; s = s->next)
		if (s->dev == item->dev && s->ino == item->ino)
			return s->path;
	fresh = cow_mem_new(sizeof(*fresh) + strlen(item->path) + 1);
	fresh->dev = item->dev;
	fresh->ino = item->ino;
	fresh->next = head;
	strcpy(fresh->path, item->path);
	cow_map_put(map, seen_key(item), fresh);
	return NULL;
}

static void free_seen(struct cow_map *map)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(map, &i)) != NULL;) {
		struct seen *next;

		for (struct seen *s = slot->value; s != NULL; s = next) {
			next = s->next;
			free(s);
		}
	}
	cow_map_free(map);
}

/* ------------------------------------------------------------------ the walk */

struct frame {
	struct cow_tree_node node;
	struct cow_tree_item item;
	struct cow_names names;
	size_t next;
	size_t length; /* of the path of this directory */
	bool borrowed; /* the top's node is the caller's */
};

struct state {
	struct cow_walk *walk;
	struct frame *frames;
	size_t depth, size;
	char *path;
	size_t path_size;
	struct cow_map seen;
};

static int tell(struct state *state, int error)
{
	char *full;

	if (error == COW_WALK_TOLD)
		return COW_EXIT_TROUBLE;
	if (asprintf(&full, "%s%s%s", state->walk->name, state->path[0] != '\0' ? "/" : "", state->path) < 0)
		return COW_EXIT_TROUBLE;
	cow_say_error(state->walk->sink->cli, full, error);
	free(full);
	return COW_EXIT_TROUBLE;
}

int cow_walk_write(struct cow_walk *walk, const void *data, size_t size, uint64_t offset)
{
	struct cow_sink *sink = walk->sink;

	if (sink->ops->write(sink, data, size, offset) != 0 || cow_progress_step(sink->progress, 0, size) != 0)
		return COW_WALK_TOLD;
	return 0;
}

/* Takes over node and item. */
static int push(struct state *state, struct cow_tree_node node, struct cow_tree_item *item, bool borrowed)
{
	struct frame *frame;
	int error = 0;

	if (state->depth == state->size) {
		state->size = state->size != 0 ? state->size * 2 : 32;
		state->frames = cow_mem_resize(state->frames, state->size * sizeof(*state->frames));
	}
	frame = &state->frames[state->depth++];
	*frame = (struct frame){.node = node, .item = *item, .length = strlen(state->path), .borrowed = borrowed};
	if (!state->walk->one || item->dev == state->walk->dev)
		error = state->walk->ops->list(state->walk, node, &frame->names);
	if (error != 0)
		return tell(state, error);
	if (frame->names.count > 0)
		qsort(frame->names.names, frame->names.count, sizeof(char *), by_name);
	return 0;
}

static void pop(struct state *state)
{
	struct frame *frame = &state->frames[--state->depth];

	if (!frame->borrowed)
		state->walk->ops->close(state->walk, frame->node);
	cow_tree_item_free(&frame->item);
	cow_names_free(&frame->names);
}

/* One item; takes over node and item. A directory is pushed, the rest is done here. */
static int visit(struct state *state, struct cow_tree_node node, struct cow_tree_item *item, bool borrowed)
{
	struct cow_sink *sink = state->walk->sink;
	int error = cow_progress_step(sink->progress, 1, 0);

	item->path = state->path;
	cow_acl_item(item);
	if (item->nlink > 1 && !S_ISDIR(item->mode))
		item->link = first_path(&state->seen, item);
	if (error == 0)
		error = sink->ops->add(sink, item);
	if (error == 0 && S_ISDIR(item->mode))
		return push(state, node, item, borrowed);
	if (error == 0 && S_ISREG(item->mode) && item->link == NULL) {
		error = state->walk->ops->data(state->walk, node, item);
		error = error != 0 ? tell(state, error) : sink->ops->done(sink, item);
	}
	if (!borrowed)
		state->walk->ops->close(state->walk, node);
	cow_tree_item_free(item);
	return error;
}

static void append(struct state *state, size_t length, const char *name)
{
	size_t need = length + strlen(name) + 2;

	if (need > state->path_size) {
		state->path_size = need * 2;
		state->path = cow_mem_resize(state->path, state->path_size);
	}
	if (length > 0)
		state->path[length++] = '/';
	strcpy(state->path + length, name);
}

static int step(struct state *state)
{
	struct frame *top = &state->frames[state->depth - 1];
	struct cow_tree_node node = {.fd = -1};
	struct cow_tree_item item = {0};
	int error;

	if (top->next == top->names.count) {
		state->path[top->length] = '\0';
		top->item.path = state->path;
		error = state->walk->sink->ops->done(state->walk->sink, &top->item);
		pop(state);
		return error;
	}
	append(state, top->length, top->names.names[top->next]);
	error = state->walk->ops->child(state->walk, top->node, top->names.names[top->next++], &node, &item);
	if (error == -ENOENT)
		return 0; /* removed since it was listed */
	if (error != 0)
		return tell(state, error);
	return visit(state, node, &item, false);
}

int cow_walk_run(struct cow_walk *walk, struct cow_tree_node top, struct cow_tree_item *item)
{
	struct state state = {.walk = walk};
	int error;

	walk->dev = item->dev;
	walk->buffer = cow_mem_new(COW_WALK_BUFFER);
	append(&state, 0, "");
	error = visit(&state, top, item, true);
	while (error == 0 && state.depth > 0)
		error = step(&state);
	while (state.depth > 0)
		pop(&state);
	free(state.frames);
	free(state.path);
	free_seen(&state.seen);
	free(walk->buffer);
	return error;
}
