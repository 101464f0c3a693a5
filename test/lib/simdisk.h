/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Handles on a simulated device that outlives them: a volume owns and closes its device, a test wants it afterwards. */
#ifndef COW_TEST_LIB_SIMDISK_H
#define COW_TEST_LIB_SIMDISK_H

#include "dev/dev_sim.h"

/* A handle on `sim` (a struct cow_dev); cow_dev_close() frees the handle only. */
struct cow_dev *simdisk_attach(void *sim);
/* A formatted simulated device whose content is durable. Exits on failure. */
struct cow_dev *simdisk_format(uint64_t size_bytes);

#endif
