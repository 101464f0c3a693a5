#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The random differential test: the same seeded operations on a cowlinks mount and, with `cp -a` for a clone and `rm -rf`
for `cow rm`, on a control file system (XFS on a loop device).  Results, errno and whole trees are compared.

usage: differential.py [--seeds N] [--first SEED] [--steps N] [--jobs N] [--fake BUG] [--no-shrink] [--no-fresh]

Where cowlinks is meant to answer otherwise than the control, the answer is predicted, never skipped:
  EXDEV   link(2) between worlds (clones), and rename(2) across worlds of a file with several names or of a directory
          that holds some but not all names of a hard-linked file.  The control then does nothing.
  EROFS   below a read-only clone.
The prediction comes from a model of the names only: which directory is a world, its colour (the identity that its
inode numbers hang on), which names are one file.  All content comes from the control.

--fake runs the control's own file system as the system under test, with cp -a as clone, and plants the named bug
("none": no bug): that proves the test itself.  A failing run is replayed in parts to find a short list of operations.
"""
import argparse
import errno
import mmap
import os
import random
import re
import sys
import time

import cowtest
from cowtest import Failure, check, run

NAMES = [a + b for a in ('a', 'b', 'c', 'x', 'long-name-' * 8) for b in ('', '1', '2', 'é', ' s')]
XATTRS = ['user.a', 'user.b', 'trusted.t', 'user.long']
LIMIT = 130  # entries in the tree: comparing it must stay cheap


# ------------------------------------------------------------------ the model of names

class Node:
    __slots__ = ('is_dir', 'kind', 'kids', 'names', 'world', 'read_only', 'colour', 'was_linked', 'gone')

    def __init__(self, kind):
        self.kind = kind  # d f l p c
        self.is_dir = kind == 'd'
        self.kids = {}
        self.names = 1
        self.world = self.read_only = self.was_linked = self.gone = False
        self.colour = None


class Model:
    """The tree of names, with worlds.  Paths are tuples of names."""

    def __init__(self):
        self.root = Node('d')
        self.root.world = True
        self.root.colour = object()

    def trail(self, path):
        nodes = [self.root]
        for name in path:
            nodes.append(nodes[-1].kids[name])
        return nodes

    def node(self, path):
        return self.trail(path)[-1]

    def world(self, path):
        """The world that directory `path` belongs to (a world's top belongs to its own)."""
        return next(n for n in reversed(self.trail(path)) if n.world)

    def read_only(self, path):
        return any(n.world and n.read_only for n in self.trail(path))

    def walk(self):
        """All (path, node) below the root."""
        def go(node, path):
            for name, kid in node.kids.items():
                yield path + (name,), kid
                if kid.is_dir:
                    yield from go(kid, path + (name,))
        return go(self.root, ())

    def copy(self, node, memo=None):
        memo = {} if memo is None else memo
        if id(node) in memo:
            memo[id(node)].names += 1
            return memo[id(node)]
        new = memo[id(node)] = Node(node.kind)
        new.was_linked = node.was_linked or node.names > 1
        if node.world:
            new.world, new.read_only, new.colour = True, node.read_only, object()
        for name, kid in node.kids.items():
            new.kids[name] = self.copy(kid, memo)
        return new

    def clone(self, source, target, read_only):
        new = self.copy(self.node(source))
        if new.is_dir:
            new.world, new.read_only, new.colour = True, read_only, object()
        else:
            new.names, new.was_linked = 1, False
        self.node(target[:-1]).kids[target[-1]] = new

    def remove(self, path):
        """unlink, rmdir and cow rm"""
        def drop(node):
            node.names -= 1
            if node.is_dir:
                node.gone = True
                for kid in node.kids.values():
                    drop(kid)
        drop(self.node(path[:-1]).kids.pop(path[-1]))

    def inside(self, top):
        """Files of top's world below it: {id: [names inside, node]}"""
        found = {}

        def go(node):
            for kid in node.kids.values():
                if not kid.is_dir:
                    found.setdefault(id(kid), [0, kid])[0] += 1
                elif not kid.world:
                    go(kid)
        go(top)
        return found

    def link_refused(self, source, target):
        return self.world(source[:-1]) is not self.world(target[:-1])

    def rename_refused(self, source, target):
        """Whether rename must answer EXDEV, given that it is otherwise possible."""
        if self.world(source[:-1]) is self.world(target[:-1]):
            return False
        node = self.node(source)
        if not node.is_dir:
            return node.names > 1
        return not node.world and any(n != kid.names for n, kid in self.inside(node).values())

    def rename(self, source, target, ask):
        """Moves.  `ask` tells whether a directory is a world now, where the design leaves it open."""
        node, parent = self.node(source), self.node(target[:-1])
        before, after = self.world(source[:-1]), self.world(target[:-1])
        old = parent.kids.get(target[-1])
        if old is node:
            return
        if old is not None:
            old.names -= 1
            old.gone = old.is_dir
        del self.node(source[:-1]).kids[source[-1]]
        parent.kids[target[-1]] = node
        if before is after:
            return
        if not node.is_dir:
            node.was_linked = False
            return
        if not node.world:
            node.world, node.read_only, node.colour = True, False, before.colour
        # A writable world without link references in a world of its own colour that has none either is a plain
        # directory again.  A file with one name left may still have its record among the links, or in its entry.
        files = [kid for top in (node, after) for _, kid in self.inside(top).values()]
        if node.colour is after.colour and not node.read_only and not any(kid.names > 1 for kid in files):
            if any(kid.was_linked for kid in files):
                node.world = ask()
            else:
                node.world = False
                check(not ask(), '%s should be a plain directory again' % '/'.join(target))
        else:
            check(ask(), '%s should be a clone (world)' % '/'.join(target))


# ------------------------------------------------------------------ the two sides

class Mapping:
    """A shared mapping; the descriptor is kept to know the size, as touching pages behind the end is SIGBUS."""

    def __init__(self, fd):
        self.fd = fd
        self.map = mmap.mmap(fd, os.fstat(fd).st_size)

    def size(self):
        return min(len(self.map), os.fstat(self.fd).st_size)

    def store(self, offset, data):
        size = self.size()
        if size:
            at = offset % size
            part = data[:size - at]
            self.map[at:at + len(part)] = part

    def bytes(self):
        return self.map[:self.size()]

    def close(self):
        self.map.close()
        os.close(self.fd)


class Side:
    """One of the two trees: how each operation is done by system calls."""

    def __init__(self, top):
        self.top = top
        self.open = {}  # handle -> descriptor or mapping

    def p(self, path):
        return os.path.join(self.top, *path)

    def close_all(self):
        for handle in list(self.open):
            self.close(handle)

    def close(self, handle):
        kept = self.open.pop(handle)
        if isinstance(kept, int):
            os.close(kept)
        else:
            kept.close()

    def mkdir(self, path, mode):
        os.mkdir(self.p(path), mode)

    def create(self, path, data):
        cowtest.write(self.p(path), data, os.O_CREAT | os.O_EXCL | os.O_WRONLY)

    def special(self, path, kind):
        if kind == 'p':
            os.mkfifo(self.p(path), 0o640)
        else:
            os.mknod(self.p(path), 0o20600, os.makedev(1, 3))

    def symlink(self, path, target):
        os.symlink(target, self.p(path))

    def write(self, path, offset, data):
        cowtest.write(self.p(path), data, os.O_WRONLY, offset)

    def replace(self, path, data):
        cowtest.write(self.p(path), data, os.O_WRONLY | os.O_TRUNC)

    def append(self, path, data):
        cowtest.write(self.p(path), data, os.O_WRONLY | os.O_APPEND)

    def direct(self, path, block, data):
        fd = os.open(self.p(path), os.O_WRONLY | os.O_DIRECT)
        buffer = mmap.mmap(-1, 4096)  # aligned memory
        try:
            buffer[:] = data
            os.pwrite(fd, buffer, block * 4096)
        finally:
            os.close(fd)
            buffer.close()

    def truncate(self, path, size):
        os.truncate(self.p(path), size)

    def fallocate(self, path, mode, offset, length):
        with cowtest.Fd(self.p(path), os.O_WRONLY) as fd:
            cowtest.fallocate(fd, mode, offset, length)

    def store(self, path, offset, data, handle):
        """A store to a shared mapping, never msynced; the mapping stays if a handle is given."""
        fd = os.open(self.p(path), os.O_RDWR)
        if os.fstat(fd).st_size == 0:  # nothing to map
            os.close(fd)
            return
        mapping = Mapping(fd)
        mapping.store(offset, data)
        if handle is None:
            mapping.close()
        else:
            self.open[handle] = mapping

    def hold(self, path, handle):
        self.open[handle] = os.open(self.p(path), os.O_RDWR)

    def held_write(self, handle, offset, data):
        """Through a descriptor or a mapping that was made earlier; its file may have moved or lost all names."""
        kept = self.open[handle]
        if isinstance(kept, int):
            os.pwrite(kept, data, offset)
        else:
            kept.store(offset, data)

    def held_read(self, handle):
        kept = self.open[handle]
        if not isinstance(kept, int):
            return kept.bytes()
        return os.pread(kept, 1 << 24, 0), os.fstat(kept).st_nlink

    def held_truncate(self, handle, size):
        kept = self.open[handle]
        if isinstance(kept, int):
            os.ftruncate(kept, size)

    def copy_range(self, source, target, a, b, length):
        with cowtest.Fd(self.p(source)) as s, cowtest.Fd(self.p(target), os.O_WRONLY) as t:
            done = 0
            while done < length:  # each call may copy less
                n = os.copy_file_range(s, t, length - done, a + done, b + done)
                if n == 0:
                    break
                done += n
            return done

    def copy(self, source, target):
        """cp of a whole file, which shares"""
        with cowtest.Fd(self.p(source)) as s, \
                cowtest.Fd(self.p(target), os.O_WRONLY | os.O_CREAT | os.O_EXCL) as t:
            size, done = os.fstat(s).st_size, 0
            while done < size:
                n = os.copy_file_range(s, t, size - done)
                if n == 0:
                    break
                done += n

    def link(self, source, target):
        os.link(self.p(source), self.p(target), follow_symlinks=False)

    def unlink(self, path):
        os.unlink(self.p(path))

    def rmdir(self, path):
        os.rmdir(self.p(path))

    def rename(self, source, target):
        os.rename(self.p(source), self.p(target))

    def exchange(self, source, target):
        cowtest.renameat2(self.p(source), self.p(target), cowtest.RENAME_EXCHANGE)

    def chmod(self, path, mode):
        os.chmod(self.p(path), mode)

    def chown(self, path, uid, gid):
        os.chown(self.p(path), uid, gid, follow_symlinks=False)

    def utime(self, path, when):
        os.utime(self.p(path), ns=(when, when), follow_symlinks=False)

    def setxattr(self, path, name, value):
        os.setxattr(self.p(path), name, value, follow_symlinks=False)

    def removexattr(self, path, name):
        os.removexattr(self.p(path), name, follow_symlinks=False)

    def clone(self, source, target, read_only, command):
        if os.path.lexists(self.p(target)):
            raise FileExistsError(errno.EEXIST, 'exists')
        # By way of a place outside, as cp refuses to copy a directory into itself.
        temporary = self.top + '.copying'
        run('cp', '-a', *self.copy_options(), '--', self.p(source), temporary)
        os.rename(temporary, self.p(target))

    def copy_options(self):
        return ['--reflink=never']

    def cow_rm(self, path, command):
        run('rm', '-rf', '--', self.p(path))

    def is_world(self, path):
        raise NotImplementedError


class Cowlinks(Side):
    """The system under test."""

    def __init__(self, volume, top):
        super().__init__(top)
        self.volume = volume

    def clone(self, source, target, read_only, command):
        if not command:
            cowtest.fast_clone(self.p(source), self.p(target), read_only)
            return
        if os.path.lexists(self.p(target)):
            raise FileExistsError(errno.EEXIST, 'exists')
        self.command('clone', *(['--read-only'] if read_only else []), self.p(source), self.p(target))

    def cow_rm(self, path, command):
        if command:
            self.command('rm', self.p(path))
        else:
            cowtest.fast_remove(self.p(path))

    @staticmethod
    def command(*argv):
        """The cow command; what it says is an errno again."""
        p = cowtest.cow(*argv, rc=(0, 1))
        if p.returncode == 0:
            return
        for code in (errno.EROFS, errno.ENOSPC, errno.EEXIST, errno.ENOENT, errno.EINVAL):
            if os.strerror(code) in p.stderr:
                raise OSError(code, p.stderr.strip())
        raise Failure('cow %s: %s' % (' '.join(argv), p.stderr))

    def is_world(self, path):
        return cowtest.is_clone(self.p(path))

    def remount(self, crash):
        if crash:
            cowtest.sync_volume(self.top)
            self.volume.kill()
            self.volume.mount()
        else:
            self.volume.remount()

    def totals(self, path):
        files, directories, apparent = cowtest.usage(self.p(path))[:3]
        return files, directories, apparent

    def numbers_hold(self):
        return True


class Fake(Side):
    """cp -a as the system under test, with a planted bug; EXDEV and EROFS come from the model, so are not proved."""

    BUGS = ('none', 'share', 'lost-mmap', 'broken-links', 'lost-xattr', 'stale-append', 'mode')

    def __init__(self, top, bug, seed):
        super().__init__(top)
        self.bug = bug
        self.random = random.Random(seed)

    def bites(self, bug):
        return self.bug == bug and self.random.random() < 0.3

    def copy_options(self):
        if self.bites('share'):
            return ['-l']
        return ['--no-preserve=links'] if self.bites('broken-links') else []

    def store(self, path, offset, data, handle):
        super().store(path, offset, b'' if self.bites('lost-mmap') else data, handle)

    def setxattr(self, path, name, value):
        if self.bites('lost-xattr'):
            value = value[:-1]
        super().setxattr(path, name, value)

    def append(self, path, data):
        if self.bites('stale-append'):
            super().write(path, 0, data)
        else:
            super().append(path, data)

    def chmod(self, path, mode):
        super().chmod(path, mode ^ 1 if self.bites('mode') else mode)

    def is_world(self, path):
        return None

    def remount(self, crash):
        pass

    def totals(self, path):
        return None

    def numbers_hold(self):
        return False


# ------------------------------------------------------------------ operations

def payload(r):
    """Some bytes that differ from others, seldom many."""
    size = r.choice((1, 10, 100, 100, 2000, 5000, 9000, 20000, 300000 if r.random() < 0.1 else 50))
    return (b'%08x' % r.getrandbits(32)) * (size // 8 + 1)


def place(r):
    return r.choice((0, 0, 1, 100, 4095, 4096, 8192, 12288, 20000, 65536, 1 << 20 if r.random() < 0.1 else 7))


def going_home(model, directories):
    """Pairs of a directory and one in another world of its own colour: moved there it may be a plain one again."""
    world = {d: model.world(d) for d in directories}
    return [(p, d) for p in directories[1:] for d in directories
            if world[p].colour is world[d].colour and world[p[:-1]] is not world[d] and d[:len(p)] != p]


def generate(r, model, handles, counter):
    """The next operation as a tuple of plain values; it is mostly possible, seldom not."""
    everything = list(model.walk())
    directories = [()] + [p for p, n in everything if n.is_dir]
    files = [p for p, n in everything if n.kind == 'f']
    others = [p for p, n in everything if not n.is_dir]
    linked = [p[:-1] for p, n in everything if not n.is_dir and n.names > 1 and len(p) > 1]
    full = len(everything) > LIMIT
    d = r.choice(directories)
    new = d + (r.choice(NAMES),)
    kind = r.choices(KINDS, WEIGHTS)[0]
    if full and r.random() < 0.7:
        kind = r.choice(('cow_rm', 'unlink', 'rmdir'))
    if kind == 'mkdir':
        return kind, new, r.choice((0o755, 0o700, 0o1777))
    if kind == 'create':
        return kind, new, payload(r)
    if kind == 'special':
        return kind, new, r.choice('pc')
    if kind == 'symlink':
        return kind, new, r.choice(('x', 'a/b/c', '/', 'é' * 30, 'y' * 700))
    if kind == 'clone':
        source = r.choice(directories if r.random() < 0.8 or not files else files)
        if r.random() < 0.3 and linked:
            source = r.choice(linked)
        if full or len(list(model.inside(model.node(source)))) > LIMIT:
            return None
        return kind, source, new, model.node(source).is_dir and r.random() < 0.03, r.random() < 0.05
    if kind in ('remount', 'crash'):
        return (kind,)
    if kind in ('held_write', 'held_truncate', 'close'):
        if not handles:
            return None
        h = r.choice(sorted(handles))
        return {'held_write': (kind, h, place(r), payload(r)[:4000]), 'close': (kind, h),
                'held_truncate': (kind, h, r.choice((0, 5, 5000, 70000)))}[kind]
    if kind in ('chmod', 'chown', 'utime', 'setxattr', 'removexattr'):
        path = r.choice(directories if r.random() < 0.3 or not others else others)
        if kind == 'chmod':
            links = [p for p, n in everything if n.kind == 'l']
            return None if path in links else (kind, path, r.choice((0o644, 0o600, 0o755, 0o4755, 0o777)))
        if kind == 'chown':
            return kind, path, r.choice((0, 1, 65534)), r.choice((0, 1, 100))
        if kind == 'utime':
            return kind, path, r.randrange(10 ** 18)
        name = r.choice(XATTRS)
        if kind == 'removexattr':
            return kind, path, name
        return kind, path, name, payload(r)[:r.choice((0, 1, 20, 200, 3000 if name == 'user.long' else 60))]
    if kind == 'rename':
        pool = linked if linked and r.random() < 0.4 else directories[1:] if r.random() < 0.7 else others
        if not pool:
            return None
        target = new
        if r.random() < 0.15:
            home = r.choice(going_home(model, directories) or [None])
            if home:
                return kind, home[0], home[1] + (new[-1],)
        if r.random() < 0.25 and others:
            target = r.choice(others)  # over something
        return kind, r.choice(pool), target
    if kind == 'exchange':
        return (kind, r.choice(everything)[0], r.choice(everything)[0]) if everything else None
    if kind in ('rmdir', 'cow_rm'):
        pool = directories[1:]
        if kind == 'cow_rm' and others and r.random() < 0.2:
            pool = others
        return (kind, r.choice(pool)) + ((r.random() < 0.05,) if kind == 'cow_rm' else ()) if pool else None
    if kind in ('unlink', 'link'):
        if not others:
            return None
        path = r.choice(others)
        if kind == 'unlink':
            return kind, path
        return kind, path, (path[:-1] if r.random() < 0.3 else d) + (new[-1],)
    if not files:
        return None
    path = r.choice(files)
    if kind in ('write',):
        return kind, path, place(r), payload(r)
    if kind in ('append', 'replace'):
        return kind, path, payload(r)
    if kind == 'direct':
        return kind, path, r.choice((0, 1, 3, 20)), (b'%07d\n' % r.randrange(10 ** 7)) * 512
    if kind == 'truncate':
        return kind, path, r.choice((0, 1, 100, 4096, 5000, 100000, r.randrange(30000)))
    if kind == 'fallocate':
        mode = r.choice((cowtest.PUNCH_HOLE | cowtest.KEEP_SIZE, cowtest.PUNCH_HOLE | cowtest.KEEP_SIZE,
                         cowtest.ZERO_RANGE, cowtest.ZERO_RANGE | cowtest.KEEP_SIZE, 0, cowtest.KEEP_SIZE))
        return kind, path, mode, place(r), r.choice((1, 100, 4096, 8192, 10000, 70000))
    if kind in ('store', 'hold'):
        handle = None
        if kind == 'hold' or r.random() < 0.3:
            if len(handles) >= 6:
                return None
            counter[0] += 1
            handle = counter[0]
        return (kind, path, place(r), payload(r), handle) if kind == 'store' else (kind, path, handle)
    if kind == 'copy':
        return kind, path, new
    if kind == 'copy_range':
        return kind, path, r.choice(files), place(r), place(r), r.choice((10, 4096, 8192, 30000, 200000))
    raise ValueError(kind)


MIX = dict(mkdir=5, create=9, special=1, symlink=2, clone=9, remount=0.25, crash=0.15, held_write=4, held_truncate=1,
           close=2, chmod=3, chown=2, utime=1, setxattr=4, removexattr=1, rename=14, exchange=1, rmdir=2, cow_rm=3, unlink=5, link=8,
           write=6, append=4, replace=2, direct=1, truncate=4, fallocate=4, store=5, hold=2, copy=2, copy_range=3)
KINDS, WEIGHTS = list(MIX), list(MIX.values())


class Run:
    """One seed: the two sides, the model, and what was done."""

    images = 0  # made by this process, for names

    def __init__(self, system, control, every):
        self.system, self.control, self.every = system, control, every
        self.model = Model()
        self.handles = {}  # handle -> node of the model
        self.numbers = {}  # st_ino by node, which must never change
        self.compared = 0
        self.answers = {}

    ON_FILES = ('write', 'append', 'replace', 'direct', 'truncate', 'fallocate', 'store', 'hold', 'copy', 'copy_range')

    def possible(self, op):
        """For replays with operations left out: whether what it names is there."""
        try:
            if op[0] in ('held_write', 'held_truncate', 'close'):
                return op[1] in self.handles
            if op[0] in ('remount', 'crash'):
                return True
            if op[0] in ('mkdir', 'create', 'special', 'symlink'):
                return self.model.node(op[1][:-1]).is_dir
            node = self.model.node(op[1])
            if op[0] in self.ON_FILES and node.kind != 'f' or op[0] in ('unlink', 'link') and node.is_dir \
                    or op[0] == 'rmdir' and not node.is_dir or op[0] == 'clone' and (node.kind not in 'df'
                                                                                     or op[3] and not node.is_dir):
                return False
            if op[0] in ('clone', 'copy', 'link', 'rename'):
                return self.model.node(op[2][:-1]).is_dir
            if op[0] == 'exchange':
                self.model.node(op[2])
            if op[0] == 'copy_range':
                return self.model.node(op[2]).kind == 'f'
            return True
        except (KeyError, IndexError):
            return False

    def read_only(self, op):
        kind = op[0]
        above = lambda path: self.model.read_only(path[:-1])
        if kind in ('mkdir', 'create', 'special', 'symlink', 'unlink', 'rmdir', 'cow_rm'):
            return above(op[1])
        if kind in ('clone', 'copy', 'link'):
            return above(op[2])
        if kind in ('rename', 'exchange'):
            if self.model.node(op[2][:-1]).kids.get(op[2][-1]) is self.model.node(op[1]):
                return False  # the same file: nothing to do, says the kernel before it asks anybody
            return above(op[1]) or above(op[2])
        if kind == 'copy_range':
            return above(op[2])
        if kind in ('held_write', 'held_truncate', 'close', 'remount', 'crash'):
            return False
        node = self.model.node(op[1])
        return self.model.read_only(op[1] if node.is_dir else op[1][:-1])

    def predict(self, op):
        """The errno with which cowlinks answers though the control would not, or 0."""
        if self.read_only(op):
            return errno.EROFS
        if op[0] == 'link' and op[2][-1] not in self.model.node(op[2][:-1]).kids \
                and self.model.link_refused(op[1], op[2]):
            return errno.EXDEV
        if op[0] == 'rename' and self.rename_possible(op[1], op[2]) and self.model.rename_refused(op[1], op[2]):
            return errno.EXDEV
        if op[0] == 'exchange' and self.exchange_refused(op[1], op[2]):
            return errno.EXDEV
        return 0

    def exchange_refused(self, a, b):
        if a[:len(b)] == b or b[:len(a)] == a or self.model.node(a) is self.model.node(b):
            return False
        return self.model.world(a[:-1]) is not self.model.world(b[:-1])

    def rename_possible(self, source, target):
        node = self.model.node(source)
        if node.is_dir and target[:len(source)] == source:
            return False
        old = self.model.node(target[:-1]).kids.get(target[-1])
        if old is None:
            return True
        if old is node or (old.is_dir and source[:len(target)] == target):
            return False
        return old.is_dir == node.is_dir and not old.kids

    @staticmethod
    def outcome(side, op):
        try:
            return 0, getattr(side, op[0])(*op[1:])
        except OSError as e:
            # POSIX leaves the choice; file systems differ.
            return errno.ENOTEMPTY if op[0] == 'rename' and e.errno == errno.EEXIST else e.errno, None

    def step(self, op):
        if op[0] in ('remount', 'crash'):
            for side in (self.system, self.control):
                side.close_all()
            self.handles.clear()
            self.system.remount(op[0] == 'crash')
            return
        predicted = self.predict(op)
        self.answers[predicted] = self.answers.get(predicted, 0) + 1
        if predicted and isinstance(self.system, Fake):
            return
        got = self.outcome(self.system, op)
        if predicted:
            # Below a read-only clone an operation that cannot work anyway may say so instead.
            fine = got[0] == predicted or predicted == errno.EROFS and got[0] != 0
            check(fine, '%s instead of the predicted %s' % (errno.errorcode.get(got[0], 'success'),
                                                            errno.errorcode[predicted]))
            return
        want = self.outcome(self.control, op)
        check(got == want, 'answered %s, the control %s' % tuple(
            (errno.errorcode.get(x[0], 'success') + ' ' + cowtest.brief(x[1])) for x in (got, want)))
        if want[0] == 0:
            self.applied(op)

    def applied(self, op):
        """The model follows what the control did."""
        kind, model = op[0], self.model
        if kind in ('mkdir', 'create', 'special', 'symlink', 'copy'):
            path = op[2] if kind == 'copy' else op[1]
            node = Node({'mkdir': 'd', 'create': 'f', 'symlink': 'l', 'copy': 'f'}.get(kind) or op[2])
            model.node(path[:-1]).kids[path[-1]] = node
        elif kind == 'clone':
            model.clone(op[1], op[2], op[3])
        elif kind in ('unlink', 'rmdir', 'cow_rm'):
            model.remove(op[1])
        elif kind == 'link':
            node = model.node(op[1])
            model.node(op[2][:-1]).kids[op[2][-1]] = node
            node.names += 1
            node.was_linked = True
        elif kind == 'rename':
            fake = isinstance(self.system, Fake)
            if fake:
                self.fake_rename(op)
            else:
                model.rename(op[1], op[2], lambda: self.system.is_world(op[2]))
        elif kind == 'exchange':
            one, two = model.node(op[1][:-1]).kids, model.node(op[2][:-1]).kids
            one[op[1][-1]], two[op[2][-1]] = two[op[2][-1]], one[op[1][-1]]
        elif kind in ('store', 'hold') and op[-1] is not None and op[-1] in self.control.open:
            self.handles[op[-1]] = model.node(op[1])
        elif kind == 'close':
            del self.handles[op[1]]

    def fake_rename(self, op):
        try:
            self.model.rename(op[1], op[2], lambda: None)
        except Failure:
            pass

    def compare(self):
        mine, numbers = cowtest.snapshot(self.system.top)
        other, _ = cowtest.snapshot(self.control.top)
        line = cowtest.first_difference(mine, other)
        check(line is None, 'mount and control differ: %s' % line)
        for handle in self.handles:
            got, want = self.system.held_read(handle), self.control.held_read(handle)
            check(got == want, 'open file %d differs: %s and %s' % (handle, cowtest.brief(got), cowtest.brief(want)))
        if self.system.numbers_hold():
            self.compare_numbers(numbers)
            self.compare_totals(mine)

    def compare_numbers(self, numbers):
        """No number twice but for one file's names, and a file keeps its own for ever."""
        owner = {}
        for path, node in [((), self.model.root)] + list(self.model.walk()):
            number = numbers['/'.join(path)]
            check(owner.setdefault(number, node) is node, 'inode number %d twice, at %s' % (number, '/'.join(path)))
            old = self.numbers.setdefault(id(node), (number, node))[0]
            check(old == number, 'inode number of %s changed from %d to %d' % ('/'.join(path), old, number))

    def compare_totals(self, mine):
        """Recursive totals of the top and of one directory below (cow du) against the walk."""
        directories = [p for p, n in self.model.walk() if n.is_dir]
        self.compared += 1
        for path in [()] + ([directories[self.compared * 7919 % len(directories)]] if directories else []):
            text = '/'.join(path)
            inside = {p: v for p, v in mine.items() if (not text or p.startswith(text + '/')) and p}
            count = sum(1 for v in inside.values() if v[6] is None)
            groups = {(v[7] if v[6] > 1 else p): (v[3] or len(v[4]) if isinstance(v[4], str) else v[3] or 0)
                      for p, v in inside.items() if v[6] is not None}
            got = self.system.totals(path)
            check(got[:2] == (len(groups), count), 'totals of %s: %d files, %d directories; a walk finds %d and %d'
                  % (text or '.', got[0], got[1], len(groups), count))

    def finish(self):
        self.compare()
        for side in (self.system, self.control):
            side.close_all()


# ------------------------------------------------------------------ running

def shown(op):
    def one(x):
        if isinstance(x, tuple):
            return '/' + '/'.join(x).replace('long-name-' * 8, 'L')
        return '%d bytes %r..' % (len(x), x[:8]) if isinstance(x, bytes) else repr(x)
    return op[0] + ' ' + ', '.join(one(x) for x in op[1:])


def attempt(control, options, seed, steps, ops, text):
    """Runs one seed (ops None) or replays a list.  Returns (ops done, None or what failed)."""
    done, volume = [], None
    name = 'seed-%d%s' % (seed, text)
    try:
        if options.fake:
            system = Fake(control.fresh(name + '-system'), options.fake, seed)
        else:
            Run.images += 1
            volume = cowtest.Volume('vol%d' % Run.images, '2G', options='commit=1')
            os.mkdir(volume.path('top'), 0o755)
            os.chmod(volume.path('top'), 0o755)
            system = Cowlinks(volume, volume.path('top'))
        state = Run(system, Side(control.fresh(name)), options.every)
        r, handles = random.Random(seed), [0]
        for number in range(steps if ops is None else len(ops)):
            if ops is None:
                op = None
                while op is None:
                    op = generate(r, state.model, state.handles, handles)
            else:
                op = ops[number]
                if not state.possible(op):
                    continue
            done.append(op)
            state.step(op)
            if (number + 1) % options.every == 0 or ops is not None and options.closely:
                state.compare()
        state.finish()
        if volume:
            volume.close()
            os.unlink(volume.image)
        if ops is None:
            print('# seed %d: %d times EXDEV, %d times EROFS predicted' % (seed, state.answers.get(errno.EXDEV, 0),
                                                                         state.answers.get(errno.EROFS, 0)))
        return done, None
    except (Failure, OSError) as e:
        reason = '%s: %s' % (type(e).__name__, e)
        if volume:
            if not volume.alive() and volume.daemon:
                reason += '\nthe daemon died: ' + volume.said()
            if volume in cowtest.Volume.open_ones:
                try:
                    state.system.close_all()
                except (NameError, OSError):
                    pass
                volume.kill()
            os.unlink(volume.image)
        try:
            state.control.close_all()
        except NameError:
            pass
        return done, reason
    finally:
        run('rm', '-rf', os.path.join(control.dir, name), os.path.join(control.dir, name + '-system'), rc=None)


def kind_of(reason):
    """What went wrong without its numbers and paths, so that shrinking does not drift to another failure."""
    for pattern in (r'Assertion .*', r'AddressSanitizer: \S+', r'\n(\d+): '):
        found = re.search(pattern, reason)
        if found:
            return found.group(0)
    return re.sub(r"/\S*|b?'[^']*'|\d+", '', reason)[:60]


def shrink(control, options, seed, ops, why):
    """Cuts the end off, then leaves out parts, large ones first, while it still fails in the same way."""
    end = time.monotonic() + options.shrink_seconds
    best, reason, kind = ops, why, kind_of(why)

    def fails(trial):
        nonlocal best, reason
        done, text = attempt(control, options, seed, 0, trial, '-shrink')
        if text and kind_of(text) == kind:
            best, reason = done, text
            return True
        return False

    low, high = 0, len(ops)  # what the check finds was made long before
    while high - low > 1 and time.monotonic() < end:
        middle = (low + high) // 2
        if fails(ops[:middle]):
            high = middle
        else:
            low = middle
    part = max(1, len(best) // 2)
    while part >= 1 and time.monotonic() < end:
        at, shorter = 0, False
        while at < len(best) and time.monotonic() < end:
            if fails(best[:at] + best[at + part:]):
                shorter = True
            else:
                at += part
        if part == 1 and not shorter:
            break
        part = max(1, part // 2)
    return best, reason


def one_seed(seed, options):
    """In a process of its own."""
    top = os.environ['COWTEST_DIR']
    control = cowtest.Control(top)
    try:
        ops, reason = attempt(control, options, seed, options.steps, None, '')
        if reason is None:
            return
        print('# seed %d failed at step %d: %s' % (seed, len(ops), reason.replace('\n', '\n# ')))
        print('#   last: %s' % shown(ops[-1]))
        print('# again with: %s --first %d --seeds 1 --steps %d' % (os.path.basename(sys.argv[0]), seed, options.steps))
        sys.stdout.flush()
        if options.shrink:
            options.closely = 'cow check' not in reason  # what the check finds, no comparison sees
            again, why = attempt(control, options, seed, 0, ops, '-again')
            if why:
                again, why = shrink(control, options, seed, again, why)
                print('# shrunk to %d operations: %s' % (len(again), (why or '').replace('\n', '\n# ')))
            else:
                print('# the same operations pass when every step is compared; as they were:')
                again = again[-20:]
            for op in again[-60:]:
                print('#   ' + shown(op))
        raise Failure('seed %d' % seed)
    finally:
        control.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--seeds', type=int, default=int(os.environ.get('SEEDS', 50)))
    parser.add_argument('--first', type=int, default=1)
    parser.add_argument('--steps', type=int, default=int(os.environ.get('STEPS', 1000)))
    parser.add_argument('--every', type=int, default=100)
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--timeout', type=int, default=200)
    parser.add_argument('--fake', choices=Fake.BUGS)
    parser.add_argument('--shrink-seconds', type=int, default=60)
    parser.add_argument('--no-shrink', dest='shrink', action='store_false')
    parser.add_argument('--no-fresh', dest='fresh', action='store_false', help='leave out the seed nobody has seen')
    options = parser.parse_args()
    options.closely = False
    if options.fake:
        cowtest.COW = '/bin/true'
    cowtest.need_root()
    os.umask(0o022)
    seeds = list(range(options.first, options.first + options.seeds))
    if options.fresh and options.seeds > 1 and not options.fake:
        seeds.append(random.SystemRandom().randrange(10 ** 6, 10 ** 9))
    tests = [('seed %d, %d steps' % (s, options.steps), lambda s=s: one_seed(s, options), options.timeout)
             for s in seeds]
    failed = cowtest.run_all(tests, options.jobs)
    print('# differential: %d seeds of %d steps, %d failed' % (len(seeds), options.steps, failed))
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
