#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
What a change leaves of set-id bits and file capabilities: every way to change a file, by callers with different rights,
on files with different modes, in a plain directory and in a clone, beside XFS, which must leave the same.
"""
import ctypes
import mmap
import os
import stat
import subprocess
import sys
import time
import traceback

from cowtest import COW, Control, Fd, Volume, check, cow, equal, fallocate, fast_clone, main, run, test
from cowtest import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE

libc = ctypes.CDLL(None, use_errno=True)
GROUP, USER = 1000, 1004
SIZE = 65536
CAPABILITY = bytes.fromhex('0100000200040000000000000000000000000000')  # cap_net_bind_service=ep
MODES = (0o6777, 0o2767, 0o6666)  # in the second and third set-group-id means no execution


# ------------------------------------------------------------------ callers: each changes the calling process

def privileged():
    pass


def without_fsetid():
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    check(libc.syscall(125, header, data) == 0, 'capget')
    data[0] &= ~(1 << 4)
    check(libc.syscall(126, header, data) == 0, 'capset')


def root_of_a_user_namespace():
    check(libc.unshare(0x10000000) == 0, 'unshare')
    for name, text in (('setgroups', 'deny'), ('uid_map', '0 0 1'), ('gid_map', '0 0 1')):
        with open('/proc/self/' + name, 'w', encoding='ascii') as f:
            f.write(text)


def become(uid, gid, groups):
    os.setgroups(groups)
    os.setgid(gid)
    os.setuid(uid)


def stranger():
    become(USER, USER, [])


def member():
    become(USER, GROUP, [])


def supplementary_member():
    become(USER, USER, [GROUP + 1, GROUP])


CALLERS = (privileged, without_fsetid, root_of_a_user_namespace, stranger, member, supplementary_member)


# ------------------------------------------------------------------ changes of the file `path`

def on_fd(function, flags=os.O_RDWR):
    def change(path):
        with Fd(path, flags) as f:
            function(f, path)
    return change


def copy_range(fd, path, offset=0):
    with Fd(path + '.source') as source:
        equal(os.copy_file_range(source, fd, 4096, 0, offset), 4096)


def send(fd, path):
    with Fd(path + '.source') as source:
        os.sendfile(fd, source, 0, 4096)


def splice(fd, _path):
    r, w = os.pipe()
    os.write(w, b'a' * 4096)
    os.splice(r, fd, 4096)
    os.close(r)
    os.close(w)


def direct(_fd, path):
    with Fd(path, os.O_RDWR | os.O_DIRECT) as f:
        os.pwritev(f, [mmap.mmap(-1, 4096)], 0)


def store(fd, _path):
    with mmap.mmap(fd, 4096) as m:
        m[0] = 1
        m.flush()


CHANGES = {
    'write': on_fd(lambda f, p: os.pwrite(f, b'x', 0)),
    'write twice': on_fd(lambda f, p: (os.pwrite(f, b'x', 0), os.pwrite(f, b'x', 1))),
    'append': on_fd(lambda f, p: os.write(f, b'x'), os.O_WRONLY | os.O_APPEND),
    'large write': on_fd(lambda f, p: os.pwrite(f, bytes(1 << 20), 0)),
    'direct write': on_fd(direct),
    'store to a mapping': on_fd(store),
    'truncate down': lambda p: os.truncate(p, 10),
    'truncate up': lambda p: os.truncate(p, 1 << 20),
    'ftruncate': on_fd(lambda f, p: os.ftruncate(f, 100)),
    'O_TRUNC': on_fd(lambda f, p: None, os.O_WRONLY | os.O_TRUNC),
    'O_CREAT | O_TRUNC': on_fd(lambda f, p: None, os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    'fallocate': on_fd(lambda f, p: fallocate(f, 0, 0, 2 * SIZE)),
    'fallocate KEEP_SIZE': on_fd(lambda f, p: fallocate(f, KEEP_SIZE, 0, 2 * SIZE)),
    'fallocate PUNCH_HOLE': on_fd(lambda f, p: fallocate(f, KEEP_SIZE | PUNCH_HOLE, 0, SIZE)),
    'fallocate ZERO_RANGE': on_fd(lambda f, p: fallocate(f, ZERO_RANGE, 0, SIZE)),
    'copy_file_range': on_fd(copy_range),
    'copy_file_range, unaligned': on_fd(lambda f, p: copy_range(f, p, 100)),
    'sendfile': on_fd(send),
    'splice': on_fd(splice),
    'open for writing': on_fd(lambda f, p: None),
    'nothing': lambda p: None,
}
# Only the owner may: these are for root.
CHANGES_OF_OWNER = {
    'chown': lambda p: os.chown(p, USER, -1),
    'chgrp': lambda p: os.chown(p, -1, USER),
    'chown to the same': lambda p: os.chown(p, 0, GROUP),
}


def prepare(path, mode):
    for name in (path, path + '.source'):
        with Fd(name, os.O_WRONLY | os.O_CREAT, 0o644) as f:
            os.write(f, b'd' * SIZE)
    os.chown(path, 0, GROUP)
    os.chmod(path, mode)
    os.setxattr(path, 'security.capability', CAPABILITY)


def outcome(path, caller, change):
    """(errno or 0, mode, capabilities left, size) after the change"""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            caller()
            change(path)
            code = 0
        except OSError as e:
            code = e.errno
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    s = os.stat(path)
    return code, oct(stat.S_IMODE(s.st_mode)), 'security.capability' in os.listxattr(path), s.st_size


def cases():
    for caller in CALLERS:
        changes = dict(CHANGES, **CHANGES_OF_OWNER) if caller in (privileged, without_fsetid) else CHANGES
        for name, change in changes.items():
            for mode in MODES:
                yield caller, name, change, mode


@test
def a_change_leaves_what_it_leaves_on_the_control():
    volume, control = Volume(size='1G', options='allow_other'), Control(size='1G')
    os.chmod(os.environ['COWTEST_DIR'], 0o755)
    os.mkdir(volume.path('plain'))
    all_cases, wrong, cleared = list(cases()), [], 0
    for top in (control.dir, volume.path('plain')):
        os.chmod(top, 0o755)
        for i, (_, _, _, mode) in enumerate(all_cases):
            prepare('%s/f%d' % (top, i), mode)
    fast_clone(volume.path('plain'), volume.path('clone'))
    for i, (caller, name, change, mode) in enumerate(all_cases):
        expected, plain, clone = (outcome('%s/f%d' % (top, i), caller, change)
                                  for top in (control.dir, volume.path('plain'), volume.path('clone')))
        cleared += expected[1] != oct(mode)
        if expected[0] or not expected == plain == clone:
            wrong.append('%s, %s, mode %04o: control %s, plain %s, clone %s'
                         % (caller.__name__, name, mode, expected, plain, clone))
    check(not wrong, '%d of %d differ or fail:\n%s' % (len(wrong), len(all_cases), '\n'.join(wrong[:40])))
    check(len(all_cases) / 4 < cleared < len(all_cases), '%d of %d lost bits' % (cleared, len(all_cases)))
    control.close()


def in_a_process_name_space(top):
    """As its first process, which still sees the processes of the outer one in /proc."""
    daemon = subprocess.Popen([COW, 'mount', '-f', '-o', 'allow_other', top + '/img', top + '/vol'])
    while not os.path.ismount(top + '/vol'):
        check(daemon.poll() is None, 'no mount')
        time.sleep(0.01)
    os.chmod(top + '/vol', 0o755)
    for i in range(100):  # outside, processes with these numbers are threads of the kernel
        path = '%s/vol/f%d' % (top, i)
        prepare(path, 0o6777)
        equal(outcome(path, stranger, CHANGES['fallocate'])[:2], (0, '0o777'))
    run('umount', top + '/vol')
    daemon.wait(20)


@test
def a_daemon_that_sees_the_processes_of_another_name_space():
    """It must not take a caller's number for that of some process with all rights."""
    top = os.environ['COWTEST_DIR']
    os.chmod(top, 0o755)
    os.mkdir(top + '/vol')
    cow('format', top + '/img', '--size', '64M')
    pid = os.fork()
    if pid == 0:
        check(libc.unshare(0x20000000) == 0, 'unshare')
        first, code = os.fork(), 1
        if first:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]))
        try:
            in_a_process_name_space(top)
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)


sys.exit(main())
