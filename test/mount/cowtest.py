# SPDX-License-Identifier: GPL-2.0-or-later
"""
What the mount tests share: volumes that are formatted, mounted, killed and checked, the ioctls, and a small TAP runner.

Every test runs in a process of its own with a directory of its own, so that a daemon that hangs (its callers then
cannot be interrupted) is killed from outside and nothing stays mounted.  A Volume that a test leaves behind is
unmounted and must pass `cow check`: that is part of every test.

Environment: COW is the program under test (build/cow), TMPDIR where images and mount points are made, KEEP=1 keeps
them after a failure, VERBOSE=1 prints what the daemon said.
"""
import ast
import ctypes
import errno
import fcntl
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COW = os.path.abspath(os.environ.get('COW', os.path.join(ROOT, 'build', 'cow')))


class Failure(AssertionError):
    """A test's expectation that did not hold."""


def check(condition, text='expectation failed'):
    if not condition:
        raise Failure(text)


def equal(got, want, text='value'):
    if got != want:
        raise Failure('%s: got %r, expected %r' % (text, got, want))


def raises(code, function, *args, **named):
    """Runs the function, which must fail with one of the errno values in `code`."""
    codes = code if isinstance(code, (tuple, set, list)) else (code,)
    try:
        function(*args, **named)
    except OSError as e:
        if e.errno in codes:
            return e
        raise Failure('%s%r: got %s, expected %s' % (function.__name__, args, errno.errorcode.get(e.errno, e.errno),
                                                     '/'.join(errno.errorcode[c] for c in codes))) from e
    raise Failure('%s%r succeeded, expected %s' % (function.__name__, args,
                                                   '/'.join(errno.errorcode[c] for c in codes)))


def run(*argv, rc=0, text=True, timeout=120, **named):
    """Runs a program; its exit status must be `rc` (a number, a tuple, or None for any)."""
    named.setdefault('stdin', subprocess.DEVNULL)
    p = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                       **named)
    if text:
        p.stdout, p.stderr = (s.decode('utf-8', 'surrogateescape') for s in (p.stdout, p.stderr))
    codes = rc if isinstance(rc, tuple) else (rc,)
    if rc is not None and p.returncode not in codes:
        raise Failure('%s: exit status %d, expected %s\nstdout: %s\nstderr: %s'
                      % (' '.join(map(str, argv)), p.returncode, rc, p.stdout[-2000:], p.stderr[-2000:]))
    return p


def cow(*argv, **named):
    return run(COW, *argv, **named)


# ------------------------------------------------------------------ ioctls (include/cow_ioctl.h)

def _ioc(direction, number, size):
    return direction << 30 | size << 16 | ord('w') << 8 | number


IOC_TOKEN = _ioc(2, 1, 8)
IOC_CLONE = _ioc(1, 12, 16)
IOC_REMOVE = _ioc(1, 13, 264)
IOC_USAGE = _ioc(3, 4, 48)
IOC_SAME = _ioc(3, 7, 16)
IOC_SYNC = _ioc(1, 8, 8)
IOC_STAT = _ioc(2, 10, 104)
CLONE_READ_ONLY = 1

_libc = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2


def renameat2(old, new, flags):
    if _libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), old)


