/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit/repair.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "audit/undo.h"
#include "base/mem.h"
#include "dev/dev_overlay.h"
#include "fs/open.h"
#include "store/log.h"

#define PATH_BYTES 4096u

/* ------------------------------------------------------------------ what is lost, and where it was */

/* Adds a name in front of the path that begins at *at. False: there is no room. */
static bool prepend(char *path, size_t *at, const char *name, size_t length)
{
	if (length + 1 > *at)
		return false;
	*at -= length;
	memcpy(path + *at, name, length);
	path[--*at] = '/';
	return true;
}

static bool add_item(struct cow_repair *r, const struct cow_mended *leaf, uint64_t key, char *path, size_t *at)
{
	uint8_t bytes[COW_BLOCK];
	struct cow_check_item item;
	struct cow_dirent entry;
	char number[40];

	if (leaf->kind == COW_KIND_LINKS)
		return prepend(path, at, number,
			       (size_t)snprintf(number, sizeof(number), "(hard link %" PRIu64 ")", key));
	if (leaf->kind != COW_KIND_DIR || !cow_repair_load(r, leaf->old, COW_KIND_DIR, 0, bytes))
		return true;
	for (unsigned i = 0; i < get16(bytes + 6); i++)
		if (cow_check_item_at(bytes, i, &item) && item.key == key &&
		    cow_dirent_decode(item.value, item.length, &entry) == 0)
			return entry.name.length == 0 ||
			       prepend(path, at, (const char *)entry.name.bytes, entry.name.length);
	return true;
}

/* The path of a node's directory; with a name, of the entry. Returns where in `path` it begins. */
static char *path_of(struct cow_repair *r, const struct cow_mended *node, const struct cow_slice *name,
		     char path[PATH_BYTES])
{
	size_t at = PATH_BYTES - 1;
	bool room = true;

	path[at] = 0;
	if (name != NULL)
		room = prepend(path, &at, (const char *)name->bytes, name->length);
	for (; node != NULL && room; node = node->up)
		if (node->up != NULL && node->up->level == 0)
			room = add_item(r, node->up, node->up_key, path, &at);
	if (!room && at > 3)
		prepend(path, &at, "...", 3);
	return path[at] != 0 ? path + at : strcpy(path, "/");
}

static void say(struct cow_repair *r, struct cow_loss *loss, const struct cow_mended *node,
		const struct cow_slice *name)
{
	char *path;

	r->result->losses++;
	if (r->options->lost == NULL)
		return;
	path = cow_mem_new(PATH_BYTES);
	loss->path = path_of(r, node, name, path);
	r->options->lost(r->options->context, loss);
	free(path);
}

void cow_repair_lost(struct cow_repair *r, const struct cow_mended *node, const struct cow_slice *name, uint64_t block,
		     const char *format, ...)
{
	char text[300];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	say(r, &(struct cow_loss){.block = block, .text = text}, node, name);
}

void cow_repair_lost_range(struct cow_repair *r, const struct cow_mended *node, const struct cow_slice *name,
			   uint64_t block, uint64_t offset, uint64_t length)
{
	char text[120];

	snprintf(text, sizeof(text), "bytes %" PRIu64 " to %" PRIu64 " are lost: reading them answers EIO", offset,
		 offset + length - 1);
	say(r, &(struct cow_loss){.block = block, .offset = offset, .length = length, .text = text}, node, name);
}

void cow_repair_found(struct cow_repair *r, const char *dir, const struct cow_slice *name, bool is_dir)
{
	char path[400];
	const struct cow_loss loss = {
		.path = path,
		.text = is_dir ? "a directory was found whose place is lost: it is here now, unverified at its top"
			       : "a file was found whose name is lost: it is here now",
	};

	snprintf(path, sizeof(path), "/%s/%.*s", dir, (int)name->length, (const char *)name->bytes);
	if (r->options->lost != NULL)
		r->options->lost(r->options->context, &loss);
}

/* ------------------------------------------------------------------ trees */

