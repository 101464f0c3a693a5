/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replay does what was done: random operations, fsync at random moments, then the power goes. The volume must be what
 * it was at the last fsync, to the nanosecond: names, inode numbers, link counts, attributes, the content of what was
 * synced, and of all other files the content that they had when they were last made durable.
 *
 * The engine itself, alive, is what is compared with: a picture of the whole tree is taken when fsync has returned. In
 * half of the runs it is taken by a forked child, so that looking changes nothing (who looks gets inode numbers).
 *
 * COW_REPLAY=n: so many seeds. COW_SEED=s: only this one. COW_TRACE=1: tells each operation.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "audit/check.h"
#include "base/mem.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "fs/reclaim/reclaim.h"
#include "test/lib/op.h"
#include "test/lib/simdisk.h"

#define SIZE (48u << 20)
#define SMALL_SIZE (16u << 20)
#define LARGE_FILE 300000u
#define BALLAST 4000000u /* a file that is only there */
#define ENTRIES 700u
#define KNOWN 800u
#define HANDLES 6u
#define CARRIED 100u
#define NAMES 5u
#define FILE_BYTES 9000u

/* ------------------------------------------------------------------ a picture of the tree */

struct entry {
	char path[120];
	uint64_t ino; /* 0: nobody had asked for it */
	uint64_t size, hash, xattrs;
	uint32_t mode, nlink, uid, gid, rdev;
	struct timespec atime, mtime, ctime, btime;
	bool clone, read_only;
	bool stale; /* a file with changes that were not made durable: size and hash are those before them */
	uint64_t sealed_size, sealed_hash; /* stale, in the middle of a commit: or these */
};

struct picture {
	unsigned count;
	bool full; /* more than there is room for: nothing can be said */
	struct entry entries[ENTRIES];
};

/* What is durable of a file that was changed in memory. */
struct known {
	uint64_t colour, number, size, hash, sealed_size, sealed_hash;
	bool dirty;
};

struct run {
	struct rng rng;
	uint64_t seed;
	bool unseen; /* pictures are taken by a child */
	bool small;  /* space runs out: then numbers may be known in memory only, and are others afterwards */
	bool trace;
	struct cow_dev *disk;
	struct cow_volume *volume;
	struct cow_inode *root;
	struct cow_inode *held[HANDLES];
	struct cow_inode *carried[CARRIED]; /* renamed over another since the last fsync: promised */
	unsigned carried_count;
	struct known known[KNOWN];
	unsigned known_count;
	struct picture *durable, *seen; /* what must be there after a crash; what is. Shared with children. */
	bool in_hook;
	unsigned hook_at;
	struct cow_dev *cut; /* made in the middle of a commit */
	uint64_t generation;
	bool lie; /* after each crash, try other logs */
	unsigned lies, believed;
	unsigned fsyncs, commits, crashes, in_flight;
};

__attribute__((format(printf, 2, 3))) static void tell(struct run *r, const char *format, ...)
{
	va_list args;

	if (!r->trace)
		return;
	va_start(args, format);
	fprintf(stderr, "%s", r->in_hook ? "    " : "  ");
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

__attribute__((format(printf, 2, 3), noreturn)) static void bug(struct run *r, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "COW_SEED=%llu: ", (unsigned long long)r->seed);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	abort();
}

static void quiet(void *context, enum cow_log_level level, const char *text)
{
	struct run *r = context;

	if (level == COW_LOG_ERROR)
		bug(r, "the volume says: %s", text);
}

/* ------------------------------------------------------------------ content */

static void content_of(struct run *r, struct cow_inode *i, uint64_t *size, uint64_t *hash)
{
	uint8_t *bytes;
	int64_t length;

	*size = i->size;
	*hash = 0;
	if (i->size >= BALLAST)
		return;
	if (S_ISREG(i->mode)) {
		bytes = cow_mem_new(i->size + 1);
		length = cow_read(i, bytes, i->size + 1, 0);
	} else if (S_ISLNK(i->mode)) {
		bytes = cow_mem_new(COW_SYMLINK_MAX);
		length = cow_readlink(i, (char *)bytes, COW_SYMLINK_MAX);
	} else {
		return;
	}
	if (length != (int64_t)i->size && length != -ESTALE) /* its last name went */
		bug(r, "reading %llu bytes gives %lld", (unsigned long long)i->size, (long long)length);
	*hash = length >= 0 ? XXH3_64bits(bytes, (size_t)length) : 0;
	free(bytes);
}

static uint64_t xattrs_of(struct cow_inode *i)
{
	char list[2000];
	uint8_t value[4000];
	uint64_t hash = 0;
	int length = cow_listxattr(i, list, sizeof(list));

	for (int at = 0; at < length; at += (int)strlen(list + at) + 1) {
		int n = cow_getxattr(i, list + at, value, sizeof(value));
		assert_true(n >= 0);
		hash = XXH3_64bits_withSeed(value, (size_t)n, hash + XXH3_64bits(list + at, strlen(list + at)));
	}
	return hash + (uint64_t)(length < 0 ? length : 0);
}

