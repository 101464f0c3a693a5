/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libcow: a copy-on-write file system in one image file or block device. This header is its manual.
 *
 * THE MODEL. A volume holds one tree of directories and files. cow_clone() copies any directory or file, however large,
 * in constant time, and the clone behaves exactly like a copy made by `cp -a`. All calls see the newest state at once;
 * cow_sync() makes it durable. After a crash the volume is exactly at one of its commits, which is not older than the
 * last cow_sync() that returned 0; on top of that commit it has what cow_fsync() promised (see there).
 *
 * GLOSSARY
 *
 *   commit      Makes everything that was changed up to one moment durable, all of it or nothing. The commits of a
 *               volume are numbered; the number is the generation. COMMITS below says which calls make one.
 *   durable     Still there after a crash of the machine or the loss of power.
 *   clone       What cow_clone() makes. A clone and its source share their blocks until one of them is changed, and no
 *               change of one is ever seen in the other. Neither needs the other: either may be removed first.
 *   shared,     A block is shared if more than one place in the volume leads to it. It is exclusive to a tree if only
 *   exclusive   that tree leads to it, so that removing the tree would free it.
 *   world       The part of a volume within which hard links and inode numbers belong together. The root directory is
 *               the top of the first world. Each clone of a directory is the top of a new one, and so is a directory
 *               that was renamed into another world. All names of a hard-linked file lie in one world: cow_link()
 *               across worlds is EXDEV, and so is a cow_rename() that would separate the names of one file.
 *   handle      A struct cow_inode: a reference to an inode in memory. See HANDLES.
 *   orphan      An inode without a name that is still held open.
 *   reclaim     Gives back the blocks of what was removed. This is done in the background, after the removing call has
 *               returned; cow_drain() waits for it.
 *   purge       A clone of a directory begins with the records of all hard-linked files of its source's world, also of
 *               those that have no name in the clone. Purging removes these records. This happens after
 *               cow_remove_tree(), in cow_drain(), and before a call would fail for lack of space.
 *   reserve     Blocks that are kept back, so that a full volume can still commit and remove files.
 *   intent log  A ring of blocks into which cow_fsync() writes what it promises. cow_open() does these operations again
 *               if the volume was not closed: it replays the log.
 *   scrub,      cow_scrub() reads a volume that is in use and verifies all checksums. cow_check() verifies all rules of
 *   check,      the format in a volume that is closed. cow_repair() makes a damaged volume sound again.
 *   repair
 *
 * EXAMPLE. The source has it as doc/example/clone.c, a program of its own. must() ends the program if its argument is
 * an error, print_files() lists a directory with cow_list(), and print_change() prints one change.
 *
 *    struct cow_format_options format = {.size_bytes = 64 << 20};
 *    struct cow_new directory = {.mode = S_IFDIR | 0755}, file = {.mode = S_IFREG | 0644};
 *    struct cow_inode *root, *project, *notes, *clone;
 *    struct cow_volume *volume;
 *
 *    must(cow_format(image, &format));
 *    must(cow_open(image, NULL, &volume));
 *    must(cow_root(volume, &root));
 *
 *    // A directory with a file in it.
 *    must(cow_create(root, "project", &directory, &project, NULL));
 *    must(cow_create(project, "notes", &file, &notes, NULL));
 *    must(cow_write(notes, "one\n", 4, 0, false));
 *    cow_forget(notes, 1);
 *
 *    // A clone of the directory. What is written in the clone is not seen in the original.
 *    must(cow_clone(project, root, "experiment", 0, &clone, NULL));
 *    must(cow_lookup(clone, "notes", &notes, NULL));
 *    must(cow_write(notes, "two\n", 4, 4, false));
 *    cow_forget(notes, 1);
 *
 *    print_files(project, "project");
 *    print_files(clone, "experiment");
 *    must(cow_diff(project, clone, true, print_change, NULL));
 *
 *    must(cow_sync(volume)); // From here on a crash loses nothing of this.
 *    cow_forget(clone, 1);
 *    cow_forget(project, 1);
 *    cow_forget(root, 1);
 *    must(cow_close(volume));
 *
 * HANDLES. A struct cow_inode is a counted reference. Each call that hands one out adds a reference, and the caller
 * gives it back with cow_forget(). A reference keeps the handle valid, but not the file: when the last name of a file
 * is removed its data goes too, unless the inode is held open with cow_hold(), as a descriptor does in POSIX. Calls
 * that look at an inode which is gone fail with ESTALE; only cow_getattr() may still tell its last attributes.
 *
 * NAMES are strings of 1 to 255 bytes without '/', and not "." or "..". They have no encoding.
 *
 * UNITS. Sizes and offsets are in bytes. `blocks` in struct cow_attr counts units of 512 bytes, as stat(2) does. All
 * other numbers of blocks count blocks of COW_BLOCK_BYTES.
 *
 * ERRORS. A result below 0 is an error: either the negative of an errno, as -ENOENT, or one of enum cow_error, which
 * are negative already, as COW_ERR_BUSY. cow_error_errno() finds the errno for either kind, cow_error_text() a line of
 * text. The list at each call names an errno without its sign. It has only the errors of this call. Besides, any call
 * may fail with
 *
 *   EIO              The device failed, or file data does not match its checksum.
 *   COW_ERR_DAMAGED  Something other than file data does not match its checksum, or breaks a rule of the format.
 *   ENOMEM           There is no memory for something whose size the caller or the image determines. Where there is
 *                    none for a small object, the process ends with abort(), and the volume is as after a crash.
 *   ESTALE           The inode of a handle is gone. (If a call would change a directory that is gone, it is ENOENT.)
 *
 * a call that changes something with
 *
 *   EROFS            The volume is read-only: it was opened so, or an error made it so, or the inode is in a read-only
 *                    clone. This is found before most errors of the call's own list.
 *   ENOSPC           The volume is full, or the host has no more space for its image.
 *
 * a call that hands out attributes, or makes an inode, with
 *
 *   EOVERFLOW        All inode numbers have been used (there are 2^53).
 *
 * and a call that commits with ENOSPC, EIO and whatever else the device or its host answers.
 *
 * A call that failed has changed nothing, with these exceptions:
 *
 *   - cow_fallocate() with PUNCH_HOLE or ZERO_RANGE, and cow_copy_range(), change the map of a file with many extents
 *     piece by piece. Lack of space does not interrupt this, but damage, a failing device or lack of memory may: then
 *     some extents inside the range have become holes and others are as before, while the size and the times of the
 *     file have not changed. After a cow_copy_range() that returned fewer bytes than were asked for, this may be so in
 *     the rest of the range.
 *   - A commit that failed has lost nothing as long as `read_only` in cow_info() is false: the changes are still there,
 *     and the next commit tries again. This is so if the host had no space. Any other failure makes the volume
 *     read-only for good. Its calls still show what was changed since the last commit, but it will be gone when the
 *     volume is opened again.
 *   - cow_format() may have created the file, or overwritten a part of what was there. cow_drain() may have done a part
 *     of its work. cow_repair() and cow_repair_undo() say themselves what they leave.
 *   - Buffers and structs of the caller may be partly filled, and callbacks may have been called.
 *
 * COMMITS. These calls commit, on a volume that is not read-only:
 *
 *   cow_sync(), cow_drain(), cow_close(), cow_format()
 *   cow_fsync()        of a directory; otherwise only if the intent log cannot take it
 *   cow_open()         after it has replayed the intent log
 *   cow_diff(), cow_same(), cow_scrub()
 *                      which look at the volume as it is at a commit; cow_scrub() makes one every few seconds
 *   cow_usage()        if it is asked for exclusive blocks, or if there are hard links below the directory
 *   cow_rename()       sometimes, of a directory that has hard links in it and moves to another world
 *   any change         if the volume is short of space, or if it has to wait until buffered data is written
 *
 * Moreover, a thread of the library commits every few seconds (`commit_seconds`), unless `no_threads` was given. No
 * other call commits: after cow_clone(), for example, the clone is there, but not durable before the next commit.
 *
 * THREADS. Calls on one volume may be made by any number of threads at once; but during cow_close(), and after it,
 * there must be no other call on that volume. A callback must not call the library unless its comment allows it. There
 * is no global state. The library's thread has the signal mask that the caller of cow_open() had.
 *
 * FORK. After fork(2) a child must not use a volume that its parent has opened, not even for cow_close(): it has a copy
 * of the memory, would write over what the parent writes, and may wait forever for a lock. It may call _exit(2), or
 * execve(2), which closes the image. Until then the image stays locked, even if the parent closes the volume. A program
 * that becomes a daemon calls cow_open() after its last fork(2).
 *
 * OPENING TWICE. An image can be open once for writing, or several times for reading. Otherwise opening it fails with
 * COW_ERR_BUSY, within one process too. cow_check() and cow_dump() count as reading, cow_format(),
 * cow_repair() and cow_repair_undo() as writing. The locks are those of flock(2): each belongs to an open file
 * description, keeps out only users of this library, and works across machines only if the host's file system makes
 * flock(2) do so. A block device is opened with O_EXCL as well, so that it is busy while it is mounted.
 *
 * VERSIONS. COW_VERSION is the version of this header, cow_version() that of the library that runs. The name of the
 * shared library ends in a number (libcow.so.0). Libraries with the same number have the same structs, constants and
 * calls; a later one may have more calls and constants. A struct never changes without a new number, not even by a
 * field at its end, so a program may keep, copy and embed structs as it likes; for a library with another number it is
 * compiled again. Fill structs by named initialisers, or zero them first: then that needs no change in the source,
 * because 0 in a new field will always mean what was done before there was the field. Unused bits of flags must be 0.
 *
 * The format of volumes has a version of its own: `format_version` in struct cow_info is that of a volume, and
 * cow_format_version() the newest one that this library knows. A volume whose version is newer, or that has features
 * which the library does not know, is refused with COW_ERR_NEWER, or, if it is enough for reading to leave them alone,
 * opened read-only.
 */
