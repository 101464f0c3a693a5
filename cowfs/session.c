/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From mount to unmount: the FUSE session, its worker threads, and how it ends.
 *
 * THE END comes in two ways.  Unmounted from outside: the kernel closes the connection, the loop ends by itself, and
 * no request can be in flight.  Told by a signal: jobs of the service threads may still wait for requests that only
 * the workers can serve, so the thread that catches the signal lets the jobs finish first and ends the loop then.  An
 * alarm or the limit of processor time is a signal to end, too: the alternative is to die of it.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cowfs/handles.h"
#include "cowfs/loop.h"
#include "cowfs/ops.h"
#include "cowfs/results.h"
#include "cowfs/scrub.h"
#include "cowfs/service.h"
#include "cowfs/tokens.h"

#define READ_AHEAD_KIB 1024
#define BACKGROUND_MAX 128

/* What we ask of the kernel, and what we do not: splicing costs more than it gains below some 100 KiB a request. */
static void init(void *context, struct fuse_conn_info *conn)
{
	struct cowfs *fs = context;
	const unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_IOCTL_DIR |
				FUSE_CAP_READDIRPLUS | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS |
				FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPIRE_ONLY;

	conn->want = conn->capable & wanted;
	conn->max_write = 1 << 20;
	conn->max_background = BACKGROUND_MAX;
	conn->congestion_threshold = BACKGROUND_MAX * 3 / 4;
	conn->time_gran = 1;
	fs->expire_entry = conn->capable & FUSE_CAP_EXPIRE_ONLY;
}

static const struct fuse_lowlevel_ops ops = {
	.init = init,
	.lookup = cowfs_op_lookup,
	.forget = cowfs_op_forget,
	.forget_multi = cowfs_op_forget_multi,
	.getattr = cowfs_op_getattr,
	.setattr = cowfs_op_setattr,
	.readlink = cowfs_op_readlink,
	.mknod = cowfs_op_mknod,
	.mkdir = cowfs_op_mkdir,
	.unlink = cowfs_op_unlink,
	.rmdir = cowfs_op_rmdir,
	.symlink = cowfs_op_symlink,
	.rename = cowfs_op_rename,
	.link = cowfs_op_link,
	.create = cowfs_op_create,
	.open = cowfs_op_open,
	.read = cowfs_op_read,
	.write = cowfs_op_write,
	.flush = cowfs_op_flush,
	.release = cowfs_op_release,
	.fsync = cowfs_op_fsync,
	.opendir = cowfs_op_opendir,
	.readdir = cowfs_op_readdir,
	.readdirplus = cowfs_op_readdirplus,
	.releasedir = cowfs_op_releasedir,
	.fsyncdir = cowfs_op_fsync,
	.statfs = cowfs_op_statfs,
	.getxattr = cowfs_op_getxattr,
	.setxattr = cowfs_op_setxattr,
	.listxattr = cowfs_op_listxattr,
	.removexattr = cowfs_op_removexattr,
	.ioctl = cowfs_op_ioctl,
	.fallocate = cowfs_op_fallocate,
	.lseek = cowfs_op_lseek,
	.copy_file_range = cowfs_op_copy_file_range,
};

static int add_option(struct fuse_args *args, const char *format, const char *value)
{
	char *options = NULL, *option;
	int result = -1;

	if (asprintf(&option, format, value) < 0)
		return -1;
	if (!fuse_opt_add_opt_escaped(&options, option))
		result = fuse_opt_add_arg(args, "-o") || fuse_opt_add_arg(args, options) ? -1 : 0;
	free(options);
	free(option);
	return result;
}

static int fill_args(const struct cowfs *fs, struct fuse_args *args)
{
	const struct cowfs_options *o = fs->options;
	const char *flags[8] = {"default_permissions", "subtype=cowfs", "noatime"};
	unsigned count = 3;
	int result = fuse_opt_add_arg(args, "cow");

	if (o->read_only)
		flags[count++] = "ro";
	if (o->allow_other)
		flags[count++] = "allow_other";
	if (o->suid)
		flags[count++] = "suid";
	if (o->dev)
		flags[count++] = "dev";
	if (o->noexec)
		flags[count++] = "noexec";
	for (unsigned i = 0; !result && i < count; i++)
		result = add_option(args, "%s", flags[i]);
	if (!result)
		result = add_option(args, "fsname=%s", fs->image);
	if (!result && o->debug)
		result = fuse_opt_add_arg(args, "-d");
	return result;
}

/* Sequential reads come in pieces of this size; without it in 128 KiB. Best effort: it needs root. */
static void raise_read_ahead(dev_t dev)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(dev), minor(dev));
	file = fopen(path, "we");
	if (!file)
		return;
	fprintf(file, "%d\n", READ_AHEAD_KIB);
	fclose(file);
}

