/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whole images. Input: u8 flags, u16 seed of what is done with the volume, then changes of the image (mutate.c). The
 * image is checked, dumped, opened, walked, changed everywhere, closed, and checked once more.
 */
#include <stdio.h>
#include <stdlib.h>

#include "test/fuzz/fuzz.h"
#include "test/lib/exercise.h"

enum { /* flags */
	READ_ONLY = 1,
	HUGE_DEVICE = 2,  /* sparse; else it is as long as the base image */
	TRUE_SUMS = 4,    /* checksums do not fit what was changed */
	SMALL_CACHE = 8,
	REPAIR = 16,      /* before it is used */
};

struct base {
	struct fuzz_disk *disk;
	struct fuzz_mutate *mutate;
};

static void load(struct base *base, const char *path)
{
	const char *from = getenv("FUZZ_BASE_DIR");
	char name[4096];

	snprintf(name, sizeof(name), "%s/%s", from != NULL ? from : "test/fuzz", path);
	base->disk = fuzz_disk_load(name);
	if (base->disk == NULL)
		exit(2);
	base->mutate = fuzz_mutate_new(base->disk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct base blind, with_sums;
	struct fuzz_input in = {data, size};
	const char *more = getenv("FUZZ_FLAGS"); /* for all inputs */
	unsigned flags = (unsigned)fuzz_take(&in, 1) | (more != NULL ? (unsigned)atoi(more) : 0);
	struct base *base = flags & TRUE_SUMS ? &with_sums : &blind;
	struct exercise exercise = {.writable = !(flags & READ_ONLY), .seed = fuzz_take(&in, 2), .looks = 400,
				    .changes = 40,
				    .cache_bytes = flags & SMALL_CACHE ? 64 << 10 : 4 << 20};

	fuzz_blind = !(flags & TRUE_SUMS);
	if (base->disk == NULL)
		load(base, fuzz_blind ? "base.blind" : "base.true");
	fuzz_disk_reset(base->disk, flags & HUGE_DEVICE ? FUZZ_HUGE_BYTES : 0);
	for (unsigned i = 0; i < 64 && fuzz_mutate_one(base->mutate, &in); i++)
		;
	exercise_offline(fuzz_disk_dev(base->disk));
	if (flags & REPAIR)
		exercise_repair(fuzz_disk_dev(base->disk));
	exercise_volume(fuzz_disk_dev(base->disk), &exercise);
	exercise_offline(fuzz_disk_dev(base->disk));
	fuzz_disk_reset(base->disk, 0);
	return 0;
}
