# SPDX-License-Identifier: GPL-2.0-or-later
#
# cowlinks: one GNU Makefile, out of tree. `make help` says what there is to say.
#
# Sources are found by wildcard, so a new file needs no edit here:
#   base dev store fs audit -> libcow.a, libcow.so (dev/dev_sim.c, the simulated device, only into libcowtest.a)
#   cowfs cli             -> cow, the one program (cowfs runs as `cow mount`)
#   test/unit/test_*.c    -> one cmocka program each
#   test/model, test/crash, bench -> one program each
#   test/mount/*.c        -> one program each, with libfuse3, for the tests on a mount
#   test/fuzz/fuzz_*.c    -> one program each, that runs the corpus; `make fuzz`: with libFuzzer
#   doc/example/*.c       -> one program each, as anyone's would be: the public header and the shared library, no more

SAN ?=
DEBUG ?=
WERROR ?=
V ?=
comma := ,
BUILD ?= build$(if $(SAN),-$(subst $(comma),-,$(SAN)))$(if $(DEBUG),-debug)
PREFIX ?= /usr/local
DESTDIR ?=
VERSION := $(shell sed -n 's/^\#define COW_VERSION "\(.*\)"/\1/p' include/cow.h)
SOVERSION := 0
PKG_CONFIG ?= pkg-config

ifeq ($(origin CC),default)
CC := gcc
endif

# FUSE=no builds everything but the mount, also where libfuse3 is not installed.
FUSE ?= $(shell $(PKG_CONFIG) --exists 'fuse3 >= 3.10' 2>/dev/null && echo yes || echo no)

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes $(if $(WERROR),-Werror)
OPT := $(if $(DEBUG),-O0 -g3,-O2 -g)
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer) \
	$(if $(FUZZER),-fsanitize=fuzzer-no-link -fno-sanitize-coverage=trace-cmp)
CPPFLAGS_ALL := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -I. -Iinclude $(CPPFLAGS)
CFLAGS_ALL := -std=gnu17 $(OPT) $(WARN) $(SANFLAGS) -pthread -fPIC -fno-semantic-interposition $(CFLAGS)
LDFLAGS_ALL := $(SANFLAGS) -pthread $(LDFLAGS)
LIBS := -lxxhash

