/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/core/totals.h"

#include <assert.h>
#include <sys/stat.h>

const struct cow_totals cow_totals_of_link = {.refs = 1, .exceptions = 1};

uint64_t cow_inode_exceptional(const struct cow_inode *i, uint32_t dir_uid)
{
	uint32_t need = S_ISDIR(i->mode) ? S_IRUSR | S_IXUSR : S_IRUSR;

	return i->uid != dir_uid || (i->mode & (S_ISUID | S_ISGID)) != 0 || S_ISCHR(i->mode) || S_ISBLK(i->mode) ||
	       (!S_ISLNK(i->mode) && (i->mode & need) != need);
}

void cow_totals_of(const struct cow_inode *i, struct cow_totals *t)
{
	*t = (struct cow_totals){0};
	if (cow_inode_is_dir(i)) {
		*t = i->totals;
		t->dirs++;
		if (i->is_world) {
			t->nested_refs += t->refs;
			t->refs = 0;
		}
	} else {
		t->bytes = i->size;
		t->blocks = i->blocks;
		t->files = 1;
	}
	if (i->parent != NULL && t->exceptions != UINT64_MAX)
		t->exceptions += cow_inode_exceptional(i, i->parent->uid);
}

void cow_totals_change(struct cow_inode *dir, const struct cow_totals *from, const struct cow_totals *to)
{
	uint64_t refs = to->refs - from->refs, nested = to->nested_refs - from->nested_refs;
	/* An upper bound that sticks: what leaves may have been counted differently when it came. */
	uint64_t exceptions = to->exceptions > from->exceptions ? to->exceptions - from->exceptions : 0;

	for (; dir != NULL; dir = dir->parent) {
		struct cow_totals *t = &dir->totals;

		assert(dir->dirty);
		t->bytes += to->bytes - from->bytes;
		t->blocks += to->blocks - from->blocks;
		t->files += to->files - from->files;
		t->dirs += to->dirs - from->dirs;
		t->refs += refs;
		t->nested_refs += nested;
		t->exceptions = t->exceptions + exceptions >= t->exceptions ? t->exceptions + exceptions : UINT64_MAX;
		if (dir->is_world) {
			nested += refs;
			refs = 0;
		}
	}
}

void cow_inode_resized(struct cow_inode *i, int64_t bytes, int64_t blocks)
{
	struct cow_totals from = {0}, to = {.bytes = (uint64_t)bytes, .blocks = (uint64_t)blocks};

	if (i->place == COW_LINKED) {
		i->parent->link_bytes += (uint64_t)bytes;
		i->parent->link_blocks += (uint64_t)blocks;
	} else if (i->place == COW_EMBEDDED && (bytes != 0 || blocks != 0)) {
		cow_totals_change(i->parent, &from, &to);
	}
}