static int take_root(void *context, uint64_t key, const uint8_t *value, uint32_t length)
{
	uint8_t *bytes = context; /* u32 length, then the value */
	struct cow_dirent entry;
	struct cow_record record;

	if (key != COW_KEY_FIRST || cow_dirent_decode(value, length, &entry) != 0 || entry.is_link ||
	    cow_record_decode(entry.record.bytes, entry.record.length, 0, &record) != 0 || !record.is_world)
		return 0;
	put32(bytes, entry.record.length);
	memcpy(bytes + 4, entry.record.bytes, entry.record.length);
	return 1;
}

/* Mends the tree TOP; a new one if nothing of it is left. */
static void mend_top(struct cow_repair *r, struct cow_mender *mender)
{
	uint8_t bytes[4 + COW_VALUE_MAX], leaf[COW_BLOCK], value[COW_VALUE_MAX];
	struct cow_record root;
	struct cow_mended *top;

	top = cow_mend_tree(mender, r->super.roots[COW_ROOT_TOP], COW_KIND_DIR, NULL, 0);
	if (r->error == 0 && (top == NULL || cow_repair_each(r, top->now, COW_KIND_DIR, take_root, bytes) == 0)) {
		struct cow_ptr new = cow_repair_new_top(r);

		top = r->error == 0 ? cow_mend_tree(mender, new, COW_KIND_DIR, NULL, 0) : NULL;
	}
	if (r->error == 0)
		cow_repair_find_lost(r);
	if (r->error != 0 || top == NULL)
		return;
	r->super.roots[COW_ROOT_TOP] = top->now;
	if (r->kept_count == 0 || cow_repair_each(r, top->now, COW_KIND_DIR, take_root, bytes) == 0 ||
	    cow_record_decode(bytes + 4, get32(bytes), 0, &root) != 0)
		return;
	cow_repair_put_lost(r, &root);
	root.read_only = false;
	cow_build_clear(leaf, COW_KIND_DIR, 0);
	cow_build_leaf_add(leaf, COW_KEY_FIRST, value,
			   cow_dirent_encode_record((struct cow_slice){NULL, 0}, &root, value));
	r->super.roots[COW_ROOT_TOP] = cow_build_write(r, leaf);
}

static void mend_root(struct cow_repair *r, struct cow_mender *mender, unsigned root, uint8_t kind)
{
	const struct cow_mended *m = cow_mend_tree(mender, r->super.roots[root], kind, NULL, 0);

	r->super.roots[root] = m != NULL ? m->now : (struct cow_ptr){0};
}

static void mend_trees(struct cow_repair *r)
{
	struct cow_mender mender = {.repair = r, .what = COW_MEND_ALL, .memo = &r->mended};
	struct cow_map marked = {0};
	struct cow_mender marker = {.repair = r, .what = COW_MEND_MARK, .memo = &marked};

	for (uint32_t i = 0; i < r->super.log.blocks; i++)
		cow_repair_reach(r, cow_layout_ring(r->super.log.start, i));
	/* all that is there has to be marked before something is taken for lost, or for free */
	for (unsigned i = 0; i < COW_ROOTS; i++)
		if (i != COW_ROOT_TOP)
			cow_mend_tree(&marker, r->super.roots[i], r->super.root_kinds[i], NULL, 0);
	cow_mend_tree(&marker, r->super.roots[COW_ROOT_TOP], COW_KIND_DIR, NULL, 0);
	cow_mend_free(&marked);
	mend_root(r, &mender, COW_ROOT_NUMBERS, COW_KIND_NUMBERS);
	mend_root(r, &mender, COW_ROOT_ORPHANS, COW_KIND_DIR);
	mend_top(r, &mender);
	r->super.roots[COW_ROOT_RECLAIM] = (struct cow_ptr){0};
}

