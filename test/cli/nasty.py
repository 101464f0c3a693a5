#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes trees to test with.

nasty.py tree DIR          a tree with everything in it: types, names, links, holes, attributes
nasty.py change DIR SEED   changes it in many ways
"""
import os
import random
import shutil
import stat
import sys

NAMES = [
    b"plain", b"with space", b'q"uote', b"q'uote", b"back\\slash", b"tab\there", b"new\nline", b"\xff\xfe\x80",
    "ünïcode".encode(), "u\u0308nfd".encode(), b"$dollar", b"~", b"#hash", b"-dash", b"-", b"*", b"\x01\x7f", b"a:b",
    b"=", b"{}", b"`", b"x" * 255, ("ä" * 127).encode(), b"...", b".hidden", b"a-b", b"a.b", b"a", b"%s%n",
]


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def make(top):
    os.makedirs(top)
    r = random.Random(7)
    for directory in [b"", b"d", b"d/e", b"d/e/f", b"d-x", b"d.y", b"sp ace", b"n\nl"]:
        path = os.path.join(top, directory)
        os.makedirs(path, exist_ok=True)
        for name in NAMES:
            target = os.path.join(path, b"f_" + name[:253] if len(name) < 250 else name)
            write(target, b"".join(b"line %d of %s\n" % (i, name.replace(b"\n", b"?")) for i in range(r.randrange(40))))
            os.chmod(target, r.choice([0o644, 0o600, 0o755, 0o444]))
            os.utime(target, ns=(r.randrange(2**60), r.randrange(2**60)))
    os.makedirs(os.path.join(top, b"empty dir"))
    os.makedirs(os.path.join(top, b"/".join(b"deep%d" % i for i in range(40))).replace(b"//", b"/"))
    write(os.path.join(top, b"empty"), b"")
    write(os.path.join(top, b"no newline"), b"no newline at the end")
    write(os.path.join(top, b"binary"), bytes(range(256)) * 100)
    write(os.path.join(top, b"big"), r.randbytes(3_000_000))
    write(os.path.join(top, b"hard 1"), b"linked\n")
    os.link(os.path.join(top, b"hard 1"), os.path.join(top, b"d/hard 2"))
    os.link(os.path.join(top, b"hard 1"), os.path.join(top, b"hard 3"))
    os.symlink(b"plain", os.path.join(top, b"link"))
    os.symlink(b"/nowhere/" + b"x" * 3000, os.path.join(top, b"d/long link"))
    os.symlink(b"d", os.path.join(top, b"link to dir"))
    os.mkfifo(os.path.join(top, b"fifo"))
    if os.geteuid() == 0:
        os.mknod(os.path.join(top, b"null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(os.path.join(top, b"block"), stat.S_IFBLK | 0o600, os.makedev(7, 300))
        os.chown(os.path.join(top, b"binary"), 1234, 4321)
        os.lchown(os.path.join(top, b"link"), 5, 6)
        os.chmod(os.path.join(top, b"binary"), 0o6755)
    with open(os.path.join(top, b"holes"), "wb") as file:
        file.truncate(10_000_000)
        for offset in (8192, 1_000_000, 5_000_000):
            file.seek(offset)
            file.write(b"data at %d\n" % offset)
    with open(os.path.join(top, b"one hole"), "wb") as file:
        file.truncate(1_000_000)
    for name, value in ((b"user.small", b"v"), (b"user.empty", b""), (b"user.large", b"L" * 3000)):
        try:
            os.setxattr(os.path.join(top, b"plain x"), name, value)
        except FileNotFoundError:
            write(os.path.join(top, b"plain x"), b"xattrs\n")
            os.setxattr(os.path.join(top, b"plain x"), name, value)
        os.setxattr(os.path.join(top, b"d"), name, value)
    os.chmod(os.path.join(top, b"d/e"), 0o700)
    for directory, names, _ in os.walk(top, topdown=False):
        os.utime(directory, ns=(10**18, 10**18 + len(names) * 1_000_000_007))


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def change(top, seed):
    r = random.Random(seed)

    def everything():
        found = []
        for directory, names, files in os.walk(top):
            found += [os.path.join(directory, name) for name in sorted(names + files)]
        return sorted(found)

    for step in range(40):
        paths = everything()
        path = r.choice(paths)
        st = os.lstat(path)
        parent = os.path.dirname(path)
        action = r.choice("append edit binary truncate remove chmod touch replace-dir replace-file add add-dir symlink rename "
                          "retarget add-empty newline special".split())
        fresh = os.path.join(parent, b"new %d " % step + r.choice(NAMES)[:200])
        if action == "append" and stat.S_ISREG(st.st_mode):
            with open(path, "ab") as file:
                file.write(b"appended\n")
        elif action == "edit" and stat.S_ISREG(st.st_mode) and st.st_size:
            with open(path, "r+b") as file:
                file.seek(r.randrange(st.st_size))
                file.write(b"E")
        elif action == "binary" and stat.S_ISREG(st.st_mode):
            write(path, b"bin\0ary %d" % step)
        elif action == "truncate" and stat.S_ISREG(st.st_mode):
            os.truncate(path, st.st_size // 2)
        elif action == "newline" and stat.S_ISREG(st.st_mode):
            with open(path, "ab") as file:
                file.write(b"no newline")
        elif action == "remove":
            remove(path)
        elif action == "chmod" and not stat.S_ISLNK(st.st_mode):
            os.chmod(path, st.st_mode ^ 0o011)
        elif action == "touch" and not stat.S_ISLNK(st.st_mode):
            os.utime(path)
        elif action == "replace-dir" and not stat.S_ISDIR(st.st_mode):
            remove(path)
            os.mkdir(path)
            write(os.path.join(path, b"inside"), b"inside\n")
        elif action == "replace-file":
            remove(path)
            write(path, b"a file now\n")
        elif action == "add":
            write(fresh, b"new\nlines\n")
        elif action == "add-empty":
            write(fresh, b"")
        elif action == "add-dir":
            os.makedirs(os.path.join(fresh, b"in er"))
            write(os.path.join(fresh, b"in er", b"file\x80"), b"deep\n")
            write(os.path.join(fresh, b"b"), b"b\n")
            os.mkdir(os.path.join(fresh, b"void"))
        elif action == "symlink":
            os.symlink(b"to nowhere", fresh)
        elif action == "retarget" and stat.S_ISLNK(st.st_mode):
            os.unlink(path)
            os.symlink(b"elsewhere", path)
        elif action == "special":
            os.mkfifo(fresh)
        elif action == "rename":
            os.rename(path, fresh)


def main():
    if sys.argv[1] == "tree":
        make(os.fsencode(sys.argv[2]))
    else:
        change(os.fsencode(sys.argv[2]), int(sys.argv[3]))


main()
