/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The crash test and the fault test: a child process for each seed, as many at once as there are processors. See cut.c
 * and fault.c.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test/crash/crash.h"

#ifdef __SANITIZE_ADDRESS__
#define SLOWER 4 /* where memory is slow to get, a sanitizer costs more than twice the time */
#else
#define SLOWER 1
#endif
#define HANG_SECONDS (SLOWER * 300)   /* of processor time */
#define STUCK_SECONDS (SLOWER * 3000) /* by the clock: on a busy machine the others may have it all */
#define JOBS_MAX 64
#define FAULTS_EVERY 4 /* seeds */

enum kind { CUTS, FAULTS, SCRIPT };

struct job {
	pid_t pid; /* 0: free */
	enum kind kind;
	const struct script *script;
	struct report *report; /* shared */
};

struct run {
	const struct settings *settings;
	struct job jobs[JOBS_MAX];
	struct report sum;
	unsigned bad;
};

/* ------------------------------------------------------------------ children */

static void hang(int signal)
{
	(void)signal;
	_exit(124);
}

static void child(const struct settings *settings, uint64_t seed, struct job *job)
{
	const struct itimerval limit = {.it_value = {.tv_sec = HANG_SECONDS}};
	struct settings mine = *settings;
	struct scene scene;
	bool ok;

	signal(SIGALRM, hang);
	signal(SIGPROF, hang);
	setitimer(ITIMER_PROF, &limit, NULL);
	alarm(STUCK_SECONDS);
	mine.script = job->script;
	snprintf(job->report->name, CASE_BYTES, "%" PRIu64, seed);
	scene_set_up(&scene, &mine, seed, job->report);
	ok = job->kind == FAULTS ? fault_run(&scene) : cut_run(&scene);
	exit(ok ? 0 : 1);
}

static void add(struct report *sum, const struct report *report)
{
	sum->cuts += report->cuts;
	sum->states += report->states;
	sum->replays += report->replays;
	sum->commits += report->commits;
	sum->fsyncs += report->fsyncs;
	sum->operations += report->operations;
	sum->no_space += report->no_space;
	sum->faults += report->faults;
}

