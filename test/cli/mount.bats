#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# Verbs on a mounted volume.
load lib.bash

@test "mount, use, unmount: the image is closed when umount returns" {
	mounted
	echo hello >m/f
	refused 1 "in use" "$COW" ls img:/
	"$COW" umount m
	run -0 "$COW" ls img:/
	[ "$output" = f ]
	"$COW" check --data img
	refused 1 "not mounted" "$COW" umount m
	"$COW" mount img m
	[ "$(cat m/f)" = hello ]
}

@test "what cannot be mounted or unmounted" {
	need_mount
	image
	mkdir m
	refused 1 "No such file" "$COW" mount none m
	refused 1 "No such file" "$COW" mount img none
	refused 1 "Not a directory" "$COW" mount img img
	run -2 "$COW" mount img m -o frob
	[[ $output == *frob* ]]
	"$COW" mount img m
	mkdir m2
	refused 1 "mounted already" "$COW" mount img m2
	cd m
	refused() { :; }
	run -1 "$COW" umount ../m
	[[ $output == *"in use"* ]]
}

@test "mount warns of an image that others can open" {
	mounted 2>err
	[ ! -s err ]
	"$COW" umount m
	for mode in 600:no 400:no 700:no 711:no 640:read 604:read 644:read 620:change 602:change 660:read\ and\ change; do
		chmod "${mode%:*}" img
		"$COW" mount -r img m 2>err
		"$COW" umount m
		if [ "${mode#*:}" = no ]; then
			[ ! -s err ]
		else
			[ "$(wc -l <err)" = 1 ]
			grep -qF "warning: img can be opened by other users (mode 0${mode%:*}): they can ${mode#*:} all" err
		fi
		[ "$(stat -c %a img)" = "${mode%:*}" ]
	done
	chmod 600 img
	setfacl -m u:65534:r img || skip "no ACLs here: the rest was good"
	"$COW" mount img m 2>err
	grep -qF "warning: img can be opened by other users (mode 0640)" err
}

@test "mount warns of a device that others can open, and not of its group" {
	need_mount
	[ "$(id -u)" = 0 ] || skip "needs root"
	truncate -s 64M disk
	device=$(losetup --find --show disk) || skip "no loop devices"
	exec 8<>"$device"
	losetup -d "$device" # when it is closed
	"$COW" format -q "$device"
	mkdir m
	for mode in 660:0 664:1 666:1 600:0; do
		chmod "${mode%:*}" "$device"
		"$COW" mount "$device" m 2>err 8>&-
		"$COW" umount m
		[ "$(grep -c "warning: $device can be .*chmod o-rw $device" err)" = "${mode#*:}" ]
	done
	chmod 660 "$device"
}

@test "mount says who has the image locked" {
	need_mount
	image
	mkdir m
	flock -s img sleep 60 3>&- &
	holder=$!
	until grep -q "FLOCK .* $holder " /proc/locks; do sleep 0.05; done
	refused 1 "process $holder (flock) has it locked" "$COW" mount img m
	pkill -P $holder sleep
	exec 9<img
	flock -s 9
	refused 1 "in use by another program; \`fuser -v " "$COW" mount img m
}

@test "clone a directory and a file, each way" {
	mounted
	tree m/t
	listing m/t >before
	"$COW" clone m/t m/c
	same_text before <(listing m/c)
	"$COW" clone m/t/big m/t/big2
	cmp m/t/big m/t/big2
	rm m/t/big2
	(cd m/c && "$COW" clone . ../from-dot)
	same_text before <(listing m/from-dot)
	mkdir m/dir
	"$COW" clone m/t m/dir/
	[ -d m/dir/t ]
	"$COW" clone m/t/ m/dir/other
	"$COW" clone --read-only m/t m/ro
	run -1 touch m/ro/new
	[ -z "$(find m -name '.cow-*')" ]
}

@test "clone: what is refused leaves nothing" {
	mounted
	mkdir m/d elsewhere
	echo x >m/f
	ln -s d m/l
	mkfifo m/p
	refused 1 "No such file" "$COW" clone m/none m/new
	refused 1 "No such file" "$COW" clone m/d m/none/new
	refused 1 "exists" "$COW" clone m/d m/f
	refused 1 "exists" "$COW" clone m/d m/d
	refused 1 "Not a directory" "$COW" clone m/d m/f/x
	refused 1 "symbolic link" "$COW" clone m/l m/new
	refused 1 "no file and no directory" "$COW" clone m/p m/new
	refused 1 "different mounts" "$COW" clone m/d elsewhere/new
	refused 1 "cp -a" "$COW" clone elsewhere m/new
	refused 1 "cp -a" "$COW" clone elsewhere elsewhere2
	refused 1 "read-only" "$COW" clone --read-only m/f m/new
	refused 1 "full name" "$COW" clone m/d m/..
	[ "$(ls -A m)" = "$(printf 'd\nf\nl\np')" ]
	"$COW" clone m/l/ m/new
}