static int mend(struct cow_repair *r)
{
	static const uint8_t kinds[COW_ROOTS] = {COW_KIND_RECLAIM, COW_KIND_DIR, COW_KIND_DIR, COW_KIND_NUMBERS};
	uint8_t *user = r->super.user;

	for (unsigned i = 0; i < COW_ROOTS; i++)
		if (r->super.root_kinds[i] != kinds[i])
			r->super.roots[i] = (struct cow_ptr){0};
	memcpy(r->super.root_kinds, kinds, sizeof(kinds));
	r->counters =
		(struct cow_counters){.number = get64(user), .colour = get64(user + 8), .chunk = get64(user + 16)};
	memcpy(r->counters.hash_key, user + 24, sizeof(r->counters.hash_key));
	if (r->counters.number < 2)
		r->counters.number = 2;
	if (r->counters.colour < 1)
		r->counters.colour = 1;
	cow_repair_read_counts(r);
	if (r->error == 0)
		mend_trees(r);
	put64(user, r->counters.number);
	put64(user + 8, r->counters.colour);
	put64(user + 16, r->counters.chunk);
	return r->error;
}

/* ------------------------------------------------------------------ the intent log */

static void silent(void *context, enum cow_log_level level, const char *text)
{
	(void)context, (void)level, (void)text;
}

/* A volume closes its device: this is one that may be closed. */
struct handle {
	struct cow_dev dev;
	struct cow_dev *on;
};

static int handle_read(struct cow_dev *dev, void *buffer, size_t length, uint64_t offset)
{
	return cow_dev_read(((struct handle *)dev)->on, buffer, length, offset);
}

static int handle_write(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset)
{
	return cow_dev_write(((struct handle *)dev)->on, buffer, length, offset);
}

static int handle_flush(struct cow_dev *dev)
{
	return cow_dev_flush(((struct handle *)dev)->on);
}

static int handle_ensure(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	return cow_dev_ensure(((struct handle *)dev)->on, offset, length);
}

static void handle_discard(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	(void)dev, (void)offset, (void)length;
}

static void handle_close(struct cow_dev *dev)
{
	free(dev);
}

static struct cow_dev *handle_on(struct cow_dev *on)
{
	static const struct cow_dev_ops ops = {
		.read = handle_read,
		.write = handle_write,
		.write_through = handle_write,
		.flush = handle_flush,
		.ensure = handle_ensure,
		.discard = handle_discard,
		.close = handle_close,
	};
	struct handle *h = cow_mem_new(sizeof(*h));

	*h = (struct handle){{.ops = &ops, .size_bytes = on->size_bytes}, on};
	return &h->dev;
}

/* Opens the volume on this device, which replays its log and commits that. */
static int replay_on(struct cow_dev *dev)
{
	struct cow_open_options options = {.no_threads = true, .log = silent};
	struct cow_volume *volume;
	int error = cow_volume_open(dev, &options, &volume);

	if (error == 0)
		cow_volume_abandon(volume);
	return error;
}

/* Are there records? *end: behind the last one. */
static bool log_end(struct cow_dev *dev, const struct cow_super *super, uint64_t *end)
{
	return super->log.blocks != 0 && cow_log_read(dev, super, NULL, NULL, end) == 0 && *end != super->log.position;
}

static int stage_super(struct cow_repair *r, uint64_t generation)
{
	uint8_t block[COW_BLOCK];
	uint64_t slot = generation % COW_SUPER_SLOTS;
	int error;

	r->super.generation = generation;
	cow_super_encode(&r->super, block);
	error = cow_dev_write(r->overlay, block, COW_BLOCK, slot << COW_BLOCK_SHIFT);
	return error != 0 ? error
			  : cow_dev_write(r->overlay, block, COW_BLOCK, (slot + COW_SUPER_B) << COW_BLOCK_SHIFT);
}

/*
 * The superblock of the new generation. Records of the log continue the generation that was found: so the mended volume
 * first takes its place on the overlay, and replaying them makes the new one. Where they do not fit any more they are
 * void. After a superblock that decayed they would continue one that is lost.
 */
static int finish(struct cow_repair *r, bool decayed)
{
	uint64_t end, nonce, found = r->super.generation;
	bool unused;
	int error;

	if (log_end(r->dev, &r->super, &end)) {
		error = decayed ? COW_ERR_DAMAGED : stage_super(r, found);
		if (error == 0 && replay_on(cow_overlay_new(r->overlay)) == 0) {
			error = replay_on(handle_on(r->overlay));
			return error != 0 ? error : cow_super_read(r->overlay, &r->super, &unused);
		}
		cow_repair_lost(r, NULL, NULL, 0,
				"the intent log does not fit any more and is dropped: what fsync promised since the "
				"last commit");
		if (getrandom(&nonce, sizeof(nonce), 0) != (ssize_t)sizeof(nonce))
			return -EIO;
		r->super.log.position = end;
		r->super.log.nonce = nonce;
		r->super.log.chain = 0;
	}
	return stage_super(r, r->next_generation);
}

