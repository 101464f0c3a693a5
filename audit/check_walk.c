/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit/check_walk.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "base/mem.h"
#include "store/node.h"

/*
 * CARRIES. The walk is depth-first: directories that wait are a stack, and when it is as low again as before one of
 * them was visited, everything below that one has been. Then `carries` goes up from its nodes to those above them, and
 * they are *closed*. A later pointer to a closed node takes over what is known by then. To one that is not closed
 * leads a clone inside of its source, or a ring: it counts as carrying, which costs a look and changes no result.
 */
struct cow_check_open { /* a node of a DIR tree, and where it was first found */
	uint32_t node, from;
};

struct cow_check_dir { /* a directory that was visited */
	size_t jobs, open; /* how many there were before */
};

/* ------------------------------------------------------------------ what waits */

void cow_check_job_add(struct cow_check *c, const struct cow_check_job *job)
{
	c->jobs = cow_check_grow(c, c->jobs, c->job_count, &c->job_size, sizeof(*c->jobs));
	c->jobs[c->job_count++] = *job;
}

/* ------------------------------------------------------------------ leaves: directories */

static uint64_t add_capped(uint64_t a, uint64_t b)
{
	return a + b < a ? UINT64_MAX : a + b;
}

/* Exceptions for whoever owns the directory: see cow_inode_exceptional(). */
static bool is_exception(const struct cow_record *r)
{
	uint32_t need = S_ISDIR(r->mode) ? S_IRUSR | S_IXUSR : S_ISLNK(r->mode) ? 0 : S_IRUSR;

	return (r->mode & (S_ISUID | S_ISGID)) != 0 || S_ISCHR(r->mode) || S_ISBLK(r->mode) || (r->mode & need) != need;
}

static void add_owned(struct cow_seen *to, uint32_t uid, uint64_t count, bool mixed)
{
	if (count != 0 && to->sum.dir.owned != 0 && to->sum.dir.uid != uid)
		to->sum.dir.mixed = true;
	if (count != 0)
		to->sum.dir.uid = uid;
	to->sum.dir.owned += count;
	to->sum.dir.mixed |= mixed;
}

static void add_totals(struct cow_totals *to, const struct cow_totals *from)
{
	to->bytes += from->bytes;
	to->blocks += from->blocks;
	to->files += from->files;
	to->dirs += from->dirs;
	to->refs += from->refs;
	to->nested_refs += from->nested_refs;
	to->exceptions = add_capped(to->exceptions, from->exceptions);
}

static void sum_record(struct cow_seen *seen, const struct cow_record *r)
{
	struct cow_totals part = {.bytes = r->size, .blocks = r->blocks, .files = 1};

	if (r->body == COW_BODY_DIR) {
		part = r->totals;
		part.dirs++;
		if (r->is_world) {
			part.nested_refs += part.refs;
			part.refs = 0;
		}
	}
	if (is_exception(r))
		part.exceptions = add_capped(part.exceptions, 1);
	else
		add_owned(seen, r->uid, 1, false);
	add_totals(&seen->sum.dir.totals, &part);
}

static void check_name(struct cow_check *c, const struct cow_seen *seen, uint64_t key, struct cow_slice name)
{
	const uint8_t *hash_key = c->counters.hash_key;
	uint64_t hash;

	if (c->reclaiming && name.length == 0)
		return; /* a holding that was given back leaves an old root or orphan in the queue */
	if ((name.length == 0) != c->nameless) {
		cow_check_say(c, COW_FIND_ENTRY_NAME, seen->ptr.addr, "entry %#" PRIx64 " has %s name", key,
			      name.length == 0 ? "no" : "a");
		return;
	}
	if (c->nameless)
		return;
	hash = XXH3_64bits_withSeed(name.bytes, name.length, get64(hash_key) ^ get64(hash_key + 8)) >> 8;
	if (key / COW_KEY_ORDINALS != (hash != 0 ? hash : 1))
		cow_check_say(c, COW_FIND_ENTRY_KEY, seen->ptr.addr,
			      "entry %.*s is at key %#" PRIx64 ", its hash is %#" PRIx64, (int)name.length,
			      (const char *)name.bytes, key, hash);
}

