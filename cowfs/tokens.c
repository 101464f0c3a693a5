/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A short list in order of age; the old ones fall off at its head whenever somebody comes. */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#include "cowfs/tokens.h"

#define SECOND 1000000000ull
#define LIFE (60 * SECOND)
#define MAX_TOKENS 4096

struct token {
	uint64_t number;
	struct cow_inode *inode; /* holds one reference */
	uid_t user;    /* whom it was given to */
	pid_t thread;
	uint64_t born; /* nanoseconds of CLOCK_BOOTTIME */
	uint64_t proof;
	struct token *next;
};

struct cowfs_tokens {
	pthread_mutex_t lock;
	struct token *first, **last; /* lock */
	unsigned count;              /* lock */
};

static uint64_t boot_time(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

struct cowfs_tokens *cowfs_tokens_new(void)
{
	struct cowfs_tokens *tokens = calloc(1, sizeof(*tokens));

	if (!tokens)
		return NULL;
	pthread_mutex_init(&tokens->lock, NULL);
	tokens->last = &tokens->first;
	return tokens;
}

static void free_list(struct token *list)
{
	struct token *next;

	for (; list; list = next) {
		next = list->next;
		cow_forget(list->inode, 1);
		free(list);
	}
}

void cowfs_tokens_free(struct cowfs_tokens *tokens)
{
	if (!tokens)
		return;
	free_list(tokens->first);
	pthread_mutex_destroy(&tokens->lock);
	free(tokens);
}

/* Takes out what is too old; the caller frees it without the lock, as a last reference can take a while. */
static struct token *expire_locked(struct cowfs_tokens *tokens)
{
	struct token *old = NULL, *token;
	uint64_t now = boot_time();

	while ((token = tokens->first) && now - token->born > LIFE) {
		tokens->first = token->next;
		token->next = old;
		old = token;
		tokens->count--;
	}
	if (!tokens->first)
		tokens->last = &tokens->first;
	return old;
}

int cowfs_token_issue(struct cowfs_tokens *tokens, struct cow_inode *inode, const struct fuse_ctx *caller,
		      uint64_t *number)
{
	struct token *token = calloc(1, sizeof(*token)), *old;
	int result = 0;

	if (!token)
		return -ENOMEM;
	do {
		if (getrandom(&token->number, sizeof(token->number), 0) != sizeof(token->number)) {
			free(token);
			return -EAGAIN;
		}
	} while (!token->number);
	token->inode = inode;
	token->user = caller->uid;
	token->thread = caller->pid;
	token->born = boot_time();
	*number = token->number;
	pthread_mutex_lock(&tokens->lock);
	old = expire_locked(tokens);
	if (tokens->count >= MAX_TOKENS) {
		result = -EAGAIN;
	} else {
		cow_ref(inode);
		*tokens->last = token;
		tokens->last = &token->next;
		tokens->count++;
	}
	pthread_mutex_unlock(&tokens->lock);
	if (result)
		free(token);
	free_list(old);
	return result;
}

struct cow_inode *cowfs_token_redeem(struct cowfs_tokens *tokens, uint64_t number, const struct fuse_ctx *caller,
				     uint64_t *proof)
{
	struct token *found = NULL, *old, **at;
	struct cow_inode *inode = NULL;

	pthread_mutex_lock(&tokens->lock);
	old = expire_locked(tokens);
	for (at = &tokens->first; *at && ((*at)->number != number || (*at)->user != caller->uid); at = &(*at)->next)
		;
	if (*at) {
		found = *at;
		*at = found->next;
		if (!*at)
			tokens->last = at;
		tokens->count--;
	}
	pthread_mutex_unlock(&tokens->lock);
	if (found)
		inode = found->inode;
	if (proof)
		*proof = found ? found->proof : 0;
	free(found);
	free_list(old);
	return inode;
}

static bool is_his(const struct token *token, const struct cow_inode *inode, const struct fuse_ctx *caller)
{
	return token->inode == inode && token->user == caller->uid && token->thread == caller->pid && caller->pid;
}

bool cowfs_token_is_held(struct cowfs_tokens *tokens, const struct cow_inode *inode, const struct fuse_ctx *caller)
{
	const struct token *token;

	pthread_mutex_lock(&tokens->lock);
	for (token = tokens->first; token && !is_his(token, inode, caller); token = token->next)
		;
	pthread_mutex_unlock(&tokens->lock);
	return token;
}

void cowfs_token_prove(struct cowfs_tokens *tokens, const struct cow_inode *inode, const struct fuse_ctx *caller,
		       uint64_t started, uint64_t proof)
{
	pthread_mutex_lock(&tokens->lock);
	for (struct token *token = tokens->first; token; token = token->next) {
		if (is_his(token, inode, caller) && started <= token->born)
			token->proof = proof;
	}
	pthread_mutex_unlock(&tokens->lock);
}
