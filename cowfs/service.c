/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A queue and at most MAX_THREADS threads, started when there is a job and nobody idle. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "cowfs/service.h"
#include "cowfs/slice.h"

#define MAX_THREADS 8

struct cowfs_service {
	struct cowfs *fs;
	pthread_mutex_t lock;
	pthread_cond_t changed;          /* a job came, or the end */
	struct cowfs_job *first, **last; /* lock */
	unsigned waiting_jobs;           /* lock */
	unsigned count, idle;            /* threads; lock */
	bool draining;                   /* lock */
	pthread_t threads[MAX_THREADS];
};

static struct cowfs_job *take_job(struct cowfs_service *service)
{
	struct cowfs_job *job;

	pthread_mutex_lock(&service->lock);
	service->idle++;
	while (!service->first && !service->draining)
		pthread_cond_wait(&service->changed, &service->lock);
	service->idle--;
	job = service->first;
	if (job) {
		service->first = job->next;
		service->waiting_jobs--;
		if (!service->first)
			service->last = &service->first;
	}
	pthread_mutex_unlock(&service->lock);
	return job;
}

static void *serve(void *context)
{
	struct cowfs_service *service = context;
	struct cowfs_job *job;

	cowfs_slice_shorten();
	while ((job = take_job(service)))
		job->run(service->fs, job);
	return NULL;
}

/* Signals are for the main thread only. */
static int start_thread_locked(struct cowfs_service *service)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&service->threads[service->count], NULL, serve, service);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error)
		return -error;
	service->count++;
	return 0;
}

struct cowfs_service *cowfs_service_new(struct cowfs *fs)
{
	struct cowfs_service *service = calloc(1, sizeof(*service));

	if (!service)
		return NULL;
	service->fs = fs;
	service->last = &service->first;
	pthread_mutex_init(&service->lock, NULL);
	pthread_cond_init(&service->changed, NULL);
	return service;
}

int cowfs_service_add(struct cowfs_service *service, struct cowfs_job *job)
{
	int result = 0;

	job->next = NULL;
	pthread_mutex_lock(&service->lock);
	if (service->draining)
		result = -ESHUTDOWN;
	else if (service->idle <= service->waiting_jobs && service->count < MAX_THREADS)
		result = start_thread_locked(service);
	if (result && result != -ESHUTDOWN && service->count)
		result = 0; /* the others will come to it */
	if (!result) {
		*service->last = job;
		service->last = &job->next;
		service->waiting_jobs++;
		pthread_cond_signal(&service->changed);
	}
	pthread_mutex_unlock(&service->lock);
	return result;
}

void cowfs_service_drain(struct cowfs_service *service)
{
	pthread_mutex_lock(&service->lock);
	service->draining = true;
	pthread_cond_broadcast(&service->changed);
	pthread_mutex_unlock(&service->lock);
	for (unsigned i = 0; i < service->count; i++)
		pthread_join(service->threads[i], NULL);
	service->count = 0;
}

void cowfs_service_free(struct cowfs_service *service)
{
	if (!service)
		return;
	cowfs_service_drain(service);
	pthread_cond_destroy(&service->changed);
	pthread_mutex_destroy(&service->lock);
	free(service);
}
