/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Records: inodes as bytes. Pure functions between bytes and structs; doc/FORMAT.md has the layout.
 *
 * Bytes are hostile: every decoder checks each length, range, order and reserved zero once, when a node is read
 * (cow_value_validate); what comes out of a node later may be decoded with an assertion that it succeeds.
 *
 * A decoded record points into the bytes it was decoded from.
 */
#ifndef COW_FS_FORMAT_RECORD_H
#define COW_FS_FORMAT_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "store/ptr.h"
#include "store/tree.h"

/* Kinds of trees (u8 in every node) and their keys -> values. COW_KIND_RECLAIM is 1. */
enum {
	COW_KIND_DIR = 2,     /* entry key -> entry (name + record or link reference); also the root, orphans */
	COW_KIND_LINKS = 3,   /* link key -> link row (record + back-references); directory n -> spine row */
	COW_KIND_FILE = 4,    /* file block -> extent */
	COW_KIND_BLOB = 5,    /* byte offset -> bytes: long symlinks, xattrs, back-references */
	COW_KIND_NUMBERS = 6, /* rows of colours and chunks, see fs/world/inode_number.h */
};

#define COW_NAME_BYTES_MAX 255u
#define COW_INLINE_MAX 512u       /* bytes of file data in the record */
#define COW_EXTENTS_MAX 512u      /* bytes of encoded extents in the record */
#define COW_XATTR_INLINE_MAX 96u
#define COW_XATTR_LIST_MAX (256u << 10) /* bytes of the whole list */
#define COW_TARGET_INLINE_MAX 480u
#define COW_BACKS_INLINE_MAX 8u   /* back-references in a link row */
#define COW_BLOB_CHUNK 1000u      /* bytes in an item of a BLOB tree; all but the last are full */
#define COW_EXTENT_BLOCKS_MAX 64u
#define COW_FILE_SIZE_MAX (1ull << 62)

/* The first three keys are readdir cookies (start, "." and ".."); entry keys are hash (56 bits) << 7 | ordinal. */
#define COW_KEY_FIRST 128u
#define COW_KEY_ORDINALS 128u

struct cow_slice {
	const uint8_t *bytes;
	uint32_t length;
};

/* Order of byte strings: memcmp(), then the shorter one first. */
int cow_slice_compare(struct cow_slice a, struct cow_slice b);

struct cow_when {
	int64_t seconds;
	uint32_t nanoseconds; /* below 1e9 */
};

/* Sums over everything below a directory, in this world and the ones nested in it unless said otherwise; modulo 2^64.
 * Hard-linked files are not in bytes, blocks and files: they are summed in their world's `links`. */
struct cow_totals {
	uint64_t bytes;       /* file sizes */
	uint64_t blocks;      /* of 4 KiB mapped by files */
	uint64_t files;       /* everything that is no directory */
	uint64_t dirs;
	uint64_t refs;        /* link references, of this world only */
	uint64_t nested_refs; /* link references in nested worlds */
	uint64_t exceptions;  /* at least as many as there are: see cow_inode_exceptional() */
};

enum cow_body {
	COW_BODY_NONE,    /* devices, fifos, sockets, empty files */
	COW_BODY_INLINE,  /* `data` is the content of a file, or the target of a symlink */
	COW_BODY_EXTENTS, /* `data` is a list of (u64 file block, extent), ascending */
	COW_BODY_TREE,    /* `tree`: extents of a file (FILE), or a long symlink target (BLOB) */
	COW_BODY_DIR,     /* `tree` (DIR), `totals`, and the world part if is_world */
};

struct cow_record {
	uint32_t mode;   /* type and permissions, 16 bits */
	uint32_t uid, gid;
	uint32_t rdev;
	uint64_t number; /* n */
	uint64_t size;   /* files, symlinks */
	struct cow_when atime, mtime, ctime, btime;
	uint64_t tag;    /* of a world, or of a file that was moved across worlds; 0: none */
	enum cow_body body;
	struct cow_slice data;
	struct cow_ptr tree;
	uint64_t blocks; /* BODY_EXTENTS, BODY_TREE of a file: blocks mapped */
	/* directories */
	struct cow_totals totals;
	bool is_world;
	bool read_only;        /* world flag */
	struct cow_ptr links;  /* world */
	uint64_t backs;        /* world: number of back-references in links */
	uint64_t link_bytes, link_blocks, link_files; /* world: sums over the records in links */
	/* xattrs: a list of (u8 name length, u32 value length, name, value), sorted by name; inline or a BLOB tree */
	uint32_t xattr_length; /* total bytes of the list */
	struct cow_slice xattr;     /* if xattr_length <= COW_XATTR_INLINE_MAX */
	struct cow_ptr xattr_tree;  /* else */
};

/* Checks a list of xattrs, inline or from a BLOB tree. 0 or COW_ERR_DAMAGED. */
int cow_xattr_list_validate(const uint8_t *bytes, uint32_t length);

