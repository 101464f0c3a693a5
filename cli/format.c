// SPDX-License-Identifier: GPL-2.0-or-later
/* cow format IMAGE: makes an empty volume. */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int report(const struct cow_cli *cli, const char *image)
{
	struct cow_open_options options = {.read_only = true, .no_threads = true};
	struct cow_volume *volume;
	struct cow_info info;
	char size[COW_SIZE_TEXT];
	int error = cow_open(image, &options, &volume);

	if (error != 0)
		return cow_say_error(cli, image, error);
	error = cow_info(volume, &info);
	cow_close(volume);
	if (error != 0)
		return cow_say_error(cli, image, error);
	cow_say_path(stdout, image);
	printf(": an empty volume of %s; mount it with `cow mount`\n",
	       cow_size_text(info.total_blocks * COW_BLOCK_BYTES, size));
	return COW_EXIT_OK;
}

int cow_verb_format(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"size", required_argument, NULL, 's'},
		{"force", no_argument, NULL, 'f'},
		{"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	struct cow_format_options format = {.root_uid = getuid(), .root_gid = getgid()};
	bool quiet = false, fresh;
	struct stat st;
	int option, error;

	while ((option = getopt_long(argc, argv, "s:fq", options, NULL)) != -1) {
		switch (option) {
		case 's':
			if (cow_size_parse(optarg, &format.size_bytes) != 0 || format.size_bytes == 0)
				return cow_say_usage(cli, "%s: is no size; write it as 100G, 1.5T or 4194304", optarg);
			break;
		case 'f': format.force = true; break;
		case 'q': quiet = true; break;
		case COW_OPTION_HELP: return cow_say_help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (argc - optind != 1)
		return cow_say_usage(cli, "give one image");
	fresh = lstat(argv[optind], &st) != 0 && errno == ENOENT;
	error = cow_format(argv[optind], &format);
	if (error != 0 && fresh)
		unlink(argv[optind]);
	if (error != 0)
		return cow_say_error(cli, argv[optind], error);
	return quiet ? COW_EXIT_OK : report(cli, argv[optind]);
}
