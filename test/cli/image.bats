#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# Verbs on IMAGE:/path, without a mount.
load lib.bash

@test "import and export keep everything" {
	image
	tree t
	"$COW" import t img:/t
	"$COW" export img:/t out
	same_trees t out
	"$COW" check --data img
}

@test "into the root of a new volume, and out" {
	image
	tree t
	"$COW" import t img:
	"$COW" export img:/ out
	same_trees t out
	refused 1 "exists" "$COW" import t img:
	mkdir empty
	"$COW" export img: empty
	same_trees t empty
}

@test "into an existing directory under the source's name" {
	image
	mkdir -p src/sub
	"$COW" import src img:/a/ || "$COW" import src img:/a
	"$COW" import src/ img:/a/
	run -0 "$COW" ls img:/a
	[ "$output" = $'src\nsub' ]
	"$COW" clone img:/a img:/a/src/
	run -0 "$COW" ls img:/a/src/a
	[ "$output" = $'src\nsub' ]
}

@test "a file, alone" {
	image
	head -c 100000 /dev/urandom >f
	"$COW" import f img:/
	refused 1 "img:/f: File exists" "$COW" import f img:/
	"$COW" export img:/f g
	cmp f g
}

@test "an import that fails leaves nothing" {
	image 16M
	mkdir t
	echo first >t/a
	head -c 40M /dev/urandom >t/b
	refused 1 "No space left" "$COW" import t img:/t
	run -0 "$COW" ls img:/
	[ -z "$output" ]
	"$COW" sync --drain img
	"$COW" check img
}

@test "an interrupted import leaves nothing" {
	image
	tree t
	mkfifo pipe
	"$COW" import --tar pipe img:/t 2>err 3>&- &
	pid=$!
	exec 9>pipe
	tar -cf - t | head -c 3000000 >&9
	sleep 0.2
	kill -TERM $pid
	status=0
	wait $pid || status=$?
	exec 9>&-
	[ $status = 1 ]
	grep -q interrupted err
	run -0 "$COW" ls img:/
	[ -z "$output" ]
	"$COW" check img
}

@test "clones: independent, of clones, inside the source" {
	image
	tree t
	"$COW" import t img:/t
	"$COW" clone img:/t img:/c
	"$COW" clone img:/c img:/c2
	"$COW" clone img:/t img:/t/inside
	"$COW" rm img:/c/d
	"$COW" export img:/c2 c2
	same_trees t c2
	"$COW" export img:/t/inside inside
	touch -r t inside # making the clone in it changed the time of t
	same_trees t inside
	run -1 "$COW" ls img:/c/d
	"$COW" clone img:/t/big img:/big
	"$COW" export img:/big big
	cmp big t/big
	"$COW" check img
}

@test "a read-only clone refuses changes, its clone does not" {
	image
	mkdir -p t/sub
	"$COW" import t img:/t
	"$COW" clone --read-only img:/t img:/ro
	refused 1 "Read-only" "$COW" rm img:/ro/sub
	refused 1 "Read-only" "$COW" clone img:/t img:/ro/new
	"$COW" clone img:/ro img:/rw
	"$COW" rm img:/rw/sub
	echo x >f
	"$COW" import f img:/f
	refused 1 "directory can be cloned read-only" "$COW" clone --read-only img:/f img:/g
	"$COW" rm img:/ro
}

@test "rm: several, missing ones, the root" {
	image
	mkdir -p t/a t/b
	"$COW" import t img:/t
	refused 1 "No such file" "$COW" rm img:/t/a img:/t/none
	run -0 "$COW" ls img:/t
	[ "$output" = b ]
	"$COW" rm -f img:/t/none
	refused 1 "root" "$COW" rm img:/
	refused 1 "root" "$COW" rm img:/t/..
	"$COW" rm img:/t
	"$COW" sync --drain img
	"$COW" check img
}

@test "paths are cleaned, colons in names are found" {
	mkdir 'a:b'
	"$COW" format -q 'a:b/im:g' --size 16M
	mkdir -p t/sub
	"$COW" import t 'a:b/im:g:/t'
	run -0 "$COW" ls 'a:b/im:g:t//sub/../../t/.'
	[ "$output" = sub ]
	run -0 "$COW" ls 'a:b'
	[ "$output" = im:g ]
	touch 'img:'
	run -0 "$COW" ls 'img:'
	[ "$output" = 'img:' ]
}

