# SPDX-License-Identifier: Apache-2.0
"""freezing from outside: what is frozen costs less, and what the cache gives
back is what would be computed."""
import json
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from programs import BUILD, ENVIRONMENT, make_data, run_script, wait_for, want

PROGRAM = BUILD / "examples" / "freezing"
SAMPLES = 256
BATCH = 16
STEPS = SAMPLES // BATCH  # of an epoch
KEYS = ["step", "kind", "module", "value", "threshold", "raw", "below",
        "first_active", "reason", "version"]


def _stripe_of(label):
    """The wider the higher the label: a mean over places tells it."""
    return 0, 0, 28, 1 + 3 * label


class _Folder:
    """A folder with data and a base in it, and the program run there."""

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="libfl-freezing-")
        self.path = Path(self.temporary.name)
        make_data(self.path / "data", train=2 * SAMPLES, test=100,
                  place=_stripe_of)
        return self

    def __exit__(self, *_):
        self.temporary.cleanup()

    def start(self, *arguments):
        return subprocess.Popen(
            [str(PROGRAM), f"--data={self.path / 'data'}",
             f"--samples={SAMPLES}", f"--batch={BATCH}", "--pretrain-epochs=2",
             *map(str, arguments)], cwd=self.path, env=ENVIRONMENT,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)

    def run(self, *arguments, status=0):
        process = self.start(*arguments)
        output = process.communicate()[0]
        want(process.returncode == status, process.returncode, output)
        return output

    def record(self, name):
        return [json.loads(line) for line in
                (self.path / name).read_text().splitlines()]


def _row(output, name):
    """Without and with, of the table's row that begins so."""
    found = [text for text in output.splitlines() if text.startswith(name)]
    want(len(found) == 1, name, output)
    return [float(n) for n in found[0].split()[-2:]]


def what_is_frozen_is_neither_trained_nor_sent():
    with _Folder() as folder:
        output = folder.run("--epochs=4", "--criterion=fixed",
                            "--schedule=0:1,2:2")
        want(_row(output, "frozen modules") == [0, 2], output)
        for row in ("update with thc", "memory of the last step"):
            without, frozen = _row(output, row)
            want(0 < frozen < without, row, output)
        # A quarter of the epochs fills the cache, and as many read it.
        want(_row(output, "samples from the cache") == [0, 2 * SAMPLES],
             output)
        without, cache = _row(output, "cache, bytes")
        want(without == 0 and cache > SAMPLES * 32 * 7 * 7 * 4, output)
        without, held = _row(output, "and of the cache")
        want(without == 0 and held >= cache, output)
        # Rows on their way into the cache and out of it.
        without, frozen = _row(output, "memory at most")
        want(0 < frozen < 1.2 * without, output)
        want(min(_row(output, "CPU seconds")) > 0, output)
        want(re.search(r"^saved: -?\d+\.\d % .* [+-]\d+\.\d\d points$", output,
                       re.M), output)
        for step, first in ((0, 1), (2 * STEPS, 2)):
            want(f"step {step}: modules below {first} are frozen" in output,
                 output)


def a_cache_changes_no_bit():
    with _Folder() as folder:
        folder.run("--epochs=1", "--save-base=base", "--cache=none")
        seen = []
        for cache in ("none", "memory", "rows/cache"):
            output = folder.run(
                "--base=base", "--epochs=8", f"--cache={cache}",
                "--record=record")
            seen.append((_row(output, "test accuracy"),
                         (folder.path / "record").read_text()))
            is_used = _row(output, "samples from the cache")[1] > 0
            want(is_used == (cache != "none"), output)
        want('"changed"' in seen[0][1], seen[0][1])
        want(seen[0] == seen[1] == seen[2], *seen)


def a_file_outlives_the_process():
    with _Folder() as folder:
        folder.run("--epochs=1", "--save-base=base", "--cache=none")
        arguments = ["--base=base", "--epochs=2", "--criterion=fixed",
                     "--schedule=0:2", "--cache=cache"]
        hits = [_row(folder.run(*arguments), "samples from the cache")[1]
                for _ in range(2)]
        want(hits == [SAMPLES, 2 * SAMPLES], hits)


def smaller_types_take_less_room():
    with _Folder() as folder:
        folder.run("--epochs=1", "--save-base=base", "--cache=none")
        sizes = [_row(folder.run(
            "--base=base", "--epochs=1", "--criterion=fixed",
            f"--cache-type={kind}"), "cache, bytes")[1]
                 for kind in ("f32", "f16", "i8")]
        want(sizes[2] < 0.6 * sizes[1] < 0.4 * sizes[0], sizes)


