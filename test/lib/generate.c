/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random operations that fit the present state, in moods that differ in what they do often. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cow.h"
#include "test/lib/crowd.h"

#define CROWDED 10 /* percent of the runs */

uint64_t rng_next(struct rng *rng)
{
	uint64_t z = rng->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint64_t rng_below(struct rng *rng, uint64_t n)
{
	return rng_next(rng) % n;
}

bool rng_chance(struct rng *rng, unsigned percent)
{
	return rng_below(rng, 100) < percent;
}

/* ------------------------------------------------------------------ moods */

static const struct {
	uint8_t kind, weight;
} usual[] = {
	{OP_MKDIR, 6}, {OP_CREATE, 5}, {OP_NODE, 2}, {OP_CREATE_AT, 1}, {OP_TMPFILE, 1}, {OP_LINK_AT, 1},
	{OP_WRITE, 6}, {OP_WRITE_AT, 3}, {OP_APPEND, 2}, {OP_TRUNCATE, 1}, {OP_TRUNCATE_AT, 1}, {OP_PUNCH, 1},
	{OP_ZERO, 1}, {OP_ALLOCATE, 1}, {OP_COPY, 2}, {OP_CHMOD, 1}, {OP_CHMOD_AT, 1}, {OP_CHOWN, 1}, {OP_UTIME, 1},
	{OP_SETXATTR, 2}, {OP_RMXATTR, 1}, {OP_LINK, 10}, {OP_UNLINK, 5}, {OP_RMDIR, 1}, {OP_REMOVE, 4},
	{OP_RENAME, 14}, {OP_CLONE, 7}, {OP_CLONE_AT, 1}, {OP_CLONE_OVER, 1}, {OP_OPEN, 4}, {OP_CLOSE, 2},
	{OP_READ, 2}, {OP_STAT, 5}, {OP_STATALL, 2}, {OP_TOTALS, 2}, {OP_EXCLUSIVE, 1}, {OP_DIFF, 5}, {OP_SAME, 2},
	{OP_DRAIN, 2}, {OP_SYNC, 2}, {OP_FSYNC, 3}, {OP_FSYNC_AT, 1}, {OP_CRASH, 1}, {OP_REMOUNT, 1}, {OP_FORGET, 1},
};

static void add_weight(struct mood *mood, enum op_kind kind, unsigned weight)
{
	mood->weight[kind] += weight;
}

/* Directories of some hundred entries that are removed in a row, and given back in small steps by one who has little in
 * memory: the queue of removed trees gets several leaves, and they have to be read again. */
static void add_crowds(struct mood *mood)
{
	mood->limit = 250;
	mood->probe = 200;
	mood->small = false;
	mood->tiny_cache = true;
	mood->crowded = true;
	add_weight(mood, OP_MANY, 12);
	add_weight(mood, OP_CLEAR, 10);
	add_weight(mood, OP_RECLAIM, 20);
	add_weight(mood, OP_SYNC, 10);
	mood->weight[OP_DRAIN] = mood->weight[OP_EXCLUSIVE] = mood->weight[OP_DIFF] = 1;
	mood->weight[OP_STATALL] = mood->weight[OP_TOTALS] = 1;
}

void mood_draw(struct rng *rng, struct mood *mood)
{
	struct rng apart = {~rng->state}; /* so that the others draw what they drew before there were crowds */

	memset(mood, 0, sizeof(*mood));
	mood->names = 7;
	mood->limit = 45;
	mood->file_bytes = rng_chance(rng, 50) ? 2000 : 60000;
	for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
		add_weight(mood, usual[i].kind, usual[i].weight);
	if (rng_chance(rng, 50))
		mood->weight[OP_CRASH] = mood->weight[OP_REMOUNT] = mood->weight[OP_FORGET] = 0;
	if (rng_chance(rng, 50)) {
		add_weight(mood, OP_LINK, 10);
		add_weight(mood, OP_RENAME, 8);
	}
	if (rng_chance(rng, 30)) {
		add_weight(mood, OP_WRITE, 10);
		add_weight(mood, OP_WRITE_AT, 5);
		add_weight(mood, OP_APPEND, 8);
		add_weight(mood, OP_TRUNCATE, 5);
		add_weight(mood, OP_PUNCH, 5);
		add_weight(mood, OP_COPY, 8);
	}
	if (rng_chance(rng, 30)) {
		add_weight(mood, OP_DRAIN, 4);
		add_weight(mood, OP_SYNC, 4);
		add_weight(mood, OP_STATALL, 4);
		add_weight(mood, OP_REMOVE, 4);
	}
	if (rng_chance(rng, 20)) {
		add_weight(mood, OP_DIFF, 25);
		add_weight(mood, OP_SAME, 10);
		add_weight(mood, OP_EXCLUSIVE, 3);
	}
	if (rng_chance(rng, 25)) { /* directories of many nodes */
		mood->names = 300;
		mood->limit = 1200;
		add_weight(mood, OP_MKDIR, 4);
		add_weight(mood, OP_CREATE, 60);
		add_weight(mood, OP_LINK, 20);
		add_weight(mood, OP_NODE, 15);
		mood->weight[OP_CLONE] = 3;
		mood->weight[OP_REMOVE] = 1;
		mood->weight[OP_STATALL] = mood->weight[OP_TOTALS] = 1;
	}
	mood->small = rng_chance(rng, 7);
	if (mood->small) {
		mood->file_bytes = 2500000;
		mood->limit = mood->limit > 80 ? mood->limit : 80;
		mood->weight[OP_CLONE] = 3;
		add_weight(mood, OP_WRITE, 60);
		add_weight(mood, OP_CREATE, 15);
		mood->weight[OP_TRUNCATE] = mood->weight[OP_REMOVE] = 1;
	}
	mood->tiny_cache = rng_chance(rng, 40);
	mood->threads = rng_chance(rng, 10);
	mood->long_names = rng_chance(rng, 20);
	mood->probe = mood->limit > 100 ? 200 : 40;
	if (rng_chance(&apart, CROWDED))
		add_crowds(mood);
	for (unsigned i = 0; i < OP_COUNT; i++)
		mood->total += mood->weight[i];
}

/* ------------------------------------------------------------------ what there is to work on */

struct place {
	const struct ora_node *node;
	unsigned up;      /* its directory's place */
	const char *name;
	unsigned depth;
};

struct places {
	struct place *all;
	unsigned *dirs, *files, *linked, *data; /* numbers in all; linked: directories that hold a hard link */
	unsigned count, dir_count, file_count, linked_count, data_count, room;
};

static void push(struct places *p, const struct ora_node *node, unsigned up, const char *name, unsigned depth)
{
	if (p->count == p->room) {
		p->room = p->room * 2 + 64;
		p->all = cow_mem_resize(p->all, p->room * sizeof(*p->all));
		p->dirs = cow_mem_resize(p->dirs, p->room * sizeof(*p->dirs));
		p->files = cow_mem_resize(p->files, p->room * sizeof(*p->files));
		p->linked = cow_mem_resize(p->linked, p->room * sizeof(*p->linked));
		p->data = cow_mem_resize(p->data, p->room * sizeof(*p->data));
	}
	p->all[p->count] = (struct place){node, up, name, depth};
	if (ora_node_is_dir(node)) {
		p->dirs[p->dir_count++] = p->count;
	} else {
		p->files[p->file_count++] = p->count;
		if (S_ISREG(node->mode))
			p->data[p->data_count++] = p->count;
		if (node->names > 1 && up != 0)
			p->linked[p->linked_count++] = up;
	}
	p->count++;
}

/* Breadth first, so that numbers in `all` are stable while it grows. */
static void collect(const struct ora *ora, struct places *p)
{
	memset(p, 0, sizeof(*p));
	push(p, ora->root, 0, "", 0);
	for (unsigned i = 0; i < p->count; i++) {
		const struct ora_node *n = p->all[i].node;
		unsigned depth = p->all[i].depth + 1;

		for (unsigned k = 0; depth < 22 && k < n->kid_count; k++)
			push(p, n->kids[k].node, i, n->kids[k].name, depth);
	}
}

static void discard(struct places *p)
{
	free(p->all);
	free(p->dirs);
	free(p->files);
	free(p->linked);
	free(p->data);
}

static void path_of(const struct places *p, unsigned i, char *path)
{
	const char *names[ORA_DEPTH];
	unsigned n = 0;
	size_t used = 0;

	for (; i != 0; i = p->all[i].up)
		names[n++] = p->all[i].name;
	path[0] = '/';
	path[1] = 0;
	while (n-- > 0)
		used += (size_t)snprintf(path + used, ORA_PATH - used, "/%s", names[n]);
}

static void pick(struct rng *rng, const struct places *p, const unsigned *from, unsigned count, char *path)
{
	path_of(p, from[rng_below(rng, count)], path);
}

static void pick_any(struct rng *rng, const struct places *p, char *path)
{
	path_of(p, (unsigned)rng_below(rng, p->count), path);
}

static void pick_name(struct rng *rng, const struct mood *mood, char *name)
{
	unsigned i = (unsigned)rng_below(rng, mood->names);

	if (mood->long_names && i % 3 == 0)
		snprintf(name, ORA_NAME, "L%u", i);
	else if (i < 26)
		snprintf(name, ORA_NAME, "%c", 'a' + i);
	else
		snprintf(name, ORA_NAME, "n%u", i);
}

static void parent_path(char *path)
{
	char *slash = strrchr(path, '/');

	if (slash == path)
		slash[1] = 0;
	else
		*slash = 0;
}

/* A handle in use (or free, if `node` kinds do not matter), of the wanted type: 'd', 'f' data file, 'n' no
 * directory. */
static bool pick_handle(struct rng *rng, const struct ora *ora, char type, uint8_t *handle)
{
	uint8_t fit[ORA_HANDLES];
	unsigned count = 0;

	for (uint8_t i = 0; i < ORA_HANDLES; i++) {
		const struct ora_node *n = ora->handle[i];
		bool ok = type == '0' ? n == NULL
			: n != NULL && (type == '*' || (type == 'd' && ora_node_is_dir(n)) ||
					(type == 'f' && S_ISREG(n->mode)) || (type == 'n' && !ora_node_is_dir(n)));

		if (ok)
			fit[count++] = i;
	}
	if (count > 0)
		*handle = fit[rng_below(rng, count)];
	return count > 0;
}

/* ------------------------------------------------------------------ operations */

/* Where and how much to write: mostly small things, also holes, block edges and whole blocks. */
static void pick_range(struct rng *rng, const struct mood *mood, struct op *op)
{
	op->x = rng_chance(rng, 40) ? 0 : rng_below(rng, mood->file_bytes);
	op->y = 1 + rng_below(rng, rng_chance(rng, 40) ? 600 : mood->file_bytes);
	if (rng_chance(rng, 25)) {
		op->x &= ~4095ull;
		op->y = (op->y + 4095) & ~4095ull;
	}
	if (rng_chance(rng, 4))
		op->x += rng_chance(rng, 50) ? 3000000 : 1ull << (20 + rng_below(rng, 20));
	if (rng_chance(rng, 3))
		op->y += 300000;
}

static uint64_t pick_mode(struct rng *rng)
{
	static const uint16_t modes[] = {0644, 0755, 0600, 0777, 04755, 0444, 02770};

	return modes[rng_below(rng, sizeof(modes) / sizeof(modes[0]))];
}

static bool gen_data(struct rng *rng, const struct mood *mood, const struct ora *ora, const struct places *p,
		     struct op *op)
{
	op->z = rng_below(rng, 12);
	switch (op->kind) {
	case OP_WRITE_AT:
	case OP_TRUNCATE_AT:
		pick_range(rng, mood, op);
		return pick_handle(rng, ora, 'f', &op->handle);
	case OP_COPY:
		if (p->data_count == 0)
			return false;
		pick(rng, p, p->data, p->data_count, op->a);
		pick(rng, p, p->data, p->data_count, op->b);
		pick_range(rng, mood, op);
		op->z = op->y * 3;
		op->y = rng_chance(rng, 50) ? op->x : rng_below(rng, mood->file_bytes);
		if (rng_chance(rng, 30)) {
			op->x = op->y = 0;
			op->z = rng_chance(rng, 50) ? 1ull << 40 : op->z & ~4095ull;
		}
		return true;
	default:
		if (p->data_count == 0)
			return false;
		pick(rng, p, p->data, p->data_count, op->a);
		pick_range(rng, mood, op);
		if (op->kind == OP_TRUNCATE && rng_chance(rng, 50))
			op->x = rng_below(rng, 1000);
		op->flag = rng_chance(rng, 50);
		return true;
	}
}

static bool gen_attributes(struct rng *rng, const struct mood *mood, const struct ora *ora, const struct places *p,
			   struct op *op)
{
	pick_any(rng, p, op->a);
	if (op->kind == OP_UTIME)
		op->x = 1000000 + rng_below(rng, 1000);
	else
		op->x = op->kind == OP_CHOWN ? rng_below(rng, 4) : pick_mode(rng);
	op->y = op->kind == OP_CHOWN ? rng_below(rng, 4) : rng_below(rng, rng_chance(rng, 70) ? 60 : 6000);
	op->z = rng_below(rng, 12);
	op->flag = rng_chance(rng, 10) ? (uint8_t)(1 + rng_below(rng, 2)) : 0;
	(void)mood;
	snprintf(op->name, ORA_NAME, "%c", 'a' + (int)rng_below(rng, rng_chance(rng, 80) ? 3 : 9));
	return op->kind != OP_CHMOD_AT || pick_handle(rng, ora, '*', &op->handle);
}

/* A directory to make something in: any, or one that has a file. */
static void pick_dir(struct rng *rng, const struct places *p, char *path, bool by_file)
{
	if (by_file && p->file_count > 0 && rng_chance(rng, 50)) {
		pick(rng, p, p->files, p->file_count, path);
		parent_path(path);
	} else {
		pick(rng, p, p->dirs, p->dir_count, path);
	}
}

static bool gen_names(struct rng *rng, const struct mood *mood, const struct ora *ora, const struct places *p,
		      struct op *op)
{
	bool full = p->count > mood->limit;

	pick_name(rng, mood, op->name);
	op->x = pick_mode(rng);
	switch (op->kind) {
	case OP_MKDIR:
	case OP_CREATE:
		pick_dir(rng, p, op->a, false);
		return !full;
	case OP_NODE:
		pick_dir(rng, p, op->a, false);
		op->x = rng_below(rng, 4);
		op->y = op->x == 0 ? 1 + rng_below(rng, rng_chance(rng, 80) ? 100 : 4000) : rng_below(rng, 1000);
		return !full;
	case OP_CREATE_AT:
		return !full && pick_handle(rng, ora, 'd', &op->handle);
	case OP_TMPFILE:
		pick_dir(rng, p, op->a, false);
		return pick_handle(rng, ora, '0', &op->handle);
	case OP_LINK_AT:
		pick_dir(rng, p, op->a, true);
		return pick_handle(rng, ora, 'n', &op->handle);
	case OP_LINK:
		pick_dir(rng, p, op->b, true);
		if (p->file_count == 0)
			return false;
		pick(rng, p, p->files, p->file_count, op->a);
		return true;
	case OP_MANY:
		pick_dir(rng, p, op->a, false);
		op->x = 80 + rng_below(rng, 100);
		op->flag = (uint8_t)(rng_chance(rng, 60) ? CROWD_TREES : rng_below(rng, CROWD_KINDS));
		op->flag |= rng_chance(rng, 25) ? CROWD_LONG : 0;
		return !full;
	case OP_CLONE_AT:
		pick_dir(rng, p, op->b, false);
		return !full && pick_handle(rng, ora, 'n', &op->handle);
	default: /* clone, clone_over */
		pick_dir(rng, p, op->b, false);
		if (p->file_count > 0 && rng_chance(rng, op->kind == OP_CLONE ? 20 : 40))
			pick(rng, p, p->files, p->file_count, op->a);
		else
			pick(rng, p, p->dirs, p->dir_count, op->a);
		op->flag = rng_chance(rng, 12);
		return !full;
	}
}

static bool gen_rename(struct rng *rng, const struct mood *mood, const struct places *p, struct op *op)
{
	if (p->count < 2)
		return false;
	pick_name(rng, mood, op->name);
	pick_dir(rng, p, op->b, false);
	op->flag = rng_chance(rng, 6) ? COW_RENAME_EXCHANGE : rng_chance(rng, 4) ? COW_RENAME_NOREPLACE : 0;
	if (p->file_count > 0 && rng_chance(rng, 30))
		pick(rng, p, p->files, p->file_count, op->a);
	else if (p->linked_count > 0 && rng_chance(rng, 50))
		pick(rng, p, p->linked, p->linked_count, op->a);
	else if (p->dir_count > 1)
		pick(rng, p, p->dirs + 1, p->dir_count - 1, op->a);
	else
		pick(rng, p, p->files, p->file_count, op->a);
	return true;
}

/* The directory with the most entries. */
static bool pick_crowd(const struct places *p, char *path)
{
	unsigned most = 0;

	for (unsigned i = 1; i < p->dir_count; i++)
		if (p->all[p->dirs[i]].node->kid_count > p->all[p->dirs[most]].node->kid_count)
			most = i;
	path_of(p, p->dirs[most], path);
	return p->all[p->dirs[most]].node->kid_count > 0;
}

static bool gen_other(struct rng *rng, const struct ora *ora, const struct places *p, struct op *op)
{
	switch (op->kind) {
	case OP_UNLINK:
		if (p->file_count == 0)
			return false;
		pick(rng, p, p->files, p->file_count, op->a);
		return true;
	case OP_RMDIR:
	case OP_REMOVE:
	case OP_EXCLUSIVE:
		if (p->dir_count < 2)
			return false;
		pick(rng, p, p->dirs + 1, p->dir_count - 1, op->a);
		if (op->kind == OP_REMOVE && p->file_count > 0 && rng_chance(rng, 5))
			pick(rng, p, p->files, p->file_count, op->a);
		return true;
	case OP_CLEAR:
		return pick_crowd(p, op->a);
	case OP_RECLAIM:
		op->x = 1 + rng_below(rng, 40);
		return true;
	case OP_OPEN:
		if (p->file_count > 0 && rng_chance(rng, 60))
			pick(rng, p, p->files, p->file_count, op->a);
		else
			pick(rng, p, p->dirs, p->dir_count, op->a);
		return pick_handle(rng, ora, '0', &op->handle);
	case OP_CLOSE:
	case OP_FSYNC_AT:
		return pick_handle(rng, ora, '*', &op->handle);
	case OP_READ:
		if (p->file_count == 0)
			return false;
		pick(rng, p, p->files, p->file_count, op->a);
		return true;
	case OP_DIFF:
	case OP_SAME:
		pick(rng, p, p->dirs, p->dir_count, op->a);
		pick(rng, p, p->dirs, p->dir_count, op->b);
		return true;
	default:
		pick_any(rng, p, op->a);
		return true;
	}
}

static enum op_kind pick_kind(struct rng *rng, const struct mood *mood)
{
	unsigned at = (unsigned)rng_below(rng, mood->total), kind = 0;

	while (at >= mood->weight[kind])
		at -= mood->weight[kind++];
	return (enum op_kind)kind;
}

void op_generate(struct rng *rng, const struct mood *mood, const struct ora *ora, struct op *op)
{
	struct places p;
	bool ok;

	collect(ora, &p);
	do {
		memset(op, 0, sizeof(*op));
		op->kind = (uint8_t)pick_kind(rng, mood);
		if (op->kind >= OP_WRITE && op->kind <= OP_COPY)
			ok = gen_data(rng, mood, ora, &p, op);
		else if (op->kind >= OP_CHMOD && op->kind <= OP_RMXATTR)
			ok = gen_attributes(rng, mood, ora, &p, op);
		else if (op->kind == OP_RENAME)
			ok = gen_rename(rng, mood, &p, op);
		else if (op->kind <= OP_LINK_AT || op->kind == OP_LINK ||
			 (op->kind >= OP_CLONE && op->kind <= OP_MANY))
			ok = gen_names(rng, mood, ora, &p, op);
		else
			ok = gen_other(rng, ora, &p, op);
	} while (!ok);
	discard(&p);
}
