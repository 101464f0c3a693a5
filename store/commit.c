/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commit (doc/DESIGN.md, "Commit and crash"): from one durable generation to the next. Everything not reachable from
 * the last durable superblock is as if it never happened; that is the only recovery principle.
 *
 *   step                                                       a crash after it leaves
 *   1 seal: fold, give every dirty node its block, compute      the old generation
 *     checksums children first, set the deltas of counts aside
 *   2 write file data, nodes, count slots not in use             the old generation
 *   3 flush                                                      the old generation
 *   4 superblock copy A, flush, copy B                           the new generation
 *   5 what the old generation alone used may be allocated        the new generation
 *     and, some commits later, goes back to the host
 *
 * Step 1 has the gate exclusively, which waits for operations under way (their I/O too); it does no I/O itself except
 * for what is missing in the caches. Steps 2 to 4 run beside the operations of the next generation.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>

#include "base/mem.h"
#include "cow.h"
#include "store/node.h"

#define WRITE_BLOCKS 256u /* nodes written in one go: 1 MiB */
#define TRIM_AGE 8u /* commits, or as long without one, for which freed space stays here, to be used again */

/* ------------------------------------------------------------------ seal */

struct collector { /* pushes the dirty children of a node, each once */
	struct cow_claims visitor;
	struct cow_store *store;
	struct cow_node **stack;
	size_t depth, size;
};

static void stack_push(struct collector *c, struct cow_node *node)
{
	if (c->depth == c->size) {
		c->size = c->size != 0 ? 2 * c->size : 256;
		c->stack = cow_mem_resize(c->stack, c->size * sizeof(*c->stack));
	}
	c->stack[c->depth++] = node;
}

static void collect_tree(struct cow_claims *self, uint8_t *ptr, uint8_t kind)
{
	struct collector *c = (struct collector *)self;
	struct cow_ptr p = cow_ptr_get(ptr);

	(void)kind;
	if (cow_ptr_is_null(p) || !cow_ptr_is_dirty(p))
		return;
	struct cow_node *node = cow_map_get(&c->store->nodes, p.addr);
	if (!node->queued)
		stack_push(c, node);
}

static void collect_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	(void)self, (void)block, (void)length;
}

static void sealed_add(struct cow_store *store, struct cow_node *node)
{
	if (store->sealed_count == store->sealed_size) {
		store->sealed_size = store->sealed_size != 0 ? 2 * store->sealed_size : 256;
		store->sealed = cow_mem_resize(store->sealed, store->sealed_size * sizeof(*store->sealed));
	}
	store->sealed[store->sealed_count++] = node;
}

/* All dirty nodes, children before parents. A stack of our own: directories may be nested without limit. */
static void collect(struct cow_store *store)
{
	struct collector c = {.visitor = {collect_tree, collect_run}, .store = store};

	for (unsigned i = 0; i < COW_ROOTS; i++) {
		if (cow_ptr_is_dirty(store->roots[i].root))
			stack_push(&c, cow_map_get(&store->nodes, store->roots[i].root.addr));
		while (c.depth > 0) {
			struct cow_node *node = c.stack[c.depth - 1];
			if (node->queued) { /* its children are done, or it was reached twice */
				c.depth--;
				if (node->state == COW_NODE_DIRTY) {
					node->state = COW_NODE_SEALED;
					sealed_add(store, node);
				}
			} else {
				node->queued = true;
				cow_node_claims(store, node, &c.visitor);
			}
		}
	}
	free(c.stack);
	assert(store->sealed_count == store->dirty_nodes);
}

struct patcher {
	struct cow_claims visitor;
	struct cow_store *store;
};

void cow_store_translate(struct cow_store *store, struct cow_ptr *ptr)
{
	if (cow_ptr_is_dirty(*ptr)) {
		struct cow_node *node = cow_map_get(&store->nodes, ptr->addr);
		assert(node != NULL && node->at.addr != 0);
		*ptr = node->at;
	}
}

static void patch_tree(struct cow_claims *self, uint8_t *ptr, uint8_t kind)
{
	struct cow_ptr p = cow_ptr_get(ptr);

	(void)kind;
	if (cow_ptr_is_dirty(p)) {
		cow_store_translate(((struct patcher *)self)->store, &p);
		cow_ptr_put(ptr, p);
	}
}

/* Whoever walks over a node holds the tree that it is in, so its block has a count, unless the image lies. */
static int not_being_read(struct cow_store *store, uint64_t start, uint32_t length)
{
	for (uint32_t i = 0; i < length; i++) {
		const struct cow_node *stale = cow_map_get(&store->nodes, start + i);

		if (stale != NULL && stale->pins > 0) {
			store->ops->log(store->context, COW_LOG_ERROR, "a node in use has a count of 0; run cow check");
			return COW_ERR_DAMAGED;
		}
	}
	return 0;
}

