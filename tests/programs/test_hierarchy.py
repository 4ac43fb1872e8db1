# SPDX-License-Identifier: Apache-2.0
"""bench_hierarchy: every shape has the same sum, and its bytes are those that
shapes have."""
import subprocess
import sys

from programs import BUILD, ENVIRONMENT, ROOT, run_program, run_script, want

SCRIPT = ROOT / "tests" / "bench" / "bench_hierarchy.py"
# Open MPI itself never frees some of its memory.
MPI = dict(ENVIRONMENT, ASAN_OPTIONS="detect_leaks=0")


def _figures(*arguments):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(BUILD), "--dim", "20000", "--runs",
         "1", *arguments], capture_output=True, text=True, timeout=250,
        env=MPI, stdin=subprocess.DEVNULL, check=False)
    want(done.returncode == 0, done.stdout, done.stderr)
    return dict(line.split() for line in done.stdout.splitlines())


def every_shape_has_the_same_sum():
    for codec in ("f32", "thc"):
        figures = _figures("--codec", codec, "--count", "16")
        want(figures["same_sum"] == "1", figures)
        want(figures["server_sum"] == figures["tree8_sum"], figures)


def edges_spare_the_root_bytes():
    figures = _figures("--count", "64")
    want(int(figures["tree8_in_bytes"]) * 3 < int(figures["server_in_bytes"]),
         figures)
    want(int(figures["tree8_out_bytes"]) * 8 == int(figures["server_out_bytes"]),
         figures)


def what_is_wrong_is_answered_with_help():
    for arguments in (["--count", "7"], ["--dim"], ["--shape", "ring"]):
        status, _, errors = run_program(
            BUILD / "tests" / "bench" / "bench_hierarchy", *arguments)
        want(status == 2 and "usage:" in errors, arguments, status, errors)


run_script(sys.modules[__name__])
