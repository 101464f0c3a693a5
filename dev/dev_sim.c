/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dev/dev_sim.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/map.h"
#include "base/mem.h"

#define BLOCK 4096u
#define SHIFT 12
#define SECTOR 512u
#define DISCARDED 0xdb

struct chunk { /* immutable once it is shared */
	atomic_uint refs;
	_Atomic uint64_t hash; /* of the bytes; 0: not computed yet */
	uint8_t bytes[BLOCK];
};

enum kind { WRITE, FLUSH, DISCARD, THROUGH };

struct event {
	enum kind kind;
	uint64_t block;
	struct chunk *chunk; /* WRITE, DISCARD */
	uint64_t through;    /* WRITE: number of the event that made it durable without a flush, or 0 */
};

struct failure {
	uint64_t nth, more;
	int error;
};

struct sim {
	struct cow_dev dev;
	pthread_mutex_t lock;

	/* all below: lock */
	struct cow_map live; /* block -> chunk; absent: zeros */
	struct cow_map base; /* the state after event base_at - 1: all of them arrived */
	uint64_t base_at;
	struct cow_map start; /* the state at event 0 */
	struct event *log;
	size_t count, size;
	struct failure failures[COW_SIM_CALLS];
	bool lie;
	uint8_t *taken; /* bit a block: takes space on the host */
	uint64_t host_limit, host_used;
	struct cow_sim_stats stats;
	cow_sim_hook_fn *hook;
	void *hook_context;
};

static struct sim *sim_of(struct cow_dev *dev)
{
	return (struct sim *)dev;
}

/* ------------------------------------------------------------------ blocks */

static struct chunk *new_chunk(const void *bytes)
{
	struct chunk *chunk = cow_mem_new(sizeof(*chunk));

	atomic_init(&chunk->refs, 1);
	memcpy(chunk->bytes, bytes, BLOCK);
	return chunk;
}

static struct chunk *hold(struct chunk *chunk)
{
	atomic_fetch_add(&chunk->refs, 1);
	return chunk;
}

static void drop(struct chunk *chunk)
{
	if (chunk != NULL && atomic_fetch_sub(&chunk->refs, 1) == 1)
		free(chunk);
}

/* The map takes over the reference. */
static void set_block(struct cow_map *map, uint64_t block, struct chunk *chunk)
{
	drop(cow_map_get(map, block));
	cow_map_put(map, block, chunk);
}

static void copy_map(const struct cow_map *from, struct cow_map *to)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(from, &i)) != NULL;)
		set_block(to, slot->key, hold(slot->value));
}

static void clear_map(struct cow_map *map)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(map, &i)) != NULL;)
		drop(slot->value);
	cow_map_free(map);
}

/* ------------------------------------------------------------------ the log */

static void log_event(struct sim *sim, enum kind kind, uint64_t block, struct chunk *chunk)
{
	if (sim->count == sim->size) {
		sim->size = sim->size != 0 ? sim->size * 2 : 256;
		sim->log = cow_mem_resize(sim->log, sim->size * sizeof(*sim->log));
	}
	sim->log[sim->count++] = (struct event){kind, block, chunk != NULL ? hold(chunk) : NULL, 0};
}

static void clear_log(struct sim *sim)
{
	for (size_t i = 0; i < sim->count; i++)
		drop(sim->log[i].chunk);
	sim->count = 0;
	clear_map(&sim->base);
	clear_map(&sim->start);
	sim->base_at = 0;
}

static uint64_t flushed(const struct sim *sim, uint64_t at)
{
	while (at > 0 && sim->log[at - 1].kind != FLUSH)
		at--;
	return at;
}

/* Brings `base` to where all events before `at` have happened. */
static void move_base(struct sim *sim, uint64_t at)
{
	if (sim->base_at > at) {
		clear_map(&sim->base);
		copy_map(&sim->start, &sim->base);
		sim->base_at = 0;
	}
	for (; sim->base_at < at; sim->base_at++) {
		const struct event *event = &sim->log[sim->base_at];

		if (event->chunk != NULL)
			set_block(&sim->base, event->block, hold(event->chunk));
	}
}

/* ------------------------------------------------------------------ failures */

static bool get_taken(const struct sim *sim, uint64_t block)
{
	return (sim->taken[block / 8] >> block % 8 & 1) != 0;
}

