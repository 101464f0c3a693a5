// SPDX-License-Identifier: GPL-2.0-or-later
/* cow du PATH...: how much a tree holds, and how much of that would come back if it were removed. */
#include "cli/place.h"

#include <errno.h>
#include <getopt.h>
#include <unistd.h>

#include "cli/walked.h"
#include "cow_ioctl.h"

struct job {
	struct cow_session session;
	const struct cow_cli *cli;
	struct cow_json json;
	bool as_json, human, only_total;
	bool unknown; /* what is exclusive: the user may not know */
};

static int ask(struct job *job, struct cow_place *place, struct cow_usage *usage)
{
	struct cow_ioc_usage args = {.with_exclusive = !job->only_total};
	int error;

	job->unknown = false;
	if (cow_place_open(&job->session, place) != 0)
		return COW_EXIT_TROUBLE;
	if (place->image != NULL) {
		error = cow_usage(place->inode, !job->only_total, usage);
		return error != 0 ? cow_say_error(job->cli, place->text, error) : 0;
	}
	error = cow_place_try_ioctl(place->fd, COW_IOC_USAGE, &args);
	if (error == -EPERM || error == -EACCES) {
		job->unknown = true;
		return cow_walked_usage(job->cli, place, usage);
	}
	if (error != 0)
		return cow_place_say(job->cli, place->text, error, "use `du`");
	*usage = (struct cow_usage){args.files, args.directories, args.apparent_bytes, args.total_bytes,
				    args.exclusive_bytes};
	return 0;
}

/* The dry run counts metadata as well, so exclusive can be above the data's total. */
static uint64_t shared_bytes(const struct cow_usage *usage)
{
	return usage->total_bytes > usage->exclusive_bytes ? usage->total_bytes - usage->exclusive_bytes : 0;
}

static void print_json(struct job *job, const char *path, const struct cow_usage *usage)
{
	cow_json_open(&job->json, NULL, '{');
	cow_json_text(&job->json, "path", path);
	cow_json_number(&job->json, "files", usage->files);
	cow_json_number(&job->json, "directories", usage->directories);
	cow_json_number(&job->json, "apparent_bytes", usage->apparent_bytes);
	cow_json_number(&job->json, "total_bytes", usage->total_bytes);
	if (!job->only_total && !job->unknown) {
		cow_json_number(&job->json, "exclusive_bytes", usage->exclusive_bytes);
		cow_json_number(&job->json, "shared_bytes", shared_bytes(usage));
	}
	cow_json_close(&job->json, '}');
}

static void column(const struct job *job, uint64_t bytes)
{
	char text[COW_SIZE_TEXT];

	if (job->human)
		printf("%11s  ", cow_size_text(bytes, text));
	else
		printf("%15llu  ", (unsigned long long)bytes);
}

static void print_text(const struct job *job, const char *path, const struct cow_usage *usage)
{
	column(job, usage->total_bytes);
	if (!job->only_total && job->unknown) {
		printf("%*s  %*s  ", job->human ? 11 : 15, "-", job->human ? 11 : 15, "-");
	} else if (!job->only_total) {
		column(job, usage->exclusive_bytes);
		column(job, shared_bytes(usage));
	}
	cow_say_path(stdout, path);
	putchar('\n');
}

static int run(struct job *job, int count, char **paths)
{
	int status = COW_EXIT_OK;

	if (!job->as_json && isatty(STDOUT_FILENO)) {
		int width = job->human ? 11 : 15;

		if (job->only_total)
			printf("%*s  PATH\n", width, "TOTAL");
		else
			printf("%*s  %*s  %*s  PATH\n", width, "TOTAL", width, "EXCLUSIVE", width, "SHARED");
	}
	for (int i = 0; i < count; i++) {
		struct cow_place place;
		struct cow_usage usage;

		cow_place_parse(paths[i], &place);
		if (ask(job, &place, &usage) != 0)
			status = COW_EXIT_TROUBLE;
		else if (job->as_json)
			print_json(job, paths[i], &usage);
		else
			print_text(job, paths[i], &usage);
		cow_place_close(&place);
	}
	return status;
}

int cow_verb_du(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"human-readable", no_argument, NULL, 'h'},
		{"summary", no_argument, NULL, 's'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	struct job job = {.cli = cli};
	int option, status;

	while ((option = getopt_long(argc, argv, "hsj", options, NULL)) != -1) {
		switch (option) {
		case 'h': job.human = true; break;
		case 's': job.only_total = true; break;
		case 'j': job.as_json = true; break;
		case COW_OPTION_HELP: return cow_say_help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (optind == argc)
		return cow_say_usage(cli, "give a path");
	cow_session_begin(&job.session, cli);
	if (job.as_json) {
		cow_json_begin(&job.json, stdout);
		cow_json_open(&job.json, NULL, '[');
	}
	status = run(&job, argc - optind, argv + optind);
	if (job.as_json) {
		cow_json_close(&job.json, ']');
		cow_json_end(&job.json);
	}
	return cow_session_end(&job.session) != 0 ? COW_EXIT_TROUBLE : status;
}
