#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A real tree, the kernel source of Debian's package linux-source-6.1, on the mount: unpacked by tar, compared with the
# same tree on the host, configured, cloned, edited, compared, removed.  Needs about 4 GiB in $TMPDIR; the unpacked tar
# is kept there for the next run.  TREE=TARFILE takes another tree.
#
# The tests build on each other: when one fails, those behind it may fail too.
# shellcheck source=test/mount/lib.sh disable=SC2154,SC2016,SC2317
. "$(dirname "$0")/lib.sh"

archive=/usr/src/linux-source-6.1.tar.xz
tar=${TREE:-${TMPDIR:-/tmp}/cowlinks-linux-source-6.1.tar}
if [ ! -e "$tar" ]; then
	if [ ! -e $archive ]; then
		echo "1..0 # SKIP no $archive (package linux-source-6.1)"
		exit 0
	fi
	xz -dc $archive >"$tar.$$" && mv "$tar.$$" "$tar" || exit 1
fi
host=$top/host
v=$top/vol

used() {
	df -B4096 --output=used "$v" | tail -n 1 | tr -d ' '
}

image_blocks() {
	"$COW" sync "$v"
	stat -c %b "$top/vol.img"
}

unpack() {
	make_image vol 20G
	mount_image vol
	mkdir "$host"
	"$COW" sync --drain "$v"
	used >"$top/used.empty"
	tar xf "$tar" -C "$host"
	tar xf "$tar" -C "$v"
	mv "$host"/*/ "$host/linux"
	mv "$v"/*/ "$v/linux"
}

# Types, modes, owners, sizes, times, targets and link counts that diff -r does not look at.
listing() {
	(cd "$1" && find . ! -type d -printf '%P %y %m %U %G %s %l %n %TY-%Tm-%Td %TH:%TM\n' -o -printf '%P %y %m %U %G\n' | LC_ALL=C sort)
}

compare() {
	diff -r --no-dereference "$host/linux" "$v/linux"
	listing "$host/linux" >"$top/l1"
	listing "$v/linux" >"$top/l2"
	cmp "$top/l1" "$top/l2" || diff "$top/l1" "$top/l2" | head
}

remounted() {
	umount_image vol
	mount_image vol
	listing "$v/linux" >"$top/l2"
	cmp "$top/l1" "$top/l2"
	# Contents from the image, not from any cache, in part (the whole was compared above).
	diff -r --no-dereference "$host/linux/kernel" "$v/linux/kernel"
}

clones() {
	local files
	files=$(wc -l <"$top/l1")
	echo "$files entries"
	# Limits are generous here, as other programs may run; the figures are measured by bench/.
	i=0
	one() { i=$((i + 1)); "$COW" clone "$v/linux" "$v/clone$i"; }
	limit_ms "cow clone" 50 one
	for i in 2 3 4 5; do "$COW" rm "$v/clone$i"; done
	"$COW" same "$v/linux" "$v/clone1"
	[ -z "$("$COW" diff "$v/linux" "$v/clone1")" ]
	listing "$v/clone1" >"$top/l2"
	cmp "$top/l1" "$top/l2"
}

numbers() {
	find "$v" -printf '%i\n' | sort | uniq -d >"$top/twice"
	[ ! -s "$top/twice" ] || fail "inode numbers twice: $(head -n 3 "$top/twice")"
}

configure() {
	"$COW" clone "$v/linux" "$v/build"
	make -s -C "$v/build" defconfig
	[ -s "$v/build/.config" ]
	make -s -C "$host/linux" O="$top/objects" defconfig
	cmp "$v/build/.config" "$top/objects/.config"
	[ ! -e "$v/linux/.config" ]
	"$COW" diff "$v/linux" "$v/build" >"$top/d1" || [ $? = 1 ]
	grep -qx 'A .config' "$top/d1"
	! grep -v '^A ' "$top/d1" | grep -v '^m ' || fail "the build changed what was there"
	"$COW" rm "$v/build"
	rm -rf "$top/objects"
}

ten_edits() {
	"$COW" sync "$v"
	"$COW" clone "$v/linux" "$v/edit"
	cd "$v/edit" || exit
	sed -i '1s/^/first line\n/' Makefile
	echo "appended" >>kernel/fork.c
	printf '1i\ninserted by ed\n.\nw\nq\n' | ed -s drivers/net/ethernet/intel/e1000e/netdev.c
	truncate -s 100 README
	rm COPYING
	mkdir newdir
	printf 'new file\nwithout newline at its end' >newdir/new
	python3 -c 'import mmap; f = open("fs/ext4/super.c", "r+b"); m = mmap.mmap(f.fileno(), 0); m[0:2] = b"//"'
	rm -r samples/kobject
	mv fs/ext4/acl.c fs/ext4/acl-moved.c
	ln -s nowhere scripts/new-link
	ln -sfn nowhere scripts/dtc/include-prefixes/arm
	ln -sf /dev/null CREDITS
	chmod 600 kernel/exit.c
}

