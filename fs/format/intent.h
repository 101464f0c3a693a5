/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Intents: what the records of the intent log say, as bytes. Pure functions between bytes and structs; doc/FORMAT.md
 * has the layout. Bytes are hostile: the decoder checks every length and range, and nobody behind it has to.
 *
 * An intent is one operation with what it needs to have the same result when it is done again on the same tree: the
 * place of each inode, as the keys of the entries that lead to it from the root, and its n, which must be what is found
 * there; the number that the operation takes first from the volume's counter; and the time that it sets.
 */
#ifndef COW_FS_FORMAT_INTENT_H
#define COW_FS_FORMAT_INTENT_H

#include "fs/format/record.h"

enum cow_intent_type {
	COW_INTENT_CREATE = 1, /* `name` in `spot`, with mode, uid, gid, rdev; `bytes`: target of a symlink */
	COW_INTENT_LINK,       /* `spot` also becomes `name` in `to` */
	COW_INTENT_UNLINK,     /* `name` in `spot` */
	COW_INTENT_RMDIR,      /* `name` in `spot` */
	COW_INTENT_RENAME,     /* `name` in `spot` becomes `to_name` in `to`; flags as cow_rename() */
	COW_INTENT_ATTR,       /* of `spot`: the fields named by `flags` (COW_SET_*, never SIZE), ctime always */
	COW_INTENT_SET_XATTR,  /* of `spot`: `name` gets the value `bytes` */
	COW_INTENT_DROP_XATTR, /* of `spot`: `name` */
	COW_INTENT_ROW,        /* `row` comes into the table of numbers */
	/* The content of the file at `spot`: cut to `low`, then set to `size`; then `bytes` says what is where: (u64
	 * offset, u32 length, bytes) one after the other. Then mode, owner and times. A state, not a change: it may be
	 * done again. */
	COW_INTENT_FILE,
	COW_INTENT_TYPES
};

#define COW_SPOT_DEPTH 64u /* deeper places cannot be said: fsync is a commit there */

/* Where an inode is. */
struct cow_spot {
	uint64_t number; /* n */
	bool linked;     /* the last key is a link key in the world that the others lead to */
	uint8_t depth;
	uint64_t keys[COW_SPOT_DEPTH]; /* from the root down */
};

struct cow_intent {
	enum cow_intent_type type;
	uint64_t generation;    /* that it belongs to: done already if this one is durable */
	uint64_t number;        /* the volume's counter before it */
	struct cow_when now;
	struct cow_spot spot, to;
	struct cow_slice name, to_name, bytes;
	uint32_t mode, uid, gid, rdev, flags;
	struct cow_when atime, mtime, ctime, btime;
	uint64_t low, size;
	struct cow_row row;
};

/* A string of bytes that grows. All zero at the start. */
struct cow_bytes {
	uint8_t *bytes;
	size_t length, size;
};
void cow_bytes_add(struct cow_bytes *to, const void *bytes, size_t length);

/* Appends the intent. */
void cow_intent_encode(const struct cow_intent *intent, struct cow_bytes *to);
/* Reads the intent at the start of `bytes`; *used is its length. Its slices point into `bytes`. -- COW_ERR_DAMAGED */
int cow_intent_decode(const uint8_t *bytes, size_t length, struct cow_intent *intent, size_t *used);

/* One range of COW_INTENT_FILE: takes it off the front of `ranges`. False: there is none left. */
struct cow_intent_range {
	uint64_t offset;
	struct cow_slice bytes;
};
void cow_intent_add_range(struct cow_bytes *to, uint64_t offset, const void *bytes, uint32_t length);
bool cow_intent_next_range(struct cow_slice *ranges, struct cow_intent_range *range);

/*
 * A whole record: the volume's counters when it was written, then intents.
 */
struct cow_intent_head {
	uint64_t number, colour, chunk;
};
#define COW_INTENT_HEAD 24u
void cow_intent_head_encode(const struct cow_intent_head *head, struct cow_bytes *to);
/* `bytes` holds the head at its start, and well-formed intents to its end. -- COW_ERR_DAMAGED */
int cow_intent_validate(const uint8_t *bytes, size_t length, struct cow_intent_head *head);

#endif