@test "ls -l and stat" {
	image
	mkdir t
	echo hello >t/f
	chmod 4751 t/f
	ln -s f t/l
	touch -d '2001-02-03 04:05:06.789 UTC' t/f
	"$COW" import t img:/t
	"$COW" clone img:/t img:/c
	TZ=UTC run -0 "$COW" ls -l img:/t
	[[ ${lines[0]} =~ ^-rwsr-x--x\ .*\ 6\ 2001-02-03\ 04:05\ f$ ]]
	[[ ${lines[1]} =~ ^lrwxrwxrwx\ .*\ l\ -\>\ f$ ]]
	run -0 "$COW" ls -l img:/
	[[ ${lines[0]} =~ ^drwx......c ]]
	run -0 "$COW" stat img:/c
	[[ $output == *"directory, a clone"* ]]
	[[ $output == *"files        2"* ]]
	TZ=UTC run -0 "$COW" stat img:/t/f
	[[ $output == *"2001-02-03 04:05:06.789000000 +0000"* ]]
}

@test "json is json, whatever the names" {
	image
	tree t
	"$COW" import t img:/t
	"$COW" clone img:/t img:/c
	"$COW" rm img:/c/d/f_plain
	for arguments in 'ls --json img:/t' 'stat --json img:/t img:/t/big' 'du --json img:/t' 'info --json img' \
		'check --json img' 'du -s --json img:/t img:/c'; do
		# shellcheck disable=SC2086
		"$COW" $arguments >out
		python3 -m json.tool <out >/dev/null
	done
	run -1 "$COW" diff --json img:/t img:/c
	python3 -m json.tool <<<"$output" >/dev/null
	"$COW" ls --json img:/t >out
	python3 - <<-'END'
		import json, os
		listed = [entry["name"].encode("utf-8", "surrogateescape") for entry in json.load(open("out"))]
		assert listed == sorted(os.listdir(b"t")), listed
	END
}

@test "du: a clone shares all, then what changed is its own" {
	image
	mkdir t
	head -c 1000000 /dev/urandom >t/a
	head -c 1000000 /dev/urandom >t/b
	"$COW" import t img:/t
	"$COW" clone img:/t img:/c
	total() { "$COW" du --json "$1" | python3 -c 'import json,sys; print(json.load(sys.stdin)[0]["'"$2"'_bytes"])'; }
	[ "$(total img:/c apparent)" = 2000000 ]
	[ "$(total img:/c exclusive)" -lt 20000 ]
	"$COW" rm img:/t/a
	"$COW" sync --drain img
	[ "$(total img:/c exclusive)" -ge 1000000 ]
	[ "$(total img:/c exclusive)" -lt 1100000 ]
	run -0 "$COW" du -h img:/c
	[[ $output == *" MiB  "*"img:/c" ]]
}

@test "same and diff" {
	image
	mkdir -p t/sub
	echo one >t/a
	echo two >t/sub/b
	"$COW" import t img:/t
	"$COW" clone img:/t img:/c
	"$COW" same img:/t img:/c
	run -0 "$COW" diff img:/t img:/c
	[ -z "$output" ]
	echo new >n
	"$COW" import n img:/c/n
	"$COW" rm img:/c/sub
	run -1 "$COW" same img:/t img:/c
	run -1 "$COW" diff img:/t img:/c
	[ "$output" = $'A n\nD sub\nD sub/b' ]
	run -1 "$COW" diff --top img:/t img:/c
	[ "$output" = $'A n\nD sub' ]
	run -1 "$COW" diff -q img:/t img:/c
	[ -z "$output" ]
	"$COW" same img:/t/a img:/c/a
	refused 2 "No such file" "$COW" diff img:/t img:/none
	refused 2 "No such file" "$COW" same img:/t img:/none
}

