# SPDX-License-Identifier: Apache-2.0
"""bench_kgt, with few images: its figures are there, the same each time, and
its options are checked."""
import math
import pathlib
import re
import sys
import tempfile

from programs import BUILD, ROOT, make_data, run_program, run_script, want

PROGRAM = BUILD / "tests" / "bench" / "bench_kgt"
FOLDER = tempfile.TemporaryDirectory(prefix="libfl-kgt-")
DATA = make_data(pathlib.Path(FOLDER.name) / "data")
RUNS = ("base", "freezing", "cached", "oracle", "shortened")


def _figures(*arguments):
    """Key -> text, and what stood on standard error."""
    status, text, errors = run_program(PROGRAM, "--tiny", "--data", DATA,
                                       *arguments)
    want(status == 0, f"exit status: got {status}, want 0", errors)
    return dict(line.split() for line in text.splitlines()), errors


def _refused(status_wanted, says, *arguments):
    status, text, errors = run_program(PROGRAM, *arguments)
    want(status == status_wanted, f"exit status: got {status}", errors)
    want(text == "" and says in errors, f"want '{says}' in:", errors)


def _want_numbers(figures, keys):
    for key in keys:
        want(key in figures, f"no {key} in", sorted(figures))
        want(math.isfinite(float(figures[key])), f"{key}: {figures[key]}")


def the_manual_has_the_options_and_parts_of_help():
    _, text, _ = run_program(PROGRAM, "--help")
    manual = (ROOT / "docs" / "programs.md").read_text()
    section = manual.split("\n## tests/bench/bench_kgt\n")[1].split("\n## ")[0]
    told = set(re.findall(r"--[a-z-]+", text)) | {"--help"}
    rows = set(re.findall(r"^\| `(--[a-z-]+)` \|", section, re.M))
    want(told == rows, "help:", sorted(told - rows), "manual:",
         sorted(rows - told))
    parts = set(re.findall(r"^ +(?:--part )?([a-z]+) +\w", text.split(
        "\n  --seeds")[0].split("\n  --part")[1].join(("  --part", "")), re.M))
    shown = set(re.findall(r"^bench_kgt --part (\w+)", section, re.M))
    want(len(parts) > 5 and parts == shown, parts, shown)


def every_kind_of_step_has_a_price():
    figures, errors = _figures("--part", "steps", "--runs", 1)
    prices = ["step_us_f0"] + [
        f"{key}{end}" for f in (1, 2, 3) for key, end in (
            (f"step_us_f{f}", ""), (f"step_us_f{f}", "_fill"),
            (f"step_us_f{f}", "_cache"),
            (f"step_share_of_ideal_{f}of4", ""),
            (f"step_share_of_ideal_{f}of4", "_cache"))]
    _want_numbers(figures, prices + ["overhead_pct", "evaluation_us",
                                     "overhead_plasticity_pct"])
    want(all(float(figures[key]) > 0 for key in prices), figures)
    # Eight with the controller at either of two models; the first pair of
    # gradients begins before bootstrapping is over.
    want(figures["overhead_evaluations"] == "14"
         and figures["overhead_plasticity_evaluations"] == "16", figures)
    want("100 % of all" in errors, errors)


def steps_beside_an_evaluation_have_a_price():
    figures, _ = _figures("--part", "beside", "--runs", 3)
    for host in ("tasks_alone", "steps_too"):
        keys = [f"{host}_{way}_{of}_us" for way in ("plain", "inline",
                                                    "beside")
                for of in ("asking_step", "interval")]
        _want_numbers(figures, keys)
        want(all(float(figures[key]) > 0 for key in keys), figures)
        want(figures[f"{host}_inline_evaluations"] == "4"
             and figures[f"{host}_beside_evaluations"] == "4", figures)