static void take_root(struct cow_check *c, uint64_t key, const struct cow_record *r)
{
	if (key != COW_KEY_FIRST || c->has_root)
		return;
	c->root = *r;
	c->root.data = c->root.xattr = (struct cow_slice){0};
	c->has_root = true;
}

static void check_dirent(struct cow_check *c, struct cow_seen *seen, uint64_t key, const uint8_t *value,
			 uint32_t length)
{
	static const struct cow_totals link = {.refs = 1, .exceptions = 1};
	struct cow_dirent entry;
	struct cow_record r;

	if (cow_dirent_decode(value, length, &entry) != 0)
		return;
	check_name(c, seen, key, entry.name);
	if (entry.is_link) {
		add_totals(&seen->sum.dir.totals, &link);
		return;
	}
	if (cow_record_decode(entry.record.bytes, entry.record.length, c->super.total_blocks, &r) != 0)
		return;
	sum_record(seen, &r);
	if (c->nameless && seen->kind == COW_KIND_DIR)
		take_root(c, key, &r);
	seen->carries |= r.tag != 0 || r.is_world;
	if (!c->again)
		cow_check_record(c, &r, seen);
}

/* ------------------------------------------------------------------ leaves: the other kinds */

static void check_link_row(struct cow_check *c, struct cow_seen *seen, uint64_t key, const uint8_t *value,
			   uint32_t length)
{
	struct cow_link_row row;
	struct cow_record r;

	if (key >= c->counters.number)
		cow_check_say(c, COW_FIND_NUMBER_RANGE, seen->ptr.addr,
			      "link key %" PRIu64 ": the counter is at %" PRIu64, key, c->counters.number);
	if (cow_link_row_decode(value, length, &row) != 0 ||
	    cow_record_decode(row.record.bytes, row.record.length, c->super.total_blocks, &r) != 0)
		return; /* a spine row; both were validated */
	seen->sum.links.backs += row.backs;
	seen->sum.links.bytes += r.size;
	seen->sum.links.blocks += r.blocks;
	seen->sum.links.files++;
	seen->sum.links.tagged += r.tag != 0;
	if (c->again)
		return;
	c->result->links++;
	cow_check_record(c, &r, seen);
	if (row.backs > COW_BACKS_INLINE_MAX)
		cow_check_blob_tree(c, row.back_tree, seen->ptr.generation, (uint64_t)row.backs * 16, r.number);
}

static void check_extent(struct cow_check *c, struct cow_seen *seen, uint64_t key, const uint8_t *value,
			 uint32_t length)
{
	struct cow_extent e;
	uint32_t used;

	if (cow_extent_decode(value, length, key, c->super.total_blocks, &e, &used) != 0)
		return;
	if (key < seen->sum.file.end)
		cow_check_say(c, COW_FIND_FILE_MAP, seen->ptr.addr,
			      "extent at file block %" PRIu64 " overlaps the one before it", key);
	seen->sum.file.end = key + e.blocks;
	seen->sum.file.blocks += e.blocks;
	cow_check_claim_extent(c, &e, 0);
}

static void check_chunk(struct cow_check *c, struct cow_seen *seen, uint64_t key, uint32_t length)
{
	uint64_t start = seen->sum.empty ? key : seen->sum.first;

	if (key != start + seen->sum.blob.length || (!seen->sum.empty && seen->sum.blob.length % COW_BLOB_CHUNK != 0))
		cow_check_say(c, COW_FIND_BLOB, seen->ptr.addr, "byte string has a hole before %" PRIu64, key);
	seen->sum.blob.length += length;
}

