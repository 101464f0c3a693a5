#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Others work in the directory that import, export and the copying form of clone write to.  They plant links under names
that were just made, take names away, and make files of their own: nothing outside of the target changes, nothing of
theirs is lost, and what fails leaves nothing.  The others are processes of another user that wait for names to appear.
"""
import ctypes
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import cowtest
from cowtest import COW, Loop, Volume, as_user, check, cow, equal, run, same_tree, test, write

NOBODY, ALICE = 65534, 3001
IN_MOVED_TO, IN_CREATE = 0x80, 0x100
libc = ctypes.CDLL(None, use_errno=True)


def program():
    """The command where every user may run it."""
    path = os.path.join(os.environ['COWTEST_DIR'], 'cow')
    shutil.copy(COW, path)
    os.chmod(path, 0o755)
    return path


def mounted(name='vol'):
    volume = Volume(name, '512M', options='allow_other')
    for path in (volume.dir, os.environ['COWTEST_DIR']):
        os.chmod(path, 0o755)
    return volume


def control(kind, *size):
    host = Loop(kind, *size)
    os.chmod(os.environ['COWTEST_DIR'], 0o755)
    return host


def directory(path, owner=NOBODY, mode=0o755):
    os.mkdir(path)
    os.chown(path, owner, owner)
    os.chmod(path, mode)
    return path


class Other:
    """
    A process of user nobody that does `act(name, watch)` for every name that appears in its working directory, or in
    another one after `watch(path)`.
    """

    def __init__(self, where, act):
        out, into = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setgroups(())
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
                os.chdir(where)
                fd = libc.inotify_init()

                def watch(path):
                    libc.inotify_add_watch(fd, os.fsencode(path), IN_CREATE | IN_MOVED_TO)
                watch('.')
                os.write(into, b'.')
                self.loop(fd, act, watch)
            finally:
                os._exit(1)
        os.close(into)
        check(os.read(out, 1) == b'.', 'the other does not start')
        os.close(out)

    @staticmethod
    def loop(fd, act, watch):
        while True:
            events, at = os.read(fd, 65536), 0
            while at < len(events):
                length = int.from_bytes(events[at + 12:at + 16], sys.byteorder)
                name = events[at + 16:at + 16 + length].rstrip(b'\0')
                at += 16 + length
                try:
                    act(os.fsdecode(name), watch)
                except OSError:
                    pass

    def stop(self):
        os.kill(self.pid, signal.SIGKILL) # it may have ended itself
        os.waitpid(self.pid, 0)


def secret_file():
    path = os.path.join(os.environ['COWTEST_DIR'], 'secret')
    write(path, 'secret')
    os.chmod(path, 0o600)
    return path


def state(path):
    s = os.lstat(path)
    return s.st_mode, s.st_uid, s.st_gid, s.st_size, s.st_mtime_ns, s.st_nlink, os.listxattr(path), cowtest.read(path)


def special_source(path, count):
    """All that is made without a descriptor, and some more; everybody may do everything with it."""
    os.mkdir(path)
    for i in range(count):
        os.mkfifo('%s/p%d' % (path, i))
        os.mknod('%s/p%d-null' % (path, i), 0o020666, os.makedev(1, 3))
        os.mkdir('%s/p%d-dir' % (path, i))
        write('%s/p%d-file' % (path, i), 'x')
    for name in os.listdir(path):
        os.chmod('%s/%s' % (path, name), 0o777)
        os.chown('%s/%s' % (path, name), NOBODY, NOBODY)
    return path


def swap_for(target):
    """Puts a link to `target` in the place of whatever appears."""
    def act(name, _):
        if name[0] == 'p':
            os.symlink(target, '.link')
            os.rename('.link', name)
    return act


def steal_for(target, kind):
    """
    Takes the directory away in which all is made, and puts a link or a directory of its own in its place.  If something
    is made in that, it says so by a file `leaked`.
    """
    def act(name, watch):
        if name.startswith('.cow-') and not name.endswith('-stolen'):
            os.rename(name, name + '-stolen')
            if kind == 'link':
                os.symlink(target, name)
            else:
                os.mkdir(name)
                os.chmod(name, 0o777)
                watch(name)
        elif name[0] == 't':
            write('leaked', name)
    return act


def import_among(others, into, rounds, count):
    """Imports some things into a directory of nobody's while it acts there."""
    source = special_source(os.path.join(os.environ['COWTEST_DIR'], 'source'), count)
    secret = secret_file()
    before = state(secret)
    empty = os.path.join(os.environ['COWTEST_DIR'], 'empty')
    os.mkdir(empty, 0o700)
    for number in range(rounds):
        for kind, act in enumerate(others(secret, empty)):
            target = directory(into('t%d-%d' % (number, kind)))
            other = Other(target, act)
            p = cow('import', '-q', source, target, rc=None)
            other.stop()
            equal(state(secret), before, 'a file that is none of the import')
            equal(os.listdir(empty), [], 'a directory that is none of the import')
            check(p.returncode in (0, 1), 'exit status %d' % p.returncode)
            check(p.returncode == 0 or p.stderr, 'fails without a word')
            for name in os.listdir(target):
                path = os.path.join(target, name)
                check(name != 'leaked', 'something was made in a directory of the other')
                check(not name.startswith('.cow-') or os.path.islink(path) or os.listdir(path) == [],
                      '%s is left, and not empty' % name)


