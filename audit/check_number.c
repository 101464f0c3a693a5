/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Numbers (doc/DESIGN.md, "Inode numbers"): the table, and that (colour, n) occurs once.
 *
 * A *region* is what has one colour by itself: a world without those nested in it, or one tagged file. Only regions
 * that have a colour, by rows from colour 0 on, are followed, each row once: so clones of clones that nobody entered
 * cost nothing, however many they would be. Of the others only the record that is stored is looked at.
 *
 * LINEAR. Two regions of different colours cannot collide, so a region alone in its colour needs a look only at itself,
 * and that once for all that share its tree. Thousands of clones that differ a little would still take thousands of
 * walks: these are made up to a budget in proportion to what is stored.
 */
#include "audit/check_walk.h"

#include <inttypes.h>
#include <stdlib.h>

struct region {
	uint64_t colour;
	struct cow_ptr tree, links;
	uint64_t number; /* of the top, or the file */
	bool is_file;
};

struct todo {
	struct cow_ptr tree;
};

struct scan {
	struct cow_check *check;
	uint8_t *row_used;
	struct region *regions;
	size_t region_count, region_size;

	uint64_t colour; /* of the region being scanned */
	struct todo *todo; /* directories of it */
	size_t count, size;
	/* sets */
	struct cow_map dirs; /* n of directories scanned: a ring ends there */
	struct cow_map names; /* link keys that have names in the region */
	struct cow_map numbers; /* n met in this colour */
	uint64_t walked, budget;
};

/* ------------------------------------------------------------------ the table */

static int row_order(const void *a, const void *b)
{
	const struct cow_row *x = a, *y = b;

	if (x->type != y->type)
		return x->type < y->type ? -1 : 1;
	if (x->a != y->a)
		return x->a < y->a ? -1 : 1;
	return (x->b > y->b) - (x->b < y->b);
}

static int number_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void check_row(struct cow_check *c, const struct cow_row *row)
{
	const struct cow_counters *counters = &c->counters;
	bool fits;

	if (row->type == COW_ROW_COLOUR)
		fits = row->a < counters->colour && row->b < counters->number && row->value < counters->colour;
	else if (row->type == COW_ROW_CHUNK)
		fits = row->a < counters->colour && row->b <= counters->number >> COW_CHUNK_SHIFT &&
		       row->value < counters->chunk;
	else
		fits = row->a < counters->chunk && row->b == 0;
	if (!fits)
		cow_check_say(c, COW_FIND_NUMBER_RANGE, 0,
			      "row %u of (%" PRIu64 ", %" PRIu64 ") -> %" PRIu64 " is beyond the counters", row->type,
			      row->a, row->b, row->value);
}

/* With (colour, n) unique, st_ino is unique if and only if no chunk has two owners. */
static void check_chunks(struct cow_check *c)
{
	uint64_t *chunks = cow_check_new(c, c->row_count * sizeof(*chunks));
	size_t count = 0;

	for (size_t i = 0; i < c->row_count; i++)
		if (c->rows[i].type != COW_ROW_COLOUR)
			chunks[count++] = c->rows[i].type == COW_ROW_CHUNK ? c->rows[i].value : c->rows[i].a;
	if (count > 1)
		qsort(chunks, count, sizeof(*chunks), number_order);
	for (size_t i = 1; i < count; i++)
		if (chunks[i] == chunks[i - 1])
			cow_check_say(c, COW_FIND_CHUNK_TWICE, 0, "chunk %" PRIu64 " has two owners", chunks[i]);
	cow_check_free(c, chunks, c->row_count * sizeof(*chunks));
}

static void check_rows(struct cow_check *c)
{
	if (c->row_count == 0)
		return;
	qsort(c->rows, c->row_count, sizeof(*c->rows), row_order);
	for (size_t i = 0; i < c->row_count; i++) {
		check_row(c, &c->rows[i]);
		if (i > 0 && row_order(&c->rows[i - 1], &c->rows[i]) == 0)
			cow_check_say(c, COW_FIND_ROW, 0, "row %u of (%" PRIu64 ", %" PRIu64 ") is there twice",
				      c->rows[i].type, c->rows[i].a, c->rows[i].b);
	}
	check_chunks(c);
}

/* ------------------------------------------------------------------ regions */

static void add_region(struct scan *s, const struct region *region)
{
	s->regions = cow_check_grow(s->check, s->regions, s->region_count, &s->region_size, sizeof(*s->regions));
	s->regions[s->region_count++] = *region;
}

