/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The crash test. A seeded workload runs on a simulated device that remembers every write and flush. Then the power is
 * cut at every event in many ways; what is left is opened, checked, compared with the oracle at the commit that it says
 * it is at (not older than the last sync that returned), used further, and cut again.
 *
 * A case is SEED:EVENT:POLICY:CHOICE, and once more EVENT:POLICY:CHOICE for the second cut.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test/crash/crash.h"

#define SIZE_BYTES (24ull << 20)
#define HANG_SECONDS 300

struct cut {
	uint64_t event, choice;
	unsigned policy;
};

struct settings {
	unsigned seeds, cuts, ops, soak_seconds;
	uint64_t seed;
	bool faults_only, cuts_only;
	unsigned most_bad; /* failures after which it ends */
	bool replay;
	unsigned replay_depth;
	struct cut replay_cut[2];
	unsigned fault_call; /* replay of a fault: enum cow_sim_call + 1 */
	uint64_t fault_nth;
};

static bool fail(struct report *report, const char *name, const char *bug)
{
	snprintf(report->name, sizeof(report->name), "%s", name);
	snprintf(report->bug, sizeof(report->bug), "%s", bug);
	return false;
}

/* ------------------------------------------------------------------ one state */

/* The oldest generation that may be found after a cut at `event`. */
static uint64_t promised(const struct record *r, uint64_t event)
{
	uint64_t generation = 0;

	for (unsigned i = 0; i < r->count; i++)
		if (r->commits[i].asked <= event)
			generation = r->commits[i].generation;
	return generation;
}

static bool compare_commit(struct drive *d, const struct commit *c)
{
	char first[DRIVE_BUG_BYTES] = "";

	for (unsigned i = c->states; i-- > 0;) {
		d->bug[0] = 0;
		ora_restore(&d->ora, ora_tree_copy(c->state[i], true));
		if (drive_compare(d, d->ora.root)) {
			drive_adopt(d, d->ora.root);
			return true;
		}
		if (first[0] == 0)
			memcpy(first, d->bug, sizeof(first));
	}
	memcpy(d->bug, first, sizeof(first));
	return false;
}

/* Opens what a cut left, with the commits that may be there. On success the drive is at that commit. */
static bool verify(struct drive *d, struct cow_dev *left, const struct record *r, uint64_t event,
		   const struct cow_open_options *options)
{
	uint64_t oldest = promised(r, event);
	int error = drive_start(d, simdisk_attach, left, options);

	if (error < 0)
		return drive_bug(d, "OPEN answered %d", error);
	if (d->generation < oldest)
		return drive_bug(d, "LOST generation %" PRIu64 " is there, %" PRIu64 " was durable", d->generation,
				 oldest);
	for (unsigned i = 0; i < r->count; i++)
		if (r->commits[i].generation == d->generation)
			return compare_commit(d, &r->commits[i]);
	return drive_bug(d, "UNKNOWN generation %" PRIu64, d->generation);
}

static bool check_left(struct drive *d, struct cow_dev *left)
{
	d->attach = simdisk_attach;
	d->disk = left;
	return drive_check_disk(d);
}

struct scene {
	uint64_t seed;
	const struct settings *settings;
	struct report *report;
	struct cow_open_options options;
	struct mood mood;
};

static bool cut_all(struct scene *s, struct cow_dev *sim, const struct record *r, unsigned depth, const char *name);

/* After the first cut: work on, and cut again. */
static bool go_on(struct scene *s, struct drive *d, struct cow_dev *left, const struct cut *cut, unsigned depth,
		  const char *name)
{
	struct rng rng = {s->seed * 31 + cut->event * 8 + cut->policy};
	struct record again = {0};
	bool ok;

	cow_sim_forget(left);
	record_commit(&again, d, d->generation - 1, 0);
	ok = crash_work(d, &rng, &s->mood, 12, left, &again);
	if (!ok)
		fail(s->report, name, d->bug);
	else
		ok = cut_all(s, left, &again, depth + 1, name);
	record_free(&again);
	return ok;
}

