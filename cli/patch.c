// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cow diff --patch: what `LC_ALL=C diff -ruN --no-dereference OLD NEW` prints, byte for byte.
 *
 * The pairs are found by cow_changes(); diff(1) compares them, one after the other, in the order in which it would
 * have met them: names sorted as bytes within each directory. What it says about pairs that it does not compare
 * (links, devices, a file that became a directory) is said here, from what lstat knows. On a mount a directory that
 * only one side has goes to one diff as a whole. In an image each pair is copied to files without a name, given to
 * diff by descriptor, and the names in its first lines are put right.
 *
 * One thing differs, since nothing unchanged is looked at: diff mentions every fifo and socket that both sides have,
 * and devices of which a time differs.
 */
#include "cli/changes.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"

#define OPTIONS "-ruN --no-dereference"

struct side {
	struct cow_place *place;
	char *base; /* its name without the slashes at the end */
	struct stat st; /* of the pair's file; st_mode 0: there is none */
	char *name; /* base, a slash, and the path below it */
	char *target; /* of a symbolic link */
	int copy; /* of an image's file: descriptor, or -1 */
};

struct patch {
	struct cow_session *session;
	struct side side[2];
	char **paths; /* of the pairs */
	size_t count, size;
	int status;
};

/* ------------------------------------------------------------------ the pairs */

static void add(struct patch *patch, const char *path)
{
	if (patch->count == patch->size) {
		patch->size = patch->size != 0 ? patch->size * 2 : 64;
		patch->paths = cow_mem_resize(patch->paths, patch->size * sizeof(*patch->paths));
	}
	patch->paths[patch->count++] = cow_mem_copy(path, strlen(path) + 1);
}

struct below {
	struct patch *patch;
	const char *path;
};

/* A renamed directory of an image: all that is in it. (On a mount one diff walks the directory.) */
static int add_below(void *context, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	struct below *below = context, inner = {.patch = below->patch};
	char *path;
	int error = 0;

	if (asprintf(&path, "%s/%s", below->path, entry->name) < 0)
		error = -ENOMEM;
	else
		add(below->patch, path);
	if (error == 0 && S_ISDIR(attr->mode)) {
		inner.path = path;
		error = cow_list(inode, 0, true, add_below, &inner);
	}
	if (error >= 0)
		free(path);
	cow_forget(inode, 1);
	return 0;
}

static int lookup(const struct patch *patch, const struct side *side, const char *path, struct cow_inode **inode)
{
	char *full;
	int error;

	if (asprintf(&full, "%s/%s", side->place->path, path) < 0)
		return -ENOMEM;
	error = cow_lookup_path(patch->session->volume, full, inode);
	free(full);
	return error;
}

static void add_tree(struct patch *patch, const struct side *side, const char *path)
{
	struct below below = {patch, path};
	struct cow_inode *inode;

	if (lookup(patch, side, path, &inode) != 0)
		return;
	if (cow_list(inode, 0, true, add_below, &below) != 0)
		patch->status = COW_EXIT_DIFF_TROUBLE;
	cow_forget(inode, 1);
}

static bool is_regular_or_link(uint32_t mode)
{
	return S_ISREG(mode) || S_ISLNK(mode);
}

static int collect(void *context, const struct cow_change *change)
{
	struct patch *patch = context;
	bool in_image = patch->side[0].place->image != NULL;

	if (change->type == 'm' &&
	    (change->new_mode == 0 || S_ISDIR(change->new_mode) || is_regular_or_link(change->new_mode)))
		return 0; /* diff does not see attributes, but tells devices apart by them */
	add(patch, change->path);
	if (change->type != 'R')
		return 0;
	add(patch, change->old_path);
	if (in_image && S_ISDIR(change->old_mode))
		add_tree(patch, &patch->side[0], change->old_path);
	if (in_image && S_ISDIR(change->new_mode))
		add_tree(patch, &patch->side[1], change->path);
	return 0;
}

