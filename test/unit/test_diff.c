/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * cow_diff(), cow_same() and cow_usage() against what listing and reading the directories says: random trees with
 * clones, clones of clones, hard links and renames. A diff must tell exactly how to get from the old tree to the
 * new one. Exclusive space is compared with what removing the tree gives back on a copy of the volume.
 *
 * COW_SEED=n reruns one seed, COW_STEPS=n sets the number of operations.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/mkfs.h"
#include "fs/open.h"

#define VOLUME_BYTES (128ull << 20)
#define ENTRIES_MAX 400
/* Blocks by which the estimate of exclusive space may be off, beside one for each directory on the way to the entry,
 * which is copied when the entry goes. */
#define EXCLUSIVE_SLACK 12

struct world {
	struct cow_dev *dev;
	struct cow_volume *volume;
	uint64_t random, seed, step;
};

static uint64_t any(struct world *w, uint64_t below)
{
	uint64_t z = w->random += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return (z ^ z >> 31) % below;
}

#define FAIL(w, ...)                                                                                                   \
	do {                                                                                                           \
		fprintf(stderr, "COW_SEED=%llu, step %llu: ", (unsigned long long)(w)->seed,                           \
			(unsigned long long)(w)->step);                                                                \
		fprintf(stderr, __VA_ARGS__);                                                                          \
		fputc('\n', stderr);                                                                                   \
		fail();                                                                                                \
	} while (0)

static void ok(struct world *w, int result, const char *what)
{
	if (result < 0)
		FAIL(w, "%s: %s", what, cow_error_text(result));
}

static const struct cow_open_options options = {.no_threads = true, .cache_bytes = 2u << 20};

/* ------------------------------------------------------------------ a tree as it is seen from outside */

struct entry {
	char *path;
	struct cow_attr attr;
	uint64_t content; /* hash */
	/* while a diff is checked */
	char *now;    /* old: where it is in new; NULL: gone */
	bool used;    /* new: something of old is here, or it was reported as added */
	char changed; /* new: reported M, m, T, or c for R with content */
	bool renamed;
};

struct tree {
	struct world *w;
	struct entry *entries; /* sorted by path, from "" */
	size_t count;
	const char *prefix;
};

static uint64_t hash(const void *bytes, size_t length)
{
	uint64_t h = 14695981039346656037ULL;

	for (size_t i = 0; i < length; i++)
		h = (h ^ ((const uint8_t *)bytes)[i]) * 1099511628211ULL;
	return h;
}

static uint64_t content_of(struct world *w, struct cow_inode *inode, const struct cow_attr *attr)
{
	static uint8_t buffer[1 << 20];

	if (S_ISREG(attr->mode)) {
		int64_t got = cow_read(inode, buffer, sizeof(buffer), 0);
		assert_true(got == (int64_t)attr->size);
		return hash(buffer, attr->size);
	}
	if (S_ISLNK(attr->mode)) {
		ok(w, cow_readlink(inode, (char *)buffer, sizeof(buffer)), "readlink");
		return hash(buffer, attr->size);
	}
	return attr->rdev;
}

static void scan(struct tree *t, struct cow_inode *inode, const char *path, const struct cow_attr *attr);

static int scan_entry(void *context, const struct cow_entry *entry, struct cow_inode *inode,
		      const struct cow_attr *attr)
{
	struct tree *t = context;
	const char *prefix = t->prefix;
	char path[4096];

	snprintf(path, sizeof(path), "%s%s%s", prefix, *prefix ? "/" : "", entry->name);
	scan(t, inode, path, attr);
	t->prefix = prefix;
	cow_forget(inode, 1);
	return 0;
}

static void scan(struct tree *t, struct cow_inode *inode, const char *path, const struct cow_attr *attr)
{
	struct entry e = {.path = strdup(path), .attr = *attr};

	if (!S_ISDIR(attr->mode))
		e.content = content_of(t->w, inode, attr);
	t->entries = realloc(t->entries, (t->count + 1) * sizeof(e));
	t->entries[t->count++] = e;
	if (S_ISDIR(attr->mode)) {
		t->prefix = path;
		ok(t->w, cow_list(inode, 0, true, scan_entry, t), "list");
	}
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->path, ((const struct entry *)b)->path);
}

