// SPDX-License-Identifier: GPL-2.0-or-later
/* cow ls [-l] PATH: what is in a directory, sorted by name. */
#include "cli/attr.h"
#include "cli/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/mem.h"
#include "cow_ioctl.h"

struct line {
	char *name, *target;
	struct cow_attr attr;
};

struct job {
	struct cow_session session;
	const struct cow_cli *cli;
	struct line *lines;
	size_t count, size;
	bool as_json, with_attr;
};

static struct line *add(struct job *job, const char *name, const struct cow_attr *attr)
{
	struct line *line;

	if (job->count == job->size) {
		job->size = job->size != 0 ? job->size * 2 : 64;
		job->lines = cow_mem_resize(job->lines, job->size * sizeof(*job->lines));
	}
	line = &job->lines[job->count++];
	*line = (struct line){.name = cow_mem_copy(name, strlen(name) + 1)};
	if (attr != NULL)
		line->attr = *attr;
	return line;
}

/* ------------------------------------------------------------------ in an image */

static void add_inode(struct job *job, const char *name, struct cow_inode *inode, const struct cow_attr *attr)
{
	struct line *line = add(job, name, attr);
	int length;

	if (!S_ISLNK(attr->mode))
		return;
	line->target = cow_mem_new(COW_SYMLINK_MAX + 1);
	length = cow_readlink(inode, line->target, COW_SYMLINK_MAX);
	if (length < 0)
		strcpy(line->target, "?");
}

static int add_entry(void *context, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	struct job *job = context;

	if (attr == NULL) {
		add(job, entry->name, NULL);
		return 0;
	}
	add_inode(job, entry->name, inode, attr);
	cow_forget(inode, 1);
	return 0;
}

static int collect_image(struct job *job, struct cow_place *place)
{
	struct cow_attr attr;
	int error;

	if (cow_place_open(&job->session, place) != 0)
		return COW_EXIT_TROUBLE;
	error = cow_getattr(place->inode, &attr);
	if (error == 0 && S_ISDIR(attr.mode))
		error = cow_list(place->inode, 0, job->with_attr, add_entry, job);
	else if (error == 0)
		add_inode(job, place->text, place->inode, &attr);
	return error != 0 ? cow_say_error(job->cli, place->text, error) : 0;
}

/* ------------------------------------------------------------------ mounted */

/* Clones are known to the daemon only; elsewhere than on a cowlinks mount there are none. */
static void ask_clone(int dir, const char *name, struct cow_attr *attr)
{
	struct cow_ioc_stat args = {0};
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return;
	if (cow_place_try_ioctl(fd, COW_IOC_STAT, &args) == 0) {
		attr->is_clone = args.is_clone != 0;
		attr->read_only = args.read_only != 0;
	}
	close(fd);
}

static int add_file(struct job *job, int dir, const char *name, const char *shown)
{
	struct cow_attr attr;
	struct line *line;
	struct stat st;
	ssize_t length;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
		return -errno;
	cow_attr_from_stat(&st, &attr);
	if (S_ISDIR(st.st_mode))
		ask_clone(dir, name, &attr);
	line = add(job, shown, &attr);
	if (S_ISLNK(st.st_mode)) {
		line->target = cow_mem_new(COW_SYMLINK_MAX + 2);
		length = readlinkat(dir, name, line->target, COW_SYMLINK_MAX + 1);
		if (length < 0)
			strcpy(line->target, "?");
	}
	return 0;
}

