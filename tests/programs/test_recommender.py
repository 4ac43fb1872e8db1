# SPDX-License-Identifier: Apache-2.0
"""recommender from outside: it learns, its tables stay within their budgets,
what is saved scores the same, and plot.py reads its record."""
import importlib
import os
import pty
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from programs import BUILD, ENVIRONMENT, ROOT, run_script, wait_for, want

PROGRAM = BUILD / "examples" / "recommender"
NOISE = 20000  # values of a field that says nothing
LINE = re.compile(r"^ *(\d+) (\d\.\d{4}) (\d\.\d{4})" + r" +(\d+\.\d{3})" * 6
                  + r" +(\d+) +(\d+)$", re.M)


def _write_rows(path, rows=8000, labels=None, train=None):
    """Three fields; the label is whether two of them agree."""
    rng = random.Random(4)
    values = [(rng.randrange(20), rng.randrange(20), rng.randrange(NOISE))
              for _ in range(rows)]
    train = rows - rows // 5 if train is None else train
    data = b"FLCLICKS" + struct.pack(
        "<IIQQIIQ", 1, 3, rows, train, 0, 0, 48 + 3 * 24 + rows * 13)
    for name, size in ((b"left", 20), (b"right", 20), (b"noise", NOISE)):
        data += struct.pack("<16sQ", name, size)
    data += b"".join(struct.pack("<III", *row) for row in values)
    data += bytes(labels or [row[0] % 2 == row[1] % 2 for row in values])
    path.write_bytes(data)


class _Folder:
    """A folder with rows in it, and the program run there."""

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="libfl-rows-")
        self.path = Path(self.temporary.name)
        _write_rows(self.path / "rows")
        return self

    def __exit__(self, *_):
        self.temporary.cleanup()

    def start(self, *arguments, **kwargs):
        return subprocess.Popen(
            [str(PROGRAM), "--batch=128", *map(str, arguments)],
            cwd=self.path, env=ENVIRONMENT, stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            **{"stdout": subprocess.PIPE, "text": True, **kwargs})

    def run(self, *arguments, status=0):
        process = self.start(*arguments)
        output = process.communicate()[0]
        want(process.returncode == status, process.returncode, output)
        return output

    def figures(self, name):
        return {key: float(value) for key, value in
                (line.split() for line in
                 (self.path / name).read_text().splitlines())}


def _table(output):
    """{table: [MB, rows, chunks, AUC, ...]} at the end."""
    rows = output.split("\ntable ")[-1].splitlines()[1:]
    found = {}
    for row in rows:
        match = re.match(r"(all rows|[\d.]+ MB) +(.*)$", row)
        if match:
            found[match[1]] = match[2].split()
    return found


def both_tables_learn_and_one_stays_within_its_budget():
    with _Folder() as folder:
        output = folder.run("--data=rows", "--epochs=3", "--budget=0.3",
                            "--rows-lr=0.2", "--adjust-every=10",
                            "--record=record")
        want("6400 rows to train on, 1600 behind" in output, output)
        table = _table(output)
        want(list(table) == ["all rows", "0.3 MB"], output)
        for row in table.values():
            want(float(row[3]) > .6, output)
        full, small = output.split("at most 0.3 MB")
        lines = LINE.findall(small)
        want(len(lines) == 10 == len(LINE.findall(full)), output)
        want(all(float(line[3]) <= .3 for line in lines), output)
        want(float(LINE.findall(full)[-1][3]) > .6, output)
        want(int(lines[-1][-1]) > 0, "nothing evicted", output)
        for line in lines:  # bytes are told whole
            parts = sum(map(float, line[4:9]))
            want(abs(float(line[3]) - parts) < .004, line)
        # Which two fields matter is seen in what is kept.
        kept = {name: (int(values), int(rows)) for name, values, rows in
                re.findall(r"^(left|right|noise) +(\d+) +(\d+) ", output,
                           re.M)}
        want(kept["left"] == kept["right"] == (20, 20), output)
        want(kept["noise"][0] == NOISE and kept["noise"][1] < 6400, output)
        figures = folder.figures("record")
        want(figures["mb_budget_0.3"] <= .3, figures)
        want(f"{figures['auc_budget_0.3']:.4f}" == table["0.3 MB"][3],
             figures, output)


