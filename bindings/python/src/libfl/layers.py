# SPDX-License-Identifier: Apache-2.0
"""What a model is made of: layers and loose tensors.

Plain descriptions without state; Model turns a list of them into a model.
Layers without a name are called after their kind and place: dense1, relu1.
"""
from __future__ import annotations

import dataclasses
from typing import Any, Sequence, Union

import numpy as np

from . import _args, _lib, _np
from ._lib import lib


def _dims(shape: Sequence[int], name: str) -> tuple[Any, int]:
    """Return (pointer, count) of a shape; C checks it again."""
    if any(size < 1 for size in shape):
        raise ValueError(f"{name}: got shape {list(shape)}, want sizes >= 1")
    sizes = [_args.u64(size, name) for size in shape]
    return _np.u64_pointer(np.array(sizes, np.uint64)), len(sizes)


@dataclasses.dataclass(frozen=True)
class Input:
    """One sample's shape, and the affine map value * scale + shift that is
    applied on the way in (uint8 pixels: scale 1/255)."""

    shape: Sequence[int]
    scale: float = 1.0
    shift: float = 0.0

    def _add(self, builder: Any, _name: str) -> None:
        lib.fl_model_builder_input(builder, *_dims(self.shape, "Input"),
                                   self.scale, self.shift)


@dataclasses.dataclass(frozen=True)
class Flatten:
    """Reshape each sample to one dimension."""

    name: str = ""

    def _add(self, builder: Any, name: str) -> None:
        lib.fl_model_builder_flatten(builder, _args.c_text(name, "name"))


@dataclasses.dataclass(frozen=True)
class Dense:
    """Fully connected with bias: y = x W^T + b, W of shape [units, inputs].
    `module`: tensors that are frozen and weighted together; None = one of
    its own."""

    units: int
    name: str = ""
    module: int | None = None

    def _add(self, builder: Any, name: str) -> None:
        _module(builder, self.module)
        lib.fl_model_builder_dense(builder, _args.c_text(name, "name"),
                                   _args.u64(self.units, f"{name}: units"))


@dataclasses.dataclass(frozen=True)
class ReLU:
    """max(x, 0), element by element."""

    name: str = ""

    def _add(self, builder: Any, name: str) -> None:
        lib.fl_model_builder_relu(builder, _args.c_text(name, "name"))


@dataclasses.dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """The loss: mean over the batch, labels 0..classes-1."""

    name: str = ""

    def _add(self, builder: Any, name: str) -> None:
        lib.fl_model_builder_softmax_cross_entropy(
            builder, _args.c_text(name, "name"))


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A named float32 tensor without a layer, for hosts with a trainer of
    their own. Tensors that are not trainable are kept, yet not sent."""

    name: str
    shape: Sequence[int]
    is_trainable: bool = True
    module: int | None = None

    def _add(self, builder: Any, name: str) -> None:
        _module(builder, self.module)
        lib.fl_model_builder_tensor(builder, _args.c_text(name, "name"),
                                    *_dims(self.shape, name),
                                    int(self.is_trainable))


Layer = Union[Input, Flatten, Dense, ReLU, SoftmaxCrossEntropy, Tensor]


def _module(builder: Any, module: int | None) -> None:
    if module is not None:
        lib.fl_model_builder_module(builder, _args.u32(module, "module"))


def add_all(builder: Any, layers: Sequence[Layer]) -> None:
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
        add_all(builder, layers)
        model = _lib.Model()
        lib.fl_model_builder_build(builder, _lib.byref(model))
        return model
    finally:
        lib.fl_model_builder_free(builder)