/* Something with a tag, met in the region that is scanned: has it a colour? */
static void add_tagged(struct scan *s, const struct cow_record *r)
{
	struct cow_row key = {.type = COW_ROW_COLOUR, .a = s->colour, .b = r->tag}, *row;

	if (r->tag == 0) {
		cow_check_say(s->check, COW_FIND_ROW, 0, "the clone at directory %" PRIu64 " has no tag", r->number);
		return;
	}
	if (s->check->row_count == 0)
		return;
	row = bsearch(&key, s->check->rows, s->check->row_count, sizeof(key), row_order);
	if (row == NULL)
		return; /* nobody entered it */
	if (s->row_used[row - s->check->rows]) {
		cow_check_say(s->check, COW_FIND_NUMBER_TWICE, 0, "tag %" PRIu64 " is at two places in colour %" PRIu64,
			      r->tag, s->colour);
		return;
	}
	s->row_used[row - s->check->rows] = 1;
	add_region(s, &(struct region){.colour = row->value,
				       .tree = r->tree,
				       .links = r->links,
				       .number = r->number,
				       .is_file = r->body != COW_BODY_DIR});
}

static bool push_dir(struct scan *s, uint64_t number, struct cow_ptr tree)
{
	if (!cow_check_set_add(&s->dirs, number))
		return false;
	s->todo = cow_check_grow(s->check, s->todo, s->count, &s->size, sizeof(*s->todo));
	s->todo[s->count++] = (struct todo){tree};
	return true;
}

static bool tree_carries(const struct cow_check_node *node)
{
	return node->carries;
}

static int tagged_item(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct scan *s = context;
	struct cow_dirent entry;
	struct cow_record r;
	const struct cow_check_node *tree;

	(void)key;
	if (cow_dirent_decode(value, length, &entry) != 0 || entry.is_link ||
	    cow_record_decode(entry.record.bytes, entry.record.length, 0, &r) != 0)
		return 0;
	tree = r.body == COW_BODY_DIR ? cow_check_seen(s->check, r.tree) : NULL;
	if (r.is_world || r.tag != 0)
		add_tagged(s, &r);
	else if (tree != NULL && tree->carries)
		push_dir(s, r.number, r.tree);
	return 0;
}

static int tagged_row(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct scan *s = context;
	struct cow_link_row row;
	struct cow_record r;

	if (cow_check_set_has(&s->names, key) && cow_link_row_decode(value, length, &row) == 0 &&
	    cow_record_decode(row.record.bytes, row.record.length, 0, &r) == 0 && r.tag != 0)
		add_tagged(s, &r);
	return 0;
}

static bool links_tagged(const struct cow_check_node *node)
{
	return node->tagged;
}

/* The regions that are nested in one. */
static void find_nested(struct scan *s, const struct region *region)
{
	const struct cow_check_node *links = cow_check_seen(s->check, region->links);

	s->colour = region->colour;
	push_dir(s, region->number, region->tree);
	while (s->count > 0)
		cow_check_each(s->check, s->todo[--s->count].tree,
			       &(struct cow_check_each){.item = tagged_item, .enter = tree_carries, .context = s});
	cow_map_free(&s->dirs);
	if (links == NULL || !links->tagged)
		return;
	s->names = cow_check_names(s->check, region->tree);
	cow_check_each(s->check, region->links,
		       &(struct cow_check_each){.item = tagged_row, .enter = links_tagged, .context = s});
	cow_map_free(&s->names);
}

/* ------------------------------------------------------------------ every n of a region */

static void add_number(struct scan *s, uint64_t number)
{
	s->walked++;
	if (!cow_check_set_add(&s->numbers, number))
		cow_check_say(s->check, COW_FIND_NUMBER_TWICE, 0, "number %" PRIu64 " is twice in colour %" PRIu64,
			      number, s->colour);
}

static int number_item(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct scan *s = context;
	struct cow_dirent entry;
	struct cow_record r;

	(void)key;
	if (cow_dirent_decode(value, length, &entry) != 0)
		return 0;
	if (entry.is_link) {
		cow_check_set_add(&s->names, entry.link_key);
		return 0;
	}
	if (cow_record_decode(entry.record.bytes, entry.record.length, 0, &r) != 0 || r.is_world || r.tag != 0)
		return 0;
	if (r.body != COW_BODY_DIR || push_dir(s, r.number, r.tree))
		add_number(s, r.number);
	else
		cow_check_say(s->check, COW_FIND_NUMBER_TWICE, 0, "directory %" PRIu64 " is twice in colour %" PRIu64,
			      r.number, s->colour);
	return 0;
}

