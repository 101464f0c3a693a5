/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/bare.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cow.h"

/* ------------------------------------------------------------------ what the layer above would do */

static int validate(uint8_t kind, uint64_t key, const uint8_t *value, uint32_t length, uint64_t total_blocks)
{
	(void)key;
	switch (kind) {
	case BARE_PLAIN:
		return 0;
	case BARE_RUN:
		return length >= BARE_RUN_BYTES && cow_layout_run_valid(get64(value), get32(value + 8), total_blocks)
			? 0 : COW_ERR_DAMAGED;
	case BARE_TREE:
		return length >= COW_PTR_BYTES && get64(value) < total_blocks ? 0 : COW_ERR_DAMAGED;
	default:
		return COW_ERR_DAMAGED;
	}
}

static void claims(uint8_t kind, uint8_t *value, uint32_t length, struct cow_claims *visitor)
{
	(void)length;
	if (kind == BARE_RUN)
		visitor->run(visitor, get64(value), get32(value + 8));
	else if (kind == BARE_TREE)
		visitor->tree(visitor, value, BARE_PLAIN);
}

static int nothing_to_do(void *context)
{
	(void)context;
	return 0;
}

static void nothing(void *context)
{
	(void)context;
}

static void no_user(void *context, uint8_t user[COW_SUPER_USER])
{
	(void)context;
	memset(user, 0, COW_SUPER_USER);
}

static void log_line(void *context, int level, const char *text)
{
	(void)text;
	if (level == COW_LOG_ERROR)
		((struct bare *)context)->logged++;
}

const struct cow_store_ops bare_ops = {
	.validate = validate,
	.claims = claims,
	.fold = nothing_to_do,
	.translate = nothing,
	.user = no_user,
	.sealed = nothing,
	.write_data = nothing_to_do,
	.durable = nothing,
	.log = log_line,
};

/* ------------------------------------------------------------------ a store */

static void open_store(struct bare *b)
{
	int error = cow_store_open(b->disk, false, 1 << 20, &bare_ops, b, &b->store);

	assert(error == 0);
}

void bare_begin(struct bare *b, uint64_t bytes)
{
	struct cow_super super = {.uuid = {1}, .total_blocks = bytes / COW_BLOCK};
	int error;

	*b = (struct bare){.disk = cow_sim_new(bytes)};
	super.root_kinds[COW_ROOT_RECLAIM] = COW_KIND_RECLAIM;
	error = cow_store_format(b->disk, &super);
	assert(error == 0);
	open_store(b);
}

void bare_end(struct bare *b)
{
	cow_store_close(b->store);
	cow_dev_close(b->disk);
}

void bare_reopen(struct bare *b)
{
	struct cow_dev *left = cow_sim_cut(b->disk, cow_sim_events(b->disk), COW_SIM_DROP, 1);

	bare_end(b);
	b->disk = left;
	open_store(b);
}

struct cow_tree *bare_root(struct bare *b, unsigned i)
{
	assert(i < BARE_ROOTS);
	return &b->store->roots[1 + i];
}

void bare_forget(struct bare *b)
{
	uint64_t limit = b->store->clean_limit;

	b->store->clean_limit = 0;
	cow_node_evict(b->store);
	b->store->clean_limit = limit;
}

void bare_drain(struct bare *b)
{
	int more, error;

	pthread_mutex_lock(&b->store->lock);
	do {
		while ((more = cow_reclaim_step(b->store)) == COW_MISS) {
			error = cow_store_fill(b->store, NULL);
			assert(error == 0);
		}
		assert(more >= 0);
	} while (more > 0);
	pthread_mutex_unlock(&b->store->lock);
	for (int i = 0; i < 2; i++) { /* what the first one frees is free after it */
		error = cow_store_commit(b->store, NULL, NULL);
		assert(error == 0);
	}
}

/* ------------------------------------------------------------------ counting by hand */

struct walk {
	struct cow_claims visitor;
	struct bare *bare;
	uint32_t *count;      /* pointers to each block */
	struct cow_map dirty; /* id of a dirty node -> pointers to it, as (void *) */
	char text[160];
};

static void look(struct walk *w, struct cow_ptr ptr, uint8_t kind, int level, struct cow_keys keys);

static void wrong(struct walk *w, struct cow_ptr ptr, const char *what)
{
	if (w->text[0] == '\0')
		snprintf(w->text, sizeof(w->text), "node %" PRIx64 ": %s", ptr.addr, what);
}

