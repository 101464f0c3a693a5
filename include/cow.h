/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libcow: a copy-on-write file system in one image file or block device.
 *
 * THE MODEL.  A volume holds one tree of directories and files.  Any directory or file, however large, is
 * cloned in constant time by cow_clone(), and the clone behaves exactly like a copy made by `cp -a`.  All
 * calls see the newest state at once; cow_sync() makes it durable.  After a crash the volume is exactly at
 * one of its commits, not older than the last cow_sync() that returned 0; and on top of that commit, what
 * cow_fsync() has answered for (see there).
 *
 * HANDLES.  A struct cow_inode is a counted reference to an inode that the library keeps in memory.  Every
 * call that hands one out adds one reference, which the caller gives back with cow_forget().  A reference
 * alone keeps the *handle* valid, not the file: when the last name goes, the data goes too, unless the
 * inode is held open (cow_hold() / cow_release()), as an open descriptor does in POSIX.  A handle whose
 * inode is gone answers -ESTALE; only cow_getattr() still tells its last attributes, with nlink 0, if they
 * had been asked for before.
 *
 * NAMES are byte strings of 1 to 255 bytes without '/' and NUL, never "." or "..".
 *
 * ERRORS.  Every int (or int64_t) result below 0 is an error: -errno, or one of enum cow_error, which
 * cow_error_errno() maps to an errno and cow_error_text() to one line of text.  Any call may return
 * -ENOMEM, -EIO (media: what was read did not match its checksum, or the device failed), -ESTALE (the
 * inode is gone) and, if it changes something, -EROFS (read-only volume, clone or mount) and -ENOSPC.
 * Only further errors are listed at the calls.  A call that fails has changed nothing.
 *
 * THREADS.  All calls on one volume may be made from any number of threads at once.  No call may be made
 * from inside a callback of the library unless its comment allows it.  There is no global state.
 *
 * UNITS.  Sizes and offsets are bytes, `blocks` in struct cow_attr are 512 bytes as in stat(2); all other
 * block counts are blocks of COW_BLOCK_BYTES.
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

/* The version of the library that runs, as COW_VERSION is that of this header. Valid forever. */
const char *cow_version(void);
/* The newest version of the format that this library reads and writes; cow_info() tells that of a volume. */
uint32_t cow_format_version(void);

/* ------------------------------------------------------------------ errors */

enum cow_error {
	COW_ERR_NOT_VOLUME = -5001, /* no cowlinks volume there (EINVAL) */
	COW_ERR_NEWER = -5002,      /* made by a newer format: unknown incompat feature (EOPNOTSUPP) */
	COW_ERR_BUSY = -5003,       /* somebody else has it open: locked (EBUSY) */
	COW_ERR_DAMAGED = -5004,    /* a volume, but no valid superblock or a broken structure (EIO) */
	COW_ERR_SHORT = -5005,      /* the image is shorter than its superblock says (EIO) */
	COW_ERR_EXISTS = -5006,     /* format: there is a volume or other data already (EEXIST) */
	COW_ERR_SIZE = -5007,       /* format: size too small or too large (EINVAL) */
};

/* The errno (positive) that an error result stands for. */
int cow_error_errno(int error);
/* One line of English without newline, valid forever. */
const char *cow_error_text(int error);

/* ------------------------------------------------------------------ volumes */

struct cow_format_options {
	uint64_t size_bytes; /* 0: the size of the device, or 100 GiB for an image file; at least 16 MiB */
	bool force;          /* overwrite an existing volume or other data */
	uint8_t uuid[16];    /* all zero: random, and so is the hash of names; else both follow from it */
	uint32_t root_uid, root_gid; /* owner of the root directory */
};

/*
 * Makes an empty volume in the file or block device at `path`; a file is created if need be, with mode 0600, and is
 * sparse. One that is there keeps its mode.
 * -- -COW_ERR_EXISTS, -COW_ERR_SIZE, COW_ERR_BUSY, errors of open(2).
 */