#ifndef COW_H
#define COW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#define COW_VERSION "0.1.0"
#define COW_BLOCK_BYTES 4096
#define COW_NAME_MAX 255
#define COW_XATTR_NAME_MAX 255
#define COW_XATTR_VALUE_MAX 65536
#define COW_SYMLINK_MAX 4095
#define COW_LINK_MAX 65000

#if defined(__GNUC__)
#define COW_CHECKED __attribute__((warn_unused_result))
#else
#define COW_CHECKED
#endif

struct cow_volume;
struct cow_inode;

/* ------------------------------------------------------------------ versions */

/* The version of the library that runs. The string stays valid. */
const char *cow_version(void);
/* The newest version of the format that this library reads and writes. */
uint32_t cow_format_version(void);

/* ------------------------------------------------------------------ errors */

enum cow_error {
	COW_ERR_NOT_VOLUME = -5001, /* there is no cowlinks volume (EINVAL) */
	COW_ERR_NEWER = -5002,      /* the volume has a newer format, or features that are not known (EOPNOTSUPP) */
	COW_ERR_BUSY = -5003,       /* somebody has the image open (EBUSY) */
	COW_ERR_DAMAGED = -5004,    /* the volume has no valid superblock, or its structure is damaged (EIO) */
	COW_ERR_SHORT = -5005,      /* the image is shorter than the volume in it (EIO) */
	COW_ERR_EXISTS = -5006,     /* cow_format(): there is a volume or other data already (EEXIST) */
	COW_ERR_SIZE = -5007,       /* cow_format(): the size is too small or too large (EINVAL) */
};

