/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the daemon refuses to tell at once to a user who could not see all of it: the walked forms, by plain calls, with
 * that user's permissions. They take as long as the trees are large, and know nothing of renames and sharing.
 */
#ifndef COW_CLI_WALKED_H
#define COW_CLI_WALKED_H

#include "cli/place.h"

/* As cow_changes(), for two open plain places. */
int cow_walked_changes(const struct cow_cli *cli, const struct cow_place *old_place, const struct cow_place *new_place,
		       bool expand, cow_diff_fn fn, void *context);
/* 1 same, 0 different, -1 when the trouble was told. */
int cow_walked_same(const struct cow_cli *cli, const struct cow_place *a, const struct cow_place *b);
/* All but exclusive_bytes. 0 or COW_EXIT_TROUBLE, told. */
int cow_walked_usage(const struct cow_cli *cli, const struct cow_place *place, struct cow_usage *usage);

#endif
