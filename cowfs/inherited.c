/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the daemon has from who started it and must not keep.  execve(2) lists what a program gets from the one before:
 *
 *   signals         ignored and blocked ones.  A worker that SIGUSR1 cannot interrupt never ends, and with SIGCHLD
 *                   ignored nobody hears how a child ended.
 *   timers          alarm(2) kills who knows nothing of it.  A child of fork(2) has none; in the foreground SIGALRM
 *                   ends the mount as SIGTERM does, for that is what was asked for.
 *   descriptors     locks, pipes that somebody reads to their end, files on what shall be unmounted.  In the
 *                   foreground they stay: there the daemon is its starter's own command.
 *   limits          cowfs/limits.c
 *   directory, session, terminal: cowfs/daemon.c
 *
 * What is left alone: the umask, as the daemon makes no files; the environment, nothing of which it reads; priorities,
 * the processors it may use and its weight when memory runs out, which are what somebody wanted for this work; its
 * control group, name spaces, security bits and filters, which it could not leave.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "cowfs/inherited.h"

#define FIRST_OTHER 3 /* the first descriptor that is not a standard one */

static bool is_to_interrupt(int number)
{
	return number == SIGHUP || number == SIGINT || number == SIGQUIT;
}

/* What is pending is for the program before, too, but for the wish that it ends. */
static void drop_pending(void)
{
	const struct timespec now = {0};
	sigset_t set;

	sigfillset(&set);
	sigdelset(&set, SIGHUP);
	sigdelset(&set, SIGINT);
	sigdelset(&set, SIGQUIT);
	sigdelset(&set, SIGTERM);
	sigdelset(&set, SIGALRM);
	sigdelset(&set, SIGXCPU);
	while (sigtimedwait(&set, NULL, &now) > 0 || errno == EINTR)
		;
}

void cowfs_inherited_signals(bool keep)
{
	const struct itimerval never = {0};
	struct sigaction action;
	sigset_t none;

	setitimer(ITIMER_VIRTUAL, &never, NULL);
	setitimer(ITIMER_PROF, &never, NULL);
	drop_pending();
	for (int number = 1; number < NSIG; number++) {
		if (sigaction(number, NULL, &action) || action.sa_handler != SIG_IGN)
			continue;
		if (keep && is_to_interrupt(number))
			continue;
		action = (struct sigaction){.sa_handler = SIG_DFL};
		sigaction(number, &action, NULL);
	}
	action = (struct sigaction){.sa_handler = SIG_IGN};
	sigaction(SIGPIPE, &action, NULL);
	sigaction(SIGXFSZ, &action, NULL); /* EFBIG says it as well */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int close_range_from(unsigned first)
{
#ifdef SYS_close_range
	return (int)syscall(SYS_close_range, first, ~0u, 0u);
#else
	(void)first;
	return -1;
#endif
}

/* Before Linux 5.9, or where a filter does not know the call. */
static void close_listed(int first)
{
	DIR *list = opendir("/proc/self/fd");
	struct dirent *entry;

	while (list && (entry = readdir(list))) {
		int fd = atoi(entry->d_name);

		if (fd >= first && fd != dirfd(list))
			close(fd);
	}
	if (list)
		closedir(list);
}

void cowfs_inherited_close(int *fd)
{
	if (*fd != FIRST_OTHER && dup3(*fd, FIRST_OTHER, O_CLOEXEC) == FIRST_OTHER)
		*fd = FIRST_OTHER;
	if (close_range_from(FIRST_OTHER + 1))
		close_listed(FIRST_OTHER + 1);
}