# The names of diff -rq as lines of cow diff.  One "Only in" of a directory stands for the whole directory.
names_of_diff() {
	LC_ALL=C diff -rq --no-dereference "$1" "$2" | LC_ALL=C sed -E \
		-e "s|^Only in $1(/(.*))?: (.*)\$|D \2/\3|" -e "s|^Only in $2(/(.*))?: (.*)\$|A \2/\3|" \
		-e "s|^Files $1/(.*) and $2/.* differ\$|M \1|" -e "s|^Symbolic links $1/(.*) and $2/.* differ\$|M \1|" \
		-e "s|^File $1/(.*) is a .* while file .*\$|T \1|" -e 's|^([AD]) /|\1 |' | LC_ALL=C sort
}

# Renames are an addition and a deletion there; attributes alone are nothing.  Below an added or deleted directory
# diff names only its top.
names_of_cow() {
	"$COW" diff "$1" "$2" >"$top/cow.diff" || [ $? = 1 ]
	python3 - "$top/cow.diff" "$1" "$2" <<-'PYTHON'
		import os, sys
		out = []
		for line in open(sys.argv[1]):
		    kind, path = line.rstrip("\n").split(" ", 1)
		    if kind == "R":
		        old, new = path.split(" -> ")
		        out += ["D " + old, "A " + new]
		    elif kind != "m":
		        out.append(kind + " " + path)
		tops = {x for x in out if x[0] in "AD"}
		def below(x):
		    parts = x[2:].split("/")
		    return x[0] in "AD" and any(x[:2] + "/".join(parts[:i]) in tops for i in range(1, len(parts)))
		print("\n".join(sorted((x for x in out if not below(x)), key=os.fsencode)))
	PYTHON
}

diff_names() {
	cd "$v" || exit
	names_of_diff linux edit >"$top/want"
	names_of_cow linux edit >"$top/got"
	diff "$top/want" "$top/got"
	[ "$(wc -l <"$top/got")" -ge 10 ]
	grep -qx 'm kernel/exit.c' "$top/cow.diff"
	# The other way round, additions are deletions.
	sed 's/^A/@/; s/^D/A/; s/^@/D/' "$top/want" | LC_ALL=C sort >"$top/want.back"
	names_of_cow edit linux >"$top/got"
	diff "$top/want.back" "$top/got"
	names_of_cow linux edit >"$top/got"
	limit_ms "cow diff" 200 sh -c '"$COW" diff linux edit >/dev/null || [ $? = 1 ]'
}

diff_patch() {
	local status=0
	cd "$v" || exit
	LC_ALL=C diff -ruN --no-dereference linux edit >"$top/want.patch" || status=$?
	"$COW" diff --patch linux edit >"$top/got.patch" || [ $? = "$status" ]
	cmp "$top/want.patch" "$top/got.patch" || { diff "$top/want.patch" "$top/got.patch" | head -n 20; exit 1; }
	[ "$(wc -l <"$top/got.patch")" -ge 50 ]
}

# What patch(1) can express is applied to a clone: that makes it the edited tree, but for links, modes, empty files.
patch_applies() {
	cd "$v" || exit
	grep -q 'Symbolic link\|File .* is a' "$top/got.patch" && sed -i '/^File .* is a /d; /^Symbolic links /d' "$top/got.patch"
	"$COW" clone linux patched
	(cd patched && patch -s -p1 <"$top/got.patch")
	LC_ALL=C diff -r --no-dereference edit patched >"$top/left" || true
	grep -v 'new-link\|include-prefixes/arm \|/CREDITS ' "$top/left" | tee "$top/left2"
	[ ! -s "$top/left2" ]
	"$COW" rm patched
}

# cp -a --reflink=auto copies no data: the image grows by metadata only.
cp_shares() {
	local before grown data
	"$COW" sync --drain "$v"
	before=$(used)
	cp -a --reflink=auto "$v/linux/drivers" "$v/drivers-cp"
	"$COW" sync --drain "$v"
	grown=$(($(used) - before))
	data=$(du -s -B4096 "$v/linux/drivers" | cut -f 1)
	echo "cp -a of $data blocks took $grown blocks"
	[ $((grown * 20)) -lt "$data" ]
	diff -r --no-dereference "$v/linux/drivers" "$v/drivers-cp"
	"$COW" rm "$v/drivers-cp"
}

