#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints all that a copy of a tree has to keep: two trees are equal if this says the same of both.

listing.py [--no-atime] [--no-xattr] DIR
"""
import hashlib
import os
import stat
import sys


def content(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def xattrs(path):
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def describe(path, groups, with_xattr):
    st = os.lstat(path)
    kind = stat.S_IFMT(st.st_mode)
    fields = ["%06o" % st.st_mode, str(st.st_uid), str(st.st_gid), str(st.st_mtime_ns)]
    if kind == stat.S_IFREG:
        fields += [str(st.st_size), content(path)]
    if kind == stat.S_IFLNK:
        fields.append(repr(os.readlink(path)))
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        fields.append("%d:%d" % (os.major(st.st_rdev), os.minor(st.st_rdev)))
    if kind != stat.S_IFDIR and st.st_nlink > 1:
        fields.append("links=%d group=%d" % (st.st_nlink, groups.setdefault((st.st_dev, st.st_ino), len(groups))))
    if with_xattr:
        fields.append(repr(xattrs(path)))
    return " ".join(fields)


def main():
    with_xattr = "--no-xattr" not in sys.argv
    top = os.fsencode([a for a in sys.argv[1:] if not a.startswith("--")][0])
    groups = {}
    print(".", describe(top, groups, with_xattr))
    for directory, names, files in os.walk(top):
        names.sort()
        for name in sorted(names + files):
            path = os.path.join(directory, name)
            print(repr(os.path.relpath(path, top)), describe(path, groups, with_xattr))


main()
