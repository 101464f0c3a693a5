# SPDX-License-Identifier: GPL-2.0-or-later
"""Holds include/cow.h, the manual of the library, against what it speaks of.

    manual.py example cow.h PROGRAM        the code in the head of cow.h is a part of the program, line by line
    manual.py errors cow.h test_errors.c   each error in a list is provoked by the test, or named there as NOT PROVOKED;
                                           and the test provokes none that is not in a list
    manual.py calls cow.h COMMAND          COMMAND, a line of nm, shows the functions that cow.h declares, and no others
"""
import errno
import re
import subprocess
import sys

NAME = r"\b(?:COW_ERR_[A-Z_]+|" + "|".join(errno.errorcode.values()) + r")\b"
# Said once, in the head of cow.h; ECANCELED is what the test's own callbacks return.
COMMON = {"EIO", "ENOMEM", "ESTALE", "EROFS", "ENOSPC", "EOVERFLOW", "COW_ERR_DAMAGED", "ECANCELED"}


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def head(text):
    return text[text.index("/*", 3):text.index("#ifndef COW_H")]


def example(header, program):
    text = head(header)
    lines = [line[3:] for line in text[text.index(" * EXAMPLE."):text.index(" * HANDLES.")].split("\n")]
    code = "\n".join(line[3:] for line in lines if line.startswith("   ") or not line).strip("\n")
    if code.count("\n") < 20:
        return ["there is no example in the head of cow.h"]
    program = "\n".join(line[1:].replace("\t", "    ") for line in program.split("\n"))
    return [] if code + "\n" in program else ["the example in cow.h is not what the program has:\n" + code]


def declared(header):
    """{function: (names in its list, may be others of the host)}"""
    calls, comment = {}, ""
    for part in re.finditer(r"/\*.*?\*/|\n\n|\b(cow_[a-z_]+)\((?!\*)[^;{}]*?\);", header, re.S):
        if part[0].startswith("/*"):
            comment = re.sub(r"\s+(?:\* )?", " ", part[0])
        elif part[0] == "\n\n":
            comment = ""
        else:
            _, has_list, errors = comment.partition("Errors:")
            calls[part[1]] = (set(re.findall(NAME, errors)), "those of open(2)" in errors, bool(has_list))
            comment = "" # it is of one call
    return calls


def errors(header, test):
    calls = declared(header[header.index("#ifndef COW_H"):])
    provoked = {}
    for name, call in re.findall(r"EXPECT\(-?(" + NAME + r"), (cow_\w+)\(", test):
        provoked.setdefault(call, set()).add(name)
    # expect_all(PATH, ERROR) is a few calls at once
    body = re.search(r"static void expect_all\(.*?\n}", test, re.S)[0]
    for call in re.findall(r"EXPECT\(error, (cow_\w+)\(", body):
        for name in re.findall(r"expect_all\(\w+, -?(" + NAME + r")\)", test):
            provoked.setdefault(call, set()).add(name)
    spared = dict(re.findall(r"^ \* {5}(cow_\w+): (.*)$", test[test.index("NOT PROVOKED:"):], re.M))
    spared = {call: set(re.findall(NAME, names)) for call, names in spared.items()}
    wrong = []
    for call, (names, others, has_list) in sorted(calls.items()):
        seen = provoked.get(call, set())
        for name in sorted(names - seen - spared.get(call, set())):
            wrong.append(f"{call}: {name} is in its list, but test_errors does not provoke it")
        for name in sorted(names & seen & spared.get(call, set())):
            wrong.append(f"{call}: {name} is provoked, and called NOT PROVOKED")
        for name in sorted(spared.get(call, set()) - names):
            wrong.append(f"{call}: {name} is called NOT PROVOKED, but is not in its list")
        if not others:
            for name in sorted(seen - names - COMMON):
                wrong.append(f"{call}: answers with {name}, which is not in its list")
        if not has_list and re.search(r"COW_CHECKED[^;]*\b" + call + r"\(", header):
            wrong.append(f"{call}: has no list of errors")
    wrong += [f"{call}: no such call" for call in sorted((set(provoked) | set(spared)) - set(calls))]
    return wrong if len(calls) > 50 else ["only " + str(len(calls)) + " calls were found in cow.h"]


def calls(header, command):
    output = subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout
    shown = {re.sub("@.*", "", line.split()[-1]) for line in output.splitlines() if " T " in line}
    wanted = set(declared(header[header.index("#ifndef COW_H"):]))
    return [f"{name}: only in {'the library' if name in shown else 'cow.h'}" for name in sorted(shown ^ wanted)]


def main():
    what, header = sys.argv[1], read(sys.argv[2])
    if what == "calls":
        wrong = calls(header, sys.argv[3])
    else:
        wrong = {"example": example, "errors": errors}[what](header, read(sys.argv[3]))
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


sys.exit(main())
