/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which library runs: a program may have been compiled with the header of another one. */
#include "cow.h"
#include "store/super.h"

const char *cow_version(void)
{
	return COW_VERSION;
}

uint32_t cow_format_version(void)
{
	return COW_FORMAT_VERSION;
}
