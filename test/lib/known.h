/* SPDX-License-Identifier: GPL-2.0-or-later */
/* All that a volume holds, read through the library once, and then compared with what it holds later. */
#ifndef COW_TEST_LIB_KNOWN_H
#define COW_TEST_LIB_KNOWN_H

#include "cow.h"

struct known {
	char *path; /* "/a/b"; the root's is "" */
	const char *name;
	struct cow_attr attr;
	uint8_t *bytes; /* content, or target */
	size_t length;
	uint64_t xattrs; /* a hash of names and values */
	bool loose;      /* attributes may have changed, and names that begin with "fresh" be there */
	struct known *children, *next;
};

enum known_call { KNOWN_LOOKUP, KNOWN_LIST, KNOWN_READ, KNOWN_TARGET, KNOWN_XATTR };
#define KNOWN_WHOLE UINT64_MAX

/*
 * Something is not as it was: `error` says why it cannot be had; 0: it can, and is another. For READ, file_block is
 * the block of the file, each of which is told for itself. What lies below something that was told is left out.
 */
typedef void (*known_fn)(void *context, enum known_call call, const struct known *at, uint64_t file_block, int error);

/* Aborts if anything cannot be read. */
struct known *known_read(struct cow_volume *volume);
void known_free(struct known *root);
const struct known *known_find(const struct known *root, const char *path);
/* Looks at every name, attribute, byte and xattr. -- the error of cow_root() */
int known_compare(struct cow_volume *volume, const struct known *root, known_fn fn, void *context);

#endif
