# SPDX-License-Identifier: Apache-2.0
"""Plot what nmse_thc and rivals.py print: error over bits, and over workers.

  plot_thc.py FOLDER RESULT...             plot files of `key value` lines
  plot_thc.py FOLDER --program NMSE_THC    run both programs first; their lines
                                           are kept as FOLDER/results.txt
Writes nmse_bits_<data> and nmse_workers_<data> as .png and .svg. Needs numpy
and matplotlib (Debian: python3-matplotlib).
"""
import argparse
import dataclasses
import math
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
DATA = {"gauss_indep": "Gaussian vectors, every worker its own",
        "gauss": "one Gaussian vector held by all workers",
        "lognormal": "one log-normal vector held by all workers",
        "student3": "one Student-t (3) vector held by all workers",
        "sparse": "one vector, 1 % not zero, held by all workers",
        "vectors": "real updates"}
RIVALS = ("eden_b1,eden_b2,eden_b3,eden_b4,eden_b6,eden_b8,qsgd_max_b2,"
          "qsgd_max_b3,qsgd_max_b4,qsgd_max_b6,qsgd_max_b8,topk10,sign,"
          "terngrad,fp16")
LINE_BITS = 4  # of the plot over workers
LEAST = 1e-6   # what is below is named in a note: 16-bit floats


@dataclasses.dataclass(frozen=True)
class Family:
    """Schemes that one line joins. Colours: Okabe and Ito."""

    label: str
    pattern: str
    colour: str
    marker: str
    is_summable: bool = False


FAMILIES = [
    Family("THC uniform, p=1/32", r"uniform_b\d_p32", "#0072B2", "o", True),
    Family("THC table (paper)", r"table_b\d_paper_p32", "#56B4E9", "D", True),
    Family("THC table, best clip", r"table_b\d_best", "#332288", "p", True),
    Family("THC dither, p=1/91", r"dither_b\d_p91", "#D55E00", "s", True),
    Family("THC dither, p=1/1024", r"dither_b\d_p1024", "#009E73", "^", True),
    Family("THC dither, best clip", r"dither_b\d_best", "#E69F00", "v", True),
    Family("EDEN", r"eden_b\d", "#000000", "o"),
    Family("QSGD, max norm", r"qsgd_max_b\d", "#CC79A7", "s"),
    Family("TopK 10 %", r"topk10", "#8C564B", "X"),
    Family("sign", r"sign", "#777777", "P"),
    Family("TernGrad", r"terngrad", "#B79F00", "*"),
    Family("fp16", r"fp16", "#444444", "h"),
    Family("bf16", r"bf16", "#444444", "H", True),
    Family("f32", r"f32", "#444444", "8", True),
]
SCHEME = "|".join([r"(?:uniform|dither|table)_b\d_\w+"]
                  + [family.pattern for family in FAMILIES])
# Of a file's vectors <data> is what nmse_thc was told to call them.
KEY = re.compile(rf"nmse_([a-z0-9_]+?)_({SCHEME})_n(\d+)(_se)?$")


@dataclasses.dataclass
class Results:
    """`bits`: scheme -> bits; `nmse`: (data, scheme, workers) -> mean and
    standard error."""

    bits: dict
    nmse: dict

    @classmethod
    def parse(cls, lines):
        values = dict(line.split() for line in lines if line.strip())
        bits, nmse = {}, {}
        for key, text in values.items():
            match = KEY.match(key)
            if key.startswith("bits_"):
                bits[key[5:]] = float(text)
            elif match and not match[4]:
                nmse[match[1], match[2], int(match[3])] = (
                    float(text), float(values.get(key + "_se", "0")))
        if not nmse:
            raise ValueError("no nmse_... lines: want what nmse_thc and "
                             "rivals.py print")
        return cls(bits, nmse)

    def points(self, data, family, x_of):
        """Sorted (x, error, standard error); x_of may say None."""
        found = []
        for (name, scheme, workers), (mean, error) in self.nmse.items():
            x = x_of(scheme, workers)
            if name == data and x is not None and re.fullmatch(
                    family.pattern, scheme):
                found.append((x, mean, error))
        return sorted(found)

    def data(self):
        """Names of the data sets, known ones first."""
        found = {name for name, _, _ in self.nmse}
        return ([name for name in DATA if name in found]
                + sorted(found - set(DATA)))

    def workers(self, data):
        return sorted({k for name, _, k in self.nmse if name == data})


