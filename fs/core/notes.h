/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What happened since the durable generation: what the intent log will have to say when somebody calls fsync.
 *
 * Operations on names, attributes and numbers are noted in order, as intents. Of file content only the changed ranges
 * are noted; the bytes are read when they are logged, so what is written many times is logged once. Two lists: of the
 * generation that is open, and of the one that a commit is writing. When that one is durable, its list is forgotten.
 *
 * What cannot be said as an intent (a clone, a removed tree, a rename across worlds), or would be too much for the
 * ring, makes the next fsync a commit: cow_note_commit().
 *
 * All [locked], as a part of the operation, after it has succeeded.
 */
#ifndef COW_FS_CORE_NOTES_H
#define COW_FS_CORE_NOTES_H

#include "base/map.h"
#include "fs/format/intent.h"
#include "fs/core/op.h"

struct cow_inode;

#define COW_CHANGE_RANGES 64u /* more become one */

/* What changed in a file since its content was last logged. */
struct cow_written {
	uint64_t colour, number;
	struct cow_written *next; /* of the same key in the map */
	uint64_t low;            /* the smallest size it had meanwhile */
	unsigned count;
	struct cow_range {
		uint64_t from, end;
	} *ranges; /* ascending, not touching each other */
};

struct cow_note_list {
	uint64_t generation;
	bool commit;            /* only a commit can make this durable */
	struct cow_bytes bytes; /* intents */
	size_t logged;          /* so many of the bytes are in the log */
	struct cow_map changes; /* of files */
	struct cow_inode **carried; /* renamed over another: their content goes with the names. References. */
	size_t carried_count;
};

/* In the volume. All zero at the start. */
struct cow_notes {
	struct cow_note_list open, sealed;
	size_t limit; /* bytes of intents in a list; 0: nothing is noted, there is no log */
};

struct cow_volume;

void cow_notes_start(struct cow_volume *volume, size_t limit);
/* [gate exclusive] The open list becomes the sealed one. */
void cow_notes_seal(struct cow_volume *volume);
/* The sealed list is durable. */
void cow_notes_durable(struct cow_volume *volume);
/* Frees everything. */
void cow_notes_forget(struct cow_volume *volume);

/* The next fsync has to be a commit. */
void cow_note_commit(struct cow_volume *volume);

/* Where the inode is now. False: nowhere, or too deep. */
bool cow_spot_of(const struct cow_inode *inode, struct cow_spot *spot);

void cow_note_create(struct cow_op *op, struct cow_inode *dir, const char *name, const struct cow_new *new_inode,
		     uint64_t number);
/* `spot`: where the inode was before; NULL: cannot be said. `number`: the counter before. */
void cow_note_link(struct cow_op *op, const struct cow_spot *spot, struct cow_inode *dir, const char *name,
		   uint64_t number);
void cow_note_remove(struct cow_op *op, struct cow_inode *dir, const char *name, bool directory);
/* Within a world. `over`, `swapped` (may be NULL): files whose content the new names promise. */
void cow_note_rename(struct cow_op *op, struct cow_inode *from_dir, const char *from, struct cow_inode *to_dir,
		     const char *to, unsigned flags, struct cow_inode *over, struct cow_inode *swapped);
/* Attributes were set; mask as cow_setattr(). */
void cow_note_attr(struct cow_op *op, struct cow_inode *inode, unsigned mask);
/* value NULL: the attribute is gone. */
void cow_note_xattr(struct cow_op *op, struct cow_inode *inode, struct cow_slice name, const void *value, size_t size);
void cow_note_row(struct cow_volume *volume, const struct cow_row *row);

/* The bytes [from, end) of the file are others now; from = end: its times. */
void cow_note_write(struct cow_inode *file, uint64_t from, uint64_t end);
/* Its size became `size`, smaller than it was. */
void cow_note_cut(struct cow_inode *file, uint64_t size);

/* For fsync: what the lists have to say of the file, its ranges to be freed by the caller; false: nothing. */
bool cow_notes_change_of(const struct cow_volume *volume, const struct cow_inode *file, struct cow_written *change);
/* It has been logged. */
void cow_notes_change_logged(struct cow_volume *volume, const struct cow_inode *file);

#endif
