#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Full volumes and full hosts: writers get ENOSPC and nothing else happens.  What was acknowledged is there, removing
works, then writing works again, and no space is lost however often.
"""
import errno
import hashlib
import mmap
import os
import shutil
import sys
import time

import cowtest
from cowtest import Failure, Fd, Volume, check, cow, equal, fast_clone, fast_remove, read, run, sync_volume, test

BLOCK = 4096
ROUNDS = int(os.environ.get('ROUNDS', 20))


def content(n, size):
    return (hashlib.sha256(b'%d' % n).digest() * (size // 32 + 1))[:size]


def full(function, *args):
    """True if the call failed for lack of space; any other error is the test's."""
    try:
        function(*args)
        return False
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
        return True


def free_of(v):
    """Bytes that can be written, when everything that was removed has come back."""
    sync_volume(v.dir, drain=True)
    return v.info()[1]


def alive(v):
    check(v.alive(), 'the daemon died')
    info = cow('info', '--json', v.dir).stdout
    check('"read_only": false' in info, 'the volume went read-only: %s\n%s' % (info, v.said()))


class Big:
    """Large files, in writes of all sizes down to a block."""

    def fill(self, v):
        self.sizes = []
        chunk = 1 << 20
        while chunk >= BLOCK:
            name, at = v.path('big%d' % len(self.sizes)), 0
            with Fd(name, os.O_WRONLY | os.O_CREAT) as fd:
                while at < 8 << 20 and not full(os.pwrite, fd, content(at, chunk), at):
                    at += chunk
            self.sizes.append((name, at, chunk))
            if at < 8 << 20:
                chunk //= 4

    def verify(self, v):
        for name, size, chunk in self.sizes:
            data = read(name)
            equal(len(data), size, name)
            check(all(data[at:at + chunk] == content(at, chunk) for at in range(0, size, chunk)), name + ' is wrong')

    def empty(self, v, number):
        for name, size, _ in self.sizes:
            if number % 2:
                os.truncate(name, 0)
            os.unlink(name)


