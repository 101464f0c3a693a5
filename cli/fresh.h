/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A fresh directory, ".cow-xxxxxxxx" of mode 0700, in a directory where others may have write permission: whatever is
 * made appears in it first, out of everybody's reach, and gets its final name when all is there.
 *
 * ALL IS DONE BY DESCRIPTORS, for the names on the way, that of the fresh directory too, can be given to something else
 * at any time. Nothing that somebody else has put there is replaced or removed.
 *
 * ERRORS have been told when a function here returns one (COW_EXIT_TROUBLE).
 */
#ifndef COW_CLI_FRESH_H
#define COW_CLI_FRESH_H

#include "cli/cli.h"

struct cow_fresh {
	const struct cow_cli *cli;
	const char *text; /* what the user calls the place; for messages */
	int parent; /* borrowed */
	int fd; /* -1: there is none */
	uint64_t dev, ino;
	char name[16];
	bool keep; /* something of somebody else's has come into it */
};

int cow_fresh_make(const struct cow_cli *cli, const char *text, int parent, struct cow_fresh *fresh);
/* Moves `name` into the parent under the name `as`, if that is free. */
int cow_fresh_give(struct cow_fresh *fresh, const char *name, const char *as);
/*
 * Moves what is in the directory `name` into the parent, all or nothing, and gives the parent the attributes of
 * `name`. Ends with cow_fresh_remove() when it went well.
 */
int cow_fresh_pour(struct cow_fresh *fresh, const char *name);
/* Takes away the directory and what is still in it. */
void cow_fresh_remove(struct cow_fresh *fresh);

#endif
