/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Arrays that grow at their end: a list, the count of its elements, and the size, which is how many it has room for.
 * The three are variables or fields of their owner, zero at first; the owner frees the list. The size doubles, so that
 * adding an element takes constant time on average. Running out of memory ends the process (see base/mem.h).
 */
#ifndef COW_BASE_ARRAY_H
#define COW_BASE_ARRAY_H

#include "base/mem.h"

/* Makes room for one more element than there are; `size` is of any unsigned type that can count them. */
#define COW_ARRAY_GROW(list, count, size)                                                                             \
	do {                                                                                                          \
		if ((count) >= (size)) {                                                                              \
			(size) = (count) < 8 ? 16 : 2 * (count);                                                      \
			(list) = cow_mem_resize((list), (size) * sizeof(*(list)));                                    \
		}                                                                                                     \
	} while (0)

#endif
