/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/caller.h"

#include <errno.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"

#define BLOCK COW_BLOCK_BYTES
#define FAR 6000u        /* blocks: how far apart places in a file are */
#define FEW 4u           /* names of what is worth coming back to */
#define IN_A_ROW 60u     /* writes of a call that makes many extents */
#define TARGET_BYTES 590u
#define DIFF_ENTRIES 20000u
#define SELDOM 200u      /* one of so many: what may take long */
#define DIFF_CHANGES 500

/* The arguments of one call: a directory, and which of its names. */
struct where {
	struct cow_inode *dir;
	unsigned name;
};

typedef int64_t call_fn(struct caller *caller, const struct where *at);

static unsigned below(struct caller *caller, unsigned n)
{
	return (unsigned)rng_below(&caller->rng, n);
}

static bool one_in(struct caller *caller, unsigned n)
{
	return below(caller, n) == 0;
}

const char *caller_name(char name[static 48], const char *stem, unsigned number)
{
	snprintf(name, 48, "%s%u", stem, number);
	return name;
}

/* A directory, found by a random walk from a place. The reference is the caller's. */
static struct cow_inode *walk(struct caller *caller)
{
	struct cow_inode *dir, *next;
	struct cow_attr attr;
	char name[48];

	if (cow_lookup(caller->root, caller_name(name, "place", below(caller, CALLER_PLACES)), &dir, &attr) != 0) {
		cow_ref(caller->root);
		return caller->root;
	}
	for (unsigned depth = below(caller, 4); depth > 0; depth--) {
		const char *stem = one_in(caller, 3) ? "c" : "d";

		caller_name(name, stem, below(caller, one_in(caller, 4) ? caller->names : FEW));
		if (cow_lookup(dir, name, &next, &attr) != 0)
			break;
		if (!S_ISDIR(attr.mode)) {
			cow_forget(next, 1);
			break;
		}
		cow_forget(dir, 1);
		dir = next;
	}
	return dir;
}

/* A file in `dir`, or NULL; its name. */
static struct cow_inode *find(struct caller *caller, struct cow_inode *dir, char name[static 48])
{
	struct cow_inode *file;
	struct cow_attr attr;

	if (one_in(caller, 8))
		caller_name(name, "x", below(caller, FEW));
	else if (one_in(caller, 6))
		caller_name(name, "c", below(caller, FEW));
	else
		caller_name(name, "f", below(caller, caller->names));
	return cow_lookup(dir, name, &file, &attr) == 0 ? file : NULL;
}

static int make(struct cow_inode *dir, const char *name, mode_t type, struct cow_inode **inode)
{
	struct cow_new new = {.mode = type | 0755};

	return cow_create(dir, name, &new, inode, NULL);
}

static uint64_t far(struct caller *caller)
{
	return (uint64_t)below(caller, FAR) * BLOCK;
}

/* ---- calls that make and remove names */

static int64_t create(struct caller *caller, const struct where *at)
{
	char name[48];

	(void)caller;
	return make(at->dir, caller_name(name, "f", at->name), S_IFREG, NULL);
}

static int64_t make_dir(struct caller *caller, const struct where *at)
{
	char name[48];

	(void)caller;
	return make(at->dir, caller_name(name, "d", at->name), S_IFDIR, NULL);
}

static int64_t make_symlink(struct caller *caller, const struct where *at)
{
	char target[TARGET_BYTES + 1] = {0}, name[48];
	struct cow_new new = {.mode = S_IFLNK | 0777, .target = target};

	memset(target, 'x', 1 + below(caller, TARGET_BYTES));
	return cow_create(at->dir, caller_name(name, "f", at->name), &new, NULL, NULL);
}

static int64_t make_link(struct caller *caller, const struct where *at)
{
	struct cow_inode *file, *other;
	char name[48];
	int error;

	if ((file = find(caller, at->dir, name)) == NULL)
		return -ENOENT;
	other = walk(caller);
	error = cow_link(file, one_in(caller, 2) ? at->dir : other, caller_name(name, "f", at->name), NULL);
	cow_forget(other, 1);
	cow_forget(file, 1);
	return error;
}

static int64_t unlink_name(struct caller *caller, const struct where *at)
{
	char name[48];

	return cow_unlink(at->dir, caller_name(name, one_in(caller, 3) ? "c" : "f", at->name));
}

static int64_t unlink_few(struct caller *caller, const struct where *at)
{
	char name[48];

	return cow_unlink(at->dir, caller_name(name, "x", below(caller, FEW)));
}

static int64_t remove_dir(struct caller *caller, const struct where *at)
{
	char name[48];

	(void)caller;
	return cow_rmdir(at->dir, caller_name(name, "d", at->name));
}