/* Cuts once, and looks at what is left. */
static bool cut_once(struct scene *s, struct cow_dev *sim, const struct record *r, const struct cut *cut,
		     unsigned depth, const char *before)
{
	struct cow_dev *left = cow_sim_cut(sim, cut->event, (enum cow_sim_policy)cut->policy, cut->choice);
	struct drive d, checker = {.bug = (char[DRIVE_BUG_BYTES]){0}};
	char name[CASE_BYTES];
	bool ok;

	snprintf(name, sizeof(name), "%s:%" PRIu64 ":%u:%" PRIu64, before, cut->event, cut->policy, cut->choice);
	snprintf(s->report->name, sizeof(s->report->name), "%s", name);
	s->report->states++;
	if (!check_left(&checker, left)) {
		cow_dev_close(left);
		return fail(s->report, name, checker.bug);
	}
	ok = verify(&d, left, r, cut->event, &s->options);
	if (!ok)
		fail(s->report, name, d.bug);
	else if (depth == 0 && (s->settings->replay ? s->settings->replay_depth > 1 : cut->choice % 16 == 0))
		ok = go_on(s, &d, left, cut, depth, name);
	drive_stop(&d);
	cow_dev_close(left);
	return ok;
}

/* ------------------------------------------------------------------ all states */

/* Ways to cut that leave something else than another way at another event: dropping all is the flush before. */
static bool worth_it(struct cow_dev *sim, const struct cut *cut)
{
	uint64_t in_flight = cut->event - cow_sim_flushed(sim, cut->event);

	switch (cut->policy) {
	case COW_SIM_KEEP:
		return true;
	case COW_SIM_DROP:
		return false;
	case COW_SIM_ONE:
	case COW_SIM_BUT_ONE:
		return in_flight > 1;
	default:
		return in_flight > 0;
	}
}

/*
 * Every event is cut once, as it is; where the budget allows in other ways too, ends of epochs first: there the most is
 * in flight.
 */
static bool cut_all(struct scene *s, struct cow_dev *sim, const struct record *r, unsigned depth, const char *name)
{
	const struct settings *settings = s->settings;
	uint64_t events = cow_sim_events(sim), budget = depth == 0 ? settings->cuts : settings->cuts / 16 + 4;
	struct rng rng = {s->seed + events};

	if (settings->replay)
		return cut_once(s, sim, r, &settings->replay_cut[depth], depth, name);
	for (uint64_t event = 0; event <= events; event++) {
		bool boundary = event == events || cow_sim_flushed(sim, event + 1) == event + 1;
		unsigned tries = boundary ? COW_SIM_POLICIES * 2 : 2;

		if (!boundary && rng_below(&rng, events + 1) >= budget)
			continue;
		for (unsigned i = 0; i < tries; i++) {
			struct cut cut = {event, rng_below(&rng, 1000),
					  boundary ? i % COW_SIM_POLICIES
						   : (unsigned)rng_below(&rng, COW_SIM_POLICIES)};

			if (worth_it(sim, &cut) && (depth == 0 || rng_below(&rng, events + 1) < budget) &&
			    !cut_once(s, sim, r, &cut, depth, name))
				return false;
		}
	}
	return true;
}

static bool run_seed(uint64_t seed, const struct settings *settings, struct report *report)
{
	struct scene s = {.seed = seed, .settings = settings, .report = report};
	struct cow_dev *sim = simdisk_format(SIZE_BYTES);
	struct record record = {0};
	struct rng rng = {seed};
	struct drive d;
	char name[CASE_BYTES];
	bool ok;

	snprintf(name, sizeof(name), "%" PRIu64, seed);
	snprintf(report->name, sizeof(report->name), "%s", name);
	crash_mood(&rng, &s.mood);
	crash_options(seed, &s.options);
	ok = drive_start(&d, simdisk_attach, sim, &s.options) == 0;
	if (ok) {
		record_commit(&record, &d, 0, 0);
		ok = crash_work(&d, &rng, &s.mood, settings->ops, sim, &record);
	}
	if (!ok)
		fail(report, name, d.bug[0] != 0 ? d.bug : "OPEN");
	report->operations += d.done;
	report->commits += record.count;
	drive_stop(&d);
	ok = ok && cut_all(&s, sim, &record, 0, name);
	record_free(&record);
	cow_dev_close(sim);
	return ok;
}

/* ------------------------------------------------------------------ the parent */

static void hang(int signal)
{
	(void)signal;
	_exit(124);
}