static struct known *find_known(struct run *r, const struct cow_inode *i)
{
	for (unsigned k = 0; k < r->known_count; k++)
		if (r->known[k].colour == i->colour && r->known[k].number == i->number)
			return &r->known[k];
	return NULL;
}

/* Before its content or times change. */
static struct known *know(struct run *r, struct cow_inode *i)
{
	struct known *k = find_known(r, i);

	if (k != NULL)
		return k;
	if (r->known_count == KNOWN)
		bug(r, "too many files");
	k = &r->known[r->known_count++];
	*k = (struct known){.colour = i->colour, .number = i->number};
	content_of(r, i, &k->size, &k->hash);
	k->sealed_size = k->size;
	k->sealed_hash = k->hash;
	return k;
}

static void is_durable(struct run *r, struct cow_inode *i)
{
	struct known *k = find_known(r, i);

	if (k == NULL)
		return;
	content_of(r, i, &k->size, &k->hash);
	k->dirty = false;
}

/* ------------------------------------------------------------------ taking it */

struct walk {
	struct run *r;
	struct picture *picture;
	struct cow_inode *dir;
	const char *path;
};

static void walk_dir(struct run *r, struct picture *p, struct cow_inode *dir, const char *path);

static int walk_entry(void *context, const struct cow_entry *listed, struct cow_inode *none,
		      const struct cow_attr *no_attr)
{
	struct walk *w = context;
	struct cow_inode *i;
	struct known *k;
	struct cow_attr attr;
	struct entry *e;

	(void)none, (void)no_attr;
	if (w->picture->count == ENTRIES) {
		w->picture->full = true;
		return 1;
	}
	e = &w->picture->entries[w->picture->count++];
	*e = (struct entry){0};
	snprintf(e->path, sizeof(e->path), "%s/%s", w->path, listed->name);
	if (cow_lookup(w->dir, listed->name, &i, NULL) != 0)
		bug(w->r, "%s is not found", e->path);
	e->ino = w->r->unseen ? i->ino : 1;
	if (cow_getattr(i, &attr) != 0)
		bug(w->r, "%s has no attributes", e->path);
	e->ino = e->ino != 0 ? attr.ino : 0;
	e->mode = attr.mode;
	e->nlink = attr.nlink;
	e->uid = attr.uid;
	e->gid = attr.gid;
	e->rdev = attr.rdev;
	e->atime = attr.atime;
	e->mtime = attr.mtime;
	e->ctime = attr.ctime;
	e->btime = attr.btime;
	e->clone = attr.is_clone;
	e->read_only = attr.read_only;
	e->xattrs = xattrs_of(i);
	content_of(w->r, i, &e->size, &e->hash);
	k = S_ISDIR(attr.mode) ? NULL : find_known(w->r, i);
	if (k != NULL && k->dirty) {
		e->stale = true;
		e->size = k->size;
		e->hash = k->hash;
		e->sealed_size = k->sealed_size;
		e->sealed_hash = k->sealed_hash;
	} else if (k != NULL && (k->size != e->size || k->hash != e->hash)) {
		bug(w->r, "%s: the test has lost track of it", e->path);
	}
	if (S_ISDIR(attr.mode) && strlen(e->path) < 80)
		walk_dir(w->r, w->picture, i, e->path);
	cow_forget(i, 1);
	return 0;
}

static void walk_dir(struct run *r, struct picture *p, struct cow_inode *dir, const char *path)
{
	struct walk w = {r, p, dir, path};

	if (cow_list(dir, 0, false, walk_entry, &w) < 0)
		bug(r, "%s cannot be listed", path);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->path, ((const struct entry *)b)->path);
}