def fallocate(fd, mode, offset, length):
    if _libc.fallocate(fd, ctypes.c_int(mode), ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16


class Fd:
    """An open descriptor for a `with` block."""

    def __init__(self, path, flags=os.O_RDONLY, mode=0o666):
        self.fd = os.open(path, flags, mode)

    def __enter__(self):
        return self.fd

    def __exit__(self, *unused):
        os.close(self.fd)


def token_of(fd):
    return struct.unpack('Q', fcntl.ioctl(fd, IOC_TOKEN, bytes(8)))[0]


def fast_clone(source, target, read_only=False):
    """What `cow clone` does, without the cost of a process."""
    with Fd(source, os.O_RDONLY | os.O_NOFOLLOW) as s:
        token = token_of(s)
        temporary = os.path.join(os.path.dirname(target), '.cow-clone-%016x' % token)
        if stat.S_ISDIR(os.fstat(s).st_mode):
            os.mkdir(temporary, 0o700)
        else:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with Fd(os.path.dirname(target)) as p:
            fcntl.ioctl(p, IOC_CLONE, struct.pack('QII', token, CLONE_READ_ONLY if read_only else 0, 0))
        renameat2(temporary, target, RENAME_NOREPLACE)
    except OSError:
        try:
            fast_remove(temporary)
        except OSError:
            pass
        raise


def fast_remove(path):
    """What `cow rm` does."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    with Fd(os.path.dirname(path)) as p:
        token = token_of(p)
        try:
            os.rmdir(path)
        except OSError as e:
            if e.errno != errno.ENOTEMPTY:
                raise
            fcntl.ioctl(p, IOC_REMOVE, struct.pack('Q256s', token, os.fsencode(os.path.basename(path))))


def usage(path, exclusive=False):
    """(files, directories, apparent bytes, total bytes, exclusive bytes) below a directory or of a file"""
    with Fd(path) as f:
        return struct.unpack('<IIQQQQQ', fcntl.ioctl(f, IOC_USAGE, struct.pack('<I44x', exclusive)))[2:]


def is_clone(path):
    with Fd(path) as f:
        return bool(struct.unpack('<QQQ8I', fcntl.ioctl(f, IOC_STAT, bytes(104))[:56])[8])


def sync_volume(path, drain=False):
    with Fd(path) as f:
        fcntl.ioctl(f, IOC_SYNC, struct.pack('<II', drain, 0))


# ------------------------------------------------------------------ volumes

def mounts_below(top):
    """Mount points at or below `top`, the innermost first."""
    found = []
    with open('/proc/self/mountinfo', encoding='utf-8', errors='surrogateescape') as f:
        for line in f:
            point = line.split()[4].encode('latin-1', 'surrogateescape').decode('unicode_escape')
            if point == top or point.startswith(top + '/'):
                found.append(point)
    return sorted(found, key=len, reverse=True)


def is_mounted(path):
    """Also for a dead mount, which os.path.ismount() does not see."""
    return path in mounts_below(path)


def processes_naming(text):
    """Process ids whose command line holds `text` (daemons of a test's own directory)."""
    found = []
    for name in os.listdir('/proc'):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open('/proc/%s/cmdline' % name, 'rb') as f:
                    argv = f.read()
            except OSError:
                continue
            if os.fsencode(text) in argv and b'mount' in argv:
                found.append(int(name))
    return found


class Volume:
    """An image and its mount point, below the test's own directory."""

    open_ones = []

    def __init__(self, name='vol', size='4G', options=None, top=None):
        top = top or os.environ['COWTEST_DIR']
        self.image = os.path.join(top, name + '.img')
        self.dir = os.path.join(top, name)
        self.log = os.path.join(top, name + '.log')
        self.options = options
        self.daemon = None
        os.makedirs(self.dir, exist_ok=True)
        if size is not None:
            cow('format', self.image, '--size', size)
            self.mount()

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def mount(self, options=None):
        options = options or self.options
        argv = [COW, 'mount', '-f', self.image, self.dir] + (['-o', options] if options else [])
        with open(self.log, 'ab') as log:
            self.daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 20
        while not os.path.ismount(self.dir):
            if self.daemon.poll() is not None or time.monotonic() > end:
                raise Failure('mount failed: %s' % self.said())
            time.sleep(0.002)
        Volume.open_ones.append(self)

    def said(self):
        with open(self.log, encoding='utf-8', errors='replace') as f:
            return f.read()[-3000:]

    def alive(self):
        return self.daemon is not None and self.daemon.poll() is None

    def umount(self):
        Volume.open_ones.remove(self)
        if not self.alive():
            code = self.daemon.returncode
            self.forget()
            raise Failure('the daemon died (status %s): %s' % (code, self.said()))
        # A descriptor that was just closed by another thread may be released late: a busy answer is not final.
        for attempt in range(20):
            p = run('umount', self.dir, rc=None)
            if p.returncode == 0:
                break
            time.sleep(0.05)
        else:
            raise Failure('umount: %s' % p.stderr)
        try:
            self.daemon.wait(60)
        except subprocess.TimeoutExpired:
            raise Failure('the daemon still serves 60 s after umount; does another mount namespace, made meanwhile, '
                          'hold the mount?') from None
        if self.daemon.returncode != 0:
            raise Failure('the daemon ended with status %d: %s' % (self.daemon.returncode, self.said()))
        self.daemon = None

    def kill(self):
        """kill -9: everything since the last commit is lost"""
        Volume.open_ones.remove(self)
        self.daemon.kill()
        try:
            self.daemon.wait(5)
        except subprocess.TimeoutExpired:
            # One of its threads waits in the kernel for pages to be written back, which nobody answers any more: the
            # file system has to be aborted, as an administrator would.
            print('# the killed daemon needed umount -f')
            run('umount', '-f', self.dir, rc=None)
            self.daemon.wait(20)
        self.forget()

    def forget(self):
        run('umount', '-l', self.dir, rc=None)
        self.daemon = None

    def remount(self, options=None):
        self.umount()
        self.mount(options)

    def check(self):
        """The image, not mounted, must be without findings."""
        p = cow('check', self.image, rc=None, timeout=600)
        if p.returncode != 0:
            raise Failure('cow check %s:\n%s%s' % (self.image, p.stdout[-3000:], p.stderr[-3000:]))

    def close(self):
        self.umount()
        self.check()

    def info(self):
        """statvfs, in bytes: (free, available)"""
        s = os.statvfs(self.dir)
        return s.f_bfree * s.f_frsize, s.f_bavail * s.f_frsize


class Loop:
    """A file system of the kernel in an image on a loop device, mounted below the test's own directory."""

    def __init__(self, kind, size='300M', name=None, top=None):
        self.dir = os.path.join(top or os.environ['COWTEST_DIR'], name or kind)
        image = self.dir + '.img'
        os.makedirs(self.dir, exist_ok=True)
        run('truncate', '-s', size, image)
        run(*{'ext4': ('mkfs.ext4', '-q', '-F'), 'xfs': ('mkfs.xfs', '-q')}[kind], image)
        run('mount', '-o', 'loop', image, self.dir)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def fresh(self, name):
        path = os.path.join(self.dir, name)
        run('rm', '-rf', path)
        os.mkdir(path, 0o755)
        return path

    def close(self):
        run('umount', '-l', self.dir, rc=None)


class Control(Loop):
    """The control file system: XFS, or where that is missing ext4."""

    def __init__(self, top=None, size='2G'):
        kind = 'xfs' if run('mkfs.xfs', '-V', rc=None).returncode == 0 else 'ext4'
        super().__init__(kind, size, 'control', top)


# ------------------------------------------------------------------ users

def as_user(uid, function, *args, gid=None, groups=()):
    """What the function returns (repr() must say it) in a process of that user; an exception there is a failure."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups(groups)
            os.setresgid(*[uid if gid is None else gid] * 3)
            os.setresuid(uid, uid, uid)
            with os.fdopen(into, 'w') as f:
                f.write(repr(function(*args)))
            code = 0
        except BaseException:
            traceback.print_exc()
            sys.stdout.flush()
        finally:
            os._exit(code)
    os.close(into)
    with os.fdopen(out) as f:
        text = f.read()
    check(os.waitpid(pid, 0)[1] == 0, 'uid %d failed in %s' % (uid, function.__name__))
    return ast.literal_eval(text)


# ------------------------------------------------------------------ trees

def write(path, data, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC, offset=None):
    data = data.encode() if isinstance(data, str) else data
    with Fd(path, flags) as f:
        while data:
            n = os.write(f, data) if offset is None else os.pwrite(f, data, offset)
            offset = None if offset is None else offset + n
            data = data[n:]


def read(path):
    with open(path, 'rb', buffering=0) as f:
        return f.readall()


def xattrs(path):
    return {name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False) if not name.startswith('security.')}


def snapshot(top, content=True, times=False):
    """
    {relative path: (type and mode, owner, size or target or device, content, xattrs, link count, first path of its
    link group)}: what two trees must agree in.  Also returns {path: inode number}.
    """
    tree, numbers, group = {}, {}, {}

    def visit(path, relative):
        s = os.lstat(path)
        kind = stat.S_IFMT(s.st_mode)
        numbers[relative] = s.st_ino
        value, links, first = None, None, None
        if kind == stat.S_IFREG:
            value = read(path) if content else s.st_size
        elif kind == stat.S_IFLNK:
            value = os.readlink(path)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            value = s.st_rdev
        if kind != stat.S_IFDIR:
            links = s.st_nlink
            first = group.setdefault((s.st_dev, s.st_ino), relative)
        attributes = xattrs(path)
        tree[relative] = (oct(s.st_mode), s.st_uid, s.st_gid, s.st_size if kind == stat.S_IFREG else None, value,
                          attributes, links, first) + ((s.st_mtime_ns,) if times else ())
        if kind == stat.S_IFDIR:
            for name in sorted(os.listdir(path)):
                visit(path + '/' + name, relative + '/' + name if relative else name)

    visit(top, '')
    return tree, numbers


FIELDS = ('mode', 'uid', 'gid', 'size', 'content', 'xattrs', 'link count', 'link group', 'mtime')


def brief(value):
    text = repr(value)
    return text if len(text) < 200 else text[:90] + ' ... ' + text[-90:]


def first_difference(a, b):
    """One line about where two snapshots differ, or None."""
    for path in sorted(set(a) | set(b)):
        if path not in a or path not in b:
            return '%s: only on the %s side' % (path or '.', 'second' if path in b else 'first')
        if a[path] != b[path]:
            for name, x, y in zip(FIELDS, a[path], b[path]):
                if x != y:
                    where = ''
                    if isinstance(x, bytes) and isinstance(y, bytes):
                        at = next((i for i, (p, q) in enumerate(zip(x, y)) if p != q), min(len(x), len(y)))
                        where = ' (first at byte %d)' % at
                        x, y = x[at:at + 40], y[at:at + 40]
                    return '%s: %s differs%s: %s and %s' % (path or '.', name, where, brief(x), brief(y))
    return None


def same_tree(a, b, text='trees', **named):
    # The tops are compared too, but for owner and times of the mount's root, where there is one.
    line = first_difference(snapshot(a, **named)[0], snapshot(b, **named)[0])
    if line:
        raise Failure('%s: %s and %s: %s' % (text, a, b, line))


def distinct_numbers(top):
    """
    No inode number twice below `top`, but for the names of one hard-linked file: as many names as st_nlink says at
    most, and all with the same content.  Returns {relative path: number}.
    """
    tree, numbers = snapshot(top)
    seen = {}
    for path, number in numbers.items():
        other = seen.setdefault(number, path)
        if other != path:
            check(tree[path][6] is not None and tree[path] == tree[other],
                  'inode number %d twice: %s and %s' % (number, other, path))
    names = {}
    for path, number in numbers.items():
        names[number] = names.get(number, 0) + 1
    for path, number in numbers.items():
        if tree[path][6] is not None:
            check(names[number] == tree[path][6], '%s: st_nlink %d, but %d names' % (path, tree[path][6],
                                                                                     names[number]))
    return numbers


# ------------------------------------------------------------------ the runner

TESTS = []


def test(function=None, timeout=120, name=None):
    def add(f):
        TESTS.append((name or f.__name__, f, timeout))
        return f
    return add(function) if function else add


def cleanup(top):
    for pid in processes_naming(top + '/'):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    for point in mounts_below(top):
        # Forced first: a daemon that is stuck in the kernel, and its callers, come out of it only so.
        run('umount', '-f', point, rc=None)
        run('umount', '-l', point, rc=None)


def _child(function, top):
    os.environ['COWTEST_DIR'] = top
    output = os.open(os.path.join(top, 'output'), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 1
    try:
        function()
        for volume in list(Volume.open_ones):
            volume.close()
        code = 0
    except Failure as e:
        print('# ' + str(e).replace('\n', '\n# '))
        tb = traceback.extract_tb(e.__traceback__)
        print('# at ' + ', '.join('%s:%d' % (os.path.basename(f.filename), f.lineno) for f in tb
                                  if f.filename != __file__))
    except BaseException:
        print('# ' + traceback.format_exc().replace('\n', '\n# '))
    if code:
        for volume in Volume.open_ones:
            if not volume.alive():
                print('# the daemon of %s is dead' % volume.dir)
            text = volume.said().strip()
            if text:
                print('# daemon: ' + text.replace('\n', '\n# daemon: '))
    sys.stdout.flush()
    os._exit(code)


def temporary_top():
    # Links resolved, as mount tables hold real paths.
    return os.path.realpath(tempfile.mkdtemp(prefix='cowtest-'))


def discard(top):
    cleanup(top)
    if not mounts_below(top):
        shutil.rmtree(top, ignore_errors=True)


def need_root():
    if os.geteuid() != 0:
        print('1..0 # SKIP needs root')
        sys.exit(0)
    if not os.access(COW, os.X_OK):
        print('Bail out! no program %s (set COW)' % COW)
        sys.exit(1)


def start(function, timeout):
    """Forks a process for the test; what it prints is shown when it ends."""
    top = temporary_top()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _child(function, top)
    return pid, top, time.monotonic(), timeout


def ended(job):
    """None while it runs, then whether it passed in time.  A hanging daemon is killed, so that its callers end."""
    pid, top, began, timeout = job
    done, status = os.waitpid(pid, os.WNOHANG)
    late = not done and time.monotonic() > began + timeout
    if late:
        cleanup(top)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    elif not done:
        return None
    with open(os.path.join(top, 'output'), encoding='utf-8', errors='replace') as f:
        sys.stdout.write(f.read())
    if late:
        print('# no end after %d s: killed' % timeout)
    return not late and status == 0


def run_all(tests, jobs):
    """Runs (name, function, timeout) in `jobs` processes at a time; returns how many failed."""
    print('1..%d' % len(tests))
    waiting, going, failed, number = list(tests), {}, 0, 0
    while waiting or going:
        while waiting and len(going) < jobs:
            name, function, timeout = waiting.pop(0)
            job = start(function, timeout)
            going[job] = name
        time.sleep(0.005)
        for job, name in list(going.items()):
            good = ended(job)
            if good is None:
                continue
            del going[job]
            number += 1
            failed += not good
            print('%s %d - %s # %.1f s' % ('ok' if good else 'not ok', number, name, time.monotonic() - job[2]))
            if good or not os.environ.get('KEEP'):
                discard(job[1])
            else:
                cleanup(job[1])
                print('# kept: ' + job[1])
            sys.stdout.flush()
    return failed


def main(jobs=2):
    """Runs all tests of the file, or those whose names contain one of the arguments."""
    need_root()
    os.umask(0o022)
    wanted = [t for t in TESTS if len(sys.argv) < 2 or any(a in t[0] for a in sys.argv[1:])]
    failed = run_all(wanted, int(os.environ.get('JOBS', jobs)))
    print('# %s: %d tests, %d failed' % (os.path.basename(sys.argv[0]), len(wanted), failed))
    sys.exit(1 if failed else 0)
