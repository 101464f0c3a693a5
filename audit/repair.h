/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Repair: from a damaged volume to a sound one that has all that can still be trusted.
 *
 * WHAT IS TRUSTED. A node whose checksum, held by whoever points to it, fits. If it does not, but would with one bit
 * flipped, that bit is what was damaged. There are two exceptions, each with a proof of its own:
 *   - An inner node that is damaged may hold pointers that are not: one whose 64-bit checksum fits the block it
 *     names, of the right kind, level and birth, is taken (repair_node.c).
 *   - A block that has a count in a piece that fits its selector, but that nothing leads to any more, was owned by
 *     something damaged. Blocks with a count are never written before a later generation is durable, so if it
 *     looks like a node in every respect it is one; but its checksum is gone. What hangs below such nodes is put into
 *     /lost+found, where somebody can look at it, and not back to where it may have been (repair_lost.c).
 *
 * HOW. A flipped bit is put right in place. All else is a rewrite, bottom up, as any commit is one: a node below which
 * nothing is wrong keeps its block, so what clones share stays shared; all others are written anew, without what is
 * lost. A damaged block costs:
 *     directory leaf            its entries; trees below them go to /lost+found
 *     directory inner node      nothing, if its pointers can be proved; else its leaves go to /lost+found
 *     extents of a file         that range of the file answers EIO until it is written over (repair_file.c)
 *     links                     its rows: names of hard links without a record go (repair_world.c)
 *     long symlink              the symlink
 *     xattrs                    all xattrs of that inode; its mode is cut to its owner, as ACLs may be among them
 *     back-references, spine    nothing: both follow from the names
 *     numbers                   inode numbers of the colours in it change
 *     reclaim queue             nothing: what only it holds is free once counts are made anew, so it is dropped; but
 *                               what had been removed and cannot be told from what was lost shows in /lost+found
 *     orphans                   nothing: the next opening drops them
 *     intent log                if it does not fit the mended volume any more, it is dropped: what fsync had promised
 *                               since the last commit
 *     pieces, selectors         nothing: counts follow from the pointers
 *     superblock                one copy: nothing; both copies of the newest: what the last commit had
 *     file data                 not repaired: its reads answer EIO
 *
 * NEVER WORSE. Everything is built on an overlay (dev/dev_overlay.h). New blocks are taken only where the old
 * generation has a count of 0 that can be trusted, and count slots only where they are not selected. The result is
 * checked, in memory, by the same check as always; only if that finds nothing, or less than before and nothing about
 * pointers and counts, it is written: what will be overwritten goes to the undo file first, then blocks, flush,
 * superblock A, flush, B. So a crash leaves either the volume as it was or the repaired one.
 *
 * MEMORY. A struct cow_mended a node, a bit and a count a block, and what is rewritten.
 */
#ifndef COW_AUDIT_REPAIR_H
#define COW_AUDIT_REPAIR_H

#include "base/map.h"
#include "audit/check_walk.h"

/* One node, and what became of it. Children are done before parents; shared ones once. */
struct cow_mended {
	struct cow_ptr old;
	struct cow_ptr now; /* null: nothing of it is left */
	struct cow_mended *up; /* who led here first: for its path */
	uint64_t up_key; /* the item there */
	uint8_t kind, level;
	bool entered, done;
	bool lost; /* it, or something below in this tree, could not be read */
	bool changed; /* not the same as before */
	bool empty;
	uint64_t first, last; /* keys that are left */
	struct cow_witness *witness; /* of a damaged inner node: the children that could be proved */
	union {
		struct {
			struct cow_totals totals;
			uint64_t owned; /* entries of `uid` that are no exceptions otherwise */
			uint32_t uid;
			bool mixed;
		} dir;
		struct {
			uint64_t backs, bytes, blocks, files;
		} links;
		struct {
			uint64_t blocks;
		} file;
		struct {
			uint64_t length;
		} blob;
	} sum;
};

struct cow_unknown {
	uint64_t from, to; /* groups */
};

struct cow_repair {
	struct cow_dev *dev, *overlay;
	const struct cow_repair_options *options;
	struct cow_repair_result *result;
	struct cow_super super; /* as found; becomes the new one */
	uint64_t generation; /* births of what is written: of the generation that was found */
	uint64_t next_generation; /* that is being made */
	struct cow_counters counters;
	bool links_wrong; /* the check has found fault with link records: look at all worlds */

