/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages: to the terminal as long as there is one, then to syslog. */
#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>

#include "cowfs/mount.h"

void cowfs_log(void *context, enum cow_log_level level, const char *text)
{
	static const int priorities[] = {[COW_LOG_INFO] = LOG_INFO, [COW_LOG_WARNING] = LOG_WARNING,
					 [COW_LOG_ERROR] = LOG_ERR};
	struct cowfs *fs = context;

	if (atomic_load(&fs->detached))
		syslog(priorities[level], "%s: %s", fs->image, text);
	else
		fprintf(stderr, "cow: %s\n", text);
}

void cowfs_complain(const char *format, ...)
{
	va_list args;

	fputs("cow mount: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}
