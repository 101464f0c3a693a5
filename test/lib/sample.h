/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A small volume with a bit of everything: files of all kinds of body, xattrs, hard links, clones that were entered. */
#ifndef COW_TEST_LIB_SAMPLE_H
#define COW_TEST_LIB_SAMPLE_H

#include "dev/dev.h"

#define SAMPLE_BYTES (64ull << 20)

/* On a simulated device, which is the caller's; not open. */
struct cow_dev *sample_volume(void);

#endif
