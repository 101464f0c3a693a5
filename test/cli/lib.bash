# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What the tests of the command line share. COW is the program; each test has a directory of its own, and is in it.

here=$(cd "$BATS_TEST_DIRNAME" && pwd)
: "${COW:=${BUILD:-$here/../../build}/cow}"
case $COW in /*) ;; *) COW=$PWD/$COW ;; esac
bats_require_minimum_version 1.5.0

setup() {
	cd "$BATS_TEST_TMPDIR" || exit 1
	export LC_ALL=C
}

teardown() {
	if mountpoint -q "$BATS_TEST_TMPDIR/m" 2>/dev/null; then
		umount -l "$BATS_TEST_TMPDIR/m"
	fi
}

need_mount() {
	[ -c /dev/fuse ] || skip "no /dev/fuse"
	[ "$(id -u)" = 0 ] || command -v fusermount3 >/dev/null || skip "no fusermount3"
}

image() { # a small volume: img
	"$COW" format -q img --size "${1:-256M}"
}

mounted() { # a small volume, mounted: m
	need_mount
	image "${1:-256M}"
	mkdir -p m
	"$COW" mount img m
}

tree() { python3 "$here/nasty.py" tree "$1"; }
listing() { python3 "$here/listing.py" "$@"; }

same_trees() { # ORIGINAL COPY
	same_text <(listing "$1") <(listing "$2")
}

same_text() { # with the beginning of what differs
	local status=0
	diff "$1" "$2" >.diff || status=$?
	cut -c 1-200 .diff | head -n 10
	return $status
}

# refused STATUS TEXT COMMAND...: that status, nothing on stdout, one line on stderr with the text in it
refused() {
	local status=$1 text=$2 got=0
	shift 2
	"$@" >.out 2>.err </dev/null || got=$?
	[ "$got" = "$status" ] || { echo "$*: status $got: $(cat .err)"; return 1; }
	[ ! -s .out ] || { echo "$*: on stdout: $(cat .out)"; return 1; }
	[ "$(wc -l <.err)" = 1 ] || { echo "$*: not one line: $(cat .err)"; return 1; }
	grep -qF -- "$text" .err || { echo "$*: $(cat .err)"; return 1; }
}
