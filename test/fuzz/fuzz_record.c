/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Records of the intent log. Input: the payload. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fs/format/intent.h"
#include "test/fuzz/fuzz.h"

/* What is accepted has one encoding, and its ranges can be taken apart. */
static size_t check_one(const uint8_t *bytes, size_t length)
{
	struct cow_intent_range range;
	struct cow_bytes again = {0};
	struct cow_intent intent;
	struct cow_slice ranges;
	size_t used;
	int error = cow_intent_decode(bytes, length, &intent, &used);

	assert(error == 0 && used > 0 && used <= length);
	cow_intent_encode(&intent, &again);
	assert(again.length == used && memcmp(again.bytes, bytes, used) == 0);
	free(again.bytes);
	ranges = intent.bytes;
	if (intent.type == COW_INTENT_FILE) {
		while (cow_intent_next_range(&ranges, &range))
			assert(range.bytes.length == 0 || range.bytes.bytes[range.bytes.length - 1] <= 0xff);
		assert(ranges.length == 0);
	}
	return used;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cow_intent_head head;

	if (cow_intent_validate(data, size, &head) != 0)
		return 0;
	for (size_t at = COW_INTENT_HEAD; at < size;)
		at += check_one(data + at, size - at);
	return 0;
}
