/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One mount: what all request handlers share.  Everything hangs off struct cowfs; nothing here is global.
 *
 * NODE IDS.  The kernel's name of an inode is the address of its struct cow_inode; the root is FUSE_ROOT_ID.  Each
 * reply that tells the kernel of an inode hands over one library reference, which FORGET gives back.  So an id that
 * the kernel sends is always a live handle.
 *
 * CACHES.  The daemon is the only writer of its volume, so the kernel may keep names, attributes and data as long as
 * it likes.  What changes behind the kernel's back, by one of our ioctls, is invalidated by whoever does it (trees.c).
 * Files with several names are the exception: removing a tree elsewhere changes their st_nlink, so their attributes
 * are never cached.
 *
 * LOCKS.  Each of handles, tokens, results, service and scrub has one private mutex, held for a few instructions and
 * never around a call into the library or the kernel.  No handler may wait for another request: the kernel may need a
 * free worker to finish what a clone waits for.  What has to wait goes to the service threads.
 */
#ifndef COWFS_MOUNT_H
#define COWFS_MOUNT_H

#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "cow.h"
#include "cowfs/cowfs.h"

struct cowfs_handles;
struct cowfs_loop;
struct cowfs_service;
struct cowfs_tokens;
struct cowfs_results;
struct cowfs_scrub;

struct cowfs {
	const struct cowfs_options *options;
	char *image, *dir; /* absolute */
	uid_t owner;       /* who mounted it */
	struct cow_volume *volume;
	struct cow_inode *root;
	struct fuse_session *session;
	pthread_key_t buffers; /* of the worker threads: cowfs_buffer() */
	pthread_key_t kill_set_id; /* of the request that a worker has read last: killpriv.c */
	struct cowfs_loop *loop;
	struct cowfs_service *service; /* for what takes long */
	struct cowfs_service *brief;   /* for what only waits for the kernel to give up pages */
	struct cowfs_tokens *tokens;
	struct cowfs_results *results;
	struct cowfs_handles *handles;
	struct cowfs_scrub *scrub;
	dev_t under;            /* st_dev of the mount point before the mount */
	uint64_t init_unique;   /* of the INIT request: killpriv.c */
	atomic_bool init_killpriv; /* the kernel offered it and INIT is not answered yet */
	atomic_uint dropping;   /* workers that drop pages for a direct write: direct.c */
	bool expire_entry;      /* the kernel can expire a name without waiting for its locks */
	int ready_fd;           /* -1, or where to say that the mount serves */
	atomic_bool ending;     /* told to end: what takes long gives up */
	atomic_bool detached;   /* no terminal any more: messages go to syslog */
};

#define COWFS_WORKERS_MAX 64 /* unless the options say how many */

/* How long the kernel may keep names and attributes, in seconds. */
#define COWFS_KEEP_SECONDS 3600.0

static inline struct cowfs *cowfs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static inline struct cow_inode *cowfs_inode(const struct cowfs *fs, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? fs->root : (struct cow_inode *)(uintptr_t)ino;
}

static inline fuse_ino_t cowfs_ino(const struct cowfs *fs, const struct cow_inode *inode)
{
	return inode == fs->root ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)inode;
}

/* reply.c: what every handler needs */

/* At least `size` bytes that belong to the calling thread until its next call; NULL if there is no memory. */
void *cowfs_buffer(struct cowfs *fs, size_t size);
void cowfs_buffer_free(void *buffer);
/* Answers with the errno of a library result (0: success). */
void cowfs_reply(fuse_req_t req, int result);
void cowfs_fill_stat(struct cowfs *fs, struct cow_inode *inode, const struct cow_attr *attr, struct stat *st);
/* Seconds that the kernel may keep these attributes. */
double cowfs_attr_seconds(const struct cow_attr *attr);
void cowfs_fill_entry(struct cowfs *fs, struct cow_inode *inode, const struct cow_attr *attr,
		      struct fuse_entry_param *entry);
/* Answers with an inode, whose reference goes to the kernel. */
void cowfs_reply_entry(fuse_req_t req, struct cow_inode *inode, const struct cow_attr *attr);

/* log.c */
void cowfs_log(void *fs, enum cow_log_level level, const char *text);
void cowfs_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* killpriv.c */
int cowfs_killpriv_install(struct cowfs *fs);
/* On the worker that serves `req`: did the kernel ask to clear set-id bits with it? */
bool cowfs_killpriv_asked(fuse_req_t req);

/* daemon.c: tells the waiting parent that the mount serves, and lets go of its terminal. */
void cowfs_ready(struct cowfs *fs);

/* image.c */
/* Warns if users who are not the owner of the image can open it. */
void cowfs_image_warn(const struct cowfs *fs);
/* Says why an image that is locked cannot be opened. */
void cowfs_image_complain_locked(const struct cowfs *fs);

/* session.c: mounts, serves, unmounts; 0, or -1 when the reason was said. */
int cowfs_session_run(struct cowfs *fs);
/* Blocks the signals that end a mount, and no others, in the calling thread and those that it starts:
 * cowfs_session_run() waits for them.  Before any thread is started. */
void cowfs_session_block_signals(void);

#endif
