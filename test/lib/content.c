/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "test/lib/content.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct content *content_new(void)
{
	struct content *c = cow_mem_new(sizeof(*c));

	c->refs = 1;
	return c;
}

struct content *content_hold(struct content *c)
{
	c->refs++;
	return c;
}

static void put_page(struct content_page *page)
{
	if (--page->refs == 0)
		free(page);
}

void content_put(struct content *c)
{
	if (c == NULL || --c->refs > 0)
		return;
	for (unsigned i = 0; i < c->count; i++)
		put_page(c->slots[i].page);
	free(c->slots);
	free(c);
}

/* The first slot at or after page `at`. */
static unsigned find_slot(const struct content *c, uint64_t at)
{
	unsigned low = 0, high = c->count;

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (c->slots[mid].at < at)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static const struct content_page *page_at(const struct content *c, uint64_t at)
{
	unsigned i = find_slot(c, at);

	return i < c->count && c->slots[i].at == at ? c->slots[i].page : NULL;
}

static bool is_zero(const struct content_page *page)
{
	return page == NULL || (page->bytes[0] == 0 && memcmp(page->bytes, page->bytes + 1, CONTENT_PAGE - 1) == 0);
}

bool content_equal(const struct content *a, const struct content *b)
{
	unsigned i = 0, j = 0;

	if (a == b)
		return true;
	if (a->size != b->size)
		return false;
	while (i < a->count || j < b->count) {
		uint64_t x = i < a->count ? a->slots[i].at : UINT64_MAX, y = j < b->count ? b->slots[j].at : UINT64_MAX;

		if (x < y) {
			if (!is_zero(a->slots[i++].page))
				return false;
		} else if (y < x) {
			if (!is_zero(b->slots[j++].page))
				return false;
		} else {
			if (a->slots[i].page != b->slots[j].page &&
			    memcmp(a->slots[i].page->bytes, b->slots[j].page->bytes, CONTENT_PAGE) != 0)
				return false;
			i++;
			j++;
		}
	}
	return true;
}

/* Makes *content one that nobody else holds. */
static struct content *own(struct content **content)
{
	struct content *old = *content, *c;

	if (old->refs == 1)
		return old;
	c = content_new();
	c->size = old->size;
	c->count = old->count;
	if (c->count > 0)
		c->slots = cow_mem_copy(old->slots, c->count * sizeof(*c->slots));
	for (unsigned i = 0; i < c->count; i++)
		c->slots[i].page->refs++;
	content_put(old);
	*content = c;
	return c;
}

/* The page, private, made if it is not there. */
static struct content_page *own_page(struct content *c, uint64_t at)
{
	unsigned i = find_slot(c, at);
	struct content_page *page;

	if (i == c->count || c->slots[i].at != at) {
		c->slots = cow_mem_resize(c->slots, (c->count + 1) * sizeof(*c->slots));
		memmove(c->slots + i + 1, c->slots + i, (c->count - i) * sizeof(*c->slots));
		c->count++;
		page = cow_mem_new(sizeof(*page));
	} else if (c->slots[i].page->refs > 1) {
		page = cow_mem_copy(c->slots[i].page, sizeof(*page));
		c->slots[i].page->refs--;
	} else {
		return c->slots[i].page;
	}
	page->refs = 1;
	c->slots[i] = (struct content_slot){at, page};
	return page;
}

void content_write(struct content **content, const void *bytes, size_t length, uint64_t offset)
{
	struct content *c = own(content);
	const uint8_t *from = bytes;

	if (length > 0 && offset + length > c->size)
		c->size = offset + length;
	while (length > 0) {
		size_t in = offset % CONTENT_PAGE, n = CONTENT_PAGE - in < length ? CONTENT_PAGE - in : length;

		memcpy(own_page(c, offset / CONTENT_PAGE)->bytes + in, from, n);
		from += n;
		offset += n;
		length -= n;
	}
}

/* Takes the slots from number `first` up to `end` out. */
static void cut_slots(struct content *c, unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++)
		put_page(c->slots[i].page);
	if (end < c->count)
		memmove(c->slots + first, c->slots + end, (c->count - end) * sizeof(*c->slots));
	c->count -= end - first;
}

/* Clears bytes inside one page. */
static void zero_part(struct content *c, uint64_t offset, size_t n)
{
	if (n > 0 && page_at(c, offset / CONTENT_PAGE) != NULL)
		memset(own_page(c, offset / CONTENT_PAGE)->bytes + offset % CONTENT_PAGE, 0, n);
}

void content_zero(struct content **content, uint64_t offset, uint64_t length)
{
	struct content *c = own(content);
	uint64_t head = (CONTENT_PAGE - offset % CONTENT_PAGE) % CONTENT_PAGE, first;

	if (head > length)
		head = length;
	zero_part(c, offset, head);
	offset += head;
	length -= head;
	first = offset / CONTENT_PAGE;
	if (length >= CONTENT_PAGE)
		cut_slots(c, find_slot(c, first), find_slot(c, first + length / CONTENT_PAGE));
	zero_part(c, offset + length / CONTENT_PAGE * CONTENT_PAGE, length % CONTENT_PAGE);
}

void content_truncate(struct content **content, uint64_t size)
{
	struct content *c = own(content);

	if (size < c->size)
		content_zero(content, size, c->size - size + CONTENT_PAGE);
	(*content)->size = size;
}

void content_read(const struct content *c, void *bytes, size_t length, uint64_t offset)
{
	uint8_t *to = bytes;

	while (length > 0) {
		size_t in = offset % CONTENT_PAGE, n = CONTENT_PAGE - in < length ? CONTENT_PAGE - in : length;
		const struct content_page *page = page_at(c, offset / CONTENT_PAGE);

		if (page != NULL)
			memcpy(to, page->bytes + in, n);
		else
			memset(to, 0, n);
		to += n;
		offset += n;
		length -= n;
	}
}

void content_pattern(uint64_t seed, uint64_t offset, void *bytes, size_t length)
{
	uint8_t *to = bytes;

	while (length > 0) {
		uint64_t word = (offset / 8 + 1) * 0x9e3779b97f4a7c15ull ^ seed * 0xd6e8feb86659fd93ull;
		size_t in = offset % 8, n = 8 - in < length ? 8 - in : length;

		word = (word ^ word >> 32) * 0xd6e8feb86659fd93ull;
		word ^= word >> 29;
		memcpy(to, (uint8_t *)&word + in, n);
		to += n;
		offset += n;
		length -= n;
	}
}
