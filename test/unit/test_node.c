/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nodes: their bytes against an encoder and a validator that were written from doc/FORMAT.md in the plainest way, and
 * the cache that keeps them against what it promises.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>

#include "cow.h"
#include "store/tree.h"
#include "test/lib/bare.h"
#include "test/lib/cases.h"
#include "test/lib/op.h"
#include "test/lib/trial.h"

#define VOLUME_BYTES (16u << 20)
#define TOTAL_BLOCKS 4096u
#define BIRTH 1000u
#define ITEMS_MAX ((COW_BLOCK - COW_NODE_HEADER) / COW_LEAF_SLOT)

/* ------------------------------------------------------------------ the encoder */

struct value {
	uint64_t key;
	uint32_t length;
	uint8_t bytes[COW_VALUE_MAX];
};

static void encode_header(uint8_t *bytes, uint8_t kind, unsigned level, unsigned items)
{
	memset(bytes, 0, COW_BLOCK);
	memcpy(bytes, "cown", 4);
	bytes[4] = kind;
	bytes[5] = (uint8_t)level;
	put16(bytes + 6, (uint16_t)items);
}

static void encode_leaf(uint8_t *bytes, uint8_t kind, const struct value *values, unsigned count)
{
	uint32_t end = COW_BLOCK;

	encode_header(bytes, kind, 0, count);
	for (unsigned i = 0; i < count; i++) {
		end -= values[i].length;
		put64(bytes + 32 + (size_t)10 * i, values[i].key);
		put16(bytes + 32 + (size_t)10 * i + 8, (uint16_t)end);
		memcpy(bytes + end, values[i].bytes, values[i].length);
	}
}

static void encode_inner(uint8_t *bytes, uint8_t kind, unsigned level, const uint64_t *keys,
			 const struct cow_ptr *children, unsigned count)
{
	encode_header(bytes, kind, level, count);
	for (unsigned i = 0; i < count; i++) {
		put64(bytes + 32 + (size_t)32 * i, keys[i]);
		put64(bytes + 32 + (size_t)32 * i + 8, children[i].addr);
		put64(bytes + 32 + (size_t)32 * i + 16, children[i].sum);
		put64(bytes + 32 + (size_t)32 * i + 24, children[i].generation);
	}
}

/* ------------------------------------------------------------------ the validator */

static bool is_ordinary_block(uint64_t block)
{
	uint64_t group = block / 1024, in = block % 1024;
	unsigned slots = group == 0 ? 24 : 18; /* a volume as small as this one has one selector block of each level */

	return block < TOTAL_BLOCKS && (group == 0 ? in >= slots : in < 16 || in >= slots);
}

static bool leaf_is_sound(const uint8_t *bytes)
{
	unsigned items = get16(bytes + 6);
	uint32_t end = COW_BLOCK;

	if (32 + 10 * items > COW_BLOCK)
		return false;
	for (unsigned i = 0; i < items; i++) {
		const uint8_t *slot = bytes + 32 + (size_t)10 * i;
		uint32_t start = get16(slot + 8), length = end - start;

		if (start > end || length > 1024 || start < 32 + 10 * items)
			return false;
		if (i > 0 && get64(slot) <= get64(slot - 10))
			return false;
		if (bytes[4] == COW_KIND_RECLAIM) {
			const uint8_t *entry = bytes + start;

			if (length != 25 || get64(slot) >= 1ull << 63 || !is_ordinary_block(get64(entry)) ||
			    get64(entry + 16) == 0 || entry[24] == 0)
				return false;
		} else if (bare_ops.validate(bytes[4], get64(slot), bytes + start, length, TOTAL_BLOCKS) != 0) {
			return false;
		}
		end = start;
	}
	return true;
}

static bool inner_is_sound(const uint8_t *bytes)
{
	unsigned items = get16(bytes + 6);

	if (items == 0 || 32 + 32 * items > COW_BLOCK)
		return false;
	for (unsigned i = 0; i < items; i++) {
		const uint8_t *item = bytes + 32 + (size_t)32 * i;

		if (i > 0 && get64(item) <= get64(item - 32))
			return false;
		if (!is_ordinary_block(get64(item + 8)) || get64(item + 24) > get64(bytes + 16))
			return false;
	}
	return true;
}

