/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Repair: every kind of block damaged in every way, one by one and several at once. The control is the library
 * itself on the damaged volume, before the repair: what it can still read there has to be at the same place
 * afterwards, byte for byte; what it cannot is gone, or answers EIO, or is what it was. Nothing may read as anything
 * else.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <xxhash.h>

#include "audit/repair.h"
#include "audit/undo.h"
#include "base/mem.h"
#include "cow.h"
#include "dev/dev_overlay.h"
#include "dev/dev_sim.h"
#include "fs/mkfs.h"
#include "fs/open.h"
#include "store/node.h"
#include "test/lib/drive.h"
#include "test/lib/memdev.h"
#include "test/lib/poke.h"
#include "test/lib/simdisk.h"

#define BYTES (96ull << 20)
#define BLOCKS_MAX 6000u /* of a file that are compared */
#define CUT (16ull << 30) /* a larger file may be cut where its map is lost */

/* ------------------------------------------------------------------ a volume with many nodes of all kinds */

static void must(bool ok)
{
	if (!ok)
		abort();
}

static struct cow_inode *make(struct cow_inode *dir, const char *name, uint32_t mode, const char *target)
{
	struct cow_inode *inode;

	must(cow_create(dir, name, &(struct cow_new){.mode = mode, .uid = 7, .target = target}, &inode, NULL) == 0);
	return inode;
}

static void fill(struct cow_inode *file, uint64_t offset, size_t length, uint64_t seed)
{
	uint8_t bytes[16384];

	must(length <= sizeof(bytes));
	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)((seed * 2654435761u + i * 40503u) >> 7);
	must(cow_write(file, bytes, length, offset, false) == (int64_t)length);
}

/* Leaves and an inner node of a directory, with small trees of directories below. */
static void make_wide(struct cow_inode *root)
{
	struct cow_inode *wide = make(root, "wide", S_IFDIR | 0755, NULL), *f, *d;
	char name[120];

	for (int i = 0; i < 700; i++) {
		snprintf(name, sizeof(name), "a-name-that-takes-some-room-in-a-leaf-of-a-directory-%d", i);
		if (i % 23 == 5) {
			d = make(wide, name, S_IFDIR | 0755, NULL);
			for (int k = 0; k < 4; k++) {
				snprintf(name, sizeof(name), "below-%d", k);
				f = make(d, name, S_IFREG | 0640, NULL);
				fill(f, 0, 900 + (size_t)k * 5000, (uint64_t)(i * 10 + k));
				cow_forget(f, 1);
			}
			cow_forget(d, 1);
			continue;
		}
		f = make(wide, name, S_IFREG | 0644, NULL);
		fill(f, 0, 40 + (size_t)i % 200, (uint64_t)i);
		cow_forget(f, 1);
	}
	cow_forget(wide, 1);
}

static void make_long(struct cow_inode *root)
{
	static char target[3000], value[9000];
	struct cow_inode *d = make(root, "long", S_IFDIR | 0755, NULL), *f;
	char name[32];

	memset(target, 'x', sizeof(target) - 1);
	memset(value, 'v', sizeof(value));
	cow_forget(make(d, "symlink", S_IFLNK | 0777, target), 1);
	f = make(d, "xattrs", S_IFREG | 0666, NULL);
	fill(f, 0, 5000, 77);
	for (int i = 0; i < 14; i++) { /* more than a leaf of a byte string */
		snprintf(name, sizeof(name), "user.%d", i);
		must(cow_setxattr(f, name, value, sizeof(value), 0) == 0);
	}
	cow_forget(f, 1);
	f = make(d, "extents", S_IFREG | 0644, NULL);
	for (uint64_t i = 0; i < 500; i++)
		fill(f, i * 3 * 4096, 4096, i + 1000);
	fill(f, 500ull * 3 * 4096, 1234, 5);
	cow_forget(f, 1);
	cow_forget(d, 1);
}

static void make_links(struct cow_inode *root)
{
	struct cow_inode *a = make(root, "links", S_IFDIR | 0755, NULL), *b = make(a, "deep", S_IFDIR | 0755, NULL), *f;
	char name[40];

	for (int i = 0; i < 150; i++) {
		snprintf(name, sizeof(name), "linked-%d", i);
		f = make(i % 2 ? a : b, name, S_IFREG | 0644, NULL);
		fill(f, 0, 300 + (size_t)(i % 5) * 3000, (uint64_t)i + 5000);
		snprintf(name, sizeof(name), "other-%d", i);
		must(cow_link(f, i % 3 ? a : b, name, NULL) == 0);
		for (int k = 0; i == 60 && k < 300; k++) {
			snprintf(name, sizeof(name), "many-%d", k);
			must(cow_link(f, b, name, NULL) == 0);
		}
		cow_forget(f, 1);
	}
	cow_forget(b, 1);
	cow_forget(a, 1);
}

static void make_clones(struct cow_volume *volume, struct cow_inode *root)
{
	struct cow_inode *links, *clone, *f;
	struct cow_attr attr;

	must(cow_lookup_path(volume, "/links", &links) == 0);
	must(cow_clone(links, root, "clone", 0, &clone, NULL) == 0);
	must(cow_lookup(clone, "linked-3", &f, &attr) == 0);
	fill(f, 0, 4000, 1);
	cow_forget(f, 1);
	must(cow_unlink(clone, "linked-5") == 0);
	cow_forget(make(clone, "new", S_IFREG | 0600, NULL), 1);
	cow_forget(clone, 1);
	must(cow_clone(root, root, "snapshot", COW_CLONE_READ_ONLY, &clone, NULL) == 0);
	must(cow_lookup(clone, "wide", &f, &attr) == 0);
	cow_forget(f, 1);
	cow_forget(clone, 1);
	must(cow_clone(links, root, "twin", 0, NULL, NULL) == 0);
	cow_forget(links, 1);
}

/* As it lies on the disk while a file without a name is open and a removed tree waits. */
static struct cow_dev *make_volume(void)
{
	struct cow_open_options options = {.no_threads = true};
	struct cow_format_options format = {.uuid = {3}};
	struct cow_dev *dev = cow_sim_new(BYTES), *image;
	struct cow_volume *volume;
	struct cow_inode *root, *d, *open;

