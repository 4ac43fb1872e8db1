#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Run the quick start's trainings and print their tables.

Started by examples/quickstart once everything is built. Starts one
fl-aggregator and N fl-participant processes, follows the aggregator's log,
and takes every figure of the tables from it. Standard library only.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# With --freeze: four modules, of which three may be frozen one by one.
HIDDEN = "128,128,128"
STALL_SECONDS = 180  # without any event in the log
START_SECONDS = 30
LEAVE_SECONDS = 5


class Failure(Exception):
    """Something that ends the quick start with exit status 1."""


class Interrupt:
    """SIGINT and SIGTERM, taken at points of our choice: an exception in the
    middle of a Popen would leave a process behind that nobody knows."""

    def __init__(self):
        self.has_come = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.note)

    def note(self, _number, _frame):
        self.has_come = True

    def check(self):
        if self.has_come:
            raise KeyboardInterrupt


def last_lines(path, n=5):
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return "\n".join("  " + line for line in lines[-n:])


def describe_exit(status):
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


class Progress:
    """A bar on a terminal, one line per round elsewhere."""

    def __init__(self, name, rounds):
        self.name, self.rounds = name, rounds
        self.is_tty = sys.stdout.isatty()
        self.shown = 0  # characters of the bar's line
        if self.is_tty:
            self.draw(0, f"round 0/{rounds}")

    def draw(self, done, text):
        columns = shutil.get_terminal_size().columns
        width = max(0, min(40, columns - len(self.name) - len(text) - 5))
        full = width * done // self.rounds
        line = f"{self.name} [{'#' * full}{'.' * (width - full)}] {text}"
        line = line[:columns - 1]
        print("\r" + line.ljust(self.shown), end="", flush=True)
        self.shown = len(line)

    def show(self, row):
        text = f"round {row['round']}/{self.rounds}  {percent(row)}"
        if self.is_tty:
            self.draw(row["round"], text)
        else:
            print(f"{self.name}: {text}", flush=True)

    def end(self):
        if self.is_tty:
            print("\r" + " " * self.shown + "\r", end="", flush=True)


