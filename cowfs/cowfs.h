/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cowfs, the FUSE daemon: serves one volume under one directory until it is unmounted or told to end.  This header is
 * all that the command line sees of it.
 */
#ifndef COWFS_H
#define COWFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cowfs_options {
	const char *image, *dir;
	bool foreground;         /* serve in the calling process, messages to stderr; else in the background, syslog */
	bool read_only;
	bool allow_other;        /* let other users in; the permission bits are always checked by the kernel */
	bool suid, dev, noexec;  /* mount flags; the default is nosuid, nodev, exec */
	bool debug;              /* trace requests on stderr; implies foreground */
	uint32_t commit_seconds; /* 0: the library's default */
	uint64_t cache_bytes;    /* limit of the node cache; 0: the library's default */
	uint64_t dirty_bytes;    /* buffered file data before writers wait; 0: by the size of memory */
	uint32_t threads;        /* most worker threads; 0: a good default */
};

/*
 * Adds what the argument of one -o says ("ro,commit=30,cache=1G") to `options`.  Returns 0, or -1 with one line of
 * text (no newline) in `error` that names the option.
 */
int cowfs_options_parse(struct cowfs_options *options, const char *text, char *error, size_t error_bytes);
/* One line for each option, for usage texts; ends with NULL. */
const char *const *cowfs_options_help(void);

/*
 * Opens the image, mounts it and serves.  In the foreground it returns when the volume is unmounted and committed.  In
 * the background it returns as soon as the mount serves, and the daemon lives on in a child.  What goes wrong is said
 * on stderr in one line.  Returns an exit status: 0 or 1.
 */
int cowfs_run(const struct cowfs_options *options);

#endif
