#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
What must not write does not write: clone and remove, by the command and by the bare ioctls, through views of the volume
that are read-only and from programs that are confined.  The control does the like with mkdir, cp and rm on XFS.
"""
import ctypes
import errno
import fcntl
import os
import stat
import struct
import sys
import time
import traceback

import cowtest
from cowtest import COW, Control, Failure, Fd, Volume, check, equal, run, same_tree, snapshot, test, token_of

libc = ctypes.CDLL(None, use_errno=True)
OLD_CLONE, OLD_REMOVE = cowtest._ioc(1, 2, 272), cowtest._ioc(1, 3, 256)
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000


def called(result):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def mount(source, target, flags):
    called(libc.mount(os.fsencode(source) if source else None, os.fsencode(target), None, ctypes.c_ulong(flags), None))


def unshare(flags):
    uid, gid = os.getuid(), os.getgid()
    called(libc.unshare(flags))
    if flags & CLONE_NEWUSER:
        for name, text in (('setgroups', 'deny'), ('uid_map', '0 %d 1' % uid), ('gid_map', '0 %d 1' % gid)):
            with open('/proc/self/' + name, 'w', encoding='ascii') as f:
                f.write(text)
    mount(None, '/', MS_REC | MS_PRIVATE)


def in_child(function):
    """Runs it in a process of its own: None, or what it raised."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            function()
            text = ''
        except BaseException as e:
            text = '%s: %s, at line %d' % (type(e).__name__, e, traceback.extract_tb(e.__traceback__)[-2].lineno)
        os.write(write_end, text.encode()[:4000])
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, 'rb') as f:
        text = f.read().decode()
    status = os.waitpid(pid, 0)[1]
    return text or (None if status == 0 else 'status %d' % status)


# ------------------------------------------------------------------ views: each confines the calling process

def read_only_bind(path):
    unshare(CLONE_NEWNS)
    mount(path, path, MS_BIND)
    mount(None, path, MS_BIND | MS_REMOUNT | MS_RDONLY)


def read_only_bind_of_user_namespace(path):
    unshare(CLONE_NEWNS | CLONE_NEWUSER)
    mount(path, path, MS_BIND | MS_REC)
    # What the mount has of these is locked for a user name space: it has to be said again.
    have = os.statvfs(path).f_flag
    run('mount', '-o', 'remount,bind,ro' + (',nosuid,nodev,noatime' if have & os.ST_NOSUID else ''), path)


def landlock(path):
    """May read all, and make and remove nothing below `path`."""
    handled = 0x1ff0  # of the first version: remove and make, of any type
    ruleset = called(libc.syscall(444, ctypes.byref(ctypes.c_uint64(handled)), ctypes.c_size_t(8), 0))
    called(libc.prctl(38, 1, 0, 0, 0))
    called(libc.syscall(446, ruleset, 0))


VIEWS = [read_only_bind, read_only_bind_of_user_namespace, landlock]


# ------------------------------------------------------------------ attempts: each must fail

def refused(function):
    try:
        function()
    except OSError as e:
        if e.errno in (errno.EROFS, errno.EPERM, errno.EACCES, errno.ENOENT, errno.ESTALE):
            return
        raise
    raise Failure('it was allowed')


def command(*argv):
    p = run(COW, *argv, rc=None)
    check(p.returncode == 1, '%s: exit status %d' % (argv, p.returncode))
    check(len(p.stderr.strip().splitlines()) == 1, '%s said: %s' % (argv, p.stderr))


def old_ioctls(top):
    with Fd(top) as d, Fd(top + '/tree') as s:
        refused(lambda: fcntl.ioctl(d, OLD_REMOVE, struct.pack('256s', b'tree')))
        refused(lambda: fcntl.ioctl(d, OLD_CLONE, struct.pack('QII256s', token_of(s), 0, 0, b'empty')))


def clone_onto(top, name):
    """An existing empty directory has no token in its name."""
    with Fd(top) as d, Fd(top + '/tree') as s:
        token = token_of(s)
        refused(lambda: os.rename(top + '/' + name, top + '/.cow-clone-%016x' % token))
        refused(lambda: os.mkdir(top + '/.cow-clone-%016x' % token))
        refused(lambda: fcntl.ioctl(d, cowtest.IOC_CLONE, struct.pack('QII', token, 0, 0)))


