/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Records, entries, link rows and extents as bytes. doc/FORMAT.md is normative; the comments here say what is checked
 * where and why.
 *
 * Two depths of decoding. With total_blocks == 0 the bytes come out of a node that was validated when it was read (or
 * that was made in memory, and then may hold dirty pointers): only the shape is followed. Otherwise everything is
 * checked, each list to its end, and each address against the device; that is what cow_value_validate() does, once for
 * each node.
 *
 * Every record has exactly one encoding: optional parts are present if and only if they say something, so equal inodes
 * are equal bytes.
 */
#include "fs/format/record.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "cow.h"
#include "store/layout.h"

/* Flags of a record. The low byte is never 0xff (body is at most 4), which is what tells a link reference. */
#define FLAG_BODY 0x0007u
#define FLAG_ATIME 0x0008u
#define FLAG_CTIME 0x0010u
#define FLAG_BTIME 0x0020u
#define FLAG_TAG 0x0040u
#define FLAG_RDEV 0x0080u
#define FLAG_XATTR 0x0100u
#define FLAG_XATTR_TREE 0x0200u
#define FLAG_WORLD 0x0400u
#define FLAG_READ_ONLY 0x0800u
#define FLAG_SIZE 0x1000u
#define FLAGS_KNOWN 0x1fffu

#define FIXED_BYTES 32u
#define WHEN_BYTES 12u
#define TOTALS 7u
#define LINK_MARK 0xffu
#define LINK_BYTES 10u
#define ROW_LINK 1u
#define ROW_SPINE 2u
#define SPINE_BYTES 17u
#define EXTENT_FIXED 12u
#define BACK_BYTES 16u
#define BACKS_MAX (1u << 26)
#define FILE_BLOCKS_MAX (COW_FILE_SIZE_MAX >> COW_BLOCK_SHIFT)

/* ------------------------------------------------------------------ reading and writing in sequence */

struct cursor {
	const uint8_t *at;
	uint32_t left;
	bool bad; /* ran over the end; what was taken then is zeros */
};

static const uint8_t zeros[COW_PTR_BYTES + TOTALS * 8];

static const uint8_t *take(struct cursor *c, uint32_t length)
{
	const uint8_t *at = c->at;

	if (length > c->left) {
		c->bad = true;
		assert(length <= sizeof(zeros));
		return zeros;
	}
	c->at += length;
	c->left -= length;
	return at;
}

static struct cow_slice take_slice(struct cursor *c, uint32_t length)
{
	if (length > c->left) {
		c->bad = true;
		return (struct cow_slice){zeros, 0};
	}
	return (struct cow_slice){take(c, length), length};
}

static struct cow_when take_when(struct cursor *c)
{
	const uint8_t *p = take(c, WHEN_BYTES);

	return (struct cow_when){(int64_t)get64(p), get32(p + 8)};
}

static uint8_t *add16(uint8_t *p, uint16_t v) { put16(p, v); return p + 2; }
static uint8_t *add32(uint8_t *p, uint32_t v) { put32(p, v); return p + 4; }
static uint8_t *add64(uint8_t *p, uint64_t v) { put64(p, v); return p + 8; }

static uint8_t *add_bytes(uint8_t *p, struct cow_slice s)
{
	if (s.length != 0)
		memcpy(p, s.bytes, s.length);
	return p + s.length;
}

static uint8_t *add_when(uint8_t *p, struct cow_when when)
{
	assert(when.nanoseconds < 1000000000u);
	return add32(add64(p, (uint64_t)when.seconds), when.nanoseconds);
}

/* An empty tree is zeros, whatever the struct went through before. */
static uint8_t *add_ptr(uint8_t *p, struct cow_ptr ptr)
{
	cow_ptr_put(p, cow_ptr_is_null(ptr) ? (struct cow_ptr){0, 0, 0} : ptr);
	return p + COW_PTR_BYTES;
}

static bool when_equal(struct cow_when a, struct cow_when b)
{
	return a.seconds == b.seconds && a.nanoseconds == b.nanoseconds;
}

/* ------------------------------------------------------------------ checks against the device */

