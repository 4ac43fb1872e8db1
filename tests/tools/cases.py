# SPDX-License-Identifier: Apache-2.0
"""Named cases for check scripts: prints what failed, and the closing line
`N passed, N failed, N skipped` that tests/run counts."""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


class Cases:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def check(self, name, problems):
        """One case: passes when `problems` (a list of lines) is empty."""
        if problems:
            self.failed += 1
            print(f"FAIL {name}")
            for line in problems[:40]:
                print(f"  {line}")
        else:
            self.passed += 1
            print(f"ok {name}")

    def skip(self, reason):
        self.skipped += 1
        print(f"SKIP: {reason}")

    def close(self):
        print(f"{self.passed} passed, {self.failed} failed, "
              f"{self.skipped} skipped")
        sys.exit(1 if self.failed else 0)


def command(arguments, **kwargs):
    """Run a command; return (status, stdout + stderr)."""
    process = subprocess.run(list(map(str, arguments)), cwd=ROOT,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True,
                             errors="replace", check=False, **kwargs)
    return process.returncode, process.stdout


def public_headers():
    return sorted((ROOT / "include" / "fl").glob("*.h"))


def public_functions(header):
    """Names declared with FL_API in a header -> whole declaration."""
    text = re.sub(r"/\*.*?\*/", " ", header.read_text(), flags=re.S)
    found = {}
    for match in re.finditer(r"FL_API\s+[^;(]*?\b(fl_\w+)\s*\([^;]*;", text):
        found[match.group(1)] = " ".join(match.group(0).split())
    return found


def mapped_symbols():
    """Names that lib/libfl.map exports."""
    text = (ROOT / "lib" / "libfl.map").read_text()
    return re.findall(r"^\s+(fl_\w+);$", text, re.M)
