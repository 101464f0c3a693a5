/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A device: an array of bytes that survives, with writes that are durable only after a flush.
 *
 * Implementations: dev_file.c (image file or block device), dev_overlay.c, dev_sim.c (memory, records writes and
 * flushes, cuts the power, fails on request). All calls are thread-safe; offsets and lengths are multiples of 4,096,
 * and buffers of write_direct and write_through are aligned to as much.
 */
#ifndef COW_DEV_DEV_H
#define COW_DEV_DEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define COW_DEV_PARTS_MAX 256u /* of one write_direct */

struct cow_dev;

struct cow_dev_ops {
	int (*read)(struct cow_dev *dev, void *buffer, size_t length, uint64_t offset);
	int (*write)(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset);
	/* The same for up to COW_DEV_PARTS_MAX parts, one behind the other, past the host's cache: for much data at
	 * once that nobody is about to read. NULL: write does it. */
	int (*write_direct)(struct cow_dev *dev, const struct iovec *parts, size_t count, uint64_t offset);
	int (*flush)(struct cow_dev *dev);
	/* Writes, and returns when these bytes are durable. Says nothing about other writes, and waits for none. */
	int (*write_through)(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset);
	/* Makes sure that writes to this range cannot fail for lack of space on the host. -ENOSPC. */
	int (*ensure)(struct cow_dev *dev, uint64_t offset, uint64_t length);
	/* The content of this range is not needed any more; a hint. */
	void (*discard)(struct cow_dev *dev, uint64_t offset, uint64_t length);
	void (*close)(struct cow_dev *dev);
};

struct cow_dev {
	const struct cow_dev_ops *ops;
	uint64_t size_bytes; /* what can be read; a file may be sparse, reads beyond its end give zeros */
};

/* All return 0 or -errno; a short read or write is -EIO. */
static inline int cow_dev_read(struct cow_dev *dev, void *buffer, size_t length, uint64_t offset)
{
	return dev->ops->read(dev, buffer, length, offset);
}
static inline int cow_dev_write(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset)
{
	return dev->ops->write(dev, buffer, length, offset);
}
/* One part after the other. */
static inline int cow_dev_write_parts(struct cow_dev *dev, const struct iovec *parts, size_t count, uint64_t offset)
{
	int error = 0;

	for (size_t i = 0; i < count && error == 0; offset += parts[i++].iov_len)
		error = cow_dev_write(dev, parts[i].iov_base, parts[i].iov_len, offset);
	return error;
}
static inline int cow_dev_write_direct(struct cow_dev *dev, const struct iovec *parts, size_t count, uint64_t offset)
{
	return dev->ops->write_direct != NULL ? dev->ops->write_direct(dev, parts, count, offset)
					      : cow_dev_write_parts(dev, parts, count, offset);
}
static inline int cow_dev_flush(struct cow_dev *dev) { return dev->ops->flush(dev); }
static inline int cow_dev_write_through(struct cow_dev *dev, const void *buffer, size_t length, uint64_t offset)
{
	return dev->ops->write_through(dev, buffer, length, offset);
}
static inline int cow_dev_ensure(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	return dev->ops->ensure(dev, offset, length);
}
static inline void cow_dev_discard(struct cow_dev *dev, uint64_t offset, uint64_t length)
{
	dev->ops->discard(dev, offset, length);
}
static inline void cow_dev_close(struct cow_dev *dev) { dev->ops->close(dev); }

enum cow_dev_mode { COW_DEV_READ, COW_DEV_WRITE, COW_DEV_CREATE };

/*
 * Opens an image file or block device and locks it (exclusive for WRITE and CREATE, shared for READ).
 * CREATE makes the file if there is none, with mode 0600 and a durable name; one that is there keeps its mode.
 * -- -EBUSY: locked by somebody else; WRITE: -EFBIG, its end cannot be written under RLIMIT_FSIZE; errors of open(2).
 */
int cow_dev_file_open(const char *path, enum cow_dev_mode mode, struct cow_dev **dev);
/* Makes the name of a new file durable, which is the directory's. */
int cow_dev_file_sync_name(const char *path);
/* Sets the length of an image file (sparse); for a block device checks that it is large enough. -- -ENOSPC */
int cow_dev_file_resize(struct cow_dev *dev, uint64_t size_bytes);
/* True for a block device: its size is what it is. */
bool cow_dev_file_is_block(const struct cow_dev *dev);

#endif