static bool run_child(uint64_t seed, const struct settings *settings, struct report *report, bool faults)
{
	int status;
	pid_t pid;

	fflush(NULL);
	report->bug[0] = report->name[0] = 0;
	pid = fork();
	if (pid < 0) {
		perror("fork");
		exit(2);
	}
	if (pid == 0) {
		bool ok;

		signal(SIGALRM, hang);
		alarm(HANG_SECONDS);
		ok = faults ? fault_run(seed, settings->ops, settings->fault_call, settings->fault_nth, report)
			: run_seed(seed, settings, report);
		exit(ok ? 0 : 1);
	}
	if (waitpid(pid, &status, 0) != pid)
		exit(2);
	if (report->bug[0] == 0 && WIFSIGNALED(status))
		snprintf(report->bug, sizeof(report->bug), "SIGNAL %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else if (report->bug[0] == 0 && status != 0)
		snprintf(report->bug, sizeof(report->bug), "EXIT %d", WEXITSTATUS(status));
	if (report->bug[0] == 0)
		return true;
	printf("not ok - crash --ops %u --%s %s: %s\n", settings->ops, faults ? "fault" : "case", report->name,
	       report->bug);
	fflush(stdout);
	return false;
}

static void usage(void)
{
	fputs("usage: crash [--seeds N] [--seed S] [--ops N] [--cuts N] [--soak SECONDS] [--faults-only | --cuts-only] "
	      "[--first]\n"
	      "       crash --case SEED:EVENT:POLICY:CHOICE[:EVENT:POLICY:CHOICE] [--ops N]\n"
	      "       crash --fault SEED:CALL:NTH [--ops N]\n",
	      stderr);
	exit(2);
}

static void parse_case(const char *text, struct settings *s)
{
	struct cut *c = s->replay_cut;
	int n = sscanf(text, "%" SCNu64 ":%" SCNu64 ":%u:%" SCNu64 ":%" SCNu64 ":%u:%" SCNu64, &s->seed, &c[0].event,
		       &c[0].policy, &c[0].choice, &c[1].event, &c[1].policy, &c[1].choice);

	if (n != 1 && n != 4 && n != 7)
		usage();
	s->replay = n > 1;
	s->replay_depth = n == 7 ? 2 : 1;
	s->cuts_only = true;
	s->seeds = 1;
}

static void parse_fault(const char *text, struct settings *s)
{
	if (sscanf(text, "%" SCNu64 ":%u:%" SCNu64, &s->seed, &s->fault_call, &s->fault_nth) != 3)
		usage();
	s->fault_call++;
	s->faults_only = true;
	s->seeds = 1;
}

static void parse(int argc, char **argv, struct settings *s)
{
	static const struct option options[] = {
		{"seeds", required_argument, NULL, 'n'}, {"seed", required_argument, NULL, 's'},
		{"ops", required_argument, NULL, 'o'}, {"cuts", required_argument, NULL, 'c'},
		{"soak", required_argument, NULL, 'k'}, {"case", required_argument, NULL, 'e'},
		{"fault", required_argument, NULL, 'f'}, {"faults-only", no_argument, NULL, 'F'},
		{"cuts-only", no_argument, NULL, 'C'}, {"first", no_argument, NULL, '1'}, {0},
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
		default: usage();
		}
	}
	if (optind < argc)
		usage();
}

/* Fixed seeds 1 to half the number, then fresh ones from the drawn (or given) seed on. */
static uint64_t seed_number(const struct settings *s, unsigned i, bool fixed)
{
	return fixed && i < s->seeds / 2 ? i + 1 : s->seed + i;
}

int main(int argc, char **argv)
{
	struct settings s = {.seeds = 24, .cuts = 120, .ops = 40, .most_bad = 10};
	struct rlimit no_core = {0, 0};
	struct report *report;
	struct timespec now;
	unsigned bad = 0, done = 0;
	bool fixed;
	time_t end;

	parse(argc, argv, &s);
	fixed = s.seed == 0;
	clock_gettime(CLOCK_REALTIME, &now);
	if (fixed)
		s.seed = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	setrlimit(RLIMIT_CORE, &no_core);
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (report == MAP_FAILED)
		return 2;
	end = time(NULL) + s.soak_seconds;
	for (unsigned i = 0; bad < s.most_bad && (s.soak_seconds > 0 ? time(NULL) < end : i < s.seeds); i++, done++) {
		if (!s.faults_only && !run_child(seed_number(&s, i, fixed), &s, report, false))
			bad++;
		if (bad < s.most_bad && !s.cuts_only && (s.faults_only || i % 4 == 0) &&
		    !run_child(seed_number(&s, i, fixed), &s, report, true))
			bad++;
	}
	printf("%s - crash: %u seeds (fresh ones from %" PRIu64 "), %" PRIu64 " operations, %" PRIu64
	       " commits, %" PRIu64 " distinct states, %u failed\n",
	       bad > 0 ? "not ok" : "ok", done, s.seed, report->operations, report->commits, report->states, bad);
	return bad > 0;
}