static int64_t remove_tree(struct caller *caller, const struct where *at)
{
	const char *stem = one_in(caller, 2) ? "c" : one_in(caller, 3) ? "d" : "f";
	char name[48];

	return cow_remove_tree(at->dir, caller_name(name, stem, at->name));
}

static int64_t rename_name(struct caller *caller, const struct where *at)
{
	const char *stem = one_in(caller, 2) ? "f" : one_in(caller, 2) ? "d" : "c";
	unsigned flags = one_in(caller, 4) ? 1 + below(caller, 2) : 0;
	struct cow_inode *other = walk(caller);
	char name[48], to[48];
	int error;

	caller_name(to, stem, below(caller, caller->names));
	error = cow_rename(at->dir, caller_name(name, stem, at->name), one_in(caller, 2) ? at->dir : other, to, flags);
	cow_forget(other, 1);
	return error;
}

/* ---- calls that clone */

static int64_t clone_tree(struct caller *caller, const struct where *at)
{
	struct cow_inode *from, *to = walk(caller);
	unsigned flags = one_in(caller, 6) ? COW_CLONE_READ_ONLY : 0;
	struct cow_attr attr;
	int error = 0;
	char name[48];

	if (one_in(caller, 3))
		cow_ref(from = at->dir);
	else
		error = cow_lookup(at->dir, caller_name(name, "d", below(caller, FEW)), &from, &attr);
	if (error == 0) {
		error = cow_clone(from, to, caller_name(name, "c", at->name), flags, NULL, NULL);
		cow_forget(from, 1);
	}
	cow_forget(to, 1);
	return error;
}

static int64_t clone_file(struct caller *caller, const struct where *at)
{
	struct cow_inode *from, *to;
	char name[48];
	int error;

	if ((from = find(caller, at->dir, name)) == NULL)
		return -ENOENT;
	to = walk(caller);
	error = cow_clone(from, to, caller_name(name, "c", at->name), 0, NULL, NULL);
	cow_forget(to, 1);
	cow_forget(from, 1);
	return error;
}

static int64_t clone_over(struct caller *caller, const struct where *at)
{
	struct cow_inode *from, *to;
	char name[48];
	int error;

	if ((from = find(caller, at->dir, name)) == NULL)
		return -ENOENT;
	to = walk(caller);
	(void)!make(to, caller_name(name, "o", at->name), S_IFREG, NULL);
	error = cow_clone_over(from, to, name, 0);
	cow_forget(to, 1);
	cow_forget(from, 1);
	return error;
}

static int64_t copy_range(struct caller *caller, const struct where *at)
{
	uint64_t length = (uint64_t)below(caller, FAR) * BLOCK + below(caller, 2) * 100, source = far(caller);
	struct cow_inode *dir = walk(caller), *from, *to = NULL;
	int64_t n = -ENOENT;
	char name[48];

	if ((from = find(caller, at->dir, name)) != NULL && (to = find(caller, dir, name)) != NULL)
		n = cow_copy_range(from, one_in(caller, 4) ? source + 3 : source, to, far(caller), length);
	if (to != NULL)
		cow_forget(to, 1);
	if (from != NULL)
		cow_forget(from, 1);
	cow_forget(dir, 1);
	return n;
}

/* A file of extents that each lie somewhere else. */
static int64_t copy_pieces(struct caller *caller, const struct where *at)
{
	struct cow_inode *dir, *from, *to;
	char name[48];
	int64_t n;

	if ((from = find(caller, at->dir, name)) == NULL)
		return -ENOENT;
	dir = walk(caller);
	n = make(dir, caller_name(name, "x", below(caller, FEW)), S_IFREG, &to);
	if (n == 0) {
		for (uint64_t i = 0; i < IN_A_ROW && n >= 0; i++)
			n = cow_copy_range(from, 2 * i * BLOCK, to, 3 * i * BLOCK, BLOCK);
		cow_forget(to, 1);
	}
	cow_forget(dir, 1);
	cow_forget(from, 1);
	return n;
}

/* ---- calls on one file */

static int64_t write_file(struct caller *caller, struct cow_inode *file)
{
	size_t length = 1 + below(caller, one_in(caller, 3) ? 60000 : 400);
	uint64_t offset = one_in(caller, 3) ? far(caller) + below(caller, 2) * 77 : 0;

	return cow_write(file, caller->bytes + below(caller, BLOCK), length, offset, one_in(caller, 2));
}

/* Extents with holes in between. */
static int64_t write_pieces(struct caller *caller, struct cow_inode *file)
{
	uint64_t from = below(caller, FAR / 2);
	int64_t n = 0;

	for (uint64_t i = 0; i < IN_A_ROW && n >= 0; i++)
		n = cow_write(file, caller->bytes + i, BLOCK, (from + 2 * i) * BLOCK, false);
	return n;
}

