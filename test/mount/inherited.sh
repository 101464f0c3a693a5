#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What a daemon has from who started it: limits, signals, timers, descriptors, directory.  Nothing of it may end the
# daemon, keep it from ending, or be kept by it.
# shellcheck source=test/mount/lib.sh disable=SC2154,SC2016,SC2317
user_mounts=1
. "$(dirname "$0")/lib.sh"

v=$top/vol image=$top/vol.img
chmod 755 "$top"
install -m 755 "$COW" "$top/cow"

# scene FUNCTION: on a new volume, whatever the one before has left
scene() {
	local p
	[ ! -e "$image" ] || for p in $(daemon); do kill -9 "$p"; done
	umount -l "$v" 2>/dev/null || true
	rm -f "$image"
	make_image vol 1G >/dev/null
	"$@"
}

# without CAP_SYS_RESOURCE, as a user
unprivileged() {
	timeout 60 setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource -- "$@"
}

is_privileged() {
	[ $((0x$(awk '/^CapEff:/ {print $2}' /proc/self/status) >> 24 & 1)) = 1 ]
}

# The daemon is who has the lock on the image.
daemon() {
	awk -v inode="$(stat -c %i "$image")" '$2 == "FLOCK" && $6 ~ ":" inode "$" {print $5}' /proc/locks
}

status_of() { # FIELD
	awk -v f="$1:" '$1 == f {print $2}' "/proc/$(daemon)/status"
}

# limit_is NAME SOFT HARD: as /proc/PID/limits has it
limit_is() {
	local line
	line=$(grep "^Max $1 " /proc/"$(daemon)"/limits)
	[ "$(sed 's/^.\{26\}//' <<<"$line" | awk '{print $1, $2}')" = "$2 $3" ] || fail "expected $2 $3: $line"
}

signal_set() { # NAME...: as /proc/PID/status shows it
	local name bits=0
	for name; do bits=$((bits | 1 << ($(kill -l "$name") - 1))); done
	printf '%016x' $bits
}

# wait_closed: until the image is not locked any more
wait_closed() {
	flock -s -w 30 "$image" true || fail "the daemon does not end"
	mountpoint -q "$v" && fail "still mounted" || true
}

# ends SIGNAL: the daemon works, and the signal ends it in an orderly way
ends() {
	seq 10000 >"$v/f"
	cp "$v/f" "$top/f"
	kill -"$1" "$(daemon)"
	wait_closed
	check_image vol
	mount_image vol ro
	cmp "$v/f" "$top/f"
	"$COW" umount "$v"
}

await() {
	for _ in $(seq 200); do
		! mountpoint -q "$v" || return 0
		sleep 0.05
	done
	fail "no mount: $(cat "$top/said")"
}

foreground() { # [COMMAND...]: starts the mount with it, and waits until it serves
	"$@" "$COW" mount -f "$image" "$v" >"$top/said" 2>&1 &
	await
}

soft_limits() {
	(ulimit -Sf 100 && ulimit -St 1 && ulimit -Sv 4000000 && ulimit -Ss 256 && ulimit -Sn 16 && mount_image vol) \
		2>"$top/err"
	[ ! -s "$top/err" ] || fail "$(cat "$top/err")"
	limit_is "file size" unlimited unlimited
	limit_is "cpu time" unlimited unlimited
	limit_is "address space" unlimited unlimited
	limit_is "stack size" 8388608 unlimited
	dd if=/dev/urandom of="$v/big" bs=1M count=200 status=none
	"$COW" sync "$v"
	ends TERM
}

hard_limits() {
	is_privileged || skip "needs CAP_SYS_RESOURCE"
	(ulimit -f 100 && ulimit -t 1 && ulimit -v 4000000 && ulimit -d 4000000 && mount_image vol) 2>"$top/err"
	[ ! -s "$top/err" ] || fail "$(cat "$top/err")"
	limit_is "file size" unlimited unlimited
	limit_is "cpu time" unlimited unlimited
	limit_is "address space" unlimited unlimited
	limit_is "data size" unlimited unlimited
	dd if=/dev/urandom of="$v/big" bs=1M count=200 status=none
	"$COW" sync "$v"
	ends TERM
}