static void tree_scan(struct world *w, struct cow_inode *inode, struct tree *t)
{
	struct cow_attr attr;

	*t = (struct tree){.w = w};
	ok(w, cow_getattr(inode, &attr), "getattr");
	scan(t, inode, "", &attr);
	qsort(t->entries, t->count, sizeof(*t->entries), by_path);
}

static void tree_free(struct tree *t)
{
	for (size_t i = 0; i < t->count; i++) {
		free(t->entries[i].path);
		free(t->entries[i].now);
	}
	free(t->entries);
}

static struct entry *tree_find(struct tree *t, const char *path)
{
	struct entry key = {.path = (char *)path};

	return t->count != 0 ? bsearch(&key, t->entries, t->count, sizeof(key), by_path) : NULL;
}

/* ------------------------------------------------------------------ diff */

struct check {
	struct world *w;
	struct tree old, new;
	char last[4096];
	size_t changes;
	bool failed;
};

static void note_gone(struct check *c, const char *path, const char *now)
{
	struct entry *e = tree_find(&c->old, path);

	if (e == NULL || e->renamed)
		FAIL(c->w, "gone twice, or never there: %s", path);
	e->renamed = true;
	e->now = now != NULL ? strdup(now) : NULL;
}

static struct entry *note_new(struct check *c, const char *path, bool added)
{
	struct entry *e = tree_find(&c->new, path);

	if (e == NULL || (added && e->used))
		FAIL(c->w, "new twice, or not there: %s", path);
	e->used |= added;
	return e;
}

static int check_change(void *context, const struct cow_change *change)
{
	struct check *c = context;

	if (getenv("COW_SHOW") != NULL)
		fprintf(stderr, "    %c %s%s%s\n", change->type, change->old_path ? change->old_path : "",
			change->old_path ? " -> " : "", change->path);
	if (strcmp(c->last, change->path) > 0)
		FAIL(c->w, "not sorted: %s before %s", c->last, change->path);
	snprintf(c->last, sizeof(c->last), "%s", change->path);
	c->changes++;
	switch (change->type) {
	case 'A':
		note_new(c, change->path, true);
		break;
	case 'D':
		note_gone(c, change->path, NULL);
		break;
	case 'R':
		note_gone(c, change->old_path, change->path);
		note_new(c, change->path, true)->changed = change->content ? 'c' : 'r';
		break;
	default:
		if (note_new(c, change->path, false)->changed != 0)
			FAIL(c->w, "changed twice: %s", change->path);
		note_new(c, change->path, false)->changed = change->type;
	}
	return 0;
}

/* Where an entry of old is in new: with its directory, unless it was reported itself. Parents come first in the
 * order. */
static void place(struct check *c, struct entry *e)
{
	char path[4096], *slash = strrchr(e->path, '/');

	if (e->renamed)
		return;
	if (*e->path == '\0') {
		e->now = strdup("");
		return;
	}
	snprintf(path, sizeof(path), "%.*s", slash != NULL ? (int)(slash - e->path) : 0, e->path);
	struct entry *dir = tree_find(&c->old, path);
	if (dir->now == NULL)
		FAIL(c->w, "%s is gone, but %s was not reported", path, e->path);
	snprintf(path, sizeof(path), "%s%s%s", dir->now, *dir->now ? "/" : "", slash != NULL ? slash + 1 : e->path);
	e->now = strdup(path);
	struct entry *new = tree_find(&c->new, path);
	if (new == NULL || new->used)
		FAIL(c->w, "%s should now be %s, which is %s", e->path, path,
		     new != NULL ? "something else" : "not there");
	new->used = true;
}

