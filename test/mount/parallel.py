#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Many programs at once in one tree: random operations, clones, removals, comparisons, syncs, remounts and kill -9.  What
each sees cannot be predicted; but only errors that racing programs may get are answered, no file is ever torn or mixed
up with another, and `cow check` is clean after it.  SECONDS says how long each test runs (8).
"""
import errno
import mmap
import os
import random
import sys
import time

import cowtest
from cowtest import Failure, Fd, Volume, check, cow, test

SECONDS = float(os.environ.get('SECONDS_EACH', 8))
# What a path that somebody else moves or removes may answer.
RACES = {errno.ENOENT, errno.EEXIST, errno.EXDEV, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.EINVAL,
         errno.ESTALE, errno.EROFS, errno.ENAMETOOLONG, errno.EPERM}


def stamp(r):
    """A file's content names its length and seed: any mixture shows."""
    size = r.choice((40, 400, 5000, 70000, 300000 if r.random() < 0.2 else 90))
    return b'%08d' % size + b'%08d' % r.randrange(10 ** 8) * (size // 8)


def whole(data):
    return not data or len(data) >= 16 and data == data[:8] + data[8:16] * (int(data[:8]) // 8)


class Worker:
    def __init__(self, volume, seed, stores):
        self.r = random.Random(seed)
        self.top = volume.path('work')
        self.making = volume.path('making')  # files that are not whole yet
        self.stores = stores
        self.names = ['n%d' % i for i in range(6)]

    def directory(self):
        path = self.top
        while self.r.random() < 0.6:
            below = [e.path for e in os.scandir(path) if e.is_dir(follow_symlinks=False)]
            if not below:
                break
            path = self.r.choice(below)
        return path

    def entry(self):
        d = self.directory()
        names = os.listdir(d)
        return os.path.join(d, self.r.choice(names)) if names else d

    def new(self):
        return os.path.join(self.directory(), self.r.choice(self.names))

    def make(self):
        """A whole file appears by rename, as careful programs do it."""
        path = os.path.join(self.making, str(os.getpid()))
        cowtest.write(path, stamp(self.r))
        os.rename(path, self.new())

    def read(self):
        path = self.entry()
        if not os.path.isdir(path):
            data = cowtest.read(path)
            if not whole(data):
                raise Failure('%s is torn: %d bytes, %r' % (path, len(data), data[:32]))

    def store(self):
        """Through a mapping, the whole content at once: readers may see a mixture, so in a place of its own."""
        path = os.path.join(self.making, 'map%d' % os.getpid())
        data = stamp(self.r)
        cowtest.write(path, bytes(len(data)))
        with Fd(path, os.O_RDWR) as fd:
            m = mmap.mmap(fd, len(data))
            m[:] = data
            os.rename(path, self.new())
            m.close()

    def step(self):
        kind = self.r.choices(('make', 'read', 'mkdir', 'link', 'rename', 'unlink', 'rmdir', 'clone', 'fclone', 'remove',
                               'list', 'store', 'xattr', 'sync', 'usage', 'diff'),
                              (20, 20, 6, 8, 10, 6, 3, 4, 3, 3, 4, 4 if self.stores else 0, 3, 0.3, 2, 0.5))[0]
        if kind in ('make', 'read', 'store'):
            getattr(self, kind)()
        elif kind == 'mkdir':
            os.mkdir(self.new())
        elif kind == 'link':
            os.link(self.entry(), self.new())
        elif kind == 'rename':
            os.rename(self.entry(), self.new())
        elif kind == 'unlink':
            os.unlink(self.entry())
        elif kind == 'rmdir':
            os.rmdir(self.directory())
        elif kind == 'clone':
            if cowtest.usage(self.top)[0] < 3000:
                cowtest.fast_clone(self.directory(), self.new())
        elif kind == 'fclone':
            cowtest.fast_clone(self.entry(), self.new())
        elif kind == 'remove':
            if cowtest.usage(self.top)[0] > 50:
                cowtest.fast_remove(self.entry())
        elif kind == 'list':
            for e in os.scandir(self.directory()):
                e.stat(follow_symlinks=False)
        elif kind == 'xattr':
            os.setxattr(self.entry(), 'user.x', self.r.randbytes(self.r.choice((3, 300, 3000))))
        elif kind == 'sync':
            cowtest.sync_volume(self.top, self.r.random() < 0.3)
        elif kind == 'usage':
            cowtest.usage(self.directory(), True)
        else:
            cow('diff', self.directory(), self.directory(), rc=None)

    def run(self, end):
        steps = 0
        while time.monotonic() < end:
            try:
                os.makedirs(self.top, exist_ok=True)  # somebody may have removed it
                self.step()
            except OSError as e:
                if e.errno not in RACES:
                    raise Failure('%s: %s' % (errno.errorcode.get(e.errno), e)) from e
            steps += 1
        return steps


def start_workers(v, count, seconds, seed, stores=True):
    pids = []
    os.makedirs(v.path('making'), exist_ok=True)
    sys.stdout.flush()
    for i in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                Worker(v, seed + i, stores).run(time.monotonic() + seconds)
                code = 0
            except Failure as e:
                print('# worker %d: %s' % (i, e))
            except BaseException as e:
                print('# worker %d: %r' % (i, e))
            sys.stdout.flush()
            os._exit(code)
        pids.append(pid)
    return pids


def wait_workers(pids):
    return [os.waitpid(pid, 0)[1] for pid in pids]


def fresh_seed():
    seed = int(os.environ.get('SEED', random.SystemRandom().randrange(10 ** 9)))
    print('# SEED=%d' % seed)
    return seed


def look(v):
    """Every file is whole."""
    for top, _, files in os.walk(v.path('work')):
        for name in files:
            path = os.path.join(top, name)
            check(whole(cowtest.read(path)), '%s is torn' % path)


@test(name='four programs at once, and everything is whole', timeout=SECONDS * 4 + 120)
def together():
    v = Volume(options='commit=1')
    check(wait_workers(start_workers(v, 4, SECONDS, fresh_seed())) == [0] * 4, 'a worker failed')
    look(v)
    v.remount()
    look(v)


@test(name='little memory: a small cache, few dirty bytes', timeout=SECONDS * 4 + 120)
def tight():
    v = Volume(options='commit=1,cache=1M,dirty=1M')
    check(wait_workers(start_workers(v, 4, SECONDS, fresh_seed())) == [0] * 4, 'a worker failed')
    look(v)


@test(name='a small volume that runs full again and again', timeout=SECONDS * 4 + 120)
def full():
    global RACES
    RACES = RACES | {errno.ENOSPC}
    v = Volume(size='24M', options='commit=1')
    # No stores to mappings: the kernel writes them back later, when there may be no space for them.
    check(wait_workers(start_workers(v, 4, SECONDS, fresh_seed(), False)) == [0] * 4, 'a worker failed')
    v.remount()
    for name in os.listdir(v.dir):
        cow('rm', v.path(name))
    cow('sync', '--drain', v.dir)
    cowtest.write(v.path('new'), b'n' * (10 << 20))


@test(name='kill -9 while four programs work, three times', timeout=SECONDS * 4 + 120)
def killed():
    v = Volume(options='commit=1')
    seed = fresh_seed()
    for i in range(3):
        pids = start_workers(v, 4, SECONDS, seed + 10 * i)
        time.sleep(SECONDS / 3 + 0.37 * i)
        v.kill()
        wait_workers(pids)  # they lose their mount: any answer is right
        v.check()
        v.mount()
        for top, _, files in os.walk(v.dir):
            for name in files:
                cowtest.read(os.path.join(top, name))  # what was committed can be read


if __name__ == '__main__':
    cowtest.main(1)