static bool is_sound(const uint8_t *bytes)
{
	if (memcmp(bytes, "cown", 4) != 0 || bytes[5] > 7 || get64(bytes + 24) != 0)
		return false;
	return bytes[5] == 0 ? leaf_is_sound(bytes) : inner_is_sound(bytes);
}

static bool accepts(struct cow_node *node)
{
	int answer = cow_node_validate(node, &bare_ops, TOTAL_BLOCKS);

	assert_true(answer == 0 || answer == COW_ERR_DAMAGED);
	return answer == 0;
}

/* ------------------------------------------------------------------ random nodes */

static void random_bytes(struct rng *rng, uint8_t *bytes, uint32_t length)
{
	for (uint32_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)rng_next(rng);
}

static uint64_t random_block(struct rng *rng)
{
	uint64_t block;

	do
		block = rng_below(rng, TOTAL_BLOCKS);
	while (!is_ordinary_block(block));
	return block;
}

static void random_value(struct rng *rng, uint8_t kind, struct value *value)
{
	value->length = (uint32_t)rng_below(rng, rng_chance(rng, 20) ? COW_VALUE_MAX + 1 : 40);
	random_bytes(rng, value->bytes, value->length);
	if (kind == COW_KIND_RECLAIM) {
		value->length = 25;
		put64(value->bytes, random_block(rng));
		put64(value->bytes + 16, 1 + rng_below(rng, BIRTH));
		value->bytes[24] = BARE_PLAIN;
	}
}

/* As many values as fit, with keys that ascend. */
static unsigned random_values(struct rng *rng, uint8_t kind, struct value *values)
{
	uint64_t key = rng_chance(rng, 20) ? 0 : rng_below(rng, 1000);
	unsigned count = 0, want = 1 + (unsigned)rng_below(rng, rng_chance(rng, 30) ? ITEMS_MAX : 20);
	uint32_t room = COW_BLOCK - COW_NODE_HEADER;

	while (count < want) {
		values[count].key = key;
		random_value(rng, kind, &values[count]);
		if (values[count].length + COW_LEAF_SLOT > room)
			break;
		room -= values[count++].length + COW_LEAF_SLOT;
		key += 1 + rng_below(rng, rng_chance(rng, 10) ? 1ull << 40 : 3);
	}
	return count;
}

static void random_node(struct rng *rng, struct cow_node *node)
{
	static struct value values[ITEMS_MAX + 1];
	uint64_t keys[COW_INNER_ITEMS_MAX];
	struct cow_ptr children[COW_INNER_ITEMS_MAX];
	uint8_t kind = rng_chance(rng, 30) ? COW_KIND_RECLAIM : BARE_PLAIN;
	unsigned count = 1 + (unsigned)rng_below(rng, COW_INNER_ITEMS_MAX);

	if (rng_chance(rng, 60)) {
		count = random_values(rng, kind, values);
		encode_leaf(node->bytes, kind, values, count);
	} else {
		for (unsigned i = 0; i < count; i++) {
			keys[i] = i == 0 ? rng_below(rng, 5) : keys[i - 1] + 1 + rng_below(rng, 9);
			children[i] = (struct cow_ptr){random_block(rng), rng_next(rng), 1 + rng_below(rng, BIRTH)};
		}
		encode_inner(node->bytes, kind, 1 + (unsigned)rng_below(rng, 7), keys, children, count);
	}
	put64(node->bytes + 16, BIRTH);
}

/* ------------------------------------------------------------------ bytes */

/* Is each key found, and for others the item below? */
static void compare_find(struct cow_node *node, uint64_t key)
{
	int want = -1;

	for (unsigned i = 0; i < cow_node_items(node); i++)
		if (cow_node_key(node, i) <= key)
			want = (int)i;
	assert_int_equal(cow_node_find(node, key), want);
}

static void test_find(void **state)
{
	struct cow_node *node = calloc(1, sizeof(*node));

	(void)state;
	for (struct trial t = {0}; trial_next(&t, 400, 300);) {
		struct rng rng = {t.seed};

		random_node(&rng, node);
		assert_true(is_sound(node->bytes));
		assert_true(accepts(node));
		compare_find(node, 0);
		compare_find(node, UINT64_MAX);
		for (unsigned i = 0; i < 20; i++) {
			uint64_t key = cow_node_key(node, (unsigned)rng_below(&rng, cow_node_items(node)));

			compare_find(node, key - 1);
			compare_find(node, key);
			compare_find(node, key + 1);
		}
	}
	free(node);
}

