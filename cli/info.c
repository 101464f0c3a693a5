// SPDX-License-Identifier: GPL-2.0-or-later
/* cow info IMAGE|DIR: facts about a volume, mounted or not. */
#include "cli/place.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cow_ioctl.h"

static void uuid_text(const uint8_t *uuid, char *text)
{
	for (unsigned i = 0; i < 16; i++) {
		text += sprintf(text, "%02x", uuid[i]);
		if (i == 3 || i == 5 || i == 7 || i == 9)
			*text++ = '-';
	}
	*text = '\0';
}

/* Bytes that the image takes on the host, or 0. */
static uint64_t host_bytes(const char *image)
{
	struct stat st;

	return stat(image, &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_blocks * 512 : 0;
}

static uint64_t used_blocks(const struct cow_info *info)
{
	uint64_t other = info->free_blocks + info->reserved_blocks + info->system_blocks;

	return info->total_blocks > other ? info->total_blocks - other : 0;
}

static void line(const char *name, uint64_t blocks)
{
	char size[COW_SIZE_TEXT];

	printf("%-12s %s\n", name, cow_size_text(blocks * COW_BLOCK_BYTES, size));
}

static void print_text(const struct cow_info *info, const char *image, bool mounted)
{
	char text[40];

	fputs("image        ", stdout);
	cow_say_path(stdout, image);
	uuid_text(info->uuid, text);
	printf("\nuuid         %s\nformat       %u\nstate        %s%s\ngeneration   %llu\n", text,
	       (unsigned)info->format_version, mounted ? "mounted" : "not mounted",
	       info->read_only && mounted ? ", read-only" : "", (unsigned long long)info->generation);
	line("size", info->total_blocks);
	line("used", used_blocks(info));
	line("free", info->free_blocks);
	line("reserve", info->reserved_blocks);
	line("system", info->system_blocks);
	if (host_bytes(image) != 0)
		printf("on the host  %s\n", cow_size_text(host_bytes(image), text));
	printf("files        %llu\ndirectories  %llu\nto reclaim   %llu\n", (unsigned long long)info->files,
	       (unsigned long long)info->directories, (unsigned long long)info->reclaim_entries);
	if (mounted) {
		printf("cache        %s\n", cow_size_text(info->cache_bytes, text));
		printf("unwritten    %s\n", cow_size_text(info->dirty_bytes, text));
	}
}

static void print_json(const struct cow_info *info, const char *image, bool mounted)
{
	struct cow_json json;
	char text[40];

	uuid_text(info->uuid, text);
	cow_json_begin(&json, stdout);
	cow_json_open(&json, NULL, '{');
	cow_json_text(&json, "image", image);
	cow_json_text(&json, "uuid", text);
	cow_json_number(&json, "format_version", info->format_version);
	cow_json_bool(&json, "mounted", mounted);
	cow_json_bool(&json, "read_only", info->read_only && mounted);
	cow_json_number(&json, "generation", info->generation);
	cow_json_number(&json, "block_bytes", COW_BLOCK_BYTES);
	cow_json_number(&json, "total_bytes", info->total_blocks * COW_BLOCK_BYTES);
	cow_json_number(&json, "used_bytes", used_blocks(info) * COW_BLOCK_BYTES);
	cow_json_number(&json, "free_bytes", info->free_blocks * COW_BLOCK_BYTES);
	cow_json_number(&json, "reserved_bytes", info->reserved_blocks * COW_BLOCK_BYTES);
	cow_json_number(&json, "system_bytes", info->system_blocks * COW_BLOCK_BYTES);
	cow_json_number(&json, "host_bytes", host_bytes(image));
	cow_json_number(&json, "files", info->files);
	cow_json_number(&json, "directories", info->directories);
	cow_json_number(&json, "reclaim_entries", info->reclaim_entries);
	cow_json_number(&json, "cache_bytes", info->cache_bytes);
	cow_json_number(&json, "dirty_bytes", info->dirty_bytes);
	cow_json_close(&json, '}');
	cow_json_end(&json);
}

static void convert(const struct cow_ioc_info *from, struct cow_info *to)
{
	*to = (struct cow_info){
		.format_version = from->format_version,
		.read_only = from->read_only != 0,
		.generation = from->generation,
		.total_blocks = from->total_blocks,
		.free_blocks = from->free_blocks,
		.reserved_blocks = from->reserved_blocks,
		.system_blocks = from->system_blocks,
		.reclaim_entries = from->reclaim_entries,
		.files = from->files,
		.directories = from->directories,
		.cache_bytes = from->cache_bytes,
		.dirty_bytes = from->dirty_bytes,
	};
	memcpy(to->uuid, from->uuid, sizeof(to->uuid));
}

/* 0 and *info, -ENOTTY if `path` is not on a mount, -errno. */
static int ask_mount(const char *path, struct cow_info *info, struct cow_ioc_info *args)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), error;

	if (fd < 0)
		return -errno;
	error = cow_place_try_ioctl(fd, COW_IOC_INFO, args);
	close(fd);
	args->image[sizeof(args->image) - 1] = '\0';
	if (error == 0)
		convert(args, info);
	return error;
}

static int ask_image(const char *image, struct cow_info *info)
{
	struct cow_open_options options = {.read_only = true, .no_threads = true};
	struct cow_volume *volume;
	int error = cow_open(image, &options, &volume);

	if (error != 0)
		return error;
	error = cow_info(volume, info);
	cow_close(volume);
	return error;
}

static int show(const struct cow_cli *cli, const char *path, bool as_json)
{
	struct cow_ioc_info args = {0};
	struct cow_info info;
	struct stat st;
	bool mounted = true;
	int error;

	if (stat(path, &st) != 0)
		return cow_say_error(cli, path, -errno);
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return cow_say(cli, "%s: is neither an image nor a directory", path);
	error = ask_mount(path, &info, &args);
	if (error == -ENOTTY && S_ISDIR(st.st_mode))
		return cow_say(cli, "%s: is not on a cowlinks mount", path);
	if (error == -ENOTTY) {
		error = ask_image(path, &info);
		mounted = false;
	}
	if (error != 0)
		return cow_say_error(cli, path, error);
	(as_json ? print_json : print_text)(&info, mounted ? args.image : path, mounted);
	return COW_EXIT_OK;
}

int cow_verb_info(struct cow_cli *cli, int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, COW_OPTION_HELP},
		{NULL, 0, NULL, 0},
	};
	bool as_json = false;
	int option;

	while ((option = getopt_long(argc, argv, "j", options, NULL)) != -1) {
		switch (option) {
		case 'j': as_json = true; break;
		case COW_OPTION_HELP: return cow_say_help(cli);
		default: return cow_say_usage(cli, NULL);
		}
	}
	if (argc - optind != 1)
		return cow_say_usage(cli, "give one image or directory");
	return show(cli, argv[optind], as_json);
}
