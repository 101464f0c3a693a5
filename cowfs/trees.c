/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clone, remove, usage, diff, same and drain.  What was stored through mappings before the call belongs to the content
 * that they tell about, so it is written back first (handles.h).
 *
 * THE KERNEL'S VIEW.  What a clone or a removal changes, the kernel does not see.  Its entry for the name is expired
 * before the answer, so that the caller finds the new state at once.  What it caches below a removed directory can be
 * much, and dropping it takes long, so that is done after the answer: entry by entry below the dead directory and not
 * by the name itself, which may be somebody else's by then.  Dropping takes the lock of the directory in the kernel,
 * under which others may wait for our workers: so it has to be done here, on a thread that no request waits for.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cowfs/caller.h"
#include "cowfs/handles.h"
#include "cowfs/results.h"
#include "cowfs/service.h"
#include "cowfs/tokens.h"
#include "cowfs/trees.h"

struct ask {
	struct cowfs_job job;
	fuse_req_t req;
	struct cow_inode *inode; /* that the ioctl was made on; holds a reference */
	union {
		struct cow_ioc_clone clone;
		struct cow_ioc_remove remove;
		struct cow_ioc_usage usage;
		struct cow_ioc_diff diff;
		struct cow_ioc_same same;
	} what;
};

static void finish(struct ask *ask)
{
	cow_forget(ask->inode, 1);
	free(ask);
}

static void submit(fuse_req_t req, struct cow_inode *inode, void (*run)(struct cowfs *, struct cowfs_job *),
		   const void *what, size_t size)
{
	struct ask *ask = malloc(sizeof(*ask));
	int result;

	if (!ask) {
		cowfs_reply(req, -ENOMEM);
		return;
	}
	ask->job.run = run;
	ask->req = req;
	ask->inode = inode;
	memcpy(&ask->what, what, size);
	cow_ref(inode);
	result = cowfs_service_add(cowfs_of(req)->service, &ask->job);
	if (result) { /* at the end of the mount nothing is begun any more */
		finish(ask);
		cowfs_reply(req, result == -ESHUTDOWN ? -ENOTCONN : result);
	}
}

static struct cow_inode *redeem(struct cowfs *fs, const struct ask *ask, uint64_t token)
{
	return cowfs_token_redeem(fs->tokens, token, fuse_req_ctx(ask->req), NULL);
}

/* The caller shall find the new state at once. */
static void expire_name(struct cowfs *fs, const struct cow_inode *dir, const char *name)
{
	fuse_ino_t parent = cowfs_ino(fs, dir);

	if (fs->expire_entry)
		fuse_lowlevel_notify_expire_entry(fs->session, parent, name, strlen(name), FUSE_LL_EXPIRE_ONLY);
	else
		fuse_lowlevel_notify_inval_entry(fs->session, parent, name, strlen(name));
}

/* What is cached of the old tree goes, and the attributes and the listing of the directory. */
static void drop_name(struct cowfs *fs, const struct cow_inode *dir, const char *name)
{
	fuse_lowlevel_notify_inval_entry(fs->session, cowfs_ino(fs, dir), name, strlen(name));
}

/* Clone */

static int check_clone(struct ask *ask, const char *name)
{
	struct cow_inode *target;
	struct cow_attr attr;
	uid_t uid = fuse_req_ctx(ask->req)->uid;
	int result = cow_lookup(ask->inode, name, &target, &attr);

	if (result)
		return result;
	cow_forget(target, 1);
	return uid == 0 || uid == attr.uid ? 0 : -EPERM;
}

static void run_clone(struct cowfs *fs, struct cowfs_job *job)
{
	struct ask *ask = (struct ask *)job;
	struct cow_inode *source = redeem(fs, ask, ask->what.clone.source);
	char name[COW_IOC_CLONE_NAME_BYTES];
	int result;

	snprintf(name, sizeof(name), COW_IOC_CLONE_NAME, (unsigned long long)ask->what.clone.source);
	result = source ? check_clone(ask, name) : -ESTALE;
	if (!result)
		result = cowfs_handles_flush(fs);
	if (!result)
		result = cow_clone_over(source, ask->inode, name, ask->what.clone.flags);
	if (!result)
		drop_name(fs, ask->inode, name); /* the old target is empty: quick */
	cow_forget(source, 1);
	if (result)
		cowfs_reply(ask->req, result);
	else
		fuse_reply_ioctl(ask->req, 0, NULL, 0);
	finish(ask);
}

