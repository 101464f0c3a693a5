/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Comparing what the volume shows with what the oracle says, down to the last byte. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "test/lib/drive.h"

void drive_name(const char *token, char name[256])
{
	size_t length = strlen(token);

	memcpy(name, token, length + 1);
	if (token[0] == 'L') {
		memset(name + length, '+', 255 - length);
		name[255] = 0;
	}
}

void drive_token(const char *name, char token[ORA_NAME])
{
	size_t length = strcspn(name, "+");

	if (length >= ORA_NAME)
		length = ORA_NAME - 1;
	memcpy(token, name, length);
	token[length] = 0;
}

static bool check_ino(struct drive *d, struct ora_node *node, uint64_t ino, const char *where)
{
	if (ino == 0 || ino >= 1ull << 53)
		return drive_bug(d, "STINO of %s is %" PRIu64, where, ino);
	if (node->ino != 0 && node->ino != ino)
		return drive_bug(d, "STINO of %s changed from %" PRIu64 " to %" PRIu64, where, node->ino, ino);
	node->ino = ino;
	return true;
}

bool drive_check_attr(struct drive *d, struct ora_node *node, const struct cow_attr *attr, const char *where)
{
	bool dir = ora_node_is_dir(node), root = node == d->ora.root;

	if (attr->mode != node->mode)
		return drive_bug(d, "MODE of %s is %o, not %o", where, attr->mode, node->mode);
	if (attr->uid != node->uid || attr->gid != node->gid)
		return drive_bug(d, "OWNER of %s is %u:%u, not %u:%u", where, attr->uid, attr->gid, node->uid,
				 node->gid);
	if (attr->rdev != node->rdev)
		return drive_bug(d, "RDEV of %s is %x, not %x", where, attr->rdev, node->rdev);
	if (!dir && attr->nlink != node->names)
		return drive_bug(d, "NLINK of %s is %u, not %u", where, attr->nlink, node->names);
	if (dir && !node->gone && attr->nlink != 1)
		return drive_bug(d, "NLINK of directory %s is %u", where, attr->nlink);
	if (!dir && attr->size != ora_node_size(node))
		return drive_bug(d, "SIZE of %s is %" PRIu64 ", not %" PRIu64, where, attr->size, ora_node_size(node));
	if (node->mtime != 0 && attr->mtime.tv_sec != node->mtime)
		return drive_bug(d, "MTIME of %s is %lld, not %lld", where, (long long)attr->mtime.tv_sec,
				 (long long)node->mtime);
	if (dir && !root && !node->gone && attr->is_clone != node->world)
		return drive_bug(d, "WORLD: %s is %s clone", where, attr->is_clone ? "a" : "no");
	if (dir && !root && !node->gone && attr->read_only != (node->world && node->read_only))
		return drive_bug(d, "READONLY of %s is %d", where, attr->read_only);
	return check_ino(d, node, attr->ino, where);
}

/* ------------------------------------------------------------------ data */

static bool compare_range(struct drive *d, struct ora_node *node, struct cow_inode *inode, uint64_t at, size_t length,
			  const char *where)
{
	uint8_t *got = malloc(length), *want = malloc(length);
	uint64_t size = ora_node_size(node), left = at < size ? size - at : 0;
	size_t expected = left < length ? left : length;
	int64_t n;
	bool ok = true;

	memset(got, 0x5a, length);
	n = cow_read(inode, got, length, at);
	content_read(node->content, want, length, at);
	if (n != (int64_t)expected)
		ok = drive_bug(d, "READ of %s at %" PRIu64 " returned %" PRId64 ", not %zu", where, at, n, expected);
	if (ok && memcmp(got, want, expected) == 0)
		goto out;
	for (size_t i = 0; ok && i < expected; i++)
		if (got[i] != want[i])
			ok = drive_bug(d, "CONTENT of %s (%" PRIu64 " bytes) differs at %" PRIu64 ": %02x, not %02x",
				       where, size, at + i, got[i], want[i]);
out:
	free(got);
	free(want);
	return ok;
}

