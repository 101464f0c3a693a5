/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/format/counters.h"

#include <string.h>

#include "base/bytes.h"
#include "fs/format/record.h"

void cow_counters_encode(const struct cow_counters *c, uint8_t user[COW_SUPER_USER])
{
	memset(user, 0, COW_SUPER_USER);
	put64(user, c->number);
	put64(user + 8, c->colour);
	put64(user + 16, c->chunk);
	memcpy(user + 24, c->hash_key, sizeof(c->hash_key));
}

void cow_counters_decode(const uint8_t user[COW_SUPER_USER], struct cow_counters *c)
{
	c->number = get64(user);
	c->colour = get64(user + 8);
	c->chunk = get64(user + 16);
	memcpy(c->hash_key, user + 24, sizeof(c->hash_key));
}

bool cow_counters_valid(const struct cow_counters *c)
{
	return c->number > COW_ROOT_NUMBER && c->number <= COW_NUMBER_MAX && c->colour != 0 &&
	       c->colour <= COW_NUMBER_MAX && c->chunk <= COW_CHUNK_MAX;
}