	must(cow_volume_format(dev, &format) == 0);
	must(cow_volume_open(dev, &options, &volume) == 0);
	must(cow_root(volume, &root) == 0);
	make_wide(root);
	make_long(root);
	make_links(root);
	make_clones(volume, root);
	d = make(root, "removed", S_IFDIR | 0755, NULL);
	for (int i = 0; i < 50; i++) {
		char name[20];

		snprintf(name, sizeof(name), "gone-%d", i);
		open = make(d, name, S_IFREG | 0644, NULL);
		fill(open, 0, 6000, (uint64_t)i);
		cow_forget(open, 1);
	}
	cow_forget(d, 1);
	must(cow_create(root, NULL, &(struct cow_new){.mode = S_IFREG | 0600}, &open, NULL) == 0);
	fill(open, 0, 9000, 9);
	must(cow_sync(volume) == 0);
	must(cow_remove_tree(root, "removed") == 0);
	must(cow_sync(volume) == 0);
	image = cow_sim_copy(dev);
	cow_release(open);
	cow_forget(open, 1);
	cow_forget(root, 1);
	must(cow_close(volume) == 0);
	return image;
}

/* ------------------------------------------------------------------ what is in it */

struct entry {
	char path[400];
	struct cow_attr attr;
	uint64_t xattrs; /* hash */
	uint64_t *sums; /* of each block of the content, or of a symlink's target */
	size_t count;
};

struct manifest {
	struct entry *entries;
	size_t count, size;
};

static uint64_t sum_of(const void *bytes, size_t length)
{
	return XXH3_64bits(bytes, length) | 1;
}

/* Block `i`, or the target; 0: it cannot be read. */
static uint64_t read_block(struct cow_inode *inode, uint32_t mode, size_t i)
{
	uint8_t bytes[4096];
	int64_t got = S_ISLNK(mode) ? cow_readlink(inode, (char *)bytes, sizeof(bytes))
				    : cow_read(inode, bytes, sizeof(bytes), i * 4096);

	return got < 0 ? 0 : sum_of(bytes, (size_t)got);
}

/* 0: they cannot be read. */
static uint64_t read_xattrs(struct cow_inode *inode)
{
	static char list[70000], value[70000];
	int length = cow_listxattr(inode, list, sizeof(list));
	uint64_t sum = 1;

	if (length < 0)
		return 0;
	for (int at = 0; at < length; at += (int)strlen(list + at) + 1) {
		int got = cow_getxattr(inode, list + at, value, sizeof(value));

		if (got < 0)
			return 0;
		sum += sum_of(list + at, strlen(list + at)) * sum_of(value, (size_t)got);
	}
	return sum | 1;
}

static struct entry look(struct cow_inode *inode, const struct cow_attr *attr)
{
	struct entry e = {.attr = *attr, .xattrs = read_xattrs(inode)};

	if (S_ISREG(attr->mode) || S_ISLNK(attr->mode))
		e.count = S_ISLNK(attr->mode) ? 1 : (attr->size + 4095) / 4096;
	if (e.count > BLOCKS_MAX) /* sparse: the beginning will do */
		e.count = BLOCKS_MAX;
	e.sums = cow_mem_new((e.count + 1) * sizeof(*e.sums));
	for (size_t i = 0; i < e.count; i++)
		e.sums[i] = read_block(inode, attr->mode, i);
	return e;
}

struct walk {
	struct manifest *manifest;
	const char *path;
};

static void walk(struct manifest *m, struct cow_inode *dir, const char *path);

static int walk_entry(void *context, const struct cow_entry *entry, struct cow_inode *inode,
		      const struct cow_attr *attr)
{
	struct walk *w = context;
	struct entry e = look(inode, attr);

	snprintf(e.path, sizeof(e.path), "%s/%s", w->path, entry->name);
	if (w->manifest->count == w->manifest->size) {
		w->manifest->size = w->manifest->size != 0 ? 2 * w->manifest->size : 256;
		w->manifest->entries =
			cow_mem_resize(w->manifest->entries, w->manifest->size * sizeof(*w->manifest->entries));
	}
	w->manifest->entries[w->manifest->count++] = e;
	if (S_ISDIR(attr->mode))
		walk(w->manifest, inode, e.path);
	cow_forget(inode, 1);
	return 0;
}

static void walk(struct manifest *m, struct cow_inode *dir, const char *path)
{
	struct walk w = {m, path};

	(void)!cow_list(dir, 0, true, walk_entry, &w); /* lists what can be listed */
}

static struct cow_volume *open_volume(struct cow_dev *dev, bool read_only)
{
	static void (*quiet)(void *, enum cow_log_level, const char *) = NULL;
	struct cow_open_options options = {.read_only = read_only, .no_threads = true, .log = quiet};
	struct cow_volume *volume;

	return cow_volume_open(cow_overlay_new(dev), &options, &volume) == 0 ? volume : NULL;
}

static struct manifest read_manifest(struct cow_dev *dev)
{
	struct cow_volume *volume = open_volume(dev, true);
	struct manifest m = {0};
	struct cow_inode *root;

	assert_non_null(volume);
	assert_int_equal(cow_root(volume, &root), 0);
	walk(&m, root, "");
	cow_forget(root, 1);
	cow_volume_abandon(volume);
	return m;
}

static void free_manifest(struct manifest *m)
{
	for (size_t i = 0; i < m->count; i++)
		free(m->entries[i].sums);
	free(m->entries);
}

/* ------------------------------------------------------------------ nodes */

struct node {
	uint64_t block;
	uint8_t kind, level;
	unsigned items;
};

struct nodes {
	struct node *list;
	size_t count;
};

static int node_order(const void *a, const void *b)
{
	const struct node *x = a, *y = b;

	return (x->block > y->block) - (x->block < y->block);
}

struct collector {
	struct cow_claims claims;
	struct cow_dev *dev;
	struct nodes *nodes;
	struct cow_map seen;
};

static void collect(struct cow_claims *self, uint8_t *bytes, uint8_t kind)
{
	struct collector *c = (struct collector *)self;
	struct cow_ptr ptr = cow_ptr_get(bytes);
	uint8_t node[COW_BLOCK];
	struct cow_check_item item;

	if (cow_ptr_is_null(ptr) || cow_map_get(&c->seen, ptr.addr) != NULL)
		return;
	cow_map_put(&c->seen, ptr.addr, c);
	assert_int_equal(cow_dev_read(c->dev, node, COW_BLOCK, ptr.addr * COW_BLOCK), 0);
	c->nodes->list = cow_mem_resize(c->nodes->list, (c->nodes->count + 1) * sizeof(*c->nodes->list));
	c->nodes->list[c->nodes->count++] = (struct node){ptr.addr, node[4], node[5], get16(node + 6)};
	for (unsigned i = 0; i < get16(node + 6); i++) {
		cow_check_item_at(node, i, &item);
		if (node[5] != 0)
			collect(self, node + (item.value - node), kind);
		else if (kind == COW_KIND_RECLAIM)
			collect(self, node + (item.value - node), item.value[COW_PTR_BYTES]);
		else
			cow_value_claims(kind, node + (item.value - node), item.length, self);
	}
}

