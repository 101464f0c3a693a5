/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Is what a power cut left what the chronicle allows? */
#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "store/super.h"
#include "test/lib/drive.h"

uint64_t drive_disk_generation(struct cow_dev *(*attach)(void *disk), void *disk)
{
	struct cow_dev *dev = attach(disk);
	struct cow_super super;
	bool decayed;
	int r = cow_super_read(dev, &super, &decayed);

	cow_dev_close(dev);
	return r < 0 ? 0 : super.generation;
}

struct judgement {
	struct drive *drive;
	const struct chronicle *chronicle;
	struct chronicle_range range;
	unsigned moment;
	uint64_t mark;
};

/* Gives the node of a file the allowed version that the volume shows; leaves it alone if there is none. */
static void settle_file(struct judgement *j, struct ora_node *node, struct cow_inode *inode, const char *where)
{
	struct content *mine = node->content;
	const struct version *v;
	struct cow_attr attr;
	unsigned next = 0;

	if (cow_getattr(inode, &attr) < 0)
		return;
	while ((v = chronicle_version(j->chronicle, &j->range, node->id, j->moment, &next)) != NULL) {
		if (v->content->size != attr.size || (v->mtime != 0 && v->mtime != attr.mtime.tv_sec))
			continue;
		node->content = v->content;
		if (drive_check_data(j->drive, node, inode, where)) {
			node->mtime = v->mtime;
			content_hold(v->content);
			content_put(mine);
			return;
		}
		j->drive->bug[0] = 0;
		node->content = mine;
	}
}

static void settle(struct judgement *j, struct ora_node *node, struct cow_inode *inode, const char *path)
{
	if (node->mark == j->mark)
		return;
	node->mark = j->mark;
	if (S_ISREG(node->mode))
		settle_file(j, node, inode, path);
	else if (!ora_node_is_dir(node))
		node->mtime = 0; /* goes with content that it does not have: nobody promises it */
	for (unsigned i = 0; i < node->kid_count; i++) {
		struct cow_inode *kid;
		char name[256];

		drive_name(node->kids[i].name, name);
		if (cow_lookup(inode, name, &kid, NULL) < 0)
			continue; /* the comparison will tell */
		settle(j, node->kids[i].node, kid, node->kids[i].name);
		cow_forget(kid, 1);
	}
}

/* The oracle goes to the moment, and its files to the versions that the volume shows. */
static bool go_to(struct judgement *j)
{
	struct drive *d = j->drive;
	struct cow_inode *root;

	d->bug[0] = 0;
	ora_restore(&d->ora, ora_tree_copy(j->chronicle->moments[j->moment].root, true));
	if (d->small)
		drive_forget_numbers(d->ora.root);
	if (j->range.exact)
		return true;
	if (cow_root(d->volume, &root) < 0)
		return drive_bug(d, "ROOT");
	j->mark = ora_mark();
	settle(j, d->ora.root, root, "");
	cow_forget(root, 1);
	return true;
}

static bool fits(struct drive *d, void *judgement)
{
	return go_to(judgement) && drive_compare(d, d->ora.root);
}

/* Of the reasons why moments do not fit, one that speaks of content is the best: the names did fit. */
static bool is_better(const char *bug, const char *best)
{
	return best[0] == 0 || (strncmp(bug, "CONTENT", 7) == 0 && strncmp(best, "CONTENT", 7) != 0) ||
	       (strncmp(bug, "SIZE", 4) == 0 && strncmp(best, "TREE", 4) == 0);
}

bool drive_recovered(struct drive *d, const struct chronicle *c, uint64_t generation, uint64_t event)
{
	struct judgement j = {.drive = d, .chronicle = c};
	char best[DRIVE_BUG_BYTES] = "";

	if (!chronicle_range(c, generation, event, &j.range))
		return drive_bug(d, "UNKNOWN generation %" PRIu64, generation);
	for (unsigned m = j.range.last + 1; m-- > j.range.first;) {
		j.moment = m;
		if (drive_aside(d, fits, &j)) {
			/* without the inode numbers that looking has given out: nobody promises those; nor those
			 * that the moment knows, if it may lie behind the commit */
			bool ok = go_to(&j);
			if (!j.range.exact)
				drive_forget_numbers(d->ora.root);
			return ok;
		}
		if (is_better(d->bug, best))
			memcpy(best, d->bug, sizeof(best));
	}
	d->bug[0] = 0;
	return drive_bug(d, "RECOVERED generation %" PRIu64 ", moment %u to %u%s: %s", generation, j.range.first,
			 j.range.last, j.range.exact ? "" : " and a log",
				best[0] != 0 ? best : "durable ones are lost");
}
