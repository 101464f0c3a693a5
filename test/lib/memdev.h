/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device in private memory that can be closed and opened again. A forked child has a copy of its own, so that a
 * test can look ahead in a child and go on in the parent as if nothing had happened.
 */
#ifndef COW_TEST_LIB_MEMDEV_H
#define COW_TEST_LIB_MEMDEV_H

#include "dev/dev.h"

struct memdev;

struct memdev *memdev_new(uint64_t size_bytes);
void memdev_free(struct memdev *memdev);
/* A handle on it; cow_dev_close() frees the handle only. */
struct cow_dev *memdev_attach(void *memdev);

#endif
