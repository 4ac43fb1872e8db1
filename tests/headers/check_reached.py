# SPDX-License-Identifier: Apache-2.0
"""No public function without a caller: each is called by a C test, and by an
example or the Python package. Comments and strings do not count in C."""
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from cases import ROOT, Cases, public_functions, public_headers

TESTS = ["unit", "net", "oom", "threads", "golden"]
NOISE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.S)
PACKAGE = ROOT / "bindings" / "python" / "src" / "libfl"


def sources(folder):
    return [path for path in sorted(folder.rglob("*"))
            if path.suffix in (".c", ".h")]


def called_in_c(paths):
    """Public names before a parenthesis, and names handed on (as a parameter
    of a loop over all _init functions is)."""
    names = set()
    for path in paths:
        names |= set(re.findall(r"\bfl_\w+(?=\s*[(,)};])",
                                NOISE.sub(" ", path.read_text())))
    return names


def called_in_python():
    """Functions that the package uses; the tables of signatures name all of
    them and so do not count, but those of the _init functions do."""
    names = set()
    for path in sorted(PACKAGE.glob("*.py")):
        names |= set(re.findall(r"\b(?:lib|library)\.(fl_\w+)",
                                path.read_text()))
    table = re.search(r"^INITIALISED.*?^}", (PACKAGE / "_signatures.py").read_text(),
                      re.S | re.M)
    return names | set(re.findall(r'"(fl_\w+_init)"', table.group(0)))


def main():
    cases = Cases()
    tests = ROOT / "tests"
    # The headers of tests/ are what the programs in its folders share.
    tested = called_in_c([*tests.glob("*.h"),
                          *(path for name in TESTS
                            for path in sources(tests / name))])
    used = called_in_c(sources(ROOT / "examples")) | called_in_python()
    for header in public_headers():
        functions = public_functions(header)
        if not functions:
            continue
        cases.check(f"functions_of_{header.name}_are_called_by_a_c_test",
                    [name for name in functions if name not in tested])
        cases.check(f"functions_of_{header.name}_are_used_by_an_example",
                    [name for name in functions if name not in used])
    cases.close()


main()
