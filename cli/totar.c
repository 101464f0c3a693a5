// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The tar sink: a pax archive of "./", "./a" and so on, so that it unpacks in the place where it is unpacked. Names
 * go in as bytes.
 *
 * Holes: a pax archive says beforehand where data is, but a source tells while it reads. So the map of a file with
 * holes is made of what the source tells, and its data kept until then, up to a limit; a file that has more is written
 * as if it had no holes.
 */
#include "cli/archive.h"
#include "cli/tree.h"

#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/mem.h"

#define KEEP_BYTES (64u << 20)
#define ZEROS (1u << 16)

struct piece {
	uint64_t offset;
	size_t size;
	void *bytes;
};

struct writer {
	struct cow_sink sink; /* first */
	struct cow_archive_calls call;
	struct archive *archive;
	struct archive_entry *entry;
	int fd;
	uint64_t at; /* data of the current file written so far */
	struct piece *pieces; /* while `keeping`: its data */
	size_t count, size;
	uint64_t kept_bytes;
	bool keeping;
	const uint8_t *zeros;
};

static int tell(const struct writer *writer, const char *path)
{
	const char *text = writer->call.archive_error_string(writer->archive);

	return cow_say(writer->sink.cli, "%s: %s", path, text != NULL ? text : "cannot be written to the archive");
}

static char *archive_name(const char *path)
{
	char *name = cow_mem_new(strlen(path) + 3);

	sprintf(name, "./%s", path);
	return name;
}

static void describe(struct writer *writer, const struct cow_tree_item *item)
{
	struct cow_archive_calls *call = &writer->call;
	char *name = archive_name(item->path), *link;

	call->archive_entry_clear(writer->entry);
	call->archive_entry_copy_pathname(writer->entry, name);
	call->archive_entry_set_mode(writer->entry, (mode_t)item->mode);
	call->archive_entry_set_uid(writer->entry, item->uid);
	call->archive_entry_set_gid(writer->entry, item->gid);
	call->archive_entry_set_mtime(writer->entry, item->mtime.tv_sec, item->mtime.tv_nsec);
	call->archive_entry_set_size(writer->entry, 0);
	if (S_ISCHR(item->mode) || S_ISBLK(item->mode)) {
		call->archive_entry_set_rdevmajor(writer->entry, major(item->rdev));
		call->archive_entry_set_rdevminor(writer->entry, minor(item->rdev));
	}
	if (item->link != NULL) {
		link = archive_name(item->link);
		call->archive_entry_copy_hardlink(writer->entry, link);
		free(link);
	} else {
		if (S_ISLNK(item->mode))
			call->archive_entry_copy_symlink(writer->entry, item->target);
		if (S_ISREG(item->mode))
			call->archive_entry_set_size(writer->entry, (la_int64_t)item->size);
		for (size_t i = 0; i < item->xattr_count; i++)
			call->archive_entry_xattr_add_entry(writer->entry, item->xattrs[i].name, item->xattrs[i].value,
							    item->xattrs[i].size);
	}
	free(name);
}

static int put_header(struct writer *writer, const char *path)
{
	int result = writer->call.archive_write_header(writer->archive, writer->entry);

	writer->at = 0;
	return result == ARCHIVE_OK || result == ARCHIVE_WARN ? 0 : tell(writer, path);
}

static int put(struct writer *writer, const void *bytes, size_t size)
{
	while (size > 0) {
		la_ssize_t done = writer->call.archive_write_data(writer->archive, bytes, size);

		if (done <= 0)
			return tell(writer, writer->call.archive_entry_pathname(writer->entry));
		bytes = (const char *)bytes + done;
		size -= (size_t)done;
		writer->at += (uint64_t)done;
	}
	return 0;
}

static int put_zeros(struct writer *writer, uint64_t end)
{
	int error = 0;

	while (error == 0 && writer->at < end)
		error = put(writer, writer->zeros, end - writer->at < ZEROS ? (size_t)(end - writer->at) : ZEROS);
	return error;
}

static int put_at(struct writer *writer, const void *bytes, size_t size, uint64_t offset)
{
	int error = put_zeros(writer, offset);

	return error != 0 ? error : put(writer, bytes, size);
}

/* ------------------------------------------------------------------ files with holes */

static void forget_pieces(struct writer *writer)
{
	for (size_t i = 0; i < writer->count; i++)
		free(writer->pieces[i].bytes);
	writer->count = 0;
	writer->kept_bytes = 0;
	writer->keeping = false;
}

