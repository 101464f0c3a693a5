// SPDX-License-Identifier: GPL-2.0-or-later
/* What the program says when something is wrong, always one line, and how it prints names. */
#include "cli/cli.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

static const char *text_of(int error)
{
	return error <= -5000 ? cow_error_text(error) : strerror(-error);
}

static bool is_limited(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

/* What to do about errors that mean the same everywhere; NULL: the text says it all. */
static const char *hint_of(int error)
{
	switch (error) {
	case COW_ERR_NOT_VOLUME: return "make one with `cow format`";
	case COW_ERR_NEWER: return "use a newer cow";
	case COW_ERR_BUSY: return "work on its mount, or unmount it first with `cow umount`";
	case COW_ERR_DAMAGED: return "see `cow check`";
	case COW_ERR_SHORT: return "it was cut off; copy the whole image again";
	case COW_ERR_EXISTS: return "--force overwrites it";
	case -EFBIG: return is_limited() ? "`ulimit -f` must allow files as large as the image" : NULL;
	case -EEXIST: return "remove it first or choose another name";
	case -ENOSPC: return "remove something with `cow rm`, or make room for the image on the host";
	default: return NULL;
	}
}

int cow_say_hint(const struct cow_cli *cli, const char *what, int error, const char *hint)
{
	if (hint == NULL)
		hint = hint_of(error);
	fprintf(stderr, "cow %s: ", cli->verb);
	cow_say_path(stderr, what);
	fprintf(stderr, ": %s%s%s\n", text_of(error), hint != NULL ? "; " : "", hint != NULL ? hint : "");
	return COW_EXIT_TROUBLE;
}

int cow_say_error(const struct cow_cli *cli, const char *what, int error)
{
	return cow_say_hint(cli, what, error, NULL);
}

int cow_say(const struct cow_cli *cli, const char *format, ...)
{
	va_list list;

	fprintf(stderr, "cow %s: ", cli->verb);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
	return COW_EXIT_TROUBLE;
}

int cow_say_usage(const struct cow_cli *cli, const char *format, ...)
{
	va_list list;

	if (format != NULL) {
		fprintf(stderr, "cow %s: ", cli->verb);
		va_start(list, format);
		vfprintf(stderr, format, list);
		va_end(list);
		fputc('\n', stderr);
	}
	fprintf(stderr, "usage: cow %s %s\n", cli->entry->name, cli->entry->usage);
	return COW_EXIT_USAGE;
}

int cow_say_help(const struct cow_cli *cli)
{
	const struct cow_verb *verb = cli->entry;

	printf("usage: cow %s %s\n\ncow %s: %s.\n", verb->name, verb->usage, verb->name, verb->summary);
	if (verb->help != NULL)
		printf("\n%s", verb->help);
	return COW_EXIT_OK;
}

static bool is_plain(const char *path)
{
	for (; *path != '\0'; path++)
		if ((unsigned char)*path < 0x20 || *path == 0x7f || *path == '"' || *path == '\\')
			return false;
	return true;
}

void cow_say_path(FILE *out, const char *path)
{
	if (is_plain(path)) {
		fputs(path, out);
		return;
	}
	fputc('"', out);
	for (; *path != '\0'; path++) {
		unsigned char c = (unsigned char)*path;

		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c == '\n')
			fputs("\\n", out);
		else if (c == '\t')
			fputs("\\t", out);
		else if (c < 0x20 || c == 0x7f)
			fprintf(out, "\\%03o", c);
		else
			fputc(c, out);
	}
	fputc('"', out);
}
