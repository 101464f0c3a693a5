/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of the check share. check_walk.c visits every stored node once and sums up, check_record.c follows
 * what a record leads to, check_counts.c counts pointers. Then check_world.c looks at each world, check_number.c at
 * colours and inode numbers, by what the walk left behind.
 *
 * LINEAR. A node that a thousand clones share is visited once: what it sums up is kept (check_node.c) and used for
 * each parent. Worlds are looked at once for each different (top, tree, links), only where references are.
 */
#ifndef COW_AUDIT_CHECK_WALK_H
#define COW_AUDIT_CHECK_WALK_H

#include "base/map.h"
#include "audit/check.h"
#include "fs/world/inode_number.h"
#include "fs/format/record.h"
#include "fs/core/volume.h"

/*
 * A node that was visited, packed: a large volume has millions of them. They are known by their index; 0: none.
 * `shared`, `carries` and so on are of the node and all below it in its tree.
 */
struct cow_check_node {
	uint64_t print; /* of its pointer's checksum and generation: see cow_check_print() */
	uint64_t addr : 40; /* 512 TiB are 2^37 blocks */
	uint64_t kind : 4, level : 4;
	uint64_t bad : 1; /* cannot be used */
	uint64_t partial : 1; /* something below is bad: sums mean nothing */
	uint64_t carries : 1; /* DIR: below, also in directories below, is (or may be) a world or a tagged file */
	uint64_t closed : 1; /* DIR: `carries` is final */
	uint64_t refs : 1; /* DIR: there are link references below */
	uint64_t tagged : 1; /* LINKS: there are records with a tag */
	uint64_t busy : 1; /* being visited */
};

/* What a node, and all below it in its tree, come to. */
struct cow_check_sums {
	uint64_t first, last; /* keys, if not empty */
	bool empty;
	union {
		struct {
			struct cow_totals totals; /* exceptions: those that do not depend on the directory's owner */
			uint64_t owned; /* entries of `uid` that are no exceptions otherwise */
			uint32_t uid;
			bool mixed; /* they have different owners */
		} dir;
		struct {
			uint64_t backs, bytes, blocks, files;
			uint64_t tagged; /* records with a tag */
		} links;
		struct {
			uint64_t blocks, end; /* end: first file block behind the last extent */
		} file;
		struct {
			uint64_t length;
		} blob;
	};
};

/* One node while it is visited, or what was kept of it. */
struct cow_seen {
	struct cow_ptr ptr;
	uint32_t index; /* in the table */
	uint8_t kind, level;
	bool bad, partial, carries; /* as in struct cow_check_node */
	bool fresh; /* this was the first visit */
	struct cow_seen *outer; /* the next in `busy` */
	struct cow_check_sums sum;
};

struct cow_check_job { /* a tree that is still to be visited: of a directory's record, or a queue in the queue */
	struct cow_ptr tree;
	uint64_t born; /* generation of the node that leads there */
	uint8_t kind;
	/* DIR */
	uint64_t number;
	uint32_t uid;
	uint32_t from; /* that node, if `carries` goes there */
	bool is_region; /* has a colour of its own */
	struct cow_totals totals;
};

/* A world whose record is stored somewhere. */
struct cow_checked_world {
	uint64_t top; /* n */
	struct cow_ptr tree, links;
	uint64_t refs, backs;
};

struct cow_check {
	struct cow_dev *dev;
	const struct cow_check_options *options;
	struct cow_check_result *result;
	struct cow_super super;
	struct cow_counters counters;
	uint64_t used_blocks, done_blocks;

