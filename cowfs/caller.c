/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The rules of path_permission and may_delete of the kernel, for the few requests that it does not check. */
#include <errno.h>
#include <stdlib.h>

#include "cowfs/caller.h"

bool cowfs_caller_is_trusted(fuse_req_t req)
{
	struct cowfs *fs = cowfs_of(req);
	uid_t uid = fuse_req_ctx(req)->uid;

	return !fs->options->allow_other || uid == 0 || uid == fs->owner;
}

static bool is_in_group(fuse_req_t req, gid_t group)
{
	gid_t few[64], *groups = few;
	int count, room = 64;
	bool found = fuse_req_ctx(req)->gid == group;

	if (found)
		return true;
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

int cowfs_caller_may_remove(fuse_req_t req, const struct cow_attr *dir, const struct cow_attr *entry)
{
	uid_t uid = fuse_req_ctx(req)->uid;
	uint32_t rights = dir->mode;

	if (uid == 0)
		return 0;
	if (uid == dir->uid)
		rights >>= 6;
	else if (is_in_group(req, dir->gid))
		rights >>= 3;
	if ((rights & 3) != 3)
		return -EACCES;
	if (dir->mode & S_ISVTX && uid != dir->uid && uid != entry->uid)
		return -EPERM;
	return 0;
}
