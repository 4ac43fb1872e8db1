# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a transformer with LoRA, as a phone would in a federation.

A small transformer over the rows of images is trained on the first five
classes of Fashion-MNIST and saved as a safetensors file. Then it is loaded
elsewhere, all of it but the head is fixed, low-rank updates are added to its
attention, and those alone learn all ten classes. Shown: how much is learned,
how many weights that takes, and how many bytes an update has on its way to a
server.
"""
import argparse
import os
import pathlib
import tempfile

import numpy as np
import libfl as fl

import fashion_mnist

WIDTH = 64


def block(name, start):
    """x + attention(norm(x)), then x + mlp(norm(x)); `start` is x."""
    return [fl.LayerNorm(name=f"{name}.norm1"),
            fl.Attention(4, name=f"{name}.attention"),
            fl.Add(start, name=f"{name}.middle"),
            fl.LayerNorm(name=f"{name}.norm2"),
            fl.Dense(2 * WIDTH, name=f"{name}.mlp1"), fl.ReLU(),
            fl.Dense(WIDTH, name=f"{name}.mlp2"),
            fl.Add(f"{name}.middle", name=f"{name}.end")]


TRANSFORMER = [
    fl.Input((28, 28), scale=1 / 255 / 0.353, shift=-0.286 / 0.353),
    fl.Dense(WIDTH, name="embed"), fl.Positions(name="positions"),
    *block("block1", "positions"), *block("block2", "block1.end"),
    fl.LayerNorm(name="norm"), fl.Mean(), fl.Dense(10, name="head"),
    fl.SoftmaxCrossEntropy()]


def pretrain(path, train, test, epochs):
    """Train on classes 0 to 4, and write the weights."""
    x, y = train
    chosen = np.flatnonzero(y < 5)
    with fl.Model(TRANSFORMER, seed=1) as model:
        model.fit(x, y, indices=chosen, batch_size=64, epochs=epochs,
                  optimiser=fl.Adam(1e-3))
        known = test[1] < 5
        score = model.evaluate(test[0][known], test[1][known])
        print(f"base, 5 classes: accuracy {score.accuracy:.2%}")
        model.save_weights(path)


def update_sizes(model, before):
    """Bytes of what was learned: as float32, and by THC at 4 bits."""
    change = model.weights - before
    scale = fl.Scale(slots=1, noise_seed=os.urandom(32))
    with fl.Compressor(model.segments, "thc") as codec:
        scale.norms = codec.measure(change, scale)
        return change.nbytes, len(codec.encode(change, scale))


def fine_tune(name, model, train, test, epochs):
    """Train what is trained in the model on all classes, and report."""
    before = model.copy_weights()
    model.fit(*train, batch_size=64, epochs=epochs, optimiser=fl.Adam(2e-3))
    plain, small = update_sizes(model, before)
    plan = model.memory_plan(64)
    print(f"{name}: accuracy {model.evaluate(*test).accuracy:.2%}, "
          f"{model.weight_count} trained, update {plain} bytes, "
          f"{small} with THC, {plan.peak / 1e6:.1f} MB to train")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=fashion_mnist.FOLDER,
                        help="of the four IDX files (%(default)s)")
    parser.add_argument("--epochs", type=fashion_mnist.count, default=2)
    parser.add_argument("--samples", type=fashion_mnist.count, default=60000,
                        help="the first so many training images only")
    parser.add_argument("--rank", type=fashion_mnist.count, default=8,
                        help="of LoRA's updates (%(default)s)")
    parser.add_argument("--layers", default="attention",
                        help="dense layers with this in their name get one "
                             "(%(default)s)")
    parser.add_argument("--base", type=pathlib.Path, metavar="FILE",
                        help="where to write the base's weights")
    options = parser.parse_args()
    train = fashion_mnist.read(options.folder, "train", options.samples)
    test = fashion_mnist.read(options.folder, "t10k")
    with tempfile.TemporaryDirectory() as folder:
        path = options.base or pathlib.Path(folder) / "base.safetensors"
        pretrain(path, train, test, options.epochs)
        # A device that got the file, and the same list of layers.
        device = fl.Model(TRANSFORMER)
        device.load_weights(path)
    lora = device.with_lora(options.rank, layers=options.layers)
    fine_tune("lora, 10 classes", lora, train, test, options.epochs)
    merged = lora.merge_lora()
    same = (merged.predict(test[0], top=1).classes
            == lora.predict(test[0], top=1).classes).mean()
    print(f"merged: {merged.weight_count} weights, the same answer for "
          f"{same:.2%}")
    fine_tune("all, 10 classes", device, train, test, options.epochs)


if __name__ == "__main__":
    main()
