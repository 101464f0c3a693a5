/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Directories: entries by name and by key, and what changes with them in the totals above. All locked; functions that
 * return int may miss and then have changed nothing.
 */
#ifndef COW_FS_WORLD_DIR_H
#define COW_FS_WORLD_DIR_H

#include "fs/core/inode.h"

/* 0, -EINVAL or -ENAMETOOLONG. */
int cow_name_check(const char *name);

/* An entry that was found; the name and record point into the tree. */
struct cow_found {
	uint64_t key;
	struct cow_dirent entry;
};
/* Finds `name`. -ENOENT: found->key is where a new entry of that name goes. -ENOTDIR. */
int cow_dir_find(struct cow_inode *dir, const char *name, struct cow_found *found);
/* The inode of an entry, in memory from now on; gives a reference. */
int cow_dir_child(struct cow_inode *dir, const struct cow_found *found, struct cow_inode **child);
/* The same without giving it a colour: for passing through, not for handing out. */
int cow_dir_child_plain(struct cow_inode *dir, const struct cow_found *found, struct cow_inode **child);
/* Both. */
int cow_dir_lookup(struct cow_inode *dir, const char *name, struct cow_found *found, struct cow_inode **child);
/* A directory that may get or lose entries: -ENOTDIR, -ENOENT (removed), -EROFS. */
int cow_dir_check_writable(struct cow_inode *dir);
/* Makes sure that the entry `key` can be changed without a miss. */
int cow_dir_reserve(struct cow_inode *dir, uint64_t key);

/* Reserved: entry `key` becomes, or stays, one for an embedded inode of that place (dirty or clean), or a link
 * reference; or goes. Totals follow: what the entry summed up to before (`old`, NULL for a new one) is replaced. With
 * name NULL the entry keeps the one it has. What the old bytes claimed is the caller's business. */
void cow_dir_put_inode(struct cow_inode *dir, uint64_t key, const char *name, struct cow_inode *child,
		       const struct cow_totals *old);
void cow_dir_put_link(struct cow_inode *dir, uint64_t key, const char *name, uint32_t type, uint64_t link_key,
		      const struct cow_totals *old);
void cow_dir_delete(struct cow_inode *dir, uint64_t key, const struct cow_totals *old);
/* Reserved: mtime and ctime of a directory whose entries changed. */
void cow_dir_touch(struct cow_inode *dir, const struct timespec *now);
static inline struct cow_when cow_when_of(const struct timespec *t)
{
	return (struct cow_when){t->tv_sec, (uint32_t)t->tv_nsec};
}
/* True if nothing is in it. */
static inline bool cow_dir_is_empty(const struct cow_inode *dir) { return cow_ptr_is_null(dir->tree.root); }

#endif
