/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is on disk, for people. It writes nothing and gives up nothing: what cannot be read or does not fit its checksum
 * is named in its place, and the rest is shown.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/mem.h"
#include "audit/check_walk.h"
#include "store/node.h"

#define LINE_BYTES 1024u

struct finder {
	struct cow_slice name;
	bool found;
	uint8_t *value; /* COW_VALUE_MAX */
	uint32_t length;
};

struct dump {
	struct cow_dev *dev;
	struct cow_super super;
	void (*line)(void *context, const char *text);
	void *context;
	struct cow_map shown; /* address of a directory's tree -> path at which it was shown */
	struct place *places; /* directories still to be shown */
	size_t count, size;
	const char *path; /* of the directory being shown */
	struct finder *finder; /* what find_item() looks for */
};

struct place {
	char *path;
	struct cow_ptr tree;
};

static void __attribute__((format(printf, 2, 3))) say(struct dump *d, const char *format, ...)
{
	char text[LINE_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	d->line(d->context, text);
}

/* Bytes as printable text: what a terminal would obey is shown as \xNN. */
static const char *printable(struct cow_slice s, char *text, size_t size)
{
	size_t n = 0;

	for (uint32_t i = 0; i < s.length && n + 5 < size; i++) {
		if (s.bytes[i] < ' ' || s.bytes[i] == 0x7f || s.bytes[i] == '\\')
			n += (size_t)snprintf(text + n, size - n, "\\x%02x", s.bytes[i]);
		else
			text[n++] = (char)s.bytes[i];
	}
	text[n] = 0;
	return text;
}

static const char *show_ptr(struct cow_ptr ptr, char text[64])
{
	if (cow_ptr_is_null(ptr))
		return "none";
	snprintf(text, 64, "block %" PRIu64 " generation %" PRIu64, ptr.addr, ptr.generation);
	return text;
}

/* ------------------------------------------------------------------ superblocks */

static const char *const kind_names[] = {"none", "reclaim", "dir", "links", "file", "blob", "numbers"};

static const char *kind_name(unsigned kind)
{
	return kind < sizeof(kind_names) / sizeof(*kind_names) ? kind_names[kind] : "unknown kind";
}

static void show_super(struct dump *d, const struct cow_super *s)
{
	const uint8_t *u = s->uuid;
	char text[64];

	say(d, "  uuid %02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x version %" PRIu32, u[0],
	    u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15], s->version);
	say(d, "  features: compat %#" PRIx64 " ro-compat %#" PRIx64 " incompat %#" PRIx64, s->compat, s->ro_compat,
	    s->incompat);
	say(d, "  generation %" PRIu64 ", %" PRIu64 " blocks", s->generation, s->total_blocks);
	if (s->counts.initialised)
		say(d, "  counts: slot %u, %" PRIu64 " blocks free, checksum %08" PRIx32, s->counts.slot,
		    s->counts.free_blocks, s->counts.sum);
	else
		say(d, "  counts: not initialised");
	say(d, "  counters: number %" PRIu64 ", colour %" PRIu64 ", chunk %" PRIu64, get64(s->user), get64(s->user + 8),
	    get64(s->user + 16));
	for (unsigned i = 0; i < COW_ROOTS; i++)
		if (s->root_kinds[i] != 0)
			say(d, "  root %u (%s): %s", i, kind_name(s->root_kinds[i]), show_ptr(s->roots[i], text));
}

static void dump_copy(struct dump *d, unsigned slot, unsigned copy)
{
	uint64_t block = slot + copy * COW_SUPER_B;
	uint8_t bytes[COW_BLOCK];
	struct cow_super super;
	int error = cow_dev_read(d->dev, bytes, COW_BLOCK, block << COW_BLOCK_SHIFT);

	if (error == 0)
		error = cow_super_decode(bytes, &super);
	if (error == 0)
		say(d, "superblock slot %u copy %c (block %" PRIu64 "): generation %" PRIu64 "%s", slot, "AB"[copy],
		    block, super.generation, super.generation % COW_SUPER_SLOTS == slot ? "" : ", in the wrong slot");
	else
		say(d, "superblock slot %u copy %c (block %" PRIu64 "): %s", slot, "AB"[copy], block,
		    error == COW_ERR_NOT_VOLUME ? "empty" : cow_error_text(error));
}