static void check_row(struct cow_check *c, const struct cow_seen *seen, uint64_t key, const uint8_t *value,
		      uint32_t length)
{
	struct cow_row row;
	uint8_t bytes[16];
	uint64_t first;

	if (c->again || cow_row_decode(value, length, &row) != 0)
		return;
	put64(bytes, row.a);
	put64(bytes + 8, row.b);
	first = XXH3_64bits_withSeed(bytes, sizeof(bytes), get64(c->counters.hash_key)) & 0x00ffffffffffff80ull;
	first |= (uint64_t)row.type << 56;
	if (key < first || key >= first + 128)
		cow_check_say(c, COW_FIND_ROW, seen->ptr.addr, "row %u of (%" PRIu64 ", %" PRIu64 ") is at a wrong key",
			      row.type, row.a, row.b);
	c->rows = cow_check_grow(c, c->rows, c->row_count, &c->row_size, sizeof(*c->rows));
	c->rows[c->row_count++] = row;
}

/* A queue that was damaged is an entry of the one begun anew: so they may be nested without limit, too, and wait. */
static void check_waiting(struct cow_check *c, const struct cow_seen *seen, const uint8_t *value)
{
	const struct cow_check_job job = {
		.tree = cow_ptr_get(value),
		.born = seen->ptr.generation,
		.kind = value[COW_PTR_BYTES],
	};
	struct cow_seen below;

	if (c->again)
		return;
	if (job.kind == COW_KIND_RECLAIM)
		cow_check_job_add(c, &job);
	else
		cow_check_visit(c, job.tree, job.kind, -1, job.born, &below);
}

static void check_value(struct cow_check *c, struct cow_seen *seen, uint64_t key, const uint8_t *value, uint32_t length)
{
	switch (seen->kind) {
	case COW_KIND_RECLAIM: check_waiting(c, seen, value); break;
	case COW_KIND_DIR:
		c->entries += !c->again;
		check_dirent(c, seen, key, value, length);
		break;
	case COW_KIND_LINKS:
		c->entries += !c->again;
		check_link_row(c, seen, key, value, length);
		break;
	case COW_KIND_FILE: check_extent(c, seen, key, value, length); break;
	case COW_KIND_BLOB: check_chunk(c, seen, key, length); break;
	default: check_row(c, seen, key, value, length); break;
	}
}

/* ------------------------------------------------------------------ nodes */

bool cow_check_item_at(const uint8_t *bytes, unsigned i, struct cow_check_item *item)
{
	unsigned items = get16(bytes + 6);
	uint32_t start, end;

	if (bytes[5] != 0) {
		const uint8_t *at = bytes + COW_NODE_HEADER + (size_t)i * COW_INNER_ITEM;

		*item = (struct cow_check_item){get64(at), at + 8, COW_PTR_BYTES};
		return true;
	}
	start = get16(bytes + COW_NODE_HEADER + i * COW_LEAF_SLOT + 8);
	end = i == 0 ? COW_BLOCK : get16(bytes + COW_NODE_HEADER + (i - 1) * COW_LEAF_SLOT + 8);
	if (start > end || end > COW_BLOCK || end - start > COW_VALUE_MAX ||
	    start < COW_NODE_HEADER + items * COW_LEAF_SLOT)
		return false;
	*item = (struct cow_check_item){get64(bytes + COW_NODE_HEADER + i * COW_LEAF_SLOT), bytes + start, end - start};
	return true;
}

uint64_t cow_check_last_below(const uint8_t *bytes, unsigned i, uint64_t last)
{
	struct cow_check_item item, next;

	if (i + 1u >= get16(bytes + 6) || !cow_check_item_at(bytes, i, &item) ||
	    !cow_check_item_at(bytes, i + 1, &next) || next.key <= item.key || next.key > last)
		return last;
	return next.key - 1;
}

