/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The oracle: what a volume should contain, kept in the most naive way. A clone copies every node, a hard link is one
 * node with two names, a count is a walk. Nothing here knows about blocks, trees or worlds' colours, so a fault in the
 * engine's clever parts has no twin here.
 *
 * Each operation is a function that returns the set of errors that apply (0: it must succeed) and, if `apply` is set
 * and the set is empty, does it. Where several errors apply the engine may answer any of them.
 */
#ifndef COW_TEST_LIB_ORACLE_H
#define COW_TEST_LIB_ORACLE_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "test/lib/content.h"

#define ORA_NAME 12   /* bytes of a name token with its NUL */
#define ORA_PATH 320  /* bytes of a path of tokens */
#define ORA_DEPTH 64
#define ORA_HANDLES 8
#define ORA_XATTRS 16

/* Sets of errno values; the few that occur are below 63, ESTALE is told apart by hand. */
#define ORA_ERROR(e) (1ull << ((e) == ESTALE ? 63 : (e)))

struct ora_node;

struct ora_kid {
	char name[ORA_NAME];
	struct ora_node *node;
};

struct ora_xattr {
	char name[ORA_NAME];
	struct content *value;
};

struct ora_node {
	uint64_t id;     /* of this inode, also in saved states; a clone's are others */
	unsigned refs;   /* holders: names, handles, roots */
	unsigned names;  /* st_nlink of what is no directory */
	uint32_t mode, uid, gid, rdev;
	bool world, read_only; /* top of a clone; a read-only one */
	bool gone;             /* directory: removed */
	uint64_t ino;          /* as first seen; 0: never seen */
	int64_t mtime;         /* seconds as set by hand; 0: unknown */
	struct content *content; /* of a file; target of a symlink */
	struct ora_xattr xattrs[ORA_XATTRS];
	unsigned xattr_count;
	struct ora_kid *kids;  /* sorted by name */
	unsigned kid_count, kid_room;
	struct ora_node *twin; /* scratch of copies and comparisons */
	unsigned seen;
	uint64_t mark;
};

struct ora_trail {
	unsigned count; /* 0: no such path; else node[0] is the root */
	struct ora_node *node[ORA_DEPTH];
	char last[ORA_NAME]; /* the last component, empty for the root */
};

struct ora {
	struct ora_node *root;
	struct ora_node *handle[ORA_HANDLES]; /* held open */
};

/* A number that no node has been marked with yet. */
uint64_t ora_mark(void);
struct ora_node *ora_node_new(uint32_t mode);
struct ora_node *ora_node_hold(struct ora_node *node);
void ora_node_put(struct ora_node *node);
static inline bool ora_node_is_dir(const struct ora_node *n) { return S_ISDIR(n->mode); }
struct ora_node *ora_node_find(const struct ora_node *dir, const char *name);
uint64_t ora_node_size(const struct ora_node *node);
/* A deep copy with the same hard-link groups inside. with_ino: it stands for the same inodes (a saved state). */
struct ora_node *ora_tree_copy(struct ora_node *top, bool with_ino);

void ora_init(struct ora *ora);
void ora_free(struct ora *ora);
/* Another state as the present one; handles are lost. Takes over `root`. */
void ora_restore(struct ora *ora, struct ora_node *root);

void ora_walk(const struct ora *ora, const char *path, struct ora_trail *trail);
/* A trail that ends at `node`; count 0 if no name leads there. */
void ora_find(const struct ora *ora, const struct ora_node *node, struct ora_trail *trail);
bool ora_trail_read_only(const struct ora_trail *trail, unsigned count);
/* Is the file read-only because of where its names are? (one without names is not) */
bool ora_node_read_only(const struct ora *ora, const struct ora_node *node);

/* `dir` is the trail of a directory to work in, `name` a token. */
uint64_t ora_make(const struct ora_trail *dir, const char *name, struct ora_node *made, bool apply);
uint64_t ora_link(const struct ora_trail *from, const struct ora_trail *dir, const char *name, bool apply);
uint64_t ora_unlink(const struct ora_trail *at, bool apply);
uint64_t ora_rmdir(const struct ora_trail *at, bool apply);
uint64_t ora_remove_tree(const struct ora_trail *at, bool apply);
uint64_t ora_clone(struct ora_node *from, const struct ora_trail *dir, const char *name, bool read_only, bool apply);
uint64_t ora_clone_over(struct ora_node *from, const struct ora_trail *dir, const char *name, bool read_only,
			bool apply);
uint64_t ora_rename(const struct ora_trail *from, const struct ora_trail *dir, const char *name, unsigned flags,
		    bool apply);
/* What a change of the inode itself answers. content: of its data. */
uint64_t ora_change(const struct ora *ora, const struct ora_node *node, bool content);

struct ora_sum {
	uint64_t bytes, files, dirs;
};
void ora_total(struct ora_node *dir, struct ora_sum *sum);

/* The changes between two directories, one string each ("M path"), sorted; free with ora_diff_free(). */
struct ora_diff {
	char **lines;
	unsigned count, room;
};
void ora_diff(struct ora_node *a, struct ora_node *b, struct ora_diff *out);
void ora_diff_add(struct ora_diff *out, char type, const char *path);
void ora_diff_subtree(struct ora_node *node, const char *path, char type, bool top, struct ora_diff *out);
void ora_diff_sort(struct ora_diff *out); /* drops duplicates too */
void ora_diff_free(struct ora_diff *out);
bool ora_node_same_content(const struct ora_node *a, const struct ora_node *b);
bool ora_node_same_attributes(const struct ora_node *a, const struct ora_node *b);

#endif