/* The errno, which is positive, for an error of either kind. */
int cow_error_errno(int error);
/* One line of English without a newline. The string stays valid. */
const char *cow_error_text(int error);

/* ------------------------------------------------------------------ volumes */

struct cow_format_options {
	/* 16 MiB to 512 TiB, rounded down to blocks; 0: the size of the device, or 100 GiB for an image file */
	uint64_t size_bytes;
	bool force;          /* overwrite what is there */
	uint8_t uuid[16];    /* all zero: random, and so is the hash of names; otherwise both are made from it */
	uint32_t root_uid, root_gid; /* the owner of the root directory */
};

/*
 * Makes an empty volume in the file or block device at `path`. A file that does not exist is created with mode 0600,
 * and is sparse; one that exists keeps its mode.
 * Errors: COW_ERR_EXISTS, COW_ERR_SIZE, COW_ERR_BUSY, EISDIR, EINVAL (neither a regular file nor a block device),
 * ENOSPC (the block device is smaller), those of open(2) and ftruncate(2).
 */
COW_CHECKED int cow_format(const char *path, const struct cow_format_options *options);

/* How important a message to cow_open_options.log is. */
enum cow_log_level { COW_LOG_INFO, COW_LOG_WARNING, COW_LOG_ERROR };

struct cow_open_options {
	bool read_only;
	bool no_threads;          /* there is no thread that commits: see COMMITS for when commits happen then */
	uint64_t cache_bytes;     /* limit for the cache of nodes; 0: 256 MiB */
	uint64_t dirty_bytes;     /* how much file data is buffered before writers have to wait; with what is being
	                           * written at that time it may be twice as much; 0: 256 MiB */
	uint32_t commit_seconds;  /* how long the thread waits until it commits a change; 0: 5 */
	/*
	 * Is called with one line, without a newline, that an administrator should see. NULL: the line goes to stderr.
	 * It may be called by any thread and during any call, and must not call the library.
	 */
	void (*log)(void *context, enum cow_log_level level, const char *text);
	void *log_context;
};

/*
 * Opens the volume in `path` and locks the image. `options` may be NULL. If the volume was not closed, the operations
 * in the intent log are done again first (on a read-only volume in memory only). If the log cannot be read, only
 * opening read-only succeeds; it shows the last commit and logs that.
 * The volume may be read-only although `read_only` was not given: if its newest superblock or its counts of blocks are
 * damaged, or if it has features with which this library may only read. cow_info() tells, and the reason is logged.
 * Errors: COW_ERR_NOT_VOLUME, COW_ERR_NEWER, COW_ERR_BUSY, COW_ERR_DAMAGED, COW_ERR_SHORT, EFBIG (not read-only, and
 * RLIMIT_FSIZE is less than the size of the image), EISDIR, EINVAL (neither a regular file nor a block device), ENOSPC
 * (for what the intent log holds), those of open(2) and pthread_create(3).
 */
COW_CHECKED int cow_open(const char *path, const struct cow_open_options *options, struct cow_volume **volume);

/*
 * Commits, and then frees everything that belongs to the volume, all handles too: none may be used any more, nor given
 * back. It closes the volume in any case. What it returns is the error of the commit; what could not be committed is
 * lost, so a program that could do something about it calls cow_sync() before.
 * Errors: those of a commit.
 */