const char *cow_check_header(const uint8_t *bytes, struct cow_ptr ptr, uint8_t kind, int level)
{
	unsigned items = get16(bytes + 6);

	if (get32(bytes) != COW_NODE_MAGIC)
		return "no node";
	if (bytes[4] != kind)
		return "node of another kind";
	if (bytes[5] > COW_LEVEL_DISK || (level >= 0 && bytes[5] != level))
		return "node of another level";
	if (get64(bytes + 8) != ptr.addr)
		return "node belongs elsewhere";
	if (get64(bytes + 16) != ptr.generation)
		return "node of another generation";
	if (get64(bytes + 24) != 0)
		return "node with reserved bytes that are not zero";
	if (bytes[5] != 0 && (items == 0 || items > COW_INNER_ITEMS_MAX))
		return "inner node with an impossible number of items";
	if (bytes[5] == 0 && COW_NODE_HEADER + items * COW_LEAF_SLOT > COW_BLOCK)
		return "leaf with an impossible number of items";
	return NULL;
}

static bool value_valid(const struct cow_check *c, uint8_t kind, uint8_t level, const struct cow_check_item *item)
{
	uint64_t total = c->super.total_blocks;

	if (level > 0 || kind == COW_KIND_RECLAIM) {
		struct cow_ptr ptr;

		if (level == 0 && (item->length != COW_PTR_BYTES + 1 || item->value[COW_PTR_BYTES] < COW_KIND_RECLAIM ||
				   item->value[COW_PTR_BYTES] > COW_KIND_NUMBERS))
			return false;
		ptr = cow_ptr_get(item->value);
		return ptr.generation != 0 && cow_layout_run_valid(ptr.addr, 1, total);
	}
	return cow_value_validate(kind, item->key, item->value, item->length, total) == 0;
}

/* The sums of a child are added to its parent's; keys must lie where the parent says: from `key` to below `end`. */
static void add_child(struct cow_check *c, struct cow_seen *seen, const struct cow_seen *child, uint64_t key,
		      uint64_t end)
{
	seen->partial |= child->partial;
	if (child->level == 0 && child->sum.empty && !child->bad && !child->partial)
		cow_check_say(c, COW_FIND_NODE_ITEM, child->ptr.addr, "a leaf below another node is empty");
	if (child->bad || child->sum.empty)
		return;
	if (child->sum.first < key || (end != 0 && child->sum.last >= end))
		cow_check_say(c, COW_FIND_NODE_ORDER, child->ptr.addr,
			      "keys %#" PRIx64 " to %#" PRIx64 " are outside of what the parent says", child->sum.first,
			      child->sum.last);
	switch (seen->kind) {
	case COW_KIND_DIR:
		add_totals(&seen->sum.dir.totals, &child->sum.dir.totals);
		add_owned(seen, child->sum.dir.uid, child->sum.dir.owned, child->sum.dir.mixed);
		break;
	case COW_KIND_LINKS:
		seen->sum.links.backs += child->sum.links.backs;
		seen->sum.links.bytes += child->sum.links.bytes;
		seen->sum.links.blocks += child->sum.links.blocks;
		seen->sum.links.files += child->sum.links.files;
		seen->sum.links.tagged += child->sum.links.tagged;
		break;
	case COW_KIND_FILE:
		if (child->sum.first < seen->sum.file.end)
			cow_check_say(c, COW_FIND_FILE_MAP, child->ptr.addr,
				      "extents overlap those of the node before");
		seen->sum.file.blocks += child->sum.file.blocks;
		seen->sum.file.end = child->sum.file.end;
		break;
	case COW_KIND_BLOB:
		check_chunk(c, seen, child->sum.first, 0);
		seen->sum.blob.length += child->sum.blob.length;
		break;
	default: break;
	}
	if (seen->sum.empty)
		seen->sum.first = child->sum.first;
	seen->sum.last = child->sum.last;
	seen->sum.empty = false;
}

/* `from` leads to `to`. */
static void carry(struct cow_check *c, uint32_t from, const struct cow_seen *to)
{
	struct cow_check_node *node = &c->nodes[from];

	if (c->again)
		return;
	if (to->fresh) {
		c->open = cow_check_grow(c, c->open, c->open_count, &c->open_size, sizeof(*c->open));
		c->open[c->open_count++] = (struct cow_check_open){to->index, from};
	} else if (!c->nodes[to->index].closed || c->nodes[to->index].carries) {
		node->carries = true;
	}
}