def the_job_has_its_figures_and_the_schedule_is_followed():
    figures, errors = _figures("--part", "finetune", "--seeds", 2, "--runs",
                               1, "--rate", .01, "--oracle", "0:1,1:2")
    _want_numbers(figures, [
        "finetune_acc_base", "finetune_saved_pct", "finetune_saved_cache_pct",
        "finetune_cpu_saved_pct", "finetune_cpu_saved_cache_pct",
        "finetune_ideal_pct", "finetune_ideal_cache_pct",
        "finetune_acc_delta", "finetune_acc_delta_low",
        "finetune_acc_delta_high", "oracle_saved_pct",
        "oracle_saved_cache_pct", "oracle_acc_delta", "oracle_acc_delta_low",
        "shortened_acc_delta", "shortened_acc_delta_high",
        "finetune_over_shortened"])
    want(figures["finetune_seeds"] == "2", figures)
    for seed in (3, 4):
        for run in RUNS:
            key = f"seed{seed}_{run}"
            want(0 <= float(figures[f"{key}_acc"]) <= 100, key, figures)
            want(float(figures[f"{key}_cpu_s"]) > 0, key, figures)
        want(figures[f"seed{seed}_base_frozen"] == "none", figures)
        want(figures[f"seed{seed}_oracle_frozen"] == "1@0.00,2@1.00", figures)
        want(f"seed {seed}: shortened" in errors, errors)
    want(float(figures["finetune_cache_hit_pct"]) > 0, figures)
    want(figures["finetune_cache_same_losses"] == "1", figures)


def _accuracies(*arguments):
    figures, _ = _figures("--part", "finetune", "--runs", 1, "--rate", .01,
                          *arguments)
    return {key: value for key, value in figures.items()
            if re.fullmatch(r"seed\d_(base|freezing|oracle)_(acc|frozen)",
                            key)}


def a_seed_gives_the_same_accuracies_again():
    first = _accuracies("--seeds", 1)
    want(first == _accuracies("--seeds", 1), first)
    want(len(first) == 6, first)


def tuning_seeds_are_others_than_those_reported():
    want("seed0_base_acc" in _accuracies("--seeds", 1, "--tuning"),
         "no seed 0")


def the_grid_names_the_schedules_that_save_most():
    figures, _ = _figures("--part", "grid", "--seeds", 1, "--runs", 1,
                          "--rate", .01)
    saved = {key: float(value) for key, value in figures.items()
             if re.fullmatch(r"grid_\w+_saved_pct", key)}
    want(len(saved) == 24, sorted(saved))
    allowed = {key: value for key, value in saved.items() if float(
        figures[key.replace("saved_pct", "acc_delta")]) >= -.3}
    best = "grid" + "".join(
        "_{1}at{0}".format(*row.split(":"))
        for row in figures["grid_best"].split(",") if row != "none")
    if allowed:
        want(saved[f"{best}_saved_pct"] == max(allowed.values()), figures)
    else:
        want(figures["grid_best"] == "none", figures)


def the_best_rate_is_one_of_those_tried():
    figures, _ = _figures("--part", "rates", "--seeds", 1)
    tried = {rate: float(figures[f"rate_{rate}_acc"])
             for rate in ("0.01", "0.02", "0.03", "0.05", "0.08")}
    want(tried[figures["rate_best"]] == max(tried.values()), figures)


def a_federated_job_saves_nothing_until_something_is_frozen():
    figures, errors = _figures("--part", "federated", "--seeds", 1, "--verbose")
    want(figures["federated_seeds"] == "1", figures)
    for start in ("scratch", "pretrained"):
        key = f"federated_{start}"
        _want_numbers(figures, [
            f"{key}_{what}" for what in (
                "acc_base", "acc_delta", "cpu_saved_pct", "compute_saved_pct",
                "bytes_saved_pct", "bytes_up_saved_pct",
                "bytes_down_saved_pct")])
        frozen = figures[f"seed3_{start}_freezing_frozen"]
        want(figures[f"seed3_{start}_base_frozen"] == "none", figures)
        want(figures[f"{key}_frozen"] == frozen, figures)
        saved = [float(figures[f"{key}_{what}_saved_pct"])
                 for what in ("compute", "bytes_up", "bytes_down")]
        want(all(value > 0 for value in saved) if frozen != "none"
             else saved[0] == 0, figures)
    # Four rounds say what is much, from the first one with reports on.
    want(re.search(r"round \d+: client \d: module 0: [\d.e-]+, \d+ images",
                   errors), errors)
    want(errors.count("threshold nan") >= 8, errors)
    want("seed 3: pretrained, freezing" in errors, errors)


