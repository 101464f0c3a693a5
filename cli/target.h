/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where import and export put a tree: whole under its name, or not at all. */
#ifndef COW_CLI_TARGET_H
#define COW_CLI_TARGET_H

#include "cli/fresh.h"
#include "cli/place.h"
#include "cli/tree.h"

struct cow_target {
	struct cow_session *session;
	struct cow_place *place;
	struct cow_spot spot; /* where the name is; or the directory itself, with the name "." */
	bool exists; /* an empty directory, to be filled */
	char temporary[32]; /* in an image */
	struct cow_fresh fresh; /* on the host: where it is made */
};

/* Refuses a name that is taken, unless by an empty directory. 0 or COW_EXIT_TROUBLE, told. */
int cow_target_open(struct cow_session *session, struct cow_place *place, struct cow_target *target);
struct cow_sink *cow_target_sink(struct cow_target *target);
/* Gives what was made its name, or takes it away if `status` is not 0. Returns the status of the command. */
int cow_target_close(struct cow_target *target, int status);

/* A file of the host to be made, for writing: *fd is the caller's. The same, and closed in the same way. */
int cow_target_file(struct cow_session *session, struct cow_place *place, struct cow_target *target, int *fd);

/* A name that says tar archive: what `cow import` and `cow export` take for one. */
bool cow_target_is_tar(const char *name, bool compressed);

#endif
