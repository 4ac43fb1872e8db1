# SPDX-License-Identifier: Apache-2.0
"""Model: named tensors, optionally with layers that can be trained."""
from __future__ import annotations

import dataclasses
import enum
from typing import Any, Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from . import _args, _interrupt, _lib, _np, _progress
from . import layers as _layers
from ._lib import byref, c_double, c_uint32, c_uint64, lib
from ._np import BytesLike, F32Array
from .context import Cancel, Context, lease_of
from .layers import Layer, Tensor
from .weights import WeightFiles


class Dtype(enum.IntEnum):
    """Element types of tensors and samples."""

    F32 = 1
    U8 = 2
    I32 = 3


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One tensor: `offset` is the place of its first element in the flat
    weights (trainable ones) or in the part behind them."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: Dtype
    module: int
    is_trainable: bool
    count: int
    offset: int


@dataclasses.dataclass(frozen=True)
class FitProgress:
    """`loss` is the mean over the steps since the last report."""

    epoch: int
    step: int
    steps: int
    loss: float


@dataclasses.dataclass(frozen=True)
class FitResult:
    """`mean_loss` is over the last epoch."""

    steps: int
    samples: int
    mean_loss: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """`class_count` and `class_correct`: samples and hits of each class."""

    loss: float
    count: int
    correct: int
    class_count: npt.NDArray[np.uint64]
    class_correct: npt.NDArray[np.uint64]

    @property
    def accuracy(self) -> float:
        return self.correct / self.count if self.count else float("nan")