static int dump_super(struct dump *d)
{
	bool decayed = false;
	int error = cow_super_read(d->dev, &d->super, &decayed);

	for (unsigned i = 0; i < COW_SUPER_SLOTS * 2; i++)
		dump_copy(d, i / 2, i % 2);
	if (error != 0) {
		say(d, "no usable superblock: %s", cow_error_text(error));
		return error;
	}
	say(d, "newest:%s", decayed ? " (the slot after it is damaged: a newer generation may be lost)" : "");
	show_super(d, &d->super);
	return 0;
}

/* ------------------------------------------------------------------ counts */

static int dump_piece(void *context, uint64_t piece, const uint32_t *counts)
{
	uint32_t used = 0, shared = 0, highest = 0;

	for (unsigned i = 0; i < COW_PIECE_BLOCKS; i++) {
		used += counts[i] != 0;
		shared += counts[i] > 1;
		highest = counts[i] > highest ? counts[i] : highest;
	}
	say(context, "group %" PRIu64 ": %" PRIu32 " blocks used, %" PRIu32 " of them shared, highest count %" PRIu32,
	    piece, used, shared, highest);
	return 0;
}

static void dump_bad_counts(void *context, int level, uint64_t index, const char *what)
{
	say(context, "counts of level %d, index %" PRIu64 " (blocks %" PRIu64 ", %" PRIu64 "): %s", level, index,
	    cow_layout_slot(level, index, 0), cow_layout_slot(level, index, 1), what);
}

static int dump_counts(struct dump *d)
{
	return cow_counts_scan(d->dev, d->super.total_blocks, &d->super.counts, dump_piece, dump_bad_counts, d);
}

/* ------------------------------------------------------------------ trees */

typedef int (*item_fn)(struct dump *d, uint64_t key, const uint8_t *value, uint32_t length);

static bool load(struct dump *d, struct cow_ptr ptr, uint8_t kind, int level, uint8_t bytes[COW_BLOCK])
{
	const char *wrong;
	int error;

	if (!cow_layout_run_valid(ptr.addr, 1, d->super.total_blocks)) {
		say(d, "  pointer to block %" PRIu64 ", which no node can be in", ptr.addr);
		return false;
	}
	error = cow_dev_read(d->dev, bytes, COW_BLOCK, ptr.addr << COW_BLOCK_SHIFT);
	if (error != 0)
		wrong = cow_error_text(error);
	else if (XXH3_64bits(bytes, COW_BLOCK) != ptr.sum)
		wrong = "does not fit its checksum";
	else
		wrong = cow_check_header(bytes, ptr, kind, level);
	if (wrong != NULL)
		say(d, "  block %" PRIu64 " (%s): %s", ptr.addr, kind_name(kind), wrong);
	return wrong == NULL;
}

/* Every item of a tree that can be reached. A level goes down with each step, so no ring is endless. */
/* Keys from `low` to `high` only: a node has one place in a tree, however many pointers lead to it. */
static int each_within(struct dump *d, struct cow_ptr ptr, uint8_t kind, int level, uint64_t low, uint64_t high,
		       item_fn fn)
{
	uint8_t bytes[COW_BLOCK];
	struct cow_check_item item;
	int result = 0;

	if (cow_ptr_is_null(ptr) || !load(d, ptr, kind, level, bytes))
		return 0;
	for (unsigned i = 0; result == 0 && i < get16(bytes + 6); i++) {
		if (!cow_check_item_at(bytes, i, &item))
			say(d, "  block %" PRIu64 ": item %u lies outside", ptr.addr, i);
		else if (bytes[5] == 0)
			result = fn(d, item.key, item.value, item.length);
		else if (item.key < low || item.key > high)
			say(d, "  block %" PRIu64 ": key %#" PRIx64 " does not belong there", ptr.addr, item.key);
		else {
			uint64_t end = cow_check_last_below(bytes, i, high);

			result = each_within(d, cow_ptr_get(item.value), kind, bytes[5] - 1, item.key, end, fn);
			low = end + 1;
			if (end == high)
				break;
		}
	}
	return result;
}

static int each(struct dump *d, struct cow_ptr root, uint8_t kind, int level, item_fn fn)
{
	return each_within(d, root, kind, level, 0, UINT64_MAX, fn);
}

static int show_extent(struct dump *d, const struct cow_extent *e)
{
	say(d, "    extent: file block %" PRIu64 ", %u blocks at %" PRIu64 "%s", e->at, e->blocks, e->block,
	    e->kind == COW_EXTENT_UNWRITTEN ? ", unwritten" : "");
	return 0;
}