int cow_close(struct cow_volume *volume);

/* Makes durable what was done before the call. Errors: those of a commit. */
COW_CHECKED int cow_sync(struct cow_volume *volume);
/*
 * Makes one inode durable as fsync(2) does: content, attributes and names. For a directory it is cow_sync().
 * After a crash the tree also has every name that was made, moved or removed before the call. Other files have the
 * content that they had when they were made durable last; new ones that never were are empty.
 * Errors: those of a commit.
 */
COW_CHECKED int cow_fsync(struct cow_inode *inode);

/*
 * Gives back all space of what was removed before the call, and commits, as often as is needed for that.
 * Errors: those of a commit.
 */
COW_CHECKED int cow_drain(struct cow_volume *volume);

struct cow_info {
	uint8_t uuid[16];
	uint32_t format_version;  /* of this volume */
	bool read_only;           /* opened so, or made so by an error */
	uint64_t generation;      /* the number of the last durable commit */
	uint64_t total_blocks;
	uint64_t free_blocks;     /* what users can still write, without the reserve: see cow_info() */
	uint64_t reserved_blocks; /* the reserve */
	uint64_t system_blocks;   /* superblocks, counts of blocks, intent log */
	uint64_t reclaim_entries; /* trees and files that wait for reclaim */
	uint64_t files, directories; /* below the root; a hard-linked file counts once in each world */
	uint64_t cache_bytes;     /* in the cache of nodes */
	uint64_t dirty_bytes;     /* buffered file data */
};
/*
 * What was removed counts as free at once, if nothing else leads to it, although it can be used only after a commit: a
 * writer who needs it causes that commit. How much it is, is only known when it has been reclaimed, so this call does a
 * part of the reclaim that is due. If that takes more than about a second, the rest is missing in `free_blocks`.
 * Nothing is written to the device, and a read-only volume is not changed.
 * Errors: none.
 */
COW_CHECKED int cow_info(struct cow_volume *volume, struct cow_info *info);
/* True if cow_info() would neither read nor reclaim anything now, so that it would not take long. */
bool cow_info_is_quick(struct cow_volume *volume);

/* ------------------------------------------------------------------ attributes */

struct cow_attr {
	uint64_t ino;   /* st_ino: unique in the volume; rename, writes and opening again do not change it */
	uint32_t mode;  /* type and permissions as in st_mode */
	uint32_t nlink; /* 1 for directories */
	uint32_t uid, gid;
	uint32_t rdev;  /* of devices, as by makedev(3) */
	uint64_t size;
	uint64_t blocks; /* of 512 bytes: all mapped data, whether shared or not */
	struct timespec atime, mtime, ctime, btime;
	bool is_clone;   /* the top of a world other than the first one */
	bool read_only;  /* the top of a read-only clone */
};

enum { /* bits of `mask` for cow_setattr() */
	COW_SET_MODE = 1, COW_SET_UID = 2, COW_SET_GID = 4, COW_SET_SIZE = 8,
	COW_SET_ATIME = 16, COW_SET_MTIME = 32, COW_SET_CTIME = 64, COW_SET_BTIME = 128,
};

/*
 * Of an inode that is gone it tells the last attributes, with `nlink` 0, if its inode number has become known: by
 * cow_create(), or by a call that handed out its attributes.
 * Errors: only those of any call.
 */
COW_CHECKED int cow_getattr(struct cow_inode *inode, struct cow_attr *attr);
/*
 * Sets the fields that `mask` names; the type in `mode` is ignored. ctime becomes now, unless COW_SET_CTIME is given,
 * and so does mtime if the size is set without COW_SET_MTIME. `out` may be NULL, and gets all attributes after the
 * change. Permissions are not checked.
 * Errors: EISDIR, EINVAL (the size of what is not a regular file; nanoseconds out of range), EFBIG (the size), ENOENT
 * (a removed directory that is held open).
 */
COW_CHECKED int cow_setattr(struct cow_inode *inode, const struct cow_attr *attr, unsigned mask, struct cow_attr *out);

/* ------------------------------------------------------------------ handles and names */

/* Hands out the root directory. Errors: none. */
COW_CHECKED int cow_root(struct cow_volume *volume, struct cow_inode **root);
/* Adds a reference. */
void cow_ref(struct cow_inode *inode);
/* Gives back `count` references. `inode` may be NULL. */
void cow_forget(struct cow_inode *inode, uint64_t count);
/*
 * Holds an inode open: it outlives its last name. Each cow_hold() needs a cow_release(), before the last cow_forget().
 * Errors: ESTALE.
 */
COW_CHECKED int cow_hold(struct cow_inode *inode);
void cow_release(struct cow_inode *inode);
/*
 * 0 if the inode may be changed; for a program that has to know before its first write.
 * Errors: EROFS, ESTALE.
 */
