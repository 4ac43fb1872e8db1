# SPDX-License-Identifier: Apache-2.0
"""examples/quickstart: options, what it says when it fails, its tables."""
import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

from programs import (BUILD, Bench, ENVIRONMENT, ROOT, end_of, run_script,
                      wait_for, want)

QUICKSTART = ROOT / "examples" / "quickstart"


def _run(*arguments, environment=None):
    done = subprocess.run([str(QUICKSTART), *map(str, arguments)],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True,
                          env=environment or ENVIRONMENT, timeout=500,
                          check=False)
    return done.returncode, done.stdout


def _users_of(path):
    """Processes that have the path on their command line."""
    found = []
    for line in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(path).encode() in line.read_bytes():
                found.append(line.parent.name)
    return found


def _small(bench, *arguments):
    return _run("--build", BUILD, "--data", bench.data, *arguments,
                environment=dict(ENVIRONMENT, TMPDIR=str(bench.folder)))


def help_works_before_anything_is_installed():
    done = subprocess.run(["/bin/bash", str(QUICKSTART), "--help"],
                          env={"PATH": "/usr/bin:/bin"}, timeout=60,
                          capture_output=True, text=True, check=False)
    want(done.returncode == 0, done.stderr)
    for option in ("--rounds", "--participants", "--seed", "--data",
                   "--codec", "--freeze", "--kill-one", "--json", "Exit status"):
        want(option in done.stdout, option)


def bad_options_are_refused_with_status_1():
    for arguments, says in [
            (["--bogus"], "--bogus"), (["--rounds"], "--rounds: want a value"),
            (["--rounds", "0"], "want 1..10000"),
            (["--rounds", "x"], "want a number"),
            (["--participants", "65"], "want 1..64"),
            (["--participants", "0"], "want 1..64"),
            (["--codec", "zip"], "thc, bf16 or f32"), (["extra"], "extra"),
            (["--freeze", "fixed:3"], "gradnorm[:TOLERANCE] or fixed:ROUND:N"),
            (["--freeze", "gradnorm:x"], "gradnorm[:TOLERANCE] or fixed"),
            (["--rounds=0"], "--rounds: got 0"), (["--data="], "--data: want"),
            (["--json", "/nonexistent/x"], "'/nonexistent/x' cannot be"),
            (["--kill-one", "--participants=1"], "2 participants or more")]:
        status, text = _run(*arguments)
        want(status == 1 and says in text, arguments, status, text)
        want(len(text.splitlines()) == 1, "built before it was refused", text)


def a_missing_data_folder_is_named():
    with Bench() as bench:
        status, text = _run("--data", bench.folder / "none")
        want(status == 1 and "none' is missing" in text, status, text)
        (bench.data / "t10k-labels-idx1-ubyte.gz").unlink()
        status, text = _run("--data", bench.data)
        want(status == 1 and "no t10k-labels-idx1-ubyte.gz" in text, text)


def a_damaged_data_file_ends_it_with_the_reason():
    with Bench() as bench:
        (bench.data / "train-labels-idx1-ubyte.gz").write_bytes(b"")
        status, text = _small(bench, "--participants", 2)
        want(status == 1
             and "train-labels-idx1-ubyte.gz: idx: ends early" in text,
             status, text)


def three_rounds_with_four_participants_are_compared():
    with Bench() as bench:
        report = bench.folder / "figures.json"
        status, text = _small(bench, "--rounds", 3, "--participants", 4,
                              "--json", report)
        want(status == 0, text)
        want(len(re.findall(r"^ +[123] +\d+\.\d\d % +\d+ +\d+ +\d", text,
                            re.M)) == 6, text)
        want(re.search(r"^thc vs f32: accuracy .* points\), .*x less up, "
                       r".*x less down", text, re.M), text)
        figures = json.loads(report.read_text())
        want([r["codec"] for r in figures["runs"]] == ["thc", "f32"], figures)
        want(figures["comparison"]["up"] > 7
             and figures["comparison"]["down_from_round_2"] > 3.5, text)


def same_seed_same_shards_another_seed_other_figures():
    with Bench() as bench:
        samples = {}
        for name, seed in (("a", 7), ("b", 7), ("c", 8)):
            report = bench.folder / f"{name}.json"
            status, text = _small(bench, "--rounds=1", "--participants=3",
                                  "--codec=f32", f"--seed={seed}",
                                  "--json", report)
            want(status == 0, text)
            figures = json.loads(report.read_text())
            want(figures["seed"] == seed, figures)
            samples[name] = figures["runs"][0]["samples"]
        want(samples["a"] == samples["b"] != samples["c"], samples)