COW_CHECKED int cow_format(const char *path, const struct cow_format_options *options);

/* Severity of a message to cow_open_options.log. */
enum cow_log_level { COW_LOG_INFO, COW_LOG_WARNING, COW_LOG_ERROR };

struct cow_open_options {
	bool read_only;
	bool no_threads;          /* no commit thread: commits happen in cow_sync() and when caps are reached */
	uint64_t cache_bytes;     /* limit of the node cache; 0: 256 MiB */
	uint64_t dirty_bytes;     /* file data buffered before writers are throttled, at twice as much with
	                           * what is being written; 0: 256 MiB */
	uint32_t commit_seconds;  /* how long a change may stay volatile; 0: 5 */
	/* Called for what an administrator should see (one line, no newline); NULL: stderr. Any thread. */
	void (*log)(void *context, enum cow_log_level level, const char *text);
	void *log_context;
};

/*
 * Opens the volume in `path` and locks it against a second opener.  `options` may be NULL.  What cow_fsync() promised
 * is done again first; if that cannot be read, only opening read-only succeeds, at the last commit, and says so.
 * -- COW_ERR_*, -EFBIG (the image is larger than RLIMIT_FSIZE allows; not read-only), errors of open(2).
 */
COW_CHECKED int cow_open(const char *path, const struct cow_open_options *options, struct cow_volume **volume);

/* Commits, and frees everything, handles too: none may be used any more. Returns the commit's error. */
int cow_close(struct cow_volume *volume);

/* Makes everything durable that was done before the call. */
COW_CHECKED int cow_sync(struct cow_volume *volume);
/*
 * Makes one inode durable, as fsync(2): content, attributes and names; for a directory the same as cow_sync().
 * After a crash the tree has, beside it, every name that was made, moved or removed before the call; other
 * files have the content that they had when they were last made durable, and a new one that never was is empty.
 */
COW_CHECKED int cow_fsync(struct cow_inode *inode);

/* Waits until the background reclaim has given back all removed space (it commits), at least one step each. */
COW_CHECKED int cow_drain(struct cow_volume *volume);

struct cow_info {
	uint8_t uuid[16];
	uint32_t format_version;
	bool read_only;           /* opened so, or turned so by a failure */
	uint64_t generation;      /* last durable commit */
	uint64_t total_blocks;
	uint64_t free_blocks;     /* available to users, without the reserve: see cow_info() */
	uint64_t reserved_blocks; /* held back for commits and removal */
	uint64_t system_blocks;   /* superblocks, counts, intent log */
	uint64_t reclaim_entries; /* pointers that wait for reclaim */
	uint64_t files, directories; /* below the root; hard-linked files once per world */
	uint64_t cache_bytes;     /* node cache in use */
	uint64_t dirty_bytes;     /* buffered file data */
};
/*
 * What is removed is free at once, as soon as nothing else holds it: who writes need not know that it can be used only
 * after a commit. To say how much that is takes what is known only when it has been given back, so this does a part of
 * the background's work if there is any; if that takes more than about a second, the rest is missing in free_blocks.
 * Nothing is written, and a read-only volume is not changed.
 */
COW_CHECKED int cow_info(struct cow_volume *volume, struct cow_info *info);
/* Would it answer at once, without reading anything or giving anything back? For who must not be held up. */
bool cow_info_is_quick(struct cow_volume *volume);

/* ------------------------------------------------------------------ attributes */

struct cow_attr {
	uint64_t ino;   /* st_ino: unique in the volume, stable over remount, rename and writes */
	uint32_t mode;  /* type and permission bits as in st_mode */
	uint32_t nlink; /* 1 for directories */
	uint32_t uid, gid;
	uint32_t rdev;  /* as makedev(3), devices only */
	uint64_t size;
	uint64_t blocks; /* of 512 bytes; full size of mapped data, shared or not */
	struct timespec atime, mtime, ctime, btime;
	bool is_clone;   /* directory that is the top of a clone (a world) */
	bool read_only;  /* top of a read-only clone */
};

