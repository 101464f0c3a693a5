/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A volume of 64 MiB with everything that the format knows, as a power cut leaves it: files of all kinds of body,
 * devices, short and long symlinks and xattrs, hard links, clones in clones that were entered and changed, a directory
 * of several levels of nodes, inodes that were held open without a name, and a removed tree that waits for reclaim.
 */
#ifndef COW_TEST_LIB_RICH_H
#define COW_TEST_LIB_RICH_H

#include <stdbool.h>

#include "dev/dev.h"

#define RICH_BYTES (64ull << 20)

/* On a simulated device, which is the caller's; not open. */
struct cow_dev *rich_volume(void);
/* The same, with /logged made, /files/of-20000 written over in part and made durable by one fsync; or before that. */
struct cow_dev *rich_volume_logged(bool logged);

#endif
