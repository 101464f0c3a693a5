// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Directories are closed (mode 0700, ours) before they are moved into the parent, and get their mode and owner back
 * when all has been moved. So nobody can have put anything into what has to be taken back; and who is not root may
 * move a directory that is going to be read-only.
 */
#include "cli/fresh.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/mem.h"
#include "cli/acl.h"
#include "cli/place.h"
#include "cli/walk.h"

static bool same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static int open_directory(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* ------------------------------------------------------------------ making it */

/*
 * Between mkdir and open, who may write in the parent can have put another directory in its place. One that belongs to
 * us, that only we can write in, and that is empty, is as good as ours.
 */
static int verify(const struct cow_fresh *fresh)
{
	struct cow_names names = {0};
	struct stat st, parent;
	int error = 0;
	bool good;

	if (fstat(fresh->fd, &st) != 0 || fstat(fresh->parent, &parent) != 0)
		return cow_say_error(fresh->cli, fresh->text, -errno);
	good = st.st_uid == geteuid() && (st.st_mode & 022) == 0 && st.st_dev == parent.st_dev;
	if (good)
		error = cow_host_list(fresh->fd, &names);
	good = good && names.count == 0;
	cow_names_free(&names);
	if (error != 0)
		return cow_say_error(fresh->cli, fresh->text, error);
	if (!good)
		return cow_say(fresh->cli, "%s: a directory that was made there belongs to somebody else; run this as "
			       "the owner of what is made there", fresh->text);
	return 0;
}

int cow_fresh_make(const struct cow_cli *cli, const char *text, int parent, struct cow_fresh *fresh)
{
	struct stat st;
	int error;

	*fresh = (struct cow_fresh){.cli = cli, .text = text, .parent = parent, .fd = -1};
	do {
		cow_spot_temporary(fresh->name);
		error = mkdirat(parent, fresh->name, 0700) == 0 ? 0 : -errno;
	} while (error == -EEXIST);
	if (error != 0)
		return cow_say_error(cli, text, error);
	fresh->fd = open_directory(parent, fresh->name);
	if (fresh->fd < 0)
		error = cow_say_error(cli, text, fresh->fd);
	else
		error = verify(fresh);
	if (error != 0 || fstat(fresh->fd, &st) != 0) {
		unlinkat(parent, fresh->name, AT_REMOVEDIR);
		if (fresh->fd >= 0)
			close(fresh->fd);
		fresh->fd = -1;
		return COW_EXIT_TROUBLE;
	}
	fresh->dev = st.st_dev;
	fresh->ino = st.st_ino;
	/* what is made in it shall not inherit the parent's access control lists */
	(void)fremovexattr(fresh->fd, COW_ACL_DEFAULT);
	(void)fremovexattr(fresh->fd, COW_ACL_ACCESS);
	return 0;
}

/* ------------------------------------------------------------------ moving */

struct move {
	const char *name, *as;
	bool whole; /* it is the place itself, else it is in it */
	bool moved;
	struct stat st; /* before it was closed */
};

/* Tells an error, or what `text` says about it. */
static int tell(const struct cow_fresh *fresh, const struct move *move, int error, const char *text)
{
	char *full = NULL;

	if (!move->whole && asprintf(&full, "%s/%s", fresh->text, move->as) < 0)
		full = NULL;
	if (text != NULL)
		cow_say(fresh->cli, "%s: %s", full != NULL ? full : fresh->text, text);
	else
		cow_say_error(fresh->cli, full != NULL ? full : fresh->text, error);
	free(full);
	return COW_EXIT_TROUBLE;
}

/* A rename that replaces nothing, also where the file system does not know renameat2's flag. */
static int rename_new(int from_dir, const char *from, int to_dir, const char *to)
{
	struct stat st;

	if (renameat2(from_dir, from, to_dir, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (fstatat(from_dir, from, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return -errno;
	if (!S_ISDIR(st.st_mode) && linkat(from_dir, from, to_dir, to, 0) == 0)
		return unlinkat(from_dir, from, 0) == 0 ? 0 : -errno;
	if (!S_ISDIR(st.st_mode) && errno == EEXIST)
		return -EEXIST;
	/* a directory replaces an empty one at most; other things only where there are no hard links either */
	if (fstatat(to_dir, to, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return -EEXIST;
	return renameat(from_dir, from, to_dir, to) == 0 ? 0 : -errno;
}

static int close_directory(int dir, const char *name, const struct stat *st)
{
	if (st->st_uid != geteuid() && fchownat(dir, name, geteuid(), (gid_t)-1, AT_SYMLINK_NOFOLLOW) != 0)
		return -errno;
	return fchmodat(dir, name, 0700, 0) == 0 ? 0 : -errno;
}

static int open_again(const struct cow_fresh *fresh, const struct move *move)
{
	int fd = open_directory(fresh->parent, move->as), error = 0;
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) != 0)
		error = -errno;
	else if (!same(&st, &move->st))
		error = -ENOENT;
	else if ((st.st_uid != move->st.st_uid && fchown(fd, move->st.st_uid, (gid_t)-1) != 0) ||
		 fchmod(fd, move->st.st_mode & 07777) != 0)
		error = -errno;
	close(fd);
	return error;
}

static int move_up(const struct cow_fresh *fresh, int from, struct move *move)
{
	int error;

	if (fstatat(from, move->name, &move->st, AT_SYMLINK_NOFOLLOW) != 0)
		return -errno;
	error = S_ISDIR(move->st.st_mode) ? close_directory(from, move->name, &move->st) : 0;
	if (error == 0)
		error = rename_new(from, move->name, fresh->parent, move->as);
	move->moved = error == 0;
	return error;
}

/* Back to where it came from, if the name still is that of what was moved; looked at again where nobody else is. */
static void move_back(struct cow_fresh *fresh, int from, const struct move *move)
{
	struct stat st;

	if (fstatat(fresh->parent, move->as, &st, AT_SYMLINK_NOFOLLOW) != 0 || !same(&st, &move->st)) {
		tell(fresh, move, 0, "somebody has moved it meanwhile; it is not taken back");
		return;
	}
	if (rename_new(fresh->parent, move->as, from, move->name) != 0) {
		tell(fresh, move, 0, "cannot be taken back");
		return;
	}
	if (fstatat(from, move->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !same(&st, &move->st) &&
	    rename_new(from, move->name, fresh->parent, move->as) != 0)
		fresh->keep = true;
}

static int open_all(const struct cow_fresh *fresh, const struct move *moves, size_t count)
{
	int status = 0;

	for (size_t i = 0; i < count; i++) {
		int error = S_ISDIR(moves[i].st.st_mode) ? open_again(fresh, &moves[i]) : 0;

		if (error == -ENOENT || error == -ENOTDIR || error == -ELOOP)
			status = tell(fresh, &moves[i], 0,
				      "somebody has moved it meanwhile; its owner and mode are not set");
		else if (error != 0)
			status = tell(fresh, &moves[i], error, NULL);
	}
	return status;
}

/* All or nothing, but for what somebody takes away at once. */
static int move_all(struct cow_fresh *fresh, int from, struct move *moves, size_t count)
{
	int error = 0;

	for (size_t i = 0; i < count && error == 0; i++) {
		error = move_up(fresh, from, &moves[i]);
		if (error != 0)
			tell(fresh, &moves[i], error, NULL);
	}
	if (error == 0)
		return open_all(fresh, moves, count);
	for (size_t i = 0; i < count; i++)
		if (moves[i].moved)
			move_back(fresh, from, &moves[i]);
	return COW_EXIT_TROUBLE;
}

int cow_fresh_give(struct cow_fresh *fresh, const char *name, const char *as)
{
	struct move move = {.name = name, .as = as, .whole = true};

	return move_all(fresh, fresh->fd, &move, 1);
}

static int move_children(struct cow_fresh *fresh, int from)
{
	struct cow_names names = {0};
	struct move *moves;
	int error = cow_host_list(from, &names);

	if (error != 0) {
		cow_names_free(&names);
		return cow_say_error(fresh->cli, fresh->text, error);
	}
	moves = cow_mem_new((names.count + 1) * sizeof(*moves));
	for (size_t i = 0; i < names.count; i++)
		moves[i] = (struct move){.name = names.names[i], .as = names.names[i]};
	error = move_all(fresh, from, moves, names.count);
	free(moves);
	cow_names_free(&names);
	return error;
}

/* Opens and describes the top. Its group bits stay, for they are the mask of an access control list. */
static int open_top(const struct cow_fresh *fresh, const char *name, struct cow_tree_node *node,
		    struct cow_tree_item *item)
{
	struct stat st;
	int error;

	if (fstatat(fresh->fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
	    fchmodat(fresh->fd, name, (st.st_mode & 07777) | 0700, 0) != 0)
		return -errno;
	error = cow_host_open(fresh->fd, name, node, item);
	item->mode = st.st_mode;
	return error;
}

/* Whoever may not set the parent's mode in the end hears it before anything is moved. */
static int may_set(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && fchmod(fd, st.st_mode & 07777) == 0 ? 0 : -errno;
}

int cow_fresh_pour(struct cow_fresh *fresh, const char *name)
{
	struct cow_tree_node top = {.fd = -1};
	struct cow_tree_item item = {.path = ""};
	int error = may_set(fresh->parent), status;

	if (error == 0)
		error = open_top(fresh, name, &top, &item);
	if (error != 0)
		return cow_say_error(fresh->cli, fresh->text, error);
	status = move_children(fresh, top.fd);
	close(top.fd);
	if (status == 0) {
		cow_fresh_remove(fresh); /* before it: this changes the parent's times, and may need write permission */
		(void)fremovexattr(fresh->parent, COW_ACL_DEFAULT);
		(void)fremovexattr(fresh->parent, COW_ACL_ACCESS);
		error = cow_host_set(fresh->cli, fresh->parent, &item);
		if (error != 0)
			status = cow_say_error(fresh->cli, fresh->text, error);
	}
	cow_tree_item_free(&item);
	return status;
}

/* ------------------------------------------------------------------ the end */

static void remove_walked(int fd, const char *name)
{
	char *chmod[] = {"chmod", "-R", "u+rwx", "--", NULL, NULL}, *rm[] = {"rm", "-rf", "--", NULL, NULL}, *path;

	if (asprintf(&path, "/proc/%d/fd/%d/%s", (int)getpid(), fd, name) < 0)
		return;
	chmod[4] = rm[3] = path;
	if (geteuid() != 0) /* directories that their owner may not write in */
		(void)cow_run_program(chmod);
	(void)cow_run_program(rm);
	free(path);
}

static void remove_inside(int fd, const char *name)
{
	if (unlinkat(fd, name, 0) != 0 && unlinkat(fd, name, AT_REMOVEDIR) != 0 && cow_spot_remove(fd, name) != 0)
		remove_walked(fd, name);
}

void cow_fresh_remove(struct cow_fresh *fresh)
{
	struct cow_names names = {0};
	struct stat st, there;

	if (fresh->fd < 0)
		return;
	if (!fresh->keep && cow_host_list(fresh->fd, &names) == 0)
		for (size_t i = 0; i < names.count; i++)
			remove_inside(fresh->fd, names.names[i]);
	cow_names_free(&names);
	if (fstat(fresh->fd, &st) != 0 || fstatat(fresh->parent, fresh->name, &there, AT_SYMLINK_NOFOLLOW) != 0 ||
	    !same(&st, &there))
		cow_say(fresh->cli, "%s: somebody has moved %s meanwhile, an empty directory; it is left there",
			fresh->text, fresh->name);
	else if (unlinkat(fresh->parent, fresh->name, AT_REMOVEDIR) != 0)
		cow_say(fresh->cli, "%s: %s is left there: %s", fresh->text, fresh->name, strerror(errno));
	close(fresh->fd);
	fresh->fd = -1;
}