/* Makes one thing wrong, or something random. What is wrong in two ways at once is the next seed's. */
static void spoil(struct rng *rng, uint8_t *bytes)
{
	static const uint32_t header[] = {0, 4, 5, 6, 7, 24, 31};
	unsigned items = get16(bytes + 6), i = (unsigned)rng_below(rng, items);
	uint8_t *slot = bytes + 32 + (size_t)(bytes[5] == 0 ? 10 : 32) * i;

	switch (rng_below(rng, 8)) {
	case 0:
		bytes[header[rng_below(rng, 7)]] = (uint8_t)rng_next(rng);
		break;
	case 1:
		put64(slot, get64(slot) + rng_below(rng, 9) - 4);
		break;
	case 2:
		put64(slot, rng_next(rng));
		break;
	case 3:
		put64(slot + 8, rng_below(rng, TOTAL_BLOCKS + 50));
		break;
	case 4:
		put16(slot + 8, (uint16_t)(get16(slot + 8) + rng_below(rng, 5) - 2));
		break;
	case 5:
		put64(bytes + 16, rng_below(rng, BIRTH + 2));
		break;
	case 6: /* more items, or fewer */
		put16(bytes + 6, (uint16_t)(items + rng_below(rng, 9) - 4));
		break;
	default:
		bytes[rng_below(rng, COW_BLOCK)] ^= (uint8_t)(1u << rng_below(rng, 8));
	}
}

static void test_hostile_bytes(void **state)
{
	struct cow_node *node = calloc(1, sizeof(*node));
	unsigned refused = 0, accepted = 0;

	(void)state;
	for (struct trial t = {0}; trial_next(&t, 40000, 30000);) {
		struct rng rng = {t.seed};
		bool sound;

		random_node(&rng, node);
		spoil(&rng, node->bytes);
		sound = is_sound(node->bytes);
		if (accepts(node) != sound)
			fail_msg("a node that is%s sound was %s", sound ? "" : " not", sound ? "refused" : "accepted");
		*(sound ? &accepted : &refused) += 1;
	}
	trial_say("%u refused, %u accepted", refused, accepted);
	free(node);
}

/* Each rule by itself, at its border. */
static void test_each_rule(void **state)
{
	struct value values[2] = {{.key = 5, .length = 1}, {.key = 6, .length = COW_VALUE_MAX}};
	struct cow_ptr children[2] = {{100, 1, BIRTH}, {101, 1, 1}};
	struct cow_node *node = calloc(1, sizeof(*node));
	uint64_t keys[2] = {5, 6};

	(void)state;
#define LEAF(change, good) \
	do { \
		encode_leaf(node->bytes, BARE_PLAIN, values, 2); \
		change; \
		assert_int_equal(accepts(node), good); \
		assert_int_equal(is_sound(node->bytes), good); \
	} while (0)
#define INNER(change, good) \
	do { \
		encode_inner(node->bytes, BARE_PLAIN, 7, keys, children, 2); \
		put64(node->bytes + 16, BIRTH); \
		change; \
		assert_int_equal(accepts(node), good); \
		assert_int_equal(is_sound(node->bytes), good); \
	} while (0)
	LEAF((void)0, true);
	LEAF(node->bytes[0]++, false);
	LEAF(node->bytes[4] = 99, false); /* no such kind */
	LEAF(node->bytes[24] = 1, false);
	LEAF(put64(cow_leaf_slot(node, 1), 5), false);
	LEAF(put64(cow_leaf_slot(node, 0), UINT64_MAX), false);
	LEAF(put16(cow_leaf_slot(node, 1) + 8, COW_BLOCK - 2 - COW_VALUE_MAX), false); /* one byte too long */
	LEAF(put16(cow_leaf_slot(node, 1) + 8, COW_BLOCK - 1), true); /* of no bytes */
	LEAF(put16(cow_leaf_slot(node, 1) + 8, COW_BLOCK), false);
	LEAF(put16(cow_leaf_slot(node, 1) + 8, 51), false);
	LEAF(put16(node->bytes + 6, 0), true); /* only at the root of nothing: not for validation to say */
	LEAF(put16(node->bytes + 6, ITEMS_MAX + 1), false);
	INNER((void)0, true);
	INNER(node->bytes[5] = 8, false);
	INNER(put16(node->bytes + 6, 0), false);
	INNER(put16(node->bytes + 6, 1), true);
	INNER(put16(node->bytes + 6, 128), false);
	INNER(put64(cow_inner_item(node, 1), 5), false);
	INNER(put64(cow_inner_item(node, 1) + 8, 0), false);
	INNER(put64(cow_inner_item(node, 1) + 8, TOTAL_BLOCKS), false);
	INNER(put64(cow_inner_item(node, 1) + 8, TOTAL_BLOCKS - 1), true);
	INNER(put64(cow_inner_item(node, 1) + 8, 16), false); /* counts lie there */
	INNER(put64(cow_inner_item(node, 1) + 8, 1024 + 17), false);
	INNER(put64(cow_inner_item(node, 1) + 8, 1024 + 18), true);
	INNER(put64(cow_inner_item(node, 1) + 24, BIRTH + 1), false);
	free(node);
}

