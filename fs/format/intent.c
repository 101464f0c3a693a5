/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/format/intent.h"

#include <assert.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "cow.h"

#define HEADER 36u /* u32 length, u8 type, u8[3] 0, u64 generation, u64 number, when */
#define ATTR_FLAGS (COW_SET_MODE | COW_SET_UID | COW_SET_GID | COW_SET_ATIME | COW_SET_MTIME | COW_SET_BTIME)
#define RENAME_FLAGS (COW_RENAME_NOREPLACE | COW_RENAME_EXCHANGE)

/* ------------------------------------------------------------------ writing */

void cow_bytes_add(struct cow_bytes *to, const void *bytes, size_t length)
{
	if (to->size - to->length < length) {
		to->size = 2 * to->size + length + 256;
		to->bytes = cow_mem_resize(to->bytes, to->size);
	}
	if (length != 0)
		memcpy(to->bytes + to->length, bytes, length);
	to->length += length;
}

static void add8(struct cow_bytes *to, uint8_t value)
{
	cow_bytes_add(to, &value, 1);
}

static void add32(struct cow_bytes *to, uint32_t value)
{
	uint8_t bytes[4];

	put32(bytes, value);
	cow_bytes_add(to, bytes, sizeof(bytes));
}

static void add64(struct cow_bytes *to, uint64_t value)
{
	uint8_t bytes[8];

	put64(bytes, value);
	cow_bytes_add(to, bytes, sizeof(bytes));
}

static void add_when(struct cow_bytes *to, struct cow_when when)
{
	add64(to, (uint64_t)when.seconds);
	add32(to, when.nanoseconds);
}

static void add_slice(struct cow_bytes *to, struct cow_slice slice)
{
	add32(to, slice.length);
	cow_bytes_add(to, slice.bytes, slice.length);
}

static void add_name(struct cow_bytes *to, struct cow_slice name)
{
	add8(to, (uint8_t)name.length);
	cow_bytes_add(to, name.bytes, name.length);
}

static void add_spot(struct cow_bytes *to, const struct cow_spot *spot)
{
	add8(to, spot->linked ? 1 : 0);
	add8(to, spot->depth);
	add64(to, spot->number);
	for (unsigned i = 0; i < spot->depth; i++)
		add64(to, spot->keys[i]);
}

static void add_owner(struct cow_bytes *to, const struct cow_intent *intent)
{
	add32(to, intent->mode);
	add32(to, intent->uid);
	add32(to, intent->gid);
}

static void add_times(struct cow_bytes *to, const struct cow_intent *intent)
{
	add_when(to, intent->atime);
	add_when(to, intent->mtime);
	add_when(to, intent->ctime);
	add_when(to, intent->btime);
}

static void add_row(struct cow_bytes *to, const struct cow_row *row)
{
	add8(to, row->type);
	add64(to, row->a);
	add64(to, row->b);
	add64(to, row->value);
}

static void add_body(struct cow_bytes *to, const struct cow_intent *intent)
{
	if (intent->type == COW_INTENT_ROW) {
		add_row(to, &intent->row);
		return;
	}
	add_spot(to, &intent->spot);
	switch (intent->type) {
	case COW_INTENT_CREATE:
		add_name(to, intent->name);
		add_owner(to, intent);
		add32(to, intent->rdev);
		add_slice(to, intent->bytes);
		break;
	case COW_INTENT_LINK:
		add_spot(to, &intent->to);
		add_name(to, intent->name);
		break;
	case COW_INTENT_RENAME:
		add_name(to, intent->name);
		add_spot(to, &intent->to);
		add_name(to, intent->to_name);
		add32(to, intent->flags);
		break;
	case COW_INTENT_ATTR:
		add32(to, intent->flags);
		add_owner(to, intent);
		add_times(to, intent);
		break;
	case COW_INTENT_SET_XATTR:
		add_name(to, intent->name);
		add_slice(to, intent->bytes);
		break;
	case COW_INTENT_FILE:
		add64(to, intent->low);
		add64(to, intent->size);
		add_owner(to, intent);
		add_times(to, intent);
		add_slice(to, intent->bytes);
		break;
	default:
		add_name(to, intent->name);
		break;
	}
}

void cow_intent_encode(const struct cow_intent *intent, struct cow_bytes *to)
{
	size_t start = to->length;

	add32(to, 0);
	add32(to, (uint32_t)intent->type);
	add64(to, intent->generation);
	add64(to, intent->number);
	add_when(to, intent->now);
	assert(to->length - start == HEADER);
	add_body(to, intent);
	put32(to->bytes + start, (uint32_t)(to->length - start));
}

