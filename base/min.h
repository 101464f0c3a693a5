/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef COW_BASE_MIN_H
#define COW_BASE_MIN_H

#include <stdint.h>

static inline uint64_t cow_min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

#endif