static void take_picture(struct run *r, struct picture *p)
{
	int status;
	pid_t child = r->unseen ? fork() : 0;

	if (child == 0) {
		p->count = 0;
		p->full = false;
		walk_dir(r, p, r->root, "");
		qsort(p->entries, p->count, sizeof(p->entries[0]), by_path);
		if (r->unseen)
			_exit(0);
	} else if (waitpid(child, &status, 0) != child || status != 0) {
		bug(r, "the child failed");
	}
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static void compare_entry(struct run *r, const struct entry *was, const struct entry *is)
{
	const char *what = NULL;

	if (!r->small && was->ino != 0 && is->ino != 0 && was->ino != is->ino)
		what = "ino";
	else if ((was->mode & S_IFMT) != (is->mode & S_IFMT) || was->nlink != is->nlink || was->rdev != is->rdev)
		what = "type or links";
	else if (was->uid != is->uid || was->gid != is->gid || was->xattrs != is->xattrs)
		what = "owner or xattrs";
	else if (was->clone != is->clone || was->read_only != is->read_only)
		what = "clone";
	else if ((was->size != is->size || was->hash != is->hash) &&
		 (!was->stale || was->sealed_size != is->size || was->sealed_hash != is->hash))
		what = "content";
	else if (!was->stale && was->mode != is->mode)
		what = "mode";
	else if (!was->stale && (!same_time(was->mtime, is->mtime) || !same_time(was->atime, is->atime) ||
				 !same_time(was->ctime, is->ctime) || !same_time(was->btime, is->btime)))
		what = "times";
	if (what != NULL)
		bug(r, "%s: %s differs (mode %o, %o; ino %llu, %llu; links %u, %u; size %llu, %llu%s)", was->path, what,
		    was->mode, is->mode, (unsigned long long)was->ino, (unsigned long long)is->ino, was->nlink,
		    is->nlink, (unsigned long long)was->size, (unsigned long long)is->size,
		    was->stale ? ", stale" : "");
}

static void compare(struct run *r)
{
	const struct picture *was = r->durable, *is = r->seen;

	take_picture(r, r->seen);
	for (unsigned i = 0; i < was->count && i < is->count && !was->full; i++) {
		int order = strcmp(was->entries[i].path, is->entries[i].path);
		if (order != 0)
			bug(r, "%s is %s", order < 0 ? was->entries[i].path : is->entries[i].path,
			    order < 0 ? "lost" : "there though it should not");
		compare_entry(r, &was->entries[i], &is->entries[i]);
	}
	if (was->count != is->count && !was->full)
		bug(r, "%u entries, not %u", is->count, was->count);
}

/* ------------------------------------------------------------------ crash */

int cow_check_device(struct cow_dev *dev, const struct cow_check_options *options, struct cow_check_result *result);

static void on_finding(void *context, const struct cow_finding *finding)
{
	bug(context, "check: %d: %s", finding->number, finding->text);
}

static void check(struct run *r)
{
	struct cow_check_options options = {.finding = on_finding, .context = r, .data = true};
	struct cow_check_result result;

	if (cow_check_device(r->disk, &options, &result) != 0)
		bug(r, "check failed");
}

static uint64_t generation(struct run *r)
{
	struct cow_info info;

	assert_int_equal(cow_info(r->volume, &info), 0);
	return info.generation;
}

static void open_volume(struct run *r, bool read_only)
{
	struct cow_open_options options = {
		.no_threads = true, .read_only = read_only, .log = quiet, .log_context = r,
		.cache_bytes = r->seed % 3 == 0 ? 65536 : 0,
	};
	int error = cow_volume_open(simdisk_attach(r->disk), &options, &r->volume);

	if (error != 0)
		bug(r, "cannot be opened: %s", cow_error_text(error));
	assert_int_equal(cow_root(r->volume, &r->root), 0);
	r->generation = generation(r);
	r->known_count = 0;
}

static void leave_volume(struct run *r)
{
	for (unsigned i = 0; i < HANDLES; i++)
		r->held[i] = NULL;
	r->carried_count = 0;
	cow_volume_abandon(r->volume);
	r->volume = NULL;
}

/* Once in a while the power goes again while the log is being replayed. */
static void cut_replay(struct run *r)
{
	uint64_t first = cow_sim_events(r->disk), events;
	struct cow_dev *left;

	open_volume(r, false);
	leave_volume(r);
	events = cow_sim_events(r->disk) - first;
	left = cow_sim_cut(r->disk, first + rng_below(&r->rng, events + 1), COW_SIM_RANDOM, rng_next(&r->rng));
	cow_dev_close(r->disk);
	r->disk = left;
	check(r);
}

static void try_lies(struct run *r);

static void crash(struct run *r)
{
	struct cow_dev *left = r->cut;

	tell(r, "crash%s", left != NULL ? " in the middle of a commit" : "");
	if (left == NULL)
		left = cow_sim_cut(r->disk, cow_sim_events(r->disk), COW_SIM_DROP, 0);
	leave_volume(r);
	cow_dev_close(r->disk);
	r->disk = left;
	r->cut = NULL;
	r->crashes++;
	check(r);
	if (r->lie)
		try_lies(r);
	if (rng_chance(&r->rng, 30)) {
		open_volume(r, true);
		compare(r);
		cow_forget(r->root, 1);
		assert_int_equal(cow_close(r->volume), 0);
	}
	while (rng_chance(&r->rng, 25))
		cut_replay(r);
	open_volume(r, false);
	compare(r);
	if (rng_chance(&r->rng, 30))
		check(r);
	r->durable->full = false;
	take_picture(r, r->durable);
}

/* ------------------------------------------------------------------ choosing */

static void name_for(struct run *r, char name[8])
{
	snprintf(name, 8, "%c", (char)('a' + rng_below(&r->rng, NAMES)));
}

/* A random directory; a reference. */
static struct cow_inode *some_dir(struct run *r)
{
	struct cow_inode *at = r->root, *next;
	struct cow_attr attr;
	char name[8];

	cow_ref(at);
	while (rng_chance(&r->rng, 65)) {
		name_for(r, name);
		if (cow_lookup(at, name, &next, rng_chance(&r->rng, 50) ? &attr : NULL) != 0)
			continue;
		if (!S_ISDIR(next->mode)) {
			cow_forget(next, 1);
			continue;
		}
		cow_forget(at, 1);
		at = next;
	}
	return at;
}

/* Something with a name, a regular file if so asked; or one of the handles; or NULL. */
static struct cow_inode *some_inode(struct run *r, bool file)
{
	struct cow_inode *found = NULL, *dir;
	char name[8];

	for (int tries = 0; tries < 12; tries++) {
		struct cow_inode *held = r->held[rng_below(&r->rng, HANDLES)];
		if (held != NULL && rng_chance(&r->rng, 10)) {
			cow_ref(held);
			return held;
		}
		dir = some_dir(r);
		name_for(r, name);
		if (cow_lookup(dir, name, &found, NULL) != 0)
			found = NULL;
		cow_forget(dir, 1);
		if (found != NULL && (!file || S_ISREG(found->mode)))
			return found;
		cow_forget(found, 1);
		found = NULL;
	}
	return NULL;
}

/* ------------------------------------------------------------------ operations */

/* What the engine answers is its business here, but nothing may break. */
static int result(struct run *r, const char *what, int64_t error)
{
	tell(r, "%s: %s", what, error < 0 ? cow_error_text((int)error) : "done");
	if (error == -EIO || error == COW_ERR_DAMAGED || error == -ENOMEM || (error == -ENOSPC && !r->small))
		bug(r, "%s: %s", what, cow_error_text((int)error));
	return error < 0 ? (int)error : 0;
}

static void do_create(struct run *r)
{
	static const uint32_t types[] = {S_IFREG, S_IFREG, S_IFREG, S_IFDIR, S_IFDIR, S_IFLNK, S_IFCHR, S_IFIFO};
	struct cow_new new = {.mode = types[rng_below(&r->rng, 8)] | (uint32_t)rng_below(&r->rng, 07000) | 0400};
	struct cow_inode *dir = some_dir(r), *made = NULL;
	char name[8], target[701];

	memset(target, 'x', sizeof(target));
	target[1 + rng_below(&r->rng, 700)] = 0;
	new.target = target;
	new.uid = (uint32_t)rng_below(&r->rng, 3);
	new.rdev = S_ISCHR(new.mode) ? 77 : 0;
	name_for(r, name);
	if (result(r, "create", cow_create(dir, name, &new, &made, NULL)) == 0 && !S_ISDIR(new.mode))
		(void)know(r, made);
	cow_forget(made, 1);
	cow_forget(dir, 1);
}

static void do_write(struct run *r, struct cow_inode *file)
{
	uint64_t at = rng_below(&r->rng, rng_chance(&r->rng, 30) ? FILE_BYTES : 600);
	size_t length = 1 + rng_below(&r->rng, rng_chance(&r->rng, 30) ? FILE_BYTES : 500);
	struct known *k = know(r, file);

	if (r->small && rng_chance(&r->rng, 50))
		length += rng_below(&r->rng, LARGE_FILE);
	uint8_t *bytes = malloc(length);

	memset(bytes, (int)rng_next(&r->rng), length);
	if (result(r, "write", cow_write(file, bytes, length, at, rng_chance(&r->rng, 30))) == 0)
		k->dirty = true;
	free(bytes);
}

static void do_change(struct run *r, struct cow_inode *file)
{
	static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	struct cow_attr attr = {.size = rng_below(&r->rng, rng_chance(&r->rng, 50) ? FILE_BYTES : 600)};
	uint64_t a = rng_below(&r->rng, FILE_BYTES), b = rng_below(&r->rng, FILE_BYTES);
	struct known *k = know(r, file);
	struct cow_inode *from;
	int64_t error;

	switch (rng_below(&r->rng, 3)) {
	case 0:
		error = result(r, "truncate", cow_setattr(file, &attr, COW_SET_SIZE, NULL));
		break;
	case 1:
		error = result(r, "fallocate", cow_fallocate(file, modes[rng_below(&r->rng, 5)], a, 1 + b / 2));
		break;
	default:
		from = some_inode(r, true);
		if (from == NULL)
			return;
		if (rng_chance(&r->rng, 70))
			a = b = 0;
		else if (rng_chance(&r->rng, 50))
			a = a / 4096 * 4096, b = b / 4096 * 4096;
		error = result(r, "copy", cow_copy_range(from, a, file, b, rng_chance(&r->rng, 50) ? 1 << 20 : 9000));
		cow_forget(from, 1);
	}
	if (error == 0)
		k->dirty = true;
}

static void do_attr(struct run *r, struct cow_inode *i)
{
	struct cow_attr attr = {
		.mode = (uint32_t)rng_below(&r->rng, 010000), .uid = (uint32_t)rng_below(&r->rng, 3),
		.gid = (uint32_t)rng_below(&r->rng, 3), .atime = {(time_t)rng_below(&r->rng, 1000000), 5},
		.mtime = {-(time_t)rng_below(&r->rng, 1000000), 7}, .btime = {1, 2},
	};
	char name[16];
	char value[3000];

	memset(value, (int)rng_next(&r->rng), sizeof(value));
	snprintf(name, sizeof(name), "user.%u", (unsigned)rng_below(&r->rng, 3));
	switch (rng_below(&r->rng, 4)) {
	case 0:
		result(r, "chmod", cow_setattr(i, &attr, 1 + (unsigned)rng_below(&r->rng, 7), NULL));
		break;
	case 1:
		if (S_ISDIR(i->mode)) {
			result(r, "times", cow_setattr(i, &attr, COW_SET_ATIME | COW_SET_MTIME | COW_SET_BTIME, NULL));
			break;
		}
		struct known *k = know(r, i);
		if (result(r, "times", cow_setattr(i, &attr, COW_SET_ATIME | COW_SET_MTIME, NULL)) == 0)
			k->dirty = true;
		break;
	case 2:
		result(r, "setxattr", cow_setxattr(i, name, value, rng_below(&r->rng, 50) * rng_below(&r->rng, 50), 0));
		break;
	default:
		result(r, "rmxattr", cow_removexattr(i, name));
	}
}

static void do_rename(struct run *r, struct cow_inode *dir, const char *name, struct cow_inode *to, const char *other)
{
	static const unsigned flags[] = {0, 0, COW_RENAME_NOREPLACE, COW_RENAME_EXCHANGE};
	struct cow_inode *files[2] = {NULL, NULL};
	unsigned how = flags[rng_below(&r->rng, 4)];
	int error = cow_lookup(dir, name, &files[0], NULL);

	if (error == 0)
		error = cow_lookup(to, other, &files[1], NULL);
	error = result(r, "rename", cow_rename(dir, name, to, other, how)) != 0 || error != 0 || files[0] == files[1];
	for (unsigned i = 0; i < 2 && files[i] != NULL; i++) {
		if (error == 0 && S_ISREG(files[i]->mode) && (i == 0 || how == COW_RENAME_EXCHANGE) &&
		    r->carried_count < CARRIED)
			r->carried[r->carried_count++] = files[i];
		else
			cow_forget(files[i], 1);
	}
}

static void do_name(struct run *r)
{
	struct cow_inode *dir = some_dir(r), *to = some_dir(r), *i;
	char name[8], other[8];

	name_for(r, name);
	name_for(r, other);
	switch (rng_below(&r->rng, 8)) {
	case 0: case 1:
		result(r, "unlink", cow_unlink(dir, name));
		break;
	case 2:
		result(r, "rmdir", cow_rmdir(dir, name));
		break;
	case 3: case 4:
		i = some_inode(r, false);
		if (i != NULL)
			result(r, "link", cow_link(i, dir, name, NULL));
		cow_forget(i, 1);
		break;
	default:
		do_rename(r, dir, name, to, other);
	}
	cow_forget(dir, 1);
	cow_forget(to, 1);
}

/* What the log cannot say. */
static void do_large(struct run *r)
{
	struct cow_new new = {.mode = S_IFREG | 0600};
	struct cow_inode *dir = some_dir(r), *i = NULL;
	struct cow_attr attr;
	char name[8];

	name_for(r, name);
	switch (rng_below(&r->rng, 5)) {
	case 0: case 1: case 2:
		i = some_inode(r, false);
		if (i != NULL)
			result(r, "clone", cow_clone(i, dir, name, 0, NULL, rng_chance(&r->rng, 30) ? &attr : NULL));
		break;
	case 3:
		result(r, "remove", cow_remove_tree(dir, name));
		break;
	default:
		if (result(r, "tmpfile", cow_create(dir, NULL, &new, &i, NULL)) == 0) {
			do_write(r, i);
			result(r, "name it", cow_link(i, dir, name, NULL));
			cow_release(i);
		}
	}
	cow_forget(i, 1);
	cow_forget(dir, 1);
}

static void do_handle(struct run *r)
{
	unsigned h = (unsigned)rng_below(&r->rng, HANDLES);

	if (r->held[h] != NULL) {
		tell(r, "release");
		cow_release(r->held[h]);
		cow_forget(r->held[h], 1);
		r->held[h] = NULL;
		return;
	}
	r->held[h] = some_inode(r, false);
	if (r->held[h] != NULL && result(r, "hold", cow_hold(r->held[h])) != 0) {
		cow_forget(r->held[h], 1);
		r->held[h] = NULL;
	}
}

static void forget_carried(struct run *r)
{
	while (r->carried_count > 0)
		cow_forget(r->carried[--r->carried_count], 1);
}

/* Everything as it is now is what must be there. */
static void now_durable(struct run *r)
{
	forget_carried(r);
	r->known_count = 0;
	r->generation = generation(r);
	r->commits++;
	take_picture(r, r->durable);
}

/* In the middle of a commit an fsync must not need another one. */
static bool would_commit(struct run *r, struct cow_inode *file)
{
	const struct cow_notes *n = &r->volume->notes;
	const struct cow_log *log = &r->volume->store->log;
	const struct cow_note_list *lists[2] = {&n->sealed, &n->open};
	uint64_t bytes = 4096;

	for (unsigned k = 0; k < 2; k++) {
		if (lists[k]->commit)
			return true;
		bytes += lists[k]->bytes.length - lists[k]->logged + (lists[k]->carried_count + 1) * 3 * FILE_BYTES;
	}
	return cow_inode_is_dir(file) || !log->usable || bytes > n->limit || !cow_log_fits(log, bytes);
}

static void do_fsync(struct run *r)
{
	struct cow_inode *file = some_inode(r, !rng_chance(&r->rng, 5));

	if (file == NULL || (r->in_hook && would_commit(r, file))) {
		cow_forget(file, 1);
		return;
	}
	if (result(r, "fsync", cow_fsync(file)) != 0)
		bug(r, "fsync fails");
	r->fsyncs++;
	if (generation(r) != r->generation) {
		tell(r, "it was a commit");
		now_durable(r);
	} else {
		is_durable(r, file);
		for (unsigned i = 0; i < r->carried_count; i++)
			is_durable(r, r->carried[i]);
		forget_carried(r);
		take_picture(r, r->durable);
	}
	cow_forget(file, 1);
}

static void step(struct run *r);

/* The generation that is being committed may become durable or not: either content is right for who did not sync. */
static int note_sealed(void *context, const struct cow_entry *entry, struct cow_inode *none,
		       const struct cow_attr *attr)
{
	struct walk *w = context, below = *w;
	struct cow_inode *i;
	struct known *k;

	(void)none, (void)attr;
	if (cow_lookup(w->dir, entry->name, &i, NULL) != 0)
		bug(w->r, "%s is not found", entry->name);
	k = find_known(w->r, i);
	below.dir = i;
	if (S_ISDIR(i->mode))
		assert_int_equal(cow_list(i, 0, false, note_sealed, &below), 0);
	else if (k != NULL)
		content_of(w->r, i, &k->sealed_size, &k->sealed_hash);
	cow_forget(i, 1);
	return 0;
}

/* Called before each write and flush of a commit. */
static void in_commit(void *context, enum cow_sim_call call, uint64_t block, uint64_t blocks)
{
	struct run *r = context;
	struct walk walk = {.r = r, .dir = r->root};
	unsigned before = r->fsyncs;

	(void)block, (void)blocks;
	if ((call != COW_SIM_WRITE && call != COW_SIM_FLUSH) || r->in_hook || r->hook_at == 0 || --r->hook_at != 0)
		return;
	r->in_hook = true;
	tell(r, "in the middle of a commit:");
	assert_int_equal(cow_list(r->root, 0, false, note_sealed, &walk), 0);
	for (uint64_t n = rng_below(&r->rng, 12); n > 0; n--)
		step(r);
	for (int tries = 0; tries < 8 && r->fsyncs == before; tries++)
		do_fsync(r);
	if (r->fsyncs != before) {
		r->in_flight++;
		r->cut = cow_sim_cut(r->disk, cow_sim_events(r->disk),
				     (enum cow_sim_policy)rng_below(&r->rng, COW_SIM_GARBLED), rng_next(&r->rng));
	}
	r->in_hook = false;
}

/* A commit, in the middle of which other things go on, and after which the power goes: at that moment, or now. */
static void do_sync(struct run *r)
{
	if (r->in_hook)
		return;
	tell(r, "sync");
	if (!r->small && rng_chance(&r->rng, 60)) { /* where space is short, anything may want a commit */
		r->hook_at = 1 + (unsigned)rng_below(&r->rng, 12);
		cow_sim_hook(r->disk, in_commit, r);
	}
	assert_int_equal(cow_sync(r->volume), 0);
	cow_sim_hook(r->disk, NULL, NULL);
	r->hook_at = 0;
	if (r->cut != NULL && rng_chance(&r->rng, 30)) {
		cow_dev_close(r->cut);
		r->cut = NULL;
		crash(r);
	} else if (r->cut != NULL) {
		crash(r);
	} else {
		assert_int_equal(cow_sync(r->volume), 0);
		now_durable(r);
	}
}

static void step(struct run *r)
{
	uint64_t what = rng_below(&r->rng, 100);
	struct cow_inode *i = NULL;

	if (what < 22) {
		do_create(r);
	} else if (what < 52) {
		i = some_inode(r, what < 45);
		if (i != NULL && what < 37)
			do_write(r, i);
		else if (i != NULL && what < 45)
			do_change(r, i);
		else if (i != NULL)
			do_attr(r, i);
	} else if (what < 76) {
		do_name(r);
	} else if (what < 79) {
		do_large(r);
	} else if (what < 84) {
		do_handle(r);
	} else if (what < 85 && !r->in_hook) {
		result(r, "reclaim", cow_volume_reclaim(r->volume, 100));
	} else if (what < 86 && !r->in_hook) {
		result(r, "drain", cow_drain(r->volume));
		now_durable(r);
	} else if (what < 96) {
		do_fsync(r);
	} else if (what < 98) {
		do_sync(r);
	} else if (!r->in_hook) {
		crash(r);
	}
	cow_forget(i, 1);
	if (!r->in_hook && generation(r) != r->generation) { /* by itself */
		assert_int_equal(cow_sync(r->volume), 0);
		now_durable(r);
	}
}

/* ------------------------------------------------------------------ logs that lie */

#define INTENTS 400u

struct lies {
	struct cow_intent_head head;
	struct cow_intent intents[INTENTS];
	unsigned count;
	uint8_t *records[INTENTS]; /* what the slices point into */
	unsigned record_count;
};

static int keep_record(void *context, const uint8_t *payload, size_t length)
{
	struct lies *l = context;
	uint8_t *copy;
	size_t used;

	if (l->record_count == INTENTS)
		return 1;
	copy = l->records[l->record_count++] = cow_mem_copy(payload, length);
	assert_int_equal(cow_intent_validate(copy, length, &l->head), 0);
	for (size_t at = COW_INTENT_HEAD; at < length && l->count < INTENTS; at += used)
		assert_int_equal(cow_intent_decode(copy + at, length - at, &l->intents[l->count++], &used), 0);
	return 0;
}

static uint64_t odd_number(struct run *r, uint64_t now)
{
	static const uint64_t odd[] = {0, 1, 2, 127, 128, COW_CHUNK_MAX, COW_NUMBER_MAX, 1ull << 63, UINT64_MAX};
	uint64_t what = rng_below(&r->rng, 14);

	return what < 9 ? odd[what] - rng_below(&r->rng, 2) : what < 12 ? now + what - 10 : rng_next(&r->rng);
}

static void lie_about_spot(struct run *r, struct cow_spot *spot, const struct lies *l)
{
	const struct cow_intent *other = &l->intents[rng_below(&r->rng, l->count)];

	switch (rng_below(&r->rng, 5)) {
	case 0:
		spot->number = odd_number(r, spot->number);
		break;
	case 1:
		spot->linked = !spot->linked;
		break;
	case 2:
		if (spot->depth > 0)
			spot->keys[rng_below(&r->rng, spot->depth)] = odd_number(r, spot->number);
		break;
	case 3:
		spot->depth = (uint8_t)rng_below(&r->rng, COW_SPOT_DEPTH + 1);
		break;
	default:
		*spot = rng_chance(&r->rng, 50) ? other->spot : other->to;
	}
}

static void lie(struct run *r, struct lies *l)
{
	struct cow_intent *i = &l->intents[rng_below(&r->rng, l->count)];
	const struct cow_intent *other = &l->intents[rng_below(&r->rng, l->count)];

	switch (rng_below(&r->rng, 14)) {
	case 0:
		i->type = (enum cow_intent_type)(1 + rng_below(&r->rng, COW_INTENT_TYPES));
		break;
	case 1:
		i->number = odd_number(r, i->number);
		break;
	case 2: case 3:
		lie_about_spot(r, &i->spot, l);
		break;
	case 4:
		lie_about_spot(r, &i->to, l);
		break;
	case 5:
		i->name = rng_chance(&r->rng, 50) ? other->name : other->to_name;
		break;
	case 6:
		i->to_name = rng_chance(&r->rng, 50) ? other->name : other->to_name;
		break;
	case 7:
		i->bytes = other->bytes;
		break;
	case 8:
		i->mode = rng_chance(&r->rng, 50) ? other->mode : (uint32_t)rng_next(&r->rng);
		i->flags = (uint32_t)rng_next(&r->rng);
		break;
	case 9:
		*(rng_chance(&r->rng, 50) ? &i->low : &i->size) = odd_number(r, i->size);
		break;
	case 10:
		*(rng_chance(&r->rng, 30) ? &i->row.a : rng_chance(&r->rng, 50) ? &i->row.b : &i->row.value) =
			odd_number(r, i->row.value);
		break;
	case 11:
		*i = *other;
		break;
	case 12:
		*(rng_chance(&r->rng, 30)   ? &l->head.number
		  : rng_chance(&r->rng, 50) ? &l->head.colour
					    : &l->head.chunk) = odd_number(r, l->head.number);
		break;
	default:
		i->generation = rng_chance(&r->rng, 50) ? 0 : UINT64_MAX;
	}
}

/* Writes what is left of the log as one record that fits in every checksum. */
static void write_lies(struct cow_dev *disk, const struct cow_super *super, const struct lies *l)
{
	struct cow_log log = {
		.dev = disk, .start = super->log.start, .blocks = super->log.blocks, .head = super->log.position,
		.tail = super->log.position, .nonce = super->log.nonce, .chain = super->log.chain, .usable = true,
	};
	struct cow_bytes bytes = {0};
	uint8_t *record;

	cow_intent_head_encode(&l->head, &bytes);
	for (unsigned i = 0; i < l->count; i++)
		cow_intent_encode(&l->intents[i], &bytes);
	if (cow_log_fits(&log, bytes.length)) {
		record = aligned_alloc(COW_BLOCK, (size_t)cow_log_blocks(bytes.length) * COW_BLOCK);
		memcpy(record + COW_LOG_HEADER, bytes.bytes, bytes.length);
		uint64_t position = cow_log_append(&log, record, bytes.length);
		assert_int_equal(cow_log_write(&log, record, bytes.length, position), 0);
		free(record);
	}
	free(bytes.bytes);
}

static void ignore(void *context, enum cow_log_level level, const char *text)
{
	(void)context, (void)level, (void)text;
}

/* Numbers that the log gives out twice are found by nobody else; all other invariants hold whatever was replayed. */
static void on_lie(void *context, const struct cow_finding *finding)
{
	if (finding->number < 60 || finding->number > 63)
		bug(context, "after a log that lies: %d: %s", finding->number, finding->text);
}

/* Whatever the log says: the volume is opened or refused, and if it is opened it works. */
static void open_liar(struct run *r, struct cow_dev *disk)
{
	struct cow_open_options options = {.no_threads = true, .log = ignore};
	struct cow_check_options check_options = {.finding = on_lie, .context = r};
	struct cow_new new = {.mode = S_IFREG | 0600};
	struct cow_check_result result;
	struct cow_volume *volume;
	struct cow_inode *root;
	int error = cow_volume_open(simdisk_attach(disk), &options, &volume);

	r->lies++;
	if (error != 0) {
		if (error != COW_ERR_DAMAGED)
			bug(r, "a log that lies: %s", cow_error_text(error));
		return;
	}
	r->believed++;
	assert_int_equal(cow_root(volume, &root), 0);
	(void)!cow_create(root, "made afterwards", &new, NULL, NULL);
	cow_forget(root, 1);
	assert_int_equal(cow_close(volume), 0);
	assert_int_equal(cow_check_device(disk, &check_options, &result), 0);
}

/* The disk after a crash, with other things in its log. */
static void try_lies(struct run *r)
{
	struct lies *truth = cow_mem_new(sizeof(*truth)), *lies = cow_mem_new(sizeof(*lies));
	struct cow_super super;
	struct cow_dev *disk;
	bool decayed;
	uint64_t end;

	assert_int_equal(cow_super_read(r->disk, &super, &decayed), 0);
	(void)!cow_log_read(r->disk, &super, keep_record, truth, &end);
	for (unsigned n = 0; n < 4 && truth->count > 0; n++) {
		*lies = *truth;
		do
			lie(r, lies);
		while (rng_chance(&r->rng, 50));
		disk = cow_sim_copy(r->disk);
		write_lies(disk, &super, lies);
		open_liar(r, disk);
		cow_dev_close(disk);
	}
	for (unsigned i = 0; i < truth->record_count; i++)
		free(truth->records[i]);
	free(truth);
	free(lies);
}

/* ------------------------------------------------------------------ runs */

static struct picture *new_picture(void)
{
	struct picture *p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

/* So much that little is left. */
static void load_ballast(struct run *r)
{
	struct cow_new new = {.mode = S_IFREG | 0600};
	struct cow_inode *file;
	struct cow_info info;
	uint64_t at = 0, leave = 10 + rng_below(&r->rng, 250);
	uint8_t *bytes = cow_mem_new(65536);

	assert_int_equal(cow_create(r->root, "ballast", &new, &file, NULL), 0);
	do {
		if (cow_write(file, bytes, 65536, at, false) != 65536)
			break;
		at += 65536;
		assert_int_equal(cow_info(r->volume, &info), 0);
	} while (info.free_blocks > leave + 16 || at < BALLAST);
	free(bytes);
	cow_forget(file, 1);
	assert_int_equal(cow_sync(r->volume), 0);
	assert_int_equal(cow_info(r->volume, &info), 0);
	tell(r, "ballast of %llu, %llu blocks left", (unsigned long long)at, (unsigned long long)info.free_blocks);
	now_durable(r);
}

static void run(uint64_t seed, bool lie, unsigned *sums)
{
	struct run *r = cow_mem_new(sizeof(*r));

	r->seed = seed;
	r->lie = lie;
	r->rng.state = seed * 1000003 + 17;
	r->unseen = seed % 2 == 0;
	r->trace = getenv("COW_TRACE") != NULL;
	r->durable = new_picture();
	r->seen = new_picture();
	r->small = seed % 4 == 3;
	r->disk = simdisk_format(r->small ? SMALL_SIZE : SIZE);
	open_volume(r, false);
	take_picture(r, r->durable);
	if (r->small)
		load_ballast(r);
	for (unsigned n = 50 + (unsigned)rng_below(&r->rng, 400); n > 0; n--)
		step(r);
	crash(r);
	leave_volume(r);
	cow_dev_close(r->disk);
	munmap(r->durable, sizeof(struct picture));
	munmap(r->seen, sizeof(struct picture));
	sums[0] += r->fsyncs;
	sums[1] += r->commits;
	sums[2] += r->crashes;
	sums[3] += r->in_flight;
	sums[4] += r->lies;
	sums[5] += r->believed;
	free(r);
}

static void runs(bool lie, unsigned seeds, unsigned *sums)
{
	const char *count = getenv("COW_REPLAY"), *only = getenv("COW_SEED");
	uint64_t first = 1, end = first + (count != NULL ? strtoull(count, NULL, 0) : seeds);

	if (only != NULL) {
		first = strtoull(only, NULL, 0);
		end = first + 1;
	}
	for (uint64_t seed = first; seed < end; seed++)
		run(seed, lie, sums);
}

static void test_replay(void **state)
{
	unsigned sums[6] = {0};

	(void)state;
	runs(false, 60, sums);
	printf("# %u fsyncs, %u of them or syncs a commit, %u in the middle of one, %u crashes\n", sums[0], sums[1],
	       sums[3], sums[2]);
}

static void test_lies(void **state)
{
	unsigned sums[6] = {0};

	(void)state;
	runs(true, 20, sums);
	printf("# %u logs that lie, %u of them replayed\n", sums[4], sums[5]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_replay), cmocka_unit_test(test_lies)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
