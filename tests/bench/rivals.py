# SPDX-License-Identifier: Apache-2.0
"""Error of the mean that other compressors deliver.

The measure and the data sets are those of nmse_thc,
|mean of what arrives - mean|^2 / mean_i |x_i|^2, and so are the lines:
  bits_<codec>                bits per coordinate sent
  nmse_<data>_<codec>_n<k>    mean over the seeds, k workers
  nmse_<data>_<codec>_n<k>_se its standard error
Needs numpy. codecs_numpy.py names the methods and their sources.
"""
import argparse
import math
import sys

import numpy as np

from codecs_numpy import CODECS

DEFAULT = ["eden_b1", "eden_b2", "eden_b3", "eden_b4", "drive", "qsgd_l2_b4",
           "qsgd_max_b4", "qsgd_bucket512_b4", "terngrad", "topk10", "sign",
           "fp16", "bf16"]


def gauss(rng, n):
    return rng.standard_normal(n, np.float32)


def lognormal(rng, n):
    signs = np.where(rng.random(n) < .5, -1, 1)
    return (signs * rng.lognormal(0, 1, n)).astype(np.float32)


def student3(rng, n):
    return rng.standard_t(3, n).astype(np.float32)


def sparse(rng, n):
    return np.where(rng.random(n) < .01, rng.standard_normal(n),
                    0).astype(np.float32)


# Name -> (what draws a vector, whether every worker draws its own).
DATA = {"gauss": (gauss, False), "gauss_indep": (gauss, True),
        "lognormal": (lognormal, False), "student3": (student3, False),
        "sparse": (sparse, False)}


class Vectors:
    """The workers' vectors: vectors[i]. One drawn for all is kept; others
    are drawn when they are asked for."""

    def __init__(self, name, size, seed):
        self._draw, self._is_own = DATA[name]
        self._size, self._seed = size, seed
        self._shared = None if self._is_own else self._row(0)

    def _row(self, worker):
        return self._draw(np.random.default_rng((self._seed, worker)),
                          self._size)

    def __getitem__(self, worker):
        return self._row(worker) if self._is_own else self._shared


def load(path):
    """The rows of a .npy file."""
    rows = np.load(path, mmap_mode="r", allow_pickle=False)
    if rows.ndim != 2 or rows.dtype != np.float32:
        raise ValueError(f"{path}: got {rows.dtype} of {rows.ndim} "
                         "dimensions, want a matrix of float32")
    return rows


def errors(codec, vectors, workers, seed):
    """NMSE for every number of workers, the first k of the same ones."""
    result, total, arrived, mean = {}, 0.0, 0.0, 0.0
    for i in range(max(workers)):
        x = np.ascontiguousarray(vectors[i])
        rng = np.random.default_rng((seed, i, 1))
        arrived = arrived + codec(x, rng).astype(np.float64)
        mean = mean + x.astype(np.float64)
        total += np.dot(x.astype(np.float64), x)
        if i + 1 in workers:
            off = (arrived - mean) / (i + 1)
            result[i + 1] = float(np.dot(off, off)) / (total / (i + 1))
    return result


def figure(values):
    """Mean and its standard error."""
    n = len(values)
    mean = math.fsum(values) / n
    squares = math.fsum((v - mean) ** 2 for v in values)
    return mean, math.sqrt(squares / (n - 1) / n) if n > 1 else 0.0


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def measure(name, codecs, options, vectors_of):
    """Print one data set's figures."""
    for codec in codecs:
        bits, function = CODECS[codec]
        found = {k: [] for k in options.workers}
        for seed in range(1, options.seeds + 1):
            progress(f"{name}, seed {seed} of {options.seeds}: {codec}")
            for k, value in errors(function, vectors_of(seed),
                                   options.workers, seed).items():
                found[k].append(value)
        progress("")
        print(f"bits_{codec} {bits:.4g}")
        for k, values in found.items():
            mean, error = figure(values)
            print(f"nmse_{name}_{codec}_n{k} {mean:.6g}")
            print(f"nmse_{name}_{codec}_n{k}_se {error:.2g}", flush=True)


def numbers(text):
    values = [int(part) for part in text.split(",")]
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"got {text}, want 1 or more")
    return values


def names(known):
    def parse(text):
        found = list(known) if text == "all" else text.split(",")
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"got {name}, want some of {', '.join(known)}")
        return found
    return parse


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=1 << 20, metavar="N",
                        help="floats per vector (1048576)")
    parser.add_argument("--workers", type=numbers, default=[1, 4, 10, 64],
                        metavar="LIST", help="numbers of workers (1,4,10,64)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N",
                        help="rounds per figure (3)")
    parser.add_argument("--data", type=names(DATA), default=list(DATA),
                        metavar="LIST", help=", ".join(DATA))
    parser.add_argument("--codecs", type=names(CODECS), default=DEFAULT,
                        metavar="LIST", help="all, or some of\n"
                        + "\n".join(CODECS))
    parser.add_argument("--vectors", metavar="FILE",
                        help="instead: float32 matrix (.npy), one row per "
                        "worker")
    options = parser.parse_args(argv)
    if options.size < 1 or options.seeds < 1:
        parser.error("--size and --seeds: want 1 or more")
    return options


def main(argv=None):
    options = arguments(argv)
    if options.vectors:
        try:
            rows = load(options.vectors)
        except (OSError, ValueError) as error:
            sys.exit(f"rivals.py: {error}")
        options.workers = [k for k in options.workers if k <= len(rows)]
        if options.workers:
            measure("vectors", options.codecs, options, lambda seed: rows)
        return
    for name in options.data:
        measure(name, options.codecs, options,
                lambda seed, name=name: Vectors(name, options.size, seed))


if __name__ == "__main__":
    main()
