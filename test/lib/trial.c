/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/trial.h"

#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The line is kept ready: when a program dies, nothing may be formatted any more. */
static struct {
	const char *name; /* of the case that runs, or NULL */
	bool has_seed, told, watching;
	uint64_t seed;
	pid_t process;    /* a child that dies, dies for its parent to see */
	char line[600];
	size_t length;
} now;

/* Of the sanitizers, if the program has one. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

/* ------------------------------------------------------------------ the line */

static size_t add(size_t at, const char *format, ...) __attribute__((format(printf, 2, 3)));

static size_t add(size_t at, const char *format, ...)
{
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(now.line + at, sizeof(now.line) - at, format, args);
	va_end(args);
	at += length > 0 ? (size_t)length : 0;
	return at < sizeof(now.line) ? at : sizeof(now.line) - 1;
}

static void prepare(const char *arguments)
{
	const char *length = getenv("COW_TEST_LENGTH");
	size_t at = add(0, "# to repeat this: ");

	if (now.has_seed)
		at = add(at, "COW_TEST_SEED=%" PRIu64 " ", now.seed);
	if (now.name != NULL && now.name[0] != '\0')
		at = add(at, "COW_TEST_CASE=%s ", now.name);
	if (length != NULL) /* it says what the seed means */
		at = add(at, "COW_TEST_LENGTH=%s ", length);
	now.length = add(at, "%s%s%s\n", program_invocation_name, arguments[0] != '\0' ? " " : "", arguments);
}

static void tell(void)
{
	if (now.name == NULL || now.told || now.process != getpid())
		return;
	now.told = true;
	(void)!write(STDERR_FILENO, now.line, now.length);
}

static void die(int number)
{
	tell();
	signal(number, SIG_DFL);
	raise(number);
}

static void watch(void)
{
	static const int fatal[] = {SIGABRT, SIGTERM, SIGALRM};

	now.process = getpid();
	if (now.watching)
		return;
	now.watching = true;
	for (unsigned i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
		signal(fatal[i], die);
	if (__sanitizer_set_death_callback != NULL)
		__sanitizer_set_death_callback(tell);
}

void trial_case(const char *name)
{
	now.name = name;
	now.has_seed = now.told = false;
	if (name != NULL) {
		watch();
		prepare("");
	}
}

bool trial_is_open(void)
{
	return now.name != NULL;
}

void trial_failed(void)
{
	tell();
}

void trial_failed_at(const char *arguments)
{
	prepare(arguments);
	tell();
}

/* ------------------------------------------------------------------ what is asked for */

static double times(const char *variable)
{
	const char *text = getenv(variable);
	char *end;
	double factor;

	if (text == NULL || text[0] == '\0')
		return 1;
	factor = strtod(text, &end);
	if (*end != '\0' || !(factor > 0) || factor > 1e9) {
		fprintf(stderr, "%s=%s: how many times as much as usual, like 0.2 or 10\n", variable, text);
		exit(2);
	}
	return factor;
}

static uint64_t scaled(const char *variable, uint64_t usual)
{
	double n = times(variable) * (double)usual;

	return n < 1 ? 1 : (uint64_t)(n + 0.5);
}

uint64_t trial_length(uint64_t usual)
{
	return scaled("COW_TEST_LENGTH", usual);
}

uint64_t trial_runs(uint64_t usual)
{
	return scaled("COW_TEST_RUNS", usual);
}

bool trial_asks(uint64_t *seed)
{
	const char *text = getenv("COW_TEST_SEED");
	char *end;

	if (text == NULL || text[0] == '\0')
		return false;
	errno = 0;
	*seed = strtoull(text, &end, 0);
	if (*end != '\0' || errno != 0) {
		fprintf(stderr, "COW_TEST_SEED=%s: not a number\n", text);
		exit(2);
	}
	return true;
}

bool trial_verbose(void)
{
	const char *text = getenv("COW_TEST_VERBOSE");

	return text != NULL && text[0] != '\0' && strcmp(text, "0") != 0;
}

void trial_say(const char *format, ...)
{
	va_list args;

	if (!trial_verbose())
		return;
	fputs("# ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

bool trial_wants(const char *name)
{
	const char *pattern = getenv("COW_TEST_CASE");

	return pattern == NULL || pattern[0] == '\0' || fnmatch(pattern, name, 0) == 0;
}

/* ------------------------------------------------------------------ runs */

static uint64_t fresh_seed(void)
{
	struct timespec time;

	clock_gettime(CLOCK_REALTIME, &time);
	return (uint64_t)time.tv_sec * 1000003 + (uint64_t)time.tv_nsec / 1000 + (uint64_t)getpid() * 1009;
}

bool trial_next(struct trial *trial, unsigned usual, unsigned fixed)
{
	bool asked = trial_asks(&trial->seed);

	if (trial->number++ == 0)
		trial->fresh = fresh_seed();
	now.has_seed = trial->number <= (asked ? 1 : trial_runs(usual));
	if (now.has_seed && !asked)
		trial->seed = trial->number <= fixed ? trial->number : trial->fresh + trial->number;
	now.seed = trial->seed;
	if (now.name != NULL)
		prepare("");
	if (now.has_seed)
		trial_say("seed %" PRIu64, trial->seed);
	return now.has_seed;
}