static void visit_child(struct cow_check *c, struct cow_seen *seen, const uint8_t *bytes, unsigned i,
			const struct cow_check_item *item)
{
	struct cow_check_item next = {0};
	struct cow_seen child;

	if (!cow_check_visit(c, cow_ptr_get(item->value), seen->kind, seen->level - 1, seen->ptr.generation, &child))
		return;
	if (seen->kind == COW_KIND_DIR)
		carry(c, seen->index, &child);
	if (i + 1u < get16(bytes + 6))
		cow_check_item_at(bytes, i + 1, &next);
	add_child(c, seen, &child, item->key, next.key);
}

/* The same name twice: its entries have the same hash, so they are neighbours. */
static void check_twins(struct cow_check *c, const struct cow_seen *seen, const struct cow_check_item *a,
			const struct cow_check_item *b)
{
	struct cow_dirent x, y;

	if (a->value == NULL || a->key / COW_KEY_ORDINALS != b->key / COW_KEY_ORDINALS || c->nameless)
		return;
	if (cow_dirent_decode(a->value, a->length, &x) == 0 && cow_dirent_decode(b->value, b->length, &y) == 0 &&
	    cow_slice_compare(x.name, y.name) == 0)
		cow_check_say(c, COW_FIND_ENTRY_NAME, seen->ptr.addr, "name %.*s is there twice", (int)x.name.length,
			      (const char *)x.name.bytes);
}

static void visit_items(struct cow_check *c, struct cow_seen *seen, const uint8_t *bytes)
{
	struct cow_check_item item, last = {0};

	for (unsigned i = 0; i < get16(bytes + 6); i++, last = item) {
		if (!cow_check_item_at(bytes, i, &item) || !value_valid(c, seen->kind, seen->level, &item)) {
			cow_check_say(c, COW_FIND_NODE_ITEM, seen->ptr.addr,
				      "item %u of a node of kind %u is malformed", i, seen->kind);
			seen->partial = true;
			c->unreadable += !c->again;
			return;
		}
		if (i > 0 && item.key <= last.key)
			cow_check_say(c, COW_FIND_NODE_ORDER, seen->ptr.addr, "key %#" PRIx64 " comes after %#" PRIx64,
				      item.key, last.key);
		if (seen->level > 0) {
			visit_child(c, seen, bytes, i, &item);
			continue;
		}
		if (seen->kind == COW_KIND_DIR)
			check_twins(c, seen, &last, &item);
		check_value(c, seen, item.key, item.value, item.length);
		if (seen->sum.empty)
			seen->sum.first = item.key;
		seen->sum.last = item.key;
		seen->sum.empty = false;
	}
}

/* Reads and judges the node itself. */
static bool load(struct cow_check *c, struct cow_ptr ptr, uint8_t kind, int level, uint8_t bytes[COW_BLOCK])
{
	const char *wrong;

	if (cow_dev_read(c->dev, bytes, COW_BLOCK, ptr.addr << COW_BLOCK_SHIFT) != 0) {
		cow_check_say(c, COW_FIND_NODE_READ, ptr.addr, "node cannot be read");
		return false;
	}
	if (XXH3_64bits(bytes, COW_BLOCK) != ptr.sum) {
		cow_check_say(c, COW_FIND_NODE_SUM, ptr.addr, "node of kind %u does not fit its checksum", kind);
		return false;
	}
	wrong = cow_check_header(bytes, ptr, kind, level);
	if (wrong != NULL)
		cow_check_say(c, COW_FIND_NODE_HEADER, ptr.addr, "%s, expected kind %u", wrong, kind);
	return wrong == NULL;
}

