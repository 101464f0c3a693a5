/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A base file holds the blocks of an image that are in use, without their zeros: for each block u32 number, u16 pieces,
 * and for each piece u16 offset, u16 length, bytes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/map.h"
#include "base/mem.h"
#include "test/fuzz/fuzz.h"

#define BASE_BYTES (16ull << 20)

struct fuzz_disk {
	struct cow_dev dev;
	struct cow_map base; /* block -> its bytes */
	struct cow_map now;  /* the same for those that were written since */
};

static const uint8_t *look(struct fuzz_disk *disk, uint64_t block)
{
	const uint8_t *bytes = cow_map_get(&disk->now, block);

	return bytes != NULL ? bytes : cow_map_get(&disk->base, block);
}

uint8_t *fuzz_disk_block(struct fuzz_disk *disk, uint64_t block)
{
	uint8_t *bytes = cow_map_get(&disk->now, block);
	const uint8_t *old;

	if (bytes != NULL)
		return bytes;
	old = cow_map_get(&disk->base, block);
	bytes = old != NULL ? cow_mem_copy(old, COW_BLOCK) : cow_mem_new(COW_BLOCK);
	cow_map_put(&disk->now, block, bytes);
	return bytes;
}

static int disk_read(struct cow_dev *dev, void *buffer, size_t length, uint64_t offset)
{
	struct fuzz_disk *disk = (struct fuzz_disk *)dev;

	if (offset > dev->size_bytes || length > dev->size_bytes - offset)
		return -EIO;
	for (size_t done = 0; done < length; done += COW_BLOCK) {
		const uint8_t *bytes = look(disk, (offset + done) / COW_BLOCK);

		if (bytes != NULL)
			memcpy((uint8_t *)buffer + done, bytes, COW_BLOCK);
		else
			memset((uint8_t *)buffer + done, 0, COW_BLOCK);
	}
	return 0;
}

static int disk_write(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset)
{
	struct fuzz_disk *disk = (struct fuzz_disk *)dev;

	if (offset > dev->size_bytes || length > dev->size_bytes - offset)
		return -EIO;
	for (size_t done = 0; done < length; done += COW_BLOCK)
		memcpy(fuzz_disk_block(disk, (offset + done) / COW_BLOCK), (const uint8_t *)buffer + done, COW_BLOCK);
	return 0;
}

static int disk_flush(struct cow_dev *dev)
{
	(void)dev;
	return 0;
}

static int disk_ensure(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	return offset > dev->size_bytes || length > dev->size_bytes - offset ? -ENOSPC : 0;
}

static void disk_discard(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	(void)dev, (void)offset, (void)length;
}

static void disk_close(struct cow_dev *dev)
{
	(void)dev;
}

static const struct cow_dev_ops disk_ops = {
	.read = disk_read,
	.write = disk_write,
	.write_through = disk_write,
	.flush = disk_flush,
	.ensure = disk_ensure,
	.discard = disk_discard,
	.close = disk_close,
};

struct cow_dev *fuzz_disk_dev(struct fuzz_disk *disk)
{
	return &disk->dev;
}

void fuzz_disk_reset(struct fuzz_disk *disk, uint64_t size_bytes)
{
	struct cow_map_slot *slot;

	for (size_t i = 0; (slot = cow_map_each(&disk->now, &i)) != NULL;)
		free(slot->value);
	cow_map_free(&disk->now);
	disk->now = (struct cow_map){0};
	disk->dev.size_bytes = size_bytes != 0 ? size_bytes : BASE_BYTES;
}

static bool load_block(struct fuzz_disk *disk, FILE *file)
{
	uint8_t head[6], piece[4], *bytes;

	if (fread(head, 1, sizeof(head), file) != sizeof(head))
		return false;
	bytes = cow_mem_new(COW_BLOCK);
	cow_map_put(&disk->base, get32(head), bytes);
	for (unsigned i = 0; i < get16(head + 4); i++)
		if (fread(piece, 1, 4, file) != 4 || get16(piece) + get16(piece + 2) > (int)COW_BLOCK ||
		    fread(bytes + get16(piece), 1, get16(piece + 2), file) != get16(piece + 2))
			abort(); /* the file is ours, and broken */
	return true;
}

struct fuzz_disk *fuzz_disk_load(const char *path)
{
	struct fuzz_disk *disk;
	FILE *file = fopen(path, "rb");

	if (file == NULL) {
		perror(path);
		return NULL;
	}
	disk = cow_mem_new(sizeof(*disk));
	disk->dev.ops = &disk_ops;
	while (load_block(disk, file))
		;
	fclose(file);
	fuzz_disk_reset(disk, 0);
	return disk;
}

/* Pieces that are not zero, with gaps of at least 8 zeros between them. -- their number */
static unsigned save_pieces(const uint8_t *bytes, uint8_t *out, size_t *length)
{
	unsigned pieces = 0;

	*length = 0;
	for (unsigned at = 0; at < COW_BLOCK;) {
		unsigned end, last;

		if (bytes[at] == 0) {
			at++;
			continue;
		}
		for (last = end = at; end < COW_BLOCK && end - last < 8; end++)
			if (bytes[end] != 0)
				last = end;
		put16(out + *length, (uint16_t)at);
		put16(out + *length + 2, (uint16_t)(last + 1 - at));
		memcpy(out + *length + 4, bytes + at, last + 1 - at);
		*length += 4 + last + 1 - at;
		at = last + 1;
		pieces++;
	}
	return pieces;
}

int fuzz_disk_save(struct cow_dev *dev, const uint8_t *used, uint64_t blocks, const char *path)
{
	uint8_t bytes[COW_BLOCK], head[6], out[2 * COW_BLOCK];
	FILE *file = fopen(path, "wb");
	size_t length;
	int result = 0;

	if (file == NULL)
		return -errno;
	for (uint64_t block = 0; block < blocks && result == 0; block++) {
		if (used[block] == 0 || (result = cow_dev_read(dev, bytes, COW_BLOCK, block * COW_BLOCK)) != 0)
			continue;
		put32(head, (uint32_t)block);
		put16(head + 4, (uint16_t)save_pieces(bytes, out, &length));
		if (get16(head + 4) != 0 && (fwrite(head, 1, sizeof(head), file) != sizeof(head) ||
					     fwrite(out, 1, length, file) != length))
			result = -EIO;
	}
	return fclose(file) == 0 ? result : -EIO;
}