enum { /* bits of `mask` for cow_setattr() */
	COW_SET_MODE = 1, COW_SET_UID = 2, COW_SET_GID = 4, COW_SET_SIZE = 8,
	COW_SET_ATIME = 16, COW_SET_MTIME = 32, COW_SET_CTIME = 64, COW_SET_BTIME = 128,
};

COW_CHECKED int cow_getattr(struct cow_inode *inode, struct cow_attr *attr);
/*
 * Sets the fields named by `mask`; ctime becomes now unless COW_SET_CTIME is given.  `out` (may be NULL)
 * gets all attributes after the change.  Does not check permissions.  -- -EISDIR, -EINVAL, -EFBIG (size).
 */
COW_CHECKED int cow_setattr(struct cow_inode *inode, const struct cow_attr *attr, unsigned mask, struct cow_attr *out);

/* ------------------------------------------------------------------ handles and names */

/* The root directory. */
COW_CHECKED int cow_root(struct cow_volume *volume, struct cow_inode **root);
/* Adds a reference. */
void cow_ref(struct cow_inode *inode);
/* Gives back `count` references; NULL is allowed. */
void cow_forget(struct cow_inode *inode, uint64_t count);
/* Holds the inode open: it outlives its last name. Each needs a cow_release(), before the cow_forget(). -- -ESTALE */
COW_CHECKED int cow_hold(struct cow_inode *inode);
void cow_release(struct cow_inode *inode);
/* 0 if it may be changed: for who has to know before the first write.  -- only those of ERRORS above */
COW_CHECKED int cow_writable(struct cow_inode *inode);
struct cow_volume *cow_inode_volume(const struct cow_inode *inode);

/* Finds `name` in `dir`.  `attr` may be NULL. -- -ENOENT, -ENOTDIR, -ENAMETOOLONG */
COW_CHECKED int cow_lookup(struct cow_inode *dir, const char *name, struct cow_inode **inode, struct cow_attr *attr);
/*
 * Walks `path` ("/a/b", relative ones start at the root) without following symbolic links.
 * -- -ENOENT, -ENOTDIR, -ENAMETOOLONG
 */
COW_CHECKED int cow_lookup_path(struct cow_volume *volume, const char *path, struct cow_inode **inode);
/* The directory that holds `dir`; the root for the root itself. -- -ENOTDIR */
COW_CHECKED int cow_parent(struct cow_inode *dir, struct cow_inode **parent);

/* One directory entry. `name` is valid during the callback only. */
struct cow_entry {
	const char *name;
	uint64_t cookie;     /* go on from here with cow_list() */
	uint32_t mode;       /* type bits always, the rest with attributes */
	uint64_t ino;        /* 0 unless attributes were asked for */
};
/*
 * Lists `dir` from `cookie` (0: the start) in cookie order; entries created or removed meanwhile may or may
 * not be seen, others are seen exactly once.  "." and ".." are not listed.  The callback gets, if
 * `with_attr`, a new reference and the attributes of each entry (it owns the reference); else NULLs.  It
 * returns 0 to go on, 1 to stop *before* this entry (a reference handed to it is then taken back by the
 * library).  It runs under no lock and may make other calls.  An error comes after the entries before it. -- -ENOTDIR
 */
typedef int (*cow_list_fn)(void *context, const struct cow_entry *entry, struct cow_inode *inode,
			   const struct cow_attr *attr);
COW_CHECKED int cow_list(struct cow_inode *dir, uint64_t cookie, bool with_attr, cow_list_fn fn, void *context);

/* Who makes a new inode, and how. */
struct cow_new {
	uint32_t mode;     /* type (S_IFREG, S_IFDIR, S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK, S_IFLNK) and permissions */
	uint32_t uid, gid;
	uint32_t rdev;
	const char *target; /* S_IFLNK: where it points to */
};
/*
 * Makes an inode of any type under `name`.  With `name` NULL a regular file without a name (O_TMPFILE),
 * which the caller holds open (cow_hold() has been called for it).  `inode` may be NULL if not wanted (not for
 * O_TMPFILE), `attr` too. -- -EEXIST, -ENOTDIR, -ENAMETOOLONG, -ENOENT (dir was removed), -EINVAL
 */
