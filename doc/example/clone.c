/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A first program with libcow: makes a volume and a directory in it, clones the directory, writes in the clone and
 * shows that the original is as it was.
 *
 *     cc clone.c -o clone -lcow       (or with `pkg-config --cflags --libs libcow`)
 *     ./clone /tmp/volume.img
 *
 * The middle part is also in the head of cow.h; a test holds the two together and compares what the program prints.
 */
#include <cow.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Every result below 0 is an error. A real program would give back what it has and go on. */
static void must(int64_t result)
{
	if (result >= 0)
		return;
	fprintf(stderr, "clone: %s\n", cow_error_text((int)result));
	exit(1);
}

static int print_entry(void *context, const struct cow_entry *entry, struct cow_inode *inode,
		       const struct cow_attr *attr)
{
	char text[256];
	int64_t length = cow_read(inode, text, sizeof(text), 0);

	must(length);
	printf("%s/%s, %llu bytes:\n%.*s", (const char *)context, entry->name, (unsigned long long)attr->size,
	       (int)length, text);
	cow_forget(inode, 1); /* the entry's reference is ours */
	return 0;
}

static void print_files(struct cow_inode *directory, char *name)
{
	must(cow_list(directory, 0, true, print_entry, name));
}

static int print_change(void *context, const struct cow_change *change)
{
	(void)context;
	printf("changed: %c %s\n", change->type, change->path);
	return 0;
}

static void example(const char *image)
{
	struct cow_format_options format = {.size_bytes = 64 << 20};
	struct cow_new directory = {.mode = S_IFDIR | 0755}, file = {.mode = S_IFREG | 0644};
	struct cow_inode *root, *project, *notes, *clone;
	struct cow_volume *volume;

	must(cow_format(image, &format));
	must(cow_open(image, NULL, &volume));
	must(cow_root(volume, &root));

	// A directory with a file in it.
	must(cow_create(root, "project", &directory, &project, NULL));
	must(cow_create(project, "notes", &file, &notes, NULL));
	must(cow_write(notes, "one\n", 4, 0, false));
	cow_forget(notes, 1);

	// A clone of the directory. What is written in the clone is not seen in the original.
	must(cow_clone(project, root, "experiment", 0, &clone, NULL));
	must(cow_lookup(clone, "notes", &notes, NULL));
	must(cow_write(notes, "two\n", 4, 4, false));
	cow_forget(notes, 1);

	print_files(project, "project");
	print_files(clone, "experiment");
	must(cow_diff(project, clone, true, print_change, NULL));

	must(cow_sync(volume)); // From here on a crash loses nothing of this.
	cow_forget(clone, 1);
	cow_forget(project, 1);
	cow_forget(root, 1);
	must(cow_close(volume));
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: clone IMAGE\n");
		return 2;
	}
	if (strcmp(cow_version(), COW_VERSION) != 0)
		fprintf(stderr, "clone: compiled with libcow %s, runs with %s\n", COW_VERSION, cow_version());
	example(argv[1]);
	return 0;
}
