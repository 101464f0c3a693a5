#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
load lib.bash

verbs='format mount umount clone rm ls diff du stat import export same check scrub dump info sync'

@test "every verb has help, a man page and completion" {
	for verb in $verbs; do
		"$COW" help "$verb" | grep -q "^usage: cow $verb"
		"$COW" "$verb" --help | grep -q "^usage: cow $verb"
		"$COW" help | grep -q "^  $verb "
		[ -f "$here/../../man/cow-$verb.1" ]
		grep -qE "^	([a-z| ]* )?$verb( [a-z| ]*)?\) options|'dump 3'" "$here/../../completion/cow.bash" || [ "$verb" = same ]
	done
}

@test "man pages have no warnings" {
	command -v man >/dev/null && command -v groff >/dev/null || skip "no man, no groff"
	for page in "$here"/../../man/*.1; do
		LC_ALL=C.UTF-8 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>warnings >/dev/null
		[ ! -s warnings ] || { cat warnings; false; }
	done
}

@test "every option in the help is in the man page" {
	for verb in $verbs; do
		for option in $("$COW" help "$verb" | grep -oE '^  --[a-z-]+' | sed 's/^ *--//'); do
			grep -qF -- "-$option" "$here/../../man/cow-$verb.1" || { echo "$verb --$option"; false; }
		done
	done
}

@test "wrong arguments: status 2, a usage line, nothing on stdout" {
	for arguments in '' 'frob' 'clone' 'clone a' 'clone a b c' 'diff a' 'same a' 'rm' 'du' 'stat' 'umount' 'format' \
		'check' 'dump' 'info' 'sync' 'mount a' 'import a' 'export a' 'ls a b' 'format x --size 12Q' \
		'format x --size -1' 'format x --size' 'format x --size 0' 'clone --frob a b' 'diff --patch --json a b'; do
		# shellcheck disable=SC2086
		run -2 --separate-stderr "$COW" $arguments
		[ -z "$output" ]
		# shellcheck disable=SC2154
		[ -n "$stderr" ]
	done
	[ ! -e x ]
}

@test "version" {
	run -0 "$COW" --version
	[[ $output =~ ^cow\ .*[0-9]+\.[0-9]+\.[0-9]+$ ]]
}

@test "output that cannot be written is an error" {
	refused 1 "No space left" sh -c "'$COW' help >/dev/full"
}

@test "sizes" {
	for size in 16M 16777216 0.5G 1.5G 20MiB 20MB 300m 1T; do
		"$COW" format -q img --size $size
		rm img
	done
	"$COW" format -q img --size 0.5G
	[ "$("$COW" info --json img | python3 -c 'import json,sys; print(json.load(sys.stdin)["total_bytes"])')" = $((1 << 29)) ]
	refused 1 "16 MiB" "$COW" format b --size 1M
	refused 1 "512 TiB" "$COW" format b --size 600T
	[ ! -e b ]
}
