// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cow umount DIR...: unmounts, and waits until the daemon has committed and closed the image.
 *
 * The kernel's part of an unmount is over before the daemon's; the daemon's lock on the image says when that is.
 *
 * A killed daemon leaves its mount behind, dead: every access answers ENOTCONN. It may also be stuck: one of its
 * threads waits in the kernel for pages that only the daemon itself could write back, and whoever touches the mount
 * waits too, for ever. So nothing here touches the mount before it is known that its daemon does not hang: what is
 * mounted is read from the kernel's table, and who serves it from the table of locks.
 */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <mntent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WAIT_SECONDS 120
#define DIE_MILLISECONDS 1000 /* what a killed daemon may take to be gone, its buffers freed */

/* ---- what is mounted */

static bool is_ours(const struct mntent *entry)
{
	return strcmp(entry->mnt_type, "fuse.cowfs") == 0;
}

/* The image whose volume is mounted on `dir`, to be freed; NULL after having said what is wrong. */
static char *find_image(const struct cow_cli *cli, const char *name, const char *dir)
{
	FILE *table = setmntent("/proc/self/mounts", "re");
	bool mounted = false, ours = false;
	char *image = NULL;
	struct mntent *entry;

	if (table == NULL) {
		cow_say_error(cli, "/proc/self/mounts", -errno);
		return NULL;
	}
	while ((entry = getmntent(table)) != NULL) {
		if (strcmp(entry->mnt_dir, dir) != 0)
			continue;
		mounted = true; /* the last one is on top of the others */
		ours = is_ours(entry);
		free(image);
		image = strdup(entry->mnt_fsname);
	}
	endmntent(table);
	if (ours && image != NULL)
		return image;
	free(image);
	if (ours)
		cow_say_error(cli, name, -ENOMEM);
	else if (mounted)
		cow_say(cli, "%s: is not a cowlinks mount; use `umount`", name);
	else
		cow_say(cli, "%s: is not mounted", name);
	return NULL;
}

/* A volume can be seen in more than one place, by bind mounts: then its daemon goes on. */
static bool is_mounted(const char *image)
{
	FILE *table = setmntent("/proc/self/mounts", "re");
	struct mntent *entry;
	bool found = false;

	while (table != NULL && !found && (entry = getmntent(table)) != NULL)
		found = is_ours(entry) && strcmp(entry->mnt_fsname, image) == 0;
	if (table != NULL)
		endmntent(table);
	return found;
}

/* ---- who serves it */

/* SIGKILL has hit it and it still is not gone. */
static bool is_dying(int pid)
{
	const unsigned long long kill_bit = 1ULL << (SIGKILL - 1);
	bool dying = false;
	unsigned long long pending;
	char path[40], line[256];
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	status = fopen(path, "re");
	if (status == NULL)
		return false;
	while (fgets(line, sizeof(line), status) != NULL) {
		if (strncmp(line, "State:\tZ", 8) == 0) /* its first thread is gone, others are not */
			dying = true;
		else if (sscanf(line, "SigPnd: %llx", &pending) == 1 || sscanf(line, "ShdPnd: %llx", &pending) == 1)
			dying = dying || (pending & kill_bit) != 0;
	}
	fclose(status);
	return dying;
}

/* The process id of a killed daemon that still holds its lock on the image, or 0. */
static int find_dying(const char *image)
{
	unsigned long long inode;
	int pid, found = 0;
	struct stat st;
	char line[256];
	FILE *locks;

	if (stat(image, &st) != 0)
		return 0;
	locks = fopen("/proc/locks", "re");
	while (locks != NULL && found == 0 && fgets(line, sizeof(line), locks) != NULL)
		if (sscanf(line, "%*d: FLOCK %*s %*s %d %*x:%*x:%llu", &pid, &inode) == 2 && inode == st.st_ino &&
		    is_dying(pid))
			found = pid;
	if (locks != NULL)
		fclose(locks);
	return found;
}

