# SPDX-License-Identifier: GPL-2.0-or-later
"""
What the daemon is killed under (kill.py): programs and patterns that fsync, each with what it was promised.

A Work has a directory on the volume and notes outside of it.  load() runs in a process of its own until the daemon
dies: it notes what it is about to do (`begin`) and what was acknowledged (`done`).  verify() looks, after the remount,
whether the directory is at a state between the last done and the last begun, and raises Failure if not.
"""
import fcntl
import hashlib
import json
import mmap
import os
import random
import shutil
import sqlite3
import stat
import struct
import subprocess

import cowtest
from cowtest import COW, Failure, Fd, check, equal, fast_clone, fast_remove, sync_volume

RECORD = 100
RECORDS_A_FILE = 3000


def filler(n, size):
    """Bytes that tell which number they were made for."""
    return (hashlib.sha256(b'%d' % n).hexdigest().encode() * (size // 64 + 1))[:size]


def sync_fd(path, function=os.fsync):
    with Fd(path) as fd:
        function(fd)


class Work:
    def __init__(self, name, volume, host):
        self.name, self.top = name, volume.path(name)
        self.notes_path, self.reached, self.acknowledged = os.path.join(host, name + '.notes'), 0, 0
        self.notes_fd = None

    def setup(self):
        os.mkdir(self.top)

    def path(self, *names):
        return os.path.join(self.top, *names)

    def note(self, *words):
        os.write(self.notes_fd, (' '.join(str(w) for w in words) + '\n').encode())

    def run(self, r):
        """In the worker's process: works until something fails, which it should only when the daemon is dead."""
        self.notes_fd = os.open(self.notes_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.load(r)
        except BaseException as e:
            try:
                os.listxattr(self.top)  # asks the daemon
            except OSError:
                return
            self.note('error', repr(e).replace('\n', ' '))

    def take_notes(self):
        """Words of each line noted since the last call."""
        if not os.path.exists(self.notes_path):
            return []
        with open(self.notes_path, encoding='utf-8') as f:
            notes = [line.rstrip('\n').split(' ', 2) for line in f]
        os.unlink(self.notes_path)
        for words in notes:
            if words[0] == 'error':
                raise Failure('%s: %s' % (self.name, ' '.join(words)))
        return notes

    def range(self, notes):
        """(last done, last begun), each at least what was reached in the round before."""
        done = [int(w[1]) for w in notes if w[0] == 'done']
        begun = [int(w[1]) for w in notes if w[0] == 'begin']
        self.acknowledged += len(done)
        return max(done, default=self.reached), max(begun, default=self.reached)

    def settle(self, found, notes):
        low, high = self.range(notes)
        check(low <= found <= high, '%s: is at %d; acknowledged was %d, begun %d' % (self.name, found, low, high))
        self.reached = found


class Records(Work):
    """A log: each record is appended with one write and made durable with fdatasync."""

    def file(self, number):
        return self.path('log%05d' % number)

    @staticmethod
    def record(n):
        return b'%09d ' % n + filler(n, RECORD - 11) + b'\n'

    def cut_tail(self, number, data, n):
        """The kernel sends a write over the end of a page in two parts: one alone may be there of the last, unsynced."""
        tail = data[len(data) - len(data) % RECORD:]
        if tail:
            check(len(data) % 4096 == 0 and self.record(n).startswith(tail) and not os.path.exists(self.file(number + 1)),
                  '%s: %d bytes are no whole records' % (self.file(number), len(data)))
            os.truncate(self.file(number), len(data) - len(tail))

    def load(self, r):
        n, fd, number = self.reached, None, None
        while True:
            n += 1
            if number != n // RECORDS_A_FILE:
                number = n // RECORDS_A_FILE
                fd = os.open(self.file(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            self.note('begin', n)
            os.write(fd, self.record(n))
            os.fdatasync(fd)
            self.note('done', n)

    def verify(self):
        notes, found = self.take_notes(), self.reached
        for number in range(self.reached // RECORDS_A_FILE, len(os.listdir(self.top))):
            data = cowtest.read(self.file(number))
            first = number * RECORDS_A_FILE + (number == 0)
            for i in range(len(data) // RECORD):
                n, record = first + i, data[i * RECORD:(i + 1) * RECORD]
                check(record == self.record(n), 'record %d is %r' % (n, record))
                found = max(found, n)
            self.cut_tail(number, data, found + 1)
        self.settle(found, notes)


class Renames(Work):
    """The careful way to replace a file: a new one, fsync, rename, fsync of the directory."""

    def load(self, r):
        n = self.reached
        while True:
            n += 1
            self.note('begin', n)
            with Fd(self.path('new'), os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
                os.write(fd, b'%08d' % n + filler(n, r.choice((10, 500, 5000, 50000))))
                os.fsync(fd)
            os.rename(self.path('new'), self.path('config'))
            sync_fd(self.top)
            self.note('done', n)

    def verify(self):
        notes = self.take_notes()
        data = cowtest.read(self.path('config')) if os.path.exists(self.path('config')) else b'%08d' % 0 + b'x' * 10
        n = int(data[:8] or b'0')
        check(len(data) - 8 in (10, 500, 5000, 50000), 'config has %d bytes' % len(data))
        check(n == 0 or data[8:] == filler(n, len(data) - 8), 'config of %d is torn' % n)
        self.settle(n, notes)


class Sqlite(Work):
    """
    A database.  SQLite promises a transaction that COMMIT has returned for with synchronous=FULL in WAL mode and with a
    truncated journal; with a deleted journal only with EXTRA, which syncs the directory too.
    """

    def __init__(self, name, volume, host, journal, synchronous):
        super().__init__(name, volume, host)
        self.journal, self.synchronous = journal, synchronous

    def open(self):
        c = sqlite3.connect(self.path('db'), isolation_level=None, timeout=0)
        equal(c.execute('pragma journal_mode=' + self.journal).fetchone()[0], self.journal, 'journal mode')
        c.execute('pragma synchronous=' + self.synchronous)
        c.execute('pragma wal_autocheckpoint=40')
        return c

    def setup(self):
        super().setup()
        c = self.open()
        c.execute('create table t (id integer primary key, n integer, data blob)')
        c.execute('create table state (n integer)')
        c.execute('insert into state values (0)')
        c.close()

    def load(self, r):
        c, n = self.open(), self.reached
        while True:
            n += 1
            rows = [(n * 10 + i, n, filler(n * 10 + i, r.choice((20, 300, 9000)))) for i in range(n % 7 + 1)]
            self.note('begin', n)
            c.execute('begin immediate')
            c.executemany('insert into t values (?, ?, ?)', rows)
            c.execute('delete from t where n < ?', (n - 200,))
            c.execute('update state set n = ?', (n,))
            c.execute('commit')
            os.listxattr(self.top)  # fails if the daemon is dead: SQLite does not mind if it cannot sync the directory
            self.note('done', n)

    def verify(self):
        notes, c = self.take_notes(), self.open()
        equal(c.execute('pragma integrity_check').fetchall(), [('ok',)], self.name + ': integrity_check')
        found = c.execute('select n from state').fetchone()[0]
        self.settle(found, notes)
        rows = {}
        for number, n, data in c.execute('select id, n, data from t'):
            check(data == filler(number, len(data)), '%s: row %d is wrong' % (self.name, number))
            rows[n] = rows.get(n, 0) + 1
        equal(rows, {n: n % 7 + 1 for n in range(max(1, found - 200), found + 1)}, self.name + ': rows by transaction')
        c.close()


class Git(Work):
    """
    Commits.  git syncs what it writes (core.fsync=all) but not the directory after the rename of a branch's new value:
    that is done here before a commit counts as acknowledged.
    """

    SETTINGS = ('core.fsync=all', 'core.fsyncMethod=fsync', 'gc.auto=0', 'user.name=x', 'user.email=x@x',
                'core.looseCompression=1', 'advice.detachedHead=false', 'init.defaultBranch=main')

    def git(self, *argv):
        environment = dict(os.environ, GIT_CONFIG_GLOBAL='/dev/null', GIT_CONFIG_SYSTEM='/dev/null')
        settings = [word for s in self.SETTINGS for word in ('-c', s)]
        p = subprocess.run(['git', '-C', self.top] + settings + list(argv), stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
        text = p.stdout.decode('utf-8', 'replace')
        if p.returncode != 0:
            raise Failure('git %s: %s' % (argv[0], text[-1000:]))
        return text

    def setup(self):
        super().setup()
        self.git('init', '-q')

    def load(self, r):
        n = self.reached
        while True:
            n += 1
            for i in range(r.randrange(1, 6)):
                data = b'%d\n' % n + r.randbytes(r.choice((10, 4000, 60000)))
                cowtest.write(self.path('f%d' % r.randrange(20)), data)
            cowtest.write(self.path('number'), '%d' % n)
            self.note('begin', n)
            self.git('add', '-A')
            self.git('commit', '-q', '-m', '%d' % n)
            sync_fd(self.path('.git/refs/heads'))
            self.note('done', n)
            if n % 25 == 0:
                self.git('repack', '-a', '-d', '-q')

    def verify(self):
        notes = self.take_notes()
        for top, _, files in os.walk(self.path('.git')):
            for name in files:
                if name.endswith('.lock'):  # of a git that was killed: one takes them away by hand
                    os.unlink(os.path.join(top, name))
        text = self.git('fsck', '--full', '--strict')
        bad = [line for line in text.splitlines() if not line.startswith(('dangling', 'notice', 'Checking'))]
        check(not bad, 'git fsck: %s' % bad[:5])
        found = 0
        if os.path.exists(self.path('.git/refs/heads/main')):
            # A work tree file that was not synced may be anything; what is committed may not.
            found = int(self.git('log', '-1', '--format=%s'))
            equal(self.git('show', 'HEAD:number'), '%d' % found, 'the number in the last commit')
            equal(int(self.git('rev-list', '--count', 'HEAD')), found, 'commits')
        self.settle(found, notes)


class Copies(Work):
    """cp -a of a tree, then a sync of everything, by fsync of a directory or by cow sync."""

    def __init__(self, name, volume, host):
        super().__init__(name, volume, host)
        self.source = os.path.join(host, 'source')
        self.want = None

    def setup(self):
        super().setup()
        os.makedirs(self.source + '/a/b')
        for i in range(24):
            place = self.source + ('/', '/a/', '/a/b/')[i % 3]
            cowtest.write(place + 'f%d' % i, filler(i, (0, 40, 700, 5000, 70000)[i % 5]))
        os.link(self.source + '/f0', self.source + '/a/link')
        os.symlink('../f1', self.source + '/a/sym')
        os.setxattr(self.source + '/a', 'user.x', b'y' * 900)
        os.chmod(self.source + '/f3', 0o640)
        self.want = cowtest.snapshot(self.source, times=True)[0]

    def load(self, r):
        n = self.reached
        while True:
            n += 1
            self.note('begin', n)
            subprocess.run(['cp', '-a', self.source, self.path('copy%d' % n)], check=True, stderr=subprocess.DEVNULL)
            if n % 2:
                sync_fd(self.top)
            else:
                subprocess.run([COW, 'sync', self.top], check=True, stderr=subprocess.DEVNULL)
            self.note('done', n)
            for name in os.listdir(self.top):
                if int(name[4:]) <= n - 2:
                    self.note('drop', name[4:])
                    if r.random() < 0.5:
                        shutil.rmtree(self.path(name))
                    else:
                        fast_remove(self.path(name))

    def verify(self):
        notes = self.take_notes()
        self.reached = self.range(notes)[1]
        names = set(os.listdir(self.top))
        kept = {'copy' + w[1] for w in notes if w[0] == 'done'} - {'copy' + w[1] for w in notes if w[0] == 'drop'}
        check(kept <= names, 'acknowledged copies are missing: %s' % sorted(kept - names))
        for name in kept:
            line = cowtest.first_difference(self.want, cowtest.snapshot(self.path(name), times=True)[0])
            check(line is None, '%s is not what was copied: %s' % (name, line))
        for name in names:
            fast_remove(self.path(name))


class Clones(Work):
    """
    Clones of a directory that a second process writes to, by write(2) and through a mapping.  It counts in two files,
    first in one, then in the other: any moment has them equal or one apart.  What an acknowledged clone held when it
    was made is noted; a kill must not change that.
    """

    def setup(self):
        super().setup()
        os.mkdir(self.path('source'))
        for name in 'abm':
            cowtest.write(self.path('source', name), b'%08d' % 0 + bytes(4088 + 100))

    def scribble(self):
        with Fd(self.path('source/a'), os.O_WRONLY) as a, Fd(self.path('source/b'), os.O_WRONLY) as b, \
             Fd(self.path('source/m'), os.O_RDWR) as f:
            m, n = mmap.mmap(f, 4096), 0
            while True:
                n += 1
                os.pwrite(a, b'%08d' % n, 0)
                os.pwrite(b, b'%08d' % n, 0)
                m[:8] = b'%08d' % n

    def values(self, name):
        return [int(cowtest.read(self.path(name, f))[:8]) for f in 'abm']

    def load(self, r):
        for name in 'ab':
            cowtest.write(self.path('source', name), b'%08d' % 0, os.O_WRONLY, 0)
        if os.fork() == 0:
            try:
                self.scribble()
            finally:
                os._exit(0)
        n = self.reached
        while True:
            n += 1
            name = 'clone%d' % n
            how = ('directory', 'volume', 'a', 'b', 'm')[n % 5]
            fast_clone(self.path('source'), self.path(name))
            a, b, m = self.values(name)
            if not b <= a <= b + 1:
                self.note('error', '%s is no moment of its source: %d and %d' % (name, a, b))
            self.note('begin', n)
            if how == 'volume':
                sync_volume(self.top)
            elif how == 'directory':
                sync_fd(self.path(name))
            else:
                sync_fd(self.path(name, how))
            self.note('done', n, json.dumps({'directory': {'a': a, 'b': b, 'm': m}, 'volume': {'a': a, 'b': b, 'm': m},
                                             'a': {'a': a}, 'b': {'b': b}, 'm': {'m': m}}[how]))
            if n > 3 and os.path.exists(self.path('clone%d' % (n - 3))):
                self.note('drop', n - 3)
                fast_remove(self.path('clone%d' % (n - 3)))

    def verify(self):
        notes = self.take_notes()
        self.reached = max(self.reached, self.range(notes)[1]) + 1
        names = set(os.listdir(self.top))
        dropped = {w[1] for w in notes if w[0] == 'drop'}
        for words in notes:
            if words[0] == 'done' and words[1] not in dropped:
                name = 'clone' + words[1]
                check(name in names, '%s was acknowledged and is missing' % name)
                check(cowtest.is_clone(self.path(name)), '%s is no clone' % name)
                for f, value in json.loads(words[2]).items():
                    got = int(cowtest.read(self.path(name, f))[:8] or b'-1')
                    equal(got, value, '%s/%s, in the clone when fsync returned' % (name, f))
        for name in names - {'source'}:
            fast_remove(self.path(name))


class Names(Work):
    """
    Random operations on names, with a mirror of the tree beside the volume.  A sync of anything promises all names as
    they were, so after the kill the tree is the mirror after some number of operations, not fewer than were done at the
    last sync; and a file that was synced and not changed since is the same in content and attributes.
    """

    def __init__(self, name, volume, host):
        super().__init__(name, volume, host)
        self.mirror = os.path.join(host, 'mirror')
        self.plain = False  # no clones, no removed trees
        self.clean = set()  # inode numbers in the mirror of files that are durable as they are

    def setup(self):
        super().setup()
        os.mkdir(self.mirror)

    def choose(self, r, k):
        """One operation on the tree as the mirror has it: (kind, path, other path)"""
        dirs, files = [''], []
        for top, below, names in os.walk(self.mirror):
            relative = os.path.relpath(top, self.mirror)
            relative = '' if relative == '.' else relative + '/'
            dirs += [relative + d + '/' for d in below]
            files += [relative + f for f in names]
        regular = [f for f in files if not os.path.islink(os.path.join(self.mirror, f))]
        new = r.choice(dirs) + 'n%d' % k
        crowded = len(dirs) + len(files) > 60
        kind = r.choices(('create', 'mkdir', 'symlink', 'link', 'rename', 'over', 'exchange', 'unlink', 'remove',
                          'write', 'chmod', 'xattr', 'truncate', 'clone', 'sync', 'sync-dir', 'sync-all', 'sync-gone'),
                         (8, 3, 1, 5, 6, 4, 2, 16 if crowded else 3, 0 if self.plain else 8 if crowded else 1, 10, 2, 2,
                          2, 0 if crowded or self.plain else 2, 8, *((0, 0) if self.plain else (1, 0.5)), 0.5))[0]
        old = r.choice(files) if files else None
        if kind in ('create', 'mkdir', 'symlink', 'sync-all'):
            return kind, new, None
        if kind in ('remove', 'clone', 'sync-dir'):
            chosen = r.choice(dirs[1:]).rstrip('/') if len(dirs) > 1 else None
            return (kind, chosen, new) if chosen and not new.startswith(chosen + '/') else ('create', new, None)
        if kind == 'rename' and r.random() < 0.4 and len(dirs) > 1:
            old = r.choice(dirs[1:]).rstrip('/')
            return ('create', new, None) if new.startswith(old + '/') else (kind, old, new)
        if kind in ('write', 'chmod', 'xattr', 'truncate', 'link', 'sync', 'sync-gone'):
            return (kind, r.choice(regular), new) if regular else ('create', new, None)
        if kind == 'exchange':  # of a file and a directory, as only that shows in the names
            other = r.choice(dirs).rstrip('/')
            return (kind, old, other) if old and other and not old.startswith(other + '/') else ('create', new, None)
        if kind == 'over':
            other = r.choice(files) if files else None
            return (kind, old, other) if old and old != other else ('create', new, None)
        return (kind, old, new) if old else ('create', new, None)

    @staticmethod
    def apply(top, k, kind, path, other):
        """The same on the volume and on the mirror; the syncs are the caller's."""
        path, other = os.path.join(top, path), os.path.join(top, other) if other else None
        if kind == 'create':
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
        elif kind == 'mkdir':
            os.mkdir(path)
        elif kind == 'symlink':
            os.symlink('to%d' % k, path)
        elif kind == 'link':
            os.link(path, other, follow_symlinks=False)
        elif kind in ('rename', 'over'):
            os.rename(path, other)
        elif kind == 'exchange':
            cowtest.renameat2(path, other, cowtest.RENAME_EXCHANGE)
        elif kind in ('unlink', 'sync-gone'):
            os.unlink(path)
        elif kind == 'write':
            with Fd(path, os.O_WRONLY) as fd:
                os.pwrite(fd, b'%d ' % k + filler(k, (30, 600, 9000)[k % 3]), k % 5 * 1000)
        elif kind == 'truncate':
            os.truncate(path, k % 7 * 500)
        elif kind == 'chmod':
            os.chmod(path, 0o600 + k % 64)
        elif kind == 'xattr':
            os.setxattr(path, 'user.k', b'%d' % k)
        elif kind == 'remove':
            fast_remove(path) if top.find('mirror') < 0 else shutil.rmtree(path)
        elif kind == 'clone':
            if top.find('mirror') < 0:
                fast_clone(path, other)
            else:
                subprocess.run(['cp', '-a', path, other], check=True)

    def load(self, r):
        k, self.plain = 0, r.random() < 0.7  # what the intent log cannot say makes the next fsync a commit
        while True:
            k += 1
            kind, path, other = self.choose(r, k + self.reached)
            self.note('op', k, json.dumps((kind, path, other)))
            gone = os.open(self.path(path), os.O_RDONLY) if kind == 'sync-gone' else None
            try:
                self.apply(self.top, k + self.reached, kind, path, other)
            except OSError as e:
                if e.errno != 18:  # EXDEV: what clones do not allow
                    raise
                self.note('refused', k)
                continue
            self.note('done', k)
            self.apply(self.mirror, k + self.reached, kind, path, other)
            if kind == 'sync':
                sync_fd(self.path(path), r.choice((os.fsync, os.fdatasync)))
            elif kind == 'sync-dir':
                sync_fd(self.path(path))
            elif kind == 'sync-all':
                sync_volume(self.top)
            elif kind == 'sync-gone':
                os.fsync(gone)
                os.close(gone)
            if kind.startswith('sync'):
                self.note('synced', k)

    def look(self, top):
        """{path: (type, target, names of the same inode)} and {path: stat}"""
        tree, stats, groups = {}, {}, {}
        for at, below, names in os.walk(top):
            for name in below + names:
                path = os.path.join(at, name)
                relative = os.path.relpath(path, top)
                s = stats[relative] = os.lstat(path)
                kind = stat.S_IFMT(s.st_mode)
                if kind != stat.S_IFDIR:
                    groups.setdefault(s.st_ino, []).append(relative)
                tree[relative] = (kind, os.readlink(path) if kind == stat.S_IFLNK else None, s.st_ino)
        for relative, (kind, target, ino) in tree.items():
            tree[relative] = (kind, target, sorted(groups.get(ino, ())))
        return tree, stats

    @staticmethod
    def whole(path):
        s = os.stat(path)
        return stat.S_IMODE(s.st_mode), cowtest.read(path), cowtest.xattrs(path)

    def find_state(self, base, notes, got):
        """
        The number of the last state that has the names which were found, of those not older than the last sync.  The
        last one, because operations on content leave the names as they are.
        """
        synced = max((int(w[1]) for w in notes if w[0] == 'synced'), default=0)
        scratch, found = base + '-scratch', None
        subprocess.run(['cp', '-a', base, scratch], check=True)
        tree = self.look(scratch)[0]
        if synced == 0 and tree == got:
            found = 0
        for k, kind, path, other in self.operations(notes):
            self.apply(scratch, k + self.reached, kind, path, other)
            if k >= synced:
                tree = self.look(scratch)[0]
                found = k if tree == got else found
        shutil.rmtree(scratch)
        if found is None:
            lost = [(p, tree.get(p), got.get(p)) for p in sorted(set(tree) | set(got)) if tree.get(p) != got.get(p)]
            raise Failure('%s: no state from operation %d on fits; at the last one differ (expected, got): %s\n%s'
                          % (self.name, synced, lost[:6], '\n'.join(' '.join(w) for w in notes[-60:])))
        return found

    @staticmethod
    def operations(notes):
        """Those that were done, and perhaps one that was begun: (number, kind, path, other path)"""
        refused = {w[1] for w in notes if w[0] == 'refused'}
        return [(int(w[1]), *json.loads(w[2])) for w in notes if w[0] == 'op' and w[1] not in refused]

    def replay(self, base, notes, last):
        """Redoes what was noted on `base` up to operation `last`, and follows which files are durable as they are."""
        acknowledged = {int(w[1]) for w in notes if w[0] == 'synced'}
        for k, kind, path, other in self.operations(notes):
            if k > last:
                break
            full = os.path.join(base, path)
            if kind in ('write', 'chmod', 'xattr', 'truncate'):
                self.clean.discard(os.stat(full).st_ino)
            self.apply(base, k + self.reached, kind, path, other)
            if k in acknowledged and kind == 'sync':
                self.clean.add(os.stat(full).st_ino)
            elif k in acknowledged and kind in ('sync-dir', 'sync-all'):
                self.clean |= {s.st_ino for s in self.look(base)[1].values()}

    def verify(self):
        notes = self.take_notes()
        self.acknowledged += sum(w[0] == 'synced' for w in notes)
        for path in list(self.look(self.top)[0]):
            if '.cow-test' in path and os.path.exists(self.path(path)):
                fast_remove(self.path(path))  # of a clone that was not finished: it takes more than one operation
        got = self.look(self.top)[0]
        base = self.mirror + '-base'
        if not os.path.exists(base):
            os.mkdir(base)
        k = self.find_state(base, notes, got)
        self.replay(base, notes, k)
        for relative, s in self.look(base)[1].items():
            if not stat.S_ISREG(s.st_mode):
                continue
            here, there = os.path.join(base, relative), self.path(relative)
            mode, data, xattrs = self.whole(there)
            if s.st_ino in self.clean:
                want = self.whole(here)
                check((mode, data, xattrs) == want, '%s: %s, synced and not changed since, differs (state %d): %s'
                      % (self.name, relative, k, cowtest.brief((mode, len(data), xattrs, data, want))))
            os.chmod(here, mode)
            cowtest.write(here, data)
            for name in set(cowtest.xattrs(here)) - set(xattrs):
                os.removexattr(here, name)
            for name, value in xattrs.items():
                os.setxattr(here, name, value)
        self.reached += k + 1
        shutil.rmtree(self.mirror)
        subprocess.run(['cp', '-a', base, self.mirror], check=True)
        # What a mount finds is durable.
        self.clean = {s.st_ino for s in self.look(base)[1].values()}


def all_works(volume, host):
    return [Records('records', volume, host), Renames('renames', volume, host),
            Sqlite('sqlite-wal', volume, host, 'wal', 'full'), Sqlite('sqlite-delete', volume, host, 'delete', 'extra'),
            Sqlite('sqlite-truncate', volume, host, 'truncate', 'full'), Git('git', volume, host),
            Copies('copies', volume, host), Clones('clones', volume, host), Names('names', volume, host)]
