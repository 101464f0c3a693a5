/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit/undo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "cow.h"

#define HEAD 64u
#define ITEM (16u + COW_BLOCK)

static const char magic[8] = "cowundo1";

/* ------------------------------------------------------------------ saving */

static int save_block(FILE *file, struct cow_dev *dev, uint64_t block)
{
	uint8_t bytes[ITEM];

	/* What cannot be read cannot be brought back either, and nothing needs it: it is saved as zeros. */
	if (cow_dev_read(dev, bytes + 16, COW_BLOCK, block << COW_BLOCK_SHIFT) != 0)
		memset(bytes + 16, 0, COW_BLOCK);
	put64(bytes, block);
	put64(bytes + 8, XXH3_64bits(bytes + 16, COW_BLOCK));
	return fwrite(bytes, sizeof(bytes), 1, file) == 1 ? 0 : -EIO;
}

int cow_undo_save(const char *path, const struct cow_undo *undo, struct cow_dev *dev, const uint64_t *blocks,
		  size_t count)
{
	uint8_t head[HEAD] = {0};
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), error;
	FILE *file = fd >= 0 ? fdopen(fd, "wb") : NULL;

	if (file == NULL)
		return -errno;
	memcpy(head, magic, sizeof(magic));
	put64(head + 8, count);
	memcpy(head + 16, undo->uuid, sizeof(undo->uuid));
	put64(head + 32, undo->before);
	put64(head + 40, undo->after);
	put64(head + 56, XXH3_64bits(head, 56));
	error = fwrite(head, sizeof(head), 1, file) == 1 ? 0 : -EIO;
	for (size_t i = 0; i < count && error == 0; i++)
		error = save_block(file, dev, blocks[i]);
	if (fflush(file) != 0 || fsync(fd) != 0)
		error = errno != 0 ? -errno : -EIO;
	fclose(file);
	if (error == 0)
		error = cow_dev_file_sync_name(path);
	if (error != 0)
		unlink(path);
	return error;
}

/* ------------------------------------------------------------------ bringing back */

static int read_head(FILE *file, struct cow_undo *undo, uint64_t *count)
{
	uint8_t head[HEAD];
	long end;

	if (fread(head, sizeof(head), 1, file) != 1 || memcmp(head, magic, sizeof(magic)) != 0)
		return -EINVAL;
	if (get64(head + 56) != XXH3_64bits(head, 56))
		return COW_ERR_DAMAGED;
	*count = get64(head + 8);
	memcpy(undo->uuid, head + 16, sizeof(undo->uuid));
	undo->before = get64(head + 32);
	undo->after = get64(head + 40);
	if (fseek(file, 0, SEEK_END) != 0 || (end = ftell(file)) < 0)
		return -EIO;
	return *count <= (uint64_t)end / ITEM && (uint64_t)end == HEAD + *count * ITEM ? 0 : COW_ERR_DAMAGED;
}

/* Goes over the blocks: only looks, or writes those of the ring (before) or the others. */
enum step { LOOK, RING, REST };

static int each_block(FILE *file, struct cow_dev *dev, uint64_t count, enum step step)
{
	uint8_t bytes[ITEM];

	if (fseek(file, HEAD, SEEK_SET) != 0)
		return -EIO;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t block;
		int error = 0;

		if (fread(bytes, sizeof(bytes), 1, file) != 1)
			return -EIO;
		block = get64(bytes);
		if (get64(bytes + 8) != XXH3_64bits(bytes + 16, COW_BLOCK) || block >= dev->size_bytes / COW_BLOCK)
			return COW_ERR_DAMAGED;
		if ((step == RING && block < COW_SLOT_FIRST) || (step == REST && block >= COW_SLOT_FIRST))
			error = cow_dev_write(dev, bytes + 16, COW_BLOCK, block << COW_BLOCK_SHIFT);
		if (error != 0)
			return error;
	}
	return step == LOOK ? 0 : cow_dev_flush(dev);
}

/* Is the volume as the repair left it, or on the way back already? */
static int judge(struct cow_dev *dev, const struct cow_undo *undo)
{
	struct cow_super super;
	bool decayed;
	int error = cow_super_read(dev, &super, &decayed);

	if (error != 0)
		return error == COW_ERR_DAMAGED ? 0 : error;
	if (memcmp(super.uuid, undo->uuid, sizeof(super.uuid)) != 0)
		return -ESTALE;
	return super.generation == undo->after || super.generation == undo->before ? 0 : -ESTALE;
}

int cow_undo_restore(const char *path, struct cow_dev *dev)
{
	FILE *file = fopen(path, "rbe");
	struct cow_undo undo;
	uint64_t count;
	int error;

	if (file == NULL)
		return -errno;
	error = read_head(file, &undo, &count);
	if (error == 0)
		error = judge(dev, &undo);
	if (error == 0)
		error = each_block(file, dev, count, LOOK);
	/* The ring first: from then on the old generation is the volume, which has none of the other blocks. */
	if (error == 0)
		error = each_block(file, dev, count, RING);
	if (error == 0)
		error = each_block(file, dev, count, REST);
	fclose(file);
	return error;
}