def the_record_has_every_evaluation_and_every_change():
    with _Folder() as folder:
        output = folder.run("--epochs=8", "--record=record")
        record = folder.record("record")
        for event in record:
            want(list(event) == KEYS, event)
        want([e["step"] for e in record] ==
             sorted(e["step"] for e in record), record)
        # An evaluation wants two steps, so that every second one has one.
        for one, two in zip(record, record[1:]):
            if one["kind"] == two["kind"] == "evaluated":
                want(two["step"] == one["step"] + 2 and two["raw"] > 0, two)
        want([e["kind"] for e in record].count("evaluated") > 16, record)
        changes = [e for e in record if e["kind"] == "changed"]
        want(changes, output)
        for at, event in enumerate(changes):
            want(event["version"] == at + 1, event)
            want(event["reason"] == "criterion", event)
            want(f"step {event['step']}: modules below "
                 f"{event['first_active']} are frozen: the criterion is met"
                 in output, event, output)


def every_criterion_is_to_be_had():
    with _Folder() as folder:
        folder.run("--epochs=1", "--save-base=base", "--cache=none")
        records = []
        for criterion in (["plasticity", "--preset=fast"],
                          ["plasticity", "--preset=careful"], ["relative"]):
            folder.run("--base=base", "--epochs=4", "--record=record",
                       "--criterion=" + criterion[0], *criterion[1:])
            records.append([e for e in folder.record("record")
                            if e["kind"] == "evaluated"])
        want(all(records), [len(record) for record in records])
        values = [[e["value"] for e in record] for record in records]
        want(values[0] != values[1] != values[2] != values[0], values)


def a_base_from_a_file_is_not_trained():
    with _Folder() as folder:
        first = folder.run("--epochs=1", "--save-base=base")
        again = folder.run("--epochs=1", "--base=base")
        want("base: " in first and "base: " not in again, again)
        want(_row(first, "test accuracy") == _row(again, "test accuracy"),
             first, again)


def ctrl_c_leaves_a_whole_record():
    with _Folder() as folder:
        folder.run("--epochs=1", "--save-base=base", "--cache=none")
        record = folder.path / "record"
        process = folder.start("--base=base", "--epochs=2000",
                               "--record=record", "--criterion=fixed",
                               "--schedule=0:1")
        # The run without freezing is not waited for.
        wait_for("record", record.exists, process)
        process.send_signal(signal.SIGINT)
        output = process.communicate()[0]
        want(process.returncode == 1, process.returncode, output)
        want("stopped after step" in output, output)
        want("saved:" not in output and "Sanitizer" not in output, output)
        process = folder.start("--base=base", "--epochs=20",
                               "--record=record", "--cache=none")
        wait_for("events", lambda: record.stat().st_size > 0, process)
        process.send_signal(signal.SIGTERM)
        output = process.communicate()[0]
        want("without freezing:" in output, output)
        want(process.returncode == 1, process.returncode, output)
        want("stopped after step" in output, output)
        want(all(list(event) == KEYS for event in folder.record("record")))


def a_cache_without_room_is_given_up():
    with _Folder() as folder:
        folder.run("--epochs=1", "--save-base=base", "--cache=none")
        (folder.path / "full").symlink_to(folder.path / "base")
        output = folder.run("--base=base", "--epochs=2", "--criterion=fixed",
                            "--schedule=0:1", "--cache=full",
                            "--record=record")
        want("no cache: " in output, output)
        want(_row(output, "samples from the cache") == [0, 0], output)
        want("cache_off" in [e["kind"] for e in folder.record("record")])


def what_is_wrong_is_named():
    with _Folder() as folder:
        for option in ("--criterion=cka", "--preset=x", "--cache-type=f64",
                       "--schedule=x", "--schedule=1:1,0:2", "--schedule=0:4",
                       "--epochs=0"):
            output = folder.run(option, status=2)
            want(option.split("=", 1)[0] in output, option, output)
        want("nowhere" in folder.run("--base=nowhere", status=1))
        want("nowhere" in folder.run("--record=nowhere/record", status=1))
        want("--samples" in folder.run(f"--samples={2 * SAMPLES}", status=1))
        output = folder.run("--cache=A file", status=1)
        want("A file" in output and "base:" not in output, output)


if sys.argv[2:] == ["learns"]:  # a hundred epochs
    def both_runs_learn_the_other_classes():
        with _Folder() as folder:
            output = folder.run("--pretrain-epochs=80", "--epochs=20",
                                "--lr=0.01", "--criterion=fixed",
                                "--schedule=2:1")
            want("base: 100.00 %" in output, output)
            # Of 200 images; which bits a BLAS gives depends on the processor.
            want(min(_row(output, "test accuracy")) > 60, output)


run_script(sys.modules[__name__])
