// SPDX-License-Identifier: GPL-2.0-or-later
/* cow dump IMAGE [WHAT]: what is on disk, for people. */
#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static void print(void *context, const char *text)
{
	(void)context;
	puts(text);
}

/* The words of WHAT with a blank between them; NULL if there are none. */
static char *join(int count, char **words)
{
	size_t length = 0;
	char *text;

	if (count == 0)
		return NULL;
	for (int i = 0; i < count; i++)
		length += strlen(words[i]) + 1;
	text = cow_mem_new(length);
	for (int i = 0; i < count; i++) {
		if (i > 0)
			strcat(text, " ");
		strcat(text, words[i]);
	}
	return text;
}

int cow_verb_dump(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, COW_OPTION_HELP}, {NULL, 0, NULL, 0}};
	int option, error;
	char *what;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == COW_OPTION_HELP)
			return cow_say_help(cli);
		return cow_say_usage(cli, NULL);
	}
	if (optind == argc)
		return cow_say_usage(cli, "give an image");
	what = join(argc - optind - 1, argv + optind + 1);
	error = cow_dump(argv[optind], what, print, NULL);
	if (error == -EINVAL && what != NULL)
		error = cow_say_usage(cli, "%s: WHAT is one of: super, counts, tree [PATH], block N", what);
	else if (error != 0)
		error = cow_say_error(cli, argv[optind], error);
	free(what);
	return error;
}