@test "rm" {
	mounted
	tree m/t
	"$COW" clone m/t m/c
	"$COW" rm m/t m/c/d
	[ "$(ls m)" = c ]
	[ ! -e m/c/d ]
	refused 1 "No such file" "$COW" rm m/none
	"$COW" rm -f m/none
	refused 1 "mount point" "$COW" rm m
	mkdir elsewhere
	refused 1 "rm -r" "$COW" rm elsewhere
	ln -s c m/link
	"$COW" rm m/link
	[ -d m/c ]
	"$COW" rm m/c
	"$COW" sync --drain m
	[ -z "$(ls -A m)" ]
}

@test "import onto and export from a mount" {
	mounted
	tree t
	"$COW" import t m/t
	same_text <(listing t) <(listing m/t)
	"$COW" export m/t out
	same_trees t out
	"$COW" export m/t - | "$COW" import - m/u
	same_text <(listing t) <(listing m/u)
	refused 1 "exists" "$COW" import t m/t
	[ -z "$(find m -name '.cow-*')" ]
}

@test "diff, same, du, stat, info, ls" {
	mounted
	mkdir -p m/t/sub
	echo one >m/t/a
	echo two >m/t/sub/b
	ln -s a m/t/l
	"$COW" clone m/t m/c
	"$COW" same m/t m/c
	run -0 "$COW" diff m/t m/c
	[ -z "$output" ]
	echo changed >m/c/sub/b
	chmod 700 m/c/a
	rm m/c/l
	mkdir m/c/l
	touch $'m/c/new\nline'
	run -1 "$COW" diff m/t m/c
	[ "$output" = $'m a\nT l\nA "new\\nline"\nM sub/b' ]
	run -1 "$COW" same m/t m/c
	run -0 "$COW" du m/t m/c
	[ "${#lines[@]}" = 2 ]
	run -0 "$COW" stat m/c
	[[ $output == *"a clone"* ]]
	run -0 "$COW" stat m/t/l
	[[ $output == *"symbolic link"* ]]
	run -0 "$COW" info m
	[[ $output == *"state        mounted"* ]]
	run -0 "$COW" ls -l m
	[[ ${lines[0]} =~ ^drwx......c ]]
	for arguments in 'du --json m/t' 'stat --json m/t m/t/a m/t/l' 'info --json m' 'ls --json m/t'; do
		# shellcheck disable=SC2086
		"$COW" $arguments | python3 -m json.tool >/dev/null
	done
	mkdir elsewhere
	refused 2 "diff -r" "$COW" diff elsewhere elsewhere
	refused 2 "diff -r" "$COW" diff m/t elsewhere
	refused 1 "use \`du\`" "$COW" du elsewhere
	refused 1 "not on a cowlinks mount" "$COW" info elsewhere
	"$COW" sync m
	refused 1 "not on a cowlinks mount" "$COW" sync elsewhere
}

@test "many changes come in many pieces" {
	mounted
	mkdir m/old
	"$COW" clone m/old m/new
	(cd m/new && for n in $(seq 3000); do : >"a rather long name, so that the answer is long, number $n"; done)
	run -1 "$COW" diff m/old m/new
	[ "${#lines[@]}" = 3000 ]
	diff <("$COW" diff m/old m/new | sed 's/^A //') <(cd m/new && printf '%s\n' * | LC_ALL=C sort)
}

@test "other users: what the daemon does not tell them at once is walked" {
	need_mount
	[ "$(id -u)" = 0 ] || skip "needs root"
	image
	mkdir m
	"$COW" mount img m -o allow_other
	chmod 755 m
	install -m 755 "$COW" "$BATS_TEST_TMPDIR/cow"
	path=$BATS_TEST_TMPDIR
	while [ "$path" != / ]; do chmod a+x "$path"; path=$(dirname "$path"); done
	as() { setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"; }
	install -d -o 65534 -g 65534 m/own
	as mkdir -p m/own/t/d
	as sh -c 'echo 1 >m/own/t/a; echo 2 >m/own/t/d/b; ln m/own/t/a m/own/t/d/l; ln -s x m/own/t/s; echo 3 >m/own/t/gone'
	as cp -a m/own/t m/own/c
	as ./cow same m/own/t m/own/c
	run -0 as ./cow diff m/own/t m/own/c
	[ -z "$output" ]
	as sh -c 'echo 11 >m/own/c/d/b; chmod 600 m/own/c/a; rm m/own/c/gone m/own/c/s; mkdir m/own/c/s m/own/c/new; touch m/own/c/new/n'
	"$COW" diff m/own/t m/own/c >expected || [ $? = 1 ]
	run -1 as ./cow diff m/own/t m/own/c
	[ "$output" = "$(cat expected)" ]
	run -1 as ./cow diff --patch m/own/t m/own/c
	run -1 as ./cow same m/own/t m/own/c
	run -0 as ./cow du --json m/own/t
	[[ $output == *'"files": 4,'*'"directories": 1,'* ]]
	as ./cow clone -v m/own/t m/own/copy
	"$COW" same m/own/t m/own/copy
	as ./cow rm m/own/copy
	[ ! -e m/own/copy ]
	install -m 600 /dev/null m/own/c/private
	refused 2 "Permission denied" as ./cow diff m/own/t m/own/c
}
