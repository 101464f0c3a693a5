#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Bad input: each gets one clear line on stderr, exit status 1 (2 for usage), and nothing is lost or half done.
# shellcheck source=test/mount/lib.sh disable=SC2154,SC2016,SC2317
. "$(dirname "$0")/lib.sh"

# refused STATUS PATTERN COMMAND...: status, nothing on stdout, one line on stderr that starts with "cow" and matches
refused() {
	local status=$1 pattern=$2 got=0
	shift 2
	timeout 60 "$@" >"$top/out" 2>"$top/err" || got=$?
	[ $got = "$status" ] || { cat "$top/out" "$top/err"; fail "$*: exit status $got, expected $status"; }
	[ ! -s "$top/out" ] || fail "$*: says on stdout: $(head -n 3 "$top/out")"
	[ "$(wc -l <"$top/err")" = 1 ] || fail "$*: not one line on stderr: $(cat "$top/err")"
	grep -q '^cow' "$top/err" || fail "$*: does not say who speaks: $(cat "$top/err")"
	grep -qiE -- "$pattern" "$top/err" || fail "$*: not clear ($pattern): $(cat "$top/err")"
}

# Usage errors may add a second line that says where help is.
usage_error() {
	local got=0
	timeout 20 "$@" >"$top/out" 2>"$top/err" </dev/null || got=$?
	[ $got = 2 ] || fail "$*: exit status $got, expected 2: $(cat "$top/err")"
	[ ! -s "$top/out" ] || fail "$*: says on stdout: $(head -n 3 "$top/out")"
	[ -s "$top/err" ] && [ "$(wc -l <"$top/err")" -le 3 ] || fail "$*: says $(cat "$top/err")"
}

v=$top/vol w=$top/other
make_image vol 1G && mount_image vol || { echo "Bail out! no mount"; exit 1; }
make_image other 256M && mount_image other || { echo "Bail out! no mount"; exit 1; }
mkdir -p "$v/dir/sub"
echo content >"$v/dir/file"
echo more >"$v/file"
make_image plain 256M

tree() {
	(cd "$v" && find . -printf '%P %y %m %s %n %i\n' | LC_ALL=C sort; find . -type f -exec md5sum {} +)
}

wrong_arguments() {
	local verb
	"$COW" >"$top/out" 2>"$top/err" && fail "cow alone is no error" || [ $? = 2 ]
	grep -q 'clone' "$top/err"
	usage_error "$COW" no-such-verb
	usage_error "$COW" --no-such-option
	for verb in format mount umount clone rm ls diff du stat import export same check scrub dump info sync; do
		usage_error "$COW" $verb --no-such-option
		case $verb in ls | du | help) ;; *) usage_error "$COW" $verb ;; esac
	done
	usage_error "$COW" clone one
	usage_error "$COW" clone one two three
	usage_error "$COW" diff one
	usage_error "$COW" format "$top/new.img" --size
	usage_error "$COW" format "$top/new.img" --size 12Q
	usage_error "$COW" format "$top/new.img" --size -5
	[ ! -e "$top/new.img" ]
	"$COW" --version | grep -q '[0-9]'
	"$COW" help clone >/dev/null
	usage_error "$COW" mount "$top/plain.img" "$top/plain" -o no_such_option
	grep -q no_such_option "$top/err"
}

no_image() {
	echo "this is text" >"$top/text"
	head -c 1000000 /dev/urandom >"$top/random"
	: >"$top/empty"
	mkdir -p "$top/m" "$top/directory"
	for f in text random empty; do
		for verb in check info; do refused 1 "cowlinks|image|short|volume" "$COW" $verb "$top/$f"; done
		"$COW" dump "$top/$f" >"$top/out" 2>&1 || [ $? = 1 ] # it shows what it finds
		refused 1 "cowlinks|image|short|volume" "$COW" mount "$top/$f" "$top/m"
		refused 1 "cowlinks|image|short|volume" "$COW" ls "$top/$f:/"
	done
	for verb in check dump; do
		refused 1 "No such file" "$COW" $verb "$top/absent.img"
		refused 1 "directory|cowlinks|image" "$COW" $verb "$top/directory"
	done
	refused 1 "No such file" "$COW" mount "$top/absent.img" "$top/m"
	refused 1 "No such file" "$COW" mount "$top/plain.img" "$top/absent"
	refused 1 "directory" "$COW" mount "$top/plain.img" "$top/text"
	refused 1 "mount" "$COW" umount "$top/m"
	refused 1 "mount|cowlinks" "$COW" sync "$top/m"
	[ "$(cat "$top/text")" = "this is text" ]
}

