# SPDX-License-Identifier: Apache-2.0
"""tests/bench/bench_server in small: every figure is printed, and a round of
some hundred sessions in one fl-aggregator keeps to its bounds."""
import subprocess
import sys
import tempfile

from programs import AGGREGATOR, BUILD, run_program, run_script, want

PROGRAM = BUILD / "tests" / "bench" / "bench_server"


def _figures(*arguments):
    with tempfile.TemporaryDirectory() as folder:
        status, text, errors = run_program(PROGRAM, "--folder", folder,
                                           *arguments)
        want(status == 0, status, text, errors)
    return {key: float(value) for key, value
            in (line.split() for line in text.splitlines())}


def figures_of_a_server_are_printed():
    figures = _figures("--quick")
    for key in ("checkins_per_s", "first_checkins_per_s",
                "updates_per_s_memory", "updates_per_s_sqlite",
                "updates_per_s_sqlite_by_16"):
        want(figures[key] > 0, key, figures)
    want(figures["update_bytes"] == 500000, figures)
    want(figures["registered_clients"] == 20000, figures)
    want(0 < figures["bytes_per_registered_client"] <= 64, figures)
    want(figures["us_per_forgotten_client"] > 0, figures)


def a_round_of_many_sessions_keeps_to_its_bounds():
    figures = _figures("--sessions", "300", "--aggregator", AGGREGATOR)
    for key in ("sessions_in_flight", "open_sockets", "updates_committed"):
        want(figures[key] == 300, key, figures)
    want(figures["rlimit_nofile"] >= 364, figures)
    want(figures["aggregator_rss_kib"] <= figures["aggregator_rss_bound_kib"],
         figures)


def bad_arguments_are_refused():
    for arguments in (["--sessions", "5"], ["--aggregator", "x"], ["--what"],
                      ["--folder"]):
        done = subprocess.run([PROGRAM, *arguments], capture_output=True,
                              text=True, timeout=60, check=False)
        want(done.returncode == 2 and "usage:" in done.stderr, arguments)


if __name__ == "__main__":
    run_script(sys.modules[__name__])