static void collect_run(struct cow_claims *self, uint64_t block, uint32_t length)
{
	(void)self, (void)block, (void)length;
}

static struct nodes find_nodes(struct cow_dev *dev, unsigned root, struct nodes nodes)
{
	struct collector c = {{collect, collect_run}, dev, &nodes, {0}};
	struct cow_super super;
	uint8_t ptr[COW_PTR_BYTES];
	bool decayed;

	for (size_t i = 0; i < nodes.count; i++)
		cow_map_put(&c.seen, nodes.list[i].block, &c);
	assert_int_equal(cow_super_read(dev, &super, &decayed), 0);
	cow_ptr_put(ptr, super.roots[root]);
	collect(&c.claims, ptr, super.root_kinds[root]);
	cow_map_free(&c.seen);
	if (nodes.count > 1)
		qsort(nodes.list, nodes.count, sizeof(*nodes.list), node_order);
	return nodes;
}

static struct nodes all_nodes(struct cow_dev *dev)
{
	struct nodes nodes = {0};

	for (unsigned root = 0; root < 4; root++)
		nodes = find_nodes(dev, root, nodes);
	return nodes;
}

/* ------------------------------------------------------------------ damage */

enum harm { FLIP, TAIL, ZERO, NOISE, HARMS };

/* False: nothing has changed. */
static bool damage(struct cow_dev *dev, uint64_t block, enum harm harm, uint64_t seed)
{
	uint8_t bytes[COW_BLOCK], before[COW_BLOCK];

	assert_int_equal(cow_dev_read(dev, bytes, COW_BLOCK, block * COW_BLOCK), 0);
	memcpy(before, bytes, COW_BLOCK);
	switch (harm) {
	case FLIP: bytes[seed * 7919 % COW_BLOCK] ^= (uint8_t)(1 << seed % 8); break;
	case TAIL: memset(bytes + 512 * (1 + seed % 7), 0, 512); break; /* a sector */
	case ZERO: memset(bytes, 0, COW_BLOCK); break;
	default:
		for (unsigned i = 0; i < COW_BLOCK; i++)
			bytes[i] = (uint8_t)((seed + 1) * (i + 77) * 2654435761u >> 13);
		break;
	}
	assert_int_equal(cow_dev_write(dev, bytes, COW_BLOCK, block * COW_BLOCK), 0);
	return memcmp(before, bytes, COW_BLOCK) != 0;
}

/* ------------------------------------------------------------------ repair, and what is left */

static void no_finding(void *context, const struct cow_finding *finding)
{
	(void)context;
	fail_msg("after the repair: %d: block %llu: %s", finding->number, (unsigned long long)finding->block,
		 finding->text);
}

static void assert_clean(struct cow_dev *dev)
{
	struct cow_check_options options = {.finding = no_finding};
	struct cow_check_result result;

	assert_int_equal(cow_check_device(dev, &options, &result), 0);
	assert_int_equal(result.findings, 0);
}

static char last_loss[600];
static bool unverified; /* the root had to be taken without a proof: its own node may say anything */

static void on_lost(void *context, const struct cow_loss *loss)
{
	(void)context;
	assert_true(loss->path[0] == '/');
	assert_null(strchr(loss->text, '\n'));
	snprintf(last_loss, sizeof(last_loss), "%s: %s", loss->path, loss->text);
	unverified |= strcmp(loss->path, "/") == 0 && strstr(loss->text, "unverified") != NULL;
	if (getenv("SAY") != NULL)
		fprintf(stderr, "# %s\n", last_loss);
}

static struct cow_repair_result repair(struct cow_dev *dev, const char *what)
{
	struct cow_repair_options options = {.lost = on_lost};
	struct cow_repair_result result;
	int error;

	last_loss[0] = 0;
	unverified = false;
	error = cow_repair_device(dev, &options, &result);
	if (error == 0 && result.left != 0)
		assert_clean(dev); /* says what is left */
	if (error != 0 || result.left != 0)
		fail_msg("%s: repair answers %s, %llu findings left", what, cow_error_text(error),
			 (unsigned long long)result.left);
	return result;
}

/* What the library says of a path: attributes and content as far as they can be read. sums NULL: not there. */
static struct entry look_up(struct cow_volume *volume, const char *path)
{
	struct entry none = {0}, e;
	struct cow_inode *inode;
	struct cow_attr attr;

	if (volume == NULL || cow_lookup_path(volume, path, &inode) != 0)
		return none;
	e = cow_getattr(inode, &attr) == 0 ? look(inode, &attr) : none;
	cow_forget(inode, 1);
	return e;
}

struct outcome {
	uint64_t readable, gone, unreadable_blocks; /* entries before; entries after that are missing; EIO */
};

static void compare(const char *what, const struct entry *is, const struct entry *was, const struct entry *should,
		    struct outcome *outcome)
{
	const char *path = should->path;

	if (is->sums == NULL) {
		outcome->gone++;
		if (was->sums != NULL && !S_ISLNK(should->attr.mode))
			fail_msg("%s: %s was readable and is gone", what, path);
		if (was->sums != NULL && was->sums[0] != 0)
			fail_msg("%s: symlink %s was readable and is gone", what, path);
		return;
	}
	if (is->attr.mode != should->attr.mode && (is->xattrs == should->xattrs || was->xattrs != 0))
		fail_msg("%s: %s has mode %o instead of %o", what, path, is->attr.mode, should->attr.mode);
	if (is->attr.uid != should->attr.uid)
		fail_msg("%s: %s has another owner", what, path);
	if (should->attr.size > CUT && is->attr.size < should->attr.size)
		return;
	if (is->attr.size != should->attr.size && !S_ISDIR(should->attr.mode))
		fail_msg("%s: %s has another size", what, path);
	if (is->xattrs != should->xattrs && (was->xattrs != 0 && was->sums != NULL))
		fail_msg("%s: xattrs of %s were readable and are not the same", what, path);
	for (size_t i = 0; i < should->count; i++) {
		if (is->sums[i] != should->sums[i] && is->sums[i] != 0)
			fail_msg("%s: %s, block %zu: wrong data", what, path, i);
		outcome->unreadable_blocks += is->sums[i] == 0;
		if (is->sums[i] == 0 && was->sums != NULL && was->sums[i] != 0)
			fail_msg("%s: %s, block %zu was readable and is not", what, path, i);
	}
}

