# SPDX-License-Identifier: Apache-2.0
"""Federated training under several compressors: accuracy after some rounds.

In every round each client takes steps of SGD from the shared model on its
own part of Fashion-MNIST and sends what it changed; the model moves by the
mean of what arrives. Everything but the compressor is the same for a seed.
  f32, bf16           as they are
  dither_b4           THC, subtractive dither, no memory between rounds
  uniform_b4_ef       THC, stochastic rounding, p=1/32, error feedback
  table_b4_ef         THC, table of granularity 30, the same (if libfl has it)
  topk10_ef, sign_ef  the largest tenth, scaled signs, error feedback
Prints `key value` lines, c<n> for n clients:
  accuracy_<codec>_c<n>      mean over the seeds, _ci: 95 % interval, +-
  difference_<codec>_c<n>    to f32 with the same seed, _ci likewise
  seconds_<codec>_c<n>       of one run
libfl has to be importable: PYTHONPATH=bindings/python/src and
LIBFL_LIBRARY=build/lib/libfl.so.0.1, or an installed package.
"""
import argparse
import math
import sys
import time

import numpy as np

import codecs_numpy
import fashion
import libfl as fl

P32 = 2.1538747  # clip that leaves 1/32 of N(0, 1) outside
# 0.975 quantiles of Student's t with 1, 2, ... degrees of freedom.
STUDENT = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262]


class Memory:
    """Error feedback: what did not arrive is added to the next update."""

    def __init__(self, clients, dim):
        self._errors = np.zeros((clients, dim), np.float32)

    def add(self, client, update):
        return update + self._errors[client]

    def keep(self, client, x, arrived):
        self._errors[client] = x - arrived


class Forgetful:
    """What a fl.Feedback does in a round, without its memory."""

    def __init__(self, compressor):
        self._compressor = compressor

    def measure(self, x, scale):
        self._x = x
        return self._compressor.measure(x, scale)

    def encode(self, scale, slot):
        return self._compressor.encode(self._x, scale, slot=slot)

    def settle(self, is_counted):
        pass


class Summed:
    """Updates that the library adds without decoding them."""

    def __init__(self, options, has_memory):
        self._options = options
        self._kind = fl.Feedback if has_memory else Forgetful

    def start(self, segments, clients, seed):
        self._rng = np.random.default_rng((seed, 77))
        options = dict(self._options, rotation_seed=self._rng.bytes(32))
        self._compressor = fl.Compressor(segments, fl.CodecOptions(**options))
        self._workers = [self._kind(self._compressor) for _ in range(clients)]

    def mean(self, updates, number):
        scale = fl.Scale(slots=len(updates), round=number,
                         noise_seed=self._rng.bytes(32))
        scale.norms = fl.merge_norms(
            worker.measure(x, scale)
            for worker, x in zip(self._workers, updates))
        with self._compressor.partial(scale) as total:
            for slot, worker in enumerate(self._workers):
                total.add(worker.encode(scale, slot=slot))
                worker.settle(True)
            return total.decode()

    def lost(self, client):
        return self._workers[client].memory


class Decoded:
    """Updates that are decoded one by one, with error feedback. `is_split`:
    every layer is coded by itself."""

    def __init__(self, codec, is_split):
        self._codec, self._is_split = codec, is_split

    def start(self, segments, clients, seed):
        self._rng = np.random.default_rng((seed, 77))
        self._cuts = np.cumsum(segments)[:-1] if self._is_split else []
        self._memory = Memory(clients, sum(segments))

    def _arrived(self, x):
        return np.concatenate([self._codec(part, self._rng)
                               for part in np.split(x, self._cuts)])

    def mean(self, updates, number):
        del number
        total = 0.0
        for i, update in enumerate(updates):
            x = self._memory.add(i, update)
            arrived = self._arrived(x)
            self._memory.keep(i, x, arrived)
            total = total + arrived.astype(np.float64)
        return (total / len(updates)).astype(np.float32)

    def lost(self, client):
        return self._memory.add(client, np.float32(0))


def thc(mode, has_memory, **options):
    return Summed(dict(options, codec="thc", thc_mode=mode), has_memory)


CODECS = {
    "f32": Summed({"codec": "f32"}, False),
    "bf16": Summed({"codec": "bf16"}, False),
    "dither_b4": thc(fl.ThcMode.DITHER, False),
    "uniform_b4_ef": thc(fl.ThcMode.UNIFORM, True, clip=P32),
    "topk10_ef": Decoded(codecs_numpy.topk, False),
    "sign_ef": Decoded(codecs_numpy.sign, True),
}
if hasattr(fl.ThcMode, "TABLE"):
    CODECS["table_b4_ef"] = thc(fl.ThcMode.TABLE, True, clip=P32,
                                granularity=30)


