# SPDX-License-Identifier: Apache-2.0
"""A client's model in files, for models that are larger than the memory for
them."""
from __future__ import annotations

import os
import pathlib

from . import _args, _lib, _np
from ._handle import Handle
from ._lib import byref, lib
from ._np import F32Array
from .context import Context, lease_of


class PagedModel(Handle):
    """Files whose names begin with `path`, in a folder of their own: what
    Client(paged=...) keeps there instead of in memory, of which it takes
    `memory_budget` bytes at most (0 = as many as it needs). The last part of
    `path` is 1..64 of a-z, 0-9, ".", "_" and "-". Files take 3 to 4 times the
    model; one PagedModel at a time has them.

    The client's trainer gets no weights; it reads and writes them here, tensor
    by tensor and step by step, and returns a TrainResult without any. An
    evaluator gets none either, and reads here.
    """

    def __init__(self, path: str | os.PathLike[str], *,
                 memory_budget: int = 0) -> None:
        file = pathlib.Path(path)
        options = _lib.init(_lib.PagedOptions)
        options.name = _args.c_text(file.name, "path")
        options.memory_budget = memory_budget
        self._context = Context(storage=file.parent)
        pointer, lease = lease_of(self._context)
        self._own(_lib.new(_lib.Paged, lib.fl_paged_new, pointer,
                           byref(options)), lib.fl_paged_free, lease)

    def __len__(self) -> int:
        """Weights of the model; 0 before the client has joined."""
        return int(lib.fl_paged_weight_count(self._handle))

    def read(self, first: int, count: int) -> F32Array:
        """Return weights of the model held, from flat index `first` on; in
        a trainer as they were written so far."""
        out = _np.output(None, "out", [_args.u64(count, "count")])
        lib.fl_paged_read(self._handle, _args.u64(first, "first"), count,
                          _np.f32_pointer(out))
        return out

    def write(self, first: int, weights: F32Array) -> None:
        """Say what weights from `first` on are as trained so far."""
        array = _np.f32(weights, "weights")
        lib.fl_paged_write(self._handle, _args.u64(first, "first"),
                           array.size, _np.f32_pointer(array))

    def remove(self) -> None:
        """Remove all files of the model, after its client was closed."""
        lib.fl_paged_remove(self._handle)
