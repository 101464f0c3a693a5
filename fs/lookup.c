/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From names to inodes: one name, the parent, a path. */
#include <errno.h>
#include <string.h>

#include "cow.h"
#include "fs/core/volume.h"
#include "fs/world/dir.h"
#include "fs/world/stat.h"

struct lookup_args {
	struct cow_inode *dir;
	const char *name;
	struct cow_inode **inode;
	struct cow_attr *attr;
};

static int lookup(struct cow_op *op, void *v)
{
	struct lookup_args *a = v;
	struct cow_found found;
	struct cow_inode *child;
	int error = cow_inode_check_live(a->dir);

	(void)op;
	if (error == 0)
		error = cow_dir_lookup(a->dir, a->name, &found, &child);
	if (error != 0)
		return error;
	if (a->attr != NULL)
		error = cow_inode_attr(child, a->attr);
	if (error == 0)
		*a->inode = child;
	else
		cow_inode_put(child, 1);
	return error;
}

int cow_lookup(struct cow_inode *dir, const char *name, struct cow_inode **inode, struct cow_attr *attr)
{
	struct lookup_args args = {dir, name, inode, attr};
	int error = cow_name_check(name);

	return error != 0 ? error : cow_op_read(dir->volume, lookup, &args);
}

struct parent_args {
	struct cow_inode *dir, **parent;
};

static int parent_body(struct cow_op *op, void *v)
{
	struct parent_args *a = v;
	int error = cow_inode_check_live(a->dir);

	(void)op;
	if (error == 0 && !cow_inode_is_dir(a->dir))
		error = -ENOTDIR;
	if (error == 0) {
		*a->parent = a->dir->parent != NULL ? a->dir->parent : a->dir;
		cow_inode_get(*a->parent);
	}
	return error;
}

int cow_parent(struct cow_inode *dir, struct cow_inode **parent)
{
	struct parent_args args = {dir, parent};

	return cow_op_read(dir->volume, parent_body, &args);
}

int cow_lookup_path(struct cow_volume *volume, const char *path, struct cow_inode **inode)
{
	struct cow_inode *at, *next;
	char name[COW_NAME_BYTES_MAX + 1];
	int error = cow_root(volume, &at);

	while (error == 0) {
		path += strspn(path, "/");
		size_t length = strcspn(path, "/");
		if (length == 0)
			break;
		if (length > COW_NAME_BYTES_MAX) {
			error = -ENAMETOOLONG;
			break;
		}
		memcpy(name, path, length);
		name[length] = 0;
		path += length;
		if (strcmp(name, ".") == 0)
			continue;
		error = strcmp(name, "..") == 0 ? cow_parent(at, &next) : cow_lookup(at, name, &next, NULL);
		if (error == 0) {
			cow_forget(at, 1);
			at = next;
		}
	}
	if (error != 0)
		cow_forget(at, 1);
	else
		*inode = at;
	return error;
}
