// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cow clone SRC DST: a copy of any size at once.
 *
 * On a mount (cow_ioctl.h): the target is made under a temporary name with the calls that the kernel checks, the daemon
 * puts the clone in its place, and a rename that replaces nothing makes it appear whole. Where the daemon refuses,
 * cp(1) makes it in a fresh directory, so that it appears in the same way.
 */
#include "cli/fresh.h"
#include "cli/place.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cow_ioctl.h"

struct job {
	struct cow_session session;
	const struct cow_cli *cli;
	struct cow_place source, target;
	unsigned flags;
	bool verbose;
};

#define INSTEAD "use `cp -a --reflink=auto`"

static int make_empty(const struct cow_spot *spot, const char *name, bool directory)
{
	int fd;

	if (directory)
		return mkdirat(spot->fd, name, 0700) == 0 ? 0 : -errno;
	fd = openat(spot->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

/* 0, or -errno with nothing left behind; *by_ioctl: it was the daemon that refused. */
static int place_clone(struct job *job, const struct cow_spot *spot, bool directory, uint64_t token, bool *by_ioctl)
{
	struct cow_ioc_clone args = {.source = token, .flags = job->flags};
	char name[COW_IOC_CLONE_NAME_BYTES];
	int error;

	*by_ioctl = false;
	snprintf(name, sizeof(name), COW_IOC_CLONE_NAME, (unsigned long long)token);
	error = make_empty(spot, name, directory);
	if (error != 0)
		return error;
	error = cow_place_try_ioctl(spot->fd, COW_IOC_CLONE, &args);
	*by_ioctl = error != 0;
	if (error == 0 && renameat2(spot->fd, name, spot->fd, spot->name, RENAME_NOREPLACE) != 0)
		error = -errno;
	if (error != 0)
		(void)!cow_spot_remove(spot->fd, name);
	return error;
}

/* Nobody's ^C shall leave the temporary name behind. */
static int place_whole(struct job *job, const struct cow_spot *spot, bool directory, uint64_t token, bool *by_ioctl)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	error = place_clone(job, spot, directory, token, by_ioctl);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return error;
}

/* Source and target by their descriptors, which cp(1) inherits. A directory's files are told by their names in it. */
static int run_cp(struct job *job, int fresh, const char *name, bool directory)
{
	char from[32] = ".", *to, *argv[] = {"cp", "-a", "-H", "--reflink=auto", "-T", "--", from, NULL, NULL};
	int source = dup(job->source.fd), target = dup(fresh), status = -errno;

	if (!directory)
		snprintf(from, sizeof(from), "/proc/self/fd/%d", source);
	if (source >= 0 && target >= 0 && asprintf(&to, "/proc/self/fd/%d/%s", target, name) >= 0) {
		argv[7] = to;
		status = cow_run_stoppable(directory ? source : target, argv);
		free(to);
	}
	if (source >= 0)
		close(source);
	if (target >= 0)
		close(target);
	if (status == -EINTR)
		return cow_say(job->cli, "%s: interrupted", job->source.text);
	if (status < 0)
		return cow_say_error(job->cli, "cp", status);
	return status == 0 ? COW_EXIT_OK : COW_EXIT_TROUBLE;
}

/* The walked form: what this user could do with cp, blocks shared all the same. */
static int copy_walked(struct job *job, const struct cow_spot *spot, bool directory)
{
	struct cow_fresh fresh;
	int status;

	if (job->flags & COW_CLONE_READ_ONLY)
		return cow_say(job->cli, "%s: only its owner can make a read-only clone of it", job->source.text);
	if (job->verbose)
		cow_say(job->cli, "%s: not all of it is yours; copying file by file (blocks are shared)",
			job->source.text);
	cow_run_block();
	if (cow_fresh_make(job->cli, job->target.text, spot->fd, &fresh) != 0)
		return COW_EXIT_TROUBLE;
	status = run_cp(job, fresh.fd, spot->name, directory);
	if (status == 0)
		status = cow_fresh_give(&fresh, spot->name, spot->name);
	cow_fresh_remove(&fresh);
	return status;
}

/* Same mount, and the name is free: asked first only to say clearly what is wrong. */
static int look(struct job *job, const struct cow_spot *spot, bool *directory)
{
	struct stat from, to, there;

	if (fstat(job->source.fd, &from) != 0 || fstat(spot->fd, &to) != 0)
		return cow_say_error(job->cli, job->source.text, -errno);
	*directory = S_ISDIR(from.st_mode);
	if (from.st_dev != to.st_dev)
		return cow_say(job->cli, "%s and %s are on different mounts; " INSTEAD, job->source.text,
			       job->target.path);
	if (fstatat(spot->fd, spot->name, &there, AT_SYMLINK_NOFOLLOW) == 0)
		return cow_say_error(job->cli, job->target.path, -EEXIST);
	return 0;
}

/* `token`: of the source; NULL: the daemon gives this user none. */
static int place_or_copy(struct job *job, const struct cow_spot *spot, const uint64_t *token)
{
	bool directory = false, by_ioctl = true;
	int error = look(job, spot, &directory);

	if (error != 0)
		return error;
	error = token != NULL ? place_whole(job, spot, directory, *token, &by_ioctl) : -EPERM;
	if (error == -EPERM && by_ioctl)
		return copy_walked(job, spot, directory);
	if (error == -EINVAL && by_ioctl && !directory && job->flags != 0)
		return cow_say(job->cli, "%s: is a file; only a directory can be cloned read-only", job->source.text);
	return error != 0 ? cow_say_error(job->cli, job->target.path, error) : 0;
}

static int clone_mounted(struct job *job)
{
	struct cow_spot spot;
	uint64_t token;
	int error, refused;

	if (cow_place_open(&job->session, &job->source) != 0)
		return COW_EXIT_TROUBLE;
	refused = cow_place_token(&job->source, &token);
	if (refused != 0 && refused != -EPERM)
		return cow_place_say(job->cli, job->source.text, refused, INSTEAD);
	if (cow_spot_open(&job->session, &job->target, &spot) != 0)
		return COW_EXIT_TROUBLE;
	error = place_or_copy(job, &spot, refused == 0 ? &token : NULL);
	cow_spot_close(&spot);
	return error;
}

static int clone_in_image(struct job *job)
{
	struct cow_spot spot;
	int error;

	if (cow_spot_open(&job->session, &job->target, &spot) != 0)
		return COW_EXIT_TROUBLE;
	error = cow_session_open(&job->session, &job->source, true);
	if (error == 0)
		error = cow_place_open(&job->session, &job->source);
	if (error == 0) {
		int result = cow_clone(job->source.inode, spot.dir, spot.name, job->flags, NULL, NULL);

		if (result == -EINVAL && job->flags != 0)
			error = cow_say(job->cli, "%s: only a directory can be cloned read-only", job->source.text);
		else if (result != 0)
			error = cow_say_error(job->cli, job->target.text, result);
	}
	cow_spot_close(&spot);
	return error;
}

static int run(struct job *job)
{
	if ((job->source.image == NULL) != (job->target.image == NULL))
		return cow_say(job->cli,
			       "%s and %s: one is in an image, the other is not; use `cow import` or `cow export`",
			       job->source.text, job->target.text);
	if (job->target.image != NULL && cow_session_open(&job->session, &job->target, true) != 0)
		return COW_EXIT_TROUBLE;
	if (cow_place_target(&job->session, &job->target, &job->source) != 0)
		return COW_EXIT_TROUBLE;
	return job->target.image != NULL ? clone_in_image(job) : clone_mounted(job);
}

int cow_verb_clone(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"read-only", no_argument, NULL, 'r'},
		{"verbose", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	struct job job = {.cli = cli};
	int option, error;

	while ((option = getopt_long(argc, argv, "rv", options, NULL)) != -1) {
		switch (option) {
		case 'r': job.flags |= COW_CLONE_READ_ONLY; break;
		case 'v': job.verbose = true; break;
		case COW_OPTION_HELP: return cow_say_help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (argc - optind != 2)
		return cow_say_usage(cli, "give a source and a target");
	cow_session_begin(&job.session, cli);
	cow_place_parse(argv[optind], &job.source);
	cow_place_parse(argv[optind + 1], &job.target);
	error = run(&job);
	cow_place_close(&job.source);
	cow_place_close(&job.target);
	if (cow_session_end(&job.session) != 0)
		error = COW_EXIT_TROUBLE;
	return error;
}
