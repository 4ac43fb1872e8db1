# SPDX-License-Identifier: Apache-2.0
"""read_idx: what it reads and refuses, and that C reads the same."""
import ctypes
import gzip
import random

import numpy as np
import pytest

import libfl as fl
from libfl import _lib

GOOD = (b"\0\0\x08\x03" + b"\0\0\0\x02\0\0\0\x03\0\0\0\x01"
        + bytes(range(250, 256)))


def c_reads(data):
    """The values as C finds them, or None."""
    idx = _lib.init(_lib.Idx)
    try:
        _lib.lib.fl_idx_parse(ctypes.byref(idx), data, len(data))
    except fl.FlError:
        return None
    return np.ctypeslib.as_array(idx.values, [idx.count]).reshape(
        idx.dims[:idx.n_dims]).copy()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_pixels_come_in_their_shape(tmp_path, pack):
    (tmp_path / "x").write_bytes(pack(GOOD))
    x = fl.read_idx(tmp_path / "x")
    assert x.dtype == np.uint8 and x.shape == (2, 3, 1)
    assert x.ravel().tolist() == [250, 251, 252, 253, 254, 255]


def test_a_model_trains_on_what_is_read(tmp_path):
    (tmp_path / "x").write_bytes(GOOD)
    (tmp_path / "y").write_bytes(b"\0\0\x08\x01\0\0\0\x02\x01\0")
    with fl.Model([fl.Input((3, 1), scale=1 / 255), fl.Flatten(),
                   fl.Dense(2), fl.SoftmaxCrossEntropy()]) as model:
        loss = model.step(fl.read_idx(tmp_path / "x"),
                          fl.read_idx(tmp_path / "y"))
        assert loss == pytest.approx(np.log(2), abs=1e-6)


@pytest.mark.parametrize("data, text", [
    (b"", "no IDX"), (b"\0\0\x08", "no IDX"), (b"PK\x08\x01", "no IDX"),
    (b"\0\0\x08\0", "no IDX"), (b"\0\0\x0a\x01", "no IDX"),
    (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "got float32"),
    (b"\0\0\x08\x09" + 36 * b"\0", "got 9 dimensions"),
    (GOOD[:15], "got 15 bytes, want 16"), (GOOD[:-1], "got 21 bytes"),
    (GOOD + b"\0", "got 23 bytes"), (b"\0\0\x08\x01\0\0\0\0", "without a 0")])
def test_other_files_are_refused(tmp_path, data, text):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError, match=text):
        fl.read_idx(tmp_path / "x")
    assert c_reads(data) is None


def test_c_reads_the_same(tmp_path):
    draw = random.Random(7)
    path, read = tmp_path / "x", 0
    for _ in range(2000):
        data = bytearray(GOOD)
        for _ in range(draw.randrange(3)):
            data[draw.randrange(len(data))] = draw.randrange(10)
        path.write_bytes(data)
        want = c_reads(bytes(data))
        try:
            got = fl.read_idx(path)
        except ValueError:
            assert want is None, bytes(data)
            continue
        assert want is not None and want.shape == got.shape, bytes(data)
        assert np.array_equal(want, got)
        read += 1
    assert 500 < read < 1900
