/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef COW_FS_OPEN_H
#define COW_FS_OPEN_H

#include "fs/core/volume.h"

/* For tests: on any device, which the volume then owns. */
int cow_volume_open(struct cow_dev *dev, const struct cow_open_options *options, struct cow_volume **volume);
/* For tests: throws everything away that is not durable, as a crash does. Closes the device too. */
void cow_volume_abandon(struct cow_volume *volume);

#endif
