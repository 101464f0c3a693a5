/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libarchive, loaded when a tar archive is read or written and not before: linked in the usual way, it and the twelve
 * libraries behind it take 2.8 ms at every start of the program, more than a clone.
 */
#ifndef COW_CLI_ARCHIVE_H
#define COW_CLI_ARCHIVE_H

#include <archive.h>
#include <archive_entry.h>

#include "cli/cli.h"

/* clang-format off */
#define COW_ARCHIVE_CALLS(X) \
	X(archive_error_string) X(archive_errno) X(archive_read_new) X(archive_read_support_filter_all) \
	X(archive_read_support_format_tar) X(archive_read_support_format_gnutar) \
	X(archive_read_support_format_empty) X(archive_read_set_options) X(archive_read_open) \
	X(archive_read_next_header) X(archive_read_data_block) X(archive_read_free) X(archive_write_new) \
	X(archive_write_set_format_pax) X(archive_write_set_options) X(archive_write_open_fd) \
	X(archive_write_header) X(archive_write_data) X(archive_write_finish_entry) X(archive_write_close) \
	X(archive_write_free) X(archive_write_set_bytes_per_block) X(archive_write_set_bytes_in_last_block) \
	X(archive_entry_new) X(archive_entry_free) X(archive_entry_clear) X(archive_entry_pathname) \
	X(archive_entry_hardlink) X(archive_entry_symlink) X(archive_entry_filetype) X(archive_entry_perm) \
	X(archive_entry_uid) X(archive_entry_gid) X(archive_entry_rdevmajor) X(archive_entry_rdevminor) \
	X(archive_entry_size) X(archive_entry_size_is_set) X(archive_entry_mtime) \
	X(archive_entry_mtime_nsec) X(archive_entry_atime) X(archive_entry_atime_nsec) \
	X(archive_entry_atime_is_set) X(archive_entry_xattr_reset) X(archive_entry_xattr_next) \
	X(archive_entry_acl_types) X(archive_entry_acl_reset) X(archive_entry_acl_next) \
	X(archive_entry_copy_pathname) X(archive_entry_copy_hardlink) X(archive_entry_copy_symlink) \
	X(archive_entry_set_mode) X(archive_entry_set_uid) X(archive_entry_set_gid) \
	X(archive_entry_set_rdevmajor) X(archive_entry_set_rdevminor) X(archive_entry_set_size) \
	X(archive_entry_set_mtime) X(archive_entry_set_atime) X(archive_entry_xattr_add_entry) \
	X(archive_entry_sparse_add_entry)
/* clang-format on */

struct cow_archive_calls {
	void *library;
#define X(name) __typeof__(name) *name;
	COW_ARCHIVE_CALLS(X)
#undef X
};

/* 0, or COW_EXIT_TROUBLE when the trouble was told. */
int cow_archive_load(const struct cow_cli *cli, struct cow_archive_calls *calls);
void cow_archive_unload(struct cow_archive_calls *calls);

#endif