def spread(wanted, gap, low, high):
    """Places near the wanted ones, in their order, at least `gap` apart."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    placed = [0.0] * len(wanted)
    previous = low - gap
    for i in order:
        previous = placed[i] = max(wanted[i], previous + gap)
    limit = high + gap
    for i in reversed(order):
        limit = placed[i] = min(placed[i], limit - gap)
    return placed


def label_ends(axes, ends):
    """Name every line at its right end. ends: (x, y, family)."""
    low, high = (math.log10(v) for v in axes.get_ylim())
    places = spread([math.log10(y) for _, y, _ in ends],
                    0.05 * (high - low), low, high)
    left, right = (math.log10(v) for v in axes.get_xlim())
    beside = 10 ** (right + .07 * (right - left))
    for (x, y, family), place in zip(ends, places):
        axes.annotate(
            family.label, (x, y), xytext=(beside, 10 ** place),
            color=family.colour, fontsize=9, va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": family.colour, "lw": .7,
                        "alpha": .7, "relpos": (0, .5), "shrinkA": 2,
                        "shrinkB": 4})


def draw(axes, results, data, x_of):
    """All families into one panel; returns the ends of their lines. A family
    of one point is named beside it."""
    ends, below = [], []
    for family in FAMILIES:
        points = results.points(data, family, x_of)
        if not points:
            continue
        x, y, error = zip(*points)
        if min(y) < LEAST:
            below.append(f"{family.label} {y[-1]:.1e}")
            continue
        axes.errorbar(
            x, y, error, color=family.colour, marker=family.marker,
            markersize=5.5, capsize=2, linewidth=1.6,
            linestyle="-" if family.is_summable else (0, (4, 2)),
            markerfacecolor=family.colour if family.is_summable else "white")
        if len(points) == 1:
            axes.annotate(family.label, (x[0], y[0]), xytext=(0, -13),
                          textcoords="offset points", fontsize=8,
                          ha="center", color=family.colour,
                          bbox={"facecolor": "white", "edgecolor": "none",
                                "alpha": .8, "pad": .5})
        else:
            ends.append((x[-1], y[-1], family))
    axes.set_yscale("log")
    axes.grid(True, which="major", color="#DDDDDD", linewidth=.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_ylim(bottom=axes.get_ylim()[0] / 3)  # room for the note
    if below:
        axes.text(.02, .02, "below: " + ", ".join(below), fontsize=8,
                  color="#444444", transform=axes.transAxes)
    return ends


def log_ticks(axes, ticks):
    axes.set_xscale("log")
    axes.set_xticks(ticks)
    axes.set_xticklabels([f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def figure_of(pyplot, panels, title):
    width = 2.6 + 4.0 * panels
    figure, axes = pyplot.subplots(1, panels, sharey=True, squeeze=False,
                                   figsize=(width, 4.9))
    figure.subplots_adjust(left=.85 / width, right=1 - 1.9 / width, top=.87,
                           bottom=.2, wspace=.08)
    figure.text(.1 / width, .95, title, fontsize=12)
    axes[0][0].set_ylabel(r"NMSE  $|$est $-$ mean$|^2$ / mean $|x_i|^2$")
    figure.text(.1 / width, .02, "Solid, filled: updates are added without "
                "decoding them.\nDashed, open: every update is decoded first. "
                "Bars: standard error.", fontsize=8, color="#444444")
    return figure, axes[0]


def save(pyplot, figure, path):
    for ending in (".png", ".svg"):
        figure.savefig(path.with_suffix(ending), dpi=150)
    pyplot.close(figure)
    print(f"wrote {path}.png and .svg")


def plot_bits(pyplot, results, data, folder):
    """One panel for one worker and one for about ten."""
    workers = results.workers(data)
    several = [k for k in workers if k > 1]
    chosen = [workers[0]]
    if several and workers[0] == 1:
        chosen.append(min(several, key=lambda k: abs(k - 10)))
    figure, panels = figure_of(pyplot, len(chosen),
                               f"Error over bits sent: {DATA.get(data, data)}")
    for axes, k in zip(panels, chosen):
        ends = draw(axes, results, data,
                    lambda scheme, n, k=k: results.bits.get(scheme)
                    if n == k else None)
        log_ticks(axes, [1, 2, 3, 4, 6, 8, 16])
        axes.set_xlim(.85, 19)
        axes.set_title(f"{k} worker{'s' * (k > 1)}", fontsize=10, loc="left")
        axes.set_xlabel("bits per coordinate")
    label_ends(panels[-1], ends)
    save(pyplot, figure, folder / f"nmse_bits_{data}")


def plot_workers(pyplot, results, data, folder):
    def x_of(scheme, n):
        match = re.search(r"_b(\d)(_|$)", scheme)
        return n if not match or int(match[1]) == LINE_BITS else None

    workers = results.workers(data)
    figure, panels = figure_of(
        pyplot, 1, f"Error over workers, {LINE_BITS} bits: "
        f"{DATA.get(data, data)}")
    ends = draw(panels[0], results, data, x_of)
    log_ticks(panels[0], workers)
    panels[0].set_xlim(workers[0] * .9, workers[-1] * 1.1)
    panels[0].set_xlabel("workers")
    label_ends(panels[0], ends)
    save(pyplot, figure, folder / f"nmse_workers_{data}")


def run_programs(options):
    """Lines of nmse_thc and rivals.py."""
    common = ["--workers", options.workers, "--seeds", str(options.seeds)]
    if options.vectors:
        common += ["--vectors", options.vectors]
    else:
        common += ["--size", str(options.size), "--data", options.data]
    lines = []
    for command in ([options.program, "--bits", "1,2,3,4,5,6,7,8"],
                    [sys.executable, str(HERE / "rivals.py"), "--codecs",
                     RIVALS]):
        done = subprocess.run([*command, *common], stdout=subprocess.PIPE,
                              text=True, check=False)
        if done.returncode:
            sys.exit(f"plot_thc.py: {command[0]} ended with "
                     f"{done.returncode}")
        lines += done.stdout.splitlines()
    return lines


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path,
                        help="where the plots go; made when missing")
    parser.add_argument("results", nargs="*", type=pathlib.Path,
                        help="files of `key value` lines")
    parser.add_argument("--program", help="nmse_thc, to run it and rivals.py")
    parser.add_argument("--size", type=int, default=1 << 18, metavar="N",
                        help="floats per vector (262144)")
    parser.add_argument("--workers", default="1,4,10,64", metavar="LIST")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--data", default="gauss,gauss_indep", metavar="LIST")
    parser.add_argument("--vectors", metavar="FILE",
                        help="instead of --data: a .npy of gradients.py")
    options = parser.parse_args(argv)
    if bool(options.results) == bool(options.program):
        parser.error("want result files, or --program, and not both")
    return options


def read_lines(paths):
    lines = []
    for path in paths:
        try:
            lines += path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            sys.exit(f"plot_thc.py: {path}: {error}")
    return lines


def main(argv=None):
    options = arguments(argv)
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        sys.exit("plot_thc.py: needs matplotlib, which is not installed "
                 "(Debian: python3-matplotlib)")
    matplotlib.rcParams["svg.hashsalt"] = "libfl"
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.results:
        lines = read_lines(options.results)
    else:
        lines = run_programs(options)
        (options.folder / "results.txt").write_text(
            "".join(line + os.linesep for line in lines))
    try:
        results = Results.parse(lines)
    except ValueError as error:
        sys.exit(f"plot_thc.py: {error}")
    for data in results.data():
        plot_bits(pyplot, results, data, options.folder)
        plot_workers(pyplot, results, data, options.folder)


if __name__ == "__main__":
    main()