def _on_a_terminal(bench, *arguments):
    """Status and what a terminal of 60 columns gets."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 60, 0, 0))
    process = subprocess.Popen(
        [str(QUICKSTART), "--build", BUILD, "--data", bench.data, *arguments],
        stdin=subprocess.DEVNULL, stdout=follower, stderr=follower,
        env=dict(ENVIRONMENT, TMPDIR=str(bench.folder)))
    bench.processes.append(process)
    os.close(follower)
    seen = b""
    with contextlib.suppress(OSError):  # EIO at the end
        while True:
            seen += os.read(leader, 4096)
    os.close(leader)
    return end_of(process), seen.decode()


def a_terminal_gets_a_bar_that_fits_and_goes_away():
    with Bench() as bench:
        status, text = _on_a_terminal(bench, "--rounds=2", "--participants=2",
                                      "--codec=f32")
        want(status == 0, text)
        bars = re.findall(r"\r(f32 \[[^\r]*)", text)
        want(len(bars) == 3 and "round 0/2" in bars[0]
             and re.search(r"\[#+\] round 2/2  \d+\.\d\d %", bars[2]), bars)
        want(max(map(len, bars)) < 60, bars)
        before = text.split("f32: bytes per participant")[0]
        want(re.search(r"\r +\r\r\n$", before), repr(before[-80:]))


def the_table_is_what_the_log_says():
    """Recomputed from the log of a run that is followed by the same code."""
    sys.path.insert(0, str(ROOT / "examples"))
    import quickstart_run as quick
    with Bench() as bench:
        options = argparse.Namespace(
            build=BUILD, data=str(bench.data), rounds=3, participants=3,
            seed=1, freeze="", kill_one=True)
        training = quick.Training(options, "thc", bench.folder,
                                  quick.Interrupt())
        training.run()
        result = quick.figures(training)
        rows = bench.events("round_finished")
        want(len(rows) == 3 and "p2" in result["died"], result)
        for row, logged in zip(result["rounds"], rows):
            counted = [c for c in logged["clients"].values() if c["counted"]]
            want(len(counted) == logged["accepted"] == row["accepted"], logged)
            for way in ("up", "down"):
                mean = sum(c[way] for c in counted) / len(counted)
                want(abs(row[way] - mean) < 1e-6, row, logged)
            want(row["accuracy"] == logged["accuracy"]
                 and row["seconds"] == logged["seconds"], row, logged)
        want(result["accuracy"] == rows[-1]["accuracy"], result)


def float32_runs_once():
    with Bench() as bench:
        status, text = _small(bench, "--rounds", 1, "--participants", 2,
                              "--codec", "f32")
        want(status == 0 and " vs " not in text, status, text)
        want(text.count("bytes per participant") == 1, text)


def bf16_is_compared_too():
    with Bench() as bench:
        status, text = _small(bench, "--rounds", 2, "--participants", 2,
                              "--codec", "bf16")
        want(status == 0 and "bf16 vs f32" in text, status, text)


def what_is_frozen_costs_no_bytes():
    """The traffic falls round by round in the table: the four modules hold
    100,480, 16,512, 16,512 and 1,290 weights, and one more is frozen with each
    round from the second on."""
    left = [134794, 34314, 17802, 1290]
    for codec, size in (("thc", 0.5), ("f32", 4)):
        with Bench() as bench:
            report = bench.folder / "report.json"
            status, text = _small(bench, "--rounds", 5, "--participants", 2,
                                  "--codec", codec, "--freeze",
                                  "fixed:2:1,3:2,4:3", "--json", report)
            want(status == 0, status, text)
            want([re.search(f"^ +{i} .* ([0-9])$", text, re.M).group(1)
                  for i in range(1, 6)] == list("01233"), text)
            rows = json.loads(report.read_text())["runs"][0]["rounds"]
            want([row["frozen"] for row in rows] == [0, 1, 2, 3, 3], rows)
            for row, before in zip(rows[1:4], rows):
                want(row["up"] < 0.6 * before["up"], row, before)
            for row, n in zip(rows, left):
                # THC pads; then there are headers and control messages.
                want(n * size < row["up"] < n * size * 1.3 + 6000, row, n)
            # A round begins with the step of the one before.
            for row, before in zip(rows[2:5], rows[1:]):
                want(row["down"] < 0.7 * before["down"], row, before)


def kill_one_finishes_names_it_and_exits_with_2():
    with Bench() as bench:
        status, text = _small(bench, "--rounds", 3, "--participants", 4,
                              "--codec", "f32", "--kill-one")
        want(status == 2, status, text)
        want(re.search(r"^participant p3: killed by SIGKILL, lost in round 2",
                       text, re.M), text)
        want(len(re.findall(r"^ +3 +\d", text, re.M)) == 1, text)


def an_interrupted_run_leaves_no_process():
    for number in (signal.SIGINT, signal.SIGTERM):
        with Bench() as bench:
            process = bench.start("quickstart", QUICKSTART, "--build", BUILD,
                                  "--data", bench.data, "--rounds", 10000)
            wait_for("ten processes",
                     lambda: len(_users_of(bench.data)) >= 10, process)
            process.send_signal(number)
            want(end_of(process) == 1, bench.errors("quickstart"))
            want("interrupted" in bench.errors("quickstart"),
                 bench.errors("quickstart"))
            want(not _users_of(bench.data), _users_of(bench.data))


if __name__ == "__main__":
    run_script(sys.modules[__name__])
