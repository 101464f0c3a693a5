/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "test/crash/crash.h"

#define PROBES 64u

static struct {
	_Atomic uint64_t *slots;
	uint64_t mask;
} set;

void distinct_begin(unsigned bits)
{
	set.mask = (1ull << bits) - 1;
	set.slots = mmap(NULL, sizeof(*set.slots) << bits, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (set.slots == MAP_FAILED) {
		perror("mmap");
		exit(2);
	}
}

bool distinct_add(uint64_t hash)
{
	hash += hash == 0;
	for (uint64_t i = 0; i < PROBES; i++) {
		uint64_t there = 0;

		if (atomic_compare_exchange_strong(&set.slots[(hash + i) & set.mask], &there, hash))
			return true;
		if (there == hash)
			return false;
	}
	return false;
}
