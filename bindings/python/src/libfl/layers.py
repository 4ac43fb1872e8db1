# SPDX-License-Identifier: Apache-2.0
"""What a model is made of: layers, losses and loose tensors.

Plain descriptions without state; Model turns a list of them into a model.
Each takes the output of the one before it; From goes back to an earlier one.
Layers without a name are called after their kind and place: dense1, relu1.

`module` of a layer with tensors: those of one module are frozen and weighted
together; None = one of its own. `trainable=False`: its tensors are fixed, and
no part of updates. Samples are vectors [n], sequences [tokens, width] or images
[channels, height, width]. Names, layout and formulas are PyTorch's.

Model(...) checks them: DimError, a layer does not take the shape before it;
ArgumentError, a value out of range, or a name that is there already or not of
1..127 printable ASCII bytes; NotFoundError, From and Add; NotAllowedError, no
input first, no loss last, or a layer that no other one takes; TooLargeError,
more than 2**31 elements or 4096 layers or tensors.
"""
from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Sequence, Union

import numpy as np

from . import _args, _lib, _np
from ._lib import byref, lib


class Builder:
    """fl_model_builder, and what numbers modules."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer
        self._highest = -1

    def tensors_of(self, layer: Any, name: str) -> None:
        """Say what is to hold for the tensors of the next layer."""
        module = layer.module
        if module is None:
            module = self._highest + 1
        module = _args.u32(module, f"{name}: module")
        lib.fl_model_builder_module(self.pointer, module)
        lib.fl_model_builder_trainable(self.pointer, int(layer.trainable))
        self._highest = max(self._highest, module)

    def loose(self, module: int | None, name: str) -> None:
        """The same for a tensor without a layer, which joins the module begun
        last."""
        lib.fl_model_builder_trainable(self.pointer, 1)
        if module is not None:
            module = _args.u32(module, f"{name}: module")
            lib.fl_model_builder_module(self.pointer, module)
            self._highest = max(self._highest, module)


def _dims(shape: Sequence[int], name: str) -> tuple[Any, int]:
    """Return (pointer, count) of a shape; C checks it again."""
    if any(size < 1 for size in shape):
        raise ValueError(f"{name}: got shape {list(shape)}, want sizes >= 1")
    sizes = [_args.u64(size, name) for size in shape]
    return _np.u64_pointer(np.array(sizes, np.uint64)), len(sizes)


def _text(name: str) -> bytes:
    return _args.c_text(name, "name")


@dataclasses.dataclass(frozen=True)
class Input:
    """One sample's shape, 0 to 8 sizes >= 1, and the affine map value * scale
    + shift that is applied on the way in (uint8 pixels: scale 1/255), finite:
    NotFiniteError. Its name is "input"."""

    shape: Sequence[int]
    scale: float = 1.0
    shift: float = 0.0

    def _add(self, builder: Builder, _name: str) -> None:
        lib.fl_model_builder_input(builder.pointer,
                                   *_dims(self.shape, "Input"),
                                   self.scale, self.shift)


@dataclasses.dataclass(frozen=True)
class From:
    """No layer: what follows goes on from the output of layer `name`."""

    name: str

    def _add(self, builder: Builder, name: str) -> None:
        lib.fl_model_builder_from(builder.pointer, _text(name))


@dataclasses.dataclass(frozen=True)
class Add:
    """Residual: the input plus the output of layer `other`, of one shape."""

    other: str
    name: str = ""

    def _add(self, builder: Builder, name: str) -> None:
        lib.fl_model_builder_add(builder.pointer, _text(name),
                                 _args.c_text(self.other, f"{name}: other"))


@dataclasses.dataclass(frozen=True)
class Flatten:
    """Reshape each sample to one dimension."""

    name: str = ""

    def _add(self, builder: Builder, name: str) -> None:
        lib.fl_model_builder_flatten(builder.pointer, _text(name))


@dataclasses.dataclass(frozen=True)
class Dense:
    """Fully connected with bias, of a vector, or of each token of a sequence
    alike: y = x W^T + b, W of shape [units, inputs]; `units` >= 1."""

    units: int
    name: str = ""
    module: int | None = None
    trainable: bool = True

    def _add(self, builder: Builder, name: str) -> None:
        builder.tensors_of(self, name)
        lib.fl_model_builder_dense(builder.pointer, _text(name),
                                   _args.u64(self.units, f"{name}: units"))


@dataclasses.dataclass(frozen=True)
class Conv2d:
    """Convolution of an image, with bias: W of shape [filters, channels /
    groups, height, width]. `kernel`: one size, or height and width, 1..1024;
    `stride` >= 1; `padding`: zeros on every side, less than the kernel;
    `groups` divides channels and filters, and as many as channels make it
    depthwise."""

    filters: int
    kernel: int | tuple[int, int] = 3
    stride: int = 1
    padding: int = 0
    groups: int = 1
    name: str = ""
    module: int | None = None
    trainable: bool = True

    def _add(self, builder: Builder, name: str) -> None:
        options = _lib.init(_lib.Conv2dOptions)
        height, width = (self.kernel if isinstance(self.kernel, tuple)
                         else (self.kernel, self.kernel))
        options.filters = _args.u32(self.filters, f"{name}: filters")
        options.height = _args.u32(height, f"{name}: kernel")
        options.width = _args.u32(width, f"{name}: kernel")
        options.stride = _args.u32(self.stride, f"{name}: stride")
        options.padding = _args.u32(self.padding, f"{name}: padding")
        options.groups = _args.u32(self.groups, f"{name}: groups")
        builder.tensors_of(self, name)
        lib.fl_model_builder_conv2d(builder.pointer, _text(name),
                                    byref(options))


class _Pool2d:
    """What the two kinds of pooling have in common."""

    size: int
    stride: int | None
    padding: int
    _kind: ClassVar[int]

    def _add(self, builder: Builder, name: str) -> None:
        options = _lib.init(_lib.Pool2dOptions)
        options.kind = self._kind
        options.size = _args.u32(self.size, f"{name}: size")
        stride = self.size if self.stride is None else self.stride
        if stride < 1:  # C's 0 is our None
            raise ValueError(f"{name}: got stride {stride}, want >= 1")
        options.stride = _args.u32(stride, f"{name}: stride")
        options.padding = _args.u32(self.padding, f"{name}: padding")
        lib.fl_model_builder_pool2d(builder.pointer, _text(name),
                                    byref(options))


@dataclasses.dataclass(frozen=True)
class MaxPool2d(_Pool2d):
    """The largest value of each square window of an image's channel. `size`:
    1..15; `stride` >= 1, None = `size`; `padding`: at most half the size."""

    size: int = 2
    stride: int | None = None
    padding: int = 0
    name: str = ""
    _kind: ClassVar[int] = 0


@dataclasses.dataclass(frozen=True)
class AvgPool2d(_Pool2d):
    """The mean of each square window of an image's channel; padding counts.
    Ranges as for MaxPool2d."""

    size: int = 2
    stride: int | None = None
    padding: int = 0
    name: str = ""
    _kind: ClassVar[int] = 1


@dataclasses.dataclass(frozen=True)
class Mean:
    """Mean of each channel of an image, or of a sequence's tokens."""

    name: str = ""

    def _add(self, builder: Builder, name: str) -> None:
        lib.fl_model_builder_mean(builder.pointer, _text(name))