	struct cow_map stored; /* group -> u32[1024]: pieces that can be trusted */
	struct cow_unknown *unknown; /* groups of which nothing is known, as a piece or selectors above are damaged */
	size_t unknown_count;
	struct cow_map reached; /* group -> bits: blocks that something trusted leads to */
	uint64_t next_block; /* allocation goes upwards */
	uint64_t poison; /* first of a run of blocks for ranges that are lost, or 0 */
	uint32_t poison_blocks;
	uint64_t poisoned; /* blocks of files */

	struct cow_map mended; /* address -> struct cow_mended */
	struct cow_map files; /* hash of (tree, size) -> struct mended_file */
	struct cow_map worlds; /* hash of (top, tree, links) -> struct mended_world */
	struct cow_kept *kept; /* for /lost+found */
	size_t kept_count, kept_size;
	struct cow_map kept_hashes; /* of records */
	struct cow_map kept_names; /* hash of a name -> how often it was wanted */
	int error; /* that ends the repair: the first one */
};

/* Something for /lost+found. */
struct cow_kept {
	char name[40];
	uint8_t record[COW_RECORD_MAX];
	uint32_t length;
};

/* ---- repair.c */

/* As cow_repair() on a device, which stays the caller's. */
COW_CHECKED int cow_repair_device(struct cow_dev *dev, const struct cow_repair_options *options,
				  struct cow_repair_result *result);
/* Reports a loss: where `node` is, or the entry `name` in it. */
void cow_repair_lost(struct cow_repair *r, const struct cow_mended *node, const struct cow_slice *name, uint64_t block,
		     const char *format, ...) __attribute__((format(printf, 5, 6)));
void cow_repair_lost_range(struct cow_repair *r, const struct cow_mended *node, const struct cow_slice *name,
			   uint64_t block, uint64_t offset, uint64_t length);
/* Reports what was put into /lost+found, which is called `dir` here. */
void cow_repair_found(struct cow_repair *r, const char *dir, const struct cow_slice *name, bool is_dir);
/* The next n, tag or link key. */
static inline uint64_t cow_repair_number(struct cow_repair *r)
{
	return r->counters.number++;
}
static inline void cow_repair_saw_number(struct cow_repair *r, uint64_t number)
{
	if (number >= r->counters.number && number < UINT64_MAX / 2)
		r->counters.number = number + 1;
}

/* ---- repair_counts.c: blocks */

/* Reads the pieces that are sound. */
void cow_repair_read_counts(struct cow_repair *r);
void cow_repair_reach(struct cow_repair *r, uint64_t block);
bool cow_repair_reached(const struct cow_repair *r, uint64_t block);
/* The stored count, or -1 if it is not known. */
int64_t cow_repair_stored(const struct cow_repair *r, uint64_t block);
/* A run of up to `want` blocks; 0 and r->error: there is none. */
uint64_t cow_repair_alloc(struct cow_repair *r, uint32_t want, uint32_t *got);
/* Writes pieces and selectors for what `found` has counted, and puts their root into the superblock. */
int cow_repair_write_counts(struct cow_repair *r, struct cow_check *found);

/* ---- repair_node.c: trees */

/* What a pass over trees does with them. */
enum cow_mend {
	COW_MEND_ALL, /* everything in this file's head */
	COW_MEND_NAMES, /* one world, sound but for names without a record: takes these out */
	COW_MEND_MARK, /* changes nothing: notes which blocks are reached */
};
struct cow_mender {
	struct cow_repair *repair;
	enum cow_mend what;
	struct cow_map *memo; /* address -> struct cow_mended */
	const struct cow_map *names; /* NAMES: link key -> something, if the name may stay; its type + 1 */
};
/* Mends a tree and all below it; NULL for the null pointer. */
struct cow_mended *cow_mend_tree(struct cow_mender *mender, struct cow_ptr root, uint8_t kind, struct cow_mended *up,
				 uint64_t up_key);