static int extent_item(struct dump *d, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct cow_extent e;
	uint32_t used;

	if (cow_extent_decode(value, length, key, d->super.total_blocks, &e, &used) == 0)
		return show_extent(d, &e);
	say(d, "    extent at file block %" PRIu64 ": malformed", key);
	return 0;
}

static void show_extents(struct dump *d, const struct cow_record *r)
{
	const uint8_t *at = r->data.bytes;
	uint32_t left = r->data.length, used;
	struct cow_extent e;

	while (left > 8 && cow_extent_decode(at + 8, left - 8, get64(at), d->super.total_blocks, &e, &used) == 0) {
		show_extent(d, &e);
		at += 8 + used;
		left -= 8 + used;
	}
}

static char type_letter(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR: return 'd';
	case S_IFLNK: return 'l';
	case S_IFCHR: return 'c';
	case S_IFBLK: return 'b';
	case S_IFIFO: return 'p';
	case S_IFSOCK: return 's';
	default: return '-';
	}
}

/* What follows the name in the line of an entry. */
static const char *describe(const struct cow_record *r, char *text, size_t size)
{
	char ptr[64];
	size_t n = (size_t)snprintf(text, size, "%c%04o %u:%u n %" PRIu64, type_letter(r->mode), r->mode & 07777,
				    r->uid, r->gid, r->number);

	if (r->tag != 0)
		n += (size_t)snprintf(text + n, size - n, " tag %" PRIu64, r->tag);
	if (r->body == COW_BODY_DIR) {
		n += (size_t)snprintf(text + n, size - n,
				      ", %" PRIu64 " files %" PRIu64 " directories %" PRIu64 " bytes %" PRIu64
				      "+%" PRIu64 " references below, tree %s",
				      r->totals.files, r->totals.dirs, r->totals.bytes, r->totals.refs,
				      r->totals.nested_refs, show_ptr(r->tree, ptr));
		if (r->is_world)
			snprintf(text + n, size - n,
				 "; %sworld, links %s, %" PRIu64 " back-references, %" PRIu64 " linked files",
				 r->read_only ? "read-only " : "", show_ptr(r->links, ptr), r->backs, r->link_files);
		return text;
	}
	n += (size_t)snprintf(text + n, size - n, " size %" PRIu64, r->size);
	if (r->body == COW_BODY_TREE)
		snprintf(text + n, size - n, ", %" PRIu64 " blocks, tree %s", r->blocks, show_ptr(r->tree, ptr));
	else if (r->body == COW_BODY_EXTENTS)
		snprintf(text + n, size - n, ", %" PRIu64 " blocks in extents", r->blocks);
	else if (r->body == COW_BODY_INLINE)
		snprintf(text + n, size - n, ", inline");
	return text;
}

/* ------------------------------------------------------------------ rows */

static int link_item(struct dump *d, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct cow_link_row row;
	struct cow_record r;
	struct cow_back up;
	char text[512];

	if (cow_spine_row_decode(value, length, &up) == 0) {
		say(d, "    spine: directory %" PRIu64 " is in %" PRIu64 " at %#" PRIx64, key, up.dir, up.key);
		return 0;
	}
	if (cow_link_row_decode(value, length, &row) != 0 ||
	    cow_record_decode(row.record.bytes, row.record.length, d->super.total_blocks, &r) != 0) {
		say(d, "    link %" PRIu64 ": malformed", key);
		return 0;
	}
	say(d, "    link %" PRIu64 ": %s", key, describe(&r, text, sizeof(text)));
	for (uint32_t i = 0; row.backs <= COW_BACKS_INLINE_MAX && i < row.backs; i++)
		say(d, "      name in directory %" PRIu64 " at %#" PRIx64, get64(row.back_bytes + (size_t)16 * i),
		    get64(row.back_bytes + (size_t)16 * i + 8));
	if (row.backs > COW_BACKS_INLINE_MAX)
		say(d, "      %" PRIu32 " names, in block %" PRIu64, row.backs, row.back_tree.addr);
	return 0;
}

static int row_item(struct dump *d, uint64_t key, const uint8_t *value, uint32_t length)
{
	static const char *const names[] = {"", "colour", "chunk", "free chunk"};
	struct cow_row row;

	if (cow_row_decode(value, length, &row) != 0)
		say(d, "  row at %#" PRIx64 ": malformed", key);
	else
		say(d, "  %s (%" PRIu64 ", %" PRIu64 ") -> %" PRIu64, names[row.type], row.a, row.b, row.value);
	return 0;
}

