/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef COW_FS_VIEW_COMPARE_H
#define COW_FS_VIEW_COMPARE_H

#include "fs/view/compare_entry.h"

/* Queues two directories. The paths are copied. */
void cow_compare_push(struct cow_compare *c, const struct cow_record *old_record, const struct cow_record *new_record,
		      struct cow_side_world *old_world, struct cow_side_world *new_world, const char *old_path,
		      const char *path, const struct cow_way *up, bool first, const struct cow_dir_pair *scope);
/* Compares what is queued until nothing is. */
int cow_compare_run(struct cow_compare *c);
/* Every entry of a directory goes to cow_compare_only(). */
int cow_compare_children(struct cow_compare *c, const struct cow_side_entry *dir, bool gone);

#endif
