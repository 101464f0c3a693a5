// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * JSON (RFC 8259), two spaces a level.
 *
 * Names are bytes and need not be UTF-8: a byte that is not part of a valid sequence is written as the lone surrogate
 * \udc80 to \udcff (0xdc00 + the byte), as Python's "surrogateescape" does, so that names survive the round trip.
 */
#include "cli/cli.h"

#include <time.h>

static void next(struct cow_json *json, const char *key)
{
	if (!json->first)
		fputc(',', json->out);
	if (json->depth > 0)
		fputc('\n', json->out);
	for (unsigned i = 0; i < json->depth; i++)
		fputs("  ", json->out);
	json->first = false;
	if (key != NULL)
		fprintf(json->out, "\"%s\": ", key);
}

void cow_json_begin(struct cow_json *json, FILE *out)
{
	*json = (struct cow_json){.out = out, .first = true};
}

void cow_json_end(struct cow_json *json)
{
	fputc('\n', json->out);
}

void cow_json_open(struct cow_json *json, const char *key, char bracket)
{
	next(json, key);
	fputc(bracket, json->out);
	json->depth++;
	json->first = true;
}

void cow_json_close(struct cow_json *json, char bracket)
{
	json->depth--;
	if (!json->first) {
		fputc('\n', json->out);
		for (unsigned i = 0; i < json->depth; i++)
			fputs("  ", json->out);
	}
	fputc(bracket, json->out);
	json->first = false;
}

void cow_json_number(struct cow_json *json, const char *key, uint64_t value)
{
	next(json, key);
	fprintf(json->out, "%llu", (unsigned long long)value);
}

void cow_json_bool(struct cow_json *json, const char *key, bool value)
{
	next(json, key);
	fputs(value ? "true" : "false", json->out);
}

void cow_json_time(struct cow_json *json, const char *key, const struct timespec *when)
{
	next(json, key);
	fprintf(json->out, "\"%lld.%09ld\"", (long long)when->tv_sec, (long)when->tv_nsec);
}

void cow_json_mode(struct cow_json *json, const char *key, uint32_t mode)
{
	next(json, key);
	fprintf(json->out, "\"%07o\"", (unsigned)mode);
}

/* Length of the valid UTF-8 sequence at p (no surrogates, nothing overlong, at most U+10FFFF), or 0. */
static unsigned sequence(const unsigned char *p)
{
	unsigned length = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	for (unsigned i = 1; i < length; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
	    (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return length;
}

static void string(FILE *out, const char *value)
{
	const unsigned char *p = (const unsigned char *)value;
	unsigned length;

	fputc('"', out);
	while (*p != '\0') {
		if (*p == '"' || *p == '\\') {
			fputc('\\', out);
			fputc(*p++, out);
		} else if (*p < 0x20 || *p == 0x7f) {
			fprintf(out, "\\u%04x", *p++);
		} else if (*p < 0x80) {
			fputc(*p++, out);
		} else if ((length = sequence(p)) != 0) {
			fwrite(p, 1, length, out);
			p += length;
		} else {
			fprintf(out, "\\udc%02x", *p++);
		}
	}
	fputc('"', out);
}

void cow_json_text(struct cow_json *json, const char *key, const char *value)
{
	next(json, key);
	if (value == NULL)
		fputs("null", json->out);
	else
		string(json->out, value);
}
