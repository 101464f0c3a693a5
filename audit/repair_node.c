/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pass over trees: each node once, children before parents, on a stack of its own because directories may be
 * nested without limit. A node is looked at twice: when it is entered, what it leads to is put on the stack; when
 * that is done, it is made anew if anything in it has to change.
 */
#include <assert.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/mem.h"
#include "audit/repair.h"
#include "store/node.h"

struct cow_witness {
	unsigned count;
	bool complete; /* nothing between or behind the children looks like one more */
	uint64_t keys[COW_INNER_ITEMS_MAX];
	struct cow_ptr ptrs[COW_INNER_ITEMS_MAX];
};

struct todo {
	struct cow_ptr ptr;
	struct cow_mended *up, *leave; /* leave: its children are done */
	uint64_t up_key;
	uint8_t kind;
	int8_t level;
};

struct pass {
	struct cow_mender *mender;
	struct todo *stack;
	size_t depth, size;
};

/* ------------------------------------------------------------------ reading */

int cow_repair_read(struct cow_repair *r, uint64_t block, uint8_t bytes[COW_BLOCK])
{
	return cow_dev_read(r->overlay, bytes, COW_BLOCK, block << COW_BLOCK_SHIFT);
}

bool cow_repair_load(struct cow_repair *r, struct cow_ptr ptr, uint8_t kind, int level, uint8_t bytes[COW_BLOCK])
{
	return cow_layout_run_valid(ptr.addr, 1, r->super.total_blocks) && cow_repair_read(r, ptr.addr, bytes) == 0 &&
	       XXH3_64bits(bytes, COW_BLOCK) == ptr.sum && cow_check_header(bytes, ptr, kind, level) == NULL;
}

bool cow_repair_item(const struct cow_repair *r, const uint8_t *bytes, unsigned i, struct cow_check_item *item)
{
	struct cow_ptr ptr;

	if (!cow_check_item_at(bytes, i, item))
		return false;
	if (bytes[5] == 0 && bytes[4] != COW_KIND_RECLAIM)
		return cow_value_validate(bytes[4], item->key, item->value, item->length, r->super.total_blocks) == 0;
	if (bytes[5] == 0 && (item->length != COW_PTR_BYTES + 1 || item->value[COW_PTR_BYTES] < COW_KIND_RECLAIM ||
			      item->value[COW_PTR_BYTES] > COW_KIND_NUMBERS))
		return false;
	ptr = cow_ptr_get(item->value);
	return ptr.generation != 0 && cow_layout_run_valid(ptr.addr, 1, r->super.total_blocks);
}

/* A level goes down with each step: what somebody made up is no deeper than any tree. */
static int each(struct cow_repair *r, struct cow_ptr root, uint8_t kind, int level, uint64_t low, uint64_t high,
		cow_repair_item_fn fn, void *context)
{
	uint8_t *bytes;
	struct cow_check_item item;
	int result = 0;

	if (cow_ptr_is_null(root))
		return 0;
	bytes = cow_mem_new(COW_BLOCK);
	if (cow_repair_load(r, root, kind, level, bytes)) {
		for (unsigned i = 0; result == 0 && i < get16(bytes + 6); i++) {
			if (!cow_repair_item(r, bytes, i, &item))
				continue;
			if (item.key < low || item.key > high)
				break; /* each node has one place only, however many pointers lead to it */
			if (bytes[5] == 0)
				result = fn(context, item.key, item.value, item.length);
			else
				result = each(r, cow_ptr_get(item.value), kind, bytes[5] - 1, item.key,
					      cow_check_last_below(bytes, i, high), fn, context);
			low = item.key + 1;
			if (low == 0)
				break;
		}
	}
	free(bytes);
	return result;
}

int cow_repair_each(struct cow_repair *r, struct cow_ptr root, uint8_t kind, cow_repair_item_fn fn, void *context)
{
	return each(r, root, kind, -1, 0, UINT64_MAX, fn, context);
}

struct cow_mended *cow_mend_find(const struct cow_mender *mender, struct cow_ptr ptr, uint8_t kind, int level)
{
	struct cow_mended *m = cow_map_get(mender->memo, ptr.addr);