/* May `length` blocks from `block` belong to a node or to file data? At most a group long, so two groups at most. */
static bool run_valid(uint64_t block, uint32_t length, uint64_t total_blocks)
{
	const uint64_t slots_end = COW_SLOT_FIRST + 2u * COW_COUNT_LEVELS;
	uint64_t end = block + length;

	if (block == 0 || end < block || end > total_blocks)
		return false;
	while (block < end) {
		uint64_t group = block - block % COW_PIECE_BLOCKS;
		uint64_t stop = group + slots_end < end ? group + slots_end : end;
		for (; block < stop; block++)
			if (cow_layout_is_system(block))
				return false;
		block = group + COW_PIECE_BLOCKS;
	}
	return true;
}

static bool ptr_valid(struct cow_ptr ptr, uint64_t total_blocks)
{
	if (cow_ptr_is_null(ptr))
		return ptr.sum == 0 && ptr.generation == 0;
	return ptr.generation != 0 && run_valid(ptr.addr, 1, total_blocks);
}

/* ------------------------------------------------------------------ extents */

uint32_t cow_extent_sum(const void *block)
{
	return (uint32_t)XXH3_64bits(block, COW_BLOCK);
}

static uint32_t extent_length(uint8_t kind, uint32_t blocks)
{
	return EXTENT_FIXED + (kind == COW_EXTENT_PLAIN ? 4u * blocks : 0);
}

uint32_t cow_extent_encode(const struct cow_extent *extent, uint8_t *bytes)
{
	assert(extent->kind == COW_EXTENT_PLAIN || extent->kind == COW_EXTENT_UNWRITTEN);
	assert(extent->blocks >= 1 && extent->blocks <= COW_EXTENT_BLOCKS_MAX);
	bytes[0] = extent->kind;
	bytes[1] = 0;
	put16(bytes + 2, extent->blocks);
	put64(bytes + 4, extent->block);
	if (extent->kind == COW_EXTENT_PLAIN)
		memmove(bytes + EXTENT_FIXED, extent->sums, 4u * extent->blocks);
	return extent_length(extent->kind, extent->blocks);
}

int cow_extent_decode(const uint8_t *bytes, uint32_t length, uint64_t at, uint64_t total_blocks,
		      struct cow_extent *extent, uint32_t *used)
{
	if (length < EXTENT_FIXED)
		return COW_ERR_DAMAGED;
	*extent = (struct cow_extent){
		.at = at, .kind = bytes[0], .blocks = get16(bytes + 2), .block = get64(bytes + 4),
		.sums = bytes + EXTENT_FIXED,
	};
	if ((extent->kind != COW_EXTENT_PLAIN && extent->kind != COW_EXTENT_UNWRITTEN) || bytes[1] != 0)
		return COW_ERR_DAMAGED;
	if (extent->blocks < 1 || extent->blocks > COW_EXTENT_BLOCKS_MAX)
		return COW_ERR_DAMAGED;
	if (at > FILE_BLOCKS_MAX || at + extent->blocks > FILE_BLOCKS_MAX)
		return COW_ERR_DAMAGED;
	*used = extent_length(extent->kind, extent->blocks);
	if (*used > length)
		return COW_ERR_DAMAGED;
	if (total_blocks != 0 && !run_valid(extent->block, extent->blocks, total_blocks))
		return COW_ERR_DAMAGED;
	return 0;
}

/* Takes the next (file block, extent) of a record's list. */
static int take_extent(struct cursor *c, uint64_t total_blocks, struct cow_extent *extent)
{
	uint64_t at = get64(take(c, 8));
	uint32_t used = 0;
	int error = c->bad ? COW_ERR_DAMAGED : cow_extent_decode(c->at, c->left, at, total_blocks, extent, &used);

	if (error == 0)
		take(c, used);
	return error;
}

static int check_extents(const struct cow_record *r, uint64_t total_blocks)
{
	struct cursor c = {r->data.bytes, r->data.length, false};
	uint64_t end = 0, blocks = 0;
	struct cow_extent extent;

	while (c.left != 0) {
		if (take_extent(&c, total_blocks, &extent) != 0 || extent.at < end)
			return COW_ERR_DAMAGED;
		end = extent.at + extent.blocks;
		blocks += extent.blocks;
	}
	return blocks == r->blocks ? 0 : COW_ERR_DAMAGED;
}

/* ------------------------------------------------------------------ records: encode */

