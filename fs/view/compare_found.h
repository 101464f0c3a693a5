/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef COW_FS_VIEW_COMPARE_FOUND_H
#define COW_FS_VIEW_COMPARE_FOUND_H

#include "fs/view/compare_entry.h"

/* Notes a change; the strings are copied. 0, or COW_DIFFERENT in same mode. */
int cow_compare_report(struct cow_compare *c, const struct cow_change *change);
/* The same, of a name that is on both sides. */
int cow_compare_tell(struct cow_compare *c, char type, const char *path, uint32_t old_mode, uint32_t new_mode);
/* An entry that is only in old (gone) or only in new (come); the entry is taken over. */
int cow_compare_only(struct cow_compare *c, struct cow_side_entry *entry, bool gone);
/* Two records of one name that are no directories: reports M, m, or T. */
int cow_compare_records(struct cow_compare *c, const struct cow_record *a, const struct cow_record *b,
			const char *path);
/* The attributes alone: reports m. */
int cow_compare_attributes(struct cow_compare *c, const struct cow_record *a, const struct cow_record *b,
			   const char *path);

#endif
