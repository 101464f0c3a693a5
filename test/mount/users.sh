#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Other users in an allow_other mount: permissions hold, they clone what is theirs, and a clone does not show them, keep
# alive or give them what they could not have reached.
# shellcheck source=test/mount/lib.sh disable=SC2154,SC2016,SC2317
. "$(dirname "$0")/lib.sh"

chmod 755 "$top"
install -m 755 "$COW" "$top/cow"
v=$top/vol
as() {
	runuser -u nobody -- "$@"
}
denied() {
	if as "$@" >"$top/out" 2>"$top/err"; then fail "nobody may: $*"; fi
	grep -qiE 'denied|not permitted' "$top/err" || fail "$*: $(cat "$top/err")"
}

prepare() {
	make_image vol 1G
	mount_image vol allow_other
	chmod 755 "$v"
	install -d -o nobody "$v/own"
	mkdir "$v/root" "$v/secret" "$v/shared"
	chmod 700 "$v/secret"
	chmod 1777 "$v/shared"
	echo "root's" >"$v/root/file"
	echo "secret" >"$v/root/private"
	chmod 600 "$v/root/private"
	echo "secret" >"$v/secret/inside"
	as mkdir -p "$v/own/a/b/c"
	for i in $(seq 200); do as sh -c 'echo "file $1" >"$2/own/a/b/f$1"' sh "$i" "$v"; done 2>/dev/null
	as ln "$v/own/a/b/f1" "$v/own/a/link"
}

permissions() {
	denied cat "$v/root/private"
	denied cat "$v/secret/inside"
	denied ls "$v/secret"
	denied touch "$v/root/new"
	denied rm "$v/root/file"
	denied sh -c "echo x >>$v/root/file"
	denied chmod 777 "$v/root/file"
	denied chown nobody "$v/root/file"
	denied mv "$v/root/file" "$v/own/file"
	denied truncate -s 0 "$v/root/file"
	denied setfattr -n user.x -v 1 "$v/root/file"
	as cat "$v/root/file" >/dev/null
	echo sticky >"$v/shared/roots"
	denied rm "$v/shared/roots"
	denied mv "$v/shared/roots" "$v/shared/mine"
	as sh -c "echo mine >$v/shared/mine"
	as rm "$v/shared/mine"
	# Writing takes set-id bits away, owners of new files are their makers.
	install -m 4755 -o root /bin/true "$v/shared/setuid"
	chmod o+w "$v/shared/setuid"
	as sh -c "echo x >>$v/shared/setuid"
	[ "$(stat -c %a "$v/shared/setuid")" = 757 ] || fail "set-uid after a write: $(stat -c %a "$v/shared/setuid")"
	[ "$(stat -c %U "$v/own/a/b/f1")" = nobody ]
}

own_tree() {
	as "$top/cow" clone "$v/own/a" "$v/own/copy"
	diff -r "$v/own/a" "$v/own/copy"
	[ "$(stat -c %U "$v/own/copy" "$v/own/copy/b/f7" | sort -u)" = nobody ]
	[ "$(stat -c %h "$v/own/copy/link")" = 2 ]
	as sh -c "echo changed >$v/own/copy/b/f7"
	[ "$(cat "$v/own/a/b/f7")" = "file 7" ]
	as "$top/cow" clone "$v/own/a/b/f8" "$v/own/file"
	[ "$(cat "$v/own/file")" = "file 8" ]
	# What another user may compare and count is told, or refused in one line that says what to do instead.
	if as "$top/cow" diff "$v/own/a" "$v/own/copy" >"$top/out" 2>"$top/err" || [ $? = 1 ]; then
		grep -qx 'M b/f7' "$top/out"
	else
		[ "$(wc -l <"$top/err")" = 1 ]
		grep -q 'diff -r' "$top/err"
	fi
	as "$top/cow" du "$v/own/copy" >"$top/out" 2>"$top/err" || [ "$(wc -l <"$top/err")" = 1 ]
	as "$top/cow" rm "$v/own/copy"
	[ ! -e "$v/own/copy" ]
}

others_tree() {
	local status
	# Readable by all: cp -a could copy it, so may a clone; its owner is then the copier. What is unreadable stays so.
	as "$top/cow" clone "$v/root" "$v/own/root" >"$top/out" 2>&1 && status=0 || status=$?
	if [ -e "$v/own/root/private" ]; then
		denied cat "$v/own/root/private"
		! as grep -q secret "$v/own/root/private" 2>/dev/null || fail "the clone shows what was unreadable"
	fi
	as chmod -R u+rwX "$v/own/root" 2>/dev/null || true
	! as grep -rq secret "$v/own/root" 2>/dev/null || fail "the clone shows what was unreadable"
	[ $status = 0 ] || [ -s "$top/out" ] || fail "refused without a word"
	denied "$top/cow" clone "$v/secret" "$v/own/secret"
	! as grep -rq secret "$v/own/secret" 2>/dev/null || fail "the clone shows what was unreadable"
	[ -z "$(find "$v/own" -name '.cow*')" ] || fail "a temporary name is left"
	rm -rf "$v/own/root" "$v/own/secret"
}

