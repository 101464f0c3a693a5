#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# cow check --repair, --dry-run and --revert on images with damage.
load lib.bash

populated() {
	image 64M
	mkdir -p t/sub/deep
	for i in $(seq 300); do echo "content $i" >"t/some-file-with-a-name-of-some-length-$i"; done
	head -c 300000 /dev/urandom >t/sub/data
	echo deep >t/sub/deep/file
	ln t/sub/data t/sub/linked
	"$COW" import t img:/t
	"$COW" clone img:/t img:/clone
}

# garble IMAGE PATTERN [NOT]: zeros in the middle of a leaf of a directory that holds PATTERN, and no entry of the name
# NOT, and is in use. Which entries share a leaf is chance.
garble() {
	local block
	for block in $(python3 - "$@" <<'END'
import sys
no = sys.argv[3].encode() if len(sys.argv) > 3 else b''
with open(sys.argv[1], 'rb') as f:
    for block in range(1 << 20):
        b = f.read(4096)
        if len(b) < 4096:
            break
        if b[:6] == b'cown\x02\x00' and int.from_bytes(b[8:16], 'little') == block and sys.argv[2].encode() in b \
                and (no == b'' or bytes([len(no)]) + no not in b):
            print(block)
END
	); do
		dd if="$1" of=saved bs=4096 skip="$block" count=1 status=none
		dd if=/dev/zero of="$1" bs=512 seek=$((block * 8 + 1)) count=7 conv=notrunc status=none
		"$COW" check "$1" >/dev/null || return 0
		dd if=saved of="$1" bs=4096 seek="$block" conv=notrunc status=none # an old one, free by now
	done
	return 1
}

@test "a clean image stays as it is" {
	populated
	sum=$(sha256sum <img)
	run -0 "$COW" check --repair img
	[ "$output" = "clean: nothing to repair" ]
	[ ! -e img.undo ]
	[ "$sum" = "$(sha256sum <img)" ]
}

@test "a damaged leaf costs its entries; dry run, undo file, revert" {
	populated
	garble img some-file-with-a-name sub
	cp --sparse=always img damaged
	run -1 "$COW" check img
	run -1 "$COW" check --repair --dry-run img
	[[ $output == *"would be repaired:"* ]]
	cmp img damaged
	umask 0
	chmod 644 img
	run -3 "$COW" check --repair img
	[ "$(stat -c %a img img.undo)" = $'644\n600' ]
	[[ $output =~ (/t|/clone)": block "[0-9]+": a leaf is damaged: the entries in it are lost" ]]
	[[ $output == *"img.undo"* ]]
	run -0 "$COW" check --data img
	"$COW" export img:/t/sub sub
	diff -r t/sub sub
	n=$("$COW" ls img:/t | wc -l)
	[ "$n" -gt 200 ]
	[ "$n" -lt 301 ]
	"$COW" check --revert img.undo img
	cmp img damaged
}

@test "the undo file: not twice, not over an existing one, not after a change" {
	populated
	garble img some-file-with-a-name
	touch img.undo
	run -1 "$COW" check --repair img
	[[ $output == *"name another with --undo"* ]]
	run -3 "$COW" check --repair --undo other img
	echo x | "$COW" import t/sub/deep img:/more
	refused 1 "changed since" "$COW" check --revert other img
	refused 1 "not a file that" "$COW" check --revert t/sub/data img
	"$COW" check img
}

@test "a subdirectory of a lost leaf goes to lost+found" {
	populated
	garble img linked
	run -3 "$COW" check --repair img
	run -0 "$COW" check img
	run -0 "$COW" ls img:/lost+found
	"$COW" export img:/lost+found found
	[ "$(cat found/dir-*/file)" = deep ]
	cmp found/#* t/sub/data # both names of the hard link were in the leaf
}

@test "json" {
	populated
	garble img some-file-with-a-name
	run -3 "$COW" check --repair --json img
	python3 -c '
import json, sys
o = json.loads(sys.argv[1])
assert o["written"] and o["left"] == 0 and o["findings_count"] == len(o["findings"]) > 0
found = [l for l in o["losses"] if l["path"].startswith("/lost+found/")]
assert o["losses_count"] == len(o["losses"]) - len(found) > 0 and o["recovered"] == len(found)
assert o["losses"][0]["path"] in ("/t", "/clone") and o["losses"][0]["block"] > 0 and o["undo"] == "img.undo"
' "$output"
	run -0 "$COW" check --repair --json img
	python3 -c 'import json, sys; o = json.loads(sys.argv[1]); assert not o["written"] and o["losses_count"] == 0' "$output"
}

@test "what cannot be repaired" {
	head -c 20M /dev/zero >zero
	refused 1 "not a cowlinks volume" "$COW" check --repair zero
	image
	dd if=/dev/zero of=img bs=4096 count=16 conv=notrunc status=none
	refused 1 "not a cowlinks volume" "$COW" check --repair img
	exec 9<img
	flock -s 9
	refused 1 "in use" "$COW" check --repair img
	exec 9<&-
	run -2 "$COW" check --dry-run img
	run -2 "$COW" check --repair --revert x img
	run -2 "$COW" check --repair --data img
	[ ! -e img.undo ]
}