@test "no image, not an image, in use" {
	refused 1 "No such file" "$COW" info none
	refused 1 "No such file" "$COW" check none
	echo text >text
	refused 1 "cow format" "$COW" ls text:/
	refused 1 "cow format" "$COW" info text
	[ "$(cat text)" = text ]
	image
	refused 1 "--force" "$COW" format img
	refused 1 "No such file" "$COW" ls img:/none
	exec 9<img
	flock 9
	refused 1 "in use" "$COW" ls img:/
	refused 1 "in use" "$COW" clone img:/ img:/x
	refused 1 "in use" "$COW" check img
	refused 1 "in use" "$COW" format --force img
}

@test "two images, or an image and a mount, do not go together" {
	image
	cp --sparse=always img img2
	refused 1 "two images" "$COW" clone img:/ img2:/x
	refused 2 "two images" "$COW" diff img:/ img2:/
	refused 1 "one is in an image" "$COW" clone img:/ x
	refused 2 "one is in an image" "$COW" diff img:/ .
}

@test "check: clean" {
	image
	run -0 "$COW" check img
	[[ $output == clean:* ]]
}

@test "dump" {
	image
	mkdir -p t/a
	"$COW" import t img:/t
	run -0 "$COW" dump img super
	[ -n "$output" ]
	run -0 "$COW" dump img
	[ -n "$output" ]
	run -0 "$COW" dump img tree /t
	run -0 "$COW" dump img block 0
	run -2 "$COW" dump img frob
}

# closed STANDARD-DESCRIPTORS COMMAND...: the exit status, with the descriptors in the first argument closed
closed() {
	local which=$1 status=0
	shift
	(
		[[ $which != *0* ]] || exec 0<&-
		[[ $which != *1* ]] || exec 1>&-
		[[ $which != *2* ]] || exec 2>&-
		exec "$@" 3>&-
	) || status=$?
	echo $status
}

@test "closed standard descriptors: no message goes into an image" {
	mkdir t
	echo x >t/f
	for which in 0 1 2 01 02 12 012; do
		rm -f img
		[ "$(closed $which "$COW" format -q img --size 256M)" = 0 ]
		[ "$(closed $which "$COW" import -q t img:/t)" = 0 ]
		[ "$(closed $which "$COW" rm img:/none)" = 1 ]
		[ "$(closed $which "$COW" clone img:/none img:/c)" = 1 ]
		run -1 grep -aq "No such file" img
		[ "$(closed $which "$COW" clone img:/t img:/c)" = 0 ]
		"$COW" check --data img
		run -0 "$COW" ls img:/
		[ "$output" = $'c\nt' ]
	done
	# What cannot be printed is an error, as everywhere.
	[ "$(closed 1 "$COW" ls img:/ 2>err)" = 1 ]
	grep -q "standard output" err
}

@test "ulimit -f: what writes an image larger than that is refused, and nothing is half done" {
	image
	mkdir t
	head -c 20M /dev/urandom >t/f
	"$COW" import -q t img:/t
	cp --sparse=always img copy
	(
		ulimit -f 4096
		refused 1 "ulimit -f" "$COW" format -q new --size 256M
		refused 1 "ulimit -f" "$COW" import -q t img:/u
		refused 1 "ulimit -f" "$COW" clone img:/t img:/u
		refused 1 "ulimit -f" "$COW" rm img:/t
		refused 1 "ulimit -f" "$COW" sync --drain img
		refused 1 "ulimit -f" "$COW" check --repair img
		run -0 "$COW" ls img:/
		[ "$output" = t ]
		refused 1 "File too large" "$COW" export -q img:/t out
	)
	cmp img copy
	[ ! -e new ]
	"$COW" check --data img
}

@test "other programs are started with the signals as they were, and heard when they end" {
	image
	mkdir t bin
	echo 1 >t/f
	"$COW" import -q t img:/a
	echo 2 >t/f
	"$COW" import -q t img:/b
	printf '#!/bin/sh\ngrep SigIgn /proc/self/status >>signals\nexit 1\n' >bin/diff
	chmod +x bin/diff
	PATH=$PWD/bin:$PATH run -1 env --default-signal "$COW" diff --patch img:/a img:/b
	[ $((0x$(awk '{print $2}' signals) >> ($(kill -l XFSZ) - 1) & 1)) = 0 ]
	run -1 env --ignore-signal=CHLD "$COW" diff --patch img:/a img:/b
	[[ $output == *"+2"* ]]
}