def remove_unproved(top):
    with Fd(top) as d:
        request = struct.pack('Q256s', token_of(d), b'tree')
        refused(lambda: fcntl.ioctl(d, cowtest.IOC_REMOVE, request))


def remove_refused(top):
    """rmdir(2) fails, but not with the answer that is the proof."""
    with Fd(top) as d:
        token = token_of(d)
        refused(lambda: os.rmdir(top + '/tree'))
        refused(lambda: fcntl.ioctl(d, cowtest.IOC_REMOVE, struct.pack('Q256s', token, b'tree')))


def attempts(top):
    old_ioctls(top)
    clone_onto(top, 'empty')
    remove_unproved(top)
    remove_refused(top)
    command('rm', top + '/tree')
    command('rm', top + '/file')
    command('rm', top + '/empty')
    command('clone', top + '/tree', top + '/copy')
    command('clone', top + '/file', top + '/copy')


def attempts_of_control(top):
    refused(lambda: os.rmdir(top + '/empty'))
    refused(lambda: os.unlink(top + '/file'))
    refused(lambda: os.mkdir(top + '/copy'))
    run('rm', '-rf', top + '/tree', rc=None)
    run('cp', '-a', '--reflink=auto', top + '/tree', top + '/copy', rc=1)


def fill(top):
    os.makedirs(top + '/tree/a/b')
    os.mkdir(top + '/empty')
    for name in ('file', 'tree/f', 'tree/a/f', 'tree/a/b/f'):
        cowtest.write(top + '/' + name, name)
    os.chmod(top, 0o777)


def through(view, top, function):
    def confined():
        view(top)
        function(top)
    before = snapshot(top)
    text = in_child(confined)
    check(text is None, '%s: %s' % (view.__name__, text))
    check(snapshot(top) == before, '%s: something was changed' % view.__name__)


@test
def nothing_is_written_through_a_view():
    volume, control = Volume(size='256M'), Control()
    os.mkdir(volume.path('top'))
    fill(volume.path('top'))
    fill(control.fresh('top'))
    for view in VIEWS:
        through(view, control.path('top'), attempts_of_control)
        through(view, volume.path('top'), attempts)
    same_tree(volume.path('top'), control.path('top'))
    control.close()


@test
def nothing_is_written_after_a_remount():
    volume, control = Volume(size='256M'), Control()
    for top in (volume.dir, control.dir):
        fill(top)
        mount(None, top, MS_REMOUNT | MS_RDONLY)
    for top, function in ((control.dir, attempts_of_control), (volume.dir, attempts)):
        before = snapshot(top)
        text = in_child(lambda: function(top))
        check(text is None, '%s: %s' % (top, text))
        check(snapshot(top) == before, 'something was changed')
    mount(None, volume.dir, MS_REMOUNT)
    run(COW, 'rm', volume.path('tree'))
    control.close()


@test
def an_ordinary_user_in_a_view_of_his_own_mount():
    """He is trusted by the daemon: only the view keeps him from writing."""
    top = os.environ['COWTEST_DIR']
    os.chmod(top, 0o755)
    run('install', '-m', '755', COW, top + '/cow')
    run('install', '-d', '-o', '65534', '-g', '65534', top + '/his')
    os.mknod(top + '/fuse', stat.S_IFCHR | 0o666, os.makedev(10, 229))
    os.chmod(top + '/fuse', 0o666)
    script = '''
        set -e
        cd "$1"; cow=$1/../cow; v=$1/mnt; mkdir "$v"
        "$cow" format his.img --size 64M; "$cow" mount his.img "$v"
        mkdir -p "$v/tree/a"; echo kept >"$v/tree/a/f"; mkdir "$v/empty"
        unshare -rm sh -ec '
            mount --bind "$1" "$1"; mount -o remount,ro,bind,nosuid,nodev,noatime "$1"
            if "$2" rm "$1/tree" 2>/dev/null; then exit 3; fi
            if "$2" clone "$1/tree" "$1/copy" 2>/dev/null; then exit 4; fi
            if rmdir "$1/empty" 2>/dev/null; then exit 5; fi
        ' sh "$v" "$cow"
        [ "$(cat "$v/tree/a/f")" = kept ]; [ ! -e "$v/copy" ]
        "$cow" clone "$v/tree" "$v/copy"; "$cow" rm "$v/tree"; [ "$(cat "$v/copy/a/f")" = kept ]; [ ! -e "$v/tree" ]
        "$cow" umount "$v"
    '''
    p = run('unshare', '-m', 'sh', '-c', 'mount --bind "$1/fuse" /dev/fuse; shift; exec "$@"', 'sh', top, 'setpriv',
            '--reuid=65534', '--regid=65534', '--clear-groups', 'sh', '-c', script, 'sh', top + '/his', rc=None)
    check(p.returncode == 0, 'status %d: %s%s' % (p.returncode, p.stdout, p.stderr))