static int reclaim_item(struct dump *d, uint64_t key, const uint8_t *value, uint32_t length)
{
	char text[64];

	if (length != COW_PTR_BYTES + 1)
		say(d, "  entry %" PRIu64 ": malformed", key);
	else
		say(d, "  entry %" PRIu64 ": %s, %s", key, show_ptr(cow_ptr_get(value), text),
		    kind_name(value[COW_PTR_BYTES]));
	return 0;
}

/* ------------------------------------------------------------------ directories */

static void add_place(struct dump *d, const char *path, const char *name, struct cow_ptr tree)
{
	size_t length = strlen(path) + strlen(name) + 2;
	char *full = cow_mem_new(length);

	snprintf(full, length, "%s/%s", strcmp(path, "/") == 0 ? "" : path, name);
	if (d->count == d->size) {
		d->size = d->size != 0 ? 2 * d->size : 64;
		d->places = cow_mem_resize(d->places, d->size * sizeof(*d->places));
	}
	d->places[d->count++] = (struct place){full, tree};
}

static int dir_item(struct dump *d, uint64_t key, const uint8_t *value, uint32_t length)
{
	char name[1100], text[512];
	struct cow_dirent entry;
	struct cow_record r;

	if (cow_dirent_decode(value, length, &entry) != 0) {
		say(d, "  entry %#" PRIx64 ": malformed", key);
		return 0;
	}
	printable(entry.name, name, sizeof(name));
	if (entry.is_link) {
		say(d, "  %s: %c link %" PRIu64, name, type_letter(entry.link_type), entry.link_key);
		return 0;
	}
	if (cow_record_decode(entry.record.bytes, entry.record.length, d->super.total_blocks, &r) != 0) {
		say(d, "  %s: malformed record", name);
		return 0;
	}
	say(d, "  %s: %s", entry.name.length != 0 ? name : "(no name)", describe(&r, text, sizeof(text)));
	if (r.is_world)
		each(d, r.links, COW_KIND_LINKS, -1, link_item);
	if (r.body == COW_BODY_DIR && !cow_ptr_is_null(r.tree))
		add_place(d, d->path, name, r.tree);
	return 0;
}

/* All directories that wait, each tree at the first path that leads to it: clones are not shown again. */
static void show_places(struct dump *d)
{
	while (d->count > 0) {
		struct place place = d->places[--d->count];
		const char *before = cow_map_get(&d->shown, place.tree.addr);

		if (before != NULL) {
			say(d, "%s: the same tree as %s", place.path, before);
			free(place.path);
			continue;
		}
		cow_map_put(&d->shown, place.tree.addr, place.path);
		say(d, "%s:", place.path);
		d->path = place.path;
		each(d, place.tree, COW_KIND_DIR, -1, dir_item);
	}
}

static int find_item(struct dump *d, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct finder *f = d->finder;
	struct cow_dirent entry;

	(void)key;
	if (cow_dirent_decode(value, length, &entry) != 0 || cow_slice_compare(entry.name, f->name) != 0)
		return 0;
	memcpy(f->value, value, length);
	f->length = length;
	f->found = true;
	return 1;
}

/* Finds an entry by reading the directory through: the keys may be what is broken. */
static bool find_entry(struct dump *d, struct cow_ptr tree, struct cow_slice name, uint8_t value[COW_VALUE_MAX],
		       struct cow_dirent *entry)
{
	struct finder f = {.name = name, .value = value};

	d->finder = &f;
	each(d, tree, COW_KIND_DIR, -1, find_item);
	d->finder = NULL;
	return f.found && cow_dirent_decode(value, f.length, entry) == 0;
}