	if (m == NULL || !m->done || m->kind != kind || m->old.sum != ptr.sum || m->old.generation != ptr.generation ||
	    (level >= 0 && m->level != level))
		return NULL;
	return m;
}

/* ------------------------------------------------------------------ one flipped bit */

/*
 * Is there one bit that, flipped back, makes the checksum fit? Of 64 bits, so a wrong one fits once in 2^49 times. Then
 * the block is put right where it is: nobody can have made use of it as it was.
 */
static bool flip_back(struct cow_repair *r, struct cow_ptr ptr)
{
	uint8_t bytes[COW_BLOCK];

	if (!cow_layout_run_valid(ptr.addr, 1, r->super.total_blocks) || cow_repair_read(r, ptr.addr, bytes) != 0)
		return false;
	for (unsigned bit = 0; bit < 8 * COW_BLOCK; bit++) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (XXH3_64bits(bytes, COW_BLOCK) == ptr.sum)
			return cow_dev_write(r->overlay, bytes, COW_BLOCK, ptr.addr << COW_BLOCK_SHIFT) == 0;
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	return false;
}

/* ------------------------------------------------------------------ a damaged inner node that tells its children */

static bool read_witness(struct cow_repair *r, const struct cow_ptr *from, uint8_t kind, int level,
			 const uint8_t *bytes, unsigned i, struct cow_witness *w, uint64_t *last)
{
	const uint8_t *at = bytes + COW_NODE_HEADER + (size_t)i * COW_INNER_ITEM;
	struct cow_ptr ptr = cow_ptr_get(at + 8);
	uint8_t child[COW_BLOCK];
	uint64_t first;

	if (ptr.generation == 0 || ptr.generation > from->generation ||
	    !cow_repair_load(r, ptr, kind, level - 1, child) || get16(child + 6) == 0)
		return false;
	first = get64(child + COW_NODE_HEADER);
	if (w->count > 0 && first <= *last)
		return false;
	w->keys[w->count] = get64(at) <= first && (w->count == 0 || get64(at) > *last) ? get64(at) : first;
	w->ptrs[w->count++] = ptr;
	*last = get64(child + COW_NODE_HEADER +
		      (size_t)(get16(child + 6) - 1) * (child[5] != 0 ? COW_INNER_ITEM : COW_LEAF_SLOT));
	return true;
}

/*
 * A pointer whose 64-bit checksum fits the block it names was not made by chance: such children are the node's own.
 * That it is an inner node must be known, from the parent or from a head that is whole: the pointers in a leaf of a
 * directory lead to others.
 */
static struct cow_witness *find_witness(struct cow_repair *r, struct cow_ptr ptr, uint8_t kind, int *level)
{
	struct cow_witness *w;
	uint8_t bytes[COW_BLOCK];
	bool gap = false;
	uint64_t last = 0;

	if (*level == 0 || !cow_layout_run_valid(ptr.addr, 1, r->super.total_blocks) ||
	    cow_repair_read(r, ptr.addr, bytes) != 0)
		return NULL;
	if (*level < 0 && (get32(bytes) != COW_NODE_MAGIC || bytes[4] != kind || get64(bytes + 8) != ptr.addr ||
			   bytes[5] == 0 || bytes[5] >= COW_LEVEL_MAX))
		return NULL;
	*level = *level < 0 ? bytes[5] : *level;
	w = cow_mem_new(sizeof(*w));
	w->complete = true;
	for (unsigned i = 0; i < COW_INNER_ITEMS_MAX; i++) {
		bool taken = read_witness(r, &ptr, kind, *level, bytes, i, w, &last);
		bool empty = get64(bytes + COW_NODE_HEADER + (size_t)i * COW_INNER_ITEM + 8) == 0;

		if ((taken && gap) || (!taken && !empty))
			w->complete = false;
		gap |= !taken;
	}
	w->complete &= w->count == get16(bytes + 6);
	if (w->count > 0)
		return w;
	free(w);
	return NULL;
}

/* ------------------------------------------------------------------ entering */

static void add(struct pass *p, struct todo todo)
{
	if (p->depth == p->size) {
		p->size = p->size != 0 ? 2 * p->size : 256;
		p->stack = cow_mem_resize(p->stack, p->size * sizeof(*p->stack));
	}
	p->stack[p->depth++] = todo;
}