def parts(labels, clients, alpha, rng):
    """Places of every client's samples: as many each; alpha > 0 draws the
    shares of its classes from Dirichlet(alpha), 0 deals evenly."""
    count = len(labels) // clients
    if alpha == 0:
        return rng.permutation(len(labels))[:count * clients].reshape(
            clients, count)
    by_class = [np.flatnonzero(labels == c) for c in range(10)]
    shares = rng.dirichlet([alpha] * 10, clients)
    return [np.concatenate([rng.choice(places, n) for places, n in zip(
        by_class, rng.multinomial(count, share))]) for share in shares]


def train(codec, data, clients, seed, options):
    """Return the accuracy of the last round's model."""
    x, y, x_test, y_test = data
    rng = np.random.default_rng(seed)
    samples = parts(y, clients, options.alpha, rng)
    layers = [fl.Input((28, 28), scale=1 / 255), fl.Flatten(),
              fl.Dense(128), fl.ReLU(), fl.Dense(10),
              fl.SoftmaxCrossEntropy()]
    with fl.Model(layers, seed=seed) as model:
        codec.start(model.segments, clients, seed)
        weights = model.copy_weights()
        for number in range(options.rounds):
            updates = []
            for own in samples:
                chosen = rng.choice(own, options.steps * options.batch)
                model.set_weights(weights)
                model.fit(x, y, indices=chosen, batch_size=options.batch,
                          learning_rate=options.rate, shuffle=False,
                          progress=False)
                updates.append(model.copy_weights() - weights)
            weights = weights + codec.mean(updates, number)
        model.set_weights(weights)
        return model.evaluate(x_test, y_test).accuracy


def interval(values):
    """Mean, and half of the 95 % interval."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return mean, math.nan
    return mean, STUDENT[n - 2] * float(np.std(values, ddof=1)) / math.sqrt(n)


def compare(data, clients, options):
    """Print all codecs' figures for a number of clients."""
    base = None
    for name in options.codecs:
        scores, start = [], time.process_time()
        for seed in options.seeds:
            if sys.stderr.isatty():
                print(f"\r\033[K{clients} clients, {name}, seed {seed}",
                      end="", file=sys.stderr, flush=True)
            scores.append(train(CODECS[name], data, clients, seed, options))
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        taken = (time.process_time() - start) / len(scores)
        figures = {"accuracy": interval(scores)}
        if name == "f32":
            base = scores
        elif base:
            figures["difference"] = interval(np.subtract(scores, base))
        for key, (mean, half) in figures.items():
            print(f"{key}_{name}_c{clients} {mean:.4f}")
            if len(scores) > 1:
                print(f"{key}_{name}_c{clients}_ci {half:.4f}")
        print(f"seconds_{name}_c{clients} {taken:.1f}", flush=True)


def numbers(text):
    return [int(part) for part in text.split(",")]


def names(text):
    found = text.split(",")
    for name in found:
        if name not in CODECS:
            raise argparse.ArgumentTypeError(
                f"got {name}, want some of {', '.join(CODECS)}")
    return sorted(found, key=lambda name: name != "f32")


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=numbers, default=[10, 64],
                        metavar="LIST", help="numbers of clients (10,64)")
    parser.add_argument("--seeds", type=numbers, default=[11, 12, 13, 14, 15],
                        metavar="LIST", help="1..10 of them (11,...,15)")
    parser.add_argument("--codecs", type=names, default=list(CODECS),
                        metavar="LIST", help=", ".join(CODECS))
    for name, value, text in (("rounds", 100, "rounds"),
                              ("steps", 5, "steps of a client per round"),
                              ("batch", 32, "samples per step")):
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N",
                            help=f"{text} ({value})")
    parser.add_argument("--rate", type=float, default=.1, metavar="X",
                        help="learning rate (0.1)")
    parser.add_argument("--alpha", type=float, default=.5, metavar="X",
                        help="Dirichlet parameter of the clients' classes; "
                        "0 = even (0.5)")
    parser.add_argument("--images", default=fashion.FOLDER, metavar="FOLDER",
                        help="Fashion-MNIST")
    options = parser.parse_args(argv)
    if len(options.seeds) > len(STUDENT) + 1:
        parser.error(f"--seeds: want at most {len(STUDENT) + 1}")
    if min(options.rounds, options.steps, options.batch) < 1:
        parser.error("--rounds, --steps and --batch: want 1 or more")
    if min(options.clients) < 1 or options.alpha < 0:
        parser.error("--clients: want 1 or more; --alpha: want 0 or more")
    return options


def main(argv=None):
    options = arguments(argv)
    data = (*fashion.load("train", options.images),
            *fashion.load("t10k", options.images))
    for clients in options.clients:
        compare(data, clients, options)


if __name__ == "__main__":
    main()
