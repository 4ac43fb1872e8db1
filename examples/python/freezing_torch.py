# SPDX-License-Identifier: Apache-2.0
"""A PyTorch trainer that freezes layers when libfl says so.

The network of freezing.py as a torch.nn.Module, trained by torch: on five
classes of Fashion-MNIST first, then on all ten, without and with freezing.
libfl sees numbers only: at every step it says which modules to train, and
whether it wants to see a gradient; it may also keep what the frozen modules
compute. Shown: what that saves.
"""
import argparse
import copy
import hashlib
import time

import numpy as np
import torch
import libfl as fl

import fashion_mnist

BATCH, RATE = 64, 0.03


def block(inputs, filters, pools):
    layers = [torch.nn.Conv2d(inputs, filters, 3, padding=1),
              torch.nn.ReLU(),
              torch.nn.Conv2d(filters, filters, 3, padding=1),
              torch.nn.ReLU()]
    return torch.nn.Sequential(*layers,
                               *[torch.nn.MaxPool2d(2)] * pools)


class Vgg(torch.nn.Module):
    """Modules 0 to 3 are blocks, module 4 is the head."""

    def __init__(self):
        super().__init__()
        self.parts = torch.nn.ModuleList([
            block(1, 16, 1), block(16, 32, 1), block(32, 64, 0),
            block(64, 64, 0), torch.nn.Linear(64, 10)])

    def forward(self, x, first=0, last=5):
        """Modules first .. last - 1."""
        for number in range(first, last):
            if number == 4:
                x = x.mean((2, 3))
            x = self.parts[number](x)
        return x


class Prefix:
    """The frozen modules: nobody trains them, and what they compute for a
    sample is computed once."""

    def __init__(self, network, optimiser, samples, cache):
        self.network, self.optimiser = network, optimiser
        self.samples, self.cache = samples, cache
        self.first_active = 0

    def set(self, first_active, sample):
        if first_active == self.first_active:
            return
        self.first_active = first_active
        for number, part in enumerate(self.network.parts):
            for weight in part.parameters():
                weight.requires_grad_(number >= first_active)
                if number < first_active:
                    weight.grad = None
                    self.optimiser.state.pop(weight, None)  # the momentum
        if self.cache is not None and first_active > 0:
            self._begin(sample)

    def _begin(self, sample):
        """Rows are named by what they depend on."""
        tag = hashlib.sha256(b"freezing_torch 1 %d" % self.first_active)
        for part in self.network.parts[:self.first_active]:
            for weight in part.parameters():
                tag.update(weight.detach().numpy().tobytes())
        self.shape = self._compute(sample).shape[1:]
        try:
            self.cache.begin(tag.digest(), self.samples, self.shape.numel())
        except fl.FlError as error:
            self._give_up(error)

    def _give_up(self, error):
        """A cache saves time; without it training goes on."""
        print(f"no cache from now on: {error}")
        self.cache = None

    def _compute(self, x):
        with torch.no_grad():
            return self.network(x, 0, self.first_active)

    def __call__(self, x, ids):
        if self.first_active == 0:
            return x
        if self.cache is None:
            return self._compute(x)
        try:
            rows = self.cache.get(ids)
            if rows is not None:
                return torch.from_numpy(rows).view(-1, *self.shape)
            outputs = self._compute(x)
            self.cache.put(ids, outputs)
        except fl.FlError as error:
            self._give_up(error)
            outputs = self._compute(x)
        return outputs


def gradient_of(module):
    return torch.cat([weight.grad.flatten()
                      for weight in module.parameters()])


def rates(steps, per_epoch):
    """An epoch of warm-up, and a tenth from 70 % of the steps on."""
    for step in range(steps):
        yield (RATE * min(1, (step + 1) / per_epoch)
               * (1 if step < 0.7 * steps else 0.1))


def train(network, x, y, epochs, seed, freeze=None, cache=None):
    """The trainer, which is as it was but for the lines with `freeze` and
    `prefix`. Returns seconds of the CPU."""
    optimiser = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9,
                                weight_decay=5e-4)
    prefix = Prefix(network, optimiser, len(y), cache)
    generator = torch.Generator().manual_seed(seed)
    per_epoch = -(-len(y) // BATCH)
    schedule = rates(per_epoch * epochs, per_epoch)
    begin = time.process_time()
    for _ in range(epochs):
        for ids in torch.randperm(len(y), generator=generator).split(BATCH):
            rate = optimiser.param_groups[0]["lr"] = next(schedule)
            request = freeze.begin(rate) if freeze else None
            if request:
                prefix.set(request.first_active, x[:1])
            outputs = network(prefix(x[ids], ids), prefix.first_active)
            loss = torch.nn.functional.cross_entropy(outputs, y[ids])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if request and request.wants & fl.FreezeWants.GRADIENT:
                freeze.push_gradient(request.module, gradient_of(
                    network.parts[request.module]))
            optimiser.step()
            if request:
                freeze.end(loss.item())
                for event in freeze.events():
                    if event.kind != fl.FreezeEventKind.EVALUATED:
                        print(f"step {event.step}: {event.text}")
    return time.process_time() - begin


def accuracy(network, x, y):
    with torch.no_grad():
        hits = sum((network(images).argmax(1) == labels).sum().item()
                   for images, labels in zip(x.split(500), y.split(500)))
    return hits / len(y)


def read(options, part):
    images, labels = fashion_mnist.read(options.folder, part, options.images)
    pixels = (images[:, None] / np.float32(255) - 0.286) / 0.353
    return (torch.from_numpy(pixels.astype(np.float32)),
            torch.from_numpy(labels.astype(np.int64)))


def controller(options, samples):
    per_epoch = -(-samples // BATCH)
    fixed = None
    if options.fixed is not None:
        fixed = [(per_epoch * epoch, first + 1)
                 for first, epoch in enumerate(options.fixed)]
    return fl.Freeze(5, "fixed" if fixed else "gradnorm", fixed=fixed,
                     steps_per_epoch=per_epoch, is_pretrained=True,
                     total_steps=per_epoch * options.epochs)


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
                        help="use so many images of either part")
    parser.add_argument("--fixed", type=int, nargs="+", metavar="EPOCH",
                        help="freeze the next module in these epochs, "
                             "instead of when its gradient says so")
    parser.add_argument("--cache", choices=["f32", "f16", "i8"],
                        help="keep outputs of frozen modules as that")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main():
    options = parse()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    x, y = read(options, "train")
    test = read(options, "t10k")
    base = Vgg()
    known = y[options.samples:] < 5
    train(base, x[options.samples:][known], y[options.samples:][known],
          options.pretrain_epochs, options.seed)
    x, y = x[:options.samples], y[:options.samples]

    whole, less = copy.deepcopy(base), copy.deepcopy(base)
    seconds = train(whole, x, y, options.epochs, options.seed)
    print(f"without freezing: accuracy {accuracy(whole, *test):.2%}, "
          f"{seconds:.1f} s of the CPU")
    freeze = controller(options, len(y))
    cache = fl.ActivationCache(dtype=options.cache) if options.cache else None
    shorter = train(less, x, y, options.epochs, options.seed, freeze, cache)
    print(f"with freezing: accuracy {accuracy(less, *test):.2%}, "
          f"{shorter:.1f} s of the CPU, {freeze.plan.first_active} modules "
          f"frozen, {cache.status.hits if cache else 0} samples from the "
          f"cache")
    print(f"saved: {1 - shorter / seconds:.1%} of the CPU time")


if __name__ == "__main__":
    main()