static bool body_fits_mode(uint32_t mode, enum cow_body body)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return body == COW_BODY_NONE || body == COW_BODY_INLINE || body == COW_BODY_EXTENTS ||
		       body == COW_BODY_TREE;
	case S_IFLNK:
		return body == COW_BODY_INLINE || body == COW_BODY_TREE;
	case S_IFDIR:
		return body == COW_BODY_DIR;
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return body == COW_BODY_NONE;
	default:
		return false;
	}
}

static bool is_device(uint32_t mode)
{
	return S_ISCHR(mode) || S_ISBLK(mode);
}

static uint16_t flags_of(const struct cow_record *r)
{
	unsigned flags = (unsigned)r->body;

	flags |= when_equal(r->atime, r->mtime) ? 0 : FLAG_ATIME;
	flags |= when_equal(r->ctime, r->mtime) ? 0 : FLAG_CTIME;
	flags |= when_equal(r->btime, r->mtime) ? 0 : FLAG_BTIME;
	flags |= r->tag != 0 ? FLAG_TAG : 0;
	flags |= is_device(r->mode) && r->rdev != 0 ? FLAG_RDEV : 0;
	if (r->xattr_length != 0)
		flags |= r->xattr_length <= COW_XATTR_INLINE_MAX ? FLAG_XATTR : FLAG_XATTR_TREE;
	if (r->body == COW_BODY_DIR && r->is_world)
		flags |= FLAG_WORLD | (r->read_only ? FLAG_READ_ONLY : 0);
	if (r->body == COW_BODY_NONE && S_ISREG(r->mode) && r->size != 0)
		flags |= FLAG_SIZE;
	return (uint16_t)flags;
}

static uint8_t *add_dir(uint8_t *p, const struct cow_record *r)
{
	const struct cow_totals *t = &r->totals;
	const uint64_t sums[TOTALS] = {t->bytes, t->blocks, t->files, t->dirs, t->refs, t->nested_refs, t->exceptions};

	p = add_ptr(p, r->tree);
	for (unsigned i = 0; i < TOTALS; i++)
		p = add64(p, sums[i]);
	if (!r->is_world)
		return p;
	p = add_ptr(p, r->links);
	p = add64(p, r->backs);
	p = add64(p, r->link_bytes);
	p = add64(p, r->link_blocks);
	return add64(p, r->link_files);
}

static uint8_t *add_body(uint8_t *p, const struct cow_record *r, unsigned flags)
{
	switch (r->body) {
	case COW_BODY_NONE:
		return flags & FLAG_SIZE ? add64(p, r->size) : p;
	case COW_BODY_INLINE:
		assert(r->data.length >= 1 && r->data.length == r->size);
		assert(r->data.length <= (S_ISLNK(r->mode) ? COW_TARGET_INLINE_MAX : COW_INLINE_MAX));
		return add_bytes(add16(p, (uint16_t)r->data.length), r->data);
	case COW_BODY_EXTENTS:
		assert(r->data.length >= 1 && r->data.length <= COW_EXTENTS_MAX);
		p = add64(add64(p, r->size), r->blocks);
		return add_bytes(add16(p, (uint16_t)r->data.length), r->data);
	case COW_BODY_TREE:
		assert(!cow_ptr_is_null(r->tree));
		p = add64(p, r->size);
		if (S_ISREG(r->mode))
			p = add64(p, r->blocks);
		return add_ptr(p, r->tree);
	case COW_BODY_DIR:
		return add_dir(p, r);
	}
	assert(!"a body of no kind");
	return p;
}

static uint8_t *add_xattr(uint8_t *p, const struct cow_record *r, unsigned flags)
{
	if (flags & FLAG_XATTR) {
		assert(r->xattr.length == r->xattr_length);
		*p++ = (uint8_t)r->xattr_length;
		return add_bytes(p, r->xattr);
	}
	if (flags & FLAG_XATTR_TREE) {
		assert(!cow_ptr_is_null(r->xattr_tree));
		return add_ptr(add32(p, r->xattr_length), r->xattr_tree);
	}
	return p;
}

