# SPDX-License-Identifier: Apache-2.0
"""Speed against PyTorch's EmbeddingBag: the same streams of ids for both, bags
of 10 ids, batches of 2048 bags, sums, float32, one thread each, processor
time. Ids are Zipf's (exponent 1.05, spread over the table) or uniform; every
batch of a pass has ids of its own.

PyTorch's forward pass is torch.nn.EmbeddingBag(sparse=True) without gradients;
its steps are forward, backward with a given gradient of the output, and
  rowwise   one AdaGrad accumulator a row, by hand on the rows that the sparse
            gradient names after it is coalesced
  adagrad   torch.optim.Adagrad
libfl's are fl_embedding_lookup, and fl_embedding_forward + _backward (row-wise
AdaGrad) on a store whose budget has no bound, which keeps no utilities, and that
holds all rows: ids are hashed and looked for, where PyTorch's are places. Each
side's memory is what it takes by default: of libfl.EmbeddingStore that is huge
pages, where libfl-pages.so is there and the system gives them; --small-pages is
without.

Each pass that is counted follows one of the same function that is not. Sides
take turns within a round; times are medians of --runs rounds, ratios are
medians of each round's. Prints `key value` lines; CASE is ROWS_DIM_IDS:
  torch_forward_ns_CASE, torch_rowwise_ns_CASE, torch_adagrad_ns_CASE,
  libfl_forward_ns_CASE, libfl_step_ns_CASE    per id
  libfl_training_ns_CASE    of it fl_embedding_forward alone
  forward_vs_torch_CASE, step_vs_torch_rowwise_CASE, step_vs_torch_adagrad_CASE
                                               PyTorch's time / libfl's
  forward_vs_torch, step_vs_torch_rowwise, step_vs_torch_adagrad
                         the smallest of the cases with most rows
  ..._small              the same of the cases with fewest rows
libfl has to be importable: PYTHONPATH=bindings/python/src and
LIBFL_LIBRARY=build/lib/libfl.so.0.1, or an installed package. Without PyTorch
(Debian: python3-torch) there is nothing to compare: exit status 3.
"""
import argparse
import ctypes
import os
import pathlib
import statistics
import sys
import time

import numpy as np

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

BAGS, EACH = 2048, 10
RATE = .01
EXPONENT = 1.05
SPREAD = 2654435761  # a prime: spreads ranks over the table
RATIOS = (("forward_vs_torch", "forward", "forward"),
          ("step_vs_torch_rowwise", "rowwise", "step"),
          ("step_vs_torch_adagrad", "adagrad", "step"))
NO_TORCH = 3


def zipf(rng, rows, count):
    """Ids 0..rows-1 by the continuous law, rounded."""
    power = 1 - EXPONENT
    low, high = .5 ** power, (rows + .5) ** power
    rank = (rng.random(count) * (high - low) + low) ** (1 / power) - .5
    return np.clip(np.round(rank), 0, rows - 1).astype(np.int64) * SPREAD % rows


def uniform(rng, rows, count):
    return rng.integers(0, rows, count)


IDS = {"zipf": zipf, "uniform": uniform}


def streams(kind, rows, batches, seed=1):
    """Ids of each batch of a pass."""
    rng = np.random.default_rng([seed, rows])
    return [IDS[kind](rng, rows, BAGS * EACH) for _ in range(batches)]


# ---- the two sides ---------------------------------------------------------

class Torch:
    """{what: function of a batch's number}."""

    def __init__(self, rows, dim, gradient):
        import torch
        torch.set_num_threads(1)
        self.torch = torch
        torch.manual_seed(1)
        self.offsets = torch.arange(0, BAGS * EACH, EACH)
        self.gradient = torch.from_numpy(gradient)
        self.bag = torch.nn.EmbeddingBag(rows, dim, mode="sum", sparse=True)
        self.adagrad = torch.optim.Adagrad(self.bag.parameters(), lr=RATE)
        self.squares = torch.zeros(rows)

    def take(self, batches):
        self.ids = [self.torch.from_numpy(ids) for ids in batches]

    def forward(self, i):
        with self.torch.no_grad():
            self.bag(self.ids[i], self.offsets)

    def _backward(self, i):
        self.bag.weight.grad = None
        self.bag(self.ids[i], self.offsets).backward(self.gradient)

    def adagrad_step(self, i):
        self._backward(i)
        self.adagrad.step()

    def rowwise_step(self, i):
        self._backward(i)
        sparse = self.bag.weight.grad.coalesce()
        rows, values = sparse.indices()[0], sparse.values()
        weight = self.bag.weight.data
        self.squares[rows] += (values * values).mean(1)
        weight[rows] -= RATE * values / (self.squares[rows].sqrt()[:, None]
                                         + 1e-8)

    def slices(self):
        return {"forward": self.forward, "rowwise": self.rowwise_step,
                "adagrad": self.adagrad_step}


