# SPDX-License-Identifier: Apache-2.0
"""A model's layers as a table, for its repr."""
from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

if TYPE_CHECKING:
    from .model import LayerInfo, TensorInfo

_HEAD = ("name", "kind", "output", "parameters", "module")


def of(layers: Sequence[LayerInfo], tensors: Sequence[TensorInfo]) -> str:
    """Return the rows, each behind a newline: layers, then tensors that
    belong to none."""
    rows = [_HEAD]
    before = ""
    for layer in layers:
        rows.append((layer.name, _kind(layer, before), str(list(layer.shape)),
                     f"{layer.parameters:,}" if layer.tensors else "",
                     _module(layer.module, layer.is_trained)
                     if layer.tensors else ""))
        before = layer.name
    owned = {name for layer in layers for name in layer.tensors}
    for info in tensors:
        if info.name not in owned:
            rows.append((info.name, "tensor", str(list(info.shape)),
                         f"{info.count:,}",
                         _module(info.module, info.is_trainable)))
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    return "".join("\n  " + _row(row, widths) for row in rows)


def _kind(layer: LayerInfo, before: str) -> str:
    """Say where the input comes from, too, unless it is the layer before."""
    if layer.inputs in ((), (before,)):
        return layer.kind
    return f"{layer.kind} of {', '.join(layer.inputs)}"


def _module(module: int, is_trained: bool) -> str:
    return f"{module}" if is_trained else f"{module}, not trained"


def _row(row: Sequence[str], widths: Sequence[int]) -> str:
    name, kind, shape, count = (
        f"{cell:>{width}}" if at == 3 else f"{cell:{width}}"
        for at, (cell, width) in enumerate(zip(row, widths)))
    return f"{name}  {kind}  {shape}  {count}  {row[4]}".rstrip()
