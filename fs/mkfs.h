/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef COW_FS_MKFS_H
#define COW_FS_MKFS_H

#include "fs/core/volume.h"

/* For tests: makes a volume on any device, which stays the caller's. */
int cow_volume_format(struct cow_dev *dev, const struct cow_format_options *options);

#endif
