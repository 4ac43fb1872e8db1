# SPDX-License-Identifier: Apache-2.0
"""Does libfl train like PyTorch? The four models of torch_models.py on
Fashion-MNIST: each engine starts from the same weights and gets the same
batches in the same order. Training with momentum at a recipe's rate magnifies
what rounding does: after some dozens of steps PyTorch in float32 and PyTorch in
float64 part, too. --rate .1 shows the engines without that.
Prints `key value` lines, then a table; for MODEL and seed S:
  curve_MODEL_sS          largest |a - b| / b of the losses a of libfl and b
                          of PyTorch (float32) in the first --steps steps
  curve64_MODEL_sS        the same, b of PyTorch in float64
  curve_torch_MODEL_sS    the same, a of PyTorch in float32, b in float64:
                          what rounding alone does
  agree_MODEL_sS, agree64_MODEL_sS, agree_torch_MODEL_sS
                          steps before the first one that is more than 1e-3
                          apart
  accuracy_libfl_MODEL_sS, accuracy_torch_MODEL_sS
                          of the test set after the recipe's epochs, %
  difference_MODEL        libfl - PyTorch, mean over the seeds, points
  seconds_libfl_MODEL, seconds_torch_MODEL
                          processor time of an epoch's steps, mean
One thread. libfl has to be importable: PYTHONPATH=bindings/python/src and
LIBFL_LIBRARY=build/lib/libfl.so.0.1, or an installed package.
"""
import argparse
import copy
import sys
import time

import numpy as np
import torch

import fashion
from torch_models import RECIPES, normalised, pair, torch_step

LIMIT = 1e-3  # losses that are further apart do not agree
FORMS = {"curve": ".2e", "agree": "d", "accuracy": ".2f"}


class Data:
    """Normalised images and labels, as both engines want them."""

    def __init__(self, part, folder, limit=None):
        images, labels = fashion.load(part, folder)
        self.x = normalised(images[:limit]).numpy()
        self.y = labels[:limit]

    def batches(self, rng, size):
        """An epoch's batches in a new order."""
        order = rng.permutation(len(self.x))
        for first in range(0, len(order), size):
            chosen = order[first:first + size]
            yield self.x[chosen], self.y[chosen]


class Torch:
    def __init__(self, module, recipe, dtype=torch.float32):
        self._module = copy.deepcopy(module).to(dtype)
        self._optimiser = recipe.torch_optimiser(self._module.parameters())
        self._dtype = dtype

    def step(self, x, y):
        x, y = torch.from_numpy(x).to(self._dtype), torch.from_numpy(y).long()
        return torch_step(self._module, self._optimiser, x, y).item()

    def accuracy(self, data):
        self._module.eval()
        with torch.no_grad():
            hits = sum(
                int((self._module(x).argmax(1) == y).sum()) for x, y in zip(
                    torch.from_numpy(data.x).split(500),
                    torch.from_numpy(data.y).split(500)))
        self._module.train()
        return 100 * hits / len(data.x)


class Libfl:
    def __init__(self, model):
        self._model = model

    def step(self, x, y):
        return self._model.step(x, y)

    def accuracy(self, data):
        return 100 * self._model.evaluate(data.x, data.y).accuracy