static void visit_tree(struct cow_claims *self, uint8_t *ptr, uint8_t kind)
{
	look((struct walk *)self, cow_ptr_get(ptr), kind, -1, COW_KEYS_ALL);
}

static void visit_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	for (uint32_t i = 0; i < length; i++)
		((struct walk *)self)->count[block + i]++;
}

static struct cow_node *read_node(struct walk *w, struct cow_ptr ptr, uint8_t kind, int level)
{
	struct cow_node *node;
	int error;

	while ((error = cow_node_get(w->bare->store, ptr, kind, level, &node)) == COW_MISS)
		if (cow_store_fill(w->bare->store, NULL) != 0)
			break;
	if (error != 0) {
		wrong(w, ptr, "cannot be read");
		return NULL;
	}
	return node;
}

/* A node's pointers count once, however many lead to it. True: it was not known yet. */
static bool count_node(struct walk *w, struct cow_ptr ptr)
{
	if (cow_ptr_is_dirty(ptr)) {
		uintptr_t n = (uintptr_t)cow_map_get(&w->dirty, ptr.addr);

		cow_map_put(&w->dirty, ptr.addr, (void *)(n + 1));
		return n == 0;
	}
	return w->count[ptr.addr]++ == 0;
}

static void look(struct walk *w, struct cow_ptr ptr, uint8_t kind, int level, struct cow_keys keys)
{
	struct cow_node *node;

	if (cow_ptr_is_null(ptr) || w->text[0] != '\0')
		return;
	node = read_node(w, ptr, kind, level);
	if (node == NULL)
		return;
	if (!cow_node_within(node, &keys))
		wrong(w, ptr, "keys that are not within the separators above");
	if (cow_node_items(node) == 0)
		wrong(w, ptr, "is empty");
	if (!count_node(w, ptr))
		return;
	if (cow_node_level(node) == 0) {
		cow_node_claims(w->bare->store, node, &w->visitor);
		return;
	}
	for (unsigned i = 0; i < cow_node_items(node); i++)
		look(w, cow_inner_ptr(node, i), kind, cow_node_level(node) - 1, cow_keys_below(&keys, node, i));
}

static void compare_counts(struct walk *w)
{
	struct cow_store *store = w->bare->store;
	struct cow_map_slot *slot;

	for (uint64_t block = 0; block < store->total_blocks && w->text[0] == '\0'; block++) {
		uint64_t miss;
		uint32_t count;

		if (cow_layout_is_system(block))
			continue;
		while (cow_counts_get(store->counts, block, &count, &miss) == COW_MISS) {
			pthread_mutex_unlock(&store->lock);
			if (cow_counts_load(store->counts, miss) != 0)
				abort();
			pthread_mutex_lock(&store->lock);
		}
		if (count != w->count[block])
			snprintf(w->text, sizeof(w->text), "block %" PRIu64 ": count %u, but %u pointers", block, count,
				 w->count[block]);
	}
	for (size_t i = 0; (slot = cow_map_each(&w->dirty, &i)) != NULL;) {
		struct cow_node *node = cow_map_get(&store->nodes, slot->key);

		if (node->holders != (uintptr_t)slot->value)
			wrong(w, cow_node_ptr(node), "not as many holders as pointers");
	}
	if (w->text[0] == '\0' && w->dirty.count != store->dirty_nodes)
		snprintf(w->text, sizeof(w->text), "%" PRIu64 " dirty nodes, of which %zu are in trees",
			 store->dirty_nodes, w->dirty.count);
}

const char *bare_wrong(struct bare *b)
{
	static char text[sizeof(((struct walk *)0)->text)];
	struct walk w = {.visitor = {visit_tree, visit_run}, .bare = b};

	w.count = cow_mem_new(b->store->total_blocks * sizeof(*w.count));
	pthread_mutex_lock(&b->store->lock);
	for (unsigned i = 0; i < COW_ROOTS; i++)
		look(&w, b->store->roots[i].root, b->store->roots[i].kind, -1, COW_KEYS_ALL);
	compare_counts(&w);
	pthread_mutex_unlock(&b->store->lock);
	free(w.count);
	cow_map_free(&w.dirty);
	memcpy(text, w.text, sizeof(text));
	return text[0] != '\0' ? text : NULL;
}
