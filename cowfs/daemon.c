/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon as a process.  In the background a child does everything from opening the image on, because its threads
 * and its lock on the image would not survive a fork.  The parent waits at a pipe: one byte means that the mount
 * serves, end of file that the child gave up, having said why on the terminal that both share until then.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "cowfs/inherited.h"
#include "cowfs/limits.h"
#include "cowfs/mount.h"
#include "cowfs/server.h"

#define HEAP_STEP (16 << 20)
#define DIRTY_LEAST (64ull << 20)
#define DIRTY_MOST (4ull << 30)

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

/* How long to wait for a daemon that is unmounted already but still commits. */
#define BUSY_TRIES 200
#define BUSY_MILLISECONDS 50

/*
 * Data that waits in memory disturbs nobody's fsync: an eighth of what there is, as the kernel does it for its own file
 * systems; in a container, of what that has; under a limit, of what that leaves.
 */
static uint64_t default_dirty_bytes(void)
{
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE), limit;
	FILE *file = fopen("/sys/fs/cgroup/memory.max", "re");

	if (file != NULL && fscanf(file, "%" SCNu64, &limit) == 1 && limit < memory)
		memory = limit;
	if (file != NULL)
		fclose(file);
	limit = cowfs_limits_memory();
	memory = (limit < memory ? limit : memory) / 8;
	return memory < DIRTY_LEAST ? DIRTY_LEAST : memory > DIRTY_MOST ? DIRTY_MOST : memory;
}

static void log_fuse(enum fuse_log_level level, const char *format, va_list args)
{
	vsyslog(level <= FUSE_LOG_ERR ? LOG_ERR : LOG_INFO, format, args);
}

/* Without /dev/null, anything else that nobody waits for. */
static void detach(struct cowfs *fs)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		null = open("/", O_PATH | O_CLOEXEC);
	openlog("cowfs", LOG_PID, LOG_DAEMON);
	fuse_set_log_func(log_fuse);
	atomic_store(&fs->detached, true);
	if (null < 0)
		return;
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	close(null);
}

void cowfs_ready(struct cowfs *fs)
{
	ssize_t written;

	if (fs->ready_fd < 0)
		return;
	detach(fs);
	written = write(fs->ready_fd, "R", 1);
	(void)written; /* without a parent nobody waits */
	close(fs->ready_fd);
	fs->ready_fd = -1;
}

static void complain_of_open(const struct cowfs *fs, int error, const char *point)
{
	int stuck = error == COW_ERR_BUSY && !point ? cowfs_server_dying(fs->image) : 0;

	if (point)
		cowfs_complain("%s is mounted already, on %s", fs->image, point);
	else if (stuck)
		cowfs_complain("cannot open %s: the daemon of its last mount (process %d) was killed and is stuck; "
			       "`cow umount` on that mount cuts it off",
			       fs->image, stuck);
	else if (error == -EFBIG)
		cowfs_complain("cannot write to %s: it is larger than `ulimit -f` allows a file to be; mount it from "
			       "where that is unlimited, or with -o ro",
			       fs->image);
	else if (error == COW_ERR_BUSY)
		cowfs_image_complain_locked(fs);
	else
		cowfs_complain("cannot open %s: %s", fs->image, cow_error_text(error));
}

/*
 * A volume that was just unmounted, or whose daemon was just killed, is locked until that has ended: worth waiting for.
 * One that is mounted, or open in another program for long, is not.
 */
static int open_volume(struct cowfs *fs)
{
	const struct cowfs_options *o = fs->options;
	struct cow_open_options options = {
		.read_only = o->read_only,
		.cache_bytes = o->cache_bytes,
		.dirty_bytes = o->dirty_bytes != 0 ? o->dirty_bytes : default_dirty_bytes(),
		.commit_seconds = o->commit_seconds,
		.log = cowfs_log,
		.log_context = fs,
	};
	struct timespec pause = {.tv_nsec = BUSY_MILLISECONDS * 1000000L};
	char *point = NULL;
	int result = cow_open(fs->image, &options, &fs->volume);

	for (int i = 0; result == COW_ERR_BUSY && i < BUSY_TRIES && !(point = cowfs_server_point(fs->image)); i++) {
		nanosleep(&pause, NULL);
		result = cow_open(fs->image, &options, &fs->volume);
	}
	if (result)
		complain_of_open(fs, result, point);
	else
		cowfs_image_warn(fs);
	free(point);
	return result;
}