@test
def links_planted_in_an_import():
    import_among(lambda secret, empty: [swap_for(secret)], mounted().path, 3, 150)


@test
def links_planted_in_an_import_on_a_host():
    import_among(lambda secret, empty: [swap_for(secret)], control('ext4').path, 3, 150)


@test
def the_fresh_directory_stolen():
    import_among(lambda secret, empty: [steal_for(empty, 'link'), steal_for(empty, 'directory')], mounted().path, 40, 1)


@test
def a_link_planted_as_the_target_of_a_copying_clone():
    """Alice clones what is root's into a directory of everybody's."""
    program_, volume = program(), mounted()
    write(volume.path('roots'), 'new content')
    private = directory(volume.path('alice'), ALICE, 0o700)
    precious = os.path.join(private, 'precious')
    write(precious, 'precious')
    os.chown(precious, ALICE, ALICE)
    before = state(precious)
    for number in range(10):
        shared = directory(volume.path('shared%d' % number), mode=0o777)

        def act(name, _):
            if name.startswith('.cow-'):
                os.symlink(precious, 'copy')
        other = Other(shared, act)
        command = [program_, 'clone', volume.path('roots'), os.path.join(shared, 'copy')]
        p = run(*command, rc=None, user=ALICE, group=ALICE, extra_groups=[])
        time.sleep(0.02)
        other.stop()
        equal(state(precious), before, "Alice's other file")
        left = set(os.listdir(shared)) - {'copy'}
        equal(left, set(), 'what is left')
        if p.returncode == 0: # it was faster
            equal(cowtest.read(os.path.join(shared, 'copy')), b'new content')
        else:
            check('File exists' in p.stderr, p.stderr)


# ------------------------------------------------------------------ failing

