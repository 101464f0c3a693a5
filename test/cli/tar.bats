#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
load lib.bash

@test "export to tar, unpack with GNU tar" {
	image
	tree t
	"$COW" import t img:/t
	"$COW" export img:/t t.tar
	mkdir out
	tar -C out --xattrs --xattrs-include='*' -xpf t.tar
	same_trees t out
}

@test "import of what GNU tar wrote" {
	image
	tree t
	tar -C t --xattrs --xattrs-include='*' --format=pax -S -cf t.tar .
	"$COW" import t.tar img:/t
	"$COW" export img:/t out
	same_trees t out
}

@test "the old format of GNU tar, long names" {
	image
	tree t
	find t -exec touch -hd '2020-01-01' {} +
	tar -C t --format=gnu -S -cf t.tar .
	"$COW" import t.tar img:/t
	"$COW" export img:/t out
	same_text <(listing --no-xattr t) <(listing --no-xattr out)
}

@test "through pipes, compressed, there and back" {
	image
	tree t
	"$COW" import t img:/t
	"$COW" format -q img2 --size 256M
	"$COW" export img:/t - | gzip | "$COW" import - img2:/copy
	"$COW" export img2:/copy out
	same_trees t out
	"$COW" export img:/t - | xz -0 >t.tar.xz
	"$COW" import t.tar.xz img2:/x
	"$COW" export img2:/x x
	same_trees t x
}

@test "holes stay holes" {
	image
	mkdir t
	truncate -s 100M t/holes
	printf data | dd of=t/holes bs=1 seek=50000000 conv=notrunc status=none
	"$COW" import t img:/t
	"$COW" export img:/t t.tar
	[ "$(stat -c %s t.tar)" -lt 1000000 ]
	mkdir out
	tar -C out -xf t.tar
	cmp t/holes out/holes
	"$COW" import t.tar img:/u
	"$COW" export img:/u v
	cmp t/holes v/holes
	[ "$(du -k v/holes | cut -f1)" -lt 1000 ]
}

@test "directories in any order, without their own entry, and twice" {
	image
	mkdir -p t/a/b
	echo 1 >t/a/b/f
	chmod 750 t/a
	touch -d 2001-01-01 t/a
	tar -C t -cf t.tar a/b/f a
	tar -C t -rf t.tar a/b/f
	"$COW" import t.tar img:/t
	"$COW" export img:/t out
	[ "$(stat -c '%a %Y' out/a)" = "$(stat -c '%a %Y' t/a)" ]
	[ "$(cat out/a/b/f)" = 1 ]
}

@test "an archive cannot lead out" {
	image
	mkdir t outside
	echo x >t/f
	tar -C t --transform 's,f,../f,' -P -cf up.tar f
	refused 1 "leads out" "$COW" import up.tar out
	[ ! -e out ]
	[ ! -e f ]
	ln -s "$PWD/outside" t/l
	tar -C t -cf l.tar l
	mkdir t2
	mkdir t2/l
	echo bad >t2/l/bad
	tar -C t2 -rf l.tar l/bad
	run -1 "$COW" import l.tar out
	[ -z "$(ls outside)" ]
	[ ! -e out ]
}

@test "what is no archive" {
	image
	head -c 100000 /dev/urandom >x.tar
	refused 1 "x.tar" "$COW" import x.tar img:/t
	run -0 "$COW" ls img:/
	[ -z "$output" ]
	mkdir t
	head -c 1M /dev/zero >t/f
	tar -cf y.tar t
	truncate -s 500K y.tar
	refused 1 "y.tar" "$COW" import y.tar img:/t
	run -0 "$COW" ls img:/
	[ -z "$output" ]
}
