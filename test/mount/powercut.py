#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Power cuts on a host that forgets all that POSIX lets it forget (recordfs.c): what fsync answered for is in the image
that the host's disk has, with direct I/O on the host, with its page cache in between, and with that written back late.
A kernel's own file systems honour RWF_DSYNC; a host like this may not hear of it.

    ROUNDS=100 SEED=5 test/mount/powercut.py        default: 4 rounds and a fresh seed, which is printed
"""
import os
import random
import struct
import subprocess
import time

import cowtest
from cowtest import COW, Failure, Volume, check, cow, equal, run, test

ROUNDS = int(os.environ.get('ROUNDS', 4))
SEED = os.environ.get('SEED', '%08x' % random.SystemRandom().randrange(1 << 32))
PROGRAM = os.path.join(os.path.dirname(COW), 'mount', 'recordfs')
MODES = ('direct', 'cached', 'writeback')


class Host:
    """The host's file system. It is up, or its power was cut."""

    def __init__(self, mode):
        top = os.environ['COWTEST_DIR']
        self.mode, self.backing, self.dir = mode, os.path.join(top, 'backing'), os.path.join(top, 'host')
        for d in (self.backing, self.dir, self.disk()):
            os.mkdir(d)
        self.up()

    def path(self, name='vol.img'):
        return os.path.join(self.dir, name)

    def disk(self, *names):
        return os.path.join(self.backing, 'disk', *names)

    def up(self):
        """What is on the disk is all there is; a file without a name is gone."""
        cache = os.path.join(self.backing, 'cache')
        for name in os.listdir(self.disk()):
            if name.startswith('.'):
                os.unlink(self.disk(name))
        run('rm', '-rf', cache)
        run('cp', '-a', '--sparse=always', self.disk(), cache)
        self.process = subprocess.Popen([PROGRAM, self.backing, self.dir, self.mode], stdin=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while not os.path.ismount(self.dir):
            check(self.process.poll() is None and time.monotonic() < end, 'recordfs did not come up')
            time.sleep(0.002)

    def cut(self):
        self.process.kill()
        self.process.wait(20)
        run('umount', '-l', self.dir)

    def counts(self):
        """WRITE, FSYNC, FSYNCDIR requests"""
        with open(os.path.join(self.backing, 'counts'), 'rb') as f:
            return struct.unpack('<3Q', f.read())


def volume_on(host):
    v = Volume(size=None)
    v.image = host.path()
    return v


class Files:
    """Changes of files that end with an fsync, and what they must hold then."""

    def __init__(self, r):
        self.r, self.synced = r, {}

    def change(self, v):
        """Returns when it is acknowledged."""
        r, name = self.r, 'file-%d' % self.r.randrange(30)
        old = self.synced.get(name, b'')
        kind = r.choice(('new', 'over', 'append', 'rename'))
        data = r.randbytes(int(2 ** r.uniform(0, 17)))
        if kind in ('new', 'rename'):
            content = data
        else:
            at = r.randrange(len(old) + 1) if kind == 'over' else len(old)
            content = old[:at] + data + old[at + len(data):]
        path = v.path(name + '.new' if kind == 'rename' else name)
        with cowtest.Fd(path, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if kind == 'new' else 0)) as f:
            if kind in ('new', 'rename'):
                cowtest.write('/proc/self/fd/%d' % f, data)
            else:
                cowtest.write('/proc/self/fd/%d' % f, data, os.O_WRONLY, at)
            if kind == 'rename':
                os.rename(path, v.path(name))
            r.choice((os.fsync, os.fdatasync))(f)
        self.synced[name] = content

    def noise(self, v):
        """Not synced: nothing is demanded of it, and it waits for the next commit."""
        cowtest.write(v.path('noise-%d' % self.r.randrange(10)), self.r.randbytes(self.r.randrange(1 << 18)))

    def verify(self, v):
        for name, content in self.synced.items():
            try:
                found = cowtest.read(v.path(name))
            except FileNotFoundError:
                raise Failure('%s is gone, which was synced' % name) from None
            check(found == content, '%s: what was synced is not there: %d bytes instead of %d' % (name, len(found),
                                                                                                len(content)))


def cut_power(host, v):
    """All at once: the host's cache is gone, and so is the daemon with what it had in memory."""
    host.cut()
    if v in Volume.open_ones:
        v.kill()


def synced_files(mode):
    r = random.Random('%s/%s' % (SEED, mode))
    host, files = Host(mode), Files(r)
    cow('format', host.path(), '--size', '64M')
    v = volume_on(host)
    changes = 0
    for number in range(ROUNDS):
        v.mount('commit=%d' % r.choice((1, 1000)))
        files.verify(v)
        before = host.counts()
        for _ in range(r.randrange(20, 120)):
            files.change(v)
            changes += 1
            if r.random() < 0.2:
                files.noise(v)
        requests = [b - a for a, b in zip(before, host.counts())]
        cut_power(host, v)
        p = cow('check', host.disk('vol.img'), rc=None)
        check(p.returncode == 0, 'round %d: cow check: %s%s' % (number, p.stdout, p.stderr))
        host.up()
    v.mount()
    files.verify(v)
    v.close()
    host.cut()
    print('# %s: %d changes were acknowledged; %d WRITE and %d FSYNC requests in the last round' %
          (mode, changes, requests[0], requests[1]))


def new_image(mode):
    host = Host(mode)
    cow('format', host.path(), '--size', '64M')
    equal(host.counts()[2], 1, 'FSYNCDIR requests of a format')
    host.cut()
    cow('check', host.disk('vol.img'))
    host.up()
    cow('format', host.path(), '--size', '128M', '--force')
    host.cut()
    cow('check', host.disk('vol.img'))
    equal(os.stat(host.disk('vol.img')).st_size, 128 << 20, 'size of the image')


def sync_and_unmount(mode):
    """sync(1) of a directory is a commit, and so is unmounting."""
    host = Host(mode)
    cow('format', host.path(), '--size', '256M')
    v = volume_on(host)
    v.mount('commit=1000')
    big = os.urandom(20 << 20)
    cowtest.write(v.path('big'), big)
    with cowtest.Fd(v.dir) as f:
        os.fsync(f)
    cut_power(host, v)
    host.up()
    v.mount('commit=1000')
    check(cowtest.read(v.path('big')) == big, 'what was committed is there')
    cowtest.write(v.path('second'), big)
    v.umount()
    cut_power(host, v)
    host.up()
    v.mount()
    check(cowtest.read(v.path('second')) == big, 'what was written before the umount is there')
    v.close()
    host.cut()


for m in MODES:
    test(lambda m=m: synced_files(m), name='what fsync answered for is there after a power cut: ' + m)
    test(lambda m=m: new_image(m), name='a new image is on the disk, and has its name: ' + m)
    test(lambda m=m: sync_and_unmount(m), name='a commit is on the disk: ' + m)

if __name__ == '__main__':
    if not os.access(PROGRAM, os.X_OK):
        print('1..0 # SKIP %s is not built (make tests)' % PROGRAM)
    else:
        print('# SEED=%s' % SEED)
        cowtest.main()
