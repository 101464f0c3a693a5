/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Holding a file open: it stays what it is when its last name goes. */
#include <errno.h>

#include "cow.h"
#include "fs/change.h"
#include "fs/world/orphan.h"

static int hold(struct cow_op *op, void *v)
{
	struct cow_inode *i = v;
	struct cow_volume *volume = op->volume;
	int error = cow_inode_check_live(i);

	if (error != 0)
		return error;
	if (i->opens++ == 0) {
		i->open_prev = NULL;
		i->open_next = volume->open;
		if (volume->open != NULL)
			volume->open->open_prev = i;
		volume->open = i;
	}
	return 0;
}

int cow_hold(struct cow_inode *inode)
{
	return cow_op_read(inode->volume, hold, inode);
}

static int check_writable(struct cow_op *op, void *inode)
{
	return op->store->read_only ? -EROFS : cow_inode_check_writable(inode);
}

int cow_writable(struct cow_inode *inode)
{
	return cow_op_read(inode->volume, check_writable, inode);
}

static int drop_orphan(struct cow_op *op, void *v)
{
	struct cow_inode *i = v;

	(void)op;
	/* Someone may have given it a name, or held it again, since. */
	return i->place == COW_ORPHAN && i->opens == 0 ? cow_orphan_drop(i) : 0;
}

void cow_release(struct cow_inode *inode)
{
	struct cow_volume *volume = inode->volume;
	bool orphan;

	pthread_mutex_lock(&volume->store->lock);
	if (--inode->opens == 0) {
		if (inode->open_prev != NULL)
			inode->open_prev->open_next = inode->open_next;
		else
			volume->open = inode->open_next;
		if (inode->open_next != NULL)
			inode->open_next->open_prev = inode->open_prev;
	}
	orphan = inode->place == COW_ORPHAN && inode->opens == 0;
	pthread_mutex_unlock(&volume->store->lock);
	/* If it fails (a read-only volume), the orphan is dropped by the next mount. */
	if (orphan)
		(void)!cow_op_change(volume, 0, true, drop_orphan, inode);
}