/* The same, when it has had its time. */
static int find_stuck(const char *image)
{
	const struct timespec nap = {.tv_nsec = 10000000};
	int pid = find_dying(image);

	for (int waited = 0; pid != 0 && waited < DIE_MILLISECONDS; waited += 10) {
		nanosleep(&nap, NULL);
		pid = find_dying(image);
	}
	return pid;
}

/*
 * For a daemon that is not dying: whether there is none at all. Asks past what the kernel has cached. A question that
 * was on its way when the connection ended is aborted.
 */
static bool is_dead(const char *dir)
{
	struct statx here;

	return statx(AT_FDCWD, dir, AT_SYMLINK_NOFOLLOW | AT_STATX_FORCE_SYNC, STATX_MODE, &here) != 0 &&
	       (errno == ENOTCONN || errno == ECONNABORTED);
}

/* ---- unmounting */

static int detach_in_use(const struct cow_cli *cli, char *dir)
{
	if (!is_dead(dir))
		return cow_say(cli,
			       "%s: is in use: a file in it is open or it is somebody's working directory "
			       "(`fuser -vm %s` says whose)",
			       dir, dir);
	cow_say(cli, "%s: is in use, and its daemon is dead: detached; who uses it gets errors", dir);
	return umount2(dir, UMOUNT_NOFOLLOW | MNT_DETACH) == 0 ? 0 : cow_say_error(cli, dir, -errno);
}

/* By fusermount3 for who must not do it himself. */
static int detach(const struct cow_cli *cli, char *dir, bool lazy)
{
	char *argv[] = {"fusermount3", "-u", lazy ? "-z" : "-q", "--", dir, NULL};
	int status;

	if (umount2(dir, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	if (errno == EBUSY)
		return detach_in_use(cli, dir);
	if (errno != EPERM)
		return cow_say_error(cli, dir, -errno);
	status = cow_run_program(argv);
	if (status < 0)
		return cow_say_error(cli, "fusermount3", status);
	return status != 0 ? cow_say(cli, "%s: could not be unmounted; is it in use, and yours?", dir) : 0;
}

/* MNT_FORCE ends all that waits for an answer, the daemon's own thread too, which then lets go of the image. */
static int detach_stuck(const struct cow_cli *cli, char *dir, int pid)
{
	cow_say(cli, "%s: its daemon (process %d) was killed and is stuck: cutting it off", dir, pid);
	if (umount2(dir, UMOUNT_NOFOLLOW | MNT_FORCE) == 0)
		return 0;
	return detach(cli, dir, true); /* in use, or not for us to force */
}

static int wait_closed(const struct cow_cli *cli, const char *image)
{
	struct timespec nap = {.tv_nsec = 1000000}, begin, now;
	int fd = open(image, O_RDONLY | O_CLOEXEC), status = 0;

	if (fd < 0)
		return 0; /* gone or not ours to see: nothing to wait for */
	clock_gettime(CLOCK_MONOTONIC, &begin);
	while (flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - begin.tv_sec > WAIT_SECONDS) {
			status = cow_say(cli,
					 "%s: unmounted, but after %d s still being written; wait before you copy it",
					 image, WAIT_SECONDS);
			break;
		}
		nanosleep(&nap, NULL);
		if (nap.tv_nsec < 50000000)
			nap.tv_nsec += nap.tv_nsec / 4;
	}
	close(fd);
	return status;
}

static int unmount_image(const struct cow_cli *cli, char *dir, const char *image, bool lazy)
{
	int pid = find_stuck(image);
	int status = pid != 0 ? detach_stuck(cli, dir, pid) : detach(cli, dir, lazy);

	if (status == 0 && !lazy && !is_mounted(image))
		status = wait_closed(cli, image);
	return status;
}

static int unmount(const struct cow_cli *cli, const char *name, bool lazy)
{
	char *dir = realpath(name, NULL), *image;
	int status = COW_EXIT_TROUBLE;

	if (dir == NULL)
		return cow_say_error(cli, name, -errno);
	image = find_image(cli, name, dir);
	if (image != NULL)
		status = unmount_image(cli, dir, image, lazy);
	free(image);
	free(dir);
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