class Training:
    """One aggregator and its participants, from start to last event."""

    def __init__(self, options, codec, folder, interrupt):
        self.options, self.codec, self.folder = options, codec, folder
        self.interrupt = interrupt
        self.processes = {}
        self.events, self.rows = [], []
        self.lost, self.died = {}, {}
        self.exit_event = None
        self.position = 0
        self.wall_seconds = 0
        self.environment = dict(
            os.environ, OPENBLAS_NUM_THREADS="1", no_proxy="127.0.0.1")

    def start(self, name, program, arguments):
        self.interrupt.check()
        stderr = (self.folder / f"{name}.err").open("wb")
        with stderr:
            self.processes[name] = subprocess.Popen(
                [str(self.options.build / "examples" / program), *arguments],
                stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr,
                env=self.environment)

    def start_aggregator(self):
        options = self.options
        port_file = self.folder / "port"
        self.start("aggregator", "fl-aggregator", [
            "--listen=127.0.0.1:0", f"--port-file={port_file}",
            f"--log={self.folder / 'log'}", f"--test-data={options.data}",
            f"--rounds={options.rounds}", f"--codec={self.codec}",
            f"--min-clients={options.participants}", f"--seed={options.seed}",
            "--epochs=1", "--batch=32", "--lr=0.05", "--grace-seconds=2",
            "--norm-deadline-seconds=120", "--update-deadline-seconds=120",
            "--exit-when-done",
            *([f"--freeze={options.freeze}", f"--hidden={HIDDEN}"]
              if options.freeze else [])])
        end = time.monotonic() + START_SECONDS
        while not port_file.exists():
            self.interrupt.check()
            status = self.processes["aggregator"].poll()
            if status is not None:
                raise Failure("the aggregator did not start:\n"
                              + last_lines(self.folder / "aggregator.err"))
            if time.monotonic() > end:
                raise Failure(f"no aggregator after {START_SECONDS} s")
            time.sleep(0.02)
        return int(port_file.read_text())

    def start_participants(self, port):
        options = self.options
        for index in range(options.participants):
            arguments = [
                f"--server=http://127.0.0.1:{port}", f"--id=p{index + 1}",
                f"--index={index}", f"--participants={options.participants}",
                f"--data={options.data}", "--alpha=0.5",
                f"--seed={options.seed}"]
            if options.kill_one and index == options.participants // 2:
                arguments.append(f"--die-in-round={options.rounds // 2 + 1}")
            self.start(f"p{index + 1}", "fl-participant", arguments)

    def new_events(self):
        try:
            with (self.folder / "log").open("rb") as log:
                log.seek(self.position)
                data = log.read()
        except FileNotFoundError:
            return []
        whole = data[:data.rfind(b"\n") + 1]
        self.position += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def take(self, event, progress):
        kind = event["event"]
        if kind == "round_finished":
            self.rows.append(event)
            progress.show(event)
        elif kind == "client_lost":
            why = event["text"].removeprefix(f"round {event['round']}: ")
            self.lost[event["client"]] = (event["round"], why)
        elif kind == "exit":
            self.exit_event = event
        self.events.append(event)

    def check_processes(self):
        """True while the aggregator runs."""
        for name, process in self.processes.items():
            status = process.poll()
            if name != "aggregator" and status and name not in self.died:
                self.died[name] = describe_exit(status)
        status = self.processes["aggregator"].poll()
        if status:
            raise Failure(
                f"the aggregator ended early ({describe_exit(status)}):\n"
                + last_lines(self.folder / "aggregator.err"))
        return status is None

    def check_deaths(self):
        """Can it go on with those who are left? Only asked when the log has
        been read up to their end."""
        has_begun = any(e["event"] == "round_started" for e in self.events)
        if not self.died:
            return
        name, how = next(iter(self.died.items()))
        why = f" ({how}):\n" + last_lines(self.folder / f"{name}.err")
        if not has_begun:
            raise Failure(f"participant {name} ended before the first round"
                          + why)
        if len(self.died) == self.options.participants:
            raise Failure(f"all participants died, {name} first" + why)

    def follow(self):
        progress = Progress(self.codec, self.options.rounds)
        heard = time.monotonic()
        try:
            is_running = True
            while is_running:
                self.interrupt.check()
                is_running = self.check_processes()
                events = self.new_events()
                for event in events:
                    self.take(event, progress)
                if events:
                    heard = time.monotonic()
                elif time.monotonic() - heard > STALL_SECONDS:
                    raise Failure(f"nothing happened for {STALL_SECONDS} s")
                if is_running:
                    self.check_deaths()
                    time.sleep(0.05)
        finally:
            progress.end()
        self.interrupt.check()
        if len(self.rows) != self.options.rounds or not self.exit_event:
            raise Failure(f"the log has {len(self.rows)} rounds, "
                          f"want {self.options.rounds}")
        self.collect()

    def collect(self):
        """Wait for the participants, which have been told that it is over."""
        end = time.monotonic() + LEAVE_SECONDS
        for name, process in self.processes.items():
            try:
                status = process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired as error:
                raise Failure(f"{name} does not leave") from error
            if status and name not in self.died:
                self.died[name] = describe_exit(status)

    def stop(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + LEAVE_SECONDS
        for process in self.processes.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self):
        began = time.monotonic()
        try:
            self.start_participants(self.start_aggregator())
            self.follow()
        finally:
            self.stop()
        self.wall_seconds = time.monotonic() - began


def percent(row):
    return f"{100 * row['accuracy']:.2f} %"


def mean_bytes(clients, way):
    """Mean over the clients that were counted, or over all when none was."""
    counted = [c for c in clients.values() if c["counted"]]
    counted = counted or list(clients.values())
    return sum(c[way] for c in counted) / max(1, len(counted))


