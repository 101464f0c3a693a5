/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Comparing two held directories (doc/DESIGN.md, "Diff, same, and exclusive space"): what a comparison remembers, and
 * the entries of its two sides. Above this, compare_found.c keeps what was found: names that are gone or new (of which
 * some are renames) and changes; compare_links.c compares the links of two worlds; compare.c walks pairs of directories
 * side by side; diff.c is the public call. Not locked.
 */
#ifndef COW_FS_VIEW_COMPARE_ENTRY_H
#define COW_FS_VIEW_COMPARE_ENTRY_H

#include "fs/commit/snapshot.h"

struct cow_side_world {
	struct cow_tree links;
	uint64_t backs;
	struct cow_side_world *next; /* all of a comparison, for freeing */
};

/* A directory on one side. */
struct cow_side_dir {
	struct cow_ptr tree;
	uint64_t number;
	bool is_world;
	struct cow_side_world *world;
};

/* A directory, or two of a pair, and those above it. A tree that is met again below itself is a ring. */
struct cow_way {
	const struct cow_way *up;
	uint64_t old_tree, new_tree; /* blocks of the roots; 0: none, or empty */
	struct cow_way *next;        /* all of them, to be freed */
};

/* An entry on one side, copied out of its node. */
struct cow_side_entry {
	const struct cow_way *up;
	char *path; /* relative to the directory on its side */
	const char *name; /* the last part of the path */
	struct cow_side_world *world;
	uint64_t number;   /* once the record was loaded for a list */
	uint32_t mode;
	bool matched, opened;
	struct cow_side_entry *same_number; /* in a list's map */
	uint32_t length;
	uint8_t value[]; /* as in the tree */
};

/* Two directories to be compared: of one name, or renamed. */
struct cow_dir_pair {
	struct cow_side_dir old, new;
	char *old_path, *path;
	const struct cow_way *way;
	bool first; /* nothing above has compared the links below here */
	/* The pair at or above in the same worlds, up to which names are told apart (same only). */
	const struct cow_dir_pair *scope;
	struct cow_dir_pair *next;
};

struct cow_list {
	struct cow_side_entry **entries;
	size_t count, size;
	size_t seen;   /* up to here matched with the other list */
	size_t opened; /* up to here looked for directories to list */
	struct cow_map by_number;
};

struct cow_compare {
	struct cow_volume *volume;
	struct cow_holding holding;
	bool expand;
	bool same; /* only whether there is any difference: the first stops it */
	struct cow_side_world *worlds;
	struct cow_map compared; /* same: pairs that were looked at, by a hash of their trees */
	struct cow_way *ways;
	uint64_t ways_left; /* how many more directories may be met */
	int ways_error;     /* when there are none left */
	struct cow_dir_pair *pairs, *done_pairs;
	struct cow_list gone, come;
	struct cow_change *changes;
	size_t change_count, change_size;
};

#define COW_DIFFERENT 1 /* stops a walk in same mode */

/* The record of an entry; `bytes` (COW_VALUE_MAX) holds it. */
int cow_compare_load(struct cow_compare *c, const struct cow_side_entry *entry, uint8_t *bytes,
		     struct cow_record *record);
struct cow_side_world *cow_compare_world(struct cow_compare *c, struct cow_ptr links, uint64_t backs);
/* An item of a tree that is an entry, copied; to be freed. */
struct cow_side_entry *cow_compare_entry(const uint8_t *value, uint32_t length, const char *dir_path,
					 struct cow_side_world *world, const struct cow_way *up);
void cow_compare_entry_free(struct cow_side_entry *entry);
/* The value of a key, copied. -ENOENT */
int cow_compare_get(struct cow_compare *c, const struct cow_tree *tree, uint64_t key, uint8_t *value, uint32_t *length);
/* The record of a link key, its bytes copied. -- COW_ERR_DAMAGED if there is none */
int cow_compare_link_record(struct cow_compare *c, const struct cow_side_world *world, uint64_t key, uint8_t *bytes,
			    struct cow_slice *record);
char *cow_path_join(const char *dir, const uint8_t *name, uint32_t length);

#endif