cp_large() {
	local before grown
	dd if=/dev/urandom of="$v/seed" bs=1M count=80 status=none
	# 10 GiB made by doubling, seven times: each step shares.
	cp "$v/seed" "$v/large"
	for _ in 1 2 3 4 5 6 7; do
		cp "$v/large" "$v/half"
		python3 - "$v/half" "$v/large" <<-'PYTHON'
			import os, sys
			s, t = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY)
			size, at = os.fstat(s).st_size, os.fstat(t).st_size
			done = 0
			while done < size:
			    done += os.copy_file_range(s, t, size - done, done, at + done)
		PYTHON
		rm "$v/half"
	done
	[ "$(stat -c %s "$v/large")" = $((10 << 30)) ]
	"$COW" sync --drain "$v"
	before=$(used)
	copy() { rm -f "$v/copy"; cp "$v/large" "$v/copy"; }
	limit_ms "cp of a $(stat -c %s "$v/large") byte file" 200 copy
	"$COW" sync --drain "$v"
	grown=$(($(used) - before))
	echo "it took $grown blocks"
	[ $grown -lt 100 ]
	cmp -n 300000000 "$v/large" "$v/copy"
	printf x | dd of="$v/copy" bs=1 seek=5000000000 conv=notrunc status=none
	cmp -n 1000000 -i 4999500000 "$v/large" "$v/copy" && exit 1
	rm "$v/large" "$v/copy" "$v/seed"
}

# A one-line edit five directories down adds at most 128 KiB to the image.
small_edit() {
	local before after
	"$COW" clone "$v/linux" "$v/small"
	"$COW" sync --drain "$v"
	before=$(used)
	sed -i '10s/.*/edited/' "$v/small/drivers/net/ethernet/intel/e1000e/ptp.c"
	"$COW" sync --drain "$v"
	after=$(used)
	echo "sed -i: $(((after - before) * 4)) KiB"
	[ $(((after - before) * 4)) -le 128 ]
	before=$after
	printf 'X' | dd of="$v/small/arch/arm64/boot/dts/qcom/msm8916.dtsi" bs=1 seek=100 conv=notrunc status=none
	"$COW" sync --drain "$v"
	echo "in place: $((($(used) - before) * 4)) KiB"
	[ $((($(used) - before) * 4)) -le 128 ]
	"$COW" rm "$v/small"
}

space_back() {
	local before after
	"$COW" rm "$v/edit"
	"$COW" sync --drain "$v"
	before=$(used)
	"$COW" clone "$v/linux" "$v/edit"
	(ten_edits_again)
	"$COW" du "$v/edit"
	limit_ms "cow du" 100 "$COW" du "$v/edit" >/dev/null
	limit_ms "cow rm" 100 sh -c '"$COW" rm "$0"; "$COW" clone "$1" "$0"' "$v/edit" "$v/linux"
	"$COW" rm "$v/edit"
	"$COW" sync --drain "$v"
	after=$(used)
	echo "used before $before, after $after blocks"
	[ $((after - before)) -le 16 ] # roots of trees that the clones had shared
	[ "$("$COW" info "$v" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["reclaim_entries"])')" = 0 ]
}

ten_edits_again() {
	rmdir "$v/edit" 2>/dev/null || true
	for f in Makefile kernel/fork.c kernel/exit.c fs/ext4/super.c mm/mmap.c net/core/dev.c lib/string.c; do
		sed -i 1d "$v/edit/$f"
	done
	rm -r "$v/edit/samples"
	mkdir "$v/edit/new"
	cp "$v/edit/MAINTAINERS" "$v/edit/new/"
}

remove_all() {
	local empty
	find "$v" -mindepth 1 -maxdepth 1 | while read -r p; do "$COW" rm "$p"; done
	"$COW" sync --drain "$v"
	empty=$(cat "$top/used.empty")
	echo "used: $(used) blocks, $empty when it was empty"
	[ $(($(used) - empty)) -le 64 ]
	umount_image vol
}

t "tar unpacks the tree on the mount" unpack
t "diff -r against the same tree on the host is empty, types, modes, times too" compare
t "everything is there after a remount, cow check is clean" remounted
t "cow clone: short, and the same tree" clones
t "no inode number twice in original and clone" numbers
t "make defconfig in a clone, as on the host" configure
t "ten edits in a clone by different tools" ten_edits
t "cow diff names what diff -rq names, both ways" diff_names
t "cow diff --patch is diff -ruN --no-dereference byte for byte" diff_patch
t "patch -p1 applies it" patch_applies
t "cp -a --reflink=auto copies no data" cp_shares
t "cp of a 10 GiB file: short, shares, and stays its own" cp_large
t "a small edit five directories down takes little space" small_edit
t "cow du and cow rm are short, df and cow info are back where they were" space_back
t "all removed: df is back where it was when empty, cow check is clean" remove_all
finish
