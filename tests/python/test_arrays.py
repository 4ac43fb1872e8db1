# SPDX-License-Identifier: Apache-2.0
"""Arrays at the boundary: no copies where none are needed, and clear
complaints where an array cannot be meant."""
import numpy as np
import pytest

import libfl as fl
from libfl import _np


def test_float32_goes_in_without_a_copy():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert _np.f32(x, "x") is x
    assert _np.f32_pointer(x)[5] == 5.0
    assert np.shares_memory(_np.f32(x[1:], "x"), x)


@pytest.mark.parametrize("make", [
    lambda x: x.astype(np.float64), lambda x: x.astype(np.int16),
    lambda x: x[::-1], lambda x: x.reshape(3, 4).T, lambda x: list(x)])
def test_other_layouts_are_converted_once(make):
    x = make(np.arange(12, dtype=np.float32))
    array = _np.f32(x, "x")
    assert array.dtype == np.float32 and array.flags.c_contiguous
    assert (array == np.asarray(x, np.float32)).all()


@pytest.mark.parametrize("wrong", [
    np.ones(4, complex), np.array(["a"] * 4), np.array([None] * 4),
    np.ones(4, bool)])
def test_other_dtypes_are_refused_by_name(wrong):
    with fl.Compressor(4, "f32") as compressor:
        with pytest.raises(TypeError, match="^x: got dtype"):
            compressor.measure(wrong)


def test_wrong_counts_are_refused_by_name():
    with fl.Compressor([4, 3], "f32") as compressor:
        with pytest.raises(ValueError, match="x: got 6 values .6., want 7"):
            compressor.measure(np.ones(6))


def test_output_arrays_are_written_in_place(mlp):
    with mlp() as model:
        out = np.empty(model.weight_count, np.float32)
        assert model.copy_weights(out) is out
        assert (out == model.weights).all()


@pytest.mark.parametrize("out, kind", [
    (np.empty(131), TypeError), (np.empty(130, np.float32), ValueError),
    (np.empty(262, np.float32)[::2], ValueError), ([0.0] * 131, TypeError)])
def test_output_arrays_must_fit(mlp, out, kind):
    with mlp() as model:
        assert model.weight_count == 131
        with pytest.raises(kind, match="^out: "):
            model.copy_weights(out)


def test_read_only_output_is_refused(mlp):
    out = np.empty(131, np.float32)
    out.flags.writeable = False
    with mlp() as model, pytest.raises(ValueError, match="writable"):
        model.copy_weights(out)


def test_weights_are_a_view_in_both_directions(mlp):
    with mlp() as model:
        view = model.weights
        assert view.ctypes.data == model.weights.ctypes.data
        view[:] = 0.5
        assert (model["dense1.weight"] == 0.5).all()
        model["dense1.bias"] = np.full(16, 2.0)
        assert (view[64:80] == 2.0).all()


@pytest.mark.parametrize("wrap", [
    bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_bytes_of_any_kind_are_taken(wrap):
    with fl.Compressor(3, "f32") as compressor:
        x = np.array([1, 2, 3], np.float32)
        scale = fl.Scale(norms=compressor.measure(x))
        data = wrap(compressor.encode(x, scale))
        assert (compressor.decode(data, scale) == x).all()


def test_text_is_no_bytes():
    with fl.Compressor(3, "f32") as compressor:
        with pytest.raises(TypeError, match="data: got str"):
            compressor.decode("text", fl.Scale(norms=[1]))


def test_empty_bytes_are_a_format_error():
    with fl.Compressor(3, "f32") as compressor:
        with pytest.raises(fl.PeerDataError):
            compressor.decode(b"", fl.Scale(norms=[1]))


def test_labels_must_be_integers_of_the_right_shape(mlp, blobs):
    x, y = blobs(8)
    with mlp() as model:
        with pytest.raises(TypeError, match="^y: got dtype float64"):
            model.step(x, y.astype(float))
        with pytest.raises(ValueError, match=r"^y: got shape \[7\]"):
            model.step(x, y[:7])
        with pytest.raises(ValueError, match="does not fit int32"):
            model.step(x, y.astype(np.int64) + 2**40)


@pytest.mark.parametrize("shape", [(8, 3), (8, 5), (32,), ()])
def test_samples_of_another_size_are_refused(mlp, shape):
    with mlp() as model:
        with pytest.raises(ValueError, match="want samples of 4 values"):
            model.predict(np.zeros(shape))
