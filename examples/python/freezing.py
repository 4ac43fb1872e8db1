# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a network whose first layers stop learning.

A VGG is trained on the first five classes of Fashion-MNIST, with the images
behind the first 12,000, and then on all ten classes of those: once as a
whole, and once under a controller that freezes modules, with a cache for what
comes out of them. Both begin with the same weights and see the same batches.
Shown: what the second one saves.
"""
import argparse
import dataclasses
import json
import math
import pathlib
import time

import numpy as np
import libfl as fl

import fashion_mnist

BATCH = 64
VGG = [
    fl.Input((1, 28, 28), scale=1 / 255 / 0.353, shift=-0.286 / 0.353),
    fl.Conv2d(16, 3, padding=1, module=0), fl.ReLU(),
    fl.Conv2d(16, 3, padding=1, module=0), fl.ReLU(), fl.MaxPool2d(),
    fl.Conv2d(32, 3, padding=1, module=1), fl.ReLU(),
    fl.Conv2d(32, 3, padding=1, module=1), fl.ReLU(), fl.MaxPool2d(),
    fl.Conv2d(64, 3, padding=1, module=2), fl.ReLU(),
    fl.Conv2d(64, 3, padding=1, module=2), fl.ReLU(),
    fl.Conv2d(64, 3, padding=1, module=3), fl.ReLU(),
    fl.Conv2d(64, 3, padding=1, module=3), fl.ReLU(),
    fl.Mean(), fl.Dense(10, module=4), fl.SoftmaxCrossEntropy()]


@dataclasses.dataclass
class Outcome:
    seconds: float
    accuracy: float
    memory: int  # at most
    step: int  # memory of a step, with what is frozen at the end
    update: int  # bytes, with THC
    cache: int = 0  # bytes, which are not in `memory`
    frozen: int = 0


def steps_per_epoch(samples):
    return -(-samples // BATCH)


def optimiser(samples, epochs):
    """An epoch of warm-up, and a tenth of the rate from 70 % of the steps."""
    per_epoch = steps_per_epoch(samples)
    schedule = fl.Step(-(-7 * per_epoch * epochs // 10), warmup=per_epoch)
    return fl.SGD(0.03, momentum=0.9, weight_decay=5e-4, schedule=schedule)


def update_size(model):
    """Bytes of an update: frozen modules stay at home."""
    sizes = {}
    for tensor in model.tensors():
        if tensor.module >= model.first_active:
            sizes[tensor.module] = sizes.get(tensor.module, 0) + tensor.count
    with fl.Compressor(list(sizes.values()), "thc") as codec:
        return codec.max_update_size


def pretrain(train, test, options):
    """Return weights of a model that knows five classes."""
    if options.base:
        with fl.Model(VGG) as model:
            model.load_weights(options.base)
            return model.copy_weights()
    x, y = train
    chosen = np.flatnonzero(y < 5)
    chosen = chosen[chosen >= options.samples]
    with fl.Model(VGG, seed=options.seed) as model:
        model.fit(x, y, indices=chosen, batch_size=BATCH, seed=options.seed,
                  epochs=options.pretrain_epochs,
                  optimiser=optimiser(len(chosen), options.pretrain_epochs))
        known = test[1] < 5
        score = model.evaluate(test[0][known], test[1][known])
        print(f"base, 5 classes: accuracy {score.accuracy:.2%}")
        if options.save_base:
            model.save_weights(options.save_base)
        return model.copy_weights()


def tell(freeze, record):
    """Say what the controller did, and record it as `freezing` does."""
    for event in freeze.events():
        if event.kind != fl.FreezeEventKind.EVALUATED:
            print(f"step {event.step}: {event.text}")
        fields = dataclasses.asdict(event)
        del fields["text"]
        record.append({key: None if value != value else
                       value.name.lower() if key in ("kind", "reason")
                       else value for key, value in fields.items()})


def controller(model, cache, options):
    per_epoch = steps_per_epoch(options.samples)
    fixed = [(math.floor(epoch * per_epoch + 0.5), first)
             for epoch, first in options.schedule]
    criterion = ("relative_plasticity" if options.criterion == "relative"
                 else options.criterion)
    return fl.Freeze(
        model, criterion, preset=options.preset,
        steps_per_epoch=per_epoch, total_steps=per_epoch * options.epochs,
        is_pretrained=True, cache=cache,
        lag=1 if criterion.endswith("plasticity") else None,
        fixed=fixed if options.criterion == "fixed" else None)


def fine_tune(weights, train, test, options, record=None):
    """Train on all classes; with a list `record`, under a controller."""
    x, y = (array[:options.samples] for array in train)
    with fl.Context() as context, fl.Model(VGG, context=context) as model:
        model.weights = weights
        freeze = cache = None
        if record is not None:
            if options.cache != "none":
                cache = fl.ActivationCache(
                    dtype=options.cache_type,
                    path=None if options.cache == "memory" else options.cache)
            freeze = controller(model, cache, options)
        begin = time.process_time()
        model.fit(x, y, batch_size=BATCH, epochs=options.epochs,
                  seed=options.seed,
                  progress=lambda _: freeze and tell(freeze, record),
                  optimiser=optimiser(len(y), options.epochs))
        outcome = Outcome(time.process_time() - begin, 0.0,
                          context.memory_peak, model.memory_plan(BATCH).peak,
                          update_size(model))
        if freeze is not None:
            tell(freeze, record)
            outcome.frozen = model.first_active
            outcome.cache = cache.status.bytes if cache else 0
        outcome.accuracy = model.evaluate(*test).accuracy
        return outcome


def stages(text):
    return [(float(epoch), int(first)) for epoch, first in
            (part.split(":") for part in text.split(","))]


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=fashion_mnist.FOLDER,
                        help="of the four IDX files (%(default)s)")
    parser.add_argument("--epochs", type=fashion_mnist.count, default=10)
    parser.add_argument("--pretrain-epochs", type=fashion_mnist.count,
                        default=8)
    parser.add_argument("--samples", type=fashion_mnist.count, default=12000,
                        help="the first so many images are fine-tuned on")
    parser.add_argument("--images", type=fashion_mnist.count, default=60000,
                        help="use so many training images in all")
    parser.add_argument("--criterion", default="gradnorm",
                        choices=["gradnorm", "plasticity", "relative",
                                 "fixed"])
    parser.add_argument("--preset", default="balanced",
                        choices=["careful", "balanced", "fast"])
    parser.add_argument("--schedule", type=stages, default="0:1,4:2",
                        metavar="EPOCH:F,...",
                        help="of fixed: from EPOCH on the first F modules "
                             "are frozen (%(default)s)")
    parser.add_argument("--cache", default="memory",
                        metavar="none|memory|FILE",
                        help="where outputs of frozen modules are kept "
                             "(%(default)s)")
    parser.add_argument("--cache-type", default="f32",
                        choices=["f32", "f16", "i8"],
                        help="and as what (%(default)s)")
    parser.add_argument("--base", type=pathlib.Path, metavar="FILE",
                        help="weights of the base (safetensors), instead of "
                             "training them")
    parser.add_argument("--save-base", type=pathlib.Path, metavar="FILE",
                        help="write them to FILE")
    parser.add_argument("--record", type=pathlib.Path, metavar="FILE",
                        help="write events, for plot_freezing.py")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main():
    options = parse()
    train = fashion_mnist.read(options.folder, "train", options.images)
    test = fashion_mnist.read(options.folder, "t10k")
    weights = pretrain(train, test, options)
    record = []
    whole = fine_tune(weights, train, test, options)
    less = fine_tune(weights, train, test, options, record)
    for name, outcome in (("without", whole), ("with", less)):
        print(f"{name} freezing: accuracy {outcome.accuracy:.2%}, "
              f"{outcome.seconds:.1f} s of the CPU, "
              f"{outcome.memory / 1e6:.1f} MB at most, "
              f"{outcome.step / 1e6:.1f} MB at the end, update {outcome.update} bytes, "
              f"cache {outcome.cache} bytes, {outcome.frozen} modules frozen")
    print(f"saved: {1 - less.seconds / whole.seconds:.1%} of the CPU time")
    if options.record:
        options.record.write_text("".join(json.dumps(event) + "\n"
                                          for event in record))


if __name__ == "__main__":
    main()
