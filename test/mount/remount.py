#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Unmount and remount: everything is there.  kill -9 of the daemon and remount: the last commit is there."""
import errno
import hashlib
import mmap
import os
import signal
import subprocess
import sys
import time

import cowtest
from cowtest import COW, Fd, Volume, check, cow, equal, processes_naming, raises, read, run, snapshot, test, write


def populate(top, seed=0):
    for i in range(8):
        os.makedirs('%s/d%d/e' % (top, i))
        for j in range(6):
            write('%s/d%d/f%d' % (top, i, j), os.urandom(1) * (10 ** j // (1 + seed)))
        os.link('%s/d%d/f3' % (top, i), '%s/d%d/e/link' % (top, i))
        os.symlink('../f1', '%s/d%d/e/sym' % (top, i))
        os.setxattr('%s/d%d' % (top, i), 'user.long', b'x' * 3000)
    os.mkfifo(top + '/fifo')
    os.mknod(top + '/null', 0o20666, os.makedev(1, 3))
    with Fd(top + '/sparse', os.O_WRONLY | os.O_CREAT) as fd:
        os.pwrite(fd, b'end', 50 << 30)
    os.symlink('y' * 3000, top + '/long')


def whole(v):
    """The tree; a sparse file by its size and end, as reading it all would take long."""
    size = os.stat(v.path('sparse')).st_size if os.path.exists(v.path('sparse')) else None
    tail = None
    if size:
        with Fd(v.path('sparse')) as fd:
            tail = os.pread(fd, 3, size - 3)
            equal(os.lseek(fd, 0, os.SEEK_DATA) >= size - 8192, True, 'SEEK_DATA skips the hole')
    tree, numbers = {}, {}
    for name in sorted(os.listdir(v.dir)):
        if name != 'sparse':
            part, n = snapshot(v.path(name), times=True)
            tree[name], numbers[name] = part, n
    return size, tail, tree, numbers


@test(name='unmount, remount: everything is there')
def plain():
    v = Volume()
    populate(v.dir)
    cow('clone', v.path('d1'), v.path('clone'))
    write(v.path('clone/f2'), 'changed')
    before = whole(v)
    for options in (None, 'ro', None):
        v.remount(options)
        equal(whole(v) == before, True, 'the tree (%s)' % options)


@test(name='cow mount returns when it serves, cow umount when the image is closed; the daemon leaves its terminal')
def background():
    top = os.environ['COWTEST_DIR']
    image, mount = top + '/i.img', top + '/m'
    os.mkdir(mount)
    cow('format', image, '--size', '1G')
    for i in range(5):
        # capture_output: a daemon that keeps the pipe open would never let this return
        cow('mount', image, mount, timeout=20)
        check(os.path.ismount(mount), 'not mounted')
        equal(len(os.listdir(mount)), i, 'names')
        write(mount + '/f%d' % i, 'x')
        pids = processes_naming(image)
        equal(len(pids), 1, 'daemons')
        equal(os.readlink('/proc/%d/cwd' % pids[0]), '/', 'its working directory')
        check(os.getsid(pids[0]) != os.getsid(0), 'it is in the session of its caller')
        cow('umount', mount)
        check(not os.path.ismount(mount), 'still mounted')
        cow('check', image)
    equal(processes_naming(image), [], 'daemons left')


@test(name='a dead mount: cow umount takes it away, cow mount mounts over it, nothing committed is lost')
def dead_mount():
    top = os.environ['COWTEST_DIR']
    image, mount = top + '/i.img', top + '/m'
    os.mkdir(mount)
    cow('format', image, '--size', '1G')
    for i in range(2):
        cow('mount', image, mount)
        equal(len(os.listdir(mount)), i, 'names')
        write(mount + '/f%d' % i, 'x')
        cow('sync', mount)
        pid = processes_naming(image)[0]
        os.kill(pid, signal.SIGKILL)
        while os.path.exists('/proc/%d' % pid):
            time.sleep(0.01)
        if i == 0:
            cow('umount', mount)
            cow('check', image)
    cow('mount', image, mount)
    equal(len(os.listdir(mount)), 2, 'names')
    cow('umount', mount)


@test(name='a dead mount that is in use: cow umount detaches it, its users get errors')
def dead_in_use():
    v = Volume()
    with Fd(v.path('f'), os.O_RDWR | os.O_CREAT) as fd:
        p = cow('umount', v.dir, rc=1)
        check('in use' in p.stderr and cowtest.is_mounted(v.dir), 'a mount in use went: %s' % p.stderr)
        v.daemon.kill()
        v.daemon.wait()
        p = cow('umount', v.dir)
        check('its daemon is dead' in p.stderr, p.stderr)
        check(not cowtest.is_mounted(v.dir), 'still mounted')
        raises((errno.ENOTCONN, errno.EIO, errno.ECONNABORTED), os.fsync, fd)
    Volume.open_ones.remove(v)
    v.mount()


def kill_in_clone(v, delay):
    """
    A clone makes the kernel write back what was stored to mappings; the daemon's thread that asked for it waits in the
    kernel, and who would serve the writes is killed.  True if the daemon was caught there.
    """
    size = 128 << 20
    with Fd(v.path('f'), os.O_RDWR | os.O_CREAT) as fd:
        os.ftruncate(fd, size)
        m = mmap.mmap(fd, size)
        for i in range(0, size, 4096):
            m[i] = 1
        caller = subprocess.Popen([COW, 'clone', v.path('f'), v.path('g')], stderr=subprocess.DEVNULL)
        time.sleep(delay)
        v.daemon.kill()
        time.sleep(0.3)
        caught = v.daemon.poll() is None
        if caught:
            p = cow('umount', v.dir, timeout=60)
            check('is stuck' in p.stderr, p.stderr)
            check(not cowtest.is_mounted(v.dir), 'still mounted')
            v.daemon.wait(5)
            cow('check', v.image)
            m.close()
    if not caught:
        m.close()
        cow('umount', v.dir)
    caller.wait(5)
    Volume.open_ones.remove(v)
    return caught


@test(name='a killed daemon that is stuck in the kernel: cow umount cuts it off and waits for its end')
def stuck():
    v = Volume()
    for delay in (0.05, 0.02, 0.1, 0.03, 0.2, 0.07, 0.4, 0.01):
        caught = kill_in_clone(v, delay)
        v.mount()
        if caught:
            return
        for name in os.listdir(v.dir):
            os.unlink(v.path(name))
    print('# the daemon could not be caught in a flush: not shown')


@test(name='SIGTERM to the daemon: unmounted, everything committed')
def terminate():
    v = Volume(options='commit=1000')
    write(v.path('f'), 'x' * 100000)
    v.daemon.send_signal(signal.SIGTERM)
    equal(v.daemon.wait(20), 0, 'exit status')
    check(not os.path.ismount(v.dir), 'still mounted')
    Volume.open_ones.remove(v)
    v.check()
    v.mount()
    equal(read(v.path('f')), b'x' * 100000, 'content')


@test(name='kill -9, remount: what was synced is there, in every way to ask for it')
def kill_synced():
    ways = (('cow sync', lambda v: cow('sync', v.dir)),
            ('fsync of a file', lambda v: sync_path(v.path('d1/f1'))),
            ('fsync of a directory', lambda v: sync_path(v.dir)),
            ('fdatasync', lambda v: sync_path(v.path('d2/f2'), os.fdatasync)))
    for number, (text, sync) in enumerate(ways):
        v = Volume('vol%d' % number, options='commit=1000')
        populate(v.dir)
        cow('clone', v.path('d1'), v.path('clone'))
        sync(v)
        before = whole(v)
        write(v.path('lost'), 'not committed')
        cow('clone', v.path('d2'), v.path('lost2'))
        v.kill()
        v.check()
        v.mount()
        check(whole(v) == before, '%s: the tree differs after kill -9' % text)
        v.close()


def sync_path(path, function=os.fsync):
    with Fd(path) as fd:
        function(fd)


def change_synced(path, flag):
    """Every kind of change through descriptors that ask for each to be durable; returns what must be there."""
    sizes = {}
    write(path('source'), b's' * 8192)
    os.sync()

    def changed(name, function):
        with Fd(path(name), os.O_RDWR | os.O_CREAT) as fd:
            os.fsync(fd)
        with Fd(path(name), os.O_RDWR | flag) as fd:
            function(fd)
            sizes[name] = os.fstat(fd).st_size

    def copy(fd):
        with Fd(path('source')) as source:
            equal(os.copy_file_range(source, fd, 8192, 0, 0), 8192)

    changed('written', lambda fd: os.pwrite(fd, b'w' * 5000, 100))
    changed('allocated', lambda fd: cowtest.fallocate(fd, 0, 0, 50000))
    changed('zeroed', lambda fd: cowtest.fallocate(fd, cowtest.ZERO_RANGE, 0, 60000))
    changed('copied', copy)
    return sizes


@test(name='kill -9, remount: what was changed by O_SYNC and O_DSYNC descriptors is there, as after a cut on XFS')
def kill_o_sync():
    for flag in (os.O_SYNC, os.O_DSYNC):
        v, control = Volume('vol%x' % flag, options='commit=600'), cowtest.Loop('xfs', name='xfs%x' % flag)
        sizes = change_synced(control.path, flag)
        run('xfs_io', '-x', '-c', 'shutdown', control.dir)  # what is not in its log by now is lost
        run('umount', control.dir)
        run('mount', '-o', 'loop', control.dir + '.img', control.dir)
        equal({name: os.stat(control.path(name)).st_size for name in sizes}, sizes)
        control.close()
        equal(change_synced(v.path, flag), sizes)
        v.kill()
        v.mount()
        equal({name: os.stat(v.path(name)).st_size for name in sizes}, sizes)
        equal(read(v.path('copied')), b's' * 8192)
        v.close()


@test(name='kill -9, remount: without a sync, the last periodic commit is there')
def kill_periodic():
    v = Volume(options='commit=1')
    write(v.path('f'), 'committed')
    cow('clone', v.path('f'), v.path('g'))
    time.sleep(4)
    v.kill()
    v.check()
    v.mount()
    equal([read(v.path(p)) for p in 'fg'], [b'committed'] * 2, 'contents')


@test(name='kill -9 at random moments of a busy mount: always a whole state, not older than the last fsync', timeout=300)
def kill_busy():
    v = Volume(options='commit=1')
    worker = (
        'import os,sys\n'
        'top=sys.argv[1]; n=int(sys.argv[2])\n'
        'while True:\n'
        ' n+=1\n'
        ' d=top+"/d%d"%(n%7)\n'
        ' os.makedirs(d,exist_ok=True)\n'
        ' t=top+"/new"\n'
        ' f=os.open(t,os.O_WRONLY|os.O_CREAT|os.O_TRUNC)\n'
        ' os.write(f,b"%d\\n"%n*5000)\n'
        ' if n%50==0: os.fsync(f); print(n,flush=True)\n'
        ' os.close(f)\n'
        ' os.rename(t,d+"/state")\n'
        ' if not os.path.exists(d+"/link"): os.link(d+"/state",d+"/link")\n'
        ' if n%5==0: os.unlink(d+"/link")\n')
    reached = 0
    for round_number in range(8):
        with open(v.log, 'ab') as log:
            p = subprocess.Popen([sys.executable, '-c', worker, v.dir, str(reached)], stdout=subprocess.PIPE, stderr=log)
        clones = 0
        end = time.monotonic() + 0.7 + 0.37 * round_number
        while time.monotonic() < end:
            run(COW, 'clone', v.dir, v.path('c%d' % clones), rc=None)
            if clones:
                run(COW, 'rm', v.path('c%d' % (clones - 1)), rc=None)
            clones += 1
            time.sleep(0.05)
        v.kill()
        p.kill()
        acknowledged = [int(x) for x in p.communicate()[0].split()]
        v.check()
        v.mount()
        seen = []
        for top, _, files in os.walk(v.dir):
            for name in files:
                data = read(os.path.join(top, name))
                if not data and name == 'new':
                    continue
                rows = data.split(b'\n')[:-1]
                check(len(set(rows)) == 1 and (len(rows) == 5000 or name == 'new'),
                      '%s is no whole state: %d rows' % (os.path.join(top, name), len(rows)))
                seen.append(int(rows[0]))
        newest = max(seen, default=0)
        # A reader of "n" sees everything up to the fsync in its round; that file itself may still be named "new".
        if acknowledged:
            check(newest >= acknowledged[-1], 'round %d: newest is %d, fsync of %d had returned'
                  % (round_number, newest, acknowledged[-1]))
        reached = max([reached, newest] + acknowledged)
        for name in os.listdir(v.dir):
            if name.startswith('c') or name.startswith('.cow'):
                cow('rm', v.path(name))


@test(name='a file removed while open is gone after kill -9, and its space with it')
def orphans():
    v = Volume(size='1G', options='commit=1000')
    cow('sync', '--drain', v.dir)
    free = os.statvfs(v.dir).f_bfree
    fd = os.open(v.path('big'), os.O_RDWR | os.O_CREAT)
    os.write(fd, b'x' * (64 << 20))
    os.unlink(v.path('big'))
    cow('sync', v.dir)
    equal(len(os.pread(fd, 1 << 20, 63 << 20)), 1 << 20, 'bytes read through the open descriptor')
    v.kill()
    try:
        os.close(fd)
    except OSError:
        pass
    v.mount()
    equal(os.listdir(v.dir), [], 'names')
    cow('sync', '--drain', v.dir)
    check(os.statvfs(v.dir).f_bfree >= free - 256, 'blocks free: %d, before: %d' % (os.statvfs(v.dir).f_bfree, free))


@test(name='kill -9 while cow rm\'s space is being reclaimed: the rest comes back after the remount')
def kill_reclaim():
    v = Volume(size='1G', options='commit=1')
    cow('sync', '--drain', v.dir)
    free = os.statvfs(v.dir).f_bfree
    os.mkdir(v.path('t'))
    for i in range(40):
        os.mkdir(v.path('t/%d' % i))
        for j in range(60):
            write(v.path('t/%d/%d' % (i, j)), b'x' * 9000)
    cow('sync', v.dir)
    cow('rm', v.path('t'))
    cow('sync', v.dir)
    v.kill()
    v.check()
    v.mount()
    equal(os.listdir(v.dir), [], 'names')
    cow('sync', '--drain', v.dir)
    check(os.statvfs(v.dir).f_bfree >= free - 256, 'blocks free: %d, before: %d' % (os.statvfs(v.dir).f_bfree, free))


@test(name='a read-only mount changes nothing in the image')
def read_only():
    v = Volume()
    populate(v.dir)
    cow('clone', v.path('d1'), v.path('clone'))
    v.umount()
    with open(v.image, 'rb') as f:
        before = hash_of(f)
    v.mount('ro')
    whole(v)
    raises(errno.EROFS, write, v.path('new'), 'x')
    raises(errno.EROFS, os.mkdir, v.path('new'))
    raises(errno.EROFS, os.unlink, v.path('d1/f1'))
    cow('clone', v.path('d1'), v.path('new'), rc=1)
    cow('rm', v.path('d1'), rc=1)
    v.umount()
    with open(v.image, 'rb') as f:
        equal(hash_of(f), before, 'hash of the image')
    v.check()
    v.mount()


def hash_of(f):
    """Of the data only: holes are skipped, so that a large sparse image is quick."""
    h, at = hashlib.blake2b(), 0
    while True:
        try:
            start = os.lseek(f.fileno(), at, os.SEEK_DATA)
            at = os.lseek(f.fileno(), start, os.SEEK_HOLE)
        except OSError:
            return h.hexdigest()
        while start < at:
            data = os.pread(f.fileno(), min(1 << 20, at - start), start)
            h.update(b'%d:' % start + data)
            start += len(data)


if __name__ == '__main__':
    cowtest.main()