uint32_t cow_record_encode(const struct cow_record *r, uint8_t *bytes)
{
	unsigned flags = flags_of(r);
	uint8_t *p = bytes;

	assert(r->number != 0 && r->mode <= 0xffff && body_fits_mode(r->mode, r->body));
	assert(r->size <= COW_FILE_SIZE_MAX && r->xattr_length <= COW_XATTR_LIST_MAX);
	assert(r->tag == 0 || r->is_world || r->body != COW_BODY_DIR);
	p = add16(add16(p, (uint16_t)flags), (uint16_t)r->mode);
	p = add64(add32(add32(p, r->uid), r->gid), r->number);
	p = add_when(p, r->mtime);
	p = flags & FLAG_ATIME ? add_when(p, r->atime) : p;
	p = flags & FLAG_CTIME ? add_when(p, r->ctime) : p;
	p = flags & FLAG_BTIME ? add_when(p, r->btime) : p;
	p = flags & FLAG_TAG ? add64(p, r->tag) : p;
	p = flags & FLAG_RDEV ? add32(p, r->rdev) : p;
	p = add_body(p, r, flags);
	p = add_xattr(p, r, flags);
	assert(p - bytes <= (ptrdiff_t)COW_RECORD_MAX);
	return (uint32_t)(p - bytes);
}

/* ------------------------------------------------------------------ records: decode */

/* Where the pointers of a record are, for those who change them in place; 0: there is none. */
struct places {
	uint32_t tree, links, xattr_tree;
};

static struct cow_ptr take_ptr(struct cursor *c, const uint8_t *start, uint32_t *place)
{
	*place = (uint32_t)(c->at - start);
	return cow_ptr_get(take(c, COW_PTR_BYTES));
}

static void take_dir(struct cursor *c, const uint8_t *start, struct cow_record *r, struct places *places)
{
	r->tree = take_ptr(c, start, &places->tree);
	const uint8_t *p = take(c, TOTALS * 8);
	r->totals = (struct cow_totals){
		.bytes = get64(p), .blocks = get64(p + 8), .files = get64(p + 16), .dirs = get64(p + 24),
		.refs = get64(p + 32), .nested_refs = get64(p + 40), .exceptions = get64(p + 48),
	};
	if (!r->is_world)
		return;
	r->links = take_ptr(c, start, &places->links);
	p = take(c, 32);
	r->backs = get64(p);
	r->link_bytes = get64(p + 8);
	r->link_blocks = get64(p + 16);
	r->link_files = get64(p + 24);
}

static void take_body(struct cursor *c, const uint8_t *start, unsigned flags, struct cow_record *r,
		      struct places *places)
{
	switch (r->body) {
	case COW_BODY_NONE:
		r->size = flags & FLAG_SIZE ? get64(take(c, 8)) : 0;
		break;
	case COW_BODY_INLINE:
		r->size = get16(take(c, 2));
		r->data = take_slice(c, (uint32_t)r->size);
		break;
	case COW_BODY_EXTENTS:
		r->size = get64(take(c, 8));
		r->blocks = get64(take(c, 8));
		r->data = take_slice(c, get16(take(c, 2)));
		break;
	case COW_BODY_TREE:
		r->size = get64(take(c, 8));
		r->blocks = S_ISREG(r->mode) ? get64(take(c, 8)) : 0;
		r->tree = take_ptr(c, start, &places->tree);
		break;
	case COW_BODY_DIR:
		take_dir(c, start, r, places);
		break;
	}
}

/* Follows the shape only. The caller checks the values. */
static int take_record(const uint8_t *bytes, uint32_t length, struct cow_record *r, struct places *places)
{
	struct cursor c = {bytes, length, false};

	*r = (struct cow_record){0};
	*places = (struct places){0};
	if (length < FIXED_BYTES)
		return COW_ERR_DAMAGED;
	unsigned flags = get16(take(&c, 2));
	r->mode = get16(take(&c, 2));
	r->uid = get32(take(&c, 4));
	r->gid = get32(take(&c, 4));
	r->number = get64(take(&c, 8));
	r->body = (enum cow_body)(flags & FLAG_BODY);
	if ((flags & ~FLAGS_KNOWN) != 0 || !body_fits_mode(r->mode, r->body))
		return COW_ERR_DAMAGED;
	r->is_world = (flags & FLAG_WORLD) != 0;
	r->read_only = (flags & FLAG_READ_ONLY) != 0;
	r->mtime = take_when(&c);
	r->atime = flags & FLAG_ATIME ? take_when(&c) : r->mtime;
	r->ctime = flags & FLAG_CTIME ? take_when(&c) : r->mtime;
	r->btime = flags & FLAG_BTIME ? take_when(&c) : r->mtime;
	r->tag = flags & FLAG_TAG ? get64(take(&c, 8)) : 0;
	r->rdev = flags & FLAG_RDEV ? get32(take(&c, 4)) : 0;
	take_body(&c, bytes, flags, r, places);
	if (flags & FLAG_XATTR) {
		r->xattr_length = take(&c, 1)[0];
		r->xattr = take_slice(&c, r->xattr_length);
	} else if (flags & FLAG_XATTR_TREE) {
		r->xattr_length = get32(take(&c, 4));
		r->xattr_tree = take_ptr(&c, bytes, &places->xattr_tree);
	}
	return c.bad || c.left != 0 ? COW_ERR_DAMAGED : 0;
}

