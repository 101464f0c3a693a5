/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/chronicle.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Room for one more; returns the array. */
static void *grow(void *array, unsigned count, unsigned *room, size_t size)
{
	if (count < *room)
		return array;
	*room = *room * 2 + 16;
	return cow_mem_resize(array, *room * size);
}

void chronicle_free(struct chronicle *c)
{
	for (unsigned i = 0; i < c->count; i++)
		ora_node_put(c->moments[i].root);
	for (unsigned i = 0; i < c->version_count; i++)
		content_put(c->versions[i].content);
	free(c->moments);
	free(c->versions);
	free(c->promises);
	free(c->eras);
	cow_map_free(&c->newest);
	memset(c, 0, sizeof(*c));
}

/* ------------------------------------------------------------------ writing it */

static unsigned newest_of(const struct chronicle *c, uint64_t file)
{
	return (unsigned)(uintptr_t)cow_map_get(&c->newest, file);
}

/* Contents are immutable as long as two hold them, so another content is another version. */
static void note_versions(struct chronicle *c, struct ora_node *n)
{
	unsigned newest = newest_of(c, n->id);

	for (unsigned i = 0; i < n->kid_count; i++)
		note_versions(c, n->kids[i].node);
	if (!S_ISREG(n->mode) || (newest != 0 && c->versions[newest - 1].content == n->content &&
				  c->versions[newest - 1].mtime == n->mtime))
		return;
	c->versions = grow(c->versions, c->version_count, &c->version_room, sizeof(*c->versions));
	c->versions[c->version_count++] = (struct version){chronicle_now(c), newest, content_hold(n->content),
							   n->mtime};
	cow_map_put(&c->newest, n->id, (void *)(uintptr_t)c->version_count);
}

void chronicle_add(struct chronicle *c, const struct ora *ora, uint64_t begun)
{
	c->moments = grow(c->moments, c->count, &c->room, sizeof(*c->moments));
	c->moments[c->count++] = (struct moment){ora_tree_copy(ora->root, true), begun};
	note_versions(c, ora->root);
	for (unsigned i = 0; i < ORA_HANDLES; i++)
		if (ora->handle[i] != NULL)
			note_versions(c, ora->handle[i]);
}

void chronicle_commit(struct chronicle *c, uint64_t first, uint64_t last, unsigned oldest, unsigned newest)
{
	for (uint64_t g = first; g <= last; g++) {
		c->eras = grow(c->eras, c->era_count, &c->era_room, sizeof(*c->eras));
		c->eras[c->era_count++] = (struct era){g, oldest, newest, false};
	}
}

void chronicle_start(struct chronicle *c, const struct ora *ora, uint64_t generation)
{
	chronicle_free(c);
	chronicle_add(c, ora, 0);
	chronicle_commit(c, generation, generation, 0, 0);
}

void chronicle_promise(struct chronicle *c, const struct promise *promise)
{
	c->promises = grow(c->promises, c->promise_count, &c->promise_room, sizeof(*c->promises));
	c->promises[c->promise_count++] = *promise;
}

/* ------------------------------------------------------------------ judging */

static const struct era *find_era(const struct chronicle *c, uint64_t generation)
{
	for (unsigned i = 0; i < c->era_count; i++)
		if (c->eras[i].generation == generation)
			return &c->eras[i];
	return NULL;
}

bool chronicle_is_partial(const struct chronicle *c, uint64_t generation)
{
	const struct era *era = find_era(c, generation);

	return era != NULL && era->partial;
}

bool chronicle_range(const struct chronicle *c, uint64_t generation, uint64_t event, struct chronicle_range *range)
{
	const struct era *era = find_era(c, generation);

	if (era == NULL)
		return false;
	*range = (struct chronicle_range){era->oldest, era->newest, true, era->oldest, event};
	for (unsigned i = 0; i < c->promise_count; i++) {
		const struct promise *p = &c->promises[i];

		if (p->kind == PROMISE_OVER)
			continue;
		if (p->kept <= event && !c->forgives && p->moment > range->first)
			range->first = p->moment;
		if (p->kind == PROMISE_FSYNC && p->begun <= event && p->moment > era->oldest) {
			range->exact = false;
			if (p->moment > range->last)
				range->last = p->moment;
		}
	}
	return true;
}

/* The moment whose content the file has at least. */
static unsigned floor_of(const struct chronicle *c, const struct chronicle_range *range, uint64_t file,
			 unsigned moment)
{
	unsigned floor = range->exact ? moment : range->base;

	for (unsigned i = 0; i < c->promise_count; i++) {
		const struct promise *p = &c->promises[i];
		bool counts = p->kind == PROMISE_OVER ? p->file == file && p->moment <= moment
						      : p->kept <= range->event && !c->forgives &&
								(p->kind == PROMISE_SYNC || p->file == file);

		if (counts && p->moment > floor)
			floor = p->moment;
	}
	return floor;
}

const struct version *chronicle_version(const struct chronicle *c, const struct chronicle_range *range, uint64_t file,
					unsigned moment, unsigned *next)
{
	unsigned floor = floor_of(c, range, file, moment), number = *next != 0 ? *next : newest_of(c, file);
	const struct version *v;

	if (number == UINT_MAX)
		return NULL;
	while (number != 0 && c->versions[number - 1].moment > moment)
		number = c->versions[number - 1].older;
	if (number == 0)
		return NULL;
	v = &c->versions[number - 1];
	*next = v->moment <= floor || v->older == 0 ? UINT_MAX : v->older;
	return v;
}

uint64_t chronicle_demands(const struct chronicle *c, uint64_t event)
{
	uint64_t known = 0;

	for (unsigned i = 0; i < c->promise_count; i++)
		known += (c->promises[i].begun <= event) + ((uint64_t)(c->promises[i].kept <= event) << 32);
	return known;
}
