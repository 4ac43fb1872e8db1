# SPDX-License-Identifier: Apache-2.0
"""cohorts from outside: groups are found, and what is shown is recorded."""
import importlib.util
import json
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from programs import (BUILD, ENVIRONMENT, ROOT, make_data, run_script,
                      wait_for, want)

PROGRAM = BUILD / "examples" / "cohorts"
SCENARIOS = ["perm", "permskew", "rot", "drift", "imbalanced", "iid",
             "disjoint"]
RULES = ["sketch", "auxo", "loss", "fedavg", "oracle"]
TINY = ["--clients=20", "--samples=10", "--participants=8", "--evaluated=4",
        "--rounds=4", "--every=2"]
# Enough for the four groups to be found.
FOUND = ["--clients=300", "--samples=5", "--participants=40", "--rounds=60",
         "--every=10"]
ROUND_KEYS = ["rule", "round", "kind", "leaves", "mean", "worst10", "ari",
              "cohorts"]
EVENT_KEYS = ["rule", "round", "kind", "cohort", "child", "win", "lump",
              "probes"]


class _Folder:
    """A folder with data in it, and the program run there."""

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="libfl-cohorts-")
        self.path = Path(self.temporary.name)
        make_data(self.path / "data", train=1500, test=600)
        return self

    def __exit__(self, *_):
        self.temporary.cleanup()

    def start(self, *arguments):
        return subprocess.Popen(
            [str(PROGRAM), f"--data={self.path / 'data'}", *arguments],
            cwd=self.path, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *arguments, status=0):
        process = self.start(*arguments)
        output = process.communicate()[0]
        want(process.returncode == status, process.returncode, output)
        return output

    def record(self, name="record"):
        return [json.loads(line) for line in
                (self.path / name).read_text().splitlines()]


def _rounds(output):
    """Numbers of the tables' lines: round, leaves, mean, worst 10 %."""
    return [list(map(float, line.split())) for line in output.splitlines()
            if re.fullmatch(r" *\d+ +\d+ +[\d.]+ +[\d.]+", line)]


def _outcomes(output):
    """The last table's rows by rule."""
    rows = output.split("\n\n")[-1].splitlines()
    want(rows[0].startswith("rule "), output)
    return {name: list(map(float, numbers)) for name, *numbers in
            map(str.split, rows[1:])}


def groups_are_found_and_serve_their_clients():
    with _Folder() as folder:
        output = folder.run(*FOUND, "--compare", "--record=record")
        # mean, worst 10 %, Jain, ARI, leaves, down, asked, seconds
        rows = _outcomes(output)
        want(list(rows) == ["sketch", "fedavg", "oracle"], output)
        sketch, fedavg, oracle = rows.values()
        want(sketch[3] > .97 and sketch[4] == 4, output)
        want(fedavg[3] == 0 and fedavg[4] == 1 and fedavg[0] < 30, output)
        want(oracle[3] == 1 and oracle[4] == 4, output)
        want(abs(sketch[0] - oracle[0]) < 2, output)
        want(1 < sketch[5] < 3 and fedavg[5] == oracle[5] == 1, output)
        want(sketch[6] == fedavg[6] == oracle[6] == 0, output)
        want([row[0] for row in _rounds(output)] ==
             3 * [10, 20, 30, 40, 50, 60], output)
        events = [e for e in folder.record() if e["kind"] != "round"]
        for event in events:
            want(list(event) == EVENT_KEYS, event)
            want(f"{event['round']:5} {event['kind']:>7}  cohort" in output,
                 event, output)
        kinds = [event["kind"] for event in events]
        want(kinds.count("kept") == 3, kinds)
        want(kinds[0] == "trial" and kinds.count("trial") >= 3, kinds)


def the_same_groups_are_found_without_a_server():
    with _Folder() as folder:
        sketch = _outcomes(folder.run(*FOUND, "--direct"))["sketch"]
        want(sketch[3] > .97 and sketch[4] == 4, sketch)
        want(1 < sketch[5] < 1.5 and sketch[6] > 0, sketch)


def codecs_and_sketches_are_to_be_had():
    with _Folder() as folder:
        for arguments in (["--codec=f32"], ["--codec=bf16"],
                          ["--sketches=lanes"], ["--sketches=floats"],
                          ["--pace=apart"]):
            output = folder.run(*TINY, *arguments)
            want([row[0] for row in _rounds(output)] == [2, 4], output)
        output = folder.run("--codec=f32", "--sketches=lanes", status=2)
        want("got lanes with codec f32, want thc" in output, output)


def the_record_has_every_line_of_the_table():
    with _Folder() as folder:
        output = folder.run(*FOUND, "--rounds=30", "--record=record")
        rows = _rounds(output)
        rounds = [e for e in folder.record() if e["kind"] == "round"]
        want(len(rounds) == 3, rounds)
        for row, line in zip(rows, rounds):
            want(list(line) == ROUND_KEYS, line)
            want(row[:2] == [line["round"], line["leaves"]], row, line)
            want(abs(row[2] - 100 * line["mean"]) < .006, row, line)
            want(abs(row[3] - 100 * line["worst10"]) < .006, row, line)
            want(line["leaves"] == len(line["cohorts"]), line)
            sums = [sum(group) for group in zip(*line["cohorts"].values())]
            want(sums == [75, 75, 75, 75], line)
        want(rounds[-1]["leaves"] == 2, rounds)


