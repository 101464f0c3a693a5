// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A tree is made under a temporary name beside its own, and renamed when all is there. An empty directory that exists
 * (the root of a new volume, a fresh mkdir) is filled in place; when that fails it is emptied again.
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

/* The directory at the place itself; 0 with target->exists unset if there is nothing. */
static int open_existing(struct cow_target *target)
{
	const struct cow_cli *cli = target->session->cli;
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
		spot->fd = open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		error = spot->fd < 0 ? -errno : 0;
	}
	if (error == -ENOENT)
		return 0;
	target->exists = error == 0;
	if (error == 0)
		error = list(spot, &names);
	if (error == -ENOTDIR)
		error = -EEXIST;
	if (error == 0 && names.count > 0)
		error = -EEXIST;
	cow_names_free(&names);
	if (error == -EEXIST && place->image == NULL && place->path[0] != '\0') {
		struct stat st;

		if (stat(place->path, &st) == 0 && S_ISREG(st.st_mode))
			return cow_say(cli, "%s: exists; for an image say where in it: %s:/name", place->text,
				       place->text);
	}
	return error != 0 ? cow_say_error(cli, place->text, error) : 0;
}

int cow_target_open(struct cow_session *session, struct cow_place *place, struct cow_target *target)
{
	int error;

	*target = (struct cow_target){.session = session, .place = place};
	error = open_existing(target);
	if (error != 0)
		cow_spot_close(&target->spot);
	if (error != 0 || target->exists)
		return error;
	cow_spot_temporary(target->temporary);
	return cow_spot_open(session, place, &target->spot);
}

struct cow_sink *cow_target_sink(struct cow_target *target)
{
	const char *name = target->exists ? target->spot.name : target->temporary;

	if (target->spot.dir != NULL)
		return cow_sink_image(target->session->cli, target->spot.dir, name, target->exists);
	return cow_sink_host(target->session->cli, target->spot.fd, name, target->exists);
}

/* ------------------------------------------------------------------ the end */

static void remove_host(int fd, const char *name)
{
	char *argv[] = {"rm", "-rf", "--", NULL, NULL};
	char *path;

	if (unlinkat(fd, name, 0) == 0 || errno == ENOENT)
		return;
	if (cow_spot_remove(fd, name) == 0)
		return;
	if (asprintf(&path, "/proc/%d/fd/%d/%s", (int)getpid(), fd, name) < 0)
		return;
	argv[3] = path;
	cow_run_program(argv);
	free(path);
}

static void remove_one(const struct cow_spot *spot, const char *name)
{
	int error = 0;

	if (spot->dir == NULL)
		remove_host(spot->fd, name);
	else
		error = cow_remove_tree(spot->dir, name);
	(void)error; /* it may not have been made; what else went wrong was told by what failed before */
}

static void take_back(struct cow_target *target)
{
	struct cow_names names = {0};

	if (!target->exists) {
		remove_one(&target->spot, target->temporary);
		return;
	}
	if (list(&target->spot, &names) == 0)
		for (size_t i = 0; i < names.count; i++)
			remove_one(&target->spot, names.names[i]);
	cow_names_free(&names);
}

/* Not every file system knows renameat2's flags. */
static int rename_host(int fd, const char *from, const char *to)
{
	struct stat st;

	if (renameat2(fd, from, fd, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (fstatat(fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return -EEXIST;
	return renameat(fd, from, fd, to) == 0 ? 0 : -errno;
}

static int give_name(struct cow_target *target)
{
	struct cow_spot *spot = &target->spot;
	int error;

	if (target->exists)
		return 0;
	if (spot->dir != NULL)
		error = cow_rename(spot->dir, target->temporary, spot->dir, spot->name, COW_RENAME_NOREPLACE);
	else
		error = rename_host(spot->fd, target->temporary, spot->name);
	return error != 0 ? cow_say_error(target->session->cli, target->place->text, error) : 0;
}

int cow_target_close(struct cow_target *target, int status)
{
	if (status == 0)
		status = give_name(target);
	if (status != 0)
		take_back(target);
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