static void check_again(struct cow_check *c, const struct cow_check_node *node, struct cow_ptr ptr, uint8_t kind,
			int level)
{
	if (node->print != cow_check_print(ptr.sum, ptr.generation) || node->kind != kind ||
	    (level >= 0 && !node->bad && node->level != level))
		cow_check_say(c, COW_FIND_NODE_SHARED, ptr.addr, "two pointers disagree about this node");
}

static void visit_first(struct cow_check *c, struct cow_seen *seen, int level)
{
	uint8_t *bytes = cow_check_new(c, COW_BLOCK); /* not on the stack: three trees of 12 levels may be nested */
	struct cow_check_node *node;

	if (load(c, seen->ptr, seen->kind, level, bytes)) {
		seen->bad = seen->partial = false;
		seen->level = bytes[5];
		node = &c->nodes[seen->index];
		node->bad = node->partial = false;
		node->level = seen->level & 15;
		node->busy = true;
		seen->outer = c->busy;
		c->busy = seen;
		visit_items(c, seen, bytes);
		c->busy = seen->outer;
	} else {
		c->unreadable++;
	}
	cow_check_free(c, bytes, COW_BLOCK);
	node = &c->nodes[seen->index]; /* the table may have moved */
	node->busy = false;
	node->partial = seen->partial;
	node->carries |= seen->carries;
	node->refs = seen->kind == COW_KIND_DIR && seen->sum.dir.totals.refs != 0;
	node->tagged = seen->kind == COW_KIND_LINKS && seen->sum.links.tagged != 0;
	if (!seen->bad && cow_check_node_shared(c, seen->ptr.addr))
		cow_check_node_keep(c, seen->index, &seen->sum);
}

/* The bytes of a node that was good. */
static bool read_again(struct cow_check *c, const struct cow_check_node *node, uint8_t bytes[COW_BLOCK])
{
	return cow_dev_read(c->dev, bytes, COW_BLOCK, (uint64_t)node->addr << COW_BLOCK_SHIFT) == 0 &&
	       cow_check_print(XXH3_64bits(bytes, COW_BLOCK), get64(bytes + 16)) == node->print;
}

/* The sums of a node of which nobody said that there are more pointers to it. */
static void sum_again(struct cow_check *c, struct cow_seen *seen)
{
	uint8_t *bytes = cow_check_new(c, COW_BLOCK);
	bool again = c->again;

	if (read_again(c, &c->nodes[seen->index], bytes)) {
		c->nodes[seen->index].busy = true;
		seen->outer = c->busy;
		c->busy = seen;
		c->again = true;
		seen->ptr.generation = get64(bytes + 16);
		visit_items(c, seen, bytes);
		c->again = again;
		c->busy = seen->outer;
		c->nodes[seen->index].busy = false;
		cow_check_node_keep(c, seen->index, &seen->sum);
	} else {
		seen->bad = seen->partial = true;
	}
	cow_check_free(c, bytes, COW_BLOCK);
}

/* What a node visited before came to; in a ring, what it has come to up to now. */
static void recall(struct cow_check *c, struct cow_seen *seen)
{
	const struct cow_check_node *node = &c->nodes[seen->index];
	const struct cow_check_sums *kept = cow_map_get(&c->kept, seen->index);
	const struct cow_seen *busy = c->busy;

	seen->kind = node->kind;
	seen->level = node->level;
	seen->bad = node->bad;
	seen->partial = node->partial;
	if (node->busy) {
		while (busy->index != seen->index)
			busy = busy->outer;
		seen->partial = busy->partial;
		seen->sum = busy->sum;
	} else if (kept != NULL) {
		seen->sum = *kept;
	} else if (!node->bad) {
		sum_again(c, seen);
	}
}

