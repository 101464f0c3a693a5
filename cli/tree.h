/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying trees between the host, an image and tar archives, for import and export.
 *
 * A source yields items, a sink takes them: two sources that walk (host, image), one that is read in its own order
 * (tar); two sinks that are trees (host, image), one that is a stream (tar). So each pair works.
 *
 * PATHS of items are relative to the top, "" is the top itself, without "." and "..". A directory comes before what
 * is in it, the first name of a hard-linked file before the others.
 *
 * ERRORS have been told when a function here returns one (COW_EXIT_TROUBLE).
 */
#ifndef COW_CLI_TREE_H
#define COW_CLI_TREE_H

#include <time.h>

#include "cli/cli.h"

struct cow_tree_xattr {
	char *name;
	void *value;
	size_t size;
};

struct cow_tree_item {
	const char *path;
	uint32_t mode, uid, gid, rdev, nlink;
	uint64_t dev, ino; /* who it is, in the source; for nlink > 1 */
	uint64_t size, mapped; /* mapped: bytes of the size that are no holes, about */
	struct timespec atime, mtime;
	char *target; /* symbolic links */
	const char *link; /* another name of the item with this path; nothing but path and mode counts then */
	struct cow_tree_xattr *xattrs;
	size_t xattr_count;
	bool acl; /* has access control lists; the mode is narrowed, for where they cannot be kept (cli/acl.h) */
};
void cow_tree_item_free(struct cow_tree_item *item); /* what it holds but path and link */
void cow_tree_item_xattr(struct cow_tree_item *item, const char *name, const void *value, size_t size); /* adds */

/* ---- progress, and the wish to stop: ^C is noticed between items, so that what was begun can be taken back */

struct cow_progress {
	const struct cow_cli *cli;
	const char *what; /* for the error of an interrupted run */
	bool show, shown;
	int signals; /* descriptor that is readable after ^C */
	struct timespec begin, last;
	uint64_t files, bytes;
};
void cow_progress_begin(struct cow_progress *progress, const struct cow_cli *cli, const char *what, bool quiet);
/* COW_EXIT_TROUBLE after ^C, SIGTERM or SIGHUP (told). */
int cow_progress_step(struct cow_progress *progress, uint64_t files, uint64_t bytes);
/* Waits until `fd` can be read. The same. */
int cow_progress_wait(struct cow_progress *progress, int fd);
void cow_progress_end(struct cow_progress *progress);

/* ---- sinks */

struct cow_sink;
struct cow_sink_ops {
	int (*add)(struct cow_sink *sink, const struct cow_tree_item *item);
	/* Data of the regular file added last, ascending; what is left out is a hole. */
	int (*write)(struct cow_sink *sink, const void *data, size_t size, uint64_t offset);
	/* Regular files: all data was written. Directories: all in them was added. With the same item. */
	int (*done)(struct cow_sink *sink, const struct cow_tree_item *item);
	int (*close)(struct cow_sink *sink); /* frees it; the error is the last one possible */
};
struct cow_sink {
	const struct cow_sink_ops *ops;
	const struct cow_cli *cli;
	struct cow_progress *progress;
};

/*
 * Trees: the top is `name` in the directory `dir` or `base_fd`, which they borrow. With `exists` it must be a
 * directory, for it goes into one that exists; with the name "." it is that one.
 *
 * On the host nobody else may get into the directory `base_fd`.
 */
struct cow_sink *cow_sink_host(const struct cow_cli *cli, int base_fd, const char *name, bool exists);
struct cow_sink *cow_sink_image(const struct cow_cli *cli, struct cow_inode *dir, const char *name, bool exists);
/* A pax archive on `fd`, which it closes; NULL when the trouble was told. */
struct cow_sink *cow_sink_tar(const struct cow_cli *cli, int fd);

/* ---- sources: feed all they have to the sink */

/* `fd`: what to copy, a file or directory (borrowed). `one`: stay in its file system. */
int cow_source_host(int fd, const char *name, bool one, struct cow_sink *sink);
int cow_source_image(struct cow_inode *inode, const char *name, struct cow_sink *sink);
/* Any archive or compression that libarchive knows. */
int cow_source_tar(int fd, const char *name, struct cow_sink *sink);

#endif