static void use(struct cow_dev *dev)
{
	struct cow_volume *volume = open_volume(dev, false);
	struct cow_inode *root, *f;
	int error;

	assert_non_null(volume);
	assert_int_equal(cow_root(volume, &root), 0);
	f = make(root, "made-after", S_IFREG | 0644, NULL);
	fill(f, 0, 9000, 3);
	error = cow_link(f, root, "linked-after", NULL);
	assert_int_equal(error, 0);
	cow_forget(f, 1);
	cow_forget(root, 1);
	assert_int_equal(cow_sync(volume), 0);
	assert_int_equal(cow_drain(volume), 0);
	cow_volume_abandon(volume);
}

/* Repairs the damaged device (which is closed) and compares. */
static struct outcome judge(struct cow_dev *dev, const struct manifest *should, const char *what)
{
	struct outcome outcome = {0};
	struct entry *was = cow_mem_new((should->count + 1) * sizeof(*was));
	struct cow_volume *volume = open_volume(dev, true);
	struct cow_repair_result result;

	for (size_t i = 0; i < should->count; i++) {
		was[i] = look_up(volume, should->entries[i].path);
		outcome.readable += was[i].sums != NULL;
	}
	if (volume != NULL)
		cow_volume_abandon(volume);
	result = repair(dev, what);
	assert_true(result.written);
	assert_clean(dev);
	volume = open_volume(dev, true);
	if (volume == NULL)
		fail_msg("%s: the volume cannot be opened after the repair", what);
	for (size_t i = 0; i < should->count && !unverified; i++) {
		struct entry is = look_up(volume, should->entries[i].path);

		compare(what, &is, &was[i], &should->entries[i], &outcome);
		free(is.sums);
	}
	for (size_t i = 0; i < should->count; i++)
		free(was[i].sums);
	cow_volume_abandon(volume);
	use(dev);
	result = repair(dev, "second run");
	assert_false(result.written);
	assert_int_equal(result.findings, 0);
	free(was);
	cow_dev_close(dev);
	return outcome;
}

/* ------------------------------------------------------------------ the tests */

static struct cow_dev *image;
static struct manifest manifest;
static struct nodes nodes;

static int set_up(void **state)
{
	(void)state;
	image = make_volume();
	manifest = read_manifest(image);
	nodes = all_nodes(image);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free_manifest(&manifest);
	free(nodes.list);
	cow_dev_close(image);
	return 0;
}

static uint64_t findings(struct cow_dev *dev)
{
	struct cow_check_result result;

	assert_int_equal(cow_check_device(dev, NULL, &result), 0);
	return result.findings;
}

static const struct node *find_node(uint8_t kind, uint8_t level)
{
	for (size_t i = 0; i < nodes.count; i++)
		if (nodes.list[i].kind == kind && nodes.list[i].level == level && nodes.list[i].items > 5)
			return &nodes.list[i];
	return NULL;
}

static void test_clean_stays(void **state)
{
	struct cow_dev *dev = cow_overlay_new(image);
	struct cow_repair_result result = repair(dev, "clean");
	size_t count;

	(void)state;
	assert_false(result.written);
	assert_int_equal(result.findings + result.losses, 0);
	free(cow_overlay_list(dev, &count));
	assert_int_equal(count, 0);
	cow_dev_close(dev);
}

/* Every node that is not a leaf, and leaves of each kind. */
static void test_each_node(void **state)
{
	unsigned of_kind[8][4] = {{0}}, tried = 0;

	(void)state;
	assert_true(nodes.count > 60);
	for (size_t i = 0; i < nodes.count; i++) {
		const struct node *n = &nodes.list[i];

		if (++of_kind[n->kind][n->level] > 2 && n->level == 0)
			continue;
		for (enum harm harm = FLIP; harm < HARMS; harm++) {
			if (n->level == 0 && (harm + of_kind[n->kind][0]) % 2 == 0)
				continue; /* each kind of leaf gets all of them */
			struct cow_dev *dev = cow_overlay_new(image);
			char what[100];

			snprintf(what, sizeof(what), "block %llu (kind %u, level %u, %u items), harm %d",
				 (unsigned long long)n->block, n->kind, n->level, n->items, harm);
			if (getenv("SAY") != NULL)
				fprintf(stderr, "# %s\n", what);
			if (!damage(dev, n->block, harm, i + 13)) {
				cow_dev_close(dev);
				continue;
			}
			struct outcome o = judge(dev, &manifest, what);
			if (n->level > 0 && harm == FLIP && o.gone + o.unreadable_blocks > 0)
				fail_msg("%s: an inner node with one bit flipped has cost %llu entries, %llu blocks",
					 what, (unsigned long long)o.gone, (unsigned long long)o.unreadable_blocks);
			tried++;
		}
	}
	for (unsigned kind = COW_KIND_RECLAIM; kind <= COW_KIND_NUMBERS; kind++)
		assert_true(of_kind[kind][0] > 0);
	assert_true(of_kind[COW_KIND_DIR][1] > 0 && of_kind[COW_KIND_FILE][1] > 0 && of_kind[COW_KIND_LINKS][1] > 0 &&
		    of_kind[COW_KIND_BLOB][1] > 0);
	print_message("# %u repairs of one damaged node\n", tried);
}

/* All slots, live or not: no entry may go. */
static void test_counts(void **state)
{
	(void)state;
	for (uint64_t group = 0; group < BYTES / COW_BLOCK / COW_PIECE_BLOCKS; group++)
		for (uint64_t slot = COW_SLOT_FIRST; slot < (group == 0 ? 24 : 18); slot++) {
			struct cow_dev *dev = cow_overlay_new(image);
			struct cow_check_result before;
			uint64_t block = group * COW_PIECE_BLOCKS + slot;
			struct outcome o;
			char what[40];

			snprintf(what, sizeof(what), "count block %llu", (unsigned long long)block);
			damage(dev, block, NOISE, block);
			assert_int_equal(cow_check_device(dev, NULL, &before), 0);
			if (before.findings == 0) { /* the other slot is live */
				assert_false(repair(dev, what).written);
				cow_dev_close(dev);
				continue;
			}
			o = judge(dev, &manifest, what);
			assert_int_equal(o.gone + o.unreadable_blocks, 0);
		}
}

