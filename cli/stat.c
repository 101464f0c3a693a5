// SPDX-License-Identifier: GPL-2.0-or-later
/* cow stat PATH...: everything that is known of an inode, with the totals of what is below it. */
#include "cli/attr.h"
#include "cli/place.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cow_ioctl.h"

struct job {
	struct cow_session session;
	const struct cow_cli *cli;
	struct cow_json json;
	bool as_json;
};

/* By the ioctl where a descriptor can be had without side effects, else what lstat knows. */
static int ask_mounted(struct job *job, const struct cow_place *place, struct cow_attr *attr, struct cow_usage *usage)
{
	struct cow_ioc_stat args = {0};
	struct stat st;
	int fd, error;

	if (lstat(place->slash ? place->text : place->path, &st) != 0)
		return cow_say_error(job->cli, place->text, -errno);
	cow_attr_from_stat(&st, attr);
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return 0;
	fd = open(place->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return cow_say_error(job->cli, place->text, -errno);
	error = cow_place_ioctl(job->cli, place->text, fd, COW_IOC_STAT, &args, "use `stat`");
	close(fd);
	if (error != 0)
		return error;
	attr->btime = (struct timespec){(time_t)args.btime_s, (long)args.btime_ns};
	attr->is_clone = args.is_clone != 0;
	attr->read_only = args.read_only != 0;
	*usage = (struct cow_usage){args.files, args.directories, args.apparent_bytes, args.total_bytes, 0};
	return 0;
}

static int ask(struct job *job, struct cow_place *place, struct cow_attr *attr, struct cow_usage *usage)
{
	int error;

	if (place->image == NULL)
		return ask_mounted(job, place, attr, usage);
	if (cow_place_open(&job->session, place) != 0)
		return COW_EXIT_TROUBLE;
	error = cow_getattr(place->inode, attr);
	if (error == 0 && S_ISDIR(attr->mode))
		error = cow_usage(place->inode, false, usage);
	return error != 0 ? cow_say_error(job->cli, place->text, error) : 0;
}

static void print_time(const char *name, const struct timespec *when)
{
	char text[48];

	cow_attr_time_text(when, true, text);
	printf("%-12s %s\n", name, text);
}

static void print_text(const char *path, const struct cow_attr *attr, const struct cow_usage *usage)
{
	char mode[11];

	cow_attr_mode_text(attr->mode, mode);
	fputs("path         ", stdout);
	cow_say_path(stdout, path);
	printf("\ntype         %s%s\n", cow_attr_type_text(attr->mode),
	       attr->is_clone ? attr->read_only ? ", a read-only clone" : ", a clone" : "");
	printf("inode        %" PRIu64 "\nmode         %04o %s\nlinks        %u\nowner        %u:%u\n", attr->ino,
	       attr->mode & 07777u, mode, attr->nlink, attr->uid, attr->gid);
	if (S_ISCHR(attr->mode) || S_ISBLK(attr->mode))
		printf("device       %u:%u\n", major(attr->rdev), minor(attr->rdev));
	if (!S_ISDIR(attr->mode))
		printf("size         %" PRIu64 "\nmapped       %" PRIu64 "\n", attr->size, attr->blocks * 512);
	print_time("accessed", &attr->atime);
	print_time("modified", &attr->mtime);
	print_time("changed", &attr->ctime);
	if (attr->btime.tv_sec != 0)
		print_time("made", &attr->btime);
	if (S_ISDIR(attr->mode))
		printf("files        %" PRIu64 "\ndirectories  %" PRIu64 "\nbytes        %" PRIu64
		       "\nspace        %" PRIu64 "\n",
		       usage->files, usage->directories, usage->apparent_bytes, usage->total_bytes);
}

static void print_json(struct cow_json *json, const char *path, const struct cow_attr *attr,
		       const struct cow_usage *usage)
{
	cow_json_open(json, NULL, '{');
	cow_json_text(json, "path", path);
	cow_attr_json(json, attr);
	if (S_ISDIR(attr->mode)) {
		cow_json_number(json, "files", usage->files);
		cow_json_number(json, "directories", usage->directories);
		cow_json_number(json, "apparent_bytes", usage->apparent_bytes);
		cow_json_number(json, "total_bytes", usage->total_bytes);
	}
	cow_json_close(json, '}');
}

static int run(struct job *job, int count, char **paths)
{
	int status = COW_EXIT_OK, shown = 0;

	for (int i = 0; i < count; i++) {
		struct cow_usage usage = {0};
		struct cow_place place;
		struct cow_attr attr;

		cow_place_parse(paths[i], &place);
		if (ask(job, &place, &attr, &usage) != 0) {
			status = COW_EXIT_TROUBLE;
		} else if (job->as_json) {
			print_json(&job->json, paths[i], &attr, &usage);
		} else {
			if (shown++ > 0)
				putchar('\n');
			print_text(paths[i], &attr, &usage);
		}
		cow_place_close(&place);
	}
	return status;
}

int cow_verb_stat(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	struct job job = {.cli = cli};
	int option, status;

	while ((option = getopt_long(argc, argv, "j", options, NULL)) != -1) {
		switch (option) {
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
