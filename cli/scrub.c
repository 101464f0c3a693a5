// SPDX-License-Identifier: GPL-2.0-or-later
/* cow scrub DIR|IMAGE: verifies all that is in use. On a mount the daemon does it, and tells how far it is. */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "cli/place.h"
#include "cow_ioctl.h"

#define MOUNT_RATE (100u << 20)
#define LOOK_NANOSECONDS 200000000l

struct job {
	const struct cow_cli *cli;
	const char *path;
	struct cow_json json;
	bool as_json, tty, shown;
	uint64_t rate;
	bool has_rate;
	time_t begin, last;
	/* findings of the daemon that are not yet whole */
	uint8_t *bytes;
	size_t length, size;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	interrupted = number;
}

static void clear(struct job *job)
{
	if (job->shown)
		fputs("\r\033[K", stderr);
	job->shown = false;
}

static void finding(void *context, const struct cow_scrub_finding *f)
{
	struct job *job = context;

	clear(job);
	if (job->as_json) {
		cow_json_open(&job->json, NULL, '{');
		cow_json_number(&job->json, "block", f->block);
		cow_json_text(&job->json, "path", f->path);
		if (f->offset >= 0)
			cow_json_number(&job->json, "offset", (uint64_t)f->offset);
		cow_json_text(&job->json, "text", f->text);
		cow_json_close(&job->json, '}');
		return;
	}
	printf("block %" PRIu64 ": ", f->block);
	if (f->path != NULL) {
		cow_say_path(stdout, f->path);
		if (f->offset >= 0)
			printf(", offset %" PRId64, f->offset);
		fputs(": ", stdout);
	}
	puts(f->text);
}

static void show_progress(struct job *job, const struct cow_scrub_result *r)
{
	time_t now = time(NULL);
	char text[COW_SIZE_TEXT];

	if (!job->tty || now - job->begin < 1 || now == job->last)
		return;
	job->last = now;
	job->shown = true;
	fprintf(stderr, "\r\033[K%d %% of %s, %" PRIu64 " damaged, %lld s",
		r->used_blocks > r->blocks ? (int)(r->blocks * 100 / r->used_blocks) : 99,
		cow_size_text(r->used_blocks * COW_BLOCK_BYTES, text), r->findings, (long long)(now - job->begin));
}

static int progress(void *context, const struct cow_scrub_result *so_far)
{
	show_progress(context, so_far);
	return interrupted != 0 ? -EINTR : 0;
}

static int report(struct job *job, const struct cow_scrub_result *r, int error)
{
	char text[COW_SIZE_TEXT];

	clear(job);
	if (job->as_json) {
		cow_json_close(&job->json, ']');
		cow_json_bool(&job->json, "complete", error == 0);
		cow_json_number(&job->json, "findings_count", r->findings);
		cow_json_number(&job->json, "blocks", r->blocks);
		cow_json_number(&job->json, "nodes", r->nodes);
		cow_json_number(&job->json, "data_blocks", r->data_blocks);
		cow_json_number(&job->json, "count_blocks", r->count_blocks);
		cow_json_number(&job->json, "superblocks", r->superblocks);
		cow_json_close(&job->json, '}');
		cow_json_end(&job->json);
	} else if (error == 0) {
		printf("%s: %s read, %" PRIu64 " nodes, %" PRIu64 " blocks of data, %" PRIu64 " of counts\n",
		       r->findings == 0 ? "clean" : "damaged", cow_size_text(r->blocks * COW_BLOCK_BYTES, text),
		       r->nodes, r->data_blocks, r->count_blocks);
	}
	if (r->findings != 0 && !job->as_json)
		printf("%" PRIu64 " damaged blocks; clones of the files above may share them. Copy these files from a "
		       "backup, or remove them; for all else unmount and run `cow check --repair`\n",
		       r->findings);
	if (error == -EINTR)
		cow_say(job->cli, "%s: stopped before the end", job->path);
	else if (error != 0)
		cow_say_error(job->cli, job->path, error);
	return error != 0 ? COW_EXIT_DIFF_TROUBLE : r->findings != 0 ? COW_EXIT_DIFFERENT : COW_EXIT_OK;
}

static void begin(struct job *job)
{
	if (!job->as_json)
		return;
	cow_json_begin(&job->json, stdout);
	cow_json_open(&job->json, NULL, '{');
	cow_json_text(&job->json, "path", job->path);
	cow_json_open(&job->json, "findings", '[');
}

/* ------------------------------------------------------------------ an image */

static void ignore_log(void *context, enum cow_log_level level, const char *text)
{
	(void)context, (void)level, (void)text; /* findings say it with a path */
}

static int scrub_image(struct job *job)
{
	struct cow_open_options open_options = {.read_only = true, .no_threads = true, .log = ignore_log};
	struct cow_scrub_options options = {.bytes_per_second = job->rate, .finding = finding, .progress = progress,
					    .context = job};
	struct cow_scrub_result result = {0};
	struct cow_volume *volume;
	int error = cow_open(job->path, &open_options, &volume), status;

	if (error != 0) {
		cow_say_error(job->cli, job->path, error);
		return COW_EXIT_DIFF_TROUBLE;
	}
	begin(job);
	error = cow_scrub(volume, &options, &result);
	status = report(job, &result, error);
	error = cow_close(volume);
	return error != 0 ? COW_EXIT_DIFF_TROUBLE : status;
}