/* ------------------------------------------------------------------ what inserting and removing leaves */

struct world {
	struct bare bare;
	struct value *values; /* ascending */
	unsigned count, leaves;
	unsigned done;        /* of them, in the leaves that have been looked at */
};

/* Every byte of each node is as the encoder has it: the values lie without gaps, what is unused is zero. */
static void compare_nodes(struct world *w, struct cow_ptr ptr)
{
	static uint8_t want[COW_BLOCK];
	struct cow_node *node;
	unsigned items;

	assert_int_equal(cow_node_get(w->bare.store, ptr, BARE_PLAIN, -1, &node), 0);
	items = cow_node_items(node);
	if (cow_node_level(node) == 0) {
		assert_in_range(items, 1, w->count - w->done);
		encode_leaf(want, BARE_PLAIN, w->values + w->done, items);
		w->done += items;
		w->leaves++;
	} else {
		uint64_t keys[COW_INNER_ITEMS_MAX];
		struct cow_ptr children[COW_INNER_ITEMS_MAX];

		for (unsigned i = 0; i < items; i++) {
			keys[i] = cow_node_key(node, i);
			children[i] = cow_inner_ptr(node, i);
			compare_nodes(w, children[i]);
		}
		encode_inner(want, BARE_PLAIN, (unsigned)cow_node_level(node), keys, children, items);
	}
	put64(want + 16, w->bare.store->generation);
	assert_memory_equal(node->bytes, want, COW_BLOCK);
}

static void put_value(struct world *w, struct rng *rng, uint64_t key)
{
	struct value value = {.key = key};
	unsigned i = 0;

	random_value(rng, BARE_PLAIN, &value);
	while (i < w->count && w->values[i].key < key)
		i++;
	if (i == w->count || w->values[i].key != key)
		memmove(&w->values[i + 1], &w->values[i], (w->count++ - i) * sizeof(value));
	w->values[i] = value;
	assert_int_equal(cow_tree_put(w->bare.store, bare_root(&w->bare, 0), key, value.bytes, value.length), 0);
}

static void delete_value(struct world *w, unsigned i)
{
	assert_int_equal(cow_tree_del(w->bare.store, bare_root(&w->bare, 0), w->values[i].key), 0);
	memmove(&w->values[i], &w->values[i + 1], (--w->count - i) * sizeof(*w->values));
}

static void test_insert_and_remove(void **state)
{
	(void)state;
	for (struct trial t = {0}; trial_next(&t, 20, 10);) {
		uint64_t steps = trial_length(1500);
		struct rng rng = {t.seed};
		struct world w = {.count = 0};
		unsigned most = 1 + (unsigned)rng_below(&rng, 600);

		bare_begin(&w.bare, VOLUME_BYTES);
		w.values = calloc(most + 1, sizeof(*w.values));
		bare_root(&w.bare, 0)->kind = BARE_PLAIN;
		pthread_mutex_lock(&w.bare.store->lock);
		for (uint64_t i = 0; i < steps; i++) {
			if (w.count < most && rng_chance(&rng, i < steps / 2 ? 70 : 30))
				put_value(&w, &rng, rng_below(&rng, 2000));
			else if (w.count > 0)
				delete_value(&w, (unsigned)rng_below(&rng, w.count));
			w.done = w.leaves = 0;
			if (w.count > 0)
				compare_nodes(&w, bare_root(&w.bare, 0)->root);
			else
				assert_true(cow_ptr_is_null(bare_root(&w.bare, 0)->root));
			assert_int_equal(w.done, w.count);
		}
		pthread_mutex_unlock(&w.bare.store->lock);
		free(w.values);
		bare_end(&w.bare);
	}
}