#define COW_RECORD_MAX (COW_VALUE_MAX - 2u - COW_NAME_BYTES_MAX)

/* Returns the length, at most COW_RECORD_MAX (asserted). */
uint32_t cow_record_encode(const struct cow_record *record, uint8_t *bytes);
/* Consumes exactly `length` bytes. 0 or COW_ERR_DAMAGED. total_blocks: for range checks of addresses; 0: the bytes were
 * validated before (or made in memory, and may hold dirty pointers), only the shape is followed. */
int cow_record_decode(const uint8_t *bytes, uint32_t length, uint64_t total_blocks, struct cow_record *record);

/* ---- entries of a directory: u8 name length, name, then a record, or a link reference (0xff, u8 type, u64 key) */
struct cow_dirent {
	struct cow_slice name;    /* empty in the trees root and orphans */
	bool is_link;
	uint64_t link_key;        /* is_link: key in the world's links */
	uint32_t link_type;       /* is_link: S_IFMT bits */
	struct cow_slice record;  /* not is_link: still encoded */
};
uint32_t cow_dirent_encode_record(struct cow_slice name, const struct cow_record *record, uint8_t *bytes);
uint32_t cow_dirent_encode_link(struct cow_slice name, uint32_t type, uint64_t link_key, uint8_t *bytes);
int cow_dirent_decode(const uint8_t *bytes, uint32_t length, struct cow_dirent *entry);

/* ---- rows of links: u8 1, u16 record length, record, u32 number of back-references, then 16 bytes each or a BLOB
 *      pointer (more than COW_BACKS_INLINE_MAX) */
struct cow_back {
	uint64_t dir; /* n of the directory */
	uint64_t key; /* of the entry in it */
};
struct cow_link_row {
	struct cow_slice record;
	uint32_t backs;
	const uint8_t *back_bytes; /* inline, 16 bytes each: get64 dir, get64 key */
	struct cow_ptr back_tree;  /* else */
};
uint32_t cow_link_row_encode(const struct cow_record *record, const struct cow_back *backs, uint32_t count,
			     struct cow_ptr back_tree, uint8_t *bytes);
/* -- COW_ERR_DAMAGED; -ENOENT if it is a well-formed spine row */
int cow_link_row_decode(const uint8_t *bytes, uint32_t length, struct cow_link_row *row);
/* ---- spine rows: u8 2, u64 parent n, u64 entry key (17 bytes) */
uint32_t cow_spine_row_encode(struct cow_back up, uint8_t *bytes);
int cow_spine_row_decode(const uint8_t *bytes, uint32_t length, struct cow_back *up);

/* ---- extents: one item of a FILE tree (key: first file block); in the record the u64 file block comes before it.
 *      u8 kind (1 plain), u8 0, u16 blocks (1..64), u64 first block, u32 checksum each. Kind 2 (unwritten,
 *      reads as zeros) has no checksums.  Later kinds: compressed. */
enum { COW_EXTENT_PLAIN = 1, COW_EXTENT_UNWRITTEN = 2 };
struct cow_extent {
	uint64_t at;     /* file block */
	uint8_t kind;
	uint16_t blocks;
	uint64_t block;  /* first block on the device */
	const uint8_t *sums; /* PLAIN: u32 each, encoded */
};
#define COW_EXTENT_BYTES_MAX (12u + 4u * COW_EXTENT_BLOCKS_MAX)
uint32_t cow_extent_encode(const struct cow_extent *extent, uint8_t *bytes); /* without `at` */
/* Reads one extent at the start of bytes; *used is its length. 0 or COW_ERR_DAMAGED. */
int cow_extent_decode(const uint8_t *bytes, uint32_t length, uint64_t at, uint64_t total_blocks,
		      struct cow_extent *extent, uint32_t *used);
/* Checksum of a data block: low half of XXH3_64bits. */
uint32_t cow_extent_sum(const void *block);

/* ---- rows of numbers (inode_number.h): u8 type, u64 a, u64 b, u64 value */
enum { COW_ROW_COLOUR = 1, COW_ROW_CHUNK = 2, COW_ROW_FREE_CHUNK = 3 };
#define COW_ROW_BYTES 25u
#define COW_CHUNK_MAX (1ull << 29) /* st_ino stays below 2^53 */
struct cow_row {
	uint8_t type;
	uint64_t a, b, value;
};
void cow_row_encode(const struct cow_row *row, uint8_t bytes[COW_ROW_BYTES]);
int cow_row_decode(const uint8_t *bytes, uint32_t length, struct cow_row *row);

/* ---- for the store: struct cow_store_ops.validate and .claims, for all kinds but RECLAIM */
int cow_value_validate(uint8_t kind, uint64_t key, const uint8_t *value, uint32_t length, uint64_t total_blocks);
void cow_value_claims(uint8_t kind, uint8_t *value, uint32_t length, struct cow_claims *visitor);
/* Visits the claims of one encoded record. */
void cow_record_claims(uint8_t *bytes, uint32_t length, struct cow_claims *visitor);

#endif