static int64_t set_size(struct caller *caller, struct cow_inode *file)
{
	struct cow_attr attr = {.size = below(caller, one_in(caller, 2) ? FAR * BLOCK : 10000)};

	return cow_setattr(file, &attr, COW_SET_SIZE, NULL);
}

static int64_t set_mode(struct caller *caller, struct cow_inode *file)
{
	struct cow_attr attr = {.mode = 0600 + below(caller, 64)};

	return cow_setattr(file, &attr, COW_SET_MODE, NULL);
}

static int64_t punch(struct caller *caller, struct cow_inode *file)
{
	return cow_fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, far(caller) + below(caller, 2) * 5,
			     1 + far(caller));
}

static int64_t zero(struct caller *caller, struct cow_inode *file)
{
	return cow_fallocate(file, FALLOC_FL_ZERO_RANGE, far(caller) + below(caller, 2) * 5, 1 + far(caller));
}

static int64_t allocate(struct caller *caller, struct cow_inode *file)
{
	return cow_fallocate(file, one_in(caller, 2) ? FALLOC_FL_KEEP_SIZE : 0, far(caller), 1 + far(caller) / 20);
}

static int64_t set_xattr(struct caller *caller, struct cow_inode *file)
{
	char name[48];

	return cow_setxattr(file, caller_name(name, "user.x", below(caller, 6)), caller->bytes,
			    below(caller, one_in(caller, 3) ? 65536 : 200), 0);
}

static int64_t remove_xattr(struct caller *caller, struct cow_inode *file)
{
	char name[48];

	return cow_removexattr(file, caller_name(name, "user.x", below(caller, 6)));
}

static int64_t sync_file(struct caller *caller, struct cow_inode *file)
{
	(void)caller;
	return cow_fsync(file);
}

/* ---- calls on what is open */

static int64_t make_nameless(struct caller *caller, const struct where *at)
{
	struct cow_inode *file;
	char name[48];
	int error;

	if (caller->held_count == CALLER_HELD)
		return 0;
	error = make(at->dir, NULL, S_IFREG, &file);
	if (error != 0)
		return error;
	(void)!cow_write(file, caller->bytes, 1 + below(caller, 9000), 0, false);
	if (one_in(caller, 2))
		(void)!cow_link(file, at->dir, caller_name(name, "f", at->name), NULL);
	caller->held[caller->held_count++] = file;
	return 0;
}

static int64_t hold(struct caller *caller, const struct where *at)
{
	struct cow_inode *file;
	char name[48];
	int error;

	if (caller->held_count == CALLER_HELD || (file = find(caller, at->dir, name)) == NULL)
		return 0;
	error = cow_hold(file);
	if (error != 0) {
		cow_forget(file, 1);
		return error;
	}
	caller->held[caller->held_count++] = file;
	return one_in(caller, 2) ? cow_unlink(at->dir, name) : 0;
}

static int64_t write_held(struct caller *caller, const struct where *at)
{
	(void)at;
	return caller->held_count > 0 ? write_file(caller, caller->held[below(caller, caller->held_count)]) : 0;
}

static int64_t sync_held(struct caller *caller, const struct where *at)
{
	(void)at;
	return caller->held_count > 0 ? cow_fsync(caller->held[below(caller, caller->held_count)]) : 0;
}

static void let_go(struct caller *caller, unsigned which)
{
	struct cow_inode *file = caller->held[which];

	caller->held[which] = caller->held[--caller->held_count];
	cow_release(file);
	cow_forget(file, 1);
}

static int64_t let_some_go(struct caller *caller, const struct where *at)
{
	(void)at;
	for (unsigned i = 1 + below(caller, 40); i > 0 && caller->held_count > 0; i--)
		let_go(caller, below(caller, caller->held_count));
	return 0;
}

void caller_let_go(struct caller *caller)
{
	while (caller->held_count > 0)
		let_go(caller, caller->held_count - 1);
}

/* ---- calls that look; some enter worlds, which gives them colours */

static int64_t stat_dir(struct caller *caller, const struct where *at)
{
	struct cow_attr attr;

	(void)caller;
	return cow_getattr(at->dir, &attr);
}

static int count_change(void *context, const struct cow_change *change)
{
	int *count = context;

	(void)change;
	return ++*count > DIFF_CHANGES;
}

static int64_t diff(struct caller *caller, const struct where *at)
{
	struct cow_inode *other;
	struct cow_usage a, b;
	int count = 0, error;

	if (!one_in(caller, SELDOM))
		return 0;
	other = walk(caller);
	error = cow_usage(at->dir, false, &a);
	if (error == 0)
		error = cow_usage(other, false, &b);
	if (error == 0 && a.files + a.directories + b.files + b.directories < DIFF_ENTRIES)
		error = cow_diff(at->dir, other, true, count_change, &count);
	cow_forget(other, 1);
	return error > 0 ? 0 : error;
}

