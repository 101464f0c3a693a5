// SPDX-License-Identifier: GPL-2.0-or-later
/* Items and progress. */
#include "cli/tree.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/mem.h"

void cow_tree_item_free(struct cow_tree_item *item)
{
	for (size_t i = 0; i < item->xattr_count; i++) {
		free(item->xattrs[i].name);
		free(item->xattrs[i].value);
	}
	free(item->xattrs);
	free(item->target);
	item->xattrs = NULL;
	item->xattr_count = 0;
	item->target = NULL;
}

void cow_tree_item_xattr(struct cow_tree_item *item, const char *name, const void *value, size_t size)
{
	struct cow_tree_xattr *xattr;

	item->xattrs = cow_mem_resize(item->xattrs, (item->xattr_count + 1) * sizeof(*item->xattrs));
	xattr = &item->xattrs[item->xattr_count++];
	xattr->name = cow_mem_copy(name, strlen(name) + 1);
	xattr->value = cow_mem_copy(value, size);
	xattr->size = size;
}

static int64_t milliseconds(const struct timespec *from, const struct timespec *to)
{
	return (to->tv_sec - from->tv_sec) * 1000 + (to->tv_nsec - from->tv_nsec) / 1000000;
}

static void stop_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

void cow_progress_begin(struct cow_progress *progress, const struct cow_cli *cli, const char *what, bool quiet)
{
	sigset_t set;

	*progress = (struct cow_progress){.cli = cli, .what = what, .show = !quiet && isatty(STDERR_FILENO)};
	clock_gettime(CLOCK_MONOTONIC, &progress->begin);
	progress->last = progress->begin;
	stop_signals(&set);
	sigprocmask(SIG_BLOCK, &set, NULL); /* they stay pending, which is how they are noticed */
	progress->signals = signalfd(-1, &set, SFD_CLOEXEC);
}

static void clear(struct cow_progress *progress)
{
	if (progress->shown)
		fputs("\r\033[K", stderr);
	progress->shown = false;
}

static void show(struct cow_progress *progress)
{
	struct timespec now;
	char size[COW_SIZE_TEXT];

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (milliseconds(&progress->begin, &now) < 1000 || milliseconds(&progress->last, &now) < 200)
		return;
	progress->last = now;
	progress->shown = true;
	fprintf(stderr, "\r\033[K%llu files, %s, %lld s", (unsigned long long)progress->files,
		cow_size_text(progress->bytes, size), (long long)(milliseconds(&progress->begin, &now) / 1000));
}

static int interrupted(struct cow_progress *progress)
{
	clear(progress);
	return cow_say(progress->cli, "%s: interrupted", progress->what);
}

int cow_progress_step(struct cow_progress *progress, uint64_t files, uint64_t bytes)
{
	sigset_t pending;

	progress->files += files;
	progress->bytes += bytes;
	if (progress->show)
		show(progress);
	sigpending(&pending);
	if (!sigismember(&pending, SIGINT) && !sigismember(&pending, SIGTERM) && !sigismember(&pending, SIGHUP))
		return 0;
	return interrupted(progress);
}

int cow_progress_wait(struct cow_progress *progress, int fd)
{
	struct pollfd polled[2] = {{.fd = fd, .events = POLLIN}, {.fd = progress->signals, .events = POLLIN}};

	while (poll(polled, 2, -1) < 0)
		if (errno != EINTR)
			return 0; /* the read will tell */
	return polled[1].revents != 0 ? interrupted(progress) : 0;
}

void cow_progress_end(struct cow_progress *progress)
{
	clear(progress);
	if (progress->signals >= 0)
		close(progress->signals);
}