/* Small files whole; of large sparse ones what has pages, with a bit around. */
bool drive_check_data(struct drive *d, struct ora_node *node, struct cow_inode *inode, const char *where)
{
	const struct content *c = node->content;
	uint64_t chunk = 1 << 20;

	if (c->size <= 4 * chunk) {
		for (uint64_t at = 0; at < c->size; at += chunk)
			if (!compare_range(d, node, inode, at, c->size - at < chunk ? c->size - at + 10 : chunk, where))
				return false;
		return true;
	}
	for (unsigned i = 0; i < c->count;) {
		unsigned end = i + 1;
		uint64_t at = c->slots[i].at * CONTENT_PAGE;

		while (end < c->count && c->slots[end].at == c->slots[end - 1].at + 1 && end - i < 64)
			end++;
		if (at > 0)
			at -= 100;
		if (!compare_range(d, node, inode, at, (end - i) * (size_t)CONTENT_PAGE + 300, where))
			return false;
		i = end;
	}
	return compare_range(d, node, inode, c->size - 5000, 6000, where);
}

static bool check_target(struct drive *d, struct ora_node *node, struct cow_inode *inode, const char *where)
{
	uint64_t size = ora_node_size(node);
	char *got = cow_mem_new(size + 16), *want = cow_mem_new(size + 16);
	int n = cow_readlink(inode, got, size + 16);
	bool ok = true;

	content_read(node->content, want, size, 0);
	if (n != (int)size || memcmp(got, want, size) != 0)
		ok = drive_bug(d, "TARGET of %s differs (%d, %" PRIu64 ")", where, n, size);
	free(got);
	free(want);
	return ok;
}

/* ------------------------------------------------------------------ xattrs */

static bool check_xattr(struct drive *d, const struct ora_xattr *x, struct cow_inode *inode, const char *where)
{
	char name[ORA_NAME + 8];
	size_t size = x->value->size;
	uint8_t *got = cow_mem_new(size + 1), *want = cow_mem_new(size + 1);
	bool ok = true;
	int n;

	snprintf(name, sizeof(name), "user.%s", x->name);
	n = cow_getxattr(inode, name, got, size + 1);
	content_read(x->value, want, size, 0);
	if (n != (int)size || memcmp(got, want, size) != 0)
		ok = drive_bug(d, "XATTR %s of %s differs (%d, %zu)", name, where, n, size);
	free(got);
	free(want);
	return ok;
}

static bool check_xattrs(struct drive *d, struct ora_node *node, struct cow_inode *inode, const char *where)
{
	char list[ORA_XATTRS * (ORA_NAME + 8)];
	int n = cow_listxattr(inode, list, sizeof(list));
	unsigned count = 0;

	if (n < 0)
		return drive_bug(d, "XATTR list of %s: %d", where, n);
	for (int i = 0; i < n; i += (int)strlen(list + i) + 1)
		count++;
	if (count != node->xattr_count)
		return drive_bug(d, "XATTR list of %s has %u names, not %u", where, count, node->xattr_count);
	for (unsigned i = 0; i < node->xattr_count; i++)
		if (!check_xattr(d, &node->xattrs[i], inode, where))
			return false;
	return true;
}

static bool check_inode(struct drive *d, struct ora_node *node, struct cow_inode *inode, const char *where)
{
	if (!node->gone && !check_xattrs(d, node, inode, where))
		return false;
	if (S_ISLNK(node->mode))
		return check_target(d, node, inode, where);
	return !S_ISREG(node->mode) || drive_check_data(d, node, inode, where);
}

/* ------------------------------------------------------------------ directories */

struct listing {
	struct drive *drive;
	struct ora_node *dir;
	const char *path;
	unsigned seen, batch, round;
	uint64_t mark, cookie;
	bool ok, stopped;
	struct {
		struct ora_node *node;
		struct cow_inode *inode;
		char name[ORA_NAME];
	} *kids;
};

