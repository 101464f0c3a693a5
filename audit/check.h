/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The check: an independent walk over the bytes of a volume that is open nowhere else, from the superblock down. It
 * shares the decoders with the rest of the library and nothing else: what the file system keeps up to date step by
 * step, this recomputes as a whole.
 */
#ifndef COW_AUDIT_CHECK_H
#define COW_AUDIT_CHECK_H

#include "cow.h"
#include "dev/dev.h"

/* Numbers of findings: stable, listed in doc/FORMAT.md. */
enum cow_find {
	/* the superblock */
	COW_FIND_SUPER_DECAYED = 1, /* the slot of the next generation has no valid copy: the newest may be lost */
	COW_FIND_SUPER_ROOTS = 2, /* a root has the wrong kind */
	COW_FIND_SUPER_COUNTERS = 3, /* the counters in the user bytes are not possible */
	/* counts */
	COW_FIND_COUNTS_BLOCK = 10, /* a piece or selector block does not fit its selector */
	COW_FIND_COUNT_LOW = 11, /* fewer counts are stored than there are pointers: data may be overwritten */
	COW_FIND_COUNT_HIGH = 12, /* more: space is lost */
	/* nodes */
	COW_FIND_NODE_READ = 20, /* the device failed */
	COW_FIND_NODE_SUM = 21, /* the checksum does not fit the pointer */
	COW_FIND_NODE_HEADER = 22, /* kind, level, own address or birth is not what the pointer says */
	COW_FIND_NODE_ORDER = 23, /* keys do not ascend, or lie outside of what the parent says */
	COW_FIND_NODE_ITEM = 24, /* a value is malformed, or a leaf below another node has none */
	COW_FIND_NODE_BIRTH = 25, /* a child is born later than its parent */
	COW_FIND_NODE_SHARED = 26, /* two pointers to one block disagree about it */
	COW_FIND_BLOCK_ROLES = 27, /* a block is both a node and file data */
	/* directories */
	COW_FIND_ROOT = 30, /* the root directory is missing or is no world */
	COW_FIND_ENTRY_KEY = 31, /* an entry's key does not fit its name */
	COW_FIND_ENTRY_NAME = 32, /* no name, or one that is there twice */
	COW_FIND_TOTALS = 33, /* recursive totals are not the sum of the entries */
	COW_FIND_EXCEPTIONS = 34, /* fewer exceptions than there are */
	/* files */
	COW_FIND_FILE_MAP = 40, /* extents overlap */
	COW_FIND_FILE_BLOCKS = 41, /* blocks mapped are not the sum of the extents */
	COW_FIND_FILE_DATA = 42, /* data does not fit its checksum, or cannot be read */
	COW_FIND_FILE_TAIL = 43, /* bytes behind the end of a file are not zero */
	COW_FIND_BLOB = 44, /* a byte string is shorter or longer than its record says, or has a hole */
	COW_FIND_XATTR = 45, /* a list of xattrs is malformed */
	/* hard links */
	COW_FIND_LINK_SUMS = 50, /* a world's sums over its link records are wrong */
	COW_FIND_LINK_LOST = 51, /* a name has no record */
	COW_FIND_LINK_NAMES = 52, /* the live back-references of a record are not its names */
	COW_FIND_LINK_TYPE = 53, /* a name says another type than the record */
	COW_FIND_SPINE = 54, /* a spine record is missing, wrong, or one too many */
	COW_FIND_SPINE_RING = 55, /* spine records lead in a ring */
	COW_FIND_LINK_GARBAGE = 56, /* the number of back-references does not tell whether there is garbage */
	COW_FIND_LINKS_LEFT = 57, /* a world without references has link records */
	/* numbers */
	COW_FIND_NUMBER_TWICE = 60, /* (colour, n) occurs twice */
	COW_FIND_NUMBER_RANGE = 61, /* a number is not below its counter */
	COW_FIND_ROW = 62, /* a row has the wrong key, or is there twice */
	COW_FIND_CHUNK_TWICE = 63, /* a chunk has two owners: inode numbers would repeat */
	COW_FIND_LOG_RECORD = 70, /* a record of the intent log is malformed */
	COW_FIND_LOG_REPLAY = 71, /* the intent log does not fit the volume */
	COW_FIND_COUNT
};

/* As cow_check() on a device, which stays the caller's and must hold still meanwhile. */
COW_CHECKED int cow_check_device(struct cow_dev *dev, const struct cow_check_options *options,
				 struct cow_check_result *result);
/* As cow_dump(). */
COW_CHECKED int cow_dump_device(struct cow_dev *dev, const char *what, void (*line)(void *context, const char *text),
				void *context);

#endif
