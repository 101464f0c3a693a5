/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/drive.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "audit/check.h"
#include "base/mem.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "fs/reclaim/reclaim.h"
#include "test/lib/crowd.h"

#define APPLY 1
#define NOTHING 0
#define BUG (-1)
#define PIECES 3 /* of the counts, in memory when there are to be few */

bool drive_bug(struct drive *d, const char *format, ...)
{
	va_list args;

	if (d->bug[0] != 0)
		return false;
	va_start(args, format);
	vsnprintf(d->bug, DRIVE_BUG_BYTES, format, args);
	va_end(args);
	return false;
}

static void on_log(void *context, enum cow_log_level level, const char *text)
{
	struct drive *d = context;

	d->failures_logged += level == COW_LOG_ERROR && strstr(text, "read-only now") != NULL;
	if (level == COW_LOG_ERROR && !d->faults)
		drive_bug(d, "LOG %s", text);
}

/* ------------------------------------------------------------------ what is durable */

uint64_t drive_clock(struct drive *d)
{
	return d->clock != NULL ? d->clock(d->disk) : 0;
}

static uint64_t durable_generation(struct drive *d)
{
	struct cow_info info;
	int r = cow_info(d->volume, &info);

	if (r < 0)
		drive_bug(d, "INFO %d", r);
	else if (info.read_only && !d->faults && !d->options.read_only)
		drive_bug(d, "READONLY the volume has turned read-only");
	return r < 0 ? 0 : info.generation;
}

/* ------------------------------------------------------------------ start and stop */

static int reopen(struct drive *d)
{
	struct cow_dev *dev = d->attach(d->disk);
	int r = cow_volume_open(dev, &d->options, &d->volume);

	if (r < 0) {
		d->volume = NULL;
		return r;
	}
	if (d->few_counts)
		drive_limit_counts(d);
	d->generation = durable_generation(d);
	return r;
}

void drive_limit_counts(struct drive *d)
{
	d->few_counts = true;
	if (d->volume != NULL)
		cow_counts_limit(d->volume->store->counts, PIECES);
}

