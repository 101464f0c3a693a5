/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The image as a file of the host: who else can open it, and who has it locked. */
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "cowfs/mount.h"

void cowfs_image_warn(const struct cowfs *fs)
{
	struct stat st;
	unsigned mode;
	bool block;

	if (stat(fs->image, &st))
		return;
	block = S_ISBLK(st.st_mode);
	/* The group of a disk is meant to open it. The mask of an ACL shows as the bits of the group. */
	mode = st.st_mode & (block ? 0006 : 0066);
	if (!mode)
		return;
	cowfs_complain("warning: %s can be opened by other users (mode %04o): they can %s all that is in it, "
		       "and lock it against you; `chmod %s %s`", fs->options->image, st.st_mode & 07777,
		       !(mode & 0022) ? "read" : mode & 0044 ? "read and change" : "change", block ? "o-rw" : "600",
		       fs->options->image);
}

/* The process that took a lock on the image, or 0: the kernel shows only those of our own process id namespace. */
static int find_locker(const char *image)
{
	unsigned long long inode;
	unsigned major_number, minor_number;
	int pid, found = 0;
	struct stat st;
	char line[256];
	FILE *locks;

	if (stat(image, &st))
		return 0;
	locks = fopen("/proc/locks", "re");
	while (locks && !found && fgets(line, sizeof(line), locks))
		if (sscanf(line, "%*d: FLOCK %*s %*s %d %x:%x:%llu", &pid, &major_number, &minor_number, &inode) == 4 &&
		    inode == st.st_ino && makedev(major_number, minor_number) == st.st_dev)
			found = pid;
	if (locks)
		fclose(locks);
	return found;
}

/* It may have ended, and left the lock to those who inherited its descriptor. */
static bool find_name(int pid, char *name, int bytes)
{
	char path[40];
	FILE *file;
	bool found;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	file = fopen(path, "re");
	found = file && fgets(name, bytes, file);
	if (file)
		fclose(file);
	if (found)
		name[strcspn(name, "\n")] = '\0';
	return found;
}

void cowfs_image_complain_locked(const struct cowfs *fs)
{
	int pid = find_locker(fs->image);
	char name[64];

	if (pid > 0 && find_name(pid, name, sizeof(name)))
		cowfs_complain("cannot open %s: process %d (%s) has it locked", fs->image, pid, name);
	else
		cowfs_complain("cannot open %s: in use by another program; `fuser -v %s` says which", fs->image,
			       fs->image);
}
