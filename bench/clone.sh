#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# What cowlinks promises, in figures, on a mounted volume: bench/clone.sh [--build DIR]. FILES_MAX=1000000 and
# CLONES=10000 set the two sizes that take long.
set -u
cd "$(dirname "$0")/.." || exit 2
build=build
[ "${1:-}" = --build ] && build=$2
cow=$(realpath "$build")/cow
libbench=$(realpath "$build")/bench/bench_clone
# shellcheck source=bench/lib.sh
. bench/lib.sh
bench_start
tar=$(tree_tar) || exit 1
files_max=${FILES_MAX:-1000000} clones=${CLONES:-10000}

row() { printf '%-58s %s\n' "$1" "$2"; }

# The median of 50 clones of $1, each as a whole command.
clone_median() {
	local source=$1 i
	for i in $(seq 50); do
		time_us "$cow" clone "$source" "$source.clone$i" || bench_die "clone of $source failed"
		echo "$us"
	done | median
	for i in $(seq 50); do "$cow" rm "$source.clone$i"; done
}

# fill DIR FILES: small files, 500 to a directory, straight through the library's side of import.
fill() {
	python3 - "$1" "$2" <<'END' | "$cow" import - "$1" || bench_die "import failed"
import io, sys, tarfile
out = tarfile.open(fileobj=sys.stdout.buffer, mode="w|")
for i in range(int(sys.argv[2])):
    info = tarfile.TarInfo("dir%d/file%d" % (i // 500, i))
    info.size = 20
    out.addfile(info, io.BytesIO(b"file %014d\n" % i))
out.close()
END
}

bench_mount cow || bench_die "no volume"
cd "$work/cow" || exit 1

row 'process start alone (cow --version), median of 50' \
	"$(ms "$(for _ in $(seq 50); do time_us "$cow" --version; echo "$us"; done | median)")"

mkdir linux && time_us tar xf "$tar" -C linux --strip-components=1 || bench_die "tar failed"
row "tar x of the tree, $(find linux | wc -l) entries" "$(ms "$us")"
"$cow" sync .

mkdir ten && for i in $(seq 10); do echo "$i" >ten/$i; done
row 'cow clone of 10 files, median of 50' "$(ms "$(clone_median ten)")"
row 'cow clone of the tree, median of 50' "$(ms "$(clone_median linux)")"
fill "$work/cow/thousand" 1000
row 'cow clone of 1,000 files, median of 50' "$(ms "$(clone_median thousand)")"
fill "$work/cow/many" "$files_max"
"$cow" sync .
row "cow clone of $files_max files, median of 50" "$(ms "$(clone_median many)")"

# A one-line edit, five directories down.
"$cow" clone linux edited
before=$(used_bytes)
file=$(find edited -mindepth 6 -maxdepth 6 -type f -name '*.c' | sort | head -n 1)
[ -n "$file" ] || file=$(find edited -type f -size +0 | sort | head -n 1)
sed -i '1s/^/\/\/ one line\n/' "$file"
row "one-line edit of $(stat -c %s "$file") bytes, growth" "$(($(used_bytes) - before)) bytes"

# Ten edits, and a tree ten times as large.
edit_ten() {
	local n=0 f
	while read -r f; do
		case $((n++ % 5)) in
		0) echo 'a line' >>"$f" ;;
		1) sed -i '1d' "$f" ;;
		2) rm "$f" ;;
		3) chmod 600 "$f" ;;
		4) echo new >"$f.new" ;;
		esac
	done
}
"$cow" clone linux ten-edits
find ten-edits -name '*.h' | sort | awk 'NR % 2000 == 1' | head -n 10 | edit_ten
row 'cow diff after 10 edits, median of 50' \
	"$(ms "$(for _ in $(seq 50); do time_us "$cow" diff linux ten-edits; echo "$us"; done | median)")"
"$cow" clone many many-edits
find many-edits/dir7 many-edits/dir9 -type f | sort | head -n 10 | edit_ten
row "the same among $files_max files" \
	"$(ms "$(for _ in $(seq 50); do time_us "$cow" diff many many-edits; echo "$us"; done | median)")"
row 'cow du of the edited clone, median of 50' \
	"$(ms "$(for _ in $(seq 50); do time_us "$cow" du ten-edits; echo "$us"; done | median)")"
before=$(used_bytes)
row 'cow rm of an edited clone, median of 10' "$(ms "$(for i in $(seq 10); do
	"$cow" clone ten-edits "gone$i"
	echo x >>"gone$i/Makefile"
	time_us "$cow" rm "gone$i"
	echo "$us"
done | median)")"
row 'used bytes not back after the reclaim' "$(($(used_bytes) - before))"

# cp of a large file.
head -c "${BIG_BYTES:-10737418240}" /dev/urandom >big || bench_die "no space for the big file"
"$cow" sync .
before=$(used_bytes)
time_us cp big big.copy
row "cp of $(stat -c %s big) bytes" "$(ms "$us"), grows by $(($(used_bytes) - before)) bytes"
rm big big.copy

time_us cp -a --reflink=auto linux linux.cp
row 'cp -a --reflink=auto of the tree' "$(ms "$us")"
rm -rf linux.cp

# Side by side.
mkdir side
before=$(used_bytes)
time_us "$cow" clone linux side/1
first=$us
for i in $(seq 2 $((clones - 1))); do "$cow" clone linux side/$i; done
time_us "$cow" clone linux "side/$clones"
row "clone 1 and clone $clones side by side" "$(ms "$first"), $(ms "$us")"
row 'image for each 1,000 of them' "$((($(used_bytes) - before) * 1000 / clones / 1024)) KiB"
bench_umount cow

echo 'the library call alone:'
"$libbench" --dir "$work" --clones 1000 10 1000 "$files_max"
"$libbench" --dir "$work" --clones "$clones" 10
