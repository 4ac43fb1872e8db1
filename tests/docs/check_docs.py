# SPDX-License-Identifier: Apache-2.0
"""The documents stay true: every code is explained, links lead somewhere, and
the README's examples are the files that are built and run."""
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from cases import ROOT, Cases, command


def tables(cases):
    page = (ROOT / "docs" / "errors.md").read_text()
    for header, prefix in (("base.h", "FL_E_|FL_OK"),
                           ("protocol.h", "FL_REJECT_")):
        text = (ROOT / "include" / "fl" / header).read_text()
        rows = re.findall(rf"X\(((?:{prefix})\w*), (-?\d+),", text)
        missing = [f"{name} {number}" for name, number in rows
                   if f"| `{name}` | {number} |" not in page]
        cases.check(f"error_page_lists_every_code_of_{header}",
                    missing if len(rows) > 10 else ["no table found"])


def anchors(page):
    """What a page's headings are called in links."""
    headings = re.findall(r"^#+ (.*)$", re.sub(
        r"^```.*?^```", "", page.read_text(), flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
            for heading in headings}


def links(cases):
    broken = []
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md",
                                      "SECURITY.md", "fuzz/README.md")]
    pages += sorted((ROOT / "docs").rglob("*.md"))
    for page in pages:
        for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)",
                                         page.read_text()):
            if "://" in target:
                continue
            there = page.parent / target if target else page
            if not there.exists() or (
                    anchor and anchor not in anchors(there)):
                broken.append(f"{page.relative_to(ROOT)}: {target}#{anchor}")
    cases.check("links_between_documents_lead_somewhere", broken)


def names_in_backticks(cases):
    """Functions (and metrics) that a page names exist."""
    sources = [*(ROOT / "include" / "fl").glob("*.h"),
               *(ROOT / "examples" / "fl_aggregator").glob("*.c")]
    known = set(re.findall(r"\bfl_\w+",
                           "".join(path.read_text() for path in sources)))
    bad = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for name in re.findall(r"`(fl_\w+?)(?:\(\))?`", page.read_text()):
            # OpenMetrics appends _total to counters.
            if not {name, re.sub("_total$", "", name)} & known:
                bad.append(f"{page.relative_to(ROOT)}: {name}")
    cases.check("functions_named_in_documents_exist", bad)


def readme_blocks(cases):
    """The fenced C and Python blocks are examples, or stand in one: these are
    built and run (examples/meson.build, tests/programs, tests/python)."""
    readme = (ROOT / "README.md").read_text()
    for language, suffix in (("c", ".c"), ("python", ".py")):
        blocks = re.findall(rf"```{language}\n(.*?)```", readme, re.S)
        texts = [path.read_text()
                 for path in (ROOT / "examples").rglob("*" + suffix)]
        problems = [] if blocks else [f"README has no ```{language} block"]
        for block in blocks:
            first = block.split("\n")[0]
            if not any(block in text for text in texts):
                problems.append(f"in no example: {first}")
            if len(block.split("\n")) > 35:
                problems.append("longer than a reader's patience (35 lines): "
                                + first)
        cases.check(f"readme_{language}_blocks_are_of_built_examples", problems)


def first_lines(cases):
    head = "\n".join((ROOT / "README.md").read_text().splitlines()[:25])
    cases.check("readme_has_the_two_commands_at_its_top",
                [f"missing: {name}" for name in
                 ("./examples/quickstart", "./tests/run") if name not in head])


def shell(cases):
    scripts = [path for folder in ("tests", "tools", "examples", ".ci", "fuzz")
               for path in sorted((ROOT / folder).rglob("*"))
               if path.is_file() and path.stat().st_size < 100000 and
               path.read_bytes()[:20].startswith((b"#!/bin/sh", b"#!/usr/bin/env bash"))]
    status, output = command(["shellcheck", "-x", *scripts])
    cases.check("shell_scripts_pass_shellcheck",
                output.splitlines() if status else [])


def main():
    cases = Cases()
    tables(cases)
    links(cases)
    names_in_backticks(cases)
    readme_blocks(cases)
    first_lines(cases)
    shell(cases)
    cases.close()


main()
