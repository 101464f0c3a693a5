#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
What is stored through a shared mapping is a part of the file at once, for everybody who asks about its content, though
the kernel may not have written it back: SEEK_DATA and SEEK_HOLE, copy_file_range in both directions, clone, diff, same,
usage, and the programs built on these.  In a plain directory and in a clone, beside XFS; content is compared with what
is in the mapping itself.
"""
import ctypes
import fcntl
import mmap
import os
import random
import signal
import struct
import sys

from cowtest import COW, Control, Failure, Fd, Volume, check, cow, equal, fallocate, fast_clone, fast_remove, main
from cowtest import KEEP_SIZE, PUNCH_HOLE, IOC_SAME, read, run, test, token_of, usage, write

BLOCK, BLOCKS = 4096, 64
SIZE = BLOCK * BLOCKS - 1000
ROUNDS = int(os.environ.get('ROUNDS', '1200'))


class Mapped:
    """A file open for reading and writing, and its mapping; read and asked about through another descriptor."""

    def __init__(self, path):
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        os.ftruncate(self.fd, SIZE)
        self.map = mmap.mmap(self.fd, SIZE)
        self.other = os.open(path, os.O_RDONLY)

    def close(self):
        self.map.close()
        os.close(self.fd)
        os.close(self.other)

    def blocks_with_bytes(self):
        return {i for i in range(BLOCKS) if any(self.map[i * BLOCK:(i + 1) * BLOCK])}


def seek(fd, offset, whence):
    try:
        return os.lseek(fd, offset, whence)
    except OSError as e:
        if e.errno != 6:  # ENXIO: no data any more
            raise
        return None


def segments(fd, start=0):
    """[(from, end)] of data, as a program that copies holes as holes asks for it"""
    found, at = [], start
    while (at := seek(fd, at, os.SEEK_DATA)) is not None:
        end = seek(fd, at, os.SEEK_HOLE)
        check(end is not None and end > at, 'data at %d, and a hole at %s' % (at, end))
        found.append((at, end))
        at = end
    return found


def sparse_copy(fd, size=SIZE):
    content = bytearray(size)
    for at, end in segments(fd):
        content[at:end] = os.pread(fd, end - at, at)
    return bytes(content)


def same_bytes(got, expected, text):
    if got != expected:
        at = next((i for i, (x, y) in enumerate(zip(got, expected)) if x != y), min(len(got), len(expected)))
        raise Failure('%s: differs at byte %d (block %d): %r, in the mapping %r'
                      % (text, at, at // BLOCK, got[at:at + 8], expected[at:at + 8]))


# ------------------------------------------------------------------ one store, one question

def ask_seek(m, rng, _scratch):
    start = rng.randrange(SIZE)
    found = segments(m.other, start)
    for block in m.blocks_with_bytes():
        at = max(block * BLOCK, start)
        if at < min((block + 1) * BLOCK, SIZE):
            check(any(a <= at < b for a, b in found), 'block %d has bytes, but SEEK_DATA from %d tells of %s'
                  % (block, start, found))
    hole = seek(m.other, start, os.SEEK_HOLE)
    check(hole == SIZE or hole // BLOCK not in m.blocks_with_bytes(), 'a hole at %d, where there are bytes' % hole)


def ask_sparse_copy(m, _rng, _scratch):
    same_bytes(sparse_copy(m.other), m.map[:], 'a copy with holes')


def ask_copy_from(m, rng, scratch):
    at = rng.randrange(SIZE)
    length = rng.randrange(1, SIZE - at + 1)
    with Fd(scratch + '/target', os.O_RDWR | os.O_CREAT | os.O_TRUNC) as f:
        done = 0
        while done < length:
            done += os.copy_file_range(m.other, f, length - done, at + done, done)
        same_bytes(os.pread(f, length, 0), m.map[at:at + length], 'a copy of %d bytes from %d' % (length, at))


def ask_copy_to(m, rng, scratch):
    at = rng.randrange(SIZE)
    length = rng.randrange(1, min(SIZE - at, 3 * BLOCK) + 1)
    if rng.random() < 0.5:
        at = at // BLOCK * BLOCK
    data, expected = rng.randbytes(length), bytearray(m.map[:])
    write(scratch + '/source', data)
    expected[at:at + length] = data
    with Fd(scratch + '/source') as f:
        done = 0
        while done < length:
            done += os.copy_file_range(f, m.fd, length - done, done, at + done)
    same_bytes(m.map[:], bytes(expected), 'the mapping, after a copy of %d bytes to %d' % (length, at))
    same_bytes(os.pread(m.other, SIZE, 0), bytes(expected), 'the file, after a copy of %d bytes to %d' % (length, at))


def ask_direct(m, rng, _scratch):
    at, buffer = rng.randrange(BLOCKS) * BLOCK, mmap.mmap(-1, BLOCK)
    with Fd(m.path, os.O_RDONLY | os.O_DIRECT) as f:
        got = os.preadv(f, [buffer], at)
    same_bytes(buffer[:got], m.map[at:at + got], 'a direct read at %d' % at)


def ask_clone(m, _rng, scratch):
    fast_clone(m.path, scratch + '/clone')
    same_bytes(read(scratch + '/clone'), m.map[:], 'a clone')
    with Fd(scratch + '/clone') as f:
        same_bytes(sparse_copy(f), m.map[:], 'a copy with holes of a clone')
    os.unlink(scratch + '/clone')


def is_same(a, b):
    with Fd(a) as f, Fd(b) as g:
        return struct.unpack('QII', fcntl.ioctl(g, IOC_SAME, struct.pack('QII', token_of(f), 0, 0)))[1] == 1


def ask_same(m, rng, scratch):
    fast_clone(m.path, scratch + '/before')
    check(is_same(scratch + '/before', m.path), 'a clone is not the same')
    at = rng.randrange(SIZE)
    m.map[at] ^= 1
    check(not is_same(scratch + '/before', m.path), 'the same, after a store')
    os.unlink(scratch + '/before')


def ask_usage(m, _rng, _scratch):
    total, least = usage(m.path)[3], len(m.blocks_with_bytes()) * BLOCK
    check(total >= least, '%d bytes are used, and %d are not zero' % (total, least))


QUESTIONS = [ask_seek, ask_sparse_copy, ask_copy_from, ask_copy_to, ask_direct]
OF_COWLINKS = [ask_clone, ask_same, ask_usage]


def make_holes(m, rng):
    kind = rng.randrange(4)
    at = rng.randrange(BLOCKS - 1) * BLOCK
    length = rng.randrange(1, BLOCKS - at // BLOCK) * BLOCK
    if kind == 0:
        fallocate(m.fd, KEEP_SIZE | PUNCH_HOLE, at, length)
    elif kind == 1:
        fallocate(m.fd, 0, 0, SIZE)
    elif kind == 2:
        os.ftruncate(m.fd, 0)  # pages of the mapping beyond the end must not be touched meanwhile
        os.ftruncate(m.fd, SIZE)
    else:
        os.fsync(m.fd)


def ask_all(path, scratch, questions, seed):
    rng, m = random.Random(seed), Mapped(path)
    os.mkdir(scratch)
    for n in range(ROUNDS):
        if rng.random() < 0.3:
            make_holes(m, rng)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(SIZE - 16)
            data = rng.randbytes(rng.randrange(1, 16))
            m.map[at:at + len(data)] = data
        question = rng.choice(questions)
        try:
            question(m, rng, scratch)
        except Failure as e:
            raise Failure('round %d of seed %d, %s: %s' % (n, seed, question.__name__, e)) from None
    m.close()


def places():
    """(path of the file, scratch directory, questions) on the control, in a plain directory, and in a clone"""
    volume, control = Volume(size='1G', options='commit=1'), Control(size='1G')
    os.makedirs(volume.path('plain/below'))
    fast_clone(volume.path('plain'), volume.path('clone'))
    yield control, control.path('f'), control.path('scratch'), QUESTIONS
    for name in ('plain', 'clone'):
        yield volume, volume.path(name, 'below/f'), volume.path(name, 'scratch'), QUESTIONS + OF_COWLINKS
    control.close()


@test
def one_store_one_question():
    seed = int(os.environ.get('SEED', random.randrange(1 << 30)))
    for _, path, scratch, questions in places():
        ask_all(path, scratch, questions, seed)


# ------------------------------------------------------------------ a writer that never stops

SLOTS = 256  # one in four bytes of 64: each block has slots, and room between them


def slot_at(i):
    return i * (SIZE // SLOTS) // 8 * 8


def keep_storing(path, acknowledged):
    """Stores growing numbers into random slots, and says so afterwards."""
    rng, number = random.Random(os.getpid()), 0
    with Fd(path, os.O_RDWR) as f:
        # Whole words at once: struct.pack_into() would write zeros first.
        words = (ctypes.c_uint64 * (SIZE // 8)).from_buffer(mmap.mmap(f, SIZE))
        said = (ctypes.c_uint64 * SLOTS).from_buffer(acknowledged)
        while True:
            number += 1
            slot = rng.randrange(SLOTS)
            words[slot_at(slot) // 8] = number
            said[slot] = number


def numbers(content):
    return [struct.unpack_from('Q', content, slot_at(i))[0] for i in range(SLOTS)]


def not_older(content, before, text):
    for i, (got, least) in enumerate(zip(numbers(content), before)):
        if got < least:
            raise Failure('%s: slot %d (byte %d) has number %d, but %d had been stored before'
                          % (text, i, slot_at(i), got, least))


def copy_between_slots(m, rng, scratch):
    """To a place in the file where the writer does not store, but in pages where it does."""
    slot = rng.randrange(SLOTS - 1)
    at, end = slot_at(slot) + 8, slot_at(slot + 1)
    with Fd(scratch + '/source') as f:
        equal(os.copy_file_range(f, m.fd, end - at, 0, at), end - at)


def beside_a_writer(path, scratch, cowlinks, rng):
    m = Mapped(path)
    os.mkdir(scratch)
    write(scratch + '/source', rng.randbytes(BLOCK))
    acknowledged = mmap.mmap(-1, 8 * SLOTS)
    pid = os.fork()
    if pid == 0:
        keep_storing(path, acknowledged)
    try:
        for n in range(ROUNDS // 2):
            if n % 16 == 0:
                os.fsync(m.fd)
            before = struct.unpack('%dQ' % SLOTS, acknowledged[:])
            kind = rng.randrange(4 if cowlinks else 3)
            if kind == 0:
                not_older(sparse_copy(m.other), before, 'a copy with holes')
            elif kind == 1:
                with Fd(scratch + '/target', os.O_RDWR | os.O_CREAT | os.O_TRUNC) as f:
                    equal(os.copy_file_range(m.other, f, SIZE, 0, 0), SIZE)
                    not_older(os.pread(f, SIZE, 0), before, 'copy_file_range')
            elif kind == 2:
                copy_between_slots(m, rng, scratch)
            else:
                fast_clone(path, scratch + '/clone')
                not_older(read(scratch + '/clone'), before, 'a clone')
                os.unlink(scratch + '/clone')
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    # The last store may have been cut off between the two pages.
    last = struct.unpack('%dQ' % SLOTS, acknowledged[:])
    not_older(m.map[:], last, 'the mapping in the end')
    not_older(os.pread(m.other, SIZE, 0), last, 'the file in the end')
    m.close()


@test
def beside_a_writer_that_never_stops():
    rng = random.Random()
    for volume, path, scratch, _ in places():
        try:
            beside_a_writer(path, scratch, isinstance(volume, Volume), rng)
        except Failure as e:
            raise Failure('%s: %s' % (path, e)) from None
        if isinstance(volume, Volume):
            expected = read(path)
            volume.remount()
            same_bytes(read(path), expected, 'after a remount')


# ------------------------------------------------------------------ programs

@test
def a_file_with_stores_is_not_one_hole():
    """Programs ask no further about a file that has no blocks; the kernel may know of it from before."""
    for _, path, scratch, _ in places():
        os.mkdir(scratch)
        for make in (lambda f: os.ftruncate(f, SIZE), lambda f: os.posix_fallocate(f, 0, SIZE)):
            with Fd(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as f:
                make(f)
                os.stat(path)
            with Fd(path, os.O_RDWR) as f, mmap.mmap(f, SIZE) as m:
                m[70000] = 1
                check(os.stat(path).st_blocks > 0, 'no blocks')
                # A store has the time of its write-back, so tar may say that the file changed while it was read.
                run('tar', '-C', os.path.dirname(path), '-cSf', scratch + '/tar', 'f', rc=(0, 1))
                run('tar', '-C', scratch, '-xf', scratch + '/tar')
                same_bytes(read(scratch + '/f'), m[:], 'tar -S')
            check(os.stat(path).st_blocks > 0, 'no blocks after the mapping')


@test
def programs_copy_what_was_stored():
    for volume, path, scratch, _ in places():
        os.mkdir(scratch)
        m = Mapped(path)
        os.posix_fallocate(m.fd, 0, SIZE)
        for at in (0, 70000, SIZE - 1):
            m.map[at] = 1
            expected = m.map[:]
            run('cp', path, scratch + '/cp')
            same_bytes(read(scratch + '/cp'), expected, 'cp')
            run('cp', '-a', '--sparse=always', '--reflink=never', path, scratch + '/cpa')
            same_bytes(read(scratch + '/cpa'), expected, 'cp --sparse=always')
            run('tar', '-C', os.path.dirname(path), '-cSf', scratch + '/tar', 'f')
            run('tar', '-C', scratch, '-xf', scratch + '/tar')
            same_bytes(read(scratch + '/f'), expected, 'tar -S')
            if not isinstance(volume, Volume):
                continue
            cow('export', '-q', path, scratch + '/export%d' % at)
            same_bytes(read(scratch + '/export%d' % at), expected, 'cow export')
            fast_clone(os.path.dirname(path), scratch + '/before')
            m.map[at // 2] = 2
            equal(cow('diff', scratch + '/before', os.path.dirname(path), rc=1).stdout, 'M f\n')
            fast_remove(scratch + '/before')
        m.close()


sys.exit(main())
