# SPDX-License-Identifier: Apache-2.0
"""tests/bench/compare_embeddingbag.py, made small."""
import subprocess
import sys

import numpy as np
import pytest

from torch_nets import torch


def figures(output):
    return dict(line.split(" ", 1) for line in output.splitlines())


def compare(root, *arguments, **options):
    return subprocess.run(
        [sys.executable, root / "tests" / "bench" / "compare_embeddingbag.py",
         *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, **options)


@pytest.fixture
def module(bench):
    return bench("compare_embeddingbag")


def test_figures_of_every_case_and_the_smallest_are_printed(root):
    result = compare(root, "--rows", "100,30000", "--dims", "8,16",
                     "--batches", "1", "--runs", "1")
    assert result.returncode == 0, result.stderr
    found = figures(result.stdout)
    assert found["torch"] == torch.__version__ and found["libfl"]
    for key, theirs, ours in (("forward_vs_torch", "forward", "forward"),
                              ("step_vs_torch_rowwise", "rowwise", "step"),
                              ("step_vs_torch_adagrad", "adagrad", "step")):
        for rows, ending in ((100, "_small"), (30000, "")):
            ratios = []
            for dim in (8, 16):
                for ids in ("zipf", "uniform"):
                    case = f"{rows}_{dim}_{ids}"
                    ratio = (float(found[f"torch_{theirs}_ns_{case}"])
                             / float(found[f"libfl_{ours}_ns_{case}"]))
                    ratios.append(float(found[f"{key}_{case}"]))
                    assert ratios[-1] == pytest.approx(ratio, rel=.02)
            assert float(found[key + ending]) == min(ratios)


def test_ratio_is_the_median_of_the_rounds(module, capsys):
    found = [{("torch", "forward"): theirs, ("torch", "rowwise"): 8.,
              ("torch", "adagrad"): 9., ("libfl", "forward"): ours,
              ("libfl", "step"): 2.}
             for theirs, ours in ((1., 1.), (6., 2.), (10., 1.))]
    assert module.print_case("x", found) == {
        "forward_vs_torch": 3., "step_vs_torch_rowwise": 4.,
        "step_vs_torch_adagrad": 4.5}
    assert "torch_forward_ns_x 6.00" in capsys.readouterr().out


def test_batches_have_ids_of_their_own(module):
    for kind in ("zipf", "uniform"):
        first, second = module.streams(kind, 1000, 2)
        assert first.size == second.size == 20480
        assert first.min() >= 0 and first.max() < 1000
        assert (first != second).any()
        again = module.streams(kind, 1000, 2)
        assert (again[1] == second).all()


def test_zipf_has_few_that_are_frequent(module):
    ids = module.zipf(np.random.default_rng(1), 10**6, 200000)
    counts = np.sort(np.bincount(ids, minlength=10**6))[::-1]
    law = np.arange(1, 10**6 + 1) ** -1.05
    for top in (100, 10000):
        assert counts[:top].sum() / 200000 == pytest.approx(
            law[:top].sum() / law.sum(), abs=.03)


def test_steps_of_both_sides_are_the_same(module):
    """All rows are there, and one step changes them alike."""
    rows, dim = 3000, 16
    gradient = np.random.default_rng(3).standard_normal(
        (module.BAGS, dim)).astype(np.float32)
    ours = module.Libfl(rows, dim, gradient)
    theirs = module.Torch(rows, dim, gradient)
    every = np.arange(rows)[:, None]
    before = ours.table.lookup(every)
    assert (before != 0).any(1).all()
    theirs.bag.weight.data.copy_(torch.from_numpy(before))
    batches = module.streams("zipf", rows, 2)
    for side in (ours, theirs):
        side.take(batches)
    for i in range(2):
        ours.step(i)
        theirs.rowwise_step(i)
        theirs.forward(i)
    np.testing.assert_allclose(ours.table.lookup(every),
                               theirs.bag.weight.detach(), rtol=1e-3,
                               atol=1e-4)
    ours.forward(0)
    with torch.no_grad():
        expected = theirs.bag(theirs.ids[0], theirs.offsets)
    np.testing.assert_allclose(ours.out, expected, rtol=1e-3, atol=1e-3)


def test_missing_torch_is_said(root, tmp_path):
    import os
    (tmp_path / "torch.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    result = compare(root, env={**os.environ, "PYTHONPATH": path})
    assert result.returncode == 3 and result.stdout == ""
    assert "PyTorch is not installed" in result.stderr


@pytest.mark.parametrize("arguments, match", [
    (["--rows", "0"], "--rows"), (["--ids", "normal"], "got normal"),
    (["--dims", "x"], "--dims"), (["--runs", "0"], "--runs"),
    (["--batches", "0"], "--batches")])
def test_wrong_options_are_named(root, arguments, match):
    result = compare(root, *arguments)
    assert result.returncode == 2 and match in result.stderr
