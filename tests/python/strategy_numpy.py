# SPDX-License-Identifier: Apache-2.0
"""Strategies in numpy, in double, straight from the papers' formulas: what
libfl's are compared with."""
from __future__ import annotations

import numpy as np


def shares(samples):
    return np.asarray(samples, np.float64) / np.sum(samples)


def mean(updates, samples):
    return shares(samples) @ np.asarray(updates, np.float64)


class Server:
    """m, v and the step of the adaptive optimisers."""

    def __init__(self, n, kind, rate, beta1=.9, beta2=.99, tau=1e-3, v0=0.,
                 momentum=0., corrected=False):
        self.m = np.zeros(n)
        self.v = np.full(n, v0)
        self.kind, self.rate, self.tau = kind, rate, tau
        self.beta1, self.beta2, self.momentum = beta1, beta2, momentum
        self.corrected, self.t = corrected, 0

    def step(self, d):
        self.t += 1
        if self.kind == "sgd":
            self.m = self.momentum * self.m + d
            return self.rate * self.m
        self.m = self.beta1 * self.m + (1 - self.beta1) * d
        square = d * d
        if self.kind == "adagrad":
            self.v = self.v + square
        elif self.kind == "adam":
            self.v = self.beta2 * self.v + (1 - self.beta2) * square
        else:
            self.v = self.v - (1 - self.beta2) * square * np.sign(
                self.v - square)
        m, v = self.m, self.v
        if self.corrected:
            m = m / (1 - self.beta1 ** self.t)
            v = v / (1 - self.beta2 ** self.t)
        return self.rate * m / (np.sqrt(v) + self.tau)


def nova(updates, samples, steps, momentum=0., rate=0., mu=0.):
    tau = np.asarray(steps, np.float64)
    if momentum:
        a = (tau - momentum * (1 - momentum ** tau) / (1 - momentum)) / (
            1 - momentum)
    elif mu:
        a = (1 - (1 - rate * mu) ** tau) / (rate * mu)
    else:
        a = tau
    p = shares(samples)
    return (p @ a) * ((p / a) @ np.asarray(updates, np.float64))


def fair(updates, losses, q, rate):
    """-num / h of q-FedAvg."""
    lipschitz = 1 / rate
    losses = np.asarray(losses, np.float64)
    g = -lipschitz * np.asarray(updates, np.float64)
    h = (q * losses ** (q - 1) * (g * g).sum(1) + lipschitz * losses ** q)
    return -(losses ** q @ g) / h.sum()


def trimmed(updates, trim):
    ordered = np.sort(np.asarray(updates, np.float64), axis=0)
    cut = int(np.floor(trim * len(ordered) + 1e-9))
    return ordered[cut:len(ordered) - cut].mean(0)


def krum_scores(updates, f):
    x = np.asarray(updates, np.float64)
    n = len(x)
    distances = ((x[:, None] - x[None]) ** 2).sum(-1)
    # The first is the distance to itself.
    return np.sort(distances, axis=1)[:, 1:n - f - 1].sum(1)


def krum(updates, f):
    return np.asarray(updates[int(np.argmin(krum_scores(updates, f)))])


def multi_krum(updates, f):
    best = np.argsort(krum_scores(updates, f), kind="stable")
    return np.asarray(updates, np.float64)[best[:len(updates) - f]].mean(0)


def geometric_median(updates, samples, passes=4, nu=1e-6):
    x = np.asarray(updates, np.float64)
    p = shares(samples)
    weights = p
    for _ in range(passes):
        z = weights @ x
        weights = p / np.maximum(nu, np.linalg.norm(x - z, axis=1))
        weights = weights / weights.sum()
    return weights @ x


def clipped(updates, bound):
    x = np.asarray(updates, np.float64)
    return x * np.minimum(1, bound / np.linalg.norm(x, axis=1))[:, None]
