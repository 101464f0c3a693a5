#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
What df says after something was removed, beside XFS: a cleaner that removes until a tenth is free must not go on because
the space comes back only with the next commit, nor stop because a clone's space is counted as free.
"""
import errno
import os
import shutil
import subprocess
import sys
import threading
import time

import cowtest
from cowtest import Fd, Volume, check, equal, fast_clone, fast_remove, run, sync_volume, test

KIB, MIB = 1 << 10, 1 << 20
SIZE = '320M'


class Xfs:
    """The control: the same size, with reflinks.  It frees what was removed in the background."""

    def __init__(self):
        top = os.environ['COWTEST_DIR']
        self.dir = os.path.join(top, 'xfs')
        os.makedirs(self.dir, exist_ok=True)
        self.image = self.dir + '.img'
        run('truncate', '-s', SIZE, self.image)
        run('mkfs.xfs', '-q', '-f', '-m', 'reflink=1', self.image)
        run('mount', '-o', 'loop', self.image, self.dir)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def close(self):
        run('umount', self.dir)
        os.unlink(self.image)


class Cow(Volume):
    """No commit but those that are asked for, or needed."""

    def __init__(self):
        super().__init__(size=SIZE, options='commit=1000')

    def close(self):
        super().close()
        os.unlink(self.image)


def free(fs):
    """Bytes, as df says."""
    s = os.statvfs(fs.dir)
    return s.f_bavail * s.f_frsize


def freed(fs, before, want):
    """MiB more than `before`; who frees in the background gets the time to get as far as `want`."""
    for _ in range(200):
        got = (free(fs) - before) / MIB
        if not isinstance(fs, Xfs) or got > want - 1:
            break
        time.sleep(0.02)
    return round(got)


def is_tenth_free(fs):
    s = os.statvfs(fs.dir)
    return s.f_bavail * 10 >= s.f_blocks


def store(name, size):
    """False: there was no space."""
    try:
        with Fd(name, os.O_WRONLY | os.O_CREAT) as fd:
            for at in range(0, size, 64 * KIB):
                os.pwrite(fd, os.urandom(min(64 * KIB, size - at)), at)
        return True
    except OSError as e:
        equal(e.errno, errno.ENOSPC, 'errno')
        return False


def fill_with_files(fs, size):
    for n in range(100000):
        if not store(fs.path('%06d' % n), size):
            return


def fill_with_trees(fs, size):
    for n in range(1000):
        os.mkdir(fs.path('%03d' % n))
        for i in range(20):
            if not store(fs.path('%03d' % n, 'f%d' % i), size):
                return


def sync(fs):
    os.sync()
    if isinstance(fs, Cow):
        sync_volume(fs.dir)


def remove_tree(fs, name):
    (shutil.rmtree if isinstance(fs, Xfs) else fast_remove)(fs.path(name))


def clean(fs, remove):
    """Removes the first until a tenth is free; returns how many, of how many."""
    names = sorted(os.listdir(fs.dir))
    for count, name in enumerate(names):
        if is_tenth_free(fs):
            return count, len(names)
        before = free(fs)
        remove(fs, name)
        if isinstance(fs, Xfs):
            settle(fs, before)
    return len(names), len(names)


def settle(fs, before):
    """XFS frees what was removed in the background, a file at a time: until there is more, and no more comes."""
    last, same = before, 0
    for _ in range(200):
        now = free(fs)
        same = same + 1 if now == last and now > before else 0
        if same == 5:
            return
        last = now
        time.sleep(0.01)


def both_clean(text, fill, size, remove, synced):
    got = []
    for fs in (Cow(), Xfs()):
        fill(fs, size)
        if synced:
            sync(fs)
        got.append(clean(fs, remove))
        fs.close()
    (cow_gone, cow_all), (xfs_gone, xfs_all) = got
    print('# %s: %d of %d were removed; XFS: %d of %d' % (text, cow_gone, cow_all, xfs_gone, xfs_all))
    # What differs is how full it was: the last that fitted, and the nodes.
    expected = cow_all * xfs_gone / xfs_all
    check(abs(cow_gone - expected) <= 2 + expected / 5, 'expected: %d' % expected)


@test(name='a cleaner removes as many files as on XFS')
def files():
    both_clean('files of 2.5 MiB', fill_with_files, 2560 * KIB, lambda fs, name: os.unlink(fs.path(name)), True)
    both_clean('files of 200 KiB', fill_with_files, 200 * KIB, lambda fs, name: os.unlink(fs.path(name)), True)
    both_clean('files not synced', fill_with_files, 2560 * KIB, lambda fs, name: os.unlink(fs.path(name)), False)
    both_clean('files that are cut', fill_with_files, 2560 * KIB, lambda fs, name: os.truncate(fs.path(name), 0), True)


@test(name='a cleaner removes as many trees, by cow rm, as on XFS')
def trees():
    both_clean('trees of 20 files of 200 KiB', fill_with_trees, 200 * KIB, remove_tree, True)


def copy(fs, source, target):
    if isinstance(fs, Xfs):
        subprocess.run(['cp', '-a', '--reflink=always', fs.path(source), fs.path(target)], check=True)
    else:
        fast_clone(fs.path(source), fs.path(target))


@test(name='of clones that share everything the last gives the space back, as on XFS')
def clones():
    for fs in (Cow(), Xfs()):
        os.mkdir(fs.path('c0'))
        for i in range(8):
            check(store(fs.path('c0', 'f%d' % i), 8 * MIB), 'no space')
        for n in range(1, 10):
            copy(fs, 'c0', 'c%d' % n)
        sync(fs)
        before, seen = free(fs), []
        for n in range(10):
            remove_tree(fs, 'c%d' % n)
            seen.append(freed(fs, before, 64 if n == 9 else 0))
        print('# %s: MiB that are free after each: %s' % (type(fs).__name__, seen))
        check(all(-1 <= gain <= 1 for gain in seen[:-1]), 'a clone that others share was counted as free')
        check(63 <= seen[-1] <= 66, 'the last gave %d MiB back' % seen[-1])
        fs.close()


@test(name='hard links and open files give their space back at the end, as on XFS')
def held():
    for fs in (Cow(), Xfs()):
        check(store(fs.path('one'), 32 * MIB), 'no space')
        os.link(fs.path('one'), fs.path('two'))
        sync(fs)
        before, seen = free(fs), []
        fd = os.open(fs.path('one'), os.O_RDONLY)
        for name in ('one', 'two'):
            os.unlink(fs.path(name))
            seen.append(freed(fs, before, 0))
        os.close(fd)
        for _ in range(1000):  # close(2) does not wait for the release
            last = freed(fs, before, 32)
            if last >= 31:
                break
        print('# %s: MiB that are free after each: %s' % (type(fs).__name__, seen + [last]))
        check(all(-1 <= gain <= 1 for gain in seen), 'free while it is held')
        check(31 <= last <= 33, 'not free in the end')
        fs.close()


@test(name='what df says can be written, beside commits too')
def usable():
    v = Cow()
    fill_with_files(v, 2560 * KIB)
    names = sorted(os.listdir(v.dir))
    stop = threading.Event()

    def commit():
        while not stop.is_set():
            sync_volume(v.dir)

    thread = threading.Thread(target=commit)
    thread.start()
    start, most = free(v), 0
    for count, name in enumerate(names[:len(names) // 2]):
        size = os.stat(v.path(name)).st_blocks * 512
        most += size + 16 * KIB  # and the nodes of its map
        os.unlink(v.path(name))
        gain = free(v) - start
        check(gain <= most + 256 * KIB, '%d KiB are said to be free, %d were removed' % (gain >> 10, most >> 10))
        check(gain >= most * 0.95 - 256 * KIB, '%d KiB are said to be free, %d were removed' % (gain >> 10, most >> 10))
    stop.set()
    thread.join()
    for name in names[len(names) // 2:][::2]:
        os.unlink(v.path(name))
    said, got = free(v), 0
    with Fd(v.path('new'), os.O_WRONLY | os.O_CREAT) as fd:
        try:
            while True:
                got += os.write(fd, bytes(64 * KIB))
        except OSError as e:
            equal(e.errno, errno.ENOSPC, 'errno')
    print('# df said %d KiB, %d could be written' % (said >> 10, got >> 10))
    check(0.97 * said <= got <= said, 'df said %d, and %d were written' % (said, got))
    v.close()


if __name__ == '__main__':
    sys.exit(cowtest.main())
