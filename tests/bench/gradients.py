# SPDX-License-Identifier: Apache-2.0
"""Write real updates for nmse_thc and rivals.py: a matrix of float32 (.npy),
one worker's update per row.

A model is trained on Fashion-MNIST for a while; then every worker takes
steps of its own from there, each on mini-batches that no other worker has.
  mlp  784-1024-256-10, 1.07 million weights, trained by libfl
  cnn  two convolutions and two dense layers, 1.2 million weights, trained by
       PyTorch (Debian: python3-torch)
libfl has to be importable for `mlp`: PYTHONPATH=bindings/python/src and
LIBFL_LIBRARY=build/lib/libfl.so.0.1, or an installed package.
"""
import argparse
import sys

import numpy as np

import fashion


def batches(rng, count, options):
    """Places of the samples for the warm-up and of every worker's steps."""
    order = rng.permutation(count)
    own = options.workers * options.steps * options.batch
    if own >= count:
        sys.exit(f"gradients.py: --workers x --steps x --batch: got {own}, "
                 f"want less than {count}")
    return order[own:], order[:own].reshape(options.workers, options.steps,
                                            options.batch)


def mlp_updates(x, y, options):
    """Yield one update per worker."""
    import libfl as fl
    rng = np.random.default_rng(options.seed)
    rest, own = batches(rng, len(x), options)
    layers = [fl.Input((28, 28), scale=1 / 255), fl.Flatten(),
              fl.Dense(1024), fl.ReLU(), fl.Dense(256), fl.ReLU(),
              fl.Dense(10), fl.SoftmaxCrossEntropy()]
    with fl.Model(layers, seed=options.seed) as model:
        for _ in range(options.warm_up):
            chosen = rng.choice(rest, options.batch, replace=False)
            model.step(x[chosen], y[chosen], options.rate)
        start = model.copy_weights()
        for steps in own:
            model.set_weights(start)
            for chosen in steps:
                model.step(x[chosen], y[chosen], options.rate)
            yield model.copy_weights() - start


def cnn_updates(x, y, options):
    """Yield one update per worker: what its steps add to the weights, from
    gradients, so that nothing is lost to the weights' own rounding."""
    try:
        import torch
    except ImportError:
        sys.exit("gradients.py: --model cnn: needs PyTorch, which is not "
                 "installed (Debian: python3-torch)")
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    rng = np.random.default_rng(options.seed)
    rest, own = batches(rng, len(x), options)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3), torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(9216, 128), torch.nn.ReLU(),
        torch.nn.Linear(128, 10))
    weights = list(net.parameters())

    def step(chosen):
        """One step of SGD; returns what it adds."""
        images = torch.from_numpy(x[chosen]).float().div(255).unsqueeze(1)
        loss = torch.nn.functional.cross_entropy(
            net(images), torch.from_numpy(y[chosen]).long())
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients):
                weight -= options.rate * gradient
        return -options.rate * torch.cat([g.reshape(-1) for g in gradients])

    for _ in range(options.warm_up):
        step(rng.choice(rest, options.batch, replace=False))
    start = [weight.detach().clone() for weight in weights]
    for steps in own:
        with torch.no_grad():
            for weight, value in zip(weights, start):
                weight.copy_(value)
        yield sum(step(chosen) for chosen in steps).numpy()


MODELS = {"mlp": mlp_updates, "cnn": cnn_updates}


def arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("output", help="the .npy file to write")
    parser.add_argument("--model", choices=MODELS, default="mlp")
    for name, value, text in (
            ("workers", 64, "rows"), ("steps", 1, "steps of each worker"),
            ("batch", 64, "samples per step"),
            ("warm-up", 100, "steps before"), ("seed", 1, "of everything")):
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N",
                            help=f"{text} ({value})")
    parser.add_argument("--rate", type=float, default=.05, metavar="X",
                        help="learning rate (0.05)")
    parser.add_argument("--images", default=fashion.FOLDER, metavar="FOLDER",
                        help="Fashion-MNIST")
    options = parser.parse_args(argv)
    if min(options.workers, options.steps, options.batch) < 1:
        parser.error("--workers, --steps and --batch: want 1 or more")
    return options


def main(argv=None):
    options = arguments(argv)
    x, y = fashion.load("train", options.images)
    rows = []
    for row in MODELS[options.model](x, y, options):
        rows.append(row)
        if sys.stderr.isatty():
            print(f"\rworker {len(rows)} of {options.workers}", end="",
                  file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    np.save(options.output, np.stack(rows).astype("<f4"))
    lengths = np.linalg.norm(np.stack(rows), axis=1)
    mean = np.linalg.norm(np.mean(rows, axis=0))
    print(f"weights {rows[0].size}")
    print(f"workers {len(rows)}")
    print(f"coherence {mean ** 2 / np.mean(lengths ** 2):.4f}")


if __name__ == "__main__":
    main()
