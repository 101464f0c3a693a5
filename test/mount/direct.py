#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
Once a direct write has completed, a buffered read sees it: by pwrite(2), by libaio's system calls and by io_uring, with
readers that fill the page cache all the time; in a plain directory and in a clone, beside XFS.
"""
import ctypes
import mmap
import os
import random
import signal
import struct
import sys
import time

from cowtest import Control, Volume, check, equal, fast_clone, main, test

libc = ctypes.CDLL(None, use_errno=True)
BYTES, BLOCK, READERS = 64 << 10, 4096, 2
SECONDS = float(os.environ.get('SECONDS_EACH', '2.5'))


def called(*args):
    result = libc.syscall(*args)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def address(memory):
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


class Plain:
    name = 'pwrite'

    def __init__(self, fd, memory):
        self.fd, self.memory = fd, memory

    def write(self, offset, length):
        equal(os.pwrite(self.fd, memoryview(self.memory)[:length], offset), length)


class Aio:
    """io_submit(2) and io_getevents(2), which libaio wraps"""
    name = 'libaio'

    def __init__(self, fd, memory):
        self.context = ctypes.c_ulong(0)
        self.fd, self.at = fd, address(memory)
        called(206, 4, ctypes.byref(self.context))

    def write(self, offset, length):
        # struct iocb: data, key and flags, opcode (1: pwrite), priority, fd, buffer, bytes, offset, reserved, flags, event fd
        block = ctypes.create_string_buffer(struct.pack('<QIIHhIQQqQII', 0, 0, 0, 1, 0, self.fd, self.at, length, offset,
                                                        0, 0, 0), 64)
        blocks = (ctypes.c_void_p * 1)(ctypes.addressof(block))
        events = ctypes.create_string_buffer(32)
        equal(called(209, self.context, ctypes.c_long(1), blocks), 1)
        equal(called(208, self.context, ctypes.c_long(1), ctypes.c_long(1), events, None), 1)
        equal(struct.unpack('<QQqq', events.raw)[2], length)


class Uring:
    """One request at a time through the rings."""
    name = 'io_uring'

    def __init__(self, fd, memory):
        self.fd, self.at = fd, address(memory)
        parameters = ctypes.create_string_buffer(120)
        self.ring = called(425, 4, parameters)
        p = struct.unpack('<30I', parameters.raw)
        self.sq, self.cq = p[10:20], p[20:30]  # offsets: head, tail, mask, entries, then what differs
        self.rings = mmap.mmap(self.ring, max(self.sq[6] + p[0] * 4, self.cq[5] + p[1] * 16), offset=0)
        self.entries = mmap.mmap(self.ring, p[0] * 64, offset=0x10000000)

    def word(self, offset, value=None):
        if value is not None:
            struct.pack_into('<I', self.rings, offset, value)
        return struct.unpack_from('<I', self.rings, offset)[0]

    def write(self, offset, length):
        tail, head = self.word(self.sq[1]), self.word(self.cq[0])
        index = tail & self.word(self.sq[2])
        # struct io_uring_sqe: opcode (23: write), flags, priority, fd, offset, address, length, the rest
        struct.pack_into('<BBHiQQI28x', self.entries, index * 64, 23, 0, 0, self.fd, offset, self.at, length)
        self.word(self.sq[6] + index * 4, index)
        self.word(self.sq[1], tail + 1)
        equal(called(426, self.ring, 1, 1, 1, None, ctypes.c_size_t(0)), 1)
        at = self.cq[5] + (head & self.word(self.cq[2])) * 16
        result = struct.unpack_from('<i', self.rings, at + 8)[0]
        self.word(self.cq[0], head + 1)
        equal(result, length)


def read_all_the_time(path):
    fd = os.open(path, os.O_RDONLY)
    while True:
        os.pread(fd, BYTES, 0)


def keep_writing(path, kind):
    """Writes and reads until the time is over: (rounds, rounds in which the read was old)"""
    memory = mmap.mmap(-1, BYTES)
    direct, buffered = os.open(path, os.O_RDWR | os.O_DIRECT), os.open(path, os.O_RDONLY)
    writer = kind(direct, memory)
    rng, rounds, stale, end = random.Random(1), 0, 0, time.monotonic() + SECONDS
    while time.monotonic() < end:
        rounds += 1
        offset = rng.randrange(BYTES // BLOCK) * BLOCK
        length = rng.randrange(1, (BYTES - offset) // BLOCK + 1) * BLOCK
        memory[:length] = struct.pack('<Q', rounds) * (length // 8)
        writer.write(offset, length)
        stale += os.pread(buffered, length, offset) != memory[:length]
    os.close(direct)
    os.close(buffered)
    return rounds, stale


def beside_readers(path, kind):
    with open(path, 'wb') as f:
        f.write(bytes(BYTES))
    readers = []
    for _ in range(READERS):
        pid = os.fork()
        if pid == 0:
            read_all_the_time(path)
        readers.append(pid)
    try:
        rounds, stale = keep_writing(path, kind)
    finally:
        for pid in readers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    print('# %s on %s: %d old of %d' % (kind.name, path, stale, rounds))
    check(rounds > 10, 'only %d rounds' % rounds)
    check(stale == 0, '%s: %d of %d reads were old after the write had completed' % (kind.name, stale, rounds))


def of(kind):
    def beside():
        volume, control = Volume(size='256M'), Control(size='512M')
        os.mkdir(volume.path('plain'))
        fast_clone(volume.path('plain'), volume.path('clone'))
        for path in (control.path('f'), volume.path('plain/f'), volume.path('clone/f')):
            beside_readers(path, kind)
        control.close()
    return beside


for each in (Plain, Aio, Uring):
    test(of(each), name='a_buffered_read_after_a_direct_write_by_' + each.name)

sys.exit(main(jobs=1))