COW_CHECKED int cow_create(struct cow_inode *dir, const char *name, const struct cow_new *new_inode,
			   struct cow_inode **inode, struct cow_attr *attr);
/* -- -EEXIST, -EPERM (directory), -EXDEV (another world, see README), -EMLINK, -ENOENT (no name left, not O_TMPFILE) */
COW_CHECKED int cow_link(struct cow_inode *inode, struct cow_inode *dir, const char *name, struct cow_attr *attr);
/* -- -ENOENT, -EISDIR */
COW_CHECKED int cow_unlink(struct cow_inode *dir, const char *name);
/* -- -ENOENT, -ENOTDIR, -ENOTEMPTY */
COW_CHECKED int cow_rmdir(struct cow_inode *dir, const char *name);

enum { COW_RENAME_NOREPLACE = 1, COW_RENAME_EXCHANGE = 2 }; /* as renameat2(2) */
/*
 * -- as rename(2); -EXDEV only if a hard-link group would be torn in two (or, for EXCHANGE, between worlds).
 */
COW_CHECKED int cow_rename(struct cow_inode *from_dir, const char *from, struct cow_inode *to_dir, const char *to,
			   unsigned flags);
/* Copies at most `size` bytes of the target, without NUL; returns the full length. -- -EINVAL */
COW_CHECKED int cow_readlink(struct cow_inode *inode, char *buffer, size_t size);

/* ------------------------------------------------------------------ data */

/* Returns the bytes read, fewer than `size` only at the end of the file. -- -EISDIR, -EINVAL */
COW_CHECKED int64_t cow_read(struct cow_inode *inode, void *buffer, size_t size, uint64_t offset);
/* Writes all or nothing; sets mtime, ctime and clears set-id bits if `kill_suid`. Returns size. -- -EISDIR, -EFBIG */
COW_CHECKED int64_t cow_write(struct cow_inode *inode, const void *buffer, size_t size, uint64_t offset,
			      bool kill_suid);
/* mode: 0 or FALLOC_FL_* as in fallocate(2): KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE. -- -EOPNOTSUPP, -EINVAL, -EFBIG */
COW_CHECKED int cow_fallocate(struct cow_inode *inode, int mode, uint64_t offset, uint64_t length);
/* SEEK_DATA or SEEK_HOLE. -- -ENXIO, -EINVAL */
COW_CHECKED int64_t cow_seek(struct cow_inode *inode, uint64_t offset, int whence);
/*
 * Copies like copy_file_range(2) and shares blocks where it can: a whole file into an empty one costs O(1),
 * block-aligned ranges share extents, the rest is copied.  Returns the bytes copied. -- -EINVAL (overlap), -EISDIR
 */
COW_CHECKED int64_t cow_copy_range(struct cow_inode *from, uint64_t from_offset, struct cow_inode *to,
				   uint64_t to_offset, uint64_t length);

/* ------------------------------------------------------------------ extended attributes */

/* Returns the length of the value; copies it only if size is not 0. -- -ENODATA, -ERANGE */
COW_CHECKED int cow_getxattr(struct cow_inode *inode, const char *name, void *value, size_t size);
/* flags: XATTR_CREATE, XATTR_REPLACE. -- -EEXIST, -ENODATA, -ERANGE (name), -E2BIG (value), -ENOSPC (too many) */
COW_CHECKED int cow_setxattr(struct cow_inode *inode, const char *name, const void *value, size_t size, int flags);
/* NUL-terminated names one after the other; returns their total length. -- -ERANGE */
COW_CHECKED int cow_listxattr(struct cow_inode *inode, char *list, size_t size);
COW_CHECKED int cow_removexattr(struct cow_inode *inode, const char *name); /* -- -ENODATA */

/* ------------------------------------------------------------------ clones and trees */