static void test_keys_below(void **state)
{
	struct cow_ptr children[3] = {{100, 1, 1}, {101, 1, 1}, {102, 1, 1}};
	struct cow_node *node = calloc(1, sizeof(*node)), *leaf = calloc(1, sizeof(*leaf));
	struct value values[2] = {{.key = 10}, {.key = 19}};
	struct cow_keys within = {3, 40}, below;

	(void)state;
	encode_inner(node->bytes, BARE_PLAIN, 1, (uint64_t[]){10, 20, 30}, children, 3);
	encode_leaf(leaf->bytes, BARE_PLAIN, values, 2);
	below = cow_keys_below(&within, node, 0);
	assert_true(below.first == 10 && below.last == 19);
	assert_true(cow_node_within(leaf, &below));
	below = cow_keys_below(&within, node, 2);
	assert_true(below.first == 30 && below.last == 40);
	assert_false(cow_node_within(leaf, &below));
	assert_false(cow_node_within(leaf, &(struct cow_keys){11, 19}));
	assert_false(cow_node_within(leaf, &(struct cow_keys){10, 18}));
	free(node);
	free(leaf);
}

/* ------------------------------------------------------------------ the cache */

#define LEAVES 40u

/* A tree of some leaves, committed; *root is its top. */
static void begin_cache(struct bare *b, struct cow_ptr *root)
{
	uint8_t value[COW_VALUE_MAX] = {1};

	bare_begin(b, VOLUME_BYTES);
	bare_root(b, 0)->kind = BARE_PLAIN;
	pthread_mutex_lock(&b->store->lock);
	for (unsigned i = 0; i < 3 * LEAVES; i++)
		assert_int_equal(cow_tree_put(b->store, bare_root(b, 0), i, value, sizeof(value)), 0);
	b->store->changes++;
	pthread_mutex_unlock(&b->store->lock);
	assert_int_equal(cow_store_commit(b->store, NULL, NULL), 0);
	pthread_mutex_lock(&b->store->lock);
	*root = bare_root(b, 0)->root;
}

static void end_cache(struct bare *b)
{
	pthread_mutex_unlock(&b->store->lock);
	bare_end(b);
}

static struct cow_node *get_node(struct bare *b, struct cow_ptr ptr, int level)
{
	struct cow_node *node;
	int error;

	while ((error = cow_node_get(b->store, ptr, BARE_PLAIN, level, &node)) == COW_MISS)
		assert_int_equal(cow_store_fill(b->store, NULL), 0);
	assert_int_equal(error, 0);
	return node;
}

static void test_a_miss_says_what(void **state)
{
	struct cow_ptr root;
	struct cow_node *node;
	struct bare b;

	(void)state;
	begin_cache(&b, &root);
	bare_forget(&b);
	assert_int_equal(b.store->clean_nodes, 0);
	assert_int_equal(cow_node_get(b.store, root, BARE_PLAIN, 1, &node), COW_MISS);
	assert_int_equal(b.store->miss.what, COW_MISS_NODE);
	assert_true(cow_ptr_equal(b.store->miss.node, root) && b.store->miss.node.sum == root.sum);
	assert_int_equal(b.store->miss.level, 1);
	assert_int_equal(cow_store_fill(b.store, NULL), 0);
	assert_int_equal(cow_node_get(b.store, root, BARE_PLAIN, 1, &node), 0);
	/* It is there, but is not what was asked for. */
	assert_int_equal(cow_node_get(b.store, root, BARE_RUN, 1, &node), COW_ERR_DAMAGED);
	assert_int_equal(cow_node_get(b.store, root, BARE_PLAIN, 0, &node), COW_ERR_DAMAGED);
	root.generation++;
	assert_int_equal(cow_node_get(b.store, root, BARE_PLAIN, 1, &node), COW_ERR_DAMAGED);
	assert_int_equal(b.logged, 3);
	end_cache(&b);
}

