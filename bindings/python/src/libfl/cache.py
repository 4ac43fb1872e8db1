# SPDX-License-Identifier: Apache-2.0
"""Activation cache: what a frozen prefix of layers computes, kept by
sample."""
from __future__ import annotations

import dataclasses
import enum
import os
import pathlib
from typing import Any

import numpy.typing as npt

from . import _args, _lib, _np
from ._err import EmptyError
from ._handle import Handle
from ._lib import byref, lib
from ._np import BytesLike, F32Array
from .context import Context, lease_of


class CacheDtype(enum.IntEnum):
    """How rows are kept."""

    F32 = 1
    F16 = 2
    I8 = 3


@dataclasses.dataclass(frozen=True)
class CacheStatus:
    """`rows` of `n_samples` are there; `hits` and `misses` count rows that
    were asked for."""

    is_on: bool
    n_samples: int
    n_values: int
    rows: int
    bytes: int
    hits: int
    misses: int


def _dtype(value: str | CacheDtype) -> CacheDtype:
    if not isinstance(value, str):
        return CacheDtype(value)
    try:
        return CacheDtype[value.upper()]
    except KeyError:
        raise ValueError(f"dtype: got {value!r}, want f32, f16 or i8"
                         ) from None


def _exactly(value: BytesLike, size: int, name: str) -> Any:
    """Return a pointer to that many bytes, which keeps them alive."""
    pointer, n = _np.data(value, name)
    if n != size:
        raise ValueError(f"{name}: got {n} bytes, want {size}")
    return pointer


class ActivationCache(Handle):
    """Rows of float32, one per sample of a data set, that `begin` says what
    they are of. Where a row is missing or damaged it is computed again.

    `dtype`: f32 (bit for bit), f16 or i8. `byte_cap`: bound in bytes, header
    and bitmap included. `path`: a file to keep them in, whose name is of
    a-z 0-9 . _ - without a dot first; without one they are in memory (of
    `context`). `key`: 32 bytes; rows are encrypted and authenticated.
    `data_tag`: 32 bytes that name the data set. Rows are as private as the
    data set is.
    """

    def __init__(self, *, dtype: str | CacheDtype = "f32",
                 byte_cap: int | None = None,
                 path: str | os.PathLike[str] | None = None,
                 key: BytesLike | None = None,
                 data_tag: BytesLike | None = None,
                 context: Context | None = None) -> None:
        self._dtype = _dtype(dtype)
        self._path = None if path is None else pathlib.Path(path)
        options = _lib.init(_lib.CacheOptions)
        options.dtype = int(self._dtype)
        if byte_cap is not None:
            options.byte_cap = byte_cap
        if key is not None:
            options.key = _exactly(key, _lib.CACHE_KEY_BYTES, "key")
        if data_tag is not None:
            options.data_tag = _exactly(data_tag, _lib.HASH_BYTES, "data_tag")
        if self._path is not None:
            if context is not None:
                raise ValueError("path: want no context with it")
            context = Context(storage=self._path.parent)
            options.name = _args.c_text(self._path.name, "path")
        pointer, lease = lease_of(context)
        self._own(_lib.new(_lib.Cache, lib.fl_cache_new, pointer,
                           byref(options)), lib.fl_cache_free, lease)

    def begin(self, tag: BytesLike, n_samples: int, n_values: int) -> None:
        """From now on rows are those of `tag`, 32 bytes: a hash of all that
        they depend on. What is kept of the same stays, else all is forgotten.
        After an error the cache is off; LimitError: above byte_cap."""
        lib.fl_cache_begin(self._handle,
                           _exactly(tag, _lib.HASH_BYTES, "tag"),
                           _args.u64(n_samples, "n_samples"),
                           _args.u64(n_values, "n_values"))

    def put(self, ids: npt.ArrayLike, rows: npt.ArrayLike) -> None:
        """Keep a row for each id."""
        which = _np.ids(ids)
        array = _np.f32(rows, "rows", which.size * self.status.n_values
                        if self.is_on else None)
        lib.fl_cache_put(self._handle, _np.u64_pointer(which), which.size,
                         _np.f32_pointer(array))

    def get(self, ids: npt.ArrayLike, out: F32Array | None = None
            ) -> F32Array | None:
        """Return the rows [n, n_values], or None when one is not there."""
        which = _np.ids(ids)
        rows = _np.output(out, "out", [which.size, self.status.n_values])
        try:
            lib.fl_cache_get(self._handle, _np.u64_pointer(which), which.size,
                             _np.f32_pointer(rows))
        except EmptyError:
            return None
        return rows

    def has(self, ids: npt.ArrayLike) -> bool:
        """Are all of these there, as far as one can tell without reading?"""
        which = _np.ids(ids)
        return bool(lib.fl_cache_has(self._handle, _np.u64_pointer(which),
                                     which.size))

    def prefetch(self, ids: npt.ArrayLike) -> None:
        """Say what `get` will ask for soon."""
        which = _np.ids(ids)
        lib.fl_cache_prefetch(self._handle, _np.u64_pointer(which),
                              which.size)

    def flush(self) -> None:
        """Return when what was put would survive a crash of the machine."""
        lib.fl_cache_flush(self._handle)

    def wipe(self) -> None:
        """Forget everything for good, the file too. It stays off."""
        lib.fl_cache_wipe(self._handle)

    @property
    def status(self) -> CacheStatus:
        status = _lib.init(_lib.CacheStatus)
        lib.fl_cache_get_status(self._handle, byref(status))
        return CacheStatus(
            bool(status.is_on), status.n_samples, status.n_values,
            status.rows, status.bytes, status.hits, status.misses)

    @property
    def is_on(self) -> bool:
        return self.status.is_on

    @property
    def dtype(self) -> CacheDtype:
        return self._dtype

    def __len__(self) -> int:
        """How many rows are there."""
        return self.status.rows

    def __bool__(self) -> bool:
        """An empty cache is one."""
        return True

    def __repr__(self) -> str:
        where = "memory" if self._path is None else repr(str(self._path))
        if self.is_closed:
            state = "closed"
        elif not self.is_on:
            state = "off"
        else:
            status = self.status
            state = (f"{status.rows} of {status.n_samples} rows of "
                     f"{status.n_values} values, {status.bytes} bytes")
        return (f"<libfl.ActivationCache {self._dtype.name.lower()} in "
                f"{where}: {state}>")
