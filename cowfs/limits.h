/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The resource limits that the daemon has from who started it. */
#ifndef COWFS_LIMITS_H
#define COWFS_LIMITS_H

#include <stdint.h>

/* Raises what can be raised, and says one line for each limit that may end the daemon nevertheless. */
void cowfs_limits_raise(void);
/* The memory that may be used, if that is limited; else UINT64_MAX. */
uint64_t cowfs_limits_memory(void);

#endif