static void check_pair(struct check *c, const struct entry *a, const struct entry *b)
{
	char want = 0;

	if ((a->attr.mode & S_IFMT) != (b->attr.mode & S_IFMT))
		want = 'T';
	else if (a->content != b->content || (S_ISREG(a->attr.mode) && a->attr.size != b->attr.size))
		want = 'M';
	else if (a->attr.mode != b->attr.mode || a->attr.uid != b->attr.uid || a->attr.gid != b->attr.gid)
		want = 'm';
	if (b->changed == 'r' || b->changed == 'c')
		want = want == 'M' ? 'c' : want == 'T' ? 'T' : 'r';
	if (b->changed != want)
		FAIL(c->w, "%s -> %s: reported '%c', is '%c'", a->path, b->path, b->changed ? b->changed : '-',
		     want ? want : '-');
}

static size_t check_diff(struct world *w, struct cow_inode *old, struct cow_inode *new)
{
	struct check c = {.w = w};
	struct entry *b;

	tree_scan(w, old, &c.old);
	tree_scan(w, new, &c.new);
	ok(w, cow_diff(old, new, true, check_change, &c), "diff");
	for (size_t i = 0; i < c.old.count; i++) {
		struct entry *e = &c.old.entries[i];
		place(&c, e);
		if (e->now != NULL && (b = tree_find(&c.new, e->now)) != NULL)
			check_pair(&c, e, b);
	}
	for (size_t i = 1; i < c.new.count; i++)
		if (!c.new.entries[i].used)
			FAIL(w, "%s is new, but was not reported", c.new.entries[i].path);
	tree_free(&c.old);
	tree_free(&c.new);
	return c.changes;
}

/* ------------------------------------------------------------------ same */

/* The first path with the same inode: names of one file agree in it. */
static size_t leader(const struct tree *t, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (t->entries[k].attr.ino == t->entries[i].attr.ino)
			return k;
	return i;
}

static bool really_same(const struct tree *a, const struct tree *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++) {
		const struct entry *x = &a->entries[i], *y = &b->entries[i];
		if (strcmp(x->path, y->path) != 0 || x->attr.mode != y->attr.mode || x->attr.uid != y->attr.uid ||
		    x->attr.gid != y->attr.gid || x->content != y->content || leader(a, i) != leader(b, i))
			return false;
		if (!S_ISDIR(x->attr.mode) && x->attr.size != y->attr.size)
			return false;
	}
	return true;
}

static void check_same(struct world *w, struct cow_inode *a, struct cow_inode *b)
{
	struct tree x, y;
	int same = cow_same(a, b);

	ok(w, same, "same");
	tree_scan(w, a, &x);
	tree_scan(w, b, &y);
	if (really_same(&x, &y) != (same == 1))
		FAIL(w, "same says %d", same);
	tree_free(&x);
	tree_free(&y);
}

/* ------------------------------------------------------------------ usage */

static uint64_t free_blocks(struct world *w, struct cow_volume *volume)
{
	struct cow_info info;

	ok(w, cow_drain(volume), "drain");
	ok(w, cow_drain(volume), "drain");
	ok(w, cow_info(volume, &info), "info");
	return info.free_blocks;
}

static int64_t depth_of(const char *path)
{
	int64_t depth = 0;

	for (; *path != 0; path++)
		depth += *path == '/';
	return depth;
}

/* Against a copy of the volume, where it is removed. Without garbage: that holds what the entry would have alone. */
static void check_exclusive(struct world *w, const char *path, const struct cow_usage *usage)
{
	struct cow_usage alone;
	struct cow_volume *copy;
	struct cow_inode *dir, *entry;
	char parent[4096];
	const char *name = strrchr(path, '/') + 1;
	const int64_t slack = EXCLUSIVE_SLACK + depth_of(path);

	ok(w, cow_sync(w->volume), "sync");
	ok(w, cow_volume_open(cow_sim_copy(w->dev), &options, &copy), "open copy");
	snprintf(parent, sizeof(parent), "%.*s", (int)(name - path), path);
	uint64_t before = free_blocks(w, copy);
	ok(w, cow_lookup_path(copy, parent, &dir), "look up");
	ok(w, cow_lookup(dir, name, &entry, NULL), "look up");
	ok(w, cow_usage(entry, true, &alone), "usage");
	cow_forget(entry, 1);
	int64_t said = (int64_t)(alone.exclusive_bytes / 4096);
	if ((int64_t)(usage->exclusive_bytes / 4096) > said + slack)
		FAIL(w, "%s: %lld blocks exclusive, and %lld without garbage", path,
		     (long long)(usage->exclusive_bytes / 4096), (long long)said);
	ok(w, cow_remove_tree(dir, name), "remove");
	int64_t back = (int64_t)(free_blocks(w, copy) - before);
	if (back - said > slack || said - back > slack)
		FAIL(w, "%s: %lld blocks came back, %lld were said", path, (long long)back, (long long)said);
	cow_volume_abandon(copy);
}