class _Activation:
    """What functions of each element have in common."""

    _kind: ClassVar[int]

    def _add(self, builder: Builder, name: str) -> None:
        lib.fl_model_builder_activation(builder.pointer, _text(name),
                                        self._kind)


def activation_kind(activation: Any) -> int:
    """Return FL_ACTIVATION_* of GELU, ReLU, ..., the class or a layer."""
    kind = activation if isinstance(activation, type) else type(activation)
    if not issubclass(kind, _Activation):
        raise TypeError(f"activation: got {activation!r}, want ReLU, GELU, "
                        f"SiLU, Tanh or Sigmoid")
    return kind._kind


@dataclasses.dataclass(frozen=True)
class ReLU(_Activation):
    """max(x, 0), element by element."""

    name: str = ""
    _kind: ClassVar[int] = 0


@dataclasses.dataclass(frozen=True)
class GELU(_Activation):
    """x Phi(x), exact, element by element."""

    name: str = ""
    _kind: ClassVar[int] = 1


@dataclasses.dataclass(frozen=True)
class SiLU(_Activation):
    """x sigmoid(x), element by element."""

    name: str = ""
    _kind: ClassVar[int] = 2


@dataclasses.dataclass(frozen=True)
class Tanh(_Activation):
    """tanh(x), element by element."""

    name: str = ""
    _kind: ClassVar[int] = 3