void cowfs_tree_clone(fuse_req_t req, struct cow_inode *dir, const struct cow_ioc_clone *ask)
{
	if (!cowfs_caller_is_trusted(req))
		cowfs_reply(req, -EPERM);
	else if (ask->flags & ~(unsigned)COW_CLONE_READ_ONLY || ask->reserved)
		cowfs_reply(req, -EINVAL);
	else
		submit(req, dir, run_clone, ask, sizeof(*ask));
}

/* Remove */

/* Top-level names of a directory that is to be removed: enough of them that what is left is dropped quickly. */
#define MAX_NAMES 4096

struct names {
	struct cowfs_text text; /* each with its NUL */
	unsigned count;
};

static int note_name(void *context, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	struct names *names = context;
	size_t size = strlen(entry->name) + 1;
	uint8_t *at;

	(void)inode;
	(void)attr;
	if (names->count++ >= MAX_NAMES)
		return 1;
	at = cowfs_text_grow(&names->text, size);
	if (!at)
		return 1;
	memcpy(at, entry->name, size);
	return 0;
}

/* What has the name, and is what the kernel let the caller remove. */
static int find_removed(struct cowfs *fs, struct ask *ask, struct cow_inode **entry, struct cow_attr *attr)
{
	uint64_t proof;
	struct cow_inode *dir = cowfs_token_redeem(fs->tokens, ask->what.remove.token, fuse_req_ctx(ask->req), &proof);
	int result = dir == ask->inode ? cow_lookup(dir, ask->what.remove.name, entry, attr) : -ESTALE;

	cow_forget(dir, 1);
	if (!result && attr->ino != proof)
		result = -EPERM;
	return result;
}

/* The removed directory keeps its node id as long as we have a reference to it. */
static void drop_below(struct cowfs *fs, const struct cow_inode *removed, const struct names *names)
{
	const char *name = (const char *)names->text.bytes, *end = name + names->text.length;

	for (; name < end; name += strlen(name) + 1)
		drop_name(fs, removed, name);
}

static void run_remove(struct cowfs *fs, struct cowfs_job *job)
{
	struct ask *ask = (struct ask *)job;
	const char *name = ask->what.remove.name;
	struct cow_inode *removed = NULL;
	struct names names = {0};
	struct cow_attr attr;
	int result = find_removed(fs, ask, &removed, &attr);

	if (!result) /* a damaged one can be removed, too */
		(void)!cow_list(removed, 0, false, note_name, &names);
	if (!result)
		result = cow_remove_tree(ask->inode, name);
	if (result) {
		cowfs_reply(ask->req, result);
	} else {
		expire_name(fs, ask->inode, name);
		cowfs_handles_expire_dead(fs); /* without memory for that, st_nlink of open files is late */
		fuse_reply_ioctl(ask->req, 0, NULL, 0);
		drop_below(fs, removed, &names);
	}
	free(names.text.bytes);
	cow_forget(removed, 1);
	finish(ask);
}

void cowfs_tree_remove(fuse_req_t req, struct cow_inode *dir, const struct cow_ioc_remove *ask)
{
	if (!cowfs_caller_is_trusted(req))
		cowfs_reply(req, -EPERM);
	else if (!memchr(ask->name, '\0', sizeof(ask->name)))
		cowfs_reply(req, -EINVAL);
	else
		submit(req, dir, run_remove, ask, sizeof(*ask));
}

/* Usage */

static void run_usage(struct cowfs *fs, struct cowfs_job *job)
{
	struct ask *ask = (struct ask *)job;
	struct cow_ioc_usage *out = &ask->what.usage;
	struct cow_usage usage;
	int result = cowfs_handles_flush(fs);

	if (!result)
		result = cow_usage(ask->inode, out->with_exclusive, &usage);
	if (result) {
		cowfs_reply(ask->req, result);
	} else {
		out->files = usage.files;
		out->directories = usage.directories;
		out->apparent_bytes = usage.apparent_bytes;
		out->total_bytes = usage.total_bytes;
		out->exclusive_bytes = out->with_exclusive ? usage.exclusive_bytes : 0;
		fuse_reply_ioctl(ask->req, 0, out, sizeof(*out));
	}
	finish(ask);
}