class Libfl:
    """The calls alone: arguments are made beforehand."""

    def __init__(self, rows, dim, gradient, small_pages=False):
        import libfl
        from libfl import _lib
        self.lib, self.kind = _lib.lib, _lib.F32P
        self.bags_of, self.byref = libfl.Bags, _lib.byref
        self.store = libfl.EmbeddingStore(
            seed=1, context=libfl.Context() if small_pages else None)
        self.table = self.store.add_table(dim)
        self.gradient = np.ascontiguousarray(gradient, np.float32)
        self.out = np.empty((BAGS, dim), np.float32)
        for first in range(0, rows, BAGS * EACH):  # all rows are there
            ids = np.arange(first, min(rows, first + BAGS * EACH))
            self.table.forward(self.bags_of(ids, np.zeros(1, np.int64)))

    def take(self, batches):
        self.bags = [self.bags_of(ids.reshape(BAGS, EACH)) for ids in batches]

    def _call(self, function, i, array, *rest):
        function(self.store._handle, self.table.index,
                 self.byref(self.bags[i]._struct),
                 array.ctypes.data_as(self.kind), *rest)

    def forward(self, i):
        self._call(self.lib.fl_embedding_lookup, i, self.out)

    def training(self, i):
        self._call(self.lib.fl_embedding_forward, i, self.out)

    def step(self, i):
        self.training(i)
        self._call(self.lib.fl_embedding_backward, i, self.gradient,
                   ctypes.c_float(RATE))

    def slices(self):
        return {"forward": self.forward, "training": self.training,
                "step": self.step}


# ---- measuring -------------------------------------------------------------

def per_id(function, batches):
    """Nanoseconds of processor time per id of a pass, behind one that finds
    what other functions have left in the caches."""
    for i in range(batches):
        function(i)
    begin = time.thread_time_ns()
    for i in range(batches):
        function(i)
    return (time.thread_time_ns() - begin) / (batches * BAGS * EACH)


def rounds(sides, batches, runs):
    """[{(side, what): ns}, ...], after a pass that is not counted."""
    found = []
    for run in range(runs + 1):
        times = {(side, what): per_id(function, batches)
                 for side, slices in sides.items()
                 for what, function in slices.items()}
        if run:
            found.append(times)
    return found


def ratios_of(found):
    """Medians of the rounds' ratios."""
    return {key: statistics.median(
        times["torch", theirs] / times["libfl", ours] for times in found)
        for key, theirs, ours in RATIOS}


def print_case(case, found):
    for side, what in found[0]:
        value = statistics.median(times[side, what] for times in found)
        print(f"{side}_{what}_ns_{case} {value:.2f}")
    ratios = ratios_of(found)
    for key, value in ratios.items():
        print(f"{key}_{case} {value:.3f}", flush=True)
    return ratios


def print_smallest(cases, rows, ending):
    """The smallest ratios of the cases with `rows` rows."""
    for key, _, _ in RATIOS:
        value = min(ratios[key] for (count, _, _), ratios in cases.items()
                    if count == rows)
        print(f"{key}{ending} {value:.3f}")


def compare(options):
    cases = {}
    for rows in options.rows:
        for dim in options.dims:
            gradient = np.random.default_rng(2).standard_normal(
                (BAGS, dim)).astype(np.float32)
            sides = {"torch": Torch(rows, dim, gradient),
                     "libfl": Libfl(rows, dim, gradient,
                                    options.small_pages)}
            for kind in options.ids:
                for side in sides.values():
                    side.take(streams(kind, rows, options.batches))
                found = rounds({name: side.slices()
                                for name, side in sides.items()},
                               options.batches, options.runs)
                cases[rows, dim, kind] = print_case(f"{rows}_{dim}_{kind}",
                                                    found)
    print_smallest(cases, max(options.rows), "")
    if min(options.rows) < max(options.rows):
        print_smallest(cases, min(options.rows), "_small")


def numbers(text):
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"got {text}, want numbers from 1 on")
    return found


def kinds(text):
    found = text.split(",")
    if not set(found) <= set(IDS):
        raise argparse.ArgumentTypeError(f"got {text}, want some of "
                                         f"{', '.join(IDS)}")
    return found


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=numbers, default=[10000, 1000000],
                        metavar="LIST", help="of the table (10000,1000000)")
    parser.add_argument("--dims", type=numbers, default=[32, 64],
                        metavar="LIST", help="values of a row (32,64)")
    parser.add_argument("--ids", type=kinds, default=list(IDS),
                        metavar="LIST", help="zipf,uniform")
    parser.add_argument("--batches", type=int, default=16, metavar="N",
                        help="of a pass (16)")
    parser.add_argument("--runs", type=int, default=7, metavar="N",
                        help="rounds (7)")
    parser.add_argument("--small-pages", action="store_true",
                        help="libfl's memory is the C library's")
    options = parser.parse_args(argv)
    for name in ("batches", "runs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: want 1 or more")
    return options


def huge_pages(options):
    """Whether libfl's memory is in huge pages, and the system's word."""
    from libfl import _pages
    path = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    word = path.read_text() if path.exists() else "[never]"
    word = word[word.index("[") + 1:word.index("]")]
    is_asked = not options.small_pages and _pages.library() is not None
    return f"{'asked' if is_asked else 'not-asked'},{word}"


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


def main(argv=None):
    options = arguments(sys.argv[1:] if argv is None else argv)
    try:
        import torch
    except ImportError:
        print("compare_embeddingbag.py: PyTorch is not installed (Debian: "
              "python3-torch): there is nothing to compare with",
              file=sys.stderr)
        sys.exit(NO_TORCH)
    import libfl
    print(f"cpu {processor()}")
    print(f"torch {torch.__version__}")
    print(f"libfl {libfl.build_info()}")
    print(f"huge_pages {huge_pages(options)}")
    compare(options)


if __name__ == "__main__":
    main()
