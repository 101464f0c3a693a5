/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Inodes in memory: where each lives, and what it was changed to since the last
 * fold.
 *
 * PLACES. An inode's record is at one of four places: in the entry of its directory (embedded), in the links tree of
 * its world (linked), in the orphans tree (no name left, but held open), or nowhere (gone; only the handle is left).
 * Root is embedded in the tree `root`, which has no directory: parent NULL.
 *
 * DIRTY. A dirty inode's fields supersede the bytes of its record in the tree: they own what the record claims. That
 * works because everything on the way from the superblock to that record is private and dirty too: cow_inode_reserve()
 * makes it so, top down, before the first change. A fold writes the record into its tree and makes the inode clean, so
 * before a tree is shared (clone, seal) all inodes below are folded.
 *
 * All fields: store lock.
 */
#ifndef COW_FS_CORE_INODE_H
#define COW_FS_CORE_INODE_H

#include "base/map.h"
#include "base/radix.h"
#include "fs/core/op.h"
#include "fs/format/record.h"
#include "store/tree.h"

enum cow_place { COW_EMBEDDED, COW_LINKED, COW_ORPHAN, COW_GONE };

/* One block of buffered file data that has no place on the device yet. */
struct cow_page {
	uint8_t bytes[COW_BLOCK];
};

/* Bytes kept inline in the record or, when long, in a BLOB tree; in memory both as loaded bytes (blob.c). */
struct cow_blob {
	uint32_t length;
	uint8_t *bytes;       /* NULL: not loaded (only if tree is not null) or length 0 */
	struct cow_tree tree; /* null: inline */
};

struct cow_inode {
	struct cow_volume *volume;
	uint64_t number, colour; /* (colour, n) occurs once in the volume */
	enum cow_place place;
	struct cow_inode *parent; /* EMBEDDED: directory with the entry; LINKED: top of the world; else NULL */
	uint64_t key;             /* EMBEDDED: of the entry; LINKED: link key; ORPHAN: in the orphans tree */
	uint64_t refs;            /* handles given out, plus children in memory */
	uint32_t opens;           /* cow_hold() */
	bool dirty;
	bool tracked;             /* in the volume's list: dirty, or points to dirty nodes that a seal will rename */
	struct cow_inode *track_next, *track_prev;
	uint32_t pending;         /* fold: dirty inodes whose record lies in this one's trees */
	bool coloured;            /* colour is known; else the inode was only passed through (purge.c) */
	uint64_t live_version;    /* volume->removals when it was last found to be below the root */
	uint64_t ino;             /* st_ino once it was asked for, else 0 */
	struct cow_inode *open_next, *open_prev; /* in volume->open if opens > 0 */
	struct cow_inode *all_next, *all_prev;   /* every inode in memory */
	bool linkable;            /* O_TMPFILE: may be given a name although it has none */

	/* attributes */
	uint32_t mode, uid, gid, rdev;
	uint64_t size; /* files, symlinks */
	struct cow_when atime, mtime, ctime, btime;
	uint64_t tag;
	struct cow_blob xattr;

	/* LINKED: names, live or not */
	struct cow_back *backs;
	uint32_t back_count, back_size;
	uint64_t names_due;        /* blocks that the next fold takes for the list of them */
	struct cow_tree back_tree; /* what the row claims now, rebuilt by fold if backs_changed */
	bool backs_loaded, backs_changed;
	uint32_t nlink;            /* live names, while nlink_version is the world's spine_version */
	uint64_t nlink_version;

	/* files and symlinks (file.c) */
	enum cow_body body;      /* NONE, INLINE, EXTENTS, TREE; DIR for directories */
	struct cow_blob target;  /* symlinks */
	uint8_t *data;           /* INLINE: content of `size` bytes; EXTENTS: encoded list */
	uint32_t data_length;
	struct cow_tree tree;    /* TREE (FILE); directories: their entries (DIR) */
	uint64_t blocks;         /* mapped, buffered pages in holes not counted */
	struct cow_radix pages;  /* file block -> struct cow_page: buffered, newer than the map (pages.c) */
	uint64_t data_due;       /* blocks that the next fold takes for their map */
	uint64_t runs;           /* of pages that lie next to each other */
	uint64_t covered;        /* of pages: its part of the store's, found when there were so many, at that version */
	uint64_t covered_of, covered_version;
	struct {                 /* how far the search for that had come when it missed: space.c */
		uint64_t at, covered, of, version;
	} covering;
	struct cow_inode *buffered_next, *buffered_prev; /* in volume->buffered if there are pages */
	uint64_t data_version;   /* changes with every change of content or map */
	struct {                 /* a copy that may go on where it ended: file.c */
		struct cow_inode *from;  /* identity only, never followed */
		uint64_t from_version, own_version, length;
	} copied;

	/* directories */
	struct cow_totals totals;
	struct cow_map kids;     /* entry key -> embedded inode in memory */
	bool is_world;
	/* worlds */
	bool read_only;
	struct cow_tree links;
	uint64_t back_sum;       /* back-references in links */
	uint64_t link_bytes, link_blocks, link_files;
	struct cow_map linked;   /* link key -> linked inode in memory */
	uint64_t spine_version;  /* grows with every change of the spine; starts at 1 */
	bool purge_queued;       /* in volume->purge */
};

/* [locked] A new inode in memory for a record at a place. Takes a reference of its parent, has none itself. */
struct cow_inode *cow_inode_new(struct cow_volume *volume, enum cow_place place, struct cow_inode *parent, uint64_t key,
				const struct cow_record *record);
/* [locked] One reference more; any number less, which may free it and parents that were kept for it. */
void cow_inode_get(struct cow_inode *inode);
void cow_inode_put(struct cow_inode *inode, uint64_t count);
/* [locked] Frees it now, whatever it is: for closing a volume. */
void cow_inode_destroy(struct cow_inode *inode);
/* [locked] The inode leaves its place (memory side only): out of its parent's maps, or into them. */
void cow_inode_unhook(struct cow_inode *inode);
void cow_inode_hook(struct cow_inode *inode, enum cow_place place, struct cow_inode *parent, uint64_t key);
/* [locked] Puts the inode on the list of those that a seal has to visit. */
void cow_inode_track(struct cow_inode *inode);
/* Its record has changed, or is no longer to be written. Clean before, dirty before. */
void cow_inode_set_dirty(struct cow_inode *inode);
void cow_inode_set_clean(struct cow_inode *inode);
/* What its fold takes beside what any record may take has become `blocks`; `due` is the field of the inode for that
 * part of it. The store's sum follows. */
void cow_inode_promise(struct cow_inode *inode, uint64_t *due, uint64_t blocks);
void cow_inode_untrack(struct cow_inode *inode);
/* [locked] The fields as a record; its slices point into the inode. */
void cow_inode_record(const struct cow_inode *inode, struct cow_record *record);
/* The top of the world that the inode belongs to, as a directory or by its record: a world's top belongs to its own. */
struct cow_inode *cow_inode_world(struct cow_inode *inode);

/* [locked] Is it `top`, or in it at any depth? Worlds do not matter. */
bool cow_inode_is_below(const struct cow_inode *inode, const struct cow_inode *top);
/* [locked] -ESTALE if gone or detached; -EROFS if a world above it (or the file's world) is read-only. */
int cow_inode_check_writable(struct cow_inode *inode);
int cow_inode_check_live(struct cow_inode *inode);

static inline bool cow_inode_is_dir(const struct cow_inode *i) { return (i->mode & 0170000) == 0040000; }
static inline bool cow_inode_is_file(const struct cow_inode *i) { return (i->mode & 0170000) == 0100000; }

#endif
