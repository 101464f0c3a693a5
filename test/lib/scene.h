/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A fresh volume on a simulated device, without threads, for a test that calls the library; what fails, fails the
 * test.
 */
#ifndef COW_TEST_SCENE_H
#define COW_TEST_SCENE_H

#include <sys/types.h>

#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "test/lib/op.h"

#define MIB ((uint64_t)1 << 20)
#define KIB ((uint64_t)1 << 10)

struct scene {
	struct cow_dev *disk; /* the simulated device */
	struct cow_volume *volume;
	struct cow_inode *root;
	struct cow_open_options options;
	struct rng rng; /* for the test, which seeds it */
};

/* Formats, and opens with `options`, but without threads. */
struct scene scene_begin_with(uint64_t bytes, struct cow_open_options options);
static inline struct scene scene_begin(uint64_t bytes)
{
	return scene_begin_with(bytes, (struct cow_open_options){0});
}
/* Closes the volume and opens it again: the test has given all its handles back. */
void scene_reopen(struct scene *scene);
/* The same, but as a power cut does it: only what is durable is left. */
void scene_crash(struct scene *scene);
/* Closes it; no commit must have failed, and `cow check` finds nothing. */
void scene_end(struct scene *scene);

/* These hand out a reference. */
struct cow_inode *scene_make(struct cow_inode *dir, const char *name, mode_t mode);
struct cow_inode *scene_find(struct cow_inode *dir, const char *name);
struct cow_inode *scene_clone(struct cow_inode *from, struct cow_inode *dir, const char *name);
/* `stem` and a number, in a buffer that the next call writes over. */
const char *scene_name(const char *stem, unsigned number);

/* All nodes and file data that are clean leave memory, so that whoever wants them has to read them again. */
void scene_empty_cache(struct scene *scene);

#endif
