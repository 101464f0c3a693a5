/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A place: what the user named, a path on a mount or IMAGE:/path in an image that is not mounted.
 *
 * An argument is IMAGE:/path if no file has exactly this name and the part before some ':' (the first one for which
 * this is so) names a regular file or block device; otherwise it is a plain path. Paths in an image are cleaned
 * lexically ("//", "." and ".."), start at the root whether they begin with '/' or not, and follow no symbolic links.
 */
#ifndef COW_CLI_PLACE_H
#define COW_CLI_PLACE_H

#include "cli/cli.h"

/* The one image that a command has open; two places in the same image share it. */
struct cow_session {
	const struct cow_cli *cli;
	char *image; /* NULL: none */
	uint64_t dev, ino;
	bool long_work; /* commits while it works, by a thread */
	struct cow_volume *volume;
};

struct cow_place {
	const char *text; /* as typed; a target in a directory: with its name */
	char *own_text;
	char *image; /* NULL: a plain path */
	char *path; /* plain: as typed without trailing slashes; in an image: cleaned, starts with '/' */
	bool slash; /* ended with a slash */
	int fd; /* opened, plain */
	struct cow_inode *inode; /* opened, in an image */
};

/* Everything below tells the error itself and returns 0 or COW_EXIT_TROUBLE. */

void cow_session_begin(struct cow_session *session, const struct cow_cli *cli);
/* Commits and closes. */
int cow_session_end(struct cow_session *session);
/* Opens the image of `place`, or finds it open. */
int cow_session_open(struct cow_session *session, const struct cow_place *place, bool write);

void cow_place_parse(const char *text, struct cow_place *place);
/* Opens what is there: a descriptor (O_RDONLY, symbolic links not followed) or an inode, the image read-only. */
int cow_place_open(struct cow_session *session, struct cow_place *place);
void cow_place_close(struct cow_place *place);

/* The directory that holds a place, and the place's name in it. */
struct cow_spot {
	int fd; /* plain */
	struct cow_inode *dir; /* in an image */
	char name[COW_NAME_MAX + 1];
};
/* For the image opened for writing. Refuses the root, ".", "..". */
int cow_spot_open(struct cow_session *session, const struct cow_place *place, struct cow_spot *spot);
void cow_spot_close(struct cow_spot *spot);
/* A fresh name ".cow-xxxxxxxx" (at least 14 bytes). */
void cow_spot_temporary(char *name);

/*
 * Where something new goes, for clone, import and export: `place` itself, or, if it ended with a slash and is a
 * directory, the last name of `source` in it. Changes place->path.
 */
int cow_place_target(struct cow_session *session, struct cow_place *place, const struct cow_place *source);

/* ioctl on a mounted volume; ENOTTY and the like become "not on a cowlinks mount" with `instead` as the advice. */
int cow_place_ioctl(const struct cow_cli *cli, const char *what, int fd, unsigned long request, void *args,
		    const char *instead);
/* The same without a word: 0 or -errno, -ENOTTY if it is no cowlinks mount. */
int cow_place_try_ioctl(int fd, unsigned long request, void *args);
/* Tells an error of that. Returns COW_EXIT_TROUBLE. */
int cow_place_say(const struct cow_cli *cli, const char *what, int error, const char *instead);
/*
 * Takes `name`, a file or a whole tree, out of the open directory of a mounted volume, by calls that the kernel checks.
 * 0 or -errno: -EPERM also where only a walk with the caller's own rights may do it, -ENOTTY if this is no cowlinks
 * mount.
 */
int cow_spot_remove(int dir, const char *name);
/* A token for an open plain place, without a word: as cow_place_try_ioctl(); -EPERM: only a walk with the caller's own
 * rights is left. */
int cow_place_token(const struct cow_place *place, uint64_t *token);

#endif
