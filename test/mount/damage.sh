#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What a user sees of a damaged volume: an error on what lies in the block, and everything else as always.
# shellcheck source=test/mount/lib.sh disable=SC2154,SC2317
. "$(dirname "$0")/lib.sh"

v=$top/vol
make_image vol 64M && mount_image vol || { echo "Bail out! no mount"; exit 1; }
mkdir -p "$v/dir/below" "$v/many" "$v/links"
for n in 1 2 3; do printf 'MARK-%s-%04090d' "$n" 0; done >"$v/dir/data" # 4,097 bytes each
echo fine >"$v/dir/other"
for n in $(seq 300); do echo "$n" >"$v/many/a long name, so that there are several leaves, number $n."; done
for n in 1 2 3; do echo "$n" >"$v/links/file-$n"; ln "$v/links/file-$n" "$v/dir/below/link-$n"; done
echo alone >"$v/links/alone"
"$COW" clone "$v/dir" "$v/clone"
"$COW" umount "$v"
cp --sparse=always "$top/vol.img" "$top/good.img"

# garble KIND TEXT: flips a bit in every node of a kind of tree, older ones too, that has the text; kind 0: in file data
garble() {
	! mountpoint -q "$v" || umount "$v"
	cp --sparse=always "$top/good.img" "$top/vol.img"
	python3 - "$top/vol.img" "$1" "$2" <<-'PYTHON'
		import os, sys
		fd, kind, text, found = os.open(sys.argv[1], os.O_RDWR), int(sys.argv[2]), sys.argv[3].encode(), 0
		for block in range(24, os.fstat(fd).st_size // 4096):
		    data = os.pread(fd, 4096, block * 4096)
		    is_node = data[:4] == b'cown'
		    if (is_node and data[4] == kind and data[5] == 0 or not is_node and kind == 0) and text in data:
		        os.pwrite(fd, bytes([data[4000] ^ 4]), block * 4096 + 4000)
		        found += 1
		assert found > 0, 'no such block'
	PYTHON
	mount_image vol
}

# fails COMMAND...: with EIO
fails() {
	if "$@" >"$top/out" 2>"$top/err"; then fail "$* works"; fi
	grep -qiE 'input/output error|damaged' "$top/err" || fail "$*: $(cat "$top/err")"
}

everything_else() {
	[ "$(cat "$v/links/alone")" = alone ]
	mkdir "$v/fresh"
	echo new >"$v/fresh/file"
	"$COW" clone "$v/fresh" "$v/fresh-clone"
	mv "$v/fresh/file" "$v/fresh/moved"
	"$COW" rm "$v/fresh"
	"$COW" sync --drain "$v"
	timeout 60 "$COW" umount "$v"
	mount_image vol
	[ "$(cat "$v/fresh-clone/file")" = new ]
}

done_with() {
	"$COW" umount "$v"
}

data() {
	garble 0 MARK-2
	fails cat "$v/dir/data"
	[ "$(head -c 6 "$v/dir/data")" = MARK-1 ]
	[ "$(tail -c 2000 "$v/dir/data" | wc -c)" = 2000 ]
	[ "$(cat "$v/dir/other")" = fine ]
	ls -l "$v/dir" >/dev/null
	mv "$v/dir/data" "$v/dir/moved"
	everything_else
	fails cat "$v/clone/data"
	dd if=/dev/zero of="$v/dir/moved" bs=4096 count=2 seek=1 conv=notrunc status=none
	sync "$v/dir/moved"
	echo 3 >/proc/sys/vm/drop_caches
	cat "$v/dir/moved" >/dev/null
	rm "$v/dir/moved"
	"$COW" rm "$v/clone"
	done_with
	check_image vol
}

directory() {
	local bad=0 n
	garble 2 'number 77.'
	for n in $(seq 300); do
		cat "$v/many/a long name, so that there are several leaves, number $n." >/dev/null 2>&1 || bad=$((bad + 1))
	done
	[ $bad -ge 1 ] && [ $bad -le 40 ] || fail "$bad names are lost"
	fails ls "$v/many"
	fails cat "$v/many/a long name, so that there are several leaves, number 77."
	bad=0
	for n in $(seq 300); do
		rm "$v/many/a long name, so that there are several leaves, number $n." 2>/dev/null || bad=$((bad + 1))
	done
	[ $bad -le 40 ] || fail "$bad names cannot be removed"
	everything_else
	"$COW" rm "$v/many" # and what cannot be read goes with it
	"$COW" sync --drain "$v"
	[ ! -e "$v/many" ]
	everything_else_again
	done_with
}

everything_else_again() {
	"$COW" umount "$v"
	mount_image vol
	echo again >"$v/again"
	"$COW" sync --drain "$v"
	[ "$(cat "$v/again")" = again ]
}

# The records of hard-linked files: their names are still listed, and those beside them are as they were.
links() {
	garble 3 ''
	[ "$(ls "$v/links")" = "$(printf '%s\n' alone file-1 file-2 file-3)" ] || fail "$(ls "$v/links")"
	[ "$(find "$v/links" -name 'f*' | wc -l)" = 3 ]
	fails cat "$v/links/file-1"
	fails stat "$v/dir/below/link-2"
	[ "$(cat "$v/dir/other")" = fine ]
	rm "$v/dir/other"
	# Directories of this world cannot be renamed, because that may need those records; a clone on a mount is renamed.
	fails mv "$v/dir" "$v/moved"
	mkdir "$v/fresh"
	echo new >"$v/fresh/file"
	mv "$v/fresh/file" "$v/fresh/moved"
	"$COW" rm "$v/fresh"
	everything_else_again
	done_with
}

t "a block of file data" data
t "a leaf of a directory" directory
t "hard-linked files" links
finish
