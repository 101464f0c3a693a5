/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/known.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/mem.h"

#define LIST_MAX (COW_XATTR_VALUE_MAX + 1)

/* ------------------------------------------------------------------ one inode */

static int get_xattrs(struct cow_inode *inode, uint64_t *hash)
{
	static char list[LIST_MAX], value[LIST_MAX]; /* one thread only */
	int length = cow_listxattr(inode, list, sizeof(list));

	*hash = XXH3_64bits(list, length > 0 ? (size_t)length : 0);
	for (char *name = list; length > 0 && name < list + length; name += strlen(name) + 1) {
		int got = cow_getxattr(inode, name, value, sizeof(value));
		if (got < 0)
			return got;
		*hash = XXH3_64bits_withSeed(value, (size_t)got, *hash);
	}
	return length < 0 ? length : 0;
}

/* Field by field: there are gaps between them. */
static bool same_attr(const struct cow_attr *a, const struct cow_attr *b)
{
	const struct timespec *x[] = {&a->atime, &a->mtime, &a->ctime, &a->btime};
	const struct timespec *y[] = {&b->atime, &b->mtime, &b->ctime, &b->btime};

	for (unsigned i = 0; i < 4; i++)
		if (x[i]->tv_sec != y[i]->tv_sec || x[i]->tv_nsec != y[i]->tv_nsec)
			return false;
	return a->ino == b->ino && a->mode == b->mode && a->nlink == b->nlink && a->uid == b->uid && a->gid == b->gid &&
	       a->rdev == b->rdev && a->size == b->size && a->blocks == b->blocks && a->is_clone == b->is_clone &&
	       a->read_only == b->read_only;
}

/* ------------------------------------------------------------------ reading */

static struct known *read_inode(struct cow_inode *inode, const char *path, const char *name,
				const struct cow_attr *attr);

struct reading {
	struct known *dir;
	struct known **last;
};

static int read_entry(void *context, const struct cow_entry *entry, struct cow_inode *inode,
		      const struct cow_attr *attr)
{
	struct reading *r = context;

	*r->last = read_inode(inode, r->dir->path, entry->name, attr);
	r->last = &(*r->last)->next;
	cow_forget(inode, 1);
	return 0;
}

static struct known *read_inode(struct cow_inode *inode, const char *path, const char *name,
				const struct cow_attr *attr)
{
	struct known *k = cow_mem_new(sizeof(*k));
	struct reading reading = {k, &k->children};
	int error;

	k->attr = *attr;
	k->path = cow_mem_new(strlen(path) + strlen(name) + 2);
	sprintf(k->path, "%s%s%s", path, name[0] != 0 ? "/" : "", name);
	k->name = k->path + strlen(k->path) - strlen(name);
	error = get_xattrs(inode, &k->xattrs);
	assert(error == 0);
	if (S_ISDIR(attr->mode)) {
		error = cow_list(inode, 0, true, read_entry, &reading);
		assert(error == 0);
		return k;
	}
	k->length = S_ISREG(attr->mode) || S_ISLNK(attr->mode) ? attr->size : 0;
	k->bytes = cow_mem_new(k->length + 1);
	if (S_ISREG(attr->mode)) {
		int64_t got = cow_read(inode, k->bytes, k->length, 0);
		assert(got == (int64_t)k->length);
	} else if (S_ISLNK(attr->mode)) {
		error = cow_readlink(inode, (char *)k->bytes, k->length);
		assert(error == (int)k->length);
	}
	return k;
}

struct known *known_read(struct cow_volume *volume)
{
	struct cow_inode *root;
	struct cow_attr attr;
	struct known *known;
	int error = cow_root(volume, &root);

	assert(error == 0);
	error = cow_getattr(root, &attr);
	assert(error == 0);
	known = read_inode(root, "", "", &attr);
	cow_forget(root, 1);
	return known;
}

void known_free(struct known *k)
{
	while (k != NULL) {
		struct known *next = k->next;
		known_free(k->children);
		free(k->path);
		free(k->bytes);
		free(k);
		k = next;
	}
}

const struct known *known_find(const struct known *k, const char *path)
{
	for (; k != NULL; k = k->next) {
		size_t length = strlen(k->path);
		if (strcmp(k->path, path) == 0)
			return k;
		if (strncmp(k->path, path, length) == 0 && path[length] == '/')
			return known_find(k->children, path);
	}
	return NULL;
}

/* ------------------------------------------------------------------ comparing */

struct compare {
	known_fn fn;
	void *context;
	uint8_t *buffer;
	size_t size;
};