static void push(struct pass *p, struct cow_ptr ptr, uint8_t kind, int level, struct cow_mended *up, uint64_t up_key)
{
	if (!cow_ptr_is_null(ptr) && cow_map_get(p->mender->memo, ptr.addr) == NULL)
		add(p, (struct todo){.ptr = ptr, .kind = kind, .level = (int8_t)level, .up = up, .up_key = up_key});
}

struct pusher {
	struct cow_claims claims;
	struct pass *pass;
	struct cow_mended *leaf;
	uint64_t key;
};

static void push_tree(struct cow_claims *self, uint8_t *ptr, uint8_t kind)
{
	struct pusher *p = (struct pusher *)self;

	push(p->pass, cow_ptr_get(ptr), kind, -1, p->leaf, p->key);
}

static void push_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	struct pusher *p = (struct pusher *)self;

	for (uint32_t i = 0; p->pass->mender->what != COW_MEND_NAMES && i < length; i++)
		cow_repair_reach(p->pass->mender->repair, block + i);
}

/* Only directories of one world that have references below them. */
static void push_names(struct pass *p, struct cow_mended *leaf, const struct cow_check_item *item)
{
	struct cow_dirent entry;
	struct cow_record record;

	if (leaf->kind != COW_KIND_DIR || cow_dirent_decode(item->value, item->length, &entry) != 0 || entry.is_link ||
	    cow_record_decode(entry.record.bytes, entry.record.length, 0, &record) != 0)
		return;
	if (record.body == COW_BODY_DIR && !record.is_world && record.totals.refs != 0)
		push(p, record.tree, COW_KIND_DIR, -1, leaf, item->key);
}

static void push_children(struct pass *p, struct cow_mended *m, uint8_t *bytes)
{
	struct pusher pusher = {{push_tree, push_run}, p, m, 0};
	struct cow_check_item item;

	for (unsigned i = 0; i < get16(bytes + 6); i++) {
		if (!cow_repair_item(p->mender->repair, bytes, i, &item))
			continue;
		pusher.key = item.key;
		if (m->level > 0)
			push(p, cow_ptr_get(item.value), m->kind, m->level - 1, m, item.key);
		else if (p->mender->what == COW_MEND_NAMES)
			push_names(p, m, &item);
		else if (m->kind == COW_KIND_RECLAIM)
			push(p, cow_ptr_get(item.value), item.value[COW_PTR_BYTES], -1, m, item.key);
		else
			cow_value_claims(m->kind, bytes + (item.value - bytes), item.length, &pusher.claims);
	}
}

static void enter_damaged(struct pass *p, struct cow_mended *m, int level)
{
	struct cow_repair *r = p->mender->repair;
	struct cow_witness *w = NULL;

	m->lost = m->changed = true;
	if (p->mender->what != COW_MEND_NAMES && m->kind != COW_KIND_RECLAIM && m->kind != COW_KIND_BLOB)
		w = find_witness(r, m->old, m->kind, &level);
	m->witness = w;
	if (w == NULL)
		return;
	m->level = (uint8_t)level;
	m->lost = !w->complete;
	for (unsigned i = 0; i < w->count; i++)
		push(p, w->ptrs[i], m->kind, level - 1, m, w->keys[i]);
}

static const char *const kind_names[] = {"?", "queue", "directory", "links", "file map", "byte string", "numbers"};

/* What is gone with a node that cannot be read. Maps and byte strings are reported by who holds them. */
static void report(struct cow_repair *r, const struct cow_mended *m, int level)
{
	const char *name = kind_names[m->kind <= COW_KIND_NUMBERS ? m->kind : 0];

	if (m->witness != NULL && m->witness->complete)
		return;
	if (m->kind == COW_KIND_DIR && m->witness != NULL)
		cow_repair_lost(
			r, m, NULL, m->old.addr,
			"an inner node is damaged: %u of its children could be proved, entries below others are lost",
			m->witness->count);
	else if (m->kind == COW_KIND_DIR)
		cow_repair_lost(r, m, NULL, m->old.addr, "%s is damaged: the entries in it are lost",
				level == 0  ? "a leaf"
				: level > 0 ? "an inner node"
					    : "the tree's root");
	else if (m->kind == COW_KIND_LINKS)
		cow_repair_lost(
			r, m, NULL, m->old.addr,
			"a node of the link records is damaged: hard-linked files whose records were in it are lost");
	else if (m->kind == COW_KIND_NUMBERS)
		cow_repair_lost(r, m, NULL, m->old.addr, "a node of the %s is damaged: some inode numbers will change",
				name);
}

