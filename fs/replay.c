/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/replay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "fs/change.h"
#include "fs/format/intent.h"
#include "fs/world/dir.h"
#include "fs/world/inode_number.h"

struct replay {
	struct cow_volume *volume;
	uint64_t count;
	struct cow_intent_head head; /* of the record at work */
};

/* ------------------------------------------------------------------ places */

struct place_args {
	struct cow_volume *volume;
	const struct cow_spot *spot;
	struct cow_inode *inode;
};

static int step(struct cow_inode *at, uint64_t key, bool link, struct cow_inode **next)
{
	struct cow_found found = {.key = key, .entry = {.is_link = link, .link_key = key}};
	struct cow_item item;
	int error = 0;

	if (!cow_inode_is_dir(at) || (link && !at->is_world))
		return COW_ERR_DAMAGED;
	if (!link)
		error = cow_tree_get(at->volume->store, &at->tree, key, &item);
	if (error == 0 && !link)
		error = cow_dirent_decode(item.value, item.length, &found.entry);
	if (error == 0 && !link && found.entry.is_link)
		error = COW_ERR_DAMAGED;
	return error != 0 ? error : cow_dir_child(at, &found, next);
}

static int find_place(struct cow_op *op, void *v)
{
	struct place_args *a = v;
	struct cow_inode *at = a->volume->root, *next;
	int error = 0;

	(void)op;
	cow_inode_get(at);
	for (unsigned i = 0; i < a->spot->depth && error == 0; i++) {
		error = step(at, a->spot->keys[i], a->spot->linked && i + 1u == a->spot->depth, &next);
		if (error == 0) {
			cow_inode_put(at, 1);
			at = next;
		}
	}
	if (error == 0 && at->number != a->spot->number)
		error = COW_ERR_DAMAGED;
	if (error != 0)
		cow_inode_put(at, 1);
	else
		a->inode = at;
	return error == -ENOENT ? COW_ERR_DAMAGED : error;
}

static int place(struct cow_volume *volume, const struct cow_spot *spot, struct cow_inode **inode)
{
	struct place_args args = {volume, spot, NULL};
	int error = cow_op_read(volume, find_place, &args);

	*inode = args.inode;
	return error;
}

/* ------------------------------------------------------------------ one intent */

struct names {
	char name[COW_NAME_BYTES_MAX + 1], to_name[COW_NAME_BYTES_MAX + 1];
};

static void copy_name(struct cow_slice from, char *to)
{
	if (from.length != 0)
		memcpy(to, from.bytes, from.length);
	to[from.length] = 0;
}

static struct timespec time_of(struct cow_when when)
{
	return (struct timespec){.tv_sec = when.seconds, .tv_nsec = when.nanoseconds};
}

static void fill_attr(const struct cow_intent *intent, struct cow_attr *attr)
{
	*attr = (struct cow_attr){
		.mode = intent->mode, .uid = intent->uid, .gid = intent->gid, .size = intent->size,
		.atime = time_of(intent->atime), .mtime = time_of(intent->mtime), .ctime = time_of(intent->ctime),
		.btime = time_of(intent->btime),
	};
}

static int replay_create(const struct cow_intent *intent, struct cow_inode *dir, const char *name)
{
	struct cow_new new = {.mode = intent->mode, .uid = intent->uid, .gid = intent->gid, .rdev = intent->rdev};
	char *target = NULL;
	int error;

	if (intent->bytes.length != 0) {
		target = cow_mem_new(intent->bytes.length + 1);
		memcpy(target, intent->bytes.bytes, intent->bytes.length);
		new.target = target;
	}
	error = cow_create(dir, name, &new, NULL, NULL);
	free(target);
	return error;
}

static int replay_file(const struct cow_intent *intent, struct cow_inode *file)
{
	const unsigned owner = COW_SET_MODE | COW_SET_UID | COW_SET_GID;
	const unsigned times = COW_SET_ATIME | COW_SET_MTIME | COW_SET_CTIME | COW_SET_BTIME;
	struct cow_slice ranges = intent->bytes;
	struct cow_intent_range range;
	struct cow_attr attr, now;
	int error = cow_getattr(file, &now);

	fill_attr(intent, &attr);
	if (error == 0 && (now.mode & S_IFMT) != (intent->mode & S_IFMT))
		return COW_ERR_DAMAGED;
	if (error == 0 && S_ISREG(now.mode) && intent->low < now.size) {
		now.size = intent->low;
		error = cow_setattr(file, &now, COW_SET_SIZE, NULL);
	}
	if (error == 0 && S_ISREG(now.mode))
		error = cow_setattr(file, &attr, COW_SET_SIZE, NULL);
	while (error == 0 && cow_intent_next_range(&ranges, &range)) {
		int64_t done = cow_write(file, range.bytes.bytes, range.bytes.length, range.offset, false);
		error = done < 0 ? (int)done : 0;
	}
	return error != 0 ? error : cow_setattr(file, &attr, owner | times, NULL);
}

