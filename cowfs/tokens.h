/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One-use names for inodes.  Who wants a clone shows by a token that he has the source open: paths and numbers would
 * go round the right to search the directories above it.
 */
#ifndef COWFS_TOKENS_H
#define COWFS_TOKENS_H

#include "cowfs/mount.h"

struct cowfs_tokens *cowfs_tokens_new(void);
/* Gives back the references of what is left. */
void cowfs_tokens_free(struct cowfs_tokens *tokens);
/* Takes a reference of its own. -- -ENOMEM, -EAGAIN (too many unused ones) */
int cowfs_token_issue(struct cowfs_tokens *tokens, struct cow_inode *inode, uint64_t *token);
/* The inode with its reference, which now is the caller's; NULL if the token is unknown, used or too old. */
struct cow_inode *cowfs_token_redeem(struct cowfs_tokens *tokens, uint64_t token);

#endif
