#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Inode numbers of original, clone, clone of clone and clone containing clones: distinct, below 2^53, stable over remount,
rename and writes, as `find -printf '%i %n %p'` sees them.
"""
import os

import cowtest
from cowtest import Volume, check, cow, distinct_numbers, equal, read, run, test, write


def find(top):
    """{path: (number, links)} as find prints them"""
    out = run('find', top, '-printf', '%i %n %P\\n').stdout
    found = {}
    for line in out.splitlines():
        number, links, path = line.split(' ', 2)
        found[path] = (int(number), int(links))
    return found


def check_distinct(found):
    """Every number once for each of its links."""
    count = {}
    for number, links in found.values():
        count[number] = count.get(number, 0) + 1
        check(0 < number < 2 ** 53, 'number %d' % number)
    for path, (number, links) in found.items():
        check(links == count[number], '%s: number %d occurs %d times, st_nlink is %d'
              % (path, number, count[number], links))


def populate(v):
    for d in ('o/a/b', 'o/c'):
        os.makedirs(v.path(d))
    for i in range(30):
        write(v.path('o/a/f%d' % i), 'f%d' % i)
        write(v.path('o/a/b/g%d' % i), 'g%d' % i)
    os.symlink('a', v.path('o/s'))
    os.mkfifo(v.path('o/p'))
    for i in range(5):
        os.link(v.path('o/a/f%d' % i), v.path('o/c/l%d' % i))
    os.link(v.path('o/a/f9'), v.path('outside'))
    cow('clone', v.path('o'), v.path('clone'))
    cow('clone', v.path('clone'), v.path('clone2'))
    cow('clone', v.path('o/a/f7'), v.path('file clone'))
    os.mkdir(v.path('parent'))
    cow('clone', v.path('clone'), v.path('parent/x'))
    cow('clone', v.path('o/a'), v.path('parent/y'))
    cow('clone', v.path('parent'), v.path('parent2'))
    cow('clone', v.path('parent2'), v.path('parent/z'))


@test(name='find: distinct in original, clone, clone of clone, clone containing clones')
def distinct():
    v = Volume()
    populate(v)
    check_distinct(find(v.dir))
    distinct_numbers(v.dir)


@test(name='find: stable over remount')
def over_remount():
    v = Volume()
    populate(v)
    before = find(v.dir)
    for options in (None, 'ro', None):
        v.remount(options)
        equal(find(v.dir), before, 'numbers after a remount (%s)' % options)


@test(name='find: stable over a crash once committed')
def over_crash():
    v = Volume(options='commit=1000')
    populate(v)
    before = find(v.dir)
    cow('sync', v.dir)
    v.kill()
    v.mount()
    equal(find(v.dir), before, 'numbers after a crash')


@test(name='find: one kind of look-up first or another (readdirplus, stat, open by path) makes no difference')
def order_of_entering():
    v = Volume()
    populate(v)
    v.remount()
    os.stat(v.path('parent2/z/x/a/b/g3')) if os.path.exists(v.path('parent2/z')) else None
    first = os.stat(v.path('parent2/y/b/g3')).st_ino
    listed = {e.name: e.inode() for e in os.scandir(v.path('parent2/y/b'))}
    for e in os.scandir(v.path('parent2/y/b')):
        equal(os.lstat(e.path).st_ino, listed[e.name], e.name)
    equal(listed['g3'], first, 'd_ino and st_ino')
    check_distinct(find(v.dir))


@test(name='find: stable over writes that break sharing, and metadata changes')
def over_writes():
    v = Volume()
    populate(v)
    before = find(v.dir)
    for path in before:
        p = v.path(path)
        if os.path.isfile(p) and not os.path.islink(p):
            write(p, 'changed ' * 3000)
            os.chmod(p, 0o600)
        elif os.path.isdir(p) and not os.path.islink(p):
            os.setxattr(p, 'user.x', b'1')
    equal(find(v.dir), before, 'numbers after writes')
    v.remount()
    equal(find(v.dir), before, 'numbers after writes and a remount')


@test(name='find: stable over renames, within a clone, out of it, into another, and of clones')
def over_renames():
    v = Volume()
    populate(v)
    names = {i: p for p, (i, n) in find(v.dir).items() if n == 1}
    moves = (('clone/a/b', 'clone/c/b'), ('clone/c/b', 'home'), ('clone2/a/b', 'parent/x/new'),
             ('parent/x', 'moved clone'), ('parent2/z', 'clone2/inside') if os.path.exists(v.path('parent2/z'))
             else ('parent2/x', 'clone2/inside'), ('clone2/a/f20', 'o/c/f20'), ('o/a/b', 'clone/c/from original'),
             ('home', 'clone2/c/home'), ('clone2', 'parent2/y/deep'), ('parent', 'parent2/y/deep/c/parent'))
    current = dict((p, i) for i, p in names.items())
    for old, new in moves:
        os.rename(v.path(old), v.path(new))
        current = {(new + p[len(old):] if p == old or p.startswith(old + '/') else p): i for p, i in current.items()}
        found = find(v.dir)
        check_distinct(found)
        for path, number in current.items():
            equal(found[path][0], number, '%s after %s -> %s' % (path, old, new))
    v.remount()
    found = find(v.dir)
    check_distinct(found)
    for path, number in current.items():
        equal(found[path][0], number, '%s after a remount' % path)


@test(name='numbers of removed clones may be used again, never twice at once')
def reuse():
    v = Volume()
    os.makedirs(v.path('s/d'))
    write(v.path('s/d/f'), 'f')
    keep = []
    for i in range(60):
        cow('clone', v.path('s'), v.path('c%d' % i))
        cow('clone', v.path('c%d' % i), v.path('s/d/n')) if i % 7 == 0 and not os.path.exists(v.path('s/d/n')) else None
        keep.append('c%d' % i)
        if i % 3 == 0:
            check_distinct(find(v.dir))
        if i % 4 == 3:
            cow('rm', v.path(keep.pop(0)))
            cow('rm', v.path('s/d/n')) if os.path.exists(v.path('s/d/n')) else None
        if i % 20 == 19:
            v.remount()
    check_distinct(find(v.dir))
    equal(read(v.path('c59/d/f')), b'f', 'content')


@test(name='one device number, st_nlink 1 for directories, du and tar see every file once')
def one_device():
    v = Volume()
    populate(v)
    devices = run('find', v.dir, '-printf', '%D\\n').stdout.split()
    equal(len(set(devices)), 1, 'device numbers')
    found = find(v.dir)
    names = run('sh', '-c', 'tar cf - -C "$1" . | tar tvf - | grep -c "link to"', 'sh', v.dir).stdout
    links = sum(n - 1 for n in {i: n for i, n in found.values()}.values())
    equal(int(names), links, 'hard links that tar found')


if __name__ == '__main__':
    cowtest.main()
