/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The model test: seeded random operations on a volume and its oracle. Each run is a child process, so that an
 * assertion or an endless loop is a finding like any other; its operations are written to shared memory before they
 * are done. A failing run is shrunk to the shortest list that fails in the same way.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "fs/core/volume.h"
#include "fs/mkfs.h"
#include "test/lib/drive.h"
#include "test/lib/memdev.h"

#define TAPE_OPS 20000
#define HANG_SECONDS 20

enum { VOLUME_SMALL = 1, VOLUME_TINY_CACHE = 2, VOLUME_THREADS = 4, VOLUME_FEW_COUNTS = 8 };

/* Shared with the child that runs. */
struct tape {
	unsigned volume; /* VOLUME_* */
	uint64_t key;    /* decides the size, and the order of names */
	unsigned count;
	uint64_t done, refused, no_space;
	char bug[DRIVE_BUG_BYTES];
	struct op ops[TAPE_OPS];
};

struct settings {
	unsigned runs, ops, soak_seconds;
	uint64_t seed;
	const char *replay;
	bool show, no_shrink;
	unsigned most_bad; /* failing runs after which it ends */
	int force; /* VOLUME_* of all runs, or -1 */
};

/* ------------------------------------------------------------------ one run, in the child */

static void hang(int signal)
{
	(void)signal;
	_exit(124);
}

static struct memdev *format(unsigned volume, uint64_t seed)
{
	struct memdev *disk = memdev_new((volume & VOLUME_SMALL ? 16u + seed % 5 : 256u) << 20);
	struct cow_format_options options = {.uuid = {1}};
	struct cow_dev *dev = memdev_attach(disk);
	int r;

	memcpy(options.uuid + 8, &seed, sizeof(seed));
	r = cow_volume_format(dev, &options);
	cow_dev_close(dev);
	if (r < 0) {
		fprintf(stderr, "format: %s\n", cow_error_text(r));
		exit(1);
	}
	return disk;
}

static bool start(struct drive *d, unsigned volume, uint64_t seed)
{
	struct cow_open_options options = {
		.no_threads = !(volume & VOLUME_THREADS),
		.cache_bytes = volume & VOLUME_TINY_CACHE ? 4096 : 4 << 20,
		.dirty_bytes = volume & VOLUME_TINY_CACHE ? 64 << 10 : 1 << 20,
		.commit_seconds = 1,
	};
	int r = drive_start(d, memdev_attach, format(volume, seed), &options);

	d->small = volume & VOLUME_SMALL;
	if (volume & VOLUME_FEW_COUNTS)
		drive_limit_counts(d);
	return r == 0 || drive_bug(d, "OPEN %d", r);
}

static void finish(struct drive *d, struct tape *tape, bool ok)
{
	ok = ok && drive_finish(d);
	tape->done = d->done;
	tape->refused = d->refused;
	tape->no_space = d->no_space;
	memcpy(tape->bug, d->bug, DRIVE_BUG_BYTES);
	if (ok) { /* leak checkers want it tidy */
		drive_stop(d);
		memdev_free(d->disk);
	}
	exit(ok ? 0 : 1);
}

static void generate(struct tape *tape, const struct settings *settings, uint64_t seed)
{
	struct rng rng = {seed};
	struct mood mood;
	struct drive d;
	bool ok;

	mood_draw(&rng, &mood);
	tape->key = seed;
	tape->volume = (mood.small ? VOLUME_SMALL : 0) | (mood.tiny_cache ? VOLUME_TINY_CACHE : 0) |
		       (mood.threads ? VOLUME_THREADS : 0) | (mood.crowded && !mood.threads ? VOLUME_FEW_COUNTS : 0);
	if (settings->force >= 0)
		tape->volume = (unsigned)settings->force;
	ok = start(&d, tape->volume, seed);
	while (ok && tape->count < settings->ops && tape->count < TAPE_OPS) {
		struct op *op = &tape->ops[tape->count];

		if (tape->count % mood.probe == mood.probe - 1) {
			memset(op, 0, sizeof(*op));
			op->kind = OP_PROBE;
		} else {
			op_generate(&rng, &mood, &d.ora, op);
		}
		tape->count++;
		ok = drive_step(&d, op);
	}
	finish(&d, tape, ok);
}

static void replay(struct tape *tape, bool show)
{
	struct drive d;
	bool ok = start(&d, tape->volume, tape->key);
	unsigned count = tape->count;

	for (tape->count = 0; ok && tape->count < count;) {
		struct op *op = &tape->ops[tape->count++];
		char text[1024];

		if (show) {
			op_format(op, text, sizeof(text));
			printf("%s\n", text);
		}
		ok = drive_step(&d, op);
	}
	finish(&d, tape, ok);
}

