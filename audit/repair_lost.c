/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What hangs below something damaged: nodes with a count that nothing leads to any more, and /lost+found, where they
 * go.
 *
 * A tree found so gets a record of its own: a directory becomes a world (its number and those below it are then in a
 * colour of their own, whatever clone they came from), without the names of hard links, whose records were in a world
 * that nobody can tell now. A file's size is that of its map.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <xxhash.h>

#include "base/mem.h"
#include "audit/repair.h"
#include "store/node.h"

#define ROOT_NUMBER 1u

struct lost {
	struct cow_ptr ptr;
	uint8_t kind;
	uint32_t holders; /* pointers to it in others that are lost */
};

struct scan {
	struct cow_repair *repair;
	struct cow_map nodes; /* address -> struct lost */
};

static struct cow_when now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_REALTIME, &time);
	return (struct cow_when){time.tv_sec, (uint32_t)time.tv_nsec};
}

static int number_order(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Keys of a map, ascending: what is found has to come in an order that does not depend on hashes. */
static uint64_t *sorted_keys(const struct cow_map *map)
{
	uint64_t *keys = cow_mem_new((map->count + 1) * sizeof(*keys));
	struct cow_map_slot *slot;
	size_t count = 0;

	for (size_t i = 0; (slot = cow_map_each(map, &i)) != NULL;)
		keys[count++] = slot->key;
	if (count > 1)
		qsort(keys, count, sizeof(*keys), number_order);
	return keys;
}

/* ------------------------------------------------------------------ finding them */

static uint64_t first_key(const struct cow_repair *r, struct cow_slice name)
{
	const uint8_t *hash_key = r->counters.hash_key;
	uint64_t hash = XXH3_64bits_withSeed(name.bytes, name.length, get64(hash_key) ^ get64(hash_key + 8)) >> 8;

	return (hash != 0 ? hash : 1) * COW_KEY_ORDINALS;
}

/* A name vouches for its key, and the key for the name. */
static bool name_fits(const struct cow_repair *r, const struct cow_check_item *item)
{
	struct cow_dirent entry;

	return cow_dirent_decode(item->value, item->length, &entry) == 0 &&
	       (entry.name.length == 0 || item->key - item->key % COW_KEY_ORDINALS == first_key(r, entry.name));
}

/* A node in every respect but that nobody vouches for it. */
static bool looks_like_node(const struct cow_repair *r, uint64_t block, const uint8_t *bytes)
{
	struct cow_ptr ptr = {.addr = block, .generation = get64(bytes + 16)};
	uint64_t last = 0;

	if (get32(bytes) != COW_NODE_MAGIC || bytes[4] < COW_KIND_DIR || bytes[4] > COW_KIND_BLOB ||
	    ptr.generation == 0 || ptr.generation > r->super.generation || get16(bytes + 6) == 0 ||
	    cow_check_header(bytes, ptr, bytes[4], -1) != NULL)
		return false;
	for (unsigned i = 0; i < get16(bytes + 6); i++) {
		struct cow_check_item item;

		if (!cow_repair_item(r, bytes, i, &item) || (i > 0 && item.key <= last) ||
		    (bytes[4] == COW_KIND_DIR && bytes[5] == 0 && !name_fits(r, &item)))
			return false;
		last = item.key;
	}
	return true;
}

static void look_at(struct scan *s, uint64_t block)
{
	struct cow_repair *r = s->repair;
	uint8_t bytes[COW_BLOCK];
	struct lost *lost;

	if (cow_repair_stored(r, block) <= 0 || cow_layout_is_system(block) || cow_repair_reached(r, block) ||
	    block >= r->super.total_blocks || cow_dev_read(r->dev, bytes, COW_BLOCK, block << COW_BLOCK_SHIFT) != 0 ||
	    !looks_like_node(r, block, bytes))
		return;
	lost = cow_mem_new(sizeof(*lost));
	*lost = (struct lost){.ptr = {block, XXH3_64bits(bytes, COW_BLOCK), get64(bytes + 16)}, .kind = bytes[4]};
	cow_map_put(&s->nodes, block, lost);
}

struct holder {
	struct cow_claims claims;
	struct scan *scan;
};

static void hold(struct cow_claims *self, uint8_t *bytes, uint8_t kind)
{
	struct cow_ptr ptr = cow_ptr_get(bytes);
	struct lost *lost = cow_map_get(&((struct holder *)self)->scan->nodes, ptr.addr);

	if (lost != NULL && lost->kind == kind && lost->ptr.sum == ptr.sum && lost->ptr.generation == ptr.generation)
		lost->holders++;
}

static void hold_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	(void)self, (void)block, (void)length;
}