# ------------------------------------------------------------------ the proof of a removal is the caller's own

def prove(top):
    try:
        os.rmdir(top + '/tree')
    except OSError as e:
        equal(e.errno, errno.ENOTEMPTY)
        return
    raise Failure('the tree is not empty, but was removed')


def remove(top, token):
    with Fd(top) as d:
        fcntl.ioctl(d, cowtest.IOC_REMOVE, struct.pack('Q256s', token, b'tree'))


def issue(top):
    with Fd(top) as d:
        return token_of(d)


@test
def a_removal_needs_the_callers_own_proof():
    volume = Volume(size='64M')
    top = volume.dir
    fill(top)
    prove(top)  # before there was a token
    refused(lambda: remove(top, issue(top)))
    token = issue(top)
    equal(in_child(lambda: prove(top)), None)  # somebody else's innocent rmdir
    refused(lambda: remove(top, token))
    token = issue(top)
    prove(top)
    os.rename(top + '/tree', top + '/other')  # the proof is of one tree
    os.makedirs(top + '/tree/new')
    refused(lambda: remove(top, token))
    token = issue(top)
    prove(top)
    with Fd(top + '/other') as d:  # and of one directory
        refused(lambda: fcntl.ioctl(d, cowtest.IOC_REMOVE, struct.pack('Q256s', token, b'a')))
    token = issue(top)
    prove(top)
    remove(top, token)
    refused(lambda: remove(top, token))  # it is used up
    equal(sorted(os.listdir(top)), ['empty', 'file', 'other'])


@test
def a_thread_with_the_number_of_a_dead_one_is_another():
    volume = Volume(size='64M')
    top = volume.dir
    fill(top)
    notes = os.environ['COWTEST_DIR'] + '/notes'

    def ask():
        cowtest.write(notes, '%d %d' % (os.getpid(), issue(top)))

    equal(in_child(ask), None)
    pid, token = map(int, cowtest.read(notes).split())
    time.sleep(0.05)  # more than the grain of the time at which a process began
    for _ in range(200):
        with open('/proc/sys/kernel/ns_last_pid', 'w', encoding='ascii') as f:
            f.write(str(pid - 1))
        equal(in_child(lambda: (cowtest.write(notes, str(os.getpid())), prove(top))), None)
        if int(cowtest.read(notes)) == pid:
            break
    else:
        raise Failure('no process got the number %d' % pid)
    refused(lambda: remove(top, token))
    check(os.path.exists(top + '/tree/a/b/f'), 'the tree is gone')


@test
def a_token_is_good_for_its_user_only():
    volume = Volume(size='64M', options='allow_other')
    top = volume.dir
    os.chmod(os.environ['COWTEST_DIR'], 0o755)
    fill(top)
    with Fd(top + '/tree') as s:
        token = token_of(s)
    os.mkdir(top + '/.cow-clone-%016x' % token)

    def another():
        os.setgid(65534)
        os.setuid(65534)
        with Fd(top) as d:
            refused(lambda: token_of(d))
            refused(lambda: fcntl.ioctl(d, cowtest.IOC_CLONE, struct.pack('QII', token, 0, 0)))
    equal(in_child(another), None)
    with Fd(top) as d:
        fcntl.ioctl(d, cowtest.IOC_CLONE, struct.pack('QII', token, 0, 0))
    same_tree(top + '/tree', top + '/.cow-clone-%016x' % token)


if libc.syscall(444, None, ctypes.c_size_t(0), 1) < 0:
    print('# Landlock is not there: %s; that view is left out' % os.strerror(ctypes.get_errno()))
    VIEWS.remove(landlock)
sys.exit(cowtest.main())