COW_CHECKED int cow_writable(struct cow_inode *inode);
struct cow_volume *cow_inode_volume(const struct cow_inode *inode);

/*
 * Finds `name` in `dir`. `attr` may be NULL.
 * Errors: ENOENT, ENOTDIR, ENAMETOOLONG, EINVAL (not a name: see NAMES).
 */
COW_CHECKED int cow_lookup(struct cow_inode *dir, const char *name, struct cow_inode **inode, struct cow_attr *attr);
/*
 * Follows `path` from the root, whether it begins with '/' or not. "." and ".." are understood; a symbolic link is not
 * followed, and has nothing below it.
 * Errors: ENOENT, ENOTDIR, ENAMETOOLONG (one of its names).
 */
COW_CHECKED int cow_lookup_path(struct cow_volume *volume, const char *path, struct cow_inode **inode);
/*
 * Hands out the directory that `dir` is in. The root, and a removed directory that is held open, are their own parents.
 * Errors: ENOTDIR.
 */
COW_CHECKED int cow_parent(struct cow_inode *dir, struct cow_inode **parent);

/* One entry of a directory. */
struct cow_entry {
	const char *name;    /* valid during the callback */
	uint64_t cookie;     /* cow_list() with this cookie begins after this entry */
	uint32_t mode;       /* the type; with attributes, the permissions too */
	uint64_t ino;        /* 0 without attributes */
};
/*
 * Gets one entry of a list. If cow_list() was called with `with_attr`, it also gets the attributes of the entry and a
 * reference to its inode, which it owns; otherwise both are NULL. It returns 0 to go on, or 1 to stop before this
 * entry: then the library takes the reference back, and the entry is the first one of a list that goes on from the
 * cookie of the entry before. It may make other calls.
 */
typedef int (*cow_list_fn)(void *context, const struct cow_entry *entry, struct cow_inode *inode,
			   const struct cow_attr *attr);
/*
 * Lists `dir` in the order of the cookies; `cookie` 0 is the start. Entries that are made or removed meanwhile may be
 * listed or not; all others are listed exactly once. "." and ".." are not listed. Entries before an error are listed
 * first.
 * Errors: ENOTDIR.
 */
COW_CHECKED int cow_list(struct cow_inode *dir, uint64_t cookie, bool with_attr, cow_list_fn fn, void *context);

/* A new inode. */
struct cow_new {
	uint32_t mode;     /* type (S_IFREG, S_IFDIR, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK, S_IFLNK) and permissions */
	uint32_t uid, gid;
	uint32_t rdev;      /* of devices */
	const char *target; /* of a symbolic link: where it leads to */
};
/*
 * Makes an inode of any type under `name`. `inode` and `attr` may be NULL.
 * If `name` is NULL it makes a regular file without a name, as open(2) does with O_TMPFILE: `inode` must be given, and
 * the file is held open, so the caller has to call cow_release() before cow_forget().
 * Errors: EEXIST, ENOTDIR, ENOENT (`dir` was removed; a symbolic link has no target), ENAMETOOLONG (the name, or the
 * target), EINVAL (not a name; the type; without a name: not a regular file, or no `inode`).
 */
COW_CHECKED int cow_create(struct cow_inode *dir, const char *name, const struct cow_new *new_inode,
			   struct cow_inode **inode, struct cow_attr *attr);
/*
 * Gives `inode` one more name; or a first one, if it was made without a name. `attr` may be NULL.
 * Errors: EEXIST, EPERM (`inode` is a directory), EXDEV (`dir` is in another world or volume), EMLINK (COW_LINK_MAX
 * names), ENOTDIR, ENOENT (`dir` was removed; `inode` had names and has none any more), ENAMETOOLONG, EINVAL (not a
 * name).
 */
COW_CHECKED int cow_link(struct cow_inode *inode, struct cow_inode *dir, const char *name, struct cow_attr *attr);
/*
 * Removes a name of anything but a directory.
 * Errors: ENOENT, EISDIR, ENOTDIR, ENAMETOOLONG, EINVAL (not a name).
 */
COW_CHECKED int cow_unlink(struct cow_inode *dir, const char *name);
/*
 * Removes an empty directory.
 * Errors: ENOENT, ENOTDIR, ENOTEMPTY, ENAMETOOLONG, EINVAL (not a name).
 */
COW_CHECKED int cow_rmdir(struct cow_inode *dir, const char *name);

enum { COW_RENAME_NOREPLACE = 1, COW_RENAME_EXCHANGE = 2 }; /* as for renameat2(2) */
/*
 * Renames as renameat2(2) does, also between worlds. What was at `to` is removed.
 * Errors: ENOENT (no such name; a directory was removed), EEXIST (NOREPLACE), ENOTDIR, EISDIR, ENOTEMPTY, ENAMETOOLONG,
 * EINVAL (not a name; the flags; a directory would come to lie inside itself), EXDEV (the names of one hard-linked file
 * would be in two worlds; EXCHANGE between worlds; another volume), EMLINK (as cow_clone()).
 */