class Small:
    """Files of 3,000 bytes, which take a block and a record each, in directories."""

    def fill(self, v):
        self.count = 0
        while not full(self.make, v, self.count):
            self.count += 1

    def place(self, v, n):
        return v.path('small%d' % (n // 400), 'f%d' % n)

    def make(self, v, n):
        os.makedirs(os.path.dirname(self.place(v, n)), exist_ok=True)
        with Fd(self.place(v, n), os.O_WRONLY | os.O_CREAT) as fd:
            os.write(fd, content(n, 3000))

    def verify(self, v):
        for n in range(self.count):
            check(read(self.place(v, n)) == content(n, 3000), '%s is wrong' % self.place(v, n))

    def empty(self, v, number):
        for name in os.listdir(v.dir):
            if number % 2:
                fast_remove(v.path(name))
            else:
                shutil.rmtree(v.path(name))


class Clones:
    """A tree and changes in clones of it; then rm in a clone, which needs space before it gives any back."""

    def fill(self, v):
        os.mkdir(v.path('tree'))
        for n in range(300):
            with Fd(v.path('tree/f%d' % n), os.O_WRONLY | os.O_CREAT) as fd:
                os.write(fd, content(n, 9000))
        self.clones = 0
        while not full(fast_clone, v.path('tree'), v.path('clone%d' % self.clones)):
            self.clones += 1
            for n in range(300):
                if full(self.change, v, n):
                    return

    def change(self, v, n):
        with Fd(v.path('clone%d/f%d' % (self.clones - 1, n)), os.O_WRONLY) as fd:
            os.pwrite(fd, content(n + 1000, 5000), 0)

    def verify(self, v):
        for n in range(300):
            check(read(v.path('tree/f%d' % n)) == content(n, 9000), 'tree/f%d is wrong' % n)
        changed = content(1299, 5000) + content(299, 9000)[5000:]
        for i in range(self.clones - 1):
            check(read(v.path('clone%d/f299' % i)) == changed, 'clone%d/f299 is wrong' % i)

    def empty(self, v, number):
        for i in range(self.clones):
            if number % 2:
                fast_remove(v.path('clone%d' % i))
            else:
                shutil.rmtree(v.path('clone%d' % i))
        shutil.rmtree(v.path('tree'))


def rounds(kind, count):
    v = Volume(size='64M', options='commit=1')
    before, writable = free_of(v), []
    for number in range(count):
        kind.fill(v)
        alive(v)
        kind.verify(v)
        sync_volume(v.dir)
        # Nothing goes in any more, and what is there can be read and synced.
        check(v.info()[1] < 2 << 20, 'round %d: ENOSPC, but df says that %d bytes are free' % (number, v.info()[1]))
        if number % 5 == 4:
            v.umount()
            v.check()
            v.mount()
            kind.verify(v)
        kind.empty(v, number)
        equal(os.listdir(v.dir), [], 'round %d: names' % number)
        writable.append(free_of(v))
        alive(v)
    gone = [(before - free) // BLOCK for free in writable]
    print('# blocks that did not come back, after each round: %s' % gone)
    check(max(gone) <= 64, 'space is gone')


@test(name='filled with big files, emptied, %d times' % ROUNDS, timeout=300)
def big():
    rounds(Big(), ROUNDS)


@test(name='filled with small files, emptied by rm and by cow rm, %d times' % max(3, ROUNDS // 4), timeout=300)
def small():
    rounds(Small(), max(3, ROUNDS // 4))


@test(name='filled with changes in clones, rm in a clone on the full volume, %d times' % ROUNDS, timeout=300)
def clones():
    rounds(Clones(), ROUNDS)


@test(name='df says what can be written')
def honest():
    for size in ('32M', '64M', '512M'):
        v = Volume('v' + size, size=size)
        said, got = v.info()[1], 0
        with Fd(v.path('f'), os.O_WRONLY | os.O_CREAT) as fd:
            while not full(os.write, fd, content(got, 64 << 10)):
                got += 64 << 10
        left = v.info()[1]
        print('# %s: df says %d KiB, %d KiB could be written, then it says %d KiB'
              % (size, said >> 10, got >> 10, left >> 10))
        check(0.95 * said <= got <= said, 'df said %d, and %d were written' % (said, got))
        check(left <= (64 << 10) + said * 0.04, 'after ENOSPC df still says %d' % left)
        v.close()


@test(name='one-byte appends to ENOSPC: each was whole, and goes on when there is space')
def appends():
    v = Volume(size='32M', options='commit=1')
    fds = [os.open(v.path('a%d' % i), os.O_WRONLY | os.O_CREAT | os.O_APPEND) for i in range(400)]
    for fd in fds:
        os.write(fd, bytes(4090))
    with Fd(v.path('ballast'), os.O_WRONLY | os.O_CREAT) as fd:
        while not full(os.write, fd, bytes(64 << 10)):
            pass
    os.truncate(v.path('ballast'), os.stat(v.path('ballast')).st_size - (256 << 10))
    count, refused = 0, 0
    while refused < 500:
        refused += full(os.write, fds[count % 400], b'x')
        count += 1
        check(count < 200000, 'no ENOSPC after %d appends' % count)
    print('# %d appends, of which %d were refused' % (count, refused))
    alive(v)
    sync_volume(v.dir)
    sizes = [os.fstat(fd).st_size for fd in fds]
    for i, size in enumerate(sizes):
        equal(read(v.path('a%d' % i)), bytes(4090) + b'x' * (size - 4090), 'a%d' % i)
    os.unlink(v.path('ballast'))
    for fd in fds:
        os.write(fd, b'y' * 10000)
        os.fsync(fd)
        os.close(fd)
    for i, size in enumerate(sizes):
        equal(read(v.path('a%d' % i)), bytes(4090) + b'x' * (size - 4090) + b'y' * 10000, 'a%d' % i)


@test(name='stores to a mapping beyond what fits: msync or fsync tells, the volume lives on')
def mapped():
    v = Volume(size='64M', options='commit=1')
    before = free_of(v)
    for number in range(3):
        with Fd(v.path('m'), os.O_RDWR | os.O_CREAT) as fd:
            size = 96 << 20
            os.ftruncate(fd, size)
            m = mmap.mmap(fd, size)
            for at in range(0, size, BLOCK):
                m[at:at + 8] = b'%08d' % (at // BLOCK)
            told = full(m.flush)
            told = full(os.fsync, fd) or told
            m.close()
        check(told, '96 MiB of stores went into 64 MiB')
        alive(v)
        # A page is whole or was never there: told, as some could not be written.
        data = read(v.path('m'))
        kept = sum(data[at:at + 8] == b'%08d' % (at // BLOCK) for at in range(BLOCK, size, BLOCK))
        lost = sum(data[at:at + BLOCK] == bytes(BLOCK) for at in range(BLOCK, size, BLOCK))
        equal(kept + lost, size // BLOCK - 1, 'pages that are whole or zero')
        os.unlink(v.path('m'))
        check(free_of(v) >= before - 64 * BLOCK, 'space is gone')
    cowtest.write(v.path('after'), bytes(20 << 20))


@test(name='acknowledged on a full volume: there after kill -9')
def killed():
    v = Volume(size='32M', options='commit=1000')
    for number in range(6):
        fd = os.open(v.path('log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with Fd(v.path('ballast'), os.O_WRONLY | os.O_CREAT) as ballast:
            while not full(os.write, ballast, bytes(256 << 10)):
                pass
        size = os.fstat(fd).st_size
        n = size // 100
        try:
            while n < size // 100 + 20000:
                os.write(fd, content(n, 100))
                os.fsync(fd)
                n += 1
        except OSError as e:
            equal(e.errno, errno.ENOSPC, 'errno')
        try:
            os.rename(v.path('ballast'), v.path('moved'))
            os.fsync(fd)
            moved = True
        except OSError as e:
            equal(e.errno, errno.ENOSPC, 'errno')
            moved = False
        os.close(fd)
        v.kill()
        v.check()
        v.mount()
        alive(v)
        data = read(v.path('log'))
        check(len(data) >= n * 100, 'round %d: %d bytes of the log are there, %d synced' % (number, len(data), n * 100))
        for i in range(n):
            check(data[i * 100:i * 100 + 100] == content(i, 100), 'round %d: record %d is wrong' % (number, i))
        if moved:
            check(os.path.exists(v.path('moved')), 'round %d: a rename before an fsync is lost' % number)
        print('# round %d: %d records, %d KiB free' % (number, n, v.info()[1] >> 10))
        for name in ('ballast', 'moved'):
            if os.path.exists(v.path(name)):
                os.unlink(v.path(name))


class Host:
    """A small file system in a file, for an image to be in."""

    def __init__(self, kind):
        self.top = os.environ['COWTEST_DIR']
        self.dir = os.path.join(self.top, 'host')
        os.mkdir(self.dir)
        file = self.top + '/host.img'
        run('truncate', '-s', '320M', file)
        run(*{'ext4': ('mkfs.ext4', '-q', '-m', '0', '-E', 'lazy_itable_init=0,lazy_journal_init=0'),
              'xfs': ('mkfs.xfs', '-q')}[kind], file)
        run('mount', '-o', 'loop', file, self.dir)
        self.eater = self.dir + '/eater'

    def eat(self, leave):
        """Somebody else takes all but `leave` bytes."""
        s = os.statvfs(self.dir)
        want = s.f_bavail * s.f_frsize - leave
        with Fd(self.eater, os.O_WRONLY | os.O_CREAT) as fd:
            while want > 65536:
                at = os.fstat(fd).st_size
                if full(cowtest.fallocate, fd, 0, at, want):
                    want //= 2
                else:
                    s = os.statvfs(self.dir)
                    want = s.f_bavail * s.f_frsize - leave

    def free(self):
        os.unlink(self.eater)


def fill_host(v, names, leave_early=None):
    """Writes files until there is no space; those whose fsync returned are in `names`."""
    for n in range(len(names), 10000):
        name = v.path('f%d' % n)
        try:
            with Fd(name, os.O_WRONLY | os.O_CREAT) as fd:
                for i in range(8):
                    os.write(fd, content(n, 64 << 10))
                if leave_early and n == leave_early[0]:
                    leave_early[1]()
                os.fsync(fd)
        except OSError as e:
            equal(e.errno, errno.ENOSPC, 'errno')
            return
        names.append(name)
    raise Failure('no ENOSPC')


def verify_host(v, names, text):
    for n, name in enumerate(names):
        check(read(name) == content(n, 64 << 10) * 8, '%s: %s is wrong' % (text, name))


def full_host(kind):
    host = Host(kind)
    v = Volume('vol', size='4G', options='commit=1', top=host.dir)
    names = []
    fill_host(v, names, (40, lambda: host.eat(12 << 20)))
    print('# %s: %d files, then ENOSPC; %d KiB are left on the host'
          % (kind, len(names), os.statvfs(host.dir).f_bavail * os.statvfs(host.dir).f_frsize >> 10))
    check(len(names) >= 40, 'ENOSPC came before the space was taken')
    alive(v)
    verify_host(v, names, 'full')
    sync_volume(v.dir)
    # Small changes to the very end, and removing.
    small = 0
    while small < 20000 and not full(cowtest.write, v.path('small%d' % small), b'x' * 700):
        small += 1
    print('# %d small files more' % small)
    alive(v)
    sync_volume(v.dir)
    for n in range(0, small, 2):
        os.unlink(v.path('small%d' % n))
    alive(v)
    verify_host(v, names, 'after small files')
    # The daemon dies and comes back while there is no space.
    v.kill()
    v.check()
    v.mount()
    alive(v)
    verify_host(v, names, 'remounted on a full host')
    v.remount()
    alive(v)
    for name in os.listdir(v.dir):
        if name.startswith('small') or v.path(name) not in names:
            os.unlink(v.path(name))
    os.unlink(names.pop())
    host.free()
    time.sleep(1.2)
    fill_host(v, names, (len(names) + 60, lambda: host.eat(4 << 20)))
    check(len(names) >= 60, 'no space came back: %d files' % len(names))
    alive(v)
    host.free()
    verify_host(v, names, 'second time')
    for name in names:
        os.unlink(name)
    sync_volume(v.dir, drain=True)
    cowtest.write(v.path('last'), bytes(64 << 20))
    v.close()
    run('umount', host.dir)


@test(name='an image on a small ext4 whose space another file takes', timeout=300)
def on_ext4():
    full_host('ext4')


@test(name='an image on a small XFS whose space another file takes', timeout=300)
def on_xfs():
    full_host('xfs')


if __name__ == '__main__':
    sys.exit(cowtest.main())
