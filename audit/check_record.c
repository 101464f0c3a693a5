/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What one record says and claims: its extents or tree, its extended attributes, and the links of a world. The trees
 * in it are visited at once, but for those of directories, which wait.
 */
#include "audit/check_walk.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"

/* ------------------------------------------------------------------ file data */

static void check_data(struct cow_check *c, const struct cow_extent *e, uint64_t number)
{
	uint8_t bytes[COW_BLOCK];

	for (uint32_t i = 0; i < e->blocks; i++) {
		uint64_t block = e->block + i;

		if (cow_dev_read(c->dev, bytes, COW_BLOCK, block << COW_BLOCK_SHIFT) != 0)
			cow_check_say(c, COW_FIND_FILE_DATA, block,
				      "inode %" PRIu64 ": file block %" PRIu64 " cannot be read", number, e->at + i);
		else if (cow_extent_sum(bytes) != get32(e->sums + (size_t)4 * i))
			cow_check_say(c, COW_FIND_FILE_DATA, block,
				      "inode %" PRIu64 ": file block %" PRIu64 " does not fit its checksum", number,
				      e->at + i);
	}
}

void cow_check_claim_extent(struct cow_check *c, const struct cow_extent *e, uint64_t number)
{
	bool first = false;

	for (uint32_t i = 0; i < e->blocks; i++)
		if (cow_check_claim(c, e->block + i, COW_CHECK_DATA)) {
			c->result->data_blocks++;
			first = true;
		}
	if (first && c->options->data && e->kind == COW_EXTENT_PLAIN)
		check_data(c, e, number);
}

static void check_tail(struct cow_check *c, const struct cow_extent *e, const struct cow_record *r)
{
	uint64_t last = r->size >> COW_BLOCK_SHIFT;
	uint8_t bytes[COW_BLOCK];

	/* The zeros of a removed tree's file may never have been written: nobody can read it. */
	if (!c->options->data || c->reclaiming || r->size % COW_BLOCK == 0 || e->kind != COW_EXTENT_PLAIN ||
	    last < e->at || last >= e->at + e->blocks)
		return;
	if (cow_dev_read(c->dev, bytes, COW_BLOCK, (e->block + last - e->at) << COW_BLOCK_SHIFT) != 0)
		return; /* said before */
	for (unsigned i = r->size % COW_BLOCK; i < COW_BLOCK; i++)
		if (bytes[i] != 0) {
			cow_check_say(c, COW_FIND_FILE_TAIL, e->block + last - e->at,
				      "inode %" PRIu64 ": bytes behind the end are not zero", r->number);
			return;
		}
}

/* ------------------------------------------------------------------ records */

static void check_extent_list(struct cow_check *c, const struct cow_record *r)
{
	const uint8_t *at = r->data.bytes;
	uint32_t left = r->data.length, used;
	struct cow_extent e;

	while (left > 8 && cow_extent_decode(at + 8, left - 8, get64(at), c->super.total_blocks, &e, &used) == 0) {
		cow_check_claim_extent(c, &e, r->number);
		check_tail(c, &e, r);
		at += 8 + used;
		left -= 8 + used;
	}
	assert(left == 0); /* the record was validated */
}

struct tail {
	struct cow_check *check;
	const struct cow_record *record;
};

static int tail_item(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct tail *t = context;
	struct cow_extent e;
	uint32_t used;

	if (key > t->record->size >> COW_BLOCK_SHIFT)
		return 1;
	if (cow_extent_decode(value, length, key, t->check->super.total_blocks, &e, &used) == 0)
		check_tail(t->check, &e, t->record);
	return 0;
}

static void check_file_tree(struct cow_check *c, const struct cow_record *r, uint64_t born)
{
	struct cow_seen seen;
	struct tail tail = {c, r};

	if (!cow_check_visit(c, r->tree, COW_KIND_FILE, -1, born, &seen) || seen.partial)
		return;
	if (seen.sum.file.blocks != r->blocks)
		cow_check_say(c, COW_FIND_FILE_BLOCKS, seen.ptr.addr,
			      "inode %" PRIu64 ": %" PRIu64 " blocks mapped, record says %" PRIu64, r->number,
			      seen.sum.file.blocks, r->blocks);
	if (c->options->data && r->size % COW_BLOCK != 0)
		cow_check_each(c, r->tree, &(struct cow_check_each){.item = tail_item, .context = &tail});
}

