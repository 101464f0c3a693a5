#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# An 8 KiB overwrite and fsync, on cowlinks, XFS and btrfs, their images side by side in one directory of the host, with
# and without a second process that writes 500 MB/s and never syncs: bench/fsync.sh [--build DIR] [--json] [--data].
#
# XFS and btrfs are on loop devices as losetup makes them by itself, which is through the host's page cache, and on such
# with --direct-io=on (NAME-direct). All are mounted at once and measured in turns, ROUNDS (3) times SECONDS_EACH (3)
# seconds; the medians of the rounds are shown. KINDS="cow xfs btrfs xfs-direct btrfs-direct", WRITER=500 (MB/s),
# WRITER_FILE=1024 (MiB), BENCH_DIR: where the images are made, which decides on the disk.
set -u
cd "$(dirname "$0")/.." || exit 2
build=build json='' data='' call=fsync
while [ $# -gt 0 ]; do
	case $1 in
	--build) build=$2; shift ;;
	--json) json=1 ;;
	--data) data=--data call=fdatasync ;;
	*) echo "usage: bench/fsync.sh [--build DIR] [--json] [--data]" >&2; exit 2 ;;
	esac
	shift
done
cow=$(realpath "$build")/cow
program=$(realpath "$build")/bench/bench_fsync
# shellcheck source=bench/lib.sh
. bench/lib.sh
[ -x "$program" ] || bench_die "$program is not built (make $build/bench/bench_fsync)"
bench_start
rounds=${ROUNDS:-3} seconds=${SECONDS_EACH:-3} writer=${WRITER:-500}
export BENCH_SIZE=${BENCH_SIZE:-8G}
declare -A values
kinds=()
for kind in ${KINDS:-cow xfs btrfs xfs-direct btrfs-direct}; do
	type=${kind%-direct}
	if [ "$type" != cow ] && ! command -v "mkfs.$type" >/dev/null; then
		echo "skipped: $kind: mkfs.$type is not installed (tools/packages bench)" >&2
	elif bench_mount "$kind"; then
		kinds+=("$kind")
	else
		echo "skipped: $kind: cannot be made or mounted here" >&2
	fi
done

# settle: no write-back of one measurement in the next
settle() {
	local kind
	for kind in "${kinds[@]}"; do [ "$kind" != cow ] || "$cow" sync "$work/cow"; done
	sync
}

# measure LOAD KIND [OPTION...]
measure() {
	local load=$1 kind=$2 ops median p99 max rate
	shift 2
	settle
	# shellcheck disable=SC2086
	read -r ops median p99 max rate < <("$program" --seconds "$seconds" --seed "$round" $data "$@" "$work/$kind")
	[ -n "${rate:-}" ] || bench_die "$kind: the measurement failed"
	values[ops/$load/$kind]+="$ops " values[median/$load/$kind]+="$median " values[p99/$load/$kind]+="$p99 "
	values[max/$load/$kind]+="$max " values[writer/$load/$kind]+="$rate "
}

for kind in "${kinds[@]}"; do # fills the files
	"$program" --seconds 0.1 "$work/$kind" >/dev/null || bench_die "$kind: the measurement failed"
done
for round in $(seq "$rounds"); do
	for kind in "${kinds[@]}"; do
		echo "round $round: $kind" >&2
		measure quiet "$kind"
	done
done
for round in $(seq "$rounds"); do
	for kind in "${kinds[@]}"; do
		echo "round $round, with a writer: $kind" >&2
		measure writer "$kind" --writer "$writer" --writer-file "${WRITER_FILE:-1024}"
	done
done

value() { tr ' ' '\n' <<<"${values[$1]:-}" | grep . | median; }

ratio() { awk -v a="$1" -v b="$2" 'BEGIN {if (b > 0) printf "%.2f", a / b; else printf "-"}'; }

print_table() {
	local load kind ops columns='%-14s%10s%12s%12s%12s%12s%12s%12s\n'
	echo "8 KiB overwrite and $call, $rounds x $seconds s, in $work"
	for load in quiet writer; do
		[ $load = quiet ] && echo 'alone' || echo "beside a process that writes $writer MB/s unsynced"
		# shellcheck disable=SC2059
		printf "$columns" '' ops/s median/us p99/us max/us 'writer MB/s' 'cow/this' 'this/xfs'
		for kind in "${kinds[@]}"; do
			ops=$(value "ops/$load/$kind")
			# shellcheck disable=SC2059
			printf "$columns" "$kind" "$ops" "$(value "median/$load/$kind")" "$(value "p99/$load/$kind")" \
				"$(value "max/$load/$kind")" "$(value "writer/$load/$kind")" \
				"$(ratio "$(value "ops/$load/cow")" "$ops")" "$(ratio "$ops" "$(value "ops/$load/xfs")")"
		done
	done
}

print_json() {
	local load kind what comma='' inner
	printf '{"rounds": %s, "seconds": %s, "writer_mb_per_s": %s, "call": "%s", "results": [' "$rounds" "$seconds" \
		"$writer" "$call"
	for load in quiet writer; do
		for kind in "${kinds[@]}"; do
			printf '%s\n  {"load": "%s", "kind": "%s"' "$comma" "$load" "$kind"
			for what in ops median p99 max writer; do
				inner=$(value "$what/$load/$kind")
				printf ', "%s": %s' "$what" "${inner:-null}"
			done
			printf '}'
			comma=,
		done
	done
	printf '\n]}\n'
}

if [ -n "$json" ]; then print_json; else print_table; fi
