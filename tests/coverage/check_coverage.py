# SPDX-License-Identifier: Apache-2.0
"""tests/coverage.md: every line of an issue names what shows it, and what it
names exists.

Rows look like `| E2.7 | what must be true | id, id, ... |` with ids
  folder/name:case   a case of tests/<folder>/test_<name>.c, .py or .sh
  fuzz/name          a fuzz target with a corpus
  check/name:case    a case of a tests/*/check_<name> script
  path               a file of the repository
"""
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from cases import ROOT, Cases

# Issue -> number of lines that its section must have.
LINES = {"E2": 58}


def rows():
    text = (ROOT / "tests" / "coverage.md").read_text()
    for line in text.splitlines():
        match = re.match(r"\| (E\d+)\.(\d+) \| (.*?) \| (.*?) \|$", line)
        if match:
            yield match.group(1), int(match.group(2)), match.group(4)


def sources(identifier):
    """Files that hold the cases of an id, and the case's name (or None)."""
    name, _, case = identifier.partition(":")
    folder, _, stem = name.partition("/")
    if folder == "fuzz" and "." not in stem:
        corpus = ROOT / "fuzz" / "corpus" / stem
        found = [ROOT / "fuzz" / f"{stem}.c"] if corpus.is_dir() else []
        return found, None
    if folder == "check":
        return list((ROOT / "tests").glob(f"*/check_{stem}.*")), case
    if case:
        return [path for path in (ROOT / "tests" / folder).glob(
            f"test_{stem}.*")], case
    return [ROOT / identifier], None


def exists(identifier):
    files, case = sources(identifier)
    files = [path for path in files if path.exists()]
    if not files:
        return False
    return case is None or any(
        re.search(rf"\b{re.escape(case)}\b", path.read_text())
        for path in files)


def main():
    cases = Cases()
    seen, bare, unknown = {}, [], []
    for issue, number, ids in rows():
        seen.setdefault(issue, []).append(number)
        found = re.findall(r"`([^`]+)`", ids)
        if not found:
            bare.append(f"{issue}.{number}")
        unknown += [f"{issue}.{number}: {identifier}" for identifier in found
                    if not exists(identifier)]
    missing = [f"{issue}.{number}" for issue, count in LINES.items()
               for number in range(1, count + 1)
               if number not in seen.get(issue, [])]
    twice = [f"{issue}.{number}" for issue, numbers in seen.items()
             for number in set(numbers) if numbers.count(number) > 1]
    cases.check("every_line_of_an_issue_has_a_row", missing)
    cases.check("every_row_names_what_shows_it", bare)
    cases.check("every_id_exists", unknown)
    cases.check("no_line_stands_twice", twice)
    cases.close()


main()
