# SPDX-License-Identifier: Apache-2.0
"""Weight files: safetensors against a reader and a writer in numpy, .npz
against numpy's own."""
import io
import json
import os

import numpy as np
import pytest

import libfl as fl

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}


def read_safetensors(data):
    """The format in 12 lines: ({name: array}, metadata)."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__", {})
    data, tensors, at = data[8 + size:], {}, 0
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        assert begin == at, "no gaps, in the order of the header"
        at = end
        tensors[name] = np.frombuffer(
            data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    assert at == len(data)
    return tensors, metadata


def write_safetensors(tensors):
    """Arrays, or bytes that are bf16 values, to a file's bytes."""
    header, data = {}, b""
    for name, value in tensors.items():
        dtype, shape, raw = "BF16", [len(value) // 2], value
        if isinstance(value, np.ndarray):
            dtype = next(key for key, kind in DTYPES.items()
                         if value.dtype == kind)
            shape, raw = list(value.shape), value.tobytes()
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def same(a, b):
    return a.keys() == b.keys() and all(
        a[name].tobytes() == b[name].tobytes() and a[name].shape
        == b[name].shape for name in a)


def test_notes_are_metadata(mlp, tmp_path):
    path = tmp_path / "w.safetensors"
    with mlp() as model:
        model.save_weights(path, {"round": "3", "a \"b\"": "c\\d"})
        raw = path.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        notes = json.loads(raw[8:8 + size])["__metadata__"]
        assert notes.pop("libfl_schema") and notes.pop("format") == "pt"
        assert notes == {"round": "3", "a \"b\"": "c\\d"}
        assert model.load_weights(path).is_same_schema
        for bad in ({"": "x"}, {"format": "x"}, {"x": "ü"}, {"n" * 65: "x"}):
            with pytest.raises(fl.ArgumentError):
                model.save_weights(path, bad)
        assert path.read_bytes() == raw


def test_numpy_reads_what_save_weights_writes(mlp, context):
    with mlp(context=context) as model:
        file = io.BytesIO()
        model.save_weights(file)
        tensors, metadata = read_safetensors(file.getvalue())
        assert list(tensors) == list(model)
        assert same(tensors, dict(model))
        assert metadata == {"format": "pt",
                            "libfl_schema": model.schema.hex()}


def test_load_weights_reads_what_numpy_writes(mlp, rng):
    with mlp() as model:
        want = {name: rng.standard_normal(value.shape).astype(np.float32)
                for name, value in model.items()}
        report = model.load_weights(io.BytesIO(write_safetensors(want)))
        assert same(dict(model), want)
        assert report == fl.LoadReport(list(model), [], 0, 0, None)


def test_paths_and_open_files_go_round(mlp, tmp_path):
    path = tmp_path / "model.safetensors"
    with mlp(seed=1) as model, mlp(seed=2) as other, mlp(seed=3) as third:
        model.save_weights(path)
        assert other.load_weights(str(path)).is_same_schema is True
        assert same(dict(other), dict(model))
        with open(path, "rb", buffering=0) as file:
            third.load_weights(file)
        assert same(dict(third), dict(model))
        assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_halves_and_doubles_are_converted():
    f16 = np.array([1.5, -0.1, 6e-8, 65504], np.float16)
    f64 = np.array([1 / 3, -1e-50, 2.0**100, 1 + 2.0**-24])
    bf16 = np.array([1.0, -2.0, 0.5], np.float32)
    raw = (bf16.view(np.uint32) >> 16).astype("<u2").tobytes()
    with fl.Model([fl.Tensor("h", (4,)), fl.Tensor("d", (4,)),
                   fl.Tensor("b", (3,))]) as model:
        data = write_safetensors({"h": f16, "d": f64, "b": raw})
        assert model.load_weights(io.BytesIO(data)).converted == 3
        assert np.array_equal(model["h"], f16.astype(np.float32))
        assert np.array_equal(model["d"], f64.astype(np.float32))
        assert np.array_equal(model["b"], bf16)


def test_strict_wants_the_same_names_and_shapes(mlp):
    with mlp() as model:
        before = dict(model)
        other = {**before, "extra": np.zeros(3, "<i8")}
        del other["dense1.bias"]
        data = write_safetensors(other)
        with pytest.raises(fl.SchemaError, match="dense1.bias"):
            model.load_weights(io.BytesIO(data))
        report = model.load_weights(io.BytesIO(data), strict=False)
        assert report.missing == ["dense1.bias"] and report.extra == 1
        other["dense2.bias"] = np.zeros(4, np.float32)
        with pytest.raises(fl.DimError, match=r"got \[4\], want \[3\]"):
            model.load_weights(io.BytesIO(write_safetensors(other)),
                               strict=False)
        with pytest.raises(fl.SchemaError, match="no tensor of the file"):
            model.load_weights(io.BytesIO(write_safetensors({})),
                               strict=False)
        assert same(dict(model), before)


def test_what_a_file_object_raises_comes_out(mlp):
    class Broken(io.RawIOBase):
        def read(self, n=-1):
            raise RuntimeError("read")

        def write(self, data):
            raise RuntimeError("write")

    class Talkative(io.RawIOBase):
        def read(self, n=-1):
            return bytes(n + 1)

    with mlp() as model:
        before = dict(model)
        with pytest.raises(RuntimeError, match="read"):
            model.load_weights(Broken())
        with pytest.raises(RuntimeError, match="write"):
            model.save_weights(Broken())
        with pytest.raises(OSError, match="want at most 8"):
            model.load_weights(Talkative())
        with pytest.raises(TypeError):
            model.load_weights(io.StringIO("text"))
        assert same(dict(model), before)


def test_raw_files_may_take_and_give_little_at_a_time(mlp):
    class Slow(io.BytesIO):
        def read(self, n=-1):
            return super().read(min(n, 3))

        def write(self, data):
            return super().write(data[:5])

    with mlp(seed=1) as model, mlp(seed=2) as other:
        file = Slow()
        model.save_weights(file)
        file.seek(0)
        other.load_weights(file)
        assert same(dict(other), dict(model))


@pytest.mark.parametrize("save", ["save_weights", "save_npz"])
def test_a_failed_save_keeps_the_old_file(mlp, tmp_path, save, monkeypatch):
    path = tmp_path / "model"
    path.write_bytes(b"old")
    with mlp() as model:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                getattr(model, save)(path)
        if save == "save_weights":
            model.weights[0] = np.nan
            with pytest.raises(fl.NotFiniteError):
                model.save_weights(path)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_truncated_and_longer_files_change_nothing(mlp):
    with mlp(seed=1) as model, mlp(seed=2) as other:
        before = dict(other)
        file = io.BytesIO()
        model.save_weights(file)
        data = file.getvalue()
        for n in (0, 7, 8, 100, len(data) - 1):
            with pytest.raises(fl.TruncatedError):
                other.load_weights(io.BytesIO(data[:n]))
        with pytest.raises(fl.FormatError, match="goes on"):
            other.load_weights(io.BytesIO(data + b"\0"))
        assert same(dict(other), before)


def test_npz_goes_both_ways(mlp, tmp_path):
    path = tmp_path / "model.npz"
    with mlp(seed=1) as model, mlp(seed=2) as other, mlp(seed=3) as third:
        model.save_npz(path)
        with np.load(path, allow_pickle=False) as archive:
            assert list(archive.files) == list(model)
            assert same(dict(archive), dict(model))
        assert other.load_npz(path).loaded == list(model)
        assert same(dict(other), dict(model))
        np.savez_compressed(path, **{name: value.astype(np.float64)
                                     for name, value in model.items()})
        with open(path, "rb") as file:
            assert third.load_npz(file).converted == 4
        assert same(dict(third), dict(model))


def test_npz_takes_any_tensor_name(tmp_path):
    names = ["file", "a", "a.npy", "x/y", "../z"]
    tensors = {name: np.float32([i]) for i, name in enumerate(names)}
    with fl.Model.from_tensors(tensors) as model, \
            fl.Model.from_tensors({name: np.zeros(1) for name in names}
                                  ) as other:
        model.save_npz(tmp_path / "odd.npz")
        other.load_npz(tmp_path / "odd.npz")
        assert same(dict(other), tensors)


def test_npz_that_does_not_fit_changes_nothing(mlp, tmp_path):
    def archive(**arrays):
        file = io.BytesIO()
        np.savez(file, **arrays)
        file.seek(0)
        return file

    with mlp() as model:
        before = dict(model)
        with pytest.raises(ValueError, match="names do not agree"):
            model.load_npz(archive(**before, extra=np.zeros(1)))
        assert model.load_npz(archive(**before, extra=np.zeros(1)),
                              strict=False).extra == 1
        with pytest.raises(ValueError, match="names do not agree"):
            model.load_npz(archive(nothing=np.zeros(1)), strict=False)
        for bad, kind, text in (
                (np.zeros(4), ValueError, r"dense2.bias: got shape \[4\]"),
                (np.full(3, np.nan), fl.NotFiniteError, "dense2.bias"),
                (np.full(3, 1e39), fl.NotFiniteError, "dense2.bias"),
                (np.array(["a", "b", "c"]), TypeError, "dense2.bias"),
                (np.array([{}, {}, {}]), ValueError, "allow_pickle")):
            changed = {name: value + 1 for name, value in before.items()}
            with pytest.raises(kind, match=text):
                model.load_npz(archive(**{**changed, "dense2.bias": bad}))
            assert same(dict(model), before)