int cow_xattr_list_validate(const uint8_t *bytes, uint32_t length)
{
	struct cursor c = {bytes, length, false};
	struct cow_slice last = {zeros, 0};

	while (c.left != 0) {
		uint32_t name_length = take(&c, 1)[0], value_length = get32(take(&c, 4));
		struct cow_slice name = take_slice(&c, name_length);
		if (c.bad || name.length == 0 || value_length > COW_XATTR_VALUE_MAX)
			return COW_ERR_DAMAGED;
		take_slice(&c, value_length);
		if (c.bad || memchr(name.bytes, 0, name.length) != NULL || cow_slice_compare(last, name) >= 0)
			return COW_ERR_DAMAGED;
		last = name;
	}
	return 0;
}

int cow_slice_compare(struct cow_slice a, struct cow_slice b)
{
	uint32_t common = a.length < b.length ? a.length : b.length;
	int order = common != 0 ? memcmp(a.bytes, b.bytes, common) : 0;

	return order != 0 ? order : (a.length > b.length) - (a.length < b.length);
}

static bool body_valid(const struct cow_record *r, uint64_t total_blocks)
{
	switch (r->body) {
	case COW_BODY_NONE:
		return true;
	case COW_BODY_INLINE:
		if (S_ISLNK(r->mode))
			return r->size >= 1 && r->size <= COW_TARGET_INLINE_MAX &&
			       memchr(r->data.bytes, 0, r->data.length) == NULL;
		return r->size >= 1 && r->size <= COW_INLINE_MAX;
	case COW_BODY_EXTENTS:
		return r->data.length >= 1 && r->data.length <= COW_EXTENTS_MAX &&
		       check_extents(r, total_blocks) == 0;
	case COW_BODY_TREE:
		if (cow_ptr_is_null(r->tree) || !ptr_valid(r->tree, total_blocks))
			return false;
		if (S_ISLNK(r->mode))
			return r->size > COW_TARGET_INLINE_MAX && r->size <= COW_SYMLINK_MAX;
		return r->blocks >= 1 && r->blocks <= FILE_BLOCKS_MAX;
	case COW_BODY_DIR:
		return ptr_valid(r->tree, total_blocks) && ptr_valid(r->links, total_blocks);
	}
	return false;
}

static bool xattr_valid(const struct cow_record *r, unsigned flags, uint64_t total_blocks)
{
	if (flags & FLAG_XATTR)
		return r->xattr_length >= 1 && r->xattr_length <= COW_XATTR_INLINE_MAX &&
		       cow_xattr_list_validate(r->xattr.bytes, r->xattr.length) == 0;
	if (flags & FLAG_XATTR_TREE)
		return r->xattr_length > COW_XATTR_INLINE_MAX && r->xattr_length <= COW_XATTR_LIST_MAX &&
		       !cow_ptr_is_null(r->xattr_tree) && ptr_valid(r->xattr_tree, total_blocks);
	return true;
}

static bool times_valid(const struct cow_record *r)
{
	const uint32_t second = 1000000000u;

	return r->atime.nanoseconds < second && r->mtime.nanoseconds < second && r->ctime.nanoseconds < second &&
	       r->btime.nanoseconds < second;
}

int cow_record_decode(const uint8_t *bytes, uint32_t length, uint64_t total_blocks, struct cow_record *r)
{
	struct places places;
	int error = take_record(bytes, length, r, &places);

	if (error != 0 || total_blocks == 0)
		return error;
	unsigned flags = get16(bytes);
	/* One encoding only: no flag for a part that says nothing, none that does not go with the type. */
	if (flags_of(r) != flags || length > COW_RECORD_MAX)
		return COW_ERR_DAMAGED;
	if (r->number == 0 || r->size > COW_FILE_SIZE_MAX || !times_valid(r))
		return COW_ERR_DAMAGED;
	if (r->tag != 0 && r->body == COW_BODY_DIR && !r->is_world)
		return COW_ERR_DAMAGED;
	if (!body_valid(r, total_blocks) || !xattr_valid(r, flags, total_blocks))
		return COW_ERR_DAMAGED;
	return 0;
}