/* Waits until a child has ended. */
static void reap(struct run *run)
{
	struct report *report;
	struct job *job = run->jobs;
	int status;
	pid_t pid = wait(&status);

	while (pid > 0 && job->pid != pid)
		job++;
	if (pid <= 0)
		exit(2);
	job->pid = 0;
	report = job->report;
	add(&run->sum, report);
	if (report->bug[0] == 0 && WIFSIGNALED(status))
		snprintf(report->bug, sizeof(report->bug), "SIGNAL %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else if (report->bug[0] == 0 && status != 0)
		snprintf(report->bug, sizeof(report->bug), "EXIT %d", WEXITSTATUS(status));
	if (report->bug[0] == 0)
		return;
	run->bad++;
	printf("not ok - crash --ops %u --%s %s: %s (after %" PRIu64 " states, %" PRIu64 " faults)\n",
	       run->settings->ops, job->kind == FAULTS ? "fault" : "case", report->name, report->bug, run->sum.states,
	       run->sum.faults);
	fflush(stdout);
}

static void start(struct run *run, enum kind kind, const struct script *script, uint64_t seed)
{
	unsigned i = 0, running = 0;
	struct job *job;

	for (unsigned k = 0; k < run->settings->jobs; k++)
		running += run->jobs[k].pid != 0;
	if (running == run->settings->jobs)
		reap(run);
	if (run->bad >= run->settings->most_bad)
		return;
	while (run->jobs[i].pid != 0)
		i++;
	job = &run->jobs[i];
	memset(job->report, 0, sizeof(*job->report));
	job->kind = kind;
	job->script = script;
	fflush(NULL);
	job->pid = fork();
	if (job->pid < 0) {
		perror("fork");
		exit(2);
	}
	if (job->pid == 0)
		child(run->settings, seed, job);
}

/* ------------------------------------------------------------------ arguments */

static void usage(void)
{
	fputs("usage: crash [--seeds N] [--seed S] [--ops N] [--cuts N] [--soak SECONDS] [--jobs N]\n"
	      "             [--faults-only | --cuts-only] [--first]\n"
	      "       crash --case [SCRIPT:]SEED[:EVENT:POLICY:CHOICE[:EVENT:POLICY:CHOICE]] [--ops N]\n"
	      "       crash --fault SEED:CALL:NTH [--ops N]\n",
	      stderr);
	exit(2);
}

static const struct script *find_script(const char *name, size_t length)
{
	for (const struct script *s = crash_scripts; s->name != NULL; s++)
		if (strlen(s->name) == length && memcmp(s->name, name, length) == 0)
			return s;
	return NULL;
}

static void parse_case(const char *text, struct settings *s)
{
	struct cut *c = s->replay_cut;
	int n;

	s->script = find_script(text, strcspn(text, ":"));
	if (s->script != NULL)
		text += strcspn(text, ":") + 1;
	n = sscanf(text, "%" SCNu64 ":%" SCNu64 ":%u:%" SCNu64 ":%" SCNu64 ":%u:%" SCNu64, &s->seed, &c[0].event,
		   &c[0].policy, &c[0].choice, &c[1].event, &c[1].policy, &c[1].choice);
	if (n != 1 && n != 4 && n != 7)
		usage();
	s->replay = n > 1;
	s->replay_depth = n == 7 ? 2 : 1;
	s->cuts_only = s->no_scripts = true;
	s->seeds = 1;
}

static void parse_fault(const char *text, struct settings *s)
{
	if (sscanf(text, "%" SCNu64 ":%u:%" SCNu64, &s->seed, &s->fault_call, &s->fault_nth) != 3)
		usage();
	s->fault_call++;
	s->faults_only = s->no_scripts = true;
	s->seeds = 1;
}

static void parse(int argc, char **argv, struct settings *s)
{
	static const struct option options[] = {
		{"seeds", required_argument, NULL, 'n'}, {"seed", required_argument, NULL, 's'},
		{"ops", required_argument, NULL, 'o'}, {"cuts", required_argument, NULL, 'c'},
		{"soak", required_argument, NULL, 'k'}, {"case", required_argument, NULL, 'e'},
		{"fault", required_argument, NULL, 'f'}, {"faults-only", no_argument, NULL, 'F'},
		{"cuts-only", no_argument, NULL, 'C'}, {"first", no_argument, NULL, '1'},
		{"jobs", required_argument, NULL, 'j'}, {0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'n': s->seeds = (unsigned)strtoul(optarg, NULL, 0); break;
		case 's': s->seed = strtoull(optarg, NULL, 0); break;
		case 'o': s->ops = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'c': s->cuts = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'k': s->soak_seconds = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'e': parse_case(optarg, s); break;
		case 'f': parse_fault(optarg, s); break;
		case 'F': s->faults_only = true; break;
		case 'C': s->cuts_only = true; break;
		case '1': s->most_bad = 1; break;
		case 'j': s->jobs = (unsigned)strtoul(optarg, NULL, 0); break;
		default: usage();
		}
	}
	if (optind < argc || s->jobs == 0 || s->jobs > JOBS_MAX)
		usage();
}

/* ------------------------------------------------------------------ the parent */

/* Fixed seeds 1 to half the number, then fresh ones from the drawn (or given) seed on. */
static uint64_t seed_number(const struct settings *s, unsigned i, bool fixed)
{
	return fixed && i < s->seeds / 2 ? i + 1 : s->seed + i;
}

static void run_scripts(struct run *run)
{
	for (const struct script *s = crash_scripts; s->name != NULL; s++)
		for (unsigned seed = 1; seed <= 6; seed++)
			start(run, SCRIPT, s, seed);
}

/* Returns how many seeds were tried. */
static unsigned run_seeds(struct run *run, bool fixed)
{
	const struct settings *s = run->settings;
	time_t end = time(NULL) + s->soak_seconds;
	unsigned i;

	for (i = 0; run->bad < s->most_bad && (s->soak_seconds > 0 ? time(NULL) < end : i < s->seeds); i++) {
		if (!s->faults_only)
			start(run, CUTS, s->script, seed_number(s, i, fixed));
		if (!s->cuts_only && (s->faults_only || i % FAULTS_EVERY == 0))
			start(run, FAULTS, NULL, seed_number(s, i, fixed));
	}
	return i;
}

int main(int argc, char **argv)
{
	struct settings s = {.seeds = 64, .cuts = 120, .ops = 40, .most_bad = 10};
	struct rlimit no_core = {0, 0};
	struct run run = {.settings = &s};
	struct report *reports;
	struct timespec now;
	unsigned done;
	bool fixed;

	s.jobs = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
	s.jobs = s.jobs > JOBS_MAX ? JOBS_MAX : s.jobs;
	parse(argc, argv, &s);
	fixed = s.seed == 0;
	clock_gettime(CLOCK_REALTIME, &now);
	if (fixed)
		s.seed = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	setrlimit(RLIMIT_CORE, &no_core);
	mallopt(M_MMAP_THRESHOLD, 64 << 20); /* every state allocates the same again */
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	distinct_begin(s.soak_seconds > 600 ? 27 : 24);
	reports = mmap(NULL, sizeof(*reports) * s.jobs, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (reports == MAP_FAILED)
		return 2;
	for (unsigned i = 0; i < s.jobs; i++)
		run.jobs[i].report = &reports[i];
	if (!s.no_scripts && !s.faults_only)
		run_scripts(&run);
	done = run_seeds(&run, fixed);
	for (unsigned i = 0; i < s.jobs;)
		if (run.jobs[i].pid != 0)
			reap(&run);
		else
			i++;
	printf("%s - crash: %u seeds (fresh ones from %" PRIu64 "), %" PRIu64 " operations (%" PRIu64
	       " without space), %" PRIu64 " commits, %" PRIu64 " fsyncs, %" PRIu64 " cuts (%" PRIu64
	       " with a replay) and %" PRIu64 " faults, %" PRIu64 " distinct states, %u failed\n",
	       run.bad > 0 ? "not ok" : "ok", done, s.seed, run.sum.operations, run.sum.no_space, run.sum.commits,
	       run.sum.fsyncs, run.sum.cuts, run.sum.replays, run.sum.faults, run.sum.states, run.bad);
	return run.bad > 0;
}