COW_CHECKED int cow_rename(struct cow_inode *from_dir, const char *from, struct cow_inode *to_dir, const char *to,
			   unsigned flags);
/*
 * Copies at most `size` bytes of the target of a symbolic link, without a NUL. Returns the whole length of the target.
 * Errors: EINVAL (not a symbolic link).
 */
COW_CHECKED int cow_readlink(struct cow_inode *inode, char *buffer, size_t size);

/* ------------------------------------------------------------------ data */

/*
 * Returns how many bytes were read: fewer than `size` only at the end of the file.
 * Errors: EISDIR, EINVAL (not a regular file).
 */
COW_CHECKED int64_t cow_read(struct cow_inode *inode, void *buffer, size_t size, uint64_t offset);
/*
 * Writes all bytes or none, and returns `size`. Sets mtime and ctime. `kill_suid`: clears the set-user-ID bit, and the
 * set-group-ID bit if the group may execute the file. If `size` is 0, nothing happens.
 * Errors: EISDIR, EINVAL (not a regular file), EFBIG.
 */
COW_CHECKED int64_t cow_write(struct cow_inode *inode, const void *buffer, size_t size, uint64_t offset,
			      bool kill_suid);
/*
 * `mode` is made of FALLOC_FL_* as in fallocate(2). PUNCH_HOLE | KEEP_SIZE makes a hole. ZERO_RANGE, with or without
 * KEEP_SIZE, makes the range read as zeros. 0 and KEEP_SIZE only check that there is room for the range now; nothing
 * is kept for it, because data is written to new blocks each time. See ERRORS for what a failure leaves.
 * Errors: EOPNOTSUPP (other modes), EINVAL (`length` 0; not a regular file), EISDIR, EFBIG, ENOSPC.
 */
COW_CHECKED int cow_fallocate(struct cow_inode *inode, int mode, uint64_t offset, uint64_t length);
/*
 * Returns the offset of the next data (SEEK_DATA) or hole (SEEK_HOLE), which may be `offset` itself.
 * Errors: ENXIO (`offset` is not below the size; there is no more data), EINVAL (`whence`; not a regular file), EISDIR.
 */
COW_CHECKED int64_t cow_seek(struct cow_inode *inode, uint64_t offset, int whence);
/*
 * Copies as copy_file_range(2) does, and shares blocks where it can: a whole file into an empty one takes constant
 * time, ranges that begin at the same offset within a block share extents, and the rest is copied. Returns how many
 * bytes were copied: up to the end of `from`, or fewer if an error came later. See ERRORS for what a failure leaves.
 * Errors: EXDEV (another volume), EFBIG, EISDIR, EINVAL (not a regular file; the ranges overlap), EMLINK (as
 * cow_clone()).
 */
COW_CHECKED int64_t cow_copy_range(struct cow_inode *from, uint64_t from_offset, struct cow_inode *to,
				   uint64_t to_offset, uint64_t length);

/* ------------------------------------------------------------------ extended attributes */

/*
 * Returns the length of the value. Copies the value unless `size` is 0.
 * Errors: ENODATA, ERANGE (`size` is less than the length).
 */
COW_CHECKED int cow_getxattr(struct cow_inode *inode, const char *name, void *value, size_t size);
/*
 * `flags`: XATTR_CREATE, XATTR_REPLACE. Names are not interpreted: those of all namespaces are alike.
 * Errors: EEXIST (CREATE), ENODATA (REPLACE), ERANGE (the length of the name), E2BIG (the value), EINVAL (the flags),
 * ENOSPC (the attributes of an inode may have 256 KiB).
 */
COW_CHECKED int cow_setxattr(struct cow_inode *inode, const char *name, const void *value, size_t size, int flags);
/*
 * Copies the names, each with its NUL, unless `size` is 0. Returns how many bytes they are.
 * Errors: ERANGE (`size` is less).
 */
COW_CHECKED int cow_listxattr(struct cow_inode *inode, char *list, size_t size);
/* Errors: ENODATA. */
COW_CHECKED int cow_removexattr(struct cow_inode *inode, const char *name);

/* ------------------------------------------------------------------ clones and trees */

enum { COW_CLONE_READ_ONLY = 1 };
/*
 * Makes `name` in `dir` a clone of `source`, a directory or file of any size. The time does not depend on the size, but
 * data that is buffered for files in the source gets its place first. The clone has every write that returned before
 * the call. `dir` may be inside the source. `inode` and `attr` may be NULL.
 * Errors: EEXIST, ENOTDIR, ENOENT (`dir`, or a directory `source`, was removed), ENAMETOOLONG, EINVAL (not a name; a
 * read-only clone of a file), EXDEV (another volume), EMLINK (2^31 - 1 others share the source already).
 */
COW_CHECKED int cow_clone(struct cow_inode *source, struct cow_inode *dir, const char *name, unsigned flags,
			  struct cow_inode **inode, struct cow_attr *attr);
