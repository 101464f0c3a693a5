/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/op.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Verb and fields: a, b paths; n name; h handle; f flag; x, y, z numbers. The order is that of a reader: what, where.
 */
static const struct {
	const char *verb, *fields;
} table[OP_COUNT] = {
	[OP_MKDIR] = {"mkdir", "anx"},
	[OP_CREATE] = {"create", "anx"},
	[OP_NODE] = {"node", "anxy"},
	[OP_CREATE_AT] = {"create_at", "hnx"},
	[OP_TMPFILE] = {"tmpfile", "ha"},
	[OP_LINK_AT] = {"link_at", "han"},
	[OP_WRITE] = {"write", "axyz"},
	[OP_WRITE_AT] = {"write_at", "hxyz"},
	[OP_APPEND] = {"append", "ayz"},
	[OP_TRUNCATE] = {"truncate", "ax"},
	[OP_TRUNCATE_AT] = {"truncate_at", "hx"},
	[OP_PUNCH] = {"punch", "axy"},
	[OP_ZERO] = {"zero", "axyf"},
	[OP_ALLOCATE] = {"allocate", "axyf"},
	[OP_COPY] = {"copy", "abxyz"},
	[OP_CHMOD] = {"chmod", "ax"},
	[OP_CHMOD_AT] = {"chmod_at", "hx"},
	[OP_CHOWN] = {"chown", "axy"},
	[OP_UTIME] = {"utime", "ax"},
	[OP_SETXATTR] = {"setxattr", "anyzf"},
	[OP_RMXATTR] = {"rmxattr", "an"},
	[OP_LINK] = {"link", "abn"},
	[OP_UNLINK] = {"unlink", "a"},
	[OP_RMDIR] = {"rmdir", "a"},
	[OP_REMOVE] = {"remove", "a"},
	[OP_RENAME] = {"rename", "abnf"},
	[OP_CLONE] = {"clone", "abnf"},
	[OP_CLONE_AT] = {"clone_at", "hbn"},
	[OP_CLONE_OVER] = {"clone_over", "abnf"},
	[OP_MANY] = {"many", "anxf"},
	[OP_CLEAR] = {"clear", "a"},
	[OP_OPEN] = {"open", "ha"},
	[OP_CLOSE] = {"close", "h"},
	[OP_READ] = {"read", "a"},
	[OP_STAT] = {"stat", "a"},
	[OP_STATALL] = {"statall", ""},
	[OP_TOTALS] = {"totals", ""},
	[OP_EXCLUSIVE] = {"exclusive", "a"},
	[OP_DIFF] = {"diff", "ab"},
	[OP_SAME] = {"same", "ab"},
	[OP_DRAIN] = {"drain", ""},
	[OP_RECLAIM] = {"reclaim", "x"},
	[OP_SYNC] = {"sync", ""},
	[OP_FSYNC] = {"fsync", "a"},
	[OP_FSYNC_AT] = {"fsync_at", "h"},
	[OP_CRASH] = {"crash", ""},
	[OP_REMOUNT] = {"remount", ""},
	[OP_FORGET] = {"forget", ""},
	[OP_PROBE] = {"probe", ""},
};

const char *op_verb(enum op_kind kind)
{
	return table[kind].verb;
}

void op_format(const struct op *op, char *text, size_t size)
{
	size_t used = (size_t)snprintf(text, size, "%s", table[op->kind].verb);

	for (const char *f = table[op->kind].fields; *f != 0 && used < size; f++) {
		char field[ORA_PATH + 1];

		switch (*f) {
		case 'a': snprintf(field, sizeof(field), "%s", op->a); break;
		case 'b': snprintf(field, sizeof(field), "%s", op->b); break;
		case 'n': snprintf(field, sizeof(field), "%s", op->name); break;
		case 'h': snprintf(field, sizeof(field), "%u", op->handle); break;
		case 'f': snprintf(field, sizeof(field), "%u", op->flag); break;
		case 'x': snprintf(field, sizeof(field), "%" PRIu64, op->x); break;
		case 'y': snprintf(field, sizeof(field), "%" PRIu64, op->y); break;
		default: snprintf(field, sizeof(field), "%" PRIu64, op->z); break;
		}
		used += (size_t)snprintf(text + used, size - used, " %s", field);
	}
}

/* One word into the field it is for. */
static bool parse_field(char field, const char *word, struct op *op)
{
	char *end = NULL;
	uint64_t number = strtoull(word, &end, 0);
	bool is_number = end != word && *end == 0;

	switch (field) {
	case 'a': return (size_t)snprintf(op->a, ORA_PATH, "%s", word) < ORA_PATH;
	case 'b': return (size_t)snprintf(op->b, ORA_PATH, "%s", word) < ORA_PATH;
	case 'n': return (size_t)snprintf(op->name, ORA_NAME, "%s", word) < ORA_NAME;
	case 'h': op->handle = (uint8_t)number; return is_number && number < ORA_HANDLES;
	case 'f': op->flag = (uint8_t)number; return is_number && number < 256;
	case 'x': op->x = number; return is_number;
	case 'y': op->y = number; return is_number;
	default: op->z = number; return is_number;
	}
}

bool op_parse(const char *text, struct op *op)
{
	char copy[2 * ORA_PATH + 128], *save = NULL, *word;
	const char *f;
	unsigned kind;

	memset(op, 0, sizeof(*op));
	if (snprintf(copy, sizeof(copy), "%s", text) >= (int)sizeof(copy))
		return false;
	word = strtok_r(copy, " \t\n", &save);
	if (word == NULL)
		return false;
	for (kind = 0; kind < OP_COUNT && strcmp(table[kind].verb, word) != 0;)
		kind++;
	if (kind == OP_COUNT)
		return false;
	op->kind = (uint8_t)kind;
	for (f = table[kind].fields; *f != 0; f++) {
		word = strtok_r(NULL, " \t\n", &save);
		if (word == NULL || !parse_field(*f, word, op))
			return false;
	}
	return strtok_r(NULL, " \t\n", &save) == NULL;
}
