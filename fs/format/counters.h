/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the volume counts: kept in the user bytes of the superblock. */
#ifndef COW_FS_FORMAT_COUNTERS_H
#define COW_FS_FORMAT_COUNTERS_H

#include <stdbool.h>
#include "store/super.h"

/* In the superblock's user bytes. */
#define COW_NUMBER_MAX (1ull << 62) /* of number and colour: an image that says more was not made by counting */
struct cow_counters {
	uint64_t number;  /* next n, tag or link key: one counter */
	uint64_t colour;  /* next never used */
	uint64_t chunk;
	uint8_t hash_key[16];
};

#define COW_ROOT_NUMBER 1 /* n of the root directory */

void cow_counters_encode(const struct cow_counters *counters, uint8_t user[COW_SUPER_USER]);
void cow_counters_decode(const uint8_t user[COW_SUPER_USER], struct cow_counters *counters);
/* Can a volume have them? */
bool cow_counters_valid(const struct cow_counters *counters);

#endif
