// SPDX-License-Identifier: GPL-2.0-or-later
/* Finds out what the user named, and opens it. */
#include "cli/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "cow_ioctl.h"

/* ------------------------------------------------------------------ arguments */

/* "//a/./b/../c" -> "/a/c", in place of a fresh string one longer than the input. */
static char *clean(const char *path)
{
	char *out = cow_mem_new(strlen(path) + 2), *end = out;

	while (*path != '\0') {
		size_t length = strcspn(path, "/");

		if (length == 2 && path[0] == '.' && path[1] == '.') {
			while (end > out && *--end != '/')
				;
		} else if (length > 0 && !(length == 1 && path[0] == '.')) {
			*end++ = '/';
			memcpy(end, path, length);
			end += length;
		}
		path += length + (path[length] == '/');
	}
	if (end == out)
		*end++ = '/';
	*end = '\0';
	return out;
}

static char *without_slashes(const char *path)
{
	size_t length = strlen(path);
	char *out;

	while (length > 1 && path[length - 1] == '/')
		length--;
	out = cow_mem_new(length + 1);
	memcpy(out, path, length);
	return out;
}

/* The part before the first ':' that names a regular file or block device; NULL: a plain path. */
static char *image_of(const char *text)
{
	struct stat st;

	if (strchr(text, ':') == NULL || lstat(text, &st) == 0)
		return NULL;
	for (const char *colon = strchr(text, ':'); colon != NULL; colon = strchr(colon + 1, ':')) {
		char *image = cow_mem_new((size_t)(colon - text) + 1);

		memcpy(image, text, (size_t)(colon - text));
		if (stat(image, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
			return image;
		free(image);
	}
	return NULL;
}

void cow_place_parse(const char *text, struct cow_place *place)
{
	size_t length = strlen(text);

	*place = (struct cow_place){.text = text, .fd = -1};
	place->image = image_of(text);
	place->slash = length > 0 && text[length - 1] == '/';
	if (place->image != NULL)
		place->path = clean(text + strlen(place->image) + 1);
	else
		place->path = without_slashes(text);
}

/* ------------------------------------------------------------------ the image */

void cow_session_begin(struct cow_session *session, const struct cow_cli *cli)
{
	*session = (struct cow_session){.cli = cli};
}

int cow_session_open(struct cow_session *session, const struct cow_place *place, bool write)
{
	/* A verb that changes little commits once, when it closes; import runs for long and wants the thread. */
	struct cow_open_options options = {.read_only = !write, .no_threads = !session->long_work};
	struct stat st;
	int error;

	if (stat(place->image, &st) != 0)
		return cow_say_error(session->cli, place->image, -errno);
	if (session->volume != NULL) {
		if (session->dev == st.st_dev && session->ino == st.st_ino)
			return 0;
		return cow_say(session->cli, "%s and %s are two images; use `cow export` and `cow import` between them",
			       session->image, place->image);
	}
	error = cow_open(place->image, &options, &session->volume);
	if (error != 0)
		return cow_say_error(session->cli, place->image, error);
	session->image = strdup(place->image);
	session->dev = st.st_dev;
	session->ino = st.st_ino;
	return 0;
}

int cow_session_end(struct cow_session *session)
{
	int error = session->volume != NULL ? cow_close(session->volume) : 0;

	session->volume = NULL;
	if (error != 0)
		cow_say_error(session->cli, session->image, error);
	free(session->image);
	return error != 0 ? COW_EXIT_TROUBLE : 0;
}

/* ------------------------------------------------------------------ opening */

static int open_plain(const struct cow_cli *cli, struct cow_place *place)
{
	struct stat st;

	/* Look first: opening a device or a fifo could do something. A slash at the end follows a link, as always. */
	if (fstatat(AT_FDCWD, place->slash ? place->text : place->path, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return cow_say_error(cli, place->text, -errno);
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return cow_say(cli, "%s: is %s; only files and directories can be named here", place->text,
			       S_ISLNK(st.st_mode) ? "a symbolic link" : "no file and no directory");
	place->fd = open(place->slash ? place->text : place->path,
			 O_RDONLY | O_NONBLOCK | O_CLOEXEC | (place->slash ? 0 : O_NOFOLLOW));
	return place->fd < 0 ? cow_say_error(cli, place->text, -errno) : 0;
}

int cow_place_open(struct cow_session *session, struct cow_place *place)
{
	int error;

	if (place->image == NULL)
		return open_plain(session->cli, place);
	if (cow_session_open(session, place, false) != 0)
		return COW_EXIT_TROUBLE;
	error = cow_lookup_path(session->volume, place->path, &place->inode);
	return error != 0 ? cow_say_error(session->cli, place->text, error) : 0;
}

void cow_place_close(struct cow_place *place)
{
	if (place->fd >= 0)
		close(place->fd);
	cow_forget(place->inode, 1);
	free(place->image);
	free(place->path);
	free(place->own_text);
	*place = (struct cow_place){.fd = -1};
}

/* ------------------------------------------------------------------ where names go */

int cow_spot_open(struct cow_session *session, const struct cow_place *place, struct cow_spot *spot)
{
	const char *slash = strrchr(place->path, '/'), *name = slash != NULL ? slash + 1 : place->path;
	char *parent;
	int error = 0;

	*spot = (struct cow_spot){.fd = -1};
	if (*name == '\0')
		return cow_say(session->cli, "%s: is the root; name something in it", place->text);
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return cow_say(session->cli, "%s: ends with . or ..; give its full name", place->text);
	if (strlen(name) > COW_NAME_MAX)
		return cow_say_error(session->cli, place->text, -ENAMETOOLONG);
	strcpy(spot->name, name);
	parent = slash == NULL ? strdup(".")
			       : strndup(place->path, slash == place->path ? 1 : (size_t)(slash - place->path));
	if (parent == NULL)
		return cow_say_error(session->cli, place->text, -ENOMEM);
	if (place->image != NULL) {
		error = cow_session_open(session, place, true);
		if (error == 0 && (error = cow_lookup_path(session->volume, parent, &spot->dir)) != 0)
			error = cow_say_error(session->cli, parent, error);
	} else {
		spot->fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (spot->fd < 0)
			error = cow_say_error(session->cli, parent, -errno);
	}
	free(parent);
	return error;
}

void cow_spot_close(struct cow_spot *spot)
{
	if (spot->fd >= 0)
		close(spot->fd);
	cow_forget(spot->dir, 1);
	*spot = (struct cow_spot){.fd = -1};
}

void cow_spot_temporary(char *name)
{
	uint32_t value;

	if (getrandom(&value, sizeof(value), GRND_NONBLOCK) != sizeof(value))
		value = (uint32_t)getpid() * 2654435761u;
	sprintf(name, ".cow-%08x", value);
}

/* 1: a directory, 0: not, also when there is nothing; COW_EXIT_TROUBLE is told by who opens it later. */
static bool is_directory(struct cow_session *session, const struct cow_place *place)
{
	struct cow_inode *inode;
	struct cow_attr attr;
	struct stat st;
	bool result;

	if (place->image == NULL)
		return stat(place->path, &st) == 0 && S_ISDIR(st.st_mode);
	if (cow_lookup_path(session->volume, place->path, &inode) != 0)
		return false;
	result = cow_getattr(inode, &attr) == 0 && S_ISDIR(attr.mode);
	cow_forget(inode, 1);
	return result;
}

int cow_place_target(struct cow_session *session, struct cow_place *place, const struct cow_place *source)
{
	const char *slash = strrchr(source->path, '/'), *name = slash != NULL ? slash + 1 : source->path;
	char *path;

	if (!place->slash)
		return 0;
	if (place->image != NULL && cow_session_open(session, place, true) != 0)
		return COW_EXIT_TROUBLE;
	if (!is_directory(session, place))
		return 0;
	if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "-") == 0)
		return cow_say(session->cli, "%s: cannot tell the name for %s in it; give it in full", place->text,
			       source->text);
	path = cow_mem_new(strlen(place->path) + strlen(name) + 2);
	sprintf(path, "%s%s%s", place->path, strcmp(place->path, "/") == 0 ? "" : "/", name);
	free(place->path);
	place->path = path;
	place->slash = false;
	if (asprintf(&place->own_text, "%s%s%s", place->image != NULL ? place->image : "",
		     place->image != NULL ? ":" : "", path) < 0)
		return cow_say_error(session->cli, place->text, -ENOMEM);
	place->text = place->own_text;
	return 0;
}

/* ------------------------------------------------------------------ talking to the daemon */

int cow_place_try_ioctl(int fd, unsigned long request, void *args)
{
	if (ioctl(fd, request, args) == 0)
		return 0;
	if (errno == ENOSYS || errno == EOPNOTSUPP)
		return -ENOTTY;
	return -errno;
}

int cow_place_say(const struct cow_cli *cli, const char *what, int error, const char *instead)
{
	if (error == -ENOTTY)
		return cow_say(cli, "%s: is not on a cowlinks mount; %s", what, instead);
	if (error == -EPERM || error == -EACCES)
		return cow_say(cli, "%s: %s; its owner can, or %s", what, strerror(-error), instead);
	return cow_say_error(cli, what, error);
}

int cow_place_ioctl(const struct cow_cli *cli, const char *what, int fd, unsigned long request, void *args,
		    const char *instead)
{
	int error = cow_place_try_ioctl(fd, request, args);

	return error != 0 ? cow_place_say(cli, what, error, instead) : 0;
}

/* By the steps that cow_ioctl.h asks for. */
int cow_spot_remove(int dir, const char *name)
{
	struct cow_ioc_token token = {0};
	struct cow_ioc_remove args = {0};
	struct stat st;
	int refused = cow_place_try_ioctl(dir, COW_IOC_TOKEN, &token); /* first of all: is this a cowlinks mount? */

	if (refused != 0 && refused != -EPERM)
		return refused;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return -errno;
	if (unlinkat(dir, name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) == 0)
		return 0;
	if (!S_ISDIR(st.st_mode) || errno != ENOTEMPTY)
		return -errno;
	if (refused != 0)
		return refused;
	args.token = token.token;
	strncpy(args.name, name, sizeof(args.name) - 1);
	return cow_place_try_ioctl(dir, COW_IOC_REMOVE, &args);
}

int cow_place_token(const struct cow_place *place, uint64_t *token)
{
	struct cow_ioc_token args = {0};
	int error = cow_place_try_ioctl(place->fd, COW_IOC_TOKEN, &args);

	*token = args.token;
	return error;
}
