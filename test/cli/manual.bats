#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-or-later
# include/cow.h is the manual of the library: what it says is held against the code.
load lib.bash

top=$BATS_TEST_DIRNAME/../..
build=$(dirname "$COW")
manual() { python3 "$here/manual.py" "$1" "$top/include/cow.h" "${@:2}"; }

@test "the example prints what it should" {
	"$build/example/clone" img >out 2>err
	same_text - out <<-END
		project/notes, 4 bytes:
		one
		experiment/notes, 8 bytes:
		one
		two
		changed: M notes
	END
	[ ! -s err ]
	"$COW" check --data img
	refused 1 "there is data already" "$build/example/clone" img
}

@test "the example in cow.h is the program's" {
	manual example "$top/doc/example/clone.c"
}

@test "the errors in cow.h are those that test_errors provokes" {
	manual errors "$top/test/unit/test_errors.c"
}

@test "the library shows the calls in cow.h, and no more" {
	manual calls "nm -D --defined-only '$build/libcow.so'"
}

@test "cow.h compiles by itself, in C and in C++" {
	echo '#include <cow.h>' >use.c
	"${CC:-cc}" -std=c11 -Wall -Wextra -Werror -pedantic -I "$top/include" -fsyntax-only use.c
	command -v c++ >/dev/null || skip "no C++ compiler"
	cp use.c use.cc
	c++ -Wall -Wextra -Werror -I "$top/include" -fsyntax-only use.cc
}