/* What was made of a child, if it is what the pointer says; else NULL: it is lost. */
struct cow_mended *cow_mend_find(const struct cow_mender *mender, struct cow_ptr ptr, uint8_t kind, int level);
void cow_mend_free(struct cow_map *memo);
/* A block as it is to be, staged if it was written anew. 0 or a negative error. */
int cow_repair_read(struct cow_repair *r, uint64_t block, uint8_t bytes[COW_BLOCK]);
/* Reads a node; false if it is not what the pointer says. level -1: any. */
bool cow_repair_load(struct cow_repair *r, struct cow_ptr ptr, uint8_t kind, int level, uint8_t bytes[COW_BLOCK]);
/* Item `i`, if it lies within the node and is well formed. */
bool cow_repair_item(const struct cow_repair *r, const uint8_t *bytes, unsigned i, struct cow_check_item *item);
/* Goes over the leaves' items of a sound tree; stops at what is not 0, which it returns. */
typedef int (*cow_repair_item_fn)(void *context, uint64_t key, const uint8_t *value, uint32_t length);
int cow_repair_each(struct cow_repair *r, struct cow_ptr root, uint8_t kind, cow_repair_item_fn fn, void *context);

/* ---- repair_build.c: new nodes */

/* A tree from its items, which come in ascending order. */
struct cow_build {
	struct cow_repair *repair;
	uint8_t kind;
	uint8_t leaf[COW_BLOCK];
	uint64_t *keys; /* of nodes done at the present level */
	struct cow_ptr *ptrs;
	size_t count, size;
};
void cow_build_begin(struct cow_build *build, struct cow_repair *r, uint8_t kind);
void cow_build_add(struct cow_build *build, uint64_t key, const void *value, uint32_t length);
struct cow_ptr cow_build_end(struct cow_build *build);
struct cow_ptr cow_build_blob(struct cow_repair *r, const uint8_t *bytes, uint32_t length);
/* One node by hand. */
void cow_build_clear(uint8_t bytes[COW_BLOCK], uint8_t kind, unsigned level);
bool cow_build_leaf_add(uint8_t bytes[COW_BLOCK], uint64_t key, const void *value, uint32_t length);
void cow_build_inner_add(uint8_t bytes[COW_BLOCK], uint64_t key, struct cow_ptr child);
/* Gives it a block. Null pointer and r->error if there is none. */
struct cow_ptr cow_build_write(struct cow_repair *r, uint8_t bytes[COW_BLOCK]);

/* ---- repair_entry.c: leaves of directories and links */

/* A value of a leaf on its way to the new one: false: it is dropped. value and *length may change, never to more. */
bool cow_mend_entry(struct cow_mender *mender, struct cow_mended *leaf, uint64_t key, uint8_t *value, uint32_t *length);
bool cow_mend_link(struct cow_mender *mender, struct cow_mended *leaf, uint64_t key, uint8_t *value, uint32_t *length);
/* Adds what is in an entry to the sums of its leaf. */
void cow_mend_sum_entry(struct cow_mended *leaf, const uint8_t *value, uint32_t length);
void cow_mend_sum_link(struct cow_mended *leaf, const uint8_t *value, uint32_t length);
void cow_mend_add_totals(struct cow_mended *to, const struct cow_mended *from);
/* A directory's totals by its tree; exceptions only ever grow. */
void cow_mend_totals(struct cow_record *record, const struct cow_mended *tree);

/* ---- repair_file.c: the map of a file of which extents are lost */

/* Puts ranges that answer EIO in the place of what is lost. False: nothing could be saved. */
bool cow_mend_file(struct cow_repair *r, const struct cow_mended *leaf, const struct cow_slice *name,
		   struct cow_record *record);

/* ---- repair_world.c */

/* A world's names, link records and spine are made to agree; tree and links have been mended. */
void cow_mend_world(struct cow_repair *r, const struct cow_mended *leaf, const struct cow_slice *name,
		    struct cow_record *world, bool lost);

/* ---- repair_lost.c */

/* Keeps a record for /lost+found, once. It gets a fresh tag, so that its number cannot be there twice. */
void cow_repair_keep(struct cow_repair *r, const char *name, struct cow_record *record);
/* Looks for nodes that nothing leads to any more, and keeps what hangs below them. */
void cow_repair_find_lost(struct cow_repair *r);
/* A new tree TOP, if the old one is lost: with the root's own tree, if that can be found. */
struct cow_ptr cow_repair_new_top(struct cow_repair *r);
/* Puts what was kept into /lost+found: a new root record. */
void cow_repair_put_lost(struct cow_repair *r, struct cow_record *root);

#endif
