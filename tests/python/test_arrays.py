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


def unaligned(x):
    """Return a copy of an array that begins at an odd address."""
    memory = np.empty(x.nbytes + 1, np.uint8)
    odd = memory[1:].view(x.dtype).reshape(x.shape)
    odd[...] = x
    assert not odd.flags.aligned
    return odd


def test_unaligned_arrays_are_copied(mlp, blobs):
    x, y = blobs(8)
    assert _np.f32(unaligned(x), "x").flags.aligned
    with mlp() as model, fl.Compressor(32, "f32") as compressor:
        assert (model.predict(unaligned(x)) == model.predict(x)).all()
        assert model.step(x, unaligned(y), 0.0) == model.step(x, y, 0.0)
        assert (compressor.measure(unaligned(x))
                == compressor.measure(x)).all()
        with pytest.raises(ValueError, match="^out: .* aligned"):
            model.copy_weights(unaligned(np.empty(131, np.float32)))


@pytest.mark.parametrize("make", [
    lambda x: x.astype(">f4"), lambda x: x.astype(np.float64),
    lambda x: np.asfortranarray(x), lambda x: x.astype(np.longdouble),
    lambda x: np.lib.stride_tricks.as_strided(x, x.shape, x.strides,
                                              writeable=False)])
def test_samples_of_any_layout_mean_the_same(mlp, blobs, make):
    x, _ = blobs(8)
    with mlp() as model:
        assert (model.predict(make(x)) == model.predict(x)).all()


def test_empty_arrays_are_complained_of(mlp):
    none, no_labels = np.empty((0, 4), np.float32), np.empty(0, np.int32)
    with mlp() as model:
        for call in (lambda: model.predict(none),
                     lambda: model.step(none, no_labels),
                     lambda: model.fit(none, no_labels, progress=False),
                     lambda: model.evaluate(none, no_labels)):
            with pytest.raises(fl.EmptyError):
                call()
    with fl.Compressor(3, "f32") as compressor:
        with pytest.raises(fl.PeerDataError):
            compressor.decode(np.empty(0, np.uint8), fl.Scale(norms=[1]))


def test_scalars_are_vectors_of_one():
    with fl.Compressor(1, "f32") as compressor:
        assert compressor.measure(3.0) == 3.0
        assert compressor.measure(np.float64(3.0)) == 3.0


def test_numbers_beyond_float32_are_not_finite(mlp, recwarn):
    with mlp() as model, pytest.raises(fl.NotFiniteError):
        model.set_weights(np.full(131, 1e300))
    assert not recwarn


def test_bytes_with_gaps_are_refused():
    with fl.Compressor(3, "f32") as compressor:
        with pytest.raises(TypeError, match="data: .* contiguous bytes"):
            compressor.decode(np.zeros(128, np.uint8)[::2],
                              fl.Scale(norms=[1]))


class Tensor:
    """What PyTorch's tensors look like from outside."""

    def __init__(self, values):
        self.values, self.shape = np.asarray(values), np.shape(values)

    def detach(self):
        return self

    def cpu(self):
        return self.values

    def __array__(self, *arguments, **keywords):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


def test_tensors_with_a_gradient_are_taken(mlp, blobs):
    x, y = blobs(8)
    with fl.Model.from_tensors({"w": Tensor([[1, 2], [3, 4]])}) as loose:
        assert loose.weights.tolist() == [1, 2, 3, 4]
    with mlp() as model:
        assert (model.predict(Tensor(x)) == model.predict(x)).all()
        assert model.step(Tensor(x), Tensor(y), 0.0) == model.step(x, y, 0.0)


# Numbers that ctypes would cut down to size: -1 to 2**32 - 1, 2**32 to 0.
@pytest.mark.parametrize("call", [
    lambda model, n: fl.Server().add_job(model, rounds=n),
    lambda model, n: fl.Client("c", max_retries=n),
    lambda model, n: fl.CodecOptions(bits=n)._struct(),
    lambda model, n: fl.Scale(slots=n)._struct(),
    lambda model, n: n in fl.Compressor(1, "f32").partial(
        fl.Scale(norms=[1])),
    lambda model, n: model.fit(np.zeros((2, 4)), [0, 1], epochs=n)])
@pytest.mark.parametrize("number", [-1, 2**32, 2**64])
def test_numbers_that_do_not_fit_are_refused(mlp, call, number):
    with mlp() as model:
        with pytest.raises(ValueError, match=rf"got {number}, want 0\.\."):
            call(model, number)
        with pytest.raises(TypeError, match="want an integer"):
            call(model, 1.5)


@pytest.mark.parametrize("call", [
    lambda n: fl.Server().recv(n, b""), lambda n: fl.Server().tick(n),
    lambda n: fl.Server().send(n), lambda n: fl.Server().disconnected(n),
    lambda n: fl.Server().wants_close(n),
    lambda n: fl.Server().has_unsent(n), lambda n: fl.Client("c").poll(n),
    lambda n: fl.Model([fl.Tensor("w", [2])]).init_weights(n),
    lambda n: fl.Compressor(1, "f32").measure([1], samples=n)])
def test_arguments_of_64_bits_do_not_wrap(call):
    for number in (-1, 2**64):
        with pytest.raises(ValueError, match=f"got {number}, want 0"):
            call(number)


def test_numpy_integers_are_integers(mlp):
    with mlp() as model, fl.Server() as server:
        job = server.add_job(model, rounds=np.int64(3), seed=np.uint8(1))
        assert job.status.rounds == 3
        server.tick(np.int64(5))
        model.init_weights(np.int32(7))
    fl.Client("c", samples=np.int64(8)).close()
    fl.Model([fl.Input(np.array([4])), fl.Dense(np.int8(3)),
              fl.SoftmaxCrossEntropy()]).close()
    with pytest.raises(TypeError, match="want an integer"):
        fl.Model([fl.Tensor("w", [2.5])])


@pytest.mark.parametrize("call", [
    lambda model: model.find("dense1.weight\0"),
    lambda model: fl.Client("c\0d"), lambda model: fl.Client("c", job="\0"),
    lambda model: fl.Client("c", device_class="x\0"),
    lambda model: fl.Model([fl.Tensor("w\0", [1])]),
    lambda model: fl.Server().add_job(model, name="\0")])
def test_text_with_a_nul_is_refused(mlp, call):
    with mlp() as model, pytest.raises(ValueError, match="a NUL in it"):
        call(model)
