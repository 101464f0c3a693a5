/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The image as a file of the host: who else can open it, and who has it locked. */
#include <stdio.h>
#include <string.h>

#include "cowfs/mount.h"
#include "cowfs/server.h"

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
	int pid = cowfs_server_holder(fs->image);
	char name[64];

	if (pid > 0 && find_name(pid, name, sizeof(name)))
		cowfs_complain("cannot open %s: process %d (%s) has it locked", fs->image, pid, name);
	else
		cowfs_complain("cannot open %s: in use by another program; `fuser -v %s` says which", fs->image,
			       fs->image);
}
