/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What programs that were compiled with include/cow.h rely on: under one name of the shared library (SOVERSION in the
 * Makefile) no struct changes its layout and no constant its value (VERSIONS in the header). Who has to change a line
 * here gives the library a new number.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cow.h"

/* A struct with its size and where its last field is. */
#define LAYOUT(name, last, size, offset) \
	{#name, sizeof(struct name), offsetof(struct name, last), size, offset}

static const struct {
	const char *name;
	size_t size, offset, want_size, want_offset;
} layouts[] = {
	LAYOUT(cow_format_options, root_gid, 40, 32),
	LAYOUT(cow_open_options, log_context, 48, 40),
	LAYOUT(cow_info, dirty_bytes, 104, 96),
	LAYOUT(cow_attr, read_only, 120, 113),
	LAYOUT(cow_entry, ino, 32, 24),
	LAYOUT(cow_new, target, 24, 16),
	LAYOUT(cow_usage, exclusive_bytes, 40, 32),
	LAYOUT(cow_change, content, 40, 32),
	LAYOUT(cow_scrub_finding, text, 32, 24),
	LAYOUT(cow_scrub_result, superblocks, 56, 48),
	LAYOUT(cow_scrub_options, context, 40, 32),
	LAYOUT(cow_finding, text, 24, 16),
	LAYOUT(cow_check_options, data, 32, 24),
	LAYOUT(cow_check_result, peak_bytes, 72, 64),
	LAYOUT(cow_loss, text, 40, 32),
	LAYOUT(cow_repair_options, dry_run, 48, 40),
	LAYOUT(cow_repair_result, written, 48, 40),
};

static void test_layouts(void **state)
{
	unsigned wrong = 0;

	(void)state;
	if (sizeof(void *) != 8 || sizeof(time_t) != 8)
		skip(); /* the numbers are those of 64 bits */
	for (size_t i = 0; i < sizeof(layouts) / sizeof(*layouts); i++) {
		if (layouts[i].size == layouts[i].want_size && layouts[i].offset == layouts[i].want_offset)
			continue;
		print_error("struct %s: %zu bytes, its last field at %zu, no longer %zu and %zu\n", layouts[i].name,
			    layouts[i].size, layouts[i].offset, layouts[i].want_size, layouts[i].want_offset);
		wrong++;
	}
	assert_int_equal(wrong, 0);
}

static void test_constants(void **state)
{
	static const int is[] = {
		COW_ERR_NOT_VOLUME, COW_ERR_NEWER, COW_ERR_BUSY, COW_ERR_DAMAGED, COW_ERR_SHORT, COW_ERR_EXISTS,
		COW_ERR_SIZE, COW_LOG_INFO, COW_LOG_WARNING, COW_LOG_ERROR, COW_SET_MODE, COW_SET_UID, COW_SET_GID,
		COW_SET_SIZE, COW_SET_ATIME, COW_SET_MTIME, COW_SET_CTIME, COW_SET_BTIME, COW_RENAME_NOREPLACE,
		COW_RENAME_EXCHANGE, COW_CLONE_READ_ONLY, COW_BLOCK_BYTES,
	};
	static const int was[] = {-5001, -5002, -5003, -5004, -5005, -5006, -5007, 0, 1, 2, 1, 2, 4, 8, 16, 32, 64, 128,
				  1, 2, 1, 4096};

	(void)state;
	assert_memory_equal(is, was, sizeof(was));
	assert_int_equal(sizeof(is), sizeof(was));
}

static void test_versions(void **state)
{
	(void)state;
	assert_string_equal(cow_version(), COW_VERSION);
	assert_int_equal(cow_format_version(), 1);
	for (int error = COW_ERR_NOT_VOLUME; error >= COW_ERR_SIZE; error--) {
		assert_in_range(cow_error_errno(error), 1, 200);
		assert_string_not_equal(cow_error_text(error), "unknown error");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layouts),
		cmocka_unit_test(test_constants),
		cmocka_unit_test(test_versions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
