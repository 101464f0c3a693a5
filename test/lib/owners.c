/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/owners.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "fs/format/record.h"
#include "fs/core/volume.h"
#include "store/counts_disk.h"
#include "store/log.h"
#include "store/node.h"

enum { /* what fails */
	ALL = 1, /* everything at this path and below it */
	LIST = 2,
	READ = 4,
	TARGET = 8,
	XATTR = 16,
};

struct owner {
	const char *path;
	unsigned fails;
	uint64_t file_block; /* READ */
	struct owner *next;
};

struct link {
	const char *world, *path;
	uint64_t key;
};

struct owners {
	struct cow_dev *dev;
	uint64_t blocks;
	enum role *roles;
	struct owner **lists;
	struct link *links;
	size_t link_count, link_size;
	char **texts; /* the paths */
	size_t text_count, text_size;
};

/* Where the walk is: the nodes from the root of this tree down, and who loses what is in it. */
struct at {
	struct owners *o;
	enum role role;        /* of the nodes */
	uint8_t kind;
	const char *path;      /* of the directory, file or symlink; NULL: nobody's */
	const char *world;     /* path of its top */
	unsigned fails;        /* BLOB: which part of the inode it is */
	uint64_t link_key;     /* the inode is a hard-linked file of the world: all its names lose, `path` is not one */
	uint64_t nodes[COW_LEVEL_MAX];
	unsigned depth;
};

static const char *join(struct owners *o, const char *path, struct cow_slice name)
{
	char *text = cow_mem_new(strlen(path) + name.length + 2);

	sprintf(text, "%s/%.*s", path, (int)name.length, (const char *)name.bytes);
	if (o->text_count == o->text_size) {
		o->text_size = o->text_size != 0 ? 2 * o->text_size : 64;
		o->texts = cow_mem_resize(o->texts, o->text_size * sizeof(*o->texts));
	}
	return o->texts[o->text_count++] = text;
}

static void own(struct owners *o, uint64_t block, const char *path, unsigned fails, uint64_t file_block)
{
	struct owner *owner;

	if (path == NULL)
		return;
	owner = cow_mem_new(sizeof(*owner));
	*owner = (struct owner){path, fails, file_block, o->lists[block]};
	o->lists[block] = owner;
}

/* For each path that loses: the inode's, or all names of a hard-linked one. */
static void lose(const struct at *at, uint64_t block, unsigned fails, uint64_t file_block)
{
	if (at->link_key == 0)
		own(at->o, block, at->path, fails, file_block);
	for (size_t i = 0; at->link_key != 0 && at->world != NULL && i < at->o->link_count; i++)
		if (at->o->links[i].key == at->link_key && strcmp(at->o->links[i].world, at->world) == 0)
			own(at->o, block, at->o->links[i].path, fails, file_block);
}

static void lose_nodes(const struct at *at, unsigned fails)
{
	for (unsigned i = 0; i < at->depth; i++)
		lose(at, at->nodes[i], fails, KNOWN_WHOLE);
}

static void walk(struct at *at, struct cow_ptr ptr);

static void walk_tree(const struct at *from, struct cow_ptr root, uint8_t kind, enum role role, unsigned fails)
{
	struct at at = *from;

	at.kind = kind;
	at.role = from->path == NULL && from->link_key == 0 ? ROLE_DEAD_NODE : role;
	at.fails = fails;
	at.depth = 0;
	walk(&at, root);
}

static void walk_extent(const struct at *at, const struct cow_extent *extent)
{
	for (unsigned i = 0; i < extent->blocks; i++) {
		uint64_t block = extent->block + i;
		if (extent->kind != COW_EXTENT_PLAIN)
			continue; /* allocated, never written: nobody reads it */
		at->o->roles[block] = at->path == NULL && at->link_key == 0 && at->o->roles[block] == ROLE_UNUSED
					      ? ROLE_DEAD_DATA : ROLE_DATA;
		lose(at, block, READ, extent->at + i);
	}
}

