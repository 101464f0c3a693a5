/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Single bits that rot. One bit of a volume is flipped, before it is opened or while it is open; then everything is
 * looked at and read. What comes back is right, or an error on what lies in that block and nowhere else; never wrong
 * bytes, names or attributes, and never a crash. `cow check` names the block if anything used is in it. When the volume
 * could be written, the same is true after new files, a commit, reclaim and another opening. A repair brings back all
 * but file data, for a bit can be told by the checksum.
 *
 * Then the same with an intent log: a flip in it may lose what the last fsync promised, as a whole, and nothing else.
 *
 * COW_FLIPS=n: so many (1,000). COW_SEED=n: the same ones again. COW_FLIP=block,bit,way: that one.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "audit/check.h"
#include "audit/repair.h"
#include "base/mem.h"
#include "cow.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "test/lib/known.h"
#include "test/lib/owners.h"
#include "test/lib/rich.h"
#include "test/lib/scratch.h"

/* How the volume is met. */
enum {
	WAY_WRITE = 1, /* opened for writing, and changed */
	WAY_OPEN = 2,  /* the bit flips while it is open and in part in memory */
	WAY_REPAIR = 4, /* repaired before it is opened; alone */
	WAYS = 5,
};

enum outcome { HARMLESS, ERRORS, CHECK_ONLY, REFUSED, READ_ONLY, REPAIRED, OLDER, OUTCOMES };
static const char *const outcome_names[OUTCOMES] = {
	"harmless", "EIO where it belongs", "only `cow check` sees it", "refused to open", "opened read-only",
	"repaired", "without the last fsync",
};

static struct scratch *image;
static struct known *known, *older; /* older: without what is in the log */
static struct owners *owners;

/* A clock that makes the same image each time, so that block and bit are enough to come back to one. */
static uint64_t ticks;

int clock_gettime(clockid_t clock, struct timespec *now)
{
	(void)clock;
	*now = (struct timespec){.tv_sec = 1700000000 + (time_t)++ticks};
	return 0;
}

struct flip {
	uint64_t block;
	unsigned bit, way;
	/* what came of it */
	bool wrong;
	unsigned errors, elsewhere, logged;
	bool refused, read_only, repaired, older;
	unsigned findings, named; /* by check: all, and those that name the block */
};