static void enter(struct pass *p, const struct todo *t)
{
	struct cow_repair *r = p->mender->repair;
	struct cow_mended *m;
	uint8_t *bytes;

	if (cow_map_get(p->mender->memo, t->ptr.addr) != NULL)
		return;
	m = cow_mem_new(sizeof(*m));
	*m = (struct cow_mended){.old = t->ptr,
				 .kind = t->kind,
				 .level = t->level > 0 ? (uint8_t)t->level : 0,
				 .up = t->up,
				 .up_key = t->up_key,
				 .entered = true,
				 .empty = true};
	cow_map_put(p->mender->memo, t->ptr.addr, m);
	add(p, (struct todo){.leave = m});
	if (p->mender->what != COW_MEND_NAMES) /* a damaged one too: it is nobody's lost tree, and no free block */
		cow_repair_reach(r, t->ptr.addr);
	bytes = cow_mem_new(COW_BLOCK);
	if (cow_repair_load(r, t->ptr, t->kind, t->level, bytes) ||
	    (flip_back(r, t->ptr) && cow_repair_load(r, t->ptr, t->kind, t->level, bytes))) {
		m->level = bytes[5];
		push_children(p, m, bytes);
	} else {
		enter_damaged(p, m, t->level);
		if (p->mender->what == COW_MEND_ALL)
			report(r, m, t->level);
	}
	free(bytes);
}

/* ------------------------------------------------------------------ leaving */

static void add_sums(struct cow_mended *to, const struct cow_mended *child)
{
	switch (to->kind) {
	case COW_KIND_DIR: cow_mend_add_totals(to, child); break;
	case COW_KIND_LINKS:
		to->sum.links.backs += child->sum.links.backs;
		to->sum.links.bytes += child->sum.links.bytes;
		to->sum.links.blocks += child->sum.links.blocks;
		to->sum.links.files += child->sum.links.files;
		break;
	case COW_KIND_FILE: to->sum.file.blocks += child->sum.file.blocks; break;
	case COW_KIND_BLOB: to->sum.blob.length += child->sum.blob.length; break;
	default: break;
	}
}

/* One child of an inner node; false: nothing of it is left. */
static bool take_child(struct pass *p, struct cow_mended *m, uint8_t *now, uint64_t key, struct cow_ptr ptr)
{
	struct cow_mended *child = cow_mend_find(p->mender, ptr, m->kind, m->level - 1);

	if (child == NULL || cow_ptr_is_null(child->now) || child->first < key ||
	    (!m->empty && child->first <= m->last)) {
		m->lost |= child == NULL || child->lost || !cow_ptr_is_null(child->now);
		m->changed = true;
		return false;
	}
	m->lost |= child->lost;
	m->changed |= !cow_ptr_equal(child->now, ptr) || ptr.generation > m->old.generation;
	cow_build_inner_add(now, key, child->now);
	add_sums(m, child);
	if (m->empty)
		m->first = child->first;
	m->last = child->last;
	m->empty = false;
	return true;
}

static void leave_inner(struct pass *p, struct cow_mended *m, const uint8_t *bytes, uint8_t *now)
{
	struct cow_check_item item;

	for (unsigned i = 0; m->witness != NULL && i < m->witness->count; i++)
		take_child(p, m, now, m->witness->keys[i], m->witness->ptrs[i]);
	for (unsigned i = 0; m->witness == NULL && i < get16(bytes + 6); i++) {
		if (cow_repair_item(p->mender->repair, bytes, i, &item))
			take_child(p, m, now, item.key, cow_ptr_get(item.value));
		else
			m->lost = m->changed = true;
	}
}

