/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/cases.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "test/lib/trial.h"

/* cmocka leaves a case that fails by longjmp, and hands nothing to what it calls but a state that is the test's own. So
 * this remembers which of them is next. */
static const struct CMUnitTest **wanted;
static size_t next_case;

static void guarded(void **state)
{
	const struct CMUnitTest *test = wanted[next_case++];

	trial_case(test->name);
	test->test_func(state);
	trial_case(NULL);
}

static int after(void **state)
{
	(void)state;
	if (trial_is_open()) {
		trial_failed();
		trial_case(NULL);
	}
	return 0;
}

int cases_run_group(const char *group, const struct CMUnitTest *tests, size_t count, CMFixtureFunction set_up,
		    CMFixtureFunction tear_down)
{
	struct CMUnitTest *cases = calloc(count, sizeof(*cases));
	size_t n = 0;
	int failed;

	wanted = calloc(count, sizeof(const struct CMUnitTest *));
	next_case = 0;
	for (size_t i = 0; i < count; i++) {
		if (!trial_wants(tests[i].name))
			continue;
		assert(tests[i].setup_func == NULL && tests[i].teardown_func == NULL);
		wanted[n] = &tests[i];
		cases[n] = tests[i];
		cases[n].test_func = guarded;
		cases[n++].teardown_func = after;
	}
	if (n == 0) {
		printf("1..0 # SKIP no case is named %s\n", getenv("COW_TEST_CASE"));
		failed = 0;
	} else {
		failed = _cmocka_run_group_tests(group, cases, n, set_up, tear_down);
	}
	free(wanted);
	free(cases);
	return failed;
}
