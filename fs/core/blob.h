/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Byte strings of any length that belong to a record: short ones inline, long ones in a tree of their own. Locked. */
#ifndef COW_FS_CORE_BLOB_H
#define COW_FS_CORE_BLOB_H

#include "fs/core/inode.h"

/* Brings the bytes into memory. COW_MISS, -EIO. */
int cow_blob_load(struct cow_store *store, struct cow_blob *blob);
/* Replaces the bytes (copied): a new tree if longer than `inline_max`; the old tree goes to reclaim, which must have
 * been reserved. Cannot miss. length 0 empties it. */
void cow_blob_set(struct cow_store *store, struct cow_blob *blob, const void *bytes, uint32_t length,
		  uint32_t inline_max);
/* Another holder of the same value: *copy shares the tree. COW_MISS (saturation) or 0. */
int cow_blob_share(struct cow_store *store, const struct cow_blob *blob, struct cow_blob *copy);
/* Gives up the tree (to reclaim, reserved) and the memory. */
void cow_blob_drop(struct cow_store *store, struct cow_blob *blob);
/* Frees the memory only: the record in its tree keeps the claim. */
void cow_blob_forget(struct cow_blob *blob);

#endif
