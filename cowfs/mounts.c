/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's tables of mounts.  Reading them touches no mount: also those whose daemon hangs can be looked at.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "cowfs/mounts.h"

/* The kernel writes blank, tab, newline and backslash as three octal digits; undoes it in place. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from;) {
		if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' &&
		    from[3] >= '0' && from[3] <= '7') {
			*to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			*to++ = *from++;
		}
	}
	*to = '\0';
}

/*
 * One line: "36 35 98:0 / /mnt rw,noatime shared:1 - fuse.cowfs /image rw".  Fills in `mount`, whose texts then lie in
 * `line`; false if the line is not of this form.
 */
static bool parse_line(char *line, struct cowfs_mount *mount)
{
	unsigned device_major, device_minor;
	char *save, *field, *type = NULL;
	int number = 0;

	if (sscanf(line, "%d %d %u:%u", &mount->id, &mount->parent, &device_major, &device_minor) != 4)
		return false;
	mount->device = makedev(device_major, device_minor);
	mount->dir = mount->source = NULL;
	for (field = strtok_r(line, " \n", &save); field; field = strtok_r(NULL, " \n", &save)) {
		if (number++ == 4)
			mount->dir = field;
		if (number > 6 && !strcmp(field, "-"))
			break;
	}
	if (field)
		type = strtok_r(NULL, " \n", &save);
	if (type)
		mount->source = strtok_r(NULL, " \n", &save);
	if (!mount->source)
		return false;
	mount->ours = !strcmp(type, "fuse.cowfs");
	unescape(mount->dir);
	unescape(mount->source);
	return true;
}

static int add(struct cowfs_mounts *mounts, const struct cowfs_mount *parsed)
{
	struct cowfs_mount mount = *parsed;
	struct cowfs_mount *list = realloc(mounts->list, (mounts->count + 1) * sizeof(*list));

	if (!list)
		return -ENOMEM;
	mounts->list = list;
	mount.dir = strdup(parsed->dir);
	mount.source = strdup(parsed->source);
	list[mounts->count++] = mount;
	return mount.dir && mount.source ? 0 : -ENOMEM;
}

int cowfs_mounts_read(const char *path, struct cowfs_mounts *mounts)
{
	FILE *table = fopen(path, "re");
	struct cowfs_mount mount;
	char *line = NULL;
	size_t size = 0;
	int result = 0;

	*mounts = (struct cowfs_mounts){0};
	if (!table)
		return -errno;
	while (!result && getline(&line, &size, table) > 0)
		if (parse_line(line, &mount))
			result = add(mounts, &mount);
	free(line);
	fclose(table);
	if (result)
		cowfs_mounts_free(mounts);
	return result;
}

void cowfs_mounts_free(struct cowfs_mounts *mounts)
{
	for (size_t i = 0; i < mounts->count; i++) {
		free(mounts->list[i].dir);
		free(mounts->list[i].source);
	}
	free(mounts->list);
	*mounts = (struct cowfs_mounts){0};
}

static bool is_covered(const struct cowfs_mounts *mounts, const struct cowfs_mount *mount)
{
	for (size_t i = 0; i < mounts->count; i++)
		if (mounts->list[i].parent == mount->id && !strcmp(mounts->list[i].dir, mount->dir))
			return true;
	return false;
}

/* The order of the table says nothing: a mount that was moved keeps its place in it. */
const struct cowfs_mount *cowfs_mounts_top(const struct cowfs_mounts *mounts, const char *dir)
{
	const struct cowfs_mount *top = NULL;

	for (size_t i = 0; i < mounts->count; i++)
		if (!strcmp(mounts->list[i].dir, dir) && !is_covered(mounts, &mounts->list[i]))
			top = &mounts->list[i];
	return top;
}

bool cowfs_mounts_have(const struct cowfs_mounts *mounts, dev_t device)
{
	for (size_t i = 0; i < mounts->count; i++)
		if (mounts->list[i].ours && mounts->list[i].device == device)
			return true;
	return false;
}
