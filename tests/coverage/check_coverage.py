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
LINES = {"E2": 61, "E3": 32, "E4": 29, "E5": 58, "E6": 38,
         "E7": 63, "E8": 87, "E9": 54}


def rows(text):
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


def problems(text):
    """Case name -> what is wrong with such a page."""
    seen, bare, unknown = {}, [], []
    for issue, number, ids in rows(text):
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
    return {"every_line_of_an_issue_has_a_row": missing,
            "every_row_names_what_shows_it": bare,
            "every_id_exists": unknown,
            "no_line_stands_twice": twice}


def seeded(text):
    """Damaged pages, and the case that must fail for each."""
    first = re.search(r"^\| E2\.1 \|.*\n", text, re.M).group(0)
    no_id = re.sub(r"`[^`]+`", "-", first)
    return [
        ("a_missing_row", text.replace(first, ""),
         "every_line_of_an_issue_has_a_row"),
        ("a_row_without_an_id", text.replace(first, no_id),
         "every_row_names_what_shows_it"),
        ("an_unknown_case", text.replace(
            first, first.replace("`examples/quickstart`",
                                 "`unit/rng:no_such_case`")),
         "every_id_exists"),
        ("an_unknown_file", text.replace(
            first, first.replace("`examples/quickstart`", "`examples/gone`")),
         "every_id_exists"),
        ("a_row_that_stands_twice", text.replace(first, first + first),
         "no_line_stands_twice")]


def main():
    cases = Cases()
    text = (ROOT / "tests" / "coverage.md").read_text()
    for name, lines in problems(text).items():
        cases.check(name, lines)
    for name, damaged, fails in seeded(text):
        cases.check(f"{name}_is_noticed",
                    [] if problems(damaged)[fails] else ["not seen"])
    cases.close()


main()
