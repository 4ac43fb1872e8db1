# SPDX-License-Identifier: Apache-2.0
"""libfl's aggregation next to Flower's own functions, on the same arrays.

usage: compare_flower.py [--dim N] [--counts K,...] [--runs N]

Prints versions, then `key value` lines; seconds are CPU time of this process
with one thread, medians of rounds that take both in turn:
  libfl_RULE_kK, flower_RULE_kK  seconds; RULE: fedavg, thc, median, trimmed,
                                 krum; flower_decode_kK: parameters to arrays;
                                 flower_best_kK: its in-place accumulation
  fedavg_vs_flower_kK            (decode + aggregate) / libfl: what a classic
                                 strategy does
  fedavg_vs_flower_best_kK       its fastest path / libfl
  thc_vs_flower_kK, thc_vs_flower_best_kK       the same over sums of 4 bits
  median_vs_flower, trimmed_vs_flower, krum_vs_flower     at the first K
  thc_nmse_kK                    |thc's mean - mean|^2 / mean of |update|^2
  libfl_fedavg_kK_off, flower_fedavg_kK_off     largest distance from the mean in
                                 doubles, over its largest value
libfl takes updates in memory (fl_strategy_step, which looks for NaN on its way)
or encoded (fl_partial_add_batch, then the mean). Float results have to agree
within 1e-6 of the largest (means: libfl's with that in doubles, and both with
each other but for what Flower's is off), and Krum has to choose the same
update, or it ends with status 1. Flower is `flwr` of pip; without it there is
nothing to compare: exit status 3. K=1000 of a million coordinates takes 14 GB.
"""
import argparse
import os
import statistics
import sys
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np

NO_FLOWER = 3
TRIM = .2


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=1_000_000)
    parser.add_argument("--counts", default="100")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(argv)
    options.counts = [int(count) for count in options.counts.split(",")]
    return options


def draw(count, dim):
    rng = np.random.default_rng(1)
    centre = rng.standard_normal(dim, np.float32)
    return [centre + rng.standard_normal(dim, np.float32)
            for _ in range(count)]


def timed(function):
    begin = time.process_time()
    result = function()
    return time.process_time() - begin, result


class Flower:
    """Its functions, by the names that the lines use."""

    def __init__(self, updates, samples):
        from flwr.common import (Code, FitRes, Status, ndarrays_to_parameters,
                                 parameters_to_ndarrays)
        from flwr.server.strategy import aggregate as functions
        self._functions = functions
        self._results = [([update], int(n))
                         for update, n in zip(updates, samples)]
        self._parameters = [ndarrays_to_parameters([update])
                            for update in updates]
        self._decode = parameters_to_ndarrays
        self._fits = [(None, FitRes(Status(Code.OK, ""), parameters, int(n),
                                    {}))
                      for parameters, n in zip(self._parameters, samples)]

    def decode(self):
        return [self._decode(parameters) for parameters in self._parameters]

    def fedavg(self):
        return self._functions.aggregate(self._results)[0]

    def best(self):
        return self._functions.aggregate_inplace(self._fits)[0]

    def median(self):
        return self._functions.aggregate_median(self._results)[0]

    def trimmed(self):
        return self._functions.aggregate_trimmed_avg(self._results, TRIM)[0]

    def krum(self, byzantine):
        return self._functions.aggregate_krum(self._results, byzantine, 0)[0]


class Ours:
    def __init__(self, updates, samples):
        import libfl
        self._libfl, self._updates, self._samples = libfl, updates, samples
        self._weights = np.zeros(updates[0].size, np.float32)
        compressor = libfl.Compressor(updates[0].size, "thc")
        scale = libfl.Scale(round=1, slots=len(updates),
                            weight_cap=int(max(samples)))
        norms = libfl.merge_norms([
            compressor.measure(update, scale, samples=int(n))
            for update, n in zip(updates, samples)])
        self._scale = libfl.Scale(round=1, slots=len(updates), norms=norms,
                                  weight_cap=int(max(samples)))
        self._compressor = compressor
        self._encoded = [
            compressor.encode(update, self._scale, slot=slot, samples=int(n))
            for slot, (update, n) in enumerate(zip(updates, samples))]

    def step(self, options):
        self._weights[:] = 0
        with self._libfl.Strategy(options, self._weights.size) as strategy:
            strategy.step(self._weights, self._updates, samples=self._samples)
        return self._weights

    def thc(self):
        partial = self._compressor.partial(self._scale)
        partial.add_many(self._encoded)
        return partial.decode(self._weights)