/* Of the blocks whose counts are lost nobody knows whether they are free: what is made anew goes elsewhere. */
static void test_unknown(void **state)
{
	struct cow_dev *dev = cow_overlay_new(image), *repaired = cow_overlay_new(dev);
	uint64_t *written, elsewhere = 0;
	size_t count;

	(void)state;
	damage(dev, COW_SLOT_FIRST, NOISE, 0); /* both places of the counts of the first group */
	damage(dev, COW_SLOT_FIRST + 1, NOISE, 0);
	damage(dev, find_node(COW_KIND_DIR, 0)->block, ZERO, 0);
	repair(repaired, "unknown");
	assert_clean(repaired);
	written = cow_overlay_list(repaired, &count);
	for (size_t i = 0; i < count; i++) {
		assert_true(written[i] >= COW_PIECE_BLOCKS || cow_layout_is_system(written[i]));
		elsewhere += !cow_layout_is_system(written[i]);
	}
	assert_true(elsewhere > 0);
	free(written);
	cow_dev_close(repaired);
	cow_dev_close(dev);
}

/* Wrong counts whose checksums fit. */
static void test_wrong_counts(void **state)
{
	static const int changes[] = {1, -1, 7};

	(void)state;
	for (unsigned i = 0; i < 12; i++) {
		struct cow_dev *dev = cow_overlay_new(image);
		struct outcome o;

		poke_count(dev, nodes.list[i * 5].block, changes[i % 3]);
		o = judge(dev, &manifest, "wrong count");
		assert_int_equal(o.gone + o.unreadable_blocks, 0);
	}
}

/* Wrong totals, mapped blocks, link sums, spines: nothing is lost by what only sums up. */
static bool wrong_totals(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	struct cow_dirent entry;
	struct cow_record r;
	uint8_t copy[COW_VALUE_MAX];
	unsigned *skip = context;

	(void)node, (void)slot;
	memcpy(copy, value, length);
	if (cow_dirent_decode(copy, length, &entry) != 0 || entry.is_link ||
	    cow_record_decode(entry.record.bytes, entry.record.length, 0, &r) != 0 ||
	    (r.body != COW_BODY_DIR && !(r.body == COW_BODY_TREE && S_ISREG(r.mode))) || (*skip)-- != 0)
		return false;
	r.totals.bytes++;
	r.totals.refs += 3;
	r.blocks++;
	r.link_files++;
	r.backs += 2;
	return cow_dirent_encode_record(entry.name, &r, value) == length;
}

static bool wrong_spine(void *context, uint8_t *node, uint8_t *slot, uint8_t *value, uint32_t length)
{
	struct cow_back up;

	(void)context, (void)node, (void)slot;
	if (cow_spine_row_decode(value, length, &up) != 0)
		return false;
	put64(value + 9, up.key + 1);
	return true;
}

static void test_wrong_sums(void **state)
{
	struct cow_dev *dev;
	struct outcome o;

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		unsigned skip = i * 4;

		dev = cow_overlay_new(image);
		assert_true(poke_item(dev, COW_KIND_DIR, wrong_totals, &skip));
		o = judge(dev, &manifest, "wrong sums");
		assert_int_equal(o.gone + o.unreadable_blocks, 0);
	}
	dev = cow_overlay_new(image);
	assert_true(poke_item(dev, COW_KIND_LINKS, wrong_spine, NULL));
	repair(dev, "wrong spine");
	assert_clean(dev);
	cow_dev_close(dev);
}

static void set_feature(void *context, struct cow_super *super)
{
	(void)context;
	super->ro_compat |= 1ull << 60;
}

static void test_super(void **state)
{
	struct cow_repair_result result;
	struct cow_super super;
	struct cow_dev *dev;
	bool decayed;
	struct outcome o;
	uint64_t slot;

	(void)state;
	assert_int_equal(cow_super_read(image, &super, &decayed), 0);
	slot = super.generation % COW_SUPER_SLOTS;
	for (unsigned copy = 0; copy < 2; copy++) { /* one copy: nothing is lost, and nothing to be done */
		dev = cow_overlay_new(image);
		damage(dev, slot + copy * COW_SUPER_B, ZERO, 1);
		assert_false(repair(dev, "one copy").written);
		cow_dev_close(dev);
	}
	dev = cow_overlay_new(
		image); /* both: what the last commit did, which was to remove a tree, and a file without a name */
	damage(dev, slot, NOISE, 1);
	damage(dev, slot + COW_SUPER_B, NOISE, 2);
	o = judge(dev, &manifest, "decayed superblock");
	assert_int_equal(o.gone + o.unreadable_blocks, 0);
	dev = cow_overlay_new(image); /* all of them */
	for (uint64_t i = 0; i < COW_SLOT_FIRST; i++)
		damage(dev, i, NOISE, i);
	assert_int_equal(cow_repair_device(dev, NULL, &result), COW_ERR_NOT_VOLUME);
	cow_dev_close(dev);
	dev = cow_overlay_new(image); /* of a later version, which we may read but not write */
	poke_super(dev, set_feature, NULL);
	damage(dev, nodes.list[nodes.count / 2].block, ZERO, 0);
	assert_int_equal(cow_repair_device(dev, NULL, &result), COW_ERR_NEWER);
	assert_false(result.written);
	cow_dev_close(dev);
}

/* Data is left alone: contained by its checksum. */
static void test_data(void **state)
{
	struct cow_check_options options = {.data = true};
	struct cow_check_result result;
	struct cow_dev *dev = cow_overlay_new(image);
	unsigned hit = 0;

	(void)state;
	for (uint64_t block = 64; block < BYTES / COW_BLOCK && hit < 40; block++) {
		uint8_t bytes[COW_BLOCK];

		assert_int_equal(cow_dev_read(dev, bytes, COW_BLOCK, block * COW_BLOCK), 0);
		if (block % 7 == 0 && get32(bytes) != COW_NODE_MAGIC && get64(bytes) != 0 &&
		    block % COW_PIECE_BLOCKS >= 32)
			hit += damage(dev, block, NOISE, block);
	}
	assert_int_equal(cow_check_device(dev, &options, &result), 0);
	assert_true(result.findings > 10);
	assert_false(repair(dev, "data").written);
	cow_dev_close(dev);
}

/* What is in files of /lost+found is what was in files before: each content is that of some file of the manifest. */
static void check_lost_found(struct cow_dev *dev, const struct manifest *should)
{
	struct manifest now = read_manifest(dev);

	for (size_t i = 0; i < now.count; i++) {
		const struct entry *e = &now.entries[i];
		bool known = false;

		if (strncmp(e->path, "/lost+found/", 12) != 0 || !S_ISREG(e->attr.mode) || e->count == 0)
			continue;
		for (size_t k = 0; k < should->count && !known; k++) {
			const struct entry *s = &should->entries[k];

			known = s->count == e->count;
			for (size_t b = 0; known && b < e->count; b++) /* a found map may end behind the file */
				known = e->sums[b] == s->sums[b] || e->sums[b] == 0 || b + 1 == e->count;
		}
		if (!known)
			fail_msg("%s has a content that no file had", e->path);
	}
	free_manifest(&now);
}