	struct cow_check_node *nodes; /* [0] is nobody */
	size_t node_count, node_size;
	uint32_t *index; /* hash of an address -> index of a node, 0: free */
	size_t index_size; /* a power of two */
	struct cow_map kept; /* index of a node -> struct cow_check_sums: see check_node.c */
	struct cow_map hints; /* group -> a bit for each block: its count is stored as more than 1 */
	struct cow_map pages; /* group -> a byte for each block: see check_counts.c */
	struct cow_map many; /* block -> pointers, where they do not fit there */
	bool nameless; /* in the trees root and orphans */
	bool reclaiming; /* walking what the queue holds */
	bool again; /* sums of a node visited before are made once more: nothing is said or counted */
	struct cow_seen *busy; /* nodes being visited, the innermost first */
	uint64_t unreadable; /* nodes: what lies below them is not counted */
	uint64_t entries; /* items of DIR and LINKS leaves */

	struct cow_check_job *jobs; /* trees that wait */
	size_t job_count, job_size;
	struct cow_checked_world *worlds;
	size_t world_count, world_size;
	struct cow_map sizes; /* tree of a world -> files, directories, and link references in it */
	struct cow_check_open *open; /* nodes of DIR trees that are not closed */
	size_t open_count, open_size;
	struct cow_check_dir *dirs; /* directories whose subdirectories are not all visited */
	size_t dir_count, dir_size;
	struct cow_row *rows; /* of the table of numbers */
	size_t row_count, row_size;
	struct cow_record root; /* the root directory; no slices */
	bool has_root;

	uint64_t said[COW_FIND_COUNT];
	uint64_t bytes; /* in use now */
};