/* ------------------------------------------------------------------ before and after */

struct tally { /* findings by number */
	uint64_t count[COW_FIND_COUNT], all;
	const struct cow_repair_options *options;
};

static void tally(void *context, const struct cow_finding *finding)
{
	struct tally *t = context;

	t->count[finding->number]++;
	if (t->options->finding != NULL)
		t->options->finding(t->options->context, finding);
}

static void progress(void *context, uint64_t done, uint64_t used)
{
	const struct tally *t = context;

	if (t->options->progress != NULL)
		t->options->progress(t->options->context, done, used);
}

static int check(struct cow_dev *dev, struct tally *t)
{
	struct cow_check_options options = {.finding = tally, .progress = progress, .context = t};
	struct cow_check_result result;
	int error = cow_check_device(dev, &options, &result);

	t->all = result.findings;
	return error;
}

static uint64_t sum(const struct tally *t, int from, int to)
{
	uint64_t all = 0;

	for (int i = from; i <= to; i++)
		all += t->count[i];
	return all;
}

static int write_counts(void *context, struct cow_check *found)
{
	return cow_repair_write_counts(context, found);
}

/* ------------------------------------------------------------------ writing */

/* Of the ring, only the slot of the new generation: what else is staged there is for replaying. */
static uint64_t *list_blocks(const struct cow_repair *r, size_t *count)
{
	uint64_t *blocks = cow_overlay_list(r->overlay, count), slot = r->super.generation % COW_SUPER_SLOTS;
	size_t kept = 0;

	for (size_t i = 0; i < *count; i++)
		if (blocks[i] >= COW_SLOT_FIRST || blocks[i] == slot || blocks[i] == slot + COW_SUPER_B)
			blocks[kept++] = blocks[i];
	*count = kept;
	return blocks;
}

static int write_blocks(struct cow_repair *r, const uint64_t *blocks, size_t count)
{
	int error = 0;

	for (size_t i = 0; i < count && error == 0; i++)
		if (blocks[i] >= COW_SLOT_FIRST)
			error = cow_dev_write(r->dev, cow_overlay_block(r->overlay, blocks[i]), COW_BLOCK,
					      blocks[i] << COW_BLOCK_SHIFT);
	return error;
}

static int publish(struct cow_repair *r, uint64_t before)
{
	struct cow_undo undo = {.before = before, .after = r->super.generation};
	size_t count;
	uint64_t *blocks = list_blocks(r, &count);
	int error = 0;

	memcpy(undo.uuid, r->super.uuid, sizeof(undo.uuid));
	for (size_t i = 0; i < count && error == 0; i++)
		error = cow_dev_ensure(r->dev, blocks[i] << COW_BLOCK_SHIFT, COW_BLOCK);
	if (error == 0 && r->options->undo_path != NULL)
		error = cow_undo_save(r->options->undo_path, &undo, r->dev, blocks, count);
	if (error == 0)
		error = write_blocks(r, blocks, count);
	if (error == 0)
		error = cow_dev_flush(r->dev);
	if (error == 0)
		error = cow_super_write(r->dev, &r->super);
	if (error == 0)
		error = cow_dev_flush(r->dev);
	r->result->blocks = count;
	r->result->written = error == 0;
	free(blocks);
	return error;
}

/* ------------------------------------------------------------------ the whole */

static void free_values(struct cow_map *map)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(map, &i)) != NULL;)
		free(slot->value);
	cow_map_free(map);
}