bool cow_check_visit(struct cow_check *c, struct cow_ptr ptr, uint8_t kind, int level, uint64_t born,
		  struct cow_seen *seen)
{
	if (cow_ptr_is_null(ptr))
		return false;
	cow_check_claim(c, ptr.addr, COW_CHECK_NODE);
	if (ptr.generation > born)
		cow_check_say(c, COW_FIND_NODE_BIRTH, ptr.addr, "node of generation %" PRIu64 " below one of %" PRIu64,
			      ptr.generation, born);
	*seen = (struct cow_seen){.ptr = ptr, .kind = kind, .bad = true, .partial = true, .sum.empty = true};
	seen->index = cow_check_node_find(c, ptr.addr);
	if (seen->index != 0) {
		check_again(c, &c->nodes[seen->index], ptr, kind, level);
		recall(c, seen);
		return true;
	}
	seen->fresh = true;
	seen->index = cow_check_node_add(c, ptr, kind); /* before its children: a ring ends here */
	c->result->nodes++;
	visit_first(c, seen, level);
	return true;
}

/* ------------------------------------------------------------------ the walk */

static bool totals_equal(const struct cow_totals *a, const struct cow_totals *b)
{
	return a->bytes == b->bytes && a->blocks == b->blocks && a->files == b->files && a->dirs == b->dirs &&
	       a->refs == b->refs && a->nested_refs == b->nested_refs;
}

static void check_totals(struct cow_check *c, const struct cow_check_job *job, const struct cow_seen *seen)
{
	const struct cow_totals *is, *says = &job->totals;
	uint64_t exceptions;

	if (seen->partial)
		return;
	is = &seen->sum.dir.totals;
	if (!totals_equal(is, says))
		cow_check_say(c, COW_FIND_TOTALS, seen->ptr.addr,
			      "directory %" PRIu64 ": entries sum up to bytes %" PRIu64 " blocks %" PRIu64
			      " files %" PRIu64 " directories %" PRIu64 " references %" PRIu64 "+%" PRIu64
			      ", record says %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "+%" PRIu64,
			      job->number, is->bytes, is->blocks, is->files, is->dirs, is->refs, is->nested_refs,
			      says->bytes, says->blocks, says->files, says->dirs, says->refs, says->nested_refs);
	exceptions = is->exceptions;
	if (!seen->sum.dir.mixed && seen->sum.dir.uid != job->uid)
		exceptions = add_capped(exceptions, seen->sum.dir.owned);
	if (says->exceptions < exceptions)
		cow_check_say(c, COW_FIND_EXCEPTIONS, seen->ptr.addr,
			      "directory %" PRIu64 ": at least %" PRIu64 " exceptions, record says %" PRIu64,
			      job->number, exceptions, says->exceptions);
}

/* Nodes come after those below them. */
static void close_nodes(struct cow_check *c, size_t from)
{
	for (size_t i = from; i < c->open_count; i++) {
		struct cow_check_node *node = &c->nodes[c->open[i].node];

		node->closed = true;
		if (node->carries)
			c->nodes[c->open[i].from].carries = true;
	}
	c->open_count = from;
}

static void visit_dir(struct cow_check *c, const struct cow_check_job *job)
{
	struct cow_seen seen;
	uint64_t size;

	c->dirs = cow_check_grow(c, c->dirs, c->dir_count, &c->dir_size, sizeof(*c->dirs));
	c->dirs[c->dir_count++] = (struct cow_check_dir){c->job_count, c->open_count};
	if (cow_check_visit(c, job->tree, COW_KIND_DIR, -1, job->born, &seen))
		carry(c, job->from, &seen);
	else
		seen = (struct cow_seen){0};
	check_totals(c, job, &seen);
	size = seen.sum.dir.totals.files + seen.sum.dir.totals.dirs + seen.sum.dir.totals.refs;
	if (job->is_region && size != 0)
		cow_map_put(&c->sizes, job->tree.addr, (void *)(uintptr_t)(size < UINTPTR_MAX ? size : UINTPTR_MAX));
}

static void run_jobs(struct cow_check *c)
{
	while (c->job_count > 0) {
		struct cow_check_job job = c->jobs[--c->job_count];
		struct cow_seen seen;

		if (job.kind == COW_KIND_DIR)
			visit_dir(c, &job);
		else
			cow_check_visit(c, job.tree, job.kind, -1, job.born, &seen);
		while (c->dir_count > 0 && c->dirs[c->dir_count - 1].jobs == c->job_count)
			close_nodes(c, c->dirs[--c->dir_count].open);
	}
	close_nodes(c, 0);
}

