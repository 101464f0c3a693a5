// SPDX-License-Identifier: GPL-2.0-or-later
#include "cli/attr.h"

#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

void cow_attr_from_stat(const struct stat *st, struct cow_attr *attr)
{
	*attr = (struct cow_attr){
		.ino = st->st_ino,
		.mode = st->st_mode,
		.nlink = (uint32_t)st->st_nlink,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.rdev = (uint32_t)st->st_rdev,
		.size = (uint64_t)st->st_size,
		.blocks = (uint64_t)st->st_blocks,
		.atime = st->st_atim,
		.mtime = st->st_mtim,
		.ctime = st->st_ctim,
	};
}

static char type_letter(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR: return 'd';
	case S_IFLNK: return 'l';
	case S_IFCHR: return 'c';
	case S_IFBLK: return 'b';
	case S_IFIFO: return 'p';
	case S_IFSOCK: return 's';
	default: return '-';
	}
}

void cow_attr_mode_text(uint32_t mode, char *text)
{
	static const char letters[] = "rwxrwxrwx";

	text[0] = type_letter(mode);
	for (int i = 0; i < 9; i++)
		text[i + 1] = mode & (0400u >> i) ? letters[i] : '-';
	if (mode & S_ISUID)
		text[3] = text[3] == 'x' ? 's' : 'S';
	if (mode & S_ISGID)
		text[6] = text[6] == 'x' ? 's' : 'S';
	if (mode & S_ISVTX)
		text[9] = text[9] == 'x' ? 't' : 'T';
	text[10] = '\0';
}

const char *cow_attr_type_text(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR: return "directory";
	case S_IFLNK: return "symbolic link";
	case S_IFCHR: return "character device";
	case S_IFBLK: return "block device";
	case S_IFIFO: return "fifo";
	case S_IFSOCK: return "socket";
	default: return "file";
	}
}

void cow_attr_time_text(const struct timespec *when, bool full, char *text)
{
	struct tm tm;
	size_t length;

	if (localtime_r(&when->tv_sec, &tm) == NULL) {
		sprintf(text, "%lld", (long long)when->tv_sec);
		return;
	}
	if (!full) {
		strftime(text, 48, "%Y-%m-%d %H:%M", &tm);
		return;
	}
	length = strftime(text, 32, "%Y-%m-%d %H:%M:%S", &tm);
	length += (size_t)sprintf(text + length, ".%09ld", (long)when->tv_nsec);
	strftime(text + length, 48 - length, " %z", &tm);
}

void cow_attr_json(struct cow_json *json, const struct cow_attr *attr)
{
	cow_json_text(json, "type", cow_attr_type_text(attr->mode));
	cow_json_number(json, "ino", attr->ino);
	cow_json_mode(json, "mode", attr->mode);
	cow_json_number(json, "nlink", attr->nlink);
	cow_json_number(json, "uid", attr->uid);
	cow_json_number(json, "gid", attr->gid);
	if (S_ISCHR(attr->mode) || S_ISBLK(attr->mode)) {
		cow_json_number(json, "rdev_major", major(attr->rdev));
		cow_json_number(json, "rdev_minor", minor(attr->rdev));
	}
	cow_json_number(json, "size", attr->size);
	cow_json_number(json, "blocks", attr->blocks);
	cow_json_time(json, "atime", &attr->atime);
	cow_json_time(json, "mtime", &attr->mtime);
	cow_json_time(json, "ctime", &attr->ctime);
	if (attr->btime.tv_sec != 0)
		cow_json_time(json, "btime", &attr->btime);
	if (S_ISDIR(attr->mode)) {
		cow_json_bool(json, "clone", attr->is_clone);
		cow_json_bool(json, "read_only", attr->read_only);
	}
}
