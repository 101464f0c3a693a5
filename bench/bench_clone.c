/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The time of the library call cow_clone() itself, by the size of what is cloned and by how many clones there are.
 *
 *     bench_clone [--dir DIR] [--clones N] FILES...
 *
 * For each FILES it fills a fresh image in DIR (default: $TMPDIR or /tmp) with that many small files, commits, and
 * clones the tree N times (default 100) side by side. One line each: files, clones, then the first, the median, the
 * 99th percentile and the last call in microseconds.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cow.h"

#define FILES_A_DIR 500u

static void die(const char *what, int error)
{
	fprintf(stderr, "bench_clone: %s: %s\n", what, cow_error_text(error));
	exit(1);
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static struct cow_inode *make(struct cow_inode *dir, const char *name, uint32_t mode)
{
	struct cow_new new_inode = {.mode = mode};
	struct cow_inode *inode;
	int error = cow_create(dir, name, &new_inode, &inode, NULL);

	if (error < 0)
		die(name, error);
	return inode;
}

/* Directories of 500 files of 100 bytes each. */
static void fill(struct cow_inode *top, unsigned long files)
{
	struct cow_inode *dir = NULL;
	char name[32], data[100];

	memset(data, 'x', sizeof(data));
	for (unsigned long i = 0; i < files; i++) {
		if (i % FILES_A_DIR == 0) {
			cow_forget(dir, 1);
			snprintf(name, sizeof(name), "dir%lu", i / FILES_A_DIR);
			dir = make(top, name, S_IFDIR | 0755);
		}
		snprintf(name, sizeof(name), "file%lu", i);
		struct cow_inode *file = make(dir, name, S_IFREG | 0644);
		int64_t written = cow_write(file, data, sizeof(data), 0, false);
		if (written < 0)
			die(name, (int)written);
		cow_forget(file, 1);
	}
	cow_forget(dir, 1);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void measure(struct cow_inode *root, struct cow_inode *top, unsigned long files, unsigned long clones)
{
	double *us = calloc(clones, sizeof(*us));
	char name[32];

	if (us == NULL)
		die("memory", -ENOMEM);
	for (unsigned long i = 0; i < clones; i++) {
		snprintf(name, sizeof(name), "clone%lu", i);
		double start = now_us();
		int error = cow_clone(top, root, name, 0, NULL, NULL);
		us[i] = now_us() - start;
		if (error < 0)
			die("clone", error);
	}
	double first = us[0], last = us[clones - 1];
	qsort(us, clones, sizeof(*us), by_value);
	printf("%8lu files  %6lu clones  first %.1f us  median %.1f us  p99 %.1f us  last %.1f us\n", files, clones,
	       first, us[clones / 2], us[clones * 99 / 100], last);
	free(us);
}

static void run(const char *path, unsigned long files, unsigned long clones)
{
	struct cow_format_options options = {.size_bytes = 20ULL << 30, .force = true};
	struct cow_volume *volume;
	struct cow_inode *root, *top;
	int error = cow_format(path, &options);

	if (error < 0 || (error = cow_open(path, NULL, &volume)) < 0)
		die(path, error);
	if ((error = cow_root(volume, &root)) < 0)
		die("root", error);
	top = make(root, "tree", S_IFDIR | 0755);
	fill(top, files);
	if ((error = cow_sync(volume)) < 0)
		die("sync", error);
	measure(root, top, files, clones);
	cow_forget(top, 1);
	cow_forget(root, 1);
	if ((error = cow_close(volume)) < 0)
		die("close", error);
	unlink(path);
}

int main(int argc, char **argv)
{
	const char *dir = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
	unsigned long clones = 100;
	char path[4096];
	int i = 1;

	for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
		if (strcmp(argv[i], "--dir") == 0)
			dir = argv[i + 1];
		else if (strcmp(argv[i], "--clones") == 0)
			clones = strtoul(argv[i + 1], NULL, 10);
		else
			break;
	}
	if (i >= argc || argv[i][0] == '-' || clones == 0) {
		fputs("usage: bench_clone [--dir DIR] [--clones N] FILES...\n", stderr);
		return 2;
	}
	snprintf(path, sizeof(path), "%s/bench-clone-%ld.cow", dir, (long)getpid());
	for (; i < argc; i++)
		run(path, strtoul(argv[i], NULL, 10), clones);
	return 0;
}
