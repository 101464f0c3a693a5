/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Attributes as people read them, for ls and stat. */
#ifndef COW_CLI_ATTR_H
#define COW_CLI_ATTR_H

#include "cli/cli.h"

struct stat;

void cow_attr_from_stat(const struct stat *st, struct cow_attr *attr);
/* "drwxr-xr-x" (11 bytes) */
void cow_attr_mode_text(uint32_t mode, char *text);
/* "directory", "file", ... */
const char *cow_attr_type_text(uint32_t mode);
/* "2026-01-31 12:00:00.000000000 +0100" (at least 48 bytes); without `full` to the minute, without zone */
void cow_attr_time_text(const struct timespec *when, bool full, char *text);
/* The fields of one inode, into an object that is open. */
void cow_attr_json(struct cow_json *json, const struct cow_attr *attr);

#endif