def archive():
    """Names a, b/..., c; returns the bytes, and how many of them end inside c."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w') as tar:
        for name, size in (('a', 100), ('b', None), ('b/x', 1000), ('b/y', 10), ('c', 3000000), ('z', 10)):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.uid, entry.gid = (0o755 if size is None else 0o644), NOBODY, NOBODY
            entry.type = tarfile.DIRTYPE if size is None else tarfile.REGTYPE
            entry.size = size or 0
            tar.addfile(entry, io.BytesIO(b'x' * (size or 0)))
    return out.getvalue(), 2000000


def something_in(path):
    names = os.listdir(path)
    return names and (not names[0].startswith('.cow-') or os.listdir(os.path.join(path, names[0])))


def make_mine(target, names):
    for name in names:
        write(os.path.join(target, name), 'mine')
    return True


def import_beside(where, target, mine, whole):
    """
    Imports the archive to `target`; when half of it is there, somebody makes files `mine` in `where`.  With `whole` the
    other half comes, too.  Returns what the import did.
    """
    data, half = archive()
    p = subprocess.Popen([COW, 'import', '-q', '-', target], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdin.write(data[:half])
    p.stdin.flush()
    end = time.monotonic() + 20
    while not something_in(where):
        check(p.poll() is None and time.monotonic() < end, 'the import does not begin')
        time.sleep(0.01)
    as_user(NOBODY, make_mine, where, mine)
    if whole:
        p.stdin.write(data[half:])
    p.stdin.close()
    said = p.stderr.read().decode()
    p.wait(60)
    check(p.returncode == 0 or len(said.splitlines()) == 1, 'says %r' % said)
    return p.returncode, said


def others_names(path):
    s = os.stat(path)
    return s.st_mode, s.st_uid, {name: cowtest.read(os.path.join(path, name)) for name in os.listdir(path)}


def failing(make):
    mine = {'mine': b'mine', 'z': b'mine'}
    # cut off, in a directory that exists, and beside a name
    target = directory(make('cut'))
    status, said = import_beside(target, target, sorted(mine), whole=False)
    equal((status, others_names(target)), (1, (0o040755, NOBODY, mine)), 'after an archive that was cut off')
    where = directory(make('beside'))
    status, said = import_beside(where, os.path.join(where, 'z'), sorted(mine), whole=False)
    equal((status, others_names(where)), (1, (0o040755, NOBODY, mine)), 'beside the target')
    # a name that somebody else has taken: of one in it, and its own
    target = directory(make('conflict'))
    status, said = import_beside(target, target, sorted(mine), whole=True)
    equal((status, others_names(target)), (1, (0o040755, NOBODY, mine)), 'after a conflict')
    check('/z: File exists' in said, said)
    where = directory(make('taken'))
    status, said = import_beside(where, os.path.join(where, 'z'), sorted(mine), whole=True)
    equal((status, others_names(where)), (1, (0o040755, NOBODY, mine)), 'after the name was taken')
    check('/z: File exists' in said, said)
    # no conflict: both are there
    target = directory(make('both'))
    equal(import_beside(target, target, ['mine'], whole=True)[0], 0, 'exit status')
    equal(sorted(os.listdir(target)), ['a', 'b', 'c', 'mine', 'z'])
    equal(sorted(os.listdir(os.path.join(target, 'b'))), ['x', 'y'])
    equal(cowtest.read(os.path.join(target, 'mine')), b'mine')


@test
def an_import_that_fails_on_a_mount():
    failing(mounted().path)


@test
def an_import_that_fails_on_a_host():
    failing(control('xfs').path)


@test
def an_archive_that_cannot_be_written():
    """Somebody puts a file of his own in the place of the archive, which then does not fit."""
    volume, host = mounted(), control('ext4', '8M')
    write(volume.path('big'), os.urandom(20000000))
    where = directory(host.path('d'))

    def act(name, _):
        if name == 'out.tar' or name.startswith('.cow-'):
            write('.mine', 'mine')
            os.rename('.mine', 'out.tar')
            os.kill(os.getpid(), signal.SIGKILL)
    other = Other(where, act)
    p = cow('export', '-q', volume.path('big'), os.path.join(where, 'out.tar'), rc=1)
    other.stop()
    check('rite error' in p.stderr or 'No space' in p.stderr, p.stderr)
    equal({n: cowtest.read(os.path.join(where, n)) for n in os.listdir(where)}, {'out.tar': b'mine'})


# ------------------------------------------------------------------ the copying form of clone

def mixed_tree(volume):
    """A tree of nobody's with files of root's in it, which only cp can clone for nobody."""
    top = directory(volume.path('mixed'))
    for i in range(300):
        write(os.path.join(top, 'f%d' % i), 'content %d' % i)
    os.mkdir(os.path.join(top, 'd'))
    write(os.path.join(top, 'd/inside'), 'inside')
    os.link(os.path.join(top, 'f1'), os.path.join(top, 'd/linked'))
    os.symlink('../f1', os.path.join(top, 'd/relative'))
    os.symlink('nowhere', os.path.join(top, 'dangling'))
    os.chmod(os.path.join(top, 'd'), 0o555)
    return top


def as_nobody(*argv, **named):
    return run(*argv, user=NOBODY, group=NOBODY, extra_groups=[], **named)


@test
def a_copying_clone_is_what_cp_makes():
    program_, volume = program(), mounted()
    top, own = mixed_tree(volume), directory(volume.path('own'))
    as_nobody('cp', '-a', top, own + '/cp')
    for source in (top, top + '/', volume.path('own/link') + '/'):
        if source.endswith('link/'):
            os.symlink('../mixed', source[:-1])
        as_nobody(program_, 'clone', source, own + '/clone')
        same_tree(own + '/cp', own + '/clone')
        run('rm', '-rf', own + '/clone')
    as_nobody(program_, 'clone', top + '/f7', own + '/file')
    check(not os.path.islink(own + '/file'), 'a link instead of a file')
    equal(cowtest.read(own + '/file'), b'content 7')
    equal(sorted(os.listdir(own)), ['cp', 'file', 'link'])


def begun(where):
    """Something is in the fresh directory, which may go away at any time."""
    try:
        return any(os.listdir(os.path.join(where, name)) for name in os.listdir(where))
    except FileNotFoundError:
        return False


@test
def a_copying_clone_is_whole_or_nothing():
    program_, volume = program(), mounted()
    top, own = mixed_tree(volume), directory(volume.path('own'))
    os.chmod(top + '/f99', 0o600)
    p = as_nobody(program_, 'clone', top, own + '/clone', rc=1)
    check("'./f99'" in p.stderr and 'Permission denied' in p.stderr, p.stderr)
    equal(os.listdir(own), [], 'what is left')
    os.chmod(top + '/f99', 0o644)
    for number, to_group in ((signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, False)):
        for _ in range(20): # until the signal comes while it copies
            command = [program_, 'clone', top, own + '/clone']
            p = subprocess.Popen(command, user=NOBODY, group=NOBODY, extra_groups=[], start_new_session=True,
                                 stderr=subprocess.PIPE)
            while p.poll() is None and not begun(own):
                time.sleep(0.001)
            try:
                (os.killpg if to_group else os.kill)(p.pid, number)
            except ProcessLookupError:
                pass
            said = p.stderr.read().decode()
            status = p.wait(60)
            if status != 0:
                break
            run('rm', '-rf', own + '/clone')
        check(status == 1 and 'interrupted' in said, 'status %d, says %r' % (status, said))
        equal(os.listdir(own), [], 'what is left after signal %d' % number)


# ------------------------------------------------------------------ who is not root

@test
def directories_that_are_read_only():
    """Who is not root may move what he has made, too, and take it away."""
    program_, volume = program(), mounted()
    top = os.environ['COWTEST_DIR']
    source = directory(os.path.join(top, 'source'))
    for i in range(3):
        write(source + '/f%d' % i, 'x')
        directory(source + '/d%d' % i)
        write(source + '/d%d/f' % i, 'x')
    for where in (volume.dir, control('ext4').dir):
        run('chmod', '-R', 'u+w', source)
        run('chown', '-R', '%d:%d' % (NOBODY, NOBODY), source)
        own = directory(os.path.join(where, 'own'))
        for path in (source, source + '/d0', source + '/d1'):
            os.chmod(path, 0o555)
        for name in ('exists', 'fresh'):
            if name == 'exists':
                directory(own + '/' + name)
            as_nobody(program_, 'import', '-q', source, own + '/' + name)
            same_tree(source, own + '/' + name)
        os.chmod(source + '/f2', 0)
        os.chown(source + '/f2', 0, 0)
        directory(own + '/again')
        for name in ('again', 'never'):
            as_nobody(program_, 'import', '-q', source, own + '/' + name, rc=1)
        equal(sorted(os.listdir(own)), ['again', 'exists', 'fresh'])
        equal(os.listdir(own + '/again'), [])
        os.chmod(source + '/f2', 0o644)


@test
def a_link_to_an_empty_directory():
    """What is named is filled, not what a link leads to: whoever may write beside it could have put it there."""
    volume = mounted()
    source = os.path.join(os.environ['COWTEST_DIR'], 'source')
    os.mkdir(source, 0o777)
    empty = directory(volume.path('empty'), 0, 0o700)
    os.symlink('empty', volume.path('link'))
    p = cow('import', '-q', source, volume.path('link'), rc=1)
    check('symbolic link' in p.stderr, p.stderr)
    equal(os.stat(empty).st_mode & 0o777, 0o700)
    cow('import', '-q', source, volume.path('link/.'))
    equal(os.stat(empty).st_mode & 0o777, os.stat(source).st_mode & 0o777)


if __name__ == '__main__':
    cowtest.main()
