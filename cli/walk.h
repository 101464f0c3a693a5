/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The walk that the host and image sources have in common, and the trail of open directories of the two tree sinks. */
#ifndef COW_CLI_WALK_H
#define COW_CLI_WALK_H

#include "cli/tree.h"

/* A file or directory held open: one of the two. */
struct cow_tree_node {
	int fd;
	struct cow_inode *inode;
};

struct cow_names {
	char **names;
	size_t count, size;
};
void cow_names_add(struct cow_names *names, const char *name);
void cow_names_free(struct cow_names *names);

/* ---- walking: all return 0 or -errno (or enum cow_error) */
struct cow_walk;
struct cow_walk_ops {
	int (*list)(struct cow_walk *walk, struct cow_tree_node dir, struct cow_names *names);
	/* Opens (files and directories) and describes; the node is closed by close(). */
	int (*child)(struct cow_walk *walk, struct cow_tree_node dir, const char *name, struct cow_tree_node *node,
		     struct cow_tree_item *item);
	/* Calls cow_walk_write() for all data. */
	int (*data)(struct cow_walk *walk, struct cow_tree_node node, const struct cow_tree_item *item);
	void (*close)(struct cow_walk *walk, struct cow_tree_node node);
};
struct cow_walk {
	const struct cow_walk_ops *ops;
	const char *name; /* of the top, for messages */
	struct cow_sink *sink;
	bool one; /* do not enter other file systems */
	uint64_t dev;
	void *buffer; /* COW_WALK_BUFFER */
};
#define COW_WALK_BUFFER (1u << 20)
#define COW_WALK_TOLD 1 /* a result: the error was told already */

/* Copies all from the top, whose item is given (its path ""). 0 or COW_EXIT_TROUBLE, told. */
int cow_walk_run(struct cow_walk *walk, struct cow_tree_node top, struct cow_tree_item *item);
/* For ops->data: to the sink, with progress. 0 or COW_WALK_TOLD. */
int cow_walk_write(struct cow_walk *walk, const void *data, size_t size, uint64_t offset);

/* ---- host.c, for other walks of the host: 0 or -errno */
int cow_host_list(int dir, struct cow_names *names);
/* Opens (files and directories, else node->fd stays -1) and describes `name`; links are not followed. */
int cow_host_open(int dir, const char *name, struct cow_tree_node *node, struct cow_tree_item *item);
/* Gives an open directory or file the owner, mode, extended attributes and times of an item. */
int cow_host_set(const struct cow_cli *cli, int fd, const struct cow_tree_item *item);

/* ---- a sink that is a tree: ops return 0 or -errno */
struct cow_tree_sink;
struct cow_tree_sink_ops {
	/* Opens the directory `name` in `dir`, no symbolic link. */
	int (*enter)(struct cow_tree_sink *sink, struct cow_tree_node dir, const char *name,
		     struct cow_tree_node *node);
	/* Makes it, whole but for the data and what done() sets. *node for files and directories. */
	int (*make)(struct cow_tree_sink *sink, struct cow_tree_node dir, const char *name,
		    const struct cow_tree_item *item, struct cow_tree_node *node);
	int (*link)(struct cow_tree_sink *sink, struct cow_tree_node old_dir, const char *old_name,
		    struct cow_tree_node dir, const char *name);
	int (*remove)(struct cow_tree_sink *sink, struct cow_tree_node dir, const char *name); /* no directory */
	int (*write)(struct cow_tree_sink *sink, struct cow_tree_node node, const void *data, size_t size,
		     uint64_t offset);
	/* Size (`end`: where the last write ended), times and what else must come last. */
	int (*done)(struct cow_tree_sink *sink, struct cow_tree_node node, const struct cow_tree_item *item,
		    uint64_t end);
	void (*leave)(struct cow_tree_sink *sink, struct cow_tree_node node);
};

struct cow_trail_level {
	size_t length; /* of the path up to here */
	struct cow_tree_node node;
};

struct cow_tree_sink {
	struct cow_sink sink; /* first */
	const struct cow_tree_sink_ops *tree;
	struct cow_tree_node base;
	char *name; /* of the top; ".": the base itself is the top */
	bool exists; /* the top has to be a directory */
	char *path; /* the directory whose trail is open */
	size_t path_size;
	struct cow_trail_level *trail; /* trail[0] is the top */
	size_t depth, trail_size; /* depth 0: the top is not open */
	struct cow_tree_node current; /* regular file being written */
	const char *current_path; /* the source's */
	uint64_t end;
	bool xattr_lost, acl_lost; /* which was said */
};
/* Fills in what is common. */
struct cow_sink *cow_tree_sink_new(const struct cow_cli *cli, const struct cow_tree_sink_ops *ops,
				   struct cow_tree_node base, const char *name, bool exists);
/* The sink cannot keep an extended attribute of the item, or its access control lists: each is said once. */
void cow_tree_sink_lost_xattr(struct cow_tree_sink *sink, const struct cow_tree_item *item, const char *name,
			      int error);
void cow_tree_sink_lost_acl(struct cow_tree_sink *sink, const struct cow_tree_item *item);

#endif