static void hold_children(struct scan *s, const struct lost *lost)
{
	struct holder holder = {{hold, hold_run}, s};
	uint8_t bytes[COW_BLOCK];
	struct cow_check_item item;

	if (!cow_repair_load(s->repair, lost->ptr, lost->kind, -1, bytes))
		return;
	for (unsigned i = 0; i < get16(bytes + 6); i++) {
		cow_check_item_at(bytes, i, &item);
		if (bytes[5] != 0)
			hold(&holder.claims, bytes + (item.value - bytes), lost->kind);
		else
			cow_value_claims(lost->kind, bytes + (item.value - bytes), item.length, &holder.claims);
	}
}

static void find(struct scan *s)
{
	uint64_t *groups = sorted_keys(&s->repair->stored);
	struct cow_map_slot *slot;

	for (size_t i = 0; i < s->repair->stored.count; i++)
		for (uint64_t k = 0; k < COW_PIECE_BLOCKS; k++)
			look_at(s, groups[i] * COW_PIECE_BLOCKS + k);
	for (size_t i = 0; (slot = cow_map_each(&s->nodes, &i)) != NULL;)
		hold_children(s, slot->value);
	free(groups);
}

static void free_scan(struct scan *s)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(&s->nodes, &i)) != NULL;)
		free(slot->value);
	cow_map_free(&s->nodes);
}

/* Trees of directories without names are not the user's: an old root, orphans. */
static int first_entry(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	(void)key, (void)length;
	*(bool *)context = value[0] != 0;
	return 1;
}

static bool has_names(struct cow_repair *r, const struct lost *lost)
{
	bool named = false;

	return cow_repair_each(r, lost->ptr, COW_KIND_DIR, first_entry, &named) != 0 && named;
}

/* ------------------------------------------------------------------ a root that is lost */

/* Is the pointer to it still there in the damaged leaf that held the root's record? Then it is proved. */
static bool is_witnessed(const uint8_t *top, struct cow_ptr ptr)
{
	uint8_t bytes[COW_PTR_BYTES];

	cow_ptr_put(bytes, ptr);
	return memmem(top, COW_BLOCK, bytes, sizeof(bytes)) != NULL;
}

struct cow_ptr cow_repair_new_top(struct cow_repair *r)
{
	struct scan s = {.repair = r};
	uint8_t top[COW_BLOCK] = {0};
	bool proved = false;
	struct cow_record root = {
		.mode = S_IFDIR | 0755, .number = ROOT_NUMBER, .body = COW_BODY_DIR, .is_world = true};
	struct lost *dir = NULL, *links = NULL;
	unsigned dirs = 0, all_links = 0;
	uint8_t leaf[COW_BLOCK], value[COW_VALUE_MAX];
	struct cow_map_slot *slot;

