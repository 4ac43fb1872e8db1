# SPDX-License-Identifier: Apache-2.0
"""Train LeNet on Fashion-MNIST, and say how well it does on the test images.

5 epochs take about 12 seconds of one core and end at 90 %.
"""
import argparse

import libfl as fl

import fashion_mnist

LENET = [
    fl.Input((1, 28, 28), scale=1 / 255 / 0.353, shift=-0.286 / 0.353),
    fl.Conv2d(6, 5, padding=2), fl.ReLU(), fl.MaxPool2d(),
    fl.Conv2d(16, 5), fl.ReLU(), fl.MaxPool2d(), fl.Flatten(),
    fl.Dense(120), fl.ReLU(), fl.Dense(84), fl.ReLU(), fl.Dense(10),
    fl.SoftmaxCrossEntropy()]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=fashion_mnist.FOLDER,
                        help="of the four IDX files (%(default)s)")
    parser.add_argument("--epochs", type=fashion_mnist.count, default=5)
    parser.add_argument("--samples", type=fashion_mnist.count, default=60000,
                        help="the first so many training images only")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    x, y = fashion_mnist.read(options.folder, "train", options.samples)
    x_test, y_test = fashion_mnist.read(options.folder, "t10k")

    model = fl.Model(LENET, seed=options.seed)
    print(model)
    steps = -(-len(y) // 32) * options.epochs
    result = model.fit(x, y, epochs=options.epochs, seed=options.seed,
                       optimiser=fl.SGD(0.02, momentum=0.9,
                                        schedule=fl.Cosine(steps)))
    score = model.evaluate(x_test, y_test)
    print(f"{result.steps} steps, {model.memory_plan(32).peak / 1e6:.1f} MB, "
          f"loss {result.mean_loss:.3f}")
    for name, hits, count in zip(fashion_mnist.NAMES, score.class_correct,
                                 score.class_count):
        print(f"  {name:10}  {hits / max(count, 1):6.1%}")
    print(f"accuracy {score.accuracy:.2%}")


if __name__ == "__main__":
    main()
