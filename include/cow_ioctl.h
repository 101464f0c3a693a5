/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ioctls by which programs talk to cowfs, on any descriptor of a file or directory of a mounted volume.
 * `cow` is built on them; they are stable.  Sizes stay below the 14 bits that FUSE forwards.
 */
#ifndef COW_IOCTL_H
#define COW_IOCTL_H

#include <linux/ioctl.h>
#include <stdint.h>

/* A one-use name for the inode behind this descriptor; it dies after use, after 60 s, or with the mount. */
struct cow_ioc_token {
	uint64_t token;
};
#define COW_IOC_TOKEN _IOR('w', 1, struct cow_ioc_token)

/* On a directory that holds `name`, an empty directory or file of the caller's: put a clone in its place. */
struct cow_ioc_clone {
	uint64_t source; /* token */
	uint32_t flags;  /* COW_CLONE_* */
	uint32_t reserved;
	char name[256];
};
#define COW_IOC_CLONE _IOW('w', 2, struct cow_ioc_clone)

/* On a directory: remove the tree or file `name` in one step. */
struct cow_ioc_remove {
	char name[256];
};
#define COW_IOC_REMOVE _IOW('w', 3, struct cow_ioc_remove)

struct cow_ioc_usage {
	uint32_t with_exclusive; /* in */
	uint32_t reserved;
	uint64_t files, directories, apparent_bytes, total_bytes, exclusive_bytes;
};
#define COW_IOC_USAGE _IOWR('w', 4, struct cow_ioc_usage)

/* On NEW: compares with OLD. The answer waits as a byte string of `size` bytes, read with COW_IOC_RESULT. */
struct cow_ioc_diff {
	uint64_t old_token; /* in */
	uint32_t expand;    /* in */
	uint32_t reserved;
	uint64_t result;    /* out: its id; dies when read to its end, after 60 s unread, or with the mount */
	uint64_t size;      /* out */
};
#define COW_IOC_DIFF _IOWR('w', 5, struct cow_ioc_diff)
/*
 * One change in the answer, little-endian: u8 type, u8 content, u16 path length, u16 old path length, u16 0,
 * u32 old mode, u32 new mode, then the path and the old path, no NULs, no padding.
 */
struct cow_ioc_result {
	uint64_t result; /* in */
	uint64_t offset; /* in */
	uint32_t length; /* out: bytes in data, 0 at the end */
	uint32_t reserved;
	uint8_t data[8192];
};
#define COW_IOC_RESULT _IOWR('w', 6, struct cow_ioc_result)

struct cow_ioc_same {
	uint64_t other_token; /* in */
	uint32_t same;        /* out */
	uint32_t reserved;
};
#define COW_IOC_SAME _IOWR('w', 7, struct cow_ioc_same)

/* Makes the whole volume durable; with drain, waits for the background reclaim too. */
struct cow_ioc_sync {
	uint32_t drain;
	uint32_t reserved;
};
#define COW_IOC_SYNC _IOW('w', 8, struct cow_ioc_sync)

struct cow_ioc_info {
	uint8_t uuid[16];
	uint32_t format_version;
	uint32_t read_only;
	uint64_t generation, total_blocks, free_blocks, reserved_blocks, system_blocks, reclaim_entries;
	uint64_t files, directories, cache_bytes, dirty_bytes;
	char image[1024]; /* path of the image as mounted */
};
#define COW_IOC_INFO _IOR('w', 9, struct cow_ioc_info)

struct cow_ioc_stat {
	uint64_t ino, size, blocks;
	uint32_t mode, nlink, uid, gid, rdev, is_clone, read_only, reserved;
	uint64_t btime_s;
	uint32_t btime_ns, reserved2;
	uint64_t files, directories, apparent_bytes, total_bytes; /* recursive totals */
};
#define COW_IOC_STAT _IOR('w', 10, struct cow_ioc_stat)

/*
 * A scrub of the volume (cow_scrub()), one at a time (EBUSY). START begins one, LOOK tells how far it is and hands out
 * its findings from `offset` on, STOP ends it. It ends by itself if nobody has looked for a minute.
 */
enum { COW_SCRUB_START, COW_SCRUB_LOOK, COW_SCRUB_STOP };
struct cow_ioc_scrub {
	uint32_t action;  /* in */
	uint32_t running; /* out */
	int32_t error;    /* out: not running: 0 if it came to its end, or -errno */
	uint32_t length;  /* out: bytes in data */
	uint64_t run;     /* LOOK, STOP: in; START: out: which one */
	uint64_t offset;  /* in: LOOK */
	uint64_t bytes_per_second; /* in: START; 0: no limit */
	uint64_t findings, blocks, used_blocks, nodes, data_blocks, count_blocks, superblocks; /* out */
	uint8_t data[8192];
};
#define COW_IOC_SCRUB _IOWR('w', 11, struct cow_ioc_scrub)
/*
 * One finding in the answer, little-endian: u64 block, i64 offset (-1: none), u16 path length (0: none), u16 text
 * length, u32 0, then the path and the text, no NULs, no padding.
 */
#define COW_SCRUB_HEAD 24u

#endif
