#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draw how cohorts came to be: the tree over rounds, with the clients of each
by their true groups, and what the clients got out of it.

  plot_cohorts.py RECORD PICTURE...

RECORD is what `cohorts --record` writes; pictures end in .png, .svg or .pdf.
The tree is that of the rule that is recorded first; a dashed line is a trial.
Needs matplotlib (Debian: python3-matplotlib).
"""
import plotting

GROUPS = (plotting.BLUE, plotting.ORANGE, plotting.GREEN, plotting.PINK)
RULES = ("-", "--", ":", "-.")
HIGH = 0.8  # of a branch that has all clients; branches are 1 apart
ROUND_KEYS = ("leaves", "mean", "worst10", "cohorts")
EVENT_KEYS = ("cohort", "child")


class Branch:
    """A cohort from its begin to its end; numbers are used again."""

    def __init__(self, number, begun, parent=None):
        self.number, self.begun, self.parent = number, begun, parent
        self.ended = None    # round
        self.joined = None   # the branch that has its clients now
        self.decided = None  # round in which the trial was
        self.rounds, self.counts = [], []

    def add(self, number, counts):
        if len(counts) != len(GROUPS):
            raise ValueError(f"got {len(counts)} groups, want {len(GROUPS)}")
        self.rounds.append(number)
        self.counts.append([float(count) for count in counts])


class Tree:
    """Branches from top to bottom, halves side by side."""

    def __init__(self):
        self.branches = []
        self.alive = {}
        self.clients = 0

    def branch(self, number, begun, parent=None):
        branch = Branch(number, begun, parent)
        at = (len(self.branches) if parent is None else
              self.branches.index(parent) + 1)
        self.branches.insert(at, branch)
        self.alive[number] = branch
        return branch

    def see(self, event):
        clients = 0
        for number, counts in dict(event["cohorts"]).items():
            number = int(number)
            branch = self.alive.get(number) or self.branch(number, 0)
            branch.add(event["round"], counts)
            clients += sum(counts)
        self.clients = max(self.clients, clients)

    def decide(self, event):
        number, child = event["cohort"], event["child"]
        parent = self.alive.get(number) or self.branch(number, 0)
        if event["kind"] in ("trial", "split"):
            half = self.branch(child, event["round"], parent)
            if event["kind"] == "split":
                half.decided = event["round"]
        elif event["kind"] == "kept":
            self.alive[child].decided = event["round"]
        elif event["kind"] in ("undone", "moved", "merged"):
            branch = self.alive.pop(child)
            branch.ended, branch.joined = event["round"], parent


class Record:
    """Curves by rule as (rounds, means, worst), and the first rule's tree."""

    def __init__(self):
        self.curves = {}
        self.tree = Tree()
        self.rule = None

    @classmethod
    def parse(cls, lines):
        """ValueError names the line that is no event."""
        record = cls()
        plotting.read(lines, ("rule", "round", "kind"), record.add)
        if not record.curves:
            raise ValueError("no round in it")
        return record

    def add(self, event):
        event["round"] = float(event["round"])
        self.rule = self.rule or str(event["rule"])
        is_round = event["kind"] == "round"
        for key in ROUND_KEYS if is_round else EVENT_KEYS:
            event[key]
        if is_round:
            curve = self.curves.setdefault(event["rule"], ([], [], []))
            curve[0].append(event["round"])
            curve[1].append(100.0 * event["mean"])
            curve[2].append(100.0 * event["worst10"])
        if event["rule"] != self.rule:
            return
        if is_round:
            self.tree.see(event)
        else:
            self.tree.decide(event)

    @property
    def last(self):
        return self.curves[self.rule][0][-1]


def draw_clients(axes, branch, y, clients):
    """A band as high as the branch has clients, in the groups' colours."""
    floors = [y - HIGH * sum(counts) / clients / 2 for counts in
              branch.counts]
    for group, colour in enumerate(GROUPS):
        roofs = [floor + HIGH * counts[group] / clients for floor, counts in
                 zip(floors, branch.counts)]
        if roofs != floors:
            axes.fill_between(branch.rounds, floors, roofs, color=colour,
                              linewidth=0, label=f"group {group}")
        floors = roofs


def draw_tree(axes, record):
    branches = record.tree.branches
    places = {branch: -at for at, branch in enumerate(branches)}
    for branch, y in places.items():
        end = record.last if branch.ended is None else branch.ended
        kept = end if branch.decided is None else branch.decided
        if branch.parent is None:
            kept = branch.begun
        line = {"color": plotting.GREY, "linewidth": 1, "zorder": 0}
        axes.plot([branch.begun, kept], [y, y], "--", **line)
        axes.plot([kept, end], [y, y], **line)
        for other, at in ((branch.parent, branch.begun),
                          (branch.joined, end)):
            if other is not None:
                axes.plot([at, at], [places[other], y], **line)
        if branch.rounds:
            draw_clients(axes, branch, y, record.tree.clients)
    axes.set_yticks(list(places.values()))
    axes.set_yticklabels([f"cohort {branch.number}" for branch in branches])
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw_curves(axes, record):
    for style, (rule, curve) in zip(RULES, record.curves.items()):
        rounds, means, worst = curve
        axes.plot(rounds, means, style, color="black", label=f"{rule}, mean")
        axes.plot(rounds, worst, style, color=plotting.GREY,
                  label=f"{rule}, worst 10 %")
    axes.set_ylabel("accuracy, %")
    axes.set_xlabel("round")
    axes.spines[["top", "right"]].set_visible(False)


def draw(pyplot, record, title):
    height = 1 + 0.5 * len(record.tree.branches)
    figure, (top, bottom) = pyplot.subplots(
        2, sharex=True, constrained_layout=True, figsize=(8, height + 3),
        gridspec_kw={"height_ratios": [height, 3]})
    draw_tree(top, record)
    draw_curves(bottom, record)
    for axes in (top, bottom):
        labels = dict(zip(*axes.get_legend_handles_labels()[::-1]))
        axes.legend(labels.values(), labels.keys(), frameon=False,
                    loc="upper left", bbox_to_anchor=(1, 1))
    bottom.set_xlim(left=0)
    figure.suptitle(f"{title}: {record.rule}")
    return figure


def main(argv=None):
    plotting.main("plot_cohorts.py", __doc__, Record.parse, draw, argv)


if __name__ == "__main__":
    main()
