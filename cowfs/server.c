/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon behind a mount: alive, dead, or neither.
 *
 * A killed daemon leaves its mount behind, dead: every access answers ENOTCONN.  It may also be stuck: one of its
 * threads waits in the kernel for pages that only the daemon itself could write back, and whoever touches the mount
 * waits too, for ever.  So the mount is not touched before it is known that its daemon does not hang, and that is read
 * from the kernel's table of locks: a daemon holds one on its image as long as there is anything of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "cowfs/mounts.h"
#include "cowfs/server.h"

#define DIE_MILLISECONDS 1000 /* what a killed daemon may take to be gone, its buffers freed */

/* An image as the table of locks names it. */
struct identity {
	dev_t device;
	uint64_t inode;
	bool unique; /* else there may be other files with the same two numbers */
};

static void find_device(const struct statx *st, struct identity *identity)
{
	struct cowfs_mounts mounts;

	if (!(st->stx_mask & STATX_MNT_ID) || cowfs_mounts_read(COWFS_MOUNTS_HERE, &mounts))
		return;
	for (size_t i = 0; i < mounts.count; i++)
		if ((uint64_t)mounts.list[i].id == st->stx_mnt_id)
			identity->device = mounts.list[i].device;
	cowfs_mounts_free(&mounts);
}

/*
 * The table of locks has the device number of the whole file system, as the table of mounts has.  Where stat(2) says
 * another one (a subvolume of btrfs), the inode number may be there once more, in another subvolume.
 */
static bool identify(const char *image, struct identity *identity)
{
	struct statx st;
	dev_t own;

	if (statx(AT_FDCWD, image, 0, STATX_INO | STATX_MNT_ID, &st) != 0)
		return false;
	own = makedev(st.stx_dev_major, st.stx_dev_minor);
	identity->inode = st.stx_ino;
	identity->device = own;
	find_device(&st, identity);
	identity->unique = identity->device == own;
	return true;
}

/* By a writer. */
static bool is_locked(const char *image)
{
	int fd = open(image, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	bool locked = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;

	if (fd >= 0)
		close(fd);
	return locked;
}

/* SIGKILL has hit it and it still is not gone. */
static bool is_dying(int pid)
{
	const unsigned long long kill_bit = 1ULL << (SIGKILL - 1);
	bool dying = false;
	unsigned long long pending;
	char path[40], line[256];
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	status = fopen(path, "re");
	if (!status)
		return false;
	while (fgets(line, sizeof(line), status)) {
		if (!strncmp(line, "State:\tZ", 8)) /* its first thread is gone, others are not */
			dying = true;
		else if (sscanf(line, "SigPnd: %llx", &pending) == 1 || sscanf(line, "ShdPnd: %llx", &pending) == 1)
			dying = dying || (pending & kill_bit);
	}
	fclose(status);
	return dying;
}

/* The process that holds the lock by a line of /proc/locks, "1: FLOCK  ADVISORY  WRITE 815 fd:00:2621 0 EOF"; or 0. */
static int find_holder(const char *line, const struct identity *identity)
{
	unsigned device_major, device_minor;
	unsigned long long inode;
	int pid;

	if (sscanf(line, "%*d: FLOCK %*s %*s %d %x:%x:%llu", &pid, &device_major, &device_minor, &inode) != 4)
		return 0;
	return inode == identity->inode && makedev(device_major, device_minor) == identity->device ? pid : 0;
}

int cowfs_server_holder(const char *image)
{
	struct identity identity;
	int pid = 0;
	char line[256];
	FILE *locks;

	if (!identify(image, &identity))
		return 0;
	locks = fopen("/proc/locks", "re");
	while (locks && pid <= 0 && fgets(line, sizeof(line), locks))
		pid = find_holder(line, &identity);
	if (locks)
		fclose(locks);
	return pid > 0 ? pid : 0;
}

/*
 * Of several holders, which have mounted the image for reading, one that lives may be the daemon in question; it must
 * not be cut off for the sake of another one.
 */
int cowfs_server_dying(const char *image)
{
	struct identity identity;
	bool alive = false;
	int pid, found = 0;
	char line[256];
	FILE *locks;

	if (!identify(image, &identity))
		return 0;
	locks = fopen("/proc/locks", "re");
	if (!locks)
		return 0;
	while (!alive && fgets(line, sizeof(line), locks)) {
		pid = find_holder(line, &identity);
		if (pid > 0 && is_dying(pid))
			found = pid;
		else if (pid > 0)
			alive = true;
	}
	fclose(locks);
	return alive || (found && !identity.unique && !is_locked(image)) ? 0 : found;
}

int cowfs_server_stuck(const char *image)
{
	const struct timespec nap = {.tv_nsec = 10000000};
	int pid = cowfs_server_dying(image);

	for (int waited = 0; pid && waited < DIE_MILLISECONDS; waited += 10) {
		nanosleep(&nap, NULL);
		pid = cowfs_server_dying(image);
	}
	return pid;
}

/* Asks past what the kernel has cached.  A question that was on its way when the connection ended is aborted. */
bool cowfs_server_dead(const char *dir)
{
	struct statx here;

	return statx(AT_FDCWD, dir, AT_SYMLINK_NOFOLLOW | AT_STATX_FORCE_SYNC, STATX_MODE, &here) &&
	       (errno == ENOTCONN || errno == ECONNABORTED);
}

/* A mount that is covered by another one cannot be asked, and does not count. */
char *cowfs_server_point(const char *image)
{
	struct cowfs_mounts mounts;
	char *point = NULL;

	if (cowfs_server_dying(image) || cowfs_mounts_read(COWFS_MOUNTS_HERE, &mounts))
		return NULL;
	for (size_t i = 0; !point && i < mounts.count; i++) {
		const struct cowfs_mount *mount = &mounts.list[i];

		if (mount->ours && !strcmp(mount->source, image) && cowfs_mounts_top(&mounts, mount->dir) == mount &&
		    !cowfs_server_dead(mount->dir))
			point = strdup(mount->dir);
	}
	cowfs_mounts_free(&mounts);
	return point;
}
