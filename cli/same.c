// SPDX-License-Identifier: GPL-2.0-or-later
/* cow same A B: are two related files or directories equal? By pointer, so mostly at once. */
#include "cli/place.h"

#include <errno.h>
#include <getopt.h>

#include "cli/walked.h"
#include "cow_ioctl.h"

/* 1 same, 0 different, -1 when the trouble was told. */
static int compare_mounted(const struct cow_cli *cli, struct cow_place *a, struct cow_place *b)
{
	struct cow_ioc_same args = {0};
	int error = cow_place_token(a, &args.other_token);

	if (error != 0 && error != -EPERM) {
		cow_place_say(cli, a->text, error, "use `diff -r`");
		return -1;
	}
	if (error == 0)
		error = cow_place_try_ioctl(b->fd, COW_IOC_SAME, &args);
	if (error == -EINVAL || error == -ENOENT || error == -EXDEV || error == -ESTALE) {
		cow_say(cli, "%s and %s are on different mounts; use `diff -r`", a->text, b->text);
		return -1;
	}
	if (error == -EPERM || error == -EACCES)
		return cow_walked_same(cli, a, b);
	if (error != 0) {
		cow_place_ioctl(cli, b->text, b->fd, COW_IOC_SAME, &args, "use `diff -r`");
		return -1;
	}
	return args.same != 0;
}

static int compare(struct cow_session *session, struct cow_place *a, struct cow_place *b)
{
	int result;

	if ((a->image == NULL) != (b->image == NULL)) {
		cow_say(session->cli, "%s and %s: one is in an image, the other is not; mount the image", a->text,
			b->text);
		return -1;
	}
	if (cow_place_open(session, a) != 0 || cow_place_open(session, b) != 0)
		return -1;
	if (a->image == NULL)
		return compare_mounted(session->cli, a, b);
	result = cow_same(a->inode, b->inode);
	if (result < 0)
		cow_say_error(session->cli, b->text, result);
	return result < 0 ? -1 : result;
}

int cow_verb_same(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, COW_OPTION_HELP}, {NULL, 0, NULL, 0}};
	struct cow_session session;
	struct cow_place a, b;
	int option, result;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == COW_OPTION_HELP)
			return cow_say_help(cli);
		return cow_say_usage(cli, NULL);
	}
	if (argc - optind != 2)
		return cow_say_usage(cli, "give two paths");
	cow_session_begin(&session, cli);
	cow_place_parse(argv[optind], &a);
	cow_place_parse(argv[optind + 1], &b);
	result = compare(&session, &a, &b);
	cow_place_close(&a);
	cow_place_close(&b);
	if (cow_session_end(&session) != 0)
		result = -1;
	return result < 0 ? COW_EXIT_DIFF_TROUBLE : result == 1 ? COW_EXIT_OK : COW_EXIT_DIFFERENT;
}
