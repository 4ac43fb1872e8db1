# SPDX-License-Identifier: Apache-2.0
"""Every public header compiles alone, as strict C11 and as C++17; signatures
hold to the ABI rules; the symbol map lists what the headers declare."""
import re
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from cases import (ROOT, Cases, command, mapped_symbols, public_functions,
                   public_headers)

WARNINGS = ["-pedantic", "-Wall", "-Wextra", "-Werror"]
COMPILERS = [("gcc", "c", "-std=c11"), ("clang", "c", "-std=c11"),
             ("g++", "cc", "-std=c++17"), ("clang++", "cc", "-std=c++17")]


def engine_flags(header):
    """Where the headers are that one of an adapter includes; None: nowhere."""
    if header.name != "mpi.h":
        return []
    for name in ("mpi-c", "ompi-c", "mpich"):
        status, output = command(["pkg-config", "--cflags", name])
        if status == 0:
            return [flag.replace("-I", "-isystem", 1)
                    for flag in output.split()]
    return None


def compile_alone(cases):
    for compiler, suffix, standard in COMPILERS:
        if not shutil.which(compiler):
            cases.skip(f"no {compiler}")
            continue
        for header in public_headers():
            flags = engine_flags(header)
            if flags is None:
                cases.skip(f"{header.name}: no MPI")
                continue
            with tempfile.TemporaryDirectory() as folder:
                source = Path(folder) / f"alone.{suffix}"
                # Twice: the guards must work.
                line = f"#include <fl/{header.name}>\n"
                source.write_text(line * 2 + "int used_by_nobody;\n")
                status, output = command(
                    [compiler, standard, *WARNINGS, "-I", ROOT / "include",
                     *flags, "-fsyntax-only", source])
            cases.check(f"{header.name}_compiles_alone_with_{compiler}",
                        output.splitlines() if status else [])


def signatures(cases):
    """No type whose size or meaning differs between compilers."""
    forbidden = re.compile(r"\b(bool|_Bool|long|ssize_t|FILE|enum)\b|\.\.\.")
    problems = []
    for header in public_headers():
        for name, text in public_functions(header).items():
            if forbidden.search(text):
                problems.append(f"{header.name}: {text}")
            for parameter in re.findall(r"\(([^)]*)\)", text)[:1]:
                for part in parameter.split(","):
                    if (re.search(r"\bfl_(?!status\b|\w+_fn\b)\w+\s+\w+$",
                                  part.strip())):
                        problems.append(f"{header.name}: struct by value in "
                                        f"{name}: {part.strip()}")
    cases.check("signatures_use_fixed_types_only", problems)


def documented(cases):
    """A comment right before each declaration, or before the group it is
    in (no blank line between)."""
    problems = []
    for header in public_headers():
        for block in re.split(r"\n\s*\n", header.read_text()):
            if re.search(r"^FL_API", block, re.M) and "/**" not in block:
                problems.append(f"{header.name}: {block.splitlines()[0]}")
    cases.check("public_functions_have_comments", problems)


def option_structs(cases):
    problems = []
    for header in public_headers():
        for match in re.finditer(r"typedef struct (fl_\w+_options) \{(.*?)\}",
                                 header.read_text(), re.S):
            first = re.sub(r"/\*.*?\*/", "", match.group(2), flags=re.S)
            if not first.strip().startswith("uint32_t struct_size;"):
                problems.append(f"{match.group(1)}: struct_size is not first")
            if f"{match.group(1)}_init(" not in header.read_text():
                problems.append(f"{match.group(1)}: no _init")
    cases.check("option_structs_begin_with_their_size", problems)


def symbol_map(cases):
    declared = set()
    for header in public_headers():
        if header.name not in ("host.h", "sqlite.h", "mpi.h"):
            declared |= set(public_functions(header))
    mapped = mapped_symbols()
    cases.check("symbol_map_equals_headers",
                [f"declared, not in libfl.map: {name}"
                 for name in sorted(declared - set(mapped))] +
                [f"in libfl.map, not declared: {name}"
                 for name in sorted(set(mapped) - declared)])
    cases.check("symbol_map_is_sorted",
                [] if mapped == sorted(mapped) else ["sort lib/libfl.map"])


def main():
    cases = Cases()
    compile_alone(cases)
    signatures(cases)
    documented(cases)
    option_structs(cases)
    symbol_map(cases)
    cases.close()


main()
