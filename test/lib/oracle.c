/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cow.h"

/* ------------------------------------------------------------------ nodes */

/* Nodes pass from one oracle to another (saved states), so their marks must be unique among all. */
uint64_t ora_mark(void)
{
	static uint64_t mark;

	return ++mark;
}

struct ora_node *ora_node_new(uint32_t mode)
{
	static uint64_t id;
	struct ora_node *n = cow_mem_new(sizeof(*n));

	n->id = ++id;
	n->refs = 1;
	n->mode = mode;
	n->content = content_new();
	return n;
}

struct ora_node *ora_node_hold(struct ora_node *n)
{
	n->refs++;
	return n;
}

void ora_node_put(struct ora_node *n)
{
	if (n == NULL || --n->refs > 0)
		return;
	for (unsigned i = 0; i < n->kid_count; i++)
		ora_node_put(n->kids[i].node);
	for (unsigned i = 0; i < n->xattr_count; i++)
		content_put(n->xattrs[i].value);
	content_put(n->content);
	free(n->kids);
	free(n);
}

uint64_t ora_node_size(const struct ora_node *n)
{
	return n->content->size;
}

/* The first kid at or after `name`. */
static unsigned find_kid(const struct ora_node *dir, const char *name, bool *found)
{
	unsigned low = 0, high = dir->kid_count;

	*found = false;
	while (low < high) {
		unsigned mid = (low + high) / 2;
		int order = strcmp(dir->kids[mid].name, name);

		if (order == 0) {
			*found = true;
			return mid;
		}
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct ora_node *ora_node_find(const struct ora_node *dir, const char *name)
{
	bool found;
	unsigned i = find_kid(dir, name, &found);

	return found ? dir->kids[i].node : NULL;
}

/* Gives `dir` a name for `node`; takes a reference of its own. */
static void add_kid(struct ora_node *dir, const char *name, struct ora_node *node)
{
	bool found;
	unsigned i = find_kid(dir, name, &found);

	if (dir->kid_count == dir->kid_room) {
		dir->kid_room = dir->kid_room * 2 + 4;
		dir->kids = cow_mem_resize(dir->kids, dir->kid_room * sizeof(*dir->kids));
	}
	memmove(dir->kids + i + 1, dir->kids + i, (dir->kid_count - i) * sizeof(*dir->kids));
	dir->kid_count++;
	snprintf(dir->kids[i].name, ORA_NAME, "%s", name);
	dir->kids[i].node = ora_node_hold(node);
	if (!ora_node_is_dir(node))
		node->names++;
	dir->mtime = 0;
}

static void del_kid(struct ora_node *dir, const char *name)
{
	bool found;
	unsigned i = find_kid(dir, name, &found);
	struct ora_node *node = dir->kids[i].node;

	memmove(dir->kids + i, dir->kids + i + 1, (dir->kid_count - i - 1) * sizeof(*dir->kids));
	dir->kid_count--;
	if (!ora_node_is_dir(node))
		node->names--;
	dir->mtime = 0;
	ora_node_put(node);
}

static struct ora_node *copy_node(struct ora_node *n, uint64_t mark, bool with_ino)
{
	struct ora_node *c;

	if (n->mark == mark)
		return ora_node_hold(n->twin);
	c = ora_node_new(n->mode);
	n->mark = mark;
	n->twin = c;
	content_put(c->content);
	c->content = content_hold(n->content);
	c->uid = n->uid;
	c->gid = n->gid;
	c->rdev = n->rdev;
	c->world = n->world;
	c->read_only = n->read_only;
	c->mtime = n->mtime;
	c->ino = with_ino ? n->ino : 0;
	c->id = with_ino ? n->id : c->id;
	c->xattr_count = n->xattr_count;
	for (unsigned i = 0; i < n->xattr_count; i++) {
		c->xattrs[i] = n->xattrs[i];
		content_hold(n->xattrs[i].value);
	}
	c->kid_count = c->kid_room = n->kid_count;
	if (n->kid_count > 0)
		c->kids = cow_mem_copy(n->kids, n->kid_count * sizeof(*c->kids));
	for (unsigned i = 0; i < c->kid_count; i++) {
		c->kids[i].node = copy_node(n->kids[i].node, mark, with_ino);
		if (!ora_node_is_dir(c->kids[i].node))
			c->kids[i].node->names++;
	}
	return c;
}

struct ora_node *ora_tree_copy(struct ora_node *top, bool with_ino)
{
	return copy_node(top, ora_mark(), with_ino);
}

/* ------------------------------------------------------------------ the whole */

void ora_init(struct ora *ora)
{
	memset(ora, 0, sizeof(*ora));
	ora->root = ora_node_new(S_IFDIR | 0755);
	ora->root->world = true;
}

static void drop_handles(struct ora *ora)
{
	for (unsigned i = 0; i < ORA_HANDLES; i++) {
		ora_node_put(ora->handle[i]);
		ora->handle[i] = NULL;
	}
}

void ora_free(struct ora *ora)
{
	drop_handles(ora);
	ora_node_put(ora->root);
	ora->root = NULL;
}

void ora_restore(struct ora *ora, struct ora_node *root)
{
	drop_handles(ora);
	ora_node_put(ora->root);
	ora->root = root;
}

/* ------------------------------------------------------------------ trails */

void ora_walk(const struct ora *ora, const char *path, struct ora_trail *t)
{
	struct ora_node *n = ora->root;

	t->count = 1;
	t->node[0] = n;
	t->last[0] = 0;
	while (*path == '/')
		path++;
	while (*path != 0) {
		size_t length = strcspn(path, "/");

		if (length >= ORA_NAME || t->count == ORA_DEPTH)
			goto none;
		memcpy(t->last, path, length);
		t->last[length] = 0;
		n = ora_node_is_dir(n) ? ora_node_find(n, t->last) : NULL;
		if (n == NULL)
			goto none;
		t->node[t->count++] = n;
		for (path += length; *path == '/';)
			path++;
	}
	return;
none:
	t->count = 0;
}

static bool find_below(const struct ora_node *node, struct ora_trail *t)
{
	struct ora_node *top = t->node[t->count - 1];

	if (top == node)
		return true;
	if (t->count == ORA_DEPTH)
		return false;
	for (unsigned i = 0; i < top->kid_count; i++) {
		t->node[t->count++] = top->kids[i].node;
		if (find_below(node, t))
			return true;
		t->count--;
	}
	return false;
}

void ora_find(const struct ora *ora, const struct ora_node *node, struct ora_trail *t)
{
	t->count = 1;
	t->node[0] = ora->root;
	t->last[0] = 0;
	if (!find_below(node, t))
		t->count = 0;
}

bool ora_trail_read_only(const struct ora_trail *t, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (t->node[i]->world && t->node[i]->read_only)
			return true;
	return false;
}

bool ora_node_read_only(const struct ora *ora, const struct ora_node *node)
{
	struct ora_trail t;

	ora_find(ora, node, &t);
	return t.count > 0 && ora_trail_read_only(&t, t.count);
}

/* The top of the world of the node at position `count` - 1 (a file: of its directory). */
static struct ora_node *world_of(const struct ora_trail *t, unsigned count)
{
	while (count > 1 && !t->node[count - 1]->world)
		count--;
	return t->node[count - 1];
}

static struct ora_node *tail(const struct ora_trail *t)
{
	return t->node[t->count - 1];
}

/* ------------------------------------------------------------------ operations */

/* What any new name in this directory answers. */
static uint64_t may_add(const struct ora_trail *dir, const char *name)
{
	struct ora_node *d = tail(dir);
	uint64_t errors = 0;

	if (!ora_node_is_dir(d))
		return ORA_ERROR(ENOTDIR);
	if (d->gone)
		errors |= ORA_ERROR(ENOENT);
	else if (ora_trail_read_only(dir, dir->count))
		errors |= ORA_ERROR(EROFS);
	if (ora_node_find(d, name) != NULL)
		errors |= ORA_ERROR(EEXIST);
	return errors;
}

uint64_t ora_make(const struct ora_trail *dir, const char *name, struct ora_node *made, bool apply)
{
	uint64_t errors = may_add(dir, name);

	if (apply && errors == 0)
		add_kid(tail(dir), name, made);
	return errors;
}

uint64_t ora_link(const struct ora_trail *from, const struct ora_trail *dir, const char *name, bool apply)
{
	uint64_t errors = may_add(dir, name);
	struct ora_node *n = tail(from);

	if (ora_node_is_dir(n))
		errors |= ORA_ERROR(EPERM);
	else if (ora_node_is_dir(tail(dir)) && world_of(from, from->count) != world_of(dir, dir->count))
		errors |= ORA_ERROR(EXDEV);
	if (apply && errors == 0)
		add_kid(tail(dir), name, n);
	return errors;
}

/* What taking the name away answers. */
static uint64_t may_del(const struct ora_trail *at)
{
	if (at->count < 2)
		return ORA_ERROR(ENOENT);
	return ora_trail_read_only(at, at->count - 1) ? ORA_ERROR(EROFS) : 0;
}

uint64_t ora_unlink(const struct ora_trail *at, bool apply)
{
	uint64_t errors = may_del(at);

	if (ora_node_is_dir(tail(at)))
		errors |= ORA_ERROR(EISDIR);
	if (apply && errors == 0)
		del_kid(at->node[at->count - 2], at->last);
	return errors;
}

uint64_t ora_rmdir(const struct ora_trail *at, bool apply)
{
	uint64_t errors = may_del(at);

	if (!ora_node_is_dir(tail(at)))
		errors |= ORA_ERROR(ENOTDIR);
	else if (tail(at)->kid_count > 0)
		errors |= ORA_ERROR(ENOTEMPTY);
	if (apply && errors == 0) {
		tail(at)->gone = true;
		del_kid(at->node[at->count - 2], at->last);
	}
	return errors;
}

/* A removed directory is empty for whoever holds it. */
static void empty(struct ora_node *dir)
{
	dir->gone = true;
	while (dir->kid_count > 0) {
		struct ora_kid *last = &dir->kids[dir->kid_count - 1];
		char name[ORA_NAME];

		if (ora_node_is_dir(last->node))
			empty(last->node);
		memcpy(name, last->name, ORA_NAME);
		del_kid(dir, name);
	}
}

uint64_t ora_remove_tree(const struct ora_trail *at, bool apply)
{
	uint64_t errors = may_del(at);
	struct ora_node *n = tail(at);

	if (apply && errors == 0) {
		ora_node_hold(n);
		del_kid(at->node[at->count - 2], at->last);
		if (ora_node_is_dir(n))
			empty(n);
		ora_node_put(n);
	}
	return errors;
}

/* A file's clone is a new inode without other names. */
static struct ora_node *make_clone(struct ora_node *from, bool read_only)
{
	struct ora_node *c = ora_tree_copy(from, false);

	if (ora_node_is_dir(c)) {
		c->world = true;
		c->read_only = read_only;
	}
	return c;
}

uint64_t ora_clone(struct ora_node *from, const struct ora_trail *dir, const char *name,
		   bool read_only, bool apply)
{
	uint64_t errors = may_add(dir, name);

	if (read_only && !ora_node_is_dir(from))
		errors |= ORA_ERROR(EINVAL);
	if (apply && errors == 0) {
		struct ora_node *c = make_clone(from, read_only);

		add_kid(tail(dir), name, c);
		ora_node_put(c);
	}
	return errors;
}

uint64_t ora_clone_over(struct ora_node *from, const struct ora_trail *dir, const char *name,
			bool read_only, bool apply)
{
	struct ora_node *d = tail(dir), *old = ora_node_is_dir(d) ? ora_node_find(d, name) : NULL;
	uint64_t errors = ora_node_is_dir(d) ? may_add(dir, name) & ~ORA_ERROR(EEXIST) : ORA_ERROR(ENOTDIR);

	if (read_only && !ora_node_is_dir(from))
		errors |= ORA_ERROR(EINVAL);
	if (old == from)
		errors |= ORA_ERROR(EINVAL);
	if (old == NULL)
		errors |= ORA_ERROR(ENOENT);
	else if (ora_node_is_dir(old) != ora_node_is_dir(from))
		errors |= ora_node_is_dir(old) ? ORA_ERROR(EISDIR) : ORA_ERROR(ENOTDIR);
	else if (ora_node_is_dir(old) ? old->kid_count > 0 : ora_node_size(old) > 0)
		errors |= ORA_ERROR(ENOTEMPTY);
	if (apply && errors == 0) {
		struct ora_node *c;

		if (ora_node_is_dir(old))
			old->gone = true;
		del_kid(d, name); /* before the copy: a target inside the source is not in it */
		c = make_clone(from, read_only);
		add_kid(d, name, c);
		ora_node_put(c);
	}
	return errors;
}

static bool on_trail(const struct ora_trail *t, const struct ora_node *n)
{
	for (unsigned i = 0; i < t->count; i++)
		if (t->node[i] == n)
			return true;
	return false;
}

/* Counts how many names of each file lie below, in this world. */
static void count_names(struct ora_node *dir, uint64_t mark, struct ora_node ***list, unsigned *count)
{
	for (unsigned i = 0; i < dir->kid_count; i++) {
		struct ora_node *n = dir->kids[i].node;

		if (ora_node_is_dir(n)) {
			if (!n->world)
				count_names(n, mark, list, count);
			continue;
		}
		if (n->mark != mark) {
			n->mark = mark;
			n->seen = 0;
			*list = cow_mem_resize(*list, (*count + 1) * sizeof(**list));
			(*list)[(*count)++] = n;
		}
		n->seen++;
	}
}

/* Would moving this directory to another world tear a hard-link group in two? */
static bool would_tear(struct ora_node *dir)
{
	struct ora_node **list = NULL;
	unsigned count = 0;
	bool torn = false;

	count_names(dir, ora_mark(), &list, &count);
	for (unsigned i = 0; i < count; i++)
		torn = torn || list[i]->seen != list[i]->names;
	free(list);
	return torn;
}

/* What putting `x` over the existing `old` answers. */
static uint64_t may_replace(const struct ora_node *x, const struct ora_node *old)
{
	if (ora_node_is_dir(x) && !ora_node_is_dir(old))
		return ORA_ERROR(ENOTDIR);
	if (!ora_node_is_dir(x) && ora_node_is_dir(old))
		return ORA_ERROR(EISDIR) | (old->kid_count > 0 ? ORA_ERROR(ENOTEMPTY) : 0);
	return old->kid_count > 0 ? ORA_ERROR(ENOTEMPTY) : 0;
}

static uint64_t exchange(const struct ora_trail *from, const struct ora_trail *dir, const char *name, bool apply)
{
	struct ora_node *x = tail(from), *d = tail(dir), *p = from->node[from->count - 2];
	struct ora_node *y = ora_node_find(d, name);
	uint64_t errors = may_del(from) | (ora_trail_read_only(dir, dir->count) ? ORA_ERROR(EROFS) : 0);

	if (y == NULL)
		return errors | ORA_ERROR(ENOENT);
	if (on_trail(dir, x))
		errors |= ORA_ERROR(EINVAL);
	for (unsigned i = 0; i + 1 < from->count; i++)
		if (from->node[i] == y)
			errors |= ORA_ERROR(EINVAL);
	if (world_of(from, from->count - 1) != world_of(dir, dir->count))
		errors |= ORA_ERROR(EXDEV);
	if (apply && errors == 0 && x != y) {
		ora_node_hold(x);
		ora_node_hold(y);
		del_kid(p, from->last);
		del_kid(d, name);
		add_kid(p, from->last, y);
		add_kid(d, name, x);
		ora_node_put(x);
		ora_node_put(y);
	}
	return errors;
}

uint64_t ora_rename(const struct ora_trail *from, const struct ora_trail *dir, const char *name,
		    unsigned flags, bool apply)
{
	struct ora_node *x = tail(from), *d = tail(dir), *old, *p;
	uint64_t errors = may_del(from);
	bool cross;

	if (from->count < 2 || !ora_node_is_dir(d))
		return errors | (ora_node_is_dir(d) ? 0 : ORA_ERROR(ENOTDIR));
	if (flags & COW_RENAME_EXCHANGE)
		return exchange(from, dir, name, apply);
	p = from->node[from->count - 2];
	old = ora_node_find(d, name);
	if (ora_trail_read_only(dir, dir->count))
		errors |= ORA_ERROR(EROFS);
	if (on_trail(dir, x))
		errors |= ORA_ERROR(EINVAL);
	if (old != NULL && (flags & COW_RENAME_NOREPLACE))
		errors |= ORA_ERROR(EEXIST);
	else if (old == x)
		return errors;
	else if (old != NULL)
		errors |= may_replace(x, old);
	cross = world_of(from, from->count - 1) != world_of(dir, dir->count);
	if (cross && (ora_node_is_dir(x) ? !x->world && would_tear(x) : x->names > 1))
		errors |= ORA_ERROR(EXDEV);
	if (!apply || errors != 0)
		return errors;
	if (cross && ora_node_is_dir(x))
		x->world = true;
	if (old != NULL) {
		if (ora_node_is_dir(old))
			old->gone = true;
		del_kid(d, name);
	}
	ora_node_hold(x);
	del_kid(p, from->last);
	add_kid(d, name, x);
	ora_node_put(x);
	return 0;
}

uint64_t ora_change(const struct ora *ora, const struct ora_node *node, bool content)
{
	uint64_t errors = ora_node_read_only(ora, node) ? ORA_ERROR(EROFS) : 0;

	if (content && ora_node_is_dir(node))
		errors |= ORA_ERROR(EISDIR);
	else if (content && !S_ISREG(node->mode))
		errors |= ORA_ERROR(EINVAL);
	return errors;
}

/* ------------------------------------------------------------------ totals */

static void total_below(struct ora_node *dir, uint64_t mark, struct ora_sum *sum)
{
	for (unsigned i = 0; i < dir->kid_count; i++) {
		struct ora_node *n = dir->kids[i].node;

		if (ora_node_is_dir(n)) {
			sum->dirs++;
			total_below(n, mark, sum);
		} else if (n->mark != mark) {
			n->mark = mark;
			sum->files++;
			sum->bytes += ora_node_size(n);
		}
	}
}

void ora_total(struct ora_node *dir, struct ora_sum *sum)
{
	memset(sum, 0, sizeof(*sum));
	if (ora_node_is_dir(dir)) {
		total_below(dir, ora_mark(), sum);
	} else {
		sum->files = 1;
		sum->bytes = ora_node_size(dir);
	}
}

/* ------------------------------------------------------------------ differences */

void ora_diff_add(struct ora_diff *out, char type, const char *path)
{
	if (out->count == out->room) {
		out->room = out->room * 2 + 16;
		out->lines = cow_mem_resize(out->lines, out->room * sizeof(*out->lines));
	}
	out->lines[out->count] = cow_mem_new(strlen(path) + 3);
	sprintf(out->lines[out->count++], "%c %s", type, path);
}

static int order_lines(const void *a, const void *b)
{
	const char *x = *(char *const *)a, *y = *(char *const *)b;
	int order = strcmp(x + 2, y + 2);

	return order != 0 ? order : x[0] - y[0];
}

void ora_diff_sort(struct ora_diff *out)
{
	unsigned kept = 0;

	if (out->count > 0)
		qsort(out->lines, out->count, sizeof(*out->lines), order_lines);
	for (unsigned i = 0; i < out->count; i++) {
		if (kept > 0 && strcmp(out->lines[kept - 1], out->lines[i]) == 0)
			free(out->lines[i]);
		else
			out->lines[kept++] = out->lines[i];
	}
	out->count = kept;
}

void ora_diff_free(struct ora_diff *out)
{
	for (unsigned i = 0; i < out->count; i++)
		free(out->lines[i]);
	free(out->lines);
	memset(out, 0, sizeof(*out));
}

static void join(char *to, const char *path, const char *name)
{
	snprintf(to, ORA_PATH, "%s%s%s", path, path[0] != 0 ? "/" : "", name);
}

void ora_diff_subtree(struct ora_node *node, const char *path, char type, bool top, struct ora_diff *out)
{
	char below[ORA_PATH];

	if (top)
		ora_diff_add(out, type, path);
	for (unsigned i = 0; i < node->kid_count; i++) {
		join(below, path, node->kids[i].name);
		ora_diff_subtree(node->kids[i].node, below, type, true, out);
	}
}

bool ora_node_same_content(const struct ora_node *a, const struct ora_node *b)
{
	return a->rdev == b->rdev && content_equal(a->content, b->content);
}

bool ora_node_same_attributes(const struct ora_node *a, const struct ora_node *b)
{
	if (a->mode != b->mode || a->uid != b->uid || a->gid != b->gid || a->xattr_count != b->xattr_count)
		return false;
	for (unsigned i = 0; i < a->xattr_count; i++)
		if (strcmp(a->xattrs[i].name, b->xattrs[i].name) != 0 ||
		    !content_equal(a->xattrs[i].value, b->xattrs[i].value))
			return false;
	return true;
}

static void diff_node(struct ora_node *a, struct ora_node *b, const char *path, struct ora_diff *out);

/* Merges the two sorted lists of kids. */
static void diff_kids(struct ora_node *a, struct ora_node *b, const char *path, struct ora_diff *out)
{
	unsigned i = 0, j = 0;
	char below[ORA_PATH];

	while (i < a->kid_count || j < b->kid_count) {
		int order = i == a->kid_count ? 1 : j == b->kid_count ? -1 : strcmp(a->kids[i].name, b->kids[j].name);

		join(below, path, order <= 0 ? a->kids[i].name : b->kids[j].name);
		if (order < 0)
			ora_diff_subtree(a->kids[i].node, below, 'D', true, out);
		else if (order > 0)
			ora_diff_subtree(b->kids[j].node, below, 'A', true, out);
		else
			diff_node(a->kids[i].node, b->kids[j].node, below, out);
		i += order <= 0;
		j += order >= 0;
	}
}

static void diff_node(struct ora_node *a, struct ora_node *b, const char *path, struct ora_diff *out)
{
	if (a == b)
		return;
	if ((a->mode & S_IFMT) != (b->mode & S_IFMT)) {
		ora_diff_add(out, 'T', path);
		ora_diff_subtree(a, path, 'D', false, out);
		ora_diff_subtree(b, path, 'A', false, out);
		return;
	}
	if (!ora_node_is_dir(a) && !ora_node_same_content(a, b))
		ora_diff_add(out, 'M', path);
	else if (!ora_node_same_attributes(a, b))
		ora_diff_add(out, 'm', path);
	if (ora_node_is_dir(a))
		diff_kids(a, b, path, out);
}

void ora_diff(struct ora_node *a, struct ora_node *b, struct ora_diff *out)
{
	memset(out, 0, sizeof(*out));
	diff_node(a, b, "", out);
	ora_diff_sort(out);
}