/*
 * Puts a clone of `source` in the place of `name` in `dir`, which is removed. If the source is a directory, that must
 * be an empty directory, and otherwise a file with size 0.
 * Errors: ENOENT, ENOTEMPTY, ENOTDIR, EISDIR, ENAMETOOLONG, EINVAL (not a name; a read-only clone of a file; `name` is
 * the source), EXDEV (another volume), EMLINK.
 */
COW_CHECKED int cow_clone_over(struct cow_inode *source, struct cow_inode *dir, const char *name, unsigned flags);
/*
 * Takes the whole tree, or the file, at `name` out of `dir` at once; its space is reclaimed later. What is held open in
 * it becomes orphans.
 * Errors: ENOENT, ENOTDIR, ENAMETOOLONG, EINVAL (not a name), EMLINK (as cow_clone(), of attributes of what is held
 * open).
 */
COW_CHECKED int cow_remove_tree(struct cow_inode *dir, const char *name);

struct cow_usage {
	uint64_t files, directories; /* below the directory, without itself; a hard-linked file counts once */
	uint64_t apparent_bytes;     /* sum of the sizes of files */
	uint64_t total_bytes;        /* mapped data, whether shared or not */
	uint64_t exclusive_bytes;    /* data and metadata that removing it would free, before anything is purged */
};
/*
 * What a directory, or a file, sums up to. The totals take constant time, or time for each directory in which there are
 * hard links; `with_exclusive` takes time for what is not shared.
 * Errors: those of a commit.
 */
COW_CHECKED int cow_usage(struct cow_inode *inode, bool with_exclusive, struct cow_usage *usage);

/* One change. Paths are relative to the two directories: "" is the directory itself. Valid during the callback. */
struct cow_change {
	char type;            /* A added, D deleted, M content, m attributes only, T type, R renamed */
	const char *path;     /* in the new directory; for D in the old one */
	const char *old_path; /* R: the path in the old directory; otherwise NULL */
	uint32_t old_mode, new_mode; /* 0 where there is none */
	bool content;         /* R: the content has changed too */
};
/* Returns 0 to go on. Any other value ends the diff, which returns it. It may make other calls. */
typedef int (*cow_diff_fn)(void *context, const struct cow_change *change);
/*
 * Compares two directories, or two files, in time for what they do not share. The changes are sorted by path; they are
 * collected before the first one is reported. Of a directory that was added or deleted all entries are reported if
 * `expand` is true, otherwise only the directory.
 * Errors: EXDEV (another volume), E2BIG (more than 8 million changes, or 2 million directories that differ), those of a
 * commit.
 */
COW_CHECKED int cow_diff(struct cow_inode *old_inode, struct cow_inode *new_inode, bool expand, cow_diff_fn fn,
			 void *context);
/*
 * Returns 1 if cow_diff() would report nothing and the same names are hard links of one file on both sides, else 0.
 * Inode numbers and times are not compared.
 * Errors: EXDEV (another volume), E2BIG (as cow_diff()), those of a commit.
 */
COW_CHECKED int cow_same(struct cow_inode *a, struct cow_inode *b);

/* ------------------------------------------------------------------ scrub, of a volume in use */

/* A block that does not have the right content. Valid during the callback. */
struct cow_scrub_finding {
	uint64_t block;    /* its number on the device */
	const char *path;  /* "/a/b": a file or directory that needs the block; clones that share it need it as well.
			    * NULL: it belongs to nothing that has a name */
	int64_t offset;    /* of file data: the offset in the file; otherwise -1 */
	const char *text;  /* one line: what the block is, and what is wrong */
};
struct cow_scrub_result {
	uint64_t findings;
	uint64_t blocks;      /* read and verified */
	uint64_t used_blocks; /* in use when the scrub began: about how many there are to read */
	uint64_t nodes, data_blocks, count_blocks, superblocks; /* parts of `blocks` */
};
struct cow_scrub_options {
	uint64_t bytes_per_second; /* do not read faster than this; 0: no limit */
	uint32_t hold_milliseconds; /* for how long the scrub may keep back space that others free; 0: 10 seconds */
	void (*finding)(void *context, const struct cow_scrub_finding *finding); /* may be NULL */
	/* Is called several times a second. A result other than 0 ends the scrub, which returns it. May be NULL. */
	int (*progress)(void *context, const struct cow_scrub_result *so_far);
	void *context;
};
/*
 * Reads everything that is in use from the device, not from a cache, and compares it with its checksum: nodes, file
 * data, counts of blocks, superblocks. What clones share is read once. Other calls go on meanwhile. What they write
 * after the scrub has begun may be left out, and space that they free may come back some seconds later. Removed trees
 * that wait for reclaim, and the intent log, are left out. Each finding is reported to the callback and logged.
 * `options` may be NULL. Returns 0 if it came to its end, also if there are findings.
 * Errors: those of a commit.
 */
COW_CHECKED int cow_scrub(struct cow_volume *volume, const struct cow_scrub_options *options,
			  struct cow_scrub_result *result);

