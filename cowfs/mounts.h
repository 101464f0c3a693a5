/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel's tables of mounts.  Built without FUSE too. */
#ifndef COWFS_MOUNTS_H
#define COWFS_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct cowfs_mount {
	char *dir, *source; /* source: of a cowfs mount, the image */
	bool ours;          /* a cowfs mount */
	int id, parent;     /* of the mount itself, and of the one that it lies on */
	dev_t device;       /* every daemon's mount has a device number of its own, which its bind mounts share */
};

struct cowfs_mounts {
	struct cowfs_mount *list;
	size_t count;
};

/* What this process sees. */
#define COWFS_MOUNTS_HERE "/proc/self/mountinfo"

/* Reads /proc/.../mountinfo; -errno, and then there is nothing to free. */
int cowfs_mounts_read(const char *path, struct cowfs_mounts *mounts);
void cowfs_mounts_free(struct cowfs_mounts *mounts);
/* What is mounted on `dir` (absolute), of several that lie on each other the one that is seen; NULL: nothing. */
const struct cowfs_mount *cowfs_mounts_top(const struct cowfs_mounts *mounts, const char *dir);
/* Whether a cowfs mount with this device number is among them. */
bool cowfs_mounts_have(const struct cowfs_mounts *mounts, dev_t device);

#endif