format_refuses() {
	cp "$top/plain.img" "$top/copy.img"
	refused 1 "force|exists|already" "$COW" format "$top/plain.img" --size 256M
	cmp "$top/plain.img" "$top/copy.img"
	refused 1 "force|data|already|exists" "$COW" format "$top/random"
	refused 1 "small|least|size|MiB" "$COW" format "$top/tiny.img" --size 1M
	[ ! -e "$top/tiny.img" ] || [ ! -s "$top/tiny.img" ]
	refused 1 "No such file" "$COW" format "$top/absent/x.img" --size 1G
	refused 1 "use|mounted|lock|busy" "$COW" format "$top/vol.img" --size 1G
	refused 1 "use|mounted|lock|busy" "$COW" format --force "$top/vol.img" --size 1G
}

garbled() {
	local seed status f
	cp --sparse=always "$top/plain.img" "$top/g.img"
	mkdir -p "$top/m"
	mount_image_of g m
	cp -r /etc/default "$top/m/default"
	"$COW" umount "$top/m"
	cp --sparse=always "$top/g.img" "$top/t.img"
	truncate -s 1M "$top/t.img"
	refused 1 "short|trunc|damaged" "$COW" mount "$top/t.img" "$top/m"
	truncate -s 5000 "$top/t.img"
	refused 1 "short|trunc|damaged|cowlinks" "$COW" mount "$top/t.img" "$top/m"
	for seed in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		cp --sparse=always "$top/g.img" "$top/h.img"
		python3 - "$top/h.img" $seed <<-'PYTHON'
			import os, random, sys
			r = random.Random(int(sys.argv[2]))
			fd = os.open(sys.argv[1], os.O_RDWR)
			at, used = 0, []
			try:
			    while True:
			        start = os.lseek(fd, at, os.SEEK_DATA)
			        at = os.lseek(fd, start, os.SEEK_HOLE)
			        used += range(start // 4096, (at + 4095) // 4096)
			except OSError:
			    pass
			for block in r.sample(used, max(1, len(used) * r.choice((1, 5, 40)) // 100)):
			    os.pwrite(fd, r.randbytes(r.choice((1, 8, 4096))), block * 4096 + r.randrange(4096) // 8 * 8)
		PYTHON
		# Whatever it is: no crash, no hang, and a program that fails says so.
		status=0
		timeout 60 "$COW" check "$top/h.img" >"$top/out" 2>&1 || status=$?
		[ $status -le 1 ] || fail "seed $seed: cow check: status $status: $(tail -n 5 "$top/out")"
		[ $status = 0 ] || [ -s "$top/out" ] || fail "seed $seed: cow check fails without a word"
		status=0
		timeout 60 "$COW" dump "$top/h.img" >"$top/out" 2>&1 || status=$?
		[ $status -le 1 ] || fail "seed $seed: cow dump: status $status"
		status=0
		timeout 60 "$COW" mount "$top/h.img" "$top/m" >"$top/out" 2>&1 || status=$?
		[ $status -le 1 ] || fail "seed $seed: cow mount: status $status"
		if [ $status = 0 ]; then
			timeout 60 cp -r "$top/m/." "$top/got" >"$top/out" 2>&1 || true
			# What can be read is right: a checksum stands before every byte.
			if [ -d "$top/got/default" ]; then
				(cd "$top/got/default" && find . -type f) | while read -r f; do
					[ ! -s "$top/got/default/$f" ] || cmp -s "$top/got/default/$f" "/etc/default/$f" ||
						[ "$(stat -c %s "$top/got/default/$f")" -lt "$(stat -c %s "/etc/default/$f")" ] ||
						fail "seed $seed: bad data in $f"
				done
			fi
			timeout 60 touch "$top/m/new" 2>/dev/null || true
			timeout 60 "$COW" umount "$top/m" >"$top/out" 2>&1 || true
			! mountpoint -q "$top/m" || umount -l "$top/m"
			rm -rf "$top/got"
		fi
	done
}

mount_image_of() {
	timeout 60 "$COW" mount "$top/$1.img" "$top/$2"
}

newer_format() {
	cp --sparse=always "$top/plain.img" "$top/n.img"
	mkdir -p "$top/m"
	# Flags of unknown incompatible features in every valid copy of the superblock, sealed again.
	python3 - "$top/n.img" <<-'PYTHON'
		import ctypes, os, struct, sys
		hash_of = ctypes.CDLL('libxxhash.so.0').XXH3_64bits
		hash_of.restype, hash_of.argtypes = ctypes.c_uint64, (ctypes.c_char_p, ctypes.c_size_t)
		fd, poked = os.open(sys.argv[1], os.O_RDWR), 0
		for block in range(16):
		    data = os.pread(fd, 4096, block * 4096)
		    if struct.unpack_from('<Q', data, 8)[0] == hash_of(data[16:512], 496):
		        data = data[:56] + struct.pack('<Q', 1 << 40) + data[64:]
		        data = data[:8] + struct.pack('<Q', hash_of(data[16:512], 496)) + data[16:]
		        os.pwrite(fd, data, block * 4096)
		        poked += 1
		sys.exit(poked < 2)
	PYTHON
	for verb in check dump info; do
		status=0
		timeout 60 "$COW" $verb "$top/n.img" >"$top/out" 2>&1 || status=$?
		[ $verb = dump ] || { [ $status = 1 ] && grep -qi 'newer' "$top/out"; } ||
			fail "cow $verb: status $status, $(head -n 3 "$top/out")"
	done
	refused 1 "newer" "$COW" mount "$top/n.img" "$top/m"
	refused 1 "newer" "$COW" ls "$top/n.img:/"
}

paths() {
	tree >"$top/before"
	refused 1 "No such file" "$COW" clone "$v/absent" "$v/new"
	refused 1 "No such file" "$COW" clone "$v/dir" "$v/absent/new"
	refused 1 "exists" "$COW" clone "$v/dir" "$v/file"
	refused 1 "exists" "$COW" clone "$v/file" "$v/dir/file"
	refused 1 "exists" "$COW" clone "$v/dir" "$v/dir/sub"
	refused 1 "Not a directory" "$COW" clone "$v/dir" "$v/file/new"
	refused 1 "long" "$COW" clone "$v/dir" "$v/$(printf '%300s' '' | tr ' ' x)"
	refused 1 "No such file" "$COW" rm "$v/absent"
	refused 1 "" "$COW" rm "$v"
	refused 1 "No such file" "$COW" du "$v/absent"
	refused 1 "No such file" "$COW" stat "$v/absent"
	refused 1 "No such file" "$COW" ls "$v/absent"
	refused 2 "No such file" "$COW" diff "$v/dir" "$v/absent"
	refused 2 "No such file" "$COW" same "$v/dir" "$v/absent"
	refused 1 "mount|cowlinks" "$COW" clone /etc/default "$top/elsewhere"
	[ ! -e "$top/elsewhere" ]
	tree | cmp - "$top/before"
	[ -z "$(find "$v" -name '.cow*')" ] || fail "a temporary name is left: $(find "$v" -name '.cow*')"
}

two_mounts() {
	tree >"$top/before"
	refused 1 "different|another|mount" "$COW" clone "$v/dir" "$w/new"
	refused 1 "different|another|mount" "$COW" clone "$v/file" "$w/new"
	refused 1 "different|another|mount|cowlinks" "$COW" clone "$v/dir" "$top/new"
	refused 1 "different|another|mount|cowlinks" "$COW" clone /etc/default "$v/new"
	[ -z "$(ls -A "$w")" ]
	[ ! -e "$top/new" ]
	tree | cmp - "$top/before"
}

second_mount() {
	mkdir -p "$top/m"
	refused 1 "use|mounted|lock|busy" "$COW" mount "$top/vol.img" "$top/m"
	refused 1 "use|mounted|lock|busy" "$COW" ls "$top/vol.img:/"
	refused 1 "use|mounted|lock|busy" "$COW" clone "$top/vol.img:/dir" "$top/vol.img:/new"
	refused 1 "use|mounted|lock|busy" "$COW" check "$top/vol.img"
	ln -sf vol.img "$top/alias.img"
	refused 1 "use|mounted|lock|busy" "$COW" mount "$top/alias.img" "$top/m"
	[ "$(cat "$v/file")" = more ]
}

full_volume() {
	local n
	make_image small 32M
	mount_image small
	mkdir "$top/small/keep"
	for n in $(seq 50); do echo "file $n" >"$top/small/keep/$n"; done
	dd if=/dev/zero of="$top/small/fill" bs=64K 2>"$top/err" && fail "32 MiB took everything" || true
	grep -q 'No space left' "$top/err"
	while printf '%4096s' x >>"$top/small/fill2"; do :; done 2>/dev/null
	# A clone needs a block or two: it works, or says so and leaves nothing.
	if ! "$COW" clone "$top/small/keep" "$top/small/clone" 2>"$top/err"; then
		[ "$(wc -l <"$top/err")" = 1 ]
		grep -qi 'space' "$top/err"
		[ ! -e "$top/small/clone" ]
	fi
	[ -z "$(find "$top/small" -name '.cow*')" ] || fail "a temporary name is left"
	for n in $(seq 50); do [ "$(cat "$top/small/keep/$n")" = "file $n" ]; done
	"$COW" rm "$top/small/fill"
	rm -f "$top/small/fill2"
	"$COW" sync --drain "$top/small"
	dd if=/dev/zero of="$top/small/again" bs=64K count=128 status=none
	umount_image small
}

# The image on a host file system that runs full: writers get ENOSPC, nothing committed is lost, and when there is
# room again the volume goes on.
full_host() {
	local n h=$top/tmpfs
	mkdir "$h" "$top/hosted"
	mount -t tmpfs -o size=80M tmpfs "$h" # the intent log takes 32 of them
	"$COW" format "$h/i.img" --size 4G
	timeout 60 "$COW" mount "$h/i.img" "$top/hosted"
	for n in $(seq 30); do echo "file $n" >"$top/hosted/$n"; done
	"$COW" sync "$top/hosted"
	if dd if=/dev/urandom of="$top/hosted/big" bs=64K count=2000 conv=fsync 2>"$top/err"; then
		fail "125 MB went into 80 MB"
	fi
	grep -q 'No space left' "$top/err" || fail "$(cat "$top/err")"
	for n in $(seq 30); do [ "$(cat "$top/hosted/$n")" = "file $n" ]; done
	rm "$top/hosted/big" || "$COW" rm "$top/hosted/big" || echo "nothing can be removed while the host is full"
	mount -o remount,size=200M "$h"
	rm -f "$top/hosted/big"
	"$COW" sync --drain "$top/hosted"
	echo "after" >"$top/hosted/after" || fail "the volume did not recover: $(dmesg 2>/dev/null | tail -n 2)"
	dd if=/dev/urandom of="$top/hosted/big" bs=64K count=500 conv=fsync status=none
	"$COW" umount "$top/hosted"
	"$COW" check "$h/i.img" >"$top/out" || fail "$(tail "$top/out")"
	timeout 60 "$COW" mount "$h/i.img" "$top/hosted"
	for n in $(seq 30); do [ "$(cat "$top/hosted/$n")" = "file $n" ]; done
	[ "$(cat "$top/hosted/after")" = after ]
	"$COW" umount "$top/hosted"
	umount "$h"
}

no_permission() {
	local run="runuser -u nobody --"
	chmod 600 "$top/plain.img"
	chmod 755 "$top"
	install -m 755 "$COW" "$top/cow"
	refused 1 "Permission denied" $run "$top/cow" check "$top/plain.img"
	refused 1 "Permission denied|not permitted" $run "$top/cow" ls "$top/plain.img:/"
	refused 1 "Permission denied" $run "$top/cow" format "$top/new.img" --size 64M
	# A mount without allow_other is root's alone.
	refused 1 "Permission denied" $run "$top/cow" clone "$v/dir" "$v/new"
	refused 1 "Permission denied" $run "$top/cow" rm "$v/dir"
	[ -e "$v/dir/file" ]
}

json_and_help() {
	"$COW" help >/dev/null
	for verb in format mount umount clone rm ls diff du stat import export same check scrub dump info sync; do
		"$COW" help $verb | grep -q "cow $verb"
	done
	for command in "info $v" "du $v/dir" "stat $v/dir"; do
		# shellcheck disable=SC2086
		"$COW" $command --json | python3 -c 'import json, sys; json.load(sys.stdin)'
	done
}

# Output that cannot be written is an error too.
full_output() {
	local status=0
	"$COW" du "$v/dir" >/dev/full 2>"$top/err" || status=$?
	[ $status = 1 ] || fail "cow du >/dev/full: status $status"
	[ "$(wc -l <"$top/err")" = 1 ]
}

t "a wrong argument" wrong_arguments
t "a file that is no image, a missing image, a wrong mount point" no_image
t "format does not overwrite" format_refuses
t "an image of a newer format" newer_format
t "a truncated or garbled image" garbled
t "a path that isn't there, a target that exists" paths
t "a clone across two mounts" two_mounts
t "a second mount of the same image" second_mount
t "a full volume" full_volume
t "a full host" full_host
t "no permission" no_permission
t "help and JSON" json_and_help
t "a full output" full_output
t "the first volume is whole" umount_image vol
t "the second volume is whole" umount_image other
finish