/* ------------------------------------------------------------------ entries */

static uint8_t *add_name(uint8_t *p, struct cow_slice name)
{
	assert(name.length <= COW_NAME_BYTES_MAX);
	*p++ = (uint8_t)name.length;
	return add_bytes(p, name);
}

uint32_t cow_dirent_encode_record(struct cow_slice name, const struct cow_record *record, uint8_t *bytes)
{
	uint8_t *p = add_name(bytes, name);

	return (uint32_t)(p - bytes) + cow_record_encode(record, p);
}

uint32_t cow_dirent_encode_link(struct cow_slice name, uint32_t type, uint64_t link_key, uint8_t *bytes)
{
	uint8_t *p = add_name(bytes, name);

	assert(link_key != 0 && (type & ~(uint32_t)S_IFMT) == 0);
	*p++ = LINK_MARK;
	*p++ = (uint8_t)(type >> 12);
	return (uint32_t)(add64(p, link_key) - bytes);
}

static bool name_valid(struct cow_slice name)
{
	if (name.length == 0)
		return true;
	if (memchr(name.bytes, 0, name.length) != NULL || memchr(name.bytes, '/', name.length) != NULL)
		return false;
	return !(name.bytes[0] == '.' && (name.length == 1 || (name.length == 2 && name.bytes[1] == '.')));
}

int cow_dirent_decode(const uint8_t *bytes, uint32_t length, struct cow_dirent *entry)
{
	struct cursor c = {bytes, length, false};

	*entry = (struct cow_dirent){0};
	entry->name = take_slice(&c, take(&c, 1)[0]);
	if (c.bad || c.left == 0)
		return COW_ERR_DAMAGED;
	entry->is_link = c.at[0] == LINK_MARK;
	if (!entry->is_link) {
		entry->record = (struct cow_slice){c.at, c.left};
		return c.left >= FIXED_BYTES ? 0 : COW_ERR_DAMAGED;
	}
	if (c.left != LINK_BYTES || c.at[1] > S_IFMT >> 12)
		return COW_ERR_DAMAGED;
	entry->link_type = (uint32_t)c.at[1] << 12;
	entry->link_key = get64(c.at + 2);
	if (entry->link_key == 0 || S_ISDIR(entry->link_type))
		return COW_ERR_DAMAGED;
	if (!body_fits_mode(entry->link_type, COW_BODY_NONE) && !body_fits_mode(entry->link_type, COW_BODY_INLINE))
		return COW_ERR_DAMAGED;
	return 0;
}

/* ------------------------------------------------------------------ rows of links */

uint32_t cow_link_row_encode(const struct cow_record *record, const struct cow_back *backs, uint32_t count,
			     struct cow_ptr back_tree, uint8_t *bytes)
{
	uint32_t length = cow_record_encode(record, bytes + 3);
	uint8_t *p = bytes + 3 + length;

	assert(record->body != COW_BODY_DIR && count <= BACKS_MAX);
	bytes[0] = ROW_LINK;
	put16(bytes + 1, (uint16_t)length);
	p = add32(p, count);
	if (count > COW_BACKS_INLINE_MAX) {
		assert(!cow_ptr_is_null(back_tree));
		return (uint32_t)(add_ptr(p, back_tree) - bytes);
	}
	for (uint32_t i = 0; i < count; i++)
		p = add64(add64(p, backs[i].dir), backs[i].key);
	return (uint32_t)(p - bytes);
}

int cow_link_row_decode(const uint8_t *bytes, uint32_t length, struct cow_link_row *row)
{
	struct cursor c = {bytes, length, false};
	struct cow_back up;

	*row = (struct cow_link_row){0};
	if (cow_spine_row_decode(bytes, length, &up) == 0)
		return -ENOENT;
	if (take(&c, 1)[0] != ROW_LINK)
		return COW_ERR_DAMAGED;
	row->record = take_slice(&c, get16(take(&c, 2)));
	row->backs = get32(take(&c, 4));
	if (c.bad || row->backs > BACKS_MAX)
		return COW_ERR_DAMAGED;
	if (row->backs > COW_BACKS_INLINE_MAX)
		row->back_tree = cow_ptr_get(take(&c, COW_PTR_BYTES));
	else
		row->back_bytes = take_slice(&c, row->backs * BACK_BYTES).bytes;
	return c.bad || c.left != 0 ? COW_ERR_DAMAGED : 0;
}

