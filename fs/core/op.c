/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/core/op.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/array.h"
#include "fs/core/reservation.h"
#include "fs/core/volume.h"
#include "fs/format/record.h"
#include "store/node.h"

void cow_op_begin_read(struct cow_op *op, struct cow_volume *volume)
{
	*op = (struct cow_op){.volume = volume, .store = volume->store};
	pthread_rwlock_rdlock(&op->store->gate);
	pthread_mutex_lock(&op->store->lock);
	op->locked = true;
	if (volume->replaying)
		op->now = (struct timespec){volume->replayed.seconds, volume->replayed.nanoseconds};
	else
		clock_gettime(CLOCK_REALTIME, &op->now);
}

static int fill_data(struct cow_op *op)
{
	uint64_t block = op->store->miss.block;
	uint32_t sum = op->store->miss.sum;
	struct cow_op_data *data = malloc(sizeof(*data));
	int error;

	if (data == NULL)
		return -ENOMEM;
	pthread_mutex_unlock(&op->store->lock);
	error = cow_dev_read(op->store->dev, data->bytes, COW_BLOCK, block << COW_BLOCK_SHIFT);
	if (error == 0 && cow_extent_sum(data->bytes) != sum) {
		cow_volume_log(op->volume, COW_LOG_ERROR, "file data at block %llu: checksum does not fit",
			       (unsigned long long)block);
		error = -EIO;
	}
	pthread_mutex_lock(&op->store->lock);
	if (error != 0) {
		free(data);
		return error;
	}
	data->block = block;
	data->next = op->data;
	op->data = data;
	return 0;
}

static int fill(struct cow_op *op)
{
	struct cow_node *pin;
	int error;

	if (op->store->miss.what == COW_MISS_DATA)
		return fill_data(op);
	if (op->store->miss.what == COW_MISS_ROOM)
		op->reservation.missing = op->store->miss.blocks;
	error = cow_store_fill(op->store, &pin);
	if (error == 0 && pin != NULL) {
		COW_ARRAY_GROW(op->pins, op->pin_count, op->pin_size);
		op->pins[op->pin_count++] = pin;
	}
	return error;
}

int cow_op_fill(struct cow_op *op)
{
	int error = fill(op);

	/* A change that cannot go on may be half done (a hole punched through many extents), and nobody noted that
	 * half. */
	if (error != 0 && op->changes)
		cow_note_commit(op->volume);
	return error;
}

int cow_op_data(struct cow_op *op, uint64_t block, uint32_t sum, const uint8_t **bytes)
{
	for (struct cow_op_data *data = op->data; data != NULL; data = data->next)
		if (data->block == block) {
			*bytes = data->bytes;
			return 0;
		}
	op->store->miss = (struct cow_miss){.what = COW_MISS_DATA, .block = block, .sum = sum};
	return COW_MISS;
}

void cow_op_unlock(struct cow_op *op)
{
	pthread_mutex_unlock(&op->store->lock);
	op->locked = false;
}

void cow_op_end(struct cow_op *op)
{
	if ((op->pin_count > 0 || op->reservation.blocks > 0) && !op->locked) {
		pthread_mutex_lock(&op->store->lock);
		op->locked = true;
	}
	while (op->pin_count > 0)
		cow_node_unpin(op->pins[--op->pin_count]);
	if (op->locked) {
		cow_reservation_give(op);
		cow_node_evict(op->store);
		pthread_mutex_unlock(&op->store->lock);
	}
	pthread_rwlock_unlock(&op->store->gate);
	free(op->pins);
	while (op->data != NULL) {
		struct cow_op_data *next = op->data->next;
		free(op->data);
		op->data = next;
	}
}

static int call(struct cow_op *op, cow_op_fn body, void *args)
{
	int result;

	op->store->at_work = op->changes ? &op->reservation : NULL;
	op->reservation.lists = 0;
	result = body(op, args);
	op->store->at_work = NULL;
	return result;
}

int cow_op_run(struct cow_op *op, cow_op_fn body, void *args)
{
	int result;

	while ((result = call(op, body, args)) == COW_MISS)
		if ((result = cow_op_fill(op)) != 0)
			break;
	cow_op_end(op);
	return result;
}

int cow_op_read(struct cow_volume *volume, cow_op_fn body, void *args)
{
	struct cow_op op;

	cow_op_begin_read(&op, volume);
	return cow_op_run(&op, body, args);
}
