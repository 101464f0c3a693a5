/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Is what two records stand for the same? Not locked; the records and all they point to must be sealed and held. Equal
 * pointers and equal blocks are not looked into, and blocks with different checksums are not read: data is read only
 * where the same bytes may have been written twice.
 */
#ifndef COW_FS_VIEW_CONTENT_H
#define COW_FS_VIEW_CONTENT_H

#include "fs/format/record.h"

struct cow_volume;

/* Two regular files, two symlinks, or two devices, ...: 1 the same, 0 not, or an error. */
int cow_content_same(struct cow_volume *volume, const struct cow_record *a, const struct cow_record *b);
/* Permissions, owner, xattrs; not times. 1, 0, or an error. */
int cow_content_same_attributes(struct cow_volume *volume, const struct cow_record *a, const struct cow_record *b);
/* All bytes of a BLOB tree; the caller frees. */
int cow_content_blob(struct cow_store *store, struct cow_ptr root, uint32_t length, uint8_t **bytes);

#endif
