// SPDX-License-Identifier: GPL-2.0-or-later
/* cow sync DIR [--drain]: durable now; with --drain removed space is free, too. Works on an image, for its reclaim. */
#include "cli/place.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cow_ioctl.h"

static int sync_image(const struct cow_cli *cli, const char *image, bool drain)
{
	struct cow_open_options options = {.no_threads = true};
	struct cow_volume *volume;
	int error = cow_open(image, &options, &volume), closed;

	if (error != 0)
		return cow_say_error(cli, image, error);
	error = drain ? cow_drain(volume) : cow_sync(volume);
	closed = cow_close(volume);
	if (error == 0)
		error = closed;
	return error != 0 ? cow_say_error(cli, image, error) : COW_EXIT_OK;
}

static int sync_mounted(const struct cow_cli *cli, const char *path, bool drain)
{
	struct cow_ioc_sync args = {.drain = drain};
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), status;

	if (fd < 0)
		return cow_say_error(cli, path, -errno);
	if (syncfs(fd) != 0) /* what was stored through mappings is still in the kernel */
		status = cow_say_error(cli, path, -errno);
	else
		status = cow_place_ioctl(cli, path, fd, COW_IOC_SYNC, &args, "use `sync`");
	close(fd);
	return status;
}

int cow_verb_sync(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"drain", no_argument, NULL, 'd'},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	bool drain = false;
	struct cow_ioc_info info;
	struct stat st;
	int option, fd;

	while ((option = getopt_long(argc, argv, "d", options, NULL)) != -1) {
		switch (option) {
		case 'd': drain = true; break;
		case COW_OPTION_HELP: return cow_say_help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (argc - optind != 1)
		return cow_say_usage(cli, "give one directory of the mount");
	if (stat(argv[optind], &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))) {
		fd = open(argv[optind], O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0 && cow_place_try_ioctl(fd, COW_IOC_INFO, &info) == -ENOTTY) {
			close(fd);
			return sync_image(cli, argv[optind], drain);
		}
		if (fd >= 0)
			close(fd);
	}
	return sync_mounted(cli, argv[optind], drain);
}
