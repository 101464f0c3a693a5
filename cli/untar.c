// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The tar source. Names are taken as bytes: in the C locale, which this program does not leave to read, libarchive
 * warns that it cannot convert those of pax archives, and leaves them as they are; in UTF-8 it would normalise them.
 *
 * An archive may come back to a directory at any time, so the attributes of directories are kept and set at the end,
 * the deepest first.
 */
#include "cli/acl.h"
#include "cli/archive.h"
#include "cli/tree.h"

#include <errno.h>
#include <linux/posix_acl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/mem.h"

struct reader {
	struct cow_archive_calls call;
	struct archive *archive;
	const char *name;
	struct cow_sink *sink;
	struct cow_tree_item *directories; /* with paths of their own */
	size_t count, size;
	bool top; /* the archive has named the top */
	bool bad_acl; /* the entry has an access control list that libarchive cannot read */
	int fd;
	bool told; /* of an interruption, while waiting for data */
	uint8_t buffer[1 << 16];
};

static int tell(const struct reader *reader, const char *path)
{
	const char *text = reader->call.archive_error_string(reader->archive);

	if (reader->told)
		return COW_EXIT_TROUBLE;
	return cow_say(reader->sink->cli, "%s: %s%s%s", reader->name, path != NULL ? path : "",
		       path != NULL ? ": " : "", text != NULL ? text : "is no tar archive");
}

/* "./a//b/" -> "a/b" in fresh memory; NULL if it has a ".." in it. */
static char *clean(const char *path)
{
	char *out = cow_mem_new(strlen(path) + 1), *end = out;

	while (*path != '\0') {
		size_t length = strcspn(path, "/");

		if (length == 2 && path[0] == '.' && path[1] == '.') {
			free(out);
			return NULL;
		}
		if (length > 0 && !(length == 1 && path[0] == '.')) {
			if (end > out)
				*end++ = '/';
			memcpy(end, path, length);
			end += length;
		}
		path += length + (path[length] == '/');
	}
	*end = '\0';
	return out;
}

static la_ssize_t read_some(struct archive *archive, void *context, const void **bytes)
{
	struct reader *reader = context;
	ssize_t got;

	(void)archive;
	if (cow_progress_wait(reader->sink->progress, reader->fd) != 0) {
		reader->told = true;
		return -1;
	}
	do
		got = read(reader->fd, reader->buffer, sizeof(reader->buffer));
	while (got < 0 && errno == EINTR);
	*bytes = reader->buffer;
	if (got < 0) {
		cow_say_error(reader->sink->cli, reader->name, -errno);
		reader->told = true;
	}
	return got;
}

static unsigned acl_tag(int tag)
{
	switch (tag) {
	case ARCHIVE_ENTRY_ACL_USER_OBJ: return ACL_USER_OBJ;
	case ARCHIVE_ENTRY_ACL_USER: return ACL_USER;
	case ARCHIVE_ENTRY_ACL_GROUP_OBJ: return ACL_GROUP_OBJ;
	case ARCHIVE_ENTRY_ACL_GROUP: return ACL_GROUP;
	case ARCHIVE_ENTRY_ACL_MASK: return ACL_MASK;
	case ARCHIVE_ENTRY_ACL_OTHER: return ACL_OTHER;
	default: return 0;
	}
}

/* Lists are left out (of those in an archive one knows names, but not numbers), so the mode is narrowed. */
static void narrow(struct reader *reader, struct archive_entry *entry, struct cow_tree_item *item)
{
	struct cow_archive_calls *call = &reader->call;
	int types = call->archive_entry_acl_types(entry), type, rights, tag, id, result;
	struct cow_acl acl = {.bad = reader->bad_acl || (types & ARCHIVE_ENTRY_ACL_TYPE_NFS4) != 0};
	const char *name;

	item->acl = acl.bad || types != 0;
	cow_acl_item(item);
	if (types & ARCHIVE_ENTRY_ACL_TYPE_ACCESS) {
		call->archive_entry_acl_reset(entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS);
		while ((result = call->archive_entry_acl_next(entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, &type, &rights,
							      &tag, &id, &name)) == ARCHIVE_OK)
			cow_acl_add(&acl, acl_tag(tag), (unsigned)rights);
		acl.bad |= result != ARCHIVE_EOF;
	}
	item->mode = cow_acl_narrow(&acl, item->mode);
}

