// SPDX-License-Identifier: GPL-2.0-or-later
/* Asks for the differences: the library in an image, the daemon on a mount, whose answer comes in pieces. */
#include "cli/changes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"
#include "cli/walked.h"
#include "cow_ioctl.h"

#define HEAD 16u /* bytes of a change before its paths */

struct answer {
	uint8_t *bytes; /* not yet consumed */
	size_t length, size;
	char *path, *old_path; /* as strings */
};

static void append(struct answer *answer, const uint8_t *bytes, size_t length)
{
	if (length == 0)
		return;
	if (answer->length + length > answer->size) {
		answer->size = (answer->length + length) * 2;
		answer->bytes = cow_mem_resize(answer->bytes, answer->size);
	}
	memcpy(answer->bytes + answer->length, bytes, length);
	answer->length += length;
}

static void keep_string(char **string, const uint8_t *bytes, size_t length)
{
	*string = cow_mem_resize(*string, length + 1);
	memcpy(*string, bytes, length);
	(*string)[length] = '\0';
}

/* Hands on all whole changes. */
static int consume(struct answer *answer, cow_diff_fn fn, void *context)
{
	size_t at = 0;
	int result = 0;

	while (result == 0 && answer->length - at >= HEAD) {
		const uint8_t *p = answer->bytes + at;
		size_t path = get16(p + 2), old_path = get16(p + 4);
		struct cow_change change = {
			.type = (char)p[0], .content = p[1] != 0, .old_mode = get32(p + 8), .new_mode = get32(p + 12)};

		if (answer->length - at < HEAD + path + old_path)
			break;
		keep_string(&answer->path, p + HEAD, path);
		change.path = answer->path;
		if (change.type == 'R') {
			keep_string(&answer->old_path, p + HEAD + path, old_path);
			change.old_path = answer->old_path;
		}
		result = fn(context, &change);
		at += HEAD + path + old_path;
	}
	if (at > 0)
		memmove(answer->bytes, answer->bytes + at, answer->length - at);
	answer->length -= at;
	return result;
}

static int read_answer(const struct cow_cli *cli, const struct cow_place *place, uint64_t id, cow_diff_fn fn,
		       void *context)
{
	struct cow_ioc_result result = {.result = id};
	struct answer answer = {0};
	int error;

	do {
		error = cow_place_try_ioctl(place->fd, COW_IOC_RESULT, &result);
		if (error == 0 && result.length > sizeof(result.data))
			error = -EPROTO;
		if (error != 0) {
			error = cow_say_error(cli, place->text, error);
			break;
		}
		append(&answer, result.data, result.length);
		result.offset += result.length;
		error = consume(&answer, fn, context);
	} while (error == 0 && result.length > 0);
	if (error == 0 && answer.length > 0)
		error = cow_say_error(cli, place->text, -EPROTO);
	free(answer.bytes);
	free(answer.path);
	free(answer.old_path);
	return error;
}

static int say_error(const struct cow_cli *cli, const struct cow_place *old_place, const struct cow_place *new_place,
		     int error)
{
	switch (error) {
	case -EINVAL:
	case -ENOTDIR:
	case -EISDIR:
		return cow_say(cli, "%s and %s: one is a directory, the other a file", old_place->text,
			       new_place->text);
	case -E2BIG:
		return cow_say(cli, "%s and %s: too many differences to tell; compare what is in them", old_place->text,
			       new_place->text);
	default:
		return cow_say_error(cli, new_place->text, error);
	}
}

static int ask_mount(const struct cow_cli *cli, const struct cow_place *old_place, const struct cow_place *new_place,
		     bool expand, cow_diff_fn fn, void *context)
{
	static const char instead[] = "use `diff -r`";
	struct cow_ioc_diff args = {.expand = expand};
	int error = cow_place_token(old_place, &args.old_token);

	if (error != 0 && error != -EPERM)
		return cow_place_say(cli, old_place->text, error, instead);
	if (error == 0)
		error = cow_place_try_ioctl(new_place->fd, COW_IOC_DIFF, &args);
	if (error == -ENOENT || error == -ESTALE || error == -EXDEV)
		return cow_say(cli, "%s and %s are on different mounts; %s", old_place->text, new_place->text, instead);
	if (error == -ENOTTY)
		return cow_say(cli, "%s: is not on a cowlinks mount; %s", new_place->text, instead);
	if (error == -EPERM || error == -EACCES)
		return cow_walked_changes(cli, old_place, new_place, expand, fn, context);
	if (error != 0)
		return say_error(cli, old_place, new_place, error);
	return read_answer(cli, new_place, args.result, fn, context);
}

int cow_changes(struct cow_session *session, const struct cow_place *old_place, const struct cow_place *new_place,
		bool expand, cow_diff_fn fn, void *context)
{
	int error;

	if (old_place->image == NULL)
		return ask_mount(session->cli, old_place, new_place, expand, fn, context);
	error = cow_diff(old_place->inode, new_place->inode, expand, fn, context);
	return error < 0 ? say_error(session->cli, old_place, new_place, error) : error;
}