/* One block a node, as runs. May have to load counts: the gate is ours, so nothing moves meanwhile. */
static int allocate(struct cow_store *store, uint64_t *blocks, size_t count)
{
	for (size_t done = 0; done < count;) {
		uint64_t start;
		uint32_t length = 0;
		size_t want = count - done < 1024 ? count - done : 1024;
		int error = cow_counts_alloc(store->counts, COW_ALLOC_NODE, (uint32_t)want, &start, &length,
					     &store->miss.counts);

		if (error == COW_MISS) {
			store->miss.what = COW_MISS_COUNTS;
			error = cow_store_fill(store, NULL);
			if (error == 0)
				continue;
		}
		for (uint32_t i = 0; i < length && error == 0; i++)
			blocks[done++] = start + i;
		if (error == 0)
			error = not_being_read(store, start, length);
		if (error != 0) { /* nothing leads to them: free again after the next commit */
			while (done > 0)
				cow_counts_add(store->counts, blocks[--done], 1, -1);
			return error;
		}
	}
	return 0;
}

static void seal_nodes(struct cow_store *store, const uint64_t *blocks)
{
	struct patcher patcher = {{patch_tree, collect_run}, store};

	for (size_t i = 0; i < store->sealed_count; i++) {
		struct cow_node *node = store->sealed[i];

		cow_node_claims(store, node, &patcher.visitor);
		put64(node->bytes + 8, blocks[i]);
		put64(node->bytes + 16, store->generation);
		if (node->holders > 1) /* allocated with a count of 1 */
			cow_counts_add(store->counts, blocks[i], 1, (int)node->holders - 1);
		node->at = (struct cow_ptr){blocks[i], XXH3_64bits(node->bytes, COW_BLOCK), store->generation};
	}
	for (unsigned i = 0; i < COW_ROOTS; i++)
		cow_store_translate(store, &store->roots[i].root);
	store->ops->translate(store->context);
}

/* From their numbers to their addresses, where an old node that lived there may still be in memory. */
static void rename_nodes(struct cow_store *store)
{
	for (size_t i = 0; i < store->sealed_count; i++) {
		struct cow_node *node = store->sealed[i], *stale = cow_map_get(&store->nodes, node->at.addr);

		if (stale != NULL)
			cow_node_forget_clean(store, stale);
		cow_map_remove(&store->nodes, node->id);
		node->id = node->at.addr;
		node->queued = false;
		cow_map_put(&store->nodes, node->id, node);
	}
	store->dirty_nodes = 0;
}

/* [gate exclusive, locked] */
static int seal(struct cow_store *store, struct cow_super *super)
{
	uint64_t *blocks = NULL;
	int error;

	while ((error = store->ops->fold(store->context)) == COW_MISS)
		if ((error = cow_store_fill(store, NULL)) != 0)
			break;
	if (error != 0)
		return error;
	store->sealed_count = 0;
	blocks = cow_mem_new(store->dirty_nodes * sizeof(*blocks));
	error = allocate(store, blocks, store->dirty_nodes);
	if (error == 0) {
		collect(store);
		seal_nodes(store, blocks);
		rename_nodes(store);
		*super = store->super;
		super->generation = store->generation;
		for (unsigned i = 0; i < COW_ROOTS; i++) {
			super->roots[i] = store->roots[i].root;
			super->root_kinds[i] = store->roots[i].kind;
		}
		store->ops->user(store->context, super->user);
		cow_log_seal(&store->log, &super->log);
		cow_counts_seal(store->counts);
		store->generation++;
		store->ops->sealed(store->context);
		store->sealed_changes = store->changes;
	}
	free(blocks);
	return error;
}

/* ------------------------------------------------------------------ writing */

static int by_address(const void *a, const void *b)
{
	uint64_t x = (*(struct cow_node *const *)a)->id, y = (*(struct cow_node *const *)b)->id;

	return x < y ? -1 : x > y;
}

