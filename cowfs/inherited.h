/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the daemon has from who started it and must not keep. */
#ifndef COWFS_INHERITED_H
#define COWFS_INHERITED_H

#include <stdbool.h>

/*
 * Lets all signals through, and none is ignored but SIGPIPE and SIGXFSZ.  `keep`: nor those that a shell or nohup(1)
 * has a command ignore so that it goes on when others are interrupted.
 */
void cowfs_inherited_signals(bool keep);
/* Closes everything but the standard descriptors and *fd, which gets another number. */
void cowfs_inherited_close(int *fd);

#endif
