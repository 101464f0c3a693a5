// SPDX-License-Identifier: GPL-2.0-or-later
/* cow import SRC DST: a directory, a file or a tar archive of the host, into an image or onto a mount. */
#include "cli/target.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct job {
	struct cow_session session;
	const struct cow_cli *cli;
	const char *source;
	struct cow_progress progress;
	bool tar, quiet, one;
};

static int open_source(struct job *job, int *fd)
{
	struct stat st;

	if (strcmp(job->source, "-") == 0) {
		*fd = dup(STDIN_FILENO);
		job->tar = true;
		if (isatty(*fd))
			return cow_say(job->cli, "-: a tar archive is expected on standard input, not a terminal");
		return 0;
	}
	*fd = open(job->source, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (*fd < 0 || fstat(*fd, &st) != 0)
		return cow_say_error(job->cli, job->source, -errno);
	if (!S_ISDIR(st.st_mode) && cow_target_is_tar(job->source, true))
		job->tar = true;
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode) && !job->tar)
		return cow_say(job->cli, "%s: is neither a file nor a directory; for a tar archive say --tar",
			       job->source);
	if (S_ISDIR(st.st_mode) && job->tar)
		return cow_say(job->cli, "%s: is a directory, no tar archive", job->source);
	(void)fcntl(*fd, F_SETFL, 0); /* waiting for a fifo's data is right */
	return 0;
}

static int fill(struct job *job, int fd, struct cow_target *target)
{
	struct cow_sink *sink = cow_target_sink(target);
	int status, closed;

	sink->progress = &job->progress;
	if (job->tar)
		status = cow_source_tar(fd, job->source, sink);
	else
		status = cow_source_host(fd, job->source, job->one, sink);
	closed = sink->ops->close(sink);
	return status != 0 ? status : closed;
}

static int import(struct job *job, const char *to, int fd)
{
	struct cow_place place, from = {.text = job->source, .path = (char *)job->source};
	struct cow_target target;
	char name[PATH_MAX];
	int status;

	cow_place_parse(to, &place);
	if (strlen(job->source) < sizeof(name)) {
		size_t length = strlen(strcpy(name, job->source));

		while (length > 1 && name[length - 1] == '/')
			name[--length] = '\0';
		from.path = name;
	}
	/* an archive is unpacked in a directory, as tar -C does; a tree goes into it under its name, as with cp */
	status = job->tar ? 0 : cow_place_target(&job->session, &place, &from);
	if (status == 0)
		status = cow_target_open(&job->session, &place, &target);
	if (status == 0) {
		status = fill(job, fd, &target);
		status = cow_target_close(&target, status);
	}
	cow_place_close(&place);
	return status;
}

/* A descriptor a level is held open: deep trees need more than the usual 1,024. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int cow_verb_import(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"tar", no_argument, NULL, 't'},
		{"quiet", no_argument, NULL, 'q'},
		{"one-file-system", no_argument, NULL, 'x'},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	struct job job = {.cli = cli};
	int option, status, fd = -1;

	while ((option = getopt_long(argc, argv, "tqx", options, NULL)) != -1) {
		switch (option) {
		case 't': job.tar = true; break;
		case 'q': job.quiet = true; break;
		case 'x': job.one = true; break;
		case COW_OPTION_HELP: return cow_say_help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (argc - optind != 2)
		return cow_say_usage(cli, "give a source and a target");
	raise_limit();
	job.source = argv[optind];
	cow_session_begin(&job.session, cli);
	job.session.long_work = true;
	status = open_source(&job, &fd);
	if (status == 0) {
		/* first of all: a thread that the library starts must not be the one that takes the signal */
		cow_progress_begin(&job.progress, cli, job.source, job.quiet);
		status = import(&job, argv[optind + 1], fd);
		cow_progress_end(&job.progress);
	}
	if (fd >= 0)
		close(fd);
	return cow_session_end(&job.session) != 0 ? COW_EXIT_TROUBLE : status;
}
