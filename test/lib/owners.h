/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What each block of an image is, and what may go wrong when it is damaged: found by a walk over the bytes that shares
 * the decoders with the library and nothing else. Clones are walked one by one, so a shared block has many owners.
 */
#ifndef COW_TEST_LIB_OWNERS_H
#define COW_TEST_LIB_OWNERS_H

#include "dev/dev.h"
#include "test/lib/known.h"

enum role {
	ROLE_UNUSED,
	ROLE_SUPER,
	ROLE_COUNTS,    /* a slot that is selected */
	ROLE_TOP,       /* nodes of the tree that holds the root directory's record */
	ROLE_DIR, ROLE_LINKS, ROLE_FILE, ROLE_BLOB, ROLE_DATA,
	ROLE_NUMBERS, ROLE_RECLAIM, ROLE_ORPHANS,
	ROLE_DEAD_NODE, ROLE_DEAD_DATA, /* below an orphan, or in the reclaim queue */
	ROLE_LOG,       /* of the intent log: a block that is not zero and not void */
	ROLES
};

struct owners;

struct owners *owners_read(struct cow_dev *dev);
void owners_free(struct owners *owners);
enum role owners_role(const struct owners *owners, uint64_t block);
const char *role_name(enum role role);
/* May this fail when the block is damaged? */
bool owners_allow(const struct owners *owners, uint64_t block, enum known_call call, const char *path,
		  uint64_t file_block);
/* Does something at the path, or below it, have the block? */
bool owners_below(const struct owners *owners, uint64_t block, const char *path);
/* How many blocks of a role, and the nth of them. */
uint64_t owners_count(const struct owners *owners, enum role role);
uint64_t owners_nth(const struct owners *owners, enum role role, uint64_t n);
/* The first block of that role which the path owns, 0 if there is none. */
uint64_t owners_block_of(const struct owners *owners, enum role role, const char *path);

#endif
