/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What all verbs of the program `cow` share: the table of verbs, how an error is told, numbers and JSON.
 *
 * A verb is one file with one exported function, cow_verb_NAME(). It parses its own arguments, prints its results on
 * stdout, and returns the exit status of the program.
 */
#ifndef COW_CLI_CLI_H
#define COW_CLI_CLI_H

#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "cow.h"

enum {
	COW_EXIT_OK = 0,
	COW_EXIT_TROUBLE = 1,
	COW_EXIT_USAGE = 2,
	COW_EXIT_DIFFERENT = 1, /* diff and same, as diff(1) */
	COW_EXIT_DIFF_TROUBLE = 2, /* and scrub */
};

/* One run of the program. */
struct cow_cli {
	const char *verb;
	const struct cow_verb *entry;
};

struct cow_verb {
	const char *name;
	const char *usage; /* arguments, one line */
	const char *summary;
	const char *help; /* options and what else one must know */
	int (*run)(struct cow_cli *cli, int argc, char **argv); /* argv[0] is "cow NAME" */
};

/* ---- say.c: one line on stderr an error: `cow VERB: what: text`, with a hint behind it where it helps */

/* Error of an errno or enum cow_error value (negative). Returns COW_EXIT_TROUBLE. */
int cow_say_error(const struct cow_cli *cli, const char *what, int error);
/* The same with what to do, or NULL for the hint that the error itself suggests. */
int cow_say_hint(const struct cow_cli *cli, const char *what, int error, const char *hint);
/* A message in own words. Returns COW_EXIT_TROUBLE. */
int cow_say(const struct cow_cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Wrong arguments: the message (may be NULL: getopt has spoken), the usage line. Returns COW_EXIT_USAGE. */
int cow_say_usage(const struct cow_cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* --help: usage, summary and help on stdout. Returns COW_EXIT_OK. */
int cow_say_help(const struct cow_cli *cli);
/* A path as one line of output: as it is, or quoted as in C when it holds control characters, quotes or backslashes. */
void cow_say_path(FILE *out, const char *path);

/* The value of a long option without a short one. */
enum {
	COW_OPTION_HELP = 1000,
	COW_OPTION_FIRST,
};

/* ---- size.c */

/* "100G", "1.5T", "4096": powers of 1,024; K M G T P E, with or without B or iB. -EINVAL, -ERANGE */
int cow_size_parse(const char *text, uint64_t *bytes);
/* "1.5 GiB" into a buffer of at least COW_SIZE_TEXT bytes, which it returns. */
#define COW_SIZE_TEXT 16
char *cow_size_text(uint64_t bytes, char *text);

/* ---- json.c: values are written as they come; it says how names, which are bytes, become text */

struct cow_json {
	FILE *out;
	unsigned depth;
	bool first; /* nothing written yet at this level */
};
void cow_json_begin(struct cow_json *json, FILE *out);
void cow_json_end(struct cow_json *json); /* newline */
/* `key` is NULL inside an array. */
void cow_json_open(struct cow_json *json, const char *key, char bracket); /* '{' or '[' */
void cow_json_close(struct cow_json *json, char bracket); /* '}' or ']' */
void cow_json_number(struct cow_json *json, const char *key, uint64_t value);
void cow_json_bool(struct cow_json *json, const char *key, bool value);
void cow_json_text(struct cow_json *json, const char *key, const char *value); /* NULL: null */
void cow_json_time(struct cow_json *json, const char *key, const struct timespec *when); /* seconds.nanoseconds */
void cow_json_mode(struct cow_json *json, const char *key, uint32_t mode); /* "0100644" */

/* ---- run.c: other programs */

/* Runs argv with the standard descriptors of this one and waits: its exit status, or -errno. */
int cow_run_program(char *const argv[]);
/*
 * The same in the directory `dir`. The caller has blocked SIGINT, SIGTERM and SIGHUP, with cow_run_block(): one that
 * comes ends the program instead, and the result is -EINTR.
 */
int cow_run_stoppable(int dir, char *const argv[]);
void cow_run_block(void);
/* Starts argv, `actions` (may be NULL) done first: 0 or -errno. */
int cow_run_start(char *const argv[], const posix_spawn_file_actions_t *actions, pid_t *pid);

/* ---- umount.c */

/* The absolute path of a directory that may be a mount point, without touching what is mounted there; NULL: errno. */
char *cow_umount_resolve(const char *name);
/* Takes away the dead mounts on `dir` (absolute), and says so. COW_EXIT_OK, or COW_EXIT_TROUBLE after having said
 * why one of them stays. */
int cow_umount_dead(const struct cow_cli *cli, char *dir);

/* ---- the verbs */
int cow_verb_check(struct cow_cli *cli, int argc, char **argv);
int cow_verb_clone(struct cow_cli *cli, int argc, char **argv);
int cow_verb_diff(struct cow_cli *cli, int argc, char **argv);
int cow_verb_du(struct cow_cli *cli, int argc, char **argv);
int cow_verb_dump(struct cow_cli *cli, int argc, char **argv);
int cow_verb_export(struct cow_cli *cli, int argc, char **argv);
int cow_verb_format(struct cow_cli *cli, int argc, char **argv);
int cow_verb_import(struct cow_cli *cli, int argc, char **argv);
int cow_verb_info(struct cow_cli *cli, int argc, char **argv);
int cow_verb_ls(struct cow_cli *cli, int argc, char **argv);
int cow_verb_mount(struct cow_cli *cli, int argc, char **argv);
int cow_verb_rm(struct cow_cli *cli, int argc, char **argv);
int cow_verb_same(struct cow_cli *cli, int argc, char **argv);
int cow_verb_scrub(struct cow_cli *cli, int argc, char **argv);
int cow_verb_stat(struct cow_cli *cli, int argc, char **argv);
int cow_verb_sync(struct cow_cli *cli, int argc, char **argv);
int cow_verb_umount(struct cow_cli *cli, int argc, char **argv);

#endif