/* ------------------------------------------------------------------ the parent */

/* What a child that ended otherwise than by itself means. */
static void note_end(struct tape *tape, int status)
{
	if (tape->bug[0] != 0)
		return;
	if (WIFSIGNALED(status))
		snprintf(tape->bug, DRIVE_BUG_BYTES, "SIGNAL %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WEXITSTATUS(status) == 124)
		snprintf(tape->bug, DRIVE_BUG_BYTES, "HANG for more than %d s", HANG_SECONDS);
	else if (WEXITSTATUS(status) != 0)
		snprintf(tape->bug, DRIVE_BUG_BYTES, "EXIT %d", WEXITSTATUS(status));
}

/* Runs the seed, or (settings NULL) what is on the tape. True: no bug. */
static bool run(struct tape *tape, const struct settings *settings, uint64_t seed, bool quiet, bool show)
{
	int status;
	pid_t pid;

	fflush(NULL);
	tape->bug[0] = 0;
	pid = fork();
	if (pid < 0) {
		perror("fork");
		exit(2);
	}
	if (pid == 0) {
		int null = quiet ? open("/dev/null", O_WRONLY) : -1;

		if (null >= 0)
			dup2(null, 2);
		signal(SIGALRM, hang);
		alarm(HANG_SECONDS);
		if (settings != NULL)
			generate(tape, settings, seed);
		replay(tape, show);
	}
	if (waitpid(pid, &status, 0) != pid)
		exit(2);
	note_end(tape, status);
	return tape->bug[0] == 0;
}

static void first_word(const char *text, char word[32])
{
	size_t length = strcspn(text, " ");

	snprintf(word, 32, "%.*s", (int)length, text);
}

/* Does the list still fail in this way? Then the tape holds it, up to where it failed. */
static bool still_fails(struct tape *tape, const struct op *ops, unsigned count, const char *kind)
{
	char word[32];

	memcpy(tape->ops, ops, count * sizeof(*ops));
	tape->count = count;
	if (run(tape, NULL, 0, true, false))
		return false;
	first_word(tape->bug, word);
	return strcmp(word, kind) == 0;
}

/* Leaves out ever smaller pieces as long as the rest fails in the same way. */
static void shrink(struct tape *tape, double seconds)
{
	struct op *best = cow_mem_copy(tape->ops, tape->count * sizeof(*best));
	struct op *attempt = cow_mem_new(tape->count * sizeof(*attempt));
	unsigned count = tape->count;
	char kind[32], bug[DRIVE_BUG_BYTES];
	bool changed = true;
	time_t end = time(NULL) + (time_t)seconds;

	first_word(tape->bug, kind);
	memcpy(bug, tape->bug, sizeof(bug));
	while (changed && time(NULL) < end) {
		changed = false;
		for (unsigned step = count > 1 ? count / 2 : 1; step > 0; step /= 2) {
			for (unsigned i = 0; i < count && time(NULL) < end;) {
				unsigned cut = step < count - i ? step : count - i;

				memcpy(attempt, best, i * sizeof(*best));
				memcpy(attempt + i, best + i + cut, (count - i - cut) * sizeof(*best));
				if (still_fails(tape, attempt, count - cut, kind)) {
					count = tape->count;
					memcpy(best, tape->ops, count * sizeof(*best));
					memcpy(bug, tape->bug, sizeof(bug));
					changed = true;
				} else {
					i += step;
				}
			}
		}
	}
	memcpy(tape->ops, best, count * sizeof(*best));
	tape->count = count;
	memcpy(tape->bug, bug, sizeof(bug));
	free(best);
	free(attempt);
}

static void print(const struct tape *tape, const char *path)
{
	FILE *file = path != NULL ? fopen(path, "w") : stdout;

	if (file == NULL)
		return;
	fprintf(file, "volume %u %" PRIu64 "\n", tape->volume, tape->key);
	for (unsigned i = 0; i < tape->count; i++) {
		char text[1024];

		op_format(&tape->ops[i], text, sizeof(text));
		fprintf(file, "%s\n", text);
	}
	if (path != NULL)
		fclose(file);
}

static void report(struct tape *tape, const struct settings *settings, uint64_t seed)
{
	const char *dir = getenv("TMPDIR");
	char path[256];

	printf("not ok - seed %" PRIu64 " (--ops %u), operation %u: %s\n", seed, settings->ops, tape->count, tape->bug);
	fflush(stdout);
	if (settings->no_shrink)
		return;
	shrink(tape, 60);
	snprintf(path, sizeof(path), "%s/model-%" PRIu64 ".ops", dir != NULL ? dir : "/tmp", seed);
	print(tape, path);
	printf("# shrunk to %u operations, in %s for --replay: %s\n", tape->count, path, tape->bug);
	print(tape, NULL);
	fflush(stdout);
}

static int replay_file(struct tape *tape, const struct settings *settings)
{
	FILE *file = fopen(settings->replay, "r");
	char line[1200];

	if (file == NULL) {
		perror(settings->replay);
		return 2;
	}
	while (fgets(line, sizeof(line), file) != NULL) {
		if (line[0] == '#' || line[0] == '\n' ||
		    sscanf(line, "volume %u %" SCNu64, &tape->volume, &tape->key) >= 1)
			continue;
		if (tape->count == TAPE_OPS || !op_parse(line, &tape->ops[tape->count++])) {
			fprintf(stderr, "%s: not understood: %s", settings->replay, line);
			fclose(file);
			return 2;
		}
	}
	fclose(file);
	if (run(tape, NULL, 0, false, settings->show)) {
		printf("ok - %s: %u operations\n", settings->replay, tape->count);
		return 0;
	}
	printf("not ok - %s, operation %u: %s\n", settings->replay, tape->count, tape->bug);
	return 1;
}

static int run_all(struct tape *tape, const struct settings *settings)
{
	uint64_t done = 0, refused = 0, no_space = 0;
	unsigned bad = 0, i;
	time_t end = time(NULL) + settings->soak_seconds;

	for (i = 0; settings->soak_seconds > 0 ? time(NULL) < end : i < settings->runs; i++) {
		tape->count = 0;
		if (!run(tape, settings, settings->seed + i, settings->runs > 1, false)) {
			report(tape, settings, settings->seed + i);
			if (++bad == settings->most_bad)
				break;
		}
		done += tape->done;
		refused += tape->refused;
		no_space += tape->no_space;
	}
	printf("%s - model: seeds %" PRIu64 " to %" PRIu64 ", %" PRIu64 " operations (%" PRIu64
	       " refused as foreseen, %" PRIu64 " without space), %u runs failed\n",
	       bad > 0 ? "not ok" : "ok", settings->seed, settings->seed + i - (i > 0), done, refused, no_space, bad);
	return bad > 0;
}

static void usage(void)
{
	fputs("usage: model [--runs N] [--ops N] [--seed S] [--soak SECONDS] [--volume BITS] [--no-shrink] [--first]\n"
	      "       model --replay FILE [--show]\n"
	      "BITS: 1 small, 2 tiny caches, 4 with threads, 8 few counts in memory (not with threads).\n"
	      "Without --seed a fresh one is drawn.\n", stderr);
	exit(2);
}

static void parse(int argc, char **argv, struct settings *s)
{
	static const struct option options[] = {
		{"runs", required_argument, NULL, 'r'}, {"ops", required_argument, NULL, 'o'},
		{"seed", required_argument, NULL, 's'}, {"soak", required_argument, NULL, 'k'},
		{"replay", required_argument, NULL, 'p'}, {"show", no_argument, NULL, 'w'},
		{"volume", required_argument, NULL, 'v'}, {"no-shrink", no_argument, NULL, 'n'},
		{"first", no_argument, NULL, 'f'}, {0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'r': s->runs = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'o': s->ops = (unsigned)strtoul(optarg, NULL, 0); break;
		case 's': s->seed = strtoull(optarg, NULL, 0); break;
		case 'k': s->soak_seconds = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'p': s->replay = optarg; break;
		case 'w': s->show = true; break;
		case 'v': s->force = (int)strtoul(optarg, NULL, 0); break;
		case 'n': s->no_shrink = true; break;
		case 'f': s->most_bad = 1; break;
		default: usage();
		}
	}
	if (optind < argc)
		usage();
}

int main(int argc, char **argv)
{
	struct timespec now;
	struct settings settings = {.runs = 500, .ops = 100, .force = -1, .most_bad = 10};
	struct rlimit no_core = {0, 0};
	struct tape *tape;

	clock_gettime(CLOCK_REALTIME, &now);
	settings.seed = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	parse(argc, argv, &settings);
	setrlimit(RLIMIT_CORE, &no_core);
	tape = mmap(NULL, sizeof(*tape), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (tape == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	if (settings.replay != NULL)
		return replay_file(tape, &settings);
	return run_all(tape, &settings);
}
