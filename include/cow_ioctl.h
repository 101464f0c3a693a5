/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ioctls by which programs talk to cowfs, on any descriptor of a file or directory of a mounted volume.
 * `cow` is built on them; they are stable.  Sizes stay below the 14 bits that FUSE forwards.
 */
#ifndef COW_IOCTL_H
#define COW_IOCTL_H

#include <linux/ioctl.h>
#include <stdint.h>

/*
 * A one-use secret that stands for the inode behind this descriptor, for this user only; it dies after use, after 60 s,
 * or with the mount.
 */
struct cow_ioc_token { /* EPERM: to those who may not use CLONE, REMOVE, DIFF and SAME */
	uint64_t token;
};
#define COW_IOC_TOKEN _IOR('w', 1, struct cow_ioc_token)

/*
 * CLONE and REMOVE change a directory, and the kernel checks nothing of it: the descriptor may belong to a read-only
 * view of the volume, or to a program that must not write.  So each needs a proof that the kernel has let the caller do
 * the like in this directory by an ordinary call, which it checks in every way.
 *
 *     clone:   TOKEN on a descriptor of the source; mkdir(2) a directory, or for a file open(2) with O_CREAT | O_EXCL,
 *              under the name that has the token in it (there can have been no such name before); CLONE on the
 *              directory that it is in puts the clone in its place; rename(2) gives it its name.  For the source its
 *              descriptor is enough: a program that may list the top of a tree and use CLONE can read all of the tree.
 *     remove:  TOKEN on the directory; rmdir(2) of the tree, which the same thread must try and which fails with
 *              ENOTEMPTY; REMOVE on the directory.
 */
#define COW_IOC_CLONE_NAME ".cow-clone-%016llx" /* the token */
#define COW_IOC_CLONE_NAME_BYTES 32             /* enough for it */

/* Numbers 2 and 3 were CLONE and REMOVE without a proof; they answer EPERM. */
#define COW_IOC_OLD_CLONE_NUMBER 2
#define COW_IOC_OLD_REMOVE_NUMBER 3

/* -- ESTALE (the token is unknown, or not this user's), ENOENT (no such name), EPERM, as cow_clone_over() */
struct cow_ioc_clone {
	uint64_t source; /* token */
	uint32_t flags;  /* COW_CLONE_* */
	uint32_t reserved;
};
#define COW_IOC_CLONE _IOW('w', 12, struct cow_ioc_clone)

/* -- ESTALE (the token is unknown, not this user's or of another directory), EPERM (no proof), ENOENT */
struct cow_ioc_remove {
	uint64_t token;
	char name[256];
};
#define COW_IOC_REMOVE _IOW('w', 13, struct cow_ioc_remove)

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

/*
 * Makes the whole volume durable; with drain, waits for the background reclaim too. What was stored through mappings
 * and is still in the kernel is not a part of it: syncfs(2) before it writes that back.
 */
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
