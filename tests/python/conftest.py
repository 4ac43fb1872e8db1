# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Python package share."""
import gc
import pathlib

import numpy as np
import pytest

import libfl as fl

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def root():
    """The repository."""
    return ROOT


@pytest.fixture
def context():
    """A context of which nothing may be left at the end of the test."""
    with fl.Context() as made:
        yield made
        gc.collect()
        assert made.memory == 0, "a handle of the test was not freed"


@pytest.fixture
def rng():
    return np.random.default_rng(20240917)


@pytest.fixture
def mlp():
    """Return a function that makes a small network."""
    def make(seed=1, context=None):
        return fl.Model([fl.Input((4,)), fl.Dense(16), fl.ReLU(),
                         fl.Dense(3), fl.SoftmaxCrossEntropy()],
                        seed=seed, context=context)
    return make


@pytest.fixture
def blobs():
    """Return a function that draws n samples of three separable classes."""
    def draw(n, seed=0):
        rng = np.random.default_rng(seed)
        centres = np.array([[2, 0, 0, 1], [0, 2, 1, 0], [-2, -2, 0, 0]])
        y = rng.integers(0, 3, n).astype(np.int32)
        x = centres[y] + 0.4 * rng.standard_normal((n, 4))
        return x.astype(np.float32), y
    return draw
