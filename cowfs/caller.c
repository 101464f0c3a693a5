/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <inttypes.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cowfs/caller.h"

bool cowfs_caller_is_trusted(fuse_req_t req)
{
	struct cowfs *fs = cowfs_of(req);
	uid_t uid = fuse_req_ctx(req)->uid;

	return !fs->options->allow_other || uid == 0 || uid == fs->owner;
}

static bool is_proc_ours(void)
{
	char self[16] = "";

	return readlink("/proc/self", self, sizeof(self) - 1) > 0 && atoi(self) == getpid();
}

bool cowfs_caller_is_in_group(fuse_req_t req, gid_t group)
{
	gid_t few[64], *groups = few;
	int count, room = 64;
	bool found = fuse_req_ctx(req)->gid == group;

	if (found || !is_proc_ours())
		return found;
	count = fuse_req_getgroups(req, room, few);
	if (count > room) {
		groups = malloc((size_t)count * sizeof(*groups));
		if (!groups)
			return false;
		room = count;
		count = fuse_req_getgroups(req, room, groups);
	}
	for (int i = 0; i < count && i < room && !found; i++)
		found = groups[i] == group;
	if (groups != few)
		free(groups);
	return found;
}

/* The 22nd field of /proc/PID/stat, in ticks; the second, a name in brackets, may hold anything. */
static bool read_start(FILE *stat, unsigned long long *ticks)
{
	char line[1024], *end;

	if (!fgets(line, sizeof(line), stat))
		return false;
	end = strrchr(line, ')');
	return end && sscanf(end, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
			     ticks) == 1;
}

uint64_t cowfs_caller_started(fuse_req_t req)
{
	const uint64_t tick = 1000000000ull / (uint64_t)sysconf(_SC_CLK_TCK);
	unsigned long long ticks = 0;
	char path[48];
	bool known;
	FILE *file;

	if (!is_proc_ours())
		return UINT64_MAX;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)fuse_req_ctx(req)->pid);
	file = fopen(path, "re");
	known = file && read_start(file, &ticks);
	if (file)
		fclose(file);
	return known ? ticks * tick : UINT64_MAX;
}

/* Capabilities of a user name space of his own say nothing about files outside it. */
static bool is_in_our_user_namespace(pid_t pid)
{
	struct stat his, ours;
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)pid);
	return !stat(path, &his) && !stat("/proc/self/ns/user", &ours) && his.st_dev == ours.st_dev &&
	       his.st_ino == ours.st_ino;
}

/* Of a thread that acts for another user, as a file server of the kernel does, they are not those of the request. */
static uint64_t effective_capabilities(const struct fuse_ctx *caller)
{
	uint64_t capabilities = 0;
	char path[48], line[256];
	unsigned user = ~caller->uid;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)caller->pid);
	status = fopen(path, "re");
	if (!status)
		return 0;
	while (fgets(line, sizeof(line), status)) {
		sscanf(line, "Uid: %*u %*u %*u %u", &user);
		if (sscanf(line, "CapEff: %" SCNx64, &capabilities) == 1)
			break;
	}
	fclose(status);
	return user == caller->uid ? capabilities : 0;
}

bool cowfs_caller_has_fsetid(fuse_req_t req)
{
	const struct fuse_ctx *caller = fuse_req_ctx(req);

	return caller->pid && is_proc_ours() && effective_capabilities(caller) & 1u << CAP_FSETID &&
	       is_in_our_user_namespace(caller->pid);
}