static void free_repair(struct cow_repair *r)
{
	cow_mend_free(&r->mended);
	free_values(&r->stored);
	free_values(&r->reached);
	free_values(&r->files);
	free_values(&r->worlds);
	cow_map_free(&r->kept_hashes);
	cow_map_free(&r->kept_names);
	free(r->kept);
	free(r->unknown);
	cow_dev_close(r->overlay);
}

/* Builds the new generation on the overlay and judges it. 1: it is worth writing. */
static int build(struct cow_repair *r, const struct tally *before, bool decayed)
{
	struct cow_repair_options quiet = {0};
	struct tally after = {.options = &quiet};
	int error = mend(r);

	if (error == 0)
		error = cow_check_count(r->overlay, &r->super, write_counts, r);
	if (error == 0)
		error = finish(r, decayed);
	if (error == 0)
		error = check(r->overlay, &after);
	if (error != 0)
		return error;
	r->result->left = after.all;
	/* superblock, counts, nodes: if these are not sound, what was made is worth nothing */
	if (sum(&after, 1, 30) != 0)
		return COW_ERR_DAMAGED;
	return after.all < before->all ? 1 : 0;
}

static int repair(struct cow_repair *r, const struct tally *before, bool decayed)
{
	uint64_t found = r->super.generation;
	int result;

	/* Over a decayed superblock: so the same slot, but a generation that none of it can have had. */
	r->generation = found;
	r->next_generation = found + (decayed ? 1 + COW_SUPER_SLOTS : 1);
	r->links_wrong = sum(before, COW_FIND_LINK_SUMS, COW_FIND_LINKS_LEFT) != 0;
	result = build(r, before, decayed);
	if (result == 1 && !r->options->dry_run)
		return publish(r, found);
	if (result != 1)
		r->result->left = before->all;
	return result == 1 ? 0 : result;
}

int cow_repair_device(struct cow_dev *dev, const struct cow_repair_options *options, struct cow_repair_result *result)
{
	static const struct cow_repair_options none;
	struct cow_repair r = {.dev = dev, .options = options != NULL ? options : &none, .result = result};
	struct tally before = {.options = r.options};
	bool decayed = false;
	int error;

	*result = (struct cow_repair_result){0};
	error = check(dev, &before);
	if (error == 0)
		error = cow_super_read(dev, &r.super, &decayed);
	if (error != 0)
		return error;
	if ((r.super.ro_compat & ~(uint64_t)COW_RO_COMPAT_KNOWN) != 0)
		return COW_ERR_NEWER; /* may be read, but not written by us */
	if (r.super.generation >= COW_GENERATION_LAST)
		return COW_ERR_DAMAGED;
	result->findings = result->left = before.all;
	if (before.all == 0)
		return 0;
	r.overlay = cow_overlay_new(dev);
	error = repair(&r, &before, decayed);
	free_repair(&r);
	return error;
}

/* ------------------------------------------------------------------ on a path */

static int open_device(const char *path, bool write, struct cow_dev **dev)
{
	int error = cow_dev_file_open(path, write ? COW_DEV_WRITE : COW_DEV_READ, dev);

	return error == -EBUSY ? COW_ERR_BUSY : error;
}

int cow_repair(const char *path, const struct cow_repair_options *options, struct cow_repair_result *result)
{
	struct tally after = {.options = &(struct cow_repair_options){0}};
	struct cow_dev *dev;
	int error = open_device(path, options == NULL || !options->dry_run, &dev);

	*result = (struct cow_repair_result){0};
	if (error != 0)
		return error;
	error = cow_repair_device(dev, options, result);
	if (error == 0 && result->written) {
		/* once more, as it is on the device now: if that took the writes badly, it gets back what it had */
		error = check(dev, &after);
		if (error == 0 && after.all != result->left)
			error = -EIO;
		if (error != 0 && options != NULL && options->undo_path != NULL &&
		    cow_undo_restore(options->undo_path, dev) == 0)
			result->written = false;
	}
	cow_dev_close(dev);
	return error;
}

int cow_repair_undo(const char *path, const char *undo_path)
{
	struct cow_dev *dev;
	int error = open_device(path, true, &dev);

	if (error != 0)
		return error;
	error = cow_undo_restore(undo_path, dev);
	cow_dev_close(dev);
	return error;
}
