# SPDX-License-Identifier: Apache-2.0
"""The comparisons with PyTorch in tests/bench, made small."""
import re
import subprocess
import sys

import numpy as np
import pytest

from torch_nets import torch


def figures(output):
    return dict(line.split(" ", 1) for line in output.splitlines())


def compare(root, *arguments):
    return subprocess.run(
        [sys.executable, root / "tests" / "bench" / "compare_torch.py",
         *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True)


def test_ratio_is_that_of_the_times_of_one_round(root):
    result = compare(root, "--models", "mlp", "--runs", "1")
    assert result.returncode == 0, result.stderr
    found = figures(result.stdout)
    for key in ("torch", "blas", "blas_core", "libfl", "cpu"):
        assert found[key]
    for key, what in (("ratio_mlp", "step"), ("ratio_forward_mlp",
                                              "forward")):
        ours = float(found[f"libfl_{what}_us_mlp"])
        theirs = float(found[f"torch_{what}_us_mlp"])
        assert ours > 1 and theirs > 1
        # Times are printed to .1 us, ratios to .01.
        lowest = (theirs - .05) / (ours + .05) - .005
        highest = (theirs + .05) / (ours - .05) + .005
        assert lowest - 1e-9 <= float(found[key]) <= highest + 1e-9
    assert found["ratio_best_mlp"] == found["ratio_mlp"]


def test_ratio_is_the_median_of_the_rounds(bench, capsys):
    rounds = {"step": [(100, 150), (200, 500), (50, 100)],
              "forward": [(10, 5), (20, 40), (30, 30), (40, 60)]}
    bench("compare_torch").print_times({"rounds": {"mlp": rounds}}, "other_")
    assert figures(capsys.readouterr().out) == {
        "other_libfl_step_us_mlp": "100.0", "other_torch_step_us_mlp": "150.0",
        "other_ratio_mlp": "2.00",  # the medians' is 1.50
        "other_libfl_forward_us_mlp": "25.0",
        "other_torch_forward_us_mlp": "35.0",
        "other_ratio_forward_mlp": "1.25"}


def test_times_of_a_program_take_the_place(root, tmp_path):
    program = tmp_path / "program"
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "assert sys.argv[1:] == ['--model', 'mlp', '--isa', 'avx2', "
        "'--runs', '1'], sys.argv\n"
        "print('threads 1')\nprint('mlp_step_us_avx2 4000')\n"
        "print('mlp_forward_us_avx2 1e9')\n")
    program.chmod(0o755)
    result = compare(root, "--models", "mlp", "--runs", "1", "--isa", "avx2",
                     "--bench-models", str(program))
    assert result.returncode == 0, result.stderr
    found = figures(result.stdout)
    assert found["libfl_step_us_mlp"] == "4000.0"
    assert float(found["ratio_mlp"]) == pytest.approx(
        float(found["torch_step_us_mlp"]) / 4000, abs=.006)
    assert found["ratio_forward_mlp"] == "0.00"


@pytest.mark.parametrize("arguments, match", [
    (["--models", "resnet"], "got resnet"), (["--runs", "0"], "--runs"),
    (["--isa", "avx2"], "--bench-models")])
def test_wrong_options_are_named(root, arguments, match):
    result = compare(root, *arguments)
    assert result.returncode == 2 and match in result.stderr


@pytest.mark.parametrize("name", ["mlp", "lenet", "transformer", "vgg8"])
def test_pair_takes_the_same_steps(bench, name):
    models = bench("torch_models")
    module, model = models.pair(name, 4)
    assert {n: list(p.shape) for n, p in module.named_parameters()} == {
        n: list(t.shape) for n, t in model.state_dict().items()}
    optimiser = models.RECIPES[name].torch_optimiser(module.parameters())
    for _ in range(4):
        x, y = torch.randn(8, 1, 28, 28), torch.randint(0, 10, (8,))
        loss = models.torch_step(module, optimiser, x, y).item()
        assert model.step(x, y) == pytest.approx(loss, rel=1e-3)


def test_both_engines_learn_the_same(bench, images, capsys):
    bench("accuracy_torch").main(
        ["--models", "mlp", "--seeds", "3", "--steps", "30", "--epochs", "2",
         "--images", str(images)])
    lines = [line for line in capsys.readouterr().out.splitlines()
             if re.match(r"\w+_mlp", line)]
    found = figures("\n".join(lines))
    assert float(found["curve_mlp_s3"]) < 1e-3
    assert found["agree_mlp_s3"] == "30"
    assert float(found["accuracy_libfl_mlp_s3"]) > 90
    assert abs(float(found["difference_mlp"])) < 1


def test_losses_that_part_are_found(bench):
    curves = bench("accuracy_torch").curves
    exact = np.full(10, 2.0)
    parted = exact.copy()
    parted[6:] += .01
    found = curves({"f64": exact, "torch": exact, "libfl": parted}, 8)
    assert found["agree"] == 6 and found["agree_torch"] == 8
    assert found["curve"] == pytest.approx(.005)
    assert found["curve_torch"] == 0


def test_rate_is_that_of_both(bench, images, capsys):
    bench("accuracy_torch").main(
        ["--models", "transformer", "--seeds", "3", "--steps", "3",
         "--epochs", "0", "--rate", "1e-30", "--images", str(images)])
    found = capsys.readouterr().out
    assert "agree_transformer_s3 3" in found