static void complain(struct flip *f, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void complain(struct flip *f, const char *format, ...)
{
	va_list args;

	if (!f->wrong)
		fprintf(stderr, "COW_FLIP=%" PRIu64 ",%u,%u (%s): ", f->block, f->bit, f->way,
			role_name(owners_role(owners, f->block)));
	else
		fputs("  and ", stderr);
	f->wrong = true;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

static void on_log(void *context, enum cow_log_level level, const char *text)
{
	((struct flip *)context)->logged++;
	if (getenv("COW_FLIP") != NULL)
		fprintf(stderr, "log %d: %s\n", (int)level, text);
}

static void on_difference(void *context, enum known_call call, const struct known *at, uint64_t file_block, int error)
{
	static const char *const calls[] = {"lookup", "list", "read", "readlink", "xattrs"};
	struct flip *f = context;

	if (error == 0)
		complain(f, "%s of %s, block %" PRId64 ": wrong", calls[call], at->path, (int64_t)file_block);
	else if (cow_error_errno(error) != EIO)
		complain(f, "%s of %s: %s", calls[call], at->path, cow_error_text(error));
	else if (!owners_allow(owners, f->block, call, at->path, file_block))
		complain(f, "%s of %s, block %" PRId64 ": EIO, but the damage is elsewhere", calls[call], at->path,
			 (int64_t)file_block);
	f->errors++;
}

static void on_finding(void *context, const struct cow_finding *finding)
{
	struct flip *f = context;

	f->findings++;
	f->named += finding->block == f->block;
}

static void check(struct flip *f)
{
	struct cow_check_options options = {.finding = on_finding, .context = f, .data = true};
	struct cow_check_result result;
	struct cow_dev *dev = scratch_attach(image);
	enum role role = owners_role(owners, f->block);
	int error = cow_check_device(dev, &options, &result);

	cow_dev_close(dev);
	if (error != 0 && role != ROLE_UNUSED) /* it could not even begin: that is an answer */
		f->findings++, f->named++;
	else if (error != 0)
		complain(f, "check: %s", cow_error_text(error));
	if ((role == ROLE_UNUSED || role == ROLE_SUPER) && f->findings != 0)
		complain(f, "check: %u findings about what nobody uses", f->findings);
	if (role != ROLE_UNUSED && role != ROLE_SUPER && role != ROLE_COUNTS && f->named == 0)
		complain(f, "check does not name the block");
}

static int open_volume(struct flip *f, bool write, struct cow_volume **volume)
{
	struct cow_open_options options = {.read_only = !write, .no_threads = true, .log = on_log, .log_context = f,
					   .cache_bytes = (f->way & WAY_OPEN) != 0 ? 20 * 4096 : 0};

	return cow_volume_open(scratch_attach(image), &options, volume);
}

static bool is_read_only(struct cow_volume *volume)
{
	struct cow_info info;

	return cow_info(volume, &info) == 0 && info.read_only;
}

/* Some changes; true: they are said to be durable. */
static bool change(struct cow_volume *volume)
{
	static const char text[6000] = "fresh";
	struct cow_inode *root, *file, *old;
	bool durable = false;

	if (cow_root(volume, &root) != 0)
		return false;
	if (cow_create(root, "fresh", &(struct cow_new){.mode = S_IFREG | 0644}, &file, NULL) == 0) {
		durable = cow_write(file, text, sizeof(text), 0, false) == sizeof(text);
		cow_forget(file, 1);
	}
	(void)!cow_clone(root, root, "fresh-clone", 0, NULL, NULL);
	durable = cow_sync(volume) == 0 && durable;
	if (cow_lookup(root, "fresh-clone", &old, NULL) == 0) {
		(void)!cow_remove_tree(old, "many"); /* a part of the clone goes, and its original stays */
		(void)!cow_remove_tree(old, "links");
		cow_forget(old, 1);
	}
	(void)!cow_drain(volume);
	cow_forget(root, 1);
	return durable;
}

static void look_for_fresh(struct flip *f, struct cow_volume *volume)
{
	static char text[6001];
	struct cow_inode *file;

	if (cow_lookup_path(volume, "/fresh", &file) != 0) {
		if (!owners_allow(owners, f->block, KNOWN_LOOKUP, "", 0))
			complain(f, "what was synced is gone");
		return;
	}
	if (cow_read(file, text, sizeof(text), 0) != 6000 || memcmp(text, "fresh", 6) != 0)
		complain(f, "what was synced is not what was written");
	cow_forget(file, 1);
}

/* What was there is there after the changes, too; the damage may be met for the first time now, or be gone. */
static void look_again(struct flip *f, bool durable)
{
	struct cow_volume *volume;

	if (open_volume(f, false, &volume) != 0) {
		if (owners_role(owners, f->block) != ROLE_TOP) /* which was in memory */
			complain(f, "does not open any more after changes");
		return;
	}
	known->loose = true;
	if (known_compare(volume, known, on_difference, f) != 0)
		complain(f, "no root any more after changes");
	known->loose = false;
	if (durable)
		look_for_fresh(f, volume);
	(void)!cow_close(volume);
}

/* Nothing is missing after a repair but blocks of files. */
static void repair(struct flip *f)
{
	struct cow_repair_result result;
	struct cow_dev *dev = scratch_attach(image);
	enum role role = owners_role(owners, f->block);
	struct flip after = {.block = f->block, .bit = f->bit, .way = f->way};
	struct cow_volume *volume;
	int error = cow_repair_device(dev, NULL, &result);

	cow_dev_close(dev);
	if (error != 0 || result.left != 0 || result.losses != 0) {
		complain(f, "repair: %s, %u left, %u lost", cow_error_text(error), (unsigned)result.left,
			 (unsigned)result.losses);
		return;
	}
	f->repaired = result.written;
	if (open_volume(&after, false, &volume) != 0) {
		complain(f, "does not open after the repair");
		return;
	}
	(void)!known_compare(volume, known, on_difference, &after);
	if (after.wrong || (after.errors != 0 && role != ROLE_DATA))
		complain(f, "%u errors are left after the repair", after.errors);
	f->errors = after.errors;
	(void)!cow_close(volume);
}

static void use(struct flip *f)
{
	bool write = (f->way & WAY_WRITE) != 0, durable;
	struct cow_volume *volume;
	int error;

	if ((f->way & WAY_OPEN) == 0) {
		scratch_flip(image, f->block, f->bit);
		check(f);
	}
	if (f->way == WAY_REPAIR) {
		repair(f);
		return;
	}
	error = open_volume(f, write, &volume);
	if (error != 0) {
		f->refused = true;
		if (cow_error_errno(error) != EIO || owners_role(owners, f->block) != ROLE_TOP)
			complain(f, "open: %s", cow_error_text(error));
		return;
	}
	if ((f->way & WAY_OPEN) != 0) {
		if (known_compare(volume, known, on_difference, f) != 0 || f->errors != 0)
			complain(f, "an error before the bit was flipped");
		scratch_flip(image, f->block, f->bit);
	}
	f->read_only = write && is_read_only(volume);
	if (known_compare(volume, known, on_difference, f) != 0)
		complain(f, "no root");
	durable = write && change(volume);
	if (write && !durable && !is_read_only(volume) && owners_role(owners, f->block) != ROLE_NUMBERS &&
	    !owners_allow(owners, f->block, KNOWN_LIST, "", 0))
		complain(f, "changes fail, but the volume is not read-only");
	error = cow_close(volume);
	if (error != 0 && (!write || cow_error_errno(error) != EIO))
		complain(f, "close: %s", cow_error_text(error));
	if (write)
		look_again(f, durable);
}

static enum outcome outcome_of(const struct flip *f)
{
	if (f->refused)
		return REFUSED;
	if (f->repaired)
		return REPAIRED;
	if (f->older)
		return OLDER;
	if (f->read_only)
		return READ_ONLY;
	if (f->errors != 0)
		return ERRORS;
	return f->findings != 0 ? CHECK_ONLY : HARMLESS;
}

/* ------------------------------------------------------------------ many */

static uint64_t random_state;

static uint64_t any(uint64_t below)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return (z ^ z >> 31) % below;
}

/* Any block one time in ten; else a kind of block, all alike, however few there are. */
static void choose(struct flip *f)
{
	enum role role = any(10) == 0 ? ROLE_UNUSED : (enum role)any(ROLES);
	uint64_t count = owners_count(owners, role);

	f->block = role == ROLE_UNUSED || count == 0 ? any(RICH_BYTES / 4096) : owners_nth(owners, role, any(count));
	f->bit = (unsigned)any(8 * (role == ROLE_SUPER && any(2) == 0 ? 512 : 4096));
	f->way = (unsigned)any(WAYS);
}

struct tally {
	unsigned outcomes[ROLES][OUTCOMES];
	unsigned sums[OUTCOMES];
	unsigned wrong;
};

static void run(struct flip *f, struct tally *tally, void (*way)(struct flip *))
{
	enum role role = owners_role(owners, f->block);

	way(f);
	scratch_reset(image);
	tally->outcomes[role][outcome_of(f)]++;
	tally->sums[outcome_of(f)]++;
	tally->wrong += f->wrong;
}

static void report(const struct tally *tally)
{
	for (int o = 0; o < OUTCOMES; o++) {
		print_message("%6u %s:", tally->sums[o], outcome_names[o]);
		for (int role = 0; role < ROLES; role++)
			if (tally->outcomes[role][o] != 0)
				print_message(" %s %u,", role_name((enum role)role), tally->outcomes[role][o]);
		print_message("\n");
	}
}

static void test_flips(void **state)
{
	const char *one = getenv("COW_FLIP"), *flips = getenv("COW_FLIPS"), *seed = getenv("COW_SEED");
	unsigned count = flips != NULL ? (unsigned)atoi(flips) : 1000;
	struct tally tally = {0};
	struct flip f = {0};

	(void)state;
	if (one != NULL) {
		assert_int_equal(sscanf(one, "%" SCNu64 ",%u,%u", &f.block, &f.bit, &f.way), 3);
		run(&f, &tally, use);
		report(&tally);
		assert_false(f.wrong);
		return;
	}
	random_state = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid() % 1000;
	print_message("COW_SEED=%" PRIu64 " COW_FLIPS=%u\n", random_state, count);
	for (unsigned i = 0; i < count && tally.wrong < 10; i++) {
		f = (struct flip){0};
		choose(&f);
		run(&f, &tally, use);
	}
	report(&tally);
	assert_int_equal(tally.wrong, 0);
}

/* ------------------------------------------------------------------ with a log */

static void count_difference(void *context, enum known_call call, const struct known *at, uint64_t block, int error)
{
	(void)call, (void)at, (void)block, (void)error;
	++*(unsigned *)context;
}

/* What the log changed is its own business: the blocks are those of before. */
static bool log_changed(const char *path)
{
	return path[0] == 0 || strcmp(path, "/files") == 0 || strncmp(path, "/logged", 7) == 0 ||
	       strcmp(path, "/files/of-20000") == 0;
}

static void on_logged_difference(void *context, enum known_call call, const struct known *at, uint64_t file_block,
				 int error)
{
	if (error != 0 && cow_error_errno(error) == EIO && log_changed(at->path))
		((struct flip *)context)->errors++;
	else
		on_difference(context, call, at, file_block, error);
}

static void use_log(struct flip *f)
{
	enum role role = owners_role(owners, f->block);
	unsigned from_new = 0, from_older = 0;
	struct cow_volume *volume;
	int error;

	scratch_flip(image, f->block, f->bit);
	error = open_volume(f, (f->way & WAY_WRITE) != 0, &volume);
	if (error != 0) { /* to do again what the log says needs what is damaged */
		f->refused = true;
		if (cow_error_errno(error) != EIO || role == ROLE_UNUSED || role == ROLE_SUPER || role == ROLE_LOG ||
		    role == ROLE_ORPHANS || role == ROLE_RECLAIM || role == ROLE_DEAD_NODE || role == ROLE_DEAD_DATA)
			complain(f, "open: %s", cow_error_text(error));
		return;
	}
	f->read_only = (f->way & WAY_WRITE) != 0 && is_read_only(volume);
	/* without counts nothing can be done again, not even in memory: then it says that it is older */
	if (role == ROLE_LOG || role == ROLE_COUNTS) {
		(void)!known_compare(volume, known, count_difference, &from_new);
		(void)!known_compare(volume, older, count_difference, &from_older);
		f->older = from_new != 0;
		if (from_new != 0 && role == ROLE_COUNTS && f->logged == 0)
			complain(f, "it does not say that it is older");
		if (from_new != 0 && from_older != 0)
			complain(f, "neither with the log nor without: %u and %u differences", from_new, from_older);
	} else {
		(void)!known_compare(volume, known, on_logged_difference, f);
	}
	(void)!cow_close(volume);
}

static struct known *read_known(void)
{
	struct cow_volume *volume;
	struct known *k = NULL;
	struct flip none = {0};

	if (open_volume(&none, false, &volume) == 0) {
		k = known_read(volume);
		(void)!cow_close(volume);
	}
	return k;
}

static int setup_log(void **state)
{
	struct cow_dev *dev;

	(void)state;
	ticks = 0;
	dev = rich_volume_logged(false);
	image = scratch_new(dev);
	cow_dev_close(dev);
	older = read_known();
	scratch_free(image);
	ticks = 0;
	dev = rich_volume_logged(true);
	image = scratch_new(dev);
	owners = owners_read(dev);
	cow_dev_close(dev);
	known = read_known();
	return known == NULL || older == NULL;
}

static void test_log(void **state)
{
	const char *one = getenv("COW_LOG_FLIP"), *flips = getenv("COW_FLIPS"), *seed = getenv("COW_SEED");
	unsigned count = (flips != NULL ? (unsigned)atoi(flips) : 1000) / 4;
	struct tally tally = {0};
	struct flip f = {0};

	(void)state;
	assert_null(known_find(older, "/logged"));
	assert_non_null(known_find(known, "/logged"));
	assert_true(owners_count(owners, ROLE_LOG) > 0);
	random_state = seed != NULL ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) * 1000 + (uint64_t)getpid() % 1000;
	print_message("COW_SEED=%" PRIu64 " COW_FLIPS=%u, the complaints' COW_FLIP is a COW_LOG_FLIP\n", random_state,
		      4 * count);
	for (unsigned i = 0; i < count && tally.wrong < 10; i++) {
		f = (struct flip){0};
		choose(&f);
		f.way &= WAY_WRITE;
		if (one != NULL)
			assert_int_equal(sscanf(one, "%" SCNu64 ",%u,%u", &f.block, &f.bit, &f.way), 3);
		run(&f, &tally, use_log);
		if (one != NULL)
			break;
	}
	report(&tally);
	assert_int_equal(tally.wrong, 0);
}