static int collect_directory(struct job *job, const struct cow_place *place, int fd)
{
	DIR *dir = fdopendir(fd);
	struct dirent *entry;
	int error;

	if (dir == NULL) {
		error = -errno;
		close(fd);
		return cow_say_error(job->cli, place->text, error);
	}
	while ((errno = 0, entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		error = 0;
		if (job->with_attr)
			error = add_file(job, fd, entry->d_name, entry->d_name);
		else
			add(job, entry->d_name, NULL);
		if (error != 0 && error != -ENOENT) /* removed meanwhile */
			cow_say_error(job->cli, entry->d_name, error);
	}
	error = -errno;
	closedir(dir);
	return error != 0 ? cow_say_error(job->cli, place->text, error) : 0;
}

static int collect_plain(struct job *job, const struct cow_place *place)
{
	const char *path = place->slash ? place->text : place->path;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), error;

	if (fd >= 0)
		return collect_directory(job, place, fd);
	if (errno != ENOTDIR && errno != ELOOP)
		return cow_say_error(job->cli, place->text, -errno);
	error = add_file(job, AT_FDCWD, path, place->text);
	return error != 0 ? cow_say_error(job->cli, place->text, error) : 0;
}

/* ------------------------------------------------------------------ printing */

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct line *)a)->name, ((const struct line *)b)->name);
}

static void print_long(const struct line *line)
{
	const struct cow_attr *attr = &line->attr;
	char mode[11], when[48];

	cow_attr_mode_text(attr->mode, mode);
	cow_attr_time_text(&attr->mtime, false, when);
	printf("%s%c %3u %5u %5u ", mode,
	       attr->read_only  ? 'r'
	       : attr->is_clone ? 'c'
				: ' ',
	       attr->nlink, attr->uid, attr->gid);
	if (S_ISCHR(attr->mode) || S_ISBLK(attr->mode))
		printf("%7u,%4u", major(attr->rdev), minor(attr->rdev));
	else
		printf("%12" PRIu64, attr->size);
	printf(" %s ", when);
	cow_say_path(stdout, line->name);
	if (line->target != NULL) {
		fputs(" -> ", stdout);
		cow_say_path(stdout, line->target);
	}
	putchar('\n');
}

static void print_json(const struct job *job)
{
	struct cow_json json;

	cow_json_begin(&json, stdout);
	cow_json_open(&json, NULL, '[');
	for (size_t i = 0; i < job->count; i++) {
		cow_json_open(&json, NULL, '{');
		cow_json_text(&json, "name", job->lines[i].name);
		cow_attr_json(&json, &job->lines[i].attr);
		if (job->lines[i].target != NULL)
			cow_json_text(&json, "target", job->lines[i].target);
		cow_json_close(&json, '}');
	}
	cow_json_close(&json, ']');
	cow_json_end(&json);
}

static void print(const struct job *job)
{
	if (job->as_json) {
		print_json(job);
		return;
	}
	for (size_t i = 0; i < job->count; i++) {
		if (job->with_attr) {
			print_long(&job->lines[i]);
		} else {
			cow_say_path(stdout, job->lines[i].name);
			putchar('\n');
		}
	}
}

static int run(struct job *job, const char *path)
{
	struct cow_place place;
	int status;

	cow_place_parse(path, &place);
	status = place.image != NULL ? collect_image(job, &place) : collect_plain(job, &place);
	cow_place_close(&place);
	if (job->count > 0)
		qsort(job->lines, job->count, sizeof(*job->lines), by_name);
	if (status == 0 || job->count > 0)
		print(job);
	for (size_t i = 0; i < job->count; i++) {
		free(job->lines[i].name);
		free(job->lines[i].target);
	}
	free(job->lines);
	return status;
}

int cow_verb_ls(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"long", no_argument, NULL, 'l'},
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	struct job job = {.cli = cli};
	int option, status;

	while ((option = getopt_long(argc, argv, "lj", options, NULL)) != -1) {
		switch (option) {
		case 'l': job.with_attr = true; break;
		case 'j': job.as_json = job.with_attr = true; break;
		case COW_OPTION_HELP: return cow_say_help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (argc - optind > 1)
		return cow_say_usage(cli, "give one path");
	cow_session_begin(&job.session, cli);
	status = run(&job, optind < argc ? argv[optind] : ".");
	return cow_session_end(&job.session) != 0 ? COW_EXIT_TROUBLE : status;
}
