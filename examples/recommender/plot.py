#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draw AUC over megabytes: what tables lose when they have fewer bytes.

  plot.py FIGURES PICTURE...

FIGURES are `key value` lines with auc_NAME_N and mb_NAME, N being a number: of
values, percent or megabytes. The recommender example records them, and
tests/bench/quality_embedding prints them (other lines are passed over). Names
with the same beginning are one curve; a line stands from the worst to the best
seed, auc_NAME_N_sSEED. Of tables without a bound a plain array is what counts,
array_mb_NAME. Pictures end in .png, .svg or .pdf. Needs matplotlib (Debian:
python3-matplotlib).
"""
import collections
import math
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import plotting

# Okabe and Ito.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
           "#000000", "#999999")
MARKERS = "osD^v<>x"
TITLES = {"full": "all rows", "hash": "ids folded, all fields",
          "fold": "ids folded, large fields", "row": "whole rows, sketch",
          "exact": "chunks, all ids counted", "sketch": "chunks, sketch",
          "budget": "chunks within a budget",
          "federated": "the same, federated",
         "same": "chunks, sketch, bytes of a plain array"}

Point = collections.namedtuple("Point", "megabytes auc lowest highest")


def figures(lines):
    """{key: value} of the lines that are `key number`."""
    found = {}
    for line in lines:
        parts = line.split()
        if len(parts) != 2:
            continue
        try:
            value = float(parts[1])
        except ValueError:
            continue
        if not math.isfinite(value):
            raise ValueError(f"{parts[0]}: got {parts[1]}, want a number")
        found[parts[0]] = value
    return found


def curves(found):
    """{name: [Point, ...] by megabytes}; ValueError without any."""
    result = collections.defaultdict(list)
    for key, auc in found.items():
        match = re.fullmatch(r"auc_(([a-z]+)_\d+(?:\.\d+)?)", key)
        if not match:
            continue
        method, name = match.groups()
        megabytes = found.get(f"array_mb_{method}", found.get(f"mb_{method}"))
        if megabytes is None:
            raise ValueError(f"{key} is there, mb_{method} is not")
        if megabytes <= 0 or not 0 <= auc <= 1:
            raise ValueError(f"{method}: got an AUC of {auc} at {megabytes} "
                             f"MB")
        seeds = [value for other, value in found.items()
                 if re.fullmatch(rf"auc_{re.escape(method)}_s\d+", other)] or [auc]
        result[name].append(Point(megabytes, auc, min(seeds), max(seeds)))
    if not result:
        raise ValueError("no line of auc_NAME_N in it")
    return {name: sorted(points) for name, points in result.items()}


def draw(pyplot, found, _name):
    figure, axes = pyplot.subplots(figsize=(8, 5), constrained_layout=True)
    for number, (name, points) in enumerate(curves(found).items()):
        megabytes, auc, lowest, highest = zip(*points)
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(megabytes, auc, color=colour,
                  marker=MARKERS[number % len(MARKERS)],
                  label=TITLES.get(name, name))
        axes.vlines(megabytes, lowest, highest, color=colour)
    if "auc_ceiling" in found:
        axes.axhline(found["auc_ceiling"], color="#999999", linestyle=":",
                     label="best there is")
    axes.set_xscale("log")
    axes.set_xlabel("MB of the tables")
    axes.set_ylabel("AUC")
    axes.grid(color="#EEEEEE")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def main(argv=None):
    plotting.main("plot.py", __doc__, figures, draw, argv)


if __name__ == "__main__":
    main()