enum { COW_CLONE_READ_ONLY = 1 };
/*
 * Makes `name` in `dir` a clone of `source` (a directory or file of any size), in constant time plus what is
 * still buffered below it.  Contains every write that returned before the call.  `inode`, `attr` may be NULL.
 * -- -EEXIST, -ENOTDIR, -EINVAL (a read-only clone of a file)
 */
COW_CHECKED int cow_clone(struct cow_inode *source, struct cow_inode *dir, const char *name, unsigned flags,
			  struct cow_inode **inode, struct cow_attr *attr);
/*
 * Puts a clone of `source` in the place of `name` in `dir`, an empty directory or empty file of the source's
 * type, which becomes an orphan. -- as cow_clone(), -ENOENT, -ENOTEMPTY, -ENOTDIR, -EISDIR
 */
COW_CHECKED int cow_clone_over(struct cow_inode *source, struct cow_inode *dir, const char *name, unsigned flags);
/* Takes the whole tree (or file) at `name` out of `dir` at once; space comes back later. -- -ENOENT */
COW_CHECKED int cow_remove_tree(struct cow_inode *dir, const char *name);

struct cow_usage {
	uint64_t files, directories; /* below, the directory itself not counted; a hard-linked file once */
	uint64_t apparent_bytes;     /* sum of file sizes */
	uint64_t total_bytes;        /* mapped data, shared or not */
	uint64_t exclusive_bytes;    /* data and metadata that removing it would free, before worlds are purged */
};
/* Recursive totals: O(1), or O(directories with hard links); exclusive: O(what is not shared). */
COW_CHECKED int cow_usage(struct cow_inode *inode, bool with_exclusive, struct cow_usage *usage);

/* One change. Paths are relative to the two directories ("" is the directory itself), valid in the callback. */
struct cow_change {
	char type;            /* A added, D deleted, M content, m attributes only, T type, R renamed */
	const char *path;     /* in NEW (in OLD for D) */
	const char *old_path; /* for R: the path in OLD; else NULL */
	uint32_t old_mode, new_mode; /* 0 where there is none */
	bool content;         /* for R: content changed too */
};
/* Returns 0 to go on, other values stop the diff and are returned by it. May make other calls. */
typedef int (*cow_diff_fn)(void *context, const struct cow_change *change);
/*
 * Compares two directories, or two files, in O(what changed) where they share; changes sorted by path.
 * Below an added or deleted directory every entry is reported if `expand`, else only its top. -- -E2BIG: more than 8
 * million changes, or 2 million directories that differ.
 */
COW_CHECKED int cow_diff(struct cow_inode *old_inode, struct cow_inode *new_inode, bool expand, cow_diff_fn fn,
			 void *context);
/* 1: same content (and for directories same names, types, modes, owners, links), 0: different. */
COW_CHECKED int cow_same(struct cow_inode *a, struct cow_inode *b);

/* ------------------------------------------------------------------ scrub (volume in use) */

/* A block that is not what it was. Valid in the callback. */
struct cow_scrub_finding {
	uint64_t block;    /* on the device, in blocks of COW_BLOCK_BYTES */
	const char *path;  /* "/a/b", what needs the block; clones share blocks, so others may need it, too. NULL:
			    * nothing that has a name */
	int64_t offset;    /* file data: where in the file; else -1 */
	const char *text;  /* one line: what it is, and what is wrong with it */
};
struct cow_scrub_result {
	uint64_t findings;
	uint64_t blocks;      /* read and verified */
	uint64_t used_blocks; /* in use when it began: what there is to read, more or less */
	uint64_t nodes, data_blocks, count_blocks, superblocks; /* of `blocks` */
};
struct cow_scrub_options {
	uint64_t bytes_per_second; /* at most so fast; 0: as fast as it goes */
	uint32_t hold_milliseconds; /* how long space that others free may be kept; 0: 10 seconds */
	void (*finding)(void *context, const struct cow_scrub_finding *finding); /* may be NULL */
	/* Some times a second. Not 0 ends the scrub, which returns it. May be NULL. */
	int (*progress)(void *context, const struct cow_scrub_result *so_far);
	void *context;
};
/*
 * Reads everything in use from the device, past all caches, and compares it with its checksum: nodes, file data,
 * counts, superblocks; what clones share once. Others go on meanwhile; what they write or move after the scrub has
 * begun need not be read, and space that they free may come back some seconds later. Removed trees whose space has not
 * come back yet and the intent log are left out. Each finding is reported in a callback and logged. 0 if it ran to its
 * end, also with findings.
 */