static void walk_extents(const struct at *at, struct cow_slice list)
{
	while (list.length > 0) {
		struct cow_extent extent;
		uint32_t used;
		int error = cow_extent_decode(list.bytes + 8, list.length - 8, get64(list.bytes), 0, &extent, &used);
		assert(error == 0);
		walk_extent(at, &extent);
		list.bytes += 8 + used;
		list.length -= 8 + used;
	}
}

/* All that hangs off a record; at->path or at->link_key says whose it is. */
static void walk_record(struct at *at, struct cow_slice bytes)
{
	struct cow_record r;
	int error = cow_record_decode(bytes.bytes, bytes.length, 0, &r);

	assert(error == 0);
	if (r.is_world)
		at->world = at->path;
	if (r.body == COW_BODY_EXTENTS)
		walk_extents(at, r.data);
	else if (r.body == COW_BODY_TREE && S_ISLNK(r.mode))
		walk_tree(at, r.tree, COW_KIND_BLOB, ROLE_BLOB, TARGET);
	else if (r.body == COW_BODY_TREE)
		walk_tree(at, r.tree, COW_KIND_FILE, ROLE_FILE, READ);
	else if (r.body == COW_BODY_DIR)
		walk_tree(at, r.tree, COW_KIND_DIR, ROLE_DIR, LIST);
	if (r.xattr_length > COW_XATTR_INLINE_MAX)
		walk_tree(at, r.xattr_tree, COW_KIND_BLOB, ROLE_BLOB, XATTR);
	if (r.is_world) /* after the names, which say who is who in it */
		walk_tree(at, r.links, COW_KIND_LINKS, ROLE_LINKS, ALL);
}

static void add_link(struct owners *o, const char *world, const char *path, uint64_t key)
{
	if (o->link_count == o->link_size) {
		o->link_size = o->link_size != 0 ? 2 * o->link_size : 64;
		o->links = cow_mem_resize(o->links, o->link_size * sizeof(*o->links));
	}
	o->links[o->link_count++] = (struct link){world, path, key};
}

static void walk_entry(const struct at *at, const uint8_t *value, uint32_t length)
{
	struct at below = *at;
	struct cow_dirent entry;
	int error = cow_dirent_decode(value, length, &entry);

	assert(error == 0);
	if (at->path != NULL && at->role == ROLE_DIR)
		below.path = join(at->o, at->path, entry.name);
	lose_nodes(&below, ALL);
	if (entry.is_link && below.path != NULL)
		add_link(at->o, at->world, below.path, entry.link_key);
	else if (!entry.is_link)
		walk_record(&below, entry.record);
}

static void walk_row(const struct at *at, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct at below = *at;
	struct cow_link_row row;
	int error = cow_link_row_decode(value, length, &row);

	if (error == -ENOENT) { /* spine: the number of names of everything linked may hang on it */
		for (size_t i = 0; at->world != NULL && i < at->o->link_count; i++)
			if (strcmp(at->o->links[i].world, at->world) == 0)
				for (unsigned k = 0; k < at->depth; k++)
					own(at->o, at->nodes[k], at->o->links[i].path, ALL, 0);
		return;
	}
	assert(error == 0);
	below.link_key = key;
	below.path = NULL;
	lose_nodes(&below, ALL);
	walk_record(&below, row.record);
	if (row.backs > COW_BACKS_INLINE_MAX)
		walk_tree(&below, row.back_tree, COW_KIND_BLOB, ROLE_BLOB, ALL);
}

