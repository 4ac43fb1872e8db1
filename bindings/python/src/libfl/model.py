# SPDX-License-Identifier: Apache-2.0
"""Model: named tensors, optionally with layers that can be trained."""
from __future__ import annotations

import dataclasses
from typing import Any, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from . import _args, _data, _lib, _np, _table
from . import layers as _layers
from ._data import Dtype
from ._lib import byref, c_uint32, c_uint64, lib
from ._np import BytesLike, F32Array
from .context import Context, lease_of
from .layers import GELU, Layer, Tensor
from .training import Training

_LOSSES_OF_NUMBERS = ("mean_squared_error", "binary_cross_entropy")


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
class LayerInfo:
    """One layer: `kind` is what it does, `inputs` names the layers that it
    takes, `shape` is one sample's output, `parameters` counts the elements of
    `tensors`. `is_trained`: a step changes one of them."""

    index: int
    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    module: int
    is_trained: bool
    tensors: tuple[str, ...]
    parameters: int


class Model(Training):
    """A model made of layers (libfl.Input, Dense, ...) or loose tensors.

    It is a mapping of tensor names to arrays (copies), and model[name] = x
    sets one (ValueError: its shape; NotFiniteError). `seed`, 0..2**64 - 1,
    draws initial weights; without it they are zero. Setting weights leaves the
    optimiser's state as it is. What layers are refused for: libfl.layers.
    """

    def __init__(self, layers: Sequence[Layer], *, seed: int | None = None,
                 context: Context | None = None) -> None:
        pointer, lease = lease_of(context)
        self._adopt(_layers.build(pointer, layers), lease)
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
        """Make a model from `Model.description`; its weights are zero.
        Malformed bytes are a PeerDataError; UnsupportedError names a layer
        that this build does not know."""
        pointer, lease = lease_of(context)
        self = cls.__new__(cls)
        self._adopt(_lib.new(_lib.Model, lib.fl_model_from_description,
                             pointer, *_np.data(data, "data")), lease)
        return self

    def _adopt(self, pointer: Any, *keep: object) -> None:
        """Own a handle, and learn what it is."""
        self._own(pointer, lib.fl_model_free, *keep)
        self._index = {info.name: info for info in self.tensors()}
        layers = self.layers()
        if layers:
            self._form = _data.Form(
                layers[0].shape, layers[-1].shape,
                any(layer.kind == "embedding" for layer in layers),
                any(layer.kind == "sparse_embedding" for layer in layers),
                layers[-1].kind in _LOSSES_OF_NUMBERS, True)
        else:
            self._form = _data.Form()

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

    def layers(self) -> list[LayerInfo]:
        """Describe all layers, from the input to the loss; an Attention is
        three of them."""
        result: list[LayerInfo] = []
        tensors = list(self._index)
        for index in range(lib.fl_model_layer_count(self._handle)):
            info = _lib.init(_lib.LayerInfo)
            lib.fl_model_get_layer(self._handle, index, byref(info))
            result.append(LayerInfo(
                index, _lib.text(info.name), _lib.text(info.kind),
                tuple(result[at].name for at in info.inputs[:info.n_inputs]),
                tuple(info.dims[:info.n_dims]), info.module,
                bool(info.is_trained),
                tuple(tensors[info.first_tensor:
                              info.first_tensor + info.n_tensors]),
                info.n_parameters))
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
    def segment_modules(self) -> list[int]:
        """The module that each segment belongs to: what is frozen with it."""
        count = lib.fl_model_segment_count(self._handle)
        modules = np.empty(count, np.uint32)
        lib.fl_model_copy_segment_modules(
            self._handle, modules.ctypes.data_as(_lib.U32P), count)
        return [int(module) for module in modules]

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
        """Prove that what is set is what is got, and restore it. InternalError
        names the tensor that failed."""
        lib.fl_model_self_test(self._handle)

    def __repr__(self) -> str:
        if self.is_closed:
            return "Model(closed)"
        outputs = self.output_count
        return (f"Model({self.weight_count:,} weights"
                + (f", {outputs} outputs)" if outputs else ")")
                + _table.of(self.layers(), list(self._index.values())))

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
        come from is compared with this one's; None = the caller vouches.
        SchemaError, NotFiniteError and ValueError (their number) change
        nothing."""
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
        """Begin anew: set all tensors of layers to initial values, the same on
        every machine. Loose tensors stay as they are."""
        lib.fl_model_init_weights(self._handle, _args.u64(seed, "seed"))

    # ---- adapters --------------------------------------------------------

    def with_lora(self, rank: int = 8, alpha: float = 16.0, *,
                  layers: str | None = None, trained: str | None = None,
                  seed: int = 0) -> Model:
        """Make a model like this one, its weights fixed, with low-rank
        updates added to its dense layers (Hu et al., "LoRA", 2021): only
        they, and what stays trained, are part of weights and updates.

        `layers`: those whose name contains this text get one; None = all but
        the last dense one. `trained`: those whose name contains this text
        stay trained, unless they are fixed here; None = the last dense one,
        "" = none. `rank` >= 1; 0 < `alpha` < 1e6; the update's factor is alpha
        / rank. NotFoundError: no such layer; ConflictError: a layer is chosen
        for both; ArgumentError.

        Of this model the weights are copied and it is not changed; optimiser,
        hook, limit and first_active of the new one are those of a new model.
        """
        options = _lib.init(_lib.LoraOptions)
        options.rank = rank
        options.alpha = alpha
        return self._adapted(lib.fl_model_with_lora, options, layers, trained,
                             seed)

    def with_adapters(self, width: int = 16, activation: Any = GELU, *,
                      layers: str | None = None, trained: str | None = None,
                      seed: int = 0) -> Model:
        """Make a model like this one, its weights fixed, with bottlenecks of
        `width` >= 1 behind its dense layers (Houlsby et al., 2019).
        `activation`: ReLU, GELU, SiLU, Tanh or Sigmoid. `layers` as for
        with_lora; None = those whose output goes into a sum, or without such,
        all but the last one. All else as for with_lora."""
        options = _lib.init(_lib.AdapterOptions)
        options.width = width
        options.activation = _layers.activation_kind(activation)
        return self._adapted(lib.fl_model_with_adapters, options, layers,
                             trained, seed)

    def merge_lora(self) -> Model:
        """Make a model with LoRA's updates folded into the weights: without
        them, as fast as the one that they were added to, with the same tensors
        trained and fixed. This model is not changed."""
        return self._derived(lib.fl_model_merge_lora)

    def _adapted(self, function: Any, options: Any, layers: str | None,
                 trained: str | None, seed: int) -> Model:
        if layers is not None:
            options.layers = _args.c_text(layers, "layers")
        if trained is not None:
            options.trained = _args.c_text(trained, "trained")
        return self._derived(function, byref(options),
                             _args.u64(seed, "seed"))

    def _derived(self, function: Any, *arguments: Any) -> Model:
        model = type(self).__new__(type(self))
        model._adopt(_lib.new(_lib.Model, function, self._handle, *arguments),
                     *self._lease().keep)
        return model


def _rebuild(description: bytes, tensors: dict[str, F32Array]) -> Model:
    model = Model.from_description(description)
    model.load(tensors)
    return model
