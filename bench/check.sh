#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What `cow check` costs on a volume of many clones, each edited: time, memory, nodes; and `--repair` after one node of
# it was damaged: bench/check.sh [--build DIR]. CLONES=1000 sets how many, EDITS=1 the files changed in each; KEEP=FILE
# keeps the image.
set -u
cd "$(dirname "$0")/.." || exit 2
build=build
[ "${1:-}" = --build ] && build=$2
cow=$(realpath "$build")/cow
# shellcheck source=bench/lib.sh
. bench/lib.sh
bench_start
clones=${CLONES:-1000} edits=${EDITS:-1}
image=$work/cow.img

row() { printf '%-46s %s\n' "$1" "$2"; }

make_volume() {
	local tar files i k
	tar=$(tree_tar) || exit 1
	bench_mount cow || bench_die "cannot mount"
	mkdir "$work/cow/tree"
	tar -xf "$tar" -C "$work/cow/tree" || bench_die "cannot unpack $tar"
	mapfile -t files < <(cd "$work/cow/tree" && find . -type f | sort | awk 'NR % 77 == 1')
	for i in $(seq "$clones"); do
		"$cow" clone "$work/cow/tree" "$work/cow/clone$i" >/dev/null || bench_die "cannot clone"
		for k in $(seq "$edits"); do
			echo "edit $k of clone $i" >>"$work/cow/clone$i/${files[(i * 31 + k * 7) % ${#files[@]}]}"
		done
	done
	bench_umount cow
}

# measure COMMAND...: leaves seconds in $seconds, peak memory in $peak_kib, its output in $work/out. GNU time is small: the
# peak counts what the process had before exec too.
measure() {
	env time -q -o "$work/cost" -f '%e %M %x' "$@" >"$work/out"
	read -r seconds peak_kib status <"$work/cost"
}

field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/out" "$1"; }

check_row() {
	local nodes
	shift
	measure "$cow" check --json "$@" "$image"
	nodes=$(field nodes)
	row "$label" "$seconds s, $((peak_kib / 1024)) MiB; says $(($(field peak_bytes) >> 20)) MiB"
	row "  nodes, data blocks, clones, findings" \
		"$nodes, $(field data_blocks), $(field worlds), $(field findings_count)"
	row "  memory for each node" "$((peak_kib * 1024 / nodes)) bytes"
}

if [ -n "${KEEP:-}" ] && [ -s "$KEEP" ]; then
	cp --sparse=always "$KEEP" "$image"
else
	make_volume
	[ -z "${KEEP:-}" ] || cp --sparse=always "$image" "$KEEP"
fi
row "image" "$(stat -c %b "$image" | awk '{printf "%.1f GiB", $1 / 2 / 1024 / 1024}'), $clones clones, $edits edits in each"
label="cow check, cache cold"
echo 3 >/proc/sys/vm/drop_caches
check_row --
label="cow check, cache warm"
check_row --
[ -z "${DATA:-}" ] || { label="cow check --data"; check_row -- --data; }
measure "$cow" dump "$image" super
block=$(awk '/^ *root 1|top/ {for (i = 1; i <= NF; i++) if ($i ~ /^[0-9]+$/ && $i > 100) {print $i; exit}}' "$work/out")
if [ -n "$block" ]; then
	dd if=/dev/zero of="$image" bs=4096 seek="$block" count=1 conv=notrunc status=none
	measure "$cow" check --repair "$image"
	row "cow check --repair, the root's leaf is gone" "$seconds s, $((peak_kib / 1024)) MiB, status $status"
	grep -a repaired "$work/out"
fi