static void check_usage(struct world *w, const char *path, struct cow_inode *inode)
{
	struct cow_usage usage, live;
	uint64_t files = 0, dirs = 0, bytes = 0;
	struct tree t;

	ok(w, cow_usage(inode, false, &live), "usage");
	ok(w, cow_usage(inode, true, &usage), "usage");
	tree_scan(w, inode, &t);
	for (size_t i = 0; i < t.count; i++) {
		if (i > 0 && S_ISDIR(t.entries[i].attr.mode))
			dirs++;
		if (S_ISDIR(t.entries[i].attr.mode) || leader(&t, i) != i)
			continue;
		files++;
		bytes += t.entries[i].attr.size;
	}
	if (usage.files != files || usage.directories != dirs || usage.apparent_bytes != bytes)
		FAIL(w, "%s: usage says %llu files %llu dirs %llu bytes, there are %llu, %llu, %llu", path,
		     (unsigned long long)usage.files, (unsigned long long)usage.directories,
		     (unsigned long long)usage.apparent_bytes, (unsigned long long)files, (unsigned long long)dirs,
		     (unsigned long long)bytes);
	assert_true(live.files == files && live.directories == dirs && live.apparent_bytes == bytes);
	assert_true(live.total_bytes == usage.total_bytes);
	if (path[1] != '\0' && any(w, 4) == 0)
		check_exclusive(w, path, &usage);
	tree_free(&t);
}

/* ------------------------------------------------------------------ the whole volume */

static void show_finding(void *context, const struct cow_finding *finding)
{
	(void)context;
	fprintf(stderr, "finding %d: block %llu: %s\n", finding->number, (unsigned long long)finding->block,
		finding->text);
}

static void check_volume(struct world *w)
{
	const struct cow_check_options all = {.finding = show_finding, .data = true};
	struct cow_check_result result;
	char path[] = "/tmp/cowtest-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	ok(w, cow_sync(w->volume), "sync");
	ok(w, cow_sim_save(w->dev, path), "save");
	ok(w, cow_check(path, &all, &result), "check");
	unlink(path);
	if (result.findings != 0)
		ok(w, COW_ERR_DAMAGED, "check has findings");
}

/* ------------------------------------------------------------------ operations */

/* A random entry, as "/path"; with `dir` only a directory. */
static void pick_path(struct world *w, struct tree *t, bool dir, char *path)
{
	size_t i;

	do
		i = any(w, t->count);
	while (dir && !S_ISDIR(t->entries[i].attr.mode));
	sprintf(path, "/%s", t->entries[i].path);
}

static struct cow_inode *get(struct world *w, const char *path)
{
	struct cow_inode *inode;

	ok(w, cow_lookup_path(w->volume, path, &inode), path);
	return inode;
}

static void any_name(struct world *w, char *name)
{
	sprintf(name, "%c", (char)('a' + any(w, 7)));
}

static void write_some(struct world *w, struct cow_inode *file)
{
	static uint8_t bytes[80000];
	size_t size = 1 + any(w, any(w, 3) ? 700 : sizeof(bytes));
	struct cow_attr attr;

	/* Often the same bytes again, so that equal content is found by reading. */
	memset(bytes, (int)any(w, 3), size);
	if (cow_getattr(file, &attr) == 0 && S_ISREG(attr.mode))
		(void)!cow_write(file, bytes, size, any(w, 4) ? 0 : any(w, 100000), false);
}

