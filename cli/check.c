// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cow check IMAGE: recomputes everything and tells what does not fit. With --repair it is mended; what was overwritten
 * is kept in a file, and --revert brings it back.
 */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define EXIT_LOST 3 /* mended, but something is gone */

struct job {
	const struct cow_cli *cli;
	const char *image;
	bool data, repair, dry_run;
	const char *undo, *revert;

	struct cow_json json;
	bool as_json, tty, shown;
	const char *array; /* JSON: the one that is open */
	time_t begin;
	time_t last;
};

static void clear(struct job *job)
{
	if (job->shown)
		fputs("\r\033[K", stderr);
	job->shown = false;
}

/* Findings come first, then losses: each in an array of its own. NULL: closes the last one. */
static void open_array(struct job *job, const char *name)
{
	if (job->array == name)
		return;
	if (job->array != NULL)
		cow_json_close(&job->json, ']');
	if (name != NULL)
		cow_json_open(&job->json, name, '[');
	job->array = name;
}

static const char findings_array[] = "findings", losses_array[] = "losses";

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

static void lost(void *context, const struct cow_loss *loss)
{
	struct job *job = context;

	clear(job);
	if (job->as_json) {
		open_array(job, losses_array);
		cow_json_open(&job->json, NULL, '{');
		cow_json_text(&job->json, "path", loss->path);
		cow_json_number(&job->json, "block", loss->block);
		cow_json_number(&job->json, "offset", loss->offset);
		cow_json_number(&job->json, "length", loss->length);
		cow_json_text(&job->json, "text", loss->text);
		cow_json_close(&job->json, '}');
		return;
	}
	cow_say_path(stdout, loss->path);
	if (loss->block != 0)
		printf(": block %" PRIu64, loss->block);
	printf(": %s\n", loss->text);
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

static void begin(struct job *job)
{
	if (!job->as_json)
		return;
	cow_json_begin(&job->json, stdout);
	cow_json_open(&job->json, NULL, '{');
	cow_json_text(&job->json, "image", job->image);
	open_array(job, findings_array);
}

static void end(struct job *job)
{
	if (!job->as_json)
		return;
	cow_json_close(&job->json, '}');
	cow_json_end(&job->json);
}

/* ------------------------------------------------------------------ check */

static void report(struct job *job, const struct cow_check_result *result, bool ran)
{
	if (job->as_json) {
		open_array(job, NULL);
		cow_json_bool(&job->json, "complete", ran);
		cow_json_number(&job->json, "findings_count", result->findings);
		cow_json_number(&job->json, "nodes", result->nodes);
		cow_json_number(&job->json, "data_blocks", result->data_blocks);
		cow_json_number(&job->json, "files", result->files);
		cow_json_number(&job->json, "directories", result->directories);
		cow_json_number(&job->json, "worlds", result->worlds);
		cow_json_number(&job->json, "links", result->links);
		cow_json_number(&job->json, "peak_bytes", result->peak_bytes);
	} else if (ran) {
		printf("%s: %" PRIu64 " files, %" PRIu64 " directories, %" PRIu64 " clones, %" PRIu64 " linked files, "
		       "%" PRIu64 " nodes, %" PRIu64 " data blocks\n",
		       result->findings == 0 ? "clean" : "damaged", result->files, result->directories, result->worlds,
		       result->links, result->nodes, result->data_blocks);
		if (result->findings != 0)
			printf("%" PRIu64 " findings; doc/FORMAT.md lists their numbers\n", result->findings);
	}
}

static int check(struct job *job)
{
	struct cow_check_options options = {
		.finding = finding,
		.progress = progress,
		.context = job,
		.data = job->data,
	};
	struct cow_check_result result = {0};
	int error;

	begin(job);
	error = cow_check(job->image, &options, &result);
	clear(job);
	report(job, &result, error == 0);
	end(job);
	if (error != 0)
		return cow_say_hint(job->cli, job->image, error,
				    error == COW_ERR_DAMAGED ? "`cow dump` shows what can still be read" : NULL);
	return result.findings == 0 ? COW_EXIT_OK : COW_EXIT_TROUBLE;
}

/* ------------------------------------------------------------------ repair */

/* Where to keep what is overwritten: IMAGE.undo, but not among devices. NULL: it was said that it has to be named. */
static char *undo_path(const struct job *job)
{
	struct stat st;
	char *path = NULL;

	if (job->undo != NULL)
		return strdup(job->undo);
	if (stat(job->image, &st) == 0 && S_ISBLK(st.st_mode))
		cow_say(job->cli, "%s is a device: name a file for what is overwritten with --undo", job->image);
	else if (asprintf(&path, "%s.undo", job->image) < 0)
		return NULL;
	return path;
}

static void report_repair(struct job *job, const struct cow_repair_result *result, const char *undo)
{
	const char *would = job->dry_run ? "would be " : "";

	if (job->as_json) {
		open_array(job, NULL);
		cow_json_bool(&job->json, "written", result->written);
		cow_json_number(&job->json, "findings_count", result->findings);
		cow_json_number(&job->json, "left", result->left);
		cow_json_number(&job->json, "losses_count", result->losses);
		cow_json_number(&job->json, "recovered", result->recovered);
		cow_json_number(&job->json, "blocks", result->blocks);
		cow_json_text(&job->json, "undo", result->written ? undo : NULL);
	} else if (result->findings == 0) {
		printf("clean: nothing to repair\n");
	} else if (result->written || (job->dry_run && result->left < result->findings)) {
		printf("%srepaired: %" PRIu64 " findings, %" PRIu64 " left; %" PRIu64 " losses, %" PRIu64
		       " found again in /lost+found\n",
		       would, result->findings, result->left, result->losses, result->recovered);
		if (result->written)
			printf("%" PRIu64 " blocks were overwritten; `cow check --revert %s %s` brings them back\n",
			       result->blocks, undo, job->image);
	} else {
		printf("not repaired: %" PRIu64 " findings that nothing can be done about\n", result->left);
	}
}

static const char *repair_hint(int error, const char *undo)
{
	static char text[300];

	if (error == -EEXIST) {
		snprintf(text, sizeof(text), "%s is of an earlier repair: move it away, or name another with --undo",
			 undo);
		return text;
	}
	if (error == COW_ERR_DAMAGED)
		return "nothing was written: what is left would not be sound; `cow dump` shows what can still be read";
	return error == -ENOSPC ? "nothing was written: the repair needs free blocks" : NULL;
}

static int repair(struct job *job)
{
	struct cow_repair_options options = {
		.finding = finding,
		.lost = lost,
		.progress = progress,
		.context = job,
		.dry_run = job->dry_run,
	};
	struct cow_repair_result result = {0};
	char *undo = undo_path(job);
	int error;

	if (undo == NULL)
		return COW_EXIT_TROUBLE;
	options.undo_path = undo;
	begin(job);
	error = cow_repair(job->image, &options, &result);
	clear(job);
	if (error == 0)
		report_repair(job, &result, undo);
	else if (job->as_json)
		open_array(job, NULL);
	end(job);
	if (error != 0) {
		cow_say_hint(job->cli, job->image, error, repair_hint(error, undo));
		free(undo);
		return COW_EXIT_TROUBLE;
	}
	free(undo);
	if (result.left != 0 || (job->dry_run && result.findings != 0))
		return COW_EXIT_TROUBLE;
	return result.losses != 0 ? EXIT_LOST : COW_EXIT_OK;
}

static int revert(const struct job *job)
{
	int error = cow_repair_undo(job->image, job->revert);

	if (error == -ESTALE)
		return cow_say(job->cli, "%s: %s is of another volume, or this one has been changed since", job->image,
			       job->revert);
	if (error == -EINVAL)
		return cow_say(job->cli, "%s: not a file that `cow check --repair` has made", job->revert);
	return error != 0 ? cow_say_error(job->cli, job->image, error) : COW_EXIT_OK;
}

/* ------------------------------------------------------------------ arguments */

enum { OPTION_UNDO = COW_OPTION_FIRST, OPTION_REVERT };

static int act(struct job *job)
{
	if (job->revert != NULL && (job->repair || job->data || job->as_json))
		return cow_say_usage(job->cli, "--revert goes with no other option");
	if (!job->repair && (job->undo != NULL || job->dry_run))
		return cow_say_usage(job->cli, "--undo and --dry-run go with --repair");
	if (job->repair && job->data)
		return cow_say_usage(job->cli, "--repair does not look at data: run `cow check --data` after it");
	if (job->revert != NULL)
		return revert(job);
	return job->repair ? repair(job) : check(job);
}

int cow_verb_check(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"data", no_argument, NULL, 'd'},
		{"json", no_argument, NULL, 'j'},
		{"repair", no_argument, NULL, 'r'},
		{"dry-run", no_argument, NULL, 'n'},
		{"undo", required_argument, NULL, OPTION_UNDO},
		{"revert", required_argument, NULL, OPTION_REVERT},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	struct job job = {.cli = cli, .tty = isatty(STDERR_FILENO), .begin = time(NULL)};
	int option;

	while ((option = getopt_long(argc, argv, "djn", options, NULL)) != -1) {
		switch (option) {
		case 'd': job.data = true; break;
		case 'j': job.as_json = true; break;
		case 'r': job.repair = true; break;
		case 'n': job.dry_run = true; break;
		case OPTION_UNDO: job.undo = optarg; break;
		case OPTION_REVERT: job.revert = optarg; break;
		case COW_OPTION_HELP: return cow_say_help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (argc - optind != 1)
		return cow_say_usage(cli, "give one image");
	job.image = argv[optind];
	return act(&job);
}