/* Files below /wide that are not at their place, and files below /lost+found. */
static void count_files(struct cow_dev *dev, uint64_t *gone, uint64_t *found)
{
	struct manifest now = read_manifest(dev);
	uint64_t there = 0;

	*gone = *found = 0;
	for (size_t i = 0; i < now.count; i++) {
		there += strncmp(now.entries[i].path, "/wide/", 6) == 0 && S_ISREG(now.entries[i].attr.mode);
		*found += strncmp(now.entries[i].path, "/lost+found/", 12) == 0 && S_ISREG(now.entries[i].attr.mode);
	}
	for (size_t i = 0; i < manifest.count; i++)
		*gone += strncmp(manifest.entries[i].path, "/wide/", 6) == 0 && S_ISREG(manifest.entries[i].attr.mode);
	*gone -= there;
	free_manifest(&now);
}

/* Zeros over a node: what hung below it is below /lost+found then, all but what was in the node itself. */
static void test_found_again(void **state)
{
	unsigned tried = 0, below = 0;

	(void)state;
	for (size_t i = 0; i < nodes.count && tried < 30; i++) {
		const struct node *n = &nodes.list[i];
		struct cow_dev *dev;
		struct cow_repair_result result;
		uint64_t gone, found;

		if (n->kind != COW_KIND_DIR && n->kind != COW_KIND_LINKS)
			continue;
		dev = cow_overlay_new(image);
		damage(dev, n->block, ZERO, 0);
		result = repair(dev, "zeros");
		assert_clean(dev);
		if (result.recovered > 0) {
			check_lost_found(dev, &manifest);
			tried++;
		}
		count_files(dev, &gone, &found);
		if (gone > found + (n->level == 0 ? n->items : 0))
			fail_msg("block %llu of %u items: %llu files are gone, %llu are found again",
				 (unsigned long long)n->block, n->items, (unsigned long long)gone,
				 (unsigned long long)found);
		below += n->level == 0 && gone > n->items;
		cow_dev_close(dev);
	}
	assert_true(tried > 5 && below > 3);
}

static void test_several(void **state)
{
	unsigned runs = getenv("RUNS") != NULL ? (unsigned)atoi(getenv("RUNS")) : 25;
	struct rng rng = {getenv("SEED") != NULL ? (uint64_t)atoll(getenv("SEED")) : 1};

	(void)state;
	for (unsigned run = 0; run < runs; run++) {
		struct cow_dev *dev = cow_overlay_new(image);
		unsigned count = 1 + (unsigned)rng_below(&rng, 5);
		char what[60];

		snprintf(what, sizeof(what), "run %u: %u blocks", run, count);
		for (unsigned i = 0; i < count; i++) {
			uint64_t group = rng_below(&rng, BYTES / COW_BLOCK / COW_PIECE_BLOCKS);
			uint64_t block = nodes.list[rng_below(&rng, nodes.count)].block;

			if (rng_chance(&rng, 15)) /* slots of counts, live or not */
				block = group * COW_PIECE_BLOCKS + COW_SLOT_FIRST + rng_below(&rng, 2);
			if (rng_chance(&rng, 5))
				block = COW_SLOT_FIRST + rng_below(&rng, 8);
			damage(dev, block, (enum harm)rng_below(&rng, HARMS), rng_next(&rng));
		}
		/* it may have hit a slot that is not live, or undone itself */
		struct cow_check_result before;

		assert_int_equal(cow_check_device(dev, NULL, &before), 0);
		if (before.findings == 0)
			cow_dev_close(dev);
		else
			judge(dev, &manifest, what);
	}
}

/* ------------------------------------------------------------------ cuts, failures, undo, the log */

/* The power goes in the middle of a repair: the volume is as it was, or it is repaired. */
static void test_cuts(void **state)
{
	struct cow_dev *dev = cow_sim_copy(image);
	uint64_t before, events, as_before = 0, repaired = 0;

	(void)state;
	damage(dev, find_node(COW_KIND_DIR, 0)->block, ZERO, 0);
	damage(dev, find_node(COW_KIND_FILE, 0)->block, ZERO, 0);
	cow_sim_forget(dev);
	before = findings(dev);
	repair(dev, "to be cut");
	events = cow_sim_events(dev);
	assert_true(events > 10);
	for (uint64_t at = 0; at <= events; at++)
		for (int policy = (int)(at % 2); policy <= COW_SIM_GARBLED; policy += 2) {
			struct cow_dev *cut = cow_sim_cut(dev, at, (enum cow_sim_policy)policy, at * 31);
			uint64_t after = findings(cut);

			if (after != 0 && after != before)
				fail_msg("cut at %llu, policy %d: %llu findings, there were %llu",
					 (unsigned long long)at, policy, (unsigned long long)after,
					 (unsigned long long)before);
			as_before += after == before;
			repaired += after == 0;
			if (after != 0 && at % 7 == 0)
				repair(cut, "once more");
			cow_dev_close(cut);
		}
	assert_true(as_before > 10 && repaired > 3);
	cow_dev_close(dev);
}

/* The device fails: the answer is an error, and the volume is as it was, or repaired. */
static void test_device_fails(void **state)
{
	const struct node *n = find_node(COW_KIND_DIR, 0);
	uint64_t before = 0;

	(void)state;
	for (unsigned call = COW_SIM_WRITE; call <= COW_SIM_ENSURE; call++)
		for (uint64_t nth = 1; nth < 60; nth += 1 + nth / 5) {
			struct cow_dev *dev = cow_sim_copy(image);
			struct cow_repair_result result;
			uint64_t after;
			int error;

			damage(dev, n->block, ZERO, 0);
			before = findings(dev);
			cow_sim_fail(dev, (enum cow_sim_call)call, nth, 0, -EIO);
			error = cow_repair_device(dev, NULL, &result);
			cow_sim_fail(dev, (enum cow_sim_call)call, 0, 0, 0);
			assert_true(error == 0 || error == -EIO);
			assert_true(error != 0 || result.written);
			after = findings(dev);
			assert_true(after == 0 || (error != 0 && after == before));
			cow_dev_close(dev);
		}
}