@dataclasses.dataclass(frozen=True)
class Sigmoid(_Activation):
    """1 / (1 + exp(-x)), element by element."""

    name: str = ""
    _kind: ClassVar[int] = 4


@dataclasses.dataclass(frozen=True)
class Softmax:
    """Softmax over the last dimension of a vector or sequence. Losses take
    what comes before it."""

    name: str = ""

    def _add(self, builder: Builder, name: str) -> None:
        lib.fl_model_builder_softmax(builder.pointer, _text(name))


@dataclasses.dataclass(frozen=True)
class Dropout:
    """In training, zero each element with probability `rate`, 0 <= rate < 1,
    and scale the others by 1 / (1 - rate). What is zeroed depends on the fit's
    seed and the updates so far."""

    rate: float = 0.5
    name: str = ""

    def _add(self, builder: Builder, name: str) -> None:
        lib.fl_model_builder_dropout(builder.pointer, _text(name), self.rate)


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Rows of a table: ids [tokens] to [tokens, width]. The layer before it
    is the model's input, which no other kind takes then, and samples are
    integers 0..rows-1. `rows`: 1..2**24; `width` >= 1."""

    rows: int
    width: int
    name: str = ""
    module: int | None = None
    trainable: bool = True

    def _add(self, builder: Builder, name: str) -> None:
        builder.tensors_of(self, name)
        lib.fl_model_builder_embedding(builder.pointer, _text(name),
                                       _args.u64(self.rows, f"{name}: rows"),
                                       _args.u64(self.width,
                                                 f"{name}: width"))


@dataclasses.dataclass(frozen=True)
class SparseEmbedding:
    """Rows of any number of ids: ids [fields] to [fields, width]. The layer
    before it is the model's input, which no other one takes then, and samples
    are integers of 64 bits, signed ones by their bits. It has no tensor: rows are those of an
    embedding that is attached to the model, without which NotAllowedError is
    what training and scores raise. They are updated batch by batch:
    ConflictError from accumulate. `width` >= 1."""

    width: int
    name: str = ""
    trainable: bool = True

    def _add(self, builder: Builder, name: str) -> None:
        lib.fl_model_builder_trainable(builder.pointer, int(self.trainable))
        lib.fl_model_builder_sparse_embedding(
            builder.pointer, _text(name),
            _args.u64(self.width, f"{name}: width"))


@dataclasses.dataclass(frozen=True)
class Positions:
    """Add a trained vector to each position of a sequence."""

    name: str = ""
    module: int | None = None
    trainable: bool = True

    def _add(self, builder: Builder, name: str) -> None:
        builder.tensors_of(self, name)
        lib.fl_model_builder_positions(builder.pointer, _text(name))


@dataclasses.dataclass(frozen=True)
class FactorisationMachine:
    """Vectors of two fields or more, [fields, width], to the sum of the dot
    products of all pairs, [1] (Rendle, 2010). With dense layers on the same
    vectors, by way of From and Add, it is DeepFM."""

    name: str = ""

    def _add(self, builder: Builder, name: str) -> None:
        lib.fl_model_builder_factorisation_machine(builder.pointer,
                                                   _text(name))


@dataclasses.dataclass(frozen=True)
class PairwiseDots:
    """The dot product of each pair of vectors (DLRM: Naumov et al., 2019),
    [fields, width] to [fields (fields - 1) / 2]: (1, 0), (2, 0), (2, 1) ...;
    two fields or more."""

    name: str = ""

    def _add(self, builder: Builder, name: str) -> None:
        lib.fl_model_builder_pairwise_dots(builder.pointer, _text(name))


@dataclasses.dataclass(frozen=True)
class LayerNorm:
    """Normalise over the last dimension of a vector or sequence (Ba et al.,
    2016), then scale and shift; 0 < epsilon < 1."""

    epsilon: float = 1e-5
    name: str = ""
    module: int | None = None
    trainable: bool = True

    def _add(self, builder: Builder, name: str) -> None:
        builder.tensors_of(self, name)
        lib.fl_model_builder_layer_norm(builder.pointer, _text(name),
                                        self.epsilon)


@dataclasses.dataclass(frozen=True)
class GroupNorm:
    """Normalise over groups of an image's channels (Wu and He, 2018), then
    scale and shift; `groups` divides the channels, 0 < epsilon < 1."""

    groups: int
    epsilon: float = 1e-5
    name: str = ""
    module: int | None = None
    trainable: bool = True

    def _add(self, builder: Builder, name: str) -> None:
        builder.tensors_of(self, name)
        lib.fl_model_builder_group_norm(builder.pointer, _text(name),
                                        _args.u32(self.groups,
                                                  f"{name}: groups"),
                                        self.epsilon)


@dataclasses.dataclass(frozen=True)
class Attention:
    """Multi-head self-attention of a sequence (Vaswani et al., 2017): the
    layers <name>.in_proj (queries, keys and values), <name>.heads and
    <name>.out_proj, in one module. `heads` divides the width. `is_causal`:
    tokens see themselves and those before them only."""

    heads: int
    is_causal: bool = False
    name: str = ""
    module: int | None = None
    trainable: bool = True

    def _add(self, builder: Builder, name: str) -> None:
        builder.tensors_of(self, name)
        lib.fl_model_builder_attention(builder.pointer, _text(name),
                                       _args.u32(self.heads,
                                                 f"{name}: heads"),
                                       int(self.is_causal))


@dataclasses.dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """Loss: softmax cross-entropy over the last dimension, mean over all
    labels of the batch, each 0..classes-1."""

    name: str = ""

    def _add(self, builder: Builder, name: str) -> None:
        lib.fl_model_builder_softmax_cross_entropy(builder.pointer,
                                                   _text(name))


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
    """Loss: softmax cross-entropy over the last dimension, mean over what has
    a label: samples, or tokens of a sequence (labels [n, tokens]). What is
    labelled `ignore_index` does not count. `label_smoothing`: 0..1."""

    ignore_index: int = -100
    label_smoothing: float = 0.0
    name: str = ""

    def _add(self, builder: Builder, name: str) -> None:
        options = _lib.init(_lib.CrossEntropyOptions)
        options.ignore_index = _args.i32(self.ignore_index,
                                         f"{name}: ignore_index")
        options.label_smoothing = self.label_smoothing
        lib.fl_model_builder_cross_entropy(builder.pointer, _text(name),
                                           byref(options))


@dataclasses.dataclass(frozen=True)
class MeanSquaredError:
    """Loss: mean of (x - y)^2 over all elements of anything but an image; y
    are numbers."""

    name: str = ""

    def _add(self, builder: Builder, name: str) -> None:
        lib.fl_model_builder_mean_squared_error(builder.pointer, _text(name))


@dataclasses.dataclass(frozen=True)
class BinaryCrossEntropy:
    """Loss: binary cross-entropy of logits, mean over all elements; y are
    numbers in 0..1."""

    name: str = ""

    def _add(self, builder: Builder, name: str) -> None:
        lib.fl_model_builder_binary_cross_entropy(builder.pointer,
                                                  _text(name))


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A named float32 tensor without a layer, for hosts with a trainer of
    their own. Tensors that are not trainable are kept, yet not sent."""

    name: str
    shape: Sequence[int]
    is_trainable: bool = True
    module: int | None = None

    def _add(self, builder: Builder, name: str) -> None:
        builder.loose(self.module, name)
        lib.fl_model_builder_tensor(builder.pointer, _text(name),
                                    *_dims(self.shape, name),
                                    int(self.is_trainable))


