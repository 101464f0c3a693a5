/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How the scheduler treats the threads that serve requests. */
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cowfs/slice.h"

#define SLICE_NANOSECONDS 100000

/* As sched_setattr(2) takes it; its header clashes with the C library's. */
struct schedule {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

void cowfs_slice_shorten(void)
{
	struct schedule schedule;

	if (syscall(SYS_sched_getattr, 0, &schedule, (unsigned)sizeof(schedule), 0U) || schedule.policy != SCHED_OTHER)
		return;
	schedule.runtime = SLICE_NANOSECONDS;
	syscall(SYS_sched_setattr, 0, &schedule, 0U);
}
