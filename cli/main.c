// SPDX-License-Identifier: GPL-2.0-or-later
/* The program `cow`: finds the verb and runs it. */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct cow_verb verbs[] = {
	{
		"format",
		"IMAGE [--size SIZE] [--force]",
		"make an empty volume in a file or block device",
		"  --size SIZE  the most it can hold, e.g. 100G, 1.5T (default: 100G, or the device's size);\n"
		"               an image file is sparse and grows as it is filled\n"
		"  --force      overwrite what is there\n",
		cow_verb_format,
	},
	{
		"mount",
		"IMAGE DIR [-o OPTIONS] [-f]",
		"mount a volume on a directory",
		"Returns when the mount serves.\n\n"
		"  -o OPTIONS   ro, allow_other and others, separated by commas: see cow-mount(1)\n"
		"  -f           stay in the foreground; ends with the mount\n",
		cow_verb_mount,
	},
	{
		"umount",
		"DIR...",
		"unmount; returns when the image is closed and safe to copy",
		"  --lazy       detach now, close when the last user is gone; does not wait\n",
		cow_verb_umount,
	},
	{
		"clone",
		"SRC DST [--read-only]",
		"copy a file or directory of any size at once",
		"DST must not exist; if it ends with a slash and is a directory, the clone goes into it.\n\n"
		"  --read-only  a directory that cannot be changed (a snapshot); a writable clone of it is writable\n"
		"  -v           say so when it has to be copied file by file\n",
		cow_verb_clone,
	},
	{
		"rm",
		"PATH...",
		"remove files and whole directories at once",
		"Space comes back in the background. Asks nothing.\n\n"
		"  -f           no word about what does not exist\n"
		"  -v           say so when it has to be removed file by file\n",
		cow_verb_rm,
	},
	{
		"ls",
		"[-l] [--json] PATH",
		"list a directory",
		"  -l           mode, links, owner, size, time; after the mode: c a clone, r a read-only clone\n"
		"  --json       one array of objects\n",
		cow_verb_ls,
	},
	{
		"diff",
		"OLD NEW [--patch | --json]",
		"what changed between two related files or directories",
		"Takes time for what differs, not for what is there. One line a change, sorted by path:\n"
		"  A path  added          D path  deleted            R old -> new  renamed\n"
		"  M path  content        m path  attributes only    T path        another type\n"
		"Exit status: 0 same, 1 different, 2 trouble.\n\n"
		"  --patch      what `LC_ALL=C diff -ruN --no-dereference OLD NEW` prints\n"
		"  --json       one array of objects\n"
		"  --top        only the top of what was added or deleted, not everything below it\n"
		"  -q           print nothing\n",
		cow_verb_diff,
	},
	{
		"du",
		"[-h] [-s] [--json] PATH...",
		"total, exclusive and shared space of each path",
		"Exclusive is what removing that path alone would give back.\n\n"
		"  -h           sizes as 1.5 GiB\n"
		"  -s           only the total (at once, whatever is shared)\n"
		"  --json       one array of objects\n",
		cow_verb_du,
	},
	{
		"stat",
		"[--json] PATH...",
		"all attributes, and the totals of everything below",
		"  --json       one array of objects\n",
		cow_verb_stat,
	},
	{
		"import",
		"SRC DST",
		"load a directory or a tar archive",
		"SRC is a directory, a file, or a tar archive: a name ending with .tar, .tar.gz, .tgz, .tar.xz, .txz,\n"
		".tar.zst, .tar.bz2, or - for stdin. DST must not exist or be an empty directory.\n"
		"If DST ends with a slash and is a directory, a tree goes into it under SRC's name.\n\n"
		"  --tar        SRC is a tar archive whatever its name\n"
		"  -q           no progress\n",
		cow_verb_import,
	},
	{
		"export",
		"SRC DST",
		"write a file or directory to the host, or as a tar archive",
		"DST is a name that does not exist, an empty directory, a file to be made whose name ends with .tar,\n"
		"or - for a tar archive on stdout.\n\n"
		"  --tar        DST is a tar archive whatever its name\n"
		"  -q           no progress\n",
		cow_verb_export,
	},
	{
		"same",
		"A B",
		"whether two related files or directories are equal",
		"Exit status: 0 same, 1 different, 2 trouble.\n",
		cow_verb_same,
	},
	{
		"check",
		"IMAGE [--data] [--json] [--repair [--dry-run] [--undo FILE]] [--revert FILE]",
		"recompute and compare everything; mend what is damaged",
		"Without --repair nothing is written.\n"
		"Exit status: 0 clean, 1 findings or trouble, 3 repaired with losses.\n\n"
		"  --data         read and verify the content of all files too\n"
		"  --json         one object\n"
		"  --repair       mend what can be mended, and list what is lost\n"
		"  -n, --dry-run  say what --repair would do\n"
		"  --undo FILE    where --repair keeps what it overwrites; else IMAGE.undo\n"
		"  --revert FILE  undo the repair that made FILE\n",
		cow_verb_check,
	},
	{
		"scrub",
		"DIR|IMAGE [--rate SIZE] [--json]",
		"read everything in use and verify its checksums, also while it is mounted",
		"One line for each damaged block, with a file or directory that needs it; clones may share it.\n"
		"Exit status: 0 clean, 1 damage was found, 2 trouble.\n\n"
		"  --rate SIZE  read at most so much a second, e.g. 20M; max: no limit (default: 100M on a mount)\n"
		"  --json       one object\n",
		cow_verb_scrub,
	},
	{
		"dump",
		"IMAGE [WHAT]",
		"print what is on disk, also of a damaged image",
		"WHAT is one of: super, counts, tree [PATH], block N.\n",
		cow_verb_dump,
	},
	{
		"info",
		"[--json] IMAGE|DIR",
		"facts about a volume",
		"  --json       one object, sizes in bytes\n",
		cow_verb_info,
	},
	{
		"sync",
		"DIR [--drain]",
		"make everything durable",
		"  --drain      wait until all removed space is given back, too\n",
		cow_verb_sync,
	},
};

