/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Entries and link rows on their way into a new leaf: what their records lead to has been mended before. */
#include <stdlib.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "audit/repair.h"

/* ------------------------------------------------------------------ sums, as the check makes them */

static uint64_t add_capped(uint64_t a, uint64_t b)
{
	return a + b < a ? UINT64_MAX : a + b;
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

static void add_owned(struct cow_mended *to, uint32_t uid, uint64_t count, bool mixed)
{
	if (count != 0 && to->sum.dir.owned != 0 && to->sum.dir.uid != uid)
		to->sum.dir.mixed = true;
	if (count != 0)
		to->sum.dir.uid = uid;
	to->sum.dir.owned += count;
	to->sum.dir.mixed |= mixed;
}

static bool is_exception(const struct cow_record *r)
{
	uint32_t need = S_ISDIR(r->mode) ? S_IRUSR | S_IXUSR : S_ISLNK(r->mode) ? 0 : S_IRUSR;

	return (r->mode & (S_ISUID | S_ISGID)) != 0 || S_ISCHR(r->mode) || S_ISBLK(r->mode) || (r->mode & need) != need;
}

void cow_mend_sum_entry(struct cow_mended *leaf, const uint8_t *value, uint32_t length)
{
	static const struct cow_totals link = {.refs = 1, .exceptions = 1};
	struct cow_dirent entry;
	struct cow_record r;
	struct cow_totals part;

	if (cow_dirent_decode(value, length, &entry) != 0)
		return;
	if (entry.is_link) {
		add_totals(&leaf->sum.dir.totals, &link);
		return;
	}
	if (cow_record_decode(entry.record.bytes, entry.record.length, 0, &r) != 0)
		return;
	part = (struct cow_totals){.bytes = r.size, .blocks = r.blocks, .files = 1};
	if (r.body == COW_BODY_DIR) {
		part = r.totals;
		part.dirs++;
		if (r.is_world) {
			part.nested_refs += part.refs;
			part.refs = 0;
		}
	}
	if (is_exception(&r))
		part.exceptions = add_capped(part.exceptions, 1);
	else
		add_owned(leaf, r.uid, 1, false);
	add_totals(&leaf->sum.dir.totals, &part);
}

void cow_mend_sum_link(struct cow_mended *leaf, const uint8_t *value, uint32_t length)
{
	struct cow_link_row row;
	struct cow_record r;

	if (cow_link_row_decode(value, length, &row) != 0 ||
	    cow_record_decode(row.record.bytes, row.record.length, 0, &r) != 0)
		return;
	leaf->sum.links.backs += row.backs;
	leaf->sum.links.bytes += r.size;
	leaf->sum.links.blocks += r.blocks;
	leaf->sum.links.files++;
}

void cow_mend_add_totals(struct cow_mended *to, const struct cow_mended *from)
{
	add_totals(&to->sum.dir.totals, &from->sum.dir.totals);
	add_owned(to, from->sum.dir.uid, from->sum.dir.owned, from->sum.dir.mixed);
}

void cow_mend_totals(struct cow_record *record, const struct cow_mended *tree)
{
	uint64_t said = record->totals.exceptions;

	record->totals = (struct cow_totals){0};
	if (tree != NULL) {
		record->totals = tree->sum.dir.totals;
		if (tree->sum.dir.mixed || tree->sum.dir.uid != record->uid)
			record->totals.exceptions = add_capped(record->totals.exceptions, tree->sum.dir.owned);
	}
	if (record->totals.exceptions < said)
		record->totals.exceptions = said;
}

/* ------------------------------------------------------------------ records */

struct place { /* of a record */
	struct cow_mender *mender;
	struct cow_mended *leaf;
	const struct cow_slice *name;
};

static struct cow_mended *find(const struct place *p, struct cow_ptr ptr, uint8_t kind)
{
	struct cow_mended *m = cow_ptr_is_null(ptr) ? NULL : cow_mend_find(p->mender, ptr, kind, -1);

	if (ptr.generation > p->leaf->old.generation)
		p->leaf->changed = true; /* written anew, the leaf is younger */
	return m != NULL && cow_ptr_is_null(m->now) ? NULL : m;
}

static bool xattrs_whole(const struct place *p, const struct cow_record *r)
{
	const struct cow_mended *m = find(p, r->xattr_tree, COW_KIND_BLOB);
	struct cow_check_chunks list = {cow_mem_new(r->xattr_length), r->xattr_length, 0};
	bool whole = m != NULL && !m->lost;

	whole = whole && cow_repair_each(p->mender->repair, m->now, COW_KIND_BLOB, cow_check_chunk, &list) == 0 &&
		list.done == list.length && cow_xattr_list_validate(list.bytes, list.length) == 0;
	free(list.bytes);
	return whole;
}

static void mend_xattrs(const struct place *p, struct cow_record *r)
{
	if (cow_ptr_is_null(r->xattr_tree))
		return;
	if (xattrs_whole(p, r)) {
		r->xattr_tree = find(p, r->xattr_tree, COW_KIND_BLOB)->now;
		return;
	}
	cow_repair_lost(
		p->mender->repair, p->leaf, p->name, r->xattr_tree.addr,
		"all extended attributes are lost; as access lists may be among them, only the owner keeps access");
	r->xattr_length = 0;
	r->xattr_tree = (struct cow_ptr){0};
	if (!S_ISLNK(r->mode))
		r->mode &= ~(uint32_t)(S_IRWXG | S_IRWXO | S_ISUID | S_ISGID);
}

static bool mend_symlink(const struct place *p, struct cow_record *r)
{
	const struct cow_mended *m = find(p, r->tree, COW_KIND_BLOB);

	if (m != NULL && !m->lost && m->sum.blob.length == r->size) {
		r->tree = m->now;
		return true;
	}
	cow_repair_lost(p->mender->repair, p->leaf, p->name, r->tree.addr,
			"the target of this symbolic link is lost: it is removed");
	return false;
}

/* The blocks that a file maps are known from its record: with all of them there, nothing was lost. */
static bool mend_file(const struct place *p, struct cow_record *r)
{
	const struct cow_mended *m = find(p, r->tree, COW_KIND_FILE);

	if (m == NULL || (m->lost && m->sum.file.blocks != r->blocks))
		return cow_mend_file(p->mender->repair, p->leaf, p->name, r);
	r->tree = m->now;
	r->blocks = m->sum.file.blocks;
	return true;
}

static void mend_dir(const struct place *p, struct cow_record *r)
{
	struct cow_mended *tree = find(p, r->tree, COW_KIND_DIR), *links = NULL;
	bool links_lost = false, changed;

	changed = cow_ptr_is_null(r->tree) ? false : tree == NULL || tree->changed;
	r->tree = tree != NULL ? tree->now : (struct cow_ptr){0};
	cow_mend_totals(r, tree);
	if (!r->is_world)
		return;
	if (!cow_ptr_is_null(r->links)) {
		links = find(p, r->links, COW_KIND_LINKS);
		links_lost = links == NULL || links->lost;
		changed |= links_lost || links->changed;
	}
	r->links = links != NULL ? links->now : (struct cow_ptr){0};
	r->backs = links != NULL ? links->sum.links.backs : 0;
	r->link_bytes = links != NULL ? links->sum.links.bytes : 0;
	r->link_blocks = links != NULL ? links->sum.links.blocks : 0;
	r->link_files = links != NULL ? links->sum.links.files : 0;
	if (changed || p->mender->repair->links_wrong)
		cow_mend_world(p->mender->repair, p->leaf, p->name, r, links_lost);
}

static bool mend_record(const struct place *p, struct cow_record *r)
{
	struct cow_repair *repair = p->mender->repair;

	cow_repair_saw_number(repair, r->number);
	cow_repair_saw_number(repair, r->tag);
	mend_xattrs(p, r);
	if (r->body == COW_BODY_DIR)
		mend_dir(p, r);
	else if (r->body == COW_BODY_TREE)
		return S_ISLNK(r->mode) ? mend_symlink(p, r) : mend_file(p, r);
	return true;
}

/* ------------------------------------------------------------------ entries */

/* The pass that only takes names out. */
static bool keep_name(const struct place *p, const struct cow_dirent *entry, struct cow_record *r)
{
	const struct cow_mended *tree;

	if (entry->is_link)
		return cow_map_get(p->mender->names, entry->link_key) != NULL;
	if (r->body != COW_BODY_DIR || r->is_world || r->totals.refs == 0)
		return true;
	tree = find(p, r->tree, COW_KIND_DIR);
	r->tree = tree != NULL ? tree->now : (struct cow_ptr){0};
	cow_mend_totals(r, tree);
	return true;
}

bool cow_mend_entry(struct cow_mender *mender, struct cow_mended *leaf, uint64_t key, uint8_t *value, uint32_t *length)
{
	uint8_t copy[COW_VALUE_MAX];
	struct cow_dirent entry;
	struct cow_record record = {0};
	struct place place = {mender, leaf, &entry.name};

	(void)key;
	memcpy(copy, value, *length); /* what is decoded points into it */
	if (cow_dirent_decode(copy, *length, &entry) != 0 ||
	    (!entry.is_link && cow_record_decode(entry.record.bytes, entry.record.length, 0, &record) != 0))
		return false;
	if (mender->what == COW_MEND_NAMES) {
		if (!keep_name(&place, &entry, &record))
			return false;
	} else if (entry.is_link) {
		cow_repair_saw_number(mender->repair, entry.link_key);
	} else if (!mend_record(&place, &record)) {
		return false;
	}
	if (!entry.is_link)
		*length = cow_dirent_encode_record(entry.name, &record, value);
	return true;
}

/* Back-references are left for the world to judge: here only the record, and byte strings that are gone. */
bool cow_mend_link(struct cow_mender *mender, struct cow_mended *leaf, uint64_t key, uint8_t *value, uint32_t *length)
{
	uint8_t copy[COW_VALUE_MAX];
	struct cow_back backs[COW_BACKS_INLINE_MAX];
	struct cow_link_row row;
	struct cow_record record;
	struct place place = {mender, leaf, NULL};
	const struct cow_mended *tree = NULL;

	(void)key;
	memcpy(copy, value, *length);
	if (cow_link_row_decode(copy, *length, &row) != 0)
		return true; /* a spine row */
	if (cow_record_decode(row.record.bytes, row.record.length, 0, &record) != 0 || !mend_record(&place, &record))
		return false;
	if (row.backs > COW_BACKS_INLINE_MAX) {
		tree = find(&place, row.back_tree, COW_KIND_BLOB);
		if (tree == NULL || tree->lost || tree->sum.blob.length != (uint64_t)row.backs * 16) {
			leaf->changed = leaf->lost = true; /* every world that has this row writes it anew */
			row.backs = 0;
			tree = NULL;
		}
	}
	for (uint32_t i = 0; i < row.backs && i < COW_BACKS_INLINE_MAX && tree == NULL; i++)
		backs[i] = (struct cow_back){get64(row.back_bytes + (size_t)16 * i),
					     get64(row.back_bytes + (size_t)16 * i + 8)};
	*length = cow_link_row_encode(&record, backs, row.backs, tree != NULL ? tree->now : (struct cow_ptr){0}, value);
	return true;
}