COW_CHECKED int cow_scrub(struct cow_volume *volume, const struct cow_scrub_options *options,
			  struct cow_scrub_result *result);

/* ------------------------------------------------------------------ check and dump (volume not open elsewhere) */

struct cow_finding {
	int number;         /* stable, listed in doc/FORMAT.md */
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
	uint64_t intents;    /* operations in the intent log, which the next mount will do again */
	uint64_t peak_bytes; /* memory taken by the check */
};
/* Recomputes every invariant independently; writes nothing. 0 if it ran to its end, also with findings. */
COW_CHECKED int cow_check(const char *path, const struct cow_check_options *options, struct cow_check_result *result);

/* Prints what is on disk, tolerating damage; what: "super", "counts", "tree" [PATH], "block N", or NULL for all.
 * Calls `line` for each line (no newline).  Writes nothing. -- -EINVAL (unknown `what`) */
COW_CHECKED int cow_dump(const char *path, const char *what, void (*line)(void *context, const char *text),
			 void *context);

/* ------------------------------------------------------------------ repair (volume not open elsewhere) */

/* Something that could not be kept. */
struct cow_loss {
	const char *path;        /* of the directory or file concerned, from the root; clones may share the loss */
	uint64_t block;          /* the damaged block, or 0 */
	uint64_t offset, length; /* of a file: the bytes that answer EIO from now on; else 0 */
	const char *text;        /* one line: what is lost, or where it was put */
};
struct cow_repair_options {
	void (*finding)(void *context, const struct cow_finding *finding); /* before the repair; may be NULL */
	void (*lost)(void *context, const struct cow_loss *loss);          /* may be NULL */
	void (*progress)(void *context, uint64_t done_blocks, uint64_t used_blocks); /* may be NULL */
	void *context;
	/* File to keep what is overwritten; must not exist. NULL: none is kept. */
	const char *undo_path;
	bool dry_run; /* writes nothing */
};
struct cow_repair_result {
	uint64_t findings;  /* before */
	uint64_t left;      /* after; with dry_run what would be left */
	uint64_t losses;    /* reported to `lost` */
	uint64_t recovered; /* things put into /lost+found */
	uint64_t blocks;    /* written */
	bool written;
};
/*
 * Mends the structure of a damaged volume: everything that can be read stays, what was only in a damaged block goes and
 * is reported, trees whose way from the root is lost go to /lost+found, counts and totals are made anew. All of it is
 * made and checked in memory first, and then written as one new generation: a crash meanwhile leaves the volume as it
 * was. File data is not looked at: what does not fit its checksum answers EIO, before and after.
 * 0 if the volume was clean, or is now; see `left`. -- COW_ERR_BUSY, COW_ERR_NEWER, COW_ERR_DAMAGED (no superblock,
 * or the result would not be sound: nothing was written), COW_ERR_SHORT, -ENOSPC (no free blocks to work with:
 * nothing was written), -EEXIST (undo_path), errors of open(2) and of the device
 */
COW_CHECKED int cow_repair(const char *path, const struct cow_repair_options *options,
			   struct cow_repair_result *result);
/*
 * Brings back what cow_repair() has overwritten. -- -EINVAL (no undo file), -ESTALE (of another volume, or this one has
 * been changed since), COW_ERR_DAMAGED (the undo file is), COW_ERR_BUSY, errors of open(2)
 */
COW_CHECKED int cow_repair_undo(const char *path, const char *undo_path);

#ifdef __cplusplus
}
#endif
#endif
