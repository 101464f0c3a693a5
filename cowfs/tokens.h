/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One-use secrets that stand for inodes.  Who wants a clone shows by a token that he has the source open: paths and
 * numbers would go round the right to search the directories above it.  A token is good for the user that it was given
 * to: as a part of a name (cow_ioctl.h) it can be seen by others.
 */
#ifndef COWFS_TOKENS_H
#define COWFS_TOKENS_H

#include "cowfs/mount.h"

struct cowfs_tokens *cowfs_tokens_new(void);
/* Gives back the references of what is left. */
void cowfs_tokens_free(struct cowfs_tokens *tokens);
/* Takes a reference of its own. -- -ENOMEM, -EAGAIN (too many unused ones) */
int cowfs_token_issue(struct cowfs_tokens *tokens, struct cow_inode *inode, const struct fuse_ctx *caller,
		      uint64_t *token);
/*
 * The inode with its reference, which now is the caller's; NULL if the token is unknown, used, too old or another
 * user's.  *proof: what cowfs_token_prove() has noted on it, or 0; may be NULL.
 */
struct cow_inode *cowfs_token_redeem(struct cowfs_tokens *tokens, uint64_t token, const struct fuse_ctx *caller,
				     uint64_t *proof);
/* Has a thread with the caller's number been given a token for `inode`? */
bool cowfs_token_is_held(struct cowfs_tokens *tokens, const struct cow_inode *inode, const struct fuse_ctx *caller);
/*
 * Notes `proof`, not 0, on the caller's tokens for `inode`.  `started`: since when the caller's thread runs, in
 * nanoseconds of CLOCK_BOOTTIME: tokens that are older were given to another thread, which had its number before.
 */
void cowfs_token_prove(struct cowfs_tokens *tokens, const struct cow_inode *inode, const struct fuse_ctx *caller,
		       uint64_t started, uint64_t proof);

#endif
