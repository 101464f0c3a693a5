#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# cow scrub on a mount and on an image: damage that is made below a mounted volume is found, and named.
# shellcheck source=test/mount/lib.sh disable=SC2154,SC2317
. "$(dirname "$0")/lib.sh"

v=$top/vol
make_image vol 128M && mount_image vol || { echo "Bail out! no mount"; exit 1; }
mkdir -p "$v/dir/sub"
for n in $(seq 200); do echo "file $n" >"$v/dir/$n"; done
# Each block of it can be told in the image.
for n in $(seq 0 9); do printf 'MARK-%s-%04090d' "$n" 0; done >"$v/dir/sub/victim" # 4,097 bytes each
"$COW" clone "$v/dir" "$v/clone"
sync "$v/dir/sub/victim"

# scrub STATUS ARGUMENT...: what it says is in $top/out and $top/err
scrub() {
	local status=$1 got=0
	shift
	timeout 100 "$COW" scrub "$@" >"$top/out" 2>"$top/err" || got=$?
	[ $got = "$status" ] || fail "cow scrub $*: status $got, expected $status: $(cat "$top/out" "$top/err")"
}

# garble IMAGE MARK: changes a byte of the block that has the mark, and says which block that is
garble() {
	local at
	at=$(LC_ALL=C grep -abo -- "$2" "$1" | head -n 1 | cut -d: -f1)
	[ -n "$at" ] || fail "no $2 in the image"
	printf 'X' | dd of="$1" bs=1 seek=$((at + 20)) conv=notrunc status=none
	echo $((at / 4096))
}

clean() {
	scrub 0 "$v"
	grep -q '^clean: ' "$top/out"
	[ ! -s "$top/err" ]
	scrub 0 --json --rate max "$v/dir"
	python3 -c 'import json, sys; r = json.load(sys.stdin); assert r["complete"] and r["findings"] == []' <"$top/out"
}

damaged() {
	local block
	cat "$v/dir/sub/victim" >/dev/null # cached, and good
	block=$(garble "$top/vol.img" MARK-5)
	scrub 1 "$v"
	grep -qE "^block $block: /(dir|clone)/sub/victim, offset 20480: file data: checksum does not fit$" "$top/out" ||
		fail "$(cat "$top/out")"
	[ "$(grep -c '^block' "$top/out")" = 1 ] || fail "$(cat "$top/out")" # once for both
	scrub 1 --json "$v"
	python3 -c '
import json, sys
r = json.load(sys.stdin)
assert r["complete"] and r["findings_count"] == 1, r
f = r["findings"][0]
assert f["block"] == int(sys.argv[1]) and f["offset"] == 20480 and f["path"].endswith("/sub/victim"), r
' "$block" <"$top/out"
	# Only what lies in the block cannot be read, and only if it is not in memory.
	echo 3 >/proc/sys/vm/drop_caches
	[ "$(head -c 100 "$v/dir/sub/victim" | head -c 6)" = MARK-0 ]
	! cat "$v/dir/sub/victim" >/dev/null 2>"$top/err" || fail "the damaged block was read"
	grep -q 'Input/output error' "$top/err"
	[ "$(tail -c 4097 "$v/clone/sub/victim" | head -c 6)" = MARK-9 ]
	# It goes with the files.
	"$COW" rm "$v/clone"
	scrub 1 "$v"
	grep -q '/dir/sub/victim, offset 20480' "$top/out"
	rm "$v/dir/sub/victim"
	"$COW" sync --drain "$v"
	scrub 0 "$v"
}

stopped() {
	local got=0 pid
	"$COW" scrub --rate 40K "$v" >"$top/out" 2>"$top/err" &
	pid=$!
	sleep 0.5
	scrub 2 "$v"
	grep -q 'already' "$top/err" || fail "$(cat "$top/err")"
	kill -TERM $pid
	wait $pid || got=$?
	[ $got = 2 ] || fail "status $got"
	scrub 0 "$v"
}

# A mount does not wait for a scrub, and no thread of it outlives the mount.
unmounted() {
	local got=0 pid
	"$COW" scrub --rate 40K "$v" >"$top/out" 2>"$top/err" &
	pid=$!
	sleep 0.5
	! "$COW" umount "$v" 2>"$top/err2" || fail "unmounted below a scrub" # its descriptor is open
	kill -KILL $pid
	wait $pid || got=$?
	umount_image vol
}

image() {
	local block
	scrub 0 "$top/vol.img"
	mount_image vol
	for n in $(seq 0 9); do printf 'MARK-%s-%04090d' "$n" 0; done >"$v/again"
	umount_image vol
	block=$(garble "$top/vol.img" MARK-3)
	scrub 1 "$top/vol.img"
	grep -qx "block $block: /again, offset 12288: file data: checksum does not fit" "$top/out" || fail "$(cat "$top/out")"
	scrub 2 "$top/no.img"
	scrub 2 "$top"
	scrub 2 /dev/null
}

t "a clean volume" clean
t "damage below a mounted volume" damaged
t "one at a time, and an end when asked" stopped
t "a mount that ends" unmounted
t "an image" image
finish
