// SPDX-License-Identifier: GPL-2.0-or-later
/* cow check IMAGE: recomputes everything and tells what does not fit. */
#include "cli/cli.h"

#include <getopt.h>
#include <inttypes.h>
#include <time.h>
#include <unistd.h>

struct job {
	struct cow_json json;
	bool as_json, tty, shown;
	time_t begin;
	time_t last;
};

static void clear(struct job *job)
{
	if (job->shown)
		fputs("\r\033[K", stderr);
	job->shown = false;
}

static void finding(void *context, const struct cow_finding *found)
{
	struct job *job = context;

	clear(job);
	if (job->as_json) {
		cow_json_open(&job->json, NULL, '{');
		cow_json_number(&job->json, "number", (uint64_t)found->number);
		cow_json_number(&job->json, "block", found->block);
		cow_json_text(&job->json, "text", found->text);
		cow_json_close(&job->json, '}');
	} else if (found->block != 0) {
		printf("%d: block %" PRIu64 ": %s\n", found->number, found->block, found->text);
	} else {
		printf("%d: %s\n", found->number, found->text);
	}
}

static void progress(void *context, uint64_t done, uint64_t used)
{
	struct job *job = context;
	time_t now = time(NULL);

	if (!job->tty || now - job->begin < 1 || now == job->last)
		return;
	job->last = now;
	job->shown = true;
	fprintf(stderr, "\r\033[K%d %% of %" PRIu64 " blocks, %lld s", used != 0 ? (int)(done * 100 / used) : 0, used,
		(long long)(now - job->begin));
}

static void report(struct job *job, const struct cow_check_result *result, bool ran)
{
	if (job->as_json) {
		cow_json_close(&job->json, ']');
		cow_json_bool(&job->json, "complete", ran);
		cow_json_number(&job->json, "findings_count", result->findings);
		cow_json_number(&job->json, "nodes", result->nodes);
		cow_json_number(&job->json, "data_blocks", result->data_blocks);
		cow_json_number(&job->json, "files", result->files);
		cow_json_number(&job->json, "directories", result->directories);
		cow_json_number(&job->json, "worlds", result->worlds);
		cow_json_number(&job->json, "links", result->links);
		cow_json_number(&job->json, "peak_bytes", result->peak_bytes);
		cow_json_close(&job->json, '}');
		cow_json_end(&job->json);
	} else if (ran) {
		printf("%s: %" PRIu64 " files, %" PRIu64 " directories, %" PRIu64 " clones, %" PRIu64 " linked files, "
		       "%" PRIu64 " nodes, %" PRIu64 " data blocks\n",
		       result->findings == 0 ? "clean" : "damaged", result->files, result->directories, result->worlds,
		       result->links, result->nodes, result->data_blocks);
		if (result->findings != 0)
			printf("%" PRIu64 " findings; doc/FORMAT.md lists their numbers\n", result->findings);
	}
}

static int run(const struct cow_cli *cli, struct job *job, const char *image, bool data)
{
	struct cow_check_options options = {.finding = finding, .progress = progress, .context = job, .data = data};
	struct cow_check_result result = {0};
	int error;

	if (job->as_json) {
		cow_json_begin(&job->json, stdout);
		cow_json_open(&job->json, NULL, '{');
		cow_json_text(&job->json, "image", image);
		cow_json_open(&job->json, "findings", '[');
	}
	error = cow_check(image, &options, &result);
	clear(job);
	report(job, &result, error == 0);
	if (error != 0)
		return cow_say_hint(cli, image, error,
				    error == COW_ERR_DAMAGED ? "`cow dump` shows what can still be read" : NULL);
	return result.findings == 0 ? COW_EXIT_OK : COW_EXIT_TROUBLE;
}

int cow_verb_check(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"data", no_argument, NULL, 'd'},
		{"json", no_argument, NULL, 'j'},
		{"repair", no_argument, NULL, 'r'},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	struct job job = {.tty = isatty(STDERR_FILENO), .begin = time(NULL)};
	bool data = false, repair = false;
	int option;

	while ((option = getopt_long(argc, argv, "dj", options, NULL)) != -1) {
		switch (option) {
		case 'd': data = true; break;
		case 'j': job.as_json = true; break;
		case 'r': repair = true; break;
		case COW_OPTION_HELP: return cow_say_help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (argc - optind != 1)
		return cow_say_usage(cli, "give one image");
	if (repair)
		return cow_say(cli,
			       "%s: repair is not available in this version; copy what can be read with "
			       "`cow export %s:/ DIR`",
			       argv[optind], argv[optind]);
	return run(cli, &job, argv[optind], data);
}
