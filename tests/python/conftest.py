# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Python package share."""
import gc
import gzip
import importlib
import pathlib
import struct

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
def torch():
    """PyTorch; without it the test is skipped."""
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture
def seeded_torch(torch):
    """PyTorch draws the same numbers in every run."""
    torch.manual_seed(5)


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


@pytest.fixture
def bench(root, monkeypatch):
    """Return a function that imports a module of tests/bench."""
    monkeypatch.syspath_prepend(str(root / "tests" / "bench"))
    return importlib.import_module


@pytest.fixture
def images(tmp_path):
    """A folder like Fashion-MNIST's: every class has a bright row."""
    rng = np.random.default_rng(3)
    for part, count in (("train", 2000), ("t10k", 200)):
        labels = rng.integers(0, 10, count).astype(np.uint8)
        pixels = rng.integers(0, 64, (count, 28, 28)).astype(np.uint8)
        pixels[np.arange(count), 2 * labels + 3] = 220
        for kind, magic, sizes, values in (
                ("images-idx3", 0x803, (count, 28, 28), pixels),
                ("labels-idx1", 0x801, (count,), labels)):
            path = tmp_path / f"{part}-{kind}-ubyte.gz"
            header = struct.pack(f">{1 + len(sizes)}I", magic, *sizes)
            path.write_bytes(gzip.compress(header + values.tobytes(), 1))
    return tmp_path