void cow_intent_add_range(struct cow_bytes *to, uint64_t offset, const void *bytes, uint32_t length)
{
	add64(to, offset);
	add32(to, length);
	cow_bytes_add(to, bytes, length);
}

void cow_intent_head_encode(const struct cow_intent_head *head, struct cow_bytes *to)
{
	add64(to, head->number);
	add64(to, head->colour);
	add64(to, head->chunk);
}

/* ------------------------------------------------------------------ reading */

/* Takes from the front; once something is not there or not in range, everything that follows is zero. */
struct reader {
	const uint8_t *at;
	size_t left;
	bool bad;
};

static const uint8_t *take(struct reader *r, size_t length)
{
	static const uint8_t zeros[8];
	const uint8_t *at = r->at;

	if (r->bad || r->left < length) {
		r->bad = true;
		return length <= sizeof(zeros) ? zeros : NULL;
	}
	r->at += length;
	r->left -= length;
	return at;
}

static void expect(struct reader *r, bool holds)
{
	if (!holds)
		r->bad = true;
}

static uint8_t take8(struct reader *r)
{
	return take(r, 1)[0];
}

static uint32_t take32(struct reader *r)
{
	return get32(take(r, 4));
}

static uint64_t take64(struct reader *r)
{
	return get64(take(r, 8));
}

static struct cow_when take_when(struct reader *r)
{
	struct cow_when when = {(int64_t)take64(r), 0};

	when.nanoseconds = take32(r);
	expect(r, when.nanoseconds < 1000000000);
	return when;
}

static struct cow_slice take_bytes(struct reader *r, uint32_t length)
{
	struct cow_slice slice = {take(r, length), length};

	return r->bad ? (struct cow_slice){NULL, 0} : slice;
}

static struct cow_slice take_slice(struct reader *r)
{
	return take_bytes(r, take32(r));
}

/* A name of an entry, or of an attribute. */
static struct cow_slice take_name(struct reader *r, bool entry)
{
	struct cow_slice name = take_bytes(r, take8(r));

	expect(r, name.length != 0);
	if (r->bad)
		return name;
	expect(r, memchr(name.bytes, 0, name.length) == NULL);
	if (entry) {
		expect(r, memchr(name.bytes, '/', name.length) == NULL);
		expect(r, name.bytes[0] != '.' || name.length > 2 || (name.length == 2 && name.bytes[1] != '.'));
	}
	return name;
}

static void take_spot(struct reader *r, struct cow_spot *spot)
{
	uint8_t linked = take8(r);

	spot->depth = take8(r);
	spot->number = take64(r);
	spot->linked = linked == 1;
	expect(r, linked <= 1 && spot->depth <= COW_SPOT_DEPTH && spot->depth >= linked && spot->number != 0);
	for (unsigned i = 0; i < spot->depth && !r->bad; i++)
		spot->keys[i] = take64(r);
}

static void take_owner(struct reader *r, struct cow_intent *intent)
{
	intent->mode = take32(r);
	intent->uid = take32(r);
	intent->gid = take32(r);
}

static void take_times(struct reader *r, struct cow_intent *intent)
{
	intent->atime = take_when(r);
	intent->mtime = take_when(r);
	intent->ctime = take_when(r);
	intent->btime = take_when(r);
}

static void take_row(struct reader *r, struct cow_row *row)
{
	row->type = take8(r);
	row->a = take64(r);
	row->b = take64(r);
	row->value = take64(r);
	expect(r, row->type == COW_ROW_COLOUR || row->type == COW_ROW_CHUNK);
}

static void check_create(struct reader *r, const struct cow_intent *intent)
{
	uint32_t type = intent->mode & S_IFMT;

	expect(r, (intent->mode & ~(uint32_t)(S_IFMT | 07777)) == 0);
	expect(r, type == S_IFREG || type == S_IFDIR || type == S_IFCHR || type == S_IFBLK || type == S_IFIFO ||
			  type == S_IFSOCK || type == S_IFLNK);
	expect(r, (intent->bytes.length != 0) == (type == S_IFLNK));
	expect(r, intent->bytes.length <= COW_SYMLINK_MAX);
	if (!r->bad && type == S_IFLNK)
		expect(r, memchr(intent->bytes.bytes, 0, intent->bytes.length) == NULL);
}

