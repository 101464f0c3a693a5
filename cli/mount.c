// SPDX-License-Identifier: GPL-2.0-or-later
/* cow mount IMAGE DIR: starts the daemon; all of it is in cowfs/. */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <sys/stat.h>

#ifdef COW_NO_FUSE

int cow_verb_mount(struct cow_cli *cli, int argc, char **argv)
{
	(void)argc;
	(void)argv;
	return cow_say(cli,
		       "this program was built without FUSE and cannot mount; build it where libfuse3 is installed");
}

#else

#include "cowfs/cowfs.h"

static int help(const struct cow_cli *cli)
{
	cow_say_help(cli);
	puts("\nOPTIONS:");
	for (const char *const *line = cowfs_options_help(); *line != NULL; line++)
		printf("  %s\n", *line);
	return COW_EXIT_OK;
}

/* A dead mount in the way is taken away first: stat(2) may still be answered from the kernel's cache. */
static int run(const struct cow_cli *cli, struct cowfs_options *mount)
{
	char *dir = cow_umount_resolve(mount->dir);
	struct stat st;
	int status;

	if (dir == NULL)
		return cow_say_hint(cli, mount->dir, -errno, errno == ENOENT ? "make it with `mkdir`" : NULL);
	status = cow_umount_dead(cli, dir);
	if (status == COW_EXIT_OK && stat(dir, &st) != 0)
		status = cow_say_error(cli, mount->dir, -errno);
	else if (status == COW_EXIT_OK && !S_ISDIR(st.st_mode))
		status = cow_say_error(cli, mount->dir, -ENOTDIR);
	mount->dir = dir;
	if (status == COW_EXIT_OK)
		status = cowfs_run(mount);
	free(dir);
	return status;
}

int cow_verb_mount(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"options", required_argument, NULL, 'o'},    {"foreground", no_argument, NULL, 'f'},
		{"read-only", no_argument, NULL, 'r'},        {"debug", no_argument, NULL, 'd'},
		{"help", no_argument, NULL, COW_OPTION_HELP}, {NULL, 0, NULL, 0},
	};
	struct cowfs_options mount = {0};
	char text[256];
	struct stat st;
	int option;

	while ((option = getopt_long(argc, argv, "o:frd", options, NULL)) != -1) {
		switch (option) {
		case 'o':
			if (cowfs_options_parse(&mount, optarg, text, sizeof(text)) != 0)
				return cow_say_usage(cli, "%s", text);
			break;
		case 'f': mount.foreground = true; break;
		case 'r': mount.read_only = true; break;
		case 'd': mount.debug = mount.foreground = true; break;
		case COW_OPTION_HELP: return help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (argc - optind != 2)
		return cow_say_usage(cli, "give an image and a directory");
	mount.image = argv[optind];
	mount.dir = argv[optind + 1];
	if (stat(mount.image, &st) != 0)
		return cow_say_hint(cli, mount.image, -errno, errno == ENOENT ? "make one with `cow format`" : NULL);
	return run(cli, &mount);
}

#endif