#define VERBS (sizeof(verbs) / sizeof(verbs[0]))

static const struct cow_verb *find(const char *name)
{
	for (size_t i = 0; i < VERBS; i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

static void overview(FILE *out)
{
	fputs("usage: cow VERB ARGUMENTS\n\n", out);
	for (size_t i = 0; i < VERBS; i++)
		fprintf(out, "  %-8s %s\n", verbs[i].name, verbs[i].summary);
	fputs("\nPATH is a path on a mounted volume, or IMAGE:/path in an image that is not mounted.\n"
	      "`cow help VERB` says more, and so does cow(1). `cow --version` prints the version.\n",
	      out);
}

static int help(int argc, char **argv)
{
	struct cow_cli cli = {"help", NULL};

	if (argc < 2) {
		overview(stdout);
		return COW_EXIT_OK;
	}
	cli.entry = find(argv[1]);
	if (cli.entry == NULL || argc > 2) {
		fprintf(stderr, "cow help: %s: no such verb; `cow help` lists them\n", argv[1]);
		return COW_EXIT_USAGE;
	}
	return cow_say_help(&cli);
}

static int run(int argc, char **argv)
{
	struct cow_cli cli;
	char name[32];

	if (argc < 2) {
		overview(stderr);
		return COW_EXIT_USAGE;
	}
	if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
		printf("cow (cowlinks) %s\n", cow_version());
		return COW_EXIT_OK;
	}
	if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return help(argc - 1, argv + 1);
	cli.entry = find(argv[1]);
	if (cli.entry == NULL) {
		fprintf(stderr, "cow: %s: no such verb; `cow help` lists them\n", argv[1]);
		return COW_EXIT_USAGE;
	}
	cli.verb = cli.entry->name;
	if (argc == 3 && strcmp(argv[2], "--help") == 0)
		return cow_say_help(&cli);
	snprintf(name, sizeof(name), "cow %s", cli.verb); /* getopt puts argv[0] before its messages */
	argv[1] = name;
	return cli.entry->run(&cli, argc - 1, argv + 1);
}

/*
 * Standard descriptors that are closed would be given to the next file that is opened, an image for example, and
 * messages would be written into it. They are filled so that they still cannot be used: 0 for writing only, the others
 * for reading only.
 */
static bool fill_standard(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		int filled;

		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		filled = open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
		if (filled < 0)
			filled = open("/", O_PATH);
		if (filled != fd)
			return false;
	}
	return true;
}

/*
 * A file that becomes larger than `ulimit -f` allows is an error to be told, and not the death of a program that has an
 * image open. How children end has to be heard, whatever who started us thought of his.
 */
static void set_signals(void)
{
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
}

int main(int argc, char **argv)
{
	bool trouble_is_2 = argc > 1 && (strcmp(argv[1], "diff") == 0 || strcmp(argv[1], "same") == 0 ||
					 strcmp(argv[1], "scrub") == 0);
	int status;

	if (!fill_standard())
		return COW_EXIT_TROUBLE;
	set_signals();
	status = run(argc, argv);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "cow: cannot write to standard output: %s\n", strerror(errno));
		return trouble_is_2 ? COW_EXIT_DIFF_TROUBLE : COW_EXIT_TROUBLE;
	}
	return status;
}