static void create_some(struct world *w, struct cow_inode *dir, const char *name)
{
	static const uint32_t modes[] = {S_IFREG | 0644, S_IFREG | 0644, S_IFREG | 0600, S_IFDIR | 0755, S_IFDIR | 0755,
					 S_IFLNK | 0777, S_IFIFO | 0600};
	struct cow_new new = {.mode = modes[any(w, 7)], .target = any(w, 2) ? "somewhere" : "elsewhere"};
	struct cow_inode *inode;

	if (cow_create(dir, name, &new, &inode, NULL) != 0)
		return;
	write_some(w, inode);
	cow_forget(inode, 1);
}

static void change_some(struct world *w, struct cow_inode *inode)
{
	struct cow_attr attr = {.mode = any(w, 2) ? 0700 : 0755, .uid = (uint32_t)any(w, 3)};

	if (any(w, 3) != 0)
		write_some(w, inode);
	else
		(void)!cow_setattr(inode, &attr, any(w, 2) ? COW_SET_MODE : COW_SET_UID, NULL);
}

static void remove_some(struct world *w, const char *path)
{
	char parent[4096];
	const char *name = strrchr(path, '/') + 1;
	struct cow_inode *dir;

	if (path[1] == '\0')
		return;
	snprintf(parent, sizeof(parent), "%.*s", (int)(name - path), path);
	dir = get(w, parent);
	if (any(w, 3) == 0)
		(void)!cow_remove_tree(dir, name);
	else if (cow_unlink(dir, name) == -EISDIR)
		(void)!cow_rmdir(dir, name);
	cow_forget(dir, 1);
}

static void rename_some(struct world *w, const char *path, struct cow_inode *to_dir, const char *to)
{
	char parent[4096];
	const char *name = strrchr(path, '/') + 1;
	struct cow_inode *dir;

	if (path[1] == '\0')
		return;
	snprintf(parent, sizeof(parent), "%.*s", (int)(name - path), path);
	dir = get(w, parent);
	(void)!cow_rename(dir, name, to_dir, to, 0);
	cow_forget(dir, 1);
}

static void one_step(struct world *w, struct tree *t)
{
	char path[4096], dir_path[4096], name[8];
	struct cow_inode *inode, *dir;

	pick_path(w, t, any(w, 3) == 0, path);
	pick_path(w, t, true, dir_path);
	any_name(w, name);
	inode = get(w, path);
	dir = get(w, dir_path);
	switch (any(w, 16)) {
	case 0: case 1: case 2: case 3:
		create_some(w, dir, name);
		break;
	case 4: case 5: case 6:
		change_some(w, inode);
		break;
	case 7: case 8:
		(void)!cow_link(inode, dir, name, NULL);
		break;
	case 9: case 10:
		rename_some(w, path, dir, name);
		break;
	case 11:
		remove_some(w, path);
		break;
	case 12: case 13:
		if (t->count < ENTRIES_MAX)
			(void)!cow_clone(inode, dir, name, 0, NULL, NULL);
		break;
	case 14:
		check_usage(w, path, inode);
		break;
	default:
		ok(w, cow_sync(w->volume), "sync");
	}
	cow_forget(inode, 1);
	cow_forget(dir, 1);
}

static void compare_some(struct world *w, struct tree *t)
{
	char a[4096], b[4096];
	struct cow_inode *old, *new;

	pick_path(w, t, true, a);
	pick_path(w, t, true, b);
	old = get(w, a);
	new = get(w, b);
	if (getenv("COW_SHOW") != NULL)
		fprintf(stderr, "step %llu: diff %s %s\n", (unsigned long long)w->step, a, b);
	check_diff(w, old, new);
	check_same(w, old, new);
	cow_forget(old, 1);
	cow_forget(new, 1);
}

static void open_world(struct world *w)
{
	w->dev = cow_sim_new(VOLUME_BYTES);
	ok(w, cow_volume_format(w->dev, &(struct cow_format_options){.size_bytes = VOLUME_BYTES}), "format");
	ok(w, cow_volume_open(w->dev, &options, &w->volume), "open");
}