bool cow_check_blob_tree(struct cow_check *c, struct cow_ptr ptr, uint64_t born, uint64_t length, uint64_t number)
{
	struct cow_seen seen;

	if (!cow_check_visit(c, ptr, COW_KIND_BLOB, -1, born, &seen) || seen.partial)
		return false;
	if (seen.sum.blob.length == length && !seen.sum.empty && seen.sum.first == 0)
		return true;
	cow_check_say(c, COW_FIND_BLOB, ptr.addr,
		      "inode %" PRIu64 ": byte string of %" PRIu64 " bytes, record says %" PRIu64, number,
		      seen.sum.blob.length, length);
	return false;
}

static void check_xattrs(struct cow_check *c, const struct cow_record *r, uint64_t born)
{
	uint8_t *list;

	if (cow_ptr_is_null(r->xattr_tree) || !cow_check_blob_tree(c, r->xattr_tree, born, r->xattr_length, r->number))
		return;
	list = cow_mem_new(r->xattr_length); /* at most COW_XATTR_LIST_MAX */
	if (cow_check_blob(c, r->xattr_tree, list, r->xattr_length) == 0 &&
	    cow_xattr_list_validate(list, r->xattr_length) != 0)
		cow_check_say(c, COW_FIND_XATTR, r->xattr_tree.addr, "inode %" PRIu64 ": malformed list of xattrs",
			      r->number);
	free(list);
}

static void add_world(struct cow_check *c, const struct cow_record *r)
{
	c->result->worlds++;
	c->worlds = cow_check_grow(c, c->worlds, c->world_count, &c->world_size, sizeof(*c->worlds));
	c->worlds[c->world_count++] = (struct cow_checked_world){
		.top = r->number,
		.tree = r->tree,
		.links = r->links,
		.refs = r->totals.refs,
		.backs = r->backs,
	};
}

static void check_world_sums(struct cow_check *c, const struct cow_record *r, uint64_t born)
{
	struct cow_seen s;

	if (!cow_check_visit(c, r->links, COW_KIND_LINKS, -1, born, &s))
		s = (struct cow_seen){0};
	if (s.partial)
		return;
	if (s.sum.links.backs != r->backs || s.sum.links.bytes != r->link_bytes ||
	    s.sum.links.blocks != r->link_blocks || s.sum.links.files != r->link_files)
		cow_check_say(c, COW_FIND_LINK_SUMS, s.ptr.addr,
			      "world of directory %" PRIu64 ": links sum up to %" PRIu64 " names, %" PRIu64
			      " bytes, %" PRIu64 " blocks, %" PRIu64 " files; record says %" PRIu64 ", %" PRIu64
			      ", %" PRIu64 ", %" PRIu64,
			      r->number, s.sum.links.backs, s.sum.links.bytes, s.sum.links.blocks, s.sum.links.files,
			      r->backs, r->link_bytes, r->link_blocks, r->link_files);
	if (r->totals.refs == 0 && !cow_ptr_is_null(r->links))
		cow_check_say(c, COW_FIND_LINKS_LEFT, s.ptr.addr,
			      "world of directory %" PRIu64 " has no references, but link records", r->number);
}

static void add_dir(struct cow_check *c, const struct cow_record *r, const struct cow_seen *holder)
{
	const struct cow_check_job job = {
		.tree = r->tree,
		.born = holder->ptr.generation,
		.kind = COW_KIND_DIR,
		.number = r->number,
		.uid = r->uid,
		.from = holder->kind == COW_KIND_DIR && !r->is_world ? holder->index : 0,
		.is_region = r->is_world || r->tag != 0 || c->nameless,
		.totals = r->totals,
	};

	cow_check_job_add(c, &job);
}

void cow_check_record(struct cow_check *c, const struct cow_record *r, const struct cow_seen *holder)
{
	uint64_t born = holder->ptr.generation;

	if (r->number >= c->counters.number || r->tag >= c->counters.number)
		cow_check_say(c, COW_FIND_NUMBER_RANGE, 0,
			      "inode %" PRIu64 ", tag %" PRIu64 ": the counter is at %" PRIu64, r->number, r->tag,
			      c->counters.number);
	check_xattrs(c, r, born);
	if (r->body == COW_BODY_EXTENTS)
		check_extent_list(c, r);
	else if (r->body == COW_BODY_TREE && S_ISLNK(r->mode))
		cow_check_blob_tree(c, r->tree, born, r->size, r->number);
	else if (r->body == COW_BODY_TREE)
		check_file_tree(c, r, born);
	if (r->body != COW_BODY_DIR)
		return;
	add_dir(c, r, holder);
	if (r->is_world) {
		check_world_sums(c, r, born);
		/* of a removed tree: records of open files have been taken out of it, their names have not */
		if (!c->reclaiming)
			add_world(c, r);
	}
}