static int list_one(void *context, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	struct listing *l = context;
	char token[ORA_NAME], name[256], where[ORA_PATH + 16];
	struct ora_node *node;

	/* every now and then stop before an entry and start again from the last cookie */
	if (++l->batch == 5 + l->round) {
		l->batch = 0;
		l->round += 7;
		l->stopped = true;
		return 1;
	}
	drive_token(entry->name, token);
	drive_name(token, name);
	node = ora_node_find(l->dir, token);
	snprintf(where, sizeof(where), "%s/%s", l->path, token);
	l->cookie = entry->cookie;
	if (node == NULL || strcmp(name, entry->name) != 0) {
		l->ok = drive_bug(l->drive, "TREE %s should not be there", where);
	} else if (l->seen == l->dir->kid_count) {
		l->ok = drive_bug(l->drive, "TREE %s has more entries than %u", l->path, l->seen);
	} else if ((entry->mode & S_IFMT) != (node->mode & S_IFMT)) {
		l->ok = drive_bug(l->drive, "TYPE of %s is %o in the listing", where, entry->mode);
	} else if (!drive_check_attr(l->drive, node, attr, where)) {
		l->ok = false;
	} else if (entry->ino != attr->ino) {
		l->ok = drive_bug(l->drive, "LISTING of %s has another number", where);
	} else {
		for (unsigned i = 0; i < l->seen; i++)
			if (strcmp(l->kids[i].name, token) == 0)
				l->ok = drive_bug(l->drive, "TREE %s is listed twice", where);
		if (l->ok) {
			l->kids[l->seen].node = node;
			memcpy(l->kids[l->seen].name, token, ORA_NAME);
			l->kids[l->seen++].inode = inode;
		}
	}
	return l->ok ? 0 : 1; /* stopping gives the reference back */
}

static bool compare_dir(struct drive *d, struct ora_node *dir, struct cow_inode *inode, const char *path);

static bool compare_kid(struct drive *d, struct ora_node *node, struct cow_inode *inode, const char *path,
			const char *name)
{
	char where[ORA_PATH + 16];

	snprintf(where, sizeof(where), "%s/%s", path, name);
	if (!check_inode(d, node, inode, where))
		return false;
	return !ora_node_is_dir(node) || compare_dir(d, node, inode, where);
}

static bool compare_dir(struct drive *d, struct ora_node *dir, struct cow_inode *inode, const char *path)
{
	struct listing l = {.drive = d, .dir = dir, .path = path, .ok = true};
	int r;

	l.kids = cow_mem_new((dir->kid_count + 1) * sizeof(*l.kids));
	do {
		l.stopped = false;
		r = cow_list(inode, l.cookie, true, list_one, &l);
	} while (l.ok && r >= 0 && l.stopped);
	if (l.ok && r < 0)
		l.ok = drive_bug(d, "TREE list of %s: %d", path, r);
	if (l.ok && l.seen != dir->kid_count)
		l.ok = drive_bug(d, "TREE %s has %u entries, not %u", path, l.seen, dir->kid_count);
	for (unsigned i = 0; i < l.seen; i++) {
		if (l.ok)
			l.ok = compare_kid(d, l.kids[i].node, l.kids[i].inode, path, l.kids[i].name);
		cow_forget(l.kids[i].inode, 1);
	}
	free(l.kids);
	return l.ok;
}

/* ------------------------------------------------------------------ numbers */

struct numbered {
	uint64_t ino;
	struct ora_node *node;
};

struct numbers {
	struct numbered *list;
	unsigned count, room;
	uint64_t mark;
};

