#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
POSIX access control lists: volumes have none, and import must not let that give anybody rights.  The control is the
kernel: what each of many users may do with each file of a tree on ext4 or XFS is asked there and on what was imported.
Nobody may do more; whoever owns it may do the same; and what all in a class could do they still can, so that not
everything is taken away.
"""
import io
import itertools
import os
import random
import stat
import subprocess
import tarfile

import cowtest
from cowtest import Loop, Volume, as_user, check, cow, equal, run, test

OWNER, OWNING, USERS, GROUPS, STRANGER = 3000, 3100, (3001, 3002), (3101, 3102), 3003
SEED = int(os.environ.get('COW_SEED', 1))
WARNING = 'access control lists cannot be kept'

# mode, entries: the plain cases by name, then whatever chance brings
PLAIN = [
    ('640', ''), ('664', ''), ('604', ''), ('777', ''),
    ('640', 'u:3001:rw'),           # the mask shows as the group's rights
    ('600', 'u:3001:rw'),
    ('644', 'u:3001:-'),            # less than all others
    ('666', 'u:3001:r'),
    ('664', 'u:3001:r'),            # less than the owning group
    ('660', 'u:3001:-'),
    ('604', 'g:3101:-'),            # a group that may less than all others
    ('606', 'g:3101:r'),
    ('640', 'g:3101:rw'),
    ('660', 'u:3001:rw,m::r'),      # a mask that is narrower than the group's entry
    ('606', 'u:3001:rw,m::r'),      # and than a named entry
    ('606', 'g:3101:rw,m::r'),
    ('666', 'g:3101:rwx,m::-'),
    ('664', 'm::r'),
    ('604', 'u:3001:rw,m::-'),
    ('666', 'u:3001:r,u:3002:w,g:3101:rwx,g:3102:x'),
    ('777', 'u:3001:rx,g:3101:wx,m::rwx'),
    ('000', 'u:3001:rwx,g:3101:rwx'),
]


def cases():
    r = random.Random(SEED)

    def rights():
        return r.choice(['-', 'r', 'w', 'x', 'rw', 'rx', 'wx', 'rwx'])
    found = list(PLAIN)
    for _ in range(60):
        entries = ['u:%d:%s' % (u, rights()) for u in USERS if r.random() < 0.6]
        entries += ['g:%d:%s' % (g, rights()) for g in GROUPS if r.random() < 0.6]
        if r.random() < 0.4:
            entries.append('m::' + rights())
        found.append(('%03o' % r.randrange(512), ','.join(entries)))
    return found


CASES = cases()


def make(top):
    """Files, directories and fifos with each of the lists."""
    os.mkdir(top, 0o755)
    for number, (mode, entries) in enumerate(CASES):
        kind = 'fdp'[number % 5 // 2 if number >= len(PLAIN) else 0]
        path = os.path.join(top, '%s%d' % (kind, number))
        {'f': lambda p: open(p, 'x', encoding='ascii').close(), 'd': os.mkdir, 'p': os.mkfifo}[kind](path)
        os.chown(path, OWNER, OWNING)
        os.chmod(path, int(mode, 8))
        if kind == 'd':
            entries += (',' if entries else '') + 'd:u:3001:rwx'
        if entries:
            run('setfacl', '-m', entries, path)


def subjects():
    """(uid, group ids): everybody in every combination of groups."""
    for uid in (OWNER,) + USERS + (STRANGER,):
        for groups in itertools.chain.from_iterable(itertools.combinations((OWNING,) + GROUPS, n) for n in range(4)):
            yield uid, groups


def rights_of_caller(tops):
    return [{name: sum(bit for bit in (os.R_OK, os.W_OK, os.X_OK) if os.access(os.path.join(top, name), bit))
             for name in os.listdir(top)} for top in tops]


def rights(*tops):
    """{(subject, name): rights} of each"""
    tables = [{} for _ in tops]
    for uid, groups in subjects():
        got = as_user(uid, rights_of_caller, tops, gid=uid, groups=groups)
        for table, found in zip(tables, got):
            table.update({((uid, groups), name): bits for name, bits in found.items()})
    return tables


def classed(subject):
    return 'owner' if subject[0] == OWNER else 'group' if OWNING in subject[1] else 'other'


def compare(before, after, loose, text):
    """Nobody has more, and each class of the mode has what all in it had, but for the names in `loose`."""
    equal(sorted(after), sorted(before), text + ': names')
    common = {}
    for (subject, name), had in before.items():
        key = name, classed(subject)
        common[key] = common.get(key, 7) & had
    for (subject, name), got in sorted(after.items()):
        what = '%s: %s (%s, list %s) for uid %d in groups %s' % ((text, name) + CASES[int(name[1:])] + subject)
        had = before[subject, name]
        check(not got & ~had, '%s: may %d, could only %d' % (what, got, had))
        if name not in loose:
            equal(got, common[name, classed(subject)], what)


def imported(source, target):
    """Imports, which says once that lists are left out."""
    p = cow('import', '-q', source, target)
    equal(p.stderr.count('\n'), 1, 'lines on stderr')
    check(WARNING in p.stderr, 'the warning is %r' % p.stderr)


def plain_attributes(top):
    return {name: (s.st_uid, s.st_gid, stat.S_IFMT(s.st_mode), s.st_mode & 0o700, s.st_mtime_ns)
            for name in os.listdir(top) for s in [os.lstat(os.path.join(top, name))]}


def without_mask(top):
    """Linux does not look at a list whose mask is empty, so that who it names is one of the others; POSIX would."""
    return {name for name in os.listdir(top) if not os.lstat(os.path.join(top, name)).st_mode & 0o070}


def both_ways(kind):
    os.chmod(os.environ['COWTEST_DIR'], 0o755)
    host, volume, other = Loop(kind), Volume(size='256M', options='allow_other'), Volume('other', '256M')
    original = host.path('t')
    make(original)
    run('tar', '--acls', '-cf', host.path('t.tar'), '-C', original, '.')
    run('tar', '--acls', '--xattrs', '--xattrs-include=*', '--numeric-owner', '-cf', host.path('x.tar'), '-C', original,
        '.')
    other.umount()
    # an exported archive carries a list as an extended attribute, under a mode that is narrow
    cow('export', original, host.path('e.tar'))
    for source in ('t', 't.tar', 'x.tar', 'e.tar'):
        imported(host.path(source), volume.path(source))
    for source in ('t', 't.tar'):
        imported(host.path(source), '%s:/%s' % (other.image, source))
    # what can hold a list gets it, and all rights come back
    equal(cow('import', '-q', original, host.path('again')).stderr, '', 'stderr')
    other.mount('allow_other')
    for v in (volume, other):
        os.chmod(v.dir, 0o755)
    targets = [volume.path(source) for source in ('t', 't.tar', 'x.tar', 'e.tar')]
    targets += [other.path(source) for source in ('t', 't.tar')]
    before, again, *after = rights(original, host.path('again'), *targets)
    equal(again, before, 'rights where lists are kept')
    for target, got in zip(targets, after):
        compare(before, got, without_mask(original), target)
        for name in os.listdir(target):
            equal(os.listxattr(os.path.join(target, name)), [], 'attributes of ' + name)
    for target in (volume.path('t'), other.path('t')):
        equal(plain_attributes(target), plain_attributes(original), 'owners, types and times')


@test
def from_ext4():
    both_ways('ext4')


@test
def from_xfs():
    both_ways('xfs')


@test
def archives_with_lists_that_are_not_understood():
    """Who does not know what a list says gives nobody but the owner anything."""
    volume = Volume(size='256M')
    path = volume.dir + '.tar'
    lists = {
        'nonsense': {'SCHILY.acl.access': 'nonsense'},
        'half': {'SCHILY.acl.access': 'user::rw-,user:daemon:rw-,mask'},
        'nfs4': {'SCHILY.acl.ace': 'owner@:rw-p--a-R-c---:-------:allow,everyone@:r-----a-R-c---:-------:allow'},
        'short': {'SCHILY.xattr.system.posix_acl_access': 'abc'},
        'xfs': {'SCHILY.xattr.trusted.SGI_ACL_FILE': '\0\0\0\5'},
        'version': {'SCHILY.xattr.system.posix_acl_access': '\x03\0\0\0'},
        'mask missing': {'SCHILY.acl.access': 'user::rw-,user:daemon:rw-,group::rw-,other::r--'},
    }
    with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as tar:
        for name, headers in lists.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.pax_headers = 0o664, headers
            tar.addfile(entry, io.BytesIO())
        entry = tarfile.TarInfo('without')
        entry.mode = 0o664
        tar.addfile(entry, io.BytesIO())
    imported(path, volume.path('t'))
    for name in lists:
        equal(os.lstat(volume.path('t', name)).st_mode & 0o777, 0o600, name)
    equal(os.lstat(volume.path('t', 'without')).st_mode & 0o777, 0o664, 'a file without a list')


@test
def the_target_s_own_lists():
    """What is made in a directory with a default list does not inherit it, and one that is filled has none any more."""
    host = Loop('ext4')
    os.mkdir(host.path('t'), 0o755)
    for path in ('t/d', 't/d/e'):
        os.mkdir(host.path(path), 0o750)
    for path in ('t/f', 't/d/f', 't/d/e/f'):
        cowtest.write(host.path(path), 'x')
        os.chmod(host.path(path), 0o640)
    os.mkdir(host.path('p'), 0o755)
    run('setfacl', '-m', 'u:3001:rwx,d:u:3001:rwx', host.path('p'))
    os.mkdir(host.path('p/exists'))
    cow('import', '-q', host.path('t'), host.path('p/fresh'))
    cow('import', '-q', host.path('t'), host.path('p/exists'))
    for top in ('p/fresh', 'p/exists'):
        for path, _, names in os.walk(host.path(top)):
            for name in [''] + names:
                equal(os.listxattr(os.path.join(path, name)), [], 'attributes of ' + os.path.join(path, name))
        cowtest.same_tree(host.path('t'), host.path(top))


if __name__ == '__main__':
    cowtest.need_root()
    if subprocess.call(['which', 'setfacl'], stdout=subprocess.DEVNULL) != 0:
        print('1..0 # SKIP no setfacl (package acl)')
    else:
        cowtest.main()