into_others() {
	denied "$top/cow" clone "$v/own/a" "$v/root/copy"
	denied "$top/cow" rm "$v/root"
	denied "$top/cow" rm "$v/root/file"
	denied "$top/cow" rm "$v/secret/inside"
	[ -e "$v/root/file" ]
	[ -e "$v/secret/inside" ]
	[ ! -e "$v/root/copy" ]
}

# A tree of one's own that holds a directory of somebody else's: rm -rf could not delete below it.
mixed_tree() {
	as mkdir "$v/own/mixed"
	install -d -m 755 "$v/own/mixed/roots"
	echo keep >"$v/own/mixed/roots/keep"
	as "$top/cow" rm "$v/own/mixed" >"$top/out" 2>&1 && fail "removed what rm -rf could not" || true
	[ "$(cat "$v/own/mixed/roots/keep")" = keep ]
	install -m 4755 /bin/true "$v/own/mixed/setuid"
	as "$top/cow" clone "$v/own/mixed" "$v/own/mixed2" >"$top/out" 2>&1 || true
	if [ -e "$v/own/mixed2/setuid" ]; then
		[ "$(stat -c '%U %a' "$v/own/mixed2/setuid")" != "root 4755" ] || fail "a set-uid file of root was copied by nobody"
	fi
	rm -rf "$v/own/mixed" "$v/own/mixed2"
}

# The ioctls themselves, without the command's care: a token of an unreadable file, and other people's directories.
bare_ioctls() {
	cat >"$top/ioctl.py" <<-'PYTHON'
		import fcntl, os, struct, sys
		def code(d, n, size): return d << 30 | size << 16 | ord('w') << 8 | n
		def name(x): return os.fsencode(x).ljust(256, b'\0')
		TOKEN, CLONE, REMOVE = code(2, 1, 8), code(1, 12, 16), code(1, 13, 264)
		OLD_CLONE, OLD_REMOVE = code(1, 2, 272), code(1, 3, 256)
		v = sys.argv[1]
		def tried(what, f):
		    try:
		        f()
		    except OSError as e:
		        return
		    sys.exit('nobody may ' + what)
		root = os.open(v + '/root', os.O_RDONLY)
		top = os.open(v, os.O_RDONLY)
		own = os.open(v + '/own', os.O_RDONLY)
		for where in (root, top, own):
		    tried('have a token', lambda: fcntl.ioctl(where, TOKEN, bytes(8)))
		for _ in range(3):
		    token = os.urandom(8)
		    what = '.cow-clone-%016x' % struct.unpack('Q', token)
		    os.mkdir(v + '/own/' + what)
		    tried('clone by a guessed token', lambda: fcntl.ioctl(own, CLONE, token + bytes(8)))
		    os.rmdir(v + '/own/' + what)
		    tried('remove below a directory of root', lambda: fcntl.ioctl(root, REMOVE, token + name('file')))
		    tried('remove a tree of root', lambda: fcntl.ioctl(top, REMOVE, token + name('root')))
		    tried('remove without a token', lambda: fcntl.ioctl(own, REMOVE, token + name('a')))
		tried('use the old way to remove', lambda: fcntl.ioctl(own, OLD_REMOVE, name('a')))
		tried('use the old way to clone', lambda: fcntl.ioctl(own, OLD_CLONE, bytes(16) + name('a')))
	PYTHON
	mkdir -m 755 "$v/empty"
	as python3 "$top/ioctl.py" "$v"
	[ -e "$v/root/file" ]
	[ -e "$v/own/a/b/f1" ]
}

root_again() {
	"$COW" clone "$v" "$v/all"
	[ "$(cat "$v/all/root/private")" = secret ]
	denied cat "$v/all/root/private"
	denied ls "$v/all/secret"
	"$COW" rm "$v/all"
}

t "a volume with trees of two users" prepare
t "permissions hold" permissions
t "nobody clones, compares and removes own trees" own_tree
t "a clone of somebody else's tree shows nothing unreadable" others_tree
t "nobody neither clones into nor removes what is root's" into_others
t "rm and clone of a tree with parts of others do what rm -rf and cp -a could" mixed_tree
t "the ioctls hold without the command's care" bare_ioctls
t "root clones all of it, owners and modes kept" root_again
t "the volume is whole" umount_image vol
finish