static int take_host(struct sim *sim, uint64_t block)
{
	if (get_taken(sim, block))
		return 0;
	if (sim->host_used >= sim->host_limit)
		return -ENOSPC;
	sim->taken[block / 8] |= (uint8_t)(1u << block % 8);
	sim->host_used++;
	return 0;
}

static int count_call(struct sim *sim, enum cow_sim_call call)
{
	struct failure *failure = &sim->failures[call];

	sim->stats.calls[call]++;
	if (failure->nth == 0)
		return 0;
	if (failure->nth > 1) {
		failure->nth--;
		return 0;
	}
	if (failure->more == 0)
		failure->nth = 0;
	else if (failure->more != UINT64_MAX)
		failure->more--;
	return failure->error;
}

/* ------------------------------------------------------------------ the device */

static void check_range(const struct cow_dev *dev, uint64_t length, uint64_t offset)
{
	assert(offset % BLOCK == 0 && length % BLOCK == 0);
	assert(offset <= dev->size_bytes && length <= dev->size_bytes - offset);
}

static void call_hook(struct sim *sim, enum cow_sim_call call, uint64_t block, uint64_t blocks)
{
	if (sim->hook != NULL)
		sim->hook(sim->hook_context, call, block, blocks);
}

static int sim_read(struct cow_dev *dev, void *buffer, size_t length, uint64_t offset)
{
	struct sim *sim = sim_of(dev);
	uint8_t *to = buffer;
	int result;

	check_range(dev, length, offset);
	call_hook(sim, COW_SIM_READ, offset >> SHIFT, length >> SHIFT);
	pthread_mutex_lock(&sim->lock);
	result = count_call(sim, COW_SIM_READ);
	for (uint64_t block = offset >> SHIFT; result == 0 && length > 0; block++, to += BLOCK, length -= BLOCK) {
		const struct chunk *chunk = cow_map_get(&sim->live, block);

		if (chunk != NULL)
			memcpy(to, chunk->bytes, BLOCK);
		else
			memset(to, 0, BLOCK);
		sim->stats.blocks_read++;
	}
	pthread_mutex_unlock(&sim->lock);
	return result;
}

static int write_blocks(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset, bool through)
{
	struct sim *sim = sim_of(dev);
	const uint8_t *from = buffer;
	size_t first;
	int result;

	check_range(dev, length, offset);
	call_hook(sim, COW_SIM_WRITE, offset >> SHIFT, length >> SHIFT);
	pthread_mutex_lock(&sim->lock);
	result = count_call(sim, COW_SIM_WRITE);
	first = sim->count;
	if (result != 0)
		length = length / BLOCK / 2 * BLOCK; /* a part of it arrived */
	for (uint64_t block = offset >> SHIFT; length > 0; block++, from += BLOCK, length -= BLOCK) {
		int full = take_host(sim, block);

		if (full != 0) {
			result = full;
			break;
		}
		set_block(&sim->live, block, new_chunk(from));
		log_event(sim, WRITE, block, cow_map_get(&sim->live, block));
		sim->stats.blocks_written++;
	}
	if (through && result == 0 && !sim->lie) {
		for (size_t i = first, end = sim->count; i < end; i++)
			sim->log[i].through = end;
		log_event(sim, THROUGH, 0, NULL);
	}
	pthread_mutex_unlock(&sim->lock);
	return result;
}

static int sim_write(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset)
{
	return write_blocks(dev, buffer, length, offset, false);
}

static int sim_write_through(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset)
{
	return write_blocks(dev, buffer, length, offset, true);
}

static int sim_flush(struct cow_dev *dev)
{
	struct sim *sim = sim_of(dev);
	int result;

	call_hook(sim, COW_SIM_FLUSH, 0, 0);
	pthread_mutex_lock(&sim->lock);
	result = count_call(sim, COW_SIM_FLUSH);
	if (result == 0 && !sim->lie)
		log_event(sim, FLUSH, 0, NULL);
	pthread_mutex_unlock(&sim->lock);
	return result;
}

static int sim_ensure(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	struct sim *sim = sim_of(dev);
	uint64_t block = offset >> SHIFT, end = block + (length >> SHIFT);
	int result;

	check_range(dev, length, offset);
	pthread_mutex_lock(&sim->lock);
	result = count_call(sim, COW_SIM_ENSURE);
	while (result == 0 && block < end)
		result = take_host(sim, block++);
	pthread_mutex_unlock(&sim->lock);
	call_hook(sim, COW_SIM_ENSURE, offset >> SHIFT, length >> SHIFT);
	return result;
}

