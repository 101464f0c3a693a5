#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# Images are private when they are made: the permissions inside are nothing to who can read the whole.
load lib.bash

mode() { stat -c %a "$1"; }

stranger() { setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"; }

# The program where everybody may run it; and everybody may go to this directory and make files in it.
strangers_welcome() {
	local path=$BATS_TEST_TMPDIR
	[ "$(id -u)" = 0 ] || skip "needs root"
	install -m 755 "$COW" "$path/cow"
	chmod 777 "$path"
	while [ "$path" != / ]; do chmod a+x "$path"; path=$(dirname "$path"); done
}

secret() { # an image with a file in it that only root may read
	image 64M
	mkdir t
	echo secret >t/file
	chmod 600 t/file
	"$COW" import t img:/t
}

@test "a new image is 0600, less what the umask takes" {
	for mask in 000 002 022 027 077 0777:0 277:400; do
		(umask "${mask%:*}" && "$COW" format -q "img-$mask" --size 16M)
		[ "$(mode "img-$mask")" = "$([[ $mask == *:* ]] && echo "${mask#*:}" || echo 600)" ]
	done
}

@test "an image that is there keeps its mode" {
	[ "$(id -u)" = 0 ] || skip "needs root, which may write what is 0400"
	for mode in 400 600 640 644; do
		install -m "$mode" /dev/null "empty-$mode"
		"$COW" format -q "empty-$mode" --size 16M
		[ "$(mode "empty-$mode")" = "$mode" ]
		"$COW" format -q --force "empty-$mode" --size 32M
		[ "$(mode "empty-$mode")" = "$mode" ]
		mkdir "t-$mode"
		"$COW" import "t-$mode" "empty-$mode:/t"
		[ "$(mode "empty-$mode")" = "$mode" ]
	done
}

@test "a stranger takes nothing out of an image, and cannot lock it" {
	strangers_welcome
	secret
	refused 1 "Permission denied" stranger ./cow export img:/t/file leak
	refused 1 "Permission denied" stranger ./cow ls img:/t
	refused 1 "Permission denied" stranger ./cow check img
	run -1 stranger cp img copy
	[ ! -e leak ] && [ ! -e copy ]
	run -66 stranger flock -n img true
	"$COW" export img:/t/file mine
	[ "$(cat mine)" = secret ]
}

@test "a default ACL of the directory lets nobody in either" {
	strangers_welcome
	mkdir shared
	chmod 755 shared
	setfacl -d -m u:65534:rwx,g::rwx,o::rwx shared || skip "no ACLs here"
	cd shared
	touch control
	stranger cat control
	image 16M
	run -1 stranger cat img
}
