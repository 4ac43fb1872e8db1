# SPDX-License-Identifier: Apache-2.0
"""The test runner counts what programs print, and cannot be fooled into
green."""
import argparse
import contextlib
import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from cases import Cases
from run_tests import Count, close, count_output, count_pytest, read_list

CRITERION = ("[\x1b[0;34m====\x1b[0m] \x1b[0;1mSynthesis: Tested: "
             "\x1b[0;34m{}\x1b[0;1m | Passing: \x1b[0;32m{}\x1b[0;1m | "
             "Failing: \x1b[0;31m{}\x1b[0;1m | Crashing: "
             "\x1b[0;31m{}\x1b[0;1m \x1b[0m\n")


def expect(cases, name, count, passed, failed, skipped):
    got = (count.passed, count.failed, len(count.skips))
    cases.check(name, [] if got == (passed, failed, skipped) else
                [f"got {got}, want {(passed, failed, skipped)}"])


def verdict(passed, skips=(), only="", known=()):
    """Exit status and last line of a run with these counts."""
    total = Count()
    total.passed, total.skips = passed, list(skips)
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        status = close(total, argparse.Namespace(only=only), 1.0, known)
    return status, text.getvalue().splitlines()[-1]


def verdicts(cases):
    enough = int(read_list("expected_count")[0])
    torch = "PyTorch is not installed"  # tests/run installs it
    for name, arguments, want in (
            ("enough_tests_pass", (enough,),
             (0, f"{enough} passed, 0 failed, 0 skipped")),
            ("fewer_tests_than_expected_fail", (enough - 1,),
             (1, f"{enough - 1} passed, 0 failed, 0 skipped")),
            ("one_stage_may_be_few", (0, (), "native"),
             (0, "0 passed, 0 failed, 0 skipped")),
            ("unknown_skip_fails", (enough, [("x", "felt like it")]),
             (1, f"{enough} passed, 0 failed, 1 skipped")),
            ("known_skip_is_allowed", (enough, [("x", "no")], "", ["no"]),
             (0, f"{enough} passed, 0 failed, 1 skipped")),
            ("skip_for_want_of_pytorch_fails",
             (enough, [("x", torch)], "", read_list("known_skips")),
             (1, f"{enough} passed, 0 failed, 1 skipped"))):
        got = verdict(*arguments)
        cases.check(name, [] if got == want else [f"got {got}, want {want}"])


def main():
    cases = Cases()
    verdicts(cases)
    expect(cases, "criterion_cases_are_counted",
           count_output("x", CRITERION.format(5, 5, 0, 0), True), 5, 0, 0)
    expect(cases, "criterion_crashes_are_failures",
           count_output("x", CRITERION.format(5, 3, 1, 1), False), 3, 2, 0)
    expect(cases, "criterion_without_tests_fails",
           count_output("x", CRITERION.format(0, 0, 0, 0), True), 0, 1, 0)
    expect(cases, "plain_lines_are_counted",
           count_output("x", "ok a\n3 passed, 0 failed\n", True), 3, 0, 0)
    expect(cases, "plain_without_tests_fails",
           count_output("x", "0 passed, 0 failed\n", True), 0, 1, 0)
    expect(cases, "last_plain_line_counts",
           count_output("x", "9 passed, 9 failed\n3 passed, 1 failed\n",
                        False), 3, 1, 0)
    expect(cases, "skips_need_a_reason",
           count_output("x", "1 passed, 0 failed, 1 skipped\n", True),
           1, 1, 0)
    expect(cases, "skips_are_named",
           count_output("x", "SKIP: no torch\n1 passed, 0 failed, "
                             "1 skipped\n", True), 1, 0, 1)
    expect(cases, "bad_exit_after_good_counts_fails",
           count_output("x", "3 passed, 0 failed\n", False), 3, 1, 0)
    expect(cases, "silent_program_is_one_case",
           count_output("x", "", True), 1, 0, 0)
    expect(cases, "silent_failing_program_is_one_failure",
           count_output("x", "", False), 0, 1, 0)
    expect(cases, "pytest_summary_is_counted",
           count_pytest("SKIPPED [2] tests/python/test_a.py:3: no torch\n"
                        "7 passed, 2 skipped in 1.2s\n", True), 7, 0, 2)
    expect(cases, "pytest_errors_are_failures",
           count_pytest("7 passed, 1 failed, 2 errors in 1.2s\n", False),
           7, 3, 0)
    expect(cases, "pytest_skips_need_a_reason",
           count_pytest("7 passed, 2 skipped in 1.2s\n", True), 7, 1, 0)
    expect(cases, "pytest_without_tests_fails",
           count_pytest("no tests ran in 0.01s\n", False), 0, 1, 0)
    cases.close()


main()
