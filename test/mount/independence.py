#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Independence both ways, for every way of writing.

One test a way of writing.  Each makes, on the mount and on the host's file system, the same little tree with clones
(on the host: cp -a) once for every place that is written to: original and clone, at several depths, through hard links
inside and outside the source, in a clone of a clone, in a clone that contains clones, in a clone of one file.  It
writes at that place on both sides, with everything fresh in the kernel's cache and once more after a remount, and
compares the whole trees.  So what must change, and that nothing else did, is said by the host's file system.
"""
import mmap
import os
import shutil
import subprocess
import sys
import time

import cowtest
from cowtest import Fd, Volume, check, cow, equal, fallocate, first_difference, read, run, same_tree, snapshot, test
from cowtest import write

FILES = ('P/S/f', 'P/C/f',                                  # original and clone
         'P/S/d1/d2/d3/d4/deep', 'P/C/d1/d2/d3/d4/deep',    # five directories down
         'P/S/h1', 'P/C/d1/h2',                             # linked inside
         'P/out', 'P/S/outl', 'P/C/outl',                   # linked from outside
         'P/CC/f', 'P/CC/h1',                               # clone of clone
         'P2/S/f', 'P2/C/outl', 'P2/C/d1/h2', 'P2/CC/d1/g', 'P2/out',  # clone that contains clones
         'P/S/d1/g', 'P/G', 'P/G2')                         # clones of one file
DIRECTORIES = ('P/S', 'P/C', 'P/S/d1/d2', 'P/C/d1/d2', 'P/CC/d1', 'P2', 'P2/C/d1/d2/d3', 'P2/CC')


def populate(top, clone):
    """The tree, with `clone` as the way to copy."""
    s = os.path.join(top, 'P', 'S')
    os.makedirs(os.path.join(s, 'd1', 'd2', 'd3', 'd4'))
    write(s + '/f', 'line one\nline two\nline three\n')
    write(s + '/d1/g', b''.join(b'%06d\n' % i for i in range(3000)))
    write(s + '/d1/d2/d3/d4/deep', b''.join(b'deep %06d\n' % i for i in range(8000)))
    write(s + '/d1/d2/d3/d4/deep', 'behind a hole\n', os.O_WRONLY, 1 << 18)
    write(s + '/h1', b''.join(b'link %06d\n' % i for i in range(1000)))
    os.link(s + '/h1', s + '/d1/h2')
    write(top + '/P/out', b''.join(b'outside %06d\n' % i for i in range(1000)))
    os.link(top + '/P/out', s + '/outl')
    os.symlink('f', s + '/sym')
    os.setxattr(s + '/f', 'user.one', b'1')
    os.setxattr(s + '/d1', 'user.two', b'2' * 100)
    os.chmod(s + '/f', 0o640)
    clone(s, top + '/P/C')
    clone(top + '/P/C', top + '/P/CC')
    clone(s + '/d1/g', top + '/P/G')
    clone(top + '/P/G', top + '/P/G2')
    clone(top + '/P', top + '/P2')


def copy(source, target):
    run('cp', '-a', source, target)


def command_clone(source, target):
    cow('clone', source, target)


def sides(volume):
    host = os.path.join(os.environ['COWTEST_DIR'], 'host')
    os.makedirs(host, exist_ok=True)
    return (volume.dir, command_clone), (host, copy)


def try_everywhere(name, places, change):
    """
    The test proper: `change(path)` at each of the places.  At every second place it comes right after the clones, at
    the others after a remount, with nothing in any cache; which, differs from way to way.
    """
    volume = Volume()
    tops = sides(volume)
    cases = list(enumerate(places))
    for number, _ in cases:
        for top, clone in tops:
            os.mkdir('%s/%d' % (top, number))
            populate('%s/%d' % (top, number), clone)
    parity = len(name) % 2
    for cold in (False, True):
        if cold:
            volume.remount()
            for number, place in cases:
                if number % 2 == parity:
                    same_tree(*('%s/%d' % (top, number) for top, _ in tops), text='written at %s, remounted' % place)
        for number, place in cases:
            if (number % 2 == parity) == cold:
                continue
            results = [change('%s/%d/%s' % (top, number, place)) for top, _ in tops]
            equal(results[0], results[1], '%s: result' % place)
            line = first_difference(*(snapshot('%s/%d' % (top, number))[0] for top, _ in tops))
            check(line is None, 'written at %s%s; mount and host differ: %s' % (place, ' (cold)' * cold, line))


def way(name, places=FILES):
    """Declares one way of writing."""
    def declare(change):
        test(lambda: try_everywhere(name, places, change), name=name, timeout=300)
        return change
    return declare


def shell(command):
    """A shell command with the path as $1"""
    return lambda path: run('sh', '-c', command, 'sh', path, rc=None).returncode


way('shell redirect')(shell('echo redirected >"$1"'))
way('shell append')(shell('echo appended >>"$1"'))
way('ed in place')(shell(r'printf "2d\n1i\ninserted\n.\nw\nq\n" | ed -s "$1"'))
if shutil.which('vi'):
    way('vi')(shell('vi -u NONE -n -es -c "1d" -c "wq" "$1" </dev/null'))
way('sed -i')(shell('sed -i s/o/0/ "$1"'))
way('tee -a')(shell('echo more | tee -a "$1" >/dev/null'))
way('cp over it')(shell('head -c 5000 /dev/zero >"$1.new"; cp "$1.new" "$1"; rm "$1.new"'))
way('mv over it')(shell('seq 100 >"$1.new"; mv -f "$1.new" "$1"'))
way('dd conv=notrunc')(shell('echo abc | dd of="$1" bs=1 seek=5 conv=notrunc status=none'))
way('truncate to nothing')(shell('truncate -s 0 "$1"'))
way('truncate shorter')(shell('truncate -s 11 "$1"'))
way('truncate longer')(shell('truncate -s 200K "$1"'))
way('chmod')(shell('chmod 0604 "$1"'))
way('chown')(shell('chown 1234:4321 "$1"'))
way('touch')(shell('touch -d 2001-01-01 "$1"'))
way('set an xattr')(shell('setfattr -n user.new -v value "$1"'))
way('unlink')(shell('rm "$1"'))
way('a new link')(shell('ln "$1" "$1.link" && echo through >>"$1.link"'))
way('rename')(shell('mv "$1" "$1.moved"'))


@way('pwrite in place')
def pwrite(path):
    write(path, b'IN PLACE', os.O_WRONLY, 4)


@way('pwrite of whole blocks')
def pwrite_blocks(path):
    write(path, b'B' * 8192, os.O_WRONLY, 4096)


@way('pwrite far behind the end')
def pwrite_far(path):
    write(path, b'far', os.O_WRONLY, 400000)


@way('dd oflag=direct')
def direct(path):
    return run('dd', 'if=/dev/zero', 'of=' + path, 'bs=4096', 'count=1', 'seek=1', 'conv=notrunc', 'oflag=direct',
               rc=None).returncode


def map_store(path, sync):
    with Fd(path, os.O_RDWR) as fd:
        mapping = mmap.mmap(fd, os.fstat(fd).st_size)
        mapping[3:9] = b'MAPPED'
        mapping[len(mapping) - 2:] = b'ZZ'
        if sync:
            mapping.flush()
        mapping.close()


@way('mmap store without msync')
def mmap_store(path):
    map_store(path, False)


@way('mmap store with msync')
def mmap_store_sync(path):
    map_store(path, True)


@way('fallocate punch')
def punch(path):
    with Fd(path, os.O_WRONLY) as fd:
        fallocate(fd, cowtest.PUNCH_HOLE | cowtest.KEEP_SIZE, 2, 6000)


@way('fallocate zero range')
def zero(path):
    with Fd(path, os.O_WRONLY) as fd:
        fallocate(fd, cowtest.ZERO_RANGE, 5, 20)


@way('fallocate longer')
def longer(path):
    with Fd(path, os.O_WRONLY) as fd:
        fallocate(fd, 0, 0, 300000)


@way('remove an xattr', [p for p in FILES if p.endswith('/f')])
def remove_xattr(path):
    os.removexattr(path, 'user.one')


@way('change an xattr', [p for p in FILES if p.endswith('/f')])
def change_xattr(path):
    os.setxattr(path, 'user.one', b'x' * 2000)


@way('copy_file_range into it')
def range_into(path):
    with Fd(path + '.source', os.O_RDWR | os.O_CREAT) as source, Fd(path, os.O_WRONLY) as fd:
        os.write(source, b'c' * 20000)
        os.copy_file_range(source, fd, 8192, 4096, 4096)
        os.copy_file_range(source, fd, 100, 0, 10)


@way('copy_file_range out of it')
def range_out(path):
    with Fd(path) as fd, Fd(path + '.copy', os.O_WRONLY | os.O_CREAT, 0o644) as target:
        while os.copy_file_range(fd, target, 1 << 20):
            pass
    write(path + '.copy', 'changed', os.O_WRONLY, 2)


way('mkdir', DIRECTORIES)(shell('mkdir "$1/new"'))
way('rmdir', DIRECTORIES)(shell('mkdir "$1/new" && rmdir "$1/new" && touch "$1/file"'))
way('rm -rf', DIRECTORIES)(shell('rm -rf "$1"'))
way('mv of a directory', DIRECTORIES)(shell('mv "$1" "$1.moved" && echo x >>"$1.moved/new"'))
way('chmod of a directory', DIRECTORIES)(shell('chmod 0711 "$1"'))
way('chmod -R', DIRECTORIES)(shell('chmod -R g+w "$1"'))
way('xattr of a directory', DIRECTORIES)(shell('setfattr -n user.dir -v value "$1"'))
way('ln -s, mkfifo, mknod', DIRECTORIES)(shell('ln -s a "$1/s"; mkfifo "$1/p"; mknod "$1/c" c 1 3'))
way('find -delete', DIRECTORIES)(shell('find "$1" -name "h*" -delete'))


# ------------------------------------------------------------------ what is open or mapped when the clone is made

def opened(source, middle, after, path):
    """
    Opens or maps `path`, writes, clones `source`, writes again: the clone holds the first and not the second.
    """
    volume = Volume()
    (top, clone), (host, plain) = sides(volume)
    for t, c in ((top, clone), (host, plain)):
        populate(t + '/t', c)
        with Fd(t + '/t/' + path, os.O_RDWR) as fd:
            mapping = mmap.mmap(fd, os.fstat(fd).st_size)
            middle(fd, mapping)
            c(t + '/t/' + source, t + '/t/clone')
            after(fd, mapping)
            mapping.close()
    same_tree(top + '/t', host + '/t', text='after the clone of %s' % source)
    volume.remount()
    same_tree(top + '/t', host + '/t', text='remounted')


def store_first(fd, mapping):
    mapping[0:5] = b'FIRST'
    mapping[len(mapping) - 1:] = b'1'


def store_second(fd, mapping):
    mapping[0:6] = b'SECOND'
    mapping[len(mapping) - 1:] = b'2'


def write_first(fd, mapping):
    os.pwrite(fd, b'first write', 3)


def write_second(fd, mapping):
    os.pwrite(fd, b'SECOND WRITE', 1)
    os.ftruncate(fd, 40)


OPEN_CASES = (('P/S', 'P/S/d1/d2/d3/d4/deep', 'below the source'), ('P/S', 'P/S/f', 'at the top of the source'),
              ('P/S', 'P/S/h1', 'linked inside'), ('P/S', 'P/out', 'linked, open by a name outside the source'),
              ('P/C', 'P/C/outl', 'in a clone'), ('P/S', 'P/C/f', 'in the clone, the original cloned'),
              ('P', 'P/CC/d1/h2', 'in a clone inside the source'), ('P/S/d1/g', 'P/S/d1/g', 'the source itself'))
for SOURCE, PATH, TEXT in OPEN_CASES:
    test(lambda s=SOURCE, p=PATH: opened(s, store_first, store_second, p), name='mapped, stored without msync: ' + TEXT)
    test(lambda s=SOURCE, p=PATH: opened(s, write_first, write_second, p), name='open, written: ' + TEXT)
    test(lambda s=SOURCE, p=PATH: opened(s, store_first, write_second, p), name='mapped, then written: ' + TEXT)


@test(name='a clone while four programs write: each file is a prefix of what was written')
def while_writing():
    volume = Volume()
    os.mkdir(volume.path('s'))
    writers = []
    for i in range(4):
        program = ('import os,sys\nf=os.open(sys.argv[1],os.O_WRONLY|os.O_CREAT)\n'
                   'for i in range(1000000): os.write(f, b"%07d\\n"%i)')
        writers.append(subprocess.Popen([sys.executable, '-c', program, volume.path('s', 'f%d' % i)]))
    time.sleep(0.5)
    for i in range(20):
        cow('clone', volume.path('s'), volume.path('c%d' % i))
    for w in writers:
        w.kill()
        w.wait()
    sizes = {}
    for i in range(20):
        for name in os.listdir(volume.path('c%d' % i)):
            data = read(volume.path('c%d' % i, name))
            want = b''.join(b'%07d\n' % n for n in range(len(data) // 8 + 1))[:len(data)]
            check(data == want and len(data) % 8 == 0, 'c%d/%s is no prefix' % (i, name))
            check(len(data) >= sizes.get(name, 0), 'c%d/%s is older than in the clone before' % (i, name))
            sizes[name] = len(data)
    check(len(sizes) == 4, 'files: %r' % sizes)


@test(name='a whole file copied shares, and both sides stay their own (cp, FICLONE falls back)')
def reflink_cp():
    volume = Volume()
    data = os.urandom(3 << 20)
    write(volume.path('a'), data)
    run('cp', '--reflink=auto', volume.path('a'), volume.path('b'))
    write(volume.path('b'), b'changed', os.O_WRONLY, 1 << 20)
    check(read(volume.path('a')) == data, 'the source changed')
    check(read(volume.path('b')) == data[:1 << 20] + b'changed' + data[(1 << 20) + 7:], 'the copy is wrong')
    write(volume.path('a'), b'other', os.O_WRONLY, 7)
    check(read(volume.path('b'))[:20] == data[:20], 'the copy changed')


@test(name='times and owners of a clone are the source\'s, its ctime is new')
def clone_times():
    volume = Volume()
    os.makedirs(volume.path('s', 'd'))
    write(volume.path('s', 'd', 'f'), 'x')
    for path in ('s/d/f', 's/d', 's'):
        os.chown(volume.path(path), 7, 8)
        os.utime(volume.path(path), ns=(10 ** 18, 10 ** 18 + 5))
    before = os.stat(volume.path('s')).st_ctime_ns
    cow('clone', volume.path('s'), volume.path('c'))
    cow('clone', volume.path('s/d/f'), volume.path('g'))
    same_tree(volume.path('s'), volume.path('c'), times=True)
    same_tree(volume.path('s/d/f'), volume.path('g'), times=True)
    check(os.stat(volume.path('c')).st_ctime_ns > before, 'the top has no new ctime')
    check(os.stat(volume.path('c')).st_mtime_ns == 10 ** 18 + 5)


if __name__ == '__main__':
    cowtest.main()
