# SPDX-License-Identifier: Apache-2.0
"""quality_embedding, with few rows: its figures are there, the same each
time, within the budgets, and its options are checked."""
import pathlib
import random
import struct
import sys
import tempfile

from programs import BUILD, run_program, run_script, want

PROGRAM = BUILD / "tests" / "bench" / "quality_embedding"
FEDERATED = PROGRAM.with_name("quality_federated")
FOLDER = tempfile.TemporaryDirectory(prefix="libfl-quality-")


def _figures(*arguments, program=PROGRAM):
    status, text, errors = run_program(program, *arguments)
    want(status == 0, f"exit status: got {status}, want 0", errors)
    want(errors == "", "standard error:", errors)
    return {key: float(value) for key, value in
            (line.split() for line in text.splitlines())}


def _refused(status_wanted, says, *arguments, program=PROGRAM):
    status, text, errors = run_program(program, *arguments)
    want(status == status_wanted, f"exit status: got {status}", errors)
    want(text == "" and says in errors, f"want '{says}' in:", errors)


def _file(rows=6000, labels=None):
    """Rows of two fields whose label is whether their values agree."""
    rng = random.Random(4)
    values = [(rng.randrange(30), rng.randrange(30)) for _ in range(rows)]
    size = 48 + 2 * 24 + rows * 9
    data = b"FLCLICKS" + struct.pack("<IIQQIIQ", 1, 2, rows, rows - rows // 5,
                                     0, 0, size)
    for name in (b"left", b"right"):
        data += struct.pack("<16sQ", name, 30)
    data += b"".join(struct.pack("<II", *pair) for pair in values)
    data += bytes(labels or [a % 2 == b % 2 for a, b in values])
    path = pathlib.Path(FOLDER.name) / "rows"
    path.write_bytes(data)
    return path


def every_method_has_its_figures():
    figures = _figures("--rows", 9000, "--seeds", 1)
    methods = ["full_4", "full_8", "full_16", "full_32", "hash_5", "hash_1",
               "fold_5", "fold_1", "row_5", "row_1", "exact_20", "exact_5",
               "exact_1", "sketch_20", "sketch_5", "sketch_1", "same_4",
               "same_8"]
    for method in methods:
        want(0 < figures[f"auc_{method}"] < 1, figures)
        want(abs(figures["auc_full_16"] - figures[f"auc_{method}"]
                 - figures[f"loss_{method}"]) < 2e-4, method, figures)
        want(figures[f"seconds_{method}"] >= 0, figures)
        bound = figures.get(f"budget_mb_{method}")
        bounded = not method.startswith(("full", "hash", "fold"))
        want((bound is not None) == bounded, method, sorted(figures))
        if bounded:
            scratch = figures[f"scratch_mb_{method}"]
            want(figures[f"mb_{method}"] < bound + .006, method, figures)
            want(figures[f"peak_mb_{method}"] < bound + scratch + .02,
                 method, figures)
    want("auc_budget" not in figures and figures["rows"] == 9000, figures)


def figures_are_means_and_the_same_each_time():
    arguments = ("--rows", 20000, "--seeds", 3, "--methods",
                 "sketch_1,full_16")
    first, again = _figures(*arguments), _figures(*arguments)
    for method in ("full_16", "sketch_1"):
        aucs = [first[f"auc_{method}_s{seed}"] for seed in (11, 12, 13)]
        want(abs(sum(aucs) / 3 - first[f"auc_{method}"]) < 2e-4, first)
        want(abs(max(aucs) - min(aucs) - first[f"spread_{method}"]) < 2e-4,
             first)
        want(len(set(aucs)) > 1, first)
    for key in first:
        if not key.startswith(("seconds", "adjust")):
            want(first[key] == again[key], key, first[key], again[key])


def seeds_for_tuning_are_others():
    figures = _figures("--rows", 5000, "--seeds", 2, "--tuning", "--methods",
                       "full_4")
    want("auc_full_4_s1" in figures and "auc_full_4_s2" in figures
         and "auc_full_4_s11" not in figures, figures)