/* The order in which diff meets them: a directory's entries right after it, so '/' sorts below every byte. */
static int in_diff_order(const void *a, const void *b)
{
	const unsigned char *x = *(const unsigned char *const *)a, *y = *(const unsigned char *const *)b;

	for (; *x == *y && *x != '\0'; x++, y++)
		;
	if (*x == '\0' || *y == '\0')
		return *x == *y ? 0 : *x == '\0' ? -1 : 1;
	return (*x == '/' ? 0 : *x) - (*y == '/' ? 0 : *y);
}

/* ------------------------------------------------------------------ names as diff prints them */

/* Quoted as in C if it holds a control character (not 127), blank, quote or backslash, or anything but ASCII. */
static char *escape(const char *name)
{
	char *out = cow_mem_new(strlen(name) * 4 + 3), *end = out;
	const char *special = "\a\b\t\n\v\f\r", *letters = "abtnvfr", *at;
	bool plain = true;

	for (const signed char *p = (const signed char *)name; *p != '\0'; p++)
		if (*p <= ' ' || *p == '"' || *p == '\\')
			plain = false;
	if (plain)
		return strcpy(out, name);
	*end++ = '"';
	for (; *name != '\0'; name++) {
		if (*name == '"' || *name == '\\')
			end += sprintf(end, "\\%c", *name);
		else if ((at = strchr(special, *name)) != NULL)
			end += sprintf(end, "\\%c", letters[at - special]);
		else if ((signed char)*name < ' ') /* or above 127 */
			end += sprintf(end, "\\%03o", (unsigned char)*name);
		else
			*end++ = *name;
	}
	*end++ = '"';
	*end = '\0';
	return out;
}

static char *join(const char *base, const char *path)
{
	char *out = cow_mem_new(strlen(base) + strlen(path) + 2);

	sprintf(out, "%s%s%s", base, path[0] != '\0' && strcmp(base, "/") != 0 ? "/" : "", path);
	return out;
}

static const char *type_text(const struct stat *st)
{
	switch (st->st_mode & S_IFMT) {
	case S_IFREG: return st->st_size == 0 ? "regular empty file" : "regular file";
	case S_IFDIR: return "directory";
	case S_IFLNK: return "symbolic link";
	case S_IFCHR: return "character special file";
	case S_IFBLK: return "block special file";
	case S_IFIFO: return "fifo";
	case S_IFSOCK: return "socket";
	default: return "weird file";
	}
}

/* ------------------------------------------------------------------ looking at a pair */

static int look_image(const struct patch *patch, struct side *side, const char *path)
{
	struct cow_inode *inode;
	struct cow_attr attr;
	int error = lookup(patch, side, path, &inode);

	if (error == -ENOENT || error == -ENOTDIR)
		return 0;
	if (error != 0)
		return error;
	error = cow_getattr(inode, &attr);
	if (error == 0) {
		side->st.st_mode = attr.mode;
		side->st.st_size = (off_t)attr.size;
		side->st.st_rdev = attr.rdev;
		side->st.st_nlink = attr.nlink;
		side->st.st_uid = attr.uid;
		side->st.st_gid = attr.gid;
		side->st.st_mtim = attr.mtime;
		side->st.st_ctim = attr.ctime;
		if (S_ISLNK(attr.mode)) {
			side->target = cow_mem_new(COW_SYMLINK_MAX + 1);
			error = cow_readlink(inode, side->target, COW_SYMLINK_MAX);
			error = error > 0 ? 0 : error;
		}
	}
	cow_forget(inode, 1);
	return error;
}

static int look_mounted(struct side *side, const char *path)
{
	ssize_t length;

	if (path[0] == '\0')
		return fstat(side->place->fd, &side->st) == 0 ? 0 : -errno;
	if (fstatat(side->place->fd, path, &side->st, AT_SYMLINK_NOFOLLOW) != 0) {
		side->st.st_mode = 0;
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	}
	if (!S_ISLNK(side->st.st_mode))
		return 0;
	side->target = cow_mem_new(COW_SYMLINK_MAX + 2);
	length = readlinkat(side->place->fd, path, side->target, COW_SYMLINK_MAX + 1);
	return length < 0 ? -errno : 0;
}