/* Header, with the map if `map`, then what was kept; what follows is written as it comes. */
static int put_pieces(struct writer *writer, const char *path, uint64_t size, bool map)
{
	int error;

	for (size_t i = 0; map && i < writer->count; i++)
		writer->call.archive_entry_sparse_add_entry(writer->entry, (la_int64_t)writer->pieces[i].offset,
							    (la_int64_t)writer->pieces[i].size);
	if (map && (writer->count == 0 ||
		    writer->pieces[writer->count - 1].offset + writer->pieces[writer->count - 1].size < size))
		writer->call.archive_entry_sparse_add_entry(writer->entry, (la_int64_t)size, 0);
	error = put_header(writer, path);
	for (size_t i = 0; i < writer->count && error == 0; i++)
		error = put_at(writer, writer->pieces[i].bytes, writer->pieces[i].size, writer->pieces[i].offset);
	forget_pieces(writer);
	return error;
}

static void keep(struct writer *writer, const void *bytes, size_t size, uint64_t offset)
{
	if (writer->count == writer->size) {
		writer->size = writer->size != 0 ? writer->size * 2 : 16;
		writer->pieces = cow_mem_resize(writer->pieces, writer->size * sizeof(*writer->pieces));
	}
	writer->pieces[writer->count++] = (struct piece){offset, size, cow_mem_copy(bytes, size)};
	writer->kept_bytes += size;
}

/* ------------------------------------------------------------------ the sink */

static int add(struct cow_sink *sink, const struct cow_tree_item *item)
{
	struct writer *writer = (struct writer *)sink;

	if (S_ISSOCK(item->mode)) {
		cow_say(sink->cli, "%s: is a socket, which a tar archive cannot hold; left out", item->path);
		return 0;
	}
	describe(writer, item);
	writer->keeping = S_ISREG(item->mode) && item->link == NULL && item->mapped < item->size;
	return writer->keeping ? 0 : put_header(writer, item->path);
}

static int write_data(struct cow_sink *sink, const void *data, size_t size, uint64_t offset)
{
	struct writer *writer = (struct writer *)sink;
	int error;

	if (!writer->keeping)
		return put_at(writer, data, size, offset);
	if (writer->kept_bytes + size <= KEEP_BYTES) {
		keep(writer, data, size, offset);
		return 0;
	}
	error = put_pieces(writer, writer->call.archive_entry_pathname(writer->entry), 0, false);
	return error != 0 ? error : put_at(writer, data, size, offset);
}

/* A file that became shorter while it was read is filled up with zeros: its size is in the header. */
static int done(struct cow_sink *sink, const struct cow_tree_item *item)
{
	struct writer *writer = (struct writer *)sink;
	int error = 0;

	if (!S_ISREG(item->mode))
		return 0;
	if (writer->keeping)
		error = put_pieces(writer, item->path, item->size, true);
	return error != 0 ? error : put_zeros(writer, item->size);
}

static int close_sink(struct cow_sink *sink)
{
	struct writer *writer = (struct writer *)sink;
	int error = 0;

	if (writer->call.archive_write_close(writer->archive) != ARCHIVE_OK)
		error = tell(writer, "end of the archive");
	writer->call.archive_entry_free(writer->entry);
	writer->call.archive_write_free(writer->archive);
	if (writer->fd >= 0 && close(writer->fd) != 0 && error == 0)
		error = cow_say(sink->cli, "the archive: %s", strerror(errno));
	forget_pieces(writer);
	free(writer->pieces);
	free((void *)writer->zeros);
	cow_archive_unload(&writer->call);
	free(writer);
	return error;
}

struct cow_sink *cow_sink_tar(const struct cow_cli *cli, int fd)
{
	static const struct cow_sink_ops ops = {add, write_data, done, close_sink};
	struct writer *writer = cow_mem_new(sizeof(*writer));

	writer->sink = (struct cow_sink){.ops = &ops, .cli = cli};
	writer->fd = fd;
	if (cow_archive_load(cli, &writer->call) != 0) {
		free(writer);
		return NULL;
	}
	setlocale(LC_CTYPE, "C.UTF-8"); /* names are UTF-8 in a pax archive; those that are not go in as bytes */
	writer->zeros = cow_mem_new(ZEROS);
	writer->entry = writer->call.archive_entry_new();
	writer->archive = writer->call.archive_write_new();
	writer->call.archive_write_set_format_pax(writer->archive);
	writer->call.archive_write_set_options(writer->archive, "xattrheader=SCHILY"); /* only the one all know */
	writer->call.archive_write_set_bytes_per_block(writer->archive, 1 << 20);
	writer->call.archive_write_set_bytes_in_last_block(writer->archive, 10240);
	if (writer->call.archive_write_open_fd(writer->archive, fd) != ARCHIVE_OK) {
		tell(writer, "the archive");
		writer->fd = -1; /* stays the caller's */
		close_sink(&writer->sink);
		return NULL;
	}
	return &writer->sink;
}
