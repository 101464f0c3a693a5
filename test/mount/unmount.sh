#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What lies in the way of a mount and of an unmount: dead mounts, other mount namespaces, other files in the place of the
# image.  Whether the image is closed is asked by its lock, at once when `cow umount` has returned.
# shellcheck source=test/mount/lib.sh disable=SC2154,SC2016,SC2317
user_mounts=1
. "$(dirname "$0")/lib.sh"

v=$top/vol image=$top/vol.img
chmod 755 "$top"
install -m 755 "$COW" "$top/cow"
mount --bind "$top" "$top"
mount --make-private "$top"

# scene FUNCTION: on a new volume, whatever the one before has left
scene() {
	local m i p
	for i in "$image" "$top/other.img" "$top/own/i.img" "$top/a/i.img"; do
		[ ! -f "$i" ] || for p in $(holder "$i"); do kill -9 "$p" 2>/dev/null || true; done
	done
	awk -v t="$top/" 'index($5, t) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r m; do umount -l "$m"; done
	rm -rf "$image" "$top/other.img" "$top/own"
	make_image vol 1G >/dev/null
	mkdir -p "$top/aside"
	"$@"
}

# holder IMAGE: the process that has it locked
holder() {
	awk -v inode="$(stat -c %i "$1")" '$2 == "FLOCK" && $6 ~ ":" inode "$" {print $5}' /proc/locks
}

closed() {
	flock -n -s "$1" true
}

mounts() {
	grep -cF " $1 " /proc/self/mountinfo || true
}

die() { # IMAGE: kill -9 of its daemon
	kill -9 "$(holder "$1")"
	flock -s -w 20 "$1" true
}

# The image is mounted on $v by way of another directory, so on top of whatever is there.
stack() {
	"$COW" mount "$image" "$top/aside" -o commit=600
	mount --bind "$top/aside" "$v"
	umount "$top/aside"
}

says() { # STATUS PATTERN COMMAND...: that exit status, and one line on stderr
	local status=$1 pattern=$2 got=0
	shift 2
	timeout 60 "$@" >"$top/out" 2>"$top/err" || got=$?
	[ $got = "$status" ] && [ "$(wc -l <"$top/err")" = 1 ] && grep -q -- "$pattern" "$top/err" ||
		fail "$*: status $got: $(cat "$top/err")"
}

# What takes its time to be committed.
fill() {
	dd if=/dev/urandom of="$1/big" bs=1M count=150 status=none
}

on_dead() { # COUNT
	for _ in $(seq "$1"); do
		stack
		die "$image"
	done
	stack
	fill "$v"
	"$COW" umount "$v"
	closed "$image" || fail "cow umount returned and the image is open"
	check_image vol
	[ "$(mounts "$v")" = "$1" ]
	for _ in $(seq "$1"); do timeout 60 "$COW" umount "$v/"; done
	says 1 "is not mounted" "$COW" umount "$v"
}

over_dead() {
	stack
	touch "$v/f"
	"$COW" sync "$v"
	stat "$v" >/dev/null # now the kernel knows its attributes for long
	die "$image"
	stack
	die "$image"
	"$COW" mount "$image" "$v" -o commit=600 2>"$top/err"
	[ "$(grep -c "was dead: detached" "$top/err")" = 2 ] && [ "$(wc -l <"$top/err")" = 2 ] || fail "$(cat "$top/err")"
	[ "$(mounts "$v")" = 1 ]
	[ -e "$v/f" ]
	fill "$v"
	"$COW" umount "$v"
	closed "$image" || fail "cow umount returned and the image is open"
	# In use: its users have it on, and who comes gets the new one.
	mount_image vol
	exec 8<"$v"
	die "$image"
	says 0 "was dead: detached" "$COW" mount "$image" "$v"
	exec 8<&-
	ls "$v" >/dev/null
	umount_image vol
}

# What lives is left alone: also something else may be mounted there.
over_live() {
	make_image other >/dev/null
	mount_image vol
	touch "$v/f"
	"$COW" mount "$top/other.img" "$v"
	[ "$(mounts "$v")" = 2 ]
	"$COW" umount "$v"
	[ -e "$v/f" ]
	says 1 "mounted already, on $v" "$COW" mount "$image" "$v"
	umount_image vol
	mount -t tmpfs tmpfs "$v"
	mount_image vol
	umount_image vol
	umount "$v"
}

elsewhere_dead() {
	mount_image vol
	die "$image"
	exec 8<"$image"
	flock -x 8
	(sleep 1 && flock -u 8) & # in use for a moment: waited for
	exec 8<&-
	timeout 60 "$COW" mount "$image" "$top/aside"
	says 1 "mounted already, on $top/aside" "$COW" mount "$image" "$v/../other" # not the dead one
	"$COW" umount "$top/aside"
	closed "$image"
	"$COW" umount "$v"
}

# A mount keeps its place in the kernel's table when it is moved.
moved() {
	make_image other >/dev/null
	"$COW" mount "$image" "$top/aside" -o commit=600
	"$COW" mount "$top/other.img" "$v"
	mount --move "$top/aside" "$v"
	fill "$v"
	timeout 60 "$COW" umount "$v"
	closed "$image" || fail "cow umount returned and the image is open"
	timeout 60 "$COW" umount "$v"
	closed "$top/other.img"
}