static bool mend_value(struct pass *p, struct cow_mended *m, uint64_t key, uint8_t *value, uint32_t *length)
{
	switch (m->kind) {
	case COW_KIND_DIR: return cow_mend_entry(p->mender, m, key, value, length);
	case COW_KIND_LINKS: return cow_mend_link(p->mender, m, key, value, length);
	default: return true;
	}
}

static void sum_value(struct cow_repair *r, struct cow_mended *m, uint64_t key, const uint8_t *value, uint32_t length)
{
	struct cow_row row;

	switch (m->kind) {
	case COW_KIND_DIR: cow_mend_sum_entry(m, value, length); break;
	case COW_KIND_LINKS:
		cow_repair_saw_number(r, key);
		cow_mend_sum_link(m, value, length);
		break;
	case COW_KIND_FILE: m->sum.file.blocks += get16(value + 2); break;
	case COW_KIND_BLOB: m->sum.blob.length += length; break;
	case COW_KIND_NUMBERS:
		if (cow_row_decode(value, length, &row) != 0)
			break;
		if (row.type == COW_ROW_COLOUR && row.value >= r->counters.colour)
			r->counters.colour = row.value + 1;
		if (row.type == COW_ROW_CHUNK && row.value >= r->counters.chunk)
			r->counters.chunk = row.value + 1;
		break;
	default: break;
	}
}

static void leave_leaf(struct pass *p, struct cow_mended *m, const uint8_t *bytes, uint8_t *now)
{
	struct cow_repair *r = p->mender->repair;
	uint8_t value[COW_VALUE_MAX + COW_RECORD_MAX];
	struct cow_check_item item;

	for (unsigned i = 0; i < get16(bytes + 6); i++) {
		uint32_t length;

		if (!cow_repair_item(r, bytes, i, &item) || (!m->empty && item.key <= m->last)) {
			m->lost = m->changed = true;
			if (p->mender->what == COW_MEND_ALL)
				cow_repair_lost(r, m, NULL, m->old.addr, "a malformed entry is dropped");
			continue;
		}
		length = item.length;
		memcpy(value, item.value, length);
		if (!mend_value(p, m, item.key, value, &length)) {
			m->changed = true;
			continue;
		}
		assert(length <= item.length);
		m->changed |= length != item.length || memcmp(value, item.value, length) != 0;
		cow_build_leaf_add(now, item.key, value, length);
		sum_value(r, m, item.key, value, length);
		if (m->empty)
			m->first = item.key;
		m->last = item.key;
		m->empty = false;
	}
}

static void leave(struct pass *p, struct cow_mended *m)
{
	struct cow_repair *r = p->mender->repair;
	uint8_t *bytes, *now;

	m->done = true;
	if (p->mender->what == COW_MEND_MARK)
		return;
	bytes = cow_mem_new(COW_BLOCK);
	now = cow_mem_new(COW_BLOCK);
	if (m->witness != NULL || cow_repair_load(r, m->old, m->kind, m->level, bytes)) {
		cow_build_clear(now, m->kind, m->level);
		if (m->level > 0)
			leave_inner(p, m, bytes, now);
		else
			leave_leaf(p, m, bytes, now);
		if (!m->changed)
			m->now = m->old;
		else if (!m->empty)
			m->now = cow_build_write(r, now);
	}
	free(m->witness);
	m->witness = NULL;
	free(bytes);
	free(now);
}

struct cow_mended *cow_mend_tree(struct cow_mender *mender, struct cow_ptr root, uint8_t kind, struct cow_mended *up,
				 uint64_t up_key)
{
	struct pass p = {.mender = mender};

	if (cow_ptr_is_null(root))
		return NULL;
	push(&p, root, kind, -1, up, up_key);
	while (p.depth > 0 && mender->repair->error == 0) {
		struct todo t = p.stack[--p.depth];

		if (t.leave != NULL)
			leave(&p, t.leave);
		else
			enter(&p, &t);
	}
	free(p.stack);
	return cow_mend_find(mender, root, kind, -1);
}

void cow_mend_free(struct cow_map *memo)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(memo, &i)) != NULL;) {
		free(((struct cow_mended *)slot->value)->witness);
		free(slot->value);
	}
	cow_map_free(memo);
}
