# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# For the benchmarks: places to measure in (a cowlinks volume, other file systems on loop devices), times, medians.
# shellcheck disable=SC2154,SC2034
# Sourced. Needs $cow (the program) and root; leaves nothing mounted.

work=${BENCH_DIR:-${TMPDIR:-/tmp}/cow-bench-$$}
mounts=()

bench_die() {
	echo "bench: $1" >&2
	exit 1
}

bench_cleanup() {
	local at
	cd /
	for at in "${mounts[@]}"; do
		if mountpoint -q "$at"; then
			case $at in
			*/cow) "$cow" umount "$at" || umount -l "$at" ;;
			*) umount "$at" || umount -l "$at" ;;
			esac
		fi
	done
	rm -rf "$work"
}

bench_start() {
	[ "$(id -u)" = 0 ] || bench_die "needs root (loop devices, dropping caches)"
	[ -x "$cow" ] || bench_die "$cow is not built"
	mkdir -p "$work"
	trap bench_cleanup EXIT
	trap 'exit 1' INT TERM
}

# COW_OPTIONS: mount options for cowlinks.
# bench_mount KIND: makes and mounts a fresh volume of that kind (cow, xfs, btrfs, ext4) at $work/KIND. KIND-direct is
# on a loop device that goes past the host's page cache.
bench_mount() {
	local kind=$1 at=$work/$1 image=$work/$1.img direct=off device
	[ "$kind" = "${kind%-direct}" ] || direct=on
	mkdir -p "$at"
	rm -f "$image"
	case $kind in
	cow)
		"$cow" format "$image" --size 100G >/dev/null && "$cow" mount "$image" "$at" -o "${COW_OPTIONS:-rw}" || return 1
		;;
	*)
		truncate -s "${BENCH_SIZE:-30G}" "$image"
		case $kind in
		xfs*) mkfs.xfs -q -m reflink=1 "$image" ;;
		btrfs*) mkfs.btrfs -q "$image" >/dev/null 2>&1 ;;
		ext4*) mkfs.ext4 -q -E lazy_itable_init=0 "$image" ;;
		esac || return 1
		if [ $direct = on ]; then
			device=$(losetup --find --show --direct-io=on "$image") || return 1
			mount -o noatime "$device" "$at"
			losetup -d "$device" # when it is unmounted
		else
			mount -o loop,noatime "$image" "$at"
		fi
		mountpoint -q "$at" || return 1
		;;
	esac
	mounts+=("$at")
}

bench_umount() {
	cd /
	case $1 in
	cow) "$cow" umount "$work/cow" ;;
	*) umount "$work/$1" ;;
	esac
}

# Away from all caches, the daemon's too.
bench_remount() {
	bench_umount "$1"
	echo 3 >/proc/sys/vm/drop_caches
	case $1 in
	cow) "$cow" mount "$work/cow.img" "$work/cow" ;;
	*) mount -o loop,noatime "$work/$1.img" "$work/$1" ;;
	esac
}

# time_us COMMAND...: leaves the microseconds in $us, the exit status is the command's.
time_us() {
	local begin end status=0
	begin=${EPOCHREALTIME/[.,]/}
	"$@" >/dev/null 2>&1 || status=$?
	end=${EPOCHREALTIME/[.,]/}
	us=$((end - begin))
	return $status
}

median() { sort -n | awk '{v[NR] = $1} END {if (NR) print v[int((NR + 1) / 2)]}'; }

ms() { awk -v us="$1" 'BEGIN {printf us < 100000 ? "%.2f ms" : "%.0f ms", us / 1000}'; }

# Bytes that the image takes on the host, everything written.
image_bytes() {
	"$cow" sync "$work/cow" || return 1
	echo $(($(stat -c %b "$work/cow.img") * 512))
}

# Bytes in use, from the volume's own books.
used_bytes() {
	"$cow" sync --drain "$work/cow" || return 1
	stat -f -c '%b %f %S' "$work/cow" | awk '{printf "%.0f\n", ($1 - $2) * $3}'
}

# The tree that everything is measured on: a tar file, from Debian's linux-source package unless TREE_TAR names one.
tree_tar() {
	local cache=${TMPDIR:-/tmp}/cow-bench-tree.tar xz
	if [ -n "${TREE_TAR:-}" ]; then
		echo "$TREE_TAR"
		return
	fi
	if [ ! -s "$cache" ]; then
		xz=$(find /usr/src -maxdepth 1 -name 'linux-source-*.tar.xz' | sort | tail -n 1)
		[ -n "$xz" ] || bench_die "no source tree: install linux-source-6.1, or set TREE_TAR to a tar file"
		xz -dc "$xz" >"$cache.part" && mv "$cache.part" "$cache"
	fi
	echo "$cache"
}
