/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* References of the public interface to inodes. */
#include "cow.h"
#include "fs/core/volume.h"

static void lock(struct cow_inode *inode)
{
	pthread_mutex_lock(&inode->volume->store->lock);
}

static void unlock(struct cow_volume *volume)
{
	pthread_mutex_unlock(&volume->store->lock);
}

struct cow_volume *cow_inode_volume(const struct cow_inode *inode)
{
	return inode->volume;
}

int cow_root(struct cow_volume *volume, struct cow_inode **root)
{
	lock(volume->root);
	cow_inode_get(volume->root);
	unlock(volume);
	*root = volume->root;
	return 0;
}

void cow_ref(struct cow_inode *inode)
{
	lock(inode);
	cow_inode_get(inode);
	unlock(inode->volume);
}

void cow_forget(struct cow_inode *inode, uint64_t count)
{
	struct cow_volume *volume;

	if (inode == NULL)
		return;
	volume = inode->volume;
	lock(inode);
	cow_inode_put(inode, count);
	unlock(volume);
}
