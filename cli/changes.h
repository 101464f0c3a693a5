/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The differences between two places, for diff in its three forms. */
#ifndef COW_CLI_CHANGES_H
#define COW_CLI_CHANGES_H

#include "cli/place.h"

/* Both are open. Calls fn for each change, sorted by path. 0 or COW_EXIT_TROUBLE, told; fn's value if not 0. */
int cow_changes(struct cow_session *session, const struct cow_place *old_place, const struct cow_place *new_place,
		bool expand, cow_diff_fn fn, void *context);

/*
 * What `LC_ALL=C diff -ruN --no-dereference OLD NEW` prints, for two open directories or files. Returns the exit
 * status of diff(1).
 */
int cow_patch(struct cow_session *session, struct cow_place *old_place, struct cow_place *new_place);

#endif
