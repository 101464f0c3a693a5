/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile images: bytes of a volume are changed so that all checksums fit, and then everything is done with it that
 * can be. Errors are fine, wrong answers too; a crash, a hang or a failed assertion is not.
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "audit/check.h"
#include "audit/repair.h"
#include "cow.h"
#include "dev/dev_sim.h"
#include "fs/core/volume.h"
#include "fs/open.h"
#include "store/node.h"
#include "store/walk.h"
#include "test/lib/plant.h"
#include "test/lib/poke.h"
#include "test/lib/sample.h"

struct visit {
	struct cow_inode *dir;
	unsigned depth;
	unsigned *left; /* entries to look at: a damaged tree may be endless */
};

static void ignore_log(void *context, enum cow_log_level level, const char *text)
{
	(void)context, (void)level, (void)text;
}

static void read_all(struct cow_inode *inode, const struct cow_attr *attr)
{
	static char buffer[70000];

	(void)!cow_read(inode, buffer, sizeof(buffer), 0);
	(void)!cow_read(inode, buffer, sizeof(buffer), attr->size > 100 ? attr->size - 100 : 0);
	(void)!cow_seek(inode, 0, SEEK_DATA);
	(void)!cow_seek(inode, 0, SEEK_HOLE);
	(void)!cow_readlink(inode, buffer, sizeof(buffer));
	(void)!cow_listxattr(inode, buffer, sizeof(buffer));
	(void)!cow_getxattr(inode, "user.long", buffer, sizeof(buffer));
}

static int look(void *context, const struct cow_entry *entry, struct cow_inode *inode, const struct cow_attr *attr)
{
	struct visit *v = context, below = {inode, v->depth + 1, v->left};
	struct cow_inode *again;
	struct cow_attr other;

	if (*v->left == 0)
		return 1; /* the reference goes back */
	--*v->left;
	if (inode == NULL)
		return 0;
	if (cow_lookup(v->dir, entry->name, &again, &other) == 0)
		cow_forget(again, 1);
	if (S_ISDIR(entry->mode) && below.depth < 8)
		(void)!cow_list(inode, 0, true, look, &below);
	else
		read_all(inode, attr);
	cow_forget(inode, 1);
	return 0;
}

static int ignore_change(void *context, const struct cow_change *change)
{
	(void)change;
	return --*(unsigned *)context == 0 ? 1 : 0;
}

static void compare(struct cow_inode *root, const char *a, const char *b)
{
	struct cow_inode *x = NULL, *y = NULL;
	unsigned left = 10000;

	if (cow_lookup(root, a, &x, NULL) == 0 && cow_lookup(root, b, &y, NULL) == 0) {
		(void)!cow_diff(x, y, true, ignore_change, &left);
		(void)!cow_same(x, y);
	}
	cow_forget(x, 1);
	cow_forget(y, 1);
}

static void use(struct cow_inode *root, const char *name)
{
	struct cow_usage usage;
	struct cow_inode *inode;

	if (cow_lookup(root, name, &inode, NULL) == 0) {
		(void)!cow_usage(inode, true, &usage);
		cow_forget(inode, 1);
	}
}

static void change(struct cow_volume *volume, struct cow_inode *root)
{
	const struct cow_new file = {.mode = S_IFREG | 0600}, dir = {.mode = S_IFDIR | 0700};
	struct cow_inode *d = NULL, *f = NULL;
	char path[64], bytes[9000] = "changed";

	if (cow_create(root, "made", &dir, &d, NULL) == 0)
		(void)!cow_rename(root, "links", d, "moved", 0);
	(void)!cow_rename(root, "clone", root, "moved", 0);
	for (unsigned i = 0; i < 40; i += 7) {
		snprintf(path, sizeof(path), "/files/file-%u", i);
		if (cow_lookup_path(volume, path, &f) != 0)
			continue;
		(void)!cow_write(f, bytes, sizeof(bytes), i * 1000, false);
		(void)!cow_setxattr(f, "user.new", bytes, 200, 0);
		(void)!cow_link(f, root, path + 7, NULL);
		(void)!cow_setattr(f, &(struct cow_attr){.size = i}, COW_SET_SIZE, NULL);
		cow_forget(f, 1);
	}
	(void)!cow_create(root, "new", &file, NULL, NULL);
	(void)!cow_sync(volume);
	(void)!cow_clone(root, root, "again", 0, NULL, NULL);
	(void)!cow_unlink(root, "file-7");
	(void)!cow_remove_tree(root, "files");
	(void)!cow_remove_tree(root, "snapshot");
	(void)!cow_remove_tree(root, "moved");
	(void)!cow_drain(volume);
	cow_forget(d, 1);
}

