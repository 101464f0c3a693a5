// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cow umount DIR...: unmounts, and waits until the daemon has committed and closed the image.
 *
 * The kernel's part of an unmount is over before the daemon's; the daemon's lock on the image says when that is.
 */
#include "cli/place.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cow_ioctl.h"

#define WAIT_SECONDS 120

/* Whether `dir` is the top of a mount; -errno if it cannot be told. */
static int is_mount_point(const char *dir)
{
	struct statx here;

	if (statx(AT_FDCWD, dir, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_TYPE, &here) != 0)
		return errno == ENOTCONN ? 1 : -errno; /* its daemon is dead */
	return (here.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

static int detach(const struct cow_cli *cli, char *dir, bool lazy)
{
	char *argv[] = {"fusermount3", "-u", lazy ? "-z" : "-q", "--", dir, NULL};
	int status;

	if (umount2(dir, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
		return 0;
	if (errno == EBUSY)
		return cow_say(cli,
			       "%s: is in use: a file in it is open or it is somebody's working directory "
			       "(`fuser -vm %s` says whose)",
			       dir, dir);
	if (errno != EPERM)
		return cow_say_error(cli, dir, -errno);
	status = cow_run_program(argv);
	if (status < 0)
		return cow_say_error(cli, "fusermount3", status);
	return status != 0 ? cow_say(cli, "%s: could not be unmounted; is it in use, and yours?", dir) : 0;
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

static int unmount(const struct cow_cli *cli, char *dir, bool lazy)
{
	struct cow_ioc_info info = {0};
	struct cow_place place;
	int fd, status, is_mount;

	cow_place_parse(dir, &place); /* without its trailing slashes */
	is_mount = is_mount_point(place.path);
	if (is_mount <= 0) {
		status = is_mount < 0 ? cow_say_error(cli, dir, is_mount) : cow_say(cli, "%s: is not mounted", dir);
		cow_place_close(&place);
		return status;
	}
	fd = open(place.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0) {
		status = cow_place_try_ioctl(fd, COW_IOC_INFO, &info);
		close(fd);
		if (status == -ENOTTY) {
			cow_place_close(&place);
			return cow_say(cli, "%s: is not a cowlinks mount; use `umount`", dir);
		}
	}
	info.image[sizeof(info.image) - 1] = '\0';
	status = detach(cli, place.path, lazy);
	if (status == 0 && !lazy && info.image[0] != '\0')
		status = wait_closed(cli, info.image);
	cow_place_close(&place);
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
