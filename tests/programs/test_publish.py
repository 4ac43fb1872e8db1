# SPDX-License-Identifier: Apache-2.0
"""--models: every version of the model as a file that others' tools read."""
import json
import os
import signal
import sys

import numpy as np

from programs import Bench, end_of, run_script, wait_for, want

SHAPES = [(128, 784), (128,), (10, 128), (10,)]


def _read(path):
    """Metadata and arrays of a safetensors file, by the format's page."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    notes = header.pop("__metadata__")
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        want(entry["dtype"] == "F32", name, entry)
        arrays[name] = np.frombuffer(data[8 + size + begin:8 + size + end],
                                     "<f4").reshape(entry["shape"])
    return notes, arrays


def _run(bench, rounds, *arguments, port=0):
    aggregator = bench.aggregator(f"--rounds={rounds}", "--exit-when-done",
                                  *arguments, port=port)
    person = bench.participant(0, 1)
    want(end_of(person) == 0, bench.errors("p0"))
    want(end_of(aggregator) == 0, bench.errors("aggregator"))
    return bench.events("round_finished")


def numpy_reads_every_version_with_its_round_and_metrics():
    with Bench() as bench:
        models = bench.folder / "models"
        out = bench.folder / "out.safetensors"
        rows = _run(bench, 4, f"--models={models}", "--keep-models=10",
                    f"--model-out={out}")
        want([row["file"] for row in rows]
             == [f"model-{v:08}.safetensors" for v in range(1, 5)], rows)
        last = None
        for row in rows:
            notes, arrays = _read(models / row["file"])
            want(notes["version"] == str(row["version"])
                 and notes["round"] == str(row["round"])
                 and notes["accepted"] == "1", notes)
            for key in ("train_loss", "accuracy", "loss"):
                want(abs(float(notes[key]) - row[key]) < 1e-6, key, notes)
            want(len(notes["libfl_schema"]) == 64, notes)
            want(sorted(a.shape for a in arrays.values())
                 == sorted(SHAPES), arrays.keys())
            want(all(np.isfinite(a).all() for a in arrays.values()), row)
            want(last is None or any((arrays[k] != last[k]).any()
                                     for k in arrays), row)
            last = arrays
        _, final = _read(out)
        want(all((final[k] == last[k]).all() for k in last), "final")
        _, latest = _read(models / "latest.safetensors")
        want(all((latest[k] == last[k]).all() for k in last), "latest")


def the_last_of_them_are_kept():
    with Bench() as bench:
        models = bench.folder / "models"
        models.mkdir()
        (models / "model-1.safetensors").write_text("somebody's")
        (models / "notes.txt").write_text("somebody's")
        rows = _run(bench, 7, f"--models={models}", "--keep-models=2")
        want(len(rows) == 7, rows)
        want(sorted(p.name for p in models.iterdir())
             == ["latest.safetensors", "model-00000006.safetensors",
                 "model-00000007.safetensors", "model-1.safetensors",
                 "notes.txt"], list(models.iterdir()))
        want(os.readlink(models / "latest.safetensors")
             == "model-00000007.safetensors", "latest")


def a_folder_that_cannot_be_had_is_told_and_the_run_goes_on():
    with Bench() as bench:
        models = bench.folder / "no" / "models"
        rows = _run(bench, 3, f"--models={models}")
        want(len(rows) == 3 and all("file" not in row for row in rows), rows)
        failed = bench.events("publish_failed")
        want([e["version"] for e in failed] == [1, 2, 3]
             and "No such file" in failed[0]["text"], failed)


def a_folder_that_goes_and_comes_back_has_the_later_versions():
    with Bench() as bench:
        models = bench.folder / "models"
        aggregator = bench.aggregator("--rounds=400", "--exit-when-done",
                                      f"--models={models}",
                                      "--keep-models=1000")
        person = bench.participant(0, 1)
        wait_for("a model", lambda: (models / "latest.safetensors").exists(),
                 aggregator)
        person.send_signal(signal.SIGSTOP)
        models.rename(bench.folder / "gone")
        models.write_text("in the way")
        person.send_signal(signal.SIGCONT)
        wait_for("a failure", lambda: bench.events("publish_failed"),
                 aggregator)
        models.unlink()
        wait_for("models again",
                 lambda: (models / "latest.safetensors").exists(), aggregator)
        _read(models / "latest.safetensors")
        person.terminate()
        aggregator.terminate()
        want(end_of(aggregator) == 0, bench.errors("aggregator"))


def a_full_disk_is_told_and_the_run_goes_on():
    """Files may not get longer than 100 KB; the model has 400 KB."""
    import resource
    with Bench() as bench:
        models = bench.folder / "models"

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
        aggregator = bench.aggregator("--rounds=2", "--exit-when-done",
                                      f"--models={models}", preexec=limit)
        person = bench.participant(0, 1)
        want(end_of(person) == 0, bench.errors("p0"))
        want(end_of(aggregator) == 0, bench.errors("aggregator"))
        want(len(bench.events("round_finished")) == 2, bench.events())
        want(len(bench.events("publish_failed")) == 2, bench.events())
        want(not list(models.glob("model-*")), list(models.iterdir()))


if __name__ == "__main__":
    run_script(sys.modules[__name__])