	find(&s);
	if (cow_repair_read(r, r->super.roots[COW_ROOT_TOP].addr, top) != 0)
		memset(top, 0, sizeof(top));
	for (size_t i = 0; (slot = cow_map_each(&s.nodes, &i)) != NULL;) {
		struct lost *lost = slot->value;

		if (lost->kind == COW_KIND_DIR && is_witnessed(top, lost->ptr)) {
			dir = lost;
			dirs = 1;
			proved = true;
			break;
		}
	}
	for (size_t i = 0; (slot = cow_map_each(&s.nodes, &i)) != NULL;) {
		struct lost *lost = slot->value;

		if (cow_repair_stored(r, lost->ptr.addr) <= (int64_t)lost->holders)
			continue; /* all pointers to it are known: a clone may share the root's trees */
		if (lost->kind == COW_KIND_DIR && !proved && has_names(r, lost)) {
			dir = lost;
			dirs++;
		} else if (lost->kind == COW_KIND_LINKS && (!proved || is_witnessed(top, lost->ptr))) {
			links = lost;
			all_links++;
		}
	}
	/* everything else hangs below the root's own tree: if there is one left over, that is it */
	if (dirs == 1)
		root.tree = dir->ptr;
	if (dirs == 1 && all_links == 1)
		root.links = links->ptr;
	free_scan(&s);
	r->links_wrong = true; /* they may be missing */
	root.mtime = root.atime = root.ctime = root.btime = now();
	cow_repair_lost(r, NULL, NULL, r->super.roots[COW_ROOT_TOP].addr, "%s",
			dirs != 1 ? "the root directory is lost"
			: proved
				? "the root directory's attributes are lost; what is in it has been found"
				: "the root directory's attributes are lost; what is in it has been found, unverified");
	cow_build_clear(leaf, COW_KIND_DIR, 0);
	cow_build_leaf_add(leaf, COW_KEY_FIRST, value,
			   cow_dirent_encode_record((struct cow_slice){NULL, 0}, &root, value));
	return cow_build_write(r, leaf);
}

/* ------------------------------------------------------------------ keeping */

/* A name that nothing has yet: `name`, or with a number behind it. */
static void choose_name(struct cow_repair *r, const char *name, char chosen[40])
{
	uint64_t hash = XXH3_64bits(name, strlen(name));
	uintptr_t number = (uintptr_t)cow_map_get(&r->kept_names, hash) + 1;

	cow_map_put(&r->kept_names, hash, (void *)number);
	if (number == 1)
		snprintf(chosen, 40, "%s", name);
	else
		snprintf(chosen, 40, "%s.%" PRIuPTR, name, number);
}

void cow_repair_keep(struct cow_repair *r, const char *name, struct cow_record *record)
{
	struct cow_kept *kept;
	uint8_t bytes[COW_RECORD_MAX];
	uint64_t hash;

	record->tag = 0;
	hash = XXH3_64bits(bytes, cow_record_encode(record, bytes));
	if (cow_map_get(&r->kept_hashes, hash) != NULL)
		return; /* the same in another clone */
	cow_map_put(&r->kept_hashes, hash, r);
	if (r->kept_count == r->kept_size) {
		r->kept_size = r->kept_size != 0 ? 2 * r->kept_size : 16;
		r->kept = cow_mem_resize(r->kept, r->kept_size * sizeof(*r->kept));
	}
	kept = &r->kept[r->kept_count];
	choose_name(r, name, kept->name);
	record->tag = cow_repair_number(r);
	kept->length = cow_record_encode(record, kept->record);
	r->kept_count++;
	r->result->recovered++;
}

static void keep_dir(struct cow_repair *r, const struct lost *lost, const struct cow_mended *m)
{
	struct cow_record record = {.mode = S_IFDIR | 0700,
				    .number = cow_repair_number(r),
				    .body = COW_BODY_DIR,
				    .is_world = true,
				    .tree = m->now};
	char name[40];

	record.mtime = record.atime = record.ctime = record.btime = now();
	cow_mend_totals(&record, m);
	cow_mend_world(r, NULL, NULL, &record, false);
	snprintf(name, sizeof(name), "dir-%" PRIu64, lost->ptr.addr);
	if (!cow_ptr_is_null(record.tree))
		cow_repair_keep(r, name, &record);
}

static int last_extent(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	(void)length;
	*(uint64_t *)context = key + get16(value + 2);
	return 0;
}

static void keep_file(struct cow_repair *r, const struct lost *lost, const struct cow_mended *m)
{
	struct cow_record record = {.mode = S_IFREG | 0600,
				    .number = cow_repair_number(r),
				    .body = COW_BODY_TREE,
				    .tree = lost->ptr,
				    .blocks = m->sum.file.blocks};
	uint64_t end = 0;
	char name[40];

	record.mtime = record.atime = record.ctime = record.btime = now();
	snprintf(name, sizeof(name), "file-%" PRIu64, lost->ptr.addr);
	cow_repair_each(r, m->now, COW_KIND_FILE, last_extent, &end);
	record.size = end << COW_BLOCK_SHIFT;
	if (m->lost &&
	    !cow_mend_file(r, NULL, &(struct cow_slice){(const uint8_t *)name, (uint32_t)strlen(name)}, &record))
		return;
	if (!m->lost)
		record.tree = m->now;
	cow_repair_keep(r, name, &record);
}