# refused COMMAND...: status 1 and one line on stderr that names ulimit -f
refused() {
	local status=0
	"$@" >"$top/out" 2>"$top/err" || status=$?
	[ $status = 1 ] && [ "$(wc -l <"$top/err")" = 1 ] && grep -q 'ulimit -f' "$top/err" ||
		fail "$*: status $status: $(cat "$top/err")"
}

file_size() {
	(ulimit -f 100000 && refused unprivileged "$COW" mount "$image" "$v")
	mountpoint -q "$v" && fail "mounted" || true
	check_image vol
	(ulimit -f 100000 && unprivileged "$COW" mount -r "$image" "$v") # never written to
	ls "$v" >/dev/null
	"$COW" umount "$v"
	(ulimit -f 1048576 && unprivileged "$COW" mount "$image" "$v") # just enough
	dd if=/dev/urandom of="$v/big" bs=1M count=200 status=none
	ends TERM
}

user() {
	command -v fusermount3 >/dev/null || skip "needs fusermount3"
	install -d -o nobody "$top/own" "$top/own/m"
	runuser -u nobody -- "$top/cow" format -q "$top/own/i.img" --size 256M
	(ulimit -f 100000 && refused timeout 60 runuser -u nobody -- "$top/cow" mount "$top/own/i.img" "$top/own/m")
	runuser -u nobody -- sh -c "ulimit -Sf 100; '$top/cow' mount '$top/own/i.img' '$top/own/m'"
	runuser -u nobody -- dd if=/dev/urandom of="$top/own/m/f" bs=1M count=20 status=none
	runuser -u nobody -- "$top/cow" umount "$top/own/m"
	"$COW" check "$top/own/i.img"
}

# The limit is told, and ends the mount while there still is time for that.
processor_time() {
	(ulimit -t 2 && unprivileged "$COW" mount "$image" "$v") 2>"$top/err"
	[ "$(wc -l <"$top/err")" = 1 ] && grep -q 'ulimit -t' "$top/err" || fail "$(cat "$top/err")"
	mkdir "$v/d"
	timeout 100 perl -e 'while (open(F, ">", $ARGV[0])) { close F; unlink $ARGV[0] }' "$v/d/f" || fail "still there"
	wait_closed
	check_image vol
	mount_image vol ro
	[ -d "$v/d" ] || fail "what was not committed yet is lost"
	"$COW" umount "$v"
}

memory() {
	(ulimit -v 4000000 && unprivileged "$COW" mount "$image" "$v") 2>"$top/err"
	[ "$(wc -l <"$top/err")" = 1 ] && grep -q 'ulimit -v' "$top/err" || fail "$(cat "$top/err")"
	dd if=/dev/urandom of="$v/big" bs=1M count=200 status=none
	ends TERM
}

signals() {
	local how
	for how in --block-signal --ignore-signal "--block-signal --ignore-signal"; do
		# shellcheck disable=SC2086
		timeout 60 env $how "$COW" mount "$image" "$v"
		[ "$(status_of SigIgn)" = "$(signal_set PIPE XFSZ)" ] || fail "$how: ignored: $(status_of SigIgn)"
		[ "$(status_of SigBlk)" = "$(signal_set HUP INT TERM ALRM XCPU USR2)" ] ||
			fail "$how: blocked: $(status_of SigBlk)"
		ends TERM
		# In the foreground, who was told not to be interrupted is not.
		# shellcheck disable=SC2086
		foreground env $how
		case $how in
		*ignore*)
			[ "$(status_of SigIgn)" = "$(signal_set HUP INT QUIT PIPE XFSZ)" ] || fail "$how: $(status_of SigIgn)"
			[ "$(status_of SigBlk)" = "$(signal_set TERM ALRM XCPU USR2)" ] || fail "$how: $(status_of SigBlk)"
			;;
		esac
		ends TERM
	done
	# What fails in the child is heard, also by who was told not to listen to children.
	! timeout 60 env --ignore-signal=CHLD "$COW" mount "$top/cow" "$v" 2>"$top/err" || fail "a program is no image"
	[ "$(wc -l <"$top/err")" = 1 ] || fail "$(cat "$top/err")"
}