static void describe(struct reader *reader, struct archive_entry *entry, struct cow_tree_item *item)
{
	struct cow_archive_calls *call = &reader->call;
	const char *target = call->archive_entry_symlink(entry), *name;
	const void *value;
	size_t size;

	item->mode = (uint32_t)call->archive_entry_filetype(entry) | (uint32_t)call->archive_entry_perm(entry);
	item->uid = (uint32_t)call->archive_entry_uid(entry);
	item->gid = (uint32_t)call->archive_entry_gid(entry);
	item->rdev = (uint32_t)makedev((unsigned)call->archive_entry_rdevmajor(entry),
				       (unsigned)call->archive_entry_rdevminor(entry));
	item->nlink = 1;
	item->size = call->archive_entry_size_is_set(entry) ? (uint64_t)call->archive_entry_size(entry) : 0;
	item->mtime = (struct timespec){call->archive_entry_mtime(entry), call->archive_entry_mtime_nsec(entry)};
	item->atime = item->mtime;
	if (call->archive_entry_atime_is_set(entry))
		item->atime =
			(struct timespec){call->archive_entry_atime(entry), call->archive_entry_atime_nsec(entry)};
	if (S_ISLNK(item->mode))
		item->target = cow_mem_copy(target != NULL ? target : "", target != NULL ? strlen(target) + 1 : 1);
	call->archive_entry_xattr_reset(entry);
	while (call->archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK)
		if (name != NULL)
			cow_tree_item_xattr(item, name, value, size);
	narrow(reader, entry, item);
}

static int copy_data(struct reader *reader, const struct cow_tree_item *item)
{
	const void *bytes;
	size_t size;
	la_int64_t offset;
	int result;

	while ((result = reader->call.archive_read_data_block(reader->archive, &bytes, &size, &offset)) == ARCHIVE_OK) {
		if (size == 0)
			continue;
		if (reader->sink->ops->write(reader->sink, bytes, size, (uint64_t)offset) != 0 ||
		    cow_progress_step(reader->sink->progress, 0, size) != 0)
			return COW_EXIT_TROUBLE;
	}
	return result == ARCHIVE_EOF ? 0 : tell(reader, item->path);
}

/* Takes over the item and its path. */
static void keep_directory(struct reader *reader, const struct cow_tree_item *item)
{
	if (reader->count == reader->size) {
		reader->size = reader->size != 0 ? reader->size * 2 : 64;
		reader->directories = cow_mem_resize(reader->directories, reader->size * sizeof(*reader->directories));
	}
	reader->directories[reader->count++] = *item;
}

/* An archive without a "./" of its own gets a top all the same. */
static int add_top(struct reader *reader)
{
	struct cow_tree_item item = {.path = cow_mem_new(1), .mode = S_IFDIR | 0755, .nlink = 1};

	clock_gettime(CLOCK_REALTIME, &item.mtime);
	item.atime = item.mtime;
	reader->top = true;
	keep_directory(reader, &item);
	return reader->sink->ops->add(reader->sink, &item);
}

static int add_item(struct reader *reader, struct cow_tree_item *item)
{
	int error = reader->sink->ops->add(reader->sink, item);

	if (error == 0 && S_ISREG(item->mode) && item->link == NULL) {
		error = copy_data(reader, item);
		if (error == 0)
			error = reader->sink->ops->done(reader->sink, item);
	}
	return error;
}