/* Those that are pinned stay, and so does, of the others, who was asked for since the hand last passed. */
static void test_eviction(void **state)
{
	struct cow_node *top, *pinned, *wanted;
	struct cow_ptr root, leaf;
	struct bare b;

	(void)state;
	begin_cache(&b, &root);
	bare_forget(&b);
	top = get_node(&b, root, 1);
	cow_node_pin(top);
	assert_int_equal(cow_node_items(top), LEAVES);
	for (unsigned i = 0; i < LEAVES; i++)
		get_node(&b, cow_inner_ptr(top, i), 0);
	assert_int_equal(b.store->clean_nodes, LEAVES + 1);
	pinned = get_node(&b, cow_inner_ptr(top, 3), 0);
	cow_node_pin(pinned);
	b.store->clean_limit = LEAVES / 2;
	cow_node_evict(b.store);
	assert_int_equal(b.store->clean_nodes, LEAVES / 2);
	for (unsigned i = 0; i < LEAVES; i++)
		get_node(&b, cow_inner_ptr(top, i), 0);
	b.store->clean_limit = LEAVES;
	cow_node_evict(b.store); /* the hand has passed them all: nobody is referenced */
	leaf = cow_inner_ptr(top, 11);
	wanted = get_node(&b, leaf, 0);
	b.store->clean_limit = 3;
	cow_node_evict(b.store);
	assert_int_equal(b.store->clean_nodes, 3);
	assert_ptr_equal(cow_map_get(&b.store->nodes, root.addr), top);
	assert_ptr_equal(cow_map_get(&b.store->nodes, pinned->id), pinned);
	assert_ptr_equal(cow_map_get(&b.store->nodes, leaf.addr), wanted);
	b.store->clean_limit = 0;
	cow_node_evict(b.store); /* comes to an end, though it cannot do it */
	assert_int_equal(b.store->clean_nodes, 2);
	cow_node_unpin(pinned);
	cow_node_unpin(top);
	cow_node_evict(b.store);
	assert_int_equal(b.store->clean_nodes, 0);
	assert_null(b.store->clock);
	end_cache(&b);
}

/* What lies in the block, and what the pointer says of it. Nothing is believed before its checksum fits, and a
 * checksum that fits is not believed alone. */
static void expect_wrong(struct bare *b, struct cow_ptr ptr, uint8_t kind, int level, const char *what)
{
	struct cow_node *node;
	const char *wrong;
	int error = cow_node_try(b->store, ptr, kind, level, &node, &wrong);

	if (what == NULL) {
		assert_int_equal(error, 0);
		assert_null(wrong);
		free(node);
		return;
	}
	assert_true(error == COW_ERR_DAMAGED || error == -EIO);
	assert_string_equal(wrong, what);
}

static void test_reading(void **state)
{
	static uint8_t bytes[COW_BLOCK];
	struct cow_ptr root, other;
	struct bare b;

	(void)state;
	begin_cache(&b, &root);
	pthread_mutex_unlock(&b.store->lock);
	expect_wrong(&b, root, BARE_PLAIN, 1, NULL);
	expect_wrong(&b, root, BARE_PLAIN, -1, NULL);
	expect_wrong(&b, root, BARE_PLAIN, 0, "of another kind or level than expected");
	expect_wrong(&b, root, BARE_RUN, 1, "of another kind or level than expected");
	other = root;
	other.generation--;
	expect_wrong(&b, other, BARE_PLAIN, 1, "another node than expected");
	other = root;
	other.sum ^= 1;
	expect_wrong(&b, other, BARE_PLAIN, 1, "checksum does not fit");
	other = root;
	other.addr = TOTAL_BLOCKS;
	expect_wrong(&b, other, BARE_PLAIN, 1, "cannot be read");
	cow_sim_fail(b.disk, COW_SIM_READ, 1, 0, -EIO);
	expect_wrong(&b, root, BARE_PLAIN, 1, "cannot be read");
	cow_sim_garble(b.disk, root.addr, true, 7);
	expect_wrong(&b, root, BARE_PLAIN, 1, "checksum does not fit");
	cow_sim_garble(b.disk, root.addr, true, 7);

	/* The same bytes in another block: a write that went astray. */
	assert_int_equal(cow_dev_read(b.disk, bytes, COW_BLOCK, root.addr * COW_BLOCK), 0);
	other = root;
	other.addr = 3000;
	assert_int_equal(cow_dev_write(b.disk, bytes, COW_BLOCK, other.addr * COW_BLOCK), 0);
	expect_wrong(&b, other, BARE_PLAIN, 1, "another node than expected");
	/* Sound checksums over what is not. */
	put64(bytes + 8, other.addr);
	bytes[5] = 9;
	other.sum = XXH3_64bits(bytes, COW_BLOCK);
	assert_int_equal(cow_dev_write(b.disk, bytes, COW_BLOCK, other.addr * COW_BLOCK), 0);
	expect_wrong(&b, other, BARE_PLAIN, 1, "malformed");
	encode_leaf(bytes, BARE_PLAIN, NULL, 0);
	put64(bytes + 8, other.addr);
	put64(bytes + 16, other.generation);
	other.sum = XXH3_64bits(bytes, COW_BLOCK);
	assert_int_equal(cow_dev_write(b.disk, bytes, COW_BLOCK, other.addr * COW_BLOCK), 0);
	expect_wrong(&b, other, BARE_PLAIN, -1, NULL);
	expect_wrong(&b, other, BARE_PLAIN, 0, "an empty leaf below another node");
	assert_int_equal(b.logged, 0);
	pthread_mutex_lock(&b.store->lock);
	end_cache(&b);
}