def figures(training):
    rounds = [{
        "round": row["round"], "accuracy": row["accuracy"],
        "accepted": row["accepted"], "frozen": row["frozen"],
        "seconds": row["seconds"],
        "up": mean_bytes(row["clients"], "up"),
        "down": mean_bytes(row["clients"], "down")} for row in training.rows]
    end = training.exit_event["since_round"]
    samples = {e["client"]: e["samples"] for e in training.events
               if e["event"] == "update_accepted"}
    return {
        "codec": training.codec, "rounds": rounds,
        "samples": dict(sorted(samples.items())),
        "end": {"up": mean_bytes(end, "up"), "down": mean_bytes(end, "down")},
        "accuracy": rounds[-1]["accuracy"],
        "seconds": sum(r["seconds"] for r in rounds),
        "wall_seconds": training.wall_seconds,
        "lost": {name: {"round": where[0], "why": where[1]}
                 for name, where in training.lost.items()},
        "died": training.died}


def print_table(result):
    print(f"\n{result['codec']}: bytes per participant (mean), counted at the "
          "socket\n")
    has_frozen = any(row["frozen"] for row in result["rounds"])
    print(f"{'round':>5}  {'accuracy':>9}  {'up':>9}  {'down':>9}  "
          f"{'seconds':>7}" + ("  frozen" if has_frozen else ""))
    for row in result["rounds"]:
        frozen = f"  {row['frozen']:>6}" if has_frozen else ""
        print(f"{row['round']:>5}  {percent(row):>9}  {row['up']:>9.0f}  "
              f"{row['down']:>9.0f}  {row['seconds']:>7.2f}{frozen}")
    end = result["end"]
    print(f"{'end':>5}  {'':>9}  {end['up']:>9.0f}  {end['down']:>9.0f}")
    for name in sorted(set(result["died"]) | set(result["lost"])):
        how = result["died"].get(name, "alive")
        lost = result["lost"].get(name)
        if lost:
            how += f", lost in round {lost['round']}: {lost['why']}"
        print(f"participant {name}: {how}")
    sys.stdout.flush()


def compare(first, second):
    """How much less `first` costs, and what it costs in accuracy."""
    def up(result):
        return sum(r["up"] for r in result["rounds"])

    def down_from_2(result):
        return (sum(r["down"] for r in result["rounds"][1:])
                + result["end"]["down"])

    return {
        "points": 100 * (first["accuracy"] - second["accuracy"]),
        "up": up(second) / up(first),
        "down_from_round_2": down_from_2(second) / down_from_2(first)}


def print_comparison(first, second, ratios):
    print(f"\n{first['codec']} vs {second['codec']}: accuracy "
          f"{percent(first)} vs {percent(second)} "
          f"({ratios['points']:+.2f} points), {ratios['up']:.2f}x less up, "
          f"{ratios['down_from_round_2']:.2f}x less down with a base model "
          f"held (round 2 on), {first['seconds']:.0f} s vs "
          f"{second['seconds']:.0f} s")


class Parser(argparse.ArgumentParser):
    """Status 2 means that a participant died, so bad options are 1."""

    def error(self, message):
        self.exit(1, f"quickstart: {message}\n")


def parse_options():
    parser = Parser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--participants", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--codec", choices=["thc", "bf16", "f32"],
                        default="thc")
    parser.add_argument("--freeze", default="")
    parser.add_argument("--kill-one", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    return parser.parse_args()


def main():
    options = parse_options()
    interrupt = Interrupt()
    codecs = [options.codec] + (["f32"] if options.codec != "f32" else [])
    folder = pathlib.Path(tempfile.mkdtemp(prefix="libfl-quickstart-"))
    results = []
    try:
        for codec in codecs:
            (folder / codec).mkdir()
            training = Training(options, codec, folder / codec, interrupt)
            training.run()
            results.append(figures(training))
            print_table(results[-1])
    except (Failure, OSError) as error:
        print(f"quickstart: {error}\n(logs: {folder})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        print("\nquickstart: interrupted", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    report = {"seed": options.seed, "participants": options.participants,
              "runs": results}
    if len(results) == 2:
        report["comparison"] = compare(*results)
        print_comparison(*results, report["comparison"])
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 2 if any(result["died"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
