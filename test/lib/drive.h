/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A volume and its oracle side by side: every operation is done on both, and what they answer compared.
 *
 * Some looks would change what is looked at (entering a world gives it a colour). They are done in a forked child,
 * on its own copy of everything, unless the volume has threads, which a fork would lose.
 */
#ifndef COW_TEST_LIB_DRIVE_H
#define COW_TEST_LIB_DRIVE_H

#include "cow.h"
#include "test/lib/chronicle.h"
#include "test/lib/op.h"
#include "test/lib/oracle.h"

#define DRIVE_POOL 24      /* inodes referenced but not held open, as the kernel does */
#define DRIVE_MOMENTS 300 /* of a past that need not be kept */
#define DRIVE_BUG_BYTES 1500

struct drive {
	struct ora ora;
	struct cow_volume *volume;
	struct cow_open_options options;
	struct cow_dev *(*attach)(void *disk); /* opens the disk once more, after a close or crash */
	void *disk;

	struct cow_inode *held[ORA_HANDLES];
	struct ora_node *home[ORA_HANDLES]; /* O_TMPFILE: the world it was made in */
	struct {
		struct cow_inode *inode;
		struct ora_node *node;
	} pool[DRIVE_POOL];
	unsigned pool_next;

	struct chronicle past; /* since the start, or the last sync */
	bool keep_past;        /* since the start */
	uint64_t (*clock)(void *disk); /* events on the disk; NULL: it does not count them, and is never set back */
	uint64_t generation;
	bool applied;          /* this operation changed something */
	bool in_parts;         /* it is done by many others, which make no moments of their own */
	uint64_t over;         /* id of the file that this operation renamed over another, or 0 */
	bool beside;           /* the operation runs beside a sync, which will note the commits */
	bool beside_in_pieces; /* one of these was a copy, in the middle of which there was a commit */
	void (*synced)(void *context); /* called when cow_sync() has returned, before anything is noted */
	void *synced_context;

	bool few_counts; /* in memory */
	bool small;   /* ENOSPC may be answered */
	bool threads;
	bool in_child; /* looks need no child (any more) */
	bool faults;  /* I/O fails on request: errors may be logged */
	bool unsure;  /* a clone was made perhaps, but could not be looked at */
	unsigned failures_logged; /* how often the volume said that it has turned read-only */
	int64_t answer; /* of the last operation judged */
	uint64_t done, refused, no_space; /* operations: all, with an error as foreseen, with ENOSPC */
	char *bug;    /* in memory shared with children; empty: none so far */
};

/* Opens the (formatted) disk. -- a negative error */
int drive_start(struct drive *drive, struct cow_dev *(*attach)(void *disk), void *disk,
		const struct cow_open_options *options);
/* What is on the disk already: the oracle begins with a copy of it. */
void drive_adopt(struct drive *drive, struct ora_node *root);
/* From now on, and whenever it is opened again: hardly any pieces of the counts in memory. For one thread. */
void drive_limit_counts(struct drive *drive);
/* Frees everything but the disk; the volume is abandoned if it is still open. */
void drive_stop(struct drive *drive);
/* Does one operation. False: a bug was found, drive->bug says which, its first word the kind. */
bool drive_step(struct drive *drive, const struct op *op);
/* All whole-volume checks: compare, close, check, reopen, compare, remove everything, nothing leaks. */
bool drive_finish(struct drive *drive);

/* ---- for drive_step and the crash test */
bool drive_bug(struct drive *drive, const char *format, ...) __attribute__((format(printf, 2, 3))); /* false */
/* Events on the disk so far. */
uint64_t drive_clock(struct drive *drive);
/* The newest generation on the disk; 0: none can be read. */
uint64_t drive_disk_generation(struct cow_dev *(*attach)(void *disk), void *disk);
/* As after a power cut: only what is durable is there, and the handles are lost. Checks the disk; *generation is what
 * was on it before it was opened. */
void drive_reopen_after_crash(struct drive *drive, uint64_t *generation, int *result);
/* Is the volume, opened when this generation was on the disk, what may be there after a cut at `event`? If so the
 * oracle is at that state too (but not the drive's own chronicle). */
bool drive_recovered(struct drive *drive, const struct chronicle *chronicle, uint64_t generation, uint64_t event);
void drive_forget_numbers(struct ora_node *node);
/* Compares the whole volume with a tree. */
bool drive_compare(struct drive *drive, struct ora_node *root);
bool drive_check_attr(struct drive *drive, struct ora_node *node, const struct cow_attr *attr, const char *where);
bool drive_check_data(struct drive *drive, struct ora_node *node, struct cow_inode *inode, const char *where);
/* No inode number twice, among all that were seen. */
bool drive_check_numbers(struct drive *drive, struct ora_node *root);
/* cow_check() on the disk, which must not be open. */
bool drive_check_disk(struct drive *drive);
/* Runs a look in a child if it can. */
bool drive_aside(struct drive *drive, bool (*look)(struct drive *drive, void *argument), void *argument);
/* The name of 255 bytes, or the same, for a token; and back. */
void drive_name(const char *token, char name[256]);
void drive_token(const char *name, char token[ORA_NAME]);
/* Walks in both. False: a bug. *inode NULL: not there, in both. The reference is the caller's. */
bool drive_walk(struct drive *drive, const char *path, struct ora_trail *trail, struct cow_inode **inode);
/* Gives a reference back now, or keeps it for a while. */
void drive_put(struct drive *drive, struct cow_inode *inode, struct ora_node *node);
void drive_drop_pool(struct drive *drive);
bool drive_diff(struct drive *drive, const struct op *op);
bool drive_same(struct drive *drive, const struct op *op);

#endif
