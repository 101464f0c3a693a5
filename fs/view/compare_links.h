/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef COW_FS_VIEW_COMPARE_LINKS_H
#define COW_FS_VIEW_COMPARE_LINKS_H

#include "fs/view/compare_entry.h"

/* Linked files below both directories whose records differ although their names do not. */
int cow_compare_links(struct cow_compare *c, const struct cow_dir_pair *pair);
/* Are the other names of these two entries, below the pair's scope, the same on both sides? 1, 0 or an error. */
int cow_compare_groups(struct cow_compare *c, const struct cow_dir_pair *pair, const struct cow_side_entry *a,
		       const struct cow_side_entry *b);

#endif