class Model(WeightFiles):
    """A model made of layers (libfl.Input, Dense, ...) or loose tensors.

    It is a mapping of tensor names to arrays (copies), and model[name] = x
    sets one. `seed` draws initial weights; without it they are zero.
    """

    def __init__(self, layers: Sequence[Layer], *, seed: int | None = None,
                 context: Context | None = None) -> None:
        pointer, lease = lease_of(context)
        self._own(_layers.build(pointer, layers), lib.fl_model_free, lease)
        self._index = {info.name: info for info in self.tensors()}
        if seed is not None:
            self.init_weights(seed)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.ArrayLike], *,
                     context: Context | None = None) -> Model:
        """Make a model of named arrays, holding their values: for hosts
        with a trainer of their own. All of them are trainable."""
        model = cls([Tensor(name, np.shape(value))
                     for name, value in tensors.items()], context=context)
        model.load(tensors)
        return model

    @classmethod
    def from_description(cls, data: BytesLike, *,
                         context: Context | None = None) -> Model:
        """Make a model from `Model.description`; its weights are zero."""
        pointer, lease = lease_of(context)
        self = cls.__new__(cls)
        self._own(_lib.new(_lib.Model, lib.fl_model_from_description, pointer,
                           *_np.data(data, "data")), lib.fl_model_free, lease)
        self._index = {info.name: info for info in self.tensors()}
        return self

    # ---- what it is ------------------------------------------------------

    def tensors(self) -> list[TensorInfo]:
        """Describe all tensors, in order of declaration."""
        result = []
        for index in range(lib.fl_model_tensor_count(self._handle)):
            info = _lib.init(_lib.TensorInfo)
            lib.fl_model_get_tensor(self._handle, index, byref(info))
            result.append(TensorInfo(
                index, _lib.text(info.name), tuple(info.dims[:info.n_dims]),
                Dtype(info.dtype), info.module, bool(info.is_trainable),
                info.count, info.offset))
        return result

    def find(self, name: str) -> int:
        """Return a tensor's index; NotFoundError."""
        index = c_uint32()
        lib.fl_model_find_tensor(self._handle, _args.c_text(name, "name"),
                                 byref(index))
        return index.value

    @property
    def description(self) -> bytes:
        """The model without its weights, canonical bytes."""
        return _lib.copy_bytes(lib.fl_model_copy_description, self._handle)

    @property
    def schema(self) -> bytes:
        """Hash over names, shapes, modules and flags of the tensors."""
        digest = np.empty(_lib.HASH_BYTES, np.uint8)
        lib.fl_model_copy_schema(self._handle,
                                 digest.ctypes.data_as(_lib.U8P))
        return digest.tobytes()

    @property
    def segments(self) -> list[int]:
        """Lengths of the flat weights' runs, for Compressor."""
        sizes = np.empty(lib.fl_model_segment_count(self._handle), np.uint64)
        lib.fl_model_copy_segments(self._handle, _np.u64_pointer(sizes),
                                   sizes.size)
        return [int(size) for size in sizes]

    @property
    def weight_count(self) -> int:
        """Number of trainable parameters."""
        return int(lib.fl_model_weight_count(self._handle))

    @property
    def input_count(self) -> int:
        """Values per sample of the input; 0 for models without layers."""
        return int(lib.fl_model_input_count(self._handle))

    @property
    def output_count(self) -> int:
        """Outputs per sample; 0 for models without layers."""
        return int(lib.fl_model_output_count(self._handle))

    def self_test(self) -> None:
        """Prove that what is set is what is got, and restore it."""
        lib.fl_model_self_test(self._handle)

    def __repr__(self) -> str:
        if self.is_closed:
            return "Model(closed)"
        outputs = self.output_count
        lines = [f"Model({self.weight_count:,} weights"
                 + (f", {outputs} outputs)" if outputs else ")")]
        width = max(map(len, self._index), default=0)
        for info in self._index.values():
            kept = "" if info.is_trainable else ", not trainable"
            lines.append(f"  {info.name:{width}}  {list(info.shape)}  "
                         f"module {info.module}{kept}")
        return "\n".join(lines)

    def __reduce__(self) -> Any:
        """Copies and pickles have a model of their own: the description and
        the tensors' values, without the context."""
        return _rebuild, (self.description, dict(self))

    # Two models with equal tensors are still two models.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    # ---- tensors ---------------------------------------------------------

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __getitem__(self, name: str) -> F32Array:
        info = self._index[name]
        values = np.empty(info.shape, np.float32)
        lib.fl_model_copy_tensor(self._handle, info.index,
                                 _np.f32_pointer(values), values.size)
        return values

    def __setitem__(self, name: str, value: npt.ArrayLike) -> None:
        info = self._index[name]
        array = _np.f32(value, name)
        if array.shape != info.shape:
            raise ValueError(f"{name}: got shape {list(array.shape)}, "
                             f"want {list(info.shape)}")
        lib.fl_model_set_tensor(self._handle, info.index,
                                _np.f32_pointer(array), array.size)

    def load(self, tensors: Mapping[str, npt.ArrayLike]) -> None:
        """Set all tensors by name; the names must be the model's own."""
        if set(tensors) != set(self._index):
            wrong = sorted(set(tensors) ^ set(self._index))
            raise ValueError(f"tensors: names do not agree: {wrong}")
        for name in self._index:
            self[name] = tensors[name]

    @property
    def weights(self) -> F32Array:
        """All trainable weights as one vector, a view without a copy:
        writing to it writes to the model. The view outlives close()."""
        pointer, count = _lib.F32P(), c_uint64()
        lease = self._lease()
        lib.fl_model_get_weights(lease.pointer, byref(pointer), byref(count))
        return _np.view(pointer, count.value, lease)

    @weights.setter
    def weights(self, values: npt.ArrayLike) -> None:
        self.set_weights(values)

    def set_weights(self, values: npt.ArrayLike,
                    schema: bytes | None = None) -> None:
        """Replace all trainable weights. `schema` of the model that they
        come from is compared with this one's; None = the caller vouches."""
        array = _np.f32(values, "weights", self.weight_count)
        pointer = None
        if schema is not None:
            pointer, size = _np.data(schema, "schema")
            if size != _lib.HASH_BYTES:
                raise ValueError(f"schema: got {size} bytes, "
                                 f"want {_lib.HASH_BYTES}")
        lib.fl_model_set_weights(self._handle, pointer,
                                 _np.f32_pointer(array), array.size)

    def copy_weights(self, out: F32Array | None = None) -> F32Array:
        """Return a copy of all trainable weights."""
        result = _np.output(out, "out", [self.weight_count])
        lib.fl_model_copy_weights(self._handle, _np.f32_pointer(result),
                                  result.size)
        return result

    def init_weights(self, seed: int) -> None:
        """Draw initial weights, the same on every machine."""
        lib.fl_model_init_weights(self._handle, _args.u64(seed, "seed"))

    # ---- training --------------------------------------------------------

    def step(self, x: npt.ArrayLike, y: npt.ArrayLike,
             learning_rate: float = 0.05) -> float:
        """Take one step of SGD on one batch and return its loss."""
        data = self._dataset(x, y)
        loss = c_double()
        lib.fl_model_step(self._handle, byref(data), learning_rate,
                          byref(loss))
        return loss.value

    def fit(self, x: npt.ArrayLike, y: npt.ArrayLike, *, epochs: int = 1,
            batch_size: int = 32, learning_rate: float = 0.05,
            shuffle: bool = True, seed: int = 0,
            indices: npt.ArrayLike | None = None,
            progress: Callable[[FitProgress], None] | bool | None = None,
            progress_every: int = 100,
            cancel: Cancel | None = None) -> FitResult:
        """Train with SGD on float32 or uint8 samples `x` and labels `y`.

        `progress`: a function that is told every `progress_every` steps and
        may look at the model, which stands still meanwhile; None = a bar
        when stderr is a terminal, True = always, False = never.
        Ctrl-C stops after the running step (KeyboardInterrupt), and so does
        `cancel.request()` from another thread (CancelledError); the weights
        are then those of the last whole step.
        """
        data = self._dataset(x, y, indices)
        options = _lib.init(_lib.FitOptions)
        options.epochs = epochs
        options.batch_size = batch_size
        options.learning_rate = learning_rate
        options.shuffle = int(shuffle)
        options.seed = seed
        options.progress_every = progress_every
        flag = cancel or Cancel()
        result = _lib.init(_lib.FitResult)
        # Kept until the end, whoever closes them meanwhile.
        raised, handle = flag._handle, self._handle
        options.cancel = raised.pointer

        def call(report: Callable[[FitProgress], None]) -> None:
            def on_progress(pointer: Any, _user: Any) -> None:
                now = pointer.contents
                report(FitProgress(now.epoch, now.step, now.steps, now.loss))

            hook = _lib.FitProgressFn(_lib.keep_exceptions(on_progress))
            if on_report is not None:
                options.progress = hook
            lib.fl_model_fit(handle, byref(data), byref(options),
                             byref(result))

        try:
            with _progress.reporter(progress) as on_report:
                _interrupt.run(call, lambda: lib.fl_cancel_request(raised),
                               on_report)
        finally:
            del raised, handle  # a traceback would keep them longer
        return FitResult(result.steps, result.samples, result.mean_loss)

    def evaluate(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Evaluation:
        """Score the model: mean loss and top-1 hits, in all and by class."""
        data = self._dataset(x, y)
        count = np.zeros(self.output_count, np.uint64)
        correct = np.zeros(self.output_count, np.uint64)
        evaluation = _lib.init(_lib.Evaluation)
        evaluation.class_count = _np.u64_pointer(count)
        evaluation.class_correct = _np.u64_pointer(correct)
        evaluation.class_capacity = count.size
        lib.fl_model_evaluate(self._handle, byref(data), byref(evaluation))
        return Evaluation(evaluation.loss, evaluation.count,
                          evaluation.correct, count, correct)

    def predict(self, x: npt.ArrayLike,
                out: F32Array | None = None) -> F32Array:
        """Return logits, one row per sample."""
        data = self._dataset(x, None)
        result = _np.output(out, "out", [data.n, self.output_count])
        lib.fl_model_predict(self._handle, byref(data),
                             _np.f32_pointer(result), result.size)
        return result

    def _dataset(self, x: npt.ArrayLike, y: npt.ArrayLike | None,
                 indices: npt.ArrayLike | None = None) -> Any:
        """Return fl_dataset, which keeps the arrays that it points to."""
        samples = _np.plain(x)
        shape = samples.shape
        if samples.dtype != np.uint8:
            samples = _np.f32(samples, "x")
        samples = np.ascontiguousarray(samples)
        # C reads n samples of the model's size wherever x ends.
        want = self.input_count
        if want and (not shape or samples.size != len(samples) * want):
            raise ValueError(f"x: got shape {list(shape)}, want samples "
                             f"of {want} values each")
        data = _lib.init(_lib.Dataset)
        data.x_dtype = int(Dtype.U8 if samples.dtype == np.uint8
                           else Dtype.F32)
        data.x = samples.ctypes.data
        data.n = len(samples)
        labels = chosen = None
        if y is not None:
            labels = _np.i32(y, "y", len(samples))
            data.y = labels.ctypes.data_as(_lib.I32P)
        if indices is not None:
            chosen = _indices(indices, len(samples))
            data.indices = chosen.ctypes.data_as(_lib.U32P)
            data.n_indices = chosen.size
        data.kept = samples, labels, chosen
        return data


def _rebuild(description: bytes, tensors: dict[str, F32Array]) -> Model:
    model = Model.from_description(description)
    model.load(tensors)
    return model


def _indices(indices: npt.ArrayLike, count: int) -> npt.NDArray[np.uint32]:
    array = _np.plain(indices)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError("indices: want a vector of integers")
    if array.size and (array.min() < 0 or array.max() >= count):
        raise ValueError(f"indices: want values in 0..{count - 1}")
    return array.astype(np.uint32)