def file_of_rows_is_learned():
    figures = _figures("--data", _file(), "--seeds", 1, "--methods",
                       "full_16")
    want(figures["rows"] == 6000 and figures["values"] == 60, figures)
    want("auc_ceiling" not in figures, figures)
    want(figures["auc_full_16"] > .6, figures)


def budget_is_what_was_asked_for():
    figures = _figures("--rows", 50000, "--seeds", 1, "--methods", "budget",
                       "--budget", 600000, "--every", 5, "--sketch", .05)
    want(figures["budget_mb_budget"] == .6, figures)
    want(figures["churn_budget"] > 0, figures)


def what_is_wrong_is_named():
    _refused(2, "--seeds: got 11", "--seeds", 11)
    _refused(2, "--seeds: got nothing", "--seeds")
    _refused(2, "--methods: got full_9", "--methods", "full_4,full_9")
    _refused(2, "--sketch: got 0", "--sketch", 0)
    _refused(2, "--every: got x", "--every", "x")
    _refused(2, "--unknown", "--unknown", 1)
    _refused(1, "No such file", "--data", "/nowhere/rows")
    path = _file()
    path.write_bytes(path.read_bytes()[:-1])
    _refused(1, "for its rows", "--data", path)


def one_label_alone_is_refused():
    status, _, errors = run_program(
        PROGRAM, "--data", _file(3000, [1] * 3000), "--seeds", 1,
        "--methods", "full_4")
    want(status == 1 and "one label" in errors, status, errors)


# ---- federated -------------------------------------------------------------
# Built where the recommender is: with libfl-host, jansson and zlib.

def _federated(*arguments):
    return _figures("--rows", 20000, "--budget", 1, "--shards", 6, "--rounds",
                    30, "--participants", 3, *arguments, program=FEDERATED)


def federated_figures_are_means_beside_central_ones():
    if not FEDERATED.exists():
        return
    figures = _federated("--seeds", 2)
    for which in ("central", "federated"):
        aucs = [figures[f"auc_{which}_s{seed}"] for seed in (11, 12)]
        want(abs(sum(aucs) / 2 - figures[f"auc_{which}"]) < 2e-4, figures)
        want(abs(max(aucs) - min(aucs) - figures[f"spread_{which}"]) < 2e-4,
             figures)
        want(0 < figures[f"mb_{which}"] <= 1, figures)
    losses = [figures[f"auc_central_s{seed}"]
              - figures[f"auc_federated_s{seed}"] for seed in (11, 12)]
    want(abs(sum(losses) / 2 - figures["loss_federated"]) < 3e-4, figures)
    want(abs(max(losses) - figures["loss_worst_federated"]) < 3e-4, figures)
    want(figures["mb_up"] > 0 and figures["mb_down"] > 0, figures)


def federated_figures_are_the_same_each_time():
    if not FEDERATED.exists():
        return
    first, again = _federated("--seeds", 1), _federated("--seeds", 1)
    want(first == again, first, again)
    tuning = _federated("--seeds", 1, "--tuning")
    want("auc_federated_s1" in tuning
         and "auc_federated_s11" not in tuning, tuning)


def federated_options_are_checked():
    if not FEDERATED.exists():
        return
    for says, *arguments in (("--seeds: got 11", "--seeds", 11),
                             ("--seeds: got nothing", "--seeds"),
                             ("shards", "--shards", "x"),
                             ("unknown", "--unknown", 1)):
        _refused(2, says, *arguments, program=FEDERATED)
    _refused(1, "one budget", "--budget", "1,2", program=FEDERATED)
    _refused(1, "and shards", "--shards", 0, program=FEDERATED)
    _refused(1, "No such file", "--data", "/nowhere/rows", program=FEDERATED)


if __name__ == "__main__":
    run_script(sys.modules[__name__])
