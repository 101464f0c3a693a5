/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A simulated device for tests: sparse, in memory, with a log of everything that was asked of it, so that the state
 * after a power cut at any point can be built, and with failures on request.
 *
 * THE LOG. Every block written is an event of its own (a long write is as many events), so are a flush and a discarded
 * block. Events are numbered from 0 in the order in which they happened. A cut at event `at` means: events 0 to at - 1
 * happened. Everything up to the last flush among them is durable; each write behind that flush is *in flight*, and the
 * policy says what became of it, unless it was written through and that call has returned: then it is durable too,
 * alone.
 * Two writes to one block keep their order unless the later one is lost.
 *
 * Blocks are shared between the live image, the log and the devices made by cuts (copied when written), so a cut costs
 * some bytes for each block of the image. What a discard leaves is not zeros but a pattern, to catch those who read it.
 *
 * What is not simulated: a device that reorders across a flush (but see cow_sim_lie()), and decay of durable blocks
 * (but see cow_sim_garble()).
 *
 * All functions take a device made by cow_sim_new() or cow_sim_cut(). Thread-safe, but for cow_dev_close().
 */
#ifndef COW_DEV_DEV_SIM_H
#define COW_DEV_DEV_SIM_H

#include "dev/dev.h"

enum cow_sim_policy { /* what becomes of writes in flight */
		      COW_SIM_KEEP, /* all arrived */
		      COW_SIM_DROP, /* none did */
		      COW_SIM_RANDOM, /* each was kept or lost */
		      COW_SIM_TORN, /* each was kept, lost, or only some of its 512-byte sectors arrived */
		      COW_SIM_GARBLED, /* as TORN, or some of its sectors are random bytes */
		      COW_SIM_LAST, /* all arrived but the last, which is torn */
		      COW_SIM_ONE, /* one arrived, number `seed` of them (modulo their count) */
		      COW_SIM_BUT_ONE, /* that one was lost, all others arrived */
		      COW_SIM_POLICIES
};

enum cow_sim_call {
	COW_SIM_READ,
	COW_SIM_WRITE, /* through or not */
	COW_SIM_FLUSH,
	COW_SIM_ENSURE,
	COW_SIM_CALLS,
	COW_SIM_DISCARD = COW_SIM_CALLS /* cannot fail, and is not counted */
};

/* `blocks` from `block` on; 0 for a flush. */
typedef void cow_sim_hook_fn(void *context, enum cow_sim_call call, uint64_t block, uint64_t blocks);

struct cow_sim_stats {
	uint64_t calls[COW_SIM_CALLS];
	uint64_t blocks_read, blocks_written, blocks_discarded;
};

/* An empty device (zeros). cow_dev_close() frees it. */
struct cow_dev *cow_sim_new(uint64_t size_bytes);

/* Events in the log so far. */
uint64_t cow_sim_events(struct cow_dev *dev);
/* Number of events up to and with the flush that is at or before `event`, 0 if none: what is durable at that cut. */
uint64_t cow_sim_flushed(struct cow_dev *dev, uint64_t event);
/* Takes the state as it is now as durable, and forgets the log; events are numbered from 0 again. */
void cow_sim_forget(struct cow_dev *dev);
/* A new device in the state after a cut, independent of this one, with an empty log and no failures set. Ascending cuts
 * are cheapest. */
struct cow_dev *cow_sim_cut(struct cow_dev *dev, uint64_t at, enum cow_sim_policy policy, uint64_t seed);
/* A hash of all bytes: equal images have equal ones, however they came to be. */
uint64_t cow_sim_hash(struct cow_dev *dev);
/* The same as a cut at the end with COW_SIM_KEEP. */
struct cow_dev *cow_sim_copy(struct cow_dev *dev);

/* The `nth` call of this kind from now (1: the next) fails with `error` (negative), then `more` that follow it;
 * UINT64_MAX: all. A failed write may have written a part. nth 0: no failure any more. */
void cow_sim_fail(struct cow_dev *dev, enum cow_sim_call call, uint64_t nth, uint64_t more, int error);
/* The host has space for so many blocks: written and ensured ones take it, discarded ones give it back. Beyond, ensure
 * and write fail with -ENOSPC. UINT64_MAX (at the start): no limit. */
void cow_sim_host(struct cow_dev *dev, uint64_t blocks);
/* Blocks that take space on the host. */
uint64_t cow_sim_host_used(struct cow_dev *dev);
/* From now on flushes do nothing: everything since the last true one stays in flight. */
void cow_sim_lie(struct cow_dev *dev, bool lie);
/* Overwrites a block, durable or not, with random bytes (the whole block, or one bit of it). Not logged. */
void cow_sim_garble(struct cow_dev *dev, uint64_t block, bool one_bit, uint64_t seed);
/* Called in the middle of every read, write, flush and discard, before it happens, and of every ensure, when it has:
 * for tests that want to look, to cut, or to do something there. NULL: no more. */
void cow_sim_hook(struct cow_dev *dev, cow_sim_hook_fn *hook, void *context);

void cow_sim_stats(struct cow_dev *dev, struct cow_sim_stats *stats);
/* Writes the live image as a sparse file, to look at it with `cow dump`. */
int cow_sim_save(struct cow_dev *dev, const char *path);
/* The device's image becomes that of a file. */
int cow_sim_load(struct cow_dev *dev, const char *path);

#endif
