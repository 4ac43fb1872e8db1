# SPDX-License-Identifier: Apache-2.0
"""The countable rules of CONTRIBUTING.md: licence tags, lengths of files and
functions, clang-format, and nothing left for later."""
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from cases import ROOT, Cases, command

FOLDERS = [".ci", "bindings", "examples", "fuzz", "include", "lib", "tests",
           "tools"]
SUFFIXES = (".c", ".h", ".py", ".pyi", ".sh", ".map")
FILE_LINES, FUNCTION_LINES = 600, 60
LATER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")


def sources():
    """Every file that people wrote in a programming language."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            if path.suffix in SUFFIXES or path.name == "meson.build" or (
                    not path.suffix and path.read_bytes()[:2] == b"#!"):
                yield path


def long_functions(text):
    """(line, length) of the function bodies that are too long. A brace in the
    first column opens a function's body, and one there closes it."""
    begin, found = None, []
    for number, line in enumerate(text.splitlines(), 1):
        if line == "{":
            begin = number
        elif line.startswith("}") and begin:
            if number - begin + 1 > FUNCTION_LINES:
                found.append((begin, number - begin + 1))
            begin = None
    return found


def main():
    cases = Cases()
    files = {path: path.read_text() for path in sources()}
    c_files = [path for path in files if path.suffix in (".c", ".h")]
    short = {path: path.relative_to(ROOT) for path in files}
    cases.check("there_are_sources_to_check",
                [] if len(c_files) > 150 else [str(len(c_files))])
    cases.check("sources_carry_the_licence_tag",
                [str(short[path]) for path, text in files.items()
                 if "SPDX-License-Identifier: Apache-2.0"
                 not in "\n".join(text.splitlines()[:3])])
    cases.check(f"files_have_at_most_{FILE_LINES}_lines",
                [f"{short[path]}: {text.count(chr(10))}"
                 for path, text in files.items()
                 if text.count("\n") > FILE_LINES])
    cases.check(f"functions_have_at_most_{FUNCTION_LINES}_lines",
                [f"{short[path]}:{line}: {length} lines"
                 for path in c_files
                 for line, length in long_functions(files[path])])
    cases.check("long_functions_are_noticed",
                [] if long_functions("int f(void)\n{\n" + "  g();\n" * 59
                                     + "}\n") == [(2, 61)] else ["not seen"])
    cases.check("nothing_is_left_for_later",
                [f"{short[path]}: {line.strip()}"
                 for path, text in files.items() if path != Path(__file__)
                 for line in text.splitlines() if LATER.search(line)])
    status, output = command(["clang-format", "--dry-run", "-Werror",
                              *c_files])
    cases.check("c_sources_are_what_clang_format_writes",
                output.splitlines() if status else [])
    cases.close()


main()