/* The ring of the intent log is the superblock's. */
static void claim_log(struct cow_check *c)
{
	const struct cow_log_root *log = &c->super.log;

	for (uint32_t i = 0; i < log->blocks; i++)
		cow_check_claim(c, cow_layout_ring(log->start, i), COW_CHECK_DATA);
}

void cow_check_walk(struct cow_check *c)
{
	static const uint8_t kinds[COW_ROOTS] = {COW_KIND_RECLAIM, COW_KIND_DIR, COW_KIND_DIR, COW_KIND_NUMBERS};

	claim_log(c);
	/* The queue last: what it shares with the live trees is to be seen as theirs. */
	for (unsigned k = 1; k <= COW_ROOTS; k++) {
		unsigned i = k % COW_ROOTS;
		struct cow_seen seen;

		if (c->super.root_kinds[i] != kinds[i]) {
			cow_check_say(c, COW_FIND_SUPER_ROOTS, 0, "root %u has kind %u", i, c->super.root_kinds[i]);
			c->unreadable++;
			continue;
		}
		c->nameless = i == COW_ROOT_TOP || i == COW_ROOT_ORPHANS;
		c->reclaiming = i == COW_ROOT_RECLAIM;
		cow_check_visit(c, c->super.roots[i], kinds[i], -1, c->super.generation, &seen);
		c->nameless = false;
		if (i == COW_ROOT_TOP && (!c->has_root || !c->root.is_world || c->root.read_only))
			cow_check_say(c, COW_FIND_ROOT, c->super.roots[i].addr, "no usable root directory");
		run_jobs(c);
	}
}

/* ------------------------------------------------------------------ trees visited before */

/* Only keys from `low` to `high`: so a node has its place in a tree only once, however many pointers lead to it. */
static int each_below(struct cow_check *c, const struct cow_check_node *node, uint64_t low, uint64_t high,
		      const struct cow_check_each *each)
{
	uint8_t *bytes;
	struct cow_check_item item;
	int result = 0;

	if (node == NULL || node->bad || (each->enter != NULL && !each->enter(node)))
		return 0;
	bytes = cow_check_new(c, COW_BLOCK);
	if (read_again(c, node, bytes)) {
		for (unsigned i = 0; result == 0 && i < get16(bytes + 6); i++) {
			if (!cow_check_item_at(bytes, i, &item) || !value_valid(c, node->kind, node->level, &item) ||
			    item.key < low || item.key > high)
				break;
			low = item.key + 1; /* of the next one; 0: there is none */
			if (node->level == 0) {
				result = each->item(each->context, item.key, item.value, item.length);
				continue;
			}
			const struct cow_check_node *child = cow_check_seen(c, cow_ptr_get(item.value));

			if (child != NULL && child->kind == node->kind && child->level + 1 == node->level)
				result = each_below(c, child, item.key, cow_check_last_below(bytes, i, high), each);
			if (low == 0)
				break;
		}
	}
	cow_check_free(c, bytes, COW_BLOCK);
	return result;
}

int cow_check_each(struct cow_check *c, struct cow_ptr root, const struct cow_check_each *each)
{
	return each_below(c, cow_check_seen(c, root), 0, UINT64_MAX, each);
}

int cow_check_chunk(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct cow_check_chunks *r = context;

	if (key != r->done || length > r->length - r->done)
		return -1;
	memcpy(r->bytes + r->done, value, length);
	r->done += length;
	return 0;
}

int cow_check_blob(struct cow_check *c, struct cow_ptr root, uint8_t *bytes, uint32_t length)
{
	struct cow_check_chunks r = {bytes, length, 0};
	int result = cow_check_each(c, root, &(struct cow_check_each){.item = cow_check_chunk, .context = &r});

	return result != 0 || r.done != length ? -1 : 0;
}