static void try_all(struct cow_dev *dev, bool writable)
{
	struct cow_open_options options = {.read_only = !writable, .no_threads = true, .log = ignore_log};
	unsigned left = 3000;
	struct cow_volume *volume;
	struct visit visit;
	struct cow_inode *root;

	if (cow_volume_open(dev, &options, &volume) != 0)
		return;
	if (cow_root(volume, &root) == 0) {
		visit = (struct visit){root, 0, &left};
		(void)!cow_list(root, 0, true, look, &visit);
		compare(root, "files", "links");
		compare(root, "links", "clone");
		compare(root, "clone", "snapshot");
		use(root, "clone");
		use(root, "snapshot");
		if (writable)
			change(volume, root);
		cow_forget(root, 1);
	}
	(void)!cow_close(volume);
}

/* In a child, so that one that dies does not end the others; and under a time limit. */
static bool survives(struct cow_dev *dev, bool writable)
{
	int status;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		alarm(60);
		try_all(dev, writable);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* The sample's hash key is random, so a seed alone would not bring an image back: one that does harm is kept. */
static unsigned run_one(struct cow_dev *good, uint64_t seed)
{
	struct cow_dev *dev = cow_sim_copy(good);
	unsigned failed = 0;
	char path[64];

	poke_random(dev, seed, 1 + seed % 5);
	if (!survives(dev, seed % 2 == 0)) {
		snprintf(path, sizeof(path), "/tmp/cow-hostile-%llu", (unsigned long long)seed);
		if (cow_sim_save(dev, path) == 0)
			print_message("kept as %s: COW_IMAGE=%s runs it again\n", path, path);
		failed = 1;
	}
	cow_dev_close(dev);
	return failed;
}

static void test_hostile(void **state)
{
	const char *image = getenv("COW_IMAGE"), *runs = getenv("COW_RUNS");
	uint64_t seed = (uint64_t)time(NULL) * 1000;
	unsigned count = runs != NULL ? (unsigned)atoi(runs) : 200, failed = 0;
	struct cow_dev *good;

	(void)state;
	if (image != NULL) {
		good = cow_sim_new(SAMPLE_BYTES);
		assert_int_equal(cow_sim_load(good, image), 0);
		try_all(cow_sim_copy(good), false);
		try_all(good, true);
		return;
	}
	good = sample_volume();
	print_message("seeds from %llu (COW_RUNS=n: so many)\n", (unsigned long long)seed);
	for (unsigned i = 0; i < count; i++)
		failed += run_one(good, seed + i);
	cow_dev_close(good);
	assert_int_equal(failed, 0);
}

/* The block of a node that somebody is just looking at is free by its count: it is not given to another node. */
static void test_free_while_read(void **state)
{
	struct cow_open_options options = {.no_threads = true, .log = ignore_log};
	struct cow_dev *good = sample_volume(), *dev = cow_sim_copy(good);
	struct cow_inode *root, *files;
	struct cow_volume *volume;
	struct cow_node *node;
	struct cow_ptr tree;
	uint32_t count;
	int error = 0;

	(void)state;
	assert_int_equal(cow_volume_open(good, &options, &volume), 0);
	assert_int_equal(cow_root(volume, &root), 0);
	assert_int_equal(cow_lookup(root, "files", &files, NULL), 0);
	tree = files->tree.root;
	assert_int_equal(cow_walk_count(volume->store, tree.addr, &count), 0);
	cow_volume_abandon(volume);
	poke_count(dev, tree.addr, -(int)count);
	assert_int_equal(cow_volume_open(dev, &options, &volume), 0);
	assert_int_equal(cow_root(volume, &root), 0);
	assert_int_equal(cow_walk_get(volume->store, tree, COW_KIND_DIR, -1, &node), 0);
	assert_int_equal(cow_walk_count(volume->store, tree.addr, &count), 0);
	assert_int_equal(count, 0);
	for (unsigned i = 0; i < 20000 && error == 0; i++) { /* until the allocation has come round */
		error = cow_setattr(root, &(struct cow_attr){.mtime = {.tv_sec = i}}, COW_SET_MTIME, NULL);
		if (error == 0)
			error = cow_sync(volume);
		cow_sim_forget(dev);
	}
	assert_int_equal(error, COW_ERR_DAMAGED);
	cow_walk_put(volume->store, node);
	(void)!cow_close(volume);
}

/*
 * Chains of nodes, longer than a stack is deep: queues of removed trees in queues of removed trees, which no volume has
 * so many of but which are well formed; and lost inner nodes, which all say that they are of the same level.
 */
#define CHAIN 4000u
#define CHAIN_BLOCK 8000u
#define SMALL_STACK (256u << 10)

/* Each with a count of 1, so all would be well if somebody led to the last, which is returned. */
static struct cow_ptr put_chain(struct plant *p, uint8_t kind, uint8_t level)
{
	struct cow_ptr ptr = {.addr = p->block, .generation = 1};
	const uint64_t key = 1;

	for (unsigned i = 0; i < CHAIN; i++) {
		uint8_t entry[COW_PTR_BYTES + 1];

		cow_ptr_put(entry, ptr);
		entry[COW_PTR_BYTES] = kind;
		if (level > 0)
			ptr = plant_inner(p, kind, level, 1, &key, &ptr);
		else /* the first queue is empty */
			ptr = plant_leaf(p, kind, i > 0, &key, entry, sizeof(entry));
	}
	return ptr;
}

static void ignore_line(void *context, const char *text)
{
	(void)context, (void)text;
}

struct tried {
	struct cow_dev *dev;
	int error;
	struct cow_check_result checked;
	struct cow_repair_result repaired;
};

static void *try_chain(void *context)
{
	struct tried *t = context;

	t->error = cow_check_device(t->dev, NULL, &t->checked);
	if (t->error == 0)
		t->error = cow_dump_device(t->dev, "tree", ignore_line, NULL);
	try_all(cow_sim_copy(t->dev), true);
	poke_count(t->dev, CHAIN_BLOCK, 1); /* something to repair */
	if (t->error == 0)
		t->error = cow_repair_device(t->dev, NULL, &t->repaired);
	return NULL;
}

static struct tried on_small_stack(struct cow_dev *dev)
{
	struct tried t = {.dev = dev};
	pthread_attr_t attr;
	pthread_t thread;

	assert_int_equal(pthread_attr_init(&attr), 0);
	assert_int_equal(pthread_attr_setstacksize(&attr, SMALL_STACK), 0);
	assert_int_equal(pthread_create(&thread, &attr, try_chain, &t), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	pthread_attr_destroy(&attr);
	assert_int_equal(t.error, 0);
	assert_true(t.repaired.written);
	assert_int_equal(t.repaired.left, 0);
	cow_dev_close(dev);
	return t;
}

static void test_chain_of_queues(void **state)
{
	struct plant p = {.dev = sample_volume(), .block = CHAIN_BLOCK, .generation = 1, .counted = true};
	struct tried t;

	(void)state;
	plant_queue(&p, put_chain(&p, COW_KIND_RECLAIM, 0));
	t = on_small_stack(p.dev);
	assert_int_equal(t.checked.findings, 0);
	assert_true(t.checked.nodes > CHAIN);
}

static void test_chain_of_lost(void **state)
{
	struct plant p = {.dev = sample_volume(), .block = CHAIN_BLOCK, .generation = 1, .counted = true};
	struct tried t;

	(void)state;
	put_chain(&p, COW_KIND_DIR, 5);
	t = on_small_stack(p.dev);
	assert_int_equal(t.checked.findings, CHAIN); /* counts */
}

static void set_generation(void *context, struct cow_super *super)
{
	super->generation = *(uint64_t *)context;
}

/* There is no generation after the last: such a volume can be read, and is not written. */
static void test_last_generations(void **state)
{
	static const uint64_t generations[] = {UINT64_MAX, UINT64_MAX - 1, 1ull << 63, (1ull << 63) - 1, 1ull << 62,
					       (1ull << 62) - 1};

	(void)state;
	for (size_t i = 0; i < sizeof(generations) / sizeof(*generations); i++) {
		struct cow_dev *dev = sample_volume();
		struct cow_repair_result repaired;

		poke_super(dev, set_generation, (void *)&generations[i]);
		try_all(cow_sim_copy(dev), true);
		poke_count(dev, CHAIN_BLOCK, 1); /* something to repair */
		(void)!cow_repair_device(dev, NULL, &repaired);
		try_all(dev, true);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_free_while_read),
		cmocka_unit_test(test_chain_of_queues),
		cmocka_unit_test(test_chain_of_lost),
		cmocka_unit_test(test_last_generations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