/* The first request of all: when it has been answered the mount serves, and its device number is known. */
static void run_ready(struct cowfs *fs, struct cowfs_job *job)
{
	struct stat st;

	if (!stat(fs->dir, &st) && st.st_dev != fs->under)
		raise_read_ahead(st.st_dev);
	free(job);
	cowfs_ready(fs);
}

static int submit_ready(struct cowfs *fs)
{
	struct cowfs_job *job = calloc(1, sizeof(*job));
	int result = -ENOMEM;

	if (job) {
		job->run = run_ready;
		result = cowfs_service_add(fs->service, job);
	}
	if (result)
		free(job);
	return result;
}

/* Who waits for the signal that ends the mount. */
struct waiter {
	struct cowfs *fs;
	atomic_bool over; /* the loop ended by itself */
};

/* Not those that nohup(1) or a shell has us ignore. */
static void fill_end_signals(sigset_t *set)
{
	static const int numbers[] = {SIGHUP, SIGINT, SIGTERM, SIGALRM, SIGXCPU};
	struct sigaction action;

	sigemptyset(set);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		if (!sigaction(numbers[i], NULL, &action) && action.sa_handler != SIG_IGN)
			sigaddset(set, numbers[i]);
	sigaddset(set, SIGUSR2); /* from loop(); from anybody else it means nothing */
}

static void *wait_for_signal(void *context)
{
	struct waiter *waiter = context;
	struct cowfs *fs = waiter->fs;
	sigset_t set;
	int number;

	fill_end_signals(&set);
	do {
		sigwait(&set, &number);
		if (atomic_load(&waiter->over))
			return NULL;
	} while (number == SIGUSR2 || (number == SIGHUP && atomic_load(&fs->detached)));
	atomic_store(&fs->ending, true);
	cowfs_service_drain(fs->service);
	cowfs_service_drain(fs->brief);
	cowfs_loop_stop(fs->loop);
	return NULL;
}

void cowfs_session_block_signals(void)
{
	sigset_t set;

	fill_end_signals(&set);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
}

static int loop(struct cowfs *fs)
{
	struct waiter waiter = {.fs = fs};
	pthread_t thread;
	int result;

	if (pthread_create(&thread, NULL, wait_for_signal, &waiter)) {
		cowfs_complain("cannot start a thread");
		return -1;
	}
	result = submit_ready(fs);
	if (!result)
		result = cowfs_loop_run(fs->loop);
	if (result)
		cowfs_complain("cannot start: %s", strerror(-result));
	atomic_store(&waiter.over, true);
	pthread_kill(thread, SIGUSR2);
	pthread_join(thread, NULL);
	return result;
}

static int mount_and_loop(struct cowfs *fs)
{
	int result;

	if (fuse_session_mount(fs->session, fs->dir)) {
		cowfs_complain("cannot mount %s on %s", fs->image, fs->dir);
		return -1;
	}
	result = cowfs_killpriv_install(fs);
	if (!result)
		result = loop(fs);
	fuse_session_unmount(fs->session);
	return result;
}

static int make_parts(struct cowfs *fs)
{
	fs->loop = cowfs_loop_new(fs, fs->options->threads ? fs->options->threads : COWFS_WORKERS_MAX);
	fs->service = cowfs_service_new(fs);
	fs->brief = cowfs_service_new(fs);
	fs->tokens = cowfs_tokens_new();
	fs->results = cowfs_results_new();
	fs->handles = cowfs_handles_new();
	fs->scrub = cowfs_scrub_new(fs);
	if (fs->loop && fs->service && fs->brief && fs->tokens && fs->results && fs->handles && fs->scrub)
		return 0;
	cowfs_complain("out of memory");
	return -1;
}

/* The services go first: their jobs use the rest. */
static void free_parts(struct cowfs *fs)
{
	cowfs_scrub_free(fs->scrub);
	cowfs_service_free(fs->service);
	cowfs_service_free(fs->brief);
	cowfs_loop_free(fs->loop);
	cowfs_tokens_free(fs->tokens);
	cowfs_results_free(fs->results);
	cowfs_handles_free(fs->handles);
}

int cowfs_session_run(struct cowfs *fs)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	int result;

	if (pthread_key_create(&fs->kill_set_id, NULL)) {
		cowfs_complain("out of memory");
		return -1;
	}
	result = make_parts(fs);
	if (!result && fill_args(fs, &args)) {
		cowfs_complain("out of memory");
		result = -1;
	}
	if (!result) {
		fs->session = fuse_session_new(&args, &ops, sizeof(ops), fs);
		result = fs->session ? mount_and_loop(fs) : -1;
	}
	free_parts(fs);
	if (fs->session)
		fuse_session_destroy(fs->session);
	fuse_opt_free_args(&args);
	pthread_key_delete(fs->kill_set_id);
	return result;
}
