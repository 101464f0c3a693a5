/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz targets: each fuzz_NAME.c is a program of its own, with libFuzzer (make fuzz) or with main.c, which feeds it the
 * files of the corpus (make tests).
 *
 * CHECKSUMS. XXH3 is no defence against somebody who writes an image: he can make any checksum fit, also that of a
 * node which leads to itself. So these programs have an XXH3_64bits() of their own (hash.c) that says the same for all
 * bytes, and every mutation gets behind the checksums without anything being sealed again.
 */
#ifndef COW_TEST_FUZZ_FUZZ_H
#define COW_TEST_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dev/dev.h"
#include "store/layout.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* False at the start: checksums are what they should be. */
extern bool fuzz_blind;

/* ---- input, taken from the front; zeros when there is no more */
struct fuzz_input {
	const uint8_t *at;
	size_t left;
};
uint64_t fuzz_take(struct fuzz_input *in, unsigned bytes);

/* ---- disk.c: a sparse device in memory that starts as a base image from a file, and is brought back to it */
struct fuzz_disk;
#define FUZZ_HUGE_BYTES (1ull << 49)
/* Blocks of a file made by base.c; NULL if it cannot be read. */
struct fuzz_disk *fuzz_disk_load(const char *path);
struct cow_dev *fuzz_disk_dev(struct fuzz_disk *disk);
/* As in the file again. size_bytes 0: its own. */
void fuzz_disk_reset(struct fuzz_disk *disk, uint64_t size_bytes);
/* A block, to be changed in place. */
uint8_t *fuzz_disk_block(struct fuzz_disk *disk, uint64_t block);
int fuzz_disk_save(struct cow_dev *dev, const uint8_t *used, uint64_t blocks, const char *path);

/* ---- mutate.c: changes that know the format */
struct fuzz_mutate;
struct fuzz_mutate *fuzz_mutate_new(struct fuzz_disk *disk);
/* Does one change that the input asks for. False: the input is at its end. */
bool fuzz_mutate_one(struct fuzz_mutate *m, struct fuzz_input *in);

#endif