static void add_number(struct numbers *n, struct ora_node *node)
{
	if (node->mark == n->mark)
		return;
	node->mark = n->mark;
	if (node->ino != 0) {
		if (n->count == n->room) {
			n->room = n->room * 2 + 64;
			n->list = cow_mem_resize(n->list, n->room * sizeof(*n->list));
		}
		n->list[n->count++] = (struct numbered){node->ino, node};
	}
	for (unsigned i = 0; i < node->kid_count; i++)
		add_number(n, node->kids[i].node);
}

static int order_numbers(const void *a, const void *b)
{
	const struct numbered *x = a, *y = b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

bool drive_check_numbers(struct drive *d, struct ora_node *root)
{
	struct numbers n = {.mark = ora_mark()};
	bool ok = true;

	add_number(&n, root);
	for (unsigned i = 0; i < ORA_HANDLES; i++)
		if (d->ora.handle[i] != NULL)
			add_number(&n, d->ora.handle[i]);
	if (n.count > 0)
		qsort(n.list, n.count, sizeof(*n.list), order_numbers);
	for (unsigned i = 1; ok && i < n.count; i++)
		if (n.list[i].ino == n.list[i - 1].ino)
			ok = drive_bug(d, "STINO %" PRIu64 " occurs twice", n.list[i].ino);
	free(n.list);
	return ok;
}

/* ------------------------------------------------------------------ the whole */

static bool compare_handle(struct drive *d, unsigned h)
{
	struct ora_node *node = d->ora.handle[h];
	struct cow_attr attr;
	char where[16];
	int r;

	snprintf(where, sizeof(where), "handle %u", h);
	r = cow_getattr(d->held[h], &attr);
	if (r < 0)
		return drive_bug(d, "HANDLE %u: %d", h, r);
	return drive_check_attr(d, node, &attr, where) && check_inode(d, node, d->held[h], where);
}

static bool is_held(const struct drive *d, const struct ora_node *node)
{
	for (unsigned i = 0; i < ORA_HANDLES; i++)
		if (d->ora.handle[i] == node)
			return true;
	return false;
}

/* A reference keeps the handle valid, and only a name or an opener the inode: when it is gone the last attributes may
 * still be told, and nothing can be changed. */
static bool compare_pool(struct drive *d, unsigned i)
{
	struct ora_node *node = d->pool[i].node;
	bool dir = ora_node_is_dir(node), gone = dir ? node->gone : node->names == 0;
	struct cow_attr attr;
	int r = cow_getattr(d->pool[i].inode, &attr);

	if (gone && !is_held(d, node)) {
		if (r == -ESTALE || (r == 0 && !dir && attr.nlink == 0)) /* a dead link record may still be there */
			return true;
		if (r == 0) {
			r = cow_setattr(d->pool[i].inode, &attr, COW_SET_MODE, NULL);
			if (r == -ESTALE || (r == -EROFS && d->faults) || (r == -ENOSPC && d->small))
				return true;
			if (r == -ENOENT && dir && d->faults) /* an orphan that a fault kept from being dropped */
				return true;
		}
		return drive_bug(d, "STALE a removed inode answers %d", r);
	}
	if (r < 0)
		return drive_bug(d, "POOL an inode in memory answers %d", r);
	return drive_check_attr(d, node, &attr, "an inode in memory");
}

bool drive_compare(struct drive *d, struct ora_node *root)
{
	struct cow_inode *inode;
	struct cow_attr attr;
	bool ok;
	int r = cow_root(d->volume, &inode);

	if (r < 0)
		return drive_bug(d, "ROOT %d", r);
	r = cow_getattr(inode, &attr);
	ok = r < 0 ? drive_bug(d, "ROOT attributes %d", r) : drive_check_attr(d, root, &attr, "/");
	ok = ok && check_inode(d, root, inode, "/") && compare_dir(d, root, inode, "");
	cow_forget(inode, 1);
	for (unsigned i = 0; ok && i < ORA_HANDLES; i++)
		ok = d->ora.handle[i] == NULL || compare_handle(d, i);
	for (unsigned i = 0; ok && i < DRIVE_POOL; i++)
		ok = d->pool[i].inode == NULL || compare_pool(d, i);
	return ok && drive_check_numbers(d, root);
}

/* ------------------------------------------------------------------ diff and same */

struct renamed {
	char from[ORA_PATH], to[ORA_PATH];
	struct renamed *next;
};

struct changes {
	struct drive *drive;
	struct ora_node *from, *to;
	struct ora_diff raw, out; /* as told; in terms of A and D only */
	struct renamed *renamed;
	char last[ORA_PATH];
	bool ok;
};

static void tokens_of(const char *path, char tokens[ORA_PATH])
{
	char token[ORA_NAME];
	size_t used = 0;

	tokens[0] = 0;
	while (*path != 0 && used + ORA_NAME + 1 < ORA_PATH) {
		char name[256];
		size_t length = strcspn(path, "/");

		memcpy(name, path, length < 255 ? length : 255);
		name[length < 255 ? length : 255] = 0;
		drive_token(name, token);
		used += (size_t)snprintf(tokens + used, ORA_PATH - used, "%s%s", used > 0 ? "/" : "", token);
		path += length + (path[length] == '/');
	}
}

static struct ora_node *below(struct ora_node *top, const char *path)
{
	struct ora ora = {.root = top};
	struct ora_trail t;

	ora_walk(&ora, path, &t);
	return t.count > 0 ? t.node[t.count - 1] : NULL;
}

static void on_rename(struct changes *c, const struct cow_change *change, const char *path)
{
	struct renamed *r = cow_mem_new(sizeof(*r));
	struct ora_node *a, *b;

	tokens_of(change->old_path, r->from);
	snprintf(r->to, ORA_PATH, "%s", path);
	r->next = c->renamed;
	c->renamed = r;
	a = below(c->from, r->from);
	b = below(c->to, r->to);
	if (a == NULL || b == NULL || (a->mode & S_IFMT) != (b->mode & S_IFMT))
		c->ok = drive_bug(c->drive, "DIFF R %s -> %s: not there", r->from, r->to);
	else if (!ora_node_is_dir(a) && change->content == ora_node_same_content(a, b))
		c->ok = drive_bug(c->drive, "DIFF R %s -> %s: content is %d", r->from, r->to, change->content);
	if (!c->ok)
		return;
	ora_diff_subtree(a, r->from, 'D', true, &c->out);
	ora_diff_subtree(b, r->to, 'A', true, &c->out);
}

static int on_change(void *context, const struct cow_change *change)
{
	struct changes *c = context;
	char path[ORA_PATH];

	tokens_of(change->path, path);
	if (change->type == 'R')
		on_rename(c, change, path);
	else
		ora_diff_add(&c->raw, change->type, path);
	return c->ok ? 0 : 1;
}

/* Below a renamed directory the changes are told by the new paths; there the counterparts are compared. */
static bool inside_renamed(struct changes *c, const char *line)
{
	for (struct renamed *r = c->renamed; r != NULL; r = r->next) {
		size_t length = strlen(r->to);

		if (strncmp(line + 2, r->to, length) == 0 && line[2 + length] == '/')
			return true;
		length = strlen(r->from);
		if (strncmp(line + 2, r->from, length) == 0 && line[2 + length] == '/')
			return true;
	}
	return false;
}

/* Are all changes below a renamed directory told, and told once? */
static bool check_renamed(struct changes *c, struct renamed *r)
{
	struct ora_diff want;
	bool ok = true;
	size_t length = strlen(r->to);

	ora_diff(below(c->from, r->from), below(c->to, r->to), &want);
	for (unsigned i = 0; ok && i < want.count; i++) {
		char path[2 * ORA_PATH];
		bool found = want.lines[i][2] == 0 || want.lines[i][0] == 'D' || want.lines[i][0] == 'A';

		snprintf(path, sizeof(path), "%c %s/%s", want.lines[i][0], r->to, want.lines[i] + 2);
		for (unsigned k = 0; !found && k < c->raw.count; k++)
			found = strcmp(c->raw.lines[k], path) == 0;
		for (struct renamed *o = c->renamed; !found && o != NULL; o = o->next)
			found = o != r && strncmp(o->to, r->to, length) == 0;
		if (!found)
			ok = drive_bug(c->drive, "DIFF missing below a renamed directory: %s", path);
	}
	ora_diff_free(&want);
	return ok;
}

static bool compare_changes(struct changes *c, struct ora_diff *want)
{
	unsigned i = 0, j = 0;

	for (unsigned k = 0; k < c->raw.count; k++)
		if (!inside_renamed(c, c->raw.lines[k]))
			ora_diff_add(&c->out, c->raw.lines[k][0], c->raw.lines[k] + 2);
	ora_diff_sort(&c->out);
	while (i < c->out.count && j < want->count && strcmp(c->out.lines[i], want->lines[j]) == 0)
		i++, j++;
	if (i == c->out.count && j == want->count)
		return true;
	return drive_bug(c->drive, "DIFF told '%s' where '%s' was due (%u changes, %u due)",
			 i < c->out.count ? c->out.lines[i] : "end", j < want->count ? want->lines[j] : "end",
			 c->out.count, want->count);
}

static bool diff_between(struct drive *d, struct ora_node *a, struct cow_inode *x, struct ora_node *b,
			 struct cow_inode *y)
{
	struct changes c = {.drive = d, .from = a, .to = b, .ok = true};
	struct ora_diff want;
	int r = cow_diff(x, y, true, on_change, &c);

	ora_diff(a, b, &want);
	if (c.ok && r < 0)
		c.ok = drive_bug(d, "DIFF answered %d", r);
	for (struct renamed *e = c.renamed; c.ok && e != NULL; e = e->next)
		c.ok = check_renamed(&c, e);
	c.ok = c.ok && compare_changes(&c, &want);
	while (c.renamed != NULL) {
		struct renamed *next = c.renamed->next;

		free(c.renamed);
		c.renamed = next;
	}
	ora_diff_free(&c.raw);
	ora_diff_free(&c.out);
	ora_diff_free(&want);
	return c.ok;
}

bool drive_diff(struct drive *d, const struct op *op)
{
	struct ora_trail s, t;
	struct cow_inode *x = NULL, *y = NULL;
	bool ok = drive_walk(d, op->a, &s, &x) && drive_walk(d, op->b, &t, &y);

	if (ok && x != NULL && y != NULL)
		ok = diff_between(d, s.node[s.count - 1], x, t.node[t.count - 1], y);
	if (x != NULL)
		drive_put(d, x, s.node[s.count - 1]);
	if (y != NULL)
		drive_put(d, y, t.node[t.count - 1]);
	return ok;
}

bool drive_same(struct drive *d, const struct op *op)
{
	struct ora_trail s, t;
	struct cow_inode *x = NULL, *y = NULL;
	bool ok = drive_walk(d, op->a, &s, &x) && drive_walk(d, op->b, &t, &y);

	if (ok && x != NULL && y != NULL) {
		struct ora_node *a = s.node[s.count - 1], *b = t.node[t.count - 1];
		struct ora_diff want;
		int r = cow_same(x, y);

		ora_diff(a, b, &want);
		if (r < 0 || r > 1)
			ok = drive_bug(d, "SAME answered %d", r);
		else if (r == 1 && want.count > 0)
			ok = drive_bug(d, "SAME said yes, but: %s", want.lines[0]);
		else if (r == 0 && a == b)
			ok = drive_bug(d, "SAME said no of one and the same");
		ora_diff_free(&want);
	}
	if (x != NULL)
		drive_put(d, x, s.node[s.count - 1]);
	if (y != NULL)
		drive_put(d, y, t.node[t.count - 1]);
	return ok;
}
