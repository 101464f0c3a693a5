/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listing.  The cookie of an entry is its position; "." and "..", which the library does not list, come first with
 * the cookies 1 and 2.  A reply of READDIRPLUS hands the kernel a reference for each entry in it, so they are noted
 * beside the reply, to be taken back if it does not arrive.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "cowfs/ops.h"

enum { COOKIE_DOT = 1, COOKIE_DOTDOT = 2 };

#define UNKNOWN_INO 0xffffffffu /* as libfuse says it */

/* Smaller than any entry with attributes. */
#define MIN_ENTRY_BYTES 128

struct listing {
	fuse_req_t req;
	bool plus;
	char *bytes;
	size_t length, size;
	uint64_t last; /* cookie of the last entry in it */
	struct cow_inode **given; /* the references in the reply */
	size_t given_count;
};

void cowfs_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cowfs *fs = cowfs_of(req);
	struct cow_inode *inode = cowfs_inode(fs, ino);
	int result;

	fi->flags = O_RDONLY; /* all that a directory can be opened for */
	result = cowfs_open(req, inode, fi);
	if (result == -ESTALE) { /* somebody's removed working directory: it can be opened, and is empty */
		fi->fh = 0;
		result = 0;
	}
	if (result) {
		cowfs_reply(req, result);
		return;
	}
	fi->noflush = 0;
	fi->cache_readdir = 1;
	if (fuse_reply_open(req, fi) && fi->fh)
		cowfs_close(fs, inode, fi);
}

void cowfs_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct cowfs *fs = cowfs_of(req);

	if (fi->fh)
		cowfs_close(fs, cowfs_inode(fs, ino), fi);
	fuse_reply_err(req, 0);
}

/* False if there is no room. */
static bool add(struct listing *list, const char *name, const struct fuse_entry_param *entry, uint64_t cookie)
{
	size_t room = list->size - list->length, need;
	char *at = list->bytes + list->length;

	if (list->plus)
		need = fuse_add_direntry_plus(list->req, at, room, name, entry, (off_t)cookie);
	else
		need = fuse_add_direntry(list->req, at, room, name, &entry->attr, (off_t)cookie);
	if (need > room)
		return false;
	list->length += need;
	list->last = cookie;
	return true;
}

static int add_entry(void *context, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	struct listing *list = context;
	struct fuse_entry_param param;

	cowfs_fill_entry(cowfs_of(list->req), inode, attr, &param);
	if (!add(list, entry->name, &param, entry->cookie))
		return 1;
	if (list->plus)
		list->given[list->given_count++] = inode;
	else
		cow_forget(inode, 1);
	return 0;
}

/* Of an inode that cannot be read: its name is there, and can be removed. Without a node id the kernel asks for the
 * rest when somebody wants it, and gets the error then. */
static int add_name(void *context, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	struct fuse_entry_param param = {.attr = {.st_ino = UNKNOWN_INO, .st_mode = entry->mode}};

	(void)inode;
	(void)attr;
	return add(context, entry->name, &param, entry->cookie) ? 0 : 1;
}

/* "." or "..": the kernel wants only type and number of them, no reference. */
static int add_dot(struct listing *list, struct cow_inode *dir, const char *name, uint64_t cookie)
{
	struct fuse_entry_param param;
	struct cow_attr attr;
	int result = cow_getattr(dir, &attr);

	if (result)
		return result;
	memset(&param, 0, sizeof(param));
	param.attr.st_ino = attr.ino;
	param.attr.st_mode = attr.mode;
	return add(list, name, &param, cookie) ? 0 : 1;
}

static int add_dots(struct listing *list, struct cow_inode *dir, uint64_t *cookie)
{
	struct cow_inode *parent;
	int result = 0;

	if (*cookie < COOKIE_DOT)
		result = add_dot(list, dir, ".", COOKIE_DOT);
	if (!result && *cookie < COOKIE_DOTDOT) {
		result = cow_parent(dir, &parent);
		if (!result) {
			result = add_dot(list, parent, "..", COOKIE_DOTDOT);
			cow_forget(parent, 1);
		}
	}
	if (*cookie <= COOKIE_DOTDOT)
		*cookie = 0;
	return result;
}

/* The entries of a directory that was removed while it was open: none. */
static int collect(struct listing *list, struct cow_inode *dir, uint64_t cookie)
{
	int result = add_dots(list, dir, &cookie);

	list->last = cookie;
	if (!result)
		result = cow_list(dir, cookie, true, add_entry, list);
	if (result < 0 && cow_error_errno(result) == EIO)
		result = cow_list(dir, list->last, false, add_name, list);
	if (result == -ESTALE)
		result = 0;
	return result < 0 ? result : 0;
}

static void list_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus)
{
	struct cowfs *fs = cowfs_of(req);
	size_t most = size / MIN_ENTRY_BYTES + 1, start = (size + 15) & ~(size_t)15;
	struct listing list = {.req = req, .plus = plus, .size = size};
	int result = -ENOMEM;

	list.bytes = cowfs_buffer(fs, start + most * sizeof(*list.given));
	if (list.bytes) {
		list.given = (struct cow_inode **)(void *)(list.bytes + start);
		result = collect(&list, cowfs_inode(fs, ino), (uint64_t)offset);
	}
	if (!result || list.length) /* an error after some entries comes again, at the next request */
		result = fuse_reply_buf(req, list.bytes, list.length);
	else
		cowfs_reply(req, result);
	for (size_t i = 0; result && i < list.given_count; i++)
		cow_forget(list.given[i], 1);
}

void cowfs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)fi;
	list_dir(req, ino, size, offset, false);
}

void cowfs_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)fi;
	list_dir(req, ino, size, offset, true);
}