uint32_t cow_spine_row_encode(struct cow_back up, uint8_t *bytes)
{
	assert(up.dir != 0 && up.key >= COW_KEY_FIRST);
	bytes[0] = ROW_SPINE;
	put64(bytes + 1, up.dir);
	put64(bytes + 9, up.key);
	return SPINE_BYTES;
}

int cow_spine_row_decode(const uint8_t *bytes, uint32_t length, struct cow_back *up)
{
	if (length != SPINE_BYTES || bytes[0] != ROW_SPINE)
		return COW_ERR_DAMAGED;
	*up = (struct cow_back){get64(bytes + 1), get64(bytes + 9)};
	return up->dir != 0 && up->key >= COW_KEY_FIRST ? 0 : COW_ERR_DAMAGED;
}

/* ------------------------------------------------------------------ rows of numbers */

int cow_row_decode(const uint8_t *bytes, uint32_t length, struct cow_row *row)
{
	if (length != COW_ROW_BYTES || bytes[0] < COW_ROW_COLOUR || bytes[0] > COW_ROW_FREE_CHUNK)
		return COW_ERR_DAMAGED;
	*row = (struct cow_row){bytes[0], get64(bytes + 1), get64(bytes + 9), get64(bytes + 17)};
	return 0;
}

void cow_row_encode(const struct cow_row *row, uint8_t bytes[COW_ROW_BYTES])
{
	bytes[0] = row->type;
	put64(bytes + 1, row->a);
	put64(bytes + 9, row->b);
	put64(bytes + 17, row->value);
}

/* ------------------------------------------------------------------ values, for the store */

static int validate_dirent(uint64_t key, const uint8_t *value, uint32_t length, uint64_t total_blocks)
{
	struct cow_dirent entry;
	struct cow_record record;
	int error = cow_dirent_decode(value, length, &entry);

	if (error != 0 || !name_valid(entry.name))
		return COW_ERR_DAMAGED;
	/* Only the root and the orphans have no name; their keys are fresh numbers. */
	if (key >> 63 != 0 || (entry.name.length != 0 && key < COW_KEY_FIRST))
		return COW_ERR_DAMAGED;
	if (entry.is_link)
		return entry.name.length != 0 ? 0 : COW_ERR_DAMAGED;
	return cow_record_decode(entry.record.bytes, entry.record.length, total_blocks, &record);
}

static int validate_links(uint64_t key, const uint8_t *value, uint32_t length, uint64_t total_blocks)
{
	struct cow_link_row row;
	struct cow_record record;
	int error = cow_link_row_decode(value, length, &row);

	/* numbers from the counter: whoever goes on behind the last key must get there */
	if (key == 0 || key >> 63 != 0)
		return COW_ERR_DAMAGED;
	if (error == -ENOENT)
		return 0;
	if (error != 0)
		return error;
	error = cow_record_decode(row.record.bytes, row.record.length, total_blocks, &record);
	if (error != 0 || record.body == COW_BODY_DIR)
		return COW_ERR_DAMAGED;
	if (row.backs > COW_BACKS_INLINE_MAX)
		return !cow_ptr_is_null(row.back_tree) && ptr_valid(row.back_tree, total_blocks) ? 0 : COW_ERR_DAMAGED;
	for (uint32_t i = 0; i < row.backs; i++) {
		const uint8_t *back = row.back_bytes + i * BACK_BYTES;
		if (get64(back) == 0 || get64(back + 8) < COW_KEY_FIRST)
			return COW_ERR_DAMAGED;
	}
	return 0;
}

static int validate_extent(uint64_t key, const uint8_t *value, uint32_t length, uint64_t total_blocks)
{
	struct cow_extent extent;
	uint32_t used;
	int error = cow_extent_decode(value, length, key, total_blocks, &extent, &used);

	return error != 0 || used != length ? COW_ERR_DAMAGED : 0;
}

