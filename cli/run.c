// SPDX-License-Identifier: GPL-2.0-or-later
/* Runs other programs. */
#include "cli/cli.h"

#include <errno.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

int cow_run_program(char *const argv[])
{
	pid_t pid;
	int status, error;

	fflush(stdout);
	error = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (error != 0)
		return -error;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