/* ------------------------------------------------------------------ a mount */

static char *string_of(const uint8_t *bytes, size_t length)
{
	char *text = cow_mem_new(length + 1);

	memcpy(text, bytes, length);
	return text;
}

/* Takes more bytes of findings, and hands on those that are whole. */
static void take(struct job *job, const uint8_t *bytes, size_t length)
{
	size_t at = 0;

	if (job->length + length > job->size)
		job->bytes = cow_mem_resize(job->bytes, job->size = 2 * (job->length + length));
	if (length != 0)
		memcpy(job->bytes + job->length, bytes, length);
	job->length += length;
	while (job->length - at >= COW_SCRUB_HEAD) {
		const uint8_t *p = job->bytes + at;
		size_t path_length = get16(p + 16), text_length = get16(p + 18);

		if (job->length - at < COW_SCRUB_HEAD + path_length + text_length)
			break;
		char *path = string_of(p + COW_SCRUB_HEAD, path_length);
		char *text = string_of(p + COW_SCRUB_HEAD + path_length, text_length);
		finding(job, &(struct cow_scrub_finding){.block = get64(p), .offset = (int64_t)get64(p + 8),
							 .path = path_length != 0 ? path : NULL, .text = text});
		free(path);
		free(text);
		at += COW_SCRUB_HEAD + path_length + text_length;
	}
	if (at != 0)
		memmove(job->bytes, job->bytes + at, job->length - at);
	job->length -= at;
}

static struct cow_scrub_result result_of(const struct cow_ioc_scrub *args)
{
	return (struct cow_scrub_result){
		.findings = args->findings, .blocks = args->blocks, .used_blocks = args->used_blocks,
		.nodes = args->nodes, .data_blocks = args->data_blocks, .count_blocks = args->count_blocks,
		.superblocks = args->superblocks,
	};
}

/* Until it has ended and all its findings are here. */
static int follow(struct job *job, int fd, struct cow_ioc_scrub *args)
{
	long pause = LOOK_NANOSECONDS / 16;
	bool stopping = false;
	int error;

	for (;;) {
		args->action = interrupted != 0 && !stopping ? COW_SCRUB_STOP : COW_SCRUB_LOOK;
		stopping |= args->action == COW_SCRUB_STOP;
		error = cow_place_try_ioctl(fd, COW_IOC_SCRUB, args);
		if (error == -EINTR)
			continue;
		if (error != 0)
			return error;
		struct cow_scrub_result so_far = result_of(args);
		take(job, args->data, args->length <= sizeof(args->data) ? args->length : 0);
		args->offset += args->length;
		show_progress(job, &so_far);
		if (args->length != 0)
			continue;
		if (args->running == 0)
			return args->error;
		nanosleep(&(struct timespec){.tv_nsec = pause}, NULL);
		if (pause < LOOK_NANOSECONDS)
			pause *= 2;
	}
}

static int scrub_mount(struct job *job, int fd)
{
	struct cow_ioc_scrub args = {.action = COW_SCRUB_START,
				     .bytes_per_second = job->has_rate ? job->rate : MOUNT_RATE};
	int error = cow_place_try_ioctl(fd, COW_IOC_SCRUB, &args);

	if (error == -EBUSY) {
		cow_say(job->cli, "%s: is being scrubbed already", job->path);
		return COW_EXIT_DIFF_TROUBLE;
	}
	if (error != 0) {
		cow_place_say(job->cli, job->path, error, "give an image");
		return COW_EXIT_DIFF_TROUBLE;
	}
	begin(job);
	error = follow(job, fd, &args);
	struct cow_scrub_result result = result_of(&args);
	free(job->bytes);
	return report(job, &result, error);
}

/* ------------------------------------------------------------------ */

static int run(struct job *job)
{
	struct cow_ioc_info info;
	struct stat st;
	int fd, status;

	fd = open(job->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0) {
		cow_say_error(job->cli, job->path, -errno);
		status = COW_EXIT_DIFF_TROUBLE;
	} else if (!S_ISDIR(st.st_mode) && cow_place_try_ioctl(fd, COW_IOC_INFO, &info) != 0) {
		close(fd);
		return scrub_image(job);
	} else {
		status = scrub_mount(job, fd);
	}
	if (fd >= 0)
		close(fd);
	return status;
}

static int parse_rate(struct job *job, const char *text)
{
	job->has_rate = true;
	job->rate = 0;
	return strcmp(text, "max") == 0 ? 0 : cow_size_parse(text, &job->rate);
}

int cow_verb_scrub(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"rate", required_argument, NULL, 'r'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
	struct job job = {.cli = cli, .tty = isatty(STDERR_FILENO), .begin = time(NULL)};
	int option;

	while ((option = getopt_long(argc, argv, "r:j", options, NULL)) != -1) {
		switch (option) {
		case 'r':
			if (parse_rate(&job, optarg) != 0)
				return cow_say_usage(cli, "%s is no rate; give one like 100M, or max", optarg);
			break;
		case 'j': job.as_json = true; break;
		case COW_OPTION_HELP: return cow_say_help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (argc - optind != 1)
		return cow_say_usage(cli, "give one directory of a mount, or an image");
	job.path = argv[optind];
	sigaction(SIGINT, &action, NULL); /* the second one ends this program at once */
	sigaction(SIGTERM, &action, NULL);
	return run(&job);
}