static void sim_discard(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	struct sim *sim = sim_of(dev);
	uint8_t bytes[BLOCK];
	struct chunk *chunk;

	check_range(dev, length, offset);
	memset(bytes, DISCARDED, BLOCK);
	chunk = new_chunk(bytes);
	call_hook(sim, COW_SIM_DISCARD, offset >> SHIFT, length >> SHIFT);
	pthread_mutex_lock(&sim->lock);
	for (uint64_t block = offset >> SHIFT; length > 0; block++, length -= BLOCK) {
		if (get_taken(sim, block)) {
			sim->taken[block / 8] &= (uint8_t) ~(1u << block % 8);
			sim->host_used--;
		}
		set_block(&sim->live, block, hold(chunk));
		log_event(sim, DISCARD, block, chunk);
		sim->stats.blocks_discarded++;
	}
	pthread_mutex_unlock(&sim->lock);
	drop(chunk);
}

static void sim_close(struct cow_dev *dev)
{
	struct sim *sim = sim_of(dev);

	clear_log(sim);
	clear_map(&sim->live);
	free(sim->log);
	free(sim->taken);
	pthread_mutex_destroy(&sim->lock);
	free(sim);
}

static const struct cow_dev_ops sim_ops = {
	.read = sim_read,
	.write = sim_write,
	.write_through = sim_write_through,
	.flush = sim_flush,
	.ensure = sim_ensure,
	.discard = sim_discard,
	.close = sim_close,
};

struct cow_dev *cow_sim_new(uint64_t size_bytes)
{
	struct sim *sim = cow_mem_new(sizeof(*sim));

	assert(size_bytes % BLOCK == 0);
	sim->dev.ops = &sim_ops;
	sim->dev.size_bytes = size_bytes;
	sim->taken = cow_mem_new((size_bytes >> SHIFT) / 8 + 1);
	sim->host_limit = UINT64_MAX;
	pthread_mutex_init(&sim->lock, NULL);
	return &sim->dev;
}

/* ------------------------------------------------------------------ cuts */

/* The sequence of SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

enum fate { KEPT, LOST, TORN, GARBLED };

static enum fate choose_fate(enum cow_sim_policy policy, bool last, bool chosen, uint64_t *random)
{
	switch (policy) {
	case COW_SIM_KEEP: return KEPT;
	case COW_SIM_DROP: return LOST;
	case COW_SIM_RANDOM: return next_random(random) % 2 != 0 ? KEPT : LOST;
	case COW_SIM_TORN: return next_random(random) % 3;
	case COW_SIM_GARBLED: return next_random(random) % 4;
	case COW_SIM_LAST: return last ? TORN : KEPT;
	case COW_SIM_ONE: return chosen ? KEPT : LOST;
	case COW_SIM_BUT_ONE: return chosen ? LOST : KEPT;
	default: assert(!"policy"); return KEPT;
	}
}

/* Sector by sector: what was there before, what was written, or, if garbled, something else. */
static struct chunk *mix(const struct chunk *before, const struct chunk *written, bool garbled, uint64_t *random)
{
	uint64_t choice = next_random(random);
	uint8_t bytes[BLOCK] = {0};

	if (before != NULL)
		memcpy(bytes, before->bytes, BLOCK);
	for (unsigned i = 0; i < BLOCK / SECTOR; i++) {
		unsigned fate = choice >> (2 * i) & 3;

		if ((fate & 1) != 0)
			memcpy(bytes + (size_t)i * SECTOR, written->bytes + (size_t)i * SECTOR, SECTOR);
		for (unsigned j = 0; garbled && fate == 2 && j < SECTOR; j++)
			bytes[i * SECTOR + j] = (uint8_t)next_random(random);
	}
	return new_chunk(bytes);
}

static void apply_in_flight(struct cow_map *map, const struct event *event, enum fate fate, uint64_t *random)
{
	struct chunk *result = NULL;

	if (event->chunk == NULL || fate == LOST)
		return;
	if (fate == KEPT)
		result = hold(event->chunk);
	else
		result = mix(cow_map_get(map, event->block), event->chunk, fate == GARBLED, random);
	set_block(map, event->block, result);
}