def federation_learns_over_shards():
    with _Folder() as folder:
        output = folder.run("--data=rows", "--budget=0.3", "--shards=8",
                            "--rounds=60", "--device-rows-lr=2",
                            "--server-rate=0.2")
        told = output.split("8 shards, 0 a round (all)")[1]
        lines = re.findall(r"^ *(\d+) (\d\.\d{4}) (\d\.\d{4}) +([\d.]+) +(\d+) "
                           r"+(\d+) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+)$",
                           told, re.M)
        want([int(line[0]) for line in lines] == list(range(6, 61, 6)), output)
        want(float(lines[-1][2]) > .6, output)
        want(all(float(line[3]) <= .3 for line in lines), output)
        want(all(int(line[5]) > 0 == int(line[6]) for line in lines), output)
        for column in 8, 9:  # bytes add up
            sizes = [float(line[column]) for line in lines]
            want(sizes == sorted(sizes) and sizes[-1] > .1, output)
        want("0.3 MB fed" in output.split("\ntable ")[-1], output)
        dropped = folder.run("--data=rows", "--budget=0.3", "--shards=8",
                             "--rounds=3", "--min-clients=9")
        want(re.search(r"^ *3 .* 0\.\d{3} +0 +(\d+) +\1 ", dropped, re.M),
             dropped)


def rows_without_a_file_are_learned_too():
    with _Folder() as folder:
        output = folder.run("--rows=40000", "--budget=0.5", "--rows-lr=0.1")
        want("made-up rows: 36000 rows to train on" in output, output)
        best = float(re.search(r"the best AUC there is: (\S+)", output)[1])
        for row in _table(output).values():
            want(.6 < float(row[3]) < best, output)


def the_record_is_what_plot_py_draws():
    with _Folder() as folder:
        output = folder.run("--data=rows", "--budget=0.2,0.4", "--shards=8",
                            "--rounds=10", "--record=record")
        figures = folder.figures("record")
        for name in ("full_16", "budget_0.2", "budget_0.4", "federated_0.4"):
            parts = sum(figures[f"{kind}_mb_{name}"] for kind in
                        ("values", "squares", "entries", "sketch", "free",
                         "fixed"))
            want(abs(parts - figures[f"mb_{name}"]) < .004, name, figures)
            want(figures[f"rows_{name}"] <= figures[f"chunks_{name}"],
                 figures)
        want(figures["array_mb_full_16"] ==
             round((NOISE + 40) * 68 * 1e-6, 3), figures)
        sys.path.insert(0, str(ROOT / "examples" / "recommender"))
        try:
            plot = importlib.import_module("plot")
        finally:
            sys.path.pop(0)
        text = (folder.path / "record").read_text()
        curves = plot.curves(plot.figures(text.splitlines()))
        want(list(curves) == ["full", "budget", "federated"], curves)
        told = output.splitlines()
        last = [line for line in told if line.split()[:1] == ["10"]][-1]
        want([point.auc for point in curves["federated"]]
             == [float(last.split()[2])], curves, last)
        for way, column in (("up", 8), ("down", 9)):
            want(abs(figures[f"{way}_mb_federated_0.4"]
                     - float(last.split()[column])) < .051, figures, last)
        want([point.auc for point in curves["budget"]] ==
             [figures["auc_budget_0.2"], figures["auc_budget_0.4"]], curves)


def what_is_saved_scores_the_same():
    with _Folder() as folder:
        output = folder.run("--data=rows", "--budget=0.2,0.3",
                            "--adjust-every=10", "--save=state/rows.fl")
        found = re.search(r"^state/rows.fl, read back: version [0-9a-f]{16}, "
                          r"(\d+) rows, AUC (\S+)$", output, re.M)
        want(found, output)
        row = _table(output)["0.3 MB"]
        want(found.groups() == (row[1], row[3]), output)
        want(sorted(path.name for path in (folder.path / "state").iterdir())
             == ["rows.fl", "rows.fl.net"], output)


def runs_are_the_same_for_any_number_of_threads():
    with _Folder() as folder:
        def outcome(*arguments):
            folder.run("--data=rows", "--budget=0.2", "--adjust-every=10",
                       "--record=record", *arguments)
            return {key: value for key, value in
                    folder.figures("record").items()
                    if not key.startswith("seconds")}
        first = outcome()
        want(first == outcome() == outcome("--threads=3"), first)
        want(first != outcome("--seed=2"), first)