Layer = Union[
    Input, From, Add, Flatten, Dense, Conv2d, MaxPool2d, AvgPool2d, Mean,
    ReLU, GELU, SiLU, Tanh, Sigmoid, Softmax, Dropout, Embedding,
    SparseEmbedding, Positions, FactorisationMachine, PairwiseDots, LayerNorm,
    GroupNorm, Attention, SoftmaxCrossEntropy, CrossEntropy, MeanSquaredError,
    BinaryCrossEntropy, Tensor]


def add_all(builder: Builder, layers: Sequence[Layer]) -> None:
    """Add layers to a builder, naming those without a name."""
    used: dict[str, int] = {}
    for layer in layers:
        kind = type(layer).__name__.lower()
        used[kind] = used.get(kind, 0) + 1
        name = getattr(layer, "name", "") or f"{kind}{used[kind]}"
        layer._add(builder, name)


def build(context_pointer: Any, layers: Sequence[Layer]) -> Any:
    """Return the handle of a new model."""
    builder = _lib.new(_lib.ModelBuilder, lib.fl_model_builder_new,
                       context_pointer)
    try:
        add_all(Builder(builder), layers)
        model = _lib.Model()
        lib.fl_model_builder_build(builder, byref(model))
        return model
    finally:
        lib.fl_model_builder_free(builder)