void cowfs_tree_usage(fuse_req_t req, struct cow_inode *inode, const struct cow_ioc_usage *ask)
{
	if (!cowfs_caller_is_trusted(req))
		cowfs_reply(req, -EPERM);
	else
		submit(req, inode, run_usage, ask, sizeof(*ask));
}

/* Diff */

static void put_u16(uint8_t *at, size_t value)
{
	at[0] = (uint8_t)value;
	at[1] = (uint8_t)(value >> 8);
}

static void put_u32(uint8_t *at, uint32_t value)
{
	put_u16(at, value & 0xffff);
	put_u16(at + 2, value >> 16);
}

struct answer {
	struct cowfs *fs;
	fuse_req_t req;
	struct cowfs_text text;
};

/* The layout is in cow_ioctl.h, at COW_IOC_DIFF.  A caller that was interrupted, or the end, does not wait for more. */
static int write_change(void *context, const struct cow_change *change)
{
	struct answer *answer = context;
	size_t length = strlen(change->path), old_length = change->old_path ? strlen(change->old_path) : 0;
	uint8_t *at;

	if (fuse_req_interrupted(answer->req) || atomic_load(&answer->fs->ending))
		return -EINTR;
	if (length > UINT16_MAX || old_length > UINT16_MAX)
		return -ENAMETOOLONG;
	at = cowfs_text_grow(&answer->text, 16 + length + old_length);
	if (!at)
		return -ENOMEM;
	at[0] = (uint8_t)change->type;
	at[1] = change->content;
	put_u16(at + 2, length);
	put_u16(at + 4, old_length);
	put_u16(at + 6, 0);
	put_u32(at + 8, change->old_mode);
	put_u32(at + 12, change->new_mode);
	memcpy(at + 16, change->path, length);
	if (old_length)
		memcpy(at + 16 + length, change->old_path, old_length);
	return 0;
}

static void run_diff(struct cowfs *fs, struct cowfs_job *job)
{
	struct ask *ask = (struct ask *)job;
	struct cow_ioc_diff *out = &ask->what.diff;
	struct cow_inode *old = redeem(fs, ask, out->old_token);
	struct answer answer = {.fs = fs, .req = ask->req};
	int result = old ? cowfs_handles_flush(fs) : -ESTALE;

	if (!result)
		result = cow_diff(old, ask->inode, out->expand, write_change, &answer);
	out->size = answer.text.length;
	if (!result)
		result = cowfs_result_add(fs->results, &answer.text, &out->result);
	free(answer.text.bytes);
	cow_forget(old, 1);
	if (result)
		cowfs_reply(ask->req, result);
	else
		fuse_reply_ioctl(ask->req, 0, out, sizeof(*out));
	finish(ask);
}

void cowfs_tree_diff(fuse_req_t req, struct cow_inode *inode, const struct cow_ioc_diff *ask)
{
	if (!cowfs_caller_is_trusted(req))
		cowfs_reply(req, -EPERM);
	else
		submit(req, inode, run_diff, ask, sizeof(*ask));
}

/* Same */

static void run_same(struct cowfs *fs, struct cowfs_job *job)
{
	struct ask *ask = (struct ask *)job;
	struct cow_ioc_same *out = &ask->what.same;
	struct cow_inode *other = redeem(fs, ask, out->other_token);
	int result = other ? cowfs_handles_flush(fs) : -ESTALE;

	if (!result)
		result = cow_same(other, ask->inode);
	cow_forget(other, 1);
	if (result < 0) {
		cowfs_reply(ask->req, result);
	} else {
		out->same = (uint32_t)result;
		fuse_reply_ioctl(ask->req, 0, out, sizeof(*out));
	}
	finish(ask);
}

void cowfs_tree_same(fuse_req_t req, struct cow_inode *inode, const struct cow_ioc_same *ask)
{
	if (!cowfs_caller_is_trusted(req))
		cowfs_reply(req, -EPERM);
	else
		submit(req, inode, run_same, ask, sizeof(*ask));
}

/* Drain */

static void run_drain(struct cowfs *fs, struct cowfs_job *job)
{
	struct ask *ask = (struct ask *)job;
	int result = cow_drain(fs->volume);

	if (result)
		cowfs_reply(ask->req, result);
	else
		fuse_reply_ioctl(ask->req, 0, NULL, 0);
	finish(ask);
}

void cowfs_tree_drain(fuse_req_t req, struct cow_inode *inode)
{
	submit(req, inode, run_drain, "", 0);
}
