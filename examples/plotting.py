# SPDX-License-Identifier: Apache-2.0
"""What the scripts here that draw a record share: their command line, the
record's lines, and matplotlib."""
import argparse
import json
import pathlib
import sys

KINDS = (".pdf", ".png", ".svg")
# Okabe and Ito.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY = "#999999"


def picture(text):
    path = pathlib.Path(text)
    if path.suffix not in KINDS:
        raise argparse.ArgumentTypeError(
            f"{text}: want a name that ends in {', '.join(KINDS)}")
    return path


def read(lines, keys, add):
    """Give each line's object with `keys`, and what else it has, to `add`;
    ValueError names the line that is none."""
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
            add({**event, **{key: event[key] for key in keys}})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number}: {error!r}") from None


def main(name, doc, parse, draw, argv=None):
    """Draw what `parse` makes of a file's lines, a record's or of figures, into
    pictures."""
    parser = argparse.ArgumentParser(
        prog=name, description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=pathlib.Path, metavar="FILE")
    parser.add_argument("pictures", type=picture, nargs="+")
    options = parser.parse_args(argv)
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        sys.exit(f"{name}: needs matplotlib, which is not installed "
                 f"(Debian: python3-matplotlib)")
    matplotlib.rcParams["svg.hashsalt"] = "libfl"
    try:
        record = parse(options.record.read_text().splitlines())
        figure = draw(pyplot, record, options.record.name)
        for path in options.pictures:
            figure.savefig(path, dpi=150, bbox_inches="tight")
    except (OSError, ValueError) as error:
        sys.exit(f"{name}: {options.record}: {error}")
