# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What the mount tests in shell share.  A test file sources this, calls `t NAME FUNCTION` for each test and `finish` at
# its end.  Everything lives below $top, which is unmounted and removed when the file ends, however it ends.
#
#   make_image NAME [SIZE]     formats $top/NAME.img
#   mount_image NAME [OPTIONS] mounts it at $top/NAME
#   umount_image NAME          unmounts, and the image must pass `cow check`
#   kill_image NAME            kill -9 of the daemon
#
# A test function runs in a subshell under `set -eu`; what it prints is shown when it fails.
#
# `user_mounts=1` before this is sourced: the file mounts as an ordinary user, too.  Where only root may open /dev/fuse, it
# then runs in a mount namespace of its own, with another one.
#
# Environment: COW is the program under test, TMPDIR where everything is made, KEEP=1 keeps it.
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
COW=${COW:-$here/../../build/cow}
COW=$(realpath -m "$COW")
export COW
tests=0 bad=0
umask 022

if [ "$(id -u)" != 0 ]; then
	echo "1..0 # SKIP needs root"
	exit 0
fi
if [ -n "${user_mounts:-}" ] && ! runuser -u nobody -- test -w /dev/fuse; then
	[ -n "${COWTEST_NAMESPACE:-}" ] || COWTEST_NAMESPACE=1 exec unshare -m "$0" "$@"
	# The mounts of tests that run beside this one shall end when they are unmounted there.
	awk -v t="${TMPDIR:-/tmp}/cowtest-" 'index($5, t) == 1 {print $5}' /proc/self/mountinfo | sort -r | xargs -r -n 1 umount -l
	mount -t tmpfs -o mode=755 tmpfs /mnt && mknod -m 666 /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse &&
		umount -l /mnt
fi
[ -x "$COW" ] || { echo "Bail out! no program $COW (set COW)"; exit 1; }
top=$(realpath "$(mktemp -d "${TMPDIR:-/tmp}/cowtest-XXXXXX")")

# Daemons of this test: their command line names something below $top.
daemons() {
	local p argv
	for p in /proc/[0-9]*; do
		{ argv=$(tr '\0' ' ' <"$p/cmdline"); } 2>/dev/null || continue
		case $argv in
		*mount*"$top/$1"*) [ "${p#/proc/}" = $$ ] || echo "${p#/proc/}" ;;
		esac
	done
}

cleanup() {
	local p m
	for p in $(daemons ""); do kill -9 "$p" 2>/dev/null; done
	awk -v t="$top" 'index($5, t) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r m; do
		umount -l "$(printf '%b' "$m")"
	done
	if [ -n "${KEEP:-}" ]; then echo "# kept: $top"; else rm -rf --one-file-system "$top"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM

make_image() {
	"$COW" format "$top/$1.img" --size "${2:-4G}"
	mkdir -p "$top/$1"
}

mount_image() {
	timeout 60 "$COW" mount "$top/$1.img" "$top/$1" ${2:+-o "$2"}
}

check_image() {
	"$COW" check "$top/$1.img" >"$top/check.log" 2>&1 || { echo "cow check of $1:"; tail -n 30 "$top/check.log"; return 1; }
}

umount_image() {
	timeout 120 "$COW" umount "$top/$1"
	check_image "$1"
}

kill_image() {
	local p
	for p in $(daemons "$1"); do kill -9 "$p"; done
	umount -l "$top/$1"
}

# t NAME FUNCTION [ARGUMENT...]
t() {
	local name=$1 status start=$SECONDS
	shift
	tests=$((tests + 1))
	(set -eu; "$@") >"$top/output" 2>&1
	status=$?
	if [ $status = 0 ]; then
		grep -E '[0-9] (ms|KiB|blocks)\b' "$top/output" | sed 's/^/# /' # figures
		echo "ok $tests - $name # $((SECONDS - start)) s"
	elif [ $status = 77 ]; then
		echo "ok $tests - $name # SKIP $(tail -n 1 "$top/output")"
	else
		bad=$((bad + 1))
		tail -n 60 "$top/output" | cut -c 1-1000 | sed 's/^/# /'
		echo "not ok $tests - $name # $((SECONDS - start)) s, status $status"
	fi
}

skip() {
	echo "$*"
	exit 77
}

fail() {
	echo "$*"
	exit 1
}

finish() {
	echo "1..$tests"
	echo "# $(basename "$0"): $tests tests, $bad failed"
	[ $bad = 0 ]
	exit
}

# now_ms: wall clock; limit_ms NAME LIMIT COMMAND...: the best of five runs must not take longer
now_ms() {
	echo $(($(date +%s%N) / 1000000))
}

limit_ms() {
	local name=$1 limit=$2 best=999999 start took
	shift 2
	for _ in 1 2 3 4 5; do
		start=$(now_ms)
		"$@"
		took=$(($(now_ms) - start))
		[ $took -ge $best ] || best=$took
	done
	echo "$name: $best ms"
	[ $best -le "$limit" ] || fail "$name took $best ms, at most $limit are allowed"
}
