/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Runs the cases of a cmocka program: those that are asked for, and with the line that repeats one that fails. */
#ifndef COW_TEST_CASES_H
#define COW_TEST_CASES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* For main(): what the program ends with. */
#define cases_run(tests) cases_run_within(tests, NULL, NULL)
/* Each may be NULL; once for all cases. */
#define cases_run_within(tests, set_up, tear_down) \
	cases_run_group(#tests, tests, sizeof(tests) / sizeof((tests)[0]), set_up, tear_down)

int cases_run_group(const char *group, const struct CMUnitTest *tests, size_t count, CMFixtureFunction set_up,
		    CMFixtureFunction tear_down);

#endif