struct cow_dev *cow_sim_cut(struct cow_dev *dev, uint64_t at, enum cow_sim_policy policy, uint64_t seed)
{
	struct sim *sim = sim_of(dev), *cut = sim_of(cow_sim_new(dev->size_bytes));
	uint64_t from, chosen;

	pthread_mutex_lock(&sim->lock);
	assert(at <= sim->count);
	from = flushed(sim, at);
	chosen = at > from ? from + seed % (at - from) : 0;
	move_base(sim, from);
	copy_map(&sim->base, &cut->live);
	for (uint64_t i = from; i < at; i++) {
		const struct event *event = &sim->log[i];
		enum fate fate = choose_fate(policy, i + 1 == at, i == chosen, &seed);

		apply_in_flight(&cut->live, event, event->through != 0 && event->through < at ? KEPT : fate, &seed);
	}
	/* what takes space on the host is not rolled back */
	memcpy(cut->taken, sim->taken, (dev->size_bytes >> SHIFT) / 8 + 1);
	cut->host_used = sim->host_used;
	pthread_mutex_unlock(&sim->lock);
	copy_map(&cut->live, &cut->start);
	copy_map(&cut->live, &cut->base);
	return &cut->dev;
}

static uint64_t hash_chunk(struct chunk *chunk)
{
	uint64_t hash = atomic_load(&chunk->hash);

	if (hash == 0) {
		hash = XXH3_64bits(chunk->bytes, BLOCK) | 1;
		atomic_store(&chunk->hash, hash);
	}
	return hash;
}

/* A sum, so the order of the map does not matter; a block of zeros counts as one that was never written. */
uint64_t cow_sim_hash(struct cow_dev *dev)
{
	static const uint8_t zeros[BLOCK];
	uint64_t none = XXH3_64bits(zeros, BLOCK) | 1, sum = 0;
	struct sim *sim = sim_of(dev);
	struct cow_map_slot *slot;

	pthread_mutex_lock(&sim->lock);
	for (size_t i = 0; (slot = cow_map_each(&sim->live, &i)) != NULL;) {
		uint64_t both[2] = {slot->key, hash_chunk(slot->value)};

		sum += both[1] != none ? XXH3_64bits(both, sizeof(both)) : 0;
	}
	pthread_mutex_unlock(&sim->lock);
	return sum;
}

struct cow_dev *cow_sim_copy(struct cow_dev *dev)
{
	struct sim *sim = sim_of(dev), *copy = sim_of(cow_sim_new(dev->size_bytes));

	pthread_mutex_lock(&sim->lock);
	copy_map(&sim->live, &copy->live);
	memcpy(copy->taken, sim->taken, (dev->size_bytes >> SHIFT) / 8 + 1);
	copy->host_used = sim->host_used;
	pthread_mutex_unlock(&sim->lock);
	copy_map(&copy->live, &copy->start);
	copy_map(&copy->live, &copy->base);
	return &copy->dev;
}

uint64_t cow_sim_events(struct cow_dev *dev)
{
	struct sim *sim = sim_of(dev);
	uint64_t count;

	pthread_mutex_lock(&sim->lock);
	count = sim->count;
	pthread_mutex_unlock(&sim->lock);
	return count;
}

uint64_t cow_sim_flushed(struct cow_dev *dev, uint64_t event)
{
	struct sim *sim = sim_of(dev);
	uint64_t at;

	pthread_mutex_lock(&sim->lock);
	assert(event <= sim->count);
	at = flushed(sim, event);
	pthread_mutex_unlock(&sim->lock);
	return at;
}

void cow_sim_forget(struct cow_dev *dev)
{
	struct sim *sim = sim_of(dev);

	pthread_mutex_lock(&sim->lock);
	clear_log(sim);
	copy_map(&sim->live, &sim->start);
	copy_map(&sim->live, &sim->base);
	pthread_mutex_unlock(&sim->lock);
}

/* ------------------------------------------------------------------ requests of tests */

void cow_sim_fail(struct cow_dev *dev, enum cow_sim_call call, uint64_t nth, uint64_t more, int error)
{
	struct sim *sim = sim_of(dev);

	assert(error < 0 || nth == 0);
	pthread_mutex_lock(&sim->lock);
	sim->failures[call] = (struct failure){nth, more, error};
	pthread_mutex_unlock(&sim->lock);
}

