/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cases that broke earlier drafts of the intent log. Each is cut at every event in all ways. */
#include "test/crash/crash.h"

#define LINES(...) (const char *const[]){__VA_ARGS__, NULL}

const struct script crash_scripts[] = {
	{.name = "write-truncate-write", .lines = {
		LINES("create / a 420", "write /a 0 9000 1", "sync", "write /a 0 5000 2", "truncate /a 100",
		      "write /a 3000 6000 3", "fsync /a", "truncate /a 10", "write /a 5000 20 4", "fsync /a",
		      "truncate /a 0", "fsync /a", "write /a 8192 4096 5", "punch /a 8192 4096", "fsync /a"),
	}},
	{.name = "truncate-other", .lines = {
		LINES("create / a 420", "create / b 420", "write /a 0 9000 1", "sync", "write /a 0 9000 2",
		      "truncate /a 100", "write /b 0 10 3", "fsync /b", "truncate /a 5000", "fsync /b", "fsync /a"),
	}},
	{.name = "unlinked-and-open", .lines = {
		LINES("create / a 420", "write /a 0 100 1", "sync", "open 0 /a", "write_at 0 0 200 2", "unlink /a",
		      "create / a 384", "write /a 0 300 3", "write_at 0 100 9000 4", "fsync_at 0", "fsync /a",
		      "write_at 0 0 50 5", "write /a 5 5 6", "fsync_at 0", "close 0", "fsync /a"),
	}},
	{.name = "tmpfile", .lines = {
		LINES("mkdir / d 493", "sync", "tmpfile 0 /d", "write_at 0 0 5000 1", "link_at 0 /d t",
		      "fsync_at 0", "tmpfile 1 /", "write_at 1 0 70 2", "fsync_at 1", "link_at 1 /d u",
		      "write_at 0 5000 9 3", "fsync_at 0", "link_at 1 / v", "unlink /d/u", "fsync_at 1"),
	}},
	{.name = "tmpfile-before", .lines = {
		LINES("mkdir / d 493", "tmpfile 0 /d", "write_at 0 0 5000 1", "sync", "write_at 0 10 10 2",
		      "link_at 0 /d t", "create / x 420", "fsync /x", "fsync_at 0"),
	}},
	/* the log can be used from the first commit of a mount on */
	{.name = "during-commit", .lines = {
		LINES("create / a 420", "write /a 0 9000 1", "sync", "create / b 420", "mkdir / x 493",
		      "write /b 0 100 9", "+mkdir / d 493", "+create /d f 420", "+write /d/f 0 700 2",
		      "+fsync /d/f", "sync", "create /d g 420", "write /d/g 0 70 3", "fsync /d/g", "link /b /x c",
		      "write /d/f 0 10 4", "write /a 0 10 5", "unlink /b", "+write /d/f 700 5000 6", "+fsync /d/f",
		      "+rename /d / e 0", "+fsync /a", "sync", "write /e/g 0 9000 7", "fsync /e/g"),
	}},
	/* worlds inside a clone get their numbers when they are first looked at */
	{.name = "numbers", .lines = {
		LINES("mkdir / d 493", "create /d f 420", "clone /d /d c 0", "clone /d / e 0", "create / a 420",
		      "sync", "fsync /a", "stat /e/c/f", "create / x 420", "fsync /x", "clone /e / g 0",
		      "fsync /x", "stat /g/c/f", "create /g/c y 420", "fsync /x"),
		LINES("stat /e/c/f", "create /e z 420", "fsync /e/f"),
	}},
	{.name = "clone-file", .lines = {
		LINES("create / a 420", "write /a 0 5000 1", "sync", "write /a 100 5000 2", "clone /a / b 0",
		      "fsync /b", "write /b 0 10 3", "fsync /b", "write /a 0 10 4", "clone /a / c 0",
		      "write /c 0 20 5", "fsync /a"),
	}},
	{.name = "clone-tree", .lines = {
		LINES("mkdir / d 493", "create /d f 420", "write /d/f 0 5000 1", "sync", "write /d/f 100 5000 2",
		      "link /d/f /d g", "clone /d / e 0", "clone /d / r 1", "fsync /e/f", "write /e/g 0 10 3",
		      "create /e h 420", "fsync /e/g", "write /d/f 0 10 4", "fsync /d/g", "clone /e /e n 0",
		      "write /e/n/f 3 3 5", "fsync /e/n/f"),
	}},
	{.name = "rename-over", .lines = {
		LINES("create / a 420", "write /a 0 5000 1", "sync", "create / t 420", "write /t 0 6000 2",
		      "rename /t / a 0", "create / x 420", "fsync /x", "create / t 420", "write /t 0 100 3",
		      "fsync /t", "rename /t / a 0", "write /a 100 100 4", "fsync /x", "create / t 420",
		      "write /t 0 9000 5", "rename /t / a 0", "sync"),
	}},
	{.name = "links", .lines = {
		LINES("mkdir / d 493", "create /d a 420", "write /d/a 0 50 1", "sync", "link /d/a / b",
		      "write /b 0 5000 2", "fsync /d/a", "unlink /d/a", "write /b 9 9 3", "fsync /b",
		      "link /b /d c", "rename /d / e 0", "fsync /b", "unlink /b", "link /e/c / f", "unlink /e/c",
		      "rmdir /e", "fsync /f"),
	}},
	{.name = "attributes", .lines = {
		LINES("mkdir / d 493", "create /d a 420", "sync", "chmod /d/a 256", "chown /d 5 6",
		      "utime /d/a 1000007", "setxattr /d/a b 40 1 0", "node /d s 0 90", "node /d c 2 9",
		      "create / x 420", "fsync /x", "setxattr /d a 5000 2 0", "rmxattr /d/a b",
		      "node / long 0 3000", "write /d/a 0 10 1", "fsync /x", "fsync /d/a"),
	}},
	{.name = "torn-tail", .decays = true, .lines = {
		LINES("create / a 420", "sync", "fsync /a", "write /a 0 100 1", "fsync /a", "create / b 420",
		      "fsync /b", "create / e 420", "fsync /e", "rename /b / c 0", "write /e 0 300 2", "fsync /e",
		      "write /c 0 9000 3", "fsync /c", "link /c / f", "fsync /c"),
		LINES("create / d 420", "fsync /d", "write /d 0 100 4", "fsync /d", "write /d 0 9000 5",
		      "fsync /d", "unlink /d", "create / b 384", "fsync /b"),
	}},
	/* the ring goes round, with records too large for it in between */
	{.name = "many", .lines = {
		LINES("create / a 420", "sync", "fsync /a", "write /a 0 4000 1", "fsync /a", "write /a 0 4000 2",
		      "fsync /a",
		      "write /a 0 4000 3", "fsync /a", "write /a 0 60000 4", "fsync /a", "write /a 0 4000 5",
			"fsync /a",
		      "write /a 0 60000 6", "fsync /a", "write /a 0 4000 7", "fsync /a", "write /a 0 90000 8",
		      "fsync /a", "write /a 0 60000 9", "fsync /a", "write /a 0 4000 10", "fsync /a",
		      "write /a 0 60000 11", "fsync /a"),
		LINES("write /a 0 4000 1", "fsync /a"),
	}},
	{.name = NULL},
};
