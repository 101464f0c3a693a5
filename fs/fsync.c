/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fsync: one record in the intent log, one write, which is durable when it returns. It holds every operation noted
 * since the last record and the changed bytes of the file; it costs the same whatever else is dirty in the volume.
 *
 * A record is made under the gate, so that it lies on one side of a seal, and under the lock, so that what it says is
 * one moment of the volume. Who comes while one is being written waits, and the next record is for all who wait.
 *
 * Where the log cannot say it, or has no room, fsync is a commit.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/data/file.h"
#include "fs/core/volume.h"

#define COMMIT 1 /* the answer: a commit must do it */
#define RECORD_BYTES_MAX (1u << 20)

struct cow_waiter {
	struct cow_inode *inode;
	struct cow_waiter *next;
	bool done;
	int result; /* COMMIT too */
};

/* A record being made. */
struct record {
	struct cow_bytes bytes; /* payload */
	size_t limit;
	uint64_t position;
};

/* ------------------------------------------------------------------ what to say */

/* The bytes of one range, in pieces that fit the file as it is. */
static int add_range(struct cow_op *op, struct cow_inode *file, struct cow_range range, size_t limit,
		     struct cow_bytes *to)
{
	uint8_t *bytes;
	int error;

	if (range.end > file->size)
		range.end = file->size;
	if (range.from >= range.end)
		return 0;
	if (range.end - range.from > limit)
		return COMMIT;
	bytes = malloc(range.end - range.from);
	if (bytes == NULL)
		return -ENOMEM;
	error = cow_file_peek(op, file, range.from, range.end - range.from, bytes);
	if (error == 0)
		cow_intent_add_range(to, range.from, bytes, (uint32_t)(range.end - range.from));
	free(bytes);
	return error;
}

static int add_content(struct cow_op *op, struct cow_inode *file, const struct cow_written *change, struct record *r)
{
	struct cow_intent intent = {
		.type = COW_INTENT_FILE, .generation = op->store->generation, .number = op->volume->counters.number,
		.low = change->low < file->size ? change->low : file->size, .size = file->size, .mode = file->mode,
		.uid = file->uid, .gid = file->gid, .atime = file->atime, .mtime = file->mtime, .ctime = file->ctime,
		.btime = file->btime,
	};
	struct cow_bytes ranges = {0};
	int error = cow_spot_of(file, &intent.spot) ? 0 : COMMIT;

	for (unsigned i = 0; i < change->count && error == 0; i++) {
		error = add_range(op, file, change->ranges[i], r->limit, &ranges);
		if (error == 0 && r->bytes.length + ranges.length > r->limit)
			error = COMMIT;
	}
	if (error == 0) {
		intent.bytes = (struct cow_slice){ranges.bytes, (uint32_t)ranges.length};
		cow_intent_encode(&intent, &r->bytes);
	}
	free(ranges.bytes);
	return error;
}

static int add_file(struct cow_op *op, struct cow_inode *file, struct record *r)
{
	struct cow_written change;
	int error = 0;

	if (file->place == COW_ORPHAN || cow_inode_check_live(file) != 0)
		return 0; /* no name leads to it: nothing of it can be seen after a crash */
	if (cow_notes_change_of(op->volume, file, &change))
		error = add_content(op, file, &change, r);
	free(change.ranges);
	return error;
}

static int add_list(const struct cow_note_list *list, struct record *r)
{
	size_t length = list->bytes.length - list->logged;

	if (r->bytes.length + length > r->limit)
		return COMMIT;
	if (length != 0)
		cow_bytes_add(&r->bytes, list->bytes.bytes + list->logged, length);
	return 0;
}

/* Everything: operations first, so that the places of the files are the ones they have now. */
static int fill(struct cow_op *op, struct record *r)
{
	const struct cow_notes *notes = &op->volume->notes;
	const struct cow_note_list *lists[2] = {&notes->sealed, &notes->open};
	const struct cow_counters *c = &op->volume->counters;
	struct cow_intent_head head = {c->number, c->colour, c->chunk};
	int error = 0;

	r->bytes.length = 0;
	if (notes->limit == 0 || notes->sealed.commit || notes->open.commit || !op->store->log.usable)
		return COMMIT;
	cow_intent_head_encode(&head, &r->bytes);
	for (unsigned k = 0; k < 2 && error == 0; k++)
		error = add_list(lists[k], r);
	for (unsigned k = 0; k < 2; k++)
		for (size_t i = 0; i < lists[k]->carried_count && error == 0; i++)
			error = add_file(op, lists[k]->carried[i], r);
	for (struct cow_waiter *w = op->volume->waiting; w != NULL && error == 0; w = w->next)
		error = add_file(op, w->inode, r);
	if (error == 0 && !cow_log_fits(&op->store->log, r->bytes.length))
		error = COMMIT;
	return error;
}

