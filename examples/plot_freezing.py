#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draw what a freezing controller saw: each module's criterion and its
threshold over steps, and where modules were frozen.

  plot_freezing.py RECORD PICTURE...

RECORD is what `freezing --record` writes, or the log of fl-aggregator, which
has rounds for steps and medians of what participants report; pictures end in
.png, .svg or .pdf. Needs matplotlib (Debian: python3-matplotlib).
"""
import collections
import math

import plotting

KEYS = ("step", "kind", "module", "value", "threshold", "raw", "first_active",
        "reason")
VALUE, RAW, THRESHOLD = plotting.BLUE, plotting.GREY, plotting.ORANGE
FROZEN, UNFROZEN = plotting.GREEN, plotting.PINK


class Module:
    """What was seen of one module; NaN where nothing is known."""

    def __init__(self):
        self.steps, self.values = [], []
        self.thresholds, self.raws = [], []

    def add(self, event):
        self.steps.append(event["step"])
        for name, list_of in (("value", self.values), ("raw", self.raws),
                              ("threshold", self.thresholds)):
            number = event[name]
            list_of.append(math.nan if number is None else float(number))

    def gaps(self):
        """The series with NaN where the module was not looked at for long:
        no line is drawn from before to after."""
        pauses = [b - a for a, b in zip(self.steps, self.steps[1:])]
        usual = sorted(pauses)[len(pauses) // 2] if pauses else 1
        rows = list(zip(self.steps, self.values, self.thresholds))
        result = rows[:1]
        for pause, row in zip(pauses, rows[1:]):
            if pause > 4 * usual:
                result.append((row[0], math.nan, math.nan))
            result.append(row)
        return result


def logged(event):
    """An aggregator's event as one of `freezing`, or None: of something
    else."""
    kinds = {"freeze_evaluated": "evaluated", "freeze_booted": "booted",
             "freeze_changed": "changed"}
    kind = kinds.get(event["event"])
    if kind is None:
        return None
    result = dict.fromkeys(KEYS) | {"step": event["round"], "kind": kind}
    if kind == "evaluated":
        result |= {key: event[key] for key in ("module", "value", "threshold")}
        result["raw"] = event["median"]
    elif kind == "changed":
        result |= {"first_active": event["frozen"], "reason": event["reason"]}
    return result


class Record:
    """The modules, and changes as (step, first active, reason)."""

    def __init__(self):
        self.unit, self.raw_name = "step", "one evaluation"
        self.modules = collections.defaultdict(Module)
        self.changes = []
        self.booted = None

    @classmethod
    def parse(cls, lines):
        """ValueError names the line that is no event."""
        record = cls()
        plotting.read(lines, (), record.take)
        if not record.modules and not record.changes:
            raise ValueError("no evaluation and no change in it")
        return record

    def take(self, event):
        if "event" in event:
            self.unit, self.raw_name = "round", "median of the reports"
            event = logged(event)
        if event is not None:
            self.add({key: event[key] for key in KEYS})

    def add(self, event):
        if event["kind"] == "evaluated":
            self.modules[event["module"]].add(event)
        elif event["kind"] == "booted":
            self.booted = event["step"]
        elif event["kind"] == "changed":
            self.changes.append((event["step"], event["first_active"],
                                 event["reason"]))

    def frozen_at(self, module):
        """Steps at which the module was frozen, and unfrozen."""
        frozen, unfrozen, before = [], [], 0
        for step, first_active, _ in self.changes:
            if before <= module < first_active:
                frozen.append(step)
            elif first_active <= module < before:
                unfrozen.append(step)
            before = first_active
        return frozen, unfrozen

    def shown(self):
        """Modules that something is known of."""
        last = max([first for _, first, _ in self.changes], default=0)
        return sorted(set(self.modules) | set(range(last)))


def draw_module(axes, record, number):
    module = record.modules[number]
    axes.plot(module.steps, module.raws, ".", color=RAW, markersize=3,
              label=record.raw_name)
    steps, values, thresholds = zip(*module.gaps()) if module.steps else (
        (), (), ())
    axes.plot(steps, values, color=VALUE, label="criterion")
    axes.plot(steps, thresholds, "--", color=THRESHOLD, label="threshold")
    for at, colour, label in zip(record.frozen_at(number),
                                 (FROZEN, UNFROZEN), ("frozen", "unfrozen")):
        for step in at:
            axes.axvline(step, color=colour, label=label)
            label = None
    axes.set_ylabel(f"module {number}")
    axes.spines[["top", "right"]].set_visible(False)


def draw(pyplot, record, title):
    shown = record.shown()
    figure, rows = pyplot.subplots(
        len(shown), sharex=True, squeeze=False, constrained_layout=True,
        figsize=(8, 1.2 + 1.7 * len(shown)))
    labels = {}
    for axes, number in zip(rows[:, 0], shown):
        draw_module(axes, record, number)
        if record.booted is not None:
            axes.axvspan(0, record.booted, color="#EEEEEE",
                         label="bootstrapping")
        for handle, label in zip(*axes.get_legend_handles_labels()):
            labels.setdefault(label, handle)
    rows[-1, 0].set_xlabel(record.unit)
    rows[-1, 0].set_xlim(left=0)
    figure.suptitle(title)
    figure.legend(labels.values(), labels.keys(), ncol=len(labels),
                  loc="lower center",
                  bbox_to_anchor=(0.5, 1.0), frameon=False)
    return figure


def main(argv=None):
    plotting.main("plot_freezing.py", __doc__, Record.parse, draw, argv)


if __name__ == "__main__":
    main()