static void forget_pair(struct patch *patch)
{
	for (int i = 0; i < 2; i++) {
		free(patch->side[i].name);
		free(patch->side[i].target);
		if (patch->side[i].copy >= 0)
			close(patch->side[i].copy);
		patch->side[i].name = patch->side[i].target = NULL;
		patch->side[i].copy = -1;
	}
}

static int look(struct patch *patch, const char *path)
{
	for (int i = 0; i < 2; i++) {
		struct side *side = &patch->side[i];
		int error;

		memset(&side->st, 0, sizeof(side->st));
		side->name = join(side->base, path);
		error = side->place->image != NULL ? look_image(patch, side, path) : look_mounted(side, path);
		if (error != 0) {
			cow_say_error(patch->session->cli, side->name, error);
			return error;
		}
	}
	return 0;
}

/* ------------------------------------------------------------------ running diff */

static void raise_status(struct patch *patch, int status)
{
	if (status > patch->status)
		patch->status = status;
}

/* A copy without a name, with its time, on the disk that temporary files are on. */
static int copy_out(const struct patch *patch, struct side *side, const char *path)
{
	const char *dir = getenv("TMPDIR");
	struct timespec times[2] = {side->st.st_mtim, side->st.st_mtim};
	struct cow_inode *inode;
	uint64_t at = 0;
	char buffer[65536];
	int64_t got = 0;
	int error;

	side->copy = open(dir != NULL && dir[0] != '\0' ? dir : "/tmp", O_TMPFILE | O_RDWR, 0600);
	if (side->copy < 0)
		side->copy = memfd_create("cow", 0);
	if (side->copy < 0)
		return -errno;
	error = lookup(patch, side, path, &inode);
	if (error != 0)
		return error;
	while (error == 0 && (got = cow_read(inode, buffer, sizeof(buffer), at)) > 0) {
		if (pwrite(side->copy, buffer, (size_t)got, (off_t)at) != got)
			error = -ENOSPC;
		at += (uint64_t)got;
	}
	cow_forget(inode, 1);
	if (error == 0 && got < 0)
		error = (int)got;
	return error == 0 && futimens(side->copy, times) != 0 ? -errno : error;
}

/* Starts it with its output in a pipe (`out` not NULL) or ours. */
static int start(char *const argv[], FILE **out, pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	int ends[2] = {-1, -1}, error;

	fflush(stdout);
	posix_spawn_file_actions_init(&actions);
	if (out != NULL) {
		if (pipe2(ends, O_CLOEXEC) != 0) {
			posix_spawn_file_actions_destroy(&actions);
			return -errno;
		}
		posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
	}
	error = cow_run_start(argv, &actions, pid);
	posix_spawn_file_actions_destroy(&actions);
	if (out == NULL)
		return error;
	close(ends[1]);
	*out = error == 0 ? fdopen(ends[0], "r") : NULL;
	if (error != 0)
		close(ends[0]);
	else if (*out == NULL)
		abort();
	return error;
}

static int finish(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return COW_EXIT_DIFF_TROUBLE;
	return WIFEXITED(status) ? WEXITSTATUS(status) : COW_EXIT_DIFF_TROUBLE;
}

static int cannot_run(struct patch *patch, int error)
{
	if (error == -ENOENT)
		cow_say(patch->session->cli, "--patch needs the program diff; install diffutils");
	else
		cow_say_error(patch->session->cli, "diff", error);
	raise_status(patch, COW_EXIT_DIFF_TROUBLE);
	return error;
}

/* "--- NAME<tab>time" or "+++ ...": with the name that belongs there. */
static void put_name_line(const char *line, const struct side *side)
{
	const char *tab = strchr(line, '\t');
	char *name = escape(side->name);

	printf("%.3s %s%s", line, name, tab != NULL ? tab : "\n");
	free(name);
}

