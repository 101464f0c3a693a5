// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cow umount DIR...: unmounts, and waits until the daemon has committed and closed the image.
 *
 * The kernel's part of an unmount is over before the daemon's; the daemon's lock on the image says when that is. As
 * long as its volume is mounted anywhere else the daemon goes on, and there is nothing to wait for. Whether it is, the
 * device number tells and not the image's name: the dead mount of an earlier daemon has that name too.
 *
 * Nothing here touches the mount before it is known that its daemon does not hang (cowfs/server.c).
 */
#include "cli/cli.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cowfs/mounts.h"
#include "cowfs/server.h"

#define WAIT_SECONDS 120
#define LOOK_MILLISECONDS 200  /* most commits are over by then; from then on, is it a mount elsewhere? */
#define ELSEWHERE_MILLISECONDS 3000 /* which may be about to end: a command in a name space of its own, a service */
#define TELL_MILLISECONDS 1000

/* A mount while it is unmounted. */
struct ending {
	char *dir, *image;
	dev_t device;
};

/* ---- what is mounted */

/* -ENOENT: nothing there; -EINVAL: something else. */
static int find(const char *dir, struct ending *ending)
{
	struct cowfs_mounts mounts;
	const struct cowfs_mount *top;
	int result = cowfs_mounts_read(COWFS_MOUNTS_HERE, &mounts);

	if (result != 0)
		return result;
	top = cowfs_mounts_top(&mounts, dir);
	if (top == NULL) {
		result = -ENOENT;
	} else if (!top->ours) {
		result = -EINVAL;
	} else {
		ending->device = top->device;
		ending->image = strdup(top->source);
		result = ending->image == NULL ? -ENOMEM : 0;
	}
	cowfs_mounts_free(&mounts);
	return result;
}

/* By a bind mount, for example. */
static bool is_mounted(const char *table, dev_t device)
{
	struct cowfs_mounts mounts;
	bool found;

	if (cowfs_mounts_read(table, &mounts) != 0)
		return false;
	found = cowfs_mounts_have(&mounts, device);
	cowfs_mounts_free(&mounts);
	return found;
}

static bool is_same_namespace(const char *pid)
{
	char path[64];
	struct stat here, there;

	snprintf(path, sizeof(path), "/proc/%.20s/ns/mnt", pid);
	return stat("/proc/self/ns/mnt", &here) == 0 && stat(path, &there) == 0 && here.st_ino == there.st_ino;
}

/* A process in whose mount namespace it still is mounted, or 0. One that we may not look at is not found. */
static int find_elsewhere(dev_t device)
{
	DIR *processes = opendir("/proc");
	struct dirent *entry;
	char path[64];
	int found = 0;

	while (processes != NULL && found == 0 && (entry = readdir(processes)) != NULL) {
		if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || is_same_namespace(entry->d_name))
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/mountinfo", entry->d_name);
		if (is_mounted(path, device))
			found = atoi(entry->d_name);
	}
	if (processes != NULL)
		closedir(processes);
	return found;
}

/* ---- unmounting */

/* By fusermount3 for who must not do it himself. */
static int detach_by_helper(const struct cow_cli *cli, char *dir, bool lazy)
{
	char *argv[] = {"fusermount3", "-u", "-q", lazy ? "-z" : "-q", "--", dir, NULL};
	int status = cow_run_program(argv);

	if (status < 0)
		return cow_say_error(cli, "fusermount3", status);
	return status != 0 ? cow_say(cli, "%s: could not be unmounted; is it in use, and yours?", dir) : 0;
}

static int detach_in_use(const struct cow_cli *cli, char *dir)
{
	if (!cowfs_server_dead(dir))
		return cow_say(cli,
			       "%s: is in use: a file in it is open or it is somebody's working directory "
			       "(`fuser -vm %s` says whose)",
			       dir, dir);
	cow_say(cli, "%s: is in use, and its daemon is dead: detached; who uses it gets errors", dir);
	return umount2(dir, UMOUNT_NOFOLLOW | MNT_DETACH) == 0 ? 0 : cow_say_error(cli, dir, -errno);
}