static void show_inode(struct dump *d, const char *path, const struct cow_record *r)
{
	char text[512];

	say(d, "%s: %s", path, describe(r, text, sizeof(text)));
	if (r->xattr_length != 0)
		say(d, "    xattrs: %" PRIu32 " bytes%s", r->xattr_length,
		    cow_ptr_is_null(r->xattr_tree) ? ", inline" : "");
	if (r->is_world)
		each(d, r->links, COW_KIND_LINKS, -1, link_item);
	if (r->body == COW_BODY_EXTENTS)
		show_extents(d, r);
	else if (r->body == COW_BODY_TREE && S_ISREG(r->mode))
		each(d, r->tree, COW_KIND_FILE, -1, extent_item);
	else if (r->body == COW_BODY_INLINE && S_ISLNK(r->mode))
		say(d, "    target: %s", printable(r->data, text, sizeof(text)));
	if (r->body == COW_BODY_DIR)
		add_place(d, "", path[0] == '/' ? path + 1 : path, r->tree);
	show_places(d);
}

static int dump_path(struct dump *d, const char *path)
{
	uint8_t value[COW_VALUE_MAX] = {0};
	struct cow_dirent entry;
	struct cow_record r;
	const char *at = path;

	if (!find_entry(d, d->super.roots[COW_ROOT_TOP], (struct cow_slice){value, 0}, value, &entry) || entry.is_link)
		return COW_ERR_DAMAGED;
	for (;;) {
		if (cow_record_decode(entry.record.bytes, entry.record.length, d->super.total_blocks, &r) != 0)
			return COW_ERR_DAMAGED;
		at += strspn(at, "/");
		if (*at == 0)
			break;
		if (r.body != COW_BODY_DIR)
			return -ENOTDIR;
		size_t length = strcspn(at, "/");
		if (length > COW_NAME_BYTES_MAX)
			return -ENAMETOOLONG;
		if (!find_entry(d, r.tree, (struct cow_slice){(const uint8_t *)at, (uint32_t)length}, value, &entry))
			return -ENOENT;
		at += length;
		if (entry.is_link) {
			say(d, "%s: %c link %" PRIu64 " of its world", path, type_letter(entry.link_type),
			    entry.link_key);
			return at[strspn(at, "/")] == 0 ? 0 : -ENOTDIR;
		}
	}
	show_inode(d, path[strspn(path, "/")] == 0 ? "/" : path, &r);
	return 0;
}

static int dump_tree(struct dump *d, const char *path)
{
	if (path != NULL)
		return dump_path(d, path);
	say(d, "orphans:");
	d->path = "(orphans)";
	each(d, d->super.roots[COW_ROOT_ORPHANS], COW_KIND_DIR, -1, dir_item);
	say(d, "reclaim queue:");
	each(d, d->super.roots[COW_ROOT_RECLAIM], COW_KIND_RECLAIM, -1, reclaim_item);
	say(d, "numbers:");
	each(d, d->super.roots[COW_ROOT_NUMBERS], COW_KIND_NUMBERS, -1, row_item);
	return dump_path(d, "/");
}

/* ------------------------------------------------------------------ one block */

static void show_hex(struct dump *d, const uint8_t *bytes)
{
	bool same = false;

	for (unsigned i = 0; i < COW_BLOCK; i += 16) {
		char text[100];
		int n;

		if (i > 0 && memcmp(bytes + i, bytes + i - 16, 16) == 0) {
			if (!same)
				d->line(d->context, "*");
			same = true;
			continue;
		}
		same = false;
		n = snprintf(text, sizeof(text), "%04x ", i);

		for (unsigned k = 0; k < 16; k++)
			n += snprintf(text + n, sizeof(text) - (size_t)n, " %02x", bytes[i + k]);
		n += snprintf(text + n, sizeof(text) - (size_t)n, "  ");
		for (unsigned k = 0; k < 16; k++)
			text[n++] = bytes[i + k] >= ' ' && bytes[i + k] < 0x7f ? (char)bytes[i + k] : '.';
		text[n] = 0;
		d->line(d->context, text);
	}
}

static void show_items(struct dump *d, const uint8_t *bytes)
{
	struct cow_check_item item;
	char text[64];

	d->path = "";
	for (unsigned i = 0; i < get16(bytes + 6); i++) {
		if (!cow_check_item_at(bytes, i, &item))
			say(d, "  item %u lies outside", i);
		else if (bytes[5] != 0)
			say(d, "  from key %#" PRIx64 ": %s", item.key, show_ptr(cow_ptr_get(item.value), text));
		else if (bytes[4] == COW_KIND_DIR)
			dir_item(d, item.key, item.value, item.length);
		else if (bytes[4] == COW_KIND_LINKS)
			link_item(d, item.key, item.value, item.length);
		else if (bytes[4] == COW_KIND_FILE)
			extent_item(d, item.key, item.value, item.length);
		else if (bytes[4] == COW_KIND_NUMBERS)
			row_item(d, item.key, item.value, item.length);
		else if (bytes[4] == COW_KIND_RECLAIM)
			reclaim_item(d, item.key, item.value, item.length);
		else
			say(d, "  key %" PRIu64 ": %" PRIu32 " bytes", item.key, item.length);
	}
	while (d->count > 0) /* one block was asked for, not what is below */
		free(d->places[--d->count].path);
}