static int serve(struct cowfs *fs)
{
	int result, closed;

	cowfs_session_block_signals();
	/* Best effort: our allocations shall not wait for our own write-back. Threads have it from who starts them. */
	prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
	result = open_volume(fs);
	if (result)
		return -1;
	result = cow_root(fs->volume, &fs->root);
	if (result)
		cowfs_complain("cannot read the root of %s: %s", fs->image, cow_error_text(result));
	else
		result = cowfs_session_run(fs);
	closed = cow_close(fs->volume);
	if (closed)
		cowfs_log(fs, COW_LOG_ERROR, cow_error_text(closed));
	return result || closed ? -1 : 0;
}

/* Returns the child's exit status if it gave up, 0 when it serves. */
static int wait_ready(int fd, pid_t child)
{
	char byte;
	ssize_t got;
	int status;

	do
		got = read(fd, &byte, 1);
	while (got < 0 && errno == EINTR);
	if (got == 1)
		return 0;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		cowfs_complain("the daemon was killed by signal %d", WTERMSIG(status));
	return 1;
}

static int become_daemon(struct cowfs *fs, int ready_fd)
{
	int result;

	cowfs_inherited_signals(false);
	cowfs_inherited_close(&ready_fd);
	setsid();
	result = chdir("/");
	(void)result; /* both paths are absolute; it only keeps the old directory busy */
	fs->ready_fd = ready_fd;
	return serve(fs) ? 1 : 0;
}

static int serve_in_background(struct cowfs *fs)
{
	int fds[2];
	pid_t child;

	if (pipe2(fds, O_CLOEXEC)) {
		cowfs_complain("cannot make a pipe: %s", strerror(errno));
		return 1;
	}
	fflush(NULL);
	child = fork();
	if (child < 0) {
		cowfs_complain("cannot start the daemon: %s", strerror(errno));
		return 1;
	}
	if (!child)
		exit(become_daemon(fs, fds[1]));
	close(fds[1]);
	return wait_ready(fds[0], child);
}

/* What can be told in plain words before anything is opened. */
static int check_places(struct cowfs *fs)
{
	struct stat st;

	fs->image = realpath(fs->options->image, NULL);
	if (!fs->image) {
		cowfs_complain("cannot open %s: %s", fs->options->image, strerror(errno));
		return -1;
	}
	fs->dir = realpath(fs->options->dir, NULL);
	if (!fs->dir || stat(fs->dir, &st)) {
		cowfs_complain("cannot mount on %s: %s", fs->options->dir, strerror(errno));
		return -1;
	}
	if (!S_ISDIR(st.st_mode)) {
		cowfs_complain("cannot mount on %s: not a directory", fs->options->dir);
		return -1;
	}
	fs->under = st.st_dev;
	if (access("/dev/fuse", R_OK | W_OK)) {
		cowfs_complain("cannot use /dev/fuse: %s (is the kernel module 'fuse' loaded?)", strerror(errno));
		return -1;
	}
	return 0;
}

/*
 * Nodes come and go by the thousand, made by one thread and freed by another. glibc gives each thread a heap of its
 * own, which grows by a system call for each of them; one heap for all grows and shrinks in large steps.
 */
static void set_up_heap(void)
{
#ifdef __GLIBC__
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_TOP_PAD, HEAP_STEP);
	mallopt(M_TRIM_THRESHOLD, 4 * HEAP_STEP);
	mallopt(M_MMAP_THRESHOLD, HEAP_STEP);
#endif
}

int cowfs_run(const struct cowfs_options *options)
{
	struct cowfs fs = {.options = options, .ready_fd = -1, .owner = geteuid()};
	int result = 1;

	set_up_heap();
	cowfs_inherited_signals(true);
	cowfs_limits_raise();
	if (pthread_key_create(&fs.buffers, cowfs_buffer_free)) {
		cowfs_complain("out of memory");
		return 1;
	}
	if (!check_places(&fs)) {
		if (options->foreground || options->debug)
			result = serve(&fs) ? 1 : 0;
		else
			result = serve_in_background(&fs);
	}
	free(fs.image);
	free(fs.dir);
	pthread_key_delete(fs.buffers);
	return result;
}
