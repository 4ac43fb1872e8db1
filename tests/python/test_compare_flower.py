# SPDX-License-Identifier: Apache-2.0
"""tests/bench/compare_flower.py: with a stand-in for Flower's module names, its
own part; without Flower it says so."""
import subprocess
import sys

import numpy as np
import pytest


def test_without_flower_it_says_so_and_ends_with_3(root, tmp_path):
    (tmp_path / "flwr.py").write_text("raise ImportError('not here')\n")
    script = root / "tests" / "bench" / "compare_flower.py"
    code = (f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); "
            f"sys.argv = ['compare_flower.py']; "
            f"runpy.run_path({str(script)!r}, run_name='__main__')")
    result = subprocess.run([sys.executable, "-c", code], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert result.returncode == 3
    assert "pip install flwr" in result.stderr
    assert result.stdout == ""


def test_results_that_differ_end_it(bench, capsys):
    module = bench("compare_flower")
    theirs = np.linspace(-2, 2, 50, dtype=np.float32)
    module.check("x", theirs + np.float32(5e-7), theirs)
    assert "x_differs_by" in capsys.readouterr().out
    for wrong in (theirs * 1.001, theirs * np.nan):
        with pytest.raises(SystemExit):
            module.check("x", wrong, theirs)


def test_means_are_held_against_doubles(bench, capsys):
    module = bench("compare_flower")
    updates, samples = module.draw(40, 3000), np.arange(10, 50)
    mean = np.average(np.asarray(updates, np.float64), 0, samples)
    top = np.abs(mean).max()
    module.check_mean("x", np.float32(mean), mean + 3e-6 * top, updates,
                      samples)
    said = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(said["libfl_x_off"]) < 1e-6 < float(said["flower_x_off"])
    for wrong in (mean + 3e-6 * top, mean * np.nan):
        with pytest.raises(SystemExit):
            module.check_mean("x", wrong, mean, updates, samples)


def test_libfls_side_is_the_mean_and_its_sum(bench):
    module = bench("compare_flower")
    updates = module.draw(6, 5000)
    samples = np.array([50, 60, 70, 80, 90, 100])
    import libfl
    ours = module.Ours(updates, samples)
    want = np.average(np.asarray(updates, np.float64), 0, samples)
    assert np.abs(ours.step(libfl.FedAvg()) - want).max() < 1e-6 * 5
    off = ours.thc() - want
    assert off @ off < .01 * (want @ want)
