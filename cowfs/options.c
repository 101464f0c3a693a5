/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What follows -o on the command line of a mount. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cowfs/cowfs.h"

static const char *const help[] = {
	"ro                 read-only",
	"rw                 read-write (default)",
	"allow_other        let other users in; permission bits are always checked",
	"commit=SECONDS     how long a change may stay in memory only (default 5)",
	"cache=SIZE         limit of the node cache (default 256M)",
	"dirty=SIZE         file data buffered before writers wait (default: memory / 8, at most 4G)",
	"threads=N          most worker threads (default 64)",
	"suid, dev          honour set-user-id bits and device files (default: nosuid,nodev)",
	"noexec             allow no execution of programs",
	"noatime            reading changes nothing (always so)",
	"debug              trace every request on stderr, in the foreground",
	NULL,
};

const char *const *cowfs_options_help(void)
{
	return help;
}

/* A number with an optional suffix K, M, G or T; the whole text must be used. */
static int parse_size(const char *text, uint64_t *size)
{
	static const char suffixes[] = "KMGT";
	char *end;
	const char *suffix;
	unsigned shift = 0;
	unsigned long long number;

	if (text[0] < '0' || text[0] > '9')
		return -1;
	errno = 0;
	number = strtoull(text, &end, 10);
	if (errno)
		return -1;
	if (*end) {
		suffix = strchr(suffixes, *end & ~0x20);
		if (!suffix)
			return -1;
		shift = 10 * (unsigned)(suffix - suffixes + 1);
		end++;
	}
	if (*end || number > UINT64_MAX >> shift)
		return -1;
	*size = (uint64_t)number << shift;
	return 0;
}

static int parse_number(const char *text, uint32_t max, uint32_t *number)
{
	uint64_t value;

	if (!text[0] || strspn(text, "0123456789") != strlen(text))
		return -1;
	if (parse_size(text, &value) || !value || value > max)
		return -1;
	*number = (uint32_t)value;
	return 0;
}

struct flag {
	const char *name;
	size_t offset; /* of a bool in struct cowfs_options */
	bool value;
};

static const struct flag flags[] = {
	{"ro", offsetof(struct cowfs_options, read_only), true},
	{"rw", offsetof(struct cowfs_options, read_only), false},
	{"allow_other", offsetof(struct cowfs_options, allow_other), true},
	{"suid", offsetof(struct cowfs_options, suid), true},
	{"nosuid", offsetof(struct cowfs_options, suid), false},
	{"dev", offsetof(struct cowfs_options, dev), true},
	{"nodev", offsetof(struct cowfs_options, dev), false},
	{"noexec", offsetof(struct cowfs_options, noexec), true},
	{"exec", offsetof(struct cowfs_options, noexec), false},
	{"debug", offsetof(struct cowfs_options, debug), true},
};

static bool parse_flag(struct cowfs_options *options, const char *name)
{
	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if (!strcmp(name, flags[i].name)) {
			*(bool *)((char *)options + flags[i].offset) = flags[i].value;
			return true;
		}
	}
	return !strcmp(name, "noatime") || !strcmp(name, "default_permissions") || !strcmp(name, "defaults");
}

/* `name=value`; 1 if there is no such option, -1 if the value is wrong. */
static int parse_value(struct cowfs_options *options, const char *name, const char *value)
{
	if (!strcmp(name, "commit"))
		return parse_number(value, 86400, &options->commit_seconds);
	if (!strcmp(name, "threads"))
		return parse_number(value, 1024, &options->threads);
	if (!strcmp(name, "cache"))
		return parse_size(value, &options->cache_bytes);
	if (!strcmp(name, "dirty"))
		return parse_size(value, &options->dirty_bytes);
	return 1;
}

static int parse_one(struct cowfs_options *options, char *option, char *error, size_t error_bytes)
{
	char *value = strchr(option, '=');
	int result = 1;

	if (!value)
		result = parse_flag(options, option) ? 0 : 1;
	if (value) {
		*value++ = '\0';
		result = parse_value(options, option, value);
	}
	if (result > 0)
		snprintf(error, error_bytes, "unknown mount option '%s'", option);
	if (result < 0)
		snprintf(error, error_bytes, "mount option '%s' cannot be '%s'", option, value);
	return result ? -1 : 0;
}

int cowfs_options_parse(struct cowfs_options *options, const char *text, char *error, size_t error_bytes)
{
	char *copy = strdup(text), *rest = copy, *option;
	int result = 0;

	if (!copy) {
		snprintf(error, error_bytes, "out of memory");
		return -1;
	}
	while (!result && (option = strsep(&rest, ","))) {
		if (*option)
			result = parse_one(options, option, error, error_bytes);
	}
	free(copy);
	return result;
}
