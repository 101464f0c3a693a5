/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long a small overwrite takes until it is durable, on whatever file system a directory is on.
 *
 *     bench_fsync [--seconds S] [--file MIB] [--data] [--writer MB_S] [--writer-file MIB] [--seed N] DIR
 *
 * 8 KiB are overwritten and synced with fsync(2), or fdatasync(2) with --data, one after the other for S seconds (3).
 * With --writer a second process writes DIR/writer.dat (default 1,024 MiB) over and over at that speed meanwhile, and
 * never syncs.
 *
 * One line: operations a second, then median, 99th percentile and maximum in microseconds, then what the writer reached
 * in MB/s.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PIECE 8192u
#define CHUNK (1u << 20)
#define WARM_SECONDS 0.3
#define WRITER_SECONDS 1.0 /* the writer's start */
#define SAMPLES_MAX (1u << 22)

struct bench {
	const char *dir;
	double seconds, writer_rate; /* rate: bytes a second, 0: none */
	uint64_t file_bytes, writer_bytes, seed;
	bool data;
	_Atomic uint64_t *written; /* by the writer; shared with it */
};

static void die(const char *what)
{
	fprintf(stderr, "bench_fsync: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* xorshift64 */
static uint64_t draw(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static int open_file(const struct bench *b, const char *name, int flags)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", b->dir, name);
	fd = open(path, O_RDWR | O_CLOEXEC | flags, 0666);
	if (fd < 0)
		die(path);
	return fd;
}

static void put(int fd, const uint8_t *bytes, size_t length, uint64_t at)
{
	if (pwrite(fd, bytes, length, (off_t)at) != (ssize_t)length)
		die("write");
}

static void fill(uint8_t *bytes, size_t length, uint64_t *state)
{
	for (size_t i = 0; i + 8 <= length; i += 8) {
		uint64_t value = draw(state);
		memcpy(bytes + i, &value, 8);
	}
}

static int prepare(const struct bench *b, uint64_t *state)
{
	int fd = open_file(b, "fsync.dat", O_CREAT);
	uint8_t *bytes = malloc(CHUNK);

	if (bytes == NULL)
		die("memory");
	if ((uint64_t)lseek(fd, 0, SEEK_END) != b->file_bytes) {
		if (fallocate(fd, 0, 0, (off_t)b->file_bytes) != 0 && errno != EOPNOTSUPP)
			die("fallocate");
		for (uint64_t at = 0; at < b->file_bytes; at += CHUNK) {
			fill(bytes, CHUNK, state);
			put(fd, bytes, CHUNK, at);
		}
		if (fsync(fd) != 0)
			die("fsync");
	}
	free(bytes);
	return fd;
}

/* At most `writer_rate`; after a halt it does not hurry to make up for it. */
static void write_on(const struct bench *b)
{
	int fd = open_file(b, "writer.dat", O_CREAT);
	uint8_t *bytes = malloc(CHUNK);
	uint64_t state = b->seed + 1;
	double next = now();

	if (bytes == NULL)
		die("memory");
	fill(bytes, CHUNK, &state);
	for (uint64_t at = 0;; at = (at + CHUNK) % b->writer_bytes) {
		double wait = next - now();

		if (wait > 0)
			usleep((useconds_t)(wait * 1e6));
		else if (wait < -0.1)
			next = now();
		memcpy(bytes, &at, sizeof(at));
		put(fd, bytes, CHUNK, at);
		*b->written += CHUNK;
		next += CHUNK / b->writer_rate;
	}
}

static pid_t start_writer(const struct bench *b)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		die("fork");
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent)
		write_on(b);
	_exit(1);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double overwrite(const struct bench *b, int fd, uint8_t *piece, uint64_t *state)
{
	uint64_t at = draw(state) % (b->file_bytes / PIECE) * PIECE;
	double begin;

	fill(piece, 64, state);
	begin = now();
	put(fd, piece, PIECE, at);
	if ((b->data ? fdatasync(fd) : fsync(fd)) != 0)
		die("fsync");
	return now() - begin;
}

static void measure(const struct bench *b, int fd, uint64_t *state)
{
	double *times = malloc(SAMPLES_MAX * sizeof(*times)), begin, took;
	uint8_t piece[PIECE];
	uint64_t written;
	size_t count = 0;

	if (times == NULL)
		die("memory");
	fill(piece, PIECE, state);
	for (begin = now(); now() - begin < (b->writer_rate > 0 ? WRITER_SECONDS : WARM_SECONDS);)
		overwrite(b, fd, piece, state);
	written = *b->written;
	begin = now();
	do
		times[count++] = overwrite(b, fd, piece, state);
	while ((took = now() - begin) < b->seconds && count < SAMPLES_MAX);
	written = *b->written - written;
	qsort(times, count, sizeof(*times), by_value);
	printf("%.1f %.1f %.1f %.1f %.1f\n", (double)count / took, times[count / 2] * 1e6,
	       times[count * 99 / 100] * 1e6, times[count - 1] * 1e6, (double)written / took / 1e6);
	free(times);
}

static void run(struct bench *b)
{
	uint64_t state = b->seed * 0x9e3779b97f4a7c15 + 1;
	int fd = prepare(b, &state);
	pid_t writer = 0;

	b->written = mmap(NULL, sizeof(*b->written), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (b->written == MAP_FAILED)
		die("memory");
	if (b->writer_rate > 0)
		writer = start_writer(b);
	measure(b, fd, &state);
	if (writer != 0) {
		int status;

		if (waitpid(writer, &status, WNOHANG) == writer) {
			fputs("bench_fsync: the writer ended by itself\n", stderr);
			exit(1);
		}
		kill(writer, SIGKILL);
		waitpid(writer, NULL, 0);
	}
	close(fd);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seconds", required_argument, NULL, 's'},
		{"file", required_argument, NULL, 'f'},
		{"data", no_argument, NULL, 'd'},
		{"writer", required_argument, NULL, 'w'},
		{"writer-file", required_argument, NULL, 'b'},
		{"seed", required_argument, NULL, 'r'},
		{NULL, 0, NULL, 0},
	};
	struct bench b = {.seconds = 3, .file_bytes = 64, .writer_bytes = 1024, .seed = 1};
	bool bad = false;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 's': b.seconds = strtod(optarg, NULL); break;
		case 'f': b.file_bytes = strtoull(optarg, NULL, 10); break;
		case 'd': b.data = true; break;
		case 'w': b.writer_rate = strtod(optarg, NULL) * 1e6; break;
		case 'b': b.writer_bytes = strtoull(optarg, NULL, 10); break;
		case 'r': b.seed = strtoull(optarg, NULL, 10); break;
		default: bad = true;
		}
	}
	if (bad || optind + 1 != argc || b.seconds <= 0 || b.file_bytes == 0 || b.writer_bytes == 0) {
		fputs("usage: bench_fsync [--seconds S] [--file MIB] [--data] [--writer MB_S] [--writer-file MIB] "
		      "[--seed N] DIR\n",
		      stderr);
		return 2;
	}
	b.dir = argv[optind];
	b.file_bytes <<= 20;
	b.writer_bytes <<= 20;
	run(&b);
	return 0;
}