/* ---- */

static const struct call {
	const char *name;
	bool adds;     /* much of it may be there already */
	call_fn *call; /* or: */
	int64_t (*on_file)(struct caller *caller, struct cow_inode *file);
} calls[] = {
	{"make a directory", true, make_dir, NULL},
	{"create", true, create, NULL},
	{"make a symlink", false, make_symlink, NULL},
	{"link", true, make_link, NULL},
	{"unlink", false, unlink_name, NULL},
	{"unlink one of a few", false, unlink_few, NULL},
	{"rmdir", false, remove_dir, NULL},
	{"remove a tree", false, remove_tree, NULL},
	{"rename", false, rename_name, NULL},
	{"clone a tree", true, clone_tree, NULL},
	{"clone a file", true, clone_file, NULL},
	{"clone over", false, clone_over, NULL},
	{"copy a range", false, copy_range, NULL},
	{"copy pieces", false, copy_pieces, NULL},
	{"write", false, NULL, write_file},
	{"write again", false, NULL, write_file}, /* the most frequent one */
	{"write pieces", true, NULL, write_pieces},
	{"truncate", false, NULL, set_size},
	{"chmod", false, NULL, set_mode},
	{"punch", false, NULL, punch},
	{"zero", false, NULL, zero},
	{"allocate", false, NULL, allocate},
	{"setxattr", true, NULL, set_xattr},
	{"removexattr", false, NULL, remove_xattr},
	{"fsync", false, NULL, sync_file},
	{"make without a name", false, make_nameless, NULL},
	{"open", false, hold, NULL},
	{"write to an open file", false, write_held, NULL},
	{"fsync an open file", false, sync_held, NULL},
	{"close", false, let_some_go, NULL},
	{"stat", false, stat_dir, NULL},
	{"diff", false, diff, NULL},
};
#define CALLS (sizeof(calls) / sizeof(*calls))

static int64_t do_call(struct caller *caller, const struct call *call, const struct where *at)
{
	struct cow_inode *file;
	int64_t answer;
	char name[48];

	if (call->call != NULL)
		return call->call(caller, at);
	if ((file = find(caller, at->dir, name)) == NULL)
		return -ENOENT;
	answer = call->on_file(caller, file);
	cow_forget(file, 1);
	return answer;
}

/* What a volume may say to one who does not look where he goes. */
static bool is_fair(int64_t answer)
{
	static const int fair[] = {0, ENOSPC, EEXIST, ENOENT, EXDEV, EMLINK, EROFS, EINVAL, ENOTEMPTY, EISDIR,
				   ENOTDIR, ESTALE, ENODATA, EPERM, ERANGE, E2BIG, ENXIO};
	int error = answer < 0 ? cow_error_errno((int)answer) : 0;

	for (unsigned i = 0; i < sizeof(fair) / sizeof(*fair); i++)
		if (error == fair[i])
			return true;
	return false;
}

static bool repeat(struct caller *caller, const struct call *call, unsigned times)
{
	bool one_place = one_in(caller, 2);
	struct where at = {walk(caller), below(caller, caller->names)};
	unsigned refused = 0;

	caller->call = call->name;
	caller->times = times;
	caller->answer = 0;
	for (unsigned i = 0; i < times && refused < 12 && is_fair(caller->answer); i++) {
		if (!one_place) {
			cow_forget(at.dir, 1);
			at.dir = walk(caller);
		}
		at.name = one_place ? (at.name + 1) % caller->names : below(caller, caller->names);
		caller->answer = do_call(caller, call, &at);
		refused += caller->answer == -ENOSPC;
	}
	cow_forget(at.dir, 1);
	return is_fair(caller->answer);
}

bool caller_burst(struct caller *caller)
{
	const struct call *call = &calls[below(caller, CALLS)];

	return repeat(caller, call, 1 + below(caller, one_in(caller, 3) ? 400 : 20));
}

void caller_settle(struct caller *caller)
{
	for (unsigned i = 0; i < CALLS; i++)
		if (calls[i].adds && one_in(caller, 2))
			(void)repeat(caller, &calls[i], 1 + below(caller, 2 * caller->names));
	for (unsigned i = 0; i < 30; i++)
		(void)caller_burst(caller);
}

void caller_start(struct caller *caller, uint64_t seed, unsigned names)
{
	*caller = (struct caller){.rng = {seed}, .names = names, .bytes = cow_mem_new(CALLER_BYTES)};
	for (size_t i = 0; i < CALLER_BYTES; i++)
		caller->bytes[i] = (uint8_t)rng_next(&caller->rng);
}

void caller_stop(struct caller *caller)
{
	free(caller->bytes);
	caller->bytes = NULL;
}
