# SPDX-License-Identifier: Apache-2.0
"""examples/recommender/plot.py: what it reads, and its pictures. Drawing needs
python3-matplotlib, which tests/run installs."""
import importlib
import re
import sys

import pytest

FIGURES = """rows 1926910
cpu AMD EPYC
auc_ceiling 0.8500
auc_full_16_s11 0.7990
auc_full_16_s12 0.8000
auc_full_16 0.7995
mb_full_16 101.7
array_mb_full_16 86.4
auc_full_4 0.7800
mb_full_4 46.5
array_mb_full_4 25.4
auc_sketch_5_s11 0.7900
auc_sketch_5 0.7900
mb_sketch_5 6.1
seconds_sketch_5 3.5
auc_sketch_1 0.7800
mb_sketch_1 1.4
auc_other_2 0.5
mb_other_2 3
"""


@pytest.fixture
def plot(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "examples" / "recommender"))
    yield importlib.import_module("plot")
    sys.modules.pop("plot")


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "figures"
    made.write_text(FIGURES)
    return made


def test_curves_are_the_names_by_megabytes(plot):
    curves = plot.curves(plot.figures(FIGURES.splitlines()))
    assert list(curves) == ["full", "sketch", "other"]
    assert curves["full"] == [(25.4, .78, .78, .78), (86.4, .7995, .799, .8)]
    assert curves["sketch"] == [(1.4, .78, .78, .78), (6.1, .79, .79, .79)]


def test_megabytes_may_have_decimals(plot):
    lines = ["auc_budget_0.5 .7", "auc_budget_0.5_s1 .6", "mb_budget_0.5 .4",
             "auc_budget_0x5_s1 .1", "auc_budget_1.25 .8", "mb_budget_1.25 1"]
    assert plot.curves(plot.figures(lines)) == {
        "budget": [(.4, .7, .6, .6), (1, .8, .8, .8)]}


def test_pictures_are_drawn(plot, path, tmp_path, capsys):
    png, svg = tmp_path / "a.png", tmp_path / "a.svg"
    plot.main([str(path), str(png), str(svg)])
    assert png.read_bytes().startswith(b"\x89PNG")
    for text in ("AUC", "MB of the tables", "all rows", "chunks, sketch",
                 "other", "best there is"):
        assert re.search(f"<!-- {text} -->", svg.read_text()), text
    assert capsys.readouterr() == ("", "")


def test_matplotlib_is_asked_for(plot, path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match="python3-matplotlib"):
        plot.main([str(path), str(tmp_path / "a.png")])


@pytest.mark.parametrize("text, what", [
    ("", "no line of auc_NAME_N"), ("auc_full_16_s1 .7\n", "no line of"),
    ("auc_full_16 .7\n", "mb_full_16 is not"),
    ("auc_full_16 1.7\nmb_full_16 1\n", "an AUC of 1.7"),
    ("auc_full_16 .7\nmb_full_16 0\n", "at 0.0 MB"),
    ("auc_full_16 nan\n", "auc_full_16: got nan")])
def test_what_cannot_be_drawn_is_named(plot, tmp_path, text, what):
    path = tmp_path / "figures"
    path.write_text(text)
    with pytest.raises(SystemExit, match=f"figures: .*{what}"):
        plot.main([str(path), str(tmp_path / "a.png")])
    assert not (tmp_path / "a.png").exists()


def test_files_that_cannot_be_are_named(plot, path, tmp_path, capsys):
    with pytest.raises(SystemExit, match="nowhere"):
        plot.main([str(tmp_path / "nowhere"), str(tmp_path / "a.png")])
    with pytest.raises(SystemExit):
        plot.main([str(path), "a.txt"])
    assert "want a name that ends in .pdf" in capsys.readouterr().err