LIB_SRC := $(filter-out dev/dev_sim.c,$(sort $(wildcard base/*.c dev/*.c store/*.c fs/*.c fs/*/*.c audit/*.c)))
SIM_SRC := $(wildcard dev/dev_sim.c)
CLI_SRC := $(sort $(wildcard cli/*.c cli/*/*.c))
TESTLIB_SRC := $(SIM_SRC) $(sort $(wildcard test/lib/*.c))
UNIT_SRC := $(sort $(wildcard test/unit/test_*.c))
UNITLIB_SRC := $(filter-out $(UNIT_SRC),$(sort $(wildcard test/unit/*.c)))
MODEL_SRC := $(sort $(wildcard test/model/*.c))
CRASH_SRC := $(sort $(wildcard test/crash/*.c))
FUZZ_SRC := $(sort $(wildcard test/fuzz/fuzz_*.c))
FUZZLIB_SRC := $(filter-out $(FUZZ_SRC) test/fuzz/main.c test/fuzz/base.c,$(sort $(wildcard test/fuzz/*.c)))
TOOL_SRC := $(sort $(wildcard test/tool/*.c))
BENCH_SRC := $(sort $(wildcard bench/*.c))
EXAMPLE_SRC := $(sort $(wildcard doc/example/*.c))

ifeq ($(FUSE),yes)
FUSE_SRC := $(sort $(wildcard cowfs/*.c cowfs/*/*.c))
MOUNT_SRC := $(sort $(wildcard test/mount/*.c))
FUSE_CFLAGS := $(shell $(PKG_CONFIG) --cflags fuse3 2>/dev/null)
FUSE_LIBS := $(shell $(PKG_CONFIG) --libs fuse3 2>/dev/null)
else
FUSE_SRC := cowfs/mounts.c cowfs/server.c
MOUNT_SRC :=
FUSE_CFLAGS := -DCOW_NO_FUSE
FUSE_LIBS :=
endif

obj = $(patsubst %.c,$(BUILD)/%.o,$(1))
LIB_OBJ := $(call obj,$(LIB_SRC))
TESTLIB_OBJ := $(call obj,$(TESTLIB_SRC) $(UNITLIB_SRC))
PROG_OBJ := $(call obj,$(CLI_SRC) $(FUSE_SRC))
MODEL_OBJ := $(call obj,$(MODEL_SRC))
CRASH_OBJ := $(call obj,$(CRASH_SRC))
ALL_OBJ := $(LIB_OBJ) $(TESTLIB_OBJ) $(PROG_OBJ) $(MODEL_OBJ) $(CRASH_OBJ) $(call obj,$(UNIT_SRC) $(TOOL_SRC) $(BENCH_SRC) $(MOUNT_SRC)) \
	$(call obj,$(sort $(wildcard test/fuzz/*.c)))

UNIT_BIN := $(patsubst test/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))
TOOL_BIN := $(patsubst test/tool/%.c,$(BUILD)/tool/%,$(TOOL_SRC))
MOUNT_BIN := $(patsubst test/mount/%.c,$(BUILD)/mount/%,$(MOUNT_SRC))
BENCH_BIN := $(patsubst bench/%.c,$(BUILD)/bench/%,$(BENCH_SRC))
FUZZ_BIN := $(patsubst test/fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SRC))
EXAMPLE_BIN := $(patsubst doc/example/%.c,$(BUILD)/example/%,$(EXAMPLE_SRC))
TEST_BIN := $(UNIT_BIN) $(FUZZ_BIN) $(TOOL_BIN) $(MOUNT_BIN) $(EXAMPLE_BIN) $(if $(MODEL_SRC),$(BUILD)/model) $(if $(CRASH_SRC),$(BUILD)/crash)
STATIC := $(BUILD)/libcow.a
SHARED := $(BUILD)/libcow.so.$(SOVERSION)
TESTLIB := $(BUILD)/libcowtest.a
LIBRARIES := $(STATIC) $(SHARED) $(BUILD)/libcow.so

Q := $(if $(V),,@)
silent := $(findstring s,$(firstword -$(MAKEFLAGS)))
say = $(if $(V),,@$(if $(silent),,printf '  %-7s %s\n' $(1) $(patsubst $(BUILD)/%,%,$(2));))

.PHONY: all help lib tests check check-unit check-model check-crash check-cli check-mount check-slow soak fuzz fuzzers bench \
	lint mutants install uninstall clean
.DELETE_ON_ERROR:
.SUFFIXES:

all: $(BUILD)/cow $(LIBRARIES) ## build the program and the library (default)

help: ## this list
	@echo 'cowlinks $(VERSION): make [BUILD=dir] [target]'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16
	@echo 'variables:'
	@echo '  BUILD=dir     where everything goes; the program is dir/cow   ($(BUILD))'
	@echo '  FUSE=yes|no   with or without the mount; no needs no libfuse3 ($(FUSE))'
	@echo '  SAN=address,undefined | thread   build with sanitizers'
	@echo '  DEBUG=1       -O0 -g3          WERROR=1  warnings are errors'
	@echo '  CC=clang      another compiler V=1       show the commands'
	@echo '  PREFIX=/usr/local DESTDIR=     for install'

lib: $(LIBRARIES) ## build only the library

tests: all $(TEST_BIN) ## build everything that the tests run

# ---------------------------------------------------------------- compiling and linking

# Flags that changed rebuild what was built with others.
FLAGS_NOW := $(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(FUSE_CFLAGS) $(LDFLAGS_ALL)
ifneq ($(MAKECMDGOALS),clean)
ifneq ($(MAKECMDGOALS),help)
$(shell mkdir -p $(BUILD); printf '%s\n' '$(FLAGS_NOW)' | cmp -s - $(BUILD)/.flags || printf '%s\n' '$(FLAGS_NOW)' >$(BUILD)/.flags)
endif
endif

$(BUILD)/%.o: %.c $(BUILD)/.flags
	@mkdir -p $(@D)
	$(call say,CC,$<)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(OBJ_CFLAGS) -MMD -MP -c $< -o $@

$(PROG_OBJ) $(call obj,$(MOUNT_SRC)): OBJ_CFLAGS = $(FUSE_CFLAGS)

$(STATIC): $(LIB_OBJ)
	$(call say,AR,$@)rm -f $@ && ar rcs $@ $^

$(TESTLIB): $(TESTLIB_OBJ)
	$(call say,AR,$@)rm -f $@ && ar rcs $@ $^

# The shared library shows what include/cow.h declares, and nothing else.
$(BUILD)/libcow.map: include/cow.h tools/exports
	@mkdir -p $(@D)
	$(call say,MAP,$@)tools/exports include/cow.h >$@

$(SHARED): $(LIB_OBJ) $(BUILD)/libcow.map
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) -shared $(if $(SAN),,-Wl$(comma)--no-undefined) -Wl,-soname,libcow.so.$(SOVERSION) \
		-Wl,--version-script=$(BUILD)/libcow.map -o $@ $(LIB_OBJ) $(LIBS)

$(BUILD)/libcow.so: $(SHARED)
	$(Q)ln -sf $(notdir $(SHARED)) $@

$(BUILD)/cow: $(PROG_OBJ) $(STATIC)
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) -o $@ $(PROG_OBJ) $(STATIC) $(FUSE_LIBS) $(LIBS)

$(BUILD)/unit/%: $(BUILD)/test/unit/%.o $(TESTLIB) $(STATIC)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) -o $@ $< $(TESTLIB) $(STATIC) -lcmocka $(LIBS)

$(BUILD)/fuzz/%: $(BUILD)/test/fuzz/%.o $(call obj,$(FUZZLIB_SRC) $(if $(FUZZER),,test/fuzz/main.c)) $(TESTLIB) $(STATIC)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) $(if $(FUZZER),-fsanitize=fuzzer) -o $@ $(filter %.o,$^) $(TESTLIB) $(STATIC) $(LIBS)

$(BUILD)/fuzz/base: $(call obj,test/fuzz/base.c $(FUZZLIB_SRC)) $(TESTLIB) $(STATIC)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(TESTLIB) $(STATIC) $(LIBS)

$(BUILD)/tool/%: $(BUILD)/test/tool/%.o $(TESTLIB) $(STATIC)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) -o $@ $< $(TESTLIB) $(STATIC) $(LIBS)

$(BUILD)/mount/%: $(BUILD)/test/mount/%.o
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) -o $@ $< $(FUSE_LIBS)

$(BUILD)/model: $(MODEL_OBJ) $(TESTLIB) $(STATIC)
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) -o $@ $(MODEL_OBJ) $(TESTLIB) $(STATIC) $(LIBS)

$(BUILD)/crash: $(CRASH_OBJ) $(TESTLIB) $(STATIC)
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) -o $@ $(CRASH_OBJ) $(TESTLIB) $(STATIC) $(LIBS)

$(BUILD)/example/%: doc/example/%.c include/cow.h $(BUILD)/libcow.so $(BUILD)/.flags
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) -std=gnu17 $(OPT) $(WARN) $(SANFLAGS) $(CFLAGS) -Iinclude -o $@ $< \
		$(LDFLAGS_ALL) -L$(BUILD) -lcow -Wl,-rpath,'$$ORIGIN/..'

$(BUILD)/bench/%: $(BUILD)/bench/%.o $(STATIC)
	@mkdir -p $(@D)
	$(call say,LD,$@)$(CC) $(LDFLAGS_ALL) -o $@ $< $(STATIC) $(LIBS)

.SECONDARY: $(ALL_OBJ)
-include $(ALL_OBJ:.o=.d)

# ---------------------------------------------------------------- testing

RUN := tools/run-tests --build $(BUILD)

check: tests ## the quick tests: unit, model, a short crash run; under two minutes
	$(Q)$(RUN) unit model crash

check-unit: $(UNIT_BIN) $(FUZZ_BIN) ## the unit tests, and the corpus of hostile bytes
	$(Q)$(RUN) unit fuzz

check-model: tests ## random operations against a naive model
	$(Q)$(RUN) model

check-crash: tests ## power cuts at every write and flush
	$(Q)$(RUN) crash

check-cli: tests ## the command line (bats)
	$(Q)$(RUN) cli

check-mount: tests ## tests on a mounted volume, with real programs; needs /dev/fuse and root
	$(Q)$(RUN) mount

soak: tests ## model and crash tests with fresh seeds until stopped
	$(Q)$(RUN) --soak model crash

# In a build directory of its own: $(BUILD)/fuzzers.
fuzz: ## build the fuzzers (clang); test/fuzz/run runs them
	$(Q)$(MAKE) $(if $(V),,-s) CC=clang FUSE=no FUZZER=1 SAN=address,undefined BUILD=$(BUILD)/fuzzers fuzzers

fuzzers: $(FUZZ_BIN)

bench: all $(BENCH_BIN) ## measure beside XFS, btrfs and ext4; needs root
	$(Q)bench/run --build $(BUILD)

lint: ## format, cppcheck, shellcheck, layers, sizes
	$(Q)tools/lint

mutants: tests ## plant faults one by one; the tests must catch each
	$(Q)test/mutants/run --build $(BUILD)

# ---------------------------------------------------------------- installing

MAN := $(sort $(wildcard man/*.[1-8]))
man_dir = $(DESTDIR)$(PREFIX)/share/man/man$(patsubst .%,%,$(suffix $(1)))

install: all ## install below DESTDIR PREFIX
	install -D -m 755 $(BUILD)/cow $(DESTDIR)$(PREFIX)/bin/cow
	install -D -m 644 $(STATIC) $(DESTDIR)$(PREFIX)/lib/libcow.a
	install -D -m 755 $(SHARED) $(DESTDIR)$(PREFIX)/lib/$(notdir $(SHARED))
	ln -sf $(notdir $(SHARED)) $(DESTDIR)$(PREFIX)/lib/libcow.so
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/include include/cow.h include/cow_ioctl.h
	@mkdir -p $(DESTDIR)$(PREFIX)/lib/pkgconfig
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' tools/libcow.pc.in \
		>$(DESTDIR)$(PREFIX)/lib/pkgconfig/libcow.pc
	$(foreach page,$(MAN),install -D -m 644 -t $(call man_dir,$(page)) $(page);)
	$(if $(wildcard completion/cow.bash),install -D -m 644 completion/cow.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/cow)
	$(if $(wildcard completion/_cow),install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/zsh/site-functions completion/_cow)

uninstall: ## remove what install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/cow $(DESTDIR)$(PREFIX)/lib/libcow.a $(DESTDIR)$(PREFIX)/lib/libcow.so \
		$(DESTDIR)$(PREFIX)/lib/$(notdir $(SHARED)) $(DESTDIR)$(PREFIX)/include/cow.h \
		$(DESTDIR)$(PREFIX)/include/cow_ioctl.h $(DESTDIR)$(PREFIX)/lib/pkgconfig/libcow.pc \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/cow \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_cow \
		$(foreach page,$(MAN),$(call man_dir,$(page))/$(notdir $(page)))

clean: ## remove the build directory
	rm -rf $(BUILD)
