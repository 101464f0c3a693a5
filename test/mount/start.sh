#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# ./start as a newcomer runs it: makes, mounts, imports, clones, shows; again on the same image; stops without a trace.
set -u
cd "$(dirname "$0")/../.." || exit 2
tmp=$(mktemp -d)
export XDG_STATE_HOME=$tmp/state
mnt=$tmp/state/cowlinks/mnt
n=0 failed=0

cleanup() {
	./start --stop >/dev/null 2>&1
	mountpoint -q "$mnt" && umount -l "$mnt"
	rm -rf "$tmp"
}
trap cleanup EXIT

ok() { # STATUS NAME
	n=$((n + 1))
	if [ "$1" = 0 ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		failed=1
	fi
}

mkdir -p "$tmp/tree/sub dir"
for i in $(seq 50); do echo "file $i" >"$tmp/tree/sub dir/$i"; done
echo 'read me' >"$tmp/tree/README.md"
ln "$tmp/tree/README.md" "$tmp/tree/linked"

./start "$tmp/tree" >"$tmp/out" 2>&1
ok $? 'start DIR succeeds'
sed 's/^/# /' "$tmp/out"
diff -r "$tmp/tree" "$mnt/tree" >/dev/null
ok $? 'the imported copy equals the directory'
grep -q '^A NEW-FILE$' "$tmp/out" && grep -q '^M README.md$' "$tmp/out"
ok $? 'the diff of the clone is shown'
[ "$(cat "$tmp/tree/README.md")" = 'read me' ] && [ "$(cat "$mnt/tree/README.md")" = 'read me' ]
ok $? 'the original is what it was'
[ "$(head -c 7 "$mnt/tree-clone1/README.md")" = CHANGED ]
ok $? 'the clone was changed in place'

./start "$tmp/tree" >"$tmp/out" 2>&1 && [ -e "$mnt/tree-clone2" ] && [ -e "$mnt/tree-clone1" ]
ok $? 'start again goes on with the same image'

(here=$PWD; cd "$mnt" && "$here/start" --stop) >"$tmp/out" 2>&1
[ $? = 1 ] && mountpoint -q "$mnt" && grep -q 'in use' "$tmp/out"
ok $? 'stop refuses while somebody works in it'

./start --stop >/dev/null 2>&1
ok $? 'stop succeeds'
! mountpoint -q "$mnt" && [ -z "$(find "$tmp/state" -type f)" ]
ok $? 'stop leaves nothing'
./start --stop >/dev/null 2>&1
ok $? 'stop again is fine'

./start "$tmp/missing" >"$tmp/out" 2>&1
[ $? = 1 ] && grep -q 'no such directory' "$tmp/out"
ok $? 'a missing directory is one clear line'
./start --wrong >/dev/null 2>&1
[ $? = 2 ]
ok $? 'a wrong option is a usage error'
echo "1..$n"
exit $failed
