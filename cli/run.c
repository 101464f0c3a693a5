// SPDX-License-Identifier: GPL-2.0-or-later
/* Runs other programs. */
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* What main() made of SIGXFSZ is for this program only. */
static int start(char *const argv[], const posix_spawn_file_actions_t *actions, const sigset_t *mask, pid_t *pid)
{
	posix_spawnattr_t attributes;
	sigset_t set;
	int error;

	sigemptyset(&set);
	sigaddset(&set, SIGXFSZ);
	error = posix_spawnattr_init(&attributes);
	if (error != 0)
		return -error;
	posix_spawnattr_setsigdefault(&attributes, &set);
	if (mask != NULL)
		posix_spawnattr_setsigmask(&attributes, mask);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | (mask != NULL ? POSIX_SPAWN_SETSIGMASK : 0));
	error = posix_spawnp(pid, argv[0], actions, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	return -error;
}

int cow_run_start(char *const argv[], const posix_spawn_file_actions_t *actions, pid_t *pid)
{
	return start(argv, actions, NULL, pid);
}

int cow_run_program(char *const argv[])
{
	pid_t pid;
	int status, error;

	fflush(stdout);
	error = cow_run_start(argv, NULL, &pid);
	if (error != 0)
		return error;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void stop_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

void cow_run_block(void)
{
	sigset_t set;

	stop_signals(&set);
	sigaddset(&set, SIGCHLD); /* so that its end can be waited for together with them */
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGCHLD, SIG_DFL); /* who ignores it is not told */
}

/* Without the signals blocked that the caller has blocked for himself. */
static int start_in(int dir, char *const argv[], pid_t *pid)
{
	posix_spawn_file_actions_t actions;
	sigset_t none;
	int error;

	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	error = -posix_spawn_file_actions_addfchdir_np(&actions, dir);
	if (error == 0)
		error = start(argv, &actions, &none, pid);
	posix_spawn_file_actions_destroy(&actions);
	return error;
}

int cow_run_stoppable(int dir, char *const argv[])
{
	bool stopped = false;
	sigset_t set;
	pid_t pid;
	int status, error;

	fflush(stdout);
	error = start_in(dir, argv, &pid);
	if (error != 0)
		return error;
	stop_signals(&set);
	sigaddset(&set, SIGCHLD);
	while ((error = waitpid(pid, &status, WNOHANG)) == 0) {
		int number = sigwaitinfo(&set, NULL);

		if (number <= 0 || number == SIGCHLD)
			continue;
		stopped = true;
		kill(pid, number);
	}
	if (error < 0)
		return -errno;
	if (stopped)
		return -EINTR;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