int drive_start(struct drive *d, struct cow_dev *(*attach)(void *disk), void *disk,
		const struct cow_open_options *options)
{
	int r;

	memset(d, 0, sizeof(*d));
	d->bug = mmap(NULL, DRIVE_BUG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	d->attach = attach;
	d->disk = disk;
	d->options = *options;
	d->options.log = on_log;
	d->options.log_context = d;
	d->threads = !options->no_threads;
	ora_init(&d->ora);
	r = reopen(d);
	chronicle_start(&d->past, &d->ora, d->generation);
	return r;
}

void drive_adopt(struct drive *d, struct ora_node *root)
{
	ora_restore(&d->ora, ora_tree_copy(root, true));
	chronicle_start(&d->past, &d->ora, d->generation);
}

void drive_drop_pool(struct drive *d)
{
	for (unsigned i = 0; i < DRIVE_POOL; i++) {
		if (d->pool[i].inode == NULL)
			continue;
		if (d->volume != NULL)
			cow_forget(d->pool[i].inode, 1);
		ora_node_put(d->pool[i].node);
		d->pool[i].inode = NULL;
		d->pool[i].node = NULL;
	}
}

/* After the volume went away: its inodes are gone with it. */
static void lose_handles(struct drive *d)
{
	d->volume = NULL;
	drive_drop_pool(d);
	for (unsigned i = 0; i < ORA_HANDLES; i++) {
		d->held[i] = NULL;
		ora_node_put(d->home[i]);
		ora_node_put(d->ora.handle[i]);
		d->home[i] = d->ora.handle[i] = NULL;
	}
}

void drive_stop(struct drive *d)
{
	if (d->volume != NULL)
		cow_volume_abandon(d->volume);
	lose_handles(d);
	chronicle_free(&d->past);
	ora_free(&d->ora);
	munmap(d->bug, DRIVE_BUG_BYTES);
}

/* ------------------------------------------------------------------ looking aside */

bool drive_aside(struct drive *d, bool (*look)(struct drive *drive, void *argument), void *argument)
{
	int status;
	pid_t pid;

	if (d->threads || d->in_child)
		return look(d, argument);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		d->in_child = true;
		alarm(18); /* a fork does not inherit it */
		look(d, argument);
		fflush(NULL);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return drive_bug(d, "FORK failed");
	if (WIFSIGNALED(status))
		drive_bug(d, "SIGNAL %d in a look aside", WTERMSIG(status));
	else if (WEXITSTATUS(status) != 0)
		drive_bug(d, "EXIT %d in a look aside", WEXITSTATUS(status));
	return d->bug[0] == 0;
}

/* ------------------------------------------------------------------ walking */

void drive_put(struct drive *d, struct cow_inode *inode, struct ora_node *node)
{
	unsigned at = d->pool_next % DRIVE_POOL;

	if (inode == NULL)
		return;
	if (d->done % 3 != 0) {
		cow_forget(inode, 1);
		return;
	}
	d->pool_next++;
	if (d->pool[at].inode != NULL) {
		cow_forget(d->pool[at].inode, 1);
		ora_node_put(d->pool[at].node);
	}
	d->pool[at].inode = inode;
	d->pool[at].node = ora_node_hold(node);
}

/* An error that is due to a fault made on purpose. */
static bool fault(const struct drive *d, int error)
{
	int e = error < 0 ? cow_error_errno(error) : 0;

	return d->faults && (e == EIO || e == EROFS || e == ENOSPC);
}

static bool walk_one(struct drive *d, struct cow_inode **inode, const char *token, struct ora_node *node,
		     const char *path)
{
	struct cow_inode *next = NULL;
	struct cow_attr attr;
	char name[256];
	int r;

	drive_name(token, name);
	r = cow_lookup(*inode, name, &next, &attr);
	cow_forget(*inode, 1);
	*inode = next;
	if (r == 0)
		return drive_check_attr(d, node, &attr, path);
	*inode = NULL;
	return fault(d, r) || drive_bug(d, "WALK %s at %s: %d", path, token, r);
}

bool drive_walk(struct drive *d, const char *path, struct ora_trail *t, struct cow_inode **inode)
{
	char copy[ORA_PATH], *save = NULL, *token;
	unsigned depth = 0;
	int r;

	*inode = NULL;
	ora_walk(&d->ora, path, t);
	if (t->count == 0)
		return true;
	r = cow_root(d->volume, inode);
	if (r < 0)
		return drive_bug(d, "ROOT %d", r);
	snprintf(copy, sizeof(copy), "%s", path);
	for (token = strtok_r(copy, "/", &save); token != NULL && *inode != NULL; token = strtok_r(NULL, "/", &save))
		if (!walk_one(d, inode, token, t->node[++depth], path))
			return false;
	return true;
}

/* ------------------------------------------------------------------ answers */

static void error_names(uint64_t errors, char text[200])
{
	size_t used = 0;

	text[0] = 0;
	for (unsigned e = 1; e < 64 && used < 180; e++)
		if (errors >> e & 1)
			used += (size_t)snprintf(text + used, 200 - used, "%s%s", used > 0 ? " or " : "",
						 e == 63 ? "ESTALE" : strerrorname_np((int)e));
	if (used == 0)
		snprintf(text, 200, "success");
}

/* Is the answer one that the oracle foresees? `maybe`: errors that it leaves open. APPLY, NOTHING or BUG. */
static int judge_open(struct drive *d, const struct op *op, uint64_t errors, uint64_t maybe, int64_t answer)
{
	char want[200];
	int e = answer < 0 ? cow_error_errno((int)answer) : 0;

	d->done++;
	d->answer = answer;
	if (answer >= 0 && errors == 0) {
		d->applied = true;
		return APPLY;
	}
	if (answer < 0 && ((errors | maybe) & ORA_ERROR(e))) {
		d->refused++;
		return NOTHING;
	}
	if (e == ENOSPC && d->small) {
		d->no_space++;
		return NOTHING;
	}
	if (fault(d, (int)answer)) {
		d->unsure = d->unsure || op->kind == OP_CLONE || op->kind == OP_CLONE_AT;
		return NOTHING;
	}
	error_names(errors | maybe, want);
	drive_bug(d, "ERRNO %s answered %s (%" PRId64 "), due was %s", op_verb(op->kind),
		  answer < 0 ? strerrorname_np(e) : "success", answer, want);
	return BUG;
}

static int judge(struct drive *d, const struct op *op, uint64_t errors, int64_t answer)
{
	return judge_open(d, op, errors, 0, answer);
}

/* ------------------------------------------------------------------ making */

static struct ora_node *new_node(const struct op *op)
{
	static const uint32_t types[] = {S_IFLNK, S_IFIFO, S_IFCHR, S_IFSOCK};
	struct ora_node *n;

	if (op->kind != OP_NODE)
		return ora_node_new((op->kind == OP_MKDIR ? S_IFDIR : S_IFREG) | (uint32_t)(op->x & 07777));
	n = ora_node_new(types[op->x % 4] | (types[op->x % 4] == S_IFLNK ? 0777 : 0640));
	if (S_ISCHR(n->mode))
		n->rdev = (uint32_t)op->y;
	return n;
}

/* Letters, since a target is a string. */
static char *new_target(const struct op *op, struct ora_node *n)
{
	char *target;
	uint64_t length = op->y % 4096 != 0 ? op->y % 4096 : 1;

	if (!S_ISLNK(n->mode))
		return NULL;
	target = cow_mem_new(length + 1);
	content_pattern(op->y, 0, target, length);
	for (uint64_t i = 0; i < length; i++)
		target[i] = (char)('a' + (uint8_t)target[i] % 26);
	content_write(&n->content, target, length, 0);
	return target;
}

static bool make_in(struct drive *d, const struct op *op, const struct ora_trail *t, struct cow_inode *dir)
{
	struct ora_node *n = new_node(op);
	char name[256], *target = new_target(op, n);
	struct cow_new how = {.mode = n->mode, .uid = 1, .gid = 2, .rdev = n->rdev, .target = target};
	struct cow_inode *made = NULL;
	struct cow_attr attr;
	int verdict, r;

	drive_name(op->name, name);
	n->uid = 1;
	n->gid = 2;
	r = cow_create(dir, name, &how, &made, &attr);
	verdict = judge(d, op, ora_make(t, op->name, n, false), r);
	if (verdict == APPLY) {
		ora_make(t, op->name, n, true);
		drive_check_attr(d, n, &attr, op->name);
		drive_put(d, made, n);
	}
	ora_node_put(n);
	free(target);
	return d->bug[0] == 0;
}

static bool do_make(struct drive *d, const struct op *op)
{
	struct ora_trail t;
	struct cow_inode *dir;

	if (!drive_walk(d, op->a, &t, &dir) || dir == NULL)
		return d->bug[0] == 0;
	if (make_in(d, op, &t, dir))
		drive_put(d, dir, t.node[t.count - 1]);
	return d->bug[0] == 0;
}

static bool do_create_at(struct drive *d, const struct op *op)
{
	struct ora_node *dir = d->ora.handle[op->handle];
	struct ora_trail t;

	if (dir == NULL || !ora_node_is_dir(dir))
		return true;
	ora_find(&d->ora, dir, &t);
	if (t.count == 0) {
		t.count = 1;
		t.node[0] = dir;
	}
	return make_in(d, op, &t, d->held[op->handle]);
}

static struct ora_node *world_top(const struct ora_trail *t)
{
	unsigned i = t->count - 1;

	while (i > 0 && !t->node[i]->world)
		i--;
	return t->node[i];
}

static bool do_tmpfile(struct drive *d, const struct op *op)
{
	struct cow_new how = {.mode = S_IFREG | 0600, .uid = 3, .gid = 4};
	struct cow_inode *dir, *made = NULL;
	struct cow_attr attr;
	struct ora_trail t;
	uint64_t errors;
	int verdict;

	if (d->ora.handle[op->handle] != NULL)
		return true;
	if (!drive_walk(d, op->a, &t, &dir) || dir == NULL)
		return d->bug[0] == 0;
	errors = !ora_node_is_dir(t.node[t.count - 1]) ? ORA_ERROR(ENOTDIR)
		: ora_trail_read_only(&t, t.count)    ? ORA_ERROR(EROFS) : 0;
	verdict = judge(d, op, errors, cow_create(dir, NULL, &how, &made, &attr));
	if (verdict == APPLY) {
		struct ora_node *n = ora_node_new(S_IFREG | 0600);

		n->uid = 3;
		n->gid = 4;
		d->ora.handle[op->handle] = n;
		d->held[op->handle] = made;
		d->home[op->handle] = ora_node_hold(world_top(&t));
		drive_check_attr(d, n, &attr, "an O_TMPFILE");
	}
	drive_put(d, dir, t.node[t.count - 1]);
	return d->bug[0] == 0;
}

/* ------------------------------------------------------------------ links */

static bool do_link_at(struct drive *d, const struct op *op)
{
	struct ora_node *n = d->ora.handle[op->handle], *home = d->home[op->handle];
	struct ora_trail from, t;
	struct cow_inode *dir;
	uint64_t errors, maybe = 0;
	char name[256];
	int verdict;

	if (n == NULL || !drive_walk(d, op->a, &t, &dir) || dir == NULL)
		return d->bug[0] == 0;
	ora_find(&d->ora, n, &from);
	drive_name(op->name, name);
	if (from.count > 0) {
		errors = ora_link(&from, &t, op->name, false);
	} else {
		/* a file without a name: only one made so may get one, in the world it was made in */
		errors = ora_make(&t, op->name, n, false) | (ora_node_is_dir(n) ? ORA_ERROR(EPERM) : 0);
		if (home == NULL)
			errors |= ORA_ERROR(ENOENT);
		else
			maybe = ORA_ERROR(ENOENT) | (home != world_top(&t) ? ORA_ERROR(EXDEV) : 0);
		if (home != NULL && n->seen == 0 && home == world_top(&t))
			maybe = 0;
	}
	verdict = judge_open(d, op, errors, maybe, cow_link(d->held[op->handle], dir, name, NULL));
	if (verdict == APPLY && from.count > 0)
		ora_link(&from, &t, op->name, true);
	else if (verdict == APPLY)
		ora_make(&t, op->name, n, true);
	if (verdict == APPLY)
		n->seen = 1;
	drive_put(d, dir, t.node[t.count - 1]);
	return d->bug[0] == 0;
}

static bool do_link(struct drive *d, const struct op *op)
{
	struct ora_trail s, t;
	struct cow_inode *inode, *dir = NULL;
	struct cow_attr attr;
	char name[256];

	if (!drive_walk(d, op->a, &s, &inode) || !drive_walk(d, op->b, &t, &dir))
		return false;
	drive_name(op->name, name);
	if (inode != NULL && dir != NULL &&
	    judge(d, op, ora_link(&s, &t, op->name, false), cow_link(inode, dir, name, &attr)) == APPLY) {
		ora_link(&s, &t, op->name, true);
		drive_check_attr(d, s.node[s.count - 1], &attr, op->a);
	}
	if (inode != NULL)
		drive_put(d, inode, s.node[s.count - 1]);
	if (dir != NULL)
		drive_put(d, dir, t.node[t.count - 1]);
	return d->bug[0] == 0;
}

static void split(const char *path, char parent[ORA_PATH])
{
	char *slash;

	snprintf(parent, ORA_PATH, "%s", path);
	slash = strrchr(parent, '/');
	if (slash != NULL)
		slash[slash == parent] = 0;
}

static uint64_t removal(struct ora_trail *t, uint8_t kind, bool apply)
{
	return kind == OP_UNLINK ? ora_unlink(t, apply) : kind == OP_RMDIR ? ora_rmdir(t, apply)
									    : ora_remove_tree(t, apply);
}

static bool do_remove(struct drive *d, const struct op *op)
{
	struct ora_trail s, t;
	struct cow_inode *dir;
	char parent[ORA_PATH], name[256];
	int r;

	ora_walk(&d->ora, op->a, &s);
	split(op->a, parent);
	if (s.count < 2 || !drive_walk(d, parent, &t, &dir) || dir == NULL)
		return d->bug[0] == 0;
	drive_name(s.last, name);
	r = op->kind == OP_UNLINK ? cow_unlink(dir, name)
		: op->kind == OP_RMDIR ? cow_rmdir(dir, name) : cow_remove_tree(dir, name);
	if (judge(d, op, removal(&s, op->kind, false), r) == APPLY)
		removal(&s, op->kind, true);
	drive_put(d, dir, t.node[t.count - 1]);
	return d->bug[0] == 0;
}

/* ------------------------------------------------------------------ rename */

/*
 * A world may be a plain directory again after a move to a world of its own colour; colours are not the oracle's
 * business, so it believes that, if nothing below is linked and it can be written to.
 */
static bool merged(struct drive *d, struct ora_node *n, struct cow_inode *dir, const char *name)
{
	struct cow_inode *inode;
	struct cow_attr attr;
	int r = cow_lookup(dir, name, &inode, &attr);

	if (r < 0)
		return fault(d, r) || drive_bug(d, "WALK to what was renamed: %d", r);
	if (ora_node_is_dir(n) && n->world && !attr.is_clone) {
		if (n->read_only)
			return drive_bug(d, "WORLD a read-only clone was dissolved by a rename");
		n->world = false;
	}
	drive_check_attr(d, n, &attr, "what was renamed");
	drive_put(d, inode, n);
	return d->bug[0] == 0;
}

static bool rename_to(struct drive *d, const struct op *op, struct ora_trail *s, struct cow_inode *from,
		      struct ora_trail *t, struct cow_inode *to)
{
	char old_name[256], name[256];
	struct ora_node *x = s->node[s->count - 1], *old;
	bool was_there;
	int r;

	drive_name(s->last, old_name);
	drive_name(op->name, name);
	r = cow_rename(from, old_name, to, name, op->flag);
	if (judge(d, op, ora_rename(s, t, op->name, op->flag, false), r) != APPLY)
		return d->bug[0] == 0;
	old = ora_node_is_dir(t->node[t->count - 1]) ? ora_node_find(t->node[t->count - 1], op->name) : NULL;
	was_there = old == x;
	if (old != NULL && old != x && !(op->flag & COW_RENAME_EXCHANGE) && S_ISREG(x->mode))
		d->over = x->id;
	ora_rename(s, t, op->name, op->flag, true);
	return was_there || merged(d, x, to, name);
}

static bool do_rename(struct drive *d, const struct op *op)
{
	struct ora_trail s, t, p;
	struct cow_inode *from, *to = NULL;
	char parent[ORA_PATH];
	bool ok;

	ora_walk(&d->ora, op->a, &s);
	split(op->a, parent);
	if (s.count < 2 || !drive_walk(d, parent, &p, &from) || from == NULL)
		return d->bug[0] == 0;
	ok = drive_walk(d, op->b, &t, &to);
	if (ok && to != NULL)
		ok = rename_to(d, op, &s, from, &t, to);
	drive_put(d, from, p.node[p.count - 1]);
	if (to != NULL)
		drive_put(d, to, t.node[t.count - 1]);
	return ok;
}

/* ------------------------------------------------------------------ clones */

static bool clone_to(struct drive *d, const struct op *op, struct ora_node *x, struct cow_inode *from)
{
	struct ora_trail t;
	struct cow_inode *dir, *made = NULL;
	struct cow_attr attr;
	char name[256];
	bool over = op->kind == OP_CLONE_OVER, read_only = op->kind != OP_CLONE_AT && op->flag;
	unsigned flags = read_only ? COW_CLONE_READ_ONLY : 0;
	uint64_t errors;
	int r;

	if (!drive_walk(d, op->b, &t, &dir) || dir == NULL)
		return d->bug[0] == 0;
	drive_name(op->name, name);
	r = over ? cow_clone_over(from, dir, name, flags) : cow_clone(from, dir, name, flags, &made, &attr);
	errors = over ? ora_clone_over(x, &t, op->name, read_only, false)
		: ora_clone(x, &t, op->name, read_only, false);
	if (judge(d, op, errors, r) == APPLY) {
		if (over)
			ora_clone_over(x, &t, op->name, read_only, true);
		else
			ora_clone(x, &t, op->name, read_only, true);
		if (made != NULL) {
			struct ora_node *n = ora_node_find(t.node[t.count - 1], op->name);

			drive_check_attr(d, n, &attr, "a new clone");
			drive_put(d, made, n);
		}
	}
	drive_put(d, dir, t.node[t.count - 1]);
	return d->bug[0] == 0;
}

static bool do_clone(struct drive *d, const struct op *op)
{
	struct ora_trail s;
	struct cow_inode *from;
	bool ok;

	if (!drive_walk(d, op->a, &s, &from) || from == NULL)
		return d->bug[0] == 0;
	ok = clone_to(d, op, s.node[s.count - 1], from);
	drive_put(d, from, s.node[s.count - 1]);
	return ok;
}

static bool do_clone_at(struct drive *d, const struct op *op)
{
	struct ora_node *x = d->ora.handle[op->handle];

	if (x == NULL || ora_node_is_dir(x))
		return true;
	return clone_to(d, op, x, d->held[op->handle]);
}

/* ------------------------------------------------------------------ data and attributes */

static void grow(struct ora_node *n, uint64_t size)
{
	if (size > ora_node_size(n))
		content_truncate(&n->content, size);
}

static bool write_in(struct drive *d, const struct op *op, struct ora_node *n, struct cow_inode *inode, uint64_t at)
{
	uint8_t *bytes = malloc(op->y + 1);
	int64_t r;

	content_pattern(op->z, at, bytes, op->y);
	r = cow_write(inode, bytes, op->y, at, false);
	if (judge(d, op, ora_change(&d->ora, n, true), r) == APPLY) {
		if (r != (int64_t)op->y)
			drive_bug(d, "WRITE returned %" PRId64 " of %" PRIu64, r, op->y);
		content_write(&n->content, bytes, op->y, at);
		n->mtime = 0;
	}
	free(bytes);
	return d->bug[0] == 0;
}

static bool truncate_in(struct drive *d, const struct op *op, struct ora_node *n, struct cow_inode *inode)
{
	struct cow_attr attr = {.size = op->x}, out;
	int r = cow_setattr(inode, &attr, COW_SET_SIZE, &out);

	if (judge(d, op, ora_change(&d->ora, n, true), r) == APPLY) {
		content_truncate(&n->content, op->x);
		n->mtime = 0;
		drive_check_attr(d, n, &out, "what was truncated");
	}
	return d->bug[0] == 0;
}

static bool allocate_in(struct drive *d, const struct op *op, struct ora_node *n, struct cow_inode *inode)
{
	uint64_t at = op->kind == OP_ALLOCATE ? op->x % 100000 : op->x;
	int mode = op->kind == OP_PUNCH ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
		: (op->kind == OP_ZERO ? FALLOC_FL_ZERO_RANGE : 0) | (op->flag ? FALLOC_FL_KEEP_SIZE : 0);
	int r = cow_fallocate(inode, mode, at, op->y);

	if (judge(d, op, ora_change(&d->ora, n, true), r) == APPLY) {
		uint64_t size = ora_node_size(n);

		if (!(mode & FALLOC_FL_KEEP_SIZE))
			grow(n, at + op->y);
		if (op->kind != OP_ALLOCATE && at < size)
			content_zero(&n->content, at, at + op->y < size ? op->y : size - at);
		n->mtime = 0;
	}
	return d->bug[0] == 0;
}

static bool data_in(struct drive *d, const struct op *op, struct ora_node *n, struct cow_inode *inode)
{
	switch (op->kind) {
	case OP_WRITE:
	case OP_WRITE_AT:
		return write_in(d, op, n, inode, op->x);
	case OP_APPEND:
		return write_in(d, op, n, inode, ora_node_size(n));
	case OP_TRUNCATE:
	case OP_TRUNCATE_AT:
		return truncate_in(d, op, n, inode);
	default:
		return allocate_in(d, op, n, inode);
	}
}

static bool chmod_in(struct drive *d, const struct op *op, struct ora_node *n, struct cow_inode *inode)
{
	uint32_t mode = (n->mode & S_IFMT) | (uint32_t)(op->x & 07777);
	struct cow_attr attr = {.mode = mode}, out;
	int r;

	if (S_ISLNK(n->mode) || n->gone)
		return true;
	r = cow_setattr(inode, &attr, COW_SET_MODE, &out);
	if (judge(d, op, ora_change(&d->ora, n, false), r) == APPLY) {
		n->mode = mode;
		drive_check_attr(d, n, &out, "what was changed");
	}
	return d->bug[0] == 0;
}

static bool set_in(struct drive *d, const struct op *op, struct ora_node *n, struct cow_inode *inode)
{
	struct cow_attr attr = {.uid = (uint32_t)op->x, .gid = (uint32_t)op->y}, out;
	unsigned mask = op->kind == OP_CHOWN ? COW_SET_UID | COW_SET_GID : COW_SET_MTIME | COW_SET_ATIME;
	int r;

	attr.mtime.tv_sec = attr.atime.tv_sec = (time_t)op->x;
	r = cow_setattr(inode, &attr, mask, &out);
	if (judge(d, op, ora_change(&d->ora, n, false), r) == APPLY) {
		if (op->kind == OP_CHOWN) {
			n->uid = attr.uid;
			n->gid = attr.gid;
		} else {
			n->mtime = (int64_t)op->x;
		}
		drive_check_attr(d, n, &out, "what was changed");
	}
	return d->bug[0] == 0;
}

/* ------------------------------------------------------------------ xattrs */

static int find_xattr(const struct ora_node *n, const char *name)
{
	for (unsigned i = 0; i < n->xattr_count; i++)
		if (strcmp(n->xattrs[i].name, name) == 0)
			return (int)i;
	return -1;
}

static void put_xattr(struct ora_node *n, const char *name, const void *value, size_t size)
{
	int i = find_xattr(n, name);
	unsigned at = 0;

	if (i >= 0) {
		content_put(n->xattrs[i].value);
		at = (unsigned)i;
	} else {
		while (at < n->xattr_count && strcmp(n->xattrs[at].name, name) < 0)
			at++;
		memmove(n->xattrs + at + 1, n->xattrs + at, (n->xattr_count - at) * sizeof(n->xattrs[0]));
		n->xattr_count++;
	}
	snprintf(n->xattrs[at].name, ORA_NAME, "%s", name);
	n->xattrs[at].value = content_new();
	content_write(&n->xattrs[at].value, value, size, 0);
}

static bool setxattr_in(struct drive *d, const struct op *op, struct ora_node *n, struct cow_inode *inode)
{
	char name[ORA_NAME + 8];
	uint8_t *value = cow_mem_new(op->y + 1);
	int flags = op->flag == 1 ? XATTR_CREATE : op->flag == 2 ? XATTR_REPLACE : 0;
	bool there = find_xattr(n, op->name) >= 0;
	uint64_t errors = ora_change(&d->ora, n, false);

	if (flags == XATTR_CREATE && there)
		errors |= ORA_ERROR(EEXIST);
	if (flags == XATTR_REPLACE && !there)
		errors |= ORA_ERROR(ENODATA);
	if (!there && n->xattr_count == ORA_XATTRS)
		goto out;
	content_pattern(op->z, 0, value, op->y);
	snprintf(name, sizeof(name), "user.%s", op->name);
	if (judge(d, op, errors, cow_setxattr(inode, name, value, op->y, flags)) == APPLY)
		put_xattr(n, op->name, value, op->y);
out:
	free(value);
	return d->bug[0] == 0;
}

static bool rmxattr_in(struct drive *d, const struct op *op, struct ora_node *n, struct cow_inode *inode)
{
	char name[ORA_NAME + 8];
	int i = find_xattr(n, op->name);
	uint64_t errors = ora_change(&d->ora, n, false) | (i < 0 ? ORA_ERROR(ENODATA) : 0);

	snprintf(name, sizeof(name), "user.%s", op->name);
	if (judge(d, op, errors, cow_removexattr(inode, name)) == APPLY) {
		content_put(n->xattrs[i].value);
		memmove(n->xattrs + i, n->xattrs + i + 1, (--n->xattr_count - (unsigned)i) * sizeof(n->xattrs[0]));
	}
	return d->bug[0] == 0;
}

/* ------------------------------------------------------------------ what works on one inode */

static bool read_in(struct drive *d, const struct op *op, struct ora_node *n, struct cow_inode *inode)
{
	struct cow_attr attr;
	int r = cow_getattr(inode, &attr);

	d->done++;
	if (r < 0)
		return drive_bug(d, "ERRNO %s answered %d", op_verb(op->kind), r);
	if (!drive_check_attr(d, n, &attr, op->a))
		return false;
	return op->kind != OP_READ || !S_ISREG(n->mode) || drive_check_data(d, n, inode, op->a);
}

static bool fsync_in(struct drive *d, const struct op *op, struct ora_node *n, struct cow_inode *inode)
{
	struct promise promise = {ora_node_is_dir(n) ? PROMISE_SYNC : PROMISE_FSYNC, n->id, chronicle_now(&d->past),
				  drive_clock(d), UINT64_MAX};
	unsigned number = d->past.promise_count;
	int r;

	chronicle_promise(&d->past, &promise); /* what it began may be found before it returns */
	r = cow_fsync(inode);
	if (judge_open(d, op, 0, n->gone ? ORA_ERROR(ESTALE) : 0, r) == APPLY)
		d->past.promises[number].kept = drive_clock(d);
	return d->bug[0] == 0;
}

static bool one_in(struct drive *d, const struct op *op, struct ora_node *n, struct cow_inode *inode)
{
	switch (op->kind) {
	case OP_CHMOD:
	case OP_CHMOD_AT:
		return chmod_in(d, op, n, inode);
	case OP_CHOWN:
	case OP_UTIME:
		return set_in(d, op, n, inode);
	case OP_SETXATTR:
		return setxattr_in(d, op, n, inode);
	case OP_RMXATTR:
		return rmxattr_in(d, op, n, inode);
	case OP_FSYNC:
	case OP_FSYNC_AT:
		return fsync_in(d, op, n, inode);
	case OP_READ:
	case OP_STAT:
		return read_in(d, op, n, inode);
	default:
		return data_in(d, op, n, inode);
	}
}

static bool do_one(struct drive *d, const struct op *op)
{
	struct ora_trail t;
	struct cow_inode *inode;
	bool ok;

	if (!drive_walk(d, op->a, &t, &inode) || inode == NULL)
		return d->bug[0] == 0;
	ok = one_in(d, op, t.node[t.count - 1], inode);
	drive_put(d, inode, t.node[t.count - 1]);
	return ok;
}

static bool do_one_at(struct drive *d, const struct op *op)
{
	struct ora_node *n = d->ora.handle[op->handle];

	return n == NULL || one_in(d, op, n, d->held[op->handle]);
}

/* ------------------------------------------------------------------ copying ranges */

static void copy_content(struct ora_node *from, uint64_t x, struct ora_node *to, uint64_t y, uint64_t n)
{
	struct content *c = content_hold(from->content);

	grow(to, y + n);
	content_zero(&to->content, y, n);
	for (unsigned i = 0; i < c->count; i++) {
		uint64_t at = c->slots[i].at * CONTENT_PAGE, end = at + CONTENT_PAGE;
		uint64_t first = at > x ? at : x, last = end < x + n ? end : x + n;

		if (first < last)
			content_write(&to->content, c->slots[i].page->bytes + (first - at), last - first,
				      first - x + y);
	}
	content_put(c);
	to->mtime = 0;
}

static bool copy_between(struct drive *d, const struct op *op, struct ora_node *a, struct cow_inode *from,
			 struct ora_node *b, struct cow_inode *to)
{
	uint64_t size = ora_node_size(a), length = op->z, errors = ora_change(&d->ora, b, true), maybe = 0, n;
	int64_t r;

	if (!S_ISREG(a->mode) || !S_ISREG(b->mode))
		return true;
	if ((op->x ^ op->y) % CONTENT_PAGE != 0 && length > 1 << 20)
		length = 1 << 20; /* bytes that are really copied */
	n = op->x >= size ? 0 : size - op->x < length ? size - op->x : length;
	if (a == b && op->x < op->y + length && op->y < op->x + length) {
		maybe = ORA_ERROR(EINVAL);
		if (n > 0 && op->x < op->y + n && op->y < op->x + n)
			errors |= ORA_ERROR(EINVAL);
	}
	if (n == 0) {
		maybe |= errors;
		errors = 0;
	}
	r = cow_copy_range(from, op->x, to, op->y, length);
	if (judge_open(d, op, errors, maybe, r) != APPLY)
		return d->bug[0] == 0;
	if ((d->faults || d->small) && r > 0 && r < (int64_t)n)
		n = (uint64_t)r; /* what came before the fault, or what there was room for */
	if (r != (int64_t)n)
		return drive_bug(d, "COPY returned %" PRId64 ", not %" PRIu64, r, n);
	if (n > 0)
		copy_content(a, op->x, b, op->y, n);
	return true;
}

static bool do_copy(struct drive *d, const struct op *op)
{
	struct ora_trail s, t;
	struct cow_inode *from, *to = NULL;
	bool ok = drive_walk(d, op->a, &s, &from) && drive_walk(d, op->b, &t, &to);

	if (ok && from != NULL && to != NULL)
		ok = copy_between(d, op, s.node[s.count - 1], from, t.node[t.count - 1], to);
	if (from != NULL)
		drive_put(d, from, s.node[s.count - 1]);
	if (to != NULL)
		drive_put(d, to, t.node[t.count - 1]);
	return ok;
}

/* ------------------------------------------------------------------ open and close */

static bool do_open(struct drive *d, const struct op *op)
{
	struct ora_trail t;
	struct cow_inode *inode;
	int r;

	if (d->ora.handle[op->handle] != NULL)
		return true;
	if (!drive_walk(d, op->a, &t, &inode) || inode == NULL)
		return d->bug[0] == 0;
	r = cow_hold(inode);
	if (r < 0)
		return drive_bug(d, "ERRNO hold answered %d", r);
	d->held[op->handle] = inode;
	d->ora.handle[op->handle] = ora_node_hold(t.node[t.count - 1]);
	return true;
}

static bool do_close(struct drive *d, const struct op *op)
{
	if (d->ora.handle[op->handle] == NULL)
		return true;
	cow_release(d->held[op->handle]);
	cow_forget(d->held[op->handle], 1);
	ora_node_put(d->ora.handle[op->handle]);
	ora_node_put(d->home[op->handle]);
	d->held[op->handle] = NULL;
	d->ora.handle[op->handle] = d->home[op->handle] = NULL;
	return true;
}

/* ------------------------------------------------------------------ totals */

static bool total_of(struct drive *d, struct ora_node *n, struct cow_inode *inode, const char *path)
{
	struct cow_usage usage;
	struct ora_sum sum;
	int r = cow_usage(inode, false, &usage);

	ora_total(n, &sum);
	if (r < 0)
		return drive_bug(d, "TOTAL of %s: %d", path, r);
	if (usage.files != sum.files || usage.directories != sum.dirs || usage.apparent_bytes != sum.bytes)
		return drive_bug(d, "TOTAL of %s: %" PRIu64 " files, %" PRIu64 " directories, %" PRIu64 " bytes; due %"
				    PRIu64 ", %" PRIu64 ", %" PRIu64, path, usage.files, usage.directories,
				 usage.apparent_bytes, sum.files, sum.dirs, sum.bytes);
	return true;
}

static bool totals_below(struct drive *d, struct ora_node *dir, struct cow_inode *inode, const char *path)
{
	bool ok = total_of(d, dir, inode, path);

	for (unsigned i = 0; ok && i < dir->kid_count; i++) {
		struct ora_node *n = dir->kids[i].node;
		struct cow_inode *kid;
		char where[ORA_PATH + 16], name[256];
		int r;

		if (!ora_node_is_dir(n))
			continue;
		snprintf(where, sizeof(where), "%s/%s", path, dir->kids[i].name);
		drive_name(dir->kids[i].name, name);
		r = cow_lookup(inode, name, &kid, NULL);
		if (r < 0)
			return drive_bug(d, "WALK %s: %d", where, r);
		ok = totals_below(d, n, kid, where);
		cow_forget(kid, 1);
	}
	return ok;
}

static bool all_totals(struct drive *d, void *argument)
{
	struct cow_inode *root;
	int r = cow_root(d->volume, &root);
	bool ok;

	(void)argument;
	if (r < 0)
		return drive_bug(d, "ROOT %d", r);
	ok = totals_below(d, d->ora.root, root, "");
	cow_forget(root, 1);
	return ok;
}

/* ------------------------------------------------------------------ whole-volume looks */

struct findings {
	struct drive *drive;
	unsigned count;
};

static void on_finding(void *context, const struct cow_finding *finding)
{
	struct findings *f = context;

	f->count++;
	drive_bug(f->drive, "CHECK%d %s", finding->number, finding->text);
}

bool drive_check_disk(struct drive *d)
{
	struct findings f = {.drive = d};
	struct cow_check_options options = {.finding = on_finding, .context = &f, .data = true};
	struct cow_check_result result;
	struct cow_dev *dev = d->attach(d->disk);
	int r = cow_check_device(dev, &options, &result);

	cow_dev_close(dev);
	if (r < 0)
		return drive_bug(d, "CHECK answered %d", r);
	return f.count == 0;
}

void drive_forget_numbers(struct ora_node *n)
{
	n->ino = 0;
	for (unsigned i = 0; i < n->kid_count; i++)
		drive_forget_numbers(n->kids[i].node);
}

/* The volume starts anew from what is durable, in the state that the oracle has now. */
static bool open_again(struct drive *d)
{
	int r;

	lose_handles(d);
	if (d->small) /* numbers for which there was no space are made anew */
		drive_forget_numbers(d->ora.root);
	if (!drive_check_disk(d))
		return false;
	r = reopen(d);
	if (r < 0)
		return drive_bug(d, "OPEN answered %d", r);
	chronicle_start(&d->past, &d->ora, d->generation);
	return true;
}

static bool remount(struct drive *d)
{
	int r = cow_close(d->volume);

	d->volume = NULL;
	if (r < 0)
		return drive_bug(d, "CLOSE answered %d", r);
	return open_again(d);
}

/* What would be found after closing it now. */
static bool look_ahead(struct drive *d, void *argument)
{
	(void)argument;
	if (!drive_compare(d, d->ora.root))
		return false;
	return !d->in_child || (remount(d) && drive_compare(d, d->ora.root));
}

static bool sync_now(struct drive *d)
{
	struct promise promise = {PROMISE_SYNC, 0, chronicle_now(&d->past), drive_clock(d), 0};
	int r = cow_sync(d->volume);

	promise.kept = drive_clock(d);
	if (d->synced != NULL)
		d->synced(d->synced_context);
	if (fault(d, r))
		return true;
	if (r < 0)
		return drive_bug(d, "SYNC answered %d", r);
	chronicle_promise(&d->past, &promise);
	if (d->keep_past)
		return true;
	d->generation = durable_generation(d);
	chronicle_start(&d->past, &d->ora, d->generation);
	return true;
}

static bool drain_now(struct drive *d)
{
	int r = cow_drain(d->volume);

	return r >= 0 || fault(d, r) || drive_bug(d, "DRAIN answered %d", r);
}

/* A few steps, as the commit thread does them; they go into the next commit. */
static bool reclaim_some(struct drive *d, uint64_t steps)
{
	int r = cow_volume_reclaim(d->volume, steps);

	return r >= 0 || fault(d, r) || drive_bug(d, "RECLAIM answered %d", r);
}

/* ------------------------------------------------------------------ crash */

void drive_reopen_after_crash(struct drive *d, uint64_t *generation, int *result)
{
	cow_volume_abandon(d->volume);
	lose_handles(d);
	*generation = drive_disk_generation(d->attach, d->disk);
	*result = drive_check_disk(d) ? reopen(d) : -EIO;
}

static bool do_crash(struct drive *d)
{
	uint64_t generation, seen = d->generation;
	int r;

	drive_reopen_after_crash(d, &generation, &r);
	if (r < 0)
		return drive_bug(d, "OPEN after a crash answered %d", r);
	if (generation > seen) /* a thread's commit that nobody has seen */
		chronicle_commit(&d->past, seen + 1, generation, d->past.seen, chronicle_now(&d->past));
	if (!drive_recovered(d, &d->past, generation, UINT64_MAX - 1))
		return false;
	chronicle_start(&d->past, &d->ora, d->generation);
	return true;
}

/* ------------------------------------------------------------------ space */

/* All that was removed is given back; other worlds keep their garbage. */
static bool reclaim_all(struct drive *d)
{
	int more;

	do
		more = cow_volume_reclaim(d->volume, 1000);
	while (more > 0 && sync_now(d));
	return d->bug[0] == 0 && (more >= 0 || fault(d, more) || drive_bug(d, "RECLAIM answered %d", more));
}

static bool free_blocks(struct drive *d, uint64_t *blocks)
{
	struct cow_info info;

	if (!sync_now(d) || !reclaim_all(d) || !sync_now(d))
		return false;
	if (cow_info(d->volume, &info) < 0)
		return drive_bug(d, "INFO");
	*blocks = info.free_blocks;
	return true;
}

/* What removing the directory would free is what removing it frees, but for a few nodes on the way. What garbage in
 * other worlds holds alone after that comes back when they are purged. */
static bool look_exclusive(struct drive *d, void *argument)
{
	const struct op *op = argument;
	struct op away = *op;
	struct ora_trail t;
	struct cow_inode *inode;
	struct cow_usage usage;
	uint64_t before, after, expected;
	int64_t off;

	if (!d->in_child)
		return true;
	for (unsigned i = 0; i < ORA_HANDLES; i++) { /* what they hold would not be freed */
		struct op shut = {.kind = OP_CLOSE, .handle = (uint8_t)i};

		do_close(d, &shut);
	}
	drive_drop_pool(d);
	if (!drain_now(d) || !free_blocks(d, &before) || !drive_walk(d, op->a, &t, &inode) || inode == NULL)
		return d->bug[0] == 0;
	if (cow_usage(inode, true, &usage) < 0)
		return drive_bug(d, "EXCLUSIVE of %s failed", op->a);
	cow_forget(inode, 1);
	away.kind = OP_REMOVE;
	if (!do_remove(d, &away) || !free_blocks(d, &after))
		return false;
	ora_walk(&d->ora, op->a, &t);
	if (t.count > 0)
		return true; /* refused: read-only */
	expected = usage.exclusive_bytes / COW_BLOCK_BYTES;
	off = (int64_t)(after - before - expected);
	if (off > 12 || off < -12)
		return drive_bug(d, "EXCLUSIVE of %s: %" PRIu64 " blocks told, %" PRId64 " freed", op->a, expected,
				 (int64_t)(after - before));
	return true;
}

/* ------------------------------------------------------------------ one step */

static bool do_whole(struct drive *d, const struct op *op)
{
	d->done++;
	switch (op->kind) {
	case OP_STATALL:
		return drive_compare(d, d->ora.root);
	case OP_TOTALS:
		return drive_aside(d, all_totals, NULL);
	case OP_EXCLUSIVE:
		return drive_aside(d, look_exclusive, (void *)op);
	case OP_DIFF:
		return drive_diff(d, op);
	case OP_SAME:
		return drive_same(d, op);
	case OP_DRAIN:
		return drain_now(d);
	case OP_RECLAIM:
		return reclaim_some(d, op->x);
	case OP_SYNC:
		return sync_now(d);
	case OP_CRASH:
		return do_crash(d);
	case OP_REMOUNT:
		return remount(d);
	case OP_FORGET:
		if (d->small)
			drive_forget_numbers(d->ora.root);
		drive_drop_pool(d);
		return true;
	default:
		return drive_aside(d, look_ahead, NULL);
	}
}

static bool do_step(struct drive *d, const struct op *op)
{
	switch (op->kind) {
	case OP_MKDIR:
	case OP_CREATE:
	case OP_NODE:
		return do_make(d, op);
	case OP_CREATE_AT:
		return do_create_at(d, op);
	case OP_TMPFILE:
		return do_tmpfile(d, op);
	case OP_LINK_AT:
		return do_link_at(d, op);
	case OP_WRITE_AT:
	case OP_TRUNCATE_AT:
	case OP_CHMOD_AT:
	case OP_FSYNC_AT:
		return do_one_at(d, op);
	case OP_COPY:
		return do_copy(d, op);
	case OP_LINK:
		return do_link(d, op);
	case OP_UNLINK:
	case OP_RMDIR:
	case OP_REMOVE:
		return do_remove(d, op);
	case OP_RENAME:
		return do_rename(d, op);
	case OP_CLONE:
	case OP_CLONE_OVER:
		return do_clone(d, op);
	case OP_CLONE_AT:
		return do_clone_at(d, op);
	case OP_MANY:
		return crowd_make(d, op);
	case OP_CLEAR:
		return crowd_clear(d, op);
	case OP_OPEN:
		return do_open(d, op);
	case OP_CLOSE:
		return do_close(d, op);
	case OP_STATALL:
	case OP_TOTALS:
	case OP_EXCLUSIVE:
	case OP_DIFF:
	case OP_SAME:
	case OP_DRAIN:
	case OP_RECLAIM:
	case OP_SYNC:
	case OP_CRASH:
	case OP_REMOUNT:
	case OP_FORGET:
	case OP_PROBE:
		return do_whole(d, op);
	default:
		return do_one(d, op);
	}
}

/* Commits that ran during the operation: a crash may leave the state before it or after it; with threads, any since
 * shortly before the generation before was seen: one commit is in flight at a time. */
static void note_commits(struct drive *d, unsigned before, bool pieces)
{
	uint64_t now = durable_generation(d);
	unsigned eras = d->past.era_count;

	if (now == d->generation)
		return;
	chronicle_commit(&d->past, d->generation + 1, now, d->threads ? d->past.seen : before,
			 chronicle_now(&d->past));
	while (pieces && eras < d->past.era_count)
		d->past.eras[eras++].partial = true;
	d->past.seen = before;
	d->generation = now;
}

/*
 * The parts of a crowd are moments of their own where a commit may come beside them or fail. Else it is enough to know
 * that a commit inside lies between moments: each moment is a copy of everything.
 */
bool drive_step(struct drive *d, const struct op *op)
{
	bool crowd = op->kind == OP_MANY || op->kind == OP_CLEAR;
	bool changes = op->kind < OP_OPEN;
	uint64_t begun = drive_clock(d);
	unsigned before = chronicle_now(&d->past);
	uint64_t generation = d->beside ? durable_generation(d) : 0;

	if (d->in_parts || (crowd && (d->faults || d->threads)))
		return do_step(d, op) && d->bug[0] == 0;
	d->over = 0;
	d->applied = false;
	d->in_parts = crowd;
	if (!do_step(d, op) || d->bug[0] != 0)
		return false;
	d->in_parts = false;
	if (changes && d->applied)
		chronicle_add(&d->past, &d->ora, begun);
	if (d->over != 0)
		chronicle_promise(&d->past,
				  &(struct promise){PROMISE_OVER, d->over, chronicle_now(&d->past), begun, 0});
	if (d->beside && op->kind == OP_COPY)
		d->beside_in_pieces |= durable_generation(d) != generation;
	if (!d->beside && before < d->past.count) {
		note_commits(d, before, crowd || op->kind == OP_COPY || d->beside_in_pieces);
		d->beside_in_pieces = false;
	}
	if (!d->keep_past && (d->past.count >= DRIVE_MOMENTS || chronicle_is_partial(&d->past, d->generation)))
		return sync_now(d);
	return d->bug[0] == 0;
}

/* ------------------------------------------------------------------ the end of a run */

static bool remove_all(struct drive *d)
{
	while (d->ora.root->kid_count > 0) {
		struct op op = {.kind = OP_REMOVE};

		snprintf(op.a, sizeof(op.a), "/%s", d->ora.root->kids[0].name);
		d->small = false; /* removing always works */
		if (!do_remove(d, &op))
			return false;
	}
	return true;
}

bool drive_finish(struct drive *d)
{
	uint64_t empty_blocks, blocks;
	struct cow_info info;
	bool small = d->small;

	if (!drive_compare(d, d->ora.root) || !remount(d) || !drive_compare(d, d->ora.root) || !remove_all(d))
		return false;
	drive_drop_pool(d);
	if (!free_blocks(d, &blocks) || cow_info(d->volume, &info) < 0)
		return false;
	empty_blocks = info.total_blocks - info.system_blocks - info.reserved_blocks;
	if (info.files != 0 || info.directories != 0)
		return drive_bug(d, "TOTAL of an empty volume: %" PRIu64 " files", info.files);
	if (blocks + 64 < empty_blocks)
		return drive_bug(d, "LEAK %" PRIu64 " blocks of an empty volume", empty_blocks - blocks);
	d->small = small;
	return remount(d);
}