/* Without a flip nothing is found: else the test would prove nothing. And every role is there. */
static void test_sound(void **state)
{
	struct flip f = {0};
	struct cow_volume *volume;

	(void)state;
	for (int role = 0; role < ROLES; role++)
		if (role != ROLE_LOG && owners_count(owners, (enum role)role) == 0)
			fail_msg("the volume has no block of the kind %s", role_name((enum role)role));
	check(&f);
	f.named = 0;
	assert_int_equal(f.findings, 0);
	assert_int_equal(open_volume(&f, false, &volume), 0);
	assert_int_equal(known_compare(volume, known, on_difference, &f), 0);
	assert_int_equal(f.errors, 0);
	assert_int_equal(cow_close(volume), 0);
}

static int setup(void **state)
{
	struct cow_open_options options = {.read_only = true, .no_threads = true};
	struct cow_dev *dev = rich_volume();
	struct cow_volume *volume;

	(void)state;
	image = scratch_new(dev);
	owners = owners_read(dev);
	cow_dev_close(dev);
	if (cow_volume_open(scratch_attach(image), &options, &volume) != 0)
		return -1;
	known = known_read(volume);
	return cow_close(volume);
}

static int teardown(void **state)
{
	(void)state;
	known_free(known);
	known_free(older);
	known = older = NULL;
	owners_free(owners);
	scratch_free(image);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_sound), cmocka_unit_test(test_flips)};
	const struct CMUnitTest log_tests[] = {cmocka_unit_test(test_log)};
	int failed = cmocka_run_group_tests(tests, setup, teardown);

	if (getenv("COW_FLIP") == NULL)
		failed += cmocka_run_group_tests(log_tests, setup_log, teardown);
	return failed;
}
