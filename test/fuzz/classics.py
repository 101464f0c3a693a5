#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the hand-made part of the corpus: test/fuzz/classics.py TARGET >test/fuzz/corpus/TARGET

What a fuzzer found comes behind it, and has to be kept when this is run again (tail of the old file). For the decoders
it is what a good volume holds, from which a fuzzer finds the rest.

Every field of doc/FORMAT.md is given values that it must not have, and then what somebody would think of who has read
the format. Inputs are changes of test/fuzz/base.blind, in the language of mutate.c.
"""
import os
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
BLOCK = 4096
RECLAIM, DIR, LINKS, FILE, BLOB, NUMBERS = 1, 2, 3, 4, 5, 6


def u16(b, at):
    return struct.unpack_from("<H", b, at)[0]


def u32(b, at):
    return struct.unpack_from("<I", b, at)[0]


def u64(b, at):
    return struct.unpack_from("<Q", b, at)[0]


def load(path):
    blocks, data, at = {}, open(path, "rb").read(), 0
    while at < len(data):
        number, pieces = struct.unpack_from("<IH", data, at)
        at += 6
        block = bytearray(BLOCK)
        for _ in range(pieces):
            offset, length = struct.unpack_from("<HH", data, at)
            block[offset : offset + length] = data[at + 4 : at + 4 + length]
            at += 4 + length
        blocks[number] = bytes(block)
    return blocks


BLOCKS = load(os.path.join(HERE, "base.blind"))
NODES = [n for n in sorted(BLOCKS) if BLOCKS[n][:4] == b"cown" and u64(BLOCKS[n], 8) == n]
SUPER = max((BLOCKS[s] for s in range(4)), key=lambda b: u64(b, 64))


class Node:
    def __init__(self, block):
        self.block = block
        self.index = NODES.index(block)
        b = self.bytes = BLOCKS[block]
        self.kind, self.level, self.count = b[4], b[5], u16(b, 6)
        self.keys, self.values, self.at = [], [], []
        end = BLOCK
        for i in range(self.count):
            if self.level:
                self.keys.append(u64(b, 32 + 32 * i))
                self.values.append(b[40 + 32 * i : 64 + 32 * i])
                self.at.append(40 + 32 * i)
            else:
                start = u16(b, 40 + 10 * i)
                self.keys.append(u64(b, 32 + 10 * i))
                self.values.append(b[start:end])
                self.at.append(start)
                end = start

    def child(self, i):
        return Node(u64(self.values[i], 0))

    def leaves(self):
        return [l for i in range(self.count) for l in self.child(i).leaves()] if self.level else [self]


def tree(root):
    """All items below: (leaf, i)."""
    return [(leaf, i) for leaf in Node(root).leaves() for i in range(leaf.count)]


# ---------------------------------------------------------------- changes, as bytes


def p8(v):
    return struct.pack("<B", v & 0xFF)


def p16(v):
    return struct.pack("<H", v & 0xFFFF)


def p32(v):
    return struct.pack("<I", v & 0xFFFFFFFF)


def p64(v):
    return struct.pack("<Q", v & 0xFFFFFFFFFFFFFFFF)


def set_bytes(node, at, data):
    """At an offset of a node."""
    out = b""
    while data:
        n = 8 if len(data) >= 8 else 4 if len(data) >= 4 else 2 if len(data) >= 2 else 1
        out += p8({1: 0, 2: 1, 4: 2, 8: 3}[n]) + p8(node.index) + p16(at) + data[:n]
        data, at = data[n:], at + n
    return out


def set_value(node, item, at, data):
    assert 0 < len(data) <= 8 and at + len(data) <= len(node.values[item])
    return p8(8) + p8(node.index) + p8(item) + p16(at) + p8(len(data) - 1) + data


def set_pointer(node, item, at, target):
    return p8(9) + p8(node.index) + p8(item) + p16(at) + p8(0) + p8(target.index)


def replace(node, item, data, length=None):
    return p8(10) + p8(node.index) + p8(item) + p16(len(data) if length is None else length) + p16(len(data)) + data


def set_key(node, item, key):
    return p8(11) + p8(node.index) + p8(item) + p64(key)


def drop(node, item):
    return p8(12) + p8(node.index) + p8(item)


def copy(node, item, to, key):
    return p8(13) + p8(node.index) + p8(item) + p8(to.index) + p64(key)


def count(node, value, delta=0):
    return p8(14) + p8(node.index) + p8(delta) + p32(value)


def set_super(at, data):
    return p8(15) + p16(at) + p8(len(data) - 1) + data


def set_root(root, node):
    return p8(16) + p8(root) + p8(node.index)


def set_block(block, at, data):
    assert len(data) == 8
    return p8(17) + p16(block) + p16(at) + data


def set_record(block, at, data):
    """In the intent log, in blocks from its first record on."""
    assert 0 < len(data) <= 8
    return p8(18) + p8(block) + p16(at) + p8(len(data) - 1) + data


def twin(to, source):
    return p8(7) + p8(to.index) + p8(source.index)


# ---------------------------------------------------------------- what there is


def root(i):
    return u64(SUPER, 112 + 24 * i)


class Record:
    """Where the parts of a record are, as offsets in the value that begins `skip` bytes before it."""

    def __init__(self, value, skip):
        at = skip + 32
        flags = u16(value, skip)
        self.mode = u16(value, skip + 2)
        self.fields = {"flags": (skip, 2), "mode": (skip + 2, 2), "uid": (skip + 4, 4), "gid": (skip + 8, 4)}
        self.fields.update({"number": (skip + 12, 8), "mtime": (skip + 20, 8), "mtime ns": (skip + 28, 4)})
        for bit, name in ((3, "atime"), (4, "ctime"), (5, "btime")):
            if flags >> bit & 1:
                self.fields[name] = (at, 8)
                self.fields[name + " ns"] = (at + 8, 4)
                at += 12
        for bit, name, size in ((6, "tag", 8), (7, "rdev", 4)):
            if flags >> bit & 1:
                self.fields[name] = (at, size)
                at += size
        self.body = flags & 7
        self.tree = self.links = self.xattr = 0
        at = self.parse_body(value, at, flags)
        if flags >> 8 & 1:
            self.fields["xattr list length"] = (at, 1)
            self.fields["xattr name length"] = (at + 1, 1)
            self.fields["xattr value length"] = (at + 2, 4)
        elif flags >> 9 & 1:
            self.fields["xattr tree length"] = (at, 4)
            self.pointer("xattr", at + 4)

    def pointer(self, name, at):
        self.fields[name + " pointer block"] = (at, 8)
        self.fields[name + " pointer birth"] = (at + 16, 8)
        setattr(self, name, at)

    def parse_body(self, value, at, flags):
        regular = self.mode >> 12 == 8
        if self.body == 0 and flags >> 12 & 1:
            self.fields["size of a hole"] = (at, 8)
            return at + 8
        if self.body == 1:
            self.fields["inline length"] = (at, 2)
            return at + 2 + u16(value, at)
        if self.body == 2:
            self.fields.update({"size": (at, 8), "blocks": (at + 8, 8), "extents length": (at + 16, 2)})
            self.fields.update({"file block": (at + 18, 8), "extent kind": (at + 26, 1), "extent zero": (at + 27, 1)})
            self.fields.update({"extent blocks": (at + 28, 2), "extent block": (at + 30, 8)})
            return at + 18 + u16(value, at + 16)
        if self.body == 3:
            self.fields["size"] = (at, 8)
            if regular:
                self.fields["blocks"] = (at + 8, 8)
            self.pointer("tree", at + (16 if regular else 8))
            return at + (40 if regular else 32)
        if self.body == 4:
            self.pointer("tree", at)
            for i, name in enumerate(("bytes", "blocks", "files", "dirs", "refs", "nested refs", "exceptions")):
                self.fields["total " + name] = (at + 24 + 8 * i, 8)
            at += 80
            if flags >> 10 & 1:
                self.pointer("links", at)
                for i, name in enumerate(("back-references", "linked bytes", "linked blocks", "linked files")):
                    self.fields[name] = (at + 24 + 8 * i, 8)
                at += 56
        return at


def entries(leaf_items):
    for leaf, i in leaf_items:
        value = leaf.values[i]
        name = value[1 : 1 + value[0]].decode("latin-1")
        is_link = value[1 + value[0]] == 0xFF
        yield name, leaf, i, None if is_link else Record(value, 1 + value[0])


TOP = Node(root(1))
TOP_RECORD = Record(TOP.values[0], 1)
ROOT_DIR = {n: (l, i, r) for n, l, i, r in entries(tree(u64(TOP.values[0], TOP_RECORD.tree)))}


def below(name, where=None):
    leaf, i, record = (where or ROOT_DIR)[name]
    return {n: (l, k, r) for n, l, k, r in entries(tree(u64(leaf.values[i], record.tree)))}


FILES = below("files")
LINKED = below("links")
DEEP = below("deep", LINKED)
ROOT_LINKS = tree(u64(TOP.values[0], TOP_RECORD.links))
NUMBER_ROWS = tree(root(3))
QUEUE = tree(root(0))
ORPHANS = tree(root(2))


def pointed(where, field):
    leaf, i, record = where
    return Node(u64(leaf.values[i], getattr(record, field)))


LINK_ROWS = [(l, i) for l, i in ROOT_LINKS if l.values[i][0] == 1]
SPINE_ROWS = [(l, i) for l, i in ROOT_LINKS if l.values[i][0] == 2]
FILE_TREE = pointed(FILES["file-4"], "tree")
SYMLINK_TREE = pointed(FILES["long-symlink"], "tree")
XATTR_TREE = pointed(FILES["file-2"], "xattr")
FILES_TREE = pointed(ROOT_DIR["files"], "tree")
ROOT_TREE = Node(u64(TOP.values[0], TOP_RECORD.tree))

corpus = []


def add(text, *changes, flags=0, seed=1):
    corpus.append((p8(flags) + p16(seed) + b"".join(changes), text))


def values_for(size):
    top = (1 << (8 * size)) - 1
    return sorted({0, 1, top, top >> 1, 1 << (4 * size)})


def each_value(old, size):
    return [v for v in values_for(size) + [old + 1, old - 1] if v != old and 0 <= v < 1 << (8 * size)]


def superblock():
    add("nothing is changed")
    add("nothing is changed, read-only", flags=1)
    add("nothing is changed, true checksums", flags=4)
    add("nothing is changed, small cache", flags=8)
    fields = [("magic", 0, 8), ("version", 16, 4), ("zero at 20", 20, 4), ("uuid", 24, 8), ("compat", 40, 8)]
    fields += [("ro-compat", 48, 8), ("incompat", 56, 8), ("generation", 64, 8), ("blocks of the volume", 72, 8)]
    fields += [("selector checksum", 80, 4), ("selector slot", 84, 1), ("selector initialised", 85, 1)]
    fields += [("zero at 86", 86, 2), ("free blocks", 88, 8), ("zero at 96", 96, 8), ("zero at 304", 304, 8)]
    fields += [("next number", 320, 8), ("next colour", 328, 8), ("next chunk", 336, 8), ("hash key", 344, 8)]
    fields += [("user zero", 360, 8), ("log start", 448, 8), ("log blocks", 456, 4), ("log zero", 460, 4)]
    fields += [("log position", 464, 8), ("log nonce", 472, 8), ("log chain", 480, 8), ("zero at 488", 488, 8)]
    for i in range(8):
        fields += [(f"kind of root {i}", 104 + i, 1), (f"block of root {i}", 112 + 24 * i, 8)]
        fields += [(f"birth of root {i}", 128 + 24 * i, 8)]
    for name, at, size in fields:
        old = int.from_bytes(SUPER[at : at + size], "little")
        for v in each_value(old, size):
            add(f"superblock: {name} is {v:#x}", set_super(at, v.to_bytes(size, "little")))
    for blocks in (4096 + 1024, 1 << 20, 1 << 30, 1 << 37):
        add(f"superblock: a volume of {blocks} blocks on a sparse device", set_super(72, p64(blocks)), flags=2)
    log = [set_super(56, p64(1)), set_super(456, p32(16))]
    for start in (0, 16, 32, 1024 + 32, 2048 + 20, 4080, 4096, 1 << 63, NODES[0]):
        add(f"superblock: an intent log at block {start}", set_super(448, p64(start)), *log)
    add("superblock: an intent log that is too long", set_super(448, p64(2048 + 32)), log[0], set_super(456, p32(65536)))
    add("superblock: a log that is as long as the volume", set_super(448, p64(32)), log[0], set_super(456, p32(3968)))
    for i in range(4):
        for j in range(len(NODES)):
            if NODES[j] != root(i):
                add(f"superblock: root {i} leads to node {j}", set_root(i, Node(NODES[j])))


def counts():
    for node in sorted({TOP.block, ROOT_TREE.block, FILES_TREE.block, FILE_TREE.block, root(0), root(2), root(3),
                        SYMLINK_TREE.block, XATTR_TREE.block, FILES_TREE.child(0).block}):
        n = Node(node)
        for v in (0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
            add(f"count of the node of kind {n.kind} at {node} is {v}", count(n, v))
    for delta in range(-8, 8):
        add(f"count of the block {delta} from the root directory's is 0", count(ROOT_TREE, 0, delta))
        add(f"count of the block {delta} from the root directory's is saturated", count(ROOT_TREE, 0x7FFFFFFF, delta))
    add("all counts are 0: not initialised", set_super(80, p64(0)), set_super(88, p64(0)))
    for group in range(4):
        for slot in (16, 17):
            add(f"piece of group {group}, slot {slot - 16}: a count of a system block", set_block(1024 * group + slot, 64,
                                                                                                   b"\0" * 8))
            add(f"piece of group {group}, slot {slot - 16}: free blocks", set_block(1024 * group + slot, 4000, b"\0" * 8))
    for block in range(18, 24):
        for v in (0, 0xFFFFFFFFFFFFFFFF, 0x80000000 << 32, 0xC0000400 << 32, 0xBFFFFFFF << 32):
            add(f"selector block {block}: first selector {v:#x}", set_block(block, 0, p64(v)))
            add(f"selector block {block}: second selector {v:#x}", set_block(block, 8, p64(v)))
            add(f"selector block {block}: last selector {v:#x}", set_block(block, 4088, p64(v)))


def nodes():
    kinds = {}
    for block in NODES:
        n = Node(block)
        kinds.setdefault((n.kind, n.level), n)
    for (kind, level), n in sorted(kinds.items()):
        what = f"node of kind {kind}, level {level}"
        for name, at, size in (("magic", 0, 4), ("kind", 4, 1), ("level", 5, 1), ("items", 6, 2), ("own block", 8, 8),
                               ("birth", 16, 8), ("zero at 24", 24, 8)):
            old = int.from_bytes(n.bytes[at : at + size], "little")
            for v in each_value(old, size) + ([11, 12] if name == "level" else []) + ([408, 127, 128] if name == "items"
                                                                                      else []):
                add(f"{what}: {name} is {v:#x}", set_bytes(n, at, v.to_bytes(size, "little")))
        for i in sorted({0, 1, n.count - 1} & set(range(n.count))):
            for key in (0, 1, 127, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, n.keys[0], n.keys[-1], n.keys[i] + 1):
                if key != n.keys[i]:
                    add(f"{what}: key {i} of {n.count} is {key:#x}", set_key(n, i, key))
            add(f"{what}: item {i} is missing", drop(n, i))
            if level:
                for j, other in enumerate(NODES):
                    add(f"{what}: child {i} is node {j}", set_pointer(n, i, 0, Node(other)))
                add(f"{what}: child {i} is null", set_value(n, i, 0, p64(0)))
                add(f"{what}: child {i} beyond the end", set_value(n, i, 0, p64(4096)))
                add(f"{what}: child {i} is a system block", set_value(n, i, 0, p64(1024 + 16)))
                add(f"{what}: child {i} is a dirty pointer", set_value(n, i, 0, p64(1 << 63 | 1)))
                add(f"{what}: child {i} is born later", set_value(n, i, 16, p64(1000)))
                add(f"{what}: child {i} is empty", set_bytes(n.child(i), 6, p16(0)))
            else:
                for v in (0, 31, 41, 42, n.at[i] - 1, n.at[i] + 1, 4095, 4096, 4097, 65535):
                    add(f"{what}: value {i} starts at {v}", set_bytes(n, 40 + 10 * i, p16(v)))
                add(f"{what}: value {i} is empty", replace(n, i, b""))
                add(f"{what}: value {i} is too long", replace(n, i, b"", 1025))
                add(f"{what}: value {i} is one byte longer", replace(n, i, n.values[i] + b"\0"))
                add(f"{what}: value {i} is one byte shorter", replace(n, i, n.values[i][:-1]))
        add(f"{what}: no items", set_bytes(n, 6, p16(0)))
    for block in NODES:
        for other in NODES:
            if block != other and Node(block).kind == Node(other).kind:
                add(f"nodes {block} and {other} are twins", twin(Node(block), Node(other)))


def records():
    samples = [("the root directory", (TOP, 0, TOP_RECORD)), ("directory", ROOT_DIR["files"])]
    samples += [("clone", ROOT_DIR["clone"]), ("read-only clone", ROOT_DIR["snapshot"]), ("tagged file", ROOT_DIR["came"])]
    samples += [("tagged directory", ROOT_DIR["came-too"]), ("nested clone", below("clone")["inner"])]
    samples += [(name, FILES[name]) for name in ("file-0", "file-1", "file-2", "file-3", "file-4", "file-5", "symlink",
                                                 "long-symlink", "fifo", "null", "socket")]
    leaf, i = ORPHANS[0]
    samples += [("orphan", (leaf, i, Record(leaf.values[i], 1)))]
    samples += [(f"link row {k}", (l, i, Record(l.values[i], 3))) for k, (l, i) in enumerate(LINK_ROWS)]
    for name, (leaf, i, record) in samples:
        value = leaf.values[i]
        for field, (at, size) in record.fields.items():
            old = int.from_bytes(value[at : at + size], "little")
            values = each_value(old, size)
            if field == "flags":
                values = [old ^ (1 << bit) for bit in range(16)] + [old & ~7 | body for body in range(8)]
            elif field == "mode":
                values = [kind << 12 | 0o644 for kind in range(16)]
            elif field.endswith("ns"):
                values = [1000000000, 0xFFFFFFFF]
            elif field in ("uid", "gid", "rdev") or "time" in field:
                values = values[-2:]
            for v in values:
                if v != old:
                    add(f"{name}: {field} is {v:#x}", set_value(leaf, i, at, v.to_bytes(size, "little")))
        for part in ("tree", "links", "xattr"):
            if getattr(record, part):
                for j, block in enumerate(NODES):
                    add(f"{name}: {part} is node {j}", set_pointer(leaf, i, getattr(record, part), Node(block)))
                add(f"{name}: {part} is null", *(set_value(leaf, i, getattr(record, part) + k, p64(0)) for k in (0, 8, 16)))


def names():
    leaf, i, _ = FILES["fifo"]
    value = leaf.values[i]
    for name in (b"", b".", b"..", b"a/b", b"a\0b", b"x" * 255, b"fif"):
        add(f"name {name[:8]!r}", replace(leaf, i, p8(len(name)) + name + value[5:]))
    add("name longer than its value", set_value(leaf, i, 0, b"\xff"))
    leaf, i, _ = LINKED["other"]
    value = leaf.values[i]
    for kind in range(0, 256, 5):
        add(f"link reference: type {kind}", set_value(leaf, i, 7, p8(kind)))
    for key in (0, 1, 57, 60, 61, 1 << 63, (1 << 64) - 1):
        add(f"link reference: key {key}", set_value(leaf, i, 8, p64(key)))
    add("link reference: cut", replace(leaf, i, value[:-1]))
    add("link reference in the orphans", copy(leaf, i, ORPHANS[0][0], 200))
    add("link reference as the root", copy(leaf, i, TOP, 128), drop(TOP, 1))
    add("the root has a name", replace(TOP, 0, b"\4root" + TOP.values[0][1:]))
    add("the root is a file", replace(TOP, 0, b"\0" + value_of(ROOT_DIR["came"])))
    for key in (0, 1, 127, 129, 1 << 63, (1 << 64) - 1):
        add(f"the root has key {key:#x}", set_key(TOP, 0, key))
        add(f"an orphan has key {key:#x}", set_key(ORPHANS[0][0], 0, key))
        add(f"a file without name has key {key:#x}", replace(leaf, leaf.count - 1, b"\0" + value_of(FILES["fifo"])),
            set_key(leaf, leaf.count - 1, key))
    leaf, i, _ = FILES["file-1"]
    add("a name twice", copy(leaf, i, leaf, leaf.keys[i] + 1))
    add("an orphan is the root's directory", copy(*ROOT_DIR["files"][:2], ORPHANS[0][0], 300))
    add("an orphan is the root", copy(TOP, 0, ORPHANS[0][0], 300))


def value_of(where):
    leaf, i, _ = where
    value = leaf.values[i]
    return value[1 + value[0] :]


def links():
    for k, (leaf, i) in enumerate(LINK_ROWS):
        length = u16(leaf.values[i], 1)
        tail = 3 + length
        backs = u32(leaf.values[i], tail)
        for v in each_value(length, 2):
            add(f"link row {k}: length of the record is {v}", set_value(leaf, i, 1, p16(v)))
        for v in (0, 1, 8, 9, backs + 1, backs - 1, 1 << 20, 1 << 26, (1 << 26) + 1, (1 << 32) - 1):
            add(f"link row {k}: {v} back-references", set_value(leaf, i, tail, p32(v)))
        for v in (0, 1, 9, 1 << 63, (1 << 64) - 1):
            if backs <= 8:
                add(f"link row {k}: back-reference to directory {v}", set_value(leaf, i, tail + 4, p64(v)))
                add(f"link row {k}: back-reference to key {v}", set_value(leaf, i, tail + 12, p64(v)))
        for v in (0, 1, 56, 57, 1 << 62, 1 << 63, (1 << 64) - 1):
            add(f"link row {k}: key {v}", set_key(leaf, i, v))
        add(f"link row {k} is a spine row", replace(leaf, i, b"\2" + p64(1) + p64(128)))
        add(f"link row {k}: unknown type", set_value(leaf, i, 0, b"\3"))
        if backs > 8:
            for j, block in enumerate(NODES):
                add(f"link row {k}: back-references in node {j}", set_pointer(leaf, i, tail + 4, Node(block)))
            add(f"link row {k}: 2^26 back-references in few", set_value(leaf, i, tail, p32(1 << 26)))
    numbers = [l.keys[i] for l, i in ROOT_LINKS]
    for k, (leaf, i) in enumerate(SPINE_ROWS):
        for v in numbers + [0, 1, 2, (1 << 64) - 1]:
            add(f"spine row {k}: parent {v}", set_value(leaf, i, 1, p64(v)))
        for v in (0, 127, 128, (1 << 64) - 1):
            add(f"spine row {k}: entry key {v}", set_value(leaf, i, 9, p64(v)))
        for v in (0, 1, 1 << 63, (1 << 64) - 1):
            add(f"spine row {k}: of directory {v}", set_key(leaf, i, v))
        add(f"spine row {k} is a link row", copy(*LINK_ROWS[0], leaf, leaf.keys[i]), drop(leaf, i + 1))
        add(f"spine row {k} is cut", replace(leaf, i, leaf.values[i][:16]))
    (a, i), (b, j) = SPINE_ROWS[0], SPINE_ROWS[1]
    add("spine: a ring of two", set_value(a, i, 1, p64(b.keys[j])), set_value(b, j, 1, p64(a.keys[i])))
    add("spine: a directory in itself", set_value(a, i, 1, p64(a.keys[i])))
    for where, what in ((ROOT_DIR["links"], "links"), (LINKED["deep"], "deep")):
        leaf, i, record = where
        for v in numbers + [1, 59, 61, 63]:
            add(f"directory {what} has number {v}", set_value(leaf, i, record.fields["number"][0], p64(v)))
    leaf, i, record = ROOT_DIR["links"]
    add("all numbers begin anew", set_super(320, p64(2)), set_super(328, p64(1)), set_super(336, p64(1)))
    for v in (2, 50, 56, 57, 59, 61, 63):
        for seed in range(4):
            add(f"the next number is {v}, seed {seed}", set_super(320, p64(v)), seed=seed)


def files():
    for name, n in (("file tree", FILE_TREE.child(0) if FILE_TREE.level else FILE_TREE),):
        for i in (0, 1, n.count - 1):
            for field, at, size in (("kind", 0, 1), ("zero", 1, 1), ("blocks", 2, 2), ("block", 4, 8)):
                old = int.from_bytes(n.values[i][at : at + size], "little")
                for v in each_value(old, size) + ([1024, 1039, 4095, 4096, ROOT_TREE.block] if field == "block" else []):
                    add(f"{name}: extent {i}: {field} is {v:#x}", set_value(n, i, at, v.to_bytes(size, "little")))
            for blocks in (2, 64):
                sums = b"\xed\x5e" * 2 * blocks
                add(f"{name}: extent {i} overlaps the next, {blocks} blocks",
                    replace(n, i, b"\1\0" + p16(blocks) + n.values[i][4:12] + sums))
                add(f"{name}: extent {i} unwritten, overlaps, {blocks} blocks",
                    replace(n, i, b"\2\0" + p16(blocks) + n.values[i][4:12]))
            add(f"{name}: extent {i} over metadata", replace(n, i, b"\2\0" + p16(64) + p64(ROOT_TREE.block - 20)))
            for key in ((1 << 50) - 1, 1 << 50, 1 << 52, (1 << 64) - 1):
                add(f"{name}: extent {i} at file block {key:#x}", set_key(n, i, key))
        add(f"{name}: is empty", set_bytes(n, 6, p16(0)))
    for name, n in (("symlink", SYMLINK_TREE), ("xattr", XATTR_TREE)):
        for i in range(n.count):
            for key in (0, 1, 999, 1000, 2000, 5000, (1 << 32) - 296, 1 << 32, (1 << 64) - 1):
                if key != n.keys[i]:
                    add(f"blob of a {name}: piece {i} at {key}", set_key(n, i, key))
            add(f"blob of a {name}: piece {i} is shorter", replace(n, i, n.values[i][:-1]))
            add(f"blob of a {name}: piece {i} is longer", replace(n, i, n.values[i] + b"\0"))
            add(f"blob of a {name}: piece {i} is zeros", replace(n, i, bytes(len(n.values[i]))))
            add(f"blob of a {name}: piece {i} is gone", drop(n, i))
    first = XATTR_TREE.values[0]
    for at, size in ((0, 1), (1, 4)):
        old = int.from_bytes(first[at : at + size], "little")
        for v in each_value(old, size):
            add(f"xattr list: byte {at} is {v:#x}", set_value(XATTR_TREE, 0, at, v.to_bytes(size, "little")))


def numbers():
    for k, (leaf, i) in enumerate(NUMBER_ROWS):
        for field, at, size in (("type", 0, 1), ("a", 1, 8), ("b", 9, 8), ("value", 17, 8)):
            old = int.from_bytes(leaf.values[i][at : at + size], "little")
            for v in each_value(old, size) + ([2, 3] if field == "type" else [1 << 29, 1 << 40]):
                add(f"number row {k}: {field} is {v:#x}", set_value(leaf, i, at, v.to_bytes(size, "little")))
        for v in (0, 1, (1 << 64) - 1, 4 << 56):
            add(f"number row {k}: key {v:#x}", set_key(leaf, i, v))
    leaf = NUMBER_ROWS[0][0]
    for chunk in (0, 1, 1 << 29, 1 << 40, (1 << 64) - 1):
        row = b"\3" + p64(chunk) + p64(0) + p64(1)
        add(f"number row: chunk {chunk:#x} is free", replace(leaf, leaf.count - 1, row), set_key(leaf, leaf.count - 1,
                                                                                                 3 << 56))
    for i in range(leaf.count):
        add(f"number row {i} twice", copy(leaf, i, leaf, leaf.keys[i] + 1))


def queue():
    leaf, last = QUEUE[-1]
    for block in NODES:
        n = Node(block)
        add(f"queue: leads to node {block} of kind {n.kind}", set_pointer(leaf, last, 0, n),
            set_value(leaf, last, 24, p8(n.kind)))
        add(f"queue: leads to node {block} of kind {n.kind}, count 2", set_pointer(leaf, last, 0, n),
            set_value(leaf, last, 24, p8(n.kind)), count(n, 2))
        add(f"queue: leads to node {block} of kind {n.kind}, count 0", set_pointer(leaf, last, 0, n),
            set_value(leaf, last, 24, p8(n.kind)), count(n, 0))
    for kind in range(8):
        add(f"queue: kind {kind}", set_value(leaf, last, 24, p8(kind)))
    for key in (0, (1 << 63) - 1, 1 << 63, (1 << 64) - 2, (1 << 64) - 1):
        add(f"queue: key {key:#x}", set_key(leaf, last, key))
    add("queue: one entry twice", copy(leaf, last, leaf, leaf.keys[last] + 1))


def rings():
    for name, where in (("files", ROOT_DIR["files"]), ("links", ROOT_DIR["links"]), ("clone", ROOT_DIR["clone"])):
        leaf, i, record = where
        for seed in range(3):
            add(f"directory {name} holds the root directory", set_pointer(leaf, i, record.tree, ROOT_TREE), seed=seed)
            add(f"directory {name} holds the root directory, count 2", set_pointer(leaf, i, record.tree, ROOT_TREE),
                count(ROOT_TREE, 2), seed=seed)
    leaf, i, record = LINKED["deep"]
    above = pointed(ROOT_DIR["links"], "tree")
    for seed in range(3):
        add("links/deep holds links", set_pointer(leaf, i, record.tree, above), count(above, 3), seed=seed)
    add("a world's links lead to the directory's own tree",
        set_pointer(*ROOT_DIR["clone"][:2], ROOT_DIR["clone"][2].links, pointed(ROOT_DIR["clone"], "tree")))
    n = FILES_TREE
    if n.level:
        for i in range(n.count):
            add(f"an inner node is its own child {i}", set_pointer(n, i, 0, n))
        add("two children are the same", set_pointer(n, 1, 0, n.child(0)))
        add("a leaf is not in the range of its key", set_key(n, 1, n.keys[1] + (1 << 60)))
        add("a leaf begins below its key", set_key(n, 1, n.child(1).keys[0] + 1))
        add("children are exchanged", set_pointer(n, 0, 0, n.child(1)), set_pointer(n, 1, 0, n.child(0)))
        for seed in range(6):
            add("the first leaf holds what belongs to the next", set_key(n.child(0), n.child(0).count - 1,
                                                                     n.child(1).keys[0] + 1), seed=seed)
            add("the last leaf holds what belongs to the one before", set_key(n.child(1), 0, n.keys[0] + 1), seed=seed)


def intents():
    add("no record of the log is valid", set_record(0, 0, b"\0"))
    first = u64(SUPER, 464)
    for at in range(0, 64 + 24, 4):
        for v in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF):
            add(f"log: first record, {v:#x} at {at}", set_record(0, at, p32(v)))
    start, size = u64(SUPER, 448), u32(SUPER, 456)
    for record in range(4):
        index = (first + record) % size
        room = 1024 - 32
        where = start % 1024 - 32 + index
        block = BLOCKS.get((start // 1024 + where // room) * 1024 + 32 + where % room)
        if block is None:
            continue
        length = len(block.rstrip(b"\0"))
        for at in range(64, length):
            for v in (0, 0xFF, block[at] + 1 & 0xFF):
                if v != block[at] and (at < 400 or at % 16 == 0):
                    add(f"log: block {record}, {v:#x} at {at}", set_record(record, at, p8(v)))
        for at in range(64, min(length, 400)):
            add(f"log: block {record}, a number out of range at {at}", set_record(record, at, p64((1 << 64) - 1)))


def true_sums():
    for block in NODES:
        add(f"one bit of node {block}, checksum does not fit", set_bytes(Node(block), 100, b"\x55"), flags=4)
    for block in list(range(4)) + [8, 9, 16, 17, 18, 19, 20, 21, 22, 23]:
        add(f"block {block}, checksum does not fit", set_block(block, 64, b"\x55" * 8), flags=4)


def images():
    for part in (superblock, counts, nodes, records, names, links, files, numbers, queue, rings, intents, true_sums):
        part()


def plain_values():
    seen = set()
    for block in NODES:
        n = Node(block)
        for key, value in zip(n.keys, n.values):
            shape = (n.kind, value[:1] if n.kind in (LINKS, FILE, NUMBERS) else value[-40:-32], len(value))
            if n.level == 0 and n.kind != RECLAIM and shape not in seen:
                seen.add(shape)
                corpus.append((p8(n.kind) + p64(key) + value, f"a value of kind {n.kind}"))
    corpus.append((p8(0) + p64(0) + XATTR_TREE.values[0], "a list of xattrs, cut"))
    corpus.append((p8(0) + p64(0) + b"\1" + p32(3) + b"abcd\2" + p32(0) + b"xy", "a list of xattrs"))


def plain_nodes():
    for block in NODES:
        n = Node(block)
        data = p8(n.kind) + p8(n.level) + p16(n.count)
        if n.level:
            data += n.bytes[32 : 32 + 32 * n.count]
        else:
            data += b"".join(p64(k) + p16(len(v)) + v for k, v in zip(n.keys[:12], n.values))
        corpus.append((data, f"a node of kind {n.kind}, level {n.level}"))
    corpus.append((p8(RECLAIM) + p8(0) + p16(256) + b"\0\3", "an entry of the queue without bytes"))


def plain_supers():
    corpus.append((SUPER[16:512], "a superblock"))
    corpus.append((SUPER[16:56] + p64(0) + SUPER[64:448] + bytes(64), "a superblock without an intent log"))


def plain_counts():
    corpus.append((p8(0) + p8(0) + p16(0), "a piece"))
    for level in (1, 2, 3):
        for size in range(7):
            corpus.append((p8(level) + p8(size) + p16(0) + p16(0) + p64(0x80000001 << 32), f"a selector of level {level}"))


def plain_records():
    start, size, position = u64(SUPER, 448), u32(SUPER, 456), u64(SUPER, 464)

    def ring(i):
        at = start % 1024 - 32 + i % size
        return BLOCKS.get((start // 1024 + at // 992) * 1024 + 32 + at % 992, bytes(BLOCK))

    while ring(position)[:4] != bytes(4):
        length = u32(ring(position), 40)
        count = (length + 64 + BLOCK - 1) // BLOCK
        payload = b"".join(ring(position + i) for i in range(count))[64 : 64 + length]
        corpus.append((payload, "a record"))
        position += count


def main():
    parts = {"image": images, "value": plain_values, "node": plain_nodes, "super": plain_supers, "counts": plain_counts,
             "record": plain_records}
    if len(sys.argv) != 2 or sys.argv[1] not in parts:
        sys.exit("usage: classics.py " + "|".join(parts))
    parts[sys.argv[1]]()
    for number, (data, text) in enumerate(corpus, 1):
        print(f"{number:04d} {data.hex()} {text}")


main()