/* Every block has a count. */
static void fill_counts(struct cow_dev *dev)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct cow_counts *counts;
	struct cow_super super;
	uint8_t block[COW_BLOCK];
	uint64_t slot, first, miss;
	uint32_t length;
	bool decayed;

	assert_int_equal(cow_super_read(dev, &super, &decayed), 0);
	assert_int_equal(cow_counts_open(dev, &lock, super.total_blocks, &super.counts, 64 << 20, &counts), 0);
	for (;;) {
		int error;

		pthread_mutex_lock(&lock);
		error = cow_counts_alloc(counts, COW_ALLOC_NODE, 1024, &first, &length, &miss);
		pthread_mutex_unlock(&lock);
		if (error == COW_MISS)
			error = cow_counts_load(counts, miss);
		if (error != 0)
			break;
	}
	cow_counts_seal(counts);
	assert_int_equal(cow_counts_write(counts, &super.counts), 0);
	cow_counts_close(counts);
	super.generation++;
	slot = super.generation % COW_SUPER_SLOTS;
	cow_super_encode(&super, block);
	assert_int_equal(cow_dev_write(dev, block, COW_BLOCK, slot * COW_BLOCK), 0);
	assert_int_equal(cow_dev_write(dev, block, COW_BLOCK, (slot + COW_SUPER_B) * COW_BLOCK), 0);
}

/* No block is free: refused, and nothing is written. */
static void test_full(void **state)
{
	struct cow_dev *dev = cow_overlay_new(image);
	struct cow_repair_result result;
	uint64_t before;
	size_t count, count_after;

	(void)state;
	fill_counts(dev);
	damage(dev, find_node(COW_KIND_DIR, 0)->block, ZERO, 0);
	before = findings(dev);
	assert_true(before > 0);
	free(cow_overlay_list(dev, &count));
	assert_int_equal(cow_repair_device(dev, NULL, &result), -ENOSPC);
	free(cow_overlay_list(dev, &count_after));
	assert_int_equal(count, count_after);
	cow_dev_close(dev);
}

static void copy_image(const char *path, struct cow_dev *from)
{
	struct cow_dev *dev;
	uint8_t bytes[COW_BLOCK];

	assert_int_equal(cow_dev_file_open(path, COW_DEV_CREATE, &dev), 0);
	assert_int_equal(cow_dev_file_resize(dev, BYTES), 0);
	for (uint64_t block = 0; block < BYTES / COW_BLOCK; block++) {
		assert_int_equal(cow_dev_read(from, bytes, COW_BLOCK, block * COW_BLOCK), 0);
		assert_int_equal(cow_dev_write(dev, bytes, COW_BLOCK, block * COW_BLOCK), 0);
	}
	cow_dev_close(dev);
}

static uint64_t hash_file(const char *path)
{
	uint8_t bytes[COW_BLOCK];
	FILE *file = fopen(path, "rb");
	uint64_t hash = 0;

	assert_non_null(file);
	while (fread(bytes, sizeof(bytes), 1, file) == 1)
		hash = hash * 31 + XXH3_64bits(bytes, sizeof(bytes));
	fclose(file);
	return hash;
}

static void test_undo(void **state)
{
	char dir[] = "/tmp/cow-repair-XXXXXX", path[80], undo[80];
	struct cow_repair_options options = {.undo_path = undo};
	struct cow_repair_result result;
	struct cow_dev *dev = cow_overlay_new(image);
	uint64_t before, after;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/img", dir);
	snprintf(undo, sizeof(undo), "%s/undo", dir);
	damage(dev, find_node(COW_KIND_DIR, 1)->block, ZERO, 0);
	damage(dev, find_node(COW_KIND_LINKS, 1)->block, FLIP, 9);
	copy_image(path, dev);
	before = hash_file(path);
	assert_int_equal(cow_repair(path, &options, &result), 0);
	assert_true(result.written && result.left == 0 && result.blocks > 0);
	after = hash_file(path);
	assert_true(before != after);
	assert_int_equal(cow_repair_undo(path, undo), 0);
	assert_true(hash_file(path) == before);
	assert_int_equal(cow_repair(path, &options, &result), -EEXIST);
	assert_true(hash_file(path) == before);
	assert_int_equal(truncate(undo, 5000), 0);
	assert_int_equal(cow_repair_undo(path, undo), COW_ERR_DAMAGED);
	assert_true(hash_file(path) == before);
	unlink(path);
	unlink(undo);
	rmdir(dir);
	cow_dev_close(dev);
}

/* Damage while the log holds what fsync has promised: it is kept if what it speaks of is still there. */
static void test_log(void **state)
{
	(void)state;
	for (unsigned hit = 0; hit < 2; hit++) {
		struct memdev *disk = memdev_new(64 << 20);
		struct cow_format_options format = {.uuid = {4}};
		struct cow_open_options options = {.no_threads = true};
		struct cow_dev *dev = memdev_attach(disk), *damaged;
		struct cow_volume *volume;
		struct cow_inode *root, *d, *e, *f;
		struct nodes n;
		unsigned done = 0;
		uint8_t bytes[5000];

		assert_int_equal(cow_volume_format(dev, &format), 0);
		assert_int_equal(cow_volume_open(memdev_attach(disk), &options, &volume), 0);
		assert_int_equal(cow_root(volume, &root), 0);
		d = make(root, "mark-dir", S_IFDIR | 0755, NULL);
		e = make(root, "other", S_IFDIR | 0755, NULL);
		cow_forget(make(d, "mark-in-dir", S_IFREG | 0644, NULL), 1);
		cow_forget(make(e, "mark-in-other", S_IFREG | 0644, NULL), 1);
		assert_int_equal(cow_sync(volume), 0);
		f = make(d, "promised", S_IFREG | 0644, NULL);
		fill(f, 0, 5000, 42);
		assert_int_equal(cow_fsync(f), 0);
		cow_forget(f, 1);
		cow_forget(d, 1);
		cow_forget(e, 1);
		cow_forget(root, 1);
		cow_volume_abandon(volume);
		n = all_nodes(dev);
		damaged = cow_overlay_new(dev);
		for (size_t i = 0; i < n.count; i++) {
			uint8_t node[COW_BLOCK];
			const char *mark = hit ? "mark-dir" : "mark-in-other";

			assert_int_equal(cow_dev_read(damaged, node, COW_BLOCK, n.list[i].block * COW_BLOCK), 0);
			if (memmem(node, COW_BLOCK, mark, strlen(mark)) != NULL)
				done += damage(damaged, n.list[i].block, ZERO, 0);
		}
		assert_int_equal(done, 1);
		repair(damaged, "with a log");
		assert_clean(damaged);
		volume = open_volume(damaged, false);
		assert_non_null(volume);
		assert_int_equal(cow_lookup_path(volume, "/mark-dir/promised", &f), hit ? -ENOENT : 0);
		if (!hit) {
			assert_int_equal(cow_read(f, bytes, sizeof(bytes), 0), sizeof(bytes));
			cow_forget(f, 1);
		}
		cow_volume_abandon(volume);
		free(n.list);
		cow_dev_close(damaged);
		cow_dev_close(dev);
		memdev_free(disk);
	}
}

