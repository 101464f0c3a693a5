/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names in directories: finding, making, removing and moving them. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "cowfs/caller.h"
#include "cowfs/ops.h"
#include "cowfs/tokens.h"

/*
 * In a directory that was removed, but is somebody's working directory, there are no names and none can be made: that
 * is ENOENT, as on every file system.  The library says only that the handle is dead.
 */
static void reply_name(fuse_req_t req, int result)
{
	cowfs_reply(req, result == -ESTALE ? -ENOENT : result);
}

void cowfs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct cow_inode *inode;
	struct cow_attr attr;
	int result = cow_lookup(cowfs_inode(cowfs_of(req), parent), name, &inode, &attr);

	if (!result) {
		cowfs_reply_entry(req, inode, &attr);
	} else if (result == -ENOENT) { /* an entry without inode: the kernel remembers that there is none */
		struct fuse_entry_param none;

		memset(&none, 0, sizeof(none));
		none.entry_timeout = COWFS_KEEP_SECONDS;
		fuse_reply_entry(req, &none);
	} else {
		reply_name(req, result);
	}
}

void cowfs_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count)
{
	if (ino != FUSE_ROOT_ID)
		cow_forget(cowfs_inode(cowfs_of(req), ino), count);
	fuse_reply_none(req);
}

void cowfs_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	struct cowfs *fs = cowfs_of(req);

	for (size_t i = 0; i < count; i++) {
		if (forgets[i].ino != FUSE_ROOT_ID)
			cow_forget(cowfs_inode(fs, forgets[i].ino), forgets[i].nlookup);
	}
	fuse_reply_none(req);
}

/* Owner, group and mode of what the caller makes in `dir`; a set-group-id directory hands down its group. */
static int fill_new(fuse_req_t req, struct cow_inode *dir, mode_t mode, struct cow_new *new_inode)
{
	const struct fuse_ctx *caller = fuse_req_ctx(req);
	struct cow_attr attr;
	int result = cow_getattr(dir, &attr);

	if (result)
		return result;
	memset(new_inode, 0, sizeof(*new_inode));
	new_inode->mode = mode;
	new_inode->uid = caller->uid;
	new_inode->gid = caller->gid;
	if (attr.mode & S_ISGID) {
		new_inode->gid = attr.gid;
		if (S_ISDIR(mode))
			new_inode->mode |= S_ISGID;
	}
	return 0;
}

static void make(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev, const char *target)
{
	struct cow_inode *dir = cowfs_inode(cowfs_of(req), parent), *inode;
	struct cow_new new_inode;
	struct cow_attr attr;
	int result = fill_new(req, dir, mode, &new_inode);

	if (!result) {
		new_inode.rdev = (uint32_t)rdev;
		new_inode.target = target;
		result = cow_create(dir, name, &new_inode, &inode, &attr);
	}
	if (result)
		reply_name(req, result);
	else
		cowfs_reply_entry(req, inode, &attr);
}

void cowfs_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	make(req, parent, name, mode & S_IFMT ? mode : mode | S_IFREG, rdev, NULL);
}

void cowfs_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	make(req, parent, name, (mode & 07777) | S_IFDIR, 0, NULL);
}

void cowfs_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	if (strlen(target) > COW_SYMLINK_MAX)
		cowfs_reply(req, -ENAMETOOLONG);
	else
		make(req, parent, name, S_IFLNK | 0777, 0, target);
}

/*
 * The file that the kernel believed not to exist: one of our ioctls may have put it there meanwhile.  Opening it then
 * is what open(O_CREAT) without O_EXCL means.  On -ESTALE the kernel looks the name up again and does what fits.
 */
static int find_file(struct cow_inode *dir, const char *name, struct cow_inode **inode, struct cow_attr *attr)
{
	int result = cow_lookup(dir, name, inode, attr);

	if (result)
		return result;
	if (S_ISREG(attr->mode))
		return 0;
	cow_forget(*inode, 1);
	return -ESTALE;
}

void cowfs_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_inode *dir = cowfs_inode(fs, parent), *inode = NULL;
	struct fuse_entry_param entry;
	struct cow_new new_inode;
	struct cow_attr attr;
	int result = fill_new(req, dir, (mode & 07777) | S_IFREG, &new_inode);
	bool made = false;

	if (!result) {
		result = cow_create(dir, name, &new_inode, &inode, &attr);
		made = !result;
	}
	if (result == -ESTALE)
		result = -ENOENT; /* as in reply_name() */
	if (result == -EEXIST && !(fi->flags & O_EXCL))
		result = find_file(dir, name, &inode, &attr);
	if (result) {
		cowfs_reply(req, result);
		return;
	}
	if (made)
		fi->flags &= ~O_TRUNC; /* it is empty: spares a change */
	result = cowfs_open(req, inode, fi);
	if (!result && !made)
		result = cow_getattr(inode, &attr);
	if (result) {
		cow_forget(inode, 1);
		cowfs_reply(req, result);
		return;
	}
	cowfs_fill_entry(fs, inode, &attr, &entry);
	if (fuse_reply_create(req, &entry, fi)) { /* interrupted: the kernel will send neither RELEASE nor FORGET */
		cowfs_close(fs, inode, fi);
		cow_forget(inode, 1);
	}
}

void cowfs_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_inode *inode = cowfs_inode(fs, ino);
	struct cow_attr attr;
	int result = cow_link(inode, cowfs_inode(fs, parent), name, &attr);

	if (result) {
		reply_name(req, result);
		return;
	}
	cow_ref(inode);
	cowfs_reply_entry(req, inode, &attr);
}

void cowfs_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	reply_name(req, cow_unlink(cowfs_inode(cowfs_of(req), parent), name));
}

/*
 * The kernel has let the caller remove this directory, had it only been empty.  For who has a token for its parent that
 * is the proof that the ioctl needs which removes trees (cow_ioctl.h).
 */
static void note_refusal(fuse_req_t req, struct cow_inode *dir, const char *name)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_inode *tree;
	struct cow_attr attr;

	if (!cowfs_token_is_held(fs->tokens, dir, fuse_req_ctx(req)) || cow_lookup(dir, name, &tree, &attr))
		return;
	cow_forget(tree, 1);
	cowfs_token_prove(fs->tokens, dir, fuse_req_ctx(req), cowfs_caller_started(req), attr.ino);
}

void cowfs_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct cow_inode *dir = cowfs_inode(cowfs_of(req), parent);
	int result = cow_rmdir(dir, name);

	if (result == -ENOTEMPTY)
		note_refusal(req, dir, name);
	reply_name(req, result);
}

void cowfs_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
		     unsigned flags)
{
	struct cowfs *fs = cowfs_of(req);

	if (flags & ~(unsigned)(COW_RENAME_NOREPLACE | COW_RENAME_EXCHANGE))
		cowfs_reply(req, -EINVAL);
	else
		reply_name(req, cow_rename(cowfs_inode(fs, parent), name, cowfs_inode(fs, new_parent), new_name,
					    flags));
}
