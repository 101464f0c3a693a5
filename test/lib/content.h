/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a file contains, for the oracle: an immutable, shared, sparse array of bytes. */
#ifndef COW_TEST_LIB_CONTENT_H
#define COW_TEST_LIB_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONTENT_PAGE 4096u

struct content_page {
	unsigned refs;
	uint8_t bytes[CONTENT_PAGE];
};

struct content_slot {
	uint64_t at; /* page number */
	struct content_page *page;
};

struct content {
	unsigned refs;
	uint64_t size;
	unsigned count;
	struct content_slot *slots; /* ascending; what is missing is zero */
};

struct content *content_new(void);
struct content *content_hold(struct content *content);
void content_put(struct content *content);
bool content_equal(const struct content *a, const struct content *b);
/* These replace *content by a changed one. */
void content_write(struct content **content, const void *bytes, size_t length, uint64_t offset);
void content_truncate(struct content **content, uint64_t size);
void content_zero(struct content **content, uint64_t offset, uint64_t length); /* does not change the size */
/* Bytes of the range, zeros beyond the end. */
void content_read(const struct content *content, void *bytes, size_t length, uint64_t offset);

/* The bytes that a seed stands for at a position: equal seeds write equal bytes at equal places. */
void content_pattern(uint64_t seed, uint64_t offset, void *bytes, size_t length);

#endif