static int keep_row(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct cow_repair *r = context;
	struct cow_link_row row;
	struct cow_record record;
	char name[40];

	(void)key;
	if (cow_link_row_decode(value, length, &row) != 0 ||
	    cow_record_decode(row.record.bytes, row.record.length, 0, &record) != 0)
		return 0;
	snprintf(name, sizeof(name), "#%" PRIu64, record.number);
	cow_repair_keep(r, name, &record);
	return 0;
}

static void keep_tree(struct cow_repair *r, const struct lost *lost)
{
	struct cow_mender mender = {.repair = r, .what = COW_MEND_ALL, .memo = &r->mended};
	const struct cow_mended *m;

	if (lost->kind == COW_KIND_BLOB || (lost->kind == COW_KIND_DIR && !has_names(r, lost)))
		return;
	m = cow_mend_tree(&mender, lost->ptr, lost->kind, NULL, 0);
	if (m == NULL || cow_ptr_is_null(m->now))
		return;
	switch (lost->kind) {
	case COW_KIND_DIR: keep_dir(r, lost, m); break;
	case COW_KIND_FILE: keep_file(r, lost, m); break;
	case COW_KIND_LINKS: cow_repair_each(r, m->now, COW_KIND_LINKS, keep_row, r); break;
	default: break;
	}
}

void cow_repair_find_lost(struct cow_repair *r)
{
	struct scan s = {.repair = r};
	uint64_t *blocks;

	find(&s);
	blocks = sorted_keys(&s.nodes);
	for (size_t i = 0; i < s.nodes.count; i++) {
		const struct lost *lost = cow_map_get(&s.nodes, blocks[i]);

		if (lost->holders == 0 && r->error == 0)
			keep_tree(r, lost);
	}
	free(blocks);
	free_scan(&s);
}

/* ------------------------------------------------------------------ /lost+found */

struct item {
	uint64_t key;
	uint32_t length;
	uint8_t *value;
};

struct list { /* the entries of a directory, ascending */
	struct item *items;
	size_t count, size;
};

static int list_item(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct list *l = context;

	if (l->count == l->size) {
		l->size = l->size != 0 ? 2 * l->size : 64;
		l->items = cow_mem_resize(l->items, l->size * sizeof(*l->items));
	}
	l->items[l->count++] = (struct item){key, length, cow_mem_copy(value, length)};
	return 0;
}

/* The entry of that name; else where it would go and under which key (0: no ordinal is left). */
static struct item *find_name(const struct cow_repair *r, struct list *l, struct cow_slice name, size_t *at,
			      uint64_t *key)
{
	uint64_t first = first_key(r, name);

	*key = first;
	for (*at = 0; *at < l->count && l->items[*at].key < first + COW_KEY_ORDINALS; ++*at) {
		struct item *item = &l->items[*at];
		struct cow_dirent entry;

		if (item->key < first)
			continue;
		if (cow_dirent_decode(item->value, item->length, &entry) == 0 &&
		    cow_slice_compare(entry.name, name) == 0)
			return item;
		if (item->key != *key)
			break; /* a gap among the ordinals */
		++*key;
	}
	return NULL;
}

static struct cow_slice slice(const char *name)
{
	return (struct cow_slice){(const uint8_t *)name, (uint32_t)strlen(name)};
}

/* Is the name free? Looks at all ordinals, also behind a gap. */
static bool name_free(const struct cow_repair *r, const struct list *l, struct cow_slice name)
{
	uint64_t first = first_key(r, name);

	for (size_t i = 0; i < l->count; i++) {
		struct cow_dirent entry;

		if (l->items[i].key / COW_KEY_ORDINALS == first / COW_KEY_ORDINALS &&
		    cow_dirent_decode(l->items[i].value, l->items[i].length, &entry) == 0 &&
		    cow_slice_compare(entry.name, name) == 0)
			return false;
	}
	return true;
}

