/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * As few workers as will do.
 *
 * A request costs some microseconds to serve, but ten times as much if it wakes a thread on another core.  When
 * several workers wait at the device the kernel wakes them in turn, each on the core where it slept, while one worker
 * alone soon stays beside the program that it serves: unpacking an archive takes half the time.  So there is one
 * worker at the device as long as it keeps up, and there are two reasons to send another one:
 *
 *   - it is held up by a request.  A handler that knows it (fsync) says so beforehand.  Else (media, a full buffer) the
 *     monitor sees it, which looks every 5 milliseconds while there is work and sleeps when there is none;
 *   - it is never done: requests are waiting whenever it comes back.  It sees that itself, at every eighth request.
 *
 * A worker that comes back and finds another one at the device and no request waiting goes to the parked ones.
 *
 * INVARIANT.  Somebody will always read the device: a worker parks only if another one is there, and whoever is there
 * comes back from the request he takes, or the monitor sends another one meanwhile.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cowfs/loop.h"
#include "cowfs/slice.h"

#define TICK_NANOSECONDS 5000000L
#define IDLE_TICKS 20        /* without a request before the monitor sleeps */
#define SAMPLE_REQUESTS 8    /* how often to look for waiting requests when alone */
#define BUSY_SAMPLES 4       /* in a row before another worker is sent */
#define PARKED_SECONDS 60    /* before a parked worker goes for good */

struct cowfs_loop {
	struct cowfs *fs;
	unsigned max, busy_max; /* workers; how many of them because of load */
	atomic_uint at_device;  /* workers that read or wait there */
	atomic_uint taken;      /* requests so far: a sign of life */
	atomic_bool asleep;     /* the monitor waits for `wake` */
	pthread_mutex_t lock;
	pthread_cond_t wake;    /* for the monitor */
	pthread_cond_t go;      /* for parked workers */
	pthread_cond_t gone;    /* a worker ended */
	unsigned workers, parked, calls; /* lock; calls: parked workers that were told to go on */
	atomic_bool ended;      /* changed under lock */
	pthread_t *threads;     /* lock: of the workers, to interrupt them at the end */
};

/* A worker and its memory. */
struct worker {
	struct cowfs_loop *loop;
	struct fuse_buf request;
	unsigned served, streak;
};

static bool is_request_waiting(const struct cowfs_loop *loop)
{
	struct pollfd device = {.fd = fuse_session_fd(loop->fs->session), .events = POLLIN};

	return poll(&device, 1, 0) > 0;
}

static void forget_thread_locked(struct cowfs_loop *loop)
{
	for (unsigned i = 0; i < loop->workers; i++) {
		if (pthread_equal(loop->threads[i], pthread_self())) {
			loop->threads[i] = loop->threads[loop->workers - 1];
			break;
		}
	}
	loop->workers--;
	pthread_cond_broadcast(&loop->gone);
}

static void *work(void *context);

static int start_worker_locked(struct cowfs_loop *loop)
{
	pthread_attr_t detached;
	int error;

	if (loop->ended || loop->workers >= loop->max)
		return -EAGAIN;
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	error = pthread_create(&loop->threads[loop->workers], &detached, work, loop);
	pthread_attr_destroy(&detached);
	if (error)
		return -error;
	loop->workers++;
	return 0;
}

/* Sends one more worker to the device. `load`: only because there is much to do. */
static void send_worker(struct cowfs_loop *loop, bool load)
{
	pthread_mutex_lock(&loop->lock);
	if (load && loop->workers - loop->parked >= loop->busy_max) {
		pthread_mutex_unlock(&loop->lock);
		return;
	}
	if (loop->parked > loop->calls) {
		loop->calls++;
		pthread_cond_signal(&loop->go);
	} else {
		start_worker_locked(loop);
	}
	pthread_mutex_unlock(&loop->lock);
}

void cowfs_loop_may_wait(struct cowfs_loop *loop)
{
	if (atomic_load(&loop->at_device) == 0)
		send_worker(loop, false);
}

/* True: go on; false: the worker was parked so long, or the loop ended, that it shall end. */
static bool park(struct cowfs_loop *loop)
{
	struct timespec until;
	bool called;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += PARKED_SECONDS;
	pthread_mutex_lock(&loop->lock);
	loop->parked++;
	while (!loop->calls && !loop->ended) {
		if (pthread_cond_timedwait(&loop->go, &loop->lock, &until) == ETIMEDOUT)
			break;
	}
	loop->parked--;
	called = loop->calls && !loop->ended;
	if (called)
		loop->calls--;
	pthread_mutex_unlock(&loop->lock);
	return called;
}

/* After a request: back to the device, or among the parked; false to end. */
static bool come_back(struct worker *worker)
{
	struct cowfs_loop *loop = worker->loop;
	bool alone = atomic_load(&loop->at_device) == 0;

	if (alone && ++worker->served % SAMPLE_REQUESTS)
		return true;
	if (!is_request_waiting(loop)) {
		worker->streak = 0;
		return alone || park(loop);
	}
	if (++worker->streak >= BUSY_SAMPLES) {
		worker->streak = 0;
		send_worker(loop, true);
	}
	return true;
}

static void wake_monitor(struct cowfs_loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	pthread_cond_signal(&loop->wake);
	pthread_mutex_unlock(&loop->lock);
}

