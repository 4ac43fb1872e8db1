# SPDX-License-Identifier: Apache-2.0
"""examples/plot_cohorts.py: the tree it reads out of a record, and its
pictures. Drawing needs python3-matplotlib, which tests/run installs."""
import importlib
import json
import re
import sys

import pytest


@pytest.fixture
def plots(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "examples"))
    return importlib.import_module("plot_cohorts")


def shown(number, mean, cohorts, rule="sketch"):
    return {"rule": rule, "round": number, "kind": "round",
            "leaves": len(cohorts), "mean": mean, "worst10": mean / 2,
            "ari": 0, "cohorts": cohorts}


def decided(number, kind, cohort, child):
    return {"rule": "sketch", "round": number, "kind": kind,
            "cohort": cohort, "child": child, "win": 1, "lump": None,
            "probes": 30}


EVENTS = [
    shown(5, .2, {"0": [5, 5, 5, 5]}),
    decided(6, "trial", 0, 1), decided(9, "kept", 0, 1),
    shown(10, .4, {"0": [5, 5, 0, 0], "1": [0, 0, 5, 5]}),
    decided(12, "trial", 0, 2), decided(14, "undone", 0, 2),
    decided(14, "trial", 1, 2), decided(14, "trial", 0, 3),
    decided(15, "again", 0, 3), decided(18, "kept", 0, 3),
    shown(20, .5, {"0": [5, 0, 0, 0], "1": [0, 0, 5, 5],
                   "3": [0, 5, 0, 0]}),
    shown(10, .3, {"0": [5, 5, 5, 5]}, "fedavg"),
    shown(20, .3, {"0": [5, 5, 5, 5]}, "fedavg")]


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "record"
    path.write_text("".join(json.dumps(e) + "\n" for e in EVENTS))
    return path


def test_tree_has_halves_side_by_side(plots, record):
    read = plots.Record.parse(record.read_text().splitlines())
    assert read.rule == "sketch" and read.last == 20
    assert read.curves["fedavg"] == ([10, 20], [30, 30], [15, 15])
    tree = read.tree
    assert tree.clients == 20
    # From top to bottom: number, begin, end.
    assert [(b.number, b.begun, b.ended) for b in tree.branches] == [
        (0, 0, None), (3, 14, None), (2, 12, 14), (1, 6, None),
        (2, 14, None)]
    root, third, undone, first, open_trial = tree.branches
    assert third.parent is undone.parent is first.parent is root
    assert undone.joined is root and open_trial.parent is first
    assert (first.decided, third.decided, open_trial.decided) == (9, 18, None)
    assert root.rounds == [5, 10, 20] and root.counts[-1] == [5, 0, 0, 0]
    assert undone.rounds == open_trial.rounds == []


def test_splits_and_merges_have_no_trial(plots):
    lines = [shown(1, .2, {"0": [5, 5, 0, 0]}), decided(2, "split", 0, 1),
             decided(4, "merged", 0, 1), decided(5, "split", 0, 1),
             decided(7, "moved", 0, 1)]
    tree = plots.Record.parse(map(json.dumps, lines)).tree
    assert [(b.number, b.begun, b.decided, b.ended) for b in tree.branches
            ] == [(0, 0, None, None), (1, 5, 5, 7), (1, 2, 2, 4)]


def test_pictures_are_drawn(plots, record, tmp_path, capsys):
    png, svg = tmp_path / "a.png", tmp_path / "a.svg"
    plots.main([str(record), str(png), str(svg)])
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    for what in ("cohort 0", "cohort 1", "cohort 2", "cohort 3", "group 0",
                 "group 3", "sketch, mean", "fedavg, worst 10 %"):
        assert re.search(f"<!-- {what} -->", text), what
    again = tmp_path / "b.svg"
    plots.main([str(record), str(png), str(again)])
    plain = [re.sub(r"<dc:date>.*?</dc:date>", "", one)
             for one in (text, again.read_text())]
    assert plain[0] == plain[1]
    assert capsys.readouterr() == ("", "")


def test_one_model_is_a_tree(plots, tmp_path):
    path = tmp_path / "record"
    path.write_text(json.dumps(EVENTS[-1]))
    plots.main([str(path), str(tmp_path / "a.pdf")])
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_matplotlib_is_asked_for(plots, record, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match="plot_cohorts.py: needs matplotlib"):
        plots.main([str(record), str(tmp_path / "a.png")])


ROUND = EVENTS[0]


@pytest.mark.parametrize("text, what", [
    ("", "no round in it"), (json.dumps(EVENTS[1]), "no round in it"),
    ("{", "line 1"), ("[1]\n", "line 1"),
    (json.dumps(ROUND) + "\n{}", "line 2: KeyError"),
    (json.dumps({**ROUND, "mean": None}), "line 1: TypeError"),
    (json.dumps({**ROUND, "round": "x"}), "line 1: ValueError"),
    (json.dumps({**ROUND, "cohorts": 3}), "line 1: TypeError"),
    (json.dumps({**ROUND, "cohorts": {"0": [1]}}), "want 4"),
    (json.dumps({**ROUND, "cohorts": {"a": [1, 1, 1, 1]}}), "line 1"),
    (json.dumps(decided(1, "kept", 0, 1)), "line 1: KeyError")])
def test_what_is_no_record_is_named(plots, tmp_path, text, what):
    path = tmp_path / "record"
    path.write_text(text)
    with pytest.raises(SystemExit, match=f"record: .*{what}"):
        plots.main([str(path), str(tmp_path / "a.png")])
    assert not (tmp_path / "a.png").exists()


def test_records_and_pictures_that_cannot_be_are_named(plots, record, tmp_path,
                                                       capsys):
    with pytest.raises(SystemExit, match="nowhere"):
        plots.main([str(tmp_path / "nowhere"), str(tmp_path / "a.png")])
    with pytest.raises(SystemExit):
        plots.main([str(record), "a.txt"])
    assert "want a name that ends in .pdf" in capsys.readouterr().err
