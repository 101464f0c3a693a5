#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""
kill -9 of the daemon at random moments, under databases, git, cp, clones, logs and renames that all sync: whatever was
acknowledged is there after the remount, and nothing is half made.  The volume goes on from round to round.  The daemon
of the next mount is sometimes killed too, while it recovers.

    ROUNDS=200 SEED=5 test/mount/kill.py        default: 10 rounds and a fresh seed, which is printed
    WORKS=names,git                             only these; default: all in killload.py

This is no power cut: what the daemon had written stays in the host's cache.  Power cuts are test/crash.
"""
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import cowtest
import killload
from cowtest import COW, Failure, Volume, check, cow, test

ROUNDS = int(os.environ.get('ROUNDS', 10))
SEED = os.environ.get('SEED', '%08x' % random.SystemRandom().randrange(1 << 32))
WORKS = os.environ.get('WORKS')


def start(work, round_number):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        work.run(random.Random('%s/%d/%s' % (SEED, round_number, work.name)))
        os._exit(0)
    return pid


def kill_daemon(v):
    """As an administrator would: kill -9, cow umount, which has to do it whatever state the daemon died in."""
    v.daemon.kill()
    p = cow('umount', v.dir, timeout=60)
    check(not cowtest.is_mounted(v.dir), 'still mounted after cow umount')
    v.daemon.wait(20)
    if v in Volume.open_ones:
        Volume.open_ones.remove(v)
    return 'stuck' in p.stderr


def kill_recovery(v, r):
    """The daemon of a mount is killed before, while or soon after it opens the volume."""
    with open(v.log, 'ab') as log:
        v.daemon = subprocess.Popen([COW, 'mount', '-f', v.image, v.dir], stdin=subprocess.DEVNULL, stdout=log,
                                    stderr=log)
    time.sleep(r.random() * r.choice((0.01, 0.1)))
    v.daemon.kill()
    v.daemon.wait(20)
    if cowtest.is_mounted(v.dir):
        cow('umount', v.dir, timeout=60)


def end(pids):
    for pid in pids:
        try:
            os.killpg(pid, signal.SIGKILL)
        except OSError:
            pass
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
        os.waitpid(pid, 0)


def play_round(v, works, number, counts):
    r = random.Random('%s/%d' % (SEED, number))
    v.mount('commit=%d' % r.choice((1, 5, 1000)))
    for work in works:
        try:
            work.verify()
        except Failure as e:
            raise Failure('round %d: %s' % (number, e)) from None
    check(v.alive(), 'the daemon died by itself')
    if number > ROUNDS:
        return
    pids = [start(work, number) for work in works]
    time.sleep(r.uniform(0.2, 2.5))
    counts['stuck'] += kill_daemon(v)
    end(pids)
    v.check()
    if r.random() < 0.3:
        counts['recoveries killed'] += 1
        kill_recovery(v, r)
        v.check()


@test(name='%d rounds of kill -9, seed %s' % (ROUNDS, SEED), timeout=120 + 30 * ROUNDS)
def rounds():
    host = os.path.join(os.environ['COWTEST_DIR'], 'host')
    os.mkdir(host)
    v = Volume(size='8G')
    works = [w for w in killload.all_works(v, host) if not WORKS or w.name in WORKS.split(',')]
    if shutil.which('git') is None:
        print('# git is not installed: left out')
        works = [w for w in works if w.name != 'git']
    counts = {'stuck': 0, 'recoveries killed': 0}
    for work in works:
        work.setup()
    v.umount()
    for number in range(1, ROUNDS + 2):
        play_round(v, works, number, counts)
    print('# acknowledged and found: ' + ', '.join('%s %d' % (w.name, w.acknowledged) for w in works))
    with open(v.log, encoding='utf-8', errors='replace') as log:
        counts['logs replayed'] = log.read().count('was replayed')
    print('# ' + ', '.join('%s %d' % item for item in counts.items()))


if __name__ == '__main__':
    sys.exit(cowtest.main())