/* False when the session ended. */
static bool serve_one(struct worker *worker)
{
	struct cowfs_loop *loop = worker->loop;
	struct fuse_session *session = loop->fs->session;
	int got;

	atomic_fetch_add(&loop->at_device, 1);
	do
		got = fuse_session_receive_buf(session, &worker->request);
	while ((got == -EINTR || got == -EAGAIN) && !fuse_session_exited(session));
	atomic_fetch_sub(&loop->at_device, 1);
	if (got <= 0)
		return false;
	atomic_fetch_add(&loop->taken, 1);
	if (atomic_load(&loop->asleep))
		wake_monitor(loop);
	fuse_session_process_buf(session, &worker->request);
	return !fuse_session_exited(session);
}

static void end_locked(struct cowfs_loop *loop)
{
	loop->ended = true;
	pthread_cond_broadcast(&loop->go);
	pthread_cond_broadcast(&loop->wake);
}

static void *work(void *context)
{
	struct cowfs_loop *loop = context;
	struct worker worker = {.loop = loop};
	bool ended;

	cowfs_slice_shorten();
	do
		ended = !serve_one(&worker);
	while (!ended && come_back(&worker));
	free(worker.request.mem);
	pthread_mutex_lock(&loop->lock);
	if (ended)
		end_locked(loop);
	forget_thread_locked(loop);
	pthread_mutex_unlock(&loop->lock);
	return NULL;
}

/* Sleeps until a request comes; false at the end. */
static bool wait_for_work(struct cowfs_loop *loop, unsigned seen)
{
	bool ended;

	pthread_mutex_lock(&loop->lock);
	atomic_store(&loop->asleep, true);
	while (!loop->ended && atomic_load(&loop->taken) == seen)
		pthread_cond_wait(&loop->wake, &loop->lock);
	atomic_store(&loop->asleep, false);
	ended = loop->ended;
	pthread_mutex_unlock(&loop->lock);
	return !ended;
}

/* Nobody at the device and no request taken for a whole tick: the workers are held up. */
static void monitor(struct cowfs_loop *loop)
{
	const struct timespec tick = {.tv_nsec = TICK_NANOSECONDS};
	unsigned seen = atomic_load(&loop->taken), idle = 0;
	bool held_up = false;

	while (!loop->ended) {
		unsigned now = atomic_load(&loop->taken);
		bool nobody = atomic_load(&loop->at_device) == 0;

		idle = now == seen && !nobody ? idle + 1 : 0;
		if (now == seen && nobody && held_up)
			send_worker(loop, false);
		held_up = nobody;
		seen = now;
		if (idle > IDLE_TICKS && !wait_for_work(loop, seen))
			return;
		nanosleep(&tick, NULL);
	}
}

/* Without SA_RESTART: it only makes read(2) return. */
static void on_interrupt(int number)
{
	(void)number;
}

/*
 * The workers come out one by one: those that wait at the device only when a signal interrupts them, which may be lost
 * if it comes just before they wait, so it is sent until all have ended.
 */
static void wait_gone(struct cowfs_loop *loop)
{
	struct timespec until;

	pthread_mutex_lock(&loop->lock);
	while (loop->workers) {
		for (unsigned i = 0; i < loop->workers; i++)
			pthread_kill(loop->threads[i], SIGUSR1);
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += 4 * TICK_NANOSECONDS;
		until.tv_sec += until.tv_nsec / 1000000000L;
		until.tv_nsec %= 1000000000L;
		pthread_cond_timedwait(&loop->gone, &loop->lock, &until);
	}
	pthread_mutex_unlock(&loop->lock);
}

struct cowfs_loop *cowfs_loop_new(struct cowfs *fs, unsigned threads_max)
{
	struct cowfs_loop *loop = calloc(1, sizeof(*loop));
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_condattr_t attr;

	if (!loop)
		return NULL;
	loop->threads = calloc(threads_max, sizeof(*loop->threads));
	if (!loop->threads) {
		free(loop);
		return NULL;
	}
	loop->fs = fs;
	loop->max = threads_max;
	loop->busy_max = cores > 2 ? (unsigned)cores : 2;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&loop->lock, NULL);
	pthread_cond_init(&loop->wake, &attr);
	pthread_cond_init(&loop->go, &attr);
	pthread_cond_init(&loop->gone, &attr);
	pthread_condattr_destroy(&attr);
	return loop;
}

void cowfs_loop_free(struct cowfs_loop *loop)
{
	if (!loop)
		return;
	pthread_cond_destroy(&loop->gone);
	pthread_cond_destroy(&loop->go);
	pthread_cond_destroy(&loop->wake);
	pthread_mutex_destroy(&loop->lock);
	free(loop->threads);
	free(loop);
}

int cowfs_loop_run(struct cowfs_loop *loop)
{
	struct sigaction interrupt = {.sa_handler = on_interrupt};
	int result;

	sigaction(SIGUSR1, &interrupt, NULL);
	pthread_mutex_lock(&loop->lock);
	result = start_worker_locked(loop);
	pthread_mutex_unlock(&loop->lock);
	if (result)
		return result;
	monitor(loop);
	wait_gone(loop);
	return 0;
}

void cowfs_loop_stop(struct cowfs_loop *loop)
{
	fuse_session_exit(loop->fs->session);
	pthread_mutex_lock(&loop->lock);
	end_locked(loop);
	pthread_mutex_unlock(&loop->lock);
}
