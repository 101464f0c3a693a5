// SPDX-License-Identifier: GPL-2.0-or-later
/* cow diff OLD NEW: what changed, one line a change, or as JSON, or as a patch. */
#include "cli/changes.h"

#include <getopt.h>

enum form { LINES, JSON, PATCH, QUIET };

struct job {
	struct cow_session session;
	struct cow_place old_place, new_place;
	struct cow_json json;
	enum form form;
	bool top;
	bool different;
};

/* "" is the two compared things themselves. */
static const char *shown(const char *path)
{
	return path[0] != '\0' ? path : ".";
}

static void print_json(struct cow_json *json, const struct cow_change *change)
{
	char type[2] = {change->type, '\0'};

	cow_json_open(json, NULL, '{');
	cow_json_text(json, "type", type);
	cow_json_text(json, "path", shown(change->path));
	if (change->old_path != NULL) {
		cow_json_text(json, "old_path", shown(change->old_path));
		cow_json_bool(json, "content", change->content);
	}
	if (change->old_mode != 0)
		cow_json_mode(json, "old_mode", change->old_mode);
	if (change->new_mode != 0)
		cow_json_mode(json, "new_mode", change->new_mode);
	cow_json_close(json, '}');
}

static int print(void *context, const struct cow_change *change)
{
	struct job *job = context;

	job->different = true;
	if (job->form == JSON) {
		print_json(&job->json, change);
		return 0;
	}
	if (job->form == QUIET)
		return 0;
	printf("%c ", change->type);
	if (change->old_path != NULL) {
		cow_say_path(stdout, shown(change->old_path));
		fputs(" -> ", stdout);
	}
	cow_say_path(stdout, shown(change->path));
	putchar('\n');
	return 0;
}

static int run(struct job *job)
{
	struct cow_session *session = &job->session;
	int error;

	if ((job->old_place.image == NULL) != (job->new_place.image == NULL)) {
		cow_say(session->cli, "%s and %s: one is in an image, the other is not; mount the image",
			job->old_place.text, job->new_place.text);
		return COW_EXIT_DIFF_TROUBLE;
	}
	if (cow_place_open(session, &job->old_place) != 0 || cow_place_open(session, &job->new_place) != 0)
		return COW_EXIT_DIFF_TROUBLE;
	if (job->form == PATCH)
		return cow_patch(session, &job->old_place, &job->new_place);
	if (job->form == JSON) {
		cow_json_begin(&job->json, stdout);
		cow_json_open(&job->json, NULL, '[');
	}
	error = cow_changes(session, &job->old_place, &job->new_place, !job->top, print, job);
	if (job->form == JSON) {
		cow_json_close(&job->json, ']');
		cow_json_end(&job->json);
	}
	return error != 0 ? COW_EXIT_DIFF_TROUBLE : job->different ? COW_EXIT_DIFFERENT : COW_EXIT_OK;
}

int cow_verb_diff(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"patch", no_argument, NULL, 'p'},
		{"json", no_argument, NULL, 'j'},
		{"top", no_argument, NULL, 't'},
		{"quiet", no_argument, NULL, 'q'},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	struct job job = {0};
	int option, status;

	while ((option = getopt_long(argc, argv, "pjtq", options, NULL)) != -1) {
		switch (option) {
		case 'p':
		case 'j':
			if (job.form != LINES)
				return cow_say_usage(cli, "choose one of --patch, --json and -q");
			job.form = option == 'p' ? PATCH : JSON;
			break;
		case 't': job.top = true; break;
		case 'q':
			if (job.form != LINES && job.form != QUIET)
				return cow_say_usage(cli, "choose one of --patch, --json and -q");
			job.form = QUIET;
			break;
		case COW_OPTION_HELP: return cow_say_help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (argc - optind != 2)
		return cow_say_usage(cli, "give two paths");
	cow_session_begin(&job.session, cli);
	cow_place_parse(argv[optind], &job.old_place);
	cow_place_parse(argv[optind + 1], &job.new_place);
	status = run(&job);
	cow_place_close(&job.old_place);
	cow_place_close(&job.new_place);
	return cow_session_end(&job.session) != 0 ? COW_EXIT_DIFF_TROUBLE : status;
}
