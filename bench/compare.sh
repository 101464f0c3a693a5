#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# The same work on cowlinks, XFS, btrfs and ext4, all in image files on the same disk: bench/compare.sh [--build DIR].
# Medians of ROUNDS (3) runs, in milliseconds, and in brackets the ratio to XFS.
set -u
cd "$(dirname "$0")/.." || exit 2
build=build
[ "${1:-}" = --build ] && build=$2
cow=$(realpath "$build")/cow
# shellcheck source=bench/lib.sh
. bench/lib.sh
bench_start
tar=$(tree_tar) || exit 1
rounds=${ROUNDS:-3}
kinds=${KINDS:-xfs cow btrfs ext4}
declare -A times

note() { times[$1/$2]+="$us "; }

edit() { find "$1" -name Makefile | sort | head -n 10 | while read -r f; do echo '# edited' >>"$f"; done; }

# One round of everything on one file system.
measure() {
	local kind=$1 at=$work/$1
	cd "$at" || exit 1
	mkdir a && time_us tar xf "$tar" -C a --strip-components=1 || bench_die "$kind: tar failed"
	note untar "$kind"
	time_us sync -f . && [ "$kind" != cow ] || time_us "$cow" sync .
	note sync "$kind"
	bench_remount "$kind" || bench_die "$kind: remount failed"
	cd "$at" || exit 1
	time_us find a -size +1000000
	note find-cold "$kind"
	time_us find a -size +1000000
	note find-warm "$kind"
	time_us sh -c 'tar cf - a | cat >/dev/null'
	note read "$kind"
	time_us cp -a --reflink=auto a b
	note copy-reflink "$kind"
	if [ "$kind" = cow ]; then
		time_us "$cow" clone a c
	else
		us=$(awk '{print $NF}' <<<"${times[copy-reflink/$kind]}")
		mv b c && mkdir b
	fi
	note clone "$kind"
	edit c
	if [ "$kind" = cow ]; then
		time_us "$cow" diff a c
	else
		time_us diff -rq --no-dereference a c
	fi
	note diff "$kind"
	if [ "$kind" = cow ]; then
		time_us "$cow" rm c
	else
		time_us rm -rf c
	fi
	note remove-clone "$kind"
	time_us rm -rf a
	note rm-rf "$kind"
	cd /
}

for round in $(seq "$rounds"); do
	for kind in $kinds; do
		echo "round $round: $kind" >&2
		bench_mount "$kind" || bench_die "$kind: cannot be made (is its mkfs installed?)"
		measure "$kind"
		bench_umount "$kind"
		rm -f "$work/$kind.img"
	done
done

printf '%-14s' ''
for kind in $kinds; do printf '%20s' "$kind"; done
echo
for what in untar sync find-cold find-warm read copy-reflink clone diff remove-clone rm-rf; do
	printf '%-14s' "$what"
	base=$(tr ' ' '\n' <<<"${times[$what/xfs]:-}" | grep . | median)
	for kind in $kinds; do
		value=$(tr ' ' '\n' <<<"${times[$what/$kind]}" | grep . | median)
		printf '%20s' "$(awk -v v="$value" -v b="${base:-0}" \
			'BEGIN {printf "%.1f", v / 1000; if (b > 0) printf " (%.2f)", v / b}')"
	done
	echo
done
echo
echo 'clone: cow clone, elsewhere cp -a --reflink=auto (ext4 copies). diff: cow diff, elsewhere diff -rq, after 10 edits.'
echo 'remove-clone: cow rm, elsewhere rm -rf.'
