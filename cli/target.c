// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A tree is made out of sight, and gets its name when all is there.
 *
 * In an image, where we are alone, that is under a temporary name beside its own; an empty directory that exists is
 * filled in place, and emptied again when that fails. On the host others may work in the same directory: there it is
 * made in a fresh directory (cli/fresh.h), beside its name or in the empty directory that exists (the root of a new
 * volume, a fresh mkdir).
 */
#include "cli/target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/walk.h"

static int add_name(void *context, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	(void)inode;
	(void)attr;
	cow_names_add(context, entry->name);
	return 0;
}

static int list(const struct cow_spot *spot, struct cow_names *names)
{
	return spot->dir != NULL ? cow_list(spot->dir, 0, false, add_name, names) : cow_host_list(spot->fd, names);
}

/* Something is at the place that is no empty directory. */
static int tell_exists(const struct cow_target *target)
{
	const struct cow_cli *cli = target->session->cli;
	const struct cow_place *place = target->place;
	struct stat st;

	if (place->image == NULL && lstat(place->path, &st) == 0 && S_ISLNK(st.st_mode))
		return cow_say(cli, "%s: is a symbolic link; name what it leads to", place->text);
	if (place->image == NULL && stat(place->path, &st) == 0 && S_ISREG(st.st_mode))
		return cow_say(cli, "%s: exists; for an image say where in it: %s:/name", place->text, place->text);
	return cow_say_error(cli, place->text, -EEXIST);
}

/* The directory at the place itself; 0 with target->exists unset if there is nothing. */
static int open_existing(struct cow_target *target)
{
	struct cow_place *place = target->place;
	struct cow_spot *spot = &target->spot;
	struct cow_names names = {0};
	int error;

	*spot = (struct cow_spot){.fd = -1, .name = "."};
	if (place->image != NULL) {
		if (cow_session_open(target->session, place, true) != 0)
			return COW_EXIT_TROUBLE;
		error = cow_lookup_path(target->session->volume, place->path, &spot->dir);
	} else {
		spot->fd = open(place->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		error = spot->fd < 0 ? -errno : 0;
	}
	if (error == -ENOENT)
		return 0;
	target->exists = error == 0;
	if (error == 0)
		error = list(spot, &names);
	if (error == 0 && names.count > 0)
		error = -EEXIST;
	cow_names_free(&names);
	if (error == -ENOTDIR || error == -ELOOP || error == -EEXIST)
		return tell_exists(target);
	return error != 0 ? cow_say_error(target->session->cli, place->text, error) : 0;
}

static int make_fresh(struct cow_target *target)
{
	return cow_fresh_make(target->session->cli, target->place->text, target->spot.fd, &target->fresh);
}

int cow_target_open(struct cow_session *session, struct cow_place *place, struct cow_target *target)
{
	int error;

	*target = (struct cow_target){.session = session, .place = place, .fresh.fd = -1};
	error = open_existing(target);
	if (error == 0 && !target->exists) {
		cow_spot_temporary(target->temporary);
		error = cow_spot_open(session, place, &target->spot);
	}
	if (error == 0 && target->spot.dir == NULL)
		error = make_fresh(target);
	if (error != 0)
		cow_spot_close(&target->spot);
	return error;
}

/* What it is called while it is in the fresh directory: for messages, as it will be. */
static const char *name_in_fresh(const struct cow_target *target)
{
	const char *slash = strrchr(target->place->path, '/'), *name = slash != NULL ? slash + 1 : target->place->path;

	return *name != '\0' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 ? name : "top";
}

struct cow_sink *cow_target_sink(struct cow_target *target)
{
	const struct cow_cli *cli = target->session->cli;
	struct cow_spot *spot = &target->spot;

	if (spot->dir == NULL)
		return cow_sink_host(cli, target->fresh.fd, name_in_fresh(target), target->exists);
	return cow_sink_image(cli, spot->dir, target->exists ? spot->name : target->temporary, target->exists);
}

int cow_target_file(struct cow_session *session, struct cow_place *place, struct cow_target *target, int *fd)
{
	struct stat st;
	int error;

	*target = (struct cow_target){.session = session, .place = place, .fresh.fd = -1};
	error = cow_spot_open(session, place, &target->spot);
	if (error == 0 && fstatat(target->spot.fd, target->spot.name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		error = cow_say_error(session->cli, place->text, -EEXIST);
	if (error == 0)
		error = make_fresh(target);
	if (error == 0) {
		*fd = openat(target->fresh.fd, name_in_fresh(target), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (*fd < 0)
			error = cow_say_error(session->cli, place->text, -errno);
	}
	if (error != 0) {
		cow_fresh_remove(&target->fresh);
		cow_spot_close(&target->spot);
	}
	return error;
}

/* ------------------------------------------------------------------ the end */

static void remove_one(struct cow_inode *dir, const char *name)
{
	int error = cow_remove_tree(dir, name);

	(void)error; /* it may not have been made; what else went wrong was told by what failed before */
}

static void take_back(struct cow_target *target)
{
	struct cow_names names = {0};

	if (target->spot.dir == NULL) {
		cow_fresh_remove(&target->fresh);
		return;
	}
	if (!target->exists) {
		remove_one(target->spot.dir, target->temporary);
		return;
	}
	if (list(&target->spot, &names) == 0)
		for (size_t i = 0; i < names.count; i++)
			remove_one(target->spot.dir, names.names[i]);
	cow_names_free(&names);
}

static int give_name(struct cow_target *target)
{
	struct cow_spot *spot = &target->spot;
	int error;

	if (spot->dir == NULL && target->exists)
		return cow_fresh_pour(&target->fresh, name_in_fresh(target));
	if (spot->dir == NULL)
		return cow_fresh_give(&target->fresh, name_in_fresh(target), spot->name);
	if (target->exists)
		return 0;
	error = cow_rename(spot->dir, target->temporary, spot->dir, spot->name, COW_RENAME_NOREPLACE);
	return error != 0 ? cow_say_error(target->session->cli, target->place->text, error) : 0;
}

int cow_target_close(struct cow_target *target, int status)
{
	if (status == 0)
		status = give_name(target);
	if (status != 0)
		take_back(target);
	cow_fresh_remove(&target->fresh);
	cow_spot_close(&target->spot);
	return status;
}

bool cow_target_is_tar(const char *name, bool compressed)
{
	static const char *const endings[] = {".tar",     ".tar.gz", ".tgz",     ".tar.xz", ".txz",
					      ".tar.zst", ".tzst",   ".tar.bz2", ".tbz2",   ".tar.lz4"};
	size_t length = strlen(name), count = compressed ? sizeof(endings) / sizeof(endings[0]) : 1;

	if (strcmp(name, "-") == 0)
		return true;
	for (size_t i = 0; i < count; i++)
		if (length > strlen(endings[i]) && strcmp(name + length - strlen(endings[i]), endings[i]) == 0)
			return true;
	return false;
}
