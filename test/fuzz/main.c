/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Without libFuzzer: feeds inputs to the target, each under a time limit. An argument is a file of inputs as in corpus/
 * (a line each: number, bytes in hexadecimal digits, what it is), or with --raw before it one input. They are fed in a
 * child; when it dies, a new one goes on with the next input.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "test/fuzz/fuzz.h"

#define SECONDS 120
#define INPUT_MAX (1u << 16)

struct input {
	char *name;
	uint8_t *bytes;
	size_t length;
};

struct inputs {
	struct input *list;
	size_t count;
};

static void add(struct inputs *inputs, const char *name, const uint8_t *bytes, size_t length)
{
	inputs->list = cow_mem_resize(inputs->list, (inputs->count + 1) * sizeof(struct input));
	inputs->list[inputs->count++] =
		(struct input){cow_mem_copy(name, strlen(name) + 1), cow_mem_copy(bytes, length), length};
}

static size_t parse(const char *hex, uint8_t *bytes)
{
	size_t length = 0;
	unsigned byte;

	while (length < INPUT_MAX && isxdigit(hex[2 * length]) && sscanf(hex + 2 * length, "%2x", &byte) == 1)
		bytes[length++] = (uint8_t)byte;
	return length;
}

static void read_lines(struct inputs *inputs, FILE *file, uint8_t *bytes)
{
	char *line = NULL;
	size_t size = 0;
	int hex;

	while (getline(&line, &size, file) > 0) {
		hex = 0;
		line[strcspn(line, "\n")] = 0;
		if (sscanf(line, "%*d %n", &hex) >= 0 && hex > 0)
			add(inputs, line, bytes, parse(line + hex, bytes));
	}
	free(line);
}

static void read_file(struct inputs *inputs, const char *path, bool raw)
{
	uint8_t *bytes = cow_mem_new(INPUT_MAX);
	FILE *file = fopen(path, "rb");

	if (file == NULL) {
		perror(path);
		exit(1);
	}
	if (raw)
		add(inputs, path, bytes, fread(bytes, 1, INPUT_MAX, file));
	else
		read_lines(inputs, file, bytes);
	fclose(file);
	free(bytes);
}

static void feed_from(const struct inputs *inputs, size_t *at)
{
	for (; *at < inputs->count; ++*at) {
		const struct input *input = &inputs->list[*at];
		uint8_t *exact = cow_mem_copy(input->bytes, input->length); /* its end is seen by a sanitizer */

		alarm(SECONDS);
		LLVMFuzzerTestOneInput(exact, input->length);
		free(exact);
	}
	alarm(0);
}

/* -- how many inputs were bad */
static unsigned feed_all(const struct inputs *inputs, size_t *at)
{
	unsigned bad = 0;
	int status;

	for (*at = 0; *at < inputs->count; ++*at) {
		pid_t child;

		fflush(stdout);
		child = fork();
		if (child == 0) {
			feed_from(inputs, at);
			exit(0);
		}
		if (child < 0 || waitpid(child, &status, 0) != child)
			exit(1);
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
			return bad;
		bad++;
		printf("# bad, status %d%s: %s\n", status, *at == inputs->count ? " at the end (a leak?)" : "",
		       *at == inputs->count ? "" : inputs->list[*at].name);
	}
	return bad;
}

int main(int argc, char **argv)
{
	size_t *at = mmap(NULL, sizeof(*at), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct inputs inputs = {0};
	bool raw = false;
	unsigned bad;

	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--raw") == 0)
			raw = true;
		else
			read_file(&inputs, argv[i], raw);
	bad = feed_all(&inputs, at);
	printf("%s 1 - %zu inputs, %u of them bad\n1..1\n", bad == 0 && inputs.count > 0 ? "ok" : "not ok",
	       inputs.count,
	       bad);
	for (size_t i = 0; i < inputs.count; i++) {
		free(inputs.list[i].name);
		free(inputs.list[i].bytes);
	}
	free(inputs.list);
	return bad == 0 && inputs.count > 0 ? 0 : 1;
}
