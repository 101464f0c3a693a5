/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The intent log, checked: its records are well formed, and can be done again on the generation that is there. */
#include <errno.h>
#include <inttypes.h>

#include "audit/check_walk.h"
#include "cow.h"
#include "dev/dev_overlay.h"
#include "fs/core/volume.h"
#include "fs/format/intent.h"
#include "fs/open.h"

struct records {
	struct cow_check *check;
	unsigned bad;
};

static int look(void *context, const uint8_t *payload, size_t length)
{
	struct records *records = context;
	struct cow_check *c = records->check;
	struct cow_intent_head head;
	struct cow_intent intent;
	size_t used;

	if (cow_intent_validate(payload, length, &head) != 0) {
		records->bad++;
		cow_check_say(c, COW_FIND_LOG_RECORD, 0, "a record of the intent log is malformed");
		return 0;
	}
	for (size_t at = COW_INTENT_HEAD; at < length; at += used) {
		(void)!cow_intent_decode(payload + at, length - at, &intent, &used);
		if (intent.generation > c->super.generation)
			c->result->intents++;
	}
	return 0;
}

static void ignore(void *context, enum cow_log_level level, const char *text)
{
	(void)context, (void)level, (void)text;
}

/* As the next mount will do it, but in memory. */
static int replay(struct cow_check *c)
{
	struct cow_open_options options = {.read_only = true, .no_threads = true, .log = ignore};
	struct cow_volume *volume;
	int error = cow_volume_open(cow_overlay_new(c->dev), &options, &volume);

	return error == 0 ? cow_close(volume) : error;
}

int cow_check_log(struct cow_check *c)
{
	struct records records = {.check = c};
	uint64_t end;
	int error = cow_log_read(c->dev, &c->super, look, &records, &end);

	if (error == -EIO) {
		cow_check_say(c, COW_FIND_NODE_READ, 0, "the intent log cannot be read");
		return 0;
	}
	if (error == 0 && records.bad == 0 && end != c->super.log.position && c->result->findings == 0)
		if (replay(c) != 0)
			cow_check_say(c, COW_FIND_LOG_REPLAY, 0,
				      "the intent log, %" PRIu64 " operations, cannot be replayed", c->result->intents);
	return error;
}
