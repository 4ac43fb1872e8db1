# SPDX-License-Identifier: Apache-2.0
"""Samples and labels on their way into a model: fl_dataset from arrays, as
the model's first and last layer want them."""
from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _lib, _np


class Dtype(enum.IntEnum):
    """Element types of tensors and samples."""

    F32 = 1
    U8 = 2
    I32 = 3
    U64 = 4


@dataclasses.dataclass(frozen=True)
class Form:
    """What a model takes and gives: the shapes of one sample, whether samples
    are ids (of a table's rows, or any of 64 bits), whether what is learned are
    numbers instead of labels."""

    input: tuple[int, ...] = ()
    output: tuple[int, ...] = ()
    takes_ids: bool = False
    takes_any_ids: bool = False
    takes_targets: bool = False
    has_graph: bool = False


def dataset(form: Form, x: npt.ArrayLike, y: npt.ArrayLike | None,
            indices: npt.ArrayLike | None = None,
            ids: npt.ArrayLike | None = None) -> Any:
    """Return fl_dataset, which keeps the arrays that it points to."""
    samples = _samples(form, x)
    data = _lib.init(_lib.Dataset)
    data.x_dtype = int({"uint8": Dtype.U8, "int32": Dtype.I32,
                        "uint64": Dtype.U64}.get(samples.dtype.name,
                                                 Dtype.F32))
    data.x = samples.ctypes.data
    data.n = len(samples)
    targets = labels = chosen = names = None
    if y is not None and form.takes_targets:
        targets = _np.f32(y, "y", len(samples) * math.prod(form.output))
        data.targets = _np.f32_pointer(targets)
    elif y is not None:
        labels = _np.i32(y, "y", (len(samples), *form.output[:-1]))
        data.y = _np.i32_pointer(labels)
    if indices is not None:
        chosen = _indices(indices, len(samples))
        data.indices = _np.u32_pointer(chosen)
        data.n_indices = chosen.size
    if ids is not None:
        names = _np.ids(ids, len(samples))
        data.ids = _np.u64_pointer(names)
    data.kept = samples, targets, labels, chosen, names
    return data


def _samples(form: Form, x: npt.ArrayLike) -> np.ndarray[Any, Any]:
    samples = _np.plain(x)
    shape = samples.shape
    if form.takes_any_ids:
        samples = _np.u64(samples, "x")
    elif form.takes_ids:
        samples = _np.i32(samples, "x")
    elif samples.dtype != np.uint8:
        samples = _np.f32(samples, "x")
    samples = np.ascontiguousarray(samples)
    # C reads n samples of the model's size wherever x ends.
    want = math.prod(form.input)
    if form.has_graph and (not shape or samples.size != shape[0] * want):
        raise ValueError(f"x: got shape {list(shape)}, want samples of "
                         f"{want} values each")
    return samples


def _indices(indices: npt.ArrayLike, count: int) -> npt.NDArray[np.uint32]:
    array = _np.plain(indices)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError("indices: want a vector of integers")
    if array.size and (array.min() < 0 or array.max() >= count):
        raise ValueError(f"indices: want values in 0..{count - 1}")
    return array.astype(np.uint32)
