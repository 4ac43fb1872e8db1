# SPDX-License-Identifier: Apache-2.0
"""Structs that begin with struct_size only grow at the end: every member of the
ABI baseline is where it was, with its name and type. abidiff's suppression that
lets them grow (ok.ini) would let members be swapped and retyped as well."""
import copy
import re
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from cases import ROOT, Cases, command

def spell(types, identifier):
    """A type in words, the same in every dump."""
    node = types[identifier]
    below = node.get("type-id")
    if node.tag == "pointer-type-def":
        return spell(types, below) + " *"
    if node.tag == "qualified-type-def":
        return "const " + spell(types, below)
    if node.tag == "function-type":
        parts = [spell(types, part.get("type-id")) for part in node]
        return f"{parts[-1]} ({', '.join(parts[:-1])})"
    return node.get("name")


def sized_structs(path):
    """Name -> list of (offset in bits, member, type), of those that begin with
    struct_size."""
    root = xml.parse(path).getroot()
    types = {node.get("id"): node for node in root.iter() if node.get("id")}
    structs = {node.get("name"): [
        (int(member.get("layout-offset-in-bits")), part.get("name"),
         spell(types, part.get("type-id")))
        for member in node.iter("data-member")
        for part in member.iter("var-decl")]
        for node in root.iter("class-decl")
        if node.get("name", "").startswith("fl_") and node.get("size-in-bits")}
    return {name: members for name, members in structs.items()
            if members and members[0][1] == "struct_size"}


def broken(old, new):
    lines = []
    for name, members in sorted(old.items()):
        for index, member in enumerate(members):
            found = new.get(name, [])[index:index + 1]
            if found != [member]:
                lines.append(f"{name}: was {member}, is {found}")
    return lines


def seeded(old):
    """Changes of the baseline that must, and one that must not, be seen."""
    name = max(old, key=lambda key: len(old[key]))
    change = {}
    for kind in ("swapped", "retyped", "removed", "appended"):
        change[kind] = copy.deepcopy(old)
        members = change[kind][name]
        last = members[-1]
        if kind == "swapped":
            members[1], members[2] = ((members[1][0], *members[2][1:]),
                                      (members[2][0], *members[1][1:]))
        elif kind == "retyped":
            members[-1] = (*last[:2], "char")
        elif kind == "removed":
            members.pop()
        else:
            members.append((last[0] + 64, "new", "uint64_t"))
    return change


def main():
    build = Path(sys.argv[1])
    cases = Cases()
    text = (ROOT / "meson.build").read_text()
    version = re.search(r"version: '(0\.\d+)\.", text).group(1)
    baseline = ROOT / "abi" / f"{version}.xml"
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "now.xml"
        status, output = command(
            ["abidw", "--headers-dir", "include", "--drop-private-types",
             "--out-file", dump, build / "lib" / "libfl.so"])
        if status or not baseline.exists():
            cases.check("baseline_and_library_are_there",
                        [str(baseline), *output.splitlines()])
            cases.close()
        old, new = sized_structs(baseline), sized_structs(dump)
    cases.check("there_are_structs_to_check",
                [] if len(old) >= 6 else [str(sorted(old))])
    cases.check("sized_structs_only_grow_at_the_end", broken(old, new))
    for kind, changed in seeded(old).items():
        is_seen = bool(broken(old, changed))
        cases.check(f"{kind}_member_is_{'' if kind != 'appended' else 'not_'}"
                    "noticed", [] if is_seen == (kind != "appended") else
                    ["the check does not tell"])
    cases.close()


main()