static void walk_value(const struct at *at, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct cow_extent extent;
	uint32_t used;
	int error;

	switch (at->kind) {
	case COW_KIND_RECLAIM:
		walk_tree(at, cow_ptr_get(value), value[COW_PTR_BYTES], ROLE_DEAD_NODE, 0);
		break;
	case COW_KIND_DIR:
		walk_entry(at, value, length);
		break;
	case COW_KIND_LINKS:
		walk_row(at, key, value, length);
		break;
	case COW_KIND_FILE:
		error = cow_extent_decode(value, length, key, 0, &extent, &used);
		assert(error == 0);
		walk_extent(at, &extent);
		break;
	default:
		break;
	}
}

static void walk(struct at *at, struct cow_ptr ptr)
{
	struct cow_node *node;
	int error;

	if (cow_ptr_is_null(ptr))
		return;
	node = cow_mem_new(sizeof(*node));
	error = cow_dev_read(at->o->dev, node->bytes, COW_BLOCK, ptr.addr * COW_BLOCK);
	assert(error == 0 && get64(node->bytes + 8) == ptr.addr && cow_node_kind(node) == at->kind);
	if (at->role != ROLE_DEAD_NODE || at->o->roles[ptr.addr] == ROLE_UNUSED)
		at->o->roles[ptr.addr] = at->role;
	at->nodes[at->depth++] = ptr.addr;
	if (at->fails != 0 && at->kind != COW_KIND_LINKS)
		lose(at, ptr.addr, at->fails, KNOWN_WHOLE);
	for (unsigned i = 0; i < cow_node_items(node); i++) {
		uint32_t length;
		if (cow_node_level(node) > 0) {
			walk(at, cow_inner_ptr(node, i));
		} else {
			uint8_t *value = cow_leaf_value(node, i, &length);
			walk_value(at, cow_node_key(node, i), value, length);
		}
	}
	at->depth--;
	free(node);
}

static void walk_counts(struct owners *o, int level, uint64_t index, const struct cow_counts_root *selector)
{
	uint64_t block = cow_layout_slot(level, index, selector->slot);
	uint64_t end = (index + 1) * COW_SELECTORS, entries;
	uint8_t bytes[COW_BLOCK];
	int error;

	if (!selector->initialised)
		return;
	o->roles[block] = ROLE_COUNTS;
	if (level == 0)
		return;
	error = cow_dev_read(o->dev, bytes, COW_BLOCK, block * COW_BLOCK);
	assert(error == 0);
	entries = cow_layout_entries(o->blocks, level - 1);
	for (uint64_t child = index * COW_SELECTORS; child < end && child < entries; child++) {
		struct cow_counts_root below = cow_counts_selector(o->blocks, level, bytes, child);
		walk_counts(o, level - 1, child, &below);
	}
}

static int ignore_record(void *context, const uint8_t *payload, size_t length)
{
	(void)context, (void)payload, (void)length;
	return 0;
}

/* Records follow each other from the first one that is not void, at most to the ring's end in these tests. */
static void walk_log(struct owners *o, const struct cow_super *super)
{
	uint64_t end = super->log.position;

	if (super->log.blocks == 0)
		return;
	(void)!cow_log_read(o->dev, super, ignore_record, NULL, &end);
	for (uint64_t at = super->log.position; at < end; at++)
		o->roles[cow_layout_ring(super->log.start, at % super->log.blocks)] = ROLE_LOG;
}

struct owners *owners_read(struct cow_dev *dev)
{
	static const struct {
		unsigned root;
		uint8_t kind;
		enum role role;
	} roots[] = {
		/* what is used beats what is dead: first */
		{COW_ROOT_TOP, COW_KIND_DIR, ROLE_TOP},
		{COW_ROOT_NUMBERS, COW_KIND_NUMBERS, ROLE_NUMBERS},
		{COW_ROOT_ORPHANS, COW_KIND_DIR, ROLE_ORPHANS},
		{COW_ROOT_RECLAIM, COW_KIND_RECLAIM, ROLE_RECLAIM},
	};
	struct owners *o = cow_mem_new(sizeof(*o));
	struct cow_super super;
	bool decayed;
	int error = cow_super_read(dev, &super, &decayed);