user() {
	local as="runuser -u nobody --" own=$top/own
	command -v fusermount3 >/dev/null || skip "needs fusermount3"
	install -d -o nobody "$own" "$own/m"
	$as "$top/cow" format -q "$own/i.img" --size 256M
	for _ in 1 2; do
		$as "$top/cow" mount "$own/i.img" "$own/m" 2>"$top/err"
		$as touch "$own/m/f"
		$as "$top/cow" sync "$own/m"
		die "$own/i.img"
	done
	[ "$(wc -l <"$top/err")" = 1 ] && grep -q "was dead: detached" "$top/err" || fail "$(cat "$top/err")"
	[ "$(mounts "$own/m")" = 1 ]
	$as "$top/cow" umount "$own/m"
	[ "$(mounts "$own/m")" = 0 ]
	# Somebody else's is not taken away.
	mount_image vol allow_other
	die "$image"
	says 1 "sudo cow umount" $as "$top/cow" mount "$own/i.img" "$v"
	[ "$(mounts "$v")" = 1 ]
	"$COW" umount "$v"
}

namespace() {
	local other
	mount_image vol
	unshare -m --propagation private sleep 100 &
	other=$!
	while [ "$(cat /proc/$other/comm)" != sleep ]; do sleep 0.01; done
	says 1 "process $other (sleep)" "$COW" umount "$v"
	[ "$(mounts "$v")" = 0 ]
	! closed "$image" || fail "the image is closed"
	kill $other
	flock -s -w 20 "$image" true
	check_image vol
	# One that is about to end is waited for.
	mount_image vol
	unshare -m --propagation private sleep 1 &
	other=$!
	while [ "$(cat /proc/$other/comm)" != sleep ]; do sleep 0.01; done
	"$COW" umount "$v"
	closed "$image" || fail "cow umount returned and the image is open"
	# Seen here by another name, it goes on.
	mount_image vol
	mount --bind "$v" "$top/aside"
	timeout 60 "$COW" umount "$v" 2>"$top/err"
	[ ! -s "$top/err" ] || fail "$(cat "$top/err")"
	fill "$top/aside"
	"$COW" umount "$top/aside"
	closed "$image" || fail "cow umount returned and the image is open"
	check_image vol
}

# A daemon that does nothing for a while: on a terminal it is said that it is waited for.
slow() {
	local pid
	for how in "script -qec" "sh -c"; do
		mount_image vol
		pid=$(holder "$image")
		kill -STOP "$pid"
		(sleep 2 && kill -CONT "$pid") &
		$how "'$COW' umount '$v'" >"$top/out" 2>&1 </dev/null
		closed "$image"
		case $how in
		script*) grep -q "waiting" "$top/out" || fail "says: $(cat "$top/out")" ;;
		*) [ ! -s "$top/out" ] || fail "says: $(cat "$top/out")" ;;
		esac
	done
	rm -f typescript
}

# A killed process with a lock on another file, of another file system, that has the image's inode number.
same_number() {
	local f
	for f in a b; do
		truncate -s 40M "$top/$f.ext4"
		mkfs.ext4 -q "$top/$f.ext4"
		mkdir -p "$top/$f"
		mount -o loop "$top/$f.ext4" "$top/$f"
	done
	"$COW" format -q "$top/a/i.img" --size 64M
	touch "$top/b/file"
	[ "$(stat -c %i "$top/a/i.img")" = "$(stat -c %i "$top/b/file")" ] || fail "the numbers are not the same"
	# Its first thread has ended, as when a killed process waits for another of its threads.
	python3 - "$top/b/file" <<-'PYTHON' &
		import ctypes, fcntl, os, sys, threading, time
		f = open(sys.argv[1])
		fcntl.flock(f, fcntl.LOCK_EX)
		threading.Thread(target=time.sleep, args=(100,)).start()
		ctypes.CDLL(None).syscall({'x86_64': 60}.get(os.uname().machine, 93), 0)
	PYTHON
	while ! grep -qs 'State:.Z' /proc/$!/status; do sleep 0.01; done
	[ "$(holder "$top/a/i.img")" = $! ] || fail "the lock is not there"
	"$COW" mount "$top/a/i.img" "$v"
	exec 8>"$v/f"
	says 1 "is in use" timeout 60 "$COW" umount "$v"
	echo text >&8 || fail "the mount was cut off"
	exec 8>&-
	"$COW" umount "$v"
	kill -9 $!
	"$COW" check "$top/a/i.img"
	wait
	umount "$top/a" "$top/b"
}

fifo() {
	mount_image vol
	mv "$image" "$top/away"
	mkfifo "$image"
	timeout 60 "$COW" umount "$v" || fail "status $?"
	flock -s -w 20 "$top/away" true
	rm "$image"
	mv "$top/away" "$image"
	check_image vol
}

t "a mount on a dead one: cow umount waits for the image" scene on_dead 1
t "on two dead ones" scene on_dead 2
t "cow mount takes dead mounts away, and says so" scene over_dead
t "cow mount leaves alone what lives" scene over_live
t "an image is not called mounted because of a dead mount" scene elsewhere_dead
t "a mount that was moved onto another one" scene moved
t "dead mounts of a user, and those of somebody else" scene user
t "another mount namespace, and a bind mount" scene namespace
t "on a terminal, waiting is told" scene slow
t "a killed process with a lock on a file with the image's number" scene same_number
t "a fifo in the place of the image" scene fifo
finish