static int add_entry(struct reader *reader, struct archive_entry *entry)
{
	const char *pathname = reader->call.archive_entry_pathname(entry);
	const char *hardlink = reader->call.archive_entry_hardlink(entry);
	struct cow_tree_item item = {0};
	char *path, *link = NULL;
	int error;

	if (pathname == NULL)
		return tell(reader, NULL);
	path = clean(pathname);
	if (hardlink != NULL)
		link = clean(hardlink);
	if (path == NULL || (hardlink != NULL && link == NULL)) {
		free(path);
		free(link);
		return cow_say(reader->sink->cli, "%s: %s: leads out of the archive; refused", reader->name, pathname);
	}
	describe(reader, entry, &item);
	item.path = path;
	item.link = link;
	if (hardlink != NULL)
		item.mode = S_IFREG;
	error = cow_progress_step(reader->sink->progress, 1, 0);
	if (error == 0 && path[0] == '\0' && !S_ISDIR(item.mode))
		error = cow_say(reader->sink->cli, "%s: has an entry without a name", reader->name);
	if (error == 0 && !reader->top)
		error = add_top(reader);
	if (error == 0)
		error = add_item(reader, &item);
	free(link);
	item.link = NULL;
	if (error == 0 && S_ISDIR(item.mode)) {
		keep_directory(reader, &item);
		return 0;
	}
	cow_tree_item_free(&item);
	free(path);
	return error;
}

/* By path, then by order in the archive: they lie in one array. */
static int by_path(const void *a, const void *b)
{
	const struct cow_tree_item *x = *(const struct cow_tree_item *const *)a;
	const struct cow_tree_item *y = *(const struct cow_tree_item *const *)b;
	int order = strcmp(x->path, y->path);

	return order != 0 ? order : x < y ? -1 : x > y;
}

/* Children before parents, which may become unsearchable; of several entries of one directory the last one counts. */
static int finish_directories(struct reader *reader)
{
	const struct cow_tree_item **sorted = cow_mem_new(reader->count * sizeof(*sorted));
	int error = 0;

	for (size_t i = 0; i < reader->count; i++)
		sorted[i] = &reader->directories[i];
	qsort(sorted, reader->count, sizeof(*sorted), by_path);
	for (size_t i = reader->count; i-- > 0 && error == 0;)
		if (i + 1 == reader->count || strcmp(sorted[i]->path, sorted[i + 1]->path) != 0)
			error = reader->sink->ops->done(reader->sink, sorted[i]);
	free(sorted);
	return error;
}

/* The result of reading the entry is good all the same. */
static bool warns_of_acl(const struct reader *reader)
{
	const char *text = reader->call.archive_error_string(reader->archive);

	return text != NULL && strstr(text, ".acl.") != NULL;
}

static int read_all(struct reader *reader)
{
	struct archive_entry *entry;
	int result, error = 0;

	while ((result = reader->call.archive_read_next_header(reader->archive, &entry)) != ARCHIVE_EOF) {
		/* a warning says that a name was not converted, see above */
		reader->bad_acl = warns_of_acl(reader);
		if (result != ARCHIVE_OK && result != ARCHIVE_WARN)
			return tell(reader, NULL);
		error = add_entry(reader, entry);
		if (error != 0)
			return error;
	}
	if (!reader->top)
		error = add_top(reader);
	return error != 0 ? error : finish_directories(reader);
}

int cow_source_tar(int fd, const char *name, struct cow_sink *sink)
{
	struct reader *reader = cow_mem_new(sizeof(*reader));
	struct cow_archive_calls *call = &reader->call;
	int error = cow_archive_load(sink->cli, call);

	if (error != 0) {
		free(reader);
		return error;
	}
	reader->name = name;
	reader->sink = sink;
	reader->fd = fd;
	reader->archive = call->archive_read_new();
	call->archive_read_support_filter_all(reader->archive);
	call->archive_read_support_format_tar(reader->archive);
	call->archive_read_support_format_gnutar(reader->archive);
	call->archive_read_support_format_empty(reader->archive);
	if (call->archive_read_open(reader->archive, reader, NULL, read_some, NULL) != ARCHIVE_OK)
		error = tell(reader, NULL);
	else
		error = read_all(reader);
	call->archive_read_free(reader->archive);
	for (size_t i = 0; i < reader->count; i++) {
		free((char *)reader->directories[i].path);
		cow_tree_item_free(&reader->directories[i]);
	}
	free(reader->directories);
	cow_archive_unload(call);
	free(reader);
	return error;
}