/* Nodes that say anything, checksums fitting: repaired, in part or not at all, but what was written is sound. */
static void test_hostile(void **state)
{
	unsigned runs = getenv("RUNS") != NULL ? (unsigned)atoi(getenv("RUNS")) : 60, sound = 0;
	uint64_t seed = getenv("SEED") != NULL ? (uint64_t)atoll(getenv("SEED")) : 1;

	(void)state;
	for (uint64_t i = seed; i < seed + runs; i++) {
		struct cow_dev *dev = cow_overlay_new(image);
		struct cow_repair_result result;
		uint64_t before, after;
		int error;

		poke_random(dev, i, 1 + (unsigned)i % 20);
		before = findings(dev);
		error = cow_repair_device(dev, NULL, &result);
		after = findings(dev);
		if (result.written ? error != 0 || after != result.left || after >= before : after != before)
			fail_msg("seed %llu: %llu findings, then %llu; repair said %llu left, and %s",
				 (unsigned long long)i, (unsigned long long)before, (unsigned long long)after,
				 (unsigned long long)result.left, cow_error_text(error));
		sound += after == 0;
		cow_dev_close(dev);
	}
	assert_true(sound > runs / 4);
	print_message("# %u of %u volumes are sound\n", sound, runs);
}

/* Files that say that they are far longer than the volume: what is lost of them is marked in two, and two are cut. */
static void test_long_files(void **state)
{
	enum { FILES = 4 };
	const uint64_t size = 8ull << 30;
	struct cow_open_options options = {.no_threads = true};
	struct cow_dev *dev = simdisk_format(64 << 20);
	struct cow_volume *volume;
	struct cow_inode *root, *file;
	struct nodes maps;
	unsigned cut = 0;
	char name[16];

	(void)state;
	assert_int_equal(cow_volume_open(simdisk_attach(dev), &options, &volume), 0);
	assert_int_equal(cow_root(volume, &root), 0);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		file = make(root, name, S_IFREG | 0644, NULL);
		for (uint64_t at = size / 64; at <= size; at += size / 64) /* too many extents for the record */
			assert_int_equal(cow_write(file, name, sizeof(name), at - sizeof(name), false), sizeof(name));
		cow_forget(file, 1);
	}
	assert_int_equal(cow_close(volume), 0);
	maps = all_nodes(dev);
	for (size_t i = 0; i < maps.count; i++)
		if (maps.list[i].kind == COW_KIND_FILE)
			damage(dev, maps.list[i].block, ZERO, 0);
	free(maps.list);
	repair(dev, "long files");
	assert_clean(dev);
	volume = open_volume(dev, true);
	assert_int_equal(cow_root(volume, &root), 0);
	for (unsigned i = 0; i < FILES; i++) {
		struct cow_attr attr;

		snprintf(name, sizeof(name), "file-%u", i);
		assert_int_equal(cow_lookup(root, name, &file, &attr), 0);
		assert_true(attr.size == size || attr.size == 0);
		cut += attr.size == 0;
		cow_forget(file, 1);
	}
	assert_int_equal(cut, 2);
	cow_volume_abandon(volume);
	cow_dev_close(dev);
}

/* Volumes made by random operations: clones of clones, links across them, renames between worlds. */
static void random_volume(uint64_t seed)
{
	struct memdev *disk = memdev_new(64 << 20);
	struct cow_dev *dev = memdev_attach(disk), *damaged;
	struct cow_open_options options = {.no_threads = true};
	struct cow_format_options format = {.uuid = {9}};
	struct rng rng = {seed};
	struct mood mood;
	struct drive drive;
	struct manifest m;
	struct nodes n;

	assert_int_equal(cow_volume_format(dev, &format), 0);
	cow_dev_close(dev);
	assert_int_equal(drive_start(&drive, memdev_attach, disk, &options), 0);
	drive.small = true; /* it may run full */
	mood_draw(&rng, &mood);
	for (unsigned i = 0; i < 500; i++) {
		struct op op;

		do
			op_generate(&rng, &mood, &drive.ora, &op);
		while (op.kind == OP_CRASH || op.kind == OP_DIFF || op.kind == OP_PROBE || op.kind == OP_STATALL);
		if (!drive_step(&drive, &op))
			fail_msg("seed %llu: %s", (unsigned long long)seed, drive.bug);
	}
	assert_int_equal(cow_sync(drive.volume), 0);
	drive_stop(&drive);
	dev = memdev_attach(disk);
	m = read_manifest(dev);
	n = all_nodes(dev);
	for (unsigned i = 0; i < 12; i++) {
		char what[80];

		snprintf(what, sizeof(what), "seed %llu, damage %u", (unsigned long long)seed, i);
		damaged = cow_overlay_new(dev);
		for (unsigned k = 0; k <= i % 4; k++)
			damage(damaged, n.list[rng_below(&rng, n.count)].block, (enum harm)rng_below(&rng, HARMS),
			       rng_next(&rng));
		struct cow_check_result before;

		assert_int_equal(cow_check_device(damaged, NULL, &before), 0);
		if (before.findings == 0)
			cow_dev_close(damaged);
		else
			judge(damaged, &m, what);
	}
	free_manifest(&m);
	free(n.list);
	cow_dev_close(dev);
	memdev_free(disk);
}

static void test_random(void **state)
{
	unsigned runs = getenv("RUNS") != NULL ? (unsigned)atoi(getenv("RUNS")) : 6;
	uint64_t seed = getenv("SEED") != NULL ? (uint64_t)atoll(getenv("SEED")) : 100;

	(void)state;
	for (unsigned i = 0; i < runs; i++)
		random_volume(seed + i);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean_stays),  cmocka_unit_test(test_each_node),   cmocka_unit_test(test_counts),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_wrong_counts), cmocka_unit_test(test_wrong_sums),  cmocka_unit_test(test_super),
		cmocka_unit_test(test_data),         cmocka_unit_test(test_found_again), cmocka_unit_test(test_cuts),
		cmocka_unit_test(test_device_fails), cmocka_unit_test(test_full),        cmocka_unit_test(test_undo),
		cmocka_unit_test(test_log),          cmocka_unit_test(test_hostile),     cmocka_unit_test(test_several),
		cmocka_unit_test(test_long_files),
		cmocka_unit_test(test_random),
	};

	if (getenv("ONLY") != NULL)
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