def _same_federated_job(*arguments):
    figures, _ = _figures("--part", "federated", "--seeds", 1, *arguments)
    return {key: value for key, value in figures.items()
            if re.fullmatch(r"seed\d_\w+_(acc|up_bytes|down_bytes|frozen)",
                            key)}


def a_federated_job_gives_the_same_again():
    first = _same_federated_job()
    want(first == _same_federated_job(), first)
    want(len(first) == 16, first)


def a_federated_job_whose_loss_is_no_number_ends_and_says_so():
    figures, _ = _figures("--part", "federated", "--seeds", 1, "--rate", 1e6)
    want(figures["seed3_scratch_base_frozen"].startswith("diverged@"), figures)
    want(float(figures["federated_scratch_acc_base"]) == 0, figures)


def adapters_that_are_frozen_take_less_memory():
    for kind in ((), ("--adapters",)):
        figures, errors = _figures("--part", "lora", "--seeds", 2, "--verbose",
                                   *kind)
        _want_numbers(figures, [
            "lora_acc_base", "lora_acc_delta", "lora_acc_delta_low",
            "lora_acc_delta_high", "lora_time_saved_pct",
            "lora_compute_saved_pct", "lora_memory_saved_pct",
            "lora_memory_mean_saved_pct", "lora_front_acc_delta",
            "lora_front_time_saved_pct", "lora_front_memory_saved_pct"])
        want(figures["lora_seeds"] == "2", figures)
        for seed in (3, 4):
            frozen = figures[f"seed{seed}_freezing_frozen"].split(",")
            # Of seven updates, or four bottlenecks, half at most, and from
            # the end of the warm-up on.
            want(1 <= len(frozen) <= (2 if kind else 3), figures)
            for entry in frozen:
                layer, epoch = entry.split("@")
                want(layer.startswith(("b0.", "b1.", "e")), figures)
                want(.5 <= float(epoch) <= 2.5, figures)
            want(figures[f"seed{seed}_base_frozen"] == "none", figures)
        saved = float(figures["lora_memory_saved_pct"])
        want(0 < float(figures["lora_memory_mean_saved_pct"]) < saved, figures)
        want(float(figures["lora_compute_saved_pct"]) > 0, figures)
        front = float(figures["lora_front_memory_saved_pct"])
        want(front >= saved, figures)
        want(errors.count("importance") % (4 if kind else 7) == 0, errors)


def a_job_whose_loss_is_no_number_ends_and_says_so():
    figures, _ = _figures("--part", "finetune", "--seeds", 1, "--runs", 1,
                          "--rate", 1e6)
    want(figures["seed3_base_frozen"].startswith("diverged@"), figures)
    want(float(figures["finetune_acc_base"]) == 0, figures)


def data_that_is_missing_is_named():
    missing = pathlib.Path(FOLDER.name) / "none"
    _refused(1, f"{missing}/train-images-idx3-ubyte: cannot open", "--part",
             "steps", "--data", missing)
    _refused(1, "got 1600 images, want 60000", "--part", "steps", "--data",
             DATA)


def options_out_of_range_are_refused():
    _refused(2, "--part: got nothing")
    _refused(2, "--part: got bogus", "--part", "bogus")
    _refused(2, "--seeds: got 6, want 1..5", "--seeds", 6)
    _refused(2, "--runs: got 0, want 1..101", "--runs", 0)
    _refused(2, "--rate: got -1", "--rate", -1)
    _refused(2, "--criterion: got cka", "--criterion", "cka")
    for schedule in ("0:4", "1:1,1:2", "1", "0:1,", ""):
        _refused(2, "--oracle: got", "--oracle", schedule)
    _refused(2, "option: got --bogus", "--bogus", 1)
    _refused(2, "--data: got nothing", "--data")


def help_names_the_options():
    status, text, _ = run_program(PROGRAM, "--help")
    want(status == 0 and "--oracle E:F" in text, text)
    for part in ("steps", "beside", "finetune", "grid", "rates", "federated", "lora"):
        want(f" {part} " in text, part, text)


if __name__ == "__main__":
    run_script(sys.modules[__name__])
