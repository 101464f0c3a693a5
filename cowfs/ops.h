/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The request handlers, one for each kind of request that the kernel sends (see fuse_lowlevel.h). */
#ifndef COWFS_OPS_H
#define COWFS_OPS_H

#include "cowfs/mount.h"

/* names.c */
void cowfs_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void cowfs_op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t count);
void cowfs_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);
void cowfs_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void cowfs_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void cowfs_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void cowfs_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi);
void cowfs_op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name);
void cowfs_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void cowfs_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void cowfs_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
		     unsigned flags);

/* attr.c */
void cowfs_op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cowfs_op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi);
void cowfs_op_readlink(fuse_req_t req, fuse_ino_t ino);
void cowfs_op_statfs(fuse_req_t req, fuse_ino_t ino);
/* Truncates to `size` as open(O_TRUNC) does. */
int cowfs_truncate(struct cow_inode *inode, uint64_t size);

/* dir.c */
void cowfs_op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cowfs_op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cowfs_op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void cowfs_op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);

/* file.c */
void cowfs_op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cowfs_op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cowfs_op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void cowfs_op_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t offset,
		    struct fuse_file_info *fi);
void cowfs_op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void cowfs_op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi);
void cowfs_op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
			struct fuse_file_info *fi);
void cowfs_op_lseek(fuse_req_t req, fuse_ino_t ino, off_t offset, int whence, struct fuse_file_info *fi);
void cowfs_op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, struct fuse_file_info *from_fi,
			      fuse_ino_t to, off_t to_offset, struct fuse_file_info *to_fi, size_t length, int flags);
/* Holds the inode open for a descriptor with fi->flags and fills the rest of `fi`, fh with what is not 0; undone by
 * cowfs_close(). */
int cowfs_open(fuse_req_t req, struct cow_inode *inode, struct fuse_file_info *fi);
void cowfs_close(struct cowfs *fs, struct cow_inode *inode, struct fuse_file_info *fi);

/* xattr.c */
void cowfs_op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void cowfs_op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void cowfs_op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void cowfs_op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* ioctl.c */
void cowfs_op_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned command, void *arg, struct fuse_file_info *fi,
		    unsigned flags, const void *in, size_t in_size, size_t out_size);

#endif