/* Sealed nodes do not change: no lock is needed. */
static int write_nodes(struct cow_store *store)
{
	size_t most = store->sealed_count < WRITE_BLOCKS ? store->sealed_count : WRITE_BLOCKS;
	uint8_t *buffer = malloc(most * COW_BLOCK);
	int error = buffer != NULL || most == 0 ? 0 : -ENOMEM;

	if (store->sealed_count > 1)
		qsort(store->sealed, store->sealed_count, sizeof(*store->sealed), by_address);
	for (size_t i = 0, n; i < store->sealed_count && error == 0; i += n) {
		uint64_t first = store->sealed[i]->id;

		for (n = 0; n < WRITE_BLOCKS && i + n < store->sealed_count && store->sealed[i + n]->id == first + n;
		     n++)
			memcpy(buffer + n * COW_BLOCK, store->sealed[i + n]->bytes, COW_BLOCK);
		error = cow_dev_write(store->dev, buffer, n * COW_BLOCK, first << COW_BLOCK_SHIFT);
	}
	free(buffer);
	return error;
}

static int write_generation(struct cow_store *store, struct cow_super *super)
{
	int error = store->ops->write_data(store->context);

	if (error == 0)
		error = write_nodes(store);
	if (error == 0)
		error = cow_counts_write(store->counts, &super->counts);
	if (error == 0)
		error = cow_dev_flush(store->dev);
	return error == 0 ? cow_super_write(store->dev, super) : error;
}

static void publish(struct cow_store *store, const struct cow_super *super)
{
	cow_counts_durable(store->counts);
	cow_log_durable(&store->log, &super->log);
	store->super = *super;
	store->durable_changes = store->sealed_changes;
	for (size_t i = 0; i < store->sealed_count; i++)
		cow_node_insert_clean(store, store->sealed[i]);
	store->sealed_count = 0;
	cow_node_evict(store);
	store->ops->durable(store->context);
}

static uint64_t promised(void *context)
{
	const struct cow_store *store = context;

	return cow_store_due(store) + store->reserve;
}

/* [commit] */
static bool trim(struct cow_store *store, enum cow_trim_which which)
{
	struct cow_trim trim = {
		.age = which == COW_TRIM_OLD ? TRIM_AGE : 0, .unsure = which == COW_TRIM_UNSURE, .promised = promised,
		.context = store,
	};

	if (which == COW_TRIM_LAST)
		trim.promised = NULL;
	return store->failed == 0 && !store->read_only && cow_counts_trim(store->counts, &trim);
}

static int commit(struct cow_store *store, uint64_t wanted, int (*hook)(void *), void *hook_context)
{
	struct cow_super super;
	int error = 0, hook_error = 0;
	bool sealed = false;

	if (store->failed != 0 && hook == NULL)
		return store->failed;
	pthread_rwlock_wrlock(&store->gate);
	pthread_mutex_lock(&store->lock);
	if (store->durable_changes >= wanted && hook == NULL) { /* somebody else's commit had it all */
		pthread_mutex_unlock(&store->lock);
		pthread_rwlock_unlock(&store->gate);
		return 0;
	}
	if (!store->read_only) {
		error = seal(store, &super);
		sealed = error == 0;
	}
	if (error == 0 && hook != NULL) /* a read-only volume never changes: there is nothing to seal */
		hook_error = hook(hook_context);
	pthread_mutex_unlock(&store->lock);
	pthread_rwlock_unlock(&store->gate);
	if (sealed) {
		error = write_generation(store, &super);
		pthread_mutex_lock(&store->lock);
		if (error == 0)
			publish(store, &super);
		pthread_mutex_unlock(&store->lock);
		if (error == 0)
			(void)trim(store, COW_TRIM_OLD);
	}
	if (error == -ENOSPC && !sealed) /* the host is full: nothing has happened, and it may have space again */
		return error;
	if (error != 0)
		return cow_store_fail(store, error, "commit");
	return hook_error;
}

int cow_store_commit(struct cow_store *store, int (*hook)(void *context), void *hook_context)
{
	uint64_t wanted;
	int error;

	pthread_mutex_lock(&store->lock);
	wanted = store->changes;
	error = hook == NULL && wanted == store->durable_changes ? 1 : 0;
	pthread_mutex_unlock(&store->lock);
	if (error != 0)
		return 0;
	pthread_mutex_lock(&store->commit);
	error = commit(store, wanted, hook, hook_context);
	pthread_mutex_unlock(&store->commit);
	return error;
}

bool cow_store_trim(struct cow_store *store, enum cow_trim_which which)
{
	bool more;

	pthread_mutex_lock(&store->commit);
	more = trim(store, which);
	pthread_mutex_unlock(&store->commit);
	return more;
}

void cow_store_age(struct cow_store *store)
{
	cow_counts_age(store->counts);
}

void cow_store_wait(struct cow_store *store)
{
	pthread_mutex_lock(&store->commit);
	pthread_mutex_unlock(&store->commit);
}