	assert(error == 0 && !decayed);
	o->dev = dev;
	o->blocks = super.total_blocks;
	o->roles = cow_mem_new(o->blocks * sizeof(*o->roles));
	o->lists = cow_mem_new(o->blocks * sizeof(*o->lists));
	for (unsigned i = 0; i < COW_SUPER_SLOTS; i++)
		o->roles[i] = o->roles[i + COW_SUPER_B] = ROLE_SUPER;
	walk_counts(o, COW_COUNT_LEVELS - 1, 0, &super.counts);
	walk_log(o, &super);
	for (unsigned i = 0; i < sizeof(roots) / sizeof(*roots); i++) {
		struct at at = {.o = o, .role = roots[i].role, .kind = roots[i].kind,
				.path = roots[i].role == ROLE_TOP ? "" : NULL};
		walk(&at, super.roots[roots[i].root]);
	}
	o->dev = NULL;
	return o;
}

void owners_free(struct owners *o)
{
	for (uint64_t i = 0; i < o->blocks; i++)
		while (o->lists[i] != NULL) {
			struct owner *next = o->lists[i]->next;
			free(o->lists[i]);
			o->lists[i] = next;
		}
	while (o->text_count > 0)
		free(o->texts[--o->text_count]);
	free(o->texts);
	free(o->lists);
	free(o->roles);
	free(o->links);
	free(o);
}

enum role owners_role(const struct owners *o, uint64_t block)
{
	return o->roles[block];
}

const char *role_name(enum role role)
{
	static const char *const names[ROLES] = {
		"unused", "superblock", "counts", "top", "directory", "links", "file map", "byte string", "file data",
		"numbers", "reclaim queue", "orphans", "dead node", "dead data", "log",
	};

	return names[role];
}

static bool is_below(const char *path, const char *top)
{
	size_t length = strlen(top);

	return strncmp(path, top, length) == 0 && (path[length] == 0 || path[length] == '/');
}

bool owners_allow(const struct owners *o, uint64_t block, enum known_call call, const char *path, uint64_t file_block)
{
	static const unsigned parts[] = {
		[KNOWN_LOOKUP] = ALL, [KNOWN_LIST] = LIST, [KNOWN_READ] = READ, [KNOWN_TARGET] = TARGET,
		[KNOWN_XATTR] = XATTR,
	};

	if (o->roles[block] == ROLE_NUMBERS) /* who is numbered by which row is not worked out here */
		return call == KNOWN_LOOKUP;
	for (const struct owner *owner = o->lists[block]; owner != NULL; owner = owner->next) {
		if ((owner->fails & ALL) != 0 && is_below(path, owner->path))
			return true;
		if ((owner->fails & parts[call]) != 0 && strcmp(path, owner->path) == 0 &&
		    (o->roles[block] != ROLE_DATA || owner->file_block == file_block))
			return true;
	}
	return false;
}

bool owners_below(const struct owners *o, uint64_t block, const char *path)
{
	for (const struct owner *owner = o->lists[block]; owner != NULL; owner = owner->next)
		if (is_below(owner->path, strcmp(path, "/") == 0 ? "" : path))
			return true;
	return false;
}

uint64_t owners_count(const struct owners *o, enum role role)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < o->blocks; i++)
		count += o->roles[i] == role;
	return count;
}

uint64_t owners_nth(const struct owners *o, enum role role, uint64_t n)
{
	for (uint64_t i = 0; i < o->blocks; i++)
		if (o->roles[i] == role && n-- == 0)
			return i;
	return 0;
}

uint64_t owners_block_of(const struct owners *o, enum role role, const char *path)
{
	for (uint64_t i = 0; i < o->blocks; i++)
		for (const struct owner *owner = o->lists[i]; o->roles[i] == role && owner != NULL; owner = owner->next)
			if (strcmp(owner->path, path) == 0)
				return i;
	return 0;
}