void cow_sim_host(struct cow_dev *dev, uint64_t blocks)
{
	struct sim *sim = sim_of(dev);

	pthread_mutex_lock(&sim->lock);
	sim->host_limit = blocks;
	pthread_mutex_unlock(&sim->lock);
}

uint64_t cow_sim_host_used(struct cow_dev *dev)
{
	struct sim *sim = sim_of(dev);
	uint64_t used;

	pthread_mutex_lock(&sim->lock);
	used = sim->host_used;
	pthread_mutex_unlock(&sim->lock);
	return used;
}

void cow_sim_lie(struct cow_dev *dev, bool lie)
{
	struct sim *sim = sim_of(dev);

	pthread_mutex_lock(&sim->lock);
	sim->lie = lie;
	pthread_mutex_unlock(&sim->lock);
}

void cow_sim_garble(struct cow_dev *dev, uint64_t block, bool one_bit, uint64_t seed)
{
	struct sim *sim = sim_of(dev);
	uint8_t bytes[BLOCK] = {0};
	const struct chunk *chunk;

	assert(block < dev->size_bytes >> SHIFT);
	pthread_mutex_lock(&sim->lock);
	chunk = cow_map_get(&sim->live, block);
	if (chunk != NULL)
		memcpy(bytes, chunk->bytes, BLOCK);
	if (one_bit)
		bytes[next_random(&seed) % BLOCK] ^= (uint8_t)(1u << next_random(&seed) % 8);
	for (unsigned i = 0; !one_bit && i < BLOCK; i++)
		bytes[i] = (uint8_t)next_random(&seed);
	set_block(&sim->live, block, new_chunk(bytes));
	pthread_mutex_unlock(&sim->lock);
}

void cow_sim_hook(struct cow_dev *dev, cow_sim_hook_fn *hook, void *context)
{
	sim_of(dev)->hook = hook;
	sim_of(dev)->hook_context = context;
}

void cow_sim_stats(struct cow_dev *dev, struct cow_sim_stats *stats)
{
	struct sim *sim = sim_of(dev);

	pthread_mutex_lock(&sim->lock);
	*stats = sim->stats;
	pthread_mutex_unlock(&sim->lock);
}

int cow_sim_save(struct cow_dev *dev, const char *path)
{
	struct sim *sim = sim_of(dev);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), result = 0;
	struct cow_map_slot *slot;

	if (fd < 0)
		return -errno;
	pthread_mutex_lock(&sim->lock);
	if (ftruncate(fd, (off_t)dev->size_bytes) != 0)
		result = -errno;
	for (size_t i = 0; result == 0 && (slot = cow_map_each(&sim->live, &i)) != NULL;)
		if (pwrite(fd, ((struct chunk *)slot->value)->bytes, BLOCK, (off_t)(slot->key << SHIFT)) != BLOCK)
			result = -EIO;
	pthread_mutex_unlock(&sim->lock);
	close(fd);
	return result;
}

int cow_sim_load(struct cow_dev *dev, const char *path)
{
	static const uint8_t zeros[BLOCK];
	struct sim *sim = sim_of(dev);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t bytes[BLOCK];
	ssize_t got = 0;

	if (fd < 0)
		return -errno;
	pthread_mutex_lock(&sim->lock);
	clear_map(&sim->live);
	for (uint64_t block = 0; block < dev->size_bytes >> SHIFT; block++) {
		off_t data = lseek(fd, (off_t)(block << SHIFT), SEEK_DATA);

		if (data < 0)
			break; /* the rest is a hole */
		block = (uint64_t)data >> SHIFT;
		memset(bytes, 0, BLOCK);
		got = pread(fd, bytes, BLOCK, (off_t)(block << SHIFT));
		if (got < 0 || block >= dev->size_bytes >> SHIFT)
			break;
		if (memcmp(bytes, zeros, BLOCK) != 0)
			set_block(&sim->live, block, new_chunk(bytes));
	}
	clear_log(sim);
	copy_map(&sim->live, &sim->start);
	copy_map(&sim->live, &sim->base);
	pthread_mutex_unlock(&sim->lock);
	close(fd);
	return got < 0 ? -EIO : 0;
}