def chunks_and_sketch_are_the_users():
    with _Folder() as folder:
        sketches = []
        for percent in (0, 10):
            folder.run("--data=rows", "--budget=0.2", "--chunks=1", "--dim=8",
                       f"--sketch={percent}", "--record=record")
            figures = folder.figures("record")
            want(figures["rows_budget_0.2"] == figures["chunks_budget_0.2"]
                 > 0, figures)
            want("auc_full_8" in figures, figures)
            sketches.append(figures["sketch_mb_budget_0.2"])
        # Candidates are there without a sketch, too.
        want(.019 < sketches[1] - sketches[0] < .021, sketches)


def ctrl_c_tells_what_is_known():
    with _Folder() as folder:
        record = folder.path / "record"
        for where in ("step", "auc_full_16"):
            out = folder.path / "out"
            with out.open("w") as file:
                process = folder.start(
                    "--data=rows", "--epochs=40", "--budget=0.2,0.3",
                    "--record=record", "--save=cut", stdout=file)
            wait_for(where, lambda: LINE.search(out.read_text()) and (
                where == "step" or where in record.read_text()), process)
            process.send_signal(signal.SIGINT)
            want(process.wait() == 1, process.returncode)
            output = out.read_text()
            want("stopped after step" in output, output)
            want("Sanitizer" not in output, output)
            table = _table(output)
            want(list(table)[0] == "all rows", output)
            want(list(table.values())[-1][-1] == "stopped", output)
            want(("auc_full_16" in folder.figures("record")) ==
                 (where != "step"), output)
            want(not (folder.path / "cut").exists(), output)
            record.unlink()


def a_terminal_has_a_bar_below_the_table():
    with _Folder() as folder:
        master, slave = pty.openpty()
        process = folder.start("--data=rows", "--budget=0.3", stdout=slave)
        os.close(slave)
        seen = b""
        try:
            while chunk := os.read(master, 65536):
                seen += chunk
        except OSError:  # the other end is closed
            pass
        os.close(master)
        want(process.wait() == 0, seen)
        want(b"\r[" in seen and b"samples/s" in seen, seen)
        text = re.sub(r"\r\[[^\r]*|\x1b\[K|\r", "", seen.decode())
        want(len(LINE.findall(text)) == 20, text)


def help_names_every_option_and_the_exit_status():
    with _Folder() as folder:
        output = folder.run("--help")
        for word in ("--data=FILE", "--budget=MB,...", "--dim=N",
                     "--chunks=N", "--sketch=PERCENT", "--epochs=N",
                     "--seed=N", "--record=FILE", "--save=FILE",
                     "Exit status"):
            want(word in output, word, output)


def what_is_wrong_is_named():
    with _Folder() as folder:
        for option in ("--budget=x", "--budget=", "--budget=1,", "--budget=0",
                       "--budget=2,1", "--budget=nan", "--chunks=3",
                       "--chunks=5", "--dim=20", "--epochs=0", "--sketch=-1",
                       "--budget=" + ",".join(map(str, range(1, 18)))):
            output = folder.run(option, status=2)
            want(option.split("=", 1)[0] in output, option, output)
        _write_rows(folder.path / "one", labels=[1] * 8000)
        _write_rows(folder.path / "none", train=0)
        _write_rows(folder.path / "all", train=8000)
        data = (folder.path / "rows").read_bytes()
        (folder.path / "cut").write_bytes(data[:-1])
        for arguments, says in (
                (["--data=nowhere"], "nowhere: No such file"),
                (["--data=cut"], "cut: got"),
                (["--data=one"], "want both labels"),
                (["--data=none"], "no rows to train on"),
                (["--data=all"], "want both labels"),
                (["--data=rows", "--record=no/where"], "no/where"),
                (["--data=rows", "--save=UPPER"], "UPPER"),
                (["--data=rows", "--budget=0.01"], "--budget 0.01: ")):
            output = folder.run(*arguments, status=1)
            want(says in output, arguments, output)


if __name__ == "__main__":
    run_script(sys.modules[__name__])
