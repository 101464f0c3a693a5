/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel's table of mounts: is this image served by somebody? */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cowfs/mount.h"

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

/* One line: "36 35 98:0 / /mnt rw,noatime shared:1 - fuse.cowfs /image rw". Finds the mount point of a cowfs mount. */
static char *match_line(char *line, const char *image)
{
	char *save, *field, *point = NULL, *type, *source;
	int number = 0;

	for (field = strtok_r(line, " \n", &save); field; field = strtok_r(NULL, " \n", &save)) {
		if (number++ == 4)
			point = field;
		if (number > 6 && !strcmp(field, "-"))
			break;
	}
	if (!field)
		return NULL;
	type = strtok_r(NULL, " \n", &save);
	source = strtok_r(NULL, " \n", &save);
	if (!type || !source || strcmp(type, "fuse.cowfs"))
		return NULL;
	unescape(source);
	if (strcmp(source, image))
		return NULL;
	unescape(point);
	return strdup(point);
}

char *cowfs_mount_point(const char *image)
{
	FILE *table = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, *point = NULL;
	size_t size = 0;

	if (!table)
		return NULL;
	while (!point && getline(&line, &size, table) > 0)
		point = match_line(line, image);
	free(line);
	fclose(table);
	return point;
}

bool cowfs_is_mounted(const char *image)
{
	char *path = realpath(image, NULL);
	char *point = path ? cowfs_mount_point(path) : NULL;
	bool mounted = point != NULL;

	free(point);
	free(path);
	return mounted;
}
