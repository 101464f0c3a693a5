/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dropping pages waits for reads of them, and these for a worker.  Where somebody reads the file through the page cache
 * it is therefore left to a service thread.  Else there is nothing to wait for, as far as the flags of open(2) tell; as
 * they can be changed later, only some workers at a time do it themselves.
 */
#include <stdlib.h>

#include "cowfs/direct.h"
#include "cowfs/handles.h"
#include "cowfs/service.h"

struct write {
	struct cowfs_job job;
	fuse_req_t req;
	struct cow_inode *inode; /* held open by the descriptor, which lives until the answer */
	uint64_t offset;
	size_t size;
};

static void finish(struct cowfs *fs, const struct write *write)
{
	fuse_lowlevel_notify_inval_inode(fs->session, cowfs_ino(fs, write->inode), (off_t)write->offset,
					 (off_t)write->size);
	fuse_reply_write(write->req, write->size);
}

static void run(struct cowfs *fs, struct cowfs_job *job)
{
	struct write *write = (struct write *)job;

	finish(fs, write);
	free(write);
}

static bool hand_over(struct cowfs *fs, const struct write *write)
{
	struct write *job = malloc(sizeof(*job));

	if (!job)
		return false;
	*job = *write;
	if (!cowfs_service_add(fs->brief, &job->job))
		return true;
	free(job);
	return false;
}

/* Takes a place among the few workers that may drop pages themselves. */
static bool enter(struct cowfs *fs)
{
	unsigned most = (fs->options->threads ? fs->options->threads : COWFS_WORKERS_MAX) / 8;

	if (atomic_fetch_add(&fs->dropping, 1) < most)
		return true;
	atomic_fetch_sub(&fs->dropping, 1);
	return false;
}

void cowfs_direct_written(fuse_req_t req, struct cow_inode *inode, uint64_t offset, size_t size)
{
	struct cowfs *fs = cowfs_of(req);
	const struct write write = {{.run = run}, req, inode, offset, size};
	bool entered = !cowfs_handles_are(fs->handles, inode, COWFS_BUFFERED) && enter(fs);

	if (!entered && hand_over(fs, &write))
		return;
	finish(fs, &write);
	if (entered)
		atomic_fetch_sub(&fs->dropping, 1);
}