/* ------------------------------------------------------------------ writing it */

static void mark_list(struct cow_volume *volume, struct cow_note_list *list)
{
	list->logged = list->bytes.length;
	for (size_t i = 0; i < list->carried_count; i++) {
		cow_notes_change_logged(volume, list->carried[i]);
		cow_inode_put(list->carried[i], 1);
	}
	list->carried_count = 0;
}

/* The record takes its place in the log. */
static int append(struct cow_op *op, struct record *r)
{
	struct cow_volume *volume = op->volume;
	struct cow_log_buffer *buffer = &volume->log_buffer;
	size_t need = (size_t)cow_log_blocks(r->bytes.length) * COW_BLOCK;

	if (buffer->size < need) {
		free(buffer->bytes);
		buffer->bytes = aligned_alloc(COW_BLOCK, need);
		buffer->size = buffer->bytes != NULL ? need : 0;
		if (buffer->bytes == NULL)
			return COMMIT;
	}
	memcpy(buffer->bytes + COW_LOG_HEADER, r->bytes.bytes, r->bytes.length);
	r->position = cow_log_append(&op->store->log, buffer->bytes, r->bytes.length);
	mark_list(volume, &volume->notes.sealed);
	mark_list(volume, &volume->notes.open);
	for (struct cow_waiter *w = volume->waiting; w != NULL; w = w->next)
		cow_notes_change_logged(volume, w->inode);
	if (cow_log_is_filling(&op->store->log))
		cow_volume_wake(volume, true);
	return 0;
}

static void answer(struct cow_waiter *list, int result)
{
	for (struct cow_waiter *next; list != NULL; list = next) {
		next = list->next;
		list->result = result;
		list->done = true;
	}
}

/*
 * [locked] No end of the volume: the ring may be where the host has no space, or in a bad place. A commit says the
 * same, and if that cannot be written either, it is the end. Until one is durable no record follows: nobody would find
 * it.
 */
static void give_up_record(struct cow_volume *volume, int error)
{
	struct cow_log *log = &volume->store->log;

	if (log->broken == 0)
		cow_volume_log(volume, COW_LOG_WARNING, "intent log: %s: fsync is a commit where it cannot be written",
			       cow_error_text(error));
	cow_log_break(log);
}

/* [log held] For all who wait now. */
static void serve(struct cow_volume *volume)
{
	struct cow_store *store = volume->store;
	struct record r = {.limit = RECORD_BYTES_MAX};
	struct cow_waiter *served;
	struct cow_op op;
	bool empty = false, failed = false;
	int error;

	if (r.limit > volume->notes.limit)
		r.limit = volume->notes.limit;
	cow_op_begin_read(&op, volume);
	do
		error = fill(&op, &r);
	while (error == COW_MISS && (error = cow_op_fill(&op)) == 0);
	if (error != 0)
		error = COMMIT; /* also where a block cannot be read: a commit does not have to */
	empty = error == 0 && r.bytes.length == COW_INTENT_HEAD;
	if (error == 0 && !empty)
		error = append(&op, &r);
	served = volume->waiting;
	volume->waiting = NULL;
	cow_op_end(&op);
	if (error == 0 && !empty) {
		error = cow_log_write(&store->log, volume->log_buffer.bytes, r.bytes.length, r.position);
		failed = error != 0;
	}
	free(r.bytes.bytes);
	pthread_mutex_lock(&store->lock);
	if (failed) {
		give_up_record(volume, error);
		error = COMMIT;
	}
	answer(served, error);
	pthread_mutex_unlock(&store->lock);
}

int cow_fsync(struct cow_inode *inode)
{
	struct cow_volume *volume = inode->volume;
	struct cow_waiter self = {.inode = inode};

	if (cow_inode_is_dir(inode) || volume->store->read_only || volume->notes.limit == 0)
		return cow_sync(volume);
	pthread_mutex_lock(&volume->store->lock);
	self.next = volume->waiting;
	volume->waiting = &self;
	pthread_mutex_unlock(&volume->store->lock);
	pthread_mutex_lock(&volume->log);
	if (!self.done)
		serve(volume);
	pthread_mutex_unlock(&volume->log);
	return self.result == COMMIT ? cow_sync(volume) : self.result;
}