/* ------------------------------------------------------------------ check and dump, of a volume that is not open */

struct cow_finding {
	int number;         /* keeps its meaning; doc/FORMAT.md lists them */
	uint64_t block;     /* where, or 0 */
	const char *text;   /* one line */
};
struct cow_check_options {
	void (*finding)(void *context, const struct cow_finding *finding);
	void (*progress)(void *context, uint64_t done_blocks, uint64_t used_blocks); /* may be NULL */
	void *context;
	bool data; /* read and verify file data too */
};
struct cow_check_result {
	uint64_t findings, nodes, data_blocks, files, directories, worlds, links;
	uint64_t intents;    /* operations in the intent log, which the next cow_open() will do again */
	uint64_t peak_bytes; /* memory that the check needed */
};
/*
 * Computes everything that the format demands anew, from the tree alone, and compares. Writes nothing. `options` may be
 * NULL. Returns 0 if it came to its end, also if there are findings.
 * Errors: COW_ERR_NOT_VOLUME, COW_ERR_NEWER, COW_ERR_BUSY, COW_ERR_DAMAGED (no valid superblock), COW_ERR_SHORT, those
 * of open(2).
 */
COW_CHECKED int cow_check(const char *path, const struct cow_check_options *options, struct cow_check_result *result);

/*
 * Prints what is on the device, as far as damage allows. `what` is "super", "counts", "tree", "tree PATH", "block N",
 * or NULL for all but single blocks. `line` is called for each line, without a newline. Writes nothing.
 * Errors: COW_ERR_NOT_VOLUME, COW_ERR_NEWER, COW_ERR_BUSY, COW_ERR_DAMAGED (no valid superblock, or the path is
 * damaged), EINVAL (`what`), ENOENT, ENOTDIR, ENAMETOOLONG (of PATH), those of open(2).
 */
COW_CHECKED int cow_dump(const char *path, const char *what, void (*line)(void *context, const char *text),
			 void *context);

/* ------------------------------------------------------------------ repair, of a volume that is not open */

/* Something that could not be kept. */
struct cow_loss {
	const char *path;        /* of the directory or file, from the root; clones may have lost the same */
	uint64_t block;          /* the damaged block, or 0 */
	uint64_t offset, length; /* of a file: the bytes that answer EIO from now on; otherwise 0 */
	const char *text;        /* one line: what is lost, or where it was put */
};
struct cow_repair_options {
	void (*finding)(void *context, const struct cow_finding *finding); /* before the repair; may be NULL */
	void (*lost)(void *context, const struct cow_loss *loss);          /* may be NULL */
	void (*progress)(void *context, uint64_t done_blocks, uint64_t used_blocks); /* may be NULL */
	void *context;
	/* A new file, in which everything is kept that the repair overwrites. NULL: nothing is kept. */
	const char *undo_path;
	bool dry_run; /* write nothing */
};
struct cow_repair_result {
	uint64_t findings;  /* before the repair */
	uint64_t left;      /* after it; with `dry_run`, what would be left */
	uint64_t losses;    /* reported to `lost` */
	uint64_t recovered; /* directories and files put into /lost+found */
	uint64_t blocks;    /* written */
	bool written;       /* the repaired volume is on the device */
};
/*
 * Makes the structure of a damaged volume sound. Everything that can be read stays. What was only in a damaged block is
 * removed and reported. Trees that the root does not lead to any more are put into /lost+found. Counts and totals are
 * computed anew. All of this is made and checked in memory, and then written as one new generation: after a crash
 * meanwhile the volume is as before. File data is not read; where it does not match its checksum it answers EIO, as
 * before. `options` may be NULL. Returns 0 if the volume was sound, or is now as far as `left` tells.
 * If it fails and `written` is false, the volume is as before. If `written` is true, what the device gives back is not
 * what was written to it.
 * Errors: COW_ERR_NOT_VOLUME, COW_ERR_NEWER, COW_ERR_BUSY, COW_ERR_DAMAGED (no valid superblock; or the result would
 * not be sound), COW_ERR_SHORT, ENOSPC (no free blocks to work with, or no space on the host), EEXIST (`undo_path`),
 * EFBIG (as cow_open()), those of open(2) and of the device.
 */
COW_CHECKED int cow_repair(const char *path, const struct cow_repair_options *options,
			   struct cow_repair_result *result);
/*
 * Brings back what cow_repair() has overwritten. If it fails half way it can be called again.
 * Errors: EINVAL (`undo_path` is not such a file), ESTALE (it is of another volume, or this one has been changed
 * since), COW_ERR_DAMAGED (the undo file), COW_ERR_NOT_VOLUME, COW_ERR_NEWER, COW_ERR_BUSY, EFBIG (as cow_open()),
 * those of open(2) and of the device.
 */
COW_CHECKED int cow_repair_undo(const char *path, const char *undo_path);

#ifdef __cplusplus
}
#endif
#endif
