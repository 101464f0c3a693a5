/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The resource limits that the daemon has from who started it, see getrlimit(2).  They were meant for a shell and its
 * commands.  The daemon works for everybody on its mount and for long, and would die of them in the middle: of SIGXCPU
 * or SIGKILL, of memory that it cannot get; or a commit would fail with EFBIG, and the volume be read-only then.
 *
 * Every process may raise its limits up to the hard ones, and with CAP_SYS_RESOURCE those too.  Of what is left, a
 * limit of file sizes below the image's makes cow_open() refuse it, and the others are told.
 *
 * The rest is left as it is: CORE, LOCKS, MEMLOCK, MSGQUEUE, NICE, RTPRIO and SIGPENDING limit nothing that a daemon
 * does, RSS has no effect.
 */
#include <pthread.h>
#include <sys/resource.h>

#include "cowfs/limits.h"
#include "cowfs/mount.h"

#define STACK_BYTES (8u << 20)
#define DESCRIPTORS 1024

/* So long before the hard limit of processor time, which kills, the soft one says that it comes. */
#define CPU_SECONDS_LEFT 10

struct limit {
	int resource;
	rlim_t enough;
};

static const struct limit limits[] = {
	{RLIMIT_AS, RLIM_INFINITY},    {RLIMIT_DATA, RLIM_INFINITY},   {RLIMIT_CPU, RLIM_INFINITY},
	{RLIMIT_FSIZE, RLIM_INFINITY}, {RLIMIT_RTTIME, RLIM_INFINITY}, {RLIMIT_NPROC, RLIM_INFINITY},
	{RLIMIT_NOFILE, DESCRIPTORS},  {RLIMIT_STACK, STACK_BYTES},
};

static void raise_limit(const struct limit *limit)
{
	struct rlimit now, wanted;

	if (getrlimit(limit->resource, &now) || now.rlim_cur >= limit->enough)
		return;
	wanted.rlim_cur = limit->enough;
	wanted.rlim_max = now.rlim_max > limit->enough ? now.rlim_max : limit->enough;
	if (!setrlimit(limit->resource, &wanted))
		return;
	now.rlim_cur = now.rlim_max;
	setrlimit(limit->resource, &now); /* cannot fail; else it stays as it was */
}

static rlim_t limit_of(int resource)
{
	struct rlimit now;

	return getrlimit(resource, &now) ? RLIM_INFINITY : now.rlim_cur;
}

/* SIGXCPU ends the mount as SIGTERM does; the time that is left is for the last commit. */
static void warn_of_end(void)
{
	struct rlimit now;
	rlim_t left;

	if (getrlimit(RLIMIT_CPU, &now) || now.rlim_max == RLIM_INFINITY)
		return;
	left = now.rlim_max / 2 < CPU_SECONDS_LEFT ? now.rlim_max / 2 : CPU_SECONDS_LEFT;
	now.rlim_cur = now.rlim_max - left;
	setrlimit(RLIMIT_CPU, &now);
	cowfs_complain("warning: `ulimit -t` allows %llu s of processor time: the daemon unmounts when it has used "
		       "them", (unsigned long long)now.rlim_cur);
}

static void warn_of_memory(void)
{
	uint64_t memory = cowfs_limits_memory();

	if (memory != UINT64_MAX)
		cowfs_complain("warning: `ulimit -v` or `-d` allows %llu MiB of memory: the daemon dies when it needs "
			       "more", (unsigned long long)memory >> 20);
}

/* Threads have their stack by the limit that was there when the program started: one may be too small, or endless. */
static void set_thread_stack(void)
{
#ifdef __GLIBC__
	pthread_attr_t attr;

	if (pthread_attr_init(&attr))
		return;
	if (!pthread_attr_setstacksize(&attr, STACK_BYTES))
		pthread_setattr_default_np(&attr);
	pthread_attr_destroy(&attr);
#endif
}

void cowfs_limits_raise(void)
{
	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
		raise_limit(&limits[i]);
	set_thread_stack();
	warn_of_end();
	warn_of_memory();
}

uint64_t cowfs_limits_memory(void)
{
	rlim_t space = limit_of(RLIMIT_AS), data = limit_of(RLIMIT_DATA);
	rlim_t least = space < data ? space : data;

	return least == RLIM_INFINITY ? UINT64_MAX : least;
}