static void check_file(struct reader *r, const struct cow_intent *intent)
{
	struct reader ranges = {intent->bytes.bytes, intent->bytes.length, false};

	expect(r, S_ISREG(intent->mode) || intent->bytes.length == 0);
	expect(r, intent->size <= COW_FILE_SIZE_MAX && (intent->mode & ~(uint32_t)(S_IFMT | 07777)) == 0);
	while (ranges.left > 0 && !ranges.bad) {
		uint64_t offset = take64(&ranges);
		uint32_t length = take32(&ranges);

		take_bytes(&ranges, length);
		expect(&ranges, length != 0 && offset <= intent->size && length <= intent->size - offset);
	}
	expect(r, !ranges.bad);
}

static void take_body(struct reader *r, struct cow_intent *intent)
{
	if (intent->type == COW_INTENT_ROW) {
		take_row(r, &intent->row);
		return;
	}
	take_spot(r, &intent->spot);
	switch (intent->type) {
	case COW_INTENT_CREATE:
		intent->name = take_name(r, true);
		take_owner(r, intent);
		intent->rdev = take32(r);
		intent->bytes = take_slice(r);
		check_create(r, intent);
		break;
	case COW_INTENT_LINK:
		take_spot(r, &intent->to);
		intent->name = take_name(r, true);
		break;
	case COW_INTENT_RENAME:
		intent->name = take_name(r, true);
		take_spot(r, &intent->to);
		intent->to_name = take_name(r, true);
		intent->flags = take32(r);
		expect(r, (intent->flags & ~(uint32_t)RENAME_FLAGS) == 0 && intent->flags != RENAME_FLAGS);
		break;
	case COW_INTENT_ATTR:
		intent->flags = take32(r);
		take_owner(r, intent);
		take_times(r, intent);
		expect(r, (intent->flags & ~(uint32_t)ATTR_FLAGS) == 0);
		expect(r, (intent->mode & ~(uint32_t)(S_IFMT | 07777)) == 0);
		break;
	case COW_INTENT_SET_XATTR:
		intent->name = take_name(r, false);
		intent->bytes = take_slice(r);
		break;
	case COW_INTENT_DROP_XATTR:
		intent->name = take_name(r, false);
		break;
	case COW_INTENT_FILE:
		intent->low = take64(r);
		intent->size = take64(r);
		take_owner(r, intent);
		take_times(r, intent);
		intent->bytes = take_slice(r);
		check_file(r, intent);
		break;
	default:
		intent->name = take_name(r, true);
		break;
	}
}

int cow_intent_decode(const uint8_t *bytes, size_t length, struct cow_intent *intent, size_t *used)
{
	struct reader r = {bytes, length, false};
	uint32_t type;

	memset(intent, 0, sizeof(*intent));
	*used = take32(&r);
	if (r.bad || *used < HEADER || *used > length)
		return COW_ERR_DAMAGED;
	r.left = *used - 4;
	type = take32(&r);
	if (type < COW_INTENT_CREATE || type >= COW_INTENT_TYPES)
		return COW_ERR_DAMAGED;
	intent->type = (enum cow_intent_type)type;
	intent->generation = take64(&r);
	intent->number = take64(&r);
	intent->now = take_when(&r);
	take_body(&r, intent);
	return r.bad || r.left != 0 ? COW_ERR_DAMAGED : 0;
}

bool cow_intent_next_range(struct cow_slice *ranges, struct cow_intent_range *range)
{
	struct reader r = {ranges->bytes, ranges->length, false};

	if (ranges->length == 0)
		return false;
	range->offset = take64(&r);
	range->bytes = take_slice(&r);
	assert(!r.bad); /* decoded */
	*ranges = (struct cow_slice){r.at, (uint32_t)r.left};
	return true;
}

int cow_intent_validate(const uint8_t *bytes, size_t length, struct cow_intent_head *head)
{
	struct reader r = {bytes, length, false};
	struct cow_intent intent;
	size_t used;
	int error = 0;

	head->number = take64(&r);
	head->colour = take64(&r);
	head->chunk = take64(&r);
	if (r.bad)
		return COW_ERR_DAMAGED;
	for (; r.left > 0 && error == 0; take(&r, used)) {
		error = cow_intent_decode(r.at, r.left, &intent, &used);
		if (error != 0)
			break;
	}
	return error;
}