/* What one diff printed: with the line that a recursive one puts before it, and the names put right. */
static void pass_on(struct patch *patch, FILE *from, bool header)
{
	char *line = NULL, *names[2];
	size_t size = 0, lines = 0;
	ssize_t length;
	bool rename = patch->side[0].place->image != NULL, binary = false;

	while ((length = getline(&line, &size, from)) > 0) {
		lines++;
		if (lines == 1 && strncmp(line, "Binary files ", 13) == 0) {
			printf("Binary files %s and %s differ\n", patch->side[0].name, patch->side[1].name);
			binary = true;
		}
		if (binary)
			continue; /* the rest of a line whose names have newlines in them */
		if (lines == 1 && header) {
			names[0] = escape(patch->side[0].name);
			names[1] = escape(patch->side[1].name);
			printf("diff " OPTIONS " %s %s\n", names[0], names[1]);
			free(names[0]);
			free(names[1]);
		}
		if (lines <= 2 && rename)
			put_name_line(line, &patch->side[lines - 1]);
		else
			fwrite(line, 1, (size_t)length, stdout);
	}
	free(line);
}

/* Two regular files, of which one may be missing. */
static void compare_files(struct patch *patch, const char *path)
{
	char names[2][32], *argv[] = {"diff", "-uN", "--", NULL, NULL, NULL};
	FILE *out = NULL;
	pid_t pid;
	int error = 0;

	for (int i = 0; i < 2 && error == 0; i++) {
		struct side *side = &patch->side[i];

		argv[3 + i] = side->name;
		if (side->place->image == NULL)
			continue;
		if (side->st.st_mode != 0)
			error = copy_out(patch, side, path);
		snprintf(names[i], sizeof(names[i]), side->copy >= 0 ? "/proc/self/fd/%d" : "/proc/self/fd/none",
			 side->copy);
		argv[3 + i] = names[i];
		if (error != 0)
			cow_say_error(patch->session->cli, side->name, error);
	}
	if (error != 0) {
		raise_status(patch, COW_EXIT_DIFF_TROUBLE);
		return;
	}
	error = start(argv, &out, &pid);
	if (error != 0) {
		cannot_run(patch, error);
		return;
	}
	pass_on(patch, out, path[0] != '\0');
	fclose(out);
	raise_status(patch, finish(pid));
}

/* On a mount: a directory that one side does not have. */
static void compare_directory(struct patch *patch)
{
	char *argv[] = {"diff", "-ruN", "--no-dereference", patch->side[0].name, patch->side[1].name, NULL};
	pid_t pid;
	int error = start(argv, NULL, &pid);

	if (error != 0)
		cannot_run(patch, error);
	else
		raise_status(patch, finish(pid));
}

/* ------------------------------------------------------------------ one pair */

/* What diff takes for one and the same device, and says nothing about; it compares whole seconds. */
static bool is_same_device(const struct stat *a, const struct stat *b)
{
	return (S_ISCHR(a->st_mode) || S_ISBLK(a->st_mode)) && a->st_mode == b->st_mode && a->st_rdev == b->st_rdev &&
	       a->st_nlink == b->st_nlink && a->st_uid == b->st_uid && a->st_gid == b->st_gid &&
	       a->st_mtime == b->st_mtime && a->st_ctime == b->st_ctime;
}

/* Only one side has it. `has` is the side. Returns true if all below it is dealt with. */
static bool one_sided(struct patch *patch, const char *path, int has)
{
	const struct side *side = &patch->side[has];
	const char *slash = strrchr(path, '/');
	char *dir;

	if (S_ISDIR(side->st.st_mode)) {
		if (side->place->image == NULL)
			compare_directory(patch);
		return side->place->image == NULL;
	}
	if (S_ISREG(side->st.st_mode)) {
		compare_files(patch, path);
	} else if (S_ISLNK(side->st.st_mode)) {
		/* diff cannot do this either: it fails to read the other link */
		cow_say(patch->session->cli, "%s: a symbolic link that one side does not have; a patch cannot show it",
			side->name);
		raise_status(patch, COW_EXIT_DIFF_TROUBLE);
	} else {
		dir = slash != NULL ? cow_mem_copy(path, (size_t)(slash - path) + 1) : NULL;
		if (dir != NULL)
			dir[slash - path] = '\0';
		printf("Only in %s%s%s: %s\n", dir != NULL ? side->base : side->place->text,
		       dir != NULL && strcmp(side->base, "/") != 0 ? "/" : "", dir != NULL ? dir : "",
		       slash != NULL ? slash + 1 : path);
		free(dir);
		raise_status(patch, COW_EXIT_DIFFERENT);
	}
	return false;
}