static int number_row(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct scan *s = context;
	struct cow_link_row row;
	struct cow_record r;

	if (cow_check_set_has(&s->names, key) && cow_link_row_decode(value, length, &row) == 0 &&
	    cow_record_decode(row.record.bytes, row.record.length, 0, &r) == 0 && r.tag == 0)
		add_number(s, r.number);
	return 0;
}

static void add_numbers(struct scan *s, const struct region *region)
{
	s->colour = region->colour;
	add_number(s, region->number);
	if (region->is_file)
		return;
	push_dir(s, region->number, region->tree);
	while (s->count > 0)
		cow_check_each(s->check, s->todo[--s->count].tree,
			       &(struct cow_check_each){.item = number_item, .context = s});
	cow_check_each(s->check, region->links, &(struct cow_check_each){.item = number_row, .context = s});
	cow_map_free(&s->names);
	cow_map_free(&s->dirs);
}

static bool in_budget(const struct scan *s, const struct region *region)
{
	/* an upper bound of what add_numbers() will come across */
	uint64_t size = (uintptr_t)cow_map_get(&s->check->sizes, region->tree.addr);

	return s->walked < s->budget && size <= s->budget - s->walked;
}

static int region_order(const void *a, const void *b)
{
	const struct region *x = a, *y = b;

	if (x->colour != y->colour)
		return x->colour < y->colour ? -1 : 1;
	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	return (x->tree.addr > y->tree.addr) - (x->tree.addr < y->tree.addr);
}

/* By content: the same tree, links and top are the same numbers. */
static int content_order(const void *a, const void *b)
{
	const struct region *x = a, *y = b;

	if (x->tree.addr != y->tree.addr)
		return x->tree.addr < y->tree.addr ? -1 : 1;
	if (x->links.addr != y->links.addr)
		return x->links.addr < y->links.addr ? -1 : 1;
	return (x->number > y->number) - (x->number < y->number);
}

/* Colours with several regions: all of them. What is left in the list are regions alone in their colour. */
static void check_shared_colours(struct scan *s)
{
	size_t alone = 0;

	qsort(s->regions, s->region_count, sizeof(*s->regions), region_order);
	for (size_t i = 0, end; i < s->region_count; i = end) {
		for (end = i + 1; end < s->region_count && s->regions[end].colour == s->regions[i].colour; end++)
			;
		if (end == i + 1) {
			if (!s->regions[i].is_file)
				s->regions[alone++] = s->regions[i];
			continue;
		}
		for (size_t k = i; k < end; k++)
			add_numbers(s, &s->regions[k]);
		cow_map_free(&s->numbers);
	}
	s->region_count = alone;
}

static void check_alone(struct scan *s)
{
	if (s->region_count > 1)
		qsort(s->regions, s->region_count, sizeof(*s->regions), content_order);
	for (size_t i = 0; i < s->region_count; i++) {
		if ((i > 0 && content_order(&s->regions[i - 1], &s->regions[i]) == 0) || !in_budget(s, &s->regions[i]))
			continue;
		add_numbers(s, &s->regions[i]);
		cow_map_free(&s->numbers);
	}
}

void cow_check_numbers(struct cow_check *c)
{
	struct scan s = {.check = c, .budget = 4 * c->entries + 1000000};

	check_rows(c);
	if (!c->has_root)
		return;
	s.row_used = cow_check_new(c, c->row_count + 1);
	add_region(&s, &(struct region){.tree = c->root.tree, .links = c->root.links, .number = c->root.number});
	for (size_t i = 0; i < s.region_count; i++)
		if (!s.regions[i].is_file) {
			struct region region = s.regions[i]; /* the list may move */

			find_nested(&s, &region);
		}
	check_shared_colours(&s);
	/* worlds that nobody entered, by their records: each would be alone in its colour */
	for (size_t i = 0; i < c->world_count; i++)
		add_region(&s, &(struct region){.tree = c->worlds[i].tree,
						.links = c->worlds[i].links,
						.number = c->worlds[i].top,
						.colour = UINT64_MAX});
	check_alone(&s);
	cow_check_free(c, s.row_used, c->row_count + 1);
	cow_check_free(c, s.todo, s.size * sizeof(*s.todo));
	cow_check_free(c, s.regions, s.region_size * sizeof(*s.regions));
}
