/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *cow_mem_insist(void *p)
{
	if (p != NULL)
		return p;
	fputs("libcow: out of memory; the volume is at its last commit\n", stderr);
	abort();
}

void *cow_mem_new(size_t size)
{
	return cow_mem_insist(calloc(1, size != 0 ? size : 1));
}

void *cow_mem_resize(void *p, size_t size)
{
	return cow_mem_insist(realloc(p, size != 0 ? size : 1));
}

void *cow_mem_copy(const void *p, size_t size)
{
	void *copy = cow_mem_new(size);

	if (size != 0)
		memcpy(copy, p, size);
	return copy;
}
