# SPDX-License-Identifier: Apache-2.0
"""The four app-sized models of tests/models.h as PyTorch modules, with the
recipe each is trained by. Names of tensors are those that libfl gives."""
import dataclasses
import math
from typing import Any, Callable

import torch
import torch.nn as nn
import torch.nn.functional as F

import libfl as fl


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(784, 128), nn.Linear(128, 10)

    def forward(self, x):
        return self.b(F.relu(self.a(x.flatten(1))))


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(1, 6, 5, padding=2)
        self.c2 = nn.Conv2d(6, 16, 5)
        self.f1, self.f2 = nn.Linear(400, 120), nn.Linear(120, 84)
        self.f3 = nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.c1(x)), 2)
        x = F.max_pool2d(F.relu(self.c2(x)), 2).flatten(1)
        return self.f3(F.relu(self.f2(F.relu(self.f1(x)))))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width=64, heads=4, hidden=128):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.att = nn.MultiheadAttention(width, heads, batch_first=True)
        self.u, self.v = nn.Linear(width, hidden), nn.Linear(hidden, width)
        # PyTorch's module is slower than the same written out, which the
        # comparisons therefore run.
        self.is_written_out = True

    def attention(self, x):
        n, tokens, width = x.shape
        heads = self.att.num_heads
        q, k, v = F.linear(x, self.att.in_proj_weight,
                           self.att.in_proj_bias).view(
            n, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2) / math.sqrt(width // heads)
        mixed = torch.softmax(scores, -1) @ v
        return self.att.out_proj(
            mixed.transpose(1, 2).reshape(n, tokens, width))

    def forward(self, x):
        y = self.n1(x)
        if self.is_written_out:
            x = x + self.attention(y)
        else:
            x = x + self.att(y, y, y, need_weights=False)[0]
        return x + self.v(F.relu(self.u(self.n2(x))))


class Transformer(nn.Module):
    """The 28 rows of an image as tokens."""

    def __init__(self, width=64):
        super().__init__()
        self.e = nn.Linear(28, width)
        self.p = nn.Parameter(.02 * torch.randn(28, width))
        self.b0, self.b1 = Block(width), Block(width)
        self.n, self.fc = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x):
        x = self.b1(self.b0(self.e(x.flatten(1, 2)) + self.p))
        return self.fc(self.n(x).mean(1))

    def write_out(self, is_so):
        self.b0.is_written_out = self.b1.is_written_out = is_so


class Vgg8(nn.Module):
    FILTERS = (16, 16, 32, 32, 64, 64, 64, 64)

    def __init__(self):
        super().__init__()
        channels = 1
        for i, filters in enumerate(self.FILTERS):
            conv = nn.Conv2d(channels, filters, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)
            self.add_module(f"c{i}", conv)
            channels = filters
        self.fc = nn.Linear(channels, 10)

    def forward(self, x):
        for i in range(8):
            x = F.relu(getattr(self, f"c{i}")(x))
            if i in (1, 3):
                x = F.max_pool2d(x, 2)
        return self.fc(x.mean((2, 3)))


@dataclasses.dataclass(frozen=True)
class Recipe:
    """`torch_optimiser`: makes PyTorch's of parameters; `optimiser`: the same
    for libfl."""

    make: Callable[[], Any]
    batch: int
    epochs: int
    torch_optimiser: Callable[[Any], Any]
    optimiser: Any

    def slowed(self, factor):
        """The same with another learning rate: times `factor`."""
        rate = factor * self.optimiser.learning_rate

        def make(weights):
            made = self.torch_optimiser(weights)
            for group in made.param_groups:
                group["lr"] = rate
            return made
        return dataclasses.replace(
            self, torch_optimiser=make, optimiser=dataclasses.replace(
                self.optimiser, learning_rate=rate))


def _sgd(rate, momentum=0.0, decay=0.0):
    return (lambda weights: torch.optim.SGD(
        weights, lr=rate, momentum=momentum, weight_decay=decay),
            fl.SGD(rate, momentum=momentum, weight_decay=decay))


def _adam(rate):
    return lambda weights: torch.optim.Adam(weights, lr=rate), fl.Adam(rate)


RECIPES = {
    "mlp": Recipe(Mlp, 32, 5, *_sgd(.05)),
    "lenet": Recipe(LeNet, 32, 5, *_sgd(.02, .9)),
    "transformer": Recipe(Transformer, 64, 4, *_adam(1e-3)),
    "vgg8": Recipe(Vgg8, 64, 1, *_sgd(.05, .9, 5e-4)),
}


def pair(name, seed):
    """A module and the model that computes the same, with equal weights."""
    torch.manual_seed(seed)
    module = RECIPES[name].make()
    can_write_out = hasattr(module, "write_out")
    if can_write_out:
        module.write_out(False)
    model = fl.from_torch(module, torch.randn(2, 1, 28, 28))
    if can_write_out:
        module.write_out(True)
    model.optimiser = RECIPES[name].optimiser
    return module, model


def torch_step(module, optimiser, x, y):
    """A step as it is written everywhere; returns the loss."""
    optimiser.zero_grad()
    loss = F.cross_entropy(module(x), y)
    loss.backward()
    optimiser.step()
    return loss


MEAN, DEVIATION = .2860, .3530


def normalised(images):
    """uint8 [n, 28, 28] as float32 [n, 1, 28, 28]."""
    x = torch.from_numpy(images.astype("float32")).unsqueeze(1)
    return x.div_(255).sub_(MEAN).div_(DEVIATION)