static bool two_sided(struct patch *patch, const char *path)
{
	const struct side *a = &patch->side[0], *b = &patch->side[1];

	if (S_ISDIR(a->st.st_mode) && S_ISDIR(b->st.st_mode))
		return false;
	if (S_ISREG(a->st.st_mode) && S_ISREG(b->st.st_mode)) {
		compare_files(patch, path);
	} else if (S_ISLNK(a->st.st_mode) && S_ISLNK(b->st.st_mode)) {
		if (strcmp(a->target, b->target) == 0)
			return false;
		printf("Symbolic links %s and %s differ\n", a->name, b->name);
		raise_status(patch, COW_EXIT_DIFFERENT);
	} else if (!is_same_device(&a->st, &b->st)) {
		printf("File %s is a %s while file %s is a %s\n", a->name, type_text(&a->st), b->name,
		       type_text(&b->st));
		raise_status(patch, COW_EXIT_DIFFERENT);
	}
	return !is_regular_or_link(a->st.st_mode) || !is_regular_or_link(b->st.st_mode);
}

/* True if nothing below it is to be looked at. */
static bool compare(struct patch *patch, const char *path)
{
	bool covers = true;

	if (look(patch, path) != 0) {
		raise_status(patch, COW_EXIT_DIFF_TROUBLE);
	} else if (patch->side[0].st.st_mode != 0 && patch->side[1].st.st_mode != 0) {
		covers = two_sided(patch, path);
	} else if (patch->side[0].st.st_mode != 0 || patch->side[1].st.st_mode != 0) {
		covers = one_sided(patch, path, patch->side[0].st.st_mode != 0 ? 0 : 1);
	}
	forget_pair(patch);
	return covers;
}

static bool is_below(const char *path, const char *top)
{
	size_t length = strlen(top);

	return strncmp(path, top, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static void compare_all(struct patch *patch)
{
	const char *covered = NULL, *last = NULL;

	if (patch->count > 0)
		qsort(patch->paths, patch->count, sizeof(*patch->paths), in_diff_order);
	for (size_t i = 0; i < patch->count; i++) {
		const char *path = patch->paths[i];

		if ((covered != NULL && is_below(path, covered)) || (last != NULL && strcmp(path, last) == 0))
			continue;
		last = path;
		if (compare(patch, path))
			covered = path;
	}
}

static char *base_of(const char *text)
{
	size_t length = strlen(text);
	char *base = cow_mem_copy(text, length + 1);

	while (length > 1 && base[length - 1] == '/')
		base[--length] = '\0';
	return base;
}

int cow_patch(struct cow_session *session, struct cow_place *old_place, struct cow_place *new_place)
{
	struct patch patch = {.session = session};

	patch.side[0] = (struct side){.place = old_place, .base = base_of(old_place->text), .copy = -1};
	patch.side[1] = (struct side){.place = new_place, .base = base_of(new_place->text), .copy = -1};
	setenv("LC_ALL", "C", 1); /* for diff */
	if (cow_changes(session, old_place, new_place, true, collect, &patch) != 0)
		patch.status = COW_EXIT_DIFF_TROUBLE;
	else
		compare_all(&patch);
	for (size_t i = 0; i < patch.count; i++)
		free(patch.paths[i]);
	free(patch.paths);
	free(patch.side[0].base);
	free(patch.side[1].base);
	return patch.status;
}
