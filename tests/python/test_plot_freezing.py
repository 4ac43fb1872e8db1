# SPDX-License-Identifier: Apache-2.0
"""examples/plot_freezing.py: what it reads out of a record, and its pictures.
Drawing needs python3-matplotlib, which tests/run installs."""
import importlib
import json
import math
import re
import sys

import pytest


@pytest.fixture
def plots(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "examples"))
    return importlib.import_module("plot_freezing")


def event(step, kind="evaluated", module=0, value=None, threshold=None,
          first_active=0):
    return {"step": step, "kind": kind, "module": module, "value": value,
            "threshold": threshold, "raw": value, "below": 0,
            "first_active": first_active, "reason": "criterion",
            "version": first_active}


EVENTS = ([event(4, "booted")]
          + [event(step, value=9 - step / 4, threshold=8.0)
             for step in range(5, 14, 2)]
          + [event(14, "changed", 1, first_active=1)]
          + [event(step, module=1, value=3.0) for step in range(15, 40, 2)]
          + [event(40, "changed", 2, first_active=2),
             event(60, "changed", 0, first_active=0),
             event(61, value=1.5, threshold=8.0)])


@pytest.fixture
def record(tmp_path):
    path = tmp_path / "record"
    path.write_text("".join(json.dumps(e) + "\n" for e in EVENTS))
    return path


def test_record_is_taken_apart_by_module(plots, record):
    read = plots.Record.parse(record.read_text().splitlines())
    assert read.shown() == [0, 1] and read.booted == 4
    assert read.modules[0].steps == [5, 7, 9, 11, 13, 61]
    assert read.modules[0].values[0] == 7.75
    assert math.isnan(read.modules[1].thresholds[0])
    assert read.frozen_at(0) == ([14], [60])
    assert read.frozen_at(1) == ([40], [60])
    assert read.frozen_at(2) == ([], [])
    # No line from before the freeze to after it.
    steps, values, _ = zip(*read.modules[0].gaps())
    assert steps[-2:] == (61, 61) and math.isnan(values[-2])


def test_pictures_are_drawn(plots, record, tmp_path, capsys):
    png, svg = tmp_path / "a.png", tmp_path / "a.svg"
    plots.main([str(record), str(png), str(svg)])
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    for what in ("module 0", "module 1", "threshold", "frozen", "unfrozen",
                 "bootstrapping"):
        assert re.search(f"<!-- {what} -->", text), what
    assert "<!-- module 2 -->" not in text
    again = tmp_path / "b.svg"
    plots.main([str(record), str(png), str(again)])
    assert plain(again.read_text()) == plain(text)
    assert capsys.readouterr() == ("", "")


def plain(svg):
    return re.sub(r"<dc:date>.*?</dc:date>", "", svg)


def log_line(name, **fields):
    return json.dumps({"time": 1.5, "event": name, **fields}) + "\n"


def test_a_federated_log_is_drawn_by_rounds(plots, tmp_path):
    """As fl-aggregator writes it, among its other lines."""
    path = tmp_path / "log"
    lines = [log_line("listening", port=1),
             log_line("freeze_booted", round=2)]
    for number in range(3, 10):
        lines.append(log_line(
            "freeze_evaluated", round=number, module=0, median=4 - number / 4,
            value=3.0, threshold=None if number < 6 else 2.5, below=0))
        lines.append(log_line("round_finished", round=number, frozen=0))
    lines.append(log_line("freeze_changed", round=10, frozen=1, plan=1,
                          reason="criterion"))
    path.write_text("".join(lines))
    read = plots.Record.parse(path.read_text().splitlines())
    assert read.booted == 2 and read.changes == [(10, 1, "criterion")]
    assert read.modules[0].steps == list(range(3, 10))
    assert read.modules[0].raws[0] == 3.25
    assert math.isnan(read.modules[0].thresholds[2])
    assert read.modules[0].thresholds[3] == 2.5
    assert read.frozen_at(0) == ([10], [])
    plots.main([str(path), str(tmp_path / "a.svg")])
    text = (tmp_path / "a.svg").read_text()
    for what in ("round", "median of the reports", "threshold", "frozen"):
        assert re.search(f"<!-- {what} -->", text), what
    assert "<!-- step -->" not in text


def test_a_log_without_a_reason_is_named(plots, tmp_path):
    path = tmp_path / "record"
    path.write_text(log_line("freeze_changed", round=10, frozen=1, plan=1))
    with pytest.raises(SystemExit, match="line 1: KeyError.'reason'"):
        plots.main([str(path), str(tmp_path / "a.png")])


def test_a_schedule_has_nothing_but_changes(plots, tmp_path):
    path = tmp_path / "record"
    path.write_text(json.dumps(event(0, "changed", 1, first_active=1)))
    plots.main([str(path), str(tmp_path / "a.svg")])
    assert "<!-- module 0 -->" in (tmp_path / "a.svg").read_text()


def test_matplotlib_is_asked_for(plots, record, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match="python3-matplotlib"):
        plots.main([str(record), str(tmp_path / "a.png")])


@pytest.mark.parametrize("text, what", [
    ("", "no evaluation"), ("{", "line 1"), ("[1]\n", "line 1"),
    (json.dumps(event(1)) + "\n{}", "line 2: KeyError"),
    (json.dumps({**event(1), "value": "x"}), "line 1")])
def test_what_is_no_record_is_named(plots, tmp_path, text, what):
    path = tmp_path / "record"
    path.write_text(text)
    with pytest.raises(SystemExit, match=f"record: {what}"):
        plots.main([str(path), str(tmp_path / "a.png")])
    assert not (tmp_path / "a.png").exists()


def test_records_and_pictures_that_cannot_be_are_named(plots, record, tmp_path,
                                                       capsys):
    with pytest.raises(SystemExit, match="nowhere"):
        plots.main([str(tmp_path / "nowhere"), str(tmp_path / "a.png")])
    with pytest.raises(SystemExit):
        plots.main([str(record), "a.txt"])
    assert "want a name that ends in .pdf" in capsys.readouterr().err