def the_record_is_a_tree_that_can_be_drawn():
    sys.path.insert(0, str(ROOT / "examples"))
    plots = importlib.import_module("plot_cohorts")
    with _Folder() as folder:
        folder.run(*FOUND, "--compare", "--record=record")
        lines = (folder.path / "record").read_text().splitlines()
        record = plots.Record.parse(lines)
        want(list(record.curves) == ["sketch", "fedavg", "oracle"])
        want(record.tree.clients == 300 and record.last == 60)
        kept = [branch for branch in record.tree.branches
                if branch.decided is not None]
        want(len(kept) == 3 and all(branch.rounds for branch in kept), lines)
        if importlib.util.find_spec("matplotlib"):
            picture = folder.path / "tree.png"
            plots.main([str(folder.path / "record"), str(picture)])
            want(picture.read_bytes().startswith(b"\x89PNG"))


def the_same_seed_tells_the_same():
    with _Folder() as folder:
        seen = []
        for seed in (1, 1, 2):
            folder.run(*TINY, f"--seed={seed}", "--record=record")
            seen.append(folder.record())
        want(seen[0] == seen[1] != seen[2], *seen)


def every_scenario_and_rule_is_to_be_had():
    with _Folder() as folder:
        for scenario in SCENARIOS:
            rule = "oracle" if scenario == "iid" else "sketch"
            output = folder.run(*TINY, f"--scenario={scenario}",
                                f"--rule={rule}", "--drift-round=3")
            want([row[0] for row in _rounds(output)] == [2, 4], output)
            want(("change their group" in output) == (scenario == "drift"),
                 output)
        for rule in RULES:
            output = folder.run(*TINY, f"--rule={rule}")
            want(list(_outcomes(output)) == [rule], output)
            leaves = _rounds(output)[-1][1]
            if rule != "auxo":
                want(leaves == (4 if rule in ("loss", "oracle") else 1),
                     output)
        rows = _outcomes(folder.run(*TINY, "--rule=oracle", "--compare"))
        want(list(rows) == ["oracle", "fedavg"], rows)


def groups_are_as_large_as_the_scenario_says():
    with _Folder() as folder:
        folder.run(*TINY, "--clients=40", "--scenario=imbalanced",
                   "--rule=oracle", "--record=record")
        groups = folder.record()[-1]["cohorts"].values()
        want([sum(group) for group in groups] == [22, 10, 6, 2], groups)
        folder.run(*TINY, "--clients=40", "--scenario=drift",
                   "--rule=oracle", "--drift-round=4", "--record=record")
        first, last = folder.record()
        want(first["cohorts"]["0"] == [10, 0, 0, 0], first)
        groups = list(last["cohorts"].values())
        want(sum(map(sum, groups)) == 40, last)


def ctrl_c_leaves_a_whole_record():
    for number in (signal.SIGINT, signal.SIGTERM):
        with _Folder() as folder:
            record = folder.path / "record"
            process = folder.start(*TINY, "--rounds=1000000",
                                   "--record=record")
            wait_for("rounds", lambda: record.exists()
                     and record.stat().st_size > 0, process)
            process.send_signal(number)
            output = process.communicate()[0]
            want(process.returncode == 1, process.returncode, output)
            want("stopped after round" in output, output)
            want("Sanitizer" not in output, output)
            want(list(folder.record()[-1]) == ROUND_KEYS)


def what_is_wrong_is_named():
    with _Folder() as folder:
        for option in ("--scenario=x", "--rule=x", "--clients=19",
                       "--clients=100001", "--rounds=0", "--every=0",
                       "--participants=100001", "--seed=-1", "--codec=x",
                       "--sketches=x", "--pace=x"):
            output = folder.run(option, status=2)
            want(option.split("=", 1)[0] in output, option, output)
        output = folder.run("--participants=21", "--clients=20", status=2)
        want("got 21, want 1..20" in output, output)
        for arguments, what in (
                (["--data=nowhere"], "nowhere"),
                ([*TINY, "--record=nowhere/record"], "nowhere"),
                (["--clients=1000"], "got 1500, want 60000"),
                (["--clients=200", "--scenario=disjoint"],
                 "of a group's classes to train on")):
            output = folder.run(*arguments, status=1)
            want(what in output and "round" not in output, output)


def help_says_what_it_is():
    with _Folder() as folder:
        output = folder.run("--help")
        want("whole protocol, but no sockets" in " ".join(output.split()),
             output)
        for option in ("--scenario", "--rule", "--compare", "--record"):
            want(option in output, output)
        config = json.loads(folder.run("--check-config", "--rule=loss"))
        want(config["rule"] == "loss" and config["clients"] == 1000, config)


run_script(sys.modules[__name__])