static void compare_content(struct compare *c, struct cow_inode *inode, const struct known *k)
{
	bool told = false;
	int64_t got, part;

	if (c->size < k->length + 1)
		c->buffer = cow_mem_resize(c->buffer, c->size = k->length + 1);
	got = cow_read(inode, c->buffer, k->length + 1, 0);
	if (got == (int64_t)k->length && memcmp(c->buffer, k->bytes, k->length) == 0)
		return;
	for (uint64_t at = 0; at < k->length; at += COW_BLOCK_BYTES) { /* one by one: which? */
		size_t length = k->length - at < COW_BLOCK_BYTES ? k->length - at : COW_BLOCK_BYTES;
		part = cow_read(inode, c->buffer, length, at);
		if (part == (int64_t)length && memcmp(c->buffer, k->bytes + at, length) == 0)
			continue;
		c->fn(c->context, KNOWN_READ, k, at / COW_BLOCK_BYTES, part < 0 ? (int)part : 0);
		told = true;
	}
	if (!told)
		c->fn(c->context, KNOWN_READ, k, KNOWN_WHOLE, got < 0 ? (int)got : 0);
}

static void compare_target(struct compare *c, struct cow_inode *inode, const struct known *k)
{
	char target[COW_SYMLINK_MAX + 1];
	int got = cow_readlink(inode, target, sizeof(target));

	if (got < 0)
		c->fn(c->context, KNOWN_TARGET, k, KNOWN_WHOLE, got);
	else if ((size_t)got != k->length || memcmp(target, k->bytes, k->length) != 0)
		c->fn(c->context, KNOWN_TARGET, k, KNOWN_WHOLE, 0);
}

struct listing {
	const struct known *dir, *next; /* next: nearly always the one that comes */
	unsigned count;
	bool wrong;
};

static int see_name(void *context, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	struct listing *l = context;

	(void)inode, (void)attr;
	if (l->dir->loose && strncmp(entry->name, "fresh", 5) == 0)
		return 0;
	l->count++;
	const struct known *k = l->next;
	if (k == NULL || strcmp(k->name, entry->name) != 0)
		for (k = l->dir->children; k != NULL && strcmp(k->name, entry->name) != 0;)
			k = k->next;
	l->wrong |= k == NULL || (k->attr.mode & S_IFMT) != (entry->mode & S_IFMT);
	l->next = k != NULL ? k->next : NULL;
	return 0;
}

static void compare_names(struct compare *c, struct cow_inode *dir, const struct known *k)
{
	struct listing l = {.dir = k, .next = k->children};
	unsigned count = 0;
	int error = cow_list(dir, 0, false, see_name, &l);

	for (const struct known *child = k->children; child != NULL; child = child->next)
		count++;
	if (l.wrong || (error == 0 && l.count != count))
		c->fn(c->context, KNOWN_LIST, k, KNOWN_WHOLE, 0);
	else if (error != 0)
		c->fn(c->context, KNOWN_LIST, k, KNOWN_WHOLE, error);
}

static void compare_inode(struct compare *c, struct cow_inode *inode, const struct known *k,
			  const struct cow_attr *attr)
{
	uint64_t xattrs;
	int error = get_xattrs(inode, &xattrs);

	if (error != 0 || xattrs != k->xattrs)
		c->fn(c->context, KNOWN_XATTR, k, KNOWN_WHOLE, error);
	if (!k->loose && !same_attr(attr, &k->attr)) {
		c->fn(c->context, KNOWN_LOOKUP, k, KNOWN_WHOLE, 0);
		return;
	}
	if (S_ISREG(attr->mode))
		compare_content(c, inode, k);
	else if (S_ISLNK(attr->mode))
		compare_target(c, inode, k);
	if (!S_ISDIR(attr->mode))
		return;
	compare_names(c, inode, k);
	for (const struct known *child = k->children; child != NULL; child = child->next) {
		struct cow_inode *below;
		struct cow_attr found;

		error = cow_lookup(inode, child->name, &below, &found);
		if (error != 0) {
			c->fn(c->context, KNOWN_LOOKUP, child, KNOWN_WHOLE, error == -ENOENT ? 0 : error);
			continue;
		}
		compare_inode(c, below, child, &found);
		cow_forget(below, 1);
	}
}

int known_compare(struct cow_volume *volume, const struct known *root, known_fn fn, void *context)
{
	struct compare c = {.fn = fn, .context = context};
	struct cow_inode *inode;
	struct cow_attr attr;
	int error = cow_root(volume, &inode);

	if (error != 0)
		return error;
	error = cow_getattr(inode, &attr);
	if (error != 0)
		fn(context, KNOWN_LOOKUP, root, KNOWN_WHOLE, error);
	else
		compare_inode(&c, inode, root, &attr);
	cow_forget(inode, 1);
	free(c.buffer);
	return 0;
}
