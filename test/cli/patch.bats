#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# cow diff --patch against LC_ALL=C diff -ruN --no-dereference, on changed trees full of nasty names.
load lib.bash

# What diff says about special files that did not change, or of which a time changed, is the one thing that is left out.
without_special() {
	grep -avE '^File .* is a (fifo|(block|character) special file) while file .* is a \1$'
}

theirs() { diff -ruN --no-dereference "$1" "$2" 2>/dev/null | without_special; }
ours() { "$COW" diff --patch "$1" "$2" 2>/dev/null | without_special; }

@test "on a mount, byte for byte" {
	mounted
	tree m/old
	for seed in 1 2 3 4 5 6 7 8; do
		"$COW" clone m/old "m/new$seed"
		python3 "$here/nasty.py" change "m/new$seed" $seed
		cmp <(theirs m/old "m/new$seed") <(ours m/old "m/new$seed")
		cmp <(theirs "m/new$seed/" m/old//) <(ours "m/new$seed/" m/old//)
	done
	cmp <(theirs m/new1 m/new2) <(ours m/new1 m/new2)
	(cd m && cmp <(theirs new3 new4) <(ours new3 new4))
}

@test "in an image: the same, with the names as given" {
	mounted
	tree m/old
	for seed in 11 12; do
		"$COW" clone m/old "m/new$seed"
		python3 "$here/nasty.py" change "m/new$seed" $seed
		ours m/old "m/new$seed" >"$seed"
	done
	"$COW" umount m
	for seed in 11 12; do
		ours img:/old "img:/new$seed" | sed -e 's,img:/old,m/old,g' -e "s,img:/new$seed,m/new$seed,g" | cmp - "$seed"
	done
}

@test "exit status, and patch applies it" {
	mounted
	mkdir -p m/old/d
	seq 1000 >m/old/d/f
	echo gone >m/old/d/gone
	"$COW" clone m/old m/new
	run -0 "$COW" diff --patch m/old m/new
	[ -z "$output" ]
	sed -i 's/^500$/five hundred/' m/new/d/f
	rm m/new/d/gone
	echo added >m/new/d/added
	chmod 600 m/new/d/f
	status=0
	(cd m && "$COW" diff --patch old new) >p || status=$?
	[ $status = 1 ]
	cp -r m/old copy
	command -v patch >/dev/null || skip "no patch"
	(cd copy && patch -p1 -s <../p)
	diff -r copy m/new
}

@test "an added symbolic link cannot be shown: status 2, as diff" {
	mounted
	mkdir m/old
	"$COW" clone m/old m/new
	ln -s x m/new/l
	refused 2 "symbolic link" "$COW" diff --patch m/old m/new
	run -2 diff -ruN --no-dereference m/old m/new
}