static uint32_t count_of(struct bare *b, uint64_t block)
{
	uint32_t count;
	uint64_t miss;

	while (cow_counts_get(b->store->counts, block, &count, &miss) == COW_MISS) {
		pthread_mutex_unlock(&b->store->lock);
		assert_int_equal(cow_counts_load(b->store->counts, miss), 0);
		pthread_mutex_lock(&b->store->lock);
	}
	return count;
}

/* Who may change a node, and what that does to counts and holders. */
static void test_private(void **state)
{
	struct cow_node *first, *second, *third;
	struct cow_ptr root, a, c;
	uint32_t leaf_count;
	struct bare b;

	(void)state;
	begin_cache(&b, &root);
	leaf_count = count_of(&b, cow_inner_ptr(get_node(&b, root, 1), 0).addr);
	assert_int_equal(leaf_count, 1);
	assert_int_equal(count_of(&b, root.addr), 1);

	/* Two hold it: the copy counts all that it points to once more, and the old one loses a count. */
	cow_node_claim(b.store, root);
	assert_int_equal(count_of(&b, root.addr), 2);
	a = root;
	assert_int_equal(cow_node_private(b.store, &a, BARE_PLAIN, 1, &first), 0);
	assert_true(cow_ptr_is_dirty(a) && first->holders == 1 && first->state == COW_NODE_DIRTY);
	assert_int_equal(count_of(&b, root.addr), 1);
	assert_int_equal(count_of(&b, cow_inner_ptr(first, 0).addr), 2);
	assert_int_equal(count_of(&b, cow_inner_ptr(first, LEAVES - 1).addr), 2);

	/* One alone holds it now: what it points to is the same for the copy, and nobody counts. */
	c = root;
	assert_int_equal(cow_node_private(b.store, &c, BARE_PLAIN, 1, &second), 0);
	assert_int_equal(count_of(&b, root.addr), 0);
	assert_int_equal(count_of(&b, cow_inner_ptr(first, 0).addr), 2);

	/* A dirty node is its one holder's own; of two, one gets a copy. */
	assert_int_equal(cow_node_private(b.store, &a, BARE_PLAIN, 1, &third), 0);
	assert_ptr_equal(third, first);
	cow_node_claim(b.store, a);
	assert_int_equal(first->holders, 2);
	a = cow_node_ptr(first);
	assert_int_equal(cow_node_private(b.store, &a, BARE_PLAIN, 1, &third), 0);
	assert_ptr_not_equal(third, first);
	assert_int_equal(first->holders, 1);
	assert_int_equal(count_of(&b, cow_inner_ptr(first, 0).addr), 3);

	/* Pointed to, and free: somebody lies. */
	c = root;
	assert_int_equal(cow_node_private(b.store, &c, BARE_PLAIN, 1, &third), COW_ERR_DAMAGED);
	assert_true(cow_ptr_equal(c, root));
	end_cache(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_each_rule),
		cmocka_unit_test(test_hostile_bytes),
		cmocka_unit_test(test_insert_and_remove),
		cmocka_unit_test(test_keys_below),
		cmocka_unit_test(test_a_miss_says_what),
		cmocka_unit_test(test_eviction),
		cmocka_unit_test(test_reading),
		cmocka_unit_test(test_private),
	};

	return cases_run(tests);
}