static void insert(const struct cow_repair *r, struct list *l, const char *name, const struct cow_record *record)
{
	uint8_t value[COW_VALUE_MAX];
	uint32_t length = cow_dirent_encode_record(slice(name), record, value);
	uint64_t key;
	size_t at;

	find_name(r, l, slice(name), &at, &key);
	list_item(l, key, value, length);
	struct item item = l->items[l->count - 1];

	memmove(&l->items[at + 1], &l->items[at], (l->count - 1 - at) * sizeof(item));
	l->items[at] = item;
}

/* The directory gets these entries. */
static void set_entries(struct cow_repair *r, struct cow_record *dir, struct list *l)
{
	struct cow_mended sums = {.kind = COW_KIND_DIR};
	struct cow_build build;

	cow_build_begin(&build, r, COW_KIND_DIR);
	for (size_t i = 0; i < l->count; i++) {
		cow_build_add(&build, l->items[i].key, l->items[i].value, l->items[i].length);
		cow_mend_sum_entry(&sums, l->items[i].value, l->items[i].length);
		free(l->items[i].value);
	}
	dir->tree = cow_build_end(&build);
	dir->mtime = dir->ctime = now();
	cow_mend_totals(dir, &sums);
	free(l->items);
}

static void fill(struct cow_repair *r, struct cow_record *dir, const char *path)
{
	struct list l = {0};

	cow_repair_each(r, dir->tree, COW_KIND_DIR, list_item, &l);
	for (size_t i = 0; i < r->kept_count; i++) {
		struct cow_kept *kept = &r->kept[i];
		struct cow_record record;
		char name[64];
		struct cow_slice text;

		if (cow_record_decode(kept->record, kept->length, 0, &record) != 0)
			continue;
		snprintf(name, sizeof(name), "%s", kept->name);
		for (unsigned k = 2; !name_free(r, &l, slice(name)); k++)
			snprintf(name, sizeof(name), "%s.r%u", kept->name, k);
		insert(r, &l, name, &record);
		text = slice(name);
		cow_repair_found(r, path, &text, S_ISDIR(record.mode));
	}
	set_entries(r, dir, &l);
}

void cow_repair_put_lost(struct cow_repair *r, struct cow_record *root)
{
	struct cow_record dir = {.mode = S_IFDIR | 0700, .body = COW_BODY_DIR};
	struct list l = {0};
	struct item *item;
	struct cow_dirent entry;
	uint8_t copy[COW_VALUE_MAX];
	char name[40] = "lost+found";
	uint64_t key;
	size_t at;

	if (r->kept_count == 0)
		return;
	cow_repair_each(r, root->tree, COW_KIND_DIR, list_item, &l);
	item = find_name(r, &l, slice(name), &at, &key);
	if (item != NULL) {
		memcpy(copy, item->value, item->length);
		if (cow_dirent_decode(copy, item->length, &entry) != 0 || entry.is_link ||
		    cow_record_decode(entry.record.bytes, entry.record.length, 0, &dir) != 0 ||
		    dir.body != COW_BODY_DIR || dir.is_world)
			item = NULL;
	}
	if (item == NULL) {
		dir = (struct cow_record){.mode = S_IFDIR | 0700, .body = COW_BODY_DIR, .number = cow_repair_number(r)};
		dir.mtime = dir.atime = dir.ctime = dir.btime = now();
		for (unsigned i = 2; !name_free(r, &l, slice(name)); i++)
			snprintf(name, sizeof(name), "lost+found.%u", i);
	}
	fill(r, &dir, name);
	if (item != NULL) {
		uint8_t value[COW_VALUE_MAX];

		item->length = cow_dirent_encode_record(entry.name, &dir, value); /* longer, if its times differ now */
		free(item->value);
		item->value = cow_mem_copy(value, item->length);
	} else {
		insert(r, &l, name, &dir);
	}
	set_entries(r, root, &l);
}
