#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
The cases that broke earlier drafts of the design (doc/DESIGN.md, "Cases that decided the design"), as far as a mount can
show them; each test is named after its case.  FULL=1 takes the large sizes that the cases name.
"""
import errno
import mmap
import os
import subprocess
import sys
import time

import cowtest
from cowtest import Fd, Volume, check, cow, distinct_numbers, equal, raises, read, run, same_tree, snapshot, test, write

FULL = bool(os.environ.get('FULL'))


def lines(p):
    return sorted(p.stdout.splitlines())


def drained(volume):
    """Everything committed, and removed space given back."""
    cow('sync', '--drain', volume.dir)


def used(volume):
    s = os.statvfs(volume.dir)
    return (s.f_blocks - s.f_bfree) * s.f_frsize


# ------------------------------------------------------------------ numbers

@test(name='numbers: clone / to x1, / to x3, mv x1 x3/x5')
def root_clones():
    v = Volume()
    for d in ('a', 'a/b'):
        os.mkdir(v.path(d))
    for f in ('f', 'a/f', 'a/b/f'):
        write(v.path(f), f)
    cow('clone', v.dir, v.path('x1'))
    cow('clone', v.dir, v.path('x3'))
    distinct_numbers(v.dir)
    x1 = distinct_numbers(v.path('x1'))
    os.rename(v.path('x1'), v.path('x3', 'x5'))
    after = distinct_numbers(v.dir)
    for path, number in x1.items():
        equal(after[('x3/x5/' + path).rstrip('/')], number, 'number of %s after the rename' % path)
    cow('clone', v.path('x3'), v.path('y'))
    after = distinct_numbers(v.dir)
    v.remount()
    equal(distinct_numbers(v.dir), after, 'numbers after a remount')


@test(name="numbers: mv D D'/x with open files")
def move_open():
    v = Volume()
    os.makedirs(v.path('D', 'sub'))
    for f in ('D/f', 'D/sub/g'):
        write(v.path(f), f)
    os.link(v.path('D/f'), v.path('D/sub/h'))
    cow('clone', v.path('D'), v.path('D2'))
    before = {p: n for p, n in distinct_numbers(v.dir).items() if p.startswith('D') and not p.startswith('D2')}
    with Fd(v.path('D/f'), os.O_RDWR) as f, Fd(v.path('D/sub/g'), os.O_RDWR) as g, Fd(v.path('D/sub')) as d:
        was = [os.fstat(x).st_ino for x in (f, g, d)]
        os.rename(v.path('D'), v.path('D2/x'))
        equal([os.fstat(x).st_ino for x in (f, g, d)], was, 'numbers of open files')
        os.pwrite(f, b'through the old descriptor', 0)
        os.pwrite(g, b'g too', 0)
        write(v.path('D2/x/sub/new'), 'new')
        check('new' in os.listdir(d), 'an open directory does not see a new entry')
    equal(read(v.path('D2/x/f')), b'through the old descriptor', 'D2/x/f')
    equal(read(v.path('D2/x/sub/h')), b'through the old descriptor', 'the other name')
    equal(read(v.path('D2/x/sub/g')), b'g too/g', 'D2/x/sub/g')
    equal(os.stat(v.path('D2/x/f')).st_nlink, 2, 'link count')
    check(read(v.path('D2/f')) == b'D/f', 'the clone changed')
    after = distinct_numbers(v.dir)
    for path, number in before.items():
        equal(after['D2/x' + path[1:]], number, path)
    v.remount()
    equal(distinct_numbers(v.dir), after, 'numbers after a remount')


@test(name='numbers: a crash after a world was first entered')
def crash_entered():
    v = Volume(options='commit=1000')
    os.makedirs(v.path('s/d'))
    write(v.path('s/d/f'), 'f')
    cow('clone', v.path('s'), v.path('c1'))
    cow('clone', v.path('c1'), v.path('c2'))
    cow('sync', v.dir)
    distinct_numbers(v.path('c1'))  # enters it; the row is not committed
    v.kill()
    v.mount()
    distinct_numbers(v.path('c2'))  # enters another world first
    first = distinct_numbers(v.dir)
    cow('sync', v.dir)
    v.kill()
    v.mount()
    equal(distinct_numbers(v.dir), first, 'numbers after a crash')


@test(name='numbers: more nested clones than fit in memory\'s table rows', timeout=300)
def many_worlds():
    v = Volume()
    os.mkdir(v.path('t'))
    write(v.path('t/f'), 'f')
    rounds = 13 if FULL else 10
    for i in range(rounds):
        cow('clone', v.path('t'), v.path('t/c%d' % i))
    listing = run('find', v.path('t'), '-printf', '%i %P\\n').stdout.splitlines()
    equal(len(listing), 2 ** (rounds + 1), 'entries')
    check(len({line.split()[0] for line in listing}) == len(listing), 'a number twice')
    check(max(int(line.split()[0]) for line in listing) < 2 ** 53, 'a number of more than 53 bits')
    v.remount('cache=4M')
    again = run('find', v.path('t'), '-printf', '%i %P\\n').stdout.splitlines()
    equal(sorted(again), sorted(listing), 'numbers after a remount')


@test(name='numbers: a world moved away and home again is a plain directory, and links work there')
def move_home():
    v = Volume()
    os.makedirs(v.path('d/sub'))
    write(v.path('d/sub/f'), 'f')
    write(v.path('g'), 'g')
    os.mkdir(v.path('s'))
    cow('clone', v.path('s'), v.path('c'))
    number = os.stat(v.path('d/sub/f')).st_ino
    os.rename(v.path('d'), v.path('c/d'))
    raises(errno.EXDEV, os.link, v.path('g'), v.path('c/d/g'))
    raises(errno.EXDEV, os.link, v.path('c/d/sub/f'), v.path('c/f'))
    os.rename(v.path('c/d'), v.path('d'))
    os.link(v.path('g'), v.path('d/g'))
    os.link(v.path('d/sub/f'), v.path('f'))
    equal(os.stat(v.path('f')).st_ino, number, 'number')


@test(name='numbers: a directory that comes home finds nothing of what was linked below it before')
def move_home_links():
    v = Volume()
    write(v.path('k1'), 'x')
    os.link(v.path('k1'), v.path('k2'))
    os.makedirs(v.path('o/s'))
    os.mkdir(v.path('c0'))
    cow('clone', v.path('c0'), v.path('C'))
    write(v.path('o/s/a'), 'a')
    os.link(v.path('o/s/a'), v.path('o/s/b'))
    os.rename(v.path('o'), v.path('C/o'))
    os.unlink(v.path('C/o/s/a'))
    os.rename(v.path('C/o'), v.path('o'))
    write(v.path('o/s/x'), 'x')
    os.link(v.path('o/s/x'), v.path('o/s/y'))
    equal(os.stat(v.path('o/s/x')).st_nlink, 2, 'link count')
    cow('clone', v.dir, v.path('all'))
    same_tree(v.path('o'), v.path('all/o'))


# ------------------------------------------------------------------ links

@test(name='links: D with x linked outside, cloned, and a subdirectory of the clone cloned')
def linked_outside():
    v = Volume()
    os.makedirs(v.path('D/sub'))
    write(v.path('D/sub/x'), 'x')
    os.link(v.path('D/sub/x'), v.path('out'))
    os.link(v.path('D/sub/x'), v.path('D/y'))
    cow('clone', v.path('D'), v.path('D2'))
    cow('clone', v.path('D2/sub'), v.path('S2'))
    equal([os.stat(v.path(p)).st_nlink for p in ('out', 'D/sub/x', 'D/y', 'D2/sub/x', 'D2/y', 'S2/x')],
          [3, 3, 3, 2, 2, 1], 'link counts')
    write(v.path('D2/y'), 'D2')
    write(v.path('out'), 'out')
    equal([read(v.path(p)) for p in ('D/sub/x', 'D/y', 'D2/sub/x', 'D2/y', 'S2/x')],
          [b'out', b'out', b'D2', b'D2', b'x'], 'contents')
    distinct_numbers(v.dir)
    os.unlink(v.path('D2/sub/x'))
    equal(os.stat(v.path('D2/y')).st_nlink, 1, 'D2/y')
    equal(os.stat(v.path('out')).st_nlink, 3, 'out')


@test(name='links: cow rm S where S/x = T/x')
def remove_linked():
    v = Volume()
    for d in ('S/a/b', 'T'):
        os.makedirs(v.path(d))
    write(v.path('S/a/b/x'), 'x')
    os.link(v.path('S/a/b/x'), v.path('T/x'))
    os.link(v.path('S/a/b/x'), v.path('T/y'))
    os.link(v.path('S/a/b/x'), v.path('S/z'))
    equal(os.stat(v.path('T/x')).st_nlink, 4, 'before')
    cow('rm', v.path('S'))
    equal(os.stat(v.path('T/x')).st_nlink, 2, 'after')
    equal(read(v.path('T/y')), b'x', 'content')
    drained(v)
    equal(os.stat(v.path('T/y')).st_nlink, 2, 'after reclaim')
    cow('rm', v.path('T'))
    drained(v)


@test(name='links: a pnpm-like tree where every file has a link outside', timeout=240)
def pnpm():
    v = Volume()
    count = 5000 if FULL else 800
    for d in ('store', 'project'):
        os.mkdir(v.path(d))
    for i in range(count):
        if i % 20 == 0:
            os.makedirs(v.path('project/p%d/lib' % (i // 20)))
        write(v.path('store/%04d' % i), 'package %d\n' % i)
        os.link(v.path('store/%04d' % i), v.path('project/p%d/lib/f%d' % (i // 20, i)))
    start = time.monotonic()
    cow('clone', v.path('project'), v.path('copy'))
    check(time.monotonic() - start < 0.5, 'the clone took %.2f s' % (time.monotonic() - start))
    tree, _ = snapshot(v.path('copy'))
    check(all(x[6] in (None, 1) for x in tree.values()), 'a link count in the clone')
    check(all(x[6] in (None, 2) for x in snapshot(v.path('project'))[0].values()), 'a link count in the original')
    for i in range(0, count, 7):
        write(v.path('copy/p%d/lib/f%d' % (i // 20, i)), 'changed\n')
    for i in range(count):
        equal(read(v.path('store/%04d' % i)), b'package %d\n' % i, 'store')
    cow('rm', v.path('store'))
    drained(v)
    equal({x[6] for x in snapshot(v.path('project'))[0].values()} - {None}, {1}, 'link counts without the store')
    distinct_numbers(v.dir)


@test(name="links: git's link + unlink of loose objects")
def git_objects():
    v = Volume()
    os.makedirs(v.path('repo/objects/ab'))
    for i in range(300):
        write(v.path('repo/objects/tmp_%d' % i), 'object %d' % i)
        os.link(v.path('repo/objects/tmp_%d' % i), v.path('repo/objects/ab/%d' % i))
        os.unlink(v.path('repo/objects/tmp_%d' % i))
    cow('clone', v.path('repo'), v.path('copy'))
    same_tree(v.path('repo'), v.path('copy'))
    # No reference is left, so the directory moves to another world and back whatever has been linked in it.
    os.rename(v.path('repo/objects/ab'), v.path('copy/objects/cd'))
    os.rename(v.path('copy/objects/cd'), v.path('repo/objects/ab'))
    os.link(v.path('repo/objects/ab/7'), v.path('seven'))
    distinct_numbers(v.dir)
    if run('sh', '-c', 'command -v git', rc=None).returncode == 0:
        git = lambda *a: run('git', '-C', v.path('git'), '-c', 'user.name=t', '-c', 'user.email=t@example.org', *a)
        os.mkdir(v.path('git'))
        git('init', '-q')
        for i in range(50):
            write(v.path('git/f%d' % i), 'file %d\n' % i)
        git('add', '.')
        git('commit', '-q', '-m', 'one')
        cow('clone', v.path('git'), v.path('git2'))
        git('-C', v.path('git2'), 'fsck', '--strict')
        equal(git('-C', v.path('git2'), 'status', '--porcelain').stdout, '', 'git status in the clone')


@test(name="links: D/x = D/y, clone, write D'/x, diff (links differ, roots equal)")
def diff_links():
    v = Volume()
    os.makedirs(v.path('D/s'))
    write(v.path('D/x'), 'x')
    os.link(v.path('D/x'), v.path('D/s/y'))
    write(v.path('D/z'), 'z')
    cow('clone', v.path('D'), v.path('D2'))
    cow('diff', v.path('D'), v.path('D2'))
    write(v.path('D2/x'), 'changed')
    equal(read(v.path('D2/s/y')), b'changed', 'the other name')
    equal(lines(cow('diff', v.path('D'), v.path('D2'), rc=1)), ['M s/y', 'M x'], 'diff')
    equal(lines(cow('diff', v.path('D/s'), v.path('D2/s'), rc=1)), ['M y'], 'diff below')
    os.chmod(v.path('D2/s/y'), 0o600)
    write(v.path('D2/x'), 'x')
    os.utime(v.path('D2/x'), ns=(os.stat(v.path('D/x')).st_mtime_ns,) * 2)
    equal(lines(cow('diff', v.path('D'), v.path('D2'), rc=1)), ['m s/y', 'm x'], 'diff of attributes')


@test(name='links: a descriptor open through S/x, cow rm S, the write shows in T/x')
def open_through_removed():
    v = Volume()
    for d in ('S', 'T'):
        os.mkdir(v.path(d))
    write(v.path('S/x'), 'before')
    os.link(v.path('S/x'), v.path('T/x'))
    write(v.path('S/only'), 'only here')
    with Fd(v.path('S/x'), os.O_RDWR) as x, Fd(v.path('S/only'), os.O_RDWR) as only, Fd(v.path('S')) as d:
        cow('rm', v.path('S'))
        os.pwrite(x, b'AFTER!', 0)
        equal(read(v.path('T/x')), b'AFTER!', 'T/x')
        equal(os.fstat(x).st_nlink, 1, 'link count')
        equal(os.pread(only, 100, 0), b'only here', 'a file without a name')
        os.pwrite(only, b'ONLY', 0)
        equal(os.pread(only, 100, 0), b'ONLY here', 'a file without a name, written')
        equal(os.fstat(only).st_nlink, 0, 'its link count')
        equal(os.listdir(d), [], 'the removed directory')
        raises(errno.ENOENT, os.open, 'new', os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=d)
        raises(errno.ENOENT, os.mkdir, 'new', dir_fd=d)
    drained(v)


@test(name='links: out/x mapped shared while D/x is the same inode, clone D')
def mapped_outside():
    v = Volume()
    for d in ('out', 'D'):
        os.mkdir(v.path(d))
    write(v.path('out/x'), b'.' * 10000)
    os.link(v.path('out/x'), v.path('D/x'))
    with Fd(v.path('out/x'), os.O_RDWR) as fd:
        m = mmap.mmap(fd, 10000)
        m[5000:5005] = b'FIRST'
        cow('clone', v.path('D'), v.path('D2'))
        m[5000:5006] = b'SECOND'
        equal(read(v.path('D2/x'))[4999:5007], b'.FIRST..', 'the clone')
        equal(read(v.path('D/x'))[4999:5007], b'.SECOND.', 'the original')
        m.close()
    v.remount()
    equal(read(v.path('D2/x'))[4999:5007], b'.FIRST..', 'the clone')
    equal(read(v.path('D/x'))[4999:5007], b'.SECOND.', 'the original')


@test(name='links: the last outside name of a large file removed (space comes back)', timeout=240)
def last_outside_name():
    v = Volume(size='2G')
    size = 400 << 20
    os.makedirs(v.path('S'))
    write(v.path('S/small'), 'small')
    os.link(v.path('S/small'), v.path('other'))
    drained(v)
    before = used(v)
    run('dd', 'if=/dev/zero', 'of=' + v.path('big'), 'bs=1M', 'count=400', 'status=none')
    os.link(v.path('big'), v.path('big2'))
    cow('clone', v.path('S'), v.path('C'))  # C's links hold big too, though no name in C leads to it
    drained(v)
    check(used(v) - before >= size, 'the file takes %d' % (used(v) - before))
    os.unlink(v.path('big'))
    os.unlink(v.path('big2'))
    end = time.monotonic() + 30
    while used(v) - before > size // 10 and time.monotonic() < end:
        drained(v)
        time.sleep(0.2)
    left = used(v) - before
    if left > size // 10:
        # Not purged when idle: it must then be purged before the volume says that it is full.
        run('dd', 'if=/dev/zero', 'of=' + v.path('fill'), 'bs=1M', 'count=1500', 'status=none')
        raise cowtest.Failure('%d MiB still held when idle, though a full volume takes them back' % (left >> 20))
    equal(read(v.path('C/small')), b'small', 'C/small')


@test(name='links: rename across worlds answers EXDEV only where a group would be torn in two')
def torn_groups():
    v = Volume()
    for d in ('d/in', 'd/half', 's'):
        os.makedirs(v.path(d))
    for f in ('d/in/a', 'd/half/b', 'single'):
        write(v.path(f), f)
    os.link(v.path('d/in/a'), v.path('d/in/a2'))
    os.link(v.path('d/half/b'), v.path('b'))
    cow('clone', v.path('s'), v.path('c'))
    before = snapshot(v.dir)[0]
    for p in ('d', 'd/half', 'd/in/a', 'b'):
        raises(errno.EXDEV, os.rename, v.path(p), v.path('c/new'))
    write(v.path('c/target'), 'must stay')
    raises(errno.EXDEV, os.rename, v.path('b'), v.path('c/target'))
    raises(errno.EXDEV, os.link, v.path('single'), v.path('c/single'))
    raises(errno.EXDEV, cowtest.renameat2, v.path('single'), v.path('c/target'), cowtest.RENAME_EXCHANGE)
    equal(read(v.path('c/target')), b'must stay', 'the target of a refused rename')
    os.unlink(v.path('c/target'))
    equal(snapshot(v.dir)[0], before, 'the tree after refused renames')
    os.rename(v.path('d/in'), v.path('c/in'))  # the whole group is inside
    equal(os.stat(v.path('c/in/a')).st_nlink, 2, 'link count')
    write(v.path('c/in/a'), 'still one file')
    equal(read(v.path('c/in/a2')), b'still one file', 'the other name')
    os.rename(v.path('single'), v.path('c/single'))
    os.unlink(v.path('b'))
    os.rename(v.path('d'), v.path('c/d'))
    equal(read(v.path('c/d/half/b')), b'd/half/b', 'content')
    run('mv', v.path('c/in/a'), v.path('moved'))  # EXDEV: mv copies
    equal(read(v.path('moved')), b'still one file', 'mv')
    distinct_numbers(v.dir)


# ------------------------------------------------------------------ clones

@test(name='clones: a target inside its source')
def target_inside():
    v = Volume()
    os.makedirs(v.path('D/a/b'))
    write(v.path('D/f'), 'f')
    write(v.path('D/a/b/g'), 'g')
    os.link(v.path('D/f'), v.path('D/a/f2'))
    before = snapshot(v.path('D'))[0]
    cow('clone', v.path('D'), v.path('D/a/b/copy'))
    equal({p: x for p, x in snapshot(v.path('D/a/b/copy'))[0].items()}, before, 'the copy')
    check(not os.path.lexists(v.path('D/a/b/copy/a/b/copy')), 'the copy holds itself')
    equal([n for n in os.listdir(v.path('D/a/b/copy/a/b')) if n != 'g'], [], 'something is left in the copy')
    write(v.path('D/a/b/copy/f'), 'changed')
    equal(read(v.path('D/f')), b'f', 'the source')
    cow('clone', v.dir, v.path('D/root'))
    cow('clone', v.path('D/a'), v.path('D/a/b/copy/a/again'))
    distinct_numbers(v.dir)
    v.remount()
    distinct_numbers(v.dir)


@test(name='clones: clone D D/c1, clone D D/c2, ... 64 times (totals)')
def doubling():
    v = Volume()
    os.mkdir(v.path('D'))
    write(v.path('D/f'), '12345678')
    for k in range(1, 65):
        cowtest.fast_clone(v.path('D'), v.path('D/c%d' % k))
        files, directories, apparent = cowtest.usage(v.path('D'))[:3]
        equal((files, directories, apparent), (2 ** k % 2 ** 64, 2 ** k - 1, 2 ** (k + 3) % 2 ** 64), 'totals at %d' % k)
    write(v.path('D/c64/c63/c62/c1/f'), '123456789')
    equal(cowtest.usage(v.path('D'))[2], 1, 'apparent bytes')
    equal(read(v.path('D/c64/c63/c62/f')), b'12345678', 'a neighbour')
    v.remount()
    equal(cowtest.usage(v.path('D'))[:3], (0, 2 ** 64 - 1, 1), 'totals after a remount')
    cow('rm', v.path('D'))
    drained(v)


@test(name='clones: a world nested in a read-only clone')
def nested_read_only():
    v = Volume()
    os.makedirs(v.path('s/d'))
    write(v.path('s/d/f'), 'f')
    cow('clone', v.path('s'), v.path('s/inner'))
    cow('clone', '--read-only', v.path('s'), v.path('ro'))
    before = snapshot(v.path('ro'))[0]
    for p in ('ro/d/f', 'ro/inner/d/f'):
        raises(errno.EROFS, write, v.path(p), 'x')
        raises(errno.EROFS, os.open, v.path(p), os.O_WRONLY)
        raises(errno.EROFS, os.open, v.path(p), os.O_RDWR)
        raises(errno.EROFS, os.chmod, v.path(p), 0o600)
        raises(errno.EROFS, os.truncate, v.path(p), 0)
        raises(errno.EROFS, os.unlink, v.path(p))
        raises(errno.EROFS, os.setxattr, v.path(p), 'user.a', b'1')
        raises(errno.EROFS, os.rename, v.path(p), v.path(p + '2'))
        raises(errno.EROFS, os.rename, v.path(p), v.path('out'))
        raises((errno.EROFS, errno.EXDEV), os.link, v.path(p), v.path(p + '2'))
    for p in ('ro', 'ro/inner'):
        raises(errno.EROFS, os.mkdir, v.path(p, 'new'))
        raises(errno.EROFS, write, v.path(p, 'new'), 'x')
        raises(errno.EROFS, os.symlink, 'x', v.path(p, 'new'))
        raises(errno.EROFS, os.rename, v.path('s/d'), v.path(p, 'new'))
        cow('rm', v.path(p, 'd'), rc=1)
        cow('clone', v.path('s'), v.path(p, 'new'), rc=1)
    equal(snapshot(v.path('ro'))[0], before, 'the read-only clone')
    os.rename(v.path('ro'), v.path('renamed'))
    cow('clone', v.path('renamed'), v.path('rw'))
    write(v.path('rw/inner/d/f'), 'writable')
    write(v.path('rw/d/f'), 'writable')
    cow('clone', v.path('renamed/inner'), v.path('rw2'))
    write(v.path('rw2/d/f'), 'writable')
    equal(snapshot(v.path('renamed'))[0], before, 'the read-only clone')
    # A read-only clone inside a writable one keeps its flag in a clone of that.
    cow('clone', '--read-only', v.path('s'), v.path('rw/ro2'))
    cow('clone', v.path('rw'), v.path('rw3'))
    raises(errno.EROFS, write, v.path('rw3/ro2/d/f'), 'x')
    v.remount()
    raises(errno.EROFS, write, v.path('renamed/d/f'), 'x')
    cow('rm', v.path('renamed'))
    os.rename(v.path('rw3/ro2'), v.path('top'))
    raises(errno.EROFS, write, v.path('top/d/f'), 'x')


def fill(v, name='fill'):
    """Writes until there is no space; returns how many bytes went in."""
    total = 0
    with Fd(v.path(name), os.O_WRONLY | os.O_CREAT) as fd:
        for block in (1 << 20, 4096, 1):
            try:
                while True:
                    total += os.write(fd, os.urandom(4096) * max(1, block // 4096) if block > 1 else b'x')
            except OSError as e:
                equal(e.errno, errno.ENOSPC, 'errno of a write to a full volume')
    return total


@test(name='clones: rm in a clone on a full volume', timeout=240)
def rm_full():
    v = Volume(size='128M')
    os.mkdir(v.path('s'))
    for i in range(40):
        os.mkdir(v.path('s/d%d' % i))
        for j in range(20):
            write(v.path('s/d%d/f%d' % (i, j)), 'file %d\n' % j * 700)
    cow('clone', v.path('s'), v.path('c'))
    fill(v)
    before = snapshot(v.path('s'))[0]
    cow('rm', v.path('c/d7'))
    p = run('rm', '-rf', v.path('c/d8'), rc=None)  # may say that there is no space, but must not break anything
    check(p.returncode == 0 or 'No space' in p.stderr, p.stderr)
    cow('rm', v.path('c'))
    equal(snapshot(v.path('s'))[0], before, 'the original')
    os.unlink(v.path('fill'))
    drained(v)
    write(v.path('s/new'), b'n' * (20 << 20))
    cow('rm', v.path('s'))
    drained(v)
    write(v.path('big'), b'b' * (60 << 20))


@test(name='clones: a million nested directories removed at once', timeout=600)
def nested_directories():
    v = Volume()
    drained(v)
    before = used(v)
    os.mkdir(v.path('top'))
    fd = os.open(v.path('top'), os.O_RDONLY)
    for _ in range(1000):
        os.mkdir('d', dir_fd=fd)
        below = os.open('d', os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    # The chain doubles by cloning it to its own end.
    for _ in range(10 if FULL else 6):
        cowtest.fast_clone(v.path('top'), '/proc/self/fd/%d/d' % fd)
        while True:
            try:
                below = os.open('d', os.O_RDONLY, dir_fd=fd)
            except FileNotFoundError:
                break
            os.close(fd)
            fd = below
    os.close(fd)
    directories = cowtest.usage(v.path('top'))[1]
    check(directories >= (1000000 if FULL else 60000), '%d directories' % directories)
    start = time.monotonic()
    cow('rm', v.path('top'))
    check(time.monotonic() - start < 2, 'cow rm took %.1f s' % (time.monotonic() - start))
    equal(os.listdir(v.dir), [], 'what is left')
    drained(v)
    check(used(v) - before < 1 << 20, '%d bytes are still used' % (used(v) - before))


# ------------------------------------------------------------------ commit

@test(name='commit: a reader whose block is freed and reused', timeout=60)
def read_while_rewriting():
    v = Volume(size='64M', options='commit=1')
    write(v.path('f'), b'\0' * (1 << 20))
    reader = ('import os,sys,time\nend=time.time()+6\n'
              'while time.time()<end:\n'
              ' fd=os.open(sys.argv[1],os.O_RDONLY)\n'
              ' os.posix_fadvise(fd,0,0,os.POSIX_FADV_DONTNEED)\n'
              ' d=b"".join(os.pread(fd,65536,i) for i in range(0,1<<20,65536))\n'
              ' os.close(fd)\n'
              ' for i in range(0,len(d),4096):\n'
              '  b=d[i:i+4096]\n'
              '  s=set(b)\n'  # the kernel copies pages without a lock: two stamps may meet in a page, if they are neighbours
              '  if len(s)>2 or len(s)==2 and (max(s)-min(s)) not in (1,249): sys.exit("block at %d: %r"%(i,s))\n'
              )
    readers = [subprocess.Popen([sys.executable, '-c', reader, v.path('f')], stderr=subprocess.PIPE) for _ in range(3)]
    end, stamp = time.monotonic() + 6, 0
    while time.monotonic() < end:
        stamp = stamp % 250 + 1
        with Fd(v.path('f'), os.O_WRONLY) as fd:
            for at in range(0, 1 << 20, 65536):
                for block in range(0, 65536, 4096):
                    os.pwrite(fd, bytes([stamp]) * 4096, at + block)
        if stamp % 20 == 0:
            with Fd(v.path('f'), os.O_WRONLY) as fd:
                os.fsync(fd)
    for r in readers:
        text = r.communicate()[1].decode()
        equal(r.returncode, 0, 'a reader: %s' % text)


@test(name='commit: space left only as single blocks', timeout=240)
def single_blocks():
    v = Volume(size='96M')
    names = []
    os.mkdir(v.path('d'))
    try:
        for i in range(40000):
            write(v.path('d/%d' % i), os.urandom(64) * 64)
            names.append(i)
    except OSError as e:
        equal(e.errno, errno.ENOSPC, 'errno')
        if os.path.exists(v.path('d/%d' % len(names))):
            os.unlink(v.path('d/%d' % len(names)))
    check(len(names) > 5000, 'only %d files' % len(names))
    for i in names[::2]:
        os.unlink(v.path('d/%d' % i))
    drained(v)
    size = len(names[::2]) * 4096 * 6 // 10
    data = os.urandom(4096) * (size // 4096)
    write(v.path('big'), data)
    v.remount()
    check(read(v.path('big')) == data, 'content of the large file')


@test(name='commit: 100-byte appends')
def small_appends():
    v = Volume(size='1G')
    drained(v)
    before = os.stat(v.image).st_blocks * 512
    empty = used(v)
    with Fd(v.path('log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND) as fd:
        for i in range(20000):
            os.write(fd, b'%099d\n' % i)
            if i % 1000 == 999:
                os.fsync(fd)
    check(read(v.path('log')) == b''.join(b'%099d\n' % i for i in range(20000)), 'content')
    drained(v)
    check(used(v) - empty < 8 << 20, '%d bytes used for 2 MB of appends' % (used(v) - empty))
    grown = os.stat(v.image).st_blocks * 512 - before
    check(grown < 48 << 20, 'the image grew by %d' % grown)


# ------------------------------------------------------------------ log

def crashed(v):
    v.kill()
    v.mount()


@test(name='log: write, truncate, write, fsync')
def write_truncate_write():
    v = Volume(options='commit=1000')
    with Fd(v.path('f'), os.O_RDWR | os.O_CREAT) as fd:
        os.pwrite(fd, b'a' * 20000, 0)
        os.ftruncate(fd, 100)
        os.pwrite(fd, b'b' * 10, 9000)
        os.fsync(fd)
    crashed(v)
    equal(read(v.path('f')), b'a' * 100 + b'\0' * 8900 + b'b' * 10, 'content')


@test(name='log: open, unlink, create the same name, fsync the old descriptor')
def fsync_unlinked():
    v = Volume(options='commit=1000')
    with Fd(v.path('f'), os.O_RDWR | os.O_CREAT) as fd:
        os.write(fd, b'old')
        os.unlink(v.path('f'))
        write(v.path('f'), 'new')
        os.fsync(fd)
        v.kill()
    v.mount()
    equal(read(v.path('f')), b'new', 'content')
    equal(os.listdir(v.dir), ['f'], 'names')


@test(name='log: mkdir during a commit, create below, fsync, crash')
def mkdir_fsync():
    v = Volume(options='commit=1')
    for i in range(30):
        os.mkdir(v.path('d%d' % i))
        with Fd(v.path('d%d/f' % i), os.O_WRONLY | os.O_CREAT) as fd:
            os.write(fd, b'%d' % i)
            if i % 3 == 0:
                os.fsync(fd)
        time.sleep(0.03)
    with Fd(v.path('d29/f'), os.O_WRONLY) as fd:
        os.fsync(fd)
    crashed(v)
    for i in range(30):  # all names; the content of those that were synced, of others that or nothing yet
        content = read(v.path('d%d/f' % i))
        check(content == b'%d' % i or (content == b'' and i % 3 != 0 and i != 29), 'd%d/f is %r' % (i, content))


@test(name="log: write, clone, fsync the clone's file, crash")
def clone_fsync():
    v = Volume(options='commit=1000')
    os.mkdir(v.path('s'))
    write(v.path('s/f'), b'f' * 50000)
    cow('clone', v.path('s'), v.path('c'))
    write(v.path('c/f'), b'CLONE', os.O_WRONLY, 10)
    with Fd(v.path('c/f'), os.O_WRONLY) as fd:
        os.fsync(fd)
    crashed(v)
    equal(read(v.path('c/f')), b'f' * 10 + b'CLONE' + b'f' * 49985, 'the clone')
    equal(read(v.path('s/f')), b'f' * 50000, 'the original')


if __name__ == '__main__':
    cowtest.main()