/* Reports a finding; of one number only so many in words. */
void cow_check_say(struct cow_check *check, enum cow_find number, uint64_t block, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* Memory that is in the sum. Grows a list to hold one more. */
void *cow_check_new(struct cow_check *check, size_t size);
void cow_check_free(struct cow_check *check, void *p, size_t size);
void *cow_check_grow(struct cow_check *check, void *list, size_t count, size_t *size, size_t each);

/* check_walk.c: all nodes; afterwards everything above is filled. */
void cow_check_walk(struct cow_check *check);
/* One pointer to a node, held by something born at `born`. What is below is visited the first time. False: null. */
bool cow_check_visit(struct cow_check *check, struct cow_ptr ptr, uint8_t kind, int level, uint64_t born,
		     struct cow_seen *seen);
/* A tree that waits, because such trees may be nested without limit. */
void cow_check_job_add(struct cow_check *check, const struct cow_check_job *job);

/* check_record.c: everything that a record says and claims. Directories below wait. */
void cow_check_record(struct cow_check *check, const struct cow_record *record, const struct cow_seen *holder);
/* False: it is not a byte string of that length; this was said. */
bool cow_check_blob_tree(struct cow_check *check, struct cow_ptr ptr, uint64_t born, uint64_t length, uint64_t number);
/* Data is read once, however many extents lead to it. number 0: not known, the extent is in a shared tree. */
void cow_check_claim_extent(struct cow_check *check, const struct cow_extent *extent, uint64_t number);

/* check_counts.c: one more pointer to the block. True if it is the first. */
enum cow_check_role { COW_CHECK_NODE = 0x40, COW_CHECK_DATA = 0x80 };
bool cow_check_claim(struct cow_check *check, uint64_t block, enum cow_check_role role);
/* Compares what was counted with what is stored. */
int cow_check_counts(struct cow_check *check);
/* What was counted: pointers to a block; the groups in which there are any, in no order (the caller frees). */
uint32_t cow_check_pointers(const struct cow_check *check, uint64_t block);
uint64_t *cow_check_groups(const struct cow_check *check, size_t *count);
/* check.c: only walks and counts, by a superblock that need not be stored yet. */
int cow_check_count(struct cow_dev *dev, const struct cow_super *super,
		    int (*use)(void *context, struct cow_check *check), void *context);

/* check_node.c: the table of nodes. */
uint32_t cow_check_node_find(const struct cow_check *check, uint64_t addr); /* 0: not there */
uint32_t cow_check_node_add(struct cow_check *check, struct cow_ptr ptr, uint8_t kind);
void cow_check_node_keep(struct cow_check *check, uint32_t node, const struct cow_check_sums *sums);
/* Is the stored count of the node above 1, as far as can be told? */
bool cow_check_node_shared(struct cow_check *check, uint64_t addr);

/* Pointers with another checksum or another generation have another print; both other: by chance only, in 2^64. */
static inline uint64_t cow_check_print(uint64_t sum, uint64_t generation)
{
	return sum ^ generation * 0x9e3779b97f4a7c15ull;
}

static inline const struct cow_check_node *cow_check_seen(const struct cow_check *check, struct cow_ptr ptr)
{
	uint32_t node = cow_ptr_is_null(ptr) ? 0 : cow_check_node_find(check, ptr.addr);

	return node != 0 ? &check->nodes[node] : NULL;
}

/* A set of numbers, many to a slot: they mostly are neighbours. */
#define COW_CHECK_SET_BITS (8 * sizeof(uintptr_t))
static inline bool cow_check_set_has(const struct cow_map *set, uint64_t number)
{
	uintptr_t bits = (uintptr_t)cow_map_get(set, number / COW_CHECK_SET_BITS);

	return (bits >> number % COW_CHECK_SET_BITS & 1) != 0;
}
/* False: it is there. */
static inline bool cow_check_set_add(struct cow_map *set, uint64_t number)
{
	uintptr_t bits = (uintptr_t)cow_map_get(set, number / COW_CHECK_SET_BITS);
	uintptr_t bit = (uintptr_t)1 << number % COW_CHECK_SET_BITS;

	if ((bits & bit) == 0)
		cow_map_put(set, number / COW_CHECK_SET_BITS, (void *)(bits | bit));
	return (bits & bit) == 0;
}

/* Item `i` of a node whose header is good; false if it lies outside of the node. */
struct cow_check_item {
	uint64_t key;
	const uint8_t *value; /* of an inner node: the pointer */
	uint32_t length;
};
bool cow_check_item_at(const uint8_t *bytes, unsigned i, struct cow_check_item *item);
/* The last key that may lie below item `i` of an inner node, if `last` is the last of the node's own. A walk that holds
 * to it meets each node of a tree once, however many pointers lead there. */
uint64_t cow_check_last_below(const uint8_t *bytes, unsigned i, uint64_t last);
/* What is wrong with a node's header, or NULL. level -1: any. */
const char *cow_check_header(const uint8_t *bytes, struct cow_ptr ptr, uint8_t kind, int level);

/* Goes over the items of a tree visited before, in order; bad nodes are left out. `enter` (may be NULL) says whether a
 * node is of interest. Both return 0 to go on; `item` something else to stop, which is returned. */
struct cow_check_each {
	int (*item)(void *context, uint64_t key, const uint8_t *value, uint32_t length);
	bool (*enter)(const struct cow_check_node *node);
	void *context;
};
int cow_check_each(struct cow_check *check, struct cow_ptr root, const struct cow_check_each *each);
/* An `item` function that puts a byte string together, whoever goes over its BLOB tree. -1: an item is not where the
 * one before it ended, or too long. Afterwards all is there if done == length. */
struct cow_check_chunks {
	uint8_t *bytes;
	uint32_t length, done;
};
int cow_check_chunk(void *chunks, uint64_t key, const uint8_t *value, uint32_t length);
/* The bytes of a BLOB tree. 0, or -1 if they are not all there. */
int cow_check_blob(struct cow_check *check, struct cow_ptr root, uint8_t *bytes, uint32_t length);

/* check_world.c: names, link records and spine of every world. */
void cow_check_worlds(struct cow_check *check);
/* The set of link keys that names in a world's tree hold. The caller frees the map. */
struct cow_map cow_check_names(struct cow_check *check, struct cow_ptr tree);

/* check_log.c: the intent log. Errors of the device. */
int cow_check_log(struct cow_check *check);

/* check_number.c: rows, colours, (colour, n). */
void cow_check_numbers(struct cow_check *check);

#endif