def distance(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


def check(name, ours, theirs, slack=0.0):
    off = distance(ours, theirs)
    print(f"{name}_differs_by {off:.2g}")
    if not off <= 1e-6 + slack:
        sys.exit(f"{name}: libfl and Flower do not agree")


def check_mean(name, ours, theirs, updates, samples):
    """Flower adds up in float32, which shows from hundreds of updates on."""
    mean = np.zeros(updates[0].size)
    for update, n in zip(updates, samples):
        mean += float(n) * update
    mean /= float(np.sum(samples))
    own, other = distance(ours, mean), distance(theirs, mean)
    print(f"libfl_{name}_off {own:.2g}")
    print(f"flower_{name}_off {other:.2g}")
    if not own <= 1e-6:
        sys.exit(f"{name}: libfl is not at the mean")
    check(name, ours, theirs, other)


def compare(count, options, is_first):
    import libfl
    updates = draw(count, options.dim)
    samples = np.random.default_rng(2).integers(50, 500, count)
    theirs, ours = Flower(updates, samples), Ours(updates, samples)
    byzantine = count // 5
    pairs = {"decode": (theirs.decode, None), "best": (theirs.best, None),
             "fedavg": (theirs.fedavg, lambda: ours.step(libfl.FedAvg())),
             "thc": (None, ours.thc)}
    if is_first:
        pairs |= {
            "median": (theirs.median, lambda: ours.step(libfl.Median())),
            "trimmed": (theirs.trimmed,
                        lambda: ours.step(libfl.TrimmedMean(trim=TRIM))),
            "krum": (lambda: theirs.krum(byzantine),
                     lambda: ours.step(libfl.Krum(byzantine=byzantine)))}
    seconds, results = {}, {}
    for _ in range(options.runs):
        for name, sides in pairs.items():
            for side, function in zip(("flower", "libfl"), sides):
                if function is None:
                    continue
                spent, result = timed(function)
                seconds.setdefault((side, name), []).append(spent)
                if name != "decode":
                    results[side, name] = np.array(result)
                del result
    took = {key: statistics.median(values) for key, values in seconds.items()}
    for (side, name), value in took.items():
        print(f"{side}_{name}_k{count} {value:.4f}")
    check_mean(f"fedavg_k{count}", results["libfl", "fedavg"],
               results["flower", "fedavg"], updates, samples)
    for name in ("median", "trimmed", "krum") if is_first else ():
        check(f"{name}_k{count}", results["libfl", name],
              results["flower", name])
    mean = results["flower", "fedavg"]
    length = np.mean([np.dot(update, update) for update in updates])
    off = results["libfl", "thc"] - mean
    print(f"thc_nmse_k{count} {np.dot(off, off) / length:.3g}")
    classic = took["flower", "decode"] + took["flower", "fedavg"]
    for name in ("fedavg", "thc"):
        spent = took["libfl", name]
        print(f"{name}_vs_flower_k{count} {classic / spent:.2f}")
        print(f"{name}_vs_flower_best_k{count} "
              f"{took['flower', 'best'] / spent:.2f}")
    for name in ("median", "trimmed", "krum") if is_first else ():
        print(f"{name}_vs_flower "
              f"{took['flower', name] / took['libfl', name]:.2f}")


def main(argv=None):
    options = arguments(sys.argv[1:] if argv is None else argv)
    try:
        import flwr
        from flwr.server.strategy import aggregate as _
    except ImportError as error:
        print(f"compare_flower.py: Flower cannot be imported ({error}): pip "
              f"install flwr; there is nothing to compare with",
              file=sys.stderr)
        sys.exit(NO_FLOWER)
    import libfl
    print(f"flwr {getattr(flwr, '__version__', 'unknown')}")
    print(f"numpy {np.__version__}")
    print(f"libfl {libfl.build_info()}")
    for i, count in enumerate(options.counts):
        compare(count, options, i == 0)


if __name__ == "__main__":
    main()