/* A file of two blocks, with content of its own, and a second name. */
static void linked_pair(struct world *w, struct cow_inode *dir, unsigned i)
{
	struct cow_new new = {.mode = S_IFREG | 0644};
	struct cow_inode *file;
	char name[16], other[16];
	uint32_t bytes[2048];

	snprintf(name, sizeof(name), "f%u", i);
	snprintf(other, sizeof(other), "g%u", i);
	for (unsigned k = 0; k < 2048; k++)
		bytes[k] = i << 16 | k;
	ok(w, cow_create(dir, name, &new, &file, NULL), "create");
	ok(w, (int)cow_write(file, bytes, sizeof(bytes), 0, false), "write");
	ok(w, cow_link(file, dir, other, NULL), "link");
	cow_forget(file, 1);
}

static uint64_t exclusive_blocks(struct world *w, const char *path)
{
	struct cow_inode *inode = get(w, path);
	struct cow_usage usage;

	ok(w, cow_usage(inode, true, &usage), "usage");
	cow_forget(inode, 1);
	check_exclusive(w, path, &usage);
	return usage.exclusive_bytes / 4096;
}

/*
 * Held by one other: that is enough. What a directory shares, what lies below its border, and its hard-linked files,
 * whose records are in a tree that the clone's world has a pointer to.
 */
static void exclusive_of_two(void **state)
{
	struct cow_new new = {.mode = S_IFDIR | 0755};
	struct world w = {.seed = 0};
	struct cow_inode *root, *dir, *sub;

	(void)state;
	open_world(&w);
	ok(&w, cow_root(w.volume, &root), "root");
	linked_pair(&w, root, 99); /* so that not all links of the world lie below /a */
	ok(&w, cow_create(root, "a", &new, &dir, NULL), "create");
	ok(&w, cow_create(dir, "s", &new, &sub, NULL), "create");
	for (unsigned i = 0; i < 40; i++)
		linked_pair(&w, i < 20 ? dir : sub, i);
	assert_true(exclusive_blocks(&w, "/a") >= 80);
	assert_true(exclusive_blocks(&w, "/a/s") >= 40);
	ok(&w, cow_clone(dir, root, "b", 0, NULL, NULL), "clone");
	assert_true(exclusive_blocks(&w, "/a") <= EXCLUSIVE_SLACK);
	assert_true(exclusive_blocks(&w, "/a/s") <= EXCLUSIVE_SLACK);
	assert_true(exclusive_blocks(&w, "/b/s") <= EXCLUSIVE_SLACK);
	ok(&w, cow_remove_tree(root, "b"), "remove");
	assert_true(exclusive_blocks(&w, "/a") >= 80);
	cow_forget(sub, 1);
	cow_forget(dir, 1);
	check_volume(&w);
	cow_volume_abandon(w.volume);
}

static void random_run(uint64_t seed, uint64_t steps)
{
	struct world w = {.random = seed, .seed = seed};
	struct cow_inode *root;
	struct tree t;

	open_world(&w);
	ok(&w, cow_root(w.volume, &root), "root");
	for (w.step = 0; w.step < steps; w.step++) {
		tree_scan(&w, root, &t);
		one_step(&w, &t);
		tree_free(&t);
		if (w.step % 4 == 0) {
			tree_scan(&w, root, &t);
			compare_some(&w, &t);
			tree_free(&t);
		}
	}
	check_volume(&w);
	cow_volume_abandon(w.volume);
}

static void against_listing(void **state)
{
	const char *one = getenv("COW_SEED"), *many = getenv("COW_STEPS");
	uint64_t steps = many != NULL ? strtoull(many, NULL, 0) : 250;

	(void)state;
	if (one != NULL) {
		random_run(strtoull(one, NULL, 0), steps);
		return;
	}
	for (uint64_t seed = 1; seed <= 10; seed++)
		random_run(seed, steps);
	uint64_t fresh = (uint64_t)time(NULL) ^ (uint64_t)getpid() << 32;
	print_message("COW_SEED=%llu\n", (unsigned long long)fresh);
	random_run(fresh, steps);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exclusive_of_two),
		cmocka_unit_test(against_listing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
