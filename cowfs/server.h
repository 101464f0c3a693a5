/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The daemon behind a mount: alive, dead, or neither.  Built without FUSE too. */
#ifndef COWFS_SERVER_H
#define COWFS_SERVER_H

#include <stdbool.h>

/* The process that has taken a lock on the image, or 0: the kernel shows only those of our process id name space.  It
 * may have ended, and left the lock to those who have its descriptor. */
int cowfs_server_holder(const char *image);
/* The process id of a killed daemon that still holds its lock on the image, or 0.  Touches no mount. */
int cowfs_server_dying(const char *image);
/* The same, when it has had its time. */
int cowfs_server_stuck(const char *image);
/* Whether there is no daemon any more behind the mount on `dir`.  Only for who knows that none is stuck there. */
bool cowfs_server_dead(const char *dir);
/* Where `image` (absolute) is mounted and served: a string to free, or NULL. */
char *cowfs_server_point(const char *image);

#endif
