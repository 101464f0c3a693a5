// SPDX-License-Identifier: GPL-2.0-or-later
/* cow export SRC DST: from an image or a mount to a directory or file of the host, or into a tar archive. */
#include "cli/target.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <unistd.h>

struct job {
	struct cow_session session;
	const struct cow_cli *cli;
	struct cow_place source;
	struct cow_progress progress;
	bool tar, quiet;
};

static int feed(struct job *job, struct cow_sink *sink)
{
	int status, closed;

	sink->progress = &job->progress;
	if (job->source.image != NULL)
		status = cow_source_image(job->source.inode, job->source.text, sink);
	else
		status = cow_source_host(job->source.fd, job->source.text, false, sink);
	closed = sink->ops->close(sink);
	return status != 0 ? status : closed;
}

/* On `fd`, which it closes. */
static int write_tar(struct job *job, int fd)
{
	struct cow_sink *sink = cow_sink_tar(job->cli, fd);

	if (sink != NULL)
		return feed(job, sink);
	close(fd);
	return COW_EXIT_TROUBLE;
}

static int refuse_image(const struct job *job, const char *to)
{
	return cow_say(job->cli, "%s: is in an image; an export goes to the host, `cow import` into an image", to);
}

static int export_tar_file(struct job *job, const char *to)
{
	struct cow_target target;
	struct cow_place place;
	int fd, status;

	cow_place_parse(to, &place);
	status = place.image != NULL ? refuse_image(job, to) : cow_target_file(&job->session, &place, &target, &fd);
	if (status == 0) {
		status = write_tar(job, fd);
		status = cow_target_close(&target, status);
	}
	cow_place_close(&place);
	return status;
}

static int export_tar(struct job *job, const char *to)
{
	int fd;

	if (strcmp(to, "-") != 0)
		return export_tar_file(job, to);
	fd = dup(STDOUT_FILENO);
	if (fd < 0)
		return cow_say_error(job->cli, to, -errno);
	if (isatty(fd)) {
		close(fd);
		return cow_say(job->cli, "-: a tar archive is no good on a terminal; redirect standard output");
	}
	return write_tar(job, fd);
}

static int export_tree(struct job *job, const char *to)
{
	struct cow_target target;
	struct cow_place place;
	int status;

	cow_place_parse(to, &place);
	if (place.image != NULL)
		status = refuse_image(job, to);
	else
		status = cow_place_target(&job->session, &place, &job->source);
	if (status == 0)
		status = cow_target_open(&job->session, &place, &target);
	if (status == 0) {
		status = feed(job, cow_target_sink(&target));
		status = cow_target_close(&target, status);
	}
	cow_place_close(&place);
	return status;
}

int cow_verb_export(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"tar", no_argument, NULL, 't'},
		{"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	struct job job = {.cli = cli};
	int option, status;

	while ((option = getopt_long(argc, argv, "tq", options, NULL)) != -1) {
		switch (option) {
		case 't': job.tar = true; break;
		case 'q': job.quiet = true; break;
		case COW_OPTION_HELP: return cow_say_help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (argc - optind != 2)
		return cow_say_usage(cli, "give a source and a target");
	if (cow_target_is_tar(argv[optind + 1], false))
		job.tar = true;
	else if (cow_target_is_tar(argv[optind + 1], true))
		return cow_say(cli, "%s: cannot compress; pipe it: cow export %s - | gzip >%s", argv[optind + 1],
			       argv[optind], argv[optind + 1]);
	cow_session_begin(&job.session, cli);
	cow_place_parse(argv[optind], &job.source);
	cow_progress_begin(&job.progress, cli, argv[optind], job.quiet); /* before the library starts threads */
	status = cow_place_open(&job.session, &job.source);
	if (status == 0)
		status = job.tar ? export_tar(&job, argv[optind + 1]) : export_tree(&job, argv[optind + 1]);
	cow_progress_end(&job.progress);
	cow_place_close(&job.source);
	return cow_session_end(&job.session) != 0 ? COW_EXIT_TROUBLE : status;
}
