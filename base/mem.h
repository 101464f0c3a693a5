/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory for small objects that are made in the middle of a change, where failing would leave it half done.
 * Running out of it ends the process with a message: the volume is then at its last commit, as after a crash.
 * Buffers whose size a caller or an image decides come from malloc and answer -ENOMEM.
 */
#ifndef COW_BASE_MEM_H
#define COW_BASE_MEM_H

#include <stddef.h>

void *cow_mem_insist(void *p) __attribute__((returns_nonnull)); /* p, unless that is NULL */
void *cow_mem_new(size_t size) __attribute__((malloc, returns_nonnull)); /* zeroed */
void *cow_mem_resize(void *p, size_t size) __attribute__((returns_nonnull));
void *cow_mem_copy(const void *p, size_t size) __attribute__((returns_nonnull));

#endif
