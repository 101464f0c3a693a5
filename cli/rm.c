// SPDX-License-Identifier: GPL-2.0-or-later
/* cow rm PATH...: takes files and whole trees away at once. */
#include "cli/place.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>

struct job {
	struct cow_session session;
	const struct cow_cli *cli;
	bool force, verbose;
};

/* Without permission for the one step: what this user could do with rm. */
static int remove_walked(struct job *job, struct cow_place *place)
{
	char *argv[] = {"rm", "-rf", "--", place->path, NULL};
	int status;

	if (job->verbose)
		cow_say(job->cli, "%s: not all of it is yours; removing file by file", place->text);
	status = cow_run_program(argv);
	if (status < 0)
		return cow_say_error(job->cli, "rm", status);
	return status == 0 ? COW_EXIT_OK : COW_EXIT_TROUBLE;
}

static int remove_mounted(struct job *job, struct cow_place *place, const struct cow_spot *spot)
{
	struct stat parent, st;
	int error;

	if (fstat(spot->fd, &parent) != 0 || fstatat(spot->fd, spot->name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return errno == ENOENT && job->force ? 0 : cow_say_error(job->cli, place->text, -errno);
	if (st.st_dev != parent.st_dev)
		return cow_say(job->cli, "%s: is a mount point; unmount it with `cow umount`", place->text);
	error = cow_spot_remove(spot->fd, spot->name);
	if (error == 0 || (error == -ENOENT && job->force))
		return 0;
	if (error == -EPERM)
		return remove_walked(job, place);
	if (error == -ENOTTY)
		return cow_say(job->cli, "%s: is not on a cowlinks mount; use `rm -r`", place->text);
	return cow_say_error(job->cli, place->text, error);
}

static int remove_one(struct job *job, struct cow_place *place)
{
	struct cow_spot spot;
	int error;

	if (cow_spot_open(&job->session, place, &spot) != 0)
		return COW_EXIT_TROUBLE;
	if (place->image == NULL) {
		error = remove_mounted(job, place, &spot);
	} else {
		error = cow_remove_tree(spot.dir, spot.name);
		if (error == -ENOENT && job->force)
			error = 0;
		if (error != 0)
			error = cow_say_error(job->cli, place->text, error);
	}
	cow_spot_close(&spot);
	return error;
}

int cow_verb_rm(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"force", no_argument, NULL, 'f'},
		{"recursive", no_argument, NULL, 'r'},
		{"verbose", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	struct job job = {.cli = cli};
	int option, status = COW_EXIT_OK;

	while ((option = getopt_long(argc, argv, "frRv", options, NULL)) != -1) {
		switch (option) {
		case 'f': job.force = true; break;
		case 'v': job.verbose = true; break;
		case 'r':
		case 'R': break; /* fingers are used to it */
		case COW_OPTION_HELP: return cow_say_help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (optind == argc)
		return cow_say_usage(cli, "say what to remove");
	cow_session_begin(&job.session, cli);
	for (; optind < argc; optind++) {
		struct cow_place place;

		cow_place_parse(argv[optind], &place);
		if (remove_one(&job, &place) != 0)
			status = COW_EXIT_TROUBLE;
		cow_place_close(&place);
	}
	if (cow_session_end(&job.session) != 0)
		status = COW_EXIT_TROUBLE;
	return status;
}
