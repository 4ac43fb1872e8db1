# SPDX-License-Identifier: Apache-2.0
"""Compare the quick start's figures (its --json files, one a seed) with the
goals; the worst seed counts.
usage: quickstart_goals.py FILE.json..."""
import json
import sys

# name, how to read it, the goal, and whether more is better
GOALS = [
    ("accuracy_pct", lambda d: 100 * d["runs"][0]["accuracy"], 84.0, True),
    ("points_from_f32", lambda d: abs(d["comparison"]["points"]), 0.5, False),
    ("times_less_up", lambda d: d["comparison"]["up"], 7.0, True),
    ("times_less_down", lambda d: d["comparison"]["down_from_round_2"],
     3.5, True),
    ("seconds", lambda d: sum(run["wall_seconds"] for run in d["runs"]),
     120.0, False),
]


def main(paths):
    figures = []
    for path in paths:
        with open(path, encoding="utf-8") as source:
            figures.append(json.load(source))
    passed = failed = 0
    for name, read, goal, more in GOALS:
        values = [read(data) for data in figures]
        worst = min(values) if more else max(values)
        is_met = worst >= goal if more else worst <= goal
        passed, failed = passed + is_met, failed + (not is_met)
        each = " ".join(f"{value:.2f}" for value in values)
        print(f"{'ok' if is_met else 'FAIL'} {name} {worst:.2f} goal {goal} "
              f"(by seed: {each})")
    print(f"{passed} passed, {failed} failed, 0 skipped")
    return 1 if failed or not figures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