signals_to_end() {
	local signal
	for signal in HUP INT TERM ALRM XCPU; do
		foreground env --default-signal
		ends $signal
	done
	foreground nohup
	kill -HUP "$(daemon)"
	touch "$v/lives"
	ends TERM
	mount_image vol
	for signal in HUP USR1 USR2; do kill -$signal "$(daemon)"; done
	touch "$v/lives"
	ends TERM
}

alarm() {
	perl -e 'alarm 1; exec @ARGV' "$COW" mount "$image" "$v"
	sleep 1.5
	ends TERM
	timeout 60 perl -e 'alarm 1; exec @ARGV' "$COW" mount -f "$image" "$v" || fail "did not end as with SIGTERM: $?"
	wait_closed
	check_image vol
}

descriptors() {
	local fd to
	(exec 7>"$top/lock" 8<"$top" 200>"$top/far" && flock 7 && mount_image vol)
	flock -n "$top/lock" true || fail "the daemon holds its starter's lock"
	for fd in /proc/"$(daemon)"/fd/*; do
		to=$(readlink "$fd")
		case ${fd##*/} in
		[012]) [ "$to" = /dev/null ] || fail "$fd is $to" ;;
		*)
			case $to in
			"$image" | /dev/fuse) ;;
			*) fail "$fd is $to" ;;
			esac
			;;
		esac
	done
	ends TERM
	# Who reads to the end of a pipe is not kept waiting, whatever number it has.
	[ -z "$(timeout 60 "$COW" mount "$image" "$v" 9>&1 2>&1)" ] || fail "says something"
	ends TERM
	{ timeout 60 "$COW" mount "$image" "$v" 9>&1 | timeout 20 cat; } || fail "a pipe is kept open"
	ends TERM
	# In the foreground it is the starter's own command.
	foreground flock "$top/lock"
	! flock -n "$top/lock" true || fail "the lock is gone"
	ends TERM
}

# closed STANDARD-DESCRIPTORS COMMAND...
closed() {
	local which=$1
	shift
	(
		[[ $which != *0* ]] || exec 0<&-
		[[ $which != *1* ]] || exec 1>&-
		[[ $which != *2* ]] || exec 2>&-
		exec "$@"
	)
}

standard_descriptors() {
	local which pid fd
	for which in "" 0 1 2 01 02 12 012; do
		closed "$which" "$COW" mount "$image" "$v"
		pid=$(daemon)
		for fd in 0 1 2; do [ "$(readlink "/proc/$pid/fd/$fd")" = /dev/null ] || fail "$which: $fd"; done
		ends TERM
		closed "$which" "$COW" mount -f "$image" "$v" &
		await
		ends TERM
	done
}

directory() {
	mkdir -p "$top/t"
	mount -t tmpfs tmpfs "$top/t"
	(cd "$top/t" && umask 0777 && "$COW" mount ../vol.img ../vol)
	umount "$top/t"
	(umask 027 && mkdir "$v/dir" && : >"$v/dir/file")
	[ "$(stat -c %a "$v/dir" "$v/dir/file")" = $'750\n640' ]
	ends TERM
}

# PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, for each thread
flusher() {
	local stat flags
	is_privileged || skip "needs CAP_SYS_RESOURCE"
	mount_image vol
	for stat in /proc/"$(daemon)"/task/*/stat; do
		flags=$(sed 's/.*) //' "$stat" | cut -d ' ' -f 7)
		[ $((flags & 0x180000)) = $((0x180000)) ] || fail "$stat: flags $flags"
	done
	ends TERM
}

t "soft limits are raised" scene soft_limits
t "hard limits are, too, with the privilege" scene hard_limits
t "a limit of file sizes below the image's is refused, but not for reading only" scene file_size
t "the same for a user" scene user
t "a limit of processor time is told, and ends the mount with all that was written" scene processor_time
t "a limit of memory is told" scene memory
t "blocked and ignored signals" scene signals
t "which signals end a mount" scene signals_to_end
t "an armed alarm" scene alarm
t "open descriptors" scene descriptors
t "closed standard descriptors" scene standard_descriptors
t "the working directory, and the umask" scene directory
t "all threads are known to write back" scene flusher
finish