static int detach(const struct cow_cli *cli, char *dir, bool lazy)
{
	if (umount2(dir, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	if (errno == EBUSY)
		return detach_in_use(cli, dir);
	return errno == EPERM ? detach_by_helper(cli, dir, lazy) : cow_say_error(cli, dir, -errno);
}

/* MNT_FORCE ends all that waits for an answer, the daemon's own thread too, which then lets go of the image. */
static int detach_stuck(const struct cow_cli *cli, char *dir, int pid)
{
	cow_say(cli, "%s: its daemon (process %d) was killed and is stuck: cutting it off", dir, pid);
	if (umount2(dir, UMOUNT_NOFOLLOW | MNT_FORCE) == 0)
		return 0;
	return detach(cli, dir, true); /* in use, or not for us to force */
}

/* ---- waiting */

/* The image, to look at its lock. What has come in its place and is no image is not opened for long, nor waited for. */
static int open_image(const char *image)
{
	int fd = open(image, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	if (fd >= 0 && (fstat(fd, &st) != 0 || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int say_elsewhere(const struct cow_cli *cli, const struct ending *ending, int pid)
{
	char path[40], name[32] = "";
	FILE *comm;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	comm = fopen(path, "re");
	if (comm != NULL && fgets(name, sizeof(name), comm) != NULL)
		name[strcspn(name, "\n")] = '\0';
	if (comm != NULL)
		fclose(comm);
	return cow_say(cli,
		       "%s: unmounted here, but still mounted in the mount namespace of process %d (%s): "
		       "the image stays open until that ends",
		       ending->dir, pid, name);
}

static long milliseconds_since(const struct timespec *begin)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - begin->tv_sec) * 1000 + (now.tv_nsec - begin->tv_nsec) / 1000000;
}

static int wait_unlocked(const struct cow_cli *cli, const struct ending *ending, int fd)
{
	struct timespec nap = {.tv_nsec = 1000000}, begin;
	bool told = !isatty(STDERR_FILENO);
	long waited, look = LOOK_MILLISECONDS;
	int pid;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	while (flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
		waited = milliseconds_since(&begin);
		if (waited >= look) {
			pid = find_elsewhere(ending->device);
			if (pid != 0 && waited >= ELSEWHERE_MILLISECONDS)
				return say_elsewhere(cli, ending, pid);
			look = pid != 0 ? waited + LOOK_MILLISECONDS : LONG_MAX;
		}
		if (!told && waited >= TELL_MILLISECONDS) {
			told = true;
			cow_say(cli, "%s: unmounted; waiting until all is written and the image is closed",
				ending->dir);
		}
		if (waited > WAIT_SECONDS * 1000L)
			return cow_say(cli,
				       "%s: unmounted, but after %d s still open: it is being written, or a mount "
				       "namespace that cannot be seen from here holds it; wait before you copy it",
				       ending->image, WAIT_SECONDS);
		nanosleep(&nap, NULL);
		if (nap.tv_nsec < 50000000)
			nap.tv_nsec += nap.tv_nsec / 4;
	}
	return 0;
}

static int wait_closed(const struct cow_cli *cli, const struct ending *ending)
{
	int fd = open_image(ending->image), status;

	if (fd < 0)
		return 0; /* gone or not ours to see: nothing to wait for */
	status = wait_unlocked(cli, ending, fd);
	close(fd);
	return status;
}

/* ---- the verb */

static int end(const struct cow_cli *cli, const struct ending *ending, bool lazy)
{
	int pid = cowfs_server_stuck(ending->image);
	int status = pid != 0 ? detach_stuck(cli, ending->dir, pid) : detach(cli, ending->dir, lazy);

	if (status == 0 && !lazy && !is_mounted(COWFS_MOUNTS_HERE, ending->device))
		status = wait_closed(cli, ending);
	return status;
}

/* A slash at the end would make the kernel look into the mount. */
char *cow_umount_resolve(const char *name)
{
	size_t length = strlen(name);
	char bare[PATH_MAX];

	while (length > 1 && name[length - 1] == '/')
		length--;
	if (length >= sizeof(bare)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	memcpy(bare, name, length);
	bare[length] = '\0';
	return realpath(bare, NULL);
}

/* The topmost mount, if it is dead: -EAGAIN when it is gone; 0 if it lives; COW_EXIT_TROUBLE. */
static int detach_dead(const struct cow_cli *cli, char *dir, const struct ending *ending)
{
	char *argv[] = {"fusermount3", "-u", "-q", "-z", "--", dir, NULL};
	int pid = cowfs_server_stuck(ending->image);

	if (pid != 0)
		return cow_say(cli,
			       "%s: the daemon of its last mount (process %d) was killed and is stuck; "
			       "cut it off with `cow umount %s`",
			       dir, pid, dir);
	if (!cowfs_server_dead(dir))
		return 0;
	if (umount2(dir, UMOUNT_NOFOLLOW | MNT_DETACH) != 0 && cow_run_program(argv) != 0)
		return cow_say(cli,
			       "%s: has a dead mount on it that is not yours; take it away with `sudo cow umount %s`",
			       dir, dir);
	cow_say(cli, "%s: its last mount, of %s, was dead: detached", dir, ending->image);
	return -EAGAIN;
}

int cow_umount_dead(const struct cow_cli *cli, char *dir)
{
	struct ending ending;
	int status = -EAGAIN;

	while (status == -EAGAIN && find(dir, &ending) == 0) {
		status = detach_dead(cli, dir, &ending);
		free(ending.image);
	}
	return status == COW_EXIT_TROUBLE ? COW_EXIT_TROUBLE : COW_EXIT_OK;
}

static int say_not_found(const struct cow_cli *cli, const char *name, int error)
{
	if (error == -ENOENT)
		return cow_say(cli, "%s: is not mounted", name);
	if (error == -EINVAL)
		return cow_say(cli, "%s: is not a cowlinks mount; use `umount`", name);
	return cow_say_error(cli, COWFS_MOUNTS_HERE, error);
}

static int unmount(const struct cow_cli *cli, const char *name, bool lazy)
{
	struct ending ending = {.dir = cow_umount_resolve(name)};
	int status;

	if (ending.dir == NULL)
		return cow_say_error(cli, name, -errno);
	status = find(ending.dir, &ending);
	status = status != 0 ? say_not_found(cli, name, status) : end(cli, &ending, lazy);
	free(ending.image);
	free(ending.dir);
	return status;
}

int cow_verb_umount(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"lazy", no_argument, NULL, 'l'},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	bool lazy = false;
	int option, status = COW_EXIT_OK;

	while ((option = getopt_long(argc, argv, "l", options, NULL)) != -1) {
		switch (option) {
		case 'l': lazy = true; break;
		case COW_OPTION_HELP: return cow_say_help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (optind == argc)
		return cow_say_usage(cli, "give the directory");
	for (; optind < argc; optind++)
		if (unmount(cli, argv[optind], lazy) != 0)
			status = COW_EXIT_TROUBLE;
	return status;
}