/* Can it be under that key? What is said of other rows is not looked at. */
static bool row_valid(uint64_t key, const struct cow_row *row)
{
	if (key >> 56 != row->type)
		return false;
	switch (row->type) {
	case COW_ROW_COLOUR:
		return row->b != 0 && row->value >> 63 == 0;
	case COW_ROW_CHUNK:
		return row->value < COW_CHUNK_MAX;
	default:
		return row->a < COW_CHUNK_MAX && row->b == 0;
	}
}

int cow_value_validate(uint8_t kind, uint64_t key, const uint8_t *value, uint32_t length, uint64_t total_blocks)
{
	struct cow_row row;

	switch (kind) {
	case COW_KIND_DIR:
		return validate_dirent(key, value, length, total_blocks);
	case COW_KIND_LINKS:
		return validate_links(key, value, length, total_blocks);
	case COW_KIND_FILE:
		return validate_extent(key, value, length, total_blocks);
	case COW_KIND_BLOB:
		if (length == 0 || length > COW_BLOB_CHUNK || key % COW_BLOB_CHUNK != 0 || key >> 32 != 0)
			return COW_ERR_DAMAGED;
		return 0;
	case COW_KIND_NUMBERS:
		return cow_row_decode(value, length, &row) == 0 && row_valid(key, &row) ? 0 : COW_ERR_DAMAGED;
	default:
		return COW_ERR_DAMAGED;
	}
}

/* ------------------------------------------------------------------ claims */

static void claim_extents(struct cow_slice list, struct cow_claims *visitor)
{
	struct cursor c = {list.bytes, list.length, false};
	struct cow_extent extent;

	while (c.left != 0) {
		int error = take_extent(&c, 0, &extent);
		assert(error == 0);
		visitor->run(visitor, extent.block, extent.blocks);
	}
}

void cow_record_claims(uint8_t *bytes, uint32_t length, struct cow_claims *visitor)
{
	struct cow_record r;
	struct places places;
	int error = take_record(bytes, length, &r, &places);

	assert(error == 0);
	if (r.body == COW_BODY_DIR)
		visitor->tree(visitor, bytes + places.tree, COW_KIND_DIR);
	else if (r.body == COW_BODY_TREE)
		visitor->tree(visitor, bytes + places.tree, S_ISLNK(r.mode) ? COW_KIND_BLOB : COW_KIND_FILE);
	else if (r.body == COW_BODY_EXTENTS)
		claim_extents(r.data, visitor);
	if (places.links != 0)
		visitor->tree(visitor, bytes + places.links, COW_KIND_LINKS);
	if (places.xattr_tree != 0)
		visitor->tree(visitor, bytes + places.xattr_tree, COW_KIND_BLOB);
}

static void claim_dirent(uint8_t *value, uint32_t length, struct cow_claims *visitor)
{
	struct cow_dirent entry;
	int error = cow_dirent_decode(value, length, &entry);

	assert(error == 0);
	if (!entry.is_link)
		cow_record_claims(value + (entry.record.bytes - value), entry.record.length, visitor);
}

static void claim_links(uint8_t *value, uint32_t length, struct cow_claims *visitor)
{
	struct cow_link_row row;
	int error = cow_link_row_decode(value, length, &row);

	if (error == -ENOENT)
		return;
	assert(error == 0);
	cow_record_claims(value + (row.record.bytes - value), row.record.length, visitor);
	if (row.backs > COW_BACKS_INLINE_MAX)
		visitor->tree(visitor, value + length - COW_PTR_BYTES, COW_KIND_BLOB);
}

static void claim_extent(uint8_t *value, uint32_t length, struct cow_claims *visitor)
{
	struct cow_extent extent;
	uint32_t used;
	int error = cow_extent_decode(value, length, 0, 0, &extent, &used);

	assert(error == 0);
	visitor->run(visitor, extent.block, extent.blocks);
}

void cow_value_claims(uint8_t kind, uint8_t *value, uint32_t length, struct cow_claims *visitor)
{
	switch (kind) {
	case COW_KIND_DIR:
		claim_dirent(value, length, visitor);
		break;
	case COW_KIND_LINKS:
		claim_links(value, length, visitor);
		break;
	case COW_KIND_FILE:
		claim_extent(value, length, visitor);
		break;
	default: /* BLOB and NUMBERS claim nothing */
		break;
	}
}