static int replay_on(const struct cow_intent *intent, struct cow_inode *inode, struct cow_inode *to)
{
	struct cow_attr attr;
	struct names n;

	copy_name(intent->name, n.name);
	copy_name(intent->to_name, n.to_name);
	switch (intent->type) {
	case COW_INTENT_CREATE:
		return replay_create(intent, inode, n.name);
	case COW_INTENT_LINK:
		return cow_link(inode, to, n.name, NULL);
	case COW_INTENT_UNLINK:
		return cow_unlink(inode, n.name);
	case COW_INTENT_RMDIR:
		return cow_rmdir(inode, n.name);
	case COW_INTENT_RENAME:
		return cow_rename(inode, n.name, to, n.to_name, intent->flags);
	case COW_INTENT_ATTR:
		fill_attr(intent, &attr);
		return cow_setattr(inode, &attr, intent->flags | COW_SET_CTIME, NULL);
	case COW_INTENT_SET_XATTR:
		return cow_setxattr(inode, n.name, intent->bytes.bytes, intent->bytes.length, 0);
	case COW_INTENT_DROP_XATTR:
		return cow_removexattr(inode, n.name);
	default:
		return replay_file(intent, inode);
	}
}

struct row_args {
	struct cow_volume *volume;
	const struct cow_row *row;
};

static int put_row(struct cow_op *op, void *v)
{
	(void)op;
	return cow_number_restore(((struct row_args *)v)->volume, ((struct row_args *)v)->row);
}

static int replay_row(struct replay *r, const struct cow_intent *intent)
{
	struct row_args args = {r->volume, &intent->row};
	uint64_t end = intent->row.type == COW_ROW_CHUNK ? r->head.chunk : r->head.colour;

	return intent->row.value < end ? cow_op_change(r->volume, 0, false, put_row, &args) : COW_ERR_DAMAGED;
}

static int replay_intent(struct replay *r, const struct cow_intent *intent)
{
	struct cow_volume *volume = r->volume;
	struct cow_inode *inode = NULL, *to = NULL;
	bool two = intent->type == COW_INTENT_LINK || intent->type == COW_INTENT_RENAME;
	int error = 0;

	if (intent->number < volume->counters.number || intent->number > r->head.number)
		return COW_ERR_DAMAGED;
	volume->counters.number = intent->number;
	volume->replayed = intent->now;
	if (intent->type == COW_INTENT_ROW)
		return replay_row(r, intent);
	error = place(volume, &intent->spot, &inode);
	if (error == 0 && two)
		error = place(volume, &intent->to, &to);
	if (error == 0)
		error = replay_on(intent, inode, to);
	cow_forget(inode, 1);
	cow_forget(to, 1);
	return error;
}

/* ------------------------------------------------------------------ the log */

static int replay_record(void *v, const uint8_t *payload, size_t length)
{
	struct replay *r = v;
	struct cow_counters *counters = &r->volume->counters;
	struct cow_intent intent;
	size_t used;
	int error = cow_intent_validate(payload, length, &r->head);

	if (error == 0 && (r->head.number < counters->number || r->head.colour < counters->colour ||
			   r->head.chunk < counters->chunk || r->head.number > COW_NUMBER_MAX ||
			   r->head.colour > COW_NUMBER_MAX || r->head.chunk > COW_CHUNK_MAX))
		error = COW_ERR_DAMAGED;
	if (error == 0) { /* numbers that were given out are not given again */
		counters->colour = r->head.colour;
		counters->chunk = r->head.chunk;
	}
	for (size_t at = COW_INTENT_HEAD; at < length && error == 0; at += used) {
		error = cow_intent_decode(payload + at, length - at, &intent, &used);
		if (error != 0 || intent.generation <= r->volume->store->super.generation)
			continue; /* done: the generation has it */
		error = replay_intent(r, &intent);
		if (error != 0)
			cow_volume_log(r->volume, COW_LOG_ERROR, "intent log: operation %llu of type %d answers: %s",
				       (unsigned long long)r->count, (int)intent.type, cow_error_text(error));
		r->count++;
	}
	if (error == 0)
		counters->number = r->head.number;
	return error;
}

int cow_replay(struct cow_volume *volume, uint64_t *count, uint64_t *end)
{
	struct replay r = {.volume = volume};
	int error;

	volume->replaying = true;
	error = cow_log_read(volume->dev, &volume->store->super, replay_record, &r, end);
	volume->replaying = false;
	cow_number_forget(volume); /* with the commit that follows all inodes go, too, but for: */
	volume->root->ino = 0;
	*count = r.count;
	/* What an operation answers in words of POSIX is not what its caller asked for: the log does not fit. */
	return error == 0 || error == -EIO || error == -ENOMEM || error == -ENOSPC ? error : COW_ERR_DAMAGED;
}

static int one(void *context, const uint8_t *payload, size_t length)
{
	(void)payload;
	(void)length;
	*(bool *)context = true;
	return 0; /* go on: are all of them readable? */
}

int cow_replay_needed(struct cow_dev *dev, const struct cow_super *super, bool *needed)
{
	uint64_t end;

	*needed = false;
	return cow_log_read(dev, super, one, needed, &end);
}