static void show_count(struct dump *d, uint64_t block)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct cow_counts *counts;
	uint32_t count;
	uint64_t miss;
	int error;

	error = cow_counts_open(d->dev, &lock, d->super.total_blocks, &d->super.counts, 0, &counts);
	if (error == 0) {
		while ((error = cow_counts_get(counts, block, &count, &miss)) == COW_MISS)
			if ((error = cow_counts_load(counts, miss)) != 0)
				break;
		cow_counts_close(counts);
	}
	if (error == 0)
		say(d, "  count %" PRIu32, count);
	else
		say(d, "  count cannot be read: %s", cow_error_text(error));
}

static int dump_block(struct dump *d, const char *number, bool has_super)
{
	uint8_t bytes[COW_BLOCK];
	struct cow_super super;
	struct cow_ptr self;
	uint64_t block;
	char *end;
	int error;

	errno = 0;
	block = strtoull(number, &end, 0);
	if (end == number || *end != 0 || errno != 0 || *number == '-' ||
	    block >= d->dev->size_bytes >> COW_BLOCK_SHIFT)
		return -EINVAL;
	error = cow_dev_read(d->dev, bytes, COW_BLOCK, block << COW_BLOCK_SHIFT);
	if (error != 0)
		return error;
	say(d, "block %" PRIu64 "%s, checksum %016" PRIx64, block, cow_layout_is_system(block) ? " (system)" : "",
	    (uint64_t)XXH3_64bits(bytes, COW_BLOCK));
	if (has_super && block < d->super.total_blocks)
		show_count(d, block);
	self = (struct cow_ptr){block, 0, get64(bytes + 16)};
	if (block < COW_SLOT_FIRST && cow_super_decode(bytes, &super) == 0) {
		show_super(d, &super);
	} else if (!cow_layout_is_system(block) && cow_check_header(bytes, self, bytes[4], -1) == NULL) {
		say(d, "  node of a %s tree, level %u, %u items, generation %" PRIu64, kind_name(bytes[4]), bytes[5],
		    get16(bytes + 6), self.generation);
		show_items(d, bytes);
	}
	show_hex(d, bytes);
	return 0;
}

/* ------------------------------------------------------------------ */

static int dump_what(struct dump *d, const char *what)
{
	bool decayed = false;
	int error;

	if (what == NULL || strcmp(what, "super") == 0) {
		error = dump_super(d);
		if (what != NULL || error != 0)
			return error;
		error = dump_counts(d);
		return error != 0 ? error : dump_tree(d, NULL);
	}
	error = cow_super_read(d->dev, &d->super, &decayed);
	if (strncmp(what, "block ", 6) == 0)
		return dump_block(d, what + 6, error == 0);
	if (strcmp(what, "counts") == 0)
		return error != 0 ? error : dump_counts(d);
	if (strcmp(what, "tree") == 0 || strncmp(what, "tree ", 5) == 0)
		return error != 0 ? error : dump_tree(d, what[4] != 0 ? what + 5 : NULL);
	return -EINVAL;
}

int cow_dump_device(struct cow_dev *dev, const char *what, void (*line)(void *context, const char *text), void *context)
{
	struct dump d = {.dev = dev, .line = line, .context = context};
	struct cow_map_slot *slot;
	int error = dump_what(&d, what);

	while (d.count > 0)
		free(d.places[--d.count].path);
	free(d.places);
	for (size_t i = 0; (slot = cow_map_each(&d.shown, &i)) != NULL;)
		free(slot->value);
	cow_map_free(&d.shown);
	return error;
}

int cow_dump(const char *path, const char *what, void (*line)(void *context, const char *text), void *context)
{
	struct cow_dev *dev;
	int error = cow_dev_file_open(path, COW_DEV_READ, &dev);

	if (error != 0)
		return error == -EBUSY ? COW_ERR_BUSY : error;
	error = cow_dump_device(dev, what, line, context);
	cow_dev_close(dev);
	return error;
}