def train(engine, data, recipe, epochs, seed):
    """(losses of all steps, seconds per epoch); epochs may be a fraction."""
    rng = np.random.default_rng((seed, 5))
    losses, taken = [], 0.0
    steps = round(epochs * -(-len(data.x) // recipe.batch))
    while len(losses) < steps:
        for x, y in data.batches(rng, recipe.batch):
            start = time.process_time()
            losses.append(engine.step(x, y))
            taken += time.process_time() - start
            if len(losses) == steps:
                break
        if sys.stderr.isatty():
            print(f"\r\033[K{type(engine).__name__}: {len(losses)} of {steps}"
                  " steps", end="", file=sys.stderr, flush=True)
    return np.array(losses), taken / epochs


def curves(losses, steps):
    """How far losses are apart, and for how long they are not."""
    figures = {}
    for key, a, b in (("", "libfl", "torch"), ("64", "libfl", "f64"),
                      ("_torch", "torch", "f64")):
        exact = losses[b][:steps]
        apart = np.abs(losses[a][:steps] - exact) / np.abs(exact)
        wrong = np.flatnonzero(apart > LIMIT)
        figures[f"curve{key}"] = float(apart.max())
        figures[f"agree{key}"] = int(wrong[0]) if wrong.size else steps
    return figures


def compare(name, seed, data, test, options):
    """Print a seed's figures; returns them."""
    recipe = RECIPES[name].slowed(options.rate)
    module, model = pair(name, seed)
    model.optimiser = recipe.optimiser
    ours, theirs = Libfl(model), Torch(module, recipe)
    exact = Torch(module, recipe, torch.float64)
    per_epoch = -(-len(data.x) // recipe.batch)
    epochs = recipe.epochs if options.epochs is None else options.epochs
    epochs = max(epochs, options.steps / per_epoch)
    steps = options.steps
    losses = {"f64": train(exact, data, recipe, steps / per_epoch, seed)[0]}
    losses["libfl"], ours_taken = train(ours, data, recipe, epochs, seed)
    losses["torch"], theirs_taken = train(theirs, data, recipe, epochs, seed)
    figures = {
        **curves(losses, steps),
        "accuracy_libfl": ours.accuracy(test),
        "accuracy_torch": theirs.accuracy(test)}
    for key, value in figures.items():
        form = FORMS[key.split("_")[0].rstrip("64")]
        print(f"{key}_{name}_s{seed} {value:{form}}", flush=True)
    return {**figures, "seconds_libfl": ours_taken,
            "seconds_torch": theirs_taken}


def numbers(text):
    return [int(part) for part in text.split(",")]


def names(text):
    found = text.split(",")
    for name in found:
        if name not in RECIPES:
            raise argparse.ArgumentTypeError(
                f"got {name}, want some of {', '.join(RECIPES)}")
    return found


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=names, default=list(RECIPES),
                        metavar="LIST", help=", ".join(RECIPES))
    parser.add_argument("--seeds", type=numbers, default=[1, 2, 3],
                        metavar="LIST", help="(1,2,3)")
    parser.add_argument("--steps", type=int, default=200, metavar="N",
                        help="whose losses are compared (200)")
    parser.add_argument("--epochs", type=int, metavar="N",
                        help="instead of each recipe's; 0: --steps alone")
    parser.add_argument("--rate", type=float, default=1, metavar="X",
                        help="times each recipe's learning rate (1)")
    parser.add_argument("--samples", type=int, metavar="N",
                        help="first ones of the training set; all")
    parser.add_argument("--images", default=fashion.FOLDER, metavar="FOLDER",
                        help="Fashion-MNIST")
    options = parser.parse_args(argv)
    if options.steps < 1 or options.epochs is not None and options.epochs < 0:
        parser.error("--steps: want 1 or more; --epochs: 0 or more")
    if options.rate <= 0:
        parser.error("--rate: want more than 0")
    if options.samples is not None and options.samples < 1:
        parser.error("--samples: want 1 or more")
    return options


def main(argv=None):
    options = arguments(argv)
    torch.set_num_threads(1)
    data = Data("train", options.images, options.samples)
    test = Data("t10k", options.images)
    table = []
    for name in options.models:
        rows = [compare(name, seed, data, test, options)
                for seed in options.seeds]
        mean = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
        most = {key: max(row[key] for row in rows) for key in rows[0]}
        difference = mean["accuracy_libfl"] - mean["accuracy_torch"]
        print(f"difference_{name} {difference:+.3f}")
        for key in ("seconds_libfl", "seconds_torch"):
            print(f"{key}_{name} {mean[key]:.2f}", flush=True)
        table.append(
            f"{name:12} {most['curve']:9.1e} {most['curve64']:9.1e} "
            f"{most['curve_torch']:9.1e} {mean['accuracy_libfl']:9.2f} "
            f"{mean['accuracy_torch']:9.2f} {difference:+9.2f}")
    heads = "curve", "curve64", "c. torch", "libfl %", "torch %", "points"
    print(" " * 12, *(f"{head:>9}" for head in heads))
    print("\n".join(table))


if __name__ == "__main__":
    main()
